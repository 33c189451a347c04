//! What an idle connection costs, watched in a process of its own: a change that doubles it is seen here before it is in
//! production. The debug build is held to a generous bound; the figure itself comes from the load test.

mod common;

use common::{Client, Process, json, token};
use tokio::time::{Duration, Instant, sleep};

const COUNT: usize = 2000;

/// Bytes of resident memory for one connection in one room, 20 connections in a room: under three times what it needs.
const BOUND: usize = 4 * 1024;

/// Opens connections, each in one room, and waits until the node has all of them.
async fn idle(node: &Process, count: usize) -> Vec<Client> {
    let mut clients = Vec::with_capacity(count);
    let token = token(&json!({"sub": "ann"}));
    for number in 0..count {
        let mut client = Client::open(node.clients).await;
        let reply = client.ask(json!({"connect": {"token": token}})).await;
        assert!(reply["connect"].is_object(), "{reply}");
        client.subscribe(&format!("room{}", number / 20)).await;
        clients.push(client);
    }
    clients
}

#[tokio::test]
async fn an_idle_connection_costs_little_and_gives_it_back() {
    // A thousand sockets and more: the usual soft limit is 1024.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let node = Process::start(&[]);
    // What the first connections make for good: threads, buffers of threads, metrics.
    drop(idle(&node, 200).await);
    let settled = settle(&node, usize::MAX).await;
    let clients = idle(&node, COUNT).await;
    let bound = settled + COUNT * BOUND;
    let each = settle(&node, bound).await.saturating_sub(settled) / COUNT;
    println!("{each} bytes of resident memory for each of {COUNT} idle connections");
    assert!(each < BOUND, "{each} bytes each");
    drop(clients);
    let after = settle(&node, settled + COUNT * BOUND / 2).await;
    println!("{} KiB more than before, once they have gone", after.saturating_sub(settled) / 1024);
    assert!(after < settled + COUNT * BOUND / 2, "memory is not given back");
}

/// Waits until memory no longer falls and is below a bound, at most as long as the allocator takes to give pages back.
async fn settle(node: &Process, bound: usize) -> usize {
    let deadline = Instant::now() + Duration::from_secs(15);
    let (mut least, mut quiet) = (node.resident(), Instant::now());
    while Instant::now() < deadline && (least > bound || quiet.elapsed() < Duration::from_millis(1500)) {
        sleep(Duration::from_millis(50)).await;
        let now = node.resident();
        if now < least {
            (least, quiet) = (now, Instant::now());
        }
    }
    least
}
