//! The notifying side of a measurement: at a steady pace, whatever becomes of what was sent before, or as
//! fast as the server takes it.

use super::super::stop::{GRACE, NAP, Stop};
use super::clock;
use super::listener::END;
use pgwake::Result;
use pgwake::pq::{Connection, Conninfo, Format, ResultStatus};
use std::time::{Duration, Instant};

/// How late a timer of the kernel may be and be forgiven: that lateness is not the server's.
const TIMER_LATENESS_NS_MAX: i64 = 1_000_000;

/// How many transactions a flood has on their way at once.
const IN_FLIGHT_MAX: usize = 256;

/// What [`Sender::paced`] sends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) interval: Duration,
    pub(super) count: usize,
    pub(super) payload_bytes: usize,
}

/// A session that notifies one channel.
pub(super) struct Sender {
    connection: Connection,
    channel: String,
    /// Transactions whose outcome is not known yet.
    in_flight: usize,
    stop: Stop,
    /// How long after the last notification was due the server had taken all.
    pub(super) late: Duration,
}

impl Sender {
    /// Connects, and changes to pipeline mode: nothing waits for an answer from here on.
    pub(super) fn connect(conninfo: &str, channel: &str, stop: &Stop) -> Result<Self> {
        let mut connection = Connection::connect(&Conninfo::parse(conninfo)?)?;
        connection.set_nonblocking()?;
        connection.enter_pipeline_mode()?;
        Ok(Sender {
            connection,
            channel: channel.into(),
            in_flight: 0,
            stop: stop.clone(),
            late: Duration::ZERO,
        })
    }

    /// Sends one notification per interval, at times that are fixed beforehand. Each carries the time at
    /// which it was due; where the sender slept until then, that at which the kernel woke it up. Gives their
    /// number.
    pub(super) fn paced(&mut self, pace: Pace) -> Result<usize> {
        let interval_ns = pace.interval.as_nanos() as i64;
        let mut due_ns = clock::now_ns() + interval_ns;
        for sent in 0..pace.count {
            let slept = self.sleep_until(due_ns);
            if self.stop.is_asked_for() {
                return self.end().map(|()| sent);
            }
            let is_on_time = slept && clock::now_ns() - due_ns <= TIMER_LATENESS_NS_MAX;
            let from_ns = if is_on_time { clock::now_ns() } else { due_ns };
            self.notify(&padded(&format!("{from_ns} "), pace.payload_bytes))?;
            self.take_answers(usize::MAX)?;
            due_ns += interval_ns;
        }
        self.end()?;
        self.late = Duration::from_nanos((clock::now_ns() - due_ns).max(0) as u64);
        Ok(pace.count)
    }

    /// Executes a statement per interval, each after the answer to the one before. Gives when each answer
    /// came.
    pub(super) fn answered(&mut self, pace: Pace, statement: impl Fn(usize) -> String) -> Result<Vec<i64>> {
        let interval_ns = pace.interval.as_nanos() as i64;
        let (mut due_ns, mut answered_ns) = (clock::now_ns() + interval_ns, Vec::with_capacity(pace.count));
        for number in 0..pace.count {
            self.sleep_until(due_ns);
            if self.stop.is_asked_for() {
                break;
            }
            self.answer_to(&statement(number))?;
            answered_ns.push(clock::now_ns());
            due_ns += interval_ns;
        }
        self.late = Duration::from_nanos((clock::now_ns() - due_ns).max(0) as u64);
        Ok(answered_ns)
    }

    /// Executes one statement, and waits for its answer.
    pub(super) fn answer_to(&mut self, sql: &str) -> Result<()> {
        self.execute(sql)?;
        self.take_answers(0)
    }

    /// Until then, or until somebody says stop. Says whether there was any time left.
    fn sleep_until(&self, due_ns: i64) -> bool {
        let mut slept = false;
        while clock::now_ns() < due_ns && !self.stop.is_asked_for() {
            clock::sleep_until(due_ns.min(clock::now_ns() + NAP.as_nanos() as i64));
            slept = true;
        }
        slept
    }

    /// Sends notifications, each a transaction of its own, until then or until somebody says stop. Gives
    /// their number.
    pub(super) fn flood(&mut self, payload_bytes: usize, until_ns: i64) -> Result<usize> {
        let payload = padded("", payload_bytes);
        let mut sent = 0;
        while clock::now_ns() < until_ns && !self.stop.is_asked_for() {
            self.notify(&payload)?;
            self.take_answers(IN_FLIGHT_MAX)?;
            sent += 1;
        }
        self.end().map(|()| sent)
    }

    /// Sends that many notifications in one transaction. Equal ones would fold into one, so each begins with
    /// its number.
    pub(super) fn flood_at_once(&mut self, payload_bytes: usize, count: usize) -> Result<()> {
        let channel = &self.channel;
        let sql = format!(
            "SELECT count(pg_notify('{channel}', rpad(i::text, {payload_bytes}, 'x'))) \
             FROM generate_series(1, {count}) i"
        );
        self.execute(&sql)?;
        self.end()
    }

    /// Tells the listeners that all has been sent, and waits until the server has committed it.
    pub(super) fn end(&mut self) -> Result<()> {
        self.notify(END)?;
        self.take_answers(0)
    }

    fn notify(&mut self, payload: &str) -> Result<()> {
        // Neither has a quote in it: both are our own.
        let sql = format!("NOTIFY \"{}\", '{payload}'", self.channel);
        self.execute(&sql)
    }

    fn execute(&mut self, sql: &str) -> Result<()> {
        self.connection.send_query_params(sql.as_bytes(), &[], Format::Text)?;
        self.connection.pipeline_sync()?;
        self.in_flight += 1;
        Ok(())
    }

    /// Takes the answers that are there, and waits for those that are beyond `in_flight_max`. To ask for a
    /// result that is not there would not do: libpq then waits until it may write, and the server, until
    /// somebody reads.
    fn take_answers(&mut self, in_flight_max: usize) -> Result<()> {
        let mut give_up_at = None;
        loop {
            self.connection.consume_input()?;
            while self.in_flight > 0 && !self.connection.is_busy() {
                match self.connection.result() {
                    Some(result) if result.status() == ResultStatus::PipelineSync => self.in_flight -= 1,
                    Some(result) if result.status() == ResultStatus::Failed => return Err(result.error()),
                    _ => {}
                }
            }
            if self.in_flight <= in_flight_max {
                return Ok(());
            }
            if self.stop.is_asked_for()
                && Instant::now() > *give_up_at.get_or_insert_with(|| Instant::now() + GRACE)
            {
                return Err(
                    std::io::Error::other("stopped by a signal while the server did not answer").into()
                );
            }
            let is_full = !self.connection.flush()?;
            self.connection.wait_ready(is_full, NAP)?;
        }
    }
}

fn padded(start: &str, bytes: usize) -> String {
    format!("{start}{}", "x".repeat(bytes.saturating_sub(start.len())))
}
