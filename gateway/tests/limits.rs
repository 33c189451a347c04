//! What is refused for coming too fast: connections of an address and of a user, commands of a client and of a user. Every limit
//! is one in a second, and what is asked comes at once, so that the second of two is beyond it wherever the clock stands.

#![expect(clippy::unwrap_used, reason = "a test whose setting up fails has failed")]

mod common;

use common::{Client, Gateway, Value, http, json, redis::RedisServer, token};

const UPGRADE: [(&str, &str); 4] = [
    ("connection", "Upgrade, close"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

const TOO_MANY: u64 = 111;

/// Sends commands in one frame, so that they come at once, and gives the error code of each answer.
async fn at_once(client: &mut Client, commands: &[Value]) -> Vec<Option<u64>> {
    let lines = (100..).zip(commands).map(|(id, command)| {
        let mut command = command.clone();
        command["id"] = json!(id);
        command.to_string()
    });
    let lines = lines.collect::<Vec<_>>();
    client.send(&lines.join("\n")).await;
    let mut codes = vec![None; commands.len()];
    let mut answered = 0;
    while answered < commands.len() {
        let message = client.next().await;
        if let Some(id) = message["id"].as_u64() {
            let at = usize::try_from(id - 100).unwrap();
            codes[at] = message["error"]["code"].as_u64();
            assert_eq!(message["error"]["temporary"].as_bool(), codes[at].map(|_| true), "{message}");
            answered += 1;
        }
    }
    codes
}

#[tokio::test]
async fn commands_of_a_user_are_limited_by_their_kind_over_all_its_connections() {
    let kinds = [
        ("publishes_per_user", json!({"publish": {"channel": "room", "data": 1}})),
        ("histories_per_user", json!({"history": {"channel": "room"}})),
        ("presences_per_user", json!({"presence": {"channel": "room"}})),
        ("presences_per_user", json!({"presence_stats": {"channel": "room"}})),
    ];
    for (limit, command) in kinds {
        let rooms = "rooms.presence = true\nrooms.allow_presence_for_subscriber = true\nrooms.history_size = 9\n\
                     rooms.history_ttl = \"60s\"\nrooms.allow_history_for_subscriber = true\n";
        let node = Gateway::open(&format!("{rooms}limits.{limit} = 2\n"));
        let mut first = Client::subscribed(node.clients, "ann", "room").await;
        let mut second = Client::subscribed(node.clients, "ann", "room").await;
        let mut other = Client::subscribed(node.clients, "bob", "room").await;
        let both = [command.clone(), command.clone()];
        assert_eq!(at_once(&mut first, &both).await, [None, None], "{limit}");
        let sent = [command.clone(), command.clone(), command.clone(), command.clone()];
        let codes = at_once(&mut second, &sent).await;
        assert!(codes.contains(&Some(TOO_MANY)), "{limit}: {codes:?}");
        assert_eq!(at_once(&mut other, &both).await, [None, None], "{limit}");
        let series = format!("roomcast_rate_limited_total{{limit=\"{limit}\"}}");
        let refused = codes.iter().filter(|code| code.is_some()).count();
        assert_eq!(node.count(&series).await, refused as u64);
        drop((first, second, other));
        node.stop().await;
    }
}

#[tokio::test]
async fn a_client_that_is_refused_a_room_may_ask_again() {
    let node = Gateway::open("limits.subscribes_per_user = 1\n");
    let mut client = Client::connected(node.clients, "ann").await;
    let rooms: Vec<_> = (0..3).map(|room| json!({"subscribe": {"channel": format!("room{room}")}})).collect();
    let codes = at_once(&mut client, &rooms).await;
    assert_eq!((codes[0], codes.contains(&Some(TOO_MANY))), (None, true), "{codes:?}");
    let room = codes.iter().position(Option::is_some).unwrap();
    while at_once(&mut client, &rooms[room..=room]).await != [None] {}
    let data = json!("heard");
    client.publish(&format!("room{room}"), &data).await;
    drop(client);
    node.stop().await;
}

#[tokio::test]
async fn a_command_that_had_to_wait_is_counted_once() {
    let redis = RedisServer::start();
    let node = Gateway::open(&format!("limits.commands_per_client = 3\nredis.url = {:?}\n", redis.url()));
    node.ready().await;
    let mut client = Client::connected(node.clients, "ann").await;
    // The second waits until the first is done, and is begun again then.
    let commands = [
        json!({"subscribe": {"channel": "room"}}),
        json!({"publish": {"channel": "room", "data": 1}}),
        json!({"unsubscribe": {"channel": "room"}}),
    ];
    assert_eq!(at_once(&mut client, &commands).await, [None; 3]);
    drop(client);
    node.stop().await;
}

#[tokio::test]
async fn all_commands_of_a_client_are_counted_together() {
    let node = Gateway::open("limits.commands_per_client = 2\n");
    let mut client = Client::connected(node.clients, "ann").await;
    let commands: Vec<_> = (0..6).map(|room| json!({"subscribe": {"channel": format!("room{room}")}})).collect();
    let codes = at_once(&mut client, &commands).await;
    assert!(codes[..2] == [None, None] && codes.contains(&Some(TOO_MANY)), "{codes:?}");
    let mut other = Client::connected(node.clients, "ann").await;
    assert_eq!(at_once(&mut other, &commands[..2]).await, [None, None], "each client has its own");
    drop((client, other));
    node.stop().await;
}

#[tokio::test]
async fn connections_of_a_user_are_refused_for_the_moment() {
    let node = Gateway::open("limits.connects_per_user = 1\nauth.allow_anonymous = true\n");
    let connect = |claims: Value| json!({"connect": {"token": token(&claims)}});
    let mut refused = false;
    for _ in 0..100 {
        let mut client = Client::open(node.clients).await;
        let answer = client.ask(connect(json!({"sub": "ann"}))).await;
        refused = answer["error"]["code"] == TOO_MANY;
        if refused {
            assert_eq!(answer["error"]["temporary"], true);
            break;
        }
    }
    assert!(refused, "a hundred connections came in less than a hundred seconds");
    for _ in 0..3 {
        let mut nobody = Client::open(node.clients).await;
        let answer = nobody.ask(json!({"connect": {}})).await;
        assert!(answer["connect"].is_object(), "{answer}");
    }
    node.stop().await;
}

#[tokio::test]
async fn connections_of_an_address_are_answered_429() {
    let node = Gateway::open("limits.connects_per_address = 1\ntrusted_proxies = [\"127.0.0.0/8\"]\n");
    let from = |address: &'static str| {
        let headers = [&UPGRADE[..], &[("x-forwarded-for", address), ("authorization", "Bearer nonsense")]].concat();
        async move { http::exchange(node.clients, "GET", "/connection/websocket", &headers, b"").await }
    };
    let mut found = None;
    for _ in 0..100 {
        let (status, head, body) = from("203.0.113.7").await;
        if status == 429 {
            found = Some((head, body));
            break;
        }
        assert_eq!(status, 401, "{body}");
    }
    let (head, body) = found.expect("a hundred requests came in less than a hundred seconds");
    assert!(head.contains("retry-after: 1") && body.contains("limits.connects_per_address"), "{head}\n{body}");
    assert_eq!(from("203.0.113.8").await.0, 401, "another address");
    let series = "roomcast_upgrades_refused_total{reason=\"address_rate\"}";
    assert_eq!(node.count(series).await, 1);
    node.stop().await;
}
