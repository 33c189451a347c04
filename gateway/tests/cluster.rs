//! Nodes that share a Redis: who hears what, and what becomes of it while Redis is away, stuck, or not what was hoped for.

#![expect(clippy::float_cmp, reason = "metrics that count are whole numbers")]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use common::{Client, Gateway, PATIENCE, Process, Value, json, redis::RedisServer};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp},
    sync::watch,
};

const CONNECTED: &str = "roomcast_broker_connected";
const SUBSCRIBES: &str = "roomcast_broker_latency_seconds_count{operation=\"subscribe\"}";

/// A node on that Redis in which everybody may publish everywhere, whether it hears Redis already or not.
fn start(url: &str, settings: &str) -> Gateway {
    Gateway::open(&format!("rooms.allow_publish_for_client = true\nredis.url = {url:?}\n{settings}"))
}

/// The same, once it hears Redis.
async fn node(redis: &RedisServer, settings: &str) -> Gateway {
    let node = start(&redis.url(), settings);
    hears_redis(&node).await;
    node
}

async fn hears_redis(node: &Gateway) {
    node.metric_until(CONNECTED, |value| value > 0.0).await;
}

async fn misses_redis(node: &Gateway) {
    node.metric_until(CONNECTED, |value| value < 1.0).await;
}

/// The channels of rooms somebody is subscribed to; those on which nodes speak to each other are left aside.
fn channels(redis: &RedisServer) -> BTreeSet<String> {
    let all = redis.command(&["PUBSUB", "CHANNELS"]).into_iter();
    all.filter(|channel| channel.contains(".room.")).collect()
}

fn channels_of<const N: usize>(rooms: [&str; N]) -> BTreeSet<String> {
    rooms.iter().map(|room| format!("roomcast.room.{room}")).collect()
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "never came: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn until_channels<const N: usize>(redis: &RedisServer, rooms: [&str; N]) {
    let wanted = channels_of(rooms);
    until(&format!("{wanted:?} as the channels"), || channels(redis) == wanted).await;
}

/// How often clients of Redis have sent this command.
fn calls(redis: &RedisServer, command: &str) -> u32 {
    let stats = redis.command(&["INFO", "commandstats"]).concat();
    let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.and_then(|line| line.split(',').next()?.parse().ok()).unwrap_or(0)
}

/// Publishes once Redis takes it: the connection of a node that publishes heals on its own, and may be the later one.
async fn publish_when_possible(node: &Gateway, room: &str, data: &str) {
    let begin = Instant::now();
    while node.api("publish", &json!({"channel": room, "data": data})).await.1 != json!({"result": {}}) {
        assert!(begin.elapsed() < PATIENCE, "no publish succeeds");
    }
}

async fn ready(node: &Gateway) -> (u16, String) {
    node.get("/readyz").await
}

async fn until_ready(node: &Gateway, status: u16) -> String {
    let begin = Instant::now();
    loop {
        let (now, text) = ready(node).await;
        if now == status {
            return text;
        }
        assert!(begin.elapsed() < PATIENCE, "/readyz stays {now} {text}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Sends publishes without waiting between them, then waits for all the answers: which of them succeeded.
async fn publish_all(client: &mut Client, publications: Vec<(String, Value)>) -> Vec<Value> {
    let count = publications.len();
    for (id, (room, data)) in publications.into_iter().enumerate() {
        let command = json!({"id": id + 1_000_000, "publish": {"channel": room, "data": data}});
        client.send(&command.to_string()).await;
    }
    let mut replies = Vec::new();
    while replies.len() < count {
        let message = client.next().await;
        if message["id"].is_u64() {
            replies.push(message);
        } else if message == json!({}) {
            client.send("{}").await;
        }
    }
    replies
}

/// Listens in its rooms until each of them has said `"end"`; what was said before, by room.
async fn listen(mut client: Client, mut open: BTreeSet<String>) -> BTreeMap<String, Vec<Value>> {
    let mut heard = BTreeMap::<String, Vec<Value>>::new();
    while !open.is_empty() {
        let message = client.next().await;
        let (room, data) = (&message["push"]["channel"], &message["push"]["pub"]["data"]);
        let Some(room) = room.as_str() else { continue };
        assert!(open.contains(room), "after the end of {room}: {data}");
        if *data == "end" {
            open.remove(room);
        } else {
            heard.entry(room.to_owned()).or_default().push(data.clone());
        }
    }
    assert!(client.is_silent(Duration::from_millis(50)).await, "something after the end");
    heard
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_hears_everything_once_and_in_one_order_whichever_node_it_is_on() {
    let redis = RedisServer::start();
    let nodes = [node(&redis, "").await, node(&redis, "").await, node(&redis, "").await];
    let rooms: Vec<String> = (0..4).map(|room| format!("room-{room}")).collect();
    let mut listeners = Vec::new();
    for node in &nodes {
        // One listener for each room, and one in all of them.
        for its in rooms.chunks(1).chain([&rooms[..]]) {
            let mut client = Client::connected(node.clients, "listener").await;
            for room in its {
                client.subscribe(room).await;
            }
            listeners.push(tokio::spawn(listen(client, its.iter().cloned().collect())));
        }
    }
    let mut publishers = Vec::new();
    for (number, node) in nodes.iter().cycle().take(6).enumerate() {
        let mut client = Client::connected(node.clients, "publisher").await;
        let said = move |n| (format!("room-{}", n % 4), json!({"by": number, "n": n}));
        publishers.push(tokio::spawn(async move {
            let replies = publish_all(&mut client, (0..200).map(said).collect()).await;
            assert!(replies.iter().all(|reply| reply["publish"].is_object()), "{replies:?}");
        }));
    }
    for publisher in publishers {
        publisher.await.expect("every publish succeeds");
    }
    for room in &rooms {
        nodes[1].publish(room, &json!("end")).await;
    }
    let mut order = BTreeMap::<String, Vec<Value>>::new();
    for listener in listeners {
        for (room, heard) in listener.await.expect("it heard all") {
            assert_eq!(*order.entry(room).or_insert_with(|| heard.clone()), heard);
        }
    }
    for (room, heard) in order {
        assert_eq!(heard.len(), 6 * 50, "{room}");
        for number in 0..6 {
            let its: Vec<_> = heard.iter().filter(|data| data["by"] == number).map(|data| data["n"].as_u64()).collect();
            assert!(its.len() == 50 && its.is_sorted(), "publisher {number} in {room}: {its:?}");
        }
    }
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_hears_the_rooms_of_its_clients_and_no_others() {
    let redis = RedisServer::start();
    let (one, two) = (node(&redis, "").await, node(&redis, "").await);
    let mut ann = Client::subscribed(one.clients, "ann", "a").await;
    let mut ben = Client::subscribed(two.clients, "ben", "b").await;
    assert_eq!(channels(&redis), channels_of(["a", "b"]));
    for n in 0..10 {
        two.publish("a", &json!(n)).await;
        two.publish("nobody", &json!(n)).await;
    }
    for n in 0..10 {
        assert_eq!(ann.hear("a").await, json!(n));
    }
    two.publish("b", &json!("for ben")).await;
    assert_eq!(ben.hear("b").await, json!("for ben"));
    assert_eq!(one.metric_until("roomcast_broker_received_total", |count| count >= 10.0).await, 10.0);
    assert_eq!(two.metric_until("roomcast_broker_received_total", |count| count >= 1.0).await, 1.0);
    drop((ann, ben));
    until_channels(&redis, []).await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_is_left_a_moment_after_its_last_member() {
    let redis = RedisServer::start();
    let node = node(&redis, "").await;
    assert_eq!(channels(&redis), channels_of([]));
    let mut first = Client::subscribed(node.clients, "ann", "a").await;
    assert_eq!(channels(&redis), channels_of(["a"]));
    let mut second = Client::subscribed(node.clients, "ben", "a").await;
    // The node asked for its own two channels before, together.
    assert_eq!((calls(&redis, "subscribe"), node.metric(SUBSCRIBES).await), (1 + 1, 1.0));
    assert_eq!(first.ask(json!({"unsubscribe": {"channel": "a"}})).await["unsubscribe"], json!({}));
    let begin = Instant::now();
    assert_eq!(second.ask(json!({"unsubscribe": {"channel": "a"}})).await["unsubscribe"], json!({}));
    first.subscribe("a").await;
    assert_eq!((calls(&redis, "subscribe"), calls(&redis, "unsubscribe")), (1 + 1, 0), "a quick return costs nothing");
    drop(first);
    until_channels(&redis, []).await;
    let took = begin.elapsed();
    assert!(took > Duration::from_millis(900) && took < Duration::from_secs(5), "{took:?}");
    assert_eq!((calls(&redis, "subscribe"), calls(&redis, "unsubscribe")), (1 + 1, 1));
    assert_eq!(node.metric("roomcast_rooms").await, 0.0);
    second.subscribe("a").await;
    assert_eq!(calls(&redis, "subscribe"), 2 + 1);
    drop(second);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_join_a_new_room_at_once_ask_redis_once() {
    let redis = RedisServer::start();
    let nodes = [node(&redis, "").await, node(&redis, "").await];
    let mut clients = Vec::new();
    for number in 0..120 {
        clients.push(Client::connected(nodes[number % 2].clients, "fan").await);
    }
    let joins = clients.into_iter().map(|mut client| {
        tokio::spawn(async move {
            client.subscribe("concert").await;
            client
        })
    });
    let mut clients = Vec::new();
    for join in joins.collect::<Vec<_>>() {
        clients.push(join.await.expect("it is let in"));
    }
    // Each node asked for its own two channels before, together.
    assert_eq!(calls(&redis, "subscribe"), 2 + 2);
    nodes[0].publish("concert", &json!(1)).await;
    nodes[0].publish("concert", &json!(2)).await;
    for client in &mut clients {
        assert_eq!((client.hear("concert").await, client.hear("concert").await), (json!(1), json!(2)));
    }
    drop(clients);
    until_channels(&redis, []).await;
    for node in nodes {
        node.stop().await;
    }
}

/// Goes in and out of a room at random while others speak there. What it hears must rise, and while it is in, nothing may
/// be left out.
async fn come_and_go(mut client: Client, seed: u64) -> Client {
    let mut random = StdRng::seed_from_u64(seed);
    let (mut last, mut stays) = (None, 0);
    for id in 1_000.. {
        let (mut in_this_stay, verb) = (None, if id % 2 == 0 { "subscribe" } else { "unsubscribe" });
        client.send(&json!({"id": id, verb: {"channel": "churn"}}).to_string()).await;
        let mut wanted: u32 = if id % 2 == 0 { random.random_range(0..6) } else { 0 };
        let mut answered = false;
        while !answered || wanted > 0 {
            let message = client.next().await;
            if message["id"] == id {
                assert_eq!(message[verb], json!({}), "{message}");
                (answered, in_this_stay) = (true, None);
            } else if let Some(n) = message["push"]["pub"]["data"].as_u64() {
                assert!(last.is_none_or(|last| n > last), "seed {seed}: {n} after {last:?}");
                assert!(in_this_stay.is_none_or(|before| n == before + 1), "seed {seed}: {n} after {in_this_stay:?}");
                last = Some(n);
                if answered {
                    (in_this_stay, wanted) = (last, wanted.saturating_sub(1));
                }
            }
        }
        stays += 1;
        if stays == 60 {
            return client;
        }
    }
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn coming_and_going_while_others_speak_ends_where_it_should() {
    let seed = rand::rng().random();
    println!("seed {seed}");
    let redis = RedisServer::start();
    let nodes = [node(&redis, "").await, node(&redis, "").await];
    let mut members = Vec::new();
    for number in 0..8 {
        let client = Client::connected(nodes[number % 2].clients, "member").await;
        members.push(tokio::spawn(come_and_go(client, u64::wrapping_add(seed, number as u64))));
    }
    let mut speaker = Client::connected(nodes[0].clients, "speaker").await;
    let (stop, stopped) = watch::channel(false);
    let speaking = tokio::spawn(async move {
        let mut n = 0_u64;
        while !*stopped.borrow() {
            speaker.publish("churn", &json!(n)).await;
            n += 1;
        }
        speaker
    });
    let mut clients = Vec::new();
    for member in members {
        clients.push(member.await.expect("it heard what it should"));
    }
    let _ = stop.send(true);
    let mut speaker = speaking.await.expect("every publish succeeds");
    // Each of them has left; every other one comes back, and exactly those hear what is said now.
    for client in clients.iter_mut().step_by(2) {
        client.subscribe("churn").await;
    }
    speaker.publish("churn", &json!("still here?")).await;
    for client in clients.iter_mut().step_by(2) {
        // The last numbers may still have been on their way to the other node.
        while client.hear("churn").await != "still here?" {}
    }
    for client in clients.iter_mut().skip(1).step_by(2) {
        let reply = client.ask(json!({"unsubscribe": {"channel": "churn"}})).await;
        assert_eq!(reply["unsubscribe"], json!({}));
        assert!(client.is_silent(Duration::from_millis(20)).await);
    }
    assert_eq!(nodes[0].metric("roomcast_subscriptions").await + nodes[1].metric("roomcast_subscriptions").await, 4.0);
    drop((clients, speaker));
    until_channels(&redis, []).await;
    for node in nodes {
        assert_eq!(node.metric_until("roomcast_subscriptions", |count| count < 1.0).await, 0.0);
        assert_eq!(node.metric_until("roomcast_rooms", |count| count < 1.0).await, 0.0);
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_of_redis_under_load_heals_by_itself_without_doubles_and_in_order() {
    let mut redis = RedisServer::start();
    let quick = "redis.io_timeout = \"1s\"\n";
    let nodes = [node(&redis, quick).await, node(&redis, quick).await];
    let mut listener = Client::subscribed(nodes[0].clients, "listener", "news").await;
    let mut speaker = Client::connected(nodes[1].clients, "speaker").await;
    let (said, saying) = watch::channel(0_u64);
    let (stop, stopped) = watch::channel(false);
    let speaking = tokio::spawn(async move {
        let mut refused = 0;
        while !*stopped.borrow() {
            let n = *said.borrow() + 1;
            let reply = speaker.ask(json!({"publish": {"channel": "news", "data": n}})).await;
            assert!(reply["publish"].is_object() || reply["error"]["code"] == 100, "{reply}");
            refused += u32::from(reply["error"].is_object());
            said.send_replace(n);
        }
        refused
    });
    let (mut last, mut target, mut crashes) = (0, 50, 0);
    loop {
        let n = listener.hear("news").await.as_u64().expect("a number");
        assert!(n > last, "{n} after {last}");
        if crashes == 0 {
            assert_eq!(n, last + 1, "nothing is lost while Redis is there");
        }
        last = n;
        if last < target {
            continue;
        }
        if crashes == 2 {
            break;
        }
        redis.kill();
        for node in &nodes {
            misses_redis(node).await;
        }
        redis.restart();
        for node in &nodes {
            hears_redis(node).await;
        }
        crashes += 1;
        // Whatever is said from here on is heard.
        target = *saying.borrow() + 50;
    }
    let _ = stop.send(true);
    println!("{} publishes were refused meanwhile", speaking.await.expect("the speaker was never closed"));
    assert!(nodes[0].metric("roomcast_broker_reconnects_total").await >= 2.0);
    drop(listener);
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readiness_tells_of_redis_when_its_grace_is_over() {
    let mut redis = RedisServer::start();
    let node = node(&redis, "ready.broker_grace = \"1500ms\"\n").await;
    node.ready().await;
    let client = Client::subscribed(node.clients, "ann", "a").await;
    redis.kill();
    let begin = Instant::now();
    misses_redis(&node).await;
    let within = ready(&node).await;
    if begin.elapsed() < Duration::from_secs(1) {
        assert_eq!(within, (200, "ready\n".to_owned()), "within the grace");
    }
    let why = until_ready(&node, 503).await;
    assert!(begin.elapsed() >= Duration::from_millis(1_400), "{:?}", begin.elapsed());
    assert!(why.starts_with("Redis has not been heard for "), "{why}");
    redis.restart();
    assert_eq!(until_ready(&node, 200).await, "ready\n");
    assert_eq!(node.metric_until(CONNECTED, |value| value > 0.0).await, 1.0);
    drop(client);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscribe_while_redis_is_down_is_refused_in_time_and_leaves_no_trace() {
    let mut redis = RedisServer::start();
    let node = node(&redis, "redis.io_timeout = \"800ms\"\n").await;
    let mut client = Client::connected(node.clients, "ann").await;
    redis.kill();
    misses_redis(&node).await;
    let begin = Instant::now();
    let reply = client.ask(json!({"subscribe": {"channel": "a"}})).await;
    let took = begin.elapsed();
    assert_eq!(reply["error"]["code"], 100, "{reply}");
    assert!(took >= Duration::from_millis(700) && took < Duration::from_secs(3), "{took:?}");
    // Somebody who is gone before the answer leaves no trace either.
    let mut hasty = Client::connected(node.clients, "ben").await;
    hasty.send(r#"{"id":9,"subscribe":{"channel":"b"}}"#).await;
    node.metric_until("roomcast_rooms", |count| count >= 2.0).await;
    drop(hasty);
    redis.restart();
    hears_redis(&node).await;
    node.metric_until("roomcast_rooms", |count| count < 1.0).await;
    until_channels(&redis, []).await;
    assert_eq!(node.metric("roomcast_subscriptions").await, 0.0);
    publish_when_possible(&node, "a", "to nobody").await;
    client.subscribe("a").await;
    publish_when_possible(&node, "a", "heard").await;
    assert_eq!(client.hear("a").await, json!("heard"));
    drop(client);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publish_while_redis_is_down_waits_for_it_but_not_for_ever() {
    let mut redis = RedisServer::start();
    let patient = node(&redis, "redis.io_timeout = \"20s\"\n").await;
    let hurried = node(&redis, "redis.io_timeout = \"500ms\"\n").await;
    let mut listener = Client::subscribed(patient.clients, "listener", "a").await;
    let mut speaker = Client::connected(patient.clients, "speaker").await;
    let mut refused = Client::connected(hurried.clients, "refused").await;
    redis.kill();
    misses_redis(&patient).await;
    misses_redis(&hurried).await;
    let waiting = tokio::spawn(async move {
        let reply = speaker.ask(json!({"publish": {"channel": "a", "data": "waited"}})).await;
        (reply, speaker)
    });
    let begin = Instant::now();
    let reply = refused.ask(json!({"publish": {"channel": "a", "data": "lost"}})).await;
    assert_eq!(reply["error"]["code"], 100, "{reply}");
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    assert!(!waiting.is_finished());
    redis.restart();
    let (reply, speaker) = waiting.await.expect("the connection goes on");
    // The two connections of a node heal on their own: what is written before the room is heard again is not heard.
    assert_eq!(reply["publish"], json!({}), "{reply}");
    hears_redis(&patient).await;
    publish_when_possible(&hurried, "a", "heard").await;
    let mut heard = listener.hear("a").await;
    if heard == "waited" {
        heard = listener.hear("a").await;
    }
    assert_eq!(heard, json!("heard"));
    drop((listener, speaker, refused));
    patient.stop().await;
    hurried.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_that_wait_for_a_stuck_redis_are_bounded_and_none_is_lost() {
    let redis = RedisServer::start();
    // If more than four were begun at a time, the queue would have to refuse some.
    let settings = "redis.io_timeout = \"30s\"\nredis.publish_queue = 4\nclient.pending_commands = 4\n\
                    client.ping_interval = \"1s\"\nclient.pong_timeout = \"600ms\"\n";
    let node = node(&redis, settings).await;
    let mut listener = Client::subscribed(node.clients, "listener", "a").await;
    let mut speaker = Client::subscribed(node.clients, "speaker", "b").await;
    redis.pause();
    let publishing = tokio::spawn(async move {
        let all = (0..40).map(|n| ("a".to_owned(), json!(n))).collect();
        (publish_all(&mut speaker, all).await, speaker)
    });
    // Pings go on on both connections, and an unread pong is no reason to close one.
    for _ in 0..3 {
        assert_eq!(listener.next().await, json!({}));
        listener.send("{}").await;
    }
    assert!(!publishing.is_finished());
    redis.resume();
    let (replies, mut speaker) = publishing.await.expect("the connection goes on");
    assert!(replies.iter().all(|reply| reply["publish"].is_object()), "{replies:?}");
    for n in 0..40 {
        assert_eq!(listener.hear("a").await, json!(n));
    }
    speaker.subscribe("c").await;
    drop((listener, speaker));
    node.stop().await;
}

/// Stands between a node and Redis, and can hold back what a connection publishes; what is subscribed passes.
async fn holding_proxy(redis: &RedisServer) -> (String, watch::Sender<bool>) {
    let target = redis.port().expect("over TCP");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("redis://{}", listener.local_addr().expect("bound"));
    let (switch, state) = watch::channel(false);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else { continue };
            let ((mut from, mut back), (mut answers, to)) = (client.into_split(), server.into_split());
            tokio::spawn(async move { tokio::io::copy(&mut answers, &mut back).await });
            let state = state.clone();
            tokio::spawn(async move { pass(&mut from, to, state).await });
        }
    });
    (url, switch)
}

async fn pass(from: &mut tcp::OwnedReadHalf, mut to: tcp::OwnedWriteHalf, mut state: watch::Receiver<bool>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if buffer[..length].windows(7).any(|bytes| bytes == b"PUBLISH") {
            let _ = state.wait_for(|holds| !holds).await;
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_whose_commands_wait_still_hears_its_rooms() {
    let redis = RedisServer::start();
    let (url, holding) = holding_proxy(&redis).await;
    let stuck = start(&url, "redis.io_timeout = \"30s\"\nclient.pending_commands = 1\n");
    hears_redis(&stuck).await;
    let other = node(&redis, "").await;
    let mut client = Client::subscribed(stuck.clients, "ann", "a").await;
    holding.send_replace(true);
    for id in [101, 102, 103] {
        client.send(&json!({"id": id, "publish": {"channel": "a", "data": id}}).to_string()).await;
    }
    for n in 0..5 {
        other.publish("a", &json!(n)).await;
        assert_eq!(client.next().await["push"]["pub"]["data"], json!(n));
    }
    holding.send_replace(false);
    let (mut said, mut answered) = (Vec::new(), Vec::new());
    while said.len() < 3 || answered.len() < 3 {
        let message = client.next().await;
        said.extend(message["push"]["pub"]["data"].as_u64());
        answered.extend(message["id"].as_u64().filter(|_| message["publish"].is_object()));
    }
    assert_eq!((said, answered), (vec![101, 102, 103], vec![101, 102, 103]));
    drop(client);
    stuck.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_starts_without_redis_and_heals_when_it_comes() {
    let mut redis = RedisServer::start();
    redis.kill();
    let node = start(&redis.url(), "redis.io_timeout = \"500ms\"\n");
    assert_eq!(ready(&node).await, (503, "starting: Redis has not been heard yet\n".to_owned()));
    assert_eq!(node.get("/livez").await.0, 200);
    assert_eq!(node.metric(CONNECTED).await, 0.0);
    // Clients are let in all the same; what needs Redis is refused.
    let mut client = Client::connected(node.clients, "ann").await;
    assert_eq!(client.ask(json!({"subscribe": {"channel": "a"}})).await["error"]["code"], 100);
    redis.restart();
    assert_eq!(until_ready(&node, 200).await, "ready\n");
    client.subscribe("a").await;
    publish_when_possible(&node, "a", "at last").await;
    assert_eq!(client.hear("a").await, json!("at last"));
    drop(client);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prefixes_keep_two_systems_on_one_redis_apart() {
    let redis = RedisServer::start();
    let (one, two) = (node(&redis, "redis.prefix = \"one\"\n").await, node(&redis, "redis.prefix = \"two\"\n").await);
    let mut ann = Client::subscribed(one.clients, "ann", "a").await;
    let mut ben = Client::subscribed(two.clients, "ben", "a").await;
    let wanted = ["one.room.a", "two.room.a"].map(str::to_owned);
    assert_eq!(channels(&redis), BTreeSet::from(wanted));
    one.publish("a", &json!("to one")).await;
    two.publish("a", &json!("to two")).await;
    assert_eq!((ann.hear("a").await, ben.hear("a").await), (json!("to one"), json!("to two")));
    assert!(ann.is_silent(Duration::from_millis(50)).await && ben.is_silent(Duration::from_millis(50)).await);
    drop((ann, ben));
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_is_used_and_a_wrong_one_heals_when_redis_takes_it() {
    let redis = RedisServer::start_with(&["--requirepass", "right"]);
    let port = redis.port().expect("over TCP");
    let right = start(&format!("redis://:right@127.0.0.1:{port}"), "");
    let wrong = start(&format!("redis://:wrong@127.0.0.1:{port}"), "redis.io_timeout = \"1s\"\n");
    hears_redis(&right).await;
    until("the wrong password is tried", || {
        let answers = redis.commands(&[&["AUTH", "right"], &["INFO", "errorstats"]]);
        answers[1].concat().contains("errorstat_WRONGPASS")
    })
    .await;
    assert_eq!(ready(&wrong).await.0, 503);
    let answers = redis.commands(&[&["AUTH", "right"], &["CONFIG", "SET", "requirepass", "wrong"]]);
    assert_eq!(answers[1], ["OK"]);
    assert_eq!(until_ready(&wrong, 200).await, "ready\n");
    // The connection that was let in with the old password goes on.
    let mut client = Client::subscribed(right.clients, "ann", "a").await;
    publish_when_possible(&wrong, "a", "across").await;
    assert_eq!(client.hear("a").await, json!("across"));
    drop(client);
    right.stop().await;
    wrong.stop().await;
}

/// Nobody says of the clients of a process that was killed that they are gone: they are present as long as their last renewal
/// holds, and no longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_a_killed_process_are_present_until_their_time_is_over() {
    const TTL: Duration = Duration::from_secs(4);
    let redis = RedisServer::start();
    let toml = "rooms.presence = true\nchannel.presence_ttl = \"4s\"\nchannel.presence_update_interval = \"500ms\"";
    let node = node(&redis, toml).await;
    let url = redis.url();
    let settings = [
        ("redis.url", url.as_str()),
        ("log.format", "json"),
        ("rooms.presence", "true"),
        ("channel.presence_ttl", "4s"),
        ("channel.presence_update_interval", "500ms"),
    ];
    let mut process = Process::start(&settings);
    let stays = Client::subscribed(node.clients, "ann", "lobby").await;
    let mut goes = Vec::new();
    for user in ["ben", "cem", "dan"] {
        // The process may not hear Redis yet.
        goes.push(loop {
            let mut client = Client::connected(process.clients, user).await;
            if client.ask(json!({"subscribe": {"channel": "lobby"}})).await["error"].is_null() {
                break client;
            }
        });
    }
    let entered = Instant::now();
    assert_eq!(present(&node).await, 4);
    tokio::time::sleep_until((entered + TTL).into()).await;
    assert_eq!(present(&node).await, 4, "they are renewed");
    process.signal("KILL");
    process.ended();
    let killed = Instant::now();
    let count = present(&node).await;
    assert!(count == 4 || killed.elapsed() > TTL / 2, "{count} are left at once: somebody took them out");
    tokio::time::sleep_until((killed + TTL).into()).await;
    assert_eq!(present(&node).await, 1, "no renewal is newer than the end of the process");
    drop((stays, goes));
    node.stop().await;
}

/// How many clients are in the lobby.
async fn present(node: &Gateway) -> u64 {
    let (_, answer) = node.api("presence_stats", &json!({"channel": "lobby"})).await;
    answer["result"]["num_clients"].as_u64().unwrap_or_else(|| panic!("{answer}"))
}
