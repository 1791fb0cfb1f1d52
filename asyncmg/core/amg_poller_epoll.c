/* epoll(7). SPDX-License-Identifier: MIT */
#if defined(__linux__)
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#endif
#include "amg_poller.h"

#if defined(AMG__HAS_EPOLL)

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

typedef struct amg__epoll {
    int fd;
    uint32_t max_events;
    struct epoll_event events[];
} amg__epoll;

static void *amg__epoll_create(uint32_t max_conns, uint32_t max_events) {
    amg__epoll *self = calloc(1, sizeof *self + max_events * sizeof self->events[0]);

    (void)max_conns;
    if (self == NULL) return NULL;
    self->max_events = max_events;
    self->fd = epoll_create1(EPOLL_CLOEXEC);
    if (self->fd < 0) {
        int error = errno;
        free(self);
        errno = error;
        return NULL;
    }
    return self;
}

static void amg__epoll_destroy(void *state) {
    amg__epoll *self = state;

    close(self->fd);
    free(self);
}

static int amg__epoll_change(void *state, int fd, uint32_t token, uint32_t before, uint32_t after) {
    const amg__epoll *self = state;
    struct epoll_event event;

    event.events = (after & AMG__READABLE ? (uint32_t)EPOLLIN : 0u) | (after & AMG__WRITABLE ? (uint32_t)EPOLLOUT : 0u);
    event.data.u64 = 0; /* all of it: valgrind looks */
    event.data.u32 = token;
    if (epoll_ctl(self->fd, before == 0 ? EPOLL_CTL_ADD : after == 0 ? EPOLL_CTL_DEL : EPOLL_CTL_MOD, fd, &event) < 0)
        return errno;
    return 0;
}

static uint32_t amg__epoll_wait(void *state, amg__event *events, int timeout_ms) {
    amg__epoll *self = state;
    int i, n = epoll_wait(self->fd, self->events, (int)self->max_events, timeout_ms);

    for (i = 0; i < n; i++) {
        uint32_t seen = self->events[i].events;
        events[i].token = self->events[i].data.u32;
        if (seen & (EPOLLERR | EPOLLHUP)) events[i].what = AMG__READABLE | AMG__WRITABLE;
        else events[i].what = (seen & EPOLLIN ? AMG__READABLE : 0u) | (seen & EPOLLOUT ? AMG__WRITABLE : 0u);
    }
    return n < 0 ? 0u : (uint32_t)n;
}

static int amg__epoll_fd(const void *state) { return ((const amg__epoll *)state)->fd; }

const amg__poller amg__poller_epoll = {AMG_POLLER_EPOLL,  amg__epoll_create, amg__epoll_destroy,
                                       amg__epoll_change, amg__epoll_wait,   amg__epoll_fd};

#endif /* AMG__HAS_EPOLL */
