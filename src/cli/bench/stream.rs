//! `pgwake bench stream`: how fast the log is read, beside pg_recvlogical, and how soon after a commit a row
//! is there, or a message, beside NOTIFY.
//!
//! What is read is written once, while a slot keeps it. Each run reads all of it anew, from a copy of that
//! slot: all contenders have the same.

use super::super::{Failure, query};
use super::arguments::{Series, Stream, name};
use super::child::Listening;
use super::lab::{Case, Found, Lab, Trial};
use super::listener::{Contender, Log, Order};
use super::log::{self, find_recvlogical};
use super::own_schema;
use super::report::{LATENCY, Latencies, NOTIFY};
use super::sender::{Pace, Sender};
use super::target::own_session;
use pgwake::pq::Connection;
use std::collections::BTreeMap;
use std::time::Duration;

/// How many rows are written before somebody is asked whether to go on.
const ROWS_AT_ONCE: u32 = 10_000;

/// In the time that a run is given, each row may take so long.
const PATIENCE_PER_ROW: Duration = Duration::from_micros(200);

/// How the latency is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Notify,
    Stream,
    Publish,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Way::Notify => NOTIFY.name,
            Way::Stream => "stream",
            Way::Publish => "publish",
        }
    }
}

/// What is read in a run.
#[derive(Debug, Clone)]
struct Written {
    rows: usize,
    log: Log,
}

pub(super) fn run(lab: &mut Lab, arguments: &Stream) -> Result<(), Failure> {
    if let Some(reason) = log::why_unreadable(&mut lab.target)? {
        let reason = format!("the log cannot be read: {reason}; --private measures a throw-away server");
        return Err(Failure::Running(reason));
    }
    lab.add_parameters([
        ("transactions", arguments.transactions.into()),
        ("rows", arguments.rows.into()),
        ("interval_us", (arguments.interval.as_nanos() as f64 / 1e3).into()),
        ("count", arguments.count.into()),
    ]);
    own_schema::within(lab, false, |lab| {
        let mut sql = own_session(lab.conninfo())?;
        measure(lab, &mut sql, arguments)
    })
}

fn measure(lab: &mut Lab, sql: &mut Connection, arguments: &Stream) -> Result<(), Failure> {
    let schema = lab.channel.clone();
    let make = format!(
        "CREATE SCHEMA {schema}; CREATE TABLE {schema}.rows (id int PRIMARY KEY, n int, filler text); \
         CREATE PUBLICATION {schema} FOR TABLE {schema}.rows"
    );
    query::script(sql, &make)?;
    query::script(sql, "SET synchronous_commit = off")?;
    let recvlogical = find_recvlogical();
    if recvlogical.is_none() {
        lab.note(log::NO_RECVLOGICAL.into());
    }
    let beside = recvlogical.is_some().then_some(Contender::Recvlogical);
    let contenders: Vec<_> = beside.into_iter().chain([Contender::PGWAKE]).map(Contender::named).collect();
    let written = write_all(lab, sql, arguments, &recvlogical.unwrap_or_default())?;
    lab.in_rounds(&written, &contenders, |lab, trial, written, contender| {
        let outcome = read(lab, trial, sql, written, *contender);
        // Nobody can tell a reader to end early.
        if lab.stop.is_asked_for() { Ok(None) } else { outcome.map(Some) }
    })?;
    if !arguments.series.contains(&Series::Latency) {
        return Ok(());
    }
    let (interval, count) = (arguments.interval, arguments.count as usize);
    let load = Pace { interval, count, payload_bytes: 0 };
    let case = Case { series: LATENCY.into(), step: count as u64, load };
    let contenders = [Way::Notify, Way::Stream, Way::Publish].map(|way| (way.name().to_string(), way));
    lab.in_rounds(&[case], &contenders, |lab, trial, pace, way| latency(lab, trial, *pace, *way))
}

/// Writes what the series need. Nothing when a signal comes.
fn write_all(
    lab: &mut Lab,
    sql: &mut Connection,
    arguments: &Stream,
    recvlogical: &std::path::Path,
) -> Result<Vec<Case<Written>>, Failure> {
    let schema = lab.channel.clone();
    let mut all = Vec::new();
    for (name_of_slot, rows, words, of) in [
        ("many", arguments.transactions, "many transactions", &[Series::Many][..]),
        (
            "one",
            arguments.rows,
            "one transaction",
            &[Series::One, Series::Streaming, Series::Early, Series::Binary],
        ),
    ] {
        let wanted: Vec<_> = of.iter().filter(|series| arguments.series.contains(series)).collect();
        if wanted.is_empty() {
            continue;
        }
        let slot = format!("{schema}_{name_of_slot}");
        query::script(sql, &format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"))?;
        write(lab, sql, rows, of == [Series::Many])?;
        let end = Some(lab.target.value("SELECT pg_current_wal_insert_lsn()")?);
        // The end, for pgwake.
        query::script(sql, &format!("TRUNCATE {schema}.rows"))?;
        for series in wanted {
            let log = Log {
                publication: schema.clone(),
                slot: Some(slot.clone()),
                streaming: matches!(series, Series::Streaming | Series::Early),
                early: *series == Series::Early,
                binary: *series == Series::Binary,
                recvlogical: recvlogical.into(),
                end: end.clone(),
            };
            let series = match series {
                Series::Streaming | Series::Early | Series::Binary => format!("{words}, {}", name(*series)),
                _ => words.into(),
            };
            all.push(Case { series, step: rows.into(), load: Written { rows: rows as usize, log } });
        }
    }
    Ok(if lab.stop.is_asked_for() { Vec::new() } else { all })
}

/// Rows in one transaction, or each in its own.
fn write(lab: &Lab, sql: &mut Connection, rows: u32, is_many: bool) -> Result<(), Failure> {
    let insert = format!("INSERT INTO {}.rows", lab.channel);
    if !is_many {
        query::script(sql, "BEGIN")?;
    }
    for first in (1..=rows).step_by(ROWS_AT_ONCE as usize) {
        let last = rows.min(first + ROWS_AT_ONCE - 1);
        let some = match is_many {
            true => format!(
                "DO $$BEGIN FOR i IN {first}..{last} LOOP {insert} VALUES (i, 0, repeat('x', 60)); COMMIT; \
                 END LOOP; END$$"
            ),
            false => format!("{insert} SELECT i, 0, repeat('x', 60) FROM generate_series({first}, {last}) i"),
        };
        query::script(sql, &some)?;
        if lab.stop.is_asked_for() {
            break;
        }
    }
    if !is_many {
        query::script(sql, "COMMIT")?;
    }
    Ok(())
}

/// One reader reads all of it.
fn read(
    lab: &mut Lab,
    trial: &Trial,
    sql: &mut Connection,
    Written { rows, log }: &Written,
    contender: Contender,
) -> Result<Found, Failure> {
    let (slot, copy) = (log.slot.clone().unwrap_or_default(), format!("{}_copy", lab.channel));
    query::script(sql, &format!("SELECT pg_copy_logical_replication_slot('{slot}', '{copy}')"))?;
    let log = Log { slot: Some(copy.clone()), ..log.clone() };
    let order = Order { log: Some(log), ..lab.order(trial, contender) };
    let took = Listening::start(&order, &lab.stop).and_then(|mut reader| {
        reader.patience += PATIENCE_PER_ROW * *rows as u32;
        if contender == Contender::Recvlogical {
            return reader.ended();
        }
        let heard = reader.heard(*rows)?;
        Ok((heard.wall_s, heard.cpu_ns))
    });
    own_schema::drop_slots(sql, &copy)?;
    let (wall_s, cpu_ns) = took?;
    let rows = *rows as f64;
    let figures = BTreeMap::from([("per_s", rows / wall_s), ("cpu_ns_each", cpu_ns as f64 / rows)]);
    Ok(Found { figures, latencies: None })
}

/// How long after the answer to its commit a row or a message comes out of the log, or a notification comes.
fn latency(lab: &mut Lab, trial: &Trial, pace: Pace, way: Way) -> Result<Option<Found>, Failure> {
    let channel = lab.channel.clone();
    let log = (way != Way::Notify).then(|| Log { publication: channel.clone(), ..Log::default() });
    let order = Order { takes_times: true, log, ..lab.order(trial, Contender::PGWAKE) };
    let order = Order { count_max: pace.count + 1, ..order };
    let mut listening = Listening::start(&order, &lab.stop)?;
    let mut sender = Sender::connect(&order.conninfo, &channel, &lab.stop)?;
    let answered_ns = sender.answered(pace, |number| match way {
        Way::Notify => format!("NOTIFY \"{channel}\", '{number}'"),
        Way::Stream => format!("INSERT INTO {channel}.rows VALUES ({number}, 0, repeat('x', 60))"),
        Way::Publish => format!("SELECT pg_logical_emit_message(true, '{channel}', '{number}')"),
    })?;
    lab.note_pace(&sender, pace);
    if way != Way::Notify {
        sender.answer_to(&format!("TRUNCATE {channel}.rows"))?;
    } else {
        sender.end()?;
    }
    let heard = listening.heard(answered_ns.len())?;
    let of_answer = |[number, taken_ns]: &[i64; 2]| Some([*answered_ns.get(*number as usize)?, *taken_ns]);
    let times: Vec<_> = heard.times.iter().filter_map(of_answer).collect();
    let Some(latencies) = Latencies::of(&times, lab.started_ns) else { return Ok(None) };
    let mut figures = BTreeMap::from(latencies.figures);
    figures.insert("notifications", heard.count as f64);
    Ok(Some(Found { figures, latencies: Some(latencies) }))
}
