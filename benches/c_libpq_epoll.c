/* The yardstick: the shortest good C loop over libpq, with a level-triggered epoll.
 *
 * Called as `c-libpq-epoll CONNINFO CHANNEL COUNT`: listens, prints READY, takes COUNT notifications, compares the time
 * of each (CLOCK_MONOTONIC, ns) with the number at the start of its payload, and prints one line of JSON. */
#include <errno.h>
#include <libpq-fe.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>

static int64_t monotonic_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static double cpu_s(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static int ascending(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void fail(PGconn *connection) {
    fprintf(stderr, "%s", PQerrorMessage(connection));
    exit(1);
}

int main(int argc, char **argv) {
    if (argc != 4 || atol(argv[3]) < 1) {
        fprintf(stderr, "usage: %s CONNINFO CHANNEL COUNT\n", argv[0]);
        return 2;
    }
    long count = atol(argv[3]), taken = 0;
    int64_t *latency_ns = malloc(sizeof *latency_ns * count), first_ns = 0;
    PGconn *connection = PQconnectdb(argv[1]);
    if (latency_ns) memset(latency_ns, 1, sizeof *latency_ns * count); /* no page is to be found while it counts */
    if (!latency_ns || PQstatus(connection) != CONNECTION_OK) fail(connection);
    char *channel = PQescapeIdentifier(connection, argv[2], strlen(argv[2])), listen[512];
    if (!channel) fail(connection);
    snprintf(listen, sizeof listen, "LISTEN %s", channel);
    PQfreemem(channel);
    PGresult *result = PQexec(connection, listen);
    if (PQresultStatus(result) != PGRES_COMMAND_OK) fail(connection);
    PQclear(result);

    int poller = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event interest = {.events = EPOLLIN}, ready[8];
    epoll_ctl(poller, EPOLL_CTL_ADD, PQsocket(connection), &interest);
    double cpu_start_s = cpu_s();
    puts("READY");
    fflush(stdout);
    while (taken < count) {
        if (epoll_wait(poller, ready, 8, -1) < 0 && errno != EINTR) return 1;
        if (!PQconsumeInput(connection)) fail(connection);
        for (PGnotify *notification; (notification = PQnotifies(connection)); PQfreemem(notification)) {
            int64_t now_ns = monotonic_ns();
            if (!taken) first_ns = now_ns;
            if (taken < count) latency_ns[taken] = now_ns - strtoll(notification->extra, NULL, 10);
            taken++;
        }
    }
    double used_s = cpu_s() - cpu_start_s, wall_s = (monotonic_ns() - first_ns) / 1e9;
    qsort(latency_ns, count, sizeof *latency_ns, ascending);
    printf("{\"peer\":\"c-libpq-epoll\",\"n\":%ld,\"wall_s\":%.4f,\"per_s\":%.0f,\"cpu_ns_each\":%.0f,"
           "\"p50_us\":%.1f,\"p99_us\":%.1f,\"p999_us\":%.1f,\"max_us\":%.1f}\n",
           count, wall_s, count / wall_s, used_s * 1e9 / count, latency_ns[count / 2] / 1e3,
           latency_ns[count * 99 / 100] / 1e3, latency_ns[count * 999 / 1000] / 1e3, latency_ns[count - 1] / 1e3);
    PQfinish(connection);
    free(latency_ns);
    return 0;
}
