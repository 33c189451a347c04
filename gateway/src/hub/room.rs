//! One room: its seats, and the inbox in which publications gather while others are being delivered. Knows no clients and
//! no broker.

use std::{future::Future, pin::Pin, sync::Arc};

use parking_lot::Mutex;
use roomcast_shared::publication::Publication;
use tokio::sync::Notify;

use super::{Outbox, Wire, outbox};

/// Seats of one segment: what one delivery job walks through, and what a join may have to copy while it does.
const SEGMENT: usize = 2048;

/// Bytes of publications that one turn takes from the inbox.
const TURN: usize = 64 * 1024;

/// What a publication costs in an inbox beside its payload.
const OVERHEAD: usize = 256;

/// A room of this node.
pub struct Room {
    name: Arc<str>,
    inbox: Mutex<Inbox>,
    seats: Mutex<Segments>,
    /// Told when a turn has taken or delivered something.
    moved: Notify,
}

/// A subscriber's place: where its publications go, and in which form.
#[derive(Clone)]
pub struct Seat {
    /// The way out of its connection.
    pub outbox: Arc<Outbox>,
    /// How its client is spoken to.
    pub wire: Wire,
}

/// Names a seat to the room it is in, together with its outbox.
#[derive(Clone, Copy, Debug)]
pub struct SeatId {
    segment: u32,
}

/// Seats are kept in segments, each behind a counted reference: a delivery walks through what it found, and a join that
/// comes meanwhile copies one segment at the most.
type Segments = Vec<Arc<Vec<Seat>>>;

#[derive(Default)]
struct Inbox {
    waiting: Vec<Publication>,
    bytes: usize,
    /// Somebody delivers for this room just now, and only that one does.
    turn: bool,
    /// How many publications were ever put in, taken out, and handed to every seat.
    put: u64,
    taken: u64,
    handed: u64,
}

/// What became of a publication put into an inbox.
pub(super) enum Put {
    /// Somebody else delivers it.
    Waits,
    /// The caller has the turn now and must deliver until [`Room::take_batch`] gives nothing.
    YourTurn,
}

impl Room {
    pub(super) fn new(name: Arc<str>) -> Self {
        Self { name, inbox: Mutex::default(), seats: Mutex::default(), moved: Notify::new() }
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// How many seats it has.
    pub fn len(&self) -> usize {
        self.seats.lock().iter().map(|segment| segment.len()).sum()
    }

    /// Whether nobody sits in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn add(&self, seat: Seat) -> SeatId {
        let mut segments = self.seats.lock();
        let place = segments.iter().position(|segment| segment.len() < SEGMENT).unwrap_or(segments.len());
        if place == segments.len() {
            segments.push(Arc::new(Vec::with_capacity(1)));
        }
        Arc::make_mut(&mut segments[place]).push(seat);
        SeatId { segment: u32::try_from(place).expect("segments are far fewer than 2^32") }
    }

    pub(super) fn remove(&self, id: SeatId, out: &Arc<Outbox>) -> bool {
        let mut segments = self.seats.lock();
        let Some(segment) = segments.get_mut(id.segment as usize) else {
            return false;
        };
        let Some(place) = segment.iter().position(|seat| outbox::same(&seat.outbox, out)) else {
            return false;
        };
        let seats = Arc::make_mut(segment);
        seats.swap_remove(place);
        if seats.len() * 4 < seats.capacity() {
            seats.shrink_to(seats.len() * 2);
        }
        true
    }

    /// The seats as they are now.
    pub(super) fn snapshot(&self) -> Segments {
        self.seats.lock().clone()
    }

    /// Puts a publication last. Also says whether the inbox is full by it.
    pub(super) fn put(&self, publication: Publication, limit: usize) -> (Put, bool) {
        let mut inbox = self.inbox.lock();
        inbox.bytes += cost(&publication);
        inbox.waiting.push(publication);
        inbox.put += 1;
        let full = inbox.bytes > limit;
        if std::mem::replace(&mut inbox.turn, true) { (Put::Waits, full) } else { (Put::YourTurn, full) }
    }

    /// What the holder of the turn delivers next; nothing, and the turn ends, when the inbox is empty. Whoever asks has
    /// handed what it took before to every seat.
    pub(super) fn take_batch(&self) -> Option<Vec<Publication>> {
        let mut inbox = self.inbox.lock();
        inbox.handed = inbox.taken;
        let batch = if inbox.waiting.is_empty() {
            inbox.turn = false;
            None
        } else {
            Some(inbox.take(TURN))
        };
        inbox.taken += batch.as_ref().map_or(0, Vec::len) as u64;
        drop(inbox);
        self.moved.notify_waiters();
        batch
    }

    /// Waits until the inbox has space.
    pub(super) fn space(self: &Arc<Self>, limit: usize) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let room = self.clone();
        Box::pin(async move { room.until(|inbox| inbox.bytes <= limit).await })
    }

    /// Waits until everything that was put in by now has been handed to every seat; nothing where that is so already. A
    /// seat that was given up before hears nothing more of the room afterwards.
    pub fn settled(self: &Arc<Self>) -> Option<Pin<Box<dyn Future<Output = ()> + Send>>> {
        let by_now = {
            let inbox = self.inbox.lock();
            (inbox.handed < inbox.put).then_some(inbox.put)
        }?;
        let room = self.clone();
        Some(Box::pin(async move { room.until(|inbox| inbox.handed >= by_now).await }))
    }

    async fn until(&self, holds: impl Fn(&Inbox) -> bool) {
        loop {
            // Made before the look at the inbox, it is told of a change that comes between the two.
            let moved = self.moved.notified();
            if holds(&self.inbox.lock()) {
                return;
            }
            moved.await;
        }
    }
}

impl Inbox {
    /// Takes from the front publications of `bytes` together, at least one.
    fn take(&mut self, bytes: usize) -> Vec<Publication> {
        if self.bytes <= bytes {
            self.bytes = 0;
            return std::mem::take(&mut self.waiting);
        }
        let mut taken = 0;
        let fits = self.waiting.iter().take_while(|publication| {
            let first = taken == 0;
            taken += cost(publication);
            first || taken <= bytes
        });
        let count = fits.count();
        let batch: Vec<_> = self.waiting.drain(..count).collect();
        self.bytes -= batch.iter().map(cost).sum::<usize>();
        batch
    }
}

fn cost(publication: &Publication) -> usize {
    let info = publication.info.as_ref().map_or(0, |info| info.conn_info.len() + info.chan_info.len());
    publication.data.len() + info + OVERHEAD
}

#[cfg(test)]
mod tests {
    //! Seats, the inbox and the turn, at the places where threads meet.

    use std::{thread, time::Duration};

    use bytes::Bytes;
    use proptest::prelude::*;
    use tokio::runtime::Runtime;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::{
        hub::{Jobs, fanout, outbox::tests::Script},
        metrics::Metrics,
    };

    fn room() -> Arc<Room> {
        Arc::new(Room::new(Arc::from("room")))
    }

    fn seat() -> Seat {
        Seat { outbox: Arc::new(Outbox::new(Script::default(), usize::MAX)), wire: Wire::JsonWebSocket }
    }

    fn publication(length: usize) -> Publication {
        Publication { data: vec![b'1'; length].into(), ..Publication::default() }
    }

    /// A join may copy a segment of seats, and each connection has an outbox: both are kept small.
    #[test]
    fn what_there_are_many_of_is_small() {
        let sizes = (size_of::<Seat>(), size_of::<SeatId>(), size_of::<Outbox<()>>());
        assert!(sizes.0 <= 24 && sizes.1 <= 4 && sizes.2 <= 128, "{sizes:?}");
    }

    #[test]
    fn seats_fill_segments_and_free_places_are_taken_again() {
        let room = room();
        let seats: Vec<_> = (0..=SEGMENT * 2).map(|_| seat()).collect();
        let ids: Vec<_> = seats.iter().map(|seat| room.add(seat.clone())).collect();
        let lengths = || room.snapshot().iter().map(|segment| segment.len()).collect::<Vec<_>>();
        assert_eq!(lengths(), [SEGMENT, SEGMENT, 1]);
        assert!(room.remove(ids[5], &seats[5].outbox));
        assert!(!room.remove(ids[5], &seats[5].outbox), "a seat is given up once");
        assert!(!room.remove(SeatId { segment: 9 }, &seats[6].outbox));
        assert_eq!(room.add(seats[5].clone()).segment, 0);
        for (id, seat) in ids.iter().zip(&seats) {
            assert!(room.remove(*id, &seat.outbox));
        }
        assert!(room.is_empty());
        let kept: usize = room.snapshot().iter().map(|segment| segment.capacity()).sum();
        assert!(kept < 64, "memory for {kept} seats is kept");
    }

    proptest! {
        /// What goes in comes out in order, in turns that are bounded unless one publication is larger, and the count of
        /// bytes follows.
        #[test]
        fn turns_take_everything_in_order(
            lengths in proptest::collection::vec(prop_oneof![1..2000_usize, 60_000..70_000_usize], 1..120),
        ) {
            let room = room();
            for (place, length) in lengths.iter().enumerate() {
                let (put, full) = room.put(publication(*length), 100_000);
                prop_assert_eq!(matches!(put, Put::YourTurn), place == 0);
                prop_assert_eq!(full, lengths[..=place].iter().map(|length| length + OVERHEAD).sum::<usize>() > 100_000);
            }
            let mut taken = Vec::new();
            while let Some(batch) = room.take_batch() {
                prop_assert!(batch.len() == 1 || batch.iter().map(cost).sum::<usize>() <= TURN);
                taken.extend(batch.iter().map(|publication| publication.data.len()));
            }
            prop_assert_eq!(taken, lengths);
            prop_assert_eq!(room.inbox.lock().bytes, 0);
            prop_assert!(matches!(room.put(publication(1), 1).0, Put::YourTurn), "the turn ended");
        }
    }

    #[tokio::test]
    async fn whoever_waits_for_space_is_told_when_a_turn_makes_it() {
        const LIMIT: usize = 100_000;
        let room = room();
        while !room.put(publication(1000), LIMIT).1 {}
        let waiting: Vec<_> = (0..3).map(|_| tokio::spawn(room.space(LIMIT))).collect();
        tokio::task::yield_now().await;
        assert!(waiting.iter().all(|waiting| !waiting.is_finished()));
        room.take_batch();
        for waiting in waiting {
            tokio::time::timeout(Duration::from_secs(10), waiting).await.expect("it is told").unwrap();
        }
        tokio::time::timeout(Duration::from_secs(10), room.space(LIMIT)).await.expect("there is space already");
    }

    /// A client sits down and something is said to it while another thread has the turn and has looked at the room
    /// already. The locks of the room are held here so that the other one stops at each.
    #[test]
    fn a_seat_taken_during_a_turn_hears_what_is_said_after_it() {
        let runtime = Runtime::new().unwrap();
        let jobs =
            Arc::new(Jobs { metrics: Arc::new(Metrics::new()), tracker: TaskTracker::new(), inbox_limit: usize::MAX });
        let room = room();
        let script = Arc::new(Outbox::new(Script::default(), usize::MAX));
        thread::scope(|scope| {
            let mut seats = room.seats.lock();
            scope.spawn(|| {
                let _inside = runtime.enter();
                fanout::deliver(&room, publication(1), &jobs);
            });
            let mut inbox = loop {
                let inbox = room.inbox.lock();
                if inbox.turn {
                    break inbox;
                }
                drop(inbox);
                thread::yield_now();
            };
            // The other one goes on to where it takes its batch. However far it comes, the seat must be heard.
            parking_lot::MutexGuard::unlocked(&mut seats, || thread::sleep(Duration::from_millis(50)));
            seats.push(Arc::new(vec![Seat { outbox: script.clone(), wire: Wire::JsonWebSocket }]));
            inbox.waiting.push(Publication { data: Bytes::from_static(b"42"), ..Publication::default() });
            inbox.bytes += OVERHEAD + 2;
        });
        let said = script.socket().said();
        let said = String::from_utf8_lossy(&said);
        assert!(said.contains(r#""data":42"#), "heard only {said:?}");
    }
}
