//! The way to Redis for all that is not published: what is asked is written in batches over a connection of its own, so that
//! no publication waits behind an answer that is long. Knows no rooms, and not what the commands are for.

use std::{sync::Arc, time::Duration};

use prometheus::Histogram;
use redis::{Cmd, Value};

use super::{
    link::{Link, Lost},
    queue::{Answered, Call, Queue, Size},
    redirect::{self, Verdict},
    routes::Group,
    script::{self, Row},
    writer::Purpose,
};
use crate::metrics::Metrics;

/// What a command is counted as.
#[derive(Clone, Copy)]
pub(super) enum Operation {
    /// Reading and forgetting what rooms remember.
    History,
    /// Who is where.
    Presence,
    /// What nodes say to each other and hold in common.
    Control,
}

/// A command on its way.
pub(super) struct Command {
    operation: Operation,
    command: Cmd,
}

/// Takes commands; those of one group take effect in the order in which they are made.
#[derive(Clone)]
pub(super) struct Commands {
    queue: Arc<Queue<Command, Value>>,
}

impl Commands {
    pub(super) fn new(queue: Arc<Queue<Command, Value>>) -> Self {
        Self { queue }
    }

    /// Makes a command whose answer is short.
    pub(super) fn push(&self, group: Group, operation: Operation, command: Cmd) -> Answered<Value> {
        self.push_long(group, operation, command, 0)
    }

    /// Makes a command whose answer may have about so many bytes.
    pub(super) fn push_long(&self, group: Group, operation: Operation, command: Cmd, answer: usize) -> Answered<Value> {
        let bytes = script::words(&command).map(<[u8]>::len).sum();
        self.queue.push(group, Command { operation, command }, Size { bytes, answer })
    }
}

/// What the connection for commands is for.
pub(super) struct Commanding {
    history: Histogram,
    presence: Histogram,
    control: Histogram,
}

impl Commanding {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let latency = |operation| metrics.broker_latency.with_label_values(&[operation]);
        Self { history: latency("history"), presence: latency("presence"), control: latency("control") }
    }
}

impl Purpose for Commanding {
    type Request = Command;
    type Reply = Value;
    const WORD: &'static str = "command";

    async fn exchange(&self, link: &mut Link, batch: &mut [Call<Command, Value>]) -> Result<Vec<Verdict<Value>>, Lost> {
        let mut row = Row::with_capacity(batch.len());
        for call in &mut *batch {
            row.add(call.request.command.take(), call.asking);
        }
        let verdicts: Vec<_> = script::exchange(link, &row).await?.into_iter().map(redirect::verdict).collect();
        for (number, (verdict, call)) in verdicts.iter().zip(batch).enumerate() {
            if let (Verdict::Elsewhere(..), Some(command)) = (verdict, row.command(number)) {
                call.request.command = command;
            }
        }
        Ok(verdicts)
    }

    fn note(&self, request: &Command, took: Duration, _ok: bool) {
        let latency = match request.operation {
            Operation::History => &self.history,
            Operation::Presence => &self.presence,
            Operation::Control => &self.control,
        };
        latency.observe(took.as_secs_f64());
    }
}
