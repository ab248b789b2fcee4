//! The readers of a session, each when it is asked for, and what a reader is. None is named here: a reader is
//! found by its type.

use super::link::Link;
use crate::error::{Error, ErrorKind, Result};
use crate::pq::Notify;
use crate::session::Rows;
use std::any::Any;
use std::fmt::Debug;
use std::ops::ControlFlow;
use std::time::Instant;

/// Something that reads over a session. A request is sent with a tag, and its answer comes back with it.
pub(super) trait Reader: Any + Debug + Send {
    type Request
    where
        Self: Sized;

    /// All channels listen on a new connection.
    fn opened(&mut self, link: &mut Link, now: Instant);

    /// The connection is lost.
    fn lost(&mut self);

    /// Takes a notification that is meant for this reader; gives back any other.
    fn heard(&mut self, link: &mut Link, notify: Notify) -> Option<Notify>;

    /// A request of this reader was answered. `Break`: it is of no use to go on.
    fn answered(
        &mut self,
        link: &mut Link,
        request: Self::Request,
        answer: Result<Rows>,
        now: Instant,
    ) -> ControlFlow<()>
    where
        Self: Sized;

    /// Sends what is due; `false` when nothing is.
    fn step(&mut self, link: &mut Link, now: Instant) -> bool;

    /// When a step is wanted at the latest.
    fn deadline(&self) -> Option<Instant>;
}

/// Those that were asked for, at most one of a type.
#[derive(Debug, Default)]
pub(super) struct Readers(Vec<Box<dyn Reader>>);

impl Readers {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn get<R: Reader>(&self) -> Option<&R> {
        self.0.iter().find_map(|reader| (&**reader as &dyn Any).downcast_ref())
    }

    pub(super) fn get_mut<R: Reader>(&mut self) -> Option<&mut R> {
        self.0.iter_mut().find_map(|reader| (&mut **reader as &mut dyn Any).downcast_mut())
    }

    /// Adds one that was asked for; on a connection that listens already it begins. `taken` says what to do
    /// when there is one of its type.
    pub(super) fn add<R: Reader>(
        &mut self,
        link: &mut Link,
        mut reader: R,
        taken: &str,
        now: Instant,
    ) -> Result<()> {
        if self.get::<R>().is_some() {
            return Err(Error::new(ErrorKind::InvalidArgument, taken));
        }
        if link.is_listening {
            reader.opened(link, now);
        }
        self.0.push(Box::new(reader));
        Ok(())
    }

    pub(super) fn remove<R: Reader>(&mut self) {
        self.0.retain(|reader| !(&**reader as &dyn Any).is::<R>());
    }

    #[cold]
    pub(super) fn opened(&mut self, link: &mut Link, now: Instant) {
        self.0.iter_mut().for_each(|reader| reader.opened(link, now));
    }

    #[cold]
    pub(super) fn lost(&mut self) {
        self.0.iter_mut().for_each(|reader| reader.lost());
    }

    /// Gives back a notification that no reader takes.
    #[cold]
    pub(super) fn heard(&mut self, link: &mut Link, notify: Notify) -> Option<Notify> {
        self.0.iter_mut().try_fold(notify, |notify, reader| reader.heard(link, notify))
    }

    /// One for which it is of no use to go on is dropped.
    #[cold]
    pub(super) fn answered<R: Reader>(
        &mut self,
        link: &mut Link,
        request: R::Request,
        answer: Result<Rows>,
        now: Instant,
    ) {
        if self.get_mut::<R>().is_some_and(|reader| reader.answered(link, request, answer, now).is_break()) {
            self.remove::<R>();
        }
    }

    #[cold]
    pub(super) fn step(&mut self, link: &mut Link, now: Instant) -> bool {
        self.0.iter_mut().any(|reader| reader.step(link, now))
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.0.iter().filter_map(|reader| reader.deadline()).min()
    }
}
