//! What a client may do in a room: by every rule, by capabilities, and in its own room; over memory, and a part over Redis.

mod common;

use common::{Client, Gateway, Value, json, redis::RedisServer, token};

const VERBS: [&str; 3] = ["publish", "presence", "history"];

/// Who a rule is for.
const WHOM: [&[&str]; 6] =
    [&[], &["anonymous"], &["client"], &["subscriber"], &["client", "anonymous"], &["subscriber", "anonymous"]];

/// A namespace for every verb and everybody it may be allowed to.
fn namespaces() -> String {
    let one = |verb: &str, whom: &[&str]| {
        let rules = whom.iter().map(|whom| format!("allow_{verb}_for_{whom} = true\n")).collect::<Vec<_>>().concat();
        let features = "presence = true\nhistory_size = 1\nhistory_ttl = \"60s\"\n";
        format!("[[namespaces]]\nname = \"{}\"\n{features}{rules}", name(verb, whom))
    };
    VERBS.iter().flat_map(|verb| WHOM.iter().map(move |whom| one(verb, whom))).collect()
}

fn name(verb: &str, whom: &[&str]) -> String {
    format!("{verb}-for-{}", whom.join("-"))
}

/// A client that is in these rooms without having asked.
async fn put_into(node: &Gateway, user: &str, rooms: &[String]) -> Client {
    let mut client = Client::open(node.clients).await;
    let claims = json!({"sub": user, "channels": rooms});
    let reply = client.ask(json!({"connect": {"token": token(&claims)}})).await;
    assert!(reply["connect"].is_object(), "{reply}");
    client
}

/// 0, or the code of the error.
async fn code_of(client: &mut Client, verb: &str, room: &str) -> u64 {
    let mut request = json!({"channel": room});
    if verb == "publish" {
        request["data"] = json!({});
    }
    let mut command = json!({});
    command[verb] = request;
    let reply = client.ask(command).await;
    assert_eq!(reply["error"].is_object(), reply[verb].is_null(), "{reply}");
    reply["error"]["code"].as_u64().unwrap_or(0)
}

async fn every_rule(settings: &str) {
    let node = Gateway::start(&format!("{settings}\n{}", namespaces()));
    node.ready().await;
    let all: Vec<_> = VERBS.iter().flat_map(|verb| WHOM.iter().map(|whom| name(verb, whom) + ":r")).collect();
    for user in ["ann", ""] {
        for inside in [true, false] {
            let mut client = put_into(&node, user, if inside { &all } else { &[] }).await;
            for (verb, whom) in VERBS.iter().flat_map(|verb| WHOM.iter().map(move |whom| (verb, whom))) {
                let has = |who| whom.contains(&who);
                let known = !user.is_empty() || has("anonymous");
                let allowed = known && (has("client") || (has("subscriber") && inside));
                let code = code_of(&mut client, verb, &(name(verb, whom) + ":r")).await;
                assert_eq!(code, if allowed { 0 } else { 103 }, "{verb} for {whom:?}, user {user:?}, inside {inside}");
            }
        }
    }
}

#[tokio::test]
async fn what_may_be_done_in_a_room_follows_its_rules() {
    every_rule("").await;
}

#[tokio::test]
async fn the_same_over_redis() {
    let redis = RedisServer::start();
    every_rule(&format!("redis.url = {:?}", redis.url())).await;
}

#[tokio::test]
async fn who_may_enter_follows_rules_names_and_users() {
    let settings = r#"
[[namespaces]]
name = "none"
[[namespaces]]
name = "client"
allow_subscribe_for_client = true
[[namespaces]]
name = "both"
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
[[namespaces]]
name = "anonymous"
allow_subscribe_for_anonymous = true
[[namespaces]]
name = "users"
allow_user_limited_channels = true
[[namespaces]]
name = "usersopen"
allow_user_limited_channels = true
allow_subscribe_for_client = true
[[namespaces]]
name = "regex"
allow_subscribe_for_client = true
channel_regex = "^[a-z]+$"
"#;
    let node = Gateway::start(settings);
    // Room, and what becomes of it for a known user and for an anonymous one.
    let cases = [
        ("none:a", 103, 103),
        ("client:a", 0, 103),
        ("both:a", 0, 0),
        ("anonymous:a", 103, 103),
        ("$both:a", 103, 103),
        ("users:a#ann", 0, 103),
        ("users:a#bob,ann", 0, 103),
        ("users:a#bob", 103, 103),
        ("users:a#", 103, 103),
        ("users:a", 103, 103),
        ("usersopen:a#bob", 103, 103),
        ("usersopen:a", 0, 103),
        ("client:a#bob", 0, 103),
        ("regex:abc", 0, 103),
        ("regex:ab1", 107, 107),
        ("client:é", 107, 107),
        ("nowhere:a", 102, 102),
    ];
    let (mut ann, mut nobody) = (put_into(&node, "ann", &[]).await, put_into(&node, "", &[]).await);
    for (room, for_user, for_anonymous) in cases {
        assert_eq!(code_of(&mut ann, "subscribe", room).await, for_user, "{room} for a user");
        assert_eq!(code_of(&mut nobody, "subscribe", room).await, for_anonymous, "{room} for nobody");
    }
}

#[tokio::test]
async fn capabilities_allow_what_rules_do_not() {
    let node = Gateway::start("rooms.presence = true\nrooms.history_size = 1\nrooms.history_ttl = \"60s\"\n");
    for (spelling, verb) in [("sub", "subscribe"), ("pub", "publish"), ("prs", "presence"), ("hst", "history")] {
        let caps = json!([{"channels": ["a*", "$a*"], "match": "wildcard", "allow": [spelling]}]);
        let mut client = Client::open(node.clients).await;
        let claims = json!({"sub": "ann", "caps": caps});
        client.ask(json!({"connect": {"token": token(&claims)}})).await;
        for other in ["publish", "presence", "history", "subscribe"] {
            for (room, named) in [("abc", true), ("$abc", true), ("b", false)] {
                let code = code_of(&mut client, other, room).await;
                let wanted = if named && other == verb { 0 } else { 103 };
                assert_eq!(code, wanted, "{other} in {room} with {spelling}");
            }
        }
    }
}

#[tokio::test]
async fn what_a_room_does_not_keep_is_not_available() {
    let node = Gateway::open("rooms.allow_presence_for_client = true\nrooms.allow_history_for_client = true\n");
    let mut client = put_into(&node, "ann", &[]).await;
    for verb in ["presence", "presence_stats", "history"] {
        assert_eq!(code_of(&mut client, verb, "r").await, 108, "{verb}");
        assert_eq!(code_of(&mut client, verb, "nowhere:r").await, 102, "{verb}");
        assert_eq!(code_of(&mut client, verb, "é").await, 107, "{verb}");
    }
}

async fn presence_of(settings: &str) {
    let rules = "rooms.presence = true\nrooms.allow_presence_for_subscriber = true\n";
    let node = Gateway::open(&format!("{rules}{settings}"));
    node.ready().await;
    let mut ann = Client::open(node.clients).await;
    let claims = json!({"sub": "ann", "info": {"n": 1}});
    let reply = ann.ask(json!({"connect": {"token": token(&claims)}})).await;
    let id = reply["connect"]["client"].as_str().expect("an id").to_owned();
    ann.subscribe("r").await;
    let mut second = Client::subscribed(node.clients, "ann", "r").await;
    let nobody = put_into(&node, "", &["r".to_owned()]).await;
    let stats = ann.ask(json!({"presence_stats": {"channel": "r"}})).await;
    assert_eq!(stats["presence_stats"], json!({"num_clients": 3, "num_users": 2}));
    let present = second.ask(json!({"presence": {"channel": "r"}})).await["presence"]["presence"].clone();
    assert_eq!(present.as_object().map(serde_json::Map::len), Some(3));
    assert_eq!(present[&id], json!({"user": "ann", "client": id, "conn_info": {"n": 1}}));
    drop(nobody);
    let gone = async {
        while second.ask(json!({"presence_stats": {"channel": "r"}})).await["presence_stats"]["num_clients"] != 2 {}
    };
    tokio::time::timeout(common::PATIENCE, gone).await.expect("who has gone is not there any more");
}

#[tokio::test]
async fn everybody_in_a_room_is_told() {
    presence_of("").await;
}

#[tokio::test]
async fn everybody_in_a_room_is_told_over_redis() {
    let redis = RedisServer::start();
    presence_of(&format!("redis.url = {:?}\n", redis.url())).await;
}

#[tokio::test]
async fn more_who_are_there_than_may_wait_for_a_client_are_an_error_and_counted_all_the_same() {
    let node = Gateway::open(
        "client.queue_max_size = \"20KB\"\nwebsocket.message_size_limit = \"20KB\"\nrooms.presence = true\n\
         rooms.allow_presence_for_client = true\n",
    );
    let info = "x".repeat(4000);
    let mut clients = Vec::new();
    for number in 0..6 {
        let mut client = Client::open(node.clients).await;
        let claims = json!({"sub": format!("u{number}"), "info": info});
        client.ask(json!({"connect": {"token": token(&claims)}})).await;
        client.subscribe("r").await;
        clients.push(client);
    }
    let mut one = clients.pop().expect("there are some");
    assert_eq!(code_of(&mut one, "presence", "r").await, 106);
    let stats = one.ask(json!({"presence_stats": {"channel": "r"}})).await;
    assert_eq!(stats["presence_stats"]["num_clients"], 6);
}

#[tokio::test]
async fn every_connection_of_a_user_is_in_its_own_room_and_nobody_else() {
    let settings = "client.personal_rooms = true\nclient.personal_room_name = \"me:{user}\"\n\
                    rooms.allow_subscribe_for_client = true\n\
                    [[namespaces]]\nname = \"me\"\nallow_subscribe_for_client = true\nallow_publish_for_subscriber = true\n";
    let node = Gateway::start(settings);
    let mut two = Vec::new();
    for _ in 0..2 {
        let mut client = Client::open(node.clients).await;
        let reply = client.ask(json!({"connect": {"token": token(&json!({"sub": "ann"}))}})).await;
        assert_eq!(reply["connect"]["subs"], json!({"me:ann": {}}));
        two.push(client);
    }
    node.publish("me:ann", &json!("for ann")).await;
    for client in &mut two {
        assert_eq!(client.hear("me:ann").await, json!("for ann"));
        assert_eq!(code_of(client, "subscribe", "me:ann").await, 105, "it is there already");
        assert_eq!(code_of(client, "subscribe", "me:bob").await, 103);
        assert_eq!(code_of(client, "publish", "me:ann").await, 0, "the rules of the namespace hold");
    }
    let mut nobody = Client::open(node.clients).await;
    let reply = nobody.ask(json!({"connect": {"token": token(&json!({"sub": ""}))}})).await;
    assert_eq!(reply["connect"]["subs"], Value::Null);
    assert_eq!(code_of(&mut nobody, "subscribe", "me:").await, 103);
    let claims = json!({"sub": "ann", "channel": "me:bob"});
    let reply = two[0].ask(json!({"subscribe": {"channel": "me:bob", "token": token(&claims)}})).await;
    assert_eq!(reply["subscribe"], json!({}), "a token opens it");
}

#[tokio::test]
async fn a_user_whose_own_room_cannot_be_is_told_so() {
    let node = Gateway::start("client.personal_rooms = true\n");
    let mut client = Client::open(node.clients).await;
    let reply = client.ask(json!({"connect": {"token": token(&json!({"sub": "é"}))}})).await;
    assert_eq!(reply["error"]["code"], 107);
}

/// A connection of a user, and what it was told of its rooms; `seen` is how far it has seen them.
async fn come(node: &Gateway, user: &str, seen: Value) -> (Client, Value) {
    let mut client = Client::open(node.clients).await;
    let reply = client.ask(json!({"connect": {"token": token(&json!({"sub": user})), "subs": seen}})).await;
    (client, reply["connect"]["subs"].clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_connections_of_a_user_are_in_one_room_whichever_node_they_are_on() {
    let redis = RedisServer::start();
    let settings = format!(
        "redis.url = {:?}\nclient.personal_rooms = true\nrooms.allow_subscribe_for_client = true\n\
         rooms.allow_publish_for_subscriber = true\n",
        redis.url()
    );
    let nodes = [Gateway::start(&settings), Gateway::start(&settings)];
    let mut clients = Vec::new();
    for node in &nodes {
        node.ready().await;
        let (client, subs) = come(node, "ann", json!({})).await;
        assert_eq!(subs, json!({"#ann": {}}), "the usual name");
        clients.push(client);
        let (mut ben, subs) = come(node, "ben", json!({})).await;
        assert_eq!(subs, json!({"#ben": {}}));
        assert_eq!(code_of(&mut ben, "subscribe", "#ann").await, 103);
        assert_eq!(code_of(&mut ben, "publish", "#ann").await, 103);
    }
    nodes[1].publish("#ann", &json!("to all")).await;
    for client in &mut clients {
        assert_eq!(client.hear("#ann").await, json!("to all"));
    }
    clients[0].publish("#ann", &json!("to my devices")).await;
    assert_eq!(clients[1].hear("#ann").await, json!("to my devices"));
    drop(clients);
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_said_to_a_user_who_is_away_is_there_when_it_comes_back() {
    let redis = RedisServer::start();
    let inbox = "client.personal_rooms = true\nclient.personal_room_name = \"inbox:{user}\"\n\
                 [[namespaces]]\nname = \"inbox\"\nhistory_size = 10\nhistory_ttl = \"60s\"\nforce_recovery = true\n";
    let settings = format!("redis.url = {:?}\n{inbox}", redis.url());
    for nodes in [vec![Gateway::start(inbox)], vec![Gateway::start(&settings), Gateway::start(&settings)]] {
        let (first, last) = (&nodes[0], nodes.last().expect("there is one"));
        first.ready().await;
        last.ready().await;
        let (mut client, subs) = come(first, "ann", json!({})).await;
        assert_eq!((&subs["inbox:ann"]["recoverable"], &subs["inbox:ann"]["positioned"]), (&json!(true), &json!(true)));
        let epoch = subs["inbox:ann"]["epoch"].clone();
        let say = async |data| {
            let (_, answer) = last.api("publish", &json!({"channel": "inbox:ann", "data": data})).await;
            assert_eq!((&answer["result"]["offset"], &answer["result"]["epoch"]), (&json!(data), &epoch), "{answer}");
        };
        say(1).await;
        assert_eq!(client.hear("inbox:ann").await, json!(1));
        drop(client);
        say(2).await;
        say(3).await;
        let seen = json!({"inbox:ann": {"recover": true, "epoch": epoch, "offset": 1}});
        let (mut client, subs) = come(last, "ann", seen).await;
        let missed = subs["inbox:ann"]["publications"].as_array().cloned().unwrap_or_default();
        let missed: Vec<_> = missed.iter().map(|said| said["data"].clone()).collect();
        assert_eq!((&subs["inbox:ann"]["recovered"], missed), (&json!(true), vec![json!(2), json!(3)]), "{subs}");
        say(4).await;
        assert_eq!(client.hear("inbox:ann").await, json!(4));
        drop(client);
        for node in nodes {
            node.stop().await;
        }
    }
}
