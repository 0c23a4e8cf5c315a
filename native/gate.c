/*
 * The gate: counters of /proc/net/snmp (RFC 4022) that tell in one short read, whatever the number of sockets, that
 * nobody opened or ended a connection since the last look. The rule: it only ever proves that; a socket whose peer has
 * closed moves none of these counters, so known sockets are looked up in any case.
 */
#include "gate.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { TEXT = 4096 }; /* net/ipv4/proc.c: snmp_seq_show writes about 1.3 KiB */

/* The counters' names in the order of enum pgs_counter. */
static const char *const names[PGS_COUNTERS] = {"ActiveOpens", "PassiveOpens", "AttemptFails", "EstabResets",
                                                "CurrEstab"};

/* Reads the two lines that begin with "Tcp:", names and values. Returns 0 when they are not there. */
static int read_lines(int descriptor, char text[TEXT], const char **title, const char **values)
{
    ssize_t length = pread(descriptor, text, TEXT - 1, 0);
    if (length <= 0)
        return 0;
    text[length] = 0;
    const char *first = strstr(text, "\nTcp: ");
    const char *second = first ? strstr(first + 1, "\nTcp: ") : NULL;
    if (!second || !strchr(second + 1, '\n'))
        return 0;
    *title = first + sizeof "\nTcp: " - 1;
    *values = second + sizeof "\nTcp: " - 1;
    return 1;
}

static const char *next_column(const char *at)
{
    while (*at != ' ' && *at != '\n')
        at++;
    return at + (*at == ' ');
}

static int find_columns(pgs_gate *gate, const char *title)
{
    int found = 0, column = 0;
    for (const char *at = title; *at != '\n'; at = next_column(at), column++)
        for (int i = 0; i < PGS_COUNTERS; i++) {
            size_t length = strlen(names[i]);
            if (!strncmp(at, names[i], length) && (at[length] == ' ' || at[length] == '\n')) {
                gate->columns[i] = column;
                found++;
            }
        }
    return found == PGS_COUNTERS;
}

/* MaxConn may be negative; none of ours is. */
static uint64_t read_number(const char *at)
{
    uint64_t value = 0;
    for (; *at >= '0' && *at <= '9'; at++)
        value = value * 10 + (uint64_t)(*at - '0');
    return value;
}

/* Takes the counters; returns whether one moved. The columns stand in the order of enum pgs_counter. */
static int take_counters(pgs_gate *gate, const char *values)
{
    int moved = 0, column = 0, counter = 0;
    for (const char *at = values; *at != '\n' && counter < PGS_COUNTERS; at = next_column(at), column++) {
        if (column != gate->columns[counter])
            continue;
        uint64_t value = read_number(at);
        moved |= value != gate->counters[counter];
        gate->counters[counter++] = value;
    }
    return counter == PGS_COUNTERS ? moved : -1;
}

void pgs_gate_close(pgs_gate *gate)
{
    if (gate->descriptor >= 0)
        close(gate->descriptor);
    gate->descriptor = -1;
}

int pgs_gate_look(pgs_gate *gate)
{
    char text[TEXT];
    const char *title, *values;
    if (gate->descriptor < 0 || !read_lines(gate->descriptor, text, &title, &values))
        return -1;
    return take_counters(gate, values);
}

void pgs_gate_open(pgs_gate *gate, const char *net_directory)
{
    char path[4096], text[TEXT];
    const char *title, *values;
    memset(gate, 0, sizeof *gate);
    gate->descriptor = -1;
    if ((size_t)snprintf(path, sizeof path, "%s/snmp", net_directory) < sizeof path)
        gate->descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (gate->descriptor >= 0 && (!read_lines(gate->descriptor, text, &title, &values) ||
                                  !find_columns(gate, title) || take_counters(gate, values) < 0))
        pgs_gate_close(gate);
}
