//! Where the owner of a room is: which rooms lie together, and which link leads to them. Knows no links and no commands.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use super::{
    keys::Keys,
    slots::{self, SLOTS},
};

/// Rooms that one server has as a whole, and that move as a whole: those of one of several servers, or those of a slot.
pub(super) type Group = u16;

/// The way to one server. A number is never given twice.
pub(super) type LinkId = u32;

/// Which group a room belongs to, and which link leads there.
pub(super) struct Routes {
    keys: Arc<Keys>,
    owners: Owners,
}

enum Owners {
    /// Independent servers, each a group.
    Servers(u16),
    /// The owner of each slot, as far as it is known.
    Slots(Box<[AtomicU32]>),
}

impl Routes {
    /// Over so many independent servers, whose links are numbered in their order.
    pub(super) fn servers(keys: Arc<Keys>, count: u16) -> Self {
        Self { keys, owners: Owners::Servers(count) }
    }

    /// Over the slots of a cluster, all of them at link 0 until more is known.
    pub(super) fn slots(keys: Arc<Keys>) -> Self {
        Self { keys, owners: Owners::Slots((0..SLOTS).map(|_| AtomicU32::new(0)).collect()) }
    }

    /// Whether groups are slots.
    pub(super) fn are_slots(&self) -> bool {
        matches!(self.owners, Owners::Slots(_))
    }

    /// The group of a room.
    pub(super) fn group(&self, room: &str) -> Group {
        match self.owners {
            Owners::Servers(1) => 0,
            Owners::Servers(count) => slots::server(room, count),
            Owners::Slots(_) => self.keys.slot(room),
        }
    }

    /// The group of what nodes say to each other and keep in common.
    pub(super) fn control(&self) -> Group {
        if self.are_slots() { Keys::control_slot() } else { 0 }
    }

    /// The link to a group.
    pub(super) fn link(&self, group: Group) -> LinkId {
        match &self.owners {
            Owners::Servers(_) => group.into(),
            Owners::Slots(owners) => owners[usize::from(group)].load(Ordering::Acquire),
        }
    }

    /// Every link that leads to something.
    pub(super) fn owners(&self) -> HashSet<LinkId> {
        match &self.owners {
            Owners::Servers(count) => (0..LinkId::from(*count)).collect(),
            Owners::Slots(owners) => owners.iter().map(|owner| owner.load(Ordering::Acquire)).collect(),
        }
    }

    /// A slot is owned by the server of that link from now on. Whoever holds something for it has to be told.
    pub(super) fn set(&self, slot: Group, link: LinkId) -> bool {
        match &self.owners {
            Owners::Slots(owners) => {
                owners.get(usize::from(slot)).is_some_and(|owner| owner.swap(link, Ordering::AcqRel) != link)
            }
            Owners::Servers(_) => false,
        }
    }
}
