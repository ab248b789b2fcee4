/* A shared library that uses the system's libpq, as a host may have without knowing. */
#include <libpq-fe.h>

int shared_library_version(void);
int shared_library_notify(const char *conninfo, const char *sql);

int shared_library_version(void) { return PQlibVersion(); }

int shared_library_notify(const char *conninfo, const char *sql) {
    PGconn *connection = PQconnectdb(conninfo);
    PGresult *result = PQexec(connection, sql);
    int done = PQresultStatus(result) == PGRES_COMMAND_OK;
    PQclear(result);
    PQfinish(connection);
    return done;
}
