/* What several codecs need: ABI number and struct sizes, WebSocket masking, UTF-8 validation. Contracts are in amg.h.
 * SPDX-License-Identifier: MIT
 */
#include "amg.h"

#include <string.h>

uint32_t amg_abi(void) { return AMG_ABI; }

size_t amg_sizeof(uint32_t which) {
    static const size_t sizes[] = {
        sizeof(amg_http1_limits), sizeof(amg_http1),         sizeof(amg_http1_record), sizeof(amg_ws_limits),
        sizeof(amg_ws),           sizeof(amg_ws_record),     sizeof(amg_ws_call),      sizeof(amg_mqtt_limits),
        sizeof(amg_mqtt),         sizeof(amg_mqtt_record),   sizeof(amg_mqtt_call),    sizeof(amg_mqtt_property),
        sizeof(amg_mqtt_filter),  sizeof(amg_mqtt_connect),  sizeof(amg_dns_header),   sizeof(amg_dns_record),
        sizeof(amg_dns_call),     sizeof(amg_sntp_packet),   sizeof(amg_engine_config), sizeof(amg_completion),
        sizeof(amg_submission),   sizeof(amg_notice),
    };
    return which < sizeof sizes / sizeof sizes[0] ? sizes[which] : 0;
}

/* Words are read and written with memcpy: it is the portable way to say "any alignment" and compiles to plain moves.
 * The mask word is made of bytes in memory order, so the byte order of the machine does not matter. */
void amg_mask(uint8_t *data, size_t n, const uint8_t key[4], size_t offset) {
    uint8_t turned[8];
    uint64_t mask, word;
    size_t i;

    for (i = 0; i < sizeof turned; i++) turned[i] = key[(offset + i) & 3u];
    memcpy(&mask, turned, sizeof mask);
    for (i = 0; n - i >= sizeof word; i += sizeof word) {
        memcpy(&word, data + i, sizeof word);
        word ^= mask;
        memcpy(data + i, &word, sizeof word);
    }
    for (; i < n; i++) data[i] = (uint8_t)(data[i] ^ turned[i & 3u]);
}

/* States beyond ACCEPT and REJECT, named for the bytes that are still to come. The second byte after E0, ED, F0 and F4
 * has a narrower range than 80..BF: there overlong forms, surrogates and what is above U+10FFFF are caught. */
enum {
    TAIL_1 = 2, /* one byte 80..BF */
    TAIL_2,     /* two of them */
    TAIL_3,     /* three of them */
    AFTER_E0,   /* A0..BF, one tail: U+0800 and up */
    AFTER_ED,   /* 80..9F, one tail: U+D7FF and down, no surrogates */
    AFTER_F0,   /* 90..BF, two tails: U+10000 and up */
    AFTER_F4,   /* 80..8F, two tails: U+10FFFF and down */
    STATES
};

static const struct {
    uint8_t low, high, next;
} amg__utf8_step[STATES] = {
    {0x01, 0x00, AMG_UTF8_REJECT}, /* ACCEPT: not used, a lead byte is looked up below */
    {0x01, 0x00, AMG_UTF8_REJECT}, /* REJECT: an empty range */
    {0x80, 0xBF, AMG_UTF8_ACCEPT}, /* TAIL_1 */
    {0x80, 0xBF, TAIL_1},          /* TAIL_2 */
    {0x80, 0xBF, TAIL_2},          /* TAIL_3 */
    {0xA0, 0xBF, TAIL_1},          /* AFTER_E0 */
    {0x80, 0x9F, TAIL_1},          /* AFTER_ED */
    {0x90, 0xBF, TAIL_2},          /* AFTER_F0 */
    {0x80, 0x8F, TAIL_2},          /* AFTER_F4 */
};

static uint32_t amg__utf8_lead(uint8_t byte) {
    if (byte < 0x80) return AMG_UTF8_ACCEPT;
    if (byte < 0xC2) return AMG_UTF8_REJECT; /* a tail, or the overlong C0 and C1 */
    if (byte < 0xE0) return TAIL_1;
    if (byte == 0xE0) return AFTER_E0;
    if (byte == 0xED) return AFTER_ED;
    if (byte < 0xF0) return TAIL_2;
    if (byte == 0xF0) return AFTER_F0;
    if (byte < 0xF4) return TAIL_3;
    if (byte == 0xF4) return AFTER_F4;
    return AMG_UTF8_REJECT; /* F5..FF */
}

/* How many bytes from data on are ASCII, in whole words: texts are mostly that. */
static size_t amg__ascii_words(const uint8_t *data, size_t n) {
    uint64_t word;
    size_t i = 0;

    while (n - i >= sizeof word) {
        memcpy(&word, data + i, sizeof word);
        if (word & UINT64_C(0x8080808080808080)) break;
        i += sizeof word;
    }
    return i;
}

/* The length of the character of two bytes or more at data, of which four bytes are there; 0 when it is none. */
static size_t amg__character(const uint8_t *data) {
    unsigned lead = data[0], second = data[1];

    if ((second & 0xC0) != 0x80) return 0;
    if (lead < 0xE0) return lead >= 0xC2 ? 2 : 0;
    if ((data[2] & 0xC0) != 0x80) return 0;
    if (lead < 0xF0) return (lead == 0xE0 && second < 0xA0) || (lead == 0xED && second > 0x9F) ? 0 : 3;
    if ((data[3] & 0xC0) != 0x80) return 0;
    return lead > 0xF4 || (lead == 0xF0 && second < 0x90) || (lead == 0xF4 && second > 0x8F) ? 0 : 4;
}

/* How many bytes from data on are valid and end with a character: all of them but the last three or less, or those
 * before a character that is not valid. */
static size_t amg__valid(const uint8_t *data, size_t n) {
    size_t i = 0, length;

    for (;;) {
        i += amg__ascii_words(data + i, n - i);
        while (i < n && data[i] < 0x80) i++;
        while (n - i >= 4 && data[i] >= 0x80) {
            length = amg__character(data + i);
            if (!length) return i;
            i += length;
        }
        if (n - i < 4) return i;
    }
}

uint32_t amg_utf8(uint32_t state, const uint8_t *data, size_t n) {
    size_t i = 0;

    if (state >= STATES) return AMG_UTF8_REJECT; /* not a state of ours */
    while (i < n) {
        uint8_t byte;
        if (state == AMG_UTF8_ACCEPT) {
            i += amg__valid(data + i, n - i);
            if (i == n) break;
        }
        byte = data[i++];
        if (state == AMG_UTF8_ACCEPT) {
            state = amg__utf8_lead(byte);
        } else if (byte >= amg__utf8_step[state].low && byte <= amg__utf8_step[state].high) {
            state = amg__utf8_step[state].next;
        } else {
            state = AMG_UTF8_REJECT;
        }
        if (state == AMG_UTF8_REJECT) break;
    }
    return state;
}
