/*
 * Reads the TCP tables of a namespace through descriptors that stay open. The rule: a walk is complete or it is an
 * error; there is no partial one.
 *
 * The kernel answers a read() of these files with at most one page of whole rows (fs/seq_file.c). To be told "end of
 * file" by a read of 0 bytes costs a second walk over the whole socket hash, as dear as the first
 * (tcp_seek_last_pos in net/ipv4/tcp_ipv4.c), so the end is taken from the first read that left room for another row.
 */
#include "scan.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

static const char *const table_names[PGS_TABLES] = {"tcp", "tcp6"};
static const int families[PGS_TABLES] = {4, 6};

/* The longest row the kernel prints: all fields of get_tcp4_sock and get_tcp6_sock at their widest in practice. A
 * larger number would be safe too, but 26 padded rows of tcp (3900 of 4096 bytes) should still be seen as the end. */
static const uint64_t longest_rows[PGS_TABLES] = {160, 230};

enum {
    READ_SIZE = 65536 /* at least a page on every architecture */
};

char *pgs_text_new(void)
{
    return malloc(PGS_MAX_ROW_TEXT + READ_SIZE + PGS_TEXT_SLACK);
}

int pgs_tables_open(pgs_tables *tables, const char *net_directory)
{
    for (int i = 0; i < PGS_TABLES; i++)
        tables->descriptors[i] = -1;
    for (int i = 0; i < PGS_TABLES; i++) {
        char path[4096];
        struct statfs filesystem;
        if ((size_t)snprintf(path, sizeof path, "%s/%s", net_directory, table_names[i]) >= sizeof path) {
            errno = ENAMETOOLONG;
            return PGS_E_OPEN;
        }
        tables->descriptors[i] = open(path, O_RDONLY | O_CLOEXEC);
        if (tables->descriptors[i] < 0 && errno == ENOENT && i > 0)
            continue; /* a kernel without IPv6 */
        if (tables->descriptors[i] < 0 || fstatfs(tables->descriptors[i], &filesystem)) {
            int reason = errno;
            pgs_tables_close(tables);
            errno = reason;
            return reason == EMFILE || reason == ENFILE || reason == ENOMEM ? PGS_E_NOMEM : PGS_E_OPEN;
        }
        tables->is_procfs[i] = filesystem.f_type == PROC_SUPER_MAGIC;
    }
    return PGS_OK;
}

void pgs_tables_close(pgs_tables *tables)
{
    for (int i = 0; i < PGS_TABLES; i++) {
        if (tables->descriptors[i] >= 0)
            close(tables->descriptors[i]);
        tables->descriptors[i] = -1;
    }
}

static int is_headed(const char *text, uint64_t length)
{
    static const char header[] = "  sl ";
    return length >= sizeof header - 1 && !memcmp(text, header, sizeof header - 1);
}

static int walk_table(const pgs_tables *tables, int index, char *text, pgs_table *table, const pgs_port_texts *wanted,
                      pgs_text_counts *counts)
{
    const uint64_t enough = (uint64_t)sysconf(_SC_PAGESIZE) - longest_rows[index];
    const int is_procfs = tables->is_procfs[index];
    int64_t carried = 0;
    off_t offset = 0;
    for (;;) {
        ssize_t got = pread(tables->descriptors[index], text + carried, READ_SIZE, offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return PGS_E_READ;
        if (offset == 0 && !is_headed(text, (uint64_t)got))
            break;
        offset += got;
        int64_t length = carried + got;
        int64_t consumed = pgs_merge_text(table, text, (uint64_t)length, families[index], is_procfs, wanted, counts);
        if (consumed < 0)
            return (int)consumed;
        carried = length - consumed;
        memmove(text, text + consumed, (size_t)carried);
        int at_end = got == 0 || (is_procfs && (uint64_t)got < enough);
        if (at_end && carried == 0)
            return PGS_OK;
        if (at_end || carried >= PGS_MAX_ROW_TEXT) /* the rest of a line, which must fit in front of the next read */
            break;
    }
    errno = EBADMSG;
    return PGS_E_READ;
}

int pgs_tables_walk(const pgs_tables *tables, char *text, pgs_table *table, const pgs_ports *ports,
                    pgs_text_counts *counts)
{
    pgs_port_texts wanted;
    pgs_write_port_texts(&wanted, ports->ports, ports->count, ports->remote_too);
    memset(counts, 0, sizeof *counts);
    for (int i = 0; i < PGS_TABLES; i++) {
        int code = tables->descriptors[i] < 0 ? PGS_OK : walk_table(tables, i, text, table, &wanted, counts);
        if (code != PGS_OK)
            return code;
    }
    return PGS_OK;
}
