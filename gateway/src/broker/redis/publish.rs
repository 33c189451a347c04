//! The connection that speaks: publishes wait in a bounded queue, and one task writes them in batches over one pipelined
//! connection. Knows no rooms and hears nothing.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::{Pin, pin},
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use parking_lot::Mutex;
use prometheus::{Histogram, IntCounter};
use redis::{AsyncConnectionConfig, Cmd, Pipeline, RedisError, Value, aio::MultiplexedConnection};
use tokio::{
    sync::{Notify, oneshot},
    time::{sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{BrokerError, dial::Target, outage::Outage};
use crate::metrics::Metrics;

/// Commands in one pipeline at most.
const MAX_BATCH: usize = 256;
/// Bytes in one pipeline at most, the last command left aside.
const MAX_BATCH_BYTES: usize = 1 << 20;
/// How long the stop waits for what is queued to be answered.
const FLUSH: Duration = Duration::from_secs(1);

type Outcome = Result<(), BrokerError>;

/// One publish on its way to Redis.
struct Call {
    command: Cmd,
    bytes: usize,
    made: Instant,
    answer: oneshot::Sender<Outcome>,
}

/// Bounds of what waits to be written.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    /// Calls.
    pub(super) calls: usize,
    /// Bytes of those.
    pub(super) bytes: usize,
}

/// Publishes that are not yet written, in the order they were made.
pub(super) struct Queue {
    state: Mutex<State>,
    bounds: Bounds,
    filled: Notify,
    drained: Notify,
}

#[derive(Default)]
struct State {
    calls: VecDeque<Call>,
    bytes: usize,
    /// Calls that were written and are not answered yet.
    written: usize,
    closed: bool,
}

impl Queue {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { state: Mutex::default(), bounds, filled: Notify::new(), drained: Notify::new() }
    }

    /// Queues a command of about so many bytes.
    pub(super) fn push(&self, command: Cmd, bytes: usize) -> Result<oneshot::Receiver<Outcome>, BrokerError> {
        let made = Instant::now();
        let (answer, receiver) = oneshot::channel();
        let mut state = self.state.lock();
        if state.closed {
            return Err(BrokerError::Cancelled);
        }
        let waiting = state.calls.len();
        if waiting >= self.bounds.calls || state.bytes.saturating_add(bytes) > self.bounds.bytes {
            return Err(BrokerError::Overloaded(waiting));
        }
        state.bytes += bytes;
        state.calls.push_back(Call { command, bytes, made, answer });
        drop(state);
        if waiting == 0 {
            self.filled.notify_one();
        }
        Ok(receiver)
    }

    /// Takes the oldest calls, to be written now.
    fn take(&self, batch: &mut Vec<Call>) {
        let mut state = self.state.lock();
        let mut bytes = 0;
        while batch.len() < MAX_BATCH && bytes < MAX_BATCH_BYTES {
            let Some(call) = state.calls.pop_front() else { break };
            bytes += call.bytes;
            batch.push(call);
        }
        state.bytes -= bytes;
        state.written = batch.len();
        if batch.is_empty() {
            self.drained.notify_one();
        }
    }

    /// Takes the calls that have waited for so long.
    fn take_expired(&self, now: Instant, patience: Duration) -> Vec<Call> {
        let mut state = self.state.lock();
        let mut expired = Vec::new();
        while let Some(call) = state.calls.pop_front_if(|call| call.made + patience <= now) {
            state.bytes -= call.bytes;
            expired.push(call);
        }
        expired
    }

    fn oldest(&self) -> Option<Instant> {
        self.state.lock().calls.front().map(|call| call.made)
    }

    /// Refuses new calls, and waits until the others are answered.
    async fn finish(&self) {
        self.state.lock().closed = true;
        loop {
            let drained = self.drained.notified();
            {
                let state = self.state.lock();
                if state.calls.is_empty() && state.written == 0 {
                    return;
                }
            }
            drained.await;
        }
    }

    fn close(&self) -> VecDeque<Call> {
        let mut state = self.state.lock();
        state.closed = true;
        std::mem::take(&mut state.calls)
    }
}

/// The task that writes.
pub(super) struct Publisher {
    queue: Arc<Queue>,
    target: Target,
    io_timeout: Duration,
    latency: Histogram,
    ok: IntCounter,
    error: IntCounter,
}

/// Why a connection is over.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Redis(#[from] RedisError),
    #[error("the server closed the connection")]
    Closed,
    #[error("the server did not answer within {0:?}")]
    Silent(Duration),
}

impl Publisher {
    pub(super) fn new(queue: Arc<Queue>, target: Target, io_timeout: Duration, metrics: &Metrics) -> Self {
        Self {
            queue,
            target,
            io_timeout,
            latency: metrics.broker_latency.with_label_values(&["publish"]),
            ok: metrics.broker_published.with_label_values(&["ok"]),
            error: metrics.broker_published.with_label_values(&["error"]),
        }
    }

    /// Writes until the stop; what is queued then has a moment left to be answered.
    pub(super) async fn run(self, shutdown: CancellationToken) {
        let stop = async {
            shutdown.cancelled().await;
            let _ = timeout(FLUSH, self.queue.finish()).await;
        };
        tokio::select! {
            () = self.work() => {}
            () = stop => {}
        }
        let unwritten = self.queue.close();
        self.fail(unwritten, &BrokerError::Cancelled);
    }

    async fn work(&self) {
        let mut outage = Outage::new("publish", self.target.to_string());
        let mut pause = Duration::ZERO;
        let mut previous = None;
        loop {
            let mut link = tokio::select! {
                link = self.connect(&mut outage, pause, previous.as_ref()) => link,
                never = self.expire() => match never {},
            };
            previous = link.identity.take();
            let lost = self.serve(link).await;
            self.queue.state.lock().written = 0;
            pause = outage.failed(&lost);
        }
    }

    /// Answers those who have waited too long for a connection, for as long as there is none.
    async fn expire(&self) -> Infallible {
        loop {
            let now = Instant::now();
            self.fail(self.queue.take_expired(now, self.io_timeout), &BrokerError::Timeout(self.io_timeout));
            let next = self.queue.oldest().unwrap_or(now) + self.io_timeout;
            sleep_until(next.into()).await;
        }
    }

    async fn connect(&self, outage: &mut Outage, mut pause: Duration, previous: Option<&Identity>) -> Link {
        loop {
            sleep(pause).await;
            match self.attempt(previous).await {
                Ok(link) => {
                    outage.healed();
                    return link;
                }
                Err(lost) => pause = outage.failed(&lost),
            }
        }
    }

    /// Connects, logs in, and makes sure that the server answers as one that is ready.
    async fn attempt(&self, previous: Option<&Identity>) -> Result<Link, Lost> {
        let stream = self.target.dial().await?;
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(self.io_timeout));
        let made = MultiplexedConnection::new_with_config(self.target.login(), stream, config);
        let silent = |_| Lost::Silent(self.io_timeout);
        let (connection, driver) = timeout(self.io_timeout, made).await.map_err(silent)??;
        let mut link = Link { connection, driver: Box::pin(driver), ended: false, identity: None };
        link.ping().await?;
        link.identify().await?;
        link.succeed(previous).await?;
        Ok(link)
    }

    async fn serve(&self, mut link: Link) -> Lost {
        let mut batch = Vec::with_capacity(MAX_BATCH);
        loop {
            self.queue.take(&mut batch);
            let outcome =
                if batch.is_empty() { self.idle(&mut link).await } else { self.write(&mut link, &mut batch).await };
            if let Err(lost) = outcome {
                return lost;
            }
        }
    }

    /// Waits for something to write, and looks after the connection meanwhile.
    async fn idle(&self, link: &mut Link) -> Result<(), Lost> {
        tokio::select! {
            biased;
            () = self.queue.filled.notified() => Ok(()),
            lost = link.ended() => Err(lost),
            () = sleep(self.io_timeout / 2) => link.ping().await,
        }
    }

    /// Writes a batch and answers each call of it. Whatever happens, none of it is written again.
    async fn write(&self, link: &mut Link, batch: &mut Vec<Call>) -> Result<(), Lost> {
        let mut pipeline = Pipeline::with_capacity(batch.len());
        let calls: Vec<_> = batch
            .drain(..)
            .map(|call| {
                pipeline.add_command(call.command);
                (call.made, call.answer)
            })
            .collect();
        let answers = link.exchange(&pipeline).await;
        let now = Instant::now();
        let lost = match answers {
            Ok(answers) if answers.len() == calls.len() => {
                for ((made, answer), value) in calls.into_iter().zip(answers) {
                    self.answer(answer, now - made, outcome(value));
                }
                return Ok(());
            }
            Ok(_) => Lost::Closed,
            Err(lost) => lost,
        };
        let error = self.explain(&lost);
        for (made, answer) in calls {
            self.answer(answer, now - made, Err(error.clone()));
        }
        Err(lost)
    }

    fn explain(&self, lost: &Lost) -> BrokerError {
        match lost {
            Lost::Redis(error) if error.is_timeout() => BrokerError::Timeout(self.io_timeout),
            Lost::Silent(patience) => BrokerError::Timeout(*patience),
            _ => BrokerError::Disconnected,
        }
    }

    fn answer(&self, answer: oneshot::Sender<Outcome>, took: Duration, outcome: Outcome) {
        self.latency.observe(took.as_secs_f64());
        if outcome.is_ok() {
            self.ok.inc();
        } else {
            self.error.inc();
        }
        // The caller may have gone; what it published stands all the same.
        let _ = answer.send(outcome);
    }

    fn fail(&self, calls: impl IntoIterator<Item = Call>, error: &BrokerError) {
        for call in calls {
            self.answer(call.answer, call.made.elapsed(), Err(error.clone()));
        }
    }
}

/// A connection and the work that moves its bytes, polled by whoever waits for something on it.
struct Link {
    connection: MultiplexedConnection,
    driver: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Whether the driver has ended, and with it the connection.
    ended: bool,
    identity: Option<Identity>,
}

/// A connection as the server knows it.
#[derive(PartialEq)]
struct Identity {
    /// The server's run: numbers of connections begin anew with the next.
    run: Vec<u8>,
    connection: i64,
}

impl Link {
    /// Lets the connection work until it ends.
    async fn ended(&mut self) -> Lost {
        if !self.ended {
            self.driver.as_mut().await;
            self.ended = true;
        }
        Lost::Closed
    }

    async fn exchange(&mut self, pipeline: &Pipeline) -> Result<Vec<Value>, Lost> {
        let mut connection = self.connection.clone();
        let mut answers = pin!(connection.send_packed_commands(pipeline, 0, pipeline.len()));
        tokio::select! {
            biased;
            answers = &mut answers => Ok(answers?),
            // What the server said before it closed the connection counts still.
            lost = self.ended() => answers.now_or_never().map_or(Err(lost), |answers| Ok(answers?)),
        }
    }

    /// Any answer but one about the login or the start of the server is a sign of life.
    async fn ping(&mut self) -> Result<(), Lost> {
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline.cmd("PING");
        match self.exchange(&pipeline).await?.pop() {
            Some(Value::ServerError(error)) if matches!(error.code(), "NOAUTH" | "LOADING") => {
                Err(Lost::Redis(error.into()))
            }
            _ => Ok(()),
        }
    }
}

impl Link {
    /// Learns how the server knows this connection; a user that may not ask goes without.
    async fn identify(&mut self) -> Result<(), Lost> {
        let mut pipeline = Pipeline::with_capacity(2);
        pipeline.cmd("CLIENT").arg("ID").cmd("INFO").arg("server");
        let answers = self.exchange(&pipeline).await?;
        if let [Value::Int(connection), Value::BulkString(info)] = answers.as_slice() {
            let run = info.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"run_id:"));
            self.identity = run.map(|run| Identity { run: run.to_vec(), connection: *connection });
        }
        Ok(())
    }

    /// Ends the connection before this one at the server. What was written to it and not yet read would otherwise come
    /// between, or after, what is written to this one: out of order, and long after it was answered with an error.
    async fn succeed(&mut self, previous: Option<&Identity>) -> Result<(), Lost> {
        let same_run = |previous: &&Identity| self.identity.as_ref().is_some_and(|now| now.run == previous.run);
        if let Some(Identity { connection, .. }) = previous.filter(same_run) {
            let mut pipeline = Pipeline::with_capacity(1);
            pipeline.cmd("CLIENT").arg("KILL").arg("ID").arg(*connection);
            self.exchange(&pipeline).await?;
        }
        Ok(())
    }
}

fn outcome(value: Value) -> Outcome {
    match value {
        Value::ServerError(error) => {
            Err(BrokerError::Refused(format!("{} {}", error.code(), error.details().unwrap_or_default())))
        }
        _ => Ok(()),
    }
}
