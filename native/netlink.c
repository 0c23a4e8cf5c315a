/*
 * A netlink socket of NETLINK_SOCK_DIAG in a network namespace: how it is opened, asked and heard. The rule: an
 * answer that is cut off, out of turn or late is an error of the whole question, and the socket is replaced.
 */
#include <errno.h>
#include <linux/netlink.h>
#include <pthread.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "sockdiag.h"

typedef struct opening {
    int namespace_file;
    int descriptor;
    int reason;
} opening;

static void *open_here(void *argument)
{
    opening *o = argument;
    const struct timeval patience = {1, 0};
    const struct sockaddr_nl kernel = {.nl_family = AF_NETLINK}, own = kernel;
    o->descriptor = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
    /* Bound by hand: an unbound socket is left out when destroyed sockets are told of. */
    if (o->descriptor < 0 || bind(o->descriptor, (const struct sockaddr *)&own, sizeof own) ||
        connect(o->descriptor, (const struct sockaddr *)&kernel, sizeof kernel) ||
        setsockopt(o->descriptor, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience)) {
        o->reason = errno;
        if (o->descriptor >= 0)
            close(o->descriptor);
        o->descriptor = -1;
    }
    return NULL;
}

/* A thread's namespace is its own: it ends before anything else could run in the one it has entered. */
static void *open_there(void *argument)
{
    opening *o = argument;
    if (setns(o->namespace_file, CLONE_NEWNET)) {
        o->reason = errno;
        return NULL;
    }
    return open_here(argument);
}

int pgs_diag_open_socket(int namespace_file)
{
    opening o = {namespace_file, -1, 0};
    pthread_t thread;
    if (namespace_file < 0) {
        open_here(&o);
    } else {
        int refusal = pthread_create(&thread, NULL, open_there, &o);
        if (refusal)
            o.reason = refusal;
        else
            pthread_join(thread, NULL);
    }
    errno = o.reason;
    return o.descriptor;
}

int pgs_diag_ask(pgs_diag *diag, const void *request, size_t length)
{
    ssize_t sent;
    do
        sent = send(diag->questions, request, length, 0);
    while (sent < 0 && errno == EINTR);
    return sent == (ssize_t)length ? PGS_OK : PGS_E_READ;
}

/* Receives one buffer of a dump's answer. Returns its length or an error. */
static int64_t receive(pgs_diag *diag)
{
    ssize_t got;
    do
        got = recv(diag->questions, diag->buffer, PGS_BUFFER, MSG_TRUNC);
    while (got < 0 && errno == EINTR);
    if (got > PGS_BUFFER)
        errno = EMSGSIZE;
    return got < 0 || got > PGS_BUFFER ? PGS_E_READ : got;
}

/* Takes a whole answer. */
static int take_answer(pgs_diag *diag, pgs_meeting *meet, void *context)
{
    for (;;) {
        int64_t length = receive(diag);
        if (length < 0)
            return (int)length;
        const uint8_t *at = diag->buffer, *const end = at + length;
        pgs_message message;
        enum pgs_message_kind kind;
        while ((kind = pgs_message_next(&at, end, &message)) != PGS_MESSAGE_NONE) {
            errno = kind == PGS_MESSAGE_MALFORMED ? EBADMSG : message.error;
            if (kind == PGS_MESSAGE_MALFORMED || message.error)
                return PGS_E_READ;
            if (message.sequence != diag->sequence)
                continue;
            if (kind == PGS_MESSAGE_DONE)
                return PGS_OK;
            int code = kind == PGS_MESSAGE_SOCKET && meet ? meet(context, &message) : PGS_OK;
            if (code != PGS_OK)
                return code;
        }
    }
}

int pgs_diag_dump(pgs_diag *diag, const pgs_ports *ports, uint32_t states, int with_details, pgs_meeting *meet,
                void *context)
{
    uint8_t request[PGS_REQUEST];
    uint32_t length = pgs_write_dump(request, ports, states, with_details, ++diag->sequence);
    int code = pgs_diag_ask(diag, request, length);
    return code == PGS_OK ? take_answer(diag, meet, context) : code;
}

int pgs_diag_receive(int descriptor, uint8_t *buffer, unsigned most, int flags, struct mmsghdr *headers)
{
    struct iovec parts[PGS_BATCH];
    int got;
    memset(headers, 0, most * sizeof *headers);
    for (unsigned i = 0; i < most; i++) {
        parts[i] = (struct iovec){buffer + i * PGS_ANSWER, PGS_ANSWER};
        headers[i].msg_hdr.msg_iov = &parts[i];
        headers[i].msg_hdr.msg_iovlen = 1;
    }
    do
        got = recvmmsg(descriptor, headers, most, flags, NULL);
    while (got < 0 && errno == EINTR);
    for (int i = 0; i < got; i++)
        if (headers[i].msg_hdr.msg_flags & MSG_TRUNC) {
            errno = EMSGSIZE;
            return PGS_E_READ;
        }
    return got < 0 ? PGS_E_READ : got;
}

int pgs_diag_reopen(pgs_diag *diag)
{
    if (diag->questions >= 0)
        close(diag->questions);
    diag->questions = pgs_diag_open_socket(diag->namespace_file);
    if (diag->questions < 0)
        return errno == EMFILE || errno == ENFILE || errno == ENOMEM ? PGS_E_NOMEM : PGS_E_REFUSED;
    const pgs_ports probe = {.ports = {1}, .count = 1, .remote_too = 1};
    return pgs_diag_dump(diag, &probe, 1 << PGS_LISTEN, 0, NULL, NULL) == PGS_OK ? PGS_OK : PGS_E_REFUSED;
}
