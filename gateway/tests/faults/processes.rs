//! What befalls a node itself: it is killed or stands still.

use std::time::Duration;

use tokio::time::sleep;

use crate::{common::redis::RedisServer, scene::Scene};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_killed() {
    let redis = RedisServer::start();
    let mut scene = Scene::start(&[redis.url(), redis.url()]).await;
    scene.end_node(0, "KILL");
    let recovered = scene.recover().await;
    scene.speak().await;
    scene.start_node(0);
    scene.recover().await;
    let ledger = scene.finish("node killed", recovered).await;
    assert_eq!(ledger.counted("plain rooms, connections ended: without a word"), 1, "{}", ledger.tally());
    assert_eq!(ledger.counted("told that history is gone: another epoch"), 0);
}

/// Clients that waited do not pay for the time in which their node stood still: what they answered before is read first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_stands_still() {
    let redis = RedisServer::start();
    let scene = Scene::start(&[redis.url(), redis.url()]).await;
    scene.process(0).signal("STOP");
    sleep(Duration::from_secs(6)).await;
    scene.process(0).signal("CONT");
    let recovered = scene.recover().await;
    let ledger = scene.finish("node stopped (SIGSTOP)", recovered).await;
    assert_eq!(ledger.counted("told that history is gone: another epoch"), 0);
}
