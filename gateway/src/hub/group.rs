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

#[cfg(test)]
mod tests {
    use roomcast_shared::{
        delta,
        event::{Event, Said},
        protocol::command::FilterNode,
        publication::ClientInfo,
    };
    use serde_json::{Value, json};

    use super::*;
    use crate::hub::{
        Mail, Outbox, Room, Seat, SlowPolicy, Wire,
        testing::{Listener, at, heard, hub, kept, listener, payloads, publications, said, seat, turn},
    };

    fn side(value: &str) -> GroupKey {
        let (key, val, cmp) = ("side".to_owned(), value.to_owned(), "eq".to_owned());
        let filter = Filter::new(&FilterNode { key, val, cmp, ..FilterNode::default() }).unwrap();
        GroupKey { filter: Some(Arc::new(filter)), delta: false }
    }

    fn tagged(data: &str, value: &str) -> Said {
        let mut said = said(data);
        said.publication.tags.insert("side".to_owned(), value.to_owned());
        said
    }

    /// One that may be told as a delta; long enough that it pays.
    fn state(number: u32) -> Said {
        Said { delta: true, ..tagged(&text(number), if number.is_multiple_of(2) { "even" } else { "odd" }) }
    }

    fn text(number: u32) -> String {
        format!("{{\"filler\":\"{}\",\"number\":{number}}}", "abcdefgh".repeat(10))
    }

    fn enter(room: &Arc<Room>, listener: &Listener, key: GroupKey) {
        let group = room.group(key).unwrap();
        room.aside(1 << 20).sit(Seat { group, ..seat(listener) }, None).unwrap();
    }

    const DELTA: GroupKey = GroupKey { filter: None, delta: true };

    /// What a client that takes deltas makes of what it is told: each has to be whole or the patch to the one before.
    fn assert_told_as_deltas(told: &[Value], numbers: &[u32], patches: usize) {
        let mut before: Option<String> = None;
        let mut count = 0;
        assert_eq!(told.len(), numbers.len(), "{told:?}");
        for (publication, number) in told.iter().zip(numbers) {
            let target = text(*number);
            let data = publication["data"].as_str().expect("JSON clients are given strings");
            if publication["delta"] == json!(true) {
                count += 1;
                let patch = delta::patch(before.expect("one before").as_bytes(), target.as_bytes());
                assert_eq!(patch.as_deref(), Some(data.as_bytes()));
            } else {
                assert_eq!(data, target);
            }
            before = Some(target);
        }
        assert_eq!(count, patches, "{told:?}");
    }

    #[test]
    fn equal_filters_share_a_group_that_ends_with_its_last_seat() {
        let hub = hub();
        let room = hub.open("room");
        let key = || side("left");
        let (first, second) = (room.group(key()).unwrap(), room.group(key()).unwrap());
        assert_eq!(first, second);
        let other = room.group(side("right")).unwrap();
        assert_ne!(first, other);
        assert!(room.group(GroupKey::default()).unwrap().is_plain());
        let listener = listener();
        let id = hub.join(&room, Seat { group: first, ..seat(&listener) });
        room.leave_group(second);
        room.leave_group(other);
        assert!(room.seats.lock().group(first).is_some() && room.seats.lock().group(other).is_none());
        let dynamic: Arc<Outbox> = listener;
        hub.leave(&room, id, &dynamic);
        assert!(room.seats.lock().group(first).is_none());
    }

    #[test]
    fn a_room_has_a_bounded_number_of_groups() {
        let hub = hub();
        let room = hub.open("room");
        let group = |number: usize| room.group(side(&number.to_string()));
        for number in 0..MOST {
            assert!(group(number).is_some());
        }
        assert_eq!(group(MOST), None);
        room.leave_group(group(5).unwrap());
        assert!(group(6).is_some(), "one that is there is open to more");
    }

    #[test]
    fn who_filters_hears_what_passes_and_keeps_its_position() {
        let hub = hub();
        let room = hub.open("room");
        let (left, right, all) = (listener(), listener(), listener());
        hub.join(&room, seat(&all));
        for (listener, value) in [(&left, "left"), (&right, "right")] {
            let group = room.group(side(value)).unwrap();
            let positioned = Seat { group, positioned: true, ..seat(listener) };
            room.aside(1 << 20).sit(positioned, Some(at(0))).unwrap();
        }
        for offset in 1..=6_u64 {
            let value = if offset < 5 { "left" } else { "right" };
            let mut said = kept(at(offset));
            said.publication.tags.insert("side".to_owned(), value.to_owned());
            turn(&room, [said.into()]);
        }
        assert_eq!(
            (payloads(&left), payloads(&right)),
            (vec![json!(1), json!(2), json!(3), json!(4)], vec![json!(5), json!(6)])
        );
        assert_eq!(payloads(&all).len(), 6);
        assert_eq!(room.check(room.position(), at(6)), 0, "what was filtered out was not missed");
        assert_eq!(hub.jobs.metrics.deliveries.get(), 12);
        turn(&room, [kept(at(8)).into()]);
        assert_eq!(left.take_mail(), [Mail::Lost { room: room.name().clone() }]);
        assert_eq!(room.len(), 1);
    }

    #[test]
    fn what_was_missed_is_filtered_as_well() {
        let hub = hub();
        let room = hub.open("room");
        let (aside, listener) = (room.aside(1 << 20), listener());
        turn(&room, [tagged("1", "left").into(), tagged("2", "right").into(), Event::Join(ClientInfo::default())]);
        let group = room.group(side("left")).unwrap();
        let seated = aside.sit(Seat { group, ..seat(&listener) }, None).unwrap();
        assert_eq!(seated.missed, [tagged("1", "left").into()]);
    }

    #[test]
    fn deltas_begin_with_a_whole_publication_for_each_who_enters() {
        let hub = hub();
        let room = hub.open("room");
        let (first, second, plain) = (listener(), listener(), listener());
        hub.join(&room, seat(&plain));
        enter(&room, &first, DELTA);
        turn(&room, [state(1).into(), state(2).into()]);
        turn(&room, [state(3).into()]);
        enter(&room, &second, DELTA);
        turn(&room, [state(4).into(), state(5).into()]);
        turn(&room, [state(6).into(), Said { delta: false, ..state(7) }.into(), state(8).into()]);
        assert_told_as_deltas(&publications(&first), &[1, 2, 3, 4, 5, 6, 7, 8], 5);
        assert_told_as_deltas(&publications(&second), &[4, 5, 6, 7, 8], 2);
        assert_eq!(payloads(&plain)[7]["number"], 8, "others are told it as it is");
    }

    #[test]
    fn a_delta_is_made_to_what_the_group_heard_and_not_to_what_was_filtered_out() {
        let hub = hub();
        let room = hub.open("room");
        let listener = listener();
        enter(&room, &listener, GroupKey { delta: true, ..side("even") });
        for number in 1..=8 {
            turn(&room, [state(number).into()]);
        }
        assert_told_as_deltas(&publications(&listener), &[2, 4, 6, 8], 3);
    }

    #[test]
    fn who_did_not_hear_its_own_is_told_the_next_one_whole() {
        let hub = hub();
        let room = hub.open("room");
        let listener = listener();
        let client = uuid::Uuid::new_v4();
        hub.sessions.open(client, listener.clone());
        enter(&room, &listener, DELTA);
        for number in 1..=6 {
            let exclude = (number == 3).then_some(client.as_u128());
            turn(&room, [Said { exclude, ..state(number) }.into()]);
        }
        assert_told_as_deltas(&publications(&listener), &[1, 2, 4, 5, 6], 3);
    }

    #[test]
    fn protobuf_clients_are_given_patches_as_bytes() {
        let hub = hub();
        let room = hub.open("room");
        let listener = listener();
        let group = room.group(DELTA).unwrap();
        let protobuf = Seat { group, wire: Wire::ProtobufWebSocket, ..seat(&listener) };
        room.aside(1 << 20).sit(protobuf, None).unwrap();
        turn(&room, [state(1).into()]);
        turn(&room, [state(2).into()]);
        let patch = delta::patch(text(1).as_bytes(), text(2).as_bytes()).unwrap();
        assert!(listener.socket().said().windows(patch.len()).any(|bytes| bytes == patch));
    }

    /// Each delta needs the one before, so that none may be left out.
    #[test]
    fn deltas_are_not_left_out_for_slow_seats() {
        let hub = hub();
        let room = hub.open("room");
        let listener = crate::hub::testing::slow_listener([crate::hub::outbox::tests::Take::Nothing], usize::MAX);
        let group = room.group(DELTA).unwrap();
        let latest = Seat { group, slow: SlowPolicy::Latest, ..seat(&listener) };
        room.aside(1 << 20).sit(latest, None).unwrap();
        for number in 1..=5 {
            turn(&room, [state(number).into()]);
        }
        assert!(heard(&listener).is_empty() && listener.drain().unwrap());
        assert_told_as_deltas(&publications(&listener), &[1, 2, 3, 4, 5], 4);
    }

    #[test]
    fn the_last_publication_is_kept_only_while_somebody_takes_deltas() {
        let hub = hub();
        let room = hub.open("room");
        let listener = listener();
        enter(&room, &listener, DELTA);
        turn(&room, [state(1).into()]);
        let dynamic: Arc<Outbox> = listener;
        assert!(room.seats.lock().remove_wherever(&dynamic));
        assert!(room.seats.lock().has_nothing_rare());
    }
}
