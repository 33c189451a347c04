//! One room: its seats, and the inbox in which events gather while others are being delivered. Knows no clients and no
//! broker.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use parking_lot::{Mutex, MutexGuard};
use roomcast_shared::{event::Event, position::Position, publication::ClientInfo};
use tokio::sync::Notify;

use super::{
    Aside, GroupId, GroupKey, Jobs, Mail, Outbox, Seat, SeatId,
    position::Run,
    seats::{Seats, Turn},
};

/// Bytes of events that one turn takes from the inbox.
const TURN: usize = 64 * 1024;

/// What an event costs in an inbox beside its payload.
const OVERHEAD: usize = 256;

/// A room of this node.
pub struct Room {
    name: Arc<str>,
    /// Names the room in outboxes; never 0.
    tag: u32,
    pub(super) jobs: Arc<Jobs>,
    inbox: Mutex<Inbox>,
    pub(super) seats: Mutex<Seats>,
    /// Told when a turn has taken or delivered something.
    moved: Notify,
}

#[derive(Default)]
struct Inbox {
    waiting: Vec<Event>,
    bytes: usize,
    /// Somebody delivers for this room just now, and only that one does.
    turn: bool,
    /// How many events were ever put in, taken out, and handed to every seat.
    put: u64,
    taken: u64,
    handed: u64,
    /// Comparisons with the history that wait until what was put in before them is handed out.
    checks: Vec<Check>,
    /// Somebody waits for the next turn to take or deliver something.
    watched: bool,
}

struct Check {
    /// So many events were put in before.
    put: u64,
    before: Option<Position>,
    top: Position,
}

/// What became of an event put into an inbox.
pub(super) enum Put {
    /// Somebody else delivers it.
    Waits,
    /// The same, and the inbox is full by it.
    Full,
    /// It does not wait: the caller has the turn now. It must deliver this, and then until [`Room::take_batch`] gives
    /// nothing.
    YourTurn,
}

impl Room {
    pub(super) fn new(name: Arc<str>, jobs: Arc<Jobs>) -> Self {
        static TAGS: AtomicU32 = AtomicU32::new(1);
        // Tags come round after four thousand million rooms; what waits in an outbox is long said then.
        let tag = TAGS.fetch_add(1, Ordering::Relaxed).max(1);
        Self { name, tag, jobs, inbox: Mutex::default(), seats: Mutex::default(), moved: Notify::new() }
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(super) fn tag(&self) -> u32 {
        self.tag
    }

    /// How many seats it has.
    pub fn len(&self) -> usize {
        self.seats.lock().len()
    }

    /// Whether nobody sits in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The ways out of all its seats, as they are now.
    pub fn outboxes(&self) -> Vec<Arc<Outbox>> {
        self.seats.lock().outboxes()
    }

    /// The furthest place in its history that anybody in the room has been handed, or has taken its seat with; nothing where
    /// there was no such place yet.
    pub fn position(&self) -> Option<Position> {
        self.seats.lock().furthest()
    }

    /// Whether the position of anybody in the room is watched, or somebody reads the history beside it and may be about to
    /// take such a seat.
    pub fn has_positioned(&self) -> bool {
        self.seats.lock().has_positioned()
    }

    /// Whether the seat is still taken.
    pub fn holds(&self, id: SeatId, outbox: &Arc<Outbox>) -> bool {
        self.seats.lock().holds(id, outbox)
    }

    /// Opens a place aside: what is handed out from now on gathers there, up to so many bytes, for whoever is about to take a
    /// seat.
    pub fn aside(self: &Arc<Self>, limit: usize) -> Aside {
        Aside::new(self.clone(), limit)
    }

    /// The group of those who hear the room in this way. It counts one seat more: each call is followed by one seat of that
    /// group, in which it ends, or by [`Room::leave_group`]. Nothing where the room has too many groups already.
    pub fn group(&self, key: GroupKey) -> Option<GroupId> {
        self.seats.lock().enter_group(key)
    }

    /// The seat for which the group was asked is not taken.
    pub fn leave_group(&self, id: GroupId) {
        self.seats.lock().leave_group(id);
    }

    /// Compares the positions of all seats with the top of the room's history. Whoever missed something, or has heard of what
    /// the history lost, is taken out and told [`Mail::Lost`]; the answer is how many, so far as that is known at once: what
    /// waits to be delivered is delivered before the comparison.
    ///
    /// `before` is what [`Room::position`] said before the history was asked for `top`, and the broker has caught up after
    /// that: whatever the history had up to `top` has been handed to the hub.
    pub fn check(&self, before: impl Into<Option<Position>>, top: Position) -> usize {
        let before = before.into();
        {
            let mut inbox = self.inbox.lock();
            if inbox.handed < inbox.put {
                let put = inbox.put;
                inbox.checks.push(Check { put, before, top });
                return 0;
            }
        }
        self.check_now(before, top)
    }

    fn check_now(&self, before: Option<Position>, top: Position) -> usize {
        let lost = self.seats.lock().check(before, top);
        let count = lost.len();
        self.tell_lost(lost);
        count
    }

    /// Takes out seats that would not be told something because their connections read too slowly.
    pub(super) fn refuse(&self, refused: Vec<Arc<Outbox>>) {
        for outbox in refused {
            if self.seats.lock().remove_wherever(&outbox) {
                self.jobs.metrics.subscriptions.dec();
                self.jobs.metrics.slow_resynced.inc();
                outbox.tell(Mail::Slow { room: self.name.clone() });
            }
        }
    }

    /// Tells those who were taken out.
    pub(super) fn tell_lost(&self, lost: Vec<Seat>) {
        if lost.is_empty() {
            return;
        }
        let count = i64::try_from(lost.len()).expect("seats are far fewer than 2^63");
        self.jobs.metrics.subscriptions.sub(count);
        self.jobs.metrics.positions_lost.inc_by(lost.len() as u64);
        for seat in lost {
            seat.outbox.tell(Mail::Lost { room: self.name.clone() });
        }
    }

    /// Begins to hand out a run of events, in the history of which there is no break. Nothing has begun where more seats
    /// than `most` are taken.
    pub(super) fn begin(&self, run: &[Event], most: usize) -> Option<Turn> {
        let excluded = self.jobs.excluded(run);
        let mut seats = self.seats.lock();
        if seats.len() > most {
            return None;
        }
        let mut turn = seats.begin(run, &excluded);
        drop(seats);
        self.tell_lost(std::mem::take(&mut turn.lost));
        Some(turn)
    }

    /// Puts events last, or leaves them where they are, to be delivered by the caller, if nobody delivers.
    pub(super) fn put(&self, events: &mut Run, limit: usize) -> Put {
        let mut inbox = self.inbox.lock();
        inbox.put += events.len() as u64;
        if !std::mem::replace(&mut inbox.turn, true) {
            inbox.taken += events.len() as u64;
            return Put::YourTurn;
        }
        inbox.bytes += events.iter().map(cost).sum::<usize>();
        inbox.waiting.extend(events.drain(..));
        if inbox.bytes > limit { Put::Full } else { Put::Waits }
    }

    /// What the holder of the turn delivers next; nothing, and the turn ends, when the inbox is empty. Whoever asks has
    /// handed what it took before to every seat.
    pub(super) fn take_batch(&self) -> Option<Vec<Event>> {
        loop {
            let mut inbox = self.inbox.lock();
            inbox.handed = inbox.taken;
            let due = inbox.due_checks();
            if !due.is_empty() {
                drop(inbox);
                for check in due {
                    self.check_now(check.before, check.top);
                }
                continue;
            }
            let batch = if inbox.waiting.is_empty() {
                inbox.turn = false;
                None
            } else {
                Some(inbox.take(TURN, 1))
            };
            self.tell(inbox);
            return batch;
        }
    }

    /// Adds to a batch, of which nothing is handed out yet, what was put in behind it, up to what one turn takes.
    pub(super) fn gather(&self, batch: &mut Vec<Event>) {
        let mut inbox = self.inbox.lock();
        let space = TURN.saturating_sub(batch.iter().map(cost).sum());
        batch.append(&mut inbox.take(space, 0));
        self.tell(inbox);
    }

    /// Tells whoever waits for it that something was taken or delivered.
    fn tell(&self, mut inbox: MutexGuard<'_, Inbox>) {
        let watched = std::mem::take(&mut inbox.watched);
        drop(inbox);
        if watched {
            self.moved.notify_waiters();
        }
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
            {
                let mut inbox = self.inbox.lock();
                if holds(&inbox) {
                    return;
                }
                inbox.watched = true;
            }
            moved.await;
        }
    }
}

impl Inbox {
    /// Takes from the front events of `bytes` together, of those that there are at least as many as `least`.
    fn take(&mut self, bytes: usize, least: usize) -> Vec<Event> {
        let batch = if self.bytes <= bytes {
            std::mem::take(&mut self.waiting)
        } else {
            let mut taken = 0;
            let fits = self.waiting.iter().take_while(|event| {
                taken += cost(event);
                taken <= bytes
            });
            let count = fits.count().max(least);
            self.waiting.drain(..count).collect()
        };
        self.bytes -= batch.iter().map(cost).sum::<usize>();
        self.taken += batch.len() as u64;
        batch
    }

    fn due_checks(&mut self) -> Vec<Check> {
        if self.checks.is_empty() {
            return Vec::new();
        }
        let handed = self.handed;
        self.checks.extract_if(.., |check| check.put <= handed).collect()
    }
}

/// What an event counts for where events wait.
pub(super) fn cost(event: &Event) -> usize {
    let said = |info: &ClientInfo| info.conn_info.len() + info.chan_info.len();
    let payload = match event {
        Event::Publication(event) => event.publication.data.len() + event.publication.info.as_ref().map_or(0, said),
        Event::Join(info) | Event::Leave(info) => said(info),
    };
    payload + OVERHEAD
}

#[cfg(test)]
mod tests {
    //! Seats, the inbox and the turn, at the places where threads meet.

    use std::{
        thread,
        time::{Duration, Instant},
    };

    use bytes::Bytes;
    use proptest::prelude::*;
    use roomcast_shared::publication::Publication;
    use tokio::runtime::Runtime;

    use super::*;
    use crate::hub::{Wire, fanout, outbox::tests::Script};

    fn room() -> Arc<Room> {
        Arc::new(Room::new(Arc::from("room"), Arc::new(Jobs::idle())))
    }

    fn publication(length: usize) -> Event {
        Publication { data: vec![b'1'; length].into(), ..Publication::default() }.into()
    }

    fn put(room: &Room, event: Event, limit: usize) -> Put {
        room.put(&mut Run::from_buf([event]), limit)
    }

    fn length(event: &Event) -> usize {
        cost(event) - OVERHEAD
    }

    /// A join may copy a segment of seats, and each connection has an outbox: both are kept small.
    #[test]
    fn what_there_are_many_of_is_small() {
        let sizes = (size_of::<Seat>(), size_of::<SeatId>(), size_of::<Outbox<()>>());
        assert!(sizes.0 <= 24 && sizes.1 <= 4 && sizes.2 <= 128, "{sizes:?}");
    }

    proptest! {
        /// What goes in comes out in order, in turns that are bounded unless one publication is larger, and the count of
        /// bytes follows.
        #[test]
        fn turns_take_everything_in_order(
            lengths in proptest::collection::vec(prop_oneof![1..2000_usize, 60_000..70_000_usize], 1..120),
        ) {
            let room = room();
            let mut taken = Vec::new();
            for (place, length) in lengths.iter().enumerate() {
                let full = lengths[1..=place.max(1).min(lengths.len() - 1)].iter().map(|length| length + OVERHEAD);
                let full = place > 0 && full.sum::<usize>() > 100_000;
                let mut run = Run::from_buf([publication(*length)]);
                match room.put(&mut run, 100_000) {
                    Put::YourTurn => taken.extend(run.iter().map(self::length)),
                    put => prop_assert_eq!(matches!(put, Put::Full), full),
                }
                prop_assert_eq!(taken.len(), 1, "only the first one finds the room idle");
            }
            while let Some(batch) = room.take_batch() {
                prop_assert!(batch.len() == 1 || batch.iter().map(cost).sum::<usize>() <= TURN);
                taken.extend(batch.iter().map(length));
            }
            prop_assert_eq!(taken, lengths);
            prop_assert_eq!(room.inbox.lock().bytes, 0);
            prop_assert!(matches!(put(&room, publication(1), 1), Put::YourTurn), "the turn ended");
        }
    }

    /// Of what comes before a job has begun, one turn is made.
    #[test]
    fn a_batch_gathers_what_was_put_in_behind_it() {
        let room = room();
        for (first, behind, gathered) in
            [(1, vec![], 0), (1, vec![2, 3], 2), (70_000, vec![2], 0), (1, vec![65_000, 1], 1)]
        {
            let mut run = Run::from_buf([publication(first)]);
            assert!(matches!(room.put(&mut run, usize::MAX), Put::YourTurn));
            for length in &behind {
                assert!(matches!(put(&room, publication(*length), usize::MAX), Put::Waits));
            }
            let mut batch = run.into_vec();
            room.gather(&mut batch);
            let wanted: Vec<_> = [first].iter().chain(&behind[..gathered]).copied().collect();
            assert_eq!(batch.iter().map(length).collect::<Vec<_>>(), wanted);
            let rest: Vec<_> = std::iter::from_fn(|| room.take_batch()).flatten().map(|event| length(&event)).collect();
            assert_eq!(rest, behind[gathered..], "what did not fit comes next");
            let inbox = room.inbox.lock();
            assert_eq!((inbox.bytes, inbox.handed, inbox.taken), (0, inbox.put, inbox.put));
        }
    }

    #[tokio::test]
    async fn whoever_waits_for_space_is_told_when_a_turn_makes_it() {
        const LIMIT: usize = 100_000;
        let room = room();
        while !matches!(put(&room, publication(1000), LIMIT), Put::Full) {}
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
        let room = room();
        let script = Arc::new(Outbox::new(Script::default(), usize::MAX));
        thread::scope(|scope| {
            let mut seats = room.seats.lock();
            scope.spawn(|| {
                let _inside = runtime.enter();
                fanout::deliver(&room, publication(1));
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
            MutexGuard::unlocked(&mut seats, || thread::sleep(Duration::from_millis(50)));
            seats.add(Seat::new(script.clone(), Wire::JsonWebSocket));
            inbox.waiting.push(Publication { data: Bytes::from_static(b"42"), ..Publication::default() }.into());
            inbox.bytes += OVERHEAD + 2;
        });
        let said = || String::from_utf8_lossy(&script.socket().said()).into_owned();
        let deadline = Instant::now() + Duration::from_secs(20);
        while !said().contains(r#""data":42"#) {
            assert!(Instant::now() < deadline, "heard only {:?}", said());
            thread::sleep(Duration::from_millis(2));
        }
    }
}
