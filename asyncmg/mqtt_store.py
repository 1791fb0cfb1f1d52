"""Where an MQTT client keeps what must survive the program: messages of QoS 1 and 2 that are not done with.

(MQTT 5.0 section 4.1, 3.1.1 section 3.1.2.4: the Session State in the Client.)
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any, Final, NamedTuple, Protocol, cast

from .errors import StoreFailed


class Change(IntEnum):
    """What has become of a message; each goes with two values."""

    ADD = 0  # serial, packet: it waits to be sent
    NUMBER = 1  # serial, packet identifier: it is being sent under it
    RELEASE = 2  # serial, 0: PUBREC has come
    DONE = 3  # serial, 0: it is done with
    RESTART = 4  # 0, 0: the server has no session any more: what was numbered waits again, nothing is unreleased
    TAKE = 5  # packet identifier, 0: a received message of QoS 2 has been taken, its PUBREL is to come
    LET_GO = 6  # packet identifier, 0: that PUBREL has come
    NAME = 7  # 0, client identifier that the server has assigned


class StoredMessage(NamedTuple):
    """A message to be sent.

    Attributes:
        serial: positive; messages are sent in its order.
        packet_id: 0: it has not been sent.
        is_released: its PUBREC has come.
        packet: an encoded PUBLISH, with some packet identifier.
    """

    serial: int
    packet_id: int
    is_released: bool
    packet: bytes


class StoredSession(NamedTuple):
    """All that is in a store.

    Attributes:
        client_id: whose session it is; "": not known yet.
        messages: to be sent, by serial.
        unreleased: packet identifiers of received messages of QoS 2 that have been taken.
    """

    client_id: str = ""
    messages: Sequence[StoredMessage] = ()
    unreleased: Sequence[int] = ()


class MqttStore(Protocol):
    """Keeps one client's session. Calls block the event loop: they have to be short."""

    def open(self, client_id: str, version: int) -> StoredSession:
        """Return what there is.

        Args:
            client_id: "": whichever is stored.
            version: 4 or 5.

        Raises:
            ValueError: the store holds messages of another client, or of the other version.
            StoreFailed: it cannot be read, or another program uses it.
        """

    def write(self, changes: Sequence[tuple[Change, int, Any]]) -> None:
        """Take changes in, all of them or none. Packets that depend on them are sent afterwards.

        Raises:
            StoreFailed: they could not be written.
        """

    def close(self) -> None:
        """Nothing more comes."""


_SCHEMA: Final = """
create table if not exists session (name text primary key, value text not null) without rowid;
create table if not exists outgoing (
    serial integer primary key, packet blob not null, packet_id integer not null, released integer not null
);
create table if not exists unreleased (packet_id integer primary key) without rowid;
"""

_STATEMENTS: Final = {
    Change.ADD: "insert into outgoing values (?, ?, 0, 0)",
    Change.NUMBER: "update outgoing set packet_id = ?2 where serial = ?1",
    Change.RELEASE: "update outgoing set released = 1 where serial = ?1 and ?2 = 0",
    Change.DONE: "delete from outgoing where serial = ?1 and ?2 = 0",
    Change.TAKE: "insert or ignore into unreleased select ?1 where ?2 = 0",
    Change.LET_GO: "delete from unreleased where packet_id = ?1 and ?2 = 0",
    Change.NAME: "insert or replace into session select 'client_id', ?2 where ?1 = 0",
}
_RESTART: Final = (
    "delete from outgoing where released = 1",
    "update outgoing set packet_id = 0",
    "delete from unreleased",
)


class SqliteStore:
    """A session in an SQLite file, for one client of one program at a time.

    Args:
        path: of the file; it is made when it is not there, its folder is not.
        is_synced: wait until the disk has written each transaction: what was promised survives a power failure. Each
            transaction then takes as long as the disk needs, milliseconds, and the event loop waits for it. Otherwise
            it survives the end of the program in whatever way, but the last moments may be lost with the machine.
    """

    def __init__(self, path: str | os.PathLike[str], *, is_synced: bool = False) -> None:
        self._path = os.fspath(path)
        self._is_synced = is_synced
        self._base: sqlite3.Connection | None = None

    def __repr__(self) -> str:
        return f"<SqliteStore {self._path!r}>"

    def open(self, client_id: str, version: int) -> StoredSession:
        return cast(StoredSession, self._guard("open", lambda: self._open(client_id, version)))

    def _guard(self, what: str, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except sqlite3.Error as exc:
            raise StoreFailed(f"cannot {what} {self._path!r}: {exc}") from exc

    def _open(self, client_id: str, version: int) -> StoredSession:
        base = sqlite3.connect(self._path, timeout=0.1, isolation_level=None, check_same_thread=False)
        try:
            # Two clients with one session would send what the other has sent: the file is ours until it is closed.
            base.execute("pragma locking_mode = exclusive")
            base.execute("pragma journal_mode = wal")
            base.execute(f"pragma synchronous = {'full' if self._is_synced else 'normal'}")
            base.executescript(_SCHEMA)
            base.execute("begin immediate")
            known = dict(base.execute("select name, value from session"))
            rows = base.execute("select serial, packet_id, released, packet from outgoing order by serial").fetchall()
            unreleased = [row[0] for row in base.execute("select packet_id from unreleased")]
            owner = known.get("client_id", "")
            if client_id and owner and client_id != owner and (rows or unreleased):
                raise ValueError(f"{self._path!r} holds messages of the client {owner!r}, not {client_id!r}")
            if rows and known.get("version") != str(version):
                raise ValueError(f"{self._path!r} holds messages of MQTT version {known.get('version')}, not {version}")
            name = client_id or owner
            base.executemany(
                "insert or replace into session values (?, ?)", [("client_id", name), ("version", str(version))]
            )
            base.execute("commit")
        except BaseException:
            base.close()
            raise
        self._base = base
        messages = [StoredMessage(serial, number, bool(released), packet) for serial, number, released, packet in rows]
        return StoredSession(name, messages, unreleased)

    def write(self, changes: Sequence[tuple[Change, int, Any]]) -> None:
        self._guard("write", lambda: self._write(changes))

    def _write(self, changes: Sequence[tuple[Change, int, Any]]) -> None:
        base = self._base
        if base is None:
            raise sqlite3.ProgrammingError("the store is closed")
        execute = base.execute
        execute("begin immediate")
        try:
            for change, number, value in changes:
                if change is Change.RESTART:
                    for statement in _RESTART:
                        execute(statement)
                else:
                    execute(_STATEMENTS[change], (number, value))
            execute("commit")
        except BaseException:
            if base.in_transaction:
                execute("rollback")
            raise

    def close(self) -> None:
        base, self._base = self._base, None
        if base is not None:
            self._guard("close", base.close)
