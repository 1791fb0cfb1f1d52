"""TLS over any asyncio transport (RFC 8446, RFC 5246), by ``ssl.MemoryBIO``.

The one TLS shell of both backends. asyncio's own is not used: its ``start_tls`` loses ciphertext that was received
before it, it differs between loops, and the native backend has no asyncio transports.

``raw`` carries ciphertext, the application's protocol sees plaintext::

    application protocol  <-- plaintext --  TlsTransport  <-- ciphertext --  raw transport
                          -- write() -->   (SSLObject)    -- write() -->
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import deque
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Any, cast

from asyncmg.errors import DeadlineExceeded, TlsError
from asyncmg.messages import WholeRequest
from asyncmg.tls import explain_ssl_error

_MAX_RECORD = 1 << 14  # RFC 8446 section 5.1: plaintext of one record
_MAX_DELIVERY = 64 << 10  # plaintext of one data_received
# Ciphertext given to OpenSSL at once. Its memory BIO never shrinks, so this bounds what an idle connection holds.
_MAX_FEED = 64 << 10


class _State(StrEnum):
    HANDSHAKE = "handshake"
    OPEN = "open"
    CLOSING = "closing"  # nothing of the peer is looked at any more; the raw transport is being flushed and closed
    CLOSED = "closed"


class TlsTransport(asyncio.Transport):
    """A transport that encrypts what is written and decrypts what arrives.

    ``connection_made`` of the application's protocol is not called: the caller does that when it sees fit, usually
    before the handshake. Extra info, beside everything of ``raw``: ``ssl_object``, ``sslcontext``, ``peercert``,
    ``cipher``, ``compression``, and ``tls_truncated``: True once the peer's stream has ended without a close_notify, so
    that somebody may have cut it (RFC 8446 section 6.1). A protocol for which the end of the stream is the end of a
    message must refuse such an end.
    """

    __slots__ = (
        "__weakref__", "_app_paused", "_backlog", "_busy", "_closing", "_eof_told", "_eof_wanted", "_failure",
        "_handshake_timeout", "_has_received", "_incoming", "_loop", "_notified", "_on_failure", "_on_handshake",
        "_outgoing", "_paused", "_peer_closed", "_protocol", "_queue", "_queued", "_raw", "_raw_ended", "_raw_eof",
        "_raw_paused", "_resuming", "_server_side", "_shutdown_timeout", "_ssl", "_state", "_timer", "_truncated",
        "_unread",
    )  # fmt: skip

    def __init__(
        self,
        raw: asyncio.Transport,
        protocol: asyncio.Protocol,
        context: ssl.SSLContext,
        *,
        loop: asyncio.AbstractEventLoop,
        server_side: bool,
        server_hostname: str | None,
        handshake_timeout: float,
        shutdown_timeout: float,
        on_handshake: Callable[[], None],
        on_failure: Callable[[TlsError], None],
    ) -> None:
        """Prepare TLS on a connected transport; :meth:`start` begins it.

        Args:
            raw: the connected transport underneath, any asyncio transport or another TlsTransport.
            protocol: receives the plaintext.
            context: the certificates and rules.
            loop: the loop of ``raw``.
            server_side: the role in the handshake.
            server_hostname: a client's SNI and name to verify; None on a server.
            handshake_timeout: seconds from :meth:`start` to the end of the handshake, then ``raw`` is aborted.
            shutdown_timeout: seconds from :meth:`close` to the end of the connection, then ``raw`` is aborted.
            on_handshake: called once when the handshake has succeeded, before any plaintext is delivered or sent.
            on_failure: called once when it has failed, before ``connection_lost``. Neither is called when the
                application closes the transport first. Later failures come with ``connection_lost`` only.

        Raises:
            TlsError: the context cannot be used in this role or with this name.
        """
        super().__init__()
        if context.check_hostname and not server_side and not server_hostname:
            # ssl refuses this for sockets only; here it would leave the name unchecked, without a word.
            raise TlsError("TLS cannot be used: the certificate is to be checked against a name, and there is none")
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        try:
            self._ssl = context.wrap_bio(
                self._incoming, self._outgoing, server_side=server_side, server_hostname=server_hostname
            )
        except (ssl.SSLError, ValueError, TypeError) as error:  # a name with a NUL is a TypeError to ssl
            raise TlsError(f"TLS cannot be used: {error}") from error
        self._raw = raw
        self._protocol = protocol
        self._loop = loop
        self._server_side = server_side
        self._handshake_timeout = handshake_timeout
        self._shutdown_timeout = shutdown_timeout
        self._on_handshake = on_handshake
        self._on_failure = on_failure
        self._state = _State.HANDSHAKE
        self._timer: asyncio.TimerHandle | None = None
        self._failure: TlsError | None = None  # what connection_lost will tell
        # Receiving.
        self._backlog: deque[bytes | memoryview] = deque()  # ciphertext that OpenSSL has not been given yet
        self._unread = False  # the incoming BIO may hold a whole record
        self._busy = False  # in _advance
        self._paused = False  # by the application
        self._resuming = False  # _resume is scheduled
        self._has_received = False  # any plaintext
        self._peer_closed = False  # its close_notify was seen
        self._raw_eof = False
        self._eof_told = False
        self._truncated = False
        # Sending.
        self._queue: deque[bytes] = deque()  # plaintext that cannot be encrypted yet
        self._queued = 0
        self._closing = False  # close() was called, or the end has come otherwise
        self._eof_wanted = False  # write_eof() was called
        self._notified = False  # our close_notify was sent
        self._raw_ended = False  # raw.write_eof() was called
        self._raw_paused = False  # raw asked us to pause writing
        self._app_paused = False  # and the application was told

    def start(self, received: bytes = b"") -> None:
        """Take over the raw transport and begin the handshake.

        Args:
            received: ciphertext that had arrived already. When it is no TLS, ``on_failure`` is called before this
                method returns.
        """
        if self._is_over_high_water(self._raw.get_write_buffer_size()):
            self._app_paused = self._raw_paused = True  # the raw transport has told the application already
        self._timer = self._loop.call_later(self._handshake_timeout, self._handshake_expired)
        self._raw.set_protocol(_CiphertextProtocol(self))
        self._raw.resume_reading()  # the application may have paused it; the handshake has to be read
        self._unread = True  # nothing is there, but a client has to speak first
        self._receive(received)

    # What the application calls: receiving.

    def pause_reading(self) -> None:
        """Stop delivering and decrypting. The handshake goes on meanwhile."""
        if self._paused or self._closing:
            return
        self._paused = True
        if self._state is _State.OPEN:
            self._raw.pause_reading()

    def resume_reading(self) -> None:
        """Go on delivering; what has arrived meanwhile follows in a later turn of the loop."""
        if not self._paused or self._closing:
            return
        self._paused = False
        if self._resuming:
            return
        if self._unread or self._backlog or self._incoming.pending or self._peer_closed or self._raw_eof:
            self._resuming = True
            self._loop.call_soon(self._resume)
        elif self._state is _State.OPEN:
            self._raw.resume_reading()

    def is_reading(self) -> bool:
        """Return True unless paused or closing."""
        return not self._paused and not self.is_closing()

    # What the application calls: sending.

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Send data, after the handshake; what is written after :meth:`close` is dropped.

        Raises:
            RuntimeError: after :meth:`write_eof`.
        """
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"data: expected a bytes-like object, got {type(data).__name__}")
        if self._eof_wanted:
            raise RuntimeError("Cannot call write() after write_eof()")
        if self._closing:
            return
        plaintext = bytes(data)
        if not plaintext:
            return
        self._queue.append(plaintext)
        self._queued += len(plaintext)
        if self._state is _State.OPEN:
            self._send_queue()
        else:
            self._update_flow()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview[Any]]) -> None:
        """Send all parts in one piece."""
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        """Return True: close_notify ends our side of the stream, whatever the raw transport can do."""
        return True

    def write_eof(self) -> None:
        """Send what is queued and a close_notify, and half-close the raw transport if it can; reading goes on."""
        if self._closing or self._eof_wanted:
            return
        self._eof_wanted = True
        if self._state is _State.OPEN:
            self._send_queue()

    def close(self) -> None:
        """Send what was written and a close_notify, then close the raw transport; nothing is delivered any more.

        What was written during the handshake is sent after it. When the peer does not take it all within
        ``shutdown_timeout`` seconds the connection is aborted; ``connection_lost`` gets a TlsError if data was lost.
        """
        if self._closing:
            return
        self._closing = True
        if self._state is _State.HANDSHAKE and self._queue:
            return  # the handshake's timer bounds it; then _send_queue comes back here
        if self._state is _State.OPEN and self._queue:
            self._restart_timer(self._shutdown_timeout, self._shutdown_expired)
        else:
            self._shut_down()

    def abort(self) -> None:
        """Close at once; what has not been sent is lost."""
        self._enter_closing()
        self._cancel_timer()
        self._raw.abort()

    def is_closing(self) -> bool:
        """Return True when the transport is closing or closed."""
        return self._closing or self._raw.is_closing()

    # What the application calls: settings and information.

    def get_write_buffer_size(self) -> int:
        """Return the bytes not sent yet: the raw transport's ciphertext and our queue before the handshake."""
        return self._raw.get_write_buffer_size() + self._queued

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return the low and the high water mark, which are the raw transport's."""
        return self._raw.get_write_buffer_limits()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set the marks at which the application's protocol is paused and resumed."""
        self._raw.set_write_buffer_limits(high, low)
        self._update_flow()

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the application's protocol."""
        return self._protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Let another protocol have everything that follows."""
        if self._state is not _State.CLOSED:
            self._protocol = cast(asyncio.Protocol, protocol)

    def get_raw(self) -> asyncio.Transport:
        """Return the transport underneath."""
        return self._raw

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return the TLS information of the class's docstring, or what the raw transport says."""
        match name:
            case "ssl_object":
                return self._ssl
            case "sslcontext":
                return self._ssl.context
            case "tls_truncated":
                return self._truncated
            case "peercert":
                try:
                    return self._ssl.getpeercert()
                except ValueError:  # the handshake is not done
                    return default
            case "cipher":
                return self._ssl.cipher() or default
            case "compression":
                return self._ssl.compression() or default
        return self._raw.get_extra_info(name, default)

    # Receiving.

    def _receive(self, ciphertext: bytes) -> None:
        if self._state is _State.CLOSING or self._peer_closed:
            return  # RFC 8446 section 6.1: what follows a close_notify is ignored
        if ciphertext:
            self._backlog.append(bytes(ciphertext))
        # A raw transport may answer our write at once, in the middle of a delivery; the outer call takes it.
        if not self._busy:
            self._advance()

    def _receive_eof(self) -> None:
        self._raw_eof = True
        if self._state is _State.CLOSING:
            self._raw.close()
        elif not self._busy:
            self._advance()

    def _advance(self) -> None:
        """Work on what has arrived, as far as the state and the application let us."""
        self._busy = True
        try:
            while self._unread or self._backlog:
                if self._state is _State.OPEN:
                    if self._paused:
                        return
                    self._feed()
                    self._read_records()
                elif self._state is _State.HANDSHAKE:
                    self._feed()
                    self._shake_hands()
                else:
                    return
            if self._state is _State.HANDSHAKE and self._raw_eof:
                self._fail(TlsError("TLS handshake failed: the peer closed the connection"))
            elif self._state is _State.OPEN and not self._paused and (self._peer_closed or self._raw_eof):
                self._tell_eof()
        finally:
            self._busy = False

    def _feed(self) -> None:
        if self._unread or not self._backlog:
            return
        ciphertext = self._backlog.popleft()
        if len(ciphertext) > _MAX_FEED:
            ciphertext = memoryview(ciphertext)
            self._backlog.appendleft(ciphertext[_MAX_FEED:])
            ciphertext = ciphertext[:_MAX_FEED]
        self._incoming.write(ciphertext)

    def _shake_hands(self) -> None:
        self._unread = False
        try:
            self._ssl.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return
        except ssl.SSLError as error:
            self._fail(explain_ssl_error("TLS handshake failed", error))
            return
        self._cancel_timer()
        self._state = _State.OPEN
        self._unread = self._incoming.pending > 0
        if self._paused:
            self._raw.pause_reading()
        self._on_handshake()
        if self._state is _State.OPEN:
            self._send_queue()  # together with the last handshake message
            self._flush()

    def _read_records(self) -> None:
        """Decrypt what the BIO holds, at most one delivery of it, and deliver."""
        records: list[bytes] = []
        failure: TlsError | None = None
        size = 0
        self._unread = False
        try:
            # A read takes a whole record, so OpenSSL keeps no plaintext back: an empty BIO means that all is read.
            # Asking once more would cost an exception.
            while self._incoming.pending:
                if size > _MAX_DELIVERY - _MAX_RECORD:
                    self._unread = True
                    break
                record = self._ssl.read(_MAX_RECORD)
                if not record:
                    self._peer_closed = True
                    break
                records.append(record)
                size += len(record)
        except ssl.SSLWantReadError:
            pass  # the rest of a record is still to come
        except ssl.SSLZeroReturnError:
            self._peer_closed = True  # reported in this way after our own close_notify
        except ssl.SSLError as error:
            failure = explain_ssl_error("TLS failed", error)
        if self._peer_closed:
            self._backlog.clear()
        self._flush()  # an answer to a key update, or an alert
        if size:
            self._has_received = True
            if not self._closing:
                self._protocol.data_received(b"".join(records))
        if failure is not None and self._state is _State.OPEN:
            self._fail(failure)
        elif self._queue and self._state is _State.OPEN:
            self._send_queue()  # it waited for the peer, in a renegotiation

    def _tell_eof(self) -> None:
        if self._eof_told or self._closing:
            return
        self._eof_told = True
        self._truncated = not self._peer_closed
        if not self._protocol.eof_received():
            self.close()

    def _resume(self) -> None:
        self._resuming = False
        if self._paused or self._state is not _State.OPEN:
            return
        try:
            self._advance()
        except Exception as error:  # a raw transport treats an error of data_received in the same way
            self._loop.call_exception_handler(
                {"message": "Fatal error: protocol.data_received() call failed.", "exception": error, "transport": self}
            )
            self.abort()
            return
        if self.is_reading() and not self._raw_eof:
            self._raw.resume_reading()

    # Sending.

    def _send_queue(self) -> None:
        """Encrypt the queue and send it in one write, then end the stream if that was asked for."""
        ciphertext: list[bytes] = []
        failure: TlsError | None = None
        data: bytes | memoryview = b""
        try:
            while self._queue:
                data = self._queue[0]
                if len(data) > _MAX_RECORD:
                    data = memoryview(data)  # it is cut without copying
                while data:
                    data = data[self._ssl.write(data) :]
                    # Taken record by record, because a memory BIO never shrinks.
                    ciphertext.append(self._outgoing.read())
                self._queue.popleft()
        except ssl.SSLWantReadError:
            self._queue[0] = bytes(data)  # the peer renegotiates, which a context of the user may allow
        except ssl.SSLError as error:
            failure = explain_ssl_error("TLS failed", error)
        self._queued = sum(map(len, self._queue))
        if ciphertext:
            self._write_raw(b"".join(ciphertext))
        if self._app_paused:
            self._update_flow()
        if failure is not None:
            self._fail(failure)
        elif not self._queue:
            if self._closing:
                self._shut_down()
            elif self._eof_wanted:
                self._send_close_notify()
                self._end_raw()

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._write_raw(self._outgoing.read())

    def _write_raw(self, ciphertext: bytes) -> None:
        # After our end of the stream only answers to the peer's key updates could follow; they cannot be sent.
        if not self._raw_ended and not self._raw.is_closing():
            self._raw.write(ciphertext)

    def _send_close_notify(self) -> None:
        if self._notified:
            return
        self._notified = True
        # unwrap() reads as well and treats data as an error, so it must not see what is still to be delivered.
        held = self._incoming.read()
        # Most often SSLWantReadError: ours is sent, the peer's is not here. Others mean that there is nobody to tell.
        with contextlib.suppress(ssl.SSLError):
            self._ssl.unwrap()
        self._incoming.write(held)
        self._flush()

    def _end_raw(self) -> None:
        if self._raw.can_write_eof() and not self._raw_ended:
            self._raw_ended = True
            # A socket that the peer has reset cannot be half-closed; its connection_lost is on its way.
            with contextlib.suppress(OSError):
                self._raw.write_eof()

    # Flow control.

    def _is_over_high_water(self, size: int) -> bool:
        return size > self._raw.get_write_buffer_limits()[1]

    def _update_flow(self) -> None:
        pause = self._raw_paused or self._is_over_high_water(self._queued)
        if pause and not self._app_paused:
            self._app_paused = True
            self._protocol.pause_writing()
        elif self._app_paused and not pause:
            self._app_paused = False
            self._protocol.resume_writing()

    def _pause_writing(self) -> None:
        self._raw_paused = True
        if not self._app_paused:
            self._app_paused = True
            self._protocol.pause_writing()

    def _resume_writing(self) -> None:
        self._raw_paused = False
        # Passed on even when we passed no pause: the raw transport may have paused the application before us.
        if not self._is_over_high_water(self._queued):
            self._app_paused = False
            self._protocol.resume_writing()

    # The end.

    def _enter_closing(self) -> None:
        self._closing = True
        if self._state is not _State.CLOSED:
            self._state = _State.CLOSING
        self._backlog.clear()
        self._queue.clear()
        self._queued = 0

    def _shut_down(self) -> None:
        if self._state is _State.OPEN:
            self._send_close_notify()
        # A kernel that still receives after close() resets the connection, and our last data is lost with it. A server
        # sends tickets after the handshake, so a client that has read nothing yet has to wait for the peer's end.
        linger = self._state is _State.OPEN and not self._server_side and not self._has_received
        self._finish(linger=linger)

    def _fail(self, failure: TlsError) -> None:
        in_handshake = self._state is _State.HANDSHAKE
        self._enter_closing()
        self._failure = failure
        self._flush()  # the alert
        if in_handshake:
            self._on_failure(failure)
        # The peer may be sending still; a reset would take the alert away from it.
        self._finish(linger=True)

    def _finish(self, *, linger: bool) -> None:
        self._enter_closing()
        if self._state is _State.CLOSED or self._raw.is_closing():
            self._cancel_timer()
            return
        self._restart_timer(self._shutdown_timeout, self._shutdown_expired)
        if linger and not self._raw_eof and not self._peer_closed and self._raw.can_write_eof():
            self._end_raw()
            self._raw.resume_reading()  # only to see the end; what comes is dropped
        else:
            self._raw.close()

    def _handshake_expired(self) -> None:
        self._timer = None
        failure = TlsError(f"TLS handshake timed out after {self._handshake_timeout:g} s")
        failure.__cause__ = DeadlineExceeded(str(failure), limit="tls_handshake_timeout")
        self._enter_closing()
        self._failure = failure
        self._on_failure(failure)
        self._raw.abort()

    def _shutdown_expired(self) -> None:
        self._timer = None
        unsent = self.get_write_buffer_size()
        if unsent and self._failure is None:
            self._failure = TlsError(f"closing timed out after {self._shutdown_timeout:g} s, {unsent} bytes unsent")
        self.abort()

    def _connection_lost(self, exc: Exception | None) -> None:
        if self._state is _State.CLOSED:
            return
        if not self._paused and not self._busy and self._state is _State.OPEN:
            self._advance()  # a resumption may be scheduled; it would come too late
        if self._state is _State.HANDSHAKE:
            self._lose_handshake(exc)
        if not self._closing and not self._peer_closed:
            self._truncated = True
        self._enter_closing()
        self._state = _State.CLOSED
        self._cancel_timer()
        protocol, failure = self._protocol, self._failure or exc
        # Everything that could be part of a reference cycle is let go of here.
        self._protocol = _NO_PROTOCOL
        self._failure = None
        self._on_handshake, self._on_failure = _ignore_handshake, _ignore_failure
        protocol.connection_lost(failure)

    def _lose_handshake(self, exc: Exception | None) -> None:
        failure = TlsError("TLS handshake failed: the connection was lost")
        failure.__cause__ = exc
        self._enter_closing()
        self._failure = failure
        self._on_failure(failure)

    def _restart_timer(self, delay: float, callback: Callable[[], None]) -> None:
        self._cancel_timer()
        self._timer = self._loop.call_later(delay, callback)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _CiphertextProtocol(asyncio.Protocol):
    """The protocol of the raw transport: it hands everything to the TlsTransport."""

    __slots__ = ("_tls",)

    def __init__(self, tls: TlsTransport) -> None:
        self._tls = tls

    def data_received(self, data: bytes) -> None:
        self._tls._receive(data)

    def request_received(self, request: WholeRequest) -> None:
        self.data_received(request.raw)  # no ciphertext looks like one

    def eof_received(self) -> bool:
        self._tls._receive_eof()
        return True  # we close the raw transport ourselves, after a close_notify

    def pause_writing(self) -> None:
        self._tls._pause_writing()

    def resume_writing(self) -> None:
        self._tls._resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._tls._connection_lost(exc)


# Takes the application's place after connection_lost.
_NO_PROTOCOL = asyncio.Protocol()


def _ignore_handshake() -> None:
    """Stand for ``on_handshake`` after connection_lost."""


def _ignore_failure(failure: TlsError) -> None:
    """Stand for ``on_failure`` after connection_lost."""
