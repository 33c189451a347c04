//! When to do something, as a value: an open loop that never waits for the server. The ramp of connections and each
//! publisher follow one; further patterns are further values of this type. Knows no sockets and does not read the clock.

use serde::{Deserialize, Serialize};

use crate::clock::SECOND;

/// How long after the end of a schedule its last messages may still be sent: a machine that is busy with something else
/// for a moment must not make a run look as if the server had held it up.
pub const GRACE: u64 = SECOND;

/// How often something happens, in thousandths per second, so that slow rates are exact too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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

    /// Nanoseconds from the start to the one at `place`, counted from 0; none at a rate of 0.
    fn time_of(self, place: u64) -> u64 {
        let since = (u128::from(place) * 1000 * u128::from(SECOND)).checked_div(u128::from(self.0));
        since.map_or(0, |since| u64::try_from(since).unwrap_or(u64::MAX))
    }

    /// Number per second.
    #[expect(clippy::cast_precision_loss, reason = "shown to people; rates stay far below 2^53")]
    pub fn as_f64(self) -> f64 {
        self.0 as f64 / 1000.0
    }
}

/// A stretch at another rate in the midst of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spike {
    /// When it begins, nanoseconds after the start of the schedule.
    pub from: u64,
    /// How long it lasts, nanoseconds.
    pub length: u64,
    /// The rate meanwhile.
    pub rate: Rate,
}

/// A run of evenly spaced moments, perhaps with a spike in it, or one worker's share of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    start: u64,
    rate: Rate,
    total: u64,
    spike: Option<Spike>,
    offset: u64,
    step: u64,
}

impl Spike {
    fn time_of(self, place: u64, calm: Rate) -> u64 {
        let (before, within) = (calm.count_in(self.from), self.rate.count_in(self.length));
        match place {
            place if place < before => calm.time_of(place),
            place if place < before + within => self.from + self.rate.time_of(place - before),
            place => self.from + self.length + calm.time_of(place - before - within),
        }
    }
}

impl Schedule {
    /// `total` moments at `rate` from `start` (nanoseconds, [`crate::clock::now`]). A rate of 0 puts all at the start.
    pub fn new(start: u64, rate: Rate, total: u64) -> Self {
        Self { start, rate, total, spike: None, offset: 0, step: 1 }
    }

    /// The moments at `rate` that fall into `length` nanoseconds from `start`, with a spike in their midst.
    pub fn over(start: u64, rate: Rate, length: u64, spike: Option<Spike>) -> Self {
        let calm = Self::new(start, rate, rate.count_in(length));
        let Some(spike) = spike else { return calm };
        let after = length.saturating_sub(spike.from + spike.length);
        let total = rate.count_in(spike.from) + spike.rate.count_in(spike.length) + rate.count_in(after);
        Self { spike: Some(spike), total, ..calm }
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
        let since = self.spike.map_or_else(|| self.rate.time_of(place), |spike| spike.time_of(place, self.rate));
        Some(self.start.saturating_add(since))
    }

    /// How many moments of this share are before `moment`.
    pub fn count_before(&self, moment: u64) -> u64 {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.intended(middle).is_some_and(|at| at < moment) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
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
    fn a_spike_lies_in_the_midst() {
        let spike = Spike { from: 2 * SECOND, length: SECOND, rate: Rate::per_second(10) };
        let schedule = Schedule::over(0, Rate::per_second(1), 5 * SECOND, Some(spike));
        assert_eq!(schedule.len(), 2 + 10 + 2);
        let tenths: Vec<_> = (0..14).filter_map(|nth| schedule.intended(nth)).map(|at| at / (SECOND / 10)).collect();
        assert_eq!(tenths, [0, 10, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 40]);
    }

    #[test]
    fn what_was_due_before_a_moment_is_counted() {
        let share = Schedule::new(1000, Rate::per_second(4), 11).share(1, 3);
        for moment in (0..4 * SECOND).step_by(100_000_000) {
            let counted = (0..share.len()).filter(|nth| share.intended(*nth).is_some_and(|at| at < moment)).count();
            assert_eq!(share.count_before(moment), counted as u64);
        }
    }

    #[test]
    fn a_rate_counts_what_falls_into_a_time() {
        assert_eq!(Rate::per_second(50).count_in(2 * SECOND), 100);
        assert_eq!(Rate(500).count_in(3 * SECOND), 2);
        assert_eq!(Rate::per_second(0).count_in(SECOND), 0);
    }
}
