//! What must arrive and what did: the sequence of each publisher in each room, watched at each subscriber. Sees messages
//! lost, doubled and out of order. Knows numbers only: no sockets, no bytes.

use serde::{Deserialize, Serialize};

/// Gaps remembered per subscriber and publisher. Beyond it the oldest is given up as lost, so that memory is bounded.
const GAPS: usize = 4096;

/// What one arrival means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The next one, or one past a gap.
    Fresh,
    /// One that was missing so far: it was overtaken.
    OutOfOrder,
    /// One that was there before.
    Doubled,
}

/// What one subscriber has heard of one publisher in one room.
#[derive(Debug, Default)]
pub struct Track {
    next: u32,
    /// Since the subscriber came back: the first number it has to hear again. Those before it may be missing.
    resume: u32,
    // Boxed because tracks are many and gaps are rare.
    gaps: Option<Box<Gaps>>,
}

#[derive(Debug, Default)]
struct Gaps {
    /// First missing and first present number of each gap, ascending.
    ranges: Vec<(u32, u32)>,
    given_up: u64,
    /// Missing because the subscriber was away.
    away: u64,
}

impl Track {
    /// Takes the arrival of number `sequence`.
    #[inline]
    pub fn record(&mut self, sequence: u32) -> Verdict {
        if sequence == self.next {
            self.next = sequence.wrapping_add(1);
            return Verdict::Fresh;
        }
        self.record_unexpected(sequence)
    }

    #[cold]
    fn record_unexpected(&mut self, sequence: u32) -> Verdict {
        if sequence < self.next {
            let filled = self.gaps.as_mut().is_some_and(|gaps| gaps.fill(sequence));
            return if filled { Verdict::OutOfOrder } else { Verdict::Doubled };
        }
        let back = self.resume.clamp(self.next, sequence);
        let gaps = self.gaps.get_or_insert_default();
        gaps.away += u64::from(back - self.next);
        if back < sequence {
            gaps.open(back, sequence);
        }
        self.next = sequence.saturating_add(1);
        Verdict::Fresh
    }

    /// The subscriber was away and is back: it has to hear everything from number `from` on.
    pub fn rejoin(&mut self, from: u32) {
        self.resume = self.resume.max(from);
    }

    /// How many of the `sent` messages never came because the subscriber was away.
    pub fn away(&self, sent: u32) -> u64 {
        let before = self.gaps.as_deref().map_or(0, |gaps| gaps.away);
        before + u64::from(self.resume.min(sent).saturating_sub(self.next))
    }

    /// How many of the `sent` messages never came, those in `refused` (ascending) not counted: the server had not
    /// taken them.
    pub fn lost(&self, sent: u32, refused: &[u32]) -> u64 {
        let gaps = self.gaps.as_deref();
        let ranges = gaps.map_or(&[][..], |gaps| &gaps.ranges).iter().copied();
        let next = self.next.max(self.resume);
        let missing = ranges.chain((next < sent).then_some((next, sent)));
        let missing = missing.map(|(from, to)| u64::from(to - from) - count_within(refused, from, to)).sum::<u64>();
        missing + gaps.map_or(0, |gaps| gaps.given_up)
    }
}

impl Gaps {
    fn open(&mut self, from: u32, to: u32) {
        if self.ranges.len() == GAPS {
            let (first, end) = self.ranges.remove(0);
            self.given_up += u64::from(end - first);
        }
        self.ranges.push((from, to));
    }

    /// Takes `sequence` out of the gap it lies in, if it does.
    fn fill(&mut self, sequence: u32) -> bool {
        let place = self.ranges.partition_point(|&(_, to)| to <= sequence);
        let Some(&(from, to)) = self.ranges.get(place).filter(|&&(from, _)| from <= sequence) else {
            return false;
        };
        let left = [(from, sequence), (sequence + 1, to)].into_iter().filter(|(from, to)| from < to);
        self.ranges.splice(place..=place, left);
        true
    }
}

fn count_within(sorted: &[u32], from: u32, to: u32) -> u64 {
    let (first, end) = (sorted.partition_point(|&x| x < from), sorted.partition_point(|&x| x < to));
    (end - first) as u64
}

/// Sums over subscribers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tally {
    /// Messages of this run that arrived, all of them.
    pub delivered: u64,
    /// Arrived a second time.
    pub doubled: u64,
    /// Overtaken by a later one of the same publisher.
    pub out_of_order: u64,
    /// Arrived at a client that is not in the room.
    pub misrouted: u64,
    /// Never arrived.
    pub lost: u64,
    /// Not heard, because the subscriber was away and its room does not recover.
    pub away: u64,
    /// Arrived with the reply to a subscribe that recovers; counted among the delivered.
    pub recovered: u64,
    /// Pushes that were not published by this run.
    pub foreign: u64,
}

impl Tally {
    /// Arrivals counted once each, those in the wrong place not at all.
    pub fn distinct(&self) -> u64 {
        self.delivered.saturating_sub(self.doubled + self.misrouted)
    }

    /// Counts what one arrival meant.
    #[inline]
    pub fn count(&mut self, verdict: Verdict) {
        self.delivered += 1;
        match verdict {
            Verdict::Fresh => {}
            Verdict::OutOfOrder => self.out_of_order += 1,
            Verdict::Doubled => self.doubled += 1,
        }
    }

    /// Adds another worker's sums.
    pub fn merge(&mut self, other: &Self) {
        self.delivered += other.delivered;
        self.doubled += other.doubled;
        self.out_of_order += other.out_of_order;
        self.misrouted += other.misrouted;
        self.lost += other.lost;
        self.away += other.away;
        self.recovered += other.recovered;
        self.foreign += other.foreign;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn heard(sequence: &[u32]) -> (Track, Tally) {
        let (mut track, mut tally) = (Track::default(), Tally::default());
        for &number in sequence {
            tally.count(track.record(number));
        }
        (track, tally)
    }

    #[test]
    fn in_order_is_quiet() {
        let (track, tally) = heard(&[0, 1, 2, 3]);
        assert_eq!((tally.delivered, tally.doubled, tally.out_of_order, track.lost(4, &[])), (4, 0, 0, 0));
    }

    #[test]
    fn lost_in_the_middle_and_at_the_end() {
        let (track, _) = heard(&[0, 3, 4]);
        assert_eq!(track.lost(7, &[]), 4);
        assert_eq!(track.lost(7, &[1, 6]), 2, "the server had refused two of them");
    }

    #[test]
    fn overtaken_is_not_lost_and_twice_is_doubled() {
        let (track, tally) = heard(&[0, 2, 3, 1, 1, 3]);
        assert_eq!((tally.out_of_order, tally.doubled, track.lost(4, &[])), (1, 2, 0));
    }

    #[test]
    fn who_was_away_is_asked_only_for_what_came_since() {
        let (mut track, _) = heard(&[0, 1]);
        track.rejoin(5);
        assert_eq!((track.lost(9, &[]), track.away(9)), (4, 3), "nothing came since");
        track.record(7);
        assert_eq!((track.lost(9, &[]), track.away(9)), (3, 3), "two between, one at the end");
        let (mut early, _) = heard(&[0, 1]);
        early.rejoin(5);
        for number in 3..9 {
            assert_eq!(early.record(number), Verdict::Fresh);
        }
        assert_eq!((early.lost(9, &[]), early.away(9)), (0, 1), "it came back a little before it knew");
    }

    #[test]
    fn gaps_are_bounded_and_still_counted() {
        let odd: Vec<u32> = (0..10_000).map(|n| 2 * n + 1).collect();
        let (track, _) = heard(&odd);
        assert_eq!(track.lost(20_000, &[]), 10_000);
        assert_eq!(track.gaps.expect("half is missing").ranges.len(), GAPS);
    }

    proptest! {
        #[test]
        fn agrees_with_a_set(numbers in proptest::collection::vec(0u32..60, 0..120)) {
            let (track, tally) = heard(&numbers);
            let distinct: HashSet<u32> = numbers.iter().copied().collect();
            prop_assert_eq!(tally.distinct(), distinct.len() as u64);
            prop_assert_eq!(track.lost(60, &[]), 60 - distinct.len() as u64);
        }
    }
}
