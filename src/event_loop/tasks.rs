//! The numbers of tasks: every one has its own, whatever source it is with.

use crate::error::{Error, ErrorKind, Result};
use crate::event::TaskId;

/// How many tasks this loop has had.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    count: u32,
}

impl Tasks {
    /// The next number. They stay below 2^31, so that they are positive in C, and begin with 1.
    pub(super) fn next_id(&mut self) -> Result<TaskId> {
        if self.count == i32::MAX as u32 {
            return Err(Error::new(ErrorKind::System, "a loop has at most 2147483647 tasks in its life"));
        }
        self.count += 1;
        Ok(TaskId(self.count))
    }
}
