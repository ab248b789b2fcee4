//! A due time of a schedule.

use super::fields::{Fields, Value};
use super::names::TaskId;
use std::time::{Duration, SystemTime};

/// A schedule's due time has come. The next one of the same schedule is not delivered before this one was
/// taken, which is when the loop is asked for the next event.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Tick<'a> {
    /// The schedule.
    pub task: TaskId,
    /// Its name, or its expression or interval as it was given.
    pub schedule: &'a str,
    /// When it was due.
    pub due: SystemTime,
    /// How many due times since the last tick have passed without one.
    pub missed: u64,
    /// How long after its due time it is delivered; the jitter that was asked for is part of it.
    pub late: Duration,
}

impl Tick<'_> {
    pub(super) fn fields(&self, fields: &mut impl Fields) {
        fields.field("schedule", Value::Text(self.schedule), "{}");
        fields.field("due", Value::Time(self.due), "  due {}");
        fields.field("missed", Value::Number(self.missed), "");
        fields.in_text(Value::of((self.missed > 0).then_some(Value::Number(self.missed))), ", {} missed");
        fields.field("late_ms", Value::Number(self.late.as_millis() as u64), ", {} ms late");
    }
}
