/*
 * The kernel asked by netlink: dumps, lookups of single sockets, and ends of connections told by the kernel itself. The
 * rule: an answer that is cut off, out of turn or late is an error of the whole question, and the socket is replaced.
 *
 * A dump is not atomic either: it is a series of buffers, each taken up where the last one ended. A lookup is exact:
 * what it does not find does not exist (net/ipv4/inet_diag.c: inet_diag_find_one_icsk).
 */
#include "sockdiag.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/magic.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/vfs.h>
#include <unistd.h>

enum {
    BUFFER = 65536,             /* the kernel fills 32 KiB; after larger reads a small buffer truncates silently */
    ANSWER = BUFFER / PGS_BATCH, /* one socket with TCP_INFO takes 400 bytes, an end 400 */
    ENDS_QUEUE = 8 << 20        /* bytes: 5000 ends. Without CAP_NET_ADMIN net.core.rmem_max is the most */
};

/* --- opening ------------------------------------------------------------------------------------------------------ */

/* Two directories are of one namespace when their files are the same ones; this can be seen without privilege. */
static int is_own_namespace(const char *net_directory)
{
    char path[4096];
    struct statfs filesystem;
    struct stat there, here;
    if ((size_t)snprintf(path, sizeof path, "%s/tcp", net_directory) >= sizeof path || stat(path, &there) ||
        statfs(path, &filesystem) || stat("/proc/thread-self/net/tcp", &here))
        return 0;
    return filesystem.f_type == PROC_SUPER_MAGIC && there.st_ino == here.st_ino;
}

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

static int open_socket(int namespace_file)
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

static int ask(pgs_diag *diag, const void *request, size_t length)
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
        got = recv(diag->questions, diag->buffer, BUFFER, MSG_TRUNC);
    while (got < 0 && errno == EINTR);
    if (got > BUFFER)
        errno = EMSGSIZE;
    return got < 0 || got > BUFFER ? PGS_E_READ : got;
}

/* The rest of a dump's answer: what is met is up to `meet`, which may be NULL. */
typedef int meeting(void *context, const pgs_message *message);

static int take_answer(pgs_diag *diag, meeting *meet, void *context)
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

static int dump(pgs_diag *diag, const pgs_ports *ports, uint32_t states, int with_details, meeting *meet,
                void *context)
{
    uint8_t request[PGS_REQUEST];
    uint32_t length = pgs_write_dump(request, ports, states, with_details, ++diag->sequence);
    int code = ask(diag, request, length);
    return code == PGS_OK ? take_answer(diag, meet, context) : code;
}

int pgs_diag_reopen(pgs_diag *diag)
{
    if (diag->questions >= 0)
        close(diag->questions);
    diag->questions = open_socket(diag->namespace_file);
    if (diag->questions < 0)
        return errno == EMFILE || errno == ENFILE || errno == ENOMEM ? PGS_E_NOMEM : PGS_E_REFUSED;
    const pgs_ports probe = {.ports = {1}, .count = 1, .remote_too = 1};
    return dump(diag, &probe, 1 << PGS_LISTEN, 0, NULL, NULL) == PGS_OK ? PGS_OK : PGS_E_REFUSED;
}

int pgs_diag_open(pgs_diag *diag, const char *net_directory, const char *netns_file)
{
    *diag = (pgs_diag){.questions = -1, .ends = -1, .namespace_file = -1};
    if (!is_own_namespace(net_directory)) {
        errno = ENOENT;
        diag->namespace_file = netns_file ? open(netns_file, O_RDONLY | O_CLOEXEC) : -1;
        if (diag->namespace_file < 0)
            return errno == EMFILE || errno == ENFILE || errno == ENOMEM ? PGS_E_NOMEM : PGS_E_REFUSED;
    }
    diag->buffer = malloc(BUFFER + PGS_BATCH * PGS_LOOKUP);
    int code = diag->buffer ? pgs_diag_reopen(diag) : PGS_E_NOMEM;
    if (code != PGS_OK) {
        int reason = errno;
        pgs_diag_close(diag);
        errno = reason;
    }
    return code;
}

void pgs_diag_close(pgs_diag *diag)
{
    pgs_diag_leave_ends(diag);
    if (diag->questions >= 0)
        close(diag->questions);
    if (diag->namespace_file >= 0)
        close(diag->namespace_file);
    free(diag->buffer);
    *diag = (pgs_diag){.questions = -1, .ends = -1, .namespace_file = -1};
}

/* --- walks and lookups -------------------------------------------------------------------------------------------- */

static uint64_t load8(const uint8_t *from)
{
    uint64_t value;
    memcpy(&value, from, sizeof value);
    return value;
}

/* Whether an entry was read from this message; all but the time left counts. */
static int is_as_it_was(const pgs_entry *entry, const uint8_t *socket)
{
    uint64_t differs = 0;
    for (int i = 0; i + 8 <= PGS_EXPIRES; i += 8)
        differs |= load8(entry->raw + i) ^ load8(socket + i);
    differs |= load8(entry->raw + PGS_EXPIRES - 8) ^ load8(socket + PGS_EXPIRES - 8);
    for (int i = PGS_EXPIRES + 4; i < PGS_MESSAGE; i += 8)
        differs |= load8(entry->raw + i) ^ load8(socket + i);
    return !differs;
}

typedef struct walk {
    pgs_table *table;
    int with_details;
    uint64_t at;
    uint32_t rows;
} walk;

static int meet_in_walk(void *context, const pgs_message *message)
{
    walk *w = context;
    pgs_row row;
    int code = PGS_OK;
    pgs_entry *entry = pgs_table_expected(w->table);
    w->rows++;
    if (entry && is_as_it_was(entry, message->socket)) {
        pgs_table_came(w->table, entry);
    } else {
        if (!pgs_message_row(message->socket, &row))
            return PGS_OK;
        code = pgs_table_meet(w->table, &row, &entry);
        if (code == PGS_SAME)
            memcpy(entry->raw, message->socket, PGS_MESSAGE);
    }
    pgs_details details;
    if (code >= 0 && w->with_details && entry && pgs_message_details(message, w->at, &details))
        return pgs_table_note(w->table, entry, &details);
    return code < 0 ? code : PGS_OK;
}

int pgs_diag_walk(pgs_diag *diag, pgs_table *table, const pgs_ports *ports, int with_details, uint64_t at,
                  uint32_t *rows)
{
    walk w = {table, with_details, at, 0};
    int code = dump(diag, ports, PGS_ALL_STATES, with_details, meet_in_walk, &w);
    *rows = w.rows;
    return code;
}

typedef struct gathering {
    pgs_row *out;
    uint32_t capacity;
    uint32_t count;
} gathering;

static int gather(void *context, const pgs_message *message)
{
    gathering *g = context;
    pgs_row row;
    if (!pgs_message_row(message->socket, &row))
        return PGS_OK;
    if (g->count < g->capacity)
        g->out[g->count] = row;
    g->count++;
    return PGS_OK;
}

int64_t pgs_listeners(const char *net_directory, const char *netns_file, pgs_row *out, uint32_t capacity)
{
    const pgs_ports all = {.count = 0};
    gathering g = {out, capacity, 0};
    pgs_diag diag;
    int code = pgs_diag_open(&diag, net_directory, netns_file);
    if (code != PGS_OK)
        return code;
    code = dump(&diag, &all, 1 << PGS_LISTEN, 0, gather, &g);
    int reason = errno;
    pgs_diag_close(&diag);
    errno = reason;
    return code == PGS_OK ? (int64_t)g.count : code;
}

typedef struct listening {
    pgs_table *table;
    int is_new;
} listening;

static int meet_listener(void *context, const pgs_message *message)
{
    listening *l = context;
    pgs_row row;
    if (!pgs_message_row(message->socket, &row))
        return PGS_OK;
    uint32_t index = pgs_table_find(l->table, &row);
    l->is_new |= index == PGS_NEW;
    int code = index == PGS_NEW ? PGS_OK : pgs_table_meet_entry(l->table, index, &row);
    return code < 0 ? code : PGS_OK;
}

int pgs_diag_listeners(pgs_diag *diag, pgs_table *table, const pgs_ports *ports, int *is_new)
{
    listening l = {table, 0};
    int code = dump(diag, ports, 1 << PGS_LISTEN, 0, meet_listener, &l);
    *is_new = l.is_new;
    return code;
}

/* One answer to a lookup of `index`. A listener answers for a connection that is gone. */
static int meet_answer(pgs_table *table, uint32_t index, const pgs_message *message, uint8_t *is_gone)
{
    pgs_entry *entry = &table->entries[index];
    pgs_row row;
    if (is_as_it_was(entry, message->socket)) {
        pgs_table_meet_again(table, entry);
        return PGS_OK;
    }
    *is_gone = !pgs_message_row(message->socket, &row) || !pgs_same_key(&row, &entry->row);
    if (*is_gone)
        return PGS_OK;
    int code = pgs_table_meet_entry(table, index, &row);
    if (code == PGS_SAME)
        memcpy(entry->raw, message->socket, PGS_MESSAGE);
    return code < 0 ? code : PGS_OK;
}

/* Receives as many answers as there are, each in its own ANSWER bytes. Returns their number or an error. */
static int receive_answers(int descriptor, uint8_t *buffer, unsigned most, int flags, struct mmsghdr *headers)
{
    struct iovec parts[PGS_BATCH];
    int got;
    memset(headers, 0, most * sizeof *headers);
    for (unsigned i = 0; i < most; i++) {
        parts[i] = (struct iovec){buffer + i * ANSWER, ANSWER};
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

static int look_up_batch(pgs_diag *diag, pgs_table *table, const uint32_t *entries, uint32_t count, uint8_t *is_gone)
{
    uint8_t *const requests = diag->buffer + BUFFER;
    struct mmsghdr headers[PGS_BATCH];
    const uint32_t first = diag->sequence + 1;
    for (uint32_t i = 0; i < count; i++)
        pgs_write_lookup(requests + i * PGS_LOOKUP, &table->entries[entries[i]].row, 0, ++diag->sequence);
    int code = ask(diag, requests, count * PGS_LOOKUP);
    for (uint32_t answered = 0; code == PGS_OK && answered < count;) {
        int got = receive_answers(diag->questions, diag->buffer, count - answered, MSG_WAITFORONE, headers);
        if (got < 0)
            return got;
        for (int i = 0; i < got && code == PGS_OK; i++) {
            const uint8_t *at = diag->buffer + i * ANSWER;
            pgs_message message;
            enum pgs_message_kind kind = pgs_message_next(&at, at + headers[i].msg_len, &message);
            const uint32_t number = message.sequence - first;
            if (number >= count) /* of an earlier question */
                continue;
            answered++;
            errno = message.error;
            if (kind == PGS_MESSAGE_SOCKET)
                code = meet_answer(table, entries[number], &message, &is_gone[number]);
            else if (kind == PGS_MESSAGE_ERROR && message.error == ENOENT)
                is_gone[number] = 1;
            else
                return PGS_E_READ;
        }
    }
    return code;
}

int pgs_diag_look_up(pgs_diag *diag, pgs_table *table, const uint32_t *entries, uint32_t count, uint8_t *is_gone)
{
    memset(is_gone, 0, count);
    for (uint32_t done = 0; done < count; done += PGS_BATCH) {
        uint32_t batch = count - done < PGS_BATCH ? count - done : PGS_BATCH;
        int code = look_up_batch(diag, table, entries + done, batch, is_gone + done);
        if (code != PGS_OK)
            return code;
    }
    return PGS_OK;
}

/* --- ends --------------------------------------------------------------------------------------------------------- */

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
    int ends = open_socket(diag->namespace_file);
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
    int got = receive_answers(diag->ends, diag->buffer, PGS_BATCH, MSG_DONTWAIT, headers), count = 0;
    *taken = 0;
    if (got < 0)
        return errno == EAGAIN ? 0 : errno == ENOBUFS ? PGS_E_NOMEM : PGS_E_READ;
    for (int i = 0; i < got; i++) {
        const uint8_t *from = diag->buffer + i * ANSWER;
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
