"""Names answered without asking: addresses, ``localhost``, the hosts file, and what must not be sent (RFC 6761)."""

from __future__ import annotations

import ipaddress

from asyncmg.codecs.dns import NAME_ERROR, RecordType, fold_name
from asyncmg.errors import InvalidUrl

from .answer import DnsAnswer, address_of_reverse_name, not_found
from .config import Hosts

_VERSIONS = {RecordType.A: 4, RecordType.AAAA: 6}
_LOCALHOST = {RecordType.A: "127.0.0.1", RecordType.AAAA: "::1"}
_HOSTS_TTL = 5.0  # seconds: after so long the file is looked at again
_NEVER_SENT = ("invalid", "onion")  # RFC 6761 section 6.4, RFC 7686 section 2


def known_answer(name: str, kind: RecordType, hosts: Hosts) -> DnsAnswer | None:
    """Answer what needs no server; None: it has to be asked.

    Raises:
        NameNotFound: it is known that there is nothing.
    """
    literal = literal_address(name)
    if literal:
        if _VERSIONS.get(kind) == _version(literal):
            return DnsAnswer([literal], name, kind)
        raise not_found(name, kind, 0)
    names = _known_address(name, hosts) if kind is RecordType.PTR else None
    if names is not None:
        return names
    version = _VERSIONS.get(kind)
    listed = hosts.addresses(name, version) if version is not None else None
    if listed:
        return DnsAnswer(listed, name, kind, _HOSTS_TTL)
    if is_below(name, "localhost"):
        if kind in _LOCALHOST:
            return DnsAnswer([_LOCALHOST[kind]], name, kind)
        raise not_found(name, kind, 0)
    if listed is not None:
        raise not_found(name, kind, 0)
    if any(is_below(name, domain) for domain in _NEVER_SENT):
        raise not_found(name, kind, NAME_ERROR)
    return None


def _known_address(name: str, hosts: Hosts) -> DnsAnswer | None:
    address = address_of_reverse_name(name)
    if address is None:
        return None
    names = hosts.names(address)
    if names:
        return DnsAnswer(names, name, RecordType.PTR, _HOSTS_TTL)
    if ipaddress.ip_address(address).is_loopback:
        return DnsAnswer(["localhost"], name, RecordType.PTR)
    return None


def literal_address(host: str) -> str:
    """Return an address as it is, without brackets; "" when the host is a name."""
    address = host[1:-1] if host.startswith("[") and host.endswith("]") else host.removesuffix(".")
    if ":" not in address and not address[-1:].isdigit():
        return ""  # without asking: an exception takes longer than all else that is done with a name in the cache
    try:
        _version(address)
    except ValueError:
        return ""
    return address


def _version(address: str) -> int:
    return ipaddress.ip_address(address).version


def is_below(name: str, domain: str) -> bool:
    """Whether a name is a domain's or stands below it."""
    folded = fold_name(name)
    return folded == domain or folded.endswith(f".{domain}")


def is_mdns_name(name: str) -> bool:
    """Whether a name is looked up by multicast: ``host.local``, and services such as ``_http._tcp.local``.

    RFC 6762 section 3 has it that all below ``.local`` are; but many networks, Kubernetes' among them, have domains
    such as ``cluster.local`` in their name servers.
    """
    labels = fold_name(name).rsplit(".", 2)
    return labels[-1] == "local" and (len(labels) < 3 or labels[-2] in ("_tcp", "_udp"))


def as_ascii(name: str) -> str:
    """Return an internationalized name as it is looked up (RFC 5891, by Python's ``idna`` codec: IDNA 2003).

    Raises:
        InvalidUrl: it is none.
    """
    if name.isascii():
        return name
    try:
        return name.encode("idna").decode()
    except UnicodeError as exc:
        raise InvalidUrl(f"not a host name: {name!r}: {exc}") from exc
