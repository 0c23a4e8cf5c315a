/*
 * What the benchmarks measure against, and the floor they stand on.
 *
 *   holder PAIRS WANTED NUMBER    holds PAIRS loopback connections on 127.0.1.NUMBER, WANTED of them on port 5432, the
 *                                 others on 8080, says "ready" and stays until its input ends
 *   backends COUNT DESCRIPTORS    holds COUNT children with so many descriptors each, one of them a socket, all at the
 *                                 same number; says its own pid and the last child's, and stays until its input ends
 *
 * The same file as a library: floor_of(), dump_of(), read_to_end() and walk_descriptors().
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PAGE = 4096, LONGEST4 = 160, LONGEST6 = 230 };

/* Reads both tables as far as the first read that is not full, and throws them away. Returns the bytes. */
long floor_of(int tcp, int tcp6)
{
    static char buffer[PAGE];
    const int tables[] = {tcp, tcp6}, longest[] = {LONGEST4, LONGEST6};
    long bytes = 0;
    for (int i = 0; i < 2; i++) {
        off_t offset = 0;
        ssize_t got;
        do {
            got = pread(tables[i], buffer, sizeof buffer, offset);
            offset += got;
        } while (got >= PAGE - longest[i]);
        bytes += offset;
    }
    return bytes;
}

/* Asks for all sockets on a local port, as the scanner does, and throws the answer away. Returns its bytes. */
long dump_of(int netlink, int port)
{
    static char buffer[1 << 16];
    struct {
        struct nlmsghdr header;
        struct inet_diag_req body;
    } request = {{sizeof request, TCPDIAG_GETSOCK, NLM_F_REQUEST | NLM_F_DUMP, 1, 0},
                 {.idiag_family = AF_INET, .id.idiag_sport = htons((uint16_t)port), .idiag_states = 0x1fff}};
    long bytes = 0;
    if (send(netlink, &request, sizeof request, 0) != sizeof request)
        return -1;
    for (;;) {
        ssize_t got = recv(netlink, buffer, sizeof buffer, 0);
        if (got < (ssize_t)sizeof(struct nlmsghdr))
            return -1;
        bytes += got;
        const struct nlmsghdr *last = (const struct nlmsghdr *)buffer;
        for (int left = (int)got; NLMSG_OK(last, left); last = NLMSG_NEXT(last, left))
            if (last->nlmsg_type == NLMSG_DONE)
                return bytes;
    }
}

/* As `cat` does: reads one table until nothing is left, which walks the whole hash once more. */
long read_to_end(int table)
{
    static char buffer[1 << 17];
    off_t offset = 0;
    ssize_t got;
    while ((got = pread(table, buffer, sizeof buffer, offset)) > 0)
        offset += got;
    return offset;
}

/* Every descriptor of every process, one link after the other. Returns how many are sockets. */
long walk_descriptors(void)
{
    long sockets = 0;
    DIR *processes = opendir("/proc");
    for (const struct dirent *process; processes && (process = readdir(processes));) {
        char path[300], target[64];
        if (process->d_name[0] < '1' || process->d_name[0] > '9')
            continue;
        snprintf(path, sizeof path, "/proc/%s/fd", process->d_name);
        DIR *list = opendir(path);
        for (const struct dirent *item; list && (item = readdir(list));) {
            ssize_t length = readlinkat(dirfd(list), item->d_name, target, sizeof target);
            sockets += length > 8 && !memcmp(target, "socket:[", 8);
        }
        if (list)
            closedir(list);
    }
    if (processes)
        closedir(processes);
    return sockets;
}

static void check(int good, const char *what)
{
    if (!good) {
        perror(what);
        exit(1);
    }
}

static int listen_on(struct sockaddr_in *address, uint16_t port, uint32_t number)
{
    const int one = 1;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    *address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port),
                                    .sin_addr.s_addr = htonl(0x7f000100u + number)};
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    check(!bind(listener, (struct sockaddr *)address, sizeof *address) && !listen(listener, 4096), "listen");
    return listener;
}

static int hold(int pairs, int wanted, uint32_t number)
{
    struct sockaddr_in ours, others;
    char line[8];
    int our_port = listen_on(&ours, 5432, number), other_port = listen_on(&others, 8080, number);
    for (int i = 0; i < pairs; i++) {
        int is_wanted = i < wanted, client = socket(AF_INET, SOCK_STREAM, 0);
        struct sockaddr_in *to = is_wanted ? &ours : &others;
        check(client >= 0 && !connect(client, (struct sockaddr *)to, sizeof *to), "connect");
        check(accept(is_wanted ? our_port : other_port, NULL, NULL) >= 0, "accept");
    }
    puts("ready");
    fflush(stdout);
    return fgets(line, sizeof line, stdin) ? 1 : 0;
}

static int hold_backends(int count, int descriptors)
{
    char line[8];
    pid_t last = 0;
    for (int i = 0; i < count; i++) {
        last = fork();
        check(last >= 0, "fork");
        if (last == 0) {
            prctl(PR_SET_PDEATHSIG, 9);
            for (int number = 3; number < descriptors + 2; number++)
                open("/dev/null", O_RDONLY);
            socket(AF_INET, SOCK_STREAM, 0); /* the last one */
            pause();
            _exit(0);
        }
    }
    sleep(1); /* the children open what they hold */
    printf("%d %d\n", (int)getpid(), (int)last);
    fflush(stdout);
    return fgets(line, sizeof line, stdin) ? 1 : 0;
}

int main(int count, char **arguments)
{
    if (count == 5 && !strcmp(arguments[1], "holder"))
        return hold(atoi(arguments[2]), atoi(arguments[3]), (uint32_t)atoi(arguments[4]));
    if (count == 4 && !strcmp(arguments[1], "backends"))
        return hold_backends(atoi(arguments[2]), atoi(arguments[3]));
    fprintf(stderr, "usage: world holder PAIRS WANTED NUMBER | world backends COUNT DESCRIPTORS\n");
    return 2;
}
