"""The event vocabulary: ``MG_EV_*``, numbered as in Mongoose 7.15 to 7.21.

The members of :class:`Event` are also module constants, so ``from asyncmg import MG_EV_HTTP_MSG`` works as in programs
written for pymongoose and cymongoose.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum


class Event(IntEnum):
    """What happened on a connection. ``data`` of each event is told behind the name."""

    MG_EV_ERROR = 0  # an exception whose str() is the message; MG_EV_CLOSE follows
    MG_EV_OPEN = 1  # None: the connection object exists
    MG_EV_POLL = 2  # None: a round of Manager.poll(); only when asked for
    MG_EV_RESOLVE = 3  # list of Address: the host name of a client is resolved
    MG_EV_CONNECT = 4  # None: a client is connected (before TLS)
    MG_EV_ACCEPT = 5  # None: a server connection is accepted (before TLS)
    MG_EV_TLS_HS = 6  # None: the TLS handshake is complete
    MG_EV_READ = 7  # int: bytes that have just been received
    MG_EV_WRITE = 8  # int: bytes that have just been handed to the transport
    MG_EV_CLOSE = 9  # None: the last event of every connection
    MG_EV_HTTP_HDRS = 10  # HttpMessage without content yet
    MG_EV_HTTP_MSG = 11  # HttpMessage, whole
    MG_EV_WS_OPEN = 12  # HttpMessage: the request (server) or the 101 response (client)
    MG_EV_WS_MSG = 13  # WsMessage
    MG_EV_WS_CTL = 14  # WsMessage: ping, pong or close
    MG_EV_MQTT_CMD = 15  # MqttMessage: any control packet
    MG_EV_MQTT_MSG = 16  # MqttMessage: a PUBLISH
    MG_EV_MQTT_OPEN = 17  # int: CONNACK code
    MG_EV_SNTP_TIME = 18  # int: Unix epoch in milliseconds
    MG_EV_WAKEUP = 19  # bytes given to Manager.wakeup()
    MG_EV_USER = 23  # first number that is free for users; use MG_EV_USER + n


MG_EV_ERROR = Event.MG_EV_ERROR
MG_EV_OPEN = Event.MG_EV_OPEN
MG_EV_POLL = Event.MG_EV_POLL
MG_EV_RESOLVE = Event.MG_EV_RESOLVE
MG_EV_CONNECT = Event.MG_EV_CONNECT
MG_EV_ACCEPT = Event.MG_EV_ACCEPT
MG_EV_TLS_HS = Event.MG_EV_TLS_HS
MG_EV_READ = Event.MG_EV_READ
MG_EV_WRITE = Event.MG_EV_WRITE
MG_EV_CLOSE = Event.MG_EV_CLOSE
MG_EV_HTTP_HDRS = Event.MG_EV_HTTP_HDRS
MG_EV_HTTP_MSG = Event.MG_EV_HTTP_MSG
MG_EV_WS_OPEN = Event.MG_EV_WS_OPEN
MG_EV_WS_MSG = Event.MG_EV_WS_MSG
MG_EV_WS_CTL = Event.MG_EV_WS_CTL
MG_EV_MQTT_CMD = Event.MG_EV_MQTT_CMD
MG_EV_MQTT_MSG = Event.MG_EV_MQTT_MSG
MG_EV_MQTT_OPEN = Event.MG_EV_MQTT_OPEN
MG_EV_SNTP_TIME = Event.MG_EV_SNTP_TIME
MG_EV_WAKEUP = Event.MG_EV_WAKEUP
MG_EV_USER = Event.MG_EV_USER

_NAMES = {int(member): member.name for member in Event}


def event_name(ev: int) -> str:
    """Name an event number: ``MG_EV_READ``, ``MG_EV_USER+2``, ``MG_EV_UNKNOWN(-1)``."""
    name = _NAMES.get(ev)
    if name is not None:
        return name
    if ev > MG_EV_USER:
        return f"MG_EV_USER+{ev - MG_EV_USER}"
    return f"MG_EV_UNKNOWN({ev})"


def event_mask(events: Iterable[int]) -> int:
    """Fold event numbers into a bit mask (bit n stands for event n)."""
    mask = 0
    for ev in events:
        mask |= 1 << ev
    return mask


#: Every event but MG_EV_POLL, user events included: what handlers get unless they ask otherwise.
DEFAULT_EVENT_MASK = ~(1 << MG_EV_POLL)
