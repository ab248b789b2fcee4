//! What the server refuses: told once, with what to do about it, and tried again later and later.

use crate::error::{Error, SqlState};
use crate::session::Backoff;
use std::time::{Duration, Instant};

/// What was refused last and not granted since, step by step.
#[derive(Debug)]
pub(in crate::source) struct Refusals<Step> {
    refused: Vec<(Step, Error)>,
    backoff: Backoff,
}

impl<Step> Default for Refusals<Step> {
    fn default() -> Self {
        Refusals { refused: Vec::new(), backoff: Backoff::default() }
    }
}

impl<Step: PartialEq> Refusals<Step> {
    /// Whether the caller is to hear of it: not when it has heard the same already.
    pub(in crate::source) fn is_news(&mut self, step: Step, error: &Error) -> bool {
        let is_known = self.refused.iter().any(|(_, known)| is_same(known, error));
        self.refused.retain(|(refused, _)| *refused != step);
        self.refused.push((step, error.clone()));
        !is_known
    }

    /// This was granted.
    pub(in crate::source) fn granted(&mut self, step: Step) {
        if !self.refused.is_empty() {
            self.refused.retain(|(refused, _)| *refused != step);
        }
    }

    /// All goes well: the next trouble is tried again soon.
    pub(in crate::source) fn recovered(&mut self) {
        self.backoff.reset();
    }

    /// How long to wait before the next attempt.
    pub(in crate::source) fn next_delay(&mut self, now: Instant) -> Duration {
        self.backoff.next_delay(false, now)
    }
}

/// Who has a consumer may be another backend each time.
fn is_same(one: &Error, other: &Error) -> bool {
    let is_in_use = one.sqlstate == Some(SqlState::OBJECT_IN_USE);
    one.sqlstate == other.sqlstate && (is_in_use || one.message == other.message)
}

/// What to do about it.
pub(super) fn advised(error: Error) -> Error {
    let advice = match error.sqlstate.as_ref().map(SqlState::as_str) {
        Some("3F000" | "42883") => "run `pgwake install` in this database first",
        Some("42501") => {
            "let its owner watch it, and grant this role SELECT on it, USAGE on the schema pgwake and \
             EXECUTE on watch_of, ensure_watched, open_consumer, read, acknowledge, rotate and fetch"
        }
        Some("55P03") => "something holds the table: this goes on when that is done",
        Some("55006") => "this one goes on when that one ends",
        _ => return error,
    };
    Error { message: format!("{}; {advice}", error.message), ..error }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::source::outbox::Step;

    #[test]
    fn a_refusal_is_told_once_and_each_change_of_its_reason() {
        let error = |code: &str, message: &str| {
            Error::new(ErrorKind::Server, message).with_sqlstate(SqlState::new(code))
        };
        let mut refusals = Refusals::default();
        assert!(refusals.is_news(Step::Read, &error("42501", "no right to a")));
        assert!(!refusals.is_news(Step::Read, &error("42501", "no right to a")));
        assert!(!refusals.is_news(Step::Look, &error("42501", "no right to a")), "by whatever it is met");
        assert!(refusals.is_news(Step::Read, &error("42501", "no right to b")));
        assert!(refusals.is_news(Step::Open, &error("55006", "in use by 1")));
        assert!(!refusals.is_news(Step::Open, &error("55006", "in use by 2")));
        refusals.granted(Step::Open);
        assert!(refusals.is_news(Step::Open, &error("55006", "in use by 2")));
        assert!(!refusals.is_news(Step::Read, &error("42501", "no right to b")));
    }
}
