/*
 * The sockets of one namespace and their diff. The rule: a scan is not atomic, so a second sighting in one scan is
 * ignored, and absence is a suspicion until the kernel, asked for that socket, or a second complete scan confirms it.
 *
 * The key is the directed pair of address and port; the inode is an attribute, because the kernel reuses inodes and a
 * socket has none before it is accepted and after it is closed. LISTEN is the exception: sockets that share a port
 * through SO_REUSEPORT differ in nothing else, so there the inode belongs to the key and each keeps its own backlog.
 */
#include "table.h"

#include <stdlib.h>

void pgs_table_init(pgs_table *table, uint32_t netns, uint64_t seed, pgs_ring *ring)
{
    memset(table, 0, sizeof *table);
    table->netns = netns;
    table->seed = seed;
    table->ring = ring;
    table->is_first = 1;
}

void pgs_table_free(pgs_table *table)
{
    free(table->entries);
    free(table->slots);
    free(table->order);
    free(table->next_order);
    free(table->differences);
    free(table->notes);
    pgs_told_reset(&table->told, 0, 0);
    memset(table, 0, sizeof *table);
}

static int same_row(const pgs_row *a, const pgs_row *b)
{
    return !memcmp(a, b, sizeof *a); /* it has no padding */
}

_Static_assert(sizeof(pgs_row) == 16 + 16 + 2 + 2 + 4 + 6 * 4 + 2 * 8, "rows are compared as bytes");

int pgs_table_expect_ends(pgs_table *table, int expected)
{
    int code = pgs_told_reset(&table->told, table->seed, expected);
    if (expected && code == PGS_OK)
        table->ends_are_told = 1; /* the caller clears it when the last TIME_WAIT of that time is over */
    return code;
}

/* --- changes ------------------------------------------------------------------------------------------------------ */

static pgs_change *send(pgs_table *table, const pgs_entry *entry, uint8_t kind, uint8_t previous_state, uint64_t at)
{
    pgs_ring *ring = table->ring;
    if (table->out_of_step || ring->count == ring->capacity) {
        table->out_of_step = 1;
        table->lost++;
        return NULL;
    }
    pgs_change *change = &ring->filling[ring->count++];
    *change = (pgs_change){.connection = entry->connection, .at = at, .netns = table->netns, .kind = kind,
                           .previous_state = previous_state, .row = entry->row};
    return change;
}

/* Makes the entry a connection that begins now. */
static void open_entry(pgs_table *table, pgs_entry *entry, const pgs_row *row, uint64_t at)
{
    uint32_t hash = entry->hash, place = entry->place;
    uint64_t scan = entry->scan;
    memset(entry, 0, sizeof *entry);
    entry->hash = hash;
    entry->place = place;
    entry->scan = scan;
    entry->row = *row;
    entry->connection = ++table->ring->connections;
    entry->opened_at = at;
    entry->owned_inode = row->inode;
    entry->owned_cookie = pgs_row_is_full(row) ? row->cookie : 0;
    table->opened += !table->is_first && row->state != PGS_LISTEN;
    send(table, entry, PGS_OPENED, 0, at);
}

static void close_entry(pgs_table *table, const pgs_entry *entry, const pgs_details *final, uint64_t at)
{
    table->closed += entry->row.state != PGS_LISTEN;
    pgs_change *change = send(table, entry, PGS_CLOSED, entry->row.state, at);
    if (change && final) {
        change->is_final = 1;
        change->bytes_sent = final->bytes_sent;
        change->bytes_received = final->bytes_received;
    }
}

/* The kernel may yet tell the end of what was just reported closed. */
static void expect_end(pgs_table *table, const pgs_entry *entry)
{
    pgs_told_remember(&table->told, entry->owned_cookie ? entry->owned_cookie : entry->row.cookie);
}

static void see_again(pgs_table *table, pgs_entry *entry, const pgs_row *row, uint64_t at)
{
    uint8_t previous_state = entry->row.state;
    if (pgs_row_is_of_another(entry, row)) {
        if (table->ends_are_told && !pgs_row_is_full(row))
            return; /* its end will tell of it by a cookie that is not known yet; the old one's end is on its way */
        close_entry(table, entry, NULL, at);
        expect_end(table, entry);
        open_entry(table, entry, row, at);
        return;
    }
    uint8_t kind = pgs_row_change(&entry->row, row);
    entry->row = *row;
    if (row->inode)
        entry->owned_inode = row->inode;
    if (row->cookie && pgs_row_is_full(row))
        entry->owned_cookie = row->cookie;
    if (kind)
        send(table, entry, kind, previous_state, at);
}

/* --- a scan ------------------------------------------------------------------------------------------------------- */

int pgs_table_begin(pgs_table *table)
{
    if (table->order_capacity < table->capacity) { /* an entry enters an order once */
        uint32_t *order = realloc(table->order, table->capacity * sizeof *order);
        if (order)
            table->order = order;
        uint32_t *next = order ? realloc(table->next_order, table->capacity * sizeof *next) : NULL;
        if (!next)
            return PGS_E_NOMEM;
        table->next_order = next;
        table->order_capacity = table->capacity;
    }
    table->scan++;
    table->cursor = table->next_count = table->seen = table->difference_count = table->note_count = 0;
    table->is_reordered = 0;
    return PGS_OK;
}

/* Makes room for one element more of an array that doubles. */
static int grow(void **array, uint32_t count, uint32_t *capacity, size_t size)
{
    if (count < *capacity)
        return PGS_OK;
    uint32_t more = *capacity ? 2 * *capacity : 64;
    void *grown = realloc(*array, more * size);
    if (!grown)
        return PGS_E_NOMEM;
    *array = grown;
    *capacity = more;
    return PGS_OK;
}

static int add_difference(pgs_table *table, uint32_t entry, const pgs_row *row)
{
    void *array = table->differences;
    int code = grow(&array, table->difference_count, &table->difference_capacity, sizeof *table->differences);
    table->differences = array;
    if (code == PGS_OK)
        table->differences[table->difference_count++] = (pgs_difference){entry, *row};
    return code;
}

int pgs_table_note(pgs_table *table, const pgs_entry *entry, const pgs_details *details)
{
    void *array = table->notes;
    int code = grow(&array, table->note_count, &table->note_capacity, sizeof *table->notes);
    table->notes = array;
    if (code == PGS_OK)
        table->notes[table->note_count++] = (pgs_note){(uint32_t)(entry - table->entries), *details};
    return code;
}

/* Notes that an entry came which was not expected here, or has changed. Where it stood before, the walk goes on. */
static void came_from_elsewhere(pgs_table *table, uint32_t index)
{
    pgs_entry *entry = &table->entries[index];
    const int is_placed = pgs_table_has_place(table, index);
    const uint32_t place = entry->place;
    if (!table->is_reordered && is_placed && place == table->cursor) {
        table->cursor++;
        return;
    }
    if (!table->is_reordered) {
        table->is_reordered = 1;
        table->next_count = table->cursor;
        if (table->cursor)
            memcpy(table->next_order, table->order, table->cursor * sizeof *table->order);
    }
    pgs_table_place(table, entry, index);
    if (is_placed)
        table->cursor = place + 1;
}

int pgs_table_meet(pgs_table *table, const pgs_row *row, pgs_entry **entry)
{
    uint32_t index = pgs_table_find(table, row);
    *entry = NULL;
    if (pgs_row_is_taken_down(row))
        return PGS_OK;
    if (index == PGS_NEW)
        return table->ends_are_told && !pgs_row_is_full(row) ? PGS_OK : add_difference(table, PGS_NEW, row);
    if (table->entries[index].scan == table->scan) {
        table->duplicates++;
        return PGS_OK;
    }
    *entry = &table->entries[index];
    came_from_elsewhere(table, index);
    return pgs_table_meet_entry(table, index, row);
}

int pgs_table_meet_entry(pgs_table *table, uint32_t index, const pgs_row *row)
{
    pgs_entry *entry = &table->entries[index];
    pgs_table_meet_again(table, entry);
    if (same_row(&entry->row, row))
        return PGS_SAME;
    entry->raw[0] = 0;
    return add_difference(table, index, row);
}

/* A socket that is not in the table, unless this very scan has put it there. */
static int open_new(pgs_table *table, const pgs_row *row, uint64_t at)
{
    if (pgs_table_find(table, row) != PGS_NEW) {
        table->duplicates++;
        return PGS_OK;
    }
    pgs_entry *entry = pgs_table_add(table, row);
    if (!entry)
        return PGS_E_NOMEM;
    entry->scan = table->scan;
    open_entry(table, entry, row, at);
    table->seen++;
    return PGS_OK;
}

/* The order of this walk becomes the one to expect. */
static void take_order(pgs_table *table)
{
    if (!table->is_reordered) {
        table->order_count = table->cursor;
        return;
    }
    uint32_t *order = table->order;
    table->order = table->next_order;
    table->next_order = order;
    table->order_count = table->next_count;
}

static void judge_absence(pgs_table *table, uint64_t at, enum pgs_absence absence)
{
    table->has_absent = 0;
    for (uint32_t i = 0; i < table->count;) {
        pgs_entry *entry = &table->entries[i];
        if (entry->scan == table->scan) {
            entry->absent_at = 0;
        } else if (entry->absent_at || absence == PGS_ABSENT_CONFIRMED) {
            pgs_table_gone(table, i, entry->absent_at ? entry->absent_at : at);
            continue; /* another entry may stand here now */
        } else {
            entry->absent_at = at;
            table->has_absent = 1;
        }
        i++;
    }
}

int pgs_table_finish(pgs_table *table, uint64_t at, enum pgs_absence absence)
{
    for (uint32_t i = 0; i < table->note_count; i++)
        table->entries[table->notes[i].entry].details = table->notes[i].details;
    table->note_count = 0;
    for (uint32_t i = 0; i < table->difference_count; i++) {
        const pgs_difference *difference = &table->differences[i];
        if (difference->entry != PGS_NEW)
            see_again(table, &table->entries[difference->entry], &difference->row, at);
        else if (open_new(table, &difference->row, at) != PGS_OK)
            return PGS_E_NOMEM; /* what was seen holds; from what was not seen nothing follows */
    }
    table->difference_count = 0;
    if (absence == PGS_ABSENT_NOTHING)
        return PGS_OK;
    take_order(table);
    table->is_first = 0;
    if (table->seen != table->count || table->has_absent)
        judge_absence(table, at, absence);
    return PGS_OK;
}

void pgs_table_abandon(pgs_table *table)
{
    table->difference_count = table->note_count = 0;
}

void pgs_table_gone(pgs_table *table, uint32_t index, uint64_t at)
{
    const pgs_entry *entry = &table->entries[index];
    close_entry(table, entry, NULL, at);
    expect_end(table, entry);
    pgs_table_remove(table, index);
}

/* Makes up the life of a connection that no scan saw. It began no later than its last byte or acknowledgement. */
static void tell_short_life(pgs_table *table, const pgs_row *row, const pgs_details *details, uint64_t at)
{
    uint32_t age = details->last_sent > details->last_received ? details->last_sent : details->last_received;
    uint64_t lifetime = (uint64_t)(age > details->last_ack ? age : details->last_ack) * 1000000;
    pgs_entry entry = {0};
    open_entry(table, &entry, row, at > lifetime ? at - lifetime : 0);
    close_entry(table, &entry, details, at);
    table->short_lived++;
}

void pgs_table_ended(pgs_table *table, const pgs_row *row, const pgs_details *details, uint64_t at)
{
    if (row->state == PGS_LISTEN || pgs_told_was(&table->told, row->cookie))
        return;
    uint32_t index = pgs_table_find(table, row);
    const pgs_entry *entry = index == PGS_NEW ? NULL : &table->entries[index];
    if (!entry || (entry->owned_cookie && entry->owned_cookie != row->cookie)) {
        tell_short_life(table, row, details, at);
        return;
    }
    close_entry(table, entry, details, at);
    pgs_table_remove(table, index);
}

/* --- what Python asks for ----------------------------------------------------------------------------------------- */

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

uint32_t pgs_table_details(const pgs_table *table, pgs_details *out, uint32_t capacity)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < table->count; i++) {
        const pgs_entry *entry = &table->entries[i];
        if (!entry->details.at)
            continue;
        if (count < capacity) {
            out[count] = entry->details;
            out[count].connection = entry->connection;
        }
        count++;
    }
    return count;
}
