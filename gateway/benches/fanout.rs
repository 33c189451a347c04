//! What it costs to hand publications to 1, 100 and 10,000 subscribers: `cargo bench --bench fanout`. Rooms, jobs and
//! outboxes are the real ones, the sockets are memory. A round ends when every outbox is empty, so that nothing is left to
//! a time that is not measured. Knows only the hub.

#![allow(clippy::unwrap_used, reason = "a bench fails where what it needs fails")]
#![allow(missing_docs, reason = "criterion's macros write the functions without docs")]

use std::{
    hint::black_box,
    io::{self, ErrorKind, IoSlice},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use roomcast::{
    hub::{Deliver, Delivered, Hub, Outbox, Seat, Sink, Wire},
    metrics::Metrics,
};
use roomcast_shared::publication::Publication;
use tokio::runtime::Runtime;
use tokio_util::task::TaskTracker;

/// Publications of one round.
const ROUND: u64 = 64;
const ROOM: &str = "room";

/// Takes everything at once, or, while its clients are slow, nothing.
struct Memory {
    slow: Arc<AtomicBool>,
    taken: AtomicUsize,
}

impl Sink for Memory {
    fn try_write(&self, bytes: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.slow.load(Ordering::Relaxed) {
            return Err(ErrorKind::WouldBlock.into());
        }
        let length = bytes.iter().map(|slice| black_box(slice).len()).sum();
        self.taken.fetch_add(length, Ordering::Relaxed);
        Ok(length)
    }
}

struct Setting {
    runtime: Runtime,
    hub: Hub,
    metrics: Arc<Metrics>,
    outboxes: Vec<Arc<Outbox<Memory>>>,
    slow: Arc<AtomicBool>,
}

impl Setting {
    fn new(subscribers: usize) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let metrics = Arc::new(Metrics::new());
        let hub = Hub::new(1 << 20, metrics.clone(), TaskTracker::new());
        let slow = Arc::new(AtomicBool::new(false));
        let sink = || Memory { slow: slow.clone(), taken: AtomicUsize::new(0) };
        let outboxes: Vec<_> = (0..subscribers).map(|_| Arc::new(Outbox::new(sink(), usize::MAX))).collect();
        let room = hub.open(ROOM);
        for outbox in &outboxes {
            hub.join(&room, Seat::new(outbox.clone(), Wire::JsonWebSocket));
        }
        Self { runtime, hub, metrics, outboxes, slow }
    }

    /// Publishes a round and waits until all of it has reached the sinks.
    fn round(&self, slow: bool) {
        self.slow.store(slow, Ordering::Relaxed);
        let wanted = self.metrics.deliveries.get() + ROUND * self.outboxes.len() as u64;
        self.runtime.block_on(async {
            for _ in 0..ROUND {
                if let Delivered::Full(space) = self.hub.deliver(ROOM, publication().into()) {
                    space.await;
                }
            }
            while self.metrics.deliveries.get() < wanted {
                tokio::task::yield_now().await;
            }
        });
        self.slow.store(false, Ordering::Relaxed);
        for outbox in &self.outboxes {
            assert!(outbox.drain().unwrap(), "nothing is left waiting");
        }
    }

    /// Bytes that all sinks have taken.
    fn taken(&self) -> usize {
        self.outboxes.iter().map(|outbox| outbox.socket().taken.load(Ordering::Relaxed)).sum()
    }
}

/// 128 bytes of JSON.
fn publication() -> Publication {
    Publication { data: Bytes::from_static(&[b'1'; 128]), ..Publication::default() }
}

fn benches(criterion: &mut Criterion) {
    // Whether the sockets take bytes at once, or everything queues and is drained afterwards.
    for (name, slow) in [("fanout/at_once", false), ("fanout/queued", true)] {
        let mut group = criterion.benchmark_group(name);
        group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
        for subscribers in [1, 100, 10_000] {
            let setting = Setting::new(subscribers);
            group.throughput(Throughput::Elements(ROUND * subscribers as u64));
            group.bench_function(BenchmarkId::from_parameter(subscribers), |bencher| {
                bencher.iter(|| setting.round(slow));
            });
            let deliveries = usize::try_from(setting.metrics.deliveries.get()).unwrap();
            assert!(setting.taken() >= deliveries * 128, "every publication reached every sink");
        }
        group.finish();
    }
}

criterion_group!(fanout, benches);
criterion_main!(fanout);
