//! What all sessions of a node share: the node, the keys, the rules and the limits. Made once, before the first client.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use arc_swap::{ArcSwap, Guard};
use prometheus::{IntCounter, IntCounterVec};

use super::{Limits, Revoked, secret::SecretNames};
use crate::{auth::Verifier, config::Settings, hooks::Hooks, metrics::Metrics, node::Node};

/// What a session needs beside its own state.
pub struct Context {
    /// This node.
    pub node: Arc<Node>,
    /// Checks tokens; absent where no key is set.
    pub verifier: Option<Verifier>,
    /// Limits, as they were at the start.
    pub settings: Arc<Settings>,
    /// What may be reloaded: keys, origins and the rules of rooms.
    current: ArcSwap<Settings>,
    /// The node's metrics.
    pub metrics: Arc<Metrics>,
    /// What a backend is asked; absent where nobody is.
    pub hooks: Option<Arc<Hooks>>,
    /// Tokens and users that are not let in.
    pub revoked: Revoked,
    /// Secret names of sessions, by which commands find those of them that cannot be spoken to otherwise.
    pub names: SecretNames,
    /// How much may be asked for in a second.
    pub limits: Limits,
    pub(super) commands: CommandCounts,
    draining: AtomicBool,
}

impl Context {
    /// The context of a node's sessions.
    pub fn new(node: Arc<Node>, verifier: Option<Verifier>, settings: Arc<Settings>, metrics: Arc<Metrics>) -> Self {
        let commands = CommandCounts::new(&metrics.commands);
        let current = ArcSwap::new(settings.clone());
        let (names, limits) = (SecretNames::default(), Limits::new(&settings.limits, &metrics));
        let (hooks, revoked, draining) = (None, Revoked::default(), AtomicBool::new(false));
        Self { node, verifier, settings, current, metrics, hooks, revoked, names, limits, commands, draining }
    }

    /// The same, asking a backend.
    #[must_use]
    pub fn with_hooks(self, hooks: Arc<Hooks>) -> Self {
        Self { hooks: Some(hooks), ..self }
    }

    /// The settings as they are now, for what may change while the node runs.
    pub fn current(&self) -> Guard<Arc<Settings>> {
        self.current.load()
    }

    /// From now on keys, origins and the rules of rooms are those of `settings`.
    ///
    /// # Errors
    /// A key cannot be used; nothing has changed then.
    pub fn reload(&self, settings: &Settings) -> Result<(), String> {
        if let Some(hooks) = &self.hooks {
            hooks.reload(settings);
        }
        self.current.store(Arc::new(settings.clone()));
        Ok(())
    }

    /// From now on no client is let in any more.
    pub fn start_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether the node is about to end.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

/// Counters of commands, by method and result, looked up by name once.
pub(super) struct CommandCounts(HashMap<(&'static str, &'static str), IntCounter>);

const METHODS: [&str; 12] = [
    "connect",
    "subscribe",
    "unsubscribe",
    "publish",
    "presence",
    "presence_stats",
    "history",
    "send",
    "rpc",
    "refresh",
    "sub_refresh",
    "other",
];
const RESULTS: [&str; 3] = ["ok", "error", "disconnect"];

impl CommandCounts {
    fn new(counts: &IntCounterVec) -> Self {
        let all = METHODS.iter().flat_map(|method| RESULTS.iter().map(move |result| (*method, *result)));
        Self(all.map(|key| (key, counts.with_label_values(&[key.0, key.1]))).collect())
    }

    pub(super) fn count(&self, method: &'static str, result: &'static str) {
        if let Some(counter) = self.0.get(&(method, result)) {
            counter.inc();
        }
    }
}
