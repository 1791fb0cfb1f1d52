"""Names with values, in order, repeated ones kept: query parameters and forms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

V = TypeVar("V")


class Pairs(Mapping[str, V]):
    """A mapping from a name to its first value; ``all(name)`` returns every one.

    Attributes:
        pairs: everything, in order.
    """

    __slots__ = ("pairs",)

    def __init__(self, pairs: Iterable[tuple[str, V]] = ()) -> None:
        self.pairs = list(pairs)

    def __getitem__(self, name: str) -> V:
        for key, value in self.pairs:
            if key == name:
                return value
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(dict(self.pairs))

    def __len__(self) -> int:
        return len(dict(self.pairs))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.pairs!r})"

    def all(self, name: str) -> list[V]:
        """Return the values of a name, in order; [] when it is not there."""
        return [value for key, value in self.pairs if key == name]
