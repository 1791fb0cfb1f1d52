/* A libFuzzer target for amg_sntp.c, which holds its laws without an oracle:
 *
 * - a packet that is read is written again as it was;
 * - a reply that does not echo the request, in its version, from a server, is refused, whatever else it says;
 * - times go to timestamps and back, from any clock that is right by less than 68 years;
 * - no arithmetic overflows, whatever the times are; the way there and back that take the same tell the offset.
 *
 * Sixteen bytes of the input are times, the rest is the datagram, which has its exact size on the heap.
 *
 *     clang -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -Iasyncmg/core \
 *         tests/fuzz/fuzz_sntp.c asyncmg/core/amg_sntp.c -o /tmp/fuzz_sntp && /tmp/fuzz_sntp corpus
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

static const int64_t second = 1000000000;

static void check_times(int64_t one, int64_t other) {
    const int64_t limit = INT64_C(1) << 62, reach = INT64_C(67) * 31556952 * second;
    uint64_t timestamp = amg_sntp_to_timestamp(one);
    int64_t offset, delay, found;

    if (one > -limit && one < limit) {
        LAW(amg_sntp_from_timestamp(timestamp, one + other % reach) == one);
        amg_sntp_offset_and_delay(one, one + 70 + other % reach, one + 90 + other % reach, one + 160, &offset, &delay);
        LAW(offset == other % reach && delay == 140);
    }
    found = amg_sntp_from_timestamp((uint64_t)other, one);
    LAW(found == INT64_MAX || found == INT64_MIN || amg_sntp_to_timestamp(found) >> 32 == (uint64_t)other >> 32);
    amg_sntp_offset_and_delay(one, other, one, other, &offset, &delay);
    amg_sntp_offset_and_delay(other, one, INT64_MIN, INT64_MAX, &offset, &delay);
    amg_sntp_offset_and_delay(one, other, other, one, &offset, &delay);
    LAW(delay == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t n) {
    amg_sntp_packet packet, again;
    uint8_t out[AMG_SNTP_SIZE], *data;
    uint32_t error, fault;
    int64_t times[2];

    if (n < sizeof times) return 0;
    memcpy(times, input, sizeof times);
    check_times(times[0], times[1]);
    n -= sizeof times;
    data = malloc(n + !n);
    LAW(data != NULL);
    if (n) memcpy(data, input + sizeof times, n);
    memset(&packet, 0xee, sizeof packet);
    error = amg_sntp_read(data, n, &packet);
    LAW(error <= AMG_SNTP_E_TOO_LONG);
    LAW((error == 0 || error == AMG_SNTP_E_VERSION) == (n >= AMG_SNTP_SIZE && n <= AMG_SNTP_MAX_SIZE && n % 4 == 0));
    if (!error) {
        LAW(packet.tail == n - AMG_SNTP_SIZE && packet.version >= 1 && packet.version <= AMG_SNTP_VERSION);
        amg_sntp_write(&packet, out);
        LAW(memcmp(out, data, sizeof out) == 0);
        LAW(amg_sntp_read(out, sizeof out, &again) == 0);
        again.tail = packet.tail;
        LAW(memcmp(&again, &packet, sizeof again) == 0);
        fault = amg_sntp_check(&packet, packet.originate, packet.version);
        LAW(!fault || (fault >= AMG_SNTP_E_NOT_A_REPLY && fault <= AMG_SNTP_E_TIME_RUNS_BACK));
        LAW(fault || (packet.mode == 4 && packet.stratum >= 1 && packet.stratum <= 15 && packet.leap != 3));
        LAW(fault || (packet.transmit && packet.receive));
        LAW(amg_sntp_check(&packet, packet.originate + 1, packet.version) != 0);
        LAW(amg_sntp_check(&packet, packet.originate, (uint8_t)(packet.version + 1)) != 0);
    }
    free(data);
    return 0;
}
