"""SUBSCRIBE (MQTT 5.0 and 3.1.1 section 3.8): what is granted, and the retained messages that come with it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, cast

from asyncmg.codecs import mqtt as m
from asyncmg.codecs.mqtt_properties import Property
from asyncmg.codecs.mqtt_topics import SHARE, filter_fault

from .core import Broker
from .hooks import Answer, BrokerClient, reason_code, refusal_for
from .message import Message
from .session import Session, Subscription

#: A retained message that a new subscription gets: with its QoS, and the subscription's identifiers.
RetainedDelivery = tuple[Message, int, tuple[int, ...]]


async def ask_rest(
    hook: Callable[[BrokerClient, str, int], Answer],
    client: BrokerClient,
    packet: m.Subscribe,
    codes: list[int],
    answer: Any,
    place: int,
) -> list[int]:
    """Ask the hook about the filters from a place on, whose answer is awaited; return the codes of all."""
    codes.append(reason_code(await answer))
    for topic_filter, options in packet.filters[place + 1 :]:
        verdict = hook(client, topic_filter, options & m.OPTION_QOS)
        codes.append(reason_code(await verdict if inspect.isawaitable(verdict) else verdict))
    return codes


def subscribe(
    broker: Broker, session: Session, packet: m.Subscribe, verdicts: Sequence[int], version: int
) -> tuple[bytes, list[RetainedDelivery]]:
    """Add the subscriptions that nothing speaks against.

    Args:
        verdicts: reason codes of the hook, one for each filter.

    Returns:
        the reason codes of the SUBACK, and the retained messages to be sent behind it.
    """
    identifiers = tuple(cast(Sequence[int], packet.properties.get(Property.SUBSCRIPTION_IDENTIFIER, ())))
    limit = broker.limits.mqtt.max_subscriptions
    now = broker.loop.time()
    codes = bytearray()
    retained: list[RetainedDelivery] = []
    for (topic_filter, options), verdict in zip(packet.filters, verdicts, strict=True):
        before = session.subscriptions.get(topic_filter)
        if not verdict and filter_fault(topic_filter) is not None:
            verdict = m.TOPIC_FILTER_INVALID  # a shared one of 3.1.1, which does not know them
        if not verdict and before is None and len(session.subscriptions) >= limit:
            verdict = m.QUOTA_EXCEEDED
        if verdict:
            broker.counters.unauthorized += 1
            codes.append(m.UNSPECIFIED_ERROR if version == 4 else refusal_for(m.SUBACK, verdict))
            continue
        qos = options & m.OPTION_QOS
        handling = (options & m.OPTION_RETAIN_HANDLING) >> 4
        subscription = Subscription(
            session,
            topic_filter,
            qos,
            no_local=bool(options & m.OPTION_NO_LOCAL),
            retain_as_published=bool(options & m.OPTION_RETAIN_AS_PUBLISHED),
            identifiers=identifiers,
        )
        broker.routes.add(subscription)
        codes.append(qos)
        if (handling == 0 or (handling == 1 and before is None)) and not topic_filter.startswith(SHARE):
            found = broker.retained.match(topic_filter, now)
            retained += [(message, min(qos, message.qos), identifiers) for message in found]
    broker.store_changed(session)
    return bytes(codes), retained
