//! The hot path: what waits in a room's inbox, joined, to every outbox. Whoever finds the room idle takes its turn, and only
//! the holder of the turn delivers, so that order stands and batches grow by themselves under load.

use std::{sync::Arc, time::Duration};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use roomcast_shared::event::Event;

use super::{
    Delivered, Outbox, Seat, SlowPolicy,
    joined::{Buffer, Joined},
    position::Runs,
    room::{Put, Room},
    seats::{Hearing, Segments},
};

/// Up to this many seats the caller delivers itself: that costs less than handing the work to a task.
const SEATS_SERVED_BY_CALLER: usize = 4;

/// How long a job waits after a turn that carried several publications, so that the next one gathers more: it saves writes
/// where there are many, and a quiet room never waits.
const GATHERING_PAUSE: Duration = Duration::from_millis(1);

/// Puts an event into the room's inbox and sees to it that somebody delivers it.
pub(super) fn deliver(room: &Arc<Room>, event: Event) -> Delivered {
    let limit = room.jobs.inbox_limit;
    let (put, full) = room.put(event, limit);
    if let Put::YourTurn = put {
        take_turn(room);
    }
    if !full {
        return Delivered::Taken;
    }
    Delivered::Full(room.space(limit))
}

fn take_turn(room: &Arc<Room>) {
    if room.len() > SEATS_SERVED_BY_CALLER {
        room.jobs.tracker.spawn(job(room.clone()));
        return;
    }
    // One turn is the caller's; if others add to it meanwhile, a job goes on, so that no caller is kept for long.
    if let Some(batch) = room.take_batch() {
        for run in Runs::new(batch) {
            // The seats are looked at after the batch is taken: it may hold what was said after somebody sat down just now.
            let (joined, segments) = begin(run, room);
            for seats in &segments {
                hand_out(&joined, seats, room);
            }
        }
    }
    if let Some(batch) = room.take_batch() {
        room.jobs.tracker.spawn(job_from(batch, room.clone()));
    }
}

async fn job(room: Arc<Room>) {
    if let Some(batch) = room.take_batch() {
        job_from(batch, room).await;
    }
}

async fn job_from(mut batch: Vec<Event>, room: Arc<Room>) {
    loop {
        let several = batch.len() > 1;
        for run in Runs::new(batch) {
            turn(run, &room).await;
        }
        if several {
            tokio::time::sleep(GATHERING_PAUSE).await;
        } else {
            tokio::task::yield_now().await;
        }
        match room.take_batch() {
            Some(next) => batch = next,
            None => return,
        }
    }
}

/// Delivers one run. Further segments of a large room are walked through by tasks of their own, and the turn ends with the
/// last of them.
async fn turn(run: Vec<Event>, room: &Arc<Room>) {
    let (joined, segments) = begin(run, room);
    if let [seats] = &segments[..] {
        return hand_out(&joined, seats, room);
    }
    let joined = Arc::new(joined);
    let others: Vec<_> = segments
        .into_iter()
        .map(|seats| {
            let (joined, room) = (joined.clone(), room.clone());
            room.clone().jobs.tracker.spawn(async move { hand_out(&joined, &seats, &room) })
        })
        .collect();
    for other in others {
        let _ = other.await;
    }
}

/// Settles who hears a run, and tells those who do not hear it as the others do.
fn begin(run: Vec<Event>, room: &Arc<Room>) -> (Joined, Segments) {
    let run = Arc::new(run);
    let turn = room.begin(&run);
    let joined = Joined::new(room.name().clone(), run, &turn);
    hand_to_late(&joined, &turn.late, room);
    (joined, turn.segments)
}

/// The loop: a reference to the joined bytes into each outbox, and nothing else.
fn hand_out(joined: &Joined, seats: &[Seat], room: &Room) {
    let mut sum = Sum::default();
    for seat in seats {
        let buffer = joined.buffer(seat);
        sum.add(buffer);
        hand(buffer, seat, room, &mut sum);
    }
    sum.count(room);
}

/// The same for those who hear the room in a form of their own; where several hear the same, it is made once.
fn hand_to_late(joined: &Joined, late: &[Hearing], room: &Room) {
    if late.is_empty() {
        return;
    }
    let mut sum = Sum::default();
    let mut made: HashMap<_, Box<Buffer>, RandomState> = HashMap::default();
    for hearing in late {
        let seat = &hearing.seat;
        let kind = (seat.wire as u8, seat.join_leave, seat.group, hearing.after, hearing.session);
        let buffer = made.entry(kind).or_insert_with(|| joined.own_buffer(hearing));
        sum.add(buffer);
        hand(buffer, seat, room, &mut sum);
    }
    sum.count(room);
}

/// Tells one seat.
#[inline]
fn hand(buffer: &Buffer, seat: &Seat, room: &Room, sum: &mut Sum) {
    if buffer.bytes.is_empty() {
        // Nothing of it is for this kind of seat.
    } else if seat.slow == SlowPolicy::Close {
        seat.outbox.push(&buffer.bytes);
    } else {
        hand_gently(buffer, seat, room, sum);
    }
    if let Some(disconnect) = &buffer.then_close {
        seat.outbox.close(disconnect.clone());
    }
}

/// Tells a seat that is not closed when its connection reads too slowly.
fn hand_gently(buffer: &Buffer, seat: &Seat, room: &Room, sum: &mut Sum) {
    if seat.slow == SlowPolicy::Resync {
        if !seat.outbox.offer(&buffer.bytes) {
            sum.refused.push(seat.outbox.clone());
        }
        return;
    }
    if !buffer.moves.is_empty() {
        // Of these every one is told, so that they go apart from the publications.
        seat.outbox.push(&buffer.moves);
    }
    if !buffer.newest.is_empty() {
        let newest = buffer.bytes.slice(buffer.newest.clone());
        let all = if buffer.moves.is_empty() { &buffer.bytes } else { &newest };
        let skipped = seat.outbox.push_newest(room.tag(), all, &newest);
        sum.skipped += u64::from(skipped);
    }
}

/// What is counted after the loop.
#[derive(Default)]
struct Sum {
    publications: usize,
    bytes: usize,
    skipped: u64,
    /// Those that were not told, because too much would have waited for them.
    refused: Vec<Arc<Outbox>>,
}

impl Sum {
    #[inline]
    fn add(&mut self, buffer: &Buffer) {
        self.publications += buffer.publications;
        self.bytes += buffer.bytes.len();
    }

    fn count(self, room: &Room) {
        let metrics = &room.jobs.metrics;
        metrics.deliveries.inc_by(self.publications as u64);
        metrics.delivered_bytes.inc_by(self.bytes as u64);
        if self.skipped > 0 {
            metrics.slow_skipped.inc_by(self.skipped);
        }
        room.refuse(self.refused);
    }
}

#[cfg(test)]
mod tests {
    //! Publishers, seats and jobs on several threads at once: nothing is lost, doubled or out of order.

    use std::{
        collections::HashMap,
        io::{self, ErrorKind, IoSlice},
    };

    use bytes::Bytes;
    use parking_lot::Mutex;
    use roomcast_shared::publication::Publication;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::{
        hub::{Deliver, Hub, Outbox, Sink, Wire},
        metrics::Metrics,
    };

    const PATIENCE: Duration = Duration::from_secs(20);

    /// A sink that keeps everything.
    #[derive(Default)]
    struct Ear(Mutex<Vec<u8>>);

    impl Sink for Ear {
        fn try_write(&self, bytes: &[IoSlice<'_>]) -> io::Result<usize> {
            let mut heard = self.0.lock();
            let before = heard.len();
            for slice in bytes {
                heard.extend_from_slice(slice);
            }
            if heard.len() == before { Err(ErrorKind::InvalidInput.into()) } else { Ok(heard.len() - before) }
        }
    }

    type Listener = Arc<Outbox<Ear>>;

    fn listener() -> Listener {
        Arc::new(Outbox::new(Ear::default(), usize::MAX))
    }

    fn sit(hub: &Hub, room: &Room, outbox: &Listener) {
        hub.join(room, Seat::new(outbox.clone(), Wire::JsonWebSocket));
    }

    /// The data of what it heard, in order: publisher and number.
    fn heard(outbox: &Listener) -> Vec<(u32, u32)> {
        let bytes = outbox.socket().0.lock().clone();
        let mut rest = &bytes[..];
        let mut all = Vec::new();
        while let [0x81, length, after @ ..] = rest {
            let (frame, after) = after.split_at(usize::from(*length));
            let reply: serde_json::Value = serde_json::from_slice(frame).unwrap();
            let [from, number] = serde_json::from_value(reply["push"]["pub"]["data"].clone()).unwrap();
            all.push((from, number));
            rest = after;
        }
        assert!(rest.is_empty(), "a frame is torn");
        all
    }

    fn publication(from: u32, number: u32) -> Publication {
        Publication { data: Bytes::from(format!("[{from},{number}]")), ..Publication::default() }
    }

    fn hub(inbox: usize) -> Arc<Hub> {
        Arc::new(Hub::new(inbox, Arc::new(Metrics::new()), TaskTracker::new()))
    }

    async fn publish(hub: &Hub, room: &str, publication: Publication) {
        if let Delivered::Full(space) = hub.deliver(room, publication.into()) {
            tokio::time::timeout(PATIENCE, space).await.expect("a publisher that waits is told of space");
        }
    }

    async fn until(what: &str, holds: impl Fn() -> bool) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !holds() {
            assert!(tokio::time::Instant::now() < deadline, "never came: {what}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn assert_all_in_order(outbox: &Listener, publishers: u32, each: u32) {
        let mut next: HashMap<u32, u32> = HashMap::new();
        for (from, number) in heard(outbox) {
            let next = next.entry(from).or_default();
            assert_eq!(number, *next, "from {from}");
            *next += 1;
        }
        assert!(next.len() == publishers as usize && next.values().all(|count| *count == each), "{next:?}");
    }

    /// Several publishers at a room of that many seats, the inbox of which holds a few publications only.
    async fn publishers_at(seats: usize, publishers: u32, each: u32) {
        let hub = hub(1000);
        let room = hub.open("room");
        let listeners: Vec<_> = (0..seats).map(|_| listener()).collect();
        for outbox in &listeners {
            sit(&hub, &room, outbox);
        }
        let tasks = (0..publishers).map(|from| {
            let hub = hub.clone();
            tokio::spawn(async move {
                for number in 0..each {
                    publish(&hub, "room", publication(from, number)).await;
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
        let total = u64::from(publishers) * u64::from(each) * seats as u64;
        until("the last delivery", || hub.jobs.metrics.deliveries.get() == total).await;
        for outbox in &listeners {
            assert_all_in_order(outbox, publishers, each);
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 3)]
    async fn a_small_room_hears_all_in_order() {
        publishers_at(SEATS_SERVED_BY_CALLER, 4, 1_500).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 3)]
    async fn a_room_served_by_a_job_hears_all_in_order() {
        publishers_at(SEATS_SERVED_BY_CALLER + 20, 4, 1_000).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 3)]
    async fn every_seat_of_several_segments_hears_all_once() {
        publishers_at(2048 * 2 + 5, 2, 5).await;
    }

    #[tokio::test]
    async fn a_publication_that_json_cannot_carry_ends_json_clients_only() {
        let hub = hub(usize::MAX);
        let room = hub.open("room");
        let (json, protobuf) = (listener(), listener());
        sit(&hub, &room, &json);
        hub.join(&room, Seat::new(protobuf.clone(), Wire::ProtobufWebSocket));
        hub.deliver("room", Publication { data: Bytes::from_static(b"\xFF"), ..Publication::default() }.into());
        let close = |outbox: &Listener| {
            outbox.attend(&std::task::Context::from_waker(std::task::Waker::noop())).close.map(|close| close.code)
        };
        assert_eq!((close(&json), close(&protobuf)), (Some(3506), None));
        assert!(protobuf.socket().0.lock().contains(&0xFF));
    }

    #[test]
    fn a_room_that_is_not_there_takes_nothing() {
        assert!(matches!(hub(1).deliver("nowhere", publication(0, 0).into()), Delivered::NoRoom));
    }
}
