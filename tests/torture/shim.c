/* Loaded with LD_PRELOAD into the processes of a node under torture.
 *
 * torture_record(journal, root): append every write, truncation, sync, creation, renaming and removal below root to
 * the journal, one record each, in the order in which they were done. A sync is recorded when it has returned.
 * torture_kill_at(what, nth): SIGKILL this process in the middle of the nth "recv", "send" or "checkpoint" (a write
 * to the database file itself).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define MOST_FILES 4096
#define REAL(name, type, args) \
    static type(*real) args;   \
    if (!real) real = (type(*) args)dlsym(RTLD_NEXT, #name)

static int journal = -1;
static char root[1024];
static char *names[MOST_FILES]; /* of the watched files that are open, by descriptor */
static char kill_what[16];
static volatile int kill_left;

struct record {
    uint32_t length; /* of the whole record */
    uint32_t pid;
    uint64_t number; /* offset, or length */
    uint16_t first, second; /* lengths of the two names */
    char kind;
    char spare[3];
} __attribute__((packed));

static void note(char kind, const char *first, const char *second, uint64_t number, const void *data, size_t size) {
    int kept = errno;
    size_t one = first ? strlen(first) : 0, two = second ? strlen(second) : 0;
    struct record head = {sizeof head + one + two + size, getpid(), number, one, two, kind, {0}};
    struct iovec parts[4] = {{&head, sizeof head}, {(void *)first, one}, {(void *)second, two}, {(void *)data, size}};
    if (journal >= 0 && syscall(SYS_writev, journal, parts, 4) != (long)head.length) abort();
    errno = kept;
}

static int watched(const char *path) {
    size_t length = strlen(root);
    return length && !strncmp(path, root, length) && !strstr(path, "-shm");
}

void torture_record(const char *path, const char *below) {
    snprintf(root, sizeof root, "%s", below);
    journal = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (journal < 0) abort();
}

void torture_kill_at(const char *what, const char *below, int nth) {
    snprintf(root, sizeof root, "%s", below);
    snprintf(kill_what, sizeof kill_what, "%s", what);
    kill_left = nth;
}

static int dies_at(const char *what) {
    return kill_left > 0 && !strcmp(kill_what, what) && __sync_sub_and_fetch(&kill_left, 1) == 0;
}

static void die(void) {
    syscall(SYS_kill, getpid(), SIGKILL);
    for (;;) pause();
}

static void opened(int file, int flags, int was_there) {
    char link[64], path[1024];
    if (file < 0 || file >= MOST_FILES || !root[0]) return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return;
    path[length] = 0;
    free(names[file]);
    names[file] = watched(path) ? strdup(path) : NULL;
    if (!names[file]) return;
    if (!was_there) note('C', path, NULL, 0, NULL, 0);
    else if (flags & O_TRUNC) note('T', path, NULL, 0, NULL, 0);
}

static int exists(int folder, const char *path) {
    struct stat found;
    int kept = errno, there = !fstatat(folder, path, &found, 0);
    errno = kept;
    return there;
}

static int do_open(int folder, const char *path, int flags, mode_t mode) {
    int was_there = !(flags & O_CREAT) || exists(folder, path);
    int file = syscall(SYS_openat, folder, path, flags, mode);
    if (file >= 0) opened(file, flags, was_there);
    return file;
}

#define OPEN(name, first, folder)                    \
    int name(first const char *path, int flags, ...) { \
        mode_t mode = 0;                             \
        if (flags & (O_CREAT | __O_TMPFILE)) {       \
            va_list rest;                            \
            va_start(rest, flags);                   \
            mode = va_arg(rest, mode_t);             \
            va_end(rest);                            \
        }                                            \
        return do_open(folder, path, flags, mode);   \
    }
#define NOTHING
#define FOLDER int folder,
OPEN(open, NOTHING, AT_FDCWD)
OPEN(open64, NOTHING, AT_FDCWD)
OPEN(openat, FOLDER, folder)
OPEN(openat64, FOLDER, folder)

int close(int file) {
    if (file >= 0 && file < MOST_FILES && names[file]) {
        free(names[file]);
        names[file] = NULL;
    }
    return syscall(SYS_close, file);
}

static const char *name_of(int file) {
    return file >= 0 && file < MOST_FILES ? names[file] : NULL;
}

static int is_database(const char *name) {
    size_t length = strlen(name);
    return length > 7 && !strcmp(name + length - 7, ".sqlite");
}

ssize_t write(int file, const void *data, size_t size) {
    ssize_t done = syscall(SYS_write, file, data, size);
    const char *name = name_of(file);
    if (name && done > 0) note('W', name, NULL, lseek(file, 0, SEEK_CUR) - done, data, done);
    return done;
}

static ssize_t do_pwrite(int file, const void *data, size_t size, off_t offset) {
    const char *name = name_of(file);
    if (name && is_database(name) && dies_at("checkpoint")) {
        syscall(SYS_pwrite64, file, data, size / 2, offset);
        die();
    }
    ssize_t done = syscall(SYS_pwrite64, file, data, size, offset);
    if (name && done > 0) note('W', name, NULL, offset, data, done);
    return done;
}

ssize_t pwrite(int file, const void *data, size_t size, off_t offset) { return do_pwrite(file, data, size, offset); }
ssize_t pwrite64(int file, const void *data, size_t size, off_t offset) { return do_pwrite(file, data, size, offset); }

static int do_sync(long call, int file) {
    int failed = syscall(call, file);
    if (!failed && name_of(file)) note('S', names[file], NULL, 0, NULL, 0);
    return failed;
}

int fsync(int file) { return do_sync(SYS_fsync, file); }
int fdatasync(int file) { return do_sync(SYS_fdatasync, file); }

static int do_truncate(int file, off_t length) {
    int failed = syscall(SYS_ftruncate, file, length);
    if (!failed && name_of(file)) note('T', names[file], NULL, length, NULL, 0);
    return failed;
}

int ftruncate(int file, off_t length) { return do_truncate(file, length); }
int ftruncate64(int file, off_t length) { return do_truncate(file, length); }

int rename(const char *from, const char *to) {
    int failed = syscall(SYS_rename, from, to);
    if (!failed && watched(from)) note('R', from, to, 0, NULL, 0);
    return failed;
}

int unlink(const char *path) {
    int failed = syscall(SYS_unlink, path);
    if (!failed && watched(path)) note('U', path, NULL, 0, NULL, 0);
    return failed;
}

int mkdir(const char *path, mode_t mode) {
    int failed = syscall(SYS_mkdir, path, mode);
    if (!failed && watched(path)) note('M', path, NULL, 0, NULL, 0);
    return failed;
}

ssize_t recv(int file, void *data, size_t size, int flags) {
    REAL(recv, ssize_t, (int, void *, size_t, int));
    ssize_t done = real(file, data, size, flags);
    if (done > 0 && dies_at("recv")) die();
    return done;
}

ssize_t send(int file, const void *data, size_t size, int flags) {
    REAL(send, ssize_t, (int, const void *, size_t, int));
    if (dies_at("send")) {
        real(file, data, size / 2, flags);
        die();
    }
    return real(file, data, size, flags);
}
