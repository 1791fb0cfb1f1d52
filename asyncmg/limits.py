"""Limits and time-outs, on by default. The table for users, with what the peer gets, is docs/limits.md.

Sizes are bytes, durations seconds. Every group is frozen; change one with :func:`dataclasses.replace`, or give only
the group that differs: ``Limits(http=HttpLimits(max_body=10 * 2**20))``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Literal

SlowClientPolicy = Literal["wait", "drop", "close"]


def _require_positive(group: object, *, zero_allowed: frozenset[str] = frozenset()) -> None:
    for item in fields(group):  # type: ignore[arg-type]  # every caller is a dataclass
        value = getattr(group, item.name)
        if isinstance(value, str):
            continue
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise TypeError(f"{type(group).__name__}.{item.name} must be a number, not {value!r}")
        if not math.isfinite(value):
            raise ValueError(f"{type(group).__name__}.{item.name} must be finite: every wait and buffer has an end")
        if value < 0 or (value == 0 and item.name not in zero_allowed):
            raise ValueError(f"{type(group).__name__}.{item.name} must be positive, not {value!r}")


@dataclass(frozen=True, slots=True)
class NetLimits:
    """Making, accepting and ending connections."""

    connect_timeout: float = 10.0  # name resolution and connect, all addresses together
    connect_attempt_delay: float = 0.25  # RFC 8305 section 5: head start of one address before the next
    tls_handshake_timeout: float = 10.0
    tls_shutdown_timeout: float = 5.0
    max_connections: int = 10_000  # accepted ones; never more than 0.8 x the open file limit
    backlog: int = 1024
    accept_retry_delay: float = 0.1  # pause after EMFILE, ENFILE, ENOBUFS or ENOMEM
    max_accept_queue: int = 64  # connections that wait for ``async for conn in listener``
    graceful_timeout: float = 30.0  # 0: close at once
    linger_idle_timeout: float = 2.0  # lingering close: without a byte from the peer
    linger_timeout: float = 10.0  # lingering close: in all

    def __post_init__(self) -> None:
        _require_positive(self, zero_allowed=frozenset({"graceful_timeout"}))


@dataclass(frozen=True, slots=True)
class BufferLimits:
    """Buffers, queues and flow control of one connection."""

    max_recv_buffer: int = 1 << 20  # raw bytes not yet taken; reading stops there
    max_queued_events: int = 64  # events not yet taken by an async handler or iterator; reading stops there
    send_high_water: int = 64 << 10  # is_writable is False and flush() waits above it; also: streamed content held
    max_send_buffer: int = 16 << 20  # the connection is closed when a send finds more than this unsent
    slow_client: SlowClientPolicy = "wait"  # above send_high_water: wait, drop the message, close the connection
    stall_timeout: float = 30.0  # no byte of a body received, or of our output taken, for so long
    min_rate: float = 240.0  # bytes/s of a body or of our output, averaged ...
    rate_grace: float = 5.0  # ... after this many seconds
    max_turn_input: int = 64 << 10  # bytes per connection and turn (native bulk input: four times as many)
    max_unsent: int = 256 << 20  # native backend: output that the kernel has not taken, all connections together
    max_datagrams: int = 64  # received datagrams not yet handled; more are dropped, as UDP may

    def __post_init__(self) -> None:
        _require_positive(self, zero_allowed=frozenset({"min_rate"}))
        if self.slow_client not in ("wait", "drop", "close"):
            raise ValueError(f"slow_client must be 'wait', 'drop' or 'close', not {self.slow_client!r}")


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """HTTP/1.1, both roles."""

    max_request_line: int = 8190  # 414 (RFC 9112 section 3 asks for at least 8000)
    max_field_line: int = 8 << 10  # 431
    max_header_size: int = 32 << 10  # 431
    max_fields: int = 100  # 431
    header_timeout: float = 10.0  # connect to first byte, and the whole header: 408
    keepalive_timeout: float = 60.0  # idle between requests: close
    max_requests: int = 1000  # per connection: close
    max_body: int = 1 << 20  # content that is buffered for MG_EV_HTTP_MSG: 413
    max_chunk_line: int = 4 << 10  # 400
    max_chunk_extensions: int = 16 << 10  # of one message: 400
    max_trailer_size: int = 16 << 10  # 400
    max_pipelined: int = 16  # requests handled per loop turn, then it is the others' turn
    sse_ping_interval: float = 15.0  # a stream of events that has been silent for so long gets a comment; 0: no pings

    def __post_init__(self) -> None:
        _require_positive(self, zero_allowed=frozenset({"max_body", "sse_ping_interval"}))


@dataclass(frozen=True, slots=True)
class FormLimits:
    """Forms and uploads (multipart/form-data and application/x-www-form-urlencoded)."""

    max_parts: int = 1000  # fields and files of one form: 400
    max_part_header: int = 8 << 10  # 400
    max_field: int = 1 << 20  # one field, which is kept in memory: 413
    max_fields_size: int = 4 << 20  # names and values of all fields: 413
    max_file: int = 1 << 30  # one file, which goes to the disk: 413
    max_total: int = 2 << 30  # the whole content: 413

    def __post_init__(self) -> None:
        _require_positive(self)


@dataclass(frozen=True, slots=True)
class WsLimits:
    """WebSocket, both roles."""

    handshake_timeout: float = 10.0  # client: from the connection to the 101, proxies included
    max_message: int = 1 << 20  # one message, also when it is decompressed: 1009
    max_frame: int = 0  # one frame: 1009; 0: as max_message
    max_fragments: int = 16_384  # frames of one message: 1008
    max_control_frames: int = 1000  # received per second: 1008
    max_queued: int = 16  # messages not yet taken from recv(); reading stops there
    max_held: int = 64  # broadcast messages held for a peer that does not take its output
    ping_interval: float = 20.0  # idle time before a ping; 0: no pings
    ping_timeout: float = 20.0  # from a ping to its pong: 1011
    close_timeout: float = 10.0  # from our close frame to the peer's

    def __post_init__(self) -> None:
        _require_positive(self, zero_allowed=frozenset({"max_frame", "ping_interval"}))


@dataclass(frozen=True, slots=True)
class MqttLimits:
    """MQTT, both roles; those of the last two paragraphs are a broker's."""

    connect_timeout: float = 10.0  # server: from the connection to its CONNECT; client: from CONNECT to CONNACK
    max_packet: int = 1 << 20  # PUBLISH: 0x95
    max_connect: int = 100_000  # CONNECT, SUBSCRIBE, UNSUBSCRIBE: 0x95
    max_small: int = 10_000  # any other packet: 0x95
    max_topic_length: int = 1024  # bytes of a topic name or filter: 0x90, 0x8F
    max_topic_levels: int = 128  # 0x90, 0x8F
    max_client_id: int = 256  # bytes: 0x85
    max_user_properties: int = 100  # of one packet: 0x97
    max_topic_aliases: int = 16  # each way
    receive_maximum: int = 100  # received messages of QoS 1 and 2 that are not done with: 0x93
    max_inflight: int = 32  # sent messages of QoS 1 and 2 that are not acknowledged; the others wait
    ping_timeout: float = 10.0  # client: from a ping to anything at all

    max_queued: int = 1000  # messages that wait to be sent to one peer: client: BusyError, broker: see on_full_queue
    max_queued_bytes: int = 16 << 20  # their topics and payloads, likewise
    max_received: int = 1000  # client: messages not yet taken; reading stops there

    on_full_queue: Literal["drop_newest", "drop_oldest"] = "drop_newest"  # of a session's queue
    max_subscriptions: int = 1000  # of one client: 0x97
    max_session_expiry: float = 7200.0  # told in CONNACK
    max_sessions: int = 20_000  # connected ones and others; behind that CONNECT gets 0x97
    max_retained: int = 10_000  # retained messages; of others the retain flag has no effect
    max_retained_bytes: int = 64 << 20
    max_will_delay: float = 7200.0

    max_message_rate: float = 0.0  # received PUBLISH packets of one client per second, above it reading stops; 0: any
    max_per_address: int = 0  # connections from one address; 0: any
    authentication_timeout: float = 10.0  # of the hooks that may await

    def __post_init__(self) -> None:
        _require_positive(
            self,
            zero_allowed=frozenset(
                {"max_topic_aliases", "max_session_expiry", "max_retained", "max_message_rate", "max_per_address"}
            ),
        )
        if not self.receive_maximum <= 65535 or not self.max_inflight <= 65535 or not self.max_topic_aliases <= 65535:
            raise ValueError("receive_maximum, max_inflight and max_topic_aliases are at most 65535")
        if self.on_full_queue not in ("drop_newest", "drop_oldest"):
            raise ValueError(f"on_full_queue must be 'drop_newest' or 'drop_oldest', not {self.on_full_queue!r}")


@dataclass(frozen=True, slots=True)
class DnsLimits:
    """Looking up names."""

    timeout: float = 5.0  # one look-up in all
    try_timeout: float = 2.0  # one server, asked once
    max_tries: int = 3  # rounds through all servers
    resolution_delay: float = 0.05  # RFC 8305 section 3: connecting, so long IPv4 addresses wait for IPv6 ones
    max_cnames: int = 8  # from the name to the record
    max_queries: int = 100  # under way at once; more wait
    max_cached: int = 1000  # answers kept, good and bad; the one not used for longest goes first
    max_ttl: float = 86_400.0  # for which an answer is kept at most
    max_negative_ttl: float = 900.0  # for which is kept that there is none
    mdns_timeout: float = 2.0  # names of .local: from the first question to giving up

    def __post_init__(self) -> None:
        _require_positive(
            self, zero_allowed=frozenset({"resolution_delay", "max_cached", "max_ttl", "max_negative_ttl"})
        )


@dataclass(frozen=True, slots=True)
class SntpLimits:
    """Asking for the time, and telling it."""

    try_timeout: float = 3.0  # one server, asked once
    max_tries: int = 3  # of one server
    retry_interval: float = 0.5  # before the second try; twice as long before each further one
    max_addresses: int = 4  # of one name, asked at once
    max_rate: float = 8.0  # server: requests per second of one address; behind that RATE once a second, else silence
    max_clients: int = 10_000  # server: addresses whose rate is remembered

    def __post_init__(self) -> None:
        _require_positive(self)


@dataclass(frozen=True, slots=True)
class Limits:
    """All limits of a Manager, in groups."""

    net: NetLimits = field(default_factory=NetLimits)
    buffers: BufferLimits = field(default_factory=BufferLimits)
    http: HttpLimits = field(default_factory=HttpLimits)
    forms: FormLimits = field(default_factory=FormLimits)
    ws: WsLimits = field(default_factory=WsLimits)
    mqtt: MqttLimits = field(default_factory=MqttLimits)
    dns: DnsLimits = field(default_factory=DnsLimits)
    sntp: SntpLimits = field(default_factory=SntpLimits)


DEFAULT_LIMITS = Limits()
