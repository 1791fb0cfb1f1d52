"""Figures of a broker, and the $SYS topics that tell them."""

from __future__ import annotations

from dataclasses import dataclass, fields

from .core import Broker


@dataclass(frozen=True, slots=True)
class BrokerStatistics:
    """A broker at one moment.

    Attributes:
        uptime: seconds.
        clients_connected, clients_maximum: now, and at most so far.
        sessions: of clients that are connected and of others.
        subscriptions: of all sessions.
        messages_received: PUBLISH packets.
        messages_sent: handed to sessions; without shared subscriptions.
        messages_dropped: for sessions whose queue was full, or whose client was too slow.
        messages_queued: waiting in sessions.
        retained_messages, retained_bytes: kept now.
        connects_accepted, connects_refused: CONNECT packets.
        unauthorized: messages and subscriptions that were refused.
    """

    uptime: float
    clients_connected: int
    clients_maximum: int
    sessions: int
    subscriptions: int
    messages_received: int
    messages_sent: int
    messages_dropped: int
    messages_queued: int
    retained_messages: int
    retained_bytes: int
    connects_accepted: int
    connects_refused: int
    unauthorized: int


def statistics_of(broker: Broker, uptime: float) -> BrokerStatistics:
    counters = broker.counters
    return BrokerStatistics(
        uptime=uptime,
        clients_connected=broker.connected,
        clients_maximum=counters.max_clients,
        sessions=len(broker.sessions),
        subscriptions=len(broker.routes),
        messages_received=counters.received,
        messages_sent=counters.delivered,
        messages_dropped=counters.dropped,
        messages_queued=sum(len(session.flow.waiting) for session in broker.sessions.values()),
        retained_messages=len(broker.retained),
        retained_bytes=broker.retained.size,
        connects_accepted=counters.connects,
        connects_refused=counters.refused,
        unauthorized=counters.unauthorized,
    )


def sys_topics(statistics: BrokerStatistics) -> dict[str, str]:
    """Return the $SYS topics and what they say: ``$SYS/broker/clients/connected`` and so on."""
    topics = {}
    for field in fields(statistics):
        group, _, name = field.name.partition("_")
        value = getattr(statistics, field.name)
        text = f"{value:.0f} seconds" if field.name == "uptime" else str(value)
        topics[f"$SYS/broker/{group}/{name}" if name else f"$SYS/broker/{group}"] = text
    return topics
