//! The hot path: what waits in a room's inbox, joined, to every outbox. Whoever finds the room idle takes its turn, and only
//! the holder of the turn delivers, so that order stands and batches grow by themselves under load.

use std::{sync::Arc, time::Duration};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use roomcast_shared::event::Event;

use super::{
    Delivered, Outbox, Seat, SlowPolicy,
    joined::{Buffer, Joined},
    position::{Run, Runs},
    room::{Put, Room},
    seats::{Hearing, Turn},
};

/// Up to this many seats the caller delivers itself: that costs less than handing the work to a task.
const SEATS_SERVED_BY_CALLER: usize = 4;

/// How long a job waits after a turn that carried several publications, so that the next one gathers more: it saves writes
/// where there are many, and a quiet room never waits.
const GATHERING_PAUSE: Duration = Duration::from_millis(1);

/// Puts an event into the room's inbox and sees to it that somebody delivers it.
pub(super) fn deliver(room: &Arc<Room>, event: Event) -> Delivered {
    let limit = room.jobs.inbox_limit;
    let mut run = Run::from_buf([event]);
    match room.put(&mut run, limit) {
        Put::Waits => {}
        Put::Full => return Delivered::Full(room.space(limit)),
        Put::YourTurn => take_turn(run, room),
    }
    Delivered::Taken
}

/// One turn is the caller's in a small room. If others add to it meanwhile, a job goes on, so that no caller is kept for long.
fn take_turn(run: Run, room: &Arc<Room>) {
    let Some(turn) = room.begin(&run, SEATS_SERVED_BY_CALLER) else {
        room.jobs.tracker.spawn(job(run, room.clone()));
        return;
    };
    hand_to_all(&Joined::new(run, &turn, room.jobs.compress_from), &turn, room);
    if let Some(batch) = room.take_batch() {
        room.jobs.tracker.spawn(job_from(batch, room.clone()));
    }
}

/// What came since the room was found idle goes with what found it so.
async fn job(run: Run, room: Arc<Room>) {
    let mut batch = run.into_vec();
    room.gather(&mut batch);
    job_from(batch, room).await;
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
async fn turn(run: Run, room: &Arc<Room>) {
    let turn = begin(&run, room);
    let joined = Joined::new(run, &turn, room.jobs.compress_from);
    if turn.segments.len() <= 1 {
        return hand_to_all(&joined, &turn, room);
    }
    hand_to_late(&joined, &turn.late, room);
    let joined = Arc::new(joined);
    let others: Vec<_> = turn
        .segments
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

/// Settles who hears a run.
pub(super) fn begin(run: &[Event], room: &Room) -> Turn {
    room.begin(run, usize::MAX).expect("no room has more seats than that")
}

/// Tells everybody, one after the other.
pub(super) fn hand_to_all(joined: &Joined, turn: &Turn, room: &Room) {
    hand_to_late(joined, &turn.late, room);
    for seats in &turn.segments {
        hand_out(joined, seats, room);
    }
}

/// The loop: a reference to the joined bytes into each outbox, and nothing else.
fn hand_out(joined: &Joined, seats: &[Seat], room: &Room) {
    let mut sum = Sum::default();
    for seat in seats {
        let buffer = joined.buffer(seat, room.name());
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
    let mut made: HashMap<_, Buffer, RandomState> = HashMap::default();
    for hearing in late {
        let seat = &hearing.seat;
        let kind = (seat.wire as u8, seat.join_leave, seat.group, hearing.after, hearing.session);
        let buffer = made.entry(kind).or_insert_with(|| joined.own_buffer(hearing, room.name()));
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
    use roomcast_shared::{
        event::Said,
        publication::{ClientInfo, Publication},
    };
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::{
        hub::{Deliver, Hub, Mail, Sink, Wire, outbox::tests::Take, testing},
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

    fn client(user: &str) -> ClientInfo {
        ClientInfo { user: user.to_owned(), ..ClientInfo::default() }
    }

    #[test]
    fn who_comes_and_goes_is_told_to_those_who_asked_in_order() {
        let hub = testing::hub();
        let room = hub.open("room");
        let (asked, others, protobuf) = (testing::listener(), testing::listener(), testing::listener());
        hub.join(&room, Seat { join_leave: true, ..testing::seat(&asked) });
        hub.join(&room, testing::seat(&others));
        hub.join(&room, Seat { join_leave: true, wire: Wire::ProtobufWebSocket, ..testing::seat(&protobuf) });
        let said = |number: &str| testing::said(number).into();
        testing::turn(&room, [Event::Join(client("ann")), said("1"), Event::Leave(client("ann")), said("2")]);
        testing::turn(&room, [Event::Join(client("ben"))]);
        let kinds: Vec<_> = testing::heard(&asked)
            .into_iter()
            .map(|message| message["push"].as_object().unwrap().keys().find(|key| *key != "channel").unwrap().clone())
            .collect();
        assert_eq!(kinds, ["join", "pub", "leave", "pub", "join"]);
        assert_eq!(testing::heard(&asked)[0]["push"]["join"]["info"]["user"], "ann");
        assert_eq!(testing::payloads(&others), [1, 2]);
        assert_eq!(testing::heard(&others).len(), 2);
        assert!(protobuf.socket().said().windows(3).any(|bytes| bytes == b"ben"));
        assert_eq!(hub.jobs.metrics.deliveries.get(), 6, "publications are counted, not who comes and goes");
    }

    #[test]
    fn nothing_is_written_where_nothing_is_for_a_seat() {
        let hub = testing::hub();
        let room = hub.open("room");
        // A script that is asked more often than it has lines would take everything.
        let others = testing::slow_listener([Take::Breaks], usize::MAX);
        hub.join(&room, testing::seat(&others));
        testing::turn(&room, [Event::Join(client("ann"))]);
        assert!(!testing::attention(&others).broken);
    }

    #[test]
    fn a_session_that_is_excluded_hears_everything_else() {
        let hub = testing::hub();
        let room = hub.open("room");
        let (speaker, other) = (testing::listener(), testing::listener());
        let client = uuid::Uuid::new_v4();
        hub.sessions.open(client, speaker.clone());
        let id = hub.join(&room, testing::seat(&speaker));
        hub.join(&room, testing::seat(&other));
        let own = |data: &str| Event::from(Said { exclude: Some(client.as_u128()), ..testing::said(data) });
        testing::turn(&room, [own("1"), testing::said("2").into(), own("3")]);
        testing::turn(&room, [testing::said("4").into()]);
        testing::turn(&room, [own("5")]);
        testing::turn(&room, [testing::said("6").into()]);
        assert_eq!(testing::payloads(&speaker), [2, 4, 6]);
        assert_eq!(testing::payloads(&other), [1, 2, 3, 4, 5, 6]);
        let dynamic: Arc<Outbox> = speaker;
        hub.leave(&room, id, &dynamic);
        assert_eq!(room.len(), 1);
        // Whom nobody knows here cannot be excluded.
        let unknown = Said { exclude: Some(7), ..testing::said("7") };
        testing::turn(&room, [unknown.into()]);
        assert_eq!(testing::payloads(&other).len(), 7);
    }

    /// With a position it goes on in the history as if it had heard its own.
    #[test]
    fn a_session_that_is_excluded_keeps_its_position() {
        let hub = testing::hub();
        let room = hub.open("room");
        let speaker = testing::listener();
        let client = uuid::Uuid::new_v4();
        hub.sessions.open(client, speaker.clone());
        let positioned = Seat { positioned: true, ..testing::seat(&speaker) };
        room.aside(1000).sit(positioned, Some(testing::at(0))).unwrap();
        let kept = |offset| testing::kept(testing::at(offset));
        let own = |offset| Event::from(Said { exclude: Some(client.as_u128()), ..kept(offset) });
        testing::turn(&room, [own(1)]);
        testing::turn(&room, [kept(2).into(), own(3)]);
        testing::turn(&room, [kept(4).into()]);
        testing::turn(&room, [own(5)]);
        assert_eq!(testing::payloads(&speaker), [2, 4]);
        assert!(speaker.take_mail().is_empty());
        assert_eq!((room.position(), room.check(room.position(), testing::at(5))), (Some(testing::at(5)), 0));
        testing::turn(&room, [kept(7).into()]);
        assert_eq!(speaker.take_mail(), [Mail::Lost { room: room.name().clone() }]);
    }

    #[test]
    fn a_slow_seat_that_comes_back_is_taken_out_and_what_waits_for_it_is_said() {
        let hub = testing::hub();
        let room = hub.open("room");
        let (slow, other) = (testing::slow_listener([Take::Nothing], 1000), testing::listener());
        hub.join(&room, Seat { slow: SlowPolicy::Resync, ..testing::seat(&slow) });
        hub.join(&room, testing::seat(&other));
        let data = format!("\"{}\"", "x".repeat(200));
        for _ in 0..10 {
            testing::turn(&room, [testing::said(&data).into()]);
        }
        assert_eq!((room.len(), hub.seat_count()), (1, 1));
        assert_eq!(slow.take_mail(), [Mail::Slow { room: room.name().clone() }]);
        assert!(testing::attention(&slow).close.is_none(), "the connection goes on");
        assert!(slow.drain().unwrap());
        let told = testing::payloads(&slow).len();
        assert!((1..10).contains(&told), "{told} were told");
        assert_eq!(testing::payloads(&other).len(), 10);
        assert_eq!(hub.jobs.metrics.slow_resynced.get(), 1);
        slow.push(&Bytes::from_static(b"\x81\x02{}"));
        assert_eq!(testing::heard(&slow).len(), told + 1);
    }

    #[test]
    fn only_the_newest_publication_waits_for_a_slow_seat_that_wants_no_other() {
        let hub = testing::hub();
        let (room, other_room) = (hub.open("room"), hub.open("other"));
        let slow = testing::slow_listener([Take::Nothing], 2000);
        let latest = Seat { slow: SlowPolicy::Latest, ..testing::seat(&slow) };
        hub.join(&room, Seat { join_leave: true, ..latest.clone() });
        hub.join(&other_room, latest);
        testing::turn(&other_room, [testing::said("1000").into()]);
        for number in 0..100 {
            let both = [number * 2, number * 2 + 1].map(|number| testing::said(&number.to_string()).into());
            testing::turn(&room, both);
            if number == 50 {
                slow.write(b"\x81\x02{}");
                testing::turn(&room, [Event::Join(client("ann")), testing::said("7").into()]);
            }
        }
        assert!(testing::attention(&slow).close.is_none());
        assert!(slow.drain().unwrap());
        let told = testing::heard(&slow);
        assert_eq!(testing::payloads(&slow), [1000, 199]);
        assert_eq!((told.len(), &told[1]), (4, &serde_json::json!({})), "in the order in which they came: {told:?}");
        assert_eq!(told[2]["push"]["join"]["info"]["user"], "ann");
        assert_eq!(hub.jobs.metrics.slow_skipped.get(), 101);
        testing::turn(&room, [testing::said("300").into(), testing::said("301").into()]);
        assert_eq!(testing::payloads(&slow)[2..], [300, 301], "while it reads it hears everything");
    }
}
