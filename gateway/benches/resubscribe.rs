//! How long a node is deaf after its Redis was started again: 100,000 rooms are asked for anew, `cargo bench --bench
//! resubscribe`. Each round kills the real redis-server and starts it again, without anything of what it had. Knows only the
//! contract of brokers.

#![allow(clippy::unwrap_used, reason = "a bench fails where what it needs fails")]
#![allow(clippy::print_stdout, reason = "it is the outcome")]

use std::{
    sync::Arc,
    thread::sleep,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use roomcast::{
    broker::{
        Health, PubSub,
        redis::{RedisBroker, RedisOptions},
    },
    hub::{Deliver, Delivered},
    metrics::Metrics,
};
use roomcast_shared::event::Event;
use tokio::runtime::Runtime;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

#[path = "../tests/common/redis.rs"]
mod redis;

use redis::RedisServer;

const ROOMS: usize = 100_000;
const ROUNDS: usize = 10;
const PATIENCE: Duration = Duration::from_mins(1);
/// A connection that stood shorter is not taken for sound, and there are longer pauses between attempts to replace it.
const STEADY: Duration = Duration::from_millis(5_500);

/// Nothing is said.
struct Nobody;

impl Deliver for Nobody {
    fn deliver(&self, _room: &str, _event: Event) -> Delivered {
        Delivered::Taken
    }

    fn interrupted(&self) {}
}

/// What one round took.
struct Round {
    /// From when Redis answered until the node had its connection: that is the pause between two attempts.
    connected: Duration,
    /// From when Redis answered until every room was heard.
    heard: Duration,
    /// CPU time of both processes, from the connection on.
    own: Duration,
    redis: Duration,
    commands: u64,
}

struct Setting {
    runtime: Runtime,
    server: RedisServer,
    broker: Arc<RedisBroker>,
    metrics: Arc<Metrics>,
}

impl Setting {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let server = RedisServer::start();
        let metrics = Arc::new(Metrics::new());
        let (tracker, shutdown) = (TaskTracker::new(), CancellationToken::new());
        let inside = runtime.enter();
        let options = RedisOptions { io_timeout: Duration::from_secs(30), ..RedisOptions::new(server.url()) };
        let broker = RedisBroker::start(&options, Arc::new(Nobody), metrics.clone(), &tracker, shutdown).unwrap();
        drop(inside);
        Self { runtime, server, broker, metrics }
    }

    fn subscribe(&self) {
        let rooms = (0..ROOMS).map(|number| Arc::from(format!("team:{number}:plans")));
        let answers: Vec<_> = rooms.map(|room: Arc<str>| self.broker.subscribe(&room).wait()).collect();
        assert!(self.runtime.block_on(join_all(answers)).iter().all(Result::is_ok));
    }

    fn round(&mut self) -> Round {
        sleep(STEADY);
        let reconnects = self.metrics.broker_reconnects.get();
        self.server.kill();
        until("it is lost", || matches!(self.broker.health(), Health::Lost { .. }));
        self.server.restart();
        let begin = Instant::now();
        let cpu = || [std::process::id(), self.server.pid()].map(cpu);
        until("it is connected", || self.metrics.broker_reconnects.get() > reconnects);
        let (connected, before) = (begin.elapsed(), cpu());
        until("every room is heard", || self.broker.health() == Health::Hearing);
        let heard = begin.elapsed();
        let [own, redis] = [0, 1].map(|place: usize| cpu()[place].saturating_sub(before[place]));
        assert_eq!(number(&self.server, "stats", "pubsub_channels:"), ROOMS as u64);
        let commands = number(&self.server, "commandstats", "cmdstat_subscribe:calls=");
        Round { connected, heard, own, redis, commands }
    }
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "never came: {what}");
        sleep(Duration::from_millis(1));
    }
}

/// A number that Redis tells of itself.
fn number(server: &RedisServer, section: &str, name: &str) -> u64 {
    let answer = server.command(&["INFO", section]).concat();
    let value = answer.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    value.split(',').next().unwrap().trim().parse().unwrap()
}

/// User and system time of a process so far.
fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    // Fields 14 and 15 of proc(5), in hundredths of a second.
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

/// The one in the middle, and the largest.
fn middle_and_most(rounds: &[Round], of: impl Fn(&Round) -> Duration) -> (f64, f64) {
    let mut all: Vec<_> = rounds.iter().map(of).collect();
    all.sort();
    (all[all.len() / 2].as_secs_f64(), all[all.len() - 1].as_secs_f64())
}

fn main() {
    // Tests build benches as well, and run them without this word.
    if !std::env::args().any(|word| word == "--bench") {
        return;
    }
    let mut setting = Setting::new();
    setting.subscribe();
    let rounds: Vec<_> = (0..ROUNDS).map(|_| setting.round()).collect();
    let (heard, most) = middle_and_most(&rounds, |round| round.heard);
    let (connected, latest) = middle_and_most(&rounds, |round| round.connected);
    let (own, redis) = (middle_and_most(&rounds, |round| round.own).0, middle_and_most(&rounds, |round| round.redis).0);
    let commands = rounds.iter().map(|round| round.commands).max().unwrap();
    println!("resubscribe/heard: {heard:.3} s, at most {most:.3} s in {ROUNDS} rounds, until {ROOMS} rooms are heard");
    println!("resubscribe/connected: {connected:.3} s, at most {latest:.3} s, of that until there is a connection");
    println!("resubscribe/commands: {commands} at most");
    println!("resubscribe/cpu: {own:.2} s of this process, {redis:.2} s of Redis");
}
