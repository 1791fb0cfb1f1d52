/* WebSocket frames (RFC 6455 section 5): headers, payloads unmasked as they come, what a peer may not do. Contracts are
 * in amg.h. Of several faults of a frame the one is told that comes in first, and that the portable codec tells.
 * SPDX-License-Identifier: MIT
 */
#include "amg.h"

#include <string.h>

#define AMG__MOST_INPUT 0x7fffffffu /* bytes looked at by one call: positions fit into 32 bits */

enum { /* opcodes */
    CONTINUATION,
    TEXT,
    BINARY,
    CLOSE = 8,
    PING,
    PONG,
    CONTROL = 8, /* this bit: of a control frame */
    OPCODE = 15
};
enum { MASKED = 0x80, LENGTH = 0x7f, LENGTH_16 = 126, LENGTH_64 = 127, MOST_CONTROL = 125 };

/* states of amg_ws */
enum { HEADER, PAYLOAD, OVER };

typedef struct { /* what amg_ws_read works on */
    amg_ws *codec;
    const amg_ws_limits *limits;
    const uint8_t *data;
    size_t n, position;
    uint8_t *out;
    amg_ws_record *record; /* the next one */
    int has_held;          /* a record of this call lies in codec->control */
} amg__input;

typedef struct {
    uint64_t length;
    size_t size; /* of the header itself */
    uint8_t first;
    const uint8_t *key;
} amg__header;

enum { MORE_NEEDED = 1000 }; /* beside AMG_WS_E_ */

static void amg__put(amg__input *input, uint32_t flags, size_t offset, size_t length) {
    input->record->flags = flags;
    input->record->offset = (uint32_t)offset;
    input->record->length = (uint32_t)length;
    input->record->error = 0;
}

static int amg__fail(amg__input *input, unsigned error, uint64_t value) {
    amg__put(input, AMG_WS_ERROR, (size_t)(value & 0xffffffffu), (size_t)(value >> 32));
    input->record->error = error;
    input->codec->state = OVER;
    return 1;
}

/* -- headers --------------------------------------------------------------------------------------------------------- */

/* Hold the first byte of a frame against what may come now; AMG_WS_E_ or 0. */
static unsigned amg__check_first(const amg_ws *codec, uint8_t first) {
    unsigned opcode = first & OPCODE;
    int begins = opcode == TEXT || opcode == BINARY;

    if (first & 0x30) return AMG_WS_E_RESERVED_BIT;
    if ((first & AMG_WS_RSV1) && !(codec->compressed && begins)) return AMG_WS_E_RESERVED_BIT;
    if ((opcode > BINARY && opcode < CLOSE) || opcode > PONG) return AMG_WS_E_OPCODE;
    if (opcode & CONTROL) return first & AMG_WS_FIN ? 0u : (unsigned)AMG_WS_E_CONTROL_FRAGMENTED;
    if (begins && codec->in_message) return AMG_WS_E_IN_MESSAGE;
    if (!begins && !codec->in_message) return AMG_WS_E_NO_MESSAGE;
    return 0;
}

/* Hold the header of a data frame against the limits; AMG_WS_E_ or 0. */
static unsigned amg__check_limits(const amg_ws *codec, const amg_ws_limits *limits, const amg__header *header,
                                  uint64_t *actual) {
    int continues = (header->first & OPCODE) == CONTINUATION;
    uint64_t before = continues ? codec->size : 0, fragments = continues ? (uint64_t)codec->fragments + 1 : 1;

    if (fragments > limits->max_fragments) return *actual = fragments, AMG_WS_E_FRAGMENTS;
    if (header->length > limits->max_frame) return *actual = header->length, AMG_WS_E_FRAME_SIZE;
    /* Both are below 2^63. */
    if (before + header->length > limits->max_message) return *actual = before + header->length, AMG_WS_E_MESSAGE_SIZE;
    return 0;
}

/* Read the header at data, of which n bytes have come, at least one; AMG_WS_E_, MORE_NEEDED or 0. Nothing is changed. */
static unsigned amg__read_header(const amg_ws *codec, const amg_ws_limits *limits, const uint8_t *data, size_t n,
                                 amg__header *header, uint64_t *actual) {
    unsigned error = amg__check_first(codec, data[0]), masked, i, wide;

    if (error) return error;
    if (n < 2) return MORE_NEEDED;
    masked = data[1] & MASKED;
    if (masked != (codec->role == AMG_SERVER ? MASKED : 0u)) return masked ? AMG_WS_E_MASKED : AMG_WS_E_UNMASKED;
    header->first = data[0];
    header->length = data[1] & LENGTH;
    header->size = 2;
    if (header->length > MOST_CONTROL) {
        if (header->first & CONTROL) return AMG_WS_E_CONTROL_SIZE;
        wide = header->length == LENGTH_64 ? 8 : 2;
        if (n < 2 + wide) return MORE_NEEDED;
        header->length = 0;
        for (i = 0; i < wide; i++) header->length = header->length << 8 | data[2 + i];
        if (header->length >> 63) return AMG_WS_E_LENGTH_SIZE;
        if (header->length < LENGTH_16 || (wide == 8 && header->length <= 0xffff)) return AMG_WS_E_LENGTH_FORM;
        header->size += wide;
    }
    if (!(header->first & CONTROL)) error = amg__check_limits(codec, limits, header, actual);
    if (error) return error;
    header->key = data + header->size;
    if (masked) header->size += 4;
    return n < header->size ? (unsigned)MORE_NEEDED : 0u;
}

/* The header has come: its payload is next. */
static void amg__begin_frame(amg_ws *codec, const amg__header *header) {
    unsigned opcode = header->first & OPCODE;

    codec->state = PAYLOAD;
    codec->first = header->first;
    codec->remaining = header->length;
    codec->turn = 0;
    if (codec->role == AMG_SERVER) memcpy(codec->key, header->key, sizeof codec->key);
    codec->held = 0;
    if (opcode & CONTROL) return;
    if (opcode != CONTINUATION) {
        codec->next = header->first & (AMG_WS_RSV1 | OPCODE);
        codec->is_text = codec->next == TEXT;
        codec->in_message = 1;
        codec->utf8 = AMG_UTF8_ACCEPT;
        codec->size = 0;
        codec->fragments = 0;
    }
    codec->size += header->length;
    codec->fragments++;
}

/* Read a header, with what of it came before. There is at least one byte of data.
 *
 * return    whether there is a record: an error */
static int amg__take_header(amg__input *input) {
    amg_ws *codec = input->codec;
    const uint8_t *data = input->data + input->position;
    size_t n = input->n - input->position, before = codec->held;
    uint64_t actual = 0;
    amg__header header;
    unsigned error;

    if (before) {
        if (n > sizeof codec->head - before) n = sizeof codec->head - before;
        memcpy(codec->head + before, data, n);
        data = codec->head;
        n += before;
    }
    error = amg__read_header(codec, input->limits, data, n, &header, &actual);
    if (error == MORE_NEEDED) {
        if (!before) memcpy(codec->head, data, n);
        codec->held = (uint8_t)n;
        input->position = input->n;
        return 0;
    }
    if (error) return amg__fail(input, error, actual);
    input->position += header.size - before;
    amg__begin_frame(codec, &header);
    return 0;
}

/* -- payloads -------------------------------------------------------------------------------------------------------- */

/* Unmask n bytes of data to out, which may be the same.
 *
 * return    not 0 when a byte of what has been written is not ASCII */
static int amg__unmask(amg_ws *codec, const uint8_t *data, size_t n, uint8_t *out) {
    uint64_t mask, words[4], seen = 0;
    uint8_t turned[8], byte, last = 0;
    size_t i;

    for (i = 0; i < sizeof turned; i++) turned[i] = codec->key[(codec->turn + i) & 3u];
    memcpy(&mask, turned, sizeof mask);
    for (i = 0; n - i >= sizeof words; i += sizeof words) {
        memcpy(words, data + i, sizeof words);
        words[0] ^= mask;
        words[1] ^= mask;
        words[2] ^= mask;
        words[3] ^= mask;
        seen |= words[0] | words[1] | words[2] | words[3];
        memcpy(out + i, words, sizeof words);
    }
    for (; n - i >= sizeof mask; i += sizeof mask) {
        memcpy(words, data + i, sizeof mask);
        words[0] ^= mask;
        seen |= words[0];
        memcpy(out + i, words, sizeof mask);
    }
    for (; i < n; i++) {
        byte = (uint8_t)(data[i] ^ turned[i & 7u]);
        last |= byte;
        out[i] = byte;
    }
    codec->turn = (uint8_t)((codec->turn + n) & 3u);
    return (seen & UINT64_C(0x8080808080808080)) || (last & 0x80);
}

/* Move the next n bytes of payload to out. An unmasked payload stays in data when out is NULL.
 *
 * is_ascii  set, when not NULL: there is no other byte among them; 0 when that is not known
 * return    where they are now */
static const uint8_t *amg__move(amg__input *input, size_t n, uint8_t *out, int *is_ascii) {
    const uint8_t *data = input->data + input->position;

    input->position += n;
    input->codec->remaining -= n;
    *is_ascii = 0;
    if (input->codec->role == AMG_SERVER) {
        *is_ascii = !amg__unmask(input->codec, data, n, out);
        return out;
    }
    if (!out) return data;
    if (out != data && n) memcpy(out, data, n);
    return out;
}

static uint8_t *amg__place(const amg__input *input) { return input->out ? input->out + input->position : NULL; }

/* Read what there is of a data frame's payload. */
static int amg__take_data(amg__input *input) {
    amg_ws *codec = input->codec;
    size_t offset = input->position, n = input->n - offset;
    uint32_t flags = codec->next;
    const uint8_t *payload;
    int is_ascii;

    if (n >= codec->remaining) {
        n = (size_t)codec->remaining;
        codec->state = HEADER;
        flags |= codec->first & AMG_WS_FIN ? AMG_WS_FIN : AMG_WS_END_OF_FRAME;
    } else if (!n) {
        return 0;
    }
    payload = amg__move(input, n, amg__place(input), &is_ascii);
    if (codec->is_text) {
        if (!is_ascii || codec->utf8 != AMG_UTF8_ACCEPT) codec->utf8 = amg_utf8(codec->utf8, payload, n);
        if (codec->utf8 == AMG_UTF8_REJECT || (codec->utf8 != AMG_UTF8_ACCEPT && (flags & AMG_WS_FIN))) {
            return amg__fail(input, AMG_WS_E_UTF8, 0);
        }
    }
    codec->next = CONTINUATION;
    if (flags & AMG_WS_FIN) codec->in_message = 0;
    amg__put(input, flags, offset, n);
    return 1;
}

/* May a close frame carry this code (RFC 6455 section 7.4, and the registry)? */
static int amg__is_close_code(unsigned code) {
    return (code >= 3000 && code <= 4999) || (code >= 1000 && code <= 1014 && (code < 1004 || code > 1006));
}

/* Hold the payload of a close frame against RFC 6455 section 5.5.1; AMG_WS_E_ or 0. */
static unsigned amg__check_close(const uint8_t *payload, size_t n, uint64_t *value) {
    if (!n) return 0;
    if (n == 1) return AMG_WS_E_CLOSE_SIZE;
    *value = (uint64_t)(payload[0] << 8 | payload[1]);
    if (!amg__is_close_code((unsigned)*value)) return AMG_WS_E_CLOSE_CODE;
    return amg_utf8(AMG_UTF8_ACCEPT, payload + 2, n - 2) == AMG_UTF8_ACCEPT ? 0u : (unsigned)AMG_WS_E_CLOSE_UTF8;
}

/* Read a control frame's payload: what comes in pieces is put together in the codec.
 *
 * return    whether there is a record, or that the codec's place is taken */
static int amg__take_control(amg__input *input, int *is_blocked) {
    amg_ws *codec = input->codec;
    size_t offset = input->position, n = input->n - offset, length;
    uint8_t *out = amg__place(input);
    uint32_t flags = codec->first;
    const uint8_t *payload;
    unsigned error = 0;
    uint64_t value = 0;
    int ignored;

    if (codec->held || n < codec->remaining) {
        if (input->has_held) {
            *is_blocked = n > 0;
            return 0;
        }
        if (n > codec->remaining) n = (size_t)codec->remaining;
        (void)amg__move(input, n, codec->control + codec->held, &ignored);
        codec->held = (uint8_t)(codec->held + n);
        if (codec->remaining) return 0;
        payload = codec->control;
        length = codec->held;
        codec->held = 0;
        input->has_held = 1;
        flags |= AMG_WS_HELD;
        offset = 0;
    } else {
        length = (size_t)codec->remaining;
        payload = amg__move(input, length, out, &ignored);
    }
    codec->state = HEADER;
    if ((flags & OPCODE) == CLOSE) {
        error = amg__check_close(payload, length, &value);
        if (error) return amg__fail(input, error, value);
        codec->state = OVER;
    }
    amg__put(input, flags, offset, length);
    return 1;
}

/* -- the API --------------------------------------------------------------------------------------------------------- */

void amg_ws_init(amg_ws *codec, uint8_t role, uint8_t compressed) {
    memset(codec, 0, sizeof *codec);
    codec->role = role;
    codec->compressed = compressed;
}

size_t amg_ws_read(amg_ws *codec, const amg_ws_limits *limits, const uint8_t *data, size_t n, uint8_t *out,
                   amg_ws_record *records, size_t max, size_t *consumed) {
    static const uint8_t nothing = 0;
    amg__input input;
    size_t count = 0;
    int is_blocked = 0;

    input.codec = codec;
    input.limits = limits;
    input.data = n ? data : &nothing;
    input.n = n > AMG__MOST_INPUT ? AMG__MOST_INPUT : n;
    input.position = 0;
    input.out = out;
    input.has_held = 0;
    while (count < max && codec->state != OVER) {
        int has_record = 0;
        input.record = &records[count];
        if (codec->state == HEADER) {
            if (input.position == input.n) break;
            has_record = amg__take_header(&input);
        }
        if (codec->state == PAYLOAD) {
            has_record = codec->first & CONTROL ? amg__take_control(&input, &is_blocked) : amg__take_data(&input);
            if (!has_record && (is_blocked || input.position == input.n)) break;
        }
        count += has_record ? 1u : 0u;
    }
    *consumed = codec->state == OVER ? n : input.position;
    return count;
}

size_t amg_ws_read_call(amg_ws_call *call, const uint8_t *data, size_t n) {
    amg_ws *codec = (amg_ws *)(uintptr_t)call->codec;
    amg_ws_record *records = (amg_ws_record *)(uintptr_t)call->records;
    size_t consumed, count;

    count = amg_ws_read(codec, (const amg_ws_limits *)(uintptr_t)call->limits, data, n,
                        (uint8_t *)(uintptr_t)call->out, records, (size_t)call->max, &consumed);
    call->consumed = consumed;
    if (codec->state == HEADER && !codec->held && !codec->in_message && consumed == n &&
        !(count && (records[0].flags & AMG_WS_HELD))) {
        return count;
    }
    return count | AMG_WS_UNSETTLED;
}
