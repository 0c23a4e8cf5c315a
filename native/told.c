/*
 * A small set of cookies. The rule: it never grows; what an end that was lost has left behind gives way to what is new.
 */
#include "told.h"

#include <stdlib.h>

#include "api.h"

enum {
    SLOTS = 16384, /* outstanding ends number hundreds at 10000 connections a second */
    WINDOW = 16
};

int pgs_told_reset(pgs_told *told, uint64_t seed, int is_wanted)
{
    free(told->cookies);
    *told = (pgs_told){.cookies = is_wanted ? calloc(SLOTS + WINDOW, sizeof *told->cookies) : NULL, .seed = seed};
    return is_wanted && !told->cookies ? PGS_E_NOMEM : PGS_OK;
}

static uint64_t *window_of(const pgs_told *told, uint64_t cookie)
{
    uint64_t hash = (told->seed ^ cookie) * 0x9E3779B97F4A7C15u; /* 2^64 / golden ratio: spreads every bit upwards */
    return told->cookies + (hash >> 32 & (SLOTS - 1));
}

void pgs_told_remember(pgs_told *told, uint64_t cookie)
{
    if (!told->cookies || !cookie)
        return;
    uint64_t *window = window_of(told, cookie);
    for (int i = 0; i < WINDOW; i++)
        if (!window[i]) {
            window[i] = cookie;
            return;
        }
    window[told->victim++ % WINDOW] = cookie;
}

int pgs_told_was(pgs_told *told, uint64_t cookie)
{
    if (!told->cookies)
        return 0;
    uint64_t *window = window_of(told, cookie);
    for (int i = 0; i < WINDOW; i++)
        if (window[i] == cookie) {
            window[i] = 0;
            return 1;
        }
    return 0;
}
