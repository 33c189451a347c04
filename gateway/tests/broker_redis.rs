//! The Redis broker when things go wrong, over a real redis-server: crashes, silence, cut connections, refusals, and the
//! ways to reach a server. What every broker promises is asked in `broker_conformance`.

#![allow(clippy::unwrap_used, reason = "a test fails where what it needs fails")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::future::join_all;
use roomcast::{
    broker::{
        BrokerError, Health, PubSub,
        redis::{ConfigError, RedisBroker, RedisOptions},
    },
    metrics::Metrics,
};
use roomcast_shared::{event::Event, publication::Publication};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

#[path = "common/recorder.rs"]
mod recorder;
#[path = "common/redis.rs"]
mod redis;

use recorder::{DEADLINE, Recorder};
use redis::RedisServer;

const IO_TIMEOUT: Duration = Duration::from_millis(600);

struct Node {
    broker: Arc<RedisBroker>,
    recorder: Arc<Recorder>,
    metrics: Arc<Metrics>,
    tracker: TaskTracker,
    shutdown: CancellationToken,
}

/// Options with a timeout short enough to be waited for.
fn options(url: impl Into<String>) -> RedisOptions {
    RedisOptions { io_timeout: IO_TIMEOUT, ..RedisOptions::new(url) }
}

impl Node {
    fn start(server: &RedisServer) -> Self {
        Self::with(&options(server.url()))
    }

    fn with(options: &RedisOptions) -> Self {
        let (recorder, metrics) = (Arc::new(Recorder::default()), Arc::new(Metrics::new()));
        let (tracker, shutdown) = (TaskTracker::new(), CancellationToken::new());
        let deliver: Arc<Recorder> = Arc::clone(&recorder);
        let broker = RedisBroker::start(options, deliver, Arc::clone(&metrics), &tracker, shutdown.clone()).unwrap();
        Self { broker, recorder, metrics, tracker, shutdown }
    }

    async fn subscribe(&self, room: &str) -> Result<(), BrokerError> {
        self.broker.subscribe(&Arc::from(room)).wait().await
    }

    async fn publish(&self, room: &str, data: impl Into<Bytes>) -> Result<(), BrokerError> {
        self.broker.publish(room, said(data)).wait().await
    }

    async fn until_hearing(&self) {
        until("every room is heard", || self.broker.health() == Health::Hearing).await;
    }

    async fn until_lost(&self) {
        until("the loss is seen", || matches!(self.broker.health(), Health::Lost { .. })).await;
    }

    /// Publishes until it succeeds, for moments when the publishing connection is being made again.
    async fn publish_stubbornly(&self, room: &str, data: &'static str) {
        let begin = Instant::now();
        while self.publish(room, data).await.is_err() {
            assert!(begin.elapsed() < DEADLINE, "nothing can be published");
        }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.tracker.close();
        assert!(tokio::time::timeout(DEADLINE, self.tracker.wait()).await.is_ok(), "a task does not end");
    }
}

fn said(data: impl Into<Bytes>) -> Event {
    Publication { data: data.into(), ..Publication::default() }.into()
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < DEADLINE, "never came: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn number(data: &Bytes) -> usize {
    let text = std::str::from_utf8(data).unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

fn assert_rising(heard: &[Bytes]) {
    let numbers: Vec<usize> = heard.iter().map(number).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "doubled or out of order: {numbers:?}");
}

/// Publishes numbers, eight at a time, until told to stop; gives what became of each.
fn load(node: &Node, room: &'static str) -> (Arc<AtomicBool>, tokio::task::JoinHandle<Vec<Result<(), BrokerError>>>) {
    let (stop, broker) = (Arc::new(AtomicBool::new(false)), Arc::clone(&node.broker));
    let stopped = Arc::clone(&stop);
    let task = tokio::spawn(async move {
        let mut outcomes = Vec::new();
        while !stopped.load(Ordering::Relaxed) {
            let begin = outcomes.len();
            let answers: Vec<_> =
                (begin..begin + 8).map(|number| broker.publish(room, said(number.to_string())).wait()).collect();
            outcomes.extend(join_all(answers).await);
        }
        outcomes
    });
    (stop, task)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_under_load_heals_without_doubles_and_in_order() {
    let mut server = RedisServer::start();
    let nodes = [Node::start(&server), Node::start(&server)];
    for node in &nodes {
        node.subscribe("a").await.unwrap();
        node.subscribe("b").await.unwrap();
    }
    let (stop, task) = load(&nodes[0], "a");
    for round in 1..=3_usize {
        let before = nodes[1].recorder.heard("a").len();
        nodes[1].recorder.wait("a", before + 100).await;
        server.kill();
        for node in &nodes {
            node.until_lost().await;
            assert_eq!(node.metrics.broker_connected.get(), 0);
        }
        server.restart();
        for node in &nodes {
            node.until_hearing().await;
            until("the gauge follows", || node.metrics.broker_connected.get() == 1).await;
            assert_eq!(node.metrics.broker_reconnects.get(), round as u64);
        }
        let channels = server.command(&["PUBSUB", "CHANNELS"]).len();
        assert_eq!(channels, 2);
    }
    nodes[1].publish_stubbornly("b", "end").await;
    let before = nodes[1].recorder.heard("a").len();
    nodes[1].recorder.wait("a", before + 100).await;
    stop.store(true, Ordering::Relaxed);
    let outcomes = task.await.unwrap();
    for node in &nodes {
        assert_eq!(node.recorder.wait("b", 1).await, ["end"]);
        assert_rising(&node.recorder.heard("a"));
    }
    // What was waiting to be written came through; what was written when the server died is an error.
    let failed = outcomes.iter().filter(|outcome| outcome.is_err()).count();
    assert!(failed <= 3 * 8, "{failed} of {} failed", outcomes.len());
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(()) | Err(BrokerError::Disconnected))), "{outcomes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_written_waits_for_the_server_and_what_is_written_is_not_repeated() {
    let mut server = RedisServer::start();
    let node = Node::with(&RedisOptions::new(server.url()));
    node.subscribe("a").await.unwrap();
    node.publish("a", "0 before").await.unwrap();
    server.pause();
    let broker = Arc::clone(&node.broker);
    let written = tokio::spawn(broker.publish("a", said("1 written")).wait());
    // A second pipeline is not begun before the first is answered, so the queue shows that the first was taken.
    until("the first is written", || server_backlog(&server) > 0).await;
    let waiting = tokio::spawn(broker.publish("a", said("2 waiting")).wait());
    server.kill();
    assert_eq!(written.await.unwrap(), Err(BrokerError::Disconnected));
    server.restart();
    assert_eq!(waiting.await.unwrap(), Ok(()));
    node.until_hearing().await;
    node.publish("a", "3 after").await.unwrap();
    node.recorder.until("the last", |recorder| recorder.heard("a").last() == Some(&"3 after".into())).await;
    assert_rising(&node.recorder.heard("a"));
    assert!(!node.recorder.heard("a").contains(&"1 written".into()));
}

/// Bytes that lie unread in the kernel for connections to the server's port.
fn server_backlog(server: &RedisServer) -> usize {
    let port = format!(":{:04X}", server.port().unwrap());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let own = rows.filter(|row| row[1].ends_with(&port) && row[3] == "01");
    own.map(|row| usize::from_str_radix(row[4].split(':').nth(1).unwrap(), 16).unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_server_is_told_from_a_quiet_one() {
    let server = RedisServer::start();
    let node = Node::start(&server);
    node.subscribe("a").await.unwrap();
    // Quiet, but alive: the watchdogs ask, and nothing is lost.
    tokio::time::sleep(IO_TIMEOUT * 3).await;
    assert_eq!(node.broker.health(), Health::Hearing);
    assert_eq!(node.metrics.broker_reconnects.get(), 0);
    server.pause();
    let begin = Instant::now();
    let (published, subscribed) = tokio::join!(node.publish("a", "0"), node.subscribe("b"));
    assert_eq!(published, Err(BrokerError::Timeout(IO_TIMEOUT)));
    assert_eq!(subscribed, Err(BrokerError::Timeout(IO_TIMEOUT)));
    node.broker.unsubscribe("b");
    assert!(begin.elapsed() < IO_TIMEOUT * 2);
    node.until_lost().await;
    assert!(begin.elapsed() < IO_TIMEOUT * 3, "seen after {:?}", begin.elapsed());
    // Waits for a connection that does not come.
    assert_eq!(node.publish("a", "1").await, Err(BrokerError::Timeout(IO_TIMEOUT)));
    server.resume();
    node.until_hearing().await;
    node.publish_stubbornly("a", "2").await;
    node.recorder.until("what comes after", |recorder| recorder.heard("a").contains(&"2".into())).await;
    assert_rising(&node.recorder.heard("a"));
    until("a room given up leaves no trace", || server.command(&["PUBSUB", "CHANNELS"]) == ["roomcast.room.a"]).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_to_a_silent_server_is_neither_repeated_nor_late() {
    let server = RedisServer::start();
    let (node, listener) = (Node::start(&server), Node::start(&server));
    let filler = "x".repeat(3_500);
    listener.subscribe("a").await.unwrap();
    for round in 0..3 {
        node.publish_stubbornly("warm", "up").await;
        server.pause();
        let first = round * 1000;
        let old = (first..first + 300).map(|n| node.broker.publish("a", said(format!("{n} {filler}"))).wait());
        let old = join_all(old.collect::<Vec<_>>()).await;
        assert!(old.iter().any(Result::is_err));
        let new = (first + 300..first + 320).map(|n| node.broker.publish("a", said(n.to_string())).wait());
        let new = tokio::spawn(join_all(new.collect::<Vec<_>>()));
        server.resume();
        new.await.unwrap();
        listener.until_hearing().await;
    }
    node.publish_stubbornly("a", "9999").await;
    listener.recorder.until("the last", |recorder| recorder.heard("a").last() == Some(&"9999".into())).await;
    assert_rising(&listener.recorder.heard("a"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_connection_is_made_again() {
    let server = RedisServer::start();
    let node = Node::start(&server);
    node.subscribe("a").await.unwrap();
    node.publish("a", "0").await.unwrap();
    for round in 1..=5 {
        assert_eq!(server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]), ["1"]);
        until("a new connection", || node.metrics.broker_reconnects.get() == round).await;
        node.until_hearing().await;
        assert_eq!(node.recorder.interruptions() as u64, round, "whoever watches positions is told");
        // The publishing connection sees its end by itself: what comes after it waits for the next and succeeds.
        assert_eq!(server.command(&["CLIENT", "KILL", "TYPE", "normal"]), ["2"]);
        until("the end is seen", || server.command(&["CLIENT", "LIST", "TYPE", "normal"])[0].lines().count() == 3)
            .await;
        node.publish("a", round.to_string()).await.unwrap();
    }
    node.recorder.until("the last", |recorder| recorder.heard("a").last() == Some(&"5".into())).await;
    assert_eq!(node.recorder.heard("a"), ["0", "1", "2", "3", "4", "5"]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_follows_closely_is_written_after_the_pause() {
    let server = RedisServer::start();
    let pause = Duration::from_millis(300);
    let node = Node::with(&RedisOptions { gathering_pause: pause, ..options(server.url()) });
    node.subscribe("a").await.unwrap();
    let begin = Instant::now();
    node.publish_stubbornly("a", "0").await;
    assert_eq!(node.publish("a", "1").await, Ok(()));
    assert!(begin.elapsed() >= pause, "nothing is written before its end");
    assert_eq!(node.recorder.wait("a", 2).await, ["0", "1"]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_many_calls_as_are_enough_end_a_pause_and_keep_their_order() {
    let server = RedisServer::start();
    let node = Node::with(&RedisOptions { gathering_pause: Duration::from_hours(1), ..options(server.url()) });
    node.subscribe("a").await.unwrap();
    node.publish_stubbornly("a", "0").await;
    let publish = |numbers: std::ops::Range<u32>| {
        numbers.map(|number| node.broker.publish("a", said(number.to_string())).wait()).collect::<Vec<_>>()
    };
    let most = publish(1..32);
    // Most likely the pause has begun then; where it has not, all are there when it would.
    tokio::time::sleep(Duration::from_millis(10)).await;
    let all = most.into_iter().chain(publish(32..33));
    assert_eq!(tokio::time::timeout(DEADLINE, join_all(all)).await, Ok(vec![Ok(()); 32]));
    let heard = node.recorder.wait("a", 33).await;
    assert!(heard.iter().enumerate().all(|(place, text)| *text == place.to_string()), "{heard:?}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_the_end_of_a_pause_is_not_written_to_a_connection_that_ends_meanwhile() {
    let server = RedisServer::start();
    let node = Node::with(&RedisOptions { gathering_pause: Duration::from_secs(1), ..options(server.url()) });
    node.subscribe("a").await.unwrap();
    node.publish_stubbornly("a", "0").await;
    let waiting = node.broker.publish("a", said("1")).wait();
    assert_eq!(server.command(&["CLIENT", "KILL", "TYPE", "normal"]), ["2"]);
    assert_eq!(waiting.await, Ok(()), "it is written to the next one");
    assert_eq!(node.recorder.wait("a", 2).await, ["0", "1"]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_rooms_are_asked_for_again_in_few_commands() {
    let mut server = RedisServer::start();
    let node = Node::with(&RedisOptions { io_timeout: DEADLINE, ..options(server.url()) });
    let rooms: Vec<_> = (0..100_000).map(|number| format!("room {number}")).collect();
    let answers = join_all(rooms.iter().map(|room| node.subscribe(room))).await;
    assert!(answers.iter().all(Result::is_ok));
    server.kill();
    node.until_lost().await;
    server.restart();
    node.until_hearing().await;
    let told = |section| server.command(&["INFO", section]).concat();
    assert!(told("stats").contains("pubsub_channels:100000\r\n"), "{}", told("stats"));
    let stats = told("commandstats");
    let calls = stats.split_once("cmdstat_subscribe:calls=").and_then(|(_, rest)| rest.split(',').next()?.parse().ok());
    assert!(calls.is_some_and(|calls: u32| calls <= 200), "{stats}");
    for room in [&rooms[0], &rooms[99_999]] {
        node.publish_stubbornly(room, "after").await;
        assert_eq!(node.recorder.wait(room, 1).await[0], "after");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rooms_wanted_during_an_outage_are_heard_after_it() {
    let mut server = RedisServer::start();
    let node = Node::with(&RedisOptions::new(server.url()));
    assert_eq!(node.subscribe("kept").await, Ok(()));
    node.subscribe("left").await.unwrap();
    let rooms: Vec<Arc<str>> = (0..2000).map(|room| Arc::from(format!("room {room}"))).collect();
    server.kill();
    node.until_lost().await;
    let waiting: Vec<_> = rooms.iter().map(|room| node.broker.subscribe(room).wait()).collect();
    let (kept, withdrawn) = (Arc::from("kept"), Arc::from("withdrawn"));
    let again = node.broker.subscribe(&kept).wait();
    let cancelled = node.broker.subscribe(&withdrawn).wait();
    node.broker.unsubscribe("withdrawn");
    node.broker.unsubscribe("left");
    assert_eq!(cancelled.await, Err(BrokerError::Cancelled));
    server.restart();
    assert!(join_all(waiting).await.iter().all(Result::is_ok));
    assert_eq!(again.await, Ok(()));
    node.until_hearing().await;
    assert_eq!(server.command(&["PUBSUB", "CHANNELS"]).len(), 2001);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_comes_late_is_found() {
    let mut server = RedisServer::start();
    server.kill();
    let node = Node::with(&RedisOptions::new(server.url()));
    assert_eq!(node.broker.health(), Health::Starting);
    let (subscribed, published) = (node.broker.subscribe(&Arc::from("a")), node.broker.publish("b", said("0")));
    server.restart();
    let (subscribed, published) = tokio::join!(subscribed.wait(), published.wait());
    assert_eq!((subscribed, published), (Ok(()), Ok(())));
    node.until_hearing().await;
    assert_eq!(node.metrics.broker_reconnects.get(), 0, "the first connection is no second one");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_is_bounded_in_number_bytes_and_time() {
    let mut server = RedisServer::start();
    server.kill();
    let bounded = RedisOptions { publish_queue: 10, publish_queue_bytes: 5000, ..options(server.url()) };
    let node = Node::with(&bounded);
    let begin = Instant::now();
    let waiting: Vec<_> = (0..10).map(|_| node.broker.publish("a", said("x")).wait()).collect();
    assert_eq!(node.publish("a", "x").await, Err(BrokerError::Overloaded(10)));
    for outcome in join_all(waiting).await {
        assert_eq!(outcome, Err(BrokerError::Timeout(IO_TIMEOUT)));
    }
    assert!((IO_TIMEOUT..IO_TIMEOUT * 2).contains(&begin.elapsed()), "{:?}", begin.elapsed());
    let large = node.broker.publish("a", said(vec![0; 4000])).wait();
    assert_eq!(node.publish("a", vec![0; 4000]).await, Err(BrokerError::Overloaded(1)));
    assert_eq!(large.await, Err(BrokerError::Timeout(IO_TIMEOUT)));
    assert_eq!(node.metrics.broker_published.with_label_values(&["error"]).get(), 13);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_lets_what_is_queued_through_and_refuses_what_comes_after() {
    let server = RedisServer::start();
    let (node, other) = (Node::start(&server), Node::start(&server));
    other.subscribe("a").await.unwrap();
    node.publish("a", "first").await.unwrap();
    let queued: Vec<_> = (0..3000).map(|number| node.broker.publish("a", said(number.to_string())).wait()).collect();
    node.shutdown.cancel();
    assert!(join_all(queued).await.iter().all(Result::is_ok));
    other.recorder.wait("a", 3001).await;
    until("the end", || node.tracker.is_empty()).await;
    assert_eq!(node.publish("a", "late").await, Err(BrokerError::Cancelled));
    assert_eq!(node.subscribe("late").await, Err(BrokerError::Cancelled));
    assert_ne!(node.broker.health(), Health::Hearing);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_without_a_server_answers_everybody_soon() {
    let mut server = RedisServer::start();
    server.kill();
    let node = Node::with(&RedisOptions::new(server.url()));
    let (published, subscribed) = (node.broker.publish("a", said("x")), node.broker.subscribe(&Arc::from("a")));
    let begin = Instant::now();
    node.shutdown.cancel();
    assert_eq!(published.wait().await, Err(BrokerError::Cancelled));
    assert_eq!(subscribed.wait().await, Err(BrokerError::Cancelled));
    assert!(begin.elapsed() < Duration::from_secs(3));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_room_pauses_the_reader_but_not_the_connection() {
    let server = RedisServer::start();
    let (node, other) = (Node::start(&server), Node::start(&server));
    node.subscribe("a").await.unwrap();
    node.recorder.fill("a");
    for number in 0..1000 {
        other.publish("a", number.to_string()).await.unwrap();
    }
    node.recorder.wait("a", 1).await;
    tokio::time::sleep(IO_TIMEOUT * 3).await;
    assert_eq!(node.recorder.heard("a").len(), 1, "nothing is handed over while there is no space");
    assert_eq!(node.broker.health(), Health::Hearing);
    node.recorder.clear();
    assert_rising(&node.recorder.wait("a", 1000).await);
    // The same where nothing lies unread behind it that would show that the server is alive.
    node.recorder.fill("a");
    other.publish("a", "1000").await.unwrap();
    until("the pause", || node.metrics.inbox_full.get() == 2).await;
    tokio::time::sleep(IO_TIMEOUT * 3).await;
    node.recorder.clear();
    other.publish("a", "1001").await.unwrap();
    assert_rising(&node.recorder.wait("a", 1002).await);
    node.subscribe("b").await.unwrap();
    assert_eq!(node.metrics.broker_reconnects.get(), 0);
    assert_eq!(node.metrics.inbox_full.get(), 2);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_publish_fails_alone() {
    let server = RedisServer::start();
    server.command(&["ACL", "SETUSER", "limited", "on", ">pass", "+@all", "resetchannels", "&roomcast.room.ok*"]);
    let node = Node::with(&options(server.url().replace("//", "//limited:pass@")));
    node.subscribe("ok").await.unwrap();
    let rooms = (0..300).map(|number| if number % 100 == 50 { "secret" } else { "ok" });
    let answers: Vec<_> = rooms.map(|room| node.broker.publish(room, said("x")).wait()).collect();
    for (number, answer) in join_all(answers).await.into_iter().enumerate() {
        match (number % 100, answer) {
            (50, Err(BrokerError::Refused(reason))) => assert!(reason.starts_with("NOPERM"), "{reason}"),
            (50, other) => panic!("{other:?}"),
            (_, answer) => assert_eq!(answer, Ok(())),
        }
    }
    assert_eq!(node.recorder.wait("ok", 297).await.len(), 297);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_subscribe_fails_alone_and_leaves_no_trace() {
    let server = RedisServer::start();
    server.command(&["ACL", "SETUSER", "limited", "on", ">pass", "+@all", "resetchannels", "&roomcast.room.ok*"]);
    let node = Node::with(&options(server.url().replace("//", "//limited:pass@")));
    let rooms: Vec<Arc<str>> =
        (0..700).map(|n| Arc::from(if n % 300 == 50 { format!("no-{n}") } else { format!("ok-{n}") })).collect();
    let answers = join_all(rooms.iter().map(|room| node.broker.subscribe(room).wait())).await;
    for (room, answer) in rooms.iter().zip(answers) {
        match answer {
            Ok(()) => assert!(room.starts_with("ok")),
            Err(BrokerError::Refused(reason)) => assert!(room.starts_with("no") && reason.starts_with("NOPERM")),
            Err(other) => panic!("{room}: {other}"),
        }
    }
    assert_eq!(server.command(&["PUBSUB", "CHANNELS"]).len(), 697);
    assert_eq!(node.broker.health(), Health::Hearing);
    assert_eq!(node.metrics.broker_reconnects.get(), 0);
    // A room that was heard and may no longer be heard is a loss, not silence.
    server.command(&["ACL", "SETUSER", "limited", "resetchannels", "&roomcast.room.ok-1*"]);
    node.until_lost().await;
    server.command(&["ACL", "SETUSER", "limited", "allchannels"]);
    node.until_hearing().await;
    assert_eq!(server.command(&["PUBSUB", "CHANNELS"]).len(), 697);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_reached_in_every_way_a_url_can_say() {
    let plain = RedisServer::start();
    let locked = RedisServer::start_with(&["--requirepass", "p@ss/w:rd"]);
    locked.commands(&[&["AUTH", "p@ss/w:rd"], &["ACL", "SETUSER", "ada", "on", ">love&lace", "+@all", "&*", "~*"]]);
    let (unix, tls) = (RedisServer::start_unix(), RedisServer::start_tls());
    let urls = [
        plain.url(),
        format!("{}/3", plain.url()),
        locked.url().replace("//", "//:p%40ss%2Fw%3Ard@"),
        format!("{}/5", locked.url().replace("//", "//ada:love%26lace@")),
        unix.url(),
        format!("{}?db=2", unix.url()),
        tls.url(),
    ];
    for url in urls {
        let authority_pem = url.starts_with("rediss").then(|| tls.authority_pem());
        let node = Node::with(&RedisOptions { authority_pem, ..RedisOptions::new(&url) });
        node.subscribe("a").await.unwrap_or_else(|error| panic!("{url}: {error}"));
        node.publish("a", "x").await.unwrap();
        assert_eq!(node.recorder.wait("a", 1).await, ["x"]);
        assert!(node.broker.round_trip().wait().await.unwrap() < Duration::from_secs(1));
        let databases =
            if url.contains(&plain.url()) { plain.command(&["CLIENT", "LIST"]).concat() } else { String::new() };
        assert_eq!(databases.contains("db=3"), url.ends_with("/3"));
        node.stop().await;
    }
    let untrusted = Node::with(&options(tls.url()));
    assert!(untrusted.subscribe("a").await.is_err(), "an unknown authority must not be trusted");
}

#[test]
fn a_url_that_is_not_understood_is_refused_without_showing_it() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    for url in ["", "hunter2", "http://:hunter2@host", "redis://:hunter2@host/x", "rediss://:hunter2@host/#insecure"] {
        let (tracker, shutdown) = (TaskTracker::new(), CancellationToken::new());
        let (recorder, metrics) = (Arc::new(Recorder::default()), Arc::new(Metrics::new()));
        let refused = RedisBroker::start(&options(url), recorder, metrics, &tracker, shutdown).err().unwrap();
        assert!(matches!(refused, ConfigError::Url(_)));
        assert!(!refused.to_string().contains("hunter2"), "{refused}");
    }
    let broken = RedisOptions { authority_pem: Some(b"no PEM".to_vec()), ..options("rediss://host") };
    let (recorder, metrics) = (Arc::new(Recorder::default()), Arc::new(Metrics::new()));
    let refused = RedisBroker::start(&broken, recorder, metrics, &TaskTracker::new(), CancellationToken::new());
    assert!(matches!(refused.err(), Some(ConfigError::Authority(_))));
}

thread_local! {
    /// What was logged on this thread.
    static LOG: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// Keeps the log of each thread apart. One collector serves the whole process: one for each test would have to tell every
/// place that logs, while other tests are just there.
struct Log;

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOG.with_borrow_mut(|log| log.extend_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn start() {
        static STARTED: std::sync::Once = std::sync::Once::new();
        let level = tracing::Level::TRACE;
        STARTED.call_once(|| tracing_subscriber::fmt().with_max_level(level).with_writer(|| Log).init());
        LOG.take();
    }

    fn lines() -> Vec<String> {
        LOG.with_borrow(|log| String::from_utf8(log.clone()).unwrap().lines().map(str::to_owned).collect())
    }
}

/// On one thread, so that the log of its tasks is this test's own.
#[tokio::test]
async fn a_wrong_or_missing_password_is_said_once_and_heals() {
    for (login, healing) in [("//", ""), ("//:hunter3@", "hunter3")] {
        let server = RedisServer::start_with(&["--requirepass", "hunter2"]);
        let url = server.url().replace("//", login);
        Log::start();
        let node = Node::with(&options(url));
        assert_eq!(node.publish("a", "x").await, Err(BrokerError::Timeout(IO_TIMEOUT)));
        assert_eq!(node.broker.health(), Health::Starting);
        until("several attempts", || Log::lines().iter().filter(|line| line.contains("still not")).count() > 6).await;
        let warnings: Vec<_> = Log::lines().into_iter().filter(|line| line.contains("WARN")).collect();
        assert_eq!(warnings.len(), 3, "one for each connection: {warnings:#?}");
        let said = |line: &String| line.contains("NOAUTH") || line.contains("WRONGPASS") || line.contains("Authentic");
        assert!(warnings.iter().all(said), "{warnings:#?}");
        server.commands(&[&["AUTH", "hunter2"], &["CONFIG", "SET", "requirepass", healing]]);
        node.until_hearing().await;
        assert!(Log::lines().iter().all(|line| !line.contains("hunter")), "a password is in the log");
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_not_redis_is_given_up_and_tried_again() {
    let streams: [&[u8]; 6] = [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$9999999999\r\n",
        b"*3\r\n$9\r\nsubscribe\r\n$5\r\nnever\r\n:1\r\n",
        b"-ERR max number of clients reached\r\n",
        b"\0\x01\x02\xff\xff",
        b"+OK\r\n+OK\r\n+OK\r\n",
    ];
    for stream in streams {
        for greeted in [false, true] {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let accepted = Arc::new(AtomicUsize::new(0));
            let count = Arc::clone(&accepted);
            let fake = tokio::spawn(async move {
                loop {
                    let (mut socket, _) = listener.accept().await.unwrap();
                    count.fetch_add(1, Ordering::Relaxed);
                    tokio::spawn(async move {
                        if greeted {
                            let _ = socket.write_all(b"+PONG\r\n").await;
                        }
                        let _ = socket.write_all(stream).await;
                        let _ = socket.read_to_end(&mut Vec::new()).await;
                    });
                }
            });
            let node = Node::with(&options(format!("redis://{address}")));
            let subscribed = node.broker.subscribe(&Arc::from("a"));
            // A connection that stood before the room was wanted hears all there was to hear, until it is given up.
            until("the first is given up", || node.broker.health() != Health::Hearing).await;
            until("further attempts", || accepted.load(Ordering::Relaxed) >= 6).await;
            let outcome = subscribed.wait().await;
            // An error that arrives just when the room was asked for reads as the answer to that, at any time: a room that
            // was refused is not wanted any more, and nothing is left that could be unheard then.
            if greeted && stream.starts_with(b"-") {
                assert!(matches!(outcome, Err(BrokerError::Timeout(_) | BrokerError::Refused(_))), "{outcome:?}");
            } else {
                assert_eq!(outcome, Err(BrokerError::Timeout(IO_TIMEOUT)), "{}", stream.escape_ascii());
                assert_ne!(node.broker.health(), Health::Hearing, "{}", stream.escape_ascii());
            }
            node.stop().await;
            fake.abort();
        }
    }
}

/// On one thread, so that the log of its tasks is this test's own.
#[tokio::test]
async fn what_comes_together_with_the_greeting_is_read_at_once() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let fake = tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let _ = socket.write_all(b"+PONG\r\n+OK\r\n").await;
                let _ = socket.read_to_end(&mut Vec::new()).await;
            });
        }
    });
    Log::start();
    let node = Node::with(&options(format!("redis://{address}")));
    let said = || Log::lines().into_iter().find(|line| line.contains("not reached") && line.contains("\"subscribe\""));
    until("the connection is given up", || said().is_some()).await;
    let said = said().unwrap();
    assert!(said.contains("confirmed what was not asked"), "{said}");
    node.stop().await;
    fake.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_messages_are_counted_and_passed_over() {
    let server = RedisServer::start();
    let node = Node::start(&server);
    node.subscribe("a").await.unwrap();
    // The last is a pack of which the second publication is not understood: the first is not given either.
    let pack = "\u{5}00000000000000000002abcdefgh\u{9}\0\0\x0012345678\0\u{9}\0\0\x0012345678\u{7f}";
    let odd = ["", "\u{1}", "hello", "\u{1}12345678\u{7f}", "\u{5}", "\u{5}00000000000000000002abcdefgh", pack];
    for odd in odd {
        assert_eq!(server.command(&["PUBLISH", "roomcast.room.a", odd]), ["1"]);
    }
    node.publish("a", "sound").await.unwrap();
    assert_eq!(node.recorder.wait("a", 1).await, ["sound"]);
    assert_eq!(node.metrics.broker_malformed.get(), 7);
    until("the count", || node.metrics.broker_received.get() == 8).await;
    assert_eq!(node.broker.health(), Health::Hearing);
    node.stop().await;
}
