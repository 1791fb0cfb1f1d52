/* The load of the MQTT benchmarks: publishers and subscribers in one thread, epoll, loopback.
 *
 *   mqtt_load key=value ...     see options(); prints one line of JSON
 *
 * mode=load   `publishers` publish, each to a topic of its own; subscriber i has the topic of publisher i modulo
 *             `publishers`: 1 and 1, 10 and 10 are pairs, 1 and 100 a fan. `qos` is that of publication and subscription,
 *             `size` that of the payload. A publisher is at most `window` messages ahead of the slowest of its
 *             subscribers, and has at most so many not acknowledged: no queue of a broker overflows. New ones are sent
 *             when a quarter of the window is free, in one write. For `warm_up` seconds and then for `seconds` that
 *             count; then what is on its way has to arrive. messages=N: so many from each publisher instead, within
 *             `seconds`, all of which count.
 * mode=idle   `subscribers` clients, each with a subscription, that do nothing but send a PINGREQ every `ping` seconds (0:
 *             none). A line of JSON when all are there; then one for each line on standard input, about the time since
 *             the line before; ends with its input.
 *
 * Each payload begins with its number: every delivery has to be the next one, with the topic and the quality of service
 * it was sent with; the rest of the contents is compared in all short messages and in each 16th long one. pid=N
 * (repeatable): processes whose CPU time is taken over exactly the measured time.
 */

#include "mqtt_wire.h"

#define EVENTS 1024
#define STDIN_EVENT UINT32_MAX
#define PER_ADDRESS 20000 /* connections from one source address: there are 28,232 ports unless told otherwise */
#define DRAIN_NS 10000000000u
#define NUMBER 8 /* bytes of a payload that are its number */

struct client {
  struct stream stream;
  /* Of a publisher: */
  uint64_t published, complete; /* complete: all of its subscribers have them */
  uint64_t *sent_at;            /* in a ring of `window` */
  int *have_it;
  int unacknowledged, window, subscribers;
  uint16_t next_id;
  uint8_t *awaits; /* by packet identifier: the packet that is to come, or 0 */
  uint8_t head[5], topic[32]; /* of each PUBLISH: its fixed header; the topic with its length */
  size_t head_size, topic_size;
  /* Of a subscriber: */
  struct client *publisher;
  uint64_t received;
  int releases; /* PUBREL packets that are to come */
};

static struct {
  int is_idle, port, version, publishers, subscribers, qos, window;
  size_t size;
  double seconds, warm_up, ping;
  uint64_t messages;
} opt = {.version = 4, .publishers = 1, .subscribers = 1, .window = 20, .size = 64, .seconds = 1};

static struct client *clients; /* the subscribers, then the publishers */
static int client_count;
static int is_stopped; /* nothing new is published */
static uint8_t *payload;
static size_t verify_every;

static uint64_t deliveries, published, pings;
static uint64_t ping_number; /* of the client whose turn it is */

/* -- what comes -------------------------------------------------------------------------------------------------- */

static const char *take_publish(struct client *c, const struct packet *packet, uint64_t now) {
  struct client *from = c->publisher;
  if (!from) return "a PUBLISH for a client that has not subscribed";
  if (packet->flags != opt.qos << 1) return "a PUBLISH with other flags than it was sent with";
  const uint8_t *p = packet->body;
  size_t at = from->topic_size;
  if (packet->size < at + opt.size) return "a PUBLISH that is too short";
  if (memcmp(p, from->topic, at) != 0) return "a PUBLISH with another topic";
  unsigned id = 0;
  if (opt.qos) {
    id = (unsigned)(p[at] << 8 | p[at + 1]);
    at += 2;
  }
  if (opt.version == 5) {
    size_t properties, n = get_length(p + at, &properties);
    at += n + properties;
  }
  if (packet->size != at + opt.size) return "a PUBLISH with a payload of another length";
  uint64_t number;
  memcpy(&number, p + at, NUMBER);
  if (number != c->received) return number < c->received ? "a message came twice" : "a message was lost";
  if (number >= from->published) return "a message came that was not sent";
  if (number % verify_every == 0 && memcmp(p + at + NUMBER, payload + NUMBER, opt.size - NUMBER) != 0)
    return "a message with other contents than were sent";
  c->received++;
  deliveries++;
  size_t slot = number % (uint64_t)from->window;
  if (++from->have_it[slot] == from->subscribers) {
    from->have_it[slot] = 0;
    from->complete++;
    record(now - from->sent_at[slot], 1); /* until the last one has it */
  }
  if (opt.qos) queue_ack(&c->stream, opt.qos == 1 ? PUBACK : PUBREC, id);
  c->releases += opt.qos == 2;
  return NULL;
}

/* PUBACK, PUBREC, PUBCOMP for a publisher. */
static const char *take_ack(struct client *c, const struct packet *packet) {
  int id = ack_id(packet, opt.version);
  if (id < 0) return "an acknowledgement that does not say success";
  if (!c->awaits || c->awaits[id] != packet->type) return "an acknowledgement that was not waited for";
  if (packet->type == PUBREC) {
    queue_ack(&c->stream, PUBREL, (unsigned)id);
    c->awaits[id] = PUBCOMP;
  } else {
    c->awaits[id] = 0;
    c->unacknowledged--;
  }
  return NULL;
}

static const char *take_release(struct client *c, const struct packet *packet) {
  int id = ack_id(packet, opt.version);
  if (id < 0) return "a PUBREL that does not say success";
  if (c->releases == 0) return "a PUBREL that was not waited for";
  c->releases--;
  queue_ack(&c->stream, PUBCOMP, (unsigned)id);
  return NULL;
}

static const char *take_packet(struct client *c, const struct packet *packet, uint64_t now) {
  switch (packet->type) {
    case PUBLISH:
      return take_publish(c, packet, now);
    case PUBACK:
    case PUBREC:
    case PUBCOMP:
      return take_ack(c, packet);
    case PUBREL:
      return take_release(c, packet);
    case PINGRESP:
      pings++;
      return NULL;
    case DISCONNECT:
      return "the broker disconnected a client";
    default:
      return "a packet of a type that was not waited for";
  }
}

static uint64_t take_input(struct client *c) {
  size_t n = receive(&c->stream), at = 0;
  uint64_t now = now_ns();
  while (at < n && c->stream.fd >= 0) {
    struct packet packet;
    ssize_t size = read_packet(input + at, n - at, &packet);
    if (size == 0) {
      keep_rest(&c->stream, input + at, n - at);
      break;
    }
    const char *wrong = size < 0 ? "something that is no packet" : take_packet(c, &packet, now);
    if (wrong) end(&c->stream, wrong);
    at += (size_t)size;
  }
  return now;
}

/* -- what goes --------------------------------------------------------------------------------------------------- */

static void queue_publish(struct client *c, uint64_t now) {
  size_t size = c->head_size + c->topic_size + (opt.qos ? 2u : 0u) + (opt.version == 5 ? 1u : 0u) + opt.size;
  uint8_t *p = reserve(&c->stream, size);
  memcpy(p, c->head, c->head_size);
  p += c->head_size;
  memcpy(p, c->topic, c->topic_size);
  p += c->topic_size;
  if (opt.qos) {
    c->awaits[c->next_id] = opt.qos == 1 ? PUBACK : PUBREC;
    c->unacknowledged++;
    *p++ = (uint8_t)(c->next_id >> 8);
    *p++ = (uint8_t)c->next_id;
    c->next_id = c->next_id == 65535 ? 1 : (uint16_t)(c->next_id + 1);
  }
  if (opt.version == 5) *p++ = 0; /* no properties */
  memcpy(p, &c->published, NUMBER);
  memcpy(p + NUMBER, payload + NUMBER, opt.size - NUMBER);
  if (c->subscribers) {
    c->sent_at[c->published % (uint64_t)c->window] = now;
  } else {
    c->complete++;
  }
  c->published++;
  published++;
}

/* Queue messages until the window is full, but none while less than a quarter of it is free. */
static void refill(struct client *c, uint64_t now) {
  int ahead = (int)(c->published - c->complete);
  int missing = c->window - (ahead > c->unacknowledged ? ahead : c->unacknowledged);
  if (is_stopped || missing < (c->window + 3) / 4) return;
  for (; missing > 0 && (!opt.messages || c->published < opt.messages); missing--) {
    if (opt.qos && c->awaits[c->next_id]) return; /* an old one that is still not acknowledged */
    queue_publish(c, now);
  }
}

/* Send the PINGREQs whose time has come: those of all clients are spread over the interval. */
static void ping(uint64_t began, uint64_t now) {
  uint64_t due = (uint64_t)((double)(now - began) * 1e-9 / opt.ping * client_count);
  for (; ping_number < due; ping_number++) {
    struct stream *s = &clients[ping_number % (uint64_t)client_count].stream;
    if (s->fd < 0) continue;
    memcpy(reserve(s, 2), "\xc0\0", 2);
    flush(s);
  }
}

/* Wait for what happens and handle it; return whether standard input has something. */
static int handle_events(int timeout_ms) {
  struct epoll_event events[EVENTS];
  int told = 0, count = epoll_wait(epfd, events, EVENTS, timeout_ms);
  uint64_t now = now_ns();
  for (int i = 0; i < count; i++) {
    if (events[i].data.u32 == STDIN_EVENT) {
      told = 1;
      continue;
    }
    struct client *c = clients + events[i].data.u32;
    if (c->stream.fd >= 0 && (events[i].events & ~(uint32_t)EPOLLOUT)) now = take_input(c);
    if (c->stream.out_have) flush(&c->stream);
  }
  for (int i = opt.subscribers; i < client_count; i++) {
    struct client *c = clients + i;
    if (c->stream.fd < 0) continue;
    refill(c, now);
    if (c->stream.out_have) flush(&c->stream);
  }
  return told;
}

/* -- connecting -------------------------------------------------------------------------------------------------- */

static void read_all(int fd, uint8_t *p, size_t n) {
  while (n) {
    ssize_t got = recv(fd, p, n, 0);
    if (got == 0) errno = 0;
    if (got <= 0) fail("no answer to CONNECT or SUBSCRIBE");
    p += got;
    n -= (size_t)got;
  }
}

/* Read a packet of this type and no byte more; return the size of its body, which stands in `input`. */
static size_t read_answer(int fd, int type) {
  uint8_t head[5];
  size_t n = 1, length;
  read_all(fd, head, 1);
  do read_all(fd, head + n, 1);
  while (head[n++] & 128 && n < 5);
  get_length(head + 1, &length);
  errno = 0;
  if (head[0] != type << 4) fail("another packet came than the one that was waited for");
  if (length > sizeof input) fail("an answer that is too long");
  read_all(fd, input, length);
  return length;
}

/* The size of the value of a property of CONNACK (MQTT 5.0 section 2.2.2.2). */
static size_t property_size(uint8_t name, const uint8_t *p) {
  switch (name) {
    case 0x11:
    case 0x27:
      return 4;
    case 0x13:
    case 0x21:
    case 0x22:
      return 2;
    case 0x24:
    case 0x25:
    case 0x28:
    case 0x29:
    case 0x2a:
      return 1;
    case 0x26: {
      size_t first = 2u + (size_t)(p[0] << 8 | p[1]);
      return first + 2u + (size_t)(p[first] << 8 | p[first + 1]);
    }
    default: /* a string, or binary data */
      return 2u + (size_t)(p[0] << 8 | p[1]);
  }
}

/* A CONNACK is in `input`: look at it, and keep to the receive maximum that it tells. */
static void take_connack(struct client *c, size_t size) {
  errno = 0;
  if (size < 2 || input[0] || input[1]) fail("CONNECT was refused");
  if (opt.version == 4) return;
  size_t properties, at = 2 + get_length(input + 2, &properties), stop = at + properties;
  while (at < stop && stop <= size) {
    uint8_t name = input[at++];
    if (name == 0x21 && c->window > (input[at] << 8 | input[at + 1])) c->window = input[at] << 8 | input[at + 1];
    if (name == 0x24 && input[at] < opt.qos) fail("the broker has no such quality of service");
    at += property_size(name, input + at);
  }
}

static void send_connect(int fd, int number) {
  char name[32];
  uint8_t packet[64], *p = packet + 2;
  snprintf(name, sizeof name, "load-%05d", number);
  p += put_string(p, "MQTT");
  *p++ = (uint8_t)opt.version;
  *p++ = 2;                                    /* a clean session */
  uint16_t keep_alive = opt.is_idle ? 3600 : 0; /* 0: none */
  *p++ = (uint8_t)(keep_alive >> 8);
  *p++ = (uint8_t)keep_alive;
  if (opt.version == 5) *p++ = 0;
  p += put_string(p, name);
  packet[0] = CONNECT << 4;
  packet[1] = (uint8_t)(p - packet - 2);
  if (send(fd, packet, (size_t)(p - packet), MSG_NOSIGNAL) != p - packet) fail("cannot send CONNECT");
}

static void subscribe(struct client *c, const uint8_t *topic, size_t topic_size) {
  uint8_t packet[64], *p = packet + 2;
  *p++ = 0;
  *p++ = 1; /* the packet identifier */
  if (opt.version == 5) *p++ = 0;
  memcpy(p, topic, topic_size);
  p += topic_size;
  *p++ = (uint8_t)opt.qos;
  packet[0] = SUBSCRIBE << 4 | 2;
  packet[1] = (uint8_t)(p - packet - 2);
  if (send(c->stream.fd, packet, (size_t)(p - packet), MSG_NOSIGNAL) != p - packet) fail("cannot send SUBSCRIBE");
  size_t size = read_answer(c->stream.fd, SUBACK);
  errno = 0;
  if (size < 3 || input[size - 1] != opt.qos) fail("SUBSCRIBE was refused, or another quality of service granted");
}

static void open_client(int number) {
  struct client *c = clients + number;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  struct timeval limit = {.tv_sec = 20};
  struct linger linger = {.l_onoff = 1}; /* no port stays in TIME_WAIT */
  int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) fail("cannot make a socket");
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
  if (number >= PER_ADDRESS) {
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1u + (unsigned)(number / PER_ADDRESS));
    if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0) fail("cannot bind");
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  }
  address.sin_port = htons((uint16_t)opt.port);
  if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0) fail("cannot connect");
  c->stream.fd = fd;
  send_connect(fd, number);
  take_connack(c, read_answer(fd, CONNACK));
  if (number < opt.subscribers) {
    uint8_t topic[32];
    char name[32];
    /* Of idle ones each has a topic of its own. */
    snprintf(name, sizeof name, "load/%05d", opt.is_idle ? number : number % opt.publishers);
    subscribe(c, topic, put_string(topic, name));
  }
  set_blocking(fd, 0);
  alive++;
  watch(&c->stream, EPOLLIN);
}

static void make_publisher(int number) {
  struct client *c = clients + opt.subscribers + number;
  char name[32];
  snprintf(name, sizeof name, "load/%05d", number);
  c->topic_size = put_string(c->topic, name);
  size_t length = c->topic_size + (opt.qos ? 2u : 0u) + (opt.version == 5 ? 1u : 0u) + opt.size;
  c->head[0] = (uint8_t)(PUBLISH << 4 | opt.qos << 1);
  c->head_size = 1 + put_length(c->head + 1, length);
  c->next_id = 1;
  c->awaits = calloc(65536, 1);
  c->sent_at = calloc((size_t)opt.window, sizeof *c->sent_at);
  c->have_it = calloc((size_t)opt.window, sizeof *c->have_it);
  if (!c->awaits || !c->sent_at || !c->have_it) fail("no memory for a publisher");
  for (int i = number; i < opt.subscribers; i += opt.publishers) {
    clients[i].publisher = c;
    c->subscribers++;
  }
}

static void open_clients(void) {
  client_count = opt.subscribers + opt.publishers;
  clients = calloc((size_t)client_count, sizeof *clients);
  payload = malloc(opt.size);
  epfd = epoll_create1(EPOLL_CLOEXEC);
  if (!clients || !payload || epfd < 0) fail("cannot begin");
  for (size_t i = 0; i < opt.size; i++) payload[i] = (uint8_t)(' ' + i * 31 % 95);
  verify_every = opt.size <= 1024 ? 1 : 16;
  uint64_t began = now_ns();
  for (int i = 0; i < client_count; i++) {
    clients[i].stream.number = (uint32_t)i;
    clients[i].window = opt.window;
  }
  for (int i = 0; i < opt.publishers; i++) make_publisher(i);
  for (int i = 0; i < client_count; i++) {
    open_client(i);
    if (opt.is_idle && now_ns() - began > 60000000000u) fail("it takes too long to open the connections");
  }
}

/* -- the two modes ----------------------------------------------------------------------------------------------- */

static struct mark begin(void) {
  deliveries = published = pings = 0;
  memset(histogram, 0, sizeof histogram);
  return mark_now();
}

static uint64_t missing(void) {
  uint64_t count = 0;
  for (int i = 0; i < opt.subscribers; i++) count += clients[i].publisher->published - clients[i].received;
  return count;
}

static int is_done(void) {
  for (int i = 0; i < client_count; i++) {
    struct client *c = clients + i;
    if (c->unacknowledged || c->releases || (c->publisher && c->received < c->publisher->published)) return 0;
    if (opt.messages && i >= opt.subscribers && c->published < opt.messages) return 0;
  }
  return 1;
}

static void run_until(uint64_t deadline, int (*is_over)(void)) {
  for (uint64_t now = now_ns(); now < deadline && alive == client_count && !(is_over && is_over()); now = now_ns())
    handle_events((int)((deadline - now) / 1000000) + 1);
}

static void tell(struct mark mark, struct mark stop, uint64_t lost) {
  print_used(mark, stop);
  printf("\"clients\": %d, \"alive\": %d, \"deliveries\": %llu, \"published\": %llu, \"lost\": %llu, "
         "\"errors\": %llu, \"error\": \"%s\", \"pings\": %llu, \"p50_us\": %.2f, \"p99_us\": %.2f}\n",
         client_count, alive, (unsigned long long)deliveries, (unsigned long long)published, (unsigned long long)lost,
         (unsigned long long)errors, first_error, (unsigned long long)pings, percentile_us(0.5), percentile_us(0.99));
  fflush(stdout);
}

static void load(void) {
  uint64_t start = now_ns();
  /* The first messages leave at once. */
  for (int i = opt.subscribers; i < client_count; i++) {
    if (!opt.messages) refill(clients + i, start);
    flush(&clients[i].stream);
  }
  if (!opt.messages) run_until(start + (uint64_t)(opt.warm_up * 1e9), NULL);
  struct mark mark = begin();
  for (int i = opt.subscribers; opt.messages && i < client_count; i++) {
    refill(clients + i, mark.at);
    flush(&clients[i].stream);
  }
  run_until(mark.at + (uint64_t)(opt.seconds * 1e9), opt.messages ? is_done : NULL);
  struct mark stop = mark_now();
  uint64_t counted = deliveries, sent = published;
  is_stopped = 1;
  if (!opt.messages) run_until(now_ns() + DRAIN_NS, is_done);
  if (!is_done() && !first_error[0]) {
    errors++;
    snprintf(first_error, sizeof first_error, "not all messages arrived, or were acknowledged, in time");
  }
  deliveries = counted;
  published = sent;
  tell(mark, stop, missing());
}

static void idle(void) {
  uint64_t began = now_ns(), deadline = began + (uint64_t)(opt.seconds * 1e9);
  struct epoll_event e = {.events = EPOLLIN, .data.u32 = STDIN_EVENT};
  if (epoll_ctl(epfd, EPOLL_CTL_ADD, 0, &e) != 0) fail("cannot watch standard input");
  struct mark mark = begin();
  tell(mark, mark_now(), 0);
  while (now_ns() < deadline) {
    if (opt.ping > 0) ping(began, now_ns());
    if (!handle_events(opt.ping > 0 ? 1 : 1000)) continue;
    char line[256];
    if (read(0, line, sizeof line) <= 0) return;
    tell(mark, mark_now(), 0);
    mark = begin();
  }
}

static void options(int argc, char **argv) {
  for (int i = 1; i < argc; i++) {
    char *value = strchr(argv[i], '=');
    if (!value) fail("options are key=value");
    *value++ = 0;
    if (!strcmp(argv[i], "mode")) {
      opt.is_idle = !strcmp(value, "idle");
    } else if (!strcmp(argv[i], "port")) {
      opt.port = atoi(value);
    } else if (!strcmp(argv[i], "version")) {
      opt.version = atoi(value);
    } else if (!strcmp(argv[i], "publishers")) {
      opt.publishers = atoi(value);
    } else if (!strcmp(argv[i], "subscribers")) {
      opt.subscribers = atoi(value);
    } else if (!strcmp(argv[i], "qos")) {
      opt.qos = atoi(value);
    } else if (!strcmp(argv[i], "size")) {
      opt.size = (size_t)atol(value);
    } else if (!strcmp(argv[i], "window")) {
      opt.window = atoi(value);
    } else if (!strcmp(argv[i], "messages")) {
      opt.messages = strtoull(value, NULL, 10);
    } else if (!strcmp(argv[i], "seconds")) {
      opt.seconds = atof(value);
    } else if (!strcmp(argv[i], "warm_up")) {
      opt.warm_up = atof(value);
    } else if (!strcmp(argv[i], "ping")) {
      opt.ping = atof(value);
    } else if (!strcmp(argv[i], "pid") && pid_count < MAX_PIDS) {
      pids[pid_count++] = (pid_t)atol(value);
    } else {
      fail("no such option");
    }
  }
  if (opt.is_idle) opt.publishers = 0;
  if (opt.port < 1 || opt.port > 65535 || (opt.version != 4 && opt.version != 5) || opt.qos < 0 || opt.qos > 2 ||
      opt.window < 1 || opt.window > 60000 || opt.size < NUMBER || opt.size > sizeof input / 2 || opt.subscribers < 0 ||
      (!opt.is_idle && opt.publishers < 1) || opt.publishers + opt.subscribers < 1 || opt.publishers > 99999 ||
      opt.subscribers > 99999)
    fail("an option is out of range");
}

int main(int argc, char **argv) {
  options(argc, argv);
  require_files((uint64_t)opt.publishers + (uint64_t)opt.subscribers);
  alarm((unsigned)(opt.seconds + opt.warm_up) + 120); /* whatever happens, it ends */
  open_clients();
  if (opt.is_idle) {
    idle();
  } else {
    load();
  }
  return 0;
}
