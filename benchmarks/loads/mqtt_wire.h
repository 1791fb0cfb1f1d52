/* What mqtt_load.c and mqtt_stub.c share: clocks, CPU time of others, connections with buffers, packets of MQTT.
 *
 * Each includes it once; both are one thread on epoll. A connection's output is gathered and leaves in one write for each
 * turn of the loop; what is read goes to one buffer for all, and only a packet that is not complete is kept.
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define MAX_PIDS 64
#define SUB_BITS 5

enum {
  CONNECT = 1,
  CONNACK,
  PUBLISH,
  PUBACK,
  PUBREC,
  PUBREL,
  PUBCOMP,
  SUBSCRIBE,
  SUBACK,
  UNSUBSCRIBE,
  UNSUBACK,
  PINGREQ,
  PINGRESP,
  DISCONNECT,
};

static void fail(const char *what) {
  fprintf(stderr, "%s%s%s\n", what, errno ? ": " : "", errno ? strerror(errno) : "");
  exit(1);
}

/* -- clocks ------------------------------------------------------------------------------------------------------ */

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

static pid_t pids[MAX_PIDS]; /* of the other side */
static int pid_count;

static double delayed_seconds(pid_t pid) {
  char path[64];
  unsigned long long run, wait = 0;
  snprintf(path, sizeof path, "/proc/%ld/schedstat", (long)pid);
  FILE *file = fopen(path, "r"); /* some kernels have none */
  if (file && fscanf(file, "%llu %llu", &run, &wait) != 2) wait = 0;
  if (file) fclose(file);
  return (double)wait * 1e-9;
}

static struct used others_used(void) {
  struct used used = {0, 0};
  for (int i = 0; i < pid_count; i++) {
    clockid_t id;
    if ((errno = clock_getcpuclockid(pids[i], &id)) != 0) fail("the other side has ended");
    used.cpu += clock_seconds(id);
    used.delayed += delayed_seconds(pids[i]);
  }
  return used;
}

static struct used load_used(void) {
  struct used used = {clock_seconds(CLOCK_PROCESS_CPUTIME_ID), delayed_seconds(getpid())};
  return used;
}

/* Where a measurement began. */
struct mark {
  uint64_t at;
  struct used load, server;
};

static struct mark mark_now(void) {
  struct mark mark = {.load = load_used(), .server = others_used()};
  mark.at = now_ns();
  return mark;
}

/* Print what was used since then as members of a JSON object that goes on. */
static void print_used(struct mark mark, struct mark end) {
  printf("{\"seconds\": %.6f, \"load_cpu\": %.6f, \"load_delayed\": %.6f, \"server_cpu\": %.6f, \"server_delayed\": %.6f, ",
         (double)(end.at - mark.at) * 1e-9, end.load.cpu - mark.load.cpu, end.load.delayed - mark.load.delayed,
         end.server.cpu - mark.server.cpu, end.server.delayed - mark.server.delayed);
}

/* -- latency: a histogram with buckets of 3 % ------------------------------------------------------------------- */

static uint64_t histogram[64 << SUB_BITS];

static inline void record(uint64_t ns, uint64_t count) {
  unsigned e = ns < (1u << SUB_BITS) ? SUB_BITS : 63u - (unsigned)__builtin_clzll(ns);
  histogram[((e - SUB_BITS) << SUB_BITS) + (ns >> (e - SUB_BITS))] += count;
}

static inline double percentile_us(double share) {
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

/* -- connections ------------------------------------------------------------------------------------------------- */

struct stream {
  int fd; /* -1: it has ended */
  uint32_t events;
  uint32_t number; /* what epoll tells */
  uint8_t *out;
  size_t out_size, out_have, out_sent;
  uint8_t *rest; /* of a packet that is not complete */
  size_t rest_have, rest_size;
};

static int epfd, alive;
static uint64_t errors;
static char first_error[200];
static uint8_t input[512 << 10];

static void end(struct stream *s, const char *why) {
  if (s->fd < 0) return;
  errors++;
  if (!first_error[0]) snprintf(first_error, sizeof first_error, "%s", why);
  close(s->fd);
  s->fd = -1;
  alive--;
}

static void watch(struct stream *s, uint32_t events) {
  if (s->events == events) return;
  struct epoll_event e = {.events = events, .data.u32 = s->number};
  epoll_ctl(epfd, s->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, s->fd, &e);
  s->events = events;
}

/* Return where `size` bytes of output are to be written. */
static uint8_t *reserve(struct stream *s, size_t size) {
  if (s->out_sent && s->out_have + size > s->out_size) {
    memmove(s->out, s->out + s->out_sent, s->out_have - s->out_sent);
    s->out_have -= s->out_sent;
    s->out_sent = 0;
  }
  if (s->out_have + size > s->out_size) {
    s->out_size = 2 * (s->out_have + size);
    s->out = realloc(s->out, s->out_size);
    if (!s->out) fail("no memory for output");
  }
  uint8_t *p = s->out + s->out_have;
  s->out_have += size;
  return p;
}

static void flush(struct stream *s) {
  while (s->fd >= 0 && s->out_sent < s->out_have) {
    ssize_t sent = send(s->fd, s->out + s->out_sent, s->out_have - s->out_sent, MSG_NOSIGNAL);
    if (sent >= 0) {
      s->out_sent += (size_t)sent;
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      watch(s, EPOLLIN | EPOLLOUT);
      return;
    } else if (errno != EINTR) {
      end(s, "a connection broke while it was written to");
      return;
    }
  }
  s->out_have = s->out_sent = 0;
  if (s->fd >= 0) watch(s, EPOLLIN);
}

/* Receive once. Return how many bytes stand in `input`, what was kept of the last packet before them; 0: nothing came. */
static size_t receive(struct stream *s) {
  size_t had = s->rest_have;
  ssize_t n = recv(s->fd, input + had, sizeof input - had, 0);
  if (n > 0) {
    memcpy(input, s->rest, had);
    s->rest_have = 0;
    return had + (size_t)n;
  }
  if (n == 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)) end(s, "the other side ended a connection");
  return 0;
}

static void keep_rest(struct stream *s, const uint8_t *p, size_t n) {
  if (n > s->rest_size) {
    s->rest_size = n < 64 ? 64 : 2 * n;
    s->rest = realloc(s->rest, s->rest_size);
    if (!s->rest) fail("no memory for input");
  }
  memcpy(s->rest, p, n);
  s->rest_have = n;
}

static void set_blocking(int fd, int blocking) {
  int flags = fcntl(fd, F_GETFL);
  fcntl(fd, F_SETFL, blocking ? flags & ~O_NONBLOCK : flags | O_NONBLOCK);
}

/* -- packets ----------------------------------------------------------------------------------------------------- */

struct packet {
  int type, flags;
  const uint8_t *body;
  size_t size; /* of the body */
};

/* Read one packet. Return its size; 0: it is not complete; -1: it is none, or longer than the buffer. */
static inline ssize_t read_packet(const uint8_t *p, size_t n, struct packet *packet) {
  size_t length = 0, at = 1;
  for (unsigned shift = 0;; shift += 7) {
    if (at >= n) return 0;
    length |= (size_t)(p[at] & 127) << shift;
    if (!(p[at++] & 128)) break;
    if (shift == 21) return -1;
  }
  if (at + length > sizeof input) return -1;
  if (at + length > n) return 0;
  packet->type = p[0] >> 4;
  packet->flags = p[0] & 15;
  packet->body = p + at;
  packet->size = length;
  return (ssize_t)(at + length);
}

static inline size_t put_length(uint8_t *p, size_t length) {
  size_t n = 0;
  do {
    p[n] = (uint8_t)((length & 127) | (length > 127 ? 128 : 0));
    n++;
  } while (length >>= 7);
  return n;
}

static inline size_t put_string(uint8_t *p, const char *text) {
  size_t n = strlen(text);
  p[0] = (uint8_t)(n >> 8);
  p[1] = (uint8_t)n;
  memcpy(p + 2, text, n);
  return n + 2;
}

/* Queue PUBACK, PUBREC, PUBREL or PUBCOMP with success: the short form of both versions. */
static inline void queue_ack(struct stream *s, int type, unsigned id) {
  uint8_t *p = reserve(s, 4);
  p[0] = (uint8_t)(type << 4 | (type == PUBREL ? 2 : 0));
  p[1] = 2;
  p[2] = (uint8_t)(id >> 8);
  p[3] = (uint8_t)id;
}

/* Read a variable byte integer that is known to be complete; return its size. */
static inline size_t get_length(const uint8_t *p, size_t *value) {
  size_t n = 0;
  *value = 0;
  do *value |= (size_t)(p[n] & 127) << 7 * n;
  while (p[n++] & 128 && n < 4);
  return n;
}

/* The packet identifier of an acknowledgement that says success; -1: it says something else. */
static inline int ack_id(const struct packet *packet, int version) {
  if (packet->size < 2 || packet->flags != (packet->type == PUBREL ? 2 : 0)) return -1;
  if (packet->size > 2 && (version == 4 || packet->body[2] >= 0x80)) return -1;
  return packet->body[0] << 8 | packet->body[1];
}

/* Raise the limit of open files as far as it goes; fail where that is not enough for so many connections. */
static inline void require_files(uint64_t count) {
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  if (files.rlim_max != RLIM_INFINITY && count + 50 > files.rlim_max) {
    errno = 0;
    fail("so many connections need a higher limit of open files (ulimit -Hn)");
  }
}
