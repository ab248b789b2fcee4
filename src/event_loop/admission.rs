//! How many sessions connect at once: those whose time has come wait here until others are done.

use std::collections::VecDeque;

/// How many sessions of a loop are on their way to a connection at once: a server that comes back is not to
/// be overrun by those that waited for it.
const CONNECTING_MAX: usize = 50;

#[derive(Debug, Default)]
pub(super) struct Admission {
    connecting: usize,
    waiting: VecDeque<usize>,
}

impl Admission {
    /// This session's time to connect has come. It has come still at each turn that the session is given
    /// meanwhile, for whatever it is asked for.
    pub(super) fn wait(&mut self, index: usize) {
        if !self.waiting.contains(&index) {
            self.waiting.push_back(index);
        }
    }

    /// The session that may begin now.
    #[inline(always)]
    pub(super) fn next(&mut self) -> Option<usize> {
        if self.waiting.is_empty() || self.connecting >= CONNECTING_MAX {
            return None;
        }
        self.waiting.pop_front()
    }

    /// A session is on its way to a connection, or not any more.
    pub(super) fn count(&mut self, is_connecting: bool) {
        if is_connecting { self.connecting += 1 } else { self.connecting -= 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fifty_connect_at_once_and_the_others_in_their_order() {
        let mut admission = Admission::default();
        (0..60).for_each(|index| admission.wait(index));
        for index in 0..CONNECTING_MAX {
            assert_eq!(admission.next(), Some(index));
            admission.count(true);
        }
        assert_eq!(admission.next(), None);
        admission.wait(CONNECTING_MAX);
        assert_eq!(admission.waiting.len(), 10, "who waits already keeps its place");
        admission.count(false);
        assert_eq!(admission.next(), Some(CONNECTING_MAX));
        admission.count(true);
        assert_eq!(admission.next(), None);
    }
}
