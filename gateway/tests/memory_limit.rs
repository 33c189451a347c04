//! A process that is about to take more memory than it may: nobody new is let in and the node says that it is not ready, those
//! who read slowly go first, everybody else hears on, and when there is enough again the doors open.

mod common;

use std::time::Duration;

use common::{Client, PATIENCE, Process, http, json};
use tokio::time::{Instant, sleep};

const CLIENTS: usize = 120;
const LIMIT: usize = 150 << 20;

async fn get(node: &Process, path: &str) -> (u16, String) {
    http::request(node.internal, "GET", path, &[], b"").await
}

async fn publish(node: &Process, room: &str, filler: &str) {
    let body = json!({"channel": room, "data": filler}).to_string();
    let headers = [("x-api-key", "test-api-key"), ("content-type", "application/json")];
    let (status, answer) = http::request(node.internal, "POST", "/api/publish", &headers, body.as_bytes()).await;
    assert_eq!(status, 200, "{answer}");
}

/// Waits for what `/readyz` says.
async fn until_ready_is(node: &Process, status: u16, patience: Duration) -> String {
    let deadline = Instant::now() + patience;
    loop {
        let (found, why) = get(node, "/readyz").await;
        if found == status {
            return why;
        }
        assert!(Instant::now() < deadline, "{found} {why}: {} MB are taken", node.resident() >> 20);
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_short_of_memory_lets_nobody_in_and_lets_the_slow_go_first() {
    let limit = LIMIT.to_string();
    let node = Process::start(&[
        ("memory.limit", &limit),
        ("client.queue_max_size", "4MB"),
        ("client.send_buffer", "16KB"),
        ("client.ping_interval", "0s"),
        ("websocket.write_timeout", "1s"),
        ("api.key", "test-api-key"),
    ]);
    let mut witness = Client::subscribed(node.clients, "witness", "quiet").await;
    let mut slow = Vec::new();
    for number in 0..CLIENTS {
        // Rooms of their own, so that no two queues share their bytes.
        slow.push(Client::subscribed(node.clients, "slow", &format!("room{number}")).await);
    }
    let filler = "x".repeat(60_000);
    let mut most = 0;
    let mut refused = None;
    for _ in 0..100 {
        for number in 0..CLIENTS {
            publish(&node, &format!("room{number}"), &filler).await;
        }
        most = most.max(node.resident());
        if refused.is_none() && get(&node, "/readyz").await.0 == 503 {
            let upgrade = [("connection", "close"), ("upgrade", "websocket")];
            refused = Some(http::exchange(node.clients, "GET", "/connection/uni_sse", &upgrade, b"").await);
        }
    }
    let (status, head, body) = refused.expect("four times as much was said to them as there is");
    assert_eq!((status, head.contains("retry-after: 1")), (503, true), "{head}\n{body}");
    assert!(body.contains("memory.limit"), "{body}");
    assert!(most < LIMIT * 5 / 4, "{} MB were taken", most >> 20);
    let (_, page) = get(&node, "/metrics").await;
    let series = "roomcast_slow_consumers_total{policy=\"close\"}";
    let closed = page.lines().find_map(|line| line.strip_prefix(series)).unwrap();
    assert!(closed.trim().parse::<u32>().unwrap() > 10, "only {closed} were slow");
    assert!(page.contains(&format!("roomcast_memory_limit_bytes {LIMIT}\n")), "{page}");
    witness.publish("quiet", &json!("still here")).await;
    drop(slow);
    until_ready_is(&node, 200, 6 * PATIENCE).await;
    Client::subscribed(node.clients, "newcomer", "quiet").await.publish("quiet", &json!("let in")).await;
    let log = node.log();
    assert!(log.contains("no new client is let in") && log.contains("new clients are let in again"), "{log}");
}
