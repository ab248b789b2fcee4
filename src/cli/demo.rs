//! `pgwake demo`: the main job on a server of its own: a table changes, events come, their latency is shown.
//! Or, with `--keep`, the server alone, for its user to try things on.

use super::arguments::{Demo, Format};
use super::output::Output;
use super::server::{PrivateServer, ServerOptions, find_programs};
use super::stop::{Stop, wake_on_children};
use super::{Failure, not_connected, query};
use pgwake::json::JsonValue;
use pgwake::pq::{Connection, Conninfo};
use pgwake::{Event, EventLoop};
use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The payload tells when the trigger ran, so that the latency of each event can be told.
const TABLE_WITH_TRIGGER: &str = "
CREATE TABLE orders (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, item text, pieces int);
CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
  PERFORM pg_notify('orders', json_build_object(
    'op', lower(TG_OP), 'at_us', (extract(epoch FROM clock_timestamp()) * 1e6)::bigint,
    'row', CASE TG_OP WHEN 'DELETE' THEN row_to_json(OLD) ELSE row_to_json(NEW) END)::text);
  RETURN NULL;
END $$;
CREATE TRIGGER tell AFTER INSERT OR UPDATE OR DELETE ON orders FOR EACH ROW EXECUTE FUNCTION tell();";

const STORY: [&str; 5] = [
    "INSERT INTO orders (item, pieces) VALUES ('tea', 2)",
    "INSERT INTO orders (item, pieces) VALUES ('naïve \"quotes\"', 1)",
    "UPDATE orders SET pieces = 3 WHERE item = 'tea'",
    "DELETE FROM orders WHERE pieces = 1",
    "NOTIFY orders, '{\"op\": \"by hand\"}'",
];

/// Changes that are measured after the story, and the time between two of them.
const MEASURED: usize = 1000;
const PACE: Duration = Duration::from_millis(1);

pub(crate) fn run(dsn: &str, format: Format, arguments: &Demo) -> Result<(), Failure> {
    if !dsn.is_empty() {
        return Err(Failure::Usage("the demo has a server of its own: leave -d out".into()));
    }
    let programs = find_programs()?;
    say!("starting a private PostgreSQL from {} …", programs.display());
    // So that all there is can be tried on it.
    let settings = vec!["wal_level = logical".into()];
    let options = ServerOptions { programs: Some(programs), settings, ..ServerOptions::default() };
    let mut server = PrivateServer::start(&options)?;
    let done = if arguments.keep { keep(&mut server) } else { show(&server.conninfo(), format) };
    done.map_err(|failure| failure.explained_by(&mut server))
}

/// Leaves the server up until somebody says stop.
fn keep(server: &mut PrivateServer) -> Result<(), Failure> {
    let conninfo = server.conninfo();
    query::script(&mut query::connect(&conninfo)?, TABLE_WITH_TRIGGER)?;
    let mut events = EventLoop::new()?;
    let stop = Stop::on_signals(events.waker())?;
    wake_on_children(events.waker())?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{conninfo}")?;
    out.flush()?;
    let typed = std::env::args().next().unwrap_or_else(|| "pgwake".into());
    // Neither has a NUL byte, which alone cannot be quoted.
    let quoted = |word| shlex::try_quote(word).unwrap_or_default();
    let (pgwake, quoted) = (quoted(&typed), quoted(&conninfo));
    say!("it is up until Ctrl-C, with a table whose trigger notifies. In other terminals:");
    say!("  {pgwake} -d {quoted} listen orders");
    say!("  {pgwake} -d {quoted} watch orders");
    say!("  psql {quoted} -c \"INSERT INTO orders (item, pieces) VALUES ('tea', 2)\"");
    while !stop.is_asked_for() {
        events.next(None)?;
        if server.end()?.is_some() {
            return Err(Failure::Running("it is gone".into()));
        }
    }
    Ok(())
}

fn show(conninfo: &str, format: Format) -> Result<(), Failure> {
    let mut writer = query::connect(conninfo)?;
    query::script(&mut writer, TABLE_WITH_TRIGGER)?;

    let mut events = EventLoop::new()?;
    let session = events.connect(conninfo)?;
    events.listen(session, "orders")?;
    let stop = Stop::on_signals(events.waker())?;
    let mut output = Output::new(format);
    let mut latencies_us = Vec::with_capacity(MEASURED);
    let (mut told, mut writing) = (0, None::<std::thread::JoinHandle<Result<(), Failure>>>);
    while told < STORY.len() + MEASURED {
        if stop.is_asked_for() {
            return Ok(());
        }
        match events.next(None)? {
            Some(event @ Event::Listening(_)) => {
                output.write(&event)?;
                output.flush()?;
                let (conninfo, waker) = (conninfo.to_string(), events.waker());
                writing = Some(std::thread::spawn(move || {
                    let written = write(&conninfo);
                    // When it failed, nothing else would end the wait.
                    let _ = waker.wake();
                    written
                }));
            }
            Some(event @ Event::Notification(notification)) => {
                told += 1;
                if told <= STORY.len() {
                    output.write(&event)?;
                    output.flush()?;
                } else {
                    latencies_us.extend(notification.json().ok().as_ref().and_then(age_us));
                }
            }
            None if writing.as_ref().is_some_and(|writing| writing.is_finished()) => {
                let written = writing.take().map_or(Ok(Ok(())), |writing| writing.join());
                written.unwrap_or(Err(Failure::Running("the demo's writer broke down".into())))?;
            }
            Some(Event::Disconnected(lost)) => return Err(not_connected(lost.message, lost.sqlstate)),
            _ => {}
        }
    }
    drop(events);
    show_latencies(&mut latencies_us);
    say!("next: pgwake demo --keep                       a server to try things on, until Ctrl-C");
    say!("      pgwake -d \"dbname=…\" listen CHANNEL     on a server of yours (pgwake --help)");
    Ok(())
}

/// The time from the trigger's run to now, in microseconds. Server and client share one clock here.
fn age_us(payload: &JsonValue) -> Option<u64> {
    let ran_at_us = payload.get("at_us")?.as_u64()?;
    let now_us = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_micros() as u64;
    Some(now_us.saturating_sub(ran_at_us))
}

/// What happens to the table: each change is a transaction of its own.
fn write(conninfo: &str) -> Result<(), Failure> {
    let mut writer = Connection::connect(&Conninfo::parse(conninfo)?)?;
    for sql in STORY {
        say!("  {sql}");
        query::script(&mut writer, sql)?;
        std::thread::sleep(Duration::from_millis(200));
    }
    say!("  … and {MEASURED} updates, one every {} ms", PACE.as_millis());
    for _ in 0..MEASURED {
        query::script(&mut writer, "UPDATE orders SET pieces = pieces + 1 WHERE id = 1")?;
        std::thread::sleep(PACE);
    }
    Ok(())
}

/// The distribution, one line for each doubling.
fn show_latencies(latencies_us: &mut [u64]) {
    const BAR_WIDTH_MAX: usize = 50;
    latencies_us.sort_unstable();
    let (Some(&least), Some(&most)) = (latencies_us.first(), latencies_us.last()) else { return };
    let at = |percent: usize| latencies_us[(latencies_us.len() - 1) * percent / 100];
    say!("\nfrom the trigger to the event, {} updates:", latencies_us.len());
    say!("  median {} µs, 99 % within {} µs, longest {most} µs", at(50), at(99));
    let (mut from, mut rest) = (1u64 << least.max(1).ilog2(), &*latencies_us);
    while !rest.is_empty() {
        let (bucket, others) = rest.split_at(rest.partition_point(|us| *us < from * 2));
        let width = (bucket.len() * BAR_WIDTH_MAX).div_ceil(latencies_us.len());
        say!("  {from:>6} µs {:>5}  {}", bucket.len(), "█".repeat(width));
        (from, rest) = (from * 2, others);
    }
    say!();
}
