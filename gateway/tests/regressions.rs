//! Faults that were found once, each with the smallest thing that shows it.

mod common;

use std::{
    io::{self, IoSlice},
    sync::{
        Arc, Barrier,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use common::{Client, Gateway, frame, json, redis::RedisServer};
use parking_lot::Mutex;
use roomcast::{
    hub::{Deliver, Hub, Outbox, Seat, Sink, Wire},
    metrics::Metrics,
};
use roomcast_shared::{event::Event, publication::Publication};
use tokio::io::AsyncWriteExt;
use tokio_util::task::TaskTracker;

/// Commands that came while another one blocked the connection began, but nobody asked after them until the next ping.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_behind_a_blocked_one_are_answered_as_soon_as_the_broker_answers() {
    let redis = RedisServer::start();
    let node = Gateway::open(&format!("redis.url = {:?}\n", redis.url()));
    node.metric_until("roomcast_broker_connected", |value| value > 0.0).await;
    let mut client = Client::connected(node.clients, "ann").await;
    // The second command waits for the first one, and the third one is a frame of its own that came in the same read.
    let first = "{\"id\":11,\"subscribe\":{\"channel\":\"a\"}}\n{\"id\":12,\"unsubscribe\":{\"channel\":\"a\"}}";
    let second = "{\"id\":13,\"subscribe\":{\"channel\":\"b\"}}";
    let mut bytes = frame(0x81, first.as_bytes());
    bytes.extend(frame(0x81, second.as_bytes()));
    client.send_bytes(&bytes).await;
    let mut answered = 0;
    while answered < 3 {
        let frame = client.frame().await.expect("the connection goes on");
        answered += String::from_utf8(frame.payload).expect("text").lines().count();
    }
    drop(client);
    node.stop().await;
}

/// While commands wait, pongs are not read, so that several pings may be out at a time: each of them may be answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_ping_sent_while_commands_waited_may_be_answered() {
    let redis = RedisServer::start();
    let settings = format!(
        "redis.url = {:?}\nredis.io_timeout = \"30s\"\nclient.ping_interval = \"1s\"\nclient.pong_timeout = \"500ms\"\n",
        redis.url()
    );
    let node = Gateway::open(&settings);
    node.metric_until("roomcast_broker_connected", |value| value > 0.0).await;
    let mut client = Client::connected(node.clients, "ann").await;
    redis.pause();
    client.send(r#"{"id":11,"subscribe":{"channel":"a"}}"#).await;
    client.send(r#"{"id":12,"unsubscribe":{"channel":"a"}}"#).await;
    for _ in 0..3 {
        assert_eq!(client.next().await, json!({}));
        client.send("{}").await;
    }
    redis.resume();
    let mut answers = Vec::new();
    while answers.len() < 2 {
        let frame = client.frame().await.expect("the connection goes on");
        assert_ne!(frame.opcode, 8, "closed: {frame:?}");
        let text = String::from_utf8(frame.payload).expect("text");
        answers.extend(text.lines().filter(|line| *line != "{}").map(str::to_owned));
    }
    client.subscribe("b").await;
    drop(client);
    node.stop().await;
}

/// A pong that nobody asked for ends the connection as ever.
#[tokio::test]
async fn a_pong_without_a_ping_is_a_bad_request() {
    let node = Gateway::open("");
    let mut client = Client::connected(node.clients, "ann").await;
    client.send("{}").await;
    assert_eq!(client.closed().await.map(|(code, _)| code), Some(3501));
    drop(client);
    node.stop().await;
}

/// The reply to a subscribe comes first, however busy the room is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_enters_a_busy_room_is_told_so_before_it_hears_the_room() {
    let node = Gateway::open("rooms.allow_publish_for_client = true\n");
    let mut speaker = Client::connected(node.clients, "speaker").await;
    let speaking = tokio::spawn(async move {
        // Many at a time, so that the node is always at one of them.
        let said = |id| json!({"id": id, "publish": {"channel": "a", "data": id}}).to_string();
        let said = (1..=50).map(said).collect::<Vec<_>>().join("\n");
        loop {
            speaker.send(&said).await;
            while speaker.next().await["id"] != 50 {}
        }
    });
    for _ in 0..40 {
        let mut client = Client::connected(node.clients, "listener").await;
        // The replies to one frame go out together: entering the other rooms gives the busy one time to say something.
        let enter = |id: u32| json!({"id": id, "subscribe": {"channel": if id == 7 { "a".to_owned() } else { id.to_string() }}});
        let all: Vec<_> = (7..100).map(|id| enter(id).to_string()).collect();
        client.send(&all.join("\n")).await;
        let first = client.frame().await.expect("it is let in").payload;
        assert!(first.starts_with(br#"{"id":7"#), "{}", String::from_utf8_lossy(&first));
    }
    speaking.abort();
    let _ = speaking.await;
    node.stop().await;
}

/// A socket that takes everything and remembers it.
#[derive(Default)]
struct Record(Mutex<Vec<u8>>);

impl Sink for Record {
    fn try_write(&self, bytes: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut record = self.0.lock();
        let before = record.len();
        for bytes in bytes {
            record.extend_from_slice(bytes);
        }
        Ok(record.len() - before)
    }
}

/// A publication that came in the very moment in which the reply was written could get before it.
#[test]
fn a_reply_comes_before_whatever_is_said_after_it_was_held_for() {
    for _ in 0..10_000 {
        let outbox = Arc::new(Outbox::new(Record::default(), 1 << 20));
        let held = Arc::new(AtomicU32::new(0));
        let other = (outbox.clone(), held.clone());
        let speaker = thread::spawn(move || {
            let (outbox, held) = other;
            while held.load(Ordering::Acquire) == 0 {
                std::hint::spin_loop();
            }
            outbox.push(&Bytes::from_static(b"publication"));
        });
        outbox.hold();
        held.store(1, Ordering::Release);
        outbox.release(b"reply ");
        speaker.join().expect("it ends");
        assert_eq!(outbox.socket().0.lock().as_slice(), b"reply publication");
    }
}

/// Whoever had the turn of a small room looked at the seats before it took what there was to deliver: a subscriber that came
/// between the two did not hear what was published after it had come.
#[test]
fn what_is_published_after_a_seat_is_taken_reaches_it() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let _inside = runtime.enter();
    let hub = Arc::new(Hub::new(1 << 20, Arc::new(Metrics::new()), TaskTracker::new()));
    for round in 0..500 {
        let room = hub.open(&format!("room-{round}"));
        let start = Arc::new(Barrier::new(2));
        let other = (hub.clone(), room.clone(), start.clone(), runtime.handle().clone());
        let early = thread::spawn(move || {
            let (hub, room, start, handle) = other;
            let _inside = handle.enter();
            start.wait();
            for _ in 0..50 {
                let _ = hub.deliver(room.name(), said(b"\"early\""));
            }
        });
        start.wait();
        for _ in 0..10 {
            let outbox = Arc::new(Outbox::new(Record::default(), 1 << 20));
            let seat = hub.join(&room, Seat::new(outbox.clone(), Wire::JsonWebSocket));
            let _ = hub.deliver(room.name(), said(b"\"late\""));
            let begin = std::time::Instant::now();
            let heard = || outbox.socket().0.lock().windows(6).any(|bytes| bytes == b"\"late\"");
            while !heard() {
                assert!(begin.elapsed() < Duration::from_secs(5), "round {round}: lost");
                thread::yield_now();
            }
            let dynamic: Arc<Outbox> = outbox;
            hub.leave(&room, seat, &dynamic);
        }
        early.join().expect("it ends");
    }
}

fn said(data: &'static [u8]) -> Event {
    Publication { data: Bytes::from_static(data), ..Publication::default() }.into()
}

/// Who may connect without a token is not asked for what a token has to say.
#[tokio::test]
async fn anonymous_clients_are_not_measured_by_the_rule_for_tokens() {
    let node = Gateway::open("auth.allow_anonymous = true\nauth.disallow_anonymous_connection_tokens = true\n");
    let mut client = Client::open(node.clients).await;
    let reply = client.ask(json!({"connect": {}})).await;
    assert!(reply["connect"]["client"].is_string(), "{reply}");
    drop(client);
    node.stop().await;
}

/// A publication that no queue can hold is refused, rather than closing everybody who hears it.
#[tokio::test]
async fn a_publication_larger_than_any_queue_is_refused() {
    let node = Gateway::open("client.queue_max_size = \"128KB\"\n");
    let mut listener = Client::subscribed(node.clients, "ann", "lobby").await;
    let (status, answer) = node.api("publish", &json!({"channel": "lobby", "data": "x".repeat(128 * 1024)})).await;
    assert_eq!((status, &answer["error"]["code"]), (200, &json!(107)));
    node.publish("lobby", &json!("x".repeat(60 * 1024))).await;
    assert_eq!(listener.hear("lobby").await, json!("x".repeat(60 * 1024)));
    drop(listener);
    node.stop().await;
}

/// On one thread a client that only sends pings, and reads the pongs, kept everybody else waiting.
#[tokio::test]
async fn a_flood_of_pings_leaves_the_thread_to_others() {
    let node = Gateway::open("");
    let flooder = Client::open(node.clients).await;
    let (mut answers, mut questions) = flooder.stream.into_split();
    let flood = tokio::spawn(async move {
        let many = frame(0x89, b"").repeat(10_000);
        while questions.write_all(&many).await.is_ok() {}
    });
    let reading = tokio::spawn(async move { tokio::io::copy(&mut answers, &mut tokio::io::sink()).await });
    let mut client = Client::subscribed(node.clients, "ann", "lobby").await;
    for round in 0..20 {
        let began = tokio::time::Instant::now();
        client.publish("lobby", &json!(round)).await;
        assert!(began.elapsed() < Duration::from_secs(5), "round {round} took {:?}", began.elapsed());
    }
    flood.abort();
    reading.abort();
    drop(client);
    node.stop().await;
}

/// What a room said while a frame of commands was worked off came after all of their answers, so also after the one that the
/// client has left that room.
#[tokio::test]
async fn nothing_of_a_room_comes_after_the_answer_that_it_is_left() {
    let node = Gateway::open("rooms.join_leave = true\nrooms.force_push_join_leave = true\n");
    let mut client = Client::connected(node.clients, "ann").await;
    // That the client has joined is said in the room while its commands are worked off.
    let both = "{\"id\":11,\"subscribe\":{\"channel\":\"a\"}}\n{\"id\":12,\"unsubscribe\":{\"channel\":\"a\"}}";
    client.send(both).await;
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let frame = client.frame().await.expect("the connection goes on");
        for line in String::from_utf8(frame.payload).expect("text").lines() {
            let message: common::Value = serde_json::from_str(line).expect("JSON");
            let push = &message["push"];
            seen.push(if push.is_null() { message["id"].to_string() } else { push["channel"].to_string() });
        }
    }
    assert_eq!(seen, ["11", "\"a\"", "12"]);
    drop(client);
    node.stop().await;
}
