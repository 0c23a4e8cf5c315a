/*
 * What one row says, beside the entry it may belong to. The rule: nothing here changes anything.
 */
#include "table.h"

int pgs_row_is_full(const pgs_row *row)
{
    return row->state != PGS_TIME_WAIT && row->state != PGS_SYN_RECV;
}

/* A socket never goes back: another phase downwards is another socket on the same addresses. */
static int phase(uint8_t state)
{
    return state == PGS_SYN_SENT || state == PGS_SYN_RECV ? 0 : state == PGS_ESTABLISHED ? 1 : 2;
}

int pgs_row_is_of_another(const pgs_entry *entry, const pgs_row *row)
{
    if (entry->owned_inode && row->inode && entry->owned_inode != row->inode)
        return 1;
    if (row->cookie && pgs_row_is_full(row) && entry->owned_cookie && entry->owned_cookie != row->cookie)
        return 1;
    if (row->cookie && row->state == PGS_TIME_WAIT && entry->row.state == PGS_TIME_WAIT && entry->row.cookie)
        return row->cookie != entry->row.cookie;
    return phase(row->state) < phase(entry->row.state);
}

uint8_t pgs_row_change(const pgs_row *old, const pgs_row *new)
{
    if (old->state != new->state)
        return PGS_STATE;
    if (old->inode != new->inode)
        return PGS_INODE;
    if ((new->state != PGS_LISTEN && !old->tx_queue != !new->tx_queue) || !old->rx_queue != !new->rx_queue ||
        (new->state == PGS_LISTEN && old->rx_queue != new->rx_queue))
        return PGS_QUEUE;
    if (old->probes != new->probes || old->retransmits != new->retransmits || old->timer != new->timer)
        return PGS_PROBE;
    return 0;
}

int pgs_row_is_taken_down(const pgs_row *row)
{
    return row->state == PGS_CLOSE || !row->local_port || (!row->remote_port && row->state != PGS_LISTEN);
}
