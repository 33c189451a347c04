//! What befalls a node itself: it is killed or stands still, or cannot log.

use std::time::Duration;

use tokio::time::sleep;

use crate::{
    common::{Process, http, redis::RedisServer},
    scene::Scene,
};

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

/// Whatever a node has to say is lost, and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_cannot_log() {
    let mut redis = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let mut scene = Scene::nodes(&[redis.url(), redis.url()], &[]);
    scene.start_node_with(0, Process::start_with_full_log);
    scene.fill().await;
    // Now it has something to say.
    redis.kill();
    tokio::task::block_in_place(|| redis.restart());
    let recovered = scene.recover().await;
    let (status, page) = http::request(scene.address(0).internal, "GET", "/readyz", &[], b"").await;
    assert_eq!((status, page.as_str()), (200, "ready\n"));
    let ledger = scene.finish("log on a full disc", recovered).await;
    assert_eq!(ledger.counted_all("plain rooms, connections ended"), 0, "{}", ledger.tally());
}
