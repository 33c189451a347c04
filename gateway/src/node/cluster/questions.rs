//! What a node asks all others, or one, and how their answers are put together. Knows no broker beyond what it says through
//! it.

use std::{collections::BTreeMap, time::Instant};

use bytes::Bytes;
use thiserror::Error;

use super::{
    Ask, BadPattern, Cluster, ConnectionInfo, Filter, NodeInfo, Overload, Part, Question, Said, Upstreamed, answer,
    message::{ConnectionsQuestion, RoomsQuestion, Upstream},
    survey::Asked,
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

/// Why there is no survey.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SurveyError {
    /// What is asked for makes no sense.
    #[error(transparent)]
    Pattern(#[from] BadPattern),
    /// Too much is asked for.
    #[error(transparent)]
    Overload(#[from] Overload),
}

/// What the nodes answered, each part with its node, and those that did not answer in full. It counts as held while the question
/// beside it lives.
type Answers = (Vec<(String, Part)>, Vec<String>, Option<Asked>);

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
    /// The pattern is none, or the nodes are asked for too much.
    pub async fn rooms(&self, pattern: &str) -> Result<Survey<BTreeMap<String, u64>>, SurveyError> {
        drop(answer::matcher(pattern)?);
        let question = Question::Rooms(RoomsQuestion { pattern: pattern.to_owned() });
        let (answer, silent, _held) = self.survey(question).await?;
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
    ///
    /// # Errors
    /// The nodes are asked for too much.
    pub async fn connections(&self, filter: Filter, cursor: &str, limit: u32) -> Result<Survey<Connections>, Overload> {
        let limit = limit.clamp(1, MAX_PAGE);
        // One more tells whether there is another page.
        let question = ConnectionsQuestion { filter: Some(filter), cursor: cursor.to_owned(), limit: limit + 1 };
        let (answer, silent, _held) = self.survey(Question::Connections(question)).await?;
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
        Ok(Survey { answer: Connections { connections, cursor }, silent })
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
        let (parts, silent, _held) = match self.ask(Some(node), nodes, question).await {
            Ok(answers) => answers,
            // Nothing was said to that node.
            Err(Overload::Questions) => return Ok(Upstreamed::Busy),
            Err(Overload::Answers) => return Err(BrokerError::Timeout(self.options.patience)),
        };
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

    /// Asks every node, this one included; gives the names of those that are silent.
    async fn survey(&self, question: Question) -> Result<Answers, Overload> {
        let peers = self.peers.lock().present(Instant::now());
        let nodes = peers.iter().map(|peer| peer.uid.clone()).collect();
        let (own, answers) = tokio::join!(self.own_answer(question.clone()), self.ask(None, nodes, question));
        let (mut parts, silent, held) = answers?;
        parts.extend(own.into_iter().map(|part| (self.uid.to_string(), part)));
        let names = peers.into_iter().filter(|peer| silent.contains(&peer.uid)).map(|peer| peer.name);
        Ok((parts, names.collect(), held))
    }

    /// Asks these nodes, which are all, or all of one name, and waits for their answers.
    async fn ask(&self, name: Option<&str>, nodes: Vec<String>, question: Question) -> Result<Answers, Overload> {
        if nodes.is_empty() {
            return Ok((Vec::new(), Vec::new(), None));
        }
        let mut asked = self.open.ask(name)?;
        let said = Said::Ask(Ask { id: asked.id(), question: Some(question) });
        // What does not get through is not answered.
        match name {
            None => drop(self.tell(None, said)),
            Some(_) => nodes.iter().for_each(|node| drop(self.tell(Some(node), said.clone()))),
        }
        let (parts, silent) = asked.collect(nodes, self.options.patience).await?;
        Ok((parts, silent, Some(asked)))
    }
}
