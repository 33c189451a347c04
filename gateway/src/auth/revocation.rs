//! Which tokens and users are no longer let in, though their tokens are good. In memory and bounded; where else it is kept,
//! and how other nodes hear of it, is not known here.

use std::{
    collections::{BTreeMap, HashMap},
    sync::atomic::{AtomicUsize, Ordering},
};

use parking_lot::RwLock;
use roomcast_shared::claims::RegisteredClaims;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// One thing that was decided. Times are seconds since 1970; `until` is when it is forgotten, `None` for never.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// The token with this `jti` is not accepted.
    Token {
        /// Its name.
        jti: String,
        /// When this is forgotten: not before the token itself has expired.
        until: Option<u64>,
    },
    /// Tokens of a user that were made before a time are not accepted, nor those that do not say when (`iat`).
    IssuedBefore {
        /// The user.
        user: String,
        /// The time; a token made in that very second is accepted.
        before: u64,
        /// When this is forgotten.
        until: Option<u64>,
    },
    /// The user is not let in.
    Blocked {
        /// The user.
        user: String,
        /// When this is forgotten.
        until: Option<u64>,
    },
    /// The user is let in again.
    Unblocked {
        /// The user.
        user: String,
    },
}

/// Why somebody is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The token was revoked by its name.
    Token,
    /// It was made before the user's tokens were revoked.
    IssuedBefore,
    /// The user is blocked.
    Blocked,
}

/// There are as many entries as a node keeps; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{0} tokens and users are revoked or blocked already, and no more are kept; give entries an end")]
pub struct Full(pub usize);

/// Who is not let in. Costs one load while nobody is named.
pub struct Revocations {
    /// How many entries there are, expired ones included.
    count: AtomicUsize,
    lists: RwLock<Lists>,
    limit: usize,
}

#[derive(Default)]
struct Lists {
    tokens: HashMap<Box<str>, Option<u64>>,
    issued_before: HashMap<Box<str>, IssuedBefore>,
    blocked: HashMap<Box<str>, Option<u64>>,
    /// What was applied since a reload began, while there is one.
    since_reload: Option<Vec<Entry>>,
}

#[derive(Clone, Copy)]
struct IssuedBefore {
    before: u64,
    until: Option<u64>,
}

impl Revocations {
    /// Nobody is named yet; at most `limit` entries are kept.
    pub fn new(limit: usize) -> Self {
        Self { count: AtomicUsize::new(0), lists: RwLock::default(), limit }
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    /// Why the bearer of these claims is not let in, if it is not; `now` in seconds since 1970.
    pub fn is_revoked(&self, claims: &RegisteredClaims, now: u64) -> Option<Reason> {
        self.is_revoked_parts(&claims.sub, &claims.jti, claims.iat, now)
    }

    /// The same for a session that has kept no more of its token than this.
    pub fn is_revoked_parts(&self, user: &str, jti: &str, iat: Option<u64>, now: u64) -> Option<Reason> {
        if self.is_empty() {
            return None;
        }
        let lists = self.lists.read();
        let holds = |until: &Option<u64>| until.is_none_or(|until| until > now);
        if lists.blocked.get(user).is_some_and(holds) {
            return Some(Reason::Blocked);
        }
        if !jti.is_empty() && lists.tokens.get(jti).is_some_and(holds) {
            return Some(Reason::Token);
        }
        let before = lists.issued_before.get(user).filter(|entry| holds(&entry.until));
        before.filter(|entry| iat.is_none_or(|iat| iat < entry.before)).map(|_| Reason::IssuedBefore)
    }

    /// Whether a user is blocked, for clients that came without a token.
    pub fn is_blocked(&self, user: &str, now: u64) -> bool {
        self.is_revoked_parts(user, "", Some(u64::MAX), now) == Some(Reason::Blocked)
    }

    /// The token of this name is not accepted any more.
    ///
    /// # Errors
    /// There are too many entries.
    pub fn revoke_token(&self, jti: &str, until: Option<u64>, now: u64) -> Result<(), Full> {
        self.apply(Entry::Token { jti: jti.to_owned(), until }, now)
    }

    /// Tokens of the user made before that time are not accepted any more.
    ///
    /// # Errors
    /// There are too many entries.
    pub fn revoke_user_before(&self, user: &str, before: u64, until: Option<u64>, now: u64) -> Result<(), Full> {
        self.apply(Entry::IssuedBefore { user: user.to_owned(), before, until }, now)
    }

    /// The user is not let in any more.
    ///
    /// # Errors
    /// There are too many entries.
    pub fn block_user(&self, user: &str, until: Option<u64>, now: u64) -> Result<(), Full> {
        self.apply(Entry::Blocked { user: user.to_owned(), until }, now)
    }

    /// The user is let in again.
    pub fn unblock_user(&self, user: &str, now: u64) {
        // Taking an entry out always finds room.
        let _ = self.apply(Entry::Unblocked { user: user.to_owned() }, now);
    }

    /// Takes a decision in, made here or by another node. What is applied later holds, save that tokens revoked up to a
    /// time stay so.
    ///
    /// # Errors
    /// There are too many entries that have not expired.
    pub fn apply(&self, entry: Entry, now: u64) -> Result<(), Full> {
        let mut lists = self.lists.write();
        if lists.len() >= self.limit && lists.grows_by(&entry) {
            lists.forget(now);
            if lists.len() >= self.limit {
                self.count.store(lists.len(), Ordering::Relaxed);
                return Err(Full(lists.len()));
            }
        }
        lists.apply(&entry);
        // A reload that takes so long has to be begun anew.
        lists.since_reload = lists.since_reload.take().filter(|applied| applied.len() < self.limit);
        if let Some(applied) = &mut lists.since_reload {
            applied.push(entry);
        }
        self.count.store(lists.len(), Ordering::Relaxed);
        Ok(())
    }

    /// Forgets entries whose time has come; gives how many are left. Called from time to time.
    pub fn forget_expired(&self, now: u64) -> usize {
        if self.is_empty() {
            return 0;
        }
        let mut lists = self.lists.write();
        lists.forget(now);
        self.count.store(lists.len(), Ordering::Relaxed);
        lists.len()
    }

    /// All entries in an order that depends on nothing else.
    pub fn snapshot(&self) -> Vec<Entry> {
        self.lists.read().entries()
    }

    /// Takes entries of another node or of a store in beside those that are there.
    ///
    /// # Errors
    /// There are too many; some were taken.
    pub fn merge(&self, entries: impl IntoIterator<Item = Entry>, now: u64) -> Result<(), Full> {
        entries.into_iter().try_for_each(|entry| self.apply(entry, now))
    }

    /// Begins to load all entries anew, from a store that has them all. What is applied while the store is read is applied
    /// again at the end, so that it is not undone by an answer that is older. One reload at a time: one task does them all.
    pub fn reload(&self) -> Reload<'_> {
        self.lists.write().since_reload = Some(Vec::new());
        Reload { revocations: self }
    }
}

/// A reload that has begun. Dropped, it changes nothing.
#[must_use = "a reload that is not finished changes nothing"]
pub struct Reload<'a> {
    revocations: &'a Revocations,
}

impl Reload<'_> {
    /// Takes the entries of the store instead of those that were there when the reload began.
    ///
    /// # Errors
    /// There are too many, or were applied meanwhile; then nothing is changed.
    pub fn finish(self, entries: impl IntoIterator<Item = Entry>, now: u64) -> Result<(), Full> {
        let mut loaded = Lists::default();
        entries.into_iter().for_each(|entry| loaded.apply(&entry));
        let mut lists = self.revocations.lists.write();
        let Some(applied) = lists.since_reload.take() else { return Err(Full(self.revocations.limit)) };
        for entry in &applied {
            loaded.apply(entry);
        }
        loaded.forget(now);
        if loaded.len() > self.revocations.limit {
            return Err(Full(loaded.len()));
        }
        *lists = loaded;
        self.revocations.count.store(lists.len(), Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Reload<'_> {
    fn drop(&mut self) {
        self.revocations.lists.write().since_reload = None;
    }
}

impl Lists {
    fn len(&self) -> usize {
        self.tokens.len() + self.issued_before.len() + self.blocked.len()
    }

    /// Whether taking the entry in needs a place of its own.
    fn grows_by(&self, entry: &Entry) -> bool {
        match entry {
            Entry::Token { jti, .. } => !self.tokens.contains_key(jti.as_str()),
            Entry::IssuedBefore { user, .. } => !self.issued_before.contains_key(user.as_str()),
            Entry::Blocked { user, .. } => !self.blocked.contains_key(user.as_str()),
            Entry::Unblocked { .. } => false,
        }
    }

    fn apply(&mut self, entry: &Entry) {
        match entry {
            Entry::Token { jti, until } => {
                self.tokens.insert(jti.as_str().into(), *until);
            }
            Entry::IssuedBefore { user, before, until } => {
                let known = self.issued_before.entry(user.as_str().into());
                let entry = known.or_insert(IssuedBefore { before: *before, until: *until });
                // An older decision may come later by another way; it must not let tokens in that the newer one refuses.
                if *before >= entry.before {
                    *entry = IssuedBefore { before: *before, until: *until };
                }
            }
            Entry::Blocked { user, until } => {
                self.blocked.insert(user.as_str().into(), *until);
            }
            Entry::Unblocked { user } => {
                self.blocked.remove(user.as_str());
            }
        }
    }

    fn forget(&mut self, now: u64) {
        let holds = |until: Option<u64>| until.is_none_or(|until| until > now);
        self.tokens.retain(|_, until| holds(*until));
        self.blocked.retain(|_, until| holds(*until));
        self.issued_before.retain(|_, entry| holds(entry.until));
    }

    fn entries(&self) -> Vec<Entry> {
        let sorted = |list: &HashMap<Box<str>, Option<u64>>| -> BTreeMap<String, Option<u64>> {
            list.iter().map(|(name, until)| (name.to_string(), *until)).collect()
        };
        let tokens = sorted(&self.tokens).into_iter().map(|(jti, until)| Entry::Token { jti, until });
        let blocked = sorted(&self.blocked).into_iter().map(|(user, until)| Entry::Blocked { user, until });
        let before: BTreeMap<_, _> = self.issued_before.iter().collect();
        let before = before.into_iter().map(|(user, &IssuedBefore { before, until })| Entry::IssuedBefore {
            user: user.to_string(),
            before,
            until,
        });
        tokens.chain(before).chain(blocked).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn claims(sub: &str, jti: &str, iat: Option<u64>) -> RegisteredClaims {
        RegisteredClaims { sub: sub.to_owned(), jti: jti.to_owned(), iat, ..RegisteredClaims::default() }
    }

    fn some() -> Revocations {
        let revocations = Revocations::new(100);
        revocations.revoke_token("t1", Some(NOW + 60), NOW).unwrap();
        revocations.revoke_user_before("u1", NOW - 100, None, NOW).unwrap();
        revocations.block_user("u2", Some(NOW + 60), NOW).unwrap();
        revocations
    }

    #[test]
    fn each_kind_refuses_what_it_names_and_nothing_else() {
        let revocations = some();
        for (user, jti, iat, now, expected) in [
            ("u9", "t1", Some(NOW), NOW, Some(Reason::Token)),
            ("u9", "t1", Some(NOW), NOW + 60, None),
            ("u9", "t2", Some(NOW), NOW, None),
            ("u9", "", None, NOW, None),
            ("u1", "t2", Some(NOW - 101), NOW, Some(Reason::IssuedBefore)),
            ("u1", "t2", Some(NOW - 100), NOW, None),
            ("u1", "t2", Some(NOW), NOW, None),
            ("u1", "t2", None, NOW, Some(Reason::IssuedBefore)),
            ("u1", "t2", Some(0), u64::MAX, Some(Reason::IssuedBefore)),
            ("u2", "", Some(NOW), NOW, Some(Reason::Blocked)),
            ("u2", "t1", None, NOW + 59, Some(Reason::Blocked)),
            ("u2", "", None, NOW + 60, None),
            ("", "", None, NOW, None),
        ] {
            assert_eq!(revocations.is_revoked(&claims(user, jti, iat), now), expected, "{user} {jti} {iat:?} {now}");
        }
        assert!(revocations.is_blocked("u2", NOW) && !revocations.is_blocked("u1", NOW));
        revocations.unblock_user("u2", NOW);
        assert!(!revocations.is_blocked("u2", NOW));
    }

    #[test]
    fn an_older_decision_does_not_undo_a_newer_one() {
        let revocations = some();
        revocations.revoke_user_before("u1", NOW - 500, None, NOW).unwrap();
        assert_eq!(revocations.is_revoked(&claims("u1", "", Some(NOW - 200)), NOW), Some(Reason::IssuedBefore));
        revocations.revoke_user_before("u1", NOW, Some(NOW + 5), NOW).unwrap();
        assert_eq!(revocations.is_revoked(&claims("u1", "", Some(NOW - 1)), NOW), Some(Reason::IssuedBefore));
        assert_eq!(revocations.is_revoked(&claims("u1", "", Some(NOW - 1)), NOW + 5), None);
    }

    #[test]
    fn entries_expire_and_are_forgotten() {
        let revocations = some();
        assert_eq!(revocations.forget_expired(NOW), 3);
        assert_eq!(revocations.forget_expired(NOW + 60), 1);
        assert_eq!(revocations.snapshot().len(), 1);
        assert!(!revocations.is_empty() && Revocations::new(1).is_empty());
    }

    #[test]
    fn there_are_no_more_entries_than_the_limit_and_expired_ones_make_room() {
        let revocations = Revocations::new(2);
        revocations.revoke_token("a", Some(NOW + 5), NOW).unwrap();
        revocations.block_user("b", None, NOW).unwrap();
        assert_eq!(revocations.revoke_token("c", None, NOW), Err(Full(2)));
        assert_eq!(revocations.is_revoked(&claims("x", "c", None), NOW), None);
        // What is there already can be changed.
        revocations.block_user("b", Some(NOW + 9), NOW).unwrap();
        revocations.revoke_token("c", None, NOW + 5).unwrap();
        assert_eq!(revocations.snapshot().len(), 2);
        revocations.unblock_user("b", NOW);
        assert_eq!(revocations.revoke_user_before("d", NOW, None, NOW), Ok(()));
    }

    #[test]
    fn a_snapshot_taken_in_elsewhere_refuses_the_same() {
        let (one, other) = (some(), Revocations::new(100));
        let spelt = serde_json::to_string(&one.snapshot()).unwrap();
        let read: Vec<Entry> = serde_json::from_str(&spelt).unwrap();
        other.merge(read, NOW).unwrap();
        assert_eq!(other.snapshot(), one.snapshot());
        assert_eq!(
            spelt,
            r#"[{"token":{"jti":"t1","until":1800000060}},{"issued_before":{"user":"u1","before":1799999900,"until":null}},{"blocked":{"user":"u2","until":1800000060}}]"#
        );
    }

    #[test]
    fn a_reload_drops_what_the_store_has_not_and_keeps_what_was_decided_meanwhile() {
        let revocations = some();
        let reload = revocations.reload();
        revocations.revoke_token("new", None, NOW).unwrap();
        revocations.unblock_user("u3", NOW);
        let stored = [
            Entry::Blocked { user: "u3".to_owned(), until: None },
            Entry::Blocked { user: "u4".to_owned(), until: None },
            Entry::Token { jti: "old".to_owned(), until: Some(NOW) },
        ];
        reload.finish(stored, NOW).unwrap();
        let expected = [
            Entry::Token { jti: "new".to_owned(), until: None },
            Entry::Blocked { user: "u4".to_owned(), until: None },
        ];
        assert_eq!(revocations.snapshot(), expected);
        drop(revocations.reload());
        assert_eq!(revocations.snapshot(), expected);
        let many = (0..101).map(|count| Entry::Token { jti: count.to_string(), until: None });
        assert_eq!(revocations.reload().finish(many, NOW), Err(Full(102 - 1)));
        assert_eq!(revocations.snapshot(), expected);
    }
}
