/* pgwake through its C interface as a peer of a side-by-side measurement.
 *
 * Called as `pgwake-c CONNINFO CHANNEL COUNT`: listens, prints READY, takes COUNT notifications, compares the time of
 * each (CLOCK_MONOTONIC, ns) with the number at the start of its payload, and prints one line of JSON. */
#include <pgwake.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

static void fail(const char *message) {
    fprintf(stderr, "%s\n", message);
    exit(1);
}

int main(int argc, char **argv) {
    if (argc != 4 || atol(argv[3]) < 1) {
        fprintf(stderr, "usage: %s CONNINFO CHANNEL COUNT\n", argv[0]);
        return 2;
    }
    long count = atol(argv[3]), taken = 0;
    int64_t *latency_ns = malloc(sizeof *latency_ns * count), first_ns = 0;
    if (!latency_ns) fail("no memory");
    memset(latency_ns, 1, sizeof *latency_ns * count); /* no page is to be found while it counts */
    pgwake *events = pgwake_new(NULL);
    int session = pgwake_connect(events, argv[1], NULL);
    if (session < 0 || pgwake_listen(events, session, argv[2]) < 0) fail(pgwake_error(events));

    double cpu_start_s = 0;
    while (taken < count) {
        const pgwake_event *event;
        if (pgwake_next(events, -1, &event) < 0) fail(pgwake_error(events));
        if (event->type == PGWAKE_EVENT_NOTIFICATION) {
            int64_t now_ns = monotonic_ns();
            if (!taken) first_ns = now_ns;
            latency_ns[taken++] = now_ns - strtoll(event->payload, NULL, 10);
        } else if (event->type == PGWAKE_EVENT_LISTENING) {
            cpu_start_s = cpu_s();
            puts("READY");
            fflush(stdout);
        } else {
            fail(event->message ? event->message : "an event that is not expected here");
        }
    }
    double used_s = cpu_s() - cpu_start_s, wall_s = (monotonic_ns() - first_ns) / 1e9;
    qsort(latency_ns, count, sizeof *latency_ns, ascending);
    printf("{\"peer\":\"pgwake-c\",\"n\":%ld,\"wall_s\":%.4f,\"per_s\":%.0f,\"cpu_ns_each\":%.0f,"
           "\"p50_us\":%.1f,\"p99_us\":%.1f,\"p999_us\":%.1f,\"max_us\":%.1f}\n",
           count, wall_s, count / wall_s, used_s * 1e9 / count, latency_ns[count / 2] / 1e3,
           latency_ns[count * 99 / 100] / 1e3, latency_ns[count * 999 / 1000] / 1e3, latency_ns[count - 1] / 1e3);
    pgwake_close(events);
    free(latency_ns);
    return 0;
}
