/* The engine: sockets between a queue of completions and a queue of submissions. Contracts are in amg.h, the tables and
 * the other files in amg_engine.h.
 * SPDX-License-Identifier: MIT
 */
#include "amg_engine.h"

#if !defined(_WIN32)

#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

/* -- creation ------------------------------------------------------------------------------------------------------ */

static const amg__poller *amg__find_poller(uint32_t kind) {
    static const amg__poller *const pollers[] = {
#if defined(AMG__HAS_EPOLL)
        &amg__poller_epoll,
#endif
#if defined(AMG__HAS_KQUEUE)
        &amg__poller_kqueue,
#endif
        &amg__poller_poll,
    };
    size_t i;

    for (i = 0; i < sizeof pollers / sizeof pollers[0]; i++)
        if (kind == AMG_POLLER_AUTO || kind == pollers[i]->kind) return pollers[i];
    return NULL;
}

amg_engine *amg_engine_new(const amg_engine_config *config) {
    const amg__poller *poller;
    amg_engine *engine;
    uint32_t max_events;
    int error;

    if (config->max_conns < 1 || config->max_conns > UINT32_C(1) << AMG__NUMBER_BITS || config->max_completions < 16 ||
        config->arena_size < 2048 || config->max_read < 1024 || config->poller > AMG_POLLER_POLL) {
        errno = EINVAL;
        return NULL;
    }
    poller = amg__find_poller(config->poller);
    if (poller == NULL) {
        errno = ENOSYS;
        return NULL;
    }
    engine = calloc(1, sizeof *engine);
    if (engine == NULL) return NULL;
    engine->config = *config;
    engine->poller = poller;
    engine->free = engine->first_ended = engine->changed = engine->resting = AMG__NONE;
    max_events = config->max_conns < config->max_completions ? config->max_conns : config->max_completions;
    if (max_events > AMG__MAX_EVENTS) max_events = AMG__MAX_EVENTS;
    /* Pages of these that are never used cost nothing. */
    engine->conns = calloc(config->max_conns, sizeof *engine->conns);
    engine->heap = calloc(config->max_conns, sizeof *engine->heap);
    engine->notices = calloc(config->max_conns, sizeof *engine->notices);
    engine->completions = calloc(config->max_completions, sizeof *engine->completions);
    engine->events = calloc(max_events, sizeof *engine->events);
    engine->arena = calloc(1, config->arena_size);
    errno = ENOMEM;
    if (engine->conns != NULL && engine->heap != NULL && engine->notices != NULL && engine->completions != NULL &&
        engine->events != NULL && engine->arena != NULL)
        engine->poller_state = poller->create(config->max_conns, max_events);
    if (engine->poller_state == NULL) {
        error = errno;
        amg_engine_free(engine);
        errno = error;
        return NULL;
    }
    return engine;
}

void amg_engine_free(amg_engine *engine) {
    uint32_t i;

    if (engine == NULL) return;
    for (i = 0; i < engine->fresh; i++) {
        amg__conn *conn = &engine->conns[i];
        if (conn->state != AMG__OPEN) continue;
        amg__unwatch(engine, conn);
        amg__sent(engine, conn, conn->unsent);
        amg__end_reading(conn);
        close(conn->fd);
    }
    if (engine->poller_state != NULL) engine->poller->destroy(engine->poller_state);
    free(engine->conns);
    free(engine->heap);
    free(engine->notices);
    free(engine->completions);
    free(engine->events);
    free(engine->arena);
    free(engine);
}

/* -- what others may look at --------------------------------------------------------------------------------------- */

const amg_completion *amg_engine_completions(const amg_engine *engine) { return engine->completions; }

uint8_t *amg_engine_arena(const amg_engine *engine) { return engine->arena; }

const amg_notice *amg_engine_notices(const amg_engine *engine) { return engine->notices; }

int amg_engine_fd(const amg_engine *engine) { return engine->poller->fd(engine->poller_state); }

int amg_engine_socket(const amg_engine *engine, uint32_t conn) {
    if (conn >= engine->config.max_conns || engine->conns[conn].state != AMG__OPEN) return -1;
    return engine->conns[conn].fd;
}

uint64_t amg_engine_unsent(const amg_engine *engine, uint32_t conn) {
    return conn < engine->config.max_conns ? engine->conns[conn].unsent : 0;
}

/* -- poll ---------------------------------------------------------------------------------------------------------- */

/* What is left of the arena when a stream may still be read. */
static uint32_t amg__fair_room(const amg_engine *engine) {
    uint32_t quarter = engine->config.arena_size / 4;
    return engine->config.max_read < quarter ? engine->config.max_read : quarter;
}

/* 0: there is no room for it in this poll. */
static int amg__handle(amg_engine *engine, amg__event event) {
    amg__conn *conn = &engine->conns[event.token & AMG__NUMBER_MASK];

    /* What the event was about may have changed since: it says only where to look. */
    if (conn->state != AMG__OPEN || event.token != amg__token(engine, conn)) return 1;
    event.what &= amg__interest(conn);
    if (conn->kind == AMG_DATAGRAM_SOCKET && event.what) {
        amg__align_arena(engine);
        if (amg__arena_left(engine) < amg__datagram_room(engine)) return 0;
        amg__receive_datagrams(engine, conn);
    } else if (conn->kind == AMG_LISTENER && event.what) {
        amg__accept(engine, conn);
    } else if (conn->flags & AMG__CONNECTING && event.what) {
        amg__connected(engine, conn);
    } else {
        if (event.what & AMG__WRITABLE) amg__flush(engine, conn);
        if (event.what & amg__interest(conn) & AMG__READABLE) {
            /* Who would get little now is the first one next time. */
            if (amg__arena_left(engine) < amg__fair_room(engine)) return 0;
            amg__receive(engine, conn);
        }
    }
    return 1;
}

static void amg__handle_events(amg_engine *engine) {
    while (engine->next_event < engine->event_count && amg__completions_left(engine) >= AMG__RECORDS &&
           amg__arena_left(engine) >= AMG__ARENA) {
        if (!amg__handle(engine, engine->events[engine->next_event])) return;
        engine->next_event++;
    }
}

uint32_t amg_engine_poll(amg_engine *engine, int timeout_ms) {
    uint64_t now = 0;

    engine->count = engine->arena_used = 0;
    amg__tell(engine);
    /* Events that the last poll had no room for come first: the poller would tell of the same sockets again. */
    if (engine->next_event == engine->event_count && amg__completions_left(engine) >= AMG__RECORDS) {
        int wait = engine->count > 0 ? 0 : amg_engine_wait(engine);
        if (wait >= 0 && (timeout_ms < 0 || wait < timeout_ms)) timeout_ms = wait;
        engine->next_event = 0;
        engine->event_count = engine->poller->wait(engine->poller_state, engine->events, timeout_ms);
    }
    if (engine->heap_size > 0 || engine->retry_at != 0) {
        now = amg__now();
        if (engine->retry_at != 0 && engine->retry_at <= now) amg__wake_listeners(engine);
        /* Busy sockets do not crowd deadlines out. */
        if (amg__is_due(engine, now)) engine->reserve = engine->config.max_completions / 4;
    }
    amg__handle_events(engine);
    engine->reserve = 0;
    if (now != 0) amg__handle_deadlines(engine, now);
    amg__tell(engine);
    amg__watch_changed(engine);
    return engine->count;
}

int amg_engine_wait(const amg_engine *engine) {
    uint64_t next = engine->retry_at, now;

    if (engine->first_ended != AMG__NONE || engine->next_event < engine->event_count) return 0;
    if (engine->heap_size > 0 && (next == 0 || engine->heap[0].when < next)) next = engine->heap[0].when;
    if (next == 0) return -1;
    now = amg__now();
    if (next <= now) return 0;
    return next - now > INT_MAX ? INT_MAX : (int)(next - now);
}

/* -- submit -------------------------------------------------------------------------------------------------------- */

static void amg__submit_one(amg_engine *engine, const amg_submission *submission, const uint8_t *data) {
    amg__conn *conn = &engine->conns[submission->conn];
    uint32_t arg = submission->arg;
    int error;

    if (submission->op == AMG_OP_RELEASE) amg__release(engine, conn);
    if (conn->state != AMG__OPEN) return;
    switch (submission->op) {
    case AMG_OP_SENDTO:
        amg__send_datagram(engine, conn, data, submission->length, arg);
        break;
    case AMG_OP_PAUSE:
        conn->flags |= AMG__PAUSED;
        amg__changed(engine, conn);
        break;
    case AMG_OP_RESUME:
        conn->flags &= ~(uint32_t)AMG__PAUSED;
        amg__changed(engine, conn);
        break;
    case AMG_OP_ACCEPT:
        conn->credit = arg > UINT32_MAX - conn->credit ? UINT32_MAX : conn->credit + arg;
        amg__changed(engine, conn);
        break;
    case AMG_OP_DEADLINE:
        amg__set_deadline(engine, conn, arg == 0 ? 0 : amg__in(arg));
        break;
    case AMG_OP_SHUTDOWN:
        if (conn->kind != AMG_STREAM || conn->flags & AMG__SHUTDOWN) break;
        conn->flags |= AMG__SHUTDOWN;
        if (conn->unsent == 0 && !(conn->flags & AMG__CONNECTING)) amg__drained(engine, conn);
        break;
    case AMG_OP_CLOSE:
        conn->flags |= AMG__CLOSING;
        amg__changed(engine, conn);
        if (conn->unsent == 0) amg__end(engine, conn, 0);
        break;
    case AMG_OP_ABORT:
        amg__end(engine, conn, 0);
        break;
    case AMG_OP_WS:
        error = amg__begin_frames(conn, data, submission->length);
        if (error) amg__end(engine, conn, error);
        break;
    case AMG_OP_MQTT:
        error = amg__begin_packets(conn, data, submission->length);
        if (error) amg__end(engine, conn, error);
        break;
    case AMG_OP_SEND_FILE:
        error = amg__send_file(engine, conn, (int)arg, data, submission->length);
        if (error) amg__end(engine, conn, error);
        break;
    default:
        break;
    }
}

uint32_t amg_engine_submit(amg_engine *engine, const uint8_t *buffer, size_t n) {
    amg_submission submission;

    engine->notice_count = 0;
    while (n >= sizeof submission) {
        memcpy(&submission, buffer, sizeof submission);
        buffer += sizeof submission;
        n -= sizeof submission;
        if (submission.length > n) break; /* the caller's mistake: nothing behind it can be trusted */
        if (submission.op == AMG_OP_FANOUT) {
            amg__send_gathered(engine);
            amg__fan_out(engine, buffer, submission.length, submission.arg);
        } else if (submission.conn >= engine->config.max_conns) {
            /* no connection */
        } else if (submission.op == AMG_OP_SEND) {
            amg__gather(engine, submission.conn, buffer, submission.length);
        } else if (submission.op == AMG_OP_SEND_FAR) {
            uint64_t far[2]; /* address and length */
            uint32_t i;
            for (i = 0; submission.length - i >= sizeof far; i += (uint32_t)sizeof far) {
                memcpy(far, buffer + i, sizeof far);
                if (far[1] > UINT32_MAX) break;
                amg__gather(engine, submission.conn, (const uint8_t *)(uintptr_t)far[0], (uint32_t)far[1]);
            }
        } else {
            if (submission.conn == engine->piece_number) amg__send_gathered(engine);
            amg__submit_one(engine, &submission, buffer);
        }
        buffer += submission.length;
        n -= submission.length;
    }
    amg__send_gathered(engine);
    amg__watch_changed(engine);
    (void)amg__is_due(engine, 0); /* for amg_engine_wait() */
    amg__finish_notices(engine);
    return engine->notice_count;
}

#endif /* !_WIN32 */
