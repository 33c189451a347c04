//! The command line: flags, their defaults and units, and their check into a [`Plan`]. All faults are told at once. Knows
//! no phases and no figures but their names.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs},
    path::PathBuf,
    time::Duration,
};

use clap::{Args, Parser, Subcommand};

use crate::{
    clock, payload,
    plan::{Plan, Spelling, Target},
    scenario::Pauses,
    schedule::Rate,
    threshold::{Threshold, Thresholds},
    units,
};

/// Files a worker needs besides its connections.
const OTHER_FILES: u64 = 32;

/// Puts load on servers of the Centrifuge client protocol and checks every delivery.
///
/// Connects clients, spreads them over rooms, publishes in an open loop, and measures each latency from the intended send
/// time. Exit codes: 0 done, 1 the run could not be made, 64 wrong flags, 99 a condition of --fail-if came true.
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
pub enum Command {
    /// Measure the machine's own price: a bare accept-and-write loop under the same clients
    Floor(LoadArgs),
    /// One worker process; started by the tool itself
    #[command(hide = true)]
    Worker,
    /// The bare write loop; started by the tool itself
    #[command(hide = true)]
    FloorServer,
}

/// How much load, and how it is reported.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// Subscribing connections
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub clients: u32,
    /// Rooms they spread over evenly
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub rooms: u32,
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
    /// Conditions that make the run fail with exit code 99, such as `p99>3ms,lost>0`
    #[arg(long, value_name = "CONDITIONS", value_parser = Threshold::parse_all)]
    pub fail_if: Option<Thresholds>,
}

/// Where the load goes, and who publishes.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The load itself.
    #[command(flatten)]
    pub load: LoadArgs,
    /// Server to connect to; repeat it for several, taken in turn
    #[arg(long = "url", default_value = "ws://127.0.0.1:8000/connection/websocket")]
    pub urls: Vec<String>,
    /// Own address to connect from, or a range such as 127.0.0.2-127.0.0.9; repeatable, taken in turn
    #[arg(long = "source-ip", value_name = "ADDRESS")]
    pub sources: Vec<String>,
    /// Publishing connections
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub publishers: u32,
    /// Publishers subscribe to the rooms they publish into, for servers that ask for it
    #[arg(long)]
    pub publisher_subscribes: bool,
    /// Unanswered publishes a publisher may have before it waits
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub in_flight: u32,
    /// HS256 secret to sign connection tokens with [default: connect without a token]
    #[arg(long, env = "ROOMCAST_AUTH_HMAC_SECRET", hide_env_values = true)]
    pub secret: Option<String>,
    /// File that holds the secret
    #[arg(long, env = "ROOMCAST_AUTH_HMAC_SECRET_FILE", value_name = "FILE", conflicts_with = "secret")]
    pub secret_file: Option<PathBuf>,
    /// Process of the server to account; repeatable
    #[arg(long = "pid", value_parser = clap::value_parser!(u32).range(1..))]
    pub pids: Vec<u32>,
    /// Measure the floor right before, with the same load, and print ratios to it
    #[arg(long)]
    pub floor: bool,
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
    pub fn plan(&self) -> Result<Plan, Vec<String>> {
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
            rooms: self.rooms,
            room_prefix: self.room_prefix.clone(),
            publishers: 0,
            publishers_subscribe: false,
            connect_rate: self.connect_rate,
            rate: self.rate,
            size: self.size,
            duration: self.duration,
            in_flight: 1,
            quiet: self.quiet,
            spelling: self.encoding,
            secret: None,
        }
    }

    /// Gives a plan its workers and tells what is wrong with it.
    fn complete(&self, plan: &mut Plan, measured: Measured) -> Vec<String> {
        let mut faults = Vec::new();
        if self.size < payload::MIN_SIZE {
            let least = payload::MIN_SIZE;
            faults.push(format!("--size {}: a payload needs {least} bytes for what is checked in it", self.size));
        }
        if self.rooms > self.clients {
            faults.push(format!("--rooms {}: there are only {} clients to be in them", self.rooms, self.clients));
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

impl RunArgs {
    /// The plan of the load.
    ///
    /// # Errors
    /// Everything that is wrong with the flags.
    pub fn plan(&self) -> Result<Plan, Vec<String>> {
        let mut plan = self.load.unchecked();
        plan.publishers = if plan.rate == Rate(0) { 0 } else { self.publishers };
        plan.publishers_subscribe = self.publisher_subscribes;
        plan.in_flight = self.in_flight as usize;
        let mut faults = self.load.complete(&mut plan, Measured { pid: !self.pids.is_empty(), floor: self.floor });
        let mut keep = |fault| faults.push(fault);
        plan.targets = self.urls.iter().filter_map(|url| target(url).map_err(&mut keep).ok()).collect();
        plan.sources = self.sources.iter().filter_map(|text| sources(text).map_err(&mut keep).ok()).flatten().collect();
        plan.secret = self.secret().map_err(keep).ok().flatten();
        if faults.is_empty() { Ok(plan) } else { Err(faults) }
    }

    fn secret(&self) -> Result<Option<String>, String> {
        let Some(file) = &self.secret_file else { return Ok(self.secret.clone()) };
        match fs::read_to_string(file) {
            Ok(secret) => Ok(Some(secret.trim_end().to_owned())),
            Err(error) => Err(format!("--secret-file {}: {error}", file.display())),
        }
    }
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

/// Takes a URL apart and resolves its host.
fn target(url: &str) -> Result<Target, String> {
    if url.starts_with("wss://") {
        return Err(format!(
            "--url {url}: TLS is not spoken here; point at the server behind the balancer, with ws://"
        ));
    }
    let Some(rest) = url.strip_prefix("ws://") else {
        return Err(format!("--url {url}: it has to begin with ws://"));
    };
    let (host, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let address = resolve(host).map_err(|error| format!("--url {url}: {error}"))?;
    Ok(Target { address, host: host.to_owned(), path })
}

fn resolve(host: &str) -> Result<SocketAddr, String> {
    let named_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let host = if named_port { host.to_owned() } else { format!("{host}:80") };
    let mut addresses = host.to_socket_addrs().map_err(|error| error.to_string())?;
    addresses.next().ok_or_else(|| "the host has no address".into())
}

/// One address, or a range of IPv4 addresses.
fn sources(text: &str) -> Result<Vec<IpAddr>, String> {
    let fault = || format!("--source-ip {text}: write an address, or a range such as 127.0.0.2-127.0.0.9");
    let Some((first, last)) = text.split_once('-') else {
        return Ok(vec![text.parse().map_err(|_| fault())?]);
    };
    let bounds = |text: &str| text.trim().parse::<Ipv4Addr>().map(u32::from).map_err(|_| fault());
    let (first, last) = (bounds(first)?, bounds(last)?);
    if last < first || last - first > 0xffff {
        return Err(fault());
    }
    Ok((first..=last).map(|address| Ipv4Addr::from(address).into()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let one = target("ws://127.0.0.1:8000/connection/websocket?format=protobuf").expect("valid");
        assert_eq!((one.address.port(), one.host.as_str()), (8000, "127.0.0.1:8000"));
        assert_eq!(one.path, "/connection/websocket?format=protobuf");
        let bare = target("ws://127.0.0.1").expect("valid");
        assert_eq!((bare.address.port(), bare.path.as_str()), (80, "/"));
        assert!(target("wss://example.org/").expect_err("no TLS").contains("TLS"));
        assert!(target("http://example.org/").is_err());
    }

    #[test]
    fn sources_may_be_ranges() {
        assert_eq!(sources("127.0.0.2-127.0.0.4").map(|all| all.len()), Ok(3));
        assert_eq!(sources("::1").map(|all| all.len()), Ok(1));
        assert!(sources("127.0.0.4-127.0.0.2").is_err());
        assert!(sources("here").is_err());
    }

    #[test]
    fn too_few_workers_are_refused_with_advice() {
        let fault = workers(Some(1), u32::MAX).expect_err("no system lets a process open that many");
        assert!(fault.contains("give --workers"), "{fault}");
    }
}
