//! What one message costs the Redis broker, both ways, against a real redis-server: `cargo bench --bench broker`. Besides
//! the time of a round, the CPU time of this process and of the server is told, since they share the machine, and what a
//! history costs beside a plain publish. Knows only the contract of brokers.

#![allow(clippy::unwrap_used, reason = "a bench fails where what it needs fails")]
#![allow(clippy::print_stdout, reason = "the CPU time is part of the outcome")]
#![allow(missing_docs, reason = "criterion's macros write the functions without docs")]

use std::{
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures_util::future::join_all;
use roomcast::{
    broker::{
        Append, BrokerError, History, Keep, PubSub,
        redis::{RedisBroker, RedisOptions},
    },
    hub::{Deliver, Delivered},
    metrics::Metrics,
};
use roomcast_shared::{
    event::{Event, Said},
    publication::{ClientInfo, Publication},
};
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

#[path = "../tests/common/redis.rs"]
mod redis;

/// Messages in one round.
const ROUND: u32 = 20_000;
/// Rooms in turn: more than the calls of a batch, so that each batch has hardly two publications of any.
const ROOMS: usize = 500;

/// Counts what arrives.
#[derive(Default)]
struct Counter {
    count: AtomicUsize,
    awaited: AtomicUsize,
    reached: Notify,
}

impl Deliver for Counter {
    fn deliver(&self, _room: &str, event: Event) -> Delivered {
        black_box(event);
        if self.count.fetch_add(1, Ordering::Relaxed) + 1 == self.awaited.load(Ordering::Relaxed) {
            self.reached.notify_one();
        }
        Delivered::Taken
    }

    fn interrupted(&self) {}
}

struct Setting {
    runtime: tokio::runtime::Runtime,
    server: redis::RedisServer,
    broker: Arc<RedisBroker>,
    counter: Arc<Counter>,
    rooms: Vec<Arc<str>>,
}

impl Setting {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let server = redis::RedisServer::start();
        let counter = Arc::new(Counter::default());
        let deliver: Arc<Counter> = Arc::clone(&counter);
        let options = RedisOptions::new(server.url());
        let (tracker, shutdown) = (TaskTracker::new(), CancellationToken::new());
        let inside = runtime.enter();
        let broker = RedisBroker::start(&options, deliver, Arc::new(Metrics::new()), &tracker, shutdown).unwrap();
        drop(inside);
        let rooms = (0..ROOMS).map(|room| Arc::from(format!("bench:{room}"))).collect();
        Self { runtime, server, broker, counter, rooms }
    }

    /// Subscribes every room.
    fn hear(&self) {
        let answers = self.rooms.iter().map(|room| self.broker.subscribe(room).wait());
        assert!(self.runtime.block_on(join_all(answers)).iter().all(Result::is_ok));
    }

    /// Publishes a round to so many rooms from two tasks, each with many publishes unanswered; into histories, where there is
    /// an `append`.
    fn publish(&self, count: usize, append: Option<&Append>) {
        let tasks = (0..2).map(|task| {
            let (broker, rooms, append) = (Arc::clone(&self.broker), self.rooms.clone(), append.cloned());
            self.runtime.spawn(async move {
                for burst in 0..ROUND as usize / 2 / 1000 {
                    let room = |index| &rooms[(task + burst * 1000 + index) % count];
                    match &append {
                        None => all((0..1000).map(|i| broker.publish(room(i), said().into()).wait())).await,
                        Some(append) => all((0..1000).map(|i| broker.append(room(i), said(), append).wait())).await,
                    }
                }
            })
        });
        self.runtime.block_on(join_all(tasks)).into_iter().for_each(|done| done.unwrap());
    }

    /// The same, and this process receives it all.
    fn publish_and_receive(&self, append: Option<&Append>) {
        self.counter.count.store(0, Ordering::Relaxed);
        self.counter.awaited.store(ROUND as usize, Ordering::Relaxed);
        self.publish(ROOMS, append);
        self.runtime.block_on(self.counter.reached.notified());
    }

    /// Has the server itself publish a round from within, so that this process only receives.
    fn receive(&self, script: &str) {
        self.counter.count.store(0, Ordering::Relaxed);
        self.counter.awaited.store(ROUND as usize, Ordering::Relaxed);
        let (round, rooms) = (ROUND.to_string(), ROOMS.to_string());
        self.server.command(&["EVALSHA", script, "0", &round, &rooms]);
        self.runtime.block_on(self.counter.reached.notified());
    }
}

/// Waits for all of them, none of which may fail.
async fn all<T>(answers: impl Iterator<Item = impl Future<Output = Result<T, BrokerError>>>) {
    assert!(join_all(answers).await.iter().all(Result::is_ok));
}

/// 128 bytes of JSON from a client.
fn said() -> Said {
    let publication = Publication {
        data: Bytes::from_static(&[b'1'; 128]),
        info: Some(ClientInfo { user: "ada".to_owned(), client: "0123456789abcdef".to_owned(), ..Default::default() }),
        ..Publication::default()
    };
    publication.into()
}

/// A script that publishes what a node would: 128 bytes from a client, just now.
fn load_script(server: &redis::RedisServer) -> String {
    let script = r"
        local now = redis.call('TIME')
        local micros = now[1] * 1000000 + now[2]
        local time = ''
        for _ = 1, 8 do
            time = time .. string.char(micros % 256)
            micros = math.floor(micros / 256)
        end
        local info = '\n\3ada\18\16' .. '0123456789abcdef'
        local body = '\1' .. time .. '\0\34\128\1' .. string.rep('1', 128) .. '\42' .. string.char(#info) .. info
        for i = 1, tonumber(ARGV[1]) do
            redis.call('PUBLISH', 'roomcast.room.bench:' .. (i % tonumber(ARGV[2])), body)
        end";
    server.command(&["SCRIPT", "LOAD", script]).concat()
}

/// CPU time for each message, in microseconds.
#[derive(Clone, Copy)]
struct Cost {
    own: f64,
    redis: f64,
}

/// User and system time of a process so far.
fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    // Fields 14 and 15 of proc(5), in hundredths of a second.
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

/// Runs one bench, and tells the CPU time of both processes for each message; nothing where the bench is not asked for.
fn measure(criterion: &mut Criterion, name: &str, redis: u32, mut round: impl FnMut()) -> Option<Cost> {
    let used = || [std::process::id(), redis].map(cpu);
    let (begin, mut rounds, mut time) = (used(), 0_u32, Duration::ZERO);
    let mut group = criterion.benchmark_group("broker");
    group.throughput(Throughput::Elements(ROUND.into())).sample_size(20);
    group.bench_function(name, |bencher| {
        bencher.iter(|| {
            let begin = Instant::now();
            round();
            time += begin.elapsed();
            rounds += 1;
        });
    });
    group.finish();
    if rounds == 0 {
        return None;
    }
    let messages = f64::from(rounds) * f64::from(ROUND);
    let [own, redis] = used();
    let each = |now: Duration, then: Duration| now.saturating_sub(then).as_secs_f64() * 1e6 / messages;
    let cost = Cost { own: each(own, begin[0]), redis: each(redis, begin[1]) };
    let rate = messages / time.as_secs_f64();
    println!(
        "broker/{name}: {rate:.0} messages a second, {:.2} µs of CPU for each, {:.2} µs in Redis",
        cost.own, cost.redis
    );
    Some(cost)
}

fn benches(criterion: &mut Criterion) {
    let setting = Setting::new();
    let keep = Keep { size: 100, ttl: Duration::from_mins(5), meta_ttl: Duration::from_hours(720) };
    let append = Append { keep: Some(keep), ..Append::default() };
    let redis = setting.server.pid();
    for (count, suffix, whose) in [(ROOMS, "", "500 rooms in turn"), (1, " (one room)", "one room")] {
        let kept_name = if count == 1 { "append (history 100, one room)" } else { "append (history 100)" };
        let plain = measure(criterion, &format!("publish{suffix}"), redis, || setting.publish(count, None));
        let kept = measure(criterion, kept_name, redis, || setting.publish(count, Some(&append)));
        let (Some(plain), Some(kept)) = (plain, kept) else { continue };
        let whole = (kept.own + kept.redis) / (plain.own + plain.redis);
        let (own, redis) = (kept.own / plain.own, kept.redis / plain.redis);
        println!("history, {whose}: {whole:.2} times a publish; {own:.2} in this process, {redis:.2} in Redis");
    }
    setting.hear();
    measure(criterion, "publish, heard", redis, || setting.publish_and_receive(None));
    measure(criterion, "append (history 100), heard", redis, || setting.publish_and_receive(Some(&append)));
    let script = load_script(&setting.server);
    measure(criterion, "receive", redis, || setting.receive(&script));
}

criterion_group!(broker, benches);
criterion_main!(broker);
