/* A libFuzzer target for amg_mqtt.c, which holds its laws without an oracle:
 *
 * - places lie inside the packet, in order; bodies follow each other; strings are UTF-8 without NUL;
 * - what is incomplete is told with its size as soon as that is known, and is within the limits;
 * - packets are the same wherever the input is cut, with room for one record only, and through amg_mqtt_read_call(),
 *   which tells truly whether all is done with;
 * - properties, topic filters and the fields of a CONNECT can be stepped through, up to their very end;
 * - a call without data says nothing and changes nothing;
 * - an error and a DISCONNECT are final.
 *
 * Two bytes of the input choose role, version, limits and where to cut. Buffers have their exact size on the heap.
 *
 *     clang -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -Iasyncmg/core \
 *         tests/fuzz/fuzz_mqtt_core.c asyncmg/core/amg_mqtt.c asyncmg/core/amg_util.c -o /tmp/fuzz_mqtt && /tmp/fuzz_mqtt corpus
 */
#include "amg.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LAW(condition)                                                          \
    do {                                                                        \
        if (!(condition)) {                                                     \
            fprintf(stderr, "law broken, line %d: %s\n", __LINE__, #condition); \
            abort();                                                            \
        }                                                                       \
    } while (0)

enum { MAX_RECORDS = 16, MAX_CUTS = 40 };
enum { CONNECT = 1, PUBLISH = 3, SUBSCRIBE = 8, UNSUBSCRIBE = 10, DISCONNECT = 14 };

static const amg_mqtt_limits usual = {1 << 20, 100000, 10000, 1024, 128, 256, 100, 0};
static const amg_mqtt_limits tight = {60, 80, 20, 9, 3, 5, 1, 0};
static const amg_mqtt_limits wide = {UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX, 0};

typedef struct {
    const amg_mqtt_limits *limits;
    uint8_t role, version;
    int through_call;
    size_t room;
} how;

typedef struct { /* what a run has seen */
    uint64_t hash;
    unsigned packets, error, is_over;
    uint32_t value;  /* of the error */
    size_t kept;     /* of an incomplete packet */
    size_t whole;    /* its size */
    uint8_t version;
} trace;

static void mix(trace *seen, const uint8_t *data, size_t n) {
    size_t i;

    for (i = 0; i < n; i++) seen->hash = (seen->hash ^ data[i]) * UINT64_C(0x100000001b3);
    seen->hash = (seen->hash ^ n) * UINT64_C(0x100000001b3) + 1;
}

static void check_text(const uint8_t *data, size_t n) {
    LAW(amg_utf8(AMG_UTF8_ACCEPT, data, n) == AMG_UTF8_ACCEPT);
    LAW(memchr(data, 0, n) == NULL);
}

static void check_properties(trace *seen, const uint8_t *data, uint32_t from, uint32_t to) {
    amg_mqtt_property property;
    uint32_t position = from, before = from;

    while (amg_mqtt_next_property(data, &position, to, &property)) {
        LAW(position > before && position <= to);
        LAW(property.id == data[before] && property.id < 43);
        LAW(property.offset + property.length <= position && property.second + property.second_length <= position);
        if (property.second) {
            check_text(data + property.offset, property.length);
            check_text(data + property.second, property.second_length);
        }
        mix(seen, (const uint8_t *)&property.number, sizeof property.number);
        before = position;
    }
    LAW(position == to);
    LAW(!amg_mqtt_next_property(data, &position, to, &property) && position == to);
}

static void check_connect(trace *seen, const uint8_t *data, const amg_mqtt_record *record) {
    amg_mqtt_connect connect;

    LAW(amg_mqtt_connect_fields(data, record, &connect));
    LAW(connect.version == 4 || connect.version == 5);
    LAW(connect.client_id >= record->payload && connect.client_id + connect.client_id_length <= record->end);
    check_text(data + connect.client_id, connect.client_id_length);
    LAW(connect.will_properties <= connect.will_properties_end && connect.will_properties_end <= record->end);
    check_properties(seen, data, connect.will_properties, connect.will_properties_end);
    LAW((connect.will_topic_length != 0) == ((connect.flags & 4) != 0));
    check_text(data + connect.will_topic, connect.will_topic_length);
    LAW(connect.will_payload + connect.will_payload_length <= record->end);
    check_text(data + connect.username, connect.username_length);
    LAW(connect.username + connect.username_length <= record->end);
    if (connect.flags & 0x40) LAW(connect.password + connect.password_length == record->end);
}

static void check_record(trace *seen, const how *way, const uint8_t *data, size_t n, const amg_mqtt_record *record) {
    unsigned kind = record->first >> 4;
    amg_mqtt_connect connect;
    amg_mqtt_filter filter;
    uint32_t position = record->payload, count = 0;

    LAW(record->begin <= record->topic_end && record->topic_end <= record->properties);
    LAW(record->properties <= record->payload && record->payload <= record->end && record->end <= n);
    check_properties(seen, data, record->properties, record->payload);
    if (kind == PUBLISH) {
        check_text(data + record->begin, record->topic_end - record->begin);
        LAW(record->topic_end - record->begin <= way->limits->max_topic_length);
        LAW((record->packet_id != 0) == ((record->first & 6) != 0));
        LAW(record->end - record->begin + 2 <= way->limits->max_packet);
    }
    if (kind == SUBSCRIBE || kind == UNSUBSCRIBE) {
        while (amg_mqtt_next_filter(data, record, &position, &filter)) {
            LAW(filter.length > 0 && filter.offset + filter.length <= position && position <= record->end);
            LAW(filter.options <= 0x2e);
            check_text(data + filter.offset, filter.length);
            count++;
        }
        LAW(count > 0 && position == record->end);
    }
    if (kind == CONNECT) check_connect(seen, data, record);
    else LAW(!amg_mqtt_connect_fields(data, record, &connect));
    mix(seen, &record->first, 1);
    mix(seen, &record->reason, kind != PUBLISH); /* of a PUBLISH it depends on the cuts */
    mix(seen, (const uint8_t *)&record->packet_id, sizeof record->packet_id);
    mix(seen, data + record->begin, record->end - record->begin);
    mix(seen, data + record->properties, record->payload - record->properties);
    seen->packets++;
    seen->is_over = kind == DISCONNECT;
}

/* Feed what is kept and a piece behind it; return how much of it is done with. */
static size_t feed(trace *seen, const how *way, amg_mqtt *codec, const uint8_t *data, size_t n) {
    amg_mqtt_record records[MAX_RECORDS];
    size_t position = 0, whole = 0, count, i;
    amg_mqtt_call call;

    call.codec = (uintptr_t)codec;
    call.limits = (uintptr_t)way->limits;
    call.records = (uintptr_t)records;
    call.max = way->room;
    call.position = 0;
    do {
        uint32_t acks = 0;
        if (way->through_call) {
            amg_mqtt old = *codec;
            count = amg_mqtt_read_call(&call, data, (uint32_t)n);
            acks = count & AMG_MQTT_ACKS;
            position = (size_t)call.position;
            whole = (size_t)call.whole;
            if (!(count & AMG_MQTT_UNSETTLED)) {
                LAW(position == 0 && whole == 0 && memcmp(&old, codec, sizeof old) == 0);
                position = n;
            } else {
                LAW(position < n || memcmp(&old, codec, sizeof old) != 0);
            }
            count &= AMG_MQTT_ACKS - 1;
        } else {
            count = amg_mqtt_read(codec, way->limits, data, n, &position, records, way->room, &whole);
        }
        LAW(count <= way->room && position <= n);
        for (i = 0; i < count; i++) {
            LAW(!seen->error && !seen->is_over);
            if (records[i].first) {
                check_record(seen, way, data, n, &records[i]);
                if (acks) LAW(records[i].first >> 4 >= 4 && records[i].first >> 4 <= 7 && !records[i].reason);
            } else {
                seen->error = records[i].packet_id;
                seen->value = records[i].begin;
                LAW(seen->error && seen->error <= AMG_MQTT_E_AUTH_WITHOUT_METHOD && i == count - 1);
            }
        }
    } while (count == way->room && position < n);
    if (seen->error || seen->is_over) LAW(position == n);
    LAW(position < n || whole == 0);
    if (position < n) LAW(whole ? whole > n - position : n - position < 5);
    LAW(whole <= way->limits->max_packet || whole <= way->limits->max_connect || whole <= way->limits->max_small);
    seen->whole = whole;
    return position;
}

static trace run(const how *way, const uint8_t *data, size_t n, const size_t *cuts, size_t pieces) {
    trace seen = {0, 0, 0, 0, 0, 0, 0, 0};
    uint8_t *held = NULL;
    size_t size = 0, from = 0, i;
    amg_mqtt codec, before;

    amg_mqtt_init(&codec, way->role, way->version);
    for (i = 0; i < pieces; i++) {
        size_t to = cuts[i], used;
        uint8_t *all = malloc(size + to - from + !(size + to - from));
        if (size) memcpy(all, held, size);
        memcpy(all + size, data + from, to - from);
        free(held);
        held = all;
        size += to - from;
        from = to;
        used = feed(&seen, way, &codec, held, size);
        size -= used;
        all = malloc(size + !size);
        if (size) memcpy(all, held + used, size);
        free(held);
        held = all;
        if (!size) {
            before = codec;
            LAW(feed(&seen, way, &codec, NULL, 0) == 0);
            LAW(memcmp(&before, &codec, sizeof before) == 0);
        }
    }
    if (seen.error || seen.is_over) {
        static const uint8_t more[] = "\xc0\x00\xd0\x00\x30\x03\x00\x01";
        unsigned packets = seen.packets;
        LAW(feed(&seen, way, &codec, more, sizeof more) == sizeof more && seen.packets == packets);
    }
    seen.kept = size;
    seen.version = codec.version;
    free(held);
    return seen;
}

static void agree(const trace *one, const trace *other) {
    LAW(one->hash == other->hash && one->packets == other->packets);
    LAW(one->error == other->error && one->value == other->value && one->is_over == other->is_over);
    LAW(one->kept == other->kept && one->whole == other->whole && one->version == other->version);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static const amg_mqtt_limits *const choices[] = {&usual, &usual, &tight, &wide};
    size_t cuts[MAX_CUTS], pieces = 0, place, step;
    trace once, other;
    how way;

    if (n < 2) return 0;
    way.role = data[0] & 1;
    way.version = data[0] & 2 ? 5 : 4;
    way.limits = choices[data[0] >> 2 & 3];
    step = 1 + (data[1] & 0x7fu);
    way.through_call = data[1] >> 7;
    data += 2;
    n -= 2;
    way.room = MAX_RECORDS;
    once = run(&way, data, n, &n, 1);
    for (place = step; place < n && pieces < MAX_CUTS - 1; place += step) cuts[pieces++] = place;
    cuts[pieces++] = n;
    other = run(&way, data, n, cuts, pieces);
    agree(&once, &other);
    way.room = 1;
    way.through_call = !way.through_call;
    other = run(&way, data, n, cuts, pieces);
    agree(&once, &other);
    other = run(&way, data, n, &n, 1);
    agree(&once, &other);
    return 0;
}
