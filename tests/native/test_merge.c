/* The comparison with the last scan's text: it must find what decoding every row would find, and nothing else. */
#include "procnet.h"
#include "rows.h"

enum { RING = 65536, MOST = 1500, TEXT = MOST * 200 + 400 };

static pgs_ring merged_ring, decoded_ring;
static pgs_table merged, decoded;
static char text[TEXT + PGS_TEXT_SLACK];
static pgs_row rows[MOST], parsed[MOST];

static void begin(void)
{
    CHECK(pgs_ring_init(&merged_ring, RING) == PGS_OK && pgs_ring_init(&decoded_ring, RING) == PGS_OK);
    pgs_table_init(&merged, 7, 42, &merged_ring);
    pgs_table_init(&decoded, 7, 42, &decoded_ring);
}

static void end(void)
{
    pgs_table_free(&merged);
    pgs_table_free(&decoded);
    pgs_ring_free(&merged_ring);
    pgs_ring_free(&decoded_ring);
}

static size_t write_text(const pgs_row *from, int count, int first_number)
{
    char *to = write_header(text, from->family);
    for (int i = 0; i < count; i++)
        to = write_row(to, first_number + i, &from[i]);
    return (size_t)(to - text);
}

/* One scan by comparison, in pieces of whole lines as the kernel hands them out. */
static uint32_t merge(size_t length, int family, const pgs_ports *ports, uint64_t at, pgs_change **changes)
{
    pgs_port_texts wanted;
    pgs_text_counts counts = {0};
    size_t done = 0;
    pgs_write_port_texts(&wanted, ports->ports, ports->count, ports->remote_too);
    CHECK(pgs_table_begin(&merged) == PGS_OK);
    while (done < length) {
        size_t piece = length - done < 4000 ? length - done : 4000;
        while (piece < length - done && text[done + piece - 1] != '\n')
            piece++;
        CHECK(pgs_merge_text(&merged, text + done, piece, family, 1, &wanted, &counts) == (int64_t)piece);
        done += piece;
    }
    CHECK(counts.malformed == 0);
    CHECK(pgs_table_finish(&merged, at, PGS_ABSENT_TWICE) == PGS_OK);
    return pgs_ring_drain(&merged_ring, changes);
}

/* The same by decoding every row. */
static uint32_t decode(size_t length, int family, const pgs_ports *ports, uint64_t at, pgs_change **changes)
{
    pgs_parse_result result;
    pgs_entry *entry;
    pgs_parse(text, length, family, ports->ports, ports->count, ports->remote_too, parsed, MOST, &result);
    CHECK(result.consumed == length && pgs_table_begin(&decoded) == PGS_OK);
    for (uint32_t i = 0; i < result.rows; i++)
        CHECK(pgs_table_meet(&decoded, &parsed[i], &entry) >= 0);
    CHECK(pgs_table_finish(&decoded, at, PGS_ABSENT_TWICE) == PGS_OK);
    return pgs_ring_drain(&decoded_ring, changes);
}

/* Both orders of telling are right: changes are compared as sets, by connection numbers that may differ. */
static int by_row(const void *a, const void *b)
{
    const pgs_change *first = a, *second = b;
    int order = memcmp(&first->row, &second->row, sizeof first->row);
    return order ? order : first->kind - second->kind;
}

static void compare(size_t length, int family, const pgs_ports *ports, uint64_t at)
{
    pgs_change *got, *expected;
    uint32_t count = merge(length, family, ports, at, &got);
    CHECK(count == decode(length, family, ports, at, &expected));
    qsort(got, count, sizeof *got, by_row);
    qsort(expected, count, sizeof *expected, by_row);
    for (uint32_t i = 0; i < count; i++)
        CHECK(got[i].kind == expected[i].kind && got[i].previous_state == expected[i].previous_state &&
              got[i].at == expected[i].at && !memcmp(&got[i].row, &expected[i].row, sizeof got[i].row));
    CHECK(merged.count == decoded.count && merged.duplicates == decoded.duplicates);
}

static pgs_row make_client(int family, int number)
{
    pgs_row row = make_row(family, family == 6 ? "fd00::1" : "10.0.0.1", number % 3 ? 5432 : 6432,
                           family == 6 ? "fd00::2" : "10.0.0.2", (uint16_t)(20000 + number), PGS_ESTABLISHED,
                           (uint64_t)rand() % 3 ? (uint64_t)rand() : (uint64_t)rand() % 100);
    row.uid = (uint32_t)(rand() % 2 ? 101 : 100999); /* a wide one moves what follows it */
    return row;
}

/* Changes one column at random. */
static void change(pgs_row *row)
{
    switch (rand() % 9) {
    case 0: row->state = row->state == PGS_ESTABLISHED ? PGS_CLOSE_WAIT : PGS_ESTABLISHED; break;
    case 1: row->tx_queue = (uint32_t)rand() % 3; break;
    case 2: row->rx_queue = (uint32_t)rand(); break;
    case 3: row->timer = (uint8_t)(rand() % 5); break;
    case 4: row->retransmits = (uint32_t)rand() % 20; break;
    case 5: row->uid = (uint32_t)rand(); break;
    case 6: row->probes = (uint32_t)rand() % 300; break;
    case 7: row->inode = (uint64_t)rand() % 2 ? 0 : (uint64_t)rand() << 20; break;
    default: row->inode = row->inode * 10 + 1; break; /* one digit more */
    }
}

static void it_finds_what_decoding_finds(int family)
{
    static const pgs_ports choices[] = {{{5432}, 1, 0}, {{0}, 0, 0}, {{5432, 6432}, 2, 0}, {{20007, 5432}, 2, 1}};
    int next = 600, count = 600;
    begin();
    srand((unsigned)family);
    for (int i = 0; i < count; i++)
        rows[i] = make_client(family, i);
    for (uint64_t round = 1; round <= 400; round++) {
        for (int i = rand() % 4 ? rand() % 5 : rand() % 300; i-- > 0;)
            change(&rows[rand() % count]);
        for (int i = rand() % 6; i-- > 0 && count > 1;) { /* one goes */
            int place = rand() % count;
            memmove(&rows[place], &rows[place + 1], (size_t)(--count - place) * sizeof *rows);
        }
        for (int i = rand() % 6; i-- > 0 && count < MOST - 2;) { /* one comes, anywhere */
            int place = rand() % (count + 1);
            memmove(&rows[place + 1], &rows[place], (size_t)(count++ - place) * sizeof *rows);
            rows[place] = make_client(family, next++ % 40000);
        }
        if (rand() % 10 == 0) { /* a seam: one row comes twice */
            rows[count] = rows[rand() % count];
            count++;
        }
        compare(write_text(rows, count, rand() % 2 ? 0 : 9800), family, &choices[(round - 1) / 100], round);
    }
    end();
}

/* Byte by byte: whatever differs, other than the row's number and the time left, is seen. */
static void every_column_counts(int family)
{
    const pgs_ports all = {{0}, 0, 0};
    pgs_change *changes;
    pgs_row row = make_client(family, 1), before;
    row.inode = 1234567890;
    for (int column = 0; column < 9; column++) {
        begin();
        for (uint64_t at = 1; at <= 3; at++)
            CHECK(merge(write_text(&row, 1, (int)at), family, &all, at, &changes) == (at == 1));
        before = row;
        switch (column) {
        case 0: row.state = PGS_CLOSE_WAIT; break;
        case 1: row.tx_queue = 1; break;
        case 2: row.rx_queue = 1; break;
        case 3: row.timer = 1; break;
        case 4: row.retransmits = 1; break;
        case 5: row.probes = 1; break;
        case 6: row.inode = 1234567891; break;
        case 7: row.inode = 0; break;
        default: row.inode = 12345678901; break;
        }
        CHECK(merge(write_text(&row, 1, 9), family, &all, 4, &changes) >= 1);
        row = before;
        end();
    }
}

static void a_change_that_is_not_worth_telling_is_kept(void)
{
    const pgs_ports all = {{0}, 0, 0};
    pgs_change *changes;
    pgs_row row = make_client(4, 1);
    begin();
    row.rx_queue = 7;
    for (uint64_t at = 1; at <= 3; at++)
        merge(write_text(&row, 1, 0), 4, &all, at, &changes);
    row.rx_queue = 9;
    row.uid = 5;
    CHECK(merge(write_text(&row, 1, 0), 4, &all, 4, &changes) == 0);
    CHECK(merged.entries[0].row.rx_queue == 9 && merged.entries[0].row.uid == 5);
    end();
}

int main(void)
{
    it_finds_what_decoding_finds(4);
    it_finds_what_decoding_finds(6);
    every_column_counts(4);
    every_column_counts(6);
    a_change_that_is_not_worth_telling_is_kept();
    return 0;
}
