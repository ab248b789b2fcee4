//! The channels of a session: what is wanted of the server, and what it has confirmed.

use super::tag::Subscription;
use crate::event::Channel;
use std::collections::{BTreeSet, VecDeque};

/// What the connection there is was prepared for. Once it is, the LISTENs for all that was wanted are sent,
/// and what is wanted later needs its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Prepared {
    #[default]
    Not,
    ToNotify,
    /// No time-out of the role or the database ends it.
    ToLast,
}

#[derive(Debug, Default)]
pub(super) struct Channels {
    wanted: BTreeSet<Channel>,
    prepared: Prepared,
    changes: VecDeque<Subscription>,
    /// The server has confirmed these, and they have not been reported.
    confirmed: BTreeSet<Channel>,
}

impl Channels {
    pub(super) fn subscribe(&mut self, channel: Channel) {
        if self.wanted.insert(channel.clone()) && self.is_prepared() {
            self.changes.push_back(Subscription { listen: true, channel });
        }
    }

    pub(super) fn unsubscribe(&mut self, channel: Channel) {
        if self.wanted.remove(&channel) && self.is_prepared() {
            self.changes.push_back(Subscription { listen: false, channel });
        }
    }

    pub(super) fn is_wanted(&self, channel: &Channel) -> bool {
        self.wanted.contains(channel)
    }

    pub(super) fn wanted(&self) -> impl Iterator<Item = &Channel> {
        self.wanted.iter()
    }

    /// All that is wanted, on a new connection, and whether it is to last.
    pub(super) fn prepare(&mut self, has_readers: bool) -> (Vec<Subscription>, bool) {
        let is_lasting = has_readers || !self.wanted.is_empty();
        self.prepared = if is_lasting { Prepared::ToLast } else { Prepared::ToNotify };
        self.changes.clear();
        (self.all(), is_lasting)
    }

    pub(super) fn is_prepared(&self) -> bool {
        self.prepared != Prepared::Not
    }

    /// Whether a connection that was prepared only to notify is to last from now on.
    pub(super) fn make_lasting(&mut self) -> bool {
        let was_brief = self.prepared == Prepared::ToNotify;
        if was_brief {
            self.prepared = Prepared::ToLast;
        }
        was_brief
    }

    fn all(&self) -> Vec<Subscription> {
        self.wanted.iter().map(|channel| Subscription { listen: true, channel: channel.clone() }).collect()
    }

    pub(super) fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    /// What was wanted since, in order.
    pub(super) fn take_changes(&mut self) -> VecDeque<Subscription> {
        std::mem::take(&mut self.changes)
    }

    /// The server listens on it, or something new is to come on one that it listens on already.
    pub(super) fn confirm(&mut self, channel: Channel) {
        self.confirmed.insert(channel);
    }

    /// What the server has confirmed since this was asked last, as far as it is still wanted.
    pub(super) fn take_confirmed(&mut self) -> Vec<Channel> {
        let confirmed = std::mem::take(&mut self.confirmed).into_iter();
        confirmed.filter(|channel| self.wanted.contains(channel)).collect()
    }

    pub(super) fn has_confirmed(&self) -> bool {
        !self.confirmed.is_empty()
    }

    /// The server refused it: then it is as it was before, unless the channel is asked for anew by now.
    pub(super) fn refused<'a>(
        &mut self,
        change: &Subscription,
        mut unanswered: impl Iterator<Item = &'a Subscription>,
    ) {
        let is_newer = |other: &Subscription| other.channel == change.channel;
        if self.changes.iter().any(is_newer) || unanswered.any(is_newer) {
            return;
        }
        if change.listen {
            self.wanted.remove(&change.channel);
        } else {
            self.wanted.insert(change.channel.clone());
        }
    }

    /// The connection is lost.
    pub(super) fn lost(&mut self) {
        self.prepared = Prepared::Not;
        self.confirmed.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Channel {
        Channel::of_name(name)
    }

    fn change(listen: bool, name: &str) -> Subscription {
        Subscription { listen, channel: named(name) }
    }

    #[test]
    fn what_is_wanted_before_a_connection_is_listened_on_at_once_and_later_changes_one_by_one() {
        let mut channels = Channels::default();
        channels.subscribe(named("b"));
        channels.subscribe(named("a"));
        assert!(!channels.has_changes());
        assert_eq!(channels.prepare(false).0, [change(true, "a"), change(true, "b")]);
        channels.subscribe(named("a"));
        channels.subscribe(named("c"));
        channels.unsubscribe(named("b"));
        assert_eq!(channels.take_changes(), [change(true, "c"), change(false, "b")]);
        channels.lost();
        channels.unsubscribe(named("c"));
        assert!(!channels.has_changes());
        assert_eq!(channels.prepare(false).0, [change(true, "a")]);
    }

    #[test]
    fn what_was_confirmed_is_reported_once_and_only_while_it_is_wanted() {
        let mut channels = Channels::default();
        channels.subscribe(named("a"));
        channels.prepare(false);
        channels.confirm(named("a"));
        channels.confirm(named("b"));
        assert_eq!(channels.take_confirmed(), [named("a")]);
        assert!(!channels.has_confirmed() && channels.take_confirmed().is_empty());
        channels.confirm(named("a"));
        channels.lost();
        assert!(!channels.has_confirmed());
    }

    #[test]
    fn a_refusal_takes_the_wish_back_unless_it_was_renewed() {
        let mut channels = Channels::default();
        channels.subscribe(named("a"));
        channels.prepare(false);
        let newer = change(true, "a");
        channels.refused(&change(true, "a"), [&newer].into_iter());
        assert!(channels.is_wanted(&named("a")));
        channels.refused(&change(true, "a"), std::iter::empty());
        assert!(!channels.is_wanted(&named("a")));
        channels.refused(&change(false, "a"), std::iter::empty());
        assert!(channels.is_wanted(&named("a")));
    }

    #[test]
    fn a_connection_lasts_once_something_is_heard_over_it() {
        let mut channels = Channels::default();
        assert!(!channels.make_lasting(), "none is prepared");
        assert_eq!(channels.prepare(false), (vec![], false));
        assert!(channels.make_lasting() && !channels.make_lasting());
        assert!(channels.prepare(true).1 && !channels.make_lasting());
        channels.subscribe(named("a"));
        assert!(channels.prepare(false).1);
    }
}
