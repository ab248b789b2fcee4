/* pgwake on a libev loop.
 *
 *     struct pgwake_ev db = {events, on_event, user};
 *     pgwake_ev_attach(&db, EV_DEFAULT);
 *
 * Detach it before pgwake_close. From `on_event` any call may be made but pgwake_close. When the handle fails,
 * `on_event` is called with NULL, once. */
#ifndef PGWAKE_LIBEV_H
#define PGWAKE_LIBEV_H

#include <ev.h>
#include <pgwake.h>

struct pgwake_ev {
    pgwake *handle;
    void (*on_event)(void *user, const pgwake_event *event);
    void *user;
    struct ev_io io;
};

static inline void pgwake_ev_ready(struct ev_loop *loop, struct ev_io *io, int readiness) {
    struct pgwake_ev *watch = (struct pgwake_ev *)io->data;
    const pgwake_event *event = NULL;
    int status = 0;
    (void)readiness;
    while (ev_is_active(io) && (status = pgwake_next(watch->handle, 0, &event)) > 0)
        watch->on_event(watch->user, event);
    if (status < 0) {
        ev_io_stop(loop, io);
        watch->on_event(watch->user, NULL);
    }
}

/* Watches the handle. Events that were left inside before are taken, too. */
static inline void pgwake_ev_attach(struct pgwake_ev *watch, struct ev_loop *loop) {
    ev_init(&watch->io, pgwake_ev_ready);
    ev_io_set(&watch->io, pgwake_fd(watch->handle), EV_READ);
    watch->io.data = watch;
    pgwake_wake(watch->handle);
    ev_io_start(loop, &watch->io);
}

static inline void pgwake_ev_detach(struct pgwake_ev *watch, struct ev_loop *loop) {
    ev_io_stop(loop, &watch->io);
}

#endif
