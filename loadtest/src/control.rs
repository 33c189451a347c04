//! What the coordinator and its worker processes say to each other: one JSON value per line over the worker's standard
//! input and output. Knows no sockets and no phases; who says what when is the scenario's matter.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{histogram::Sparse, oracle::Tally, plan::Plan};

/// What a worker is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// First of all: the load, and which share of it is this worker's.
    Prepare {
        /// The load.
        plan: Box<Plan>,
        /// Number of this worker, from 0.
        worker: u32,
    },
    /// Open the connections from `start` on.
    Connect {
        /// Nanoseconds of [`crate::clock`].
        start: u64,
    },
    /// Publish from `start` on.
    Publish {
        /// Nanoseconds of [`crate::clock`].
        start: u64,
    },
    /// Wait until all of this has arrived or nothing comes any more.
    Drain {
        /// What was published, by all workers.
        published: Published,
    },
}

/// What a worker tells.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Note {
    /// Ready for orders; the floor's server names its port.
    Ready {
        /// Listening port, 0 for a worker that only connects.
        port: u16,
    },
    /// Sums so far, a few times a second.
    Progress {
        /// The sums.
        sums: Progress,
        /// Intended send to arrival of what came since it was told last, about once a second.
        latency: Option<Sparse>,
    },
    /// Every connection is joined or has failed.
    Connected,
    /// The schedule is over and replies are in.
    Published(Published),
    /// Everything measured; the last note.
    Done(Box<Outcome>),
    /// The worker gives up.
    Failed {
        /// Why.
        reason: String,
    },
}

/// Sums for the progress line.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Progress {
    /// Connections joined at present.
    pub connected: u64,
    /// Connections refused or lost so far.
    pub failed: u64,
    /// Messages sent.
    pub published: u64,
    /// Messages arrived.
    pub delivered: u64,
}

/// What was published in each room by each publisher.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Published {
    /// Messages sent, by room and slot (`room * slots + slot`); rooms without any may be missing at the end.
    pub sent: Vec<u32>,
    /// Sequence numbers that the server did not take, ascending, by the same index.
    pub refused: BTreeMap<u32, Vec<u32>>,
    /// Publishes the server answered with an error, by code and text.
    pub errors: BTreeMap<String, u64>,
    /// Publishes never answered.
    pub unanswered: u64,
    /// Publishes the schedule asked for that were not sent in time.
    pub unsent: u64,
    /// When the last message was sent.
    pub last: u64,
}

impl Published {
    /// Adds another worker's.
    pub fn merge(&mut self, other: Self) {
        if self.sent.len() < other.sent.len() {
            self.sent.resize(other.sent.len(), 0);
        }
        for (sum, count) in self.sent.iter_mut().zip(&other.sent) {
            *sum += count;
        }
        self.refused.extend(other.refused);
        add(&mut self.errors, other.errors);
        self.unanswered += other.unanswered;
        self.unsent += other.unsent;
        self.last = self.last.max(other.last);
    }

    /// Messages sent in all rooms.
    pub fn total(&self) -> u64 {
        self.sent.iter().map(|&count| u64::from(count)).sum()
    }

    /// The refused sequence numbers of one room and slot.
    pub fn refused_of(&self, index: u32) -> &[u32] {
        self.refused.get(&index).map_or(&[], Vec::as_slice)
    }
}

/// Everything one worker measured.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// Connections joined at the end of the ramp.
    pub connected: u64,
    /// Why others failed before they were joined, by reason.
    pub connect_errors: BTreeMap<String, u64>,
    /// Why joined ones ended, by reason.
    pub disconnects: BTreeMap<String, u64>,
    /// Deliveries counted.
    pub tally: Tally,
    /// Intended start of a connection to its last opening reply.
    pub connect: Sparse,
    /// Intended send to arrival.
    pub delivery: Sparse,
    /// Actual send to arrival.
    pub raw: Sparse,
    /// Intended send to the reply of the publish.
    pub publish: Sparse,
    /// Intended to actual send, where the publisher was not held back by unanswered publishes.
    pub lateness: Sparse,
    /// When the last connection was joined.
    pub joined_at: u64,
    /// When the last message arrived.
    pub last_arrival: u64,
    /// Who came back.
    pub returns: Returns,
    /// Intended start of coming back to the last opening reply.
    pub reconnect: Sparse,
    /// Intended asking to its reply.
    pub ask: Sparse,
    /// Questions the server answered with an error, by code and text.
    pub ask_errors: BTreeMap<String, u64>,
    /// Somebody entered or left: how often that was told.
    pub memberships: u64,
    /// What slow clients went through.
    pub slow: Slow,
}

/// Connections that came back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Returns {
    /// Connections the tool itself closed.
    pub left: u64,
    /// Connections that joined again, once for each time.
    pub returned: u64,
    /// Attempts that failed, by reason.
    pub errors: BTreeMap<String, u64>,
    /// Subscriptions that were given all they had missed.
    pub recovered: u64,
    /// Subscriptions that asked for it in vain.
    pub unrecovered: u64,
    /// When the last one was back.
    pub last: u64,
}

impl Returns {
    /// Adds another worker's.
    pub fn merge(&mut self, other: Self) {
        self.left += other.left;
        self.returned += other.returned;
        add(&mut self.errors, other.errors);
        self.recovered += other.recovered;
        self.unrecovered += other.unrecovered;
        self.last = self.last.max(other.last);
    }
}

/// Clients that read slowly. They are kept out of all other figures.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Slow {
    /// How many there are.
    pub clients: u64,
    /// Messages they read.
    pub delivered: u64,
    /// Why the server ended their connections, by reason.
    pub ended: BTreeMap<String, u64>,
}

impl Slow {
    /// Adds another worker's.
    pub fn merge(&mut self, other: Self) {
        self.clients += other.clients;
        self.delivered += other.delivered;
        add(&mut self.ended, other.ended);
    }
}

/// Adds counts by name.
pub fn add(sums: &mut BTreeMap<String, u64>, more: BTreeMap<String, u64>) {
    for (name, count) in more {
        *sums.entry(name).or_default() += count;
    }
}
