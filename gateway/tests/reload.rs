//! Settings read again while the node runs: at SIGHUP, and when their file changes. Clients stay where they are.

mod common;

use std::{io::Write, path::PathBuf};

use common::{Client, PATIENCE, Process, http, json};
use tempfile::NamedTempFile;
use tokio::time::{Duration, Instant, sleep};

const OPEN: &str = "[[namespaces]]\nname = \"chat\"\nallow_subscribe_for_client = true\n";
const SHUT: &str = "[[namespaces]]\nname = \"chat\"\n";

fn file(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a directory for temporary files");
    file.write_all(text.as_bytes()).expect("it can be written");
    file
}

fn node(file: &NamedTempFile) -> Process {
    Process::start(&[("config", file.path().to_str().expect("a path in UTF-8")), ("log.format", "json")])
}

fn write(file: &NamedTempFile, text: &str) {
    std::fs::write(file.path(), text).expect("it can be written");
}

/// Waits until the log has said something so often.
async fn logged(node: &Process, what: &str, times: usize) {
    let deadline = Instant::now() + PATIENCE;
    while node.log().matches(what).count() < times {
        assert!(Instant::now() < deadline, "never said {what:?} {times} times:\n{}", node.log());
        sleep(Duration::from_millis(5)).await;
    }
}

const TAKEN: &str = "are taken anew";

async fn may_enter(client: &mut Client, room: &str) -> bool {
    client.ask(json!({"subscribe": {"channel": room}})).await["error"].is_null()
}

#[tokio::test]
async fn at_a_hangup_rules_are_taken_anew_and_nobody_is_disconnected() {
    let file = file(SHUT);
    let node = node(&file);
    let mut client = Client::subscribed(node.clients, "ann", "lobby").await;
    assert!(!may_enter(&mut client, "chat:1").await);
    write(&file, OPEN);
    node.signal("HUP");
    logged(&node, TAKEN, 1).await;
    assert!(may_enter(&mut client, "chat:1").await, "the rule is taken");
    client.publish("lobby", &json!("still here")).await;
}

#[tokio::test]
async fn a_faulty_file_changes_nothing_and_is_told_with_its_faults() {
    let file = file(OPEN);
    let node = node(&file);
    let mut client = Client::connected(node.clients, "ann").await;
    write(&file, "[[namespaces]]\nname = \"chat\"\nallow_subscribe_for_clients = true\n");
    node.signal("HUP");
    logged(&node, "the settings of before stay", 1).await;
    assert!(node.log().contains("did you mean namespaces.chat.allow_subscribe_for_client"), "{}", node.log());
    assert!(may_enter(&mut client, "chat:1").await, "the rules of before stand");
}

#[tokio::test]
async fn what_needs_a_restart_is_named() {
    let file = file("client.channel_limit = 5\n");
    let node = node(&file);
    write(&file, "client.channel_limit = 6\nchannel.max_length = 100\n");
    node.signal("HUP");
    logged(&node, "at the next start only: client.channel_limit, channel.max_length", 1).await;
}

#[tokio::test]
async fn a_changed_file_is_taken_without_a_signal_where_that_is_wanted() {
    let file = file(&format!("reload = true\n{SHUT}"));
    let node = node(&file);
    let mut client = Client::connected(node.clients, "ann").await;
    // As an orchestrator does it: another file under the same name.
    let next: PathBuf = file.path().with_extension("next");
    std::fs::write(&next, format!("reload = true\n{OPEN}")).expect("it can be written");
    std::fs::rename(&next, file.path()).expect("one directory");
    logged(&node, TAKEN, 1).await;
    assert!(may_enter(&mut client, "chat:1").await);
}

#[tokio::test]
async fn at_a_hangup_other_keys_are_good_and_nobody_is_disconnected() {
    let other = "another-secret-of-more-than-32-bytes";
    let file = file("");
    let node = node(&file);
    let mut ann = Client::subscribed(node.clients, "ann", "lobby").await;
    let signer = roomcast::auth::Signer::from_secret(other, None).expect("a secret");
    let token = signer.sign(&json!({"sub": "bob"})).expect("it signs");
    let mut early = Client::open(node.clients).await;
    early.send(&json!({"id": 1, "connect": {"token": token}}).to_string()).await;
    assert_eq!(early.closed().await.map(|(code, _)| code), Some(3500));
    write(&file, &format!("auth.hmac_previous_secret = {other:?}\n"));
    node.signal("HUP");
    logged(&node, TAKEN, 1).await;
    let mut bob = Client::open(node.clients).await;
    let reply = bob.ask(json!({"connect": {"token": token}})).await;
    assert!(reply["connect"]["client"].is_string(), "{reply}");
    ann.publish("lobby", &json!("still here")).await;
}

#[tokio::test]
async fn at_a_hangup_pages_of_other_origins_may_connect_and_nobody_is_disconnected() {
    const OLD: &str = "https://old.example";
    const NEW: &str = "https://new.example";
    let file = file(&format!("allowed_origins = [{OLD:?}]\n"));
    let node = node(&file);
    let refused = async |origin| {
        let headers = [("origin", origin)];
        let (status, head, _) = http::exchange(node.clients, "POST", "/connection/sse", &headers, b"{}").await;
        assert_eq!(status == 200, head.contains(&format!("access-control-allow-origin: {origin}")), "{head}");
        status == 403
    };
    let open = async |origin| Client::open_at(node.clients, "/connection/websocket", &[("origin", origin)]).await;
    let mut old = open(OLD).await;
    old.ask(json!({"connect": {"token": common::token(&json!({"sub": "ann"}))}})).await;
    old.subscribe("lobby").await;
    assert!(refused(NEW).await && !refused(OLD).await);
    write(&file, &format!("allowed_origins = [{NEW:?}]\n"));
    node.signal("HUP");
    logged(&node, TAKEN, 1).await;
    assert!(refused(OLD).await && !refused(NEW).await);
    let mut new = open(NEW).await;
    new.ask(json!({"connect": {"token": common::token(&json!({"sub": "ben"}))}})).await;
    new.subscribe("lobby").await;
    old.publish("lobby", &json!("still here")).await;
    assert_eq!(new.hear("lobby").await, json!("still here"));
}
