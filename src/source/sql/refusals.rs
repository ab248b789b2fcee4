//! What the server refuses a reader: reported once, and tried again later and later.

use crate::error::{Error, SqlState};
use crate::session::Backoff;
use std::time::{Duration, Instant};

/// What was refused last and not granted since, step by step.
#[derive(Debug)]
pub(super) struct Refusals<Step> {
    refused: Vec<(Step, Error)>,
    backoff: Backoff,
}

impl<Step> Default for Refusals<Step> {
    fn default() -> Self {
        Refusals { refused: Vec::new(), backoff: Backoff::default() }
    }
}

impl<Step: PartialEq> Refusals<Step> {
    /// Whether it is to be reported: not when the same was already.
    pub(super) fn is_news(&mut self, step: Step, error: &Error) -> bool {
        let is_known = self.refused.iter().any(|(_, known)| is_same(known, error));
        self.refused.retain(|(refused, _)| *refused != step);
        self.refused.push((step, error.clone()));
        !is_known
    }

    /// This was granted.
    pub(super) fn granted(&mut self, step: Step) {
        if !self.refused.is_empty() {
            self.refused.retain(|(refused, _)| *refused != step);
        }
    }

    /// All goes well: the next trouble is tried again soon.
    pub(super) fn recovered(&mut self) {
        self.backoff.reset();
    }

    /// How long to wait before the next attempt.
    pub(super) fn next_delay(&mut self, now: Instant) -> Duration {
        self.backoff.next_delay(false, now)
    }
}

/// Who has a consumer may be another backend each time.
fn is_same(one: &Error, other: &Error) -> bool {
    let is_in_use = one.sqlstate == Some(SqlState::OBJECT_IN_USE);
    one.sqlstate == other.sqlstate && (is_in_use || one.message == other.message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn a_refusal_is_reported_once_and_each_change_of_its_reason() {
        let error = |code: &str, message: &str| {
            Error::new(ErrorKind::Server, message).with_sqlstate(SqlState::new(code))
        };
        let mut refusals = Refusals::default();
        assert!(refusals.is_news(1, &error("42501", "no right to a")));
        assert!(!refusals.is_news(1, &error("42501", "no right to a")));
        assert!(!refusals.is_news(2, &error("42501", "no right to a")), "by whatever it is met");
        assert!(refusals.is_news(1, &error("42501", "no right to b")));
        assert!(refusals.is_news(3, &error("55006", "in use by 1")));
        assert!(!refusals.is_news(3, &error("55006", "in use by 2")));
        refusals.granted(3);
        assert!(refusals.is_news(3, &error("55006", "in use by 2")));
        assert!(!refusals.is_news(1, &error("42501", "no right to b")));
    }
}
