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
mod crowd;
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

use client::Habits;
use crowd::{Crowd, LIMIT, LONG, ROOM_RULES, SETTLES, SHORT};
use ledger::Ledger;
use plan::plan;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::index::sample};
use roomcast_shared::protocol::Encoding;
use world::World;

/// The plan that is always played.
const SHORT_SEED: u64 = 1;
const SHORT_LENGTH: Duration = Duration::from_secs(12);
const CLIENTS: u32 = 200;
const ROOMS: usize = 50;
const PUBLISHERS: u32 = 6;
/// Waiting for an answer of Redis is short, so that a Redis that stands still is given up within the plan. Positions are
/// compared after a loss only: nobody is helped by a comparison that would have come anyway.
const SETTINGS: &str = r#"
redis.io_timeout = "1s"
channel.position_check_delay = "0s"
shutdown.delay = "0s"
shutdown.drain = "300ms"
shutdown.timeout = "2s"
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn everybody_hears_everything_once_and_in_order_or_is_told_that_it_is_gone() {
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let asked = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seconds = asked("ROOMCAST_ORACLE_SECONDS");
    let unasked = if seconds.is_some() { rand::random_range(0..1_000_000) } else { SHORT_SEED };
    let seed = asked("ROOMCAST_ORACLE_SEED").unwrap_or(unasked);
    let length = seconds.map_or(SHORT_LENGTH, Duration::from_secs);
    println!("{length:?} with ROOMCAST_ORACLE_SEED={seed}");

    let mut world = World::start(2, &format!("{SETTINGS}{ROOM_RULES}"));
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
    // The plan keeps its times however little the machine lets everybody do meanwhile. What clients are confirmed counts
    // where all of it is remembered, from the last loss on, which may be near the end.
    let words = || crowd.ledger.confirmed_in(world.nodes.losses(), |room| !is_short(room));
    crowd.go_on(SETTLES, || floors::is_enough(&crowd.ledger, words(), length, &plan)).await;
    println!("{:?} until there was enough", began.elapsed());
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
