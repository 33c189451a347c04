//! Who of this node's clients is in which room, kept alive at the broker: entered, left, and renewed well before their time
//! is over. Knows no commands; whether a room keeps presence is for its callers.

use std::{
    cmp::Ordering,
    collections::BTreeSet,
    hash::BuildHasher,
    ops::Bound::{Excluded, Unbounded},
    sync::Arc,
    time::Duration,
};

use foldhash::fast::RandomState;
use parking_lot::Mutex;
use roomcast_shared::publication::ClientInfo;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::Node;
use crate::broker::{Answer, BrokerError, Count, Health, Members, Presence};

const SHARDS: u32 = 64;

/// Members renewed in one call at most.
const PIECE: usize = 500;

/// How long a round takes after the broker was lost: it may have forgotten everybody.
const HURRY: Duration = Duration::from_secs(2);

/// The members of this node, and where presence is kept.
pub(super) struct Attendance {
    pub(super) store: Arc<dyn Presence>,
    pub(super) ttl: Duration,
    shards: Box<[Mutex<BTreeSet<Member>>]>,
    /// A member has come, maybe the first one.
    entered: Notify,
    hasher: RandomState,
}

/// A client in a room. One member is another where room and client are the same, whatever else is known of the client.
#[derive(Clone)]
pub(super) struct Member {
    pub(super) room: Arc<str>,
    pub(super) info: Arc<ClientInfo>,
}

/// Keeps a client of this node present in a room while it lives.
pub struct Present {
    pub(super) node: Arc<Node>,
    pub(super) member: Member,
}

impl Attendance {
    pub(super) fn new(store: Arc<dyn Presence>, ttl: Duration) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { store, ttl, shards, entered: Notify::new(), hasher: RandomState::default() }
    }

    pub(super) fn enter(&self, member: &Member) -> Answer<()> {
        // The broker's queue is entered under the lock, here and below, so that it sees what concerns one client in the order
        // in which this node's list changed: a renewal never brings back who has left.
        let mut shard = self.shard(&member.room).lock();
        shard.replace(member.clone());
        self.entered.notify_one();
        self.store.enter(&member.room, &member.info, self.ttl)
    }

    /// Has a member that was entered otherwise be renewed with the others.
    pub(super) fn list(&self, member: &Member) {
        self.shard(&member.room).lock().replace(member.clone());
        self.entered.notify_one();
    }

    /// Waits while this node has no member.
    async fn some_member(&self) {
        while self.shards.iter().all(|shard| shard.lock().is_empty()) {
            self.entered.notified().await;
        }
    }

    fn leave(&self, member: &Member) -> Answer<()> {
        let mut shard = self.shard(&member.room).lock();
        let same = shard.get(member).is_some_and(|found| Arc::ptr_eq(&found.info, &member.info));
        if !same {
            // It has left before, or another session's member has taken its place.
            return Answer::Now(Ok(()));
        }
        shard.remove(member);
        self.store.leave(&member.room, &member.info.client)
    }

    /// Renews some of a shard's members, those after `last`; gives the last one of them, if there are more.
    fn renew(&self, shard: &Mutex<BTreeSet<Member>>, last: Option<&Member>) -> (Answer<()>, Option<Member>) {
        let shard = shard.lock();
        let mut rest = shard.range((last.map_or(Unbounded, Excluded), Unbounded));
        let piece: Vec<_> = rest.by_ref().take(PIECE).cloned().collect();
        let next = rest.next().and_then(|_| piece.last().cloned());
        if piece.is_empty() {
            return (Answer::Now(Ok(())), None);
        }
        let members = piece.into_iter().map(|member| (member.room, member.info)).collect();
        (self.store.renew(members, self.ttl), next)
    }

    /// Renews a shard's members piece by piece, over the time until `end`; gives what became of it, if that is known.
    async fn renew_shard(&self, shard: &Mutex<BTreeSet<Member>>, end: Instant) -> Option<Result<(), BrokerError>> {
        let pieces = u32::try_from(shard.lock().len().div_ceil(PIECE)).unwrap_or(u32::MAX);
        let step = end.saturating_duration_since(Instant::now()).checked_div(pieces)?;
        let (mut last, mut outcome) = (None, None);
        loop {
            let (answer, next) = self.renew(shard, last.as_ref());
            let until = Instant::now() + step;
            // What takes longer takes effect all the same: the others are not kept waiting for it.
            if let Ok(answered) = timeout_at(until, answer.wait()).await {
                outcome = Some(outcome.unwrap_or(Ok(())).and(answered));
            }
            if next.is_none() {
                return outcome;
            }
            last = next;
            sleep_until(until).await;
        }
    }

    fn shard(&self, room: &str) -> &Mutex<BTreeSet<Member>> {
        let bits = self.hasher.hash_one(room) >> 40;
        &self.shards[usize::try_from(bits).unwrap_or(0) % self.shards.len()]
    }
}

impl Node {
    /// Has a client of this node be present in a room, for as long as what is answered lives. A caller that gives up, or is
    /// refused, leaves no trace.
    pub fn enter_presence(self: &Arc<Self>, room: &Arc<str>, info: ClientInfo) -> Answer<Present> {
        let member = Member { room: room.clone(), info: Arc::new(info) };
        let answer = self.attendance.enter(&member);
        let present = Present { node: self.clone(), member };
        match answer {
            Answer::Now(result) => Answer::Now(result.map(|()| present)),
            Answer::Later(future) => Answer::Later(Box::pin(async move { future.await.map(|()| present) })),
        }
    }

    /// Some of those in a room on all nodes, after `cursor`; as [`Presence::members`].
    pub fn presence(&self, room: &str, cursor: &str, limit: u32) -> Answer<Members> {
        self.attendance.store.members(room, cursor, limit)
    }

    /// How many are in a room on all nodes.
    pub fn presence_count(&self, room: &str) -> Answer<Count> {
        self.attendance.store.count(room)
    }

    /// Renews the members of this node, each once in every `interval` and spread over it, until `stop`.
    pub async fn keep_presence(self: Arc<Self>, interval: Duration, stop: CancellationToken) {
        stop.run_until_cancelled(self.renew_members(interval.max(Duration::from_millis(1)))).await;
    }

    async fn renew_members(&self, interval: Duration) {
        let (mut failing, mut lost, mut hurried) = (false, false, 0_u32);
        loop {
            self.attendance.some_member().await;
            for shard in &self.attendance.shards {
                let hearing = self.health() == Health::Hearing;
                if std::mem::replace(&mut lost, !hearing) && hearing {
                    hurried = SHARDS;
                }
                let round = if hurried > 0 { interval.min(HURRY) } else { interval };
                hurried = hurried.saturating_sub(1);
                let end = Instant::now() + round / SHARDS;
                let outcome = self.attendance.renew_shard(shard, end).await;
                note(outcome.as_ref(), &mut failing);
                sleep_until(end).await;
            }
        }
    }
}

/// One line for each change, none for each attempt.
fn note(outcome: Option<&Result<(), BrokerError>>, failing: &mut bool) {
    match outcome {
        Some(Err(error)) if !*failing => {
            tracing::warn!(%error, "the presence of this node's clients is not renewed; trying again");
            *failing = true;
        }
        Some(Ok(())) if *failing => {
            tracing::info!("the presence of this node's clients is renewed again");
            *failing = false;
        }
        _ => {}
    }
}

impl Present {
    /// What others see of the client.
    pub fn info(&self) -> &Arc<ClientInfo> {
        &self.member.info
    }

    /// Changes what others see of the client; it stays the same client.
    pub fn change(&mut self, info: ClientInfo) -> Answer<()> {
        let client = self.member.info.client.clone();
        self.member.info = Arc::new(ClientInfo { client, ..info });
        self.node.attendance.enter(&self.member)
    }

    /// Leaves, and tells what came of it. Dropping it leaves too.
    pub fn leave(self) -> Answer<()> {
        self.node.attendance.leave(&self.member)
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        // Where it does not get through, the client is gone when its time is over.
        drop(self.node.attendance.leave(&self.member));
    }
}

impl Member {
    fn key(&self) -> (&str, &str) {
        (&self.room, &self.info.client)
    }
}

impl PartialEq for Member {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Member {}

impl PartialOrd for Member {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Member {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}
