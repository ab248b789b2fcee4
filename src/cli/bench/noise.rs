//! Whether two rows of rounds differ by more than chance explains: the two-sided test of Mann and Whitney,
//! which asks for no distribution. Rounds go in, a verdict comes out.

use super::arguments::ROUNDS_MAX;
use serde::Serialize;

/// With this probability and less, rounds of one and the same thing fall apart so clearly.
const CHANCE_MAX: f64 = 0.01;

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
    let Some(pairs_max) = pairs_max(before.len(), after.len()) else { return Verdict::TooFewRounds };
    let pairs = before.len() as f64 * after.len() as f64;
    let greater = pairs_greater(&before, &after);
    match () {
        _ if greater.min(pairs - greater).floor() > pairs_max => Verdict::WithinNoise,
        _ if (greater > pairs / 2.0) == more_is_better => Verdict::Better,
        _ => Verdict::Worse,
    }
}

/// In how many pairs of a round before and one after the later is the greater; half of a tie counts.
fn pairs_greater(before: &[f64], after: &[f64]) -> f64 {
    let pairs = after.iter().flat_map(|after| before.iter().map(move |before| (before, after)));
    pairs.map(|(before, after)| f64::from(i8::from(after > before) + i8::from(after >= before)) / 2.0).sum()
}

/// How many pairs may be the other way round when chance does not explain that so few are; `None` when it
/// always does. Counted from all orders that there are.
fn pairs_max(before: usize, after: usize) -> Option<f64> {
    // ways[i][u]: orders of i rounds before among those after so far in which u pairs are the other way
    // round.
    let most = before * after;
    let mut ways = vec![vec![0.0f64; most + 1]; before + 1];
    ways.iter_mut().for_each(|ways| ways[0] = 1.0);
    for _ in 0..after {
        for i in 1..=before {
            for u in (0..=most).rev() {
                let from_fewer = ways[i - 1][u];
                let shifted = if u >= i { ways[i][u - i] } else { 0.0 };
                ways[i][u] = from_fewer + shifted;
            }
        }
    }
    let all: f64 = ways[before].iter().sum();
    let mut extreme = 0.0;
    let seldom = ways[before].iter().take_while(|ways| {
        extreme += **ways;
        2.0 * extreme / all <= CHANCE_MAX
    });
    seldom.count().checked_sub(1).map(|most| most as f64)
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
        // Two-sided, at 0.01.
        for (rounds, limit) in
            [((3, 5), None), ((5, 5), Some(0.0)), ((8, 8), Some(7.0)), ((20, 20), Some(105.0))]
        {
            assert_eq!(pairs_max(rounds.0, rounds.1), limit, "{rounds:?}");
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
