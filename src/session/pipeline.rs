//! Commands out, answers in, in order and without waiting: each batch is one transaction between two
//! synchronisation points, so an error in one leaves the others alone (manual, "Pipeline Mode").

use crate::error::{Error, ErrorKind, Result, SqlState};
use crate::pq::{Connection, Format, QueryResult, ResultStatus};
use std::collections::VecDeque;
use std::ffi::CStr;

/// Who asked for a batch, and gets its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asker {
    /// The session itself, to see whether the server is alive.
    Probe,
    /// The source above it.
    Source,
}

/// One command of a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Command<'a> {
    /// To be run once.
    Run { sql: &'a [u8], parameters: &'a [&'a [u8]] },
    /// To be run by its name later.
    Prepare { name: &'a CStr, sql: &'a [u8], parameters: usize },
    /// Runs what was prepared on this connection.
    RunPrepared { name: &'a CStr, parameters: &'a [&'a [u8]] },
}

/// What came of a batch: the rows of its last command that gave any, in the binary format.
pub(crate) type Rows = Option<QueryResult>;

/// The batches that were sent and not yet answered.
#[derive(Debug, Default)]
pub(super) struct Pipeline {
    unanswered: VecDeque<Asker>,
    /// The first error of the batch whose results are coming in.
    failure: Option<Error>,
    /// The last one, if the server said it.
    last_words: Option<Error>,
    /// Its rows.
    rows: Rows,
}

impl Pipeline {
    pub(super) fn is_empty(&self) -> bool {
        self.unanswered.is_empty()
    }

    pub(super) fn clear(&mut self) {
        *self = Pipeline::default();
    }

    /// What the server said before the connection ended, in answer to a command.
    pub(super) fn take_last_words(&mut self) -> Option<Error> {
        self.last_words.take().map(|error| Error { kind: ErrorKind::Connection, ..error })
    }

    fn failed(&mut self, error: Error) {
        if error.sqlstate != Some(SqlState::CONNECTION_LOST) {
            self.last_words = Some(error.clone());
        }
        self.failure.get_or_insert(error);
    }

    /// Sends a batch. What the socket does not take stays in libpq's buffer until the next flush.
    pub(super) fn send<'a>(
        &mut self,
        connection: &mut Connection,
        asker: Asker,
        batch: impl Iterator<Item = Command<'a>>,
    ) -> Result<()> {
        // Also when it cannot be sent: why the server hung up may come as its answer.
        self.unanswered.push_back(asker);
        for command in batch {
            match command {
                Command::Run { sql, parameters } => {
                    connection.send_query_params(sql, parameters, Format::Binary)?;
                }
                Command::Prepare { name, sql, parameters } => {
                    connection.send_prepare(name, sql, parameters)?;
                }
                Command::RunPrepared { name, parameters } => {
                    connection.send_query_prepared(name, parameters, Format::Binary)?;
                }
            }
        }
        connection.pipeline_sync()
    }

    /// The next answer that libpq has in full. Never waits.
    pub(super) fn next_answer(&mut self, connection: &mut Connection) -> Option<(Asker, Result<Rows>)> {
        let mut ended = false;
        while !self.unanswered.is_empty() && !connection.is_busy() {
            let Some(result) = connection.result() else {
                // One `None` ends the results of a command; a second one means that there is no more to come
                // now.
                if ended {
                    return None;
                }
                ended = true;
                continue;
            };
            ended = false;
            match result.status() {
                ResultStatus::Failed => self.failed(result.error()),
                ResultStatus::Rows => self.rows = Some(result),
                ResultStatus::PipelineSync => {
                    let (asker, rows) = (self.unanswered.pop_front()?, self.rows.take());
                    self.last_words = None;
                    return Some((asker, self.failure.take().map_or(Ok(rows), Err)));
                }
                _ => {}
            }
        }
        None
    }
}
