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

static uint64_t read_clock(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void note_complete(pgs_watched *ns, const pgs_reading *reading, uint64_t at)
{
    pgs_scan_stats *stats = &ns->stats;
    if (stats->last_at && at - stats->last_at > stats->max_gap)
        stats->max_gap = at - stats->last_at;
    stats->scans++;
    stats->last_at = at;
    stats->rows = reading->count;
    stats->rows_skipped = reading->skipped;
}

/* Scans one namespace. Called and left with the lock held, which is open while the kernel is read. */
static void scan_one(pgs_sampler *sampler, pgs_watched *ns)
{
    pgs_reading *reading = &sampler->reading;
    const pgs_ports ports = ns->ports;
    ns->scanning = 1;
    pthread_mutex_unlock(&sampler->lock);
    uint64_t at = read_clock(CLOCK_BOOTTIME);
    uint64_t wall = read_clock(CLOCK_MONOTONIC), cpu = read_clock(CLOCK_THREAD_CPUTIME_ID);
    errno = 0;
    int code = pgs_reading_take(reading, &ns->tables, &ports);
    int reason = errno;
    pthread_mutex_lock(&sampler->lock);
    ns->scanning = 0;
    if (ns->forgotten) {
        pgs_watched_free(ns);
        return;
    }
    pgs_scan_stats *stats = &ns->stats;
    stats->malformed += reading->malformed;
    if (code == PGS_OK)
        code = pgs_table_update(&ns->table, reading->rows, reading->count, at);
    if (code == PGS_OK)
        note_complete(ns, reading, at);
    stats->incomplete += code != PGS_OK;
    stats->last_error = code;
    stats->last_errno = code == PGS_OK ? 0 : reason;
    stats->last_cost = read_clock(CLOCK_MONOTONIC) - wall;
    stats->last_cpu = read_clock(CLOCK_THREAD_CPUTIME_ID) - cpu;
    stats->cpu += stats->last_cpu;
}

/* Scans every namespace once. The list may change whenever the lock is open, so it is searched anew for the next one
 * that this tick has not taken up. */
static void scan_all(pgs_sampler *sampler, uint64_t lateness)
{
    sampler->tick++;
    for (;;) {
        pgs_watched *ns = sampler->first;
        while (ns && ns->tick == sampler->tick)
            ns = ns->next;
        if (!ns || sampler->stopping)
            return;
        ns->tick = sampler->tick;
        ns->stats.late += lateness > sampler->interval / 2;
        ns->stats.last_lateness = lateness;
        scan_one(sampler, ns);
    }
}

/* Sleeps until `due` or until stopped; another interval moves `due`. Returns the time it is. */
static uint64_t wait_until_due(pgs_sampler *sampler, uint64_t last, uint64_t *due)
{
    uint64_t now = read_clock(CLOCK_MONOTONIC);
    while (!sampler->stopping && now < (*due = last + sampler->interval)) {
        struct timespec until = {(time_t)(*due / 1000000000u), (long)(*due % 1000000000u)};
        pthread_cond_timedwait(&sampler->wake, &sampler->lock, &until);
        now = read_clock(CLOCK_MONOTONIC);
    }
    return now;
}

/* The thread. Ticks lie on an absolute schedule; those that could not be kept are dropped and counted, not made up. */
static void *run(void *argument)
{
    pgs_sampler *sampler = argument;
    pthread_mutex_lock(&sampler->lock);
    uint64_t last = read_clock(CLOCK_MONOTONIC) - sampler->interval; /* the first tick is due at once */
    while (!sampler->stopping) {
        uint64_t due = last + sampler->interval;
        uint64_t now = wait_until_due(sampler, last, &due);
        if (sampler->stopping)
            break;
        uint64_t missed = (now - due) / sampler->interval;
        due += missed * sampler->interval;
        for (pgs_watched *ns = sampler->first; ns; ns = ns->next)
            ns->stats.missed += missed;
        scan_all(sampler, now - due);
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
    if (pgs_ring_init(&sampler->ring, ring_capacity) != PGS_OK || pgs_reading_init(&sampler->reading) != PGS_OK) {
        pgs_ring_free(&sampler->ring);
        free(sampler);
        return NULL;
    }
    sampler->interval = interval_ns;
    if (getrandom(&sampler->seed, sizeof sampler->seed, GRND_NONBLOCK) < 0)
        sampler->seed = read_clock(CLOCK_REALTIME);
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
    pgs_reading_free(&sampler->reading);
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

int pgs_sampler_scan(pgs_sampler *sampler)
{
    int code = PGS_E_EXISTS;
    pthread_mutex_lock(&sampler->lock);
    if (sampler->activity == PGS_RESTING) {
        sampler->activity = PGS_CALLER_SCANS;
        scan_all(sampler, 0);
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
