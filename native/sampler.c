/*
 * The thread that scans every watched namespace once an interval. The rule: nothing is read from the kernel while the
 * lock is held, so that neither a drain nor a change of the list waits for a scan.
 */
#include "sampler.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

/* ns: at 8000 connections a second 160 ends of 1.3 KiB, of the 416 KiB that net.core.rmem_max usually grants. */
static const uint64_t EMPTY_EVERY = 20000000;

/* Marks a namespace as being scanned and opens the lock. */
static void begin_with(pgs_sampler *sampler, pgs_watched *ns)
{
    ns->tick = sampler->tick;
    ns->scanning = 1;
    pthread_mutex_unlock(&sampler->lock);
}

/* Takes the lock and publishes the totals, or frees what was unwatched meanwhile. */
static void end_with(pgs_sampler *sampler, pgs_watched *ns)
{
    pthread_mutex_lock(&sampler->lock);
    ns->scanning = 0;
    if (ns->forgotten) {
        pgs_watched_free(ns);
        return;
    }
    uint64_t gap = ns->stats.max_gap > ns->own.max_gap ? ns->stats.max_gap : ns->own.max_gap;
    ns->own.max_gap = 0; /* the caller of pgs_sampler_stats() starts it anew */
    ns->stats = ns->own;
    ns->stats.max_gap = gap;
}

/* Ticks one namespace. Called and left with the lock held, which is open meanwhile. */
static void scan_one(pgs_sampler *sampler, pgs_watched *ns, int step)
{
    pgs_scan_stats *own = &ns->own;
    begin_with(sampler, ns);
    const uint64_t at = pgs_clock(CLOCK_BOOTTIME);
    const uint64_t wall = pgs_clock(CLOCK_MONOTONIC), cpu = pgs_clock(CLOCK_THREAD_CPUTIME_ID);
    int code = pgs_tick(sampler, ns, step, at);
    own->last_errno = code == PGS_OK ? 0 : errno;
    own->last_error = code;
    if (code == PGS_OK) {
        own->max_gap = own->last_at ? at - own->last_at : 0;
        own->scans++;
        own->last_at = at;
    }
    own->incomplete += code != PGS_OK;
    own->last_cost = pgs_clock(CLOCK_MONOTONIC) - wall;
    own->last_cpu = pgs_clock(CLOCK_THREAD_CPUTIME_ID) - cpu;
    own->cpu += own->last_cpu;
    end_with(sampler, ns);
}

/* Scans every namespace once. The list may change whenever the lock is open, so it is searched anew for the next one
 * that this tick has not taken up. */
static void scan_all(pgs_sampler *sampler, uint64_t lateness, int step)
{
    sampler->tick++;
    for (;;) {
        pgs_watched *ns = sampler->first;
        while (ns && ns->tick == sampler->tick)
            ns = ns->next;
        if (!ns || sampler->stopping)
            return;
        ns->own.late += lateness > sampler->interval / 2;
        ns->own.last_lateness = lateness;
        scan_one(sampler, ns, step);
    }
}

/* Whether the kernel tells of ends into a queue too short to be left alone for an interval. */
static int has_short_queue(const pgs_sampler *sampler)
{
    for (const pgs_watched *ns = sampler->first; ns; ns = ns->next)
        if (ns->diag.ends >= 0 && ns->diag.is_queue_short)
            return 1;
    return 0;
}

/* The list may change while ends are taken: it is searched anew for each. */
static void take_all_ends(pgs_sampler *sampler)
{
    const uint64_t at = pgs_clock(CLOCK_BOOTTIME);
    sampler->tick++;
    for (;;) {
        pgs_watched *ns = sampler->first;
        while (ns && (ns->tick == sampler->tick || ns->diag.ends < 0))
            ns = ns->next;
        if (!ns || sampler->stopping)
            return;
        begin_with(sampler, ns);
        pgs_take_ends(sampler, ns, at);
        end_with(sampler, ns);
    }
}

/* Sleeps until `due` or until stopped; another interval moves `due`. Returns the time it is. */
static uint64_t wait_until_due(pgs_sampler *sampler, uint64_t last, uint64_t *due)
{
    uint64_t now = pgs_clock(CLOCK_MONOTONIC);
    while (!sampler->stopping && now < (*due = last + sampler->interval)) {
        uint64_t wake = has_short_queue(sampler) && now + EMPTY_EVERY < *due ? now + EMPTY_EVERY : *due;
        struct timespec until = {(time_t)(wake / 1000000000u), (long)(wake % 1000000000u)};
        pthread_cond_timedwait(&sampler->wake, &sampler->lock, &until);
        if (wake < *due)
            take_all_ends(sampler);
        now = pgs_clock(CLOCK_MONOTONIC);
    }
    return now;
}

/* The thread. Ticks lie on an absolute schedule; those that could not be kept are dropped and counted, not made up. */
static void *run(void *argument)
{
    pgs_sampler *sampler = argument;
    pthread_mutex_lock(&sampler->lock);
    uint64_t last = pgs_clock(CLOCK_MONOTONIC) - sampler->interval; /* the first tick is due at once */
    while (!sampler->stopping) {
        uint64_t due = last + sampler->interval;
        uint64_t now = wait_until_due(sampler, last, &due);
        if (sampler->stopping)
            break;
        uint64_t missed = (now - due) / sampler->interval;
        due += missed * sampler->interval;
        for (pgs_watched *ns = sampler->first; ns; ns = ns->next)
            ns->own.missed += missed;
        scan_all(sampler, now - due, PGS_STEP_TICK);
        last = due;
    }
    pthread_mutex_unlock(&sampler->lock);
    return NULL;
}

pgs_sampler *pgs_sampler_new(uint64_t interval_ns, uint32_t ring_capacity)
{
    pthread_condattr_t attributes;
    pgs_sampler *sampler = interval_ns && ring_capacity ? calloc(1, sizeof *sampler) : NULL;
    if (!sampler)
        return NULL;
    sampler->text = pgs_text_new();
    if (!sampler->text || pgs_ring_init(&sampler->ring, ring_capacity) != PGS_OK) {
        free(sampler->text);
        free(sampler);
        return NULL;
    }
    sampler->interval = interval_ns;
    if (getrandom(&sampler->seed, sizeof sampler->seed, GRND_NONBLOCK) < 0)
        sampler->seed = pgs_clock(CLOCK_REALTIME);
    pthread_mutex_init(&sampler->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&sampler->wake, &attributes);
    pthread_condattr_destroy(&attributes);
    return sampler;
}

void pgs_sampler_free(pgs_sampler *sampler)
{
    if (!sampler)
        return;
    pgs_sampler_stop(sampler);
    while (sampler->first) {
        pgs_watched *ns = sampler->first;
        sampler->first = ns->next;
        pgs_watched_free(ns);
    }
    free(sampler->text);
    pgs_ring_free(&sampler->ring);
    pthread_cond_destroy(&sampler->wake);
    pthread_mutex_destroy(&sampler->lock);
    free(sampler);
}

int pgs_sampler_start(pgs_sampler *sampler)
{
    sigset_t all, before;
    int code = PGS_E_EXISTS;
    pthread_mutex_lock(&sampler->lock);
    if (sampler->activity == PGS_RESTING) {
        sigfillset(&all); /* signals belong to Python's main thread; a new thread inherits the mask */
        pthread_sigmask(SIG_SETMASK, &all, &before);
        int reason = pthread_create(&sampler->thread, NULL, run, sampler);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        if (reason == 0)
            pthread_setname_np(sampler->thread, "pgsonar-scan");
        else
            errno = reason;
        sampler->activity = reason == 0 ? PGS_THREAD_RUNS : PGS_RESTING;
        code = reason == 0 ? PGS_OK : PGS_E_THREAD;
    }
    pthread_mutex_unlock(&sampler->lock);
    return code;
}

int pgs_sampler_stop(pgs_sampler *sampler)
{
    pthread_mutex_lock(&sampler->lock);
    int runs = sampler->activity == PGS_THREAD_RUNS;
    if (runs) {
        sampler->activity = PGS_THREAD_ENDS;
        sampler->stopping = 1;
        pthread_cond_broadcast(&sampler->wake);
    }
    pthread_mutex_unlock(&sampler->lock);
    if (!runs)
        return PGS_OK;
    pthread_join(sampler->thread, NULL);
    pthread_mutex_lock(&sampler->lock);
    sampler->stopping = 0;
    sampler->activity = PGS_RESTING;
    pthread_mutex_unlock(&sampler->lock);
    return PGS_OK;
}

int pgs_sampler_step(pgs_sampler *sampler, int step)
{
    int code = PGS_E_EXISTS;
    if (step < PGS_STEP_TICK || step > PGS_STEP_DETAILS)
        return PGS_E_ARG;
    pthread_mutex_lock(&sampler->lock);
    if (sampler->activity == PGS_RESTING) {
        sampler->activity = PGS_CALLER_SCANS;
        scan_all(sampler, 0, step);
        sampler->activity = PGS_RESTING;
        code = PGS_OK;
    }
    pthread_mutex_unlock(&sampler->lock);
    return code;
}

int pgs_sampler_set_interval(pgs_sampler *sampler, uint64_t interval_ns)
{
    if (interval_ns == 0)
        return PGS_E_ARG;
    pthread_mutex_lock(&sampler->lock);
    sampler->interval = interval_ns;
    pthread_cond_broadcast(&sampler->wake);
    pthread_mutex_unlock(&sampler->lock);
    return PGS_OK;
}
