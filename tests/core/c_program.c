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

/* -- MQTT -- */

static const amg_mqtt_limits mqtt_limits = {1000, 300, 200, 64, 8, 32, 4, 0};

/* What a client of 5.0 sends in a session. */
static const uint8_t mqtt_session[] =
    "\x10\x40\x00\x04MQTT\x05\xf6\x00\x3c\x0b\x11\x00\x00\x00\x0a\x26\x00\x01k\x00\x00"
    "\x00\x02id\x05\x18\x00\x00\x00\x1e\x00\x0awill/topic\x00\x04gone\x00\x04user\x00\x06secret"
    "\x82\x14\x12\x34\x02\x0b\x07\x00\x05" "a/+/#\x01\x00\x04" "b/\xc3\xa4\x2e"
    "\x33\x10\x00\x03t/x\x00\x07\x05\x02\x00\x00\x00\x3chey"
    "\x30\x05\x00\x01t\x00!"
    "\x30\x05\x00\x01t\x00?"
    "\x40\x02\x00\x09\x50\x03\x00\x09\x10"
    "\xa2\x08\x00\x03\x00\x00\x03" "a/b"
    "\xc0\x00"
    "\xe0\x02\x04\x00";
enum { MQTT_SESSION = sizeof mqtt_session - 1 };

/* Feed n bytes in pieces of `step`, each call with room for `room` records and a buffer of exactly its size; tell the
 * packets: a letter for each type, and what lies from begin to end; '!' and the error. */
static story mqtt_read_all(const uint8_t *packets, size_t n, size_t step, size_t room) {
    static const char letters[] = "?CcPaeloSsUupqDA";
    story told = {"", 0, 0};
    amg_mqtt_record records[MOST_RECORDS];
    uint8_t *held = malloc(1);
    size_t size = 0, from, to, i;
    amg_mqtt codec;

    amg_mqtt_init(&codec, AMG_SERVER, 0);
    for (from = 0; from < n; from = to) {
        size_t position = 0, whole = 0, count;
        uint8_t *kept;
        to = from + step < n ? from + step : n;
        held = realloc(held, size + to - from);
        CHECK(held != NULL);
        memcpy(held + size, packets + from, to - from);
        size += to - from;
        do {
            count = amg_mqtt_read(&codec, &mqtt_limits, held, size, &position, records, room, &whole);
            CHECK(count <= room && position <= size && (whole == 0 || whole > size - position));
            for (i = 0; i < count; i++) {
                const amg_mqtt_record *record = &records[i];
                CHECK(told.status == 0);
                tell(&told, record->first ? &letters[record->first >> 4] : "!", 1);
                if (!record->first) told.status = record->packet_id;
                else tell(&told, held + record->begin, record->end - record->begin);
            }
        } while (count == room);
        size -= position;
        kept = malloc(size + !size);
        CHECK(kept != NULL);
        memcpy(kept, held + position, size);
        free(held);
        held = kept;
    }
    free(held);
    return told;
}

static int is_text(const uint8_t *data, uint32_t offset, uint32_t length, const char *text) {
    return length == strlen(text) && memcmp(data + offset, text, length) == 0;
}

static void check_mqtt_fields(void) {
    const uint8_t *data = mqtt_session;
    amg_mqtt_record r[16];
    amg_mqtt_connect connect;
    amg_mqtt_property property;
    amg_mqtt_filter filter;
    size_t position = 0, whole = 99;
    uint32_t place;
    amg_mqtt codec;

    amg_mqtt_init(&codec, AMG_SERVER, 5);
    CHECK(codec.version == 0);
    CHECK(amg_mqtt_read(&codec, &mqtt_limits, data, MQTT_SESSION, &position, r, 16, &whole) == 10);
    CHECK(position == MQTT_SESSION && whole == 0 && codec.version == 5 && codec.state == 2);

    CHECK(amg_mqtt_connect_fields(data, &r[0], &connect) && !amg_mqtt_connect_fields(data, &r[1], &connect));
    CHECK(amg_mqtt_connect_fields(data, &r[0], &connect));
    CHECK(connect.version == 5 && connect.flags == 0xf6 && connect.keep_alive == 60);
    CHECK(is_text(data, connect.client_id, connect.client_id_length, "id"));
    CHECK(is_text(data, connect.will_topic, connect.will_topic_length, "will/topic"));
    CHECK(is_text(data, connect.will_payload, connect.will_payload_length, "gone"));
    CHECK(is_text(data, connect.username, connect.username_length, "user"));
    CHECK(is_text(data, connect.password, connect.password_length, "secret"));
    place = connect.will_properties;
    CHECK(amg_mqtt_next_property(data, &place, connect.will_properties_end, &property));
    CHECK(property.id == 24 && property.number == 30 && place == connect.will_properties_end);
    place = r[0].properties;
    CHECK(amg_mqtt_next_property(data, &place, r[0].payload, &property) && property.id == 17 && property.number == 10);
    CHECK(amg_mqtt_next_property(data, &place, r[0].payload, &property) && property.id == 38);
    CHECK(is_text(data, property.offset, property.length, "k") && property.second && property.second_length == 0);
    CHECK(!amg_mqtt_next_property(data, &place, r[0].payload, &property) && place == r[0].payload);

    place = r[1].payload;
    CHECK(r[1].packet_id == 0x1234);
    CHECK(amg_mqtt_next_filter(data, &r[1], &place, &filter) && is_text(data, filter.offset, filter.length, "a/+/#"));
    CHECK(filter.options == 1 && amg_mqtt_next_filter(data, &r[1], &place, &filter) && filter.options == 0x2e);
    CHECK(is_text(data, filter.offset, filter.length, "b/\xc3\xa4"));
    CHECK(!amg_mqtt_next_filter(data, &r[1], &place, &filter) && place == r[1].end);
    place = r[7].payload;
    CHECK(amg_mqtt_next_filter(data, &r[7], &place, &filter) && is_text(data, filter.offset, filter.length, "a/b"));
    CHECK(!amg_mqtt_next_filter(data, &r[7], &place, &filter) && place == r[7].end);

    CHECK(r[2].first == 0x33 && r[2].packet_id == 7 && r[2].reason == 0);
    CHECK(is_text(data, r[2].begin, r[2].topic_end - r[2].begin, "t/x") && r[2].payload - r[2].properties == 5);
    CHECK(is_text(data, r[2].payload, r[2].end - r[2].payload, "hey"));
    CHECK(r[3].reason == 0 && r[4].reason == AMG_MQTT_SAME_TOPIC && r[4].end - r[4].payload == 1);
    CHECK(r[5].first == 0x40 && r[5].packet_id == 9 && r[5].reason == 0 && r[5].properties == r[5].end);
    CHECK(r[6].first == 0x50 && r[6].reason == 0x10 && r[6].properties == r[6].end);
    CHECK(r[8].first == 0xc0 && r[8].begin == r[8].end && r[9].first == 0xe0 && r[9].reason == 4);
    position = 0;
    CHECK(amg_mqtt_read(&codec, &mqtt_limits, data, MQTT_SESSION, &position, r, 16, &whole) == 0);
    CHECK(position == MQTT_SESSION);
}

/* Cut anywhere; and with every byte changed to every other: nothing is read beyond the end. */
static void check_mqtt_packets(void) {
    story whole = mqtt_read_all(mqtt_session, MQTT_SESSION, MQTT_SESSION, MOST_RECORDS), told;
    uint8_t changed[MQTT_SESSION];
    size_t step, i;
    unsigned byte;

    CHECK(whole.status == 0 && whole.text[0] == 'C' && whole.text[whole.length - 3] == 'D');
    for (step = 1; step < MQTT_SESSION; step++) {
        told = mqtt_read_all(mqtt_session, MQTT_SESSION, step, 1 + step % MOST_RECORDS);
        CHECK(told.length == whole.length && memcmp(told.text, whole.text, told.length) == 0 && told.status == 0);
    }
    for (i = 0; i < MQTT_SESSION; i++) {
        memcpy(changed, mqtt_session, MQTT_SESSION);
        for (byte = 0; byte < 256; byte++) {
            changed[i] = (uint8_t)byte;
            whole = mqtt_read_all(changed, MQTT_SESSION, MQTT_SESSION, MOST_RECORDS);
            told = mqtt_read_all(changed, MQTT_SESSION, 1 + i % 7, 1);
            CHECK(told.length == whole.length && memcmp(told.text, whole.text, told.length) == 0);
            CHECK(told.status == whole.status);
        }
    }
}

static void check_mqtt_call(void) {
    static const uint8_t acks[] = "\x40\x02\x00\x01\x40\x02\x00\x02\x40\x03\x00\x03\x10\x30\x80";
    amg_mqtt_record records[4];
    amg_mqtt codec;
    amg_mqtt_call call;

    amg_mqtt_init(&codec, AMG_CLIENT, 5);
    memset(&call, 0, sizeof call);
    call.codec = (uintptr_t)&codec;
    call.limits = (uintptr_t)&mqtt_limits;
    call.records = (uintptr_t)records;
    call.max = 4;
    CHECK(amg_mqtt_read_call(&call, NULL, 0) == 0);
    CHECK(amg_mqtt_read_call(&call, (const uint8_t *)"\x20\x03\x00\x00\x00", 5) == (1 | AMG_MQTT_UNSETTLED));
    CHECK(call.position == 5 && call.whole == 0);
    call.position = 0;
    CHECK(amg_mqtt_read_call(&call, acks, 8) == (2 | AMG_MQTT_ACKS) && call.position == 0);
    CHECK(records[1].packet_id == 2);
    CHECK(amg_mqtt_read_call(&call, acks, 4) == 1);
    CHECK(amg_mqtt_read_call(&call, acks, 13) == 3 && records[2].reason == 0x10);
    CHECK(amg_mqtt_read_call(&call, acks, 15) == (3 | AMG_MQTT_UNSETTLED) && call.position == 13 && call.whole == 0);
    call.position = 8;
    CHECK(amg_mqtt_read_call(&call, acks, 12) == AMG_MQTT_UNSETTLED && call.position == 8 && call.whole == 5);
    call.position = 0;
    call.max = 1;
    CHECK(amg_mqtt_read_call(&call, acks, 8) == (1 | AMG_MQTT_UNSETTLED) && call.position == 4);
    CHECK(amg_mqtt_read_call(&call, acks, 8) == 1 && call.position == 0 && records[0].packet_id == 2);
    CHECK(amg_mqtt_read_call(&call, (const uint8_t *)"\xd1", 1) == (1 | AMG_MQTT_UNSETTLED));
    CHECK(records[0].first == 0 && records[0].packet_id == AMG_MQTT_E_BAD_FLAGS);
}

/* -- DNS ---------------------------------------------------------------------------------------------------------- */

/* www.example.com A: a CNAME of a.example.com, its address, NS and SOA of example.com, OPT */
static const uint8_t dns_answer[] =
    "\x12\x34\x81\x80\x00\x01\x00\x02\x00\x02\x00\x02\x03www\x07" "example\x03" "com\x00\x00\x01\x00\x01"
    "\xc0\x0c\x00\x05\x00\x01\x00\x00\x00\x3c\x00\x06\x03" "a.b\xc0\x10"
    "\xc0\x2d\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02\x01"
    "\xc0\x10\x00\x02\x00\x01\x80\x00\x00\x00\x00\x02\xc0\x2d"
    "\xc0\x10\x00\x06\x00\x01\x00\x00\x00\x3c\x00\x18\xc0\x10\xc0\x2d\x00\x00\x00\x01\x00\x00\x00\x02\x00\x00\x00\x03"
    "\x00\x00\x00\x04\x00\x00\x00\x05"
    "\xc0\x2d\x00\x1c\x80\x01\x00\x00\x00\x3c\x00\x10\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01"
    "\x00\x00\x29\x04\xd0\xff\x00\x00\x00\x00\x00";
enum { DNS_ANSWER = sizeof dns_answer - 1, DNS_RECORDS = 7 };

/* A copy on the heap of exactly n bytes. */
static uint8_t *exactly(const uint8_t *data, size_t n) {
    uint8_t *copy = malloc(n + !n);

    CHECK(copy != NULL);
    if (n) memcpy(copy, data, n);
    return copy;
}

static uint32_t dns_read(const uint8_t *data, size_t n, size_t room, amg_dns_header *header, amg_dns_record *first) {
    uint8_t *copy = exactly(data, n);
    amg_dns_record *records = malloc(room * sizeof *records + !room);
    uint32_t error;
    size_t end, i;
    char name[AMG_DNS_NAME_TEXT];

    CHECK(records != NULL);
    error = amg_dns_read(copy, n, header, records, room);
    if (!error) {
        size_t count = (size_t)header->questions + header->answers + header->authorities + header->additionals;
        CHECK(count <= room);
        for (i = 0; i < count; i++) {
            CHECK(amg_dns_name(copy, n, records[i].name, name, sizeof name, &end) == 0 && end <= n);
            CHECK(strlen(name) < sizeof name);
            CHECK((size_t)records[i].offset + records[i].length <= n);
        }
        if (first) memcpy(first, records, count * sizeof *first);
    }
    free(records);
    free(copy);
    return error;
}

static void check_dns_message(void) {
    static const char texts[] = "www.example.com\0a\\.b.example.com\000192.0.2.1\0example.com\0002001:db8::1\0";
    amg_dns_record records[DNS_RECORDS];
    amg_dns_header header;
    amg_dns_call call;
    char name[40], *text;
    size_t end, room;
    uint32_t size;

    CHECK(dns_read(dns_answer, DNS_ANSWER, DNS_RECORDS, &header, records) == 0);
    CHECK(header.id == 0x1234 && header.flags == 0x8180 && header.questions == 1 && header.answers == 2);
    CHECK(header.authorities == 2 && header.additionals == 2);
    CHECK(records[0].section == AMG_DNS_QUESTIONS && records[0].name == 12 && records[0].type == 1);
    CHECK(records[1].section == AMG_DNS_ANSWERS && records[1].shape == AMG_DNS_NAME && records[1].ttl == 60);
    CHECK(records[2].shape == AMG_DNS_ADDRESS && records[2].length == 4 && dns_answer[records[2].offset] == 0xc0);
    CHECK(records[3].section == AMG_DNS_AUTHORITIES && records[3].ttl == 0);
    CHECK(records[4].shape == AMG_DNS_SOA && records[4].length == 24);
    CHECK(records[5].class_code == 0x8001 && records[5].shape == AMG_DNS_ADDRESS && records[5].length == 16);
    CHECK(records[6].section == AMG_DNS_ADDITIONALS && records[6].class_code == 1232 && records[6].ttl == 0xff000000u);
    CHECK(records[6].shape == AMG_DNS_BYTES && records[6].length == 0 && records[6].offset == DNS_ANSWER);
    CHECK(amg_dns_name(dns_answer, DNS_ANSWER, records[2].name, name, sizeof name, &end) == 0);
    CHECK(strcmp(name, "a\\.b.example.com") == 0 && end == records[2].name + 2);
    CHECK(amg_dns_name(dns_answer, DNS_ANSWER, 12, name, 20, NULL) == AMG_DNS_NO_ROOM);
    for (room = 0; room <= sizeof texts + 40; room++) {
        text = malloc(room + !room);
        CHECK(text != NULL);
        memset(&call, 0, sizeof call);
        call.records = (uintptr_t)records;
        call.max = DNS_RECORDS;
        call.text = (uintptr_t)text;
        call.size = room;
        size = amg_dns_read_call(&call, dns_answer, DNS_ANSWER);
        CHECK(size == AMG_DNS_NO_ROOM || size == sizeof texts); /* and the root's */
        CHECK(size == AMG_DNS_NO_ROOM || memcmp(text, texts, sizeof texts) == 0);
        CHECK(room < sizeof texts + 40 || size != AMG_DNS_NO_ROOM);
        free(text);
    }
    CHECK(records[0].name_text == 0 && records[1].name_text == 0 && records[1].data_text == 1);
    CHECK(records[2].name_text == 1 && records[2].data_text == 2 && records[3].name_text == 3 && records[3].data_text == 1);
    CHECK(records[4].data_text == 3 && records[4].second_text == 1);
    CHECK(records[5].name_text == 1 && records[5].data_text == 4 && records[6].name_text == 5);
    call.max = DNS_RECORDS - 1;
    CHECK(amg_dns_read_call(&call, dns_answer, DNS_ANSWER) == (AMG_DNS_REFUSED | AMG_DNS_E_TOO_MANY));
}

static void check_dns_damage(void) {
    uint8_t changed[DNS_ANSWER + 1];
    amg_dns_header header;
    unsigned byte, met = 0;
    size_t i;

    CHECK(amg_dns_read(NULL, 0, &header, NULL, 0) == AMG_DNS_E_TRUNCATED);
    for (i = 0; i < DNS_ANSWER; i++) CHECK(dns_read(dns_answer, i, DNS_RECORDS, &header, NULL) == AMG_DNS_E_TRUNCATED);
    for (i = 0; i < DNS_RECORDS; i++) CHECK(dns_read(dns_answer, DNS_ANSWER, i, &header, NULL) == AMG_DNS_E_TOO_MANY);
    CHECK(dns_read(dns_answer, DNS_ANSWER + 1, DNS_RECORDS, &header, NULL) == AMG_DNS_E_TRAILING);
    for (i = 0; i < DNS_ANSWER; i++) {
        memcpy(changed, dns_answer, DNS_ANSWER);
        for (byte = 0; byte < 256; byte++) {
            uint32_t error;
            changed[i] = (uint8_t)byte;
            error = dns_read(changed, DNS_ANSWER, 400, &header, NULL);
            CHECK(error <= AMG_DNS_E_TRAILING);
            met |= 1u << error;
        }
    }
    CHECK((met & ~(1u << AMG_DNS_E_NAME_SIZE)) == ((1u << (AMG_DNS_E_TRAILING + 1)) - 1 - (1u << AMG_DNS_E_NAME_SIZE)));
}

static void check_dns_query(void) {
    static const uint8_t wanted[] = "\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01\x03" "a.b\x03" "com\x00\x00\x1c\x00\x01"
                                    "\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00";
    static const char *const bad[] = {"..", ".a", "a..b", "\\", "\\1", "\\256"};
    uint8_t *out = malloc(sizeof wanted - 1);
    char name[600];
    uint8_t room[288];
    size_t i;

    CHECK(out != NULL);
    CHECK(amg_dns_query(out, sizeof wanted - 1, 7, "a\\046b.com.", 28, 0x0100, 1232) == sizeof wanted - 1);
    CHECK(memcmp(out, wanted, sizeof wanted - 1) == 0);
    CHECK(amg_dns_query(out, sizeof wanted - 2, 7, "a\\.b.com", 28, 0x0100, 1232) == 0);
    CHECK(amg_dns_query(out, sizeof wanted - 1, 7, "", 2, 0x0100, 0) == 12 + 1 + 4);
    CHECK(amg_dns_query(out, sizeof wanted - 1, 7, ".", 2, 0x0100, 0) == 12 + 1 + 4);
    free(out);
    for (i = 0; i < sizeof bad / sizeof bad[0]; i++) CHECK(amg_dns_query(room, sizeof room, 1, bad[i], 1, 0, 0) == 0);
    for (i = 1; i < 200; i++) {
        size_t labels;
        memset(name, 'a', i);
        name[i] = 0;
        CHECK(amg_dns_query(room, sizeof room, 1, name, 1, 0, 0) == (i > 63 ? 0 : 12 + i + 2 + 4));
        for (labels = 0; labels < i; labels++) memcpy(name + 2 * labels, "a.", 3);
        CHECK(amg_dns_query(room, sizeof room, 1, name, 1, 0, 1) == (i > 127 ? 0 : 12 + 2 * i + 1 + 4 + 11));
    }
}

/* -- SNTP --------------------------------------------------------------------------------------------------------- */

static void check_sntp_packets(void) {
    uint8_t data[AMG_SNTP_MAX_SIZE + 4], out[AMG_SNTP_SIZE];
    amg_sntp_packet packet, reply;
    size_t i;

    memset(data, 0x5a, sizeof data);
    for (i = 0; i < AMG_SNTP_SIZE; i++) data[i] = (uint8_t)(i * 37 + 0x64);
    for (i = 0; i < sizeof data; i++) {
        uint8_t *copy = exactly(data, i);
        uint32_t wanted = i < AMG_SNTP_SIZE       ? AMG_SNTP_E_TOO_SHORT
                          : i > AMG_SNTP_MAX_SIZE ? AMG_SNTP_E_TOO_LONG
                          : i % 4                 ? AMG_SNTP_E_TAIL
                                                  : 0;
        CHECK(amg_sntp_read(copy, i, &packet) == wanted);
        if (!wanted) {
            CHECK(packet.tail == i - AMG_SNTP_SIZE);
            amg_sntp_write(&packet, out);
            CHECK(memcmp(out, data, sizeof out) == 0);
        }
        free(copy);
    }
    CHECK(packet.leap == 1 && packet.version == 4 && packet.mode == 4 && packet.stratum == 0x89);
    CHECK(packet.poll == -82 && packet.precision == -45);
    for (i = 0; i < 256; i++) {
        data[0] = (uint8_t)i;
        CHECK(amg_sntp_read(data, 48, &packet) == ((i / 8) % 8 >= 1 && (i / 8) % 8 <= 4 ? 0 : AMG_SNTP_E_VERSION));
    }
    memset(&reply, 0, sizeof reply);
    CHECK(amg_sntp_check(&reply, 1, 4) == AMG_SNTP_E_NOT_A_REPLY);
    reply.mode = 4;
    CHECK(amg_sntp_check(&reply, 1, 4) == AMG_SNTP_E_WRONG_VERSION);
    reply.version = 4;
    CHECK(amg_sntp_check(&reply, 1, 4) == AMG_SNTP_E_WRONG_ORIGIN);
    reply.originate = 1;
    CHECK(amg_sntp_check(&reply, 1, 4) == AMG_SNTP_E_KISS);
    reply.stratum = 16;
    reply.leap = 3;
    CHECK(amg_sntp_check(&reply, 1, 4) == AMG_SNTP_E_NOT_SYNCHRONIZED);
    reply.leap = 0;
    CHECK(amg_sntp_check(&reply, 1, 4) == AMG_SNTP_E_STRATUM);
    reply.stratum = 15;
    CHECK(amg_sntp_check(&reply, 1, 4) == AMG_SNTP_E_NO_TIME);
    reply.receive = 5;
    CHECK(amg_sntp_check(&reply, 1, 4) == AMG_SNTP_E_NO_TIME);
    reply.transmit = 4;
    reply.root_delay = INT32_MAX;
    reply.root_dispersion = UINT32_MAX;
    CHECK(amg_sntp_check(&reply, 1, 4) == AMG_SNTP_E_TOO_UNSURE);
    reply.root_delay = INT32_MIN;
    reply.root_dispersion = 0;
    CHECK(amg_sntp_check(&reply, 1, 4) == AMG_SNTP_E_TIME_RUNS_BACK);
    reply.transmit = 5;
    CHECK(amg_sntp_check(&reply, 1, 4) == 0);
}

static void check_sntp_times(void) {
    static const int64_t times[] = {0,          1,         -1,        999999999, 1000000000, INT64_MAX, INT64_MIN, INT64_MIN + 1,
                                    2085978495999999999, 2085978496000000000, 2085978496000000001};
    int64_t offset, delay;
    size_t i, j;

    CHECK(amg_sntp_to_timestamp(0) == UINT64_C(0x83aa7e8000000000));
    CHECK(amg_sntp_to_timestamp(2085978496000000000) == 0);
    CHECK(amg_sntp_to_timestamp(-500000000) == UINT64_C(0x83aa7e7f80000000));
    for (i = 0; i < sizeof times / sizeof times[0]; i++) {
        uint64_t timestamp = amg_sntp_to_timestamp(times[i]);
        int64_t back = amg_sntp_from_timestamp(timestamp, times[i]);
        /* At the ends of the range the second itself may not fit. */
        CHECK(back == times[i] || (times[i] < INT64_MIN + 2 && back == INT64_MIN));
        for (j = 0; j < sizeof times / sizeof times[0]; j++) {
            amg_sntp_from_timestamp(timestamp, times[j]);
            amg_sntp_offset_and_delay(times[i], times[j], times[i], times[j], &offset, &delay);
            amg_sntp_offset_and_delay(times[i], times[j], times[j], times[i], &offset, &delay);
            CHECK(delay == 0);
        }
    }
    CHECK(amg_sntp_from_timestamp(0, INT64_MAX) >= INT64_MAX - 2147483648 * INT64_C(1000000000));
    amg_sntp_offset_and_delay(100, 150, 160, 120, &offset, &delay);
    CHECK(offset == 45 && delay == 10);
    amg_sntp_offset_and_delay(1, 0, 0, 0, &offset, &delay);
    CHECK(offset == -1 && delay == -1);
}

static void check_sizes(void) {
    CHECK(amg_sizeof(0) == sizeof(amg_http1_limits) && amg_sizeof(1) == sizeof(amg_http1));
    CHECK(amg_sizeof(2) == sizeof(amg_http1_record) && amg_sizeof(3) == sizeof(amg_ws_limits));
    CHECK(amg_sizeof(4) == sizeof(amg_ws) && amg_sizeof(5) == sizeof(amg_ws_record));
    CHECK(amg_sizeof(6) == sizeof(amg_ws_call) && amg_sizeof(7) == sizeof(amg_mqtt_limits));
    CHECK(amg_sizeof(8) == sizeof(amg_mqtt) && amg_sizeof(9) == sizeof(amg_mqtt_record));
    CHECK(amg_sizeof(10) == sizeof(amg_mqtt_call) && amg_sizeof(11) == sizeof(amg_mqtt_property));
    CHECK(amg_sizeof(12) == sizeof(amg_mqtt_filter) && amg_sizeof(13) == sizeof(amg_mqtt_connect));
    CHECK(amg_sizeof(14) == sizeof(amg_dns_header) && amg_sizeof(15) == sizeof(amg_dns_record));
    CHECK(amg_sizeof(16) == sizeof(amg_dns_call) && amg_sizeof(17) == sizeof(amg_sntp_packet));
    CHECK(amg_sizeof(18) == sizeof(amg_engine_config) && amg_sizeof(19) == sizeof(amg_completion));
    CHECK(amg_sizeof(20) == sizeof(amg_submission) && amg_sizeof(21) == sizeof(amg_notice));
    CHECK(amg_sizeof(22) == 0 && amg_sizeof(0xffffffffu) == 0);
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
    check_mqtt_fields();
    check_mqtt_packets();
    check_mqtt_call();
    check_dns_message();
    check_dns_damage();
    check_dns_query();
    check_sntp_packets();
    check_sntp_times();
    printf("%lu checks\n", checks);
    return 0;
}
