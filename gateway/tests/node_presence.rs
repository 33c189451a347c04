//! Who is where, kept by nodes over one Redis: entered, renewed, left, and gone with a node that was killed.

#![allow(clippy::unwrap_used, reason = "a test fails where what it needs fails")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use roomcast::{
    broker::Count,
    node::{Node, Present},
};
use roomcast_shared::publication::ClientInfo;

#[path = "common/node.rs"]
mod node;
#[path = "common/recorder.rs"]
mod recorder;
#[path = "common/redis.rs"]
mod redis;

use node::{Plan, TestNode};
use recorder::DEADLINE;
use redis::RedisServer;

fn plan(name: &'static str) -> Plan {
    let (presence_ttl, presence_interval) = (Duration::from_millis(1_500), Duration::from_millis(400));
    Plan { presence_ttl, presence_interval, ..Plan::of(name) }
}

fn info(client: &str, user: &str) -> ClientInfo {
    ClientInfo { client: client.to_owned(), user: user.to_owned(), ..ClientInfo::default() }
}

async fn enter(node: &Arc<Node>, room: &str, client: &str, user: &str) -> Present {
    node.enter_presence(&Arc::from(room), info(client, user)).wait().await.unwrap()
}

async fn count(node: &Node, room: &str) -> (u64, u64) {
    let Count { clients, users } = node.presence_count(room).wait().await.unwrap();
    (clients, users)
}

async fn members(node: &Node, room: &str) -> Vec<String> {
    let members = node.presence(room, "", 1_000).wait().await.unwrap();
    members.clients.into_iter().map(|member| member.client).collect()
}

async fn until_members(node: &Node, room: &str, wanted: &[&str]) {
    let begin = Instant::now();
    loop {
        let found = node.presence(room, "", 1_000).wait().await.map(|members| members.clients);
        let names = found.iter().flatten().map(|member| member.client.as_str()).collect::<Vec<_>>();
        if names == wanted {
            return;
        }
        assert!(begin.elapsed() < DEADLINE, "{room} has {found:?} instead of {wanted:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_is_present_on_every_node_until_it_leaves() {
    let server = RedisServer::start();
    let (one, two) = (TestNode::start(&server, &plan("one")), TestNode::start(&server, &plan("two")));
    let ann = enter(&one.node, "a", "c1", "ann").await;
    let too = enter(&two.node, "a", "c2", "ann").await;
    let ben = enter(&two.node, "a", "c3", "ben").await;
    assert_eq!(
        (members(&one.node, "a").await, count(&two.node, "a").await),
        (vec!["c1".into(), "c2".into(), "c3".into()], (3, 2))
    );
    too.leave().wait().await.unwrap();
    assert_eq!(count(&one.node, "a").await, (2, 2));
    // Nobody waits for these.
    drop((ann, ben));
    until_members(&one.node, "a", &[]).await;
    assert_eq!(server.command(&["DBSIZE"]), ["0"]);
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clients_of_a_killed_node_go_with_time_and_those_of_the_others_stay() {
    let server = RedisServer::start();
    let (one, mut two) = (TestNode::start(&server, &plan("one")), TestNode::start(&server, &plan("two")));
    let mut stay = Vec::new();
    let mut go = Vec::new();
    for number in 0..3 {
        stay.push(enter(&one.node, "a", &format!("stays-{number}"), "ann").await);
        go.push(enter(&two.node, "a", &format!("goes-{number}"), ["ann", "ben"][number % 2]).await);
    }
    // Longer than they live without being renewed.
    tokio::time::sleep(plan("one").presence_ttl * 2).await;
    assert_eq!(count(&one.node, "a").await, (6, 2), "they are renewed");
    let killed = Instant::now();
    two.kill();
    until_members(&one.node, "a", &["stays-0", "stays-1", "stays-2"]).await;
    assert!(killed.elapsed() < plan("two").presence_ttl + Duration::from_secs(2), "{:?}", killed.elapsed());
    assert_eq!(count(&one.node, "a").await, (3, 1));
    drop(stay);
    until_members(&one.node, "a", &[]).await;
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_redis_has_forgotten_is_present_again_after_a_renewal() {
    let mut server = RedisServer::start();
    let one = TestNode::start(&server, &plan("one"));
    let _ann = enter(&one.node, "a", "c1", "ann").await;
    let gone = enter(&one.node, "a", "c2", "ben").await;
    server.command(&["FLUSHALL"]);
    until_members(&one.node, "a", &["c1", "c2"]).await;
    gone.leave().wait().await.unwrap();
    server.restart();
    until_members(&one.node, "a", &["c1"]).await;
    one.stop().await;
}

/// The interval is longer than the test: a Redis that was lost is told at once who is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_comes_back_empty_is_soon_told_who_is_there() {
    let mut server = RedisServer::start();
    let interval = DEADLINE * 4;
    let one =
        TestNode::start(&server, &Plan { presence_ttl: interval * 2, presence_interval: interval, ..plan("one") });
    let _ann = enter(&one.node, "a", "c1", "ann").await;
    server.kill();
    node::until("the loss is seen", || one.node.health() != roomcast::broker::Health::Hearing, String::new).await;
    // A round of shards looks at the health once for each of them.
    tokio::time::sleep(interval / 64).await;
    server.restart();
    until_members(&one.node, "a", &["c1"]).await;
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_known_of_a_client_changes_and_its_old_place_is_nobodys_to_give_up() {
    let server = RedisServer::start();
    let one = TestNode::start(&server, &plan("one"));
    let mut first = enter(&one.node, "a", "c", "ann").await;
    let changed = ClientInfo { conn_info: "{\"v\":2}".into(), ..info("another id", "ann") };
    first.change(changed).wait().await.unwrap();
    let found = one.node.presence("a", "", 10).wait().await.unwrap().clients;
    assert_eq!((found[0].client.as_str(), &found[0].conn_info[..]), ("c", b"{\"v\":2}".as_slice()));
    // The same client enters again before its first place is given up.
    let second = enter(&one.node, "a", "c", "ann").await;
    first.leave().wait().await.unwrap();
    assert_eq!(members(&one.node, "a").await, ["c"]);
    second.leave().wait().await.unwrap();
    assert_eq!(count(&one.node, "a").await, (0, 0));
    one.stop().await;
}

/// A renewal that is on its way must not bring back who has left meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_left_stays_away_whatever_is_being_renewed() {
    let server = RedisServer::start();
    let fast = Plan { presence_interval: Duration::from_millis(1), presence_ttl: DEADLINE * 4, ..Plan::of("one") };
    let one = TestNode::start(&server, &fast);
    for round in 0..100 {
        let rooms: Vec<String> = (0..20).map(|room| format!("room-{room}")).collect();
        let mut there = Vec::new();
        for room in &rooms {
            there.push(enter(&one.node, room, &format!("c{round}"), "ann").await);
        }
        drop(there);
    }
    // Whatever was on its way is done when this is answered.
    assert_eq!(count(&one.node, "room-0").await, (0, 0));
    for room in 0..20 {
        assert_eq!(members(&one.node, &format!("room-{room}")).await, [""; 0]);
    }
    assert_eq!(server.command(&["DBSIZE"]), ["0"]);
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_refused_leaves_no_trace() {
    let mut server = RedisServer::start();
    let one = TestNode::start(&server, &Plan { presence_ttl: DEADLINE * 4, ..plan("one") });
    enter(&one.node, "a", "c1", "ann").await.leave().wait().await.unwrap();
    server.kill();
    // The first may have been written to the connection that breaks.
    for _ in 0..2 {
        assert!(one.node.enter_presence(&Arc::from("a"), info("c1", "ann")).wait().await.is_err());
    }
    server.restart();
    let ben = enter_when_possible(&one.node, "a", "c2", "ben").await;
    // Several rounds of renewals.
    tokio::time::sleep(plan("one").presence_interval * 3).await;
    assert_eq!(members(&one.node, "a").await, ["c2"]);
    drop(ben);
    one.stop().await;
}

async fn enter_when_possible(node: &Arc<Node>, room: &str, client: &str, user: &str) -> Present {
    let begin = Instant::now();
    loop {
        match node.enter_presence(&Arc::from(room), info(client, user)).wait().await {
            Ok(present) => return present,
            Err(error) => assert!(begin.elapsed() < DEADLINE, "nobody may enter: {error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_round_of_renewals_is_a_call_for_each_room_and_500_members() {
    let server = RedisServer::start();
    let interval = Duration::from_secs(2);
    let plan = Plan { presence_ttl: DEADLINE * 4, presence_interval: interval, ..Plan::of("one") };
    let one = TestNode::start(&server, &plan);
    let mut answers = Vec::new();
    for number in 0..3_000 {
        let room = if number < 1_200 { "large".to_owned() } else { format!("room-{}", number % 18) };
        answers.push(one.node.enter_presence(&Arc::from(room.as_str()), info(&format!("c{number}"), "ann")));
    }
    let mut there = Vec::new();
    for answer in answers {
        there.push(answer.wait().await.unwrap());
    }
    server.command(&["FLUSHALL"]);
    let before = server.scripts_run();
    let begin = Instant::now();
    while server.scripts_run() < before + 21 {
        assert!(begin.elapsed() < DEADLINE, "{} of 21 calls", server.scripts_run() - before);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(begin.elapsed() >= interval / 3, "spread, and not within {:?}", begin.elapsed());
    tokio::time::sleep(interval).await;
    let rounds = u32::try_from(begin.elapsed().as_millis() / interval.as_millis()).unwrap() + 2;
    assert!(
        server.scripts_run() - before <= 21 * rounds + 18,
        "{} calls in {rounds} rounds",
        server.scripts_run() - before
    );
    assert_eq!(count(&one.node, "large").await, (1_200, 1));
    drop(there);
    one.stop().await;
}
