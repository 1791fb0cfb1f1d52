/* The engine in a C program, against plain sockets of the same process: every kind of completion and submission, and what
 * peers can do wrong. Arguments: epoll, kqueue or poll, and a directory for Unix sockets. It never sleeps to wait: it
 * polls the engine, with a bound. Exit code 1 at the first difference. */
#if defined(__linux__)
#define _GNU_SOURCE
#endif
#include "amg.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define CHECK(condition)                                                            \
    do {                                                                            \
        if (!(condition)) {                                                         \
            fprintf(stderr, "line %d: %s is false\n", __LINE__, #condition);        \
            exit(1);                                                                \
        }                                                                           \
        checks++;                                                                   \
    } while (0)

/* Poll until the condition holds, for five seconds at most. */
#define UNTIL(condition)                                                            \
    do {                                                                            \
        double limit_ = now() + 5;                                                  \
        while (!(condition)) {                                                      \
            CHECK(now() < limit_);                                                  \
            turn(20);                                                               \
        }                                                                           \
        checks++;                                                                   \
    } while (0)

enum { MAX_CONNS = 6000, CAPTURE = 1 << 17 };

static unsigned long checks;
static uint32_t poller;
static const char *directory;
static amg_engine *engine;

/* What has been told of each connection. */
static struct seen {
    uint32_t told[15]; /* by op */
    uint64_t bytes;
    uint32_t left; /* of the last AMG_SENT */
    int32_t error;
} seen[MAX_CONNS];
static uint32_t accepted[MAX_CONNS], accepted_count, timeouts[MAX_CONNS], timeout_count, completion_count;
static uint8_t capture[CAPTURE]; /* bytes that came, of all connections */
static uint32_t captured;
static uint8_t frames[4 * CAPTURE]; /* that came, of all connections, see note_frame() */
static size_t frames_size;
static int in_frame;
static uint32_t frames_error;
static uint64_t frames_value, frames_bytes;
static struct { /* who has used AMG_OP_MQTT: reads what does not come in one piece */
    int is_there;
    amg_mqtt_limits limits;
    amg_mqtt codec;
    uint8_t kept[CAPTURE];
    size_t size;
} mqtt_user;
static uint8_t packets[2 * CAPTURE]; /* that came, see note_packet() */
static size_t packets_size;
static uint32_t packet_count, packet_error, packet_value;
static amg_completion requests[64];
static uint32_t request_count;

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void forget(void) {
    accepted_count = timeout_count = completion_count = captured = request_count = 0;
    frames_size = 0;
    in_frame = 0;
    frames_error = 0;
    frames_value = frames_bytes = 0;
    packets_size = mqtt_user.size = 0;
    packet_count = packet_error = packet_value = 0;
}

static void add_frame_bytes(const void *bytes, size_t n) {
    CHECK(frames_size + n <= sizeof frames);
    if (n) memcpy(frames + frames_size, bytes, n);
    frames_size += n;
}

/* Write down a record so that it does not matter how the bytes came: flags at a frame's beginning, payload, flags at its
 * end. */
static void note_frame(uint32_t flags, const uint8_t *place, uint32_t offset, uint32_t length, uint32_t error) {
    uint8_t begin = flags & 0x4f, end = flags & (AMG_WS_FIN | AMG_WS_END_OF_FRAME);

    CHECK(!frames_error);
    if (flags & AMG_WS_ERROR) {
        CHECK(flags == AMG_WS_ERROR && error != 0);
        frames_error = error;
        frames_value = (uint64_t)length << 32 | offset;
        return;
    }
    CHECK(flags < 0x100 && error == 0 && (length || end));
    if (!in_frame) add_frame_bytes(&begin, 1);
    add_frame_bytes(place + offset, length);
    if (end) add_frame_bytes(&end, 1);
    in_frame = !end;
}

/* Write down a packet so that it does not matter how it came. */
static void note_packet(const amg_mqtt_record *record, const uint8_t *place) {
    size_t n = record->end - record->begin;

    CHECK(!packet_error);
    if (!record->first) {
        packet_error = record->packet_id;
        packet_value = record->begin;
        return;
    }
    CHECK(packets_size + n + 4 <= sizeof packets);
    CHECK(record->begin <= record->topic_end && record->topic_end <= record->properties);
    CHECK(record->properties <= record->payload && record->payload <= record->end);
    packets[packets_size++] = record->first;
    packets[packets_size++] = record->first >> 4 == 3 ? 0 : record->reason;
    packets[packets_size++] = (uint8_t)(record->packet_id >> 8);
    packets[packets_size++] = (uint8_t)record->packet_id;
    memcpy(packets + packets_size, place + record->begin, n);
    packets_size += n;
    packet_count++;
}

/* The user's codec reads bytes. */
static void read_packets(const uint8_t *data, size_t n) {
    amg_mqtt_record records[8];
    size_t position, whole, count, i;

    CHECK(mqtt_user.size + n <= CAPTURE);
    memcpy(mqtt_user.kept + mqtt_user.size, data, n);
    mqtt_user.size += n;
    do {
        position = 0;
        count = amg_mqtt_read(&mqtt_user.codec, &mqtt_user.limits, mqtt_user.kept, mqtt_user.size, &position, records, 8,
                              &whole);
        for (i = 0; i < count; i++) note_packet(&records[i], mqtt_user.kept);
        mqtt_user.size -= position;
        memmove(mqtt_user.kept, mqtt_user.kept + position, mqtt_user.size);
    } while (count == 8);
}

/* What an AMG_PACKET or AMG_PACKETS tells; the bytes that it says have come. */
static uint32_t note_packets(const amg_completion *told, const uint8_t *arena) {
    amg_mqtt_record record;
    uint32_t place = told->offset, end = place + told->length, before = told->method_length;

    CHECK(mqtt_user.size == 0);
    if (told->op == AMG_PACKET) {
        record.first = (uint8_t)told->flags;
        record.reason = 0;
        record.packet_id = (uint16_t)told->error;
        record.begin = told->offset;
        record.topic_end = told->length;
        record.properties = told->head;
        record.payload = told->method_length;
        record.end = told->target_length;
        CHECK(record.first && arena[record.begin - (told->flags >> 8)] == record.first);
        note_packet(&record, arena);
        return record.end - record.begin + (told->flags >> 8);
    }
    CHECK(told->head > 0 && told->length % sizeof record == 0 && told->length > 0 && place % 4 == 0);
    for (; place < end; place += (uint32_t)sizeof record) {
        memcpy(&record, arena + place, sizeof record);
        if (record.first) CHECK(record.begin > before && record.end <= told->method_length + told->head);
        if (record.first) before = record.end;
        note_packet(&record, arena);
    }
    CHECK(before == told->method_length + told->head || packet_error || record.first >> 4 == 14);
    return told->head;
}

static void start(uint32_t max_conns, uint32_t max_completions, uint32_t arena_size, uint64_t max_backlog) {
    amg_engine_config config;

    memset(&config, 0, sizeof config);
    config.max_conns = max_conns;
    config.max_completions = max_completions;
    config.arena_size = arena_size;
    config.max_read = 65536;
    config.max_backlog = max_backlog;
    config.poller = poller;
    config.accept_retry_ms = 40;
    config.http.max_request_line = config.http.max_field_line = 8190;
    config.http.max_header_size = 32768;
    config.http.max_fields = 100;
    config.http.max_chunk_line = 4096;
    config.http.max_chunk_extensions = config.http.max_trailer_size = 16384;
    engine = amg_engine_new(&config);
    CHECK(engine != NULL);
    memset(seen, 0, sizeof seen);
    forget();
}

static void stop(void) {
    amg_engine_free(engine);
    engine = NULL;
}

static uint32_t turn(int timeout) {
    uint32_t i, n = amg_engine_poll(engine, timeout);
    const amg_completion *completion = amg_engine_completions(engine);
    const uint8_t *arena = amg_engine_arena(engine);

    for (i = 0; i < n; i++, completion++) {
        struct seen *conn = &seen[completion->conn];
        CHECK(completion->conn < MAX_CONNS && completion->op >= AMG_ACCEPTED && completion->op <= AMG_PACKETS);
        if (completion->op == AMG_ACCEPTED) memset(conn, 0, sizeof *conn);
        CHECK(conn->told[AMG_CLOSED] == 0); /* nothing follows it */
        conn->told[completion->op]++;
        if (completion->op == AMG_ACCEPTED) {
            CHECK(accepted_count < MAX_CONNS);
            accepted[accepted_count++] = completion->conn;
        }
        if (completion->op == AMG_TIMEOUT) timeouts[timeout_count++] = completion->conn;
        if (completion->op == AMG_SENT) conn->left = completion->length;
        if (completion->op == AMG_CLOSED || completion->op == AMG_FAILED) conn->error = completion->error;
        if (completion->op == AMG_FRAME) {
            CHECK(completion->head > 0);
            frames_bytes += completion->head;
            note_frame(completion->flags, arena, completion->offset, completion->length, (uint32_t)completion->error);
        }
        if (completion->op == AMG_FRAMES) {
            amg_ws_record record;
            uint32_t place = completion->offset, end = place + completion->length;
            CHECK(completion->head > 0 && completion->length % sizeof record == 0 && completion->length != sizeof record);
            CHECK(place % 4 == 0);
            frames_bytes += completion->head;
            for (; place < end; place += (uint32_t)sizeof record) {
                memcpy(&record, arena + place, sizeof record);
                note_frame(record.flags, arena, record.offset, record.length, record.error);
            }
        }
        if (completion->op == AMG_PACKET || completion->op == AMG_PACKETS)
            conn->bytes += note_packets(completion, arena);
        if (completion->op == AMG_DATA && mqtt_user.is_there) {
            conn->bytes += completion->length;
            read_packets(arena + completion->offset, completion->length);
            continue;
        }
        if (completion->op == AMG_REQUEST && request_count < 64) {
            requests[request_count] = *completion;
            requests[request_count++].offset = captured;
        }
        if (completion->op == AMG_DATA || completion->op == AMG_REQUEST || completion->op == AMG_DATAGRAM) {
            CHECK(completion->length > 0 || completion->op == AMG_DATAGRAM);
            conn->bytes += completion->length - (completion->op == AMG_DATAGRAM ? completion->head : 0);
            if (captured + completion->length <= CAPTURE) {
                memcpy(capture + captured, arena + completion->offset, completion->length);
                captured += completion->length;
            }
        }
    }
    completion_count += n;
    return n;
}

/* -- submissions ---------------------------------------------------------------------------------------------------- */

static uint8_t *queue;
static size_t queued, queue_size;

static void put(uint32_t op, uint32_t conn, uint32_t arg, const void *payload, size_t length) {
    amg_submission submission;

    memset(&submission, 0, sizeof submission);
    submission.op = (uint16_t)op;
    submission.conn = conn;
    submission.arg = arg;
    submission.length = (uint32_t)length;
    if (queued + sizeof submission + length > queue_size) {
        queue_size = 2 * (queued + sizeof submission + length);
        queue = realloc(queue, queue_size);
        CHECK(queue != NULL);
    }
    memcpy(queue + queued, &submission, sizeof submission);
    queued += sizeof submission;
    if (length > 0) memcpy(queue + queued, payload, length);
    queued += length;
}

/* The submissions lie in a block of exactly their size, for the address sanitizer. */
static uint32_t submit(void) {
    uint8_t *exact = malloc(queued);
    uint32_t notices;

    CHECK(exact != NULL);
    memcpy(exact, queue, queued);
    notices = amg_engine_submit(engine, exact, queued);
    free(exact);
    queued = 0;
    return notices;
}

static uint32_t one(uint32_t op, uint32_t conn, uint32_t arg) {
    put(op, conn, arg, NULL, 0);
    return submit();
}

static uint32_t send_text(uint32_t conn, const void *bytes, size_t length) {
    put(AMG_OP_SEND, conn, 0, bytes, length);
    return submit();
}

/* -- sockets -------------------------------------------------------------------------------------------------------- */

static uint32_t adopt(int fd, uint32_t kind) {
    int64_t number = amg_engine_adopt(engine, fd, kind);

    CHECK(number >= 0 && number < MAX_CONNS);
    memset(&seen[number], 0, sizeof seen[number]);
    return (uint32_t)number;
}

/* A connection of the engine and the plain socket at its other end. */
static uint32_t unix_pair(int *peer) {
    int ends[2];

    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    *peer = ends[1];
    return adopt(ends[0], AMG_STREAM);
}

static struct sockaddr_in own_address(int fd) {
    struct sockaddr_in address;
    socklen_t length = sizeof address;

    memset(&address, 0, sizeof address);
    CHECK(getsockname(fd, (struct sockaddr *)&address, &length) == 0);
    return address;
}

static uint32_t listen_tcp(uint32_t kind) {
    int fd = amg_bind("127.0.0.1", 0, AMG_LISTENER, 0, 1024);

    CHECK(fd >= 0);
    return adopt(fd, kind);
}

static int dial(uint32_t listener) {
    struct sockaddr_in address = own_address(amg_engine_socket(engine, listener));
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    CHECK(fd >= 0);
    CHECK(connect(fd, (const struct sockaddr *)&address, sizeof address) == 0);
    return fd;
}

static uint32_t tcp_pair(uint32_t listener, int *peer) {
    uint32_t before = accepted_count;

    one(AMG_OP_ACCEPT, listener, 1);
    *peer = dial(listener);
    UNTIL(accepted_count == before + 1);
    return accepted[before];
}

static void write_all(int fd, const void *bytes, size_t length) {
    CHECK(send(fd, bytes, length, MSG_NOSIGNAL) == (ssize_t)length);
}

/* What there is now; 0 when there is nothing, -1 at the end or an error. */
static ssize_t read_some(int fd, void *bytes, size_t length) {
    ssize_t n = recv(fd, bytes, length, MSG_DONTWAIT);

    if (n > 0) return n;
    return n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK) ? 0 : -1;
}

static void reset(int fd) {
    struct linger linger = {1, 0};

    CHECK(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger) == 0);
    close(fd);
}

static void expect(int fd, const char *text) {
    char got[64];
    size_t n = 0;
    double limit = now() + 5;

    while (n < strlen(text)) {
        ssize_t more = read_some(fd, got + n, strlen(text) - n);
        CHECK(more >= 0 && now() < limit);
        n += (size_t)more;
        turn(0);
    }
    CHECK(memcmp(got, text, n) == 0);
}

static uint8_t pattern(uint64_t position) { return (uint8_t)(position * 31 + (position >> 8) * 7); }

static uint8_t *patterned(size_t n) {
    uint8_t *bytes = malloc(n);
    size_t i;

    CHECK(bytes != NULL);
    for (i = 0; i < n; i++) bytes[i] = pattern(i);
    return bytes;
}

/* Read the pattern from a peer, turning the engine meanwhile, until n bytes are there or the stream ends. */
static uint64_t read_pattern(int fd, uint64_t position, uint64_t until) {
    static uint8_t bytes[65536];
    double limit = now() + 5;

    while (position < until) {
        ssize_t i = 0, n = read_some(fd, bytes, until - position < sizeof bytes ? until - position : sizeof bytes);
        CHECK(now() < limit);
        if (n < 0) break;
        for (; i < n; i++)
            if (bytes[i] != pattern(position + (uint64_t)i)) break;
        CHECK(n == i);
        position += (uint64_t)n;
        turn(0);
    }
    return position;
}

static int is_at_end(int fd) {
    char byte;
    return read_some(fd, &byte, 1) < 0;
}

static void close_and_release(uint32_t conn) {
    one(AMG_OP_ABORT, conn, 0);
    UNTIL(seen[conn].told[AMG_CLOSED]);
    one(AMG_OP_RELEASE, conn, 0);
}

/* Nothing keeps poll() from waiting. */
static void expect_idle(void) {
    double begin = now();
    int i;

    for (i = 0; i < 3; i++) CHECK(turn(15) == 0);
    CHECK(now() - begin > 0.040);
}

/* -- the checks ----------------------------------------------------------------------------------------------------- */

static void check_creation(void) {
    amg_engine_config good, bad;
    int fd;

    memset(&good, 0, sizeof good);
    good.max_conns = 1, good.max_completions = 16, good.arena_size = 2048, good.max_read = 1024;
    good.poller = poller;
    bad = good, bad.max_conns = 0, errno = 0;
    CHECK(amg_engine_new(&bad) == NULL && errno == EINVAL);
    bad = good, bad.max_conns = (1u << 20) + 1, errno = 0;
    CHECK(amg_engine_new(&bad) == NULL && errno == EINVAL);
    bad = good, bad.max_completions = 15, errno = 0;
    CHECK(amg_engine_new(&bad) == NULL && errno == EINVAL);
    bad = good, bad.arena_size = 2047, errno = 0;
    CHECK(amg_engine_new(&bad) == NULL && errno == EINVAL);
    bad = good, bad.max_read = 1023, errno = 0;
    CHECK(amg_engine_new(&bad) == NULL && errno == EINVAL);
    bad = good, bad.poller = 4, errno = 0;
    CHECK(amg_engine_new(&bad) == NULL && errno == EINVAL);
#if defined(__linux__)
    bad = good, bad.poller = AMG_POLLER_KQUEUE, errno = 0;
    CHECK(amg_engine_new(&bad) == NULL && errno == ENOSYS);
#endif
    amg_engine_free(NULL);
    bad = good, bad.poller = AMG_POLLER_AUTO, bad.max_conns = 1u << 20;
    engine = amg_engine_new(&bad);
    CHECK(engine != NULL);
    stop();

    engine = amg_engine_new(&good);
    CHECK(engine != NULL && amg_engine_wait(engine) == -1 && amg_engine_poll(engine, 0) == 0);
    CHECK((amg_engine_fd(engine) < 0) == (poller == AMG_POLLER_POLL));
    CHECK(amg_engine_adopt(engine, -1, AMG_STREAM) == -EBADF);
    CHECK(amg_engine_adopt(engine, 0, 3) == -EINVAL);
    fd = open("/dev/null", O_RDONLY);
    CHECK(fd >= 0 && amg_engine_adopt(engine, fd, AMG_STREAM) == -ENOTSOCK);
    close(fd);
    CHECK(amg_engine_connect(engine, "", 1) == -EINVAL);
    CHECK(amg_engine_socket(engine, 0) == -1 && amg_engine_socket(engine, 99) == -1);
    CHECK(amg_engine_unsent(engine, 0) == 0 && amg_engine_unsent(engine, 99) == 0);
    stop();
}

static void check_bind(void) {
    char path[200];
    int first, second;
    uint16_t port;

    CHECK(amg_bind("localhost", 0, AMG_LISTENER, 0, 1) == -EINVAL);
    CHECK(amg_bind("", 0, AMG_LISTENER, 0, 1) == -EINVAL);
    CHECK(amg_bind("127.0.0.1", 0, AMG_STREAM, 0, 1) == -EINVAL);
    memset(path, 'x', sizeof path);
    path[0] = '/', path[sizeof path - 1] = '\0';
    CHECK(amg_bind(path, 0, AMG_LISTENER, 0, 1) == -EINVAL);
    first = amg_bind("127.0.0.1", 0, AMG_LISTENER | AMG_HTTP, AMG_REUSEPORT, 1);
    CHECK(first >= 0 && (fcntl(first, F_GETFD) & FD_CLOEXEC) && (fcntl(first, F_GETFL) & O_NONBLOCK));
    port = ntohs(own_address(first).sin_port);
    second = amg_bind("127.0.0.1", port, AMG_LISTENER, AMG_REUSEPORT, 1);
    CHECK(second >= 0);
    CHECK(amg_bind("127.0.0.1", port, AMG_LISTENER, 0, 1) == -EADDRINUSE);
    close(first), close(second);
    first = amg_bind("::1", 0, AMG_DATAGRAM_SOCKET, 0, 0);
    CHECK(first >= 0 || first == -EADDRNOTAVAIL || first == -EAFNOSUPPORT);
    if (first >= 0) close(first);
}

static void check_accept(uint32_t kind) {
    uint32_t listener, i;
    int peers[100], on = 0, fd;
    socklen_t length = sizeof on;
    struct sockaddr_in address, expected;
    const amg_completion *completion;

    start(200, 256, 65536, 1 << 20);
    listener = listen_tcp(kind);
    for (i = 0; i < 3; i++) peers[i] = dial(listener);
    expect_idle(); /* without credit */
    one(AMG_OP_ACCEPT, listener, 2);
    while (accepted_count < 2) {
        turn(1000);
        completion = amg_engine_completions(engine);
        CHECK(completion->op == AMG_ACCEPTED && completion->head == listener && completion->length == sizeof address);
        memcpy(&address, amg_engine_arena(engine) + completion->offset, sizeof address);
        expected = own_address(peers[0]);
        if (completion->conn == accepted[0])
            CHECK(address.sin_port == expected.sin_port && address.sin_addr.s_addr == expected.sin_addr.s_addr);
    }
    expect_idle();
    CHECK(accepted_count == 2);
    fd = amg_engine_socket(engine, accepted[0]);
    CHECK((fcntl(fd, F_GETFL) & O_NONBLOCK) && (fcntl(fd, F_GETFD) & FD_CLOEXEC));
    CHECK(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, &length) == 0 && on);
    one(AMG_OP_ACCEPT, listener, UINT32_MAX);
    one(AMG_OP_ACCEPT, listener, UINT32_MAX);
    UNTIL(accepted_count == 3);

    for (i = 3; i < 100; i++) peers[i] = dial(listener);
    turn(1000);
    CHECK(accepted_count == 3 + 64); /* a burst */
    UNTIL(accepted_count == 100);
    for (i = 0; i < 100; i++) { /* echo */
        forget();
        write_all(peers[i], "hello", 5);
        UNTIL(captured == 5);
        CHECK(memcmp(capture, "hello", 5) == 0);
        turn(0);
        CHECK(captured == 5);
    }
    forget();
    write_all(peers[7], "x", 1);
    UNTIL(captured == 1);
    CHECK(send_text(amg_engine_completions(engine)->conn, "answer", 6) == 0);
    expect(peers[7], "answer");
    for (i = 0; i < 100; i++) close(peers[i]);
    for (i = 0; i < 5; i++) turn(10);
    one(AMG_OP_CLOSE, listener, 0);
    UNTIL(seen[listener].told[AMG_CLOSED] && seen[listener].error == 0);
    stop();
}

static void check_requests(void) {
    enum { FIRST = 28 }; /* length of the first one */
    static const char three[] = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
                                "POST /bc HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
                                "DELETE /d HTTP/1.0\r\n\r\n"
                                "GET /unfinished HTTP/1.1\r\nHo";
    uint32_t listener, conn, many, i;
    double limit;
    int peer;

    start(16, 16, 65536, 1 << 20);
    listener = listen_tcp(AMG_LISTENER | AMG_HTTP);
    conn = tcp_pair(listener, &peer);
    forget();
    write_all(peer, three, sizeof three - 1);
    UNTIL(captured == sizeof three - 1);
    CHECK(memcmp(capture, three, captured) == 0);
    CHECK(request_count == 3 && seen[conn].told[AMG_REQUEST] == 3 && seen[conn].told[AMG_DATA] == 1);
    CHECK(requests[0].head == requests[0].length && requests[0].method_length == 3 && requests[0].target_length == 2);
    CHECK(requests[1].length == requests[1].head + 5 && requests[1].target_length == 3);
    CHECK(memcmp(capture + requests[1].offset, "POST /bc", 8) == 0 && requests[1].flags & AMG_HTTP_KEEP_ALIVE);
    CHECK(memcmp(capture + requests[1].offset + requests[1].head, "hello", 5) == 0);
    CHECK(requests[2].method_length == 6 && requests[2].flags & AMG_HTTP_10);

    /* More requests than completions: what has no record of its own is bytes. */
    forget();
    for (many = 0; many < 40; many++) write_all(peer, three, FIRST);
    UNTIL(captured == 40 * FIRST);
    CHECK(request_count >= 15);
    for (i = 0; i < 40; i++) CHECK(memcmp(capture + FIRST * i, three, FIRST) == 0);

    /* However many come, deadlines have their turn. */
    one(AMG_OP_DEADLINE, conn, 1);
    limit = now() + 5;
    while (!seen[conn].told[AMG_TIMEOUT]) {
        for (many = 0; many < 40; many++) write_all(peer, three, FIRST);
        turn(0);
        CHECK(now() < limit);
        forget();
    }
    while (turn(0) > 0) {}

    /* Nothing is lost of what comes before a request: it may be content that only looks like this. */
    forget();
    write_all(peer, "\r\n", 2);
    write_all(peer, three, FIRST);
    UNTIL(captured == 2 + FIRST);
    CHECK(memcmp(capture, "\r\nGET", 5) == 0);

    /* What is no simple request, and what is none at all. */
    forget();
    write_all(peer, "\x16\x03\x01 is not HTTP", 14);
    UNTIL(captured == 14);
    CHECK(request_count == 0);
    close(peer);
    UNTIL(seen[conn].told[AMG_EOF]);

    conn = tcp_pair(listener, &peer); /* without AMG_HTTP there are bytes only */
    close(peer);
    conn = unix_pair(&peer);
    forget();
    write_all(peer, three, FIRST);
    UNTIL(captured == FIRST);
    CHECK(request_count == 0 && seen[conn].told[AMG_DATA] == 1);
    close(peer);
    stop();
}

/* At most 64 requests of one connection in one poll: what has come behind them is one AMG_DATA. */
static void check_share_of_requests(void) {
    enum { LENGTH = 28, MAX = 130 };
    static const char request[] = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n";
    static const struct {
        uint32_t sent, requests, rest; /* rest: bytes of an unfinished one behind those that are sent */
    } cases[] = {{63, 63, 0}, {64, 64, 0}, {64, 64, 7}, {65, 64, 0}, {MAX, 64, 0}, {MAX, 64, 7}, {1, 1, 0}};
    static char text[(MAX + 1) * LENGTH];
    uint32_t conns[3], i, k;
    int peers[3];

    CHECK(sizeof request - 1 == LENGTH);
    for (i = 0; i <= MAX; i++) memcpy(text + i * LENGTH, request, LENGTH);
    start(4, 256, 65536, 1 << 20);
    for (i = 0; i < 3; i++) {
        int ends[2];
        CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
        conns[i] = adopt(ends[0], AMG_STREAM | AMG_HTTP);
        peers[i] = ends[1];
    }
    for (k = 0; k < sizeof cases / sizeof cases[0]; k++) {
        uint32_t length = cases[k].sent * LENGTH + cases[k].rest, behind = length - cases[k].requests * LENGTH;
        forget();
        memset(seen, 0, sizeof seen);
        for (i = 0; i < 3; i++) write_all(peers[i], text, length);
        /* Each of them has its share in the same poll, and nothing is left for the next. */
        CHECK(turn(1000) == 3 * (cases[k].requests + (behind > 0)) && turn(0) == 0);
        for (i = 0; i < 3; i++) {
            CHECK(seen[conns[i]].told[AMG_REQUEST] == cases[k].requests && seen[conns[i]].bytes == length);
            CHECK(seen[conns[i]].told[AMG_DATA] == (behind > 0));
            CHECK(memcmp(capture + i * length, text, length) == 0);
        }
        CHECK(captured == 3 * length);
    }
    for (i = 0; i < 3; i++) close(peers[i]);
    stop();
}

static void check_backlog(void) {
    const size_t size = 4 << 20;
    uint8_t *bytes = patterned(size);
    uint32_t conn, last, i, notices;
    size_t offset;
    uint64_t got;
    int peer;

    start(16, 64, 65536, 8 << 20);
    conn = unix_pair(&peer);
    CHECK(send_text(conn, bytes, size) == 1);
    CHECK(amg_engine_notices(engine)->conn == conn);
    last = amg_engine_notices(engine)->unsent;
    CHECK(last > 0 && last < size && last == amg_engine_unsent(engine, conn));
    expect_idle(); /* the peer does not read */
    got = read_pattern(peer, 0, size);
    CHECK(got == size && seen[conn].left == 0 && seen[conn].told[AMG_SENT] > 1 && amg_engine_unsent(engine, conn) == 0);
    expect_idle();

    /* The same in many pieces of all sizes, over several submissions, some while there is a backlog. */
    for (offset = 0, i = 0; offset < size; i++) {
        size_t n = i % 7 == 0 ? 1 : i % 5 == 0 ? 40000 : 1 + i * 13 % 3000;
        if (n > size - offset) n = size - offset;
        put(AMG_OP_SEND, conn, 0, bytes + offset, n);
        put(AMG_OP_SEND, conn, 0, bytes + offset, 0);
        offset += n;
        if (i % 100 == 99) {
            notices = submit();
            CHECK(notices <= 1 && (notices == 0 || amg_engine_notices(engine)->unsent == amg_engine_unsent(engine, conn)));
        }
    }
    submit();
    CHECK(read_pattern(peer, 0, size) == size);
    CHECK(amg_engine_unsent(engine, conn) == 0);

    /* Paused: nothing comes in, and output goes on. */
    forget();
    put(AMG_OP_SEND, conn, 0, bytes, size);
    put(AMG_OP_PAUSE, conn, 0, NULL, 0);
    CHECK(submit() == 1);
    write_all(peer, "input", 5);
    CHECK(read_pattern(peer, 0, size) == size);
    expect_idle();
    CHECK(captured == 0);
    put(AMG_OP_RESUME, conn, 0, NULL, 0);
    put(AMG_OP_PAUSE, conn, 0, NULL, 0);
    put(AMG_OP_RESUME, conn, 0, NULL, 0);
    CHECK(submit() == 0);
    UNTIL(captured == 5);
    close(peer);
    UNTIL(seen[conn].told[AMG_EOF]);
    expect_idle();
    stop();
    free(bytes);
}

static uint32_t put_file(uint32_t conn, int file, uint64_t offset, uint64_t length) {
    uint64_t place[2];

    place[0] = offset, place[1] = length;
    put(AMG_OP_SEND_FILE, conn, (uint32_t)file, place, sizeof place);
    return submit();
}

/* Parts of a file between bytes in memory, in order, and none of it in memory; what is wrong with a file ends one
 * connection only. */
static void check_files(void) {
    const size_t size = 4 << 20;
    uint8_t *bytes = patterned(size);
    char path[256];
    uint32_t conn, i;
    int file, peer;

    start(16, 64, 65536, 64 << 10); /* the backlog of a file counts for nothing */
    snprintf(path, sizeof path, "%s/file", directory);
    file = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    CHECK(file >= 0 && write(file, bytes, size) == (ssize_t)size);

    conn = unix_pair(&peer);
    CHECK(send_text(conn, bytes, 5) == 0);
    CHECK(put_file(conn, file, 5, size - 1005) == 1);
    CHECK(amg_engine_unsent(engine, conn) > size / 2);
    CHECK(send_text(conn, bytes + size - 1000, 500) == 1);
    CHECK(put_file(conn, file, size - 500, 500) == 1);
    CHECK(put_file(conn, file, 0, 0) == 0);
    expect_idle();
    CHECK(read_pattern(peer, 0, size) == size);
    CHECK(seen[conn].left == 0 && amg_engine_unsent(engine, conn) == 0);

    /* It waits for the backlog before it closes. */
    for (i = 0; i < 2; i++) CHECK(put_file(conn, file, i * size / 2, size / 2) == 1);
    one(AMG_OP_CLOSE, conn, 0);
    CHECK(read_pattern(peer, 0, size + 1) == size);
    UNTIL(seen[conn].told[AMG_CLOSED]);
    CHECK(seen[conn].error == 0);
    one(AMG_OP_RELEASE, conn, 0);
    close(peer);

    /* A file that is shorter than that, no file, a place that cannot be. */
    for (i = 0; i < 4; i++) {
        conn = unix_pair(&peer);
        if (i == 0) put_file(conn, file, size - 10, 11);
        if (i == 1) put_file(conn, 12345, 0, 10);
        if (i == 2) put_file(conn, file, 0, (UINT64_C(1) << 31) + 1);
        if (i == 3) put_file(conn, file, UINT64_MAX - 5, 100);
        UNTIL(seen[conn].told[AMG_CLOSED]);
        CHECK(seen[conn].error == (i == 0 ? EIO : i == 1 ? EBADF : EINVAL));
        CHECK(read_pattern(peer, size - 10, size) == (i == 0 ? size : size - 10) && is_at_end(peer));
        one(AMG_OP_RELEASE, conn, 0);
        close(peer);
    }

    /* Cut off in the middle, by us, by the peer (without a signal), with the engine itself. */
    for (i = 0; i < 3; i++) {
        conn = unix_pair(&peer);
        CHECK(put_file(conn, file, 0, size) == 1 && put_file(conn, file, 0, size) == 1);
        if (i == 0) close_and_release(conn);
        if (i == 1) {
            close(peer);
            UNTIL(seen[conn].told[AMG_CLOSED]);
            one(AMG_OP_RELEASE, conn, 0);
        } else if (i == 0) {
            close(peer);
        }
    }
    CHECK(ftruncate(file, 100) == 0);
    stop();
    close(peer);
    close(file);
    unlink(path);
    free(bytes);
}

static void check_closing(void) {
    const size_t size = 1 << 20;
    uint8_t *bytes = patterned(size);
    uint32_t listener, conn;
    uint64_t got;
    int peer, copy;

    start(4, 64, 65536, 8 << 20);
    listener = listen_tcp(AMG_LISTENER);
    /* CLOSE lets the backlog leave; what is sent behind it does not. */
    conn = unix_pair(&peer);
    put(AMG_OP_SEND, conn, 0, bytes, size);
    put(AMG_OP_CLOSE, conn, 0, NULL, 0);
    put(AMG_OP_SEND, conn, 0, "late", 4);
    CHECK(submit() == 1);
    one(AMG_OP_RELEASE, conn, 0); /* too early: ignored */
    write_all(peer, "unheard", 7);
    expect_idle();
    CHECK(read_pattern(peer, 0, size + 10) == size && is_at_end(peer));
    UNTIL(seen[conn].told[AMG_CLOSED]);
    CHECK(seen[conn].error == 0 && seen[conn].bytes == 0 && amg_engine_socket(engine, conn) == -1);
    close(peer);

    { /* Its number is not given away before RELEASE, and is then. */
        int ends[2];
        uint32_t a = unix_pair(&ends[0]), b = unix_pair(&ends[1]);
        struct sockaddr_in address = own_address(amg_engine_socket(engine, listener));
        CHECK(a != conn && b != conn);
        CHECK(amg_engine_connect(engine, &address, sizeof address) == -ENFILE);
        one(AMG_OP_RELEASE, conn, 0);
        CHECK(unix_pair(&peer) == conn);
        close(ends[0]), close(ends[1]), close(peer);
        close_and_release(a), close_and_release(b), close_and_release(conn);
    }

    /* CLOSE without a backlog. */
    conn = unix_pair(&peer);
    put(AMG_OP_SEND, conn, 0, "bye", 3);
    put(AMG_OP_CLOSE, conn, 0, NULL, 0);
    CHECK(submit() == 0 && amg_engine_wait(engine) == 0);
    expect(peer, "bye");
    UNTIL(seen[conn].told[AMG_CLOSED]);
    CHECK(seen[conn].error == 0 && is_at_end(peer) && amg_engine_wait(engine) == -1);
    one(AMG_OP_RELEASE, conn, 0);
    close(peer);

    /* ABORT drops it. */
    conn = unix_pair(&peer);
    put(AMG_OP_SEND, conn, 0, bytes, size);
    put(AMG_OP_ABORT, conn, 0, NULL, 0);
    put(AMG_OP_SEND, conn, 0, bytes, size);
    put(AMG_OP_DEADLINE, conn, 1, NULL, 0);
    put(AMG_OP_RELEASE, conn, 0, NULL, 0); /* too early, once more */
    CHECK(submit() == 1 && amg_engine_notices(engine)->unsent == AMG_BROKEN && amg_engine_unsent(engine, conn) == 0);
    CHECK(amg_engine_wait(engine) == 0);
    got = read_pattern(peer, 0, size);
    CHECK(got > 0 && got < size && is_at_end(peer));
    CHECK(seen[conn].told[AMG_CLOSED] == 1 && seen[conn].error == 0);
    one(AMG_OP_RELEASE, conn, 0);
    close(peer);

    /* A descriptor that a child has inherited does not keep the poller busy. */
    conn = unix_pair(&peer);
    copy = dup(amg_engine_socket(engine, conn));
    CHECK(copy >= 0);
    close_and_release(conn);
    write_all(peer, "to nobody", 9);
    expect_idle();
    close(copy), close(peer);

    /* The peer ends its side: we still send. */
    conn = tcp_pair(listener, &peer);
    memset(&seen[conn], 0, sizeof seen[conn]);
    write_all(peer, "last words", 10);
    CHECK(shutdown(peer, SHUT_WR) == 0);
    UNTIL(seen[conn].told[AMG_EOF]);
    CHECK(seen[conn].bytes == 10);
    expect_idle();
    send_text(conn, bytes, size);
    CHECK(read_pattern(peer, 0, size) == size);
    one(AMG_OP_CLOSE, conn, 0);
    UNTIL(seen[conn].told[AMG_CLOSED] && is_at_end(peer));
    CHECK(seen[conn].error == 0);
    one(AMG_OP_RELEASE, conn, 0);
    close(peer);

    /* We end our side behind the backlog: we still receive. */
    conn = tcp_pair(listener, &peer);
    memset(&seen[conn], 0, sizeof seen[conn]);
    put(AMG_OP_SEND, conn, 0, bytes, size);
    put(AMG_OP_SHUTDOWN, conn, 0, NULL, 0);
    put(AMG_OP_SHUTDOWN, conn, 0, NULL, 0);
    put(AMG_OP_SEND, conn, 0, "late", 4);
    submit();
    CHECK(read_pattern(peer, 0, size + 10) == size && is_at_end(peer));
    forget();
    write_all(peer, "still here", 10);
    UNTIL(captured == 10);
    close(peer);
    UNTIL(seen[conn].told[AMG_EOF]);
    expect_idle(); /* both sides have ended: it is for the caller to close */
    close_and_release(conn);
    stop();
    free(bytes);
}

static void check_resets(void) {
    const size_t size = 4 << 20;
    uint8_t *bytes = patterned(size);
    uint32_t listener, conn, state;
    int peer;

    start(4, 64, 65536, 32 << 20);
    listener = listen_tcp(AMG_LISTENER);
    for (state = 0; state < 8; state++) {
        conn = tcp_pair(listener, &peer);
        memset(&seen[conn], 0, sizeof seen[conn]);
        switch (state) {
        case 0: /* idle */
            break;
        case 1: /* with a backlog */
            CHECK(send_text(conn, bytes, size) == 1);
            break;
        case 2: /* and paused */
            one(AMG_OP_PAUSE, conn, 0);
            CHECK(send_text(conn, bytes, size) == 1);
            break;
        case 3: /* closing */
            put(AMG_OP_SEND, conn, 0, bytes, size);
            CHECK(one(AMG_OP_CLOSE, conn, 0) == 1);
            break;
        case 4: /* paused and idle */
            one(AMG_OP_PAUSE, conn, 0);
            break;
        case 5: /* behind the peer's end */
            CHECK(shutdown(peer, SHUT_WR) == 0);
            UNTIL(seen[conn].told[AMG_EOF]);
            break;
        case 6: /* with input that nobody has taken */
            one(AMG_OP_PAUSE, conn, 0);
            write_all(peer, "unread", 6);
            break;
        default: /* with our side ended */
            one(AMG_OP_SHUTDOWN, conn, 0);
            break;
        }
        turn(0);
        reset(peer);
        if (state >= 4 && state <= 6) {
            expect_idle(); /* no spinning on the hang-up; and then it is found out */
            CHECK(!seen[conn].told[AMG_CLOSED]);
            if (state == 5) {
                double limit = now() + 5;
                while (send_text(conn, "x", 1) == 0) CHECK(now() < limit);
                CHECK(amg_engine_notices(engine)->unsent == AMG_BROKEN && amg_engine_wait(engine) == 0);
                CHECK(send_text(conn, "x", 1) == 1); /* and so it stays */
                CHECK(amg_engine_notices(engine)->unsent == AMG_BROKEN);
            } else {
                one(AMG_OP_RESUME, conn, 0);
            }
        }
        UNTIL(seen[conn].told[AMG_CLOSED]);
        CHECK(seen[conn].error == ECONNRESET || seen[conn].error == EPIPE);
        CHECK(seen[conn].told[AMG_CLOSED] == 1 && amg_engine_unsent(engine, conn) == 0);
        expect_idle();
        one(AMG_OP_RELEASE, conn, 0);
    }
    /* A listener that somebody else has shut down. */
    one(AMG_OP_ACCEPT, listener, 1);
    CHECK(shutdown(amg_engine_socket(engine, listener), SHUT_RDWR) == 0);
    UNTIL(seen[listener].told[AMG_CLOSED]);
    CHECK(seen[listener].told[AMG_FAILED] == 1 && seen[listener].error == EINVAL);
    stop();
    free(bytes);
}

static void check_no_descriptors(void) {
    struct rlimit before, low;
    uint32_t listener, conn;
    int peer, others[3], lowest, i;
    double begin;

    start(64, 64, 65536, 1 << 20);
    listener = listen_tcp(AMG_LISTENER);
    conn = tcp_pair(listener, &peer);
    for (i = 0; i < 3; i++) others[i] = dial(listener);
    CHECK(getrlimit(RLIMIT_NOFILE, &before) == 0);
    lowest = dup(peer);
    CHECK(lowest >= 0);
    close(lowest);
    low = before;
    low.rlim_cur = (rlim_t)lowest; /* no descriptor below it is free */
    CHECK(setrlimit(RLIMIT_NOFILE, &low) == 0);
    forget();
    one(AMG_OP_ACCEPT, listener, 3);
    begin = now();
    for (i = 0; i < 20; i++) { /* connections go on, and poll() waits */
        CHECK(amg_engine_wait(engine) <= 41);
        write_all(peer, "x", 1);
        UNTIL(captured == (uint32_t)i + 1);
        send_text(conn, "y", 1);
        expect(peer, "y");
        turn(10);
        turn(10);
    }
    CHECK(now() - begin > 0.2); /* but when a retry is due */
    CHECK(accepted_count == 0 && seen[listener].told[AMG_FAILED] == 0);
    CHECK(setrlimit(RLIMIT_NOFILE, &before) == 0);
    UNTIL(accepted_count == 3);
    for (i = 0; i < 3; i++) close(others[i]);

    while (turn(20) > 0) {}
    for (i = 0; i < 2; i++) { /* one is closed while it rests, the next gets its number, and rests */
        forget();
        others[0] = dial(listener);
        lowest = dup(peer);
        CHECK(lowest >= 0);
        close(lowest);
        low.rlim_cur = (rlim_t)lowest;
        CHECK(setrlimit(RLIMIT_NOFILE, &low) == 0);
        one(AMG_OP_ACCEPT, listener, 1);
        CHECK(turn(0) == 0 && turn(0) == 0 && amg_engine_wait(engine) >= 0);
        CHECK(setrlimit(RLIMIT_NOFILE, &before) == 0);
        if (i == 0) {
            uint32_t number = listener;
            close_and_release(listener);
            listener = listen_tcp(AMG_LISTENER);
            CHECK(listener == number);
            close(others[0]);
        }
    }
    UNTIL(accepted_count == 1);
    close(others[0]);
    close(peer);
    stop();
}

static void check_full_table(void) {
    uint32_t listener, first;
    int peers[5], i;

    start(4, 64, 65536, 1 << 20);
    listener = listen_tcp(AMG_LISTENER);
    for (i = 0; i < 5; i++) peers[i] = dial(listener);
    one(AMG_OP_ACCEPT, listener, 100);
    UNTIL(accepted_count == 3);
    turn(0);
    expect_idle();
    CHECK(amg_engine_adopt(engine, peers[0], AMG_STREAM) == -ENFILE && amg_engine_wait(engine) == -1);
    first = accepted[0];
    one(AMG_OP_ABORT, first, 0);
    UNTIL(seen[first].told[AMG_CLOSED]);
    expect_idle();
    memset(&seen[first], 0, sizeof seen[first]);
    one(AMG_OP_RELEASE, first, 0);
    UNTIL(accepted_count == 4);
    CHECK(accepted[3] == first);
    turn(0);
    expect_idle();
    one(AMG_OP_ABORT, listener, 0); /* while it rests */
    UNTIL(seen[listener].told[AMG_CLOSED]);
    memset(&seen[listener], 0, sizeof seen[listener]);
    one(AMG_OP_RELEASE, listener, 0);
    listener = listen_tcp(AMG_LISTENER); /* with the same number */
    one(AMG_OP_ACCEPT, listener, 1);
    close(peers[4]);
    peers[4] = dial(listener);
    turn(20);
    expect_idle();
    close_and_release(accepted[1]);
    memset(&seen[accepted[1]], 0, sizeof seen[0]);
    UNTIL(accepted_count == 5);
    for (i = 0; i < 5; i++) close(peers[i]);
    stop();
}

static void check_deadlines(void) {
    enum { N = 64 };
    uint32_t conns[N], i, order[N];
    double begin, due[N];
    int peers[N], waited;

    start(N, 16, 65536, 1 << 20); /* fewer completions than deadlines */
    for (i = 0; i < N; i++) conns[i] = unix_pair(&peers[i]);
    CHECK(amg_engine_wait(engine) == -1);
    begin = now();
    for (i = 0; i < N; i++) { /* all of them anew, later, earlier, cleared and set again */
        uint32_t ms = 20 + i * 37 % N * 3;
        put(AMG_OP_DEADLINE, conns[i], i % 3 == 0 ? 5 : i % 3 == 1 ? 10000 : ms, NULL, 0);
        if (i % 5 == 0) put(AMG_OP_DEADLINE, conns[i], 0, NULL, 0);
        put(AMG_OP_DEADLINE, conns[i], ms, NULL, 0);
        due[i] = begin + ms / 1e3;
    }
    put(AMG_OP_DEADLINE, conns[3], 0, NULL, 0);    /* cleared */
    put(AMG_OP_DEADLINE, conns[4], 1, NULL, 0);    /* and the number given away */
    put(AMG_OP_ABORT, conns[4], 0, NULL, 0);
    put(AMG_OP_DEADLINE, conns[5], 3600000, NULL, 0);
    submit();
    turn(0);
    CHECK(seen[conns[4]].told[AMG_CLOSED]);
    one(AMG_OP_RELEASE, conns[4], 0);
    close(peers[4]);
    CHECK(unix_pair(&peers[4]) == conns[4]);
    waited = amg_engine_wait(engine);
    CHECK(waited >= 0 && waited <= 21);
    while (timeout_count < N - 3) {
        uint32_t before = timeout_count;
        CHECK(now() < begin + 5);
        turn(-1);
        for (; before < timeout_count; before++) {
            for (i = 0; conns[i] != timeouts[before]; i++) {}
            CHECK(now() >= due[i]);
            order[before] = i;
            if (before > 0) CHECK(due[order[before - 1]] <= due[i] + 0.0021);
        }
    }
    for (i = 0; i < N; i++) CHECK(seen[conns[i]].told[AMG_TIMEOUT] == (i < 3 || i > 5));
    CHECK(now() < begin + 2);
    waited = amg_engine_wait(engine); /* the hour */
    CHECK(waited > 3590000 && waited <= 3600001);
    one(AMG_OP_DEADLINE, conns[5], 0);
    CHECK(amg_engine_wait(engine) == -1);
    expect_idle();

    /* Moved on and on, it does not come; nor does what was moved away wake poll(). */
    one(AMG_OP_DEADLINE, conns[0], 30);
    begin = now();
    while (now() < begin + 0.1) {
        one(AMG_OP_DEADLINE, conns[0], 5000);
        CHECK(turn(10) == 0);
    }
    one(AMG_OP_DEADLINE, conns[0], UINT32_MAX);
    CHECK(amg_engine_wait(engine) > 2000000000);
    one(AMG_OP_DEADLINE, conns[0], 1);
    forget();
    UNTIL(timeout_count == 1);
    for (i = 0; i < N; i++) close(peers[i]);
    stop();
}

static void check_datagrams(void) {
    uint32_t a, b, conn, i, head;
    int fd, pair[2];
    struct sockaddr_in to_a, to_b;
    uint8_t *payload = malloc(sizeof to_a + 65000);
    const amg_completion *completion;

    CHECK(payload != NULL);
    start(8, 64, 1 << 18, 1 << 20);
    a = adopt(amg_bind("127.0.0.1", 0, AMG_DATAGRAM_SOCKET, 0, 0), AMG_DATAGRAM_SOCKET);
    b = adopt(amg_bind("127.0.0.1", 0, AMG_DATAGRAM_SOCKET, 0, 0), AMG_DATAGRAM_SOCKET);
    to_a = own_address(amg_engine_socket(engine, a));
    to_b = own_address(amg_engine_socket(engine, b));
    head = sizeof to_a;
    memcpy(payload, &to_b, head);
    for (i = 0; i < 65000; i++) payload[head + i] = pattern(i);
    put(AMG_OP_SENDTO, a, head, payload, head + 5);
    put(AMG_OP_SENDTO, a, head, payload, head);
    put(AMG_OP_SENDTO, a, head, payload, head + 65000);
    CHECK(submit() == 0);
    for (i = 0; i < 3; i++) { /* they lie in the socket, so each poll gets what is left */
        uint32_t n = turn(1000), j;
        completion = amg_engine_completions(engine);
        for (j = 0; j < n; j++, i++, completion++) {
            struct sockaddr_in from;
            CHECK(completion->op == AMG_DATAGRAM && completion->conn == b && completion->head == sizeof from);
            memcpy(&from, amg_engine_arena(engine) + completion->offset, sizeof from);
            CHECK(from.sin_port == to_a.sin_port);
            CHECK(completion->length - completion->head == (i == 0 ? 5u : i == 1 ? 0u : 65000u));
            CHECK(memcmp(amg_engine_arena(engine) + completion->offset + completion->head, payload + head,
                         completion->length - completion->head) == 0);
        }
        i--;
    }
    memcpy(payload, &to_a, head);
    put(AMG_OP_SENDTO, b, head, payload, head + 9);
    submit();
    UNTIL(seen[a].bytes == 9);

    for (i = 0; i < 50; i++) put(AMG_OP_SENDTO, b, head, payload, head + 1); /* a burst is 32 */
    submit();
    forget();
    turn(1000);
    CHECK(completion_count == 32);
    UNTIL(completion_count == 50);

    /* What cannot be sent is told, and the socket goes on. */
    to_b.sin_port = 0;
    memcpy(payload, &to_b, head);
    put(AMG_OP_SENDTO, a, head, payload, head + 1);
    put(AMG_OP_SENDTO, a, head, payload, 3);   /* less than the address */
    put(AMG_OP_SENDTO, a, 500, payload, 600);  /* no address is that long */
    put(AMG_OP_SEND, a, 0, "no stream", 9);
    put(AMG_OP_SHUTDOWN, a, 0, NULL, 0);
    CHECK(submit() == 0);
    UNTIL(seen[a].told[AMG_FAILED] == 1);
    CHECK(seen[a].error == EINVAL);

    /* A connected one: no addresses; nobody at the other end is told, and the socket goes on. */
    fd = socket(AF_INET, SOCK_DGRAM, 0);
    CHECK(fd >= 0 && connect(fd, (const struct sockaddr *)&to_a, sizeof to_a) == 0);
    conn = adopt(fd, AMG_DATAGRAM_SOCKET);
    to_b = own_address(fd);
    memcpy(payload, &to_b, head);
    put(AMG_OP_SENDTO, a, head, payload, head + 7);
    submit();
    UNTIL(seen[conn].told[AMG_DATAGRAM] == 1);
    CHECK(amg_engine_completions(engine)->head == 0 && amg_engine_completions(engine)->length == 7);
    close_and_release(a);
    put(AMG_OP_SENDTO, conn, 0, "lost", 4);
    submit();
    UNTIL(seen[conn].told[AMG_FAILED]);
    CHECK(seen[conn].error == ECONNREFUSED && !seen[conn].told[AMG_CLOSED]);
    memset(&seen[a], 0, sizeof seen[a]);
    a = adopt(amg_bind("127.0.0.1", ntohs(to_a.sin_port), AMG_DATAGRAM_SOCKET, 0, 0), AMG_DATAGRAM_SOCKET);
    put(AMG_OP_SENDTO, conn, 0, "found", 5);
    submit();
    UNTIL(seen[a].bytes == 5);

    /* Unix datagrams without a name. */
    CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) == 0);
    conn = adopt(pair[0], AMG_DATAGRAM_SOCKET);
    write_all(pair[1], "dgram", 5);
    UNTIL(seen[conn].bytes == 5);
    put(AMG_OP_SENDTO, conn, 0, "back", 4);
    submit();
    expect(pair[1], "back");
    one(AMG_OP_PAUSE, conn, 0);
    write_all(pair[1], "later", 5);
    expect_idle();
    one(AMG_OP_RESUME, conn, 0);
    UNTIL(seen[conn].bytes == 10);
    one(AMG_OP_CLOSE, conn, 0);
    UNTIL(seen[conn].told[AMG_CLOSED]);
    close(pair[1]);
    stop();

    /* A small arena: what does not fit is not told in part. */
    start(8, 16, 2048, 1 << 20);
    CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) == 0);
    conn = adopt(pair[0], AMG_DATAGRAM_SOCKET);
    write_all(pair[1], payload, 1900);
    write_all(pair[1], payload, 3000);
    write_all(pair[1], payload, 800);
    UNTIL(seen[conn].told[AMG_DATAGRAM] == 2 && seen[conn].told[AMG_FAILED] == 1);
    CHECK(seen[conn].bytes == 2700 && seen[conn].error == EMSGSIZE);
    close(pair[1]);
    stop();
    free(payload);
}

static void check_connecting(void) {
    struct sockaddr_in address;
    struct sockaddr_un name;
    char path[200];
    uint32_t listener, conn;
    int64_t number;
    int fd;

    start(8, 64, 65536, 1 << 20);
    listener = listen_tcp(AMG_LISTENER);
    one(AMG_OP_ACCEPT, listener, 10);
    address = own_address(amg_engine_socket(engine, listener));
    number = amg_engine_connect(engine, &address, sizeof address);
    CHECK(number >= 0);
    conn = (uint32_t)number;
    CHECK(send_text(conn, "early", 5) == 1); /* before it is connected */
    CHECK(amg_engine_notices(engine)->unsent == 5);
    UNTIL(seen[conn].told[AMG_CONNECTED] && captured == 5 && accepted_count == 1);
    CHECK(memcmp(capture, "early", 5) == 0 && seen[conn].left == 0 && seen[conn].told[AMG_SENT] == 1);
    send_text(accepted[0], "welcome", 7);
    UNTIL(seen[conn].bytes == 7);
    expect_idle();

    /* CLOSE before it is connected: what was sent arrives. */
    forget();
    number = amg_engine_connect(engine, &address, sizeof address);
    CHECK(number >= 0);
    put(AMG_OP_SEND, (uint32_t)number, 0, "quick", 5);
    put(AMG_OP_CLOSE, (uint32_t)number, 0, NULL, 0);
    CHECK(submit() == 1);
    UNTIL(seen[number].told[AMG_CLOSED] && captured == 5);
    CHECK(seen[number].error == 0 && !seen[number].told[AMG_CONNECTED]);

    close_and_release(listener);
    memset(&seen[listener], 0, sizeof seen[listener]);
    number = amg_engine_connect(engine, &address, sizeof address); /* refused */
    CHECK(number == (int64_t)listener);
    UNTIL(seen[number].told[AMG_CLOSED]);
    CHECK(seen[number].error == ECONNREFUSED && !seen[number].told[AMG_CONNECTED]);
    one(AMG_OP_RELEASE, (uint32_t)number, 0);
    address.sin_family = 9999;
    CHECK(amg_engine_connect(engine, &address, sizeof address) == -EAFNOSUPPORT);

    /* Unix sockets */
    CHECK(snprintf(path, sizeof path, "%s/s%u", directory, poller) < (int)sizeof name.sun_path);
    memset(&name, 0, sizeof name);
    name.sun_family = AF_UNIX;
    strcpy(name.sun_path, path);
    memset(&seen[number], 0, sizeof seen[number]);
    number = amg_engine_connect(engine, &name, sizeof name);
    CHECK(number >= 0);
    UNTIL(seen[number].told[AMG_CLOSED]);
    CHECK(seen[number].error == ENOENT);
    one(AMG_OP_RELEASE, (uint32_t)number, 0);
    memset(&seen[number], 0, sizeof seen[number]);
    fd = amg_bind(path, 0, AMG_LISTENER, 0, 8);
    CHECK(fd >= 0);
    listener = adopt(fd, AMG_LISTENER);
    one(AMG_OP_ACCEPT, listener, 1);
    forget();
    number = amg_engine_connect(engine, &name, sizeof name);
    CHECK(number >= 0);
    UNTIL(seen[number].told[AMG_CONNECTED] && accepted_count == 1);
    send_text(accepted[0], "unix", 4);
    UNTIL(seen[number].bytes == 4);
    stop();
    unlink(path);
}

static void check_fanout(uint32_t count, size_t size) {
    uint32_t i, notices, slow = 0, *conns = malloc(count * sizeof *conns);
    int *peers = malloc(count * sizeof *peers);
    uint8_t *bytes = patterned(size), *payload = malloc(count * 4 + size), *junk = calloc(1, 1 << 19);
    uint64_t *filled = calloc(count, sizeof *filled);

    CHECK(conns != NULL && peers != NULL && payload != NULL && junk != NULL && filled != NULL);
    start(count + 8, 256, 65536, 512 << 20);
    for (i = 0; i < count; i++) {
        conns[i] = unix_pair(&peers[i]);
        memcpy(payload + 4 * i, &conns[i], 4);
        if (i % 20 == 0) { /* these take no more */
            while ((filled[i] += 1 << 19, send_text(conns[i], junk, 1 << 19)) == 0) {}
            slow++;
        }
    }
    memcpy(payload + 4 * count, bytes, size);
    put(AMG_OP_FANOUT, 0, count, payload, 4 * count + size);
    put(AMG_OP_FANOUT, 0, count, payload, 4 * count + size);
    notices = submit();
    CHECK(size > 100000 || notices == slow);
    close(peers[20]); /* a slow one goes away, another is thrown out */
    one(AMG_OP_ABORT, conns[40], 0);
    for (i = 0; i < count; i++) {
        uint64_t junk_left = filled[i];
        double limit = now() + 5;
        if (i == 20 || i == 40) continue;
        while (junk_left > 0) {
            ssize_t n = read_some(peers[i], junk, junk_left < 1 << 19 ? junk_left : 1 << 19);
            CHECK(n >= 0 && now() < limit);
            junk_left -= (uint64_t)n;
            turn(0);
        }
        memset(junk, 0, 1 << 19);
        CHECK(read_pattern(peers[i], 0, size) == size);
        CHECK(read_pattern(peers[i], 0, size) == size);
        CHECK(read_some(peers[i], junk, 1) == 0 && amg_engine_unsent(engine, conns[i]) == 0);
    }
    CHECK(seen[conns[20]].told[AMG_CLOSED] && seen[conns[40]].told[AMG_CLOSED]);
    for (i = 0; i < count; i++)
        if (i != 20) close(peers[i]);
    stop();
    free(conns), free(peers), free(bytes), free(payload), free(junk), free(filled);
}

/* Payloads that leave in part, those of a fan-out and others in turn. */
static void check_fanout_in_parts(void) {
    enum { SIZE = 15013 };
    uint8_t *payload = malloc(4 + SIZE), *got = malloc(SIZE);
    uint32_t conn, sent = 0, received, i;
    uint64_t total = 0;
    int peer, small = 4096, round; /* so that a Unix socket takes a part */

    CHECK(payload != NULL && got != NULL);
    start(4, 64, 65536, 64 << 20);
    conn = unix_pair(&peer);
    CHECK(setsockopt(amg_engine_socket(engine, conn), SOL_SOCKET, SO_SNDBUF, &small, sizeof small) == 0);
    memcpy(payload, &conn, 4);
    for (i = 0; i < SIZE; i++) payload[4 + i] = pattern(i);
    for (round = 0; round < 30; round++) {
        uint32_t behind = 0;
        while (behind < 5) { /* until some lie in the backlog */
            if (sent % 3 == 1) put(AMG_OP_SEND, conn, 0, payload + 4, SIZE);
            else put(AMG_OP_FANOUT, 0, 1, payload, 4 + SIZE);
            behind += submit();
            sent++;
        }
        received = 0;
        while (received < SIZE / 2 * (uint32_t)round || (round == 29 && total < (uint64_t)sent * SIZE)) {
            ssize_t k, n = read_some(peer, got, SIZE);
            CHECK(n >= 0);
            for (k = 0; k < n; k++)
                if (got[k] != pattern((total + (uint64_t)k) % SIZE)) break;
            CHECK(k == n);
            total += (uint64_t)n;
            received += (uint32_t)n;
            turn(0);
            if (total == (uint64_t)sent * SIZE) break;
        }
    }
    CHECK(total == (uint64_t)sent * SIZE && amg_engine_unsent(engine, conn) == 0);
    close(peer);
    stop();
    free(payload), free(got);
}

static void check_max_backlog(void) {
    const size_t size = 2 << 20;
    uint8_t *bytes = patterned(size);
    uint32_t a, b, number;
    int peer_a, peer_b;
    uint64_t unsent;

    start(8, 64, 65536, size);
    a = unix_pair(&peer_a), b = unix_pair(&peer_b);
    CHECK(send_text(a, bytes, size) == 1);
    unsent = amg_engine_unsent(engine, a);
    CHECK(unsent > size / 2);
    /* The next one wants more than is left: it is closed, the other goes on. */
    put(AMG_OP_SEND, b, 0, bytes, size);
    CHECK(submit() == 1 && amg_engine_notices(engine)->conn == b && amg_engine_notices(engine)->unsent == AMG_BROKEN);
    UNTIL(seen[b].told[AMG_CLOSED]);
    CHECK(seen[b].error == ENOBUFS && amg_engine_unsent(engine, a) == unsent);
    close(peer_b);
    b = unix_pair(&peer_b);
    number = b;
    while (send_text(b, bytes, 1000) == 0) {}
    put(AMG_OP_FANOUT, 0, 1, &number, 4); /* no bytes: nothing */
    submit();
    CHECK(!seen[b].told[AMG_CLOSED]);
    while (!seen[b].told[AMG_CLOSED]) { /* shared payloads count, too */
        uint8_t payload[4 + 10000];
        memcpy(payload, &number, 4);
        memcpy(payload + 4, bytes, 10000);
        put(AMG_OP_FANOUT, 0, 1, payload, sizeof payload);
        submit();
        turn(0);
        CHECK(amg_engine_unsent(engine, a) + amg_engine_unsent(engine, b) <= size);
    }
    CHECK(seen[b].error == ENOBUFS);
    CHECK(read_pattern(peer_a, 0, size) == size);
    close(peer_a), close(peer_b);
    stop();
    free(bytes);
}

static void check_idle_crowd(uint32_t count) {
    uint32_t i, active;
    int *peers = malloc(count * sizeof *peers), peer;

    CHECK(peers != NULL);
    start(count + 1, 64, 65536, 1 << 20);
    for (i = 0; i < count; i++) {
        put(AMG_OP_DEADLINE, unix_pair(&peers[i]), 60000 + i, NULL, 0);
    }
    submit();
    active = unix_pair(&peer);
    for (i = 0; i < 300; i++) {
        write_all(peer, "ping", 4);
        CHECK(turn(1000) == 1); /* one event, one completion */
        put(AMG_OP_SEND, active, 0, "pong", 4);
        put(AMG_OP_DEADLINE, active, 60000, NULL, 0);
        CHECK(submit() == 0);
        expect(peer, "pong");
    }
    CHECK(seen[active].told[AMG_DATA] == 300 && completion_count == 300);
    for (i = 0; i < count; i++) close(peers[i]);
    close(peer);
    stop();
    free(peers);
}

/* Everybody has something always, and there is no room for all: each has its turn, and deadlines have theirs. */
static void check_scarcity(uint32_t max_completions, uint32_t arena_size, uint32_t count) {
    uint32_t i, round, conns[200], least = UINT32_MAX, most = 0;
    int peers[200];
    char *bytes = calloc(1, 3000);
    double begin = now();

    CHECK(bytes != NULL && count <= 200);
    start(count, max_completions, arena_size, 1 << 20);
    for (i = 0; i < count; i++) {
        conns[i] = unix_pair(&peers[i]);
        put(AMG_OP_DEADLINE, conns[i], 1 + i % 7, NULL, 0);
    }
    submit();
    for (round = 0; round < 40 * count || now() < begin + 0.02; round++) {
        for (i = 0; i < count; i++)
            while (send(peers[i], bytes, 3000, MSG_DONTWAIT | MSG_NOSIGNAL) > 0 && round == 0) {}
        CHECK(turn(1000) > 0);
    }
    for (i = 0; i < count; i++) {
        CHECK(seen[conns[i]].told[AMG_TIMEOUT] == 1);
        if (seen[conns[i]].told[AMG_DATA] < least) least = seen[conns[i]].told[AMG_DATA];
        if (seen[conns[i]].told[AMG_DATA] > most) most = seen[conns[i]].told[AMG_DATA];
    }
    CHECK(least > 0 && most <= 2 * least + 4);
    for (i = 0; i < count; i += 2) put(AMG_OP_ABORT, conns[i], 0, NULL, 0); /* with events still waiting for them */
    submit();
    for (i = 0; i < count; i += 2) UNTIL(seen[conns[i]].told[AMG_CLOSED]);
    for (i = 0; i < count; i += 2) put(AMG_OP_RELEASE, conns[i], 0, NULL, 0);
    submit();
    for (i = 0; i < count; i += 2) { /* their numbers, for others, who have said nothing */
        close(peers[i]);
        conns[i] = unix_pair(&peers[i]);
        close(amg_engine_socket(engine, conns[i]) < 0 ? -1 : peers[i]);
    }
    for (i = 0; i < count; i += 2) UNTIL(seen[conns[i]].told[AMG_EOF] == 1 && seen[conns[i]].told[AMG_DATA] == 0);
    for (i = 1; i < count; i += 2) close(peers[i]);
    for (i = 1; i < count; i += 2)
        UNTIL(seen[conns[i]].told[AMG_EOF] == 1 || seen[conns[i]].told[AMG_CLOSED] == 1);
    stop();
    free(bytes);
}

/* An event that waits for room is not taken for one of who has got the number meanwhile. */
static void check_stale_event(void) {
    enum { N = 16 };
    static const char bytes[1500] = {0};
    struct sockaddr_in address;
    uint32_t i, conns[N];
    int peers[N], full, others[8];
    char junk[4096];
    int64_t number;

    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    full = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(full >= 0 && bind(full, (const struct sockaddr *)&address, sizeof address) == 0 && listen(full, 0) == 0);
    address = own_address(full);
    for (i = 0; i < 8; i++) { /* nobody gets through to it any more */
        others[i] = socket(AF_INET, SOCK_STREAM, 0);
        CHECK(others[i] >= 0 && fcntl(others[i], F_SETFL, O_NONBLOCK) == 0);
        (void)connect(others[i], (const struct sockaddr *)&address, sizeof address);
    }
    start(N, 16, 2048, 1 << 20);
    for (i = 0; i < N; i++) conns[i] = unix_pair(&peers[i]);
    while (send_text(conns[N - 1], bytes, sizeof bytes) == 0) {}
    turn(0);
    for (i = 0; i < N; i++) write_all(peers[i], bytes, sizeof bytes);
    while (read_some(peers[N - 1], junk, sizeof junk) > 0) {} /* now it is writable, like one that has connected */
    turn(1000); /* few of sixteen events */
    CHECK(completion_count > 0 && completion_count < 4);
    close_and_release(conns[N - 1]);
    number = amg_engine_connect(engine, &address, sizeof address);
    CHECK(number == (int64_t)conns[N - 1]);
    memset(&seen[number], 0, sizeof seen[number]);
    for (i = 0; i + 1 < N; i++) UNTIL(seen[conns[i]].bytes == sizeof bytes);
    turn(0);
    CHECK(!seen[number].told[AMG_CONNECTED] && !seen[number].told[AMG_CLOSED]);
    for (i = 0; i < N; i++) close(peers[i]);
    for (i = 0; i < 8; i++) close(others[i]);
    close(full);
    stop();
}

/* A datagram socket, which needs more room than streams do, gets it. */
static void check_datagram_among_streams(void) {
    enum { N = 9 };
    static const char bytes[2500] = {0};
    uint32_t i, conn, conns[N];
    uint64_t sent[N] = {0};
    int peers[N], pair[2];
    double limit = now() + 5;

    start(N + 1, 64, 4096, 1 << 20);
    for (i = 0; i < N; i++) conns[i] = unix_pair(&peers[i]);
    CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) == 0);
    conn = adopt(pair[0], AMG_DATAGRAM_SOCKET);
    while (!seen[conn].told[AMG_DATAGRAM]) { /* behind streams that never leave enough of the arena */
        for (i = 0; i < N; i++) {
            size_t more = (size_t)(seen[conns[i]].bytes + sizeof bytes - sent[i]);
            if (more > 0) write_all(peers[i], bytes, more);
            sent[i] += more;
        }
        if (sent[0] == sizeof bytes) write_all(pair[1], "dgram", 5);
        CHECK(turn(1000) > 0 && now() < limit);
    }
    for (i = 0; i < N; i++) close(peers[i]);
    close(pair[1]);
    stop();
}

static void check_descriptor(void) {
    struct pollfd watched;
    uint32_t conn;
    int peer;

    start(8, 16, 4096, 1 << 20);
    watched.fd = amg_engine_fd(engine);
    watched.events = POLLIN;
    conn = unix_pair(&peer);
    if (watched.fd >= 0) {
        CHECK(poll(&watched, 1, 0) == 0);
        write_all(peer, "x", 1);
        CHECK(poll(&watched, 1, 1000) == 1 && watched.revents == POLLIN);
        CHECK(turn(0) == 1 && poll(&watched, 1, 0) == 0);
        one(AMG_OP_PAUSE, conn, 0);
        write_all(peer, "x", 1);
        CHECK(poll(&watched, 1, 0) == 0);
        one(AMG_OP_RESUME, conn, 0); /* at once, without a poll() of ours */
        CHECK(poll(&watched, 1, 1000) == 1);
    }
    close(peer);
    stop();
}

static void check_nonsense(void) {
    static const uint32_t ops[] = {AMG_OP_SEND,   AMG_OP_SENDTO,   AMG_OP_PAUSE,    AMG_OP_RESUME, AMG_OP_ACCEPT,
                                   AMG_OP_DEADLINE, AMG_OP_SHUTDOWN, AMG_OP_CLOSE,    AMG_OP_ABORT,  AMG_OP_RELEASE,
                                   0,             12,              65535};
    uint32_t i, listener, conn, number = 4711, unknown[4] = {4711, UINT32_MAX, 8, 0};
    int peer;
    uint8_t block[16];

    start(8, 64, 65536, 1 << 20);
    listener = listen_tcp(AMG_LISTENER);
    conn = unix_pair(&peer);
    for (i = 0; i < sizeof ops / sizeof ops[0]; i++) {
        put(ops[i], 7, 1, "text", 4); /* never used, beyond the table */
        put(ops[i], 8, 1, "text", 4);
        put(ops[i], UINT32_MAX, 1, "text", 4);
    }
    put(AMG_OP_FANOUT, 0, 3, unknown, sizeof unknown);
    put(AMG_OP_FANOUT, 0, UINT32_MAX, &number, 4);
    put(AMG_OP_FANOUT, 0, 1073741824, &number, 4);
    put(AMG_OP_SEND, listener, 0, "to a listener", 13);
    put(AMG_OP_SENDTO, conn, 0, "to a stream", 11);
    put(AMG_OP_SHUTDOWN, listener, 0, NULL, 0);
    CHECK(submit() == 0 && turn(0) == 0);
    memset(block, 0, sizeof block);
    CHECK(amg_engine_submit(engine, block, 0) == 0 && amg_engine_submit(engine, NULL, 0) == 0);
    for (i = 1; i < 16; i++) CHECK(amg_engine_submit(engine, block, i) == 0); /* cut off */
    block[0] = AMG_OP_SEND, block[8] = 1;
    CHECK(amg_engine_submit(engine, block, 16) == 0);
    CHECK(send_text(conn, "fine", 4) == 0);
    expect(peer, "fine");
    close(peer);
    stop();
}

static uint32_t random_state = 12345;

static uint32_t random_below(uint32_t n) {
    random_state = random_state * 1664525u + 1013904223u;
    return (random_state >> 8) % n;
}

/* -- WebSocket frames ----------------------------------------------------------------------------------------------- */

typedef struct { /* the payload of AMG_OP_WS */
    amg_ws_limits limits;
    amg_ws codec;
} websocket;

static websocket make_websocket(uint8_t role) {
    websocket made;

    memset(&made, 0, sizeof made);
    made.limits.max_frame = made.limits.max_message = 1 << 20;
    made.limits.max_fragments = 1000;
    amg_ws_init(&made.codec, role, 1);
    return made;
}

static uint32_t chance(uint32_t below) {
    static uint32_t state = 2463534242u;

    state ^= state << 13, state ^= state >> 17, state ^= state << 5;
    return state % below;
}

/* Frames of many kinds, about so many bytes of them, for a codec of this role. */
static size_t make_frames(uint8_t role, uint8_t *out, size_t about) {
    static const uint8_t text[] = "caf\xc3\xa9 \xe2\x82\xac ";
    size_t n = 0, i;
    int in_message = 0;

    while (n < about) {
        uint32_t kind = chance(10), length = chance(6) ? chance(12) : chance(700);
        uint8_t first, key[4] = {0, 0, 0, 0};
        if (kind < 3) {
            first = (uint8_t)(0x89 + chance(2));
            length %= 126;
        } else if (in_message) {
            first = (uint8_t)(chance(3) ? 0 : 0x80);
            in_message = first == 0;
        } else {
            first = (uint8_t)(2 | (chance(2) ? 0x80 : 0) | (chance(4) ? 0 : 0x40));
            if (!chance(4)) first = 0x81, length = (uint32_t)sizeof text - 1;
            in_message = !(first & 0x80);
        }
        out[n++] = first;
        out[n++] = (uint8_t)((role == AMG_SERVER ? 0x80 : 0) | (length < 126 ? length : 126));
        if (length >= 126) out[n++] = (uint8_t)(length >> 8), out[n++] = (uint8_t)length;
        for (i = 0; role == AMG_SERVER && i < 4; i++) out[n++] = key[i] = (uint8_t)chance(256);
        for (i = 0; i < length; i++) out[n + i] = first == 0x81 ? text[i] : (uint8_t)chance(256);
        amg_mask(out + n, length, key, 0);
        n += length;
    }
    return n;
}

/* Note what a codec reads without an engine. */
static void read_frames(websocket *socket, const uint8_t *data, size_t n) {
    uint8_t *out = malloc(n + !n);
    size_t used, i, count;
    amg_ws_record records[8];

    CHECK(out != NULL);
    while (n > 0) {
        count = amg_ws_read(&socket->codec, &socket->limits, data, n, out, records, 8, &used);
        for (i = 0; i < count; i++) {
            const uint8_t *place = records[i].flags & AMG_WS_HELD ? socket->codec.control : out;
            note_frame(records[i].flags & ~AMG_WS_HELD, place, records[i].offset, records[i].length, records[i].error);
        }
        data += used;
        n -= used;
    }
    free(out);
}

/* Frames through the engine are what they are without it, however they come, and wherever the engine takes over. */
static void check_frames(uint8_t role, uint32_t arena_size, uint32_t largest_piece) {
    static uint8_t data[CAPTURE], expected[sizeof frames];
    uint32_t round;

    for (round = 0; round < 12; round++) {
        websocket socket = make_websocket(role);
        size_t n = make_frames(role, data, 40000), sent, size;
        uint32_t conn;
        int peer;
        start(4, 16, arena_size, 1 << 20);
        read_frames(&socket, data, n);
        size = frames_size;
        CHECK(size > 1000 && !frames_error);
        memcpy(expected, frames, size);
        forget();
        conn = unix_pair(&peer);
        /* What comes before AMG_OP_WS is bytes, and the caller's codec reads them. */
        sent = round == 0 ? 0 : chance(3000);
        write_all(peer, data, sent);
        UNTIL(seen[conn].bytes == sent);
        socket = make_websocket(role);
        read_frames(&socket, data, sent);
        put(AMG_OP_WS, conn, 0, &socket, sizeof socket);
        submit();
        memset(&socket, 0xee, sizeof socket);
        while (sent < n) {
            size_t piece = 1 + chance(largest_piece);
            if (piece > n - sent) piece = n - sent;
            write_all(peer, data + sent, piece);
            sent += piece;
            if (!chance(20)) {
                uint64_t before = frames_bytes;
                one(AMG_OP_PAUSE, conn, 0);
                CHECK(turn(0) == 0 && frames_bytes == before);
                one(AMG_OP_RESUME, conn, 0);
            }
            if (chance(4)) turn(0);
        }
        UNTIL(frames_size >= size);
        CHECK(frames_size == size && memcmp(frames, expected, size) == 0 && !frames_error);
        CHECK(seen[conn].told[AMG_FRAME] + seen[conn].told[AMG_FRAMES] > 0);
        expect_idle();
        shutdown(peer, SHUT_WR);
        UNTIL(seen[conn].told[AMG_EOF]);
        close_and_release(conn);
        close(peer);
        stop();
    }
}

/* Nothing but the shortest frames: as many records as there can be. */
static void check_shortest_frames(uint8_t role, uint32_t arena_size) {
    enum { COUNT = 6000 };
    static uint8_t data[6 * COUNT];
    size_t size = role == AMG_SERVER ? 6 : 2, n = COUNT * size, i;
    websocket socket = make_websocket(role);
    uint32_t conn;
    int peer;

    memset(data, 0, sizeof data);
    for (i = 0; i < n; i += size) data[i] = 0x8a, data[i + 1] = role == AMG_SERVER ? 0x80 : 0;
    start(4, 16, arena_size, 1 << 20);
    conn = unix_pair(&peer);
    put(AMG_OP_WS, conn, 0, &socket, sizeof socket);
    submit();
    write_all(peer, data, 1);
    UNTIL(frames_bytes == 1);
    write_all(peer, data + 1, n - 1);
    UNTIL(frames_bytes == n);
    CHECK(frames_size == 2 * COUNT && !frames_error);
    for (i = 0; i < frames_size; i += 2) CHECK(frames[i] == 0x0a && frames[i + 1] == 0x80);
    close(peer);
    stop(); /* the connection is still open: what it has is freed */
}

static void check_end_of_frames(void) {
    static const uint8_t ping[] = "\x89\x03one", wrong[] = "\x81\x01\xff\x81\x01x", close_frame[] = "\x88\x00\x81\x01x";
    static const uint8_t large[] = "\x82\x7f\x12\x34\x56\x78\x9a\xbc\xde\xf0";
    websocket socket = make_websocket(AMG_CLIENT);
    uint32_t conn, i;
    int peer;

    start(4, 16, 65536, 1 << 20);
    for (i = 0; i < 4; i++) {
        forget();
        conn = unix_pair(&peer);
        put(AMG_OP_WS, conn, 0, &socket, sizeof socket);
        if (i == 3) put(AMG_OP_WS, conn, 0, &socket, sizeof socket); /* a second time: nothing */
        submit();
        write_all(peer, ping, 5);
        if (i == 0) write_all(peer, wrong, 6);
        if (i == 1) write_all(peer, close_frame, 5);
        if (i == 2) write_all(peer, large, 10);
        UNTIL(frames_error || frames_bytes >= 5 + (i == 1 ? 5u : i == 3 ? 0u : 6u));
        CHECK(memcmp(frames, "\x09one\x80", 5) == 0);
        CHECK(frames_error == (i == 0 ? (unsigned)AMG_WS_E_UTF8 : i == 2 ? (unsigned)AMG_WS_E_FRAME_SIZE : 0u));
        CHECK(frames_value == (i == 2 ? UINT64_C(0x123456789abcdef0) : 0));
        if (i == 1) CHECK(frames_size == 7 && frames[5] == 8 && frames[6] == 0x80);
        /* Behind the end bytes are told of, and nothing else. */
        if (i < 3) {
            uint64_t before = frames_bytes;
            size_t size = frames_size;
            write_all(peer, ping, 5);
            UNTIL(frames_bytes == before + 5);
            CHECK(frames_size == size);
        }
        close_and_release(conn);
        CHECK(!seen[conn].bytes);
        close(peer);
    }
    /* A payload of another size, and what is no stream: bytes stay bytes. */
    forget();
    conn = unix_pair(&peer);
    put(AMG_OP_WS, conn, 0, &socket, sizeof socket - 1);
    put(AMG_OP_WS, conn, 0, NULL, 0);
    submit();
    write_all(peer, ping, 5);
    UNTIL(seen[conn].bytes == 5);
    close_and_release(conn);
    close(peer);
    conn = listen_tcp(AMG_LISTENER);
    put(AMG_OP_WS, conn, 0, &socket, sizeof socket);
    submit();
    close_and_release(conn);
    stop();
}

/* Anything in any order. What a peer gets is the beginning of what was sent to it, and all of it after CLOSE. */
static void check_storm(void) {
    enum { N = 40 };
    static struct {
        uint32_t conn;
        int peer, closing, peer_closed, ended;
        uint64_t sent, got;
    } all[N];
    static uint8_t sample[200000 + 65536], bytes[65536];
    uint32_t round, i, complete = 0;
    size_t k;

    for (k = 0; k < sizeof sample; k++) sample[k] = (uint8_t)(k % 251);
    memset(all, 0, sizeof all);
    start(N, 32, 16384, 64 << 20);
    for (i = 0; i < N; i++) all[i].conn = unix_pair(&all[i].peer);
    for (round = 0; round < 6000; round++) {
        uint32_t steps = random_below(12);
        for (; steps > 0; steps--) {
            uint32_t what = random_below(100), size = random_below(random_below(10) == 0 ? 200000 : 3000) + 1;
            i = random_below(N);
            if (what < 50) {
                put(AMG_OP_SEND, all[i].conn, 0, sample + all[i].sent % 251, size);
                if (!all[i].closing) all[i].sent += size;
            } else if (what < 56) {
                put(AMG_OP_PAUSE, all[i].conn, 0, NULL, 0);
            } else if (what < 64) {
                put(AMG_OP_RESUME, all[i].conn, 0, NULL, 0);
            } else if (what < 76) {
                put(AMG_OP_DEADLINE, all[i].conn, random_below(5), NULL, 0);
            } else if (what < 78) {
                put(AMG_OP_SHUTDOWN, all[i].conn, 0, NULL, 0);
                all[i].closing |= 1;
            } else if (what < 80) {
                put(AMG_OP_CLOSE, all[i].conn, 0, NULL, 0);
                all[i].closing |= 1;
            } else if (what < 81) {
                put(AMG_OP_ABORT, all[i].conn, 0, NULL, 0);
                all[i].closing |= 2;
            } else if (what < 82 && !all[i].peer_closed) {
                shutdown(all[i].peer, random_below(2) ? SHUT_WR : SHUT_RDWR);
                all[i].peer_closed = 1;
            } else if (what < 90 && !all[i].peer_closed) {
                (void)send(all[i].peer, sample, size, MSG_DONTWAIT | MSG_NOSIGNAL);
            }
        }
        submit();
        turn(0);
        for (i = 0; i < N; i++) {
            ssize_t n, j;
            if (random_below(3) == 0 || all[i].ended) continue;
            n = read_some(all[i].peer, bytes, 1 + random_below(sizeof bytes));
            if (n < 0) {
                all[i].ended = 1;
                if (all[i].closing == 1 && !all[i].peer_closed) {
                    CHECK(all[i].got == all[i].sent);
                    complete++;
                }
            }
            for (j = 0; j < n; j++)
                if (bytes[j] != (all[i].got + (uint64_t)j) % 251) break;
            if (n > 0) {
                CHECK(j == n); /* the bytes of its own */
                all[i].got += (uint64_t)n;
            }
            CHECK(all[i].got <= all[i].sent);
        }
        for (i = 0; i < N; i++) { /* a new one in place of who has gone */
            if (!seen[all[i].conn].told[AMG_CLOSED] && !(all[i].ended && random_below(20) == 0)) continue;
            if (!all[i].ended && all[i].closing == 1 && !all[i].peer_closed) continue; /* it still reads */
            if (!seen[all[i].conn].told[AMG_CLOSED]) one(AMG_OP_ABORT, all[i].conn, 0);
            UNTIL(seen[all[i].conn].told[AMG_CLOSED]);
            one(AMG_OP_RELEASE, all[i].conn, 0);
            close(all[i].peer);
            memset(&all[i], 0, sizeof all[i]);
            all[i].conn = unix_pair(&all[i].peer);
        }
    }
    CHECK(complete > 50);
    for (i = 0; i < N; i++) close(all[i].peer);
    stop();
}

static int open_descriptors(void) {
    int fd, n = 0;

    for (fd = 0; fd < 20000; fd++) n += fcntl(fd, F_GETFD) != -1;
    return n;
}

/* -- MQTT packets --------------------------------------------------------------------------------------------------- */

typedef struct { /* the payload of AMG_OP_MQTT */
    amg_mqtt_limits limits;
    amg_mqtt codec;
} mqtt;

static const uint8_t mqtt_connect[] = "\x10\x0f\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x02id";
enum { MQTT_CONNECT = sizeof mqtt_connect - 1 };

/* One that has read a CONNECT; so has the user's codec. */
static mqtt make_mqtt(void) {
    mqtt made;

    memset(&made, 0, sizeof made);
    made.limits.max_packet = 20000;
    made.limits.max_connect = made.limits.max_small = 5000;
    made.limits.max_topic_length = made.limits.max_topic_levels = made.limits.max_user_properties = 100;
    made.limits.max_client_id = 100;
    amg_mqtt_init(&made.codec, AMG_SERVER, 0);
    mqtt_user.limits = made.limits;
    mqtt_user.codec = made.codec;
    forget();
    read_packets(mqtt_connect, MQTT_CONNECT);
    CHECK(packet_count == 1 && !packet_error && mqtt_user.size == 0);
    made.codec = mqtt_user.codec;
    forget();
    return made;
}

/* A packet of a client of 5.0. */
static size_t make_packet(uint8_t *out) {
    static const uint8_t small[][10] = {"\xc0\x00", "\x40\x02\x00\x01", "\x50\x03\x00\x02\x10", "\x62\x04\x00\x03\x92\x00",
                                        "\xa2\x06\x00\x07\x00\x00\x01"};
    static const size_t sizes[] = {2, 4, 5, 6, 8};
    uint32_t kind = chance(10), qos = chance(3), length = chance(8) ? chance(90) : chance(9000), n, i;

    if (kind < 5) {
        memcpy(out, small[kind], sizes[kind]);
        if (kind == 4) out[7] = 'f';
        return sizes[kind];
    }
    n = 0;
    out[n++] = (uint8_t)(0x30 | qos << 1);
    i = 8 + (qos ? 2u : 0u) + length; /* the remaining length, in more bytes than it needs now and then */
    if (i > 127 || !chance(9)) out[n++] = (uint8_t)(i | 128), out[n++] = (uint8_t)(i >> 7);
    else out[n++] = (uint8_t)i;
    memcpy(out + n, "\x00\x03t/x", 5);
    out[n + 4] = (uint8_t)('a' + chance(3));
    n += 5;
    if (qos) out[n++] = 1, out[n++] = (uint8_t)chance(256);
    memcpy(out + n, "\x02\x01\x01", 3);
    n += 3;
    for (i = 0; i < length; i++) out[n++] = (uint8_t)chance(256);
    return n;
}

/* Packets through the engine are what they are without it, however they come, and wherever the engine takes over. */
static void check_packets(uint32_t arena_size, uint32_t largest_piece) {
    static uint8_t data[CAPTURE], expected[sizeof packets];
    uint32_t round;

    mqtt_user.is_there = 1;
    for (round = 0; round < 12; round++) {
        size_t n = 0, sent, size;
        uint32_t conn, count;
        mqtt made = make_mqtt();
        int peer;
        while (n < 60000) n += make_packet(data + n);
        read_packets(data, n);
        size = packets_size;
        count = packet_count;
        CHECK(count > 50 && !packet_error && mqtt_user.size == 0);
        memcpy(expected, packets, size);
        start(4, 16, arena_size, 1 << 20);
        made = make_mqtt();
        conn = unix_pair(&peer);
        /* What comes before AMG_OP_MQTT is bytes; the engine goes on in the middle of a packet. */
        sent = round == 0 ? 0 : 1 + chance(9000);
        write_all(peer, data, sent);
        UNTIL(seen[conn].bytes == sent);
        if (mqtt_user.size > 0) {
            size_t position = 0, whole;
            amg_mqtt probe = mqtt_user.codec;
            amg_mqtt_record record;
            CHECK(amg_mqtt_read(&probe, &made.limits, mqtt_user.kept, mqtt_user.size, &position, &record, 1, &whole) == 0);
            if (whole) {
                made.codec.missing = (uint32_t)(whole - mqtt_user.size);
            } else {
                made.codec.held = (uint8_t)mqtt_user.size;
                memcpy(made.codec.head, mqtt_user.kept, mqtt_user.size);
                mqtt_user.size = 0; /* the engine has them */
            }
        }
        put(AMG_OP_MQTT, conn, 0, &made, sizeof made);
        submit();
        memset(&made, 0xee, sizeof made);
        while (sent < n) {
            size_t piece = 1 + chance(largest_piece);
            if (piece > n - sent) piece = n - sent;
            write_all(peer, data + sent, piece);
            sent += piece;
            if (!chance(20)) {
                uint64_t before = seen[conn].bytes;
                one(AMG_OP_PAUSE, conn, 0);
                CHECK(turn(0) == 0 && seen[conn].bytes == before);
                one(AMG_OP_RESUME, conn, 0);
            }
            if (chance(4)) turn(0);
        }
        UNTIL(packet_count >= count);
        CHECK(packet_count == count && packets_size == size && memcmp(packets, expected, size) == 0 && !packet_error);
        CHECK(mqtt_user.size == 0 && seen[conn].told[AMG_PACKET] + seen[conn].told[AMG_PACKETS] > 0);
        expect_idle();
        shutdown(peer, SHUT_WR);
        UNTIL(seen[conn].told[AMG_EOF]);
        close_and_release(conn);
        close(peer);
        stop();
    }
    mqtt_user.is_there = 0;
}

/* Nothing but the shortest packets: as many records as there can be. */
static void check_shortest_packets(uint32_t arena_size) {
    enum { COUNT = 20000 };
    static uint8_t data[2 * COUNT];
    mqtt made = make_mqtt();
    uint32_t conn, i;
    int peer;

    for (i = 0; i < sizeof data; i += 2) data[i] = 0xc0;
    mqtt_user.is_there = 1;
    start(4, 16, arena_size, 1 << 20);
    conn = unix_pair(&peer);
    put(AMG_OP_MQTT, conn, 0, &made, sizeof made);
    submit();
    write_all(peer, data, 3);
    UNTIL(packet_count == 1);
    write_all(peer, data + 3, sizeof data - 3);
    UNTIL(packet_count == COUNT);
    CHECK(!packet_error && packets_size == 4 * COUNT && mqtt_user.size == 0);
    close(peer);
    stop(); /* the connection is still open: what it has is freed */
    mqtt_user.is_there = 0;
}

static void check_end_of_packets(void) {
    static const uint8_t two[] = "\xc0\x00\x40\x02\x00\x01", zero[] = "\x40\x02\x00\x00\xc0\x00", over[] = "\xe0\x00\xc0\x00";
    static const uint8_t large[] = "\x30\xff\xff\x7f";
    mqtt made = make_mqtt();
    uint32_t conn, i;
    int peer;

    start(4, 16, 65536, 1 << 20);
    mqtt_user.is_there = 1;
    for (i = 0; i < 4; i++) {
        made = make_mqtt();
        conn = unix_pair(&peer);
        put(AMG_OP_MQTT, conn, 0, &made, sizeof made);
        if (i == 3) put(AMG_OP_MQTT, conn, 0, &made, sizeof made); /* a second time: nothing */
        submit();
        write_all(peer, two, 6);
        if (i == 0) write_all(peer, zero, 6);
        if (i == 1) write_all(peer, over, 4);
        if (i == 2) write_all(peer, large, 4);
        UNTIL(packet_error || packet_count == (i == 1 ? 3u : i == 3 ? 2u : 99u));
        CHECK(packet_error == (i == 0 ? (unsigned)AMG_MQTT_E_ZERO_ACK_ID : i == 2 ? (unsigned)AMG_MQTT_E_PACKET_SIZE : 0u));
        CHECK(packet_value == (i == 2 ? 2097151 + 4 : 0) && packets_size == (i == 1 ? 14u : 10u));
        if (i < 3) { /* behind the end nothing is told */
            uint32_t before = completion_count;
            write_all(peer, two, 6);
            for (int turns = 0; turns < 3; turns++) turn(20);
            CHECK(completion_count == before && packets_size == (i == 1 ? 14u : 10u));
        }
        close_and_release(conn);
        close(peer);
    }
    mqtt_user.is_there = 0;
    /* A payload of another size, what is no stream, and what are frames already: nothing. */
    made = make_mqtt();
    conn = unix_pair(&peer);
    put(AMG_OP_MQTT, conn, 0, &made, sizeof made - 1);
    put(AMG_OP_MQTT, conn, 0, NULL, 0);
    submit();
    write_all(peer, two, 6);
    UNTIL(seen[conn].bytes == 6);
    CHECK(seen[conn].told[AMG_DATA] > 0 && packet_count == 0);
    close_and_release(conn);
    close(peer);
    conn = listen_tcp(AMG_LISTENER);
    put(AMG_OP_MQTT, conn, 0, &made, sizeof made);
    submit();
    close_and_release(conn);
    conn = unix_pair(&peer);
    {
        websocket socket = make_websocket(AMG_CLIENT);
        put(AMG_OP_WS, conn, 0, &socket, sizeof socket);
        put(AMG_OP_MQTT, conn, 0, &made, sizeof made);
        submit();
        write_all(peer, "\x89\x00", 2);
        UNTIL(frames_bytes == 2);
    }
    close_and_release(conn);
    close(peer);
    stop();
}

int main(int argc, char **argv) {
    struct rlimit limit;
    uint32_t crowd = 5000;
    int before;

    CHECK(argc == 3);
    poller = strcmp(argv[1], "epoll") == 0    ? AMG_POLLER_EPOLL
             : strcmp(argv[1], "kqueue") == 0 ? AMG_POLLER_KQUEUE
                                              : AMG_POLLER_POLL;
    directory = argv[2];
    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = limit.rlim_max < 20000 ? limit.rlim_max : 20000;
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    if (limit.rlim_cur < 2 * crowd + 100) crowd = (uint32_t)limit.rlim_cur / 2 - 50;
    before = open_descriptors();
#define RUN(check)                                                                         \
    do {                                                                                   \
        double begin_ = now();                                                             \
        check;                                                                             \
        printf("%-40s %6.3f s\n", #check, now() - begin_);                                 \
    } while (0)
    RUN(check_creation());
    RUN(check_bind());
    RUN(check_accept(AMG_LISTENER));
    RUN(check_requests());
    RUN(check_share_of_requests());
    RUN(check_backlog());
    RUN(check_files());
    RUN(check_closing());
    RUN(check_resets());
    RUN(check_no_descriptors());
    RUN(check_full_table());
    RUN(check_deadlines());
    RUN(check_datagrams());
    RUN(check_connecting());
    RUN(check_fanout(crowd < 1000 ? crowd : 1000, 5000));
    RUN(check_fanout(60, 300000));
    RUN(check_fanout_in_parts());
    RUN(check_max_backlog());
    RUN(check_idle_crowd(crowd));
    RUN(check_scarcity(16, 65536, 100));
    RUN(check_scarcity(256, 4096, 100));
    RUN(check_scarcity(16, 2048, 20));
    RUN(check_stale_event());
    RUN(check_datagram_among_streams());
    RUN(check_descriptor());
    RUN(check_nonsense());
    RUN(check_frames(AMG_SERVER, 1 << 20, 3000));
    RUN(check_frames(AMG_CLIENT, 1 << 20, 300));
    RUN(check_frames(AMG_SERVER, 2048, 40));
    RUN(check_frames(AMG_CLIENT, 2048, 900));
    RUN(check_shortest_frames(AMG_SERVER, 1 << 20));
    RUN(check_shortest_frames(AMG_CLIENT, 1 << 20));
    RUN(check_shortest_frames(AMG_CLIENT, 2048));
    RUN(check_end_of_frames());
    RUN(check_packets(1 << 20, 3000));
    RUN(check_packets(1 << 20, 100));
    RUN(check_packets(2048, 40));
    RUN(check_packets(4096, 9000));
    RUN(check_shortest_packets(1 << 20));
    RUN(check_shortest_packets(2048));
    RUN(check_end_of_packets());
    RUN(check_storm());
    CHECK(open_descriptors() == before);
    free(queue);
    printf("%lu checks\n", checks);
    return 0;
}
