/*
 * What callers do beside the scanning thread: watch, look, drain. The rule: every call holds the lock only for memory,
 * never for a file.
 */
#include "sampler.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static pgs_watched *find(const pgs_sampler *sampler, uint32_t netns)
{
    pgs_watched *ns = sampler->first;
    while (ns && ns->table.netns != netns)
        ns = ns->next;
    return ns;
}

void pgs_watched_free(pgs_watched *ns)
{
    pgs_tables_close(&ns->tables);
    pgs_table_free(&ns->table);
    free(ns);
}

static int copy_ports(pgs_ports *to, const uint16_t *ports, uint32_t count, int remote_too)
{
    if (count > PGS_MAX_PORTS || (count && !ports))
        return PGS_E_ARG;
    if (count)
        memcpy(to->ports, ports, count * sizeof *ports);
    to->count = count;
    to->remote_too = remote_too;
    return PGS_OK;
}

int pgs_sampler_watch(pgs_sampler *sampler, uint32_t netns, const char *net_directory, const uint16_t *ports,
                      uint32_t port_count, int remote_too)
{
    pgs_watched *ns = calloc(1, sizeof *ns);
    if (!ns)
        return PGS_E_NOMEM;
    int code = copy_ports(&ns->ports, ports, port_count, remote_too);
    if (code == PGS_OK)
        code = pgs_tables_open(&ns->tables, net_directory);
    if (code != PGS_OK) {
        int reason = errno;
        free(ns);
        errno = reason;
        return code;
    }
    pgs_table_init(&ns->table, netns, sampler->seed, &sampler->ring);
    pthread_mutex_lock(&sampler->lock);
    int is_known = find(sampler, netns) != NULL;
    if (!is_known) {
        ns->next = sampler->first;
        sampler->first = ns;
    }
    pthread_mutex_unlock(&sampler->lock);
    if (is_known)
        pgs_watched_free(ns);
    return is_known ? PGS_E_EXISTS : PGS_OK;
}

int pgs_sampler_set_ports(pgs_sampler *sampler, uint32_t netns, const uint16_t *ports, uint32_t port_count,
                          int remote_too)
{
    pthread_mutex_lock(&sampler->lock);
    pgs_watched *ns = find(sampler, netns);
    int code = ns ? copy_ports(&ns->ports, ports, port_count, remote_too) : PGS_E_NOENT;
    pthread_mutex_unlock(&sampler->lock);
    return code;
}

int pgs_sampler_unwatch(pgs_sampler *sampler, uint32_t netns)
{
    int code = PGS_E_NOENT;
    pthread_mutex_lock(&sampler->lock);
    for (pgs_watched **link = &sampler->first; *link; link = &(*link)->next) {
        pgs_watched *ns = *link;
        if (ns->table.netns != netns)
            continue;
        *link = ns->next;
        ns->forgotten = 1;
        if (!ns->scanning)
            pgs_watched_free(ns);
        code = PGS_OK;
        break;
    }
    pthread_mutex_unlock(&sampler->lock);
    return code;
}

uint32_t pgs_sampler_drain(pgs_sampler *sampler, pgs_change **changes)
{
    pthread_mutex_lock(&sampler->lock);
    uint32_t count = pgs_ring_drain(&sampler->ring, changes);
    pthread_mutex_unlock(&sampler->lock);
    return count;
}

int64_t pgs_sampler_snapshot(pgs_sampler *sampler, uint32_t netns, pgs_change *out, uint32_t capacity)
{
    pthread_mutex_lock(&sampler->lock);
    pgs_watched *ns = find(sampler, netns);
    int64_t count = ns ? (int64_t)pgs_table_snapshot(&ns->table, out, capacity) : PGS_E_NOENT;
    pthread_mutex_unlock(&sampler->lock);
    return count;
}

int pgs_sampler_stats(pgs_sampler *sampler, uint32_t netns, pgs_scan_stats *out)
{
    pthread_mutex_lock(&sampler->lock);
    pgs_watched *ns = find(sampler, netns);
    if (ns) {
        *out = ns->stats;
        out->duplicates = ns->table.duplicates;
        out->lost_changes = ns->table.lost;
        out->resyncs = ns->table.resyncs;
        ns->stats.max_gap = 0;
    }
    pthread_mutex_unlock(&sampler->lock);
    return ns ? PGS_OK : PGS_E_NOENT;
}
