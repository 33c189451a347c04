//! How the nodes of a cluster know each other, command each other's sessions, ask each other, and hold facts in common: all
//! of it messages through [`Control`]. Knows no sessions and no server API; both stand above and are reached through
//! [`Local`] and [`Facts`].
//!
//! A node beats every few seconds, and is forgotten when it has missed three beats or says goodbye. What is said arrives at
//! most once: a command is not repeated, and an answer that does not come in time leaves its node named as silent. Facts are
//! kept by the broker, and are read again whenever something may have been missed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::{Notify, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use self::{
    answer::Respondent,
    facts::{Change, Ledger},
    message::{Ask, Beat, Bye, Envelope, Forgotten, Kept, Order, Part, Question, Reply, Said},
    peers::Peers,
    survey::Open,
};
use crate::{
    broker::{Answer, BrokerError, Control},
    hub::Hub,
};

mod answer;
mod command;
mod ear;
mod facts;
mod local;
mod message;
mod peers;
mod questions;
mod survey;
mod worker;

pub use answer::BadPattern;
pub use command::{Command, Disconnect, Overrides, Refresh, Since, Subscribe, Target, Unsubscribe};
pub use local::{Facts, Local};
pub use message::{ConnectionInfo, Filter, NodeInfo, Upstreamed};
pub use questions::{Connections, MAX_PAGE, Survey, SurveyError};
pub use survey::Overload;

/// How this node takes part.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name of this node.
    pub name: String,
    /// Version of the program.
    pub version: String,
    /// Time between two beats. Default 3 s.
    pub beat: Duration,
    /// How long the answers of other nodes are waited for. Default 3 s.
    pub patience: Duration,
}

impl Options {
    /// The defaults, for a node of this name.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            beat: Duration::from_secs(3),
            patience: Duration::from_secs(3),
        }
    }
}

/// What the cluster stands on, and what it reaches above.
pub struct Floors {
    /// The rooms and sessions of this node, to be counted.
    pub hub: Arc<Hub>,
    /// What carries messages.
    pub control: Arc<dyn Control>,
    /// The sessions of this node.
    pub local: Arc<dyn Local>,
    /// Who goes by the common facts; `Arc::new(())` for nobody.
    pub facts: Arc<dyn Facts>,
}

/// This node among the others.
pub struct Cluster {
    uid: Arc<str>,
    options: Options,
    started: Instant,
    hub: Arc<Hub>,
    control: Arc<dyn Control>,
    respondent: Respondent,
    ledger: Ledger,
    peers: Mutex<Peers>,
    open: Arc<Open>,
    /// Questions of other nodes that wait to be answered.
    questions: mpsc::Sender<(String, Ask)>,
    connected: Arc<Notify>,
    left: AtomicBool,
    tracker: TaskTracker,
}

impl Cluster {
    /// Enters the cluster. The tasks are spawned on `tracker` and end after `stop` is cancelled.
    pub fn start(options: Options, floors: Floors, tracker: &TaskTracker, stop: &CancellationToken) -> Arc<Self> {
        let (questions, asked) = mpsc::channel(worker::QUESTIONS);
        let (ear, inbox, connected) = ear::ear();
        let cluster = Arc::new(Self {
            uid: Uuid::new_v4().to_string().into(),
            started: Instant::now(),
            respondent: Respondent { hub: floors.hub.clone(), local: floors.local },
            hub: floors.hub,
            control: floors.control,
            ledger: Ledger::new(floors.facts),
            peers: Mutex::new(Peers::new(options.beat * 3 + options.beat / 2)),
            open: Arc::default(),
            questions,
            connected,
            left: AtomicBool::new(false),
            tracker: tracker.clone(),
            options,
        });
        tracker.spawn(cluster.clone().work(inbox, stop.clone()));
        tracker.spawn(cluster.clone().answer_others(asked, stop.clone()));
        cluster.control.listen(&cluster.uid, Arc::new(ear));
        cluster
    }

    /// Id of this node, unique for each start.
    pub fn uid(&self) -> &Arc<str> {
        &self.uid
    }

    /// Every node that is there at present, this one first.
    pub fn nodes(&self) -> Vec<NodeInfo> {
        let mut nodes = vec![self.info()];
        nodes.extend(self.peers.lock().present(Instant::now()));
        nodes
    }

    /// Has every node carry a command out on its sessions, this one at once. The answer comes when the others have been
    /// told; they carry it out a moment later, at most once.
    pub fn command(&self, command: Command) -> Answer<()> {
        self.respondent.local.execute(&command);
        self.tell(None, Said::Order(Order { command: Some(command) }))
    }

    /// Keeps a fact for all nodes, also those that start later; one of that name is replaced. Done when this node goes by
    /// it, and the others have been told. It is carried through even where the caller goes away.
    pub async fn keep_fact(self: &Arc<Self>, name: &str, fact: Bytes, ttl: Duration) -> Result<(), BrokerError> {
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let kept = self.control.keep(name, fact.clone(), ttl);
        let said = Said::Kept(Kept { name: name.to_owned(), fact: fact.clone(), ttl_ms });
        self.carry_through(kept, Change::Kept(name.to_owned(), fact, ttl), said).await
    }

    /// Forgets a fact on all nodes; as [`Cluster::keep_fact`].
    pub async fn forget_fact(self: &Arc<Self>, name: &str) -> Result<(), BrokerError> {
        let forgotten = self.control.forget(name);
        let said = Said::Forgotten(Forgotten { name: name.to_owned() });
        self.carry_through(forgotten, Change::Forgotten(name.to_owned()), said).await
    }

    /// Whether this node knows the facts that were kept before its start.
    pub fn knows_facts(&self) -> bool {
        self.ledger.known()
    }

    /// Says goodbye, so that the others need not wait for this node to fall silent. To be called while the broker still
    /// takes messages; after it the node does not beat any more.
    pub fn leave(&self) -> Answer<()> {
        if self.left.swap(true, Ordering::Relaxed) {
            return Answer::Now(Ok(()));
        }
        self.tell(None, Said::Bye(Bye {}))
    }

    /// The broker first: whoever is told and reads the facts afterwards must find it there.
    async fn carry_through(self: &Arc<Self>, kept: Answer<()>, change: Change, said: Said) -> Result<(), BrokerError> {
        let cluster = self.clone();
        let done = self.tracker.spawn(async move {
            kept.wait().await?;
            cluster.ledger.told(change);
            cluster.tell(None, said).wait().await
        });
        done.await.unwrap_or(Err(BrokerError::Cancelled))
    }

    fn tell(&self, node: Option<&str>, said: Said) -> Answer<()> {
        let envelope = Envelope { version: message::VERSION, from: self.uid.to_string(), said: Some(said) };
        self.control.tell(node, envelope.encode_to_vec().into())
    }

    fn info(&self) -> NodeInfo {
        let count = |number| u32::try_from(number).unwrap_or(u32::MAX);
        NodeInfo {
            uid: self.uid.to_string(),
            name: self.options.name.clone(),
            version: self.options.version.clone(),
            num_clients: count(self.hub.sessions.connected()),
            num_users: count(self.hub.sessions.user_count()),
            num_channels: count(self.hub.room_count()),
            num_subs: count(self.hub.seat_count()),
            uptime: self.started.elapsed().as_secs(),
        }
    }
}
