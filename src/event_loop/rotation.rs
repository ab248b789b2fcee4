//! How the sessions take turns: who has one, who has one next, and who wants one after the next poll.

use std::collections::VecDeque;

#[derive(Debug, Default)]
pub(super) struct Rotation {
    /// The session whose turn it is.
    pub(super) turn: Option<usize>,
    pub(super) ready: VecDeque<usize>,
    /// Sessions that want a turn after the next poll although no poller will tell of them.
    pub(super) wanting: Vec<usize>,
}

impl Rotation {
    /// Gives a session the next turn that is free.
    #[inline(always)]
    pub(super) fn line_up(&mut self, index: usize) {
        match self.turn {
            None => self.turn = Some(index),
            Some(_) => self.ready.push_back(index),
        }
    }

    /// Whether a session has its turn, or will have one in any case: a second one would be at the cost of the
    /// others, and come before the poll for which it has left off.
    pub(super) fn has_turn_coming(&self, index: usize) -> bool {
        self.turn == Some(index) || self.ready.contains(&index) || self.wanting.contains(&index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_has_one_turn_coming_whatever_it_is_for() {
        let mut rotation = Rotation::default();
        assert!(!rotation.has_turn_coming(1));
        rotation.line_up(1);
        rotation.line_up(2);
        assert_eq!((rotation.turn, rotation.ready.front()), (Some(1), Some(&2)));
        rotation.wanting.push(3);
        assert!((1..=3).all(|index| rotation.has_turn_coming(index)) && !rotation.has_turn_coming(4));
    }
}
