//! Entering and leaving rooms, and speaking in them: what is asked before what, and who may.

mod common;

use std::{fmt::Write, time::Duration};

use common::{Client, Gateway, Value, json, redis::RedisServer, token};
use futures_util::future::join_all;

/// Rules that differ from room to room.
const RULES: &str = r#"
[[namespaces]]
name = "read"
allow_subscribe_for_client = true
[[namespaces]]
name = "speak"
allow_publish_for_client = true
[[namespaces]]
name = "listen"
allow_subscribe_for_client = true
allow_publish_for_subscriber = true
[[namespaces]]
name = "all"
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
allow_publish_for_client = true
allow_publish_for_anonymous = true
[[namespaces]]
name = "users"
allow_user_limited_channels = true
[[namespaces]]
name = "both"
allow_user_limited_channels = true
allow_subscribe_for_client = true
[[namespaces]]
name = "closed"
"#;

#[tokio::test]
async fn an_empty_channel_is_a_bad_request() {
    let node = Gateway::open("");
    for method in ["subscribe", "unsubscribe", "publish", "presence", "presence_stats", "history", "sub_refresh"] {
        for request in [json!({}), json!({"channel": ""}), json!({"channel": null, "data": 1})] {
            let mut client = Client::connected(node.clients, "ann").await;
            client.send(&json!({"id": 2, method: request}).to_string()).await;
            assert_eq!(client.ended().await, Some((3501, "bad request".to_owned())), "{method}");
        }
    }
    node.stop().await;
}

/// Each request breaks the rule it is refused by and every later one.
#[tokio::test]
async fn the_checks_of_a_subscribe_come_in_their_order() {
    let node = Gateway::open(&format!("client.channel_limit = 2\nchannel.max_length = 40\n{RULES}"));
    let mut client = Client::connected(node.clients, "ann").await;
    let long = format!("nope:{}", "é".repeat(20));
    client.subscribe("a").await;
    assert_eq!(refusal(&mut client, "nope:é").await, 102, "the namespace before the letters");
    assert_eq!(refusal(&mut client, "closed:é").await, 107, "the letters before the rules");
    client.subscribe("b").await;
    assert_eq!(refusal(&mut client, &long).await, 107, "the length before all others");
    assert_eq!(refusal(&mut client, "a").await, 105, "being in the room before the limit");
    assert_eq!(refusal(&mut client, "nope:é").await, 106, "the limit before the namespace");
    let reply = client.ask(json!({"subscribe": {"channel": "c"}})).await;
    assert_eq!(reply["error"], json!({"code": 106, "message": "limit exceeded"}));
    assert_eq!(client.ask(json!({"unsubscribe": {"channel": "a"}})).await["unsubscribe"], json!({}));
    client.subscribe("c").await;
    drop(client);
    node.stop().await;
}

#[tokio::test]
async fn names_have_their_length() {
    let node = Gateway::open("");
    let mut client = Client::connected(node.clients, "ann").await;
    client.subscribe(&"x".repeat(255)).await;
    assert_eq!(refusal(&mut client, &"x".repeat(256)).await, 107);
    assert_eq!(refusal(&mut client, &"é".repeat(128)).await, 107);
    drop(client);
    node.stop().await;
}

#[tokio::test]
async fn who_may_enter() {
    let node = Gateway::start(&format!("auth.allow_anonymous = true\n{RULES}"));
    let mut ann = Client::connected(node.clients, "ann").await;
    let mut nobody = Client::open(node.clients).await;
    assert!(nobody.ask(json!({"connect": {}})).await["connect"].is_object());
    // Room, what becomes of ann, and of a client without a user: 0 is entered.
    let cases = [
        ("lobby", 103, 103),
        ("read:a", 0, 103),
        ("speak:a", 103, 103),
        ("all:a", 0, 0),
        ("closed:a", 103, 103),
        ("$read:a", 103, 103),
        ("$all", 103, 103),
        ("users:a", 103, 103),
        ("users:a#ann", 0, 103),
        ("users:a#ben,ann", 0, 103),
        ("users:a#ben", 103, 103),
        ("users:a#ben#ann", 0, 103),
        ("users:a#ann#ben", 103, 103),
        ("users:a#", 103, 103),
        ("users:a#an", 103, 103),
        ("users:a#annann", 103, 103),
        ("both:a", 0, 103),
        ("both:a#ben", 103, 103),
        ("read:a#ben", 0, 103),
        ("nope:a", 102, 102),
    ];
    for (room, for_ann, for_nobody) in cases {
        assert_eq!(refusal(&mut ann, room).await, for_ann, "ann in {room}");
        assert_eq!(refusal(&mut nobody, room).await, for_nobody, "nobody in {room}");
    }
    drop((ann, nobody));
    node.stop().await;
}

#[tokio::test]
async fn who_may_speak() {
    let node = Gateway::start(&format!("auth.allow_anonymous = true\n{RULES}"));
    let mut ann = Client::connected(node.clients, "ann").await;
    let mut nobody = Client::open(node.clients).await;
    assert!(nobody.ask(json!({"connect": {}})).await["connect"].is_object());
    for room in ["listen:in", "read:in", "all:in"] {
        ann.subscribe(room).await;
    }
    nobody.subscribe("all:in").await;
    let cases = [
        ("lobby", 103, 103),
        ("read:in", 103, 103),
        ("speak:out", 0, 103),
        ("listen:in", 0, 103),
        ("listen:out", 103, 103),
        ("all:in", 0, 0),
        ("all:out", 0, 0),
        ("closed:out", 103, 103),
        ("nope:out", 102, 102),
        ("nope:é", 102, 102),
        ("all:é", 107, 107),
    ];
    for (room, for_ann, for_nobody) in cases {
        for (client, wanted) in [(&mut ann, for_ann), (&mut nobody, for_nobody)] {
            let reply = client.ask(json!({"publish": {"channel": room, "data": {"a": 1}}})).await;
            assert_eq!(code(&reply, "publish"), wanted, "{room}: {reply}");
        }
    }
    let reply = ann.ask(json!({"publish": {"channel": "all:in"}})).await;
    assert_eq!(reply["error"]["code"], 107, "nothing to say");
    drop((ann, nobody));
    node.stop().await;
}

#[tokio::test]
async fn without_security_anybody_may_do_anything_that_is_there() {
    let node = Gateway::start(&format!("client.insecure = true\n{RULES}"));
    let mut client = Client::open(node.clients).await;
    assert!(client.ask(json!({"connect": {}})).await["connect"].is_object());
    for room in ["lobby", "closed:a", "$read:a", "users:a#ben"] {
        client.subscribe(room).await;
        client.publish(room, &json!(1)).await;
    }
    assert_eq!(refusal(&mut client, "nope:a").await, 102);
    assert_eq!(refusal(&mut client, "lobby").await, 105);
    drop(client);
    node.stop().await;
}

#[tokio::test]
async fn leaving_is_no_error_and_then_there_is_silence() {
    let node = Gateway::open("");
    let mut client = Client::subscribed(node.clients, "ann", "lobby").await;
    let mut other = Client::subscribed(node.clients, "ben", "lobby").await;
    for room in ["never-entered", "nope:x", "lobby", "lobby", "é"] {
        assert_eq!(client.ask(json!({"unsubscribe": {"channel": room}})).await["unsubscribe"], json!({}), "{room}");
    }
    other.publish("lobby", &json!("gone?")).await;
    assert_eq!(other.hear("lobby").await, json!("gone?"));
    assert!(client.is_silent(Duration::from_millis(50)).await);
    let denied = client.ask(json!({"publish": {"channel": "lobby", "data": 1}})).await;
    assert_eq!(denied["error"]["code"], 103, "it is no subscriber any more");
    client.subscribe("lobby").await;
    other.publish("lobby", &json!("back")).await;
    assert_eq!(client.hear("lobby").await, json!("back"));
    drop((client, other));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connect_and_every_subscribe_may_stand_in_one_frame() {
    let redis = RedisServer::start();
    for broker in [String::new(), format!("redis.url = {:?}", redis.url())] {
        let node = Gateway::open(&broker);
        node.ready().await;
        let mut lines = json!({"id": 1, "connect": {"token": token(&json!({"sub": "ann"}))}}).to_string();
        for id in 2..=130 {
            let _ = write!(lines, "\n{}", json!({"id": id, "subscribe": {"channel": format!("room-{id}")}}));
        }
        let mut client = Client::open(node.clients).await;
        client.send(&lines).await;
        let mut replies = vec![Value::Null; 131];
        for _ in 1..=130 {
            let reply = client.next().await;
            let id = usize::try_from(reply["id"].as_u64().expect("a reply")).expect("it is small");
            assert!(replies[id].is_null(), "answered twice: {reply}");
            replies[id] = reply;
        }
        assert!(replies[1]["connect"].is_object());
        assert!(replies[2..130].iter().all(|reply| reply["subscribe"] == json!({})), "{replies:?}");
        assert_eq!(replies[130]["error"]["code"], 106, "one more than a client may have");
        node.publish("room-129", &json!(1)).await;
        assert_eq!(client.hear("room-129").await, json!(1));
        drop(client);
        node.stop().await;
    }
}

/// A room's first words never come before the answer that lets the client in, whoever speaks meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_reply_comes_before_what_is_said_in_the_room() {
    let redis = RedisServer::start();
    for broker in [String::new(), format!("redis.url = {:?}", redis.url())] {
        let node = Gateway::open(&format!("rooms.allow_publish_for_client = true\n{broker}"));
        node.ready().await;
        let mut speaker = Client::connected(node.clients, "speaker").await;
        // Keeps the room heard, so that it is entered at once also over Redis, in the midst of what is said.
        let keeper = Client::subscribed(node.clients, "keeper", "busy").await;
        let listeners = async {
            join_all((0..8).map(|_| enter_in_the_midst(&node))).await;
        };
        let speaking = async {
            for number in 0_u64.. {
                speaker.publish("busy", &json!(number)).await;
            }
        };
        let reading = drain(keeper);
        tokio::select! {
            () = listeners => {}
            () = speaking => {}
            () = reading => {}
        }
        drop(speaker);
        node.stop().await;
    }
}

/// Reads whatever comes, so that the client is not too slow.
async fn drain(mut client: Client) {
    while client.frame().await.is_some() {}
}

async fn enter_in_the_midst(node: &Gateway) {
    for _ in 0..20 {
        let mut client = Client::connected(node.clients, "ann").await;
        // The further rooms of the frame keep the node at work after it took the seat and before it answers.
        let mut lines = json!({"id": 500, "subscribe": {"channel": "busy"}}).to_string();
        for id in 501..600 {
            let _ = write!(lines, "\n{}", json!({"id": id, "subscribe": {"channel": format!("quiet-{id}")}}));
        }
        client.send(&lines).await;
        assert_eq!(client.next().await, json!({"id": 500, "subscribe": {}}), "the reply comes first");
        let mut last = None;
        for _ in 0..3 {
            let number = client.hear("busy").await.as_u64().expect("a number");
            assert!(last.is_none_or(|last| number == last + 1), "{number} after {last:?}");
            last = Some(number);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_speaks_and_leaves_in_one_frame_hears_itself() {
    let redis = RedisServer::start();
    for broker in [String::new(), format!("redis.url = {:?}", redis.url())] {
        let node = Gateway::open(&broker);
        node.ready().await;
        let mut client = Client::connected(node.clients, "ann").await;
        for round in 0..200 {
            client.subscribe("lobby").await;
            let publish = json!({"id": 900, "publish": {"channel": "lobby", "data": round}});
            let leave = json!({"id": 901, "unsubscribe": {"channel": "lobby"}});
            client.send(&format!("{publish}\n{leave}")).await;
            // Within one frame all replies come first. What is said after them is seen before the answer to one command more.
            let mut heard = false;
            for last in [901, 902] {
                if last == 902 {
                    client.send(r#"{"id":902,"unsubscribe":{"channel":"other"}}"#).await;
                }
                loop {
                    let message = client.next().await;
                    heard |= message["push"]["pub"]["data"] == round;
                    if message["id"] == last {
                        break;
                    }
                }
            }
            assert!(heard, "round {round} of {broker:?}: it left before it heard itself");
        }
        drop(client);
        node.stop().await;
    }
}

/// A room of many seats is delivered by a job, which may be under way when somebody leaves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_room_comes_after_the_answer_to_leaving_it() {
    let node = Gateway::open("rooms.allow_publish_for_client = true");
    let listeners = join_all((0..40).map(|_| Client::subscribed(node.clients, "ben", "busy"))).await;
    let mut speaker = Client::connected(node.clients, "cem").await;
    let talking = tokio::spawn(async move {
        loop {
            speaker.publish("busy", &json!("again")).await;
        }
    });
    let mut client = Client::connected(node.clients, "ann").await;
    for round in 0..150 {
        client.subscribe("busy").await;
        client.hear("busy").await;
        let left = client.ask(json!({"unsubscribe": {"channel": "busy"}})).await;
        assert_eq!(left["unsubscribe"], json!({}), "{left}");
        client.send(r#"{"id":900000,"unsubscribe":{"channel":"other"}}"#).await;
        let next = client.next().await;
        assert_eq!(next["id"], 900_000, "round {round}: {next}");
    }
    talking.abort();
    drop((client, listeners));
    node.stop().await;
}

/// While the commands of a frame run, what is said in rooms waits for their replies; it must not come after the one that says
/// that the client has left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_and_goes_in_one_frame_hears_between_the_answers_what_was_said_between() {
    let node = Gateway::open("rooms.join_leave = true\nrooms.force_push_join_leave = true");
    let mut client = Client::connected(node.clients, "ann").await;
    let enter = |id: u32| json!({"id": id, "subscribe": {"channel": "told"}});
    let leave = |id: u32| json!({"id": id, "unsubscribe": {"channel": "told"}});
    client.send(&format!("{}\n{}\n{}\n{}", enter(901), leave(902), enter(903), leave(904))).await;
    let mut heard = Vec::new();
    while heard.last() != Some(&"904".to_owned()) {
        let message = client.next().await;
        let is_join = message["push"]["join"]["info"]["user"] == "ann";
        heard.push(if is_join { "join".to_owned() } else { message["id"].to_string() });
    }
    assert_eq!(heard, ["901", "join", "902", "903", "join", "904"]);
    drop(client);
    node.stop().await;
}

/// The code a subscribe is refused with; 0 where it is not.
async fn refusal(client: &mut Client, room: &str) -> u64 {
    let reply = client.ask(json!({"subscribe": {"channel": room}})).await;
    code(&reply, "subscribe")
}

fn code(reply: &Value, method: &str) -> u64 {
    if reply[method] == json!({}) { 0 } else { reply["error"]["code"].as_u64().expect("an error") }
}
