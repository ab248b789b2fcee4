//! `pgwake listen`: prints what comes until the count is reached, the time is over, or somebody says stop.

use super::arguments::{Format, Listen};
use super::output::Output;
use super::stop::Stop;
use super::{Failure, not_connected};
use pgwake::{Event, EventLoop, EventLoopOptions, Overflow, SessionOptions};
use std::time::{Duration, Instant};

pub(crate) fn run(dsn: &str, format: Format, arguments: &Listen) -> Result<(), Failure> {
    let until = arguments.duration.map(|duration| Instant::now() + duration);
    let mut events = EventLoop::with_options(EventLoopOptions::new().spin(arguments.spin))?;
    let overflow = if arguments.coalesce { Overflow::Coalesce } else { Overflow::Block };
    let options =
        SessionOptions::new().heartbeat(arguments.heartbeat).skip_own(arguments.skip_own).overflow(overflow);
    let session = events.connect_with(dsn, options)?;
    for channel in &arguments.channels {
        events.listen(session, channel)?;
    }
    let stop = Stop::on_signals(events.waker())?;
    let mut output = Output::new(format);
    let (mut is_connected, mut left) = (false, arguments.count.unwrap_or(u64::MAX));
    // A batch is written when the loop has nothing more at hand; only then may it sleep.
    let mut is_batch_open = false;
    while left > 0 && !stop.is_asked_for() {
        let remaining = until.map(|until| until.saturating_duration_since(Instant::now()));
        if remaining == Some(Duration::ZERO) {
            break;
        }
        let Some(event) = events.next(if is_batch_open { Some(Duration::ZERO) } else { remaining })? else {
            output.flush()?;
            is_batch_open = false;
            continue;
        };
        match event {
            Event::Notification(_) => left -= 1,
            Event::Listening(_) => is_connected = true,
            Event::Disconnected(lost) if !is_connected => {
                return Err(not_connected(lost.message, lost.sqlstate));
            }
            Event::Failed(failed) => {
                output.write(&event)?;
                output.flush()?;
                return Err(not_connected(failed.message, failed.sqlstate));
            }
            _ => {}
        }
        output.write(&event)?;
        is_batch_open = true;
    }
    output.flush()
}
