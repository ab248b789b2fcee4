//! What a source reports besides notifications and changes: events that own their data.

use crate::decode::ddl::DdlCommand;
use crate::error::{Error, SqlState};
use crate::event::{
    Acknowledged, Channel, CommandFailed, Disconnected, Event, Failed, Gap, GapReason, Listening, Sent,
    SessionId,
};
use crate::metrics::Metrics;
use std::time::{Duration, Instant, SystemTime};

/// An event until the caller asks for the next one.
#[derive(Debug)]
pub(crate) enum Report {
    Listening { channels: Vec<Channel>, backend_pid: i32, server_version: String, host: String },
    Gap { channels: Vec<Channel>, outage: Outage },
    Overflow { channels: Vec<Channel>, dropped: u64, message: &'static str },
    Replaced { channels: Vec<Channel> },
    Disconnected { error: Error, retry_in: Duration },
    Failed { error: Error },
    CommandFailed { command: &'static str, channel: Option<Channel>, error: Error },
    Sent { count: u64 },
    Ddl(Box<DdlCommand>),
    Acknowledged { id: u64 },
}

/// A gap that is found now.
fn gap<'a>(
    session: SessionId,
    db: &'a str,
    channels: &'a [Channel],
    reason: GapReason,
    message: &'a str,
    dropped: u64,
) -> Gap<'a> {
    let lost_at = SystemTime::now();
    Gap { session, db, channels, reason, sqlstate: None, message, lost_at, attempts: 0, dropped }
}

/// From the loss of a connection until all channels listen again.
#[derive(Debug)]
pub(crate) struct Outage {
    pub(crate) error: Error,
    pub(crate) lost_at: Instant,
    pub(crate) attempts: u32,
}

impl Report {
    /// Counts what is reported.
    pub(crate) fn count_into(&self, metrics: &mut Metrics) {
        match self {
            Report::Gap { .. } => {
                metrics.gaps += 1;
                metrics.reconnects += 1;
            }
            Report::Overflow { dropped, .. } => {
                metrics.gaps += 1;
                metrics.dropped += dropped;
            }
            Report::Replaced { .. } => metrics.gaps += 1,
            _ => {}
        }
    }

    /// The event that borrows from this report. `now` turns the time of a loss into calendar time.
    pub(crate) fn as_event<'a>(&'a self, session: SessionId, db: &'a str, now: Instant) -> Event<'a> {
        let parts = |error: &'a Error| -> (Option<SqlState>, &'a str) { (error.sqlstate, &error.message) };
        match self {
            Report::Listening { channels, backend_pid, server_version, host } => {
                Event::Listening(Listening {
                    session,
                    db,
                    channels,
                    backend_pid: *backend_pid,
                    server_version,
                    host,
                })
            }
            Report::Gap { channels, outage } => {
                let (sqlstate, message) = parts(&outage.error);
                let lost_at = SystemTime::now() - now.saturating_duration_since(outage.lost_at);
                let (attempts, gap) =
                    (outage.attempts, gap(session, db, channels, GapReason::Outage, message, 0));
                Event::Gap(Gap { sqlstate, lost_at, attempts, ..gap })
            }
            Report::Overflow { channels, dropped, message } => {
                Event::Gap(gap(session, db, channels, GapReason::Overflow, message, *dropped))
            }
            Report::Replaced { channels } => {
                let message = "the database is another than it was, restored or copied, and what was not \
                               read of the original is missing";
                Event::Gap(gap(session, db, channels, GapReason::Replaced, message, 0))
            }
            Report::Disconnected { error, retry_in } => {
                let (sqlstate, message) = parts(error);
                Event::Disconnected(Disconnected { session, db, sqlstate, message, retry_in: *retry_in })
            }
            Report::Failed { error } => {
                let (sqlstate, message) = parts(error);
                Event::Failed(Failed { session, db, sqlstate, message })
            }
            Report::CommandFailed { command, channel, error } => {
                let ((sqlstate, message), channel) = (parts(error), channel.as_ref());
                Event::CommandFailed(CommandFailed { session, db, command, channel, sqlstate, message })
            }
            Report::Sent { count } => Event::Sent(Sent { session, db, count: *count }),
            Report::Ddl(command) => Event::Ddl(command.as_event(session, db)),
            Report::Acknowledged { id } => Event::Acknowledged(Acknowledged { session, db, id: *id }),
        }
    }
}
