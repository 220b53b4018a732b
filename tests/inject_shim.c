/* Lets the n-th call of the operating system that concerns a folder fail. inject.py compiles it, loads it before all
 * libraries, and says through `inject_arm` which call of which kind fails with which error. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static const char *names[] = {
    "open", "read", "write", "fallocate", "truncate", "fsync", "close", "rename", "link", "unlink"};
enum { OPEN, READ, WRITE, FALLOCATE, TRUNCATE, FSYNC, CLOSE, RENAME, LINK, UNLINK, KINDS };

static int counting, armed = -1, countdown, code, fired, counts[KINDS];
static char folder[4096], known[65536]; /* the descriptors of files in the folder */

static int kind_of(const char *call)
{
    for (int i = 0; i < KINDS; i++)
        if (!strcmp(names[i], call))
            return i;
    return -1;
}

void inject_arm(const char *path, const char *call, int n, int error)
{
    snprintf(folder, sizeof folder, "%s", path);
    memset(counts, 0, sizeof counts);
    armed = kind_of(call);
    countdown = n;
    code = error;
    fired = 0;
    counting = 1;
}

int inject_disarm(void)
{
    counting = 0;
    armed = -1;
    return fired;
}

int inject_count(const char *call)
{
    return counts[kind_of(call)];
}

static int ours(const char *path)
{
    return counting && path && (path[0] != '/' || !strncmp(path, folder, strlen(folder)));
}

static int mine(int fd)
{
    return counting && fd >= 0 && fd < (int)sizeof known && known[fd];
}

static int opened(int fd, int is)
{
    if (fd >= 0 && fd < (int)sizeof known)
        known[fd] = is;
    return fd;
}

static int fails(int kind)
{
    int n = __sync_add_and_fetch(&counts[kind], 1);
    if (kind != armed || n != countdown)
        return 0;
    fired = 1;
    errno = code;
    return 1;
}

#define REAL(type, name, ...)                                                                                          \
    static type (*real)(__VA_ARGS__);                                                                                  \
    if (!real)                                                                                                         \
        *(void **)&real = dlsym(RTLD_NEXT, #name);

/* A function that fails with a value where a condition holds, and else is the real one. */
#define CALL(type, name, types, arguments, condition, kind, failure, given)                                            \
    type name types                                                                                                    \
    {                                                                                                                  \
        REAL(type, name, arguments)                                                                                    \
        if ((condition) && fails(kind))                                                                                \
            return failure;                                                                                            \
        return real given;                                                                                             \
    }

#define OPENING(name, types, arguments, given)                                                                         \
    int name types                                                                                                     \
    {                                                                                                                  \
        REAL(int, name, arguments)                                                                                     \
        va_list more;                                                                                                  \
        va_start(more, flags);                                                                                         \
        int mode = va_arg(more, int), is = ours(path);                                                                 \
        va_end(more);                                                                                                  \
        if (is && fails(OPEN))                                                                                         \
            return -1;                                                                                                 \
        return opened(real given, is);                                                                                 \
    }

#define LIST(...) __VA_ARGS__

OPENING(open, (const char *path, int flags, ...), LIST(const char *, int, ...), (path, flags, mode))
OPENING(open64, (const char *path, int flags, ...), LIST(const char *, int, ...), (path, flags, mode))
OPENING(openat, (int at, const char *path, int flags, ...), LIST(int, const char *, int, ...), (at, path, flags, mode))
OPENING(openat64, (int at, const char *path, int flags, ...), LIST(int, const char *, int, ...), (at, path, flags, mode))

CALL(ssize_t, read, (int fd, void *to, size_t n), LIST(int, void *, size_t), mine(fd), READ, -1, (fd, to, n))
#define PREAD(name)                                                                                                    \
    CALL(ssize_t, name, (int fd, void *to, size_t n, off_t at), LIST(int, void *, size_t, off_t), mine(fd), READ, -1,  \
         (fd, to, n, at))
PREAD(pread)
PREAD(pread64)
#define PREADV(name)                                                                                                   \
    CALL(ssize_t, name, (int fd, const struct iovec *to, int n, off_t at),                                             \
         LIST(int, const struct iovec *, int, off_t), mine(fd), READ, -1, (fd, to, n, at))
PREADV(preadv)
PREADV(preadv64)

CALL(ssize_t, write, (int fd, const void *from, size_t n), LIST(int, const void *, size_t), mine(fd), WRITE, -1,
     (fd, from, n))
#define PWRITE(name)                                                                                                   \
    CALL(ssize_t, name, (int fd, const void *from, size_t n, off_t at), LIST(int, const void *, size_t, off_t),        \
         mine(fd), WRITE, -1, (fd, from, n, at))
PWRITE(pwrite)
PWRITE(pwrite64)
#define FALLOCATE_(name)                                                                                               \
    CALL(int, name, (int fd, off_t at, off_t n), LIST(int, off_t, off_t), mine(fd), FALLOCATE, code, (fd, at, n))
FALLOCATE_(posix_fallocate)
FALLOCATE_(posix_fallocate64)
CALL(int, ftruncate, (int fd, off_t n), LIST(int, off_t), mine(fd), TRUNCATE, -1, (fd, n))
CALL(int, ftruncate64, (int fd, off_t n), LIST(int, off_t), mine(fd), TRUNCATE, -1, (fd, n))
CALL(int, fsync, (int fd), LIST(int), mine(fd), FSYNC, -1, (fd))
CALL(int, fdatasync, (int fd), LIST(int), mine(fd), FSYNC, -1, (fd))

int close(int fd)
{
    REAL(int, close, int)
    int is = mine(fd);
    opened(fd, 0);
    int result = real(fd); /* a file is closed, whatever close says */
    return is && fails(CLOSE) ? -1 : result;
}

#define TWO LIST(const char *, const char *)
CALL(int, rename, (const char *a, const char *b), TWO, ours(b), RENAME, -1, (a, b))
CALL(int, link, (const char *a, const char *b), TWO, ours(b), LINK, -1, (a, b))
CALL(int, unlink, (const char *a), LIST(const char *), ours(a), UNLINK, -1, (a))
CALL(int, renameat, (int x, const char *a, int y, const char *b), LIST(int, const char *, int, const char *), ours(b),
     RENAME, -1, (x, a, y, b))
CALL(int, linkat, (int x, const char *a, int y, const char *b, int f), LIST(int, const char *, int, const char *, int),
     ours(b), LINK, -1, (x, a, y, b, f))
CALL(int, unlinkat, (int x, const char *a, int f), LIST(int, const char *, int), ours(a), UNLINK, -1, (x, a, f))
