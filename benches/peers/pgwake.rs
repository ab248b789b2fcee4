//! pgwake as a peer of a side-by-side measurement: `peer [--spin MICROSECONDS | --adaptive SHARE] CONNINFO
//! CHANNEL COUNT`.
//!
//! Listens, prints `READY`, takes COUNT notifications, compares the time of each (`CLOCK_MONOTONIC`,
//! nanoseconds) with the number at the start of its payload, and prints one line of JSON.

use pgwake::{Event, EventLoop, EventLoopOptions, Result};
use std::time::Duration;

fn monotonic_ns() -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel fills the struct that outlives the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

fn cpu_s() -> f64 {
    // SAFETY: all zeroes are a valid rusage, and the kernel fills the struct that outlives the call.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let seconds = usage.ru_utime.tv_sec + usage.ru_stime.tv_sec;
    seconds as f64 + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) as f64 / 1e6
}

/// The decimal number at the start of a payload.
fn leading_number(payload: &[u8]) -> i64 {
    payload.iter().take_while(|b| b.is_ascii_digit()).fold(0, |n, b| n * 10 + i64::from(b - b'0'))
}

fn main() -> Result<()> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut options = EventLoopOptions::new();
    while let [option, value, ..] = arguments.as_slice() {
        options = match option.as_str() {
            "--spin" => {
                options.spin(Duration::from_micros(value.parse().expect("--spin takes microseconds")))
            }
            "--adaptive" => options.spin_adaptive(value.parse().expect("--adaptive takes a share of 1")),
            _ => break,
        };
        arguments.drain(..2);
    }
    let [conninfo, channel, count] = arguments.as_slice() else {
        eprintln!(
            "usage: peer [--spin MICROSECONDS | --adaptive SHARE] CONNINFO CHANNEL COUNT (see README.md)"
        );
        return Ok(());
    };
    let count: usize = count.parse().expect("COUNT is a number");

    let mut events = EventLoop::with_options(options)?;
    let session = events.connect(conninfo)?;
    events.listen(session, channel)?;
    // Touched once, so that no page has to be found while it counts.
    let mut latencies_ns = vec![1i64; count];
    latencies_ns.clear();
    let (mut first_ns, mut cpu_start_s) = (0, 0.0);
    while latencies_ns.len() < count {
        match events.next(None)? {
            Some(Event::Notification(n)) => {
                let now_ns = monotonic_ns();
                if latencies_ns.is_empty() {
                    first_ns = now_ns;
                }
                latencies_ns.push(now_ns - leading_number(&n.payload));
            }
            Some(Event::Listening(_)) => {
                cpu_start_s = cpu_s();
                println!("READY");
            }
            other => panic!("not expected here: {other:?}"),
        }
    }
    let (cpu_s, wall_s) = (cpu_s() - cpu_start_s, (monotonic_ns() - first_ns) as f64 / 1e9);
    latencies_ns.sort_unstable();
    let us = |i: usize| latencies_ns[i.min(count - 1)] as f64 / 1e3;
    println!(
        "{{\"peer\":\"pgwake\",\"n\":{count},\"wall_s\":{wall_s:.4},\"per_s\":{:.0},\"cpu_ns_each\":{:.0},\
         \"p50_us\":{:.1},\"p99_us\":{:.1},\"p999_us\":{:.1},\"max_us\":{:.1}}}",
        count as f64 / wall_s,
        cpu_s * 1e9 / count as f64,
        us(count / 2),
        us(count * 99 / 100),
        us(count * 999 / 1000),
        us(count - 1),
    );
    Ok(())
}
