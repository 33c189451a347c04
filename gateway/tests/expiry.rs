//! Connections and subscriptions that end: told, prolonged, and over when nobody prolongs them.

mod common;

use std::time::{SystemTime, UNIX_EPOCH};

use common::{Client, Gateway, Value, json, token};

const SOON: &str = "client.expired_sub_close_delay = \"0s\"\nclient.expired_close_delay = \"0s\"\n";

fn from_now(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    i64::try_from(now).expect("not so late") + seconds
}

fn for_room(room: &str, exp: i64) -> String {
    token(&json!({"sub": "ann", "channel": room, "exp": exp, "info": {"t": exp}}))
}

async fn enter(client: &mut Client, room: &str, exp: i64) {
    let reply = client.ask(json!({"subscribe": {"channel": room, "token": for_room(room, exp)}})).await;
    assert_eq!(reply["subscribe"]["expires"], true, "{reply}");
}

/// The next push in the room that is an unsubscribe.
async fn put_out(client: &mut Client, room: &str) -> Value {
    loop {
        let message = client.next().await;
        if message["push"]["channel"] == room && message["push"]["unsubscribe"].is_object() {
            return message["push"]["unsubscribe"].clone();
        }
    }
}

#[tokio::test]
async fn a_subscription_that_is_not_prolonged_is_over_and_the_others_go_on() {
    let node = Gateway::open(SOON);
    let mut client = Client::subscribed(node.clients, "ann", "open").await;
    enter(&mut client, "first", from_now(1)).await;
    enter(&mut client, "second", from_now(2)).await;
    let expired = json!({"code": 2501, "reason": "subscription expired"});
    assert_eq!(put_out(&mut client, "first").await, expired);
    let seats = node.count("roomcast_subscriptions").await;
    assert!(seats <= 2, "the seat is given up, {seats} are left");
    assert_eq!(put_out(&mut client, "second").await, expired);
    client.publish("open", &json!(1)).await;
    enter(&mut client, "first", from_now(60)).await;
}

#[tokio::test]
async fn a_subscription_that_is_prolonged_goes_on() {
    let node = Gateway::open(SOON);
    let mut client = Client::connected(node.clients, "ann").await;
    enter(&mut client, "kept", from_now(2)).await;
    enter(&mut client, "left", from_now(2)).await;
    let prolonged =
        client.ask(json!({"sub_refresh": {"channel": "kept", "token": for_room("kept", from_now(60))}})).await;
    assert_eq!(prolonged["sub_refresh"]["expires"], true);
    assert!(prolonged["sub_refresh"]["ttl"].as_u64().is_some_and(|ttl| ttl > 55), "{prolonged}");
    put_out(&mut client, "left").await;
    client.publish("kept", &json!(1)).await;
    assert_eq!(client.hear("kept").await, json!(1));
}

#[tokio::test]
async fn a_subscription_is_prolonged_by_a_token_for_it_alone() {
    let node = Gateway::open("");
    let refresh = |room: &str, claims: Value| {
        let token = if claims.is_null() { String::new() } else { token(&claims) };
        json!({"sub_refresh": {"channel": room, "token": token}})
    };
    let good = json!({"sub": "ann", "channel": "r", "exp": from_now(60)});
    let errors = [
        (refresh("elsewhere", good.clone()), 103),
        (refresh("r", Value::Null), 107),
        (refresh("r", json!({"sub": "ann", "channel": "r", "exp": from_now(-60)})), 110),
    ];
    let mut client = Client::connected(node.clients, "ann").await;
    enter(&mut client, "r", from_now(60)).await;
    for (command, code) in errors {
        assert_eq!(client.ask(command.clone()).await["error"]["code"], code, "{command}");
    }
    let never = client.ask(refresh("r", json!({"sub": "ann", "channel": "r"}))).await;
    assert_eq!(never["sub_refresh"], json!({}), "it does not end any more");
    let closes = [
        json!({"sub": "bob", "channel": "r", "exp": from_now(60)}),
        json!({"sub": "ann", "channel": "s", "exp": from_now(60)}),
        json!({"sub": "ann", "channel": "r", "client": "x", "exp": from_now(60)}),
    ];
    for claims in closes {
        let mut client = Client::connected(node.clients, "ann").await;
        enter(&mut client, "r", from_now(60)).await;
        let mut command = refresh("r", claims.clone());
        command["id"] = json!(9);
        client.send(&command.to_string()).await;
        assert_eq!(client.closed().await.map(|close| close.0), Some(3500), "{claims}");
    }
    let mut client = Client::connected(node.clients, "ann").await;
    enter(&mut client, "r", from_now(60)).await;
    client.send(&json!({"id": 9, "sub_refresh": {"channel": "r", "token": "x"}}).to_string()).await;
    assert_eq!(client.closed().await.map(|close| close.0), Some(3500));
}

#[tokio::test]
async fn a_connection_that_is_not_prolonged_ends() {
    let node = Gateway::open(SOON);
    let mut client = Client::open(node.clients).await;
    let claims = json!({"sub": "ann", "exp": from_now(1)});
    client.ask(json!({"connect": {"token": token(&claims)}})).await;
    assert_eq!(client.closed().await, Some((3005, "connection expired".to_owned())));
}

#[tokio::test]
async fn a_new_token_says_anew_what_others_are_told() {
    let node = Gateway::open("rooms.presence = true\nrooms.allow_presence_for_subscriber = true\n");
    let mut client = Client::subscribed(node.clients, "ann", "r").await;
    let claims = json!({"sub": "ann", "exp": from_now(60), "info": {"new": 1}});
    let reply = client.ask(json!({"refresh": {"token": token(&claims)}})).await;
    assert_eq!(reply["refresh"]["expires"], true);
    let present = client.ask(json!({"presence": {"channel": "r"}})).await["presence"]["presence"].clone();
    let info = present.as_object().and_then(|all| all.values().next()).map(|one| one["conn_info"].clone());
    assert_eq!(info, Some(json!({"new": 1})));
}
