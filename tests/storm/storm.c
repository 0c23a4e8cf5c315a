/*
 * A storm of connections within one process: `storm STABLE RATE SECONDS`. It listens on 127.0.0.1:5432, holds STABLE
 * connections, and answers each line of its input with one of its own:
 *
 *   (at start)  ready
 *   go          stormed N    N connections came and went, RATE a second; one in eight ends without a reset
 *   close       closed       the stable connections are ended, by their clients first
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { PORT = 5432, AT_ONCE = 256 };

static int listener;

static void check(int good, const char *what)
{
    if (!good) {
        perror(what);
        exit(1);
    }
}

static struct sockaddr_in address(uint32_t number)
{
    return (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(PORT),
                                .sin_addr.s_addr = htonl(0x7f000001u + number)};
}

static void open_pair(int *client, int *server)
{
    struct sockaddr_in to = address(0);
    *client = socket(AF_INET, SOCK_STREAM, 0);
    check(*client >= 0, "socket");
    check(!connect(*client, (struct sockaddr *)&to, sizeof to), "connect");
    *server = accept(listener, NULL, NULL);
    check(*server >= 0, "accept");
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void close_pair(int client, int server, int is_orderly)
{
    const struct linger reset = {1, 0};
    if (!is_orderly)
        setsockopt(client, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(client);
    close(server);
}

/* AT_ONCE connections at a time, the oldest of which goes when another comes. */
static long storm(double rate, double seconds)
{
    static int pairs[AT_ONCE][2];
    const struct timespec moment = {0, 500000};
    const double begun = now();
    long count = 0;
    for (double elapsed; (elapsed = now() - begun) < seconds;) {
        if ((double)count > elapsed * rate) {
            nanosleep(&moment, NULL);
            continue;
        }
        int *pair = pairs[count % AT_ONCE];
        if (count >= AT_ONCE)
            close_pair(pair[0], pair[1], count % 8 == 0);
        open_pair(&pair[0], &pair[1]);
        count++;
    }
    for (long i = count < AT_ONCE ? 0 : count - AT_ONCE; i < count; i++)
        close_pair(pairs[i % AT_ONCE][0], pairs[i % AT_ONCE][1], i % 8 == 0);
    return count;
}

int main(int count, char **arguments)
{
    char line[64];
    const int one = 1;
    struct sockaddr_in own = address(0);
    if (count != 4) {
        fprintf(stderr, "usage: storm STABLE RATE SECONDS\n");
        return 2;
    }
    const int stable = atoi(arguments[1]);
    int *pairs = calloc((size_t)stable, 2 * sizeof *pairs);
    listener = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    check(pairs && !bind(listener, (struct sockaddr *)&own, sizeof own) && !listen(listener, 4096), "listen");
    for (int i = 0; i < stable; i++)
        open_pair(&pairs[2 * i], &pairs[2 * i + 1]);
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        if (line[0] == 'g') {
            printf("stormed %ld\n", storm(atof(arguments[2]), atof(arguments[3])));
        } else {
            for (int i = 0; i < 2 * stable; i++)
                close(pairs[i]);
            puts("closed");
        }
        fflush(stdout);
    }
    return 0;
}
