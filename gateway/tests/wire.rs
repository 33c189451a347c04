//! Recorded conversations of the client protocol, in `wire/`: each is played in JSON, in Protobuf, and by clients of both, over
//! both brokers and over two nodes, and every reply, push, close and API answer has to come as it was recorded.
//!
//! A conversation is a list of `steps`: what it does (`open`, `send`, `close`, `api`), and in `got` what came of it, by connection:
//! `replies` by command id, `pushes` in order, `close` as code and reason. `{r}` stands for a suffix of the run's own,
//! `{client:A}` for an id that was given, `{"$token": …}` for a token of these claims with times relative to now. What
//! differs from run to run is named or left out before comparing.

mod common;
mod wire_play;

use std::path::Path;

use common::{Gateway, Value, redis::RedisServer};
use futures_util::future::join_all;
use wire_play::{Play, Speech};

/// The settings of the server they were recorded from.
const SETTINGS: &str = r#"
auth.hmac_secret = "a-secret-for-recorded-conversations-0123456789"
allowed_origins = ["*"]
rooms.allow_subscribe_for_client = true
rooms.allow_publish_for_subscriber = true
[[namespaces]]
name = "open"
allow_subscribe_for_client = true
allow_publish_for_subscriber = true
allow_presence_for_subscriber = true
allow_history_for_subscriber = true
presence = true
join_leave = true
force_push_join_leave = true
history_size = 10
history_ttl = "300s"
allow_positioning = true
allow_recovery = true
[[namespaces]]
name = "rec"
allow_subscribe_for_client = true
allow_publish_for_subscriber = true
allow_history_for_subscriber = true
history_size = 10
history_ttl = "300s"
force_recovery = true
[[namespaces]]
name = "small"
allow_subscribe_for_client = true
history_size = 3
history_ttl = "300s"
force_recovery = true
[[namespaces]]
name = "pos"
allow_subscribe_for_client = true
history_size = 10
history_ttl = "300s"
force_positioning = true
[[namespaces]]
name = "cache"
allow_subscribe_for_client = true
history_size = 1
history_ttl = "300s"
force_recovery = true
force_recovery_mode = "cache"
[[namespaces]]
name = "tags"
allow_subscribe_for_client = true
allow_tags_filter = true
history_size = 10
history_ttl = "300s"
force_recovery = true
[[namespaces]]
name = "closed"
[[namespaces]]
name = "users"
allow_user_limited_channels = true
"#;

/// How many conversations there are, so that none goes missing.
const CONVERSATIONS: usize = 69;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_memory() {
    play(vec![node("").await]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_redis() {
    let redis = RedisServer::start();
    play(vec![node(&format!("redis.url = {:?}", redis.url())).await]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_two_nodes() {
    let redis = RedisServer::start();
    let settings = format!("redis.url = {:?}", redis.url());
    play(vec![node(&settings).await, node(&settings).await]).await;
}

async fn node(settings: &str) -> Gateway {
    let node = Gateway::start(&format!("{settings}\n{SETTINGS}"));
    node.ready().await;
    node
}

/// Plays every conversation in every encoding, and compares what came with what was recorded, and between the encodings.
async fn play(nodes: Vec<Gateway>) {
    let recordings = recordings();
    assert_eq!(recordings.len(), CONVERSATIONS);
    let in_json = play_all(&nodes, &recordings, Speech::Json).await;
    let mut faults = Vec::new();
    for ((name, steps), came) in recordings.iter().zip(&in_json) {
        faults.extend(
            difference(steps, &recorded(steps), came).map(|fault| format!("{name}, recorded and played: {fault}")),
        );
    }
    for speech in [Speech::Protobuf, Speech::Both] {
        let spoken = play_all(&nodes, &recordings, speech).await;
        for (((name, steps), came), in_json) in recordings.iter().zip(&spoken).zip(&in_json) {
            let fault = difference(steps, in_json, came);
            faults.extend(fault.map(|fault| format!("{name}, JSON and {speech:?}: {fault}")));
        }
    }
    assert!(faults.is_empty(), "{} differences\n{}", faults.len(), faults.join("\n"));
    for node in nodes {
        node.stop().await;
    }
}

/// What came of each step of each.
async fn play_all(nodes: &[Gateway], recordings: &[(String, Vec<Value>)], speech: Speech) -> Vec<Vec<Value>> {
    let plays = recordings.iter().enumerate().map(|(number, (_, steps))| {
        let suffix = format!("{number}x{speech:?}x{}", std::process::id());
        Play::new(nodes, speech, suffix).steps(steps)
    });
    join_all(plays).await
}

fn recorded(steps: &[Value]) -> Vec<Value> {
    steps.iter().map(|step| step["got"].clone()).collect()
}

/// The first step of which something else came.
fn difference(steps: &[Value], one: &[Value], other: &[Value]) -> Option<String> {
    let place = one.iter().zip(other).position(|(one, other)| one != other).or_else(|| {
        let shorter = one.len().min(other.len());
        (one.len() != other.len()).then_some(shorter)
    })?;
    let mut does = steps[place].clone();
    does.as_object_mut().expect("a step is an object").remove("got");
    let shown = |came: &[Value]| came.get(place).map_or("nothing".to_owned(), Value::to_string);
    Some(format!("step {} {does}\n  the one   {}\n  the other {}", place + 1, shown(one), shown(other)))
}

/// Name and steps of each.
fn recordings() -> Vec<(String, Vec<Value>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire");
    let files = std::fs::read_dir(folder).expect("the recordings are there");
    let mut all: Vec<_> = files.map(|file| read(&file.expect("a file").path())).collect();
    all.sort_by(|one, other| one.0.cmp(&other.0));
    all
}

fn read(path: &Path) -> (String, Vec<Value>) {
    let text = std::fs::read(path).expect("a recording can be read");
    let recorded: Value = serde_json::from_slice(&text).expect("a recording is JSON");
    let name = recorded["name"].as_str().expect("a recording has a name").to_owned();
    (name, recorded["steps"].as_array().expect("a recording has steps").clone())
}
