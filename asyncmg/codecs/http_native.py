"""The native HTTP/1.1 codec (RFC 9112): amg_http1.c of the C core reads, its records become those of the contract here.

All that is received between two calls of ``next_event`` is read by one call of the core, or by two when it does not
begin with a whole simple request. A codec that is between two messages holds no buffer.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, Final

from asyncmg.core import CoreUnavailable, load, status
from asyncmg.core.records import (
    AMG_ANSWERS_CONNECT,
    AMG_ANSWERS_HEAD,
    AMG_ANSWERS_NOTHING,
    AMG_ANSWERS_OTHER,
    AMG_CLIENT,
    AMG_FRAMING_CLOSE,
    AMG_FRAMING_LENGTH,
    AMG_FRAMING_NONE,
    AMG_HTTP1_CONTENT,
    AMG_HTTP1_END,
    AMG_HTTP1_REQUEST,
    AMG_HTTP1_RESPONSE,
    AMG_HTTP_10,
    AMG_HTTP_EXPECTS_CONTINUE,
    AMG_HTTP_KEEP_ALIVE,
    AMG_HTTP_SCRATCH,
    AMG_HTTP_UPGRADE,
    AMG_SERVER,
    HTTP1_RECORD,
    HTTP1_STATE,
    http1_limits,
)
from asyncmg.errors import RemoteProtocolError
from asyncmg.limits import HttpLimits
from asyncmg.messages import Framing, WholeRequest, split_fields

from .http import NO_TRAILERS, EndOfMessage, Record, RequestHead, ResponseHead, Role, over_limit, refuse

_VERSION_SECTION = "9110 section 15.6.6"  # of requests: 505

# AMG_E_ in the order of amg.h: what is told, and the RFC section; or the field of HttpLimits, without "max_".
ERRORS: Final = {
    "AMG_E_MISPLACED": ("bare CR, bare LF or NUL in the header", "9112 section 2.2"),
    "AMG_E_REQUEST_LINE_SIZE": ("request line", "max_request_line"),
    "AMG_E_HEADER_SIZE": ("header section", "max_header_size"),
    "AMG_E_FIELD_LINE_SIZE": ("field line", "max_field_line"),
    "AMG_E_FIELDS": ("number of fields", "max_fields"),
    "AMG_E_CHUNK_LINE_SIZE": ("chunk line", "max_chunk_line"),
    "AMG_E_CHUNK_EXTENSIONS": ("chunk extensions", "max_chunk_extensions"),
    "AMG_E_TRAILER_SIZE": ("trailer section", "max_trailer_size"),
    "AMG_E_TRAILER_FIELDS": ("number of trailer fields", "max_fields"),
    "AMG_E_START_LINE": ("malformed request line or status line", "9112 section 2.1"),
    "AMG_E_VERSION": ("HTTP version other than 1.0 and 1.1", _VERSION_SECTION),
    "AMG_E_TARGET": ("malformed request-target", "9112 section 3.2"),
    "AMG_E_FIELD": ("malformed field line", "9112 section 5"),
    "AMG_E_FOLDING": ("line folding in the header", "9112 section 5.2"),
    "AMG_E_HOST_MISSING": ("Host is missing", "9112 section 3.2"),
    "AMG_E_HOST_REPEATED": ("more than one Host", "9112 section 3.2"),
    "AMG_E_HOST": ("malformed Host", "9112 section 3.2"),
    "AMG_E_LENGTH": ("malformed or repeated Content-Length", "9112 section 6.3"),
    "AMG_E_CODING": ("Transfer-Encoding other than chunked", "9112 section 6.1"),
    "AMG_E_CODING_AND_LENGTH": ("Transfer-Encoding with Content-Length", "9112 section 6.1"),
    "AMG_E_CODING_IN_10": ("Transfer-Encoding in HTTP/1.0", "9112 section 6.1"),
    "AMG_E_EXPECT": ("Expect other than 100-continue", "9110 section 10.1.1"),
    "AMG_E_UNASKED": ("response without a request", "9112 section 9.2"),
    "AMG_E_CHUNK_SIZE": ("malformed chunk size", "9112 section 7.1"),
    "AMG_E_CHUNK_END": ("no CRLF behind a chunk", "9112 section 7.1"),
    "AMG_E_CHUNK_MISPLACED": ("bare CR or LF in a chunk line", "9112 section 7.1"),
    "AMG_E_TRAILER_MISPLACED": ("bare CR, bare LF or NUL in the trailers", "9112 section 7.1.2"),
    "AMG_E_TRAILER": ("malformed trailer field", "9112 section 7.1.2"),
    "AMG_E_EOF_IN_HEAD": ("closed in the middle of a header", "9112 section 8"),
    "AMG_E_EOF_IN_CONTENT": ("closed in the middle of the content", "9112 section 8"),
}
_ERRORS = (("", ""), *ERRORS.values())  # by number

_FRAMINGS = (Framing.NONE, Framing.LENGTH, Framing.CHUNKED, Framing.CLOSE)  # by AMG_FRAMING_
_ANSWERS = {"HEAD": AMG_ANSWERS_HEAD, "CONNECT": AMG_ANSWERS_CONNECT}
_METHODS = {name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE")}

_MAX_RECORDS = 64
_MAX_INPUT = 2**31 - 1  # more is not looked at by one call
_MAX_KEPT_SCRATCH = 1 << 20
_ANSWERS_PLACE = 20  # of `answers` in amg_http1

_RawRecord = tuple[int, int, int, int, int, int, int, int, int, int]
_unpack_record: Callable[[memoryview], _RawRecord] = HTTP1_RECORD.unpack_from

# Of codecs that have none; never changed. A list of its own would be a third of a codec's memory.
_NO_RECORDS: list[_RawRecord] = []
_NO_PIECES: list[bytes] = []
_NO_METHODS: list[str] = []


class _Workspace:
    """What a call of the core works in. Each call takes one for itself: codecs of several threads never share one."""

    __slots__ = (
        "consumed",
        "consumed_at",
        "fresh",
        "read",
        "records",
        "records_at",
        "scratch",
        "state",
        "state_at",
        "whole",
    )

    def __init__(self) -> None:
        core = load()
        if core is None:
            raise CoreUnavailable(f"the native codec needs the C core: {status().reason}")
        self.read: Callable[..., int] = core.http1.read
        self.whole: Callable[..., int] = core.http1.whole
        state = ctypes.create_string_buffer(HTTP1_STATE.size)
        records = ctypes.create_string_buffer(HTTP1_RECORD.size * _MAX_RECORDS)
        self.state_at: int = ctypes.addressof(state)
        self.records_at: int = ctypes.addressof(records)
        fresh = []
        for role in (AMG_SERVER, AMG_CLIENT):
            core.http1.init(self.state_at, role)
            fresh.append(state.raw)
        self.fresh = tuple(fresh)
        self.state = memoryview(state).cast("B")
        self.records = memoryview(records).cast("B")
        self.consumed = ctypes.c_size_t()
        self.consumed_at: int = ctypes.addressof(self.consumed)
        self.scratch: ctypes.Array[ctypes.c_char] = ctypes.create_string_buffer(1 << 16)

    def scratch_for(self, size: int) -> ctypes.Array[ctypes.c_char]:
        """Return room for so much content of chunks."""
        if size <= len(self.scratch):
            return self.scratch
        scratch = ctypes.create_string_buffer(size)
        if size <= _MAX_KEPT_SCRATCH:
            self.scratch = scratch
        return scratch


_spare: list[_Workspace] = []


class NativeHttpCodec:
    """Reads requests (role SERVER) or responses (CLIENT). The contract is :class:`asyncmg.codecs.http.HttpCodec`.

    Raises:
        CoreUnavailable: there is no C core, or ``ASYNCMG_CORE`` is ``off``.
    """

    __slots__ = (
        "_base",
        "_consumed",
        "_data",
        "_has_eof",
        "_has_failed",
        "_has_news",
        "_is_between",
        "_is_last",
        "_is_over",
        "_later",
        "_limits",
        "_methods",
        "_packed_limits",
        "_pieces",
        "_position",
        "_queue",
        "_role",
        "_state",
    )

    def __init__(self, role: Role, limits: HttpLimits) -> None:
        if not _spare:
            _spare.append(_Workspace())
        self._role = AMG_SERVER if role is Role.SERVER else AMG_CLIENT
        self._limits = limits
        self._packed_limits = http1_limits(limits)
        self._state: bytes | None = None  # amg_http1 between two calls; None: at the beginning of a message
        self._data = b""  # where the queue's records are
        self._base = 0  # in _data: where the last call of the core began to read,
        self._consumed = 0  # how far it came,
        self._position = 0  # and the end of the last record that was returned
        self._later: bytes | bytearray = b""  # received and not in _data yet
        self._queue = _NO_RECORDS  # the next one is at the end
        self._pieces = _NO_PIECES  # content that was joined from chunks; the next one is at the end
        self._methods = _NO_METHODS  # of the requests whose final response has not come
        self._has_eof = False
        self._has_news = False  # the core may have something to say
        self._is_between = True
        self._is_last = False  # the connection's end is that of the content
        self._is_over = False  # nothing more is read
        self._has_failed = False

    @property
    def buffered(self) -> int:
        return len(self._data) - self._position + len(self._later)

    @property
    def is_between_messages(self) -> bool:
        return self._is_between and not self._later and self._position == len(self._data)

    def expect(self, method: str) -> None:
        if self._methods:
            self._methods.append(method)
        else:
            self._methods = [method]

    def receive_data(self, data: bytes) -> None:
        if self._has_failed:
            return
        self._has_news = True
        if not self._later:
            self._later = data
        elif isinstance(self._later, bytearray):
            self._later += data
        else:
            self._later = bytearray(self._later) + data

    def receive_eof(self) -> None:
        self._has_eof = self._has_news = True

    def take_rest(self) -> bytes:
        rest = self._data[self._position :] + self._later
        self._forget()
        return rest

    def next_event(self) -> Record | None:
        if self._queue:
            return self._take(self._queue.pop())
        if self._is_over:
            return None
        self._position = self._consumed
        if self._has_news:
            return self._read()
        return None

    def _forget(self) -> None:
        """Drop everything: nothing more is read."""
        self._data = self._later = b""
        self._base = self._consumed = self._position = 0
        self._queue, self._pieces, self._state = _NO_RECORDS, _NO_PIECES, None
        self._is_over, self._is_between = True, False

    # -- the core ------------------------------------------------------------------------------------------------

    def _read(self) -> Record | None:
        self._has_news = False
        try:
            workspace = _spare.pop()
        except IndexError:
            workspace = _Workspace()
        try:
            if self._later:
                if self._state is None and self._consumed == len(self._data) and self._role == AMG_SERVER:
                    data = self._later if type(self._later) is bytes else bytes(self._later)
                    size = workspace.whole(self._packed_limits, data, len(data), workspace.records_at)
                    if size:
                        return self._take_whole(_unpack_record(workspace.records), data, size)
                    self._data = data
                else:
                    self._data = self._data[self._consumed :] + self._later
                self._later = b""
                self._base = self._consumed = self._position = 0
            self._read_records(workspace)
        finally:
            _spare.append(workspace)
        if self._queue:
            return self._take(self._queue.pop())
        self._position = self._consumed
        self._trim()
        return None

    def _take_whole(self, record: _RawRecord, data: bytes, size: int) -> WholeRequest:
        """Return a request that the core has found at the beginning of what is not in _data yet."""
        _, _, flags, _, _, _, length, method_length, target_length, _ = record
        self._later = b""
        self._base = self._consumed = self._position = 0
        self._is_between = True
        if size == len(data):
            self._data = b""
        else:
            self._data = data
            self._consumed = self._position = size
            self._has_news = True
            data = data[:size]
        return WholeRequest(data, length, method_length, target_length, flags)

    def _read_records(self, workspace: _Workspace) -> None:
        data, base, role = self._data, self._consumed, self._role
        n = len(data) - base
        # What a call has left is not copied for the next one.
        start: Any = data if not base else (ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0) + base
        scratch = workspace.scratch_for(min(n, _MAX_INPUT))
        fresh = workspace.fresh[role]
        state = workspace.state
        state[:] = self._state or fresh
        if role == AMG_CLIENT:
            method = self._methods[0] if self._methods else ""
            state[_ANSWERS_PLACE] = _ANSWERS.get(method, AMG_ANSWERS_OTHER) if method else AMG_ANSWERS_NOTHING
        count = workspace.read(
            workspace.state_at,
            self._packed_limits,
            start,
            n,
            self._has_eof,
            ctypes.addressof(scratch),
            workspace.records_at,
            _MAX_RECORDS,
            workspace.consumed_at,
        )
        state[_ANSWERS_PLACE] = 0
        after = bytes(state)
        self._state = None if after == fresh else after
        used = workspace.consumed.value
        self._base, self._consumed = base, base + used
        if n > _MAX_INPUT:
            self._has_news = True
        if not count:
            return
        queue: list[Any] = list(HTTP1_RECORD.iter_unpack(workspace.records[: HTTP1_RECORD.size * count]))
        queue.reverse()
        last = queue[0]
        if count == _MAX_RECORDS or (last[0] == AMG_HTTP1_END and used < n):
            self._has_news = True
        elif last[0] == AMG_HTTP1_REQUEST:
            # Perhaps the core has stopped behind it.
            self._has_news = last[1] == AMG_FRAMING_NONE or used < n or self._has_eof
        self._queue = queue
        self._pieces = [
            ctypes.string_at(ctypes.addressof(scratch) + record[5], record[6])
            for record in queue
            if record[2] & AMG_HTTP_SCRATCH
        ]

    # -- records -------------------------------------------------------------------------------------------------

    def _take(self, record: _RawRecord) -> Record:
        kind, _, flags, _, _, offset, length, position, _, _ = record
        if kind == AMG_HTTP1_CONTENT:
            if flags & AMG_HTTP_SCRATCH:
                content = self._pieces.pop()
            else:
                offset += self._base
                content = self._data[offset : offset + length]
            self._position = self._base + position
            self._is_between = False
            if not self._queue:
                self._trim()
            return content
        if kind == AMG_HTTP1_END:
            end = NO_TRAILERS
            if length:
                offset += self._base
                end = EndOfMessage(split_fields(self._data[offset : offset + length]))
            self._position = self._base + position
            self._is_between, self._is_over = not self._is_last, self._is_last
            if not self._queue:
                self._trim()
            return end
        if kind == AMG_HTTP1_REQUEST:
            return self._take_request(record)
        if kind == AMG_HTTP1_RESPONSE:
            return self._take_response(record)
        raise self._fail(record)

    def _trim(self) -> None:
        """The queue is empty: keep no more than what has not been returned."""
        self._queue, self._pieces = _NO_RECORDS, _NO_PIECES
        position = self._position
        left = len(self._data) - position
        if left < position:
            self._data = self._data[position:] if left else b""
            self._consumed -= position
            self._base = self._position = 0

    def _take_request(self, record: _RawRecord) -> Record:
        _, framing, flags, _, _, offset, length, method_length, target_length, content_length = record
        queue = self._queue
        offset += self._base
        keep_alive, is_10 = (flags & AMG_HTTP_KEEP_ALIVE) != 0, (flags & AMG_HTTP_10) != 0
        # Its end would not be in the queue if it were an upgrade or CONNECT.
        if framing == AMG_FRAMING_NONE and queue:
            whole = queue.pop()[0] == AMG_HTTP1_END
            assert whole
        elif framing == AMG_FRAMING_LENGTH and not flags & AMG_HTTP_EXPECTS_CONTINUE and len(queue) > 1:
            whole = queue[-1][6] == content_length
            if whole:
                del queue[-2:]
        else:
            whole = False
        if whole:
            end = self._position = offset + length + content_length
            raw = self._data[offset:end]
            self._is_between = True
            if not queue:
                self._trim()
            return WholeRequest(raw, length, method_length, target_length, flags & (AMG_HTTP_10 | AMG_HTTP_KEEP_ALIVE))
        head = self._data[offset : offset + length]
        self._position = offset + length
        self._is_between = False
        if not queue:
            self._trim()
        start = method_length + 1
        name = head[:method_length]
        fields = split_fields(head[start + target_length + 11 : -4])  # behind " HTTP/1.1", CR and LF
        upgrade = ""
        if flags & AMG_HTTP_UPGRADE:
            upgrade = [value for key, value in fields if key.lower() == b"upgrade"][-1].decode("latin-1")
        return RequestHead(
            _METHODS.get(name) or name.decode("ascii"),
            head[start : start + target_length].decode("ascii"),
            "HTTP/1.0" if is_10 else "HTTP/1.1",
            fields,
            _FRAMINGS[framing],
            content_length,
            keep_alive,
            (flags & AMG_HTTP_EXPECTS_CONTINUE) != 0,
            upgrade,
        )

    def _take_response(self, record: _RawRecord) -> ResponseHead:
        _, framing, flags, code, _, offset, length, _, reason_length, content_length = record
        offset += self._base
        head = self._data[offset : offset + length]
        self._position = offset + length
        self._is_between = code < 200 and code != 101
        self._is_last = framing == AMG_FRAMING_CLOSE
        # Only the final response uses the request up.
        method = self._methods[0] if code < 200 else self._methods.pop(0)
        if code == 101 or (method == "CONNECT" and code // 100 == 2):
            self._is_over = True
        if not self._queue:
            self._trim()
        return ResponseHead(
            method,
            code,
            head[13 : 13 + reason_length].decode("utf-8", "surrogateescape"),
            "HTTP/1.0" if flags & AMG_HTTP_10 else "HTTP/1.1",
            split_fields(head[head.index(b"\r\n") + 2 : -4]),
            _FRAMINGS[framing],
            content_length,
            (flags & AMG_HTTP_KEEP_ALIVE) != 0,
        )

    def _fail(self, record: _RawRecord) -> RemoteProtocolError:
        _, _, _, code, number, _, _, _, _, actual = record
        self._forget()
        self._has_failed = True
        message, where = _ERRORS[number]
        if where == _VERSION_SECTION and self._role == AMG_CLIENT:
            where = "9112 section 2.3"
        if where.startswith("max_"):
            return over_limit(message, where, getattr(self._limits, where), actual, code)
        return refuse(message, where, code)
