/* A broker for one client, which is what is measured: it answers every packet, keeps nothing and routes nothing.
 *
 *   mqtt_stub key=value ...     see options(); prints its port, then one line of JSON
 *
 * mode=publish   the client publishes; what it sends is acknowledged as its quality of service wants, all that one read
 *                has brought in one write.
 * mode=receive   the client has subscribed to load/in and gets messages with payloads of `size` bytes at `qos`: as many as
 *                go, but at most `window` that it has not acknowledged, and at most `ahead` that it has not told of: it
 *                publishes to load/seen how many it has had, as decimal digits, from time to time. So a client cannot
 *                gather what its application has not had yet.
 *
 * A line on standard input names the processes of the client, by number. Then it measures for `seconds`, after `warm_up`
 * seconds, from the first message on; and ends.
 */

#include "mqtt_wire.h"

#define CONNECT_NS 20000000000u
#define CHUNK (64u << 10) /* bytes that are queued at a time: a socket buffer that is full is not what is measured */

static struct {
  int is_receive, qos, window, ahead;
  size_t size;
  double seconds, warm_up;
} opt = {.window = 20, .ahead = 1000, .size = 64, .seconds = 1};

static struct stream client = {.fd = -1};
static int version = 4, window, is_subscribed;
static uint64_t messages; /* published by the client, or told */
static uint64_t sent;     /* to it */
static int unacknowledged;
static unsigned next_id = 1;
static uint8_t awaits[65536];
static uint8_t head[16], *payload;
static size_t head_size;

static const char *take_connect(const struct packet *packet) {
  const uint8_t *p = packet->body;
  if (packet->size < 10 || memcmp(p, "\0\4MQTT", 6) != 0) return "a CONNECT that is none";
  version = p[6];
  if (version == 5) {
    size_t properties, at = 10 + get_length(p + 10, &properties), stop = at + properties;
    for (; at < stop; at++) {
      uint8_t name = p[at];
      if (name == 0x21 && window > (p[at + 1] << 8 | p[at + 2])) window = p[at + 1] << 8 | p[at + 2];
      if (name == 0x11 || name == 0x27) {
        at += 4;
      } else if (name == 0x21 || name == 0x22) {
        at += 2;
      } else if (name == 0x17 || name == 0x19) {
        at += 1;
      } else {
        break; /* strings come last in the clients that are measured */
      }
    }
    memcpy(reserve(&client, 5), "\x20\3\0\0\0", 5);
  } else {
    memcpy(reserve(&client, 4), "\x20\2\0\0", 4);
  }
  return NULL;
}

/* SUBACK: what was asked for, at the quality of service of the messages. */
static const char *take_subscribe(const struct packet *packet) {
  uint8_t *p = reserve(&client, version == 5 ? 6 : 5);
  p[0] = SUBACK << 4;
  p[1] = version == 5 ? 4 : 3;
  memcpy(p + 2, packet->body, 2);
  if (version == 5) p[4] = 0;
  p[version == 5 ? 5 : 4] = (uint8_t)opt.qos;
  is_subscribed = 1;
  return NULL;
}

static const char *take_publish(const struct packet *packet) {
  int qos = packet->flags >> 1 & 3;
  const uint8_t *p = packet->body, *stop = p + packet->size;
  size_t topic_size = 2u + (size_t)(p[0] << 8 | p[1]), properties;
  p += topic_size;
  unsigned id = 0;
  if (qos) {
    id = (unsigned)(p[0] << 8 | p[1]);
    p += 2;
    queue_ack(&client, qos == 1 ? PUBACK : PUBREC, id);
  }
  if (version == 5) {
    p += get_length(p, &properties);
    p += properties;
  }
  if (p > stop) return "a PUBLISH that is too short";
  if (opt.is_receive) {
    uint64_t told = 0;
    for (; p < stop; p++) {
      if (*p < '0' || *p > '9') return "a number of messages that is none";
      told = 10 * told + (uint64_t)(*p - '0');
    }
    if (told < messages || told > sent) return "the client told of messages that it was not sent";
    messages = told;
    return NULL;
  }
  if ((size_t)(stop - p) != opt.size) return "a PUBLISH with a payload of another length";
  if (qos != opt.qos) return "a PUBLISH with another quality of service";
  messages++;
  return NULL;
}

static const char *take_ack(const struct packet *packet) {
  int id = ack_id(packet, version);
  if (id < 0) return "an acknowledgement that does not say success";
  if (packet->type == PUBREL) {
    queue_ack(&client, PUBCOMP, (unsigned)id);
    return NULL;
  }
  if (awaits[id] != packet->type) return "an acknowledgement that was not waited for";
  if (packet->type == PUBREC) {
    queue_ack(&client, PUBREL, (unsigned)id);
    awaits[id] = PUBCOMP;
  } else {
    awaits[id] = 0;
    unacknowledged--;
  }
  return NULL;
}

static const char *take_packet(const struct packet *packet) {
  switch (packet->type) {
    case CONNECT:
      return take_connect(packet);
    case SUBSCRIBE:
      return take_subscribe(packet);
    case PUBLISH:
      return take_publish(packet);
    case PUBACK:
    case PUBREC:
    case PUBREL:
    case PUBCOMP:
      return take_ack(packet);
    case PINGREQ:
      memcpy(reserve(&client, 2), "\xd0\0", 2);
      return NULL;
    case DISCONNECT:
      return "the client disconnected";
    default:
      return "a packet of a type that was not waited for";
  }
}

static void take_input(void) {
  size_t n = receive(&client), at = 0;
  int one = 1;
  /* Clients that leave Nagle's algorithm on would wait for the delayed acknowledgement of TCP: a window of messages in
   * each 40 ms. Their brokers answer more often than this one, which gathers. */
  setsockopt(client.fd, IPPROTO_TCP, TCP_QUICKACK, &one, sizeof one);
  while (at < n && client.fd >= 0) {
    struct packet packet;
    ssize_t size = read_packet(input + at, n - at, &packet);
    if (size == 0) {
      keep_rest(&client, input + at, n - at);
      return;
    }
    const char *wrong = size < 0 ? "something that is no packet" : take_packet(&packet);
    if (wrong) end(&client, wrong);
    at += (size_t)size;
  }
}

static void make_head(void) {
  static const uint8_t topic[] = "\0\7load/in";
  head[0] = (uint8_t)(PUBLISH << 4 | opt.qos << 1);
  head_size = 1 + put_length(head + 1, 9 + (opt.qos ? 2u : 0u) + (version == 5 ? 1u : 0u) + opt.size);
  memcpy(head + head_size, topic, 9);
  head_size += 9;
}

/* Queue messages, but none while less than a quarter is missing. */
static void refill(void) {
  if (!is_subscribed) return;
  if (head_size == 0) make_head();
  uint64_t ahead = sent - messages;
  int missing = opt.ahead - (int)ahead, free_ids = opt.qos ? window - unacknowledged : opt.ahead;
  if (free_ids < (window + 3) / 4) return;
  if (missing > free_ids) missing = free_ids;
  for (; missing > 0 && client.out_have < CHUNK; missing--, sent++) {
    if (opt.qos && awaits[next_id]) return;
    uint8_t *p = reserve(&client, head_size + (opt.qos ? 2u : 0u) + (version == 5 ? 1u : 0u) + opt.size);
    memcpy(p, head, head_size);
    p += head_size;
    if (opt.qos) {
      awaits[next_id] = opt.qos == 1 ? PUBACK : PUBREC;
      unacknowledged++;
      *p++ = (uint8_t)(next_id >> 8);
      *p++ = (uint8_t)next_id;
      next_id = next_id == 65535 ? 1 : next_id + 1;
    }
    if (version == 5) *p++ = 0;
    memcpy(p, payload, opt.size);
  }
}

static void handle_events(int timeout_ms) {
  struct epoll_event event;
  if (epoll_wait(epfd, &event, 1, timeout_ms) == 1 && (event.events & ~(uint32_t)EPOLLOUT)) take_input();
  do {
    if (client.fd >= 0 && opt.is_receive) refill();
    if (client.fd < 0 || !client.out_have) return;
    flush(&client);
  } while (!client.out_have); /* all of it was taken: there may be more, and no event will tell */
}

static void run_until(uint64_t deadline, uint64_t enough) {
  for (uint64_t now = now_ns(); now < deadline && client.fd >= 0 && messages < enough; now = now_ns())
    handle_events((int)((deadline - now) / 1000000) + 1);
}

static int listen_somewhere(void) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof address;
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) != 0 || listen(fd, 1) != 0) fail("cannot listen");
  getsockname(fd, (struct sockaddr *)&address, &size);
  printf("%d\n", ntohs(address.sin_port));
  fflush(stdout);
  return fd;
}

static void read_pids(void) {
  char line[1024], *p = line, *stop;
  errno = 0;
  if (!fgets(line, sizeof line, stdin)) fail("standard input names no process");
  while (pid_count < MAX_PIDS) {
    long pid = strtol(p, &stop, 10);
    if (stop == p) break;
    pids[pid_count++] = (pid_t)pid;
    p = stop;
  }
}

static void accept_client(int listening) {
  struct timeval limit = {.tv_sec = 20};
  int one = 1;
  setsockopt(listening, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  client.fd = accept(listening, NULL, NULL);
  if (client.fd < 0) fail("no client came");
  setsockopt(client.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  set_blocking(client.fd, 0);
  epfd = epoll_create1(EPOLL_CLOEXEC);
  if (epfd < 0) fail("cannot begin");
  alive = 1;
  watch(&client, EPOLLIN);
}

static void options(int argc, char **argv) {
  for (int i = 1; i < argc; i++) {
    char *value = strchr(argv[i], '=');
    if (!value) fail("options are key=value");
    *value++ = 0;
    if (!strcmp(argv[i], "mode")) {
      opt.is_receive = !strcmp(value, "receive");
    } else if (!strcmp(argv[i], "qos")) {
      opt.qos = atoi(value);
    } else if (!strcmp(argv[i], "size")) {
      opt.size = (size_t)atol(value);
    } else if (!strcmp(argv[i], "window")) {
      opt.window = atoi(value);
    } else if (!strcmp(argv[i], "ahead")) {
      opt.ahead = atoi(value);
    } else if (!strcmp(argv[i], "seconds")) {
      opt.seconds = atof(value);
    } else if (!strcmp(argv[i], "warm_up")) {
      opt.warm_up = atof(value);
    } else {
      fail("no such option");
    }
  }
  if (opt.qos < 0 || opt.qos > 2 || opt.window < 1 || opt.window > 60000 || opt.ahead < 1 || opt.size < 1 ||
      opt.size > sizeof input / 2)
    fail("an option is out of range");
}

int main(int argc, char **argv) {
  options(argc, argv);
  window = opt.window;
  payload = malloc(opt.size);
  if (!payload) fail("no memory for the payload");
  for (size_t i = 0; i < opt.size; i++) payload[i] = (uint8_t)(' ' + i * 31 % 95);
  alarm((unsigned)(opt.seconds + opt.warm_up) + 120); /* whatever happens, it ends */
  int listening = listen_somewhere();
  accept_client(listening);
  read_pids();
  run_until(now_ns() + CONNECT_NS, 1);
  run_until(now_ns() + (uint64_t)(opt.warm_up * 1e9), UINT64_MAX);
  uint64_t before = messages;
  struct mark mark = mark_now();
  run_until(mark.at + (uint64_t)(opt.seconds * 1e9), UINT64_MAX);
  if (client.fd < 0) pid_count = 0; /* it may have ended */
  print_used(mark, mark_now());
  printf("\"messages\": %llu, \"errors\": %llu, \"error\": \"%s\"}\n", (unsigned long long)(messages - before),
         (unsigned long long)errors, first_error);
  return 0;
}
