/* DNS messages (RFC 1035 section 4): one call checks a whole message and tells where everything in it lies. Contracts are in
 * amg.h. Of several faults of a message the one is told that the portable codec tells: fields are looked at in the same
 * order.
 * SPDX-License-Identifier: MIT
 */
#include "amg.h"

#include <string.h>

enum { HEADER = 12, QUESTION = 4 /* behind its name */, FIXED = 10 /* of a record, behind its name */ };
enum { MAX_NAME = 255, MAX_LABEL = 63, MAX_POINTERS = 127 };
enum { CLASS_IN = 1, TOP_BIT = 0x8000 /* of a class in mDNS (RFC 6762 section 18.12) */ };
enum { A = 1, NS = 2, CNAME = 5, SOA = 6, PTR = 12, MX = 15, TXT = 16, AAAA = 28, SRV = 33, OPT = 41 };
enum { SRV_FIXED = 6, SOA_FIXED = 20 };

static uint16_t amg__u16(const uint8_t *data) { return (uint16_t)(data[0] << 8 | data[1]); }

static uint32_t amg__u32(const uint8_t *data) { return (uint32_t)amg__u16(data) << 16 | amg__u16(data + 2); }

static void amg__put_u16(uint8_t *out, unsigned number) {
    out[0] = (uint8_t)(number >> 8);
    out[1] = (uint8_t)number;
}

/* -- names ------------------------------------------------------------------------------------------------------------ */

typedef struct { /* a name on which we are going from label to label */
    const uint8_t *data;
    size_t n, at;
    size_t begin;  /* a pointer must lead to a place before this: so there are no circles */
    size_t behind; /* of the name, once a pointer has been followed; 0: none has been */
    unsigned size, pointers;
    uint32_t error; /* AMG_DNS_E_ */
} amg__name;

static void amg__begin_name(amg__name *name, const uint8_t *data, size_t n, size_t at) {
    memset(name, 0, sizeof *name);
    name->data = data;
    name->n = n;
    name->at = name->begin = at;
    name->size = 1;
}

static int amg__refuse_name(amg__name *name, uint32_t error) {
    name->error = error;
    return -1;
}

/* Go over the next label, and the pointers before it. Returns its length: it ends at name->at; 0: the name has ended, and
 * name->behind is the place behind it; -1: name->error. */
static int amg__next_label(amg__name *name) {
    for (;;) {
        size_t target;
        unsigned length;
        if (name->at >= name->n) return amg__refuse_name(name, AMG_DNS_E_TRUNCATED);
        length = name->data[name->at];
        if (!length) {
            if (!name->behind) name->behind = name->at + 1;
            return 0;
        }
        if (length <= MAX_LABEL) {
            if (name->n - name->at - 1 < length) return amg__refuse_name(name, AMG_DNS_E_TRUNCATED);
            name->size += length + 1;
            if (name->size > MAX_NAME) return amg__refuse_name(name, AMG_DNS_E_NAME_SIZE);
            name->at += length + 1;
            return (int)length;
        }
        if (length < 0xC0) return amg__refuse_name(name, AMG_DNS_E_LABEL);
        if (name->n - name->at < 2) return amg__refuse_name(name, AMG_DNS_E_TRUNCATED);
        target = amg__u16(name->data + name->at) & 0x3FFFu;
        if (!name->behind) name->behind = name->at + 2;
        if (target >= name->begin || target < HEADER || ++name->pointers > MAX_POINTERS)
            return amg__refuse_name(name, AMG_DNS_E_POINTER);
        name->begin = name->at = target;
    }
}

/* Check the name at *at and go behind it; AMG_DNS_E_ or 0. */
static uint32_t amg__skip_name(const uint8_t *data, size_t n, size_t *at) {
    amg__name name;
    int length;

    amg__begin_name(&name, data, n, *at);
    while ((length = amg__next_label(&name)) > 0) {}
    *at = name.behind;
    return name.error;
}

static int amg__is_special(uint8_t byte) { return byte < 0x20 || byte == 0x7F || byte == '.' || byte == '\\'; }

/* Write a label as it stands in a name; four bytes for each of its own are there. Returns the end of what is written. */
static char *amg__write_label(char *out, const uint8_t *label, size_t length) {
    size_t i;

    for (i = 0; i < length; i++) {
        uint8_t byte = label[i];
        if (amg__is_special(byte)) *out++ = '\\';
        if (amg__is_special(byte) && byte != '.' && byte != '\\') {
            *out++ = (char)('0' + byte / 100);
            *out++ = (char)('0' + byte / 10 % 10);
            *out++ = (char)('0' + byte % 10);
        } else {
            *out++ = (char)byte;
        }
    }
    return out;
}

/* Write the name, and a NUL; *used: how many bytes of out. AMG_DNS_E_, AMG_DNS_NO_ROOM or 0. */
static uint32_t amg__write_name(amg__name *name, char *out, size_t size, size_t *used) {
    char *end = out;
    int length;

    while ((length = amg__next_label(name)) > 0) {
        if (size - (size_t)(end - out) < 4 * (size_t)length + 2) return AMG_DNS_NO_ROOM;
        if (end != out) *end++ = '.';
        end = amg__write_label(end, name->data + name->at - length, (size_t)length);
    }
    if (length < 0) return name->error;
    if (size == (size_t)(end - out)) return AMG_DNS_NO_ROOM;
    *end++ = 0;
    *used = (size_t)(end - out);
    return 0;
}

uint32_t amg_dns_name(const uint8_t *data, size_t n, size_t offset, char *out, size_t size, size_t *end) {
    amg__name name;
    size_t used;
    uint32_t error;

    amg__begin_name(&name, data, n, offset);
    error = amg__write_name(&name, out, size, &used);
    if (!error && end) *end = name.behind;
    return error;
}

/* -- records ---------------------------------------------------------------------------------------------------------- */

static uint8_t amg__shape(const amg_dns_record *record) {
    if ((record->class_code & ~(unsigned)TOP_BIT) != CLASS_IN) return AMG_DNS_BYTES;
    switch (record->type) {
        case A:
        case AAAA: return AMG_DNS_ADDRESS;
        case NS:
        case CNAME:
        case PTR: return AMG_DNS_NAME;
        case MX: return AMG_DNS_MX;
        case TXT: return AMG_DNS_STRINGS;
        case SRV: return AMG_DNS_SRV;
        case SOA: return AMG_DNS_SOA;
        default: return AMG_DNS_BYTES;
    }
}

static uint32_t amg__check_strings(const uint8_t *data, size_t at, size_t end) {
    if (at == end) return AMG_DNS_E_DATA_SIZE; /* one or more (RFC 1035 section 3.3.14) */
    while (at < end) {
        size_t length = data[at];
        if (end - at - 1 < length) return AMG_DNS_E_DATA_SIZE;
        at += 1 + length;
    }
    return 0;
}

/* Check the data of a record, which is there in full length. Names in it must end where it ends. */
static uint32_t amg__check_data(const uint8_t *data, size_t n, const amg_dns_record *record) {
    /* By AMG_DNS_: bytes before the names, and behind them. */
    static const struct {
        uint8_t before, names, behind;
    } forms[] = {[AMG_DNS_NAME] = {0, 1, 0}, [AMG_DNS_MX] = {2, 1, 0}, [AMG_DNS_SRV] = {SRV_FIXED, 1, 0},
                 [AMG_DNS_SOA] = {0, 2, SOA_FIXED}};
    size_t at = record->offset, end = at + record->length;
    unsigned shape = record->shape, i;

    if (shape == AMG_DNS_BYTES) return 0;
    if (shape == AMG_DNS_ADDRESS) return record->length == (record->type == A ? 4u : 16u) ? 0 : AMG_DNS_E_DATA_SIZE;
    if (shape == AMG_DNS_STRINGS) return amg__check_strings(data, at, end);
    if (record->length < forms[shape].before) return AMG_DNS_E_DATA_SIZE;
    at += forms[shape].before;
    for (i = 0; i < forms[shape].names; i++) {
        uint32_t error = amg__skip_name(data, n, &at);
        if (error) return error;
    }
    return at <= end && end - at == forms[shape].behind ? 0 : AMG_DNS_E_DATA_SIZE;
}

/* Read a record, or a question, at *at and go behind it. */
static uint32_t amg__read_record(const uint8_t *data, size_t n, size_t *at, amg_dns_record *record) {
    int is_question = record->section == AMG_DNS_QUESTIONS;
    const uint8_t *fixed;
    uint32_t error;

    record->name = (uint32_t)*at;
    error = amg__skip_name(data, n, at);
    if (error) return error;
    if (n - *at < (is_question ? (size_t)QUESTION : (size_t)FIXED)) return AMG_DNS_E_TRUNCATED;
    fixed = data + *at;
    record->type = amg__u16(fixed);
    record->class_code = amg__u16(fixed + 2);
    if (is_question) {
        *at += QUESTION;
        return 0;
    }
    record->ttl = amg__u32(fixed + 4);
    if (record->ttl > 0x7FFFFFFFu && record->type != OPT) record->ttl = 0; /* RFC 2181 section 8 */
    record->length = amg__u16(fixed + 8);
    *at += FIXED;
    record->offset = (uint32_t)*at;
    if (n - *at < record->length) return AMG_DNS_E_TRUNCATED;
    *at += record->length;
    record->shape = amg__shape(record);
    return amg__check_data(data, n, record);
}

uint32_t amg_dns_read(const uint8_t *data, size_t n, amg_dns_header *header, amg_dns_record *records, size_t max) {
    size_t at = HEADER, total = 0;
    uint16_t counts[4];
    unsigned section, i;
    uint32_t error;

    if (n < HEADER) return AMG_DNS_E_TRUNCATED;
    for (i = 0; i < 4; i++) total += counts[i] = amg__u16(data + 4 + 2 * i);
    if (total > AMG_DNS_MAX_RECORDS || total > max) return AMG_DNS_E_TOO_MANY;
    header->id = amg__u16(data);
    header->flags = amg__u16(data + 2);
    header->questions = counts[AMG_DNS_QUESTIONS];
    header->answers = counts[AMG_DNS_ANSWERS];
    header->authorities = counts[AMG_DNS_AUTHORITIES];
    header->additionals = counts[AMG_DNS_ADDITIONALS];
    for (section = 0; section < 4; section++) {
        for (i = 0; i < counts[section]; i++) {
            memset(records, 0, sizeof *records);
            records->section = (uint8_t)section;
            error = amg__read_record(data, n, &at, records++);
            if (error) return error;
        }
    }
    return at == n ? 0 : AMG_DNS_E_TRAILING;
}

/* -- texts ------------------------------------------------------------------------------------------------------------ */

enum { KNOWN = 16 };

typedef struct {
    const uint8_t *data;
    size_t n;
    char *text;
    size_t size, used;
    uint16_t count;
    unsigned known_count; /* names that later ones may point to; without the rest of them texts come twice, no more */
    struct {
        size_t at;
        uint16_t number;
    } known[KNOWN];
} amg__texts;

/* Write the name at a place of a message that has been checked, unless it is there already; tell the number of its text. */
static int amg__add_name(amg__texts *texts, size_t at, uint16_t *number) {
    amg__name name;
    size_t used;
    unsigned i;

    while (texts->data[at] >= 0xC0) at = amg__u16(texts->data + at) & 0x3FFFu;
    for (i = 0; i < texts->known_count; i++) {
        if (texts->known[i].at == at) {
            *number = texts->known[i].number;
            return 1;
        }
    }
    amg__begin_name(&name, texts->data, texts->n, at);
    if (amg__write_name(&name, texts->text + texts->used, texts->size - texts->used, &used)) return 0;
    texts->used += used;
    *number = texts->count++;
    if (texts->known_count < KNOWN) {
        texts->known[texts->known_count].at = at;
        texts->known[texts->known_count++].number = *number;
    }
    return 1;
}

static char *amg__write_ipv4(char *out, const uint8_t *raw) {
    unsigned i;

    for (i = 0; i < 4; i++) {
        if (i) *out++ = '.';
        if (raw[i] >= 100) *out++ = (char)('0' + raw[i] / 100);
        if (raw[i] >= 10) *out++ = (char)('0' + raw[i] / 10 % 10);
        *out++ = (char)('0' + raw[i] % 10);
    }
    return out;
}

static char *amg__write_group(char *out, unsigned group) {
    int shift = group > 0xFFF ? 12 : group > 0xFF ? 8 : group > 0xF ? 4 : 0;

    for (; shift >= 0; shift -= 4) *out++ = "0123456789abcdef"[group >> shift & 15u];
    return out;
}

/* RFC 5952: the first of the longest runs of at least two zero groups is left out. */
static char *amg__write_ipv6(char *out, const uint8_t *raw) {
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF};
    unsigned i, zeros = 0, longest = 1, gap = 8;

    if (memcmp(raw, mapped, sizeof mapped) == 0) {
        memcpy(out, "::ffff:", 7);
        return amg__write_ipv4(out + 7, raw + 12);
    }
    for (i = 0; i < 8; i++) {
        zeros = amg__u16(raw + 2 * i) ? 0 : zeros + 1;
        if (zeros > longest) {
            longest = zeros;
            gap = i + 1 - zeros;
        }
    }
    for (i = 0; i < 8;) {
        if (i == gap) {
            *out++ = ':';
            *out++ = ':';
            i += longest;
        } else {
            if (i && out[-1] != ':') *out++ = ':';
            out = amg__write_group(out, amg__u16(raw + 2 * i++));
        }
    }
    return out;
}

static int amg__add_address(amg__texts *texts, const amg_dns_record *record, uint16_t *number) {
    const uint8_t *raw = texts->data + record->offset;
    char *begin = texts->text + texts->used, *end;

    if (texts->size - texts->used < AMG_DNS_ADDRESS_TEXT) return 0;
    end = record->type == A ? amg__write_ipv4(begin, raw) : amg__write_ipv6(begin, raw);
    *end++ = 0;
    texts->used += (size_t)(end - begin);
    *number = texts->count++;
    return 1;
}

static int amg__add_data(amg__texts *texts, amg_dns_record *record) {
    size_t at = record->offset;

    switch (record->shape) {
        case AMG_DNS_ADDRESS: return amg__add_address(texts, record, &record->data_text);
        case AMG_DNS_NAME: return amg__add_name(texts, at, &record->data_text);
        case AMG_DNS_MX: return amg__add_name(texts, at + 2, &record->data_text);
        case AMG_DNS_SRV: return amg__add_name(texts, at + SRV_FIXED, &record->data_text);
        case AMG_DNS_SOA:
            if (!amg__add_name(texts, at, &record->data_text)) return 0;
            amg__skip_name(texts->data, texts->n, &at);
            return amg__add_name(texts, at, &record->second_text);
        default: return 1;
    }
}

uint32_t amg_dns_read_call(amg_dns_call *call, const uint8_t *data, uint32_t n) {
    amg_dns_record *records = (amg_dns_record *)(uintptr_t)call->records;
    amg_dns_header header;
    amg__texts texts;
    size_t count, i;
    uint32_t error = amg_dns_read(data, n, &header, records, (size_t)call->max);

    if (error) return AMG_DNS_REFUSED | error;
    memset(&texts, 0, sizeof texts);
    texts.data = data;
    texts.n = n;
    texts.text = (char *)(uintptr_t)call->text;
    texts.size = (size_t)call->size;
    count = (size_t)header.questions + header.answers + header.authorities + header.additionals;
    for (i = 0; i < count; i++) {
        if (!amg__add_name(&texts, records[i].name, &records[i].name_text)) return AMG_DNS_NO_ROOM;
        if (!amg__add_data(&texts, &records[i])) return AMG_DNS_NO_ROOM;
    }
    return (uint32_t)texts.used;
}

/* -- queries ---------------------------------------------------------------------------------------------------------- */

/* Take the next byte of a label out of a text, and its backslash; -1: no such escape. */
static int amg__unescape(const char **text) {
    const char *at = *text;
    unsigned i, number = 0;

    if (*at != '\\') return (uint8_t)*(*text)++;
    at++;
    if (*at && (*at < '0' || *at > '9')) {
        *text = at + 1;
        return (uint8_t)*at;
    }
    for (i = 0; i < 3; i++, at++) {
        if (*at < '0' || *at > '9') return -1;
        number = number * 10 + (unsigned)(*at - '0');
    }
    *text = at;
    return number > 255 ? -1 : (int)number;
}

/* Write a name as it is on the wire; out: MAX_NAME bytes. Returns its size, 0 when the text is no name. */
static size_t amg__encode_name(uint8_t *out, const char *text) {
    size_t begin = 0, at = 1; /* of the label's length, and of its next byte */

    if (text[0] == '.' && !text[1]) text++;
    while (*text) {
        if (*text == '.') {
            if (at == begin + 1) return 0;
            out[begin] = (uint8_t)(at - begin - 1);
            begin = at++;
            text++;
        } else {
            int byte = amg__unescape(&text);
            if (byte < 0 || at - begin > MAX_LABEL || at >= MAX_NAME - 1) return 0;
            out[at++] = (uint8_t)byte;
        }
    }
    if (at > begin + 1) {
        out[begin] = (uint8_t)(at - begin - 1);
        begin = at;
    }
    out[begin] = 0;
    return begin + 1;
}

size_t amg_dns_query(uint8_t *out, size_t size, uint16_t id, const char *name, uint16_t type, uint16_t flags,
                     uint16_t udp_size) {
    uint8_t wire[MAX_NAME + 1];
    size_t length = amg__encode_name(wire, name), whole = HEADER + length + QUESTION + (udp_size ? 1 + FIXED : 0);
    uint8_t *at;

    if (!length || size < whole) return 0;
    memset(out, 0, whole);
    amg__put_u16(out, id);
    amg__put_u16(out + 2, flags);
    out[5] = 1;
    out[11] = udp_size != 0;
    memcpy(out + HEADER, wire, length);
    at = out + HEADER + length;
    amg__put_u16(at, type);
    amg__put_u16(at + 2, CLASS_IN);
    if (udp_size) { /* an OPT record of the root (RFC 6891 section 6.1.2) */
        amg__put_u16(at + QUESTION + 1, OPT);
        amg__put_u16(at + QUESTION + 3, udp_size);
    }
    return whole;
}
