/*
 * Instructions of one row, for callgrind: `instructions wanted|filtered|wanted6|filtered6 ROWS ROUNDS` scans ROWS
 * rows ROUNDS times. The time left moves from round to round, nothing else does. What one row costs is the difference
 * of two runs with R and 2 R rounds, divided by R times ROWS, so that neither start-up nor the first scan counts.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "procnet.h"

enum { PAGE_ROWS = 27, LONGEST = 200 };

static int write_line(char *to, int number, int family, unsigned port, unsigned round)
{
    const char *zeros = family == 6 ? "000000000000000000000000" : "";
    int length = sprintf(to, "%4d: %s0100007F:%04X %s%08X:%04X 01 00000000:00000000 02:%08X 00000000 %5u %8d %d 1 "
                         "0000000000000000 20 4 30 10 -1",
                         number, zeros, port, zeros, 0x0100007Fu + (unsigned)number / 50000,
                         10000 + (unsigned)number % 50000, 0xAFC80 - round, 101u, 0, 4026531 + number);
    if (family == 4)
        length += sprintf(to + length, "%*s", 149 - length, "");
    to[length++] = '\n';
    return length;
}

int main(int count, char **arguments)
{
    if (count != 4) {
        fprintf(stderr, "usage: instructions wanted|filtered|wanted6|filtered6 ROWS ROUNDS\n");
        return 2;
    }
    const int family = strchr(arguments[1], '6') ? 6 : 4, rows = atoi(arguments[2]), rounds = atoi(arguments[3]);
    const unsigned port = arguments[1][0] == 'w' ? 5432 : 8080;
    const uint16_t ports[] = {5432};
    char *text = malloc((size_t)rows * LONGEST + PGS_TEXT_SLACK);
    pgs_port_texts wanted;
    pgs_ring ring;
    pgs_table table;
    uint64_t seen = 0;
    pgs_write_port_texts(&wanted, ports, 1, 0);
    if (!text || pgs_ring_init(&ring, (uint32_t)rows + 1) != PGS_OK)
        return 1;
    pgs_table_init(&table, 7, 42, &ring);
    size_t length = 0;
    for (int i = 0; i < rows; i++)
        length += (size_t)write_line(text + length, i, family, port, 0);
    for (int round = 1; round <= rounds; round++) {
        pgs_text_counts counts = {0};
        if (pgs_table_begin(&table) != PGS_OK)
            return 1;
        for (size_t done = 0; done < length;) {
            size_t page = PAGE_ROWS * 150 < length - done ? PAGE_ROWS * 150 : length - done;
            int64_t taken = pgs_merge_text(&table, text + done, page, family, 1, &wanted, &counts);
            if (taken <= 0)
                return 1;
            done += (size_t)taken;
        }
        if (pgs_table_finish(&table, (uint64_t)round, PGS_ABSENT_TWICE) != PGS_OK)
            return 1;
        seen += counts.rows + counts.skipped;
    }
    printf("%llu rows, %u known\n", (unsigned long long)seen, table.count);
    pgs_table_free(&table);
    pgs_ring_free(&ring);
    free(text);
    return 0;
}
