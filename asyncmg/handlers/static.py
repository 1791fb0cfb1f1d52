"""A folder as a handler: files without a line of code."""

from __future__ import annotations

from typing import Any

from asyncmg.connection import Connection
from asyncmg.events import MG_EV_HTTP_MSG
from asyncmg.files.reply import StaticFolder


class StaticFiles(StaticFolder):
    """Replies to every request of a connection with the files below a root; for a Manager, or to mount in a Router.

    Arguments are those of :class:`asyncmg.files.reply.StaticFolder`. In a Router the mount's prefix is to be given
    here as well: ``router.mount("/static", StaticFiles("site", prefix="/static"))``.
    """

    __slots__ = ()

    def __call__(self, conn: Connection, ev: int, data: Any) -> None:
        """Reply when a request is complete; other events need nothing."""
        if ev == MG_EV_HTTP_MSG:
            conn.serve_folder(self, data)
