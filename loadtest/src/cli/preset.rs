//! Scenarios by name. A preset is nothing but flags, put before those that are given, so that each of them can be
//! overridden and none of them is hidden.

use std::ffi::OsString;

use clap::ValueEnum;

/// A scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Preset {
    /// Connections that only answer pings: what they cost
    Idle,
    /// One large room
    FanOut,
    /// Many small rooms
    Chat,
    /// Publishing through the server API
    PublishApi,
    /// Connections that come and go all the time
    Churn,
    /// All connections break at once and come back
    ReconnectStorm,
    /// The same, and clients get what they missed (rooms with history and recovery)
    Recovery,
    /// Some clients of a busy room do not keep up
    SlowConsumers,
    /// Clients come and go, are told of it, and ask who is there (rooms with presence and join/leave)
    Presence,
}

impl Preset {
    /// Its flags.
    pub fn flags(self) -> &'static str {
        match self {
            Self::Idle => "--clients 10000 --room-size 10 --rate 0 --hold 60s --connect-rate 5000",
            Self::FanOut => "--clients 1000 --rate 50 --duration 20s",
            Self::Chat => "--clients 1000 --room-size 2 --rate 5000 --duration 20s",
            Self::PublishApi => {
                "--clients 1000 --room-size 10 --rate 2000 --publishers 16 --in-flight 1 --duration 20s \
                 --api http://127.0.0.1:9000/api/publish"
            }
            Self::Churn => "--clients 2000 --room-size 10 --rate 100 --churn 500 --duration 20s",
            Self::ReconnectStorm => "--clients 5000 --room-size 10 --rate 500 --storm 100 --reconnect --duration 30s",
            Self::Recovery => {
                "--clients 5000 --room-size 10 --rate 500 --storm 100 --reconnect --duration 30s --recover"
            }
            Self::SlowConsumers => "--clients 200 --size 4KB --rate 200 --slow 10 --duration 30s",
            Self::Presence => {
                "--clients 1000 --room-size 50 --rate 100 --join-leave --churn 50 --ask 500 --duration 20s"
            }
        }
    }
}

/// The command line with the flags of the scenario it names, if it names one.
pub fn expand(given: Vec<OsString>) -> Vec<OsString> {
    let is_run = given.get(1).is_some_and(|word| word == "run");
    let named = |word: &OsString| word.to_str().and_then(|word| Preset::from_str(word, false).ok());
    let Some(preset) = given.iter().skip(2).find_map(named).filter(|_| is_run) else { return given };
    let mut given = given.into_iter();
    let mut expanded: Vec<OsString> = given.by_ref().take(2).collect();
    expanded.extend(preset.flags().split_whitespace().map(OsString::from));
    expanded.extend(given);
    expanded
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn parsed(words: &str) -> crate::cli::ScenarioArgs {
        let words = expand(words.split(' ').map(OsString::from).collect());
        match Cli::try_parse_from(words).expect("valid").command {
            Some(Command::Run(args)) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_scenario_is_made_of_flags_that_exist() {
        for preset in Preset::value_variants() {
            let name = preset.to_possible_value().expect("none is hidden");
            let args = parsed(&format!("tool run {}", name.get_name()));
            let trials = args.run.trials().unwrap_or_else(|faults| panic!("{preset:?}: {faults:?}"));
            assert_eq!((args.scenario, trials.len()), (*preset, 1));
        }
    }

    #[test]
    fn flags_of_ones_own_win() {
        let args = parsed("tool run --rate 7 chat --clients 10 --url ws://127.0.0.1:1/ --url ws://127.0.0.1:2/");
        let trials = args.run.trials().expect("valid");
        let plan = &trials[0].plan;
        assert_eq!((plan.clients, plan.rooms, plan.rate.as_f64(), plan.targets.len()), (10, 5, 7.0, 2));
    }
}
