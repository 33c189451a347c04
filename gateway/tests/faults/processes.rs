//! What befalls a node itself: it is killed or stands still, has no files left, cannot log, or its clock jumps.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    process::Command,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use crate::{
    common::{Client, Process, child::BINARY, http, redis::RedisServer, token},
    crowd::SETTLES,
    ledger::Ledger,
    nodes::{Address, KEY},
    scene::{Own, Scene},
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
    let mut redis = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let mut scene = Scene::nodes(&[redis.url(), redis.url()], &[("http.header_timeout", "2m")]);
    scene.start_node_with(0, |settings| {
        let mut command = Command::new("bash");
        command.env_clear().args(["-c", &format!("ulimit -n {FILES}; exec \"$0\""), BINARY]);
        Process::start_by(command, settings)
    });
    scene.fill().await;
    let (clients, internal) = (scene.address(0).clients, scene.address(0).internal);

    let idle = fill_with_clients(clients, internal).await;
    // It reaches Redis again all the same.
    redis.commands(&[&["CLIENT", "KILL", "TYPE", "normal"], &["CLIENT", "KILL", "TYPE", "pubsub"]]);
    let recovered = scene.recover().await;

    // Clients that say nothing never get the last ones: probes are answered, and the log says what is wrong, once.
    let complaints = |what: &str| scene.process(0).log().matches(what).count();
    let mut silent = sockets(clients).await;
    until("the node says what is wrong", || complaints("closed at once") > 0).await;
    for _ in 0..20 {
        assert_eq!(http::request(internal, "GET", "/livez", &[], b"").await.0, 200);
    }
    assert_eq!(complaints("accepting rests"), 0, "{}", scene.log());
    // Whatever Redis gives back they take, and still it is reached again.
    let crowding = tokio::spawn(crowd(clients));
    redis.kill();
    sleep(Duration::from_millis(500)).await;
    tokio::task::block_in_place(|| redis.restart());
    until_published(scene.address(0)).await;
    crowding.abort();
    // Where others take them, who is there is served.
    silent.extend(sockets(internal).await);
    until("the node says what is wrong", || complaints("accepting rests") > 0).await;
    let answered = || scene.ledger.counted("publications answered to clients");
    let before = answered();
    until("clients are served meanwhile", || answered() > before + 5).await;
    assert!(complaints("accepting rests") <= 4 && complaints("closed at once") <= 4, "{}", scene.log());
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

/// As many clients as there may be: the next one is sent elsewhere, and so are others by the balancer.
async fn fill_with_clients(clients: SocketAddr, internal: SocketAddr) -> Vec<TcpStream> {
    let mut idle = Vec::new();
    let begin = Instant::now();
    loop {
        match knock(clients).await {
            Ok(stream) => idle.push(stream),
            Err(refusal) => {
                assert!(refusal.starts_with("HTTP/1.1 503 ") && refusal.contains("files open"), "{refusal}");
                let (status, why) = http::request(internal, "GET", "/readyz", &[], b"").await;
                if status == 503 && why.contains("files open") {
                    return idle;
                }
            }
        }
        assert!(idle.len() < FILES && begin.elapsed() < SETTLES, "it never has enough of clients");
    }
}

/// As many sockets to that address as the node may have files.
async fn sockets(address: SocketAddr) -> Vec<TcpStream> {
    let mut sockets = Vec::new();
    for _ in 0..FILES {
        sockets.push(TcpStream::connect(address).await.expect("the kernel lets it in"));
    }
    sockets
}

/// Takes every file that is given back, and holds it.
async fn crowd(address: SocketAddr) {
    let mut silent = Vec::new();
    loop {
        let mut stream = TcpStream::connect(address).await.expect("the node listens");
        // It is closed at once where it is too many.
        if timeout(Duration::from_millis(10), stream.read_u8()).await.is_err() {
            silent.push(stream);
        }
    }
}

/// Waits until a node takes what a backend says, as it does when it reaches Redis.
async fn until_published(node: Address) {
    let word = json!({"channel": "plain:files", "data": "still here"});
    let published = async {
        while api(node, "publish", &word).await.1["result"].is_null() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SETTLES, published).await.expect("the node reaches Redis again");
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

/// The clock of one node, which the test sets.
struct Clock(TempDir);

impl Clock {
    fn right() -> Self {
        let clock = Self(tempfile::tempdir().expect("a directory for temporary files"));
        clock.set(0);
        clock
    }

    /// It goes on from so many seconds later, or earlier.
    fn set(&self, seconds: i64) {
        let (new, file) = (self.0.path().join("new"), self.file());
        fs::write(&new, format!("{seconds:+}\n")).expect("it can be written");
        fs::rename(new, file).expect("it can be renamed");
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("clock")
    }

    /// A node that goes by this clock: what tells the time is put in front of the system's library. How time passes is not
    /// touched.
    fn command(&self) -> Command {
        let mut folders = fs::read_dir("/usr/lib").expect("a folder").flatten();
        let library = folders.find_map(|folder| {
            let library = folder.path().join("faketime/libfaketimeMT.so.1");
            library.exists().then_some(library)
        });
        let mut command = Command::new(BINARY);
        command
            .env_clear()
            .env("LD_PRELOAD", library.expect("faketime is installed: `make tools`"))
            .env("FAKETIME_TIMESTAMP_FILE", self.file())
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        command
    }
}

/// Time that is short, and none for pings, which the clients of the test do not answer.
const CLOCK_SETTINGS: Own = &[
    ("client.ping_interval", "25s"),
    ("client.pong_timeout", "8s"),
    ("client.expired_close_delay", "1s"),
    ("channel.presence_ttl", "3s"),
    ("channel.presence_update_interval", "500ms"),
];

/// Tokens are for the wall clock to judge, when they come. All that is counted from then on goes by time that only passes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clock_of_a_node_jumps() {
    let redis = RedisServer::start();
    let mut scene = Scene::nodes(&[redis.url(), redis.url()], CLOCK_SETTINGS);
    let clock = Clock::right();
    scene.start_node_with(0, |settings| Process::start_by(clock.command(), settings));
    scene.fill().await;
    let address = scene.address(0).clients;
    let mut stays = Client::open(address).await;
    assert_eq!(connect(&mut stays, 3600).await["connect"]["expires"], json!(true));
    let reply = stays.ask(json!({"subscribe": {"channel": "plain:clock"}})).await;
    assert_eq!(reply["subscribe"], json!({}), "{reply}");
    let mut expires = Client::open(address).await;
    connect(&mut expires, 4).await;

    clock.set(3 * 3600);
    let late = connect(&mut Client::open(address).await, 3600).await;
    assert_eq!(late["error"]["code"], 109, "a token of an hour is three hours old: {late}");
    sleep(Duration::from_secs(1)).await;
    clock.set(-3 * 3600);
    assert_eq!(connect(&mut Client::open(address).await, 3600).await["connect"]["expires"], json!(true));
    let recovered = scene.recover().await;
    // The token was good for four seconds when it came, and that is how long it is.
    let closed = timeout(SETTLES, expires.closed()).await.expect("its time is over");
    assert_eq!(closed.map(|(code, _)| code), Some(3005));
    // By then nobody would be present any more whose node had stopped renewing.
    let (_, answer) = api(scene.address(1), "presence_stats", &json!({"channel": "plain:clock"})).await;
    assert_eq!(answer["result"]["num_clients"], 1, "{answer}");
    let reply = stays.ask(json!({"unsubscribe": {"channel": "plain:clock"}})).await;
    assert_eq!(reply["unsubscribe"], json!({}), "whoever was let in stays: {reply}");
    clock.set(0);
    let ledger = scene.finish("clock jumps by three hours, forth and back", recovered).await;
    assert_undisturbed(&ledger);
}

/// Connects with a token that is good for so many seconds from now.
async fn connect(client: &mut Client, seconds: u64) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is past 1970");
    let claims = json!({"sub": "ann", "exp": now.as_secs() + seconds});
    client.ask(json!({"connect": {"token": token(&claims)}})).await
}

async fn api(node: Address, method: &str, body: &Value) -> (u16, Value) {
    let headers = [("x-api-key", KEY), ("content-type", "application/json")];
    let (path, body) = (format!("/api/{method}"), body.to_string());
    let (status, text) = http::request(node.internal, "POST", &path, &headers, body.as_bytes()).await;
    (status, serde_json::from_str(&text).unwrap_or_default())
}

/// Nobody was told anything. Clients that cut their own connections may be away for longer than a short history reaches, on a
/// machine that is busy, and that they were is asked of each of them when it is told.
fn assert_undisturbed(ledger: &Ledger) {
    for what in [
        "plain rooms, connections ended",
        "connections ended",
        "unsubscribed",
        "told that history is gone: another epoch",
        "subscribe refused",
    ] {
        assert_eq!(ledger.counted_all(what), 0, "{}", ledger.tally());
    }
    assert_eq!(ledger.counted("publications tried again"), 0, "{}", ledger.tally());
    let (gone, cut) = (ledger.counted_all("told that"), ledger.counted("connections cut"));
    assert!(gone <= cut, "only those who were away: {}", ledger.tally());
}
