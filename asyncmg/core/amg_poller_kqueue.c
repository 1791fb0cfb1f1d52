/* kqueue(2), of the BSDs and macOS. SPDX-License-Identifier: MIT */
#if defined(__APPLE__)
#define _DARWIN_C_SOURCE
#elif defined(__NetBSD__)
#define _NETBSD_SOURCE
#endif
#include "amg_poller.h"

#if defined(AMG__HAS_KQUEUE)

#include <sys/types.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/event.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

typedef struct amg__kqueue {
    int fd;
    uint32_t max_events;
    struct kevent events[];
} amg__kqueue;

static void *amg__kqueue_create(uint32_t max_conns, uint32_t max_events) {
    amg__kqueue *self = calloc(1, sizeof *self + max_events * sizeof self->events[0]);

    (void)max_conns;
    if (self == NULL) return NULL;
    self->max_events = max_events;
    self->fd = kqueue();
    if (self->fd < 0 || fcntl(self->fd, F_SETFD, FD_CLOEXEC) < 0) {
        int error = errno;
        if (self->fd >= 0) close(self->fd);
        free(self);
        errno = error;
        return NULL;
    }
    return self;
}

static void amg__kqueue_destroy(void *state) {
    amg__kqueue *self = state;

    close(self->fd);
    free(self);
}

static int amg__kqueue_change(void *state, int fd, uint32_t token, uint32_t before, uint32_t after) {
    static const struct {
        uint32_t what;
        short filter;
    } filters[] = {{AMG__READABLE, EVFILT_READ}, {AMG__WRITABLE, EVFILT_WRITE}};
    const amg__kqueue *self = state;
    struct kevent changes[2];
    int n = 0;
    size_t i;

    for (i = 0; i < 2; i++) {
        if (((before ^ after) & filters[i].what) == 0) continue;
        EV_SET(&changes[n], (uintptr_t)fd, filters[i].filter, (after & filters[i].what ? EV_ADD : EV_DELETE), 0, 0,
               (void *)(uintptr_t)token);
        n++;
    }
    /* When it is interrupted, the changes have been made. */
    if (n > 0 && kevent(self->fd, changes, n, NULL, 0, NULL) < 0 && errno != EINTR) return errno;
    return 0;
}

static uint32_t amg__kqueue_wait(void *state, amg__event *events, int timeout_ms) {
    amg__kqueue *self = state;
    struct timespec timeout;
    int i, n;

    timeout.tv_sec = timeout_ms / 1000;
    timeout.tv_nsec = timeout_ms % 1000 * 1000000L;
    n = kevent(self->fd, NULL, 0, self->events, (int)self->max_events, timeout_ms < 0 ? NULL : &timeout);
    for (i = 0; i < n; i++) {
        events[i].token = (uint32_t)(uintptr_t)self->events[i].udata;
        events[i].what = self->events[i].filter == EVFILT_WRITE ? AMG__WRITABLE : AMG__READABLE;
    }
    return n < 0 ? 0u : (uint32_t)n;
}

static int amg__kqueue_fd(const void *state) { return ((const amg__kqueue *)state)->fd; }

const amg__poller amg__poller_kqueue = {AMG_POLLER_KQUEUE,  amg__kqueue_create, amg__kqueue_destroy,
                                        amg__kqueue_change, amg__kqueue_wait,   amg__kqueue_fd};

#endif /* AMG__HAS_KQUEUE */
