"""An MQTT broker without sockets: sessions, routing, retained messages, wills. Its face is asyncmg/mqtt_broker.py.

:class:`.core.Broker` knows all sessions and routes messages; a :class:`.link.Link` gives the packets of one connection
their meaning; a :class:`.session.Session` is what outlives connections.
"""
