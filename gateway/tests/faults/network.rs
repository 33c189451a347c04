//! What befalls the network: between a node and the store, and between clients and a node. What is done to the one node is not
//! done to the other, as where a network falls into parts.

use std::{net::SocketAddr, time::Duration};

use tokio::time::sleep;

use crate::{
    common::{
        proxy::{Mode, Proxy},
        redis::RedisServer,
    },
    ledger::Ledger,
    scene::Scene,
};

const WHILE: Duration = Duration::from_secs(3);

/// Does this to what passes between one of two nodes and the store.
async fn to_the_store(what: &str, mode: Mode) -> std::sync::Arc<Ledger> {
    let redis = RedisServer::start();
    let address = SocketAddr::from(([127, 0, 0, 1], redis.port().expect("over TCP")));
    let proxy = Proxy::start(address).await;
    let scene = Scene::start(&[format!("redis://{}", proxy.address), redis.url()]).await;
    proxy.set(mode);
    sleep(WHILE).await;
    proxy.set(Mode::Pass);
    let recovered = scene.recover().await;
    let ledger = scene.finish(&format!("node and Redis: {what}"), recovered).await;
    assert_eq!(ledger.counted("told that history is gone: another epoch"), 0);
    assert_eq!(ledger.counted_all("plain rooms, connections ended"), 0, "{}", ledger.tally());
    ledger
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_cut_off_the_store_with_resets() {
    let ledger = to_the_store("reset", Mode::Cut).await;
    assert!(ledger.counted("publications tried again") > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_cut_off_the_store_in_silence() {
    let ledger = to_the_store("silent", Mode::Hole).await;
    assert!(ledger.counted("publications tried again") > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_hears_of_the_store_comes_late() {
    to_the_store("400 ms late", Mode::Delay(Duration::from_millis(400))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_hears_of_the_store_trickles() {
    to_the_store("2 KB a second", Mode::Trickle(100)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_hears_of_the_store_is_spoilt() {
    let ledger = to_the_store("spoilt", Mode::Corrupt).await;
    assert!(ledger.counted("publications tried again") > 0);
}

/// Does this to what passes between clients and one of two nodes.
async fn to_clients(what: &str, mode: Mode) -> std::sync::Arc<Ledger> {
    let redis = RedisServer::start();
    let mut scene = Scene::nodes(&[redis.url(), redis.url()], &[]);
    let proxy = Proxy::start(scene.process(0).clients).await;
    scene.reach(0, proxy.address);
    scene.fill().await;
    proxy.set(mode);
    sleep(2 * WHILE).await;
    proxy.set(Mode::Pass);
    let recovered = scene.recover().await;
    let ledger = scene.finish(&format!("clients and node: {what}"), recovered).await;
    assert_eq!(ledger.counted_all("told that history is gone: another epoch"), 0);
    ledger
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_cut_off_a_node_with_resets() {
    let ledger = to_clients("reset", Mode::Cut).await;
    assert!(ledger.counted_all("plain rooms, connections ended: without a word") > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_cut_off_a_node_in_silence() {
    let ledger = to_clients("silent", Mode::Hole).await;
    assert!(ledger.counted("plain rooms, connections ended: silent") > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_clients_hear_comes_late() {
    to_clients("400 ms late", Mode::Delay(Duration::from_millis(400))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_clients_hear_trickles() {
    to_clients("2 KB a second", Mode::Trickle(100)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_clients_hear_is_spoilt() {
    let ledger = to_clients("spoilt", Mode::Corrupt).await;
    assert!(ledger.counted_all("plain rooms, connections ended") > 0);
}
