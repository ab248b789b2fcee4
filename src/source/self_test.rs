//! Whether what is notified arrives: a pooler in transaction mode takes LISTEN and delivers nothing. A
//! notification to ourselves over another connection tells.

use super::channels::ChannelSource;
use crate::error::{Error, ErrorKind, Result, SqlState};
use crate::event::Channel;
use crate::pq::Notify;
use std::hash::{BuildHasher, Hasher, RandomState};

/// A channel that nobody else uses.
fn fresh_channel() -> Channel {
    // The hash of nothing under fresh random keys is a random number.
    let random = RandomState::new().build_hasher().finish();
    Channel::of_name(&format!("pgwake self-test {random:016x}"))
}

impl ChannelSource {
    /// On a new connection: unless a test has been passed, another one is due.
    #[cold]
    pub(super) fn prepare_self_test(&mut self) {
        if !self.is_self_test_due {
            return self.session().proven();
        }
        let channel = fresh_channel();
        self.send_listen(&channel);
        self.self_test = Some(channel);
    }

    /// The server listens on the test's channel, or so it says.
    #[cold]
    pub(super) fn begin_self_test(&mut self, answer: Result<()>) {
        let Some(channel) = self.self_test.clone() else { return };
        let begun = answer.and_then(|()| self.session().notify_otherwise(channel));
        if let Err(error) = begun {
            log::warn!("the self-test could not begin: {error}");
        }
    }

    /// Takes the test's notification out of the others.
    #[cold]
    pub(super) fn is_of_self_test(&mut self, notify: &Notify) -> bool {
        let is_heard = self.self_test.as_ref().is_some_and(|channel| channel.as_bytes() == notify.channel());
        if is_heard && let Some(channel) = self.self_test.take() {
            self.is_self_test_due = false;
            self.session().proven();
            self.forget(channel);
        }
        is_heard
    }

    /// The notification was sent long enough ago, or could not be sent.
    #[cold]
    pub(crate) fn self_test_over(&mut self, channel: &Channel, outcome: std::result::Result<(), String>) {
        match outcome {
            // It was heard; or the connection was lost meanwhile, and another test is under way.
            _ if self.self_test.as_ref() != Some(channel) => {}
            Err(reason) => log::warn!("the self-test could not be done: {reason}"),
            Ok(()) => {
                let message = "LISTEN was taken, but a notification sent over another connection did not \
                    arrive: a pooler in transaction mode stands between; connect to the server itself, or \
                    use the pooler's session mode";
                let error = Error::new(ErrorKind::Connection, message);
                self.session().fail(error.with_sqlstate(Some(SqlState::NOT_SUPPORTED)));
            }
        }
    }
}
