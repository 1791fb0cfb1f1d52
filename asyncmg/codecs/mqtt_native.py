"""The native MQTT codec (MQTT 3.1.1 and 5.0 chapters 2 and 3): amg_mqtt.c of the C core reads, packets are made here.

One call of the core reads all whole packets that are received at once. A codec keeps what the portable one keeps: an
incomplete fixed header, or one incomplete packet. What the core writes lies in a workspace that codecs share, with the
topic names that have been seen: an idle codec holds no buffer and no cache.

On the native backend the engine reads instead (AMG_OP_MQTT): ``export`` hands over, :meth:`NativeMqttCodec.take` makes
packets of its records, and only packets that do not come in one piece still go through ``receive_data``.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from struct import Struct
from typing import Any, Final

from asyncmg.core import CoreUnavailable, load, status
from asyncmg.core.records import (
    AMG_CLIENT,
    AMG_MQTT_ACKS,
    AMG_MQTT_UNSETTLED,
    AMG_SERVER,
    MQTT_CALL,
    MQTT_RECORD,
    MQTT_STATE,
    mqtt_limits,
)
from asyncmg.errors import ProtocolError
from asyncmg.limits import MqttLimits

from . import mqtt as m
from . import mqtt_properties as p
from . import mqtt_topics as t
from .http import Role
from .mqtt_bodies import BodyReader
from .mqtt_properties import Fault, Properties, parse_properties, refuse

_Limit = Callable[[MqttLimits, int], ProtocolError]


def _publish_too_large(limits: MqttLimits, size: int) -> ProtocolError:
    return m.too_large(limits, m.PUBLISH, size)


def _connect_too_large(limits: MqttLimits, size: int) -> ProtocolError:
    return m.too_large(limits, m.CONNECT, size)


def _small_too_large(limits: MqttLimits, size: int) -> ProtocolError:
    return m.too_large(limits, m.PUBACK, size)


def _topic_too_large(limits: MqttLimits, size: int) -> ProtocolError:
    return m.topic_too_large(limits, size, m.TOPIC_NAME_INVALID)


def _filter_too_large(limits: MqttLimits, size: int) -> ProtocolError:
    return m.topic_too_large(limits, size, m.TOPIC_FILTER_INVALID)


def _topic_too_deep(limits: MqttLimits, levels: int) -> ProtocolError:
    return m.topic_too_deep(limits, levels, m.TOPIC_NAME_INVALID)


def _filter_too_deep(limits: MqttLimits, levels: int) -> ProtocolError:
    return m.topic_too_deep(limits, levels, m.TOPIC_FILTER_INVALID)


def _too_many_user_properties(limits: MqttLimits, actual: int) -> ProtocolError:
    return p.too_many_user_properties(limits.max_user_properties, actual)


# AMG_MQTT_E_ in the order of amg.h: the fault; faults by the record's value; or what makes an error of it.
ERRORS: Final[dict[str, Fault | dict[int, Fault] | _Limit]] = {
    "AMG_MQTT_E_RESERVED_TYPE": m.RESERVED_TYPE,
    "AMG_MQTT_E_BAD_FLAGS": m.BAD_FLAGS,
    "AMG_MQTT_E_PUBREL_FLAGS": m.PUBREL_FLAGS,
    "AMG_MQTT_E_SUBSCRIBE_FLAGS": m.SUBSCRIBE_FLAGS,
    "AMG_MQTT_E_UNSUBSCRIBE_FLAGS": m.UNSUBSCRIBE_FLAGS,
    "AMG_MQTT_E_DISCONNECT_FLAGS": m.DISCONNECT_FLAGS,
    "AMG_MQTT_E_AUTH_FLAGS": m.AUTH_FLAGS,
    "AMG_MQTT_E_QOS_3": m.QOS_3,
    "AMG_MQTT_E_DUP_OF_QOS_0": m.DUP_OF_QOS_0,
    "AMG_MQTT_E_NOT_CONNECT_FIRST": m.NOT_CONNECT_FIRST,
    "AMG_MQTT_E_SECOND_CONNECT": m.SECOND_CONNECT,
    "AMG_MQTT_E_NOT_CONNACK_FIRST": m.NOT_CONNACK_FIRST,
    "AMG_MQTT_E_EARLY_DISCONNECT": m.EARLY_DISCONNECT,
    "AMG_MQTT_E_SECOND_CONNACK": m.SECOND_CONNACK,
    "AMG_MQTT_E_WRONG_DIRECTION": m.WRONG_DIRECTION,
    "AMG_MQTT_E_PACKET_SIZE": _publish_too_large,
    "AMG_MQTT_E_CONNECT_SIZE": _connect_too_large,
    "AMG_MQTT_E_SMALL_SIZE": _small_too_large,
    "AMG_MQTT_E_TOPIC_LENGTH": _topic_too_large,
    "AMG_MQTT_E_FILTER_LENGTH": _filter_too_large,
    "AMG_MQTT_E_TOPIC_LEVELS": _topic_too_deep,
    "AMG_MQTT_E_FILTER_LEVELS": _filter_too_deep,
    "AMG_MQTT_E_CLIENT_ID_LENGTH": m.client_id_too_large,
    "AMG_MQTT_E_USER_PROPERTIES": _too_many_user_properties,
    "AMG_MQTT_E_TRUNCATED": p.TRUNCATED,
    "AMG_MQTT_E_TRAILING_BYTES": m.TRAILING_BYTES,
    "AMG_MQTT_E_NOT_UTF8": p.NOT_UTF8,
    "AMG_MQTT_E_NUL_IN_STRING": p.NUL_IN_STRING,
    "AMG_MQTT_E_LONG_INTEGER": p.LONG_INTEGER,
    "AMG_MQTT_E_PADDED_INTEGER": p.PADDED_INTEGER,
    "AMG_MQTT_E_BAD_LENGTH": p.BAD_LENGTH,
    "AMG_MQTT_E_UNKNOWN_PROPERTY": p.UNKNOWN_PROPERTY,
    "AMG_MQTT_E_MISPLACED_PROPERTY": p.MISPLACED_PROPERTY,
    "AMG_MQTT_E_REPEATED_PROPERTY": p.REPEATED_PROPERTY,
    "AMG_MQTT_E_PROPERTY_RANGE": {number: rule.fault for number, rule in p.RULES.items()},
    "AMG_MQTT_E_IDENTIFIER_OF_CLIENT": p.IDENTIFIER_OF_CLIENT,
    "AMG_MQTT_E_WILDCARD_IN_RESPONSE_TOPIC": p.WILDCARD_IN_RESPONSE_TOPIC,
    "AMG_MQTT_E_DATA_WITHOUT_METHOD": p.DATA_WITHOUT_METHOD,
    "AMG_MQTT_E_ZERO_PACKET_ID": m.ZERO_PACKET_ID,
    "AMG_MQTT_E_ZERO_PACKET_ID_OF_SERVER": m.ZERO_PACKET_ID_OF_SERVER,
    "AMG_MQTT_E_ZERO_ACK_ID": m.ZERO_ACK_ID,
    "AMG_MQTT_E_ZERO_SUBACK_ID": m.ZERO_SUBACK_ID,
    "AMG_MQTT_E_BAD_REASON_CODE": m.BAD_REASON_CODE,
    "AMG_MQTT_E_BAD_PROTOCOL_NAME": m.BAD_PROTOCOL_NAME,
    "AMG_MQTT_E_BAD_PROTOCOL_LEVEL": m.BAD_PROTOCOL_LEVEL,
    "AMG_MQTT_E_CONNECT_FLAG_RESERVED": m.CONNECT_FLAG_RESERVED,
    "AMG_MQTT_E_WILL_QOS_WITHOUT_WILL": m.WILL_QOS_WITHOUT_WILL,
    "AMG_MQTT_E_WILL_QOS_3": m.WILL_QOS_3,
    "AMG_MQTT_E_WILL_RETAIN_WITHOUT_WILL": m.WILL_RETAIN_WITHOUT_WILL,
    "AMG_MQTT_E_PASSWORD_WITHOUT_USER": m.PASSWORD_WITHOUT_USER,
    "AMG_MQTT_E_NO_CLIENT_ID": m.NO_CLIENT_ID,
    "AMG_MQTT_E_CONNACK_FLAGS": m.CONNACK_FLAGS,
    "AMG_MQTT_E_SESSION_OF_REFUSED": m.SESSION_OF_REFUSED,
    "AMG_MQTT_E_WILDCARD_PUBLISHED": m.WILDCARD_PUBLISHED,
    "AMG_MQTT_E_NOTHING_PUBLISHED_TO": m.NOTHING_PUBLISHED_TO,
    "AMG_MQTT_E_EMPTY_TOPIC": t.EMPTY_TOPIC,
    "AMG_MQTT_E_WILDCARD_IN_TOPIC": t.WILDCARD_IN_TOPIC,
    "AMG_MQTT_E_NO_FILTER": m.NO_FILTER,
    "AMG_MQTT_E_NO_FILTER_TO_LEAVE": m.NO_FILTER_TO_LEAVE,
    "AMG_MQTT_E_EMPTY_FILTER": t.EMPTY_FILTER,
    "AMG_MQTT_E_MISPLACED_HASH": t.MISPLACED_HASH,
    "AMG_MQTT_E_MISPLACED_PLUS": t.MISPLACED_PLUS,
    "AMG_MQTT_E_BAD_SHARE_NAME": t.BAD_SHARE_NAME,
    "AMG_MQTT_E_SHARE_WITHOUT_FILTER": t.SHARE_WITHOUT_FILTER,
    "AMG_MQTT_E_RESERVED_OPTIONS": m.RESERVED_OPTIONS,
    "AMG_MQTT_E_OPTIONS_QOS_3": m.OPTIONS_QOS_3,
    "AMG_MQTT_E_RETAIN_HANDLING_3": m.RETAIN_HANDLING_3,
    "AMG_MQTT_E_SHARED_NO_LOCAL": m.SHARED_NO_LOCAL,
    "AMG_MQTT_E_NO_SUBACK_CODE": m.NO_SUBACK_CODE,
    "AMG_MQTT_E_NO_UNSUBACK_CODE": m.NO_UNSUBACK_CODE,
    "AMG_MQTT_E_SERVER_EXPIRES_SESSION": m.SERVER_EXPIRES_SESSION,
    "AMG_MQTT_E_EXPIRY_AFTER_ZERO": m.EXPIRY_AFTER_ZERO,
    "AMG_MQTT_E_AUTH_WITHOUT_METHOD": m.AUTH_WITHOUT_METHOD,
}
_ERRORS = (m.RESERVED_TYPE, *ERRORS.values())  # by number


def mqtt_error(number: int, value: int, limits: MqttLimits, version: int) -> ProtocolError:
    """Make the exception of an error of the core.

    Args:
        number: AMG_MQTT_E_.
        value: what amg_mqtt_record tells beside it.
        limits: those of the connection.
        version: 0: not known yet.
    """
    found = _ERRORS[number]
    if isinstance(found, dict):
        found = found[value]
    return refuse(found, version) if isinstance(found, Fault) else found(limits, value)


#: first, reason, packet_id, begin, topic_end, properties, payload, end (amg_mqtt_record)
RawRecord = tuple[int, int, int, int, int, int, int, int]
_MAX_RECORDS: Final = 256
_RECORD_SIZE: Final = MQTT_RECORD.size
_unpack_record: Callable[[Any], RawRecord] = MQTT_RECORD.unpack_from
_unpack_records: Callable[[Any], Iterator[RawRecord]] = MQTT_RECORD.iter_unpack
_unpack_acks: Callable[[Any], Iterator[tuple[int, int]]] = Struct("=BxH20x").iter_unpack  # of those that are no more
_MAX_INPUT: Final = 1 << 30  # bytes of one call: offsets have 32 bits
_POSITION, _WHOLE = 4, 5  # places in amg_mqtt_call
_EXPECTED, _OPEN = 0, 1  # amg_mqtt.state
_VERSION: Final = 5  # place in amg_mqtt

_CACHED_TOPICS: Final = 1024  # names of up to 64 bytes that are remembered, for all codecs: 300 kB
_MAX_CACHED_TOPIC: Final = 64
_NOTHING: Final[Sequence[m.Packet]] = ()
_Publish = m.Publish
_Ack = m.Ack

# By the first byte of a PUBLISH: QoS, retain, DUP.
_FLAGS: Final = tuple((first >> 1 & 3, first & 1 == 1, first & 8 == 8) for first in range(256))


class _Workspace:
    """What calls of the core work in, for one kind of codec. A call takes one for itself: threads never share one."""

    __slots__ = ("at", "call", "fresh", "limits", "read", "records", "state")

    def __init__(self, limits: bytes, state: bytes) -> None:
        core = load()
        if core is None:
            raise CoreUnavailable(f"the native codec needs the C core: {status().reason}")
        self.read: Callable[[Any, bytes, int], int] = core.mqtt.read_call
        self.fresh = state
        memory = ctypes.create_string_buffer(state, len(state))
        records = ctypes.create_string_buffer(_RECORD_SIZE * _MAX_RECORDS)
        self.limits = ctypes.create_string_buffer(limits, len(limits))
        call = ctypes.create_string_buffer(MQTT_CALL.size)
        addresses = [ctypes.addressof(part) for part in (memory, self.limits, records)]
        MQTT_CALL.pack_into(call, 0, *addresses, _MAX_RECORDS, 0, 0)
        self.state = memoryview(memory).cast("B")
        self.records = memoryview(records).cast("B")
        self.call = memoryview(call).cast("B").cast("Q")
        self.at: Any = ctypes.byref(call)


@lru_cache(maxsize=16)
def _state(role: Role, version: int, state: int, keeps_session: bool) -> bytes:
    """Pack an amg_mqtt between two packets; all codecs in the same state share it."""
    side = AMG_SERVER if role is Role.SERVER else AMG_CLIENT
    return MQTT_STATE.pack(0, side, version, state, keeps_session, *bytes(8))


@lru_cache(maxsize=64)
def _spare_workspaces(limits: bytes, state: bytes) -> list[_Workspace]:
    return [_Workspace(limits, state)]


_topics: dict[bytes, str] = {}  # of all codecs: the core has checked them


def _read_topic(name: bytes) -> str:
    topic = name.decode()
    if len(name) <= _MAX_CACHED_TOPIC:
        if len(_topics) >= _CACHED_TOPICS:
            _topics.clear()
        _topics[name] = topic
    return topic


class NativeMqttCodec(BodyReader):
    """The contract is :class:`asyncmg.codecs.mqtt.MqttCodec`.

    Raises:
        CoreUnavailable: there is no C core, or ``ASYNCMG_CORE`` is ``off``.
        ValueError: the version of a client is neither 4 nor 5.
    """

    __slots__ = ("_body", "_header", "_is_open", "_is_over", "_is_plain", "_missing", "_spare", "_state", "error")

    def __init__(self, role: Role, limits: MqttLimits, version: int = 0) -> None:
        super().__init__(role, limits, version)
        self.error: ProtocolError | None = None
        self._header = b""  # the beginning of a fixed header
        self._body: bytearray | None = None  # the beginning of a packet whose fixed header has come
        self._missing = 0  # bytes of that packet to come
        self._is_over = False  # nothing more is read
        self._is_plain = True  # none of the four above
        self._enter(_EXPECTED)

    def _enter(self, state: int) -> None:
        self._is_open = state == _OPEN
        self._state = _state(self._role, self.version, state, self._keeps_session)
        self._spare = _spare_workspaces(mqtt_limits(self._limits), self._state)

    @property
    def buffered(self) -> int:
        return len(self._header) if self._body is None else len(self._body)

    def receive_data(self, data: bytes) -> Sequence[m.Packet]:
        size = len(data)
        if not self._is_plain or size > _MAX_INPUT:
            return self._read_on(data)
        try:
            workspace = self._spare.pop()
        except IndexError:
            workspace = _Workspace(mqtt_limits(self._limits), self._state)
        count = workspace.read(workspace.at, data, size)
        if count == 1:
            first, reason, packet_id, begin, topic_end, properties, payload, end = _unpack_record(workspace.records)
            self._spare.append(workspace)
            if first >> 4 == 3:  # as in take(), whose way costs 0.2 us more
                name = data[begin:topic_end]
                topic = _topics.get(name) or _read_topic(name)
                if first == 0x30 and properties == payload:
                    return [_Publish(topic, data[payload:end])]
                qos, retain, dup = _FLAGS[first]
                raw = data[properties:payload]
                return [_Publish(topic, data[payload:end], qos, retain, dup, packet_id, raw)]
            return self.take(((first, reason, packet_id, begin, topic_end, properties, payload, end),), data)
        if count >= AMG_MQTT_UNSETTLED:
            return self._take_unsettled(workspace, data, count)
        records = workspace.records[: count % AMG_MQTT_ACKS * _RECORD_SIZE]
        if count < AMG_MQTT_ACKS:
            packets: Sequence[m.Packet] = self.take(_unpack_records(records), data)
        else:
            packets = [_Ack(first >> 4, packet_id) for first, packet_id in _unpack_acks(records)]
        self._spare.append(workspace)
        return packets

    def take(self, records: Iterable[RawRecord], data: Any) -> list[m.Packet]:
        """Make packets of records of the core's; an error among them becomes ``error``.

        Args:
            data: what their places are in: bytes, or anything whose slices are bytes.
        """
        packets: list[m.Packet] = []
        if self._is_over:
            return packets
        append = packets.append
        topic = ""
        for first, reason, packet_id, begin, topic_end, properties, payload, end in records:
            kind = first >> 4
            if kind == 3:
                if not reason:  # otherwise AMG_MQTT_SAME_TOPIC
                    name = data[begin:topic_end]
                    topic = _topics.get(name) or _read_topic(name)
                if first == 0x30 and properties == payload:
                    append(_Publish(topic, data[payload:end]))
                else:
                    qos, retain, dup = _FLAGS[first]
                    raw = data[properties:payload]
                    append(_Publish(topic, data[payload:end], qos, retain, dup, packet_id, raw))
            elif 3 < kind < 8:
                if properties == end:
                    append(_Ack(kind, packet_id, reason))
                else:
                    append(_Ack(kind, packet_id, reason, self._parse(data[properties:end], kind)))
            elif kind == 12:
                append(m.PING_REQUEST)
            elif kind == 13:
                append(m.PING_RESPONSE)
            elif kind:
                append(self._take_other(kind, data[begin:end]))
            else:
                self.error = mqtt_error(packet_id, begin, self._limits, self.version)
                self._end()
        return packets

    def _parse(self, raw: bytes, kind: int) -> Properties:
        return parse_properties(raw, 0, len(raw), kind, self._limits.max_user_properties)

    def _take_other(self, kind: int, body: bytes) -> m.Packet:
        packet = self.read_packet(kind, body, 0, len(body))
        if kind in (m.CONNECT, m.CONNACK):
            self._enter(_OPEN)
        elif kind == m.DISCONNECT:
            self._end()
        return packet

    def _end(self) -> None:
        self._is_over = True
        self._is_plain = False

    def _take_unsettled(self, workspace: _Workspace, data: bytes, count: int) -> Sequence[m.Packet]:
        """Take the records of a call; go on until all is read; keep an incomplete packet."""
        packets: list[m.Packet] = []
        spare, call, size = self._spare, workspace.call, len(data)
        while True:
            is_settled = count < AMG_MQTT_UNSETTLED
            count %= AMG_MQTT_ACKS
            self.version = workspace.state[_VERSION]  # also of a CONNECT that is refused
            packets += self.take(_unpack_records(workspace.records[: count * _RECORD_SIZE]), data)
            position = size if is_settled else call[_POSITION]
            if count < _MAX_RECORDS or position == size:
                break
            count = workspace.read(workspace.at, data, size)
        if position < size:
            self._is_plain = False
            if call[_WHOLE]:
                self._body = bytearray(data[position:])
                self._missing = call[_WHOLE] - (size - position)
            else:
                self._header = data[position:]
        call[_POSITION] = 0
        workspace.state[:] = workspace.fresh
        spare.append(workspace)
        return packets

    def _read_on(self, data: bytes) -> Sequence[m.Packet]:
        """Go on with what is incomplete, or with more than one call takes."""
        if self._is_over:
            return _NOTHING
        if len(data) > _MAX_INPUT:
            pieces = (data[start : start + _MAX_INPUT] for start in range(0, len(data), _MAX_INPUT))
            return [packet for piece in pieces for packet in self.receive_data(piece)]
        if self._body is None:
            data, self._header = self._header + data, b""
            self._is_plain = True
            return self.receive_data(data)
        piece = data[: self._missing]
        self._body += piece
        self._missing -= len(piece)
        if self._missing:
            return _NOTHING
        whole, self._body = bytes(self._body), None
        self._is_plain = True
        packets = self.receive_data(whole)
        return [*packets, *self.receive_data(data[len(piece) :])] if len(piece) < len(data) else packets

    # -- for the engine ----------------------------------------------------------------------------------------------

    def export(self) -> bytes:
        """Return what the engine needs to read packets from here on (AMG_OP_MQTT).

        A packet whose beginning is here is completed here: the engine tells its rest as bytes. b"": the first packet
        has not been read yet, or nothing more is to be read.
        """
        if self._is_over or not self._is_open:
            return b""
        header, self._header = self._header, b""
        self._is_plain = self._body is None
        _, *fixed = MQTT_STATE.unpack(self._state)[:5]
        state = MQTT_STATE.pack(self._missing, *fixed, len(header), *header.ljust(4, b"\0"), 0, 0, 0)
        return mqtt_limits(self._limits) + state
