//! What all links work on: the queues, the rooms and the names. Knows no connection.

use std::{sync::Arc, time::Duration};

use redis::Value;

use super::{
    RedisOptions,
    commands::Command,
    control::Listening,
    keys::Keys,
    publish::Publish,
    queue::{Bounds, Queue},
    rooms::Rooms,
    routes::Routes,
};
use crate::{broker::Appended, hub::Deliver, metrics::Metrics};

/// What all links work on.
pub(super) struct Parts {
    /// Names in Redis.
    pub(super) keys: Arc<Keys>,
    /// Which link leads to what.
    pub(super) routes: Arc<Routes>,
    /// What is wanted and confirmed.
    pub(super) rooms: Rooms,
    /// What is to be published.
    pub(super) publishes: Arc<Queue<Publish, Appended>>,
    /// What is to be asked.
    pub(super) commands: Arc<Queue<Command, Value>>,
    /// Who takes what nodes say to each other.
    pub(super) control: Listening,
    /// Takes what arrives.
    pub(super) deliver: Arc<dyn Deliver>,
    /// Counts.
    pub(super) metrics: Arc<Metrics>,
    /// How to reach Redis.
    pub(super) options: RedisOptions,
}

impl Parts {
    /// For a cluster, or for so many independent servers.
    pub(super) fn new(
        options: &RedisOptions,
        servers: Option<u16>,
        deliver: Arc<dyn Deliver>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let keys = Arc::new(match servers {
            Some(_) => Keys::new(&options.prefix),
            None => Keys::clustered(&options.prefix, options.cluster_partitions),
        });
        let routes = Arc::new(match servers {
            Some(count) => Routes::servers(keys.clone(), count),
            None => Routes::slots(keys.clone()),
        });
        let bounds = Bounds { calls: options.publish_queue, bytes: options.publish_queue_bytes };
        Arc::new(Self {
            rooms: Rooms::new(routes.clone(), &metrics),
            publishes: Arc::new(Queue::new(bounds, routes.clone())),
            commands: Arc::new(Queue::new(bounds, routes.clone())),
            control: Listening::default(),
            options: options.clone(),
            keys,
            routes,
            deliver,
            metrics,
        })
    }

    /// The longest wait for an answer.
    pub(super) fn io_timeout(&self) -> Duration {
        self.options.io_timeout
    }

    /// The command that publishes, which is the one of the channels that are heard.
    pub(super) fn publish_verb(&self) -> &'static str {
        if self.routes.are_slots() { "SPUBLISH" } else { "PUBLISH" }
    }
}
