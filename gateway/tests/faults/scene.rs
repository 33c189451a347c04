//! What each fault befalls: nodes in processes of their own, rooms with recovery and plain ones, clients of each, and
//! publishers that never stop; and what has to be true of them in the end. Knows no fault.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use rand::{SeedableRng, rngs::StdRng, seq::index::sample};
use roomcast_shared::protocol::Encoding;
use tempfile::NamedTempFile;
use tokio::{task::block_in_place, time::sleep};

use crate::{
    client::Habits,
    common::Process,
    crowd::{Crowd, LIMIT, LONG, ROOM_RULES, SETTLES, SHORT},
    ledger::Ledger,
    nodes::{Address, KEY, Nodes},
    plain::Plain,
};

const CLIENTS: u32 = 32;
/// The first are rooms with a long memory, the others with a short one.
const ROOMS: usize = 8;
const LONG_ROOMS: usize = 5;
const PUBLISHERS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(30);
/// How many publications are said before a fault and after it.
const SOME: u64 = 60;

/// Everything that waits does so briefly, so that a fault of seconds is as one of minutes. Positions are compared after a loss
/// only: nobody is helped by a comparison that would have come anyway.
const SETTINGS: &str = r#"
redis.io_timeout = "1s"
channel.position_check_delay = "0s"
client.ping_interval = "1s"
client.pong_timeout = "800ms"
shutdown.delay = "0s"
shutdown.drain = "300ms"
shutdown.timeout = "2s"
[[namespaces]]
name = "plain"
allow_subscribe_for_client = true
presence = true
"#;

/// Settings by their names, which go before those of the file.
pub(crate) type Own = &'static [(&'static str, &'static str)];

/// Nodes, and all who are there.
pub(crate) struct Scene {
    pub(crate) nodes: Arc<Nodes>,
    pub(crate) ledger: Arc<Ledger>,
    processes: Vec<Option<Process>>,
    /// The settings of each node.
    settings: Vec<NamedTempFile>,
    /// What this scene has otherwise than others have it.
    own: Own,
    crowd: Crowd,
    plain: Option<Plain>,
}

impl Scene {
    /// A node for each of these URLs of Redis, with clients and publishers that are all there already.
    pub(crate) async fn start(urls: &[String]) -> Self {
        let mut scene = Self::nodes(urls, &[]);
        scene.fill().await;
        scene
    }

    /// Nodes alone, with some settings of their own.
    pub(crate) fn nodes(urls: &[String], own: Own) -> Self {
        let nodes = Arc::new(Nodes::default());
        let settings = urls.iter().map(|url| {
            let file = tempfile::Builder::new().suffix(".toml").tempfile().expect("a directory for temporary files");
            let text = format!("redis.url = {url:?}\napi.key = {KEY:?}\n{SETTINGS}{ROOM_RULES}");
            std::fs::write(file.path(), text).expect("it can be written");
            file
        });
        let settings: Vec<_> = settings.collect();
        let is_long = |room: &usize| *room < LONG_ROOMS;
        let rooms: Vec<_> =
            (0..ROOMS).map(|room| format!("{}:{room}", if is_long(&room) { "long" } else { "short" })).collect();
        let reach = (0..ROOMS).map(|room| if is_long(&room) { LONG.min(LIMIT) } else { SHORT }).collect();
        let crowd = Crowd::new(&nodes, &Arc::new(rooms), Ledger::new(reach), 1);
        let (processes, ledger) = (urls.iter().map(|_| None).collect(), crowd.ledger.clone());
        let mut scene = Self { nodes, ledger, processes, settings, own, crowd, plain: None };
        (0..urls.len()).for_each(|node| scene.start_node(node));
        scene
    }

    /// Brings the clients and publishers in, and lets them speak.
    pub(crate) async fn fill(&mut self) {
        let mut rng = StdRng::seed_from_u64(1);
        for number in 0..CLIENTS {
            let places = sample(&mut rng, ROOMS, 3).into_vec();
            self.crowd.add_client(number, habits(number), &places);
        }
        self.plain = Some(Plain::start(&self.nodes, &self.ledger, self.processes.len()));
        self.crowd.until_in(SETTLES).await;
        self.crowd.add_publishers(PUBLISHERS, PAUSE);
        self.speak().await;
        self.plain().until_heard().await;
    }

    /// Waits until publishers were answered some more times.
    pub(crate) async fn speak(&self) {
        let answered = || self.ledger.counted("publications answered to publishers");
        let (begin, before) = (Instant::now(), answered());
        while answered() < before + SOME {
            assert!(begin.elapsed() < SETTLES, "publishers are not answered any more: {}", self.ledger.tally());
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until everybody is served again; gives how long that took.
    pub(crate) async fn recover(&self) -> Duration {
        let begin = Instant::now();
        self.plain().until_heard().await;
        self.crowd.until_in(SETTLES).await;
        begin.elapsed()
    }

    /// Waits until what is said in plain rooms is heard.
    pub(crate) async fn plain_hears(&self) {
        self.plain().until_heard().await;
    }

    /// Lets everybody speak on for a while, and then holds all that was said and heard against each other.
    pub(crate) async fn finish(mut self, what: &str, recovered: Duration) -> Arc<Ledger> {
        self.speak().await;
        self.plain.take().expect("it was filled").stop().await;
        self.crowd.settle(SETTLES, || ()).await;
        let faults = self.crowd.judge().await;
        let tally = self.ledger.tally();
        println!("{what}: served again after {recovered:?}\n{tally}");
        assert!(faults.is_empty(), "{what}: {}\n{}", faults.join("\n"), self.log());
        self.ledger
    }

    pub(crate) fn start_node(&mut self, node: usize) {
        self.start_node_with(node, Process::start);
    }

    /// Starts a node, or another one in its place, in its own way with the settings it is given.
    pub(crate) fn start_node_with(&mut self, node: usize, start: impl FnOnce(&[(&str, &str)]) -> Process) {
        drop(self.processes[node].take());
        let file = self.settings[node].path().to_str().expect("a path in UTF-8").to_owned();
        let usual = [("config", &*file), ("log.format", "json"), ("log.level", "info")];
        let process = start(&[&usual[..], self.own].concat());
        self.nodes.set(node, Some(Address { clients: process.clients, internal: process.internal }));
        self.processes[node] = Some(process);
    }

    /// Ends a node by a signal.
    pub(crate) fn end_node(&mut self, node: usize, signal: &str) {
        let mut process = self.processes[node].take().expect("it runs");
        process.signal(signal);
        block_in_place(|| process.ended());
        self.nodes.set(node, None);
    }

    /// Has clients come to a node by another address.
    pub(crate) fn reach(&self, node: usize, clients: SocketAddr) {
        self.nodes.set(node, Some(Address { clients, internal: self.process(node).internal }));
    }

    /// Where a node is.
    pub(crate) fn address(&self, node: usize) -> Address {
        self.nodes.at(node).expect("it runs")
    }

    pub(crate) fn process(&self, node: usize) -> &Process {
        self.processes[node].as_ref().expect("it runs")
    }

    /// What the nodes logged that is more than information.
    pub(crate) fn log(&self) -> String {
        let logs: Vec<_> = self.processes.iter().flatten().map(Process::log).collect();
        logs.iter().flat_map(|log| log.lines()).filter(|line| !line.contains("\"INFO\"")).collect::<Vec<_>>().join("\n")
    }

    fn plain(&self) -> &Plain {
        self.plain.as_ref().expect("it was filled")
    }
}

/// Half of them stay where they are until the fault drives them out, and the others come and go.
fn habits(number: u32) -> Habits {
    let stays = number.is_multiple_of(2);
    Habits {
        encoding: if number % 4 < 2 { Encoding::Json } else { Encoding::Protobuf },
        server_side: number % 8 < 2,
        refuses: number % 8 == 3,
        publishes: (number % 4 == 1).then_some((0.2, 1.0)),
        stays: if stays { (600.0, 600.0) } else { (1.0, 8.0) },
        away: (0.0, 1.0),
        leaves: (number % 8 == 7).then_some((0.5, 3.0)),
    }
}
