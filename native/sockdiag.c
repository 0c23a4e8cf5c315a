/*
 * The kernel's sockets by netlink: how a namespace is opened for it, walks, listeners, and lookups of single sockets.
 *
 * A walk is not atomic: it is a series of buffers, each taken up where the last one ended. A lookup is exact: what it
 * does not find does not exist (net/ipv4/inet_diag.c: inet_diag_find_one_icsk). The rule: whoever misses a socket in
 * a walk looks it up.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "sockdiag.h"

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

int pgs_diag_open(pgs_diag *diag, const char *net_directory, const char *netns_file)
{
    *diag = (pgs_diag){.questions = -1, .ends = -1, .namespace_file = -1};
    if (!is_own_namespace(net_directory)) {
        errno = ENOENT;
        diag->namespace_file = netns_file ? open(netns_file, O_RDONLY | O_CLOEXEC) : -1;
        if (diag->namespace_file < 0)
            return errno == EMFILE || errno == ENFILE || errno == ENOMEM ? PGS_E_NOMEM : PGS_E_REFUSED;
    }
    diag->buffer = malloc(PGS_BUFFER + PGS_BATCH * PGS_LOOKUP);
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
    int code = pgs_diag_dump(diag, ports, PGS_ALL_STATES, with_details, meet_in_walk, &w);
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

int64_t pgs_sockets(const char *net_directory, const char *netns_file, const uint16_t *ports, uint32_t port_count,
                    pgs_row *out, uint32_t capacity)
{
    pgs_ports wanted = {.count = port_count, .remote_too = 1};
    gathering g = {out, capacity, 0};
    pgs_diag diag;
    if (port_count > PGS_MAX_PORTS)
        return PGS_E_ARG;
    if (port_count)
        memcpy(wanted.ports, ports, port_count * sizeof *ports);
    int code = pgs_diag_open(&diag, net_directory, netns_file);
    if (code != PGS_OK)
        return code;
    code = pgs_diag_dump(&diag, &wanted, port_count ? PGS_ALL_STATES : 1 << PGS_LISTEN, 0, gather, &g);
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
    int code = pgs_diag_dump(diag, ports, 1 << PGS_LISTEN, 0, meet_listener, &l);
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
    *is_gone = !pgs_message_row(message->socket, &row) || !pgs_same_key(&row, &entry->row) || row.state == PGS_CLOSE;
    if (*is_gone)
        return PGS_OK;
    int code = pgs_table_meet_entry(table, index, &row);
    if (code == PGS_SAME)
        memcpy(entry->raw, message->socket, PGS_MESSAGE);
    return code < 0 ? code : PGS_OK;
}

static int look_up_batch(pgs_diag *diag, pgs_table *table, const uint32_t *entries, uint32_t count, uint8_t *is_gone)
{
    uint8_t *const requests = diag->buffer + PGS_BUFFER;
    struct mmsghdr headers[PGS_BATCH];
    const uint32_t first = diag->sequence + 1;
    for (uint32_t i = 0; i < count; i++)
        pgs_write_lookup(requests + i * PGS_LOOKUP, &table->entries[entries[i]].row, 0, ++diag->sequence);
    int code = pgs_diag_ask(diag, requests, count * PGS_LOOKUP);
    for (uint32_t answered = 0; code == PGS_OK && answered < count;) {
        int got = pgs_diag_receive(diag->questions, diag->buffer, count - answered, MSG_WAITFORONE, headers);
        if (got < 0)
            return got;
        for (int i = 0; i < got && code == PGS_OK; i++) {
            const uint8_t *at = diag->buffer + i * PGS_ANSWER;
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
