//! What every broker promises, asked of each of them: the one in memory, and the one over real redis-servers in
//! each way in which they can be laid out. Knows only the contract.

#![allow(clippy::unwrap_used, reason = "a test fails where what it needs fails")]
#![allow(clippy::print_stdout, reason = "the seed of a failed run is needed to repeat it")]

use std::{collections::HashSet, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use rand::{Rng, SeedableRng, rngs::StdRng};
use roomcast::broker::{Answer, BrokerError, Health};
use roomcast_shared::{
    event::{Event, Said},
    publication::{ClientInfo, Publication},
};

#[path = "common/brokers.rs"]
mod brokers;

use brokers::{Backend, numbers, said, with_every_broker, with_every_redis};

with_every_broker! {
    a_node_hears_what_it_publishes_once_and_in_order,
    an_event_arrives_whole,
    only_subscribed_rooms_are_heard,
    a_room_left_is_no_longer_heard,
    names_and_payloads_of_any_kind_pass,
    large_payloads_pass,
    ten_thousand_rooms_are_heard,
    each_of_many_publishers_keeps_its_order,
    an_answered_publish_is_heard_by_those_subscribed_before,
    a_confirmed_room_is_confirmed_at_once,
    the_last_of_subscribe_and_unsubscribe_counts,
    any_order_of_subscribes_and_unsubscribes_converges,
    a_full_room_holds_up_and_loses_nothing,
    counts_are_kept,
}

async fn a_node_hears_what_it_publishes_once_and_in_order(backend: Backend) {
    let node = backend.node();
    node.subscribe("a").await;
    let answers: Vec<_> = numbers(0..2000).into_iter().map(|n| node.broker.publish("a", said(n)).wait()).collect();
    join_all(answers).await.into_iter().for_each(|answer| answer.unwrap());
    node.publish("a", "end").await;
    let mut expected = numbers(0..2000);
    expected.push("end".into());
    assert_eq!(node.recorder.wait("a", 2001).await, expected);
    assert_eq!(node.broker.health(), Health::Hearing);
    backend.stop().await;
}

async fn an_event_arrives_whole(backend: Backend) {
    let node = backend.node();
    let publication = Publication {
        data: Bytes::from_static(b"{}"),
        info: Some(ClientInfo {
            user: "ada".to_owned(),
            client: "c".to_owned(),
            conn_info: Bytes::from_static(b"{\"a\":1}"),
            chan_info: Bytes::from_static(b"[]"),
        }),
        offset: 7,
        tags: [("k".to_owned(), "v".to_owned())].into(),
        delta: true,
    };
    let info = publication.info.clone().unwrap();
    let said = Said { publication: publication.clone(), epoch: None, delta: true, exclude: Some(u128::MAX / 3) };
    let events: [Event; 4] = [publication.into(), Event::Join(info.clone()), said.into(), Event::Leave(info)];
    node.subscribe("a").await;
    for event in &events {
        node.broker.publish("a", event.clone()).wait().await.unwrap();
    }
    node.recorder.until("four events", |recorder| recorder.events("a").len() == 4).await;
    assert_eq!(node.recorder.events("a"), events);
    backend.stop().await;
}

async fn only_subscribed_rooms_are_heard(backend: Backend) {
    let node = backend.node();
    node.publish("a", "before").await;
    node.subscribe("a").await;
    node.subscribe("a.b").await;
    for room in ["b", "A", "a.", "*", "a.b.c"] {
        node.publish(room, "elsewhere").await;
    }
    node.publish("a.b", "here too").await;
    node.publish("a", "here").await;
    assert_eq!(node.recorder.wait("a", 1).await, ["here"]);
    assert_eq!(node.recorder.wait("a.b", 1).await, ["here too"]);
    assert_eq!(node.recorder.total(), 2);
    backend.until_rooms(vec!["a".to_owned(), "a.b".to_owned()]).await;
    backend.stop().await;
}

async fn a_room_left_is_no_longer_heard(backend: Backend) {
    let node = backend.node();
    node.subscribe("a").await;
    node.subscribe("b").await;
    node.broker.unsubscribe("a");
    node.broker.unsubscribe("never subscribed");
    backend.until_rooms(vec!["b".to_owned()]).await;
    node.publish("a", "late").await;
    node.publish("b", "end").await;
    node.recorder.wait("b", 1).await;
    assert_eq!(node.recorder.heard("a"), numbers(0..0));
    backend.stop().await;
}

async fn names_and_payloads_of_any_kind_pass(backend: Backend) {
    let node = backend.node();
    let names = ["a b", "*", "[ab]?", "ä€𝄞", "x\r\ny", "\0", "", "$3\r\nfoo", &"n".repeat(255), "a:b#c,d"];
    let payloads: [&[u8]; 5] = [b"", b"\0\r\n", b"\xff\xfe", b"*3\r\n$7\r\nmessage\r\n", "ä".as_bytes()];
    for name in names {
        node.subscribe(name).await;
        for payload in payloads {
            node.publish(name, payload).await;
        }
        assert_eq!(node.recorder.wait(name, payloads.len()).await, payloads);
    }
    backend.stop().await;
}

async fn large_payloads_pass(backend: Backend) {
    let node = backend.node();
    node.subscribe("a").await;
    let mut random = StdRng::seed_from_u64(1);
    let sizes = [1, 4 << 10, 65_000, 65_536, 70_000, 1 << 20, 3, 5 << 20, 100];
    let payloads = sizes.map(|size| Bytes::from((0..size).map(|_| random.random()).collect::<Vec<u8>>()));
    for payload in payloads.clone() {
        node.publish("a", payload).await;
    }
    assert!(node.recorder.wait("a", sizes.len()).await == payloads, "a payload was changed");
    backend.stop().await;
}

async fn ten_thousand_rooms_are_heard(backend: Backend) {
    let node = backend.node();
    let rooms: Vec<Arc<str>> = (0..10_000).map(|room| Arc::from(format!("room {room}"))).collect();
    let answers = join_all(rooms.iter().map(|room| node.broker.subscribe(room).wait())).await;
    assert!(answers.iter().all(Result::is_ok));
    let answers = join_all(rooms.iter().map(|room| node.broker.publish(room, said(room.to_string())).wait())).await;
    assert!(answers.iter().all(Result::is_ok));
    node.recorder.until("10,000 publications", |recorder| recorder.total() == 10_000).await;
    assert!(rooms.iter().all(|room| node.recorder.heard(room) == [room.to_string()]));
    for room in &rooms {
        node.broker.unsubscribe(room);
    }
    backend.until_rooms(Vec::new()).await;
    backend.stop().await;
}

async fn each_of_many_publishers_keeps_its_order(backend: Backend) {
    let node = backend.node();
    node.subscribe("a").await;
    let publishers = (0..8).map(|publisher| {
        let broker = Arc::clone(&node.broker);
        tokio::spawn(async move {
            for number in 0..500_usize {
                broker.publish("a", said(format!("{publisher} {number}"))).wait().await.unwrap();
            }
        })
    });
    join_all(publishers).await.into_iter().for_each(|done| done.unwrap());
    let heard = node.recorder.wait("a", 4000).await;
    for publisher in 0..8 {
        let own: Vec<_> = heard.iter().filter(|data| data.starts_with(format!("{publisher} ").as_bytes())).collect();
        let expected: Vec<Bytes> = (0..500).map(|number| format!("{publisher} {number}").into()).collect();
        assert_eq!(own, expected.iter().collect::<Vec<_>>());
    }
    backend.stop().await;
}

async fn an_answered_publish_is_heard_by_those_subscribed_before(backend: Backend) {
    let node = backend.node();
    for round in 0..200 {
        let room: Arc<str> = Arc::from(format!("room {round}"));
        node.broker.publish(&room, said("before")).wait().await.unwrap();
        node.broker.subscribe(&room).wait().await.unwrap();
        node.broker.publish(&room, said("after")).wait().await.unwrap();
        assert_eq!(node.recorder.wait(&room, 1).await, ["after"]);
    }
    backend.stop().await;
}

async fn a_confirmed_room_is_confirmed_at_once(backend: Backend) {
    let node = backend.node();
    node.subscribe("a").await;
    let room = Arc::from("a");
    assert!(matches!(node.broker.subscribe(&room), Answer::Now(Ok(()))));
    node.broker.unsubscribe("a");
    node.subscribe("a").await;
    node.publish("a", "still").await;
    assert_eq!(node.recorder.wait("a", 1).await, ["still"]);
    backend.stop().await;
}

async fn the_last_of_subscribe_and_unsubscribe_counts(backend: Backend) {
    let node = backend.node();
    let room = Arc::from("a");
    for _ in 0..100 {
        let first = node.broker.subscribe(&room);
        node.broker.unsubscribe("a");
        assert!(matches!(first.wait().await, Ok(()) | Err(BrokerError::Cancelled)));
    }
    backend.until_rooms(Vec::new()).await;
    for _ in 0..100 {
        node.broker.unsubscribe("a");
        let last = node.broker.subscribe(&room);
        assert_eq!(last.wait().await, Ok(()));
    }
    node.publish("a", "here").await;
    assert_eq!(node.recorder.wait("a", 1).await, ["here"]);
    backend.stop().await;
}

async fn any_order_of_subscribes_and_unsubscribes_converges(backend: Backend) {
    let node = backend.node();
    let seed = rand::rng().random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let rooms: Vec<Arc<str>> = (0..40).map(|room| Arc::from(format!("room {room:02}"))).collect();
    let mut wanted = HashSet::new();
    for _ in 0..20_000 {
        let room = &rooms[random.random_range(0..rooms.len())];
        if random.random_bool(0.5) {
            wanted.insert(Arc::clone(room));
            drop(node.broker.subscribe(room));
        } else {
            wanted.remove(room);
            node.broker.unsubscribe(room);
        }
        if random.random_bool(0.02) {
            tokio::time::sleep(Duration::from_micros(random.random_range(0..300))).await;
        }
    }
    backend.until_rooms(wanted.iter().map(ToString::to_string).collect()).await;
    join_all(wanted.iter().map(|room| node.broker.subscribe(room).wait())).await.into_iter().for_each(|a| a.unwrap());
    for room in &rooms {
        node.publish(room, "end").await;
    }
    node.recorder.until("each wanted room", |recorder| recorder.total() >= wanted.len()).await;
    for room in &rooms {
        assert_eq!(node.recorder.heard(room).len(), usize::from(wanted.contains(room)), "{room}");
    }
    backend.stop().await;
}

async fn a_full_room_holds_up_and_loses_nothing(backend: Backend) {
    let node = backend.node();
    node.subscribe("a").await;
    node.recorder.fill("a");
    let answers: Vec<_> = numbers(0..3).into_iter().map(|n| node.broker.publish("a", said(n)).wait()).collect();
    let answers = tokio::spawn(join_all(answers));
    node.recorder.wait("a", 1).await;
    node.recorder.until("the room's turn", |_| node.metrics.inbox_full.get() >= 1).await;
    // Once for each that found the room full; a stored permit is enough for a wait that begins later.
    while node.recorder.heard("a").len() < 3 || !answers.is_finished() {
        node.recorder.clear();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    answers.await.unwrap().into_iter().for_each(|answer| answer.unwrap());
    assert_eq!(node.recorder.heard("a"), numbers(0..3));
    backend.stop().await;
}

async fn counts_are_kept(backend: Backend) {
    let node = backend.node();
    node.subscribe("a").await;
    for number in numbers(0..10) {
        node.publish("a", number).await;
    }
    node.publish("b", "elsewhere").await;
    node.recorder.wait("a", 10).await;
    node.recorder.until("the counters", |_| node.metrics.delivery_lag.get_sample_count() == 10).await;
    assert_eq!(node.metrics.broker_published.with_label_values(&["ok"]).get(), 11);
    assert_eq!(node.metrics.broker_published.with_label_values(&["error"]).get(), 0);
    assert_eq!(node.metrics.broker_received.get(), 10);
    assert_eq!(node.metrics.broker_connected.get(), 1);
    assert!(node.metrics.delivery_lag.get_sample_sum() < 10.0);
    backend.stop().await;
}

mod several_nodes {
    use super::{Backend, two_and_three_nodes_hear_each_other_once_and_in_order, with_every_redis};

    with_every_redis! { two_and_three_nodes_hear_each_other_once_and_in_order }
}

async fn two_and_three_nodes_hear_each_other_once_and_in_order(backend: Backend) {
    let nodes = [backend.node(), backend.node(), backend.node()];
    for node in &nodes {
        node.subscribe("all").await;
    }
    nodes[0].subscribe("pair").await;
    nodes[1].subscribe("pair").await;
    for (number, data) in numbers(0..600).into_iter().enumerate() {
        nodes[number % 3].publish("all", data.clone()).await;
        nodes[number % 3].publish("pair", data).await;
    }
    for (index, node) in nodes.iter().enumerate() {
        assert_eq!(node.recorder.wait("all", 600).await, numbers(0..600));
        if index < 2 {
            assert_eq!(node.recorder.wait("pair", 600).await, numbers(0..600));
        } else {
            assert_eq!(node.metrics.broker_received.get(), 600, "a node hears only its rooms");
        }
    }
    backend.stop().await;
}
