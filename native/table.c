/*
 * The sockets of one namespace and their diff. The rule: a scan is not atomic, so a second sighting in one scan is
 * ignored, and absence is a suspicion until a second complete scan in a row confirms it.
 *
 * The key is the directed pair of address and port; the inode is an attribute, because the kernel reuses inodes and a
 * socket has none before it is accepted and after it is closed. LISTEN is the exception: sockets that share a port
 * through SO_REUSEPORT differ in nothing else, so there the inode belongs to the key and each keeps its own backlog.
 */
#include <stdlib.h>
#include <string.h>

#include "table.h"

enum {
    KEY_SIZE = 16 + 16 + 2 + 2, /* both addresses and ports, which open pgs_row without a gap */
    FIRST_SLOTS = 256
};

void pgs_table_init(pgs_table *table, uint32_t netns, uint64_t seed, pgs_ring *ring)
{
    memset(table, 0, sizeof *table);
    table->netns = netns;
    table->seed = seed;
    table->ring = ring;
}

void pgs_table_free(pgs_table *table)
{
    free(table->entries);
    free(table->slots);
    table->entries = NULL;
    table->slots = NULL;
}

static uint32_t hash_of(const pgs_table *table, const pgs_row *row)
{
    uint64_t words[6] = {0};
    uint64_t hash = table->seed;
    memcpy(words, row, KEY_SIZE);
    words[5] = row->state == PGS_LISTEN ? row->inode + 1 : 0;
    for (int i = 0; i < 6; i++) {
        hash = (hash ^ words[i]) * 0x9E3779B97F4A7C15u; /* 2^64 / golden ratio: spreads every bit upwards */
        hash ^= hash >> 32;
    }
    return (uint32_t)hash;
}

static int same_key(const pgs_row *a, const pgs_row *b)
{
    if ((a->state == PGS_LISTEN) != (b->state == PGS_LISTEN) || memcmp(a, b, KEY_SIZE))
        return 0;
    return a->state != PGS_LISTEN || a->inode == b->inode;
}

/* The slot of the row's key, or the free slot where it belongs. */
static uint32_t find_slot(const pgs_table *table, uint32_t hash, const pgs_row *row)
{
    uint32_t slot = hash & table->slot_mask;
    for (; table->slots[slot]; slot = (slot + 1) & table->slot_mask) {
        const pgs_entry *entry = &table->entries[table->slots[slot] - 1];
        if (entry->hash == hash && same_key(&entry->row, row))
            break;
    }
    return slot;
}

/* Room for one entry more; at most half of the slots are taken. */
static int reserve(pgs_table *table)
{
    if (table->count < table->capacity)
        return PGS_OK;
    uint32_t slot_count = table->capacity ? 4 * table->capacity : FIRST_SLOTS;
    pgs_entry *entries = realloc(table->entries, slot_count / 2 * sizeof *entries);
    if (!entries)
        return PGS_E_NOMEM;
    table->entries = entries;
    uint32_t *slots = calloc(slot_count, sizeof *slots);
    if (!slots)
        return PGS_E_NOMEM;
    free(table->slots);
    table->slots = slots;
    table->slot_mask = slot_count - 1;
    table->capacity = slot_count / 2;
    for (uint32_t i = 0; i < table->count; i++)
        slots[find_slot(table, entries[i].hash, &entries[i].row)] = i + 1;
    return PGS_OK;
}

static void tell(pgs_table *table, const pgs_entry *entry, uint8_t kind, uint8_t previous_state, uint64_t at)
{
    pgs_ring *ring = table->ring;
    if (table->out_of_step || ring->count == ring->capacity) {
        table->out_of_step = 1;
        table->lost++;
        return;
    }
    ring->filling[ring->count++] = (pgs_change){.connection = entry->connection, .at = at, .netns = table->netns,
                                                .kind = kind, .previous_state = previous_state, .row = entry->row};
}

/* Makes the entry a connection that begins now. */
static void open_entry(pgs_table *table, pgs_entry *entry, const pgs_row *row, uint64_t at)
{
    entry->row = *row;
    entry->connection = ++table->ring->connections;
    entry->opened_at = at;
    entry->owned_inode = row->inode;
    tell(table, entry, PGS_OPENED, 0, at);
}

/* A socket never goes back: another phase downwards is another socket on the same addresses. */
static int phase(uint8_t state)
{
    return state == PGS_SYN_SENT || state == PGS_SYN_RECV ? 0 : state == PGS_ESTABLISHED ? 1 : 2;
}

static int is_another_socket(const pgs_entry *entry, const pgs_row *row)
{
    if (entry->owned_inode && row->inode && entry->owned_inode != row->inode)
        return 1;
    return phase(row->state) < phase(entry->row.state);
}

/* What to call the difference of two rows of one socket; 0 when it is not worth telling. */
static uint8_t kind_of_change(const pgs_row *old, const pgs_row *new)
{
    if (old->state != new->state)
        return PGS_STATE;
    if (old->inode != new->inode)
        return PGS_INODE;
    if (!old->tx_queue != !new->tx_queue || !old->rx_queue != !new->rx_queue ||
        (new->state == PGS_LISTEN && old->rx_queue != new->rx_queue))
        return PGS_QUEUE;
    if (old->probes != new->probes || old->retransmits != new->retransmits || old->timer != new->timer)
        return PGS_PROBE;
    return 0;
}

static void see_again(pgs_table *table, pgs_entry *entry, const pgs_row *row, uint64_t at)
{
    uint8_t previous_state = entry->row.state;
    if (is_another_socket(entry, row)) {
        tell(table, entry, PGS_CLOSED, previous_state, at);
        open_entry(table, entry, row, at);
        return;
    }
    uint8_t kind = kind_of_change(&entry->row, row);
    entry->row = *row;
    if (row->inode)
        entry->owned_inode = row->inode;
    if (kind)
        tell(table, entry, kind, previous_state, at);
}

static int see(pgs_table *table, const pgs_row *row, uint64_t at)
{
    if (reserve(table) != PGS_OK)
        return PGS_E_NOMEM;
    uint32_t hash = hash_of(table, row);
    uint32_t slot = find_slot(table, hash, row);
    pgs_entry *entry;
    if (!table->slots[slot]) {
        entry = &table->entries[table->count++];
        table->slots[slot] = table->count;
        entry->hash = hash;
        open_entry(table, entry, row, at);
    } else {
        entry = &table->entries[table->slots[slot] - 1];
        if (entry->scan == table->scan) {
            table->duplicates++;
            return PGS_OK;
        }
        see_again(table, entry, row, at);
    }
    entry->scan = table->scan;
    entry->absent_at = 0;
    return PGS_OK;
}

/* Frees a slot and closes the gap behind it, so that probing needs no tombstones (Knuth, TAOCP 3, 6.4, algorithm R). */
static void clear_slot(pgs_table *table, uint32_t gap)
{
    const uint32_t mask = table->slot_mask;
    for (uint32_t slot = (gap + 1) & mask; table->slots[slot]; slot = (slot + 1) & mask) {
        uint32_t home = table->entries[table->slots[slot] - 1].hash & mask;
        if (((slot - home) & mask) < ((slot - gap) & mask))
            continue;
        table->slots[gap] = table->slots[slot];
        gap = slot;
    }
    table->slots[gap] = 0;
}

static void remove_entry(pgs_table *table, uint32_t index)
{
    pgs_entry *entry = &table->entries[index], *last = &table->entries[table->count - 1];
    clear_slot(table, find_slot(table, entry->hash, &entry->row));
    if (entry != last) {
        table->slots[find_slot(table, last->hash, &last->row)] = index + 1;
        *entry = *last;
    }
    table->count--;
}

int pgs_table_update(pgs_table *table, const pgs_row *rows, uint32_t count, uint64_t at)
{
    table->scan++;
    for (uint32_t i = 0; i < count; i++)
        if (see(table, &rows[i], at) != PGS_OK)
            return PGS_E_NOMEM; /* what was seen holds; from what was not seen nothing follows */
    for (uint32_t i = 0; i < table->count;) {
        pgs_entry *entry = &table->entries[i];
        if (entry->scan != table->scan && entry->absent_at) {
            tell(table, entry, PGS_CLOSED, entry->row.state, entry->absent_at);
            remove_entry(table, i);
            continue; /* another entry may stand here now */
        }
        if (entry->scan != table->scan)
            entry->absent_at = at;
        i++;
    }
    return PGS_OK;
}

uint32_t pgs_table_snapshot(pgs_table *table, pgs_change *out, uint32_t capacity)
{
    for (uint32_t i = 0; i < table->count && i < capacity; i++) {
        const pgs_entry *entry = &table->entries[i];
        out[i] = (pgs_change){.connection = entry->connection, .at = entry->opened_at, .netns = table->netns,
                              .kind = PGS_OPENED, .row = entry->row};
    }
    if (table->out_of_step && table->count <= capacity) {
        pgs_ring_forget(table->ring, table->netns);
        table->out_of_step = 0;
        table->resyncs++;
    }
    return table->count;
}
