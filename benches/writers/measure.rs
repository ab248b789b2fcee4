//! Measures writers to tables that differ in nothing but their triggers: a connection and a plan in, rates
//! and their ratios out.
//!
//! The clients are threads of ours that EXECUTE a prepared UPDATE and wait for its answer, one statement a
//! transaction. That costs the machine what pgbench costs it, and needs no pgbench.

use pgwake::pq::{Connection, Conninfo, ResultStatus};
use pgwake::{Error, Result};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What everything is compared with.
pub(crate) const YARDSTICK: &str = "none";

/// Each table's, so that statements of up to this many rows hit different ones.
const TABLE_ROWS: u32 = 10_000;

/// How a table is watched.
pub(crate) struct Variant {
    pub(crate) name: &'static str,
    /// Run once; `$TABLE` is the table.
    setup: &'static str,
}

/// The yardstick comes first.
pub(crate) const VARIANTS: [Variant; 5] = [
    Variant { name: YARDSTICK, setup: "" },
    Variant {
        name: "naive",
        setup: "CREATE FUNCTION $TABLE_notify() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN PERFORM pg_notify(''naive'', row_to_json(NEW)::text); RETURN NULL; END';
          CREATE TRIGGER naive AFTER UPDATE ON $TABLE FOR EACH ROW EXECUTE FUNCTION $TABLE_notify()",
    },
    Variant { name: "outbox", setup: "SELECT pgwake.watch_table('$TABLE')" },
    Variant { name: "notify", setup: "SELECT pgwake.watch_table('$TABLE', transport => 'notify')" },
    Variant { name: "wal", setup: "SELECT pgwake.watch_table('$TABLE', transport => 'wal')" },
];

/// How much is measured.
pub(crate) struct Plan {
    /// Of one variant in one round.
    pub(crate) time: Duration,
    pub(crate) rounds: usize,
}

/// What the clients do.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) clients: usize,
    /// Of one statement.
    pub(crate) rows: u32,
}

/// What came out for a variant: medians over the rounds.
pub(crate) struct Measurement {
    pub(crate) name: &'static str,
    /// Statements a second, each its own transaction.
    pub(crate) per_s: f64,
    /// Of the rate to the yardstick's in the same round.
    pub(crate) ratio: f64,
    pub(crate) ratio_min: f64,
    pub(crate) ratio_max: f64,
}

/// Installs the schema, and makes a table for each variant.
pub(crate) fn prepare(conninfo: &str, variants: &[&Variant]) -> Result<()> {
    let mut connection = connect(conninfo)?;
    execute(&mut connection, &pgwake::install::install())?;
    for variant in variants {
        let table = table(variant);
        let setup = variant.setup.replace("$TABLE", &table);
        execute(
            &mut connection,
            &format!(
                "DROP TABLE IF EXISTS {table};
                 CREATE TABLE {table} (id int PRIMARY KEY, n int, filler text) WITH (fillfactor = 50);
                 INSERT INTO {table} SELECT i, 0, repeat('x', 60) FROM generate_series(1, {TABLE_ROWS}) i;
                 {setup}"
            ),
        )?;
    }
    execute(&mut connection, "VACUUM ANALYZE")
}

/// All variants in alternation, so that what disturbs the machine disturbs them all.
pub(crate) fn run(
    conninfo: &str,
    variants: &[&Variant],
    load: Load,
    plan: &Plan,
) -> Result<Vec<Measurement>> {
    let mut rates: Vec<Vec<f64>> = vec![Vec::new(); variants.len()];
    for _ in 0..plan.rounds {
        for (rates, variant) in rates.iter_mut().zip(variants) {
            rates.push(rate(conninfo, &table(variant), load, plan.time)?);
        }
        // What the last round left behind burdens no variant of the next one.
        execute(&mut connect(conninfo)?, "VACUUM")?;
    }
    let measured = variants.iter().zip(&rates).map(|(variant, own)| {
        let mut ratios: Vec<f64> = own.iter().zip(&rates[0]).map(|(rate, base)| rate / base).collect();
        ratios.sort_by(f64::total_cmp);
        let mut own = own.clone();
        own.sort_by(f64::total_cmp);
        Measurement {
            name: variant.name,
            per_s: own[own.len() / 2],
            ratio: ratios[ratios.len() / 2],
            ratio_min: ratios[0],
            ratio_max: ratios[ratios.len() - 1],
        }
    });
    Ok(measured.collect())
}

/// Statements a second of all clients together.
fn rate(conninfo: &str, table: &str, load: Load, time: Duration) -> Result<f64> {
    let stop = AtomicBool::new(false);
    let ready = Barrier::new(load.clients + 1);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..load.clients)
            .map(|number| {
                let (stop, ready) = (&stop, &ready);
                scope.spawn(move || client(conninfo, table, load.rows, number as u64, ready, stop))
            })
            .collect();
        ready.wait();
        let started = Instant::now();
        std::thread::sleep(time);
        stop.store(true, Ordering::Relaxed);
        let elapsed_s = started.elapsed().as_secs_f64();
        let mut count = 0;
        for client in clients {
            count += client.join().map_err(|_| Error::from(std::io::Error::other("a client panicked")))??;
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
    stop: &AtomicBool,
) -> Result<u64> {
    let opened = connect(conninfo).and_then(|mut connection| {
        let last = rows - 1;
        let update = format!(
            "PREPARE change (int) AS UPDATE {table} SET n = n + 1 WHERE id BETWEEN $1 AND $1 + {last}"
        );
        let update = if rows == 1 { update.replace("BETWEEN $1 AND $1 + 0", "= $1") } else { update };
        execute(&mut connection, &update)?;
        Ok(connection)
    });
    // The others wait for us, also if we cannot come.
    ready.wait();
    let mut connection = opened?;
    let mut random = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        // Whole blocks of rows: two statements change the same ones or none in common, and never deadlock.
        let block = random % u64::from(TABLE_ROWS / rows);
        execute(&mut connection, &format!("EXECUTE change({})", block * u64::from(rows) + 1))?;
        count += 1;
    }
    Ok(count)
}

fn table(variant: &Variant) -> String {
    format!("bench_{}", variant.name)
}

fn connect(conninfo: &str) -> Result<Connection> {
    Connection::connect(&Conninfo::parse(conninfo)?)
}

fn execute(connection: &mut Connection, sql: &str) -> Result<()> {
    connection.send_query(sql)?;
    let mut failure = None;
    while let Some(result) = connection.result() {
        if result.status() == ResultStatus::Failed {
            failure = failure.or(Some(result.error()));
        }
    }
    failure.map_or(Ok(()), Err)
}
