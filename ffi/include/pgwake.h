/* pgwake.h: wakes a program up when PostgreSQL has something to tell it. The manual for C hosts.
 *
 *     #include <pgwake.h>
 *     #include <stdio.h>
 *
 *     int main(int argc, char **argv) {
 *         pgwake *events = pgwake_new(NULL);
 *         int db = pgwake_connect(events, argc > 1 ? argv[1] : "", NULL);
 *         int status = db < 0 ? db : pgwake_listen(events, db, "orders");
 *         const pgwake_event *event = NULL;
 *         while (status >= 0 && (status = pgwake_next(events, -1, &event)) >= 0) {
 *             if (status == 0) continue;
 *             if (event->type == PGWAKE_EVENT_LISTENING)
 *                 printf("listening\n");
 *             if (event->type == PGWAKE_EVENT_NOTIFICATION)
 *                 printf("%s: %s\n", event->channel, event->payload);
 *             if (event->type == PGWAKE_EVENT_GAP)
 *                 printf("look at everything afresh: %s\n", event->message);
 *             if (event->type == PGWAKE_EVENT_FAILED)
 *                 break;
 *             fflush(stdout);
 *         }
 *         fprintf(stderr, "%s\n", status < 0 ? pgwake_error(events) : event->message);
 *         pgwake_close(events);
 *         return 1;
 *     }
 *
 * A handle is one event loop with any number of sessions. pgwake_next gives its next event; nothing ever happens
 * outside of it, and nothing calls you back. A session connects by itself, connects again when the connection is
 * lost, and delivers each outage as exactly one PGWAKE_EVENT_GAP.
 *
 * CONVENTIONS
 *
 * Ownership. pgwake_new gives a handle, pgwake_close takes it back; nothing else need ever be freed. An event and all
 * that it points to belong to the library and live until the next pgwake_next, pgwake_disconnect or pgwake_close of
 * the handle. What you pass in is copied before a call returns.
 *
 * Strings. What you pass ends with a NUL; but for a payload, which has a length. What you get ends with a NUL and has
 * its length besides. Channels, and what a notification carries, are bytes in the server's encoding; all else is
 * UTF-8. A list of strings ends with NULL.
 *
 * Errors. A call that can fail gives a status: 0 or more is success, a negative number is a PGWAKE_E_*, whose meaning
 * never changes. pgwake_error has a sentence about the last failure. Neither it nor a message of an event ever holds
 * a password or a payload. What happens to a session later is not an error of a call but an event.
 *
 * Bad input. NULL, a handle that was closed, a session that there is not, a channel of 64 bytes, a conninfo that is
 * not UTF-8: all are answered with a status. (A closed handle is recognised by its block of 2 KB, which is kept and used
 * again for a later handle, at the earliest when 64 more have been closed.) A bug in the library becomes
 * PGWAKE_E_PANIC: that call and all later ones of the handle give it, and all that is left to do is to close the
 * handle.
 *
 * Memory. Where there is none for what comes, the connection ends, if libpq asked for it; for a payload of yours,
 * PGWAKE_E_SYSTEM says so. For the little that is needed besides, the process ends by abort(3).
 *
 * Threads. A handle may move between threads, and is used by one at a time. The one call that any other thread may
 * make at any time is pgwake_wake. Different handles have nothing to do with each other. Names of hosts are looked up,
 * and messages of more than 4 MB are sent, on threads of the library's own, on which all signals are blocked.
 *
 * Fork. Only the process that made a handle may use it. In a child every call gives PGWAKE_E_FORKED, but for
 * pgwake_close, which closes the child's copies of the descriptors and leaves the parent's sessions alone (what libpq
 * remembers of them stays in the child's memory). A child that does not exec must call it: as long as it holds a socket
 * that the parent has closed, epoll goes on reporting it (epoll(7)), and after its next outage the parent's loop never
 * sleeps again. So let no other thread be in a call on the handle while you fork such a child. One that wants events
 * makes a handle of its own.
 *
 * Changes. The schema `pgwake` must be in the database for them, and for DDL: the command `pgwake install` puts it
 * there. What goes through its outbox is delivered at least once: a change that the database did not yet know to be
 * done comes again after an outage, and to a named consumer in its next run, with the same `id`, which no other change
 * ever has. The changes of one row come in their order, unless a trigger of the table writes to the row that was just
 * changed. A change is done with when the next event is asked for, and the database hears of that about once a second;
 * or, with `manual_ack`, when you name it, or a later one, to pgwake_ack. In a copy of the database, which pg_upgrade
 * makes too, and after a failover each consumer gets one PGWAKE_GAP_REPLACED.
 *
 * The log. pgwake_stream reads row changes from the server's write-ahead log, by logical replication: no trigger, no
 * schema, and nothing that a writer would notice. It needs wal_level = logical, the right REPLICATION and a slot, in
 * which the server keeps the position. They come at least once, in commit order, and a change that comes again has
 * the same `position`. A slot without a reader makes the server keep its log: drop what is not needed any more.
 *
 * Signals. No SIGPIPE is ever raised, no handler installed. A signal that interrupts a wait does not end it; to end
 * it, call pgwake_wake from the handler.
 *
 * Versions. A struct that you fill begins with struct_size, set by PGWAKE_*_INIT; a library that is older or newer
 * than this header knows by it which fields there are. A newer program on an older library is refused only if it asks
 * for what that library does not have. A struct that the library fills begins with its own struct_size: a field lies
 * in it only if it lies within that size. Names and numbers of this header keep their meaning; later versions add.
 *
 * Linking. cc app.c libpgwake.a -lssl -lcrypto -lm, or cc app.c $(pkg-config --cflags --libs pgwake); or all static:
 * cc -static-pie app.c $(pkg-config --static --cflags --libs pgwake). Where the compiler's own libraries are not taken
 * (-nodefaultlibs, ld) name -lgcc_s, too, or -lgcc_eh if all is static. libpq is inside, and of the archive only the
 * functions below are visible: it stands beside any other libpq in one program.
 */
#ifndef PGWAKE_H
#define PGWAKE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PGWAKE_VERSION "0.1.0"
#define PGWAKE_ABI_VERSION 1

/* A handle. */
typedef struct pgwake pgwake;

/* STATUSES. -1 is none of them. */

#define PGWAKE_OK 0
/* The call itself was wrong; the text says how. Nothing was sent. */
#define PGWAKE_E_INVALID (-2)
/* The handle has no such session: it was disconnected, or belongs to another handle. */
#define PGWAKE_E_UNKNOWN_SESSION (-3)
/* Too many notifications or messages wait to be sent: take events until PGWAKE_EVENT_SENT comes, then go on. */
#define PGWAKE_E_QUEUE_FULL (-4)
/* The session has failed for good. */
#define PGWAKE_E_CONNECTION (-5)
/* The server refused something. */
#define PGWAKE_E_SERVER (-6)
/* The system refused something: no descriptor, no memory is left. */
#define PGWAKE_E_SYSTEM (-7)
/* The handle was made before a fork, and this is the child. */
#define PGWAKE_E_FORKED (-8)
/* A bug in the library. The handle is dead: close it. */
#define PGWAKE_E_PANIC (-9)
/* The handle has no such poll or schedule: it was cancelled, or belongs to another handle. */
#define PGWAKE_E_UNKNOWN_TASK (-10)

/* EVENTS. Each has `type`, `session` and `db`, but for PGWAKE_EVENT_NOTIFICATION, which has no `db`. All fields that
 * a type does not name are zero. Types will be added: ignore those that you do not know. */

/* The session listens on `channels` from now on: all of its channels when it is first connected (there may be none),
 * each channel that was added later. `backend_pid` (the server's process), `server_version`, `host`. */
#define PGWAKE_EVENT_LISTENING 1
/* A notification: `channel`, `payload` (empty if there is none), `pid` (of the server's process that sent it), `own`
 * (1 if this very session did), `folded` (how many earlier ones of the channel it stands for; 0 unless the session
 * coalesces). */
#define PGWAKE_EVENT_NOTIFICATION 2
/* Notifications are missing, so whatever they stood for must be looked at afresh. `reason` PGWAKE_GAP_OUTAGE: the
 * connection was lost by reason of `sqlstate` and `message`. The server was last heard from at `lost_at_us`, which may
 * be two heartbeats before that was noticed, of the log more; after `attempts` attempts all `channels` listen again.
 * `reason` PGWAKE_GAP_OVERFLOW: `dropped` notifications were dropped because they were taken too
 * slowly; or, as `message` says then, as many rows of the outbox, which was over its cap. `reason`
 * PGWAKE_GAP_REPLACED: a watched database is another installation than it was, restored or copied, and what was not
 * read of the original is missing; or another server took over, and what it did not have is missing. */
#define PGWAKE_EVENT_GAP 3
/* The connection was lost or could not be made: `sqlstate`, `message`. The next attempt is in `retry_in_ms`. */
#define PGWAKE_EVENT_DISCONNECTED 4
/* The session has given up, after the same permanent error twice: `sqlstate`, `message`. Nothing more comes of it. */
#define PGWAKE_EVENT_FAILED 5
/* The server refused `command` ("listen", "unlisten", "notify", "publish" on `channel`; "watch", "watch_ddl", "poll",
 * "schedule", "sql" without one): `sqlstate`, `message`. 08007: the connection was lost before the answer, and nobody
 * knows. The session goes on. It also comes when what is read ends: 55000 (the table is not watched any more, or it was
 * watched anew), 42P01 (the table is gone). When that is watched again, PGWAKE_EVENT_LISTENING names its channel
 * again. */
#define PGWAKE_EVENT_COMMAND_FAILED 6
/* All that was queued by pgwake_notify and pgwake_publish is committed: `count` since the last such event. */
#define PGWAKE_EVENT_SENT 7
/* A row of a watched table was changed, or of one that is streamed from the log. `op`, `schema`, `table`, `partition`
 * (the partition or child that was changed, as SQL takes it, if it is not the table itself), `id` (the same when it
 * comes again, and another one for each other change; 0 if it has none), `xid` (the transaction), `transport`. As far
 * as the watch's payload says, and NULL otherwise: `key` (the columns of the primary key, after an update the new
 * ones), `old_row`, `new_row` (objects in JSON, as PostgreSQL wrote them), `changed` (the names of the columns that
 * an update changed, an array). `sqlstate` says why values are missing, if they could not be converted. `payload` is
 * all of it, an object in JSON; `oversize` in it says how many bytes the values have that are missing because they
 * are more than 8 MB: SELECT pgwake.fetch(id) gives them as long as the outbox has them.
 *
 * From the log (PGWAKE_TRANSPORT_WAL) `key`, `old_row` and `new_row` are what the table's replica identity and the
 * publication let come; `unchanged_toast` names the columns, an array, that an update left as they were and that the
 * log does not have: they are missing in `new_row`. `lsn`, `commit_lsn`, `ordinal` (from 1 on) and `position`, which
 * is both of these as text; `committed_at_us`; `snapshot` (1: no change, but a row that was there when the stream
 * began). `id` is 0 and `payload` NULL. */
#define PGWAKE_EVENT_CHANGE 8
/* A DDL command was run, and its transaction committed: `command` (its tag, such as "CREATE TABLE"), `phase`, `user`
 * (as the session that ran it logged in), `app` (its application_name), `depth` (1 for what a client sent, more for
 * what functions and extensions run), `temp` (1 if all it was done to is temporary), `xid` (0 if it had none).
 * `payload` is all of it, an object in JSON; its `targets` are what it was done to: `role`, `type`, `schema`, `name`,
 * `column`, `identity`, `oid`, `subid`, `exists`. With PGWAKE_PHASE_BEFORE they are what the command is about to drop,
 * cascade included, or names, as that is then; without the server extension pgwake_ddl, of what only drops. It comes
 * with the commit, too: to act before a drop, let the server run a function (pgwake before-drop). */
#define PGWAKE_EVENT_DDL 9
/* The database keeps what was acknowledged by pgwake_ack, up to `id`: it does not come again. Where pgwake_ack alone
 * acknowledges, a gap is acknowledged as soon as it was passed, with a number of its own. */
#define PGWAKE_EVENT_ACKNOWLEDGED 10
/* From the log, before the first change of a table, and again when they differ: which columns of `schema`, `table`
 * come. `columns` (their names), `column_types` and `column_is_key` (1 if it belongs to the key) have `columns_len`
 * each, in the same order; the first two end with NULL. */
#define PGWAKE_EVENT_SCHEMA 11
/* From the log, if `transactions` asks for them: a transaction begins, and its changes follow; it is committed, and
 * all of them have come. `xid`, `lsn` (where the commit stands), `end_lsn` (where it ends; 0 at the begin),
 * `committed_at_us`, `position`. A transaction that is delivered while it runs (PGWAKE_STREAMING_EARLY) comes in
 * parts, asked for or not: each begins with this event, which has no more than `xid`. */
#define PGWAKE_EVENT_BEGIN 12
#define PGWAKE_EVENT_COMMIT 13
/* The same for a transaction that was prepared, with its `gid`, if `two_phase` asks for it: a commit or a rollback
 * with that `gid` follows, in this run or in a later one. */
#define PGWAKE_EVENT_PREPARE 14
/* A transaction was rolled back that was prepared, or delivered while it ran: forget the changes of its `xid`. Of the
 * latter that may be a subtransaction, too, whose changes alone are to be forgotten. `gid` if it was prepared, `lsn`,
 * `end_lsn`. */
#define PGWAKE_EVENT_ROLLBACK 15
/* From the log, by pgwake_subscribe or if `messages` asks for them: somebody published a message (pgwake_publish,
 * pg_logical_emit_message). `channel` (the prefix), `payload` (any bytes: rely on its length), `lsn` (where it ends),
 * `transactional` (1: it came with its transaction's commit), `xid` (of that transaction; 0 if it belongs to none),
 * `commit_lsn` (what pgwake_ack takes), `ordinal` and `position`, which is both of these as text. */
#define PGWAKE_EVENT_MESSAGE 16
/* A schedule is due: `task` (as pgwake_every or pgwake_cron gave it), `schedule` (its name, or its expression or
 * interval), `due_us`, `missed` (how many due times since the last tick have passed without one), `late_us` (how long
 * after `due_us` this is). `session` is -1 and `db` NULL: it comes from none. */
#define PGWAKE_EVENT_TICK 17
/* A poll found rows: `task` (as pgwake_poll gave it), `poll` (its name, or its SQL), `rows_len` of them, at least one.
 * `columns` (their names) and `column_type_oids` (of pg_type; of a domain, of the type below it) have `columns_len`
 * each, in the same order; the first ends with NULL. pgwake_value gives the values. `id` is what pgwake_ack takes, for
 * a poll with a cursor or in batches, and 0 for any other. */
#define PGWAKE_EVENT_ROWS 18

#define PGWAKE_GAP_OUTAGE 1
#define PGWAKE_GAP_OVERFLOW 2
#define PGWAKE_GAP_REPLACED 3

#define PGWAKE_OP_INSERT 1
#define PGWAKE_OP_UPDATE 2
#define PGWAKE_OP_DELETE 4
#define PGWAKE_OP_TRUNCATE 8

/* How changes come from the table to you. */
#define PGWAKE_TRANSPORT_OUTBOX 0 /* through the outbox, tables of the schema `pgwake`: at least once, and durable */
#define PGWAKE_TRANSPORT_NOTIFY 1 /* as notifications: at most once; all writers of the cluster queue for NOTIFY */
#define PGWAKE_TRANSPORT_WAL 2    /* from the write-ahead log itself: by pgwake_stream; pgwake_watch refuses it */

#define PGWAKE_PHASE_BEFORE 1
#define PGWAKE_PHASE_AFTER 2

typedef struct pgwake_event {
    uint32_t struct_size;
    int32_t type;    /* PGWAKE_EVENT_* */
    int32_t session; /* as pgwake_connect, pgwake_stream or pgwake_subscribe gave it */
    int32_t pid;
    const char *channel;
    size_t channel_len;
    const char *payload;
    size_t payload_len;
    uint64_t folded;
    int32_t own;
    int32_t backend_pid;
    const char *db; /* the database's name */
    size_t db_len;
    const char *host; /* a name, an address, or a socket's directory */
    size_t host_len;
    const char *server_version; /* such as "15.18" */
    size_t server_version_len;
    const char *const *channels; /* that many, and then NULL */
    size_t channels_len;
    const char *message; /* one line */
    size_t message_len;
    const char *command;
    size_t command_len;
    char sqlstate[8]; /* five characters and NULs; empty if there is none */
    int32_t reason;   /* PGWAKE_GAP_* */
    uint32_t attempts;
    uint64_t dropped;
    int64_t lost_at_us; /* since 1970, UTC */
    int64_t retry_in_ms;
    uint64_t count;
    int32_t op;        /* PGWAKE_OP_* */
    int32_t transport; /* PGWAKE_TRANSPORT_* */
    uint64_t id;
    uint64_t xid;
    const char *schema;
    size_t schema_len;
    const char *table;
    size_t table_len;
    const char *partition;
    size_t partition_len;
    const char *key;
    size_t key_len;
    const char *old_row;
    size_t old_row_len;
    const char *new_row;
    size_t new_row_len;
    const char *changed;
    size_t changed_len;
    int32_t phase; /* PGWAKE_PHASE_* */
    uint32_t depth;
    int32_t temp;
    int32_t reserved;
    const char *user;
    size_t user_len;
    const char *app;
    size_t app_len;
    uint64_t lsn; /* positions in the log: the server's pg_lsn as a number; 0 if there is none */
    uint64_t commit_lsn;
    uint64_t end_lsn;
    uint64_t ordinal;
    int64_t committed_at_us; /* since 1970, UTC, by the server's clock; 0 if it is not known */
    int32_t snapshot;
    int32_t transactional;
    const char *gid;
    size_t gid_len;
    const char *unchanged_toast;
    size_t unchanged_toast_len;
    const char *position; /* such as "16/B374D848/1" */
    size_t position_len;
    const char *const *columns;
    const char *const *column_types;
    const int32_t *column_is_key;
    size_t columns_len;
    int32_t task; /* as pgwake_poll, pgwake_every or pgwake_cron gave it */
    int32_t reserved_2;
    const char *schedule;
    size_t schedule_len;
    int64_t due_us; /* since 1970, UTC */
    uint64_t missed;
    int64_t late_us;
    const char *poll;
    size_t poll_len;
    const uint32_t *column_type_oids;
    size_t rows_len;
} pgwake_event;

/* OPTIONS. Zero means the default in every field. */

typedef struct pgwake_options {
    uint32_t struct_size;
    /* Polls that long without sleeping after something came, before it sleeps: takes the time of a wake-up by the
     * kernel off the next notification's latency, for a whole core meanwhile. */
    uint32_t spin_us;
    /* When nobody calls pgwake_next for that long, or a turn takes as long, it is logged as a warning and counted
     * (`stalls`): what comes meanwhile fills the server's queue, which all share. 0: 5000. Negative: never. */
    int64_t stall_warning_ms;
    /* Polls while the last arrivals say that the next one comes soon, for at most so many thousandths of a core's
     * time. At most 1000. */
    uint32_t spin_adaptive_permille;
    uint32_t reserved; /* 0 */
} pgwake_options;
#define PGWAKE_OPTIONS_INIT {sizeof(pgwake_options), 0, 0, 0, 0}

/* What is done with notifications that come faster than they are taken. */
#define PGWAKE_OVERFLOW_BLOCK 0       /* they stay in the server: nothing is lost, memory stays flat */
#define PGWAKE_OVERFLOW_COALESCE 1    /* one is kept for each channel, the latest; `folded` counts the others */
#define PGWAKE_OVERFLOW_DROP_OLDEST 2 /* the newest `overflow_max` are kept, a PGWAKE_EVENT_GAP counts the others */

typedef struct pgwake_session_options {
    uint32_t struct_size;
    int32_t overflow;      /* PGWAKE_OVERFLOW_* */
    uint32_t overflow_max; /* for PGWAKE_OVERFLOW_DROP_OLDEST: at least 1 */
    int32_t skip_own;      /* 1: notifications that this session sent itself are left out */
    /* When nothing came for that long, the server is asked for a sign of life; without one within the same time again
     * the connection counts as lost. 0: 5000. Negative: never, a frozen server goes unnoticed. */
    int64_t heartbeat_ms;
    /* 1: before it listens for the first time, the session is sent a notification over a second, short-lived
     * connection: a pooler in transaction mode takes LISTEN and delivers nothing. PGWAKE_EVENT_FAILED with 0A000 if
     * nothing arrives. */
    int32_t self_test;
    int32_t reserved; /* 0 */
} pgwake_session_options;
#define PGWAKE_SESSION_OPTIONS_INIT {sizeof(pgwake_session_options), 0, 0, 0, 0, 0, 0}

/* What a change has of its row. */
#define PGWAKE_PAYLOAD_KEY 0     /* the key */
#define PGWAKE_PAYLOAD_WAKE 1    /* nothing: that a statement changed the table; counted */
#define PGWAKE_PAYLOAD_CHANGED 2 /* the key, and what an update changed */
#define PGWAKE_PAYLOAD_ROW 3     /* the whole row, as it was and as it is */

/* A table that is not watched yet is watched from then on, as `ops`, `payload`, `transport`, `columns` and `before`
 * say. One that is watched already stays as it is: a field that is 0 follows it, and any other must be so already, or
 * the watch is refused (55000). */
typedef struct pgwake_watch_options {
    uint32_t struct_size;
    uint32_t ops;      /* PGWAKE_OP_*, added up; 0: all, or as the table is watched already */
    int32_t payload;   /* PGWAKE_PAYLOAD_*; PGWAKE_PAYLOAD_KEY, which is 0: the key, or the same */
    int32_t transport; /* PGWAKE_TRANSPORT_*; PGWAKE_TRANSPORT_OUTBOX, which is 0: the outbox, or the same */
    /* A name for which the database keeps the position, so that nothing is missed between two runs. One session at a
     * time reads under a name: others are refused (55006) until that one ends, and try again by themselves. A name
     * that is not used any more keeps the outbox from being emptied: forget it with SELECT
     * pgwake.drop_consumer(name). NULL: the server gives a name that nobody else has. The session comes back under it
     * after an outage; the server forgets it three minutes after the session. */
    const char *consumer;
    const char *const *columns; /* those that changes have, and then NULL; NULL: all */
    int32_t from_start;         /* 1: a consumer that is new begins with the oldest change that is still there */
    int32_t only_watched;       /* 1: tables that are not watched already are refused */
    int32_t manual_ack;         /* 1: only pgwake_ack acknowledges */
    int32_t reserved;           /* 0 */
    /* How often the outbox is read without a wake-up: for commits whose leader failed or hangs, and for a full
     * notification queue. 0: 5000. Negative: never. Where transactions may be prepared nothing wakes the session, and
     * it reads about every 100 ms in any case. */
    int64_t fallback_poll_ms;
    /* 1: a change is taken before it is made, as the other BEFORE triggers leave the row: a DELETE comes before those
     * that it cascades to. Both come with the commit. */
    int32_t before;
    int32_t reserved_2; /* 0 */
} pgwake_watch_options;
#define PGWAKE_WATCH_OPTIONS_INIT {sizeof(pgwake_watch_options), 0, 0, 0, NULL, NULL, 0, 0, 0, 0, 0, 0, 0}

typedef struct pgwake_ddl_options {
    uint32_t struct_size;
    int32_t temp;     /* 1: also commands on temporary objects */
    int32_t nested;   /* 1: also what functions, triggers and extensions run */
    int32_t reserved; /* 0 */
    /* Such as "DROP TABLE", and then NULL: only those. NULL: all but "login", which must be asked for (PostgreSQL 17
     * and later). */
    const char *const *tags;
    int32_t before; /* 1: the same as both `phases`, for programs that do not know those */
    int32_t phases; /* the sum of PGWAKE_PHASE_*; 0: PGWAKE_PHASE_AFTER */
} pgwake_ddl_options;
#define PGWAKE_DDL_OPTIONS_INIT {sizeof(pgwake_ddl_options), 0, 0, 0, NULL, 0, 0}

/* What becomes of a large transaction before it is committed. */
#define PGWAKE_STREAMING_OFF 0   /* the server keeps it, and sends it after its commit */
#define PGWAKE_STREAMING_ON 1    /* the server sends it while it runs; it is held back here until its commit */
#define PGWAKE_STREAMING_EARLY 2 /* it is delivered while it runs, in parts, without `commit_lsn`;
                                    PGWAKE_EVENT_ROLLBACK takes it back, or a subtransaction of it */

/* Whose changes come, from PostgreSQL 16 on. */
#define PGWAKE_ORIGIN_ANY 0  /* all, also those that the server itself has from another one */
#define PGWAKE_ORIGIN_NONE 1 /* only what was written on the server itself */

/* At least a publication or a table is named. */
typedef struct pgwake_stream_options {
    uint32_t struct_size;
    int32_t create_slot; /* 1: makes the slot if it is missing at the first connect; never after that */
    /* The slot, in which the server keeps the position, of 63 bytes at most; it must be there unless `create_slot` says
     * otherwise. One that nobody reads makes the server keep its log: drop it when it is not needed any more. NULL: a
     * temporary one. */
    const char *slot;
    const char *const *publications; /* names, and then NULL; NULL: none */
    /* Names as SQL takes them, and then NULL. A publication is made for them, and kept: its name begins with
     * "pgwake_", and the same tables have the same one. NULL: none. */
    const char *const *tables;
    const void *reserved_2; /* NULL */
    /* 1: the slot goes with the connection. After an outage there is a new one, and a PGWAKE_EVENT_GAP says that
     * changes are missing. */
    int32_t temporary;
    int32_t failover;        /* 1: the slot is kept by standbys, too (PostgreSQL 17 and later) */
    int32_t partition_names; /* 1: in a publication made for `tables`, partitions come under their own names */
    /* 1: the rows come first that are there when the slot is made, and then the changes from exactly there. The slot
     * lasts only from when all rows are acknowledged, and no change comes before. One that is there already is read on,
     * without them. */
    int32_t snapshot;
    int32_t messages;     /* 1: PGWAKE_EVENT_MESSAGE, too */
    int32_t transactions; /* 1: PGWAKE_EVENT_BEGIN and PGWAKE_EVENT_COMMIT, too */
    int32_t streaming;    /* PGWAKE_STREAMING_* */
    int32_t two_phase;    /* 1: transactions come when they are prepared: PGWAKE_EVENT_PREPARE */
    /* 1: the server sends values in its binary format, which is cheaper for it. The events are the same, but for
     * ranges, geometric types, `money`, `tsvector` and the like, and types that are not built in: their bytes come as
     * \x…, while the rows of a snapshot have them as text. */
    int32_t binary;
    int32_t origin;     /* PGWAKE_ORIGIN_* */
    int32_t manual_ack; /* 1: only pgwake_ack acknowledges */
    int32_t reserved;   /* 0 */
    /* How much of transactions that are held back is kept in memory; the rest goes to a file without a name in the
     * directory for temporary files. 64 KB at least; 0: 64 MB. */
    uint64_t memory_max_bytes;
    /* When nothing came for that long, the server is asked for a sign of life. It has 12 times as long to answer, and
     * twice as long again each time that it was given up without having come further; then the connection counts as
     * lost. It bounds how late an idle slot moves on, too. 0: 5000. Negative: never. */
    int64_t heartbeat_ms;
} pgwake_stream_options;
#define PGWAKE_STREAM_OPTIONS_INIT \
    {sizeof(pgwake_stream_options), 0, NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

/* What becomes of due times that have passed without a tick: the process was stopped, the machine slept, the clock was
 * set forward, the last tick was not taken yet. One that is found within a minute, and before the next, is late. */
#define PGWAKE_MISSED_SKIP 0 /* they do not come; the next tick says in `missed` how many they were */
#define PGWAKE_MISSED_ONCE 1 /* the last of them comes, once */
#define PGWAKE_MISSED_ALL 2  /* each comes, the oldest first */

typedef struct pgwake_schedule_options {
    uint32_t struct_size;
    int32_t missed;        /* PGWAKE_MISSED_* */
    const char *time_zone; /* such as "Europe/Berlin"; NULL: the system's */
    const char *name;      /* what `schedule` of its ticks says; NULL: the expression */
    /* One of many processes runs each due time: all that have a schedule with this key in the database of `session`,
     * which needs a self-test and heartbeats, and in which the schema `pgwake` must be. The lock that decides is held
     * until the next event is asked for, or until pgwake_finish. When a leader stands still for two heartbeats, another
     * takes over. What became of each due time is in pgwake.run. NULL: each process for itself. */
    const char *leader;
    /* One command that is run on `session` at each due time; the tick says that it was begun,
     * PGWAKE_EVENT_COMMAND_FAILED with `command` "sql" that it failed. Its rows are not kept; more than 16 MB of them end
     * the connection, and the SQL was done or not. NULL: none. */
    const char *sql;
    int32_t session;       /* for `leader` and `sql` */
    int32_t manual_finish; /* 1: no tick comes before pgwake_finish says that the work of the last has ended */
    int64_t jitter_ms;     /* each tick comes up to so much later, at random; never as late as the next */
} pgwake_schedule_options;
#define PGWAKE_SCHEDULE_OPTIONS_INIT {sizeof(pgwake_schedule_options), 0, NULL, NULL, NULL, NULL, 0, 0, 0}

typedef struct pgwake_poll_options {
    uint32_t struct_size;
    int32_t binary;   /* 1: values come in PostgreSQL's binary format, not in its text form */
    /* From one query to the next; after a full page of a cursor or a full batch that is at once. 0: 1000. */
    int64_t every_ms;
    /* While it finds nothing, the interval doubles up to this; once it finds something it is what it was. 0: always
     * the same interval. */
    int64_t adaptive_ms;
    /* How long the query may take before the server ends it. 0: 10000. Negative: as long as it likes, and a server
     * that freezes meanwhile goes unnoticed. */
    int64_t statement_timeout_ms;
    /* How many bytes the rows of one event may have before the connection is given up because of them (54000), 16 MB
     * at least, 1 GB at most; of several polls of a session the largest counts. A cursor goes on only when they fit.
     * 0: 64 MB. */
    uint64_t bytes_max;
    /* 1: a cursor that is new begins with the oldest row, not with the next one. It is new until its query was found
     * to be one that can be run; of one that is not, the log says that this has no effect. */
    int32_t from_start;
    /* 1: only pgwake_ack acknowledges the pages of a cursor, and batches. Each time PGWAKE_EVENT_ACKNOWLEDGED or
     * PGWAKE_EVENT_COMMAND_FAILED answers. */
    int32_t manual_ack;
    /* How many rows a page of the cursor has, and more where one transaction wrote more. 0: 1000. */
    uint32_t page_rows;
    /* Locks that many rows for you alone, until they are acknowledged: to the query, a SELECT, is added LIMIT ... FOR
     * UPDATE SKIP LOCKED. They stay locked within a transaction of the session, which therefore refuses all else:
     * channels (but for `wake_on`), notifications, watches, other polls. 0: none are locked. */
    uint32_t batch_rows;
    uint32_t parameters_len;
    int32_t reserved; /* 0 */
    /* The parameters of the query, $1 and so on, as text, `parameters_len` of them; the server infers their types. One
     * that is NULL is NULL. */
    const char *const *parameters;
    /* A channel: the query is run at once when somebody notifies it. Its notifications are given to you only if you
     * listen on it, too. NULL: none. */
    const char *wake_on;
    const char *name; /* what the poll is called in events; NULL: its SQL */
    /* Each row of an append-only table once it is committed, at least once, none left out, in whatever order
     * transactions commit: the database keeps under this name how far was read, in the schema `pgwake`. The query has
     * neither LIMIT nor OFFSET (42601), and its rows have a column `xid_column` of the type xid8 that says which
     * transaction wrote them, such as xid xid8 NOT NULL DEFAULT pg_current_xact_id(), with an index on it. A row in
     * which that is NULL never comes. One session at a time reads under a name (55006), by one poll. */
    const char *cursor;
    const char *xid_column; /* NULL: "xid" */
    const char *order_by;   /* the column that orders the rows of one transaction on a page; NULL: none does */
    /* What is run in the transaction of a batch when that is acknowledged, so that its rows do not come again: "DELETE
     * FROM jobs WHERE id = ANY ($1)". $1 are the values of the first column, an array. NULL: nothing. */
    const char *done;
    const void *reserved_2; /* NULL */
} pgwake_poll_options;
#define PGWAKE_POLL_OPTIONS_INIT \
    {sizeof(pgwake_poll_options), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL}

/* HANDLES */

/* pgwake_new: makes a handle without sessions. `options` may be NULL.
 *
 * NULL only when there is no memory for it. Otherwise always a handle, to be closed: if it is usable, pgwake_error
 * gives an empty text; if not, the reason, and each call on it gives the same status. */
pgwake *pgwake_new(const pgwake_options *options);

/* pgwake_close: ends all sessions of a handle and gives it back. NULL and a closed handle are harmless. Take the
 * descriptor out of your own loop first. */
void pgwake_close(pgwake *handle);

/* pgwake_fd: the descriptor to register for reading in a loop of your own; the same for the handle's whole life, timers
 * and reconnects included. When it is readable, by level or by edge, call pgwake_next with a timeout of 0 until it
 * gives 0. Neither read it nor close it. Negative: a PGWAKE_E_*. */
int pgwake_fd(const pgwake *handle);

/* pgwake_timeout_ms: how long a loop may wait at most before it calls pgwake_next, for systems on which the
 * descriptor cannot carry timers. -1: for ever, and so it always is on Linux. A smaller number is a PGWAKE_E_*. */
int pgwake_timeout_ms(const pgwake *handle);

/* pgwake_next: the next event, in `*event`. This is where everything happens: connecting, reading, sending.
 *
 * With a negative `timeout_ms` it waits until there is an event, with 0 not at all, else at most that long.
 *     1         an event
 *     0         none: the time is over, or pgwake_wake was called; `*event` is NULL
 *     negative  a PGWAKE_E_*; `*event` is NULL
 * A session that has failed never reports again: a wait for nothing but such ends with pgwake_wake only. Events that
 * you leave inside are not lost; but the descriptor need not tell of them, unless you call pgwake_wake. */
int pgwake_next(pgwake *handle, int timeout_ms, const pgwake_event **event);

/* pgwake_wake: makes the current or the next wait of pgwake_next end with 0, once all events are taken, and the
 * descriptor readable. Several calls before that count as one; none is lost.
 *
 * The one call that may be made from any thread at any time, also while another waits in pgwake_next or closes the
 * handle, and from a signal's handler. It leaves the text of pgwake_error as it is. */
int pgwake_wake(const pgwake *handle);

/* SESSIONS */

/* pgwake_connect: adds a session, and gives its number, 0 or more, which no later session of the handle will have.
 *
 * `conninfo` is what libpq takes: "host=… dbname=app" or "postgresql://…"; the environment (PGHOST, PGSERVICE,
 * ~/.pgpass …) fills in the rest, also for "". `options` may be NULL. It returns at once: PGWAKE_EVENT_LISTENING
 * comes when it has, PGWAKE_EVENT_DISCONNECTED for each attempt that failed. PGWAKE_E_INVALID: the settings are
 * wrong, those of the environment and of the service file among them. */
int pgwake_connect(pgwake *handle, const char *conninfo, const pgwake_session_options *options);

/* pgwake_disconnect: ends a session and closes its connection. What it had queued is dropped, no event of it comes
 * any more, and the event that was given last is gone. That of a stream which has acknowledged something waits, a
 * second at most, until the server knows. */
int pgwake_disconnect(pgwake *handle, int session);

/* pgwake_listen: listens on a channel from now on, also after every reconnect. 1 to 63 bytes, taken as they are:
 * never folded to lower case, so that "Foo" is what pg_notify('Foo', …) calls. PGWAKE_EVENT_LISTENING says when the
 * server has confirmed it. Listening twice is harmless. */
int pgwake_listen(pgwake *handle, int session, const char *channel);

/* pgwake_unlisten: stops listening on a channel. Notifications that are on their way still come. */
int pgwake_unlisten(pgwake *handle, int session, const char *channel);

/* pgwake_notify: queues a notification, to be sent by pgwake_next in a transaction of its own once the session is
 * connected. `payload` has `len` bytes, at most 7999 and none of them NUL, in the server's encoding; it may be NULL
 * if `len` is 0. PGWAKE_EVENT_SENT says when all that was queued is committed, PGWAKE_EVENT_COMMAND_FAILED what was
 * not. */
int pgwake_notify(pgwake *handle, int session, const char *channel, const void *payload, size_t len);

/* MESSAGES */

/* pgwake_publish: queues a durable message, which is written into the server's log in a transaction of its own, as
 * pgwake_notify queues a notification and with the same events. Every slot of the database that is there by then keeps
 * it for its reader. `payload` is any `len` bytes, at most 1,000,000,000, and comes as it is; it may be NULL if `len`
 * is 0. To publish within a transaction of yours, call pg_logical_emit_message(true, channel, payload) in it. */
int pgwake_publish(pgwake *handle, int session, const char *channel, const void *payload, size_t len);

/* pgwake_subscribe: adds a session that takes messages of these channels from the log, over a connection of its own,
 * and gives its number: each comes as a PGWAKE_EVENT_MESSAGE with its commit, at least once. It is pgwake_stream with
 * channels instead of tables, and all that is said there holds.
 *
 * `channels` holds names of 1 to 63 bytes, which are taken as they are, and then NULL. `options` may be NULL; what it
 * says of a slot is where the messages are kept while nobody reads. If it names tables or publications, too, their
 * changes come besides, and names of channels are in UTF-8; otherwise they are in the server's encoding. A publication
 * without tables, pgwake_messages, is made when it is missing. */
int pgwake_subscribe(pgwake *handle, const char *conninfo, const char *const *channels,
                     const pgwake_stream_options *options);

/* ROW CHANGES AND DDL */

/* pgwake_watch: watches tables, once for each session: each change of a row comes as a PGWAKE_EVENT_CHANGE.
 *
 * `tables` holds names as SQL takes them ("orders", "sales.orders", "\"Orders\""), in UTF-8, and then NULL. `options`
 * may be NULL. PGWAKE_EVENT_LISTENING names the channel `pgwake` when it has begun (for PGWAKE_TRANSPORT_NOTIFY the
 * table's): what is committed from then on is delivered. PGWAKE_EVENT_COMMAND_FAILED says what the server refuses,
 * with advice: there is no such table, no schema `pgwake`, the role may not, or the table is watched in another way.
 * An outage comes as PGWAKE_EVENT_GAP all the same, because notifications may be missing; changes of the outbox are
 * not. */
int pgwake_watch(pgwake *handle, int session, const char *const *tables, const pgwake_watch_options *options);

/* pgwake_watch_ddl: watches DDL, once for each session: each command comes as a PGWAKE_EVENT_DDL. `options` may be
 * NULL. The event triggers of the schema `pgwake` must be there, which only a superuser can make.
 * PGWAKE_EVENT_LISTENING names a channel that begins with "pgwake_ddl" when it has begun. They come at most once:
 * what is run during an outage is missing, and PGWAKE_EVENT_GAP says so. */
int pgwake_watch_ddl(pgwake *handle, int session, const pgwake_ddl_options *options);

/* pgwake_stream: adds a session that streams row changes from the write-ahead log, over a connection of its own, and
 * gives its number, as pgwake_connect does; `conninfo` is the same. `options` names a publication or a table.
 *
 * PGWAKE_EVENT_LISTENING, without channels, says that it has begun. A connection that is lost comes back by itself,
 * and what was not acknowledged comes again. PGWAKE_EVENT_FAILED says what somebody has to mend first: no right, no
 * such slot or publication, a slot that the server has given up (its log went beyond max_slot_wal_keep_size).
 * pgwake_listen, pgwake_notify and pgwake_watch are for other sessions. */
int pgwake_stream(pgwake *handle, const char *conninfo, const pgwake_stream_options *options);

/* pgwake_ack: acknowledges all changes that were delivered up to the one with this `id`, for a session with
 * `manual_ack`, also that of the event that was given last, which stays good. What was notified
 * (PGWAKE_TRANSPORT_NOTIFY) is not kept and cannot be acknowledged. PGWAKE_EVENT_ACKNOWLEDGED says that the database
 * keeps it. When 65536 changes wait to be acknowledged, no more are read. PGWAKE_E_INVALID: no such change waits.
 *
 * Of a stream the number is a `commit_lsn`: all that was delivered is acknowledged of transactions whose commit does
 * not stand behind it. The server keeps a transaction until all of it was delivered and acknowledged; of one that was
 * cut off in the middle all comes again, with the same positions. The server hears of it about once a second, and when
 * the session ends; pgwake_metrics has what it has heard. The rows of a snapshot share one `commit_lsn`: with a slot
 * that lasts no change comes before all of them are acknowledged.
 *
 * Of polls with `manual_ack` it is the `id` of a PGWAKE_EVENT_ROWS, and means all rows of the session up to that. Of
 * what was lost with a connection it does nothing: those rows come again. */
int pgwake_ack(pgwake *handle, int session, uint64_t id);

/* SCHEDULES */

/* pgwake_every: ticks each time that the interval is over, for the first time after one: PGWAKE_EVENT_TICK. It counts
 * on the monotonic clock. Gives a number, which is positive, and that no other poll or schedule of the handle ever
 * has. */
int pgwake_every(pgwake *handle, int64_t interval_ms);

/* pgwake_cron: ticks whenever a cron expression is due, in a time zone, and gives a number as pgwake_every does.
 * `options` may be NULL. The expression has five fields, minute, hour, day of the month, month and day of the week, or
 * six with the second before them; or it is @daily and the like, or an interval such as "@every 90s", for one with
 * options. docs/schedules.md says what happens when clocks change. PGWAKE_E_INVALID: the text says what is wrong with
 * it, that it is never due, or that there is no such zone; or that the library was built without cron expressions,
 * which it is unless asked for them (make lib LIB_FEATURES=schedules). */
int pgwake_cron(pgwake *handle, const char *expression, const pgwake_schedule_options *options);

/* pgwake_cancel: ends a poll or a schedule: no event of it comes any more. SQL that a schedule runs goes on to its end.
 * PGWAKE_E_UNKNOWN_TASK: there is none of this number. The event that was given last stays good, but for the values of
 * a PGWAKE_EVENT_ROWS, which are gone. */
int pgwake_cancel(pgwake *handle, int id);

/* pgwake_is_under_way: 1 while the server runs the SQL of a schedule, or what became of a due time is being written
 * down, also after its pgwake_cancel; otherwise 0. A program that ends calls pgwake_next until it is over. */
int pgwake_is_under_way(pgwake *handle, int id);

/* pgwake_finish: the work of the last tick has ended, for a schedule with `manual_finish`. `failure` says why it
 * failed, in UTF-8; NULL: it did not. */
int pgwake_finish(pgwake *handle, int id, const char *failure);

/* POLLS */

/* pgwake_poll: runs a query again and again over a session, and gives the number of the poll, which is positive and
 * which no other will have. What it finds is one PGWAKE_EVENT_ROWS; the next query is never run before the rows of the
 * last were taken, which is when the next event is asked for. `options` may be NULL. PGWAKE_EVENT_COMMAND_FAILED with
 * the command "poll" reports an error once, or for each acknowledgement that fails, with the poll's name in its message,
 * and the poll goes on. After an outage it is run at once. While a query runs the session hears no notification: give
 * one that takes long a session of its own. */
int pgwake_poll(pgwake *handle, int session, const char *sql, const pgwake_poll_options *options);

/* pgwake_value: a value of the PGWAKE_EVENT_ROWS that was given last, by its row and column, both from 0 on. 1: it is
 * in `*value`, with its length in `*len`, which may be NULL; it lives as long as the event, and behind it lies a NUL
 * in either format. 0: it is NULL, and so is `*value`. Negative: a PGWAKE_E_*. */
int pgwake_value(const pgwake *handle, size_t row, size_t column, const char **value, size_t *len);

/* pgwake_column: where the column of that name stands in the PGWAKE_EVENT_ROWS that was given last, the first of that
 * name; or PGWAKE_E_INVALID. */
int pgwake_column(const pgwake *handle, const char *name);

/* METRICS */

/* What a session has done since pgwake_connect. Set struct_size, by PGWAKE_METRICS_INIT; the library fills in the
 * rest, and what it does not know is zero. */
typedef struct pgwake_metrics {
    uint32_t struct_size;
    uint64_t notifications; /* given to you */
    uint64_t bytes;         /* of their channels and payloads */
    uint64_t folded;        /* others stood for them: PGWAKE_OVERFLOW_COALESCE */
    uint64_t dropped;       /* PGWAKE_OVERFLOW_DROP_OLDEST */
    uint64_t gaps;          /* delivered, of any reason */
    uint64_t reconnects;    /* how often it listened again after an outage */
    int64_t last_probe_us;  /* when the last heartbeat was sent that was answered: since 1970, UTC; 0: none was */
    int64_t probe_round_trip_ns;
    uint64_t turns; /* how often it was its turn in pgwake_next */
    int64_t longest_turn_ns;
    /* From the readiness of the socket until the first notification of that turn was given to you; p50 and p99 are
     * rounded up by a quarter at most. */
    uint64_t delivery_count;
    int64_t delivery_p50_ns;
    int64_t delivery_p99_ns;
    int64_t delivery_max_ns;
    uint64_t stalls; /* how often the whole handle stood still for longer than stall_warning_ms */
    int64_t longest_stall_ns;
    uint64_t changes; /* of rows, given to you */
    /* Of a stream. Positions in the log are the server's pg_lsn as numbers; 0: not known. */
    uint64_t received_lsn;     /* how far the server's log has come as far as it is known here */
    uint64_t acknowledged_lsn; /* what the server was told is done with; it keeps what comes behind it */
    uint64_t unknown_messages; /* of a kind that is not known here, and passed over */
    uint64_t held_back_bytes;  /* of transactions that are held back until their commit, in memory and in files */
    uint64_t polls;            /* queries of polls that were answered without an error */
} pgwake_metrics;
#define PGWAKE_METRICS_INIT \
    {sizeof(pgwake_metrics), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

/* pgwake_metrics_get: fills in `metrics`. The event that was given last stays good. */
int pgwake_metrics_get(const pgwake *handle, int session, pgwake_metrics *metrics);

/* ERRORS, LOG, VERSIONS */

/* pgwake_error: a sentence about the last call on the handle that failed; empty if none has. The text lies in the
 * handle: the pointer stays the same and stays good until the handle is closed, the text changes with the next
 * failure. */
const char *pgwake_error(const pgwake *handle);

/* pgwake_status_name: "PGWAKE_E_INVALID" for PGWAKE_E_INVALID, and so on. Never NULL. */
const char *pgwake_status_name(int status);

#define PGWAKE_LOG_OFF 0
#define PGWAKE_LOG_ERROR 1
#define PGWAKE_LOG_WARN 2
#define PGWAKE_LOG_INFO 3
#define PGWAKE_LOG_DEBUG 4
#define PGWAKE_LOG_TRACE 5

/* Takes a message of a level, PGWAKE_LOG_*. It may run on any thread, may call nothing of pgwake but pgwake_wake on a
 * handle, and neither throws nor jumps out. */
typedef void (*pgwake_log_fn)(void *user, int level, const char *text);

/* pgwake_set_log: from now on messages up to `level` go to `write`, for all handles; with NULL to nobody, as at
 * first. When it returns, the function that was set before has ended and is not called any more. */
void pgwake_set_log(pgwake_log_fn write, void *user, int level);

/* pgwake_abi_version: PGWAKE_ABI_VERSION of the library. A program built for another number must not go on. */
uint32_t pgwake_abi_version(void);

/* pgwake_version: the library's version, such as "0.1.0". */
const char *pgwake_version(void);

/* pgwake_libpq_version: the version of the libpq inside, such as "18.6". */
const char *pgwake_libpq_version(void);

/* LAYOUT, for bindings. With 64-bit pointers: */

#if UINTPTR_MAX == 0xffffffffffffffff
#if defined(__cplusplus) && __cplusplus >= 201103L
#define PGWAKE_LAYOUT(condition) static_assert(condition, #condition)
#elif defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
#define PGWAKE_LAYOUT(condition) _Static_assert(condition, #condition)
#endif
#ifdef PGWAKE_LAYOUT
PGWAKE_LAYOUT(sizeof(pgwake_options) == 24);
PGWAKE_LAYOUT(offsetof(pgwake_options, spin_adaptive_permille) == 16);
PGWAKE_LAYOUT(sizeof(pgwake_session_options) == 32);
PGWAKE_LAYOUT(offsetof(pgwake_session_options, heartbeat_ms) == 16);
PGWAKE_LAYOUT(offsetof(pgwake_session_options, self_test) == 24);
PGWAKE_LAYOUT(sizeof(pgwake_watch_options) == 64);
PGWAKE_LAYOUT(offsetof(pgwake_watch_options, consumer) == 16);
PGWAKE_LAYOUT(offsetof(pgwake_watch_options, fallback_poll_ms) == 48);
PGWAKE_LAYOUT(offsetof(pgwake_watch_options, before) == 56);
PGWAKE_LAYOUT(sizeof(pgwake_ddl_options) == 32);
PGWAKE_LAYOUT(offsetof(pgwake_ddl_options, tags) == 16);
PGWAKE_LAYOUT(offsetof(pgwake_ddl_options, before) == 24);
PGWAKE_LAYOUT(offsetof(pgwake_ddl_options, phases) == 28);
PGWAKE_LAYOUT(sizeof(pgwake_stream_options) == 104);
PGWAKE_LAYOUT(offsetof(pgwake_stream_options, slot) == 8);
PGWAKE_LAYOUT(offsetof(pgwake_stream_options, temporary) == 40);
PGWAKE_LAYOUT(offsetof(pgwake_stream_options, memory_max_bytes) == 88);
PGWAKE_LAYOUT(sizeof(pgwake_schedule_options) == 56);
PGWAKE_LAYOUT(offsetof(pgwake_schedule_options, leader) == 24);
PGWAKE_LAYOUT(offsetof(pgwake_schedule_options, jitter_ms) == 48);
PGWAKE_LAYOUT(sizeof(pgwake_metrics) == 184);
PGWAKE_LAYOUT(offsetof(pgwake_metrics, delivery_count) == 88);
PGWAKE_LAYOUT(offsetof(pgwake_metrics, received_lsn) == 144);
PGWAKE_LAYOUT(sizeof(pgwake_event) == 600);
PGWAKE_LAYOUT(offsetof(pgwake_event, channel) == 16);
PGWAKE_LAYOUT(offsetof(pgwake_event, payload_len) == 40);
PGWAKE_LAYOUT(offsetof(pgwake_event, db) == 64);
PGWAKE_LAYOUT(offsetof(pgwake_event, sqlstate) == 160);
PGWAKE_LAYOUT(offsetof(pgwake_event, count) == 200);
PGWAKE_LAYOUT(offsetof(pgwake_event, id) == 216);
PGWAKE_LAYOUT(offsetof(pgwake_event, key) == 280);
PGWAKE_LAYOUT(offsetof(pgwake_event, user) == 360);
PGWAKE_LAYOUT(offsetof(pgwake_event, lsn) == 392);
PGWAKE_LAYOUT(offsetof(pgwake_event, gid) == 440);
PGWAKE_LAYOUT(offsetof(pgwake_event, columns) == 488);
PGWAKE_LAYOUT(offsetof(pgwake_event, schedule) == 528);
PGWAKE_LAYOUT(offsetof(pgwake_event, poll) == 568);
PGWAKE_LAYOUT(sizeof(pgwake_poll_options) == 128);
PGWAKE_LAYOUT(offsetof(pgwake_poll_options, parameters) == 64);
#undef PGWAKE_LAYOUT
#endif
#endif

#ifdef __cplusplus
}
#endif

#endif
