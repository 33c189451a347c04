//! The sessions of this node, found by client and by user: those that are connected, with their identity, and those that
//! have not said who they are yet. Knows of them their identity and their way out only.

use std::{
    hash::BuildHasher,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use parking_lot::Mutex;
use uuid::Uuid;

use super::{Outbox, Wire, users::Users};

const SHARDS: usize = 64;

/// Who a session is, from the moment it is connected to its end.
#[derive(Debug)]
pub struct Identity {
    /// Id of the session, unique among all nodes.
    pub client: Uuid,
    /// The user, empty for an anonymous one.
    pub user: Arc<str>,
    /// What the connection token says of the client, JSON; empty where it says nothing.
    pub info: Bytes,
    /// Name and version of the client's program, as it gives them: `name/version`, or empty.
    pub agent: Box<str>,
    /// Address of the client, behind trusted proxies.
    pub address: IpAddr,
    /// How the client is spoken to.
    pub wire: Wire,
    /// When it connected, in seconds since 1970.
    pub since: u64,
}

/// Every session of this node.
pub struct Sessions {
    clients: Box<[Mutex<Clients>]>,
    users: Box<[Mutex<Users>]>,
    /// How many of them are connected.
    connected: AtomicUsize,
    hasher: RandomState,
}

type Clients = HashMap<Uuid, Entry, RandomState>;

/// A connected session and its way out.
pub type Connected = (Arc<Identity>, Arc<Outbox>);

struct Entry {
    outbox: Arc<Outbox>,
    /// Set once the session is connected.
    identity: Option<Arc<Identity>>,
}

/// The user has as many sessions on this node as one may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserLimitReached;

impl Entry {
    fn connected(&self) -> Option<Connected> {
        Some((self.identity.clone()?, self.outbox.clone()))
    }
}

impl Sessions {
    /// Enters a session that has not said yet who it is.
    pub fn open(&self, client: Uuid, outbox: Arc<Outbox>) {
        self.clients(client).lock().insert(client, Entry { outbox, identity: None });
    }

    /// The session is connected. `limit` is how many one user may have on this node; 0 sets none. Anonymous users are not
    /// counted.
    pub fn connect(&self, identity: Arc<Identity>, limit: u32) -> Result<(), UserLimitReached> {
        if !self.users(&identity.user).lock().add(&identity.user, identity.client, limit) {
            return Err(UserLimitReached);
        }
        if let Some(entry) = self.clients(identity.client).lock().get_mut(&identity.client) {
            entry.identity = Some(identity);
            self.connected.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Takes a session out.
    pub fn close(&self, client: Uuid) {
        let entry = self.clients(client).lock().remove(&client);
        let Some(identity) = entry.and_then(|entry| entry.identity) else { return };
        self.connected.fetch_sub(1, Ordering::Relaxed);
        self.users(&identity.user).lock().remove(&identity.user, client);
    }

    /// How many sessions are connected.
    pub fn connected(&self) -> usize {
        self.connected.load(Ordering::Relaxed)
    }

    /// How many different users are connected; all anonymous ones count as one.
    pub fn user_count(&self) -> usize {
        self.users.iter().map(|shard| shard.lock().len()).sum()
    }

    /// The connected sessions of a user; all anonymous ones where that is empty.
    pub fn of_user(&self, user: &str) -> Vec<Connected> {
        let clients = self.users(user).lock().clients(user);
        // Each lock is let go before the next one is taken: who has left meanwhile is left out.
        clients.into_iter().filter_map(|client| self.by_client(client)).collect()
    }

    /// The connected session of that id.
    pub fn by_client(&self, client: Uuid) -> Option<Connected> {
        self.clients(client).lock().get(&client)?.connected()
    }

    /// Up to `limit` connected sessions in an order of their own, those that come after `cursor`, which is the id of the last
    /// one of the page before. Every session that stays connected while all pages are asked for is on one of them. An empty
    /// page is the last.
    pub fn page(&self, cursor: Option<Uuid>, limit: usize) -> Vec<Connected> {
        let first = cursor.map_or(0, |client| self.place_of(client));
        let mut page = Vec::new();
        for place in first..SHARDS {
            let after = cursor.filter(|_| place == first);
            let mut part: Vec<_> = {
                let clients = self.clients[place].lock();
                let wanted = clients.iter().filter(|(client, _)| after.is_none_or(|after| **client > after));
                wanted.filter_map(|(_, entry)| entry.connected()).collect()
            };
            part.sort_unstable_by_key(|(identity, _)| identity.client);
            page.extend(part.into_iter().take(limit - page.len()));
            if page.len() == limit {
                break;
            }
        }
        page
    }

    /// The ways out of all sessions, connected or not, as they are now.
    pub fn outboxes(&self) -> Vec<Arc<Outbox>> {
        let mut all = Vec::with_capacity(self.connected());
        for shard in &self.clients {
            all.extend(shard.lock().values().map(|entry| entry.outbox.clone()));
        }
        all
    }

    /// The way out of a session, connected or not.
    pub(super) fn outbox(&self, client: Uuid) -> Option<Arc<Outbox>> {
        self.clients(client).lock().get(&client).map(|entry| entry.outbox.clone())
    }

    fn clients(&self, client: Uuid) -> &Mutex<Clients> {
        &self.clients[self.place_of(client)]
    }

    fn place_of(&self, client: Uuid) -> usize {
        place(self.hasher.hash_one(client))
    }

    fn users(&self, user: &str) -> &Mutex<Users> {
        &self.users[place(self.hasher.hash_one(user))]
    }
}

impl Default for Sessions {
    fn default() -> Self {
        let hasher = RandomState::default();
        Self {
            clients: (0..SHARDS).map(|_| Mutex::new(Clients::with_hasher(hasher.clone()))).collect(),
            users: (0..SHARDS).map(|_| Mutex::new(Users::new(hasher.clone()))).collect(),
            connected: AtomicUsize::new(0),
            hasher,
        }
    }
}

/// The map within a shard uses the ends of the hash, so the shard is taken from its middle.
fn place(hash: u64) -> usize {
    usize::try_from(hash >> 40).unwrap_or(0) % SHARDS
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, net::Ipv4Addr, thread};

    use proptest::prelude::*;

    use super::*;
    use crate::hub::outbox::tests::Script;

    fn identity(user: &str) -> Arc<Identity> {
        Arc::new(Identity {
            client: Uuid::new_v4(),
            user: Arc::from(user),
            info: Bytes::new(),
            agent: Box::default(),
            address: Ipv4Addr::LOCALHOST.into(),
            wire: Wire::JsonWebSocket,
            since: 0,
        })
    }

    fn open(sessions: &Sessions, user: &str) -> Arc<Identity> {
        let identity = identity(user);
        sessions.open(identity.client, Arc::new(Outbox::new(Script::default(), 1)));
        identity
    }

    #[test]
    fn one_user_has_as_many_as_allowed_and_anonymous_ones_are_not_counted() {
        let sessions = Sessions::default();
        let ann: Vec<_> = (0..3).map(|_| open(&sessions, "ann")).collect();
        assert_eq!(sessions.connect(ann[0].clone(), 2), Ok(()));
        assert_eq!(sessions.connect(ann[1].clone(), 2), Ok(()));
        assert_eq!(sessions.connect(ann[2].clone(), 2), Err(UserLimitReached));
        sessions.close(ann[2].client);
        sessions.close(ann[0].client);
        let again = open(&sessions, "ann");
        assert_eq!(sessions.connect(again, 2), Ok(()), "a place was given back, once");
        for _ in 0..5 {
            assert_eq!(sessions.connect(open(&sessions, ""), 2), Ok(()));
        }
        assert_eq!((sessions.connected(), sessions.user_count()), (7, 2));
    }

    proptest! {
        /// Whatever order sessions come, connect and go in, the counts are those of a plain list, and nothing is left over.
        #[test]
        fn counts_follow_the_sessions(steps in proptest::collection::vec((0..4_u8, 0..3_usize, 0..20_usize), 0..100)) {
            let sessions = Sessions::default();
            let users = ["ann", "ben", ""];
            let mut all: Vec<(Arc<Identity>, bool)> = Vec::new();
            for (step, user, place) in steps {
                match step {
                    0 | 1 => all.push((open(&sessions, users[user]), false)),
                    2 if !all.is_empty() => {
                        let place = place % all.len();
                        let (identity, connected) = &mut all[place];
                        if !std::mem::replace(connected, true) {
                            prop_assert_eq!(sessions.connect(identity.clone(), 0), Ok(()));
                        }
                    }
                    3 if !all.is_empty() => {
                        let (identity, _) = all.swap_remove(place % all.len());
                        sessions.close(identity.client);
                        sessions.close(identity.client);
                    }
                    _ => {}
                }
                let connected = all.iter().filter(|(_, connected)| *connected);
                let different: HashSet<_> = connected.clone().map(|(one, _)| one.user.clone()).collect();
                prop_assert_eq!(sessions.connected(), connected.clone().count());
                prop_assert_eq!(sessions.user_count(), different.len());
                prop_assert_eq!(sessions.outboxes().len(), all.len());
                for user in users {
                    let of_user = connected.clone().filter(|(one, _)| *one.user == *user).map(|(one, _)| one.client);
                    let found = sessions.of_user(user).into_iter().map(|(one, _)| one.client);
                    prop_assert_eq!(found.collect::<HashSet<_>>(), of_user.collect::<HashSet<_>>());
                }
            }
        }
    }

    #[test]
    fn threads_that_come_and_go_leave_nothing_behind() {
        let sessions = Sessions::default();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for round in 0..500 {
                        let identity = open(&sessions, ["ann", "ben", ""][round % 3]);
                        let _ = sessions.connect(identity.clone(), 2);
                        sessions.close(identity.client);
                    }
                });
            }
        });
        assert_eq!((sessions.connected(), sessions.user_count(), sessions.outboxes().len()), (0, 0, 0));
    }

    #[test]
    fn pages_name_every_session_once_whoever_leaves_meanwhile() {
        let sessions = Sessions::default();
        let all: Vec<_> = (0..500).map(|_| open(&sessions, "ann")).collect();
        for identity in &all[..450] {
            sessions.connect(identity.clone(), 0).unwrap();
        }
        for limit in [1, 7, 449, 450, 1000] {
            let mut seen = Vec::new();
            while let page = sessions.page(seen.last().copied(), limit)
                && !page.is_empty()
            {
                assert!(page.len() <= limit);
                seen.extend(page.iter().map(|(identity, _)| identity.client));
            }
            let different: HashSet<_> = seen.iter().collect();
            assert_eq!((seen.len(), different.len()), (450, 450));
        }
        let cursor = sessions.page(None, 10)[9].0.client;
        let rest = sessions.page(Some(cursor), 1000);
        sessions.close(cursor);
        let same = sessions.page(Some(cursor), 1000);
        assert!(rest.iter().zip(&same).all(|(one, other)| one.0.client == other.0.client));
        assert!(sessions.page(None, 0).is_empty());
    }

    #[test]
    fn only_the_connected_are_found() {
        let sessions = Sessions::default();
        let identity = open(&sessions, "ann");
        assert!(sessions.by_client(identity.client).is_none());
        assert!(sessions.outbox(identity.client).is_some());
        sessions.connect(identity.clone(), 0).unwrap();
        assert_eq!(sessions.by_client(identity.client).map(|(one, _)| one.user.clone()), Some(identity.user.clone()));
        assert!(sessions.of_user("ben").is_empty());
    }
}
