//! The way to Redis for all that is not published: what is asked is written in batches over a connection of its own, so that
//! no publication waits behind an answer that is long. Knows no rooms, and not what the commands are for.

use std::{sync::Arc, time::Duration};

use prometheus::Histogram;
use redis::{Cmd, Pipeline, Value};
use tokio::sync::oneshot;

use super::{
    Answer, BrokerError,
    link::{Link, Lost},
    queue::{Bounds, Call, Outcome, Queue, Size},
    script,
    writer::{self, Purpose},
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

/// Takes commands; they take effect in the order in which they are made.
#[derive(Clone)]
pub(super) struct Commands {
    queue: Arc<Queue<Command, Value>>,
}

impl Commands {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { queue: Arc::new(Queue::new(bounds)) }
    }

    /// What the task works with that writes the commands.
    pub(super) fn queue(&self) -> Arc<Queue<Command, Value>> {
        Arc::clone(&self.queue)
    }

    /// Makes a command whose answer is short.
    pub(super) fn push(
        &self,
        operation: Operation,
        command: Cmd,
    ) -> Result<oneshot::Receiver<Outcome<Value>>, BrokerError> {
        self.push_long(operation, command, 0)
    }

    /// Makes a command whose answer may have about so many bytes.
    pub(super) fn push_long(
        &self,
        operation: Operation,
        command: Cmd,
        answer: usize,
    ) -> Result<oneshot::Receiver<Outcome<Value>>, BrokerError> {
        let bytes = script::words(&command).map(<[u8]>::len).sum();
        self.queue.push(Command { operation, command }, Size { bytes, answer })
    }
}

/// What a command comes to, read by `read`.
pub(super) fn answer<T: 'static>(
    made: Result<oneshot::Receiver<Outcome<Value>>, BrokerError>,
    read: impl FnOnce(Value) -> Result<T, BrokerError> + Send + 'static,
) -> Answer<T> {
    match made {
        Ok(receiver) => {
            Answer::Later(Box::pin(
                async move { receiver.await.unwrap_or(Err(BrokerError::Disconnected)).and_then(read) },
            ))
        }
        Err(error) => Answer::Now(Err(error)),
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

    async fn exchange(&self, link: &mut Link, batch: &mut [Call<Command, Value>]) -> Result<Vec<Outcome<Value>>, Lost> {
        let mut pipeline = Pipeline::with_capacity(batch.len());
        for call in batch {
            pipeline.add_command(call.request.command.take());
        }
        Ok(script::exchange(link, &pipeline).await?.into_iter().map(writer::outcome).collect())
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
