//! `pgwake stream`, and `watch --transport wal`: row changes from the log as lines, each acknowledged once it
//! is written.

use super::advice::{When, with_advice};
use super::arguments::{Format, Stream, Until, Watch};
use super::deliver::{Delivery, number_of};
use super::output::Output;
use super::progress::Progress;
use super::run::{Run, Take};
use super::{Failure, query, with_code};
use pgwake::pq::Connection;
use pgwake::{
    ChangeOp, ChangePayload, Disconnected, Error, Event, EventLoop, Failed, Listening, Lsn, SessionId,
    SqlState, StreamOptions, Streaming,
};
use std::time::{Duration, Instant};

/// How often it is looked whether all has come that was asked for.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// How often the server hears that we are alive while nothing is read from it.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// How long the last transaction may take to end, so that the server can be told that it is done with.
const PATIENCE: Duration = Duration::from_secs(5);

/// The same for the rows of a snapshot, of which more may be to come.
const PATIENCE_WITH_ROWS: Duration = Duration::from_secs(1);

/// In which form events are written, until when, and to whom they are handed over.
type How<'a> = (Format, &'a Until, &'a Delivery);

/// What the name of a consumer begins with where it is a slot.
const SLOT_PREFIX: &str = "pgwake_";

pub(crate) fn run(dsn: &str, format: Format, arguments: &Stream) -> Result<(), Failure> {
    if let Some(slot) = arguments.slot.as_ref().filter(|_| arguments.drop_slot) {
        return drop_slot(dsn, slot);
    }
    if arguments.tables.is_empty() && arguments.publications.is_empty() {
        let sentence = "a stream needs a table or a publication: name one with --table or --publication";
        return Err(Failure::Usage(sentence.into()));
    }
    if let Some(refusal) = refused_of_delivery(arguments) {
        return Err(Failure::Usage(refusal.into()));
    }
    let mut options = StreamOptions::new()
        .create_slot(true)
        .temporary(arguments.temporary)
        .failover(arguments.failover)
        .snapshot(arguments.snapshot)
        .messages(arguments.messages)
        .transactions(arguments.transactions)
        .streaming(arguments.streaming)
        .memory_max(arguments.memory)
        .two_phase(arguments.two_phase)
        .binary(arguments.binary)
        .origin(arguments.origin)
        .heartbeat(arguments.heartbeat);
    options = arguments.slot.iter().fold(options, |options, slot| options.slot(slot));
    options = arguments.tables.iter().fold(options, |options, table| options.table(table));
    options = arguments.publications.iter().fold(options, |options, name| options.publication(name));
    let how = (format, &arguments.until, &arguments.delivery);
    print(dsn, options, how, |session| Lines {
        until: arguments.until_lsn,
        is_kept: arguments.slot.is_some() && !arguments.temporary,
        ..Lines::of(session)
    })
}

/// What cannot be handed over with proof.
fn refused_of_delivery(arguments: &Stream) -> Option<&'static str> {
    match arguments {
        _ if !arguments.delivery.is_asked_for() => None,
        Stream { streaming: Streaming::Early, .. } => Some(
            "what is delivered before its commit has no position by which it could be answered for: take \
             --streaming on",
        ),
        _ => None,
    }
}

/// The same as `stream --table`, in the words of `watch`: its consumer is a slot.
pub(crate) fn watch(dsn: &str, format: Format, arguments: &Watch) -> Result<(), Failure> {
    if let Some(refusal) = refused_of_wal(arguments) {
        return Err(Failure::Usage(format!("with --transport wal {refusal}")));
    }
    let mut options = StreamOptions::new().create_slot(true);
    if let Some(name) = &arguments.name {
        options = options.slot(&slot_of(name)?);
    }
    options = arguments.tables.iter().fold(options, |options, table| options.table(table));
    let how = (format, &arguments.until, &arguments.delivery);
    print(dsn, options, how, |session| Lines {
        ops: arguments.ops.clone(),
        is_kept: arguments.name.is_some(),
        ..Lines::of(session)
    })
}

/// The same for messages alone, as the options say; `is_kept`: a next run goes on where this one ends.
pub(crate) fn subscribe(
    dsn: &str,
    options: StreamOptions,
    how: How<'_>,
    is_kept: bool,
) -> Result<(), Failure> {
    print(dsn, options, how, |session| Lines { is_kept, ..Lines::of(session) })
}

/// What triggers can and the log cannot, or the other way round.
fn refused_of_wal(arguments: &Watch) -> Option<&'static str> {
    match arguments {
        Watch { payload: Some(payload), .. } if *payload != ChangePayload::Row => {
            Some("a change has all that the log has of its row: take --payload row, or leave it out")
        }
        Watch { columns, .. } if !columns.is_empty() => Some(
            "a change has all published columns: CREATE PUBLICATION … FOR TABLE … (columns), and take pgwake \
             stream --publication",
        ),
        Watch { before: true, .. } => Some("a change comes as it was made: leave --before out"),
        Watch { from_start: true, .. } => Some(
            "changes come from when the slot is made: leave --from-start out, or take pgwake stream \
             --snapshot for the rows that are there",
        ),
        Watch { no_install: true, .. } => Some(
            "nothing is installed but a publication: leave --no-install out, or take pgwake stream \
             --publication",
        ),
        _ => None,
    }
}

/// A slot's name has lower-case letters, digits and underscores, up to 63 bytes
/// (`ReplicationSlotValidateName`, slot.c).
fn slot_of(consumer: &str) -> Result<String, Failure> {
    let most = 63 - SLOT_PREFIX.len();
    let is_good = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_';
    if (1..=most).contains(&consumer.len()) && consumer.bytes().all(is_good) {
        return Ok(format!("{SLOT_PREFIX}{consumer}"));
    }
    let sentence = format!(
        "with --transport wal the name of a consumer is that of a slot: 1 to {most} lower-case letters, \
         digits and underscores"
    );
    Err(Failure::Usage(sentence))
}

fn print(
    dsn: &str,
    options: StreamOptions,
    (format, until, delivery): How<'_>,
    lines: impl FnOnce(SessionId) -> Lines,
) -> Result<(), Failure> {
    let mut events = EventLoop::new()?;
    let session = events.stream(dsn, options.manual_ack(true))?;
    let mut run = Run::new(&events, format, until)?.handing_over(&events, delivery)?;
    let mut lines = lines(session);
    let outcome = run.run(&mut events, &mut lines);
    lines.progress.end();
    outcome?;
    lines.finish(&mut events)
}

/// Frees the server of what it keeps for a slot.
pub(super) fn drop_slot(dsn: &str, slot: &str) -> Result<(), Failure> {
    let sql = "SELECT pg_catalog.pg_drop_replication_slot(slot_name) FROM pg_catalog.pg_replication_slots \
        WHERE slot_name = $1";
    let dropped = query::rows(&mut query::connect(dsn)?, sql, &[slot])
        .map_err(|error| Failure::Running(with_advice(When::Dropping, &error.message, error.sqlstate)))?;
    if dropped.is_empty() {
        return Err(Failure::Running(format!(
            "this server has no replication slot {slot}: pgwake status shows those that it has"
        )));
    }
    say_done!("the replication slot {slot} is dropped");
    Ok(())
}

/// Takes a table out of the publications that were made for tables, and drops those that have no other.
/// Whether there was one.
pub(crate) fn unpublish(connection: &mut Connection, table: &str) -> Result<bool, Error> {
    let sql = "SELECT CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_publication_rel o \
            WHERE o.prpubid = p.oid AND o.prrelid <> r.prrelid) \
          THEN pg_catalog.format('ALTER PUBLICATION %I DROP TABLE ONLY %I.%I', p.pubname, n.nspname, \
            c.relname) \
          ELSE pg_catalog.format('DROP PUBLICATION %I', p.pubname) END \
        FROM pg_catalog.pg_publication p JOIN pg_catalog.pg_publication_rel r ON r.prpubid = p.oid \
        JOIN pg_catalog.pg_class c ON c.oid = r.prrelid \
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
        WHERE c.oid = $1::pg_catalog.regclass AND p.pubname ~ '^pgwake_[0-9a-f]{32}$'";
    let commands = query::rows(connection, sql, &[table])?.concat();
    commands.iter().try_for_each(|command| query::script(connection, command))?;
    Ok(!commands.is_empty())
}

/// What is written, and what the server knows of that.
struct Lines {
    session: SessionId,
    /// There is a next run, which goes on where this one ends.
    is_kept: bool,
    /// Which operations are written; all when there is none.
    ops: Vec<ChangeOp>,
    /// What was committed up to here is written, and the run is done.
    until: Option<Lsn>,
    is_done: bool,
    /// The commit of the last transaction of which all is done with that has come, and that before it.
    last: Option<Lsn>,
    before: Option<Lsn>,
    /// Where the rows of a snapshot stand, if there were any.
    rows: Option<Lsn>,
    /// When the server heard last that we are alive although nothing is read.
    told_at: Option<Instant>,
    progress: Progress,
}

impl Lines {
    fn of(session: SessionId) -> Self {
        Lines {
            session,
            is_kept: false,
            ops: Vec::new(),
            until: None,
            is_done: false,
            last: None,
            before: None,
            rows: None,
            told_at: None,
            progress: Progress::new(),
        }
    }

    /// All that has come of transactions up to this commit is done with.
    fn acknowledge(&mut self, events: &mut EventLoop, last: Lsn) {
        if self.last != Some(last) {
            (self.before, self.last) = (self.last, Some(last));
        }
        if let Err(error) = events.ack(self.session, last.0) {
            // It was delivered over an earlier connection, and comes again.
            log::info!("{error}");
        }
    }

    /// While there is no room for events, the server is told that we are alive.
    fn tell(&mut self, events: &mut EventLoop) -> Result<(), Failure> {
        if self.told_at.is_none_or(|at| at.elapsed() >= STATUS_INTERVAL) {
            self.told_at = Some(Instant::now());
            events.send_status(self.session)?;
        }
        Ok(())
    }

    fn acknowledged(&self, events: &EventLoop) -> Result<Lsn, Failure> {
        Ok(events.metrics(self.session)?.acknowledged_lsn.unwrap_or_default())
    }

    /// The next run begins behind what was written: waits until the server knows that. A transaction of which
    /// not all was written cannot be done with, and comes again as a whole.
    fn finish(mut self, events: &mut EventLoop) -> Result<(), Failure> {
        let has_rows_alone = self.last.is_some() && self.last == self.rows;
        let until = Instant::now() + if has_rows_alone { PATIENCE_WITH_ROWS } else { PATIENCE };
        let mut wanted = self.last.filter(|_| self.is_kept);
        while wanted.is_some_and(|wanted| self.acknowledged(events).is_ok_and(|done| done <= wanted)) {
            match events.next(Some(LOOK_INTERVAL))? {
                Some(Event::Disconnected(Disconnected { message, .. }))
                | Some(Event::Failed(Failed { message, .. })) => return Err(not_acknowledged(message)),
                // All its changes were written.
                Some(event @ (Event::Commit(_) | Event::Prepare(_))) if commit_of(&event) == self.last => {
                    wanted.iter().for_each(|last| self.acknowledge(events, *last));
                }
                Some(event) if commit_of(&event).is_some_and(|commit| Some(commit) == self.last) => {
                    log::info!("the last transaction was cut off, and comes again as a whole");
                    wanted = self.before;
                }
                _ if Instant::now() >= until && has_rows_alone => {
                    log::info!("the snapshot was cut off: its rows come again");
                    wanted = None;
                }
                _ if Instant::now() >= until => return Err(not_acknowledged("the server does not answer")),
                _ => {}
            }
        }
        Ok(events.disconnect(self.session)?)
    }
}

fn not_acknowledged(why: &str) -> Failure {
    Failure::Running(format!("the last changes were not acknowledged, and will come again: {why}"))
}

/// Where the commit stands of the transaction that an event belongs to. All rows of a snapshot count as one.
fn commit_of(event: &Event<'_>) -> Option<Lsn> {
    number_of(event).map(Lsn)
}

impl Take for Lines {
    fn take(&mut self, event: &Event<'_>, output: &mut Output) -> Result<bool, Failure> {
        let is_row = matches!(event, Event::Change(change) if change.snapshot);
        if self.until.is_some() && commit_of(event) > self.until && !is_row {
            self.is_done = true;
            return Ok(false);
        }
        match event {
            Event::Change(_) if is_row => {
                self.rows = commit_of(event);
                self.progress.row();
            }
            Event::Schema(_) => {}
            _ => self.progress.end(),
        }
        match event {
            // It is about the session, not about a change.
            Event::Acknowledged(_) => return Ok(false),
            Event::Change(change) if !self.ops.is_empty() && !self.ops.contains(&change.op) => {
                output.pass(event);
                return Ok(false);
            }
            _ => output.write(event)?,
        }
        Ok(matches!(event, Event::Change(_) | Event::Message(_)))
    }

    fn rest(&mut self, events: &mut EventLoop, output: &mut Output) -> Result<Option<Duration>, Failure> {
        if let Some(done) = output.take_done() {
            self.acknowledge(events, Lsn(done));
        }
        if !output.has_room() {
            self.tell(events)?;
        }
        let Some(until) = self.until else { return Ok(None) };
        self.is_done |= self.acknowledged(events)? >= until;
        Ok(Some(LOOK_INTERVAL))
    }

    fn has_begun(&self, _: &Listening<'_>) -> bool {
        true
    }

    fn is_done(&self) -> bool {
        self.is_done
    }

    /// The session's own sentence says what to do.
    fn failure(&self, message: &str, sqlstate: Option<SqlState>) -> Failure {
        Failure::Running(with_code(message, sqlstate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_consumer_is_a_slot_where_its_name_can_be_one() {
        assert_eq!(slot_of("billing_2").unwrap(), "pgwake_billing_2");
        assert!(slot_of(&"x".repeat(56)).is_ok());
        for bad in ["", "Billing", "a b", "a-b", "é", &"x".repeat(57)] {
            assert!(matches!(slot_of(bad), Err(Failure::Usage(_))), "{bad:?}");
        }
    }
}
