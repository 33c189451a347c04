//! Clients and publishers of a test, from their entering until everything is held against what was promised. Knows nobody who
//! starts and stops nodes.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rand::{SeedableRng, rngs::StdRng};
use serde_json::json;
use tokio::{sync::watch, task::JoinSet, time::sleep};

use crate::{
    client::{Client, Habits, Heard},
    ledger::{self, Ledger, Place, is_client},
    nodes::{self, Nodes},
    publisher::Publisher,
};

/// How long it may take until everybody has heard everything, once everything runs again.
pub(crate) const SETTLES: Duration = Duration::from_mins(1);
/// How many publications `long` and `short` rooms remember.
pub(crate) const LONG: u64 = 5000;
pub(crate) const SHORT: u64 = 8;
/// Of a long history nobody is given more than that.
pub(crate) const LIMIT: u64 = 300;

/// The rules of rooms with recovery.
pub(crate) const ROOM_RULES: &str = r#"
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
pub(crate) enum Phase {
    /// Whatever they do.
    Running,
    /// Publishers finish, and clients stay.
    Settling,
    Over,
}

/// Clients and publishers, and what they have to say.
pub(crate) struct Crowd {
    nodes: Arc<Nodes>,
    rooms: Arc<Vec<String>>,
    pub(crate) ledger: Arc<Ledger>,
    seed: u64,
    phase: watch::Sender<Phase>,
    clients: JoinSet<()>,
    heard: Vec<(Vec<usize>, Heard)>,
    publishers: JoinSet<()>,
}

impl Crowd {
    pub(crate) fn new(nodes: &Arc<Nodes>, rooms: &Arc<Vec<String>>, ledger: Ledger, seed: u64) -> Self {
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

    pub(crate) fn add_client(&mut self, number: u32, habits: Habits, places: &[usize]) {
        let rooms: Vec<_> = places.iter().map(|room| (*room, self.rooms[*room].clone())).collect();
        let client = Client::new(number, self.seed, habits, &rooms, &self.nodes, &self.ledger);
        self.heard.push((client.rooms(), client.heard()));
        self.clients.spawn(client.live(self.phase.subscribe()));
    }

    pub(crate) fn add_publishers(&mut self, count: u32, pause: Duration) {
        for name in 0..count {
            let publisher = Publisher::new(name, self.seed, &self.nodes, &self.ledger, &self.rooms);
            self.publishers.spawn(Publisher { pause, ..publisher }.live(self.phase.subscribe()));
        }
    }

    /// Waits until every client has been in each of its rooms.
    pub(crate) async fn until_in(&self, patience: Duration) {
        let begin = Instant::now();
        let mut outside: Vec<_> =
            self.heard.iter().flat_map(|(rooms, heard)| rooms.iter().map(move |room| (room, heard))).collect();
        while !outside.is_empty() {
            outside.retain(|(room, heard)| !heard.lock().expect("nobody panics with it").contains_key(*room));
            assert!(begin.elapsed() < patience, "{} never enter: {:?}", outside.len(), self.ledger.faults());
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Lets everybody go on until it is enough, or their patience ends.
    #[allow(dead_code, reason = "each test uses the part it needs")]
    pub(crate) async fn go_on(&self, patience: Duration, is_enough: impl Fn() -> bool) {
        let begin = Instant::now();
        while !is_enough() && self.ledger.faults().is_empty() && begin.elapsed() < patience {
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Nobody does anything any more: everybody has to come to where the rooms stand, without anything else being said; and
    /// has to hear what is said then, also where nodes are made deaf before each word and no later one shows what they missed.
    pub(crate) async fn settle(&mut self, patience: Duration, deafen: impl Fn()) {
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
    pub(crate) async fn judge(&mut self) -> Vec<String> {
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
