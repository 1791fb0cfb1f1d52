/* The system's readiness interfaces behind one table of functions each; internal to the engine. All are level-triggered:
 * what is not dealt with is reported again. SPDX-License-Identifier: MIT
 */
#ifndef AMG_POLLER_H
#define AMG_POLLER_H

#include "amg.h"

#if !defined(_WIN32)

#define AMG__READABLE 1u
#define AMG__WRITABLE 2u

/* The lower bits of a token are the connection's number, the others tell an event of its predecessor from its own. */
#define AMG__NUMBER_BITS 20
#define AMG__NUMBER_MASK ((UINT32_C(1) << AMG__NUMBER_BITS) - 1u)

typedef struct amg__event {
    uint32_t token;
    uint32_t what; /* errors and hang-ups are both: to read or to write tells which */
} amg__event;

typedef struct amg__poller {
    uint32_t kind; /* AMG_POLLER_ */
    /* Room for max_conns connections and max_events events of one wait. NULL with errno. */
    void *(*create)(uint32_t max_conns, uint32_t max_events);
    void (*destroy)(void *state);
    /* Watch for `after` instead of `before`; nothing is known about a socket that is watched for nothing. An errno. */
    int (*change)(void *state, int fd, uint32_t token, uint32_t before, uint32_t after);
    /* The number of events, 0 when interrupted. */
    uint32_t (*wait)(void *state, amg__event *events, int timeout_ms);
    int (*fd)(const void *state);
} amg__poller;

extern const amg__poller amg__poller_poll;

#if defined(__linux__)
#define AMG__HAS_EPOLL 1
extern const amg__poller amg__poller_epoll;
#elif defined(__APPLE__) || defined(__FreeBSD__) || defined(__OpenBSD__) || defined(__NetBSD__) || defined(__DragonFly__)
#define AMG__HAS_KQUEUE 1
extern const amg__poller amg__poller_kqueue;
#endif

#endif /* !_WIN32 */
#endif /* AMG_POLLER_H */
