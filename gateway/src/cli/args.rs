//! The words of the command line. Flags only name settings; what their values mean is for `config` to say.
#![expect(clippy::doc_markdown, reason = "clap prints these texts on a terminal, where backticks are noise")]

use std::{ffi::OsString, path::PathBuf};

use clap::{Arg, ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};

use super::{Outcome, token::TokenRequest};
use crate::config::{self, Flag, Sources};

/// Settings with a flag of their own; for the others there is `--set`.
const FLAGS: &[(&str, &str)] = &[
    ("listen", "listen"),
    ("internal-listen", "internal_listen"),
    ("node-name", "node_name"),
    ("redis-url", "redis.url"),
    ("log-level", "log.level"),
    ("log-format", "log.format"),
    ("playground", "playground"),
];

/// What was asked for and where the settings are.
pub(super) struct Arguments {
    pub(super) command: Command,
    pub(super) sources: Sources,
}

/// A gateway for rooms over WebSockets: a message from any client in a room reaches every client in it, on any node.
#[derive(Parser)]
#[command(name = "roomcast", version, after_help = "`roomcast --help` lists every setting with its variable.")]
struct Words {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    flags: Flags,
}

#[derive(clap::Args)]
#[command(next_help_heading = "Settings")]
struct Flags {
    /// Settings file, in TOML [env: ROOMCAST_CONFIG]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Any other setting, for instance --set redis.prefix=chat; may be repeated
    #[arg(long, global = true, value_name = "NAME=VALUE", value_parser = parse_pair)]
    set: Vec<(String, String)>,
}

/// A command; without any, the node runs.
#[derive(Subcommand)]
pub(super) enum Command {
    /// Run a node; what happens without a command as well
    Serve,
    /// Print a token for a connection, or with --subscription for one room, signed with auth.hmac_secret or a private key
    Token(Box<TokenRequest>),
    /// Say whether this node would accept a token, for a connection or a room, and if not, which claim fails; exit code 0 or 1
    CheckToken {
        /// The token, or - to read it from the standard input
        token: String,
    },
    /// Print every setting with its value and where that came from; exit code 64 if there are faults
    CheckConfig {
        /// Print the table of all settings in Markdown instead
        #[arg(long)]
        markdown: bool,
    },
    /// Ask the node at internal_listen whether it is ready; exit code 0 or 1
    Health,
}

/// Reads the arguments. What clap has to say, help included, comes back as an outcome.
pub(super) fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    environment: Vec<(OsString, OsString)>,
) -> Result<Arguments, Outcome> {
    let matches = words().try_get_matches_from(arguments).map_err(|error| outcome_of(&error))?;
    let Words { command, flags } = Words::from_arg_matches(&matches).map_err(|error| outcome_of(&error))?;
    let own = FLAGS.iter().filter_map(|(flag, path)| own_flag(flag, path, &matches));
    let set = flags.set.into_iter().map(|(path, value)| Flag { name: "--set".to_owned(), path, value });
    let sources = Sources { file: flags.config, flags: own.chain(set).collect(), environment };
    Ok(Arguments { command: command.unwrap_or(Command::Serve), sources })
}

/// The words with a flag for each of [`FLAGS`], described as the setting is.
fn words() -> clap::Command {
    let arg = |(flag, path): &(&'static str, &'static str)| {
        let help = config::wrap(&config::describe(path), 100).join("\n");
        Arg::new(*path).long(*flag).help(help).help_heading("Settings").value_name("VALUE").global(true)
    };
    Words::command().args(FLAGS.iter().map(arg)).after_long_help(after_help())
}

fn own_flag(flag: &str, path: &str, matches: &ArgMatches) -> Option<Flag> {
    let value = matches.get_one::<String>(path)?.clone();
    Some(Flag { name: format!("--{flag}"), path: path.to_owned(), value })
}

fn outcome_of(error: &clap::Error) -> Outcome {
    let text = format!("{}\n", error.render().to_string().trim_end());
    if error.use_stderr() { Outcome::usage(text) } else { Outcome::success(text) }
}

fn parse_pair(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').map(|(name, value)| (name.trim().to_owned(), value.to_owned()));
    pair.ok_or_else(|| "write the name of a setting, = and its value".to_owned())
}

fn after_help() -> String {
    let introduction = [
        "Without any key or secret in its settings the node runs in development mode: on loopback addresses only, with a \
         random secret, open rooms and a page to try it with.",
        "All settings. Each may stand in the file, in its variable, or behind --set; flags go before variables, variables \
         before the file. With _file behind its name (_FILE behind its variable) a setting is read from the file so \
         named. Durations are written 500us, 250ms, 30s, 5m, 1h, 1h30m; sizes 512, 64KB, 1MB, 1GB (1KB is 1024 bytes); lists, \
         outside of the settings file, with commas. Namespaces are declared in the settings file, as [[namespaces]] with \
         a name and the options of [rooms]; so are issuers of tokens that have keys of their own, as [[auth.issuers]] with \
         a name and the options of a key.",
    ];
    introduction.map(|text| config::wrap(text, 110).join("\n") + "\n\n").concat() + &config::help()
}
