/*
 * Rows and their text as the kernel prints it (net/ipv4/tcp_ipv4.c, net/ipv6/tcp_ipv6.c), for the tests of this folder.
 */
#ifndef ROWS_H
#define ROWS_H

#include <arpa/inet.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api.h"

#define CHECK(condition)                                                                                             \
    do {                                                                                                             \
        if (!(condition)) {                                                                                          \
            fprintf(stderr, "%s:%d: %s: not so: %s\n", __FILE__, __LINE__, __func__, #condition);                    \
            abort();                                                                                                 \
        }                                                                                                            \
    } while (0)

#define HEADER4 "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"
#define HEADER6                                                                                                      \
    "  sl  local_address                         remote_address                        st tx_queue rx_queue tr "     \
    "tm->when retrnsmt   uid  timeout inode\n"

/* How many entries a directory has: descriptors or threads of a process. */
static inline int count_entries(const char *path)
{
    int count = 0;
    DIR *list = opendir(path);
    while (readdir(list))
        count++;
    closedir(list);
    return count;
}

/* A row of family 4 or 6 with a value of its own in every field. */
static inline pgs_row make_row(int family, const char *local, uint16_t local_port, const char *remote,
                               uint16_t remote_port, uint8_t state, uint64_t inode)
{
    pgs_row row = {.local_port = local_port, .remote_port = remote_port, .state = state, .timer = 2,
                   .family = (uint8_t)family, .tx_queue = 0, .rx_queue = 0, .retransmits = 0,
                   .probes = 0, .uid = 101, .inode = inode};
    char text[64];
    snprintf(text, sizeof text, "%s%s", strchr(local, ':') ? "" : "::ffff:", local);
    CHECK(inet_pton(AF_INET6, text, row.local_address) == 1);
    snprintf(text, sizeof text, "%s%s", strchr(remote, ':') ? "" : "::ffff:", remote);
    CHECK(inet_pton(AF_INET6, text, row.remote_address) == 1);
    return row;
}

static inline char *write_address(char *to, const pgs_row *row, const uint8_t address[16], uint16_t port)
{
    for (int i = row->family == 6 ? 0 : 12; i < 16; i += 4) {
        uint32_t word;
        memcpy(&word, address + i, sizeof word);
        to += sprintf(to, "%08X", word);
    }
    return to + sprintf(to, ":%04X ", port);
}

/* Writes one line with its newline and returns the place after it. Rows of TIME_WAIT and SYN_RECV are short ones. */
static inline char *write_row(char *to, int sl, const pgs_row *row)
{
    char *line = to;
    to += sprintf(to, "%4d: ", sl);
    to = write_address(to, row, row->local_address, row->local_port);
    to = write_address(to, row, row->remote_address, row->remote_port);
    to += sprintf(to, "%02X %08X:%08X %02X:%08lX %08X %5u %8d %llu %d %s", row->state, row->tx_queue, row->rx_queue,
                  row->timer, 720000ul, row->retransmits, row->uid, (int)row->probes,
                  (unsigned long long)row->inode, 1, "00000000bada8ac7");
    if (row->state != PGS_TIME_WAIT && row->state != PGS_SYN_RECV)
        to += sprintf(to, " %lu %lu %u %u %d", 20ul, 4ul, 30u, 10u, -1);
    if (row->family == 4)
        to += sprintf(to, "%*s", (int)(149 - (to - line)), ""); /* TMPSZ: only tcp pads its rows */
    *to++ = '\n';
    *to = 0;
    return to;
}

static inline char *write_header(char *to, int family)
{
    return family == 6 ? to + sprintf(to, "%s", HEADER6) : to + sprintf(to, "%-149s\n", HEADER4);
}

#endif
