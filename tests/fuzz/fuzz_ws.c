/* A libFuzzer target for amg_ws.c, which holds its laws without an oracle:
 *
 * - offsets and lengths lie inside the data; all is consumed, but when the records are full or one is AMG_WS_HELD;
 * - pieces come in an order that makes messages, inside the limits, and text is UTF-8;
 * - frames are the same wherever the input is cut, with out == data, with room for one record only, and through
 *   amg_ws_read_call(), which tells truly when a new codec could go on;
 * - a call without data says nothing and changes nothing;
 * - an error and a close frame are final.
 *
 * Two bytes of the input choose role, compression, limits and where to cut. Buffers have their exact size on the heap.
 *
 *     clang -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -Iasyncmg/core \
 *         tests/fuzz/fuzz_ws.c asyncmg/core/amg_ws.c asyncmg/core/amg_util.c -o /tmp/fuzz_ws && /tmp/fuzz_ws corpus
 */
#include "amg.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LAW(condition)                                                          \
    do {                                                                        \
        if (!(condition)) {                                                     \
            fprintf(stderr, "law broken, line %d: %s\n", __LINE__, #condition); \
            abort();                                                            \
        }                                                                       \
    } while (0)

enum { MAX_RECORDS = 16, MAX_CUTS = 40 };

static const amg_ws_limits usual = {1 << 20, 1 << 20, 16384, 0};
static const amg_ws_limits tight = {20, 50, 4, 0};
static const amg_ws_limits wide = {INT64_MAX, INT64_MAX, UINT32_MAX, 0};

typedef struct {
    const amg_ws_limits *limits;
    uint8_t role, compressed;
    int in_place, through_call;
    size_t room;
} how;

typedef struct { /* what a run has seen; pieces of a frame are one */
    uint64_t hash;  /* of whole frames */
    uint64_t part;  /* of them, and of what there is of the next one */
    unsigned frames, error, is_over;
    uint64_t value; /* of the error */
    uint64_t size, in_frame;
    uint32_t fragments;
    unsigned in_message, is_text, needs; /* needs: tails of the character */
    uint8_t least, most; /* what the next tail may be */
} trace;

static void mix(trace *seen, uint64_t value) { seen->part = (seen->part ^ value) * UINT64_C(0x100000001b3) + 1; }

/* RFC 3629 section 4, byte by byte. */
static void check_text(trace *seen, uint8_t byte) {
    if (seen->needs) {
        LAW(byte >= seen->least && byte <= seen->most);
        seen->needs--;
        seen->least = 0x80, seen->most = 0xbf;
    } else if (byte >= 0x80) {
        LAW(byte >= 0xc2 && byte <= 0xf4);
        seen->needs = byte < 0xe0 ? 1 : byte < 0xf0 ? 2 : 3;
        seen->least = byte == 0xe0 ? 0xa0 : byte == 0xf0 ? 0x90 : 0x80;
        seen->most = byte == 0xed ? 0x9f : byte == 0xf4 ? 0x8f : 0xbf;
    }
}

static void note(trace *seen, const how *way, const amg_ws_record *record, const uint8_t *payload) {
    uint32_t flags = record->flags & ~AMG_WS_HELD, opcode = flags & 15u;
    uint32_t ends = flags & (AMG_WS_FIN | AMG_WS_END_OF_FRAME);
    size_t i;

    LAW(!seen->is_over && record->error == 0 && flags < 0x100);
    if (opcode >= 8) {
        LAW(opcode <= 10 && flags == (AMG_WS_FIN | opcode) && record->length <= 125 && !seen->in_frame);
        seen->is_over = opcode == 8;
    } else {
        LAW(ends != (AMG_WS_FIN | AMG_WS_END_OF_FRAME));
        LAW(record->length || ends);
        LAW(!(record->flags & AMG_WS_HELD));
        if (!seen->in_message) {
            LAW(opcode == 1 || opcode == 2);
            LAW(!(flags & AMG_WS_RSV1) || way->compressed);
            seen->in_message = 1;
            seen->is_text = opcode == 1 && !(flags & AMG_WS_RSV1);
            seen->size = seen->fragments = seen->needs = 0;
        } else {
            LAW(!opcode && !(flags & AMG_WS_RSV1));
        }
        seen->size += record->length;
        LAW(seen->size <= way->limits->max_message);
        if (!seen->in_frame) LAW(++seen->fragments <= way->limits->max_fragments);
    }
    if (!seen->in_frame) mix(seen, 256u + (opcode | (flags & AMG_WS_RSV1)));
    for (i = 0; i < record->length; i++) {
        mix(seen, payload[i]);
        if (opcode < 8 && seen->is_text) check_text(seen, payload[i]);
    }
    if (opcode < 8) {
        seen->in_frame += record->length;
        LAW(seen->in_frame <= way->limits->max_frame);
        if (!seen->in_frame && !ends) abort();
    }
    if (!ends) return;
    mix(seen, 512u + ends);
    if (opcode < 8) {
        seen->in_frame = 0;
        if (flags & AMG_WS_FIN) {
            LAW(!seen->needs || !seen->is_text);
            seen->in_message = 0;
        }
    }
    seen->frames++;
    seen->hash = seen->part;
}

/* A copy that ends where its memory ends. */
static uint8_t *exact(const uint8_t *data, size_t n) {
    uint8_t *copy = malloc(n ? n : 1);
    LAW(copy != NULL);
    if (n) memcpy(copy, data, n);
    return copy;
}

/* Let a codec read once; return how much it consumed. */
static size_t feed(amg_ws *codec, const how *way, const uint8_t *data, size_t n, trace *seen) {
    uint8_t *input = exact(data, n), *out = way->in_place ? input : exact(data, n);
    amg_ws_record records[MAX_RECORDS];
    size_t count, used = 0, i;
    uint32_t settled = 0;

    if (way->through_call) {
        amg_ws_call call;
        call.codec = (uintptr_t)codec;
        call.limits = (uintptr_t)way->limits;
        call.out = (uintptr_t)out;
        call.records = (uintptr_t)records;
        call.max = way->room;
        count = amg_ws_read_call(&call, n ? input : NULL, n);
        used = (size_t)call.consumed;
        settled = !(count & AMG_WS_UNSETTLED);
        count &= ~(size_t)AMG_WS_UNSETTLED;
    } else {
        count = amg_ws_read(codec, way->limits, n ? input : NULL, n, out, records, way->room, &used);
    }
    LAW(count <= way->room && used <= n);
    LAW(used == n || count == way->room || (count && (records[0].flags & AMG_WS_HELD)));
    for (i = 0; i < count; i++) {
        LAW(!seen->error && !seen->is_over);
        if (records[i].flags & AMG_WS_ERROR) {
            LAW(records[i].flags == AMG_WS_ERROR && !settled);
            LAW(records[i].error >= AMG_WS_E_RESERVED_BIT && records[i].error <= AMG_WS_E_CLOSE_UTF8);
            seen->error = records[i].error;
            seen->value = (uint64_t)records[i].length << 32 | records[i].offset;
            LAW(used == n);
        } else if (records[i].flags & AMG_WS_HELD) {
            LAW(i == 0 && !settled && records[i].offset == 0);
            note(seen, way, &records[i], codec->control);
        } else {
            LAW((size_t)records[i].offset + records[i].length <= used);
            note(seen, way, &records[i], out + records[i].offset);
        }
    }
    if (settled) {
        LAW(!seen->in_message && !seen->is_over && used == n);
        amg_ws_init(codec, way->role, way->compressed);
    }
    if (out != input) free(out);
    free(input);
    return used;
}

static trace run(const how *way, const uint8_t *data, size_t n, const size_t *cuts, size_t pieces) {
    trace seen;
    size_t from = 0, i;
    amg_ws codec;

    memset(&seen, 0, sizeof seen);
    amg_ws_init(&codec, way->role, way->compressed);
    for (i = 0; i <= pieces; i++) {
        size_t to = i < pieces ? cuts[i] : n;
        while (from < to) from += feed(&codec, way, data + from, to - from, &seen);
    }
    if (!seen.error && !seen.is_over) {
        amg_ws before = codec;
        trace same = seen;
        (void)feed(&codec, way, NULL, 0, &seen);
        LAW(memcmp(&same, &seen, sizeof seen) == 0);
        LAW(way->through_call || memcmp(&before, &codec, sizeof before) == 0);
    } else {
        amg_ws_record record;
        size_t used = 0;
        uint8_t *again = exact(data, n);
        LAW(amg_ws_read(&codec, way->limits, again, n, again, &record, 1, &used) == 0 && used == n);
        free(again);
    }
    return seen;
}

static void agree(const trace *one, const trace *other) {
    LAW(one->frames == other->frames && one->hash == other->hash);
    LAW(one->error == other->error && one->value == other->value && one->is_over == other->is_over);
    /* What there is of a frame whose text is invalid depends on how it came. */
    LAW(one->error == AMG_WS_E_UTF8 || (one->part == other->part && one->size == other->size));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    size_t cuts[MAX_CUTS], pieces = 0, i;
    trace once, other;
    how way;

    if (n < 2) return 0;
    way.role = (data[0] & 1) ? AMG_CLIENT : AMG_SERVER;
    way.compressed = (data[0] & 2) != 0;
    way.limits = (data[0] & 4) ? &tight : (data[0] & 8) ? &wide : &usual;
    way.in_place = way.through_call = 0;
    way.room = MAX_RECORDS;
    i = (size_t)(data[1] >> 3) * (n - 2) / 32;
    for (; i < n - 2 && pieces < MAX_CUTS; i += 1 + (data[1] & 7u)) cuts[pieces++] = i;
    data += 2;
    n -= 2;

    once = run(&way, data, n, cuts, 0);
    other = run(&way, data, n, cuts, pieces);
    agree(&once, &other);
    way.in_place = 1;
    way.room = 1;
    other = run(&way, data, n, cuts, pieces / 2);
    agree(&once, &other);
    way.room = 3;
    way.through_call = 1;
    other = run(&way, data, n, cuts, pieces);
    agree(&once, &other);
    return 0;
}
