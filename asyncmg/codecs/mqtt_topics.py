"""Topic names and topic filters (MQTT 5.0 and 3.1.1 section 4.7; shared subscriptions: 5.0 section 4.8.2).

A topic is split at "/" into levels. In filters "+" stands for one level and "#", at the end, for any number of them,
none included; neither stands at the beginning for a level that begins with "$" [MQTT-4.7.2-1]. Nothing here recurses:
topics may be as deep as they like, time and memory grow with what there is.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Final, Generic, TypeVar

from .mqtt_properties import Fault

EMPTY_TOPIC: Final = Fault("empty topic name", 0x90, "4.7.3-1", "4.7.3-1")
WILDCARD_IN_TOPIC: Final = Fault("wildcard in a topic name", 0x90, "4.7.1-1", "4.7.0-1")
EMPTY_FILTER: Final = Fault("empty topic filter", 0x8F, "4.7.3-1", "4.7.3-1")
MISPLACED_HASH: Final = Fault("# not alone in the last level of a topic filter", 0x8F, "4.7.1-2", "4.7.1-1")
MISPLACED_PLUS: Final = Fault("+ not alone in a level of a topic filter", 0x8F, "4.7.1-3", "4.7.1-2")
BAD_SHARE_NAME: Final = Fault("shared subscription without a valid name", 0x8F, "", "4.8.2-1")
SHARE_WITHOUT_FILTER: Final = Fault("shared subscription without a topic filter", 0x8F, "", "4.8.2-2")

SHARE: Final = "$share/"


def topic_fault(topic: str) -> Fault | None:
    """Tell what is wrong with a topic name that is a valid string."""
    if not topic:
        return EMPTY_TOPIC
    if "+" in topic or "#" in topic:
        return WILDCARD_IN_TOPIC
    return None


def filter_fault(topic_filter: str, version: int = 5) -> Fault | None:
    """Tell what is wrong with a topic filter that is a valid string; shared subscriptions are new in 5.0."""
    if topic_filter.startswith(SHARE) and version != 4:
        name, slash, rest = topic_filter[len(SHARE) :].partition("/")
        if not name or "+" in name or "#" in name:
            return BAD_SHARE_NAME
        if not slash or not rest:
            return SHARE_WITHOUT_FILTER
        topic_filter = rest
    if not topic_filter:
        return EMPTY_FILTER
    if "+" not in topic_filter and "#" not in topic_filter:
        return None
    levels = topic_filter.split("/")
    last = len(levels) - 1
    for number, level in enumerate(levels):
        if "#" in level and (level != "#" or number != last):
            return MISPLACED_HASH
        if "+" in level and level != "+":
            return MISPLACED_PLUS
    return None


def split_share(topic_filter: str) -> tuple[str, str]:
    """Return the share name of a valid filter, "" when it is not shared, and the filter behind it."""
    if not topic_filter.startswith(SHARE):
        return "", topic_filter
    name, _, rest = topic_filter[len(SHARE) :].partition("/")
    return name, rest


def matches(topic_filter: str, topic: str) -> bool:
    """Tell whether a valid filter, without ``$share``, matches a topic name."""
    if topic_filter == topic:
        return True
    wanted = topic_filter.split("/")
    levels = topic.split("/")
    if levels[0][:1] == "$" and wanted[0] in ("+", "#"):
        return False
    if wanted[-1] == "#":
        wanted.pop()
        if len(levels) < len(wanted):
            return False
    elif len(levels) != len(wanted):
        return False
    return all(want in ("+", level) for want, level in zip(wanted, levels, strict=False))


V = TypeVar("V", bound=Hashable)


class _Node(Generic[V]):
    __slots__ = ("children", "values")

    def __init__(self) -> None:
        self.children: dict[str, _Node[V]] = {}
        self.values: dict[V, None] = {}  # in the order they came in


class TopicTree(Generic[V]):
    """Values by topic filter, to be found by topic name (subscriptions); or by topic name, to be found by filter
    (retained messages). Which of the two it is, is up to its user: filters and names go into different trees.

    Filters are valid ones without ``$share``. A value is in a place at most once.
    """

    __slots__ = ("_count", "_root")

    def __init__(self) -> None:
        self._root: _Node[V] = _Node()
        self._count = 0

    def __len__(self) -> int:
        """How many values there are, in all places."""
        return self._count

    def insert(self, path: str, value: V) -> bool:
        """Add a value; return whether it was not there yet."""
        node = self._root
        for level in path.split("/"):
            child = node.children.get(level)
            if child is None:
                child = node.children[level] = _Node()
            node = child
        if value in node.values:
            return False
        node.values[value] = None
        self._count += 1
        return True

    def remove(self, path: str, value: V) -> bool:
        """Take a value out, and the branches that get empty; return whether it was there."""
        node = self._root
        passed = []
        for level in path.split("/"):
            child = node.children.get(level)
            if child is None:
                return False
            passed.append((node, level))
            node = child
        if value not in node.values:
            return False
        del node.values[value]
        self._count -= 1
        while passed and not node.values and not node.children:
            node, level = passed.pop()
            del node.children[level]
        return True

    def get(self, path: str) -> list[V]:
        """Return the values in a place: exactly this filter or name."""
        node = self._root
        for level in path.split("/"):
            child = node.children.get(level)
            if child is None:
                return []
            node = child
        return list(node.values)

    def match(self, topic: str) -> list[V]:
        """Return the values of all filters that match a topic name; one of several filters comes several times.

        The time grows with the number of levels, and of the places passed: no place is passed twice.
        """
        found: list[V] = []
        nodes = [self._root]
        no_wildcard = topic[:1] == "$"
        for level in topic.split("/"):
            following = []
            for node in nodes:
                children = node.children
                child = children.get(level)
                if child is not None:
                    following.append(child)
                if no_wildcard:
                    continue
                child = children.get("+")
                if child is not None:
                    following.append(child)
                child = children.get("#")
                if child is not None:
                    found += child.values
            if not following:
                return found
            nodes = following
            no_wildcard = False
        for node in nodes:
            found += node.values
            child = node.children.get("#")
            if child is not None:
                found += child.values
        return found

    def match_filter(self, topic_filter: str) -> list[V]:
        """Return the values of all topic names that a filter matches."""
        levels = topic_filter.split("/")
        whole = levels[-1] == "#"
        if whole:
            levels.pop()
        nodes = [self._root]
        for number, level in enumerate(levels):
            following: list[_Node[V]] = []
            for node in nodes:
                if level == "+":
                    following += self._children(node, hidden=number == 0)
                elif (child := node.children.get(level)) is not None:
                    following.append(child)
            nodes = following
        found: list[V] = []
        while nodes:
            node = nodes.pop()
            found += node.values
            if whole:
                nodes += self._children(node, hidden=node is self._root)
        return found

    @staticmethod
    def _children(node: _Node[V], *, hidden: bool) -> Iterator[_Node[V]]:
        """Yield what a wildcard stands for; hidden: but levels that begin with "$"."""
        for level, child in node.children.items():
            if not (hidden and level[:1] == "$"):
                yield child
