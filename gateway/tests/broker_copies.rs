//! How often Redis sends what is published: once to each node that holds the room, and to no other node, however many there
//! are. Asked of Redis, which counts the bytes it writes, and of the nodes, which count what they receive; over one server,
//! and over a cluster with its sharded channels.

#![allow(clippy::unwrap_used, reason = "a test fails where what it needs fails")]

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use roomcast::{
    broker::{
        PubSub,
        redis::{RedisBroker, RedisOptions},
    },
    metrics::Metrics,
};
use roomcast_shared::publication::Publication;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

#[path = "common/recorder.rs"]
mod recorder;
#[path = "common/redis.rs"]
mod redis;
#[path = "common/redis_many.rs"]
mod redis_many;

use recorder::{DEADLINE, Recorder};
use redis::RedisServer;
use redis_many::RedisCluster;

/// Nodes at most.
const NODES: usize = 16;
/// Publications in each room.
const SAID: usize = 5;
/// Bytes of each: so many that answers, pings and names are few beside them.
const SIZE: usize = 16 * 1024;

struct Node {
    broker: Arc<RedisBroker>,
    recorder: Arc<Recorder>,
    metrics: Arc<Metrics>,
    /// How many publications there were in its rooms.
    due: usize,
}

/// Nodes that share servers, and nobody else.
struct Setting<'a> {
    servers: &'a [RedisServer],
    options: RedisOptions,
    nodes: Vec<Node>,
    tracker: TaskTracker,
    shutdown: CancellationToken,
}

impl<'a> Setting<'a> {
    fn new(servers: &'a [RedisServer], url: String) -> Self {
        let (tracker, shutdown) = (TaskTracker::new(), CancellationToken::new());
        Self { servers, options: RedisOptions::new(url), nodes: Vec::new(), tracker, shutdown }
    }

    fn add_node(&mut self) {
        let (recorder, metrics) = (Arc::new(Recorder::default()), Arc::new(Metrics::new()));
        let (deliver, shutdown): (Arc<Recorder>, _) = (Arc::clone(&recorder), self.shutdown.clone());
        let broker = RedisBroker::start(&self.options, deliver, Arc::clone(&metrics), &self.tracker, shutdown).unwrap();
        self.nodes.push(Node { broker, recorder, metrics, due: 0 });
    }

    /// A number that the servers count, all of them together.
    fn counted(&self, section: &str, name: &str) -> usize {
        let count = |server: &RedisServer| {
            let answer = server.command(&["INFO", section]).concat();
            let value = answer.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0");
            value.split(',').next().unwrap().trim().parse::<usize>().unwrap()
        };
        self.servers.iter().map(count).sum()
    }

    fn calls(&self, command: &str) -> usize {
        self.counted("commandstats", &format!("cmdstat_{command}:calls="))
    }

    /// Has nodes hold a room, a node say something in it, and answers how often the servers sent each publication.
    async fn copies(&mut self, room: &str, holders: &[usize], from: usize) -> usize {
        let name: Arc<str> = Arc::from(room);
        let answers = join_all(holders.iter().map(|place| self.nodes[*place].broker.subscribe(&name).wait())).await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        let before = self.counted("stats", "total_net_output_bytes:");
        let publish = |number| self.nodes[from].broker.publish(room, publication(number).into()).wait();
        let answers = join_all((0..SAID).map(publish)).await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        self.caught_up().await;
        let sent = self.counted("stats", "total_net_output_bytes:") - before;
        for place in holders {
            self.nodes[*place].due += SAID;
        }
        sent / (SAID * SIZE)
    }

    /// What the servers have sent by now has been read.
    async fn caught_up(&self) {
        let answers = join_all(self.nodes.iter().map(|node| node.broker.caught_up().wait())).await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.tracker.close();
        assert!(tokio::time::timeout(DEADLINE, self.tracker.wait()).await.is_ok(), "a task does not end");
    }
}

fn publication(number: usize) -> Publication {
    let mut data = vec![b' '; SIZE];
    data[0] = b'0' + u8::try_from(number).unwrap();
    Publication { data: data.into(), ..Publication::default() }
}

fn numbers(heard: &[Bytes]) -> Vec<usize> {
    heard.iter().map(|data| usize::from(data[0] - b'0')).collect()
}

/// One node more at a time, and with each number of nodes a room for each number of those that hold it.
async fn each_holder_is_sent_one_copy(mut setting: Setting<'_>, verb: &str, other: &str) {
    let mut published = 0;
    for nodes in 1..=NODES {
        setting.add_node();
        for held_by in 0..=nodes {
            let room = format!("held by {held_by} of {nodes}");
            let holders: Vec<_> = (0..held_by).map(|place| (held_by + place) % nodes).collect();
            // Who says it holds the room in some rounds, and in others does not.
            let copies = setting.copies(&room, &holders, (held_by * 7 + nodes) % nodes).await;
            assert_eq!(copies, held_by, "copies of what is said in the room {room}");
            for (place, node) in setting.nodes.iter().enumerate() {
                let due: Vec<_> = if holders.contains(&place) { (0..SAID).collect() } else { Vec::new() };
                assert_eq!(numbers(&node.recorder.heard(&room)), due, "node {place}, {room}");
            }
            published += SAID;
        }
    }
    for (place, node) in setting.nodes.iter().enumerate() {
        assert_eq!(node.recorder.total(), node.due, "node {place}");
        // What is read is counted when there is no more to read.
        let received = || usize::try_from(node.metrics.broker_received.get()).unwrap();
        node.recorder.until("all is counted", |_| received() >= node.due).await;
        assert_eq!((received(), node.metrics.broker_malformed.get()), (node.due, 0), "node {place}");
    }
    assert_eq!((setting.calls(verb), setting.calls(other)), (published, 0), "commands that publish");
    setting.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_sends_one_copy_to_each_node_that_holds_the_room() {
    let server = [RedisServer::start()];
    let setting = Setting::new(&server, server[0].url());
    each_holder_is_sent_one_copy(setting, "publish", "spublish").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_sends_one_copy_to_each_node_that_holds_the_room() {
    let cluster = RedisCluster::start(3, false);
    let setting = Setting::new(cluster.masters(), cluster.url());
    each_holder_is_sent_one_copy(setting, "spublish", "publish").await;
}
