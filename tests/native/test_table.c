/* The table of one namespace: which rows of successive scans make which changes. */
#include "rows.h"
#include "table.h"

enum { RING = 4096 };

static pgs_ring ring;
static pgs_table table;
static uint64_t at; /* of the last scan */

static void begin(uint32_t ring_capacity)
{
    CHECK(pgs_ring_init(&ring, ring_capacity) == PGS_OK);
    pgs_table_init(&table, 7, 42, &ring);
    at = 0;
}

static void end(void)
{
    pgs_table_free(&table);
    pgs_ring_free(&ring);
}

/* One complete walk of procfs over these rows. */
static int update(pgs_table *to, const pgs_row *rows, uint32_t count, uint64_t when)
{
    pgs_entry *entry;
    CHECK(pgs_table_begin(to) == PGS_OK);
    for (uint32_t i = 0; i < count; i++)
        CHECK(pgs_table_meet(to, &rows[i], &entry) >= 0);
    return pgs_table_finish(to, when, PGS_ABSENT_TWICE);
}

/* The same, with what it changed. Returns how many changes. */
static uint32_t scan(const pgs_row *rows, uint32_t count, pgs_change **changes)
{
    CHECK(update(&table, rows, count, ++at) == PGS_OK);
    return pgs_ring_drain(&ring, changes);
}

static pgs_row client(uint16_t port, uint8_t state, uint64_t inode)
{
    return make_row(4, "10.0.0.1", 5432, "10.0.0.2", port, state, inode);
}

static void a_connection_opens_changes_and_closes(void)
{
    pgs_change *changes;
    pgs_row row = client(40000, PGS_SYN_RECV, 0);
    begin(RING);
    CHECK(scan(&row, 1, &changes) == 1 && changes[0].kind == PGS_OPENED && changes[0].previous_state == 0);
    uint64_t connection = changes[0].connection;
    CHECK(changes[0].at == 1 && changes[0].netns == 7);
    CHECK(scan(&row, 1, &changes) == 0);
    row.state = PGS_ESTABLISHED;
    CHECK(scan(&row, 1, &changes) == 1 && changes[0].kind == PGS_STATE && changes[0].previous_state == PGS_SYN_RECV);
    row.inode = 99;
    CHECK(scan(&row, 1, &changes) == 1 && changes[0].kind == PGS_INODE && changes[0].row.inode == 99);
    row.state = PGS_FIN_WAIT1;
    row.inode = 0;
    CHECK(scan(&row, 1, &changes) == 1 && changes[0].kind == PGS_STATE);
    CHECK(scan(NULL, 0, &changes) == 0);
    CHECK(scan(NULL, 0, &changes) == 1 && changes[0].kind == PGS_CLOSED);
    CHECK(changes[0].connection == connection && changes[0].at == 6 && changes[0].row.state == PGS_FIN_WAIT1);
    CHECK(table.count == 0);
    row = client(40000, PGS_ESTABLISHED, 0);
    CHECK(scan(&row, 1, &changes) == 1 && changes[0].kind == PGS_OPENED && changes[0].connection > connection);
    end();
}

static void absence_from_one_scan_closes_nothing(void)
{
    pgs_change *changes;
    pgs_row row = client(40000, PGS_ESTABLISHED, 99);
    begin(RING);
    CHECK(scan(&row, 1, &changes) == 1);
    for (int i = 0; i < 10; i++) {
        CHECK(scan(NULL, 0, &changes) == 0);
        CHECK(scan(&row, 1, &changes) == 0);
    }
    end();
}

static void a_second_sighting_in_one_scan_is_ignored(void)
{
    pgs_change *changes;
    pgs_row rows[3] = {client(40000, PGS_ESTABLISHED, 99), client(40001, PGS_ESTABLISHED, 98),
                       client(40000, PGS_CLOSE_WAIT, 99)};
    begin(RING);
    CHECK(scan(rows, 3, &changes) == 2 && table.duplicates == 1);
    CHECK(scan(rows, 3, &changes) == 0 && table.duplicates == 2);
    CHECK(scan(rows + 1, 2, &changes) == 1 && changes[0].kind == PGS_STATE);
    end();
}

static void check_replaced(pgs_row before, pgs_row after)
{
    pgs_change *changes;
    begin(RING);
    CHECK(scan(&before, 1, &changes) == 1);
    uint64_t connection = changes[0].connection;
    CHECK(scan(&after, 1, &changes) == 2);
    CHECK(changes[0].kind == PGS_CLOSED && changes[0].connection == connection && changes[0].at == 2);
    CHECK(changes[0].row.state == before.state && changes[0].row.inode == before.inode);
    CHECK(changes[1].kind == PGS_OPENED && changes[1].connection != connection && changes[1].at == 2);
    CHECK(scan(&after, 1, &changes) == 0 && table.count == 1);
    end();
}

static void a_4_tuple_taken_by_another_socket_closes_and_opens(void)
{
    static const uint8_t ended[] = {PGS_TIME_WAIT, PGS_FIN_WAIT1, PGS_FIN_WAIT2,
                                    PGS_CLOSING,   PGS_LAST_ACK,  PGS_CLOSE_WAIT};
    check_replaced(client(40000, PGS_ESTABLISHED, 99), client(40000, PGS_ESTABLISHED, 100));
    check_replaced(client(40000, PGS_ESTABLISHED, 99), client(40000, PGS_SYN_RECV, 0));
    for (size_t i = 0; i < sizeof ended; i++) {
        check_replaced(client(40000, ended[i], 0), client(40000, PGS_SYN_RECV, 0));
        check_replaced(client(40000, ended[i], 0), client(40000, PGS_ESTABLISHED, 0));
    }
}

/* A walk may find a socket that is being taken down, in CLOSE or with ports already cleared. */
static void a_socket_that_is_taken_down_is_gone_and_no_other_one(void)
{
    pgs_change *changes;
    pgs_row row = client(40000, PGS_ESTABLISHED, 99);
    begin(RING);
    CHECK(scan(&row, 1, &changes) == 1);
    row.state = PGS_CLOSE;
    CHECK(scan(&row, 1, &changes) == 0 && scan(&row, 1, &changes) == 1 && changes[0].kind == PGS_CLOSED);
    row.state = PGS_ESTABLISHED;
    row.local_port = 0;
    CHECK(scan(&row, 1, &changes) == 0 && table.count == 0);
    row.local_port = 5432;
    row.remote_port = 0;
    CHECK(scan(&row, 1, &changes) == 0 && table.count == 0);
    end();
}

/* Between two scans a client may return on the same port, and be seen before it is accepted. */
static void another_inode_is_another_socket_also_with_none_in_between(void)
{
    pgs_change *changes;
    pgs_row row = client(40000, PGS_ESTABLISHED, 99);
    begin(RING);
    CHECK(scan(&row, 1, &changes) == 1);
    row.inode = 0;
    CHECK(scan(&row, 1, &changes) == 1 && changes[0].kind == PGS_INODE);
    row.inode = 100;
    CHECK(scan(&row, 1, &changes) == 2 && changes[0].kind == PGS_CLOSED && changes[1].kind == PGS_OPENED);
    end();
}

static void only_what_is_worth_telling_is_told(void)
{
    pgs_change *changes;
    pgs_row row = client(40000, PGS_ESTABLISHED, 99);
    begin(RING);
    CHECK(scan(&row, 1, &changes) == 1);
    row.tx_queue = 10;
    CHECK(scan(&row, 1, &changes) == 1 && changes[0].kind == PGS_QUEUE);
    row.tx_queue = 4000000;
    row.uid = 5;
    CHECK(scan(&row, 1, &changes) == 0);
    row.rx_queue = 1;
    CHECK(scan(&row, 1, &changes) == 1 && changes[0].kind == PGS_QUEUE && changes[0].row.tx_queue == 4000000);
    row.rx_queue = 0;
    row.tx_queue = 0;
    CHECK(scan(&row, 1, &changes) == 1 && changes[0].kind == PGS_QUEUE);
    row.probes = 1;
    CHECK(scan(&row, 1, &changes) == 1 && changes[0].kind == PGS_PROBE);
    row.retransmits = 3;
    CHECK(scan(&row, 1, &changes) == 1 && changes[0].kind == PGS_PROBE);
    row.timer = 4;
    CHECK(scan(&row, 1, &changes) == 1 && changes[0].kind == PGS_PROBE);
    row.state = PGS_CLOSE_WAIT;
    row.rx_queue = 1;
    row.probes = 0;
    CHECK(scan(&row, 1, &changes) == 1 && changes[0].kind == PGS_STATE && changes[0].row.rx_queue == 1);
    end();
}

static void a_backlog_is_told_at_every_length(void)
{
    pgs_change *changes;
    pgs_row row = make_row(4, "0.0.0.0", 5432, "0.0.0.0", 0, PGS_LISTEN, 50);
    begin(RING);
    CHECK(scan(&row, 1, &changes) == 1 && changes[0].kind == PGS_OPENED);
    for (row.rx_queue = 1; row.rx_queue < 5; row.rx_queue++)
        CHECK(scan(&row, 1, &changes) == 1 && changes[0].kind == PGS_QUEUE && changes[0].row.rx_queue == row.rx_queue);
    end();
}

static void listeners_that_share_a_port_do_not_flap(void)
{
    pgs_change *changes;
    pgs_row rows[2] = {make_row(4, "0.0.0.0", 5432, "0.0.0.0", 0, PGS_LISTEN, 50),
                       make_row(4, "0.0.0.0", 5432, "0.0.0.0", 0, PGS_LISTEN, 51)};
    pgs_row turned[2] = {rows[1], rows[0]};
    begin(RING);
    CHECK(scan(rows, 2, &changes) == 2 && changes[0].connection != changes[1].connection);
    for (int i = 0; i < 5; i++) {
        CHECK(scan(turned, 2, &changes) == 0);
        CHECK(scan(rows, 2, &changes) == 0);
    }
    CHECK(table.duplicates == 0);
    rows[1].rx_queue = 3;
    CHECK(scan(rows, 2, &changes) == 1 && changes[0].row.inode == 51);
    CHECK(scan(rows, 1, &changes) == 0 && scan(rows, 1, &changes) == 1 && changes[0].row.inode == 51);
    end();
}

static void lost_changes_silence_the_table_until_a_snapshot(void)
{
    pgs_change *changes, present[8];
    pgs_row rows[8];
    begin(4);
    for (int i = 0; i < 8; i++)
        rows[i] = client((uint16_t)(40000 + i), PGS_ESTABLISHED, 1);
    CHECK(update(&table, rows, 8, ++at) == PGS_OK && table.lost == 4);
    CHECK(scan(rows, 7, &changes) == 4 && scan(rows, 7, &changes) == 0);
    CHECK(table.lost == 5 && table.resyncs == 0);
    CHECK(pgs_table_snapshot(&table, present, 6) == 7 && table.out_of_step); /* it did not fit: nothing is settled */
    CHECK(pgs_table_snapshot(&table, present, 8) == 7 && table.resyncs == 1);
    for (int i = 0; i < 7; i++)
        CHECK(present[i].kind == PGS_OPENED && present[i].at == 1 && present[i].netns == 7);
    rows[0].state = PGS_CLOSE_WAIT;
    CHECK(scan(rows, 7, &changes) == 1 && changes[0].kind == PGS_STATE && table.lost == 5);
    CHECK(pgs_table_snapshot(&table, present, 8) == 7 && table.resyncs == 1);
    end();
}

static void a_snapshot_after_lost_changes_replaces_those_queued_of_its_namespace(void)
{
    pgs_change *changes, present[8];
    pgs_row rows[5];
    pgs_table other;
    begin(4);
    pgs_table_init(&other, 8, 42, &ring);
    for (int i = 0; i < 5; i++)
        rows[i] = client((uint16_t)(40000 + i), PGS_ESTABLISHED, 1);
    CHECK(update(&other, rows, 2, 1) == PGS_OK && update(&table, rows, 5, 1) == PGS_OK);
    CHECK(other.lost == 0 && table.lost == 3 && ring.count == 4);
    CHECK(pgs_table_snapshot(&table, present, 8) == 5);
    CHECK(pgs_ring_drain(&ring, &changes) == 2 && changes[0].netns == 8 && changes[1].netns == 8);
    pgs_table_free(&other);
    end();
}

static pgs_row full(uint16_t port, uint8_t state, uint64_t cookie)
{
    pgs_row row = client(port, state, state == PGS_ESTABLISHED ? cookie : 0);
    row.cookie = cookie;
    return row;
}

/* Ends come from a work queue of the kernel's: before the walk that finds the socket gone, after it, or in between. */
static void an_end_and_a_walk_tell_of_a_connection_once(void)
{
    const pgs_details last = {.at = 1, .bytes_sent = 5, .bytes_received = 7, .last_sent = 1};
    pgs_change *changes;
    pgs_row first = full(40000, PGS_ESTABLISHED, 11), second = full(40000, PGS_ESTABLISHED, 12);
    begin(RING);
    CHECK(pgs_table_expect_ends(&table, 1) == PGS_OK);
    CHECK(scan(&first, 1, &changes) == 1);

    pgs_table_ended(&table, &first, &last, ++at); /* before any walk misses it */
    CHECK(pgs_ring_drain(&ring, &changes) == 1 && changes[0].kind == PGS_CLOSED && changes[0].is_final);
    CHECK(changes[0].bytes_sent == 5 && changes[0].bytes_received == 7 && table.count == 0);

    CHECK(scan(&second, 1, &changes) == 1 && changes[0].kind == PGS_OPENED); /* the 4-tuple returns */
    pgs_table_gone(&table, 0, ++at); /* a lookup is first */
    CHECK(pgs_ring_drain(&ring, &changes) == 1 && changes[0].kind == PGS_CLOSED && !changes[0].is_final);
    pgs_table_ended(&table, &second, &last, ++at);
    CHECK(pgs_ring_drain(&ring, &changes) == 0 && table.short_lived == 0);

    pgs_table_ended(&table, &second, &last, ++at); /* nobody else has this cookie: it was never seen */
    CHECK(pgs_ring_drain(&ring, &changes) == 2 && table.short_lived == 1);
    CHECK(changes[0].kind == PGS_OPENED && changes[1].kind == PGS_CLOSED && changes[1].is_final);
    CHECK(changes[0].connection == changes[1].connection && changes[0].at <= changes[1].at);
    end();
}

/* A handshake and TIME_WAIT are no full sockets: they have no end to tell, and another cookie may tell it. */
static void while_ends_are_told_only_full_sockets_open(void)
{
    const pgs_details last = {.at = 1};
    pgs_change *changes;
    pgs_row opening = full(40000, PGS_SYN_RECV, 11), waiting = full(40001, PGS_TIME_WAIT, 12);
    pgs_row old = full(40002, PGS_ESTABLISHED, 13), next = full(40002, PGS_SYN_RECV, 14);
    pgs_row child = full(40002, PGS_ESTABLISHED, 15);
    begin(RING);
    CHECK(pgs_table_expect_ends(&table, 1) == PGS_OK);
    CHECK(scan(&opening, 1, &changes) == 0 && scan(&waiting, 1, &changes) == 0);
    CHECK(scan(&old, 1, &changes) == 1);
    CHECK(scan(&next, 1, &changes) == 0); /* the 4-tuple returns, in its handshake */
    pgs_table_ended(&table, &old, &last, ++at);
    CHECK(pgs_ring_drain(&ring, &changes) == 1 && changes[0].kind == PGS_CLOSED);
    CHECK(scan(NULL, 0, &changes) == 0);
    pgs_table_ended(&table, &child, &last, ++at); /* it came and went meanwhile, by a cookie of its own */
    CHECK(pgs_ring_drain(&ring, &changes) == 2 && table.short_lived == 1);
    end();
}

/* Thousands of scans against a plain array: every slot is found again after growth, removal and collisions. */
static void it_agrees_with_a_plain_model(void)
{
    enum { PORTS = 3000 };
    static uint64_t connection[PORTS];
    static int absent[PORTS];
    static pgs_row rows[PORTS];
    pgs_change *changes;
    begin(2 * PORTS);
    srand(1);
    for (int round = 0; round < 300; round++) {
        uint32_t count = 0, expected = 0;
        int share = rand() % 100;
        for (int i = 0; i < PORTS; i++) {
            int present = rand() % 100 < share;
            if (present)
                rows[count++] = client((uint16_t)(i + 1), PGS_ESTABLISHED, (uint64_t)i + 1);
            expected += present ? !connection[i] : connection[i] && absent[i];
            absent[i] = !present && connection[i] && !absent[i];
            connection[i] = present || absent[i];
        }
        CHECK(scan(rows, count, &changes) == expected);
    }
    end();
}

int main(void)
{
    a_connection_opens_changes_and_closes();
    absence_from_one_scan_closes_nothing();
    a_second_sighting_in_one_scan_is_ignored();
    a_4_tuple_taken_by_another_socket_closes_and_opens();
    a_socket_that_is_taken_down_is_gone_and_no_other_one();
    another_inode_is_another_socket_also_with_none_in_between();
    only_what_is_worth_telling_is_told();
    a_backlog_is_told_at_every_length();
    listeners_that_share_a_port_do_not_flap();
    lost_changes_silence_the_table_until_a_snapshot();
    a_snapshot_after_lost_changes_replaces_those_queued_of_its_namespace();
    an_end_and_a_walk_tell_of_a_connection_once();
    while_ends_are_told_only_full_sockets_open();
    it_agrees_with_a_plain_model();
    return 0;
}
