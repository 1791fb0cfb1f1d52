"""Verbs: what user code asks of a connection in the words of one protocol, a mixin of Connection per protocol.

Each verb is one line that delegates to the current protocol object. They stand on ``protocols``; ``connection`` is
made of them.
"""
