//! Moments shared by everything that is due now and then and need not be exact: what falls on the same one wakes the process
//! once. Tells when they are; whoever waits for one does that itself.
//!
//! The runtime's timer sorts what lies ahead by steps of 64 ms, waits for the step, and within it for the millisecond. For what
//! is due where a step begins there is no second wait, and every shared moment is there.

use std::{sync::LazyLock, time::Duration};

use tokio::time::Instant;

/// How far they lie apart: a multiple of the timer's steps.
const APART: Duration = Duration::from_millis(256);

/// They lie so much closer together than what is measured by them.
const PART: u32 = 8;

/// What they are counted from.
static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Counts them from now: to be called less than a millisecond before the runtime is made, whose steps begin with it. Where that
/// is left out they are right as well, but waits are not spared.
pub fn begin() {
    LazyLock::force(&ORIGIN);
}

/// What they are counted from. None was before.
pub fn origin() -> Instant {
    *ORIGIN
}

/// How far the moments lie apart by which such a time is measured: 256 ms, or an eighth of it, and a millisecond at least.
pub fn apart(time: Duration) -> Duration {
    APART.min(time / PART).max(Duration::from_millis(1))
}

/// The moment at `at`, or the last one before it, of those so far apart.
pub fn until(at: Instant, apart: Duration) -> Instant {
    let beyond = at.saturating_duration_since(origin()).as_nanos() % apart.as_nanos();
    at - Duration::from_nanos(u64::try_from(beyond).unwrap_or(0))
}

/// The last moment within such a time of `from`; exactly then where it is too short to have any.
pub fn within(from: Instant, time: Duration) -> Instant {
    let apart = apart(time);
    if apart < time { until(from + time, apart) } else { from + time }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_moment_within_a_time_is_less_than_an_eighth_of_it_early() {
        let from = origin() + Duration::from_micros(1_001_300);
        for millis in [8, 100, 2000, 25_000] {
            let time = Duration::from_millis(millis);
            let early = from + time - within(from, time);
            assert!(early < apart(time), "{millis} ms");
            assert!(apart(time) <= time / PART, "{millis} ms");
        }
        for micros in [0, 1, 900] {
            let time = Duration::from_micros(micros);
            let moment = within(from, time);
            assert_eq!(moment, from + time, "{micros} µs");
        }
    }

    #[test]
    fn whoever_waits_from_different_times_is_woken_together() {
        let time = Duration::from_secs(2);
        let moment = within(origin(), time);
        for millis in [10, 60, 150] {
            assert_eq!(within(origin() + Duration::from_millis(millis), time), moment, "{millis} ms later");
        }
        assert!(within(origin() + Duration::from_millis(300), time) > moment);
    }
}
