//! Log lines about one address, seldom enough that a backend that is down does not fill the log. Knows no fault.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The least time between two lines.
const INTERVAL: Duration = Duration::from_secs(10);

#[derive(Default)]
pub(super) struct Complaints(Mutex<State>);

#[derive(Default)]
struct State {
    last: Option<Instant>,
    held_back: u64,
}

impl Complaints {
    /// Whether a line may be written now: how many were held back since the last one.
    pub(super) fn next(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock();
        if state.last.is_some_and(|last| now.saturating_duration_since(last) < INTERVAL) {
            state.held_back += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_in_ten_seconds_says_how_many_were_held_back() {
        let (complaints, start) = (Complaints::default(), Instant::now());
        let next = |seconds| complaints.next(start + Duration::from_secs(seconds));
        assert_eq!(
            [next(0), next(1), next(9), next(10), next(19), next(30), next(40)],
            [Some(0), None, None, Some(2), None, Some(1), Some(0)]
        );
    }
}
