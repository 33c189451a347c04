//! How many connections a user may have on all nodes together: held over a real Redis, also where everybody comes at once; given
//! back at once by whoever closes, and by a node that is killed.

mod common;

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use common::{Client, Gateway, PATIENCE, Process, json, redis::RedisServer, token};

const LIMIT: &str = "client.user_cluster_connection_limit";
const CONNECTED: &str = "roomcast_broker_connected";
const UNCOUNTED: &str = "roomcast_users_uncounted_total";

/// A node on that Redis that lets a user have so many connections, once it hears Redis.
async fn node(redis: &RedisServer, limit: u32, settings: &str) -> Gateway {
    let node = Gateway::open(&format!("{LIMIT} = {limit}\nredis.url = {:?}\n{settings}", redis.url()));
    node.metric_until(CONNECTED, |value| value > 0.0).await;
    node
}

/// Connects as this user; none where the user has too many connections.
async fn attempt(node: &Gateway, user: &str) -> Option<Client> {
    let mut client = Client::open(node.clients).await;
    let connect = json!({"id": 1, "connect": {"token": token(&json!({"sub": user}))}});
    client.send(&connect.to_string()).await;
    let frame = client.frame().await.expect("it is answered or closed");
    if frame.opcode == 8 {
        assert_eq!(common::client::close(&frame), (3504, "connection limit".to_owned()));
        return None;
    }
    let reply: common::Value = serde_json::from_slice(&frame.payload).expect("JSON");
    assert!(reply["connect"]["client"].is_string(), "{reply}");
    Some(client)
}

/// Tries until the user is let in.
async fn until_let_in(node: &Gateway, user: &str) -> Client {
    let begin = Instant::now();
    loop {
        if let Some(client) = attempt(node, user).await {
            return client;
        }
        assert!(begin.elapsed() < PATIENCE, "never let in");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_has_so_many_connections_on_all_nodes_together() {
    let redis = RedisServer::start();
    let settings = "auth.allow_anonymous = true";
    let (one, other) = (node(&redis, 3, settings).await, node(&redis, 3, settings).await);
    let first = attempt(&one, "ann").await.expect("the first");
    let second = attempt(&other, "ann").await.expect("the second");
    let third = attempt(&other, "ann").await.expect("the third");
    assert!(attempt(&one, "ann").await.is_none() && attempt(&other, "ann").await.is_none());
    let ben = attempt(&one, "ben").await.expect("another user");
    for node in [&one, &other, &one, &other] {
        let mut nobody = Client::open(node.clients).await;
        assert!(
            nobody.ask(json!({"connect": {}})).await["connect"].is_object(),
            "those without a user are not counted"
        );
    }
    // Whoever closes makes place at once, on whichever node.
    drop(second);
    let again = until_let_in(&one, "ann").await;
    assert!(attempt(&other, "ann").await.is_none());
    assert_eq!((one.count(UNCOUNTED).await, other.count(UNCOUNTED).await), (0, 0));
    assert_eq!(one.count("roomcast_closes_total{code=\"3504\"}").await, 1);
    drop((first, third, ben, again));
    one.stop().await;
    other.stop().await;
    let left = redis.command(&["KEYS", "*presence*"]);
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_who_come_at_once_no_more_are_let_in_than_may_be() {
    let redis = RedisServer::start();
    let nodes = [node(&redis, 5, "").await, node(&redis, 5, "").await];
    for round in 0..3 {
        let user = format!("user{round}");
        let attempts = (0..40).map(|number| attempt(&nodes[number % 2], &user));
        let clients: Vec<_> = futures_util::future::join_all(attempts).await.into_iter().flatten().collect();
        assert_eq!(clients.len(), 5, "in round {round}");
    }
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_of_a_killed_node_are_in_nobodys_way() {
    let redis = RedisServer::start();
    let own = node(&redis, 2, "channel.presence_ttl = \"10m\"").await;
    let settings = [(LIMIT, "2"), ("redis.url", &redis.url()), ("channel.presence_ttl", "10m")];
    let mut process = Process::start(&settings);
    // The process may not hear Redis yet; what it lets in before is counted when it does.
    let lost = [Client::connected(process.clients, "ann").await, Client::connected(process.clients, "ann").await];
    let begin = Instant::now();
    while attempt(&own, "ann").await.is_some() {
        assert!(begin.elapsed() < PATIENCE, "connections of the process are never counted");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    process.signal("KILL");
    process.ended();
    // Long before their time is over.
    let back = [until_let_in(&own, "ann").await, until_let_in(&own, "ann").await];
    assert!(attempt(&own, "ann").await.is_none(), "the limit holds all the same");
    drop((lost, back));
    own.stop().await;
}

/// A host that is gone does not close its connections: what it had counts until its time is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_of_a_node_that_hangs_count_until_their_time_is_over() {
    let redis = RedisServer::start();
    let quick = "channel.presence_ttl = \"3s\"\nchannel.presence_update_interval = \"1s\"";
    let own = node(&redis, 1, quick).await;
    let settings = [
        (LIMIT, "1"),
        ("redis.url", &redis.url()),
        ("channel.presence_ttl", "3s"),
        ("channel.presence_update_interval", "1s"),
    ];
    let process = Process::start(&settings);
    let lost = Client::connected(process.clients, "ann").await;
    let begin = Instant::now();
    while attempt(&own, "ann").await.is_some() {
        assert!(begin.elapsed() < PATIENCE, "the connection of the process is never counted");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    process.signal("STOP");
    let stopped = Instant::now();
    let back = until_let_in(&own, "ann").await;
    assert!(stopped.elapsed() < PATIENCE);
    drop((lost, back, process));
    own.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_redis_is_away_the_count_of_the_node_alone_holds() {
    let mut redis = RedisServer::start();
    let settings = "client.user_connection_limit = 3\nchannel.presence_update_interval = \"1s\"";
    let (one, other) = (node(&redis, 2, settings).await, node(&redis, 2, settings).await);
    let first = attempt(&one, "ann").await.expect("the first");
    redis.kill();
    for node in [&one, &other] {
        node.metric_until(CONNECTED, |value| value < 1.0).await;
    }
    let here = [attempt(&one, "ann").await.expect("let in"), attempt(&one, "ann").await.expect("let in")];
    assert!(attempt(&one, "ann").await.is_none(), "more than one node alone may have");
    let there = attempt(&other, "ann").await.expect("let in");
    assert_eq!((one.count(UNCOUNTED).await, other.count(UNCOUNTED).await), (2, 1));
    // Redis comes back and knows nothing: all of them are counted again, and as they are too many, nobody is let in.
    redis.restart();
    for node in [&one, &other] {
        node.metric_until(CONNECTED, |value| value > 0.0).await;
    }
    let begin = Instant::now();
    while attempt(&other, "ann").await.is_some() {
        assert!(begin.elapsed() < PATIENCE, "connections are never counted again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop((first, here));
    // One of two is there.
    let again = until_let_in(&one, "ann").await;
    drop((there, again));
    one.stop().await;
    other.stop().await;
}

/// A Redis that hangs breaks no connection, so that for a while it does not look as if it were away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_hangs_keeps_nobody_out() {
    let redis = RedisServer::start();
    // Nothing but the count's own patience ends the wait.
    let node = node(&redis, 1, "redis.io_timeout = \"10m\"").await;
    redis.pause();
    let clients = [attempt(&node, "ann").await.expect("let in"), attempt(&node, "ann").await.expect("let in")];
    assert_eq!(node.count(UNCOUNTED).await, 2);
    redis.resume();
    // What was asked while it hung takes effect now: both are counted, and they are too many.
    let begin = Instant::now();
    while attempt(&node, "ann").await.is_some() {
        assert!(begin.elapsed() < PATIENCE, "connections are never counted");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(clients);
    drop(until_let_in(&node, "ann").await);
    node.stop().await;
}

#[tokio::test]
async fn a_node_without_redis_counts_by_itself() {
    let node = Gateway::open(&format!("{LIMIT} = 1"));
    let first = attempt(&node, "ann").await.expect("the first");
    assert!(attempt(&node, "ann").await.is_none());
    drop(first);
    let again = until_let_in(&node, "ann").await;
    drop(again);
    node.stop().await;
}

#[tokio::test]
async fn no_client_comes_near_where_connections_are_counted() {
    let node = Gateway::open(&format!("{LIMIT} = 1\nrooms.channel_regex = \".*\"\nrooms.presence = true"));
    let mut client = Client::connected(node.clients, "ann").await;
    let names: HashSet<_> = ["\0ben", "\0ann", "\0"].into();
    for room in names {
        let reply = client.ask(json!({"subscribe": {"channel": room}})).await;
        assert_eq!(reply["error"]["code"], 107, "{reply}");
        let (_, answer) = node.api("presence", &json!({"channel": room})).await;
        assert_eq!(answer["error"]["code"], 107, "{answer}");
    }
    drop(client);
    node.stop().await;
}
