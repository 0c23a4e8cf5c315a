/*
 * Text of /proc/net/tcp and tcp6 -> rows. The rule: no state, no allocation, nothing outside text[0 .. length) is read.
 *
 * The formats stand in net/ipv4/tcp_ipv4.c (get_tcp4_sock, get_openreq4, get_timewait4_sock) and their twins in
 * net/ipv6/tcp_ipv6.c. Rows of TIME_WAIT and SYN_RECV end after the socket's address; everything up to the inode is
 * there in all of them, and what follows the inode is not looked at.
 */
#include "scan.h"

#include <string.h>

enum {
    SL_WIDTH = 4,      /* `%4d:`, wider from row 10000 on */
    SL_MAX = 11,
    HEX_INVALID = 0x80 /* mark of a byte that is no digit, see hex_digits */
};

#define NO 0x80
/* The value of each upper case hexadecimal digit, as the kernel prints them. */
static const uint8_t hex_digits[256] = {
    NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO,
    NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, 0,  1,  2,  3,
    4,  5,  6,  7,  8,  9,  NO, NO, NO, NO, NO, NO, NO, 10, 11, 12, 13, 14, 15, NO, NO, NO, NO, NO, NO, NO,
    NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO,
    NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO,
    NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO,
    NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO,
    NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO,
    NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO,
    NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO,
};
#undef NO

/* The ports looked for, as the four digits of their text: a row of no interest is turned away undecoded. */
typedef struct port_texts {
    uint32_t texts[PGS_MAX_PORTS];
    uint32_t count;
    int remote_too;
} port_texts;

/* A place in a line. `bad` collects what was wrong, so that digits need no branch each. */
typedef struct cursor {
    const char *at;
    const char *end;
    uint8_t bad;
} cursor;

static uint32_t load_text4(const char *text)
{
    uint32_t value;
    memcpy(&value, text, sizeof value);
    return value;
}

static void write_port_texts(port_texts *wanted, const uint16_t *ports, uint32_t count, int remote_too)
{
    static const char digits[] = "0123456789ABCDEF";
    wanted->count = count < PGS_MAX_PORTS ? count : PGS_MAX_PORTS;
    wanted->remote_too = remote_too;
    for (uint32_t i = 0; i < wanted->count; i++) {
        char text[4] = {digits[ports[i] >> 12], digits[ports[i] >> 8 & 15], digits[ports[i] >> 4 & 15],
                        digits[ports[i] & 15]};
        wanted->texts[i] = load_text4(text);
    }
}

static int is_wanted(const port_texts *wanted, const char *local, const char *remote)
{
    uint32_t local_text = load_text4(local), remote_text = load_text4(remote);
    for (uint32_t i = 0; i < wanted->count; i++)
        if (wanted->texts[i] == local_text || (wanted->remote_too && wanted->texts[i] == remote_text))
            return 1;
    return wanted->count == 0;
}

/* Exactly `digits` hexadecimal digits and the byte after them. */
static uint32_t take_hex(cursor *c, int digits, char separator)
{
    uint32_t value = 0;
    if (c->end - c->at <= digits) {
        c->bad = HEX_INVALID;
        return 0;
    }
    for (int i = 0; i < digits; i++) {
        uint8_t digit = hex_digits[(uint8_t)c->at[i]];
        c->bad |= digit & HEX_INVALID;
        value = value << 4 | (digit & 15);
    }
    c->bad |= c->at[digits] == separator ? 0 : HEX_INVALID;
    c->at += digits + 1;
    return value;
}

/* `%08lX `: at least eight digits, capped at 32 bits. */
static uint32_t take_ticks(cursor *c)
{
    int more = 0;
    while (c->end - c->at > more && c->at[more] != ' ')
        more++;
    more -= 8;
    if (more < 0 || more > 8) {
        c->bad = HEX_INVALID;
        return 0;
    }
    uint32_t high = 0;
    for (; more > 0; more--) {
        uint8_t digit = hex_digits[(uint8_t)*c->at++];
        c->bad |= digit & HEX_INVALID;
        high |= digit;
    }
    uint32_t low = take_hex(c, 8, ' ');
    return high ? UINT32_MAX : low;
}

/* A decimal number of at most `limit` after any spaces, before a space or the end of the line. */
static uint64_t take_decimal(cursor *c, uint64_t limit)
{
    uint64_t value = 0;
    while (c->at < c->end && *c->at == ' ')
        c->at++;
    const char *first = c->at;
    for (; c->at < c->end && *c->at >= '0' && *c->at <= '9'; c->at++) {
        uint64_t digit = (uint64_t)(*c->at - '0');
        if (value > (limit - digit) / 10) {
            c->bad = HEX_INVALID;
            return 0;
        }
        value = value * 10 + digit;
    }
    if (c->at == first || (c->at < c->end && *c->at != ' '))
        c->bad = HEX_INVALID;
    return value;
}

/* The kernel prints each 32-bit word of an address as a number of its own byte order; in memory it is in network order. */
static void take_address(cursor *c, int family, uint8_t out[16])
{
    uint32_t words[4] = {0, 0, 0, 0};
    if (family == 6) {
        for (int i = 0; i < 3; i++) {
            c->at--; /* there is no separator between the words: step back over the byte taken for one */
            words[i] = take_hex(c, 8, c->end - c->at > 9 ? c->at[9] : ':');
        }
    }
    (void)out;
    (void)words;
}
