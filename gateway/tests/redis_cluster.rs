//! Rooms over a Redis Cluster and over a service of sentinels, on whole nodes with clients of their own, while slots move and
//! masters die: rooms with recovery lose nothing that was confirmed, or say so; rooms without go on.

#![allow(clippy::print_stdout, reason = "what was confirmed and lost is worth a look")]

mod common;
#[path = "common/redis_many.rs"]
mod redis_many;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use common::{Client, Gateway, Value, json, redis};
use redis_many::{RedisCluster, RedisService};
use tokio::task::{JoinHandle, spawn_blocking};

const RULES: &str = r#"
client.ping_interval = "0s"
rooms.allow_subscribe_for_client = true
redis.io_timeout = "1s"
redis.prefix = "rooms"
channel.position_check_delay = "0s"
[[namespaces]]
name = "kept"
allow_subscribe_for_client = true
history_size = 100000
history_ttl = "5m"
force_recovery = true
"#;

/// How long the end of a load may take to be heard, a failover included.
const LONG: Duration = Duration::from_mins(4);

/// How often a listener looks whether the last word has been said.
const LOOK: Duration = Duration::from_secs(2);

async fn nodes(url: &str, more: &str) -> [Arc<Gateway>; 2] {
    let settings = format!("redis.url = {url:?}\n{more}\n{RULES}");
    let nodes = [Gateway::start(&settings), Gateway::start(&settings)].map(Arc::new);
    for node in &nodes {
        node.ready().await;
    }
    nodes
}

async fn stop(nodes: [Arc<Gateway>; 2]) {
    for node in nodes {
        Arc::into_inner(node).expect("nobody has it any more").stop().await;
    }
}

/// Somebody who speaks in a room, one word after the other, until told to stop.
struct Speaker {
    stop: Arc<AtomicBool>,
    said: Arc<AtomicUsize>,
    task: JoinHandle<Vec<bool>>,
}

impl Speaker {
    /// Words are numbers from 0 on; the last one is `null`, which is said until it is confirmed, and then it is over.
    fn start(node: &Arc<Gateway>, room: String, over: Arc<AtomicBool>) -> Self {
        let (stop, said, node) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)), Arc::clone(node));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&said));
        let task = tokio::spawn(async move {
            let mut confirmed = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                confirmed.push(say(&node, &room, &json!(confirmed.len())).await);
                counted.store(confirmed.len(), Ordering::Relaxed);
            }
            let begin = Instant::now();
            while !say(&node, &room, &Value::Null).await {
                assert!(begin.elapsed() < LONG, "nothing can be said in {room}");
            }
            over.store(true, Ordering::Relaxed);
            confirmed
        });
        Self { stop, said, task }
    }

    async fn until_more(&self, count: usize) {
        let (begin, before) = (Instant::now(), self.said.load(Ordering::Relaxed));
        while self.said.load(Ordering::Relaxed) < before + count {
            assert!(begin.elapsed() < LONG, "nothing more is said");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Which of its words were confirmed.
    async fn finish(self) -> Vec<bool> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("the speaker ends")
    }
}

async fn say(node: &Gateway, room: &str, data: &Value) -> bool {
    let (status, answer) = node.api("publish", &json!({"channel": room, "data": data})).await;
    assert!(status == 200 && (answer["result"].is_object() || answer["error"]["code"] == 100), "{status} {answer}");
    answer["result"].is_object()
}

/// What a listener heard until the last word, and how often it was told that it has missed something for good.
struct Heard {
    words: Vec<u64>,
    told: usize,
    came_back: usize,
}

/// Somebody who listens in a room, and comes back to it when it is told that it missed something.
struct Listener {
    client: Client,
    room: String,
    /// Offset and epoch.
    place: (u64, Value),
    heard: Heard,
    /// The last word has been said.
    over: Arc<AtomicBool>,
    ended: bool,
}

impl Listener {
    async fn enter(node: &Gateway, room: &str, over: &Arc<AtomicBool>) -> Self {
        let client = Client::connected(node.clients, "ann").await;
        let heard = Heard { words: Vec::new(), told: 0, came_back: 0 };
        let (room_name, over) = (room.to_owned(), Arc::clone(over));
        let mut listener = Self { client, room: room_name, place: (0, json!("")), heard, over, ended: false };
        let reply = listener.client.ask(json!({"subscribe": {"channel": room}})).await;
        assert!(reply["subscribe"].is_object(), "{reply}");
        listener.stand(&reply["subscribe"]);
        listener
    }

    fn stand(&mut self, result: &Value) {
        self.place = (result["offset"].as_u64().unwrap_or(0), result["epoch"].clone());
    }

    fn take(&mut self, publication: &Value) {
        let offset = publication["offset"].as_u64().unwrap_or(0);
        if offset > 0 {
            assert_eq!(offset, self.place.0 + 1, "a gap in {} that nobody told of", self.room);
            self.place.0 = offset;
        }
        match publication["data"].as_u64() {
            Some(word) => self.heard.words.push(word),
            None => self.ended = true,
        }
    }

    async fn come_back(&mut self) {
        let (offset, epoch) = &self.place;
        let place = json!({"channel": self.room, "recover": true, "offset": offset, "epoch": epoch});
        let begin = Instant::now();
        let mut reply = self.client.ask(json!({"subscribe": place})).await;
        while reply["error"].is_object() {
            assert!(begin.elapsed() < LONG, "nobody comes back to {}: {reply}", self.room);
            // Redis is away just now.
            tokio::time::sleep(Duration::from_millis(200)).await;
            reply = self.client.ask(json!({"subscribe": place})).await;
        }
        let result = &reply["subscribe"];
        assert!(result.is_object(), "{reply}");
        self.heard.came_back += 1;
        if result["recovered"] == true {
            for publication in result["publications"].as_array().into_iter().flatten() {
                self.take(publication);
            }
        } else {
            self.heard.told += 1;
            self.stand(result);
        }
    }

    /// Listens until the last word.
    async fn listen(mut self) -> Heard {
        let begin = Instant::now();
        while !self.ended {
            let (place, last) = (&self.place, self.heard.words.last());
            assert!(begin.elapsed() < LONG, "{} never hears the end after {place:?} and {last:?}", self.room);
            let Ok(message) = tokio::time::timeout(LOOK, self.client.next_within(LONG)).await else {
                // The last word may be among what it was told that it has missed.
                self.ended = self.heard.told > 0 && self.over.load(Ordering::Relaxed);
                continue;
            };
            let push = &message["push"];
            if push["pub"].is_object() {
                self.take(&push["pub"]);
            } else if let Some(code) = push["unsubscribe"]["code"].as_u64() {
                assert_eq!(code, 2500, "{message}");
                self.come_back().await;
            }
        }
        self.heard
    }
}

/// That whatever was confirmed was heard, each once and in order, or that the listener was told.
fn assert_whole(confirmed: &[bool], heard: &Heard) {
    assert!(heard.words.windows(2).all(|pair| pair[0] < pair[1]), "twice, or out of order: {:?}", heard.words);
    let mut words = heard.words.iter().copied().peekable();
    let is_heard = |number: u64| {
        while words.next_if(|word| *word < number).is_some() {}
        words.next_if_eq(&number).is_some()
    };
    let numbers = (0..).zip(confirmed).filter(|(_, confirmed)| **confirmed).map(|(number, _)| number);
    let mut is_heard = is_heard;
    let lost: Vec<u64> = numbers.filter(|number| !is_heard(*number)).collect();
    assert!(lost.is_empty() || heard.told > 0, "confirmed, not heard, and not told of: {lost:?}");
}

/// A load over some rooms with recovery and without, each heard on both nodes.
struct Load {
    speakers: Vec<(String, Speaker)>,
    listeners: Vec<(String, JoinHandle<Heard>)>,
}

impl Load {
    async fn start(nodes: &[Arc<Gateway>; 2], rooms: usize) -> Self {
        let (mut speakers, mut listeners) = (Vec::new(), Vec::new());
        let names = (0..rooms).flat_map(|number| [format!("kept:{number}"), format!("plain {number}")]);
        for (number, room) in names.enumerate() {
            let over = Arc::new(AtomicBool::new(false));
            for node in nodes {
                let listener = Listener::enter(node, &room, &over).await;
                listeners.push((room.clone(), tokio::spawn(listener.listen())));
            }
            speakers.push((room.clone(), Speaker::start(&nodes[number % 2], room, over)));
        }
        Self { speakers, listeners }
    }

    async fn until_more(&self, count: usize) {
        for (_, speaker) in &self.speakers {
            speaker.until_more(count).await;
        }
    }

    /// Ends it, and holds what was heard against what was confirmed. Gives how many words of rooms with recovery were
    /// confirmed, how many were not, and how many listeners were told of a loss.
    async fn finish(self) -> (usize, usize, usize) {
        let mut all = std::collections::HashMap::new();
        for (room, speaker) in self.speakers {
            all.insert(room, speaker.finish().await);
        }
        let (mut lost, mut back) = (0, 0);
        for (room, listener) in self.listeners {
            let heard = listener.await.unwrap_or_else(|_| panic!("the listener of {room} failed"));
            if room.starts_with("kept:") {
                assert_whole(&all[&room], &heard);
                lost += heard.told;
                back += heard.came_back;
            } else {
                assert!(heard.words.windows(2).all(|pair| pair[0] < pair[1]), "twice, or out of order in {room}");
            }
        }
        let kept = || all.iter().filter(|(room, _)| room.starts_with("kept:")).flat_map(|(_, words)| words);
        let confirmed = kept().filter(|confirmed| **confirmed).count();
        println!("{confirmed} of {} confirmed, {back} came back, {lost} were told of a loss", kept().count());
        (confirmed, kept().count() - confirmed, lost)
    }
}

async fn moved_under_load(partitions: u32) {
    let cluster = Arc::new(spawn_blocking(|| RedisCluster::start(3, false)).await.expect("it starts"));
    let nodes = nodes(&cluster.url(), &format!("redis.cluster_partitions = {partitions}")).await;
    let load = Load::start(&nodes, 6).await;
    load.until_more(10).await;
    let before = nodes[0].count("roomcast_broker_rooms_moved_total").await;
    for _ in 0..2 {
        let slots = used_slots(&cluster);
        assert!(!slots.is_empty());
        for (slot, from) in slots {
            let cluster = Arc::clone(&cluster);
            spawn_blocking(move || cluster.move_slot(slot, from, (from + 1) % 3)).await.expect("it moves");
        }
        load.until_more(10).await;
    }
    let (confirmed, failed, told) = load.finish().await;
    assert!(confirmed > 100);
    assert_eq!((failed, told), (0, 0), "moving slots fails nothing and loses nothing");
    assert!(nodes[0].count("roomcast_broker_rooms_moved_total").await >= before + 12);
    assert!(nodes[0].count("roomcast_broker_redirects_total").await > 0);
    stop(nodes).await;
}

/// Slots in which a room is heard, and who owns them.
fn used_slots(cluster: &RedisCluster) -> Vec<(u16, usize)> {
    let mut slots = std::collections::BTreeSet::new();
    for (place, node) in cluster.masters().iter().enumerate() {
        let channels = node.command(&["PUBSUB", "SHARDCHANNELS", "rooms.room.*"]);
        slots.extend(channels.iter().map(|channel| (cluster.slot(channel), place)));
    }
    slots.into_iter().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_move_under_load_without_a_loss() {
    moved_under_load(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_move_under_load_without_a_loss() {
    moved_under_load(4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_dies_is_followed_by_its_replica() {
    let mut cluster = spawn_blocking(|| RedisCluster::start(3, true)).await.expect("it starts");
    let nodes = nodes(&cluster.url(), "").await;
    let load = Load::start(&nodes, 6).await;
    load.until_more(10).await;
    let begin = Instant::now();
    cluster.nodes[1].kill();
    let cluster = spawn_blocking(move || {
        cluster.await_successor(1);
        cluster
    });
    let cluster = cluster.await.expect("a successor");
    for node in &nodes {
        node.metric_until("roomcast_broker_connected", |connected| connected > 0.0).await;
    }
    println!("every room is heard again {:?} after the kill", begin.elapsed());
    load.until_more(10).await;
    let (confirmed, ..) = load.finish().await;
    assert!(confirmed > 100);
    assert!(!cluster.replica_of(1).command(&["PUBSUB", "SHARDCHANNELS", "rooms.room.*"]).is_empty());
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_lead_to_the_new_master() {
    let mut service = spawn_blocking(RedisService::start).await.expect("it starts");
    let nodes = nodes(&service.url(), "").await;
    let load = Load::start(&nodes, 4).await;
    load.until_more(10).await;
    let begin = Instant::now();
    service.servers[0].kill();
    let service = spawn_blocking(move || {
        service.await_master(1);
        service
    });
    let service = service.await.expect("a new master");
    for node in &nodes {
        node.metric_until("roomcast_broker_connected", |connected| connected > 0.0).await;
    }
    println!("every room is heard again {:?} after the kill", begin.elapsed());
    load.until_more(10).await;
    let (confirmed, ..) = load.finish().await;
    assert!(confirmed > 60);
    assert_eq!(service.master(), 1);
    stop(nodes).await;
}
