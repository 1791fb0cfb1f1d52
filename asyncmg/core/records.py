"""The structs and constants of amg.h. tests/core holds them against the header, the loader against the library."""

from __future__ import annotations

from functools import lru_cache
from struct import Struct
from typing import Final

from asyncmg.limits import HttpLimits, MqttLimits, WsLimits

HTTP1_LIMITS: Final = Struct("=8I")
HTTP1_STATE: Final = Struct("=QII8B")
HTTP1_RECORD: Final = Struct("=BBHHHIIIIQ")
WS_LIMITS: Final = Struct("=QQII")
WS_STATE: Final = Struct("=QQII4B9B14B125B")
WS_RECORD: Final = Struct("=IIII")
WS_CALL: Final = Struct("=6Q")
MQTT_LIMITS: Final = Struct("=8I")
MQTT_STATE: Final = Struct("=I5B4B3B")
MQTT_RECORD: Final = Struct("=BBH5I")
MQTT_CALL: Final = Struct("=6Q")
MQTT_PROPERTY: Final = Struct("=6I")
MQTT_FILTER: Final = Struct("=3I")
MQTT_CONNECT: Final = Struct("=BBH12I")
DNS_HEADER: Final = Struct("=6H")
DNS_RECORD: Final = Struct("=4I5H2B")
DNS_CALL: Final = Struct("=4Q")
SNTP_PACKET: Final = Struct("=4BbbHiI4B4B4Q")
ENGINE_CONFIG: Final = Struct("=IIIIQII32s")  # at the end an amg_http1_limits
COMPLETION: Final = Struct("=HHIIIIIIi")
SUBMISSION: Final = Struct("=HHIII")
NOTICE: Final = Struct("=II")

# In the order of amg_sizeof().
STRUCTS: Final = {
    "amg_http1_limits": HTTP1_LIMITS,
    "amg_http1": HTTP1_STATE,
    "amg_http1_record": HTTP1_RECORD,
    "amg_ws_limits": WS_LIMITS,
    "amg_ws": WS_STATE,
    "amg_ws_record": WS_RECORD,
    "amg_ws_call": WS_CALL,
    "amg_mqtt_limits": MQTT_LIMITS,
    "amg_mqtt": MQTT_STATE,
    "amg_mqtt_record": MQTT_RECORD,
    "amg_mqtt_call": MQTT_CALL,
    "amg_mqtt_property": MQTT_PROPERTY,
    "amg_mqtt_filter": MQTT_FILTER,
    "amg_mqtt_connect": MQTT_CONNECT,
    "amg_dns_header": DNS_HEADER,
    "amg_dns_record": DNS_RECORD,
    "amg_dns_call": DNS_CALL,
    "amg_sntp_packet": SNTP_PACKET,
    "amg_engine_config": ENGINE_CONFIG,
    "amg_completion": COMPLETION,
    "amg_submission": SUBMISSION,
    "amg_notice": NOTICE,
}

AMG_SERVER: Final = 0
AMG_CLIENT: Final = 1

AMG_ANSWERS_NOTHING: Final = 0
AMG_ANSWERS_OTHER: Final = 1
AMG_ANSWERS_HEAD: Final = 2
AMG_ANSWERS_CONNECT: Final = 3

AMG_HTTP1_REQUEST: Final = 1
AMG_HTTP1_RESPONSE: Final = 2
AMG_HTTP1_CONTENT: Final = 3
AMG_HTTP1_END: Final = 4
AMG_HTTP1_ERROR: Final = 5

AMG_FRAMING_NONE: Final = 0
AMG_FRAMING_LENGTH: Final = 1
AMG_FRAMING_CHUNKED: Final = 2
AMG_FRAMING_CLOSE: Final = 3

AMG_HTTP_10: Final = 1
AMG_HTTP_KEEP_ALIVE: Final = 2
AMG_HTTP_EXPECTS_CONTINUE: Final = 4
AMG_HTTP_UPGRADE: Final = 8
AMG_HTTP_SCRATCH: Final = 16

AMG_WS_FIN: Final = 0x80
AMG_WS_RSV1: Final = 0x40
AMG_WS_END_OF_FRAME: Final = 0x20
AMG_WS_HELD: Final = 0x100
AMG_WS_ERROR: Final = 0x200
AMG_WS_UNSETTLED: Final = 0x40000000

AMG_MQTT_UNSETTLED: Final = 0x40000000
AMG_MQTT_ACKS: Final = 0x20000000
AMG_MQTT_SAME_TOPIC: Final = 1

AMG_DNS_QUESTIONS: Final = 0
AMG_DNS_ANSWERS: Final = 1
AMG_DNS_AUTHORITIES: Final = 2
AMG_DNS_ADDITIONALS: Final = 3

AMG_DNS_BYTES: Final = 0
AMG_DNS_ADDRESS: Final = 1
AMG_DNS_NAME: Final = 2
AMG_DNS_MX: Final = 3
AMG_DNS_STRINGS: Final = 4
AMG_DNS_SRV: Final = 5
AMG_DNS_SOA: Final = 6

AMG_DNS_MAX_RECORDS: Final = 1000
AMG_DNS_NAME_TEXT: Final = 1004
AMG_DNS_ADDRESS_TEXT: Final = 40
AMG_DNS_NO_ROOM: Final = 0x40000000
AMG_DNS_REFUSED: Final = 0x80000000

AMG_SNTP_SIZE: Final = 48
AMG_SNTP_MAX_SIZE: Final = 1024
AMG_SNTP_VERSION: Final = 4

AMG_POLLER_AUTO: Final = 0
AMG_POLLER_EPOLL: Final = 1
AMG_POLLER_KQUEUE: Final = 2
AMG_POLLER_POLL: Final = 3

AMG_ACCEPTED: Final = 1
AMG_CONNECTED: Final = 2
AMG_REQUEST: Final = 3
AMG_DATA: Final = 4
AMG_DATAGRAM: Final = 5
AMG_EOF: Final = 6
AMG_SENT: Final = 7
AMG_TIMEOUT: Final = 8
AMG_FAILED: Final = 9
AMG_CLOSED: Final = 10
AMG_FRAME: Final = 11
AMG_FRAMES: Final = 12
AMG_PACKET: Final = 13
AMG_PACKETS: Final = 14

AMG_OP_SEND: Final = 1
AMG_OP_SENDTO: Final = 2
AMG_OP_FANOUT: Final = 3
AMG_OP_PAUSE: Final = 4
AMG_OP_RESUME: Final = 5
AMG_OP_ACCEPT: Final = 6
AMG_OP_DEADLINE: Final = 7
AMG_OP_SHUTDOWN: Final = 8
AMG_OP_CLOSE: Final = 9
AMG_OP_ABORT: Final = 10
AMG_OP_RELEASE: Final = 11
AMG_OP_WS: Final = 12
AMG_OP_SEND_FAR: Final = 13
AMG_OP_SEND_FILE: Final = 14
AMG_OP_MQTT: Final = 15

AMG_BROKEN: Final = 0xFFFFFFFF

AMG_STREAM: Final = 0
AMG_LISTENER: Final = 1
AMG_DATAGRAM_SOCKET: Final = 2
AMG_HTTP: Final = 256


@lru_cache(maxsize=64)
def http1_limits(limits: HttpLimits) -> bytes:
    """Pack the limits for the core, as ``amg_http1_limits``."""
    values = (
        limits.max_request_line,
        limits.max_field_line,
        limits.max_header_size,
        limits.max_fields,
        limits.max_chunk_line,
        limits.max_chunk_extensions,
        limits.max_trailer_size,
    )
    return HTTP1_LIMITS.pack(*(min(int(value), 0xFFFFFFFF) for value in values), 0)


@lru_cache(maxsize=64)
def ws_limits(limits: WsLimits) -> bytes:
    """Pack the limits for the core, as ``amg_ws_limits``."""
    sizes = (limits.max_frame or limits.max_message, limits.max_message)
    return WS_LIMITS.pack(*(min(int(size), 2**63 - 1) for size in sizes), min(int(limits.max_fragments), 2**32 - 1), 0)


@lru_cache(maxsize=64)
def mqtt_limits(limits: MqttLimits) -> bytes:
    """Pack the limits for the core, as ``amg_mqtt_limits``."""
    values = (
        limits.max_packet,
        limits.max_connect,
        limits.max_small,
        limits.max_topic_length,
        limits.max_topic_levels,
        limits.max_client_id,
        limits.max_user_properties,
    )
    return MQTT_LIMITS.pack(*(min(int(value), 0xFFFFFFFF) for value in values), 0)
