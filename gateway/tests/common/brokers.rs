//! The brokers that tests ask, each with what it needs: the one in memory and the one over real redis-servers, one or many.
//! Knows only the contracts.

#![allow(dead_code, unused_macros, unused_imports, reason = "each test file uses the part it needs")]
#![allow(clippy::unwrap_used, reason = "a test fails where what it needs fails")]

use std::{
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use roomcast::{
    broker::{
        History, PubSub,
        memory::MemoryBroker,
        redis::{RedisBroker, RedisOptions},
    },
    metrics::Metrics,
};
use roomcast_shared::{event::Event, publication::Publication};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

#[path = "recorder.rs"]
mod recorder;
#[path = "redis.rs"]
mod redis;
#[path = "redis_many.rs"]
mod redis_many;

pub(crate) use recorder::{DEADLINE, Recorder};
pub(crate) use redis::RedisServer;
pub(crate) use redis_many::{RedisCluster, RedisService};

/// Redis-servers that tests of one process share while any of them runs, each under a prefix of its own.
pub(crate) enum Many {
    /// Independent ones.
    Several(Vec<RedisServer>),
    /// A master that sentinels know.
    Service(Box<RedisService>),
    /// A cluster.
    Cluster(RedisCluster),
}

static SEVERAL: Mutex<Weak<Many>> = Mutex::new(Weak::new());
static SERVICE: Mutex<Weak<Many>> = Mutex::new(Weak::new());
static CLUSTER: Mutex<Weak<Many>> = Mutex::new(Weak::new());
static PREFIXES: AtomicUsize = AtomicUsize::new(0);

fn shared(place: &Mutex<Weak<Many>>, start: impl FnOnce() -> Many) -> Arc<Many> {
    let mut place = place.lock().unwrap();
    place.upgrade().unwrap_or_else(|| {
        let started = Arc::new(start());
        *place = Arc::downgrade(&started);
        started
    })
}

impl Many {
    pub(crate) fn several() -> Arc<Self> {
        shared(&SEVERAL, || Self::Several((0..3).map(|_| RedisServer::start()).collect()))
    }

    pub(crate) fn service() -> Arc<Self> {
        shared(&SERVICE, || Self::Service(Box::new(RedisService::start())))
    }

    pub(crate) fn cluster() -> Arc<Self> {
        shared(&CLUSTER, || Self::Cluster(RedisCluster::start(3, false)))
    }

    pub(crate) fn urls(&self) -> Vec<String> {
        match self {
            Self::Several(servers) => servers.iter().map(RedisServer::url).collect(),
            Self::Service(service) => vec![service.url()],
            Self::Cluster(cluster) => vec![cluster.url()],
        }
    }

    /// Options for nodes that share a prefix which nobody else has.
    pub(crate) fn options(&self, partitions: u32) -> RedisOptions {
        let prefix = format!("test{}", PREFIXES.fetch_add(1, Ordering::Relaxed));
        RedisOptions { cluster_partitions: partitions, prefix, ..RedisOptions::several(self.urls()) }
    }

    /// The channels of rooms under a prefix.
    fn channels(&self, prefix: &str) -> Vec<String> {
        let pattern = format!("{prefix}.room.*");
        let (servers, kind) = match self {
            Self::Several(servers) => (&servers[..], "CHANNELS"),
            Self::Service(service) => (&service.servers[..1], "CHANNELS"),
            Self::Cluster(cluster) => (cluster.masters(), "SHARDCHANNELS"),
        };
        servers.iter().flat_map(|server| server.command(&["PUBSUB", kind, &pattern])).collect()
    }
}

/// One broker and what it delivered.
pub(crate) struct Node {
    pub(crate) broker: Arc<dyn PubSub>,
    pub(crate) history: Arc<dyn History>,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) metrics: Arc<Metrics>,
}

/// One kind of broker, and what it needs.
pub(crate) struct Backend {
    /// The server, where there is one of the test's own.
    pub(crate) server: Option<RedisServer>,
    many: Option<Arc<Many>>,
    options: Option<RedisOptions>,
    tracker: TaskTracker,
    pub(crate) shutdown: CancellationToken,
}

impl Backend {
    pub(crate) fn memory() -> Self {
        let (tracker, shutdown) = (TaskTracker::new(), CancellationToken::new());
        Self { server: None, many: None, options: None, tracker, shutdown }
    }

    pub(crate) fn redis() -> Self {
        let server = RedisServer::start();
        let options = Some(RedisOptions::new(server.url()));
        Self { server: Some(server), options, ..Self::memory() }
    }

    pub(crate) fn several() -> Self {
        Self::many(Many::several(), 0)
    }

    pub(crate) fn service() -> Self {
        Self::many(Many::service(), 0)
    }

    pub(crate) fn cluster() -> Self {
        Self::many(Many::cluster(), 0)
    }

    pub(crate) fn partitions() -> Self {
        Self::many(Many::cluster(), 7)
    }

    fn many(many: Arc<Many>, partitions: u32) -> Self {
        let options = Some(many.options(partitions));
        Self { many: Some(many), options, ..Self::memory() }
    }

    /// Whether several nodes can be there at a time.
    pub(crate) fn is_shared(&self) -> bool {
        self.options.is_some()
    }

    pub(crate) fn node(&self) -> Node {
        let recorder = Arc::new(Recorder::default());
        let metrics = Arc::new(Metrics::new());
        let deliver: Arc<Recorder> = Arc::clone(&recorder);
        let (broker, history): (Arc<dyn PubSub>, Arc<dyn History>) = match &self.options {
            None => {
                let broker = Arc::new(MemoryBroker::new(deliver, Arc::clone(&metrics)));
                (Arc::clone(&broker) as _, broker)
            }
            Some(options) => {
                let (metrics, shutdown) = (Arc::clone(&metrics), self.shutdown.clone());
                let broker = RedisBroker::start(options, deliver, metrics, &self.tracker, shutdown).unwrap();
                (Arc::clone(&broker) as _, broker)
            }
        };
        Node { broker, history, recorder, metrics }
    }

    /// Rooms that Redis knows at present; what a broker in memory hears is seen by publishing alone.
    fn rooms(&self) -> Option<Vec<String>> {
        let options = self.options.as_ref()?;
        let channels = match &self.many {
            Some(many) => many.channels(&options.prefix),
            None => self.server.as_ref()?.command(&["PUBSUB", "CHANNELS"]),
        };
        let mut rooms: Vec<_> = channels.iter().map(|channel| self.room(&options.prefix, channel)).collect();
        rooms.sort();
        Some(rooms)
    }

    /// The room of a channel, as a cluster writes it or another.
    fn room(&self, prefix: &str, channel: &str) -> String {
        let rest = channel.strip_prefix(prefix).and_then(|rest| rest.strip_prefix(".room.")).unwrap_or(channel);
        let room = match (self.many.as_deref(), self.options.as_ref().map_or(0, |options| options.cluster_partitions)) {
            (Some(Many::Cluster(_)), 0) => rest.strip_prefix("{.").and_then(|rest| rest.strip_suffix('}')),
            (Some(Many::Cluster(_)), _) => rest.split_once("}.").map(|(_, room)| room),
            _ => Some(rest),
        };
        room.unwrap_or(channel).to_owned()
    }

    pub(crate) async fn until_rooms(&self, mut wanted: Vec<String>) {
        wanted.sort();
        let reached = async {
            while self.rooms().is_some_and(|rooms| rooms != wanted) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let reached = tokio::time::timeout(DEADLINE, reached).await;
        assert!(reached.is_ok(), "rooms are {:?} instead of {wanted:?}", self.rooms());
    }

    /// Stops the brokers; every task must end by itself.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.tracker.close();
        assert!(tokio::time::timeout(DEADLINE, self.tracker.wait()).await.is_ok(), "a task does not end");
    }
}

impl Node {
    pub(crate) async fn subscribe(&self, room: &str) {
        self.broker.subscribe(&Arc::from(room)).wait().await.unwrap();
    }

    pub(crate) async fn publish(&self, room: &str, data: impl Into<Bytes>) {
        self.broker.publish(room, said(data)).wait().await.unwrap();
    }
}

pub(crate) fn said(data: impl Into<Bytes>) -> Event {
    Publication { data: data.into(), ..Publication::default() }.into()
}

pub(crate) fn numbers(range: std::ops::Range<usize>) -> Vec<Bytes> {
    range.map(|number| number.to_string().into()).collect()
}

/// Runs each test of a file with each broker.
macro_rules! with_every_broker {
    ($($test:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(super::Backend::memory()).await;
            })*
        }
        with_every_redis! { $($test),* }
    };
}

/// Runs each test with each way in which Redis is laid out.
macro_rules! with_every_redis {
    ($($test:ident),* $(,)?) => {
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
        mod over_sentinels {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(super::Backend::service()).await;
            })*
        }
        mod over_a_cluster {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(super::Backend::cluster()).await;
            })*
        }
        mod over_partitions {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(super::Backend::partitions()).await;
            })*
        }
    };
}

pub(crate) use {with_every_broker, with_every_redis};
