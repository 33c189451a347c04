//! The limit of open files, which is a limit of connections.

/// Raises the soft limit to the hard one, and says what it is.
pub(super) fn raise_limit() {
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) => tracing::info!(limit, "open files"),
        Err(error) => tracing::warn!("the limit of open files cannot be raised: {error}"),
    }
}
