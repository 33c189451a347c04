//! The sessions of this node, found by client: those that are connected, with their identity, and those that have not said
//! who they are yet. Knows of them their identity and their way out only.

use std::{
    hash::BuildHasher,
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

use super::Outbox;

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
type Users = HashMap<Arc<str>, u32, RandomState>;

struct Entry {
    outbox: Arc<Outbox>,
    /// Set once the session is connected.
    identity: Option<Arc<Identity>>,
}

/// The user has as many sessions on this node as one may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserLimitReached;

impl Sessions {
    /// Enters a session that has not said yet who it is.
    pub fn open(&self, client: Uuid, outbox: Arc<Outbox>) {
        self.clients(client).lock().insert(client, Entry { outbox, identity: None });
    }

    /// The session is connected. `limit` is how many one user may have on this node; 0 sets none. Anonymous users are not
    /// counted.
    pub fn connect(&self, identity: Arc<Identity>, limit: u32) -> Result<(), UserLimitReached> {
        self.count_user(&identity.user, limit)?;
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
        let mut users = self.users(&identity.user).lock();
        if let Some(count) = users.get_mut(&identity.user) {
            *count -= 1;
            if *count == 0 {
                users.remove(&identity.user);
            }
        }
    }

    /// The way out of a session, connected or not.
    pub(super) fn outbox(&self, client: Uuid) -> Option<Arc<Outbox>> {
        self.clients(client).lock().get(&client).map(|entry| entry.outbox.clone())
    }

    /// How many sessions are connected.
    pub fn connected(&self) -> usize {
        self.connected.load(Ordering::Relaxed)
    }

    /// How many different users are connected; all anonymous ones count as one.
    pub fn user_count(&self) -> usize {
        self.users.iter().map(|shard| shard.lock().len()).sum()
    }

    /// The ways out of all sessions, connected or not, as they are now.
    pub fn outboxes(&self) -> Vec<Arc<Outbox>> {
        let mut all = Vec::with_capacity(self.connected());
        for shard in &self.clients {
            all.extend(shard.lock().values().map(|entry| entry.outbox.clone()));
        }
        all
    }

    fn count_user(&self, user: &Arc<str>, limit: u32) -> Result<(), UserLimitReached> {
        let mut users = self.users(user).lock();
        let count = users.entry(user.clone()).or_insert(0);
        if limit > 0 && *count >= limit && !user.is_empty() {
            return Err(UserLimitReached);
        }
        *count += 1;
        Ok(())
    }

    fn clients(&self, client: Uuid) -> &Mutex<Clients> {
        &self.clients[place(self.hasher.hash_one(client))]
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
            users: (0..SHARDS).map(|_| Mutex::new(Users::with_hasher(hasher.clone()))).collect(),
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
    use std::thread;

    use proptest::prelude::*;

    use super::*;
    use crate::hub::outbox::tests::Script;

    fn identity(user: &str) -> Arc<Identity> {
        Arc::new(Identity { client: Uuid::new_v4(), user: Arc::from(user), info: Bytes::new() })
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
                let different: std::collections::HashSet<_> = connected.clone().map(|(one, _)| one.user.clone()).collect();
                prop_assert_eq!(sessions.connected(), connected.count());
                prop_assert_eq!(sessions.user_count(), different.len());
                prop_assert_eq!(sessions.outboxes().len(), all.len());
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
}
