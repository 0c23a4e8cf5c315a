/*
 * Inside the native side: a netlink socket of NETLINK_SOCK_DIAG in one network namespace, used by one thread at a time.
 */
#ifndef PGSONAR_SOCKDIAG_H
#define PGSONAR_SOCKDIAG_H

#include "diagmsg.h"
#include "table.h"

typedef struct pgs_diag {
    int questions;      /* dumps and lookups; -1: not open */
    int ends;           /* destroy notifications; -1: not joined */
    int is_queue_short; /* of ends: it must be emptied often */
    int namespace_file; /* where sockets are opened; -1: in the caller's own namespace */
    uint32_t sequence;
    uint8_t *buffer;    /* answers, and behind them a batch of requests */
} pgs_diag;

/* The end of a connection, as the kernel told it. */
typedef struct pgs_end {
    pgs_row row;
    pgs_details details;
} pgs_end;

enum {
    PGS_BATCH = 64 /* lookups of one send, ends of one reading */
};

/* Opens the socket in the namespace of `net_directory`, and asks it once. Returns PGS_OK, PGS_E_NOMEM, or
 * PGS_E_REFUSED with the reason in errno. */
int pgs_diag_open(pgs_diag *diag, const char *net_directory, const char *netns_file);
void pgs_diag_close(pgs_diag *diag);

/* Another socket in place of one that failed. */
int pgs_diag_reopen(pgs_diag *diag);

/* Meets all sockets on the ports within a walk of `table`, with what TCP_INFO tells of them or without. */
int pgs_diag_walk(pgs_diag *diag, pgs_table *table, const pgs_ports *ports, int with_details, uint64_t at,
                  uint32_t *rows);

/* Meets the listeners on the ports, outside of a walk. `*is_new`: one of them is not in the table. */
int pgs_diag_listeners(pgs_diag *diag, pgs_table *table, const pgs_ports *ports, int *is_new);

/* Looks up `count` entries and meets those that are there; sets `is_gone[i]` for those that are not. */
int pgs_diag_look_up(pgs_diag *diag, pgs_table *table, const uint32_t *entries, uint32_t count, uint8_t *is_gone);

/* Joins the groups that tell of destroyed TCP sockets, of these ports only; leaves them. */
int pgs_diag_join_ends(pgs_diag *diag, const pgs_ports *ports);
void pgs_diag_leave_ends(pgs_diag *diag);

/* Takes up to PGS_BATCH messages off the queue, `*taken` of them ends. Returns how many, 0 when none waits,
 * PGS_E_NOMEM when the queue had overflowed (what is left of it can still be read), or another error. */
int pgs_diag_read_ends(pgs_diag *diag, uint64_t at, pgs_end ends[PGS_BATCH], int *taken);

#endif
