//! Compares what the rooms of this node were told with what their histories hold, so that whoever missed something is told
//! so: now and then, and at once when the broker is heard again after a loss. Asks for each room once, however many sit in
//! it. Knows no clients.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::{FutureExt, future::join_all};
use roomcast_shared::position::Position;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::Node;
use crate::{
    broker::{Answer, BrokerError, Health, Page, Slice},
    hub::Room,
    metrics::Metrics,
};

/// The least time between two comparisons, so that those of several rooms go together, and between two looks whether the
/// broker is heard again; less where rooms are compared more often than that.
const TICK: Duration = Duration::from_millis(100);

/// How long after a comparison of a room that failed the next one begins: what fails so passes soon.
const PAUSE: Duration = Duration::from_secs(1);

/// The longest such time where the broker refuses to say what the history holds, which doubles each time: most are refused for
/// good, but not those of a broker that is short of memory, say, and only the broker knows which.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// Rooms that are asked for together.
const BATCH: usize = 256;

/// How rooms are watched.
pub struct Watch {
    /// Time between two comparisons of one room; zero for none but those after a loss.
    pub delay: Duration,
    /// How long the counter of a room is remembered after its last use, by the name of the room.
    pub meta_ttl: Box<dyn Fn(&str) -> Duration + Send + Sync>,
    /// Counts comparisons.
    pub metrics: Arc<Metrics>,
}

/// Rooms that are compared one after the other, evenly over the time there is.
struct Round {
    rooms: Vec<Arc<Room>>,
    total: usize,
    began: Instant,
}

/// Rooms of which it is not known whether they missed something, by name: their comparison failed, and is made again.
#[derive(Default)]
struct Failed(HashMap<Arc<str>, Again>);

struct Again {
    room: Arc<Room>,
    at: Instant,
    /// The time from the failure until then.
    pause: Duration,
    /// The broker refused it, and that was told.
    refused: bool,
}

/// The broker was not heard meanwhile: whatever was compared, every room has to be.
#[derive(Debug)]
struct Interrupted;

impl Node {
    /// Watches the positions of this node's rooms, until `stop`.
    pub async fn watch_positions(self: Arc<Self>, watch: Watch, stop: CancellationToken) {
        stop.run_until_cancelled(self.watch(&watch)).await;
    }

    async fn watch(&self, watch: &Watch) {
        let tick = if watch.delay.is_zero() { TICK } else { TICK.min(watch.delay / 4).max(Duration::from_millis(1)) };
        let (mut round, mut failed) = (Round::new(Vec::new()), Failed::default());
        // What is not heard from the start is compared when it is.
        let mut missed = true;
        loop {
            // Where nothing is missed and nothing is due nothing wakes: that would be most of what an idle node does.
            let pause = if missed { tick } else { round.pause(watch.delay).min(failed.pause()).max(tick) };
            tokio::select! {
                () = self.hub.interruption() => {
                    missed = true;
                    // Rooms that move do so one after the other.
                    sleep(tick).await;
                }
                () = sleep(pause) => {}
            }
            if self.health() != Health::Hearing {
                missed = true;
                continue;
            }
            let rooms = if missed { self.all_missed() } else { self.due(&mut round, &mut failed, watch) };
            missed = self.compare_each(&rooms, &mut failed, watch).await.is_err();
        }
    }

    fn all_missed(&self) -> Vec<Arc<Room>> {
        let rooms = self.hub.positioned_rooms();
        tracing::debug!(rooms = rooms.len(), "the broker is heard again: positions are compared");
        rooms
    }

    /// Those whose time has come in the round, or after they failed.
    fn due(&self, round: &mut Round, failed: &mut Failed, watch: &Watch) -> Vec<Arc<Room>> {
        let mut due = failed.due();
        if !watch.delay.is_zero() {
            if round.is_over(watch.delay) {
                *round = Round::new(self.hub.positioned_rooms());
            }
            due.append(&mut round.due(watch.delay));
        }
        due
    }

    /// Compares all of these, whatever becomes of some of them, unless the broker ceases to be heard. Where it was not heard for
    /// a moment all have to be compared once more, since it may be that what was compared before missed something then; but the
    /// last of them come first, or they would never where such moments follow each other.
    async fn compare_each(&self, rooms: &[Arc<Room>], failed: &mut Failed, watch: &Watch) -> Result<(), Interrupted> {
        let mut outcome = Ok(());
        for batch in rooms.chunks(BATCH) {
            self.compare(batch, failed, watch).await;
            if self.health() != Health::Hearing {
                return Err(Interrupted);
            }
            if self.hub.interruption().now_or_never().is_some() {
                outcome = Err(Interrupted);
            }
        }
        outcome
    }

    /// Compares rooms whose histories are asked for together.
    async fn compare(&self, rooms: &[Arc<Room>], failed: &mut Failed, watch: &Watch) {
        let asked: Vec<_> = rooms.iter().map(|room| self.ask_top(room, watch)).collect();
        let tops = join_all(asked.into_iter().map(async |(room, before, top)| (room, before, top.wait().await))).await;
        // What the histories held is on its way to this node, or has come already: only what has not come after this wait
        // is missing.
        let caught_up = self.caught_up().wait().await;
        let mut refused = Vec::new();
        for (room, before, top) in tops {
            match top.and_then(|slice| caught_up.clone().map(|()| slice.top)) {
                Ok(top) => {
                    watch.metrics.position_checks.inc();
                    room.check(before, top);
                    failed.forget(&room);
                }
                Err(error) => refused.extend(failed.put(&room, &error).then_some((room, error))),
            }
        }
        if let Some((room, error)) = refused.first() {
            let rooms = refused.len();
            tracing::warn!(room = %room.name(), rooms, %error, "whether clients missed something here cannot be found out");
        }
    }

    fn ask_top(&self, room: &Arc<Room>, watch: &Watch) -> (Arc<Room>, Option<Position>, Answer<Slice>) {
        // Taken before the history is asked: what is said meanwhile only moves it on. Where nobody has one yet, somebody may be
        // about to take a seat beside what was lost.
        let before = room.position();
        let page = Page { since: None, limit: 0, reverse: false, meta_ttl: (watch.meta_ttl)(room.name()) };
        (room.clone(), before, self.history(room.name(), &page))
    }
}

impl Round {
    fn new(rooms: Vec<Arc<Room>>) -> Self {
        Self { total: rooms.len(), rooms, began: Instant::now() }
    }

    fn is_over(&self, delay: Duration) -> bool {
        self.rooms.is_empty() && self.began.elapsed() >= delay
    }

    /// How long until the next room is due, or the round is over; without end where rooms are never compared.
    fn pause(&self, delay: Duration) -> Duration {
        if delay.is_zero() {
            return Duration::MAX;
        }
        let done = self.total - self.rooms.len();
        #[expect(clippy::cast_precision_loss)]
        let part = if self.rooms.is_empty() { 1.0 } else { done as f64 / self.total as f64 };
        delay.mul_f64(part).saturating_sub(self.began.elapsed())
    }

    /// Those whose time has come.
    fn due(&mut self, delay: Duration) -> Vec<Arc<Room>> {
        let part = self.began.elapsed().as_secs_f64() / delay.as_secs_f64();
        #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let left = (self.total as f64 * (1.0 - part).max(0.0)) as usize;
        self.rooms.split_off(left.min(self.rooms.len()))
    }
}

impl Failed {
    /// Has the room compared again. The answer is whether its history is refused, and was not before.
    fn put(&mut self, room: &Arc<Room>, error: &BrokerError) -> bool {
        let refused = matches!(error, BrokerError::Refused(_));
        let before = self.0.get(&**room.name()).filter(|again| again.refused).map(|again| again.pause);
        let pause = before.filter(|_| refused).map_or(PAUSE, |before| LONGEST_PAUSE.min(before * 2));
        let again =
            Again { room: room.clone(), at: Instant::now() + pause, pause, refused: refused || before.is_some() };
        self.0.insert(room.name().clone(), again);
        refused && before.is_none()
    }

    /// The room has been compared.
    fn forget(&mut self, room: &Room) {
        self.0.remove(&**room.name());
    }

    /// How long until the next of them is due.
    fn pause(&self) -> Duration {
        let next = self.0.values().map(|again| again.at).min();
        next.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()))
    }

    /// Those whose time has come. A room that nobody with a position is in any more is forgotten.
    fn due(&mut self) -> Vec<Arc<Room>> {
        let now = Instant::now();
        self.0.retain(|_, again| again.room.has_positioned());
        self.0.values().filter(|again| again.at <= now).map(|again| again.room.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    //! Rooms are compared with a history of which this node hears nothing.

    use std::sync::atomic::{AtomicUsize, Ordering};

    use parking_lot::Mutex;
    use roomcast_shared::{event::Said, publication::Publication};
    use tokio::time::timeout;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::{
        broker::{Append, Appended, Broker, History, Keep, memory::MemoryBroker},
        hub::{Deliver, Gap, Hub, Outbox, Seat, Sink, Wire},
        node::Hold,
    };

    /// A socket that nobody reads.
    struct Nowhere;

    impl Sink for Nowhere {
        fn try_write(&self, bytes: &[std::io::IoSlice<'_>]) -> std::io::Result<usize> {
            Ok(bytes.iter().map(|bytes| bytes.len()).sum())
        }
    }

    fn hub(metrics: &Arc<Metrics>) -> Arc<Hub> {
        Arc::new(Hub::new(1 << 20, metrics.clone(), TaskTracker::new()))
    }

    #[test]
    fn rooms_are_due_evenly_and_nothing_wakes_in_between() {
        let hub = hub(&Arc::new(Metrics::new()));
        let delay = Duration::from_hours(40);
        let mut round = Round::new(["a", "b", "c", "d"].map(|name| hub.open(name)).into());
        for quarter in 0..4 {
            round.began = Instant::now() - delay / 4 * quarter - Duration::from_secs(1);
            assert_eq!(round.pause(delay), Duration::ZERO, "room {quarter} is due");
            assert_eq!((round.due(delay).len(), round.is_over(delay)), (1, false));
            assert!(round.pause(delay) > delay / 5, "room {quarter} was the only one");
        }
        round.began = Instant::now() - delay;
        assert_eq!((round.pause(delay), round.is_over(delay)), (Duration::ZERO, true));
        let empty = Round::new(Vec::new());
        assert!(empty.pause(delay) > delay / 2 && empty.pause(Duration::ZERO) == Duration::MAX);
    }

    type Fault = Box<dyn FnMut(&str) -> Option<BrokerError> + Send>;

    /// A history that fails where it is told to.
    struct Faulty {
        history: Arc<dyn History>,
        fault: Arc<Mutex<Fault>>,
    }

    impl History for Faulty {
        fn append(&self, room: &str, said: Said, append: &Append) -> Answer<Appended> {
            self.history.append(room, said, append)
        }

        fn read(&self, room: &str, page: &Page) -> Answer<Slice> {
            let error = self.fault.lock()(room);
            error.map_or_else(|| self.history.read(room, page), |error| Answer::Now(Err(error)))
        }

        fn forget(&self, room: &str) -> Answer<()> {
            self.history.forget(room)
        }
    }

    /// A node with three batches of rooms, each with a positioned seat, in the order in which they are compared.
    struct Scene {
        node: Arc<Node>,
        rooms: Vec<Arc<str>>,
        metrics: Arc<Metrics>,
        /// What the history does instead of being read.
        fault: Arc<Mutex<Fault>>,
        _holds: Vec<Hold>,
    }

    const TOP: Page = Page { since: None, limit: 0, reverse: false, meta_ttl: Duration::ZERO };

    impl Scene {
        async fn new() -> Self {
            let metrics = Arc::new(Metrics::new());
            let (here, elsewhere) = (hub(&metrics), hub(&metrics));
            let broker = |hub: &Arc<Hub>| Broker::from(MemoryBroker::new(hub.clone(), metrics.clone()));
            let fault = Arc::new(Mutex::new(Box::new(|_: &str| None) as Fault));
            let history = Faulty { history: broker(&elsewhere).history, fault: fault.clone() };
            let broker = Broker { history: Arc::new(history), ..broker(&here) };
            let node = Arc::new(Node::new("test", here, broker, TaskTracker::new()));
            let outbox = Arc::new(Outbox::new(Nowhere, usize::MAX));
            let mut holds = Vec::new();
            for number in 0..BATCH * 2 + 10 {
                let room = number.to_string();
                let hold = node.join(&room).wait().await.expect("memory answers");
                let reached = node.history(&room, &TOP).wait().await.expect("it is read").top;
                let seat = Seat { positioned: true, ..Seat::new(outbox.clone(), Wire::JsonWebSocket) };
                hold.aside(1 << 20).sit(seat, Some(reached)).expect("nothing is missing");
                holds.push(hold);
            }
            let rooms = node.hub.positioned_rooms().iter().map(|room| room.name().clone()).collect();
            Self { node, rooms, metrics, fault, _holds: holds }
        }

        /// From now on the history does this.
        fn fail(&self, fault: impl FnMut(&str) -> Option<BrokerError> + Send + 'static) {
            *self.fault.lock() = Box::new(fault);
        }

        /// Keeps a publication that this node does not hear.
        async fn lose(&self, room: &str) {
            let keep = Keep { size: 10, ttl: Duration::from_mins(1), meta_ttl: Duration::ZERO };
            let append = Append { keep: Some(keep), ..Append::default() };
            self.node.append(room, Publication::default().into(), &append).wait().await.expect("it is kept");
        }

        /// Watches until this holds, and fails after a while.
        async fn watch_until(&self, what: &str, delay: Duration, done: impl Fn(&Metrics) -> bool) {
            let metrics = self.metrics.clone();
            let watch = Watch { delay, meta_ttl: Box::new(|_| Duration::ZERO), metrics: metrics.clone() };
            let stop = CancellationToken::new();
            let watching = tokio::spawn(self.node.clone().watch_positions(watch, stop.clone()));
            let holds = async {
                while !done(&metrics) {
                    sleep(Duration::from_millis(1)).await;
                }
            };
            timeout(Duration::from_secs(20), holds).await.expect(what);
            stop.cancel();
            watching.await.expect("it ends");
        }
    }

    /// Neither after a loss nor in rounds.
    #[tokio::test]
    async fn a_history_that_is_refused_keeps_no_other_from_being_compared() {
        let scene = Scene::new().await;
        let refused = scene.rooms[0].clone();
        scene.fail(move |room| (*room == *refused).then(|| BrokerError::Refused("WRONGTYPE".to_owned())));
        let others = scene.rooms.len() as u64 - 1;
        scene.lose(&scene.rooms[300]).await;
        let lost = |metrics: &Metrics| metrics.positions_lost.get() == 1 && metrics.position_checks.get() == others;
        scene.watch_until("a later batch is compared after a loss", Duration::ZERO, lost).await;
        scene.lose(&scene.rooms[400]).await;
        let delay = Duration::from_millis(200);
        let rounds = |metrics: &Metrics| metrics.position_checks.get() >= others * 4;
        scene.watch_until("rounds go on", delay, rounds).await;
        assert_eq!(scene.metrics.positions_lost.get(), 2);
    }

    #[tokio::test]
    async fn only_what_failed_is_compared_again() {
        let scene = Scene::new().await;
        let (failing, all) = (scene.rooms[0].clone(), scene.rooms.len());
        let (asked, mut failures) = (Arc::new(AtomicUsize::new(0)), 1);
        let count = asked.clone();
        scene.fail(move |room| {
            count.fetch_add(1, Ordering::Relaxed);
            let fails = *room == *failing && failures > 0;
            failures -= usize::from(fails);
            fails.then_some(BrokerError::Timeout(PAUSE))
        });
        scene.lose(&scene.rooms[0]).await;
        scene.lose(&scene.rooms[all - 1]).await;
        let both = |metrics: &Metrics| metrics.positions_lost.get() == 2;
        scene.watch_until("what failed is compared again", Duration::ZERO, both).await;
        assert_eq!((scene.metrics.position_checks.get(), asked.load(Ordering::Relaxed)), (all as u64, all + 1));
    }

    #[tokio::test]
    async fn an_interruption_within_a_comparison_has_all_compared_again() {
        let scene = Scene::new().await;
        let (first, later) = (scene.rooms[0].clone(), scene.rooms[BATCH].clone());
        let (hub, mut interrupts) = (scene.node.hub.clone(), 1);
        scene.fail(move |room| {
            if *room == *later && interrupts > 0 {
                interrupts -= 1;
                hub.interrupted();
            }
            None
        });
        let watched = scene.watch_until("the first batch is compared twice", Duration::ZERO, |metrics| {
            metrics.positions_lost.get() == 1
        });
        let loss = async {
            // The first batch has been compared when the second is asked for.
            while scene.metrics.position_checks.get() < BATCH as u64 {
                tokio::task::yield_now().await;
            }
            scene.lose(&first).await;
        };
        tokio::join!(watched, loss);
    }

    /// Rooms of a cluster move one after the other, each of which is such a moment.
    #[tokio::test]
    async fn interruptions_that_follow_each_other_keep_no_room_from_being_compared() {
        let scene = Scene::new().await;
        let last = scene.rooms.len() - 1;
        let hub = scene.node.hub.clone();
        scene.fail(move |_| {
            hub.interrupted();
            None
        });
        scene.lose(&scene.rooms[last]).await;
        let told = |metrics: &Metrics| metrics.positions_lost.get() == 1;
        scene.watch_until("the last room is compared", Duration::ZERO, told).await;
    }

    #[test]
    fn a_refusal_is_told_once_until_the_history_is_read() {
        let hub = hub(&Arc::new(Metrics::new()));
        let (room, mut failed) = (hub.open("a"), Failed::default());
        let (refused, passing) = (BrokerError::Refused(String::new()), BrokerError::Disconnected);
        let pause = |failed: &Failed| failed.0["a"].pause;
        assert!(!failed.put(&room, &passing) && failed.pause() <= PAUSE);
        assert!(failed.put(&room, &refused) && pause(&failed) == PAUSE);
        for _ in 0..9 {
            assert!(!failed.put(&room, &refused), "it is known");
        }
        assert_eq!(pause(&failed), LONGEST_PAUSE);
        assert!(!failed.put(&room, &passing) && pause(&failed) == PAUSE);
        assert!(!failed.put(&room, &refused), "it is known");
        failed.forget(&room);
        assert_eq!(failed.pause(), Duration::MAX);
        assert!(failed.put(&room, &refused));
        // Nobody sits in it.
        assert!(failed.due().is_empty() && failed.pause() == Duration::MAX);
    }

    /// What is lost while a client reads the history is lost to it as well, also where nobody sits in the room yet.
    #[tokio::test]
    async fn who_is_about_to_enter_is_compared_after_a_loss() {
        let metrics = Arc::new(Metrics::new());
        let (here, elsewhere) = (hub(&metrics), hub(&metrics));
        let broker = |hub: &Arc<Hub>| Broker::from(MemoryBroker::new(hub.clone(), metrics.clone()));
        let broker = Broker { history: broker(&elsewhere).history, ..broker(&here) };
        let node = Arc::new(Node::new("test", here, broker, TaskTracker::new()));
        let hold = node.join("room").wait().await.expect("memory answers");
        let aside = hold.aside(1 << 20);
        let watch = Watch { delay: Duration::ZERO, meta_ttl: Box::new(|_| Duration::ZERO), metrics: metrics.clone() };
        let stop = CancellationToken::new();
        let watching = tokio::spawn(node.clone().watch_positions(watch, stop.clone()));
        let compared = async |times: u64| {
            while metrics.position_checks.get() < times {
                sleep(Duration::from_millis(1)).await;
            }
        };
        let patience = Duration::from_secs(20);
        timeout(patience, compared(1)).await.expect("it is compared when the broker is heard first");
        let reached = node.history("room", &TOP).wait().await.expect("it is read").top;
        let keep = Keep { size: 10, ttl: Duration::from_mins(1), meta_ttl: Duration::ZERO };
        let append = Append { keep: Some(keep), ..Append::default() };
        node.append("room", Publication::default().into(), &append).wait().await.expect("it is kept");
        node.hub.interrupted();
        timeout(patience, compared(2)).await.expect("it is compared after a loss, and only then");
        stop.cancel();
        watching.await.expect("it ends");
        let outbox = Arc::new(Outbox::new(Nowhere, usize::MAX));
        let seat = Seat { positioned: true, ..Seat::new(outbox, Wire::JsonWebSocket) };
        assert_eq!(aside.sit(seat, Some(reached)).err(), Some(Gap));
    }
}
