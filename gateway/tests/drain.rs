//! How a node stops: what clients, balancers and newcomers see of it, and that nobody can hold it up for long.

mod common;

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use common::{Client, Gateway, PATIENCE, Value, http, json, redis::RedisServer};
use roomcast::{
    broker::{Broker, memory::MemoryBroker},
    config::Settings,
    hub::{Hub, Outbox, Sink, Wire},
    metrics::Metrics,
    node::Node,
    session::{Admission, Context, Heartbeat, Session},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    runtime::Handle,
    task::JoinHandle,
};
use tokio_util::task::TaskTracker;

/// Begins to stop a node, and gives how long it took.
fn stop(node: Gateway) -> JoinHandle<Duration> {
    tokio::spawn(async move {
        let begin = Instant::now();
        node.stop().await;
        begin.elapsed()
    })
}

async fn until_not_ready(internal: SocketAddr) -> String {
    let begin = Instant::now();
    loop {
        let (status, text) = http::request(internal, "GET", "/readyz", &[], b"").await;
        if status == 503 {
            return text;
        }
        assert!(begin.elapsed() < PATIENCE, "/readyz stays {status}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn until_refused(address: SocketAddr) {
    let begin = Instant::now();
    while TcpStream::connect(address).await.is_ok() {
        assert!(begin.elapsed() < PATIENCE, "it still listens");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn is_shutdown(close: Option<(u16, String)>) -> bool {
    close.is_some_and(|(code, reason)| code == 3001 && reason == "shutdown")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_says_at_once_that_it_stops_and_goes_on_serving_during_the_delay() {
    let tasks = Handle::current().metrics().num_alive_tasks();
    let node = Gateway::open("shutdown.delay = \"1500ms\"\n");
    let (clients, internal) = (node.clients, node.internal);
    let mut early = Client::subscribed(clients, "early", "a").await;
    let silent = Client::open(clients).await;
    assert_eq!(http::request(internal, "GET", "/readyz", &[], b"").await.0, 200);
    let stopping = stop(node);
    assert_eq!(until_not_ready(internal).await, "draining: the node is about to stop\n");
    let (_, page) = http::request(internal, "GET", "/metrics", &[], b"").await;
    assert!(page.contains("\nroomcast_draining 1\n"));
    let mut late = Client::subscribed(clients, "late", "a").await;
    late.publish("a", &json!("still served")).await;
    assert_eq!(early.hear("a").await, json!("still served"));
    for mut client in [early, late, silent] {
        assert!(is_shutdown(client.closed().await));
    }
    until_refused(clients).await;
    let took = stopping.await.expect("it stops");
    assert!(took >= Duration::from_millis(1_500) && took < Duration::from_secs(5), "{took:?}");
    until_refused(internal).await;
    let begin = Instant::now();
    while Handle::current().metrics().num_alive_tasks() > tasks {
        assert!(begin.elapsed() < PATIENCE, "{} tasks are left", Handle::current().metrics().num_alive_tasks() - tasks);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_clients_are_closed_evenly_over_the_time_there_is() {
    const CLIENTS: usize = 300;
    let node = Gateway::open("shutdown.drain = \"2s\"\n");
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(Client::connected(node.clients, "ann").await);
    }
    let closings: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            tokio::spawn(async move {
                let frame = tokio::time::timeout(PATIENCE, client.closed()).await;
                (frame.expect("it is closed in time"), Instant::now())
            })
        })
        .collect();
    let begin = Instant::now();
    let stopping = stop(node);
    let mut times = Vec::new();
    for closing in closings {
        let (frame, at) = closing.await.expect("it is closed");
        assert!(is_shutdown(frame));
        times.push(at - begin);
    }
    times.sort();
    let (first, middle, last) = (times[0], times[CLIENTS / 2], times[CLIENTS - 1]);
    println!("first {first:?}, middle {middle:?}, last {last:?}");
    assert!(first < Duration::from_millis(500), "the first after {first:?}");
    assert!(middle > Duration::from_millis(400), "half of them within {middle:?}");
    assert!(last > Duration::from_millis(1_200) && last < Duration::from_secs(4), "the last after {last:?}");
    // No more than a third of them within any 400 ms, twice what an even pace would have.
    let most = times.iter().map(|from| {
        times.iter().filter(|at| *at >= from && at.saturating_sub(*from) < Duration::from_millis(400)).count()
    });
    assert!(most.max().expect("there are some") < CLIENTS / 2);
    assert!(stopping.await.expect("it stops") < Duration::from_secs(4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn few_clients_do_not_take_the_whole_time() {
    let node = Gateway::open("shutdown.drain = \"60s\"\nshutdown.timeout = \"90s\"\n");
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(Client::connected(node.clients, "ann").await);
    }
    let stopping = stop(node);
    for client in &mut clients {
        assert!(is_shutdown(client.closed().await));
    }
    drop(clients);
    let took = stopping.await.expect("it stops");
    assert!(took < Duration::from_secs(3), "{took:?}");
}

/// A client whose kernel takes little of what it does not read.
async fn narrow(address: SocketAddr, room: &str) -> Client {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(8 * 1024).expect("a small buffer");
    let stream = socket.connect(address).await.expect("the node listens");
    let mut client = Client::open_on(stream, "/connection/websocket", &[]).await;
    client.ask(json!({"connect": {"token": common::token(&json!({"sub": "slow"}))}})).await;
    client.subscribe(room).await;
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_said_before_the_drain_arrives_before_the_close_frame() {
    let node = Gateway::open("websocket.write_timeout = \"5s\"\n");
    let mut client = narrow(node.clients, "a").await;
    let said: Vec<Value> = (0..10).map(|n| json!(format!("{n} {}", "x".repeat(60_000)))).collect();
    for data in &said {
        node.publish("a", data).await;
    }
    node.metric_until("roomcast_deliveries_total", |count| count >= 10.0).await;
    let internal = node.internal;
    let stopping = stop(node);
    until_not_ready(internal).await;
    for data in &said {
        assert!(client.hear("a").await == *data);
    }
    assert!(is_shutdown(client.closed().await));
    drop(client);
    stopping.await.expect("it stops");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn newcomers_are_refused_during_the_drain() {
    let node = Gateway::open("");
    let (clients, internal) = (node.clients, node.internal);
    // Accepted before the stop, and asking for the upgrade only during it: the node accepts in order, so that an answer to
    // the second connection says that it has the first.
    let mut waiting = TcpStream::connect(clients).await.expect("the node listens");
    waiting.write_all(b"GET /connection/websocket HTTP/1.1\r\n").await.expect("the node reads");
    // It does not answer the close frame, and holds up the stop so.
    let mut stubborn = Client::connected(clients, "ann").await;
    let stopping = stop(node);
    assert!(is_shutdown(stubborn.closed().await));
    until_refused(clients).await;
    let request = "host: test\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                   sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    waiting.write_all(request.as_bytes()).await.expect("it is still open");
    let mut answer = Vec::new();
    waiting.read_to_end(&mut answer).await.expect("it is answered");
    let answer = String::from_utf8(answer).expect("text");
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("retry-after: 1\r\n") && answer.ends_with("try another\n"), "{answer}");
    let (_, page) = http::request(internal, "GET", "/metrics", &[], b"").await;
    assert!(page.contains("\nroomcast_upgrades_refused_total{reason=\"draining\"} 1\n"));
    drop(stubborn);
    stopping.await.expect("it stops");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_do_not_answer_the_close_frame_are_waited_for_a_bounded_time() {
    let node = Gateway::open("shutdown.timeout = \"60s\"\n");
    let mut silent = Client::connected(node.clients, "silent").await;
    let stuck = narrow(node.clients, "a").await;
    for n in 0..10 {
        node.publish("a", &json!(format!("{n} {}", "x".repeat(60_000)))).await;
    }
    node.metric_until("roomcast_deliveries_total", |count| count >= 10.0).await;
    let stopping = stop(node);
    assert!(is_shutdown(silent.closed().await));
    // Both sockets stay open until the node gives them up.
    let took = stopping.await.expect("it stops");
    assert!(took > Duration::from_secs(3) && took < Duration::from_secs(9), "{took:?}");
    drop((silent, stuck));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_timeout_ends_whatever_is_left() {
    let node = Gateway::open("shutdown.timeout = \"1s\"\nwebsocket.write_timeout = \"30s\"\n");
    let silent = Client::connected(node.clients, "silent").await;
    let half_open = TcpStream::connect(node.clients).await.expect("the node listens");
    let stuck = narrow(node.clients, "a").await;
    for n in 0..10 {
        node.publish("a", &json!(format!("{n} {}", "x".repeat(60_000)))).await;
    }
    node.metric_until("roomcast_deliveries_total", |count| count >= 10.0).await;
    let took = stop(node).await.expect("it stops");
    assert!(took >= Duration::from_millis(700) && took < Duration::from_millis(1500), "{took:?}");
    drop((silent, half_open, stuck));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_node_leaves_nothing_in_redis_and_the_others_go_on() {
    let redis = RedisServer::start();
    let settings = format!("redis.url = {:?}\n", redis.url());
    let (one, two) = (Gateway::open(&settings), Gateway::open(&settings));
    for node in [&one, &two] {
        node.metric_until("roomcast_broker_connected", |value| value > 0.0).await;
    }
    let mut leaves = Client::subscribed(one.clients, "ann", "a").await;
    let mut stays = Client::subscribed(two.clients, "ben", "a").await;
    // What a client had answered before the drain is heard on the other node.
    leaves.publish("a", &json!("goodbye")).await;
    let stopping = stop(one);
    assert!(is_shutdown(leaves.closed().await));
    drop(leaves);
    stopping.await.expect("it stops");
    assert_eq!(redis.command(&["PUBSUB", "NUMSUB", "roomcast.room.a"]), ["roomcast.room.a", "1"]);
    assert_eq!(stays.hear("a").await, json!("goodbye"));
    two.publish("a", &json!("alone")).await;
    assert_eq!(stays.hear("a").await, json!("alone"));
    drop(stays);
    two.stop().await;
}

/// A socket that takes nothing.
struct Stuck;

impl Sink for Stuck {
    fn try_write(&self, _: &[IoSlice<'_>]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
}

/// Its upgrade was accepted before the drain, and its task begins after everybody else was told.
#[tokio::test]
async fn a_session_that_begins_during_the_drain_is_closed_as_well() {
    let metrics = Arc::new(Metrics::new());
    let hub = Arc::new(Hub::new(1 << 20, metrics.clone(), TaskTracker::new()));
    let broker = Broker::from(MemoryBroker::new(hub.clone(), metrics.clone()));
    let node = Arc::new(Node::new("test", hub, broker, TaskTracker::new()));
    let context = Arc::new(Context::new(node, None, Arc::new(Settings::default()), metrics));
    context.start_draining();
    let outbox = Arc::new(Outbox::new(Stuck, 1 << 20));
    let admission = Admission {
        wire: Wire::JsonWebSocket,
        heartbeat: Heartbeat::Protocol,
        bearer: None,
        address: [127, 0, 0, 1].into(),
        headers: None,
    };
    let session = Session::new(context, outbox.clone(), admission);
    let attention = outbox.attend(&std::task::Context::from_waker(std::task::Waker::noop()));
    assert_eq!(attention.close.map(|disconnect| disconnect.code), Some(3001));
    drop(session);
}

/// Beats are three seconds apart, and members of a room are forgotten after an hour: it is not they that make it known.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_node_says_goodbye_and_takes_its_clients_along() {
    let redis = RedisServer::start();
    let presence = "rooms.presence = true\nchannel.presence_ttl = \"1h\"\n";
    let settings = format!("{presence}redis.url = {:?}\n", redis.url());
    let (stays, goes) = (Gateway::open(&settings), Gateway::open(&settings));
    stays.ready().await;
    goes.ready().await;
    let nodes = async || {
        let (_, answer) = stays.api("info", &json!({})).await;
        answer["result"]["nodes"].as_array().map_or(0, Vec::len)
    };
    let begin = Instant::now();
    while nodes().await < 2 {
        assert!(begin.elapsed() < PATIENCE, "it never hears of the other node");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut here = Client::subscribed(stays.clients, "ann", "lobby").await;
    let mut there = Vec::new();
    for number in 0..20 {
        there.push(Client::subscribed(goes.clients, &format!("user{number}"), "lobby").await);
    }
    let (_, present) = stays.api("presence_stats", &json!({"channel": "lobby"})).await;
    assert_eq!(present["result"]["num_clients"], 21);
    goes.stop().await;
    let (_, present) = stays.api("presence_stats", &json!({"channel": "lobby"})).await;
    assert_eq!(present["result"], json!({"num_clients": 1, "num_users": 1}), "at once");
    // What it said last may be read a moment after it has gone, and long before it would have missed three beats.
    let begin = Instant::now();
    while nodes().await > 1 {
        assert!(begin.elapsed() < Duration::from_secs(5), "it is not forgotten");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    here.publish("lobby", &json!("alone")).await;
    stays.stop().await;
}
