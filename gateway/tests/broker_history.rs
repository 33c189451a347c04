//! What every broker promises of what rooms remember, asked of each of them: the one in memory, and the one over real
//! redis-servers in each way in which they can be laid out. Knows only the contract.

#![allow(clippy::unwrap_used, reason = "a test fails where what it needs fails")]

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use rand::{Rng, SeedableRng, rngs::StdRng};
use roomcast::{
    broker::{Answer, Append, Appended, History, Keep, Page, Slice, memory::MemoryBroker},
    metrics::Metrics,
};
use roomcast_shared::{
    event::{Event, Said},
    position::{Epoch, Position},
    publication::{ClientInfo, Publication},
};

#[path = "common/brokers.rs"]
mod brokers;

use brokers::{Backend, Node, Recorder, numbers, said, with_every_broker, with_every_redis};

/// What rooms of these tests keep, where nothing else is said.
const KEEP: Keep = Keep { size: 100, ttl: Duration::from_mins(1), meta_ttl: Duration::from_mins(10) };
const EVERYTHING: Page = Page { since: None, limit: 1000, reverse: false, meta_ttl: KEEP.meta_ttl };
/// A little more than the shortest time that can be asked for.
const A_SECOND_AND_MORE: Duration = Duration::from_millis(1200);

fn kept(keep: Keep) -> Append {
    Append { keep: Some(keep), ..Append::default() }
}

fn publication(data: impl Into<Bytes>) -> Said {
    Publication { data: data.into(), ..Publication::default() }.into()
}

impl Node {
    async fn append(&self, room: &str, data: impl Into<Bytes>, append: &Append) -> Appended {
        self.history.append(room, publication(data), append).wait().await.unwrap()
    }

    async fn keep(&self, room: &str, data: impl Into<Bytes>) -> Position {
        let appended = self.append(room, data, &kept(KEEP)).await;
        assert!(appended.fresh);
        appended.position.unwrap()
    }

    async fn read(&self, room: &str, page: Page) -> Slice {
        self.history.read(room, &page).wait().await.unwrap()
    }

    async fn everything(&self, room: &str) -> Vec<Bytes> {
        payloads(&self.read(room, EVERYTHING).await)
    }
}

fn payloads(slice: &Slice) -> Vec<Bytes> {
    slice.publications.iter().map(|publication| publication.data.clone()).collect()
}

fn offsets(slice: &Slice) -> Vec<u64> {
    slice.publications.iter().map(|publication| publication.offset).collect()
}

with_every_broker! {
    a_kept_publication_is_delivered_and_read_with_its_place,
    publications_of_many_are_numbered_as_they_are_heard,
    kept_and_other_publications_stay_in_the_order_in_which_they_were_made,
    a_room_asked_for_the_first_time_has_an_epoch_and_keeps_it,
    pages_begin_where_they_are_asked_to,
    no_more_is_kept_than_the_size,
    what_is_read_is_what_a_model_has_however_it_came_in,
    publications_are_forgotten_after_their_time_and_the_place_is_not,
    an_epoch_ends_when_nobody_uses_it,
    reading_is_a_use,
    forgetting_keeps_the_place,
    a_key_makes_one_publication_and_the_same_answer,
    a_key_is_forgotten_after_its_time,
    a_version_that_is_not_above_the_last_is_left_out,
    versions_guard_rooms_without_history_too,
    rooms_of_any_name_remember_their_own,
    large_publications_are_kept_whole,
    a_full_room_holds_up_who_appends,
}

async fn a_kept_publication_is_delivered_and_read_with_its_place(backend: Backend) {
    let node = backend.node();
    node.subscribe("a").await;
    let whole = Said {
        publication: Publication {
            data: Bytes::from_static(b"{}"),
            info: Some(ClientInfo { user: "ada".to_owned(), client: "c".to_owned(), ..ClientInfo::default() }),
            tags: [("k".to_owned(), "v".to_owned())].into(),
            ..Publication::default()
        },
        epoch: None,
        delta: true,
        exclude: Some(7),
    };
    let answer = node.history.append("a", whole.clone(), &kept(KEEP)).wait().await.unwrap();
    let place = answer.position.unwrap();
    assert_eq!((answer.fresh, place.offset), (true, 1));
    let expected = Publication { offset: 1, ..whole.publication.clone() };
    node.recorder.wait("a", 1).await;
    let delivered = Said { publication: expected.clone(), epoch: Some(place.epoch), ..whole };
    assert_eq!(node.recorder.events("a"), [Event::Publication(delivered)]);
    assert_eq!(node.read("a", EVERYTHING).await, Slice { publications: vec![expected], top: place });
    backend.stop().await;
}

async fn publications_of_many_are_numbered_as_they_are_heard(backend: Backend) {
    let first = Arc::new(backend.node());
    let second = if backend.is_shared() { Arc::new(backend.node()) } else { Arc::clone(&first) };
    first.subscribe("a").await;
    second.subscribe("a").await;
    let publishers = (0..8).map(|publisher| {
        let node = if publisher % 2 == 0 { Arc::clone(&first) } else { Arc::clone(&second) };
        tokio::spawn(async move {
            let keep = kept(Keep { size: 2000, ..KEEP });
            let many =
                (0..200).map(|n| node.history.append("a", publication(format!("{publisher} {n}")), &keep).wait());
            join_all(many.collect::<Vec<_>>())
                .await
                .into_iter()
                .map(|answer| answer.unwrap().position.unwrap())
                .collect()
        })
    });
    let answers: Vec<Vec<Position>> = join_all(publishers).await.into_iter().map(Result::unwrap).collect();
    let epoch = answers[0][0].epoch;
    assert!(answers.iter().flatten().all(|place| place.epoch == epoch));
    for own in &answers {
        assert!(own.windows(2).all(|pair| pair[0].offset < pair[1].offset), "{own:?}");
    }
    let mut all: Vec<u64> = answers.iter().flatten().map(|place| place.offset).collect();
    all.sort_unstable();
    assert_eq!(all, (1..=1600).collect::<Vec<_>>());
    let slice = first.read("a", Page { limit: 2000, ..EVERYTHING }).await;
    assert_eq!(slice.top, Position::new(1600, epoch));
    for node in [&first, &second] {
        node.recorder.wait("a", 1600).await;
        let heard: Vec<Publication> = node.recorder.said("a").into_iter().map(|said| said.publication).collect();
        assert_eq!(heard, slice.publications);
        assert!(node.recorder.said("a").iter().all(|said| said.epoch == Some(epoch)));
    }
    backend.stop().await;
}

async fn kept_and_other_publications_stay_in_the_order_in_which_they_were_made(backend: Backend) {
    let node = backend.node();
    node.subscribe("a").await;
    let mut answers = Vec::new();
    for (number, data) in numbers(0..3000).into_iter().enumerate() {
        let once = Append { idempotency: Some((number.to_string(), KEEP.ttl)), ..Append::default() };
        answers.push(match number % 5 {
            0 => node.history.append("a", publication(data), &kept(KEEP)),
            1 => node.history.append("a", publication(data), &kept(Keep { size: 50, ..KEEP })),
            2 => node.history.append("a", publication(data), &once),
            3 => node.history.append("a", publication(data), &Append::default()),
            _ => match node.broker.publish("a", said(data)) {
                Answer::Now(result) => Answer::Now(result.map(|()| Appended { position: None, fresh: true })),
                Answer::Later(later) => {
                    Answer::Later(Box::pin(async { later.await.map(|()| Appended { position: None, fresh: true }) }))
                }
            },
        });
    }
    let answers = join_all(answers.into_iter().map(Answer::wait)).await;
    for (number, answer) in answers.into_iter().enumerate() {
        let answer = answer.unwrap();
        assert_eq!((answer.fresh, answer.position.is_some()), (true, number % 5 < 2));
    }
    assert_eq!(node.recorder.wait("a", 3000).await, numbers(0..3000));
    let kept: Vec<u64> =
        node.recorder.said("a").iter().map(|said| said.publication.offset).filter(|n| *n > 0).collect();
    assert_eq!(kept, (1..=1200).collect::<Vec<_>>());
    backend.stop().await;
}

async fn a_room_asked_for_the_first_time_has_an_epoch_and_keeps_it(backend: Backend) {
    let node = backend.node();
    let empty = node.read("a", EVERYTHING).await;
    assert_eq!((empty.publications.len(), empty.top.offset), (0, 0));
    assert_eq!(node.read("a", EVERYTHING).await, empty);
    assert_eq!(node.keep("a", "x").await, Position::new(1, empty.top.epoch));
    assert_ne!(node.read("b", EVERYTHING).await.top.epoch, empty.top.epoch);
    backend.stop().await;
}

async fn pages_begin_where_they_are_asked_to(backend: Backend) {
    let node = backend.node();
    for number in numbers(0..10) {
        node.keep("a", number).await;
    }
    let pages: [(Option<u64>, u32, bool, Vec<u64>); 19] = [
        (None, 1000, false, (1..=10).collect()),
        (None, 3, false, vec![1, 2, 3]),
        (None, 0, false, vec![]),
        (Some(0), 3, false, vec![1, 2, 3]),
        (Some(4), 3, false, vec![5, 6, 7]),
        (Some(8), 3, false, vec![9, 10]),
        (Some(9), 1000, false, vec![10]),
        (Some(10), 1000, false, vec![]),
        (Some(11), 1000, false, vec![]),
        (Some(u64::MAX), 1000, false, vec![]),
        (None, 1000, true, (1..=10).rev().collect()),
        (None, 3, true, vec![10, 9, 8]),
        (None, 0, true, vec![]),
        (Some(4), 1000, true, vec![3, 2, 1]),
        (Some(4), 2, true, vec![3, 2]),
        (Some(1), 1000, true, vec![]),
        (Some(0), 1000, true, vec![]),
        (Some(20), 2, true, vec![10, 9]),
        (Some(u64::MAX), 2, true, vec![10, 9]),
    ];
    for (since, limit, reverse, expected) in pages {
        let slice = node.read("a", Page { since, limit, reverse, meta_ttl: KEEP.meta_ttl }).await;
        assert_eq!(offsets(&slice), expected, "since {since:?} limit {limit} reverse {reverse}");
        assert_eq!(slice.top.offset, 10);
        let expected: Vec<Bytes> = expected.iter().map(|offset| (offset - 1).to_string().into()).collect();
        assert_eq!(payloads(&slice), expected);
    }
    backend.stop().await;
}

async fn no_more_is_kept_than_the_size(backend: Backend) {
    let node = backend.node();
    for size in [1, 2, 10, 100, 150] {
        let (room, append) = (format!("room {size}"), kept(Keep { size, ..KEEP }));
        let many =
            numbers(0..250).into_iter().map(|data| node.history.append(&room, publication(data), &append).wait());
        join_all(many.collect::<Vec<_>>()).await.into_iter().for_each(|answer| assert!(answer.unwrap().fresh));
        let size = u64::from(size);
        assert_eq!(offsets(&node.read(&room, EVERYTHING).await), (251 - size..=250).collect::<Vec<_>>());
        let reverse = node.read(&room, Page { reverse: true, ..EVERYTHING }).await;
        assert_eq!(offsets(&reverse), (251 - size..=250).rev().collect::<Vec<_>>());
        let early = node.read(&room, Page { since: Some(3), limit: 2, ..EVERYTHING }).await;
        assert_eq!(offsets(&early), (251 - size..=250).take(2).collect::<Vec<_>>());
    }
    // The size that was asked for last is the one that holds.
    node.append("room 100", "250", &kept(Keep { size: 5, ..KEEP })).await;
    assert_eq!(offsets(&node.read("room 100", EVERYTHING).await), [247, 248, 249, 250, 251]);
    backend.stop().await;
}

/// What a room has to have: every publication in its order, and how many of them stay.
struct Model {
    size: usize,
    epoch: Option<Epoch>,
    all: Vec<Bytes>,
}

impl Model {
    /// Says many at once, from one node or two, and takes up where each stands. What one of them says is in its order.
    async fn say(&mut self, nodes: [&Node; 2], room: &str, rng: &mut StdRng) {
        let append = kept(Keep { size: u32::try_from(self.size).unwrap(), ..KEEP });
        let longest = [4, 40, 700, 9000][rng.random_range(0..4)];
        let many: Vec<(usize, Bytes)> = (0..rng.random_range(1..120))
            .map(|_| (rng.random_range(0..2), vec![rng.random(); rng.random_range(0..longest)].into()))
            .collect();
        let calls = many
            .iter()
            .map(|(node, data)| nodes[*node].history.append(room, publication(data.clone()), &append).wait())
            .collect::<Vec<_>>();
        let before = self.all.len();
        self.all.resize(before + many.len(), Bytes::from_static(b"nothing was given this place"));
        let mut last = [0, 0];
        for (answer, (node, data)) in join_all(calls).await.into_iter().zip(many) {
            let Position { offset, epoch } = answer.unwrap().position.unwrap();
            assert_eq!(*self.epoch.get_or_insert(epoch), epoch);
            assert!(offset > last[node], "{offset} after {}", last[node]);
            last[node] = offset;
            let place = usize::try_from(offset).unwrap() - 1;
            assert!((before..self.all.len()).contains(&place) && self.all[place].starts_with(b"nothing was given"));
            self.all[place] = data;
        }
    }

    fn page(&self, page: &Page) -> Vec<(u64, Bytes)> {
        let first = self.all.len().saturating_sub(self.size);
        let stays = (1..).zip(&self.all).skip(first).map(|(offset, data)| (offset, data.clone()));
        let limit = page.limit as usize;
        if page.reverse {
            let wanted = stays.filter(|(offset, _)| page.since.is_none_or(|since| *offset < since));
            let wanted: Vec<_> = wanted.collect();
            wanted.into_iter().rev().take(limit).collect()
        } else {
            stays.filter(|(offset, _)| page.since.is_none_or(|since| *offset > since)).take(limit).collect()
        }
    }

    /// Asks for pages of every kind.
    async fn compare(&self, node: &Node, room: &str, rng: &mut StdRng, seed: u64) {
        let top = self.all.len() as u64;
        let oldest = top.saturating_sub(self.size as u64);
        let near = |place: u64| [place.saturating_sub(1), place, place + 1];
        let mut since: Vec<Option<u64>> = [near(0), near(oldest), near(top)].concat().into_iter().map(Some).collect();
        since.extend([None, Some(u64::MAX)]);
        since.extend((0..6).map(|_| Some(rng.random_range(0..=top + 1))));
        let limits = [1, 2, 31, 32, 33, rng.random_range(1..200), 1000];
        let pages = since.into_iter().flat_map(|since| {
            let both = limits.into_iter().flat_map(|limit| [(limit, false), (limit, true)]);
            both.map(move |(limit, reverse)| Page { since, limit, reverse, meta_ttl: KEEP.meta_ttl })
        });
        let pages: Vec<Page> = pages.collect();
        let slices = join_all(pages.iter().map(|page| node.history.read(room, page).wait()).collect::<Vec<_>>()).await;
        for (page, slice) in pages.iter().zip(slices) {
            let slice = slice.unwrap();
            assert_eq!(slice.top, Position::new(top, self.epoch.unwrap()));
            let read: Vec<_> = slice.publications.into_iter().map(|said| (said.offset, said.data)).collect();
            assert!(read == self.page(page), "seed {seed}, size {}, top {top}, {page:?}", self.size);
        }
    }
}

async fn what_is_read_is_what_a_model_has_however_it_came_in(backend: Backend) {
    let nodes = [backend.node(), backend.node()];
    let nodes = if backend.is_shared() { [&nodes[0], &nodes[1]] } else { [&nodes[0], &nodes[0]] };
    for (number, size) in [1, 2, 5, 31, 32, 33, 100, 300].into_iter().enumerate() {
        let seed = rand::rng().random();
        let (mut rng, room) = (StdRng::seed_from_u64(seed), format!("room {number}"));
        nodes[0].subscribe(&room).await;
        let mut model = Model { size, epoch: None, all: Vec::new() };
        for _ in 0..5 {
            model.say(nodes, &room, &mut rng).await;
            model.compare(nodes[1], &room, &mut rng, seed).await;
        }
        assert!(nodes[0].recorder.wait(&room, model.all.len()).await == model.all, "seed {seed}");
        assert!(
            nodes[0].recorder.said(&room).iter().map(|said| said.publication.offset).eq(1..=model.all.len() as u64)
        );
    }
    backend.stop().await;
}

async fn publications_are_forgotten_after_their_time_and_the_place_is_not(backend: Backend) {
    let node = backend.node();
    let short = kept(Keep { ttl: Duration::from_secs(1), ..KEEP });
    node.append("a", "0", &short).await;
    let place = node.append("a", "1", &short).await.position.unwrap();
    let other = node.keep("b", "stays").await;
    tokio::time::sleep(A_SECOND_AND_MORE).await;
    assert_eq!(node.read("a", EVERYTHING).await, Slice { publications: Vec::new(), top: place });
    assert_eq!(node.append("a", "2", &short).await.position, Some(Position::new(3, place.epoch)));
    assert_eq!(offsets(&node.read("a", EVERYTHING).await), [3]);
    assert_eq!(node.read("b", EVERYTHING).await.top, other);
    assert_eq!(node.everything("b").await, ["stays"]);
    backend.stop().await;
}

async fn an_epoch_ends_when_nobody_uses_it(backend: Backend) {
    let node = backend.node();
    // Publications that would outlive their epoch go with it.
    let short = kept(Keep { meta_ttl: Duration::from_secs(1), ..KEEP });
    let lasting = kept(Keep { meta_ttl: Duration::ZERO, ..KEEP });
    let place = node.append("a", "0", &short).await.position.unwrap();
    let read = node.append("b", "0", &short).await.position.unwrap();
    let stays = node.append("c", "0", &lasting).await.position.unwrap();
    tokio::time::sleep(A_SECOND_AND_MORE).await;
    let again = node.append("a", "1", &short).await.position.unwrap();
    assert_eq!(again.offset, 1);
    assert_ne!(again.epoch, place.epoch);
    assert_eq!(node.everything("a").await, ["1"]);
    let empty = node.read("b", EVERYTHING).await;
    assert_eq!((empty.publications.len(), empty.top.offset), (0, 0));
    assert_ne!(empty.top.epoch, read.epoch);
    assert_eq!(node.keep("b", "1").await, Position::new(1, empty.top.epoch));
    assert_eq!(node.read("c", Page { meta_ttl: Duration::ZERO, ..EVERYTHING }).await.top, stays);
    backend.stop().await;
}

async fn reading_is_a_use(backend: Backend) {
    let node = backend.node();
    // Longer than a busy machine keeps a test waiting between two reads, and shorter than all of them take.
    let short = Keep { meta_ttl: Duration::from_secs(4), ..KEEP };
    let place = node.append("a", "0", &kept(short)).await.position.unwrap();
    let only_read = node.read("b", Page { meta_ttl: short.meta_ttl, ..EVERYTHING }).await.top;
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let page = Page { limit: 0, meta_ttl: short.meta_ttl, ..EVERYTHING };
        assert_eq!(node.read("a", page).await.top, place);
        assert_eq!(node.read("b", page).await.top, only_read);
    }
    backend.stop().await;
}

async fn forgetting_keeps_the_place(backend: Backend) {
    let node = backend.node();
    node.keep("a", "0").await;
    let place = node.keep("a", "1").await;
    node.keep("b", "0").await;
    node.history.forget("a").wait().await.unwrap();
    node.history.forget("never seen").wait().await.unwrap();
    assert_eq!(node.read("a", EVERYTHING).await, Slice { publications: Vec::new(), top: place });
    assert_eq!(node.keep("a", "2").await, Position::new(3, place.epoch));
    assert_eq!(offsets(&node.read("a", EVERYTHING).await), [3]);
    assert_eq!(node.everything("b").await, ["0"]);
    backend.stop().await;
}

async fn a_key_makes_one_publication_and_the_same_answer(backend: Backend) {
    let node = backend.node();
    for keep in [Some(KEEP), None] {
        let (room, other) = (format!("a {keep:?}"), format!("b {keep:?}"));
        node.subscribe(&room).await;
        let once = |key: &str| Append { keep, idempotency: Some((key.to_owned(), KEEP.ttl)), ..Append::default() };
        let first = node.append(&room, "0", &once("k")).await;
        assert_eq!((first.fresh, first.position.map(|place| place.offset)), (true, keep.map(|_| 1)));
        let second = node.append(&room, "1", &once("another")).await;
        let again = node.append(&room, "2", &once("k")).await;
        assert_eq!(again, Appended { fresh: false, ..first });
        assert_eq!(node.append(&room, "3", &once("another")).await, Appended { fresh: false, ..second });
        assert!(node.append(&other, "4", &once("k")).await.fresh, "keys are those of one room");
        // Two with one key that wait together are one as well.
        let pair = [once("pair"), once("pair")].map(|append| node.history.append(&room, publication("5"), &append));
        let pair = join_all(pair.map(Answer::wait)).await;
        assert_eq!(pair.into_iter().filter(|answer| answer.as_ref().unwrap().fresh).count(), 1);
        node.append(&room, "end", &Append { keep, ..Append::default() }).await;
        assert_eq!(node.recorder.wait(&room, 4).await, ["0", "1", "5", "end"]);
        let expected: &[&str] = if keep.is_some() { &["0", "1", "5", "end"] } else { &[] };
        assert_eq!(node.everything(&room).await, expected);
    }
    backend.stop().await;
}

async fn a_key_is_forgotten_after_its_time(backend: Backend) {
    let node = backend.node();
    let once = |ttl| Append { idempotency: Some(("k".to_owned(), Duration::from_secs(ttl))), ..kept(KEEP) };
    assert!(node.append("a", "0", &once(1)).await.fresh);
    assert!(node.append("b", "0", &once(60)).await.fresh);
    assert!(!node.append("a", "0", &once(1)).await.fresh);
    tokio::time::sleep(A_SECOND_AND_MORE).await;
    assert!(node.append("a", "1", &once(1)).await.fresh);
    assert!(!node.append("b", "1", &once(60)).await.fresh);
    assert_eq!(node.everything("a").await, ["0", "1"]);
    backend.stop().await;
}

/// Version, version epoch, and whether the publication is made.
const VERSIONS: [(u64, &str, bool); 13] = [
    (5, "x", true),
    (5, "x", false),
    (4, "x", false),
    (6, "x", true),
    (3, "y", true),
    (3, "y", false),
    (2, "", false),
    (4, "", true),
    (0, "", true),
    (4, "", false),
    (4, "x", true),
    (u64::MAX, "x", true),
    (u64::MAX - 1, "x", false),
];

async fn a_version_that_is_not_above_the_last_is_left_out(backend: Backend) {
    let node = backend.node();
    node.subscribe("a").await;
    let mut made = Vec::new();
    for (number, (version, version_epoch, is_made)) in VERSIONS.into_iter().enumerate() {
        let append = Append { version, version_epoch: version_epoch.to_owned(), ..kept(KEEP) };
        let answer = node.append("a", number.to_string(), &append).await;
        made.extend(is_made.then(|| Bytes::from(number.to_string())));
        assert_eq!((answer.fresh, answer.position.unwrap().offset), (is_made, made.len() as u64), "{number}");
    }
    // Neither forgetting the publications nor the end of a key changes what the last version was.
    node.history.forget("a").wait().await.unwrap();
    let stale = Append {
        version: 7,
        version_epoch: "x".to_owned(),
        idempotency: Some(("k".to_owned(), KEEP.ttl)),
        ..kept(KEEP)
    };
    assert!(!node.append("a", "stale", &stale).await.fresh);
    node.publish("a", "end").await;
    made.push("end".into());
    assert_eq!(node.recorder.wait("a", made.len()).await, made);
    backend.stop().await;
}

async fn versions_guard_rooms_without_history_too(backend: Backend) {
    let node = backend.node();
    node.subscribe("a").await;
    let mut made = Vec::new();
    for (number, (version, version_epoch, is_made)) in VERSIONS.into_iter().enumerate() {
        let append = Append { version, version_epoch: version_epoch.to_owned(), ..Append::default() };
        let answer = node.append("a", number.to_string(), &append).await;
        assert_eq!(answer, Appended { position: None, fresh: is_made }, "{number}");
        made.extend(is_made.then(|| Bytes::from(number.to_string())));
    }
    assert_eq!(node.recorder.wait("a", made.len()).await, made);
    // The guard is one for both ways to publish.
    let stale = Append { version: 5, version_epoch: "x".to_owned(), ..kept(KEEP) };
    let answer = node.append("a", "stale", &stale).await;
    assert_eq!((answer.fresh, answer.position.unwrap().offset), (false, 0));
    assert_eq!(node.keep("a", "first").await, Position::new(1, answer.position.unwrap().epoch));
    assert!(!node.append("a", "stale", &Append { keep: None, ..stale }).await.fresh);
    backend.stop().await;
}

async fn rooms_of_any_name_remember_their_own(backend: Backend) {
    let node = backend.node();
    let names = ["a b", "", "{", "}", "{}", "a}b", "{a}", "ä€𝄞", "x\r\ny", "\0", "*", &"n".repeat(255)];
    for name in names {
        let once = Append { idempotency: Some((format!("{name}}}.k"), KEEP.ttl)), ..kept(KEEP) };
        assert!(node.append(name, name.to_owned(), &once).await.fresh);
        assert!(!node.append(name, "again", &once).await.fresh);
    }
    for name in names {
        assert_eq!(node.everything(name).await, [name]);
    }
    backend.stop().await;
}

async fn large_publications_are_kept_whole(backend: Backend) {
    let node = backend.node();
    let large = |fill: u8| Bytes::from(vec![fill; 1 << 20]);
    for fill in 0..5 {
        node.append("a", large(fill), &kept(Keep { size: 3, ..KEEP })).await;
    }
    assert_eq!(node.everything("a").await, [large(2), large(3), large(4)]);
    backend.stop().await;
}

async fn a_full_room_holds_up_who_appends(backend: Backend) {
    let node = backend.node();
    node.subscribe("a").await;
    node.recorder.fill("a");
    let append = node.history.append("a", publication("0"), &kept(KEEP));
    node.recorder.wait("a", 1).await;
    if !backend.is_shared() {
        assert!(matches!(append, Answer::Later(_)), "there is no other way to hold up");
    }
    // It is kept all the same, and read while the room is full.
    assert_eq!(offsets(&node.read("a", EVERYTHING).await), [1]);
    node.recorder.clear();
    assert_eq!(append.wait().await.unwrap().position.unwrap().offset, 1);
    backend.stop().await;
}

/// A broker in memory that may take so much for its histories.
fn bounded(bytes: usize) -> Arc<MemoryBroker> {
    Arc::new(MemoryBroker::new(Arc::new(Recorder::default()), Arc::new(Metrics::new())).with_history_memory(bytes))
}

#[tokio::test]
async fn memory_forgets_the_rooms_that_were_silent_longest_and_ends_their_epochs() {
    let broker = bounded(1 << 20);
    let append = async |room: String, size| fill(&broker, &room, size).await;
    let mut places = Vec::new();
    for room in 0..10 {
        places.push(append(format!("room {room}"), 50_000).await);
    }
    // The oldest speaks again, and is not silent longest any more.
    assert_eq!(append("room 0".to_owned(), 50_000).await, Position::new(2, places[0].epoch));
    for room in 10..20 {
        places.push(append(format!("room {room}"), 50_000).await);
    }
    assert_eq!(append("room 20".to_owned(), 250_000).await.offset, 1);
    let mut stands = Vec::new();
    for (room, place) in places.iter().enumerate() {
        let page = Page { limit: 0, ..EVERYTHING };
        let top = broker.read(&format!("room {room}"), &page).wait().await.unwrap().top;
        stands.push(top.epoch == place.epoch);
    }
    assert!(stands[0] && stands[10..].iter().all(|stands| *stands), "{stands:?}");
    assert!(!stands[1] && !stands[2], "{stands:?}");
    // One room alone is cut to the bound, and what does not fit at all is delivered and not kept.
    for _ in 0..30 {
        append("alone".to_owned(), 100_000).await;
    }
    let slice = broker.read("alone", &EVERYTHING).wait().await.unwrap();
    assert_eq!(offsets(&slice), (21..=30).collect::<Vec<_>>());
    append("alone".to_owned(), 2 << 20).await;
    let slice = broker.read("alone", &EVERYTHING).wait().await.unwrap();
    assert_eq!((slice.publications.len(), slice.top.offset), (0, 31));
}

/// Appends so many bytes.
async fn fill(broker: &MemoryBroker, room: &str, size: usize) -> Position {
    broker.append(room, publication(vec![0; size]), &kept(KEEP)).wait().await.unwrap().position.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_stays_bounded_while_many_rooms_speak_at_once() {
    let broker = bounded(100_000);
    let tasks = (0..4).map(|task| {
        let broker = Arc::clone(&broker);
        tokio::spawn(async move {
            for number in 0..5000 {
                let room = format!("room {}", (task * 7 + number * 13) % 500);
                fill(&broker, &room, number % 3000).await;
            }
        })
    });
    join_all(tasks).await.into_iter().for_each(|done| done.unwrap());
    let mut bytes = 0;
    for room in 0..500 {
        let slice = broker.read(&format!("room {room}"), &EVERYTHING).wait().await.unwrap();
        bytes += slice.publications.iter().map(|publication| publication.data.len()).sum::<usize>();
    }
    assert!(bytes <= 100_000, "{bytes}");
}
