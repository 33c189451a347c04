//! Who is where, asked of every broker that keeps it: the one in memory, and the one over a real redis-server or a cluster; and
//! what only Redis can do to it.

#![allow(clippy::unwrap_used, reason = "a test fails where what it needs fails")]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use roomcast::{
    broker::{
        Count, Members, Presence,
        memory::MemoryPresence,
        redis::{RedisBroker, RedisOptions},
    },
    metrics::Metrics,
};
use roomcast_shared::publication::ClientInfo;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

#[path = "common/brokers.rs"]
mod brokers;

use brokers::{DEADLINE, Many, Recorder, RedisServer};

/// Long enough for any test.
const LONG: Duration = Duration::from_mins(10);

/// A store of presence, and what it needs.
struct Store {
    presence: Arc<dyn Presence>,
    server: Option<RedisServer>,
    /// Others use it as well, while any of them is there.
    _many: Option<Arc<Many>>,
    tracker: TaskTracker,
    shutdown: CancellationToken,
}

impl Store {
    fn memory() -> Self {
        let presence = Arc::new(MemoryPresence::new());
        let (tracker, shutdown) = (TaskTracker::new(), CancellationToken::new());
        Self { presence, server: None, _many: None, tracker, shutdown }
    }

    fn redis() -> Self {
        Self::on(RedisServer::start())
    }

    fn on(server: RedisServer) -> Self {
        let store = Self::over(&RedisOptions::new(server.url()));
        Self { server: Some(server), ..store }
    }

    fn cluster() -> Self {
        let many = Many::cluster();
        let options = many.options(0);
        Self { _many: Some(many), ..Self::over(&options) }
    }

    fn over(options: &RedisOptions) -> Self {
        let (tracker, shutdown) = (TaskTracker::new(), CancellationToken::new());
        let (recorder, metrics) = (Arc::new(Recorder::default()), Arc::new(Metrics::new()));
        let presence = RedisBroker::start(options, recorder, metrics, &tracker, shutdown.clone()).unwrap();
        Self { presence, server: None, _many: None, tracker, shutdown }
    }

    fn server(&self) -> &RedisServer {
        self.server.as_ref().unwrap()
    }

    async fn enter(&self, room: &str, member: &ClientInfo, ttl: Duration) {
        self.presence.enter(room, member, ttl).wait().await.unwrap();
    }

    async fn leave(&self, room: &str, client: &str) {
        self.presence.leave(room, client).wait().await.unwrap();
    }

    async fn renew(&self, members: impl IntoIterator<Item = (&str, ClientInfo)>, ttl: Duration) {
        let members = members.into_iter().map(|(room, info)| (Arc::from(room), Arc::new(info))).collect();
        self.presence.renew(members, ttl).wait().await.unwrap();
    }

    async fn count(&self, room: &str) -> (u64, u64) {
        let Count { clients, users } = self.presence.count(room).wait().await.unwrap();
        (clients, users)
    }

    /// Every page of a room, of so many at most.
    async fn pages(&self, room: &str, limit: u32) -> Vec<Vec<ClientInfo>> {
        let (mut pages, mut cursor) = (Vec::new(), String::new());
        loop {
            let page: Members = self.presence.members(room, &cursor, limit).wait().await.unwrap();
            assert!(page.clients.len() <= limit as usize);
            pages.push(page.clients);
            if page.cursor.is_empty() {
                return pages;
            }
            cursor = page.cursor;
            tokio::task::yield_now().await;
        }
    }

    async fn members(&self, room: &str) -> Vec<ClientInfo> {
        self.pages(room, 1_000).await.concat()
    }

    async fn until_count(&self, room: &str, wanted: (u64, u64)) {
        let begin = Instant::now();
        loop {
            let count = self.count(room).await;
            if count == wanted {
                return;
            }
            assert!(begin.elapsed() < DEADLINE, "{room} has {count:?} instead of {wanted:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.tracker.close();
        assert!(tokio::time::timeout(DEADLINE, self.tracker.wait()).await.is_ok(), "a task does not end");
    }
}

fn member(client: &str, user: &str) -> ClientInfo {
    let (conn_info, chan_info) = (format!("{{\"of\":{client:?}}}").into(), "\0\n binary".into());
    ClientInfo { client: client.to_owned(), user: user.to_owned(), conn_info, chan_info }
}

fn names(members: &[ClientInfo]) -> Vec<&str> {
    members.iter().map(|member| member.client.as_str()).collect()
}

/// Runs each test with each store.
macro_rules! with_every_store {
    ($($test:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(super::Store::memory()).await;
            })*
        }
        mod over_redis {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(super::Store::redis()).await;
            })*
        }
        mod over_a_cluster {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(super::Store::cluster()).await;
            })*
        }
    };
}

with_every_store! {
    a_member_is_named_with_all_that_is_known_of_it_until_it_leaves,
    clients_of_one_user_count_as_one_user,
    entering_again_changes_what_is_known_and_counts_once,
    no_more_than_so_many_enter_within_a_limit,
    a_member_that_is_not_renewed_is_gone_when_its_time_is_over,
    many_whose_time_is_over_together_are_not_counted,
    a_long_room_is_walked_in_pages_while_others_come_and_go,
    rooms_of_any_name_are_kept_apart,
    many_members_are_renewed_with_one_call_for_each_room,
    calls_take_effect_in_order_though_nobody_waits_for_the_answers,
}

async fn a_member_is_named_with_all_that_is_known_of_it_until_it_leaves(store: Store) {
    assert_eq!((store.count("a").await, store.members("a").await), ((0, 0), Vec::new()));
    let (ann, nobody) = (member("c1", "ann"), ClientInfo { client: "c2".to_owned(), ..ClientInfo::default() });
    store.enter("a", &ann, LONG).await;
    store.enter("a", &nobody, LONG).await;
    store.enter("b", &ann, LONG).await;
    assert_eq!(store.members("a").await, [ann.clone(), nobody.clone()]);
    assert_eq!(store.members("b").await, [ann]);
    store.leave("a", "c1").await;
    store.leave("a", "never there").await;
    assert_eq!((store.members("a").await, store.count("a").await), (vec![nobody], (1, 1)));
    store.leave("a", "c2").await;
    store.leave("b", "c1").await;
    assert_eq!((store.count("a").await, store.count("b").await), ((0, 0), (0, 0)));
    if let Some(server) = &store.server {
        assert_eq!(server.command(&["DBSIZE"]), ["0"], "nothing is left");
    }
    store.stop().await;
}

async fn clients_of_one_user_count_as_one_user(store: Store) {
    // The length of the last name takes two bytes where it is kept with the client.
    let long = "u".repeat(300);
    for (number, user) in ["ann", "ann", "ben", "", "", "", &long, &long].into_iter().enumerate() {
        store.enter("a", &member(&format!("c{number}"), user), LONG).await;
    }
    assert_eq!(store.count("a").await, (8, 4));
    store.leave("a", "c0").await;
    assert_eq!(store.count("a").await, (7, 4), "ann is there still");
    store.leave("a", "c1").await;
    store.leave("a", "c1").await;
    assert_eq!(store.count("a").await, (6, 3));
    for client in ["c3", "c4", "c6", "c7"] {
        store.leave("a", client).await;
    }
    assert_eq!(store.count("a").await, (2, 2));
    store.leave("a", "c5").await;
    assert_eq!(store.count("a").await, (1, 1));
    store.stop().await;
}

async fn entering_again_changes_what_is_known_and_counts_once(store: Store) {
    store.enter("a", &member("c", "ann"), LONG).await;
    let changed = ClientInfo { conn_info: "{}".into(), ..member("c", "ann") };
    store.enter("a", &changed, LONG).await;
    assert_eq!((store.members("a").await, store.count("a").await), (vec![changed], (1, 1)));
    store.enter("a", &member("c", "ben"), LONG).await;
    assert_eq!((store.members("a").await, store.count("a").await), (vec![member("c", "ben")], (1, 1)));
    store.leave("a", "c").await;
    assert_eq!(store.count("a").await, (0, 0));
    store.stop().await;
}

async fn no_more_than_so_many_enter_within_a_limit(store: Store) {
    let within = async |client: &str, limit, ttl| {
        store.presence.enter_within("a", &member(client, "ann"), limit, ttl).wait().await.unwrap()
    };
    assert!(within("c1", 2, LONG).await && within("c2", 2, LONG).await && !within("c3", 2, LONG).await);
    assert!(within("c1", 2, LONG).await, "it is there already");
    assert!(within("c3", 3, LONG).await && !within("c4", 2, LONG).await);
    assert_eq!((names(&store.members("a").await), store.count("a").await), (vec!["c1", "c2", "c3"], (3, 1)));
    store.leave("a", "c1").await;
    store.leave("a", "c2").await;
    assert!(within("c5", 2, Duration::from_millis(100)).await && !within("c6", 2, LONG).await);
    let begin = Instant::now();
    while !within("c6", 2, LONG).await {
        assert!(begin.elapsed() < DEADLINE, "the time of one of them is over");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!within("c7", 0, LONG).await);
    // Many at once: the calls are made before any is answered.
    let calls: Vec<_> = (0..50)
        .map(|number| store.presence.enter_within("b", &member(&format!("c{number}"), "ann"), 7, LONG))
        .map(roomcast::broker::Answer::wait)
        .collect();
    let let_in = futures_util::future::try_join_all(calls).await.unwrap().into_iter().filter(|entered| *entered);
    assert_eq!((let_in.count(), store.count("b").await), (7, (7, 1)));
    store.stop().await;
}

async fn a_member_that_is_not_renewed_is_gone_when_its_time_is_over(store: Store) {
    let short = Duration::from_millis(400);
    let begin = Instant::now();
    for (client, user) in [("c1", "ann"), ("c2", "ann"), ("c3", "ben"), ("c4", "ben")] {
        store.enter("a", &member(client, user), short).await;
    }
    store.renew([("a", member("c2", "ann"))], LONG).await;
    store.enter("a", &member("c3", "ben"), LONG).await;
    if begin.elapsed() < short / 2 {
        assert_eq!(store.count("a").await, (4, 2));
    }
    store.until_count("a", (2, 2)).await;
    assert!(begin.elapsed() >= short, "not before");
    assert_eq!(names(&store.members("a").await), ["c2", "c3"]);
    store.leave("a", "c3").await;
    assert_eq!(store.count("a").await, (1, 1), "and the user of the one that went with time is gone too");
    store.stop().await;
}

/// More than a script looks at in one call.
async fn many_whose_time_is_over_together_are_not_counted(store: Store) {
    let clients: Vec<_> = (0..2_500).map(|number| format!("c{number}")).collect();
    let short = Duration::from_millis(1_500);
    store.renew(clients.iter().map(|client| ("a", member(client, client))), short).await;
    let entered = Instant::now();
    store.renew([("a", member("stays", "one")), ("a", member("too", "one"))], LONG).await;
    assert_eq!(store.count("a").await, (2_502, 2_501));
    tokio::time::sleep_until((entered + short).into()).await;
    assert_eq!(store.count("a").await, (2, 1), "at the first question");
    assert_eq!(names(&store.members("a").await), ["stays", "too"]);
    store.stop().await;
}

async fn a_long_room_is_walked_in_pages_while_others_come_and_go(store: Store) {
    let stay: BTreeSet<_> = (0..5_000).map(|number| format!("{number:04}-stays")).collect();
    store.renew(stay.iter().map(|client| ("a", member(client, "u"))), LONG).await;
    let stop = CancellationToken::new();
    let traffic = async {
        let mut number = 0;
        while !stop.is_cancelled() {
            let client = format!("{:04}-goes", number * 7919 % 5_000);
            store.enter("a", &member(&client, "v"), LONG).await;
            store.renew([("a", member(stay.iter().nth(number % 5_000).unwrap(), "u"))], LONG).await;
            store.leave("a", &client).await;
            number += 1;
            tokio::task::yield_now().await;
        }
        number
    };
    let walk = async {
        let pages = store.pages("a", 300).await;
        stop.cancel();
        pages
    };
    let (pages, number) = tokio::join!(walk, traffic);
    assert!(pages.len() >= 17 && number > 0, "{} pages, {number} comings and goings", pages.len());
    let mut named = BTreeMap::<String, usize>::new();
    for member in pages.concat() {
        *named.entry(member.client).or_default() += 1;
    }
    let of_those_who_stay: BTreeMap<_, _> = named.into_iter().filter(|(client, _)| stay.contains(client)).collect();
    assert_eq!(of_those_who_stay.len(), stay.len(), "each of them");
    assert!(of_those_who_stay.values().all(|times| *times == 1), "once");
    assert_eq!(store.count("a").await, (5_000, 1));
    let page = store.presence.members("a", "", 1_000_000).wait().await.unwrap();
    assert_eq!(page.clients.len(), Members::MAX as usize);
    store.stop().await;
}

async fn rooms_of_any_name_are_kept_apart(store: Store) {
    let rooms = ["a", "}", "{}", "{a}", "a}b", "{", "x{a}y", "}.users", "ä:b c", "a}", "{{a}}", "*"];
    for (number, room) in rooms.iter().enumerate() {
        for client in 0..=number {
            store.enter(room, &member(&format!("{number}-{client}"), room), LONG).await;
        }
    }
    for (number, room) in rooms.iter().enumerate() {
        assert_eq!(store.count(room).await, (number as u64 + 1, 1), "{room}");
        assert!(store.members(room).await.iter().all(|member| member.user == *room), "{room}");
    }
    store.stop().await;
}

async fn many_members_are_renewed_with_one_call_for_each_room(store: Store) {
    let rooms: Vec<_> = (0..20).map(|room| format!("room-{room}")).collect();
    let all: Vec<_> =
        (0..4_000).map(|n| (rooms[n % 20].as_str(), member(&format!("c{n}"), &format!("u{}", n % 80)))).collect();
    let short = Duration::from_secs(2);
    store.renew(all.clone(), short).await;
    let entered = Instant::now();
    store.leave("room-3", "c3").await;
    // One has left, all others are renewed: it is entered anew, as one that the store has forgotten.
    let before = store.server.as_ref().map(RedisServer::scripts_run);
    store.renew(all, LONG).await;
    if let (Some(server), Some(before)) = (&store.server, before) {
        assert_eq!(server.scripts_run() - before, 20, "one call for each room");
    }
    tokio::time::sleep_until((entered + short).into()).await;
    for room in &rooms {
        assert_eq!(store.count(room).await, (200, 4), "{room}");
        assert_eq!(store.members(room).await.len(), 200);
    }
    store.stop().await;
}

async fn calls_take_effect_in_order_though_nobody_waits_for_the_answers(store: Store) {
    let ann = Arc::new(member("c", "ann"));
    for _ in 0..300 {
        drop(store.presence.enter("a", &ann, LONG));
        drop(store.presence.renew(vec![(Arc::from("a"), ann.clone())], LONG));
        drop(store.presence.leave("a", "c"));
    }
    drop(store.presence.enter("a", &member("d", "ben"), LONG));
    assert_eq!(store.count("a").await, (1, 1), "a question comes after what was said before it");
    assert_eq!(names(&store.members("a").await), ["d"]);
    store.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewal_enters_anew_whoever_redis_has_forgotten() {
    let store = Store::redis();
    let all: Vec<_> = (0..1_200).map(|n| ("a", member(&format!("c{n}"), &format!("u{}", n % 7)))).collect();
    store.renew(all.clone(), LONG).await;
    store.server().command(&["FLUSHALL"]);
    assert_eq!(store.count("a").await, (0, 0));
    store.renew(all, LONG).await;
    assert_eq!(store.count("a").await, (1_200, 7));
    assert_eq!(store.members("a").await.len(), 1_200);
    store.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scripts_that_redis_has_lost_are_loaded_again() {
    let store = Store::redis();
    let flush = || store.server().command(&["SCRIPT", "FLUSH"]);
    flush();
    store.enter("a", &member("c1", "ann"), LONG).await;
    flush();
    store.renew([("a", member("c2", "ann"))], LONG).await;
    flush();
    assert_eq!(store.count("a").await, (2, 1));
    flush();
    assert_eq!(names(&store.members("a").await), ["c1", "c2"]);
    flush();
    store.leave("a", "c1").await;
    assert_eq!(store.count("a").await, (1, 1));
    flush();
    // Nobody waits for this one.
    drop(store.presence.leave("a", "c2"));
    store.until_count("a", (0, 0)).await;
    store.stop().await;
}

/// On one thread all calls between two waits are written together.
#[tokio::test]
async fn calls_keep_their_order_where_redis_has_lost_some_scripts_and_not_others() {
    let store = Store::redis();
    let server = store.server();
    let known = |digest: &str| server.command(&["SCRIPT", "EXISTS", digest]) == ["1"];
    let shared = include_str!("../src/broker/redis/lua/presence.lua");
    let put = &format!("{shared}{}", include_str!("../src/broker/redis/lua/presence_put.lua"));
    let leave = &format!("{shared}{}", include_str!("../src/broker/redis/lua/presence_leave.lua"));
    let load = |script: &str| server.command(&["SCRIPT", "LOAD", script]).concat();
    store.enter("b", &member("c", "ann"), LONG).await;
    let only = |script: &str, other: &str| {
        let digests = [load(script), load(other)];
        assert_eq!(server.command(&["SCRIPT", "FLUSH"]), ["OK"]);
        assert_eq!(load(script), digests[0]);
        assert!(known(&digests[0]) && !known(&digests[1]));
    };

    only(leave, put);
    drop(store.presence.enter("a", &member("c", "ann"), LONG));
    drop(store.presence.leave("a", "c"));
    assert_eq!(store.count("a").await, (0, 0), "it has left");

    only(put, leave);
    drop(store.presence.leave("b", "c"));
    drop(store.presence.enter("b", &member("c", "ben"), LONG));
    assert_eq!(store.count("b").await, (1, 1), "it has come back");
    store.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_keys_of_a_room_that_all_nodes_have_forgotten_go_by_themselves() {
    let store = Store::redis();
    let short = Duration::from_millis(300);
    store.enter("a", &member("c1", "ann"), short).await;
    store.renew([("a", member("c2", "ann")), ("b", member("c2", "ann"))], short).await;
    assert_ne!(store.server().command(&["KEYS", "*"]), [""; 0], "they are there");
    let begin = Instant::now();
    while store.server().command(&["DBSIZE"]) != ["0"] {
        assert!(begin.elapsed() < DEADLINE, "left: {:?}", store.server().command(&["KEYS", "*"]));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // A short time does not cut a longer one.
    store.enter("a", &member("c1", "ann"), LONG).await;
    store.enter("a", &member("c2", "ben"), short).await;
    store.until_count("a", (1, 1)).await;
    assert_eq!(names(&store.members("a").await), ["c1"]);
    store.stop().await;
}

/// A server of a cluster refuses scripts whose keys are not all in one slot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_keys_of_a_room_are_in_one_slot_whatever_its_name() {
    let server = RedisServer::start_clustered();
    // One by one: servers before Redis 7 know no ranges of them.
    let slots: Vec<_> = (0..16384).map(|slot| slot.to_string()).collect();
    let command: Vec<_> = ["CLUSTER", "ADDSLOTS"].into_iter().chain(slots.iter().map(String::as_str)).collect();
    assert_eq!(server.command(&command), ["OK"]);
    let begin = Instant::now();
    while !server.command(&["CLUSTER", "INFO"]).concat().contains("cluster_state:ok") {
        assert!(begin.elapsed() < DEADLINE, "the cluster never stands");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    rooms_of_any_name_are_kept_apart(Store::on(server)).await;
}
