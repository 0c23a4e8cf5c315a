/*
 * Inside the native side: the sockets of one namespace, what a complete scan changes in them, and the ring that
 * carries changes to Python. No function here locks; the sampler's lock is held around them.
 */
#ifndef PGSONAR_TABLE_H
#define PGSONAR_TABLE_H

#include "api.h"

/* Two buffers of `capacity` changes: one is filled while the other is read. */
typedef struct pgs_ring {
    pgs_change *filling;
    pgs_change *draining;
    uint32_t capacity;
    uint32_t count;           /* in `filling` */
    uint64_t connections;     /* numbers given to connections so far, in all namespaces */
} pgs_ring;

int pgs_ring_init(pgs_ring *ring, uint32_t capacity);
void pgs_ring_free(pgs_ring *ring);
uint32_t pgs_ring_drain(pgs_ring *ring, pgs_change **changes);

/* Takes a namespace's changes out of the ring: a snapshot tells more than they do. */
void pgs_ring_forget(pgs_ring *ring, uint32_t netns);

/* A socket followed in time. */
typedef struct pgs_entry {
    pgs_row row;
    uint64_t connection;
    uint64_t opened_at;
    uint64_t absent_at;   /* the first complete scan without it; 0 while it is present */
    uint64_t owned_inode; /* the last inode that was not 0 */
    uint64_t scan;        /* the last scan that saw it */
    uint32_t hash;
} pgs_entry;

typedef struct pgs_table {
    pgs_entry *entries;     /* dense, in no order */
    uint32_t *slots;        /* open addressing: index into `entries` + 1, 0 for a free slot */
    uint32_t count;
    uint32_t capacity;      /* of `entries` */
    uint32_t slot_mask;
    uint32_t netns;
    uint64_t seed;          /* clients choose their addresses, not where they fall in the table */
    uint64_t scan;
    uint64_t duplicates;
    uint64_t lost;          /* changes that found the ring full */
    uint64_t resyncs;
    int out_of_step;        /* changes were lost: no more are sent until a snapshot was taken */
    pgs_ring *ring;
} pgs_table;

void pgs_table_init(pgs_table *table, uint32_t netns, uint64_t seed, pgs_ring *ring);
void pgs_table_free(pgs_table *table);

/* Compares the rows of one complete scan, begun at `at`, with the table, and sends what changed to the ring. */
int pgs_table_update(pgs_table *table, const pgs_row *rows, uint32_t count, uint64_t at);

/* See pgs_sampler_snapshot(). */
uint32_t pgs_table_snapshot(pgs_table *table, pgs_change *out, uint32_t capacity);

#endif
