"""Looking up names (RFC 1034, 1035): configuration, cache, stub resolver, mDNS; ``service.py`` brings them together.

May be imported from the connecting side (dialing, manager) and above. Imports codecs and transports.
"""
