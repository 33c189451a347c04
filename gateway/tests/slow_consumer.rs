//! Clients that read slowly or never: they cost their bound and no more, are told why they are closed in whole frames, and
//! nobody else in the room notices.

#![expect(clippy::unwrap_used, reason = "a test whose setting up fails has failed")]

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use common::{Client, Gateway, PATIENCE, Process, frame, json, token};
use tokio::{
    net::TcpSocket,
    task::JoinSet,
    time::{Instant, timeout},
};

const OVERFLOWS: &str = "roomcast_queue_overflows_total";
const SLOW: &str = r#"roomcast_closes_total{code="3008"}"#;

/// A small queue, and time enough to read the last words.
const SETTINGS: &str =
    "client.queue_max_size = \"64KB\"\nclient.send_buffer = \"16KB\"\nwebsocket.write_timeout = \"20s\"\n";

/// A client whose kernel takes in little before it is read.
async fn narrow(node: &Gateway) -> Client {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let stream = socket.connect(node.clients).await.unwrap();
    let mut client = Client::open_on(stream, "/connection/websocket", &[]).await;
    let reply = client.ask(json!({"connect": {"token": token(&json!({"sub": "slow"}))}})).await;
    assert!(reply["connect"].is_object(), "{reply}");
    client
}

/// Publishes numbers from 0 until the node has closed somebody as slow, and `least` of them; says how many. Those who read
/// have heard so many before more than a few follow: they share the processor with the node.
async fn publish_until_closed(
    node: &Gateway,
    room: &str,
    least: usize,
    filler: &str,
    heard: impl Fn(usize) -> bool,
) -> usize {
    let deadline = Instant::now() + PATIENCE;
    let mut count = 0;
    while count < least || node.count(SLOW).await == 0 {
        for _ in 0..10 {
            node.publish(room, &json!({"number": count, "filler": filler})).await;
            count += 1;
        }
        while !heard(count) {
            assert!(Instant::now() < deadline, "not all is heard of {count}");
            tokio::task::yield_now().await;
        }
        assert!(Instant::now() < deadline, "nobody is closed after {count}");
    }
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_a_thousand_that_never_reads_is_closed_and_nobody_else_notices() {
    const OTHERS: usize = 999;
    // A thousand sockets and more: the usual soft limit is 1024.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let node = Gateway::open(SETTINGS);
    let mut slow = narrow(&node).await;
    slow.subscribe("room").await;
    let mut joining = JoinSet::new();
    for number in 0..OTHERS {
        let address = node.clients;
        joining.spawn(async move { Client::subscribed(address, &format!("user{number}"), "room").await });
    }
    let others = joining.join_all().await;
    let (stop, stopped) = tokio::sync::watch::channel(usize::MAX);
    let (mut listening, sum) = (JoinSet::new(), Arc::new(AtomicUsize::new(0)));
    for mut client in others {
        let (mut stopped, sum) = (stopped.clone(), Arc::clone(&sum));
        listening.spawn(async move {
            let mut heard = 0;
            while heard < *stopped.borrow() {
                tokio::select! {
                    data = client.hear("room") => {
                        assert_eq!(data["number"], heard, "in order, and every one");
                        heard += 1;
                        sum.fetch_add(1, Ordering::Relaxed);
                    }
                    _ = stopped.changed() => {}
                }
            }
            (client, heard)
        });
    }
    let heard = |count| sum.load(Ordering::Relaxed) >= count * OTHERS;
    let count = publish_until_closed(&node, "room", 60, &"x".repeat(2000), heard).await;
    stop.send(count).unwrap();
    let all = timeout(Duration::from_secs(30), listening.join_all()).await.expect("everybody hears everything");
    assert!(all.iter().all(|(_, heard)| *heard == count));
    assert_eq!((node.count(OVERFLOWS).await, node.count("roomcast_connections").await), (1, 1000));

    let (mut heard, code) = (0, 3008);
    let end = loop {
        let frame = slow.frame().await.expect("a close frame");
        if frame.opcode == 8 {
            break frame.payload;
        }
        let message: common::Value = serde_json::from_slice(&frame.payload).expect("whole frames only");
        assert_eq!(message["push"]["pub"]["data"]["number"], heard);
        heard += 1;
    };
    assert_eq!(end, [&u16::to_be_bytes(code)[..], b"slow"].concat());
    assert!(heard < count, "it did miss something");
    drop((slow, all));
    node.stop().await;
}

/// Frames larger than what the socket takes at once: the queue is given up in the middle of one, which is told to its end.
#[tokio::test]
async fn a_frame_that_began_is_finished_before_the_close_frame() {
    for size in [10_000, 20_000, 40_000, 60_000] {
        let node = Gateway::open(SETTINGS);
        let mut slow = narrow(&node).await;
        slow.subscribe("room").await;
        publish_until_closed(&node, "room", 1, &"x".repeat(size), |_| true).await;
        let mut heard = 0;
        let code = loop {
            let frame = slow.frame().await.expect("a close frame");
            if frame.opcode == 8 {
                break frame.payload;
            }
            let message: common::Value = serde_json::from_slice(&frame.payload).expect("whole frames only");
            assert_eq!(message["push"]["pub"]["data"]["number"], heard, "frames of {size}");
            heard += 1;
        };
        assert_eq!(code, b"\x0B\xC0slow");
        assert_eq!(node.count(OVERFLOWS).await, 1);
        drop(slow);
        node.stop().await;
    }
}

/// Publishes numbers from 0 until the policy was applied to somebody; says how many.
async fn publish_until_slow(node: &Gateway, policy: &str, filler: &str) -> usize {
    let series = format!("roomcast_slow_consumers_total{{policy={policy:?}}}");
    let deadline = Instant::now() + PATIENCE;
    let mut count = 0;
    while node.count(&series).await == 0 {
        for _ in 0..20 {
            let body = json!({"channel": format!("{policy}:r"), "data": {"number": count, "filler": filler}});
            assert_eq!(node.api("publish", &body).await.0, 200);
            count += 1;
        }
        assert!(Instant::now() < deadline, "nobody is slow after {count}");
    }
    count
}

/// One does not read, and is in rooms of every policy one after the other: where it is closed it hears so, where it has to
/// come back it hears what waited and then that it is out, and where the newest is enough it ends with the newest.
#[tokio::test]
async fn what_becomes_of_a_slow_client_is_a_rule_of_the_room() {
    let rules = |policy: &str, more: &str| {
        format!(
            "[[namespaces]]\nname = {policy:?}\nallow_subscribe_for_client = true\nslow_consumer = {policy:?}\n{more}"
        )
    };
    let recovery = "force_recovery = true\nhistory_size = 1000\nhistory_ttl = \"60s\"\n";
    let rules = [rules("close", ""), rules("resync", recovery), rules("latest", "")].concat();
    let node = Gateway::start(&format!("{SETTINGS}{rules}"));
    for policy in ["latest", "resync", "close"] {
        let mut slow = narrow(&node).await;
        let reply = slow.ask(json!({"subscribe": {"channel": format!("{policy}:r")}})).await;
        assert!(reply["subscribe"].is_object(), "{reply}");
        let count = publish_until_slow(&node, policy, &"x".repeat(4000)).await;
        let mut heard = Vec::new();
        loop {
            let frame = slow.frame().await.expect("a close frame ends a connection");
            if frame.opcode == 8 {
                assert_eq!((policy, &frame.payload[..]), ("close", &b"\x0B\xC0slow"[..]));
                break;
            }
            let message: common::Value = serde_json::from_slice(&frame.payload).expect("whole frames only");
            if message["push"]["unsubscribe"].is_object() {
                assert_eq!((policy, &message["push"]["unsubscribe"]["code"]), ("resync", &json!(2500)));
                break;
            }
            let Some(number) = message["push"]["pub"]["data"]["number"].as_u64() else { continue };
            heard.push(usize::try_from(number).unwrap());
            if policy == "latest" && heard.last() == Some(&(count - 1)) {
                break;
            }
        }
        let whole = heard.iter().copied().eq(0..heard.len());
        assert_eq!(whole, policy != "latest", "{policy}: {heard:?}");
        assert!(heard.is_sorted() && heard.len() < count, "{policy}: {} of {count}", heard.len());
        if policy != "close" {
            let reply = slow.ask(json!({"unsubscribe": {"channel": "elsewhere"}})).await;
            assert_eq!(reply["unsubscribe"], json!({}), "{policy}: the connection goes on");
        }
    }
}

/// Replies wait in the same queue as publications.
#[tokio::test]
async fn whoever_asks_and_never_reads_the_answers_is_slow() {
    let node = Gateway::open(SETTINGS);
    let mut slow = narrow(&node).await;
    let mut sent = 0;
    let commands = frame(0x81, br#"{"id":7,"rpc":{"method":"nothing of the kind"}}"#).repeat(200);
    let deadline = Instant::now() + PATIENCE;
    while node.count(OVERFLOWS).await == 0 {
        assert!(Instant::now() < deadline, "it is never closed");
        slow.flood(&commands, &mut sent, Duration::from_millis(20)).await;
    }
    let mut bytes = 0;
    loop {
        let frame = slow.frame().await.expect("a close frame");
        if frame.opcode == 8 {
            assert_eq!(frame.payload, b"\x0B\xC0slow");
            break;
        }
        let reply: common::Value =
            serde_json::from_slice(frame.payload.split(|byte| *byte == b'\n').next().unwrap()).unwrap();
        assert_eq!(reply["error"]["code"], 108);
        bytes += frame.payload.len();
    }
    assert!(bytes < 400_000, "{bytes} bytes of replies were kept for it");
    drop(slow);
    node.stop().await;
}

/// A hundred that never read, in a process of its own: what they cost before they are closed is queue and send buffer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_never_read_cost_their_bound_at_most() {
    const COUNT: usize = 100;
    const BOUND: usize = 512 << 10;
    let node = Process::start(&[
        ("client.queue_max_size", "512KB"),
        ("client.send_buffer", "16KB"),
        ("websocket.write_timeout", "1s"),
        // Who never reads never answers a ping either: where this takes long, that would end it.
        ("client.ping_interval", "0s"),
        ("api.key", "test-api-key"),
    ]);
    let mut slow = Vec::new();
    for number in 0..COUNT {
        // Rooms of their own, so that no two queues share their bytes.
        slow.push(Client::subscribed(node.clients, "slow", &format!("room{number}")).await);
    }
    let mut witness = Client::subscribed(node.clients, "witness", "quiet").await;
    let before = node.resident();
    let mut most = before;
    let filler = "x".repeat(4000);
    for round in 0..2000 {
        for number in 0..COUNT {
            let body = json!({"channel": format!("room{number}"), "data": filler}).to_string();
            let headers = [("x-api-key", "test-api-key"), ("content-type", "application/json")];
            let (status, _) =
                common::http::request(node.internal, "POST", "/api/publish", &headers, body.as_bytes()).await;
            assert_eq!(status, 200);
        }
        most = most.max(node.resident());
        let (_, page) = common::http::request(node.internal, "GET", "/metrics", &[], b"").await;
        if page.lines().any(|line| line == format!("{OVERFLOWS} {COUNT}")) {
            println!("{} KiB each at the most, closed in round {round}", (most - before) / COUNT / 1024);
            break;
        }
        assert!(round < 1999, "they are never closed");
    }
    // The allocator rounds buffers of four kilobytes up to five.
    assert!(most - before < COUNT * BOUND * 5 / 4 + (8 << 20), "{} KiB each", (most - before) / COUNT / 1024);
    witness.publish("quiet", &json!(1)).await;
    drop(slow);
}
