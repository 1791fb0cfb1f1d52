/* The engine's clock, and deadlines: a heap whose entries may be earlier than what they stand for, so that to move a
 * deadline ahead, which each request does, costs nothing.
 * SPDX-License-Identifier: MIT
 */
#include "amg_engine.h"

#if !defined(_WIN32)

#include <time.h>

/* -- the clock ----------------------------------------------------------------------------------------------------- */

static uint64_t amg__clock(uint32_t round_up_ns) {
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000u + ((uint64_t)now.tv_nsec + round_up_ns) / 1000000u + 1u; /* never 0 */
}

uint64_t amg__now(void) { return amg__clock(0); }

uint64_t amg__in(uint32_t milliseconds) { return amg__clock(999999) + milliseconds; }

/* -- the heap ------------------------------------------------------------------------------------------------------ */

static void amg__heap_put(amg_engine *engine, uint32_t place, amg__due due) {
    engine->heap[place - 1] = due;
    engine->conns[due.number].place = place;
}

static void amg__heap_up(amg_engine *engine, uint32_t place, amg__due due) {
    while (place > 1 && engine->heap[place / 2 - 1].when > due.when) {
        amg__heap_put(engine, place, engine->heap[place / 2 - 1]);
        place /= 2;
    }
    amg__heap_put(engine, place, due);
}

static void amg__heap_down(amg_engine *engine, uint32_t place, amg__due due) {
    while (2 * place <= engine->heap_size) {
        uint32_t child = 2 * place;
        if (child < engine->heap_size && engine->heap[child].when < engine->heap[child - 1].when) child++;
        if (engine->heap[child - 1].when >= due.when) break;
        amg__heap_put(engine, place, engine->heap[child - 1]);
        place = child;
    }
    amg__heap_put(engine, place, due);
}

static void amg__heap_pop(amg_engine *engine) {
    engine->conns[engine->heap[0].number].place = 0;
    engine->heap_size--;
    if (engine->heap_size > 0) amg__heap_down(engine, 1, engine->heap[engine->heap_size]);
}

/* Later, or cleared, costs nothing here: the entry is put right when it comes to the top. */
void amg__set_deadline(amg_engine *engine, amg__conn *conn, uint64_t when) {
    amg__due due;

    conn->deadline = when;
    if (when == 0) return;
    due.when = when;
    due.number = amg__number(engine, conn);
    if (conn->place == 0) amg__heap_up(engine, ++engine->heap_size, due);
    else if (when < engine->heap[conn->place - 1].when) amg__heap_up(engine, conn->place, due);
}

int amg__is_due(amg_engine *engine, uint64_t now) {
    while (engine->heap_size > 0) {
        amg__due due = engine->heap[0];
        uint64_t deadline = engine->conns[due.number].deadline;
        if (deadline == due.when) return due.when <= now;
        due.when = deadline;
        if (deadline == 0) amg__heap_pop(engine);
        else amg__heap_down(engine, 1, due);
    }
    return 0;
}

void amg__handle_deadlines(amg_engine *engine, uint64_t now) {
    while (amg__completions_left(engine) > 0 && amg__is_due(engine, now)) {
        amg__conn *conn = &engine->conns[engine->heap[0].number];
        amg__heap_pop(engine);
        conn->deadline = 0;
        amg__complete(engine, conn, AMG_TIMEOUT);
    }
}

#endif /* !_WIN32 */
