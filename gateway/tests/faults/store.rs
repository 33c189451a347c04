//! What befalls the store: it is killed, stands still, is slow, answers errors, has no memory left, or may not be written to.

use std::time::Duration;

use serde_json::json;
use tokio::{
    task::block_in_place,
    time::{sleep, timeout},
};

use crate::{
    common::{Client, redis::RedisServer},
    crowd::SETTLES,
    plain,
    scene::Scene,
};

/// How long a fault lasts: longer than nodes wait for an answer.
const WHILE: Duration = Duration::from_secs(3);

/// A store that has on disc whatever it answers, before it answers.
fn careful() -> RedisServer {
    RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"])
}

async fn scene(redis: &RedisServer) -> Scene {
    Scene::start(&[redis.url(), redis.url()]).await
}

/// Waits until nodes say of so many attempts to publish that they failed for this reason, or that their outcome is unknown.
async fn until_refused(scene: &Scene, times: u64) {
    let refused = async {
        while scene.ledger.counted("publications tried again") < times {
            sleep(Duration::from_millis(10)).await;
        }
    };
    let refused = timeout(SETTLES, refused).await;
    assert!(refused.is_ok(), "nobody notices the fault: {}", scene.ledger.tally());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_killed_and_keeps_its_data() {
    let mut redis = careful();
    let scene = scene(&redis).await;
    redis.kill();
    until_refused(&scene, 1).await;
    block_in_place(|| redis.restart());
    let recovered = scene.recover().await;
    let ledger = scene.finish("Redis killed, data kept", recovered).await;
    assert_eq!(ledger.counted("told that history is gone: another epoch"), 0);
    assert_eq!(ends_of_plain(&ledger), 0, "{}", ledger.tally());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_killed_and_loses_its_data() {
    let mut redis = RedisServer::start();
    let scene = scene(&redis).await;
    scene.nodes.begin_loss();
    redis.kill();
    until_refused(&scene, 1).await;
    block_in_place(|| redis.restart_empty());
    scene.nodes.end_loss();
    let recovered = scene.recover().await;
    let ledger = scene.finish("Redis killed, data lost", recovered).await;
    assert!(ledger.counted("told that history is gone: another epoch") > 0);
    assert_eq!(ends_of_plain(&ledger), 0, "{}", ledger.tally());
}

/// A store that is back and reads its data yet answers that it is not ready.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_takes_its_time_to_load_what_it_kept() {
    let mut redis = careful();
    let scene = scene(&redis).await;
    assert_eq!(redis.command(&["BGREWRITEAOF"]).len(), 1);
    let written = async {
        while !redis.command(&["INFO", "persistence"]).concat().contains("aof_rewrite_in_progress:0") {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SETTLES, written).await.expect("the file is written anew");
    redis.kill();
    block_in_place(|| redis.restart_slowly(Duration::from_millis(20)));
    assert!(redis.command(&["GET", "x"]).concat().starts_with("-LOADING"), "it loads too quickly");
    let recovered = scene.recover().await;
    let ledger = scene.finish("Redis loads slowly", recovered).await;
    assert_eq!(ledger.counted("told that history is gone: another epoch"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_stands_still() {
    let redis = careful();
    let scene = scene(&redis).await;
    redis.pause();
    sleep(WHILE).await;
    redis.resume();
    let recovered = scene.recover().await;
    let ledger = scene.finish("Redis stopped (SIGSTOP)", recovered).await;
    assert_eq!(ledger.counted("told that history is gone: another epoch"), 0);
    assert_eq!(ends_of_plain(&ledger), 0, "{}", ledger.tally());
}

/// What is written waits longer than nodes do, and takes effect after its callers were told that nobody knows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_lets_writers_wait() {
    let redis = careful();
    let scene = scene(&redis).await;
    for kind in ["WRITE", "ALL"] {
        redis.command(&["CLIENT", "PAUSE", &WHILE.as_millis().to_string(), kind]);
        scene.recover().await;
    }
    let recovered = scene.recover().await;
    let ledger = scene.finish("Redis lets writers wait (CLIENT PAUSE)", recovered).await;
    assert_eq!(ledger.counted("told that history is gone: another epoch"), 0);
    assert_eq!(ends_of_plain(&ledger), 0, "{}", ledger.tally());
}

/// A script of somebody else that does not end: whatever is asked is answered with `BUSY`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_busy() {
    let redis = RedisServer::start_with(&["--busy-reply-threshold", "100"]);
    let scene = scene(&redis).await;
    let url = redis.port().expect("over TCP");
    let endless = std::thread::spawn(move || RedisServer::ask(url, &["EVAL", "while true do end", "0"]));
    until_refused(&scene, 6).await;
    sleep(WHILE).await;
    redis.command(&["SCRIPT", "KILL"]);
    let recovered = scene.recover().await;
    assert!(endless.join().expect("it ends").concat().starts_with('-'));
    let ledger = scene.finish("Redis answers BUSY", recovered).await;
    assert_eq!(ledger.counted("told that history is gone: another epoch"), 0);
    assert_eq!(ends_of_plain(&ledger), 0, "{}", ledger.tally());
}

/// What may be configured at a Redis that runs so that it refuses what is written, and how that is taken back.
async fn refuses(what: &str, fault: &[&str], cure: &[&str]) {
    let redis = RedisServer::start();
    let scene = scene(&redis).await;
    redis.command(fault);
    until_refused(&scene, 6).await;
    scene.plain_hears().await;
    let mut comes = Client::connected(scene.address(0).clients, "late").await;
    let refusal = comes.ask(json!({"subscribe": {"channel": plain::ROOM}})).await;
    assert_eq!(refusal["error"]["code"], 100, "who enters could not be said to be there: {refusal}");
    redis.command(cure);
    let recovered = scene.recover().await;
    let ledger = scene.finish(what, recovered).await;
    assert_eq!(ledger.counted("told that history is gone: another epoch"), 0);
    assert_eq!(ends_of_plain(&ledger), 0, "{}", ledger.tally());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_has_no_memory_left() {
    let fault = ["CONFIG", "SET", "maxmemory", "1", "maxmemory-policy", "noeviction"];
    refuses("Redis out of memory (noeviction)", &fault, &["CONFIG", "SET", "maxmemory", "0"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_may_not_be_written_to() {
    refuses("Redis is a replica (READONLY)", &["REPLICAOF", "127.0.0.1", "1"], &["REPLICAOF", "NO", "ONE"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_has_too_few_replicas_to_write() {
    let fault = ["CONFIG", "SET", "min-replicas-to-write", "1"];
    refuses("Redis without replicas (NOREPLICAS)", &fault, &["CONFIG", "SET", "min-replicas-to-write", "0"]).await;
}

/// How often clients of plain rooms were disconnected or put out of their room.
fn ends_of_plain(ledger: &crate::ledger::Ledger) -> u64 {
    ledger.counted_all("plain rooms, connections ended")
}
