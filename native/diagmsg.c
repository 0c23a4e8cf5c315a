/*
 * Messages of NETLINK_SOCK_DIAG (man 7 sock_diag, linux/inet_diag.h): requests written, answers taken apart. The rule:
 * a length is believed only after it was compared with what is left of the datagram.
 */
#include "diagmsg.h"

#include <arpa/inet.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>

_Static_assert(PGS_MESSAGE == sizeof(struct inet_diag_msg), "the message is compared as bytes");
_Static_assert(PGS_EXPIRES == offsetof(struct inet_diag_msg, idiag_expires), "the time left is left out of it");
_Static_assert(PGS_LOOKUP == sizeof(struct nlmsghdr) + sizeof(struct inet_diag_req_v2), "a lookup has no attributes");
_Static_assert(PGS_LOOKUP % NLMSG_ALIGNTO == 0, "lookups are sent one after the other");

enum {
    CGROUP_ID = 21,    /* INET_DIAG_CGROUP_ID: Linux 5.9, newer than the headers of some build hosts */
    TERM = 2 * sizeof(struct inet_diag_bc_op) + sizeof(struct inet_diag_bc_op) /* compare, its port, jump */
};

static int is_socket(const struct nlmsghdr *header)
{
    return header->nlmsg_type == SOCK_DIAG_BY_FAMILY || header->nlmsg_type == TCPDIAG_GETSOCK;
}

static int read_error(const uint8_t *body, uint32_t length, pgs_message *message)
{
    int code = 0;
    if (length < sizeof code)
        return 0;
    memcpy(&code, body, sizeof code);
    message->error = code > 0 ? code : code == INT32_MIN ? INT32_MAX : -code;
    return 1;
}

enum pgs_message_kind pgs_message_next(const uint8_t **at, const uint8_t *end, pgs_message *message)
{
    struct nlmsghdr header;
    const size_t left = (size_t)(end - *at);
    memset(message, 0, sizeof *message);
    if (left == 0)
        return PGS_MESSAGE_NONE;
    if (left < sizeof header)
        return PGS_MESSAGE_MALFORMED;
    memcpy(&header, *at, sizeof header);
    if (header.nlmsg_len < sizeof header || header.nlmsg_len > left)
        return PGS_MESSAGE_MALFORMED;
    const uint8_t *body = *at + sizeof header;
    const uint32_t length = header.nlmsg_len - (uint32_t)sizeof header;
    const size_t aligned = NLMSG_ALIGN((size_t)header.nlmsg_len);
    *at += aligned < left ? aligned : left;
    message->sequence = header.nlmsg_seq;
    if (header.nlmsg_type == NLMSG_DONE) {
        read_error(body, length, message);
        return PGS_MESSAGE_DONE;
    }
    if (header.nlmsg_type == NLMSG_ERROR)
        return read_error(body, length, message) ? PGS_MESSAGE_ERROR : PGS_MESSAGE_MALFORMED;
    if (!is_socket(&header))
        return PGS_MESSAGE_OTHER;
    if (length < PGS_MESSAGE)
        return PGS_MESSAGE_MALFORMED;
    message->socket = body;
    message->attributes = body + PGS_MESSAGE;
    message->attributes_length = length - PGS_MESSAGE;
    return PGS_MESSAGE_SOCKET;
}

static void write_address(uint8_t to[16], const __be32 from[4], int family)
{
    static const uint8_t v4_mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    if (family == AF_INET6) {
        memcpy(to, from, 16);
        return;
    }
    memcpy(to, v4_mapped, sizeof v4_mapped);
    memcpy(to + sizeof v4_mapped, from, 4);
}

int pgs_message_row(const uint8_t *socket, pgs_row *row)
{
    struct inet_diag_msg message;
    memcpy(&message, socket, sizeof message);
    uint8_t state = message.idiag_state == PGS_NEW_SYN_RECV ? PGS_SYN_RECV : message.idiag_state;
    if ((message.idiag_family != AF_INET && message.idiag_family != AF_INET6) || state < PGS_ESTABLISHED ||
        state > PGS_CLOSING)
        return 0;
    memset(row, 0, sizeof *row);
    write_address(row->local_address, message.id.idiag_src, message.idiag_family);
    write_address(row->remote_address, message.id.idiag_dst, message.idiag_family);
    row->local_port = ntohs(message.id.idiag_sport);
    row->remote_port = ntohs(message.id.idiag_dport);
    row->state = state;
    row->family = message.idiag_family == AF_INET6 ? 6 : 4;
    row->timer = message.idiag_timer;
    row->bound_interface = message.id.idiag_if;
    /* One field for what the text has in two columns: the timer says whose count it is. */
    row->retransmits = message.idiag_timer == 1 ? message.idiag_retrans : 0;
    row->probes = message.idiag_timer == 2 || message.idiag_timer == 4 ? message.idiag_retrans : 0;
    row->tx_queue = message.idiag_wqueue;
    row->rx_queue = message.idiag_rqueue;
    row->uid = message.idiag_uid;
    row->inode = message.idiag_inode;
    row->cookie = (uint64_t)message.id.idiag_cookie[1] << 32 | message.id.idiag_cookie[0];
    return 1;
}

static void read_info(const uint8_t *from, size_t length, pgs_details *details)
{
    struct tcp_info info;
    memset(&info, 0, sizeof info); /* older kernels send less */
    memcpy(&info, from, length < sizeof info ? length : sizeof info);
    details->bytes_sent = info.tcpi_bytes_acked;
    details->bytes_received = info.tcpi_bytes_received;
    details->busy_time = info.tcpi_busy_time;
    details->rwnd_limited = info.tcpi_rwnd_limited;
    details->sndbuf_limited = info.tcpi_sndbuf_limited;
    details->last_sent = info.tcpi_last_data_sent;
    details->last_received = info.tcpi_last_data_recv;
    details->last_ack = info.tcpi_last_ack_recv;
    details->retransmitted = info.tcpi_total_retrans;
    details->not_sent = info.tcpi_notsent_bytes;
    details->rtt = info.tcpi_rtt;
}

int pgs_message_details(const pgs_message *message, uint64_t at, pgs_details *details)
{
    const uint8_t *from = message->attributes, *const end = from + message->attributes_length;
    int has_info = 0;
    memset(details, 0, sizeof *details);
    details->at = at;
    while ((size_t)(end - from) >= sizeof(struct rtattr)) {
        struct rtattr attribute;
        memcpy(&attribute, from, sizeof attribute);
        if (attribute.rta_len < sizeof attribute || attribute.rta_len > (size_t)(end - from))
            break;
        const uint8_t *value = from + sizeof attribute;
        const size_t length = attribute.rta_len - sizeof attribute;
        if (attribute.rta_type == INET_DIAG_INFO) {
            read_info(value, length, details);
            has_info = 1;
        } else if (attribute.rta_type == CGROUP_ID && length >= sizeof details->cgroup) {
            memcpy(&details->cgroup, value, sizeof details->cgroup);
        }
        const size_t aligned = RTA_ALIGN((size_t)attribute.rta_len);
        from += aligned < (size_t)(end - from) ? aligned : (size_t)(end - from);
    }
    return has_info;
}

void pgs_diag_parse(const void *buffer, uint64_t length, pgs_row *out, uint32_t capacity, pgs_diag_result *result)
{
    const uint8_t *at = buffer, *const end = at + length;
    pgs_message message;
    memset(result, 0, sizeof *result);
    for (;;) {
        enum pgs_message_kind kind = pgs_message_next(&at, end, &message);
        if (kind == PGS_MESSAGE_NONE || kind == PGS_MESSAGE_MALFORMED) {
            result->malformed = kind == PGS_MESSAGE_MALFORMED;
            return;
        }
        result->messages++;
        result->done |= kind == PGS_MESSAGE_DONE;
        if (message.error)
            result->error = message.error;
        pgs_row row;
        if (kind == PGS_MESSAGE_SOCKET && result->rows < capacity && pgs_message_row(message.socket, &row))
            out[result->rows++] = row;
    }
}

/* --- requests ----------------------------------------------------------------------------------------------------- */

/* "sport == a or sport == b or dport == a ...": each term jumps to the end, which accepts, or falls to the next; the
 * last one jumps past the end, which rejects (net/ipv4/inet_diag.c: inet_diag_bc_audit, inet_diag_bc_run). */
static uint32_t write_filter(uint8_t *to, const pgs_ports *ports)
{
    const uint32_t terms = ports->remote_too ? 2 * ports->count : ports->count;
    const uint32_t length = terms * TERM;
    for (uint32_t i = 0; i < terms; i++, to += TERM) {
        const uint32_t left = length - i * TERM;
        struct inet_diag_bc_op operations[3] = {
            {i < ports->count ? INET_DIAG_BC_S_EQ : INET_DIAG_BC_D_EQ, 8, i + 1 == terms ? TERM + 4 : TERM},
            {0, 0, ports->ports[i % ports->count]},
            {INET_DIAG_BC_JMP, 4, (uint16_t)(left - 8)}, /* counted from the jump itself */
        };
        memcpy(to, operations, sizeof operations);
    }
    return length;
}

uint32_t pgs_write_dump(uint8_t request[PGS_REQUEST], const pgs_ports *ports, uint32_t states, int with_details,
                        uint32_t sequence)
{
    /* The old request: it alone answers IPv4 and IPv6 in one walk (inet_diag_dump_compat). */
    struct inet_diag_req body = {.idiag_family = AF_INET, .idiag_states = states};
    struct nlmsghdr header = {.nlmsg_type = TCPDIAG_GETSOCK, .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP,
                              .nlmsg_seq = sequence};
    uint32_t length = sizeof header + sizeof body;
    body.idiag_ext = with_details ? 1 << (INET_DIAG_INFO - 1) : 0;
    if (ports->count == 1 && !ports->remote_too) { /* compared before anything else is done with a socket */
        body.id.idiag_sport = htons(ports->ports[0]);
    } else if (ports->count) {
        uint32_t filter = write_filter(request + length + sizeof(struct rtattr), ports);
        struct rtattr attribute = {.rta_len = (uint16_t)(sizeof attribute + filter),
                                   .rta_type = INET_DIAG_REQ_BYTECODE};
        memcpy(request + length, &attribute, sizeof attribute);
        length += attribute.rta_len;
    }
    header.nlmsg_len = length;
    memcpy(request, &header, sizeof header);
    memcpy(request + sizeof header, &body, sizeof body);
    return length;
}

void pgs_write_lookup(uint8_t request[PGS_LOOKUP], const pgs_row *row, int with_details, uint32_t sequence)
{
    struct nlmsghdr header = {.nlmsg_len = PGS_LOOKUP, .nlmsg_type = SOCK_DIAG_BY_FAMILY, .nlmsg_flags = NLM_F_REQUEST,
                              .nlmsg_seq = sequence};
    struct inet_diag_req_v2 body = {.sdiag_family = row->family == 6 ? AF_INET6 : AF_INET,
                                    .sdiag_protocol = IPPROTO_TCP, .idiag_states = PGS_ALL_STATES};
    const size_t skipped = row->family == 6 ? 0 : 12;
    body.idiag_ext = with_details ? 1 << (INET_DIAG_INFO - 1) : 0;
    body.id.idiag_sport = htons(row->local_port);
    body.id.idiag_dport = htons(row->remote_port);
    memcpy(body.id.idiag_src, row->local_address + skipped, 16 - skipped);
    memcpy(body.id.idiag_dst, row->remote_address + skipped, 16 - skipped);
    body.id.idiag_if = row->bound_interface;
    /* The socket that has the addresses now is asked for, and its cookie compared with the one remembered: TIME_WAIT
     * has another one, and is not an absence. */
    body.id.idiag_cookie[0] = body.id.idiag_cookie[1] = INET_DIAG_NOCOOKIE;
    memcpy(request, &header, sizeof header);
    memcpy(request + sizeof header, &body, sizeof body);
}
