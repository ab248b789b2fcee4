//! Schedules that need a session: SQL that is run when it is due, and due times that one of many processes
//! runs, the leader.
//!
//! For each due time the leader is asked for anew, by a lock on the very session that runs the job. Who
//! gets it hears up to which due time all is done with, and takes the next one by a row that nobody can
//! write twice. The lock is held until the work has ended. A process that is frozen or cut off sends no
//! sign of life: after two heartbeats the server ends its session, and the lock is free.

use super::advice::{OF_RUNS, advised};
use super::link::Link;
use super::readers::Reader;
use super::refusals::Refusals;
use super::tag::{RunRequest, RunStep, Tag};
use crate::error::{Error, ErrorKind, Result, SqlState};
use crate::event::{Event, TaskId};
use crate::pq::Notify;
use crate::session::Rows;
use crate::source::schedule::{Agenda, Due, Now, Schedule, tick};
use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const ENTER_SQL: &[u8] = b"SELECT pgwake.enter_schedule($1, $2, $3::bigint)";
const ASK_SQL: &[u8] = b"SELECT leads, last_due_us FROM pgwake.ask_to_run($1)";
const BEGIN_SQL: &[u8] = b"SELECT pgwake.begin_run($1, $2::bigint, $3::bigint[])";
const END_SQL: &[u8] =
    b"SELECT pgwake.end_run($1, $2::bigint, nullif(pg_catalog.convert_from($3::bytea, 'UTF8'), ''))";
const RELEASE_SQL: &[u8] = b"SELECT pg_catalog.pg_advisory_unlock(pgwake.schedule_lock($1))";
/// Every version from 14 on has it.
const IDLE_SQL: &[u8] = b"SELECT pg_catalog.set_config('idle_session_timeout', $1, false)";

/// So many due times that were missed are written down one by one.
const MISSED_MAX: usize = 1000;

/// What becomes of a due time that was taken and not worked on.
const NEVER_BEGUN: &str = "its schedule was ended before it began";

/// What a schedule does on its session.
#[derive(Debug)]
pub(crate) struct Job {
    /// By this name many processes have it, and one runs it.
    pub(crate) key: Option<String>,
    /// What it is: who has another one under the same key begins anew.
    pub(crate) definition: String,
    /// Run when it is due, on this session; otherwise the caller does the work.
    pub(crate) sql: Option<String>,
    /// The caller says when the work has ended.
    pub(crate) manual_finish: bool,
}

#[derive(Debug)]
struct Run {
    job: Job,
    step: Step,
    /// It ends with what it has under way.
    is_cancelled: bool,
}

impl Run {
    fn runs_sql(&self) -> bool {
        self.job.sql.is_some() && matches!(self.step, Step::Working(_))
    }
}

/// How far a schedule is with a due time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The database does not know on this connection that we have it.
    Out,
    /// It waits for its due time.
    Waiting,
    /// The server was asked for something: to enter, for the lock, to take a due time, to end a run.
    Asking,
    /// The same for this due time, which was found.
    Taking(Due),
    /// The work goes on; the lock is ours as long as the connection is.
    Working(Due),
    /// It does, and the connection by which it began is lost.
    Orphaned,
}

/// The reader of all schedules of a session.
#[derive(Debug)]
pub(super) struct Runs {
    agenda: Agenda,
    runs: BTreeMap<TaskId, Run>,
    /// Ticks for the caller.
    granted: VecDeque<Due>,
    is_open: bool,
    /// When those that were refused try again to enter.
    enter_at: Option<Instant>,
    /// The connection was lost while SQL was run.
    has_lost_sql: bool,
    heartbeat: Duration,
    refusals: Refusals<RunStep>,
}

fn us(time: SystemTime) -> Vec<u8> {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_micros().to_string().into_bytes()
}

/// A bigint of the first row, as time.
fn time_at(rows: &Rows, column: usize) -> Option<SystemTime> {
    let bytes = rows.as_ref()?.value(0, column)?.try_into().ok()?;
    Some(UNIX_EPOCH + Duration::from_micros(u64::try_from(i64::from_be_bytes(bytes)).ok()?))
}

fn is_true(rows: &Rows) -> bool {
    rows.as_ref().and_then(|rows| rows.value(0, 0)) == Some(&[1])
}

impl Runs {
    pub(super) fn new(heartbeat: Duration) -> Self {
        Runs {
            agenda: Agenda::new(Now::read()),
            runs: BTreeMap::new(),
            granted: VecDeque::new(),
            is_open: false,
            enter_at: None,
            has_lost_sql: false,
            heartbeat,
            refusals: Refusals::default(),
        }
    }

    /// Whether there is a schedule with this key. One that was cancelled ends before anything is asked for
    /// another.
    pub(super) fn has_key(&self, key: &str) -> bool {
        self.runs.values().any(|run| !run.is_cancelled && run.job.key.as_deref() == Some(key))
    }

    pub(super) fn add(&mut self, link: &mut Link, task: TaskId, schedule: Schedule, job: Job) {
        self.agenda.add(task, Schedule { manual_finish: true, ..schedule }, Now::read());
        let has_key = job.key.is_some();
        if job.sql.is_some() {
            link.session.accept_rows(0);
        }
        self.runs.insert(task, Run { job, step: Step::Waiting, is_cancelled: false });
        if has_key {
            self.agenda.hold(task);
            self.set_step(task, Step::Out);
            if self.is_open {
                self.limit_idling(link);
                self.enter(link, task);
            }
        }
    }

    /// Ends a schedule: it is due no more. SQL that runs goes on to its end, and what became of a due time is
    /// written down.
    pub(super) fn cancel(&mut self, link: &mut Link, task: TaskId) -> bool {
        let Some(run) = self.runs.get_mut(&task).filter(|run| !run.is_cancelled) else { return false };
        run.is_cancelled = true;
        let (step, is_callers) = (run.step, run.job.sql.is_none());
        let is_unfinished = is_callers && run.job.manual_finish;
        let is_unheard = self.granted.iter().any(|due| due.task == task);
        self.granted.retain(|due| due.task != task);
        self.agenda.cancel(task);
        match step {
            Step::Working(due) if is_callers && is_unheard => self.end(link, due, Some(NEVER_BEGUN)),
            // Nobody says any more what becomes of it.
            Step::Working(_) if is_unfinished => {
                self.release(link, task);
                self.wait(task);
            }
            Step::Working(due) if is_callers => self.end(link, due, None),
            Step::Working(_) | Step::Asking | Step::Taking(_) => {}
            Step::Out | Step::Waiting | Step::Orphaned => self.wait(task),
        }
        true
    }

    /// Whether something of it goes on at the server, or is not known to have ended, also after it was
    /// cancelled.
    pub(super) fn is_under_way(&self, task: TaskId) -> bool {
        let step = self.runs.get(&task).map(|run| run.step);
        self.has_lost_sql || matches!(step, Some(Step::Asking | Step::Taking(_) | Step::Working(_)))
    }

    /// The caller's work of the last tick has ended; `false` when the schedule is not here.
    pub(super) fn finish(&mut self, link: &mut Link, task: TaskId, failure: Option<&str>) -> bool {
        let Some(run) = self.runs.get(&task) else { return false };
        match run.step {
            Step::Working(due) if run.job.sql.is_none() => self.end(link, due, failure),
            Step::Orphaned => self.enter(link, task),
            _ => {}
        }
        true
    }

    /// The caller has asked for the next event: unless he says so himself, his work has ended.
    pub(super) fn taken(&mut self, link: &mut Link, task: TaskId) {
        if self.runs.get(&task).is_some_and(|run| !run.job.manual_finish) {
            self.finish(link, task, None);
        }
    }

    /// The next tick for the caller.
    pub(super) fn next(&mut self) -> Option<Due> {
        self.granted.pop_front()
    }

    pub(super) fn event(&self, due: &Due) -> Option<Event<'_>> {
        tick(&self.agenda, due)
    }

    fn set_step(&mut self, task: TaskId, step: Step) {
        if let Some(run) = self.runs.get_mut(&task) {
            run.step = step;
        }
    }

    fn send(&self, link: &mut Link, task: TaskId, step: RunStep, sql: &[u8], parameters: &[&[u8]]) {
        link.send(Tag::Run(RunRequest { task, step }), Some(sql), parameters);
    }

    /// A frozen process is no leader: its session is ended when it sends no sign of life.
    fn limit_idling(&self, link: &mut Link) {
        let limit = (2 * self.heartbeat).as_millis().to_string();
        let tag = RunRequest { task: TaskId(0), step: RunStep::Setting };
        link.send(Tag::Run(tag), Some(IDLE_SQL), &[limit.as_bytes()]);
    }

    /// Makes a schedule known to the database on this connection, if it has a key; then it waits.
    fn enter(&mut self, link: &mut Link, task: TaskId) {
        let Some(run) = self.runs.get(&task) else { return };
        match &run.job.key {
            _ if !self.is_open => self.set_step(task, Step::Out),
            None => self.wait(task),
            Some(key) => {
                let parameters: &[&[u8]] =
                    &[key.as_bytes(), run.job.definition.as_bytes(), &us(SystemTime::now())];
                self.send(link, task, RunStep::Enter, ENTER_SQL, parameters);
                self.set_step(task, Step::Asking);
            }
        }
    }

    fn wait(&mut self, task: TaskId) {
        self.set_step(task, Step::Waiting);
        self.agenda.finish(task);
        self.forget_cancelled(task);
    }

    fn forget_cancelled(&mut self, task: TaskId) {
        if self.runs.get(&task).is_some_and(|run| run.is_cancelled) {
            self.runs.remove(&task);
        }
    }

    /// It has come to nothing: it waits for the next due time.
    fn pass(&mut self, task: TaskId) {
        self.set_step(task, Step::Waiting);
        self.agenda.pass(task, Now::read());
        self.forget_cancelled(task);
    }

    /// A due time has come.
    fn on_due(&mut self, link: &mut Link, task: TaskId, now: Now) {
        let Some(run) = self.runs.get(&task) else { return };
        match &run.job.key {
            Some(key) => {
                self.send(link, task, RunStep::Ask, ASK_SQL, &[key.as_bytes()]);
                self.set_step(task, Step::Asking);
            }
            None => {
                if let Some(due) = self.agenda.settle(task, now) {
                    self.work(link, due);
                }
            }
        }
    }

    /// The lock is ours: which due time is to be run, by what the database says is done with?
    fn choose(&mut self, link: &mut Link, task: TaskId, last_due: Option<SystemTime>) {
        let now = Now::read();
        let last_due = last_due.unwrap_or(now.wall);
        self.agenda.rebase(task, last_due, now);
        let due = self.agenda.settle(task, now);
        let Some(key) = self.runs.get(&task).and_then(|run| run.job.key.as_deref()) else { return };
        match due {
            Some(due) => {
                let missed = self.agenda.between(task, last_due, due.due, MISSED_MAX);
                let missed: Vec<_> = missed.into_iter().map(us).collect();
                let missed = [b"{", missed.join(&b","[..]).as_slice(), b"}"].concat();
                let parameters: &[&[u8]] = &[key.as_bytes(), &us(due.due), &missed];
                self.send(link, task, RunStep::Begin, BEGIN_SQL, parameters);
                self.set_step(task, Step::Taking(due));
            }
            // Somebody has run it already, or nobody wants it any more.
            None => {
                self.release(link, task);
                self.set_step(task, Step::Waiting);
                self.forget_cancelled(task);
            }
        }
    }

    /// Gives the lock back.
    fn release(&self, link: &mut Link, task: TaskId) {
        if let Some(key) = self.runs.get(&task).and_then(|run| run.job.key.as_deref()) {
            self.send(link, task, RunStep::Release, RELEASE_SQL, &[key.as_bytes()]);
        }
    }

    /// A due time is ours: the caller hears of it, and does the work unless it is SQL.
    fn work(&mut self, link: &mut Link, due: Due) {
        if self.runs.get(&due.task).is_some_and(|run| run.is_cancelled) {
            return self.end(link, due, Some(NEVER_BEGUN));
        }
        let late = SystemTime::now().duration_since(due.due).unwrap_or_default();
        self.granted.push_back(Due { late, ..due });
        let Some(run) = self.runs.get_mut(&due.task) else { return };
        run.step = Step::Working(due);
        if let Some(sql) = &run.job.sql {
            let tag = Tag::Run(RunRequest { task: due.task, step: RunStep::Job });
            link.send(tag, Some(sql.as_bytes()), &[]);
        }
        link.see_to_patience();
    }

    /// The work has ended: the lock is given back.
    fn end(&mut self, link: &mut Link, due: Due, failure: Option<&str>) {
        let task = due.task;
        let Some(run) = self.runs.get(&task) else { return };
        let Some(key) = &run.job.key else { return self.wait(task) };
        let failure = failure.map_or("", |failure| if failure.is_empty() { "failed" } else { failure });
        let failure = super::statements::in_utf8(failure);
        let parameters: &[&[u8]] = &[key.as_bytes(), &us(due.due), failure.as_bytes()];
        self.send(link, task, RunStep::End, END_SQL, parameters);
        self.set_step(task, Step::Asking);
    }

    /// What the server refuses is reported once.
    fn refused(&mut self, link: &mut Link, request: RunRequest, error: Error, now: Instant) {
        let is_news = self.refusals.is_news(request.step, &error);
        match request.step {
            RunStep::Enter => {
                self.set_step(request.task, Step::Out);
                self.enter_at = Some(now + self.refusals.next_delay(now));
                self.forget_cancelled(request.task);
            }
            RunStep::Setting | RunStep::Release => {}
            _ => {
                // An error takes nothing back that holds for the session: the lock may be ours.
                self.release(link, request.task);
                self.pass(request.task);
            }
        }
        if is_news {
            link.report_failure("schedule", None, advised(error, OF_RUNS));
        }
    }

    fn job_ended(&mut self, link: &mut Link, task: TaskId, outcome: Result<Rows>) {
        let failure = outcome.err();
        if let Some(Step::Working(due)) = self.runs.get(&task).map(|run| run.step) {
            self.end(link, due, failure.as_ref().map(|error| &*error.message));
        }
        link.see_to_patience();
        if let Some(error) = failure {
            link.report_failure("sql", None, error);
        }
    }
}

impl Reader for Runs {
    type Request = RunRequest;

    #[cold]
    fn opened(&mut self, link: &mut Link, _: Instant) {
        link.make_lasting();
        self.is_open = true;
        if self.runs.values().any(|run| run.job.key.is_some()) {
            self.limit_idling(link);
        }
        if std::mem::take(&mut self.has_lost_sql) {
            let message = "the connection was lost while it ran: it may have been done or not";
            let error = Error::new(ErrorKind::Connection, message);
            link.report_failure("sql", None, error.with_sqlstate(Some(SqlState::OUTCOME_UNKNOWN)));
        }
        let out = self.runs.iter().filter(|(_, run)| run.step == Step::Out).map(|(task, _)| *task);
        for task in out.collect::<Vec<_>>() {
            self.enter(link, task);
        }
    }

    fn lost(&mut self) {
        (self.is_open, self.enter_at) = (false, None);
        // Each attempt to connect that fails comes here, too.
        self.has_lost_sql |= self.runs.values().any(Run::runs_sql);
        self.runs.retain(|_, run| !run.is_cancelled);
        for (task, run) in &mut self.runs {
            let is_callers = run.job.sql.is_none() && !self.granted.iter().any(|due| due.task == *task);
            match run.step {
                Step::Waiting if run.job.key.is_none() => {}
                Step::Working(_) | Step::Orphaned if is_callers => run.step = Step::Orphaned,
                _ => {
                    self.agenda.hold(*task);
                    run.step = Step::Out;
                }
            }
        }
        // Without the lock they are not ours to do.
        self.granted.clear();
    }

    fn heard(&mut self, _: &mut Link, notify: Notify) -> Option<Notify> {
        Some(notify)
    }

    #[cold]
    fn answered(
        &mut self,
        link: &mut Link,
        request: RunRequest,
        answer: Result<Rows>,
        now: Instant,
    ) -> ControlFlow<()> {
        let RunRequest { task, step } = request;
        if step == RunStep::Job {
            self.job_ended(link, task, answer);
            return ControlFlow::Continue(());
        }
        let rows = match answer {
            Ok(rows) => rows,
            Err(error) => {
                self.refused(link, request, error, now);
                return ControlFlow::Continue(());
            }
        };
        self.refusals.granted(step);
        let taking = self.runs.get(&task).map(|run| run.step);
        match (step, taking) {
            (RunStep::Enter, Some(Step::Asking)) => {
                self.refusals.recovered();
                let now = Now::read();
                self.agenda.rebase(task, time_at(&rows, 0).unwrap_or(now.wall), now);
                self.wait(task);
            }
            (RunStep::Ask, Some(Step::Asking)) if is_true(&rows) => {
                self.choose(link, task, time_at(&rows, 1))
            }
            (RunStep::Ask, Some(Step::Asking)) => self.pass(task),
            (RunStep::Begin, Some(Step::Taking(due))) if is_true(&rows) => self.work(link, due),
            (RunStep::Begin, Some(Step::Taking(_))) => {
                self.release(link, task);
                self.pass(task);
            }
            (RunStep::End, Some(Step::Asking)) => self.wait(task),
            _ => {}
        }
        ControlFlow::Continue(())
    }

    #[cold]
    fn step(&mut self, link: &mut Link, now: Instant) -> bool {
        if !self.is_open {
            return false;
        }
        let mut did_something = false;
        if self.enter_at.is_some_and(|at| at <= now) {
            self.enter_at = None;
            self.opened(link, now);
            did_something = true;
        }
        let now = Now::read();
        while let Some(task) = self.agenda.first_due(now) {
            self.on_due(link, task, now);
            did_something = true;
        }
        did_something
    }

    fn deadline(&self) -> Option<Instant> {
        self.agenda.deadline().into_iter().chain(self.enter_at).min().filter(|_| self.is_open)
    }
}
