//! A node of the tests without any transport: its own runtime, hub, broker and cluster, so that it can be killed as a crash
//! would. Its sessions are what the test says.

#![allow(dead_code, reason = "each test file uses the part it needs")]
#![allow(clippy::unwrap_used, reason = "a lock is poisoned only when the test has failed already")]

use std::{
    collections::{BTreeMap, HashMap},
    future::Future,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use roomcast::{
    broker::redis::{RedisBroker, RedisOptions},
    hub::{Hub, Outbox, Seat, Sink, Wire},
    metrics::Metrics,
    node::{
        Hold, Node,
        cluster::{Cluster, Command, ConnectionInfo, Facts, Filter, Floors, Local, Options, Upstreamed},
    },
};
use tokio::runtime::Runtime;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{recorder::DEADLINE, redis::RedisServer};

/// What a node of the tests is like.
#[derive(Clone)]
pub(crate) struct Plan {
    /// Its name.
    pub(crate) name: &'static str,
    /// Time between two beats.
    pub(crate) beat: Duration,
    /// How long answers of other nodes are waited for.
    pub(crate) patience: Duration,
    /// How long clients stay present without being renewed.
    pub(crate) presence_ttl: Duration,
    /// How often they are renewed.
    pub(crate) presence_interval: Duration,
}

impl Plan {
    pub(crate) fn of(name: &'static str) -> Self {
        Self {
            name,
            beat: Duration::from_millis(100),
            patience: DEADLINE,
            presence_ttl: Duration::from_mins(1),
            presence_interval: Duration::from_secs(27),
        }
    }
}

/// One node.
pub(crate) struct TestNode {
    pub(crate) node: Arc<Node>,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) broker: Arc<RedisBroker>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) facts: Arc<Learned>,
    pub(crate) tracker: TaskTracker,
    stop: CancellationToken,
    runtime: Option<Runtime>,
    seats: Mutex<Vec<Hold>>,
}

impl TestNode {
    pub(crate) fn start(server: &RedisServer, plan: &Plan) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        let (sessions, facts) = (Arc::new(Sessions::default()), Arc::new(Learned::default()));
        let entered = runtime.enter();
        let metrics = Arc::new(Metrics::new());
        let hub = Arc::new(Hub::new(1 << 20, metrics.clone(), tracker.clone()));
        let options = RedisOptions::new(server.url());
        let broker = RedisBroker::start(&options, hub.clone(), metrics, &tracker, stop.clone()).unwrap();
        let node = Node::new(plan.name, hub.clone(), broker.clone().into(), tracker.clone());
        let node = node.with_presence(broker.clone(), plan.presence_ttl);
        let node = Arc::new(node);
        tracker.spawn(node.clone().leave_empty_rooms(stop.clone()));
        tracker.spawn(node.clone().keep_presence(plan.presence_interval, stop.clone()));
        let options = Options { beat: plan.beat, patience: plan.patience, ..Options::new(plan.name) };
        let floors = Floors { hub, control: broker.clone(), local: sessions.clone(), facts: facts.clone() };
        let cluster = Cluster::start(options, floors, &tracker, &stop);
        drop(entered);
        let seats = Mutex::default();
        Self { node, cluster, broker, sessions, facts, tracker, stop, runtime: Some(runtime), seats }
    }

    /// Runs something where the node runs.
    pub(crate) async fn run<T: Send + 'static>(&self, what: impl Future<Output = T> + Send + 'static) -> T {
        self.runtime.as_ref().expect("it runs").spawn(what).await.expect("it does not panic")
    }

    /// Puts so many subscribers into a room.
    pub(crate) async fn seat(&self, room: &str, count: usize) {
        for _ in 0..count {
            let (node, room) = (self.node.clone(), room.to_owned());
            let hold = self.run(async move { node.join(&room).wait().await.unwrap() }).await;
            hold.sit(Seat::new(Arc::new(Outbox::new(Nowhere, 1 << 20)), Wire::JsonWebSocket));
            self.seats.lock().unwrap().push(hold);
        }
    }

    /// Names of the nodes that this one knows, itself first.
    pub(crate) fn knows(&self) -> Vec<String> {
        self.cluster.nodes().into_iter().map(|node| node.name).collect()
    }

    /// Waits until it knows these nodes, itself first and the others by name.
    pub(crate) async fn until_knows(&self, names: &[&str]) {
        until(&format!("{names:?}"), || self.knows() == names, || format!("{:?}", self.knows())).await;
    }

    /// Ends as a crash would: nothing is said any more, and nothing tidied up.
    pub(crate) fn kill(&mut self) {
        self.runtime.take().expect("it runs").shutdown_background();
    }

    /// Stops in order; every task must end by itself.
    pub(crate) async fn stop(mut self) {
        self.seats.lock().unwrap().clear();
        self.cluster.leave().wait().await.unwrap();
        self.stop.cancel();
        self.tracker.close();
        assert!(tokio::time::timeout(DEADLINE, self.tracker.wait()).await.is_ok(), "a task does not end");
        self.kill();
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Waits until something holds; says what it is instead where it never does.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool, instead: impl Fn() -> String) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < DEADLINE, "never came: {what}; instead {}", instead());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A socket that takes everything.
struct Nowhere;

impl Sink for Nowhere {
    fn try_write(&self, bytes: &[std::io::IoSlice<'_>]) -> std::io::Result<usize> {
        Ok(bytes.iter().map(|slice| slice.len()).sum())
    }
}

/// The sessions of a node, as the test has them.
#[derive(Default)]
pub(crate) struct Sessions {
    /// Commands, as they came.
    pub(crate) executed: Mutex<Vec<Command>>,
    /// What came for each session; those that are not here are not known.
    pub(crate) upstream: Mutex<HashMap<String, Vec<Bytes>>>,
    /// By client.
    pub(crate) connections: Mutex<BTreeMap<String, ConnectionInfo>>,
}

impl Sessions {
    pub(crate) fn executed(&self) -> Vec<Command> {
        self.executed.lock().unwrap().clone()
    }
}

impl Local for Sessions {
    fn execute(&self, command: &Command) {
        self.executed.lock().unwrap().push(command.clone());
    }

    fn upstream(&self, session: &str, data: Bytes) -> Upstreamed {
        match self.upstream.lock().unwrap().get_mut(session) {
            None => Upstreamed::Unknown,
            Some(came) if came.len() >= 100 => Upstreamed::Busy,
            Some(came) => {
                came.push(data);
                Upstreamed::Taken
            }
        }
    }

    fn connections(&self, filter: &Filter, after: &str, limit: usize) -> Vec<ConnectionInfo> {
        let connections = self.connections.lock().unwrap();
        let later = connections.iter().filter(|(client, _)| client.as_str() > after).map(|(_, one)| one);
        let wanted = later.filter(|one| filter.user.as_ref().is_none_or(|user| *user == one.user));
        wanted.take(limit).cloned().collect()
    }
}

/// What a node goes by.
#[derive(Default)]
pub(crate) struct Learned(Mutex<BTreeMap<String, Bytes>>);

impl Learned {
    pub(crate) fn names(&self) -> Vec<String> {
        self.0.lock().unwrap().keys().cloned().collect()
    }

    pub(crate) async fn until(&self, names: &[&str]) {
        until(&format!("{names:?}"), || self.names() == names, || format!("{:?}", self.names())).await;
    }
}

impl Facts for Learned {
    fn learn(&self, name: &str, fact: &[u8], ttl: Duration) {
        assert!(ttl > Duration::ZERO, "{name} has no time left");
        self.0.lock().unwrap().insert(name.to_owned(), Bytes::copy_from_slice(fact));
    }

    fn unlearn(&self, name: &str) {
        self.0.lock().unwrap().remove(name);
    }

    fn learn_all(&self, facts: Vec<(String, Bytes, Duration)>) {
        *self.0.lock().unwrap() = facts.into_iter().map(|(name, fact, _)| (name, fact)).collect();
    }
}
