//! Times in an HDR histogram: one per worker process, filled without allocation, sent sparse, merged at the end. Knows
//! nothing of what is timed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::clock::SECOND;

/// Longest time told apart: one hour.
const LONGEST: u64 = 3600 * SECOND;
/// Shortest time told apart, in nanoseconds.
const SHORTEST: u64 = 1000;
/// Decimal digits kept.
const DIGITS: u8 = 3;

/// Counts of times, in nanoseconds, exact to three digits.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: hdrhistogram::Histogram<u64>,
}

impl Default for Histogram {
    fn default() -> Self {
        let counts = hdrhistogram::Histogram::new_with_bounds(SHORTEST, LONGEST, DIGITS);
        Self { counts: counts.expect("the bounds are constants that the histogram accepts") }
    }
}

/// A histogram on its way between processes: how often each time was seen.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Sparse(BTreeMap<u64, u64>);

/// The points of a histogram that a report shows, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Summary {
    /// How many times were recorded.
    pub count: u64,
    /// Shortest.
    pub min: u64,
    /// Mean.
    pub mean: f64,
    /// Median.
    pub p50: u64,
    /// 90th percentile.
    pub p90: u64,
    /// 95th percentile.
    pub p95: u64,
    /// 99th percentile.
    pub p99: u64,
    /// 99.9th percentile.
    pub p999: u64,
    /// 99.99th percentile.
    pub p9999: u64,
    /// Longest.
    pub max: u64,
}

/// Percentiles at which a curve has its points.
const CURVE: [f64; 22] = [
    0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 75.0, 80.0, 85.0, 90.0, 92.5, 95.0, 97.5, 99.0, 99.5, 99.9, 99.95,
    99.99, 99.999, 100.0,
];

/// Points of a distribution: percentile and time in nanoseconds.
pub type Curve = Vec<(f64, u64)>;

impl Histogram {
    /// Adds a time; those over an hour count as an hour.
    #[inline]
    pub fn record(&mut self, nanos: u64) {
        self.counts.saturating_record(nanos);
    }

    /// Adds all times of another.
    pub fn merge(&mut self, other: &Sparse) {
        for (&nanos, &count) in &other.0 {
            self.counts.saturating_record_n(nanos, count);
        }
    }

    /// The form in which it travels.
    pub fn sparse(&self) -> Sparse {
        Sparse(self.counts.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value())).collect())
    }

    /// How often each time was seen since `before`, which becomes what it is now. Times are told to two digits, because
    /// they are sent many times during a run.
    pub fn since(&self, before: &mut Self) -> Sparse {
        let mut coarse = hdrhistogram::Histogram::<u64>::new_with_bounds(SHORTEST, LONGEST, 2)
            .expect("the bounds are constants that the histogram accepts");
        for step in self.counts.iter_recorded() {
            let count = step.count_at_value() - before.counts.count_at(step.value_iterated_to());
            if count > 0 {
                coarse.saturating_record_n(step.value_iterated_to(), count);
            }
        }
        before.counts = self.counts.clone();
        Sparse(coarse.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value())).collect())
    }

    /// The shape of the distribution; empty when nothing was recorded.
    pub fn curve(&self) -> Curve {
        let shown = if self.counts.is_empty() { &[][..] } else { &CURVE };
        shown.iter().map(|&percentile| (percentile, self.counts.value_at_percentile(percentile))).collect()
    }

    /// The points a report shows; all 0 when nothing was recorded.
    pub fn summary(&self) -> Summary {
        let at = |percentile| self.counts.value_at_percentile(percentile);
        if self.counts.is_empty() {
            return Summary::default();
        }
        Summary {
            count: self.counts.len(),
            min: self.counts.min(),
            mean: self.counts.mean(),
            p50: at(50.0),
            p90: at(90.0),
            p95: at(95.0),
            p99: at(99.0),
            p999: at(99.9),
            p9999: at(99.99),
            max: self.counts.max(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_workers_is_recording_in_one() {
        let (mut one, mut all) = (Histogram::default(), Histogram::default());
        for worker in 0..3u64 {
            let mut part = Histogram::default();
            for n in 0..1000 {
                let nanos = 10_000 + (n * 7919 + worker * 104_729) % 50_000_000;
                part.record(nanos);
                one.record(nanos);
            }
            let text = serde_json::to_string(&part.sparse()).expect("numbers are JSON");
            all.merge(&serde_json::from_str(&text).expect("it was just written"));
        }
        let (one, all) = (one.summary(), all.summary());
        assert_eq!((all.count, all.p50, all.p99, all.max), (one.count, one.p50, one.p99, one.max));
    }

    #[test]
    fn intervals_together_are_the_whole() {
        let (mut times, mut before, mut whole) = (Histogram::default(), Histogram::default(), Histogram::default());
        for nanos in [5_000, 70_000, 5_000, 900_000] {
            times.record(nanos);
            whole.merge(&times.since(&mut before));
        }
        assert_eq!(times.since(&mut before).0.len(), 0, "nothing is new");
        let (times, whole) = (times.summary(), whole.summary());
        assert_eq!(whole.count, 4);
        assert!(whole.max.abs_diff(times.max) <= times.max / 64, "{whole:?}");
    }

    #[test]
    fn three_digits_hold_up_to_an_hour() {
        let mut times = Histogram::default();
        times.record(2 * LONGEST);
        let max = times.summary().max;
        assert!(max.abs_diff(LONGEST) < LONGEST / 500, "{max}");
        assert_eq!(Histogram::default().summary(), Summary::default());
    }
}
