//! What a run comes to: the figures, the floor's beside them, warnings about the tool itself, broken thresholds. The forms
//! it is printed in lie beside this file. Knows figures, not how they were measured.

pub mod json;
pub mod text;

use serde::Serialize;

use crate::{
    clock::MILLISECOND,
    figures::{Figures, TIMES_FLOOR},
    plan::{Plan, Spelling},
    threshold::Threshold,
    units,
};

/// Share of its core from which a worker counts as the bottleneck.
const BUSY_WORKER: f64 = 0.9;
/// Share of the machine from which the tool leaves the server too little.
const BUSY_MACHINE: f64 = 0.7;
/// Lateness of one publish in a hundred from which the schedule counts as not held.
const LATE: u64 = 2 * MILLISECOND;

/// A whole report.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Version of this tool.
    pub version: &'static str,
    /// What was asked for.
    pub load: Load,
    /// What was measured.
    pub figures: Figures,
    /// The same load on the bare write loop.
    pub floor: Option<Figures>,
    /// Processor time per delivery as a multiple of the floor's.
    pub times_floor: Option<f64>,
    /// What makes the figures doubtful.
    pub warnings: Vec<String>,
    /// Conditions of `--fail-if` that came true.
    pub failed: Vec<String>,
}

/// What was asked for, without secrets.
#[derive(Debug, Serialize)]
pub struct Load {
    /// Servers; empty for the floor alone.
    pub servers: Vec<String>,
    /// Subscribing connections.
    pub clients: u32,
    /// Rooms.
    pub rooms: u32,
    /// Publishing connections.
    pub publishers: u32,
    /// Messages per second.
    pub rate: f64,
    /// Bytes of a payload.
    pub size: usize,
    /// Seconds of publishing.
    pub seconds: f64,
    /// Worker processes.
    pub workers: u32,
    /// Encoding.
    pub encoding: Spelling,
}

impl Report {
    /// Puts together what was measured and holds it against the thresholds.
    pub fn new(plan: &Plan, figures: Figures, floor: Option<Figures>, thresholds: &[Threshold]) -> Self {
        let times_floor = times_floor(&figures, floor.as_ref());
        let value = |threshold: &Threshold| match threshold.figure.name {
            TIMES_FLOOR => times_floor,
            _ => threshold.figure.of(&figures),
        };
        let broken = thresholds.iter().filter(|threshold| threshold.is_broken_by(value(threshold)));
        let failed = broken.map(|threshold| threshold.show(value(threshold))).collect();
        Self {
            version: env!("CARGO_PKG_VERSION"),
            load: Load::of(plan),
            warnings: warnings(&figures, plan),
            times_floor,
            failed,
            figures,
            floor,
        }
    }
}

impl Load {
    fn of(plan: &Plan) -> Self {
        Self {
            servers: plan.targets.iter().map(|target| format!("ws://{}{}", target.host, target.path)).collect(),
            clients: plan.clients,
            rooms: plan.rooms,
            publishers: plan.publishers,
            rate: plan.rate.as_f64(),
            size: plan.size,
            seconds: plan.duration.as_secs_f64(),
            workers: plan.workers,
            encoding: plan.spelling,
        }
    }
}

fn times_floor(figures: &Figures, floor: Option<&Figures>) -> Option<f64> {
    Some(figures.server?.cpu_per_delivery? / floor?.server?.cpu_per_delivery?)
}

/// What the tool itself may have spoilt.
fn warnings(figures: &Figures, plan: &Plan) -> Vec<String> {
    let generator = &figures.generator;
    let mut warnings = Vec::new();
    if generator.busiest > BUSY_WORKER {
        warnings.push(format!(
            "a worker used {:.0} % of its core: the generator is the bottleneck; give it more --workers or cores",
            100.0 * generator.busiest
        ));
    }
    if generator.machine > BUSY_MACHINE {
        warnings.push(format!(
            "the workers used {:.0} % of the machine: a server on it gets too little",
            100.0 * generator.machine
        ));
    }
    if generator.lateness.p99 > LATE {
        let late = units::show_nanos(f64::from(u32::try_from(generator.lateness.p99).unwrap_or(u32::MAX)));
        warnings.push(format!("one publish in a hundred was sent {late} or more after its time by the generator"));
    }
    if figures.connected < u64::from(plan.connections()) {
        let (connected, asked) = (figures.connected, plan.connections());
        warnings.push(format!("only {connected} of {asked} connections got through; the figures are theirs alone"));
    }
    warnings
}
