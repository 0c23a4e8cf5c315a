/* Messages of sock_diag: what is taken out of them, and that no length in them is believed. */
#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "diagmsg.h"
#include "rows.h"

enum { CGROUP = 21, MOST = 4096 };

typedef struct datagram {
    uint8_t bytes[MOST];
    size_t length;
} datagram;

static void put(datagram *to, const void *bytes, size_t length)
{
    memcpy(to->bytes + to->length, bytes, length);
    to->length += length;
}

static void put_header(datagram *to, uint16_t type, uint32_t sequence, size_t length)
{
    struct nlmsghdr header = {.nlmsg_len = (uint32_t)(sizeof header + length), .nlmsg_type = type,
                              .nlmsg_seq = sequence};
    put(to, &header, sizeof header);
}

static void put_attribute(datagram *to, uint16_t type, const void *value, size_t length)
{
    struct rtattr attribute = {.rta_len = (uint16_t)(sizeof attribute + length), .rta_type = type};
    put(to, &attribute, sizeof attribute);
    put(to, value, length);
}

static struct inet_diag_msg make_message(int family, uint8_t state)
{
    struct inet_diag_msg message = {.idiag_family = (uint8_t)family, .idiag_state = state, .idiag_timer = 2,
                                    .idiag_retrans = 3, .idiag_expires = 7200000, .idiag_rqueue = 17,
                                    .idiag_wqueue = 0x3d0900, .idiag_uid = 101, .idiag_inode = 4026531840u};
    message.id = (struct inet_diag_sockid){.idiag_sport = htons(5432), .idiag_dport = htons(40000), .idiag_if = 3,
                                           .idiag_cookie = {0x11223344, 0x55667788}};
    const char *local = family == AF_INET6 ? "fd00::1" : "10.0.0.1";
    const char *remote = family == AF_INET6 ? "fd00::2" : "10.0.0.2";
    CHECK(inet_pton(family, local, message.id.idiag_src) == 1 && inet_pton(family, remote, message.id.idiag_dst) == 1);
    return message;
}

static void put_socket(datagram *to, const struct inet_diag_msg *message)
{
    const struct tcp_info info = {.tcpi_last_data_sent = 11, .tcpi_last_data_recv = 12, .tcpi_last_ack_recv = 13,
                                  .tcpi_bytes_acked = 1000, .tcpi_bytes_received = 2000, .tcpi_notsent_bytes = 5,
                                  .tcpi_total_retrans = 6, .tcpi_busy_time = 7, .tcpi_rwnd_limited = 8,
                                  .tcpi_sndbuf_limited = 9, .tcpi_rtt = 10};
    const uint64_t cgroup = 77;
    const uint8_t shutdown[4] = {0};
    put_header(to, SOCK_DIAG_BY_FAMILY, 9, sizeof *message + 8 + 4 + sizeof info + 4 + sizeof cgroup);
    put(to, message, sizeof *message);
    put_attribute(to, INET_DIAG_SHUTDOWN, shutdown, 4);
    put_attribute(to, INET_DIAG_INFO, &info, sizeof info);
    put_attribute(to, CGROUP, &cgroup, sizeof cgroup);
}

static void every_field_is_read(int family)
{
    struct inet_diag_msg sent = make_message(family, PGS_CLOSE_WAIT);
    datagram d = {.length = 0};
    pgs_message message;
    pgs_row row, expected = make_row(family == AF_INET6 ? 6 : 4, family == AF_INET6 ? "fd00::1" : "10.0.0.1", 5432,
                                     family == AF_INET6 ? "fd00::2" : "10.0.0.2", 40000, PGS_CLOSE_WAIT, 4026531840u);
    pgs_details details;
    put_socket(&d, &sent);
    const uint8_t *at = d.bytes;
    CHECK(pgs_message_next(&at, d.bytes + d.length, &message) == PGS_MESSAGE_SOCKET && message.sequence == 9);
    CHECK(pgs_message_row(message.socket, &row));
    expected.tx_queue = 0x3d0900;
    expected.rx_queue = 17;
    expected.probes = 3;
    expected.bound_interface = 3;
    expected.cookie = 0x5566778811223344u;
    CHECK(!memcmp(&row, &expected, sizeof row));
    CHECK(pgs_message_details(&message, 5, &details));
    CHECK(details.at == 5 && details.cgroup == 77 && details.bytes_sent == 1000 && details.bytes_received == 2000);
    CHECK(details.last_sent == 11 && details.last_received == 12 && details.last_ack == 13 && details.not_sent == 5);
    CHECK(details.retransmitted == 6 && details.busy_time == 7 && details.rwnd_limited == 8);
    CHECK(details.sndbuf_limited == 9 && details.rtt == 10);
    CHECK(pgs_message_next(&at, d.bytes + d.length, &message) == PGS_MESSAGE_NONE);
}

/* The kernel has one field for what the text has in two columns. */
static void the_timer_says_what_was_counted(void)
{
    static const uint8_t cases[][3] = {{0, 0, 0}, {1, 3, 0}, {2, 0, 3}, {3, 0, 0}, {4, 0, 3}}; /* retransmits, probes */
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct inet_diag_msg message = make_message(AF_INET, PGS_ESTABLISHED);
        pgs_row row;
        message.idiag_timer = cases[i][0];
        CHECK(pgs_message_row((const uint8_t *)&message, &row));
        CHECK(row.timer == cases[i][0] && row.retransmits == cases[i][1] && row.probes == cases[i][2]);
    }
}

static void what_is_no_tcp_socket_is_left_out(void)
{
    pgs_row row;
    struct inet_diag_msg message = make_message(AF_INET, PGS_NEW_SYN_RECV);
    CHECK(pgs_message_row((const uint8_t *)&message, &row) && row.state == PGS_SYN_RECV);
    message = make_message(AF_INET, 0);
    CHECK(!pgs_message_row((const uint8_t *)&message, &row));
    message = make_message(AF_INET, 13);
    CHECK(!pgs_message_row((const uint8_t *)&message, &row));
    message = make_message(AF_INET, PGS_ESTABLISHED);
    message.idiag_family = AF_UNIX;
    CHECK(!pgs_message_row((const uint8_t *)&message, &row));
}

static void answers_end_or_break_off(void)
{
    datagram d = {.length = 0};
    pgs_message message;
    int code = -ENOENT;
    put_header(&d, NLMSG_DONE, 1, 0);
    put_header(&d, NLMSG_DONE, 2, sizeof code);
    put(&d, &code, sizeof code);
    put_header(&d, NLMSG_ERROR, 3, sizeof code);
    put(&d, &code, sizeof code);
    put_header(&d, NLMSG_NOOP, 4, 0);
    const uint8_t *at = d.bytes, *const end = d.bytes + d.length;
    CHECK(pgs_message_next(&at, end, &message) == PGS_MESSAGE_DONE && message.error == 0);
    CHECK(pgs_message_next(&at, end, &message) == PGS_MESSAGE_DONE && message.error == ENOENT);
    CHECK(pgs_message_next(&at, end, &message) == PGS_MESSAGE_ERROR && message.error == ENOENT);
    CHECK(pgs_message_next(&at, end, &message) == PGS_MESSAGE_OTHER);
    CHECK(pgs_message_next(&at, end, &message) == PGS_MESSAGE_NONE);
}

/* Cut anywhere, and with any length written into any place: nothing beyond the bytes given is read. */
static void no_length_is_believed(void)
{
    static const uint16_t lengths[] = {0, 1, 3, 4, 15, 16, 17, 71, 87, 88, 89, 400, 4095, 65535};
    struct inet_diag_msg sent = make_message(AF_INET6, PGS_ESTABLISHED);
    datagram d = {.length = 0};
    pgs_row rows[4];
    pgs_diag_result result;
    pgs_message message;
    pgs_details details;
    put_socket(&d, &sent);
    put_socket(&d, &sent);
    for (size_t length = 0; length <= d.length; length++)
        for (size_t place = 0; place + 2 <= length; place += 2)
            for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
                uint8_t *copy = malloc(length);
                memcpy(copy, d.bytes, length);
                memcpy(copy + place, &lengths[i], sizeof lengths[i]);
                pgs_diag_parse(copy, length, rows, 4, &result);
                CHECK(result.rows <= 2);
                const uint8_t *at = copy;
                while (pgs_message_next(&at, copy + length, &message) == PGS_MESSAGE_SOCKET)
                    pgs_message_details(&message, 1, &details);
                free(copy);
                if (length % 29 && place > 96)
                    break; /* the attributes: not every value at every cut */
            }
}

static void older_kernels_say_less(void)
{
    struct inet_diag_msg sent = make_message(AF_INET, PGS_ESTABLISHED);
    datagram d = {.length = 0};
    pgs_message message;
    pgs_details details;
    const uint32_t short_info[13] = {[11] = 11, [12] = 99}; /* up to tcpi_last_data_sent and the next one */
    put_header(&d, TCPDIAG_GETSOCK, 1, sizeof sent + 4 + sizeof short_info);
    put(&d, &sent, sizeof sent);
    put_attribute(&d, INET_DIAG_INFO, short_info, sizeof short_info);
    const uint8_t *at = d.bytes;
    CHECK(pgs_message_next(&at, d.bytes + d.length, &message) == PGS_MESSAGE_SOCKET);
    CHECK(pgs_message_details(&message, 1, &details) && details.last_sent == 11 && details.bytes_sent == 0);
    message.attributes_length = 0;
    CHECK(!pgs_message_details(&message, 1, &details) && details.cgroup == 0);
}

static void the_largest_filter_fits_its_request(void)
{
    uint8_t request[PGS_REQUEST];
    struct nlmsghdr header;
    pgs_ports ports = {.count = PGS_MAX_PORTS, .remote_too = 1};
    for (int i = 0; i < PGS_MAX_PORTS; i++)
        ports.ports[i] = (uint16_t)(5432 + i);
    uint32_t length = pgs_write_dump(request, &ports, PGS_ALL_STATES, 1, 7);
    memcpy(&header, request, sizeof header);
    CHECK(length <= PGS_REQUEST && header.nlmsg_len == length && header.nlmsg_seq == 7);
    ports.count = 0;
    CHECK(pgs_write_dump(request, &ports, PGS_ALL_STATES, 0, 8) == sizeof header + sizeof(struct inet_diag_req));
}

int main(void)
{
    every_field_is_read(AF_INET);
    every_field_is_read(AF_INET6);
    the_timer_says_what_was_counted();
    what_is_no_tcp_socket_is_left_out();
    answers_end_or_break_off();
    no_length_is_believed();
    older_kernels_say_less();
    the_largest_filter_fits_its_request();
    return 0;
}
