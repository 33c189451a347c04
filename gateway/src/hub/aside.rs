//! Taking a seat in a room while its history is read: first a place aside, which hears everything from now on, then the
//! history, then the seat. Whatever is said meanwhile is told once. Knows no store: what was read is the caller's.

use std::sync::Arc;

use roomcast_shared::{event::Event, position::Position};
use thiserror::Error;

use super::{Room, Seat, SeatId};

/// A place aside in a room: what is handed out there gathers for whoever is about to take a seat. Dropping it gives it up.
pub struct Aside {
    room: Arc<Room>,
    side: Option<u32>,
}

/// A seat that was taken.
#[derive(Debug)]
pub struct Seated {
    /// Names it to the room.
    pub id: SeatId,
    /// What was handed out between opening the place aside and taking the seat, and comes after the position reached: to be
    /// told after the reply and before whatever the seat's outbox holds. Filters are applied; joins and leaves are in it for
    /// a seat that hears them; publications that exclude a session are in it for the caller to leave out. To a seat that takes
    /// deltas they have to be told whole.
    pub missed: Vec<Event>,
}

/// What was said meanwhile does not follow on the position reached, or was too much to keep: the history has to be read once
/// more, beside a new place aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("what was said meanwhile does not follow on the position reached")]
pub struct Gap;

impl Aside {
    pub(super) fn new(room: Arc<Room>, limit: usize) -> Self {
        let side = room.seats.lock().open_side(limit);
        Self { room, side: Some(side) }
    }

    /// Takes the seat. `reached` is the position up to which the client has been, or is about to be, told by other means: the
    /// top of the history, read after this place was opened. Without one everything said meanwhile is missed.
    ///
    /// The caller holds the seat's outbox ([`Outbox::hold`](super::Outbox::hold)) and writes the reply and what was missed
    /// before it releases it. What comes later is heard from the first publication after all that, even where this node is
    /// handed some of what was reached only now.
    ///
    /// # Errors
    /// [`Gap`]; no seat is taken, and its group counts one seat less.
    pub fn sit(mut self, seat: Seat, reached: Option<Position>) -> Result<Seated, Gap> {
        let side = self.side.take().expect("it is taken once, here or when dropped");
        let group = seat.group;
        let mut seats = self.room.seats.lock();
        let seated = seats.sit(side, seat, reached);
        let group = seats.group(group).cloned();
        drop(seats);
        let mut seated = seated.ok_or(Gap)?;
        self.room.jobs.metrics.subscriptions.inc();
        self.room.tell_lost(seated.lost);
        if let Some(group) = group {
            seated.missed.retain(|event| match event {
                Event::Publication(said) => group.hears(&said.publication),
                Event::Join(_) | Event::Leave(_) => true,
            });
        }
        Ok(Seated { id: seated.id, missed: seated.missed })
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if let Some(side) = self.side.take() {
            self.room.seats.lock().close_side(side);
        }
    }
}

#[cfg(test)]
mod tests {
    //! Seats that are taken while the room speaks and its history is ahead, breaks, or went back.

    use std::{
        sync::atomic::{AtomicBool, AtomicU64, Ordering},
        time::Duration,
    };

    use proptest::prelude::*;
    use roomcast_shared::{event::Said, position::Epoch, publication::ClientInfo};
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::{
        hub::{
            Deliver, Delivered, Hub, Mail, Outbox,
            position::Run,
            room::Put,
            testing::{Listener, at, hub, kept, listener, payloads, publications, said, seat, turn},
        },
        metrics::Metrics,
    };

    fn positioned(listener: &Listener) -> Seat {
        Seat { positioned: true, ..seat(listener) }
    }

    fn event(offset: u64) -> Event {
        kept(at(offset)).into()
    }

    fn enter(room: &Arc<Room>, reached: Position) -> Listener {
        let listener = listener();
        let seated = room.aside(1 << 20).sit(positioned(&listener), Some(reached)).unwrap();
        assert!(seated.missed.is_empty());
        listener
    }

    fn lost(room: &Room) -> [Mail; 1] {
        [Mail::Lost { room: room.name().clone() }]
    }

    fn offsets(events: &[Event]) -> Vec<u64> {
        let offset = |event: &Event| match event {
            Event::Publication(said) => said.publication.offset,
            Event::Join(_) | Event::Leave(_) => 0,
        };
        events.iter().map(offset).collect()
    }

    #[test]
    fn what_is_said_while_the_history_is_read_is_missed_from_the_position_reached_on() {
        let hub = hub();
        let room = hub.open("room");
        turn(&room, [event(1)]);
        let (aside, listener) = (room.aside(1 << 20), listener());
        turn(&room, [event(2), event(3)]);
        turn(&room, [event(4), said("0").into()]);
        let seated = aside.sit(positioned(&listener), Some(at(2))).unwrap();
        assert_eq!(offsets(&seated.missed), [3, 4, 0]);
        turn(&room, [event(5)]);
        assert_eq!(payloads(&listener), [5]);
        assert!(room.holds(seated.id, &(listener as Arc<Outbox>)));
        assert_eq!((hub.seat_count(), room.len()), (1, 1));
    }

    #[test]
    fn joins_are_missed_by_those_who_hear_them() {
        let hub = hub();
        let room = hub.open("room");
        let (aside, other, listener) = (room.aside(1 << 20), room.aside(1 << 20), listener());
        let join = || Event::Join(ClientInfo::default());
        turn(&room, [join(), event(1)]);
        let seated = aside.sit(Seat { join_leave: true, ..positioned(&listener) }, Some(at(1))).unwrap();
        assert_eq!(seated.missed, [join()]);
        assert!(other.sit(seat(&listener), Some(at(1))).unwrap().missed.is_empty());
    }

    /// The history was read ahead of what this node hears: that is skipped for this seat alone.
    #[test]
    fn a_seat_that_is_ahead_hears_on_from_where_it_is() {
        let hub = hub();
        let room = hub.open("room");
        let plain = listener();
        hub.join(&room, seat(&plain));
        let early = enter(&room, at(0));
        turn(&room, [event(1)]);
        let ahead = enter(&room, at(3));
        assert_eq!(room.position(), Some(at(3)), "the furthest anybody has reached");
        turn(&room, [event(2)]);
        turn(&room, [event(3), said("100").into(), event(4)]);
        turn(&room, [event(5)]);
        assert_eq!(payloads(&ahead), [100, 4, 5]);
        for all in [&early, &plain] {
            assert_eq!(payloads(all), [1, 2, 3, 100, 4, 5]);
        }
        assert!(early.take_mail().is_empty() && ahead.take_mail().is_empty());
    }

    #[test]
    fn whoever_misses_something_hears_nothing_more_and_is_told() {
        let hub = hub();
        let room = hub.open("room");
        let (watched, plain) = (enter(&room, at(0)), listener());
        hub.join(&room, seat(&plain));
        turn(&room, [event(1), event(2), event(4), event(5)]);
        assert_eq!((payloads(&watched), watched.take_mail()), (vec![1.into(), 2.into()], lost(&room).into()));
        assert_eq!(payloads(&plain), [1, 2, 4, 5], "without a position everything is heard");
        assert_eq!((room.len(), hub.seat_count(), room.has_positioned()), (1, 1, false));
        assert_eq!(hub.jobs.metrics.positions_lost.get(), 1);
        let again = enter(&room, at(5));
        turn(&room, [event(6)]);
        assert_eq!(payloads(&again), [6]);
    }

    #[test]
    fn a_history_that_repeats_goes_back_or_is_another_one_loses_those_who_followed_it() {
        let other = Position::new(6, Epoch::from_random(2));
        for next in [at(5), at(3), other] {
            let hub = hub();
            let room = hub.open("room");
            let (watched, ahead) = (enter(&room, at(4)), enter(&room, at(7)));
            turn(&room, [event(5)]);
            let beside = room.aside(1 << 20);
            turn(&room, [kept(next).into()]);
            assert_eq!((payloads(&watched), watched.take_mail()), (vec![5.into()], lost(&room).into()), "{next:?}");
            assert_eq!(ahead.take_mail(), lost(&room), "what it had read is not there any more");
            assert_eq!(beside.sit(positioned(&listener()), Some(at(5))).err(), Some(Gap));
            let again = enter(&room, next);
            turn(&room, [kept(Position { offset: next.offset + 1, ..next }).into()]);
            assert_eq!(payloads(&again), [next.offset + 1]);
        }
    }

    #[test]
    fn a_newer_history_may_be_known_before_it_is_heard() {
        let hub = hub();
        let room = hub.open("room");
        let old = enter(&room, at(8));
        turn(&room, [event(9)]);
        let new = |offset| Position::new(offset, Epoch::from_random(2));
        let listener = enter(&room, new(1));
        turn(&room, [kept(new(1)).into()]);
        turn(&room, [kept(new(2)).into()]);
        assert_eq!((payloads(&listener), old.take_mail()), (vec![2.into()], lost(&room).into()));
    }

    /// Read after the place was opened, the history does not know what the room has heard of.
    #[test]
    fn whoever_enters_a_history_that_went_back_shows_it_to_the_others() {
        let hub = hub();
        let room = hub.open("room");
        let (watched, ahead) = (enter(&room, at(9)), enter(&room, at(12)));
        turn(&room, [event(10)]);
        let entered = enter(&room, at(6));
        assert_eq!((watched.take_mail(), ahead.take_mail()), (lost(&room).into(), lost(&room).into()));
        turn(&room, [event(7)]);
        assert_eq!(payloads(&entered), [7]);
    }

    #[test]
    fn gaps_and_what_is_too_much_are_refused() {
        let hub = hub();
        let room = hub.open("room");
        let (small, behind, listener) = (room.aside(1000), room.aside(1 << 20), listener());
        for offset in 1..=9 {
            turn(&room, [event(offset)]);
        }
        assert_eq!(small.sit(positioned(&listener), Some(at(9))).err(), Some(Gap), "more than it may keep");
        assert_eq!(
            behind
                .sit(positioned(&listener), Some(Position { offset: 5, ..Position::new(5, Epoch::from_random(3)) }))
                .err(),
            Some(Gap)
        );
        drop(room.aside(1000));
        assert_eq!((room.len(), hub.seat_count()), (0, 0));
        assert!(room.seats.lock().has_nothing_rare(), "nobody is beside the room any more");
    }

    #[test]
    fn a_comparison_finds_who_was_not_told() {
        let hub = hub();
        let room = hub.open("room");
        let (heard, ahead) = (enter(&room, at(0)), enter(&room, at(4)));
        turn(&room, [event(1), event(2)]);
        assert_eq!(room.check(Some(at(2)), at(2)), 0);
        assert_eq!(room.check(room.position(), at(4)), 1);
        assert_eq!((heard.take_mail(), ahead.take_mail()), (lost(&room).into(), Vec::new()));
        assert_eq!(room.check(room.position(), at(5)), 1);
        assert_eq!(ahead.take_mail(), lost(&room));
        assert_eq!((hub.positioned_rooms().len(), hub.seat_count()), (0, 0));
    }

    #[test]
    fn a_comparison_finds_a_history_that_went_back_or_began_anew() {
        for top in [at(3), Position::new(9, Epoch::from_random(2))] {
            let hub = hub();
            let room = hub.open("room");
            let (heard, ahead) = (enter(&room, at(4)), enter(&room, at(6)));
            turn(&room, [event(5)]);
            assert_eq!(hub.positioned_rooms().len(), 1);
            assert_eq!(room.check(room.position(), top), 2, "{top:?}");
            assert_eq!((heard.take_mail(), ahead.take_mail()), (lost(&room).into(), lost(&room).into()));
        }
    }

    /// Something did not come between the reading and the seat, and a comparison, then, knows of it.
    #[test]
    fn whoever_is_about_to_enter_is_compared_as_well() {
        let hub = hub();
        let room = hub.open("room");
        let aside = room.aside(1000);
        assert_eq!((hub.positioned_rooms().len(), room.position()), (1, None));
        assert_eq!(room.check(room.position(), at(3)), 0);
        assert_eq!(aside.sit(positioned(&listener()), Some(at(2))).err(), Some(Gap));
        assert!(hub.positioned_rooms().is_empty());
    }

    /// An idle room in which everybody has read the history and nothing was said yet.
    #[test]
    fn after_a_comparison_what_comes_has_to_follow_on_it() {
        let hub = hub();
        let room = hub.open("room");
        let waiting = enter(&room, at(5));
        assert_eq!(room.check(room.position(), at(5)), 0);
        turn(&room, [event(5)]);
        assert_eq!(waiting.take_mail(), lost(&room), "everything up to there had come: this is another one");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_comparison_waits_for_what_is_being_delivered() {
        let hub = hub();
        let room = hub.open("room");
        let listener = enter(&room, at(0));
        let mut first = Run::from_buf([event(1)]);
        assert!(matches!(room.put(&mut first, usize::MAX), Put::YourTurn), "nobody has the turn");
        assert_eq!(room.check(Some(at(0)), at(1)), 0, "it is on its way");
        turn(&room, first);
        assert!(room.take_batch().is_none());
        assert!(listener.take_mail().is_empty());
        let mut second = Run::from_buf([event(2)]);
        assert!(matches!(room.put(&mut second, usize::MAX), Put::YourTurn), "nobody has the turn");
        assert_eq!(room.check(Some(at(1)), at(3)), 0);
        turn(&room, second);
        assert!(room.take_batch().is_none());
        assert_eq!((payloads(&listener).len(), listener.take_mail()), (2, lost(&room).into()));
    }

    /// Real threads: one publishes, one is the broker and lags behind, and clients come and go all the while.
    #[tokio::test(flavor = "multi_thread", worker_threads = 3)]
    async fn clients_that_come_back_while_others_publish_hear_everything_once_and_in_order() {
        const CLIENTS: u64 = 6;
        const ROUNDS: u64 = 150;
        let hub = Arc::new(Hub::new(10_000, Arc::new(Metrics::new()), TaskTracker::new()));
        let room = hub.open("room");
        let (top, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (send, mut receive) = tokio::sync::mpsc::channel(64);
        let broker = tokio::spawn({
            let hub = hub.clone();
            async move {
                while let Some(offset) = receive.recv().await {
                    if let Delivered::Full(space) = hub.deliver("room", event(offset)) {
                        space.await;
                    }
                }
            }
        });
        let publisher = tokio::spawn({
            let (top, stop) = (top.clone(), stop.clone());
            async move {
                while !stop.load(Ordering::Relaxed) {
                    let offset = top.fetch_add(1, Ordering::SeqCst) + 1;
                    send.send(offset).await.unwrap();
                }
            }
        });
        let clients = (0..CLIENTS).map(|_| {
            let (hub, room, top) = (hub.clone(), room.clone(), top.clone());
            tokio::spawn(async move {
                for _ in 0..ROUNDS {
                    come_and_go(&hub, &room, &top).await;
                }
            })
        });
        for client in clients.collect::<Vec<_>>() {
            tokio::time::timeout(Duration::from_mins(1), client).await.expect("it hears enough").unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        publisher.await.unwrap();
        broker.await.unwrap();
        assert_eq!((hub.seat_count(), hub.jobs.metrics.positions_lost.get()), (0, 0));
    }

    /// Enters, hears a few publications, and leaves.
    async fn come_and_go(hub: &Hub, room: &Arc<Room>, top: &AtomicU64) {
        // However long this thread has to wait for its turn, while others publish as fast as they can.
        let aside = room.aside(usize::MAX);
        tokio::task::yield_now().await;
        let reached = top.load(Ordering::SeqCst);
        tokio::task::yield_now().await;
        let listener = listener();
        listener.hold();
        let seated = aside.sit(positioned(&listener), Some(at(reached))).unwrap();
        let mut heard = offsets(&seated.missed);
        listener.release(b"");
        let count = heard.len();
        while heard.len() < count + 3 {
            tokio::task::yield_now().await;
            heard.truncate(count);
            heard.extend(publications(&listener).iter().filter_map(|said| said["offset"].as_u64()));
        }
        let expected: Vec<_> = (reached + 1..).take(heard.len()).collect();
        assert_eq!(heard, expected, "after {reached}");
        let dynamic: Arc<Outbox> = listener;
        hub.leave(room, seated.id, &dynamic);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Say,
        /// Not in the history.
        SayInPassing,
        Deliver(usize),
        Lose,
        BeginAnew,
        Open,
        Read(usize),
        Sit(usize),
        Leave(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => Just(Step::Say),
            1 => Just(Step::SayInPassing),
            6 => (1..5_usize).prop_map(Step::Deliver),
            1 => Just(Step::Lose),
            1 => Just(Step::BeginAnew),
            3 => Just(Step::Open),
            3 => (0..8_usize).prop_map(Step::Read),
            3 => (0..8_usize).prop_map(Step::Sit),
            1 => (0..8_usize).prop_map(Step::Leave),
        ]
    }

    struct Client {
        aside: Option<Aside>,
        reached: Option<Position>,
        listener: Listener,
        seat: Option<SeatId>,
        missed: Vec<u64>,
    }

    struct World {
        room: Arc<Room>,
        top: Position,
        on_its_way: Vec<Said>,
        clients: Vec<Client>,
    }

    impl World {
        fn take(&mut self, step: &Step) {
            match step {
                Step::Say => {
                    self.top.offset += 1;
                    self.on_its_way.push(kept(self.top));
                }
                Step::SayInPassing => self.on_its_way.push(said("0")),
                Step::Deliver(count) => {
                    let count = (*count).min(self.on_its_way.len());
                    turn(&self.room, self.on_its_way.drain(..count).map(Event::from));
                }
                Step::Lose if !self.on_its_way.is_empty() => drop(self.on_its_way.remove(0)),
                Step::BeginAnew => {
                    let number: u64 = self.top.epoch.as_str().bytes().map(u64::from).sum();
                    self.top = Position::new(0, Epoch::from_random(number));
                }
                Step::Open => self.clients.push(Client {
                    aside: Some(self.room.aside(1 << 20)),
                    reached: None,
                    listener: listener(),
                    seat: None,
                    missed: Vec::new(),
                }),
                Step::Read(place) => {
                    let top = self.top;
                    if let Some(client) = self.clients.get_mut(*place).filter(|client| client.aside.is_some()) {
                        client.reached = Some(top);
                    }
                }
                Step::Sit(place) => self.sit(*place),
                Step::Leave(place) if *place < self.clients.len() => {
                    let client = self.clients.swap_remove(*place);
                    if let Some(id) = client.seat {
                        let dynamic: Arc<Outbox> = client.listener;
                        self.room.seats.lock().remove(id, &dynamic);
                    }
                }
                Step::Lose | Step::Leave(_) => {}
            }
        }

        fn sit(&mut self, place: usize) {
            let Some(client) = self.clients.get_mut(place).filter(|client| client.reached.is_some()) else { return };
            let Some(aside) = client.aside.take() else { return };
            match aside.sit(positioned(&client.listener), client.reached) {
                Err(Gap) => drop(self.clients.swap_remove(place)),
                Ok(seated) => {
                    client.missed = offsets(&seated.missed);
                    client.seat = Some(seated.id);
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// Whatever is said, delivered, lost, begun anew, and whoever comes and goes: everybody hears the history on from
        /// where it was read, without a gap, until it is told that it is lost; and who is not told so by the comparison at
        /// the end has heard all of it.
        #[test]
        fn everybody_hears_everything_or_is_told(steps in proptest::collection::vec(step(), 1..80)) {
            let hub = hub();
            let room = hub.open("room");
            let mut world = World { room, top: at(0), on_its_way: Vec::new(), clients: Vec::new() };
            for step in &steps {
                world.take(step);
            }
            world.take(&Step::Deliver(usize::MAX));
            world.room.check(world.room.position(), world.top);
            for client in world.clients.iter().filter(|client| client.seat.is_some()) {
                let reached = client.reached.unwrap();
                let live = publications(&client.listener).into_iter().filter_map(|said| said["offset"].as_u64());
                let heard: Vec<_> = client.missed.iter().copied().filter(|offset| *offset > 0).chain(live).collect();
                let expected: Vec<_> = (reached.offset + 1..).take(heard.len()).collect();
                prop_assert_eq!(&heard, &expected);
                let is_seated = world.room.holds(client.seat.unwrap(), &(client.listener.clone() as Arc<Outbox>));
                prop_assert_eq!(client.listener.take_mail().is_empty(), is_seated);
                if is_seated {
                    prop_assert_eq!(Position { offset: reached.offset + heard.len() as u64, ..reached }, world.top);
                }
            }
        }
    }
}
