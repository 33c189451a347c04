//! The command line: arguments to settings and commands. Commands answer with what to print and an exit code, so that they
//! can be asked without a process; nothing here knows rooms or connections.

mod args;
mod check_token;
mod health;
mod keys;
mod outcome;
mod token;

use std::ffi::OsString;

pub use health::health;
pub use keys::{signer, trust, verifier};
pub use outcome::Outcome;

use crate::config::{self, Loaded, Sources};
use args::{Arguments, Command};

/// What was asked for.
pub enum Action {
    /// Run a node with these settings, which may be read again from where they are.
    Serve(Box<Loaded>, Sources),
    /// A command that has been carried out.
    Done(Outcome),
}

/// Reads arguments and environment, and carries out every command but `serve`.
pub fn run(arguments: impl IntoIterator<Item = OsString>, environment: Vec<(OsString, OsString)>) -> Action {
    let Arguments { command, sources } = match args::parse(arguments, environment) {
        Ok(arguments) => arguments,
        Err(outcome) => return Action::Done(outcome),
    };
    match command {
        Command::Serve => match load(&sources) {
            Ok(loaded) => Action::Serve(Box::new(loaded), sources),
            Err(outcome) => Action::Done(outcome),
        },
        Command::CheckConfig { markdown: true } => Action::Done(Outcome::success(config::markdown_table())),
        Command::CheckConfig { markdown: false } => Action::Done(with_settings(&sources, check_config)),
        Command::Token(request) => Action::Done(with_settings(&sources, |loaded| token::token(&request, loaded))),
        Command::CheckToken { token } => {
            Action::Done(with_settings(&sources, |loaded| check_token::check_token(&token, loaded)))
        }
        // Whoever asks for health knows two answers only, and settings with faults make no healthy node.
        Command::Health => match load(&sources) {
            Ok(loaded) => Action::Done(health(&loaded.settings)),
            Err(outcome) => Action::Done(Outcome::failure(outcome.stderr)),
        },
    }
}

/// Reads and checks the settings.
///
/// # Errors
/// What is wrong with them, as the command line says it.
pub fn load(sources: &Sources) -> Result<Loaded, Outcome> {
    config::load(sources, &[keys::check]).map_err(|faults| Outcome::usage(format!("roomcast: {faults}\n")))
}

fn with_settings(sources: &Sources, command: impl FnOnce(&Loaded) -> Outcome) -> Outcome {
    load(sources).map_or_else(|outcome| outcome, |loaded| command(&loaded))
}

fn check_config(loaded: &Loaded) -> Outcome {
    let lines = |kind: &str, texts: &[String]| {
        texts.iter().map(|text| format!("{kind}: {text}\n")).collect::<Vec<_>>().concat()
    };
    let mut outcome = Outcome::success(loaded.listing());
    outcome.stderr = lines("warning", &loaded.warnings) + &lines("note", &loaded.notes);
    outcome
}
