//! What a client that enters a room is told of the room's history: where it stands, and what it missed. Pure: told what the
//! history holds, it says what to answer (docs/PROTOCOL.md, recovery).

use std::time::Duration;

use roomcast_shared::{
    protocol::{code::ErrorCode, command::SubscribeRequest, reply::SubscribeResult},
    publication::Publication,
};

use super::terms::Memory;
use crate::{
    broker::Slice,
    node::{Ask, Part},
};

/// Bit of `flag` in a subscribe request: rather no subscription than one that cannot be recovered.
const REFUSE_UNRECOVERED: i64 = 2;

/// No room has come further than this; who claims to have seen more is not read for.
const FURTHEST: u64 = 1 << 53;

/// The place up to which a client has seen a room, and what it wants from there on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Whether it wants what it missed.
    recover: bool,
    offset: u64,
    /// The history that the offset counts in; empty for whichever there is.
    epoch: String,
    /// Whether it wants no subscription where what it missed is gone.
    or_refuse: bool,
}

impl Seen {
    /// What the answer to such a client has to be made from; nothing where nothing is kept of its place.
    pub(super) fn ask(&self, memory: Memory, limit: u32, meta_ttl: Duration) -> Option<Ask> {
        let part = match memory {
            Memory::None => return None,
            Memory::Cache { always } if self.recover || always => Part::Newest,
            Memory::Recovery if self.recover && self.offset <= FURTHEST => Part::Since(self.offset),
            Memory::Position | Memory::Recovery | Memory::Cache { .. } => Part::Position,
        };
        Some(Ask { part, limit, meta_ttl })
    }

    /// Writes into the answer where the client stands and what it missed.
    ///
    /// # Errors
    /// 112 where that is gone and the client wants no subscription then.
    pub(super) fn answer(&self, memory: Memory, slice: &Slice, result: &mut SubscribeResult) -> Result<(), ErrorCode> {
        result.positioned = memory.is_positioned();
        result.recoverable = memory.is_recoverable();
        result.epoch = slice.top.epoch.to_string();
        result.offset = slice.top.offset;
        let missed = match memory {
            Memory::Recovery if self.recover => {
                let missed = self.missed(slice);
                if missed.is_none() && self.or_refuse {
                    return Err(ErrorCode::UNRECOVERABLE_POSITION);
                }
                missed
            }
            Memory::Cache { always } if self.recover || always => self.newest(slice),
            Memory::None | Memory::Position | Memory::Recovery | Memory::Cache { .. } => {
                result.was_recovering = self.recover;
                return Ok(());
            }
        };
        result.was_recovering = true;
        if let Some(missed) = missed {
            result.recovered = true;
            // The client counts on from its own place, through what it is given; a filter may leave nothing of that.
            if self.is_in(slice) {
                result.offset = self.offset;
            }
            result.publications = missed;
        }
        Ok(())
    }

    /// The same for a room of which nothing is kept.
    pub(super) fn answer_without_past(&self, result: &mut SubscribeResult) {
        result.was_recovering = self.recover;
    }

    /// Whether the client's place is one of this history.
    fn is_in(&self, slice: &Slice) -> bool {
        (self.epoch.is_empty() || self.epoch == slice.top.epoch.as_str()) && self.offset <= slice.top.offset
    }

    /// What came after the client's place, if that is all there.
    fn missed(&self, slice: &Slice) -> Option<Vec<Publication>> {
        if !self.is_in(slice) {
            return None;
        }
        let after: Vec<_> = slice.publications.iter().filter(|one| one.offset > self.offset).cloned().collect();
        let complete = match (after.first(), after.last()) {
            (Some(first), Some(last)) => first.offset == self.offset + 1 && last.offset == slice.top.offset,
            _ => self.offset == slice.top.offset,
        };
        complete.then_some(after)
    }

    /// The newest publication, unless the client has it; `None` where the history no longer holds it.
    fn newest(&self, slice: &Slice) -> Option<Vec<Publication>> {
        let has_it = self.offset > 0 && self.offset == slice.top.offset && self.epoch == slice.top.epoch.as_str();
        match slice.publications.first() {
            _ if has_it => Some(Vec::new()),
            Some(newest) if newest.offset == slice.top.offset => Some(vec![newest.clone()]),
            _ => None,
        }
    }
}

impl From<&SubscribeRequest> for Seen {
    fn from(request: &SubscribeRequest) -> Self {
        Self {
            recover: request.recover,
            offset: request.offset,
            epoch: request.epoch.clone(),
            or_refuse: request.flag & REFUSE_UNRECOVERED != 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use roomcast_shared::position::{Epoch, Position};

    use super::*;

    const CACHE: Memory = Memory::Cache { always: false };

    fn epoch() -> Epoch {
        Epoch::parse(b"abcdefgh").unwrap()
    }

    fn slice(offsets: impl IntoIterator<Item = u64>, top: u64) -> Slice {
        let publications = offsets.into_iter().map(|offset| Publication { offset, ..Publication::default() }).collect();
        Slice { publications, top: Position::new(top, epoch()) }
    }

    fn seen(offset: u64, epoch: &str) -> Seen {
        Seen { recover: true, offset, epoch: epoch.to_owned(), or_refuse: false }
    }

    /// Whether the client recovers, the offset it is told, and what it is given.
    fn told(seen: &Seen, memory: Memory, slice: &Slice) -> (bool, u64, Vec<u64>) {
        let mut result = SubscribeResult::default();
        seen.answer(memory, slice, &mut result).unwrap();
        assert!(result.positioned && result.epoch == "abcdefgh");
        (result.recovered, result.offset, result.publications.iter().map(|one| one.offset).collect())
    }

    #[test]
    fn who_misses_nothing_or_something_that_is_there_recovers() {
        for epoch in ["abcdefgh", ""] {
            assert_eq!(told(&seen(5, epoch), Memory::Recovery, &slice([], 5)), (true, 5, vec![]));
            assert_eq!(told(&seen(3, epoch), Memory::Recovery, &slice([4, 5], 5)), (true, 3, vec![4, 5]));
            assert_eq!(told(&seen(0, epoch), Memory::Recovery, &slice([1], 1)), (true, 0, vec![1]));
            assert_eq!(told(&seen(0, epoch), Memory::Recovery, &slice([], 0)), (true, 0, vec![]));
            let shared = slice([2, 3, 4, 5], 5);
            assert_eq!(told(&seen(4, epoch), Memory::Recovery, &shared), (true, 4, vec![5]), "read for others as well");
            assert_eq!(told(&seen(5, epoch), Memory::Recovery, &shared), (true, 5, vec![]));
        }
    }

    #[test]
    fn who_misses_what_is_gone_is_told_where_the_room_stands() {
        let cases = [
            (seen(1, "abcdefgh"), slice([3, 4], 4)),
            (seen(1, "abcdefgh"), slice([], 4)),
            (seen(1, "abcdefgh"), slice([2, 3], 4)),
            (seen(9, "abcdefgh"), slice([], 4)),
            (seen(u64::MAX, "abcdefgh"), slice([3, 4], 4)),
            (seen(4, "otherone"), slice([], 4)),
            (seen(0, "_"), slice([1, 2, 3, 4], 4)),
        ];
        for (seen, slice) in cases {
            assert_eq!(told(&seen, Memory::Recovery, &slice), (false, 4, vec![]), "{seen:?} {slice:?}");
            let or_refuse = Seen { or_refuse: true, ..seen };
            let refused = or_refuse.answer(Memory::Recovery, &slice, &mut SubscribeResult::default());
            assert_eq!(refused, Err(ErrorCode::UNRECOVERABLE_POSITION));
        }
    }

    #[test]
    fn who_does_not_ask_is_told_the_position() {
        let fresh = Seen { recover: false, ..seen(1, "abcdefgh") };
        for memory in [Memory::Position, Memory::Recovery, CACHE] {
            assert_eq!(told(&fresh, memory, &slice([], 4)), (false, 4, vec![]));
        }
        let mut result = SubscribeResult::default();
        seen(1, "").answer(Memory::Position, &slice([], 4), &mut result).unwrap();
        assert!(result.was_recovering && !result.recovered && !result.recoverable && result.offset == 4);
    }

    #[test]
    fn of_a_cache_the_newest_is_given() {
        assert_eq!(told(&seen(1, "abcdefgh"), CACHE, &slice([4], 4)), (true, 1, vec![4]));
        assert_eq!(told(&seen(0, ""), CACHE, &slice([4], 4)), (true, 0, vec![4]));
        assert_eq!(told(&seen(9, "otherone"), CACHE, &slice([4], 4)), (true, 4, vec![4]), "9 is no place here");
        assert_eq!(told(&seen(9, "abcdefgh"), CACHE, &slice([4], 4)), (true, 4, vec![4]), "nor is it one yet");
        assert_eq!(told(&seen(4, "abcdefgh"), CACHE, &slice([4], 4)), (true, 4, vec![]), "it has it");
        assert_eq!(told(&seen(4, "abcdefgh"), CACHE, &slice([], 4)), (true, 4, vec![]));
        assert_eq!(told(&seen(1, "abcdefgh"), CACHE, &slice([], 4)), (false, 4, vec![]));
        assert_eq!(told(&seen(0, ""), CACHE, &slice([], 0)), (false, 0, vec![]));
        let fresh = Seen::default();
        assert_eq!(told(&fresh, Memory::Cache { always: true }, &slice([4], 4)), (true, 0, vec![4]));
    }

    #[test]
    fn as_little_is_read_as_will_do() {
        let part = |seen: &Seen, memory| seen.ask(memory, 300, Duration::ZERO).map(|ask| ask.part);
        let fresh = Seen::default();
        assert_eq!(part(&seen(7, ""), Memory::None), None);
        assert_eq!(part(&seen(7, ""), Memory::Position), Some(Part::Position));
        assert_eq!(part(&seen(7, ""), Memory::Recovery), Some(Part::Since(7)));
        assert_eq!(part(&seen(u64::MAX, ""), Memory::Recovery), Some(Part::Position));
        assert_eq!(part(&fresh, Memory::Recovery), Some(Part::Position));
        assert_eq!(part(&seen(7, ""), CACHE), Some(Part::Newest));
        assert_eq!(part(&fresh, CACHE), Some(Part::Position));
        assert_eq!(part(&fresh, Memory::Cache { always: true }), Some(Part::Newest));
    }
}
