//! How a node stops: phases with names, one after the other, inside a bound of time. Not ready, then no longer accepting,
//! then closing its clients at a pace that the other nodes can take, then ending what is left.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use roomcast_shared::protocol::code::Disconnect;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{config, hub::Outbox, node::cluster::Cluster, ops::Readiness, session::Context};

/// Clients are closed in steps of this length.
const STEP: Duration = Duration::from_millis(10);

/// What a step that comes late makes up for at most: the other nodes get the clients that are closed, and have to take them.
const LONGEST_STEP: Duration = Duration::from_millis(50);

/// Clients are closed at least at this pace, per second, so that a node with few of them is done at once.
const LEAST_PACE: u32 = 100;

/// How long the other nodes may take to be told that this one leaves. They forget it by themselves where it is not told.
const GOODBYE: Duration = Duration::from_secs(1);

/// Kept of the timeout for ending what the clients leave behind, and at the most a quarter of it.
const RESERVE: Duration = Duration::from_secs(3);

/// What there is to stop.
pub struct Stoppable {
    /// Reports the node to balancers.
    pub readiness: Arc<Readiness>,
    /// The sessions.
    pub context: Arc<Context>,
    /// The other nodes.
    pub cluster: Arc<Cluster>,
    /// Ends accepting clients when cancelled.
    pub accepting: CancellationToken,
    /// Ends everything that serves the sessions when cancelled.
    pub serving: CancellationToken,
    /// The connections of clients, and the HTTP requests that may become such.
    pub connections: TaskTracker,
    /// Everything else.
    pub services: TaskTracker,
    /// How long each phase may take.
    pub limits: config::Shutdown,
}

impl Stoppable {
    /// Stops the node, phase by phase. Returns when every task has ended, at the latest after the timeout.
    pub async fn stop(self) {
        let began = Instant::now();
        let metrics = self.context.metrics.clone();
        metrics.draining.set(1);
        self.readiness.stop();
        tracing::info!(delay = ?self.limits.delay, "stopping: not ready any more, still accepting");
        sleep(self.limits.delay).await;

        self.accepting.cancel();
        self.context.start_draining();
        self.drain(began).await;
        self.say_goodbye(began).await;
        self.end(began).await;
        metrics.draining.set(0);
        tracing::info!(took = ?began.elapsed(), "stopped");
    }

    /// Closes the clients evenly over the time there is.
    async fn drain(&self, began: Instant) {
        let mut clients = self.context.node.hub().sessions.outboxes();
        tracing::info!(connections = clients.len(), over = ?self.limits.drain, "draining");
        let mut pace = Pace::new(clients.len(), self.limits.drain);
        let (mut step, mut last) = (interval(STEP), Instant::now());
        step.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !clients.is_empty() {
            step.tick().await;
            let now = Instant::now();
            // Given back step by step: an outbox holds its socket open.
            close(&clients.split_off(pace.left_after(now - last)));
            last = now;
        }
        // Whoever came in while the others were being closed.
        close(&self.context.node.hub().sessions.outboxes());
        self.connections.close();
        let left = self.left(began).saturating_sub(RESERVE.min(self.limits.timeout / 4));
        if timeout(left, self.connections.wait()).await.is_err() {
            self.abort(began).await;
        }
    }

    /// What is left of the time in which the node has to end.
    fn left(&self, began: Instant) -> Duration {
        self.limits.timeout.saturating_sub(began.elapsed())
    }

    async fn abort(&self, began: Instant) {
        let left = self.context.node.hub().sessions.outboxes();
        tracing::warn!(connections = left.len(), "shutdown.timeout is over: the rest ends without a word");
        for outbox in &left {
            outbox.abort();
        }
        let _ = timeout(self.left(began) / 2, self.connections.wait()).await;
    }

    /// Tells the other nodes, after everything that the last sessions said and while the broker still takes messages.
    async fn say_goodbye(&self, began: Instant) {
        let patience = GOODBYE.min(self.left(began) / 2);
        match timeout(patience, self.cluster.leave().wait()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!("the other nodes are not told that this one leaves: {error}"),
            Err(_) => tracing::debug!("the other nodes are not told that this one leaves within {patience:?}"),
        }
    }

    async fn end(&self, began: Instant) {
        self.serving.cancel();
        self.services.close();
        if timeout(self.left(began), self.services.wait()).await.is_err() {
            tracing::warn!(tasks = self.services.len(), "some tasks did not end in time");
        }
    }
}

fn close(clients: &[Arc<Outbox>]) {
    for outbox in clients {
        outbox.close(Disconnect::SHUTDOWN);
    }
}

/// Who is still there at which time: as many are closed in each moment as in any other.
struct Pace {
    clients: usize,
    /// How long it takes to close them all.
    over: Duration,
    /// How much of it has passed.
    passed: Duration,
}

impl Pace {
    fn new(clients: usize, drain: Duration) -> Self {
        let least = u64::try_from(clients).unwrap_or(u64::MAX).saturating_mul(1000) / u64::from(LEAST_PACE);
        Self { clients, over: drain.min(Duration::from_millis(least)), passed: Duration::ZERO }
    }

    /// How many are left, so long after it was asked last.
    fn left_after(&mut self, step: Duration) -> usize {
        self.passed += step.min(LONGEST_STEP);
        let left = self.over.saturating_sub(self.passed);
        if left.is_zero() {
            return 0;
        }
        let part = left.as_nanos() * self.clients as u128 / self.over.as_nanos();
        usize::try_from(part).unwrap_or(self.clients)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many are closed in each step of this length, until none is left.
    fn closed(clients: usize, drain: Duration, step: Duration) -> Vec<usize> {
        let (mut pace, mut left, mut closed) = (Pace::new(clients, drain), clients, Vec::new());
        while left > 0 {
            let now = pace.left_after(step);
            closed.push(left - now);
            left = now;
        }
        closed
    }

    #[test]
    fn the_pace_is_even_and_never_below_a_hundred_a_second() {
        for (clients, seconds, pace) in [(10, 30, 100), (3_000, 30, 100), (3_100, 30, 104), (20_000, 30, 667)] {
            let drain = Duration::from_secs(seconds);
            let closed = closed(clients, drain, STEP);
            assert!(STEP * u32::try_from(closed.len()).expect("they are few") <= drain);
            let most = closed.windows(100).map(|second| second.iter().sum::<usize>()).max();
            assert!(most.unwrap_or(clients) <= pace, "{clients} over {drain:?}: {most:?} in a second");
        }
        assert_eq!(closed(20_000, Duration::ZERO, STEP), [20_000]);
    }

    #[test]
    fn the_last_client_is_closed_within_the_time_there_is() {
        for drain in [Duration::ZERO, Duration::from_millis(5), Duration::from_secs(2), Duration::from_mins(1)] {
            for clients in [1_usize, 2, 99, 100, 101, 300, 3_001, 20_000, 1_000_000] {
                let steps = closed(clients, drain, STEP).len();
                let takes = STEP * u32::try_from(steps - 1).expect("they are few");
                assert!(takes <= drain, "{clients} clients over {drain:?} take {takes:?}");
            }
        }
    }

    #[test]
    fn a_process_that_stood_still_does_not_make_up_for_it_at_once() {
        let mut pace = Pace::new(30_000, Duration::from_secs(30));
        assert_eq!(pace.left_after(STEP), 29_990);
        assert_eq!(pace.left_after(Duration::from_secs(10)), 29_940);
    }
}
