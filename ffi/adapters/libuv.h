/* pgwake on a libuv loop.
 *
 *     struct pgwake_uv db = {events, on_event, user};
 *     pgwake_uv_attach(&db, loop);
 *
 * Before pgwake_close: pgwake_uv_detach, which stops the watch at once; its memory is libuv's until `closed` is called.
 * From `on_event` any call may be made but pgwake_close. When the handle fails, `on_event` is called with NULL, once. */
#ifndef PGWAKE_LIBUV_H
#define PGWAKE_LIBUV_H

#include <pgwake.h>
#include <uv.h>

struct pgwake_uv {
    pgwake *handle;
    void (*on_event)(void *user, const pgwake_event *event);
    void *user;
    uv_poll_t poll;
};

static inline void pgwake_uv_ready(uv_poll_t *poll, int problem, int readiness) {
    struct pgwake_uv *watch = (struct pgwake_uv *)poll->data;
    const pgwake_event *event = NULL;
    int status = 0;
    (void)problem, (void)readiness;
    while (uv_is_active((uv_handle_t *)poll) && (status = pgwake_next(watch->handle, 0, &event)) > 0)
        watch->on_event(watch->user, event);
    if (status < 0) {
        uv_poll_stop(poll);
        watch->on_event(watch->user, NULL);
    }
}

/* Watches the handle. 0, or libuv's error. Events that were left inside before are taken, too. */
static inline int pgwake_uv_attach(struct pgwake_uv *watch, uv_loop_t *loop) {
    int status = uv_poll_init(loop, &watch->poll, pgwake_fd(watch->handle));
    watch->poll.data = watch;
    pgwake_wake(watch->handle);
    return status ? status : uv_poll_start(&watch->poll, UV_READABLE, pgwake_uv_ready);
}

static inline void pgwake_uv_detach(struct pgwake_uv *watch, uv_close_cb closed) {
    uv_close((uv_handle_t *)&watch->poll, closed);
}

#endif
