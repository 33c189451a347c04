//! The command line: flags, their defaults and units, and their check into a [`Plan`]. All faults are told at once. Knows
//! no phases and no figures but their names.

mod against;
mod parse;
mod preset;
mod run;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};

pub use self::{
    preset::{Preset, expand},
    run::RunArgs,
};
use crate::{
    clock, payload,
    plan::{Plan, Spelling},
    scenario::{Course, Pauses},
    schedule::{Rate, Spike},
    threshold::{Threshold, Thresholds},
    turmoil::{Turmoil, Wishes},
    units,
};

/// Files a worker needs besides its connections.
const OTHER_FILES: u64 = 32;

/// Puts load on servers of the Centrifuge client protocol and checks every delivery.
///
/// Connects clients, spreads them over rooms, publishes in an open loop, and measures each latency from the intended send
/// time. `run SCENARIO` sets the flags of a scenario, floor included; flags of your own come on top. Exit codes: 0 done, 1
/// the run could not be made, 64 wrong flags, 99 a condition of --fail-if came true or a figure of `compare` got worse.
#[derive(Debug, Parser)]
#[command(name = "roomcast-loadtest", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do instead of the load.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The load.
    #[command(flatten)]
    pub run: RunArgs,
}

/// What can be done besides the load itself.
#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "one value, made once")]
pub enum Command {
    /// A scenario: flags that belong together, and the floor in the same run
    #[command(args_override_self = true)]
    Run(ScenarioArgs),
    /// Two reports side by side
    Compare(CompareArgs),
    /// Measure the machine's own price: a bare accept-and-write loop under the same clients
    #[command(args_override_self = true)]
    Floor(LoadArgs),
    /// One worker process; started by the tool itself
    #[command(hide = true)]
    Worker,
    /// The bare write loop; started by the tool itself
    #[command(hide = true)]
    FloorServer,
}

/// A scenario and what is different from it.
#[derive(Debug, Args)]
pub struct ScenarioArgs {
    /// Which
    #[arg(value_enum)]
    pub scenario: Preset,
    /// Do not measure the floor
    #[arg(long)]
    pub no_floor: bool,
    /// Everything else.
    #[command(flatten)]
    pub run: RunArgs,
}

/// Which reports are compared.
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// Report of --json to compare with
    pub before: PathBuf,
    /// Report of --json that is compared
    pub after: PathBuf,
    /// End with exit code 99 when a figure got worse by more than this, such as `10%`
    #[arg(long, value_name = "PERCENT", value_parser = units::percent)]
    pub worse_than: Option<f64>,
}

/// How much load, and how it is reported.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// Subscribing connections
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub clients: u32,
    /// Rooms they spread over evenly [default: 1]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub rooms: Option<u32>,
    /// Clients of a room, where --rooms is not given
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub room_size: Option<u32>,
    /// What room names begin with; a number follows
    #[arg(long, default_value = "load-")]
    pub room_prefix: String,
    /// Messages per second, all publishers together; 0 publishes nothing
    #[arg(long, default_value = "50", value_parser = units::rate)]
    pub rate: Rate,
    /// Bytes of a payload
    #[arg(long, default_value = "128", value_parser = units::size)]
    pub size: usize,
    /// How long to publish
    #[arg(long, default_value = "10s", value_parser = units::duration)]
    pub duration: Duration,
    /// Messages per second for a while in the midst of --duration
    #[arg(long, value_name = "RATE", value_parser = units::rate)]
    pub spike: Option<Rate>,
    /// How long that lasts
    #[arg(long, default_value = "5s", value_parser = units::duration)]
    pub spike_for: Duration,
    /// How long to hold the idle connections before publishing, to measure what they cost
    #[arg(long, default_value = "0s", value_parser = units::duration)]
    pub hold: Duration,
    /// How long to wait after the last connect before memory is measured
    #[arg(long, default_value = "1s", value_parser = units::duration)]
    pub settle: Duration,
    /// How long nothing may arrive before what is missing counts as lost
    #[arg(long, default_value = "2s", value_parser = units::duration)]
    pub quiet: Duration,
    /// Connections opened per second; 0 opens them as fast as the server takes them
    #[arg(long, default_value = "2000", value_parser = units::rate)]
    pub connect_rate: Rate,
    /// Worker processes [default: as many as the file limit asks for]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub workers: Option<u32>,
    /// Encoding of the protocol
    #[arg(long, value_enum, default_value_t = Spelling::Json)]
    pub encoding: Spelling,
    /// Also write the report as JSON to this file, or to standard output with `-`
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Also write the report as one HTML page with plots to this file
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Serve the figures of the moment for Prometheus at this address while the run goes on
    #[arg(long, value_name = "ADDRESS")]
    pub prometheus: Option<SocketAddr>,
    /// Conditions that make the run fail with exit code 99, such as `p99>3ms,lost>0`
    #[arg(long, value_name = "CONDITIONS", value_parser = Threshold::parse_all)]
    pub fail_if: Option<Thresholds>,
}

/// A server to be put under load.
#[derive(Clone, Debug)]
pub struct Trial {
    /// The load.
    pub plan: Plan,
    /// How it goes on.
    pub course: Course,
}

impl LoadArgs {
    /// Lengths of the pauses.
    pub fn pauses(&self) -> Pauses {
        Pauses { settle: self.settle, hold: self.hold }
    }

    /// Conditions of `--fail-if`.
    pub fn thresholds(&self) -> &[Threshold] {
        self.fail_if.as_deref().unwrap_or_default()
    }

    /// The plan of the floor.
    ///
    /// # Errors
    /// Everything that is wrong with the flags.
    pub fn floor_plan(&self) -> Result<Plan, Vec<String>> {
        let mut plan = self.unchecked();
        let faults = self.complete(&mut plan, Measured { pid: true, floor: false });
        if faults.is_empty() { Ok(plan) } else { Err(faults) }
    }

    fn unchecked(&self) -> Plan {
        Plan {
            run: run_number(),
            targets: Vec::new(),
            sources: Vec::new(),
            workers: 1,
            clients: self.clients,
            rooms: self.rooms(),
            room_prefix: self.room_prefix.clone(),
            publishers: 0,
            publishers_subscribe: false,
            connect_rate: self.connect_rate,
            rate: self.rate,
            spike: self.spike(),
            size: self.size,
            duration: self.duration,
            in_flight: 1,
            quiet: self.quiet,
            spelling: self.encoding,
            secret: None,
            api: None,
            wishes: Wishes::default(),
            turmoil: Turmoil::default(),
        }
    }

    fn rooms(&self) -> u32 {
        let by_size = self.room_size.map(|size| self.clients.div_ceil(size));
        self.rooms.or(by_size).unwrap_or(1)
    }

    /// The spike, in the middle of what is published.
    fn spike(&self) -> Option<Spike> {
        let (whole, length) = (clock::nanos(self.duration), clock::nanos(self.spike_for));
        self.spike.map(|rate| Spike { from: whole.saturating_sub(length) / 2, length: length.min(whole), rate })
    }

    /// Gives a plan its workers and tells what is wrong with it.
    fn complete(&self, plan: &mut Plan, measured: Measured) -> Vec<String> {
        let mut faults = Vec::new();
        if self.size < payload::MIN_SIZE {
            let least = payload::MIN_SIZE;
            faults.push(format!("--size {}: a payload needs {least} bytes for what is checked in it", self.size));
        }
        if self.rooms() > self.clients {
            faults.push(format!("--rooms {}: there are only {} clients to be in them", self.rooms(), self.clients));
        }
        let hold = !self.hold.is_zero();
        let lacking = self.thresholds().iter().filter_map(|one| one.lacks(measured.pid, hold, measured.floor));
        faults.extend(lacking.map(|fault| format!("--fail-if: {fault}")));
        match workers(self.workers, plan.connections()) {
            Ok(workers) => plan.workers = workers,
            Err(fault) => faults.push(fault),
        }
        faults
    }
}

/// What a run is going to know.
#[derive(Clone, Copy)]
struct Measured {
    pid: bool,
    floor: bool,
}

/// Tells this run's messages from those of runs before.
fn run_number() -> u32 {
    let mixed = clock::now() ^ u64::from(std::process::id()) << 32;
    u32::try_from((mixed ^ mixed >> 32) & u64::from(u32::MAX)).unwrap_or_default()
}

/// As many workers as asked for, or as the file limit asks for. Raises the soft limit to the hard one on the way.
fn workers(asked: Option<u32>, connections: u32) -> Result<u32, String> {
    let files = rlimit::increase_nofile_limit(u64::MAX).map_err(|error| format!("the file limit: {error}"))?;
    let each = u32::try_from(files.saturating_sub(OTHER_FILES)).unwrap_or(u32::MAX).max(1);
    let least = connections.div_ceil(each).max(1);
    let workers = asked.unwrap_or(least);
    if workers < least {
        return Err(format!(
            "--workers {workers}: {connections} connections need {least} workers, because the system lets each open \
             {files} files; give --workers {least} or raise the hard limit (ulimit -Hn)"
        ));
    }
    Ok(workers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_few_workers_are_refused_with_advice() {
        let fault = workers(Some(1), u32::MAX).expect_err("no system lets a process open that many");
        assert!(fault.contains("give --workers"), "{fault}");
    }
}
