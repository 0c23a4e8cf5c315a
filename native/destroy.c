/*
 * Ends of connections, told by the kernel itself (SKNLGRP_INET_TCP_DESTROY, net/core/sock_diag.c). The rule: what
 * does not fit the queue is lost, and that is told.
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sockdiag.h"

enum { ENDS_QUEUE = 8 << 20 }; /* bytes: 5000 ends. Without CAP_NET_ADMIN net.core.rmem_max is the most */

/* Lets through what is on one of the ports: the others' ends would fill the queue. A classic filter (linux/filter.h)
 * loads in network order, and a match accepts at once. */
static int attach_filter(int descriptor, const pgs_ports *ports)
{
    enum { LOCAL_PORT = sizeof(struct nlmsghdr) + 4, REMOTE_PORT = LOCAL_PORT + 2 };
    struct sock_filter program[4 * PGS_MAX_PORTS + 4];
    unsigned short length = 0;
    if (!ports->count)
        return 0;
    for (int side = 0; side < (ports->remote_too ? 2 : 1); side++) {
        program[length++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_H | BPF_ABS, side ? REMOTE_PORT : LOCAL_PORT);
        for (uint32_t i = 0; i < ports->count; i++) {
            program[length++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ports->ports[i], 0, 1);
            program[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, UINT32_MAX);
        }
    }
    program[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, 0);
    const struct sock_fprog filter = {length, program};
    return setsockopt(descriptor, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter);
}

int pgs_diag_join_ends(pgs_diag *diag, const pgs_ports *ports)
{
    static const int groups[] = {SKNLGRP_INET_TCP_DESTROY, SKNLGRP_INET6_TCP_DESTROY};
    const int size = ENDS_QUEUE;
    int ends = pgs_diag_open_socket(diag->namespace_file);
    int code = ends < 0 || attach_filter(ends, ports) ? PGS_E_REFUSED : PGS_OK;
    if (code == PGS_OK) {
        int granted = 0;
        socklen_t length = sizeof granted;
        if (setsockopt(ends, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size))
            setsockopt(ends, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
        getsockopt(ends, SOL_SOCKET, SO_RCVBUF, &granted, &length);
        diag->is_queue_short = granted < size;
    }
    for (size_t i = 0; code == PGS_OK && i < sizeof groups / sizeof *groups; i++)
        if (setsockopt(ends, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &groups[i], sizeof groups[i]))
            code = PGS_E_REFUSED;
    if (code != PGS_OK && ends >= 0)
        close(ends);
    else
        diag->ends = ends;
    return code;
}

void pgs_diag_leave_ends(pgs_diag *diag)
{
    if (diag->ends >= 0)
        close(diag->ends);
    diag->ends = -1;
}

int pgs_diag_read_ends(pgs_diag *diag, uint64_t at, pgs_end ends[PGS_BATCH], int *taken)
{
    struct mmsghdr headers[PGS_BATCH];
    int got = pgs_diag_receive(diag->ends, diag->buffer, PGS_BATCH, MSG_DONTWAIT, headers), count = 0;
    *taken = 0;
    if (got < 0)
        return errno == EAGAIN ? 0 : errno == ENOBUFS ? PGS_E_NOMEM : PGS_E_READ;
    for (int i = 0; i < got; i++) {
        const uint8_t *from = diag->buffer + i * PGS_ANSWER;
        pgs_message message;
        if (pgs_message_next(&from, from + headers[i].msg_len, &message) != PGS_MESSAGE_SOCKET ||
            !pgs_message_row(message.socket, &ends[count].row))
            continue;
        pgs_message_details(&message, at, &ends[count].details);
        count++;
    }
    *taken = count;
    return got;
}
