"""The native WebSocket codec (RFC 6455 section 5): amg_ws.c of the C core reads, its records become the contract's.

One call of the core reads all that is received at once. What it writes lies in a workspace that codecs share; a codec
that is between two messages holds no buffer.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Final

from asyncmg.core import CoreUnavailable, load, status
from asyncmg.core.records import (
    AMG_CLIENT,
    AMG_SERVER,
    AMG_WS_ERROR,
    AMG_WS_HELD,
    AMG_WS_UNSETTLED,
    WS_CALL,
    WS_RECORD,
    WS_STATE,
    ws_limits,
)
from asyncmg.errors import ProtocolError
from asyncmg.limits import WsLimits

from .http import Role
from .ws import CLOSE, INVALID_DATA, PROTOCOL_ERROR, WsRecord, max_frame, over_limit, refuse

# AMG_WS_E_ in the order of amg.h: what is told, the section of RFC 6455 and the close code; or what is over which field
# of WsLimits.
ERRORS: Final[dict[str, tuple[str, str, int]]] = {
    "AMG_WS_E_RESERVED_BIT": ("reserved bit set", "5.2", PROTOCOL_ERROR),
    "AMG_WS_E_OPCODE": ("reserved opcode", "5.2", PROTOCOL_ERROR),
    "AMG_WS_E_CONTROL_FRAGMENTED": ("fragmented control frame", "5.5", PROTOCOL_ERROR),
    "AMG_WS_E_CONTROL_SIZE": ("control frame of more than 125 bytes", "5.5", PROTOCOL_ERROR),
    "AMG_WS_E_IN_MESSAGE": ("new message inside a fragmented one", "5.4", PROTOCOL_ERROR),
    "AMG_WS_E_NO_MESSAGE": ("continuation without a message", "5.4", PROTOCOL_ERROR),
    "AMG_WS_E_MASKED": ("masked frame from a server", "5.1", PROTOCOL_ERROR),
    "AMG_WS_E_UNMASKED": ("unmasked frame from a client", "5.1", PROTOCOL_ERROR),
    "AMG_WS_E_LENGTH_SIZE": ("length of more than 63 bits", "5.2", PROTOCOL_ERROR),
    "AMG_WS_E_LENGTH_FORM": ("length not in its shortest form", "5.2", PROTOCOL_ERROR),
    "AMG_WS_E_FRAGMENTS": ("number of fragments", "max_fragments", 0),
    "AMG_WS_E_FRAME_SIZE": ("frame", "max_frame", 0),
    "AMG_WS_E_MESSAGE_SIZE": ("message", "max_message", 0),
    "AMG_WS_E_UTF8": ("text is not UTF-8", "8.1", INVALID_DATA),
    "AMG_WS_E_CLOSE_SIZE": ("close frame with half a code", "5.5.1", PROTOCOL_ERROR),
    "AMG_WS_E_CLOSE_CODE": ("invalid close code {}", "7.4", PROTOCOL_ERROR),
    "AMG_WS_E_CLOSE_UTF8": ("close reason is not UTF-8", "5.5.1", INVALID_DATA),
}
_ERRORS = (("", "", 0), *ERRORS.values())  # by number


def ws_error(number: int, value: int, limits: WsLimits) -> ProtocolError:
    """Make the exception of an error of the core.

    Args:
        number: AMG_WS_E_.
        value: what went over a limit, or the close code.
        limits: those of the connection.
    """
    message, where, code = _ERRORS[number]
    if code:
        return refuse(message.format(value), where, code)
    limit = max_frame(limits) if where == "max_frame" else getattr(limits, where)
    return over_limit(message, where, limit, value)


_MAX_RECORDS = 256
_SCRATCH = 1 << 17  # room for payloads that is kept; a read of asyncio's may be more
_NUMBER = 256  # bytes that are masked as one number rather than by the core

_RECORD_SIZE: Final = WS_RECORD.size
_RawRecord = tuple[int, int, int, int]
_unpack_record: Callable[[memoryview], _RawRecord] = WS_RECORD.unpack_from
_unpack_records: Callable[[memoryview], Iterator[_RawRecord]] = WS_RECORD.iter_unpack
_CONTROL_PLACE = WS_STATE.size - 125  # of `control` in amg_ws
_OUT, _CONSUMED = 2, 5  # places in amg_ws_call

_IS_OVER = b""  # a state: nothing more is read
_NO_RECORDS: Final = ()


class _Workspace:
    """What calls of the core work in, for one kind of codec. A call takes one for itself: threads never share one."""

    __slots__ = ("at", "call", "fresh", "limits", "read", "records", "scratch", "state")

    def __init__(self, role: int, compressed: bool, limits: bytes) -> None:
        core = load()
        if core is None:
            raise CoreUnavailable(f"the native codec needs the C core: {status().reason}")
        self.read: Callable[[int, Any, int], int] = core.ws.read_call
        state = ctypes.create_string_buffer(WS_STATE.size)
        records = ctypes.create_string_buffer(_RECORD_SIZE * _MAX_RECORDS)
        self.limits = ctypes.create_string_buffer(limits, len(limits))
        # Payload that is not masked stays where it is.
        self.scratch: Any = ctypes.create_string_buffer(_SCRATCH) if role == AMG_SERVER else None
        call = ctypes.create_string_buffer(WS_CALL.size)
        addresses = [ctypes.addressof(memory) for memory in (state, self.limits, self.scratch or state, records)]
        if self.scratch is None:
            addresses[_OUT] = 0
        WS_CALL.pack_into(call, 0, *addresses, _MAX_RECORDS, 0)
        core.ws.init(addresses[0], role, compressed)
        self.fresh = state.raw
        self.state = memoryview(state).cast("B")
        self.records = memoryview(records).cast("B")
        self.call = memoryview(call).cast("B").cast("Q")
        self.at: int = ctypes.addressof(call)


@lru_cache(maxsize=64)
def _spare_workspaces(role: int, compressed: bool, limits: bytes) -> list[_Workspace]:
    return [_Workspace(role, compressed, limits)]


class NativeWsCodec:
    """The contract is :class:`asyncmg.codecs.ws.WsCodec`.

    Raises:
        CoreUnavailable: there is no C core, or ``ASYNCMG_CORE`` is ``off``.
    """

    __slots__ = ("_compressed", "_limits", "_role", "_spare", "_state", "error")

    def __init__(self, role: Role, limits: WsLimits, compressed: bool) -> None:
        self.error: ProtocolError | None = None
        self._role = AMG_SERVER if role is Role.SERVER else AMG_CLIENT
        self._limits = limits
        self._compressed = compressed
        self._spare = _spare_workspaces(self._role, compressed, ws_limits(limits))
        self._state: bytes | None = None  # amg_ws between two calls; None: at the beginning of a message

    def mask(self, payload: bytes, key: bytes) -> bytes:
        size = len(payload)
        if size <= _NUMBER:
            number = int.from_bytes
            return (number(payload, "big") ^ number((key * ((size + 3) >> 2))[:size], "big")).to_bytes(size, "big")
        core = load()
        assert core is not None, "it was there when the codec was made"
        masked = bytearray(payload)
        core.mask(masked, key)
        return bytes(masked)

    def export(self) -> bytes:
        """Return what the engine needs to go on in this codec's place (AMG_OP_WS); b"": nothing more is to be read."""
        if self._state == _IS_OVER:
            return b""
        (workspace, *_) = self._spare or (_Workspace(self._role, self._compressed, ws_limits(self._limits)),)
        return ws_limits(self._limits) + (self._state or workspace.fresh)

    def fail(self, number: int, value: int) -> None:
        self.error = ws_error(number, value, self._limits)

    def receive_data(self, data: bytes) -> Sequence[WsRecord]:
        try:
            workspace = self._spare.pop()
        except IndexError:
            workspace = _Workspace(self._role, self._compressed, ws_limits(self._limits))
        size = len(data)
        scratch = workspace.scratch
        if self._state is not None or size > _SCRATCH:
            records: Sequence[WsRecord] = self._read_on(workspace, data)
        else:
            source = data if scratch is None else scratch
            count = workspace.read(workspace.at, data, size)
            if count == 1:
                flags, offset, length, _ = _unpack_record(workspace.records)
                records = ((flags, source[offset : offset + length]),)
            elif count < AMG_WS_UNSETTLED:
                records = [
                    (flags, source[offset : offset + length])
                    for flags, offset, length, _ in _unpack_records(workspace.records[: count * _RECORD_SIZE])
                ]
            else:
                records = self._take_unsettled(workspace, data, source, count)
        self._spare.append(workspace)
        return records

    def _read_on(self, workspace: _Workspace, data: bytes) -> Sequence[WsRecord]:
        """Read in the middle of a message or frame, or more than the scratch buffer holds."""
        if self._state == _IS_OVER:
            return _NO_RECORDS
        if self._state is not None:
            workspace.state[:] = self._state
        source = data if workspace.scratch is None else workspace.scratch
        large = source is not data and len(data) > _SCRATCH
        if large:
            source = ctypes.create_string_buffer(len(data))
            workspace.call[_OUT] = ctypes.addressof(source)
        records = self._take_unsettled(workspace, data, source, workspace.read(workspace.at, data, len(data)))
        if large:
            workspace.call[_OUT] = ctypes.addressof(workspace.scratch)
        return records

    def _take_unsettled(self, workspace: _Workspace, data: bytes, source: Any, count: int) -> Sequence[WsRecord]:
        """Take the records of a call; go on until all is read; keep the state."""
        records: list[WsRecord] = []
        state = workspace.state
        base, size = 0, len(data)  # where in data the call began
        while True:
            is_settled = count < AMG_WS_UNSETTLED
            raw = list(_unpack_records(workspace.records[: count % AMG_WS_UNSETTLED * _RECORD_SIZE]))
            has_held = bool(raw) and raw[0][0] & AMG_WS_HELD != 0
            if has_held:
                flags, _, length, _ = raw.pop(0)
                records.append((flags & ~AMG_WS_HELD, bytes(state[_CONTROL_PLACE : _CONTROL_PLACE + length])))
            if raw and raw[-1][0] & AMG_WS_ERROR:
                _, low, high, number = raw.pop()
                self.error = ws_error(number, high << 32 | low, self._limits)
            shift = base if source is data else 0
            records += [(flags, source[offset + shift : offset + shift + length]) for flags, offset, length, _ in raw]
            if self.error is not None or (records and records[-1][0] & 15 == CLOSE):
                self._state = _IS_OVER
                state[:] = workspace.fresh
                return records
            if is_settled:
                self._state = None
                return records
            base += workspace.call[_CONSUMED]
            if base == size and not has_held:  # otherwise ask whether there is something to keep
                self._state = bytes(state)
                state[:] = workspace.fresh
                return records
            start = (ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0) + base
            count = workspace.read(workspace.at, start, size - base)
