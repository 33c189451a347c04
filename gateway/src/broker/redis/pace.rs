//! When the next batch is written: a moment after the last one where calls come on and on, so that each write, answer and
//! wake-up serves several of them, and at once everywhere else. Knows no queue and no connection.

use std::time::{Duration, Instant};

/// What a pause in vain adds to the measure at whose end there are none for a while.
const VAIN: u32 = 1;

/// What a pause that gathered something takes off it: pauses go on where one of three gathers something.
const GATHERED: u32 = 2;

/// The end of the measure.
const ENOUGH_OF_IT: u32 = 8;

/// How long there are no pauses where they were in vain, and in pauses, where that is longer. A pause in vain costs its own
/// time, so that those who wait for each answer before their next call lose a twentieth of their pace, and not most of it.
const REST: (Duration, u32) = (Duration::from_millis(250), 20 * ENOUGH_OF_IT);

/// Decides on pauses.
///
/// A pause gathers something if a call comes in its later half. Callers that call again as soon as they are answered come
/// early or not at all: they would only wait for themselves.
pub(super) struct Pace {
    /// Time from one batch to the next.
    pause: Duration,
    /// When the last batch was taken.
    taken: Option<Instant>,
    /// When the pause began that is on.
    begun: Option<Instant>,
    /// How much of the pauses was in vain lately.
    vain: u32,
    /// There is no pause before then.
    rests_until: Option<Instant>,
}

impl Pace {
    /// With so much time from one batch to the next; zero for none.
    pub(super) fn new(pause: Duration) -> Self {
        Self { pause, taken: None, begun: None, vain: 0, rests_until: None }
    }

    /// When calls that wait now should be taken; none for at once. A pause begins with this.
    pub(super) fn pause(&mut self, now: Instant) -> Option<Instant> {
        if self.rests_until.is_some_and(|until| now < until) {
            return None;
        }
        let until = self.taken.map(|taken| taken + self.pause).filter(|until| now < *until);
        self.begun = until.map(|_| now);
        until
    }

    /// A batch is taken whose last call was made then.
    pub(super) fn taken(&mut self, now: Instant, last: Option<Instant>) {
        self.taken = Some(now);
        let Some(begun) = self.begun.take() else { return };
        let half = begun + (now - begun) / 2;
        let gathered = last.is_some_and(|last| half <= last);
        self.vain = if gathered { self.vain.saturating_sub(GATHERED) } else { self.vain + VAIN };
        if self.vain >= ENOUGH_OF_IT {
            self.vain = 0;
            self.rests_until = Some(now + REST.0.max(self.pause * REST.1));
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

    /// Takes a batch after a pause, whose last call was made so long after the pause began. Whether there was a pause.
    fn pause_with_a_call(pace: &mut Pace, now: &mut Instant, after: Duration) -> bool {
        let made = *now + after;
        let until = pace.pause(*now);
        *now = until.unwrap_or(*now);
        pace.taken(*now, Some(made));
        until.is_some()
    }

    #[test]
    fn a_call_after_a_while_is_taken_at_once_and_the_next_one_waits() {
        let (mut pace, now) = (Pace::new(PAUSE), Instant::now());
        assert_eq!(pace.pause(now), None, "the first one");
        pace.taken(now, Some(now));
        assert_eq!(pace.pause(now + ms(1)), Some(now + PAUSE));
        assert_eq!(pace.pause(now + PAUSE), None, "as long after the last one as a pause takes");
    }

    #[test]
    fn no_pause_is_made_where_none_is_wanted() {
        let (mut pace, now) = (Pace::new(Duration::ZERO), Instant::now());
        pace.taken(now, Some(now));
        assert_eq!(pace.pause(now), None);
    }

    #[test]
    fn those_who_call_when_they_are_answered_do_not_wait_for_themselves() {
        for pause in [PAUSE, ms(100)] {
            let (mut pace, begin) = (Pace::new(pause), Instant::now());
            pace.taken(begin, Some(begin));
            let (mut now, mut waited) = (begin, Duration::ZERO);
            while now < begin + ms(60_000) {
                let before = now;
                if pause_with_a_call(&mut pace, &mut now, Duration::ZERO) {
                    waited += now - before;
                } else {
                    // An answer without a pause.
                    now += Duration::from_micros(200);
                }
            }
            let asked = now - begin;
            assert!(waited > Duration::ZERO && waited < asked / 12, "{waited:?} of {asked:?}");
        }
    }

    #[test]
    fn pauses_go_on_where_one_of_three_gathers_something() {
        let (mut pace, mut now) = (Pace::new(PAUSE), Instant::now());
        pace.taken(now, Some(now));
        for round in 0..300 {
            let after = if round % 3 == 0 { PAUSE / 2 } else { Duration::ZERO };
            assert!(pause_with_a_call(&mut pace, &mut now, after), "round {round}");
        }
        let seldom = (0..300).all(|round| {
            let after = if round % 4 == 0 { PAUSE / 2 } else { Duration::ZERO };
            pause_with_a_call(&mut pace, &mut now, after)
        });
        assert!(!seldom, "one of four is not worth it");
    }
}
