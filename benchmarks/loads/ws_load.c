/* The load of the WebSocket benchmarks: one thread, epoll, loopback, frames that were made and masked before.
 *
 *   ws_load key=value ...     see options(); prints one line of JSON
 *
 * mode=echo       each of `connections` keeps `depth` messages of `size` bytes in flight, for `warm_up` seconds and
 *                 then for `seconds` that count. New ones are sent when a quarter of `depth` has come back: a client
 *                 that sent each message on its own would be busier than the server.
 * mode=broadcast  connection 0 sends a message, all have to receive it; then the next (`depth` of them in flight).
 * mode=idle       each does one echo, then nothing but replies to pings. A line of JSON when all are open; then one for
 *                 each line on standard input, about the time since the line before; ends with its input.
 *
 * Every length is verified, and the contents of all short messages and of each 16th long one. raw=1: frames come back
 * as they were sent, masked: from a server that parses nothing. pid=N (repeatable): processes whose CPU time is taken
 * over exactly the measured time.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
#define PER_ADDRESS 20000 /* connections from one source address: there are 28,232 ports unless told otherwise */
#define MAX_PIDS 64
#define EVENTS 1024
#define SUB_BITS 5
#define STDIN_EVENT UINT32_MAX

enum { ECHO, BROADCAST, IDLE };

struct conn {
  int fd; /* -1: it has ended */
  uint32_t events;
  uint64_t queued;   /* messages that are sent or about to be */
  uint64_t received; /* messages that came back */
  size_t owed;       /* bytes to send ... */
  size_t offset;     /* ... from here in the ring of frames */
  uint64_t *sent_at;
  uint64_t left; /* of the payload of the frame that is being received */
  size_t at;     /* bytes received of the message */
  uint8_t head[14], head_have, in_payload, in_message;
  uint8_t control[125], control_have;
  uint8_t pong[131], pong_size, pong_sent;
};

static struct {
  int mode, port, connections, depth, raw, text;
  size_t size;
  double seconds, warm_up;
  pid_t pids[MAX_PIDS];
  int pid_count;
} opt = {.mode = ECHO, .connections = 1, .depth = 1, .size = 64, .seconds = 1};

static struct conn *conns;
static int epfd, alive;
static uint8_t *wire, *plain; /* the ring of masked frames, twice over; their payloads */
static size_t frame_size, frame_head, ring_frames, ring_size, verify_every;
static unsigned char buffer[256 << 10];

static uint64_t messages, bytes, errors, pings;
static uint64_t histogram[64 << SUB_BITS];
static char first_error[200];

/* broadcast: publications that everybody has, and how many have each of those in flight */
static uint64_t published_all;
static int *have_it;

static void fail(const char *what) {
  fprintf(stderr, "%s%s%s\n", what, errno ? ": " : "", errno ? strerror(errno) : "");
  exit(1);
}

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static double clock_seconds(clockid_t id) {
  struct timespec t;
  if (clock_gettime(id, &t) != 0) fail("cannot read a CPU clock");
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* What processes have used: of CPU time, and of time in which they could have run but another one had their core. */
struct used {
  double cpu, delayed;
};

static double delayed_seconds(pid_t pid) {
  char path[64];
  unsigned long long run, wait = 0;
  snprintf(path, sizeof path, "/proc/%ld/schedstat", (long)pid);
  FILE *file = fopen(path, "r"); /* some kernels have none */
  if (file && fscanf(file, "%llu %llu", &run, &wait) != 2) wait = 0;
  if (file) fclose(file);
  return (double)wait * 1e-9;
}

static struct used server_used(void) {
  struct used used = {0, 0};
  for (int i = 0; i < opt.pid_count; i++) {
    clockid_t id;
    if ((errno = clock_getcpuclockid(opt.pids[i], &id)) != 0) fail("the server has ended");
    used.cpu += clock_seconds(id);
    used.delayed += delayed_seconds(opt.pids[i]);
  }
  return used;
}

static struct used load_used(void) {
  struct used used = {clock_seconds(CLOCK_PROCESS_CPUTIME_ID), delayed_seconds(getpid())};
  return used;
}

/* -- latency: a histogram with buckets of 3 % ------------------------------------------------------------------- */

static void record(uint64_t ns) {
  unsigned e = ns < (1u << SUB_BITS) ? SUB_BITS : 63u - (unsigned)__builtin_clzll(ns);
  histogram[((e - SUB_BITS) << SUB_BITS) + (ns >> (e - SUB_BITS))]++;
}

static double percentile_us(double share) {
  uint64_t total = 0, below = 0;
  size_t buckets = sizeof histogram / sizeof *histogram;
  for (size_t i = 0; i < buckets; i++) total += histogram[i];
  for (size_t i = 0; i < buckets; i++) {
    below += histogram[i];
    if (below > 0 && (double)below >= share * (double)total) {
      size_t shift = i < (2u << SUB_BITS) ? 0 : (i >> SUB_BITS) - 1;
      return ((double)(i - (shift << SUB_BITS)) + 0.5) * (double)(1ull << shift) / 1e3;
    }
  }
  return 0;
}

/* -- frames ----------------------------------------------------------------------------------------------------- */

static size_t make_header(uint8_t *p, int opcode, size_t size, const uint8_t key[4]) {
  size_t n = 2;
  p[0] = (uint8_t)(0x80 | opcode);
  if (size < 126) {
    p[1] = (uint8_t)(0x80 | size);
  } else if (size < 65536) {
    p[1] = 0x80 | 126;
    p[n++] = (uint8_t)(size >> 8);
    p[n++] = (uint8_t)size;
  } else {
    p[1] = 0x80 | 127;
    for (int shift = 56; shift >= 0; shift -= 8) p[n++] = (uint8_t)((uint64_t)size >> shift);
  }
  memcpy(p + n, key, 4);
  return n + 4;
}

static void make_frames(void) {
  /* Different ones, so that a message cannot be taken for the one before it; in a broadcast the same again and again,
   * so that a server that parses nothing can keep what it sends. */
  ring_frames = (size_t)opt.depth < 4 ? 4 : (size_t)opt.depth;
  uint8_t scratch[14], key[4] = {0};
  frame_head = make_header(scratch, 2, opt.size, key);
  frame_size = frame_head + opt.size;
  ring_size = ring_frames * frame_size;
  wire = malloc(2 * ring_size);
  plain = malloc(ring_frames * opt.size + 1);
  if (!wire || !plain) fail("no memory for the frames");
  for (size_t i = 0; i < ring_frames; i++) {
    size_t kind = opt.mode == BROADCAST ? 0 : i;
    uint8_t *frame = wire + i * frame_size, *text = plain + i * opt.size;
    for (int k = 0; k < 4; k++) key[k] = (uint8_t)(0x5a + 37 * k + 11 * (int)kind);
    make_header(frame, opt.text ? 1 : 2, opt.size, key);
    for (size_t j = 0; j < opt.size; j++) {
      text[j] = (uint8_t)(' ' + (kind * 7 + j * 31) % 95);
      frame[frame_head + j] = text[j] ^ key[j & 3];
    }
  }
  memcpy(wire + ring_size, wire, ring_size);
  verify_every = opt.size <= 1024 ? 1 : 16;
}

/* -- one connection --------------------------------------------------------------------------------------------- */

static void end(struct conn *c, const char *why) {
  if (c->fd < 0) return;
  errors++;
  if (!first_error[0]) snprintf(first_error, sizeof first_error, "%s", why);
  close(c->fd);
  c->fd = -1;
  alive--;
}

static void watch(struct conn *c, uint32_t events) {
  if (c->events == events) return;
  struct epoll_event e = {.events = events, .data.u32 = (uint32_t)(c - conns)};
  epoll_ctl(epfd, c->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, c->fd, &e);
  c->events = events;
}

static void flush(struct conn *c) {
  while (c->fd >= 0 && (c->owed || c->pong_size)) {
    const uint8_t *p = wire + c->offset;
    size_t n = c->owed, into = c->offset % frame_size;
    int is_pong = c->pong_size && (c->pong_sent || into == 0);
    if (is_pong) {
      p = c->pong + c->pong_sent;
      n = (size_t)(c->pong_size - c->pong_sent);
    } else if (c->pong_size) {
      n = frame_size - into; /* a pong goes between two frames */
    }
    ssize_t sent = send(c->fd, p, n, MSG_NOSIGNAL);
    if (sent < 0) {
      if (errno == EAGAIN || errno == EWOULDBLOCK) {
        watch(c, EPOLLIN | EPOLLOUT);
        return;
      }
      if (errno == EINTR) continue;
      end(c, "a connection broke while it was written to");
      return;
    }
    if (is_pong) {
      c->pong_sent = (uint8_t)(c->pong_sent + sent);
      if (c->pong_sent == c->pong_size) c->pong_size = c->pong_sent = 0;
    } else {
      c->owed -= (size_t)sent;
      c->offset = (c->offset + (size_t)sent) % ring_size;
    }
  }
  if (c->fd >= 0) watch(c, EPOLLIN);
}

/* Queue messages until `depth` are in flight, but none while less than a quarter of them is missing. */
static void refill(struct conn *c, uint64_t done, uint64_t now) {
  uint64_t missing = (uint64_t)opt.depth - (c->queued - done);
  if (missing == 0 || missing < (uint64_t)opt.depth / 4) return;
  for (uint64_t i = 0; i < missing; i++) c->sent_at[(c->queued + i) % (uint64_t)opt.depth] = now;
  c->queued += missing;
  c->owed += missing * frame_size;
}

static void message_received(struct conn *c, uint64_t now) {
  uint64_t number = c->received++, slot = number % (uint64_t)opt.depth;
  messages++;
  bytes += opt.size;
  struct conn *sender = opt.mode == BROADCAST ? conns : c;
  if (number >= sender->queued) {
    end(c, "more messages came than were sent");
    return;
  }
  record(now - sender->sent_at[slot]);
  if (opt.mode == BROADCAST && ++have_it[slot] == opt.connections) {
    have_it[slot] = 0;
    published_all++;
  }
}

static void control_received(struct conn *c, int opcode) {
  if (opcode == 8) {
    end(c, "the server closed a connection");
  } else if (opcode == 9) {
    static const uint8_t key[4] = {1, 2, 3, 4};
    pings++;
    if (c->pong_sent) return; /* one is on its way: it will do (RFC 6455 section 5.5.3 is about the latest one) */
    size_t n = make_header(c->pong, 10, c->control_have, key);
    for (size_t i = 0; i < c->control_have; i++) c->pong[n + i] = c->control[i] ^ key[i & 3];
    c->pong_size = (uint8_t)(n + c->control_have);
  }
  c->control_have = 0;
}

static size_t header_size(const struct conn *c) {
  if (c->head_have < 2) return 2;
  int code = c->head[1] & 127;
  return 2 + (code == 126 ? 2u : code == 127 ? 8u : 0u) + (c->head[1] & 128 ? 4u : 0u);
}

/* The header is complete. Return what is wrong with it, or NULL. */
static const char *begin_frame(struct conn *c) {
  int opcode = c->head[0] & 15, code = c->head[1] & 127;
  if (c->head[0] & 0x70) return "a frame with a reserved bit: compression was not asked for";
  if ((c->head[1] & 128) && !opt.raw) return "a masked frame from a server";
  c->left = (uint64_t)code;
  if (code >= 126) {
    c->left = 0;
    for (int i = 0; i < (code == 126 ? 2 : 8); i++) c->left = c->left << 8 | c->head[2 + i];
  }
  c->in_payload = 1;
  if (opcode & 8) return c->left > 125 || !(c->head[0] & 128) ? "an invalid control frame" : NULL;
  if (opcode != (c->in_message ? 0 : opt.text ? 1 : 2)) return "a message of another type than was sent";
  if (c->left > opt.size - c->at) return "a message that is longer than what was sent";
  c->in_message = 1;
  return NULL;
}

static void take(struct conn *c, const uint8_t *p, size_t n, uint64_t now) {
  while (c->fd >= 0) {
    if (!c->in_payload) {
      while (c->head_have < header_size(c) && n) {
        c->head[c->head_have++] = *p++;
        n--;
      }
      if (c->head_have < header_size(c)) return;
      const char *wrong = begin_frame(c);
      if (wrong) {
        end(c, wrong);
        return;
      }
    }
    int opcode = c->head[0] & 15;
    size_t m = c->left < n ? (size_t)c->left : n;
    if (opcode & 8) {
      memcpy(c->control + c->control_have, p, m);
      c->control_have = (uint8_t)(c->control_have + m);
    } else if (c->received % verify_every == 0) {
      size_t i = c->received % ring_frames;
      const uint8_t *expected = c->head[1] & 128 ? wire + i * frame_size + frame_head : plain + i * opt.size;
      if (memcmp(p, expected + c->at, m) != 0) {
        end(c, "a message with other contents than were sent");
        return;
      }
    }
    if (!(opcode & 8)) c->at += m;
    p += m;
    n -= m;
    c->left -= m;
    if (c->left) return;
    c->in_payload = c->head_have = 0;
    if (opcode & 8) {
      control_received(c, opcode);
    } else if (c->head[0] & 128) {
      if (c->at != opt.size) {
        end(c, "a message that is shorter than what was sent");
        return;
      }
      c->at = c->in_message = 0;
      message_received(c, now);
    }
    if (!n) return;
  }
}

static uint64_t receive(struct conn *c) {
  ssize_t n = recv(c->fd, buffer, sizeof buffer, 0);
  uint64_t now = now_ns();
  if (n > 0) {
    take(c, buffer, (size_t)n, now);
  } else if (n == 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)) {
    end(c, "the server ended a connection");
  }
  return now;
}

/* -- all of them ------------------------------------------------------------------------------------------------ */

/* Wait for what happens and handle it; return whether standard input has something. */
static int handle_events(int timeout_ms) {
  struct epoll_event events[EVENTS];
  int told = 0, count = epoll_wait(epfd, events, EVENTS, timeout_ms);
  for (int i = 0; i < count; i++) {
    if (events[i].data.u32 == STDIN_EVENT) {
      told = 1;
      continue;
    }
    struct conn *c = conns + events[i].data.u32;
    if (c->fd < 0) continue;
    if (events[i].events & ~(uint32_t)EPOLLOUT) {
      uint64_t now = receive(c);
      if (opt.mode == ECHO && c->fd >= 0) refill(c, c->received, now);
    }
    if (c->fd >= 0 && (c->owed || c->pong_size)) flush(c);
  }
  if (opt.mode == BROADCAST && conns[0].fd >= 0 && conns[0].queued - published_all < (uint64_t)opt.depth) {
    refill(conns, published_all, now_ns());
    flush(conns);
  }
  return told;
}

static void set_blocking(int fd, int blocking) {
  int flags = fcntl(fd, F_GETFL);
  fcntl(fd, F_SETFL, blocking ? flags & ~O_NONBLOCK : flags | O_NONBLOCK);
}

static void open_connection(int number) {
  static const char request[] = "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                                "Sec-WebSocket-Key: " KEY "\r\nSec-WebSocket-Version: 13\r\n\r\n";
  struct conn *c = conns + number;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  struct timeval limit = {.tv_sec = 10};
  struct linger linger = {.l_onoff = 1}; /* no port stays in TIME_WAIT */
  int one = 1;
  c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (c->fd < 0) fail("cannot make a socket");
  setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  setsockopt(c->fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
  if (number >= PER_ADDRESS) {
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1u + (unsigned)(number / PER_ADDRESS));
    if (bind(c->fd, (struct sockaddr *)&address, sizeof address) != 0) fail("cannot bind");
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  }
  address.sin_port = htons((uint16_t)opt.port);
  if (connect(c->fd, (struct sockaddr *)&address, sizeof address) != 0) fail("cannot connect");
  if (send(c->fd, request, sizeof request - 1, MSG_NOSIGNAL) != (ssize_t)(sizeof request - 1)) fail("no handshake");
  char head[8192];
  size_t have = 0;
  char *rest = NULL;
  while (!rest) {
    ssize_t n = have < sizeof head - 1 ? recv(c->fd, head + have, sizeof head - 1 - have, 0) : 0;
    if (n <= 0) fail("no reply to a handshake");
    have += (size_t)n;
    head[have] = 0;
    rest = strstr(head, "\r\n\r\n");
  }
  *rest = 0;
  rest += 4;
  errno = 0;
  if (strncmp(head, "HTTP/1.1 101", 12) != 0 || !strstr(head, ACCEPT)) fail("a handshake was refused");
  if (strcasestr(head, "sec-websocket-extensions")) fail("the server uses an extension that was not offered");
  set_blocking(c->fd, 0);
  alive++;
  take(c, (uint8_t *)rest, have - (size_t)(rest - head), now_ns());
  if (c->fd >= 0) watch(c, EPOLLIN);
}

struct mark {
  uint64_t at;
  struct used load, server;
};

static struct mark begin(void) {
  messages = bytes = pings = 0;
  memset(histogram, 0, sizeof histogram);
  struct mark mark = {.load = load_used(), .server = server_used()};
  mark.at = now_ns();
  return mark;
}

static void tell_since(struct mark mark) {
  double seconds = (double)(now_ns() - mark.at) * 1e-9;
  struct used load = load_used(), server = server_used();
  printf("{\"connections\": %d, \"alive\": %d, \"seconds\": %.6f, \"messages\": %llu, \"bytes\": %llu, "
         "\"errors\": %llu, \"error\": \"%s\", \"pings\": %llu, \"p50_us\": %.2f, \"p99_us\": %.2f, "
         "\"load_cpu\": %.6f, \"load_delayed\": %.6f, \"server_cpu\": %.6f, \"server_delayed\": %.6f}\n",
         opt.connections, alive, seconds, (unsigned long long)messages, (unsigned long long)bytes,
         (unsigned long long)errors, first_error, (unsigned long long)pings, percentile_us(0.5), percentile_us(0.99),
         load.cpu - mark.load.cpu, load.delayed - mark.load.delayed, server.cpu - mark.server.cpu,
         server.delayed - mark.server.delayed);
  fflush(stdout);
}

static void run_until(uint64_t deadline) {
  for (uint64_t now = now_ns(); now < deadline && alive; now = now_ns())
    handle_events((int)((deadline - now) / 1000000) + 1);
}

static void load(void) {
  /* A server may know of a connection a little later than it says so: nobody must miss the first publication. */
  if (opt.mode == BROADCAST) usleep(200000);
  uint64_t now = now_ns();
  for (int i = 0; i < (opt.mode == BROADCAST ? 1 : opt.connections); i++) {
    refill(conns + i, 0, now);
    flush(conns + i);
  }
  run_until(now + (uint64_t)(opt.warm_up * 1e9));
  struct mark mark = begin();
  run_until(mark.at + (uint64_t)(opt.seconds * 1e9));
  tell_since(mark);
}

static void idle(void) {
  uint64_t deadline = now_ns() + (uint64_t)(opt.seconds * 1e9);
  uint64_t all_by = now_ns() + 20000000000u;
  while (messages < (uint64_t)opt.connections && alive == opt.connections && now_ns() < all_by) handle_events(100);
  struct epoll_event e = {.events = EPOLLIN, .data.u32 = STDIN_EVENT};
  if (epoll_ctl(epfd, EPOLL_CTL_ADD, 0, &e) != 0) fail("cannot watch standard input");
  struct mark mark = begin();
  tell_since(mark);
  while (now_ns() < deadline) {
    if (!handle_events(1000)) continue;
    char line[256];
    if (read(0, line, sizeof line) <= 0) return;
    tell_since(mark);
    mark = begin();
  }
}

static void options(int argc, char **argv) {
  for (int i = 1; i < argc; i++) {
    char *value = strchr(argv[i], '=');
    if (!value) fail("options are key=value");
    *value++ = 0;
    if (!strcmp(argv[i], "mode")) {
      opt.mode = !strcmp(value, "echo") ? ECHO : !strcmp(value, "broadcast") ? BROADCAST : IDLE;
    } else if (!strcmp(argv[i], "port")) {
      opt.port = atoi(value);
    } else if (!strcmp(argv[i], "connections")) {
      opt.connections = atoi(value);
    } else if (!strcmp(argv[i], "depth")) {
      opt.depth = atoi(value);
    } else if (!strcmp(argv[i], "size")) {
      opt.size = (size_t)atol(value);
    } else if (!strcmp(argv[i], "seconds")) {
      opt.seconds = atof(value);
    } else if (!strcmp(argv[i], "warm_up")) {
      opt.warm_up = atof(value);
    } else if (!strcmp(argv[i], "raw")) {
      opt.raw = atoi(value);
    } else if (!strcmp(argv[i], "text")) {
      opt.text = atoi(value);
    } else if (!strcmp(argv[i], "pid") && opt.pid_count < MAX_PIDS) {
      opt.pids[opt.pid_count++] = (pid_t)atol(value);
    } else {
      fail("no such option");
    }
  }
  if (opt.port < 1 || opt.connections < 1 || opt.depth < 1 || opt.size < 1) fail("an option is out of range");
}

int main(int argc, char **argv) {
  options(argc, argv);
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  if (files.rlim_max != RLIM_INFINITY && (rlim_t)opt.connections + 50 > files.rlim_max) {
    errno = 0;
    fail("so many connections need a higher limit of open files (ulimit -Hn)");
  }
  alarm((unsigned)(opt.seconds + opt.warm_up) + 120); /* whatever happens, it ends */
  make_frames();
  conns = calloc((size_t)opt.connections, sizeof *conns);
  have_it = calloc((size_t)opt.depth, sizeof *have_it);
  uint64_t *times = calloc((size_t)opt.connections * (size_t)opt.depth, sizeof *times);
  epfd = epoll_create1(EPOLL_CLOEXEC);
  if (!conns || !have_it || !times || epfd < 0) fail("cannot begin");
  for (int i = 0; i < opt.connections; i++) {
    conns[i].fd = -1;
    conns[i].sent_at = times + (size_t)i * (size_t)opt.depth;
  }
  for (int i = 0; i < opt.connections; i++) {
    open_connection(i);
    if (opt.mode == IDLE && conns[i].fd >= 0) {
      refill(conns + i, 0, now_ns());
      flush(conns + i);
    }
    if (opt.mode == IDLE && i % 32 == 31) handle_events(0); /* pings come while others are being opened */
  }
  if (opt.mode == IDLE) {
    idle();
  } else {
    load();
  }
  return 0;
}
