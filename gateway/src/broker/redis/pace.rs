//! When the next batch is written: a moment after the last one where calls come on and on, so that each write, answer and
//! wake-up serves several of them, and at once everywhere else. Knows no queue and no connection.

use std::time::{Duration, Instant};

/// What a pause in vain adds to the measure at whose end there are none for a while.
const VAIN: u32 = 1;

/// What a pause that gathered something takes off it: pauses go on where one of three gathers something.
const GATHERED: u32 = 2;

/// Calls that end a pause at the least. The runtime's clock, which ends it otherwise, may be a millisecond late.
const FEWEST: usize = 2;

/// The same at most.
const MOST: usize = 32;

/// Batches that lie further apart than so many pauses say nothing of how calls come that come on and on.
const APART: u32 = 8;

/// The end of the measure.
const ENOUGH_OF_IT: u32 = 8;

/// How long there are no pauses where they were in vain, and in pauses, where that is longer. A pause in vain costs its own
/// time, so that those who wait for each answer before their next call lose a twentieth of their pace, and not most of it.
const REST: (Duration, u32) = (Duration::from_millis(250), 20 * ENOUGH_OF_IT);

/// Decides on pauses.
///
/// A pause is over when as many calls wait as come in its time, or when the time is over. It gathers something if a call comes in
/// its later half, or if it gathers the most. Callers that call again as soon as they are answered come early or not at all:
/// they would only wait for themselves.
pub(super) struct Pace {
    /// Time from one batch to the next.
    pause: Duration,
    /// When the last batch was taken.
    taken: Option<Instant>,
    /// When the pause began that is on, and when it should end.
    on: Option<(Instant, Instant)>,
    /// Time from one call to the next, of which the last batch tells half, the one before a quarter, and so on.
    gap: Duration,
    /// How much of the pauses was in vain lately.
    vain: u32,
    /// There is no pause before then.
    rests_until: Option<Instant>,
}

impl Pace {
    /// With so much time from one batch to the next; zero for none.
    pub(super) fn new(pause: Duration) -> Self {
        // As many as ever are enough, until more is known: where those do not come, time ends a pause.
        let gap = pause / count(MOST);
        Self { pause, taken: None, on: None, gap, vain: 0, rests_until: None }
    }

    /// So many calls are taken at once: as many as come in the time of a pause.
    pub(super) fn enough(&self) -> usize {
        let come = self.pause.as_nanos() / self.gap.as_nanos().max(1);
        usize::try_from(come).unwrap_or(MOST).clamp(FEWEST, MOST)
    }

    /// When calls that wait now should be taken, if they do not become enough before; none for at once. A pause begins with this.
    pub(super) fn pause(&mut self, now: Instant) -> Option<Instant> {
        if self.rests_until.is_some_and(|until| now < until) {
            return None;
        }
        let until = self.taken.map(|taken| taken + self.pause).filter(|until| now < *until);
        self.on = until.map(|until| (now, until));
        until
    }

    /// Nothing could be taken.
    pub(super) fn give_up(&mut self) {
        self.on = None;
    }

    /// A batch of so many calls is taken, the last of which was made then.
    pub(super) fn taken(&mut self, now: Instant, calls: usize, last: Instant) {
        let before = self.taken.replace(now);
        if let Some(time) = before.map(|before| now - before).filter(|time| *time <= APART * self.pause) {
            self.gap = (self.gap + time / count(calls)) / 2;
        }
        let Some((begun, until)) = self.on.take() else { return };
        let half = begun + (until.max(now) - begun) / 2;
        let gathered = half <= last || calls >= MOST;
        self.vain = if gathered { self.vain.saturating_sub(GATHERED) } else { self.vain + VAIN };
        if self.vain >= ENOUGH_OF_IT {
            self.vain = 0;
            self.rests_until = Some(now + REST.0.max(self.pause * REST.1));
        }
    }
}

/// So many, and one at the least.
fn count(calls: usize) -> u32 {
    u32::try_from(calls).unwrap_or(u32::MAX).max(1)
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
        pace.taken(*now, 1, made);
        until.is_some()
    }

    #[test]
    fn a_call_after_a_while_is_taken_at_once_and_the_next_one_waits() {
        let (mut pace, now) = (Pace::new(PAUSE), Instant::now());
        assert_eq!(pace.pause(now), None, "the first one");
        pace.taken(now, 1, now);
        assert_eq!(pace.pause(now + ms(1)), Some(now + PAUSE));
        assert_eq!(pace.pause(now + PAUSE), None, "as long after the last one as a pause takes");
    }

    #[test]
    fn no_pause_is_made_where_none_is_wanted() {
        let (mut pace, now) = (Pace::new(Duration::ZERO), Instant::now());
        pace.taken(now, 1, now);
        assert_eq!(pace.pause(now), None);
    }

    #[test]
    fn those_who_call_when_they_are_answered_do_not_wait_for_themselves() {
        for pause in [PAUSE, ms(100)] {
            let (mut pace, begin) = (Pace::new(pause), Instant::now());
            pace.taken(begin, 1, begin);
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

    /// Calls come one after the other, each so long after the one before, and answers take their time.
    #[test]
    fn as_many_are_enough_as_come_in_a_pause() {
        const ANSWER: Duration = Duration::from_micros(250);
        for (gap, expected) in [(5000, 2), (900, 2), (500, 4), (400, 5), (200, 10), (70, 28), (10, 32)] {
            let gap = Duration::from_micros(gap);
            let (mut pace, begin) = (Pace::new(PAUSE), Instant::now());
            let (mut now, mut taken) = (begin, 0);
            for _ in 0..200 {
                let enough = u32::try_from(pace.enough()).unwrap();
                let (ready, filled) = (now.max(begin + gap * (taken + 1)), begin + gap * (taken + enough));
                let until = if ready < filled { pace.pause(ready) } else { None };
                let at = until.map_or(ready, |until| until.min(filled));
                let came = u32::try_from((at - begin).as_nanos() / gap.as_nanos()).unwrap() - taken;
                taken += came;
                pace.taken(at, came as usize, begin + gap * taken);
                now = at + ANSWER;
            }
            assert!(pace.enough().abs_diff(expected) <= 1, "{gap:?}: {}", pace.enough());
            assert_eq!(pace.rests_until, None, "{gap:?}: no pause is in vain");
        }
    }

    /// They come back together, soon after they were answered, and all that come are as many as were enough.
    #[test]
    fn few_who_wait_for_their_answers_do_not_wait_for_each_other_for_long() {
        let (mut pace, begin) = (Pace::new(PAUSE), Instant::now());
        let (mut now, mut rested) = (begin, Duration::ZERO);
        while now < begin + ms(60_000) {
            let before = now;
            now += Duration::from_micros(10);
            if let Some(until) = pace.pause(now) {
                let together = now + Duration::from_micros(20);
                now = if pace.enough() <= 2 { together } else { until };
                pace.taken(now, 2, together);
                now += Duration::from_micros(200);
            } else {
                pace.taken(now, 2, now);
                now += Duration::from_micros(200);
                rested += now - before;
            }
        }
        assert!(rested * 20 > (now - begin) * 18, "{rested:?}");
    }

    #[test]
    fn pauses_go_on_where_one_of_three_gathers_something() {
        let (mut pace, mut now) = (Pace::new(PAUSE), Instant::now());
        pace.taken(now, 1, now);
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
