"""The publishing half of an MQTT client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from .codecs.mqtt_encode import encode_publish
from .codecs.mqtt_properties import NO_PROPERTIES, Properties
from .errors import BusyError, ConnectionClosed, DeadlineExceeded
from .mqtt_keeping import MqttKeeper
from .mqtt_options import PropertiesArgument, properties_of
from .protocols.mqtt_client import ClientLink
from .protocols.mqtt_session import DELIVERED, Delivery

Payload = bytes | str | bytearray | memoryview


def as_bytes(payload: Payload) -> bytes:
    if isinstance(payload, str):
        return payload.encode()
    if isinstance(payload, bytes | bytearray | memoryview):
        return bytes(payload)
    raise TypeError(f"a payload is bytes or str, not {type(payload).__name__}")


async def within(timeout: float | None, work: Awaitable[Any], what: str) -> Any:
    """Await something for a limited time.

    Raises:
        DeadlineExceeded.
    """
    try:
        async with asyncio.timeout(timeout):
            return await work
    except TimeoutError as exc:
        if isinstance(exc, DeadlineExceeded):
            raise
        raise DeadlineExceeded(f"{what} has taken more than {timeout} s", limit="timeout") from exc


class MqttPublisher(MqttKeeper):
    """``publish`` and what belongs to it; see :class:`MqttClient`."""

    # -- publishing --------------------------------------------------------------------------------------------------

    async def publish(
        self,
        topic: str,
        payload: Payload = b"",
        qos: int = 0,
        retain: bool = False,
        properties: PropertiesArgument = None,
        *,
        timeout: float | None = None,
    ) -> int:
        """Publish a message; return when the handshake of its QoS is done, also over lost connections.

        With QoS 0 return when it has been handed to the connection: wait for a connection, and for the broker to take
        what was sent before. With QoS 1 and 2 wait for room in the queue (``max_queued``, ``max_queued_bytes``), then
        for PUBACK or PUBCOMP.

        Args:
            topic: without wildcards.
            payload: a str is sent as UTF-8.
            qos: 0, 1 or 2.
            retain: the broker keeps it for later subscribers.
            properties: of MQTT 5, by identifier or name: ``{"content_type": "text/plain"}``.
            timeout: seconds; None: for as long as connecting anew makes sense.

        Returns:
            the reason code: 0, or 0x10 when the broker tells that nobody has subscribed.

        Cancelling, or the time-out, withdraws the message when it has not been sent yet; otherwise it goes on.

        Raises:
            MqttRefused: the broker has refused the message.
            InvalidPacket: an argument that no PUBLISH can carry.
            LocalProtocolError: the broker has told that it takes no such QoS, size, or retained message.
            DeadlineExceeded: the time-out.
            ConnectionClosed, MqttRefused, StoreFailed: the client has ended.
        """
        if timeout is not None:
            return int(await within(timeout, self.publish(topic, payload, qos, retain, properties), "publish()"))
        session = self._session
        if qos:
            if session.has_room:
                delivery = self.publish_soon(topic, payload, qos, retain, properties)
            else:
                self._check_alive()
                data = as_bytes(payload)
                await session.wait_for_room(len(topic) + len(data))
                try:
                    delivery = self._begin(topic, data, qos, retain, properties_of(properties))
                finally:
                    session.pass_room_on()
            try:
                return await delivery
            except asyncio.CancelledError:
                session.withdraw(delivery)
                raise
        link = self.link
        while link is None or (output := link.protocol.output).is_paused or output.size >= output.high_water:
            link = await self._wait_writable()
        data = payload if type(payload) is bytes else as_bytes(payload)
        link.send_now(topic, data, retain, properties_of(properties) if properties else b"")
        return 0

    async def _wait_writable(self) -> ClientLink:
        """Wait for a connection whose output has room, or give others a turn."""
        link = await self._wait_open()
        try:
            await link.protocol.flush()
        except ConnectionClosed:
            await asyncio.sleep(0)
        return await self._wait_open()

    def publish_soon(
        self,
        topic: str,
        payload: Payload = b"",
        qos: int = 0,
        retain: bool = False,
        properties: PropertiesArgument = None,
    ) -> Delivery:
        """Begin to publish a message without waiting; ``await`` the result for the end of its handshake, or do not.

        Args:
            as :meth:`publish`.

        Raises:
            BusyError: the queue is full; with QoS 0: the broker is so many bytes behind.
            ConnectionClosed: with QoS 0: there is no connection now.
            (otherwise) as :meth:`publish`.
        """
        data = payload if type(payload) is bytes else as_bytes(payload)
        found = properties_of(properties) if properties else NO_PROPERTIES
        if qos:
            return self._begin(topic, data, qos, retain, found, is_bounded=True)
        link = self.link
        if link is None:
            self._check_alive()
            raise ConnectionClosed("not connected now: a message of QoS 0 is not kept")
        output = link.protocol.output
        if output.size >= output.high_water:
            output.flush()
        if output.is_paused and output.unsent > self._limits.mqtt.max_queued_bytes:
            limit = self._limits.mqtt.max_queued_bytes
            raise BusyError(f"the broker does not take our output: more than {limit} bytes (max_queued_bytes) wait")
        link.send_now(topic, data, retain, found)
        return DELIVERED

    def _begin(
        self, topic: str, data: bytes, qos: int, retain: bool, properties: Properties, *, is_bounded: bool = False
    ) -> Delivery:
        """Send a message of QoS 1 or 2, or queue it."""
        self._check_alive()
        session, link = self._session, self.link
        flow, version = session.flow, self._options.version
        if link is not None and flow.is_free and not session.is_stored and not self._options.aliases:
            number = flow.take_id()
            packet = encode_publish(version, topic, data, qos, retain, False, number, properties)
            if link.is_limited:
                link.check(packet)
            delivery = flow.published[number] = Delivery(packet)
            link.write(packet)
            if link.is_paused:
                link.consider_reading()
            return delivery
        packet = encode_publish(version, topic, data, qos, retain, False, 1, properties)
        if link is not None and link.is_limited:
            link.check(packet)
        if is_bounded and session.is_full(len(packet)):
            raise BusyError(f"{len(flow.waiting)} messages wait to be sent (max_queued, max_queued_bytes)")
        delivery = session.add(packet)
        if link is not None:
            if flow.has_room:
                link.send_waiting()
            if link.is_paused:
                link.consider_reading()
        return delivery

    def _check_alive(self) -> None:
        if self._error is not None:
            raise self._error.with_traceback(None)

    async def flush(self, timeout: float | None = None) -> None:
        """Wait until no message is under way or waits to be sent. Cancelling is safe.

        Raises:
            DeadlineExceeded: the time-out, in seconds.
            ConnectionClosed, MqttRefused, StoreFailed: the client has ended.
        """
        await within(timeout, self._flush(), "flush()")

    async def _flush(self) -> None:
        flow = self._session.flow
        while len(flow):
            for delivery in (*flow.published.values(), *flow.released.values(), *flow.waiting):
                try:
                    await delivery
                except Exception:
                    self._check_alive()  # otherwise it is that message's, and who has published it can know

    @property
    def pending(self) -> int:
        """How many messages of QoS 1 and 2 are under way or wait to be sent."""
        return len(self._session.flow)
