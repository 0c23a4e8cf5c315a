/*
 * What one tick does in one namespace. The rule: ask no more than can have changed, and never trust stillness for long.
 *
 * The gate proves that no connection was opened or ended; then only known sockets are looked up, each at least every
 * CYCLE, because a client that closes moves no counter. When the gate moves, all sockets are walked, in this tick and
 * in the next: a connection is counted before its socket is hashed. Absence in a walk is confirmed by a lookup.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "sampler.h"

#define MILLISECOND UINT64_C(1000000)
#define SECOND UINT64_C(1000000000)

static const uint64_t CYCLE = 200 * MILLISECOND;       /* every known socket within 250 ms, a late tick included */
static const uint64_t WALK_OFTEN = 2 * SECOND;         /* a walk is due after this long, or after 200 times its cost */
static const uint64_t WALK_SELDOM = 5 * SECOND;
static const uint64_t LOOKUP_COST = 2000;              /* ns, until one was measured */

uint64_t pgs_clock(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * SECOND + (uint64_t)now.tv_nsec;
}

/* Averages over some eight measurements. */
static void note_cost(uint64_t *cost, uint64_t measured)
{
    *cost = *cost ? (7 * *cost + measured) / 8 : measured;
}

/* Whether so much time has passed, to the next tick: what is nearly due would else be late by one. */
static int is_due(const pgs_sampler *sampler, uint64_t since, uint64_t period, uint64_t at)
{
    return at - since + sampler->interval / 2 >= period;
}

static int lock_and_finish(pgs_sampler *sampler, pgs_watched *ns, uint64_t at, enum pgs_absence absence)
{
    pthread_mutex_lock(&sampler->lock);
    int code = pgs_table_finish(&ns->table, at, absence);
    pthread_mutex_unlock(&sampler->lock);
    return code;
}

/* --- procfs ------------------------------------------------------------------------------------------------------- */

static int walk_text(pgs_sampler *sampler, pgs_watched *ns, const pgs_ports *ports, uint64_t at)
{
    pgs_text_counts counts;
    int code = pgs_table_begin(&ns->table);
    if (code != PGS_OK)
        return code;
    code = pgs_tables_walk(&ns->tables, sampler->text, &ns->table, ports, &counts);
    ns->own.malformed += counts.malformed;
    if (code != PGS_OK)
        return code;
    ns->own.rows = counts.rows;
    ns->own.rows_skipped = counts.skipped;
    ns->own.walks++;
    return lock_and_finish(sampler, ns, at, PGS_ABSENT_TWICE);
}

/* --- sock_diag ---------------------------------------------------------------------------------------------------- */

static int reserve_choice(pgs_watched *ns)
{
    if (ns->chosen_capacity >= ns->table.count)
        return PGS_OK;
    free(ns->chosen);
    free(ns->is_gone);
    ns->chosen = malloc(ns->table.capacity * sizeof *ns->chosen);
    ns->is_gone = malloc(ns->table.capacity);
    ns->chosen_capacity = ns->chosen && ns->is_gone ? ns->table.capacity : 0;
    return ns->chosen_capacity ? PGS_OK : PGS_E_NOMEM;
}

/* Asks for every entry that the walk did not meet: those that are there are met now. */
static int confirm_absence(pgs_watched *ns)
{
    uint32_t count = 0;
    if (ns->table.seen == ns->table.count)
        return PGS_OK;
    int code = reserve_choice(ns);
    for (uint32_t i = 0; code == PGS_OK && i < ns->table.count; i++)
        if (ns->table.entries[i].scan != ns->table.scan)
            ns->chosen[count++] = i;
    ns->own.lookups += count;
    return code == PGS_OK ? pgs_diag_look_up(&ns->diag, &ns->table, ns->chosen, count, ns->is_gone) : code;
}

static int walk_sockets(pgs_sampler *sampler, pgs_watched *ns, const pgs_ports *ports, int with_details, uint64_t at)
{
    const uint64_t begun = pgs_clock(CLOCK_THREAD_CPUTIME_ID);
    int code = pgs_table_begin(&ns->table);
    if (code == PGS_OK)
        code = pgs_diag_walk(&ns->diag, &ns->table, ports, with_details, at, &ns->own.rows);
    if (code == PGS_OK)
        code = confirm_absence(ns);
    if (code == PGS_OK)
        code = lock_and_finish(sampler, ns, at, PGS_ABSENT_CONFIRMED);
    if (code != PGS_OK)
        return code;
    ns->own.walks++;
    ns->own.rows_skipped = 0;
    ns->pace.walked_at = ns->pace.listened_at = ns->pace.looked_up_at = at;
    if (with_details)
        ns->pace.detailed_at = at;
    note_cost(&ns->pace.walk_cost, pgs_clock(CLOCK_THREAD_CPUTIME_ID) - begun);
    return PGS_OK;
}

/* Looks up some entries that stand one after the other. */
static int look_up(pgs_sampler *sampler, pgs_watched *ns, uint32_t first, uint32_t last, uint64_t at)
{
    uint32_t count = 0;
    int code = reserve_choice(ns);
    for (uint32_t i = first; code == PGS_OK && i < last; i++)
        if (ns->table.entries[i].row.state != PGS_LISTEN)
            ns->chosen[count++] = i;
    const uint64_t begun = pgs_clock(CLOCK_THREAD_CPUTIME_ID);
    if (code == PGS_OK)
        code = pgs_diag_look_up(&ns->diag, &ns->table, ns->chosen, count, ns->is_gone);
    if (code == PGS_OK)
        code = lock_and_finish(sampler, ns, at, PGS_ABSENT_NOTHING);
    if (code != PGS_OK || !count)
        return code;
    ns->own.lookups += count;
    note_cost(&ns->pace.lookup_cost, (pgs_clock(CLOCK_THREAD_CPUTIME_ID) - begun) / count);
    pthread_mutex_lock(&sampler->lock);
    for (uint32_t i = count; i-- > 0;) /* downwards: an entry that takes the place of one removed stood above it */
        if (ns->is_gone[i]) {
            pgs_table_gone(&ns->table, ns->chosen[i], at);
            ns->pace.walk_again = 1;
        }
    pthread_mutex_unlock(&sampler->lock);
    return PGS_OK;
}

/* Looks up as many known sockets as the time since the last ones asks for, each one once in a CYCLE. */
static int look_up_share(pgs_sampler *sampler, pgs_watched *ns, uint64_t at)
{
    const uint32_t known = ns->table.count;
    uint64_t elapsed = at - ns->pace.looked_up_at + sampler->interval / 2;
    uint64_t share = elapsed >= CYCLE ? known : (known * elapsed + CYCLE - 1) / CYCLE;
    if (!known || (share < known && share < PGS_BATCH)) /* a send is worth it when it is full */
        return PGS_OK;
    ns->pace.looked_up_at = at;
    int code = PGS_OK;
    for (uint32_t left = (uint32_t)share; code == PGS_OK && left && ns->table.count;) {
        uint32_t first = ns->pace.next_lookup < ns->table.count ? ns->pace.next_lookup : 0;
        uint32_t last = ns->table.count - first > left ? first + left : ns->table.count;
        left -= last - first;
        ns->pace.next_lookup = last;
        code = look_up(sampler, ns, first, last, at);
    }
    return code;
}

static int look_at_listeners(pgs_sampler *sampler, pgs_watched *ns, const pgs_ports *ports, uint64_t at)
{
    int is_new = 0;
    if (!is_due(sampler, ns->pace.listened_at, CYCLE, at))
        return PGS_OK;
    ns->pace.listened_at = at;
    int code = pgs_diag_listeners(&ns->diag, &ns->table, ports, &is_new);
    if (code == PGS_OK)
        code = lock_and_finish(sampler, ns, at, PGS_ABSENT_NOTHING);
    ns->pace.walk_again |= is_new;
    return code;
}

static uint64_t walk_period(const pgs_pace *pace)
{
    uint64_t period = 200 * pace->walk_cost;
    return period < WALK_OFTEN ? WALK_OFTEN : period > WALK_SELDOM ? WALK_SELDOM : period;
}

/* Whether a walk costs less than to look up every known socket. */
static int is_walk_cheaper(const pgs_watched *ns)
{
    const uint64_t lookup_cost = ns->pace.lookup_cost ? ns->pace.lookup_cost : LOOKUP_COST;
    return ns->table.count * lookup_cost > ns->pace.walk_cost;
}

/* Whether to walk all sockets, rather than to look up known ones. `moved` is what the gate says. */
static int is_walk_due(const pgs_sampler *sampler, pgs_watched *ns, int moved, uint64_t at)
{
    pgs_pace *pace = &ns->pace;
    const int was_asked = pace->walk_again;
    pace->walk_again = moved > 0;
    if (moved || was_asked || is_due(sampler, pace->walked_at, walk_period(pace), at))
        return 1;
    return is_walk_cheaper(ns) && is_due(sampler, pace->walked_at, CYCLE, at);
}

/* --- the tick ----------------------------------------------------------------------------------------------------- */

static void count_opens(pgs_watched *ns, const pgs_ports *ports)
{
    const uint64_t *counters = ns->gate.counters;
    uint64_t opens = counters[PGS_PASSIVE_OPENS] + (ports->remote_too ? counters[PGS_ACTIVE_OPENS] : 0);
    if (ns->table.is_first)
        ns->pace.first_opens = opens - ns->own.kernel_opened;
    ns->own.kernel_opened = opens - ns->pace.first_opens;
}

static int tick_sockets(pgs_sampler *sampler, pgs_watched *ns, const pgs_ports *ports, int step, int moved,
                        uint64_t at)
{
    const int wants_details = step == PGS_STEP_DETAILS ||
                              is_due(sampler, ns->pace.detailed_at, walk_period(&ns->pace), at);
    if (step == PGS_STEP_LOOKUP)
        return look_up(sampler, ns, 0, ns->table.count, at);
    if (step != PGS_STEP_TICK)
        return walk_sockets(sampler, ns, ports, step == PGS_STEP_DETAILS, at);
    if (is_walk_due(sampler, ns, moved, at))
        return walk_sockets(sampler, ns, ports, wants_details, at);
    int code = look_at_listeners(sampler, ns, ports, at);
    return code != PGS_OK || is_walk_cheaper(ns) ? code : look_up_share(sampler, ns, at);
}

/* Another socket in place of one that failed; where there is none to be had, the text is read. */
static void recover(pgs_watched *ns, uint64_t at)
{
    int reason = errno;
    ns->pace.walk_again = 1;
    if (pgs_diag_reopen(&ns->diag) == PGS_E_REFUSED && ns->source == PGS_AUTO) {
        ns->own.source = PGS_PROCFS;
        ns->own.refusal = errno;
        pgs_leave_ends(ns, at);
    }
    errno = reason;
}

int pgs_tick(pgs_sampler *sampler, pgs_watched *ns, int step, uint64_t at)
{
    pthread_mutex_lock(&sampler->lock);
    const pgs_ports ports = ns->ports;
    const int has_other_ports = ns->has_other_ports;
    ns->has_other_ports = 0;
    pthread_mutex_unlock(&sampler->lock);
    if (has_other_ports) {
        ns->table.is_first = 1; /* what is on the new ports was not opened now */
        ns->pace.walk_again = 1;
    }
    const int is_netlink = ns->own.source == PGS_SOCK_DIAG;
    if (is_netlink)
        pgs_decide_on_ends(ns, &ports, has_other_ports, at);
    pgs_take_ends(sampler, ns, at);
    const int moved = pgs_gate_look(&ns->gate);
    count_opens(ns, &ports);
    errno = 0;
    int code = is_netlink ? tick_sockets(sampler, ns, &ports, step, moved, at) : walk_text(sampler, ns, &ports, at);
    if (code != PGS_OK)
        pgs_table_abandon(&ns->table);
    if (code == PGS_E_READ && is_netlink)
        recover(ns, at);
    ns->own.duplicates = ns->table.duplicates;
    ns->own.opened = ns->table.opened;
    ns->own.closed = ns->table.closed;
    ns->own.short_lived = ns->table.short_lived;
    return code;
}
