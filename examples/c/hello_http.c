/* A web server in C, without Python, in 32 KiB: "hello" over HTTP/1.1, with keep-alive. From the project's folder:
 *
 *     cc -Os -I asyncmg/core -o hello_http examples/c/hello_http.c asyncmg/core/amg_*.c
 *     ./hello_http 8000
 *
 * Port 0 lets the system choose; the address is printed. Ctrl-C or SIGTERM ends it.
 *
 * Memory, on a 64-bit machine: 18.2 KiB for the engine (16 KiB of it are the arena), at most 8 KiB for the backlogs of all
 * connections together, 4.6 KiB for the tables of this file: 30.8 KiB, and some 3 KiB of stack.
 */
#define _POSIX_C_SOURCE 200809L
#include "amg.h"

#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum {
    MAX_CONNS = 8,          /* the listener and seven clients */
    MAX_KEPT = 320,         /* a request that comes in pieces fits into this; one that comes at once may be longer */
    IDLE_TIMEOUT_MS = 10000 /* for a request to come, and for a reply to leave */
};

static const amg_engine_config config = {
    .max_conns = MAX_CONNS,
    .max_completions = 16,
    .arena_size = 16 * 1024,
    .max_read = 2 * 1024,
    .max_backlog = 8 * 1024,
    .poller = AMG_POLLER_AUTO,
    .accept_retry_ms = 1000,
    .http = {.max_request_line = 256, .max_field_line = 256, .max_header_size = 1024, .max_fields = 32,
             .max_chunk_line = 64, .max_chunk_extensions = 64, .max_trailer_size = 64},
};

static struct client {
    uint8_t kept[MAX_KEPT]; /* the beginning of a request whose end is still to come */
    uint32_t length;
    int is_closing;
} clients[MAX_CONNS];

static amg_engine *engine;
static uint8_t submissions[2 * 1024];
static size_t submitted;

static volatile sig_atomic_t stopped;

static void stop(int number) {
    (void)number;
    stopped = 1;
}

/* Hand over what has gathered. A client whose reply does not leave at once is not read from until it has. */
static void flush(void) {
    uint32_t i, notices = amg_engine_submit(engine, submissions, submitted);

    submitted = 0;
    for (i = 0; i < notices; i++) {
        amg_submission pause = {.op = AMG_OP_PAUSE, .conn = amg_engine_notices(engine)[i].conn};
        memcpy(submissions + submitted, &pause, sizeof pause);
        submitted += sizeof pause;
    }
    amg_engine_submit(engine, submissions, submitted);
    submitted = 0;
}

static void submit(uint32_t op, uint32_t conn, uint32_t arg, const char *payload) {
    amg_submission submission = {.op = (uint16_t)op, .conn = conn, .arg = arg};
    size_t length = strlen(payload);

    if (submitted + sizeof submission + length > sizeof submissions) flush();
    submission.length = (uint32_t)length;
    memcpy(submissions + submitted, &submission, sizeof submission);
    memcpy(submissions + submitted + sizeof submission, payload, length);
    submitted += sizeof submission + length;
}

static void reply(uint32_t conn, int status, const uint8_t *method, uint32_t method_length, uint32_t flags) {
    static const char body[] = "hello\n";
    char text[192];
    int is_head = method_length == 4 && memcmp(method, "HEAD", 4) == 0;
    const char *connection = "Connection: close\r\n";

    if (status == 200 && flags & AMG_HTTP_KEEP_ALIVE)
        connection = flags & AMG_HTTP_10 ? "Connection: keep-alive\r\n" : "";
    snprintf(text, sizeof text, "HTTP/1.1 %d %s\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n%s\r\n%s", status,
             status == 200 ? "OK" : "Refused", status == 200 ? (int)sizeof body - 1 : 0, connection,
             status == 200 && !is_head ? body : "");
    submit(AMG_OP_SEND, conn, 0, text);
    submit(AMG_OP_DEADLINE, conn, IDLE_TIMEOUT_MS, "");
    if (status == 200 && flags & AMG_HTTP_KEEP_ALIVE) return;
    /* Our side ends, then the client's does, or its time: to close at once might reset what it has not read. */
    submit(AMG_OP_SHUTDOWN, conn, 0, "");
    clients[conn].is_closing = 1;
}

/* The status for n bytes that do not begin with a whole simple request; 0: more is to come. */
static int judge(uint8_t *data, uint32_t n) {
    amg_http1_record records[4];
    amg_http1 codec;
    size_t consumed;

    amg_http1_init(&codec, AMG_SERVER);
    if (amg_http1_read(&codec, &config.http, data, n, 0, data, records, 4, &consumed) == 0) return 0;
    if (records[0].kind == AMG_HTTP1_ERROR) return records[0].status;
    if (records[0].flags & AMG_HTTP_EXPECTS_CONTINUE) return 417;
    if (records[0].framing == AMG_FRAMING_LENGTH) /* its content is not all there */
        return records[0].length + records[0].content_length <= MAX_KEPT ? 0 : 413;
    return 501; /* chunked, CONNECT or an upgrade */
}

/* Answer what is there as a whole, and return how many bytes that was. */
static uint32_t answer(uint32_t conn, uint8_t *data, uint32_t n) {
    uint32_t done = 0;

    while (done < n && !clients[conn].is_closing) {
        amg_http1_record head;
        uint32_t taken = (uint32_t)amg_http1_whole(&config.http, data + done, n - done, &head);
        if (taken > 0) {
            reply(conn, 200, data + done + head.offset, head.method_length, head.flags);
            done += taken;
        } else {
            int status = judge(data + done, n - done);
            if (status) reply(conn, status, NULL, 0, 0);
            break;
        }
    }
    return done;
}

/* Bytes that are no whole request: kept until the rest has come. */
static void receive(uint32_t conn, uint8_t *data, uint32_t n) {
    struct client *client = &clients[conn];
    uint32_t done = client->length == 0 ? answer(conn, data, n) : 0;

    data += done, n -= done;
    while (n > 0 && !client->is_closing) {
        uint32_t room = MAX_KEPT - client->length;
        if (room == 0) {
            reply(conn, 431, NULL, 0, 0);
            return;
        }
        if (room > n) room = n;
        memcpy(client->kept + client->length, data, room);
        client->length += room;
        data += room, n -= room;
        done = answer(conn, client->kept, client->length);
        client->length -= done;
        memmove(client->kept, client->kept + done, client->length);
    }
}

static void handle(const amg_completion *completion, uint32_t listener) {
    uint8_t *data = amg_engine_arena(engine) + completion->offset;
    uint32_t conn = completion->conn;

    switch (completion->op) {
    case AMG_ACCEPTED:
        memset(&clients[conn], 0, sizeof clients[conn]);
        submit(AMG_OP_DEADLINE, conn, IDLE_TIMEOUT_MS, "");
        break;
    case AMG_REQUEST:
        if (clients[conn].is_closing) break;
        /* Behind a request whose end is still to come, these bytes are of its content, whatever they look like. */
        if (clients[conn].length > 0) receive(conn, data, completion->length);
        else reply(conn, 200, data, completion->method_length, completion->flags);
        break;
    case AMG_DATA:
        receive(conn, data, completion->length);
        break;
    case AMG_SENT:
        if (completion->length == 0) submit(AMG_OP_RESUME, conn, 0, "");
        break;
    case AMG_EOF:
        submit(AMG_OP_CLOSE, conn, 0, "");
        break;
    case AMG_TIMEOUT:
        submit(AMG_OP_ABORT, conn, 0, "");
        break;
    case AMG_CLOSED:
        submit(AMG_OP_RELEASE, conn, 0, "");
        if (conn == listener) stopped = 1;
        else submit(AMG_OP_ACCEPT, listener, 1, "");
        break;
    default:
        break;
    }
}

int main(int argc, char **argv) {
    struct sigaction action;
    struct sockaddr_in address;
    socklen_t length = sizeof address;
    int64_t listener;
    int fd = amg_bind("127.0.0.1", argc > 1 ? (uint16_t)atoi(argv[1]) : 8000, AMG_LISTENER, 0, 16);

    if (fd < 0) {
        fprintf(stderr, "cannot listen: %s\n", strerror(-fd));
        return 1;
    }
    getsockname(fd, (struct sockaddr *)&address, &length);
    engine = amg_engine_new(&config);
    listener = engine == NULL ? -1 : amg_engine_adopt(engine, fd, AMG_LISTENER | AMG_HTTP);
    if (listener < 0) {
        fprintf(stderr, "cannot create the engine\n");
        return 1;
    }
    memset(&action, 0, sizeof action);
    action.sa_handler = stop;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    submit(AMG_OP_ACCEPT, (uint32_t)listener, MAX_CONNS - 1, "");
    flush();
    printf("http://127.0.0.1:%u\n", (unsigned)ntohs(address.sin_port));
    fflush(stdout);
    while (!stopped) {
        /* A signal ends the wait; one that comes just before it is seen a second later. */
        uint32_t i, n = amg_engine_poll(engine, 1000);
        for (i = 0; i < n; i++) handle(&amg_engine_completions(engine)[i], (uint32_t)listener);
        flush();
    }
    amg_engine_free(engine);
    return 0;
}
