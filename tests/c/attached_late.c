/* A host that begins with pgwake_next and goes on in a loop of its own: attached_late CONNINFO CHANNEL. What came with
 * the first notification is inside already, and no descriptor tells of it. */
#include "check.h"
#include <pgwake/epoll.h>
#include <unistd.h>

#define BURST 100

static int taken;

static void on_event(void *user, const pgwake_event *event) {
    (void)user;
    taken += event->type == PGWAKE_EVENT_NOTIFICATION;
}

int main(int argc, char **argv) {
    CHECK(argc == 3);
    pgwake *handle = pgwake_new(NULL);
    int db = pgwake_connect(handle, argv[1], NULL);
    CHECK(pgwake_listen(handle, db, argv[2]) == PGWAKE_OK);
    take(handle, PGWAKE_EVENT_LISTENING);
    /* No timer of connecting is to make the descriptor readable later. */
    const pgwake_event *event;
    CHECK(pgwake_next(handle, 500, &event) == 0);

    pgwake *other = pgwake_new(NULL);
    pgwake_poll_options once = PGWAKE_POLL_OPTIONS_INIT;
    once.parameters = (const char *const *)&argv[2];
    once.parameters_len = 1;
    int sender = pgwake_connect(other, argv[1], NULL);
    CHECK(pgwake_poll(other, sender, "SELECT pg_notify($1, i::text) FROM generate_series(1, 100) i", &once) > 0);
    take(other, PGWAKE_EVENT_LISTENING);
    take(other, PGWAKE_EVENT_ROWS);
    pgwake_close(other);
    /* If not all of them are there by then, the rest would tell of itself, and nothing be tested. */
    usleep(100000);
    on_event(NULL, take(handle, PGWAKE_EVENT_NOTIFICATION));

    struct epoll_event ready;
    struct pgwake_epoll watch = {handle, on_event, NULL};
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    CHECK(pgwake_epoll_attach(&watch, epoll) == 0);
    while (taken < BURST) {
        CHECK(epoll_wait(epoll, &ready, 1, 20000) == 1);
        CHECK(pgwake_epoll_take(&watch) == 0);
    }
    pgwake_close(handle);
    puts("ok");
    return 0;
}
