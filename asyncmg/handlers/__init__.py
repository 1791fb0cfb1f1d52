"""Ready-made handlers, and handlers round handlers.

Router, static files, authentication, CORS, compression, access log. Each is called as ``handler(conn, ev, data)`` and
uses only what every handler may use: the public surface below it.
"""
