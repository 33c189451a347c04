//! The signals that stop a node: the first one in good order, the second one at once.

use tokio::signal::unix::{SignalKind, signal};

/// Waits for SIGTERM or SIGINT.
///
/// # Errors
/// Signals cannot be listened to.
pub(super) async fn first() -> std::io::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// From now on a signal ends the process at once.
pub(super) fn end_at_the_second() {
    tokio::spawn(async {
        if first().await.is_ok() {
            tracing::warn!("a second signal: ending at once");
            std::process::exit(1);
        }
    });
}
