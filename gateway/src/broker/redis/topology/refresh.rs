//! Keeps the map of a cluster: asks several of its nodes who owns what, whenever something was not as expected and now and
//! then besides, and has links come and go with the masters. Knows no rooms.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use rand::seq::SliceRandom;
use redis::Pipeline;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::{
    Link, Topology,
    map::{self, Range},
};
use crate::broker::redis::{
    dial::Target,
    link::{self, Lost},
    origin::Origin,
    routes::LinkId,
};

/// How often the map is read when nothing is amiss.
const STEADY: Duration = Duration::from_secs(15);
/// The least time between two readings.
const PAUSE: Duration = Duration::from_millis(50);
/// How many nodes are asked at a time, and how many answers are enough.
const ASKED: usize = 5;
const ENOUGH: usize = 3;
/// How long a node that owns nothing any more has to tell rooms so itself.
const FAREWELL: Duration = Duration::from_secs(3);

impl Topology {
    /// Keeps the map, for ever.
    pub(super) async fn follow_map(self: Arc<Self>) {
        let mut complete = true;
        loop {
            let answers = self.ask().await;
            if answers.is_empty() {
                debug!("no node of the cluster tells who owns what");
            } else {
                let missing = self.take_map(&map::agree(&answers));
                if (missing == 0) != complete {
                    complete = missing == 0;
                    if complete {
                        info!("every slot of the cluster has an owner again");
                    } else {
                        warn!(missing, "slots of the cluster have no owner: what belongs there waits");
                    }
                }
            }
            sleep(PAUSE).await;
            let _ = timeout(STEADY, self.stale.notified()).await;
        }
    }

    /// What nodes say, as many as are enough.
    async fn ask(&self) -> Vec<Vec<Range>> {
        let mut nodes: Vec<Target> = self.state.lock().links.iter().filter_map(Link::server).collect();
        nodes.extend(self.seeds.iter().cloned());
        nodes.sort_by_key(ToString::to_string);
        nodes.dedup_by_key(|node| node.to_string());
        nodes.shuffle(&mut rand::rng());
        // Those that do not answer are not waited for; there may be others.
        let mut answers = Vec::new();
        for some in nodes.chunks(ASKED) {
            let mut asked: FuturesUnordered<_> = some.iter().map(|node| self.ask_node(node)).collect();
            while let Some(answer) = asked.next().await {
                answers.extend(answer.ok().flatten());
                if answers.len() >= ENOUGH {
                    return answers;
                }
            }
            if !answers.is_empty() {
                break;
            }
        }
        answers
    }

    async fn ask_node(&self, node: &Target) -> Result<Option<Vec<Range>>, Lost> {
        let patience = self.parts.io_timeout();
        let mut link = link::Link::open(&Origin::Server(Box::new(node.clone())), patience).await?;
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline.cmd("CLUSTER").arg("SLOTS");
        let answer = link.exchange(&pipeline).await?.pop();
        Ok(answer.and_then(|answer| map::read(answer, node.host().unwrap_or_default())))
    }

    /// Goes by a map from now on. Slots that nobody owns stay where they were. Gives how many these are.
    fn take_map(&self, owners: &[Option<&str>]) -> usize {
        let mut links = HashMap::<&str, Option<LinkId>>::new();
        let (mut changed, mut missing) = (false, 0);
        for (slot, owner) in (0..).zip(owners) {
            let Some(owner) = *owner else {
                missing += 1;
                continue;
            };
            let link = links.entry(owner).or_insert_with(|| self.link_at(&self.seeds[0].neighbour(owner)?));
            changed |= link.is_some_and(|link| self.parts.routes.set(slot, link));
        }
        if changed {
            self.parts.publishes.rerouted();
            self.parts.commands.rerouted();
            self.parts.rooms.rerouted();
        }
        self.retire();
        missing
    }

    /// Ends the links to nodes that own nothing any more. One that still lets this node hear rooms is given time to say
    /// itself that it owns them no longer.
    fn retire(&self) {
        let now = Instant::now();
        let owners = self.parts.routes.owners();
        let spare = |id: &LinkId| !owners.contains(id);
        let mut spare: Vec<_> = self.state.lock().links.iter().map(|link| link.id).filter(spare).collect();
        let all = spare.clone();
        spare.retain(|id| self.parts.rooms.is_silent(*id));
        let gone: Vec<_> = {
            let mut state = self.state.lock();
            for link in &mut state.links {
                link.spare = all.contains(&link.id).then(|| link.spare.unwrap_or(now));
            }
            let over =
                |link: &mut Link| link.spare.is_some_and(|since| spare.contains(&link.id) || now - since >= FAREWELL);
            state.links.extract_if(.., over).collect()
        };
        if all.len() > gone.len() {
            self.stale.notify_one();
        }
        for link in gone {
            info!(address = link.address(), "a node of the cluster owns nothing any more");
            link.stop();
            self.parts.rooms.shut(link.id, now);
        }
    }
}
