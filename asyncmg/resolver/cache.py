"""Answers that are kept for as long as their servers allow, and that there are none (RFC 2308)."""

from __future__ import annotations

from collections import OrderedDict

from asyncmg.errors import NameNotFound

from .answer import DnsAnswer, not_found

Key = tuple[str, int]  # folded name, type


class Cache:
    """Answers by name and type. The clock is an argument.

    Args:
        max_entries: behind that, the one that was not used for longest goes.
        max_ttl, max_negative_ttl: seconds for which an answer, or that there is none, is kept at most.
    """

    __slots__ = ("_entries", "_max_entries", "_max_negative_ttl", "_max_ttl")

    def __init__(self, max_entries: int, max_ttl: float, max_negative_ttl: float) -> None:
        self._entries: OrderedDict[Key, tuple[float, DnsAnswer | int]] = OrderedDict()
        self._max_entries = max_entries
        self._max_ttl = max_ttl
        self._max_negative_ttl = max_negative_ttl

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Key, now: float) -> DnsAnswer | NameNotFound | None:
        """Return an answer with the seconds that are left to it, or the exception that says there is none."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        expires, kept = entry
        if expires <= now:
            self._entries.pop(key, None)
            return None
        self._entries.move_to_end(key)
        if isinstance(kept, int):
            return not_found(key[0], key[1], kept)
        answer = kept.copy()
        answer.ttl = expires - now
        return answer

    def put(self, key: Key, answer: DnsAnswer, now: float) -> None:
        self._keep(key, answer.copy(), now, min(answer.ttl, self._max_ttl))

    def put_absent(self, key: Key, rcode: int, ttl: float, now: float) -> None:
        self._keep(key, rcode, now, min(ttl, self._max_negative_ttl))

    def _keep(self, key: Key, kept: DnsAnswer | int, now: float, ttl: float) -> None:
        if ttl <= 0:
            return
        self._entries[key] = (now + ttl, kept)
        self._entries.move_to_end(key)
        while len(self._entries) > self._max_entries:
            self._entries.popitem(last=False)

    def clear(self) -> None:
        self._entries.clear()
