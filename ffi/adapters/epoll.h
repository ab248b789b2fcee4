/* pgwake on an epoll of your own, the kind in which each registration carries a pointer to what it belongs to.
 *
 *     struct pgwake_epoll db = {events, on_event, user};
 *     pgwake_epoll_attach(&db, epoll);
 *     …  for each ready entry whose data.ptr is &db:  pgwake_epoll_take(&db);
 *
 * Detach it, or close the epoll, before pgwake_close. From `on_event` any call may be made but pgwake_close. */
#ifndef PGWAKE_EPOLL_H
#define PGWAKE_EPOLL_H

#include <pgwake.h>
#include <sys/epoll.h>

struct pgwake_epoll {
    pgwake *handle;
    void (*on_event)(void *user, const pgwake_event *event);
    void *user;
};

/* Watches the handle, with `watch` as the registration's pointer. 0, or -1 and errno. Events that were left inside
 * before are taken, too. */
static inline int pgwake_epoll_attach(struct pgwake_epoll *watch, int epoll) {
    struct epoll_event interest;
    interest.events = EPOLLIN;
    interest.data.ptr = watch;
    pgwake_wake(watch->handle);
    return epoll_ctl(epoll, EPOLL_CTL_ADD, pgwake_fd(watch->handle), &interest);
}

static inline int pgwake_epoll_detach(struct pgwake_epoll *watch, int epoll) {
    return epoll_ctl(epoll, EPOLL_CTL_DEL, pgwake_fd(watch->handle), NULL);
}

/* Takes all events there are: call it when epoll_wait gives the registration. 0, or a PGWAKE_E_*. */
static inline int pgwake_epoll_take(struct pgwake_epoll *watch) {
    const pgwake_event *event;
    int status;
    while ((status = pgwake_next(watch->handle, 0, &event)) > 0) watch->on_event(watch->user, event);
    return status;
}

#endif
