"""mDNS and DNS-SD (RFC 6762, RFC 6763): services found on the local link, a host and its services shown there."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from .codecs.choice import dns_codec
from .codecs.dns import (
    MAX_LABEL,
    DnsQuestion,
    RecordType,
    SrvData,
    TxtData,
    fold_name,
    show_label,
    split_name,
)
from .resolver.answer import reverse_name
from .resolver.interfaces import Interface, chosen_interfaces
from .resolver.mdns import Ears, ask
from .resolver.mdns_responder import Responder
from .resolver.mdns_socket import PORT
from .resolver.mdns_zone import TYPES_NAME, Offer, Zone

MAX_SERVICES: Final = 100  # of one responder

_TYPE = re.compile(r"_[A-Za-z0-9][A-Za-z0-9_-]{0,61}\._(?:tcp|udp)", re.ASCII)
_KEY = re.compile(r"[\x20-\x3c\x3e-\x7e]+", re.ASCII)  # printable, without "=" (RFC 6763 section 6.4)

TxtValue = str | bytes | None


@dataclass(frozen=True, slots=True)
class MdnsService:
    """A service (RFC 6763): one to be shown, or one that was found.

    Attributes:
        type: what it is, such as ``_http._tcp``.
        port: 0 to 65535; 0: not there at the moment.
        name: of this instance, for people: up to 63 bytes of UTF-8, with spaces and dots as you like. "": the host's.
        txt: attributes; keys without regard to case, values as bytes, None: the key alone. A str given is encoded.
        host: the name of its host, with ``.local``; of services found.
        addresses: of the host; of services found. Link-local IPv6 ones with their zone.
        priority, weight: as of SRV records (RFC 2782).

    Raises:
        ValueError: something in it cannot be told by mDNS.
    """

    type: str
    port: int
    name: str = ""
    txt: Mapping[str, TxtValue] = field(default_factory=dict)
    host: str = ""
    addresses: tuple[str, ...] = ()
    priority: int = 0
    weight: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "type", _service_type(self.type))
        for what in ("port", "priority", "weight"):
            if not 0 <= getattr(self, what) <= 65535:
                raise ValueError(f"{what} of a service out of range: {getattr(self, what)}")
        if len(self.name.encode("utf-8", "surrogateescape")) > MAX_LABEL:
            raise ValueError(f"name of a service longer than {MAX_LABEL} bytes: {self.name!r}")
        txt = {key: value.encode() if isinstance(value, str) else value for key, value in self.txt.items()}
        for key, value in txt.items():
            if not _KEY.fullmatch(key):
                raise ValueError(f"not a key of a service: {key!r}")
            if len(key) + 1 + len(value or b"") > 255:
                raise ValueError(f"more than 255 bytes for the key {key!r} of a service")
        object.__setattr__(self, "txt", txt)

    def text(self, key: str, default: str = "") -> str:
        """Return the value of a key of ``txt`` as text; ``default`` when there is no such key, or no value."""
        for own, value in self.txt.items():
            if own.lower() == key.lower() and value is not None:
                return value if isinstance(value, str) else value.decode("utf-8", "replace")
        return default


def _service_type(text: str) -> str:
    """Return a service's type without ``.local``.

    Raises:
        ValueError: it is none.
    """
    kind = text.removesuffix(".").removesuffix(".local")
    if not _TYPE.fullmatch(kind):
        raise ValueError(f"not the type of a service, such as _http._tcp: {text!r}")
    return kind


# -- finding --------------------------------------------------------------------------------------------------------


async def mdns_browse(
    type: str, name: str = "", *, timeout: float = 2.0, interface: str = "", port: int = PORT
) -> list[MdnsService]:
    """Find the services of a type on the local link (RFC 6763 sections 4 to 6)::

        for service in await asyncmg.mdns_browse("_http._tcp"):
            print(service.name, service.addresses, service.port, service.text("path", "/"))

    There is no telling who has not answered yet: it takes the whole ``timeout``, unless ``name`` is given. Nothing is
    kept from one call to the next.

    Cancelling is safe.

    Args:
        type: such as ``_http._tcp``, with or without ``.local``.
        name: look for this instance only, and return when it is there.
        timeout: seconds; the questions are asked again after one second, and after two more.
        interface: name or address of the network interface to ask on; "": all that can multicast.
        port: of mDNS; another one for tests only.

    Returns:
        The services, sorted by name; those without a port or an address yet are left out.

    Raises:
        ValueError: no such type, or no such interface.
        OSError: there is no way to ask; ListenFailed is one.
    """
    kind = _service_type(type)
    browsed = f"{kind}.local"
    wanted = fold_name(_instance_name(name, browsed)) if name else ""
    services: dict[str, MdnsService] = {}

    def step(ears: Ears) -> Sequence[DnsQuestion] | None:
        questions = [] if wanted else [DnsQuestion(browsed, RecordType.PTR)]
        found = {fold_name(str(record.data)): str(record.data) for record in ears.of(browsed, RecordType.PTR)}
        if wanted:
            found = {wanted: _instance_name(name, browsed)}
        services.clear()
        for folded, instance in found.items():
            if folded.endswith("." + fold_name(browsed)):
                service = _read_service(ears, instance, kind, questions)
                if service is not None:
                    services[folded] = service
        return None if wanted and wanted in services and not questions else questions

    await ask(step, dns_codec(), timeout=timeout, interface=interface, port=port)
    return sorted(services.values(), key=lambda service: service.name)


async def mdns_types(*, timeout: float = 2.0, interface: str = "", port: int = PORT) -> list[str]:
    """Find out which types of services there are on the local link (RFC 6763 section 9), such as ``_http._tcp``.

    Cancelling is safe. Arguments and exceptions are those of :func:`mdns_browse`.
    """
    question = DnsQuestion(TYPES_NAME, RecordType.PTR)
    ears = await ask(lambda ears: [question], dns_codec(), timeout=timeout, interface=interface, port=port)
    names = {fold_name(str(record.data)).removesuffix(".local") for record in ears.of(TYPES_NAME, RecordType.PTR)}
    return sorted(name for name in names if _TYPE.fullmatch(name))


def _instance_name(name: str, browsed: str) -> str:
    return f"{show_label(name.encode('utf-8', 'surrogateescape'))}.{browsed}"


def _read_service(ears: Ears, instance: str, kind: str, questions: list[DnsQuestion]) -> MdnsService | None:
    """Put together what is known of a service; add to ``questions`` what is missing."""
    services = [record.data for record in ears.of(instance, RecordType.SRV) if isinstance(record.data, SrvData)]
    texts = [record.data for record in ears.of(instance, RecordType.TXT) if isinstance(record.data, TxtData)]
    if not services:
        questions.append(DnsQuestion(instance, RecordType.SRV))
    if not texts and ears.denial(instance, RecordType.TXT) is None:
        questions.append(DnsQuestion(instance, RecordType.TXT))
    if not services:
        return None
    service = min(services, key=lambda data: data.priority)
    addresses: list[str] = []
    for family in (RecordType.A, RecordType.AAAA):
        found = [str(record.data) for record in ears.of(service.target, family)]
        addresses += found
        if not found and ears.denial(service.target, family) is None:
            questions.append(DnsQuestion(service.target, family))
    if not addresses:
        return None
    # One label; but some let its dots become labels of their own.
    labels = split_name(instance)[: -len(split_name(kind)) - 1]
    label = b".".join(labels).decode("utf-8", "surrogateescape")
    txt = texts[0].attributes if texts else {}
    if len(label.encode("utf-8", "surrogateescape")) > MAX_LABEL:
        return None
    told = {key: value for key, value in txt.items() if _KEY.fullmatch(key)}
    return MdnsService(
        kind, service.port, label, told, service.target, tuple(addresses), service.priority, service.weight
    )


# -- showing --------------------------------------------------------------------------------------------------------


class MdnsResponder:
    """Shows a host's name and services on the local link; see :func:`mdns_serve`.

    Use it as an async context manager: inside, the names are ours; at the end the others are told goodbye. Leaving it
    raises what ``serve_forever`` does.
    """

    def __init__(
        self,
        label: bytes,
        addresses: Sequence[str] | None,
        services: Sequence[MdnsService],
        interface: str,
        port: int,
        rename: bool,
    ) -> None:
        self._label = label
        self._addresses = addresses
        self._offers = [_offer(service, label) for service in services]
        self._interface = interface
        self._port = port
        self._rename = rename
        self._responder: Responder | None = None
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<MdnsResponder {self.hostname}, {len(self._offers)} services>"

    @property
    def hostname(self) -> str:
        """The host's name as it is now, such as ``printer.local``, or ``printer-2.local`` where that was taken."""
        return self._zone().host

    @property
    def service_names(self) -> list[str]:
        """The names of the services as they are now, in the order in which they were given."""
        return [offer.label.decode("utf-8", "surrogateescape") for offer in self._zone().offers]

    @property
    def answered(self) -> int:
        """Messages sent with answers, announcements included."""
        return self._responder.answered if self._responder is not None else 0

    @property
    def ignored(self) -> int:
        """Datagrams passed over: malformed, not of this link, or too many at once."""
        return self._responder.ignored if self._responder is not None else 0

    def _zone(self) -> Zone:
        return self._responder.zone if self._responder is not None else Zone(self._label, {}, self._offers)

    async def serve_forever(self) -> None:
        """Wait until the names are lost, which ``rename=False`` makes possible. Cancelling is safe.

        Raises:
            ListenFailed: another host has one of the names. It is an OSError, EADDRINUSE.
            RuntimeError: it is not in use.
        """
        if self._task is None:
            raise RuntimeError("the responder is not in use: async with mdns_serve(...)")
        await asyncio.shield(self._task)

    async def __aenter__(self) -> Self:
        if self._responder is not None:
            raise RuntimeError("the responder has been in use")
        interfaces = chosen_interfaces(self._interface)
        zone = Zone(self._label, _scopes(interfaces, self._addresses), self._offers)
        responder = self._responder = Responder(zone, interfaces, self._port, dns_codec(), rename=self._rename)
        try:
            await responder.open()
            await responder.claim()
        except BaseException:
            await responder.close()
            raise
        self._task = asyncio.create_task(responder.keep(), name=f"asyncmg-mdns-{responder.zone.host}")
        self._task.add_done_callback(lambda task: task.cancelled() or task.exception())
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._responder is not None and self._task is not None
        self._task.cancel()
        try:
            await asyncio.wait((self._task,))
        finally:
            await self._responder.close()
        if exc is None and not self._task.cancelled():
            self._task.result()  # names that were lost, and nobody has been told


def mdns_serve(
    hostname: str = "",
    addresses: Sequence[str] | None = None,
    services: Sequence[MdnsService] = (),
    *,
    interface: str = "",
    port: int = PORT,
    rename: bool = True,
) -> MdnsResponder:
    """Show a host's name and services on the local link (RFC 6762)::

        async with asyncmg.mdns_serve("printer", services=[MdnsService("_http._tcp", 8000, "My printer")]) as shown:
            print(shown.hostname)  # printer.local, once it is sure that nobody else has that name
            await shown.serve_forever()

    Entering takes about a second: the names are asked for three times before they are used. Where somebody has one, it
    becomes ``printer-2``, ``printer-3`` and so on, at the beginning and whenever such a one turns up later. Questions
    are answered from the same link only. At the end everybody is told that the names are gone.

    Other responders of the machine, such as avahi, may have the same port. Cancelling is safe; who is cancelled inside
    says goodbye.

    Args:
        hostname: one label, without ``.local``, up to 63 bytes of UTF-8; "": the machine's.
        addresses: of the host; None: those of each network interface, as they are when it begins.
        services: up to 100.
        interface: name or address of the network interface; "": all that can multicast.
        port: of mDNS; another one for tests only.
        rename: False: where a name is taken, ListenFailed is raised, by entering or by ``serve_forever``.

    Raises:
        ValueError: an argument cannot be used; of ``interface``, when it is entered.
        ListenFailed: when it is entered: no socket to be had, or names taken.
    """
    name = (hostname or socket.gethostname().partition(".")[0]).removesuffix(".").removesuffix(".local")
    label = name.encode("utf-8", "surrogateescape")
    if not 0 < len(label) <= MAX_LABEL or b"." in label:
        raise ValueError(f"not the name of a host: {hostname!r}")
    if len(services) > MAX_SERVICES:
        raise ValueError(f"{len(services)} services: {MAX_SERVICES} are the most")
    for address in addresses or ():
        reverse_name(address)  # a ValueError if it is none
    responder = MdnsResponder(label, addresses, services, interface, port, rename)
    names = [
        fold_name(_instance_name(shown, service.type))
        for shown, service in zip(responder.service_names, services, strict=True)
    ]
    if len(set(names)) < len(names):
        raise ValueError("two services of one type and name")
    return responder


def _offer(service: MdnsService, host_label: bytes) -> Offer:
    label = service.name.encode("utf-8", "surrogateescape") or host_label
    items = [
        key.encode("ascii") + (b"=" + value if isinstance(value, bytes) else b"") for key, value in service.txt.items()
    ]
    return Offer(service.type, label, service.port, TxtData(items or [b""]), service.priority, service.weight)


def _scopes(interfaces: Sequence[Interface], addresses: Sequence[str] | None) -> dict[str, Sequence[str]]:
    """Return the addresses to be told on each interface."""
    if addresses is not None:
        told = [address.partition("%")[0] for address in addresses]
        return {interface.name: told for interface in interfaces}
    return {interface.name: [str(address.ip) for address in interface.addresses] for interface in interfaces}
