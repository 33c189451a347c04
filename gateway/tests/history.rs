//! What rooms remember: asking for it, saying things into it, and what a room asks of what is said in it.

mod common;

use std::time::Duration;

use common::{Client, Gateway, Value, json, redis::RedisServer};

const RULES: &str = r#"
[[namespaces]]
name = "open"
allow_subscribe_for_client = true
allow_publish_for_subscriber = true
allow_history_for_subscriber = true
history_size = 10
history_ttl = "5m"
[[namespaces]]
name = "large"
allow_history_for_client = true
history_size = 1000
history_ttl = "5m"
[[namespaces]]
name = "hidden"
allow_subscribe_for_client = true
history_size = 10
history_ttl = "5m"
[[namespaces]]
name = "none"
allow_subscribe_for_client = true
allow_history_for_client = true
[[namespaces]]
name = "watched"
allow_subscribe_for_client = true
allow_publish_for_client = true
force_positioning = true
history_size = 10
history_ttl = "5m"
echo = false
[[namespaces]]
name = "recovered"
allow_subscribe_for_client = true
allow_publish_for_client = true
force_recovery = true
history_size = 10
history_ttl = "5m"
echo = false
[[namespaces]]
name = "silent"
allow_subscribe_for_client = true
allow_publish_for_client = true
echo = false
[[namespaces]]
name = "json"
allow_publish_for_client = true
publication_data_format = "json"
[[namespaces]]
name = "object"
allow_publish_for_client = true
publication_data_format = "json_object"
[[namespaces]]
name = "bytes"
allow_publish_for_client = true
publication_data_format = "binary"
[[namespaces]]
name = "delta"
allow_subscribe_for_client = true
allow_publish_for_client = true
allowed_delta_types = ["fossil"]
delta_publish = true
[[namespaces]]
name = "whole"
allow_subscribe_for_client = true
allowed_delta_types = ["fossil"]
"#;

/// A node over memory, and one over a Redis that lives as long.
async fn each() -> [(Gateway, Option<RedisServer>); 2] {
    let redis = RedisServer::start();
    let over_redis = Gateway::start(&format!("redis.url = {:?}\n{RULES}", redis.url()));
    over_redis.ready().await;
    [(Gateway::start(RULES), None), (over_redis, Some(redis))]
}

/// Publishes over the API and gives the result.
async fn say(node: &Gateway, request: Value) -> Value {
    let (status, mut answer) = node.api("publish", &request).await;
    assert_eq!(status, 200);
    assert!(answer["result"].is_object(), "{answer}");
    answer["result"].take()
}

async fn history(client: &mut Client, mut request: Value, room: &str) -> Value {
    request["channel"] = room.into();
    client.ask(json!({"history": request})).await
}

fn offsets(reply: &Value) -> Vec<u64> {
    let publications = reply["history"]["publications"].as_array().expect("it is written even where it is empty");
    publications.iter().map(|publication| publication["offset"].as_u64().expect("an offset")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_of_a_history_are_given_as_asked() {
    for (node, _redis) in each().await {
        let mut client = Client::subscribed(node.clients, "ann", "open:a").await;
        let empty = history(&mut client, json!({"limit": 5}), "open:a").await;
        assert_eq!((offsets(&empty), &empty["history"]["offset"]), (vec![], &json!(0)), "{empty}");
        let epoch = empty["history"]["epoch"].clone();
        for number in 1..=5 {
            client.publish("open:a", &json!({"n": number})).await;
        }
        let since = |offset| json!({"offset": offset, "epoch": epoch});
        let cases = [
            (json!({}), vec![]),
            (json!({"limit": 0, "since": since(2)}), vec![]),
            (json!({"limit": 2}), vec![1, 2]),
            (json!({"limit": 100}), vec![1, 2, 3, 4, 5]),
            (json!({"limit": -1}), vec![1, 2, 3, 4, 5]),
            (json!({"limit": 2, "since": since(2)}), vec![3, 4]),
            (json!({"limit": 9, "since": since(5)}), vec![]),
            (json!({"limit": 9, "since": since(99)}), vec![]),
            (json!({"limit": 9, "since": {"offset": 3}}), vec![4, 5]),
            (json!({"limit": 2, "reverse": true}), vec![5, 4]),
            (json!({"limit": 9, "reverse": true, "since": since(3)}), vec![2, 1]),
        ];
        for (request, wanted) in cases {
            let reply = history(&mut client, request.clone(), "open:a").await;
            assert_eq!(offsets(&reply), wanted, "{request}");
            assert_eq!((&reply["history"]["offset"], &reply["history"]["epoch"]), (&json!(5), &epoch));
        }
        let reply = history(&mut client, json!({"limit": 1}), "open:a").await;
        let said = &reply["history"]["publications"][0];
        assert_eq!((&said["data"], &said["info"]["user"]), (&json!({"n": 1}), &json!("ann")));
        let elsewhere = json!({"limit": 5, "since": {"offset": 2, "epoch": "other"}});
        let reply = history(&mut client, elsewhere, "open:a").await;
        assert_eq!(reply["error"], json!({"code": 112, "message": "unrecoverable position"}));
        drop(client);
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_given_more_than_the_limit() {
    for (node, _redis) in each().await {
        for number in 1..=310 {
            say(&node, json!({"channel": "large:a", "data": number})).await;
        }
        let mut client = Client::connected(node.clients, "ann").await;
        for limit in [-1, 301, i32::MAX] {
            let reply = history(&mut client, json!({"limit": limit}), "large:a").await;
            assert_eq!(offsets(&reply), (1..=300).collect::<Vec<_>>());
        }
        drop(client);
        node.stop().await;
    }
}

#[tokio::test]
async fn the_checks_of_a_history_come_in_their_order() {
    let node = Gateway::start(RULES);
    let mut client = Client::subscribed(node.clients, "ann", "hidden:a").await;
    let cases =
        [("nope:é", 102), ("hidden:é", 107), ("none:a", 108), ("hidden:a", 103), ("open:a", 103), ("lobby", 108)];
    for (room, code) in cases {
        let reply = history(&mut client, json!({"limit": 1}), room).await;
        assert_eq!(reply["error"]["code"], code, "{room}: {reply}");
    }
    drop(client);
    node.stop().await;
}

/// The second command of the frame needs what the first one comes to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entering_speaking_and_asking_in_one_frame_is_in_order() {
    for (node, _redis) in each().await {
        let mut client = Client::connected(node.clients, "ann").await;
        for round in 0..20 {
            let room = format!("open:frame-{round}");
            let enter = json!({"id": 50, "subscribe": {"channel": room}});
            let speak = json!({"id": 51, "publish": {"channel": room, "data": round}});
            let ask = json!({"id": 52, "history": {"channel": room, "limit": 5}});
            client.send(&format!("{enter}\n{speak}\n{ask}")).await;
            let reply = loop {
                let message = client.next().await;
                assert_eq!(message["error"], Value::Null, "{message}");
                if message["id"] == 52 {
                    break message;
                }
            };
            assert_eq!(reply["history"]["publications"][0]["data"], round, "{reply}");
        }
        drop(client);
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_is_told_where_its_publication_stands() {
    for (node, _redis) in each().await {
        let mut client = Client::subscribed(node.clients, "ann", "open:a").await;
        let first = say(&node, json!({"channel": "open:a", "data": 1})).await;
        assert_eq!(first["offset"], 1);
        let epoch = &first["epoch"];
        assert!(epoch.as_str().is_some_and(|epoch| epoch.len() == 8), "{first}");
        let kept_out = say(&node, json!({"channel": "open:a", "data": 2, "skip_history": true})).await;
        assert_eq!(kept_out, json!({}));
        assert_eq!(say(&node, json!({"channel": "none:a", "data": 1})).await, json!({}));
        let (_, answer) = node.api("broadcast", &json!({"channels": ["open:a", "nope:a", "none:a"], "data": 3})).await;
        let responses = answer["result"]["responses"].as_array().expect("one for each room").clone();
        assert_eq!(responses[0]["result"], json!({"offset": 2, "epoch": epoch}));
        assert_eq!((&responses[1]["error"]["code"], &responses[2]["result"]), (&json!(102), &json!({})));
        let heard: Vec<_> = [client.next().await, client.next().await, client.next().await]
            .iter()
            .map(|push| (push["push"]["pub"]["data"].clone(), push["push"]["pub"]["offset"].clone()))
            .collect();
        assert_eq!(heard, [(json!(1), json!(1)), (json!(2), Value::Null), (json!(3), json!(2))]);
        assert_eq!(offsets(&history(&mut client, json!({"limit": 9}), "open:a").await), [1, 2]);
        drop(client);
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_said_twice_with_one_key_or_an_old_version_is_said_once() {
    for (node, _redis) in each().await {
        let mut client = Client::subscribed(node.clients, "ann", "open:a").await;
        let keyed = json!({"channel": "open:a", "data": "keyed", "idempotency_key": "k"});
        let first = say(&node, keyed.clone()).await;
        assert_eq!(first["offset"], 1);
        assert_eq!(say(&node, keyed).await, first, "answered as the first one was");
        assert_eq!(
            say(&node, json!({"channel": "open:a", "data": "other", "idempotency_key": "l"})).await["offset"],
            2
        );
        let versioned = |version: u64, of: &str| json!({"channel": "open:a", "data": format!("{of}{version}"), "version": version, "version_epoch": of});
        assert_eq!(say(&node, versioned(5, "v")).await["offset"], 3);
        for old in [5, 4] {
            assert_eq!(say(&node, versioned(old, "v")).await["offset"], 3, "version {old}");
        }
        assert_eq!(say(&node, versioned(6, "v")).await["offset"], 4);
        assert_eq!(say(&node, versioned(1, "w")).await["offset"], 5, "another epoch of versions begins anew");
        for wanted in ["keyed", "other", "v5", "v6", "w1"] {
            assert_eq!(client.hear("open:a").await, json!(wanted));
        }
        // Rooms without history have keys as well.
        let mut other = Client::subscribed(node.clients, "ben", "none:a").await;
        for (key, data) in [("k", 1), ("k", 2), ("l", 3)] {
            let answer = say(&node, json!({"channel": "none:a", "data": data, "idempotency_key": key})).await;
            assert_eq!(answer, json!({}));
        }
        assert_eq!((other.hear("none:a").await, other.hear("none:a").await), (json!(1), json!(3)));
        drop((client, other));
        node.stop().await;
    }
}

/// Also where the one that is not told has a position, which has to move on all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_there_is_no_echo_all_but_the_speaker_hear_it() {
    for (node, _redis) in each().await {
        for room in ["watched:a", "silent:a"] {
            let mut speaker = Client::connected(node.clients, "ann").await;
            let mut other = Client::connected(node.clients, "ben").await;
            for client in [&mut speaker, &mut other] {
                assert!(client.ask(json!({"subscribe": {"channel": room}})).await["subscribe"].is_object());
            }
            for number in 1..=3 {
                speaker.publish(room, &json!(number)).await;
                assert_eq!(other.hear(room).await, json!(number));
            }
            other.publish(room, &json!(4)).await;
            assert_eq!(speaker.next().await["push"]["pub"]["data"], 4, "of its own it heard nothing");
            assert!(other.is_silent(Duration::from_millis(50)).await);
        }
        node.stop().await;
    }
}

/// It was given back by recovery what it had not heard as an echo.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_there_is_no_echo_recovery_is_none_either_as_long_as_the_connection_lasts() {
    for (node, _redis) in each().await {
        let back = json!({"subscribe": {"channel": "recovered:a", "recover": true}});
        let given = |reply: &Value| {
            assert_eq!(reply["subscribe"]["recovered"], true, "{reply}");
            let all = reply["subscribe"]["publications"].as_array().cloned().unwrap_or_default();
            all.iter().map(|said| said["data"].clone()).collect::<Vec<_>>()
        };
        let mut speaker = Client::connected(node.clients, "ann").await;
        let mut other = Client::connected(node.clients, "ann").await;
        speaker.publish("recovered:a", &json!("own")).await;
        other.publish("recovered:a", &json!("of another")).await;
        say(&node, json!({"channel": "recovered:a", "data": "of nobody"})).await;
        assert_eq!(given(&speaker.ask(back.clone()).await), ["of another", "of nobody"]);
        assert_eq!(given(&other.ask(back.clone()).await), ["own", "of nobody"], "it is by connection, not by user");
        let mut again = Client::connected(node.clients, "ann").await;
        assert_eq!(given(&again.ask(back.clone()).await), ["own", "of another", "of nobody"]);
        drop((speaker, other, again));
        node.stop().await;
    }
}

#[tokio::test]
async fn a_room_takes_what_it_is_set_to_take() {
    let node = Gateway::start(RULES);
    let mut client = Client::connected(node.clients, "ann").await;
    let cases = [
        ("json:a", json!([1]), true),
        ("object:a", json!([1]), false),
        ("object:a", json!({"a": 1}), true),
        ("bytes:a", json!("x"), true),
    ];
    for (room, data, taken) in cases {
        let reply = client.ask(json!({"publish": {"channel": room, "data": data}})).await;
        assert_eq!(reply["publish"].is_object(), taken, "{room}: {reply}");
        let (_, answer) = node.api("publish", &json!({"channel": room, "data": data})).await;
        assert_eq!(answer["result"].is_object(), taken, "{room}: {answer}");
    }
    // Bytes that are no JSON, in base64.
    for (room, taken) in [("json:a", false), ("object:a", false), ("bytes:a", true), ("none:a", true)] {
        let (_, answer) = node.api("publish", &json!({"channel": room, "b64data": "/w=="})).await;
        assert_eq!(answer["result"].is_object(), taken, "{room}: {answer}");
    }
    let reply = client.ask(json!({"publish": {"channel": "object:a", "data": 1}})).await;
    assert_eq!(reply["error"], json!({"code": 107, "message": "bad request"}));
    drop(client);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deltas_are_told_where_the_room_or_the_publisher_says_so() {
    let long = |number: u64| json!({"text": "the same in every one of them, and long enough", "number": number});
    for (node, _redis) in each().await {
        for (room, asks) in [("delta:a", false), ("whole:a", true)] {
            let mut client = Client::connected(node.clients, "ann").await;
            let reply = client.ask(json!({"subscribe": {"channel": room, "delta": "fossil"}})).await;
            assert_eq!(reply["subscribe"]["delta"], true, "{reply}");
            for (number, patched) in [(1, false), (2, true), (3, true)] {
                say(&node, json!({"channel": room, "data": long(number), "delta": asks})).await;
                let push = client.next().await;
                assert_eq!(push["push"]["pub"]["delta"] == true, patched, "{room} {number}: {push}");
            }
            if asks {
                say(&node, json!({"channel": room, "data": long(4)})).await;
                let push = client.next().await;
                assert_eq!(push["push"]["pub"]["data"], json!(long(4).to_string()), "{push}");
            } else {
                let mut speaker = Client::connected(node.clients, "ben").await;
                speaker.publish(room, &long(4)).await;
                assert_eq!(client.next().await["push"]["pub"]["delta"], true);
            }
            drop(client);
        }
        node.stop().await;
    }
}
