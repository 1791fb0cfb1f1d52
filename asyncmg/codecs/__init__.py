"""Codecs: bytes to messages and back, without I/O and without a clock.

One module per protocol holds the contract and what both sets of codecs share; ``*_portable`` stands on Python
libraries, ``*_native`` on the C core. Nothing here imports asyncio, socket, ssl or time; a codec raises only
ProtocolErrors, whatever bytes it is fed. Imported by ``protocols``.
"""
