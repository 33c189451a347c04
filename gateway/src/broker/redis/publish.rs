//! The task that speaks: it takes publishes from their queue and writes them in batches over one pipelined connection,
//! which it makes again when it breaks. Knows no rooms and hears nothing.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use prometheus::{Histogram, IntCounter};
use redis::{Pipeline, Value};
use tokio::{
    sync::oneshot,
    time::{sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    BrokerError,
    dial::Target,
    link::{Link, Lost},
    outage::Outage,
    queue::{Call, MAX_BATCH, Outcome, Queue},
};
use crate::metrics::Metrics;

/// How long the stop waits for what is queued to be answered.
const FLUSH: Duration = Duration::from_secs(1);

/// The task that writes.
pub(super) struct Publisher {
    queue: Arc<Queue>,
    target: Target,
    io_timeout: Duration,
    latency: Histogram,
    ok: IntCounter,
    error: IntCounter,
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
            match Link::open(&self.target, self.io_timeout).await {
                Ok(link) => {
                    outage.healed();
                    return link;
                }
                Err(lost) => pause = outage.failed(&lost),
            }
        }
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

fn outcome(value: Value) -> Outcome {
    match value {
        Value::ServerError(error) => {
            Err(BrokerError::Refused(format!("{} {}", error.code(), error.details().unwrap_or_default())))
        }
        _ => Ok(()),
    }
}
