"""Cookies, the server's side (RFC 6265, and its successor draft RFC 6265bis for SameSite and name prefixes)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Literal

from asyncmg.errors import InvalidHeader, LimitExceeded

MAX_COOKIES = 1000  # of one request: 400
MAX_COOKIE_SIZE = 4096  # name and value: browsers ignore a larger one (RFC 6265bis section 5.7)

SameSite = Literal["", "Lax", "Strict", "None"]

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # token
_OCTETS = r"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]*"  # cookie-octet, RFC 6265 section 4.1.1
_VALUE = re.compile(rf'{_OCTETS}|"{_OCTETS}"')
_PATH = re.compile(r"(?:/[\x20-\x3a\x3c-\x7e]*)?")
_DOMAIN = re.compile(r"(?:[0-9A-Za-z_-]+(?:\.[0-9A-Za-z_-]+)*)?")


class Cookie:
    """A cookie to set: its value and its attributes (RFC 6265 section 4.1).

    Args:
        value: visible ASCII without ``"``, ``,``, ``;`` and backslash; percent-encode everything else.
        path: the cookie is sent for this path and those below; "": for the folder of the request.
        domain: the cookie is sent to this host and those below; "": to exactly the host of the request.
        max_age: seconds that it lives; 0 deletes it; None: until the browser is closed, or until ``expires``.
        expires: a datetime with a time zone, or seconds since 1970; ``max_age`` goes before it.
        secure: sent over TLS only.
        http_only: not shown to scripts.
        same_site: ``"Lax"``, ``"Strict"``, ``"None"`` (needs ``secure``), or "": as the browser has it, mostly Lax.
        partitioned: a jar of its own for every site that embeds this one; needs ``secure``.
    """

    __slots__ = ("domain", "expires", "http_only", "max_age", "partitioned", "path", "same_site", "secure", "value")

    def __init__(
        self,
        value: str,
        *,
        path: str = "/",
        domain: str = "",
        max_age: int | None = None,
        expires: datetime | float | None = None,
        secure: bool = False,
        http_only: bool = False,
        same_site: SameSite = "",
        partitioned: bool = False,
    ) -> None:
        self.value = value
        self.path = path
        self.domain = domain
        self.max_age = max_age
        self.expires = expires
        self.secure = secure
        self.http_only = http_only
        self.same_site = same_site
        self.partitioned = partitioned

    @classmethod
    def expired(cls, path: str = "/", domain: str = "", *, secure: bool = False, partitioned: bool = False) -> Cookie:
        """Return a cookie that deletes the one that was set with the same path and domain.

        Args:
            path, domain: as they were when it was set.
            secure: needed when the name begins with ``__Host-`` or ``__Secure-``.
            partitioned: as it was when it was set; needs ``secure``.
        """
        return cls("", path=path, domain=domain, max_age=0, expires=0, secure=secure, partitioned=partitioned)

    def __repr__(self) -> str:
        return f"<Cookie path={self.path!r} domain={self.domain!r}>"  # values are secrets

    def header(self, name: str) -> str:
        """Return the value of a Set-Cookie field.

        Raises:
            InvalidHeader: name, value or an attribute cannot be sent, or browsers would refuse the combination: it is
                over MAX_COOKIE_SIZE, SameSite=None or Partitioned without ``secure``, or against the rules of the name
                prefixes (RFC 6265bis section 4.1.3).
        """
        self._check(name)
        out = [f"{name}={self.value}"]
        if self.path:
            out.append(f"Path={self.path}")
        if self.domain:
            out.append(f"Domain={self.domain}")
        if self.max_age is not None:
            out.append(f"Max-Age={self.max_age}")
        if self.expires is not None:
            out.append(f"Expires={_date(self.expires)}")
        if self.secure:
            out.append("Secure")
        if self.http_only:
            out.append("HttpOnly")
        if self.same_site:
            out.append(f"SameSite={self.same_site}")
        if self.partitioned:
            out.append("Partitioned")
        return "; ".join(out)

    def _check(self, name: str) -> None:
        if not _NAME.fullmatch(name):
            raise InvalidHeader(f"invalid cookie name {name!r}")
        if not _VALUE.fullmatch(self.value):
            raise InvalidHeader(f"the value of cookie {name!r} must be percent-encoded: RFC 6265 section 4.1.1")
        if len(name) + len(self.value) > MAX_COOKIE_SIZE:
            raise InvalidHeader(f"cookie {name!r} is too large: browsers ignore more than {MAX_COOKIE_SIZE} bytes")
        if not _PATH.fullmatch(self.path):
            raise InvalidHeader(f"invalid path {self.path!r} of cookie {name!r}")
        if not _DOMAIN.fullmatch(self.domain):
            raise InvalidHeader(f"invalid domain {self.domain!r} of cookie {name!r}")
        if self.max_age is not None and (type(self.max_age) is not int or self.max_age < 0):
            raise InvalidHeader(f"max_age of cookie {name!r} must be 0 or a positive int, not {self.max_age!r}")
        if self.same_site not in ("", "Lax", "Strict", "None"):
            raise InvalidHeader(f"same_site must be 'Lax', 'Strict' or 'None', not {self.same_site!r}")
        if not self.secure and (self.same_site == "None" or self.partitioned):
            raise InvalidHeader(f"cookie {name!r}: SameSite=None and Partitioned need Secure")
        prefix = name.lower()  # RFC 6265bis section 5.7: browsers ignore the case of prefixes
        if prefix.startswith(("__secure-", "__host-")) and not self.secure:
            raise InvalidHeader(f"cookie {name!r}: its prefix needs Secure")
        if prefix.startswith("__host-") and (self.path != "/" or self.domain):
            raise InvalidHeader(f"cookie {name!r}: __Host- needs the path / and no domain")


def parse_cookies(value: str) -> dict[str, str]:
    """Parse a Cookie field (RFC 6265 section 5.4), leniently: browsers send back what they were once given.

    Of repeated names the first counts: browsers send the one with the longest path first. What has no name is left out.
    A pair of quotes round a value is removed; nothing else is decoded.

    Raises:
        LimitExceeded: more than MAX_COOKIES (wire_code 400).
    """
    count = value.count(";") + 1
    if count > MAX_COOKIES:
        raise LimitExceeded("too many cookies", limit=f"max_cookies={MAX_COOKIES}", actual=count, wire_code=400)
    cookies: dict[str, str] = {}
    for pair in value.split(";"):
        name, _, text = pair.partition("=")
        name, text = name.strip(" \t"), text.strip(" \t")
        if "=" not in pair or not name or name in cookies:
            continue
        if len(text) >= 2 and text[0] == '"' and text[-1] == '"':
            text = text[1:-1]
        cookies[name] = text
    return cookies


def set_cookie_headers(cookies: Mapping[str, str | Cookie | None]) -> list[tuple[str, str]]:
    """Return Set-Cookie fields.

    Args:
        cookies: by name: a Cookie, a str for one that has only a value, None to delete the one of path ``/``.

    Raises:
        InvalidHeader: as :meth:`Cookie.header`.
        TypeError: a value of another type.
    """
    headers = []
    for name, cookie in cookies.items():
        if cookie is None:
            cookie = Cookie.expired(secure=name.startswith("__"))  # a prefix may need it
        elif isinstance(cookie, str):
            cookie = Cookie(cookie)
        elif not isinstance(cookie, Cookie):
            raise TypeError(f"cookie {name!r} must be a str, a Cookie or None, not {type(cookie).__name__}")
        headers.append(("Set-Cookie", cookie.header(name)))
    return headers


def _date(moment: datetime | float) -> str:
    """Return an IMF-fixdate (RFC 9110 section 5.6.7)."""
    if isinstance(moment, datetime) and moment.tzinfo is None:
        raise InvalidHeader("expires of a cookie needs a time zone: datetime.now(UTC) has one")
    try:
        utc = moment.astimezone(UTC) if isinstance(moment, datetime) else datetime.fromtimestamp(moment, UTC)
    except (OverflowError, OSError, ValueError) as exc:
        raise InvalidHeader(f"expires of a cookie is out of range: {moment!r}") from exc
    return format_datetime(utc, usegmt=True)
