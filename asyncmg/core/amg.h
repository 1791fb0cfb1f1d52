/* amg.h: the C core of asyncmg, its whole public API on one page.
 *
 * Codecs and utilities (amg_util.c, amg_http1.c, amg_ws.c, amg_mqtt.c, amg_dns.c, amg_sntp.c): bytes in, records out;
 * memory belongs to the caller; no allocation, no socket, no clock, no mutable global; nothing but libc. Each may be called
 * from any thread on data of its own.
 *
 * The engine (amg_engine*.c and amg_poller*.c, POSIX) is the only part that touches the operating system. It is a pair
 * of queues: poll() fills completion records and an arena with received bytes, submit() takes one buffer of submission
 * records. What it may use is fixed when it is created. An engine belongs to one thread at a time and starts none.
 *
 * From C: compile the amg_*.c files beside yours and include this header; no Python is needed.
 * Names: amg_ is public, amg__ internal, AMG_ a constant. SPDX-License-Identifier: MIT
 */
#ifndef AMG_H
#define AMG_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32) && defined(AMG_BUILD)
#define AMG_API __declspec(dllexport)
#elif defined(__GNUC__)
#define AMG_API __attribute__((visibility("default")))
#else
#define AMG_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Rises by one with every change of a signature, a constant or a struct in this file. The Python loader refuses a
 * library whose amg_abi() is another number than its own. amg_sizeof() tells the size of struct number `which` in the
 * order of this file (0: amg_http1_limits, 1: amg_http1, ...; all are named in asyncmg/core/records.py), 0 for another
 * number. */
#define AMG_ABI 7u
AMG_API uint32_t amg_abi(void);
AMG_API size_t amg_sizeof(uint32_t which);

/* -- utilities ---------------------------------------------------------------------------------------------------- */

/* WebSocket masking (RFC 6455 section 5.3), in place; the same call unmasks.
 *
 * data    n bytes at any alignment; may be NULL when n is 0.
 * offset  how many bytes of this frame's payload went before data[0], so that a payload may come in pieces.
 */
AMG_API void amg_mask(uint8_t *data, size_t n, const uint8_t key[4], size_t offset);

/* Validate UTF-8 (RFC 3629: no surrogate, no overlong form, nothing above U+10FFFF), in pieces cut anywhere.
 *
 * state   AMG_UTF8_ACCEPT at the start of a text, then what the call before returned.
 * data    n bytes; may be NULL when n is 0.
 * return  AMG_UTF8_ACCEPT: valid so far and at the end of a character.
 *         AMG_UTF8_REJECT: invalid; it stays so whatever follows.
 *         any other: valid so far, inside a character. At the end of the text this means that it is truncated.
 */
#define AMG_UTF8_ACCEPT 0u
#define AMG_UTF8_REJECT 1u
AMG_API uint32_t amg_utf8(uint32_t state, const uint8_t *data, size_t n);

/* -- HTTP/1.1 messages (RFC 9112) ----------------------------------------------------------------------------------- */

typedef struct amg_http1_limits { /* bytes, but for max_fields; see docs/limits.md */
    uint32_t max_request_line, max_field_line, max_header_size, max_fields;
    uint32_t max_chunk_line, max_chunk_extensions, max_trailer_size, reserved;
} amg_http1_limits;

typedef struct amg_http1 { /* one direction of one connection: set up by amg_http1_init(), not to be written to */
    uint64_t remaining;    /* bytes still to come of the content, or of the current chunk */
    uint32_t scanned;      /* bytes of the unconsumed input that are known to end nothing */
    uint32_t extensions;   /* bytes of chunk extensions in this message */
    uint8_t role, state, empty_lines, needs_crlf;
    uint8_t answers;       /* client: AMG_ANSWERS_, to be set by the caller before a response is read */
    uint8_t switches;      /* the request that is being read may end HTTP on this connection */
    uint8_t reserved[2];
} amg_http1;

#define AMG_SERVER 0u /* role: reads requests, and masked frames */
#define AMG_CLIENT 1u /* role: reads responses, and frames that are not masked */

#define AMG_ANSWERS_NOTHING 0u /* no request is outstanding: a response is an error */
#define AMG_ANSWERS_OTHER 1u
#define AMG_ANSWERS_HEAD 2u
#define AMG_ANSWERS_CONNECT 3u

#define AMG_HTTP1_REQUEST 1u  /* kind: request line and header section */
#define AMG_HTTP1_RESPONSE 2u /* kind: status line and header section */
#define AMG_HTTP1_CONTENT 3u  /* kind: a piece of content; all chunks of one call are one piece */
#define AMG_HTTP1_END 4u      /* kind: the message is complete; offset, length: its trailer section, without the CRLFs
                               * around it; length 0: none */
#define AMG_HTTP1_ERROR 5u    /* kind: the peer broke the RFC or a limit; final */

#define AMG_FRAMING_NONE 0u /* framing (RFC 9112 section 6.3): no content, or Content-Length 0 */
#define AMG_FRAMING_LENGTH 1u
#define AMG_FRAMING_CHUNKED 2u
#define AMG_FRAMING_CLOSE 3u

#define AMG_HTTP_10 1u              /* flag of a head: HTTP/1.0, otherwise HTTP/1.1 */
#define AMG_HTTP_KEEP_ALIVE 2u      /* flag of a head: RFC 9112 section 9.3 */
#define AMG_HTTP_EXPECTS_CONTINUE 4u
#define AMG_HTTP_UPGRADE 8u         /* flag of a head: Connection names Upgrade, and there is an Upgrade field */
#define AMG_HTTP_SCRATCH 16u        /* flag of content: offset is into scratch, not data */

typedef struct amg_http1_record {
    uint8_t kind, framing;
    uint16_t flags;
    uint16_t status;        /* response: its status. error: the status that a server replies with */
    uint16_t error;         /* error: AMG_E_ */
    uint32_t offset;        /* into data (or scratch) */
    uint32_t length;        /* head: with the empty line. content, end: see kind */
    uint32_t method_length; /* request: of the method, at offset. content, end: how much of data was read up to its end */
    uint32_t target_length; /* request: of the target, at offset + method_length + 1. response: of the reason phrase, at
                             * offset + 13 */
    uint64_t content_length; /* framing LENGTH: of the content. error of a limit: the actual value */
} amg_http1_record;

/* error: what was broken. Text, RFC section and limit of each are in asyncmg/codecs/http_native.py. */
enum {
    AMG_E_MISPLACED = 1,     /* bare CR, bare LF or NUL in the header */
    AMG_E_REQUEST_LINE_SIZE, /* limits */
    AMG_E_HEADER_SIZE,
    AMG_E_FIELD_LINE_SIZE,
    AMG_E_FIELDS,
    AMG_E_CHUNK_LINE_SIZE,
    AMG_E_CHUNK_EXTENSIONS,
    AMG_E_TRAILER_SIZE,
    AMG_E_TRAILER_FIELDS,
    AMG_E_START_LINE, /* malformed request line or status line */
    AMG_E_VERSION,
    AMG_E_TARGET,
    AMG_E_FIELD, /* malformed field line */
    AMG_E_FOLDING,
    AMG_E_HOST_MISSING,
    AMG_E_HOST_REPEATED,
    AMG_E_HOST,
    AMG_E_LENGTH, /* malformed or repeated Content-Length */
    AMG_E_CODING, /* Transfer-Encoding other than chunked */
    AMG_E_CODING_AND_LENGTH,
    AMG_E_CODING_IN_10,
    AMG_E_EXPECT,
    AMG_E_UNASKED, /* response without a request */
    AMG_E_CHUNK_SIZE,
    AMG_E_CHUNK_END,
    AMG_E_CHUNK_MISPLACED,
    AMG_E_TRAILER_MISPLACED,
    AMG_E_TRAILER,
    AMG_E_EOF_IN_HEAD,
    AMG_E_EOF_IN_CONTENT
};

AMG_API void amg_http1_init(amg_http1 *codec, uint8_t role);

/* Read what data holds.
 *
 * data      n bytes: what the call before did not consume, followed by what has come since. NULL when n is 0.
 * eof       not 0: nothing follows.
 * scratch   n bytes, for the content of chunks; may be data itself when that may be written to.
 * records   room for max of them, at least 4.
 * consumed  set to how much of data is done with: the caller drops it and keeps the rest.
 * return    the number of records. Less than max, and nothing more to be had without more data, unless the last one is
 *           an error; or a request that may end HTTP on this connection (CONNECT, or with AMG_HTTP_UPGRADE), or the end
 *           of such a request; or the end of a final response, behind which the caller sets `answers` anew. Then call
 *           again. Likewise when n is above 2^31 - 1: no more is looked at by one call.
 */
AMG_API size_t amg_http1_read(amg_http1 *codec, const amg_http1_limits *limits, const uint8_t *data, size_t n, int eof,
                              uint8_t *scratch, amg_http1_record *records, size_t max, size_t *consumed);

/* Read a whole simple request: head, and content that is all there and not chunked; no Expect, no upgrade, no CONNECT.
 *
 * return    the number of bytes from data on that it takes, and its head in record; 0 when data does not begin with
 *           such a request, for whatever reason: amg_http1_read() will tell.
 */
AMG_API size_t amg_http1_whole(const amg_http1_limits *limits, const uint8_t *data, size_t n, amg_http1_record *record);

/* -- WebSocket frames (RFC 6455) -------------------------------------------------------------------------------------- */

typedef struct amg_ws_limits { /* of data frames */
    uint64_t max_frame, max_message; /* bytes, at most 2^63 - 1; max_message: the payloads of its frames together */
    uint32_t max_fragments, reserved;
} amg_ws_limits;

typedef struct amg_ws {      /* one direction of one connection: set up by amg_ws_init(), not to be written to */
    uint64_t remaining;      /* of the current frame's payload */
    uint64_t size;           /* of the message, as far as headers have told */
    uint32_t fragments, utf8;
    uint8_t key[4], turn;    /* the next byte is masked with key[turn] */
    uint8_t role, compressed, state, first, next, is_text, in_message;
    uint8_t held;            /* bytes of head, or of control */
    uint8_t head[14];        /* the beginning of a header */
    uint8_t control[125];    /* of a control frame's payload that comes in pieces */
} amg_ws;

/* flags of a record: the opcode (0 for all pieces of a message but its first), and: */
#define AMG_WS_FIN 0x80u          /* with this piece the message is complete; set on every control frame */
#define AMG_WS_RSV1 0x40u         /* on the first piece: the message is compressed (RFC 7692) */
#define AMG_WS_END_OF_FRAME 0x20u /* with this piece a frame of the message is complete, but not the message */
#define AMG_WS_HELD 0x100u        /* offset is into the codec's control; only the first record of a call */
#define AMG_WS_ERROR 0x200u       /* the peer broke the RFC or a limit; final */

typedef struct amg_ws_record {
    uint32_t flags;
    uint32_t offset, length; /* payload, in out. Error: low and high half of the actual value of a limit, or close code */
    uint32_t error;          /* AMG_WS_E_, or 0 */
} amg_ws_record;

/* error: what was broken. Text, RFC section and limit of each are in asyncmg/codecs/ws_native.py. */
enum {
    AMG_WS_E_RESERVED_BIT = 1,
    AMG_WS_E_OPCODE,
    AMG_WS_E_CONTROL_FRAGMENTED,
    AMG_WS_E_CONTROL_SIZE,
    AMG_WS_E_IN_MESSAGE, /* a new message inside a fragmented one */
    AMG_WS_E_NO_MESSAGE, /* a continuation of nothing */
    AMG_WS_E_MASKED,
    AMG_WS_E_UNMASKED,
    AMG_WS_E_LENGTH_SIZE, /* above 2^63 - 1 */
    AMG_WS_E_LENGTH_FORM, /* not the shortest form */
    AMG_WS_E_FRAGMENTS,   /* limits */
    AMG_WS_E_FRAME_SIZE,
    AMG_WS_E_MESSAGE_SIZE,
    AMG_WS_E_UTF8,
    AMG_WS_E_CLOSE_SIZE, /* half a close code */
    AMG_WS_E_CLOSE_CODE,
    AMG_WS_E_CLOSE_UTF8
};

/* compressed: not 0 when permessage-deflate has been negotiated. Nothing is inflated here. */
AMG_API void amg_ws_init(amg_ws *codec, uint8_t role, uint8_t compressed);

/* Read what data holds. Behind a close frame and an error nothing is read: all is consumed.
 *
 * data      n bytes: what has come since the call before.
 * out       n bytes, for unmasked payloads, each at the offset that it has in data; may be data itself. NULL leaves
 *           payloads in data: role AMG_CLIENT only.
 * records   room for max of them, at least 1. Pieces of data frames as they come, never empty but at a frame's end;
 *           control frames whole.
 * consumed  set to how much of data is done with. When it is less than n, call again with the rest: the records were
 *           full, or the next control frame had to wait until the caller is done with one that is AMG_WS_HELD; or n is
 *           above 2^31 - 1.
 * return    the number of records.
 */
AMG_API size_t amg_ws_read(amg_ws *codec, const amg_ws_limits *limits, const uint8_t *data, size_t n, uint8_t *out,
                           amg_ws_record *records, size_t max, size_t *consumed);

/* The same for callers to whom each argument is dear: what stays the same between calls is in a struct, addresses as
 * numbers.
 *
 * return    the number of records, or'ed with AMG_WS_UNSETTLED unless all is consumed, none is AMG_WS_HELD or an error,
 *           and the codec is at the beginning of a message, as amg_ws_init() leaves it.
 */
typedef struct amg_ws_call {
    uint64_t codec, limits, out, records, max, consumed;
} amg_ws_call;
#define AMG_WS_UNSETTLED 0x40000000u
AMG_API size_t amg_ws_read_call(amg_ws_call *call, const uint8_t *data, size_t n);

/* -- MQTT control packets (MQTT 3.1.1 and 5.0) ------------------------------------------------------------------------- */

typedef struct amg_mqtt_limits { /* sizes of whole packets, in bytes */
    uint32_t max_packet;         /* PUBLISH */
    uint32_t max_connect;        /* CONNECT, SUBSCRIBE, UNSUBSCRIBE */
    uint32_t max_small;          /* any other */
    uint32_t max_topic_length, max_topic_levels, max_client_id, max_user_properties; /* the last: of one packet */
    uint32_t reserved;
} amg_mqtt_limits;

typedef struct amg_mqtt { /* one direction of one connection: set up by amg_mqtt_init(), not to be written to */
    uint32_t missing;     /* for AMG_OP_MQTT alone, as held and head: bytes to come of a packet whose beginning is told */
    uint8_t role;
    uint8_t version; /* 4: 3.1.1, 5: 5.0; 0: of a server until a CONNECT tells it */
    uint8_t state;   /* 0: CONNECT or CONNACK comes first, 1: it has come, 2: nothing more is read */
    uint8_t keeps_session;
    uint8_t held, head[4]; /* a fixed header that is incomplete */
    uint8_t reserved[3];
} amg_mqtt;

/* A packet: its body lies from begin to end, and all that is not told here of its fields is there. Places are in data. */
typedef struct amg_mqtt_record {
    uint8_t first;       /* its first byte: type and flags (section 2.1); 0: an error, final */
    uint8_t reason;      /* CONNACK, PUBACK to PUBCOMP, DISCONNECT, AUTH: reason code, return code. PUBLISH: 0, or
                          * AMG_MQTT_SAME_TOPIC: as in the record before, which is a PUBLISH too */
    uint16_t packet_id;  /* 0: it has none. Error: AMG_MQTT_E_ */
    uint32_t begin;      /* PUBLISH: of the topic name. Error: what went over a limit; type of the packet; property */
    uint32_t topic_end;  /* PUBLISH */
    uint32_t properties; /* from here to payload; without their length */
    uint32_t payload;    /* from here to end: what follows the properties: payload, client identifier and what follows it,
                          * topic filters, reason codes */
    uint32_t end;
} amg_mqtt_record;

#define AMG_MQTT_SAME_TOPIC 1u

/* error: what was broken. Text, reason code and section of each are in asyncmg/codecs/mqtt_native.py. */
enum {
    AMG_MQTT_E_RESERVED_TYPE = 1, /* fixed headers */
    AMG_MQTT_E_BAD_FLAGS,
    AMG_MQTT_E_PUBREL_FLAGS,
    AMG_MQTT_E_SUBSCRIBE_FLAGS,
    AMG_MQTT_E_UNSUBSCRIBE_FLAGS,
    AMG_MQTT_E_DISCONNECT_FLAGS,
    AMG_MQTT_E_AUTH_FLAGS,
    AMG_MQTT_E_QOS_3,
    AMG_MQTT_E_DUP_OF_QOS_0,
    AMG_MQTT_E_NOT_CONNECT_FIRST, /* order and direction */
    AMG_MQTT_E_SECOND_CONNECT,
    AMG_MQTT_E_NOT_CONNACK_FIRST,
    AMG_MQTT_E_EARLY_DISCONNECT,
    AMG_MQTT_E_SECOND_CONNACK,
    AMG_MQTT_E_WRONG_DIRECTION,
    AMG_MQTT_E_PACKET_SIZE, /* limits: max_packet, max_connect, ... */
    AMG_MQTT_E_CONNECT_SIZE,
    AMG_MQTT_E_SMALL_SIZE,
    AMG_MQTT_E_TOPIC_LENGTH,
    AMG_MQTT_E_FILTER_LENGTH,
    AMG_MQTT_E_TOPIC_LEVELS,
    AMG_MQTT_E_FILTER_LEVELS,
    AMG_MQTT_E_CLIENT_ID_LENGTH,
    AMG_MQTT_E_USER_PROPERTIES,
    AMG_MQTT_E_TRUNCATED, /* data types */
    AMG_MQTT_E_TRAILING_BYTES,
    AMG_MQTT_E_NOT_UTF8,
    AMG_MQTT_E_NUL_IN_STRING,
    AMG_MQTT_E_LONG_INTEGER,
    AMG_MQTT_E_PADDED_INTEGER,
    AMG_MQTT_E_BAD_LENGTH, /* properties */
    AMG_MQTT_E_UNKNOWN_PROPERTY,
    AMG_MQTT_E_MISPLACED_PROPERTY,
    AMG_MQTT_E_REPEATED_PROPERTY,
    AMG_MQTT_E_PROPERTY_RANGE, /* of the property in the record */
    AMG_MQTT_E_IDENTIFIER_OF_CLIENT,
    AMG_MQTT_E_WILDCARD_IN_RESPONSE_TOPIC,
    AMG_MQTT_E_DATA_WITHOUT_METHOD,
    AMG_MQTT_E_ZERO_PACKET_ID, /* packets */
    AMG_MQTT_E_ZERO_PACKET_ID_OF_SERVER,
    AMG_MQTT_E_ZERO_ACK_ID,
    AMG_MQTT_E_ZERO_SUBACK_ID,
    AMG_MQTT_E_BAD_REASON_CODE, /* of the type in the record */
    AMG_MQTT_E_BAD_PROTOCOL_NAME,
    AMG_MQTT_E_BAD_PROTOCOL_LEVEL,
    AMG_MQTT_E_CONNECT_FLAG_RESERVED,
    AMG_MQTT_E_WILL_QOS_WITHOUT_WILL,
    AMG_MQTT_E_WILL_QOS_3,
    AMG_MQTT_E_WILL_RETAIN_WITHOUT_WILL,
    AMG_MQTT_E_PASSWORD_WITHOUT_USER,
    AMG_MQTT_E_NO_CLIENT_ID,
    AMG_MQTT_E_CONNACK_FLAGS,
    AMG_MQTT_E_SESSION_OF_REFUSED,
    AMG_MQTT_E_WILDCARD_PUBLISHED,
    AMG_MQTT_E_NOTHING_PUBLISHED_TO,
    AMG_MQTT_E_EMPTY_TOPIC, /* of a will */
    AMG_MQTT_E_WILDCARD_IN_TOPIC,
    AMG_MQTT_E_NO_FILTER,
    AMG_MQTT_E_NO_FILTER_TO_LEAVE,
    AMG_MQTT_E_EMPTY_FILTER,
    AMG_MQTT_E_MISPLACED_HASH,
    AMG_MQTT_E_MISPLACED_PLUS,
    AMG_MQTT_E_BAD_SHARE_NAME,
    AMG_MQTT_E_SHARE_WITHOUT_FILTER,
    AMG_MQTT_E_RESERVED_OPTIONS,
    AMG_MQTT_E_OPTIONS_QOS_3,
    AMG_MQTT_E_RETAIN_HANDLING_3,
    AMG_MQTT_E_SHARED_NO_LOCAL,
    AMG_MQTT_E_NO_SUBACK_CODE,
    AMG_MQTT_E_NO_UNSUBACK_CODE,
    AMG_MQTT_E_SERVER_EXPIRES_SESSION,
    AMG_MQTT_E_EXPIRY_AFTER_ZERO,
    AMG_MQTT_E_AUTH_WITHOUT_METHOD
};

/* version: of a client, 4 or 5; a server is told by the CONNECT. */
AMG_API void amg_mqtt_init(amg_mqtt *codec, uint8_t role, uint8_t version);

/* Read the packets that are there as a whole. Behind a DISCONNECT and an error nothing is read: all is done with.
 *
 * data      n bytes, at most 2^32 - 1.
 * position  where in data to begin; set to how far it is done with. Unless the records were full, what follows is the
 *           beginning of one packet: the caller keeps it until the rest has come.
 * records   room for max of them, at least 1.
 * whole     set to the size of that packet, which is within the limits; 0: not known yet, or there is none.
 * return    the number of records.
 */
AMG_API size_t amg_mqtt_read(amg_mqtt *codec, const amg_mqtt_limits *limits, const uint8_t *data, size_t n,
                             size_t *position, amg_mqtt_record *records, size_t max, size_t *whole);

/* The same for callers to whom each argument is dear: what stays the same between calls is in a struct, addresses as
 * numbers.
 *
 * return    the number of records. Or'ed with AMG_MQTT_UNSETTLED unless all is done with, the codec's state is what it
 *           was, and position is 0 again. Otherwise or'ed with AMG_MQTT_ACKS if there are several and all are PUBACK to
 *           PUBCOMP with reason code 0 and no properties.
 */
typedef struct amg_mqtt_call {
    uint64_t codec, limits, records, max, position, whole;
} amg_mqtt_call;
#define AMG_MQTT_UNSETTLED 0x40000000u
#define AMG_MQTT_ACKS 0x20000000u
AMG_API size_t amg_mqtt_read_call(amg_mqtt_call *call, const uint8_t *data, uint32_t n);

typedef struct amg_mqtt_property {
    uint32_t id;
    uint32_t number;                /* of those that are numbers */
    uint32_t offset, length;        /* text, binary data, the name of a user property */
    uint32_t second, second_length; /* the value of a user property */
} amg_mqtt_property;

/* Take the next property of a packet that has been read; position: begin with record.properties (or will_properties).
 * return    0: there are no more */
AMG_API int amg_mqtt_next_property(const uint8_t *data, uint32_t *position, uint32_t end, amg_mqtt_property *property);

typedef struct amg_mqtt_filter {
    uint32_t offset, length, options; /* options: of SUBSCRIBE (5.0 section 3.8.3.1) */
} amg_mqtt_filter;

/* Take the next topic filter of a SUBSCRIBE or UNSUBSCRIBE that has been read; position: begin with record.payload.
 * return    0: there are no more */
AMG_API int amg_mqtt_next_filter(const uint8_t *data, const amg_mqtt_record *record, uint32_t *position,
                                 amg_mqtt_filter *filter);

typedef struct amg_mqtt_connect {
    uint8_t version, flags; /* connect flags (section 3.1.2): they tell whether there is a will, user name, password */
    uint16_t keep_alive;    /* seconds */
    uint32_t client_id, client_id_length;
    uint32_t will_properties, will_properties_end, will_topic, will_topic_length, will_payload, will_payload_length;
    uint32_t username, username_length, password, password_length;
} amg_mqtt_connect;

/* Take the fields of a CONNECT that has been read.
 * return    0: it is none */
AMG_API int amg_mqtt_connect_fields(const uint8_t *data, const amg_mqtt_record *record, amg_mqtt_connect *connect);

/* -- DNS messages (RFC 1035 section 4) --------------------------------------------------------------------------------- */

typedef struct amg_dns_header {
    uint16_t id, flags;
    uint16_t questions, answers, authorities, additionals; /* how many */
} amg_dns_header;

/* A question, or a resource record. Places are in the message; names in it may be compressed: amg_dns_name() expands them. */
typedef struct amg_dns_record {
    uint32_t name;           /* where its name begins */
    uint32_t ttl;            /* seconds; 0 for what is above 2^31 - 1 (RFC 2181 section 8), unless it is an OPT record's.
                              * Question: this and what follows, but for type, class_code and section, is 0 */
    uint32_t offset, length; /* data */
    uint16_t type, class_code;
    uint16_t name_text, data_text, second_text; /* amg_dns_read_call() alone: numbers of texts */
    uint8_t section;                            /* AMG_DNS_QUESTIONS ... */
    uint8_t shape;                              /* AMG_DNS_BYTES ...: what the data is, and is checked to be */
} amg_dns_record;

#define AMG_DNS_QUESTIONS 0u /* section */
#define AMG_DNS_ANSWERS 1u
#define AMG_DNS_AUTHORITIES 2u
#define AMG_DNS_ADDITIONALS 3u

#define AMG_DNS_BYTES 0u   /* shape: nothing is known of it: another type, or another class than IN */
#define AMG_DNS_ADDRESS 1u /* shape: of A and AAAA: 4 or 16 bytes */
#define AMG_DNS_NAME 2u    /* shape: of NS, CNAME and PTR: a name */
#define AMG_DNS_MX 3u      /* shape: preference (2 bytes), a name */
#define AMG_DNS_STRINGS 4u /* shape: of TXT: one or more strings behind their lengths (1 byte) */
#define AMG_DNS_SRV 5u     /* shape: priority, weight, port (2 bytes each), a name */
#define AMG_DNS_SOA 6u     /* shape: two names, serial, refresh, retry, expire, minimum (4 bytes each) */

#define AMG_DNS_MAX_RECORDS 1000u /* of a message, questions included */

/* What is wrong with a message. Text and RFC section of each are in asyncmg/codecs/dns_native.py. */
enum {
    AMG_DNS_E_TRUNCATED = 1,
    AMG_DNS_E_LABEL,   /* reserved label type */
    AMG_DNS_E_POINTER, /* does not lead back, or leads into the header; or more than 127 of them in a name */
    AMG_DNS_E_NAME_SIZE,
    AMG_DNS_E_TOO_MANY, /* records: more than AMG_DNS_MAX_RECORDS, or than there is room for */
    AMG_DNS_E_DATA_SIZE,
    AMG_DNS_E_TRAILING
};

/* Read a message: all of it, and nothing but it. Takes time in proportion to its size and its number of records.
 *
 * data      n bytes; may be NULL when n is 0.
 * records   room for max of them; filled with those of all sections, in order.
 * return    0, or AMG_DNS_E_; header and records mean nothing then.
 */
AMG_API uint32_t amg_dns_read(const uint8_t *data, size_t n, amg_dns_header *header, amg_dns_record *records, size_t max);

/* Expand a name: labels as they are, with dots between them and none at the end; the root is empty. A dot or backslash
 * inside a label has a backslash in front, a control character (0 to 31, 127) is a backslash and three decimal digits.
 *
 * offset    where in data the name begins.
 * out       size bytes, for the text and a NUL; AMG_DNS_NAME_TEXT are always enough.
 * end       set to the place behind the name in data; may be NULL.
 * return    0, AMG_DNS_E_ or AMG_DNS_NO_ROOM.
 */
#define AMG_DNS_NAME_TEXT 1004u
#define AMG_DNS_NO_ROOM 0x40000000u
AMG_API uint32_t amg_dns_name(const uint8_t *data, size_t n, size_t offset, char *out, size_t size, size_t *end);

/* amg_dns_read() for callers to whom each call is dear: what stays the same between calls is in a struct, addresses as
 * numbers; and all names and addresses are written as texts, one behind the other, each with a NUL at its end, which is
 * nowhere else. Names are written as by amg_dns_name(), addresses as in RFC 5952. A record tells the numbers of its
 * own, from 0 on: name_text is its name, data_text the address or the first name in its data, second_text the second one.
 * Several records may tell the same text.
 *
 * return    how many bytes the texts are; or'ed with AMG_DNS_REFUSED: AMG_DNS_E_. AMG_DNS_NO_ROOM: they do not fit;
 *           3100 for each record are always enough.
 */
typedef struct amg_dns_call {
    uint64_t records, max;
    uint64_t text, size; /* bytes */
} amg_dns_call;
#define AMG_DNS_ADDRESS_TEXT 40u /* bytes of an address with its NUL, at most */
#define AMG_DNS_REFUSED 0x80000000u
AMG_API uint32_t amg_dns_read_call(amg_dns_call *call, const uint8_t *data, uint32_t n);

/* Write a query of class IN.
 *
 * out       size bytes; 288 are always enough.
 * name      as amg_dns_name() writes it; a dot at its end is allowed.
 * flags     the header's, such as 0x0100: recursion desired.
 * udp_size  told by EDNS (RFC 6891); 0: without EDNS.
 * return    how many bytes; 0: the name is none (RFC 1035 section 2.3.4), or there is no room.
 */
AMG_API size_t amg_dns_query(uint8_t *out, size_t size, uint16_t id, const char *name, uint16_t type, uint16_t flags,
                             uint16_t udp_size);

/* -- SNTP packets (RFC 4330, RFC 5905 section 7.3) ---------------------------------------------------------------------- */

typedef struct amg_sntp_packet {
    uint8_t leap, version, mode; /* leap 3: not synchronized; mode 3: client, 4: server */
    uint8_t stratum;             /* 0: not known; of a server's reply: kiss-o'-death */
    int8_t poll, precision;      /* exponents of two, in seconds */
    uint16_t tail;               /* bytes of extension fields and MAC behind the packet, which are not looked at */
    int32_t root_delay;          /* 1/65536 s */
    uint32_t root_dispersion;
    uint8_t reference_id[4];
    uint8_t reserved[4];
    uint64_t reference, originate, receive, transmit; /* timestamps as they are on the wire; 0: not known */
} amg_sntp_packet;

#define AMG_SNTP_SIZE 48u /* bytes of a packet without extension fields and MAC */
#define AMG_SNTP_MAX_SIZE 1024u
#define AMG_SNTP_VERSION 4u

/* What is wrong with a datagram, and what makes a packet no valid reply. Text and RFC section of each are in
 * asyncmg/codecs/sntp_native.py. */
enum {
    AMG_SNTP_E_TOO_SHORT = 1, /* amg_sntp_read() */
    AMG_SNTP_E_VERSION,
    AMG_SNTP_E_TAIL, /* extension fields or MAC cut off */
    AMG_SNTP_E_TOO_LONG,
    AMG_SNTP_E_NOT_A_REPLY, /* amg_sntp_check() */
    AMG_SNTP_E_WRONG_VERSION,
    AMG_SNTP_E_WRONG_ORIGIN, /* spoofed or late */
    AMG_SNTP_E_KISS,         /* reference_id tells which */
    AMG_SNTP_E_NOT_SYNCHRONIZED,
    AMG_SNTP_E_STRATUM,
    AMG_SNTP_E_NO_TIME,
    AMG_SNTP_E_TOO_UNSURE,
    AMG_SNTP_E_TIME_RUNS_BACK
};

/* Read one datagram of n bytes; return 0, or AMG_SNTP_E_: then packet means nothing. */
AMG_API uint32_t amg_sntp_read(const uint8_t *data, size_t n, amg_sntp_packet *packet);

/* Write a packet. Of leap, version and mode the bits that have room are taken; tail is not looked at. */
AMG_API void amg_sntp_write(const amg_sntp_packet *packet, uint8_t out[AMG_SNTP_SIZE]);

/* Hold a packet against the request that it claims to answer (RFC 4330 section 5).
 *
 * transmitted  the request's transmit timestamp: a random one cannot be guessed by anybody off the path.
 * version      the request's.
 * return       0, or the first AMG_SNTP_E_ that is met, in their order.
 */
AMG_API uint32_t amg_sntp_check(const amg_sntp_packet *reply, uint64_t transmitted, uint8_t version);

/* Turn nanoseconds since 1970, UTC, into a 64-bit timestamp; the era is left away (RFC 5905 section 6). */
AMG_API uint64_t amg_sntp_to_timestamp(int64_t ns);

/* Turn a timestamp into nanoseconds since 1970: those in the era that brings it nearest to `around`, a time that is right by
 * less than 68 years. Gives back what amg_sntp_to_timestamp() was given. Above and below the range of int64_t (years 1677 to
 * 2262): INT64_MAX, INT64_MIN. */
AMG_API int64_t amg_sntp_from_timestamp(uint64_t timestamp, int64_t around);

/* Clock offset and round-trip delay (RFC 5905 section 8), in nanoseconds.
 *
 * sent, arrived      when the request left and its reply came, by our clock.
 * received, replied  when the request came and its reply left, by the server's clock.
 */
AMG_API void amg_sntp_offset_and_delay(int64_t sent, int64_t received, int64_t replied, int64_t arrived, int64_t *offset,
                                       int64_t *delay);

/* -- engine ----------------------------------------------------------------------------------------------------------- */

typedef struct amg_engine amg_engine;

#define AMG_POLLER_AUTO 0u /* the first of these that the system has */
#define AMG_POLLER_EPOLL 1u
#define AMG_POLLER_KQUEUE 2u
#define AMG_POLLER_POLL 3u

typedef struct amg_engine_config {
    uint32_t max_conns;       /* sockets at once, listeners included: 1 to 2^20 */
    uint32_t max_completions; /* records of one poll: at least 16 */
    uint32_t arena_size;      /* bytes received by one poll: at least 2048 */
    uint32_t max_read;        /* bytes received from one connection by one poll: at least 1024. With AMG_OP_WS and AMG_OP_MQTT,
                               * and when the poll before had as much from it, four times as many */
    uint64_t max_backlog;     /* unsent bytes of all connections together; who would go over it is closed: ENOBUFS */
    uint32_t poller;          /* AMG_POLLER_ */
    uint32_t accept_retry_ms; /* pause of a listener after EMFILE, ENFILE, ENOBUFS or ENOMEM */
    amg_http1_limits http;    /* of connections with AMG_HTTP */
} amg_engine_config;

typedef struct amg_completion { /* what has happened to a connection */
    uint16_t op, flags;
    uint32_t conn;
    uint32_t offset, length; /* into the arena */
    uint32_t head;           /* REQUEST: length of the head; the content follows it. DATAGRAM: length of the address;
                              * the datagram follows it. ACCEPTED: the listener's conn. FRAME, FRAMES, PACKETS:
                              * bytes that have come */
    uint32_t method_length;  /* REQUEST. PACKETS: where in the arena the bytes begin that have come */
    uint32_t target_length;  /* REQUEST */
    int32_t error;           /* CLOSED, FAILED: errno, 0 for an orderly end. FRAME: AMG_WS_E_ */
} amg_completion;

#define AMG_ACCEPTED 1u  /* a new connection; offset, length: the peer's sockaddr */
#define AMG_CONNECTED 2u /* amg_engine_connect() has succeeded */
#define AMG_REQUEST 3u   /* a whole simple request (see amg_http1_whole) of a connection with AMG_HTTP; flags: AMG_HTTP_.
                          * Only so if all before it is done with: behind an unfinished message, or after an upgrade, it
                          * is bytes like AMG_DATA, whatever it looks like. At most 64 of one connection in one poll:
                          * what has come behind them is one AMG_DATA, whole requests too */
#define AMG_DATA 4u      /* bytes */
#define AMG_DATAGRAM 5u  /* sockaddr (head bytes, 0 when connected), then the datagram */
#define AMG_EOF 6u       /* the peer will send nothing more; we still may */
#define AMG_SENT 7u      /* the backlog has become smaller; length: what is left of it */
#define AMG_TIMEOUT 8u   /* the deadline has come; it is cleared */
#define AMG_FAILED 9u    /* a datagram socket or listener told an error; it goes on */
#define AMG_CLOSED 10u   /* the last one of a connection: its socket is closed. Its number is free after AMG_OP_RELEASE */
#define AMG_FRAME 11u    /* one record of amg_ws_read(), of a connection with AMG_OP_WS: flags, offset, length and error are
                          * its own. Of an error offset and length are not a place, see amg_ws_record */
#define AMG_FRAMES 12u   /* none, or several: offset, length: amg_ws_records, whose offsets are into the arena too */
#define AMG_PACKET 13u   /* one record of amg_mqtt_read(), of a connection with AMG_OP_MQTT, whose reason is 0: flags: first, and
                          * how far before begin the packet begins, times 256; error: packet_id; offset, length, head,
                          * method_length, target_length: begin, topic_end, properties, payload, end, in the arena */
#define AMG_PACKETS 14u  /* one or several: offset, length: amg_mqtt_records, whose places are in the arena too. Packets that
                          * did not come in one piece are told as AMG_DATA, piece by piece, for an amg_mqtt of the user's */

typedef struct amg_submission { /* followed by `length` bytes of payload; not aligned */
    uint16_t op, flags;
    uint32_t conn, length, arg;
} amg_submission;

#define AMG_OP_SEND 1u     /* payload: bytes for a stream */
#define AMG_OP_SENDTO 2u   /* payload: sockaddr of arg bytes (0: connected), then the datagram */
#define AMG_OP_FANOUT 3u   /* payload: arg connection numbers of 4 bytes each, then bytes for each of them; conn unused */
#define AMG_OP_PAUSE 4u    /* stop receiving; that the peer is gone is not seen either, unless there is a backlog */
#define AMG_OP_RESUME 5u
#define AMG_OP_ACCEPT 6u   /* let a listener accept arg more connections; it begins with none */
#define AMG_OP_DEADLINE 7u /* AMG_TIMEOUT in arg milliseconds, instead of what was set before; 0: clear */
#define AMG_OP_SHUTDOWN 8u /* end our side when the backlog has left */
#define AMG_OP_CLOSE 9u    /* close when the backlog has left; nothing more is received */
#define AMG_OP_ABORT 10u   /* close now and drop the backlog */
#define AMG_OP_RELEASE 11u /* AMG_CLOSED has been seen: the connection's number may be given away again */
#define AMG_OP_WS 12u      /* what a stream receives from now on is WebSocket frames, told as AMG_FRAME and AMG_FRAMES.
                            * Payload: amg_ws_limits, and an amg_ws that has read what was received before */
#define AMG_OP_SEND_FAR 13u /* like AMG_OP_SEND; payload: address and length, two uint64_t, of bytes that lie elsewhere
                             * and stay there until the submission is carried out; or several such pairs */
#define AMG_OP_SEND_FILE 14u /* like AMG_OP_SEND; arg: the descriptor of a regular file, which stays open until there is no
                              * backlog, or AMG_CLOSED is told; payload: offset and length (at most 2^31), two uint64_t.
                              * The bytes are unsent ones, but no memory is taken for them. A file that ends before them
                              * ends the connection: EIO */
#define AMG_OP_MQTT 15u    /* what a stream receives from now on is MQTT packets, told as AMG_PACKET and AMG_PACKETS. Payload:
                            * amg_mqtt_limits, and an amg_mqtt that has read what was received before, CONNECT or CONNACK
                            * too. Of a packet whose beginning was received before, `missing` bytes are still to come, or
                            * the `held` bytes in `head` */

typedef struct amg_notice { /* what a submission left behind */
    uint32_t conn;
    uint32_t unsent; /* bytes of backlog, or AMG_BROKEN: AMG_CLOSED follows from the next poll */
} amg_notice;
#define AMG_BROKEN 0xffffffffu

/* Create an engine; everything it will ever use is allocated here, but the backlog, and 200 bytes for each connection with
 * AMG_OP_WS, 48 with AMG_OP_MQTT, which ends with ENOMEM when there are none.
 *
 * return    NULL with errno EINVAL (a number is out of its range), ENOSYS (poller), ENOMEM, or what the poller says.
 */
AMG_API amg_engine *amg_engine_new(const amg_engine_config *config);

/* Close all sockets without further completions and free everything. NULL is allowed. */
AMG_API void amg_engine_free(amg_engine *engine);

/* Where poll() and submit() leave their answers; the addresses do not change. */
AMG_API const amg_completion *amg_engine_completions(const amg_engine *engine);
AMG_API uint8_t *amg_engine_arena(const amg_engine *engine);
AMG_API const amg_notice *amg_engine_notices(const amg_engine *engine);

/* A descriptor that is readable while sockets have something for poll(), for use in another loop (deadlines do not make
 * it readable: see amg_engine_wait); -1 with AMG_POLLER_POLL. */
AMG_API int amg_engine_fd(const amg_engine *engine);

/* Wait at most timeout_ms (-1: for ever, 0: not at all) and return the number of completions, 0 when there are none. The
 * completions of the call before are gone. When all max_completions are used there may be more: call again. */
AMG_API uint32_t amg_engine_poll(amg_engine *engine, int timeout_ms);

/* Milliseconds until poll() has something to do without any socket's doing (a deadline, a listener's retry, completions
 * that did not fit): 0 at once, -1 never. */
AMG_API int amg_engine_wait(const amg_engine *engine);

/* Carry out the n bytes of submissions in buffer, in order. Output is sent at once as far as the kernel takes it, the rest
 * is the connection's backlog. What is for a connection that is closed is ignored.
 *
 * return    the number of notices: one for each connection, at most, that was sent to and has a backlog or is broken.
 */
AMG_API uint32_t amg_engine_submit(amg_engine *engine, const uint8_t *buffer, size_t n);

/* Take over a socket: it is made non-blocking, and is closed by the engine from now on (not when this fails).
 *
 * kind      AMG_STREAM (connected), AMG_LISTENER (listening) or AMG_DATAGRAM_SOCKET, or'ed with AMG_HTTP: its input, or
 *           that of what it accepts, is probably HTTP requests.
 * return    the connection's number, or a negative errno (ENFILE: max_conns).
 */
#define AMG_STREAM 0u
#define AMG_LISTENER 1u
#define AMG_DATAGRAM_SOCKET 2u
#define AMG_HTTP 256u
AMG_API int64_t amg_engine_adopt(amg_engine *engine, int fd, uint32_t kind);

/* Begin to connect a stream. AMG_CONNECTED or AMG_CLOSED follows. address: a sockaddr of length bytes.
 * return    the connection's number, or a negative errno. */
AMG_API int64_t amg_engine_connect(amg_engine *engine, const void *address, uint32_t length);

/* The connection's descriptor, to look at; -1 when it is closed. */
AMG_API int amg_engine_socket(const amg_engine *engine, uint32_t conn);

/* Bytes of backlog. */
AMG_API uint64_t amg_engine_unsent(const amg_engine *engine, uint32_t conn);

/* Bind a socket of kind AMG_LISTENER (and listen) or AMG_DATAGRAM_SOCKET for amg_engine_adopt().
 *
 * address   numeric IPv4 or IPv6, or the path of a Unix socket (it begins with a slash).
 * flags     AMG_REUSEPORT: several processes share the port.
 * return    the descriptor, or a negative errno.
 */
#define AMG_REUSEPORT 1u
AMG_API int amg_bind(const char *address, uint16_t port, uint32_t kind, uint32_t flags, int backlog);

#ifdef __cplusplus
}
#endif

#endif /* AMG_H */
