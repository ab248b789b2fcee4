//! A report: what was measured, as data. Runs go in, one for each program, way, step and round; medians,
//! ratios and distributions come out. `benches/README.md` describes it as JSON.

use super::environment::Environment;
use super::unit::Unit;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The version of the schema. It grows when a name changes its meaning or goes; new names may come without.
pub(super) const VERSION: u32 = 1;

/// What the other contenders of a scenario are compared with.
#[derive(Debug)]
pub(super) struct Yardstick {
    pub(super) name: &'static str,
    /// Within a sentence.
    pub(super) phrase: &'static str,
}

pub(super) const C_LOOP: Yardstick = Yardstick { name: "C loop", phrase: "the C loop" };
pub(super) const NO_TRIGGER: Yardstick = Yardstick { name: "none", phrase: "no trigger" };
pub(super) const NOTIFY: Yardstick = Yardstick { name: "NOTIFY", phrase: "NOTIFY" };
pub(super) const RECVLOGICAL: Yardstick = Yardstick { name: "pg_recvlogical", phrase: "pg_recvlogical" };

/// The series of `stream` that has latencies.
pub(super) const LATENCY: &str = "latency";

/// What a series of a scenario compares with.
pub(super) fn yardstick(scenario: &str, series: &str) -> &'static Yardstick {
    match (scenario, series) {
        ("writers", _) => &NO_TRIGGER,
        ("stream", LATENCY) => &NOTIFY,
        ("stream", _) => &RECVLOGICAL,
        _ => &C_LOOP,
    }
}

/// The figures of latencies.
const QUANTILES: [(&str, f64); 5] =
    [("p50_us", 0.5), ("p90_us", 0.9), ("p99_us", 0.99), ("p999_us", 0.999), ("max_us", 1.0)];

/// Slices of a run in its timeline.
const SLICES: usize = 20;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Report {
    pub(super) pgwake_bench: u32,
    pub(super) scenario: String,
    /// All rounds were run to their end.
    pub(super) complete: bool,
    pub(super) started_at: String,
    pub(super) seconds: f64,
    pub(super) parameters: BTreeMap<String, serde_json::Value>,
    pub(super) environment: Environment,
    /// What was left out and why, which limit was met.
    pub(super) notes: Vec<String>,
    pub(super) measurements: Vec<Measurement>,
}

/// What is measured: one program, over one way, at one step.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Subject {
    pub(super) contender: String,
    pub(super) transport: String,
    /// What the steps belong to, such as `sessions`; empty where there are none.
    pub(super) series: String,
    /// The place in the series: bytes of payload, number of sessions.
    pub(super) step: u64,
}

impl Subject {
    /// For people.
    pub(super) fn words(&self, scenario: &str) -> String {
        let Subject { contender, transport, series, step } = self;
        let step = match step_unit(scenario, series) {
            "" => String::new(),
            unit if unit == series => format!(", {step} {unit}"),
            unit => format!(", {series}, {step} {unit}"),
        };
        format!("{contender} over {transport}{step}")
    }
}

/// All rounds of one subject.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Measurement {
    #[serde(flatten)]
    pub(super) subject: Subject,
    /// By name, which ends in the unit.
    pub(super) figures: BTreeMap<String, Figure>,
    /// Percentile and microseconds, over all rounds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) distribution: Vec<[f64; 2]>,
    /// Seconds since the start, and the median and the longest latency there in microseconds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) timeline: Vec<[f64; 3]>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Figure {
    pub(super) median: f64,
    pub(super) rounds: Vec<f64>,
    /// To the yardstick in the same round, of the same way and step: the median.
    pub(super) ratio: Option<f64>,
    pub(super) ratio_rounds: Vec<f64>,
}

impl Report {
    /// The measurements of each way and series.
    pub(super) fn groups(&self) -> impl Iterator<Item = &[Measurement]> {
        let key = |m: &Measurement| (m.subject.transport.clone(), m.subject.series.clone());
        self.measurements.chunk_by(move |a, b| key(a) == key(b))
    }
}

/// How a figure is shown.
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) heading: &'static str,
    pub(super) unit: Unit,
    pub(super) more_is_better: bool,
}

const fn more(name: &'static str, heading: &'static str) -> Kind {
    Kind { name, heading, unit: Unit::Plain, more_is_better: true }
}

const fn less(name: &'static str, heading: &'static str, unit: Unit) -> Kind {
    Kind { name, heading, unit, more_is_better: false }
}

/// The figures there are, in the order in which they are shown.
pub(super) const KINDS: [Kind; 16] = [
    more("per_s", "per s"),
    more("mb_per_s", "MB/s"),
    less("p50_us", "p50", Unit::Microseconds),
    less("p90_us", "p90", Unit::Microseconds),
    less("p99_us", "p99", Unit::Microseconds),
    less("p999_us", "p99.9", Unit::Microseconds),
    less("max_us", "max", Unit::Microseconds),
    less("cpu_ns_each", "CPU", Unit::Nanoseconds),
    less("server_cpu_ns_each", "server CPU", Unit::Nanoseconds),
    less("last_p50_us", "last p50", Unit::Microseconds),
    less("p50_to_first", "p50 to first", Unit::Plain),
    less("cpu_to_first", "CPU to first", Unit::Plain),
    less("memory_kb_each", "memory each", Unit::Kilobytes),
    less("connect_ms", "connect", Unit::Milliseconds),
    less("listen_again_ms", "listen again", Unit::Milliseconds),
    more("notifications", "heard"),
];

/// What is shown of a scenario where there are such figures; the JSON has more.
pub(super) fn kinds_of(scenario: &str, group: &[Measurement]) -> Vec<&'static Kind> {
    let left_out: &[&str] = match scenario {
        "scale" => &["p90_us", "p999_us", "max_us", "notifications"],
        _ => &["notifications"],
    };
    let is_there = |kind: &&Kind| group.iter().any(|measurement| measurement.figures.contains_key(kind.name));
    KINDS.iter().filter(|kind| !left_out.contains(&kind.name)).filter(is_there).collect()
}

/// What the steps of a series count.
pub(super) fn step_unit<'a>(scenario: &str, series: &'a str) -> &'a str {
    match scenario {
        "throughput" => "bytes",
        "writers" => "clients",
        "stream" => "rows",
        _ => series,
    }
}

/// One round of one subject.
#[derive(Debug, Clone)]
pub(super) struct Run {
    pub(super) subject: Subject,
    pub(super) round: usize,
    pub(super) figures: BTreeMap<&'static str, f64>,
    pub(super) latencies: Option<Latencies>,
}

/// The latencies of one run.
#[derive(Debug, Clone)]
pub(super) struct Latencies {
    pub(super) figures: [(&'static str, f64); 5],
    pub(super) histogram: Histogram<u64>,
    pub(super) timeline: Vec<[f64; 3]>,
}

impl Latencies {
    /// From pairs of the time at which a notification was due and that at which it was taken, `None` without
    /// any. `started_ns` is where the timeline begins. What came before it was due is negative; a plot has
    /// 1 ns there.
    pub(super) fn of(times: &[[i64; 2]], started_ns: i64) -> Option<Self> {
        let (first, last) = (times.first()?[0], times.last()?[0]);
        let mut histogram = new_histogram()?;
        let mut timeline = Vec::new();
        let slice_ns = (last - first) / SLICES as i64 + 1;
        for slice in times.chunk_by(|a, b| (a[0] - first) / slice_ns == (b[0] - first) / slice_ns) {
            let mut own = new_histogram()?;
            for [due_ns, taken_ns] in slice {
                own.saturating_record((taken_ns - due_ns).max(1).cast_unsigned());
            }
            let at_s = (slice[0][0] - started_ns) as f64 / 1e9;
            timeline.push([round_to(at_s, 4), us(own.value_at_quantile(0.5) as i64), us(own.max() as i64)]);
            // Both have the same bounds.
            let _ = histogram.add(&own);
        }
        let mut sorted_ns: Vec<_> = times.iter().map(|[due_ns, taken_ns]| taken_ns - due_ns).collect();
        sorted_ns.sort_unstable();
        let at = |quantile: f64| sorted_ns[(sorted_ns.len() as f64 * quantile).ceil() as usize - 1];
        let figures = QUANTILES.map(|(name, quantile)| (name, us(at(quantile))));
        Some(Latencies { figures, histogram, timeline })
    }
}

/// Nanoseconds up to ten minutes, to three digits.
fn new_histogram() -> Option<Histogram<u64>> {
    Histogram::new_with_bounds(1, 600_000_000_000, 3).ok()
}

fn us(ns: i64) -> f64 {
    round_to(ns as f64 / 1e3, 3)
}

fn round_to(value: f64, decimals: i32) -> f64 {
    let factor = 10f64.powi(decimals);
    (value * factor).round() / factor
}

/// Sums the runs up, in the order in which their subjects first came.
pub(super) fn summarise(runs: &[Run], scenario: &str) -> Vec<Measurement> {
    let mut subjects: Vec<&Subject> = Vec::new();
    for run in runs {
        if !subjects.contains(&&run.subject) {
            subjects.push(&run.subject);
        }
    }
    let sum_up = |subject: &Subject| {
        let own: Vec<&Run> = runs.iter().filter(|run| run.subject == *subject).collect();
        let timelines = own.iter().filter_map(|run| run.latencies.as_ref());
        Measurement {
            subject: subject.clone(),
            figures: figures_of(&own, runs, yardstick(scenario, &subject.series)),
            distribution: distribution(&own),
            timeline: timelines.flat_map(|latencies| latencies.timeline.clone()).collect(),
        }
    };
    subjects.into_iter().map(sum_up).collect()
}

fn figures_of(own: &[&Run], all: &[Run], yardstick: &Yardstick) -> BTreeMap<String, Figure> {
    let mut figures: BTreeMap<String, Figure> = BTreeMap::new();
    for run in own {
        let beside = Subject { contender: yardstick.name.into(), ..run.subject.clone() };
        let like = all.iter().find(|other| other.round == run.round && other.subject == beside);
        for (&name, &value) in &run.figures {
            let figure = figures.entry(name.into()).or_default();
            figure.rounds.push(round_to(value, 3));
            let beside = like.and_then(|like| like.figures.get(name));
            if let Some(beside) =
                beside.filter(|beside| **beside > 0.0 && run.subject.contender != yardstick.name)
            {
                figure.ratio_rounds.push(round_to(value / beside, 4));
            }
        }
    }
    for figure in figures.values_mut() {
        figure.median = median(&figure.rounds).unwrap_or_default();
        figure.ratio = median(&figure.ratio_rounds);
    }
    figures
}

/// Denser towards the end, where it matters: each step halves what is beyond.
fn distribution(own: &[&Run]) -> Vec<[f64; 2]> {
    let mut whole: Option<Histogram<u64>> = None;
    for latencies in own.iter().filter_map(|run| run.latencies.as_ref()) {
        match &mut whole {
            Some(whole) => whole.add(&latencies.histogram).unwrap_or_default(),
            None => whole = Some(latencies.histogram.clone()),
        }
    }
    let Some(whole) = whole else { return Vec::new() };
    let points = whole.iter_quantiles(5).map(|value| {
        [
            round_to(value.quantile_iterated_to() * 100.0, 5),
            us(value.value_iterated_to().min(whole.max()) as i64),
        ]
    });
    points.collect()
}

/// The middle one, or the mean of the two; `None` without any.
pub(super) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = *sorted.get((sorted.len() - 1) / 2)?;
    Some(round_to((lower + upper) / 2.0, 4))
}

#[cfg(test)]
impl Report {
    /// What nobody measured: each contender at each step with this value of all these figures.
    pub(super) fn sample(
        (scenario, series): (&str, &str),
        contenders: &[&str],
        steps: &[u64],
        figures: &[&str],
        value: f64,
    ) -> Self {
        let figure = Figure { median: value, rounds: vec![value], ratio: Some(value), ..Figure::default() };
        let measurement = |contender: &str, step| Measurement {
            subject: Subject {
                contender: contender.into(),
                transport: "unix".into(),
                series: series.into(),
                step,
            },
            figures: figures.iter().map(|name| (name.to_string(), figure.clone())).collect(),
            distribution: Vec::new(),
            timeline: Vec::new(),
        };
        let of_step = |step: &u64| contenders.iter().map(|name| measurement(name, *step)).collect::<Vec<_>>();
        Report {
            pgwake_bench: VERSION,
            scenario: scenario.into(),
            complete: true,
            measurements: steps.iter().flat_map(of_step).collect(),
            ..Report::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(contender: &str, round: usize, p50_us: f64) -> Run {
        Run {
            subject: Subject {
                contender: contender.into(),
                transport: "unix".into(),
                series: String::new(),
                step: 0,
            },
            round,
            figures: BTreeMap::from([("p50_us", p50_us)]),
            latencies: None,
        }
    }

    #[test]
    fn a_ratio_is_one_of_the_same_round() {
        // The machine got ten times slower; the ratio did not change.
        let name = C_LOOP.name;
        let runs = [run(name, 0, 10.0), run("x", 0, 20.0), run(name, 1, 100.0), run("x", 1, 200.0)];
        let measurements = summarise(&runs, "latency");
        let figure = &measurements[1].figures["p50_us"];
        assert_eq!((figure.median, figure.ratio, &figure.rounds), (110.0, Some(2.0), &vec![20.0, 200.0]));
        assert_eq!(measurements[0].figures["p50_us"].ratio, None);
    }

    #[test]
    fn latencies_are_from_when_it_was_due() {
        let times: Vec<[i64; 2]> = (0..1000).map(|i| [i * 1_000_000, i * 1_000_000 + 1_000 * i]).collect();
        let latencies = Latencies::of(&times, 0).unwrap();
        let [p50, _, p99, _, max] = latencies.figures.map(|(_, value)| value);
        assert!((p50 - 499.0).abs() < 1.0 && (p99 - 989.0).abs() < 1.0 && (max - 999.0).abs() < 1.0);
        assert_eq!(latencies.timeline.len(), SLICES);
        assert!(Latencies::of(&[], 0).is_none());
    }
}
