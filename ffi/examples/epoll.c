/* pgwake on an epoll of your own: epoll CONNINFO CHANNEL [COUNT] prints notifications, COUNT of them or for ever.
 *
 *     cc epoll.c $(pkg-config --cflags --libs pgwake) -o epoll
 */
#include <pgwake/epoll.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static int failed;

static void on_event(void *user, const pgwake_event *event) {
    long *count = user;
    if (event->type == PGWAKE_EVENT_LISTENING) printf("listening in %s\n", event->db);
    if (event->type == PGWAKE_EVENT_GAP) printf("look at everything afresh: %s\n", event->message);
    if (event->type == PGWAKE_EVENT_NOTIFICATION) {
        printf("%s: %s\n", event->channel, event->payload);
        *count -= *count > 0;
    }
    if (event->type == PGWAKE_EVENT_FAILED) {
        fprintf(stderr, "%s\n", event->message);
        failed = 1;
    }
    fflush(stdout);
}

int main(int argc, char **argv) {
    if (argc < 3) return fprintf(stderr, "usage: %s CONNINFO CHANNEL [COUNT]\n", argv[0]), 2;
    long count = argc > 3 ? atol(argv[3]) : -1;
    pgwake *events = pgwake_new(NULL);
    int db = pgwake_connect(events, argv[1], NULL);
    int status = db < 0 ? db : pgwake_listen(events, db, argv[2]);

    /* What else your program watches goes into the same epoll. */
    struct epoll_event ready[8];
    struct pgwake_epoll watch = {events, on_event, &count};
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (status == PGWAKE_OK && pgwake_epoll_attach(&watch, epoll) < 0) status = PGWAKE_E_SYSTEM;
    while (status >= 0 && count != 0 && !failed) {
        int found = epoll_wait(epoll, ready, 8, -1);
        for (int i = 0; i < found && status >= 0; i++)
            if (ready[i].data.ptr == &watch) status = pgwake_epoll_take(&watch);
    }
    if (status < 0) fprintf(stderr, "%s\n", pgwake_error(events));
    close(epoll);
    pgwake_close(events);
    return status < 0 || failed;
}
