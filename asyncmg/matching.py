"""Text against patterns with the wildcards of Mongoose: ``?``, ``*`` and ``#``."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from enum import StrEnum


class Wildcard(StrEnum):
    """What a wildcard stands for."""

    ONE = "?"  # one character
    RUN = "*"  # any run of characters without "/"
    NAME = "{}"  # the same, not empty
    ANY = "#"  # any run of characters


_SIGNS = {sign.value: sign for sign in (Wildcard.ONE, Wildcard.RUN, Wildcard.ANY)}


class Glob:
    """A pattern that has been taken apart: text, then wildcards, each with the text behind it.

    Args:
        prefix: text in front of the first wildcard.
        parts: pairs of a wildcard and the text between it and the next one.
    """

    __slots__ = ("_parts", "_prefix")

    def __init__(self, prefix: str, parts: Sequence[tuple[Wildcard, str]] = ()) -> None:
        self._prefix = prefix
        self._parts = tuple(parts)

    @classmethod
    def parse(cls, pattern: str) -> Glob:
        """Take a pattern of :func:`match` apart."""
        texts, signs = [""], []
        for character in pattern:
            if character in _SIGNS:
                signs.append(_SIGNS[character])
                texts.append("")
            else:
                texts[-1] += character
        return cls(texts[0], list(zip(signs, texts[1:], strict=True)))

    def captures(self, text: str) -> list[str] | None:
        """Return what the wildcards stand for when the whole text matches, otherwise None.

        Each wildcard takes as little as it can, the first one before the second. The time grows with the length of the
        text times the number of wildcards at most: a place from which a wildcard has failed is not tried again.
        """
        parts = self._parts
        if not parts:
            return [] if text == self._prefix else None
        if not text.startswith(self._prefix):
            return None
        begins = [len(self._prefix)]  # of what the wildcards so far stand for
        tries = [begins[0]]  # where what each of them stands for may end, at the earliest
        dead = [-1] * len(parts)  # a RUN that begins before this has failed
        while begins:
            number = len(begins) - 1
            end = self._end(number, text, begins[-1], tries[-1])
            if end < 0:
                if parts[number][0] is Wildcard.ANY:
                    return None  # begun later it would have less to choose from
                if parts[number][0] is not Wildcard.ONE:
                    dead[number] = _run_end(text, begins[-1]) + 1
                begins.pop()
                tries.pop()
                continue
            tries[-1] = end + 1
            after = end + len(parts[number][1])
            if number + 1 == len(parts):
                begins.append(after)
                return [
                    text[begin : following - len(literal)]
                    for begin, following, (_, literal) in zip(begins, begins[1:], parts, strict=False)
                ]
            if after >= dead[number + 1]:
                begins.append(after)
                tries.append(after)
        return None

    def _end(self, number: int, text: str, begin: int, earliest: int) -> int:
        """Find where a wildcard may end, so that the text of the pattern behind it follows; -1: nowhere."""
        wildcard, literal = self._parts[number]
        latest = len(text) - len(literal)
        if wildcard is Wildcard.ONE:
            earliest, latest = max(earliest, begin + 1), min(latest, begin + 1)
        elif wildcard is not Wildcard.ANY:
            latest = min(latest, _run_end(text, begin))
            if wildcard is Wildcard.NAME:
                earliest = max(earliest, begin + 1)
        if number + 1 == len(self._parts):  # nothing may follow
            end = len(text) - len(literal)
            return end if earliest <= end <= latest and text.endswith(literal) else -1
        # With an empty literal find() answers `earliest` even when that is behind the end it was given.
        return text.find(literal, earliest, latest + len(literal)) if earliest <= latest else -1


def _run_end(text: str, begin: int) -> int:
    slash = text.find("/", begin)
    return len(text) if slash < 0 else slash


_parse = functools.lru_cache(maxsize=256)(Glob.parse)


def match(s: str, pattern: str) -> tuple[bool, list[str]]:
    """Match a whole text against a pattern, as Mongoose does.

    Args:
        s: the text; case matters.
        pattern: ``?`` stands for one character, ``*`` for any run without ``/``, ``#`` for any run. Nothing takes away
            their meaning.

    Returns:
        whether it matches, and what the wildcards stand for, each as short as it can be: ``[]`` without a match.
        Wildcards next to each other count one by one; in Mongoose they share a capture.
    """
    captures = _parse(pattern).captures(s)
    return captures is not None, captures or []
