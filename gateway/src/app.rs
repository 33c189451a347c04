//! Builds the node from its settings, runs it, and stops it.

use crate::config::Loaded;

/// Runs a node until it is told to stop.
///
/// # Errors
/// The node could not start, for instance because an address is taken.
pub async fn serve(loaded: Loaded) -> anyhow::Result<()> {
    std::future::ready(()).await;
    anyhow::bail!("{} cannot serve yet", loaded.settings.node_name)
}
