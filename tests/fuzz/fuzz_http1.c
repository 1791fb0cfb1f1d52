/* A libFuzzer target for amg_http1.c, which holds its laws without an oracle:
 *
 * - offsets and lengths lie inside the data, and no more is consumed than there is;
 * - records and contents are the same wherever the input is cut, and with scratch == data;
 * - a call that could say no more without more data says nothing when it is made again;
 * - what is held while a head, chunk line or trailer section is incomplete is within the limits;
 * - amg_http1_whole() agrees with amg_http1_read();
 * - an error is final.
 *
 * Two bytes of the input choose role, limits, end of input and where to cut. Buffers have their exact size on the heap.
 *
 *     clang -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -Iasyncmg/core \
 *         tests/fuzz/fuzz_http1.c asyncmg/core/amg_http1.c -o /tmp/fuzz_http1 && /tmp/fuzz_http1 -max_len=600 corpus
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

enum { MAX_RECORDS = 5, MAX_CUTS = 12 };

static const amg_http1_limits usual = {8190, 8192, 32768, 100, 4096, 16384, 16384, 0};
static const amg_http1_limits tight = {40, 60, 120, 5, 16, 24, 50, 0};

typedef struct {
    const amg_http1_limits *limits;
    uint8_t role;
    int eof, joins_in_place;
    unsigned answers; /* two bits for each response */
} how;

typedef struct { /* what a run has seen; contents of adjacent records are one */
    uint64_t hash;
    uint64_t content;
    unsigned records, failed;
    unsigned switched; /* perhaps: what follows belongs to another protocol */
} trace;

static void mix(trace *seen, uint64_t value) { seen->hash = (seen->hash ^ value) * UINT64_C(0x100000001b3) + 1; }

static void mix_bytes(trace *seen, const uint8_t *data, size_t n) {
    size_t i;
    for (i = 0; i < n; i++) mix(seen, data[i]);
}

/* A copy that ends where its memory ends. */
static uint8_t *exact(const uint8_t *data, size_t n) {
    uint8_t *copy = malloc(n ? n : 1);
    LAW(copy != NULL);
    if (n) memcpy(copy, data, n);
    return copy;
}

static void note(trace *seen, const amg_http1_record *record, const uint8_t *data, const uint8_t *scratch, size_t n) {
    size_t end = (size_t)record->offset + record->length;

    LAW(record->kind >= AMG_HTTP1_REQUEST && record->kind <= AMG_HTTP1_ERROR);
    if (record->kind == AMG_HTTP1_ERROR) {
        LAW(record->error >= AMG_E_MISPLACED && record->error <= AMG_E_EOF_IN_CONTENT);
        seen->failed = 1;
        return;
    }
    LAW(end <= n);
    if (record->kind == AMG_HTTP1_CONTENT) {
        LAW(record->length > 0);
        LAW(record->method_length <= n);
        seen->content += record->length;
        mix_bytes(seen, ((record->flags & AMG_HTTP_SCRATCH) ? scratch : data) + record->offset, record->length);
        return;
    }
    seen->records++;
    mix(seen, 256u + record->kind);
    mix(seen, record->framing);
    mix(seen, record->flags);
    mix(seen, record->status);
    mix(seen, record->content_length);
    mix(seen, seen->content);
    if (record->kind == AMG_HTTP1_END) {
        LAW(record->method_length <= n && (!record->length || end <= record->method_length));
    } else {
        LAW(record->length >= 4 && memcmp(data + end - 4, "\r\n\r\n", 4) == 0);
        LAW((size_t)record->method_length + record->target_length < record->length);
        mix(seen, record->method_length);
        mix(seen, record->target_length);
    }
    mix_bytes(seen, data + record->offset, record->length);
}

/* May the core have stopped behind this record? */
static int pauses(const amg_http1_record *record, const uint8_t *data) {
    if (record->kind == AMG_HTTP1_END) return 1;
    return record->kind == AMG_HTTP1_REQUEST && ((record->flags & AMG_HTTP_UPGRADE) ||
                                                 memcmp(data + record->offset, "CONNECT ", 8) == 0);
}

/* Let a codec read; what it leaves is put into *rest, for the caller to free. */
static size_t feed(amg_http1 *codec, const how *way, const uint8_t *data, size_t n, int eof, unsigned *answers,
                   trace *seen, uint8_t **rest) {
    uint8_t *input = exact(data, n), *scratch = way->joins_in_place ? input : exact(data, n);
    amg_http1_record records[MAX_RECORDS];
    size_t count, used, i, left = n;
    int again = 1;

    while (again && !seen->failed) {
        uint8_t *kept;
        codec->answers = (uint8_t)(*answers & 3u);
        count = amg_http1_read(codec, way->limits, left ? input : NULL, left, eof, scratch, records, MAX_RECORDS,
                               &used);
        LAW(count <= MAX_RECORDS && used <= left);
        for (i = 0; i < count; i++) {
            LAW(!seen->failed);
            if (records[i].status == 101 || codec->answers == AMG_ANSWERS_CONNECT) seen->switched = 1;
            note(seen, &records[i], input, scratch, left);
            if (records[i].kind == AMG_HTTP1_END && codec->role == AMG_CLIENT) *answers >>= 2;
        }
        again = count == MAX_RECORDS || (count && pauses(&records[count - 1], input));
        kept = exact(input + used, left - used);
        left -= used;
        if (scratch != input) free(scratch);
        free(input);
        input = kept;
        scratch = way->joins_in_place ? input : exact(input, left);
    }
    if (!seen->failed) {
        amg_http1 before = *codec;
        before.answers = codec->answers = (uint8_t)(*answers & 3u);
        count = amg_http1_read(codec, way->limits, left ? input : NULL, left, eof, scratch, records, MAX_RECORDS,
                               &used);
        LAW(count == 0 && used == 0 && memcmp(&before, codec, sizeof before) == 0);
    }
    if (scratch != input) free(scratch);
    *rest = input;
    return left;
}

static trace run(const how *way, const uint8_t *data, size_t n, const size_t *cuts, size_t pieces) {
    trace seen = {UINT64_C(0xcbf29ce484222325), 0, 0, 0, 0};
    unsigned answers = way->answers;
    uint8_t *held = exact(NULL, 0), *rest;
    size_t size = 0, from = 0, i, used;
    amg_http1 codec;

    amg_http1_init(&codec, way->role);
    for (i = 0; i <= pieces && !seen.failed; i++) {
        size_t to = i < pieces ? cuts[i] : n;
        held = realloc(held, size + (to - from) + 1);
        LAW(held != NULL);
        memcpy(held + size, data + from, to - from);
        size = feed(&codec, way, held, size + (to - from), i == pieces && way->eof, &answers, &seen, &rest);
        free(held);
        held = rest;
        from = to;
        /* A head may be the longest of what is held while it is incomplete. */
        LAW(seen.switched || seen.failed || way->eof ||
            size <= (size_t)way->limits->max_request_line + way->limits->max_header_size + 4);
    }
    mix(&seen, seen.content);
    if (seen.failed) {
        amg_http1_record record[4];
        LAW(amg_http1_read(&codec, way->limits, data, n, 0, held, record, 4, &used) == 0);
        LAW(used == n);
    }
    free(held);
    return seen;
}

static void check_whole(const amg_http1_limits *limits, const uint8_t *data, size_t n) {
    amg_http1_record whole, records[4];
    uint8_t *input = exact(data, n), *scratch = exact(data, n);
    size_t size, count, used;
    amg_http1 codec;

    memset(&whole, 0, sizeof whole);
    size = amg_http1_whole(limits, n ? input : NULL, n, &whole);
    LAW(size <= n);
    if (size) {
        amg_http1_init(&codec, AMG_SERVER);
        count = amg_http1_read(&codec, limits, input, size, 0, scratch, records, 4, &used);
        LAW(used == size);
        LAW(memcmp(&whole, &records[0], sizeof whole) == 0);
        LAW(whole.framing == AMG_FRAMING_NONE || whole.framing == AMG_FRAMING_LENGTH);
        LAW(size == whole.length + whole.content_length);
        LAW(count == (whole.framing == AMG_FRAMING_NONE ? 2 : 3));
        LAW(records[count - 1].kind == AMG_HTTP1_END && records[count - 1].method_length == size);
        if (count == 3) {
            LAW(records[1].kind == AMG_HTTP1_CONTENT && records[1].offset == whole.length);
            LAW(records[1].length == whole.content_length && records[1].method_length == size);
        }
    }
    free(input);
    free(scratch);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    how way;
    trace once, cut, in_place;
    size_t cuts[MAX_CUTS], pieces = 0, i;

    if (n < 2) return 0;
    way.role = (data[0] & 1) ? AMG_CLIENT : AMG_SERVER;
    way.limits = (data[0] & 2) ? &tight : &usual;
    way.eof = (data[0] & 4) != 0;
    way.joins_in_place = 0;
    way.answers = (data[0] >> 3) * 0x249u | 0x55550000u; /* NOTHING comes too */
    i = (size_t)(data[1] >> 3) * (n - 2) / 32;
    for (; i < n - 2 && pieces < MAX_CUTS; i += 1 + (data[1] & 7u)) cuts[pieces++] = i;
    data += 2;
    n -= 2;

    once = run(&way, data, n, cuts, 0);
    cut = run(&way, data, n, cuts, pieces);
    way.joins_in_place = 1;
    in_place = run(&way, data, n, cuts, pieces / 2);
    LAW(once.records == cut.records && once.content == cut.content && once.hash == cut.hash);
    LAW(once.records == in_place.records && once.content == in_place.content && once.hash == in_place.hash);
    LAW(once.failed == cut.failed && once.failed == in_place.failed);
    if (way.role == AMG_SERVER) check_whole(way.limits, data, n);
    return 0;
}
