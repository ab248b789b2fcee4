/* Each wake from another thread ends one wait: wakes CONNINFO COUNT. A wake that is lost leaves it hanging. Afterwards
 * a handle is closed while threads wake it, and woken from a signal's handler. */
#include "check.h"
#include <pthread.h>
#include <signal.h>
#include <time.h>

static pgwake *handle;
static long asked, count;

static void *wake_when_asked(void *unused) {
    for (long i = 1; i <= count; i++) {
        while (__atomic_load_n(&asked, __ATOMIC_ACQUIRE) < i) {
            struct timespec moment = {0, 1};
            nanosleep(&moment, NULL);
        }
        CHECK(pgwake_wake(handle) == PGWAKE_OK);
    }
    return unused;
}

static void *wake_until_closed(void *shared) {
    while (pgwake_wake(shared) == PGWAKE_OK) continue;
    return NULL;
}

static void on_alarm(int unused) {
    (void)unused;
    pgwake_wake(handle);
}

int main(int argc, char **argv) {
    CHECK(argc == 3);
    const pgwake_event *event;
    pthread_t other, others[2];
    count = atol(argv[2]);
    handle = pgwake_new(NULL);
    CHECK(pgwake_connect(handle, argv[1], NULL) >= 0);
    take(handle, PGWAKE_EVENT_LISTENING);

    CHECK(pthread_create(&other, NULL, wake_when_asked, NULL) == 0);
    for (long i = 1; i <= count; i++) {
        __atomic_store_n(&asked, i, __ATOMIC_RELEASE);
        CHECK(pgwake_next(handle, -1, &event) == 0);
    }
    pthread_join(other, NULL);
    CHECK(pgwake_next(handle, 0, &event) == 0);

    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_alarm;
    sigaction(SIGALRM, &action, NULL);
    struct itimerspec soon = {{0, 0}, {0, 50000000}};
    timer_t timer;
    CHECK(timer_create(CLOCK_MONOTONIC, NULL, &timer) == 0 && timer_settime(timer, 0, &soon, NULL) == 0);
    CHECK(pgwake_next(handle, -1, &event) == 0);
    timer_delete(timer);
    pgwake_close(handle);

    for (int round = 0; round < 200; round++) {
        pgwake *brief = pgwake_new(NULL);
        for (int i = 0; i < 2; i++) pthread_create(&others[i], NULL, wake_until_closed, brief);
        CHECK(pgwake_next(brief, -1, &event) == 0);
        pgwake_close(brief);
        for (int i = 0; i < 2; i++) pthread_join(others[i], NULL);
    }
    puts("ok");
    return 0;
}
