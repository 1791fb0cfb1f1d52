"""Programs with an MQTT client of others: each reads a job from standard input, and prints ``ready`` and its result.

A job is one line of JSON: see ``Job`` in ``../mqtt_peers.py``. A subscriber prints ``ready`` when it has subscribed,
then ``{"received": [[topic, payload, qos, retain], ...]}`` when it has had as many messages as it waits for; a
publisher ``{"published": N}`` when all are acknowledged. A program that is not done in time prints what it has got.
"""
