"""Multicast DNS (RFC 6762): one-shot queries for names of ``.local``."""

from __future__ import annotations

from asyncmg.codecs.dns import DnsReader
from asyncmg.limits import DnsLimits

from .answer import Found


async def query_mdns(name: str, kind: int, limits: DnsLimits, read: DnsReader) -> Found:
    raise NotImplementedError  # being written
