/*
 * Inside the native side: one reading of a namespace's TCP tables. It owns its descriptors and buffers and is used by
 * one thread at a time.
 */
#ifndef PGSONAR_SCAN_H
#define PGSONAR_SCAN_H

#include "api.h"

enum { PGS_TABLES = 2 }; /* tcp and tcp6 */

/* The kept-open tables of one namespace. */
typedef struct pgs_tables {
    int descriptors[PGS_TABLES]; /* -1: there is no tcp6 */
    int is_procfs[PGS_TABLES];   /* a plain file stands there in tests and recordings */
} pgs_tables;

/* Which ports a scan keeps. */
typedef struct pgs_ports {
    uint16_t ports[PGS_MAX_PORTS];
    uint32_t count;
    int remote_too;
} pgs_ports;

/* What one reading of all tables gave, and the buffers it needs again and again. */
typedef struct pgs_reading {
    pgs_row *rows;
    uint32_t count;
    uint32_t capacity;
    uint32_t skipped;
    uint32_t malformed;
    char *text;
    uint64_t text_size;
} pgs_reading;

int pgs_tables_open(pgs_tables *tables, const char *net_directory);
void pgs_tables_close(pgs_tables *tables);

int pgs_reading_init(pgs_reading *reading);
void pgs_reading_free(pgs_reading *reading);

/* Reads every table from its beginning to its end. Anything but PGS_OK means that the rows are incomplete and must not
 * be used; errno is EBADMSG when a text had no header or ended in mid line. */
int pgs_reading_take(pgs_reading *reading, const pgs_tables *tables, const pgs_ports *ports);

#endif
