/* SNTP packets (RFC 4330, RFC 5905 section 7.3), timestamps, and what makes a reply valid. Contracts are in amg.h.
 * SPDX-License-Identifier: MIT
 */
#include "amg.h"

#include <string.h>

#define SECOND INT64_C(1000000000)
#define ERA (INT64_C(1) << 32)
#define EPOCH_OFFSET INT64_C(2208988800) /* seconds from 1900, when era 0 began, to 1970 */

enum { SERVER = 4, UNSYNCHRONIZED = 3, MAX_STRATUM = 15, MAX_ROOT_DISTANCE = 16 /* seconds */ };

static uint32_t amg__get_u32(const uint8_t *data) {
    return (uint32_t)data[0] << 24 | (uint32_t)data[1] << 16 | (uint32_t)data[2] << 8 | data[3];
}

static uint64_t amg__get_u64(const uint8_t *data) {
    return (uint64_t)amg__get_u32(data) << 32 | amg__get_u32(data + 4);
}

static void amg__put_u32(uint8_t *out, uint32_t number) {
    unsigned i;

    for (i = 0; i < 4; i++) out[i] = (uint8_t)(number >> (24 - 8 * i));
}

static void amg__put_u64(uint8_t *out, uint64_t number) {
    amg__put_u32(out, (uint32_t)(number >> 32));
    amg__put_u32(out + 4, (uint32_t)number);
}

/* Two's complement as it is on the wire, without a conversion that C leaves to the compiler. */
static int32_t amg__signed(uint32_t number) {
    return number > INT32_MAX ? (int32_t)(number - INT32_MAX - 1) + INT32_MIN : (int32_t)number;
}

uint32_t amg_sntp_read(const uint8_t *data, size_t n, amg_sntp_packet *packet) {
    if (n < AMG_SNTP_SIZE) return AMG_SNTP_E_TOO_SHORT;
    if (n > AMG_SNTP_MAX_SIZE) return AMG_SNTP_E_TOO_LONG;
    if (n % 4) return AMG_SNTP_E_TAIL;
    packet->leap = data[0] >> 6;
    packet->version = data[0] >> 3 & 7u;
    packet->mode = data[0] & 7u;
    if (!packet->version || packet->version > AMG_SNTP_VERSION) return AMG_SNTP_E_VERSION;
    packet->stratum = data[1];
    packet->poll = (int8_t)amg__signed((data[2] ^ 0x80u) - 0x80u);
    packet->precision = (int8_t)amg__signed((data[3] ^ 0x80u) - 0x80u);
    packet->tail = (uint16_t)(n - AMG_SNTP_SIZE);
    packet->root_delay = amg__signed(amg__get_u32(data + 4));
    packet->root_dispersion = amg__get_u32(data + 8);
    memcpy(packet->reference_id, data + 12, 4);
    memset(packet->reserved, 0, sizeof packet->reserved);
    packet->reference = amg__get_u64(data + 16);
    packet->originate = amg__get_u64(data + 24);
    packet->receive = amg__get_u64(data + 32);
    packet->transmit = amg__get_u64(data + 40);
    return 0;
}

void amg_sntp_write(const amg_sntp_packet *packet, uint8_t out[AMG_SNTP_SIZE]) {
    out[0] = (uint8_t)((packet->leap & 3u) << 6 | (packet->version & 7u) << 3 | (packet->mode & 7u));
    out[1] = packet->stratum;
    out[2] = (uint8_t)packet->poll;
    out[3] = (uint8_t)packet->precision;
    amg__put_u32(out + 4, (uint32_t)packet->root_delay);
    amg__put_u32(out + 8, packet->root_dispersion);
    memcpy(out + 12, packet->reference_id, 4);
    amg__put_u64(out + 16, packet->reference);
    amg__put_u64(out + 24, packet->originate);
    amg__put_u64(out + 32, packet->receive);
    amg__put_u64(out + 40, packet->transmit);
}

uint32_t amg_sntp_check(const amg_sntp_packet *reply, uint64_t transmitted, uint8_t version) {
    int64_t twice = (int64_t)reply->root_delay + 2 * (int64_t)reply->root_dispersion; /* the root distance, in 1/131072 s */

    if (reply->mode != SERVER) return AMG_SNTP_E_NOT_A_REPLY;
    if (reply->version != version) return AMG_SNTP_E_WRONG_VERSION;
    if (reply->originate != transmitted) return AMG_SNTP_E_WRONG_ORIGIN;
    if (!reply->stratum) return AMG_SNTP_E_KISS;
    if (reply->leap == UNSYNCHRONIZED) return AMG_SNTP_E_NOT_SYNCHRONIZED;
    if (reply->stratum > MAX_STRATUM) return AMG_SNTP_E_STRATUM;
    if (!reply->transmit || !reply->receive) return AMG_SNTP_E_NO_TIME;
    if (twice >= MAX_ROOT_DISTANCE * INT64_C(131072)) return AMG_SNTP_E_TOO_UNSURE;
    if ((reply->transmit - reply->receive) >> 63) return AMG_SNTP_E_TIME_RUNS_BACK;
    return 0;
}

/* -- time ------------------------------------------------------------------------------------------------------------- */

/* Division that rounds down, by a positive number. */
static int64_t amg__floor(int64_t number, int64_t by) { return number / by - (number % by < 0); }

uint64_t amg_sntp_to_timestamp(int64_t ns) {
    int64_t seconds = amg__floor(ns, SECOND);
    uint64_t rest = (uint64_t)(ns % SECOND + (ns % SECOND < 0 ? SECOND : 0));
    uint64_t part = ((rest << 32) + (uint64_t)SECOND - 1) / (uint64_t)SECOND; /* up, so that the way back finds ns again */

    return (uint64_t)(seconds + EPOCH_OFFSET) << 32 | part;
}

int64_t amg_sntp_from_timestamp(uint64_t timestamp, int64_t around) {
    int64_t seconds = (int64_t)(timestamp >> 32) - EPOCH_OFFSET;
    int64_t rest = (int64_t)((timestamp & 0xFFFFFFFFu) * (uint64_t)SECOND >> 32);

    seconds += amg__floor(amg__floor(around, SECOND) - seconds + ERA / 2, ERA) * ERA;
    if (seconds >= INT64_MAX / SECOND) return INT64_MAX;
    if (seconds <= INT64_MIN / SECOND) return INT64_MIN;
    return seconds * SECOND + rest;
}

/* Differences wrap instead of being undefined. */
static int64_t amg__minus(int64_t one, int64_t other) {
    uint64_t difference = (uint64_t)one - (uint64_t)other;

    return difference > INT64_MAX ? (int64_t)(difference - INT64_MAX - 1) + INT64_MIN : (int64_t)difference;
}

void amg_sntp_offset_and_delay(int64_t sent, int64_t received, int64_t replied, int64_t arrived, int64_t *offset,
                               int64_t *delay) {
    int64_t there = amg__minus(received, sent), back = amg__minus(replied, arrived);

    /* Rounded down, and without their sum, which may not fit. */
    *offset = amg__floor(there, 2) + amg__floor(back, 2) + (there & back & 1);
    *delay = amg__minus(amg__minus(arrived, sent), amg__minus(replied, received));
}
