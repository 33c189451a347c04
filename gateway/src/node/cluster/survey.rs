//! Questions that other nodes were asked and have not answered in full, bounded in number and in what is held of their
//! answers. Knows no broker: it keeps the book, and waits.

use std::{sync::Arc, time::Duration};

use hashbrown::HashMap;
use parking_lot::Mutex;
use prost::Message;
use thiserror::Error;
use tokio::{sync::mpsc, time::timeout_at};

use super::message::{Part, Reply};

/// Parts that may wait for the one who asked. More are not taken, and their node counts as silent.
const PARTS: usize = 1024;

/// Questions to all nodes that may be open at a time, and to each single one: a node that hangs leaves the others theirs.
const QUESTIONS: usize = 256;

/// Bytes of answers that may be held at a time, of all open questions together.
const BYTES: usize = 64 << 20;

/// Why nodes are not asked, or their answers are not taken.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Overload {
    /// Too many questions are open.
    #[error(
        "{} questions to other nodes are open already, as many as may; ask again when some are answered",
        QUESTIONS
    )]
    Questions,
    /// The answers are too long.
    #[error("more than {} MB of answers of other nodes are held, as many as may; ask for less at a time", BYTES >> 20)]
    Answers,
}

/// The questions that are open.
#[derive(Default)]
pub(super) struct Open(Mutex<Book>);

#[derive(Default)]
struct Book {
    next: u64,
    questions: HashMap<u64, Question>,
    /// How many are open, by whom they are for.
    counts: HashMap<String, usize>,
    /// Bytes that are held.
    bytes: usize,
}

struct Question {
    to: String,
    /// Taken away where the answers become too long.
    replies: Option<mpsc::Sender<(String, Reply)>>,
    bytes: usize,
}

/// One question that is open, and what is held of its answers, until this is dropped.
pub(super) struct Asked {
    open: Arc<Open>,
    id: u64,
    replies: mpsc::Receiver<(String, Reply)>,
}

impl Open {
    /// Opens a question to one node, or to all where none is named.
    pub(super) fn ask(self: &Arc<Self>, to: Option<&str>) -> Result<Asked, Overload> {
        let to = to.unwrap_or_default();
        let mut book = self.0.lock();
        let count = book.counts.entry_ref(to).or_default();
        if *count >= QUESTIONS {
            return Err(Overload::Questions);
        }
        *count += 1;
        let id = book.next;
        book.next += 1;
        let (sender, replies) = mpsc::channel(PARTS);
        book.questions.insert(id, Question { to: to.into(), replies: Some(sender), bytes: 0 });
        Ok(Asked { open: self.clone(), id, replies })
    }

    /// A node has answered.
    pub(super) fn answered(&self, from: String, reply: Reply) {
        let mut book = self.0.lock();
        let Book { questions, bytes, .. } = &mut *book;
        let Some(question) = questions.get_mut(&reply.id) else {
            tracing::debug!(from, "an answer came too late");
            return;
        };
        let Some(replies) = &question.replies else { return };
        let length = reply.encoded_len();
        if *bytes + length > BYTES {
            question.replies = None;
            return;
        }
        if replies.try_send((from, reply)).is_err() {
            tracing::warn!("an answer of another node has more parts than are taken: the node counts as silent");
            return;
        }
        question.bytes += length;
        *bytes += length;
    }
}

impl Asked {
    /// What the answers name the question by.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Collects the answers of these nodes until each has answered in full, or the patience is over. Gives the parts, each
    /// with its node, and the nodes that have not answered in full.
    pub(super) async fn collect(
        &mut self,
        nodes: Vec<String>,
        patience: Duration,
    ) -> Result<(Vec<(String, Part)>, Vec<String>), Overload> {
        let deadline = tokio::time::Instant::now() + patience;
        let mut missing: HashMap<String, Option<u32>> = nodes.into_iter().map(|node| (node, None)).collect();
        let (mut parts, mut silent) = (Vec::new(), Vec::new());
        while !missing.is_empty() {
            let Ok(reply) = timeout_at(deadline, self.replies.recv()).await else { break };
            let (from, reply) = reply.ok_or(Overload::Answers)?;
            let Some(left) = missing.get_mut(&from) else { continue };
            let Some(part) = reply.part.filter(|_| reply.parts > 0) else {
                // It does not know the question: no answer will come.
                missing.remove(&from);
                silent.push(from);
                continue;
            };
            let still = left.unwrap_or(reply.parts).saturating_sub(1);
            *left = Some(still);
            if still == 0 {
                missing.remove(&from);
            }
            parts.push((from, part));
        }
        silent.extend(missing.into_keys());
        Ok((parts, silent))
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let mut book = self.open.0.lock();
        let Some(question) = book.questions.remove(&self.id) else { return };
        book.bytes -= question.bytes;
        if let Some(count) = book.counts.get_mut(&question.to) {
            *count -= 1;
            if *count == 0 {
                book.counts.remove(&question.to);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::cluster::message::{RoomCount, RoomsPart};

    const PATIENCE: Duration = Duration::from_secs(20);

    fn part(id: u64, length: usize) -> Reply {
        let rooms = vec![RoomCount { room: "x".repeat(length), clients: 1 }];
        Reply { id, parts: 1000, part: Some(Part::Rooms(RoomsPart { rooms })) }
    }

    #[test]
    fn so_many_questions_are_open_to_all_nodes_and_to_each() {
        let open = Arc::new(Open::default());
        for to in [None, Some("a"), Some("b")] {
            let mut asked: Vec<_> = (0..QUESTIONS).map(|_| open.ask(to).expect("there is place")).collect();
            assert_eq!(open.ask(to).err(), Some(Overload::Questions));
            assert!(open.ask(Some("another")).is_ok());
            asked.pop();
            assert!(open.ask(to).is_ok());
        }
        let book = open.0.lock();
        assert!(book.questions.is_empty() && book.counts.is_empty());
    }

    #[tokio::test]
    async fn answers_are_held_up_to_a_bound_of_all_questions_together() {
        let open = Arc::new(Open::default());
        let (mut one, mut other) = (open.ask(None).expect("place"), open.ask(None).expect("place"));
        for id in [one.id, other.id].repeat(31) {
            open.answered("a".to_owned(), part(id, 1 << 20));
        }
        assert!(open.0.lock().bytes > 62 << 20);
        for _ in 0..3 {
            open.answered("a".to_owned(), part(one.id, 1 << 20));
        }
        assert!(open.0.lock().bytes <= BYTES);
        let collected = one.collect(vec!["a".to_owned()], PATIENCE).await;
        assert_eq!(collected.err(), Some(Overload::Answers));
        drop(one);
        // The other one has what came for it, and there is room for more.
        open.answered("a".to_owned(), Reply { parts: 0, part: None, ..part(other.id, 0) });
        let (parts, silent) = other.collect(vec!["a".to_owned()], PATIENCE).await.expect("it was within the bound");
        assert_eq!((parts.len(), silent), (31, vec!["a".to_owned()]));
        drop(other);
        assert_eq!(open.0.lock().bytes, 0);
    }
}
