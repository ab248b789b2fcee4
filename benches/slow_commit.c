/* Preloaded into a server (LD_PRELOAD), makes each fdatasync last SLOW_COMMIT_US longer: a slow disk's commits. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

int fdatasync(int fd)
{
    static int (*next)(int);
    static long delay_us = -1;
    if (delay_us < 0) {
        const char *text = getenv("SLOW_COMMIT_US");
        delay_us = text ? atol(text) : 1000;
        next = (int (*)(int)) dlsym(RTLD_NEXT, "fdatasync");
    }
    struct timespec delay = { delay_us / 1000000, delay_us % 1000000 * 1000 };
    nanosleep(&delay, NULL);
    return next ? next(fd) : 0;
}
