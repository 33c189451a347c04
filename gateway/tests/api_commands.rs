//! Commands of the server API for sessions, given on a node that does not hold them, over memory (one node) and Redis (two).

mod common;

use std::time::{SystemTime, UNIX_EPOCH};

use common::{Client, Gateway, PATIENCE, Stream, Value, json, redis::RedisServer, token};
use roomcast_shared::protocol::Encoding;

const SETTINGS: &str = "rooms.presence = true\n";

/// Where commands are given, and where clients are; the same node where there is no Redis.
struct Place {
    asked: Gateway,
    holding: Option<Gateway>,
    _redis: Option<RedisServer>,
}

impl Place {
    async fn both() -> [Self; 2] {
        Self::both_with("").await
    }

    async fn both_with(settings: &str) -> [Self; 2] {
        let settings = format!("{SETTINGS}{settings}");
        let memory = Self { asked: Gateway::open(&settings), holding: None, _redis: None };
        let redis = RedisServer::start();
        let settings = format!("{settings}redis.url = {:?}", redis.url());
        let (asked, holding) = (Gateway::open(&settings), Gateway::open(&settings));
        let cluster = Self { asked, holding: Some(holding), _redis: Some(redis) };
        cluster.asked.ready().await;
        cluster.holding().ready().await;
        // What is told to all is heard by nodes that know of each other.
        for node in [&cluster.asked, cluster.holding()] {
            until(node, "info", json!({}), |answer| {
                answer["result"]["nodes"].as_array().is_some_and(|all| all.len() == 2)
            })
            .await;
        }
        [memory, cluster]
    }

    fn holding(&self) -> &Gateway {
        self.holding.as_ref().unwrap_or(&self.asked)
    }

    async fn done(&self, method: &str, request: Value) {
        assert_eq!(self.asked.api(method, &request).await, (200, json!({"result": {}})), "{method} {request}");
    }

    async fn refused(&self, method: &str, request: Value, code: u32) {
        let (status, answer) = self.asked.api(method, &request).await;
        assert_eq!((status, &answer["error"]["code"]), (200, &json!(code)), "{method} {request}: {answer}");
    }

    async fn stop(self) {
        self.asked.stop().await;
        if let Some(holding) = self.holding {
            holding.stop().await;
        }
    }
}

/// Asks until the answer is as wanted; gives it.
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

/// A connected client and its id.
async fn connect(node: &Gateway, user: &str) -> (Client, String) {
    let mut client = Client::open(node.clients).await;
    let reply = client.ask(json!({"connect": {"token": token(&json!({"sub": user}))}})).await;
    let id = reply["connect"]["client"].as_str().expect("a client id").to_owned();
    (client, id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disconnect_closes_those_that_are_meant() {
    for place in Place::both().await {
        let (mut one, id) = connect(place.holding(), "ann").await;
        let (two, _) = connect(place.holding(), "ann").await;
        let (mut ben, _) = connect(place.holding(), "ben").await;
        place.done("disconnect", json!({"user": "ann", "whitelist": [id]})).await;
        assert_eq!(two.ended().await, Some((3503, "force disconnect".to_owned())));
        place.done("disconnect", json!({"user": "ben", "client": id})).await;
        let own = json!({"code": 4501, "reason": "moved"});
        place.done("disconnect", json!({"user": "ann", "client": id, "disconnect": own})).await;
        assert_eq!(one.closed().await, Some((4501, "moved".to_owned())), "the whitelist and ben's request kept it");
        place.done("disconnect", json!({"user": "ben", "disconnect": {"code": 3011}})).await;
        assert_eq!(ben.closed().await, Some((3011, "force reconnect".to_owned())));
        drop((one, ben));
        place.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscribe_and_unsubscribe_move_clients() {
    for place in Place::both().await {
        let (mut client, _) = connect(place.holding(), "ann").await;
        place
            .done(
                "subscribe",
                json!({"user": "ann", "channel": "lobby", "data": {"d": 2}, "b64info": "eyJzZWF0IjoxfQ=="}),
            )
            .await;
        let push = json!({"push": {"channel": "lobby", "subscribe": {"data": {"d": 2}}}});
        assert_eq!(client.next().await, push);
        let present = until(&place.asked, "presence", json!({"channel": "lobby"}), |answer| {
            answer["result"]["presence"].as_object().is_some_and(|all| all.len() == 1)
        });
        let present = present.await["result"]["presence"].as_object().expect("an object").clone();
        assert_eq!(present.values().next().expect("one")["chan_info"], json!({"seat": 1}));
        place.asked.publish("lobby", &json!(1)).await;
        assert_eq!(client.hear("lobby").await, json!(1));
        place.done("unsubscribe", json!({"user": "ann", "channel": "lobby"})).await;
        let push = client.next().await;
        assert_eq!(push["push"]["unsubscribe"]["code"], 2000, "{push}");
        drop(client);
        place.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unsubscribe_puts_clients_out() {
    for place in Place::both().await {
        let (mut client, _) = connect(place.holding(), "ann").await;
        client.subscribe("lobby").await;
        place.done("unsubscribe", json!({"user": "ann", "channel": "lobby"})).await;
        let push = client.next().await;
        let wanted = json!({"channel": "lobby", "unsubscribe": {"code": 2000, "reason": "server unsubscribe"}});
        assert_eq!(push["push"], wanted);
        drop(client);
        place.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refresh_ends_connections_that_are_good_no_longer() {
    for place in Place::both().await {
        let (mut client, _) = connect(place.holding(), "ann").await;
        place.done("refresh", json!({"user": "ann", "expire_at": 0})).await;
        assert_eq!(client.next().await["push"], json!({"refresh": {}}));
        place.done("refresh", json!({"user": "ann", "expired": true})).await;
        assert_eq!(client.closed().await, Some((3005, "connection expired".to_owned())));
        drop(client);
        place.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocked_users_and_revoked_tokens_stay_away() {
    for place in Place::both().await {
        let (mut client, _) = connect(place.holding(), "ann").await;
        place.done("block_user", json!({"user": "ann", "ttl": 60})).await;
        assert_eq!(client.closed().await.map(|(code, _)| code), Some(3503));
        let mut again = Client::open(place.holding().clients).await;
        again.send(&json!({"id": 1, "connect": {"token": token(&json!({"sub": "ann"}))}}).to_string()).await;
        assert_eq!(again.closed().await.map(|(code, _)| code), Some(3503));
        place.done("unblock_user", json!({"user": "ann"})).await;
        let revoked = token(&json!({"sub": "ben", "jti": "t1"}));
        place.done("revoke_token", json!({"jti": "t1", "ttl": 60})).await;
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            // The other node hears of it a moment later.
            let mut ben = Client::open(place.holding().clients).await;
            ben.send(&json!({"id": 1, "connect": {"token": revoked}}).to_string()).await;
            let first = ben.frame().await.expect("an answer");
            if first.opcode == 8 {
                assert_eq!(common::client::close(&first).0, 3500);
                break;
            }
            assert!(tokio::time::Instant::now() < deadline, "the token is still accepted");
        }
        let (ann, _) = connect(place.holding(), "ann").await;
        drop((client, again, ann));
        place.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_that_make_no_sense_are_refused() {
    for place in Place::both().await {
        for method in ["disconnect", "unsubscribe", "refresh"] {
            place.refused(method, json!({}), 107).await;
            place.refused(method, json!({"client": ""}), 107).await;
            place.refused(method, json!({"user": 1}), 107).await;
        }
        place.refused("subscribe", json!({"user": "ann"}), 107).await;
        place.refused("subscribe", json!({"channel": "lobby"}), 107).await;
        place.refused("subscribe", json!({"user": "ann", "channel": "nope:x"}), 102).await;
        place.refused("subscribe", json!({"user": "ann", "channel": "lobby", "b64info": "%"}), 107).await;
        place.refused("unsubscribe", json!({"user": "ann", "channel": "nope:x"}), 102).await;
        for code in [json!(1), json!(2999), json!(3999), json!(5000), json!(70_000), json!(-1)] {
            place.refused("disconnect", json!({"user": "ann", "disconnect": {"code": code, "reason": "x"}}), 107).await;
        }
        for method in ["revoke_token", "invalidate_user_tokens", "block_user", "unblock_user"] {
            place.refused(method, json!({}), 107).await;
        }
        place.refused("block_user", json!({"user": "ann", "expire_at": 1}), 107).await;
        place.refused("invalidate_user_tokens", json!({"user": "ann", "channel": "lobby"}), 108).await;
        place.refused("rpc", json!({}), 107).await;
        place.refused("rpc", json!({"method": "m", "params": [1]}), 104).await;
        place.stop().await;
    }
}

/// Enters a room by a token of these claims beside user and room.
async fn enter(client: &mut Client, user: &str, room: &str, claims: Value) {
    let mut all = json!({"sub": user, "channel": room});
    for (claim, value) in claims.as_object().expect("claims") {
        all[claim] = value.clone();
    }
    let reply = client.ask(json!({"subscribe": {"channel": room, "token": token(&all)}})).await;
    assert!(reply["subscribe"].is_object(), "{reply}");
}

/// The room that the client is told to leave because its token is void.
async fn left(client: &mut Client) -> Value {
    let push = client.next().await["push"].clone();
    assert_eq!(push["unsubscribe"], json!({"code": 2502, "reason": "state invalidated"}), "{push}");
    push["channel"].clone()
}

/// A time that no decision of these tests is about.
const LATE: u64 = 9_000_000_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_entered_by_a_token_that_is_revoked_is_left_on_every_node() {
    for place in Place::both().await {
        for (round, node) in [&place.asked, place.holding()].into_iter().enumerate() {
            let user = format!("ann{round}");
            let mut client = Client::open(node.clients).await;
            client.ask(json!({"connect": {"token": token(&json!({"sub": user, "iat": LATE}))}})).await;
            let jti = |name: &str| json!(format!("{name}{round}"));
            enter(&mut client, &user, "$by_name", json!({"jti": jti("a"), "iat": LATE})).await;
            enter(&mut client, &user, "$prolonged", json!({"jti": jti("a"), "exp": LATE})).await;
            enter(&mut client, &user, "$old", json!({"iat": 500})).await;
            enter(&mut client, &user, "$nameless", json!({})).await;
            enter(&mut client, &user, "$other", json!({"jti": jti("b"), "iat": LATE})).await;
            client.subscribe("lobby").await;
            let newer = json!({"sub": user, "channel": "$prolonged", "jti": jti("c"), "iat": LATE,
                "exp": LATE});
            let reply = client.ask(json!({"sub_refresh": {"channel": "$prolonged", "token": token(&newer)}})).await;
            assert_eq!(reply["sub_refresh"]["expires"], true, "{reply}");

            place.done("revoke_token", json!({"jti": jti("a"), "ttl": 600})).await;
            assert_eq!(left(&mut client).await, "$by_name");
            let again = token(&json!({"sub": user, "channel": "$by_name", "iat": LATE}));
            let reply = client.ask(json!({"subscribe": {"channel": "$by_name", "token": again}})).await;
            assert!(reply["subscribe"].is_object(), "with another token it may come back: {reply}");

            place.done("revoke_token", json!({"user": user, "issued_before": 1000, "ttl": 600})).await;
            let mut rooms = [left(&mut client).await, left(&mut client).await];
            rooms.sort_by_key(Value::to_string);
            assert_eq!(rooms, ["$nameless", "$old"]);
            for room in ["lobby", "$by_name", "$prolonged", "$other"] {
                place.asked.publish(room, &json!(room)).await;
                assert_eq!(client.hear(room).await, json!(room), "it is still there");
            }
            // What was left is not looked for any more.
            client.ask(json!({"unsubscribe": {"channel": "$other"}})).await;
            place.done("revoke_token", json!({"jti": jti("b"), "ttl": 600})).await;
            place.done("revoke_token", json!({"jti": jti("c"), "ttl": 600})).await;
            assert_eq!(left(&mut client).await, "$prolonged");
        }
        place.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscribe_recovers_whichever_epoch_where_none_is_named() {
    let kept = "rooms.history_size = 10\nrooms.history_ttl = \"60s\"\nrooms.allow_recovery = true\n";
    for place in Place::both_with(kept).await {
        for number in 1..=3 {
            let answer = place.asked.api("publish", &json!({"channel": "lobby", "data": number})).await;
            assert_eq!(answer.1["result"]["offset"], number, "{}", answer.1);
        }
        let (_, history) = place.asked.api("history", &json!({"channel": "lobby"})).await;
        let cases = [
            (json!({"offset": 1}), vec![2, 3]),
            (json!({"offset": 1, "epoch": ""}), vec![2, 3]),
            (json!({"offset": 2, "epoch": history["result"]["epoch"]}), vec![3]),
            (json!({"offset": 1, "epoch": "another"}), vec![]),
            (json!({"offset": 1, "epoch": "no epoch that any history could have"}), vec![]),
        ];
        for (since, missed) in cases {
            let (mut client, id) = connect(place.holding(), "ann").await;
            let recovery = json!({"force_recovery": {"value": true}});
            let request = json!({"client": id, "channel": "lobby", "recover_since": since, "override": recovery});
            place.done("subscribe", request).await;
            let push = client.next().await["push"].clone();
            assert_eq!(push["subscribe"]["recoverable"], true, "{push}");
            for data in missed {
                assert_eq!(client.hear("lobby").await, json!(data), "{since}");
            }
            place.done("unsubscribe", json!({"client": id, "channel": "lobby"})).await;
            let push = client.next().await;
            assert_eq!(push["push"]["unsubscribe"]["code"], 2000, "{since}: {push}");
        }
        place.stop().await;
    }
}

fn from_now(seconds: u64) -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() + seconds
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_put_into_a_room_for_a_time_comes_back_when_it_is_over() {
    for place in Place::both_with("client.expired_sub_close_delay = \"0s\"\n").await {
        let (mut client, _) = connect(place.holding(), "ann").await;
        let (mut other, _) = connect(place.holding(), "ben").await;
        for (user, room, seconds) in [("ann", "long", 600), ("ann", "short", 4), ("ben", "long", 600)] {
            place.done("subscribe", json!({"user": user, "channel": room, "expire_at": from_now(seconds)})).await;
        }
        for room in ["long", "short"] {
            // The push of the protocol has no field for the end.
            assert_eq!(client.next().await["push"], json!({"channel": room, "subscribe": {}}));
        }
        place.asked.publish("short", &json!(1)).await;
        assert_eq!(client.hear("short").await, json!(1), "its time is not over");
        assert_eq!(client.closed().await, Some((3006, "subscription expired".to_owned())));
        place.asked.publish("long", &json!(2)).await;
        assert_eq!(other.hear("long").await, json!(2), "its time is not over");
        drop((client, other));
        place.stop().await;
    }
}

/// What a stream is told next in a push of that kind.
async fn told(stream: &mut Stream, kind: &str) -> Value {
    loop {
        let message = stream.next().await;
        if message["push"][kind].is_object() {
            return message["push"].clone();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_secret_of_a_session_means_that_session_alone() {
    for place in Place::both().await {
        let address = place.holding().clients;
        let open = async |path| Stream::connected(address, path, Encoding::Json, "ann").await;
        let (mut meant, mut other) = (open("/connection/sse").await, open("/connection/http_stream").await);
        let session = meant.session.clone();
        place.done("subscribe", json!({"session": session, "channel": "lobby"})).await;
        assert_eq!(told(&mut meant, "subscribe").await["channel"], "lobby");
        place.done("unsubscribe", json!({"session": session, "channel": "lobby"})).await;
        assert_eq!(told(&mut meant, "unsubscribe").await["unsubscribe"]["code"], 2000);
        place.done("refresh", json!({"session": session, "expire_at": from_now(600)})).await;
        assert_eq!(told(&mut meant, "refresh").await["refresh"]["expires"], true);
        for nobody in [json!({"session": "unknown"}), json!({"user": "ben", "session": session})] {
            place.done("disconnect", nobody).await;
        }
        place.done("subscribe", json!({"session": session, "user": "ann", "channel": "all"})).await;
        assert_eq!(told(&mut meant, "subscribe").await["channel"], "all");
        place.done("disconnect", json!({"session": session})).await;
        assert_eq!(meant.closed().await, Some((3503, "force disconnect".to_owned())));
        // Commands are carried out in their order, so this one shows that none of those before meant the other session.
        place.done("subscribe", json!({"user": "ann", "channel": "last"})).await;
        let push = json!({"push": {"channel": "last", "subscribe": {}}});
        assert_eq!(other.next().await, push);
        drop((meant, other));
        place.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_see_and_how_long_it_lasts_is_said_anew_by_refresh() {
    for place in Place::both().await {
        let (mut client, id) = connect(place.holding(), "ann").await;
        let own = json!({"presence": {"value": true}});
        let request = json!({"client": id, "channel": "lobby", "info": {"seat": 4}, "data": [1], "override": own});
        place.done("subscribe", request).await;
        assert_eq!(client.next().await["push"]["subscribe"], json!({"data": [1]}));
        let seen = async |wanted: Value| {
            let place_of = format!("/result/presence/{id}");
            until(&place.asked, "presence", json!({"channel": "lobby"}), |answer| {
                answer.pointer(&place_of).is_some_and(|one| *one == wanted)
            })
            .await
        };
        seen(json!({"user": "ann", "client": id, "chan_info": {"seat": 4}})).await;
        place.done("refresh", json!({"client": id, "expire_at": from_now(600), "info": {"name": "Ann"}})).await;
        let refresh = client.next().await["push"]["refresh"].clone();
        assert_eq!(refresh["expires"], true, "{refresh}");
        assert!(refresh["ttl"].as_u64().is_some_and(|ttl| (500..=600).contains(&ttl)), "{refresh}");
        seen(json!({"user": "ann", "client": id, "conn_info": {"name": "Ann"}, "chan_info": {"seat": 4}})).await;
        drop(client);
        place.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unsubscribe_without_a_room_means_all_of_them() {
    for place in Place::both().await {
        let (mut client, id) = connect(place.holding(), "ann").await;
        let (mut other, _) = connect(place.holding(), "ann").await;
        for room in ["one", "two", "three"] {
            client.subscribe(room).await;
            other.subscribe(room).await;
        }
        place.done("unsubscribe", json!({"user": "ann", "client": id})).await;
        let mut left = Vec::new();
        for _ in 0..3 {
            let push = client.next().await["push"].clone();
            assert_eq!(push["unsubscribe"]["code"], 2000, "{push}");
            left.push(push["channel"].as_str().expect("a room").to_owned());
        }
        left.sort();
        assert_eq!(left, ["one", "three", "two"]);
        place.asked.publish("one", &json!(1)).await;
        assert_eq!(other.hear("one").await, json!(1), "the other connection of the user is not meant");
        drop((client, other));
        place.stop().await;
    }
}

/// What was decided before a node started holds there as well; whoever comes before it has read that goes as soon as it has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_starts_later_knows_who_is_revoked_and_blocked() {
    let redis = RedisServer::start();
    let settings = format!("{SETTINGS}redis.url = {:?}", redis.url());
    let first = Gateway::open(&settings);
    first.ready().await;
    let decisions = [
        ("revoke_token", json!({"jti": "t1", "ttl": 600})),
        ("invalidate_user_tokens", json!({"user": "ben", "issued_before": 1000, "ttl": 600})),
        ("block_user", json!({"user": "cid"})),
    ];
    for (method, request) in decisions {
        assert_eq!(first.api(method, &request).await, (200, json!({"result": {}})), "{method}");
    }
    first.stop().await;
    let later = Gateway::open(&settings);
    later.ready().await;
    let cases = [
        (json!({"sub": "ann", "jti": "t1"}), Some(3500)),
        (json!({"sub": "ann", "jti": "t2"}), None),
        (json!({"sub": "ben", "iat": 999}), Some(3500)),
        (json!({"sub": "ben", "iat": 1000}), None),
        (json!({"sub": "cid", "iat": LATE}), Some(3503)),
    ];
    for (claims, wanted) in cases {
        let mut client = Client::open(later.clients).await;
        client.send(&json!({"id": 1, "connect": {"token": token(&claims)}}).to_string()).await;
        match wanted {
            Some(_) => assert_eq!(client.closed().await.map(|close| close.0), wanted, "{claims}"),
            None => assert!(client.next().await["connect"].is_object(), "{claims}"),
        }
    }
    later.stop().await;
}
