//! What few connections and few subscriptions have, so that the others need not hold a place for it.

use std::sync::Arc;

use bytes::Bytes;
use roomcast_shared::claims::{Verb, Verbs};
use tokio::time::Instant;

use super::{Session, Subscription, expiry::Lease, revoked::Mark};
use crate::{
    hooks::{Caller, PassedHeaders},
    hub::Mailbox,
    node::Present,
};

/// What few connections have.
#[derive(Default)]
pub(super) struct Rare {
    /// The token it goes by.
    pub(super) mark: Mark,
    /// What the backend is told of its headers.
    pub(super) headers: Option<Arc<PassedHeaders>>,
    /// What the backend is told of the connection, JSON; empty for nothing.
    pub(super) meta: Bytes,
    /// Keeps it among the connections of its user, where these are counted over all nodes.
    pub(super) counted: Option<Present>,
    /// No subscription is due before.
    pub(super) due: Option<Instant>,
    /// Orders for rooms in which something is being done; they wait no longer than the broker or the backend takes.
    pub(super) deferred: Mailbox,
}

impl Rare {
    pub(super) fn with_headers(headers: Option<Arc<PassedHeaders>>) -> Option<Box<Self>> {
        headers.map(|headers| Box::new(Self { headers: Some(headers), ..Self::default() }))
    }
}

/// What few subscriptions have.
#[derive(Default)]
pub(super) struct Extra {
    /// What a token says of the client in this room, JSON; empty for nothing.
    pub(super) info: Bytes,
    /// Keeps the client among those who are in the room.
    pub(super) present: Option<Present>,
    /// Until when it is good, where it ends.
    pub(super) lease: Option<Lease>,
    /// What the client may do in the room beside what the rules say.
    pub(super) allow: Verbs,
    /// The token by which it is there, where it entered with one.
    pub(super) mark: Option<Box<Mark>>,
}

impl Extra {
    /// Nothing where there is nothing to keep.
    pub(super) fn kept(self) -> Option<Box<Self>> {
        let nothing = self.info.is_empty() && self.present.is_none() && self.lease.is_none();
        (!nothing || self.allow != Verbs::default()).then(|| Box::new(self))
    }
}

impl Session {
    pub(super) fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// The client, as the backend is told of it.
    pub(super) fn caller(&self) -> Caller {
        let rare = self.rare.as_ref();
        Caller {
            client: self.client,
            user: self.identity().map_or_else(|| Arc::from(""), |identity| identity.user.clone()),
            transport: self.wire.transport(),
            protocol: self.wire.encoding(),
            headers: rare.and_then(|rare| rare.headers.clone()),
            meta: rare.map(|rare| rare.meta.clone()).unwrap_or_default(),
        }
    }
}

impl Subscription {
    /// What a token says of the client in this room; empty for nothing.
    pub(super) fn info(&self) -> Bytes {
        self.extra.as_ref().map(|extra| extra.info.clone()).unwrap_or_default()
    }

    pub(super) fn set_info(&mut self, info: Bytes) {
        self.extra.get_or_insert_default().info = info;
    }

    pub(super) fn present(&mut self) -> Option<&mut Present> {
        self.extra.as_mut()?.present.as_mut()
    }

    pub(super) fn leave_presence(&mut self) {
        if let Some(extra) = &mut self.extra {
            extra.present = None;
        }
    }

    pub(super) fn lease(&self) -> Option<Lease> {
        self.extra.as_ref()?.lease
    }

    pub(super) fn set_lease(&mut self, lease: Option<Lease>) {
        if lease.is_some() || self.extra.is_some() {
            self.extra.get_or_insert_default().lease = lease;
        }
    }

    pub(super) fn mark(&self) -> Option<&Mark> {
        self.extra.as_ref()?.mark.as_deref()
    }

    pub(super) fn set_mark(&mut self, mark: Mark) {
        self.extra.get_or_insert_default().mark = Some(Box::new(mark));
    }

    pub(super) fn take_mark(&mut self) -> Option<Box<Mark>> {
        self.extra.as_mut()?.mark.take()
    }

    pub(super) fn allows(&self, verb: Verb) -> bool {
        self.extra.as_ref().is_some_and(|extra| extra.allow.contains(verb))
    }
}
