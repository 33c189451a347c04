//! How many connections each user has on all nodes: a room of its own for every user, which no client can name, and in which its
//! connections are present. Knows no sessions and no commands.

use std::{collections::HashSet, sync::Arc, time::Duration};

use bytes::Bytes;
use roomcast_shared::{publication::ClientInfo, room::RESERVED};
use tokio::time::timeout;

use super::{
    Node,
    presence::{Member, Present},
};
use crate::broker::{BrokerError, Health, Members};

/// How long a client waits for being counted, all in all. A broker that has not answered by then counts as away.
const PATIENCE: Duration = Duration::from_secs(2);

/// What became of a connection that asked to be counted.
pub enum Counted {
    /// It is one of its user's, for as long as this lives.
    In(Present),
    /// The same, but how many there are is not known, since the broker is away: it is counted when that is back.
    Unasked(Present),
    /// The user has as many as may be.
    Full,
}

/// Takes a connection out of the count again, unless it was let in: whoever asked may give up at any time.
struct Asking {
    node: Arc<Node>,
    member: Member,
    let_in: bool,
}

impl Node {
    /// What the other nodes speak to this one by: what it has counted is known to be over where nobody hears that name any
    /// more. Told once, before the first client.
    pub fn is_known_as(&self, uid: Arc<str>) {
        drop(self.uid.set(uid));
    }

    /// Counts a connection of a user, if the user has fewer than `limit` on all nodes.
    pub async fn count_connection(self: Arc<Self>, user: String, client: String, limit: u32) -> Counted {
        let conn_info = self.uid.get().map(|uid| Bytes::copy_from_slice(uid.as_bytes())).unwrap_or_default();
        let info = ClientInfo { client, conn_info, ..ClientInfo::default() };
        let member = Member { room: format!("{RESERVED}{user}").into(), info: Arc::new(info) };
        if self.health() != Health::Hearing {
            return Counted::Unasked(self.enter(member));
        }
        let mut asking = Asking { node: self.clone(), member, let_in: false };
        let asked = timeout(PATIENCE, self.ask_for_place(&asking.member, limit)).await;
        match asked.unwrap_or(Err(BrokerError::Timeout(PATIENCE))) {
            Ok(true) => {
                asking.let_in = true;
                self.attendance.list(&asking.member);
                Counted::In(Present { node: self.clone(), member: asking.member.clone() })
            }
            Ok(false) => Counted::Full,
            Err(error) => {
                tracing::debug!(%error, "how many connections a user has is not known");
                asking.let_in = true;
                Counted::Unasked(self.enter(asking.member.clone()))
            }
        }
    }

    /// Asks once, and again where some of those in the way are on nodes that have ended.
    async fn ask_for_place(&self, Member { room, info }: &Member, limit: u32) -> Result<bool, BrokerError> {
        let (store, ttl) = (&self.attendance.store, self.attendance.ttl);
        if store.enter_within(room, info, limit, ttl).wait().await? {
            return Ok(true);
        }
        let members = store.members(room, "", Members::MAX).wait().await?.clients;
        let nodes: HashSet<_> = members.iter().map(|member| &member.conn_info).collect();
        let mut freed = false;
        for node in nodes {
            if self.has_ended(node).await? {
                let theirs = members.iter().filter(|member| member.conn_info == *node);
                theirs.for_each(|member| drop(store.leave(room, &member.client)));
                freed = true;
            }
        }
        if freed { store.enter_within(room, info, limit, ttl).wait().await } else { Ok(false) }
    }

    /// Whether nobody hears what is said to that node. An empty message is passed over by those who hear it.
    async fn has_ended(&self, node: &Bytes) -> Result<bool, BrokerError> {
        match std::str::from_utf8(node) {
            Ok(node) if !node.is_empty() && self.uid.get().is_none_or(|own| **own != *node) => {
                Ok(!self.broker.control.reach(node, Bytes::new()).wait().await?)
            }
            _ => Ok(false),
        }
    }

    /// Enters a connection without asking; where that does not get through, it is done when the others are renewed.
    fn enter(self: &Arc<Self>, member: Member) -> Present {
        drop(self.attendance.enter(&member));
        Present { node: self.clone(), member }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if !self.let_in {
            drop(self.node.attendance.store.leave(&self.member.room, &self.member.info.client));
        }
    }
}
