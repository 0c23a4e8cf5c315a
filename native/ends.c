/*
 * When to listen to the ends of connections, and what becomes of them. The rule: it costs the host about 10 us a
 * connection, so it is asked for only where connections come and go unseen, and given up when it was of no use.
 */
#include <errno.h>

#include "sampler.h"

#define SECOND UINT64_C(1000000000)

static const uint64_t TIME_WAIT = 60 * SECOND;      /* TCP_TIMEWAIT_LEN */
static const uint64_t KEEP_LISTENING = 60 * SECOND; /* after the last end that was news */
static const uint64_t LONGEST_PAUSE = 3600 * SECOND;

enum { UNSEEN_A_SECOND = 10 }; /* fewer connections that came and went unseen are not worth it */

void pgs_leave_ends(pgs_watched *ns, uint64_t at)
{
    pgs_pace *pace = &ns->pace;
    const int was_of_use = pace->caught_at > pace->joined_at;
    const uint64_t longer = pace->join_pause ? 2 * pace->join_pause : KEEP_LISTENING;
    pace->join_pause = was_of_use ? 0 : longer < LONGEST_PAUSE ? longer : LONGEST_PAUSE;
    pace->join_after = at + pace->join_pause;
    pace->left_at = at;
    pgs_diag_leave_ends(&ns->diag);
    pgs_table_expect_ends(&ns->table, 0);
    ns->own.events_on = 0;
}

static void join_ends(pgs_watched *ns, const pgs_ports *ports, uint64_t at)
{
    if (pgs_table_expect_ends(&ns->table, 1) != PGS_OK)
        return;
    int code = pgs_diag_join_ends(&ns->diag, ports);
    ns->own.events_on = code == PGS_OK;
    ns->own.events_refusal = code == PGS_OK ? 0 : errno;
    if (code != PGS_OK) {
        pgs_table_expect_ends(&ns->table, 0);
        ns->pace.join_after = at + KEEP_LISTENING;
        return;
    }
    ns->pace.joined_at = at;
    ns->pace.walk_again = 1;
}

/* Whether connections came and went unseen since a second ago, on whatever port. */
static int is_blind(pgs_watched *ns, uint64_t at)
{
    pgs_pace *pace = &ns->pace;
    if (at - pace->judged_at < SECOND)
        return 0;
    const uint64_t kernel = ns->own.kernel_opened - pace->judged_kernel;
    const uint64_t ours = ns->table.opened - pace->judged_opened;
    const int is_first = !pace->judged_at;
    pace->judged_at = at;
    pace->judged_kernel = ns->own.kernel_opened;
    pace->judged_opened = ns->table.opened;
    return !is_first && kernel > ours + UNSEEN_A_SECOND && kernel - ours > kernel / 20;
}

/* Listens to ends while that is asked for or of use. */
void pgs_decide_on_ends(pgs_watched *ns, const pgs_ports *ports, int has_other_ports, uint64_t at)
{
    const pgs_pace *pace = &ns->pace;
    const int is_of_use = is_blind(ns, at);
    if (has_other_ports && ns->own.events_on) {
        pgs_diag_leave_ends(&ns->diag); /* its filter knows the old ones */
        join_ends(ns, ports, at);
    }
    if (!ns->own.events_on && at >= pace->join_after &&
        (ns->events == PGS_EVENTS_ALWAYS || (ns->events == PGS_EVENTS_AUTO && is_of_use)))
        join_ends(ns, ports, at);
    else if (ns->own.events_on && ns->events == PGS_EVENTS_AUTO &&
             at - (pace->caught_at > pace->joined_at ? pace->caught_at : pace->joined_at) > KEEP_LISTENING)
        pgs_leave_ends(ns, at);
    if (!ns->own.events_on && ns->table.ends_are_told && at - pace->left_at > TIME_WAIT)
        ns->table.ends_are_told = 0;
}

void pgs_take_ends(pgs_sampler *sampler, pgs_watched *ns, uint64_t at)
{
    pgs_end ends[PGS_BATCH];
    while (ns->diag.ends >= 0) {
        int taken, got = pgs_diag_read_ends(&ns->diag, at, ends, &taken);
        if (got == 0)
            return;
        if (got == PGS_E_NOMEM) {
            ns->own.lost_events++;
            ns->pace.walk_again = 1; /* finds what is gone; what came and went remains unseen */
            continue;
        }
        if (got < 0) {
            pgs_leave_ends(ns, at);
            return;
        }
        const uint64_t before = ns->table.short_lived;
        pthread_mutex_lock(&sampler->lock);
        for (int i = 0; i < taken; i++)
            pgs_table_ended(&ns->table, &ends[i].row, &ends[i].details, at);
        pthread_mutex_unlock(&sampler->lock);
        ns->own.events += (uint64_t)taken;
        if (ns->table.short_lived != before)
            ns->pace.caught_at = at;
    }
}
