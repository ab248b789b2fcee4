/* Every function at its work, and every event: every_function CONNINFO CHANNEL. Prints "kill PID" when it wants the
 * server's process PID to be ended, as a server's administrator would. */
#include "check.h"

static char last_message[512];

static void keep(void *user, int level, const char *text) {
    CHECK(level >= PGWAKE_LOG_ERROR && level <= PGWAKE_LOG_TRACE);
    ++*(int *)user;
    snprintf(last_message, sizeof last_message, "%s", text);
    pgwake_set_log(NULL, NULL, 0); /* does nothing from here */
}

static void strings_end_with_a_nul(const pgwake_event *event) {
    CHECK(event->struct_size == sizeof *event);
    CHECK(!event->channel || strlen(event->channel) == event->channel_len);
    CHECK(!event->payload || strlen(event->payload) == event->payload_len);
    CHECK(!event->db || strlen(event->db) == event->db_len);
    CHECK(!event->host || strlen(event->host) == event->host_len);
    CHECK(!event->server_version || strlen(event->server_version) == event->server_version_len);
    CHECK(!event->message || strlen(event->message) == event->message_len);
    CHECK(!event->command || strlen(event->command) == event->command_len);
    CHECK(!event->channels || !event->channels[event->channels_len]);
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

static void outage(pgwake *handle, int db, int backend_pid, const char *channel) {
    printf("kill %d\n", backend_pid);
    fflush(stdout);
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
    CHECK(told.notifications == 7 && told.bytes > 1333 * 21 && told.gaps == 1 && told.reconnects == 1);
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

int main(int argc, char **argv) {
    CHECK(argc == 3);
    const char *conninfo = argv[1], *channel = argv[2];
    CHECK(pgwake_abi_version() == PGWAKE_ABI_VERSION && !strcmp(pgwake_version(), PGWAKE_VERSION));
    CHECK(*pgwake_libpq_version());
    int messages = 0;
    pgwake_set_log(keep, &messages, PGWAKE_LOG_TRACE);
    pgwake_options options = PGWAKE_OPTIONS_INIT;
    options.spin_us = 10;
    options.stall_warning_ms = 60000;
    pgwake *handle = pgwake_new(&options);
    CHECK(handle && pgwake_fd(handle) >= 0 && pgwake_timeout_ms(handle) == -1);
    int descriptor = pgwake_fd(handle), db = pgwake_connect(handle, conninfo, NULL);
    CHECK(db >= 0 && pgwake_listen(handle, db, channel) == PGWAKE_OK);

    const pgwake_event *event = expect(handle, PGWAKE_EVENT_LISTENING, db);
    CHECK(event->channels_len == 1 && !strcmp(event->channels[0], channel) && event->backend_pid > 0);
    CHECK(!strcmp(event->db, "postgres") && event->host_len && event->server_version_len);
    int backend_pid = event->backend_pid;

    notifications(handle, db, channel);
    CHECK(pgwake_listen(handle, db, "another") == PGWAKE_OK);
    expect(handle, PGWAKE_EVENT_LISTENING, db);
    CHECK(pgwake_unlisten(handle, db, "another") == PGWAKE_OK);
    CHECK(pgwake_next(handle, 50, &event) == 0);
    CHECK(pgwake_wake(handle) == PGWAKE_OK && pgwake_next(handle, -1, &event) == 0 && !event);
    outage(handle, db, backend_pid, channel);
    metrics(handle, db);
    overflow(handle, conninfo, channel);
    while (pgwake_next(handle, 50, &event) == 1) continue;
    refusals(handle, conninfo);

    CHECK(pgwake_fd(handle) == descriptor);
    CHECK(messages > 0 && *last_message);
    pgwake_set_log(NULL, NULL, PGWAKE_LOG_TRACE);
    pgwake_close(handle);
    puts("ok");
    return 0;
}
