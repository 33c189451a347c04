//! What a run is made of: the basic load against a server, and the same load against the bare write loop. A scenario
//! arranges phases; it knows no sockets and prints nothing but progress.

mod crew;
mod phases;
mod progress;

use anyhow::{Context, Result};

pub use self::phases::Pauses;
use self::{crew::Crew, phases::Run, progress::Line};
use crate::{
    control::{Note, Order},
    figures::Figures,
    plan::{Plan, Target},
};

/// Hidden subcommand of a worker process.
pub const WORKER: &str = "worker";
/// Hidden subcommand of the floor's server.
pub const FLOOR_SERVER: &str = "floor-server";

/// Puts the load on the servers of the plan; `pids` are their processes, if known.
///
/// # Errors
/// No connection gets through, a process ends early or cannot be accounted.
pub fn load(plan: &Plan, pauses: Pauses, pids: &[u32]) -> Result<Figures> {
    let mut line = Line::default();
    let workers = start_workers(plan, &mut line)?;
    Run { plan, pauses, pids, workers, publisher: None, line: &mut line }.measure()
}

/// Puts the same load on the bare write loop, in a process of its own.
///
/// # Errors
/// As [`load`].
pub fn floor(plan: &Plan, pauses: Pauses) -> Result<Figures> {
    let mut line = Line::default();
    line.phase("floor");
    let mut plan = Plan { publishers: 0, publishers_subscribe: false, ..plan.clone() };
    let mut server = Crew::start(FLOOR_SERVER, 1)?;
    server.tell(&Order::Prepare { plan: Box::new(plan.clone()), worker: 0 })?;
    let ports = server.gather(&mut line, |note| match note {
        Note::Ready { port } => Some(port),
        _ => None,
    })?;
    let port = *ports.first().context("the floor's server did not start")?;
    plan.targets = vec![Target { address: ([127, 0, 0, 1], port).into(), host: "floor".into(), path: "/".into() }];
    let workers = start_workers(&plan, &mut line)?;
    let pids = server.pids();
    Run { plan: &plan, pauses, pids: &pids, workers, publisher: Some(&mut server), line: &mut line }.measure()
}

fn start_workers(plan: &Plan, line: &mut Line) -> Result<Crew> {
    let mut workers = Crew::start(WORKER, plan.workers)?;
    for worker in 0..plan.workers {
        workers.tell_one(worker as usize, &Order::Prepare { plan: Box::new(plan.clone()), worker })?;
    }
    workers.gather(line, |note| matches!(note, Note::Ready { .. }).then_some(()))?;
    Ok(workers)
}
