/* Every function at its work, and every event: every_function CONNINFO CHANNEL LOG, in a database with the schema
 * `pgwake` and the tables orders, notified (id int PRIMARY KEY, note text), woken (id int), earlier (id int PRIMARY
 * KEY); LOG is another one, whose log can be read, with orders and a row in it. Prints "sql STATEMENT" for what
 * somebody else is to run, and "log STATEMENT" for the other database. */
#include "check.h"

static char last_message[512];

static void keep(void *user, int level, const char *text) {
    CHECK(level >= PGWAKE_LOG_ERROR && level <= PGWAKE_LOG_TRACE);
    ++*(int *)user;
    snprintf(last_message, sizeof last_message, "%s", text);
    pgwake_set_log(NULL, NULL, 0); /* does nothing from here */
}

static void sql(const char *statement) {
    printf("sql %s\n", statement);
    fflush(stdout);
}

static void log_sql(const char *statement) {
    printf("log %s\n", statement);
    fflush(stdout);
}

static void strings_end_with_a_nul(const pgwake_event *event) {
    CHECK(event->struct_size == sizeof *event);
    CHECK(!event->channel || strlen(event->channel) == event->channel_len);
    CHECK(!event->payload || !event->payload[event->payload_len]);
    /* The bytes of a message may be any. */
    CHECK(!event->payload || event->type == PGWAKE_EVENT_MESSAGE || strlen(event->payload) == event->payload_len);
    CHECK(!event->db || strlen(event->db) == event->db_len);
    CHECK(!event->host || strlen(event->host) == event->host_len);
    CHECK(!event->server_version || strlen(event->server_version) == event->server_version_len);
    CHECK(!event->message || strlen(event->message) == event->message_len);
    CHECK(!event->command || strlen(event->command) == event->command_len);
    CHECK(!event->channels || !event->channels[event->channels_len]);
    CHECK(!event->schema || strlen(event->schema) == event->schema_len);
    CHECK(!event->table || strlen(event->table) == event->table_len);
    CHECK(!event->partition || strlen(event->partition) == event->partition_len);
    CHECK(!event->key || strlen(event->key) == event->key_len);
    CHECK(!event->old_row || strlen(event->old_row) == event->old_row_len);
    CHECK(!event->new_row || strlen(event->new_row) == event->new_row_len);
    CHECK(!event->changed || strlen(event->changed) == event->changed_len);
    CHECK(!event->user || strlen(event->user) == event->user_len);
    CHECK(!event->app || strlen(event->app) == event->app_len);
    CHECK(!event->gid || strlen(event->gid) == event->gid_len);
    CHECK(!event->unchanged_toast || strlen(event->unchanged_toast) == event->unchanged_toast_len);
    CHECK(!event->schedule || strlen(event->schedule) == event->schedule_len);
    CHECK(!event->position || strlen(event->position) == event->position_len);
    CHECK(!event->columns || !event->columns[event->columns_len]);
    CHECK(!event->poll || strlen(event->poll) == event->poll_len);
}

static const pgwake_event *expect(pgwake *handle, int type, int session) {
    const pgwake_event *event = take(handle, type);
    strings_end_with_a_nul(event);
    CHECK(event->session == session);
    return event;
}

static void notifications(pgwake *handle, int db, const char *channel) {
    static char payload[7999];
    memset(payload, 'x', sizeof payload);
    for (size_t len = 0; len <= sizeof payload; len += 1333) {
        CHECK(pgwake_notify(handle, db, channel, payload, len) == PGWAKE_OK);
        const pgwake_event *event = expect(handle, PGWAKE_EVENT_NOTIFICATION, db);
        CHECK(!strcmp(event->channel, channel) && event->own == 1 && event->pid > 0 && event->folded == 0);
        CHECK(event->payload_len == len && !memcmp(event->payload, payload, len));
        CHECK(!event->db && !event->message && !event->channels && !event->sqlstate[0]);
        CHECK(expect(handle, PGWAKE_EVENT_SENT, db)->count == 1);
    }
}

/* A host ends its timer when it is notified, and then looks at what it was told. */
static void cancelled(pgwake *handle, int db, const char *channel) {
    char statement[200];
    int timer = pgwake_every(handle, 3600000);
    snprintf(statement, sizeof statement, "SELECT pg_notify('%s', i::text) FROM generate_series(1, 3) i", channel);
    sql(statement);
    for (int i = 1; i <= 3; i++) {
        const pgwake_event *event = expect(handle, PGWAKE_EVENT_NOTIFICATION, db);
        if (i == 2) CHECK(pgwake_cancel(handle, timer) == PGWAKE_OK);
        CHECK(!strcmp(event->channel, channel) && atoi(event->payload) == i);
    }
}

static void outage(pgwake *handle, int db, int backend_pid, const char *channel) {
    char statement[64];
    snprintf(statement, sizeof statement, "SELECT pg_terminate_backend(%d)", backend_pid);
    sql(statement);
    const pgwake_event *event = expect(handle, PGWAKE_EVENT_DISCONNECTED, db);
    CHECK(!strcmp(event->sqlstate, "57P01") && event->message_len && event->retry_in_ms >= 0);
    event = expect(handle, PGWAKE_EVENT_GAP, db);
    CHECK(event->reason == PGWAKE_GAP_OUTAGE && event->attempts >= 1 && event->dropped == 0);
    CHECK(!strcmp(event->sqlstate, "57P01") && event->lost_at_us > INT64_C(1700000000000000));
    CHECK(event->channels_len == 1 && !strcmp(event->channels[0], channel));
}

static void metrics(pgwake *handle, int db) {
    pgwake_metrics told = PGWAKE_METRICS_INIT;
    CHECK(pgwake_metrics_get(handle, db, &told) == PGWAKE_OK && told.struct_size == sizeof told);
    CHECK(told.notifications == 7 && told.gaps == 1 && told.reconnects == 1);
    CHECK(told.bytes > 1333 * 21 && told.bytes < 2 * 1333 * 21);
    CHECK(told.turns > 0 && told.longest_turn_ns > 0 && told.dropped == 0 && told.folded == 0);
    CHECK(told.delivery_count > 0 && told.delivery_p50_ns > 0 && told.delivery_p50_ns <= told.delivery_p99_ns);
    CHECK(told.delivery_p99_ns <= told.delivery_max_ns);
}

static void overflow(pgwake *handle, const char *conninfo, const char *channel) {
    const pgwake_event *event;
    pgwake_session_options options = PGWAKE_SESSION_OPTIONS_INIT;
    options.overflow = PGWAKE_OVERFLOW_COALESCE;
    options.heartbeat_ms = 200;
    options.self_test = 1;
    int session = pgwake_connect(handle, conninfo, &options);
    CHECK(session > 0 && pgwake_listen(handle, session, channel) == PGWAKE_OK);
    expect(handle, PGWAKE_EVENT_LISTENING, session); /* the self-test was passed before */
    for (int i = 0; i < 10; i++) CHECK(pgwake_notify(handle, session, channel, "123456789" + i % 9, 1) == PGWAKE_OK);
    unsigned long heard = 0;
    while (heard < 10 && pgwake_next(handle, 20000, &event) == 1)
        if (event->type == PGWAKE_EVENT_NOTIFICATION && event->session == session) heard += 1 + event->folded;
    CHECK(heard == 10);
    CHECK(pgwake_disconnect(handle, session) == PGWAKE_OK);
}

static void refusals(pgwake *handle, const char *conninfo) {
    static char elsewhere[1024];
    const pgwake_event *event;
    snprintf(elsewhere, sizeof elsewhere, "%s dbname=no_such_database", conninfo);
    int session = pgwake_connect(handle, elsewhere, NULL);
    CHECK(session >= 0 && pgwake_notify(handle, session, "a", "never sent", 10) == PGWAKE_OK);
    expect(handle, PGWAKE_EVENT_DISCONNECTED, session);
    event = expect(handle, PGWAKE_EVENT_COMMAND_FAILED, session);
    CHECK(!strcmp(event->command, "notify") && !strcmp(event->channel, "a"));
    event = expect(handle, PGWAKE_EVENT_FAILED, session);
    CHECK(!strcmp(event->sqlstate, "3D000") && !strcmp(event->db, "no_such_database"));
    REFUSED(pgwake_listen(handle, session, "a"), PGWAKE_E_CONNECTION, "failed for good");
    CHECK(pgwake_disconnect(handle, session) == PGWAKE_OK);
    CHECK(event->type == 0 && !event->message); /* the event is gone, and points to nothing */
}

static const char *const orders[] = {"orders", NULL};

/* Has begun to watch. */
static void begun(pgwake *handle, int session, const char *channel) {
    CHECK(expect(handle, PGWAKE_EVENT_LISTENING, session)->channels_len == 0);
    const pgwake_event *event = expect(handle, PGWAKE_EVENT_LISTENING, session);
    CHECK(event->channels_len == 1 && !strncmp(event->channels[0], channel, strlen(channel)));
}

static const pgwake_event *change(pgwake *handle, int session, int op, const char *table, const char *key) {
    const pgwake_event *event = expect(handle, PGWAKE_EVENT_CHANGE, session);
    CHECK(event->op == op && !strcmp(event->schema, "public") && !strcmp(event->table, table));
    CHECK(key ? event->key && !strcmp(event->key, key) : !event->key);
    CHECK(event->payload[0] == '{' && strstr(event->payload, table) && event->xid > 0 && event->db_len);
    CHECK(!event->channel && !event->message && !event->command && !event->user && !event->app);
    CHECK(event->phase == 0 && event->depth == 0 && event->temp == 0 && event->reserved == 0);
    return event;
}

/* Under a name, whole rows, acknowledged by hand. */
static void changes(pgwake *handle, const char *conninfo) {
    const char *const columns[] = {"id", "note", NULL};
    pgwake_watch_options options = PGWAKE_WATCH_OPTIONS_INIT;
    options.payload = PGWAKE_PAYLOAD_ROW;
    options.consumer = "billing";
    options.columns = columns;
    options.manual_ack = 1;
    options.fallback_poll_ms = -1;
    int session = pgwake_connect(handle, conninfo, NULL);
    CHECK(pgwake_watch(handle, session, orders, &options) == PGWAKE_OK);
    REFUSED(pgwake_watch(handle, session, orders, &options), PGWAKE_E_INVALID, "watches already");
    begun(handle, session, "pgwake");
    sql("INSERT INTO orders VALUES (1, 'tea'); UPDATE orders SET note = 'coffee'; DELETE FROM orders; TRUNCATE orders");
    const pgwake_event *event = change(handle, session, PGWAKE_OP_INSERT, "orders", "{\"id\":1}");
    CHECK(!event->old_row && strstr(event->new_row, "tea") && !event->changed && !event->partition);
    CHECK(event->transport == PGWAKE_TRANSPORT_OUTBOX && event->id > 0 && !event->sqlstate[0]);
    uint64_t first = event->id;
    event = change(handle, session, PGWAKE_OP_UPDATE, "orders", "{\"id\":1}");
    CHECK(strstr(event->old_row, "tea") && strstr(event->new_row, "coffee") && strstr(event->changed, "note"));
    uint64_t second = event->id;
    CHECK(second > first);
    REFUSED(pgwake_ack(handle, session, second + 1), PGWAKE_E_INVALID, "waits to be acknowledged");
    CHECK(pgwake_ack(handle, session, second) == PGWAKE_OK && event->id == second && strstr(event->old_row, "tea"));
    REFUSED(pgwake_ack(handle, session, first), PGWAKE_E_INVALID, "waits to be acknowledged");
    unsigned told = 0, kept = 0;
    uint64_t third = 0;
    while (told < 2 || !kept) {
        CHECK(pgwake_next(handle, 20000, &event) == 1 && event->session == session);
        strings_end_with_a_nul(event);
        if (event->type == PGWAKE_EVENT_ACKNOWLEDGED) {
            CHECK(event->id == second && event->db_len && !event->payload);
            kept++;
            continue;
        }
        CHECK(event->type == PGWAKE_EVENT_CHANGE && event->op == (told ? PGWAKE_OP_TRUNCATE : PGWAKE_OP_DELETE));
        if (!told++) third = event->id;
    }
    pgwake_metrics metrics = PGWAKE_METRICS_INIT;
    CHECK(pgwake_metrics_get(handle, session, &metrics) == PGWAKE_OK && metrics.changes == 4);
    CHECK(pgwake_disconnect(handle, session) == PGWAKE_OK && !event->payload);

    /* What was not acknowledged comes again in the next run. The server may still have the old one for a moment. */
    session = pgwake_connect(handle, conninfo, NULL);
    CHECK(pgwake_watch(handle, session, orders, &options) == PGWAKE_OK);
    do CHECK(pgwake_next(handle, 20000, &event) == 1);
    while (event->type == PGWAKE_EVENT_LISTENING || event->type == PGWAKE_EVENT_COMMAND_FAILED);
    CHECK(event->type == PGWAKE_EVENT_CHANGE && event->op == PGWAKE_OP_DELETE && event->id == third);
    change(handle, session, PGWAKE_OP_TRUNCATE, "orders", NULL);
    CHECK(pgwake_disconnect(handle, session) == PGWAKE_OK);
}

/* The other ways to watch: what was changed as notifications, wake-ups, what is watched already, what is refused. */
static void other_watches(pgwake *handle, const char *conninfo) {
    const char *const notified[] = {"notified", NULL}, *const woken[] = {"woken", NULL};
    const char *const nowhere[] = {"nowhere", NULL};
    pgwake_watch_options options = PGWAKE_WATCH_OPTIONS_INIT;
    options.transport = PGWAKE_TRANSPORT_NOTIFY;
    options.payload = PGWAKE_PAYLOAD_CHANGED;
    options.ops = PGWAKE_OP_UPDATE | PGWAKE_OP_DELETE;
    int session = pgwake_connect(handle, conninfo, NULL);
    CHECK(pgwake_watch(handle, session, notified, &options) == PGWAKE_OK);
    begun(handle, session, "pgwake");
    sql("INSERT INTO notified VALUES (1, 'tea'); UPDATE notified SET note = 'coffee'; DELETE FROM notified");
    const pgwake_event *event = change(handle, session, PGWAKE_OP_UPDATE, "notified", "{\"id\":1}");
    CHECK(event->transport == PGWAKE_TRANSPORT_NOTIFY && event->id > 0 && strstr(event->new_row, "coffee"));
    change(handle, session, PGWAKE_OP_DELETE, "notified", "{\"id\":1}");
    REFUSED(pgwake_ack(handle, session, 1), PGWAKE_E_INVALID, "by itself");
    CHECK(pgwake_disconnect(handle, session) == PGWAKE_OK);

    pgwake_watch_options wake = PGWAKE_WATCH_OPTIONS_INIT;
    wake.payload = PGWAKE_PAYLOAD_WAKE;
    wake.fallback_poll_ms = 100;
    wake.from_start = 1;
    session = pgwake_connect(handle, conninfo, NULL);
    CHECK(pgwake_watch(handle, session, woken, &wake) == PGWAKE_OK);
    begun(handle, session, "pgwake");
    sql("INSERT INTO woken SELECT generate_series(1, 3)");
    event = change(handle, session, PGWAKE_OP_INSERT, "woken", NULL);
    CHECK(!event->old_row && !event->new_row && !event->changed);
    CHECK(pgwake_disconnect(handle, session) == PGWAKE_OK);

    session = pgwake_connect(handle, conninfo, NULL);
    CHECK(pgwake_watch(handle, session, orders, NULL) == PGWAKE_OK);
    begun(handle, session, "pgwake");
    sql("INSERT INTO orders VALUES (7, 'as the first watch said')");
    CHECK(strstr(change(handle, session, PGWAKE_OP_INSERT, "orders", "{\"id\":7}")->new_row, "first"));
    CHECK(pgwake_disconnect(handle, session) == PGWAKE_OK);

    options.only_watched = 1;
    session = pgwake_connect(handle, conninfo, NULL);
    CHECK(pgwake_watch(handle, session, nowhere, &options) == PGWAKE_OK);
    CHECK(expect(handle, PGWAKE_EVENT_LISTENING, session)->channels_len == 0);
    event = expect(handle, PGWAKE_EVENT_COMMAND_FAILED, session);
    CHECK(!strcmp(event->command, "watch") && !strcmp(event->sqlstate, "42P01") && !event->channel);
    REFUSED(pgwake_ack(handle, session, 1), PGWAKE_E_INVALID, "watches no table");

    /* What was refused leaves room for another watch: here one that tells before the change. */
    const char *const earlier[] = {"earlier", NULL};
    pgwake_watch_options before = PGWAKE_WATCH_OPTIONS_INIT;
    before.before = 1;
    CHECK(pgwake_watch(handle, session, earlier, &before) == PGWAKE_OK);
    CHECK(expect(handle, PGWAKE_EVENT_LISTENING, session)->channels_len == 1);
    sql("INSERT INTO earlier VALUES (1)");
    change(handle, session, PGWAKE_OP_INSERT, "earlier", "{\"id\":1}");
    sql("DO 'BEGIN ASSERT (SELECT timing FROM pgwake.watched WHERE table_name = ''earlier'') = ''before''; END'");
    CHECK(pgwake_disconnect(handle, session) == PGWAKE_OK);
}

static const pgwake_event *ddl(pgwake *handle, int session, const char *tag, const char *object) {
    const pgwake_event *event = expect(handle, PGWAKE_EVENT_DDL, session);
    CHECK(!strcmp(event->command, tag) && event->phase == PGWAKE_PHASE_AFTER && event->xid > 0 && event->db_len);
    CHECK(!strcmp(event->user, "postgres") && !strcmp(event->app, "every_function"));
    CHECK(event->payload[0] == '{' && strstr(event->payload, object));
    CHECK(!event->table && !event->key && event->id == 0 && event->op == 0);
    return event;
}

static void ddl_commands(pgwake *handle, const char *conninfo) {
    int all = pgwake_connect(handle, conninfo, NULL);
    CHECK(pgwake_watch_ddl(handle, all, NULL) == PGWAKE_OK);
    REFUSED(pgwake_watch_ddl(handle, all, NULL), PGWAKE_E_INVALID, "already");
    begun(handle, all, "pgwake_ddl");
    sql("SET application_name = 'every_function'; CREATE TEMP TABLE hidden ()");
    sql("CREATE TABLE made (id int); DROP TABLE made");
    const pgwake_event *event = ddl(handle, all, "CREATE TABLE", "public.made");
    CHECK(event->depth == 1 && event->temp == 0);
    ddl(handle, all, "DROP TABLE", "public.made");
    CHECK(pgwake_disconnect(handle, all) == PGWAKE_OK);

    const char *const tags[] = {"CREATE TABLE", "CREATE VIEW", NULL};
    pgwake_ddl_options options = PGWAKE_DDL_OPTIONS_INIT;
    options.tags = tags;
    options.temp = 1;
    options.nested = 1;
    int some = pgwake_connect(handle, conninfo, NULL);
    CHECK(pgwake_watch_ddl(handle, some, &options) == PGWAKE_OK);
    begun(handle, some, "pgwake_ddl_");
    sql("CREATE TEMP TABLE passing (); DROP TABLE passing; DO 'BEGIN CREATE TABLE nested (); END'");
    CHECK(ddl(handle, some, "CREATE TABLE", "passing")->temp == 1);
    event = ddl(handle, some, "CREATE TABLE", "public.nested");
    CHECK(event->temp == 0 && event->depth == 2);
    CHECK(pgwake_disconnect(handle, some) == PGWAKE_OK);

    pgwake_ddl_options both = PGWAKE_DDL_OPTIONS_INIT;
    both.before = 1;
    int each = pgwake_connect(handle, conninfo, NULL);
    CHECK(pgwake_watch_ddl(handle, each, &both) == PGWAKE_OK);
    begun(handle, each, "pgwake_ddl_");
    sql("CREATE VIEW seen AS SELECT 1 AS one");
    event = expect(handle, PGWAKE_EVENT_DDL, each);
    CHECK(!strcmp(event->command, "CREATE VIEW") && event->phase == PGWAKE_PHASE_BEFORE);
    event = expect(handle, PGWAKE_EVENT_DDL, each);
    CHECK(event->phase == PGWAKE_PHASE_AFTER && strstr(event->payload, "public.seen"));
    CHECK(pgwake_disconnect(handle, each) == PGWAKE_OK);
}

/* From the log: a row that is there, then a transaction with a message in it. */
static void streams(pgwake *handle, const char *conninfo) {
    pgwake_stream_options options = PGWAKE_STREAM_OPTIONS_INIT;
    REFUSED(pgwake_stream(handle, conninfo, &options), PGWAKE_E_INVALID, "a publication, a table or a channel");
    options.tables = orders;
    options.snapshot = options.transactions = options.messages = options.manual_ack = 1;
    options.heartbeat_ms = 60000;
    options.memory_max_bytes = 1 << 20;
    int session = pgwake_stream(handle, conninfo, &options);
    CHECK(session >= 0);
    const pgwake_event *event = expect(handle, PGWAKE_EVENT_LISTENING, session);
    CHECK(event->channels_len == 0 && event->backend_pid > 0 && strstr(conninfo, event->db));
    event = expect(handle, PGWAKE_EVENT_SCHEMA, session);
    CHECK(event->columns_len == 2 && !strcmp(event->columns[0], "id") && !strcmp(event->columns[1], "note"));
    CHECK(!strcmp(event->column_types[0], "integer") && !strcmp(event->column_types[1], "text"));
    CHECK(event->column_is_key[0] == 1 && event->column_is_key[1] == 0 && !strcmp(event->table, "orders"));
    event = expect(handle, PGWAKE_EVENT_CHANGE, session);
    CHECK(event->snapshot == 1 && event->op == PGWAKE_OP_INSERT && strstr(event->new_row, "tea"));

    log_sql("INSERT INTO orders VALUES (2, 'milk'); SELECT pg_logical_emit_message(true, 'channel', 'hello')");
    event = expect(handle, PGWAKE_EVENT_BEGIN, session);
    uint64_t commit = event->lsn, xid = event->xid;
    CHECK(commit && xid && event->position_len && event->end_lsn == 0 && !event->gid);
    event = expect(handle, PGWAKE_EVENT_CHANGE, session);
    CHECK(event->transport == PGWAKE_TRANSPORT_WAL && event->commit_lsn == commit && event->xid == xid);
    CHECK(event->ordinal == 1 && event->lsn && event->lsn <= commit && event->snapshot == 0);
    CHECK(strstr(event->position, "/1") && event->committed_at_us > INT64_C(1700000000000000));
    CHECK(!strcmp(event->key, "{\"id\":2}") && strstr(event->new_row, "milk") && !event->old_row);
    CHECK(event->id == 0 && !event->payload && !event->columns);
    event = expect(handle, PGWAKE_EVENT_MESSAGE, session);
    CHECK(!strcmp(event->channel, "channel") && !strcmp(event->payload, "hello") && event->transactional == 1);
    event = expect(handle, PGWAKE_EVENT_COMMIT, session);
    CHECK(event->lsn == commit && event->end_lsn > commit && event->xid == xid);
    CHECK(pgwake_ack(handle, session, commit) == PGWAKE_OK);
    REFUSED(pgwake_ack(handle, session, UINT64_MAX), PGWAKE_E_INVALID, "cannot be acknowledged");
    REFUSED(pgwake_listen(handle, session, "a"), PGWAKE_E_INVALID, "");
    REFUSED(pgwake_watch(handle, session, orders, NULL), PGWAKE_E_INVALID, "");
    pgwake_metrics metrics = PGWAKE_METRICS_INIT;
    do CHECK(pgwake_metrics_get(handle, session, &metrics) == PGWAKE_OK && pgwake_next(handle, 50, &event) == 0);
    while (metrics.acknowledged_lsn <= commit); /* the server is told within a second */
    CHECK(metrics.changes == 2 && metrics.received_lsn >= metrics.acknowledged_lsn && metrics.unknown_messages == 0);
    CHECK(pgwake_disconnect(handle, session) == PGWAKE_OK);
}

/* An interval, and a cron expression where the library has them. */
static void schedules(pgwake *handle) {
    int id = pgwake_every(handle, 10);
    CHECK(id > 0);
    for (int i = 0; i < 2; i++) {
        const pgwake_event *event = expect(handle, PGWAKE_EVENT_TICK, -1);
        CHECK(event->task == id && !strcmp(event->schedule, "every 10ms") && !event->db && event->late_us >= 0);
        CHECK(event->due_us > INT64_C(1700000000000000));
    }
    CHECK(pgwake_cancel(handle, id) == PGWAKE_OK);
    CHECK(pgwake_is_under_way(handle, id) == 0);
    REFUSED(pgwake_cancel(handle, id), PGWAKE_E_UNKNOWN_TASK, "cancelled");

    pgwake_schedule_options options = PGWAKE_SCHEDULE_OPTIONS_INIT;
    options.time_zone = "UTC";
    options.name = "each second";
    options.missed = PGWAKE_MISSED_ALL;
    options.manual_finish = 1;
    int cron = pgwake_cron(handle, "* * * * * *", &options);
    if (cron < 0) {
        REFUSED(cron, PGWAKE_E_INVALID, "LIB_FEATURES=schedules");
        return;
    }
    CHECK(cron > id);
    const pgwake_event *event = expect(handle, PGWAKE_EVENT_TICK, -1);
    CHECK(event->task == cron && !strcmp(event->schedule, "each second") && event->due_us % 1000000 == 0);
    CHECK(pgwake_next(handle, 1100, &event) == 0); /* its work has not ended */
    CHECK(pgwake_finish(handle, cron, NULL) == PGWAKE_OK);
    expect(handle, PGWAKE_EVENT_TICK, -1);
    CHECK(pgwake_cancel(handle, cron) == PGWAKE_OK);
}

static void is_value(pgwake *handle, size_t row, size_t column, const char *expected) {
    const char *value = "";
    size_t len = 99;
    CHECK(pgwake_value(handle, row, column, &value, &len) == (expected ? 1 : 0));
    CHECK(expected ? !strcmp(value, expected) && len == strlen(expected) : !value && len == 0);
    CHECK(pgwake_value(handle, row, column, &value, NULL) == (expected ? 1 : 0));
}

/* A poll by an interval, one that is acknowledged by hand, and one in batches. */
static void polls(pgwake *handle, const char *conninfo) {
    const char *const parameters[] = {"2", NULL}, *value = NULL;
    pgwake_poll_options options = PGWAKE_POLL_OPTIONS_INIT;
    options.parameters = parameters;
    options.parameters_len = 2;
    options.every_ms = 3600000;
    options.name = "two";
    int session = pgwake_connect(handle, conninfo, NULL);
    expect(handle, PGWAKE_EVENT_LISTENING, session);
    int task = pgwake_poll(handle, session, "SELECT g AS id, $2::text AS note FROM generate_series(1, $1) g", &options);
    CHECK(task > 0);
    const pgwake_event *event = expect(handle, PGWAKE_EVENT_ROWS, session);
    CHECK(event->task == task && !strcmp(event->poll, "two") && event->rows_len == 2 && event->columns_len == 2);
    CHECK(!strcmp(event->columns[0], "id") && event->column_type_oids[0] == 23 && event->column_type_oids[1] == 25);
    CHECK(event->id == 0 && !event->message && !event->schedule);
    CHECK(pgwake_column(handle, "note") == 1 && pgwake_column(handle, "id") == 0);
    is_value(handle, 0, 0, "1");
    is_value(handle, 1, 0, "2");
    is_value(handle, 1, 1, NULL);
    REFUSED(pgwake_column(handle, "other"), PGWAKE_E_INVALID, "no column \"other\"");
    REFUSED(pgwake_value(handle, 2, 0, &value, NULL), PGWAKE_E_INVALID, "no value in row 2");
    REFUSED(pgwake_value(handle, 0, 2, &value, NULL), PGWAKE_E_INVALID, "column 2");
    REFUSED(pgwake_value(handle, 0, 0, NULL, NULL), PGWAKE_E_INVALID, "is NULL");
    REFUSED(pgwake_ack(handle, session, 9), PGWAKE_E_INVALID, "no rows");

    pgwake_poll_options cursor = PGWAKE_POLL_OPTIONS_INIT;
    cursor.cursor = "c";
    cursor.from_start = cursor.manual_ack = cursor.binary = 1;
    sql("CREATE TABLE log (id int, xid xid8 DEFAULT pg_current_xact_id()); INSERT INTO log VALUES (7)");
    while (pgwake_next(handle, 50, &event) == 1) continue; /* until that is done */
    CHECK(pgwake_poll(handle, session, "SELECT * FROM log", &cursor) > task);
    while (pgwake_next(handle, 20000, &event) == 1 && event->type != PGWAKE_EVENT_ROWS)
        CHECK(event->type == PGWAKE_EVENT_COMMAND_FAILED && !strcmp(event->command, "poll"));
    CHECK(event && event->id > 0 && event->rows_len == 1 && event->columns_len == 2);
    CHECK(pgwake_value(handle, 0, 0, &value, NULL) == 1 && !memcmp(value, "\0\0\0\7", 4));
    uint64_t id = event->id;
    CHECK(pgwake_ack(handle, session, id) == PGWAKE_OK);
    CHECK(expect(handle, PGWAKE_EVENT_ACKNOWLEDGED, session)->id == id);
    REFUSED(pgwake_value(handle, 0, 0, &value, NULL), PGWAKE_E_INVALID, "no PGWAKE_EVENT_ROWS");
    CHECK(pgwake_disconnect(handle, session) == PGWAKE_OK);

    pgwake_poll_options batch = PGWAKE_POLL_OPTIONS_INIT;
    batch.batch_rows = 2;
    batch.done = "DELETE FROM log WHERE id = ANY ($1)";
    session = pgwake_connect(handle, conninfo, NULL);
    CHECK(pgwake_poll(handle, session, "SELECT id FROM log", &batch) > 0);
    REFUSED(pgwake_listen(handle, session, "c"), PGWAKE_E_INVALID, "connect another one");
    expect(handle, PGWAKE_EVENT_LISTENING, session);
    CHECK(expect(handle, PGWAKE_EVENT_ROWS, session)->rows_len == 1);
    is_value(handle, 0, 0, "7");
    CHECK(pgwake_next(handle, 50, &event) == 0); /* done with, and no more are there */
    CHECK(pgwake_disconnect(handle, session) == PGWAKE_OK);
}

/* Durable messages: what was published while nobody read, and is acknowledged once. */
static void messages_of_log(pgwake *handle, const char *conninfo) {
    static const char *const none[] = {NULL}, *const channels[] = {"a", "Caf\xe9", NULL};
    pgwake_stream_options options = PGWAKE_STREAM_OPTIONS_INIT;
    REFUSED(pgwake_subscribe(handle, conninfo, none, NULL), PGWAKE_E_INVALID, "name a channel");
    REFUSED(pgwake_subscribe(handle, conninfo, NULL, &options), PGWAKE_E_INVALID, "name a channel");
    options.manual_ack = 1;
    int reader = pgwake_subscribe(handle, conninfo, channels, &options);
    const pgwake_event *event = expect(handle, PGWAKE_EVENT_LISTENING, reader);
    int writer = pgwake_connect(handle, conninfo, NULL);
    expect(handle, PGWAKE_EVENT_LISTENING, writer);
    REFUSED(pgwake_publish(handle, writer, "a", NULL, 1), PGWAKE_E_INVALID, "NULL");
    REFUSED(pgwake_publish(handle, writer, "", "x", 1), PGWAKE_E_INVALID, "empty");
    REFUSED(pgwake_publish(handle, reader, "a", "x", 1), PGWAKE_E_INVALID, "");
    CHECK(pgwake_publish(handle, writer, "a", "with\0NUL", 8) == PGWAKE_OK);
    int sent = 0, heard = 0; /* of two sessions either may be the first */
    while (!sent || !heard) {
        CHECK(pgwake_next(handle, 20000, &event) == 1);
        if (event->type == PGWAKE_EVENT_SENT && event->session == writer) {
            sent++;
            continue;
        }
        CHECK(event->type == PGWAKE_EVENT_MESSAGE && event->session == reader && !heard++);
        CHECK(!strcmp(event->channel, "a") && event->payload_len == 8 && !memcmp(event->payload, "with\0NUL", 8));
        CHECK(event->commit_lsn >= event->lsn && event->ordinal == 1 && strstr(event->position, "/1"));
        CHECK(event->transactional == 1 && event->xid);
        CHECK(pgwake_ack(handle, reader, event->commit_lsn) == PGWAKE_OK);
    }
    CHECK(pgwake_disconnect(handle, reader) == PGWAKE_OK && pgwake_disconnect(handle, writer) == PGWAKE_OK);
}

int main(int argc, char **argv) {
    CHECK(argc == 4);
    const char *conninfo = argv[1], *channel = argv[2];
    CHECK(pgwake_abi_version() == PGWAKE_ABI_VERSION && !strcmp(pgwake_version(), PGWAKE_VERSION));
    CHECK(*pgwake_libpq_version());
    int messages = 0;
    pgwake_set_log(keep, &messages, PGWAKE_LOG_TRACE);
    pgwake_options options = PGWAKE_OPTIONS_INIT;
    options.spin_us = 10;
    options.spin_adaptive_permille = 100;
    options.stall_warning_ms = 60000;
    pgwake *handle = pgwake_new(&options);
    CHECK(handle && pgwake_fd(handle) >= 0 && pgwake_timeout_ms(handle) == -1);
    int descriptor = pgwake_fd(handle), db = pgwake_connect(handle, conninfo, NULL);
    CHECK(db >= 0 && pgwake_listen(handle, db, channel) == PGWAKE_OK);

    const pgwake_event *event = expect(handle, PGWAKE_EVENT_LISTENING, db);
    CHECK(event->channels_len == 1 && !strcmp(event->channels[0], channel) && event->backend_pid > 0);
    CHECK(strstr(conninfo, event->db) && event->host_len && event->server_version_len);
    int backend_pid = event->backend_pid;

    notifications(handle, db, channel);
    CHECK(pgwake_listen(handle, db, "another") == PGWAKE_OK);
    expect(handle, PGWAKE_EVENT_LISTENING, db);
    CHECK(pgwake_unlisten(handle, db, "another") == PGWAKE_OK);
    CHECK(pgwake_next(handle, 50, &event) == 0);
    CHECK(pgwake_wake(handle) == PGWAKE_OK && pgwake_next(handle, -1, &event) == 0 && !event);
    outage(handle, db, backend_pid, channel);
    metrics(handle, db);
    cancelled(handle, db, channel);
    overflow(handle, conninfo, channel);
    while (pgwake_next(handle, 50, &event) == 1) continue;
    refusals(handle, conninfo);
    CHECK(pgwake_disconnect(handle, db) == PGWAKE_OK);
    changes(handle, conninfo);
    other_watches(handle, conninfo);
    ddl_commands(handle, conninfo);
    streams(handle, argv[3]);
    schedules(handle);
    polls(handle, conninfo);
    messages_of_log(handle, argv[3]);

    CHECK(pgwake_fd(handle) == descriptor);
    CHECK(messages > 0 && *last_message);
    pgwake_set_log(NULL, NULL, PGWAKE_LOG_TRACE);
    pgwake_close(handle);
    puts("ok");
    return 0;
}
