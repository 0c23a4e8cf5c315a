/*
 * Inside the native side: the kernel's counters of TCP connections in one network namespace.
 */
#ifndef PGSONAR_GATE_H
#define PGSONAR_GATE_H

#include <stdint.h>

enum pgs_counter {
    PGS_ACTIVE_OPENS,
    PGS_PASSIVE_OPENS,
    PGS_ATTEMPT_FAILS,
    PGS_ESTAB_RESETS,
    PGS_CURR_ESTAB,
    PGS_COUNTERS
};

typedef struct pgs_gate {
    int descriptor;                  /* -1: there is none */
    int columns[PGS_COUNTERS];       /* where the counters stand */
    uint64_t counters[PGS_COUNTERS]; /* at the last look */
} pgs_gate;

/* Opens `snmp` in the directory, which need not be there, and takes a first look. */
void pgs_gate_open(pgs_gate *gate, const char *net_directory);
void pgs_gate_close(pgs_gate *gate);

/* Returns 1 when a counter moved since the last look, 0 when none did, -1 when they cannot be read. */
int pgs_gate_look(pgs_gate *gate);

#endif
