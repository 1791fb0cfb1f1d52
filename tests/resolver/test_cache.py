"""The cache: times to live, what is not there, and which answer goes first. The clock is an argument."""

from __future__ import annotations

import pytest

from asyncmg import DnsAnswer, NameNotFound
from asyncmg.resolver.cache import Cache


def answer(address: str = "192.0.2.1", ttl: float = 60.0) -> DnsAnswer:
    return DnsAnswer([address], "a.test", 1, ttl, ["alias.test"])


def test_an_answer_lives_as_long_as_it_may() -> None:
    cache = Cache(10, 1000.0, 100.0)
    cache.put(("a.test", 1), answer(), 50.0)
    kept = cache.get(("a.test", 1), 60.0)
    assert isinstance(kept, DnsAnswer)
    assert kept == ["192.0.2.1"] and kept.ttl == 50.0 and kept.name == "a.test" and kept.aliases == ("alias.test",)
    assert cache.get(("a.test", 1), 109.9) is not None
    assert cache.get(("a.test", 1), 110.0) is None
    assert len(cache) == 0
    assert cache.get(("a.test", 28), 60.0) is None


def test_who_changes_an_answer_does_not_change_the_cache() -> None:
    cache = Cache(10, 1000.0, 100.0)
    given = answer()
    cache.put(("a.test", 1), given, 0.0)
    given.append("spoiled")
    first = cache.get(("a.test", 1), 1.0)
    assert isinstance(first, DnsAnswer) and first == ["192.0.2.1"]
    first.append("spoiled")
    assert cache.get(("a.test", 1), 1.0) == ["192.0.2.1"]


def test_limits_of_the_time() -> None:
    cache = Cache(10, 30.0, 5.0)
    cache.put(("a.test", 1), answer(ttl=1e9), 0.0)
    cache.put_absent(("b.test", 1), 3, 1e9, 0.0)
    assert cache.get(("a.test", 1), 29.0) is not None and cache.get(("b.test", 1), 4.0) is not None
    assert cache.get(("a.test", 1), 31.0) is None and cache.get(("b.test", 1), 6.0) is None


@pytest.mark.parametrize("ttl", [0.0, -1.0])
def test_what_may_not_be_kept(ttl: float) -> None:
    cache = Cache(10, 30.0, 5.0)
    cache.put(("a.test", 1), answer(ttl=ttl), 0.0)
    cache.put_absent(("b.test", 1), 3, ttl, 0.0)
    assert len(cache) == 0
    for off in (Cache(10, 0.0, 0.0), Cache(0, 30.0, 5.0)):
        off.put(("a.test", 1), answer(), 0.0)
        off.put_absent(("b.test", 1), 3, 60.0, 0.0)
        assert len(off) == 0


@pytest.mark.parametrize(("rcode", "told"), [(3, "no such name: b.test"), (0, "b.test has no AAAA records")])
def test_that_there_is_nothing(rcode: int, told: str) -> None:
    cache = Cache(10, 1000.0, 100.0)
    cache.put_absent(("b.test", 28), rcode, 60.0, 0.0)
    kept = cache.get(("b.test", 28), 59.0)
    assert isinstance(kept, NameNotFound) and kept.rcode == rcode and kept.name == "b.test" and str(kept) == told
    assert cache.get(("b.test", 28), 59.0) is not kept, "each gets a traceback of its own"
    assert cache.get(("b.test", 28), 61.0) is None


def test_the_one_not_used_for_longest_goes() -> None:
    cache = Cache(3, 1000.0, 100.0)
    for name in "abc":
        cache.put((name, 1), answer(), 0.0)
    assert cache.get(("a", 1), 1.0) is not None
    cache.put_absent(("d", 1), 3, 60.0, 1.0)
    assert len(cache) == 3
    assert [name for name in "abcd" if cache.get((name, 1), 2.0)] == ["a", "c", "d"]
    cache.put(("c", 1), answer("192.0.2.2"), 3.0)
    assert cache.get(("c", 1), 4.0) == ["192.0.2.2"]
    cache.clear()
    assert len(cache) == 0
