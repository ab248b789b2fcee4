//! Whether two rows of rounds differ by more than chance explains: the two-sided test of Mann and Whitney,
//! which asks for no distribution. Rounds go in, a verdict comes out.

use super::arguments::ROUNDS_MAX;
use serde::Serialize;

/// Beyond so many standard deviations rounds of one and the same thing fall apart once in a hundred times.
const DEVIATIONS_MIN: f64 = 2.576;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    Better,
    Worse,
    WithinNoise,
    /// So few that chance could always explain them.
    TooFewRounds,
}

impl Verdict {
    pub(super) fn words(self) -> &'static str {
        match self {
            Verdict::Better => "better",
            Verdict::Worse => "worse",
            Verdict::WithinNoise => "within the noise",
            Verdict::TooFewRounds => "too few rounds to tell",
        }
    }
}

pub(super) fn verdict(before: &[f64], after: &[f64], more_is_better: bool) -> Verdict {
    // What is no number is neither the greater nor the lesser.
    let known = |rounds: &[f64]| -> Vec<f64> {
        rounds.iter().copied().filter(|round| !round.is_nan()).take(ROUNDS_MAX.into()).collect()
    };
    let (before, after) = (known(before), known(after));
    let pairs = (before.len() * after.len()) as f64;
    let pairs_max = pairs_max(before.len() as f64, after.len() as f64);
    let greater = pairs_greater(&before, &after);
    match () {
        _ if pairs == 0.0 || pairs_max < 0.0 => Verdict::TooFewRounds,
        _ if greater.min(pairs - greater) > pairs_max => Verdict::WithinNoise,
        _ if (greater > pairs / 2.0) == more_is_better => Verdict::Better,
        _ => Verdict::Worse,
    }
}

/// In how many pairs of a round before and one after the later is the greater; half of a tie counts.
fn pairs_greater(before: &[f64], after: &[f64]) -> f64 {
    let pairs = after.iter().flat_map(|after| before.iter().map(move |before| (before, after)));
    pairs.map(|(before, after)| f64::from(i8::from(after > before) + i8::from(after >= before)) / 2.0).sum()
}

/// How many pairs may be the other way round when chance does not explain that so few are; less than none
/// when it always does. By the normal distribution: its limits are those of the tables, or up to two less.
fn pairs_max(before: f64, after: f64) -> f64 {
    let deviation = (before * after * (before + after + 1.0) / 12.0).sqrt();
    before * after / 2.0 - DEVIATIONS_MIN * deviation
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_counts_when_the_rounds_fall_apart() {
        let (low, high) = ([1.0, 1.1, 1.2, 1.3, 1.4], [2.0, 2.1, 2.2, 2.3, 2.4]);
        assert_eq!(verdict(&low, &high, false), Verdict::Worse);
        assert_eq!(verdict(&low, &high, true), Verdict::Better);
        assert_eq!(verdict(&high, &low, true), Verdict::Worse);
        assert_eq!(verdict(&low, &[0.5, 1.15, 1.25, 1.35, 3.0], false), Verdict::WithinNoise);
        assert_eq!(verdict(&low, &low, false), Verdict::WithinNoise);
        assert_eq!(verdict(&low[..3], &high, false), Verdict::TooFewRounds);
        assert_eq!(verdict(&[], &high, false), Verdict::TooFewRounds);
    }

    #[test]
    fn the_limits_are_as_the_tables_of_the_test_have_them() {
        // Two-sided, at 0.01; for 20 and 20 they have 105.
        for (rounds, limit) in [(3.0, -2.0), (4.0, -1.0), (5.0, 0.0), (8.0, 7.0), (20.0, 104.0)] {
            assert_eq!(pairs_max(rounds, rounds).floor(), limit, "{rounds}");
        }
    }

    #[test]
    fn what_is_no_number_is_neither_better_nor_worse() {
        let numbers = [1.0, 1.1, 1.2, 1.3, 1.4];
        for (before, after) in [([f64::NAN; 5], numbers), (numbers, [f64::NAN; 5])] {
            assert_eq!(verdict(&before, &after, true), Verdict::TooFewRounds);
        }
    }
}
