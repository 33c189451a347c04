//! Flags of a run against servers, and their check into trials: what is done to which server.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use super::{
    LoadArgs, Measured, Trial,
    against::Against,
    parse::{api, at, secret, sources, target},
};
use crate::{
    plan::Api,
    process::Source,
    scenario::{At, Course},
    schedule::Rate,
    turmoil::{Asks, Question, Slow, Storm, Turmoil, Wishes},
    units,
};

/// Where the load goes, who publishes, and what goes on beside it.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags that are there or not")]
pub struct RunArgs {
    /// The load itself.
    #[command(flatten)]
    pub load: LoadArgs,
    /// What the report calls the server
    #[arg(long, default_value = "server")]
    pub name: String,
    /// Server to connect to; repeat it for several that share their rooms, taken in turn
    #[arg(long = "url", default_value = "ws://127.0.0.1:8000/connection/websocket")]
    pub urls: Vec<String>,
    /// Another server to put under the same load afterwards, such as
    /// `name=centrifugo,url=ws://127.0.0.1:8001/connection/websocket,pid=4711,secret-file=FILE`; repeatable.
    /// Keys: name, url, pid, metrics, secret, secret-file, api, api-key, api-key-file
    #[arg(long, value_name = "SPEC", value_parser = Against::parse)]
    pub against: Vec<Against>,
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
    /// Publish through the server API, whose method `publish` is at this URL, instead of as clients
    #[arg(long, value_name = "URL")]
    pub api: Option<String>,
    /// Key of the server API
    #[arg(long, env = "ROOMCAST_API_KEY", hide_env_values = true, default_value = "")]
    pub api_key: String,
    /// HS256 secret to sign connection tokens with [default: connect without a token]
    #[arg(long, env = "ROOMCAST_AUTH_HMAC_SECRET", hide_env_values = true)]
    pub secret: Option<String>,
    /// File that holds the secret
    #[arg(long, env = "ROOMCAST_AUTH_HMAC_SECRET_FILE", value_name = "FILE", conflicts_with = "secret")]
    pub secret_file: Option<PathBuf>,
    /// Clients ask for positions to be watched
    #[arg(long)]
    pub positioned: bool,
    /// Clients ask for what they missed when they come back
    #[arg(long)]
    pub recover: bool,
    /// Clients ask to be told who enters and leaves
    #[arg(long)]
    pub join_leave: bool,
    /// Connections closed and opened again per second, while publishing
    #[arg(long, default_value = "0", value_parser = units::rate)]
    pub churn: Rate,
    /// How many of a hundred connections break at once, after a third of --duration
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub storm: Option<u32>,
    /// How long those stay away before the first comes back
    #[arg(long, default_value = "0s", value_parser = units::duration)]
    pub storm_away: Duration,
    /// Over which time they come back then; 0s lets all come at once
    #[arg(long, default_value = "0s", value_parser = units::duration)]
    pub storm_over: Duration,
    /// Clients whose connection the server ends come back, at another server if there is one
    #[arg(long)]
    pub reconnect: bool,
    /// How many of a hundred clients read slowly
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub slow: Option<u32>,
    /// Bytes each of them reads per second
    #[arg(long, default_value = "4KB", value_parser = units::size)]
    pub slow_read: usize,
    /// Questions of clients about their room per second
    #[arg(long, default_value = "0", value_parser = units::rate)]
    pub ask: Rate,
    /// Which question
    #[arg(long, value_enum, default_value_t = Question::Presence)]
    pub question: Question,
    /// A command for the shell at a moment of publishing, such as `30s=kill -TERM 4711`; repeatable
    #[arg(long, value_name = "TIME=COMMAND", value_parser = at)]
    pub at: Vec<At>,
    /// Process of the server to account; repeatable
    #[arg(long = "pid", value_parser = clap::value_parser!(u32).range(1..))]
    pub pids: Vec<u32>,
    /// Prometheus metrics of a process of the server, to account it where --pid cannot; repeatable
    #[arg(long, value_name = "URL")]
    pub metrics: Vec<String>,
    /// Measure the floor right before, with the same load, and print ratios to it
    #[arg(long)]
    pub floor: bool,
}

impl RunArgs {
    /// What is done to which server, in order.
    ///
    /// # Errors
    /// Everything that is wrong with the flags.
    pub fn trials(&self) -> Result<Vec<Trial>, Vec<String>> {
        let mut plan = self.load.unchecked();
        plan.publishers = if plan.rate == Rate(0) && plan.spike.is_none() { 0 } else { self.publishers };
        plan.publishers_subscribe = self.publisher_subscribes;
        plan.in_flight = self.in_flight as usize;
        plan.wishes = Wishes { positioned: self.positioned, recover: self.recover, join_leave: self.join_leave };
        plan.turmoil = self.turmoil();
        let measured = Measured { pid: !self.accounted().is_empty(), floor: self.floor };
        let mut faults = self.load.complete(&mut plan, measured);
        let mut keep = |fault| faults.push(fault);
        plan.targets = self.urls.iter().filter_map(|url| target(url).map_err(&mut keep).ok()).collect();
        plan.sources = self.sources.iter().filter_map(|text| sources(text).map_err(&mut keep).ok()).flatten().collect();
        let secret = secret(self.secret.as_deref(), self.secret_file.as_deref(), "--secret-file");
        plan.secret = secret.map_err(&mut keep).ok().flatten();
        plan.api = self.api().map_err(&mut keep).ok().flatten();
        let pauses = self.load.pauses();
        let course = Course { name: self.name.clone(), pauses, sources: self.accounted(), at: self.at.clone() };
        let others = self.against.iter().filter_map(|other| other.trial(&plan, pauses).map_err(&mut keep).ok());
        let others: Vec<Trial> = others.collect();
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok([Trial { plan, course }].into_iter().chain(others).collect())
    }

    fn turmoil(&self) -> Turmoil {
        let (from, away, over) = (self.load.duration / 3, self.storm_away, self.storm_over);
        Turmoil {
            churn: self.churn,
            storm: self.storm.map(|percent| Storm { percent, from, away, over }),
            slow: self.slow.map(|percent| Slow { percent, bytes: self.slow_read }),
            asks: (self.ask > Rate(0)).then_some(Asks { rate: self.ask, question: self.question }),
            reconnect: self.reconnect,
        }
    }

    fn api(&self) -> Result<Option<Api>, String> {
        let Some(url) = &self.api else { return Ok(None) };
        Ok(Some(Api { target: api(url)?, key: self.api_key.clone() }))
    }

    fn accounted(&self) -> Vec<Source> {
        let metrics = self.metrics.iter().cloned().map(Source::Metrics);
        self.pids.iter().copied().map(Source::Pid).chain(metrics).collect()
    }
}
