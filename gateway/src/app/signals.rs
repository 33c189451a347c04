//! The signals that stop a node, the first one in good order, the second one at once; and the one that has it read its
//! settings again.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Log;

/// SIGTERM and SIGINT. From its making on none of them is missed.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Listens to them.
    ///
    /// # Errors
    /// Signals cannot be listened to.
    pub(super) fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// SIGHUP; from its making on it does not end the process.
    ///
    /// # Errors
    /// Signals cannot be listened to.
    pub(super) fn hangup() -> std::io::Result<Signal> {
        signal(SignalKind::hangup())
    }

    /// Waits for the next one.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// From now on a signal ends the process at once.
    pub(super) fn end_at_the_next(mut self, log: Log) {
        tokio::spawn(async move {
            self.next().await;
            tracing::warn!("a second signal: ending at once");
            log.end();
            std::process::exit(1);
        });
    }
}
