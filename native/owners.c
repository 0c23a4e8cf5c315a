/*
 * Which sockets a process has open. The rule: a process or a descriptor that vanishes while it is read is normal and
 * simply holds no socket.
 *
 * The link /proc/PID/fd/N says "socket:[inode]" in one call. Following it takes the owner's uid and gid, or
 * CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH. /proc/PID/fdinfo/N takes CAP_SYS_PTRACE only and has the inode of any file
 * (`ino:`, Linux 5.14); a socket is told from a file by the mount all sockets share (`mnt_id:`, man 5 proc).
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api.h"

enum { ROUTE_LINK, ROUTE_FDINFO };

/* A process being looked at, and the way that is open to us. */
typedef struct process {
    int directory;
    int route;
    long socket_mount; /* `mnt_id` of sockets; 0 while unknown, -1 when it cannot be known */
} process;

static int is_refused(int reason)
{
    return reason == EACCES || reason == EPERM;
}

static int is_gone(int reason)
{
    return reason == ENOENT || reason == ESRCH;
}

static int code_of(int reason)
{
    return is_gone(reason) ? PGS_E_NOENT : reason == EMFILE || reason == ENFILE || reason == ENOMEM ? PGS_E_NOMEM
                                                                                                  : PGS_E_OPEN;
}

/* The numbers of one fdinfo file; -1 for a line that is not there. Returns 0 or an error of code_of(). */
static int read_fdinfo(int directory, const char *path, long *mount, int64_t *inode)
{
    char text[256]; /* the lines wanted come first; an epoll descriptor has many more */
    int file = openat(directory, path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return code_of(errno);
    ssize_t length = read(file, text, sizeof text - 1);
    int reason = errno;
    close(file);
    if (length < 0)
        return code_of(reason);
    text[length] = 0;
    const char *mount_line = strstr(text, "mnt_id:"), *inode_line = strstr(text, "ino:");
    *mount = mount_line ? strtol(mount_line + 7, NULL, 10) : -1;
    *inode = inode_line ? strtoll(inode_line + 4, NULL, 10) : -1;
    return PGS_OK;
}

/* Sockets live on one kernel-internal mount whichever namespace they are of: a socket of our own shows its number. */
static long find_socket_mount(void)
{
    char path[64];
    long mount = -1;
    int64_t inode = -1;
    int own = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (own < 0)
        return -1;
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", own);
    if (read_fdinfo(AT_FDCWD, path, &mount, &inode) != PGS_OK || inode < 0)
        mount = -1;
    close(own);
    return mount;
}

/* 1 and the inode when the descriptor is a socket, 0 when it is not or is gone, PGS_E_OPEN when it may not be read. */
static int read_fdinfo_socket(process *p, int descriptor, uint64_t *inode)
{
    char path[64];
    long mount;
    int64_t number;
    if (p->socket_mount == 0)
        p->socket_mount = find_socket_mount();
    if (p->socket_mount < 0)
        return PGS_E_OPEN;
    snprintf(path, sizeof path, "fdinfo/%d", descriptor);
    int code = read_fdinfo(p->directory, path, &mount, &number);
    if (code != PGS_OK)
        return code == PGS_E_NOENT ? 0 : code;
    *inode = (uint64_t)number;
    return number > 0 && mount == p->socket_mount;
}

static int read_socket(process *p, int descriptor, uint64_t *inode)
{
    char path[64], target[64];
    if (p->route == ROUTE_LINK) {
        snprintf(path, sizeof path, "fd/%d", descriptor);
        ssize_t length = readlinkat(p->directory, path, target, sizeof target - 1);
        if (length >= 0) {
            target[length] = 0;
            return sscanf(target, "socket:[%" SCNu64 "]", inode) == 1;
        }
        if (is_gone(errno))
            return 0;
        if (!is_refused(errno))
            return code_of(errno);
        p->route = ROUTE_FDINFO;
    }
    return read_fdinfo_socket(p, descriptor, inode);
}

static DIR *open_list(process *p)
{
    int list = openat(p->directory, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (list < 0 && is_refused(errno)) {
        p->route = ROUTE_FDINFO;
        list = openat(p->directory, "fdinfo", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    }
    DIR *directory = list < 0 ? NULL : fdopendir(list);
    if (list >= 0 && !directory)
        close(list);
    return directory;
}

static int read_all(process *p, int *descriptor, uint64_t *inodes, uint32_t capacity)
{
    DIR *directory = open_list(p);
    if (!directory)
        return code_of(errno);
    int found = 0, code = 0;
    const struct dirent *item;
    *descriptor = -1;
    while (code >= 0 && (uint32_t)found < capacity && (item = readdir(directory))) {
        if (item->d_name[0] < '0' || item->d_name[0] > '9')
            continue;
        int number = atoi(item->d_name);
        code = read_socket(p, number, &inodes[found]);
        if (code > 0) {
            *descriptor = number;
            found++;
        }
    }
    closedir(directory);
    return code < 0 ? code : found;
}

int pgs_owner_inodes(const char *process_directory, int *descriptor, int first_only, uint64_t *inodes,
                     uint32_t capacity)
{
    process p = {open(process_directory, O_PATH | O_DIRECTORY | O_CLOEXEC), ROUTE_LINK, 0};
    if (p.directory < 0)
        return code_of(errno);
    int found = 0;
    if (first_only && *descriptor >= 0 && capacity > 0)
        found = read_socket(&p, *descriptor, inodes);
    if (found == 0)
        found = read_all(&p, descriptor, inodes, capacity);
    int reason = errno;
    close(p.directory);
    errno = reason;
    return found;
}
