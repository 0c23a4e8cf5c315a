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
    pgs_diag_close(&ns->diag);
    pgs_gate_close(&ns->gate);
    pgs_table_free(&ns->table);
    free(ns->chosen);
    free(ns->is_gone);
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

/* Chooses the source. sock_diag costs a tenth of procfs or less wherever it works; what keeps it from working is
 * told. */
static int open_source(pgs_watched *ns, const char *net_directory, const char *netns_file)
{
    ns->own.source = PGS_PROCFS;
    if (ns->source == PGS_PROCFS)
        return PGS_OK;
    int code = pgs_diag_open(&ns->diag, net_directory, netns_file);
    if (code == PGS_OK)
        ns->own.source = PGS_SOCK_DIAG;
    else if (code == PGS_E_REFUSED && ns->source == PGS_AUTO) {
        ns->own.refusal = errno;
        code = PGS_OK;
    }
    return code;
}

static int open_namespace(pgs_watched *ns, const char *net_directory, const char *netns_file)
{
    int code = pgs_tables_open(&ns->tables, net_directory);
    if (code != PGS_OK)
        return code;
    pgs_gate_open(&ns->gate, net_directory);
    ns->own.has_gate = ns->gate.descriptor >= 0;
    return open_source(ns, net_directory, netns_file);
}

static pgs_watched *watched_new(void)
{
    pgs_watched *ns = calloc(1, sizeof *ns);
    if (ns) {
        ns->diag = (pgs_diag){.questions = -1, .ends = -1, .namespace_file = -1};
        ns->gate.descriptor = -1;
        for (int i = 0; i < PGS_TABLES; i++)
            ns->tables.descriptors[i] = -1;
    }
    return ns;
}

int pgs_sampler_watch(pgs_sampler *sampler, uint32_t netns, const char *net_directory, const char *netns_file,
                      int source, int events, const uint16_t *ports, uint32_t port_count, int remote_too)
{
    if (source < PGS_AUTO || source > PGS_SOCK_DIAG || events < PGS_EVENTS_AUTO || events > PGS_EVENTS_NEVER)
        return PGS_E_ARG;
    pgs_watched *ns = watched_new();
    if (!ns)
        return PGS_E_NOMEM;
    ns->source = source;
    ns->events = events;
    int code = copy_ports(&ns->ports, ports, port_count, remote_too);
    if (code == PGS_OK)
        code = open_namespace(ns, net_directory, netns_file);
    if (code != PGS_OK) {
        int reason = errno;
        pgs_watched_free(ns);
        errno = reason;
        return code;
    }
    ns->stats = ns->own;
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
    if (code == PGS_OK)
        ns->has_other_ports = 1;
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

int64_t pgs_sampler_details(pgs_sampler *sampler, uint32_t netns, pgs_details *out, uint32_t capacity)
{
    pthread_mutex_lock(&sampler->lock);
    const pgs_watched *ns = find(sampler, netns);
    int64_t count = ns ? (int64_t)pgs_table_details(&ns->table, out, capacity) : PGS_E_NOENT;
    pthread_mutex_unlock(&sampler->lock);
    return count;
}

int pgs_sampler_stats(pgs_sampler *sampler, uint32_t netns, pgs_scan_stats *out)
{
    pthread_mutex_lock(&sampler->lock);
    pgs_watched *ns = find(sampler, netns);
    if (ns) {
        *out = ns->stats;
        out->lost_changes = ns->table.lost;
        out->resyncs = ns->table.resyncs;
        ns->stats.max_gap = 0;
    }
    pthread_mutex_unlock(&sampler->lock);
    return ns ? PGS_OK : PGS_E_NOENT;
}
