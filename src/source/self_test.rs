//! Whether what is notified arrives: a pooler in transaction mode takes LISTEN and delivers nothing. Before a
//! session listens for the first time, it listens on a channel of its own, and is notified over another
//! connection.

use super::channels::{Batch, ChannelSource};
use super::requests::listen_sql;
use crate::error::{Error, ErrorKind, Result, SqlState};
use crate::event::Channel;
use std::hash::{BuildHasher, Hasher, RandomState};

/// A test that has not been passed yet.
#[derive(Debug)]
pub(super) struct SelfTest {
    channel: Channel,
    /// The server says that it listens.
    is_listening: bool,
    /// The notification is being sent, elsewhere; it is not sent anew before that is over.
    is_running: bool,
    /// The connection for which it is sent is no more.
    is_stale: bool,
}

/// What was said over the session's own connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// LISTEN.
    Listen,
    /// Nothing, when the notification has been sent long ago: a server tells what it has before it answers.
    Over,
    /// UNLISTEN.
    Unlisten,
}

impl SelfTest {
    pub(super) fn new() -> Self {
        // The hash of nothing under fresh random keys is a random number: a channel that nobody else uses.
        let random = RandomState::new().build_hasher().finish();
        let channel = Channel::of_name(&format!("pgwake self-test {random:016x}"));
        SelfTest { channel, is_listening: false, is_running: false, is_stale: false }
    }
}

impl ChannelSource {
    /// On a new connection: `false` when there is nothing to test (any more).
    #[cold]
    pub(super) fn begin_self_test(&mut self) -> bool {
        let Some(test) = &self.self_test else { return false };
        let sql = listen_sql(true, &test.channel);
        self.send(Some(sql), Batch::SelfTest(Step::Listen));
        true
    }

    #[cold]
    pub(super) fn self_tested(&mut self, step: Step, answer: Result<()>) {
        match (step, answer) {
            (Step::Listen, Ok(())) => self.notify_ourselves(),
            (Step::Over, Ok(())) => {
                self.look_for_self_test();
                if self.self_test.is_some() {
                    self.fail_self_test();
                }
            }
            (Step::Unlisten, Ok(())) => self.prepare_channels(),
            // Whatever else is wrong with this server or connection is not the test's to say.
            (_, Err(error)) => self.session().fail(error),
        }
    }

    fn notify_ourselves(&mut self) {
        let Some(test) = &mut self.self_test else { return };
        test.is_listening = true;
        if std::mem::replace(&mut test.is_running, true) {
            return;
        }
        let channel = test.channel.clone();
        if let Err(error) = self.session().notify_otherwise(channel) {
            self.abandon_self_test(&error.to_string());
        }
    }

    /// The connection is lost.
    pub(super) fn interrupt_self_test(&mut self) {
        if let Some(test) = &mut self.self_test {
            (test.is_listening, test.is_stale) = (false, test.is_running);
        }
    }

    /// Takes what libpq holds. Nothing but the test's channel is listened on.
    #[cold]
    pub(super) fn look_for_self_test(&mut self) {
        while self.self_test.is_some()
            && let Some(notify) = self.next_notification()
        {
            let is_heard = |test: &mut SelfTest| test.channel.as_bytes() == notify.channel();
            if let Some(test) = self.self_test.take_if(is_heard) {
                self.end_self_test(&test.channel);
            }
        }
    }

    /// The notification was sent long enough ago, or could not be sent.
    #[cold]
    pub(crate) fn self_test_over(&mut self, outcome: std::result::Result<(), String>) {
        let Some(test) = &mut self.self_test else { return };
        test.is_running = false;
        let (is_stale, is_listening) = (std::mem::take(&mut test.is_stale), test.is_listening);
        match outcome {
            Err(reason) => self.abandon_self_test(&reason),
            // This was for an earlier connection: the one there is gets its own, if it got so far.
            Ok(()) if is_stale && is_listening => self.notify_ourselves(),
            Ok(()) if is_stale => {}
            // The caller may have been away, and the notification waits in the socket: ask the server.
            Ok(()) => self.send(None, Batch::SelfTest(Step::Over)),
        }
    }

    fn abandon_self_test(&mut self, reason: &str) {
        log::warn!("the self-test could not be done: {reason}");
        if let Some(test) = self.self_test.take() {
            self.end_self_test(&test.channel);
        }
    }

    fn end_self_test(&mut self, channel: &Channel) {
        self.send(Some(listen_sql(false, channel)), Batch::SelfTest(Step::Unlisten));
    }

    fn fail_self_test(&mut self) {
        let message = "LISTEN was taken, but a notification sent over another connection did not arrive: a \
            pooler in transaction mode stands between; connect to the server itself, or use the pooler's \
            session mode";
        let error = Error::new(ErrorKind::Connection, message);
        self.session().fail(error.with_sqlstate(Some(SqlState::FEATURE_NOT_SUPPORTED)));
    }
}
