/* The sampler on the kernel's own sockets, by both sources. They are counted to the last one, so the namespace must be the
 * test's own: a walk is no snapshot where others come and go, and its port may be another's on another address. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "rows.h"
#include "sampler.h"

enum { NETNS = 7, CLIENTS = 200 };

static const char *const hosts[] = {"127.0.0.1", "::1"};
static uint16_t port;
static int listener, clients[CLIENTS], accepted[CLIENTS];

static struct sockaddr_storage address_of(int family, uint16_t number, socklen_t *length)
{
    struct sockaddr_storage address = {0};
    if (family == AF_INET6) {
        struct sockaddr_in6 *to = (struct sockaddr_in6 *)&address;
        to->sin6_family = AF_INET6;
        to->sin6_port = htons(number);
        inet_pton(AF_INET6, hosts[1], &to->sin6_addr);
        *length = sizeof *to;
    } else {
        struct sockaddr_in *to = (struct sockaddr_in *)&address;
        to->sin_family = AF_INET;
        to->sin_port = htons(number);
        inet_pton(AF_INET, hosts[0], &to->sin_addr);
        *length = sizeof *to;
    }
    return address;
}

static void listen_there(int family)
{
    socklen_t length;
    struct sockaddr_storage address = address_of(family, 0, &length);
    listener = socket(family, SOCK_STREAM, 0);
    CHECK(!bind(listener, (struct sockaddr *)&address, length) && !listen(listener, 77));
    CHECK(!getsockname(listener, (struct sockaddr *)&address, &length));
    port = ntohs(((struct sockaddr_in *)&address)->sin_port); /* at the same place in both */
}

static void come(int family, int number)
{
    socklen_t length;
    struct sockaddr_storage address = address_of(family, port, &length);
    clients[number] = socket(family, SOCK_STREAM, 0);
    CHECK(!connect(clients[number], (struct sockaddr *)&address, length));
    CHECK((accepted[number] = accept(listener, NULL, NULL)) >= 0);
}

/* Ends a connection with a reset, so that no TIME_WAIT is left. */
static void go(int number)
{
    const struct linger at_once = {1, 0};
    CHECK(!setsockopt(clients[number], SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once));
    close(clients[number]);
    close(accepted[number]);
}

static pgs_sampler *begin(int source, int events)
{
    pgs_sampler *sampler = pgs_sampler_new(100000000, 65536);
    CHECK(sampler &&
          pgs_sampler_watch(sampler, NETNS, "/proc/self/net", NULL, source, events, &port, 1, 0) == PGS_OK);
    return sampler;
}

static uint32_t step(pgs_sampler *sampler, int what, pgs_change **changes)
{
    CHECK(pgs_sampler_step(sampler, what) == PGS_OK);
    return pgs_sampler_drain(sampler, changes);
}

static pgs_scan_stats stats_of(pgs_sampler *sampler)
{
    pgs_scan_stats stats;
    CHECK(pgs_sampler_stats(sampler, NETNS, &stats) == PGS_OK);
    return stats;
}

static void both_sources_tell_the_same(int family)
{
    pgs_change *changes;
    static pgs_change by_text[CLIENTS + 1];
    listen_there(family);
    for (int i = 0; i < CLIENTS; i++)
        come(family, i);
    CHECK(write(clients[0], "unread", 6) == 6);
    close(clients[1]);
    pgs_sampler *text = begin(PGS_PROCFS, 0), *netlink = begin(PGS_SOCK_DIAG, 0);
    CHECK(step(text, PGS_STEP_WALK, &changes) == CLIENTS + 1);
    memcpy(by_text, changes, sizeof by_text);
    CHECK(step(netlink, PGS_STEP_WALK, &changes) == CLIENTS + 1);
    for (int i = 0; i <= CLIENTS; i++) {
        pgs_row seen = changes[i].row, *expected = NULL;
        for (int j = 0; j <= CLIENTS; j++)
            if (pgs_same_key(&by_text[j].row, &seen))
                expected = &by_text[j].row;
        CHECK(expected && seen.cookie);
        seen.cookie = 0;
        if (seen.state == PGS_LISTEN) {
            CHECK(seen.tx_queue == 77); /* the backlog's limit, which the text lacks */
            seen.tx_queue = 0;
        }
        CHECK(!memcmp(&seen, expected, sizeof seen));
    }
    close(accepted[1]);
    clients[1] = accepted[1] = dup(listener);
    for (int i = 0; i < CLIENTS; i++)
        go(i);
    CHECK(step(netlink, PGS_STEP_WALK, &changes) == CLIENTS && changes[0].kind == PGS_CLOSED);
    CHECK(step(text, PGS_STEP_WALK, &changes) == 0); /* a suspicion */
    CHECK(step(text, PGS_STEP_WALK, &changes) == CLIENTS);
    close(listener);
    CHECK(step(netlink, PGS_STEP_WALK, &changes) == 1 && changes[0].row.state == PGS_LISTEN);
    pgs_sampler_free(text);
    pgs_sampler_free(netlink);
}

/* A client that closes moves no counter; what is looked up shows it. */
static void lookups_see_what_the_gate_does_not(int family)
{
    pgs_change *changes;
    listen_there(family);
    for (int i = 0; i < CLIENTS; i++)
        come(family, i);
    pgs_sampler *sampler = begin(PGS_SOCK_DIAG, 0);
    CHECK(step(sampler, PGS_STEP_WALK, &changes) == CLIENTS + 1);
    shutdown(clients[5], SHUT_WR);
    CHECK(step(sampler, PGS_STEP_LOOKUP, &changes) == 1);
    CHECK(changes[0].kind == PGS_STATE && changes[0].row.state == PGS_CLOSE_WAIT);
    CHECK(stats_of(sampler).lookups == CLIENTS && step(sampler, PGS_STEP_LOOKUP, &changes) == 0);
    go(5);
    go(6);
    CHECK(step(sampler, PGS_STEP_LOOKUP, &changes) == 2 && changes[0].kind == PGS_CLOSED);
    CHECK(step(sampler, PGS_STEP_WALK, &changes) == 0);
    for (int i = 0; i < CLIENTS; i++)
        if (i != 5 && i != 6)
            go(i);
    close(listener);
    pgs_sampler_free(sampler);
}

/* Its sockets are of IPv6, their addresses IPv4-mapped, and they stand in tcp6. */
static void a_client_of_a_dual_stack_listener_is_looked_up_too(void)
{
    const int no = 0;
    pgs_change *changes;
    socklen_t length = sizeof(struct sockaddr_in6);
    struct sockaddr_in6 any = {.sin6_family = AF_INET6};
    listener = socket(AF_INET6, SOCK_STREAM, 0);
    CHECK(!setsockopt(listener, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof no));
    CHECK(!bind(listener, (struct sockaddr *)&any, length) && !listen(listener, 77));
    CHECK(!getsockname(listener, (struct sockaddr *)&any, &length));
    port = ntohs(any.sin6_port);
    come(AF_INET, 0);
    come(AF_INET6, 1);
    pgs_sampler *sampler = begin(PGS_SOCK_DIAG, PGS_EVENTS_ALWAYS);
    CHECK(step(sampler, PGS_STEP_TICK, &changes) == 3);
    for (int i = 0; i < 3; i++)
        CHECK(step(sampler, PGS_STEP_LOOKUP, &changes) == 0);
    shutdown(clients[0], SHUT_WR);
    shutdown(clients[1], SHUT_WR);
    CHECK(step(sampler, PGS_STEP_LOOKUP, &changes) == 2);
    CHECK(changes[0].row.state == PGS_CLOSE_WAIT && changes[1].row.state == PGS_CLOSE_WAIT);
    go(0);
    go(1);
    step(sampler, PGS_STEP_TICK, &changes);
    CHECK(stats_of(sampler).closed == 2);
    close(listener);
    pgs_sampler_free(sampler);
}

static void a_4_tuple_that_returns_is_another_connection(void)
{
    pgs_change *changes;
    struct sockaddr_storage own;
    socklen_t length = sizeof own;
    listen_there(AF_INET);
    come(AF_INET, 0);
    CHECK(!getsockname(clients[0], (struct sockaddr *)&own, &length));
    pgs_sampler *sampler = begin(PGS_SOCK_DIAG, PGS_EVENTS_NEVER);
    CHECK(step(sampler, PGS_STEP_WALK, &changes) == 2);
    uint64_t first = changes[0].row.state == PGS_LISTEN ? changes[1].connection : changes[0].connection;
    go(0);
    struct sockaddr_storage address = address_of(AF_INET, port, &length);
    clients[0] = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(!bind(clients[0], (struct sockaddr *)&own, length));
    CHECK(!connect(clients[0], (struct sockaddr *)&address, length));
    CHECK((accepted[0] = accept(listener, NULL, NULL)) >= 0);
    CHECK(step(sampler, PGS_STEP_LOOKUP, &changes) == 2);
    CHECK(changes[0].kind == PGS_CLOSED && changes[0].connection == first);
    CHECK(changes[1].kind == PGS_OPENED && changes[1].connection != first);
    go(0);
    close(listener);
    pgs_sampler_free(sampler);
}

static void details_are_told(void)
{
    pgs_change *changes;
    pgs_details details[4];
    char text[8];
    listen_there(AF_INET);
    come(AF_INET, 0);
    CHECK(write(clients[0], "seven..", 7) == 7 && read(accepted[0], text, 8) == 7 && write(accepted[0], "ok", 2) == 2);
    CHECK(read(clients[0], text, 8) == 2);
    pgs_sampler *sampler = begin(PGS_AUTO, 0);
    CHECK(stats_of(sampler).source == PGS_SOCK_DIAG && stats_of(sampler).refusal == 0);
    CHECK(step(sampler, PGS_STEP_DETAILS, &changes) == 2);
    CHECK(step(sampler, PGS_STEP_DETAILS, &changes) == 0);
    CHECK(pgs_sampler_details(sampler, NETNS, details, 4) == 2);
    const pgs_details *of = details[0].bytes_received ? &details[0] : &details[1];
    CHECK(of->bytes_received == 7 && of->bytes_sent == 2 && of->at && of->last_received < 10000);
    CHECK(pgs_sampler_details(sampler, NETNS, details, 1) == 2);
    go(0);
    close(listener);
    pgs_sampler_free(sampler);
}

/* Ends are broadcast from a work queue: a moment later. */
static void wait_for_ends(pgs_sampler *sampler, uint64_t enough)
{
    for (int i = 0; i < 2000 && stats_of(sampler).events < enough; i++) {
        CHECK(pgs_sampler_step(sampler, PGS_STEP_TICK) == PGS_OK);
        usleep(1000);
    }
    CHECK(stats_of(sampler).events == enough);
}

static void a_connection_between_two_scans_is_told_by_its_end(int family)
{
    pgs_change *changes;
    char text[8];
    listen_there(family);
    pgs_sampler *sampler = begin(PGS_SOCK_DIAG, PGS_EVENTS_ALWAYS);
    step(sampler, PGS_STEP_TICK, &changes);
    CHECK(stats_of(sampler).events_on && stats_of(sampler).events_refusal == 0);
    for (int i = 0; i < CLIENTS; i++) {
        come(family, 0);
        CHECK(write(clients[0], "five.", 5) == 5 && read(accepted[0], text, 8) == 5);
        go(0);
    }
    wait_for_ends(sampler, CLIENTS);
    uint32_t count = pgs_sampler_drain(sampler, &changes), opened = 0, closed = 0;
    for (uint32_t i = 0; i < count; i++) {
        opened += changes[i].kind == PGS_OPENED;
        closed += changes[i].kind == PGS_CLOSED;
        if (changes[i].kind == PGS_CLOSED)
            CHECK(changes[i].is_final && changes[i].bytes_received == 5 && changes[i].row.remote_port);
    }
    pgs_scan_stats stats = stats_of(sampler);
    CHECK(opened == CLIENTS && closed == CLIENTS && stats.short_lived == CLIENTS);
    CHECK(stats.opened == CLIENTS && stats.closed == CLIENTS && stats.kernel_opened >= CLIENTS);
    close(listener);
    pgs_sampler_free(sampler);
}

/* A known connection that ends is told once, by its end or by a walk, whichever comes first. */
static void no_end_is_told_twice(void)
{
    pgs_change *changes;
    uint32_t closed = 0;
    listen_there(AF_INET);
    pgs_sampler *sampler = begin(PGS_SOCK_DIAG, PGS_EVENTS_ALWAYS);
    step(sampler, PGS_STEP_TICK, &changes);
    for (int i = 0; i < CLIENTS; i++)
        come(AF_INET, i);
    CHECK(step(sampler, PGS_STEP_WALK, &changes) == CLIENTS);
    for (int i = 0; i < CLIENTS; i++) {
        go(i);
        if (i % 20 == 0) {
            uint32_t count = step(sampler, i % 40 ? PGS_STEP_WALK : PGS_STEP_LOOKUP, &changes);
            for (uint32_t j = 0; j < count; j++)
                closed += changes[j].kind == PGS_CLOSED;
        }
    }
    wait_for_ends(sampler, CLIENTS);
    uint32_t count = pgs_sampler_drain(sampler, &changes);
    for (uint32_t j = 0; j < count; j++)
        closed += changes[j].kind == PGS_CLOSED;
    CHECK(closed == CLIENTS && stats_of(sampler).short_lived == 0 && stats_of(sampler).closed == CLIENTS);
    close(listener);
    pgs_sampler_free(sampler);
}

/* The question's socket is taken away under the sampler: one tick is lost, nothing else. */
static void a_socket_that_dies_is_replaced(void)
{
    pgs_change *changes;
    listen_there(AF_INET);
    come(AF_INET, 0);
    pgs_sampler *sampler = begin(PGS_AUTO, 0);
    CHECK(step(sampler, PGS_STEP_WALK, &changes) == 2);
    int nothing = socket(AF_UNIX, SOCK_DGRAM, 0);
    CHECK(dup2(nothing, sampler->first->diag.questions) >= 0);
    CHECK(step(sampler, PGS_STEP_WALK, &changes) == 0 && stats_of(sampler).incomplete == 1);
    CHECK(stats_of(sampler).last_error == PGS_E_READ && stats_of(sampler).last_errno);
    CHECK(step(sampler, PGS_STEP_WALK, &changes) == 0 && stats_of(sampler).scans == 2);
    CHECK(stats_of(sampler).source == PGS_SOCK_DIAG);
    close(nothing);
    go(0);
    close(listener);
    pgs_sampler_free(sampler);
}

/* What the kernel would never send: an answer too long, out of shape, of another question, or none at all. */
static void a_false_answer_is_discarded_and_closes_nothing(void)
{
    static uint8_t bytes[70000];
    const struct timeval soon = {0, 50000};
    const struct { size_t length; int first; int expected; } answers[] = {
        {70000, 0, EMSGSIZE}, {40, 0, EBADMSG}, {40, 15, EBADMSG}, {40, 41, EBADMSG}, {40, 40, EAGAIN}, {0, 0, EAGAIN},
    };
    pgs_change *changes;
    listen_there(AF_INET);
    come(AF_INET, 0);
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
        for (int what = PGS_STEP_WALK; what <= PGS_STEP_LOOKUP; what++) {
            int pair[2];
            pgs_sampler *sampler = begin(PGS_SOCK_DIAG, 0);
            CHECK(step(sampler, PGS_STEP_WALK, &changes) == 2 && !socketpair(AF_UNIX, SOCK_DGRAM, 0, pair));
            CHECK(!setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof soon));
            CHECK(dup2(pair[0], sampler->first->diag.questions) >= 0);
            memset(bytes, 0, 40);
            memcpy(bytes, &answers[i].first, sizeof answers[i].first); /* the length it claims to have */
            if (answers[i].length)
                CHECK(write(pair[1], bytes, answers[i].length) == (ssize_t)answers[i].length);
            CHECK(step(sampler, what, &changes) == 0 && stats_of(sampler).incomplete == 1);
            if (what == PGS_STEP_WALK)
                CHECK(stats_of(sampler).last_errno == answers[i].expected);
            CHECK(step(sampler, PGS_STEP_WALK, &changes) == 0 && stats_of(sampler).last_error == PGS_OK);
            close(pair[0]);
            close(pair[1]);
            pgs_sampler_free(sampler);
        }
    }
    go(0);
    close(listener);
}

/* Where no other can be had, the text is read, and connections stay who they are. */
static void without_a_socket_the_text_is_read(void)
{
    struct rlimit before, none;
    pgs_change *changes;
    listen_there(AF_INET);
    come(AF_INET, 0);
    pgs_sampler *sampler = begin(PGS_AUTO, PGS_EVENTS_ALWAYS);
    CHECK(step(sampler, PGS_STEP_TICK, &changes) == 2);
    pgs_diag *diag = &sampler->first->diag;
    close(diag->questions);
    diag->questions = -1;
    diag->namespace_file = dup(listener); /* no namespace: setns refuses it */
    step(sampler, PGS_STEP_WALK, &changes);
    CHECK(stats_of(sampler).source == PGS_PROCFS && stats_of(sampler).refusal == EINVAL);
    CHECK(!stats_of(sampler).events_on);
    CHECK(step(sampler, PGS_STEP_WALK, &changes) == 0 && step(sampler, PGS_STEP_WALK, &changes) == 0);
    go(0);
    step(sampler, PGS_STEP_WALK, &changes);
    CHECK(step(sampler, PGS_STEP_WALK, &changes) == 1 && changes[0].kind == PGS_CLOSED);
    pgs_sampler_free(sampler);
    CHECK(!getrlimit(RLIMIT_NOFILE, &before));
    none = (struct rlimit){3, before.rlim_max};
    CHECK(!setrlimit(RLIMIT_NOFILE, &none));
    sampler = pgs_sampler_new(100000000, 16);
    CHECK(pgs_sampler_watch(sampler, NETNS, "/proc/self/net", NULL, 0, 0, &port, 1, 0) == PGS_E_NOMEM);
    CHECK(!setrlimit(RLIMIT_NOFILE, &before));
    pgs_sampler_free(sampler);
    close(listener);
}

static void many_ports_are_filtered_by_the_kernel(void)
{
    uint16_t ports[PGS_MAX_PORTS];
    pgs_change *changes;
    listen_there(AF_INET);
    come(AF_INET, 0);
    for (int i = 0; i < PGS_MAX_PORTS; i++)
        ports[i] = (uint16_t)(1 + i);
    for (int place = 0; place < PGS_MAX_PORTS; place += PGS_MAX_PORTS - 1) {
        uint16_t replaced = ports[place];
        pgs_sampler *sampler = pgs_sampler_new(100000000, 64);
        ports[place] = port;
        CHECK(pgs_sampler_watch(sampler, NETNS, "/proc/self/net", NULL, PGS_SOCK_DIAG, PGS_EVENTS_ALWAYS, ports,
                                PGS_MAX_PORTS, 0) == PGS_OK);
        CHECK(step(sampler, PGS_STEP_TICK, &changes) == 2); /* the listener and the server's side */
        CHECK(pgs_sampler_set_ports(sampler, NETNS, ports, PGS_MAX_PORTS, 1) == PGS_OK);
        CHECK(step(sampler, PGS_STEP_TICK, &changes) == 1 && changes[0].row.remote_port == port);
        CHECK(stats_of(sampler).incomplete == 0 && stats_of(sampler).events_on && stats_of(sampler).opened == 0);
        pgs_sampler_free(sampler);
        ports[place] = replaced;
    }
    go(0);
    close(listener);
}

static void many_lives_leave_nothing_behind(int lives)
{
    listen_there(AF_INET);
    int descriptors = count_entries("/proc/self/fd"), threads = count_entries("/proc/self/task");
    for (int i = 0; i < lives; i++) {
        pgs_sampler *sampler = begin(PGS_AUTO, PGS_EVENTS_ALWAYS);
        CHECK(pgs_sampler_start(sampler) == PGS_OK);
        if (i % 2)
            CHECK(pgs_sampler_stop(sampler) == PGS_OK);
        pgs_sampler_free(sampler);
    }
    CHECK(count_entries("/proc/self/fd") == descriptors && count_entries("/proc/self/task") == threads);
    close(listener);
}

int main(int count, char **arguments)
{
    if (count > 1) { /* the long lane: that many starts and stops */
        many_lives_leave_nothing_behind(atoi(arguments[1]));
        return 0;
    }
    alarm(240); /* what hangs must not look like what is slow */
    both_sources_tell_the_same(AF_INET);
    both_sources_tell_the_same(AF_INET6);
    lookups_see_what_the_gate_does_not(AF_INET);
    lookups_see_what_the_gate_does_not(AF_INET6);
    a_client_of_a_dual_stack_listener_is_looked_up_too();
    a_4_tuple_that_returns_is_another_connection();
    details_are_told();
    a_connection_between_two_scans_is_told_by_its_end(AF_INET);
    a_connection_between_two_scans_is_told_by_its_end(AF_INET6);
    no_end_is_told_twice();
    a_socket_that_dies_is_replaced();
    a_false_answer_is_discarded_and_closes_nothing();
    without_a_socket_the_text_is_read();
    many_ports_are_filtered_by_the_kernel();
    many_lives_leave_nothing_behind(500);
    return 0;
}
