//! Nodes among each other over one Redis: who is there, commands for each other's sessions, questions, and facts in common.

#![allow(clippy::unwrap_used, reason = "a test fails where what it needs fails")]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::future::join_all;
use roomcast::{
    broker::{BrokerError, Control},
    node::cluster::{
        Command, ConnectionInfo, Disconnect, Filter, Overload, Overrides, Refresh, Since, Subscribe, Survey,
        SurveyError, Target, Unsubscribe, Upstreamed,
    },
};

#[path = "common/node.rs"]
mod node;
#[path = "common/recorder.rs"]
mod recorder;
#[path = "common/redis.rs"]
mod redis;

use node::{Plan, TestNode, until};
use recorder::DEADLINE;
use redis::RedisServer;

const LONG: Duration = Duration::from_mins(10);

/// Starts nodes of these names that know each other.
async fn nodes<const N: usize>(server: &RedisServer, plans: [Plan; N]) -> [TestNode; N] {
    let nodes = plans.each_ref().map(|plan| TestNode::start(server, plan));
    for (number, node) in nodes.iter().enumerate() {
        let mut names = vec![plans[number].name];
        names.extend(plans.iter().map(|plan| plan.name).filter(|name| *name != plans[number].name));
        names[1..].sort_unstable();
        node.until_knows(&names).await;
    }
    nodes
}

async fn stop<const N: usize>(nodes: [TestNode; N]) {
    for node in nodes {
        node.stop().await;
    }
}

fn slow(name: &'static str) -> Plan {
    Plan { beat: LONG, patience: Duration::from_millis(500), ..Plan::of(name) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_know_each_other_and_what_each_of_them_holds() {
    let server = RedisServer::start();
    let [one, two, three] = nodes(&server, ["one", "two", "three"].map(Plan::of)).await;
    two.seat("a", 3).await;
    two.seat("b", 1).await;
    let told = || one.cluster.nodes().into_iter().find(|node| node.name == "two").unwrap();
    until("a beat tells it", || told().num_subs == 4, || format!("{:?}", told())).await;
    let info = told();
    assert_eq!((info.num_channels, info.num_clients, info.num_users), (2, 0, 0));
    assert_eq!((info.version.as_str(), info.uid.as_str()), (env!("CARGO_PKG_VERSION"), &**two.cluster.uid()));
    let uids: BTreeSet<_> = one.cluster.nodes().into_iter().map(|node| node.uid).collect();
    assert_eq!(uids.len(), 3);
    assert_eq!(&*one.cluster.nodes()[0].uid, &**one.cluster.uid(), "itself first");
    stop([one, two, three]).await;
}

/// Beats are ten minutes apart: it is not they that make the nodes known.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_know_each_other_at_once_and_again_after_a_cut() {
    let server = RedisServer::start();
    let [one, two] = nodes(&server, ["one", "two"].map(slow)).await;
    let third = TestNode::start(&server, &slow("zero"));
    third.until_knows(&["zero", "one", "two"]).await;
    one.until_knows(&["one", "two", "zero"]).await;
    stop([third]).await;
    one.until_knows(&["one", "two"]).await;
    two.until_knows(&["two", "one"]).await;
    stop([one, two]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_node_is_forgotten_after_three_missed_beats_and_one_that_says_goodbye_at_once() {
    let server = RedisServer::start();
    let beat = Duration::from_millis(300);
    let plan = |name| Plan { beat, ..Plan::of(name) };
    let [one, mut two, three] = nodes(&server, ["one", "two", "three"].map(plan)).await;
    let killed = Instant::now();
    two.kill();
    one.until_knows(&["one", "three"]).await;
    assert!(killed.elapsed() >= beat * 2, "not after {:?}", killed.elapsed());
    let left = Instant::now();
    three.cluster.leave().wait().await.unwrap();
    one.until_knows(&["one"]).await;
    assert!(left.elapsed() < beat * 3, "only after {:?}", left.elapsed());
    // It lives on, but does not come back by beating.
    tokio::time::sleep(beat * 2).await;
    assert_eq!(one.knows(), ["one"]);
    stop([one, three]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_reach_the_sessions_of_every_node_once_whole_and_in_order() {
    let server = RedisServer::start();
    let [one, two, three] = nodes(&server, ["one", "two", "three"].map(Plan::of)).await;
    let target = Some(Target::of_user("ann", "", "a session"));
    let since = Some(Since { offset: 7, epoch: "abcdefgh".to_owned() });
    let overrides = Some(Overrides { presence: Some(false), force_recovery: Some(true), ..Overrides::default() });
    let subscribe = Subscribe { room: "news".to_owned(), info: "{}".into(), since, overrides, ..Subscribe::default() };
    let mut commands = vec![
        Command::Subscribe(Subscribe { target: target.clone(), data: "\0\u{1}".into(), expire_at: 99, ..subscribe }),
        Command::Unsubscribe(Unsubscribe {
            target: target.clone(),
            code: 2000,
            reason: "why".to_owned(),
            ..Default::default()
        }),
        Command::Disconnect(Disconnect {
            target: target.clone(),
            whitelist: vec!["c".to_owned()],
            code: 3503,
            ..Default::default()
        }),
        Command::Refresh(Refresh { target, expired: true, info: Some(Bytes::new()), ..Default::default() }),
    ];
    for number in 0..200 {
        commands.push(Command::Unsubscribe(Unsubscribe { room: format!("{number}"), ..Default::default() }));
    }
    for command in &commands {
        drop(one.cluster.command(command.clone()));
    }
    assert_eq!(one.sessions.executed(), commands, "its own at once");
    for node in [&two, &three] {
        let executed = || node.sessions.executed();
        until("all of them", || executed().len() >= commands.len(), || format!("{}", executed().len())).await;
        assert_eq!(executed(), commands);
    }
    two.cluster.command(commands[0].clone()).wait().await.unwrap();
    until("it comes back", || one.sessions.executed().len() == commands.len() + 1, String::new).await;
    assert_eq!(one.sessions.executed().len(), commands.len() + 1, "what it said itself did not come again");
    stop([one, two, three]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_does_not_understand_it_passes_over() {
    let server = RedisServer::start();
    let [one, two] = nodes(&server, ["one", "two"].map(Plan::of)).await;
    // Of no form at all; of another version; of an unknown kind; a command and a question of an unknown kind.
    let envelope = |version: u8, rest: &[u8]| [&[8, version, 18, 1, b'x'], rest].concat();
    let ask = [&[50, 4, 8, 3, 250, 1][..], &[0]].concat();
    let unknown: [Vec<u8>; 5] = [
        b"hello".to_vec(),
        envelope(9, &[34, 0]),
        envelope(1, &[250, 1, 1, b'?']),
        envelope(1, &[42, 3, 250, 1, 0]),
        envelope(1, &ask),
    ];
    for message in unknown {
        two.broker.tell(None, message.into()).wait().await.unwrap();
    }
    let command = Command::Refresh(Refresh::default());
    two.cluster.command(command.clone()).wait().await.unwrap();
    until(
        "the next command",
        || one.sessions.executed() == [command.clone()],
        || format!("{:?}", one.sessions.executed()),
    )
    .await;
    stop([one, two]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rooms_of_all_nodes_are_counted_together() {
    let server = RedisServer::start();
    let [one, two, three] = nodes(&server, ["one", "two", "three"].map(Plan::of)).await;
    one.seat("news:a", 2).await;
    two.seat("news:a", 1).await;
    two.seat("news:b", 1).await;
    three.seat("other", 4).await;
    let rooms = async |pattern| {
        let Survey { answer, silent } = one.cluster.rooms(pattern).await.unwrap();
        assert!(silent.is_empty(), "{silent:?}");
        answer
    };
    let named =
        |rooms: &[(&str, u64)]| rooms.iter().map(|(room, n)| ((*room).to_owned(), *n)).collect::<BTreeMap<_, _>>();
    assert_eq!(rooms("").await, named(&[("news:a", 3), ("news:b", 1), ("other", 4)]));
    assert_eq!(rooms("news:*").await, named(&[("news:a", 3), ("news:b", 1)]));
    assert_eq!(rooms("nothing*").await, named(&[]));
    assert!(one.cluster.rooms("[").await.is_err());
    stop([one, two, three]).await;
}

/// More than one message takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_answer_comes_whole() {
    let server = RedisServer::start();
    let [one, two] = nodes(&server, ["one", "two"].map(Plan::of)).await;
    let name = |number: usize| format!("{number:0>200}");
    let holds: Vec<_> = (0..4_000).map(|number| two.seat(Box::leak(name(number).into_boxed_str()), 1)).collect();
    for hold in holds {
        hold.await;
    }
    let Survey { answer, silent } = one.cluster.rooms("").await.unwrap();
    assert!(silent.is_empty(), "{silent:?}");
    assert_eq!(answer, (0..4_000).map(|number| (name(number), 1)).collect::<BTreeMap<_, _>>());
    stop([one, two]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_connections_of_all_nodes_are_walked_in_pages() {
    let server = RedisServer::start();
    let [one, two] = nodes(&server, ["one", "two"].map(Plan::of)).await;
    let names: Vec<_> = (0..250).map(|number| format!("client-{number:03}")).collect();
    for (number, client) in names.iter().enumerate() {
        let (node, user) = ([&one, &two][number % 2], ["ann", "ben", "eve"][number % 3]);
        let info = ConnectionInfo {
            client: client.clone(),
            user: user.to_owned(),
            rooms: vec!["a".to_owned()],
            ..ConnectionInfo::default()
        };
        node.sessions.connections.lock().unwrap().insert(client.clone(), info);
    }
    let walk = async |filter: Filter, limit| {
        let (mut all, mut cursor) = (Vec::new(), String::new());
        loop {
            let Survey { answer, silent } = one.cluster.connections(filter.clone(), &cursor, limit).await.unwrap();
            assert!(silent.is_empty() && answer.connections.len() <= limit as usize);
            all.extend(answer.connections);
            cursor = answer.cursor;
            if cursor.is_empty() {
                return all;
            }
        }
    };
    for limit in [1, 7, 50, 249, 250, 10_000] {
        let all = walk(Filter::default(), limit).await;
        assert!(all.iter().map(|one| &one.client).eq(&names), "in pages of {limit}");
        let node = |number: usize| [one.cluster.uid(), two.cluster.uid()][number % 2];
        assert!(all.iter().enumerate().all(|(number, found)| found.node == **node(number)));
    }
    let ben = walk(Filter { user: Some("ben".to_owned()), ..Filter::default() }, 10).await;
    assert_eq!((ben.len(), ben.iter().all(|one| one.user == "ben" && one.rooms == ["a"])), (83, true));
    stop([one, two]).await;
}

/// Beats are so far apart that nobody takes notice of its end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_node_would_have_answered_is_missing_and_said_to_be() {
    let server = RedisServer::start();
    let [one, two, mut dead] = nodes(&server, ["one", "two", "dead"].map(slow)).await;
    one.seat("a", 1).await;
    two.seat("a", 1).await;
    dead.seat("a", 1).await;
    assert_eq!(one.cluster.rooms("").await.unwrap().answer["a"], 3);
    dead.kill();
    let begin = Instant::now();
    let Survey { answer, silent } = one.cluster.rooms("").await.unwrap();
    assert_eq!((answer["a"], silent), (2, vec!["dead".to_owned()]));
    assert!((Duration::from_millis(500)..DEADLINE).contains(&begin.elapsed()), "{:?}", begin.elapsed());
    let Survey { silent, .. } = one.cluster.connections(Filter::default(), "", 10).await.unwrap();
    assert_eq!(silent, ["dead"]);
    let upstream = one.cluster.upstream("dead", "s", "x".into()).await;
    assert_eq!(upstream, Err(BrokerError::Timeout(Duration::from_millis(500))));
    stop([one, two]).await;
}

/// Questions that nobody answers are bounded, and who asks beyond that is told so at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_so_many_questions_are_open_at_a_time() {
    let server = RedisServer::start();
    let patience = Duration::from_secs(2);
    let plans = ["one", "two", "dead"].map(|name| Plan { patience, ..slow(name) });
    let [one, two, mut dead] = nodes(&server, plans).await;
    two.sessions.upstream.lock().unwrap().insert("s".to_owned(), Vec::new());
    dead.kill();
    // All of them are asked before any patience is over.
    let surveys = join_all((0..300).map(|_| one.cluster.rooms("")));
    let upstream = join_all((0..300).map(|_| one.cluster.upstream("dead", "s", "x".into())));
    let other = one.cluster.upstream("two", "s", "x".into());
    let (surveys, upstream, other) = tokio::join!(surveys, upstream, other);
    // The other one takes some of them at a time, and may be silent to the rest.
    let dead = |survey: &Survey<_>| survey.silent.iter().any(|name| name == "dead");
    let silent = |survey: &&Result<Survey<_>, _>| survey.as_ref().is_ok_and(dead);
    let overload = Err(SurveyError::Overload(Overload::Questions));
    assert_eq!(surveys.iter().filter(silent).count(), 256);
    assert_eq!(surveys.iter().filter(|survey| **survey == overload).count(), 44);
    assert_eq!(upstream.iter().filter(|answer| **answer == Err(BrokerError::Timeout(patience))).count(), 256);
    assert_eq!(upstream.iter().filter(|answer| **answer == Ok(Upstreamed::Busy)).count(), 44);
    assert_eq!(other, Ok(Upstreamed::Taken), "a node that is silent is in no other's way");
    assert_eq!(one.cluster.rooms("").await.unwrap().silent, ["dead"], "there is place again");
    stop([one, two]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_for_a_session_is_passed_on_to_its_node_in_order() {
    let server = RedisServer::start();
    let [one, two] = nodes(&server, ["one", "two"].map(Plan::of)).await;
    two.sessions.upstream.lock().unwrap().insert("s".to_owned(), Vec::new());
    let uid = two.cluster.uid().to_string();
    for number in 0..100 {
        let (from, to) = ([&one, &two][number % 2], [uid.as_str(), "two"][number % 2]);
        let outcome = from.cluster.upstream(to, "s", format!("{number}").into()).await;
        assert_eq!(outcome, Ok(Upstreamed::Taken), "{number}");
    }
    let came = two.sessions.upstream.lock().unwrap()["s"].clone();
    assert_eq!(came, (0..100).map(|number| Bytes::from(number.to_string())).collect::<Vec<_>>());
    assert_eq!(one.cluster.upstream(&uid, "s", "x".into()).await, Ok(Upstreamed::Busy));
    for (node, session) in [("two", "another"), ("one", "s"), ("nobody", "s"), ("", "s")] {
        assert_eq!(one.cluster.upstream(node, session, "x".into()).await, Ok(Upstreamed::Unknown), "{node} {session}");
    }
    stop([one, two]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn facts_reach_every_node_also_one_that_starts_later() {
    let server = RedisServer::start();
    let [one, two] = nodes(&server, ["one", "two"].map(Plan::of)).await;
    one.cluster.keep_fact("user:ann", "blocked".into(), LONG).await.unwrap();
    assert_eq!(one.facts.names(), ["user:ann"], "its own at once");
    two.facts.until(&["user:ann"]).await;
    two.cluster.keep_fact("token:1", "".into(), LONG).await.unwrap();
    one.facts.until(&["token:1", "user:ann"]).await;
    let late = TestNode::start(&server, &Plan::of("late"));
    late.facts.until(&["token:1", "user:ann"]).await;
    assert!(late.cluster.knows_facts());
    late.cluster.forget_fact("user:ann").await.unwrap();
    for node in [&one, &two, &late] {
        node.facts.until(&["token:1"]).await;
    }
    stop([one, two, late]).await;
}

/// What was kept or forgotten while a node could not hear is found when it hears again. Nobody tells it here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn facts_are_read_again_after_a_cut() {
    let server = RedisServer::start();
    let [one, two] = nodes(&server, ["one", "two"].map(slow)).await;
    one.cluster.keep_fact("old", "1".into(), LONG).await.unwrap();
    two.facts.until(&["old"]).await;
    one.broker.keep("new", "2".into(), LONG).wait().await.unwrap();
    one.broker.forget("old").wait().await.unwrap();
    server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    two.facts.until(&["new"]).await;
    one.facts.until(&["new"]).await;
    stop([one, two]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_find_each_other_after_redis_was_away() {
    let mut server = RedisServer::start();
    let [one, two] = nodes(&server, ["one", "two"].map(Plan::of)).await;
    server.kill();
    one.until_knows(&["one"]).await;
    two.until_knows(&["two"]).await;
    assert!(one.cluster.keep_fact("a", "1".into(), LONG).await.is_err());
    assert!(one.facts.names().is_empty(), "what is not kept does not hold");
    assert_eq!(one.cluster.rooms("").await.unwrap(), Survey::default(), "it is alone");
    server.restart();
    one.until_knows(&["one", "two"]).await;
    two.until_knows(&["two", "one"]).await;
    one.cluster.keep_fact("a", "1".into(), LONG).await.unwrap();
    two.facts.until(&["a"]).await;
    stop([one, two]).await;
}
