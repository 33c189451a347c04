//! One address of the backend: one question after the other goes there, not too many at a time, and the answer is read as
//! far as it may be long. Knows HTTP; what is asked and answered is not its matter.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderMap, StatusCode};
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec};
use reqwest::{Client, Response};
use serde::de::DeserializeOwned;
use tokio::{sync::Semaphore, time::timeout};

use super::{
    Kind, Refusal,
    answer::{self, Said},
    breaker::{Breaker, Pass},
    complaints::Complaints,
    outcome::{Fault, Outcome},
};
use crate::{
    config::{self, HookUrl, StatusAnswer, StatusTransform},
    metrics::Metrics,
};

/// What all addresses have in common.
pub(super) struct Shared {
    client: Client,
    transforms: Vec<StatusTransform>,
    max_answer_size: usize,
    concurrency: usize,
    breaker: (u32, Duration),
    requests: IntCounterVec,
    duration: HistogramVec,
    breaker_open: IntGaugeVec,
}

impl Shared {
    pub(super) fn new(hooks: &config::Hooks, client: Client, metrics: &Metrics) -> Self {
        Self {
            client,
            transforms: hooks.status_transforms.clone(),
            max_answer_size: hooks.max_answer_size,
            concurrency: hooks.concurrency as usize,
            breaker: (hooks.breaker_failures, hooks.breaker_pause),
            requests: metrics.hook_requests.clone(),
            duration: metrics.hook_duration.clone(),
            breaker_open: metrics.hook_breaker_open.clone(),
        }
    }
}

pub(super) struct Endpoint {
    kind: Kind,
    url: HookUrl,
    timeout: Duration,
    shared: Arc<Shared>,
    turns: Semaphore,
    breaker: Breaker,
    complaints: Complaints,
    /// By [`Outcome`].
    counts: [IntCounter; Outcome::NAMES.len()],
    duration: Histogram,
}

/// What the backend answered before anybody has read it.
enum Heard {
    Body(Vec<u8>),
    /// A status that means something by itself.
    Status(Refusal),
}

impl Endpoint {
    pub(super) fn new(kind: Kind, url: HookUrl, timeout: Duration, shared: Arc<Shared>) -> Self {
        let hook = kind.as_str();
        let (failures, pause) = shared.breaker;
        Self {
            kind,
            url,
            timeout,
            turns: Semaphore::new(shared.concurrency.min(Semaphore::MAX_PERMITS)),
            breaker: Breaker::new(failures, pause, shared.breaker_open.with_label_values(&[hook])),
            complaints: Complaints::default(),
            counts: Outcome::NAMES.map(|name| shared.requests.with_label_values(&[hook, name])),
            duration: shared.duration.with_label_values(&[hook]),
            shared,
        }
    }

    /// Asks, and gives what the backend's `result` says; nothing where it has none.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        headers: HeaderMap,
        body: Vec<u8>,
    ) -> Result<Option<T>, Refusal> {
        let said = match self.exchange(headers, body).await {
            Ok(Heard::Body(body)) => answer::read(&body),
            Ok(Heard::Status(refusal)) => Ok(Said::Refusal(refusal)),
            Err(fault) => Err(fault),
        };
        let (outcome, result) = match said {
            Ok(Said::Result(result)) => (Outcome::Ok, Ok(result)),
            Ok(Said::Refusal(refusal @ Refusal::Disconnect(_))) => (Outcome::Disconnect, Err(refusal)),
            Ok(Said::Refusal(refusal)) => (Outcome::Error, Err(refusal)),
            Err(fault) => {
                self.complain(&fault);
                (fault.outcome(), Err(Refusal::Unavailable))
            }
        };
        self.counts[outcome as usize].inc();
        result
    }

    /// Waits for a turn, then for the answer; each no longer than the timeout. Who gets a turn has the whole of it, or in a
    /// rush everybody would get theirs too late.
    async fn exchange(&self, headers: HeaderMap, body: Vec<u8>) -> Result<Heard, Fault> {
        if self.breaker.refuses(Instant::now()) {
            return Err(Fault::Open);
        }
        let turn = timeout(self.timeout, self.turns.acquire()).await.map_err(|_| Fault::Busy)?;
        let _turn = turn.expect("it is never closed");
        let begun = Instant::now();
        let pass = self.breaker.admit(begun).ok_or(Fault::Open)?;
        let heard = timeout(self.timeout, self.post(headers, body)).await.unwrap_or(Err(Fault::Timeout));
        self.duration.observe(begun.elapsed().as_secs_f64());
        self.learn(pass, heard.as_ref().err());
        heard
    }

    fn learn(&self, pass: Pass<'_>, fault: Option<&Fault>) {
        if fault.is_some_and(Fault::is_failure) {
            if pass.failed(Instant::now()) {
                let pause = self.shared.breaker.1.as_secs_f64();
                tracing::warn!(hook = self.kind.as_str(), url = %self.url, pause, "the backend keeps failing: left alone");
            }
        } else if pass.succeeded() {
            tracing::info!(hook = self.kind.as_str(), url = %self.url, "the backend answers again");
        }
    }

    async fn post(&self, headers: HeaderMap, body: Vec<u8>) -> Result<Heard, Fault> {
        let request = self.shared.client.post(self.url.reveal().clone()).headers(headers).body(body);
        let response = request.send().await.map_err(Fault::unreachable)?;
        match response.status() {
            StatusCode::OK => self.body(response).await.map(Heard::Body),
            status => self.transform(status).map(Heard::Status).ok_or(Fault::Status(status)),
        }
    }

    async fn body(&self, mut response: Response) -> Result<Vec<u8>, Fault> {
        let limit = self.shared.max_answer_size;
        let announced = response.content_length().unwrap_or(0);
        if announced > limit as u64 {
            return Err(Fault::TooLong(limit));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(Fault::unreachable)? {
            if body.len() + chunk.len() > limit {
                return Err(Fault::TooLong(limit));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn transform(&self, status: StatusCode) -> Option<Refusal> {
        let found = self.shared.transforms.iter().find(|transform| transform.status == status.as_u16())?;
        Some(match &found.answer {
            StatusAnswer::Error(error) => Refusal::Error(error.clone()),
            StatusAnswer::Disconnect(disconnect) => Refusal::Disconnect(disconnect.clone()),
        })
    }

    fn complain(&self, fault: &Fault) {
        // That the address is left alone was said when it began.
        if matches!(fault, Fault::Open) {
            return;
        }
        if let Some(held_back) = self.complaints.next(Instant::now()) {
            tracing::warn!(hook = self.kind.as_str(), url = %self.url, held_back, "the backend gave no answer: {fault}");
        }
    }
}
