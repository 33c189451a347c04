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

/// How often the watch looks whether there is something to do; more often where rooms are compared more often than that.
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
    /// Counts comparisons, and tells how often the broker may have missed something.
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
        let mut connections = watch.connections();
        let mut missed = false;
        loop {
            sleep(tick).await;
            // Asked before the health: a loss that comes between the two is seen in the next turn.
            let now = watch.connections();
            missed |= std::mem::replace(&mut connections, now) != now;
            if self.health() != Health::Hearing {
                missed = true;
                continue;
            }
            if missed {
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

impl Watch {
    /// How often something may have been missed: a connection was made again, or a room changed its owner.
    fn connections(&self) -> u64 {
        self.metrics.broker_reconnects.get() + self.metrics.shards.moved.get()
    }
}

impl Round {
    fn new(rooms: Vec<Arc<Room>>) -> Self {
        Self { total: rooms.len(), rooms, began: Instant::now() }
    }

    fn is_over(&self, delay: Duration) -> bool {
        self.rooms.is_empty() && self.began.elapsed() >= delay
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
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::{
        broker::{Append, Broker, Keep, memory::MemoryBroker},
        hub::{Gap, Hub, Outbox, Seat, Sink, Wire},
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
        let reached = node.history("room", &top).wait().await.expect("it is read").top;
        let keep = Keep { size: 10, ttl: Duration::from_mins(1), meta_ttl: Duration::ZERO };
        let append = Append { keep: Some(keep), ..Append::default() };
        node.append("room", Publication::default().into(), &append).wait().await.expect("it is kept");
        let watch = Watch { delay: Duration::ZERO, meta_ttl: Box::new(|_| Duration::ZERO), metrics: metrics.clone() };
        let stop = CancellationToken::new();
        let watching = tokio::spawn(node.clone().watch_positions(watch, stop.clone()));
        let compared = async {
            while metrics.position_checks.get() == 0 {
                // The watch compares this with what it saw when it began, whenever that was.
                metrics.broker_reconnects.inc();
                sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), compared).await.expect("the room is compared");
        stop.cancel();
        watching.await.expect("it ends");
        let outbox = Arc::new(Outbox::new(Nowhere, usize::MAX));
        let seat = Seat { positioned: true, ..Seat::new(outbox, Wire::JsonWebSocket) };
        assert_eq!(aside.sit(seat, Some(reached)).err(), Some(Gap));
    }
}
