/* Preloaded into a process: while the file FAULT_TRIGGER exists, the next fsync or fdatasync of a file whose path holds
 * FAULT_PATH fails once with EIO, as after a write error of the disk. The trigger is removed then. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int fails(int descriptor)
{
    const char *trigger = getenv("FAULT_TRIGGER"), *wanted = getenv("FAULT_PATH");
    char link[64], path[PATH_MAX];
    ssize_t length;

    if (trigger == NULL || wanted == NULL || access(trigger, F_OK) != 0)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = '\0';
    return strstr(path, wanted) != NULL && unlink(trigger) == 0;
}

static int real(const char *name, int descriptor)
{
    int (*call)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);

    if (fails(descriptor)) {
        errno = EIO;
        return -1;
    }
    return call(descriptor);
}

int fsync(int descriptor) { return real("fsync", descriptor); }
int fdatasync(int descriptor) { return real("fdatasync", descriptor); }
