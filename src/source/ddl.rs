//! DDL over a session: the schema `pgwake` notifies of each command on a channel that stands for what was
//! asked for.

use super::Report;
use super::channels::{Batch, ChannelSource};
use super::outbox::{CONVERT, WATCHED_PAYLOAD, array, fetch, from_hex, in_utf8};
use crate::decode::ddl::DdlCommand;
use crate::error::{Error, ErrorKind, Result, SqlState};
use crate::event::Channel;
use crate::options::DdlOptions;
use crate::pq::Notify;
use crate::session::{Command, Rows};

const WATCH_SQL: &[u8] =
    b"SELECT pgwake.watch_ddl($1, nullif(pg_catalog.convert_from($2::bytea, 'UTF8'), '')::text[], \
    $3::bool, $4::bool, $5::bool), pg_catalog.pg_advisory_lock_shared(1885828971, pgwake.ddl_lock($1))";
/// Whether the database tells them; on a new connection that it has a reader, too.
const LOOK_SQL: &[u8] =
    b"SELECT EXISTS (SELECT FROM pgwake.ddl_watch w WHERE w.channel = $1), CASE WHEN $2::bool \
    THEN pg_catalog.pg_advisory_lock_shared(1885828971, pgwake.ddl_lock($1))::text END";

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
    /// An event that the server puts into UTF-8 for us.
    converting: Option<Notify>,
}

impl DdlReader {
    pub(super) fn new(options: DdlOptions) -> Self {
        let channel = options.channel();
        DdlReader { options, channel, is_agreed: false, is_told: false, converting: None }
    }
}

impl ChannelSource {
    pub(crate) fn watch_ddl(&mut self, options: DdlOptions) -> Result<()> {
        self.refuse_if_failed()?;
        if self.ddl.is_some() {
            let message = "the session hears of DDL already: connect another session";
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        self.ddl = Some(Box::new(DdlReader::new(options)));
        self.is_plain = false;
        self.begin_ddl();
        Ok(())
    }

    /// Asks for DDL events once, and looks on each further connection whether they are still told.
    #[cold]
    pub(super) fn begin_ddl(&mut self) {
        if !self.is_listening {
            return;
        }
        let Some(DdlReader { options, channel, is_agreed, .. }) = self.ddl.as_deref() else { return };
        if *is_agreed {
            return self.look_at_ddl(true);
        }
        let (tags, channel) = (in_utf8(&array(options.tags.iter().map(String::as_str))), channel.clone());
        let word = |is_so: bool| if is_so { &b"true"[..] } else { b"false" };
        let [temp, nested, before] = [options.temp, options.nested, options.before].map(word);
        self.ask_ddl(Step::Watch, WATCH_SQL, &[channel.as_bytes(), tags.as_bytes(), temp, nested, before]);
    }

    fn look_at_ddl(&mut self, is_connected_anew: bool) {
        let Some(channel) = self.ddl.as_deref().map(|reader| reader.channel.clone()) else { return };
        let is_connected_anew: &[u8] = if is_connected_anew { b"true" } else { b"false" };
        self.ask_ddl(Step::Look, LOOK_SQL, &[channel.as_bytes(), is_connected_anew]);
    }

    fn ask_ddl(&mut self, step: Step, sql: &[u8], parameters: &[&[u8]]) {
        self.session.send(std::iter::once(Command::Run { sql, parameters }));
        self.unanswered.push_back(Batch::Ddl(step));
    }

    #[cold]
    pub(super) fn ddl_answered(&mut self, step: Step, answer: Result<Rows>) {
        if matches!(step, Step::Fetch | Step::Convert) {
            self.fetches = self.fetches.saturating_sub(1);
        }
        let is_hex = step == Step::Convert || self.is_converted();
        let Some(reader) = self.ddl.as_deref_mut() else { return };
        let channel = reader.channel.clone();
        match (step, answer) {
            (Step::Watch, Ok(_)) => {
                (reader.is_agreed, reader.is_told) = (true, true);
                // It cannot have failed: it has just answered.
                let _ = self.listen(channel);
            }
            (Step::Look, Ok(rows)) => {
                self.looked_at_ddl(rows.as_ref().and_then(|rows| rows.value(0, 0)) == Some(b"t"));
            }
            (Step::Fetch | Step::Convert, Ok(rows)) => {
                reader.converting = None;
                let text = rows.as_ref().and_then(|rows| rows.value(0, 2));
                let bytes = text.map(|text| if is_hex { from_hex(text) } else { text.to_vec() });
                self.tell_ddl(&bytes.unwrap_or_default());
            }
            (Step::Convert, Err(_)) => {
                // It is told as well as may be.
                let notify = reader.converting.take();
                self.tell_ddl(notify.as_ref().map_or(&[], Notify::payload));
            }
            (Step::Watch, Err(error)) => {
                // Nothing is asked for, and the caller may ask again.
                self.ddl = None;
                self.report_ddl_trouble(channel, advised(error));
            }
            (_, Err(error)) => self.report_ddl_trouble(channel, advised(error)),
        }
    }

    fn report_ddl_trouble(&mut self, channel: Channel, error: Error) {
        self.reports.push_back(Report::CommandFailed { command: "watch_ddl", channel, error });
    }

    fn looked_at_ddl(&mut self, is_told: bool) {
        let Some(reader) = self.ddl.as_deref_mut() else { return };
        let (was_told, channel) = (std::mem::replace(&mut reader.is_told, is_told), reader.channel.clone());
        if is_told && !was_told {
            self.listened.insert(channel);
        } else if was_told && !is_told {
            let message = "these DDL events were given up (pgwake.unwatch_ddl, or pgwake ddl --remove) and \
                are not told any more; this goes on when somebody asks for the same again";
            let error = Error::new(ErrorKind::Server, message)
                .with_sqlstate(Some(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE));
            self.report_ddl_trouble(channel, error);
        }
    }

    /// Takes a notification that tells of DDL; gives back any other.
    #[cold]
    pub(super) fn hear_ddl(&mut self, notify: Notify) -> Option<Notify> {
        let is_ours = |reader: &DdlReader| reader.channel.as_bytes() == notify.channel();
        if !self.ddl.as_deref().is_some_and(is_ours) {
            return Some(notify);
        }
        if notify.payload() == WATCHED_PAYLOAD {
            self.look_at_ddl(false);
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
                let fetch = fetch(self.is_converted());
                self.ask_ddl(Step::Fetch, fetch, &[reference.to_string().as_bytes()]);
                self.fetches += 1;
            }
            None => self.reports.push_back(Report::Ddl(Box::new(command))),
        }
    }
}

/// What to do about it.
fn advised(error: Error) -> Error {
    let advice = match error.sqlstate.as_ref().map(SqlState::as_str) {
        Some("3F000" | "42883") => "run `pgwake install` in this database first",
        Some("42501") => {
            "grant this role USAGE on the schema pgwake, SELECT, INSERT and UPDATE on its table ddl_watch, \
             and EXECUTE on watch_ddl, mode, follow_login, tell_ddl_readers, ring, ddl_lock and fetch"
        }
        Some("55000") => "let a superuser run `pgwake install`",
        _ => return error,
    };
    Error { message: format!("{}; {advice}", error.message), ..error }
}
