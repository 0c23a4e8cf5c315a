/*
 * Text of /proc/net/tcp and tcp6 -> rows. The rule: no state, no allocation, nothing outside text[0 .. length) is read.
 *
 * The formats stand in net/ipv4/tcp_ipv4.c (get_tcp4_sock, get_openreq4, get_timewait4_sock) and their twins in
 * net/ipv6/tcp_ipv6.c. Rows of TIME_WAIT and SYN_RECV are shorter; all rows agree up to the inode, and what follows
 * the inode is not looked at.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "procnet.h"

enum {
    SL_MIN = 4,  /* `%4d:`, the row's number, which means nothing and is not examined */
    SL_MAX = 11, /* it widens from row 10000 on */
    IS_DIGIT = 0x10
};

/* Upper case digits only, as the kernel prints them. */
static const uint8_t hex_digits[256] = {
    ['0'] = 0x10, ['1'] = 0x11, ['2'] = 0x12, ['3'] = 0x13, ['4'] = 0x14, ['5'] = 0x15, ['6'] = 0x16, ['7'] = 0x17,
    ['8'] = 0x18, ['9'] = 0x19, ['A'] = 0x1A, ['B'] = 0x1B, ['C'] = 0x1C, ['D'] = 0x1D, ['E'] = 0x1E, ['F'] = 0x1F,
};

/* A place in a line. `good` loses IS_DIGIT once anything was wrong, so that the digits need no branch each. */
typedef struct cursor {
    const char *at;
    const char *end;
    uint8_t good;
} cursor;

void pgs_write_port_texts(pgs_port_texts *wanted, const uint16_t *ports, uint32_t count, int remote_too)
{
    static const char digits[] = "0123456789ABCDEF";
    wanted->count = count < PGS_MAX_PORTS ? count : PGS_MAX_PORTS;
    wanted->remote_too = remote_too;
    wanted->texts[0] = 0;
    for (uint32_t i = 0; i < wanted->count; i++) {
        char text[4] = {digits[ports[i] >> 12], digits[ports[i] >> 8 & 15], digits[ports[i] >> 4 & 15],
                        digits[ports[i] & 15]};
        wanted->texts[i] = pgs_load4(text);
    }
}

/* One or two hexadecimal digits. The caller knows that they lie within the line. */
static uint32_t take_hex(cursor *c, int digits)
{
    uint32_t value = 0;
    for (int i = 0; i < digits; i++) {
        uint8_t digit = hex_digits[(uint8_t)*c->at++];
        c->good &= digit;
        value = value << 4 | (digit & 15);
    }
    return value;
}

/* Four digits, none of which waits for the one before it. */
static uint32_t take_hex4(cursor *c)
{
    const uint8_t *at = (const uint8_t *)c->at;
    uint32_t first = hex_digits[at[0]], second = hex_digits[at[1]], third = hex_digits[at[2]], last = hex_digits[at[3]];
    c->good &= (uint8_t)(first & second & third & last);
    c->at += 4;
    return (first & 15) << 12 | (second & 15) << 8 | (third & 15) << 4 | (last & 15);
}

/* Eight digits; most queues and counters are empty. */
static uint32_t take_hex8(cursor *c)
{
    if (!memcmp(c->at, "00000000", 8)) {
        c->at += 8;
        return 0;
    }
    uint32_t high = take_hex4(c);
    return high << 16 | take_hex4(c);
}

static void expect(cursor *c, char separator)
{
    if (*c->at++ != separator)
        c->good = 0;
}

/* `%08lX`, the time left: eight digits or more, of no further interest. */
static void skip_ticks(cursor *c)
{
    for (int extra = 0; c->end - c->at > 8 && c->at[8] != ' '; extra++) {
        take_hex(c, 1);
        if (extra == 8)
            c->good = 0;
        if (!c->good)
            return;
    }
    if (c->end - c->at < 8)
        c->good = 0;
    else
        take_hex8(c);
}

/* A decimal number of at most `limit`, spaces before it, and a space or the end of the line after it. */
static uint64_t take_decimal(cursor *c, uint64_t limit)
{
    uint64_t value = 0;
    while (c->at < c->end && *c->at == ' ')
        c->at++;
    const char *first = c->at;
    for (; c->at < c->end && *c->at >= '0' && *c->at <= '9'; c->at++) {
        uint64_t digit = (uint64_t)(*c->at - '0');
        if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, digit, &value))
            c->good = 0;
    }
    if (c->at == first || value > limit || (c->at < c->end && *c->at != ' '))
        c->good = 0;
    return value;
}

/* An address is printed as 32-bit words in the machine's byte order; stored in memory they are in network order. */
static void take_address(cursor *c, int words, uint8_t out[16])
{
    static const uint8_t v4_mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    memcpy(out, v4_mapped, sizeof v4_mapped);
    for (uint8_t *to = out + 16 - 4 * words; to < out + 16; to += 4) {
        uint32_t word = take_hex8(c);
        memcpy(to, &word, sizeof word);
    }
}

/* `st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode`, from the state on. */
static int take_numbers(cursor *c, pgs_row *row)
{
    enum { UP_TO_TICKS = 24 }; /* "01 00000000:00000000 02:" */
    if (c->end - c->at < UP_TO_TICKS)
        return 0;
    row->state = (uint8_t)take_hex(c, 2);
    expect(c, ' ');
    row->tx_queue = take_hex8(c);
    expect(c, ':');
    row->rx_queue = take_hex8(c);
    expect(c, ' ');
    row->timer = (uint8_t)take_hex(c, 2);
    expect(c, ':');
    skip_ticks(c);
    if (!c->good || c->end - c->at < 1 + 8 + 1)
        return 0;
    expect(c, ' ');
    row->retransmits = take_hex8(c);
    if (*c->at != ' ')
        return 0;
    row->uid = (uint32_t)take_decimal(c, UINT32_MAX);
    row->probes = (uint32_t)take_decimal(c, UINT32_MAX);
    row->inode = take_decimal(c, UINT64_MAX);
    if (row->state == PGS_NEW_SYN_RECV)
        row->state = PGS_SYN_RECV; /* what the kernel prints for it (get_openreq4) */
    return c->good && row->state >= PGS_ESTABLISHED && row->state <= PGS_CLOSING;
}

enum pgs_line pgs_parse_line(const char *line, const char *end, int family, const pgs_port_texts *wanted, pgs_row *row)
{
    static const char header[] = "  sl  local_address";
    const size_t length = (size_t)(end - line);
    const int words = family == 6 ? 4 : 1;
    const ptrdiff_t port = 2 + 8 * words;         /* after the colon of `sl`: " ADDRESS:PORT ADDRESS:PORT " */
    const ptrdiff_t remote_port = 2 * port + 4;
    if (length < sizeof header - 1 || length >= PGS_MAX_ROW_TEXT)
        return PGS_LINE_MALFORMED;
    const char *colon = line + SL_MIN;
    while (colon < line + SL_MAX && *colon != ':')
        colon++;
    if (*colon != ':')
        return memcmp(line, header, sizeof header - 1) ? PGS_LINE_MALFORMED : PGS_LINE_HEADER;
    const char *sides = colon + 1;
    if (end - sides < remote_port + 5)
        return PGS_LINE_MALFORMED;
    if (sides[0] != ' ' || sides[port - 1] != ':' || sides[port + 4] != ' ' || sides[remote_port - 1] != ':' ||
        sides[remote_port + 4] != ' ')
        return PGS_LINE_MALFORMED;
    if (!pgs_is_wanted(wanted, sides + port, sides + remote_port))
        return PGS_LINE_SKIPPED;
    cursor c = {sides + 1, end, IS_DIGIT};
    take_address(&c, words, row->local_address);
    expect(&c, ':');
    row->local_port = (uint16_t)take_hex4(&c);
    expect(&c, ' ');
    take_address(&c, words, row->remote_address);
    expect(&c, ':');
    row->remote_port = (uint16_t)take_hex4(&c);
    expect(&c, ' ');
    row->family = (uint8_t)family;
    row->reserved = 0;
    row->bound_interface = 0;
    row->cookie = 0;
    return take_numbers(&c, row) ? PGS_LINE_ROW : PGS_LINE_MALFORMED;
}

void pgs_parse(const char *text, uint64_t length, int family, const uint16_t *ports, uint32_t port_count,
               int remote_too, pgs_row *out, uint32_t capacity, pgs_parse_result *result)
{
    pgs_port_texts wanted;
    const char *line = text, *const end = text + length;
    pgs_write_port_texts(&wanted, ports, port_count, remote_too);
    memset(result, 0, sizeof *result);
    while (line < end) {
        const char *newline = memchr(line, '\n', (size_t)(end - line));
        if (!newline)
            break;
        pgs_row row; /* a local one: the line that would not fit `out` is parsed, to know that it is a row */
        enum pgs_line kind = pgs_parse_line(line, newline, family, &wanted, &row);
        if (kind == PGS_LINE_ROW) {
            if (result->rows == capacity)
                break;
            out[result->rows++] = row;
        }
        result->skipped += kind == PGS_LINE_SKIPPED;
        result->malformed += kind == PGS_LINE_MALFORMED;
        result->lines++;
        line = newline + 1;
    }
    result->consumed = (uint64_t)(line - text);
}
