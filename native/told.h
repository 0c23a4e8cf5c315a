/*
 * Inside the native side: cookies of connections that were reported closed while the kernel has yet to tell their end.
 */
#ifndef PGSONAR_TOLD_H
#define PGSONAR_TOLD_H

#include <stdint.h>

typedef struct pgs_told {
    uint64_t *cookies; /* NULL while no ends are told */
    uint64_t seed;
    uint32_t victim;
} pgs_told;

/* Forgets all, and remembers from now on or not. Returns PGS_OK or PGS_E_NOMEM. */
int pgs_told_reset(pgs_told *told, uint64_t seed, int is_wanted);

void pgs_told_remember(pgs_told *told, uint64_t cookie);

/* Whether a cookie was remembered; it is forgotten then, because an end is told once. */
int pgs_told_was(pgs_told *told, uint64_t cookie);

#endif
