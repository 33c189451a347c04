//! What the publishing connection says. Knows no queue and hears nothing.

use std::time::Duration;

use prometheus::{Histogram, IntCounter};
use redis::{Cmd, Pipeline};

use super::{
    link::{Link, Lost},
    queue::{Call, Outcome},
    writer::{self, Purpose},
};
use crate::metrics::Metrics;

/// What the connection that publishes is for.
pub(super) struct Publishing {
    latency: Histogram,
    ok: IntCounter,
    error: IntCounter,
}

impl Publishing {
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self {
            latency: metrics.broker_latency.with_label_values(&["publish"]),
            ok: metrics.broker_published.with_label_values(&["ok"]),
            error: metrics.broker_published.with_label_values(&["error"]),
        }
    }
}

impl Purpose for Publishing {
    type Request = Cmd;
    type Reply = ();
    const WORD: &'static str = "publish";

    async fn exchange(&self, link: &mut Link, batch: &mut [Call<Cmd, ()>]) -> Result<Vec<Outcome<()>>, Lost> {
        let mut pipeline = Pipeline::with_capacity(batch.len());
        for call in batch {
            pipeline.add_command(call.request.take());
        }
        let answers = link.exchange(&pipeline).await?;
        Ok(answers.into_iter().map(|value| writer::outcome(value).map(drop)).collect())
    }

    fn note(&self, _request: &Cmd, took: Duration, ok: bool) {
        self.latency.observe(took.as_secs_f64());
        if ok { &self.ok } else { &self.error }.inc();
    }
}
