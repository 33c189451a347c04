//! The protocol itself: which command may come when, what is answered to those that are not offered, and how messages lie in
//! frames, in both encodings.

mod common;

use bytes::Bytes;
use common::{Client, Gateway, Value, from_protobuf, json, redis::RedisServer, to_protobuf, token};
use roomcast_shared::protocol::{
    Encoding,
    command::{Command, PublishRequest},
};

#[tokio::test]
async fn the_first_command_is_connect() {
    let node = Gateway::open("");
    let firsts = [
        r#"{"id":1,"subscribe":{"channel":"lobby"}}"#,
        r#"{"id":1,"publish":{"channel":"lobby","data":1}}"#,
        r#"{"id":1,"unsubscribe":{"channel":"lobby"}}"#,
        r#"{"id":1,"refresh":{"token":"x"}}"#,
        r#"{"id":1,"rpc":{"method":"m"}}"#,
        r#"{"send":{"data":1}}"#,
        r#"{"id":1}"#,
        "{}",
        "[]",
        "1",
        "\n",
        r#"{"id":1,"connect":"#,
    ];
    for first in firsts {
        assert_eq!(ends_with(Client::open(node.clients).await, first).await, 3501, "{first}");
    }
    let without_an_id = json!({"connect": {"token": token(&json!({"sub": "ann"}))}}).to_string();
    assert_eq!(ends_with(Client::open(node.clients).await, &without_an_id).await, 3501, "connect needs an id");
    node.stop().await;
}

#[tokio::test]
async fn connect_comes_once() {
    let node = Gateway::open("");
    let connect = json!({"id": 1, "connect": {"token": token(&json!({"sub": "ann"}))}}).to_string();
    let mut client = Client::open(node.clients).await;
    client.send(&format!("{connect}\n{connect}")).await;
    assert!(client.next().await["connect"].is_object(), "the first is answered");
    assert_eq!(client.ended().await, Some((3501, "bad request".to_owned())));
    assert_eq!(ends_with(Client::connected(node.clients, "ann").await, &connect).await, 3501);
    node.stop().await;
}

#[tokio::test]
async fn what_is_no_command_ends_the_connection() {
    let node = Gateway::open("");
    let deep =
        format!("{{\"id\":2,\"publish\":{{\"channel\":\"a\",\"data\":{}1{}}}}}", "[".repeat(129), "]".repeat(129));
    let commands = [
        (r#"{"id":2,"teleport":{}}"#, 3501),
        (r#"{"id":2}"#, 3501),
        (r#"{"id":2,"ping":{}}"#, 3501),
        (r#"{"id":-1,"subscribe":{"channel":"a"}}"#, 3501),
        (r#"{"subscribe":{"channel":"a"}}"#, 3501),
        (r#"{"id":2,"subscribe":{"channel":7}}"#, 3501),
        ("hello", 3501),
        ("", 3501),
        (&deep, 3501),
        (r#"{"send":{"data":{"a":1}}}"#, 3508),
    ];
    for (command, code) in commands {
        assert_eq!(ends_with(Client::connected(node.clients, "ann").await, command).await, code, "{command}");
    }
    node.stop().await;
}

#[tokio::test]
async fn what_comes_with_later_versions_of_this_protocol_is_passed_over() {
    let node = Gateway::open("");
    let mut client = Client::connected(node.clients, "ann").await;
    let asked = json!({"subscribe": {"channel": "a", "positioned": true, "recoverable": true, "join_leave": true,
        "delta": "fossil", "flag": 1, "type": 0, "later": {"a": [1]}}, "more": null});
    assert_eq!(client.ask(asked).await["subscribe"], json!({}));
    drop(client);
    node.stop().await;
}

#[tokio::test]
async fn commands_that_no_room_offers_are_not_available() {
    let node = Gateway::open("");
    let mut client = Client::subscribed(node.clients, "ann", "lobby").await;
    for (room, code) in [("lobby", 107), ("elsewhere", 103)] {
        let reply = client.ask(json!({"sub_refresh": {"channel": room}})).await;
        assert_eq!(reply["error"]["code"], code, "without a token, sub_refresh of {room}: {reply}");
    }
    for method in ["presence", "presence_stats", "history"] {
        for (room, code) in [("lobby", 108), ("elsewhere", 108), ("nope:x", 102), ("nope:é", 102), ("é", 107)] {
            let reply = client.ask(json!({method: {"channel": room}})).await;
            assert_eq!(reply["error"]["code"], code, "{method} of {room}: {reply}");
        }
    }
    let reply = client.ask(json!({"rpc": {"method": "m", "data": {}}})).await;
    assert_eq!(reply["error"], json!({"code": 108, "message": "not available"}));
    drop(client);
    node.stop().await;
}

#[tokio::test]
async fn names_may_hold_what_json_escapes() {
    let node = Gateway::open("");
    let mut client = Client::connected(node.clients, "ann \"the\" \\ é").await;
    let room = "a\"b\\c/d\u{1}\u{7f}<>";
    client.send("{\"id\":7,\"subscribe\":{\"channel\":\"\\u0061\\\"b\\\\c\\/d\\u0001\u{7f}<>\"}}").await;
    assert_eq!(client.next().await, json!({"id": 7, "subscribe": {}}));
    let data = json!({"text": "line\nbreak \"quoted\" \u{1F600}"});
    client.send(&json!({"id": 8, "publish": {"channel": room, "data": data}}).to_string()).await;
    let push = loop {
        let message = client.next().await;
        if message["push"].is_object() {
            break message["push"].clone();
        }
    };
    assert_eq!((&push["channel"], &push["pub"]["data"]), (&json!(room), &data));
    assert_eq!(push["pub"]["info"]["user"], "ann \"the\" \\ é");
    drop(client);
    node.stop().await;
}

#[tokio::test]
async fn there_is_one_message_in_each_frame_and_it_is_one_line() {
    let node = Gateway::open("");
    let mut client = Client::connected(node.clients, "ann").await;
    let lines: Vec<_> = (2..7).map(|id| json!({"id": id, "subscribe": {"channel": "r"}}).to_string()).collect();
    client.send(&lines.join("\n")).await;
    for id in 2..7 {
        let frame = client.frame().await.expect("a reply");
        let reply: Value = serde_json::from_slice(&frame.payload).expect("one JSON text");
        assert_eq!((frame.opcode, &reply["id"]), (1, &json!(id)));
    }
    let body = "{\"channel\":\"r\",\"data\":{\n \"a\":\r\n [1,\n2] }}";
    let headers = [("x-api-key", "test-api-key")];
    let (status, answer) =
        common::http::request(node.internal, "POST", "/api/publish", &headers, body.as_bytes()).await;
    assert_eq!((status, answer.as_str()), (200, "{\"result\":{}}"));
    let frame = client.frame().await.expect("a publication");
    assert!(!frame.payload.iter().any(|byte| b"\r\n".contains(byte)), "{}", String::from_utf8_lossy(&frame.payload));
    let push: Value = serde_json::from_slice(&frame.payload).expect("one JSON text");
    assert_eq!(push["push"]["pub"]["data"], json!({"a": [1, 2]}));
    drop(client);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_encodings_meet_in_one_room() {
    let redis = RedisServer::start();
    for broker in [String::new(), format!("redis.url = {:?}", redis.url())] {
        let node = Gateway::open(&broker);
        node.ready().await;
        let mut json_client = Client::subscribed(node.clients, "jay", "lobby").await;
        let mut protobuf_client = protobuf(&node, "pro", "lobby").await;
        json_client.publish("lobby", &json!({"from": "json"})).await;
        let push = from_protobuf(&protobuf_client.frame().await.expect("a publication").payload);
        assert_eq!(
            (&push["push"]["channel"], &push["push"]["pub"]["data"]),
            (&json!("lobby"), &json!({"from": "json"}))
        );
        assert_eq!(push["push"]["pub"]["info"]["user"], "jay");
        // It hears itself, before or after the reply to its publish.
        tell(&mut protobuf_client, &json!({"id": 3, "publish": {"channel": "lobby", "data": [1, "two"]}})).await;
        loop {
            if json_client.hear("lobby").await == json!([1, "two"]) {
                break;
            }
        }
        drop((json_client, protobuf_client));
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_no_json_end_json_clients_only() {
    let redis = RedisServer::start();
    for broker in [String::new(), format!("redis.url = {:?}", redis.url())] {
        let node = Gateway::open(&broker);
        node.ready().await;
        for from_client in [false, true] {
            let json_client = Client::subscribed(node.clients, "jay", "lobby").await;
            let mut elsewhere = Client::subscribed(node.clients, "joy", "other").await;
            let mut listener = protobuf(&node, "pro", "lobby").await;
            if from_client {
                let mut speaker = protobuf(&node, "raw", "lobby").await;
                let request = PublishRequest {
                    channel: "lobby".to_owned(),
                    data: Bytes::from_static(b"\x00\xff{"),
                    ..PublishRequest::default()
                };
                let command = Command { id: 3, publish: Some(Box::new(request)), ..Command::default() };
                let mut message = Vec::new();
                Encoding::Protobuf.encode_command(&command, &mut message).expect("any command can be spelt");
                speaker.send_binary(&message).await;
                assert!(speaker.frame().await.is_some(), "it is answered");
            } else {
                let (status, answer) = node.api("publish", &json!({"channel": "lobby", "b64data": "AP97"})).await;
                assert_eq!((status, answer), (200, json!({"result": {}})));
            }
            assert_eq!(json_client.ended().await, Some((3506, "inappropriate protocol".to_owned())));
            let heard = listener.frame().await.expect("a publication");
            let heard = Encoding::Protobuf.replies(&heard.payload).next().expect("a message").expect("a push");
            let publication = heard.push.and_then(|push| push.publication).expect("a publication");
            assert_eq!(&publication.data[..], b"\x00\xff{");
            elsewhere.publish("other", &json!("still here")).await;
            drop((listener, elsewhere));
        }
        node.stop().await;
    }
}

/// SDKs ask for maps and polls with a `type`; what a room has would be taken for something else.
#[tokio::test]
async fn another_kind_of_subscription_than_a_stream_is_not_available_in_either_encoding() {
    let node = Gateway::open("rooms.allow_publish_for_client = true");
    let refused = json!({"code": 108, "message": "not available"});
    let mut client = Client::subscribed(node.clients, "ann", "lobby").await;
    for kind in [1, 2, 3, 4, -1] {
        for command in [
            json!({"subscribe": {"channel": "maps", "type": kind, "phase": 1, "limit": 10}}),
            json!({"publish": {"channel": "lobby", "data": 1, "type": kind, "key": "k"}}),
            json!({"sub_refresh": {"channel": "lobby", "token": "t", "type": kind}}),
        ] {
            assert_eq!(client.ask(command.clone()).await["error"], refused, "{command}");
        }
    }
    let streams = json!({"subscribe": {"channel": "streams", "type": 0}});
    assert_eq!(client.ask(streams).await["subscribe"], json!({}));
    assert_eq!(ends_with(client, r#"{"id":90,"subscribe":{"channel":"maps","type":"map"}}"#).await, 3501);

    // By the numbers of the fields: `channel` is 1, `type` 15 of a subscribe and 3 of the others.
    let mut client = protobuf(&node, "pro", "lobby").await;
    let commands: [&[u8]; 3] = [
        b"\x0c\x08\x07\x2a\x08\x0a\x04maps\x78\x01",
        b"\x10\x08\x07\x3a\x0c\x0a\x05lobby\x12\x01\x31\x18\x01",
        b"\x0d\x08\x07\x7a\x09\x0a\x05lobby\x18\x04",
    ];
    for command in commands {
        client.send_binary(command).await;
        let reply = from_protobuf(&client.frame().await.expect("a reply").payload);
        assert_eq!(reply, json!({"id": 7, "error": refused}), "{command:?}");
    }
    client.send_binary(b"\x0c\x08\x08\x2a\x08\x0a\x04maps\x78\x00").await;
    let reply = from_protobuf(&client.frame().await.expect("a reply").payload);
    assert_eq!(reply, json!({"id": 8, "subscribe": {}}));
    node.stop().await;
}

/// Code of the close that a message leads to.
async fn ends_with(mut client: Client, message: &str) -> u16 {
    client.send(message).await;
    client.ended().await.expect("a close frame").0
}

/// A Protobuf client that is in a room.
async fn protobuf(node: &Gateway, user: &str, room: &str) -> Client {
    let subprotocol = [("sec-websocket-protocol", "centrifuge-protobuf")];
    let mut client = Client::open_at(node.clients, "/connection/websocket", &subprotocol).await;
    tell(&mut client, &json!({"id": 1, "connect": {"token": token(&json!({"sub": user}))}})).await;
    assert!(from_protobuf(&client.frame().await.expect("a reply").payload)["connect"].is_object());
    tell(&mut client, &json!({"id": 2, "subscribe": {"channel": room}})).await;
    assert_eq!(from_protobuf(&client.frame().await.expect("a reply").payload), json!({"id": 2, "subscribe": {}}));
    client
}

async fn tell(client: &mut Client, command: &Value) {
    client.send_binary(&to_protobuf(&command.to_string()).expect("a command")).await;
}
