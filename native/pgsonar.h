/*
 * The native side of pgsonar: asks the kernel for its TCP sockets, keeps them, and reports what changed.
 *
 * This file is the whole public C API. cffi reads it as it stands, so it holds no
 * preprocessor line, no macro and no inline function; limits are enums.
 *
 * Rules of this side: the prefix is pgs_; no Python.h, no callback, no global state, nothing is printed;
 * an error is a negative value of enum pgs_error, and errno keeps the system's reason.
 */

enum pgs_error {
    PGS_OK = 0,
    PGS_E_NOMEM = -1,   /* memory or a descriptor could not be had */
    PGS_E_OPEN = -2,    /* a table of the namespace could not be opened (errno tells) */
    PGS_E_READ = -3,    /* a read failed in mid scan (errno tells) */
    PGS_E_ARG = -4,     /* an argument is out of range */
    PGS_E_EXISTS = -5,  /* that namespace is watched already, or the thread runs already */
    PGS_E_NOENT = -6,   /* no such namespace is watched, or no such process */
    PGS_E_THREAD = -7,  /* a thread could not be started */
    PGS_E_REFUSED = -8  /* sock_diag was asked for and the kernel refuses it (errno tells) */
};

enum pgs_limit {
    PGS_MAX_PORTS = 64,       /* ports watched per namespace */
    PGS_MAX_ROW_TEXT = 256    /* longest line that counts as well formed, bytes with its newline */
};

/* Values of pgs_row.state: include/net/tcp_states.h. */
enum pgs_state {
    PGS_ESTABLISHED = 1,
    PGS_SYN_SENT = 2,
    PGS_SYN_RECV = 3,
    PGS_FIN_WAIT1 = 4,
    PGS_FIN_WAIT2 = 5,
    PGS_TIME_WAIT = 6,
    PGS_CLOSE = 7,
    PGS_CLOSE_WAIT = 8,
    PGS_LAST_ACK = 9,
    PGS_LISTEN = 10,
    PGS_CLOSING = 11,
    PGS_NEW_SYN_RECV = 12
};

/* Where a namespace's sockets are read. */
enum pgs_source {
    PGS_AUTO = 0,      /* sock_diag where the kernel grants it, else procfs */
    PGS_PROCFS = 1,    /* the text of /proc/PID/net/tcp and tcp6 */
    PGS_SOCK_DIAG = 2  /* netlink (man 7 sock_diag): filtered in the kernel, single sockets can be looked up */
};

/* Whether the kernel is asked to tell the end of every connection (SKNLGRP_INET_TCP_DESTROY). That closes the blind
 * window between two scans and costs the host about 10 us a connection. Needs sock_diag. */
enum pgs_events {
    PGS_EVENTS_AUTO = 0,   /* while connections come and go unseen */
    PGS_EVENTS_ALWAYS = 1,
    PGS_EVENTS_NEVER = 2
};

/* One socket, as a line of /proc/net/tcp or tcp6 (net/ipv4/tcp_ipv4.c: get_tcp4_sock) or a message of sock_diag
 * (net/ipv4/inet_diag.c: inet_sk_diag_fill) has it. Addresses are in network byte order; an IPv4 address is written
 * as its IPv4-mapped IPv6 form, so that a client has one spelling whichever listener it came through. */
typedef struct pgs_row {
    uint8_t local_address[16];
    uint8_t remote_address[16];
    uint16_t local_port;
    uint16_t remote_port;
    uint8_t state;         /* enum pgs_state */
    uint8_t timer;         /* `tr`: 0 none, 1 retransmit, 2 keepalive, 3 time wait, 4 zero window probe */
    uint8_t family;        /* of the socket: 4 or 6 */
    uint8_t reserved;      /* always 0 */
    uint32_t tx_queue;     /* bytes not yet acknowledged by the peer; LISTEN: the backlog's limit, 0 in procfs */
    uint32_t rx_queue;     /* bytes not yet read by the process, a FIN counts one; LISTEN: connections not accepted */
    uint32_t bound_interface; /* index of the interface it is bound to, 0 for none; 0 in procfs */
    uint32_t retransmits;  /* `retrnsmt`: unanswered retransmissions in a row */
    uint32_t probes;       /* `timeout`: unanswered keepalive or zero window probes (icsk_probes_out), not a time */
    uint32_t uid;
    uint64_t inode;        /* 0: no process owns the socket (not accepted yet, orphaned, TIME_WAIT) */
    uint64_t cookie;       /* the kernel's number of the socket, never reused; TIME_WAIT has its own. 0 in procfs */
} pgs_row;

/* What a call of pgs_parse() saw. */
typedef struct pgs_parse_result {
    uint32_t rows;       /* rows written to `out` */
    uint32_t lines;      /* complete lines consumed: header, rows, skipped and malformed ones */
    uint32_t skipped;    /* rows that touch none of the ports: nothing but the place of both ports was examined */
    uint32_t malformed;  /* lines that are neither a header nor a row */
    uint64_t consumed;   /* bytes of complete lines consumed; the rest is an incomplete line or did not fit `out` */
} pgs_parse_result;

/* Parses the text of one table, of any length, ending anywhere. Pure: no allocation, no state, reads only
 * text[0 .. length). Only lines ended by '\n' are consumed. A row is kept when `port_count` is 0 or its local
 * port, or (with `remote_too`) its remote port, is among `ports`, of which the first PGS_MAX_PORTS count. Stops early,
 * before the row that would not fit, when `capacity` rows are written. `family` is 4 or 6. Never fails: what is not
 * a row is counted. */
void pgs_parse(const char *text, uint64_t length, int family, const uint16_t *ports, uint32_t port_count,
               int remote_too, pgs_row *out, uint32_t capacity, pgs_parse_result *result);

/* What pgs_diag_parse() saw. */
typedef struct pgs_diag_result {
    uint32_t rows;       /* rows written to `out` */
    uint32_t messages;   /* well formed messages, whatever they say */
    uint32_t malformed;  /* 1 when the rest of the buffer was given up: a length that cannot be, or a short message */
    int32_t done;        /* 1: the dump's end was among them */
    int32_t error;       /* errno of the last error message, 0 without one */
} pgs_diag_result;

/* Parses one netlink datagram of sock_diag answers. Pure, as pgs_parse(); rows that do not fit `out` are not written
 * and not counted. */
void pgs_diag_parse(const void *buffer, uint64_t length, pgs_row *out, uint32_t capacity, pgs_diag_result *result);

/* The sockets of a namespace, asked once by sock_diag: listeners when `port_count` is 0, for which no connection is
 * walked, else those that have one of the ports at either end. For the other arguments see pgs_sampler_watch(). Writes
 * at most `capacity`, returns how many there are, or PGS_E_REFUSED, or PGS_E_ARG for too many ports. */
int64_t pgs_sockets(const char *net_directory, const char *netns_file, const uint16_t *ports, uint32_t port_count,
                    pgs_row *out, uint32_t capacity);

enum pgs_change_kind {
    PGS_OPENED = 1,   /* first seen; `row.state` may be any, also LISTEN */
    PGS_CLOSED = 2,   /* gone: the kernel said so (a lookup finds nothing, or told its end), it is absent from two
                         complete scans of procfs in a row, or its 4-tuple was taken by another socket; `row` is the
                         last sight, `at` the first scan without it */
    PGS_STATE = 3,    /* another TCP state */
    PGS_INODE = 4,    /* another inode in the same state: accepted (0 -> n) or orphaned (n -> 0) */
    PGS_QUEUE = 5,    /* a queue became empty or non-empty; for LISTEN: any other backlog */
    PGS_PROBE = 6     /* probes, retransmits or the kind of timer moved */
};

/* Sockets are told apart by namespace and directed 4-tuple, listeners also by inode: those that share a port through
 * SO_REUSEPORT are connections of their own, each with its backlog. A 4-tuple was taken by another socket when its
 * cookie or its inode became another one, or when its state went back (TIME_WAIT -> SYN_RECV, CLOSE_WAIT ->
 * ESTABLISHED).
 *
 * Something changed. One record a socket and scan: the first of state, inode, queue, probe that applies names
 * it, and `row` holds all of them as they are now. */
typedef struct pgs_change {
    uint64_t connection;      /* never reused while the sampler lives: a 4-tuple that returns is a new connection */
    uint64_t at;              /* CLOCK_BOOTTIME, ns, when the scan that saw it began. Of a connection that lived between
                                 two scans: no earlier than it was opened, by its last byte or acknowledgement */
    uint32_t netns;           /* as given to pgs_sampler_watch() */
    uint8_t kind;             /* enum pgs_change_kind */
    uint8_t previous_state;   /* 0 when opened */
    uint16_t is_final;        /* of a closed connection: the two counts below are its last ones */
    pgs_row row;
    uint64_t bytes_sent;      /* acknowledged by the peer; 0 unless is_final */
    uint64_t bytes_received;
} pgs_change;

/* What only TCP_INFO tells of a connection (linux/tcp.h: struct tcp_info), at most a few seconds old. */
typedef struct pgs_details {
    uint64_t connection;
    uint64_t at;               /* CLOCK_BOOTTIME, ns, when it was read */
    uint64_t cgroup;           /* id of the control group that opened the socket; 0 unknown */
    uint64_t bytes_sent;       /* acknowledged by the peer */
    uint64_t bytes_received;
    uint64_t busy_time;        /* us with data in flight */
    uint64_t rwnd_limited;     /* us stopped by the peer's window */
    uint64_t sndbuf_limited;   /* us stopped by the send buffer */
    uint32_t last_sent;        /* ms since data was last sent */
    uint32_t last_received;    /* ms since data was last received */
    uint32_t last_ack;         /* ms since the peer last acknowledged */
    uint32_t retransmitted;    /* segments, in all */
    uint32_t not_sent;         /* bytes queued and not sent yet */
    uint32_t rtt;              /* us */
} pgs_details;

/* Totals of one watched namespace since it is watched, and gauges of its last complete tick. */
typedef struct pgs_scan_stats {
    uint64_t scans;            /* complete ticks: a walk of all sockets, or a still gate and what was looked up */
    uint64_t walks;            /* of these: walks of all sockets */
    uint64_t lookups;          /* single sockets asked for */
    uint64_t incomplete;       /* ticks discarded: a read failed, a text ended in mid line, a message was cut off */
    uint64_t late;             /* ticks that began more than half an interval after their time */
    uint64_t missed;           /* ticks dropped from the schedule because scans took too long */
    uint64_t malformed;        /* lines or messages */
    uint64_t duplicates;       /* rows seen twice in one scan, ignored */
    uint64_t lost_changes;     /* changes not sent: the ring was full, and until a snapshot nothing more is sent */
    uint64_t resyncs;          /* snapshots taken after lost changes */
    uint64_t opened;           /* connections (not listeners) met after the first scan */
    uint64_t closed;           /* connections ended */
    uint64_t events;           /* ends of connections the kernel told of */
    uint64_t lost_events;      /* times it had more to tell than the socket could hold */
    uint64_t short_lived;      /* connections known only from being told of their end */
    uint64_t kernel_opened;    /* connections the kernel opened meanwhile, on any port of the namespace (PassiveOpens,
                                  with remote_too also ActiveOpens): what passes `opened` was unseen, or not ours */
    uint64_t last_at;          /* CLOCK_BOOTTIME, ns: start of the last complete tick; 0 before the first */
    uint64_t last_cost;        /* ns of wall time */
    uint64_t last_cpu;         /* ns of thread CPU time */
    uint64_t cpu;              /* ns of thread CPU time in all ticks */
    uint64_t max_gap;          /* ns: longest distance between two complete ticks since the last call */
    uint64_t last_lateness;    /* ns */
    uint32_t rows;             /* rows of the last walk that touch the ports */
    uint32_t rows_skipped;     /* rows of the last walk that do not; sock_diag does not send them */
    int32_t last_error;        /* enum pgs_error of the last incomplete tick, 0 when the last one was complete */
    int32_t last_errno;
    int32_t source;            /* enum pgs_source in use */
    int32_t refusal;           /* errno that keeps PGS_AUTO from sock_diag; 0 when nothing does */
    int32_t events_on;         /* the kernel tells of every end */
    int32_t events_refusal;    /* errno that keeps it from telling, 0 when nothing does */
    int32_t has_gate;          /* the kernel's counters can be read */
    int32_t reserved;
} pgs_scan_stats;

typedef struct pgs_sampler pgs_sampler;

/* A sampler and its ring of `ring_capacity` changes; NULL without memory. One thread scans every watched
 * namespace once an interval. The caller frees it with pgs_sampler_free(), which also stops it. */
pgs_sampler *pgs_sampler_new(uint64_t interval_ns, uint32_t ring_capacity);
void pgs_sampler_free(pgs_sampler *sampler);

/* Watches a network namespace through the directory that holds its `tcp`, `tcp6` and `snmp`, e.g. "/proc/1234/net".
 * They are opened here and kept open, which keeps the namespace alive until pgs_sampler_unwatch(). A missing
 * tcp6 or snmp is no error. `netns` is the caller's number for it and comes back in every change.
 * `source` is an enum pgs_source. sock_diag needs no privilege in the namespace of the caller's thread; elsewhere
 * `netns_file`, e.g. "/proc/1234/ns/net" (NULL: there is none), is entered by a thread that lives for a moment,
 * which takes CAP_SYS_ADMIN. `events` is an enum pgs_events. */
int pgs_sampler_watch(pgs_sampler *sampler, uint32_t netns, const char *net_directory, const char *netns_file,
                      int source, int events, const uint16_t *ports, uint32_t port_count, int remote_too);

/* Replaces the ports of a watched namespace. Connections that are no longer covered are reported closed. */
int pgs_sampler_set_ports(pgs_sampler *sampler, uint32_t netns, const uint16_t *ports, uint32_t port_count,
                          int remote_too);

/* Forgets a namespace without reporting its connections as closed: they are lost from sight. */
int pgs_sampler_unwatch(pgs_sampler *sampler, uint32_t netns);

/* What one step in the caller's thread does. */
enum pgs_step {
    PGS_STEP_TICK = 0,    /* what the thread would do now: gate, then a walk or lookups */
    PGS_STEP_WALK = 1,    /* all sockets, whatever the gate says */
    PGS_STEP_LOOKUP = 2,  /* every known connection, one by one; procfs: as PGS_STEP_WALK */
    PGS_STEP_DETAILS = 3  /* a walk that also takes TCP_INFO; procfs: as PGS_STEP_WALK */
};

/* Starts the thread, stops it (waits for the tick under way; nothing happens when none runs), or takes one step of
 * every namespace in the caller's thread (only while no thread runs): tests, benchmarks and `pgsonar scan` do that.
 * Whether it was complete stands in the totals. */
int pgs_sampler_start(pgs_sampler *sampler);
int pgs_sampler_stop(pgs_sampler *sampler);
int pgs_sampler_step(pgs_sampler *sampler, int step);

/* Another interval, which also moves the tick being waited for. */
int pgs_sampler_set_interval(pgs_sampler *sampler, uint64_t interval_ns);

/* Takes the changes since the last call, oldest first. `*changes` points into the sampler's own memory and
 * holds until the next call of this function. Returns their number. */
uint32_t pgs_sampler_drain(pgs_sampler *sampler, pgs_change **changes);

/* Every connection now in the table of a namespace, as changes of kind PGS_OPENED whose `at` is the scan that first
 * saw each: the way back after lost changes. If there were any, and all connections fit `out`, the snapshot
 * takes the place of what the ring holds of the namespace, and changes are sent again. Writes at most `capacity`,
 * returns how many there are. */
int64_t pgs_sampler_snapshot(pgs_sampler *sampler, uint32_t netns, pgs_change *out, uint32_t capacity);

/* What TCP_INFO last told of the connections of a namespace; those never asked for are left out. Writes at most
 * `capacity`, returns how many there are. */
int64_t pgs_sampler_details(pgs_sampler *sampler, uint32_t netns, pgs_details *out, uint32_t capacity);

/* Copies the totals of a namespace and starts `max_gap` anew. */
int pgs_sampler_stats(pgs_sampler *sampler, uint32_t netns, pgs_scan_stats *out);

/* The inodes of the sockets a process has open, read from the links in `<process_directory>/fd` or, where these are
 * refused, from `fdinfo` (`ino:`, Linux 5.14). `*descriptor` is where to look first and receives the descriptor
 * of the last socket found (-1 for none): every backend of one postmaster has its client on the same number.
 * With `first_only` the search ends when the descriptor given holds a socket. Writes at most `capacity` inodes
 * and returns how many were written, or PGS_E_NOENT when the process is gone, PGS_E_OPEN when access is refused. */
int pgs_owner_inodes(const char *process_directory, int *descriptor, int first_only, uint64_t *inodes,
                     uint32_t capacity);
