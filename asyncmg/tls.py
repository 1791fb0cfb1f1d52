"""TLS settings: certificates, keys and trust, turned into ``ssl.SSLContext`` objects (RFC 8446, RFC 5246, RFC 9325).

:class:`TlsOpts` is what the user gives; wherever it is accepted an ``ssl.SSLContext`` of the user is accepted as well,
and is used as it is.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self, overload

from asyncmg.errors import TlsError

# PEM as bytes or str, or the path of a PEM file; None and "" mean "not given".
PemSource = bytes | str | os.PathLike[str] | None

# RFC 9325 section 4.2: forward secrecy and authenticated encryption only. TLS 1.3 has no other suites.
_TLS12_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"

_HINTS = {
    "HTTP_REQUEST": "the peer speaks plain HTTP, not TLS",
    "HTTPS_PROXY_REQUEST": "the peer speaks plain HTTP, not TLS",
    "WRONG_VERSION_NUMBER": "the peer does not speak TLS",
    "UNSUPPORTED_PROTOCOL": "the peer's TLS version is too old",
    "NO_SHARED_CIPHER": "the peer offers no cipher that we accept",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the peer gave no certificate, and one is required",
}


class _Pem:
    """A PEM attribute: takes every form of :data:`PemSource`, reads as bytes or as the path that was given."""

    def __set_name__(self, owner: type[TlsOpts], name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type[TlsOpts]) -> Self: ...
    @overload
    def __get__(self, instance: TlsOpts, owner: type[TlsOpts]) -> bytes | Path: ...
    def __get__(self, instance: TlsOpts | None, owner: type[TlsOpts]) -> Self | bytes | Path:
        if instance is None:
            return self
        value: bytes | Path = vars(instance)[self._name]
        return value

    def __set__(self, instance: TlsOpts, value: PemSource) -> None:
        vars(instance)[self._name] = _normalise_pem(value)
        instance._forget_contexts()


class TlsOpts:
    """Certificates, keys and trust for TLS, on either side of a connection.

    A client verifies the server's certificate and its host name; a server that has a ``ca`` asks for a client
    certificate and verifies it (mutual TLS). TLS 1.2 or newer, with forward secrecy, on both sides.

    Attributes:
        ca: trusted certificates, as bytes or a path; when empty, a client trusts the system's, a server asks for none.
        cert: our certificate, followed by the intermediate ones; it may hold the key as well when ``key`` is empty.
        key: our private key, not encrypted.
    """

    ca = _Pem()
    cert = _Pem()
    key = _Pem()

    def __init__(
        self,
        ca: PemSource = None,
        cert: PemSource = None,
        key: PemSource = None,
        name: str | bytes | None = None,
        skip_verification: bool = False,
    ) -> None:
        """Keep the settings; files are read when a context is first needed.

        Args:
            ca: trusted certificates: PEM bytes, PEM str, or a path (``os.PathLike``, or a str without ``-----BEGIN``).
            cert: our certificate chain, in the same forms.
            key: our private key, in the same forms.
            name: the name to ask of the server and to find in its certificate, instead of the one in the URL.
            skip_verification: accept any certificate of the peer. It opens the connection to a man in the middle:
                whoever can redirect the traffic can read and change all of it. For tests only.

        Raises:
            TypeError: a setting has a wrong type.
        """
        self._contexts: dict[tuple[bool, tuple[str, ...]], ssl.SSLContext] = {}
        self.ca = ca
        self.cert = cert
        self.key = key
        self.name = "" if name is None else name
        self.skip_verification = skip_verification

    @property
    def name(self) -> str:
        """The server name to ask for and to verify; ``""``: the one that is connected to."""
        return self._server_name

    @name.setter
    def name(self, value: str | bytes) -> None:
        if not isinstance(value, str | bytes):
            raise TypeError(f"Expected bytes, got {type(value).__name__}: name is a str or bytes")
        self._server_name = value if isinstance(value, str) else value.decode("ascii")

    @property
    def skip_verification(self) -> bool:
        """True: the peer's certificate is not verified, which lets a man in the middle read and change everything."""
        return self._skip_verification

    @skip_verification.setter
    def skip_verification(self, value: bool) -> None:
        self._skip_verification = bool(value)
        self._forget_contexts()

    def __repr__(self) -> str:
        # Never the content: a key must not reach a log.
        pems = (self.ca, self.cert, self.key)
        ca, cert, key = (str(pem) if isinstance(pem, Path) else f"<{len(pem)} bytes>" for pem in pems)
        return f"TlsOpts({ca=!s}, {cert=!s}, {key=!s}, name={self.name!r}, skip_verification={self.skip_verification})"

    def server_context(self, alpn: Sequence[str] = ()) -> ssl.SSLContext:
        """Return the context for accepted connections; the same one until a setting changes.

        Args:
            alpn: application protocols in order of preference, such as ``("http/1.1",)`` (RFC 7301).

        Raises:
            TlsError: no certificate was given, or a file or PEM text cannot be used; the cause is chained.
        """
        return self._context(True, tuple(alpn))

    def client_context(self, alpn: Sequence[str] = ()) -> ssl.SSLContext:
        """Return the context for connections that we make; the same one until a setting changes.

        Args:
            alpn: application protocols to offer, in order of preference (RFC 7301).

        Raises:
            TlsError: a file or PEM text cannot be used; the cause is chained.
        """
        return self._context(False, tuple(alpn))

    def reload(self) -> None:
        """Read the files that were given as paths again; new handshakes use what they hold now, without a restart.

        A certificate is replaced by one of the same kind of key: OpenSSL keeps one per kind (RSA, EC) and would offer
        both. A ``ca`` file can gain certificates; those it lost stay trusted until a new TlsOpts is used.

        Raises:
            TlsError: a file cannot be used; the contexts in use stay as they were.
        """
        if not any(isinstance(pem, Path) for pem in (self.ca, self.cert, self.key)):
            return
        # A half-written pair of files would leave a live context without a usable key, so a scratch one tries it first.
        for server_side, alpn in self._contexts:
            self._build(server_side, alpn)
        for context in self._contexts.values():
            self._load_trust(context)
            self._load_identity(context)

    def _forget_contexts(self) -> None:
        # A new dict, because a copy of this object may share the old one.
        self._contexts = {}

    def _context(self, server_side: bool, alpn: tuple[str, ...]) -> ssl.SSLContext:
        context = self._contexts.get((server_side, alpn))
        if context is None:
            context = self._contexts[server_side, alpn] = self._build(server_side, alpn)
        return context

    def _build(self, server_side: bool, alpn: tuple[str, ...]) -> ssl.SSLContext:
        if server_side and not self.cert:
            raise TlsError("a TLS server needs a certificate: give TlsOpts(cert=..., key=...)")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server_side else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(_TLS12_CIPHERS)
        # Compression leaks secrets (CRIME); renegotiation lets a client make us compute for ever.
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
        if server_side:
            context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
        else:
            context.hostname_checks_common_name = False  # RFC 9525 section 6.3: only subjectAltName counts
        if alpn:
            context.set_alpn_protocols(alpn)
        if self.skip_verification:
            context.check_hostname = False  # first, or ssl refuses the next line
            context.verify_mode = ssl.CERT_NONE
        elif self.ca:
            context.verify_mode = ssl.CERT_REQUIRED
        elif not server_side:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        self._load_trust(context)
        self._load_identity(context)
        return context

    def _load_trust(self, context: ssl.SSLContext) -> None:
        if not self.ca:
            return
        try:
            if isinstance(self.ca, bytes):
                # ssl wants ASCII; bundles carry the names of their issuers as comments, in UTF-8.
                context.load_verify_locations(cadata=self.ca.decode("ascii", "ignore"))
            elif self.ca.is_dir():
                context.load_verify_locations(capath=self.ca)
            else:
                context.load_verify_locations(cafile=self.ca)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise _unusable(f"ca {_origin(self.ca)}", error) from error

    def _load_identity(self, context: ssl.SSLContext) -> None:
        if not self.cert:
            if self.key:
                raise TlsError("a key was given without its certificate: give TlsOpts(cert=..., key=...)")
            return
        what = f"cert {_origin(self.cert)}" + (f" with key {_origin(self.key)}" if self.key else "")
        try:
            with _as_file(self.cert) as cert, _as_file(self.key or self.cert) as key:
                context.load_cert_chain(cert, key, password=_refuse_encrypted_key)
        except (OSError, ValueError) as error:
            raise _unusable(what, error) from error


def server_context_of(tls: TlsOpts | ssl.SSLContext, alpn: Sequence[str] = ()) -> ssl.SSLContext:
    """Return the context for accepted connections; an SSLContext is returned as it is, ``alpn`` not applied.

    Raises:
        TlsError: as :meth:`TlsOpts.server_context`.
    """
    return tls if isinstance(tls, ssl.SSLContext) else tls.server_context(alpn)


def client_context_of(tls: TlsOpts | ssl.SSLContext | None, alpn: Sequence[str] = ()) -> ssl.SSLContext:
    """Return the context for connections that we make; None means secure defaults and the system's roots.

    Raises:
        TlsError: as :meth:`TlsOpts.client_context`.
    """
    if isinstance(tls, ssl.SSLContext):
        return tls
    return (_CLIENT_DEFAULTS if tls is None else tls).client_context(alpn)


def server_name_of(tls: TlsOpts | ssl.SSLContext | None, host: str) -> str | None:
    """Return the name for SNI and for the check of the server's certificate, or None when there is none.

    Args:
        tls: its ``name`` wins over ``host``.
        host: the host of the URL: a name or an IP address, IPv6 with or without brackets; ``""`` for a Unix socket.
    """
    if isinstance(tls, TlsOpts) and tls.name:
        return tls.name
    name = host.removeprefix("[").removesuffix("]")
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        # RFC 6066 section 3: without the trailing dot of an absolute name.
        return name.removesuffix(".") or None
    # A zone is not part of the address that a certificate names (RFC 4007 section 11: it means something here only).
    return str(address).partition("%")[0]


def explain_ssl_error(what: str, error: ssl.SSLError) -> TlsError:
    """Return a TlsError that says in words what OpenSSL found, with its own error chained.

    Args:
        what: what failed, such as ``"TLS handshake failed"``.
        error: an error of the handshake, or of reading or writing.
    """
    reason = error.reason or ""
    if isinstance(error, ssl.SSLCertVerificationError):
        text = f"the peer's certificate is refused: {error.verify_message}"
    elif reason in _HINTS:
        text = _HINTS[reason]
    elif "_ALERT_" in reason:
        text = f"the peer refused: {reason.partition('_ALERT_')[2].lower().replace('_', ' ')}"
    else:
        text = reason.lower().replace("_", " ") or str(error)
    failure = TlsError(f"{what}: {text}")
    # Without its traceback, which would tie a transport and its exception together in a cycle.
    failure.__cause__ = error.with_traceback(None)
    return failure


def _normalise_pem(value: PemSource) -> bytes | Path:
    if value is None:
        return b""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode() if "-----BEGIN" in value or not value else Path(value)
    if isinstance(value, os.PathLike):
        return Path(os.fsdecode(value))
    raise TypeError(f"Expected bytes, got {type(value).__name__}: give PEM bytes, a PEM str or a path")


@contextmanager
def _as_file(pem: bytes | Path) -> Iterator[str]:
    """Give the PEM a file name for as long as it is loaded, because ssl loads certificates and keys from files only."""
    if isinstance(pem, Path):
        yield str(pem)
    else:
        descriptor, name = tempfile.mkstemp(prefix="asyncmg-", suffix=".pem")  # mode 0600
        try:
            with open(descriptor, "wb") as file:
                file.write(pem)
            yield name
        finally:
            os.unlink(name)


def _refuse_encrypted_key() -> str:
    # Without this OpenSSL would ask for the password on the terminal, and block.
    raise TlsError("the private key is encrypted: give it decrypted, or give an ssl.SSLContext")


def _origin(pem: bytes | Path) -> str:
    return str(pem) if isinstance(pem, Path) else "(PEM)"


def _unusable(what: str, error: OSError | ValueError) -> TlsError:
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or str(error)).lower().replace("_", " ")
    else:
        reason = getattr(error, "strerror", "") or str(error)
    return TlsError(f"cannot use {what}: {reason}")


_CLIENT_DEFAULTS = TlsOpts()
