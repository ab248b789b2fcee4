//! DDL over a session: the schema `pgwake` notifies of each command on a channel that stands for what was
//! asked for.

use super::advice::{OF_DDL, advised};
use super::link::Link;
use super::readers::Reader;
use super::refusals::Refusals;
use super::statements::{
    CONVERT, FETCH, LOOK_INTERVAL, LOOK_INTERVAL_MIN, WATCHED_PAYLOAD, array, encoding, in_utf8,
};
use super::tag::{DdlRequest, Tag};
use crate::decode::ddl::DdlCommand;
use crate::error::{Error, ErrorKind, Result, SqlState};
use crate::event::{Channel, DdlPhase};
use crate::options::DdlOptions;
use crate::pq::Notify;
use crate::session::Rows;
use crate::source::report::Report;
use std::ops::ControlFlow;
use std::time::Instant;

const WATCH_SQL: &[u8] =
    b"SELECT pgwake.watch_ddl($1, nullif(pg_catalog.convert_from($2::bytea, 'UTF8'), '')::text[], \
    $3::bool, $4::bool, $5::text[]), pg_catalog.pg_try_advisory_lock_shared(1885828971, pgwake.ddl_lock($1))";
/// Whether somebody asks for them, and whether all event triggers are there and on. On a new connection the
/// database is told that they have a reader, too, unless somebody has the lock, for which no reader waits.
const LOOK_SQL: &[u8] = b"SELECT w.channel IS NOT NULL, (SELECT pg_catalog.count(*) = \
    CASE WHEN w.tags OPERATOR(pg_catalog.@>) '{login}' THEN 5 ELSE 4 END FROM pg_catalog.pg_event_trigger \
    WHERE evtenabled IN ('O', 'A') AND (evtname IN ('pgwake_ddl_command_end', 'pgwake_sql_drop', \
    'pgwake_table_rewrite', '!pgwake_ddl_command_start') OR evtname = 'pgwake_login' \
    AND w.tags OPERATOR(pg_catalog.@>) '{login}')), \
    CASE WHEN $2::bool THEN pg_catalog.pg_try_advisory_lock_shared(1885828971, pgwake.ddl_lock($1)) END \
    FROM (SELECT) one LEFT JOIN pgwake.ddl_watch w ON w.channel = $1";

/// A reader of DDL events.
#[derive(Debug)]
pub(super) struct DdlReader {
    options: DdlOptions,
    channel: Channel,
    progress: Progress,
    /// When the server is asked next whether it notifies still, or to do so; and when it was asked last.
    ask_at: Option<Instant>,
    asked_at: Option<Instant>,
    /// One question at a time.
    is_asking: bool,
    /// On this connection the database knows that they have a reader.
    is_known: bool,
    refusals: Refusals<DdlRequest>,
    /// An event that the server puts into UTF-8 for us.
    converting: Option<Notify>,
}

/// How far the server is with what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Asked,
    /// It has agreed, and notifies.
    Notified,
    /// It had agreed, and does not notify any more.
    Silent,
}

impl DdlReader {
    pub(super) fn new(options: DdlOptions) -> Self {
        let channel = options.channel();
        DdlReader {
            options,
            channel,
            progress: Progress::Asked,
            ask_at: None,
            asked_at: None,
            is_asking: false,
            is_known: false,
            refusals: Refusals::default(),
            converting: None,
        }
    }

    /// It is asked again then, or before that if somebody said that there is something new.
    fn ask_by(&mut self, at: Instant) {
        self.ask_at = Some(self.ask_at.map_or(at, |sooner| sooner.min(at)));
    }

    fn agreed(&mut self, link: &mut Link) {
        self.progress = Progress::Notified;
        link.channels.subscribe(self.channel.clone());
    }

    /// What may pass is tried again, and reported once. Anything else leaves nothing asked for, and the
    /// caller may ask again.
    fn refused(
        &mut self,
        link: &mut Link,
        request: DdlRequest,
        error: Error,
        now: Instant,
    ) -> ControlFlow<()> {
        let passes = error.sqlstate.is_some_and(|code| code.may_pass());
        let is_news = self.refusals.is_news(request, &error);
        (self.is_asking, self.ask_at) = (false, Some(now + self.refusals.next_delay(now)));
        if is_news {
            report_trouble(link, advised(error, OF_DDL));
        }
        if request == DdlRequest::Watch && !passes {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    fn looked(&mut self, link: &mut Link, rows: Rows) {
        let [is_asked_for, has_triggers] =
            [0, 1].map(|column| rows.as_ref().and_then(|rows| rows.value(0, column)) == Some(&[1]));
        let (was, is) =
            (self.progress, if is_asked_for && has_triggers { Progress::Notified } else { Progress::Silent });
        self.progress = is;
        if is == Progress::Notified && was == Progress::Silent {
            link.channels.confirm(self.channel.clone());
        } else if is == Progress::Silent && was == Progress::Notified {
            let message = if is_asked_for {
                "event triggers of pgwake were dropped or disabled, and not all DDL is delivered any more; \
                 this goes on when a superuser runs `pgwake install`, or enables them"
            } else {
                "these DDL events were given up (pgwake.unwatch_ddl, or pgwake ddl --remove) and \
                 are not delivered any more; this goes on when somebody asks for the same again"
            };
            report_trouble(link, lasting(message, SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE));
        }
    }

    /// Reports an event, or asks for what it refers to.
    fn deliver(&self, link: &mut Link, text: &[u8]) {
        let Some(command) = DdlCommand::read(&String::from_utf8_lossy(text)) else { return };
        match command.reference {
            Some(reference) => {
                let (reference, encoding) = (reference.to_string(), encoding(link.is_converted()));
                link.send(Tag::Ddl(DdlRequest::Fetch), Some(FETCH), &[reference.as_bytes(), encoding]);
            }
            None => link.reports.push_back(Report::Ddl(Box::new(command))),
        }
    }
}

impl Reader for DdlReader {
    type Request = DdlRequest;

    #[cold]
    fn opened(&mut self, link: &mut Link, now: Instant) {
        link.make_lasting();
        self.ask_at = Some(now);
    }

    fn lost(&mut self) {
        (self.ask_at, self.is_asking, self.is_known) = (None, false, false);
        self.converting = None;
    }

    #[cold]
    fn heard(&mut self, link: &mut Link, notify: Notify) -> Option<Notify> {
        if self.channel.as_bytes() != notify.channel() {
            return Some(notify);
        }
        if notify.payload() == WATCHED_PAYLOAD {
            // Anybody may say so.
            if let Some(asked_at) = self.asked_at {
                self.ask_by(asked_at + LOOK_INTERVAL_MIN);
            }
            return None;
        }
        if DdlCommand::read(&String::from_utf8_lossy(notify.payload())).is_none() {
            return Some(notify);
        }
        if notify.payload().is_ascii() || !link.is_converted() {
            self.deliver(link, notify.payload());
            return None;
        }
        link.send(Tag::Ddl(DdlRequest::Convert), Some(CONVERT), &[notify.payload()]);
        self.converting = Some(notify);
        None
    }

    #[cold]
    fn answered(
        &mut self,
        link: &mut Link,
        request: DdlRequest,
        answer: Result<Rows>,
        now: Instant,
    ) -> ControlFlow<()> {
        match (request, answer) {
            (DdlRequest::Watch | DdlRequest::Look, Ok(rows)) => {
                (self.is_asking, self.is_known) = (false, true);
                self.refusals.granted(request);
                self.refusals.recovered();
                self.ask_by(now + LOOK_INTERVAL);
                match request {
                    DdlRequest::Watch => self.agreed(link),
                    _ => self.looked(link, rows),
                }
            }
            (DdlRequest::Watch | DdlRequest::Look, Err(error)) => {
                return self.refused(link, request, error, now);
            }
            (DdlRequest::Fetch | DdlRequest::Convert, Ok(rows)) => {
                self.converting = None;
                match rows.as_ref().and_then(|rows| rows.value(0, 0)) {
                    Some(text) => self.deliver(link, text),
                    None => {
                        let message =
                            "a DDL event that was too large for a notification is gone from the outbox";
                        report_trouble(link, lasting(message, SqlState::UNDEFINED_OBJECT));
                    }
                }
            }
            // It is delivered as well as may be.
            (DdlRequest::Convert, Err(_)) => {
                if let Some(notify) = self.converting.take() {
                    self.deliver(link, notify.payload());
                }
            }
            (DdlRequest::Fetch, Err(error)) => report_trouble(link, advised(error, OF_DDL)),
        }
        ControlFlow::Continue(())
    }

    /// Asks for DDL events until the server agrees, and from then on whether it notifies still.
    #[cold]
    fn step(&mut self, link: &mut Link, now: Instant) -> bool {
        if self.deadline().is_none_or(|at| at > now) {
            return false;
        }
        (self.is_asking, self.ask_at, self.asked_at) = (true, None, Some(now));
        let (options, channel) = (&self.options, self.channel.as_bytes());
        let word = |is_so: bool| if is_so { &b"true"[..] } else { b"false" };
        if self.progress == Progress::Asked {
            let tags = in_utf8(&array(options.tags.iter().map(String::as_str)));
            let [temp, nested] = [options.temp, options.nested].map(word);
            let phases = array(options.phases().iter().map(DdlPhase::as_str));
            let parameters = [channel, tags.as_bytes(), temp, nested, phases.as_bytes()];
            link.send(Tag::Ddl(DdlRequest::Watch), Some(WATCH_SQL), &parameters);
        } else {
            let is_new = word(!self.is_known);
            link.send(Tag::Ddl(DdlRequest::Look), Some(LOOK_SQL), &[channel, is_new]);
        }
        true
    }

    fn deadline(&self) -> Option<Instant> {
        self.ask_at.filter(|_| !self.is_asking)
    }
}

fn report_trouble(link: &mut Link, error: Error) {
    link.report_failure("watch_ddl", None, error);
}

fn lasting(message: &str, sqlstate: SqlState) -> Error {
    Error::new(ErrorKind::Server, message).with_sqlstate(Some(sqlstate))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pq::rows;
    use crate::source::sql::link::tests::link;

    fn answer(reader: &mut DdlReader, link: &mut Link, answer: Result<Rows>, now: Instant) -> bool {
        assert!(reader.step(link, now) && !reader.step(link, now), "one question at a time");
        let request = if reader.progress == Progress::Asked { DdlRequest::Watch } else { DdlRequest::Look };
        reader.answered(link, request, answer, now).is_continue()
    }

    /// The code of what is reported, if something is.
    fn reported(link: &mut Link) -> Option<String> {
        match link.reports.pop_front()? {
            Report::CommandFailed { command: "watch_ddl", channel: None, error } => {
                Some(error.sqlstate.unwrap().to_string())
            }
            other => panic!("{other:?}"),
        }
    }

    fn refusal(code: &str) -> Result<Rows> {
        Err(Error::new(ErrorKind::Server, "no").with_sqlstate(SqlState::new(code)))
    }

    #[test]
    fn it_asks_until_the_server_agrees_and_then_whether_it_still_notifies() {
        let mut now = Instant::now();
        let mut link = link("", now);
        let mut reader = DdlReader::new(DdlOptions::new());
        assert!(!reader.step(&mut link, now), "there is no connection");
        reader.opened(&mut link, now);
        // What may pass is reported once, and asked for again.
        for expected in [Some("55P03".into()), None] {
            assert!(answer(&mut reader, &mut link, refusal("55P03"), now));
            assert_eq!(reported(&mut link), expected);
            now = reader.deadline().unwrap();
        }
        assert!(answer(&mut reader, &mut link, Ok(None), now));
        assert!(link.channels.is_wanted(&reader.channel));
        let (yes, no) = (Some("\u{1}"), Some("\u{0}"));
        for (is_asked_for, has_triggers, expected, is_confirmed) in [
            (yes, yes, None, false),
            (no, yes, Some("55000".into()), false),
            (no, no, None, false),
            (yes, no, None, false),
            (yes, yes, None, true),
        ] {
            now = reader.deadline().unwrap();
            let looked = rows(&[[is_asked_for, has_triggers, None]]);
            assert!(answer(&mut reader, &mut link, Ok(Some(looked)), now));
            assert_eq!((reported(&mut link), link.channels.has_confirmed()), (expected, is_confirmed));
        }
        reader.lost();
        assert_eq!(reader.deadline(), None);
    }

    #[test]
    fn what_is_refused_for_good_ends_it() {
        let now = Instant::now();
        let mut link = link("", now);
        let mut reader = DdlReader::new(DdlOptions::new());
        reader.opened(&mut link, now);
        assert!(!answer(&mut reader, &mut link, refusal("42501"), now));
        assert_eq!(reported(&mut link), Some("42501".into()));
    }
}
