/*
 * Inside the native side: the sockets of one namespace, what a complete scan changes in them, and the ring that
 * carries changes to Python.
 *
 * No function here locks. A scan has two halves: while the kernel is read, pgs_table_begin() and what meets rows only
 * compare, and write nothing but the fields marked "scanner's own"; pgs_table_finish() applies the differences, and is
 * called with the sampler's lock held. A scan that breaks off is simply not finished.
 */
#ifndef PGSONAR_TABLE_H
#define PGSONAR_TABLE_H

#include <string.h>

#include "api.h"
#include "told.h"

/* Two buffers of `capacity` changes: one is filled while the other is read. */
typedef struct pgs_ring {
    pgs_change *filling;
    pgs_change *draining;
    uint32_t capacity;
    uint32_t count;           /* in `filling` */
    uint64_t connections;     /* numbers given to connections so far, in all namespaces */
} pgs_ring;

int pgs_ring_init(pgs_ring *ring, uint32_t capacity);
void pgs_ring_free(pgs_ring *ring);
uint32_t pgs_ring_drain(pgs_ring *ring, pgs_change **changes);

/* Takes a namespace's changes out of the ring: a snapshot tells more than they do. */
void pgs_ring_forget(pgs_ring *ring, uint32_t netns);

enum { PGS_RAW = 160 }; /* ten blocks of a row of tcp6, or a message of sock_diag */

/* A socket followed in time. */
typedef struct pgs_entry {
    uint64_t scan;          /* scanner's own: the last scan that saw it */
    uint32_t place;         /* scanner's own: where in the order it stands, if the order agrees */
    uint32_t hash;
    _Alignas(16) uint8_t mask[16]; /* scanner's own: which bytes of the last block of a text count */
    uint8_t raw[PGS_RAW];   /* scanner's own: what the kernel wrote when `row` was read; nothing while raw[0] is 0 */
    pgs_row row;
    uint64_t connection;
    uint64_t opened_at;
    uint64_t absent_at;     /* the first complete scan without it; 0 while it is present */
    uint64_t owned_inode;   /* the last inode that was not 0 */
    uint64_t owned_cookie;  /* the cookie it had as a full socket, 0 when never seen */
    pgs_details details;
} pgs_entry;

/* A row that is not as it was. */
typedef struct pgs_difference {
    uint32_t entry;         /* PGS_NEW: there is none yet */
    pgs_row row;
} pgs_difference;

enum { PGS_NEW = UINT32_MAX };

typedef struct pgs_note {
    uint32_t entry;
    pgs_details details;
} pgs_note;

typedef struct pgs_table {
    pgs_entry *entries;     /* dense, in no order */
    uint32_t *slots;        /* open addressing: index into `entries` + 1, 0 for a free slot */
    uint32_t count;
    uint32_t capacity;      /* of `entries` */
    uint32_t slot_mask;
    uint32_t netns;
    uint64_t seed;          /* clients choose their addresses, not where they fall in the table */

    /* The scan under way: the kernel walks its hash in a stable order, so what followed last time follows again. */
    uint64_t scan;
    uint32_t *order;        /* entries in the order of the last walk; of one removed since, whatever took its index */
    uint32_t *next_order;   /* in that of this walk, once it differs */
    uint32_t order_count;
    uint32_t next_count;
    uint32_t order_capacity;
    uint32_t cursor;        /* into `order`: the entry that should come next */
    uint32_t seen;          /* entries met by this scan */
    int is_reordered;
    pgs_difference *differences;
    uint32_t difference_count;
    uint32_t difference_capacity;
    pgs_note *notes;
    uint32_t note_count;
    uint32_t note_capacity;

    uint64_t duplicates;
    uint64_t opened;        /* connections met after the first scan */
    uint64_t closed;
    uint64_t short_lived;
    uint64_t lost;          /* changes that found the ring full */
    uint64_t resyncs;
    int is_first;           /* no walk was complete yet: what is met now may be old */
    int has_absent;         /* the last walk did not meet every entry */
    int out_of_step;        /* changes were lost: no more are sent until a snapshot was taken */
    int ends_are_told;      /* what is first seen in TIME_WAIT was told already, in SYN_RECV will be */
    pgs_told told;
    pgs_ring *ring;
} pgs_table;

/* --- row.c --- */

/* TIME_WAIT and SYN_RECV are no full sockets. The first has a cookie of its own, whatever socket it remains of
 * (inet_twsk_alloc); that of the second passes to the socket, unless it was asked for in that very moment
 * (inet_csk_clone_lock). Neither has an end to tell. */
int pgs_row_is_full(const pgs_row *row);

/* A dump may read a socket while it is taken down: in CLOSE or, before that, with its ports cleared. It is as good as
 * absent. */
int pgs_row_is_taken_down(const pgs_row *row);

/* Whether a row on the addresses of an entry is of another socket than the entry. */
int pgs_row_is_of_another(const pgs_entry *entry, const pgs_row *row);

/* What to call the difference of two rows of one socket; 0 when it is not worth telling. */
uint8_t pgs_row_change(const pgs_row *old, const pgs_row *new);

/* --- entries.c --- */

/* Whether two rows are of one socket. */
int pgs_same_key(const pgs_row *a, const pgs_row *b);

/* The entry of a row, or PGS_NEW. */
uint32_t pgs_table_find(const pgs_table *table, const pgs_row *row);

/* An entry for a row that has none; NULL without memory. */
pgs_entry *pgs_table_add(pgs_table *table, const pgs_row *row);
void pgs_table_remove(pgs_table *table, uint32_t index);

/* Whether the order leads to an entry by its place. */
int pgs_table_has_place(const pgs_table *table, uint32_t index);

/* --- table.c --- */

void pgs_table_init(pgs_table *table, uint32_t netns, uint64_t seed, pgs_ring *ring);
void pgs_table_free(pgs_table *table);

/* Begins a walk over all sockets. */
int pgs_table_begin(pgs_table *table);

/* The entry that should come next, NULL when there is none or it was met already. */
static inline pgs_entry *pgs_table_expected(const pgs_table *table)
{
    if (table->cursor >= table->order_count)
        return NULL;
    pgs_entry *entry = &table->entries[table->order[table->cursor]];
    return entry->scan == table->scan ? NULL : entry;
}

/* Notes that an entry is there, unchanged, wherever it stands. */
static inline void pgs_table_meet_again(pgs_table *table, pgs_entry *entry)
{
    table->seen += entry->scan != table->scan;
    entry->scan = table->scan;
}

/* Appends an entry to the order of this walk, once that differs from the last one's. */
static inline void pgs_table_place(pgs_table *table, pgs_entry *entry, uint32_t index)
{
    entry->place = table->next_count;
    table->next_order[table->next_count++] = index;
}

/* Notes that the expected entry came, unchanged. */
static inline void pgs_table_came(pgs_table *table, pgs_entry *entry)
{
    if (table->is_reordered)
        pgs_table_place(table, entry, table->order[table->cursor]);
    entry->scan = table->scan;
    table->cursor++;
    table->seen++;
}

enum { PGS_SAME = 1 }; /* the row is the one the entry has: what the kernel wrote may be kept in `raw` */

/* Meets a row that is not the expected one, or not as it was. `*entry` becomes its entry, NULL when there is none yet
 * or it was met before. Returns PGS_SAME, PGS_OK or an error. */
int pgs_table_meet(pgs_table *table, const pgs_row *row, pgs_entry **entry);

/* Meets the row of an entry that was looked up by itself, outside of a walk or to confirm its absence. */
int pgs_table_meet_entry(pgs_table *table, uint32_t index, const pgs_row *row);

/* Notes what TCP_INFO tells of an entry. */
int pgs_table_note(pgs_table *table, const pgs_entry *entry, const pgs_details *details);


enum pgs_absence {
    PGS_ABSENT_TWICE,     /* an entry that was not met is gone when the scan before did not meet it either */
    PGS_ABSENT_CONFIRMED, /* the caller asked for each that was not met: it is gone */
    PGS_ABSENT_NOTHING    /* not a walk over all sockets: nothing follows from absence */
};

/* Applies what a complete scan, begun at `at`, found. */
int pgs_table_finish(pgs_table *table, uint64_t at, enum pgs_absence absence);

/* Drops what a scan that broke off has found. */
void pgs_table_abandon(pgs_table *table);

/* The kernel found no such socket, without a walk. `index` and those above may stand for other entries afterwards. */
void pgs_table_gone(pgs_table *table, uint32_t index, uint64_t at);

/* The kernel told the end of a socket with these last figures; `at` is now. */
void pgs_table_ended(pgs_table *table, const pgs_row *row, const pgs_details *details, uint64_t at);

/* Whether ends are told from now on. */
int pgs_table_expect_ends(pgs_table *table, int expected);

/* See pgs_sampler_snapshot() and pgs_sampler_details(). */
uint32_t pgs_table_snapshot(pgs_table *table, pgs_change *out, uint32_t capacity);
uint32_t pgs_table_details(const pgs_table *table, pgs_details *out, uint32_t capacity);

#endif
