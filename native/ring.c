/*
 * Two buffers of changes, exchanged when Python drains: the scan goes on filling one while the other is read.
 */
#include <stdlib.h>
#include <string.h>

#include "table.h"

int pgs_ring_init(pgs_ring *ring, uint32_t capacity)
{
    memset(ring, 0, sizeof *ring);
    ring->capacity = capacity;
    ring->filling = malloc(capacity * sizeof *ring->filling);
    ring->draining = malloc(capacity * sizeof *ring->draining);
    if (ring->filling && ring->draining)
        return PGS_OK;
    pgs_ring_free(ring);
    return PGS_E_NOMEM;
}

void pgs_ring_free(pgs_ring *ring)
{
    free(ring->filling);
    free(ring->draining);
    ring->filling = ring->draining = NULL;
}

uint32_t pgs_ring_drain(pgs_ring *ring, pgs_change **changes)
{
    uint32_t count = ring->count;
    pgs_change *filled = ring->filling;
    ring->filling = ring->draining;
    ring->draining = filled;
    ring->count = 0;
    *changes = filled;
    return count;
}

void pgs_ring_forget(pgs_ring *ring, uint32_t netns)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < ring->count; i++)
        if (ring->filling[i].netns != netns)
            ring->filling[kept++] = ring->filling[i];
    ring->count = kept;
}
