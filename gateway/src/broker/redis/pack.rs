//! Which publications of one call of the script go together: several of one room that are kept alike make a *pack*, which
//! Redis numbers, keeps and publishes at once. Knows no connection and no script.
//!
//! Within a room the order stays. A publication joins the last pack of its room, wherever in the call that is, and whatever
//! else there is of the room closes the pack; the order of two rooms is promised to nobody.

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use smallvec::{SmallVec, smallvec};

use crate::broker::Keep;

/// Publications in a pack at most: who wants one of them is given all, and how many it has is told in one byte.
const MAX_COUNT: usize = 32;
/// Bytes of a pack at most, unless its only publication has more.
pub(super) const MAX_BYTES: usize = 16 << 10;

/// What is known of a publication where it has to be decided.
pub(super) struct Piece<'a> {
    /// Where it is published, which is known by its room.
    pub(super) channel: &'a [u8],
    /// How it is kept, where it may be in a pack.
    pub(super) keep: Option<Keep>,
    /// What it would take there.
    pub(super) bytes: usize,
}

/// What is done at once: the numbers of its publications.
pub(super) type Step = SmallVec<[usize; 2]>;

/// The steps of a call, and where each publication is among them.
#[derive(Default)]
pub(super) struct Plan {
    steps: Vec<Step>,
    /// Its step, and its number there.
    seats: Vec<(usize, usize)>,
}

/// The last step of a room.
struct Last {
    step: usize,
    keep: Option<Keep>,
    bytes: usize,
}

impl Plan {
    /// Puts them together.
    pub(super) fn of<'a>(pieces: impl ExactSizeIterator<Item = Piece<'a>>) -> Self {
        let mut plan = Self { steps: Vec::with_capacity(pieces.len()), seats: Vec::with_capacity(pieces.len()) };
        let mut rooms: HashMap<&[u8], Last, RandomState> = HashMap::default();
        for (number, Piece { channel, keep, bytes }) in pieces.enumerate() {
            let last = rooms.get_mut(channel).filter(|last| plan.has_room(last, keep, bytes));
            if let Some(last) = last {
                last.bytes += bytes;
                plan.join(last.step, number);
            } else {
                rooms.insert(channel, Last { step: plan.steps.len(), keep, bytes });
                plan.seats.push((plan.steps.len(), 0));
                plan.steps.push(smallvec![number]);
            }
        }
        plan
    }

    fn has_room(&self, last: &Last, keep: Option<Keep>, bytes: usize) -> bool {
        keep.is_some()
            && keep == last.keep
            && last.bytes.saturating_add(bytes) <= MAX_BYTES
            && self.steps[last.step].len() < MAX_COUNT
    }

    fn join(&mut self, step: usize, number: usize) {
        self.seats.push((step, self.steps[step].len()));
        self.steps[step].push(number);
    }

    /// What is done, in its order.
    pub(super) fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// How many publications there are.
    pub(super) fn len(&self) -> usize {
        self.seats.len()
    }

    /// Of each publication, in the order in which they came, its step and how many follow on it there.
    pub(super) fn seats(&self) -> impl Iterator<Item = (usize, usize)> {
        self.seats.iter().map(|(step, number)| (*step, self.steps[*step].len() - 1 - number))
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, time::Duration};

    use proptest::prelude::*;

    use super::{Keep, MAX_BYTES, MAX_COUNT, Piece, Plan};

    fn keep(size: u32) -> Option<Keep> {
        (size > 0).then_some(Keep { size, ttl: Duration::from_secs(1), meta_ttl: Duration::ZERO })
    }

    fn plan(pieces: &[(u8, u32, usize)]) -> Plan {
        let channels: Vec<[u8; 1]> = pieces.iter().map(|(room, ..)| [*room]).collect();
        Plan::of(pieces.iter().zip(&channels).map(|((_, size, bytes), channel)| Piece {
            channel,
            keep: keep(*size),
            bytes: *bytes,
        }))
    }

    fn steps(pieces: &[(u8, u32, usize)]) -> Vec<Vec<usize>> {
        plan(pieces).steps().iter().map(|step| step.to_vec()).collect()
    }

    #[test]
    fn only_what_is_kept_alike_in_one_room_goes_together() {
        assert_eq!(steps(&[(1, 9, 10), (2, 9, 10), (1, 9, 10)]), [vec![0, 2], vec![1]]);
        assert_eq!(steps(&[(1, 9, 10), (1, 8, 10), (1, 9, 10)]), [[0], [1], [2]]);
        assert_eq!(steps(&[(1, 9, 10), (1, 0, 10), (1, 9, 10), (1, 9, 10)]), [vec![0], vec![1], vec![2, 3]]);
        assert_eq!(steps(&[(1, 0, 10), (1, 0, 10)]), [[0], [1]]);
    }

    #[test]
    fn packs_are_bounded() {
        let many = vec![(1, 9, 10); 2 * MAX_COUNT + 1];
        let lengths: Vec<_> = steps(&many).iter().map(Vec::len).collect();
        assert_eq!(lengths, [MAX_COUNT, MAX_COUNT, 1]);
        let large = [(1, 9, MAX_BYTES / 2), (1, 9, MAX_BYTES / 2), (1, 9, 1), (1, 9, 2 * MAX_BYTES), (1, 9, 1)];
        assert_eq!(steps(&large), [vec![0, 1], vec![2], vec![3], vec![4]]);
    }

    proptest! {
        #[test]
        fn everything_is_done_once_and_in_the_order_of_its_room(
            pieces in prop::collection::vec((0..4_u8, 0..3_u32, 1..3000_usize), 0..300),
        ) {
            let plan = plan(&pieces);
            prop_assert_eq!(plan.len(), pieces.len());
            let mut rooms: HashMap<u8, Vec<usize>> = HashMap::new();
            for step in plan.steps() {
                prop_assert!(step.len() <= MAX_COUNT);
                for number in step {
                    prop_assert_eq!(&pieces[*number].1, &pieces[step[0]].1);
                    prop_assert_eq!(&pieces[*number].0, &pieces[step[0]].0);
                    rooms.entry(pieces[*number].0).or_default().push(*number);
                }
                let bytes: usize = step.iter().map(|number| pieces[*number].2).sum();
                prop_assert!(step.len() == 1 || bytes <= MAX_BYTES && pieces[step[0]].1 > 0);
            }
            for (room, done) in &rooms {
                let made: Vec<_> = (0..pieces.len()).filter(|number| pieces[*number].0 == *room).collect();
                prop_assert_eq!(done, &made);
            }
            for (number, (step, behind)) in plan.seats().enumerate() {
                let step = &plan.steps()[step];
                prop_assert_eq!(step[step.len() - 1 - behind], number);
            }
        }
    }
}
