/* What comes into the engine over sockets: bytes, whole requests, datagrams.
 * SPDX-License-Identifier: MIT
 */
#include "amg_engine.h"

#if !defined(_WIN32)

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
    uint32_t room = amg__arena_left(engine);
    ssize_t n;

    if (room > engine->config.max_read) room = engine->config.max_read;
    n = recv(conn->fd, engine->arena + engine->arena_used, room, 0);
    if (n > 0) {
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
