//! The task that speaks: it takes calls from their queue and writes them in batches over one pipelined connection, which it
//! makes again when it breaks. Knows no rooms, hears nothing, and leaves to a [`Purpose`] what is said.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use redis::Value;
use tokio::time::{sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    BrokerError,
    dial::Target,
    link::{Link, Lost},
    outage::Outage,
    queue::{Call, MAX_BATCH, Outcome, Queue},
    script,
};

/// How long the stop waits for what is queued to be answered.
const FLUSH: Duration = Duration::from_secs(1);

/// What a writing connection is for.
pub(super) trait Purpose: Send + Sync + 'static {
    /// What is asked.
    type Request: Send + 'static;
    /// What is answered.
    type Reply: Send + 'static;
    /// A word for the log.
    const WORD: &'static str;

    /// Writes the calls of a batch and gives what became of each, in their order. Whatever happens, none of what took effect
    /// is written again, and nothing is overtaken by what follows in the batch.
    fn exchange(&self, link: &mut Link, batch: &mut [Call<Self::Request, Self::Reply>]) -> impl Replies<Self::Reply>;

    /// Counts a call that was answered after so long.
    fn note(&self, request: &Self::Request, took: Duration, ok: bool);
}

/// What becomes of a batch.
pub(super) trait Replies<A>: Future<Output = Result<Vec<Outcome<A>>, Lost>> + Send {}
impl<A, F: Future<Output = Result<Vec<Outcome<A>>, Lost>> + Send> Replies<A> for F {}

/// The task that writes.
pub(super) struct Writer<P: Purpose> {
    /// What is to be written.
    pub(super) queue: Arc<Queue<P::Request, P::Reply>>,
    /// Where Redis is.
    pub(super) target: Target,
    /// The longest wait for an answer, or for a connection.
    pub(super) io_timeout: Duration,
    /// What is said.
    pub(super) purpose: P,
}

impl<P: Purpose> Writer<P> {
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
        let mut outage = Outage::new(P::WORD, self.target.to_string());
        let mut pause = Duration::ZERO;
        loop {
            let link = tokio::select! {
                link = self.connect(&mut outage, pause) => link,
                never = self.expire() => match never {},
            };
            let lost = self.serve(link).await;
            self.queue.answered();
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

    async fn connect(&self, outage: &mut Outage, mut pause: Duration) -> Link {
        loop {
            sleep(pause).await;
            match self.open().await {
                Ok(link) => {
                    outage.healed();
                    return link;
                }
                Err(lost) => pause = outage.failed(&lost),
            }
        }
    }

    async fn open(&self) -> Result<Link, Lost> {
        let mut link = Link::open(&self.target, self.io_timeout).await?;
        script::load(&mut link).await?;
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

    /// Writes a batch and answers each call of it.
    async fn write(&self, link: &mut Link, batch: &mut Vec<Call<P::Request, P::Reply>>) -> Result<(), Lost> {
        let outcomes = self.purpose.exchange(link, batch).await;
        let now = Instant::now();
        let lost = match outcomes {
            Ok(outcomes) if outcomes.len() == batch.len() => {
                for (call, outcome) in batch.drain(..).zip(outcomes) {
                    self.answer(call, now, outcome);
                }
                return Ok(());
            }
            Ok(_) => Lost::Closed,
            Err(lost) => lost,
        };
        let error = self.explain(&lost);
        self.fail(batch.drain(..), &error);
        Err(lost)
    }

    fn explain(&self, lost: &Lost) -> BrokerError {
        match lost {
            Lost::Redis(error) if error.is_timeout() => BrokerError::Timeout(self.io_timeout),
            Lost::Silent(patience) => BrokerError::Timeout(*patience),
            _ => BrokerError::Disconnected,
        }
    }

    fn answer(&self, call: Call<P::Request, P::Reply>, now: Instant, outcome: Outcome<P::Reply>) {
        self.purpose.note(&call.request, now - call.made, outcome.is_ok());
        // The caller may have gone; what it asked for stands all the same.
        let _ = call.answer.send(outcome);
    }

    fn fail(&self, calls: impl IntoIterator<Item = Call<P::Request, P::Reply>>, error: &BrokerError) {
        let now = Instant::now();
        for call in calls {
            self.answer(call, now, Err(error.clone()));
        }
    }
}

/// What an answer of Redis says of the call.
pub(super) fn outcome(value: Value) -> Outcome<Value> {
    match value {
        Value::ServerError(error) => {
            Err(BrokerError::Refused(format!("{} {}", error.code(), error.details().unwrap_or_default())))
        }
        value => Ok(value),
    }
}
