//! How far a run has come, in numbers: as a line on stderr, and as a file in Prometheus' text format for
//! node_exporter's textfile collector.

use super::Failure;
use super::values::duration;
use clap::Args;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often the file is written where nobody says it.
const INTERVAL_DEFAULT: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(crate) struct Reporting {
    /// Print a line of figures to stderr that often
    #[arg(long, value_name = "DURATION", value_parser = duration, help_heading = "Figures")]
    pub(crate) stats: Option<Duration>,

    /// Keep the same in FILE, in Prometheus' text format, written anew that often, or every 10 s. Its name
    /// without .prom is a label
    #[arg(long, value_name = "FILE", help_heading = "Figures")]
    pub(crate) metrics: Option<PathBuf>,
}

/// Of events that are handed over.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Handed {
    pub(crate) stored: u64,
    pub(crate) under_way: u64,
    pub(crate) under_way_bytes: u64,
    pub(crate) oldest: Duration,
    pub(crate) naks: u64,
    pub(crate) dead_letters: u64,
    pub(crate) restarts: u64,
}

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Figures {
    pub(crate) events: u64,
    pub(crate) handed: Option<Handed>,
}

impl Figures {
    /// Each with its name, its kind and what it is.
    fn all(&self) -> Vec<(&'static str, &'static str, &'static str, f64)> {
        let mut all = vec![("events_total", "counter", "Events that came.", self.events as f64)];
        if let Some(handed) = &self.handed {
            all.extend([
                ("stored_total", "counter", "Events that are stored.", handed.stored as f64),
                ("window_events", "gauge", "Events under way.", handed.under_way as f64),
                ("window_bytes", "gauge", "What these take.", handed.under_way_bytes as f64),
                (
                    "oldest_unacknowledged_seconds",
                    "gauge",
                    "How long the oldest of them has been with the process.",
                    handed.oldest.as_secs_f64(),
                ),
                (
                    "naks_total",
                    "counter",
                    "How often the process asked for events again.",
                    handed.naks as f64,
                ),
                ("dead_letters_total", "counter", "Events that were dropped.", handed.dead_letters as f64),
                ("restarts_total", "counter", "Processes that failed.", handed.restarts as f64),
            ]);
        }
        all
    }

    fn line(&self) -> String {
        let mut line = format!("{} events", self.events);
        if let Some(handed) = &self.handed {
            let Handed { stored, under_way, under_way_bytes, oldest, naks, dead_letters, restarts } = handed;
            let _ = write!(
                line,
                ", {stored} stored, {under_way} under way ({} kB, the oldest for {:.1} s), {naks} naks, \
                 {dead_letters} dead letters, {restarts} restarts",
                under_way_bytes.div_ceil(1024),
                oldest.as_secs_f64()
            );
        }
        line
    }

    /// Several runs may have a file each in one directory: the name of the file tells them apart.
    fn prometheus(&self, label: &str) -> String {
        let label = label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let mut text = String::new();
        for (name, kind, help, value) in self.all() {
            let _ = writeln!(text, "# HELP pgwake_{name} {help}\n# TYPE pgwake_{name} {kind}");
            let _ = writeln!(text, "pgwake_{name}{{run=\"{label}\"}} {value}");
        }
        text
    }
}

/// When they are told next, and where.
#[derive(Debug)]
pub(crate) struct Reporter {
    interval: Duration,
    is_said: bool,
    file: Option<PathBuf>,
    next_at: Instant,
}

impl Reporter {
    /// If anybody wants them. A file that cannot be written is a failure at once.
    pub(crate) fn new(reporting: &Reporting) -> Result<Option<Self>, Failure> {
        if reporting.stats.is_none() && reporting.metrics.is_none() {
            return Ok(None);
        }
        let interval = reporting.stats.unwrap_or(INTERVAL_DEFAULT);
        if interval.is_zero() {
            let sentence = "--stats needs an interval: write it as 250ms, 5s, 2m or 1h";
            return Err(Failure::Usage(sentence.into()));
        }
        let (is_said, file) = (reporting.stats.is_some(), reporting.metrics.clone());
        let reporter = Reporter { interval, is_said, file, next_at: Instant::now() + interval };
        if let Some(file) = &reporter.file {
            write(file, &Figures::default()).map_err(|error| unwritable(file, &error))?;
        }
        Ok(Some(reporter))
    }

    /// How long until they are told next.
    pub(crate) fn remaining(&self) -> Duration {
        self.next_at.saturating_duration_since(Instant::now())
    }

    /// Tells them, if it is time, or if it is the last one.
    pub(crate) fn tell(&mut self, figures: impl FnOnce() -> Figures, is_last: bool) {
        if !is_last && !self.remaining().is_zero() {
            return;
        }
        self.next_at = Instant::now() + self.interval;
        let figures = figures();
        // What is handed over goes on when a disk is full.
        if let Some(file) = &self.file
            && let Err(error) = write(file, &figures)
        {
            log::warn!("the figures cannot be written to {}: {error}", file.display());
        }
        if self.is_said {
            say!("{}", figures.line());
        }
    }
}

fn unwritable(file: &Path, error: &std::io::Error) -> Failure {
    let file = file.display();
    Failure::Running(format!(
        "the figures cannot be written to {file}: {error}; name another file with --metrics"
    ))
}

/// Who reads it finds it whole: it is made beside it, under a name that nobody reads.
fn write(file: &Path, figures: &Figures) -> std::io::Result<()> {
    if std::fs::symlink_metadata(file).is_ok_and(|found| !found.is_file()) {
        return Err(std::io::Error::other("it is there, and no file that could be replaced"));
    }
    let label = file.file_stem().unwrap_or_default().to_string_lossy();
    let mut beside = file.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    let written = std::fs::write(&beside, figures.prometheus(&label));
    written.and_then(|()| std::fs::rename(&beside, file)).inspect_err(|_| {
        // Nobody would ever look for it.
        let _ = std::fs::remove_file(&beside);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_a_line_or_a_file() {
        let handed = Handed {
            stored: 7,
            under_way: 3,
            under_way_bytes: 1500,
            oldest: Duration::from_millis(250),
            naks: 1,
            dead_letters: 2,
            restarts: 4,
        };
        let figures = Figures { events: 12, handed: Some(handed) };
        assert_eq!(
            figures.line(),
            "12 events, 7 stored, 3 under way (2 kB, the oldest for 0.2 s), 1 naks, 2 dead letters, \
             4 restarts"
        );
        let text = figures.prometheus("a\"b");
        assert!(
            text.contains("# TYPE pgwake_events_total counter\npgwake_events_total{run=\"a\\\"b\"} 12\n")
        );
        assert!(text.contains("\npgwake_oldest_unacknowledged_seconds{run=\"a\\\"b\"} 0.25\n"), "{text}");
        let plain = Figures { events: 5, handed: None };
        assert_eq!((plain.line().as_str(), plain.prometheus("x").lines().count()), ("5 events", 3));
    }

    #[test]
    fn a_file_is_replaced_whole() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("orders.prom");
        let reporting = Reporting { stats: None, metrics: Some(file.clone()) };
        let mut reporter = Reporter::new(&reporting).unwrap().unwrap();
        let read = || std::fs::read_to_string(&file).unwrap();
        assert!(read().contains("pgwake_events_total{run=\"orders\"} 0\n"));
        reporter.tell(|| Figures { events: 9, handed: None }, false);
        assert!(read().contains("\"} 0\n"), "it is not time yet");
        reporter.tell(|| Figures { events: 9, handed: None }, true);
        assert!(read().contains("\"} 9\n"));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        let reporting = Reporting { stats: None, metrics: Some("/no/such/directory/x.prom".into()) };
        assert!(matches!(Reporter::new(&reporting), Err(Failure::Running(_))));
        let link = directory.path().join("link.prom");
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        let reporting = Reporting { stats: None, metrics: Some(link.clone()) };
        assert!(matches!(Reporter::new(&reporting), Err(Failure::Running(_))));
        assert!(link.is_symlink() && std::fs::read_dir(directory.path()).unwrap().count() == 2);
    }
}
