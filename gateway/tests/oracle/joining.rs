//! Entering and leaving while others speak, over a real store and two nodes, with nothing failing: then nobody may ever miss
//! anything, be told that something is gone, or be put out.

use std::{sync::Arc, time::Duration};

use rand::{Rng, SeedableRng, rngs::StdRng, seq::index::sample};
use roomcast_shared::protocol::Encoding;
use tokio::time::sleep;

use crate::{
    client::Habits,
    common::{Gateway, redis::RedisServer},
    crowd::{Crowd, SETTLES},
    ledger::Ledger,
    nodes::{Address, KEY, Nodes},
};

const CLIENTS: u32 = 60;
/// In the first room are all, in the others few, so that nodes leave these rooms and enter them again.
const ROOMS: usize = 8;
const PUBLISHERS: u32 = 4;
const SECONDS: u64 = 8;

const SETTINGS: &str = r#"
channel.recovery_max_publication_limit = 100000
channel.position_check_delay = "1s"
[[namespaces]]
name = "rec"
allow_subscribe_for_client = true
allow_publish_for_subscriber = true
history_size = 100000
history_ttl = "1h"
force_recovery = true
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_comes_and_goes_while_others_speak_misses_nothing() {
    let seed = std::env::var("ROOMCAST_ORACLE_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let redis = RedisServer::start();
    let settings = format!("redis.url = {:?}\napi.key = {KEY:?}\n{SETTINGS}", redis.url());
    let gateways = [Gateway::start(&settings), Gateway::start(&settings)];
    let nodes = Arc::new(Nodes::default());
    for (number, gateway) in gateways.iter().enumerate() {
        gateway.ready().await;
        nodes.set(number, Some(Address { clients: gateway.clients, internal: gateway.internal }));
    }
    let rooms = Arc::new((0..ROOMS).map(|room| format!("rec:{room}")).collect::<Vec<_>>());
    let mut crowd = Crowd::new(&nodes, &rooms, Ledger::new(vec![100_000; ROOMS]), seed);
    crowd.add_publishers(PUBLISHERS, Duration::from_millis(4));
    let mut rng = StdRng::seed_from_u64(seed);
    for number in 0..CLIENTS {
        let mut places = vec![0];
        places.extend(sample(&mut rng, ROOMS - 1, 1).into_iter().map(|room| room + 1).filter(|_| number < 20));
        crowd.add_client(number, habits(number, &mut rng), &places);
    }
    sleep(Duration::from_secs(SECONDS)).await;
    crowd.settle(SETTLES, || ()).await;
    let faults = crowd.judge().await;
    println!("{}", crowd.ledger.tally());
    assert!(faults.is_empty(), "ROOMCAST_ORACLE_SEED={seed}:\n{}", faults.join("\n"));
    let said = crowd.ledger.counted("publications answered to publishers");
    let recovered = crowd.ledger.counted("recoveries");
    let lost = ["unsubscribed: 2500 insufficient state", "connections ended: 3010 insufficient state"];
    assert_eq!(lost.map(|what| crowd.ledger.counted(what)), [0, 0], "nothing was lost");
    assert!(said > 200 && recovered > 200, "{said} publications and {recovered} recoveries are too few");
    for gateway in gateways {
        gateway.stop().await;
    }
}

fn habits(number: u32, rng: &mut StdRng) -> Habits {
    Habits {
        encoding: if number.is_multiple_of(2) { Encoding::Json } else { Encoding::Protobuf },
        server_side: number.is_multiple_of(5),
        refuses: number.is_multiple_of(3),
        publishes: (number.is_multiple_of(4)).then_some((0.05, 0.3)),
        stays: (0.2, rng.random_range(0.5..4.0)),
        away: (0.0, if number < 20 { 1.5 } else { 0.3 }),
        leaves: (!number.is_multiple_of(5)).then_some((0.1, 0.6)),
    }
}
