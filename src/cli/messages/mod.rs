//! `pgwake publish` and `subscribe`: durable messages, written into the server's log as `notify` sends
//! notifications, and read from it as `stream` reads changes.

mod arguments;

use super::notify::{self, Input};
use super::values::Format;
use super::{Failure, stream};
pub(crate) use arguments::{Publish, Subscribe};
use pgwake::{Channel, EventLoop, StreamOptions};
use std::os::unix::ffi::OsStrExt;

pub(crate) fn publish(dsn: &str, arguments: &Publish) -> Result<(), Failure> {
    let channel = Channel::new(arguments.channel.as_bytes())?;
    let mut events = EventLoop::new()?;
    let session = events.connect(dsn)?;
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
        options = options.channel(Channel::new(channel.as_bytes())?);
    }
    let is_kept = arguments.slot.is_some() && !arguments.temporary;
    stream::subscribe(dsn, options, (format, &arguments.until, &arguments.delivery), is_kept)
}
