//! Lets the threads of the runtime rest while few have enough to do: threads that share little work wake each other for it
//! again and again, which costs more than the work. Knows no tasks but its own.
//!
//! A thread rests by blocking in a task. To the runtime it is one that works, so that nobody wakes it, and whatever it had
//! is taken over by the others. One thread never rests.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::{
    runtime::{Handle, RuntimeMetrics},
    task::yield_now,
    time::sleep,
};

/// How long a thread rests before it looks whether it is needed. A look costs more than its time, as it takes a core from
/// those who work there.
const LOOK: Duration = Duration::from_millis(50);

/// Looks in a row without a return to the runtime. A task that another one let go first just when a thread began to rest may
/// have to wait for that return.
const LOOKS: u32 = 4;

/// Threads that together park less often than so during a look have no moment to spare.
const FEW_PARKS: u64 = 25;

/// Moments at which those are counted that work, before one more may rest, and the time between two.
const MOMENTS: u32 = 20;
const BETWEEN: Duration = Duration::from_millis(5);

/// The threads of a runtime.
struct Threads {
    metrics: RuntimeMetrics,
    resting: AtomicUsize,
    /// One of them finds out whether it may rest; never two at once, which would count on each other.
    watched: AtomicBool,
}

/// Lets the threads of this runtime rest from now on, until it ends.
pub(super) fn let_rest(runtime: &Handle) {
    Threads::of(runtime);
}

impl Threads {
    fn of(runtime: &Handle) -> Arc<Self> {
        let metrics = runtime.metrics();
        let threads = Self { metrics, resting: AtomicUsize::new(0), watched: AtomicBool::new(false) };
        let threads = Arc::new(threads);
        for _ in 1..threads.metrics.num_workers() {
            runtime.spawn(threads.clone().rest_now_and_then());
        }
        threads
    }

    async fn rest_now_and_then(self: Arc<Self>) {
        loop {
            self.until_one_may_rest().await;
            // By yielding it comes before all that its thread would have to leave behind.
            yield_now().await;
            while !self.rest() {
                yield_now().await;
            }
            self.resting.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Waits until there is so little to do that one thread fewer is enough, which the caller is then.
    async fn until_one_may_rest(&self) {
        loop {
            if self.watched.swap(true, Ordering::Relaxed) {
                sleep(BETWEEN * MOMENTS).await;
                continue;
            }
            let may_rest = self.has_little_to_do().await;
            self.resting.fetch_add(may_rest.into(), Ordering::Relaxed);
            self.watched.store(false, Ordering::Relaxed);
            if may_rest {
                return;
            }
        }
    }

    /// Watches for a while whether one thread fewer would have been enough.
    async fn has_little_to_do(&self) -> bool {
        let (mut working, mut threads) = (0, 0);
        for _ in 0..MOMENTS {
            sleep(BETWEEN).await;
            working += self.working();
            threads += self.awake();
        }
        // The thread that counts would do as much as each of the others. Of those that stay no more than three fifths shall
        // be taken up.
        let moments = MOMENTS as usize;
        let fewer = threads.saturating_sub(moments);
        working * threads * 5 < fewer * fewer * 3
    }

    /// Threads that do not rest.
    fn awake(&self) -> usize {
        self.metrics.num_workers() - self.resting.load(Ordering::Relaxed)
    }

    /// Threads that work now, beside the one that asks and those that rest.
    fn working(&self) -> usize {
        let unparked = self.parks().filter(|count| count % 2 == 0).count();
        unparked.saturating_sub(1 + self.resting.load(Ordering::Relaxed))
    }

    /// How often each thread was parked and unparked: an odd number is one that is parked.
    fn parks(&self) -> impl Iterator<Item = u64> {
        (0..self.metrics.num_workers()).map(|worker| self.metrics.worker_park_unpark_count(worker))
    }

    /// Blocks the thread for some looks, or until it is needed, which is the answer.
    fn rest(&self) -> bool {
        (0..LOOKS).any(|_| self.is_needed_after_a_look())
    }

    /// Whether those who are awake had hardly a moment to spare.
    fn is_needed_after_a_look(&self) -> bool {
        let before: u64 = self.parks().sum();
        thread::sleep(LOOK);
        let parks = (self.parks().sum::<u64>() - before) / 2;
        parks < FEW_PARKS && self.parks().all(|count| count % 2 == 0)
    }
}

#[cfg(test)]
mod tests {
    use std::{hint::spin_loop, sync::atomic::AtomicBool, time::Instant};

    use tokio::runtime::{Builder, Runtime};

    use super::*;

    const PATIENCE: Duration = Duration::from_mins(1);

    fn runtime(threads: usize) -> Runtime {
        Builder::new_multi_thread().worker_threads(threads).enable_all().build().unwrap()
    }

    fn comes(holds: impl Fn() -> bool) -> bool {
        let begin = Instant::now();
        while !holds() && begin.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(1));
        }
        holds()
    }

    /// Works without a pause until the end.
    fn toil(begun: &AtomicUsize, end: &AtomicBool) {
        begun.fetch_add(1, Ordering::Relaxed);
        while !end.load(Ordering::Relaxed) {
            spin_loop();
        }
    }

    #[test]
    fn threads_rest_while_there_is_little_and_all_come_back_for_much() {
        let runtime = runtime(4);
        let threads = Threads::of(runtime.handle());
        for _ in 0..3 {
            assert!(comes(|| threads.awake() == 1), "all but one rest");
            let (begun, end) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
            // Each keeps a thread for itself, so that the next one begins on another or never.
            let busy: Vec<_> = (0..4)
                .map(|_| {
                    let (begun, end) = (begun.clone(), end.clone());
                    runtime.spawn(async move { toil(&begun, &end) })
                })
                .collect();
            let all_work = comes(|| begun.load(Ordering::Relaxed) == 4);
            // A task that goes on for ever would keep the runtime from its end.
            end.store(true, Ordering::Relaxed);
            assert!(all_work, "all come back");
            runtime.block_on(async {
                for one in busy {
                    one.await.unwrap();
                }
            });
        }
    }

    /// Much and little in turn, by tasks that let each other go first, wake each other and sleep.
    #[test]
    fn nothing_that_a_thread_had_is_left_behind() {
        let runtime = runtime(3);
        let threads = Threads::of(runtime.handle());
        for _ in 0..10 {
            assert!(comes(|| threads.awake() == 1), "all but one rest");
            let all: Vec<_> = (0..50).map(|_| runtime.spawn(chat())).collect();
            runtime.block_on(async {
                for one in all {
                    tokio::time::timeout(PATIENCE, one).await.expect("it goes on").unwrap();
                }
            });
        }
    }

    async fn chat() {
        let (there, mut come) = tokio::sync::mpsc::channel(1);
        let other = tokio::spawn(async move { while come.recv().await.is_some() {} });
        for turn in 0..500 {
            yield_now().await;
            there.send(turn).await.unwrap();
            if turn % 50 == 0 {
                sleep(Duration::from_millis(1)).await;
            }
        }
        drop(there);
        other.await.unwrap();
    }

    #[test]
    fn a_single_thread_never_rests() {
        let runtime = runtime(1);
        let threads = Threads::of(runtime.handle());
        runtime.block_on(async { sleep(BETWEEN * MOMENTS * 2).await });
        assert_eq!(threads.awake(), 1);
    }
}
