/* What the C drivers share: a check that says where it failed, and the wait for an event of a kind. */
#ifndef CHECK_H
#define CHECK_H

#include <pgwake.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                          \
    do {                                                                                          \
        if (!(condition)) {                                                                       \
            fprintf(stderr, "%s:%d: this does not hold: %s\n", __FILE__, __LINE__, #condition); \
            exit(1);                                                                              \
        }                                                                                         \
    } while (0)

/* A call gives the status, and the handle's text holds the word. */
#define REFUSED(call, expected, word)                                                                             \
    do {                                                                                                          \
        int given = (call);                                                                                       \
        if (given != (expected) || !strstr(pgwake_error(handle), word)) {                                         \
            fprintf(stderr, "%s:%d: %s gave %s: %s\n", __FILE__, __LINE__, #call, pgwake_status_name(given),      \
                    pgwake_error(handle));                                                                        \
            exit(1);                                                                                              \
        }                                                                                                         \
    } while (0)

/* The next event, which must be of this type. */
static inline const pgwake_event *take(pgwake *handle, int type) {
    const pgwake_event *event = NULL;
    int status = pgwake_next(handle, 20000, &event);
    if (status != 1 || event->type != type) {
        fprintf(stderr, "an event of type %d was expected, but next gave %d, type %d, %s, %s\n", type, status,
                event ? event->type : 0, event && event->message ? event->message : "", pgwake_error(handle));
        exit(1);
    }
    return event;
}

#endif
