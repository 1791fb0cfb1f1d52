/* poll(2), for every POSIX system. It looks at all sockets each time: for small numbers of them.
 * SPDX-License-Identifier: MIT
 */
#include "amg_poller.h"

#if !defined(_WIN32)

#include <poll.h>
#include <stdlib.h>

typedef struct amg__poll {
    uint32_t max_events, count; /* how many sockets are watched: the first `count` of the tables */
    uint32_t start;             /* where the next search for events begins, so that each has its turn */
    struct pollfd *sockets;
    uint32_t *tokens; /* beside sockets */
    uint32_t *places; /* by connection number: where it is in sockets */
} amg__poll;

static void amg__poll_destroy(void *state) {
    amg__poll *self = state;

    free(self->sockets);
    free(self->tokens);
    free(self->places);
    free(self);
}

static void *amg__poll_create(uint32_t max_conns, uint32_t max_events) {
    amg__poll *self = calloc(1, sizeof *self);

    if (self == NULL) return NULL;
    self->max_events = max_events;
    self->sockets = calloc(max_conns, sizeof *self->sockets);
    self->tokens = calloc(max_conns, sizeof *self->tokens);
    self->places = calloc(max_conns, sizeof *self->places);
    if (self->sockets == NULL || self->tokens == NULL || self->places == NULL) {
        amg__poll_destroy(self);
        return NULL;
    }
    return self;
}

static int amg__poll_change(void *state, int fd, uint32_t token, uint32_t before, uint32_t after) {
    amg__poll *self = state;
    uint32_t place = before == 0 ? self->count : self->places[token & AMG__NUMBER_MASK];

    if (after == 0) { /* the last one takes its place */
        self->count--;
        self->sockets[place] = self->sockets[self->count];
        self->tokens[place] = self->tokens[self->count];
        self->places[self->tokens[place] & AMG__NUMBER_MASK] = place;
        return 0;
    }
    if (before == 0) {
        self->places[token & AMG__NUMBER_MASK] = place;
        self->tokens[place] = token;
        self->sockets[place].fd = fd;
        self->count++;
    }
    self->sockets[place].events = 0;
    if (after & AMG__READABLE) self->sockets[place].events |= POLLIN;
    if (after & AMG__WRITABLE) self->sockets[place].events |= POLLOUT;
    return 0;
}

static uint32_t amg__poll_wait(void *state, amg__event *events, int timeout_ms) {
    amg__poll *self = state;
    int ready = poll(self->sockets, (nfds_t)self->count, timeout_ms);
    uint32_t i, n = 0;

    if (self->start >= self->count) self->start = 0;
    for (i = 0; i < self->count && ready > 0 && n < self->max_events; i++) {
        uint32_t place = self->start;
        int seen = self->sockets[place].revents;
        self->start = place + 1 < self->count ? place + 1 : 0;
        if (seen == 0) continue;
        ready--;
        events[n].token = self->tokens[place];
        if (seen & (POLLERR | POLLHUP | POLLNVAL)) events[n].what = AMG__READABLE | AMG__WRITABLE;
        else events[n].what = (seen & POLLIN ? AMG__READABLE : 0u) | (seen & POLLOUT ? AMG__WRITABLE : 0u);
        n++;
    }
    return n;
}

static int amg__poll_fd(const void *state) {
    (void)state;
    return -1;
}

const amg__poller amg__poller_poll = {AMG_POLLER_POLL,  amg__poll_create, amg__poll_destroy,
                                      amg__poll_change, amg__poll_wait,   amg__poll_fd};

#endif /* !_WIN32 */
