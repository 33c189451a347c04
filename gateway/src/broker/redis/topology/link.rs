//! One link: three tasks and a pool for one server, or for whoever is the master of one service. Knows no other link.

use std::{sync::Arc, time::Instant};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Teller, Topology};
use crate::broker::redis::{
    ConfigError, commands::Commanding, dial::Target, origin::Origin, parts::Parts, pool::Pool, publish::Publishing,
    routes::LinkId, subscribe::Subscriber, writer::Writer,
};

/// A link that stands.
pub(super) struct Link {
    pub(super) id: LinkId,
    /// The smallest number that no other link has at the same time, so that there are never many.
    pub(super) shard: usize,
    pub(super) pool: Arc<Pool>,
    /// Since when the map of the cluster has nothing for it.
    pub(super) spare: Option<Instant>,
    origin: Origin,
    stop: CancellationToken,
}

/// What a link is to be.
pub(super) struct Made {
    pub(super) id: LinkId,
    pub(super) shard: usize,
    pub(super) origin: Origin,
}

impl Link {
    /// Starts the tasks; they end after `shutdown` is cancelled, or with [`Link::stop`].
    pub(super) fn start(
        Made { id, shard, origin }: Made,
        parts: &Arc<Parts>,
        topology: Arc<Topology>,
        tracker: &TaskTracker,
        shutdown: &CancellationToken,
    ) -> Result<Self, ConfigError> {
        let stop = shutdown.child_token();
        let pool = Arc::new(Pool::new(&parts.options, origin.clone())?);
        let guide = Arc::new(Teller { topology: topology.clone(), link: id });
        let taken = parts.metrics.shards.published.with_label_values(&[&*shard.to_string()]);
        let publisher = Writer {
            queue: parts.publishes.clone(),
            link: id,
            origin: origin.clone(),
            io_timeout: parts.io_timeout(),
            purpose: Publishing::new(&parts.metrics, parts.publish_verb(), parts.options.gathering_pause, taken),
            guide: guide.clone(),
        };
        tracker.spawn(publisher.run(stop.clone()));
        let asker = Writer {
            queue: parts.commands.clone(),
            link: id,
            origin: origin.clone(),
            io_timeout: parts.io_timeout(),
            purpose: Commanding::new(&parts.metrics),
            guide,
        };
        tracker.spawn(asker.run(stop.clone()));
        let subscriber = Subscriber::new(id, &shard.to_string(), origin.clone(), parts.clone(), topology);
        tracker.spawn(stop.clone().run_until_cancelled_owned(subscriber.run()));
        Ok(Self { id, shard, pool, spare: None, origin, stop })
    }

    /// Where it leads.
    pub(super) fn address(&self) -> String {
        self.origin.to_string()
    }

    /// The server, where it is always the same.
    pub(super) fn server(&self) -> Option<Target> {
        self.origin.server().cloned()
    }

    /// Ends the tasks.
    pub(super) fn stop(&self) {
        self.pool.close();
        self.stop.cancel();
    }
}
