/* A C program that uses amg.h with no Python in sight. Buffers have their exact size on the heap, so that the address
 * sanitizer sees one byte too many. Prints what was checked; exit code 1 at the first difference. */
#include "amg.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                            \
    do {                                                                            \
        if (!(condition)) {                                                         \
            fprintf(stderr, "line %d: %s is false\n", __LINE__, #condition);        \
            exit(1);                                                                \
        }                                                                           \
        checks++;                                                                   \
    } while (0)

static unsigned long checks;

static void check_mask(void) {
    static const uint8_t key[4] = {0x37, 0xfa, 0x21, 0x3d};
    size_t n, shift, offset, i;

    amg_mask(NULL, 0, key, 3);
    for (n = 1; n < 40; n++) {
        for (shift = 0; shift < 8; shift++) {
            for (offset = 0; offset < 5; offset++) {
                uint8_t *block = malloc(shift + n);
                CHECK(block != NULL);
                memset(block, 0x5a, shift + n);
                amg_mask(block + shift, n, key, offset);
                for (i = 0; i < shift; i++) CHECK(block[i] == 0x5a);
                for (i = 0; i < n; i++) CHECK(block[shift + i] == (0x5a ^ key[(offset + i) % 4]));
                free(block);
            }
        }
    }
}

/* The code point that n bytes stand for, decoded the long way; -1 when they are not one character. */
static long decode(const uint8_t *b, size_t n) {
    static const long smallest[] = {0, 0x80, 0x800, 0x10000};
    long point;
    size_t length, i;

    if (b[0] < 0x80) length = 1, point = b[0];
    else if ((b[0] & 0xe0) == 0xc0) length = 2, point = b[0] & 0x1f;
    else if ((b[0] & 0xf0) == 0xe0) length = 3, point = b[0] & 0x0f;
    else if ((b[0] & 0xf8) == 0xf0) length = 4, point = b[0] & 0x07;
    else return -1;
    if (length != n) return -1;
    for (i = 1; i < n; i++) {
        if ((b[i] & 0xc0) != 0x80) return -1;
        point = point * 64 + (b[i] & 0x3f);
    }
    if (point < smallest[length - 1] || point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff)) return -1;
    return point;
}

static void check_utf8(void) {
    uint32_t a, b, c, whole, pieces;
    size_t i;

    CHECK(amg_utf8(AMG_UTF8_ACCEPT, NULL, 0) == AMG_UTF8_ACCEPT);
    CHECK(amg_utf8(12345u, (const uint8_t *)"x", 1) == AMG_UTF8_REJECT);
    for (a = 0xc0; a < 0x100; a++) {
        for (b = 0; b < 0x100; b++) {
            for (c = 0x7f; c < 0xc1; c++) {
                uint8_t text[4];
                size_t n = a < 0xe0 ? 2 : a < 0xf0 ? 3 : 4;
                uint8_t *exact = malloc(n);
                CHECK(exact != NULL);
                text[0] = (uint8_t)a, text[1] = (uint8_t)b, text[2] = (uint8_t)c, text[3] = 0x80;
                memcpy(exact, text, n);
                whole = amg_utf8(AMG_UTF8_ACCEPT, exact, n);
                for (i = 0, pieces = AMG_UTF8_ACCEPT; i < n; i++) pieces = amg_utf8(pieces, exact + i, 1);
                CHECK(whole == pieces);
                CHECK((whole == AMG_UTF8_ACCEPT) == (decode(exact, n) >= 0));
                free(exact);
            }
        }
    }
}

/* -- HTTP/1.1 -- */

static const amg_http1_limits limits = {8190, 8192, 32768, 100, 4096, 16384, 16384, 0};

enum { MOST_RECORDS = 8 };

typedef struct { /* what came out of a codec */
    char text[4096]; /* a letter for each record, contents in parentheses */
    size_t length;
    unsigned status; /* of the error */
} story;

static void tell(story *told, const void *text, size_t n) {
    CHECK(told->length + n < sizeof told->text);
    memcpy(told->text + told->length, text, n);
    told->length += n;
    told->text[told->length] = 0;
}

/* Feed text in pieces of `step` bytes; each call sees a buffer of exactly its size. in_place: scratch is data. */
static story read_all(uint8_t role, uint8_t answers, const char *text, size_t n, size_t step, int eof, int in_place) {
    static const char letters[] = "?QR?.!";
    story told = {"", 0, 0};
    uint8_t *held = NULL;
    size_t size = 0, from, to, i;
    amg_http1 codec;

    amg_http1_init(&codec, role);
    codec.answers = answers;
    for (from = 0; from < n || !from; from = to) {
        int again = 1;
        to = from + step < n ? from + step : n;
        held = realloc(held, size + to - from + (size + to == from));
        CHECK(held != NULL);
        memcpy(held + size, text + from, to - from);
        size += to - from;
        while (again) {
            amg_http1_record records[MOST_RECORDS];
            uint8_t *scratch = in_place ? held : malloc(size + !size), *kept;
            size_t used = 99999, count;
            CHECK(scratch != NULL);
            count = amg_http1_read(&codec, &limits, size ? held : NULL, size, eof && to == n, scratch, records,
                                   MOST_RECORDS, &used);
            CHECK(count <= MOST_RECORDS && used <= size);
            for (i = 0; i < count; i++) {
                const amg_http1_record *record = &records[i];
                if (record->kind == AMG_HTTP1_CONTENT) {
                    const uint8_t *place = record->flags & AMG_HTTP_SCRATCH ? scratch : held;
                    CHECK((size_t)record->offset + record->length <= size && record->length);
                    tell(&told, place + record->offset, record->length);
                } else {
                    tell(&told, &letters[record->kind], 1);
                    if (record->kind == AMG_HTTP1_ERROR) told.status = record->status;
                    if (record->kind == AMG_HTTP1_END) tell(&told, held + record->offset, record->length);
                }
            }
            again = count == MOST_RECORDS || (count && records[count - 1].kind != AMG_HTTP1_ERROR);
            if (!in_place) free(scratch);
            size -= used;
            kept = malloc(size + !size);
            CHECK(kept != NULL);
            memcpy(kept, held + used, size);
            free(held);
            held = kept;
        }
        if (to == n) break;
    }
    free(held);
    return told;
}

static void check_http_messages(void) {
    static const struct {
        uint8_t role, answers;
        int eof;
        const char *text, *told;
        unsigned status;
    } cases[] = {
        {AMG_SERVER, 0, 0, "", "", 0},
        {AMG_SERVER, 0, 1, "", "", 0},
        {AMG_SERVER, 0, 0, "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.0\r\n\r\n", "Q.Q.", 0},
        {AMG_SERVER, 0, 0, "\r\n\r\n\r\n\r\n", "!", 400},
        {AMG_SERVER, 0, 0, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloPUT", "Qhello.", 0},
        {AMG_SERVER, 0, 1, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhell", "Qhell!", 400},
        {AMG_SERVER, 0, 0,
         "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
         "5;x\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n0\r\nT: u\r\n\r\n",
         "Qhello world.T: u", 0},
        {AMG_SERVER, 0, 0, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc", "Qab!", 400},
        {AMG_SERVER, 0, 0, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{", "Q", 0},
        {AMG_SERVER, 0, 0, "GET / HTTP/1.1\r\nHost: [1::2::3]\r\n\r\n", "!", 400},
        {AMG_SERVER, 0, 0, "GET / HTTP/1.1\r\nHost: [::1.2.3.4]:8\r\n\r\n", "Q.", 0},
        {AMG_SERVER, 0, 0, "GET / HTTP/3.1\r\n\r\n", "!", 505},
        {AMG_SERVER, 0, 0, "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x\r\n\r\n", "!", 501},
        {AMG_SERVER, 0, 0, "GET / HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n", "!", 417},
        {AMG_SERVER, 0, 0, "GET / HTTP/1.1\nHost: a\r\n\r\n", "!", 400},
        {AMG_SERVER, 0, 1, "GET / HT", "!", 400},
        {AMG_SERVER, 0, 0, "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", "Q.", 0},
        {AMG_CLIENT, AMG_ANSWERS_NOTHING, 0, "HTTP/1.1 200 OK\r\n\r\n", "!", 400},
        {AMG_CLIENT, AMG_ANSWERS_OTHER, 1, "HTTP/1.1 200 OK\r\n\r\nhello", "Rhello.", 0},
        {AMG_CLIENT, AMG_ANSWERS_OTHER, 0, "HTTP/1.1 100 \r\n\r\nHTTP/1.1 204\r\n\r\n", "RR.", 0},
        {AMG_CLIENT, AMG_ANSWERS_HEAD, 0, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "R.", 0},
        {AMG_CLIENT, AMG_ANSWERS_CONNECT, 0, "HTTP/1.1 200 OK\r\n\r\nanything", "R", 0},
        {AMG_CLIENT, AMG_ANSWERS_OTHER, 0, "HTTP/1.1 101 \r\n\r\nanything", "R", 0},
    };
    size_t i, step;

    for (i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        size_t n = strlen(cases[i].text);
        for (step = 1; step <= n + 1; step++) {
            int in_place;
            for (in_place = 0; in_place < 2; in_place++) {
                story told = read_all(cases[i].role, cases[i].answers, cases[i].text, n, step, cases[i].eof, in_place);
                CHECK(strcmp(told.text, cases[i].told) == 0);
                CHECK(told.status == cases[i].status);
            }
        }
    }
}

/* Every prefix of a request, and the request with every byte changed to every other: nothing is read beyond its end. */
static void check_http_damage(void) {
    static const char text[] = "POST http://[::1]:8/a HTTP/1.1\r\nHost: [fe80::1.2.3.4%25z]:80\r\n"
                               "Connection: close, Upgrade\r\nExpect: 100-continue\r\n"
                               "Content-Length: 2\r\n\r\nab";
    const size_t n = sizeof text - 1;
    amg_http1_record record, records[MOST_RECORDS];
    size_t i, whole, used, count;
    unsigned byte;

    for (i = 0; i <= n; i++) {
        for (byte = 0; byte < 256; byte++) {
            size_t size = byte ? n : i; /* byte 0: the prefix */
            uint8_t *exact = malloc(size + !size), *scratch = malloc(size + !size);
            amg_http1 codec;
            CHECK(exact != NULL && scratch != NULL);
            memcpy(exact, text, size);
            if (byte && i < n) exact[i] = (uint8_t)byte;
            whole = amg_http1_whole(&limits, exact, size, &record);
            CHECK(whole <= size);
            amg_http1_init(&codec, AMG_SERVER);
            count = amg_http1_read(&codec, &limits, exact, size, 0, scratch, records, MOST_RECORDS, &used);
            CHECK(count < MOST_RECORDS && used <= size);
            free(exact);
            free(scratch);
        }
    }
}

/* -- WebSocket -- */

static const amg_ws_limits ws_limits = {40, 60, 4, 0};

/* Feed n bytes in pieces of `step`, each call with room for `room` records and a buffer of exactly its size; tell the
 * frames: a letter for each opcode (a capital one: FIN), '|' at the end of a fragment, payloads; '!' and the error. */
static story ws_read_all(uint8_t role, uint8_t compressed, const uint8_t *frames, size_t n, size_t step, size_t room,
                         int in_place) {
    static const char letters[] = "ctb?????xpq";
    story told = {"", 0, 0};
    amg_ws_record records[MOST_RECORDS];
    size_t from, to, i;
    int in_message = 0;
    amg_ws codec;

    amg_ws_init(&codec, role, compressed);
    for (from = 0; from < n; from = to) {
        uint8_t *data, *out;
        size_t used = 99999, count, size;
        to = from + step < n ? from + step : n;
        size = to - from;
        data = malloc(size);
        out = in_place ? data : malloc(size);
        CHECK(data != NULL && out != NULL);
        memcpy(data, frames + from, size);
        count = amg_ws_read(&codec, &ws_limits, data, size, out, records, room, &used);
        CHECK(count <= room && used <= size);
        CHECK(used == size || count == room || (count && (records[0].flags & AMG_WS_HELD)));
        for (i = 0; i < count; i++) {
            const amg_ws_record *record = &records[i];
            uint32_t opcode = record->flags & 15u;
            char mark[8];
            CHECK(!told.status);
            if (record->flags & AMG_WS_ERROR) {
                tell(&told, "!", 1);
                told.status = record->error;
                continue;
            }
            CHECK(record->error == 0);
            CHECK(record->length || (record->flags & (AMG_WS_FIN | AMG_WS_END_OF_FRAME)));
            CHECK(!(record->flags & AMG_WS_HELD) || (!i && opcode >= 8 && record->length <= sizeof codec.control));
            if (!in_message || opcode) {
                sprintf(mark, "%s%c", record->flags & AMG_WS_RSV1 ? "z" : "", letters[opcode]);
                tell(&told, mark, strlen(mark));
            }
            if (record->flags & AMG_WS_HELD) {
                tell(&told, codec.control, record->length);
            } else {
                CHECK((size_t)record->offset + record->length <= used);
                tell(&told, out + record->offset, record->length);
            }
            if (record->flags & AMG_WS_END_OF_FRAME) tell(&told, "|", 1);
            if (record->flags & AMG_WS_FIN) tell(&told, ".", 1);
            if (opcode < 8) in_message = !(record->flags & AMG_WS_FIN);
        }
        if (out != data) free(out);
        free(data);
        to = from + used;
    }
    /* Nothing more is to be had without more data. */
    if (!told.status) {
        size_t used = 1;
        CHECK(amg_ws_read(&codec, &ws_limits, NULL, 0, NULL, records, room, &used) == 0 && used == 0);
    }
    return told;
}

/* Mask the frames of a client's: their headers are short. */
static size_t ws_mask_all(const uint8_t *plain, size_t n, uint8_t *masked) {
    size_t i = 0, size = 0, j;

    while (i < n) {
        uint8_t key[4];
        size_t length = plain[i + 1], head = 2;
        if (length == 126) length = (size_t)(plain[i + 2] << 8 | plain[i + 3]), head = 4;
        CHECK(i + head + length <= n);
        memcpy(masked + size, plain + i, head);
        masked[size + 1] |= 0x80;
        size += head;
        for (j = 0; j < 4; j++) masked[size++] = key[j] = (uint8_t)(17 * i + 60 * j + 5);
        memcpy(masked + size, plain + i + head, length);
        amg_mask(masked + size, length, key, 0);
        size += length;
        i += head + length;
    }
    return size;
}

#define FIFTY "0123456789012345678901234567890123456789012345678\xc3"

static void check_ws_frames(void) {
    static const struct {
        uint8_t compressed;
        size_t n;
        const char *frames, *told;
        unsigned error;
    } cases[] = {
#define FRAMES(text) sizeof text - 1, text
        {0, FRAMES("\x81\x05hello"), "thello.", 0},
        {0, FRAMES("\x81\x00\x82\x01x\x8a\x00"), "t.bx.q.", 0},
        {0, FRAMES("\x01\x02he\x89\x04ping\x00\x00\x80\x03llo"), "the|pping.|llo.", 0},
        {0, FRAMES("\x89\x03one\x89\x03two\x89\x05three\x81\x01x\x8a\x04" "four"),
         "pone.ptwo.pthree.tx.qfour.", 0},
        {0, FRAMES("\x01\x02\xe2\x82\x89\x00\x80\x01\xac"), "t\xe2\x82|p.\xac.", 0},
        {0, FRAMES("\x88\x05\x03\xe8" "bye\x81\x01x"), "x\x03\xe8" "bye.", 0},
        {0, FRAMES("\x89\x03one\x88\x00\x89\x00"), "pone.x.", 0},
        {1, FRAMES("\xc1\x01\xff\x81\x01x\x42\x01\xfe\x80\x01\xfd"), "zt\xff.tx.zb\xfe|\xfd.", 0},
        {0, FRAMES("\xc1\x01x"), "!", AMG_WS_E_RESERVED_BIT},
        {1, FRAMES("\xc9\x01x"), "!", AMG_WS_E_RESERVED_BIT},
        {0, FRAMES("\x83\x01x"), "!", AMG_WS_E_OPCODE},
        {0, FRAMES("\x09\x01x"), "!", AMG_WS_E_CONTROL_FRAGMENTED},
        {0, FRAMES("\x89\x7e\x00\x01x"), "!", AMG_WS_E_CONTROL_SIZE},
        {0, FRAMES("\x02\x01x\x82\x01x"), "bx|!", AMG_WS_E_IN_MESSAGE},
        {0, FRAMES("\x82\x01x\x80\x01x"), "bx.!", AMG_WS_E_NO_MESSAGE},
        {0, FRAMES("\x82\x7e\x00\x01x"), "!", AMG_WS_E_LENGTH_FORM},
        {0, FRAMES("\x02\x00\x00\x00\x00\x00\x00\x00\x80\x01x"), "b||||!", AMG_WS_E_FRAGMENTS},
        {0, FRAMES("\x82\x32" FIFTY), "!", AMG_WS_E_FRAME_SIZE},
        {0, FRAMES("\x02\x23" "0123456789abcdefghijklmnopqrstuvwxy\x80\x23" "0123456789abcdefghijklmnopqrstuvwxy"),
         "b0123456789abcdefghijklmnopqrstuvwxy|!", AMG_WS_E_MESSAGE_SIZE},
        {0, FRAMES("\x02\x01x\x88\x01x"), "bx|!", AMG_WS_E_CLOSE_SIZE},
        {0, FRAMES("\x88\x02\x03\xe7"), "!", AMG_WS_E_CLOSE_CODE},
        {0, FRAMES("\x88\x03\x03\xe8\xff"), "!", AMG_WS_E_CLOSE_UTF8},
        {0, FRAMES("\x81\x01\xff"), "!", AMG_WS_E_UTF8},
#undef FRAMES
    };
    uint8_t masked[512];
    size_t i, step, room, size;
    int in_place;

    for (i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const uint8_t *plain = (const uint8_t *)cases[i].frames;
        size = ws_mask_all(plain, cases[i].n, masked);
        for (step = 1; step <= size + 1; step++) {
            for (room = 1; room <= MOST_RECORDS; room++) {
                for (in_place = 0; in_place < 2; in_place++) {
                    const char *expected = cases[i].told;
                    story told = ws_read_all(AMG_CLIENT, cases[i].compressed, plain, cases[i].n, step, room, in_place);
                    CHECK(strcmp(told.text, expected) == 0 && told.status == cases[i].error);
                    told = ws_read_all(AMG_SERVER, cases[i].compressed, masked, size, step, room, in_place);
                    CHECK(strcmp(told.text, expected) == 0 && told.status == cases[i].error);
                }
            }
        }
        if (cases[i].told[0] != '!') {
            story told = ws_read_all(AMG_SERVER, cases[i].compressed, plain, cases[i].n, 9, 4, 0);
            CHECK(strcmp(told.text, "!") == 0 && told.status == AMG_WS_E_UNMASKED);
            told = ws_read_all(AMG_CLIENT, cases[i].compressed, masked, size, 9, 4, 1);
            CHECK(strcmp(told.text, "!") == 0 && told.status == AMG_WS_E_MASKED);
        }
    }
}

/* Payloads of all lengths, at all alignments and cuts, with room behind and before them that must stay as it is. */
static void check_ws_unmask(void) {
    static const uint8_t key[4] = {0x37, 0xfa, 0x21, 0x3d};
    amg_ws_record records[4];
    size_t n, cut, i, used, shift;

    for (n = 1; n < 100; n++) {
        for (cut = 0; cut <= n; cut += 1 + n / 7) {
            static const amg_ws_limits wide = {1000, 1000, 10, 0};
            uint8_t head[6], whole[128], out[160];
            size_t got = 0;
            amg_ws codec;
            head[0] = 0x82, head[1] = (uint8_t)(0x80 | n);
            memcpy(head + 2, key, 4);
            for (i = 0; i < n; i++) whole[i] = (uint8_t)(i * 7 + n);
            amg_mask(whole, n, key, 0);
            amg_ws_init(&codec, AMG_SERVER, 0);
            CHECK(amg_ws_read(&codec, &wide, head, 6, NULL, records, 4, &used) == 0 && used == 6);
            shift = n % 8;
            memset(out, 0xee, sizeof out);
            if (cut) {
                CHECK(amg_ws_read(&codec, &wide, whole, cut, out + shift, records, 4, &used) == 1 && used == cut);
                got = records[0].length;
                CHECK(records[0].offset == 0 && got == cut);
            }
            if (cut < n) {
                CHECK(amg_ws_read(&codec, &wide, whole + cut, n - cut, out + shift + cut, records, 4, &used) == 1);
                CHECK(used == n - cut && records[0].offset == 0 && records[0].length == n - cut);
            }
            CHECK(records[0].flags == (cut && cut < n ? AMG_WS_FIN : AMG_WS_FIN | 2u));
            for (i = 0; i < shift; i++) CHECK(out[i] == 0xee);
            for (i = 0; i < n; i++) CHECK(out[shift + i] == (uint8_t)(i * 7 + n));
            for (i = shift + n; i < sizeof out; i++) CHECK(out[i] == 0xee);
        }
    }
}

static void check_ws_call(void) {
    static uint8_t hello[] = "\x81\x05hello\x89\x02hi", out[64];
    amg_ws_record records[4];
    amg_ws codec;
    amg_ws_call call;

    amg_ws_init(&codec, AMG_CLIENT, 0);
    call.codec = (uintptr_t)&codec;
    call.limits = (uintptr_t)&ws_limits;
    call.out = (uintptr_t)out;
    call.records = (uintptr_t)records;
    call.max = 4;
    call.consumed = 99;
    CHECK(amg_ws_read_call(&call, hello, 11) == 2 && call.consumed == 11);
    CHECK(records[0].flags == (AMG_WS_FIN | 1) && memcmp(out + records[0].offset, "hello", 5) == 0);
    CHECK(amg_ws_read_call(&call, hello, 10) == (1 | AMG_WS_UNSETTLED));
    CHECK(amg_ws_read_call(&call, hello + 10, 1) == (1 | AMG_WS_UNSETTLED) && (records[0].flags & AMG_WS_HELD));
    CHECK(amg_ws_read_call(&call, NULL, 0) == 0);
    call.max = 1;
    CHECK(amg_ws_read_call(&call, hello, 11) == (1 | AMG_WS_UNSETTLED) && call.consumed == 7);
    CHECK(amg_ws_read_call(&call, hello + 7, 4) == 1 && call.consumed == 4);
    CHECK(amg_ws_read_call(&call, (const uint8_t *)"\xff", 1) == (1 | AMG_WS_UNSETTLED));
    CHECK(records[0].flags == AMG_WS_ERROR && records[0].error == AMG_WS_E_RESERVED_BIT);
    CHECK(amg_ws_read_call(&call, hello, 11) == AMG_WS_UNSETTLED && call.consumed == 11);
}

static void check_sizes(void) {
    CHECK(amg_sizeof(0) == sizeof(amg_http1_limits) && amg_sizeof(1) == sizeof(amg_http1));
    CHECK(amg_sizeof(2) == sizeof(amg_http1_record) && amg_sizeof(3) == sizeof(amg_ws_limits));
    CHECK(amg_sizeof(4) == sizeof(amg_ws) && amg_sizeof(5) == sizeof(amg_ws_record));
    CHECK(amg_sizeof(6) == sizeof(amg_ws_call) && amg_sizeof(7) == sizeof(amg_engine_config));
    CHECK(amg_sizeof(8) == sizeof(amg_completion) && amg_sizeof(9) == sizeof(amg_submission));
    CHECK(amg_sizeof(10) == sizeof(amg_notice) && amg_sizeof(11) == 0 && amg_sizeof(0xffffffffu) == 0);
}

int main(void) {
    CHECK(amg_abi() == AMG_ABI);
    check_mask();
    check_utf8();
    check_sizes();
    check_http_messages();
    check_http_damage();
    check_ws_frames();
    check_ws_unmask();
    check_ws_call();
    printf("%lu checks\n", checks);
    return 0;
}
