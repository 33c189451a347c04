//! The broker of a cluster: one Redis channel per room, one connection that publishes, one that asks and one that hears.
//! Knows no sessions and no sockets of clients; what arrives goes to the hub.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use prometheus::Histogram;
use redis::{Cmd, RedisWrite};
use roomcast_shared::{event::Event, publication::Publication};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    commands::{Commanding, Commands},
    control::Listening,
    dial::Target,
    keys::Keys,
    publish::Publishing,
    queue::{Bounds, Queue, Size},
    rooms::Rooms,
    subscribe::Subscriber,
    writer::Writer,
};
use super::{Answer, BrokerError, Health, PubSub};
use crate::{hub::Deliver, metrics::Metrics};

mod commands;
mod control;
mod dial;
mod envelope;
mod keys;
mod link;
mod outage;
mod pool;
mod presence;
mod publish;
mod queue;
mod resp;
mod rooms;
mod script;
mod subscribe;
mod writer;

/// How to reach Redis, and the bounds of what waits for it.
#[derive(Clone)]
pub struct RedisOptions {
    /// `redis://`, `rediss://` or `redis+unix://`, with user, password and database where needed.
    pub url: String,
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
}

impl RedisOptions {
    /// The defaults, for this URL.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            prefix: "roomcast".to_owned(),
            authority_pem: None,
            connect_timeout: Duration::from_secs(1),
            io_timeout: Duration::from_secs(4),
            publish_queue: 65_536,
            publish_queue_bytes: 64 << 20,
        }
    }
}

/// Why no broker can be made of the options. None of the texts has the password.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// The URL.
    #[error(
        "the Redis URL is not understood: {0}; write redis://[user:password@]host[:port][/database], the same with \
         rediss:// for TLS, or redis+unix:///path?db=0&user=…&pass=…"
    )]
    Url(String),
    /// The authorities to trust with TLS.
    #[error("the authorities to trust for the Redis connection are not understood: {0}; give certificates in PEM")]
    Authority(String),
}

/// Publish and subscribe over Redis.
pub struct RedisBroker {
    keys: Arc<Keys>,
    rooms: Arc<Rooms>,
    queue: Arc<Queue<Cmd, ()>>,
    commands: Commands,
    control: Arc<Listening>,
    pool: deadpool_redis::Pool,
    io_timeout: Duration,
    subscribe_latency: Histogram,
    publish_errors: prometheus::IntCounter,
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
        let target = Target::new(options)?;
        let pool = pool::pool(options, &target)?;
        let bounds = Bounds { calls: options.publish_queue, bytes: options.publish_queue_bytes };
        let broker = Arc::new(Self {
            keys: Arc::new(Keys::new(&options.prefix)),
            rooms: Arc::new(Rooms::new()),
            queue: Arc::new(Queue::new(bounds)),
            commands: Commands::new(bounds),
            control: Arc::default(),
            pool,
            io_timeout: options.io_timeout,
            subscribe_latency: metrics.broker_latency.with_label_values(&["subscribe"]),
            publish_errors: metrics.broker_published.with_label_values(&["error"]),
        });
        let (io_timeout, queue, commands) = (options.io_timeout, Arc::clone(&broker.queue), broker.commands.queue());
        let publisher = Writer { queue, target: target.clone(), io_timeout, purpose: Publishing::new(&metrics) };
        tracker.spawn(publisher.run(shutdown.clone()));
        let asker = Writer { queue: commands, target: target.clone(), io_timeout, purpose: Commanding::new(&metrics) };
        tracker.spawn(asker.run(shutdown.clone()));
        let subscriber = broker.subscriber(target, deliver, metrics);
        tracker.spawn(Arc::clone(&broker).hear(subscriber, shutdown));
        Ok(broker)
    }

    fn subscriber(&self, target: Target, deliver: Arc<dyn Deliver>, metrics: Arc<Metrics>) -> Subscriber {
        Subscriber {
            target,
            io_timeout: self.io_timeout,
            keys: Arc::clone(&self.keys),
            rooms: Arc::clone(&self.rooms),
            control: Arc::clone(&self.control),
            deliver,
            metrics,
        }
    }

    /// Hears until the stop, then gives up what else is open.
    async fn hear(self: Arc<Self>, subscriber: Subscriber, shutdown: CancellationToken) {
        let metrics = Arc::clone(&subscriber.metrics);
        shutdown.run_until_cancelled(subscriber.run()).await;
        metrics.broker_connected.set(0);
        self.rooms.lost(Instant::now());
        self.rooms.close();
        self.pool.close();
    }

    fn command(&self, room: &str, publication: &Publication) -> (Cmd, usize) {
        let channel = self.keys.channel(room);
        let length = envelope::encoded_len(publication);
        let mut command = Cmd::with_capacity(3, "PUBLISH".len() + channel.len() + length);
        command.arg("PUBLISH").arg(channel);
        envelope::encode(publication, SystemTime::now(), command.bufmut_for_next_arg(length));
        (command, length)
    }
}

impl PubSub for RedisBroker {
    fn publish(&self, room: &str, event: Event) -> Answer<()> {
        let Event::Publication(said) = event else { return Answer::Now(Ok(())) };
        let (command, bytes) = self.command(room, &said.publication);
        match self.queue.push(command, Size { bytes, answer: 0 }) {
            Ok(receiver) => Answer::Later(Box::pin(async { receiver.await.unwrap_or(Err(BrokerError::Disconnected)) })),
            Err(error) => {
                self.publish_errors.inc();
                Answer::Now(Err(error))
            }
        }
    }

    fn subscribe(&self, room: &Arc<str>) -> Answer<()> {
        let begin = Instant::now();
        let Some(receiver) = self.rooms.subscribe(room) else { return Answer::Now(Ok(())) };
        let (confirmed, latency) = (rooms::confirmation(receiver, self.io_timeout), self.subscribe_latency.clone());
        Answer::Later(Box::pin(async move {
            let outcome = confirmed.await;
            latency.observe(begin.elapsed().as_secs_f64());
            outcome
        }))
    }

    fn unsubscribe(&self, room: &str) {
        self.rooms.unsubscribe(room);
    }

    fn caught_up(&self) -> Answer<()> {
        let Some(passed) = self.rooms.mark() else { return Answer::Now(Ok(())) };
        Answer::Later(Box::pin(rooms::confirmation(passed, self.io_timeout)))
    }

    fn round_trip(&self) -> Answer<Duration> {
        let (pool, io_timeout) = (self.pool.clone(), self.io_timeout);
        Answer::Later(Box::pin(async move { pool::ping(&pool, io_timeout).await }))
    }

    fn health(&self) -> Health {
        self.rooms.health()
    }
}
