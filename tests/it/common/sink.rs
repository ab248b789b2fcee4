//! A child that stores what it is handed in a file, good or bad, and what the file has.

use serde_json::Value;
use std::path::Path;

pub(crate) struct Sink {
    directory: tempfile::TempDir,
    script: String,
}

impl Sink {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let script = directory.path().join("sink.py");
        std::fs::write(&script, include_str!("sink.py")).unwrap();
        Sink { script: script.display().to_string(), directory }
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.directory.path().join(name)).unwrap_or_default()
    }

    /// `--to` this child, which is bad for so many runs.
    pub(crate) fn to<'a>(&'a self, mode: &'a str, bad_runs: u32) -> [&'a str; 7] {
        let bad_runs = ["0", "1", "2", "3"].get(bad_runs as usize).copied().unwrap_or("1000000");
        let directory = self.directory.path().to_str().unwrap();
        // A wrapper of it that comes first in PATH may take seconds to begin.
        let python = "/usr/bin/python3";
        let python = if Path::new(python).exists() { python } else { "python3" };
        ["--to", python, "-IS", &self.script, directory, mode, bad_runs]
    }

    /// How often it was started.
    pub(crate) fn runs(&self) -> usize {
        self.text("runs").lines().count()
    }

    pub(crate) fn pids(&self) -> Vec<u32> {
        self.text("runs").lines().map(|line| line.parse().unwrap()).collect()
    }

    /// Position and key, or payload, of each event, whole lines only.
    pub(crate) fn lines(&self) -> Vec<(String, String)> {
        let text = self.text("sink");
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let pairs = whole.lines().map(|line| line.split_once(' ').unwrap());
        pairs.map(|(position, key)| (position.to_string(), key.to_string())).collect()
    }

    /// How much it has stored.
    pub(crate) fn bytes(&self) -> u64 {
        std::fs::metadata(self.directory.path().join("sink")).map_or(0, |sink| sink.len())
    }

    /// Position and id of each change, in the order in which they were stored.
    pub(crate) fn changes(&self) -> Vec<(String, u64)> {
        let id = |key: &str| serde_json::from_str::<Value>(key).unwrap()["id"].as_u64();
        self.lines().into_iter().filter_map(|(position, key)| Some((position, id(&key)?))).collect()
    }

    /// The ids of changes, those that came again left out.
    pub(crate) fn ids(&self) -> Vec<u64> {
        let mut seen = std::collections::HashSet::new();
        self.changes().into_iter().map(|(_, id)| id).filter(|id| seen.insert(*id)).collect()
    }
}
