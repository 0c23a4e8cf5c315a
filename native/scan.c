/*
 * Reads the TCP tables of a namespace through descriptors that stay open. The rule: a reading is complete or it is an
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
    MIN_ROW_TEXT = 64, /* no well formed row is shorter: bounds the rows of a text */
    READ_SIZE = 65536  /* at least a page on every architecture */
};

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

int pgs_reading_init(pgs_reading *reading)
{
    memset(reading, 0, sizeof *reading);
    reading->text_size = READ_SIZE + PGS_MAX_ROW_TEXT;
    reading->text = malloc(reading->text_size);
    return reading->text ? PGS_OK : PGS_E_NOMEM;
}

void pgs_reading_free(pgs_reading *reading)
{
    free(reading->rows);
    free(reading->text);
    memset(reading, 0, sizeof *reading);
}

static int reserve_rows(pgs_reading *reading, uint32_t more)
{
    if (reading->capacity - reading->count >= more)
        return PGS_OK;
    uint32_t capacity = 2 * reading->capacity + more;
    pgs_row *rows = realloc(reading->rows, capacity * sizeof *rows);
    if (!rows)
        return PGS_E_NOMEM;
    reading->rows = rows;
    reading->capacity = capacity;
    return PGS_OK;
}

/* Parses `length` bytes and moves what is left of the last line to the front. Returns its length, or an error. */
static int64_t take_text(pgs_reading *reading, uint64_t length, int family, const pgs_ports *ports)
{
    pgs_parse_result parsed;
    if (reserve_rows(reading, (uint32_t)(length / MIN_ROW_TEXT + 1)) != PGS_OK)
        return PGS_E_NOMEM;
    pgs_parse(reading->text, length, family, ports->ports, ports->count, ports->remote_too,
              reading->rows + reading->count, reading->capacity - reading->count, &parsed);
    reading->count += parsed.rows;
    reading->skipped += parsed.skipped;
    reading->malformed += parsed.malformed;
    memmove(reading->text, reading->text + parsed.consumed, length - parsed.consumed);
    return (int64_t)(length - parsed.consumed);
}

static int is_headed(const char *text, uint64_t length)
{
    static const char header[] = "  sl ";
    return length >= sizeof header - 1 && !memcmp(text, header, sizeof header - 1);
}

static int take_table(pgs_reading *reading, const pgs_tables *tables, int index, const pgs_ports *ports)
{
    const uint64_t enough = (uint64_t)sysconf(_SC_PAGESIZE) - longest_rows[index];
    int64_t carried = 0;
    off_t offset = 0;
    for (;;) {
        ssize_t got = pread(tables->descriptors[index], reading->text + carried, READ_SIZE, offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return PGS_E_READ;
        if (offset == 0 && !is_headed(reading->text, (uint64_t)got))
            break;
        offset += got;
        if (got > 0)
            carried = take_text(reading, (uint64_t)(carried + got), families[index], ports);
        if (carried < 0)
            return (int)carried;
        int at_end = got == 0 || (tables->is_procfs[index] && (uint64_t)got < enough);
        if (at_end && carried == 0)
            return PGS_OK;
        if (at_end || carried >= PGS_MAX_ROW_TEXT) /* the rest of a line, which must fit in front of the next read */
            break;
    }
    errno = EBADMSG;
    return PGS_E_READ;
}

int pgs_reading_take(pgs_reading *reading, const pgs_tables *tables, const pgs_ports *ports)
{
    reading->count = reading->skipped = reading->malformed = 0;
    for (int i = 0; i < PGS_TABLES; i++) {
        int code = tables->descriptors[i] < 0 ? PGS_OK : take_table(reading, tables, i, ports);
        if (code != PGS_OK)
            return code;
    }
    return PGS_OK;
}
