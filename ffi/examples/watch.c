/* Row changes: watch CONNINFO TABLE [COUNT] prints the changes of a table, COUNT of them or for ever. Each is
 * acknowledged when it is printed, so that the next run goes on behind it. The schema must be there: pgwake install.
 *
 *     cc watch.c $(pkg-config --cflags --libs pgwake) -o watch
 */
#include <pgwake.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *verb(int op) {
    if (op == PGWAKE_OP_INSERT) return "insert";
    if (op == PGWAKE_OP_UPDATE) return "update";
    return op == PGWAKE_OP_DELETE ? "delete" : "truncate";
}

static const char *shown(const char *json) {
    return json ? json : "-";
}

static int ended(pgwake *events, const char *message) {
    if (message) fprintf(stderr, "%s\n", message);
    pgwake_close(events);
    return message != NULL;
}

int main(int argc, char **argv) {
    if (argc < 3) return fprintf(stderr, "usage: %s CONNINFO TABLE [COUNT]\n", argv[0]), 2;
    long count = argc > 3 ? atol(argv[3]) : -1;
    const char *tables[] = {argv[2], NULL};
    pgwake_watch_options options = PGWAKE_WATCH_OPTIONS_INIT;
    options.payload = PGWAKE_PAYLOAD_ROW;
    options.consumer = "example";
    options.manual_ack = 1;
    pgwake *events = pgwake_new(NULL);
    int db = pgwake_connect(events, argv[1], NULL);
    int status = db < 0 ? db : pgwake_watch(events, db, tables, &options);
    const pgwake_event *event = NULL;
    uint64_t last = 0;
    while (status >= 0 && (status = pgwake_next(events, -1, &event)) > 0) {
        switch (event->type) {
        case PGWAKE_EVENT_LISTENING:
            if (event->channels_len) printf("watching in %s\n", event->db);
            break;
        case PGWAKE_EVENT_CHANGE:
            if (count == 0) break; /* not acknowledged: the next run has it */
            printf("%s %s %s\n", verb(event->op), shown(event->key), shown(event->new_row));
            count -= count > 0;
            last = event->id;
            status = pgwake_ack(events, db, last);
            break;
        case PGWAKE_EVENT_ACKNOWLEDGED:
            if (count == 0 && event->id == last) return ended(events, NULL);
            break;
        case PGWAKE_EVENT_DISCONNECTED:
            fprintf(stderr, "%s; again in %ld ms\n", event->message, (long)event->retry_in_ms);
            break;
        case PGWAKE_EVENT_COMMAND_FAILED:
            if (strcmp(event->sqlstate, "55006")) return ended(events, event->message);
            fprintf(stderr, "%s\n", event->message); /* another one reads as "example": this goes on after it */
            break;
        case PGWAKE_EVENT_FAILED:
            return ended(events, event->message);
        }
        fflush(stdout);
    }
    return ended(events, status < 0 ? pgwake_error(events) : NULL);
}
