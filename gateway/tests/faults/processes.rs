//! What befalls a node itself: it is killed or stands still, has no files left, or cannot log.

use std::{net::SocketAddr, process::Command, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use crate::{
    common::{Process, child::BINARY, http, redis::RedisServer},
    crowd::SETTLES,
    scene::Scene,
    stayers::Stayers,
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

/// Clients that answer pings, but not at once: pongs of many lie unread while their node stands still.
const SLOW: usize = 100;

/// Those that left meanwhile are served elsewhere, and nobody is blamed for what the node has not read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_stands_still() {
    let redis = RedisServer::start();
    let scene = Scene::start(&[redis.url(), redis.url()]).await;
    let slow = Stayers::start(scene.address(0).clients, SLOW, Duration::from_millis(400));
    slow.until_connected(SLOW).await;
    slow.until_pinged(2 * SLOW).await;
    scene.process(0).signal("STOP");
    sleep(Duration::from_secs(30)).await;
    scene.process(0).signal("CONT");
    let recovered = scene.recover().await;
    slow.until_pinged(2 * SLOW).await;
    let (_, ends) = slow.stop().await;
    assert!(ends.is_empty(), "{ends:?}");
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

/// Files that the node may have. Half of them are for clients, as few as there are.
const FILES: usize = 128;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_has_no_files_left() {
    let redis = RedisServer::start();
    let mut scene = Scene::nodes(&[redis.url(), redis.url()], &[("http.header_timeout", "30s")]);
    scene.start_node_with(0, |settings| {
        let mut command = Command::new("bash");
        command.env_clear().args(["-c", &format!("ulimit -n {FILES}; exec \"$0\""), BINARY]);
        Process::start_by(command, settings)
    });
    scene.fill().await;
    let (clients, internal) = (scene.address(0).clients, scene.address(0).internal);

    // As many clients as there may be: the next one is sent elsewhere, and so are others by the balancer.
    let mut idle = Vec::new();
    let begin = Instant::now();
    loop {
        match knock(clients).await {
            Ok(stream) => idle.push(stream),
            Err(refusal) => {
                assert!(refusal.starts_with("HTTP/1.1 503 ") && refusal.contains("files open"), "{refusal}");
                let (status, why) = http::request(internal, "GET", "/readyz", &[], b"").await;
                if status == 503 && why.contains("files open") {
                    break;
                }
            }
        }
        assert!(idle.len() < FILES && begin.elapsed() < SETTLES, "it never has enough of clients");
    }
    // It reaches Redis again all the same.
    redis.commands(&[&["CLIENT", "KILL", "TYPE", "normal"], &["CLIENT", "KILL", "TYPE", "pubsub"]]);
    let recovered = scene.recover().await;

    // Sockets that say nothing take the rest. Who is there is served, and the log says what is wrong, once.
    let mut silent = Vec::new();
    for _ in 0..FILES {
        silent.push(TcpStream::connect(clients).await.expect("the kernel lets it in"));
    }
    let complaints = |scene: &Scene| scene.process(0).log().matches("accepting rests").count();
    until("the node says what is wrong", || complaints(&scene) > 0).await;
    let answered = || scene.ledger.counted("publications answered to clients");
    let before = answered();
    until("clients are served meanwhile", || answered() > before + 5).await;
    assert!(complaints(&scene) <= 4, "{}", scene.log());
    assert!(scene.log().contains("ulimit -n"), "{}", scene.log());
    drop((silent, idle));
    let recovered = recovered.max(scene.recover().await);
    let ready = async {
        while http::request(internal, "GET", "/readyz", &[], b"").await.0 != 200 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SETTLES, ready).await.expect("the node is ready again");
    let ledger = scene.finish("no files left", recovered).await;
    assert_eq!(ledger.counted("told that history is gone: another epoch"), 0);
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let holding = async {
        while !holds() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(timeout(SETTLES, holding).await.is_ok(), "never came: {what}");
}

/// Asks for a WebSocket: the connection, or the answer that refuses it.
async fn knock(address: SocketAddr) -> Result<TcpStream, String> {
    let mut stream = TcpStream::connect(address).await.expect("the node listens");
    let request = "GET /connection/websocket HTTP/1.1\r\nhost: test\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                   sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(request.as_bytes()).await.expect("the node reads");
    let mut answer = vec![0; 4096];
    let length = stream.read(&mut answer).await.expect("the node answers");
    let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
    if answer.starts_with("HTTP/1.1 101 ") { Ok(stream) } else { Err(answer) }
}
