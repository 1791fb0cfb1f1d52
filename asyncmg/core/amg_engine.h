/* The inside of the engine: its tables, and what the amg_engine*.c files call of each other. It is included before the
 * system's headers, for it says which of their interfaces are meant.
 *
 *     amg_engine.c            creation, poll(), submit()
 *     amg_engine_conns.c      a connection's number, what it is watched for, its end
 *     amg_engine_deadlines.c  the clock, and the heap of what is due
 *     amg_engine_input.c      bytes, requests, WebSocket frames, MQTT packets and datagrams
 *     amg_engine_output.c     what is sent, what the kernel did not take, and notices of it
 *     amg_engine_sockets.c    adopting, accepting, connecting and binding
 *
 * A connection is one record in a table that is made once. What lies on the heap is its backlog, only while there is one,
 * and what a WebSocket or MQTT needs beyond other streams. Nothing walks the table: the poller tells who is ready, a heap who is due, lists who has changed.
 * SPDX-License-Identifier: MIT
 */
#ifndef AMG_ENGINE_H
#define AMG_ENGINE_H

#if defined(__linux__)
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* accept4 */
#endif
#elif defined(__APPLE__)
#define _DARWIN_C_SOURCE
#elif defined(__NetBSD__)
#define _NETBSD_SOURCE
#endif

#include "amg_poller.h"

#if !defined(_WIN32)

#include <sys/types.h>

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0 /* there SO_NOSIGPIPE is set instead */
#endif

enum {
    AMG__ACCEPT_BURST = 64,    /* of one listener in one poll */
    AMG__REQUEST_BURST = 64,   /* of one connection in one poll; amg.h tells of it */
    AMG__DATAGRAM_BURST = 32,  /* of one socket in one poll */
    AMG__MAX_EVENTS = 512,     /* fetched from the poller at once */
    AMG__MAX_PIECES = 64,      /* of one sendmsg */
    AMG__RECORDS = 4,          /* free completions that one event is begun with */
    AMG__ARENA = 1024,         /* free bytes of the arena that one event is begun with */
    AMG__MIN_BLOCK = 64,       /* of a backlog; they double */
    AMG__FILE_PIECE = 8 * 1024, /* read at once where the system does not send files by itself */
    AMG__FILE_TURN = 2 * 1024 * 1024, /* bytes of a file that one connection sends at once */
    AMG__MAX_BLOCK = 16 * 1024 /* also what a connection may hold beyond what is counted as its backlog */
};

#define AMG__NONE UINT32_MAX /* no connection */
#define AMG__ADDRESS_ROOM ((uint32_t)sizeof(struct sockaddr_storage))
#define AMG__DATAGRAM_ROOM (UINT32_C(65536) + AMG__ADDRESS_ROOM)

/* -- the tables ---------------------------------------------------------------------------------------------------- */

typedef struct amg__shared { /* the payload of a fan-out, for all who could not take it at once */
    uint32_t references;
    uint8_t bytes[];
} amg__shared;

typedef struct amg__block { /* a piece of a backlog */
    struct amg__block *next;
    amg__shared *shared;       /* NULL: the bytes are its own, or a file's */
    uint64_t offset;           /* in the file, of what start counts from */
    uint32_t start, end, size; /* bytes from start to end are unsent; of its own there are size */
    int file;                  /* -1: the bytes are in memory */
    uint8_t own[];
} amg__block;

enum { AMG__FREE, AMG__OPEN, AMG__ENDED /* AMG_CLOSED is to be told */, AMG__TOLD /* and has been */ };

enum {
    AMG__HTTP = 1,
    AMG__CONNECTING = 2,
    AMG__PAUSED = 4,
    AMG__EOF = 8,       /* the peer has ended its side */
    AMG__SHUTDOWN = 16, /* our side is ended, or will be when the backlog has left */
    AMG__CLOSING = 32,  /* closed when the backlog has left */
    AMG__TELL = 64,     /* in the list of those who have ended or failed */
    AMG__CHANGED = 128, /* in the list of those whose readiness the poller is to be told anew */
    AMG__NOTICED = 256, /* has a notice of this submission */
    AMG__RESTING = 512, /* a listener in the list of those who cannot accept for now */
    AMG__HAS_PEER = 1024, /* a datagram socket whose datagrams all come from one address */
    AMG__BULK = 2048      /* there was more to receive than fits into one share: the next one is larger */
};

typedef struct amg__frames { /* of a connection with AMG_OP_WS: the payload of that */
    amg_ws_limits limits;
    amg_ws codec;
} amg__frames;

typedef struct amg__packets { /* of a connection with AMG_OP_MQTT: the payload of that */
    amg_mqtt_limits limits;
    amg_mqtt codec;
} amg__packets;

typedef struct amg__conn {
    amg__block *first, *last; /* the backlog */
    amg__frames *frames;      /* NULL: its input is not WebSocket frames */
    amg__packets *packets;    /* NULL: nor MQTT packets */
    uint64_t unsent;          /* bytes of it */
    uint64_t deadline;        /* in milliseconds of the engine's clock; 0: none */
    uint32_t place;           /* in the heap, counted from 1; 0: not there. It belongs to the number, not the socket */
    uint32_t flags;
    uint32_t credit;       /* connections that a listener may accept */
    uint32_t next;         /* in the list of free numbers, or of those who have ended or failed */
    uint32_t next_changed; /* in that list */
    uint32_t next_resting; /* in that list */
    int fd;
    int error;
    uint16_t kind;
    uint16_t generation; /* part of the poller's token */
    uint8_t state, watched;
} amg__conn;

typedef struct amg__due { /* an entry of the heap: not later than the connection's deadline, but perhaps earlier */
    uint64_t when;
    uint32_t number;
} amg__due;

struct amg_engine {
    amg_engine_config config;
    const amg__poller *poller;
    void *poller_state;
    amg__conn *conns;
    uint32_t fresh; /* numbers from here on were never used */
    uint32_t free;  /* list of numbers to use again, the last one first */

    amg_completion *completions;
    uint32_t count, arena_used;
    uint32_t reserve; /* completions that sockets may not take */
    uint8_t *arena;
    amg_notice *notices;
    uint32_t notice_count;

    amg__event *events; /* from the poller: those from next_event to event_count are still to be dealt with */
    uint32_t next_event, event_count;

    amg__due *heap;
    uint32_t heap_size;
    uint32_t first_ended, last_ended;
    uint32_t changed;
    uint32_t resting;
    uint64_t retry_at; /* when the resting ones are woken; 0: never */
    int full;          /* some rest until a number is released */

    uint64_t unsent; /* of all connections */

    struct iovec pieces[AMG__MAX_PIECES]; /* consecutive AMG_OP_SEND for one connection */
    int piece_count;
    uint32_t piece_number;
};

/* -- amg_engine.c -------------------------------------------------------------------------------------------------- */

/* The place of a connection in the table. */
static inline uint32_t amg__number(const amg_engine *engine, const amg__conn *conn) {
    return (uint32_t)(conn - engine->conns);
}

/* What the poller knows it by: the number, and which of its sockets. */
static inline uint32_t amg__token(const amg_engine *engine, const amg__conn *conn) {
    return amg__number(engine, conn) | (uint32_t)conn->generation << AMG__NUMBER_BITS;
}

/* Whether a system call is simply to be made again later. */
static inline int amg__is_again(int error) { return error == EAGAIN || error == EWOULDBLOCK || error == EINTR; }

/* Completions that may still be told by this poll. */
static inline uint32_t amg__completions_left(const amg_engine *engine) {
    uint32_t taken = engine->count + engine->reserve;

    return taken < engine->config.max_completions ? engine->config.max_completions - taken : 0;
}

/* Bytes that this poll may still receive. */
static inline uint32_t amg__arena_left(const amg_engine *engine) {
    return engine->config.arena_size - engine->arena_used;
}

/* What goes into the arena next is an address: aligned for whoever casts it. */
static inline void amg__align_arena(amg_engine *engine) {
    engine->arena_used = (engine->arena_used + 7u) & ~UINT32_C(7);
    if (engine->arena_used > engine->config.arena_size) engine->arena_used = engine->config.arena_size;
}

/* A new completion, zero but for op and conn. There is room for it. */
static inline amg_completion *amg__complete(amg_engine *engine, const amg__conn *conn, uint32_t op) {
    amg_completion *completion = &engine->completions[engine->count++];

    memset(completion, 0, sizeof *completion);
    completion->op = (uint16_t)op;
    completion->conn = amg__number(engine, conn);
    return completion;
}

/* -- amg_engine_conns.c -------------------------------------------------------------------------------------------- */

/* Whether amg__open() may be called. */
int amg__has_number(const amg_engine *engine);

/* A connection for this socket, not watched yet. kind: without AMG_HTTP. flags: AMG__HTTP and so on. */
amg__conn *amg__open(amg_engine *engine, int fd, uint32_t kind, uint32_t flags);

/* Undo amg__open(): nobody has heard of the connection. The socket stays open. */
void amg__forget(amg_engine *engine, amg__conn *conn);

/* AMG_OP_RELEASE: the number is free if AMG_CLOSED has been told. */
void amg__release(amg_engine *engine, amg__conn *conn);

/* Close the socket; AMG_CLOSED with this errno follows. Of a connection that is not open: nothing. */
void amg__end(amg_engine *engine, amg__conn *conn, int error);

/* AMG_FAILED, or AMG_CLOSED when it has ended, follows with this errno. */
void amg__will_tell(amg_engine *engine, amg__conn *conn, int error);

/* Tell AMG_CLOSED and AMG_FAILED as far as there is room. */
void amg__tell(amg_engine *engine);

/* What the poller is to watch a connection for: AMG__READABLE, AMG__WRITABLE. */
uint32_t amg__interest(const amg__conn *conn);

/* Something that amg__interest() looks at has changed: the poller will be told by amg__watch_changed(). */
void amg__changed(amg_engine *engine, amg__conn *conn);

/* Tell the poller of it at once. An errno. */
int amg__watch(amg_engine *engine, amg__conn *conn);

/* Let the poller forget the connection. */
void amg__unwatch(amg_engine *engine, amg__conn *conn);

/* Tell the poller of all that have changed, once each; who cannot be watched is ended. */
void amg__watch_changed(amg_engine *engine);

/* Let a listener that cannot accept now rest until amg__wake_listeners(). */
void amg__rest(amg_engine *engine, amg__conn *conn);

/* Let all who rest try again. */
void amg__wake_listeners(amg_engine *engine);

/* -- amg_engine_deadlines.c ---------------------------------------------------------------------------------------- */

/* Milliseconds of the engine's clock, never 0. */
uint64_t amg__now(void);

/* The deadline that is so many milliseconds ahead, rounded up: it never comes early. */
uint64_t amg__in(uint32_t milliseconds);

/* Set (by amg__in()) or clear (0) the deadline of an open connection. */
void amg__set_deadline(amg_engine *engine, amg__conn *conn, uint64_t when);

/* Whether the deadline at the top of the heap has come. Afterwards the top is true, however early its entry was. */
int amg__is_due(amg_engine *engine, uint64_t now);

/* Tell AMG_TIMEOUT of all that are due, as far as there is room. */
void amg__handle_deadlines(amg_engine *engine, uint64_t now);

/* -- amg_engine_input.c -------------------------------------------------------------------------------------------- */

/* The socket of a stream is readable: at most a completion for each whole request, and one more. Frames: one. Packets:
 * three. */
void amg__receive(amg_engine *engine, amg__conn *conn);

/* AMG_OP_WS, of an open connection. An errno. */
int amg__begin_frames(amg__conn *conn, const uint8_t *data, uint32_t length);

/* AMG_OP_MQTT, likewise. */
int amg__begin_packets(amg__conn *conn, const uint8_t *data, uint32_t length);

/* Forget both again. */
void amg__end_reading(amg__conn *conn);

/* A datagram socket is readable, and the arena has amg__datagram_room(). */
void amg__receive_datagrams(amg_engine *engine, amg__conn *conn);

/* The arena's room for one datagram and its address: any datagram, unless the arena is smaller than that. */
uint32_t amg__datagram_room(const amg_engine *engine);

/* -- amg_engine_output.c ------------------------------------------------------------------------------------------- */

/* AMG_OP_SEND, which may wait for more of the same connection: data stays where it is until amg__send_gathered(). */
void amg__gather(amg_engine *engine, uint32_t number, const uint8_t *data, uint32_t length);

/* Send what has been gathered. */
void amg__send_gathered(amg_engine *engine);

/* AMG_OP_FANOUT. */
void amg__fan_out(amg_engine *engine, const uint8_t *data, uint32_t length, uint32_t numbers);

/* AMG_OP_SENDTO, of an open connection. */
void amg__send_datagram(amg_engine *engine, amg__conn *conn, const uint8_t *data, uint32_t length,
                        uint32_t address_length);

/* Write into the notices of this submission how much each connection has left. */
void amg__finish_notices(amg_engine *engine);

/* The socket of a stream is writable: send what it takes of the backlog; one completion at most. */
void amg__flush(amg_engine *engine, amg__conn *conn);

/* There is no backlog, or no longer: carry out the AMG_OP_CLOSE or AMG_OP_SHUTDOWN that has waited for that. */
void amg__drained(amg_engine *engine, amg__conn *conn);

/* AMG_OP_SEND_FILE, of an open connection. An errno. */
int amg__send_file(amg_engine *engine, amg__conn *conn, int file, const uint8_t *data, uint32_t length);

/* Take n bytes from the beginning of the backlog. */
void amg__sent(amg_engine *engine, amg__conn *conn, uint64_t n);

/* -- amg_engine_sockets.c ------------------------------------------------------------------------------------------ */

/* A listener is readable: accept who has come, as far as its credit and the room go. */
void amg__accept(amg_engine *engine, amg__conn *listener);

/* A connecting socket is writable: connected or not; two completions at most. */
void amg__connected(amg_engine *engine, amg__conn *conn);

#endif /* !_WIN32 */
#endif /* AMG_ENGINE_H */
