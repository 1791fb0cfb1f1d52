"""What the system says about names: hosts(5) and resolv.conf(5), read again when they change."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from asyncmg.codecs.dns import fold_name
from asyncmg.transports.sockets import SockAddr

T = TypeVar("T")

PORT = 53
_MAX_SERVERS = 3  # as in glibc (MAXNS)
_MAX_SEARCH = 6
_MAX_NDOTS = 15
_MAX_TIMEOUT = 30.0  # seconds (RES_MAXRETRANS)
_MAX_ATTEMPTS = 5  # (RES_MAXRETRY)
_MAX_SCOPE = 0xFFFFFFFF
_MAX_FILE = 1 << 20  # bytes; what is behind them is not read
_CHECK_INTERVAL = 5.0  # seconds between two looks whether a file has changed


@dataclass(frozen=True, slots=True)
class ResolvConf:
    """How to ask, as of resolv.conf(5).

    Attributes:
        servers: socket addresses, in the order in which they are asked.
        search: domains to be put behind names with less than ``ndots`` dots.
        timeout: seconds for one try; 0: not told.
        attempts: rounds through all servers; 0: not told.
        rotate: begin each look-up with another server.
        use_tcp: ask by TCP only.
    """

    servers: tuple[SockAddr, ...] = ()
    search: tuple[str, ...] = ()
    ndots: int = 1
    timeout: float = 0.0
    attempts: int = 0
    rotate: bool = False
    use_tcp: bool = False


def server_address(server: str, default_port: int = PORT) -> SockAddr:
    """Turn ``1.2.3.4``, ``1.2.3.4:5353``, ``::1``, ``fe80::1%eth0`` or ``[::1]:5353`` into a socket address.

    Raises:
        ValueError: it is neither.
    """
    host, port = server, str(default_port)
    if server.startswith("["):
        host, bracket, rest = server[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"not an address with a port: {server!r}")
        port = rest[1:] or port
    elif server.count(":") == 1:
        host, _, port = server.partition(":")
    address, _, zone = host.partition("%")
    ip = ipaddress.ip_address(address)
    number = _number(port, 0)
    if not 0 < number < 65536:
        raise ValueError(f"not a port in {server!r}")
    if ip.version == 4:
        return socket.AF_INET, (address, number)
    return socket.AF_INET6, (address, number, 0, _scope_id(zone))


def _scope_id(zone: str) -> int:
    if not zone:
        return 0
    if zone.isascii() and zone.isdigit():
        if int(zone) > _MAX_SCOPE:
            raise ValueError(f"no network interface {zone!r}")
        return int(zone)
    try:
        return socket.if_nametoindex(zone)
    except (OSError, ValueError) as exc:
        raise ValueError(f"no network interface {zone!r}") from exc


def parse_resolv_conf(text: str) -> ResolvConf:
    """Read the text of a resolv.conf(5); what is not understood is passed over, as the system does."""
    servers: list[SockAddr] = []
    search: tuple[str, ...] = ()
    options: dict[str, str] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2 or line[0] in "#;":
            continue
        if words[0] == "nameserver" and len(servers) < _MAX_SERVERS:
            try:
                servers.append(server_address(words[1]))
            except ValueError:
                continue
        elif words[0] in ("search", "domain"):
            count = _MAX_SEARCH if words[0] == "search" else 1
            search = tuple(word.rstrip(".") for word in words[1 : 1 + count] if word.strip("."))
        elif words[0] == "options":
            for word in words[1:]:
                name, _, value = word.partition(":")
                options[name] = value
    return ResolvConf(
        tuple(servers) or (server_address("127.0.0.1"),),
        search,
        ndots=min(_number(options.get("ndots"), 1), _MAX_NDOTS),
        timeout=min(float(_number(options.get("timeout"), 0)), _MAX_TIMEOUT),
        attempts=min(_number(options.get("attempts"), 0), _MAX_ATTEMPTS),
        rotate="rotate" in options,
        use_tcp="use-vc" in options or "usevc" in options,
    )


def _number(text: str | None, default: int) -> int:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 6 else default


class Hosts:
    """The names of a hosts(5) file.

    Args:
        text: of the file; lines that are none of names are passed over.
    """

    def __init__(self, text: str = "") -> None:
        self._addresses: dict[str, list[str]] = {}
        self._names: dict[str, list[str]] = {}
        for line in text.splitlines():
            words = line.partition("#")[0].split()
            if len(words) < 2:
                continue
            try:
                address = str(ipaddress.ip_address(words[0]))  # with a zone where the file has one
            except ValueError:
                continue
            for name in words[1:]:
                _add(self._addresses, fold_name(name), address)
                _add(self._names, address, name)

    def addresses(self, name: str, version: int) -> list[str] | None:
        """Return the addresses of a name; [] when it has only ones of the other version, None when it is not there.

        Args:
            version: 4 or 6.
        """
        found = self._addresses.get(fold_name(name))
        return None if found is None else [ip for ip in found if (":" in ip) == (version == 6)]

    def names(self, address: str) -> list[str] | None:
        """Return the names of an address; None: it is not there."""
        return self._names.get(address)


def _add(table: dict[str, list[str]], key: str, value: str) -> None:
    values = table.setdefault(key, [])
    if value not in values:
        values.append(value)


class WatchedFile(Generic[T]):
    """A file's content, parsed; read again when the file has changed.

    Args:
        path: a file that cannot be read is an empty one.
        parse: makes the value of its text.
        clock: monotonic, in seconds.
    """

    __slots__ = ("_checked", "_clock", "_parse", "_path", "_seen", "_value")

    def __init__(self, path: str | os.PathLike[str], parse: Callable[[str], T], clock: Callable[[], float]) -> None:
        self._path = Path(path)
        self._parse = parse
        self._clock = clock
        self._checked = clock()
        self._seen = self._look()
        self._value = self._read()

    def get(self) -> T:
        """Return the value; the file is looked at every few seconds."""
        now = self._clock()
        if now - self._checked >= _CHECK_INTERVAL:
            self._checked = now
            seen = self._look()
            if seen != self._seen:
                self._seen = seen
                self._value = self._read()
        return self._value

    def _look(self) -> tuple[int, ...]:
        try:
            status = self._path.stat()
        except OSError:
            return ()
        return status.st_mtime_ns, status.st_ino, status.st_size

    def _read(self) -> T:
        try:
            with self._path.open("rb") as file:
                data = file.read(_MAX_FILE)
        except OSError:
            data = b""
        return self._parse(data.decode("utf-8", "replace"))


def system_hosts_path() -> str:
    """Return where the system keeps its hosts file."""
    if os.name == "nt":
        return os.path.join(os.environ.get("SYSTEMROOT", r"C:\Windows"), "System32", "drivers", "etc", "hosts")
    return "/etc/hosts"


def system_servers_path() -> str | None:
    """Return where the system names its name servers; None where it does so in another way."""
    path = "/etc/resolv.conf"
    return path if os.name == "posix" and os.path.exists(path) else None


def fixed(
    servers: Iterable[str], search: Iterable[str], *, ndots: int, rotate: bool, use_tcp: bool
) -> Callable[[], ResolvConf]:
    """Make a configuration that does not come from a file.

    Raises:
        ValueError: an address of a server is none, or there is none.
    """
    conf = ResolvConf(tuple(map(server_address, servers)), tuple(search), ndots=ndots, rotate=rotate, use_tcp=use_tcp)
    if not conf.servers:
        raise ValueError("no name servers")
    return lambda: conf
