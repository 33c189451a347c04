//! The broker of many nodes: one Redis channel per room, and for each server one connection that publishes, one that asks and
//! one that hears. Whether there is one Redis, several, one that sentinels choose, or a cluster, is known to
//! `topology` alone. Knows no sessions and no sockets of clients; what arrives goes to the hub.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use futures_util::future::try_join_all;
use prometheus::{Histogram, IntCounter};
use redis::{Cmd, RedisWrite};
use roomcast_shared::event::Event;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    commands::Commands,
    keys::Keys,
    parts::Parts,
    publish::Publish,
    queue::{Answered, Size},
    rooms::Rooms,
    topology::Topology,
};
use super::{Answer, Appended, Broker, BrokerError, Health, PubSub};
use crate::{hub::Deliver, metrics::Metrics};

mod bell;
mod commands;
mod control;
mod dial;
mod envelope;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod history;
mod keys;
mod link;
mod origin;
mod outage;
mod pace;
mod pack;
mod parts;
mod pool;
mod presence;
mod publish;
mod queue;
mod redirect;
mod resp;
mod rooms;
mod routes;
mod script;
mod slots;
mod stream;
mod subscribe;
mod topology;
mod writer;

/// How to reach Redis, and the bounds of what waits for it.
#[derive(Clone)]
pub struct RedisOptions {
    /// One Redis: a server, a service of sentinels, or a cluster; or several, none of which is a cluster, over which rooms
    /// are spread by their names and the order of the list.
    pub urls: Vec<String>,
    /// How many groups of rooms a cluster keeps together; 0 for a slot for each room. Default 0.
    pub cluster_partitions: u32,
    /// What every name in Redis begins with; nodes of one cluster share it. Default `roomcast`.
    pub prefix: String,
    /// Certificates (PEM) of the authorities to trust with `rediss://`. Default: the public ones.
    pub authority_pem: Option<Vec<u8>>,
    /// The longest wait for a connection to be made. Default 1 s.
    pub connect_timeout: Duration,
    /// The longest wait for an answer, and for a connection by what is not yet written; a connection that is silent for
    /// so long is dead. Default 4 s.
    pub io_timeout: Duration,
    /// How many publishes may wait to be written, and as many other calls. Default 65,536.
    pub publish_queue: usize,
    /// How many bytes these may have. Default 64 MB.
    pub publish_queue_bytes: usize,
    /// How long after a batch of publications the next one is written where they come on and on; zero for none.
    /// Default 700 µs.
    pub gathering_pause: Duration,
}

impl RedisOptions {
    /// The defaults, for this URL.
    pub fn new(url: impl Into<String>) -> Self {
        Self::several(vec![url.into()])
    }

    /// The defaults, for these URLs.
    pub fn several(urls: Vec<String>) -> Self {
        Self {
            urls,
            cluster_partitions: 0,
            prefix: "roomcast".to_owned(),
            authority_pem: None,
            connect_timeout: Duration::from_secs(1),
            io_timeout: Duration::from_secs(4),
            publish_queue: 65_536,
            publish_queue_bytes: 64 << 20,
            gathering_pause: Duration::from_micros(700),
        }
    }
}

/// Why no broker can be made of the options. None of the texts has the password.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// The URL.
    #[error("the Redis URL {0}")]
    Url(String),
    /// The authorities to trust with TLS.
    #[error("the authorities to trust for the Redis connection are not understood: {0}; give certificates in PEM")]
    Authority(String),
}

/// Publish and subscribe over Redis.
pub struct RedisBroker {
    parts: Arc<Parts>,
    topology: Arc<Topology>,
    commands: Commands,
    subscribe_latency: Histogram,
    publish_errors: IntCounter,
    malformed: IntCounter,
}

impl RedisBroker {
    /// Starts a broker that hands what arrives to `deliver`. Redis need not be there: the broker connects when it can.
    /// Its tasks are spawned on `tracker` and end after `shutdown` is cancelled, within about a second.
    pub fn start(
        options: &RedisOptions,
        deliver: Arc<dyn Deliver>,
        metrics: Arc<Metrics>,
        tracker: &TaskTracker,
        shutdown: CancellationToken,
    ) -> Result<Arc<Self>, ConfigError> {
        let (origins, seeds) = Topology::origins(options)?;
        let servers = if seeds.is_empty() { u16::try_from(origins.len()).ok() } else { None };
        let (subscribe_latency, publish_errors, malformed) = (
            metrics.broker_latency.with_label_values(&["subscribe"]),
            metrics.broker_published.with_label_values(&["error"]),
            metrics.broker_malformed.clone(),
        );
        let parts = Parts::new(options, servers, deliver, metrics);
        let topology = Topology::start(parts.clone(), (origins, seeds), tracker, &shutdown)?;
        let commands = Commands::new(parts.commands.clone());
        let broker = Arc::new(Self { parts, topology, commands, subscribe_latency, publish_errors, malformed });
        tracker.spawn(broker.clone().close_after(shutdown));
        Ok(broker)
    }

    /// Gives up what is open when the broker stops; the links end by themselves.
    async fn close_after(self: Arc<Self>, shutdown: CancellationToken) {
        shutdown.cancelled().await;
        self.parts.publishes.refuse();
        self.parts.commands.refuse();
        self.topology.close();
        self.parts.rooms.close();
    }

    fn keys(&self) -> &Keys {
        &self.parts.keys
    }

    fn rooms(&self) -> &Rooms {
        &self.parts.rooms
    }

    /// Publishes without the help of a script.
    fn plain(&self, room: &str, event: &Event) -> Answered<Appended> {
        let (verb, channel) = (self.parts.publish_verb(), self.keys().channel(room));
        let bytes = envelope::encoded_len(event);
        let mut command = Cmd::with_capacity(3, verb.len() + channel.len() + bytes);
        command.arg(verb).arg(channel);
        envelope::encode(event, SystemTime::now(), command.bufmut_for_next_arg(bytes));
        self.push(room, Publish::Plain(command), Size { bytes, answer: 0 })
    }

    fn push(&self, room: &str, publish: Publish, size: Size) -> Answered<Appended> {
        let pushed = self.parts.publishes.push(self.parts.routes.group(room), publish, size);
        if pushed.is_err() {
            self.publish_errors.inc();
        }
        pushed
    }
}

impl From<Arc<RedisBroker>> for Broker {
    fn from(broker: Arc<RedisBroker>) -> Self {
        Self { pubsub: broker.clone(), history: broker.clone(), presence: broker.clone(), control: broker }
    }
}

impl PubSub for RedisBroker {
    fn publish(&self, room: &str, event: Event) -> Answer<()> {
        queue::answer(self.plain(room, &event), |_| Ok(()))
    }

    fn subscribe(&self, room: &Arc<str>) -> Answer<()> {
        let begin = Instant::now();
        let Some(receiver) = self.rooms().subscribe(room) else { return Answer::Now(Ok(())) };
        let (confirmed, latency) =
            (rooms::confirmation(receiver, self.parts.io_timeout()), self.subscribe_latency.clone());
        Answer::Later(Box::pin(async move {
            let outcome = confirmed.await;
            latency.observe(begin.elapsed().as_secs_f64());
            outcome
        }))
    }

    fn unsubscribe(&self, room: &str) {
        self.rooms().unsubscribe(room);
    }

    fn caught_up(&self) -> Answer<()> {
        let passed = self.rooms().mark();
        if passed.is_empty() {
            return Answer::Now(Ok(()));
        }
        let patience = self.parts.io_timeout();
        let passed: Vec<_> = passed.into_iter().map(|passed| rooms::confirmation(passed, patience)).collect();
        Answer::Later(Box::pin(async move { try_join_all(passed).await.map(drop) }))
    }

    fn round_trip(&self) -> Answer<Duration> {
        let (topology, io_timeout) = (self.topology.clone(), self.parts.io_timeout());
        Answer::Later(Box::pin(async move { topology.round_trip(io_timeout).await }))
    }

    fn health(&self) -> Health {
        self.rooms().health()
    }
}
