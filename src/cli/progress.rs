//! How far the rows of a snapshot have come: one line on stderr, written over and over, for the user at a
//! terminal who does not see the rows themselves.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// How often the line is written.
const INTERVAL: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub(crate) struct Progress {
    is_shown: bool,
    since: Instant,
    shown_at: Option<Instant>,
    rows: u64,
}

impl Progress {
    pub(crate) fn new() -> Self {
        let is_shown = std::io::stderr().is_terminal() && !std::io::stdout().is_terminal();
        Progress { is_shown, since: Instant::now(), shown_at: None, rows: 0 }
    }

    /// One more row has come.
    pub(crate) fn row(&mut self) {
        self.rows += 1;
        let now = Instant::now();
        if self.is_shown && self.shown_at.is_none_or(|at| now >= at + INTERVAL) {
            self.shown_at = Some(now);
            show(&line(self.rows, now - self.since), '\r');
        }
    }

    /// All rows have come, or no more will. Says so once, if there was something to say.
    pub(crate) fn end(&mut self) {
        if self.shown_at.take().is_some() {
            show(&line(self.rows, self.since.elapsed()), '\n');
        }
    }
}

fn show(line: &str, end: char) {
    let mut stderr = std::io::stderr();
    // There is nobody left to tell when stderr is closed.
    let _ = write!(stderr, "{line}{end}").and_then(|()| stderr.flush());
}

/// Padded, so that it covers what it is written over.
fn line(rows: u64, time: Duration) -> String {
    let per_second = rows as f64 / time.as_secs_f64().max(0.001);
    format!("{:<60}", format!("snapshot: {rows} rows, {per_second:.0} per second"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_how_many_and_how_fast_and_covers_the_last() {
        let shown = line(1_500_000, Duration::from_secs(3));
        assert_eq!(shown.trim_end(), "snapshot: 1500000 rows, 500000 per second");
        assert_eq!(shown.len(), line(1, Duration::ZERO).len());
    }
}
