/* Every function with what it must refuse: a status and a text, never a crash. Needs no server. */
#include "check.h"
#include <sys/resource.h>

static const char *const tables[] = {"orders", NULL}, *const none[] = {NULL};
static const char *const not_utf8[] = {"orders", "caf\xe9", NULL};

static void null_handle(void) {
    pgwake *handle = NULL;
    const pgwake_event *event = (const pgwake_event *)1;
    pgwake_close(NULL);
    REFUSED(pgwake_fd(NULL), PGWAKE_E_INVALID, "NULL");
    REFUSED(pgwake_timeout_ms(NULL), PGWAKE_E_INVALID, "NULL");
    REFUSED(pgwake_next(NULL, 0, &event), PGWAKE_E_INVALID, "NULL");
    CHECK(event == NULL);
    REFUSED(pgwake_next(NULL, 0, NULL), PGWAKE_E_INVALID, "NULL");
    REFUSED(pgwake_wake(NULL), PGWAKE_E_INVALID, "NULL");
    REFUSED(pgwake_connect(NULL, "", NULL), PGWAKE_E_INVALID, "NULL");
    REFUSED(pgwake_disconnect(NULL, 0), PGWAKE_E_INVALID, "NULL");
    REFUSED(pgwake_listen(NULL, 0, "a"), PGWAKE_E_INVALID, "NULL");
    REFUSED(pgwake_unlisten(NULL, 0, "a"), PGWAKE_E_INVALID, "NULL");
    REFUSED(pgwake_notify(NULL, 0, "a", "b", 1), PGWAKE_E_INVALID, "NULL");
    REFUSED(pgwake_publish(NULL, 0, "a", "b", 1), PGWAKE_E_INVALID, "NULL");
    REFUSED(pgwake_watch(NULL, 0, tables, NULL), PGWAKE_E_INVALID, "NULL");
    REFUSED(pgwake_watch_ddl(NULL, 0, NULL), PGWAKE_E_INVALID, "NULL");
    REFUSED(pgwake_stream(NULL, "", NULL), PGWAKE_E_INVALID, "NULL");
    REFUSED(pgwake_subscribe(NULL, "", tables, NULL), PGWAKE_E_INVALID, "NULL");
    REFUSED(pgwake_ack(NULL, 0, 1), PGWAKE_E_INVALID, "NULL");
    REFUSED(pgwake_every(NULL, 1), PGWAKE_E_INVALID, "NULL");
    REFUSED(pgwake_cron(NULL, "@daily", NULL), PGWAKE_E_INVALID, "NULL");
    REFUSED(pgwake_cancel(NULL, 1), PGWAKE_E_INVALID, "NULL");
    REFUSED(pgwake_is_under_way(NULL, 1), PGWAKE_E_INVALID, "NULL");
    REFUSED(pgwake_finish(NULL, 1, NULL), PGWAKE_E_INVALID, "NULL");
    REFUSED(pgwake_metrics_get(NULL, 0, NULL), PGWAKE_E_INVALID, "NULL");
}

static void null_arguments(pgwake *handle, int session) {
    REFUSED(pgwake_next(handle, 0, NULL), PGWAKE_E_INVALID, "NULL");
    REFUSED(pgwake_connect(handle, NULL, NULL), PGWAKE_E_INVALID, "conninfo is NULL");
    REFUSED(pgwake_listen(handle, session, NULL), PGWAKE_E_INVALID, "channel is NULL");
    REFUSED(pgwake_unlisten(handle, session, NULL), PGWAKE_E_INVALID, "channel is NULL");
    REFUSED(pgwake_notify(handle, session, NULL, "a", 1), PGWAKE_E_INVALID, "channel is NULL");
    REFUSED(pgwake_notify(handle, session, "a", NULL, 1), PGWAKE_E_INVALID, "payload is NULL");
    REFUSED(pgwake_publish(handle, session, NULL, "a", 1), PGWAKE_E_INVALID, "channel is NULL");
    REFUSED(pgwake_publish(handle, session, "a", NULL, 1), PGWAKE_E_INVALID, "payload is NULL");
    REFUSED(pgwake_publish(handle, session, "a", "b", (size_t)-1), PGWAKE_E_INVALID, "negative");
    REFUSED(pgwake_watch(handle, session, NULL, NULL), PGWAKE_E_INVALID, "name a table");
    REFUSED(pgwake_stream(handle, NULL, NULL), PGWAKE_E_INVALID, "conninfo is NULL");
    REFUSED(pgwake_every(handle, 0), PGWAKE_E_INVALID, "millisecond");
    REFUSED(pgwake_cron(handle, NULL, NULL), PGWAKE_E_INVALID, "expression is NULL");
    REFUSED(pgwake_cancel(handle, -1), PGWAKE_E_UNKNOWN_TASK, "no such poll or schedule");
    REFUSED(pgwake_finish(handle, 1, "caf\xe9"), PGWAKE_E_INVALID, "UTF-8");
    REFUSED(pgwake_subscribe(handle, NULL, tables, NULL), PGWAKE_E_INVALID, "conninfo is NULL");
    REFUSED(pgwake_subscribe(handle, "", NULL, NULL), PGWAKE_E_INVALID, "name a channel");
    REFUSED(pgwake_metrics_get(handle, session, NULL), PGWAKE_E_INVALID, "metrics");
    CHECK(pgwake_notify(handle, session, "a", NULL, 0) == PGWAKE_OK);
}

static void unknown_sessions(pgwake *handle) {
    pgwake_metrics metrics = PGWAKE_METRICS_INIT;
    const int unknown[] = {-1, -2, 7, 0x10000, 0x7fffffff, -0x7fffffff - 1};
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        REFUSED(pgwake_disconnect(handle, unknown[i]), PGWAKE_E_UNKNOWN_SESSION, "no such session");
        REFUSED(pgwake_metrics_get(handle, unknown[i], &metrics), PGWAKE_E_UNKNOWN_SESSION, "no such session");
        REFUSED(pgwake_listen(handle, unknown[i], "a"), PGWAKE_E_UNKNOWN_SESSION, "no such session");
        REFUSED(pgwake_unlisten(handle, unknown[i], "a"), PGWAKE_E_UNKNOWN_SESSION, "no such session");
        REFUSED(pgwake_notify(handle, unknown[i], "a", "b", 1), PGWAKE_E_UNKNOWN_SESSION, "no such session");
        REFUSED(pgwake_watch(handle, unknown[i], tables, NULL), PGWAKE_E_UNKNOWN_SESSION, "no such session");
        REFUSED(pgwake_watch_ddl(handle, unknown[i], NULL), PGWAKE_E_UNKNOWN_SESSION, "no such session");
        REFUSED(pgwake_ack(handle, unknown[i], 1), PGWAKE_E_UNKNOWN_SESSION, "no such session");
    }
}

static void bad_text(pgwake *handle, int session) {
    static char payload[8000], channel[65];
    memset(payload, 'x', sizeof payload);
    memset(channel, 'x', 64);
    REFUSED(pgwake_connect(handle, "dbname=\xff", NULL), PGWAKE_E_INVALID, "not UTF-8");
    REFUSED(pgwake_connect(handle, "nonsense", NULL), PGWAKE_E_INVALID, "");
    REFUSED(pgwake_connect(handle, "password=hunter2 nonsense", NULL), PGWAKE_E_INVALID, "");
    CHECK(!strstr(pgwake_error(handle), "hunter2"));
    REFUSED(pgwake_listen(handle, session, channel), PGWAKE_E_INVALID, "64 bytes");
    REFUSED(pgwake_listen(handle, session, ""), PGWAKE_E_INVALID, "empty");
    REFUSED(pgwake_unlisten(handle, session, channel), PGWAKE_E_INVALID, "64 bytes");
    REFUSED(pgwake_notify(handle, session, channel, "a", 1), PGWAKE_E_INVALID, "64 bytes");
    REFUSED(pgwake_notify(handle, session, "a", payload, sizeof payload), PGWAKE_E_INVALID, "8000 bytes");
    REFUSED(pgwake_notify(handle, session, "a", "b\0c", 3), PGWAKE_E_INVALID, "NUL");
    REFUSED(pgwake_notify(handle, session, "a", "b", (size_t)-1), PGWAKE_E_INVALID, "negative");
    CHECK(pgwake_listen(handle, session, "caf\xe9") == PGWAKE_OK);
    CHECK(pgwake_listen(handle, session, channel + 1) == PGWAKE_OK);
}

/* Each is refused before anything is watched, so that the session may still watch. */
static void bad_watches(pgwake *handle, int session) {
    pgwake_watch_options wrong = PGWAKE_WATCH_OPTIONS_INIT;
    REFUSED(pgwake_ack(handle, session, 1), PGWAKE_E_INVALID, "watches no table");
    REFUSED(pgwake_watch(handle, session, none, &wrong), PGWAKE_E_INVALID, "name a table");
    REFUSED(pgwake_watch(handle, session, not_utf8, &wrong), PGWAKE_E_INVALID, "tables is not UTF-8");
    wrong.columns = not_utf8;
    REFUSED(pgwake_watch(handle, session, tables, &wrong), PGWAKE_E_INVALID, "columns is not UTF-8");
    wrong.columns = none;
    wrong.consumer = "\xff";
    REFUSED(pgwake_watch(handle, session, tables, &wrong), PGWAKE_E_INVALID, "consumer is not UTF-8");
    wrong.consumer = "";
    REFUSED(pgwake_watch(handle, session, tables, &wrong), PGWAKE_E_INVALID, "empty");
    wrong.consumer = NULL;
    wrong.ops = 16;
    REFUSED(pgwake_watch(handle, session, tables, &wrong), PGWAKE_E_INVALID, "ops is 16");
    wrong.ops = 0x80000001;
    REFUSED(pgwake_watch(handle, session, tables, &wrong), PGWAKE_E_INVALID, "PGWAKE_OP_");
    wrong.ops = 0;
    for (int i = 0; i < 2; i++) {
        wrong.payload = i ? -1 : 4;
        REFUSED(pgwake_watch(handle, session, tables, &wrong), PGWAKE_E_INVALID, i ? "payload is -1" : "payload is 4");
        wrong.payload = 0;
        wrong.transport = i ? INT32_MIN : 3;
        REFUSED(pgwake_watch(handle, session, tables, &wrong), PGWAKE_E_INVALID, "PGWAKE_TRANSPORT_");
        wrong.transport = PGWAKE_TRANSPORT_WAL;
        REFUSED(pgwake_watch(handle, session, tables, &wrong), PGWAKE_E_INVALID,
                "the transport wal");
        wrong.transport = 0;
    }
    wrong.reserved = 1;
    REFUSED(pgwake_watch(handle, session, tables, &wrong), PGWAKE_E_INVALID, "reserved");
    wrong.reserved = 0;
    wrong.reserved_2 = 1;
    REFUSED(pgwake_watch(handle, session, tables, &wrong), PGWAKE_E_INVALID, "reserved");

    pgwake_ddl_options ddl = PGWAKE_DDL_OPTIONS_INIT;
    ddl.tags = not_utf8;
    REFUSED(pgwake_watch_ddl(handle, session, &ddl), PGWAKE_E_INVALID, "tags is not UTF-8");
    ddl.tags = none;
    ddl.reserved = -1;
    REFUSED(pgwake_watch_ddl(handle, session, &ddl), PGWAKE_E_INVALID, "reserved");
    ddl.reserved = 0;
    ddl.phases = 4;
    REFUSED(pgwake_watch_ddl(handle, session, &ddl), PGWAKE_E_INVALID, "phases");
    ddl.phases = 0;
    CHECK(pgwake_watch(handle, session, tables, NULL) == PGWAKE_OK);
    CHECK(pgwake_watch_ddl(handle, session, &ddl) == PGWAKE_OK);
    REFUSED(pgwake_watch(handle, session, tables, NULL), PGWAKE_E_INVALID, "watches already");
    REFUSED(pgwake_watch_ddl(handle, session, NULL), PGWAKE_E_INVALID, "already");
    REFUSED(pgwake_ack(handle, session, 1), PGWAKE_E_INVALID, "by itself");
}

/* What a stream cannot be: refused before anything is connected. */
static void bad_streams(pgwake *handle) {
    pgwake_stream_options wrong = PGWAKE_STREAM_OPTIONS_INIT;
    const char *const nowhere = "host=/nonexistent";
    REFUSED(pgwake_stream(handle, "nonsense", &wrong), PGWAKE_E_INVALID, "");
    wrong.tables = not_utf8;
    REFUSED(pgwake_stream(handle, nowhere, &wrong), PGWAKE_E_INVALID, "tables is not UTF-8");
    wrong.tables = tables;
    wrong.publications = not_utf8;
    REFUSED(pgwake_stream(handle, nowhere, &wrong), PGWAKE_E_INVALID, "publications is not UTF-8");
    wrong.publications = none;
    wrong.slot = "\xff";
    REFUSED(pgwake_stream(handle, nowhere, &wrong), PGWAKE_E_INVALID, "slot is not UTF-8");
    wrong.slot = NULL;
    wrong.streaming = 3;
    REFUSED(pgwake_stream(handle, nowhere, &wrong), PGWAKE_E_INVALID, "streaming is 3");
    wrong.streaming = 0;
    wrong.origin = -1;
    REFUSED(pgwake_stream(handle, nowhere, &wrong), PGWAKE_E_INVALID, "origin is -1");
    wrong.origin = 0;
    wrong.reserved = 1;
    REFUSED(pgwake_stream(handle, nowhere, &wrong), PGWAKE_E_INVALID, "reserved");
    wrong.reserved = 0;
    wrong.reserved_2 = tables;
    REFUSED(pgwake_stream(handle, nowhere, &wrong), PGWAKE_E_INVALID, "reserved");
    wrong.reserved_2 = NULL;
    struct {
        pgwake_stream_options known;
        uint64_t unknown;
    } newer = {PGWAKE_STREAM_OPTIONS_INIT, 1};
    newer.known.struct_size = sizeof newer;
    REFUSED(pgwake_stream(handle, nowhere, &newer.known), PGWAKE_E_INVALID, "newer");
    const uint32_t impossible[] = {0, 4, 12, 101, 8192, 0xffffffff};
    for (size_t i = 0; i < sizeof impossible / sizeof *impossible; i++) {
        wrong.struct_size = impossible[i];
        REFUSED(pgwake_stream(handle, nowhere, &wrong), PGWAKE_E_INVALID, "struct_size");
    }
}

/* What a poll cannot be, and values of no rows. */
static void bad_polls(pgwake *handle) {
    const char *value = NULL;
    size_t len = 0;
    int session = pgwake_connect(handle, "host=/nonexistent", NULL);
    pgwake_poll_options wrong = PGWAKE_POLL_OPTIONS_INIT;
    REFUSED(pgwake_poll(handle, session, NULL, NULL), PGWAKE_E_INVALID, "sql is NULL");
    REFUSED(pgwake_poll(handle, session, "\xff", NULL), PGWAKE_E_INVALID, "sql is not UTF-8");
    REFUSED(pgwake_poll(handle, session, "", NULL), PGWAKE_E_INVALID, "not empty");
    REFUSED(pgwake_poll(handle, 12345, "SELECT 1", NULL), PGWAKE_E_UNKNOWN_SESSION, "no such session");
    wrong.every_ms = -1;
    REFUSED(pgwake_poll(handle, session, "SELECT 1", &wrong), PGWAKE_E_INVALID, "1 ms at least");
    wrong.every_ms = 0;
    wrong.parameters_len = 1;
    REFUSED(pgwake_poll(handle, session, "SELECT 1", &wrong), PGWAKE_E_INVALID, "parameters is NULL");
    wrong.parameters_len = 0;
    wrong.cursor = "\xff";
    REFUSED(pgwake_poll(handle, session, "SELECT 1", &wrong), PGWAKE_E_INVALID, "cursor is not UTF-8");
    wrong.cursor = NULL;
    wrong.reserved = 1;
    REFUSED(pgwake_poll(handle, session, "SELECT 1", &wrong), PGWAKE_E_INVALID, "reserved");
    wrong.reserved = 0;
    wrong.struct_size = 12;
    REFUSED(pgwake_poll(handle, session, "SELECT 1", &wrong), PGWAKE_E_INVALID, "struct_size");
    REFUSED(pgwake_value(handle, 0, 0, &value, &len), PGWAKE_E_INVALID, "no PGWAKE_EVENT_ROWS");
    REFUSED(pgwake_column(handle, NULL), PGWAKE_E_INVALID, "name is NULL");
    REFUSED(pgwake_column(handle, "a"), PGWAKE_E_INVALID, "no PGWAKE_EVENT_ROWS");
    CHECK(pgwake_disconnect(handle, session) == PGWAKE_OK);
}

/* The same for what is watched: here a size could end within a pointer, too. */
static void watches_of_other_versions(pgwake *handle) {
    int sessions[4];
    for (int i = 0; i < 4; i++) CHECK((sessions[i] = pgwake_connect(handle, "host=/nonexistent", NULL)) >= 0);
    struct {
        pgwake_watch_options known;
        const char *unknown;
    } newer = {PGWAKE_WATCH_OPTIONS_INIT, "asked for"};
    newer.known.struct_size = sizeof newer;
    REFUSED(pgwake_watch(handle, sessions[0], tables, &newer.known), PGWAKE_E_INVALID, "newer");
    newer.unknown = NULL;
    CHECK(pgwake_watch(handle, sessions[0], tables, &newer.known) == PGWAKE_OK);

    struct {
        pgwake_ddl_options known;
        uint64_t unknown;
    } newer_ddl = {PGWAKE_DDL_OPTIONS_INIT, 1};
    newer_ddl.known.struct_size = sizeof newer_ddl;
    REFUSED(pgwake_watch_ddl(handle, sessions[0], &newer_ddl.known), PGWAKE_E_INVALID, "newer");
    newer_ddl.unknown = 0;
    CHECK(pgwake_watch_ddl(handle, sessions[0], &newer_ddl.known) == PGWAKE_OK);

    /* Behind an older struct lies what must not be followed. */
    const char *const nowhere = (const char *)16;
    pgwake_watch_options older = {0, PGWAKE_OP_INSERT, 0, 0, nowhere, &nowhere, 77, 77, 77, 77, 77, 77, 77};
    const uint32_t impossible[] = {0, 1, 4, offsetof(pgwake_watch_options, consumer) + 4, 57, 8192, 0xffffffff};
    for (size_t i = 0; i < sizeof impossible / sizeof *impossible; i++) {
        older.struct_size = impossible[i];
        REFUSED(pgwake_watch(handle, sessions[1], tables, &older), PGWAKE_E_INVALID, "struct_size");
    }
    older.struct_size = offsetof(pgwake_watch_options, consumer);
    CHECK(pgwake_watch(handle, sessions[1], tables, &older) == PGWAKE_OK);
    older.consumer = "billing";
    older.struct_size = offsetof(pgwake_watch_options, columns);
    CHECK(pgwake_watch(handle, sessions[2], tables, &older) == PGWAKE_OK);
    pgwake_ddl_options older_ddl = {offsetof(pgwake_ddl_options, tags), 0, 0, 0, &nowhere, 77, 77};
    CHECK(pgwake_watch_ddl(handle, sessions[3], &older_ddl) == PGWAKE_OK);
    for (int i = 0; i < 4; i++) CHECK(pgwake_disconnect(handle, sessions[i]) == PGWAKE_OK);
}

/* Structs of other versions: shorter ones lack fields, longer ones may not ask for what is unknown here. */
static void versions(pgwake *handle) {
    struct {
        pgwake_session_options known;
        uint64_t unknown;
    } newer = {PGWAKE_SESSION_OPTIONS_INIT, 0};
    newer.known.struct_size = sizeof newer;
    CHECK(pgwake_connect(handle, "host=/nonexistent", &newer.known) >= 0);
    newer.unknown = 1;
    REFUSED(pgwake_connect(handle, "host=/nonexistent", &newer.known), PGWAKE_E_INVALID, "newer");

    pgwake_session_options older = {sizeof(uint32_t) * 2, PGWAKE_OVERFLOW_COALESCE, 0, 77, 77, 77, 77};
    CHECK(pgwake_connect(handle, "host=/nonexistent", &older) >= 0);
    older.struct_size = offsetof(pgwake_session_options, heartbeat_ms) + 4;
    REFUSED(pgwake_connect(handle, "host=/nonexistent", &older), PGWAKE_E_INVALID, "struct_size");

    pgwake_session_options wrong = PGWAKE_SESSION_OPTIONS_INIT;
    wrong.struct_size = 0;
    REFUSED(pgwake_connect(handle, "", &wrong), PGWAKE_E_INVALID, "struct_size");
    wrong.struct_size = 0xffffffff;
    REFUSED(pgwake_connect(handle, "", &wrong), PGWAKE_E_INVALID, "struct_size");
    wrong.struct_size = sizeof wrong;
    wrong.overflow = 99;
    REFUSED(pgwake_connect(handle, "", &wrong), PGWAKE_E_INVALID, "99");
    wrong.overflow = PGWAKE_OVERFLOW_DROP_OLDEST;
    REFUSED(pgwake_connect(handle, "", &wrong), PGWAKE_E_INVALID, "overflow_max");
    wrong.overflow = PGWAKE_OVERFLOW_BLOCK;
    wrong.reserved = 1;
    REFUSED(pgwake_connect(handle, "", &wrong), PGWAKE_E_INVALID, "reserved");
    wrong.reserved = 0;
    wrong.heartbeat_ms = INT64_MIN;
    CHECK(pgwake_connect(handle, "host=/nonexistent", &wrong) >= 0);
    wrong.heartbeat_ms = INT64_MAX;
    CHECK(pgwake_connect(handle, "host=/nonexistent", &wrong) >= 0);
}

/* A struct to be filled is filled as far as it goes, and what the library does not know becomes zero. */
static void metrics_of_other_versions(pgwake *handle, int session) {
    struct {
        pgwake_metrics known;
        uint64_t unknown;
    } newer = {PGWAKE_METRICS_INIT, 77};
    newer.known.struct_size = sizeof newer;
    CHECK(pgwake_metrics_get(handle, session, &newer.known) == PGWAKE_OK);
    CHECK(newer.unknown == 0 && newer.known.struct_size == sizeof newer);
    pgwake_metrics older = PGWAKE_METRICS_INIT;
    older.struct_size = offsetof(pgwake_metrics, bytes);
    older.bytes = 77;
    CHECK(pgwake_metrics_get(handle, session, &older) == PGWAKE_OK && older.bytes == 77);
    older.struct_size = 0;
    REFUSED(pgwake_metrics_get(handle, session, &older), PGWAKE_E_INVALID, "struct_size");
    older.struct_size = 1 << 30;
    REFUSED(pgwake_metrics_get(handle, session, &older), PGWAKE_E_INVALID, "struct_size");
}

/* A handle that could not be made is a handle all the same, and keeps its reason. */
static void unusable(void) {
    pgwake_options wrong = PGWAKE_OPTIONS_INIT;
    const pgwake_event *event;
    wrong.struct_size = 1;
    pgwake *handle = pgwake_new(&wrong);
    CHECK(handle);
    REFUSED(pgwake_fd(handle), PGWAKE_E_INVALID, "struct_size");
    REFUSED(pgwake_next(handle, -1, &event), PGWAKE_E_INVALID, "struct_size");
    REFUSED(pgwake_connect(handle, "", NULL), PGWAKE_E_INVALID, "struct_size");
    REFUSED(pgwake_wake(handle), PGWAKE_E_INVALID, "struct_size");
    pgwake_close(handle);
    wrong.struct_size = sizeof wrong;
    wrong.spin_adaptive_permille = 1001;
    handle = pgwake_new(&wrong);
    REFUSED(pgwake_fd(handle), PGWAKE_E_INVALID, "spin_adaptive_permille");
    pgwake_close(handle);

    struct rlimit usual, none;
    CHECK(getrlimit(RLIMIT_NOFILE, &usual) == 0);
    none = usual;
    none.rlim_cur = 3;
    CHECK(setrlimit(RLIMIT_NOFILE, &none) == 0);
    handle = pgwake_new(NULL);
    CHECK(setrlimit(RLIMIT_NOFILE, &usual) == 0);
    REFUSED(pgwake_fd(handle), PGWAKE_E_SYSTEM, "ulimit -n");
    pgwake_close(handle);
}

static void closed(pgwake *handle) {
    const pgwake_event *event;
    pgwake_metrics metrics = PGWAKE_METRICS_INIT;
    pgwake_close(handle);
    pgwake_close(handle);
    REFUSED(pgwake_fd(handle), PGWAKE_E_INVALID, "closed");
    REFUSED(pgwake_timeout_ms(handle), PGWAKE_E_INVALID, "closed");
    REFUSED(pgwake_next(handle, -1, &event), PGWAKE_E_INVALID, "closed");
    REFUSED(pgwake_wake(handle), PGWAKE_E_INVALID, "closed");
    REFUSED(pgwake_connect(handle, "", NULL), PGWAKE_E_INVALID, "closed");
    REFUSED(pgwake_disconnect(handle, 0), PGWAKE_E_INVALID, "closed");
    REFUSED(pgwake_listen(handle, 0, "a"), PGWAKE_E_INVALID, "closed");
    REFUSED(pgwake_unlisten(handle, 0, "a"), PGWAKE_E_INVALID, "closed");
    REFUSED(pgwake_notify(handle, 0, "a", "b", 1), PGWAKE_E_INVALID, "closed");
    REFUSED(pgwake_publish(handle, 0, "a", "b", 1), PGWAKE_E_INVALID, "closed");
    REFUSED(pgwake_watch(handle, 0, tables, NULL), PGWAKE_E_INVALID, "closed");
    REFUSED(pgwake_watch_ddl(handle, 0, NULL), PGWAKE_E_INVALID, "closed");
    REFUSED(pgwake_stream(handle, "", NULL), PGWAKE_E_INVALID, "closed");
    REFUSED(pgwake_subscribe(handle, "", tables, NULL), PGWAKE_E_INVALID, "closed");
    REFUSED(pgwake_ack(handle, 0, 1), PGWAKE_E_INVALID, "closed");
    REFUSED(pgwake_metrics_get(handle, 0, &metrics), PGWAKE_E_INVALID, "closed");
}

int main(void) {
    const pgwake_event *event;
    pgwake *handle = pgwake_new(NULL);
    CHECK(handle && *pgwake_error(handle) == '\0');
    CHECK(pgwake_timeout_ms(handle) == -1 && pgwake_fd(handle) >= 0);
    CHECK(pgwake_next(handle, 0, &event) == 0 && !event);
    int session = pgwake_connect(handle, "host=/nonexistent", NULL);
    CHECK(session >= 0);

    const char *text = pgwake_error(handle);
    null_handle();
    null_arguments(handle, session);
    unknown_sessions(handle);
    bad_text(handle, session);
    bad_watches(handle, session);
    versions(handle);
    watches_of_other_versions(handle);
    bad_streams(handle);
    bad_polls(handle);
    metrics_of_other_versions(handle, session);
    unusable();
    CHECK(pgwake_error(handle) == text);

    CHECK(pgwake_disconnect(handle, session) == PGWAKE_OK);
    REFUSED(pgwake_disconnect(handle, session), PGWAKE_E_UNKNOWN_SESSION, "no such session");
    closed(handle);

    CHECK(!strcmp(pgwake_status_name(PGWAKE_E_FORKED), "PGWAKE_E_FORKED"));
    CHECK(!strcmp(pgwake_status_name(PGWAKE_OK), "PGWAKE_OK"));
    CHECK(pgwake_status_name(12345) && pgwake_status_name(-12345));
    pgwake_set_log(NULL, NULL, -99);
    puts("ok");
    return 0;
}
