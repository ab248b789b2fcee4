/* A fork in the middle: forked CONNINFO CHANNEL. The child is refused everything but close, may have a handle of its
 * own, and the parent's session goes on. */
#include "check.h"
#include <sys/wait.h>
#include <unistd.h>

static void child(pgwake *handle, int db, const char *conninfo) {
    const pgwake_event *event;
    REFUSED(pgwake_fd(handle), PGWAKE_E_FORKED, "fork");
    REFUSED(pgwake_timeout_ms(handle), PGWAKE_E_FORKED, "fork");
    REFUSED(pgwake_next(handle, -1, &event), PGWAKE_E_FORKED, "fork");
    REFUSED(pgwake_wake(handle), PGWAKE_E_FORKED, "fork");
    REFUSED(pgwake_connect(handle, conninfo, NULL), PGWAKE_E_FORKED, "fork");
    REFUSED(pgwake_disconnect(handle, db), PGWAKE_E_FORKED, "fork");
    REFUSED(pgwake_listen(handle, db, "a"), PGWAKE_E_FORKED, "fork");
    REFUSED(pgwake_unlisten(handle, db, "a"), PGWAKE_E_FORKED, "fork");
    REFUSED(pgwake_notify(handle, db, "a", "b", 1), PGWAKE_E_FORKED, "fork");
    REFUSED(pgwake_metrics_get(handle, db, NULL), PGWAKE_E_FORKED, "fork");
    pgwake_close(handle);
    pgwake_close(handle);

    pgwake *own = pgwake_new(NULL);
    CHECK(pgwake_connect(own, conninfo, NULL) >= 0);
    take(own, PGWAKE_EVENT_LISTENING);
    pgwake_close(own);
}

int main(int argc, char **argv) {
    CHECK(argc == 3);
    int status;
    pgwake *handle = pgwake_new(NULL);
    int db = pgwake_connect(handle, argv[1], NULL);
    CHECK(pgwake_listen(handle, db, argv[2]) == PGWAKE_OK);
    int backend_pid = take(handle, PGWAKE_EVENT_LISTENING)->backend_pid;

    pid_t pid = fork();
    if (pid == 0) {
        child(handle, db, argv[1]);
        exit(0);
    }
    CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);

    CHECK(pgwake_notify(handle, db, argv[2], "still here", 10) == PGWAKE_OK);
    const pgwake_event *event = take(handle, PGWAKE_EVENT_NOTIFICATION);
    CHECK(event->own && event->pid == backend_pid && !strcmp(event->payload, "still here"));
    pgwake_close(handle);
    puts("ok");
    return 0;
}
