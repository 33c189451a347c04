//! When the next batch is written: a moment after the last one where calls come on and on, so that each write, answer and
//! wake-up serves several of them, and at once everywhere else. Knows no queue and no connection.

use std::time::{Duration, Instant};

/// A batch of so many calls gathers by itself while the one before it is answered.
const ENOUGH: usize = 32;

/// After so many pauses in a row that were in vain there are none for [`REST`].
const VAIN: u8 = 8;

/// How long there are no pauses where they were in vain. A pause in vain costs its own time, so that callers who wait for
/// each answer before their next call lose a twentieth of their pace, and not most of it.
const REST: Duration = Duration::from_millis(250);

/// Decides on pauses.
///
/// A pause gathers something if a call comes in its later half. Callers that call again as soon as they are answered come
/// early or not at all: they would only wait for themselves.
pub(super) struct Pace {
    /// Time from one batch to the next.
    pause: Duration,
    /// When the last batch was taken, if it was a small one.
    taken: Option<Instant>,
    /// When the pause began that is on.
    begun: Option<Instant>,
    /// Pauses in a row that gathered nothing.
    vain: u8,
    /// There is no pause before then.
    rests_until: Option<Instant>,
}

impl Pace {
    /// With so much time from one batch to the next; zero for none.
    pub(super) fn new(pause: Duration) -> Self {
        Self { pause, taken: None, begun: None, vain: 0, rests_until: None }
    }

    /// When a call that waits now should be taken; none for at once. A pause begins with this.
    pub(super) fn pause(&mut self, now: Instant) -> Option<Instant> {
        if self.rests_until.is_some_and(|until| now < until) {
            return None;
        }
        let until = self.taken.map(|taken| taken + self.pause).filter(|until| now < *until);
        self.begun = until.map(|_| now);
        until
    }

    /// A batch is taken of calls that were made at these times.
    pub(super) fn taken(&mut self, now: Instant, calls: impl ExactSizeIterator<Item = Instant>) {
        self.taken = (calls.len() < ENOUGH).then_some(now);
        let Some(begun) = self.begun.take() else { return };
        let half = begun + (now - begun) / 2;
        self.vain = if calls.max().is_some_and(|last| half <= last) { 0 } else { self.vain + 1 };
        if self.vain == VAIN {
            self.vain = 0;
            self.rests_until = Some(now + REST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_millis(2);

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// Takes a batch of one call after a pause, which was made so long after the pause began.
    fn pause_with_a_call(pace: &mut Pace, now: &mut Instant, after: Duration) {
        let until = pace.pause(*now).expect("a pause");
        let made = *now + after;
        *now = until;
        pace.taken(*now, [made].into_iter());
    }

    #[test]
    fn a_call_after_a_while_is_taken_at_once_and_the_next_one_waits() {
        let (mut pace, now) = (Pace::new(PAUSE), Instant::now());
        assert_eq!(pace.pause(now), None, "the first one");
        pace.taken(now, [now].into_iter());
        assert_eq!(pace.pause(now + ms(1)), Some(now + PAUSE));
        assert_eq!(pace.pause(now + PAUSE), None, "as long after the last one as a pause takes");
    }

    #[test]
    fn no_pause_is_made_where_none_is_wanted_or_batches_are_large() {
        let now = Instant::now();
        let mut none = Pace::new(Duration::ZERO);
        none.taken(now, [now].into_iter());
        assert_eq!(none.pause(now), None);
        let mut pace = Pace::new(PAUSE);
        pace.taken(now, [now; ENOUGH].into_iter());
        assert_eq!(pace.pause(now), None);
    }

    #[test]
    fn those_who_call_when_they_are_answered_do_not_wait_for_themselves() {
        let (mut pace, mut now) = (Pace::new(PAUSE), Instant::now());
        pace.taken(now, [now].into_iter());
        for _ in 0..VAIN {
            pause_with_a_call(&mut pace, &mut now, Duration::ZERO);
        }
        assert_eq!(pace.pause(now), None);
        pace.taken(now + REST, [now + REST].into_iter());
        assert!(pace.pause(now + REST).is_some(), "it is tried again");
    }

    #[test]
    fn pauses_go_on_while_something_comes_late_in_one_of_them() {
        let (mut pace, mut now) = (Pace::new(PAUSE), Instant::now());
        pace.taken(now, [now].into_iter());
        for round in 1..5 * VAIN {
            let late = round % VAIN == 0;
            pause_with_a_call(&mut pace, &mut now, if late { PAUSE / 2 } else { Duration::ZERO });
        }
    }
}
