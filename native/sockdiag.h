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
    PGS_BATCH = 64,                      /* lookups of one send, ends of one reading */
    PGS_BUFFER = 65536,                  /* the kernel fills 32 KiB; a smaller buffer truncates, silently */
    PGS_ANSWER = PGS_BUFFER / PGS_BATCH  /* one socket with TCP_INFO takes 400 bytes, an end 400 */
};

/* --- netlink.c --- */

/* A socket in a namespace (-1: the caller's own), bound and connected to the kernel; -1 with errno. */
int pgs_diag_open_socket(int namespace_file);

/* Sends a whole request. */
int pgs_diag_ask(pgs_diag *diag, const void *request, size_t length);

/* What is done with each socket of an answer: PGS_OK, or an error that ends it. */
typedef int pgs_meeting(void *context, const pgs_message *message);

/* Asks for all sockets on the ports and takes the whole answer; `meet` may be NULL. */
int pgs_diag_dump(pgs_diag *diag, const pgs_ports *ports, uint32_t states, int with_details, pgs_meeting *meet,
                  void *context);

struct mmsghdr;

/* Receives as many answers as there are, each in its own PGS_ANSWER bytes. Returns their number or an error. */
int pgs_diag_receive(int descriptor, uint8_t *buffer, unsigned most, int flags, struct mmsghdr *headers);

/* Another socket in place of one that failed. */
int pgs_diag_reopen(pgs_diag *diag);

/* --- sockdiag.c --- */

/* Opens the socket in the namespace of `net_directory`, and asks it once. Returns PGS_OK, PGS_E_NOMEM, or
 * PGS_E_REFUSED with the reason in errno. */
int pgs_diag_open(pgs_diag *diag, const char *net_directory, const char *netns_file);
void pgs_diag_close(pgs_diag *diag);

/* Meets all sockets on the ports within a walk of `table`, with what TCP_INFO tells of them or without. */
int pgs_diag_walk(pgs_diag *diag, pgs_table *table, const pgs_ports *ports, int with_details, uint64_t at,
                  uint32_t *rows);

/* Meets the listeners on the ports, outside of a walk. `*is_new`: one of them is not in the table. */
int pgs_diag_listeners(pgs_diag *diag, pgs_table *table, const pgs_ports *ports, int *is_new);

/* Looks up `count` entries and meets those that are there; sets `is_gone[i]` for those that are not. */
int pgs_diag_look_up(pgs_diag *diag, pgs_table *table, const uint32_t *entries, uint32_t count, uint8_t *is_gone);

/* --- destroy.c --- */

/* Joins the groups that tell of destroyed TCP sockets, of these ports only; leaves them. */
int pgs_diag_join_ends(pgs_diag *diag, const pgs_ports *ports);
void pgs_diag_leave_ends(pgs_diag *diag);

/* Takes up to PGS_BATCH messages off the queue, `*taken` of them ends. Returns how many, 0 when none waits,
 * PGS_E_NOMEM when the queue had overflowed (what is left of it can still be read), or another error. */
int pgs_diag_read_ends(pgs_diag *diag, uint64_t at, pgs_end ends[PGS_BATCH], int *taken);

#endif
