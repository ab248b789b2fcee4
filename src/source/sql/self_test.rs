//! Whether what is notified arrives: a pooler in transaction mode takes LISTEN and delivers nothing. Before a
//! session listens for the first time, it listens on a channel of its own, and is notified over another
//! connection.

use super::link::Link;
use super::listen::listen_sql;
use super::tag::{SelfTestRequest, Tag};
use crate::error::{Error, ErrorKind, Result, SqlState};
use crate::event::Channel;
use crate::sys::random;
use std::ops::ControlFlow;

/// Over unless it was asked for, and once it is passed.
#[derive(Debug)]
pub(super) struct SelfTest {
    test: Option<Test>,
    is_wanted: bool,
}

impl SelfTest {
    pub(super) fn new(is_wanted: bool) -> Self {
        SelfTest { test: is_wanted.then(Test::new), is_wanted }
    }

    pub(super) fn is_over(&self) -> bool {
        self.test.is_none()
    }

    /// Whether it was asked for, over or not.
    pub(super) fn is_wanted(&self) -> bool {
        self.is_wanted
    }

    /// On a new connection.
    #[cold]
    pub(super) fn connected(&mut self, link: &mut Link) {
        self.step(|test| test.listen(link, true));
    }

    /// The connection is lost.
    pub(super) fn lost(&mut self) {
        self.step(|test| {
            (test.is_listening, test.is_stale) = (false, test.is_running);
            ControlFlow::Continue(())
        });
    }

    /// Takes what libpq holds. Nothing but the test's channel is listened on.
    #[cold]
    pub(super) fn heard(&mut self, link: &mut Link) {
        self.step(|test| test.heard(link));
    }

    /// The notification was sent long enough ago, or could not be sent.
    #[cold]
    pub(super) fn sent(&mut self, link: &mut Link, outcome: std::result::Result<(), String>) {
        self.step(|test| test.sent(link, outcome));
    }

    /// `true`: its UNLISTEN is answered, and the session may listen.
    #[cold]
    pub(super) fn answered(&mut self, link: &mut Link, request: SelfTestRequest, answer: Result<()>) -> bool {
        match (request, answer) {
            (SelfTestRequest::Listen, Ok(())) => self.step(|test| {
                test.is_listening = true;
                test.notify_ourselves(link)
            }),
            (SelfTestRequest::Over, Ok(())) => {
                self.heard(link);
                if !self.is_over() {
                    link.session.fail(not_heard());
                }
            }
            (SelfTestRequest::Unlisten, Ok(())) => return true,
            // Whatever else is wrong with this server or connection is not the test's to say.
            (_, Err(error)) => link.session.fail(error),
        }
        false
    }

    fn step(&mut self, step: impl FnOnce(&mut Test) -> ControlFlow<()>) {
        if self.test.as_mut().is_some_and(|test| step(test).is_break()) {
            self.test = None;
        }
    }
}

/// A test that has not been passed yet. `Break`: it is over, and its UNLISTEN is sent.
#[derive(Debug)]
struct Test {
    channel: Channel,
    /// The server says that it listens.
    is_listening: bool,
    /// The notification is being sent, elsewhere; it is not sent anew before that is over.
    is_running: bool,
    /// The connection for which it is sent is no more.
    is_stale: bool,
}

impl Test {
    fn new() -> Self {
        // Nobody else uses it.
        let channel = Channel::of_name(&format!("pgwake self-test {:016x}", random()));
        Test { channel, is_listening: false, is_running: false, is_stale: false }
    }

    fn listen(&self, link: &mut Link, listen: bool) -> ControlFlow<()> {
        let request = if listen { SelfTestRequest::Listen } else { SelfTestRequest::Unlisten };
        link.send(Tag::SelfTest(request), Some(&listen_sql(listen, &self.channel)), &[]);
        if listen { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }

    fn heard(&mut self, link: &mut Link) -> ControlFlow<()> {
        while let Some(notify) = link.next_notification() {
            if self.channel.as_bytes() == notify.channel() {
                return self.listen(link, false);
            }
        }
        ControlFlow::Continue(())
    }

    fn notify_ourselves(&mut self, link: &mut Link) -> ControlFlow<()> {
        if std::mem::replace(&mut self.is_running, true) {
            return ControlFlow::Continue(());
        }
        match link.session.notify_otherwise(self.channel.clone()) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => self.abandon(link, &error.to_string()),
        }
    }

    fn sent(&mut self, link: &mut Link, outcome: std::result::Result<(), String>) -> ControlFlow<()> {
        self.is_running = false;
        match outcome {
            Err(reason) => return self.abandon(link, &reason),
            // This was for an earlier connection: the one there is gets its own, if it got so far.
            Ok(()) if std::mem::take(&mut self.is_stale) => {
                if self.is_listening {
                    return self.notify_ourselves(link);
                }
            }
            // The caller may have been away, and the notification waits in the socket: ask the server.
            Ok(()) => link.send(Tag::SelfTest(SelfTestRequest::Over), None, &[]),
        }
        ControlFlow::Continue(())
    }

    fn abandon(&mut self, link: &mut Link, reason: &str) -> ControlFlow<()> {
        log::warn!("the self-test could not be done: {reason}");
        self.listen(link, false)
    }
}

fn not_heard() -> Error {
    let message = "LISTEN was taken, but a notification sent over another connection did not arrive: a \
        pooler in transaction mode stands between; connect to the server itself, or use the pooler's \
        session mode";
    Error::new(ErrorKind::Connection, message).with_sqlstate(Some(SqlState::FEATURE_NOT_SUPPORTED))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::sql::link::tests::link;
    use std::net::TcpListener;
    use std::time::Instant;

    #[test]
    fn one_that_is_given_up_between_two_connections_leaves_the_next_one_alone() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = silent.local_addr().unwrap().port();
        let now = Instant::now();
        let mut link = link(&format!("host=127.0.0.1 port={port}"), now);
        link.session.on_deadline(now);
        assert!(link.session.is_connecting());
        let mut test = SelfTest::new(true);
        test.sent(&mut link, Err("no connection could be made".into()));
        assert!(test.is_over() && !link.session.is_ending());
    }
}
