//! Tokens that are revoked and users that are blocked, as all nodes know it in common: who comes with one is not let in, who
//! is there with one has to go, and who entered a room with one has to leave it. Knows how these facts are spelt; who decides
//! them is not its matter.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use roomcast_shared::{
    claims::RegisteredClaims,
    protocol::code::{Disconnect, Unsubscribe},
};
use uuid::Uuid;

use super::{Context, Replies, Session, Subscription, entry::Origin, expiry::unix_now};
use crate::{
    auth::{Entry, Reason, Revocations},
    hub::{Connected, Mail},
    node::cluster::Facts,
};

/// What the names of these facts begin with.
const PREFIX: &str = "revoked.";

/// Entries that a node keeps at most.
const MOST: usize = 1_000_000;

/// What is kept of the token a client came with, or entered a room with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// Its name; empty where it has none.
    jti: Box<str>,
    /// When it was made, in seconds since 1970.
    iat: Option<u64>,
}

impl Mark {
    pub(super) fn of(claims: &RegisteredClaims) -> Self {
        Self { jti: claims.jti.as_str().into(), iat: claims.iat }
    }
}

/// Who is not let in, and which of those who are here came with which token.
pub struct Revoked {
    entries: Revocations,
    /// By the names of tokens; only of those that have one. A client stands there once for each use it makes of the token.
    bearers: Mutex<HashMap<Box<str>, Vec<Uuid>>>,
}

impl Default for Revoked {
    fn default() -> Self {
        Self { entries: Revocations::new(MOST), bearers: Mutex::default() }
    }
}

impl Revoked {
    /// The name under which a decision is kept as a fact. That somebody is unblocked is kept by forgetting that they were
    /// blocked.
    pub fn fact_name(entry: &Entry) -> String {
        match entry {
            Entry::Token { jti, .. } => format!("{PREFIX}token.{jti}"),
            Entry::IssuedBefore { user, .. } => format!("{PREFIX}before.{user}"),
            Entry::Blocked { user, .. } | Entry::Unblocked { user } => format!("{PREFIX}blocked.{user}"),
        }
    }

    /// What is kept under that name.
    pub fn fact(entry: &Entry) -> Bytes {
        serde_json::to_vec(entry).expect("texts and numbers can be written as JSON").into()
    }

    /// Why the bearer of these claims has to stay away, if it has to.
    pub(super) fn refusal_of(&self, claims: &RegisteredClaims) -> Option<Disconnect> {
        self.entries.is_revoked(claims, unix_now()).map(why)
    }

    /// The same of somebody who came with such a token, or with none.
    fn refusal_of_parts(&self, user: &str, mark: Option<&Mark>) -> Option<Disconnect> {
        let now = unix_now();
        match mark {
            Some(mark) => self.entries.is_revoked_parts(user, &mark.jti, mark.iat, now).map(why),
            None => self.entries.is_blocked(user, now).then_some(Disconnect::FORCE_DISCONNECT),
        }
    }

    fn bear(&self, jti: &str, client: Uuid) {
        if jti.is_empty() {
            return;
        }
        self.bearers.lock().entry(jti.into()).or_default().push(client);
    }

    fn lay_down(&self, jti: &str, client: Uuid) {
        let mut bearers = self.bearers.lock();
        if let Some(clients) = bearers.get_mut(jti) {
            if let Some(place) = clients.iter().position(|one| *one == client) {
                clients.swap_remove(place);
            }
            if clients.is_empty() {
                bearers.remove(jti);
            }
        }
    }

    fn bearers(&self, jti: &str) -> Vec<Uuid> {
        self.bearers.lock().get(jti).cloned().unwrap_or_default()
    }
}

fn why(reason: Reason) -> Disconnect {
    match reason {
        Reason::Token | Reason::IssuedBefore => Disconnect::INVALID_TOKEN,
        Reason::Blocked => Disconnect::FORCE_DISCONNECT,
    }
}

/// What a fact says; nothing where it is no such fact, or not one that this version knows.
fn read(name: &str, fact: &[u8]) -> Option<Entry> {
    name.strip_prefix(PREFIX)?;
    let entry = serde_json::from_slice(fact);
    entry.inspect_err(|error| tracing::warn!(name, "a fact of the cluster cannot be read: {error}")).ok()
}

impl Session {
    /// The client goes by this token from now on.
    pub(super) fn bear(&mut self, mark: Mark) {
        self.lay_down();
        self.context.revoked.bear(&mark.jti, self.client);
        // Of a token without a name and an age nothing has to be kept: a session that has nothing goes by such a one.
        self.tokenless = false;
        if mark != Mark::default() || self.rare.is_some() {
            self.rare().mark = mark;
        }
    }

    /// It goes by none any more.
    pub(super) fn lay_down(&mut self) {
        if let Some(rare) = &mut self.rare {
            let mark = std::mem::take(&mut rare.mark);
            self.context.revoked.lay_down(&mark.jti, self.client);
        }
    }

    /// The client is in a room by this token from now on. A room that the server put it into stays the server's matter.
    pub(super) fn bear_in(&mut self, place: usize, mark: Mark) {
        self.lay_down_in(place);
        if self.subscriptions[place].origin == Origin::Server {
            return;
        }
        let revoked = &self.context.revoked;
        revoked.bear(&mark.jti, self.client);
        // Asked after it is entered: either who decides finds it there, or the decision is found here.
        if revoked.refusal_of_parts(self.user(), Some(&mark)).is_some() {
            self.outbox.tell(Mail::Recheck);
        }
        self.subscriptions[place].set_mark(mark);
    }

    /// It is there by none any more.
    fn lay_down_in(&mut self, place: usize) {
        let mark = self.subscriptions[place].take_mark();
        self.lay_down_mark(mark.as_deref());
    }

    /// The same for a subscription that ends.
    pub(super) fn lay_down_of(&self, subscription: &mut Subscription) {
        self.lay_down_mark(subscription.take_mark().as_deref());
    }

    fn lay_down_mark(&self, mark: Option<&Mark>) {
        if let Some(mark) = mark {
            self.context.revoked.lay_down(&mark.jti, self.client);
        }
    }

    /// Sees whether the client may stay, and in which rooms.
    ///
    /// # Errors
    /// Its token is revoked, or its user blocked.
    pub(super) fn recheck(&mut self, replies: &mut Replies<'_>) -> Result<(), Disconnect> {
        self.check_revoked()?;
        let refused = |mark| self.context.revoked.refusal_of_parts(self.user(), Some(mark)).is_some();
        let void = self.subscriptions.iter().filter(|one| one.mark().is_some_and(refused));
        let void: Vec<Arc<str>> = void.map(|one| one.hold.room().name().clone()).collect();
        // The client forgets the token and asks for another one, which its backend gives it or not.
        void.iter().try_for_each(|room| self.put_out(room, Unsubscribe::STATE_INVALIDATED, replies))
    }

    /// Whether it may stay.
    ///
    /// # Errors
    /// Its token is revoked, or its user blocked.
    pub(super) fn check_revoked(&self) -> Result<(), Disconnect> {
        let unnamed = Mark::default();
        let mark = self.rare.as_ref().map_or(&unnamed, |rare| &rare.mark);
        let mark = Some(mark).filter(|_| !self.tokenless);
        match self.context.revoked.refusal_of_parts(self.user(), mark) {
            Some(disconnect) => Err(disconnect),
            None => Ok(()),
        }
    }
}

impl Context {
    /// Sees to it that those who are concerned by a decision do not stay.
    fn enforce(&self, entry: &Entry) {
        let sessions = &self.node.hub().sessions;
        let concerned: Vec<Connected> = match entry {
            Entry::Token { jti, .. } => {
                let bearers = self.revoked.bearers(jti).into_iter();
                bearers.filter_map(|client| sessions.by_client(client)).collect()
            }
            Entry::IssuedBefore { user, .. } | Entry::Blocked { user, .. } => sessions.of_user(user),
            Entry::Unblocked { .. } => return,
        };
        for (_, outbox) in concerned {
            // Only the session knows how old its token is.
            outbox.tell(Mail::Recheck);
        }
    }
}

impl Facts for Context {
    fn learn(&self, name: &str, fact: &[u8], ttl: Duration) {
        let Some(entry) = read(name, fact) else { return };
        let now = unix_now();
        if let Err(full) = self.revoked.entries.apply(ending(entry.clone(), now, ttl), now) {
            tracing::error!("a revocation is not taken: {full}");
        }
        self.enforce(&entry);
    }

    fn unlearn(&self, name: &str) {
        if !name.starts_with(PREFIX) {
            return;
        }
        let entries = self.revoked.entries.snapshot();
        let left: Vec<_> = entries.into_iter().filter(|entry| Revoked::fact_name(entry) != name).collect();
        if let Err(full) = self.revoked.entries.reload().finish(left, unix_now()) {
            tracing::error!("a revocation is not taken back: {full}");
        }
    }

    fn learn_all(&self, facts: Vec<(String, Bytes, Duration)>) {
        let now = unix_now();
        let entries = facts.iter().filter_map(|(name, fact, ttl)| Some(ending(read(name, fact)?, now, *ttl)));
        let entries: Vec<_> = entries.collect();
        if let Err(full) = self.revoked.entries.reload().finish(entries.clone(), now) {
            tracing::error!("revocations are not taken: {full}");
        }
        for entry in entries {
            self.enforce(&entry);
        }
    }
}

/// A decision that is forgotten when its fact is.
fn ending(mut entry: Entry, now: u64, ttl: Duration) -> Entry {
    if let Entry::Token { until, .. } | Entry::IssuedBefore { until, .. } | Entry::Blocked { until, .. } = &mut entry {
        *until = Some(now.saturating_add(ttl.as_secs()).saturating_add(1));
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(jti: &str, iat: Option<u64>) -> RegisteredClaims {
        RegisteredClaims { sub: "ann".into(), jti: jti.into(), iat, ..RegisteredClaims::default() }
    }

    #[test]
    fn a_fact_is_read_as_it_was_written_and_others_are_passed_over() {
        let entries = [
            Entry::Token { jti: "t".into(), until: Some(5) },
            Entry::IssuedBefore { user: "ann".into(), before: 7, until: None },
            Entry::Blocked { user: "ann".into(), until: None },
        ];
        for entry in entries {
            let name = Revoked::fact_name(&entry);
            assert_eq!(read(&name, &Revoked::fact(&entry)), Some(entry.clone()));
            assert_eq!(read("other", &Revoked::fact(&entry)), None);
            assert_eq!(read(&name, b"{}"), None);
        }
        let unblocked = Entry::Unblocked { user: "ann".into() };
        let blocked = Entry::Blocked { user: "ann".into(), until: None };
        assert_eq!(Revoked::fact_name(&unblocked), Revoked::fact_name(&blocked));
    }

    #[test]
    fn who_came_without_a_token_goes_only_if_blocked() {
        let revoked = Revoked::default();
        let now = unix_now();
        revoked.entries.revoke_user_before("ann", now, None, now).unwrap();
        assert_eq!(revoked.refusal_of_parts("ann", None), None);
        assert_eq!(revoked.refusal_of_parts("ann", Some(&Mark::default())), Some(Disconnect::INVALID_TOKEN));
        assert_eq!(revoked.refusal_of(&claims("", Some(now + 1))), None);
        revoked.entries.block_user("ann", None, now).unwrap();
        assert_eq!(revoked.refusal_of_parts("ann", None), Some(Disconnect::FORCE_DISCONNECT));
        assert_eq!(revoked.refusal_of(&claims("", Some(now + 1))), Some(Disconnect::FORCE_DISCONNECT));
    }

    #[test]
    fn nothing_is_left_of_bearers_that_have_gone() {
        let (revoked, one, other) = (Revoked::default(), Uuid::new_v4(), Uuid::new_v4());
        revoked.bear("", one);
        revoked.bear("t", one);
        revoked.bear("t", other);
        revoked.bear("t", other);
        revoked.lay_down("t", other);
        assert_eq!(revoked.bearers("t"), [one, other], "it is used for a connection and a room");
        revoked.lay_down("t", one);
        assert_eq!(revoked.bearers("t"), [other]);
        revoked.lay_down("t", other);
        revoked.lay_down("t", other);
        assert!(revoked.bearers.lock().is_empty());
    }
}
