/* pgwake beside the system's libpq, which this program uses, and so does a shared library: beside_libpq CONNINFO CHANNEL.
 * Each keeps its own libpq. */
#include "check.h"
#include <libpq-fe.h>

int shared_library_version(void);
int shared_library_notify(const char *conninfo, const char *sql);
#ifdef SECOND_RUST
int second_rust_library(int number);
#endif

int main(int argc, char **argv) {
    CHECK(argc == 3);
    char sql[256], own[32];
    pgwake *handle = pgwake_new(NULL);
    int db = pgwake_connect(handle, argv[1], NULL);
    CHECK(pgwake_listen(handle, db, argv[2]) == PGWAKE_OK);
    take(handle, PGWAKE_EVENT_LISTENING);

    PGconn *connection = PQconnectdb(argv[1]);
    CHECK(PQstatus(connection) == CONNECTION_OK);
    snprintf(sql, sizeof sql, "NOTIFY %s, 'from the program'", argv[2]);
    PGresult *result = PQexec(connection, sql);
    CHECK(PQresultStatus(result) == PGRES_COMMAND_OK);
    PQclear(result);
    PQfinish(connection);
    CHECK(!strcmp(take(handle, PGWAKE_EVENT_NOTIFICATION)->payload, "from the program"));

    snprintf(sql, sizeof sql, "NOTIFY %s, 'from the library'", argv[2]);
    CHECK(shared_library_notify(argv[1], sql));
    CHECK(!strcmp(take(handle, PGWAKE_EVENT_NOTIFICATION)->payload, "from the library"));

    snprintf(own, sizeof own, "%d.%d", PQlibVersion() / 10000, PQlibVersion() % 10000);
    CHECK(PQlibVersion() == shared_library_version());
    CHECK(strcmp(pgwake_libpq_version(), own)); /* the one inside is newer than Debian's */
#ifdef SECOND_RUST
    CHECK(second_rust_library(20) == 21 && second_rust_library(-1) == -1);
#endif
    pgwake_close(handle);
    printf("%s %s\n", own, pgwake_libpq_version());
    return 0;
}
