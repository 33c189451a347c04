//! When to do something, as a value: an open loop that never waits for the server. The ramp of connections and each
//! publisher follow one; further patterns are further values of this type. Knows no sockets and does not read the clock.

use serde::{Deserialize, Serialize};

use crate::clock::SECOND;

/// How often something happens, in thousandths per second, so that slow rates are exact too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rate(pub u64);

impl Rate {
    /// A whole number per second.
    pub fn per_second(count: u64) -> Self {
        Self(count.saturating_mul(1000))
    }

    /// How many fall into `nanos` nanoseconds, the one at the very start included.
    pub fn count_in(self, nanos: u64) -> u64 {
        let count = (u128::from(nanos) * u128::from(self.0)).div_ceil(1000 * u128::from(SECOND));
        u64::try_from(count).unwrap_or(u64::MAX)
    }

    /// Number per second.
    #[expect(clippy::cast_precision_loss, reason = "shown to people; rates stay far below 2^53")]
    pub fn as_f64(self) -> f64 {
        self.0 as f64 / 1000.0
    }
}

/// A run of evenly spaced moments, or one worker's share of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    start: u64,
    rate: Rate,
    total: u64,
    offset: u64,
    step: u64,
}

impl Schedule {
    /// `total` moments at `rate` from `start` (nanoseconds, [`crate::clock::now`]). A rate of 0 puts all at the start.
    pub fn new(start: u64, rate: Rate, total: u64) -> Self {
        Self { start, rate, total, offset: 0, step: 1 }
    }

    /// The share of participant `index` among `of`: every `of`-th moment, so that all shares together are the whole.
    #[must_use]
    pub fn share(self, index: u64, of: u64) -> Self {
        Self { offset: self.offset + index * self.step, step: self.step * of, ..self }
    }

    /// When the `nth` moment of this share is, counted from 0; `None` past the end.
    pub fn intended(&self, nth: u64) -> Option<u64> {
        let place = self.offset.checked_add(nth.checked_mul(self.step)?)?;
        if place >= self.total {
            return None;
        }
        if self.rate.0 == 0 {
            return Some(self.start);
        }
        let since = u128::from(place) * 1000 * u128::from(SECOND) / u128::from(self.rate.0);
        Some(self.start + u64::try_from(since).unwrap_or(u64::MAX))
    }

    /// How many moments this share has.
    pub fn len(&self) -> u64 {
        self.total.saturating_sub(self.offset).div_ceil(self.step)
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_evenly_spaced_and_end() {
        let schedule = Schedule::new(500, Rate::per_second(4), 3);
        let moments: Vec<_> = (0..5).map(|nth| schedule.intended(nth)).collect();
        assert_eq!(moments, [Some(500), Some(250_000_500), Some(500_000_500), None, None]);
    }

    #[test]
    fn shares_together_are_the_whole() {
        let whole = Schedule::new(0, Rate(2_500), 11);
        let mut all: Vec<u64> = (0..3)
            .map(|index| whole.share(index, 3))
            .flat_map(|share| (0..share.len()).filter_map(move |nth| share.intended(nth)).collect::<Vec<_>>())
            .collect();
        all.sort_unstable();
        assert_eq!(all, (0..11).filter_map(|nth| whole.intended(nth)).collect::<Vec<_>>());
        assert_eq!((0..3).map(|index| whole.share(index, 3).len()).sum::<u64>(), whole.len());
    }

    #[test]
    fn a_rate_counts_what_falls_into_a_time() {
        assert_eq!(Rate::per_second(50).count_in(2 * SECOND), 100);
        assert_eq!(Rate(500).count_in(3 * SECOND), 2);
        assert_eq!(Rate::per_second(0).count_in(SECOND), 0);
    }
}
