//! The log of the process: one line per event, pretty for people, JSON for machines. A thread of its own writes it, so that
//! nothing the node does ever waits for whoever reads it.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    fs::File,
    io::{self, IsTerminal},
    os::fd::AsFd,
    panic::{self, PanicHookInfo},
    sync::Arc,
    thread,
    time::Duration,
};

use prometheus::IntCounter;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::field::display;
use tracing_subscriber::{EnvFilter, fmt};

use super::lines::Lines;
use crate::config::{self, LogFormat};

/// Lines that may wait to be written; those that come while there are so many are lost.
const LINES: usize = 8192;

/// Bytes of those; names of users and reasons may be long.
const BYTES: usize = 8 << 20;

/// How long the end waits for lines to be written.
const FLUSH: Duration = Duration::from_secs(2);

/// The time between two looks at what was lost.
const LOOK: Duration = Duration::from_secs(5);

/// The log while it is written.
#[derive(Clone)]
pub struct Log(Arc<Lines>);

impl Log {
    /// Starts logging to the standard error, panics included. Libraries speak from `warn` on, whatever the level.
    /// [`Log::end`] has to be called before the process ends.
    ///
    /// # Errors
    /// There are no more open files or threads.
    pub fn start(settings: &config::Log) -> io::Result<Self> {
        let terminal = io::stderr().is_terminal();
        // Not by way of `io::stderr`, which would be locked for all others while a line is on its way.
        let log = Lines::to(File::from(io::stderr().as_fd().try_clone_to_owned()?), LINES, BYTES)?;
        let filter = EnvFilter::new(format!("warn,roomcast={:?}", settings.level));
        let lines = fmt().log_internal_errors(false);
        let lines = lines.with_env_filter(filter).with_writer(log.clone()).with_target(false).with_ansi(terminal);
        let pretty = match settings.format {
            LogFormat::Pretty => true,
            LogFormat::Json => false,
            LogFormat::Auto => terminal,
        };
        // A second log of one process goes where the first one does.
        let _ = if pretty { lines.try_init() } else { lines.json().flatten_event(true).try_init() };
        // The library's own would write from the thread that panics, and have it wait for the reader with all that it holds.
        panic::set_hook(Box::new(say));
        Ok(Self(log))
    }

    /// Counts what is lost, and says so in the log once it goes on.
    pub(super) async fn count_lost(self, counter: IntCounter, stop: CancellationToken) {
        let mut told = 0;
        loop {
            let lost = self.0.lost();
            let more = lost.saturating_sub(counter.get());
            counter.inc_by(more);
            if more == 0 && lost > told {
                // Where this line is lost as well, there are more lost than told and it is said again.
                tracing::warn!(
                    lines = lost,
                    "lines of the log were lost since the start: they could not be written in time"
                );
                told = lost;
            }
            if stop.run_until_cancelled(sleep(LOOK)).await.is_none() {
                return;
            }
        }
    }

    /// Has what waits written, if whoever reads it takes it, and with that ends the log.
    pub fn end(&self) {
        self.0.flush(FLUSH);
    }
}

/// Says a panic in the log, with the way to it where `RUST_BACKTRACE` asks for that.
fn say(panic: &PanicHookInfo<'_>) {
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| display(backtrace));
    let (thread, location) = (thread::current(), panic.location().map(display));
    let (thread, message) = (thread.name(), panic.payload_as_str().unwrap_or("with something that is no text"));
    tracing::error!(thread, location, backtrace, "panicked: {message}");
}

#[cfg(test)]
mod tests {
    use std::{io::Write, time::Instant};

    use super::*;

    #[tokio::test]
    async fn what_is_lost_becomes_a_metric() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let log = Log(Lines::to(full, 10, BYTES).unwrap());
        (&*log.0).write_all(b"\n").unwrap();
        log.end();
        let (counter, stop) = (IntCounter::new("lost", "Lost.").unwrap(), CancellationToken::new());
        tokio::spawn(log.count_lost(counter.clone(), stop.clone()));
        let begin = Instant::now();
        while counter.get() == 0 {
            assert!(begin.elapsed() < Duration::from_secs(20), "it is never counted");
            sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(counter.get(), 1);
        stop.cancel();
    }
}
