/* How sockets come to the engine: adopted, accepted or connected; and amg_bind().
 * SPDX-License-Identifier: MIT
 */
#include "amg_engine.h"

#if !defined(_WIN32)

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/un.h>
#include <unistd.h>

/* -- options ------------------------------------------------------------------------------------------------------- */

/* Make it non-blocking. An errno. */
static int amg__unblock(int fd) {
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0) return errno;
    if (!(flags & O_NONBLOCK) && fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) return errno;
    return 0;
}

/* What is no option of this kind of socket is none that we need. */
static void amg__set_options(int fd, int is_stream) {
    int on = 1;

#if defined(SO_NOSIGPIPE)
    (void)setsockopt(fd, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof on);
#endif
    if (is_stream) (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static int amg__socket(int family, int type) {
#if defined(SOCK_NONBLOCK) && defined(SOCK_CLOEXEC)
    return socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
#else
    int fd = socket(family, type, 0);
    if (fd >= 0 && (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 || amg__unblock(fd) != 0)) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
#endif
}

/* -- from outside -------------------------------------------------------------------------------------------------- */

int64_t amg_engine_adopt(amg_engine *engine, int fd, uint32_t kind) {
    struct sockaddr_storage peer;
    amg__conn *conn;
    int type, error;
    socklen_t length = sizeof type;

    if ((kind & ~AMG_HTTP) > AMG_DATAGRAM_SOCKET) return -EINVAL;
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) < 0) return -errno;
    if (!amg__has_number(engine)) return -ENFILE;
    error = amg__unblock(fd);
    if (error) return -error;
    amg__set_options(fd, (kind & ~AMG_HTTP) == AMG_STREAM);
    conn = amg__open(engine, fd, kind & ~AMG_HTTP, kind & AMG_HTTP ? AMG__HTTP : 0);
    length = sizeof peer;
    if (conn->kind == AMG_DATAGRAM_SOCKET && getpeername(fd, (struct sockaddr *)&peer, &length) == 0)
        conn->flags |= AMG__HAS_PEER;
    error = amg__watch(engine, conn);
    if (error) {
        amg__forget(engine, conn);
        return -error;
    }
    return amg__number(engine, conn);
}

/* -- accepting ----------------------------------------------------------------------------------------------------- */

static int amg__accept_one(int listener, struct sockaddr_storage *address, socklen_t *length) {
#if defined(SOCK_NONBLOCK) && defined(SOCK_CLOEXEC)
    return accept4(listener, (struct sockaddr *)address, length, SOCK_NONBLOCK | SOCK_CLOEXEC);
#else
    int fd = accept(listener, (struct sockaddr *)address, length);
    if (fd >= 0 && (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 || amg__unblock(fd) != 0)) {
        close(fd);
        errno = ECONNABORTED;
        return -1;
    }
    return fd;
#endif
}

/* accept() has failed. Whether to try once more now. */
static int amg__accept_failed(amg_engine *engine, amg__conn *listener, int error) {
    switch (error) {
    case EINTR: case ECONNABORTED: case EPROTO: case EPERM: case ETIMEDOUT: case ENETDOWN: case ENETUNREACH:
    case EHOSTDOWN: case EHOSTUNREACH: case ENOPROTOOPT:
        return 1; /* of the connection that was to be accepted */
    case EMFILE: case ENFILE: case ENOBUFS: case ENOMEM:
        amg__rest(engine, listener);
        if (engine->retry_at == 0) engine->retry_at = amg__in(engine->config.accept_retry_ms);
        return 0;
    default:
        if (amg__is_again(error)) return 0;
        amg__complete(engine, listener, AMG_FAILED)->error = error;
        if (error == EBADF || error == EINVAL || error == ENOTSOCK || error == EOPNOTSUPP)
            amg__end(engine, listener, error);
        return 0;
    }
}

void amg__accept(amg_engine *engine, amg__conn *listener) {
    int i;

    for (i = 0; i < AMG__ACCEPT_BURST && listener->credit > 0; i++) {
        struct sockaddr_storage address;
        socklen_t length = sizeof address;
        amg_completion *completion;
        amg__conn *conn;
        int fd;

        amg__align_arena(engine);
        if (amg__completions_left(engine) < AMG__RECORDS || amg__arena_left(engine) < AMG__ADDRESS_ROOM) return;
        if (!amg__has_number(engine)) {
            engine->full = 1;
            amg__rest(engine, listener);
            return;
        }
        fd = amg__accept_one(listener->fd, &address, &length);
        if (fd < 0) {
            if (amg__accept_failed(engine, listener, errno)) continue;
            return;
        }
        amg__set_options(fd, 1);
        conn = amg__open(engine, fd, AMG_STREAM, listener->flags & AMG__HTTP);
        amg__changed(engine, conn);
        if (length > AMG__ADDRESS_ROOM) length = AMG__ADDRESS_ROOM;
        completion = amg__complete(engine, conn, AMG_ACCEPTED);
        completion->head = amg__number(engine, listener);
        completion->offset = engine->arena_used;
        completion->length = (uint32_t)length;
        memcpy(engine->arena + engine->arena_used, &address, length);
        engine->arena_used += (uint32_t)length;
        if (--listener->credit == 0) amg__changed(engine, listener);
    }
}

/* -- connecting ---------------------------------------------------------------------------------------------------- */

int64_t amg_engine_connect(amg_engine *engine, const void *address, uint32_t length) {
    struct sockaddr_storage target;
    amg__conn *conn;
    int fd, error;

    memset(&target, 0, sizeof target);
    if (length < offsetof(struct sockaddr, sa_data) || length > sizeof target) return -EINVAL;
    memcpy(&target, address, length);
    if (!amg__has_number(engine)) return -ENFILE;
    fd = amg__socket(target.ss_family, SOCK_STREAM);
    if (fd < 0) return -errno;
    amg__set_options(fd, 1);
    conn = amg__open(engine, fd, AMG_STREAM, AMG__CONNECTING);
    if (connect(fd, (const struct sockaddr *)&target, (socklen_t)length) < 0 && errno != EINPROGRESS &&
        errno != EINTR) {
        amg__end(engine, conn, errno);
        return amg__number(engine, conn);
    }
    error = amg__watch(engine, conn);
    if (error) amg__end(engine, conn, error);
    return amg__number(engine, conn);
}

void amg__connected(amg_engine *engine, amg__conn *conn) {
    int error = 0;
    socklen_t length = sizeof error;

    if (getsockopt(conn->fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0) error = errno;
    if (error) {
        amg__end(engine, conn, error);
        return;
    }
    conn->flags &= ~(uint32_t)AMG__CONNECTING;
    amg__changed(engine, conn);
    if (!(conn->flags & AMG__CLOSING)) amg__complete(engine, conn, AMG_CONNECTED);
    if (conn->unsent > 0) amg__flush(engine, conn);
    else amg__drained(engine, conn);
}

/* -- binding ------------------------------------------------------------------------------------------------------- */

/* The length of the sockaddr, 0 when the text is no address. */
static socklen_t amg__parse(struct sockaddr_storage *address, const char *text, uint16_t port) {
    struct sockaddr_in *in = (struct sockaddr_in *)address;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)address;
    struct sockaddr_un *un = (struct sockaddr_un *)address;
    size_t length = strlen(text);

    memset(address, 0, sizeof *address);
    if (text[0] == '/') {
        if (length >= sizeof un->sun_path) return 0;
        un->sun_family = AF_UNIX;
        memcpy(un->sun_path, text, length);
        return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + 1);
    }
    if (inet_pton(AF_INET, text, &in->sin_addr) == 1) {
        in->sin_family = AF_INET;
        in->sin_port = htons(port);
        return sizeof *in;
    }
    if (inet_pton(AF_INET6, text, &in6->sin6_addr) == 1) {
        in6->sin6_family = AF_INET6;
        in6->sin6_port = htons(port);
        return sizeof *in6;
    }
    return 0;
}

int amg_bind(const char *address, uint16_t port, uint32_t kind, uint32_t flags, int backlog) {
    struct sockaddr_storage target;
    socklen_t length = amg__parse(&target, address, port);
    int is_listener = (kind & ~AMG_HTTP) == AMG_LISTENER, on = 1, v6_only = strcmp(address, "::") != 0, fd, failed;

    if (length == 0 || (!is_listener && (kind & ~AMG_HTTP) != AMG_DATAGRAM_SOCKET)) return -EINVAL;
    fd = amg__socket(target.ss_family, is_listener ? SOCK_STREAM : SOCK_DGRAM);
    if (fd < 0) return -errno;
    failed = 0;
    if (target.ss_family != AF_UNIX) {
        /* A listener may take over the port of one that has gone; two sockets for datagrams would share theirs. */
        if (is_listener) failed |= setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        if (flags & AMG_REUSEPORT) {
#if defined(SO_REUSEPORT)
            failed |= setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
#else
            failed = -1, errno = ENOPROTOOPT;
#endif
        }
        /* "::" is every address of this machine, 0.0.0.0 too. */
        if (target.ss_family == AF_INET6)
            failed |= setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6_only, sizeof v6_only);
    }
    if (failed < 0 || bind(fd, (const struct sockaddr *)&target, length) < 0 ||
        (is_listener && listen(fd, backlog) < 0)) {
        int error = errno;
        close(fd);
        return -error;
    }
    return fd;
}

#endif /* !_WIN32 */
