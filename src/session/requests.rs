//! Requests out, answers in, in order and without waiting. Each is sent with a tag, which comes back with its
//! answer. In a pipeline a request is one transaction between two synchronisation points, so an error in one
//! leaves the others alone (manual, "Pipeline Mode"). A session that replicates has no pipeline, and sends
//! one request at a time.

use crate::error::{Error, ErrorKind, Result, SqlState};
use crate::pq::{Connection, Format, QueryResult, ResultStatus};
use std::collections::VecDeque;
use std::ffi::CStr;

/// One command of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Command<'a> {
    /// To be run once.
    Run { sql: &'a [u8], parameters: &'a [&'a [u8]] },
    /// The same with parameters whose types the server infers, in their binary format.
    RunInferred { sql: &'a [u8], parameters: &'a [&'a [u8]] },
    /// With parameters as text, whose types the server infers, and with results in a format.
    Query { sql: &'a [u8], parameters: &'a [Option<&'a CStr>], results: Format },
    /// To be run by its name later.
    Prepare { name: &'a CStr, sql: &'a [u8], parameters: usize },
    /// To be run by itself, in a session without a pipeline. It may be several in one string, or COPY.
    Simple { sql: &'a str },
    /// Runs what was prepared on this connection.
    RunPrepared { name: &'a CStr, parameters: &'a [&'a [u8]] },
}

/// What came of a request: the rows of its last command that gave any, in the binary format unless another
/// was asked for; in text without a pipeline. Or that COPY begins.
pub(crate) type Rows = Option<QueryResult>;

/// The tag of a request, and what came of it.
pub(super) type Answer<Tag> = (Option<Tag>, Result<Rows>);

/// The requests that were sent and not yet answered.
#[derive(Debug)]
pub(super) struct Requests<Tag> {
    /// `None`: a probe, by which the session itself sees whether the server is alive.
    unanswered: VecDeque<Option<Tag>>,
    /// The first error of the request whose results are coming in.
    failure: Option<Error>,
    /// The last one, if the server said it.
    last_words: Option<Error>,
    /// Its rows.
    rows: Rows,
    /// It was sent without a pipeline.
    is_simple: bool,
}

impl<Tag> Default for Requests<Tag> {
    fn default() -> Self {
        Requests {
            unanswered: VecDeque::new(),
            failure: None,
            last_words: None,
            rows: None,
            is_simple: false,
        }
    }
}

impl<Tag> Requests<Tag> {
    pub(super) fn is_empty(&self) -> bool {
        self.unanswered.is_empty()
    }

    /// The tags of what was not answered, in order.
    pub(super) fn tags(&self) -> impl Iterator<Item = &Tag> {
        self.unanswered.iter().flatten()
    }

    /// Takes those whose answer is not waited for any longer. No answer may come after that.
    pub(super) fn take(&mut self, is_it: impl Fn(&Tag) -> bool) -> Vec<Tag> {
        let unanswered = std::mem::take(&mut self.unanswered).into_iter();
        let (given_up, kept): (VecDeque<_>, VecDeque<_>) =
            unanswered.partition(|tag| tag.as_ref().is_some_and(&is_it));
        self.unanswered = kept;
        given_up.into_iter().flatten().collect()
    }

    /// The connection is over.
    pub(super) fn clear(&mut self) -> Vec<Tag> {
        std::mem::take(self).unanswered.into_iter().flatten().collect()
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

    /// Sends a request. What the socket does not take stays in libpq's buffer until the next flush.
    pub(super) fn send<'a>(
        &mut self,
        connection: &mut Connection,
        tag: Option<Tag>,
        commands: impl Iterator<Item = Command<'a>>,
    ) -> Result<()> {
        // Also when it cannot be sent: why the server hung up may come as its answer.
        self.unanswered.push_back(tag);
        self.is_simple = false;
        for command in commands {
            match command {
                Command::Simple { sql } => {
                    self.is_simple = true;
                    return connection.send_query(sql);
                }
                Command::Run { sql, parameters } => {
                    connection.send_query_params(sql, parameters, Format::Binary)?;
                }
                Command::RunInferred { sql, parameters } => {
                    connection.send_query_inferred(sql, parameters, Format::Binary)?;
                }
                Command::Query { sql, parameters, results } => {
                    connection.send_query_untyped(sql, parameters, results)?;
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
    pub(super) fn next_answer(&mut self, connection: &mut Connection) -> Option<Answer<Tag>> {
        let mut ended = false;
        while !self.unanswered.is_empty() && !connection.is_busy() {
            let Some(result) = connection.result() else {
                if self.is_simple {
                    return self.answer();
                }
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
                ResultStatus::PipelineSync => return self.answer(),
                ResultStatus::CopyOut | ResultStatus::CopyBoth => {
                    self.rows = Some(result);
                    return self.answer();
                }
                // The server has ended its half of a COPY. There is nothing for ours.
                ResultStatus::CopyIn => {
                    if let Err(error) = connection.put_copy_end() {
                        self.failed(error);
                        return self.answer();
                    }
                }
                _ => {}
            }
        }
        None
    }

    /// All of the first request has come.
    fn answer(&mut self) -> Option<Answer<Tag>> {
        let (tag, rows) = (self.unanswered.pop_front()?, self.rows.take());
        self.last_words = None;
        Some((tag, self.failure.take().map_or(Ok(rows), Err)))
    }

    /// COPY is over: what came of it is the next answer.
    pub(super) fn copy_ended(&mut self, tag: Tag) {
        self.unanswered.push_back(Some(tag));
    }
}
