//! The log of the process: one line per event, pretty for people, JSON for machines.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, fmt};

use crate::config::{Log, LogFormat};

/// Starts logging to the standard error. Libraries speak from `warn` on, whatever the level.
pub(super) fn init(settings: &Log) {
    let terminal = std::io::stderr().is_terminal();
    let filter = EnvFilter::new(format!("warn,roomcast={:?}", settings.level));
    // A line that cannot be written, because a disc is full or nobody reads on, is lost: to say so at the same place would
    // fail as well, and end the task that had something to log.
    let log = fmt().log_internal_errors(false);
    let log = log.with_env_filter(filter).with_writer(std::io::stderr).with_target(false).with_ansi(terminal);
    let pretty = match settings.format {
        LogFormat::Pretty => true,
        LogFormat::Json => false,
        LogFormat::Auto => terminal,
    };
    // A second node of one process logs as the first one does.
    let _ = if pretty { log.try_init() } else { log.json().flatten_event(true).try_init() };
}
