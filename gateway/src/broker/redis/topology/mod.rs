//! The links to every Redis there is, and what is known of which of them owns what. A link is what this node has of one
//! server: a connection that publishes, one that asks and one that hears. How servers are laid out is known here alone: to
//! all else a room has a group, and a group has a link.

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::link::{Link, Made};
use super::{
    BrokerError, ConfigError, RedisOptions,
    dial::Target,
    origin::Origin,
    parts::Parts,
    queue::Next,
    redirect::Redirect,
    routes::{Group, LinkId},
    writer::Guide,
};
use crate::config::RedisPlace;

mod link;
mod map;
mod refresh;

/// Every link.
pub(super) struct Topology {
    /// What the links work on.
    parts: Arc<Parts>,
    state: Mutex<State>,
    /// The nodes of a cluster that the options name; none where there is no cluster.
    seeds: Vec<Target>,
    /// Has the map of the cluster be read again.
    stale: Notify,
    tracker: TaskTracker,
    shutdown: CancellationToken,
    /// For the links, which hold this strongly while they live.
    own: Weak<Topology>,
}

#[derive(Default)]
struct State {
    links: Vec<Link>,
    next: LinkId,
}

impl Topology {
    /// Reads the URLs. Gives the links to begin with, and the nodes to ask where there is a cluster.
    pub(super) fn origins(options: &RedisOptions) -> Result<(Vec<Origin>, Vec<Target>), ConfigError> {
        let mut origins = Vec::new();
        for url in &options.urls {
            match RedisPlace::parse(url).map_err(ConfigError::Url)? {
                RedisPlace::Server(info) => origins.push(Origin::Server(Box::new(Target::new(*info, options)?))),
                RedisPlace::Sentinel { sentinels, service, login } => {
                    origins.push(Origin::service(service, sentinels, login, options)?);
                }
                RedisPlace::Cluster(nodes) => {
                    if options.urls.len() > 1 {
                        return Err(ConfigError::Url("of a cluster has to be the only one".to_owned()));
                    }
                    let seeds = nodes.into_iter().map(|node| Target::new(node, options));
                    let seeds = seeds.collect::<Result<Vec<_>, _>>()?;
                    return Ok((vec![Origin::Server(Box::new(seeds[0].clone()))], seeds));
                }
            }
        }
        if origins.is_empty() || origins.len() > usize::from(u16::MAX) {
            return Err(ConfigError::Url("is missing".to_owned()));
        }
        Ok((origins, Vec::new()))
    }

    /// Starts the links, and where there is a cluster the task that follows its map.
    pub(super) fn start(
        parts: Arc<Parts>,
        (origins, seeds): (Vec<Origin>, Vec<Target>),
        tracker: &TaskTracker,
        shutdown: &CancellationToken,
    ) -> Result<Arc<Self>, ConfigError> {
        let topology = Arc::new_cyclic(|own| Self {
            parts,
            state: Mutex::default(),
            seeds,
            stale: Notify::new(),
            tracker: tracker.clone(),
            shutdown: shutdown.clone(),
            own: own.clone(),
        });
        for origin in origins {
            topology.add(&mut topology.state.lock(), origin)?;
        }
        if !topology.seeds.is_empty() {
            tracker.spawn(shutdown.clone().run_until_cancelled_owned(topology.clone().follow_map()));
        }
        Ok(topology)
    }

    fn add(&self, state: &mut State, origin: Origin) -> Result<LinkId, ConfigError> {
        let id = state.next;
        let is_free = |shard: &usize| state.links.iter().all(|link| link.shard != *shard);
        let shard = (0..=state.links.len()).find(is_free).unwrap_or_default();
        let guide = self.own.upgrade().expect("whoever calls holds it");
        let link = Link::start(Made { id, shard, origin }, &self.parts, guide, &self.tracker, &self.shutdown)?;
        state.links.push(link);
        state.next += 1;
        Ok(id)
    }

    /// The link to a node of the cluster, which is made where there is none.
    fn link_at(&self, address: &Target) -> Option<LinkId> {
        let mut state = self.state.lock();
        let name = address.to_string();
        let known = state.links.iter().find(|link| link.address() == name).map(|link| link.id);
        known.or_else(|| self.add(&mut state, Origin::Server(Box::new(address.clone()))).ok())
    }

    /// Where an address leads that a node gave: it leaves out its host where that is its own.
    fn target(&self, teller: LinkId, address: &str) -> Option<Target> {
        let teller = self.state.lock().links.iter().find(|link| link.id == teller).and_then(Link::server)?;
        teller.neighbour(address)
    }

    /// A node says that another owns a slot.
    pub(super) fn moved(&self, teller: LinkId, slot: Group, address: &str) {
        self.parts.metrics.shards.redirects.inc();
        let owner = self.target(teller, address).and_then(|target| self.link_at(&target));
        if owner.is_some_and(|owner| self.parts.routes.set(slot, owner)) {
            self.parts.publishes.rerouted();
            self.parts.commands.rerouted();
        }
        self.stale.notify_one();
    }

    /// Something is not as the map has it.
    pub(super) fn doubt(&self) {
        self.stale.notify_one();
    }

    /// Follows what a node says of a slot: where what belongs there has to go.
    fn follow(&self, teller: LinkId, redirect: &Redirect) -> Next {
        match redirect {
            Redirect::Moved { slot, address } => {
                self.moved(teller, *slot, address);
                // A node that names itself, or one that has not heard yet that it is the owner, needs a moment.
                if self.parts.routes.link(*slot) == teller { Next::Later } else { Next::Owner }
            }
            Redirect::Ask { address } => {
                self.parts.metrics.shards.redirects.inc();
                let owner = self.target(teller, address).and_then(|target| self.link_at(&target));
                owner.map_or(Next::Later, Next::Asking)
            }
            Redirect::Later => {
                self.doubt();
                Next::Later
            }
        }
    }

    /// The slowest of the links' answers.
    pub(super) async fn round_trip(&self, io_timeout: Duration) -> Result<Duration, BrokerError> {
        let pools: Vec<_> = self.state.lock().links.iter().map(|link| link.pool.clone()).collect();
        let asked = pools.iter().map(|pool| pool.ping(io_timeout));
        let answers = futures_util::future::try_join_all(asked).await?;
        Ok(answers.into_iter().max().unwrap_or_default())
    }

    /// The broker has stopped.
    pub(super) fn close(&self) {
        let links = std::mem::take(&mut self.state.lock().links);
        for link in links {
            link.pool.close();
            self.parts.rooms.shut(link.id, Instant::now());
        }
    }
}

/// What a writer at a link is told by its server.
pub(super) struct Teller {
    topology: Arc<Topology>,
    link: LinkId,
}

impl Guide for Teller {
    fn follow(&self, _: Group, redirect: &Redirect) -> Option<Next> {
        let clustered = self.topology.parts.routes.are_slots();
        clustered.then(|| self.topology.follow(self.link, redirect))
    }
}
