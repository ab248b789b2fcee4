//! `pgwake listen`: prints what is notified, or runs a command for it.

use super::arguments::{Format, Listen};
use super::jobs::Jobs;
use super::output::{Output, printable, say_event};
use super::run::{Run, Take};
use super::stop::wake_on_children;
use super::{Failure, with_code};
use pgwake::{Channel, CommandFailed, Event, EventLoop, EventLoopOptions, Overflow, SessionOptions};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

pub(crate) fn run(dsn: &str, format: Format, arguments: &Listen) -> Result<(), Failure> {
    let options = EventLoopOptions::new().spin(arguments.spin).spin_adaptive(arguments.spin_adaptive);
    let mut events = EventLoop::with_options(options)?;
    let overflow = if arguments.coalesce { Overflow::Coalesce } else { Overflow::Block };
    let options = SessionOptions::new()
        .heartbeat(arguments.heartbeat)
        .skip_own(arguments.skip_own)
        .self_test(arguments.self_test)
        .overflow(overflow);
    let session = events.connect_with(dsn, options)?;
    for channel in &arguments.channels {
        events.listen(session, channel.as_bytes())?;
    }
    let mut run = Run::new(&events, format, &arguments.until)?.handing_over(&events, &arguments.delivery)?;
    let exec = &arguments.exec;
    let jobs = || Jobs::new(exec.clone(), arguments.jobs.into(), run.end.clone());
    let mut taker = Notifications((!exec.is_empty()).then(jobs));
    if taker.0.is_some() {
        wake_on_children(events.waker())?;
    }
    run.run(&mut events, &mut taker)?;
    events.disconnect(session)?;
    if let Some(mut jobs) = taker.0 {
        jobs.finish(&mut events, arguments.grace)?;
    }
    Ok(())
}

fn refused(failed: &CommandFailed<'_>) -> Failure {
    let mut sentence = "the server refused to listen on ".to_string();
    printable(&mut sentence, failed.channel.map_or(b"", Channel::as_bytes));
    Failure::Running(format!("{sentence}: {}", with_code(failed.message, failed.sqlstate)))
}

/// Printed, unless something is run for each.
struct Notifications(Option<Jobs>);

impl Take for Notifications {
    fn take(&mut self, event: &Event<'_>, output: &mut Output) -> Result<bool, Failure> {
        if let Event::CommandFailed(failed) = event
            && failed.command == "listen"
        {
            // Nothing would ever come on it, however long it is waited for.
            return Err(refused(failed));
        }
        match &mut self.0 {
            None => output.write(event)?,
            Some(jobs) => {
                if !jobs.run_for(event)? {
                    say_event(event);
                }
            }
        }
        Ok(matches!(event, Event::Notification(_)))
    }

    fn rest(&mut self, _: &mut EventLoop, _: &mut Output) -> Result<Option<Duration>, Failure> {
        self.0.as_mut().map_or(Ok(()), Jobs::go_on)?;
        Ok(None)
    }
}
