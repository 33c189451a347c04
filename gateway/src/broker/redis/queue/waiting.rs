//! What waits of a group, and what waits at a link: where it is and how much it is. Knows no routes, and is under the lock of
//! the queue.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use tokio::sync::Notify;

use super::{Call, Group, LinkId, MAX_BATCH_BYTES};

/// What waits of one group.
pub(super) struct Waiting<Q, A> {
    pub(super) calls: VecDeque<Call<Q, A>>,
    pub(super) bytes: usize,
    pub(super) link: LinkId,
    pub(super) place: Place,
    /// It is at a link that is not its owner's.
    pub(super) asking: bool,
    /// It was sent elsewhere when it was last written.
    pub(super) bounced: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Nothing of it waits, and nothing is unanswered.
    Nowhere,
    /// In [`Lane::ready`].
    Ready,
    /// In [`Lane::paused`].
    Paused,
    /// Some of it is being written.
    Taken,
}

/// What waits at one link.
#[derive(Default)]
pub(super) struct Lane {
    pub(super) ready: VecDeque<Group>,
    /// Groups that are ready when their time has come; all wait equally long, so they are in order.
    pub(super) paused: VecDeque<(Instant, Group)>,
    pub(super) calls: usize,
    pub(super) bytes: usize,
    /// Calls that were taken and are not answered yet.
    pub(super) written: usize,
    /// The writer is to be woken when so many calls wait, or a batch of bytes.
    pub(super) enough: Option<usize>,
    pub(super) filled: Arc<Notify>,
}

impl<Q, A> Waiting<Q, A> {
    pub(super) fn new() -> Self {
        Self { calls: VecDeque::new(), bytes: 0, link: 0, place: Place::Nowhere, asking: false, bounced: false }
    }

    pub(super) fn push(&mut self, call: Call<Q, A>, lane: &mut Lane) {
        self.count(call.size.bytes, lane);
        self.calls.push_back(call);
    }

    /// Puts a call back that was taken.
    pub(super) fn unpop(&mut self, call: Call<Q, A>, lane: &mut Lane) {
        self.count(call.size.bytes, lane);
        self.calls.push_front(call);
    }

    pub(super) fn count(&mut self, bytes: usize, lane: &mut Lane) {
        self.bytes += bytes;
        lane.bytes += bytes;
        lane.calls += 1;
    }

    pub(super) fn pop(&mut self, lane: &mut Lane) -> Option<Call<Q, A>> {
        let mut call = self.calls.pop_front()?;
        call.asking = self.asking;
        self.bytes -= call.size.bytes;
        lane.bytes -= call.size.bytes;
        lane.calls -= 1;
        Some(call)
    }

    /// Has its calls counted at another link.
    pub(super) fn move_to(&mut self, link: LinkId, lanes: &mut HashMap<LinkId, Lane, RandomState>) {
        if link == self.link {
            return;
        }
        if let Some(lane) = lanes.get_mut(&self.link) {
            lane.calls -= self.calls.len();
            lane.bytes -= self.bytes;
        }
        let lane = lanes.entry(link).or_default();
        lane.calls += self.calls.len();
        lane.bytes += self.bytes;
        self.link = link;
    }

    /// Finds its place at its link.
    pub(super) fn settle(&mut self, group: Group, until: Option<Instant>, lane: &mut Lane) {
        match until {
            _ if self.calls.is_empty() => self.place = Place::Nowhere,
            Some(until) => {
                self.place = Place::Paused;
                lane.paused.push_back((until, group));
                lane.filled.notify_one();
            }
            None => {
                self.place = Place::Ready;
                lane.ready.push_back(group);
                lane.filled.notify_one();
            }
        }
    }
}

impl Lane {
    /// Whether so many calls wait, or a batch of bytes.
    pub(super) fn has(&self, calls: usize) -> bool {
        self.calls >= calls || self.bytes >= MAX_BATCH_BYTES
    }

    pub(super) fn unpause<Q, A>(&mut self, now: Instant, groups: &mut HashMap<Group, Waiting<Q, A>, RandomState>) {
        while let Some((_, group)) = self.paused.pop_front_if(|(until, _)| *until <= now) {
            if let Some(waiting) = groups.get_mut(&group) {
                waiting.place = Place::Ready;
                self.ready.push_back(group);
            }
        }
    }
}
