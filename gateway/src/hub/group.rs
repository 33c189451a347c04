//! Groups of seats in one room that hear it in the same way: the publications that pass one filter, whole or as deltas. A
//! publication is filtered and its delta made once for each group, however many sit in it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use parking_lot::Mutex;
use roomcast_shared::{filter::Filter, publication::Publication};

/// How many groups one room has at most.
const MOST: usize = 4096;

/// Names a group to its room; the default one hears everything whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct GroupId(u16);

/// What a group hears.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct GroupKey {
    /// Which publications; absent for all.
    pub filter: Option<Arc<Filter>>,
    /// Whether as differences to the publication before, as this group heard them.
    pub delta: bool,
}

/// A group that somebody sits in.
pub(super) struct Group {
    pub(super) key: GroupKey,
    /// Number of the last publication in the room that the group was told; 0 before the first.
    told: AtomicU64,
    /// What the next delta is made to. Only the holder of the turn asks.
    previous: Mutex<Option<Bytes>>,
}

/// The groups of one room.
#[derive(Default)]
pub(super) struct Groups {
    slots: Vec<Option<Slot>>,
    ids: HashMap<GroupKey, GroupId, RandomState>,
}

struct Slot {
    group: Arc<Group>,
    /// Seats that are in it, or about to be.
    seats: usize,
}

impl GroupId {
    /// Whether it is the one that hears everything whole.
    #[inline]
    pub(super) fn is_plain(self) -> bool {
        self.0 == 0
    }

    /// Its place in a list of the groups.
    pub(super) fn place(self) -> usize {
        usize::from(self.0).saturating_sub(1)
    }

    fn at(place: usize) -> Self {
        Self(u16::try_from(place + 1).expect("groups are far fewer than 2^16"))
    }
}

impl Group {
    fn new(key: GroupKey) -> Self {
        Self { key, told: AtomicU64::new(0), previous: Mutex::default() }
    }

    pub(super) fn hears(&self, publication: &Publication) -> bool {
        self.key.filter.as_ref().is_none_or(|filter| filter.matches(&publication.tags))
    }

    /// Whether what the group was told last came with or after the publication of this number.
    pub(super) fn was_told_since(&self, number: u64) -> bool {
        self.told.load(Ordering::Acquire) >= number
    }

    /// The group is told the publication of this number; gives what it was told before.
    pub(super) fn tell(&self, number: u64, data: &Bytes) -> Option<Bytes> {
        self.told.store(number, Ordering::Release);
        if self.key.delta { self.previous.lock().replace(data.clone()) } else { None }
    }
}

impl Groups {
    /// The group of that key, made where there is none, with one seat more; nothing where the room has too many.
    pub(super) fn enter(&mut self, key: GroupKey) -> Option<GroupId> {
        if key == GroupKey::default() {
            return Some(GroupId::default());
        }
        if let Some(id) = self.ids.get(&key) {
            self.slots[id.place()].as_mut()?.seats += 1;
            return Some(*id);
        }
        let place = self.slots.iter().position(Option::is_none).unwrap_or(self.slots.len());
        if place >= MOST {
            return None;
        }
        if place == self.slots.len() {
            self.slots.push(None);
        }
        self.ids.insert(key.clone(), GroupId::at(place));
        self.slots[place] = Some(Slot { group: Arc::new(Group::new(key)), seats: 1 });
        Some(GroupId::at(place))
    }

    /// One seat less; the group ends with its last one.
    pub(super) fn leave(&mut self, id: GroupId) {
        let Some(place) = self.slots.get_mut(id.place()).filter(|_| !id.is_plain()) else { return };
        let Some(slot) = place else { return };
        slot.seats -= 1;
        if slot.seats == 0 {
            self.ids.remove(&slot.group.key);
            *place = None;
            while self.slots.last().is_some_and(Option::is_none) {
                self.slots.pop();
            }
        }
    }

    pub(super) fn get(&self, id: GroupId) -> Option<&Arc<Group>> {
        let slot = self.slots.get(id.place()).filter(|_| !id.is_plain())?;
        slot.as_ref().map(|slot| &slot.group)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// All of them, each at its place.
    pub(super) fn all(&self) -> Vec<Option<Arc<Group>>> {
        self.slots.iter().map(|slot| slot.as_ref().map(|slot| slot.group.clone())).collect()
    }
}
