//! Takes keys, origins and the rules of rooms from the settings again while the node runs: at SIGHUP and, where `reload` is
//! set, whenever the settings file changes. Settings with faults change nothing.

use std::{path::PathBuf, sync::Arc, time::Duration};

use sha1::{Digest, Sha1};
use tokio::{
    signal::unix::Signal,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use crate::{
    cli,
    config::{Auth, Loaded, Sources},
    session::Context,
};

/// How often the settings file is looked at. Its content is compared, not its time: a file that is swapped by a link, as
/// Kubernetes does, is seen as well.
const LOOK: Duration = Duration::from_secs(1);

/// What it takes to read the settings again.
pub(super) struct Reload {
    sources: Sources,
    loaded: Loaded,
    context: Arc<Context>,
    hangup: Signal,
}

impl Reload {
    /// Ready to read `sources` again, at `hangup` and when the file changes; `loaded` is what they said at the start.
    pub(super) fn new(sources: Sources, loaded: Loaded, context: Arc<Context>, hangup: Signal) -> Self {
        Self { sources, loaded, context, hangup }
    }

    /// Reloads whenever it is due, until `stop`.
    pub(super) async fn run(self, stop: CancellationToken) {
        stop.run_until_cancelled(self.reload_when_due()).await;
    }

    async fn reload_when_due(mut self) {
        let watched = self.sources.settings_file().filter(|_| self.loaded.settings.reload);
        let mut content = digest(watched.clone()).await;
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = self.hangup.recv() => self.reload("SIGHUP"),
                _ = looks.tick(), if watched.is_some() => {
                    let now = digest(watched.clone()).await;
                    // A file that cannot be read just now is about to be replaced, or will be complained of at SIGHUP.
                    if now.is_some() && now != content {
                        content = now;
                        self.reload("the settings file has changed");
                    }
                }
            }
        }
    }

    fn reload(&mut self, why: &str) {
        let loaded = match cli::load(&self.sources) {
            Ok(loaded) => loaded,
            Err(faults) => {
                return tracing::error!("{why}, but the settings of before stay: {}", faults.stderr.trim_end());
            }
        };
        if loaded.development != self.loaded.development {
            return tracing::error!(
                "{why}, but the settings of before stay: development mode begins and ends by a restart"
            );
        }
        // The keys first: they alone can be refused.
        if let Err(message) = self.take_keys(&loaded.settings.auth).and_then(|()| self.context.reload(&loaded.settings))
        {
            return tracing::error!("{why}, but the settings of before stay: {message}");
        }
        let fixed = self.loaded.settings.changed_but_fixed(&loaded.settings);
        if !fixed.is_empty() {
            tracing::warn!("changed, but taken at the next start only: {}", fixed.join(", "));
        }
        tracing::info!("{why}: keys, origins and the rules of rooms are taken anew");
    }
}

impl Reload {
    fn take_keys(&self, auth: &Auth) -> Result<(), String> {
        match &self.context.verifier {
            Some(verifier) => verifier.replace(cli::trust(auth)).map_err(|error| format!("a public key {error}")),
            None if auth.any_key() => Err("a node that has no key takes its first one at a restart".to_owned()),
            None => Ok(()),
        }
    }
}

async fn digest(path: Option<PathBuf>) -> Option<[u8; 20]> {
    Some(Sha1::digest(tokio::fs::read(path?).await.ok()?).into())
}
