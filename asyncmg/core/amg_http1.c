/* HTTP/1.1 messages (RFC 9112): heads, and the framing of their content. Contracts are in amg.h.
 *
 * A head that is there as a whole and within the limits is read in one pass (amg__read_lines), which gives up at what
 * concerns unfinished heads too: the limits, a misplaced CR, LF or NUL, the end of the input. Then amg__scan decides,
 * which goes on where it stopped the last time: a head is scanned once however it is cut. Of several faults the one is
 * told that the portable codec tells.
 * SPDX-License-Identifier: MIT
 */
#include "amg.h"

#include <string.h>

#define AMG__MOST_INPUT 0x7fffffffu /* bytes looked at by one call: positions fit into 32 bits */
#define AMG__MOST_EMPTY_LINES 2u    /* RFC 9112 section 2.2: at least one before a request line should be ignored */
#define AMG__MOST_LENGTH_DIGITS 18u /* of Content-Length: it fits into 63 bits */
#define AMG__MOST_CHUNK_DIGITS 15u  /* of a chunk size: it fits into 60 bits */

/* states of amg_http1 */
enum {
    HEAD,
    LENGTH,
    CHUNKS,
    TRAILERS,
    CLOSE,
    END,      /* the content is complete, AMG_HTTP1_END is due */
    SWITCHED, /* after 101, or 2xx to CONNECT: the bytes belong to another protocol */
    AT_EOF,
    FAILED
};

/* classes of bytes */
#define TOKEN 1u     /* RFC 9110 section 5.6.2 */
#define VISIBLE 2u   /* 21..7E: of a request-target */
#define VALUE 4u     /* of a field value or reason phrase: not NUL, LF, VT, FF, CR; other controls are in use */
#define NAME 8u      /* of a host name, unescaped: unreserved and sub-delims of RFC 3986 */
#define HEX 16u
#define PRINTABLE 32u /* of a chunk extension or trailer value: no control character but HT */
#define ZONE 64u      /* of an IPv6 zone id */
#define SCHEME 128u

static const uint8_t amg__class[256] = {
    0x00, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x24, 0x00, 0x00, 0x00, 0x00, 0x04, 0x04, /* 00 */
    0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04, /* 10 */
    0x24, 0x2f, 0x26, 0x27, 0x2f, 0x27, 0x2f, 0x2f, 0x2e, 0x2e, 0x2f, 0xaf, 0x2e, 0xef, 0xef, 0x26, /* 20 */
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x26, 0x2e, 0x26, 0x2e, 0x26, 0x26, /* 30 */
    0x26, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xef, 0xef, 0xef, 0xef, 0xef, 0xef, 0xef, 0xef, 0xef, /* 40 */
    0xef, 0xef, 0xef, 0xef, 0xef, 0xef, 0xef, 0xef, 0xef, 0xef, 0xef, 0x26, 0x26, 0x26, 0x27, 0x6f, /* 50 */
    0x27, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xef, 0xef, 0xef, 0xef, 0xef, 0xef, 0xef, 0xef, 0xef, /* 60 */
    0xef, 0xef, 0xef, 0xef, 0xef, 0xef, 0xef, 0xef, 0xef, 0xef, 0xef, 0x26, 0x27, 0x26, 0x6f, 0x04, /* 70 */
    0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, /* 80 */
    0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, /* 90 */
    0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, /* a0 */
    0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, /* b0 */
    0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, /* c0 */
    0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, /* d0 */
    0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, /* e0 */
    0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, 0x24, /* f0 */
};

#define IS(byte, class) ((amg__class[byte] & (class)) != 0)

/* What a head says; filled while its lines are read. */
typedef struct amg__head {
    size_t line;   /* length of the first line, without its end */
    size_t length; /* of the head, with the empty line */
    const uint8_t *host;
    size_t host_length;
    uint64_t content_length;
    uint32_t method_length, target_length; /* of a response: 0, and of the reason phrase */
    uint32_t fields, hosts, lengths, codings;
    uint16_t status; /* of a response */
    uint8_t framing;
    uint8_t is_10;
    uint8_t connection; /* CLOSES, KEEPS, UPGRADES: Connection names it */
    uint8_t expect;     /* of the last Expect: nothing, CONTINUE, OTHER */
    uint8_t upgrade;    /* the last Upgrade field has a value */
    /* faults: AMG_E_ or 0 */
    uint8_t folded, listed, line_fault, version_fault, field_fault;
    uint8_t framing_fault; /* the first one of Content-Length and Transfer-Encoding */
    uint8_t is_long;       /* Content-Length has more digits than are read */
} amg__head;

enum { CLOSES = 1, KEEPS = 2, UPGRADES = 4 };
enum { CONTINUE = 1, OTHER = 2 };

/* -- bytes --------------------------------------------------------------------------------------------------------- */

/* Compare with a text in lower case, without regard to case. */
static int amg__is(const uint8_t *data, size_t n, const char *text, size_t length) {
    size_t i;

    if (n != length) return 0;
    for (i = 0; i < n; i++) {
        uint8_t byte = data[i];
        if (byte >= 'A' && byte <= 'Z') byte = (uint8_t)(byte | 0x20u);
        if (byte != (uint8_t)text[i]) return 0;
    }
    return 1;
}
#define IS_TEXT(data, n, text) amg__is(data, n, text, sizeof(text) - 1)

static int amg__is_blank(uint8_t byte) { return byte == ' ' || byte == '\t'; }

static int amg__is_digit(uint8_t byte) { return byte >= '0' && byte <= '9'; }

/* The first place from i on where no byte of a field value stands: NUL, LF, VT, FF or CR; n when there is none. */
static size_t amg__skip_value(const uint8_t *data, size_t i, size_t n) {
    const uint64_t ones = UINT64_C(0x0101010101010101);
    uint64_t word;

    while (n - i >= sizeof word) {
        memcpy(&word, data + i, sizeof word);
        /* Set in the top bit of a byte below 0E, and perhaps of one above it. */
        if ((word - ones * 0x0e) & ~word & (ones * 0x80)) break;
        i += sizeof word;
    }
    for (; i < n; i++) {
        if (!IS(data[i], VALUE)) break;
    }
    return i;
}

/* Where the line that i is in ends, the place of its CRLF; n when there is none, or something misplaced before it. */
static size_t amg__line_end(const uint8_t *data, size_t i, size_t n) {
    for (;; i++) {
        i = amg__skip_value(data, i, n);
        if (i == n) return n;
        if (data[i] == 0x0b || data[i] == 0x0c) continue;
        return data[i] == '\r' && n - i >= 2 && data[i + 1] == '\n' ? i : n;
    }
}

/* HTTP-version, of 8 bytes. */
static int amg__is_version(const uint8_t *data) {
    return memcmp(data, "HTTP/", 5) == 0 && amg__is_digit(data[5]) && data[6] == '.' && amg__is_digit(data[7]);
}

/* -- hosts and targets --------------------------------------------------------------------------------------------- */

/* Dotted decimal, without leading zeros. */
static int amg__is_ipv4(const uint8_t *data, size_t n) {
    unsigned octets = 0;
    size_t i = 0;

    for (;;) {
        size_t start = i;
        unsigned value = 0;
        while (i < n && amg__is_digit(data[i]) && i - start < 3) value = value * 10 + (unsigned)(data[i++] - '0');
        if (i == start || value > 255 || (data[start] == '0' && i - start > 1)) return 0;
        octets++;
        if (i == n) return octets == 4;
        if (data[i++] != '.') return 0;
    }
}

/* RFC 4291 section 2.2. */
static int amg__is_ipv6(const uint8_t *data, size_t n) {
    unsigned groups = 0;
    int gap = 0;
    size_t i = 0;

    if (n < 2) return 0;
    if (data[0] == ':') {
        if (data[1] != ':') return 0;
        gap = 1;
        i = 2;
    }
    while (i < n) {
        size_t start = i;
        while (i < n && IS(data[i], HEX)) i++;
        if (i < n && data[i] == '.') {
            if (!amg__is_ipv4(data + start, n - start)) return 0;
            groups += 2;
            break;
        }
        if (i == start || i - start > 4) return 0;
        groups++;
        if (i == n) break;
        if (data[i++] != ':' || i == n) return 0;
        if (data[i] == ':') {
            if (gap) return 0;
            gap = 1;
            i++;
        }
    }
    return gap ? groups <= 7 : groups == 8;
}

/* uri-host [ ":" port ] (RFC 3986 section 3.2.2; zone ids: RFC 6874). */
static int amg__is_host(const uint8_t *data, size_t n) {
    size_t i = 0;

    if (n && data[0] == '[') {
        for (i = 1; i < n && (IS(data[i], HEX) || data[i] == ':' || data[i] == '.');) i++;
        if (!amg__is_ipv6(data + 1, i - 1)) return 0;
        if (n - i >= 4 && memcmp(data + i, "%25", 3) == 0 && IS(data[i + 3], ZONE)) {
            for (i += 3; i < n && IS(data[i], ZONE);) i++;
        }
        if (i == n || data[i++] != ']') return 0;
    } else {
        while (i < n) {
            if (IS(data[i], NAME)) {
                i++;
            } else if (data[i] == '%' && n - i >= 3 && IS(data[i + 1], HEX) && IS(data[i + 2], HEX)) {
                i += 3;
            } else {
                break;
            }
        }
    }
    if (i < n && data[i++] != ':') return 0;
    while (i < n && amg__is_digit(data[i])) i++;
    return i == n;
}

/* host ":" port, neither of them empty (RFC 9112 section 3.2.3). */
static int amg__is_authority(const uint8_t *data, size_t n) {
    size_t colon = n, i;
    unsigned long port = 0;

    while (colon && data[colon - 1] != ':') colon--;
    if (colon < 2 || colon == n || n - colon > 5) return 0;
    for (i = colon; i < n; i++) {
        if (!amg__is_digit(data[i])) return 0;
        port = port * 10 + (unsigned long)(data[i] - '0');
    }
    return port <= 65535 && amg__is_host(data, n);
}

/* scheme "://" host [ ":" port ] and whatever follows; no userinfo (RFC 9110 section 4.2.4). */
static int amg__is_absolute(const uint8_t *data, size_t n) {
    size_t i = 0, host;

    if (!(data[0] >= 'A' && data[0] <= 'Z') && !(data[0] >= 'a' && data[0] <= 'z')) return 0;
    while (i < n && IS(data[i], SCHEME)) i++;
    if (n - i < 3 || memcmp(data + i, "://", 3) != 0) return 0;
    i += 3;
    host = i;
    while (i < n && data[i] != '/' && data[i] != '?') i++;
    return i > host && data[host] != ':' && amg__is_host(data + host, i - host);
}

static int amg__is_connect(const uint8_t *data, uint32_t method_length) {
    return method_length == 7 && memcmp(data, "CONNECT", 7) == 0;
}

/* The four forms of RFC 9112 section 3.2. */
static int amg__is_target(const uint8_t *data, uint32_t method_length, uint32_t n) {
    const uint8_t *target = data + method_length + 1;

    if (memchr(target, '#', n)) return 0;
    if (amg__is_connect(data, method_length)) return amg__is_authority(target, n);
    if (target[0] == '/') return 1;
    if (n == 1 && target[0] == '*') return method_length == 7 && memcmp(data, "OPTIONS", 7) == 0;
    return amg__is_absolute(target, n);
}

/* -- fields -------------------------------------------------------------------------------------------------------- */

static void amg__note_length(amg__head *head, const uint8_t *value, size_t n) {
    uint64_t length = 0;
    size_t i;

    head->lengths++;
    if (memchr(value, ',', n)) head->listed = 1;
    for (i = 0; i < n && amg__is_digit(value[i]); i++) {
        if (i < AMG__MOST_LENGTH_DIGITS) length = length * 10 + (uint64_t)(value[i] - '0');
    }
    if (i < n || !n || n > 20) {
        if (!head->framing_fault) head->framing_fault = AMG_E_LENGTH;
    }
    head->is_long = n > AMG__MOST_LENGTH_DIGITS;
    head->content_length = length;
}

static void amg__note_connection(amg__head *head, const uint8_t *value, size_t n) {
    size_t i = 0;

    while (i < n) {
        size_t start, end;
        while (i < n && (amg__is_blank(value[i]) || value[i] == ',')) i++;
        start = i;
        while (i < n && value[i] != ',') i++;
        end = i;
        while (end > start && amg__is_blank(value[end - 1])) end--;
        if (IS_TEXT(value + start, end - start, "close")) {
            head->connection |= CLOSES;
        } else if (IS_TEXT(value + start, end - start, "keep-alive")) {
            head->connection |= KEEPS;
        } else if (IS_TEXT(value + start, end - start, "upgrade")) {
            head->connection |= UPGRADES;
        }
    }
}

/* Note what a field says about framing and persistence. value may have white space behind it. */
static void amg__note_field(amg__head *head, const uint8_t *name, size_t name_length, const uint8_t *value, size_t n) {
    while (n && amg__is_blank(value[n - 1])) n--;
    switch (name_length) {
    case 4:
        if (IS_TEXT(name, name_length, "host")) {
            head->hosts++;
            head->host = value;
            head->host_length = n;
        }
        break;
    case 6:
        if (IS_TEXT(name, name_length, "expect")) {
            head->expect = (uint8_t)(!n ? 0 : IS_TEXT(value, n, "100-continue") ? CONTINUE : OTHER);
        }
        break;
    case 7:
        if (IS_TEXT(name, name_length, "upgrade")) head->upgrade = n > 0;
        break;
    case 10:
        if (IS_TEXT(name, name_length, "connection")) amg__note_connection(head, value, n);
        break;
    case 14:
        if (IS_TEXT(name, name_length, "content-length")) amg__note_length(head, value, n);
        break;
    case 17:
        if (IS_TEXT(name, name_length, "transfer-encoding")) {
            if ((head->codings++ || !IS_TEXT(value, n, "chunked")) && !head->framing_fault) {
                head->framing_fault = AMG_E_CODING;
            }
        }
        break;
    default:
        break;
    }
}

/* Note the fault of a line from start to end that is no field; place: behind what looks like its name. */
static void amg__note_malformed(amg__head *head, const uint8_t *data, size_t start, size_t place, size_t end) {
    size_t name_length = place - start;

    if (amg__is_blank(data[start])) head->folded = 1;
    head->field_fault = 1;
    while (place < end && amg__is_blank(data[place])) place++;
    /* Content-Length with white space behind it may be one for others. */
    if (place < end && data[place] == ':' && IS_TEXT(data + start, name_length, "content-length")) {
        head->lengths++;
        if (memchr(data + place, ',', end - place)) head->listed = 1;
    }
}

/* Read field lines from i on; return the place behind the empty line, 0 when that is for amg__scan to tell. */
static size_t amg__read_fields(const amg_http1_limits *limits, const uint8_t *data, size_t i, size_t n,
                               amg__head *head) {
    for (;;) {
        size_t start = i, name_length, value;

        if (n - i < 2) return 0;
        if (data[i] == '\r') return data[i + 1] == '\n' ? i + 2 : 0;
        while (i < n && IS(data[i], TOKEN)) i++;
        name_length = i - start;
        if (name_length && i < n && data[i] == ':') {
            for (i++; i < n && amg__is_blank(data[i]);) i++;
            value = i;
            i = amg__skip_value(data, i, n);
            if (n - i < 2) return 0;
            if (data[i] == '\r' && data[i + 1] == '\n') {
                amg__note_field(head, data + start, name_length, data + value, i - value);
            } else {
                i = amg__line_end(data, i, n);
                if (i == n) return 0;
                amg__note_malformed(head, data, start, start + name_length, i);
            }
        } else {
            i = amg__line_end(data, i, n);
            if (i == n) return 0;
            amg__note_malformed(head, data, start, start + name_length, i);
        }
        if (++head->fields > limits->max_fields || i - start > limits->max_field_line) return 0;
        i += 2;
    }
}

/* -- heads --------------------------------------------------------------------------------------------------------- */

/* Read a request line; return the place of its CRLF, n when there is none. */
static size_t amg__read_request_line(const uint8_t *data, size_t n, amg__head *head) {
    size_t i = 0, target;

    while (i < n && IS(data[i], TOKEN)) i++;
    head->method_length = (uint32_t)i;
    if (i && i < n && data[i] == ' ') {
        target = ++i;
        while (i < n && IS(data[i], VISIBLE)) i++;
        head->target_length = (uint32_t)(i - target);
        if (i > target && n - i >= 11 && data[i] == ' ' && amg__is_version(data + i + 1) && data[i + 9] == '\r' &&
            data[i + 10] == '\n') {
            head->version_fault = data[i + 6] != '1';
            head->is_10 = data[i + 8] == '0';
            return i + 9;
        }
    }
    i = amg__line_end(data, i, n);
    if (i == n) return n;
    head->line_fault = 1;
    /* Another major version is told before what else is wrong with the line. */
    head->version_fault =
        i >= 8 && amg__is_version(data + i - 8) && data[i - 3] != '1' && (i == 8 || data[i - 9] == ' ');
    return i;
}

/* Read a status line; return the place of its CRLF, n when there is none. */
static size_t amg__read_status_line(const uint8_t *data, size_t n, amg__head *head) {
    size_t i = amg__line_end(data, 0, n);

    if (i == n) return n;
    head->line_fault = 1;
    if (i < 12 || !amg__is_version(data) || data[8] != ' ' || !amg__is_digit(data[9]) || !amg__is_digit(data[10]) ||
        !amg__is_digit(data[11])) {
        return i;
    }
    if (i > 12 && (data[12] != ' ' || amg__skip_value(data, 13, i) != i)) return i;
    head->line_fault = 0;
    head->version_fault = data[5] != '1';
    head->is_10 = data[5] == '1' && data[7] == '0';
    head->status = (uint16_t)((data[9] - '0') * 100 + (data[10] - '0') * 10 + (data[11] - '0'));
    head->target_length = (uint32_t)(i > 13 ? i - 13 : 0);
    return i;
}

/* Decide the framing that the fields announce; AMG_E_ or 0. framing is AMG_FRAMING_CLOSE when they say nothing. */
static unsigned amg__frame(amg__head *head) {
    head->framing = AMG_FRAMING_CLOSE;
    if (head->codings) {
        if (head->lengths) return AMG_E_CODING_AND_LENGTH;
        if (head->is_10) return AMG_E_CODING_IN_10;
        head->framing = AMG_FRAMING_CHUNKED;
    } else if (head->lengths) {
        if (head->is_long) return AMG_E_LENGTH;
        head->framing = head->content_length ? AMG_FRAMING_LENGTH : AMG_FRAMING_NONE;
    }
    return 0;
}

static unsigned amg__check_request(amg__head *head, const uint8_t *data) {
    unsigned error;

    if (head->folded) return AMG_E_FOLDING;
    if (head->lengths > 1 || head->listed) return AMG_E_LENGTH;
    if (head->version_fault) return AMG_E_VERSION;
    if (head->line_fault) return AMG_E_START_LINE;
    if (head->field_fault) return AMG_E_FIELD;
    if (head->framing_fault) return head->framing_fault;
    if (!head->hosts && !head->is_10) return AMG_E_HOST_MISSING;
    if (head->hosts > 1) return AMG_E_HOST_REPEATED;
    if (!amg__is_target(data, head->method_length, head->target_length)) return AMG_E_TARGET;
    if (head->hosts && !amg__is_host(head->host, head->host_length)) return AMG_E_HOST;
    error = amg__frame(head);
    if (error) return error;
    if (head->framing == AMG_FRAMING_CLOSE) head->framing = AMG_FRAMING_NONE;
    return head->expect == OTHER ? AMG_E_EXPECT : 0;
}

static unsigned amg__check_response(amg__head *head, unsigned answers) {
    unsigned error;

    if (head->folded) return AMG_E_FOLDING;
    if (head->lengths > 1 || head->listed) return AMG_E_LENGTH;
    if (answers == AMG_ANSWERS_NOTHING) return AMG_E_UNASKED;
    if (head->line_fault) return AMG_E_START_LINE;
    if (head->field_fault) return AMG_E_FIELD;
    if (head->framing_fault) return head->framing_fault;
    if (head->status < 100) return AMG_E_START_LINE;
    if (head->version_fault) return AMG_E_VERSION;
    error = amg__frame(head);
    if (error) return error;
    if (head->status < 200 || head->status == 204 || head->status == 304 || answers == AMG_ANSWERS_HEAD ||
        (answers == AMG_ANSWERS_CONNECT && head->status < 300)) {
        head->framing = AMG_FRAMING_NONE;
    } else if (head->framing == AMG_FRAMING_CLOSE) {
        head->connection |= CLOSES;
    }
    return 0;
}

/* Read a head that begins at data; 0 when amg__scan has to decide, otherwise *error is AMG_E_ or 0. */
static int amg__read_lines(unsigned role, unsigned answers, const amg_http1_limits *limits, const uint8_t *data,
                           size_t n, amg__head *head, unsigned *error) {
    size_t end;

    memset(head, 0, sizeof *head);
    head->line = role == AMG_SERVER ? amg__read_request_line(data, n, head) : amg__read_status_line(data, n, head);
    if (head->line == n || head->line > limits->max_request_line) return 0;
    end = amg__read_fields(limits, data, head->line + 2, n, head);
    if (!end || end - head->line > limits->max_header_size) return 0;
    head->length = end;
    *error = role == AMG_SERVER ? amg__check_request(head, data) : amg__check_response(head, answers);
    return 1;
}

static void amg__record_head(const amg__head *head, unsigned role, size_t offset, amg_http1_record *record) {
    unsigned flags = head->is_10 ? AMG_HTTP_10 : 0u;

    if (!(head->connection & CLOSES) && (!head->is_10 || (head->connection & KEEPS))) flags |= AMG_HTTP_KEEP_ALIVE;
    if (role == AMG_SERVER && !head->is_10) {
        /* RFC 9110 section 10.1.1: to be ignored in HTTP/1.0 and when there is no content. */
        if (head->expect && head->framing != AMG_FRAMING_NONE) flags |= AMG_HTTP_EXPECTS_CONTINUE;
        if (head->upgrade && (head->connection & UPGRADES)) flags |= AMG_HTTP_UPGRADE;
    }
    record->kind = (uint8_t)(role == AMG_SERVER ? AMG_HTTP1_REQUEST : AMG_HTTP1_RESPONSE);
    record->framing = head->framing;
    record->flags = (uint16_t)flags;
    record->status = head->status;
    record->error = 0;
    record->offset = (uint32_t)offset;
    record->length = (uint32_t)head->length;
    record->method_length = head->method_length;
    record->target_length = head->target_length;
    record->content_length = head->framing == AMG_FRAMING_LENGTH ? head->content_length : 0;
}

size_t amg_http1_whole(const amg_http1_limits *limits, const uint8_t *data, size_t n, amg_http1_record *record) {
    amg__head head;
    unsigned error;

    if (n > AMG__MOST_INPUT) n = AMG__MOST_INPUT;
    if (!n || !amg__read_lines(AMG_SERVER, AMG_ANSWERS_NOTHING, limits, data, n, &head, &error) || error) return 0;
    if (head.framing == AMG_FRAMING_CHUNKED || head.expect || amg__is_connect(data, head.method_length)) return 0;
    if (head.framing == AMG_FRAMING_LENGTH && head.content_length > n - head.length) return 0;
    amg__record_head(&head, AMG_SERVER, 0, record);
    if (record->flags & AMG_HTTP_UPGRADE) return 0;
    return head.length + (size_t)record->content_length;
}

/* -- the reader ---------------------------------------------------------------------------------------------------- */

typedef struct amg__input { /* one call of amg_http1_read() */
    amg_http1 *codec;
    const amg_http1_limits *limits;
    const uint8_t *data;
    size_t n, position;
    uint8_t *scratch;
    int eof;
} amg__input;

#define MORE_NEEDED 0xffu /* in place of AMG_E_ */

static int amg__fail(amg__input *input, amg_http1_record *record, unsigned error, uint64_t actual) {
    unsigned status = 400;

    switch (error) {
    case AMG_E_REQUEST_LINE_SIZE: status = input->codec->role == AMG_SERVER ? 414 : 0; break;
    case AMG_E_HEADER_SIZE:
    case AMG_E_FIELD_LINE_SIZE:
    case AMG_E_FIELDS: status = 431; break;
    case AMG_E_VERSION: status = input->codec->role == AMG_SERVER ? 505 : 400; break;
    case AMG_E_CODING: status = 501; break;
    case AMG_E_EXPECT: status = 417; break;
    default: break;
    }
    memset(record, 0, sizeof *record);
    record->kind = AMG_HTTP1_ERROR;
    record->error = (uint16_t)error;
    record->status = (uint16_t)status;
    record->content_length = actual;
    input->codec->state = FAILED;
    return 1;
}

static int amg__end(amg__input *input, amg_http1_record *record, size_t offset, size_t length) {
    memset(record, 0, sizeof *record);
    record->kind = AMG_HTTP1_END;
    record->offset = (uint32_t)offset;
    record->length = (uint32_t)length;
    record->method_length = (uint32_t)input->position;
    return 1;
}

static int amg__content(amg__input *input, amg_http1_record *record, size_t offset, size_t length, unsigned flags) {
    memset(record, 0, sizeof *record);
    record->kind = AMG_HTTP1_CONTENT;
    record->flags = (uint16_t)flags;
    record->offset = (uint32_t)offset;
    record->length = (uint32_t)length;
    record->method_length = (uint32_t)input->position;
    return 1;
}

/* Look for the end of a head, and for what is refused before it has come. While the state is HEAD, codec->remaining
 * holds the length of the first line and where the current one begins (0: the first line), codec->extensions the number
 * of fields.
 *
 * return    AMG_E_, or MORE_NEEDED, or 0: *end is the length of the head. */
static unsigned amg__scan(const amg__input *input, const uint8_t *data, size_t n, size_t *end, uint64_t *actual) {
    const amg_http1_limits *limits = input->limits;
    amg_http1 *codec = input->codec;
    size_t start = (size_t)(codec->remaining & 0xffffffffu), line = (size_t)(codec->remaining >> 32);
    size_t i = codec->scanned, longest = 0;
    uint32_t fields = codec->extensions;

    *end = 0;
    while (!*end) {
        i = amg__skip_value(data, i, n);
        if (i == n) break;
        if (data[i] == 0x0b || data[i] == 0x0c) {
            i++;
            continue;
        }
        if (data[i] != '\r') return AMG_E_MISPLACED;
        if (n - i < 2) break; /* its LF may follow */
        if (data[i + 1] != '\n') return AMG_E_MISPLACED;
        if (!start) {
            line = i;
        } else if (i == start) {
            *end = i + 2;
        } else {
            fields++;
            if (i - start > longest) longest = i - start;
        }
        i += 2;
        start = i;
    }
    if (!start) line = i;
    if (!*end && start && i - start > longest) longest = i - start;
    if (*end) n = *end;
    if (line > limits->max_request_line) return *actual = line, AMG_E_REQUEST_LINE_SIZE;
    if (n - line > limits->max_header_size) return *actual = n - line, AMG_E_HEADER_SIZE;
    if (longest > limits->max_field_line) return *actual = longest, AMG_E_FIELD_LINE_SIZE;
    if (fields > limits->max_fields) return *actual = fields, AMG_E_FIELDS;
    codec->scanned = (uint32_t)i;
    codec->remaining = (uint64_t)line << 32 | (uint64_t)start;
    codec->extensions = fields;
    return *end ? 0u : MORE_NEEDED;
}

/* The state behind a head. */
static void amg__follow_head(amg_http1 *codec, const amg__head *head, const amg_http1_record *record,
                             const uint8_t *data) {
    static const uint8_t next[] = {END, LENGTH, CHUNKS, CLOSE}; /* by framing */

    codec->state = next[head->framing];
    codec->remaining = record->content_length;
    codec->scanned = codec->extensions = 0;
    codec->needs_crlf = codec->empty_lines = 0;
    if (codec->role == AMG_SERVER) {
        codec->switches = (record->flags & AMG_HTTP_UPGRADE) || amg__is_connect(data, head->method_length);
    } else if (head->status == 101 || (codec->answers == AMG_ANSWERS_CONNECT && head->status / 100 == 2)) {
        codec->state = SWITCHED;
    } else if (head->status < 200) {
        codec->state = HEAD;
    }
}

static int amg__read_head(amg__input *input, amg_http1_record *record) {
    amg_http1 *codec = input->codec;
    const uint8_t *data = input->data + input->position;
    size_t n = input->n - input->position, end;
    uint64_t actual = 0;
    unsigned error;
    amg__head head;

    while (codec->role == AMG_SERVER && codec->empty_lines < AMG__MOST_EMPTY_LINES && n >= 2 && data[0] == '\r' &&
           data[1] == '\n') {
        data += 2;
        n -= 2;
        input->position += 2;
        codec->empty_lines++;
        codec->scanned = 0;
    }
    if (!n) return 0;
    if (!codec->scanned) codec->remaining = codec->extensions = 0;
    if (codec->scanned || !amg__read_lines(codec->role, codec->answers, input->limits, data, n, &head, &error)) {
        error = amg__scan(input, data, n, &end, &actual);
        if (error == MORE_NEEDED) return input->eof ? amg__fail(input, record, AMG_E_EOF_IN_HEAD, 0) : 0;
        if (error) return amg__fail(input, record, error, actual);
        if (!amg__read_lines(codec->role, codec->answers, input->limits, data, end, &head, &error)) {
            error = AMG_E_START_LINE; /* not reached: whatever stops it has been told by amg__scan */
        }
    }
    if (error) return amg__fail(input, record, error, 0);
    amg__record_head(&head, codec->role, input->position, record);
    amg__follow_head(codec, &head, record, data);
    input->position += head.length;
    return 1;
}

static int amg__read_length(amg__input *input, amg_http1_record *record) {
    amg_http1 *codec = input->codec;
    size_t offset = input->position, length = input->n - offset;

    if (!length) return input->eof ? amg__fail(input, record, AMG_E_EOF_IN_CONTENT, 0) : 0;
    if (length > codec->remaining) length = (size_t)codec->remaining;
    codec->remaining -= length;
    if (!codec->remaining) codec->state = END;
    input->position += length;
    return amg__content(input, record, offset, length, 0);
}

static int amg__read_until_close(amg__input *input, amg_http1_record *record) {
    size_t offset = input->position;

    if (offset < input->n) {
        input->position = input->n;
        return amg__content(input, record, offset, input->n - offset, 0);
    }
    if (!input->eof) return 0;
    input->codec->state = AT_EOF;
    return amg__end(input, record, offset, 0);
}

/* Take the size out of a chunk line from start to end; AMG_E_ or 0. */
static unsigned amg__read_chunk_size(amg__input *input, size_t start, size_t end, uint64_t *actual) {
    amg_http1 *codec = input->codec;
    const uint8_t *data = input->data;
    uint64_t size = 0;
    size_t i = start, extension;

    for (; i < end && IS(data[i], HEX); i++) {
        if (i - start == AMG__MOST_CHUNK_DIGITS) return AMG_E_CHUNK_SIZE;
        size = size << 4 | (uint64_t)(data[i] <= '9' ? data[i] - '0' : (data[i] | 0x20) - 'a' + 10);
    }
    if (i == start) return AMG_E_CHUNK_SIZE;
    extension = i;
    if (i < end) {
        while (i < end && amg__is_blank(data[i])) i++;
        if (i == end || data[i] != ';') return AMG_E_CHUNK_SIZE;
        while (i < end && IS(data[i], PRINTABLE)) i++;
        if (i < end) return AMG_E_CHUNK_SIZE;
        *actual = (uint64_t)codec->extensions + (end - extension);
        if (*actual > input->limits->max_chunk_extensions) return AMG_E_CHUNK_EXTENSIONS;
        codec->extensions = (uint32_t)*actual;
    }
    codec->remaining = size;
    codec->needs_crlf = 0;
    codec->scanned = 0;
    /* The end of the last chunk's line stays, so that a trailer section always ends with an empty line. */
    input->position = size ? end + 2 : end;
    if (!size) codec->state = TRAILERS;
    return 0;
}

/* Read the end of the chunk before and a chunk line; AMG_E_, MORE_NEEDED or 0. */
static unsigned amg__read_chunk_line(amg__input *input, uint64_t *actual) {
    amg_http1 *codec = input->codec;
    const uint8_t *data = input->data;
    size_t n = input->n, start = input->position, limit = input->limits->max_chunk_line, from, i, window, last;

    if (codec->needs_crlf) {
        if (n - start < 2) return n > start && data[start] != '\r' ? (unsigned)AMG_E_CHUNK_END : MORE_NEEDED;
        if (data[start] != '\r' || data[start + 1] != '\n') return AMG_E_CHUNK_END;
        start += 2;
    }
    from = input->position + codec->scanned;
    if (from < start) from = start;
    window = n - start > limit && n - start - limit > 2 ? start + limit + 2 : n;
    for (i = from; window - i >= 2; i++) {
        if (data[i] == '\r' && data[i + 1] == '\n') return amg__read_chunk_size(input, start, i, actual);
    }
    last = n > start && data[n - 1] == '\r' ? n - 1 : n; /* its LF may follow */
    if (last - start > limit) return *actual = last - start, AMG_E_CHUNK_LINE_SIZE;
    for (i = from; i < last; i++) {
        if (data[i] == '\r' || data[i] == '\n' || !data[i]) return AMG_E_CHUNK_MISPLACED;
    }
    codec->scanned = (uint32_t)(last - input->position);
    return MORE_NEEDED;
}

/* A trailer field line (RFC 9112 section 7.1.2). */
static int amg__is_trailer(const uint8_t *line, size_t n) {
    size_t i = 0;

    while (i < n && IS(line[i], TOKEN)) i++;
    if (!i || i == n || line[i] != ':') return 0;
    for (i++; i < n && IS(line[i], PRINTABLE);) i++;
    return i == n;
}

/* Hold a whole trailer section against its grammar; AMG_E_ or 0. */
static unsigned amg__check_trailers(const amg_http1_limits *limits, const uint8_t *data, size_t n, uint64_t *actual) {
    unsigned error = 0;
    uint64_t fields = 0;
    size_t start = 0, i;

    for (i = 0; i <= n; i++) {
        if (i < n && !(data[i] == '\r' && i + 1 < n && data[i + 1] == '\n')) continue;
        if (!amg__is_trailer(data + start, i - start)) error = AMG_E_TRAILER;
        fields++;
        start = i + 2;
        i++;
    }
    *actual = fields;
    return fields > limits->max_fields ? (unsigned)AMG_E_TRAILER_FIELDS : error;
}

/* The state is TRAILERS: what is left begins with CRLF. */
static int amg__read_trailers(amg__input *input, amg_http1_record *record) {
    amg_http1 *codec = input->codec;
    const uint8_t *data = input->data + input->position;
    size_t n = input->n - input->position, limit = input->limits->max_trailer_size, offset = input->position + 2, i;
    uint64_t actual = 0;
    unsigned error = 0;

    for (i = codec->scanned > 3 ? codec->scanned - 3u : 0; n - i >= 4; i++) {
        if (data[i] == '\r' && memcmp(data + i, "\r\n\r\n", 4) == 0) break;
    }
    if (n - i < 4 || n < 4) {
        /* Not complete: CR LF CR of its end may be there already. */
        if (n > 3 && n - 3 > limit) return amg__fail(input, record, AMG_E_TRAILER_SIZE, n - 3);
        for (i = codec->scanned > 1 ? codec->scanned - 1u : 0; i < n; i++) {
            if (!data[i] || (data[i] == '\n' && data[i - 1] != '\r') ||
                (data[i] == '\r' && i + 1 < n && data[i + 1] != '\n')) {
                return amg__fail(input, record, AMG_E_TRAILER_MISPLACED, 0);
            }
        }
        codec->scanned = (uint32_t)n;
        return input->eof ? amg__fail(input, record, AMG_E_EOF_IN_CONTENT, 0) : 0;
    }
    if (i > limit) return amg__fail(input, record, AMG_E_TRAILER_SIZE, i);
    if (i) error = amg__check_trailers(input->limits, data + 2, i - 2, &actual);
    if (error) return amg__fail(input, record, error, actual);
    codec->scanned = codec->extensions = 0;
    codec->state = HEAD;
    input->position += i + 4;
    return amg__end(input, record, offset, i ? i - 2 : 0);
}

/* Read all chunks that are there, as one piece: a thousand chunks of one byte cost one record. */
static int amg__read_chunks(amg__input *input, amg_http1_record *record) {
    amg_http1 *codec = input->codec;
    size_t offset = 0, length = 0;
    uint64_t actual = 0;
    unsigned error = 0, flags = 0;

    while (codec->state == CHUNKS && !error) {
        size_t piece = input->n - input->position;
        if (!codec->remaining) {
            error = amg__read_chunk_line(input, &actual);
            continue;
        }
        if (!piece) break;
        if (piece > codec->remaining) piece = (size_t)codec->remaining;
        if (!length) {
            offset = input->position; /* where it is in scratch as well: with scratch == data nothing else is there */
        } else {
            if (!flags && input->scratch != input->data) memcpy(input->scratch + offset, input->data + offset, length);
            flags = AMG_HTTP_SCRATCH;
            memmove(input->scratch + offset + length, input->data + input->position, piece);
        }
        length += piece;
        input->position += piece;
        codec->remaining -= piece;
        codec->needs_crlf = !codec->remaining;
    }
    if (length) return amg__content(input, record, offset, length, flags); /* an error is met again */
    if (error && error != MORE_NEEDED) return amg__fail(input, record, error, actual);
    if (codec->state == TRAILERS) return amg__read_trailers(input, record);
    return input->eof ? amg__fail(input, record, AMG_E_EOF_IN_CONTENT, 0) : 0;
}

/* Read one record; 0 when more data is needed. */
static int amg__step(amg__input *input, amg_http1_record *record) {
    switch (input->codec->state) {
    case HEAD: return amg__read_head(input, record);
    case LENGTH: return amg__read_length(input, record);
    case CHUNKS: return amg__read_chunks(input, record);
    case TRAILERS: return amg__read_trailers(input, record);
    case CLOSE: return amg__read_until_close(input, record);
    case END: input->codec->state = HEAD; return amg__end(input, record, input->position, 0);
    default: return 0;
    }
}

/* Is this a place where the caller has to decide how to go on? */
static int amg__pauses(amg_http1 *codec, const amg_http1_record *record) {
    if (record->kind == AMG_HTTP1_REQUEST) return codec->switches;
    if (record->kind != AMG_HTTP1_END) return record->kind == AMG_HTTP1_ERROR;
    if (codec->role == AMG_CLIENT) return 1;
    if (!codec->switches) return 0;
    codec->switches = 0;
    return 1;
}

void amg_http1_init(amg_http1 *codec, uint8_t role) {
    memset(codec, 0, sizeof *codec);
    codec->role = role;
}

size_t amg_http1_read(amg_http1 *codec, const amg_http1_limits *limits, const uint8_t *data, size_t n, int eof,
                      uint8_t *scratch, amg_http1_record *records, size_t max, size_t *consumed) {
    static const uint8_t nothing = 0;
    amg__input input;
    size_t count = 0;

    input.codec = codec;
    input.limits = limits;
    input.data = n ? data : &nothing;
    input.n = n > AMG__MOST_INPUT ? AMG__MOST_INPUT : n;
    input.position = 0;
    input.scratch = scratch;
    input.eof = eof && input.n == n;
    while (count < max && amg__step(&input, &records[count])) {
        if (amg__pauses(codec, &records[count++])) break;
    }
    *consumed = codec->state == FAILED ? n : input.position;
    return count;
}
