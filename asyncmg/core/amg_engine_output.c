/* What the engine sends: at once as far as the kernel takes it, the rest from a connection's backlog.
 * SPDX-License-Identifier: MIT
 */
#include "amg_engine.h"

#if !defined(_WIN32)

#include <stdlib.h>
#include <unistd.h>
#if defined(__linux__)
#include <signal.h>
#include <sys/sendfile.h>
#include <time.h>
#endif

/* -- backlog ------------------------------------------------------------------------------------------------------- */

static void amg__unshare(amg__shared *shared) {
    if (shared != NULL && --shared->references == 0) free(shared);
}

void amg__sent(amg_engine *engine, amg__conn *conn, uint64_t n) {
    conn->unsent -= n;
    while (conn->first != NULL) {
        amg__block *block = conn->first;
        uint32_t length = block->end - block->start;
        uint32_t taken = n < length ? (uint32_t)n : length;
        if (block->file < 0) engine->unsent -= taken;
        if (n < length) {
            block->start += taken;
            return;
        }
        n -= length;
        conn->first = block->next;
        amg__unshare(block->shared);
        free(block);
    }
    conn->last = NULL;
}

static amg__block *amg__new_block(amg__conn *conn, uint32_t size) {
    amg__block *block = malloc(sizeof *block + size);

    if (block == NULL) return NULL;
    block->next = NULL;
    block->shared = NULL;
    block->start = block->end = 0;
    block->size = size;
    block->offset = 0;
    block->file = -1;
    if (conn->last == NULL) conn->first = block;
    else conn->last->next = block;
    conn->last = block;
    return block;
}

/* Append a copy. An errno. */
static int amg__keep(amg_engine *engine, amg__conn *conn, const uint8_t *data, size_t n) {
    if (n > engine->config.max_backlog - engine->unsent) return ENOBUFS;
    conn->unsent += n;
    engine->unsent += n;
    while (n > 0) {
        amg__block *block = conn->last;
        uint32_t room = block == NULL || block->shared != NULL || block->file >= 0 ? 0 : block->size - block->end;
        if (room == 0) {
            uint32_t size = block == NULL ? 0 : 2 * block->size;
            if (size < n) size = n < AMG__MAX_BLOCK ? (uint32_t)n : AMG__MAX_BLOCK;
            if (size < AMG__MIN_BLOCK) size = AMG__MIN_BLOCK;
            if (size > AMG__MAX_BLOCK) size = AMG__MAX_BLOCK;
            block = amg__new_block(conn, size);
            if (block == NULL) return ENOMEM;
            room = size;
        }
        if (room > n) room = (uint32_t)n;
        memcpy(block->own + block->end, data, room);
        block->end += room;
        data += room;
        n -= room;
    }
    return 0;
}

/* Append what is left of a payload that others need, too. Only small ones are shared: who keeps one may keep it for a
 * single unsent byte. An errno. */
static int amg__keep_shared(amg_engine *engine, amg__conn *conn, const uint8_t *data, size_t n, size_t sent,
                            amg__shared **shared) {
    amg__block *block;

    if (n > AMG__MAX_BLOCK) return amg__keep(engine, conn, data + sent, n - sent);
    if (n - sent > engine->config.max_backlog - engine->unsent) return ENOBUFS;
    if (*shared == NULL) {
        *shared = malloc(sizeof **shared + n);
        if (*shared == NULL) return ENOMEM;
        (*shared)->references = 1; /* the fan-out's own, until it is done */
        memcpy((*shared)->bytes, data, n);
    }
    block = amg__new_block(conn, 0);
    if (block == NULL) return ENOMEM;
    block->shared = *shared;
    block->start = (uint32_t)sent;
    block->end = (uint32_t)n;
    (*shared)->references++;
    conn->unsent += n - sent;
    engine->unsent += n - sent;
    return 0;
}

/* -- notices ------------------------------------------------------------------------------------------------------- */

static void amg__notice(amg_engine *engine, amg__conn *conn) {
    if (conn->flags & AMG__NOTICED) return;
    conn->flags |= AMG__NOTICED;
    engine->notices[engine->notice_count++].conn = amg__number(engine, conn);
}

void amg__finish_notices(amg_engine *engine) {
    uint32_t i;

    for (i = 0; i < engine->notice_count; i++) {
        amg_notice *notice = &engine->notices[i];
        amg__conn *conn = &engine->conns[notice->conn];
        conn->flags &= ~(uint32_t)AMG__NOTICED;
        if (conn->state != AMG__OPEN) notice->unsent = AMG_BROKEN;
        else notice->unsent = conn->unsent >= AMG_BROKEN ? AMG_BROKEN - 1 : (uint32_t)conn->unsent;
    }
}

/* -- streams ------------------------------------------------------------------------------------------------------- */

/* The number of bytes that the kernel took, or a negative errno. */
static ssize_t amg__write(int fd, struct iovec *pieces, int count) {
    ssize_t n;

    if (count == 1) {
        n = send(fd, pieces[0].iov_base, pieces[0].iov_len, MSG_NOSIGNAL);
    } else {
        struct msghdr message;
        memset(&message, 0, sizeof message);
        message.msg_iov = pieces;
        message.msg_iovlen = (uint8_t)count; /* an int or a size_t: this fits both */
        n = sendmsg(fd, &message, MSG_NOSIGNAL);
    }
    if (n >= 0) return n;
    return amg__is_again(errno) ? 0 : -errno;
}

void amg__drained(amg_engine *engine, amg__conn *conn) {
    if (conn->flags & AMG__CLOSING) amg__end(engine, conn, 0);
    else if (conn->flags & AMG__SHUTDOWN) (void)shutdown(conn->fd, SHUT_WR); /* if it fails, input will tell */
}

/* Read a piece of a file and send it. The number of bytes that the kernel took, or a negative errno. */
static ssize_t amg__copy_file(int fd, const amg__block *block, size_t n) {
    uint8_t piece[AMG__FILE_PIECE];
    struct iovec one;
    ssize_t got;

    if (n > sizeof piece) n = sizeof piece;
    got = pread(block->file, piece, n, (off_t)(block->offset + block->start));
    if (got < 0) return errno == EINTR ? 0 : -errno;
    if (got == 0) return -EIO;
    one.iov_base = piece;
    one.iov_len = (size_t)got;
    return amg__write(fd, &one, 1);
}

#if defined(__linux__)
/* sendfile() without the SIGPIPE that it may raise: send() has a flag for that, this has none. */
static ssize_t amg__sendfile(int fd, int file, off_t offset, size_t n) {
    const struct timespec at_once = {0, 0};
    sigset_t broken_pipe, before, pending;
    int error, is_pending;
    ssize_t sent;

    sigemptyset(&broken_pipe);
    sigaddset(&broken_pipe, SIGPIPE);
    (void)pthread_sigmask(SIG_BLOCK, &broken_pipe, &before);
    is_pending = sigpending(&pending) == 0 && sigismember(&pending, SIGPIPE); /* one of the program's own stays */
    sent = sendfile(fd, file, &offset, n);
    error = errno;
    if (sent < 0 && error == EPIPE && !is_pending) (void)sigtimedwait(&broken_pipe, NULL, &at_once);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = error;
    return sent;
}
#endif

/* Send what the kernel takes of a file, but no more than is fair. The same. */
static ssize_t amg__write_file(int fd, const amg__block *block) {
    size_t n = block->end - block->start;

    if (n > AMG__FILE_TURN) n = AMG__FILE_TURN;
#if defined(__linux__)
    {
        ssize_t sent = amg__sendfile(fd, block->file, (off_t)(block->offset + block->start), n);
        if (sent > 0) return sent;
        if (sent == 0) return -EIO; /* the file has become shorter */
        if (errno != EINVAL && errno != ENOSYS) return amg__is_again(errno) ? 0 : -errno;
    }
#endif
    return amg__copy_file(fd, block, n); /* not every file system lets its files be sent */
}

/* Send what the kernel takes of the beginning of the backlog: of memory, or of one file. The same. */
static ssize_t amg__write_backlog(const amg__conn *conn) {
    struct iovec pieces[AMG__MAX_PIECES];
    const amg__block *block;
    int count = 0;

    if (conn->first->file >= 0) return amg__write_file(conn->fd, conn->first);
    for (block = conn->first; block != NULL && block->file < 0 && count < AMG__MAX_PIECES; block = block->next) {
        const uint8_t *bytes = block->shared == NULL ? block->own : block->shared->bytes;
        pieces[count].iov_base = (void *)(uintptr_t)(bytes + block->start);
        pieces[count].iov_len = block->end - block->start;
        count++;
    }
    return amg__write(conn->fd, pieces, count);
}

void amg__flush(amg_engine *engine, amg__conn *conn) {
    ssize_t n = amg__write_backlog(conn);

    if (n < 0) {
        amg__end(engine, conn, (int)-n);
        return;
    }
    if (n == 0) return;
    amg__sent(engine, conn, (uint64_t)n);
    amg__complete(engine, conn, AMG_SENT)->length = conn->unsent > UINT32_MAX ? UINT32_MAX : (uint32_t)conn->unsent;
    if (conn->unsent > 0) return;
    amg__changed(engine, conn);
    amg__drained(engine, conn);
}

int amg__send_file(amg_engine *engine, amg__conn *conn, int file, const uint8_t *data, uint32_t length) {
    uint64_t place[2] = {0, 0}; /* offset and length */
    amg__block *block;
    ssize_t n = 0;

    if (conn->kind != AMG_STREAM || conn->flags & (AMG__SHUTDOWN | AMG__CLOSING)) return 0;
    if (length == sizeof place) memcpy(place, data, sizeof place);
    if (place[1] == 0) return 0;
    if (place[1] > UINT32_C(1) << 31 || place[0] > INT64_MAX - place[1]) return EINVAL;
    if (file < 0) return EBADF;
    block = amg__new_block(conn, 0);
    if (block == NULL) return ENOMEM;
    block->file = file;
    block->offset = place[0];
    block->end = (uint32_t)place[1];
    conn->unsent += place[1];
    if (conn->first == block && !(conn->flags & AMG__CONNECTING)) n = amg__write_backlog(conn);
    if (n > 0) amg__sent(engine, conn, (uint64_t)n);
    if (conn->unsent > 0) {
        amg__notice(engine, conn);
        amg__changed(engine, conn);
    }
    return n < 0 ? (int)-n : 0;
}

/* Send pieces of a stream. With shared, there is one piece, and others get the same. */
static void amg__output(amg_engine *engine, amg__conn *conn, struct iovec *pieces, int count, amg__shared **shared) {
    size_t sent = 0;
    int i, error = 0;

    if (conn->state == AMG__ENDED) amg__notice(engine, conn);
    if (conn->state != AMG__OPEN || conn->kind != AMG_STREAM || conn->flags & (AMG__SHUTDOWN | AMG__CLOSING)) return;
    if (conn->unsent == 0 && !(conn->flags & AMG__CONNECTING)) {
        ssize_t n = amg__write(conn->fd, pieces, count);
        if (n < 0) error = (int)-n;
        else sent = (size_t)n;
    }
    for (i = 0; i < count && error == 0; i++) {
        const uint8_t *data = pieces[i].iov_base;
        size_t n = pieces[i].iov_len;
        if (sent >= n) {
            sent -= n;
            continue;
        }
        if (shared != NULL) error = amg__keep_shared(engine, conn, data, n, sent, shared);
        else error = amg__keep(engine, conn, data + sent, n - sent);
        sent = 0;
    }
    if (error) amg__end(engine, conn, error);
    if (error || conn->unsent > 0) {
        amg__notice(engine, conn);
        amg__changed(engine, conn);
    }
}

void amg__send_gathered(amg_engine *engine) {
    if (engine->piece_count == 0) return;
    amg__output(engine, &engine->conns[engine->piece_number], engine->pieces, engine->piece_count, NULL);
    engine->piece_count = 0;
}

/* Consecutive pieces for one connection leave together, in one system call. */
void amg__gather(amg_engine *engine, uint32_t number, const uint8_t *data, uint32_t length) {
    if (length == 0) return;
    if (engine->piece_count == AMG__MAX_PIECES || engine->piece_number != number) amg__send_gathered(engine);
    engine->piece_number = number;
    engine->pieces[engine->piece_count].iov_base = (void *)(uintptr_t)data; /* sendmsg() does not write to it */
    engine->pieces[engine->piece_count].iov_len = length;
    engine->piece_count++;
}

void amg__fan_out(amg_engine *engine, const uint8_t *data, uint32_t length, uint32_t numbers) {
    amg__shared *shared = NULL;
    struct iovec piece;
    uint32_t i;

    if ((uint64_t)numbers * 4 >= length) return;
    for (i = 0; i < numbers; i++) {
        uint32_t number;
        memcpy(&number, data + (size_t)i * 4, sizeof number);
        if (number >= engine->config.max_conns) continue;
        piece.iov_base = (void *)(uintptr_t)(data + (size_t)numbers * 4);
        piece.iov_len = length - numbers * 4;
        amg__output(engine, &engine->conns[number], &piece, 1, &shared);
    }
    amg__unshare(shared);
}

/* -- datagrams ----------------------------------------------------------------------------------------------------- */

void amg__send_datagram(amg_engine *engine, amg__conn *conn, const uint8_t *data, uint32_t length,
                        uint32_t address_length) {
    struct sockaddr_storage address;
    ssize_t n;

    if (conn->kind != AMG_DATAGRAM_SOCKET || address_length > length || address_length > sizeof address) return;
    memcpy(&address, data, address_length);
    n = sendto(conn->fd, data + address_length, length - address_length, MSG_NOSIGNAL,
               address_length ? (const struct sockaddr *)&address : NULL, (socklen_t)address_length);
    /* UDP may lose a datagram anywhere, here too. */
    if (n < 0 && !amg__is_again(errno) && errno != ENOBUFS) amg__will_tell(engine, conn, errno);
}

#endif /* !_WIN32 */
