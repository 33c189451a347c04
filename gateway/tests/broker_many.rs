//! The Redis broker over several independent servers and over a cluster, when things go wrong there: a server that dies, slots
//! that move, connections that are cut. What every broker promises is asked in `broker_conformance`, and what clients see of
//! a failover in `redis_cluster`.

#![allow(clippy::unwrap_used, reason = "a test fails where what it needs fails")]

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::future::join_all;
use roomcast::{
    broker::{
        Append, BrokerError, Health, History, Keep, Page, PubSub,
        redis::{ConfigError, RedisBroker, RedisOptions},
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

const IO_TIMEOUT: Duration = Duration::from_secs(1);
const KEEP: Keep = Keep { size: 10_000, ttl: Duration::from_mins(1), meta_ttl: Duration::from_mins(10) };
const EVERYTHING: Page = Page { since: None, limit: 10_000, reverse: false, meta_ttl: KEEP.meta_ttl };

struct Node {
    broker: Arc<RedisBroker>,
    recorder: Arc<Recorder>,
    metrics: Arc<Metrics>,
    tracker: TaskTracker,
    shutdown: CancellationToken,
}

impl Node {
    fn start(urls: Vec<String>, partitions: u32) -> Self {
        let several = RedisOptions::several(urls);
        let options = RedisOptions { io_timeout: IO_TIMEOUT, cluster_partitions: partitions, ..several };
        let (recorder, metrics) = (Arc::new(Recorder::default()), Arc::new(Metrics::new()));
        let (tracker, shutdown) = (TaskTracker::new(), CancellationToken::new());
        let deliver: Arc<Recorder> = Arc::clone(&recorder);
        let broker = RedisBroker::start(&options, deliver, Arc::clone(&metrics), &tracker, shutdown.clone()).unwrap();
        Self { broker, recorder, metrics, tracker, shutdown }
    }

    async fn subscribe_all(&self, rooms: &[Arc<str>]) {
        let answers = join_all(rooms.iter().map(|room| self.broker.subscribe(room).wait())).await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    }

    async fn publish(&self, room: &str, data: impl Into<Bytes>) -> Result<(), BrokerError> {
        self.broker.publish(room, publication(data).into()).wait().await
    }

    /// Publishes until it is taken: a connection may be away just now.
    async fn publish_stubbornly(&self, room: &str, data: &'static str) {
        let begin = Instant::now();
        while self.publish(room, data).await.is_err() {
            assert!(begin.elapsed() < DEADLINE, "nothing can be published in {room}");
        }
    }

    /// Publishes in each room, and waits until each is heard by these nodes.
    async fn publish_all(&self, rooms: &[Arc<str>], word: &'static str, nodes: &[&Self]) {
        let answers = join_all(rooms.iter().map(|room| self.publish(room, word))).await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        for node in nodes {
            for room in rooms {
                let last = |recorder: &Recorder| recorder.heard(room).last() == Some(&word.into());
                node.recorder.until(word, last).await;
            }
        }
    }

    async fn until_hearing(&self) {
        until("every room is heard", || self.broker.health() == Health::Hearing).await;
    }

    async fn until_lost(&self) {
        until("the loss is seen", || matches!(self.broker.health(), Health::Lost { .. })).await;
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.tracker.close();
        assert!(tokio::time::timeout(DEADLINE, self.tracker.wait()).await.is_ok(), "a task does not end");
    }
}

fn publication(data: impl Into<Bytes>) -> Publication {
    Publication { data: data.into(), ..Publication::default() }
}

fn rooms(count: usize) -> Vec<Arc<str>> {
    (0..count).map(|number| Arc::from(format!("room {number}"))).collect()
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < DEADLINE, "never came: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn channels(server: &RedisServer, kind: &str) -> Vec<String> {
    server.command(&["PUBSUB", kind, "roomcast.room.*"])
}

/// How often a server was given this command.
fn calls(server: &RedisServer, command: &str) -> u32 {
    let stats = server.command(&["INFO", "commandstats"]).concat();
    let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.and_then(|rest| rest.split(',').next()?.parse().ok()).unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_several_that_dies_takes_only_its_rooms_along() {
    let mut servers: Vec<_> = (0..3).map(|_| RedisServer::start()).collect();
    let urls: Vec<_> = servers.iter().map(RedisServer::url).collect();
    let (node, other) = (Node::start(urls.clone(), 0), Node::start(urls, 0));
    let rooms = rooms(60);
    node.subscribe_all(&rooms).await;
    other.subscribe_all(&rooms).await;
    node.publish_all(&rooms, "1 before", &[&node, &other]).await;
    let held: Vec<BTreeSet<_>> =
        servers.iter().map(|server| channels(server, "CHANNELS").into_iter().collect()).collect();
    assert_eq!(held.iter().map(BTreeSet::len).sum::<usize>(), 60, "each room is on one server");
    assert!(held.iter().all(|channels| channels.len() > 8), "{held:?}");
    servers[1].kill();
    node.until_lost().await;
    assert_eq!(node.metrics.broker_connected.get(), 0);
    let on_it = |room: &Arc<str>| held[1].contains(&format!("roomcast.room.{room}"));
    let (gone, well): (Vec<_>, Vec<_>) = rooms.iter().cloned().partition(on_it);
    node.publish_all(&well, "2 meanwhile", &[&node, &other]).await;
    assert_eq!(node.publish(&gone[0], "lost").await, Err(BrokerError::Timeout(IO_TIMEOUT)));
    servers[1].restart();
    node.until_hearing().await;
    other.until_hearing().await;
    // The connection that publishes comes back by itself, perhaps later than a publication waits for it.
    node.publish_stubbornly(&gone[0], "is it back").await;
    node.publish_all(&rooms, "3 after", &[&node, &other]).await;
    assert_eq!(node.recorder.heard(&well[0]), ["1 before", "2 meanwhile", "3 after"]);
    let received = || usize::try_from(node.metrics.shards.received.with_label_values(&["0"]).get()).unwrap();
    until("all is counted", || received() == 3 * held[0].len()).await;
    node.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_hears_its_own_rooms_alone_and_has_three_connections_to_each_master() {
    let cluster = RedisCluster::start(3, false);
    let nodes = [(); 3].map(|()| Node::start(vec![cluster.url()], 0));
    let rooms = rooms(90);
    nodes[0].subscribe_all(&rooms).await;
    nodes[1].subscribe_all(&rooms[..30]).await;
    nodes[2].publish_all(&rooms, "to those who are there", &[&nodes[0]]).await;
    nodes[2].publish_all(&rooms[..30], "to two", &[&nodes[0], &nodes[1]]).await;
    // What is read is counted when there is no more to read.
    let received = || nodes.each_ref().map(|node| node.metrics.broker_received.get());
    until("all is counted", || received().iter().sum::<u64>() >= 180).await;
    assert_eq!(received(), [120, 60, 0]);
    for master in cluster.masters() {
        assert!(channels(master, "SHARDCHANNELS").len() > 10, "rooms are spread");
        // The connection that asks counts itself; those that ask for the map come and go.
        until("three for each node", || master.command(&["CLIENT", "LIST"]).concat().lines().count() == 3 * 3 + 1)
            .await;
    }
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rooms_of_a_partition_are_asked_for_together_and_again_after_a_cut() {
    let cluster = RedisCluster::start(3, false);
    let node = Node::start(vec![cluster.url()], 6);
    let rooms = rooms(2000);
    node.subscribe_all(&rooms[..1]).await;
    node.subscribe_all(&rooms).await;
    let asked = || cluster.masters().iter().map(|master| calls(master, "ssubscribe")).sum::<u32>();
    assert!(asked() < 100, "{} commands", asked());
    for (round, word) in (1..).zip(["one", "two", "three"]) {
        let before = asked();
        for master in cluster.masters() {
            assert_eq!(master.command(&["CLIENT", "KILL", "TYPE", "pubsub"]), ["1"]);
        }
        until("new connections", || node.metrics.broker_reconnects.get() == 3 * round).await;
        node.until_hearing().await;
        assert!(node.recorder.interruptions() >= 3 * usize::try_from(round).unwrap(), "each of them is told");
        node.publish_all(&rooms, word, &[&node]).await;
        let held: usize = cluster.masters().iter().map(|master| channels(master, "SHARDCHANNELS").len()).sum();
        assert_eq!(held, 2000);
        assert!(asked() - before < 40, "{} commands", asked() - before);
    }
    node.stop().await;
}

/// Between the two ends of a move the owner sends away what it does not have any more, and neither of the two does what is
/// about keys that are not there yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_on_its_way_is_published_to_and_kept_in() {
    let cluster = RedisCluster::start(3, false);
    // One partition, so that all rooms are in one slot.
    let node = Node::start(vec![cluster.url()], 1);
    node.subscribe_all(&[Arc::from("a")]).await;
    let held = cluster.masters().iter().find_map(|master| channels(master, "SHARDCHANNELS").pop());
    let slot = cluster.slot(&held.expect("one of them has it"));
    let (from, to) = (cluster.first_owner(slot), (cluster.first_owner(slot) + 1) % 3);
    let append = Append { keep: Some(KEEP), ..Append::default() };
    let keep = async |room: &str, word: u64| {
        let said = publication(word.to_string()).into();
        node.broker.append(room, said, &append).wait().await.unwrap().position.unwrap().offset
    };
    assert_eq!(keep("a", 1).await, 1);
    cluster.begin_move(slot, from, to);
    assert_eq!(keep("a", 2).await, 2);
    node.recorder.wait("a", 2).await;
    cluster.move_keys(slot, from, to);
    // It is kept where the keys are; who listens does so at the owner still.
    assert_eq!(keep("a", 3).await, 3);
    assert!(node.metrics.shards.redirects.get() > 0);
    node.publish("a", "plain").await.unwrap();
    assert_eq!(node.recorder.wait("a", 3).await, ["1", "2", "plain"]);
    let new = node.broker.append("new", publication("1").into(), &append);
    cluster.end_move(slot, from, to);
    assert_eq!(new.wait().await.unwrap().position.unwrap().offset, 1);
    until("the room is heard at its new owner", || channels(&cluster.nodes[to], "SHARDCHANNELS").len() == 1).await;
    node.until_hearing().await;
    assert!(channels(&cluster.nodes[from], "SHARDCHANNELS").is_empty());
    // This has positions compared, so that whoever missed the third is told.
    assert_eq!((node.recorder.interruptions(), node.metrics.shards.moved.get()), (1, 1));
    assert_eq!(keep("a", 4).await, 4);
    assert_eq!(node.recorder.wait("a", 4).await, ["1", "2", "plain", "4"]);
    let history = node.broker.read("a", &EVERYTHING).wait().await.unwrap();
    let words: Vec<_> = history.publications.iter().map(|publication| publication.data.clone()).collect();
    assert_eq!(words, ["1", "2", "3", "4"]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_gives_all_its_slots_away_is_left() {
    let cluster = RedisCluster::start(3, false);
    let node = Node::start(vec![cluster.url()], 0);
    let rooms = rooms(100);
    node.subscribe_all(&rooms).await;
    cluster.give_all(2, 0);
    let held = |place: usize| channels(&cluster.nodes[place], "SHARDCHANNELS").len();
    until("its rooms have gone over", || held(2) == 0 && held(0) + held(1) == 100).await;
    node.until_hearing().await;
    let clients = |kind: &str| cluster.nodes[2].command(&["CLIENT", "LIST", "TYPE", kind]).concat().lines().count();
    until("nobody is there any more", || clients("pubsub") == 0 && clients("normal") == 1).await;
    node.publish_all(&rooms, "to all of them", &[&node]).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_misses_a_master_is_heard_again_when_it_is_back() {
    let mut cluster = RedisCluster::start(3, false);
    let node = Node::start(vec![cluster.url()], 0);
    let rooms = rooms(30);
    node.subscribe_all(&rooms).await;
    node.publish_all(&rooms, "1 before", &[&node]).await;
    cluster.nodes[2].kill();
    node.until_lost().await;
    let outcomes = join_all(rooms.iter().map(|room| node.publish(room, "2 meanwhile"))).await;
    let failed = outcomes.iter().filter(|outcome| outcome.is_err()).count();
    assert!(failed > 5, "what belongs to it is not confirmed");
    cluster.nodes[2].restart();
    node.until_hearing().await;
    for room in &rooms {
        node.publish_stubbornly(room, "3 after").await;
        let last = |recorder: &Recorder| recorder.heard(room).last() == Some(&"3 after".into());
        node.recorder.until("what comes after", last).await;
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_among_several_is_refused() {
    for urls in [vec!["redis+cluster://a", "redis://b"], vec!["redis://b", "redis+cluster://a"], vec![]] {
        let urls = urls.into_iter().map(str::to_owned).collect();
        let (recorder, metrics) = (Arc::new(Recorder::default()), Arc::new(Metrics::new()));
        let options = RedisOptions::several(urls);
        let refused = RedisBroker::start(&options, recorder, metrics, &TaskTracker::new(), CancellationToken::new());
        assert!(matches!(refused.err(), Some(ConfigError::Url(_))));
    }
}
