//! What the server API tells of all nodes: who is where, what was said, who is connected. Over memory, and with two nodes on
//! one Redis, where the node that is asked holds no client.

mod common;

use std::collections::BTreeSet;

use common::{Client, Gateway, PATIENCE, Value, json, redis::RedisServer};

const SETTINGS: &str = "rooms.presence = true\nrooms.history_size = 10\nrooms.history_ttl = \"1m\"\n\
                        [[namespaces]]\nname = \"plain\"\n";

struct Place {
    asked: Gateway,
    holding: Option<Gateway>,
    _redis: Option<RedisServer>,
}

impl Place {
    async fn both() -> [Self; 2] {
        let memory = Self { asked: Gateway::open(SETTINGS), holding: None, _redis: None };
        let redis = RedisServer::start();
        let settings = format!("redis.url = {:?}\n{SETTINGS}", redis.url());
        let (asked, holding) = (Gateway::open(&settings), Gateway::open(&settings));
        asked.ready().await;
        holding.ready().await;
        for node in [&asked, &holding] {
            until(node, "info", json!({}), |answer| {
                answer["result"]["nodes"].as_array().is_some_and(|all| all.len() == 2)
            })
            .await;
        }
        [memory, Self { asked, holding: Some(holding), _redis: Some(redis) }]
    }

    fn holding(&self) -> &Gateway {
        self.holding.as_ref().unwrap_or(&self.asked)
    }

    async fn ask(&self, method: &str, request: Value) -> Value {
        let (status, answer) = self.asked.api(method, &request).await;
        assert_eq!(status, 200, "{method} {request}: {answer}");
        answer
    }

    async fn stop(self) {
        self.asked.stop().await;
        if let Some(holding) = self.holding {
            holding.stop().await;
        }
    }
}

async fn until(node: &Gateway, method: &str, request: Value, wanted: impl Fn(&Value) -> bool) -> Value {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let (_, answer) = node.api(method, &request).await;
        if wanted(&answer) {
            return answer;
        }
        assert!(tokio::time::Instant::now() < deadline, "{method} {request} stays at {answer}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

fn keys(object: &Value) -> BTreeSet<String> {
    object.as_object().expect("an object").keys().cloned().collect()
}

async fn enter(node: &Gateway, user: &str, room: &str) -> Client {
    let mut client = Client::connected(node.clients, user).await;
    let reply = client.ask(json!({"subscribe": {"channel": room}})).await;
    assert!(reply["subscribe"].is_object(), "{reply}");
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn presence_is_told_whole_or_page_by_page() {
    for place in Place::both().await {
        let mut clients = Vec::new();
        for user in ["ann", "ann", "ben", "cid", "dan"] {
            clients.push(enter(place.holding(), user, "lobby").await);
        }
        let room = json!({"channel": "lobby"});
        let whole =
            until(&place.asked, "presence", room.clone(), |answer| keys(&answer["result"]["presence"]).len() == 5);
        let whole = keys(&whole.await["result"]["presence"]);
        let counts = json!({"result": {"num_clients": 5, "num_users": 4}});
        assert_eq!(place.ask("presence_stats", room).await, counts);
        let (mut found, mut cursor) = (BTreeSet::new(), String::new());
        loop {
            let page = place.ask("presence", json!({"channel": "lobby", "limit": 2, "cursor": cursor})).await;
            let page = &page["result"];
            assert!(keys(&page["presence"]).len() <= 2, "{page}");
            found.extend(keys(&page["presence"]));
            cursor = page["cursor"].as_str().unwrap_or("").to_owned();
            if cursor.is_empty() {
                break;
            }
        }
        assert_eq!(found, whole);
        for method in ["presence", "presence_stats", "history", "history_remove"] {
            for (room, code) in [("", 107), ("nope:x", 102), ("plain:x", 108)] {
                let answer = place.ask(method, json!({"channel": room})).await;
                assert_eq!(answer["error"]["code"], code, "{method} {room:?}: {answer}");
            }
        }
        drop(clients);
        place.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_is_told_from_either_end_and_forgotten() {
    for place in Place::both().await {
        for number in 1..=3 {
            let (_, answer) = place.holding().api("publish", &json!({"channel": "h", "data": number})).await;
            assert_eq!(answer["result"]["offset"], number, "{answer}");
        }
        let position = place.ask("history", json!({"channel": "h"})).await;
        let epoch = position["result"]["epoch"].clone();
        assert_eq!(position, json!({"result": {"publications": [], "epoch": epoch, "offset": 3}}));
        let offsets = async |mut request: Value| {
            request["channel"] = json!("h");
            let answer = place.ask("history", request).await;
            let publications = answer["result"]["publications"].as_array().cloned().expect("publications");
            publications.iter().map(|one| one["offset"].as_u64().expect("an offset")).collect::<Vec<_>>()
        };
        assert_eq!(offsets(json!({"limit": 2})).await, [1, 2]);
        assert_eq!(offsets(json!({"limit": 2, "reverse": true})).await, [3, 2]);
        assert_eq!(offsets(json!({"limit": -1, "since": {"offset": 1, "epoch": epoch}})).await, [2, 3]);
        assert_eq!(
            offsets(json!({"limit": -1, "since": {"offset": 3, "epoch": epoch}, "reverse": true})).await,
            [2, 1]
        );
        let strange = json!({"channel": "h", "limit": 1, "since": {"offset": 1, "epoch": "zzzzzzzz"}});
        assert_eq!(place.ask("history", strange.clone()).await["error"]["code"], 112);
        let headers = [("x-api-key", "test-api-key"), ("x-centrifugo-error-mode", "transport")];
        let body = strange.to_string();
        let status =
            common::http::request(place.asked.internal, "POST", "/api/history", &headers, body.as_bytes()).await.0;
        assert_eq!(status, 416);
        assert_eq!(place.ask("history_remove", json!({"channel": "h"})).await, json!({"result": {}}));
        let empty = place.ask("history", json!({"channel": "h", "limit": 5})).await;
        assert_eq!(empty, json!({"result": {"publications": [], "epoch": epoch, "offset": 3}}));
        place.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channels_and_info_tell_of_all_nodes() {
    for place in Place::both().await {
        let ann = enter(place.holding(), "ann", "list-a").await;
        let ben = enter(&place.asked, "ben", "list-a").await;
        let cid = enter(place.holding(), "cid", "list-b").await;
        let dan = enter(place.holding(), "dan", "other").await;
        let found = place.ask("channels", json!({"pattern": "list-*"})).await;
        assert_eq!(
            found,
            json!({"result": {"channels": {"list-a": {"num_clients": 2}, "list-b": {"num_clients": 1}}}})
        );
        assert_eq!(keys(&place.ask("channels", json!({})).await["result"]["channels"]).len(), 3);
        assert_eq!(place.ask("channels", json!({"pattern": "[a"})).await["error"]["code"], 107);
        let own = place.ask("info", json!({})).await["result"]["nodes"].clone();
        let own = own.as_array().expect("nodes");
        assert!(own[0]["broker_ms"].is_number() && own[1..].iter().all(|node| node.get("broker_ms").is_none()));
        let sum = |answer: &Value| {
            let nodes = answer["result"]["nodes"].as_array().expect("nodes").clone();
            nodes.iter().filter_map(|node| node["num_clients"].as_u64()).sum::<u64>()
        };
        until(&place.asked, "info", json!({}), |answer| sum(answer) == 4).await;
        drop((ann, ben, cid, dan));
        place.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_told_page_by_page() {
    for place in Place::both().await {
        let mut clients = vec![Client::connected(place.holding().clients, "ann").await];
        clients.push(Client::connected(place.asked.clients, "ann").await);
        for user in ["ben", "cid", "dan"] {
            clients.push(enter(place.holding(), user, "lobby").await);
        }
        let found = place.ask("connections", json!({"user": "ann"})).await["result"].clone();
        let all = found["connections"].as_object().expect("connections");
        assert_eq!(all.len(), 2);
        for one in all.values() {
            assert_eq!(
                (&one["user"], &one["transport"], &one["protocol"]),
                (&json!("ann"), &json!("websocket"), &json!("json"))
            );
        }
        let (mut found, mut cursor, mut pages) = (BTreeSet::new(), String::new(), 0);
        loop {
            let page = place.ask("connections", json!({"limit": 2, "cursor": cursor})).await["result"].clone();
            found.extend(keys(&page["connections"]));
            pages += 1;
            cursor = page["cursor"].as_str().unwrap_or("").to_owned();
            if cursor.is_empty() {
                break;
            }
        }
        assert_eq!((found.len(), pages), (5, 3));
        let client = found.first().expect("one").clone();
        let one = place.ask("connections", json!({"client": client})).await["result"].clone();
        assert_eq!(keys(&one["connections"]), BTreeSet::from([client]));
        drop(clients);
        place.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_found_by_their_rooms() {
    for place in Place::both().await {
        let ann = enter(place.holding(), "ann", "lobby").await;
        let ben = enter(place.holding(), "ben", "other").await;
        let found = place.ask("connections", json!({"channel": "lobby"})).await["result"]["connections"].clone();
        let found: Vec<_> = found.as_object().expect("connections").values().cloned().collect();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((&found[0]["user"], &found[0]["state"]), (&json!("ann"), &json!({"channels": {"lobby": {}}})));
        drop((ann, ben));
        place.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_holds_any_calls_one_after_the_other_or_all_at_once() {
    for place in Place::both().await {
        let commands = json!([
            {"publish": {"channel": "h", "data": 1}},
            {"publish": {"channel": "h", "data": 2}},
            {"history": {"channel": "h", "limit": 5}},
            {"history_remove": {"channel": "h"}},
            {"history": {"channel": "h", "limit": 5}},
            {"presence_stats": {"channel": "plain:x"}},
            {"rpc": {"method": "m"}},
        ]);
        let replies = place.ask("batch", json!({"commands": commands})).await["replies"].clone();
        assert_eq!(replies[2]["history"]["publications"].as_array().map(Vec::len), Some(2), "{replies}");
        assert_eq!(replies[4]["history"]["publications"], json!([]));
        assert_eq!((&replies[5]["error"]["code"], &replies[6]["error"]["code"]), (&json!(108), &json!(104)));
        let commands: Vec<_> =
            (0..100).map(|room| json!({"presence_stats": {"channel": format!("r{room}")}})).collect();
        let replies = place.ask("batch", json!({"commands": commands, "parallel": true})).await["replies"].clone();
        let none = json!({"presence_stats": {"num_clients": 0, "num_users": 0}});
        assert_eq!(replies, json!(vec![none; 100]));
        place.stop().await;
    }
}

#[tokio::test]
async fn the_description_can_be_had_without_a_key() {
    let node = Gateway::open("");
    let (status, text) = node.get("/api/openapi.json").await;
    assert_eq!(status, 200);
    let document: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(document["openapi"], "3.1.0");
    let paths = keys(&document["paths"]);
    assert_eq!(paths.len(), 19);
    for path in &paths {
        let method = path.strip_prefix("/api/").expect("a method");
        assert_eq!(node.api(method, &json!({})).await.0, 200, "{method} is there");
    }
    let mut references = Vec::new();
    collect(&document, &mut references);
    for reference in references {
        let pointer = reference.strip_prefix('#').expect("a reference within the document");
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
    node.stop().await;
}

fn collect(value: &Value, references: &mut Vec<String>) {
    match value {
        Value::Object(entries) => {
            for (name, value) in entries {
                match value {
                    Value::String(text) if name == "$ref" => references.push(text.clone()),
                    other => collect(other, references),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, references)),
        _ => {}
    }
}
