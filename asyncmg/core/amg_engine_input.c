/* What comes into the engine over sockets: bytes, whole requests, WebSocket frames, MQTT packets, datagrams.
 * SPDX-License-Identifier: MIT
 */
#include "amg_engine.h"

#if !defined(_WIN32)

#include <stdlib.h>

enum { AMG__BULK_SHARE = 4 }; /* times max_read: for large messages and uploads, which are cheaper in few pieces */

/* -- WebSocket frames ---------------------------------------------------------------------------------------------- */

enum {
    AMG__MIN_MASKED = 6, /* bytes of the shortest frame of a client */
    AMG__MIN_PLAIN = 2,  /* and of a server */
    AMG__ODD_RECORDS = 4 /* beyond one for each shortest frame: two that began before, one unfinished, an error */
};

int amg__begin_frames(amg__conn *conn, const uint8_t *data, uint32_t length) {
    if (conn->kind != AMG_STREAM || length != sizeof *conn->frames || conn->frames || conn->packets) return 0;
    conn->frames = malloc(sizeof *conn->frames);
    if (conn->frames == NULL) return ENOMEM;
    memcpy(conn->frames, data, length);
    return 0;
}

void amg__end_reading(amg__conn *conn) {
    free(conn->frames);
    free(conn->packets);
    conn->frames = NULL;
    conn->packets = NULL;
}

/* How many bytes of frames may be received, so that there is room behind them for all the records that they can make,
 * and for a control frame that was held. */
static uint32_t amg__frames_room(const amg_engine *engine, const amg__conn *conn) {
    const uint64_t fixed = 8 + AMG__ODD_RECORDS * sizeof(amg_ws_record) + sizeof conn->frames->codec.control;
    uint64_t left = amg__arena_left(engine);
    uint64_t shortest = conn->frames->codec.role == AMG_SERVER ? AMG__MIN_MASKED : AMG__MIN_PLAIN;

    return (uint32_t)((left - fixed) * shortest / (shortest + sizeof(amg_ws_record)));
}

/* n bytes of frames have come to the end of the arena. They are read where they are. Records go behind them, and between
 * the two there is room for a control frame whose beginning came earlier. */
static void amg__received_frames(amg_engine *engine, amg__conn *conn, uint32_t n) {
    amg__frames *frames = conn->frames;
    uint32_t offset = engine->arena_used, end = offset + n, held = 0, most, count = 0;
    amg_completion *completion;
    amg_ws_record *records, *record;
    size_t used = 0;

    engine->arena_used = end + (uint32_t)sizeof frames->codec.control;
    amg__align_arena(engine);
    records = (amg_ws_record *)(void *)(engine->arena + engine->arena_used);
    most = amg__arena_left(engine) / (uint32_t)sizeof *records;
    for (; offset < end; offset += (uint32_t)used) {
        uint8_t *data = engine->arena + offset;
        record = records + count;
        count += (uint32_t)amg_ws_read(&frames->codec, &frames->limits, data, end - offset, data, record,
                                       most - count, &used);
        for (; record < records + count; record++) {
            if (record->flags & AMG_WS_ERROR) continue;
            if (record->flags & AMG_WS_HELD) {
                memcpy(engine->arena + end, frames->codec.control, record->length);
                record->flags &= ~AMG_WS_HELD;
                record->offset = end;
                held = record->length;
            } else {
                record->offset += offset;
            }
        }
    }
    if (count == 1) {
        completion = amg__complete(engine, conn, AMG_FRAME);
        completion->flags = (uint16_t)records->flags;
        completion->offset = records->offset;
        completion->length = records->length;
        completion->error = (int32_t)records->error;
        engine->arena_used = end + held;
    } else {
        completion = amg__complete(engine, conn, AMG_FRAMES);
        completion->offset = engine->arena_used;
        completion->length = count * (uint32_t)sizeof *records;
        engine->arena_used += completion->length;
    }
    completion->head = n;
}

/* -- MQTT packets -------------------------------------------------------------------------------------------------- */

enum {
    AMG__MIN_PACKET = 2,
    AMG__MORE_RECORDS = 4 /* beyond one for each shortest packet: two that began before, an error */
};

int amg__begin_packets(amg__conn *conn, const uint8_t *data, uint32_t length) {
    if (conn->kind != AMG_STREAM || length != sizeof *conn->packets || conn->frames || conn->packets) return 0;
    conn->packets = malloc(sizeof *conn->packets);
    if (conn->packets == NULL) return ENOMEM;
    memcpy(conn->packets, data, length);
    if (conn->packets->codec.held > sizeof conn->packets->codec.head) conn->packets->codec.held = 0;
    return 0;
}

/* How many bytes of packets may be received, so that there is room behind them for all the records that they can make. */
static uint32_t amg__packets_room(const amg_engine *engine, const amg__conn *conn) {
    const amg_mqtt *codec = &conn->packets->codec;
    uint64_t left = amg__arena_left(engine) - (8 + AMG__MORE_RECORDS * sizeof(amg_mqtt_record) + sizeof codec->head);
    uint64_t pieces = codec->missing < left ? codec->missing : left; /* they make none */

    return (uint32_t)(pieces + (left - pieces) * AMG__MIN_PACKET / (AMG__MIN_PACKET + sizeof(amg_mqtt_record)));
}

static void amg__tell_bytes(amg_engine *engine, const amg__conn *conn, uint32_t offset, uint32_t length) {
    amg_completion *completion = amg__complete(engine, conn, AMG_DATA);

    completion->offset = offset;
    completion->length = length;
}

/* count records lie at the end of the arena, those of the bytes from offset to end. */
static void amg__tell_packets(amg_engine *engine, const amg__conn *conn, uint32_t count, uint32_t offset, uint32_t end) {
    const amg_mqtt_record *record = (const amg_mqtt_record *)(const void *)(engine->arena + engine->arena_used);
    amg_completion *completion;

    if (count == 1 && record->first && !record->reason) {
        completion = amg__complete(engine, conn, AMG_PACKET);
        completion->flags = (uint16_t)(record->first | (record->begin - offset) << 8);
        completion->offset = record->begin;
        completion->length = record->topic_end;
        completion->head = record->properties;
        completion->method_length = record->payload;
        completion->target_length = record->end;
        completion->error = record->packet_id;
    } else {
        completion = amg__complete(engine, conn, AMG_PACKETS);
        completion->offset = engine->arena_used;
        completion->length = count * (uint32_t)sizeof *record;
        completion->head = end - offset;
        completion->method_length = offset;
        engine->arena_used += completion->length;
    }
}

/* n bytes have come to the end of the arena, behind room for the beginning of a fixed header that came earlier. First
 * comes the rest of a packet whose beginning has been told. Then packets are read where they are; records go behind all
 * that has come. What is left is the beginning of a packet: it is told as soon as it tells its size. */
static void amg__received_packets(amg_engine *engine, amg__conn *conn, uint32_t n) {
    amg_mqtt *codec = &conn->packets->codec;
    uint32_t offset = engine->arena_used, end = offset + codec->held + n, piece, count;
    amg_mqtt_record *records;
    size_t position, whole;

    memcpy(engine->arena + offset, codec->head, codec->held);
    codec->held = 0;
    engine->arena_used = end;
    if (codec->missing) {
        piece = codec->missing < n ? codec->missing : n;
        amg__tell_bytes(engine, conn, offset, piece);
        codec->missing -= piece;
        offset += piece;
    }
    if (offset == end) return;
    amg__align_arena(engine);
    records = (amg_mqtt_record *)(void *)(engine->arena + engine->arena_used);
    position = offset;
    count = (uint32_t)amg_mqtt_read(codec, &conn->packets->limits, engine->arena, end, &position, records,
                                    amg__arena_left(engine) / sizeof *records, &whole);
    if (count) amg__tell_packets(engine, conn, count, offset, (uint32_t)position);
    piece = end - (uint32_t)position;
    if (whole) {
        codec->missing = (uint32_t)whole - piece;
        amg__tell_bytes(engine, conn, (uint32_t)position, piece);
    } else {
        codec->held = (uint8_t)piece;
        memcpy(codec->head, engine->arena + position, piece);
    }
}

/* -- streams ------------------------------------------------------------------------------------------------------- */

/* n bytes have come to the end of the arena. Requests that are all there are told as such; what follows them, and all
 * that is for amg_http1_read() to judge, are bytes. So is what goes beyond one connection's share: its flood of small
 * requests does not take the completions of all others. */
static void amg__received(amg_engine *engine, amg__conn *conn, uint32_t n) {
    amg_completion *completion;
    amg_http1_record head;
    uint32_t offset = engine->arena_used, end = offset + n, requests = 0;

    engine->arena_used = end;
    if (conn->flags & AMG__HTTP) {
        while (offset < end && requests < AMG__REQUEST_BURST && amg__completions_left(engine) > 1) {
            size_t taken = amg_http1_whole(&engine->config.http, engine->arena + offset, end - offset, &head);
            if (taken == 0 || head.offset != 0) break; /* what is told is all that has come, empty lines too */
            completion = amg__complete(engine, conn, AMG_REQUEST);
            completion->flags = head.flags;
            completion->offset = offset;
            completion->length = (uint32_t)taken;
            completion->head = head.length;
            completion->method_length = head.method_length;
            completion->target_length = head.target_length;
            offset += (uint32_t)taken;
            requests++;
        }
    }
    if (offset < end) {
        completion = amg__complete(engine, conn, AMG_DATA);
        completion->offset = offset;
        completion->length = end - offset;
    }
}

void amg__receive(amg_engine *engine, amg__conn *conn) {
    uint32_t room = amg__arena_left(engine), most = engine->config.max_read, held = 0;
    ssize_t n;

    if (conn->frames != NULL) room = amg__frames_room(engine, conn);
    if (conn->packets != NULL) room = amg__packets_room(engine, conn), held = conn->packets->codec.held;
    if (conn->frames != NULL || conn->packets != NULL || conn->flags & AMG__BULK)
        most = most > UINT32_MAX / AMG__BULK_SHARE ? UINT32_MAX : AMG__BULK_SHARE * most;
    if (room > most) room = most;
    n = recv(conn->fd, engine->arena + engine->arena_used + held, room, 0);
    if (n >= (ssize_t)engine->config.max_read) conn->flags |= AMG__BULK;
    else conn->flags &= ~(uint32_t)AMG__BULK;
    if (n > 0 && conn->frames != NULL) {
        amg__received_frames(engine, conn, (uint32_t)n);
    } else if (n > 0 && conn->packets != NULL) {
        amg__received_packets(engine, conn, (uint32_t)n);
    } else if (n > 0) {
        amg__received(engine, conn, (uint32_t)n);
    } else if (n == 0) {
        conn->flags |= AMG__EOF;
        amg__complete(engine, conn, AMG_EOF);
        amg__changed(engine, conn);
    } else if (!amg__is_again(errno)) {
        amg__end(engine, conn, errno);
    }
}

/* -- datagrams ----------------------------------------------------------------------------------------------------- */

uint32_t amg__datagram_room(const amg_engine *engine) {
    return engine->config.arena_size < AMG__DATAGRAM_ROOM ? engine->config.arena_size / 2 : AMG__DATAGRAM_ROOM;
}

void amg__receive_datagrams(amg_engine *engine, amg__conn *conn) {
    int i;

    for (i = 0; i < AMG__DATAGRAM_BURST; i++) {
        struct sockaddr_storage address;
        struct iovec piece;
        struct msghdr message;
        amg_completion *completion;
        uint32_t length;
        ssize_t n;

        amg__align_arena(engine);
        if (amg__arena_left(engine) < amg__datagram_room(engine) || amg__completions_left(engine) < AMG__RECORDS) break;
        /* The address goes before the datagram, and its length is known afterwards. */
        piece.iov_base = engine->arena + engine->arena_used + AMG__ADDRESS_ROOM;
        piece.iov_len = amg__arena_left(engine) - AMG__ADDRESS_ROOM;
        memset(&message, 0, sizeof message);
        message.msg_name = &address;
        message.msg_namelen = sizeof address;
        message.msg_iov = &piece;
        message.msg_iovlen = 1;
        n = recvmsg(conn->fd, &message, 0);
        if (n < 0) {
            if (amg__is_again(errno)) break;
            amg__will_tell(engine, conn, errno);
            if (errno == EBADF || errno == ENOTSOCK || errno == EINVAL) amg__end(engine, conn, errno);
            break;
        }
        if (message.msg_flags & MSG_TRUNC) { /* half of it is worse than none */
            amg__will_tell(engine, conn, EMSGSIZE);
            continue;
        }
        length = conn->flags & AMG__HAS_PEER ? 0 : (uint32_t)message.msg_namelen;
        if (length > AMG__ADDRESS_ROOM) length = AMG__ADDRESS_ROOM;
        completion = amg__complete(engine, conn, AMG_DATAGRAM);
        completion->offset = engine->arena_used + AMG__ADDRESS_ROOM - length;
        completion->length = length + (uint32_t)n;
        completion->head = length;
        memcpy(engine->arena + completion->offset, &address, length);
        engine->arena_used += AMG__ADDRESS_ROOM + (uint32_t)n;
    }
}

#endif /* !_WIN32 */
