//! `pgwake listen`: prints what comes until the count is reached, the time is over, or somebody says stop.

use super::arguments::{Format, Listen};
use super::jobs::Jobs;
use super::output::Output;
use super::stop::{Stop, wake_on_children};
use super::{Failure, not_connected};
use pgwake::{Event, EventLoop, EventLoopOptions, Overflow, SessionOptions};
use std::time::{Duration, Instant};

pub(crate) fn run(dsn: &str, format: Format, arguments: &Listen) -> Result<(), Failure> {
    let until = arguments.duration.map(|duration| Instant::now() + duration);
    let mut events = EventLoop::with_options(EventLoopOptions::new().spin(arguments.spin))?;
    let overflow = if arguments.coalesce { Overflow::Coalesce } else { Overflow::Block };
    let options = SessionOptions::new()
        .heartbeat(arguments.heartbeat)
        .skip_own(arguments.skip_own)
        .self_test(arguments.self_test)
        .overflow(overflow);
    let session = events.connect_with(dsn, options)?;
    for channel in &arguments.channels {
        events.listen(session, channel)?;
    }
    let stop = Stop::on_signals(events.waker())?;
    let mut output = Output::new(format);
    let mut jobs =
        (!arguments.exec.is_empty()).then(|| Jobs::new(arguments.exec.clone(), arguments.jobs.into()));
    if jobs.is_some() {
        wake_on_children(events.waker())?;
    }
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
            jobs.as_mut().map_or(Ok(()), Jobs::go_on)?;
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
        match &mut jobs {
            Some(jobs) => jobs.run_for(&event)?,
            None => output.write(&event)?,
        }
        is_batch_open = true;
    }
    events.disconnect(session)?;
    if let Some(jobs) = jobs {
        finish(jobs, &mut events, &stop)?;
    }
    output.flush()
}

/// Runs what still waits. No event comes any more but the news that a run has ended.
fn finish(mut jobs: Jobs, events: &mut EventLoop, stop: &Stop) -> Result<(), Failure> {
    while !jobs.is_done() {
        if stop.is_asked_for() {
            jobs.stop();
        }
        events.next(None)?;
        jobs.go_on()?;
    }
    Ok(())
}
