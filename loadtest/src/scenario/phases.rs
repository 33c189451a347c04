//! The phases every scenario is made of, in order: ramp, settle, hold, publish, drain; and what is accounted at each turn.
//! Knows workers and processes, no sockets and no report.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use super::{crew::Crew, progress::Line};
use crate::{
    clock,
    control::{Note, Order, Outcome, Published, add},
    figures::{Cost, Figures, Generator},
    histogram::Histogram,
    oracle::Tally,
    plan::Plan,
    process::Usage,
};

/// Time between telling everyone when to start and that moment.
const HEAD_START: u64 = 100 * clock::MILLISECOND;

/// Lengths of the phases that only wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pauses {
    /// Between the ramp and the measuring of memory.
    pub settle: Duration,
    /// Idle, with pings only.
    pub hold: Duration,
}

/// What is told apart before and after a phase.
#[derive(Clone, Copy, Debug, Default)]
struct Phase {
    server: Usage,
    seconds: f64,
}

/// A run in progress.
pub(super) struct Run<'a> {
    /// The load.
    pub(super) plan: &'a Plan,
    /// Lengths of the pauses.
    pub(super) pauses: Pauses,
    /// The server's processes; empty when they are not named.
    pub(super) pids: &'a [u32],
    /// The workers, told the plan.
    pub(super) workers: Crew,
    /// Who publishes in the workers' stead: the floor's server.
    pub(super) publisher: Option<&'a mut Crew>,
    /// The progress line.
    pub(super) line: &'a mut Line,
}

impl Run<'_> {
    /// Goes through all phases.
    ///
    /// # Errors
    /// No connection gets through, a process ends early or cannot be accounted.
    pub(super) fn measure(mut self) -> Result<Figures> {
        let before = Usage::of(self.pids)?;
        let connect_start = clock::now() + HEAD_START;
        let ramp = self.ramp(connect_start)?;
        self.line.phase("settle");
        self.workers.pass(self.pauses.settle, self.line)?;
        let settled = Usage::of(self.pids)? - before;
        let hold = self.hold()?;

        let generator_before = self.usage_of_workers()?;
        let server_before = Usage::of(self.pids)?;
        let (began, publish_start) = (Instant::now(), clock::now() + HEAD_START);
        let published = self.publish(publish_start)?;
        let busy = self.busy(&generator_before, began)?;
        let outcomes = self.drain(&published)?;
        let drained = Phase { server: Usage::of(self.pids)? - server_before, seconds: 0.0 };
        let workers: u64 = self.usage_of_workers()?.iter().zip(&generator_before).map(|(now, then)| now - then).sum();

        let mut sums = Sums::of(outcomes);
        if sums.connected == 0 {
            let reasons: Vec<_> = sums.connect_errors.keys().map(String::as_str).collect();
            bail!("no connection got through: {}", reasons.join("; "));
        }
        let (connected, delivered) = (float(sums.connected), float(sums.tally.delivered));
        let each = |cpu: u64| (sums.tally.delivered > 0).then(|| float(cpu) / delivered);
        let server = (!self.pids.is_empty()).then(|| Cost {
            rss_per_connection: float(settled.rss) / connected,
            cpu_per_connect: float(ramp.server.cpu) / connected,
            cpu_per_idle_second: hold.map(|hold| float(hold.server.cpu) / connected / hold.seconds),
            cpu_per_delivery: each(drained.server.cpu),
        });
        let generator = Generator { cpu_per_delivery: each(workers), lateness: sums.lateness.summary(), ..busy };
        Ok(sums.figures(self.plan, (connect_start, publish_start), published, server, generator))
    }

    fn ramp(&mut self, start: u64) -> Result<Phase> {
        self.line.phase("connect");
        let before = Usage::of(self.pids)?;
        self.workers.tell(&Order::Connect { start })?;
        self.workers.gather(self.line, |note| matches!(note, Note::Connected).then_some(()))?;
        Ok(Phase { server: Usage::of(self.pids)? - before, seconds: 0.0 })
    }

    fn hold(&mut self) -> Result<Option<Phase>> {
        if self.pauses.hold.is_zero() {
            return Ok(None);
        }
        self.line.phase("hold");
        let (began, before) = (Instant::now(), Usage::of(self.pids)?);
        self.workers.pass(self.pauses.hold, self.line)?;
        Ok(Some(Phase { server: Usage::of(self.pids)? - before, seconds: began.elapsed().as_secs_f64() }))
    }

    fn publish(&mut self, start: u64) -> Result<Published> {
        if self.plan.publishing(start).is_empty() || (self.plan.publishers == 0 && self.publisher.is_none()) {
            return Ok(Published::default());
        }
        self.line.phase("publish");
        let take = |note| match note {
            Note::Published(published) => Some(published),
            _ => None,
        };
        let parts = if let Some(publisher) = &mut self.publisher {
            publisher.tell(&Order::Publish { start })?;
            self.workers.pass(self.plan.duration, self.line)?;
            publisher.gather(self.line, take)?
        } else {
            self.workers.tell(&Order::Publish { start })?;
            self.workers.gather(self.line, take)?
        };
        let mut whole = Published::default();
        for part in parts {
            whole.merge(part);
        }
        Ok(whole)
    }

    fn drain(&mut self, published: &Published) -> Result<Vec<Outcome>> {
        self.line.phase("drain");
        self.workers.tell(&Order::Drain { published: published.clone() })?;
        self.workers.gather(self.line, |note| match note {
            Note::Done(outcome) => Some(*outcome),
            _ => None,
        })
    }

    fn usage_of_workers(&self) -> Result<Vec<u64>> {
        self.workers.pids().into_iter().map(|pid| Ok(Usage::of(&[pid])?.cpu)).collect()
    }

    /// Shares of a core and of the machine that the workers used since `began`.
    fn busy(&self, before: &[u64], began: Instant) -> Result<Generator> {
        let time = float(clock::nanos(began.elapsed())).max(1.0);
        let shares = self.usage_of_workers()?.into_iter().zip(before).map(|(now, then)| float(now - then) / time);
        let shares: Vec<f64> = shares.collect();
        let cores = thread::available_parallelism().map_or(1.0, |cores| float(cores.get() as u64));
        Ok(Generator {
            busiest: shares.iter().copied().fold(0.0, f64::max),
            machine: shares.iter().sum::<f64>() / cores,
            ..Generator::default()
        })
    }
}

/// What all workers measured.
#[derive(Default)]
struct Sums {
    connected: u64,
    connect_errors: std::collections::BTreeMap<String, u64>,
    disconnects: std::collections::BTreeMap<String, u64>,
    tally: Tally,
    connect: Histogram,
    delivery: Histogram,
    publish: Histogram,
    lateness: Histogram,
    joined_at: u64,
    last_arrival: u64,
}

impl Sums {
    fn of(outcomes: Vec<Outcome>) -> Self {
        let mut sums = Self::default();
        for outcome in outcomes {
            sums.connected += outcome.connected;
            add(&mut sums.connect_errors, outcome.connect_errors);
            add(&mut sums.disconnects, outcome.disconnects);
            sums.tally.merge(&outcome.tally);
            sums.connect.merge(&outcome.connect);
            sums.delivery.merge(&outcome.delivery);
            sums.publish.merge(&outcome.publish);
            sums.lateness.merge(&outcome.lateness);
            sums.joined_at = sums.joined_at.max(outcome.joined_at);
            sums.last_arrival = sums.last_arrival.max(outcome.last_arrival);
        }
        sums
    }

    fn figures(
        &mut self,
        plan: &Plan,
        (connect_start, publish_start): (u64, u64),
        published: Published,
        server: Option<Cost>,
        generator: Generator,
    ) -> Figures {
        let end = publish_start + clock::nanos(plan.duration);
        let total = published.total();
        let any = |count: u64, rate: f64| if count == 0 { 0.0 } else { rate };
        Figures {
            connected: self.connected,
            connect_errors: std::mem::take(&mut self.connect_errors),
            disconnects: std::mem::take(&mut self.disconnects),
            connect_rate: per_second(self.connected, connect_start, self.joined_at),
            connect: self.connect.summary(),
            published: total,
            publish_rate: any(total, per_second(total, publish_start, published.last.max(end))),
            publish_errors: published.errors,
            unanswered: published.unanswered,
            unsent: published.unsent,
            publish: self.publish.summary(),
            deliveries: self.tally,
            delivery_rate: any(total, per_second(self.tally.delivered, publish_start, self.last_arrival.max(end))),
            delivery: self.delivery.summary(),
            server,
            generator,
        }
    }
}

fn per_second(count: u64, from: u64, to: u64) -> f64 {
    float(count) * float(clock::SECOND) / float(to.saturating_sub(from).max(1))
}

#[expect(clippy::cast_precision_loss, reason = "counts and times of a run stay far below 2^53")]
fn float(number: u64) -> f64 {
    number as f64
}
