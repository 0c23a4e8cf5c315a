/*
 * The entries of a table and their index. The rule: entries are dense and move when one is removed, so an index holds
 * until the next removal; and whatever leads to a removed entry, the order included, finds nothing there.
 */
#include <stdlib.h>

#include "table.h"

enum {
    KEY_SIZE = 16 + 16 + 2 + 2, /* both addresses and ports, which open pgs_row without a gap */
    FIRST_SLOTS = 256
};

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

int pgs_same_key(const pgs_row *a, const pgs_row *b)
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
        if (entry->hash == hash && pgs_same_key(&entry->row, row))
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

uint32_t pgs_table_find(const pgs_table *table, const pgs_row *row)
{
    uint32_t slot = table->capacity ? table->slots[find_slot(table, hash_of(table, row), row)] : 0;
    return slot ? slot - 1 : PGS_NEW;
}

pgs_entry *pgs_table_add(pgs_table *table, const pgs_row *row)
{
    if (reserve(table) != PGS_OK)
        return NULL;
    const uint32_t hash = hash_of(table, row);
    pgs_entry *entry = &table->entries[table->count++];
    table->slots[find_slot(table, hash, row)] = table->count;
    memset(entry, 0, sizeof *entry);
    entry->row = *row;
    entry->hash = hash;
    entry->place = PGS_NEW;
    return entry;
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

int pgs_table_has_place(const pgs_table *table, uint32_t index)
{
    uint32_t place = table->entries[index].place;
    return place < table->order_count && table->order[place] == index;
}

void pgs_table_remove(pgs_table *table, uint32_t index)
{
    const uint32_t last = table->count - 1;
    pgs_entry *entry = &table->entries[index];
    clear_slot(table, find_slot(table, entry->hash, &entry->row));
    if (index != last) {
        const pgs_entry *moved = &table->entries[last];
        if (pgs_table_has_place(table, last))
            table->order[moved->place] = index;
        table->slots[find_slot(table, moved->hash, &moved->row)] = index + 1;
        *entry = *moved;
    }
    table->entries[last].raw[0] = 0; /* the order may still lead here: nothing is found */
    table->count--;
}
