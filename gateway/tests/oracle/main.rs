//! What no client may ever see, looked for where it is hardest to keep: while nodes and store are killed and come back, and
//! connections are cut at random, every client hears every publication of its rooms once and in order, or is told that it
//! cannot be so.
//!
//! A failure names its seed. The seed repeats the plan: what is killed, stopped, paused or cut at which time, which clients
//! there are, and their habits. It does not repeat how threads, processes and sockets come in between each other, so that a
//! failure may need several runs of its seed to be seen again.
//!
//! A run that saw too little fails as well. `cargo test` plays a short plan; `make oracle` one of two minutes. `ROOMCAST_ORACLE_SECONDS` and `ROOMCAST_ORACLE_SEED`
//! choose others.

#[path = "../common/mod.rs"]
mod common;

mod client;
mod floors;
mod joining;
mod ledger;
mod nodes;
mod plan;
mod publisher;
mod world;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use client::{Client, Habits, Heard};
use ledger::{Ledger, Place, is_client};
use nodes::Nodes;
use plan::plan;
use publisher::Publisher;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::index::sample};
use roomcast_shared::protocol::Encoding;
use serde_json::json;
use tokio::{sync::watch, task::JoinSet, time::sleep};
use world::World;

/// The plan that is always played.
const SHORT_SEED: u64 = 1;
const SHORT_LENGTH: Duration = Duration::from_secs(12);
const CLIENTS: u32 = 200;
const ROOMS: usize = 50;
const PUBLISHERS: u32 = 6;
/// How many publications rooms of the one kind and of the other remember.
const LONG: u64 = 5000;
const SHORT: u64 = 8;
/// Of a long history nobody is given more than that.
const LIMIT: u64 = 300;
/// How long it may take until everybody has heard everything, once everything runs again.
const SETTLES: Duration = Duration::from_mins(1);

/// Waiting for an answer of Redis is short, so that a Redis that stands still is given up within the plan. Positions are
/// compared after a loss only: nobody is helped by a comparison that would have come anyway.
const SETTINGS: &str = r#"
redis.io_timeout = "1s"
channel.position_check_delay = "0s"
shutdown.delay = "0s"
shutdown.drain = "300ms"
shutdown.timeout = "2s"
[[namespaces]]
name = "long"
allow_subscribe_for_client = true
allow_publish_for_subscriber = true
history_size = 5000
history_ttl = "1h"
force_recovery = true
[[namespaces]]
name = "short"
allow_subscribe_for_client = true
allow_publish_for_subscriber = true
history_size = 8
history_ttl = "1h"
force_recovery = true
"#;

/// What everybody does at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Whatever they do.
    Running,
    /// Publishers finish, and clients stay.
    Settling,
    Over,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn everybody_hears_everything_once_and_in_order_or_is_told_that_it_is_gone() {
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let asked = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seconds = asked("ROOMCAST_ORACLE_SECONDS");
    let unasked = if seconds.is_some() { rand::random_range(0..1_000_000) } else { SHORT_SEED };
    let seed = asked("ROOMCAST_ORACLE_SEED").unwrap_or(unasked);
    let length = seconds.map_or(SHORT_LENGTH, Duration::from_secs);
    println!("{length:?} with ROOMCAST_ORACLE_SEED={seed}");

    let mut world = World::start(2, SETTINGS);
    let rooms = Arc::new(
        (0..ROOMS).map(|room| format!("{}:{room}", if is_short(room) { "short" } else { "long" })).collect::<Vec<_>>(),
    );
    let reach = (0..ROOMS).map(|room| if is_short(room) { SHORT } else { LONG.min(LIMIT) }).collect();
    let mut crowd = Crowd::new(&world.nodes, &rooms, Ledger::new(reach), seed);
    let mut rng = StdRng::seed_from_u64(seed);
    for number in 0..CLIENTS {
        let count = rng.random_range(2..=4);
        let places = sample(&mut rng, ROOMS, count).into_vec();
        crowd.add_client(number, habits(number), &places);
    }
    crowd.until_in(SETTLES).await;
    crowd.add_publishers(PUBLISHERS, Duration::from_millis(60));

    let began = Instant::now();
    let plan = plan(seed, length, 2);
    world.suffer(&plan, &crowd.ledger).await;
    println!("{:?} of faults", began.elapsed());
    crowd.settle(SETTLES, || world.deafen()).await;
    let faults = crowd.judge().await;
    println!("{}", crowd.ledger.tally());
    assert!(faults.is_empty(), "ROOMCAST_ORACLE_SEED={seed}:\n{}\n{}", world.complaints(), faults.join("\n"));
    let short = floors::missing(&crowd.ledger, length, &plan);
    assert!(short.is_empty(), "ROOMCAST_ORACLE_SEED={seed} saw too little:\n{}", short.join("\n"));
}

fn is_short(room: usize) -> bool {
    room.is_multiple_of(3)
}

fn habits(number: u32) -> Habits {
    let kind = number % 8;
    Habits {
        encoding: if number.is_multiple_of(2) { Encoding::Json } else { Encoding::Protobuf },
        server_side: kind < 2,
        refuses: kind == 2 || kind == 3,
        publishes: (number % 16 > 11).then_some((0.5, 3.0)),
        stays: (2.0, 25.0),
        away: if number.is_multiple_of(10) { (1.0, 10.0) } else { (0.0, 2.0) },
        leaves: (kind > 4).then_some((1.0, 10.0)),
    }
}

/// Clients and publishers, and what they have to say.
struct Crowd {
    nodes: Arc<Nodes>,
    rooms: Arc<Vec<String>>,
    ledger: Arc<Ledger>,
    seed: u64,
    phase: watch::Sender<Phase>,
    clients: JoinSet<()>,
    heard: Vec<(Vec<usize>, Heard)>,
    publishers: JoinSet<()>,
}

impl Crowd {
    fn new(nodes: &Arc<Nodes>, rooms: &Arc<Vec<String>>, ledger: Ledger, seed: u64) -> Self {
        Self {
            nodes: nodes.clone(),
            rooms: rooms.clone(),
            ledger: Arc::new(ledger),
            seed,
            phase: watch::Sender::new(Phase::Running),
            clients: JoinSet::new(),
            heard: Vec::new(),
            publishers: JoinSet::new(),
        }
    }

    fn add_client(&mut self, number: u32, habits: Habits, places: &[usize]) {
        let rooms: Vec<_> = places.iter().map(|room| (*room, self.rooms[*room].clone())).collect();
        let client = Client::new(number, self.seed, habits, &rooms, &self.nodes, &self.ledger);
        self.heard.push((client.rooms(), client.heard()));
        self.clients.spawn(client.live(self.phase.subscribe()));
    }

    fn add_publishers(&mut self, count: u32, pause: Duration) {
        for name in 0..count {
            let publisher = Publisher::new(name, self.seed, &self.nodes, &self.ledger, &self.rooms);
            self.publishers.spawn(Publisher { pause, ..publisher }.live(self.phase.subscribe()));
        }
    }

    /// Waits until every client has been in each of its rooms.
    async fn until_in(&self, patience: Duration) {
        let begin = Instant::now();
        let mut outside: Vec<_> =
            self.heard.iter().flat_map(|(rooms, heard)| rooms.iter().map(move |room| (room, heard))).collect();
        while !outside.is_empty() {
            outside.retain(|(room, heard)| !heard.lock().expect("nobody panics with it").contains_key(*room));
            assert!(begin.elapsed() < patience, "{} never enter: {:?}", outside.len(), self.ledger.faults());
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Nobody does anything any more: everybody has to come to where the rooms stand, without anything else being said; and
    /// has to hear what is said then, also where nodes are made deaf before each word and no later one shows what they missed.
    async fn settle(&mut self, patience: Duration, deafen: impl Fn()) {
        self.phase.send_replace(Phase::Settling);
        while let Some(ended) = self.publishers.join_next().await {
            ended.expect("publishers do not panic");
        }
        self.until_all_stand(patience).await;
        let mut last = Publisher::new(u32::MAX >> 8, self.seed, &self.nodes, &self.ledger, &self.rooms);
        last.name = 999;
        let mut number = 0;
        for deaf in [true, false] {
            if !self.ledger.faults().is_empty() {
                return;
            }
            for room in 0..self.rooms.len() {
                number += 1;
                if deaf {
                    deafen();
                }
                last.say(room, number).await;
            }
            self.until_all_stand(patience).await;
        }
    }

    async fn until_all_stand(&self, patience: Duration) {
        let begin = Instant::now();
        loop {
            let tops = self.tops().await;
            let behind = self.behind(&tops);
            if behind.is_empty() || !self.ledger.faults().is_empty() {
                return;
            }
            if begin.elapsed() > patience {
                self.ledger.fault(format!(
                    "{} never come to where their rooms stand: {}",
                    behind.len(),
                    behind.join("\n")
                ));
                return;
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Who has not heard a room up to where it stands.
    fn behind(&self, tops: &[Place]) -> Vec<String> {
        let mut behind = Vec::new();
        for (number, (rooms, heard)) in self.heard.iter().enumerate() {
            let heard = heard.lock().expect("nobody panics with it");
            let rooms = rooms.iter().filter(|room| heard.get(room) != Some(&tops[**room]));
            behind.extend(rooms.map(|room| {
                let (place, top) = (heard.get(room), &tops[*room]);
                format!("client {number} stands at {place:?} in room {room}, which stands at {top}")
            }));
        }
        behind
    }

    /// Where every room stands.
    async fn tops(&self) -> Vec<Place> {
        let mut tops = Vec::new();
        for name in self.rooms.iter() {
            tops.push(self.history(&json!({"channel": name, "limit": 0})).await.0);
        }
        tops
    }

    /// A part of a history, and where the room stands.
    async fn history(&self, request: &serde_json::Value) -> (Place, Vec<serde_json::Value>) {
        let mut rng = StdRng::seed_from_u64(self.seed);
        let begin = Instant::now();
        loop {
            if let Some(node) = self.nodes.any(&mut rng)
                && let Ok(mut result) = nodes::api(node, "history", request).await
            {
                let epoch = result["epoch"].as_str().unwrap_or_default().to_owned();
                let publications = result["publications"].as_array_mut().map(std::mem::take).unwrap_or_default();
                return (Place { epoch, offset: result["offset"].as_u64().unwrap_or(0) }, publications);
            }
            assert!(begin.elapsed() < SETTLES, "nobody answers what {request} is");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Reads what the rooms remember, and holds everything that was said and heard against it. Gives what is wrong.
    async fn judge(&mut self) -> Vec<String> {
        for room in 0..self.rooms.len() {
            let top = self.read(room).await;
            self.ledger.judge(room, &top, self.nodes.losses());
        }
        self.ledger.judge_untried(|said| is_client(said.publisher));
        self.phase.send_replace(Phase::Over);
        while let Some(ended) = self.clients.join_next().await {
            ended.expect("clients do not panic");
        }
        self.ledger.faults()
    }

    async fn read(&self, room: usize) -> Place {
        let mut request = json!({"channel": self.rooms[room], "limit": 300});
        loop {
            let (top, publications) = self.history(&request).await;
            for publication in &publications {
                let offset = publication["offset"].as_u64().unwrap_or(0);
                let at = Place { epoch: top.epoch.clone(), offset };
                let said = ledger::Said::read(publication["data"].to_string().as_bytes());
                let fault = said.map_or(Err("what nobody said".to_owned()), |said| self.ledger.stands(room, &at, said));
                if let Err(fault) = fault {
                    self.ledger.fault(format!("room {room}, as it remembers: {fault}"));
                }
                request["since"] = json!({"offset": offset, "epoch": top.epoch});
            }
            if publications.is_empty() {
                return top;
            }
        }
    }
}
