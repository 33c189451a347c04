//! What a run is made of: the load against a server, and the same load against the bare write loop. A scenario arranges
//! phases; it knows no sockets and prints nothing but progress.

mod crew;
mod live;
mod phases;
mod progress;
mod sums;
mod watch;

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};

use self::{crew::Crew, phases::Run, watch::Watch};
pub use self::{live::Live, phases::Pauses, watch::At};
use crate::{
    control::{Note, Order},
    figures::Figures,
    plan::{Plan, Target},
    process::{Accounts, Source},
    turmoil::{Turmoil, Wishes},
};

/// Hidden subcommand of a worker process.
pub const WORKER: &str = "worker";
/// Hidden subcommand of the floor's server.
pub const FLOOR_SERVER: &str = "floor-server";

/// Most connections of the floor: its server is one process, and what a write costs does not hang on their number.
const FLOOR_CLIENTS: u32 = 10_000;
/// Longest time the floor is measured.
const FLOOR_DURATION: Duration = Duration::from_secs(30);

/// How a server is put under load.
#[derive(Clone, Debug, Default)]
pub struct Course {
    /// What it is called.
    pub name: String,
    /// Lengths of the pauses.
    pub pauses: Pauses,
    /// Its processes, if known.
    pub sources: Vec<Source>,
    /// Commands run meanwhile.
    pub at: Vec<At>,
}

/// Puts the load on the servers of the plan.
///
/// # Errors
/// No connection gets through, a process ends early or cannot be accounted.
pub fn load(plan: &Plan, course: &Course, live: Option<&Arc<Live>>) -> Result<Figures> {
    let accounts = Accounts::open(&course.sources)?;
    let mut watch = Watch::new(&course.name, accounts, course.at.clone(), live.cloned());
    let workers = start_workers(plan, &mut watch)?;
    Run { plan, pauses: course.pauses, workers, publisher: None, watch }.measure()
}

/// Puts the same load on the bare write loop, in a process of its own: the same rooms and rates, without what disturbs
/// them, and no more clients than one process of it can have.
///
/// # Errors
/// As [`load`].
pub fn floor(plan: &Plan, pauses: Pauses, live: Option<&Arc<Live>>) -> Result<Figures> {
    let mut plan = bare(plan);
    let mut server = Crew::start(FLOOR_SERVER, 1)?;
    let accounts = Accounts::open(&server.pids().into_iter().map(Source::Pid).collect::<Vec<_>>())?;
    let mut watch = Watch::new("floor", accounts, Vec::new(), live.cloned());
    server.tell(&Order::Prepare { plan: Box::new(plan.clone()), worker: 0 })?;
    let ports = server.gather(&mut watch, |note| match note {
        Note::Ready { port } => Some(port),
        _ => None,
    })?;
    let port = *ports.first().context("the floor's server did not start")?;
    plan.targets = vec![Target { address: ([127, 0, 0, 1], port).into(), host: "floor".into(), path: "/".into() }];
    let workers = start_workers(&plan, &mut watch)?;
    Run { plan: &plan, pauses, workers, publisher: Some(&mut server), watch }.measure()
}

/// The part of a load that the bare write loop can bear.
fn bare(plan: &Plan) -> Plan {
    let clients = plan.clients.min(FLOOR_CLIENTS);
    let rooms = u64::from(plan.rooms) * u64::from(clients) / u64::from(plan.clients.max(1));
    Plan {
        publishers: 0,
        publishers_subscribe: false,
        api: None,
        wishes: Wishes::default(),
        turmoil: Turmoil::default(),
        clients,
        rooms: u32::try_from(rooms).unwrap_or(u32::MAX).max(1),
        duration: plan.duration.min(FLOOR_DURATION),
        spike: plan.spike.filter(|_| plan.duration <= FLOOR_DURATION),
        ..plan.clone()
    }
}

fn start_workers(plan: &Plan, watch: &mut Watch) -> Result<Crew> {
    let mut workers = Crew::start(WORKER, plan.workers)?;
    watch.workers(&workers.pids())?;
    for worker in 0..plan.workers {
        workers.tell_one(worker as usize, &Order::Prepare { plan: Box::new(plan.clone()), worker })?;
    }
    workers.gather(watch, |note| matches!(note, Note::Ready { .. }).then_some(()))?;
    Ok(workers)
}
