//! How the connection that a request came on is ended from elsewhere, whatever is still to be written on it. Knows nothing
//! of requests.

use std::{sync::Arc, time::Duration};

use tokio::sync::SetOnce;

/// A handle on one HTTP connection, put into its requests by the listener.
#[derive(Clone, Debug, Default)]
pub struct Hangup(Arc<SetOnce<Duration>>);

impl Hangup {
    /// Ends the connection at the latest after `patience`. The first word counts.
    pub fn within(&self, patience: Duration) {
        let _ = self.0.set(patience);
    }

    /// Waits until somebody wants the end, and gives how long what is left may take.
    pub async fn asked(&self) -> Duration {
        *self.0.wait().await
    }
}
