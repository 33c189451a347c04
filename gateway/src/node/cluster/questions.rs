//! What a node asks all others, or one, and how their answers are put together. Knows no broker beyond what it says through
//! it.

use std::{collections::BTreeMap, time::Instant};

use bytes::Bytes;

use super::{
    Ask, BadPattern, Cluster, ConnectionInfo, Filter, NodeInfo, Part, Question, Said, Upstreamed, answer,
    message::{ConnectionsQuestion, RoomsQuestion, Upstream},
};
use crate::broker::BrokerError;

/// Connections in one page at most.
pub const MAX_PAGE: u32 = 1_000;

/// What the nodes together answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Survey<T> {
    /// The answers, put together.
    pub answer: T,
    /// Names of the nodes that did not answer in time, so that what they hold is missing; empty where the answer is whole.
    pub silent: Vec<String>,
}

/// A page of connections.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Connections {
    /// In the order of their clients.
    pub connections: Vec<ConnectionInfo>,
    /// Where the next page begins; empty after the last one.
    pub cursor: String,
}

impl Cluster {
    /// Rooms that match a pattern, each with how many subscriptions it has on all nodes: `*` stands for any characters, `?`
    /// for one, `[…]` for one of several, `{a,b}` for either; the empty pattern matches all.
    ///
    /// # Errors
    /// The pattern is none.
    pub async fn rooms(&self, pattern: &str) -> Result<Survey<BTreeMap<String, u64>>, BadPattern> {
        drop(answer::matcher(pattern)?);
        let question = Question::Rooms(RoomsQuestion { pattern: pattern.to_owned() });
        let Survey { answer, silent } = self.survey(question).await;
        let mut rooms = BTreeMap::new();
        for (_, part) in answer {
            let Part::Rooms(part) = part else { continue };
            for count in part.rooms {
                *rooms.entry(count.room).or_default() += count.clients;
            }
        }
        Ok(Survey { answer: rooms, silent })
    }

    /// A page of the connections on all nodes that match, those after `cursor` (empty: from the beginning), `limit` (and
    /// [`MAX_PAGE`]) at most. A connection that stays during the whole walk is named once.
    pub async fn connections(&self, filter: Filter, cursor: &str, limit: u32) -> Survey<Connections> {
        let limit = limit.clamp(1, MAX_PAGE);
        // One more tells whether there is another page.
        let question = ConnectionsQuestion { filter: Some(filter), cursor: cursor.to_owned(), limit: limit + 1 };
        let Survey { answer, silent } = self.survey(Question::Connections(question)).await;
        let mut connections = Vec::new();
        for (node, part) in answer {
            let Part::Connections(part) = part else { continue };
            connections.extend(part.connections.into_iter().map(|one| ConnectionInfo { node: node.clone(), ..one }));
        }
        connections.sort_by(|one, other| one.client.cmp(&other.client));
        let limit = limit as usize;
        let more = connections.len() > limit;
        connections.truncate(limit);
        let cursor = connections.last().filter(|_| more).map(|last| last.client.clone()).unwrap_or_default();
        Survey { answer: Connections { connections, cursor }, silent }
    }

    /// Hands commands that a client sent on another way to its session on the node of that id, or name.
    ///
    /// # Errors
    /// The node did not answer: whether the session has them is not known.
    pub async fn upstream(&self, node: &str, session: &str, data: Bytes) -> Result<Upstreamed, BrokerError> {
        if *node == *self.uid || *node == self.options.name {
            let outcome = self.respondent.local.upstream(session, data.clone());
            if outcome != Upstreamed::Unknown || *node == *self.uid {
                return Ok(outcome);
            }
        }
        let named = |peer: &NodeInfo| peer.uid == node || peer.name == node;
        let peers = self.peers.lock().present(Instant::now());
        let nodes: Vec<_> = peers.into_iter().filter(named).map(|peer| peer.uid).collect();
        let question = Question::Upstream(Upstream { session: session.to_owned(), data });
        let (parts, silent) = self.ask(nodes.iter().map(|node| Some(node.as_str())), nodes.clone(), question).await;
        let known = parts.into_iter().find_map(|(_, part)| match part {
            Part::Upstream(part) => Some(part.outcome()).filter(|outcome| *outcome != Upstreamed::Unknown),
            _ => None,
        });
        match known {
            Some(outcome) => Ok(outcome),
            None if silent.is_empty() => Ok(Upstreamed::Unknown),
            None => Err(BrokerError::Timeout(self.options.patience)),
        }
    }

    /// Asks every node, this one included.
    async fn survey(&self, question: Question) -> Survey<Vec<(String, Part)>> {
        let peers = self.peers.lock().present(Instant::now());
        let nodes = peers.iter().map(|peer| peer.uid.clone()).collect();
        let (own, (mut parts, silent)) =
            tokio::join!(self.own_answer(question.clone()), self.ask([None], nodes, question));
        parts.extend(own.into_iter().map(|part| (self.uid.to_string(), part)));
        let names = peers.into_iter().filter(|peer| silent.contains(&peer.uid)).map(|peer| peer.name);
        Survey { answer: parts, silent: names.collect() }
    }

    /// Says a question to each of `to` and waits for the answers of `nodes`; those that did not answer in full come second.
    async fn ask<'a>(
        &self,
        to: impl IntoIterator<Item = Option<&'a str>>,
        nodes: Vec<String>,
        question: Question,
    ) -> (Vec<(String, Part)>, Vec<String>) {
        if nodes.is_empty() {
            return (Vec::new(), Vec::new());
        }
        let asked = self.open.ask();
        for node in to {
            // What does not get through is not answered.
            drop(self.tell(node, Said::Ask(Ask { id: asked.id(), question: Some(question.clone()) })));
        }
        asked.collect(nodes, self.options.patience).await
    }
}
