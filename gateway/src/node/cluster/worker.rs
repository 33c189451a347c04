//! The two tasks of a node in its cluster: one hears, beats and forgets; the other answers what may take a while. Knows no
//! broker beyond what it says through it.

use std::{
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::future::OptionFuture;
use prost::Message;
use tokio::{sync::mpsc, time::sleep_until};
use tokio_util::sync::CancellationToken;

use super::{
    Ask, Beat, Change, Cluster, Envelope, Kept, Order, Part, Question, Reply, Said,
    message::{self, NodeInfo},
};
use crate::{broker::BrokerError, moments};

/// Questions of other nodes that may wait to be answered. More are not taken, and this node counts as silent.
pub(super) const QUESTIONS: usize = 64;

/// All facts on their way.
type Reading = Pin<Box<dyn Future<Output = Result<Vec<(String, Bytes, Duration)>, BrokerError>> + Send>>;

impl Cluster {
    /// Hears, beats and forgets until the stop.
    pub(super) async fn work(self: Arc<Self>, mut inbox: mpsc::Receiver<Bytes>, stop: CancellationToken) {
        let mut beat = Instant::now().into();
        let mut reading: OptionFuture<Reading> = None.into();
        let mut unread = false;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                // What is heard waits for these, not they for it: they come seldom.
                () = self.connected.notified() => {
                    self.beat(true);
                    reading = Some(self.read_facts()).into();
                }
                () = sleep_until(beat) => {
                    beat = moments::within(Instant::now().into(), self.options.beat);
                    self.beat(false);
                    self.forget_silent();
                    if std::mem::take(&mut unread) {
                        reading = Some(self.read_facts()).into();
                    }
                }
                Some(facts) = &mut reading => {
                    reading = None.into();
                    unread = !self.have_read(facts);
                }
                Some(message) = inbox.recv() => self.hear(message),
            }
        }
    }

    /// Answers the questions of other nodes, one after the other, until the stop.
    pub(super) async fn answer_others(
        self: Arc<Self>,
        mut questions: mpsc::Receiver<(String, Ask)>,
        stop: CancellationToken,
    ) {
        while let Some(Some((from, ask))) = stop.run_until_cancelled(questions.recv()).await {
            let Some(question) = ask.question else { continue };
            let parts = self.own_answer(question).await;
            self.reply(&from, ask.id, parts);
        }
    }

    /// What this node answers, found where it holds nobody up.
    pub(super) async fn own_answer(&self, question: Question) -> Vec<Part> {
        let respondent = self.respondent.clone();
        let answered = self.tracker.spawn_blocking(move || respondent.answer(&question)).await;
        answered.unwrap_or_else(|error| {
            tracing::error!(%error, "a question of another node is not answered");
            Vec::new()
        })
    }

    fn read_facts(&self) -> Reading {
        self.ledger.begin();
        Box::pin(self.control.kept().wait())
    }

    fn have_read(&self, facts: Result<Vec<(String, Bytes, Duration)>, BrokerError>) -> bool {
        match facts {
            Ok(facts) => {
                self.ledger.read(facts);
                true
            }
            Err(error) => {
                tracing::warn!(%error, "the facts that nodes hold in common are not read; trying again");
                self.ledger.failed();
                false
            }
        }
    }

    fn beat(&self, new: bool) {
        if !self.left.load(Ordering::Relaxed) {
            // A beat that does not get through is one that the others miss.
            drop(self.tell(None, Said::Beat(Beat { info: Some(self.info()), new })));
        }
    }

    fn forget_silent(&self) {
        for node in self.peers.lock().forget_silent(Instant::now()) {
            tracing::warn!(name = node.name, uid = node.uid, "a node is silent and counts as gone");
        }
    }

    fn hear(&self, message: Bytes) {
        let envelope = match Envelope::decode(message) {
            Ok(envelope) if envelope.version == message::VERSION => envelope,
            Ok(envelope) => {
                tracing::debug!(version = envelope.version, from = envelope.from, "a node of another version speaks");
                return;
            }
            Err(error) => {
                tracing::debug!(%error, "what a node says is not understood");
                return;
            }
        };
        // What this node says to all comes back to it; it has acted on it already.
        if *envelope.from == *self.uid {
            return;
        }
        let Some(said) = envelope.said else {
            tracing::debug!(from = envelope.from, "a node says something of an unknown kind");
            return;
        };
        self.take(envelope.from, said);
    }

    fn take(&self, from: String, said: Said) {
        match said {
            Said::Beat(beat) => self.heard_beat(from, beat),
            Said::Bye(_) => {
                if self.peers.lock().bye(&from) {
                    tracing::info!(uid = from, "a node has left");
                }
            }
            Said::Order(Order { command: Some(command) }) => self.respondent.local.execute(&command),
            Said::Order(_) => tracing::debug!(from, "a node commands something of an unknown kind"),
            Said::Ask(ask) => self.asked(from, ask),
            Said::Reply(reply) => self.open.answered(from, reply),
            Said::Kept(Kept { name, fact, ttl_ms }) => {
                self.ledger.told(Change::Kept(name, fact, Duration::from_millis(ttl_ms)));
            }
            Said::Forgotten(forgotten) => self.ledger.told(Change::Forgotten(forgotten.name)),
        }
    }

    fn heard_beat(&self, from: String, beat: Beat) {
        let info = NodeInfo { uid: from, ..beat.info.unwrap_or_default() };
        let (uid, name) = (info.uid.clone(), info.name.clone());
        if self.peers.lock().beat(info, Instant::now()) {
            tracing::info!(name, uid, "a node is there");
        }
        if beat.new && !self.left.load(Ordering::Relaxed) {
            drop(self.tell(Some(&uid), Said::Beat(Beat { info: Some(self.info()), new: false })));
        }
    }

    fn asked(&self, from: String, ask: Ask) {
        match &ask.question {
            // These must keep their order, and never take long.
            Some(question @ Question::Upstream(_)) => self.reply(&from, ask.id, self.respondent.answer(question)),
            Some(_) => {
                if let Err(error) = self.questions.try_send((from, ask)) {
                    tracing::warn!(%error, "a question of another node is not taken");
                }
            }
            None => self.reply(&from, ask.id, Vec::new()),
        }
    }

    /// Says an answer; one without parts says that there is none.
    fn reply(&self, to: &str, id: u64, answer: Vec<Part>) {
        let parts = u32::try_from(answer.len()).unwrap_or(0);
        if answer.is_empty() {
            drop(self.tell(Some(to), Said::Reply(Reply { id, parts, part: None })));
        }
        for part in answer {
            // A part that does not get through leaves this node silent to the one who asked.
            drop(self.tell(Some(to), Said::Reply(Reply { id, parts, part: Some(part) })));
        }
    }
}
