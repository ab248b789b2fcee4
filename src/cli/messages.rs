//! `pgwake publish` and `subscribe`: durable messages, written into the server's log as `notify` sends
//! notifications, and read from it as `stream` reads changes.

use super::arguments::{Format, Until, duration};
use super::notify::{self, Input};
use super::{Failure, stream};
use clap::Args;
use pgwake::{Channel, EventLoop, SessionOptions, StreamOptions};
use std::time::Duration;

/// A server may write a large message for so long before it answers.
const HEARTBEAT: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
#[command(after_help = "\
Each message is a transaction of its own; in one of yours, call pg_logical_emit_message(true,
'channel', 'payload'). It is kept for those slots of the database that are there by then: make them
first, with `pgwake subscribe CHANNEL --slot NAME`.")]
pub(crate) struct Publish {
    /// The name of the channel: exact, never folded to lower case, 1 to 63 bytes
    channel: String,

    /// The payload, any bytes, up to 1,000,000,000; - reads it from stdin as it stands
    payload: Option<String>,

    /// Publish each line of stdin as a payload, one after the other, without waiting for each
    #[arg(long, conflicts_with = "payload")]
    lines: bool,
}

#[derive(Debug, Args)]
#[command(
    override_usage = "\
pgwake subscribe <CHANNEL>... [--slot <SLOT>] [OPTIONS]
       pgwake subscribe --slot <SLOT> --drop-slot",
    after_help = "\
Messages come at least once, in commit order; one that comes again has the same position. A line is
acknowledged when it is written. Without --slot the server keeps nothing for the next run. With
--slot the next run goes on where this one ended, and until then the server keeps its log for it: when the slot
is not needed any more, --drop-slot, or the disk fills up.

It needs wal_level = logical, a role with REPLICATION, and once CREATE in the database, for a
publication without tables, pgwake_messages. `pgwake check` tells. For messages among the
changes of tables, or of all channels: `pgwake stream --table TABLE --messages`."
)]
pub(crate) struct Subscribe {
    /// Names of channels: exact, never folded to lower case, 1 to 63 bytes
    #[arg(required_unless_present = "drop_slot", conflicts_with = "drop_slot", value_name = "CHANNEL")]
    channels: Vec<String>,

    #[command(flatten)]
    until: Until,

    /// The slot of this name: made if it is missing, and kept when the command ends
    #[arg(long, value_name = "SLOT")]
    slot: Option<String>,

    /// The slot goes with the connection, as it does without --slot
    #[arg(long, requires = "slot")]
    temporary: bool,

    /// Drop the slot and end: the server need not keep its log for it any more
    #[arg(long, requires = "slot")]
    drop_slot: bool,

    /// Ask a silent server for a sign of life that often; 0s: never
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "5s")]
    heartbeat: Duration,
}

pub(crate) fn publish(dsn: &str, arguments: &Publish) -> Result<(), Failure> {
    let channel = Channel::new(&arguments.channel)?;
    let mut events = EventLoop::new()?;
    let session = events.connect_with(dsn, SessionOptions::new().heartbeat(HEARTBEAT))?;
    let input = Input { payload: arguments.payload.as_deref(), lines: arguments.lines };
    let send = |events: &mut EventLoop, payload: &[u8]| events.publish(session, &channel, payload);
    notify::send_all(events, input, "message", send)
}

pub(crate) fn subscribe(dsn: &str, format: Format, arguments: &Subscribe) -> Result<(), Failure> {
    if let Some(slot) = arguments.slot.as_ref().filter(|_| arguments.drop_slot) {
        return stream::drop_slot(dsn, slot);
    }
    let mut options =
        StreamOptions::new().create_slot(true).temporary(arguments.temporary).heartbeat(arguments.heartbeat);
    options = arguments.slot.iter().fold(options, |options, slot| options.slot(slot));
    for channel in &arguments.channels {
        options = options.channel(Channel::new(channel)?);
    }
    let is_kept = arguments.slot.is_some() && !arguments.temporary;
    stream::subscribe(dsn, format, options, &arguments.until, is_kept)
}
