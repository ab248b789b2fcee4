/* A panic inside the packed archive becomes a status and a dead handle; others go on: panic CONNINFO CHANNEL. Linked
 * with an archive that exports one function more than the one that is shipped. */
#include "check.h"

int pgwake_test_panic(pgwake *handle);

int main(int argc, char **argv) {
    CHECK(argc == 3);
    const pgwake_event *event = NULL;
    pgwake *handle = pgwake_new(NULL), *other = pgwake_new(NULL);
    int db = pgwake_connect(handle, argv[1], NULL);
    CHECK(pgwake_listen(handle, db, argv[2]) == PGWAKE_OK);
    take(handle, PGWAKE_EVENT_LISTENING);

    REFUSED(pgwake_test_panic(handle), PGWAKE_E_PANIC, "as if there were a bug");
    REFUSED(pgwake_next(handle, -1, &event), PGWAKE_E_PANIC, "as if there were a bug");
    REFUSED(pgwake_fd(handle), PGWAKE_E_PANIC, "dead");
    REFUSED(pgwake_timeout_ms(handle), PGWAKE_E_PANIC, "dead");
    REFUSED(pgwake_wake(handle), PGWAKE_E_PANIC, "dead");
    REFUSED(pgwake_connect(handle, argv[1], NULL), PGWAKE_E_PANIC, "dead");
    REFUSED(pgwake_disconnect(handle, db), PGWAKE_E_PANIC, "dead");
    REFUSED(pgwake_listen(handle, db, "a"), PGWAKE_E_PANIC, "dead");
    REFUSED(pgwake_unlisten(handle, db, "a"), PGWAKE_E_PANIC, "dead");
    REFUSED(pgwake_notify(handle, db, "a", "b", 1), PGWAKE_E_PANIC, "dead");
    REFUSED(pgwake_metrics_get(handle, db, NULL), PGWAKE_E_PANIC, "dead");
    REFUSED(pgwake_test_panic(handle), PGWAKE_E_PANIC, "dead");
    pgwake_close(handle);
    REFUSED(pgwake_fd(handle), PGWAKE_E_INVALID, "closed");

    CHECK(pgwake_connect(other, argv[1], NULL) >= 0);
    take(other, PGWAKE_EVENT_LISTENING);
    pgwake_close(other);
    puts("ok");
    return 0;
}
