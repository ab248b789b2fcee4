//! `pgwake watch`, `unwatch` and `ddl`: row changes and DDL as lines.

use super::advice::{When, with_advice};
use super::arguments::{Ddl, Format, Unwatch, Watch};
use super::output::Output;
use super::query::SHORT_WAIT;
use super::run::{Run, Take};
use super::{Failure, install, query, stream, with_code};
use pgwake::{DdlOptions, Error, Event, EventLoop, GapReason, SessionId, SqlState, Transport, WatchOptions};
use std::time::{Duration, Instant};

/// How often the database hears what has been written, while more comes.
const ACKNOWLEDGE_INTERVAL: Duration = Duration::from_millis(200);

/// The server takes a moment to see that a client has gone.
const ENDING_TIME_MAX: Duration = Duration::from_secs(1);

/// How long the last acknowledgement may take.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) fn watch(dsn: &str, format: Format, arguments: &Watch) -> Result<(), Failure> {
    if arguments.transport == Some(Transport::Wal) {
        return stream::watch(dsn, format, arguments);
    }
    // What is handed over comes again after an outage, unless it is stored.
    let is_acknowledged = arguments.name.is_some() || arguments.delivery.is_asked_for();
    let mut options = WatchOptions::new()
        .ops(arguments.ops.iter().copied())
        .columns(arguments.columns.iter().cloned())
        .from_start(arguments.from_start)
        .only_watched(arguments.no_install)
        .manual_ack(is_acknowledged);
    options = arguments.tables.iter().fold(options, |options, table| options.table(table));
    options = arguments.payload.iter().fold(options, |options, payload| options.payload(*payload));
    options = arguments.transport.iter().fold(options, |options, transport| options.transport(*transport));
    options = if arguments.before { options.before(true) } else { options };
    options = arguments.name.iter().fold(options, |options, name| options.consumer(name));
    if !arguments.no_install {
        install::ensure(dsn)?;
    }
    let mut events = EventLoop::new()?;
    let session = events.connect(dsn)?;
    events.watch_with(session, options)?;
    let mut run = Run::new(&events, format, &arguments.until)?.handing_over(&events, &arguments.delivery)?;
    let mut changes = Changes::of(session, is_acknowledged);
    run.run(&mut events, &mut changes)?;
    changes.finish(&mut events)
}

pub(crate) fn ddl(dsn: &str, format: Format, arguments: &Ddl) -> Result<(), Failure> {
    let options =
        DdlOptions::new().tags(arguments.tags.iter().cloned()).temp(arguments.temp).nested(arguments.nested);
    let options = arguments.phases.iter().fold(options, |options, phase| options.phase(*phase));
    if arguments.remove {
        return give_up_ddl(dsn, &options.channel().to_string());
    }
    if !arguments.no_install {
        install::ensure(dsn)?;
    }
    let mut events = EventLoop::new()?;
    let session = events.connect(dsn)?;
    events.watch_ddl(session, options)?;
    let mut run = Run::new(&events, format, &arguments.until)?.handing_over(&events, &arguments.delivery)?;
    run.run(&mut events, &mut Changes::of(session, false))
}

/// Whoever asks for the same shares the channel: what others read, or what nobody asked for, is not given up.
fn give_up_ddl(dsn: &str, channel: &str) -> Result<(), Failure> {
    let mut connection = query::connect(dsn)?;
    let failed = |e: Error| Failure::Running(with_advice(When::Registering, &e.message, e.sqlstate));
    let sql = "SELECT l.pid FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_database d ON d.oid = l.database \
        WHERE d.datname = pg_catalog.current_database() AND l.locktype = 'advisory' AND l.objsubid = 2 \
        AND l.classid = 1885828971 AND l.objid = pgwake.ddl_lock($1)::pg_catalog.oid ORDER BY l.pid";
    let until = Instant::now() + ENDING_TIME_MAX;
    loop {
        let readers = query::rows(&mut connection, sql, &[channel]).map_err(failed)?.concat().join(", ");
        if readers.is_empty() {
            break;
        } else if Instant::now() >= until {
            let sentence = format!("these events are read by backend {readers}: end that first");
            return Err(Failure::Running(sentence));
        }
        std::thread::sleep(ENDING_TIME_MAX / 20);
    }
    let sql = "SELECT channel, pg_catalog.concat_ws(' ', '--tags ''' || \
        pg_catalog.array_to_string(tags, ',') || '''', CASE WHEN temp THEN '--temp' END, \
        CASE WHEN nested THEN '--nested' END, \
        CASE WHEN phases <> '{after}' THEN '--phase ' || pg_catalog.array_to_string(phases, ',') END) \
        FROM pgwake.ddl_watch WHERE channel LIKE 'pgwake\\_ddl%'";
    let asked = query::rows(&mut connection, sql, &[]).map_err(failed)?;
    if asked.iter().any(|row| row[0] == channel) {
        query::rows(&mut connection, "SELECT pgwake.unwatch_ddl($1)", &[channel]).map_err(failed)?;
        say_done!("these events are given up");
        return Ok(());
    }
    let others: Vec<String> =
        asked.iter().map(|row| format!("`{}`", ["pgwake ddl", &row[1]].join(" ").trim_end())).collect();
    let others = if others.is_empty() { "nothing".into() } else { others.join(", ") };
    Err(Failure::Running(format!(
        "nobody asked for events with these options; what is delivered is {others}"
    )))
}

pub(crate) fn unwatch(dsn: &str, arguments: &Unwatch) -> Result<(), Failure> {
    let mut connection = query::connect(dsn)?;
    let sql = "SELECT EXISTS (SELECT FROM pgwake.watched \
        WHERE relid = $1::pg_catalog.regclass AND NOT ended), \
        pgwake.unwatch_table($1::pg_catalog.regclass)";
    let failed = |e: Error| Failure::Running(with_advice(When::Unwatching, &e.message, e.sqlstate));
    for table in &arguments.tables {
        let was_streamed = query::until_unlocked(|| {
            query::in_transaction(&mut connection, SHORT_WAIT, |connection| {
                stream::unpublish(connection, table)
            })
        });
        let was_streamed = was_streamed.map_err(failed)?;
        let rows = query::until_unlocked(|| {
            query::in_transaction(&mut connection, SHORT_WAIT, |connection| {
                query::rows(connection, sql, &[table])
            })
        });
        let rows = match rows {
            // Where the log is read, no schema is needed.
            Err(error) if was_streamed && install::is_missing(&error) => Vec::new(),
            rows => rows.map_err(failed)?,
        };
        let was_watched = was_streamed || rows.iter().any(|row| row[0] == "t");
        say_done!("{table} {}", if was_watched { "is not watched any more" } else { "was not watched" });
    }
    Ok(())
}

/// What is done with, and what the database knows of that where it has to.
struct Changes {
    session: SessionId,
    is_acknowledged: bool,
    /// It has begun to hear: what is refused from now on is mended elsewhere, and it goes on then.
    has_begun: bool,
    done: Option<u64>,
    /// What was acknowledged, until the database has kept it.
    asked: Vec<u64>,
    asked_at: Option<Instant>,
    /// A gap was written, and the database has not kept that.
    has_gap: bool,
}

impl Changes {
    fn of(session: SessionId, is_acknowledged: bool) -> Self {
        Changes {
            session,
            is_acknowledged,
            has_begun: false,
            done: None,
            asked: Vec::new(),
            asked_at: None,
            has_gap: false,
        }
    }

    /// What is tried again: another one reads under this name, or its server process has not ended yet. And
    /// what keeps it from beginning for now.
    fn may_pass(&self, code: SqlState) -> bool {
        code == SqlState::OBJECT_IN_USE || (!self.has_begun && code.may_pass())
    }

    fn acknowledge(&mut self, events: &mut EventLoop) {
        if let Some(id) = self.done.take() {
            self.asked_at = Some(Instant::now());
            match events.ack(self.session, id) {
                Ok(()) => self.asked.push(id),
                // It was delivered over an earlier connection, and comes again.
                Err(error) => log::info!("{error}"),
            }
        }
    }

    /// The next run begins behind what was written: waits until the database has kept that.
    fn finish(mut self, events: &mut EventLoop) -> Result<(), Failure> {
        self.acknowledge(events);
        let until = Instant::now() + PATIENCE;
        // A caller that asks for more is done with a gap, and the session acknowledges it by itself.
        while !self.asked.is_empty() || self.has_gap {
            match events.next(Some(until.saturating_duration_since(Instant::now())))? {
                Some(Event::Acknowledged(acknowledged)) => self.acknowledged(acknowledged.id),
                None if Instant::now() < until => {}
                Some(Event::Disconnected(_) | Event::Failed(_)) | None => {
                    let sentence = "the last changes were not acknowledged: they will come again";
                    return Err(Failure::Running(sentence.into()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The database keeps a change that was acknowledged, and what came before; or a gap.
    fn acknowledged(&mut self, id: u64) {
        match self.asked.iter().rposition(|asked| *asked == id) {
            Some(place) => drop(self.asked.drain(..=place)),
            None => self.has_gap = false,
        }
    }
}

impl Take for Changes {
    fn take(&mut self, event: &Event<'_>, output: &mut Output) -> Result<bool, Failure> {
        match event {
            // It is about the session, not about a change.
            Event::Acknowledged(acknowledged) => {
                self.acknowledged(acknowledged.id);
                return Ok(false);
            }
            Event::Listening(listening) if listening.channels.is_empty() => return Ok(false),
            Event::Listening(_) => self.has_begun = true,
            Event::CommandFailed(failed) if failed.sqlstate.is_some_and(|code| self.may_pass(code)) => {
                log::warn!("{}", failed.message);
                return Ok(false);
            }
            Event::CommandFailed(_) if self.has_begun => {}
            Event::CommandFailed(failed) => {
                return Err(Failure::Running(with_code(failed.message, failed.sqlstate)));
            }
            // That of an outage has no place in the outbox, and what was not acknowledged comes again.
            Event::Gap(gap) if self.is_acknowledged => self.has_gap = gap.reason != GapReason::Outage,
            _ => {}
        }
        output.write(event)?;
        Ok(matches!(event, Event::Change(_) | Event::Ddl(_)))
    }

    fn rest(&mut self, events: &mut EventLoop, output: &mut Output) -> Result<Option<Duration>, Failure> {
        self.done = output.take_done().filter(|_| self.is_acknowledged).or(self.done);
        let since = self.asked_at.map_or(ACKNOWLEDGE_INTERVAL, |at| at.elapsed());
        if since >= ACKNOWLEDGE_INTERVAL {
            self.acknowledge(events);
        }
        Ok(self.done.map(|_| ACKNOWLEDGE_INTERVAL.saturating_sub(since)))
    }
}
