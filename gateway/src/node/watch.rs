//! Compares what the rooms of this node were told with what their histories hold, so that whoever missed something is told
//! so: now and then, and at once when the broker is heard again after a loss. Asks for each room once, however many sit in
//! it. Knows no clients.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
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

/// How long after a comparison that failed the next one begins, where rooms may have missed something.
const PAUSE: Duration = Duration::from_secs(1);

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

impl Node {
    /// Watches the positions of this node's rooms, until `stop`.
    pub async fn watch_positions(self: Arc<Self>, watch: Watch, stop: CancellationToken) {
        stop.run_until_cancelled(self.watch(&watch)).await;
    }

    async fn watch(&self, watch: &Watch) {
        let tick = if watch.delay.is_zero() { TICK } else { TICK.min(watch.delay / 4).max(Duration::from_millis(1)) };
        let mut round = Round::new(Vec::new());
        // What is not heard from the start is compared when it is.
        let mut missed = true;
        loop {
            // Where nothing is missed and nothing is due nothing wakes: that would be most of what an idle node does.
            let pause = if missed { tick } else { round.pause(watch.delay).max(tick) };
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
            } else if missed {
                missed = self.compare_all(watch).await.is_err();
                if missed {
                    sleep(PAUSE).await;
                }
            } else if !watch.delay.is_zero() {
                if round.is_over(watch.delay) {
                    round = Round::new(self.hub.positioned_rooms());
                }
                let due = round.due(watch.delay);
                // A connection that is lost meanwhile is seen in the next turn.
                let _ = self.compare_each(&due, watch).await;
            }
        }
    }

    async fn compare_all(&self, watch: &Watch) -> Result<(), BrokerError> {
        let rooms = self.hub.positioned_rooms();
        tracing::debug!(rooms = rooms.len(), "the broker is heard again: positions are compared");
        self.compare_each(&rooms, watch).await
    }

    async fn compare_each(&self, rooms: &[Arc<Room>], watch: &Watch) -> Result<(), BrokerError> {
        for batch in rooms.chunks(BATCH) {
            self.compare(batch, watch).await?;
        }
        Ok(())
    }

    /// Compares rooms whose histories are asked for together.
    async fn compare(&self, rooms: &[Arc<Room>], watch: &Watch) -> Result<(), BrokerError> {
        let asked: Vec<_> = rooms.iter().map(|room| self.ask_top(room, watch)).collect();
        let tops = join_all(asked.into_iter().map(async |(room, before, top)| (room, before, top.wait().await))).await;
        // What the histories held is on its way to this node, or has come already: only what has not come after this wait
        // is missing.
        self.caught_up().wait().await?;
        let mut outcome = Ok(());
        for (room, before, top) in tops {
            match top {
                Ok(slice) => {
                    watch.metrics.position_checks.inc();
                    room.check(before, slice.top);
                }
                Err(error) => outcome = Err(error),
            }
        }
        outcome
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

#[cfg(test)]
mod tests {
    //! Rooms are compared with a history of which this node hears nothing.

    use roomcast_shared::publication::Publication;
    use tokio::time::timeout;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::{
        broker::{Append, Broker, Keep, memory::MemoryBroker},
        hub::{Deliver, Gap, Hub, Outbox, Seat, Sink, Wire},
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
        let top = Page { since: None, limit: 0, reverse: false, meta_ttl: Duration::ZERO };
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
        let reached = node.history("room", &top).wait().await.expect("it is read").top;
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
