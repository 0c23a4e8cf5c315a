/*
 * Inside the native side: messages of NETLINK_SOCK_DIAG, as bytes. Pure: no descriptor, no allocation.
 */
#ifndef PGSONAR_DIAGMSG_H
#define PGSONAR_DIAGMSG_H

#include "api.h"

/* Which ports a scan keeps. */
typedef struct pgs_ports {
    uint16_t ports[PGS_MAX_PORTS];
    uint32_t count;
    int remote_too;
} pgs_ports;

enum {
    PGS_MESSAGE = 72,         /* struct inet_diag_msg */
    PGS_EXPIRES = 52,         /* where its time left stands, four bytes: the only field that moves by itself */
    PGS_ALL_STATES = 0x1fff,  /* one bit a state, as in linux/tcp.h; PGS_NEW_SYN_RECV included */
    PGS_REQUEST = 2048,       /* bytes of a dump's request: 64 ports on both sides at most */
    PGS_LOOKUP = 72           /* bytes of one lookup's request */
};

enum pgs_message_kind {
    PGS_MESSAGE_NONE,      /* the datagram is at its end */
    PGS_MESSAGE_SOCKET,
    PGS_MESSAGE_DONE,      /* the dump is at its end; `error` when it broke off */
    PGS_MESSAGE_ERROR,     /* `error` is an errno, 0 for an acknowledgement */
    PGS_MESSAGE_OTHER,
    PGS_MESSAGE_MALFORMED  /* nothing after it can be read */
};

/* One message of a datagram; it points into the datagram. */
typedef struct pgs_message {
    const uint8_t *socket;      /* PGS_MESSAGE bytes, not aligned */
    const uint8_t *attributes;
    uint32_t attributes_length;
    uint32_t sequence;
    int error;
} pgs_message;

/* Takes the next message off the datagram [*at .. end). */
enum pgs_message_kind pgs_message_next(const uint8_t **at, const uint8_t *end, pgs_message *message);

/* Returns 0 when the message says nothing that can be a TCP socket. */
int pgs_message_row(const uint8_t *socket, pgs_row *row);

/* Fills what the attributes tell; returns 0 when TCP_INFO is not among them. */
int pgs_message_details(const pgs_message *message, uint64_t at, pgs_details *details);

/* Writes the request for all sockets on these ports; returns its length. */
uint32_t pgs_write_dump(uint8_t request[PGS_REQUEST], const pgs_ports *ports, uint32_t states, int with_details,
                        uint32_t sequence);

/* Writes the request for one socket, whatever its cookie. */
void pgs_write_lookup(uint8_t request[PGS_LOOKUP], const pgs_row *row, int with_details, uint32_t sequence);

#endif
