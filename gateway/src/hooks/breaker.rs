//! When an address is left alone: after so many failures in a row nothing is asked for a while, then one question tries it
//! again. Knows no question. The breakers there are as crates let every caller through at once when the while is over,
//! which is a storm on a backend that has just come up.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus::IntGauge;

pub(super) struct Breaker {
    /// Failures in a row that open it; 0 for never.
    limit: u32,
    pause: Duration,
    /// How many breakers of this hook are open.
    open: IntGauge,
    state: Mutex<State>,
}

enum State {
    Closed {
        failures: u32,
    },
    Open {
        until: Instant,
    },
    /// One question is out; its answer decides.
    Trying,
}

/// Leave to ask once. If nobody says what became of it, nothing is learnt from it.
pub(super) struct Pass<'a> {
    breaker: &'a Breaker,
    tries: bool,
}

impl Breaker {
    pub(super) fn new(limit: u32, pause: Duration, open: IntGauge) -> Self {
        Self { limit, pause, open, state: Mutex::new(State::Closed { failures: 0 }) }
    }

    /// Whether [`admit`](Self::admit) would refuse.
    pub(super) fn refuses(&self, now: Instant) -> bool {
        match &*self.state.lock() {
            State::Closed { .. } => false,
            State::Open { until } => now < *until,
            State::Trying => true,
        }
    }

    pub(super) fn admit(&self, now: Instant) -> Option<Pass<'_>> {
        let mut state = self.state.lock();
        let tries = match &*state {
            State::Closed { .. } => false,
            State::Open { until } if now >= *until => true,
            State::Open { .. } | State::Trying => return None,
        };
        if tries {
            *state = State::Trying;
        }
        Some(Pass { breaker: self, tries })
    }
}

impl Pass<'_> {
    /// The backend answered. Says whether the breaker closes by it.
    pub(super) fn succeeded(mut self) -> bool {
        let tried = std::mem::take(&mut self.tries);
        let mut state = self.breaker.state.lock();
        if tried {
            self.breaker.open.dec();
        }
        // What was asked before the breaker opened says nothing of now.
        if tried || matches!(*state, State::Closed { .. }) {
            *state = State::Closed { failures: 0 };
        }
        tried
    }

    /// The backend did not answer. Says whether the breaker opens by it.
    pub(super) fn failed(mut self, now: Instant) -> bool {
        let tried = std::mem::take(&mut self.tries);
        let Breaker { limit, pause, open, state } = self.breaker;
        let mut state = state.lock();
        let until = now + *pause;
        match &mut *state {
            State::Trying if tried => *state = State::Open { until },
            State::Closed { failures } => {
                *failures = failures.saturating_add(1);
                if *limit > 0 && *failures >= *limit {
                    open.inc();
                    *state = State::Open { until };
                    return true;
                }
            }
            State::Open { .. } | State::Trying => {}
        }
        false
    }
}

/// An address that is given up is not one that is left alone.
impl Drop for Breaker {
    fn drop(&mut self) {
        if !matches!(self.state.get_mut(), State::Closed { .. }) {
            self.open.dec();
        }
    }
}

/// The client went away while its question tried the address: the next one tries.
impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.tries {
            *self.breaker.state.lock() = State::Open { until: Instant::now() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(5);

    fn breaker(limit: u32) -> (Breaker, IntGauge, Instant) {
        let gauge = IntGauge::new("open", "open").unwrap();
        (Breaker::new(limit, PAUSE, gauge.clone()), gauge, Instant::now())
    }

    #[test]
    fn failures_in_a_row_open_it_and_an_answer_between_them_does_not() {
        let (breaker, gauge, now) = breaker(2);
        assert!(!breaker.admit(now).unwrap().failed(now));
        assert!(!breaker.admit(now).unwrap().succeeded());
        assert!(!breaker.admit(now).unwrap().failed(now));
        assert!(breaker.admit(now).unwrap().failed(now));
        assert!(breaker.refuses(now) && breaker.admit(now).is_none());
        assert_eq!(gauge.get(), 1);
    }

    #[test]
    fn after_the_pause_one_question_tries_it() {
        let (breaker, gauge, now) = breaker(1);
        breaker.admit(now).unwrap().failed(now);
        let later = now + PAUSE;
        let trial = breaker.admit(later).unwrap();
        assert!(breaker.refuses(later) && breaker.admit(later).is_none());
        assert!(!trial.failed(later));
        assert!(breaker.admit(later).is_none());
        assert!(breaker.admit(later + PAUSE).unwrap().succeeded());
        assert!(!breaker.refuses(later + PAUSE));
        assert_eq!(gauge.get(), 0);
    }

    #[test]
    fn what_was_asked_before_it_opened_says_nothing() {
        let (breaker, gauge, now) = breaker(1);
        let (early, late) = (breaker.admit(now).unwrap(), breaker.admit(now).unwrap());
        breaker.admit(now).unwrap().failed(now);
        assert!(!early.succeeded() && !late.failed(now));
        assert!(breaker.refuses(now));
        assert_eq!(gauge.get(), 1);
    }

    #[test]
    fn a_trial_that_nobody_waits_for_makes_way_for_the_next() {
        let (breaker, _, now) = breaker(1);
        breaker.admit(now).unwrap().failed(now);
        drop(breaker.admit(now + PAUSE));
        assert!(breaker.admit(Instant::now()).unwrap().succeeded());
    }

    #[test]
    fn a_breaker_that_goes_is_not_open_any_more() {
        let (breaker, gauge, now) = breaker(1);
        breaker.admit(now).unwrap().failed(now);
        drop(breaker);
        assert_eq!(gauge.get(), 0);
    }

    #[test]
    fn without_a_limit_it_never_opens() {
        let (breaker, _, now) = breaker(0);
        for _ in 0..100 {
            assert!(!breaker.admit(now).unwrap().failed(now));
        }
        assert!(!breaker.refuses(now));
    }
}
