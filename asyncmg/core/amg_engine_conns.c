/* A connection's life in the engine: its number, what it is watched for, its end.
 * SPDX-License-Identifier: MIT
 */
#include "amg_engine.h"

#if !defined(_WIN32)

#include <unistd.h>

/* -- numbers ------------------------------------------------------------------------------------------------------- */

int amg__has_number(const amg_engine *engine) {
    return engine->free != AMG__NONE || engine->fresh < engine->config.max_conns;
}

amg__conn *amg__open(amg_engine *engine, int fd, uint32_t kind, uint32_t flags) {
    amg__conn *conn;

    if (engine->free != AMG__NONE) {
        conn = &engine->conns[engine->free];
        engine->free = conn->next;
    } else {
        conn = &engine->conns[engine->fresh++];
    }
    conn->fd = fd;
    conn->kind = (uint16_t)kind;
    conn->flags = flags;
    conn->state = AMG__OPEN;
    conn->generation = (uint16_t)((conn->generation + 1u) & (0xffffu >> (AMG__NUMBER_BITS - 16)));
    conn->watched = 0;
    conn->credit = 0;
    conn->error = 0;
    conn->deadline = 0;
    conn->frames = NULL;
    conn->packets = NULL;
    return conn;
}

void amg__forget(amg_engine *engine, amg__conn *conn) {
    conn->state = AMG__FREE;
    conn->fd = -1;
    conn->next = engine->free;
    engine->free = amg__number(engine, conn);
}

void amg__release(amg_engine *engine, amg__conn *conn) {
    if (conn->state != AMG__TOLD) return;
    amg__forget(engine, conn);
    if (engine->full) amg__wake_listeners(engine);
}

/* -- what the poller watches --------------------------------------------------------------------------------------- */

/* Who is watched for nothing is unknown to the poller, which would otherwise report a hang-up for ever: while input is
 * paused, and behind its end, a reset is found by the next output or by AMG_OP_RESUME. */
uint32_t amg__interest(const amg__conn *conn) {
    if (conn->state != AMG__OPEN) return 0;
    if (conn->flags & AMG__CONNECTING) return AMG__WRITABLE;
    if (conn->kind == AMG_LISTENER) return conn->credit > 0 && !(conn->flags & AMG__RESTING) ? AMG__READABLE : 0;
    return (conn->flags & (AMG__PAUSED | AMG__EOF | AMG__CLOSING) ? 0 : AMG__READABLE) |
           (conn->unsent > 0 ? AMG__WRITABLE : 0);
}

void amg__changed(amg_engine *engine, amg__conn *conn) {
    if (conn->flags & AMG__CHANGED) return;
    conn->flags |= AMG__CHANGED;
    conn->next_changed = engine->changed;
    engine->changed = amg__number(engine, conn);
}

int amg__watch(amg_engine *engine, amg__conn *conn) {
    uint32_t interest = amg__interest(conn);
    int error;

    if (interest == conn->watched) return 0;
    error = engine->poller->change(engine->poller_state, conn->fd, amg__token(engine, conn), conn->watched, interest);
    if (error == 0) conn->watched = (uint8_t)interest;
    return error;
}

void amg__unwatch(amg_engine *engine, amg__conn *conn) {
    if (conn->watched)
        (void)engine->poller->change(engine->poller_state, conn->fd, amg__token(engine, conn), conn->watched, 0);
    conn->watched = 0;
}

/* Once for each call from outside: what was undone in it costs nothing. */
void amg__watch_changed(amg_engine *engine) {
    while (engine->changed != AMG__NONE) {
        amg__conn *conn = &engine->conns[engine->changed];
        int error;
        engine->changed = conn->next_changed;
        conn->flags &= ~(uint32_t)AMG__CHANGED;
        error = amg__watch(engine, conn);
        if (error) amg__end(engine, conn, error);
    }
}

/* -- listeners that cannot accept for now -------------------------------------------------------------------------- */

/* It is not polled for meanwhile, so that it does not turn the loop in vain. */
void amg__rest(amg_engine *engine, amg__conn *conn) {
    conn->flags |= AMG__RESTING;
    conn->next_resting = engine->resting;
    engine->resting = amg__number(engine, conn);
    amg__changed(engine, conn);
}

static void amg__stop_resting(amg_engine *engine, amg__conn *conn) {
    uint32_t *link = &engine->resting;

    if (!(conn->flags & AMG__RESTING)) return;
    conn->flags &= ~(uint32_t)AMG__RESTING;
    while (&engine->conns[*link] != conn) link = &engine->conns[*link].next_resting;
    *link = conn->next_resting;
}

void amg__wake_listeners(amg_engine *engine) {
    engine->retry_at = 0;
    engine->full = 0;
    while (engine->resting != AMG__NONE) {
        amg__conn *conn = &engine->conns[engine->resting];
        engine->resting = conn->next_resting;
        conn->flags &= ~(uint32_t)AMG__RESTING;
        amg__changed(engine, conn);
    }
}

/* -- the end, and what is told of it ------------------------------------------------------------------------------- */

/* It is told by amg__tell(), as soon as there is room. */
void amg__will_tell(amg_engine *engine, amg__conn *conn, int error) {
    uint32_t number = amg__number(engine, conn);

    conn->error = error;
    if (conn->flags & AMG__TELL) return;
    conn->flags |= AMG__TELL;
    conn->next = AMG__NONE;
    if (engine->first_ended == AMG__NONE) engine->first_ended = number;
    else engine->conns[engine->last_ended].next = number;
    engine->last_ended = number;
}

void amg__tell(amg_engine *engine) {
    while (engine->first_ended != AMG__NONE && amg__completions_left(engine) > 0) {
        amg__conn *conn = &engine->conns[engine->first_ended];
        engine->first_ended = conn->next;
        conn->flags &= ~(uint32_t)AMG__TELL;
        amg__complete(engine, conn, conn->state == AMG__ENDED ? AMG_CLOSED : AMG_FAILED)->error = conn->error;
        if (conn->state == AMG__ENDED) conn->state = AMG__TOLD;
    }
}

void amg__end(amg_engine *engine, amg__conn *conn, int error) {
    if (conn->state != AMG__OPEN) return;
    amg__unwatch(engine, conn);
    amg__stop_resting(engine, conn);
    amg__sent(engine, conn, conn->unsent);
    amg__end_reading(conn);
    close(conn->fd);
    conn->fd = -1;
    conn->state = AMG__ENDED;
    conn->deadline = 0;
    amg__will_tell(engine, conn, error);
}

#endif /* !_WIN32 */
