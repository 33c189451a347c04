//! What every rule of a room and every claim of a token does, as a table: `matrix/rules.json` has each rule with the values it may
//! have, `matrix/connection.json` and `matrix/subscription.json` each claim, and beside each value what a client is answered
//! to the last thing it does. A rule or a claim without rows fails here, and so does one that makes no difference.
//!
//! A row says what the client `does`, one after the other: a command (its `channel` is the row's room unless it says another),
//! one of another client (`bob`), or a call of the server API (`api`). In `connect` and in a `token` stand the claims, beside
//! those that every token of the table has. `{room}` and `{user}` are the row's own. What comes of the last one is `wanted`: the
//! reply, `error` or `close` with their codes, or in `told` every push in the room until then. Times are seconds from now.

mod common;
mod matrix_play;

use std::{collections::BTreeMap, fmt::Write, path::Path};

use axum::response::IntoResponse;
use common::{Client, Gateway, PATIENCE, Value, backend::Backend, json, redis::RedisServer};
use futures_util::future::join_all;
use matrix_play::{Row, from_now};
use roomcast::config::RoomRules;
use roomcast_shared::claims::{ConnectClaims, Overrides, RegisteredClaims, SubscribeClaims, SubscribeOptions};
use tokio::time::{Duration, Instant, sleep, timeout};

/// Rules that have a test of their own, since it takes more than a few questions to see what they do.
const BY_ITSELF: [(&str, &str, &str); 2] = [
    ("history_meta_ttl", "matrix.rs", "the_place_in_a_room_is_forgotten_as_its_rule_says"),
    ("slow_consumer", "slow_consumer.rs", "what_becomes_of_a_slow_client_is_a_rule_of_the_room"),
];

/// Names of all fields of a type. A field that is not named does not compile, so that a new one comes to its row.
macro_rules! fields {
    ($type:ident { $($field:ident),* $(,)? }) => {{
        let $type { $($field: _),* } = $type::default();
        [$(stringify!($field)),*]
    }};
}

fn rules() -> Vec<&'static str> {
    let all = fields!(RoomRules {
        allow_subscribe_for_client,
        allow_subscribe_for_anonymous,
        allow_publish_for_client,
        allow_publish_for_subscriber,
        allow_publish_for_anonymous,
        allow_presence_for_client,
        allow_presence_for_subscriber,
        allow_presence_for_anonymous,
        allow_history_for_client,
        allow_history_for_subscriber,
        allow_history_for_anonymous,
        allow_user_limited_channels,
        channel_regex,
        publication_data_format,
        presence,
        join_leave,
        force_push_join_leave,
        history_size,
        history_ttl,
        history_meta_ttl,
        force_positioning,
        allow_positioning,
        force_recovery,
        allow_recovery,
        force_recovery_mode,
        auto_cache_recover,
        delta_publish,
        allowed_delta_types,
        allow_tags_filter,
        subscribe_hook,
        subscribe_hook_url,
        publish_hook,
        publish_hook_url,
        sub_refresh_hook,
        sub_refresh_hook_url,
        echo,
        slow_consumer,
    });
    all.into()
}

/// The claims as a token spells them, of either kind.
fn claims() -> [Vec<&'static str>; 2] {
    let connection =
        fields!(ConnectClaims { registered, expire_at, info, b64info, channels, subs, meta, caps, channel });
    let subscription = fields!(SubscribeClaims { registered, channel, client, expire_at, allow, options });
    let registered = fields!(RegisteredClaims { sub, exp, nbf, iat, jti, aud, iss });
    let options = fields!(SubscribeOptions { info, b64info, data, b64data, overrides });
    [connection.as_slice(), &subscription].map(|own| {
        own.iter()
            .flat_map(|field| match *field {
                "registered" => registered.to_vec(),
                "options" => options.to_vec(),
                field => vec![field],
            })
            .map(|field| if field == "overrides" { "override" } else { field })
            .collect()
    })
}

#[test]
fn every_rule_has_rows_that_differ() {
    let mut wanted = wanted_by("rules.json", "rule");
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    for (rule, file, test) in BY_ITSELF {
        let text = std::fs::read_to_string(sources.join(file)).expect("the test is there");
        assert!(text.contains(&format!("fn {test}(")), "{rule}: no {test} in {file}");
        assert!(wanted.insert(rule.to_owned(), vec![json!("with"), json!("without")]).is_none(), "{rule} has rows");
    }
    for rule in rules() {
        let wanted = wanted.remove(rule).unwrap_or_else(|| panic!("no row for {rule}"));
        assert!(wanted.iter().any(|one| *one != wanted[0]), "{rule} makes no difference");
    }
    assert!(wanted.is_empty(), "there are no such rules: {:?}", wanted.keys());
}

#[test]
fn every_claim_has_rows_accepted_and_refused() {
    for (file, claims) in ["connection.json", "subscription.json"].into_iter().zip(claims()) {
        let mut wanted = wanted_by(file, "claim");
        for claim in claims {
            let wanted = wanted.remove(claim).unwrap_or_else(|| panic!("{file}: no row for {claim}"));
            let refused = |one: &Value| one["error"].is_number() || one["close"].is_number();
            let (refused, accepted): (Vec<_>, Vec<_>) = wanted.iter().partition(|one| refused(one));
            assert!(!refused.is_empty() && !accepted.is_empty(), "{file}: {claim} accepted and refused");
        }
        assert!(wanted.is_empty(), "{file}: there are no such claims: {:?}", wanted.keys());
    }
}

#[test]
fn every_rule_that_a_token_changes_has_rows_that_differ() {
    let overrides =
        fields!(Overrides { presence, join_leave, force_push_join_leave, force_recovery, force_positioning });
    for (file, claim) in [("subscription.json", "override"), ("connection.json", "subs")] {
        let rows = rows(file, "claim");
        for rule in overrides {
            let said = |row: &&Row| row.name == claim && row.value.to_string().contains(&format!("{rule:?}:"));
            let mut wanted: Vec<_> = rows.iter().filter(said).map(|row| &row.wanted).collect();
            wanted.dedup();
            assert!(wanted.len() > 1, "{file}: {claim} with {rule} makes no difference");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_memory() {
    play("").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_redis() {
    let redis = RedisServer::start();
    play(&format!("redis.url = {:?}\n", redis.url())).await;
}

async fn play(broker: &str) {
    let backend = Backend::start(async |hook, body: Value| {
        let answer = match hook.as_str() {
            "rpc" => json!({"result": {"data": body["meta"]}}),
            "sub_refresh" => json!({"result": {"expire_at": from_now(300)}}),
            "subscribe" | "publish" => json!({"result": {}}),
            _ => json!({"error": {"code": 444, "message": "another address"}}),
        };
        answer.to_string().into_response()
    })
    .await;
    let rows: Vec<_> = [("rules.json", "rule"), ("connection.json", "claim"), ("subscription.json", "claim")]
        .into_iter()
        .flat_map(|(file, kind)| rows(file, kind))
        .collect();
    let mut settings = String::from(broker);
    settings += "auth.audience = \"rooms\"\nauth.issuer = \"shop\"\nhooks.include_connection_meta = true\n";
    settings += &backend.settings(&["subscribe", "publish", "sub_refresh", "rpc"]);
    for (number, row) in rows.iter().enumerate() {
        let _ = write!(settings, "[[namespaces]]\nname = \"row{number}\"\n{}", row.settings());
    }
    let node = Gateway::start(&settings.replace("{backend}", &backend.address.to_string()));
    node.ready().await;
    let came = rows.iter().enumerate().map(|(number, row)| {
        let played = timeout(PATIENCE.mul_f32(0.9), row.play(&node, number));
        async { played.await.unwrap_or(json!("nothing came")) }
    });
    let came = join_all(came).await;
    let mut faults = Vec::new();
    for (row, came) in rows.iter().zip(came) {
        if came != row.wanted {
            faults
                .push(format!("{} = {}: {}\n  wanted {}\n  came   {came}", row.name, row.value, row.does, row.wanted));
        }
    }
    assert!(faults.is_empty(), "{} of {} rows\n{}", faults.len(), rows.len(), faults.join("\n"));
    node.stop().await;
}

/// All rows of a file.
fn rows(file: &str, kind: &str) -> Vec<Row> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/matrix").join(file);
    let text = std::fs::read(path).expect("the table is there");
    let entries: Vec<Value> = serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
    entries.iter().flat_map(|entry| Row::all(kind, entry)).collect()
}

/// What is wanted of each rule or claim, value by value.
fn wanted_by(file: &str, kind: &str) -> BTreeMap<String, Vec<Value>> {
    let mut all: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for row in rows(file, kind) {
        all.entry(row.name).or_default().push(row.wanted);
    }
    all
}

#[tokio::test]
async fn the_place_in_a_room_is_forgotten_as_its_rule_says() {
    let redis = RedisServer::start();
    for broker in [String::new(), format!("redis.url = {:?}\n", redis.url())] {
        let rules = "history_size = 1\nhistory_ttl = \"1s\"\nallow_history_for_client = true\n";
        let node = Gateway::start(&format!(
            "{broker}[[namespaces]]\nname = \"short\"\n{rules}history_meta_ttl = \"1s\"\n[[namespaces]]\nname = \"long\"\n{rules}"
        ));
        node.ready().await;
        let mut client = Client::connected(node.clients, "ann").await;
        let (short, long) = (epoch(&mut client, "short:r").await, epoch(&mut client, "long:r").await);
        let deadline = Instant::now() + Duration::from_secs(30);
        // Asking is a use, so that it is left alone for longer than it is remembered.
        let mut pause = Duration::from_millis(1200);
        loop {
            sleep(pause).await;
            if epoch(&mut client, "short:r").await != short {
                break;
            }
            assert!(Instant::now() < deadline, "it is never forgotten");
            pause += Duration::from_millis(400);
        }
        assert_eq!(epoch(&mut client, "long:r").await, long);
        node.stop().await;
    }
}

async fn epoch(client: &mut Client, room: &str) -> String {
    let reply = client.ask(json!({"history": {"channel": room}})).await;
    reply["history"]["epoch"].as_str().expect("an epoch").to_owned()
}
