//! Random numbers for tests, from a seed that is printed: with the same seed in `PGWAKE_TEST_SEED` a test
//! makes the same choices again.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Marsaglia's xorshift64*.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn seeded() -> Self {
        let given = std::env::var("PGWAKE_TEST_SEED").ok();
        let seed = given.map_or_else(
            || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64,
            |seed| seed.parse().expect("PGWAKE_TEST_SEED is a whole number"),
        );
        println!("PGWAKE_TEST_SEED={seed}");
        // Zero would stay zero.
        Random(seed.max(1))
    }

    /// Another one, for a thread of its own: what it gives follows from the same seed.
    pub(crate) fn branch(&mut self) -> Self {
        Random(self.below(1 << 31) << 31 | self.below(1 << 31) | 1)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
    }

    pub(crate) fn duration_below(&mut self, limit: Duration) -> Duration {
        Duration::from_micros(self.below(limit.as_micros() as u64))
    }
}
