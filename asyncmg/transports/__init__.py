"""Transports move bytes: sockets, listening, connecting, TLS. Nothing here knows a protocol. Imported by ``protocols``
and ``manager``; each transport looks like an :class:`asyncio.Transport`."""
