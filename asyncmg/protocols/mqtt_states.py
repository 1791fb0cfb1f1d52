"""States of an MQTT connection (MQTT 5.0 and 3.1.1 sections 3.1, 3.2, 3.14, 4.12). An absent pair is our error."""

from __future__ import annotations

from enum import StrEnum


class MqttState(StrEnum):
    """How far a connection has come, the same in both roles."""

    NEW = "new"  # no CONNECT yet
    OPENING = "opening"  # CONNECT without its CONNACK; in between may be AUTH
    OPEN = "open"
    CLOSED = "closed"  # DISCONNECT, a refusal or an error: nothing more is sent


MQTT: dict[tuple[MqttState, str], MqttState] = {
    (MqttState.NEW, "connect"): MqttState.OPENING,
    (MqttState.OPENING, "accept"): MqttState.OPEN,  # CONNACK with success
    (MqttState.OPENING, "refuse"): MqttState.CLOSED,  # CONNACK with anything else
    **{(state, "close"): MqttState.CLOSED for state in MqttState},
}
