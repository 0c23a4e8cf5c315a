/*
 * Inside the native side: the sampler as its two halves see it. sampler.c is the scanning thread, watches.c is what
 * callers do meanwhile. The lock guards everything but `reading`, which belongs to whoever scans.
 */
#ifndef PGSONAR_SAMPLER_H
#define PGSONAR_SAMPLER_H

#include <pthread.h>
#include <stdint.h>

#include "scan.h"
#include "table.h"

/* A watched namespace. Only the scanning thread may free it while `scanning` is set. */
typedef struct pgs_watched {
    struct pgs_watched *next;
    pgs_tables tables;
    pgs_ports ports;
    pgs_table table;
    pgs_scan_stats stats;
    uint64_t tick; /* the last tick that took it up */
    int scanning;
    int forgotten; /* unwatched in mid scan */
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
    pgs_reading reading;
};

void pgs_watched_free(pgs_watched *ns);

#endif
