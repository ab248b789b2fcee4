//! `pgwake publish` and `subscribe`: durable messages, written into the server's log as `notify` sends
//! notifications, and read from it as `stream` reads changes.

mod arguments;

use super::values::{Format, Payloads};
use super::{Failure, notify, stream};
pub(crate) use arguments::Subscribe;
use pgwake::{Channel, StreamOptions};
use std::os::unix::ffi::OsStrExt;

pub(crate) fn publish(dsn: &str, payloads: &Payloads) -> Result<(), Failure> {
    notify::send_all(dsn, payloads, "message", |events, session, channel, payload| {
        events.publish(session, channel, payload)
    })
}

pub(crate) fn subscribe(dsn: &str, format: Format, arguments: &Subscribe) -> Result<(), Failure> {
    if let Some(slot) = arguments.slot.as_ref().filter(|_| arguments.drop_slot) {
        return stream::drop_slot(dsn, slot);
    }
    let mut options = StreamOptions::new()
        .create_slot(true)
        .temporary(arguments.temporary)
        .failover(arguments.failover)
        .heartbeat(arguments.heartbeat);
    options = arguments.slot.iter().fold(options, |options, slot| options.slot(slot));
    for channel in &arguments.channels {
        options = options.channel(Channel::new(channel.as_bytes())?);
    }
    let is_kept = arguments.slot.is_some() && !arguments.temporary;
    stream::subscribe(dsn, options, (format, &arguments.until, &arguments.delivery), is_kept)
}
