//! What other nodes have the sessions of a node do, and what all nodes know of revoked tokens and blocked users: told by
//! another member of the cluster, over a real Redis.

mod common;

use std::{
    io::{self, IoSlice},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use common::{Client, Gateway, Value, json, redis::RedisServer, token};
use roomcast::{
    auth::Entry,
    broker::{
        Broker,
        memory::MemoryBroker,
        redis::{RedisBroker, RedisOptions},
    },
    config::Settings,
    hub::{self, Hub, Mail, Outbox, Sink, Wire},
    metrics::Metrics,
    node::{
        Node,
        cluster::{
            Cluster, Command, ConnectionInfo, Disconnect, Filter, Floors, Local, Options, Refresh, Subscribe, Target,
            Unsubscribe, Upstreamed,
        },
    },
    session::{Admission, Context, Heartbeat, Revoked, Session},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// A member that has no sessions.
struct Nobody;

impl Local for Nobody {
    fn execute(&self, _: &Command) {}

    fn upstream(&self, _: &str, _: Bytes) -> Upstreamed {
        Upstreamed::Unknown
    }

    fn connections(&self, _: &Filter, _: &str, _: usize) -> Vec<ConnectionInfo> {
        Vec::new()
    }
}

/// Another member of the node's cluster, which knows the node.
async fn another(redis: &RedisServer) -> Arc<Cluster> {
    let (stop, tracker, metrics) = (CancellationToken::new(), TaskTracker::new(), Arc::new(Metrics::new()));
    let hub = Arc::new(Hub::new(1 << 20, metrics.clone(), tracker.clone()));
    let options = RedisOptions::new(redis.url());
    let control = RedisBroker::start(&options, hub.clone(), metrics, &tracker, stop.clone()).expect("a broker");
    let floors = Floors { hub, control, local: Arc::new(Nobody), facts: Arc::new(()) };
    let options = Options { beat: Duration::from_millis(100), ..Options::new("another") };
    let cluster = Cluster::start(options, floors, &tracker, &stop);
    let known = async {
        while cluster.nodes().len() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(common::PATIENCE, known).await.expect("it hears of the node");
    cluster
}

#[expect(clippy::unnecessary_wraps, reason = "commands have it so")]
fn of(user: &str) -> Option<Target> {
    Some(Target::of_user(user, "", ""))
}

async fn push(client: &mut Client, kind: &str) -> Value {
    loop {
        let message = client.next().await;
        if message["push"][kind].is_object() {
            return message["push"][kind].clone();
        }
    }
}

async fn come(node: &Gateway, claims: &Value) -> (Client, Value) {
    let mut client = Client::open(node.clients).await;
    let reply = client.ask(json!({"connect": {"token": token(claims)}})).await;
    (client, reply["connect"]["client"].clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_are_put_into_rooms_and_out_again() {
    let redis = RedisServer::start();
    let node = Gateway::start(&format!("redis.url = {:?}\n", redis.url()));
    node.ready().await;
    let cluster = another(&redis).await;
    let (mut ann, id) = come(&node, &json!({"sub": "ann"})).await;
    let mut bob = Client::connected(node.clients, "bob").await;
    for room in ["one", "two"] {
        let order = Subscribe {
            target: of("ann"),
            room: room.to_owned(),
            data: Bytes::from_static(b"{\"hi\":1}"),
            ..Subscribe::default()
        };
        cluster.command(Command::Subscribe(order)).wait().await.expect("it is told");
        assert_eq!(push(&mut ann, "subscribe").await, json!({"data": {"hi": 1}}));
    }
    node.publish("one", &json!(1)).await;
    assert_eq!(ann.hear("one").await, json!(1));
    let order = |client: &str, room: &str, code, reason: &str| Unsubscribe {
        target: Some(Target::of_user("ann", client, "")),
        room: room.to_owned(),
        code,
        reason: reason.to_owned(),
    };
    let id = id.as_str().expect("an id");
    cluster.command(Command::Unsubscribe(order("nobody", "one", 2000, ""))).wait().await.expect("it is told");
    cluster.command(Command::Unsubscribe(order(id, "one", 2100, "moved"))).wait().await.expect("it is told");
    assert_eq!(push(&mut ann, "unsubscribe").await, json!({"code": 2100, "reason": "moved"}));
    cluster.command(Command::Unsubscribe(order("", "", 2000, ""))).wait().await.expect("it is told");
    assert_eq!(push(&mut ann, "unsubscribe").await, json!({"code": 2000, "reason": "server unsubscribe"}));
    assert_eq!(bob.ask(json!({"unsubscribe": {"channel": "x"}})).await["unsubscribe"], json!({}), "bob is not meant");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_end_as_they_are_told() {
    let redis = RedisServer::start();
    let node = Gateway::start(&format!("redis.url = {:?}\n", redis.url()));
    node.ready().await;
    let cluster = another(&redis).await;
    let (mut stays, id) = come(&node, &json!({"sub": "ann"})).await;
    let (mut goes, _) = come(&node, &json!({"sub": "ann"})).await;
    let whitelist = vec![id.as_str().expect("an id").to_owned()];
    let order = Disconnect { target: of("ann"), whitelist, code: 4501, reason: "bye".to_owned() };
    cluster.command(Command::Disconnect(order)).wait().await.expect("it is told");
    assert_eq!(goes.closed().await, Some((4501, "bye".to_owned())));
    let order = Refresh { target: of("ann"), expired: false, expire_at: i64::MAX, info: None };
    cluster.command(Command::Refresh(order)).wait().await.expect("it is told");
    assert_eq!(push(&mut stays, "refresh").await["expires"], true);
    let order = Refresh { target: of("ann"), expired: true, expire_at: 0, info: None };
    cluster.command(Command::Refresh(order)).wait().await.expect("it is told");
    assert_eq!(stays.closed().await, Some((3005, "connection expired".to_owned())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_revoked_or_blocked_goes_and_does_not_come_back() {
    let redis = RedisServer::start();
    let node = Gateway::open(&format!("redis.url = {:?}\n", redis.url()));
    node.ready().await;
    let cluster = another(&redis).await;
    let cases = [
        (Entry::Token { jti: "t1".into(), until: None }, json!({"sub": "ann", "jti": "t1"}), 3500),
        (
            Entry::IssuedBefore { user: "bob".into(), before: 1000, until: None },
            json!({"sub": "bob", "iat": 999}),
            3500,
        ),
        (Entry::IssuedBefore { user: "cid".into(), before: 1000, until: None }, json!({"sub": "cid"}), 3500),
        (Entry::Blocked { user: "dan".into(), until: None }, json!({"sub": "dan", "iat": 5000}), 3503),
    ];
    let (mut other_token, _) = come(&node, &json!({"sub": "ann", "jti": "t2"})).await;
    let (mut newer, _) = come(&node, &json!({"sub": "bob", "iat": 1000})).await;
    for (entry, claims, code) in &cases {
        let (mut client, _) = come(&node, claims).await;
        let (name, fact) = (Revoked::fact_name(entry), Revoked::fact(entry));
        cluster.keep_fact(&name, fact, Duration::from_mins(10)).await.expect("it is kept");
        assert_eq!(client.closed().await.map(|close| close.0), Some(*code), "{claims}");
        let mut again = Client::open(node.clients).await;
        again.send(&json!({"id": 1, "connect": {"token": token(claims)}}).to_string()).await;
        assert_eq!(again.closed().await.map(|close| close.0), Some(*code), "{claims} comes back");
    }
    other_token.subscribe("r").await;
    newer.subscribe("r").await;
    // A token for a room is one as well.
    let revoked = json!({"sub": "ann", "channel": "$x", "jti": "t1"});
    other_token.send(&json!({"id": 70, "subscribe": {"channel": "$x", "token": token(&revoked)}}).to_string()).await;
    assert_eq!(other_token.closed().await.map(|close| close.0), Some(3500));
    // And back again.
    cluster.forget_fact(&Revoked::fact_name(&cases[3].0)).await.expect("it is forgotten");
    let back = async {
        loop {
            let mut client = Client::open(node.clients).await;
            client.send(&json!({"id": 1, "connect": {"token": token(&cases[3].1)}}).to_string()).await;
            let frame = client.frame().await.expect("an answer");
            if frame.opcode == 1 {
                return;
            }
        }
    };
    tokio::time::timeout(common::PATIENCE, back).await.expect("dan may come again");
}

/// Has a client that may be in two rooms be told all of these while Redis holds what it said in the room `r`, and gives it
/// afterwards.
async fn told_while_it_speaks(orders: &[[&str; 2]]) -> (RedisServer, Gateway, Client) {
    let redis = RedisServer::start();
    let settings = "redis.io_timeout = \"30s\"\nrooms.allow_publish_for_client = true\nclient.channel_limit = 2\n";
    let node = Gateway::open(&format!("redis.url = {:?}\n{settings}", redis.url()));
    node.ready().await;
    let mut ann = Client::connected(node.clients, "ann").await;
    redis.pause();
    ann.send(&json!({"id": 90, "publish": {"channel": "r", "data": 0}}).to_string()).await;
    // It is answered at once: what came before it has begun.
    ann.ask(json!({"unsubscribe": {"channel": "elsewhere"}})).await;
    let told = orders.iter().map(|[order, room]| json!({*order: {"user": "ann", "channel": room}}));
    let last = json!({"refresh": {"user": "ann", "expire_at": 4_000_000_000_u64}});
    let commands: Vec<_> = told.chain([last]).collect();
    let batch = json!({"parallel": true, "commands": commands});
    let heard = async {
        push(&mut ann, "refresh").await;
        redis.resume();
    };
    let ((status, answer), ()) = tokio::join!(node.api("batch", &batch), heard);
    assert_eq!(status, 200, "{answer}");
    (redis, node, ann)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_put_in_twice_while_it_speaks_hears_everything_once() {
    let (_redis, node, mut ann) = told_while_it_speaks(&[["subscribe", "r"]; 2]).await;
    push(&mut ann, "subscribe").await;
    for data in 1..=2 {
        node.publish("r", &json!(data)).await;
    }
    let mut heard = Vec::new();
    while heard.last() != Some(&json!(2)) {
        let message = ann.next().await;
        assert!(!message["push"]["subscribe"].is_object(), "it is there already: {message}");
        // What it said itself may have come before it was in the room or after.
        heard.extend(message["push"]["pub"].get("data").filter(|data| **data != json!(0)).cloned());
    }
    assert_eq!(heard, [json!(1), json!(2)]);
    assert_eq!(node.count("roomcast_subscriptions").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_put_in_and_out_while_it_speaks_is_out() {
    let (_redis, node, mut ann) = told_while_it_speaks(&[["subscribe", "r"], ["unsubscribe", "r"]]).await;
    push(&mut ann, "subscribe").await;
    assert_eq!(push(&mut ann, "unsubscribe").await, json!({"code": 2000, "reason": "server unsubscribe"}));
    assert_eq!(node.count("roomcast_subscriptions").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_entering_rooms_is_not_put_into_more_than_it_may_be_in() {
    let rooms = ["r", "s", "t"].map(|room| ["subscribe", room]);
    let (_redis, node, mut ann) = told_while_it_speaks(&rooms).await;
    push(&mut ann, "subscribe").await;
    push(&mut ann, "subscribe").await;
    node.publish("s", &json!(1)).await;
    assert_eq!(ann.hear("s").await, json!(1));
    assert_eq!(node.count("roomcast_subscriptions").await, 2);
}

/// A client that takes nothing.
struct Nowhere;

impl Sink for Nowhere {
    fn try_write(&self, _: &[IoSlice<'_>]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
}

/// Whoever is still connecting cannot be put anywhere yet, and takes its time.
#[tokio::test]
async fn orders_that_have_to_wait_are_bounded() {
    let (metrics, tracker) = (Arc::new(Metrics::new()), TaskTracker::new());
    let hub = Arc::new(Hub::new(1 << 20, metrics.clone(), tracker.clone()));
    let broker = Broker::from(MemoryBroker::new(hub.clone(), metrics.clone()));
    let node = Arc::new(Node::new("test", hub, broker, tracker));
    let context = Arc::new(Context::new(node, None, Arc::new(Settings::default()), metrics));
    let admission = || Admission {
        wire: Wire::JsonWebSocket,
        heartbeat: Heartbeat::Protocol,
        bearer: None,
        address: [127, 0, 0, 1].into(),
        headers: None,
    };
    // The backend may have much to say of each room.
    let large = hub::Subscribe { data: vec![b'1'; 100_000].into(), ..hub::Subscribe::default() };
    for (order, most) in [(hub::Subscribe::default(), 1024), (large, 2)] {
        let mut session = Session::new(context.clone(), Arc::new(Outbox::new(Nowhere, 1 << 20)), admission());
        let mut told = 0;
        let end = loop {
            match session.take_mail(vec![Mail::Subscribe(Box::new(order.clone()))]) {
                Ok(()) => told += 1,
                Err(end) => break end,
            }
            assert!(told < 10_000, "whatever it is told is kept");
        };
        assert_eq!((told, end.code), (most, 3011));
    }
}
