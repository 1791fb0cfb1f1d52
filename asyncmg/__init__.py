"""asyncmg: the Mongoose way of networking, native to asyncio.

One event vocabulary (``MG_EV_*``) over HTTP, TCP, UDP, Unix sockets and TLS, read as ``async for ev, data in conn`` or
handled by ``handler(conn, ev, data)``, plain or async. This module only re-exports; the folders below it are layers,
and imports go one way: cli, manager, connection, verbs, protocols, codecs, transports, core.
"""

from .addresses import Address
from .codecs.http import Role
from .connection import Connection, Handler
from .dispatch import CallbackSink, EventSink
from .errors import (
    AsyncmgError,
    BusyError,
    ConnectFailed,
    ConnectionClosed,
    DeadlineExceeded,
    InvalidHeader,
    InvalidUrl,
    LimitExceeded,
    ListenFailed,
    LocalProtocolError,
    ManagerClosed,
    ProtocolError,
    RemoteProtocolError,
    TlsError,
)
from .events import (
    MG_EV_ACCEPT,
    MG_EV_CLOSE,
    MG_EV_CONNECT,
    MG_EV_ERROR,
    MG_EV_HTTP_HDRS,
    MG_EV_HTTP_MSG,
    MG_EV_MQTT_CMD,
    MG_EV_MQTT_MSG,
    MG_EV_MQTT_OPEN,
    MG_EV_OPEN,
    MG_EV_POLL,
    MG_EV_READ,
    MG_EV_RESOLVE,
    MG_EV_SNTP_TIME,
    MG_EV_TLS_HS,
    MG_EV_USER,
    MG_EV_WAKEUP,
    MG_EV_WRITE,
    MG_EV_WS_CTL,
    MG_EV_WS_MSG,
    MG_EV_WS_OPEN,
    Event,
    event_name,
)
from .limits import BufferLimits, HttpLimits, Limits, NetLimits
from .listener import Listener
from .manager import Manager, connect
from .messages import HttpMessage
from .multipart import http_parse_multipart
from .protocols.base import BaseProtocol
from .protocols.datagram import DatagramProtocol
from .protocols.http import HttpProtocol
from .protocols.stream import StreamProtocol
from .timers import Timer
from .tls import TlsOpts
from .urls import Url

__version__ = "0.1.0"

__all__ = [
    "MG_EV_ACCEPT",
    "MG_EV_CLOSE",
    "MG_EV_CONNECT",
    "MG_EV_ERROR",
    "MG_EV_HTTP_HDRS",
    "MG_EV_HTTP_MSG",
    "MG_EV_MQTT_CMD",
    "MG_EV_MQTT_MSG",
    "MG_EV_MQTT_OPEN",
    "MG_EV_OPEN",
    "MG_EV_POLL",
    "MG_EV_READ",
    "MG_EV_RESOLVE",
    "MG_EV_SNTP_TIME",
    "MG_EV_TLS_HS",
    "MG_EV_USER",
    "MG_EV_WAKEUP",
    "MG_EV_WRITE",
    "MG_EV_WS_CTL",
    "MG_EV_WS_MSG",
    "MG_EV_WS_OPEN",
    "Address",
    "AsyncmgError",
    "BaseProtocol",
    "BufferLimits",
    "BusyError",
    "CallbackSink",
    "ConnectFailed",
    "Connection",
    "ConnectionClosed",
    "DatagramProtocol",
    "DeadlineExceeded",
    "Event",
    "EventSink",
    "Handler",
    "HttpLimits",
    "HttpMessage",
    "HttpProtocol",
    "InvalidHeader",
    "InvalidUrl",
    "LimitExceeded",
    "Limits",
    "ListenFailed",
    "Listener",
    "LocalProtocolError",
    "Manager",
    "ManagerClosed",
    "NetLimits",
    "ProtocolError",
    "RemoteProtocolError",
    "Role",
    "StreamProtocol",
    "Timer",
    "TlsError",
    "TlsOpts",
    "Url",
    "connect",
    "event_name",
    "http_parse_multipart",
]
