/*
 * Inside the native side: the text of /proc/net/tcp and tcp6, line by line, and compared with the last scan's.
 */
#ifndef PGSONAR_PROCNET_H
#define PGSONAR_PROCNET_H

#include <string.h>

#include "diagmsg.h"
#include "table.h"

/* The ports looked for, as the four digits of their text: a row of no interest is turned away undecoded. */
typedef struct pgs_port_texts {
    uint32_t texts[PGS_MAX_PORTS];
    uint32_t count;
    int remote_too;
} pgs_port_texts;

void pgs_write_port_texts(pgs_port_texts *wanted, const uint16_t *ports, uint32_t count, int remote_too);

static inline uint32_t pgs_load4(const char *text)
{
    uint32_t value;
    memcpy(&value, text, sizeof value);
    return value;
}

static inline int pgs_is_wanted(const pgs_port_texts *wanted, const char *local, const char *remote)
{
    const uint32_t local_text = pgs_load4(local);
    for (uint32_t i = 0; i < wanted->count; i++)
        if (wanted->texts[i] == local_text || (wanted->remote_too && wanted->texts[i] == pgs_load4(remote)))
            return 1;
    return wanted->count == 0;
}

enum pgs_line { PGS_LINE_ROW, PGS_LINE_SKIPPED, PGS_LINE_HEADER, PGS_LINE_MALFORMED };

/* Reads the line [line .. end), without its newline. */
enum pgs_line pgs_parse_line(const char *line, const char *end, int family, const pgs_port_texts *wanted,
                             pgs_row *row);

enum {
    PGS_PADDED = 150,      /* bytes of a line of tcp, with its newline: get_tcp4_sock pads them (TMPSZ) */
    PGS_TEXT_SLACK = 256   /* bytes after a text that may be read, whatever they are */
};

typedef struct pgs_text_counts {
    uint32_t rows;
    uint32_t skipped;
    uint32_t malformed;
} pgs_text_counts;

/* Meets the rows of complete lines of one table, within a walk of `table`. `is_kernels`: the text is known to come from
 * the kernel, so that lines of tcp have PGS_PADDED bytes and those of tcp6 are not shorter than their columns.
 * Returns the bytes consumed, or an error. */
int64_t pgs_merge_text(pgs_table *table, const char *text, uint64_t length, int family, int is_kernels,
                       const pgs_port_texts *wanted, pgs_text_counts *counts);

#endif
