/*
 * Inside the native side: the text tables of one namespace. They are used by one thread at a time.
 */
#ifndef PGSONAR_SCAN_H
#define PGSONAR_SCAN_H

#include "procnet.h"

enum { PGS_TABLES = 2 }; /* tcp and tcp6 */

/* The kept-open tables of one namespace. */
typedef struct pgs_tables {
    int descriptors[PGS_TABLES]; /* -1: there is no tcp6 */
    int is_procfs[PGS_TABLES];   /* a plain file stands there in tests and recordings */
} pgs_tables;

int pgs_tables_open(pgs_tables *tables, const char *net_directory);
void pgs_tables_close(pgs_tables *tables);

/* What texts are read into; whoever scans has one. */
char *pgs_text_new(void);

/* Meets the rows of every table, from its beginning to its end, within a walk of `table`. Anything but PGS_OK means
 * that they are incomplete and must not be used; errno is EBADMSG when a text had no header or ended in mid line. */
int pgs_tables_walk(const pgs_tables *tables, char *text, pgs_table *table, const pgs_ports *ports,
                    pgs_text_counts *counts);

#endif
