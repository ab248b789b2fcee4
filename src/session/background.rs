//! What would make the loop wait is done elsewhere: a short-lived thread asks the name service, or sends the
//! notification of a self-test or a large command over a connection of its own, and wakes the loop with the
//! answer.

use crate::error::{Error, ErrorKind, SqlState};
use crate::event::{Channel, SessionId};
use crate::pq::{Connection, Conninfo, Format, ResultStatus, Status};
use crate::reactor::Nudge;
use crate::sys::spawn_without_signals;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What the name service said about each name: addresses, or why there are none.
pub(crate) type Addresses = HashMap<String, Result<Vec<IpAddr>, String>>;

/// What came of a job.
#[derive(Debug)]
pub(crate) enum Answer {
    Addresses(Addresses),
    /// The notification of a self-test was sent and there was time enough to hear it; or why it could not be
    /// sent.
    SelfTest(Result<(), String>),
    /// What came of the command of this number.
    Command(u64, Result<(), Error>),
}

/// Answers that the loop has not taken yet. A channel of the standard library does the same with a dozen KB
/// of code, most of it for kinds that are not used here.
#[derive(Debug, Clone, Default)]
struct Answers(Arc<Mutex<VecDeque<(SessionId, Answer)>>>);

impl Answers {
    fn push(&self, session: SessionId, answer: Answer) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back((session, answer));
    }

    fn pop(&self) -> Option<(SessionId, Answer)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

/// Runs jobs for one session.
#[derive(Debug, Clone)]
pub(crate) struct BackgroundJobs {
    session: SessionId,
    answers: Answers,
    nudge: Nudge,
}

impl BackgroundJobs {
    /// Looks the names up. The loop gets the answer, however long it takes.
    pub(super) fn look_up(&self, names: Vec<String>) -> io::Result<()> {
        self.run("pgwake-names", move || {
            let addresses = names.into_iter().map(|name| {
                let found = (name.as_str(), 0).to_socket_addrs().map_err(|error| error.to_string());
                (name, found.map(|found| found.map(|socket| socket.ip()).collect()))
            });
            Answer::Addresses(addresses.collect())
        })
    }

    /// Sends a notification over a connection of its own, and waits until it should have been heard.
    pub(super) fn notify(&self, conninfo: Conninfo, channel: Channel, patience: Duration) -> io::Result<()> {
        self.run("pgwake-test", move || {
            let sent = notify(&conninfo, &channel, patience).map_err(|error| error.to_string());
            if sent.is_ok() {
                std::thread::sleep(patience);
            }
            Answer::SelfTest(sent)
        })
    }

    /// Runs one command over a connection of its own.
    pub(super) fn command(
        &self,
        conninfo: Conninfo,
        number: u64,
        sql: &'static [u8],
        parameters: [Box<[u8]>; 2],
    ) -> io::Result<()> {
        self.run("pgwake-command", move || Answer::Command(number, command(&conninfo, sql, &parameters)))
    }

    fn run(&self, name: &str, job: impl FnOnce() -> Answer + Send + 'static) -> io::Result<()> {
        let asker = self.clone();
        spawn_without_signals(name, move || {
            asker.answers.push(asker.session, job());
            // Nobody is there to hear it when the loop is gone.
            let _ = asker.nudge.nudge();
        })
    }
}

/// Waits for as long as it takes: libpq then sends a large command in one go. Where it may not wait, it moves
/// all that is left to send with each piece that it has sent (`pqSendSome`, fe-misc.c).
fn command(conninfo: &Conninfo, sql: &[u8], parameters: &[Box<[u8]>; 2]) -> crate::error::Result<()> {
    let mut connection = Connection::connect(conninfo)?;
    let parameters = parameters.each_ref().map(|parameter| &**parameter);
    connection.send_query_inferred(sql, &parameters, Format::Text)?;
    let result = connection.result();
    if connection.status() != Status::Ok {
        return Err(outcome_unknown());
    }
    match result {
        Some(result) if result.status() == ResultStatus::Failed => Err(result.error()),
        _ => Ok(()),
    }
}

/// Of a command whose answer did not come.
pub(crate) fn outcome_unknown() -> Error {
    let message = "the connection was lost before the server answered: it may have been sent or not";
    Error::new(ErrorKind::Connection, message).with_sqlstate(Some(SqlState::OUTCOME_UNKNOWN))
}

/// All of it within `patience`: a server that is frozen must not keep the thread.
fn notify(conninfo: &Conninfo, channel: &Channel, patience: Duration) -> crate::error::Result<()> {
    let until = Instant::now() + patience;
    let mut connection = Connection::connect_until(conninfo, Some(until))?;
    connection.set_nonblocking()?;
    connection.send_query_params(
        b"SELECT pg_catalog.pg_notify($1, '')",
        &[channel.as_bytes()],
        Format::Text,
    )?;
    while !connection.flush()? || connection.is_busy() {
        connection.wait(true, false, Some(until))?;
        connection.consume_input()?;
    }
    match connection.result() {
        Some(result) if result.status() == ResultStatus::Failed => Err(result.error()),
        _ => Ok(()),
    }
}

/// The loop's end: takes the answers.
#[derive(Debug)]
pub(crate) struct Background {
    answers: Answers,
    nudge: Nudge,
}

impl Background {
    pub(crate) fn new(nudge: Nudge) -> Self {
        Background { answers: Answers::default(), nudge }
    }

    pub(crate) fn jobs(&self, session: SessionId) -> BackgroundJobs {
        BackgroundJobs { session, answers: self.answers.clone(), nudge: self.nudge.clone() }
    }

    /// The next answer, if one has come.
    pub(crate) fn next(&self) -> Option<(SessionId, Answer)> {
        self.answers.pop()
    }
}
