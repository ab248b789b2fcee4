/* The yardstick: the shortest good C loop over libpq, with a level-triggered epoll.
 *
 * `pgwake bench` has it compiled in (WITHIN_PGWAKE), with the libpq that pgwake itself uses. By itself it is a peer of a
 * side-by-side measurement: `c-libpq-epoll CONNINFO CHANNEL COUNT` listens, prints READY, takes COUNT notifications,
 * compares the time of each (CLOCK_MONOTONIC, ns) with the number at the start of its payload, and prints one line of
 * JSON. */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#ifdef WITHIN_PGWAKE
/* What is used of libpq-fe.h, which need not be there when libpq is built in. None of it has changed since 9.0. */
typedef struct pg_conn PGconn;
typedef struct pg_result PGresult;
typedef struct { char *relname; int be_pid; char *extra; } PGnotify;
enum { CONNECTION_OK = 0, PGRES_COMMAND_OK = 1 };
extern PGconn *PQconnectdb(const char *);
extern void PQreset(PGconn *), PQclear(PGresult *), PQfreemem(void *);
extern int PQstatus(const PGconn *), PQsocket(const PGconn *), PQbackendPID(const PGconn *), PQconsumeInput(PGconn *);
extern PGresult *PQexec(PGconn *, const char *);
extern int PQresultStatus(const PGresult *);
extern char *PQerrorMessage(const PGconn *);
extern PGnotify *PQnotifies(PGconn *);
#else
#include <libpq-fe.h>
#endif

/* c_loop.rs has the same. */
struct c_loop {
    int poller, backend_pid;                      /* of the first connection */
    PGconn *first;
    int64_t count_max, ends_left;                 /* it ends after that many, or when so many payloads were "!" */
    int64_t *times;                               /* of each: what its payload says, and when it was taken; or NULL */
    int64_t taken, first_ns, last_ns, cpu_ns;
    char error[512];
};

static int64_t clock_ns(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int fail(struct c_loop *loop, PGconn *connection) {
    snprintf(loop->error, sizeof loop->error, "%s", connection ? PQerrorMessage(connection) : strerror(errno));
    return -1;
}

static int watch(struct c_loop *loop, PGconn *connection, const char *listen) {
    struct epoll_event interest = {.events = EPOLLIN, .data.ptr = connection};
    if (*listen) {
        PGresult *result = PQexec(connection, listen);
        int is_done = PQresultStatus(result) == PGRES_COMMAND_OK;
        PQclear(result);
        if (!is_done) return fail(loop, connection);
    }
    return epoll_ctl(loop->poller, EPOLL_CTL_ADD, PQsocket(connection), &interest) ? fail(loop, NULL) : 0;
}

/* Adds a connection, which executes `listen` unless that is empty. */
int c_loop_add(struct c_loop *loop, const char *conninfo, const char *listen) {
    if (!loop->first && (loop->poller = epoll_create1(EPOLL_CLOEXEC)) < 0) return fail(loop, NULL);
    PGconn *connection = PQconnectdb(conninfo);
    if (!connection || PQstatus(connection) != CONNECTION_OK) return fail(loop, connection);
    if (!loop->first) loop->first = connection, loop->backend_pid = PQbackendPID(connection);
    return watch(loop, connection, listen);
}

/* The loop itself. */
int c_loop_run(struct c_loop *loop) {
    struct epoll_event ready[64];
    loop->cpu_ns = -clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    while (loop->taken < loop->count_max && loop->ends_left > 0) {
        int count = epoll_wait(loop->poller, ready, 64, -1);
        if (count < 0 && errno != EINTR) return fail(loop, NULL);
        for (int i = 0; i < count; i++) {
            PGconn *connection = ready[i].data.ptr;
            if (!PQconsumeInput(connection)) return fail(loop, connection);
            for (PGnotify *notification; (notification = PQnotifies(connection)); PQfreemem(notification)) {
                if (notification->extra[0] == '!') {
                    loop->ends_left--;
                    continue;
                }
                loop->last_ns = clock_ns(CLOCK_MONOTONIC);
                if (!loop->taken) loop->first_ns = loop->last_ns;
                if (loop->times && loop->taken < loop->count_max) {
                    loop->times[2 * loop->taken] = strtoll(notification->extra, NULL, 10);
                    loop->times[2 * loop->taken + 1] = loop->last_ns;
                }
                loop->taken++;
            }
        }
    }
    loop->cpu_ns += clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    return 0;
}

/* Waits until the only connection is lost, and makes it listen again; how long that took, or -1. */
int64_t c_loop_listen_again(struct c_loop *loop, const char *listen) {
    struct epoll_event ready;
    do {
        if (epoll_wait(loop->poller, &ready, 1, -1) < 0 && errno != EINTR) return fail(loop, NULL);
    } while (PQconsumeInput(loop->first) && PQstatus(loop->first) == CONNECTION_OK);
    int64_t lost_ns = clock_ns(CLOCK_MONOTONIC);
    PQreset(loop->first);
    if (PQstatus(loop->first) != CONNECTION_OK) return fail(loop, loop->first);
    return watch(loop, loop->first, listen) ? -1 : clock_ns(CLOCK_MONOTONIC) - lost_ns;
}

#ifndef WITHIN_PGWAKE
static int ascending(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static int end(const struct c_loop *loop) {
    fprintf(stderr, "%s", loop->error);
    return 1;
}

int main(int argc, char **argv) {
    long count = argc == 4 ? atol(argv[3]) : 0;
    if (count < 1) {
        fprintf(stderr, "usage: %s CONNINFO CHANNEL COUNT\n", argv[0]);
        return 2;
    }
    struct c_loop loop = {.count_max = count, .ends_left = 1, .times = malloc(2 * sizeof(int64_t) * count)};
    if (!loop.times) return fail(&loop, NULL), end(&loop);
    memset(loop.times, 1, 2 * sizeof(int64_t) * count); /* no page is to be found while it counts */
    char listen[512];
    snprintf(listen, sizeof listen, "LISTEN \"%.63s\"", argv[2]);
    if (c_loop_add(&loop, argv[1], listen)) return end(&loop);
    puts("READY");
    fflush(stdout);
    if (c_loop_run(&loop)) return end(&loop);

    double wall_s = (loop.last_ns - loop.first_ns) / 1e9;
    int64_t *latency_ns = loop.times;
    for (long i = 0; i < count; i++) latency_ns[i] = loop.times[2 * i + 1] - loop.times[2 * i];
    qsort(latency_ns, count, sizeof *latency_ns, ascending);
    printf("{\"peer\":\"c-libpq-epoll\",\"n\":%ld,\"wall_s\":%.4f,\"per_s\":%.0f,\"cpu_ns_each\":%.0f,"
           "\"p50_us\":%.1f,\"p99_us\":%.1f,\"p999_us\":%.1f,\"max_us\":%.1f}\n",
           count, wall_s, count / wall_s, (double)loop.cpu_ns / count, latency_ns[count / 2] / 1e3,
           latency_ns[count * 99 / 100] / 1e3, latency_ns[count * 999 / 1000] / 1e3, latency_ns[count - 1] / 1e3);
    return 0;
}
#endif
