"""Password files: a line ``name:hash`` for each user, hashes by scrypt (RFC 7914) in the PHC string format."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import os
import secrets
from pathlib import Path
from typing import Final

from asyncmg.codecs import mqtt as m

from .hooks import ConnectAttempt, Verdict

_LOG2_N: Final = 14  # 16 MiB and some 50 ms for each password
_R, _P = 8, 1
_MAX_MEMORY: Final = 256 << 20
_AT_ONCE: Final = 2  # hashes: a flood of CONNECTs must not take all memory
_MAX_PASSWORD: Final = 1024  # bytes


def hash_password(password: str | bytes) -> str:
    """Return what a password file has for a password. It takes some 50 ms."""
    salt = secrets.token_bytes(16)
    digest = _derive(_bytes(password), salt, _LOG2_N, _R, _P)
    return f"$scrypt$ln={_LOG2_N},r={_R},p={_P}${_encode(salt)}${_encode(digest)}"


def check_password(password: str | bytes, hashed: str) -> bool:
    """Tell whether it is the password. It takes some 50 ms.

    Raises:
        ValueError: not a hash of :func:`hash_password`.
    """
    try:
        empty, kind, numbers, salt, digest = hashed.split("$")
        if empty or kind != "scrypt":
            raise ValueError
        values = dict(item.split("=") for item in numbers.split(","))
        log2_n, r, p = (int(values[name]) for name in ("ln", "r", "p"))
        if not (1 <= log2_n <= 20 and 1 <= r <= 32 and 1 <= p <= 16):
            raise ValueError
        expected = _decode(digest)
        actual = _derive(_bytes(password), _decode(salt), log2_n, r, p)
    except (ValueError, KeyError) as exc:
        raise ValueError("not an scrypt hash in the PHC string format") from exc
    return hmac.compare_digest(expected, actual)


def _derive(password: bytes, salt: bytes, log2_n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(password, salt=salt, n=1 << log2_n, r=r, p=p, maxmem=_MAX_MEMORY, dklen=32)


def _bytes(password: str | bytes) -> bytes:
    return password.encode() if isinstance(password, str) else password


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode().rstrip("=")


def _decode(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)


class PasswordFile:
    """The users of a broker: ``MqttBroker(authenticate=PasswordFile("users.txt"))``.

    The file is read again when it has changed. Hashes are computed in the loop's thread pool, two at a time; a password
    that was right is remembered, as a keyed hash, so that a client that comes again costs nothing.

    Args:
        path: of a text file; it need not exist before :meth:`set`.
        anonymous: clients without a user name may connect.

    Raises:
        ValueError: a line that is not ``name:hash``.
    """

    def __init__(self, path: str | os.PathLike[str], *, anonymous: bool = False) -> None:
        self._path = Path(path)
        self._anonymous = anonymous
        self._users: dict[str, str] = {}
        self._read_at: tuple[int, int] | None = None
        self._key = secrets.token_bytes(32)
        self._right: dict[str, bytes] = {}
        self._slots: asyncio.Semaphore | None = None
        self._nobody = hash_password(secrets.token_bytes(16))
        self._read()

    def __len__(self) -> int:
        return len(self._users)

    def _read(self) -> None:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            self._users, self._read_at = {}, None
            return
        read_at = (status.st_mtime_ns, status.st_size)
        if read_at == self._read_at:
            return
        users = {}
        for number, line in enumerate(self._path.read_text("utf-8").splitlines(), 1):
            if not line or line.startswith("#"):
                continue
            name, colon, hashed = line.rpartition(":")
            if not colon or not hashed.startswith("$scrypt$"):
                raise ValueError(f"{self._path}, line {number}: expected name:$scrypt$...")
            users[name] = hashed
        self._users, self._read_at = users, read_at
        self._right.clear()

    def set(self, name: str, password: str | bytes | None) -> None:
        """Add a user, change its password, or, with None, remove it.

        Raises:
            ValueError: a name that a line cannot hold.
        """
        if name.startswith("#") or (name and name.splitlines() != [name]):
            raise ValueError(f"not a user name for a password file: {name!r}")
        self._read()
        users = dict(self._users)
        if password is None:
            users.pop(name, None)
        else:
            users[name] = hash_password(password)
        beside = self._path.with_name(self._path.name + ".new")
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.writelines(f"{user}:{hashed}\n" for user, hashed in users.items())
        beside.replace(self._path)
        self._read()

    async def __call__(self, attempt: ConnectAttempt) -> Verdict:
        """Decide about a client: the hook ``authenticate``. Cancelling is safe."""
        if attempt.method:
            return m.BAD_AUTHENTICATION_METHOD
        name, password = attempt.client.username, attempt.password
        if name is None:
            return self._anonymous or m.NOT_AUTHORIZED
        if password is None or len(password) > _MAX_PASSWORD:
            return m.BAD_USER_OR_PASSWORD
        self._read()
        keyed = hmac.digest(self._key, f"{len(name)}:{name}".encode() + password, "sha256")
        if hmac.compare_digest(self._right.get(name, b""), keyed):
            return True
        if self._slots is None:
            self._slots = asyncio.Semaphore(_AT_ONCE)
        hashed = self._users.get(name)
        async with self._slots:
            # For a name that is unknown as well: its answer must not come sooner.
            is_right = await asyncio.to_thread(check_password, password, hashed or self._nobody)
        if hashed is None or not is_right or self._users.get(name) != hashed:
            return m.BAD_USER_OR_PASSWORD
        self._right[name] = keyed
        return True
