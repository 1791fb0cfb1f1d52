"""Text against patterns with the wildcards of Mongoose: ``?``, ``*`` and ``#``.

Two algorithms that find the same: a plain search, which is fast for the patterns that people write, and one that goes
through the pattern once and sees all places of the text together, for what would take the search long.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Final

from .errors import AsyncmgError

MAX_WILDCARDS: Final = 1000  # of one pattern; Mongoose crashes at 21


class InvalidPattern(AsyncmgError, ValueError):
    """A pattern has more than MAX_WILDCARDS wildcards."""


class Wildcard(StrEnum):
    """What a wildcard stands for."""

    ONE = "?"  # one character
    RUN = "*"  # any run of characters without "/"
    NAME = "{}"  # the same, not empty
    ANY = "#"  # any run of characters


# A look-up of a member costs 75 ns in Python 3.11.
_ONE: Final = Wildcard.ONE
_RUN: Final = Wildcard.RUN
_NAME: Final = Wildcard.NAME
_ANY: Final = Wildcard.ANY

_SIGNS: Final = {sign.value: sign for sign in (_ONE, _RUN, _ANY)}
_SPLIT: Final = re.compile("([?*#])")
_MAX_STEPS: Final = 200  # of the search, 0.2 ms
_MAX_CACHED: Final = 500  # characters of a pattern that is kept taken apart


class Glob:
    """A pattern that has been taken apart: text, then wildcards, each with the text behind it.

    Args:
        prefix: text in front of the first wildcard.
        parts: pairs of a wildcard and the text between it and the next one.

    Raises:
        InvalidPattern: there are more than MAX_WILDCARDS.
    """

    __slots__ = ("_parts", "_prefix")

    def __init__(self, prefix: str, parts: Sequence[tuple[Wildcard, str]] = ()) -> None:
        self._prefix = prefix
        self._parts = tuple(parts)
        if len(self._parts) > MAX_WILDCARDS:
            raise InvalidPattern(f"{len(self._parts)} wildcards are over max_wildcards={MAX_WILDCARDS}")

    @classmethod
    def parse(cls, pattern: str) -> Glob:
        """Take a pattern of :func:`match` apart."""
        texts = _SPLIT.split(pattern)
        return cls(texts[0], [(_SIGNS[sign], literal) for sign, literal in zip(texts[1::2], texts[2::2], strict=True)])

    def captures(self, text: str) -> list[str] | None:
        """Return what the wildcards stand for when the whole text matches, otherwise None.

        Each wildcard takes as little as it can, the first one before the second. No pattern and no text make it slow:
        10 000 characters of each take a few milliseconds, whatever they are.
        """
        parts = self._parts
        if not parts:
            return [] if text == self._prefix else None
        if not text.startswith(self._prefix):
            return None
        begins = [len(self._prefix)]  # of what the wildcards so far stand for
        tries = [begins[0]]  # where what each of them stands for may end, at the earliest
        dead = [-1] * len(parts)  # a RUN that begins before this has failed
        steps = 0
        while begins:
            steps += 1
            if steps > _MAX_STEPS:
                return self._captures_at_once(text)
            number = len(begins) - 1
            end = self._end(number, text, begins[-1], tries[-1])
            if end < 0:
                if parts[number][0] is _ANY:
                    return None  # begun later it would have less to choose from
                if parts[number][0] is not _ONE:
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

    def _captures_at_once(self, text: str) -> list[str] | None:
        """Do as :meth:`captures`: first from the end, where the rest of the text matches the rest of the pattern.

        These places are the bits of a number. What is counted is the slack: characters that the wildcards behind a
        place may still take, beyond those they must. So a place keeps its bit across all that has a fixed length, and
        of a wildcard only the slack that it uses up matters. One operation handles all bits: the time is that of the
        pattern's length times the slack, divided by some hundreds.
        """
        parts = self._parts
        slack = len(text) - len(self._prefix) - sum([(sign is _ONE) + len(literal) for sign, literal in parts])
        if slack < 0:
            return None
        used, full = (1 << slack) - 1, (2 << slack) - 1
        places = _places_of(text, {"/"}.union(*[literal for _, literal in parts]))
        others = ((1 << len(text)) - 1) ^ places["/"]
        matching = 1  # the end of the text, where no slack is left
        behind: list[int] = []  # where what stands behind each wildcard matches, the last one first
        fixed = 0  # characters that the pattern has behind a place
        any_adds = run_adds = True  # something to the wildcard behind it
        for sign, literal in reversed(parts):
            if literal:
                any_adds = run_adds = True
                for character in literal[::-1]:
                    matching &= places[character] >> fixed
                    fixed += 1
            if not matching:
                return None
            behind.append(matching)
            if sign is _ONE:
                fixed += 1
                run_adds = any_adds  # behind "?" there may be another slash
            elif sign is _ANY:
                if any_adds:
                    matching = full ^ (matching ^ (matching - 1)) >> 1
                    any_adds = run_adds = False
            elif run_adds or sign is _NAME:
                free = (others >> fixed) & used
                # The sum carries each place through the run in front of it (as in Myers' bit-vector algorithm).
                matching |= ((matching & free) + free) ^ free
                any_adds, run_adds = True, False
                if sign is _NAME:
                    matching = (matching & free) << 1
        if not matching >> slack:
            return None
        return self._shortest(text, slack, behind)

    def _shortest(self, text: str, slack: int, behind: list[int]) -> list[str]:
        """Give each wildcard as little as it can take, from the first one on, now that it is known where that is."""
        begin, captures = len(self._prefix), []
        for (sign, literal), places in zip(self._parts, reversed(behind), strict=True):
            if sign is _ONE:
                end = begin + 1
            elif sign is not _NAME and places >> slack & 1:
                end = begin
            else:
                left = slack - (sign is _NAME)
                left = (places & ((2 << left) - 1)).bit_length() - 1
                end, slack = begin + slack - left, left
            captures.append(text[begin:end])
            begin = end + len(literal)
        return captures

    def _end(self, number: int, text: str, begin: int, earliest: int) -> int:
        """Find where a wildcard may end, so that the text of the pattern behind it follows; -1: nowhere."""
        wildcard, literal = self._parts[number]
        latest = len(text) - len(literal)
        if wildcard is _ONE:
            earliest, latest = max(earliest, begin + 1), min(latest, begin + 1)
        elif wildcard is not _ANY:
            latest = min(latest, _run_end(text, begin))
            if wildcard is _NAME:
                earliest = max(earliest, begin + 1)
        if number + 1 == len(self._parts):  # nothing may follow
            end = len(text) - len(literal)
            return end if earliest <= end <= latest and text.endswith(literal) else -1
        # With an empty literal find() answers `earliest` even when that is behind the end it was given.
        return text.find(literal, earliest, latest + len(literal)) if earliest <= latest else -1


def _run_end(text: str, begin: int) -> int:
    slash = text.find("/", begin)
    return len(text) if slash < 0 else slash


def _places_of(text: str, characters: Iterable[str]) -> dict[str, int]:
    """Return for each character where it stands, as the bits of a number; the last place of the text is bit 0."""
    found: dict[str, list[int]] = {character: [] for character in characters}
    for place, character in enumerate(reversed(text)):
        if (places := found.get(character)) is not None:
            places.append(place)
    return {character: _bits(places) for character, places in found.items()}


def _bits(places: list[int]) -> int:
    if len(places) < 8:
        bits = 0
        for place in places:
            bits |= 1 << place
        return bits
    data = bytearray(places[-1] // 8 + 1)
    for place in places:
        data[place >> 3] |= 1 << (place & 7)
    return int.from_bytes(data, "little")


_parse_cached = functools.lru_cache(maxsize=256)(Glob.parse)


def match(s: str, pattern: str) -> tuple[bool, list[str]]:
    """Match a whole text against a pattern, as Mongoose does.

    Args:
        s: the text; case matters.
        pattern: ``?`` stands for one character, ``*`` for any run without ``/``, ``#`` for any run. Nothing takes away
            their meaning.

    Returns:
        whether it matches, and what the wildcards stand for, each as short as it can be: ``[]`` without a match.
        Wildcards next to each other count one by one; in Mongoose they share a capture.

    Raises:
        InvalidPattern: the pattern has more than MAX_WILDCARDS wildcards. (A ValueError.)
        TypeError: one of them is no str.
    """
    glob = _parse_cached(pattern) if len(pattern) <= _MAX_CACHED else Glob.parse(pattern)
    captures = glob.captures(s)
    return captures is not None, captures or []
