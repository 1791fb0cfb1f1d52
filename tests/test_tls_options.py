"""TlsOpts: what it takes, the contexts it makes, and what it refuses."""

from __future__ import annotations

import os
import ssl
import tempfile
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from asyncmg.errors import TlsError
from asyncmg.tls import TlsOpts, client_context_of, server_context_of, server_name_of


class Pki:
    def __init__(self) -> None:
        self.ca = trustme.CA()
        self.leaf = self.ca.issue_cert("localhost")
        self.ca_pem = self.ca.cert_pem.bytes()
        self.cert = b"".join(pem.bytes() for pem in self.leaf.cert_chain_pems)
        self.key = self.leaf.private_key_pem.bytes()

    def opts(self) -> TlsOpts:
        return TlsOpts(cert=self.cert, key=self.key)


@pytest.fixture(scope="module")
def pki() -> Pki:
    return Pki()


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files, which has to be empty again in the end."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def shake_hands(
    server: ssl.SSLContext, client: ssl.SSLContext, name: str = "localhost"
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        server.wrap_bio(to_server, to_client, server_side=True),
        client.wrap_bio(to_client, to_server, server_hostname=name),
    )
    for _ in range(3):
        for end in reversed(ends):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                pass
    return ends


def serial_of(end: ssl.SSLObject) -> int:
    der = end.getpeercert(True)
    assert der
    return x509.load_der_x509_certificate(der).serial_number


def test_defaults() -> None:
    opts = TlsOpts()
    assert opts.ca == opts.cert == opts.key == b""
    assert opts.name == "" and opts.skip_verification is False


def test_forms_of_pem(pki: Pki, tmp_path: Path) -> None:
    opts = TlsOpts(ca=pki.ca_pem, cert=pki.cert.decode(), key=str(tmp_path / "key.pem"))
    assert opts.ca == pki.ca_pem and opts.cert == pki.cert and opts.key == tmp_path / "key.pem"
    opts.key = tmp_path / "other.pem"
    opts.ca = ""
    opts.name = b"example.com"
    assert opts.key == tmp_path / "other.pem" and opts.ca == b"" and opts.name == "example.com"


@pytest.mark.parametrize("name", ["ca", "cert", "key", "name"])
def test_wrong_type(name: str) -> None:
    with pytest.raises(TypeError, match="Expected bytes, got int"):
        TlsOpts(**{name: 5})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="Expected bytes, got list"):
        setattr(TlsOpts(), name, [])


def test_repr_hides_the_key(pki: Pki) -> None:
    text = repr(TlsOpts(cert="/etc/cert.pem", key=pki.key))
    assert "PRIVATE" not in text and "/etc/cert.pem" in text and f"<{len(pki.key)} bytes>" in text


def test_contexts_are_kept_until_a_setting_changes(pki: Pki) -> None:
    opts = pki.opts()
    first, client = opts.server_context(["http/1.1"]), opts.client_context()
    assert opts.server_context(("http/1.1",)) is first and opts.client_context() is client
    assert opts.server_context() is not first
    opts.ca = pki.ca_pem
    assert opts.server_context(("http/1.1",)) is not first
    client = opts.client_context()
    opts.skip_verification = True
    assert opts.client_context() is not client


def test_secure_defaults(pki: Pki) -> None:
    server, client = pki.opts().server_context(), TlsOpts(ca=pki.ca_pem).client_context()
    for context in (server, client):
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2
        assert context.options & ssl.OP_NO_COMPRESSION and context.options & ssl.OP_NO_RENEGOTIATION
        for cipher in context.get_ciphers():
            if cipher["protocol"] == "TLSv1.2":
                assert cipher["name"].startswith("ECDHE-") and cipher["aead"]
    assert client.verify_mode == ssl.CERT_REQUIRED and client.check_hostname
    assert client.hostname_checks_common_name is False
    assert server.verify_mode == ssl.CERT_NONE


def test_handshake_with_alpn(pki: Pki) -> None:
    server = pki.opts().server_context(("mqtt", "http/1.1"))
    client = TlsOpts(ca=pki.ca_pem).client_context(("http/1.1",))
    ends = shake_hands(server, client)
    assert [end.selected_alpn_protocol() for end in ends] == ["http/1.1"] * 2


def test_only_the_given_ca_is_trusted(pki: Pki) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(pki.opts().server_context(), TlsOpts(ca=trustme.CA().cert_pem.bytes()).client_context())
    assert len(TlsOpts(ca=pki.ca_pem).client_context().get_ca_certs()) == 1


def test_skip_verification(pki: Pki) -> None:
    client = TlsOpts(skip_verification=True).client_context()
    assert client.verify_mode == ssl.CERT_NONE and not client.check_hostname
    shake_hands(pki.opts().server_context(), client, "example.com")


def test_mutual_tls(pki: Pki) -> None:
    server = TlsOpts(ca=pki.ca_pem, cert=pki.cert, key=pki.key).server_context()
    assert server.verify_mode == ssl.CERT_REQUIRED
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
        shake_hands(server, TlsOpts(ca=pki.ca_pem).client_context())
    shake_hands(server, TlsOpts(ca=pki.ca_pem, cert=pki.cert, key=pki.key).client_context())


def test_one_pem_with_chain_and_key(pki: Pki, temporary: Path) -> None:
    authority = pki.ca.create_child_ca()
    leaf = authority.issue_cert("localhost")
    chain = b"".join(pem.bytes() for pem in leaf.cert_chain_pems)
    client = TlsOpts(ca=pki.ca_pem).client_context()
    for pem in (chain + leaf.private_key_pem.bytes(), leaf.private_key_pem.bytes() + chain):
        shake_hands(TlsOpts(cert=pem).server_context(), client)
    assert not list(temporary.iterdir())


def test_ca_file_and_folder_and_comments(pki: Pki, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_bytes(pki.ca_pem)
    server = pki.opts().server_context()
    shake_hands(server, TlsOpts(ca=file).client_context())
    shake_hands(server, TlsOpts(ca="# Autorité\n".encode() + pki.ca_pem).client_context())
    assert TlsOpts(ca=tmp_path).client_context().verify_mode == ssl.CERT_REQUIRED


def test_temporary_file_is_private_and_removed(pki: Pki, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[int] = []
    load = ssl.SSLContext.load_cert_chain

    def spy(self: ssl.SSLContext, cert: str, key: str, password: object) -> None:
        modes.extend(os.stat(path).st_mode & 0o777 for path in (cert, key))
        load(self, cert, key, password)  # type: ignore[arg-type]

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", spy)
    pki.opts().server_context()
    assert modes == [0o600, 0o600]
    assert not list(temporary.iterdir())
    with pytest.raises(TlsError):
        TlsOpts(cert=pki.cert, key=b"-----BEGIN nonsense").server_context()
    assert not list(temporary.iterdir())


def test_what_is_refused(pki: Pki, temporary: Path) -> None:
    other = trustme.CA().issue_cert("localhost").private_key_pem.bytes()
    refused = [
        (TlsOpts(), "needs a certificate"),
        (TlsOpts(cert=b"rubbish"), r"cannot use cert \(PEM\)"),
        (TlsOpts(cert=pki.cert), r"cannot use cert \(PEM\)"),
        (TlsOpts(cert=pki.cert, key=other), "key values mismatch"),
        (TlsOpts(cert="/no/such/file.pem", key=pki.key), "cannot use cert /no/such/file.pem.*No such file"),
        (TlsOpts(ca=b"rubbish", cert=pki.cert, key=pki.key), r"cannot use ca \(PEM\)"),
        (TlsOpts(ca="/no/such/ca.pem", cert=pki.cert, key=pki.key), "cannot use ca /no/such/ca.pem: No such file"),
    ]
    for opts, text in refused:
        with pytest.raises(TlsError, match=text) as info:
            opts.server_context()
        assert info.value.__cause__ is not None or "needs" in text
    with pytest.raises(TlsError, match="a key was given without its certificate"):
        TlsOpts(key=pki.key).client_context()
    assert not list(temporary.iterdir())


def test_encrypted_key_is_refused_and_nobody_is_asked(pki: Pki) -> None:
    key = serialization.load_pem_private_key(pki.key, None)
    encrypted = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
    )
    with pytest.raises(TlsError, match="the private key is encrypted"):
        TlsOpts(cert=pki.cert, key=encrypted).server_context()


def test_reload(pki: Pki, tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.write_bytes(pki.cert)
    key.write_bytes(pki.key)
    opts = TlsOpts(cert=cert, key=key)
    server, client = opts.server_context(), TlsOpts(ca=pki.ca_pem).client_context()
    before = serial_of(shake_hands(server, client)[1])
    renewed = pki.ca.issue_cert("localhost")
    cert.write_bytes(renewed.cert_chain_pems[0].bytes())
    with pytest.raises(TlsError, match="mismatch"):
        opts.reload()  # the key has not been written yet
    assert serial_of(shake_hands(server, client)[1]) == before
    key.write_bytes(renewed.private_key_pem.bytes())
    opts.reload()
    assert opts.server_context() is server
    assert serial_of(shake_hands(server, client)[1]) != before
    pki.opts().reload()  # nothing to read


def test_reload_of_trust(pki: Pki, tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_bytes(trustme.CA().cert_pem.bytes())
    opts = TlsOpts(ca=ca)
    client = opts.client_context()
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(pki.opts().server_context(), client)
    ca.write_bytes(pki.ca_pem)
    opts.reload()
    shake_hands(pki.opts().server_context(), client)


def test_contexts_of(pki: Pki) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    assert server_context_of(context, ("http/1.1",)) is context
    assert client_context_of(context, ()) is context
    opts = pki.opts()
    assert server_context_of(opts, ()) is opts.server_context()
    assert client_context_of(opts, ("x",)) is opts.client_context(("x",))
    defaults = client_context_of(None, ())
    assert defaults is client_context_of(None, ()) and defaults.check_hostname


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("example.com", "example.com"),
        ("example.com.", "example.com"),
        ("127.0.0.1", "127.0.0.1"),
        ("[::1]", "::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("", None),
    ],
)
def test_server_name(host: str, expected: str | None) -> None:
    assert server_name_of(None, host) == expected
    assert server_name_of(TlsOpts(), host) == expected
    assert server_name_of(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), host) == expected
    assert server_name_of(TlsOpts(name="other.example"), host) == "other.example"
