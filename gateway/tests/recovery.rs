//! Coming back to a room: who is given what it missed, who is told that it cannot be, and where everybody stands then.

mod common;

use std::{
    collections::HashSet,
    fmt::Write,
    ops::{Range, RangeInclusive},
};

use common::{Client, Gateway, Value, json, redis::RedisServer, token};
use futures_util::future::join_all;
use rand::{Rng, SeedableRng, rngs::StdRng};

const RULES: &str = r#"
[[namespaces]]
name = "rec"
allow_subscribe_for_client = true
allow_publish_for_subscriber = true
history_size = 10
history_ttl = "5m"
force_recovery = true
[[namespaces]]
name = "small"
allow_subscribe_for_client = true
history_size = 3
history_ttl = "5m"
force_recovery = true
[[namespaces]]
name = "large"
allow_subscribe_for_client = true
history_size = 1000
history_ttl = "5m"
force_recovery = true
[[namespaces]]
name = "pos"
allow_subscribe_for_client = true
history_size = 10
history_ttl = "5m"
force_positioning = true
[[namespaces]]
name = "cache"
allow_subscribe_for_client = true
history_size = 1
history_ttl = "5m"
force_recovery = true
force_recovery_mode = "cache"
[[namespaces]]
name = "state"
allow_subscribe_for_client = true
history_size = 1
history_ttl = "5m"
force_recovery = true
force_recovery_mode = "cache"
auto_cache_recover = true
[[namespaces]]
name = "asked"
allow_subscribe_for_client = true
history_size = 10
history_ttl = "5m"
allow_positioning = true
allow_recovery = true
[[namespaces]]
name = "read"
allow_subscribe_for_client = true
allow_history_for_subscriber = true
history_size = 10
history_ttl = "5m"
[[namespaces]]
name = "plain"
allow_subscribe_for_client = true
history_size = 10
history_ttl = "5m"
[[namespaces]]
name = "tags"
allow_subscribe_for_client = true
allow_tags_filter = true
allowed_delta_types = ["fossil"]
history_size = 10
history_ttl = "5m"
force_recovery = true
"#;

/// Two nodes: one over memory twice, or two over one Redis.
struct Pair {
    one: Gateway,
    other: Option<Gateway>,
    _redis: Option<RedisServer>,
}

impl Pair {
    async fn memory() -> Self {
        let one = Gateway::start(RULES);
        one.ready().await;
        Self { one, other: None, _redis: None }
    }

    async fn redis() -> Self {
        let redis = RedisServer::start();
        let settings = format!("redis.url = {:?}\n{RULES}", redis.url());
        let (one, other) = (Gateway::start(&settings), Gateway::start(&settings));
        one.ready().await;
        other.ready().await;
        Self { one, other: Some(other), _redis: Some(redis) }
    }

    /// Both, in the order in which they have to be tried.
    async fn both() -> [Self; 2] {
        [Self::memory().await, Self::redis().await]
    }

    /// The node that clients come back to.
    fn other(&self) -> &Gateway {
        self.other.as_ref().unwrap_or(&self.one)
    }

    async fn stop(self) {
        self.one.stop().await;
        if let Some(other) = self.other {
            other.stop().await;
        }
    }
}

/// Publishes these over the API and gives the epoch of the room.
async fn say(node: &Gateway, room: &str, numbers: impl IntoIterator<Item = u64>) -> String {
    let mut epoch = String::new();
    for number in numbers {
        let (status, answer) = node.api("publish", &json!({"channel": room, "data": {"n": number}})).await;
        assert_eq!((status, &answer["result"]["offset"]), (200, &json!(number)), "{answer}");
        answer["result"]["epoch"].as_str().expect("it has an epoch").clone_into(&mut epoch);
    }
    epoch
}

/// The answer to subscribing with these fields beside the room, on a connection of its own.
async fn come_back(node: &Gateway, room: &str, fields: Value) -> (Client, Value) {
    let mut client = Client::connected(node.clients, "ann").await;
    let mut request = fields;
    request["channel"] = room.into();
    let reply = client.ask(json!({"subscribe": request})).await;
    (client, reply)
}

/// The publications of a reply, as their offsets; each has to say so as well.
fn offsets(result: &Value) -> Vec<u64> {
    let publications = result["publications"].as_array().cloned().unwrap_or_default();
    let offset = |publication: &Value| {
        assert_eq!(publication["offset"], publication["data"]["n"]);
        publication["offset"].as_u64().expect("an offset")
    };
    publications.iter().map(offset).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_back_is_given_what_it_missed_on_any_node() {
    for pair in Pair::both().await {
        let whole = say(&pair.one, "rec:a", 1..=5).await;
        for (offset, missed) in [(5, vec![]), (4, vec![5]), (2, vec![3, 4, 5]), (0, vec![1, 2, 3, 4, 5])] {
            for epoch in [whole.as_str(), ""] {
                let wants = json!({"recover": true, "offset": offset, "epoch": epoch});
                let (client, reply) = come_back(pair.other(), "rec:a", wants).await;
                let result = &reply["subscribe"];
                assert_eq!(offsets(result), missed, "{reply}");
                assert_eq!((&result["recovered"], &result["was_recovering"]), (&json!(true), &json!(true)));
                assert_eq!((&result["positioned"], &result["recoverable"]), (&json!(true), &json!(true)));
                // An offset of 0 is left out.
                assert_eq!(result["offset"].as_u64().unwrap_or(0), offset, "the place it came with");
                assert_eq!(result["epoch"], whole);
                drop(client);
            }
        }
        let (mut client, _) =
            come_back(pair.other(), "rec:a", json!({"recover": true, "offset": 5, "epoch": whole})).await;
        say(&pair.one, "rec:a", 6..=6).await;
        assert_eq!(client.next().await["push"]["pub"], json!({"data": {"n": 6}, "offset": 6}));
        drop(client);
        pair.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_be_given_what_it_missed_is_told_where_the_room_stands() {
    for pair in Pair::both().await {
        let epoch = say(&pair.one, "small:a", 1..=5).await;
        // The history holds 3, 4 and 5.
        for (offset, of) in [(1, epoch.as_str()), (0, &epoch), (9, &epoch), (3, "other"), (0, "_"), (5, "other")] {
            let wants = json!({"recover": true, "offset": offset, "epoch": of});
            let (client, reply) = come_back(pair.other(), "small:a", wants.clone()).await;
            let told = json!({
                "recoverable": true, "positioned": true, "was_recovering": true, "offset": 5, "epoch": epoch,
            });
            assert_eq!(reply["subscribe"], told, "from {offset} of {of}");
            drop(client);
            let mut refusing = wants;
            refusing["flag"] = json!(2);
            let (mut client, reply) = come_back(pair.other(), "small:a", refusing).await;
            assert_eq!(reply["error"], json!({"code": 112, "message": "unrecoverable position"}));
            // It is in no room by that, and may enter without its place.
            let reply = client.ask(json!({"subscribe": {"channel": "small:a", "flag": 2}})).await;
            assert_eq!(reply["subscribe"]["offset"], 5, "{reply}");
        }
        let (client, reply) =
            come_back(pair.other(), "small:a", json!({"recover": true, "offset": 2, "epoch": epoch, "flag": 2})).await;
        assert_eq!(offsets(&reply["subscribe"]), [3, 4, 5], "{reply}");
        drop(client);
        pair.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_given_more_than_the_limit() {
    for pair in Pair::both().await {
        let epoch = say(&pair.one, "large:a", 1..=305).await;
        let (client, reply) =
            come_back(pair.other(), "large:a", json!({"recover": true, "offset": 5, "epoch": epoch})).await;
        assert_eq!(offsets(&reply["subscribe"]), (6..=305).collect::<Vec<_>>());
        let (other, reply) =
            come_back(pair.other(), "large:a", json!({"recover": true, "offset": 4, "epoch": epoch})).await;
        assert_eq!((&reply["subscribe"]["recovered"], &reply["subscribe"]["offset"]), (&Value::Null, &json!(305)));
        assert!(offsets(&reply["subscribe"]).is_empty());
        drop((client, other));
        pair.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_for_the_first_time_is_told_the_position() {
    for pair in Pair::both().await {
        for (room, recoverable) in [("pos:a", Value::Null), ("rec:p", json!(true))] {
            let (client, reply) = come_back(&pair.one, room, json!({})).await;
            let fresh = &reply["subscribe"];
            assert_eq!((&fresh["positioned"], &fresh["recoverable"]), (&json!(true), &recoverable));
            assert_eq!((&fresh["offset"], &fresh["was_recovering"]), (&Value::Null, &Value::Null), "{fresh}");
            let epoch = say(&pair.one, room, 1..=3).await;
            assert_eq!(fresh["epoch"], epoch, "a room has its epoch before anything is said in it");
            let (other, reply) = come_back(pair.other(), room, json!({})).await;
            assert_eq!((&reply["subscribe"]["offset"], &reply["subscribe"]["epoch"]), (&json!(3), &json!(epoch)));
            assert_eq!(reply["subscribe"]["publications"], Value::Null);
            drop((client, other));
        }
        // Where only the position is kept, nothing is given back, and that is said.
        let (client, reply) = come_back(&pair.one, "pos:a", json!({"recover": true, "offset": 1})).await;
        let result = &reply["subscribe"];
        assert_eq!(
            (&result["was_recovering"], &result["recovered"], &result["offset"]),
            (&json!(true), &Value::Null, &json!(3))
        );
        drop(client);
        pair.stop().await;
    }
}

#[tokio::test]
async fn positions_are_kept_for_those_who_ask_and_may() {
    let pair = Pair::memory().await;
    let both = json!({"positioned": true, "recoverable": true});
    let cases = [
        ("asked:a", json!({}), false, false),
        ("asked:b", json!({"positioned": true}), true, false),
        ("asked:c", json!({"recoverable": true}), true, true),
        ("asked:d", both.clone(), true, true),
        ("read:a", both.clone(), true, true),
        ("plain:a", both, false, false),
    ];
    for (room, wants, positioned, recoverable) in cases {
        let (client, reply) = come_back(&pair.one, room, wants).await;
        let told = |key: &str| reply["subscribe"][key] == true;
        assert_eq!((told("positioned"), told("recoverable")), (positioned, recoverable), "{room}: {reply}");
        assert_eq!(reply["subscribe"]["epoch"].is_string(), positioned);
        drop(client);
    }
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_cache_the_newest_is_given() {
    for pair in Pair::both().await {
        let (client, reply) = come_back(&pair.one, "cache:a", json!({"recover": true})).await;
        assert_eq!(reply["subscribe"]["recovered"], Value::Null, "there is nothing yet: {reply}");
        drop(client);
        let epoch = say(&pair.one, "cache:a", 1..=4).await;
        for (wants, given) in [
            (json!({"recover": true, "offset": 1, "epoch": epoch}), vec![4]),
            (json!({"recover": true}), vec![4]),
            (json!({"recover": true, "offset": 7, "epoch": "other"}), vec![4]),
            (json!({"recover": true, "offset": 4, "epoch": epoch}), vec![]),
        ] {
            let (client, reply) = come_back(pair.other(), "cache:a", wants.clone()).await;
            let result = &reply["subscribe"];
            assert_eq!((&result["recovered"], offsets(result)), (&json!(true), given), "{wants}: {reply}");
            // What counts in another history says nothing in this one.
            let offset = if wants["epoch"] == "other" { &json!(4) } else { &wants["offset"] };
            assert_eq!(result["offset"].as_u64(), offset.as_u64(), "{wants}: {reply}");
            drop(client);
        }
        let (client, reply) = come_back(pair.other(), "cache:a", json!({})).await;
        assert_eq!((&reply["subscribe"]["recovered"], &reply["subscribe"]["offset"]), (&Value::Null, &json!(4)));
        drop(client);

        say(&pair.one, "state:a", 1..=2).await;
        let (mut client, reply) = come_back(pair.other(), "state:a", json!({})).await;
        let result = &reply["subscribe"];
        assert_eq!((&result["recovered"], &result["was_recovering"]), (&json!(true), &json!(true)), "without asking");
        assert_eq!(offsets(result), [2]);
        say(&pair.one, "state:a", 3..=3).await;
        assert_eq!(client.hear("state:a").await, json!({"n": 3}));
        drop(client);
        pair.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_hold_for_what_was_missed_as_well() {
    for pair in Pair::both().await {
        let mut epoch = Value::Null;
        for (number, kind) in [(1, "goal"), (2, "foul"), (3, "goal"), (4, "foul")] {
            let publication = json!({"channel": "tags:a", "data": {"n": number}, "tags": {"kind": kind}});
            epoch = pair.one.api("publish", &publication).await.1["result"]["epoch"].clone();
        }
        let filter = json!({"key": "kind", "cmp": "eq", "val": "goal"});
        let wants = json!({"recover": true, "offset": 0, "epoch": epoch, "tf": filter});
        let (mut client, reply) = come_back(pair.other(), "tags:a", wants).await;
        assert_eq!((offsets(&reply["subscribe"]), &reply["subscribe"]["recovered"]), (vec![1, 3], &json!(true)));
        for (number, kind) in [(5, "foul"), (6, "goal")] {
            pair.one.api("publish", &json!({"channel": "tags:a", "data": {"n": number}, "tags": {"kind": kind}})).await;
        }
        assert_eq!(client.hear("tags:a").await, json!({"n": 6}));
        drop(client);
        for (room, filter) in [("rec:t", json!({"key": "k", "cmp": "eq"})), ("tags:a", json!({"op": "none"}))] {
            let (client, reply) = come_back(&pair.one, room, json!({"tf": filter})).await;
            assert_eq!(reply["error"]["code"], 107, "{reply}");
            drop(client);
        }
        pair.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_deltas_is_given_texts_and_hears_the_next_one_whole() {
    for pair in Pair::both().await {
        let epoch = say(&pair.one, "tags:d", 1..=3).await;
        let wants = json!({"recover": true, "offset": 1, "epoch": epoch, "delta": "fossil"});
        let (mut client, reply) = come_back(pair.other(), "tags:d", wants).await;
        let result = &reply["subscribe"];
        assert_eq!((&result["delta"], &result["recovered"]), (&json!(true), &json!(true)), "{reply}");
        let first = &result["publications"][0];
        assert_eq!((&first["data"], &first["delta"]), (&json!(r#"{"n":2}"#), &Value::Null));
        assert!(result["publications"][1]["data"].is_string());
        say(&pair.one, "tags:d", 4..=4).await;
        assert_eq!(client.next().await["push"]["pub"], json!({"data": r#"{"n":4}"#, "offset": 4}));
        let (other, reply) = come_back(&pair.one, "rec:d", json!({"delta": "fossil"})).await;
        assert_eq!(reply["subscribe"]["delta"], Value::Null, "the room has none");
        drop((client, other));
        pair.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rooms_of_a_token_recover_with_the_connection() {
    for pair in Pair::both().await {
        let rec = json!({"override": {"force_recovery": {"value": true}}});
        let claims = json!({"sub": "ann", "subs": {"rec:s": {}, "plain:s": rec, "asked:s": {}}});
        let mut client = Client::open(pair.one.clients).await;
        let reply = client.ask(json!({"connect": {"token": token(&claims)}})).await;
        let subs = &reply["connect"]["subs"];
        for room in ["rec:s", "plain:s"] {
            assert_eq!(
                (&subs[room]["recoverable"], &subs[room]["positioned"]),
                (&json!(true), &json!(true)),
                "{reply}"
            );
        }
        assert_eq!(subs["asked:s"], json!({}));
        let epochs = ["rec:s", "plain:s"].map(|room| subs[room]["epoch"].clone());
        drop(client);
        for room in ["rec:s", "plain:s"] {
            say(&pair.one, room, 1..=3).await;
        }
        let mut client = Client::open(pair.other().clients).await;
        let seen = json!({
            "rec:s": {"recover": true, "offset": 1, "epoch": epochs[0]},
            "plain:s": {"recover": true, "offset": 1, "epoch": "other"},
        });
        let reply = client.ask(json!({"connect": {"token": token(&claims), "subs": seen}})).await;
        let subs = &reply["connect"]["subs"];
        assert_eq!((offsets(&subs["rec:s"]), &subs["rec:s"]["offset"]), (vec![2, 3], &json!(1)), "{reply}");
        let lost = (&subs["plain:s"]["recovered"], &subs["plain:s"]["offset"], &subs["plain:s"]["was_recovering"]);
        assert_eq!(lost, (&Value::Null, &json!(3), &json!(true)));
        say(&pair.one, "plain:s", 4..=4).await;
        assert_eq!(client.hear("plain:s").await, json!({"n": 4}));
        // It may leave them like any other.
        assert_eq!(client.ask(json!({"unsubscribe": {"channel": "rec:s"}})).await["unsubscribe"], json!({}));
        say(&pair.one, "rec:s", 4..=4).await;
        say(&pair.one, "plain:s", 5..=5).await;
        assert_eq!(client.next().await["push"]["channel"], "plain:s");
        drop(client);
        pair.stop().await;
    }
}

/// All of them come in one frame each, as clients do when a node was restarted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_come_back_together_share_what_is_read_for_them() {
    const CLIENTS: usize = 400;
    const ROOMS: usize = 4;
    let redis = RedisServer::start();
    let node = Gateway::start(&format!("redis.url = {:?}\n{RULES}", redis.url()));
    node.ready().await;
    let mut epochs = Vec::new();
    for room in 0..ROOMS {
        epochs.push(say(&node, &format!("rec:{room}"), 1..=5).await);
    }
    let before = commands(&redis);
    let clients = join_all((0..CLIENTS).map(|number| {
        let (room, node) = (number % ROOMS, &node);
        let wants = json!({"recover": true, "offset": number % 6, "epoch": epochs[room]});
        async move { (number % 6, come_back(node, &format!("rec:{room}"), wants).await) }
    }));
    for (offset, (_, reply)) in clients.await {
        let missed: Vec<_> = (offset as u64 + 1..=5).collect();
        assert_eq!((offsets(&reply["subscribe"]), &reply["subscribe"]["recovered"]), (missed, &json!(true)), "{reply}");
    }
    let cost = commands(&redis) - before;
    assert!(cost < CLIENTS / 2, "{cost} commands for {CLIENTS} clients");
    node.stop().await;
}

/// A node of theirs is gone, and all of one room come to the others at one moment, from different places in it, while it is
/// spoken in: each is given exactly what it missed, and Redis is asked far less often than there are clients.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_who_come_back_to_one_room_at_once_are_all_given_what_they_missed() {
    const CLIENTS: u64 = 1000;
    const SAID: u64 = 250;
    const ALL: u64 = SAID + 20;
    // A thousand sockets at both their ends: the usual soft limit is 1024.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let redis = RedisServer::start();
    let settings = format!("redis.url = {:?}\n{RULES}", redis.url());
    let nodes = [Gateway::start(&settings), Gateway::start(&settings)];
    for node in &nodes {
        node.ready().await;
    }
    let epoch = say(&nodes[0], "large:storm", 1..=SAID).await;
    let clients = (0..CLIENTS).map(|number| {
        let address = nodes[usize::from(number % 2 == 0)].clients;
        async move { (number % (SAID + 1), Client::connected(address, "ann").await) }
    });
    let clients = join_all(clients).await;
    let before = commands(&redis);
    let (returned, ()) = tokio::join!(
        join_all(clients.into_iter().map(|(offset, client)| recovered(client, offset..ALL, &epoch))),
        async { drop(say(&nodes[0], "large:storm", SAID + 1..=ALL).await) },
    );
    let cost = commands(&redis) - before;
    assert!(cost < returned.len() / 4, "{cost} commands for {} clients", returned.len());
    for heard in returned {
        let from = heard.first().copied().unwrap_or_default();
        assert_eq!(heard, (from..=ALL).collect::<Vec<_>>());
    }
    for node in nodes {
        node.stop().await;
    }
}

/// What is said in bursts lies in Redis in packs, and clients come back from places within them, while more is said.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_comes_back_to_the_midst_of_a_burst_is_given_the_rest_of_it() {
    const ALL: u64 = 250;
    let redis = RedisServer::start();
    let settings = format!("redis.url = {:?}\n{RULES}", redis.url());
    let nodes = [Gateway::start(&settings), Gateway::start(&settings)];
    for node in &nodes {
        node.ready().await;
    }
    let mut rng = StdRng::seed_from_u64(rand::rng().random());
    let mut said = 0;
    let mut epoch = String::new();
    while said < 150 {
        let count = rng.random_range(1..60);
        epoch = say_at_once(&nodes[0], "large:storm", said + 1..=said + count).await;
        said += count;
    }
    let entries: u64 = redis.command(&["XLEN", "roomcast.stream.{.large:storm}"])[0].parse().expect("a count");
    assert!(entries < said / 2, "{entries} entries of {said} publications");
    let clients = (0..=said).map(|offset| {
        let node = &nodes[usize::from(offset % 2 == 0)];
        async move { (offset, Client::connected(node.clients, "ann").await) }
    });
    let clients = join_all(clients).await;
    let more = async {
        for begin in (said + 1..=ALL).step_by(30) {
            say_at_once(&nodes[1], "large:storm", begin..=ALL.min(begin + 29)).await;
        }
    };
    let back = clients.into_iter().map(|(offset, client)| recovered(client, offset..ALL, &epoch));
    let (returned, ()) = tokio::join!(join_all(back), more);
    for (offset, heard) in returned.into_iter().enumerate() {
        assert_eq!(heard, (offset as u64..=ALL).collect::<Vec<_>>());
    }
    for node in nodes {
        node.stop().await;
    }
}

/// Publishes these over the API in one call and gives the epoch of the room.
async fn say_at_once(node: &Gateway, room: &str, numbers: RangeInclusive<u64>) -> String {
    let publish = |number| json!({"publish": {"channel": room, "data": {"n": number}}});
    let commands: Vec<_> = numbers.clone().map(publish).collect();
    let (status, answer) = node.api("batch", &json!({"commands": commands})).await;
    assert_eq!(status, 200, "{answer}");
    let results = answer["result"]["replies"].as_array().or(answer["replies"].as_array()).expect("replies");
    let offsets: Vec<_> = results.iter().map(|reply| reply["publish"]["offset"].as_u64()).collect();
    assert_eq!(offsets, numbers.map(Some).collect::<Vec<_>>(), "{answer}");
    results[0]["publish"]["epoch"].as_str().expect("an epoch").to_owned()
}

/// Comes back to the room with the first of these places and listens up to the last; gives the first, and what it was told.
async fn recovered(mut client: Client, places: Range<u64>, epoch: &str) -> Vec<u64> {
    let wants = json!({"channel": "large:storm", "recover": true, "offset": places.start, "epoch": epoch});
    let reply = client.ask(json!({"subscribe": wants})).await;
    assert_eq!(reply["subscribe"]["recovered"], true, "from {places:?}: {reply}");
    let mut heard = vec![places.start];
    heard.extend(offsets(&reply["subscribe"]));
    while heard.last() != Some(&places.end) {
        heard.push(client.hear("large:storm").await["n"].as_u64().expect("a number"));
    }
    heard
}

/// Commands that clients of Redis have sent so far, those within scripts not counted.
fn commands(redis: &RedisServer) -> usize {
    let stats = redis.command(&["INFO", "commandstats"]).concat();
    let calls = |name: &str| {
        let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{name}:calls=")));
        line.and_then(|line| line.split(',').next()?.parse::<usize>().ok()).unwrap_or(0)
    };
    ["subscribe", "evalsha", "eval", "evalsha_ro", "eval_ro", "fcall"].iter().map(|name| calls(name)).sum()
}

/// Commands of one frame: the client speaks, leaves, and is back with its place, all at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaving_and_coming_back_in_one_frame_is_in_order() {
    for pair in Pair::both().await {
        let (mut client, reply) = come_back(&pair.one, "rec:f", json!({})).await;
        let epoch = &reply["subscribe"]["epoch"];
        for round in 0..20_u64 {
            let mut lines = String::new();
            for command in [
                json!({"id": 10, "publish": {"channel": "rec:f", "data": {"n": round + 1}}}),
                json!({"id": 11, "unsubscribe": {"channel": "rec:f"}}),
                json!({"id": 12, "subscribe": {"channel": "rec:f", "recover": true, "offset": round, "epoch": epoch}}),
            ] {
                let _ = writeln!(lines, "{command}");
            }
            client.send(lines.trim_end()).await;
            loop {
                let message = client.next().await;
                if message["id"] == 12 {
                    assert_eq!(offsets(&message["subscribe"]), [round + 1], "{message}");
                    break;
                }
            }
        }
        drop(client);
        pair.stop().await;
    }
}

/// Rooms in which what the history says cannot be understood do not keep those of other rooms from being told what they
/// missed, neither when Redis is heard again nor later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spoiled_history_keeps_nobody_else_from_being_told() {
    const CLIENTS: usize = 6;
    const ROOMS: usize = 100;
    let redis = RedisServer::start();
    let settings = format!("redis.url = {:?}\nclient.ping_interval = \"0s\"\n", redis.url());
    let node = Gateway::start(&format!("{settings}channel.position_check_delay = \"3s\"\n{RULES}"));
    node.ready().await;
    let mut clients = Vec::new();
    for client in 0..CLIENTS {
        clients.push(Client::connected(node.clients, "ann").await);
        for room in 0..ROOMS {
            let request = json!({"subscribe": {"channel": format!("pos:{client}-{room}")}});
            assert_eq!(clients[client].ask(request).await["subscribe"]["positioned"], true);
        }
    }
    let set = |kind: &str, room: &str, value: &str| {
        redis.command(&["SET", &format!("roomcast.{kind}.{{.pos:{room}}}"), value]);
    };
    // The order in which rooms are compared is nobody's choice: there are enough of these, and of those that lose something,
    // for one of these to come in a batch before a loss.
    for client in 0..CLIENTS {
        set("meta", &format!("{client}-0"), "spoiled");
        set("top", &format!("{client}-0"), "1");
    }
    // The histories grow, and nobody hears of it.
    let lose = |client: usize| (1..ROOMS).for_each(|room| set("top", &format!("{client}-{room}"), "1"));
    lose(0);
    redis.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    told_of_losses(&mut clients[0], 0, ROOMS).await;
    lose(1);
    told_of_losses(&mut clients[1], 1, ROOMS).await;
    drop(clients);
    node.stop().await;
}

/// Listens until the client has been told that it missed something in each of its rooms but the first.
async fn told_of_losses(client: &mut Client, number: usize, rooms: usize) {
    let mut left: HashSet<_> = (1..rooms).map(|room| format!("pos:{number}-{room}")).collect();
    while !left.is_empty() {
        let push = &client.next().await["push"];
        assert_eq!(push["unsubscribe"]["code"], 2500, "{push}");
        let room = push["channel"].as_str().expect("a room");
        assert!(left.remove(room), "{room} lost nothing");
    }
}
