//! What a run comes to: the figures of each server, the floor's beside them, warnings about the tool itself, broken
//! thresholds. The forms it is printed in lie beside this file. Knows figures, not how they were measured.

pub mod compare;
pub mod html;
pub mod json;
mod plot;
mod table;
pub mod text;
mod warnings;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use self::warnings::{floor_warning, warnings};
use crate::{
    cli::Trial,
    figures::{Figures, NAMES, TIMES_FLOOR, Unit},
    plan::{Plan, Spelling},
    threshold::Threshold,
};

/// A whole report.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Version of this tool.
    pub version: String,
    /// Name of the scenario, if it was one.
    #[serde(default)]
    pub scenario: Option<String>,
    /// What the first server is called.
    #[serde(default)]
    pub name: String,
    /// What was asked for.
    pub load: Load,
    /// What was measured of the first server.
    pub figures: Figures,
    /// The same load on the bare write loop.
    pub floor: Option<Figures>,
    /// Processor time per delivery as a multiple of the floor's.
    pub times_floor: Option<f64>,
    /// Every figure that the floor has too, as a multiple of it.
    #[serde(default)]
    pub ratios: BTreeMap<String, f64>,
    /// The same load on other servers.
    #[serde(default)]
    pub against: Vec<Other>,
    /// What makes the figures doubtful.
    pub warnings: Vec<String>,
    /// Conditions of `--fail-if` that came true for the first server.
    pub failed: Vec<String>,
}

/// Another server under the same load.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Other {
    /// What it is called.
    pub name: String,
    /// Its URLs.
    pub servers: Vec<String>,
    /// What was measured.
    pub figures: Figures,
    /// Processor time per delivery as a multiple of the floor's.
    pub times_floor: Option<f64>,
    /// Every figure that the floor has too, as a multiple of it.
    pub ratios: BTreeMap<String, f64>,
}

/// What was asked for, without secrets.
#[derive(Clone, Debug, Serialize, Deserialize)]
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
    /// Puts together what was measured of each server and holds the first against the thresholds. There must be one.
    pub fn new(
        scenario: Option<String>,
        measured: Vec<(&Trial, Figures)>,
        floor: Option<Figures>,
        thresholds: &[Threshold],
    ) -> Self {
        let of_servers = measured.iter().flat_map(|(trial, figures)| warnings(trial, figures));
        let warnings = of_servers.chain(floor.as_ref().and_then(floor_warning)).collect();
        let mut all = measured.into_iter().map(|(trial, figures)| (trial, Other::new(trial, figures, floor.as_ref())));
        let (trial, first) = all.next().expect("a run has a server");
        let value = |threshold: &Threshold| match threshold.figure.name {
            TIMES_FLOOR => first.times_floor,
            _ => threshold.figure.of(&first.figures),
        };
        let broken = thresholds.iter().filter(|threshold| threshold.is_broken_by(value(threshold)));
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            scenario,
            load: Load::of(&trial.plan),
            warnings,
            failed: broken.map(|threshold| threshold.show(value(threshold))).collect(),
            name: first.name,
            times_floor: first.times_floor,
            ratios: first.ratios,
            figures: first.figures,
            against: all.map(|(_, other)| other).collect(),
            floor,
        }
    }

    /// Names and figures of all servers, the floor last.
    pub fn columns(&self) -> Vec<(&str, &Figures)> {
        let others = self.against.iter().map(|other| (other.name.as_str(), &other.figures));
        let first = [(self.name.as_str(), &self.figures)].into_iter();
        first.chain(others).chain(self.floor.iter().map(|floor| ("floor", floor))).collect()
    }
}

impl Other {
    fn new(trial: &Trial, figures: Figures, floor: Option<&Figures>) -> Self {
        Self {
            name: trial.course.name.clone(),
            servers: servers(&trial.plan),
            times_floor: times_floor(&figures, floor),
            ratios: floor.map(|floor| ratios(&figures, floor)).unwrap_or_default(),
            figures,
        }
    }
}

impl Load {
    fn of(plan: &Plan) -> Self {
        Self {
            servers: servers(plan),
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

fn servers(plan: &Plan) -> Vec<String> {
    plan.targets.iter().map(|target| format!("ws://{}{}", target.host, target.path)).collect()
}

fn times_floor(figures: &Figures, floor: Option<&Figures>) -> Option<f64> {
    Some(figures.server?.cpu_per_delivery? / floor?.server?.cpu_per_delivery?)
}

/// Times, sizes and rates as multiples of the floor's. What the floor does for nothing has no multiple.
fn ratios(figures: &Figures, floor: &Figures) -> BTreeMap<String, f64> {
    let quantities = NAMES.iter().filter(|name| name.unit != Unit::Count);
    let ratio = quantities.filter_map(|name| {
        let (value, floor) = (name.of(figures)?, name.of(floor).filter(|floor| *floor > 0.0)?);
        Some((name.name.to_owned(), value / floor))
    });
    ratio.collect()
}
