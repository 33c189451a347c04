//! A publisher that says numbers through the server API of any node and tries each again until it is answered, with an
//! idempotency key: whatever becomes of nodes and store meanwhile, each has to stand once. Knows no clients.

use std::{io, sync::Arc, time::Duration};

use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::json;
use tokio::{sync::watch, time::sleep};

use crate::{
    crowd::Phase,
    ledger::{Ledger, Place, Said},
    nodes::{self, Nodes},
};

/// Rooms in which more is said than in others.
const BUSY: usize = 5;

pub(crate) struct Publisher {
    pub(crate) name: u32,
    pub(crate) nodes: Arc<Nodes>,
    pub(crate) ledger: Arc<Ledger>,
    /// Names of the rooms.
    pub(crate) rooms: Arc<Vec<String>>,
    /// Between two things it says.
    pub(crate) pause: Duration,
    pub(crate) rng: StdRng,
}

impl Publisher {
    pub(crate) fn new(
        name: u32,
        seed: u64,
        nodes: &Arc<Nodes>,
        ledger: &Arc<Ledger>,
        rooms: &Arc<Vec<String>>,
    ) -> Self {
        Self {
            name,
            nodes: nodes.clone(),
            ledger: ledger.clone(),
            rooms: rooms.clone(),
            pause: Duration::from_millis(40),
            rng: StdRng::seed_from_u64(seed ^ (u64::from(name) << 32)),
        }
    }

    /// Speaks while the phase is [`Phase::Running`], and then until what it said last is answered.
    pub(crate) async fn live(mut self, phase: watch::Receiver<Phase>) {
        let mut number = 0;
        while *phase.borrow() == Phase::Running {
            number += 1;
            // Every other word goes to a few rooms, of which more is missed than they remember.
            let busy = self.rooms.len().min(BUSY);
            let room = self.rng.random_range(0..if number % 2 == 0 { busy } else { self.rooms.len() });
            self.say(room, number).await;
            sleep(self.pause.mul_f64(self.rng.random_range(0.5..1.5))).await;
        }
    }

    /// Says one number in a room, as often as it takes.
    pub(crate) async fn say(&mut self, room: usize, number: u64) {
        let said = Said { publisher: self.name, number };
        while let Err(error) = self.attempt(room, said).await {
            self.ledger.count("publications tried again", 1);
            self.ledger.count(&format!("  because: {}", kind(&error)), 1);
            sleep(Duration::from_millis(self.rng.random_range(20..200))).await;
        }
        self.ledger.count("publications answered to publishers", 1);
    }

    async fn attempt(&mut self, room: usize, said: Said) -> io::Result<()> {
        let node = self.nodes.any(&mut self.rng).ok_or(io::ErrorKind::NotConnected)?;
        let body = json!({"channel": self.rooms[room], "data": said.payload(), "idempotency_key": said.to_string()});
        let era = self.nodes.era();
        let result = nodes::api(node, "publish", &body).await?;
        let era = era.filter(|_| era == self.nodes.era());
        let (Some(epoch), Some(offset)) = (result["epoch"].as_str(), result["offset"].as_u64()) else {
            self.ledger.fault(format!("room {room}: {said} was answered without a place: {result}"));
            return Ok(());
        };
        self.ledger.answered(room, &Place { epoch: epoch.to_owned(), offset }, said, era);
        Ok(())
    }
}

/// What a failure is in one word; of a node's own errors, its text.
fn kind(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::Other { error.to_string() } else { error.kind().to_string() }
}
