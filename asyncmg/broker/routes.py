"""Who gets a message: subscriptions by topic filter, shared ones in turn. What was found for a topic is remembered."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from asyncmg.codecs.mqtt_topics import TopicTree, split_share

from .message import Delivery, Message
from .session import Session, Subscription, SubscriptionGroup

#: Gets messages inside the program.
Receiver = Callable[[Message], None]

_MAX_REMEMBERED: Final = 4096  # topics


class SharedDelivery(Delivery):
    """What a member of a shared subscription is to get; when its session ends before, another one is."""

    group: SubscriptionGroup


class SharedGroup:
    """The members of a shared subscription, of whom each message goes to one (5.0 section 4.8.2)."""

    __slots__ = ("_turn", "members")

    def __init__(self) -> None:
        self.members: dict[Session, Subscription] = {}
        self._turn = 0

    def choose(self, qos: int) -> Subscription | None:
        """Return whose turn it is: of those who are connected, take our output and have room; else of the others."""
        members = list(self.members.values())
        count = len(members)
        fallback = None
        for place in range(count):
            member = members[(self._turn + place) % count]
            link = member.session.link
            if link is not None and not link.is_paused and (qos == 0 or member.session.flow.is_free):
                self._turn = (self._turn + place + 1) % count
                return member
            if fallback is None or (link is not None and fallback.session.link is None):
                fallback = member
        self._turn = (self._turn + 1) % count if count else 0
        return fallback


class Route:
    """Who gets the messages of one topic.

    Attributes:
        targets: one for each session.
        is_plain: all targets get the same packet, as far as their versions are the same.
        groups: shared subscriptions.
        receivers: inside the program.
    """

    __slots__ = ("groups", "is_plain", "receivers", "targets")

    def __init__(
        self, targets: tuple[Subscription, ...], groups: tuple[SharedGroup, ...], receivers: tuple[Receiver, ...]
    ) -> None:
        self.targets = targets
        self.groups = groups
        self.receivers = receivers
        self.is_plain = all(target.is_plain for target in targets)

    def __len__(self) -> int:
        return len(self.targets) + len(self.groups) + len(self.receivers)


class Routes:
    """All subscriptions."""

    def __init__(self) -> None:
        self._tree: TopicTree[Subscription] = TopicTree()
        self._groups: dict[tuple[str, str], SharedGroup] = {}  # by share name and filter
        self._shared: TopicTree[SharedGroup] = TopicTree()
        self._receivers: TopicTree[Receiver] = TopicTree()
        self._found: dict[str, Route] = {}

    def __len__(self) -> int:
        """How many subscriptions clients have."""
        return len(self._tree) + sum(len(group.members) for group in self._groups.values())

    def find(self, topic: str) -> Route:
        """Return who gets the messages of a topic."""
        route = self._found.get(topic)
        if route is None:
            targets = _merge(self._tree.match(topic))
            receivers = dict.fromkeys(self._receivers.match(topic))
            route = Route(targets, tuple(self._shared.match(topic)), tuple(receivers))
            if len(self._found) >= _MAX_REMEMBERED:
                self._found.clear()
            self._found[topic] = route
        return route

    def _forget(self, topic_filter: str) -> None:
        """What was found may have changed."""
        if "+" in topic_filter or "#" in topic_filter:
            self._found.clear()
        else:
            self._found.pop(topic_filter, None)

    def add(self, subscription: Subscription) -> None:
        """Add a client's subscription, in the place of one with the same filter."""
        session = subscription.session
        self.remove(session, subscription.topic_filter)
        session.subscriptions[subscription.topic_filter] = subscription
        name, topic_filter = split_share(subscription.topic_filter)
        if name:
            group = self._groups.get((name, topic_filter))
            if group is None:
                group = self._groups[name, topic_filter] = SharedGroup()
                self._shared.insert(topic_filter, group)
            group.members[session] = subscription
            subscription.group = group
        else:
            self._tree.insert(topic_filter, subscription)
        self._forget(topic_filter)

    def remove(self, session: Session, subscribed: str) -> bool:
        """Take a client's subscription away; False: there is none."""
        subscription = session.subscriptions.pop(subscribed, None)
        if subscription is None:
            return False
        name, topic_filter = split_share(subscribed)
        if name:
            group = self._groups[name, topic_filter]
            group.members.pop(session, None)
            if not group.members:
                del self._groups[name, topic_filter]
                self._shared.remove(topic_filter, group)
        else:
            self._tree.remove(topic_filter, subscription)
        self._forget(topic_filter)
        return True

    def remove_all(self, session: Session) -> None:
        for topic_filter in tuple(session.subscriptions):
            self.remove(session, topic_filter)

    def add_receiver(self, topic_filter: str, receiver: Receiver) -> None:
        self._receivers.insert(topic_filter, receiver)
        self._forget(topic_filter)

    def remove_receiver(self, topic_filter: str, receiver: Receiver) -> None:
        self._receivers.remove(topic_filter, receiver)
        self._forget(topic_filter)


def _merge(found: Iterable[Subscription]) -> tuple[Subscription, ...]:
    """Make one of several subscriptions of a session: it gets a message once (section 3.3.5)."""
    by_session: dict[Session, Subscription] = {}
    for subscription in found:
        other = by_session.get(subscription.session)
        if other is not None:
            subscription = Subscription(
                subscription.session,
                "",
                max(other.qos, subscription.qos),
                no_local=other.no_local and subscription.no_local,
                retain_as_published=other.retain_as_published or subscription.retain_as_published,
                identifiers=(*other.identifiers, *subscription.identifiers),
            )
        by_session[subscription.session] = subscription
    return tuple(by_session.values())
