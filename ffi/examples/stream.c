/* Row changes from the log: stream CONNINFO TABLE [COUNT] prints the changes of a table, by whole transactions, until
 * there were COUNT of them or for ever. Each transaction is acknowledged when it is printed, so that the next run goes
 * on behind it. The server needs wal_level = logical. It keeps its log for the slot "example" until it is dropped:
 * SELECT pg_drop_replication_slot('example').
 *
 *     cc stream.c $(pkg-config --cflags --libs pgwake) -o stream
 */
#include <pgwake.h>
#include <stdio.h>
#include <stdlib.h>

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
    pgwake_stream_options options = PGWAKE_STREAM_OPTIONS_INIT;
    options.tables = tables;
    options.slot = "example";
    options.create_slot = 1;
    options.transactions = 1;
    options.manual_ack = 1;
    pgwake *events = pgwake_new(NULL);
    int db = pgwake_stream(events, argv[1], &options), status = db;
    const pgwake_event *event = NULL;
    while (status >= 0 && (status = pgwake_next(events, -1, &event)) > 0) {
        switch (event->type) {
        case PGWAKE_EVENT_LISTENING:
            printf("streaming from %s\n", event->db);
            break;
        case PGWAKE_EVENT_CHANGE:
            printf("%s %s %s\n", verb(event->op), shown(event->key), shown(event->new_row));
            count -= count > 0;
            break;
        case PGWAKE_EVENT_COMMIT: /* all of it is printed */
            status = pgwake_ack(events, db, event->lsn);
            if (count == 0 && status == PGWAKE_OK) return ended(events, NULL);
            break;
        case PGWAKE_EVENT_DISCONNECTED:
            fprintf(stderr, "%s; again in %ld ms\n", event->message, (long)event->retry_in_ms);
            break;
        case PGWAKE_EVENT_FAILED:
            return ended(events, event->message);
        }
        fflush(stdout);
    }
    return ended(events, status < 0 ? pgwake_error(events) : NULL);
}
