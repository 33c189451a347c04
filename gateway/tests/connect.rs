//! How a client comes in, stays, and is sent away: tokens, server-side rooms, limits, expiry, and the pings between.

mod common;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::{Client, Frame, Gateway, Value, frame, from_protobuf, http, json, to_protobuf, token};
use futures_util::future::join_all;
use jsonwebtoken::{EncodingKey, Header};
use tokio::{io::AsyncReadExt, time::Instant};

const SDK: &str = "/connection/websocket";

#[tokio::test]
async fn the_reply_says_who_and_where_the_client_is() {
    let node = Gateway::open("node_name = \"node-one\"");
    let mut client = Client::open(node.clients).await;
    let reply = client.ask(connect(&json!({"sub": "ann"}))).await["connect"].take();
    let id = reply["client"].as_str().expect("an id");
    assert_eq!(uuid::Uuid::parse_str(id).expect("a UUID").get_version_num(), 4);
    let version = env!("CARGO_PKG_VERSION");
    let wanted = json!({"client": id, "version": version, "ping": 25, "pong": true, "node": "node-one"});
    assert_eq!(reply, wanted);
    let mut expiring = Client::open(node.clients).await;
    let reply = expiring.ask(connect(&json!({"sub": "ann", "exp": now() + 600}))).await["connect"].take();
    assert_eq!(reply["expires"], true);
    assert!((598..=600).contains(&reply["ttl"].as_u64().expect("a time to live")), "{reply}");
    assert_ne!(reply["client"], id);
    let mut ever = Client::open(node.clients).await;
    let reply = ever.ask(connect(&json!({"sub": "ann", "exp": now() + 600, "expire_at": 0}))).await;
    assert_eq!((&reply["connect"]["expires"], &reply["connect"]["ttl"]), (&Value::Null, &Value::Null));
    drop((client, expiring, ever));
    node.stop().await;
}

#[tokio::test]
async fn a_token_that_is_no_good_ends_the_connection() {
    let node = Gateway::open("");
    let forged = EncodingKey::from_secret(b"another-secret-another-secret-another");
    let forged = jsonwebtoken::encode(&Header::default(), &json!({"sub": "ann"}), &forged).expect("a token");
    let unsigned = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4ifQ.";
    let of_a_room = token(&json!({"sub": "ann", "channel": "lobby"}));
    let of_a_number = token(&json!({"sub": 7}));
    for bad in ["x", "a.b.c", unsigned, &forged, &of_a_room, &of_a_number, &"x".repeat(17_000)] {
        let mut client = Client::open(node.clients).await;
        client.send(&json!({"id": 1, "connect": {"token": bad}}).to_string()).await;
        assert_eq!(client.ended().await, said(3500, "invalid token"), "{bad}");
    }
    for nothing in [json!({}), json!({"token": ""}), json!({"token": null, "name": "x"})] {
        let mut client = Client::open(node.clients).await;
        client.send(&json!({"id": 1, "connect": nothing}).to_string()).await;
        assert_eq!(client.ended().await, said(3501, "bad request"));
    }
    node.stop().await;
}

#[tokio::test]
async fn outside_of_its_time_a_token_is_answered_and_the_rest_of_the_frame_is_void() {
    let node = Gateway::open("client.stale_close_delay = \"400ms\"");
    let times = [
        json!({"sub": "ann", "exp": now() - 1}),
        json!({"sub": "ann", "nbf": now() + 60}),
        json!({"sub": "ann", "exp": now() + 60, "expire_at": now() - 5}),
    ];
    for claims in times {
        let mut client = Client::open(node.clients).await;
        let mut first = connect(&claims);
        first["id"] = 1.into();
        client.send(&format!("{first}\n{}", json!({"id": 2, "subscribe": {"channel": "lobby"}}))).await;
        assert_eq!(
            client.next().await,
            json!({"id": 1, "error": {"code": 109, "message": "token expired"}}),
            "{claims}"
        );
        client.send(&connect(&json!({"sub": "ann"})).to_string()).await;
        // Not even a good token is taken any more, and nothing else comes until the stale timer is over.
        assert_eq!(client.ended().await, said(3502, "stale"));
    }
    assert_eq!(node.api("info", &json!({})).await.1["result"]["nodes"][0]["num_channels"], 0, "no room was entered");
    node.stop().await;
}

#[tokio::test]
async fn nobody_comes_in_where_that_is_allowed() {
    let node = Gateway::open("auth.allow_anonymous = true");
    let mut nobody = Client::open(node.clients).await;
    assert!(nobody.ask(json!({"connect": {}})).await["connect"]["client"].is_string());
    let denied = nobody.ask(json!({"subscribe": {"channel": "lobby"}})).await;
    assert_eq!(denied["error"]["code"], 103, "the rules for clients are not for those without a user");
    let mut somebody = Client::subscribed(node.clients, "ann", "lobby").await;
    somebody.publish("lobby", &json!(1)).await;
    let mut forger = Client::open(node.clients).await;
    forger.send(r#"{"id":1,"connect":{"token":"x"}}"#).await;
    assert_eq!(forger.ended().await, said(3500, "invalid token"), "who brings a token is held to it");
    drop((nobody, somebody));
    node.stop().await;
}

#[tokio::test]
async fn tokens_of_nobody_are_refused_where_that_is_set() {
    let node = Gateway::open("auth.disallow_anonymous_connection_tokens = true");
    let mut nobody = Client::open(node.clients).await;
    nobody.send(&json!({"id": 1, "connect": {"token": token(&json!({"sub": ""}))}}).to_string()).await;
    assert_eq!(nobody.ended().await, said(3507, "permission denied"));
    let somebody = Client::connected(node.clients, "ann").await;
    drop(somebody);
    node.stop().await;
}

#[tokio::test]
async fn the_token_of_the_upgrade_request_stands_in() {
    let node = Gateway::open("");
    let ann = format!("Bearer {}", token(&json!({"sub": "ann", "info": {"name": "Ann"}})));
    for spelling in [ann.clone(), ann.replace("Bearer", "bearer"), ann.replace("Bearer ", "BEARER   ")] {
        let mut client = Client::open_at(node.clients, SDK, &[("authorization", &spelling)]).await;
        assert!(client.ask(json!({"connect": {}})).await["connect"]["client"].is_string());
        client.subscribe("lobby").await;
        client.send(r#"{"id":9,"publish":{"channel":"lobby","data":1}}"#).await;
        let info = loop {
            let message = client.next().await;
            if message["push"].is_object() {
                break message["push"]["pub"]["info"].clone();
            }
        };
        assert_eq!((&info["user"], &info["conn_info"]), (&json!("ann"), &json!({"name": "Ann"})));
    }
    let with = async |claims: Value| {
        let mut client = Client::open_at(node.clients, SDK, &[("authorization", &ann)]).await;
        let mut request = connect(&claims);
        request["id"] = 1.into();
        client.send(&request.to_string()).await;
        client
    };
    let mut same = with(json!({"sub": "ann"})).await;
    assert!(same.next().await["connect"]["client"].is_string(), "both are good, and of the same user");
    let other = with(json!({"sub": "ben"})).await;
    assert_eq!(other.ended().await, said(3500, "invalid token"));
    let mut late = with(json!({"sub": "ann", "exp": now() - 9})).await;
    assert_eq!(late.next().await["error"]["code"], 109);
    let mut bad = Client::open_at(node.clients, SDK, &[("authorization", &ann)]).await;
    bad.send(r#"{"id":1,"connect":{"token":"x"}}"#).await;
    assert_eq!(bad.ended().await, said(3500, "invalid token"));
    let mut basic = Client::open_at(node.clients, SDK, &[("authorization", "Basic YTpi")]).await;
    basic.send(r#"{"id":1,"connect":{}}"#).await;
    assert_eq!(basic.ended().await, said(3501, "bad request"), "another scheme is no token");
    drop((same, late));
    node.stop().await;
}

#[tokio::test]
async fn a_bad_token_of_the_upgrade_request_is_answered_before_the_upgrade() {
    let node = Gateway::open("");
    let expired = token(&json!({"sub": "ann", "exp": now() - 60}));
    for (bad, why) in [("x", "malformed"), (expired.as_str(), "expired"), ("", "malformed")] {
        let bearer = format!("Bearer {bad}");
        let headers = [
            ("connection", "close, Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("authorization", &bearer),
        ];
        let (status, head, body) = http::exchange(node.clients, "GET", SDK, &headers, b"").await;
        assert_eq!(status, 401, "{bad:?}: {body}");
        assert!(head.contains("www-authenticate: bearer"), "{head}");
        assert!(body.contains(why), "{bad:?}: {body}");
    }
    node.stop().await;
}

#[tokio::test]
async fn a_token_puts_its_client_into_rooms() {
    let node = Gateway::open("client.channel_limit = 3\n[[namespaces]]\nname = \"closed\"");
    let mut client = Client::open(node.clients).await;
    let reply = client.ask(connect(&json!({"sub": "ann", "channels": ["news", "closed:x", "news"]}))).await;
    assert_eq!(reply["connect"]["subs"], json!({"news": {}, "closed:x": {}}), "{reply}");
    node.publish("closed:x", &json!({"n": 1})).await;
    assert_eq!(client.hear("closed:x").await, json!({"n": 1}));
    let twice = client.ask(json!({"subscribe": {"channel": "news"}})).await;
    assert_eq!(twice["error"]["code"], 105);
    assert_eq!(client.ask(json!({"unsubscribe": {"channel": "news"}})).await["unsubscribe"], json!({}));
    client.subscribe("news").await;
    client.publish("news", &json!("back")).await;

    let subs =
        json!({"news": {"info": {"seat": 4}, "data": {"hi": 1}}, "more": {"b64info": "WzFd", "b64data": "InRleHQi"}});
    let mut other = Client::open(node.clients).await;
    let reply = other.ask(connect(&json!({"sub": "ben", "channels": ["unheard"], "subs": subs}))).await;
    assert_eq!(reply["connect"]["subs"], json!({"news": {"data": {"hi": 1}}, "more": {"data": "text"}}), "{reply}");
    for (room, info) in [("news", json!({"seat": 4})), ("more", json!([1]))] {
        other.send(&json!({"id": 7, "publish": {"channel": room, "data": 1}}).to_string()).await;
        let push = loop {
            let message = other.next().await;
            if message["push"]["channel"] == room && message["push"]["pub"]["info"]["user"] == "ben" {
                break message;
            }
        };
        assert_eq!(push["push"]["pub"]["info"]["chan_info"], info);
    }
    drop((client, other));
    node.stop().await;
}

#[tokio::test]
async fn a_token_with_rooms_that_cannot_be_is_refused() {
    let node = Gateway::open("client.channel_limit = 2");
    let unknown = json!({"sub": "ann", "channels": ["fine", "nope:x"]});
    let mut client = Client::open(node.clients).await;
    assert_eq!(client.ask(connect(&unknown)).await["error"], json!({"code": 102, "message": "unknown channel"}));
    let mut greedy = Client::open(node.clients).await;
    let mut request = connect(&json!({"sub": "ann", "channels": ["a", "b", "c"]}));
    request["id"] = 1.into();
    greedy.send(&request.to_string()).await;
    assert_eq!(greedy.ended().await, said(3505, "channel limit"));
    drop(client);
    node.stop().await;
}

#[tokio::test]
async fn a_user_has_so_many_connections() {
    let node = Gateway::open("client.user_connection_limit = 2\nauth.allow_anonymous = true");
    let first = Client::connected(node.clients, "ann").await;
    let second = Client::connected(node.clients, "ann").await;
    let mut third = Client::open(node.clients).await;
    let mut request = connect(&json!({"sub": "ann"}));
    request["id"] = 1.into();
    third.send(&request.to_string()).await;
    assert_eq!(third.ended().await, said(3504, "connection limit"));
    let other = Client::connected(node.clients, "ben").await;
    let mut nobodies = Vec::new();
    for _ in 0..3 {
        let mut nobody = Client::open(node.clients).await;
        assert!(
            nobody.ask(json!({"connect": {}})).await["connect"].is_object(),
            "those without a user are not counted"
        );
        nobodies.push(nobody);
    }
    drop(first);
    node.metric_until("roomcast_connections", |count| count <= 5.0).await;
    let again = Client::connected(node.clients, "ann").await;
    drop((second, other, nobodies, again));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_expires_unless_it_is_refreshed() {
    let node = Gateway::open("client.expired_close_delay = \"300ms\"");
    let connected = async |user: &str| {
        let mut client = Client::open(node.clients).await;
        let began = Instant::now();
        let reply = client.ask(connect(&json!({"sub": user, "exp": now() + 2}))).await;
        let ttl = reply["connect"]["ttl"].as_u64().expect("a time to live");
        (client, began + Duration::from_secs(ttl) + Duration::from_millis(300))
    };
    let ends = async |client: Client, due: Instant| {
        assert_eq!(client.ended().await, said(3005, "connection expired"));
        assert!(Instant::now() >= due, "closed too early by {:?}", due - Instant::now());
    };
    let (tired, due) = connected("ann").await;
    let (mut fresh, fresh_due) = connected("ann").await;
    let (mut ever, _) = connected("ann").await;
    let reply = fresh.ask(json!({"refresh": {"token": token(&json!({"sub": "ann", "exp": now() + 600}))}})).await;
    assert_eq!(reply["refresh"]["expires"], true, "{reply}");
    assert!((598..=600).contains(&reply["refresh"]["ttl"].as_u64().expect("a time to live")), "{reply}");
    assert!(reply["refresh"]["client"].is_string() && reply["refresh"]["version"].is_string(), "{reply}");
    let reply = ever.ask(json!({"refresh": {"token": token(&json!({"sub": "ann"}))}})).await;
    assert_eq!(reply["refresh"]["expires"], Value::Null, "{reply}");
    ends(tired, due).await;
    tokio::time::sleep_until(fresh_due + Duration::from_millis(200)).await;
    for mut alive in [fresh, ever] {
        alive.subscribe("lobby").await;
    }
    node.stop().await;
}

#[tokio::test]
async fn a_refresh_needs_a_good_token_of_the_same_user() {
    let node = Gateway::open("");
    let refresh = async |token: String| {
        let mut client = Client::open(node.clients).await;
        assert!(client.ask(connect(&json!({"sub": "ann", "exp": now() + 60}))).await["connect"].is_object());
        client.send(&json!({"id": 2, "refresh": {"token": token}}).to_string()).await;
        client.ended().await
    };
    assert_eq!(refresh(token(&json!({"sub": "ben", "exp": now() + 60}))).await, said(3500, "invalid token"));
    assert_eq!(refresh("x".to_owned()).await, said(3500, "invalid token"));
    assert_eq!(refresh(token(&json!({"sub": "ann", "exp": now() - 5}))).await, said(3005, "connection expired"));
    let ended = token(&json!({"sub": "ann", "exp": now() + 60, "expire_at": now() - 5}));
    assert_eq!(refresh(ended).await, said(3005, "connection expired"));
    node.stop().await;
}

#[tokio::test]
async fn who_never_connects_is_stale() {
    let node = Gateway::open("client.stale_close_delay = \"200ms\"");
    let began = Instant::now();
    let silent = Client::open(node.clients).await;
    let mut connected = Client::connected(node.clients, "ann").await;
    assert_eq!(silent.ended().await, said(3502, "stale"));
    assert!(began.elapsed() >= Duration::from_millis(200));
    connected.subscribe("lobby").await;
    drop(connected);
    node.stop().await;
}

/// First pings are spread over the second half of the interval; who answers stays, who does not is closed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_pinged_and_have_to_answer() {
    let node = Gateway::open("client.ping_interval = \"1s\"\nclient.pong_timeout = \"600ms\"");
    let firsts = join_all((0..12).map(|number| first_ping(&node, number % 2 == 0))).await;
    let (earliest, latest) = (firsts.iter().min().expect("twelve"), firsts.iter().max().expect("twelve"));
    assert!(*earliest >= Duration::from_millis(500), "{firsts:?}");
    assert!(*latest > *earliest + Duration::from_millis(50), "not spread: {firsts:?}");
    node.stop().await;
}

/// Connects; gives when the first ping came. Answers it where told so, and sees what follows.
async fn first_ping(node: &Gateway, answers: bool) -> Duration {
    let mut client = Client::open(node.clients).await;
    let began = Instant::now();
    let reply = client.ask(connect(&json!({"sub": "ann"}))).await;
    assert_eq!((&reply["connect"]["ping"], &reply["connect"]["pong"]), (&json!(1), &json!(true)));
    assert_eq!(client.next().await, json!({}));
    let first = began.elapsed();
    if answers {
        client.send("{}").await;
        client.subscribe("lobby").await;
        assert_eq!(client.next().await, json!({}), "the connection goes on to the next ping");
    }
    let asked = Instant::now();
    assert_eq!(client.ended().await, said(3012, "no pong"));
    assert!(asked.elapsed() >= Duration::from_millis(550), "the answer has its time");
    first
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_protobuf_client_is_pinged_in_protobuf() {
    let node = Gateway::open("client.ping_interval = \"1s\"\nclient.pong_timeout = \"600ms\"");
    let mut client = Client::open_at(node.clients, "/connection/websocket?format=protobuf", &[]).await;
    let request = json!({"id": 1, "connect": {"token": token(&json!({"sub": "ann"}))}});
    client.send_binary(&to_protobuf(&request.to_string()).expect("a command")).await;
    let reply = client.frame().await.expect("a reply");
    assert_eq!((reply.opcode, from_protobuf(&reply.payload)["connect"]["ping"].clone()), (2, json!(1)));
    assert_eq!(client.frame().await, Some(Frame { opcode: 2, payload: vec![0] }));
    client.send_binary(&[0]).await;
    assert_eq!(client.frame().await, Some(Frame { opcode: 2, payload: vec![0] }), "the next ping");
    assert_eq!(client.ended().await, said(3012, "no pong"));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_clients_are_pinged_by_the_transport() {
    let node = Gateway::open("client.ping_interval = \"1s\"\nclient.pong_timeout = \"600ms\"");
    join_all(["/ws", "/connection/websocket?cf_ws_frame_ping_pong=true"].map(|path| {
        let node = &node;
        async move {
            let mut client = Client::open_at(node.clients, path, &[]).await;
            let reply = client.ask(connect(&json!({"sub": "ann"}))).await;
            assert_eq!((&reply["connect"]["ping"], &reply["connect"]["pong"]), (&Value::Null, &Value::Null));
            let ping = client.frame().await.expect("a ping");
            assert_eq!(ping.opcode, 9);
            client.send_bytes(&frame(0x8A, &ping.payload)).await;
            client.send_bytes(&frame(0x8A, b"unasked, which is allowed")).await;
            assert_eq!(client.frame().await.expect("the next ping").opcode, 9);
            assert_eq!(client.ended().await, said(3012, "no pong"));
        }
    }))
    .await;
    node.stop().await;
}

#[tokio::test]
async fn a_pong_that_was_not_asked_for_is_a_bad_request() {
    for settings in ["", "client.ping_interval = \"0s\""] {
        let node = Gateway::open(settings);
        let mut client = Client::open(node.clients).await;
        let reply = client.ask(connect(&json!({"sub": "ann"}))).await;
        let asked = settings.is_empty();
        assert_eq!(reply["connect"]["pong"], if asked { json!(true) } else { Value::Null });
        assert_eq!(reply["connect"]["ping"], if asked { json!(25) } else { Value::Null });
        client.send("{}").await;
        assert_eq!(client.ended().await, said(3501, "bad request"));
        node.stop().await;
    }
}

#[tokio::test]
async fn replies_to_one_frame_come_in_one_write() {
    let node = Gateway::open("");
    let mut client = Client::open(node.clients).await;
    let mut lines = vec![json!({"id": 1, "connect": {"token": token(&json!({"sub": "ann"}))}}).to_string()];
    lines.extend((2..12).map(|id| json!({"id": id, "subscribe": {"channel": format!("room-{id}")}}).to_string()));
    client.send(&lines.join("\n")).await;
    let mut bytes = vec![0; 64 * 1024];
    let length = client.stream.read(&mut bytes).await.expect("the node answers");
    let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
    assert_eq!(text.matches("\"id\":").count(), 11, "{text}");
    drop(client);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_sends_its_clients_away_and_lets_none_in() {
    let node = Gateway::open("");
    let (address, connected) = (node.clients, Client::connected(node.clients, "ann").await);
    let mut fresh = Client::open(address).await;
    let stopping = tokio::spawn(node.stop());
    assert_eq!(connected.ended().await, said(3001, "shutdown"));
    fresh.send(&connect(&json!({"sub": "ben"})).to_string()).await;
    assert_eq!(fresh.ended().await, said(3001, "shutdown"));
    stopping.await.expect("the node stops");
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

/// A `connect` command with a token of these claims.
fn connect(claims: &Value) -> Value {
    json!({"connect": {"token": token(claims)}})
}

#[expect(clippy::unnecessary_wraps, reason = "compared with what a client saw, which may be nothing")]
fn said(code: u16, reason: &str) -> Option<(u16, String)> {
    Some((code, reason.to_owned()))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}
