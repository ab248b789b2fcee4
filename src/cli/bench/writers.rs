//! `pgwake bench writers`: what watching a table costs its writers. Clients do nothing but small UPDATEs, of
//! tables that differ in nothing but their triggers.
//!
//! The clients are threads of ours that EXECUTE a prepared UPDATE and wait for its answer, one statement a
//! transaction. That costs the machine what pgbench costs it, and needs no pgbench.

use super::super::stop::{NAP, Stop};
use super::super::{Failure, query};
use super::arguments::{TABLE_ROWS, Variant, Writers, name};
use super::child::Listening;
use super::lab::{Case, Found, Lab, Trial};
use super::listener::{Contender, Log, Order};
use super::log::{self, find_recvlogical};
use super::own_schema;
use super::target::own_session;
use super::variants;
use std::collections::BTreeMap;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What the clients of one run do.
#[derive(Debug, Clone, Copy)]
struct Load {
    clients: usize,
    /// Of one statement.
    rows: u32,
    time: Duration,
}

pub(super) fn run(lab: &mut Lab, arguments: &Writers) -> Result<(), Failure> {
    if let Some(delay) = arguments.commit_delay {
        check_delay(lab, delay)?;
    }
    let loads = loads(lab, arguments)?;
    lab.add_parameters([
        ("duration_s", arguments.seconds.into()),
        ("commit_delay_us", arguments.commit_delay.map(|delay| delay.as_micros() as u64).into()),
    ]);
    let all = possible(lab, arguments.variants())?;
    let needs_pgwake = all.iter().any(|variant| variant.needs_pgwake());
    own_schema::within(lab, needs_pgwake, |lab| {
        variants::make(lab.conninfo(), &lab.channel, &all)?;
        rounds(lab, &all, &loads)
    })
}

/// What cannot be preloaded is left out without an error that anybody sees (ld.so(8)): one commit shows it.
fn check_delay(lab: &mut Lab, delay: Duration) -> Result<(), Failure> {
    let started = Instant::now();
    lab.target.value("SELECT pg_logical_emit_message(true, 'pgwake_bench', '')")?;
    match started.elapsed() {
        took if took < delay => Err(Failure::Running(format!(
            "a commit took {took:?} in spite of --commit-delay {delay:?}: the server does not wait for its \
             disk (look for synchronous_commit in PGOPTIONS), or could not preload what slows it down"
        ))),
        _ => Ok(()),
    }
}

/// What was asked for, without what nobody can read here.
fn possible(lab: &mut Lab, mut variants: Vec<Variant>) -> Result<Vec<Variant>, Failure> {
    if variants.contains(&Variant::Recvlogical) && find_recvlogical().is_none() {
        lab.note(log::NO_RECVLOGICAL.into());
        variants.retain(|variant| *variant != Variant::Recvlogical);
    }
    if variants.iter().any(|variant| variant.is_read_from_log())
        && let Some(reason) = log::why_unreadable(&mut lab.target)?
    {
        lab.note(format!("left out: what is read from the log, for {reason}"));
        variants.retain(|variant| !variant.is_read_from_log());
    }
    Ok(variants)
}

/// What was asked for, as far as the server has room for the clients.
fn loads(lab: &mut Lab, arguments: &Writers) -> Result<Vec<Case<Load>>, Failure> {
    let (clients_max, limit) = lab.target.room()?;
    let time = Duration::from_secs_f64(arguments.seconds);
    let mut loads = Vec::new();
    for &rows in &arguments.rows {
        for clients in arguments.clients.iter().map(|clients| usize::from(*clients)) {
            match clients <= clients_max {
                true => loads.push(Case {
                    series: format!("rows {rows}"),
                    step: clients as u64,
                    load: Load { clients, rows, time },
                }),
                false => lab.note(format!(
                    "left out: {clients} clients, for the server has room for {clients_max} ({limit})"
                )),
            }
        }
    }
    match loads.is_empty() {
        true => Err(Failure::Running(format!(
            "the server has room for {clients_max} clients ({limit}): ask for fewer"
        ))),
        false => Ok(loads),
    }
}

fn rounds(lab: &mut Lab, all: &[Variant], loads: &[Case<Load>]) -> Result<(), Failure> {
    let contenders: Vec<_> = all.iter().map(|variant| (name(*variant), *variant)).collect();
    let mut round = 0;
    lab.in_rounds(loads, &contenders, |lab, trial, load, variant| {
        // What a round left behind burdens no variant of the next one.
        if std::mem::replace(&mut round, trial.round) != trial.round {
            variants::vacuum(lab.conninfo(), &lab.channel, all)?;
        }
        lab.target.wait_for_room(load.clients, &lab.stop)?;
        let mut reader = reader(lab, trial, *variant)?;
        let per_s = rate(&trial.conninfo, &variant.table(&lab.channel), *load, &lab.stop)?;
        if let Some(reader) = &mut reader {
            reader.is_reading()?;
        }
        drop(reader);
        if *variant == Variant::Recvlogical {
            own_schema::drop_slots(&mut own_session(&trial.conninfo)?, &lab.channel)?;
        }
        Ok(Some(Found { figures: BTreeMap::from([("per_s", per_s)]), latencies: None }))
    })
}

/// Who reads the log while a variant's table is written.
fn reader(lab: &mut Lab, trial: &Trial, variant: Variant) -> Result<Option<Listening>, Failure> {
    let schema = lab.channel.clone();
    let contender = match variant {
        Variant::Wal => Contender::PGWAKE,
        Variant::Recvlogical => Contender::Recvlogical,
        _ => return Ok(None),
    };
    let mut log = Log { publication: schema.clone(), ..Log::default() };
    if variant == Variant::Recvlogical {
        lab.target.value(&format!("SELECT pg_create_logical_replication_slot('{schema}', 'pgoutput')"))?;
        log.slot = Some(schema.clone());
        log.recvlogical = find_recvlogical().unwrap_or_default();
    }
    let reader = Listening::start(&Order { log: Some(log), ..lab.order(trial, contender) }, &lab.stop)?;
    if variant == Variant::Recvlogical {
        log::wait_for_reader(&mut lab.target, &schema, &lab.stop)?;
    }
    Ok(Some(reader))
}

/// Statements a second of all clients together.
fn rate(conninfo: &str, table: &str, load: Load, stop: &Stop) -> Result<f64, Failure> {
    let is_over = AtomicBool::new(false);
    let ready = Barrier::new(load.clients + 1);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..load.clients)
            .map(|number| {
                let (is_over, ready) = (&is_over, &ready);
                scope.spawn(move || client(conninfo, table, load.rows, number as u64, ready, is_over))
            })
            .collect();
        ready.wait();
        let started = Instant::now();
        while started.elapsed() < load.time && !stop.is_asked_for() {
            std::thread::sleep(NAP.min(load.time.saturating_sub(started.elapsed())));
        }
        is_over.store(true, Ordering::Relaxed);
        let elapsed_s = started.elapsed().as_secs_f64();
        let mut count = 0;
        for client in clients {
            count += client.join().map_err(|_| Failure::Running("a client broke down".into()))??;
        }
        Ok(count as f64 / elapsed_s)
    })
}

/// One client until it is told to stop. Returns how many statements it ran.
fn client(
    conninfo: &str,
    table: &str,
    rows: u32,
    number: u64,
    ready: &Barrier,
    is_over: &AtomicBool,
) -> Result<u64, Failure> {
    let opened = own_session(conninfo).and_then(|mut connection| {
        let place = if rows == 1 { "= $1".into() } else { format!("BETWEEN $1 AND $1 + {}", rows - 1) };
        let update = format!("PREPARE change (int) AS UPDATE {table} SET n = n + 1 WHERE id {place}");
        // A bitmap scan would change the rows of a block in whatever order they lie at the moment.
        query::script(&mut connection, "SET enable_bitmapscan = off")?;
        query::script(&mut connection, &update)?;
        Ok(connection)
    });
    // The others wait for us, also if we cannot come.
    ready.wait();
    let mut connection = opened?;
    let mut random = (number + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut count = 0;
    while !is_over.load(Ordering::Relaxed) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        // Whole blocks of rows, in the order of their keys: two statements never deadlock.
        let block = random % u64::from(TABLE_ROWS / rows);
        query::script(&mut connection, &format!("EXECUTE change({})", block * u64::from(rows) + 1))?;
        count += 1;
    }
    Ok(count)
}
