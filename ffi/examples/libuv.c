/* pgwake on libuv: libuv CONNINFO CHANNEL [COUNT] prints notifications, COUNT of them or for ever.
 *
 *     cc libuv.c $(pkg-config --cflags --libs pgwake libuv) -o libuv
 */
#include <pgwake/libuv.h>
#include <stdio.h>
#include <stdlib.h>

static long count = -1;
static int failed;

static void on_event(void *user, const pgwake_event *event) {
    struct pgwake_uv *watch = user;
    if (!event)
        fprintf(stderr, "%s\n", pgwake_error(watch->handle));
    else if (event->type == PGWAKE_EVENT_LISTENING)
        printf("listening in %s\n", event->db);
    else if (event->type == PGWAKE_EVENT_GAP)
        printf("look at everything afresh: %s\n", event->message);
    else if (event->type == PGWAKE_EVENT_NOTIFICATION)
        printf("%s: %s\n", event->channel, event->payload);
    else if (event->type == PGWAKE_EVENT_FAILED)
        fprintf(stderr, "%s\n", event->message);
    fflush(stdout);
    if (event && event->type == PGWAKE_EVENT_NOTIFICATION) count -= count > 0;
    failed = !event || event->type == PGWAKE_EVENT_FAILED;
    /* Without the watch nothing is left to wait for, and uv_run returns. */
    if ((count == 0 || failed) && !uv_is_closing((uv_handle_t *)&watch->poll)) pgwake_uv_detach(watch, NULL);
}

int main(int argc, char **argv) {
    if (argc < 3) return fprintf(stderr, "usage: %s CONNINFO CHANNEL [COUNT]\n", argv[0]), 2;
    if (argc > 3) count = atol(argv[3]);
    pgwake *events = pgwake_new(NULL);
    int db = pgwake_connect(events, argv[1], NULL);
    if (db < 0 || pgwake_listen(events, db, argv[2]) < 0) {
        fprintf(stderr, "%s\n", pgwake_error(events));
        pgwake_close(events);
        return 1;
    }
    struct pgwake_uv watch = {events, on_event, &watch, {0}};
    pgwake_uv_attach(&watch, uv_default_loop());
    uv_run(uv_default_loop(), UV_RUN_DEFAULT);
    pgwake_close(events);
    return uv_loop_close(uv_default_loop()) != 0 || failed;
}
