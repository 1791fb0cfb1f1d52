/* MQTT control packets (MQTT 3.1.1 and 5.0 chapters 2 and 3): each is held against all that the specification says of a
 * packet by itself, of its direction and of the order CONNECT, CONNACK, DISCONNECT. Contracts are in amg.h. Of several
 * faults of a packet the one is told that the portable codec tells: fields are looked at in the same order.
 * SPDX-License-Identifier: MIT
 */
#include "amg.h"

#include <string.h>

enum { /* types of control packets (section 2.1.2) */
    CONNECT = 1,
    CONNACK,
    PUBLISH,
    PUBACK,
    PUBREC,
    PUBREL,
    PUBCOMP,
    SUBSCRIBE,
    SUBACK,
    UNSUBSCRIBE,
    UNSUBACK,
    PINGREQ,
    PINGRESP,
    DISCONNECT,
    AUTH
};
enum { IN_WILL = 0, BY_CLIENT = 16 }; /* where else properties stand: the will of a CONNECT, the PUBLISH of a client */

/* states of amg_mqtt */
enum { EXPECTED /* CONNECT, CONNACK */, OPEN, OVER };

typedef struct { /* a packet that is being read, or properties in it */
    amg_mqtt *codec;
    const amg_mqtt_limits *limits;
    const uint8_t *data;
    size_t position, end;
    uint32_t error, value; /* AMG_MQTT_E_, and what amg_mqtt_record tells beside it */
} amg__packet;

typedef struct {
    size_t start, length;
} amg__field;

typedef struct { /* what a string is made of */
    size_t slashes;
    int has_wildcard;
} amg__text_facts;

typedef struct {
    size_t start, end; /* without their length */
    uint64_t seen;     /* a bit for each identifier */
    uint32_t expiry;   /* session expiry interval */
} amg__properties;

static int amg__refuse(amg__packet *packet, uint32_t error, size_t value) {
    packet->error = error;
    packet->value = (uint32_t)value;
    return 0;
}

/* -- data types (section 1.5) ---------------------------------------------------------------------------------------- */

/* These read at packet->position and move it on. They return 0 when they refuse what is there. */

static int amg__read_byte(amg__packet *packet, uint8_t *byte) {
    if (packet->position >= packet->end) return amg__refuse(packet, AMG_MQTT_E_TRUNCATED, 0);
    *byte = packet->data[packet->position++];
    return 1;
}

static int amg__read_uint16(amg__packet *packet, uint16_t *number) {
    const uint8_t *data = packet->data + packet->position;

    if (packet->end - packet->position < 2) return amg__refuse(packet, AMG_MQTT_E_TRUNCATED, 0);
    *number = (uint16_t)(data[0] << 8 | data[1]);
    packet->position += 2;
    return 1;
}

static int amg__read_variable(amg__packet *packet, uint32_t *number) {
    unsigned shift = 0;
    uint8_t byte;

    for (*number = 0;; shift += 7) {
        if (shift == 28) return amg__refuse(packet, AMG_MQTT_E_LONG_INTEGER, 0);
        if (!amg__read_byte(packet, &byte)) return 0;
        *number |= (uint32_t)(byte & 127u) << shift;
        if (byte < 128) break;
    }
    return shift && !byte ? amg__refuse(packet, AMG_MQTT_E_PADDED_INTEGER, 0) : 1;
}

static int amg__read_binary(amg__packet *packet, amg__field *field) {
    uint16_t length;

    if (!amg__read_uint16(packet, &length)) return 0;
    if (packet->end - packet->position < length) return amg__refuse(packet, AMG_MQTT_E_TRUNCATED, 0);
    field->start = packet->position;
    field->length = length;
    packet->position += length;
    return 1;
}

/* Hold a string against section 1.5.4. */
static int amg__check_text(amg__packet *packet, const amg__field *field, amg__text_facts *facts) {
    const uint8_t *data = packet->data + field->start, *end = data + field->length;
    uint8_t seen = 0;
    int has_nul = 0;

    facts->slashes = 0;
    facts->has_wildcard = 0;
    for (; data < end; data++) {
        seen |= *data;
        has_nul |= !*data;
        facts->slashes += *data == '/';
        facts->has_wildcard |= *data == '+' || *data == '#';
    }
    if (seen & 0x80 && amg_utf8(AMG_UTF8_ACCEPT, packet->data + field->start, field->length) != AMG_UTF8_ACCEPT)
        return amg__refuse(packet, AMG_MQTT_E_NOT_UTF8, 0);
    return has_nul ? amg__refuse(packet, AMG_MQTT_E_NUL_IN_STRING, 0) : 1;
}

static int amg__read_text(amg__packet *packet, amg__field *field, amg__text_facts *facts) {
    return amg__read_binary(packet, field) && amg__check_text(packet, field, facts);
}

/* -- properties (5.0 section 2.2.2) ---------------------------------------------------------------------------------- */

enum { NUMBER_8 = 1, NUMBER_16 = 2, NUMBER_32 = 4, VARIABLE, BLOB, TEXT, PAIR };
enum { /* identifiers of those that are looked at */
    RESPONSE_TOPIC = 8,
    SUBSCRIPTION_IDENTIFIER = 11,
    SESSION_EXPIRY = 17,
    METHOD = 21,
    METHOD_DATA = 22,
    TOPIC_ALIAS = 35,
    USER_PROPERTY = 38,
    PROPERTIES = 43
};

#define IN(packet) (1u << (packet))
#define IN_MESSAGE (IN(PUBLISH) | IN(BY_CLIENT) | IN(IN_WILL))
#define IN_BOTH (IN(CONNECT) | IN(CONNACK))
#define IN_REASONS \
    (IN(CONNACK) | IN(PUBACK) | IN(PUBREC) | IN(PUBREL) | IN(PUBCOMP) | IN(SUBACK) | IN(UNSUBACK) | IN(DISCONNECT) | IN(AUTH))

static const struct { /* by identifier; type 0: there is none */
    uint8_t type, least, most; /* of a number; most 0: as many as the type can tell */
    uint32_t packets;          /* where it may stand */
} amg__rules[PROPERTIES] = {
    [1] = {NUMBER_8, 0, 1, IN_MESSAGE}, /* payload format indicator */
    [2] = {NUMBER_32, 0, 0, IN_MESSAGE},
    [3] = {TEXT, 0, 0, IN_MESSAGE},
    [RESPONSE_TOPIC] = {TEXT, 0, 0, IN_MESSAGE},
    [9] = {BLOB, 0, 0, IN_MESSAGE}, /* correlation data */
    [SUBSCRIPTION_IDENTIFIER] = {VARIABLE, 1, 0, IN(PUBLISH) | IN(SUBSCRIBE)},
    [SESSION_EXPIRY] = {NUMBER_32, 0, 0, IN_BOTH | IN(DISCONNECT)},
    [18] = {TEXT, 0, 0, IN(CONNACK)}, /* assigned client identifier */
    [19] = {NUMBER_16, 0, 0, IN(CONNACK)},
    [METHOD] = {TEXT, 0, 0, IN_BOTH | IN(AUTH)},
    [METHOD_DATA] = {BLOB, 0, 0, IN_BOTH | IN(AUTH)},
    [23] = {NUMBER_8, 0, 1, IN(CONNECT)}, /* request problem information */
    [24] = {NUMBER_32, 0, 0, IN(IN_WILL)}, /* will delay interval */
    [25] = {NUMBER_8, 0, 1, IN(CONNECT)}, /* request response information */
    [26] = {TEXT, 0, 0, IN(CONNACK)},
    [28] = {TEXT, 0, 0, IN(CONNACK) | IN(DISCONNECT)}, /* server reference */
    [31] = {TEXT, 0, 0, IN_REASONS},
    [33] = {NUMBER_16, 1, 0, IN_BOTH}, /* receive maximum */
    [34] = {NUMBER_16, 0, 0, IN_BOTH},
    [TOPIC_ALIAS] = {NUMBER_16, 1, 0, IN(PUBLISH) | IN(BY_CLIENT)},
    [36] = {NUMBER_8, 0, 1, IN(CONNACK)}, /* maximum QoS */
    [37] = {NUMBER_8, 0, 1, IN(CONNACK)},
    [USER_PROPERTY] = {PAIR, 0, 0, IN_MESSAGE | IN_REASONS | IN(CONNECT) | IN(SUBSCRIBE) | IN(UNSUBSCRIBE)},
    [39] = {NUMBER_32, 1, 0, IN_BOTH}, /* maximum packet size */
    [40] = {NUMBER_8, 0, 1, IN(CONNACK)}, /* wildcards, identifiers and shared subscriptions are available */
    [41] = {NUMBER_8, 0, 1, IN(CONNACK)},
    [42] = {NUMBER_8, 0, 1, IN(CONNACK)},
};

/* Read the value of a property whose identifier is a known one. */
static int amg__read_value(amg__packet *packet, amg_mqtt_property *property) {
    uint32_t id = property->id, i;
    uint8_t type = amg__rules[id].type;
    amg__text_facts facts = {0, 0};
    amg__field field = {0, 0}, second = {0, 0};

    property->number = 0;
    if (type <= NUMBER_32) {
        if (packet->end - packet->position < type) return amg__refuse(packet, AMG_MQTT_E_TRUNCATED, 0);
        for (i = 0; i < type; i++) property->number = property->number << 8 | packet->data[packet->position++];
    } else if (type == VARIABLE) {
        if (!amg__read_variable(packet, &property->number)) return 0;
    } else if (type == BLOB) {
        if (!amg__read_binary(packet, &field)) return 0;
    } else {
        if (!amg__read_text(packet, &field, &facts)) return 0;
        if (id == RESPONSE_TOPIC && facts.has_wildcard)
            return amg__refuse(packet, AMG_MQTT_E_WILDCARD_IN_RESPONSE_TOPIC, 0);
        if (type == PAIR && !amg__read_text(packet, &second, &facts)) return 0;
    }
    property->offset = (uint32_t)field.start;
    property->length = (uint32_t)field.length;
    property->second = (uint32_t)second.start;
    property->second_length = (uint32_t)second.length;
    if (type > VARIABLE) return 1;
    if (property->number < amg__rules[id].least || (amg__rules[id].most && property->number > amg__rules[id].most))
        return amg__refuse(packet, AMG_MQTT_E_PROPERTY_RANGE, id);
    return 1;
}

/* May this property stand here, behind those that have been seen? */
static int amg__check_property(amg__packet *packet, unsigned kind, uint32_t id, uint64_t seen) {
    if (id >= PROPERTIES || !amg__rules[id].type) return amg__refuse(packet, AMG_MQTT_E_UNKNOWN_PROPERTY, 0);
    if (!(amg__rules[id].packets & IN(kind))) {
        int is_clients = id == SUBSCRIPTION_IDENTIFIER && kind == BY_CLIENT;
        return amg__refuse(packet, is_clients ? AMG_MQTT_E_IDENTIFIER_OF_CLIENT : AMG_MQTT_E_MISPLACED_PROPERTY, 0);
    }
    if (seen >> id & 1 && id != USER_PROPERTY && !(id == SUBSCRIPTION_IDENTIFIER && kind == PUBLISH))
        return amg__refuse(packet, AMG_MQTT_E_REPEATED_PROPERTY, 0);
    return 1;
}

/* Read a property length and the properties behind it. kind: type of the packet, IN_WILL or BY_CLIENT. */
static int amg__read_properties(amg__packet *packet, unsigned kind, amg__properties *found) {
    size_t end = packet->end;
    uint32_t length, users = 0;
    amg_mqtt_property property;

    found->seen = found->expiry = 0;
    if (!amg__read_variable(packet, &length)) return 0;
    if (length > end - packet->position) return amg__refuse(packet, AMG_MQTT_E_BAD_LENGTH, 0);
    found->start = packet->position;
    found->end = packet->end = packet->position + length;
    while (packet->position < packet->end) {
        property.id = packet->data[packet->position];
        if (!amg__check_property(packet, kind, property.id, found->seen)) return 0;
        packet->position++;
        if (!amg__read_value(packet, &property)) return 0;
        found->seen |= UINT64_C(1) << property.id;
        if (property.id == SESSION_EXPIRY) found->expiry = property.number;
        if (property.id == USER_PROPERTY && ++users > packet->limits->max_user_properties)
            return amg__refuse(packet, AMG_MQTT_E_USER_PROPERTIES, users);
    }
    packet->end = end;
    if (found->seen >> METHOD_DATA & 1 && !(found->seen >> METHOD & 1))
        return amg__refuse(packet, AMG_MQTT_E_DATA_WITHOUT_METHOD, 0);
    return 1;
}

/* The same of a packet that has none in 3.1.1; they are told in its record. */
static int amg__take_properties(amg__packet *packet, unsigned kind, amg__properties *found, amg_mqtt_record *record) {
    found->seen = found->expiry = 0;
    found->start = found->end = packet->position;
    if (packet->codec->version == 5 && !amg__read_properties(packet, kind, found)) return 0;
    record->properties = (uint32_t)found->start;
    record->payload = (uint32_t)found->end;
    return 1;
}

/* -- topics (section 4.7) -------------------------------------------------------------------------------------------- */

static int amg__check_topic_size(amg__packet *packet, size_t length, size_t slashes, int is_filter) {
    if (length > packet->limits->max_topic_length)
        return amg__refuse(packet, is_filter ? AMG_MQTT_E_FILTER_LENGTH : AMG_MQTT_E_TOPIC_LENGTH, length);
    if (slashes + 1 > packet->limits->max_topic_levels)
        return amg__refuse(packet, is_filter ? AMG_MQTT_E_FILTER_LEVELS : AMG_MQTT_E_TOPIC_LEVELS, slashes + 1);
    return 1;
}

static int amg__is_shared(const uint8_t *filter, size_t n) { return n >= 7 && memcmp(filter, "$share/", 7) == 0; }

/* Hold a topic filter that is a string against sections 4.7 and 4.8.2; AMG_MQTT_E_ or 0. */
static uint32_t amg__check_filter(const uint8_t *filter, size_t n, unsigned version) {
    const uint8_t *end = filter + n, *level;
    int has_hash, has_plus;

    if (version == 5 && amg__is_shared(filter, n)) {
        for (level = filter += 7; filter < end && *filter != '/'; filter++)
            if (*filter == '+' || *filter == '#') return AMG_MQTT_E_BAD_SHARE_NAME;
        if (filter == level) return AMG_MQTT_E_BAD_SHARE_NAME;
        if (end - filter < 2) return AMG_MQTT_E_SHARE_WITHOUT_FILTER;
        filter++;
    }
    if (filter == end) return AMG_MQTT_E_EMPTY_FILTER;
    for (;; filter++) {
        has_hash = has_plus = 0;
        for (level = filter; filter < end && *filter != '/'; filter++) {
            has_hash |= *filter == '#';
            has_plus |= *filter == '+';
        }
        if (has_hash && (filter - level != 1 || filter != end)) return AMG_MQTT_E_MISPLACED_HASH;
        if (has_plus && filter - level != 1) return AMG_MQTT_E_MISPLACED_PLUS;
        if (filter == end) return 0;
    }
}

/* -- PUBLISH and its acknowledgements (sections 3.3 to 3.7) ---------------------------------------------------------- */

static int amg__read_publish(amg__packet *packet, amg_mqtt_record *record) {
    int is_server = packet->codec->role == AMG_SERVER;
    amg__properties found;
    amg__text_facts facts;
    amg__field topic;

    if (!amg__read_text(packet, &topic, &facts)) return 0;
    if (facts.has_wildcard) return amg__refuse(packet, AMG_MQTT_E_WILDCARD_PUBLISHED, 0);
    if (!amg__check_topic_size(packet, topic.length, facts.slashes, 0)) return 0;
    record->begin = (uint32_t)topic.start;
    record->topic_end = (uint32_t)packet->position;
    if (record->first & 6) {
        if (!amg__read_uint16(packet, &record->packet_id)) return 0;
        if (!record->packet_id)
            return amg__refuse(packet, is_server ? AMG_MQTT_E_ZERO_PACKET_ID : AMG_MQTT_E_ZERO_PACKET_ID_OF_SERVER, 0);
    }
    if (!amg__take_properties(packet, is_server ? BY_CLIENT : PUBLISH, &found, record)) return 0;
    if (!topic.length && !(found.seen >> TOPIC_ALIAS & 1))
        return amg__refuse(packet, AMG_MQTT_E_NOTHING_PUBLISHED_TO, 0);
    packet->position = packet->end; /* the rest is the payload */
    return 1;
}

#define IS_ONE_OF(byte, codes) (memchr(codes, byte, sizeof codes) != NULL)

/* Hold a reason code against section 2.4 and those of the packets; of DISCONNECT and AUTH: against who sends it. */
static int amg__check_reason(amg__packet *packet, unsigned kind, uint8_t code) {
    static const uint8_t connack[] = {0,    0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89,
                                      0x8a, 0x8c, 0x90, 0x95, 0x97, 0x99, 0x9a, 0x9b, 0x9c, 0x9d, 0x9f};
    static const uint8_t published[] = {0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99}, released[] = {0, 0x92};
    static const uint8_t suback[] = {0, 1, 2, 0x80, 0x83, 0x87, 0x8f, 0x91, 0x97, 0x9e, 0xa1, 0xa2};
    static const uint8_t unsuback[] = {0, 0x11, 0x80, 0x83, 0x87, 0x8f, 0x91}, suback_v4[] = {0, 1, 2, 0x80};
    static const uint8_t by_both[] = {0, 0x80, 0x81, 0x82, 0x83, 0x90}, by_server[] = {0x87, 0x89, 0x8b, 0x8c, 0x8d, 0x8e, 0x8f};
    int is_v5 = packet->codec->version == 5, is_server = packet->codec->role == AMG_SERVER, is_known;

    if (kind == CONNACK) is_known = is_v5 ? IS_ONE_OF(code, connack) : code < 6;
    else if (kind == PUBACK || kind == PUBREC) is_known = IS_ONE_OF(code, published);
    else if (kind == PUBREL || kind == PUBCOMP) is_known = IS_ONE_OF(code, released);
    else if (kind == SUBACK) is_known = is_v5 ? IS_ONE_OF(code, suback) : IS_ONE_OF(code, suback_v4);
    else if (kind == UNSUBACK) is_known = IS_ONE_OF(code, unsuback);
    else if (kind == AUTH) is_known = code == 0x18 || code == (is_server ? 0x19 : 0);
    else if (is_server) is_known = IS_ONE_OF(code, by_both) || code == 4 || (code >= 0x93 && code <= 0x99);
    else is_known = IS_ONE_OF(code, by_both) || IS_ONE_OF(code, by_server) || (code >= 0x93 && code <= 0xa2);
    return is_known ? 1 : amg__refuse(packet, AMG_MQTT_E_BAD_REASON_CODE, kind);
}

/* A reason code of 0 and a property length of 0 may be left out in 5.0. */
static int amg__read_ack(amg__packet *packet, amg_mqtt_record *record) {
    unsigned kind = record->first >> 4;
    amg__properties found;

    if (!amg__read_uint16(packet, &record->packet_id)) return 0;
    if (!record->packet_id) return amg__refuse(packet, AMG_MQTT_E_ZERO_ACK_ID, 0);
    if (packet->position == packet->end || packet->codec->version == 4) return 1;
    (void)amg__read_byte(packet, &record->reason);
    if (!amg__check_reason(packet, kind, record->reason)) return 0;
    return packet->position == packet->end || amg__take_properties(packet, kind, &found, record);
}

/* -- subscriptions (sections 3.8 to 3.11) ---------------------------------------------------------------------------- */

/* Hold subscription options against section 3.8.3.1. */
static int amg__check_options(amg__packet *packet, const amg__field *filter, uint8_t options) {
    if (packet->codec->version == 4) return options > 2 ? amg__refuse(packet, AMG_MQTT_E_RESERVED_OPTIONS, 0) : 1;
    if (options & 0xc0) return amg__refuse(packet, AMG_MQTT_E_RESERVED_OPTIONS, 0);
    if ((options & 3) == 3) return amg__refuse(packet, AMG_MQTT_E_OPTIONS_QOS_3, 0);
    if ((options & 0x30) == 0x30) return amg__refuse(packet, AMG_MQTT_E_RETAIN_HANDLING_3, 0);
    if (options & 4 && amg__is_shared(packet->data + filter->start, filter->length))
        return amg__refuse(packet, AMG_MQTT_E_SHARED_NO_LOCAL, 0);
    return 1;
}

static int amg__read_filter(amg__packet *packet, int has_options) {
    amg__text_facts facts;
    amg__field filter;
    uint32_t error;
    uint8_t options;

    if (!amg__read_text(packet, &filter, &facts)) return 0;
    error = amg__check_filter(packet->data + filter.start, filter.length, packet->codec->version);
    if (error) return amg__refuse(packet, error, 0);
    if (!amg__check_topic_size(packet, filter.length, facts.slashes, 1)) return 0;
    return !has_options || (amg__read_byte(packet, &options) && amg__check_options(packet, &filter, options));
}

static int amg__read_subscription(amg__packet *packet, amg_mqtt_record *record) {
    int has_options = record->first >> 4 == SUBSCRIBE;
    amg__properties found;

    if (!amg__read_uint16(packet, &record->packet_id)) return 0;
    if (!record->packet_id) return amg__refuse(packet, AMG_MQTT_E_ZERO_PACKET_ID, 0);
    if (!amg__take_properties(packet, record->first >> 4, &found, record)) return 0;
    if (packet->position == packet->end)
        return amg__refuse(packet, has_options ? AMG_MQTT_E_NO_FILTER : AMG_MQTT_E_NO_FILTER_TO_LEAVE, 0);
    while (packet->position < packet->end)
        if (!amg__read_filter(packet, has_options)) return 0;
    return 1;
}

static int amg__read_suback(amg__packet *packet, amg_mqtt_record *record) {
    unsigned kind = record->first >> 4;
    amg__properties found;

    if (!amg__read_uint16(packet, &record->packet_id)) return 0;
    if (!record->packet_id) return amg__refuse(packet, AMG_MQTT_E_ZERO_SUBACK_ID, 0);
    if (!amg__take_properties(packet, kind, &found, record)) return 0;
    if (kind == UNSUBACK && packet->codec->version == 4) return 1;
    if (packet->position == packet->end)
        return amg__refuse(packet, kind == SUBACK ? AMG_MQTT_E_NO_SUBACK_CODE : AMG_MQTT_E_NO_UNSUBACK_CODE, 0);
    for (; packet->position < packet->end; packet->position++)
        if (!amg__check_reason(packet, kind, packet->data[packet->position])) return 0;
    return 1;
}

/* -- the beginning and the end of a connection ----------------------------------------------------------------------- */

/* Hold the connect flags (section 3.1.2) against each other; AMG_MQTT_E_ or 0. */
static uint32_t amg__check_connect_flags(uint8_t flags, unsigned version) {
    if (flags & 1) return AMG_MQTT_E_CONNECT_FLAG_RESERVED;
    if ((flags & 0x18) == 0x18) return AMG_MQTT_E_WILL_QOS_3;
    if (!(flags & 4) && flags & 0x18) return AMG_MQTT_E_WILL_QOS_WITHOUT_WILL;
    if (!(flags & 4) && flags & 0x20) return AMG_MQTT_E_WILL_RETAIN_WITHOUT_WILL;
    return version == 4 && (flags & 0xc0) == 0x40 ? (uint32_t)AMG_MQTT_E_PASSWORD_WITHOUT_USER : 0;
}

static int amg__read_will(amg__packet *packet) {
    amg__properties found;
    amg__text_facts facts;
    amg__field field;

    if (packet->codec->version == 5 && !amg__read_properties(packet, IN_WILL, &found)) return 0;
    if (!amg__read_text(packet, &field, &facts)) return 0;
    if (!field.length) return amg__refuse(packet, AMG_MQTT_E_EMPTY_TOPIC, 0);
    if (facts.has_wildcard) return amg__refuse(packet, AMG_MQTT_E_WILDCARD_IN_TOPIC, 0);
    return amg__check_topic_size(packet, field.length, facts.slashes, 0) && amg__read_binary(packet, &field);
}

static int amg__read_connect(amg__packet *packet, amg_mqtt_record *record) {
    amg_mqtt *codec = packet->codec;
    amg__properties found;
    amg__text_facts facts;
    amg__field field;
    uint32_t error;
    uint8_t level, flags;

    if (!amg__read_binary(packet, &field)) return 0;
    if (field.length != 4 || memcmp(packet->data + field.start, "MQTT", 4) != 0)
        return amg__refuse(packet, AMG_MQTT_E_BAD_PROTOCOL_NAME, 0);
    if (packet->end - packet->position < 4) return amg__refuse(packet, AMG_MQTT_E_TRUNCATED, 0);
    level = packet->data[packet->position];
    flags = packet->data[packet->position + 1];
    packet->position += 4;
    if (level != 4 && level != 5) return amg__refuse(packet, AMG_MQTT_E_BAD_PROTOCOL_LEVEL, 0);
    codec->version = level;
    error = amg__check_connect_flags(flags, level);
    if (error) return amg__refuse(packet, error, 0);
    if (!amg__take_properties(packet, CONNECT, &found, record)) return 0;
    codec->keeps_session = found.expiry != 0;
    if (!amg__read_binary(packet, &field)) return 0;
    if (field.length > packet->limits->max_client_id)
        return amg__refuse(packet, AMG_MQTT_E_CLIENT_ID_LENGTH, field.length);
    if (!amg__check_text(packet, &field, &facts)) return 0;
    if (!field.length && level == 4 && !(flags & 2)) return amg__refuse(packet, AMG_MQTT_E_NO_CLIENT_ID, 0);
    if (flags & 4 && !amg__read_will(packet)) return 0;
    if (flags & 0x80 && !amg__read_text(packet, &field, &facts)) return 0;
    return !(flags & 0x40) || amg__read_binary(packet, &field);
}

/* Servers that know 3.1.1 alone refuse a CONNECT of 5.0 by return code 1 and no properties. */
static int amg__read_connack(amg__packet *packet, amg_mqtt_record *record) {
    amg__properties found;
    uint8_t flags = 0;

    if (packet->end - packet->position < 2) return amg__refuse(packet, AMG_MQTT_E_TRUNCATED, 0);
    (void)amg__read_byte(packet, &flags);
    (void)amg__read_byte(packet, &record->reason);
    if (flags & 0xfe) return amg__refuse(packet, AMG_MQTT_E_CONNACK_FLAGS, 0);
    if (packet->codec->version == 5 && record->reason == 1 && packet->position == packet->end) {
        record->reason = 0x84; /* unsupported protocol version */
    } else {
        if (!amg__check_reason(packet, CONNACK, record->reason)) return 0;
        if (!amg__take_properties(packet, CONNACK, &found, record)) return 0;
    }
    if (packet->position != packet->end) return amg__refuse(packet, AMG_MQTT_E_TRAILING_BYTES, 0);
    return flags && record->reason ? amg__refuse(packet, AMG_MQTT_E_SESSION_OF_REFUSED, 0) : 1;
}

/* DISCONNECT and AUTH (sections 3.14 and 3.15): all may be left out when the reason code is 0. */
static int amg__read_farewell(amg__packet *packet, amg_mqtt_record *record) {
    int is_server = packet->codec->role == AMG_SERVER, is_empty = packet->position == packet->end;
    unsigned kind = record->first >> 4;
    amg__properties found = {0, 0, 0, 0};

    if (packet->codec->version == 5 && !is_empty) {
        (void)amg__read_byte(packet, &record->reason);
        if (!amg__check_reason(packet, kind, record->reason)) return 0;
        if ((packet->position < packet->end || kind == AUTH) && !amg__take_properties(packet, kind, &found, record))
            return 0;
    } else if (kind == AUTH && is_server) {
        return amg__refuse(packet, AMG_MQTT_E_BAD_REASON_CODE, kind); /* a client has no success to tell */
    }
    if (packet->position != packet->end) return amg__refuse(packet, AMG_MQTT_E_TRAILING_BYTES, 0);
    if (kind == AUTH) {
        if (!is_empty && !(found.seen >> METHOD & 1)) return amg__refuse(packet, AMG_MQTT_E_AUTH_WITHOUT_METHOD, 0);
        return 1;
    }
    if (!(found.seen >> SESSION_EXPIRY & 1)) return 1;
    if (!is_server) return amg__refuse(packet, AMG_MQTT_E_SERVER_EXPIRES_SESSION, 0);
    if (found.expiry && !packet->codec->keeps_session) return amg__refuse(packet, AMG_MQTT_E_EXPIRY_AFTER_ZERO, 0);
    return 1;
}

/* -- fixed headers (section 2.1) ------------------------------------------------------------------------------------- */

/* Tell whether this type of packet may come now; AMG_MQTT_E_ or 0. */
static uint32_t amg__check_order(const amg_mqtt *codec, unsigned kind) {
    uint32_t expected = IN(PUBLISH) | IN(PUBACK) | IN(PUBREC) | IN(PUBREL) | IN(PUBCOMP);
    int is_server = codec->role == AMG_SERVER;

    if (codec->state == EXPECTED) {
        if (is_server) return kind == CONNECT ? 0 : (uint32_t)AMG_MQTT_E_NOT_CONNECT_FIRST;
        if (kind == DISCONNECT) return AMG_MQTT_E_EARLY_DISCONNECT;
        return kind == CONNACK || (kind == AUTH && codec->version == 5) ? 0 : (uint32_t)AMG_MQTT_E_NOT_CONNACK_FIRST;
    }
    if (kind == 0 || (kind == AUTH && codec->version == 4)) return AMG_MQTT_E_RESERVED_TYPE;
    if (kind == CONNECT && is_server) return AMG_MQTT_E_SECOND_CONNECT;
    if (kind == CONNACK && !is_server) return AMG_MQTT_E_SECOND_CONNACK;
    if (is_server) expected |= IN(SUBSCRIBE) | IN(UNSUBSCRIBE) | IN(PINGREQ) | IN(DISCONNECT);
    else expected |= IN(SUBACK) | IN(UNSUBACK) | IN(PINGRESP);
    if (codec->version == 5) expected |= IN(DISCONNECT) | IN(AUTH);
    return expected & IN(kind) ? 0 : (uint32_t)AMG_MQTT_E_WRONG_DIRECTION;
}

/* Hold the first byte of a packet against what may come now; AMG_MQTT_E_ or 0. */
static uint32_t amg__check_first(const amg_mqtt *codec, uint8_t first) {
    unsigned kind = first >> 4, flags = first & 15u;
    uint32_t error = amg__check_order(codec, kind);

    if (error) return error;
    if (kind == PUBLISH) {
        if ((flags & 6) == 6) return AMG_MQTT_E_QOS_3;
        return (flags & 14) == 8 ? (uint32_t)AMG_MQTT_E_DUP_OF_QOS_0 : 0;
    }
    if (flags == (kind == PUBREL || kind == SUBSCRIBE || kind == UNSUBSCRIBE ? 2 : 0)) return 0;
    switch (kind) {
    case PUBREL: return AMG_MQTT_E_PUBREL_FLAGS;
    case SUBSCRIBE: return AMG_MQTT_E_SUBSCRIBE_FLAGS;
    case UNSUBSCRIBE: return AMG_MQTT_E_UNSUBSCRIBE_FLAGS;
    case DISCONNECT: return AMG_MQTT_E_DISCONNECT_FLAGS;
    case AUTH: return AMG_MQTT_E_AUTH_FLAGS;
    default: return AMG_MQTT_E_BAD_FLAGS;
    }
}

static uint32_t amg__size_limit(const amg_mqtt_limits *limits, unsigned kind) {
    if (kind == PUBLISH) return limits->max_packet;
    return kind == CONNECT || kind == SUBSCRIBE || kind == UNSUBSCRIBE ? limits->max_connect : limits->max_small;
}

/* Read the fixed header at packet->position, of which there is at least a byte; packet->end is that of all that is there.
 * Afterwards packet->end is that of the packet, even if that has not come yet.
 *
 * The remaining length need not be in its shortest form in 3.1.1. In 5.0 [MQTT-1.5.5-1] asks that of senders: those that
 * leave four bytes for it, to be filled in later, are read all the same.
 *
 * return    0: refused; 1: the packet is there; 2: it is incomplete, and *whole is its size or, unknown yet, 0 */
static int amg__read_header(amg__packet *packet, size_t *whole) {
    size_t start = packet->position, end = packet->end, i = start + 1;
    uint8_t first = packet->data[start];
    unsigned kind = first >> 4;
    uint32_t error = amg__check_first(packet->codec, first), length = 0;

    if (error) return amg__refuse(packet, error, 0);
    *whole = 0;
    do {
        if (i == end) return 2;
        length |= (uint32_t)(packet->data[i] & 127u) << 7 * (i - start - 1);
        if (packet->data[i++] < 128) break;
        if (i - start == 5) return amg__refuse(packet, AMG_MQTT_E_LONG_INTEGER, 0);
    } while (1);
    *whole = i - start + length;
    if (*whole > amg__size_limit(packet->limits, kind))
        return amg__refuse(packet,
                           kind == PUBLISH ? AMG_MQTT_E_PACKET_SIZE
                           : kind == CONNECT || kind == SUBSCRIBE || kind == UNSUBSCRIBE ? AMG_MQTT_E_CONNECT_SIZE
                                                                                         : AMG_MQTT_E_SMALL_SIZE,
                           *whole);
    if (*whole > end - start) return 2;
    packet->position = i;
    packet->end = start + *whole;
    return 1;
}

/* Read the packet behind its fixed header. */
static int amg__read_body(amg__packet *packet, amg_mqtt_record *record) {
    unsigned kind = record->first >> 4;
    int is_read = 1;

    record->reason = 0;
    record->packet_id = 0;
    record->begin = record->topic_end = (uint32_t)packet->position;
    record->end = record->properties = record->payload = (uint32_t)packet->end;
    switch (kind) {
    case PUBLISH: return amg__read_publish(packet, record);
    case PUBACK:
    case PUBREC:
    case PUBREL:
    case PUBCOMP: is_read = amg__read_ack(packet, record); break;
    case SUBSCRIBE:
    case UNSUBSCRIBE: is_read = amg__read_subscription(packet, record); break;
    case SUBACK:
    case UNSUBACK: is_read = amg__read_suback(packet, record); break;
    case CONNECT: is_read = amg__read_connect(packet, record); break;
    case CONNACK: is_read = amg__read_connack(packet, record); break;
    case DISCONNECT:
    case AUTH: is_read = amg__read_farewell(packet, record); break;
    default: break; /* PINGREQ and PINGRESP are empty */
    }
    if (!is_read) return 0;
    if (packet->position != packet->end) return amg__refuse(packet, AMG_MQTT_E_TRAILING_BYTES, 0);
    if (kind == CONNECT || kind == CONNACK) packet->codec->state = OPEN;
    if (kind == DISCONNECT) packet->codec->state = OVER;
    return 1;
}

/* -- the API --------------------------------------------------------------------------------------------------------- */

void amg_mqtt_init(amg_mqtt *codec, uint8_t role, uint8_t version) {
    memset(codec, 0, sizeof *codec);
    codec->role = role;
    codec->version = role == AMG_SERVER ? 0 : version;
}

/* Whether both are PUBLISH packets to the same topic: many a caller has a cheaper way then than to look it up again. */
static int amg__is_same_topic(const uint8_t *data, const amg_mqtt_record *record, const amg_mqtt_record *before) {
    uint32_t length = record->topic_end - record->begin;

    return before && record->first >> 4 == PUBLISH && before->first >> 4 == PUBLISH &&
           before->topic_end - before->begin == length && memcmp(data + record->begin, data + before->begin, length) == 0;
}

size_t amg_mqtt_read(amg_mqtt *codec, const amg_mqtt_limits *limits, const uint8_t *data, size_t n, size_t *position,
                     amg_mqtt_record *records, size_t max, size_t *whole) {
    size_t count = 0, start = *position;
    const amg_mqtt_record *before = NULL; /* of this call */
    amg__packet packet;

    packet.codec = codec;
    packet.limits = limits;
    packet.data = data;
    *whole = 0;
    while (start < n && count < max && codec->state != OVER) {
        amg_mqtt_record *record = &records[count];
        int there;
        packet.position = start;
        packet.end = n;
        record->first = data[start];
        there = amg__read_header(&packet, whole);
        if (there == 2) break;
        *whole = 0;
        count++;
        if (there && amg__read_body(&packet, record)) {
            if (amg__is_same_topic(data, record, before)) record->reason = AMG_MQTT_SAME_TOPIC;
            before = record;
        } else {
            memset(record, 0, sizeof *record);
            record->packet_id = (uint16_t)packet.error;
            record->begin = packet.value;
            codec->state = OVER;
        }
        start = packet.end;
    }
    *position = codec->state == OVER ? n : start;
    return count;
}

static int amg__are_acks(const amg_mqtt_record *record, size_t count) {
    const amg_mqtt_record *end = record + count;

    for (; record < end; record++) {
        unsigned kind = record->first >> 4;
        if (kind < PUBACK || kind > PUBCOMP || record->reason || record->properties != record->end) return 0;
    }
    return count > 1;
}

size_t amg_mqtt_read_call(amg_mqtt_call *call, const uint8_t *data, uint32_t n) {
    amg_mqtt *codec = (amg_mqtt *)(uintptr_t)call->codec;
    amg_mqtt_record *records = (amg_mqtt_record *)(uintptr_t)call->records;
    size_t position = (size_t)call->position, whole, count;
    uint8_t state = codec->state;

    count = amg_mqtt_read(codec, (const amg_mqtt_limits *)(uintptr_t)call->limits, data, n, &position, records,
                          (size_t)call->max, &whole);
    call->whole = whole;
    call->position = position;
    if (position != n || codec->state != state) return count | AMG_MQTT_UNSETTLED;
    call->position = 0;
    return amg__are_acks(records, count) ? count | AMG_MQTT_ACKS : count;
}

/* -- fields of packets that have been read --------------------------------------------------------------------------- */

int amg_mqtt_next_property(const uint8_t *data, uint32_t *position, uint32_t end, amg_mqtt_property *property) {
    amg__packet packet = {NULL, NULL, data, *position, end, 0, 0};
    uint8_t id;

    if (!amg__read_byte(&packet, &id) || id >= PROPERTIES || !amg__rules[id].type) return 0;
    property->id = id;
    if (!amg__read_value(&packet, property)) return 0;
    *position = (uint32_t)packet.position;
    return 1;
}

int amg_mqtt_next_filter(const uint8_t *data, const amg_mqtt_record *record, uint32_t *position,
                         amg_mqtt_filter *filter) {
    amg__packet packet = {NULL, NULL, data, *position, record->end, 0, 0};
    uint8_t options = 0;
    amg__field field;

    if (!amg__read_binary(&packet, &field)) return 0;
    if (record->first >> 4 == SUBSCRIBE && !amg__read_byte(&packet, &options)) return 0;
    filter->offset = (uint32_t)field.start;
    filter->length = (uint32_t)field.length;
    filter->options = options;
    *position = (uint32_t)packet.position;
    return 1;
}

static int amg__tell_field(amg__packet *packet, uint32_t *offset, uint32_t *length) {
    amg__field field;

    if (!amg__read_binary(packet, &field)) return 0;
    *offset = (uint32_t)field.start;
    *length = (uint32_t)field.length;
    return 1;
}

int amg_mqtt_connect_fields(const uint8_t *data, const amg_mqtt_record *record, amg_mqtt_connect *connect) {
    amg__packet packet = {NULL, NULL, data, record->payload, record->end, 0, 0};
    const uint8_t *fixed = data + record->begin + 6; /* behind the protocol name */
    uint32_t length;

    memset(connect, 0, sizeof *connect);
    if (record->first >> 4 != CONNECT) return 0;
    connect->version = fixed[0];
    connect->flags = fixed[1];
    connect->keep_alive = (uint16_t)(fixed[2] << 8 | fixed[3]);
    if (!amg__tell_field(&packet, &connect->client_id, &connect->client_id_length)) return 0;
    if (connect->flags & 4) {
        if (connect->version == 5) {
            if (!amg__read_variable(&packet, &length) || length > packet.end - packet.position) return 0;
            connect->will_properties = (uint32_t)packet.position;
            packet.position += length;
            connect->will_properties_end = (uint32_t)packet.position;
        }
        if (!amg__tell_field(&packet, &connect->will_topic, &connect->will_topic_length)) return 0;
        if (!amg__tell_field(&packet, &connect->will_payload, &connect->will_payload_length)) return 0;
    }
    if (connect->flags & 0x80 && !amg__tell_field(&packet, &connect->username, &connect->username_length)) return 0;
    return !(connect->flags & 0x40) || amg__tell_field(&packet, &connect->password, &connect->password_length);
}
