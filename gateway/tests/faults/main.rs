//! One fault after the other, each under load: what becomes of publications in rooms with recovery is held against everything
//! that publishers and clients were told, and what clients of plain rooms are told is counted. What befalls at random, all
//! together and for long, is in `oracle`; failovers of Sentinel and Redis Cluster are in `redis_cluster`.
//!
//! `make faults` prints what was counted and how long it took until everybody was served again.

#![allow(dead_code, reason = "it uses a part of what it shares with the oracle")]
#![allow(clippy::print_stdout, reason = "how long a recovery took is worth a look")]

#[path = "../common/mod.rs"]
mod common;

#[path = "../oracle/client/mod.rs"]
mod client;
#[path = "../oracle/crowd.rs"]
mod crowd;
#[path = "../oracle/ledger.rs"]
mod ledger;
#[path = "../oracle/nodes.rs"]
mod nodes;
#[path = "../oracle/publisher.rs"]
mod publisher;

mod balancer;
mod network;
mod plain;
mod processes;
mod scene;
mod stayers;
mod store;
