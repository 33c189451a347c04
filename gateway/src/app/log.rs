//! The log of the process: one line per event, pretty for people, JSON for machines. A thread of its own writes it, so that
//! nothing the node does ever waits for whoever reads it.

use std::{
    fs::File,
    io::{self, IsTerminal, Write},
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use parking_lot::Mutex;
use prometheus::IntCounter;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{EnvFilter, fmt};

use crate::config::{self, LogFormat};

/// Lines that may wait to be written; those that come while there are so many are lost.
const LINES: usize = 8192;

/// How long the end waits for lines to be written, which takes the library somewhat more than a second at most.
const FLUSH: Duration = Duration::from_secs(2);

/// The time between two looks at what was lost.
const LOOK: Duration = Duration::from_secs(5);

/// The log while it is written.
#[derive(Clone)]
pub struct Log {
    guard: Arc<Mutex<Option<WorkerGuard>>>,
    /// Lines for which there was no room.
    dropped: ErrorCounter,
    /// Lines that could not be written.
    failed: Arc<AtomicUsize>,
}

impl Log {
    /// Starts logging to the standard error. Libraries speak from `warn` on, whatever the level. [`Log::end`] has to be
    /// called before the process ends.
    ///
    /// # Errors
    /// There are no more open files.
    pub fn start(settings: &config::Log) -> io::Result<Self> {
        let terminal = io::stderr().is_terminal();
        // Not by way of `io::stderr`, which would be locked for all others while a line is on its way.
        let (writer, log) = Self::to(File::from(io::stderr().as_fd().try_clone_to_owned()?), LINES);
        let filter = EnvFilter::new(format!("warn,roomcast={:?}", settings.level));
        let lines = fmt().log_internal_errors(false);
        let lines = lines.with_env_filter(filter).with_writer(writer).with_target(false).with_ansi(terminal);
        let pretty = match settings.format {
            LogFormat::Pretty => true,
            LogFormat::Json => false,
            LogFormat::Auto => terminal,
        };
        // A second log of one process goes where the first one does.
        let _ = if pretty { lines.try_init() } else { lines.json().flatten_event(true).try_init() };
        Ok(log)
    }

    fn to(output: impl Write + Send + 'static, lines: usize) -> (NonBlocking, Self) {
        let failed = Arc::new(AtomicUsize::new(0));
        let output = Output { output, failed: failed.clone() };
        let (writer, guard) =
            NonBlockingBuilder::default().lossy(true).buffered_lines_limit(lines).thread_name("log").finish(output);
        let dropped = writer.error_counter();
        (writer, Self { guard: Arc::new(Mutex::new(Some(guard))), dropped, failed })
    }

    /// Lines that were lost since the start.
    fn lost(&self) -> u64 {
        (self.dropped.dropped_lines() + self.failed.load(Ordering::Relaxed)) as u64
    }

    /// Counts what is lost, and says so in the log once it goes on.
    pub(super) async fn count_lost(self, counter: IntCounter, stop: CancellationToken) {
        let mut told = 0;
        loop {
            let lost = self.lost();
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

    /// Has what waits written, if whoever reads it takes it, and ends the log.
    pub fn end(&self) {
        // Held until it has ended, so that whoever ends it as well does not end the process meanwhile.
        let mut held = self.guard.lock();
        let guard = held.take();
        let (ending, ended) = mpsc::channel::<()>();
        // Not on this thread: where nobody reads, the library says so on the standard output, which may be the same pipe.
        thread::spawn(move || {
            drop(guard);
            drop(ending);
        });
        let _ = ended.recv_timeout(FLUSH);
    }
}

/// What is written to. A line that fails, because a disc is full or nobody reads any more, is counted: to say so at the same
/// place would fail as well.
struct Output<W> {
    output: W,
    failed: Arc<AtomicUsize>,
}

impl<W: Write> Write for Output<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.write(bytes)
    }

    /// Each line comes by this.
    fn write_all(&mut self, line: &[u8]) -> io::Result<()> {
        self.output.write_all(line).inspect_err(|_| {
            self.failed.fetch_add(1, Ordering::Relaxed);
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// Takes nothing until it may, and then everything, each line in its own time.
    struct Stuck {
        free: mpsc::Receiver<()>,
        time: Duration,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // The other end is dropped to set it free.
            let _ = self.free.recv();
            thread::sleep(self.time);
            self.written.lock().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Polls with a bound that a busy machine keeps.
    fn until(what: &str, mut holds: impl FnMut() -> bool) {
        let begin = Instant::now();
        while !holds() {
            assert!(begin.elapsed() < Duration::from_secs(20), "never: {what}");
            thread::yield_now();
        }
    }

    #[test]
    fn who_logs_never_waits_and_each_line_is_written_or_counted() {
        const LOGGED: usize = 100;
        let (busy, free) = mpsc::channel();
        let written = Arc::new(Mutex::new(Vec::new()));
        let (mut writer, log) = Log::to(Stuck { free, time: Duration::ZERO, written: written.clone() }, 10);
        let logs = thread::spawn(move || (0..LOGGED).for_each(|_| writer.write_all(b"\n").unwrap()));
        until("who logs goes on", || logs.is_finished());
        assert!(log.lost() >= LOGGED as u64 - 11, "ten wait, and one is on its way");
        drop(busy);
        until("each is written or counted", || written.lock().len() as u64 + log.lost() == LOGGED as u64);
    }

    /// The process ends when this returns, whoever else is ending the log.
    #[test]
    fn the_end_waits_for_what_is_not_written_yet() {
        let (busy, free) = mpsc::channel();
        let written = Arc::new(Mutex::new(Vec::new()));
        let (mut writer, log) = Log::to(Stuck { free, time: Duration::from_millis(50), written: written.clone() }, 10);
        writer.write_all(b"last words").unwrap();
        let other = log.clone();
        let other = thread::spawn(move || other.end());
        until("the other one ends it", || log.guard.try_lock().is_none_or(|guard| guard.is_none()));
        drop(busy);
        log.end();
        assert_eq!(*written.lock(), b"last words");
        other.join().unwrap();
    }

    #[test]
    fn what_cannot_be_written_is_counted() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let (mut writer, log) = Log::to(full, 10);
        for _ in 0..3 {
            writer.write_all(b"\n").unwrap();
        }
        until("each is counted", || log.lost() == 3);
    }

    #[tokio::test]
    async fn what_is_lost_becomes_a_metric() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let (mut writer, log) = Log::to(full, 10);
        writer.write_all(b"\n").unwrap();
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
