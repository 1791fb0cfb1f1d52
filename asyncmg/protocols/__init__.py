"""Protocols: what the RFCs say about a connection over time. Each is a real :class:`asyncio.Protocol`, usable alone.

``base`` has what all share (output, deadlines, TLS, closing); one module per protocol has the rest. They stand on
``codecs`` and ``transports`` and are used by ``verbs``, ``connection`` and ``manager``.
"""
