/* The sampler on directories whose `tcp` and `tcp6` are plain files, rewritten between and during scans. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rows.h"

enum { NETNS = 7, ROWS = 3000, INTERVAL = 1000000 /* ns */ };

static char directory[64];
static char text[ROWS * 200 + 400];
static pgs_row rows[ROWS];

static void write_file(const char *name, size_t length)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600); /* in place: the sampler keeps it open */
    CHECK(file >= 0 && write(file, text, length) == (ssize_t)length);
    close(file);
}

/* Writes the first `count` rows of one family, without the last `cut` bytes. */
static void write_table(int family, int count, size_t cut)
{
    char *to = write_header(text, family);
    for (int i = 0; i < count; i++) {
        pgs_row row = rows[i];
        row.family = (uint8_t)family;
        to = write_row(to, i, &row);
    }
    write_file(family == 6 ? "tcp6" : "tcp", (size_t)(to - text) - cut);
}

static void remove_directory(void)
{
    char path[128];
    snprintf(path, sizeof path, "%s/tcp", directory);
    unlink(path);
    snprintf(path, sizeof path, "%s/tcp6", directory);
    unlink(path);
    CHECK(rmdir(directory) == 0);
}

static void make_directory(void)
{
    strcpy(directory, "namespace-XXXXXX"); /* in the working directory, which the caller clears away */
    CHECK(mkdtemp(directory));
    for (int i = 0; i < ROWS; i++)
        rows[i] = make_row(4, "10.0.0.1", i % 2 ? 5432 : 6432, "10.0.0.2", (uint16_t)(20000 + i), PGS_ESTABLISHED,
                           (uint64_t)i + 1);
}

/* Plain files have no namespace that netlink could ask. */
static int watch(pgs_sampler *sampler, uint32_t netns, const char *path, const uint16_t *ports, uint32_t count,
                 int both)
{
    return pgs_sampler_watch(sampler, netns, path, NULL, PGS_PROCFS, PGS_EVENTS_AUTO, ports, count, both);
}

/* A sampler that watches the directory, in which `count` connections stand. */
static pgs_sampler *begin(int count, uint32_t ring)
{
    make_directory();
    write_table(4, count, 0);
    pgs_sampler *sampler = pgs_sampler_new(INTERVAL, ring);
    CHECK(sampler && watch(sampler, NETNS, directory, NULL, 0, 0) == PGS_OK);
    return sampler;
}

static void end(pgs_sampler *sampler)
{
    pgs_sampler_free(sampler);
    remove_directory();
}

static uint32_t scan(pgs_sampler *sampler, pgs_change **changes)
{
    CHECK(pgs_sampler_step(sampler, PGS_STEP_WALK) == PGS_OK);
    return pgs_sampler_drain(sampler, changes);
}

static pgs_scan_stats stats_of(pgs_sampler *sampler)
{
    pgs_scan_stats stats;
    CHECK(pgs_sampler_stats(sampler, NETNS, &stats) == PGS_OK);
    return stats;
}

static void wait_for_scans(pgs_sampler *sampler, uint64_t enough)
{
    while (stats_of(sampler).scans < enough)
        usleep(500);
}

static void texts_longer_than_a_read_are_whole(void)
{
    pgs_change *changes;
    pgs_sampler *sampler = begin(ROWS, 2 * ROWS);
    CHECK(scan(sampler, &changes) == ROWS);
    for (int i = 0; i < ROWS; i++)
        CHECK(changes[i].row.inode == (uint64_t)i + 1);
    pgs_scan_stats stats = stats_of(sampler);
    CHECK(stats.scans == 1 && stats.rows == ROWS && stats.rows_skipped == 0 && stats.malformed == 0);
    CHECK(stats.last_at && stats.last_cost && stats.last_cpu && stats.cpu == stats.last_cpu && !stats.max_gap);
    CHECK(scan(sampler, &changes) == 0 && stats_of(sampler).max_gap > 0 && stats_of(sampler).max_gap == 0);
    end(sampler);
}

static void both_tables_are_read_and_a_missing_one_of_ipv6_is_normal(void)
{
    pgs_change *changes;
    pgs_sampler *sampler = begin(1, 16);
    CHECK(scan(sampler, &changes) == 1 && changes[0].row.family == 4);
    CHECK(pgs_sampler_unwatch(sampler, NETNS) == PGS_OK);
    rows[0] = make_row(6, "::1", 5432, "::1", 40000, PGS_ESTABLISHED, 5);
    rows[1] = make_row(6, "::ffff:10.0.0.1", 5432, "::ffff:10.0.0.9", 40001, PGS_ESTABLISHED, 6);
    write_table(6, 2, 0);
    CHECK(watch(sampler, NETNS, directory, NULL, 0, 0) == PGS_OK);
    CHECK(scan(sampler, &changes) == 3 && changes[1].row.family == 6 && changes[2].row.local_address[10] == 0xff);
    end(sampler);
}

static void an_incomplete_text_is_discarded_and_closes_nothing(void)
{
    pgs_change *changes;
    pgs_sampler *sampler = begin(100, 1000);
    CHECK(scan(sampler, &changes) == 100);
    for (int i = 0; i < 5; i++) {
        write_table(4, 50, 1 + 30 * (size_t)i); /* half of the connections, and the last line is cut */
        CHECK(scan(sampler, &changes) == 0);
    }
    pgs_scan_stats stats = stats_of(sampler);
    CHECK(stats.incomplete == 5 && stats.scans == 1 && stats.last_error == PGS_E_READ && stats.last_errno == EBADMSG);
    write_file("tcp", 0);
    CHECK(scan(sampler, &changes) == 0 && stats_of(sampler).incomplete == 6);
    memset(text, 'x', sizeof text);
    write_file("tcp", sizeof text); /* no header, and a line without an end */
    CHECK(scan(sampler, &changes) == 0 && stats_of(sampler).incomplete == 7);
    memcpy(text, "  sl ", 5);
    write_file("tcp", sizeof text);
    CHECK(scan(sampler, &changes) == 0 && stats_of(sampler).incomplete == 8);
    write_table(4, 50, 0);
    CHECK(scan(sampler, &changes) == 0 && stats_of(sampler).last_error == PGS_OK);
    write_table(4, 50, 1);
    CHECK(scan(sampler, &changes) == 0); /* does not confirm the absence */
    write_table(4, 50, 0);
    CHECK(scan(sampler, &changes) == 50 && changes[0].kind == PGS_CLOSED);
    end(sampler);
}

static void a_read_that_fails_is_told_with_its_errno(void)
{
    char path[128];
    pgs_change *changes;
    make_directory();
    snprintf(path, sizeof path, "%s/tcp", directory);
    CHECK(mkfifo(path, 0600) == 0);
    int fifo = open(path, O_RDWR);
    pgs_sampler *sampler = pgs_sampler_new(INTERVAL, 16);
    CHECK(fifo >= 0 && watch(sampler, NETNS, directory, NULL, 0, 0) == PGS_OK);
    CHECK(scan(sampler, &changes) == 0);
    CHECK(stats_of(sampler).incomplete == 1 && stats_of(sampler).last_errno == ESPIPE);
    close(fifo);
    end(sampler);
}

static void other_ports_open_and_close_connections(void)
{
    static const uint16_t first[] = {5432}, second[] = {6432};
    pgs_change *changes;
    pgs_sampler *sampler = begin(10, 100);
    CHECK(pgs_sampler_set_ports(sampler, NETNS, first, 1, 0) == PGS_OK);
    CHECK(scan(sampler, &changes) == 5 && changes[0].row.local_port == 5432);
    CHECK(stats_of(sampler).rows == 5 && stats_of(sampler).rows_skipped == 5);
    CHECK(pgs_sampler_set_ports(sampler, NETNS, second, 1, 0) == PGS_OK);
    CHECK(scan(sampler, &changes) == 5 && changes[0].kind == PGS_OPENED && changes[0].row.local_port == 6432);
    CHECK(scan(sampler, &changes) == 5 && changes[0].kind == PGS_CLOSED && changes[0].row.local_port == 5432);
    end(sampler);
}

static void a_forgotten_namespace_closes_nothing_and_returns_anew(void)
{
    pgs_change *changes;
    pgs_sampler *sampler = begin(3, 100);
    CHECK(scan(sampler, &changes) == 3);
    uint64_t last = changes[2].connection;
    CHECK(pgs_sampler_unwatch(sampler, NETNS) == PGS_OK && scan(sampler, &changes) == 0);
    CHECK(watch(sampler, NETNS, directory, NULL, 0, 0) == PGS_OK);
    CHECK(scan(sampler, &changes) == 3 && changes[0].connection > last);
    end(sampler);
}

static void lost_changes_come_back_by_a_snapshot(void)
{
    static pgs_change present[ROWS];
    pgs_change *changes;
    pgs_sampler *sampler = begin(100, 40);
    CHECK(scan(sampler, &changes) == 40);
    CHECK(stats_of(sampler).lost_changes == 60 && stats_of(sampler).resyncs == 0);
    CHECK(pgs_sampler_snapshot(sampler, NETNS, NULL, 0) == 100 && stats_of(sampler).resyncs == 0);
    CHECK(pgs_sampler_snapshot(sampler, NETNS, present, 100) == 100 && stats_of(sampler).resyncs == 1);
    write_table(4, 101, 0);
    CHECK(scan(sampler, &changes) == 1 && changes[0].connection == 101);
    end(sampler);
}

static void wrong_calls_are_answered_with_their_error(void)
{
    uint16_t ports[PGS_MAX_PORTS + 1] = {0};
    pgs_scan_stats stats;
    pgs_sampler *sampler = begin(1, 16);
    CHECK(!pgs_sampler_new(0, 16) && !pgs_sampler_new(INTERVAL, 0));
    CHECK(watch(sampler, NETNS, directory, NULL, 0, 0) == PGS_E_EXISTS);
    CHECK(watch(sampler, 8, "/nowhere", NULL, 0, 0) == PGS_E_OPEN && errno == ENOENT);
    CHECK(watch(sampler, 8, directory, ports, PGS_MAX_PORTS + 1, 0) == PGS_E_ARG);
    CHECK(pgs_sampler_set_ports(sampler, NETNS, ports, PGS_MAX_PORTS + 1, 0) == PGS_E_ARG);
    CHECK(pgs_sampler_set_ports(sampler, 8, ports, 1, 0) == PGS_E_NOENT);
    CHECK(pgs_sampler_unwatch(sampler, 8) == PGS_E_NOENT && pgs_sampler_stats(sampler, 8, &stats) == PGS_E_NOENT);
    CHECK(pgs_sampler_snapshot(sampler, 8, NULL, 0) == PGS_E_NOENT);
    CHECK(pgs_sampler_set_interval(sampler, 0) == PGS_E_ARG);
    CHECK(pgs_sampler_step(sampler, PGS_STEP_TICK - 1) == PGS_E_ARG);
    CHECK(pgs_sampler_step(sampler, PGS_STEP_DETAILS + 1) == PGS_E_ARG);
    CHECK(pgs_sampler_watch(sampler, 8, directory, NULL, 3, 0, NULL, 0, 0) == PGS_E_ARG);
    CHECK(pgs_sampler_watch(sampler, 8, directory, NULL, 0, 3, NULL, 0, 0) == PGS_E_ARG);
    CHECK(pgs_sampler_watch(sampler, 8, directory, NULL, PGS_SOCK_DIAG, 0, NULL, 0, 0) == PGS_E_REFUSED);
    CHECK(errno == ENOENT);
    CHECK(pgs_sampler_details(sampler, 8, NULL, 0) == PGS_E_NOENT);
    CHECK(pgs_sampler_details(sampler, NETNS, NULL, 0) == 0);
    CHECK(pgs_sampler_stop(sampler) == PGS_OK && pgs_sampler_start(sampler) == PGS_OK);
    CHECK(pgs_sampler_start(sampler) == PGS_E_EXISTS && pgs_sampler_step(sampler, PGS_STEP_WALK) == PGS_E_EXISTS);
    end(sampler);
}

static void another_interval_wakes_the_thread(void)
{
    pgs_sampler *sampler = begin(1, 16);
    CHECK(pgs_sampler_set_interval(sampler, 3600000000000u) == PGS_OK && pgs_sampler_start(sampler) == PGS_OK);
    wait_for_scans(sampler, 1);
    CHECK(pgs_sampler_set_interval(sampler, INTERVAL) == PGS_OK);
    wait_for_scans(sampler, 6);
    CHECK(pgs_sampler_set_interval(sampler, 3600000000000u) == PGS_OK);
    end(sampler); /* does not wait for the hour */
}

static atomic_int playing;

static void *rewrite(void *unused)
{
    for (int i = 0; playing; i++)
        write_table(4, 1000 + i % 7, (size_t)(i % 3) * 40);
    return unused;
}

static void *come_and_go(void *argument)
{
    static const uint16_t ports[] = {5432};
    pgs_sampler *sampler = argument;
    for (uint32_t i = 0; playing; i++) {
        watch(sampler, 8, directory, ports, 1, 1);
        pgs_sampler_set_ports(sampler, NETNS, ports, i % 2, 0);
        usleep(300);
        pgs_sampler_unwatch(sampler, 8);
    }
    return NULL;
}

/* Everything at once while the thread scans a table that is rewritten under it. */
static void every_call_may_come_while_the_thread_scans(void)
{
    static pgs_change present[2 * ROWS];
    pthread_t writer, watcher;
    pgs_change *changes;
    pgs_sampler *sampler = begin(1000, 512);
    playing = 1;
    CHECK(pgs_sampler_start(sampler) == PGS_OK);
    CHECK(!pthread_create(&writer, NULL, rewrite, NULL) && !pthread_create(&watcher, NULL, come_and_go, sampler));
    for (int i = 0; i < 300; i++) {
        uint32_t count = pgs_sampler_drain(sampler, &changes);
        for (uint32_t j = 0; j < count; j++)
            CHECK(changes[j].kind >= PGS_OPENED && changes[j].row.local_port);
        CHECK(pgs_sampler_snapshot(sampler, NETNS, present, 2 * ROWS) >= 0);
        if (i % 50 == 49)
            CHECK(pgs_sampler_stop(sampler) == PGS_OK && pgs_sampler_start(sampler) == PGS_OK);
        usleep(500);
    }
    wait_for_scans(sampler, stats_of(sampler).scans + 1);
    playing = 0;
    pthread_join(writer, NULL);
    pthread_join(watcher, NULL);
    end(sampler);
}

static void a_thousand_lives_leave_nothing_behind(void)
{
    make_directory();
    write_table(4, 100, 0);
    int descriptors = count_entries("/proc/self/fd"), threads = count_entries("/proc/self/task");
    for (int i = 0; i < 1000; i++) {
        pgs_sampler *sampler = pgs_sampler_new(INTERVAL, 64);
        CHECK(watch(sampler, NETNS, directory, NULL, 0, 0) == PGS_OK);
        CHECK(pgs_sampler_start(sampler) == PGS_OK);
        if (i % 2)
            CHECK(pgs_sampler_stop(sampler) == PGS_OK);
        pgs_sampler_free(sampler);
    }
    /* A thread that was joined may stand in /proc for a moment yet. */
    for (int i = 0; i < 1000 && count_entries("/proc/self/task") != threads; i++)
        usleep(1000);
    CHECK(count_entries("/proc/self/fd") == descriptors && count_entries("/proc/self/task") == threads);
    remove_directory();
}

int main(void)
{
    alarm(240); /* a sampler that hangs must not look like a slow one */
    texts_longer_than_a_read_are_whole();
    both_tables_are_read_and_a_missing_one_of_ipv6_is_normal();
    an_incomplete_text_is_discarded_and_closes_nothing();
    a_read_that_fails_is_told_with_its_errno();
    other_ports_open_and_close_connections();
    a_forgotten_namespace_closes_nothing_and_returns_anew();
    lost_changes_come_back_by_a_snapshot();
    wrong_calls_are_answered_with_their_error();
    another_interval_wakes_the_thread();
    every_call_may_come_while_the_thread_scans();
    a_thousand_lives_leave_nothing_behind();
    return 0;
}
