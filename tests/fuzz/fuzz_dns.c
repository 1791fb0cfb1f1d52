/* A libFuzzer target for amg_dns.c, which holds its laws without an oracle:
 *
 * - what is read has its places inside the message, in order, each record behind the one before it, to the very end;
 * - every name in a message that was read can be expanded, fits into AMG_DNS_NAME_TEXT bytes with its NUL, holds no
 *   control character, and makes a query in which the same name is read again;
 * - less room for records is told, and so is less room for texts: nothing is written behind either;
 * - amg_dns_read_call() tells the same records, and texts that are what amg_dns_name() tells, with as many NULs as texts;
 * - what is cut off at its end is refused, and so is a byte behind it;
 * - reading twice tells the same.
 *
 * Two bytes of the input choose room and where to cut. Buffers have their exact size on the heap.
 *
 *     clang -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -Iasyncmg/core \
 *         tests/fuzz/fuzz_dns.c asyncmg/core/amg_dns.c -o /tmp/fuzz_dns && /tmp/fuzz_dns corpus
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

/* What is allocated has exactly the size that is asked for: the address sanitizer sees one byte too many. */
static void *room_for(size_t n) {
    void *room = malloc(n + !n);

    LAW(room != NULL);
    return room;
}

static uint8_t *copy_of(const uint8_t *data, size_t n) {
    uint8_t *copy = room_for(n);

    if (n) memcpy(copy, data, n);
    return copy;
}

/* A name that can be expanded comes back through a query. */
static void check_name(const uint8_t *data, size_t n, size_t at, size_t *end) {
    char text[AMG_DNS_NAME_TEXT], again[AMG_DNS_NAME_TEXT], *tight;
    uint8_t query[288];
    size_t size, length, i;

    LAW(amg_dns_name(data, n, at, text, sizeof text, end) == 0);
    LAW(*end > at && *end <= n);
    length = strlen(text);
    LAW(length < sizeof text);
    for (i = 0; i < length; i++) LAW((uint8_t)text[i] >= 0x20 && text[i] != 0x7F);
    tight = room_for(length);
    LAW(amg_dns_name(data, n, at, tight, length, NULL) == AMG_DNS_NO_ROOM);
    free(tight);
    size = amg_dns_query(query, sizeof query, 1, text, 28, 0x0100, 0);
    LAW(size == 12 + (size - 16) + 4 && size >= 17 && size <= 271);
    LAW(amg_dns_name(query, size, 12, again, sizeof again, &i) == 0 && i == size - 4);
    LAW(strcmp(text, again) == 0);
    LAW(amg_dns_query(query, size - 1, 1, text, 28, 0x0100, 0) == 0);
}

static void check_data(const uint8_t *data, size_t n, const amg_dns_record *record) {
    static const uint8_t before[] = {[AMG_DNS_NAME] = 0, [AMG_DNS_MX] = 2, [AMG_DNS_SRV] = 6, [AMG_DNS_SOA] = 0};
    size_t at = record->offset, end = at + record->length;

    if (record->shape == AMG_DNS_ADDRESS) LAW(record->length == 4 || record->length == 16);
    if (record->shape == AMG_DNS_STRINGS) {
        LAW(at < end);
        while (at < end) at += 1u + data[at];
        LAW(at == end);
    }
    if (record->shape == AMG_DNS_BYTES || record->shape == AMG_DNS_ADDRESS || record->shape == AMG_DNS_STRINGS) return;
    check_name(data, n, at + before[record->shape], &at);
    if (record->shape == AMG_DNS_SOA) {
        check_name(data, n, at, &at);
        at += 20;
    }
    LAW(at == end);
}

static void check_records(const uint8_t *data, size_t n, const amg_dns_header *header, const amg_dns_record *records) {
    const unsigned counts[4] = {header->questions, header->answers, header->authorities, header->additionals};
    size_t at = 12;
    unsigned section, i;

    for (section = 0; section < 4; section++) {
        for (i = 0; i < counts[section]; i++, records++) {
            LAW(records->section == section && records->name == at && records->shape <= AMG_DNS_SOA);
            check_name(data, n, records->name, &at);
            if (section == AMG_DNS_QUESTIONS) {
                LAW(!records->offset && !records->length && !records->shape && !records->ttl);
                at += 4;
            } else {
                LAW(records->offset == at + 10 && records->ttl <= (records->type == 41 ? UINT32_MAX : INT32_MAX));
                at = (size_t)records->offset + records->length;
                LAW(at <= n);
                check_data(data, n, records);
            }
        }
    }
    LAW(at == n);
}

static void check_text(const uint8_t *data, size_t n, const char *texts, unsigned number, size_t at) {
    char text[AMG_DNS_NAME_TEXT];

    LAW(amg_dns_name(data, n, at, text, sizeof text, NULL) == 0);
    while (number--) texts += strlen(texts) + 1;
    LAW(strcmp(texts, text) == 0);
}

/* The same through amg_dns_read_call(), with room for texts of this size. */
static void check_call(const uint8_t *data, size_t n, const amg_dns_record *wanted, size_t count, size_t size) {
    amg_dns_record *records = room_for(count * sizeof *records);
    char *texts = room_for(size);
    amg_dns_call call;
    uint32_t told;
    size_t i, nuls = 0, most = 0;

    call.records = (uintptr_t)records;
    call.max = count;
    call.text = (uintptr_t)texts;
    call.size = size;
    told = amg_dns_read_call(&call, data, (uint32_t)n);
    LAW(told == AMG_DNS_NO_ROOM ? size < 3100 * count : told <= size);
    if (told != AMG_DNS_NO_ROOM) {
        for (i = 0; i < told; i++) nuls += !texts[i];
        LAW(told ? !texts[told - 1] : !count);
        for (i = 0; i < count; i++) {
            amg_dns_record *record = &records[i];
            LAW(record->name_text < nuls && record->data_text < nuls && record->second_text < nuls);
            if (record->name_text >= most) most = record->name_text + 1u;
            if (record->data_text >= most) most = record->data_text + 1u;
            if (record->second_text >= most) most = record->second_text + 1u;
            if (i < 9) check_text(data, n, texts, record->name_text, record->name);
            if (i < 9 && record->shape == AMG_DNS_NAME) check_text(data, n, texts, record->data_text, record->offset);
            record->name_text = record->data_text = record->second_text = 0;
            LAW(memcmp(record, &wanted[i], sizeof *record) == 0);
        }
        LAW(most == nuls);
    }
    free(texts);
    free(records);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t n) {
    amg_dns_header header, again;
    amg_dns_record *records;
    uint8_t *data;
    size_t room, cut, count, end;
    uint32_t error;
    char name[AMG_DNS_NAME_TEXT];

    if (n < 2) return 0;
    room = input[0];
    cut = input[1];
    n -= 2;
    data = copy_of(input + 2, n);
    for (end = 0; end < 40; end++) {
        size_t behind = 0;
        error = amg_dns_name(data, n, end, name, sizeof name, &behind);
        LAW(error <= AMG_DNS_E_NAME_SIZE && (error || behind <= n));
    }
    records = room_for(AMG_DNS_MAX_RECORDS * sizeof *records);
    error = amg_dns_read(data, n, &header, records, AMG_DNS_MAX_RECORDS);
    LAW(error <= AMG_DNS_E_TRAILING);
    if (!error) {
        count = (size_t)header.questions + header.answers + header.authorities + header.additionals;
        LAW(count <= AMG_DNS_MAX_RECORDS && count <= n);
        check_records(data, n, &header, records);
        check_call(data, n, records, count, room * (1 + count / 8));
        check_call(data, n, records, count, 3100 * count);
        if (count) {
            amg_dns_record *fewer = room_for((count - 1) * sizeof *fewer);
            LAW(amg_dns_read(data, n, &again, fewer, count - 1) == AMG_DNS_E_TOO_MANY);
            free(fewer);
        }
        if (n) {
            uint8_t *less = copy_of(data, n - 1 - cut % n), *more = copy_of(input + 1, n + 1);
            amg_dns_record *others = room_for(count * sizeof *others);
            LAW(amg_dns_read(less, n - 1 - cut % n, &again, others, count) != 0);
            memmove(more, data, n);
            LAW(amg_dns_read(more, n + 1, &again, others, count) == AMG_DNS_E_TRAILING);
            LAW(amg_dns_read(data, n, &again, others, count) == 0 && memcmp(&again, &header, sizeof again) == 0);
            LAW(count == 0 || memcmp(others, records, count * sizeof *others) == 0);
            free(others);
            free(less);
            free(more);
        }
    }
    free(records);
    free(data);
    /* The input as the text of a name. */
    data = copy_of(input + 1, n + 1);
    data[n] = 0;
    {
        uint8_t query[288];
        size_t size = amg_dns_query(query, sizeof query, 1, (const char *)data, 1, 0, 1232), behind;
        LAW(size == 0 || (size >= 28 && size <= 282));
        if (size) {
            LAW(amg_dns_name(query, size, 12, name, sizeof name, &behind) == 0 && behind + 15 == size);
            LAW(amg_dns_read(query, size, &again, (amg_dns_record[2]){{0}}, 2) == 0 && again.additionals == 1);
        }
    }
    free(data);
    return 0;
}
