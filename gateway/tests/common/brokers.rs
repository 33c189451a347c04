//! The brokers that tests ask, each with what it needs: the one in memory and the one over a real redis-server. Knows only the
//! contracts.

#![allow(dead_code, unused_macros, unused_imports, reason = "each test file uses the part it needs")]
#![allow(clippy::unwrap_used, reason = "a test fails where what it needs fails")]

use std::{sync::Arc, time::Duration};

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

pub(crate) use recorder::{DEADLINE, Recorder};
pub(crate) use redis::RedisServer;

/// One kind of broker, and what it needs.
pub(crate) struct Backend {
    /// The server, where there is one.
    pub(crate) server: Option<RedisServer>,
    tracker: TaskTracker,
    pub(crate) shutdown: CancellationToken,
}

/// One broker and what it delivered.
pub(crate) struct Node {
    pub(crate) broker: Arc<dyn PubSub>,
    pub(crate) history: Arc<dyn History>,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Backend {
    pub(crate) fn memory() -> Self {
        Self { server: None, tracker: TaskTracker::new(), shutdown: CancellationToken::new() }
    }

    pub(crate) fn redis() -> Self {
        Self { server: Some(RedisServer::start()), ..Self::memory() }
    }

    pub(crate) fn node(&self) -> Node {
        let recorder = Arc::new(Recorder::default());
        let metrics = Arc::new(Metrics::new());
        let deliver: Arc<Recorder> = Arc::clone(&recorder);
        let (broker, history): (Arc<dyn PubSub>, Arc<dyn History>) = match &self.server {
            None => {
                let broker = Arc::new(MemoryBroker::new(deliver, Arc::clone(&metrics)));
                (Arc::clone(&broker) as _, broker)
            }
            Some(server) => {
                let options = RedisOptions::new(server.url());
                let (metrics, shutdown) = (Arc::clone(&metrics), self.shutdown.clone());
                let broker = RedisBroker::start(&options, deliver, metrics, &self.tracker, shutdown).unwrap();
                (Arc::clone(&broker) as _, broker)
            }
        };
        Node { broker, history, recorder, metrics }
    }

    /// Channels that Redis knows at present; what a broker in memory hears is seen by publishing alone.
    pub(crate) fn channels(&self) -> Option<Vec<String>> {
        let mut channels = self.server.as_ref()?.command(&["PUBSUB", "CHANNELS"]);
        channels.sort();
        Some(channels)
    }

    pub(crate) async fn until_channels(&self, wanted: Vec<String>) {
        let reached = async {
            while self.channels().is_some_and(|channels| channels != wanted) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let reached = tokio::time::timeout(DEADLINE, reached).await;
        assert!(reached.is_ok(), "channels are {:?} instead of {wanted:?}", self.channels());
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
        mod over_redis {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(super::Backend::redis()).await;
            })*
        }
    };
}

pub(crate) use with_every_broker;
