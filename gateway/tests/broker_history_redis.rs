//! What rooms remember in Redis when things go wrong there: scripts, keys or all data lost, entries and keys of others,
//! refusals. What every broker promises is asked in `broker_history`.

#![allow(clippy::unwrap_used, reason = "a test fails where what it needs fails")]

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use rand::{Rng, SeedableRng, rngs::StdRng};
use roomcast::{
    broker::{
        Append, Appended, BrokerError, Health, History, Keep, Page, Slice,
        redis::{RedisBroker, RedisOptions},
    },
    metrics::Metrics,
};
use roomcast_shared::{event::Said, position::Position, publication::Publication};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

#[path = "common/brokers.rs"]
mod brokers;

use brokers::{Backend, DEADLINE, Node, Recorder, RedisServer, numbers};

const KEEP: Keep = Keep { size: 100, ttl: Duration::from_mins(1), meta_ttl: Duration::from_mins(10) };
const EVERYTHING: Page = Page { since: None, limit: 1000, reverse: false, meta_ttl: KEEP.meta_ttl };

fn kept(keep: Keep) -> Append {
    Append { keep: Some(keep), ..Append::default() }
}

fn publication(data: impl Into<Bytes>) -> Said {
    Publication { data: data.into(), ..Publication::default() }.into()
}

impl Node {
    async fn append(&self, room: &str, data: impl Into<Bytes>) -> Result<Appended, BrokerError> {
        self.history.append(room, publication(data), &kept(KEEP)).wait().await
    }

    async fn keep(&self, room: &str, data: impl Into<Bytes>) -> Position {
        self.append(room, data).await.unwrap().position.unwrap()
    }

    async fn read(&self, room: &str) -> Result<Slice, BrokerError> {
        self.history.read(room, &EVERYTHING).wait().await
    }

    async fn offsets(&self, room: &str) -> Vec<u64> {
        self.read(room).await.unwrap().publications.iter().map(|publication| publication.offset).collect()
    }
}

fn server(backend: &Backend) -> &RedisServer {
    backend.server.as_ref().unwrap()
}

/// How many publications each entry of a room's stream has.
fn entries(server: &RedisServer, room: &str) -> Vec<usize> {
    let words = server.command(&["XRANGE", &format!("roomcast.stream.{{.{room}}}"), "-", "+"]);
    words.chunks(3).map(|entry| if entry[1] == "d" { 1 } else { entry[1].parse().unwrap() }).collect()
}

/// Appends many at once, so many that some have to wait, and gives what became of each.
async fn burst(node: &Node, room: &str, data: Vec<Bytes>, append: &Append) -> Vec<Result<Appended, BrokerError>> {
    join_all(
        data.into_iter().map(|data| node.history.append(room, publication(data), append).wait()).collect::<Vec<_>>(),
    )
    .await
}

/// The same where each is made; gives the offsets.
async fn burst_made(node: &Node, room: &str, data: Vec<Bytes>) -> Vec<u64> {
    let answers = burst(node, room, data, &kept(KEEP)).await;
    answers.into_iter().map(|answer| answer.unwrap().position.unwrap().offset).collect()
}

/// How often Redis was asked for a script that it did not know.
fn unknown_scripts(server: &RedisServer) -> usize {
    let stats = server.command(&["INFO", "errorstats"]).concat();
    let count = stats.split("errorstat_NOSCRIPT:count=").nth(1).map_or("0", |rest| rest.lines().next().unwrap());
    count.trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scripts_flushed_under_load_lose_nothing_and_change_no_order() {
    const ROUND: usize = 500;
    let backend = Backend::redis();
    let server = server(&backend);
    let nodes = [backend.node(), backend.node()];
    nodes[0].subscribe("a").await;
    nodes[0].keep("b", "first").await;
    let mut begin = 0;
    while unknown_scripts(server) < 50 {
        let calls = numbers(begin..begin + ROUND).into_iter().enumerate().map(|(number, data)| match number % 7 {
            // Some need no script, and must not overtake those that have to be written again.
            0 => nodes[0].history.append("a", publication(data), &Append::default()).wait(),
            _ => nodes[0].history.append("a", publication(data), &kept(KEEP)).wait(),
        });
        let calls: Vec<_> = calls.collect();
        // The other node brings the script back at any moment.
        let others = (0..50).map(|_| nodes[1].history.append("b", publication("x"), &kept(KEEP)).wait());
        let others: Vec<_> = others.collect();
        server.commands(&[&["SCRIPT", "FLUSH"][..]; 20]);
        let (calls, others) = tokio::join!(join_all(calls), join_all(others));
        assert!(calls.iter().chain(&others).all(|answer| answer.as_ref().is_ok_and(|appended| appended.fresh)));
        begin += ROUND;
        assert!(begin < 1_000_000, "scripts are never missed");
    }
    assert_eq!(nodes[0].recorder.wait("a", begin).await, numbers(0..begin));
    let heard =
        nodes[0].recorder.said("a").into_iter().map(|said| said.publication.offset).filter(|offset| *offset > 0);
    let heard: Vec<u64> = heard.collect();
    assert_eq!(heard, (1..=heard.len() as u64).collect::<Vec<_>>());
    assert_eq!(nodes[1].read("a").await.unwrap().top.offset, heard.len() as u64);
    assert!(entries(server, "a").iter().any(|count| *count > 1), "packs");
    backend.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_brings_its_script_back() {
    let backend = Backend::redis();
    let node = backend.node();
    let place = node.keep("a", "0").await;
    for _ in 0..5 {
        server(&backend).command(&["SCRIPT", "FLUSH"]);
        let reads = (0..20).map(|_| node.history.read("a", &EVERYTHING).wait());
        for slice in join_all(reads.collect::<Vec<_>>()).await {
            assert_eq!(slice.unwrap().top, place);
        }
    }
    assert!(unknown_scripts(server(&backend)) >= 5);
    backend.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_comes_back_without_its_data_begins_new_epochs() {
    let mut backend = Backend::redis();
    let node = backend.node();
    node.subscribe("a").await;
    node.keep("a", "0").await;
    let before = node.keep("a", "1").await;
    let read = node.read("b").await.unwrap().top;
    backend.server.as_mut().unwrap().restart();
    let again = tokio::time::timeout(DEADLINE, async {
        loop {
            if let Ok(appended) = node.append("a", "2").await {
                return appended.position.unwrap();
            }
        }
    });
    let again = again.await.unwrap();
    assert_eq!(again.offset, 1);
    assert_ne!(again.epoch, before.epoch);
    assert_eq!(node.offsets("a").await, [1]);
    let empty = node.read("b").await.unwrap();
    assert_eq!((empty.publications.len(), empty.top.offset), (0, 0));
    assert_ne!(empty.top.epoch, read.epoch);
    node.recorder.until("the room is heard again", |_| node.broker.health() == Health::Hearing).await;
    node.append("a", "3").await.unwrap();
    node.recorder
        .until("its place", |recorder| {
            recorder
                .said("a")
                .last()
                .is_some_and(|said| said.publication.offset == 2 && said.epoch == Some(again.epoch))
        })
        .await;
    backend.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whichever_key_is_lost_alone_no_place_is_given_twice() {
    let backend = Backend::redis();
    let (server, node) = (server(&backend), backend.node());
    for key in ["meta", "top"] {
        for append_first in [true, false] {
            let room = format!("{key} {append_first}");
            node.keep(&room, "0").await;
            let before = node.keep(&room, "1").await;
            assert_eq!(server.command(&["DEL", &format!("roomcast.{key}.{{.{room}}}")]), ["1"]);
            let begin = u64::from(append_first);
            if append_first {
                node.keep(&room, "2").await;
            }
            let slice = node.read(&room).await.unwrap();
            assert_ne!(slice.top.epoch, before.epoch, "{room}");
            assert_eq!((slice.top.offset, slice.publications.len() as u64), (begin, begin), "{room}");
            assert_eq!(node.keep(&room, "3").await, Position::new(begin + 1, slice.top.epoch));
        }
    }
    let before = node.keep("stream", "0").await;
    server.command(&["DEL", "roomcast.stream.{.stream}"]);
    assert_eq!(node.read("stream").await.unwrap(), Slice { publications: Vec::new(), top: before });
    assert_eq!(node.keep("stream", "1").await, Position::new(2, before.epoch));
    assert_eq!(node.offsets("stream").await, [2]);
    backend.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_without_a_time_to_live() {
    let backend = Backend::redis();
    let (server, node) = (server(&backend), backend.node());
    let keeps = [KEEP, Keep { size: 3, ..KEEP }, Keep { ttl: Duration::from_secs(2), ..KEEP }];
    for keep in keeps {
        for number in 0..40_u64 {
            let all = Append {
                keep: Some(keep),
                idempotency: Some((format!("{keep:?} {number}"), KEEP.ttl)),
                version: number % 3,
                version_epoch: number.to_string(),
            };
            for append in [kept(keep), all.clone(), Append { keep: None, ..all }] {
                node.history.append(&format!("room {}", number % 5), publication("x"), &append).wait().await.unwrap();
            }
        }
        node.history.forget("room 1").wait().await.unwrap();
        node.keep("room 1", "x").await;
        node.read("only read").await.unwrap();
        for key in server.command(&["KEYS", "*"]) {
            let left: u64 =
                server.command(&["TTL", &key]).concat().parse().unwrap_or_else(|_| panic!("{key} has none"));
            let longest = if ["roomcast.meta", "roomcast.top"].iter().any(|kind| key.starts_with(kind)) {
                KEEP.meta_ttl
            } else {
                KEEP.ttl
            };
            assert!(left <= longest.as_secs() * 17 / 16, "{key} has {left} s");
        }
    }
    // A setting that has changed holds for rooms that are there.
    let lasting = kept(Keep { size: 7, meta_ttl: Duration::ZERO, ..KEEP });
    node.history.append("room 1", publication("x"), &lasting).wait().await.unwrap();
    for key in ["meta", "top"] {
        assert_eq!(server.command(&["TTL", &format!("roomcast.{key}.{{.room 1}}")]), ["-1"]);
    }
    backend.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_holds_little_more_than_its_size() {
    let backend = Backend::redis();
    let node = backend.node();
    for (size, most) in [(1, 140), (10, 140), (100, 240)] {
        let append = kept(Keep { size, ..KEEP });
        let (packed, single) = (format!("packed {size}"), format!("single {size}"));
        burst(&node, &packed, numbers(0..3000), &append).await;
        for data in numbers(0..500) {
            node.history.append(&single, publication(data), &append).wait().await.unwrap();
        }
        for room in [&packed, &single] {
            let entries = entries(server(&backend), room);
            let held: usize = entries.iter().sum();
            let most = if room == &single { most } else { 100 * 32 };
            assert!((size as usize..most).contains(&held), "{room}: {held}");
            assert_eq!(entries.len() == held, room == &single, "{entries:?}");
            assert_eq!(node.offsets(room).await.len(), size as usize);
        }
    }
    // A node of a stream has 4 KB.
    burst(&node, "long", vec![vec![b'x'; 128].into(); 3000], &kept(KEEP)).await;
    let held: usize = entries(server(&backend), "long").iter().sum();
    assert!((100..240).contains(&held), "{held}");
    backend.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_takes_few_entries_and_few_messages_and_is_counted_whole() {
    let backend = Backend::redis();
    let (server, node) = (server(&backend), backend.node());
    node.subscribe("a").await;
    assert_eq!(burst_made(&node, "a", numbers(0..1000)).await, (1..=1000).collect::<Vec<_>>());
    assert_eq!(node.recorder.wait("a", 1000).await, numbers(0..1000));
    let entries = entries(server, "a");
    assert!(entries.iter().max() == Some(&32) && entries.iter().sum::<usize>() >= 100, "{entries:?}");
    let stats = server.command(&["INFO", "commandstats"]).concat();
    let published = stats.split("cmdstat_publish:calls=").nth(1).and_then(|rest| rest.split(',').next()).unwrap();
    assert!(published.parse::<usize>().unwrap() < 200, "{published}");
    let metrics = &node.metrics;
    node.recorder.until("the counts", |_| metrics.broker_received.get() == 1000).await;
    assert_eq!(metrics.broker_published.with_label_values(&["ok"]).get(), 1000);
    assert_eq!(metrics.broker_latency.with_label_values(&["append"]).get_sample_count(), 1000);
    assert_eq!(metrics.delivery_lag.get_sample_count(), 1000);
    backend.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packs_are_bounded_in_bytes() {
    let backend = Backend::redis();
    let (server, node) = (server(&backend), backend.node());
    for (length, most) in [(5000, 3), (8000, 2), (9000, 1), (100_000, 1)] {
        let room = length.to_string();
        let data: Vec<_> = (0..60).map(|fill| Bytes::from(vec![fill; length])).collect();
        assert_eq!(burst_made(&node, &room, data.clone()).await, (1..=60).collect::<Vec<_>>());
        let entries = entries(server, &room);
        assert_eq!(entries.iter().max(), Some(&most), "{length} bytes: {entries:?}");
        let read = node.read(&room).await.unwrap().publications;
        assert!(read.into_iter().map(|publication| publication.data).eq(data));
    }
    backend.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pack_that_finds_the_counter_lost_begins_an_epoch() {
    let backend = Backend::redis();
    let (server, node) = (server(&backend), backend.node());
    node.subscribe("a").await;
    let mut epochs = Vec::new();
    for key in ["top", "meta", "top"] {
        assert_eq!(burst_made(&node, "a", numbers(0..200)).await, (1..=200).collect::<Vec<_>>());
        assert!(entries(server, "a").len() < 100, "packs");
        let slice = node.read("a").await.unwrap();
        assert_eq!(
            slice.publications.iter().map(|said| said.offset).collect::<Vec<_>>(),
            (101..=200).collect::<Vec<_>>()
        );
        assert_eq!(slice.publications[0].data, "100");
        epochs.push(slice.top.epoch);
        server.command(&["DEL", &format!("roomcast.{key}.{{.a}}")]);
    }
    node.recorder.wait("a", 600).await;
    let heard = node.recorder.said("a");
    assert!(heard.iter().map(|said| said.publication.offset).eq((1..=200).chain(1..=200).chain(1..=200)));
    assert!(heard.chunks(200).zip(&epochs).all(|(said, epoch)| said.iter().all(|said| said.epoch == Some(*epoch))));
    assert!(epochs[0] != epochs[1] && epochs[1] != epochs[2]);
    backend.stop().await;
}

/// Nothing of a burst is made, numbered or heard where Redis refuses to keep it, and what comes later follows on what was
/// there before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_is_refused_whole() {
    let backend = Backend::redis();
    let (server, node) = (server(&backend), backend.node());
    node.subscribe("a").await;
    burst_made(&node, "a", numbers(0..100)).await;
    let before = node.read("a").await.unwrap();
    let refused = async |room: &str| {
        let answers = burst(&node, room, numbers(0..200), &kept(KEEP)).await;
        let made = answers.iter().filter(|answer| !matches!(answer, Err(BrokerError::Refused(_)))).count();
        assert_eq!(made, 0, "{room}");
    };
    server.command(&["CONFIG", "SET", "maxmemory", "1"]);
    refused("a").await;
    refused("new").await;
    assert!(matches!(node.append("new", "one").await, Err(BrokerError::Refused(_))));
    server.command(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(node.read("a").await.unwrap(), before);
    assert_eq!(server.command(&["EXISTS", "roomcast.top.{.new}", "roomcast.stream.{.new}"]), ["0"]);
    // The counter goes up, and the publications are refused: it goes down again.
    let stream = "roomcast.stream.{.a}";
    server.commands(&[&["RENAME", stream, "aside"], &["SET", stream, "not a stream"]]);
    refused("a").await;
    server.command(&["RENAME", "aside", stream]);
    assert_eq!(node.read("a").await.unwrap(), before);
    assert_eq!(burst_made(&node, "a", numbers(100..300)).await, (101..=300).collect::<Vec<_>>());
    assert_eq!(node.recorder.wait("a", 300).await, numbers(0..300));
    assert_eq!(node.read("a").await.unwrap().top, Position::new(300, before.top.epoch));
    backend.stop().await;
}

/// A key that could not be remembered would let the same be said twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_a_key_is_not_said_where_there_is_no_memory_for_the_key() {
    let backend = Backend::redis();
    let (server, node) = (server(&backend), backend.node());
    node.subscribe("a").await;
    let once = || Append { idempotency: Some(("k".to_owned(), KEEP.ttl)), ..Append::default() };
    let versioned = || Append { version: 1, ..once() };
    let say = async |append: Append| node.history.append("a", publication("x"), &append).wait().await;
    server.command(&["CONFIG", "SET", "maxmemory", "1"]);
    for append in [once(), versioned(), Append { keep: Some(KEEP), ..once() }] {
        assert!(matches!(say(append).await, Err(BrokerError::Refused(_))));
    }
    say(Append::default()).await.unwrap();
    server.command(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(say(once()).await, Ok(Appended { position: None, fresh: true }));
    assert_eq!(say(once()).await, Ok(Appended { position: None, fresh: false }));
    assert_eq!(node.recorder.wait("a", 2).await.len(), 2);
    node.append("a", "last").await.unwrap();
    assert_eq!(node.recorder.wait("a", 3).await[2], "last");
    backend.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_that_is_full_holds_up_the_rest_of_a_pack() {
    let backend = Backend::redis();
    let node = backend.node();
    node.subscribe("a").await;
    node.recorder.fill("a");
    burst_made(&node, "a", numbers(0..200)).await;
    assert!(entries(server(&backend), "a").len() < 100, "packs");
    node.read("a").await.unwrap();
    assert_eq!(node.recorder.wait("a", 1).await, numbers(0..1));
    node.recorder.clear();
    assert_eq!(node.recorder.wait("a", 200).await, numbers(0..200));
    assert_eq!(node.metrics.inbox_full.get(), 1);
    backend.stop().await;
}

/// Whatever is said in one room is in its order, be it in a pack or not; packs of other rooms lie between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packs_keep_the_order_of_their_room_among_everything_else() {
    let backend = Backend::redis();
    let node = backend.node();
    let rooms = ["a", "b", "c"];
    for room in rooms {
        node.subscribe(room).await;
    }
    let mut rng = StdRng::seed_from_u64(rand::rng().random());
    let mut calls = Vec::new();
    for data in numbers(0..3000) {
        let room = rooms[rng.random_range(0..rooms.len())];
        let keep = if rng.random_ratio(1, 20) { Keep { size: 50, ..KEEP } } else { KEEP };
        let once = Append { idempotency: Some((format!("{data:?}"), KEEP.ttl)), ..kept(KEEP) };
        let append = match rng.random_range(0..10) {
            0 => Append::default(),
            1 => once,
            _ => kept(keep),
        };
        calls.push((room, data.clone(), node.history.append(room, publication(data), &append).wait()));
    }
    let (places, answers): (Vec<_>, Vec<_>) = calls.into_iter().map(|(room, data, call)| ((room, data), call)).unzip();
    let answers: Vec<_> = join_all(answers).await.into_iter().map(|answer| answer.unwrap().position).collect();
    for room in rooms {
        let said = || places.iter().zip(&answers).filter(|((to, _), _)| *to == room);
        let all: Vec<_> = said().map(|((_, data), _)| data.clone()).collect();
        assert!(node.recorder.wait(room, all.len()).await == all);
        let offsets: Vec<_> = said().map(|(_, place)| place.map_or(0, |place| place.offset)).collect();
        assert!(node.recorder.said(room).iter().map(|said| said.publication.offset).eq(offsets.iter().copied()));
        let kept = offsets.iter().filter(|offset| **offset > 0).count() as u64;
        assert!(offsets.into_iter().filter(|offset| *offset > 0).eq(1..=kept));
        assert!(entries(server(&backend), room).iter().any(|count| *count > 3), "packs");
    }
    backend.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_others_are_refused_room_by_room() {
    let backend = Backend::redis();
    let (server, node) = (server(&backend), backend.node());
    node.subscribe("good").await;
    node.subscribe("bad").await;
    server.command(&["SET", "roomcast.stream.{.bad}", "not a stream"]);
    let known = node.keep("known", "0").await;
    server.commands(&[&["DEL", "roomcast.stream.{.known}"], &["SET", "roomcast.stream.{.known}", "not a stream"]]);
    server.command(&["SET", "roomcast.result.1.{.good}.k", "odd"]);
    server.command(&["LPUSH", "roomcast.result.1.{.good}.l", "odd"]);
    let once = |key: &str| Append { idempotency: Some((key.to_owned(), KEEP.ttl)), ..kept(KEEP) };
    let calls = [
        ("good", kept(KEEP), true),
        ("known", kept(KEEP), false),
        ("good", kept(KEEP), true),
        ("good", once("k"), false),
        ("good", once("l"), false),
        ("good", kept(KEEP), true),
    ];
    let answers = calls.iter().map(|(room, append, _)| node.history.append(room, publication("x"), append).wait());
    for (answer, (room, _, is_made)) in join_all(answers.collect::<Vec<_>>()).await.into_iter().zip(&calls) {
        match answer {
            Ok(appended) => assert!(*is_made && appended.fresh, "{room}"),
            Err(BrokerError::Refused(_)) => assert!(!is_made, "{room}"),
            Err(other) => panic!("{room}: {other}"),
        }
    }
    // A room that is new has no use for what it finds there.
    assert_eq!(node.keep("bad", "0").await.offset, 1);
    // What was refused has taken no place.
    server.command(&["DEL", "roomcast.stream.{.known}"]);
    assert_eq!(node.keep("known", "1").await, Position::new(2, known.epoch));
    assert_eq!(node.offsets("good").await, [1, 2, 3]);
    backend.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_that_is_not_understood_is_refused_and_not_passed_over() {
    let backend = Backend::redis();
    let (server, node) = (server(&backend), backend.node());
    node.keep("a", "0").await;
    let three = "\u{9}\0\0\x0012345678\0".repeat(3);
    let odd: [(&str, &[&str]); 11] = [
        ("2-0", &["d", ""]),
        ("2-0", &["d", "12345678\u{7f}"]),
        ("2-0", &["d", "x", "e", "y"]),
        ("2-0", &["d", "12345678\0\u{7f}"]),
        ("1-1", &["d", "12345678\0"]),
        ("2-0", &["x", "12345678\0"]),
        ("2-0", &["0", ""]),
        ("2-0", &["1", ""]),
        ("2-0", &["2", "\u{9}\0\0\x0012345678\0"]),
        ("2-0", &["-1", "\u{9}\0\0\x0012345678\0"]),
        ("2-0", &["3", &three]),
    ];
    for (number, (id, fields)) in odd.into_iter().enumerate() {
        server.command(&[&["XADD", "roomcast.stream.{.a}", id], fields].concat());
        server.command(&["SET", "roomcast.top.{.a}", "2"]);
        let refused = node.read("a").await;
        assert!(matches!(refused, Err(BrokerError::Refused(_))), "{refused:?}");
        assert_eq!(node.metrics.broker_malformed.get(), number as u64 + 1);
        let page = Page { limit: 0, ..EVERYTHING };
        assert_eq!(node.history.read("a", &page).wait().await.unwrap().top.offset, 2);
        node.history.forget("a").wait().await.unwrap();
    }
    assert_eq!(node.keep("a", "3").await.offset, 3);
    // The same bytes are well where there are places for them.
    server.command(&["XADD", "roomcast.stream.{.a}", "6-0", "3", &three]);
    server.command(&["SET", "roomcast.top.{.a}", "6"]);
    assert_eq!(node.offsets("a").await, [3, 4, 5, 6]);
    backend.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_not_be_published_is_not_kept() {
    let server = RedisServer::start();
    server.command(&["ACL", "SETUSER", "limited", "on", ">pass", "+@all", "~*", "resetchannels", "&roomcast.room.ok*"]);
    let options = RedisOptions::new(server.url().replace("//", "//limited:pass@"));
    let (tracker, shutdown) = (TaskTracker::new(), CancellationToken::new());
    let (recorder, metrics) = (Arc::new(Recorder::default()), Arc::new(Metrics::new()));
    let broker = RedisBroker::start(&options, recorder, Arc::clone(&metrics), &tracker, shutdown.clone()).unwrap();
    let rooms = (0..300).map(|number| if number % 100 == 50 { "secret" } else { "ok" });
    let answers: Vec<_> = rooms.map(|room| broker.append(room, publication("x"), &kept(KEEP)).wait()).collect();
    for (number, answer) in join_all(answers).await.into_iter().enumerate() {
        match (number % 100, answer) {
            (50, Err(BrokerError::Refused(reason))) => assert!(reason.contains("NOPERM") || reason.contains("channel")),
            (_, Ok(appended)) => assert!(appended.fresh),
            (_, other) => panic!("{number}: {other:?}"),
        }
    }
    assert_eq!(broker.read("ok", &EVERYTHING).wait().await.unwrap().top.offset, 297);
    assert_eq!(broker.read("secret", &EVERYTHING).wait().await.unwrap().top.offset, 0);
    assert_eq!(metrics.broker_published.with_label_values(&["error"]).get(), 3);
    shutdown.cancel();
    tracker.close();
    assert!(tokio::time::timeout(DEADLINE, tracker.wait()).await.is_ok(), "a task does not end");
}

/// A user that may run scripts and not load them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scripts_come_along_where_they_may_not_be_loaded() {
    let server = RedisServer::start();
    server.command(&["ACL", "SETUSER", "limited", "on", ">pass", "+@all", "-script", "~*", "&*"]);
    let options = RedisOptions::new(server.url().replace("//", "//limited:pass@"));
    let (tracker, shutdown) = (TaskTracker::new(), CancellationToken::new());
    let (recorder, metrics) = (Arc::new(Recorder::default()), Arc::new(Metrics::new()));
    let broker = RedisBroker::start(&options, recorder, metrics, &tracker, shutdown.clone()).unwrap();
    for number in 1..=3 {
        let appended = broker.append("a", publication("x"), &kept(KEEP)).wait().await.unwrap();
        assert_eq!(appended.position.unwrap().offset, number);
        assert_eq!(broker.read("a", &EVERYTHING).wait().await.unwrap().top.offset, number);
    }
    assert_eq!(unknown_scripts(&server), 2);
    shutdown.cancel();
    tracker.close();
    assert!(tokio::time::timeout(DEADLINE, tracker.wait()).await.is_ok(), "a task does not end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_answers_are_asked_for_a_few_at_a_time() {
    let backend = Backend::redis();
    let node = backend.node();
    for number in 0..100 {
        node.keep("a", number.to_string().repeat(1000)).await;
    }
    let reads = (0..500).map(|_| node.history.read("a", &EVERYTHING).wait());
    let positions = (0..500).map(|_| node.history.read("a", &Page { limit: 0, ..EVERYTHING }).wait());
    let (reads, positions) = (reads.collect::<Vec<_>>(), positions.collect::<Vec<_>>());
    let (reads, positions) = tokio::join!(join_all(reads), join_all(positions));
    assert!(reads.iter().all(|slice| slice.as_ref().is_ok_and(|slice| slice.publications.len() == 100)));
    assert!(positions.iter().all(|slice| slice.as_ref().is_ok_and(|slice| slice.top.offset == 100)));
    let latency = node.metrics.broker_latency.with_label_values(&["history"]);
    node.recorder.until("the counts", |_| latency.get_sample_count() == 1000).await;
    backend.stop().await;
}
