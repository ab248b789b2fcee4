//! DDL over a session: the schema `pgwake` notifies of each command on a channel that stands for what was
//! asked for.

use super::Report;
use super::channels::{Batch, ChannelSource};
use super::outbox::{FETCH_SQL, advised, array};
use crate::decode::ddl::DdlCommand;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Channel;
use crate::options::DdlOptions;
use crate::pq::Notify;
use crate::session::{Command, Rows};

const WATCH_SQL: &[u8] = b"SELECT pgwake.watch_ddl($1, nullif($2, '')::text[], $3::bool, $4::bool)";

/// What was asked of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Watch,
    Fetch,
}

/// A reader of DDL events.
#[derive(Debug)]
pub(super) struct DdlReader {
    options: DdlOptions,
    channel: Channel,
    /// The server knows what is asked for.
    is_watching: bool,
}

impl DdlReader {
    pub(super) fn new(options: DdlOptions) -> Self {
        let channel = options.channel();
        DdlReader { options, channel, is_watching: false }
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

    /// Asks for DDL events, once.
    #[cold]
    pub(super) fn begin_ddl(&mut self) {
        let Some(DdlReader { options, channel, is_watching: false }) = self.ddl.as_deref() else { return };
        if !self.is_listening {
            return;
        }
        let tags = array(options.tags.iter().map(String::as_str));
        let word = |is_so: bool| if is_so { &b"true"[..] } else { b"false" };
        let parameters: &[&[u8]] =
            &[channel.as_bytes(), tags.as_bytes(), word(options.temp), word(options.nested)];
        self.session.send(std::iter::once(Command::Run { sql: WATCH_SQL, parameters }));
        self.unanswered.push_back(Batch::Ddl(Step::Watch));
    }

    #[cold]
    pub(super) fn ddl_answered(&mut self, step: Step, answer: Result<Rows>) {
        if step == Step::Fetch {
            self.fetches = self.fetches.saturating_sub(1);
        }
        let Some(reader) = self.ddl.as_deref_mut() else { return };
        match (step, answer) {
            (Step::Watch, Ok(_)) => {
                reader.is_watching = true;
                let channel = reader.channel.clone();
                // It cannot have failed: it has just answered.
                let _ = self.listen(channel);
            }
            (Step::Fetch, Ok(Some(rows))) => {
                let text = rows.value(0, 2).map(String::from_utf8_lossy);
                self.reports
                    .extend(text.and_then(|text| DdlCommand::read(&text)).map(|c| Report::Ddl(Box::new(c))));
            }
            (Step::Fetch, Ok(None)) => {}
            (_, Err(error)) => {
                let channel = reader.channel.clone();
                let error = advised(error);
                self.reports.push_back(Report::CommandFailed { command: "watch_ddl", channel, error });
            }
        }
    }

    /// Takes a notification that tells of DDL; gives back any other.
    #[cold]
    pub(super) fn hear_ddl(&mut self, notify: Notify) -> Option<Notify> {
        let is_ours = |reader: &DdlReader| reader.channel.as_bytes() == notify.channel();
        if !self.ddl.as_deref().is_some_and(is_ours) {
            return Some(notify);
        }
        let Some(command) = DdlCommand::read(&String::from_utf8_lossy(notify.payload())) else {
            return Some(notify);
        };
        match command.reference {
            Some(reference) => {
                let (sql, reference) = (FETCH_SQL, reference.to_string());
                self.session.send(std::iter::once(Command::Run { sql, parameters: &[reference.as_bytes()] }));
                self.unanswered.push_back(Batch::Ddl(Step::Fetch));
                self.fetches += 1;
            }
            None => self.reports.push_back(Report::Ddl(Box::new(command))),
        }
        None
    }
}
