//! Which sessions a user has on this node. Most users have one, so that one costs no more than its id; a user with very many
//! costs no more time for each.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashSet};
use uuid::Uuid;

/// Up to so many sessions of one user are looked through one by one.
const FEW: usize = 16;

/// The users of one shard.
pub(super) struct Users {
    clients: HashMap<Arc<str>, Clients, RandomState>,
}

/// The sessions of one user, at least one.
enum Clients {
    One(Uuid),
    Few(Vec<Uuid>),
    Many(Box<HashSet<Uuid, RandomState>>),
}

impl Users {
    pub(super) fn new(hasher: RandomState) -> Self {
        Self { clients: HashMap::with_hasher(hasher) }
    }

    pub(super) fn len(&self) -> usize {
        self.clients.len()
    }

    /// Adds a session, unless the user has `limit` of them. Of anonymous users there may be any number, and with a limit of 0
    /// of all.
    pub(super) fn add(&mut self, user: &Arc<str>, client: Uuid, limit: u32) -> bool {
        let Some(clients) = self.clients.get_mut(user) else {
            self.clients.insert(user.clone(), Clients::One(client));
            return true;
        };
        if limit > 0 && clients.len() >= limit as usize && !user.is_empty() {
            return false;
        }
        clients.add(client);
        true
    }

    pub(super) fn remove(&mut self, user: &str, client: Uuid) {
        let Some(clients) = self.clients.get_mut(user) else { return };
        clients.remove(client);
        if clients.len() == 0 {
            self.clients.remove(user);
        }
    }

    pub(super) fn clients(&self, user: &str) -> Vec<Uuid> {
        match self.clients.get(user) {
            None => Vec::new(),
            Some(Clients::One(client)) => vec![*client],
            Some(Clients::Few(clients)) => clients.clone(),
            Some(Clients::Many(clients)) => clients.iter().copied().collect(),
        }
    }
}

impl Clients {
    fn len(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Few(clients) => clients.len(),
            Self::Many(clients) => clients.len(),
        }
    }

    fn add(&mut self, client: Uuid) {
        match self {
            Self::One(first) => *self = Self::Few(vec![*first, client]),
            Self::Few(clients) if clients.len() < FEW => clients.push(client),
            Self::Few(clients) => {
                let all = clients.drain(..).chain([client]).collect();
                *self = Self::Many(Box::new(all));
            }
            Self::Many(clients) => {
                clients.insert(client);
            }
        }
    }

    fn remove(&mut self, client: Uuid) {
        match self {
            Self::One(first) if *first == client => *self = Self::Few(Vec::new()),
            Self::One(_) => {}
            Self::Few(clients) => clients.retain(|other| *other != client),
            Self::Many(clients) => {
                clients.remove(&client);
            }
        }
        if let Self::Few(clients) = self
            && let [last] = clients[..]
        {
            *self = Self::One(last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_session_costs_its_id_and_very_many_are_found() {
        assert!(size_of::<(Arc<str>, Clients)>() <= 40);
        let mut users = Users::new(RandomState::default());
        let (ann, all): (Arc<str>, Vec<_>) = (Arc::from("ann"), (0..200).map(|_| Uuid::new_v4()).collect());
        for round in 1..=all.len() {
            assert!(users.add(&ann, all[round - 1], 200));
            assert_eq!(users.clients("ann").len(), round);
        }
        assert!(!users.add(&ann, Uuid::new_v4(), 200));
        for (gone, client) in all.iter().enumerate() {
            let mut left = users.clients("ann");
            left.sort_unstable();
            let mut expected = all[gone..].to_vec();
            expected.sort_unstable();
            assert_eq!(left, expected);
            users.remove("ann", *client);
            users.remove("ann", *client);
        }
        assert_eq!(users.len(), 0);
    }
}
