/* pgwake alone: plain CONNINFO CHANNEL [COUNT] prints notifications, COUNT of them or for ever.
 *
 *     cc plain.c $(pkg-config --cflags --libs pgwake) -o plain
 */
#include <pgwake.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    if (argc < 3) return fprintf(stderr, "usage: %s CONNINFO CHANNEL [COUNT]\n", argv[0]), 2;
    long count = argc > 3 ? atol(argv[3]) : -1;
    pgwake *events = pgwake_new(NULL);
    int db = pgwake_connect(events, argv[1], NULL);
    int status = db < 0 ? db : pgwake_listen(events, db, argv[2]);
    const pgwake_event *event = NULL;
    while (status >= 0 && count != 0 && (status = pgwake_next(events, -1, &event)) > 0) {
        switch (event->type) {
        case PGWAKE_EVENT_LISTENING:
            printf("listening in %s\n", event->db);
            break;
        case PGWAKE_EVENT_NOTIFICATION:
            printf("%s: %s\n", event->channel, event->payload);
            count -= count > 0;
            break;
        case PGWAKE_EVENT_GAP:
            printf("look at everything afresh: %s\n", event->message);
            break;
        case PGWAKE_EVENT_DISCONNECTED:
            fprintf(stderr, "%s; again in %ld ms\n", event->message, (long)event->retry_in_ms);
            break;
        case PGWAKE_EVENT_FAILED:
            fprintf(stderr, "%s\n", event->message);
            pgwake_close(events);
            return 1;
        }
        fflush(stdout);
    }
    if (status < 0) fprintf(stderr, "%s\n", pgwake_error(events));
    pgwake_close(events);
    return status < 0;
}
