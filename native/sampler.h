/*
 * Inside the native side: the sampler as its parts see it. sampler.c is the scanning thread, tick.c and ends.c are
 * what it does in one namespace, watches.c is what callers do meanwhile. The lock guards everything but what is
 * marked as the thread's own, which belongs to whoever scans.
 */
#ifndef PGSONAR_SAMPLER_H
#define PGSONAR_SAMPLER_H

#include <pthread.h>
#include <stdint.h>

#include "gate.h"
#include "scan.h"
#include "sockdiag.h"
#include "table.h"

/* What decides about the next tick of a namespace. Times are CLOCK_BOOTTIME, ns; costs ns of thread CPU time. */
typedef struct pgs_pace {
    int walk_again;          /* whatever the gate says */
    uint64_t walked_at;
    uint64_t detailed_at;
    uint64_t looked_up_at;
    uint64_t listened_at;
    uint32_t next_lookup;    /* into the table's entries */
    uint64_t walk_cost;
    uint64_t lookup_cost;    /* of one socket */
    uint64_t judged_at;      /* when it was last asked whether connections come and go unseen */
    uint64_t judged_kernel;  /* what the kernel and we had counted then */
    uint64_t judged_opened;
    uint64_t first_opens;    /* the kernel's count at the first walk */
    uint64_t joined_at;      /* the groups that tell of ends */
    uint64_t caught_at;      /* a connection was known by its end only */
    uint64_t join_after;
    uint64_t join_pause;
    uint64_t left_at;
} pgs_pace;

/* A watched namespace. Only the scanning thread may free it while `scanning` is set. */
typedef struct pgs_watched {
    struct pgs_watched *next;
    pgs_ports ports;
    pgs_table table;
    pgs_scan_stats stats;    /* as they were after the last tick */
    int source;              /* as asked for, enum pgs_source */
    int events;              /* as asked for, enum pgs_events */
    uint64_t tick;           /* the last tick that took it up */
    int scanning;
    int forgotten;           /* unwatched in mid scan */
    int has_other_ports;     /* since the last tick */

    /* The thread's own. */
    pgs_scan_stats own;
    pgs_tables tables;
    pgs_diag diag;
    pgs_gate gate;
    pgs_pace pace;
    uint32_t *chosen;        /* entries to look up */
    uint8_t *is_gone;
    uint32_t chosen_capacity;
} pgs_watched;

enum pgs_activity { PGS_RESTING, PGS_THREAD_RUNS, PGS_THREAD_ENDS, PGS_CALLER_SCANS };

struct pgs_sampler {
    pthread_mutex_t lock;
    pthread_cond_t wake; /* stop, or another interval; on CLOCK_MONOTONIC */
    pthread_t thread;
    enum pgs_activity activity;
    int stopping;
    uint64_t interval; /* ns */
    uint64_t tick;
    uint64_t seed;
    pgs_watched *first;
    pgs_ring ring;
    char *text; /* the thread's own */
};

void pgs_watched_free(pgs_watched *ns);

uint64_t pgs_clock(clockid_t clock);

/* One tick of a namespace, an enum pgs_step. Called without the lock, with `ns` marked as being scanned. */
int pgs_tick(pgs_sampler *sampler, pgs_watched *ns, int step, uint64_t at);

/* Begins to listen to ends where that is asked for or of use, and ceases to. */
void pgs_decide_on_ends(pgs_watched *ns, const pgs_ports *ports, int has_other_ports, uint64_t at);
void pgs_leave_ends(pgs_watched *ns, uint64_t at);

/* Takes the ends of connections that the kernel has told of. Called as pgs_tick(). */
void pgs_take_ends(pgs_sampler *sampler, pgs_watched *ns, uint64_t at);

#endif
