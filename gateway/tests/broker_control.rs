//! What nodes say to each other and the facts they keep, asked of every broker that carries it: the one in memory, and the one
//! over redis-servers, one or many; and what becomes of it when Redis is lost.

#![allow(clippy::unwrap_used, reason = "a test fails where what it needs fails")]

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use roomcast::{
    broker::{
        Control, Ear, Health, PubSub,
        memory::MemoryControl,
        redis::{RedisBroker, RedisOptions},
    },
    metrics::Metrics,
};
use roomcast_shared::publication::Publication;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

#[path = "common/brokers.rs"]
mod brokers;

use brokers::{DEADLINE, Many, Recorder, RedisServer};

const LONG: Duration = Duration::from_mins(10);

/// What a node has heard.
#[derive(Default)]
struct Heard {
    messages: Mutex<Vec<Bytes>>,
    connected: AtomicUsize,
}

impl Ear for Heard {
    fn hear(&self, message: Bytes) {
        self.messages.lock().unwrap().push(message);
    }

    fn connected(&self) {
        self.connected.fetch_add(1, Ordering::Relaxed);
    }
}

impl Heard {
    fn messages(&self) -> Vec<Bytes> {
        self.messages.lock().unwrap().clone()
    }

    fn connected(&self) -> usize {
        self.connected.load(Ordering::Relaxed)
    }

    async fn until(&self, messages: &[&str]) {
        let wanted: Vec<_> = messages.iter().map(|message| Bytes::from((*message).to_owned())).collect();
        until(&format!("{messages:?}"), || self.messages() == wanted).await;
    }
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < DEADLINE, "never came: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// What carries control, and what it needs.
struct Backend {
    server: Option<RedisServer>,
    many: Option<(Arc<Many>, RedisOptions)>,
    tracker: TaskTracker,
    shutdown: CancellationToken,
}

impl Backend {
    fn memory() -> Self {
        Self { server: None, many: None, tracker: TaskTracker::new(), shutdown: CancellationToken::new() }
    }

    fn redis() -> Self {
        Self { server: Some(RedisServer::start()), ..Self::memory() }
    }

    fn several() -> Self {
        Self::many(Many::several())
    }

    fn cluster() -> Self {
        Self::many(Many::cluster())
    }

    fn many(many: Arc<Many>) -> Self {
        let options = many.options(0);
        Self { many: Some((many, options)), ..Self::memory() }
    }

    fn control(&self) -> Arc<dyn Control> {
        let recorder = Arc::new(Recorder::default());
        match (&self.server, &self.many) {
            (Some(server), _) => self.broker(&server.url(), &recorder),
            (None, Some((_, options))) => self.start(options, &recorder),
            (None, None) => Arc::new(MemoryControl::default()),
        }
    }

    fn broker(&self, url: &str, recorder: &Arc<Recorder>) -> Arc<RedisBroker> {
        let options = RedisOptions { io_timeout: Duration::from_secs(1), ..RedisOptions::new(url) };
        self.start(&options, recorder)
    }

    fn start(&self, options: &RedisOptions, recorder: &Arc<Recorder>) -> Arc<RedisBroker> {
        let (deliver, metrics) = (Arc::clone(recorder), Arc::new(Metrics::new()));
        RedisBroker::start(options, deliver, metrics, &self.tracker, self.shutdown.clone()).unwrap()
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.tracker.close();
        assert!(tokio::time::timeout(DEADLINE, self.tracker.wait()).await.is_ok(), "a task does not end");
    }
}

/// Listens as a node of that id, and waits until it hears.
async fn listen(control: &dyn Control, node: &str) -> Arc<Heard> {
    let heard = Arc::new(Heard::default());
    control.listen(node, heard.clone());
    until("the channels are heard", || heard.connected() == 1).await;
    heard
}

async fn tell(control: &dyn Control, node: Option<&str>, message: &str) {
    control.tell(node, message.to_owned().into()).wait().await.unwrap();
}

/// Every fact, and that the time each has left is in these bounds.
async fn kept(control: &dyn Control, bounds: std::ops::RangeInclusive<Duration>) -> BTreeMap<String, Bytes> {
    let facts = control.kept().wait().await.unwrap();
    let count = facts.len();
    assert!(facts.iter().all(|(_, _, left)| bounds.contains(left)), "{facts:?}");
    let facts: BTreeMap<_, _> = facts.into_iter().map(|(name, fact, _)| (name, fact)).collect();
    assert_eq!(facts.len(), count, "each once");
    facts
}

async fn keep(control: &dyn Control, name: &str, fact: &'static [u8], ttl: Duration) {
    control.keep(name, Bytes::from_static(fact), ttl).wait().await.unwrap();
}

macro_rules! with_every_broker {
    ($($test:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(super::Backend::memory()).await;
            })*
        }
        mod over_redis {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(super::Backend::redis()).await;
            })*
        }
        mod over_several {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(super::Backend::several()).await;
            })*
        }
        mod over_a_cluster {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(super::Backend::cluster()).await;
            })*
        }
    };
}

with_every_broker! {
    a_node_hears_what_is_said_to_it_and_to_all_in_order,
    facts_are_kept_replaced_and_forgotten,
    a_fact_is_gone_when_its_time_is_over,
    a_great_many_facts_are_all_given,
}

async fn a_node_hears_what_is_said_to_it_and_to_all_in_order(backend: Backend) {
    let control = backend.control();
    let heard = listen(&*control, "one").await;
    let mut wanted = Vec::new();
    for number in 0..500 {
        let node = [None, Some("one"), Some("another")][number % 3];
        // Nobody waits for the answers.
        drop(control.tell(node, format!("{number}").into()));
        if node != Some("another") {
            wanted.push(format!("{number}"));
        }
    }
    tell(&*control, None, "\0\r\n and the end").await;
    wanted.push("\0\r\n and the end".to_owned());
    heard.until(&wanted.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert_eq!(heard.connected(), 1);
    backend.stop().await;
}

async fn facts_are_kept_replaced_and_forgotten(backend: Backend) {
    let control = backend.control();
    let long = LONG.saturating_sub(Duration::from_mins(1))..=LONG;
    assert!(kept(&*control, long.clone()).await.is_empty());
    keep(&*control, "user:ann", b"blocked", LONG).await;
    keep(&*control, "", b"", LONG).await;
    keep(&*control, "user:ann", b"\0\xff", LONG).await;
    keep(&*control, "gone", b"1", LONG).await;
    control.forget("gone").wait().await.unwrap();
    control.forget("never there").wait().await.unwrap();
    let facts = kept(&*control, long).await;
    assert_eq!(facts, [(String::new(), Bytes::new()), ("user:ann".to_owned(), Bytes::from_static(b"\0\xff"))].into());
    backend.stop().await;
}

/// Many of them, since a clock that counts whole milliseconds ends only some of them too early.
async fn a_fact_is_gone_when_its_time_is_over(backend: Backend) {
    let control = backend.control();
    let short = Duration::from_millis(300);
    keep(&*control, "long", b"1", LONG).await;
    keep(&*control, "renewed", b"3", short).await;
    keep(&*control, "renewed", b"4", LONG).await;
    let mut waiting = BTreeMap::new();
    for number in 0..50 {
        let name = format!("short {number}");
        waiting.insert(name.clone(), Instant::now());
        keep(&*control, &name, b"2", short).await;
    }
    let begin = Instant::now();
    while !waiting.is_empty() {
        let facts = kept(&*control, Duration::ZERO..=LONG).await;
        let now = Instant::now();
        waiting.retain(|name, since| {
            let there = facts.contains_key(name);
            assert!(there || now - *since >= short, "{name} was gone too early");
            there
        });
        assert!(facts["renewed"] == "4" && facts["long"] == "1", "{facts:?}");
        assert!(begin.elapsed() < DEADLINE, "still there: {facts:?}");
    }
    backend.stop().await;
}

async fn a_great_many_facts_are_all_given(backend: Backend) {
    let control = backend.control();
    let names: Vec<_> = (0..3_000).map(|number| format!("fact {number}")).collect();
    let made: Vec<_> = names.iter().map(|name| control.keep(name, name.clone().into(), LONG)).collect();
    for one in made {
        one.wait().await.unwrap();
    }
    let facts = kept(&*control, Duration::ZERO..=LONG).await;
    assert_eq!(facts.len(), 3_000);
    assert!(facts.iter().all(|(name, fact)| name.as_bytes() == fact));
    backend.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_hear_each_other_and_share_their_facts() {
    share_facts(Backend::redis()).await;
    share_facts(Backend::several()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_hear_each_other_and_share_their_facts_over_a_cluster() {
    share_facts(Backend::cluster()).await;
}

async fn share_facts(backend: Backend) {
    let (one, two) = (backend.control(), backend.control());
    let (heard_by_one, heard_by_two) = (listen(&*one, "one").await, listen(&*two, "two").await);
    tell(&*one, None, "to all").await;
    tell(&*one, Some("two"), "to two").await;
    tell(&*two, Some("one"), "to one").await;
    heard_by_two.until(&["to all", "to two"]).await;
    heard_by_one.until(&["to all", "to one"]).await;
    keep(&*one, "a", b"1", LONG).await;
    assert_eq!(kept(&*two, Duration::ZERO..=LONG).await, [("a".to_owned(), "1".into())].into());
    backend.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_hears_again_after_its_connection_was_cut_and_is_told_so() {
    let backend = Backend::redis();
    let server = backend.server.as_ref().unwrap();
    let recorder = Arc::new(Recorder::default());
    let broker = backend.broker(&server.url(), &recorder);
    broker.subscribe(&Arc::from("room")).wait().await.unwrap();
    let heard = listen(&*broker, "one").await;
    for times in 2..=4 {
        server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        until("the channels are heard again", || heard.connected() == times).await;
        until("the rooms are heard again", || broker.health() == Health::Hearing).await;
    }
    tell(&*broker, Some("one"), "still there").await;
    heard.until(&["still there"]).await;
    let said = Publication { data: "said".into(), ..Publication::default() };
    broker.publish("room", said.into()).wait().await.unwrap();
    broker.caught_up().wait().await.unwrap();
    until("the room is heard", || recorder.heard("room") == ["said"]).await;
    backend.stop().await;
}

/// The rooms come first: a server that lets a node hear its rooms alone is no reason to hear nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_refuses_the_channels_of_nodes_still_has_its_rooms_heard() {
    let server = RedisServer::start();
    let acl = ["ACL", "SETUSER", "rooms", "on", ">secret", "+@all", "~*", "resetchannels", "&roomcast.room.*"];
    assert_eq!(server.command(&acl), ["OK"]);
    let url = server.url().replace("redis://", "redis://rooms:secret@");
    let backend = Backend { server: Some(server), ..Backend::memory() };
    let recorder = Arc::new(Recorder::default());
    let broker = backend.broker(&url, &recorder);
    let heard = Arc::new(Heard::default());
    broker.listen("one", heard.clone());
    for room in ["a", "b"] {
        broker.subscribe(&Arc::from(room)).wait().await.unwrap();
        let said = Publication { data: "said".into(), ..Publication::default() };
        broker.publish(room, said.into()).wait().await.unwrap();
        until("the room is heard", || recorder.heard(room) == ["said"]).await;
    }
    assert_eq!((heard.connected(), broker.health()), (0, Health::Hearing));
    assert!(broker.tell(None, "nobody may".into()).wait().await.is_err());
    backend.stop().await;
}

/// Control has no part in what is counted of rooms.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nodes_say_is_not_counted_as_published_or_received() {
    let backend = Backend::redis();
    let options = RedisOptions::new(backend.server.as_ref().unwrap().url());
    let (metrics, recorder) = (Arc::new(Metrics::new()), Arc::new(Recorder::default()));
    let (counted, shutdown) = (metrics.clone(), backend.shutdown.clone());
    let broker = RedisBroker::start(&options, recorder, metrics, &backend.tracker, shutdown).unwrap();
    let heard = listen(&*broker, "one").await;
    tell(&*broker, None, "to all").await;
    heard.until(&["to all"]).await;
    // What is read is counted when there is no more to read.
    broker.caught_up().wait().await.unwrap();
    assert_eq!(counted.broker_received.get() + counted.broker_malformed.get(), 0);
    assert_eq!(counted.broker_published.with_label_values(&["ok"]).get(), 0);
    backend.stop().await;
}
