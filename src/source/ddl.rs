//! DDL over a session: the schema `pgwake` notifies of each command on a channel that stands for what was
//! asked for.

use super::Report;
use super::advice::{OF_DDL, advised};
use super::channels::{Batch, ChannelSource};
use super::outbox::{CONVERT, FETCH, WATCHED_PAYLOAD, array, encoding, in_utf8};
use super::outbox::{LOOK_INTERVAL, LOOK_INTERVAL_MIN};
use super::refusals::Refusals;
use crate::decode::ddl::DdlCommand;
use crate::error::{Error, ErrorKind, Result, SqlState};
use crate::event::Channel;
use crate::options::DdlOptions;
use crate::pq::Notify;
use crate::session::{Command, Rows};
use std::time::Instant;

const WATCH_SQL: &[u8] =
    b"SELECT pgwake.watch_ddl($1, nullif(pg_catalog.convert_from($2::bytea, 'UTF8'), '')::text[], \
    $3::bool, $4::bool, $5::bool), pg_catalog.pg_try_advisory_lock_shared(1885828971, pgwake.ddl_lock($1))";
/// Whether somebody asks for them, and whether all event triggers are there and on. On a new connection the
/// database is told that they have a reader, too, unless somebody has the lock, for which no reader waits.
const LOOK_SQL: &[u8] = b"SELECT w.channel IS NOT NULL, (SELECT pg_catalog.count(*) = \
    CASE WHEN w.tags OPERATOR(pg_catalog.@>) '{login}' THEN 5 ELSE 4 END FROM pg_catalog.pg_event_trigger \
    WHERE evtenabled IN ('O', 'A') AND (evtname IN ('pgwake_ddl_command_end', 'pgwake_sql_drop', \
    'pgwake_table_rewrite', 'pgwake_ddl_command_start') OR evtname = 'pgwake_login' \
    AND w.tags OPERATOR(pg_catalog.@>) '{login}')), \
    CASE WHEN $2::bool THEN pg_catalog.pg_try_advisory_lock_shared(1885828971, pgwake.ddl_lock($1)) END \
    FROM (SELECT) one LEFT JOIN pgwake.ddl_watch w ON w.channel = $1";

/// What was asked of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Watch,
    Look,
    Fetch,
    Convert,
}

/// A reader of DDL events.
#[derive(Debug)]
pub(super) struct DdlReader {
    options: DdlOptions,
    channel: Channel,
    /// The server was asked for them, and agreed.
    is_agreed: bool,
    /// It tells them still.
    is_told: bool,
    /// When the server is asked next whether it does, or to do so; and when it was asked last.
    ask_at: Option<Instant>,
    asked_at: Option<Instant>,
    /// One question at a time.
    is_asking: bool,
    /// On this connection the database knows that they have a reader.
    is_known: bool,
    refusals: Refusals<Step>,
    /// An event that the server puts into UTF-8 for us.
    converting: Option<Notify>,
}

impl DdlReader {
    pub(super) fn new(options: DdlOptions) -> Self {
        let channel = options.channel();
        DdlReader {
            options,
            channel,
            is_agreed: false,
            is_told: false,
            ask_at: None,
            asked_at: None,
            is_asking: false,
            is_known: false,
            refusals: Refusals::default(),
            converting: None,
        }
    }

    /// When a turn is wanted at the latest.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.ask_at.filter(|_| !self.is_asking)
    }

    /// The connection is lost.
    pub(super) fn disconnected(&mut self) {
        (self.ask_at, self.is_asking, self.is_known) = (None, false, false);
        self.converting = None;
    }

    /// It is asked again then, or before that if somebody said that there is something new.
    fn ask_by(&mut self, at: Instant) {
        self.ask_at = Some(self.ask_at.map_or(at, |sooner| sooner.min(at)));
    }
}

impl ChannelSource {
    pub(crate) fn watch_ddl(&mut self, options: DdlOptions, now: Instant) -> Result<()> {
        self.refuse_if_failed()?;
        if self.ddl.is_some() {
            let message = "the session hears of DDL already: connect another session";
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        self.ddl = Some(Box::new(DdlReader::new(options)));
        self.readers_changed();
        self.begin_ddl(now);
        Ok(())
    }

    /// All channels listen on a new connection, or there is something to ask for on the one there is.
    #[cold]
    pub(super) fn begin_ddl(&mut self, now: Instant) {
        if let Some(reader) = self.ddl.as_deref_mut().filter(|_| self.is_listening) {
            reader.ask_at = Some(now);
            self.make_lasting();
        }
    }

    /// Asks for DDL events until the server agrees, and from then on whether they are still told; `false`
    /// when nothing is due.
    #[cold]
    pub(super) fn ddl_step(&mut self, now: Instant) -> bool {
        let Some(reader) = self.ddl.as_deref_mut() else { return false };
        if reader.deadline().is_none_or(|at| at > now) {
            return false;
        }
        (reader.is_asking, reader.ask_at, reader.asked_at) = (true, None, Some(now));
        let (options, channel) = (&reader.options, reader.channel.clone());
        let word = |is_so: bool| if is_so { &b"true"[..] } else { b"false" };
        if reader.is_agreed {
            let is_new = word(!reader.is_known);
            self.ask_ddl(Step::Look, LOOK_SQL, &[channel.as_bytes(), is_new]);
        } else {
            let tags = in_utf8(&array(options.tags.iter().map(String::as_str)));
            let [temp, nested, before] = [options.temp, options.nested, options.before].map(word);
            let parameters = [channel.as_bytes(), tags.as_bytes(), temp, nested, before];
            self.ask_ddl(Step::Watch, WATCH_SQL, &parameters);
        }
        true
    }

    fn ask_ddl(&mut self, step: Step, sql: &[u8], parameters: &[&[u8]]) {
        self.session.send(std::iter::once(Command::Run { sql, parameters }));
        self.unanswered.push_back(Batch::Ddl(step));
    }

    #[cold]
    pub(super) fn ddl_answered(&mut self, step: Step, answer: Result<Rows>, now: Instant) {
        if matches!(step, Step::Fetch | Step::Convert) {
            self.fetches = self.fetches.saturating_sub(1);
        }
        let Some(reader) = self.ddl.as_deref_mut() else { return };
        match (step, answer) {
            (Step::Watch | Step::Look, Ok(rows)) => {
                reader.is_asking = false;
                reader.is_known = true;
                reader.refusals.granted(step);
                reader.refusals.recovered();
                reader.ask_by(now + LOOK_INTERVAL);
                match step {
                    Step::Watch => self.agreed_to_ddl(),
                    _ => self.looked_at_ddl(rows),
                }
            }
            (Step::Watch | Step::Look, Err(error)) => self.ddl_refused(step, error, now),
            (Step::Fetch | Step::Convert, Ok(rows)) => {
                reader.converting = None;
                match rows.as_ref().and_then(|rows| rows.value(0, 0)) {
                    Some(text) => self.tell_ddl(text),
                    None => {
                        let message =
                            "a DDL event that was too large for a notification is gone from the outbox";
                        self.report_ddl_trouble(lasting(message, SqlState::UNDEFINED_OBJECT));
                    }
                }
            }
            (Step::Convert, Err(_)) => {
                // It is told as well as may be.
                let notify = reader.converting.take();
                self.tell_ddl(notify.as_ref().map_or(&[], Notify::payload));
            }
            (Step::Fetch, Err(error)) => self.report_ddl_trouble(advised(error, OF_DDL)),
        }
    }

    fn agreed_to_ddl(&mut self) {
        let Some(reader) = self.ddl.as_deref_mut() else { return };
        (reader.is_agreed, reader.is_told) = (true, true);
        let channel = reader.channel.clone();
        // It cannot have failed: it has just answered.
        let _ = self.listen(channel);
    }

    /// What may pass is tried again, and told once. Anything else leaves nothing asked for, and the caller
    /// may ask again.
    fn ddl_refused(&mut self, step: Step, error: Error, now: Instant) {
        let Some(reader) = self.ddl.as_deref_mut() else { return };
        let passes = error.sqlstate.is_some_and(|code| code.may_pass());
        let is_news = reader.refusals.is_news(step, &error);
        (reader.is_asking, reader.ask_at) = (false, Some(now + reader.refusals.next_delay(now)));
        if is_news {
            self.report_ddl_trouble(advised(error, OF_DDL));
        }
        if step == Step::Watch && !passes {
            self.ddl = None;
            self.readers_changed();
        }
    }

    fn report_ddl_trouble(&mut self, error: Error) {
        let Some(channel) = self.ddl.as_deref().map(|reader| reader.channel.clone()) else { return };
        self.reports.push_back(Report::CommandFailed { command: "watch_ddl", channel, error });
    }

    fn looked_at_ddl(&mut self, rows: Rows) {
        let Some(reader) = self.ddl.as_deref_mut() else { return };
        let [is_asked_for, has_triggers] =
            [0, 1].map(|column| rows.as_ref().and_then(|rows| rows.value(0, column)) == Some(&[1]));
        let is_told = is_asked_for && has_triggers;
        let was_told = std::mem::replace(&mut reader.is_told, is_told);
        if is_told && !was_told {
            self.listened.insert(reader.channel.clone());
        } else if was_told && !is_told {
            let message = if is_asked_for {
                "event triggers of pgwake were dropped or disabled, and DDL is not told any more as it was; \
                 this goes on when a superuser runs `pgwake install`, or enables them"
            } else {
                "these DDL events were given up (pgwake.unwatch_ddl, or pgwake ddl --remove) and \
                 are not told any more; this goes on when somebody asks for the same again"
            };
            self.report_ddl_trouble(lasting(message, SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE));
        }
    }

    /// Takes a notification that tells of DDL; gives back any other.
    #[cold]
    pub(super) fn hear_ddl(&mut self, notify: Notify) -> Option<Notify> {
        let is_ours = |reader: &DdlReader| reader.channel.as_bytes() == notify.channel();
        let Some(reader) = self.ddl.as_deref_mut().filter(|reader| is_ours(reader)) else {
            return Some(notify);
        };
        if notify.payload() == WATCHED_PAYLOAD {
            // Anybody may say so.
            if let Some(asked_at) = reader.asked_at {
                reader.ask_by(asked_at + LOOK_INTERVAL_MIN);
            }
            return None;
        }
        if DdlCommand::read(&String::from_utf8_lossy(notify.payload())).is_none() {
            return Some(notify);
        }
        if notify.payload().is_ascii() || !self.is_converted() {
            self.tell_ddl(notify.payload());
            return None;
        }
        self.ask_ddl(Step::Convert, CONVERT, &[notify.payload()]);
        self.fetches += 1;
        self.ddl.as_deref_mut()?.converting = Some(notify);
        None
    }

    /// Tells an event, or asks for what it refers to.
    fn tell_ddl(&mut self, text: &[u8]) {
        let Some(command) = DdlCommand::read(&String::from_utf8_lossy(text)) else { return };
        match command.reference {
            Some(reference) => {
                let encoding = encoding(self.is_converted());
                self.ask_ddl(Step::Fetch, FETCH, &[reference.to_string().as_bytes(), encoding]);
                self.fetches += 1;
            }
            None => self.reports.push_back(Report::Ddl(Box::new(command))),
        }
    }
}

fn lasting(message: &str, sqlstate: SqlState) -> Error {
    Error::new(ErrorKind::Server, message).with_sqlstate(Some(sqlstate))
}
