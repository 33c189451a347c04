//! What a subscription token does: every claim, allowed and refused; and what of a connection token holds in rooms.

mod common;

use std::time::{SystemTime, UNIX_EPOCH};

use common::{Client, Gateway, Value, json, redis::RedisServer, token};

const RULES: &str = r#"
[[namespaces]]
name = "closed"
presence = true
join_leave = true
history_size = 10
history_ttl = "60s"
"#;

fn from_now(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    i64::try_from(now).expect("not so late") + seconds
}

/// The answer to a subscribe with a token of these claims beside user and room, or the code of the close.
async fn subscribe(node: &Gateway, room: &str, claims: &Value) -> Result<Value, u16> {
    let mut client = Client::connected(node.clients, "ann").await;
    let mut all = json!({"sub": "ann", "channel": room});
    for (claim, value) in claims.as_object().expect("claims") {
        all[claim] = value.clone();
    }
    answer(&mut client, json!({"id": 77, "subscribe": {"channel": room, "token": token(&all)}})).await
}

/// The reply to a command that has an id, or the code of the close.
async fn answer(client: &mut Client, command: Value) -> Result<Value, u16> {
    client.send(&command.to_string()).await;
    loop {
        let frame = client.frame().await.expect("an answer or a close");
        if frame.opcode == 8 {
            return Err(common::client::close(&frame).0);
        }
        let message: Value = serde_json::from_slice(&frame.payload).expect("JSON");
        if message["id"] == command["id"] {
            return Ok(message);
        }
    }
}

async fn every_claim(settings: &str) {
    let node = Gateway::start(&format!("{settings}\n{RULES}"));
    node.ready().await;
    let room = "closed:r";
    let ok = |result: Value| Ok(json!({"id": 77, "subscribe": result}));
    let error = |code: u64| Ok(json!(code));
    let cases = [
        (json!({}), ok(json!({}))),
        (json!({"data": {"hi": 1}}), ok(json!({"data": {"hi": 1}}))),
        (json!({"b64data": "eyJoaSI6Mn0="}), ok(json!({"data": {"hi": 2}}))),
        (json!({"expire_at": 0, "exp": from_now(60)}), ok(json!({}))),
        (json!({"exp": from_now(-60)}), error(109)),
        (json!({"nbf": from_now(60)}), error(109)),
        (json!({"expire_at": from_now(-60)}), error(110)),
        (json!({"channel": "closed:other"}), Err(3500)),
        (json!({"sub": "bob"}), Err(3500)),
        (json!({"sub": ""}), Err(3500)),
        (json!({"client": "00000000-0000-4000-8000-000000000000"}), Err(3500)),
        (json!({"channel": null}), error(103)),
        (json!({"exp": "soon"}), error(103)),
    ];
    for (claims, wanted) in cases {
        let mut came = subscribe(&node, room, &claims).await;
        if let Ok(reply) = &came
            && reply["error"].is_object()
        {
            came = Ok(reply["error"]["code"].clone());
        }
        assert_eq!(came, wanted, "{claims}");
    }
}

#[tokio::test]
async fn every_claim_of_a_subscription_token_counts() {
    every_claim("").await;
}

#[tokio::test]
async fn the_same_over_redis() {
    let redis = RedisServer::start();
    every_claim(&format!("redis.url = {:?}", redis.url())).await;
}

#[tokio::test]
async fn an_end_is_told_with_the_subscription() {
    let node = Gateway::start(RULES);
    for claims in [json!({"exp": from_now(300)}), json!({"exp": from_now(9), "expire_at": from_now(300)})] {
        let reply = subscribe(&node, "closed:r", &claims).await.expect("it is let in");
        assert_eq!(reply["subscribe"]["expires"], true);
        assert!(reply["subscribe"]["ttl"].as_u64().is_some_and(|ttl| (297..=300).contains(&ttl)), "{reply}");
    }
}

#[tokio::test]
async fn a_token_of_somebody_elses_key_is_refused() {
    let node = Gateway::start("auth.subscription_token.hmac_secret = \"a-secret-for-rooms-alone-0123456789abcdef\"\n");
    let reply = subscribe(&node, "r", &json!({})).await.expect("a reply");
    assert_eq!(reply["error"]["code"], 103, "the key of connection tokens is not for rooms here");
}

#[tokio::test]
async fn a_token_opens_a_private_room_to_one_client_alone() {
    let node = Gateway::open("");
    let mut client = Client::open(node.clients).await;
    let reply = client.ask(json!({"connect": {"token": token(&json!({"sub": "ann"}))}})).await;
    let claims = json!({"sub": "ann", "channel": "$r", "client": reply["connect"]["client"]});
    let entered = client.ask(json!({"subscribe": {"channel": "$r", "token": token(&claims)}})).await;
    assert_eq!(entered["subscribe"], json!({}));
    let mut other = Client::connected(node.clients, "ann").await;
    let command = json!({"id": 9, "subscribe": {"channel": "$r", "token": token(&claims)}});
    assert_eq!(answer(&mut other, command).await, Err(3500));
}

#[tokio::test]
async fn what_a_token_allows_holds_in_its_room_alone() {
    let node = Gateway::start(RULES);
    let mut client = Client::connected(node.clients, "ann").await;
    for (spelling, allowed) in [("pub", "publish"), ("prs", "presence"), ("hst", "history")] {
        let room = format!("closed:{spelling}");
        let claims = json!({"sub": "ann", "channel": room, "allow": [spelling]});
        let reply = client.ask(json!({"subscribe": {"channel": room, "token": token(&claims)}})).await;
        assert_eq!(reply["subscribe"], json!({}));
        for verb in ["publish", "presence", "history"] {
            for (place, inside) in [(room.as_str(), true), ("closed:else", false)] {
                let mut command = json!({});
                command[verb] = json!({"channel": place, "data": 1});
                let reply = client.ask(command).await;
                assert_eq!(reply["error"].is_null(), inside && verb == allowed, "{verb} in {place}: {reply}");
            }
        }
    }
}

#[tokio::test]
async fn a_token_has_other_rules_for_its_client() {
    let node = Gateway::start(&format!("{RULES}allow_presence_for_client = true\n"));
    let mut watcher = Client::connected(node.clients, "bob").await;
    let mut client = Client::connected(node.clients, "ann").await;
    let hidden = json!({"sub": "ann", "channel": "closed:r", "info": {"seat": 1},
        "override": {"presence": {"value": false}, "force_recovery": {"value": true}}});
    let reply = client.ask(json!({"subscribe": {"channel": "closed:r", "token": token(&hidden)}})).await;
    assert_eq!((&reply["subscribe"]["recoverable"], &reply["subscribe"]["positioned"]), (&json!(true), &json!(true)));
    let stats = watcher.ask(json!({"presence_stats": {"channel": "closed:r"}})).await;
    assert_eq!(stats["presence_stats"]["num_clients"], 0);
    client.ask(json!({"unsubscribe": {"channel": "closed:r"}})).await;
    let seen = json!({"sub": "ann", "channel": "closed:r", "info": {"seat": 1}});
    client.ask(json!({"subscribe": {"channel": "closed:r", "token": token(&seen)}})).await;
    let present = watcher.ask(json!({"presence": {"channel": "closed:r"}})).await["presence"]["presence"].clone();
    let info = present.as_object().and_then(|all| all.values().next()).map(|one| one["chan_info"].clone());
    assert_eq!(info, Some(json!({"seat": 1})));
}
