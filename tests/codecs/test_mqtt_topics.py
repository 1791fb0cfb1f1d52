"""Topic names, topic filters and the tree of topics (MQTT 5.0 and 3.1.1 section 4.7, 5.0 section 4.8.2)."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncmg.codecs.mqtt_topics import (
    BAD_SHARE_NAME,
    EMPTY_FILTER,
    EMPTY_TOPIC,
    MISPLACED_HASH,
    MISPLACED_PLUS,
    SHARE_WITHOUT_FILTER,
    WILDCARD_IN_TOPIC,
    TopicTree,
    filter_fault,
    matches,
    split_share,
    topic_fault,
)

MATCHES = [
    # The examples of sections 4.7.1.2, 4.7.1.3, 4.7.2 and 4.7.3.
    ("sport/tennis/player1/#", "sport/tennis/player1", True),
    ("sport/tennis/player1/#", "sport/tennis/player1/ranking", True),
    ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", True),
    ("sport/#", "sport", True),
    ("#", "sport", True),
    ("#", "/", True),
    ("sport/tennis/+", "sport/tennis/player1", True),
    ("sport/tennis/+", "sport/tennis/player1/ranking", False),
    ("sport/+", "sport", False),
    ("sport/+", "sport/", True),
    ("+", "sport", True),
    ("+/tennis/#", "sport/tennis", True),
    ("+/+", "/finance", True),
    ("/+", "/finance", True),
    ("+", "/finance", False),
    ("#", "$SYS/monitor", False),
    ("+/monitor/Clients", "$SYS/monitor/Clients", False),
    ("$SYS/#", "$SYS/monitor", True),
    ("$SYS/#", "$SYS", True),
    ("$SYS/monitor/+", "$SYS/monitor/Clients", True),
    ("ACCOUNTS", "Accounts", False),
    ("Accounts payable", "Accounts payable", True),
    ("/finance", "finance", False),
    # Further corners.
    ("+/+/#", "a", False),
    ("+/+/#", "a/b", True),
    ("a/+/#", "a", False),
    ("a//b", "a//b", True),
    ("a/+/b", "a//b", True),
    ("+/$SYS", "a/$SYS", True),
    ("a/#", "a/$SYS", True),
    ("#", "", True),
    ("+", "$", False),
    ("$", "$", True),
    ("a", "a/b", False),
    ("a/b", "a", False),
    ("a/b/#", "a", False),
]


@pytest.mark.parametrize(("topic_filter", "topic", "expected"), MATCHES)
def test_matching(topic_filter: str, topic: str, expected: bool) -> None:
    assert matches(topic_filter, topic) is expected
    filters: TopicTree[int] = TopicTree()
    filters.insert(topic_filter, 1)
    assert filters.match(topic) == [1] * expected
    topics: TopicTree[int] = TopicTree()
    topics.insert(topic, 1)
    assert topics.match_filter(topic_filter) == [1] * expected


@pytest.mark.parametrize("topic", ["a", "/", "a/b", "$SYS/a", " ", "ä/€"])
def test_topic_names(topic: str) -> None:
    assert topic_fault(topic) is None


def test_names_that_are_none() -> None:
    assert topic_fault("") is EMPTY_TOPIC
    assert topic_fault("a/+") is WILDCARD_IN_TOPIC
    assert topic_fault("#") is WILDCARD_IN_TOPIC


@pytest.mark.parametrize(
    "topic_filter", ["#", "+", "/", "+/+", "a/#", "/#", "+/a/#", "$share/g/#", "$share/g//", "$sharex/#"]
)
def test_filters(topic_filter: str) -> None:
    assert filter_fault(topic_filter) is None


@pytest.mark.parametrize(
    ("topic_filter", "fault"),
    [
        ("", EMPTY_FILTER),
        ("a#", MISPLACED_HASH),
        ("#/", MISPLACED_HASH),
        ("##", MISPLACED_HASH),
        ("a/#b", MISPLACED_HASH),
        ("a+", MISPLACED_PLUS),
        ("++", MISPLACED_PLUS),
        ("a/+b/c", MISPLACED_PLUS),
        ("+#", MISPLACED_HASH),
        ("$share/", BAD_SHARE_NAME),
        ("$share//a", BAD_SHARE_NAME),
        ("$share/#/a", BAD_SHARE_NAME),
        ("$share/g+/a", BAD_SHARE_NAME),
        ("$share/g", SHARE_WITHOUT_FILTER),
        ("$share/g/", SHARE_WITHOUT_FILTER),
        ("$share/g/a#", MISPLACED_HASH),
    ],
)
def test_filters_that_are_none(topic_filter: str, fault: object) -> None:
    assert filter_fault(topic_filter) is fault


def test_shares() -> None:
    assert split_share("$share/g/a/#") == ("g", "a/#")
    assert split_share("$share/g//") == ("g", "/")
    assert split_share("a/b") == ("", "a/b")
    assert filter_fault("$share//a", 4) is None


def test_values_come_and_go() -> None:
    tree: TopicTree[str] = TopicTree()
    assert tree.insert("a/+", "x")
    assert not tree.insert("a/+", "x")
    assert tree.insert("a/+", "y")
    assert tree.insert("a/#", "x")
    assert len(tree) == 3
    assert tree.get("a/+") == ["x", "y"]
    assert tree.get("a") == tree.get("a/b") == []
    assert sorted(tree.match("a/b")) == ["x", "x", "y"]
    assert not tree.remove("a/+", "z")
    assert not tree.remove("a", "x")
    assert not tree.remove("a/+/b", "x")
    assert tree.remove("a/+", "x")
    assert tree.match("a/b") == ["x", "y"]
    assert tree.remove("a/#", "x")
    assert tree.remove("a/+", "y")
    assert not tree.remove("a/+", "y")
    assert len(tree) == 0


def test_empty_branches_are_pruned() -> None:
    tree: TopicTree[int] = TopicTree()
    tree.insert("a", 1)
    tree.insert("a/b/c/d", 1)
    tree.insert("a/b/x", 1)
    tree.remove("a/b/c/d", 1)
    assert list(tree._root.children["a"].children["b"].children) == ["x"]
    tree.remove("a/b/x", 1)
    assert not tree._root.children["a"].children
    tree.remove("a", 1)
    assert not tree._root.children


LEVEL = st.sampled_from(["", "a", "b", "$a"])
TOPICS = st.lists(LEVEL, min_size=1, max_size=5).map("/".join)
FILTERS = st.tuples(st.lists(st.one_of(LEVEL, st.just("+")), min_size=1, max_size=5), st.booleans()).map(
    lambda parts: "/".join([*parts[0], *["#"] * parts[1]])
)


@given(st.lists(FILTERS, max_size=20, unique=True), TOPICS, st.data())
def test_the_tree_finds_what_matches(filters: list[str], topic: str, data: st.DataObject) -> None:
    tree: TopicTree[str] = TopicTree()
    for topic_filter in filters:
        assert tree.insert(topic_filter, topic_filter)
    gone = data.draw(st.sets(st.sampled_from(filters))) if filters else set()
    for topic_filter in gone:
        assert tree.remove(topic_filter, topic_filter)
    expected = [topic_filter for topic_filter in filters if topic_filter not in gone and matches(topic_filter, topic)]
    assert sorted(tree.match(topic)) == sorted(expected)
    for topic_filter in set(filters) - gone:
        assert tree.remove(topic_filter, topic_filter)
    assert not tree._root.children


@given(st.lists(TOPICS, max_size=20, unique=True), FILTERS)
def test_the_tree_finds_what_is_retained(topics: list[str], topic_filter: str) -> None:
    tree: TopicTree[str] = TopicTree()
    for topic in topics:
        tree.insert(topic, topic)
    assert sorted(tree.match_filter(topic_filter)) == sorted(topic for topic in topics if matches(topic_filter, topic))


def test_deep_topics_need_no_stack() -> None:
    deep = "/" * 60_000
    tree: TopicTree[int] = TopicTree()
    assert tree.insert(deep + "#", 1)
    assert tree.insert("+" + "/+" * 60_000, 2)
    assert tree.match(deep) == [2, 1] or tree.match(deep) == [1, 2]
    assert sorted(tree.match_filter("#")) == [1, 2]
    assert tree.remove(deep + "#", 1)
    assert matches("+/" * 60_000 + "#", deep)
    del tree  # with a branch in it


def test_a_topic_bomb_passes_no_place_twice() -> None:
    """All filters of 13 levels of "a" and "+" match: as many places as there are, in a time of that order."""
    tree: TopicTree[int] = TopicTree()
    levels = 13
    for number in range(2**levels):
        tree.insert("/".join("a+"[number >> bit & 1] for bit in range(levels)), number)
    begin = time.perf_counter()
    found = tree.match("/".join("a" * levels))
    took = time.perf_counter() - begin
    assert sorted(found) == list(range(2**levels))
    assert took < 2
    assert tree.match("a/" * 500) == []


def test_a_filter_costs_what_it_passes() -> None:
    chance = random.Random(1)
    tree: TopicTree[int] = TopicTree()
    for number in range(5000):
        tree.insert(f"{chance.randrange(100)}/{number}/x", number)
    assert len(tree.match_filter("+/+/x")) == 5000
    assert len(tree.match_filter("+/77/#")) == 1
    assert tree.match_filter("+/+/y") == []
