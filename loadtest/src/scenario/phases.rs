//! The phases every scenario is made of, in order: ramp, settle, hold, publish, drain; and what is accounted at each turn.
//! Knows workers and processes, no sockets and no report.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use super::{
    crew::Crew,
    sums::{Sums, float},
    watch::Watch,
};
use crate::{
    clock,
    control::{Note, Order, Outcome, Published},
    figures::{Cost, Figures, Generator, Memory},
    plan::Plan,
    process::{Machine, Usage},
};

/// The phase in which is published.
pub(super) const PUBLISH: &str = "publish";

/// Time between telling everyone when to start and that moment.
const HEAD_START: u64 = 100 * clock::MILLISECOND;

/// Lengths of the phases that only wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
    /// The workers, told the plan.
    pub(super) workers: Crew,
    /// Who publishes in the workers' stead: the floor's server.
    pub(super) publisher: Option<&'a mut Crew>,
    /// Who looks on, and accounts the server.
    pub(super) watch: Watch,
}

impl Run<'_> {
    /// Goes through all phases.
    ///
    /// # Errors
    /// No connection gets through, or a worker ends early.
    pub(super) fn measure(mut self) -> Result<Figures> {
        let (before, machine_before) = (self.watch.accounts.usage(), Machine::now()?);
        let generator_rss = self.watch.workers_rss();
        let connect_start = clock::now() + HEAD_START;
        let ramp = self.ramp(connect_start)?;
        self.watch.phase("settle");
        self.workers.pass(self.pauses.settle, &mut self.watch)?;
        let settled = self.watch.accounts.usage() - before;
        let (machine, generator_rss) = (Machine::now()?, self.watch.workers_rss().saturating_sub(generator_rss));
        let hold = self.hold()?;

        let generator_before = self.usage_of_workers()?;
        let server_before = self.watch.accounts.usage();
        let (began, publish_start) = (Instant::now(), clock::now() + HEAD_START);
        let published = self.publish(publish_start)?;
        let busy = self.busy(&generator_before, began)?;
        let outcomes = self.drain(&published)?;
        let drained = self.watch.accounts.usage() - server_before;
        let workers: u64 = self.usage_of_workers()?.iter().zip(&generator_before).map(|(now, then)| now - then).sum();

        let sums = Sums::of(outcomes);
        if sums.connected == 0 {
            let reasons: Vec<_> = sums.connect_errors.keys().map(String::as_str).collect();
            bail!("no connection got through: {}", reasons.join("; "));
        }
        let each = |cpu: u64| (sums.tally.delivered > 0).then(|| float(cpu) / float(sums.tally.delivered));
        let per_connection = |bytes: u64| float(bytes) / float(sums.connected);
        let server = (!self.watch.accounts.is_empty()).then(|| Cost {
            rss_per_connection: per_connection(settled.rss),
            cpu_per_connect: per_connection(ramp.server.cpu),
            cpu_per_idle_second: hold.map(|hold| per_connection(hold.server.cpu) / hold.seconds),
            cpu_per_delivery: each(drained.cpu),
        });
        let machine = Memory {
            all_per_connection: per_connection(machine_before.available.saturating_sub(machine.available)),
            kernel_per_connection: per_connection(machine.slab.saturating_sub(machine_before.slab)),
            generator_per_connection: per_connection(generator_rss),
        };
        let generator = Generator { cpu_per_delivery: each(workers), lateness: sums.lateness.summary(), ..busy };
        let gone = self.watch.accounts.gone();
        let figures = sums.figures(self.plan, (connect_start, publish_start), published);
        let (series, events) = self.watch.seen();
        Ok(Figures { server, machine: Some(machine), generator, gone, series, events, ..figures })
    }

    fn ramp(&mut self, start: u64) -> Result<Phase> {
        self.watch.phase("connect");
        let before = self.watch.accounts.usage();
        self.workers.tell(&Order::Connect { start })?;
        self.workers.gather(&mut self.watch, |note| matches!(note, Note::Connected).then_some(()))?;
        Ok(Phase { server: self.watch.accounts.usage() - before, seconds: 0.0 })
    }

    fn hold(&mut self) -> Result<Option<Phase>> {
        if self.pauses.hold.is_zero() {
            return Ok(None);
        }
        self.watch.phase("hold");
        let (began, before) = (Instant::now(), self.watch.accounts.usage());
        self.workers.pass(self.pauses.hold, &mut self.watch)?;
        let server = self.watch.accounts.usage() - before;
        Ok(Some(Phase { server, seconds: began.elapsed().as_secs_f64() }))
    }

    fn publish(&mut self, start: u64) -> Result<Published> {
        let silent = self.plan.publishing(start).is_empty() || (self.plan.publishers == 0 && self.publisher.is_none());
        if silent && !self.plan.turmoil.is_busy() {
            return Ok(Published::default());
        }
        self.watch.phase(PUBLISH);
        let take = |note| match note {
            Note::Published(published) => Some(published),
            _ => None,
        };
        let parts = if let Some(publisher) = &mut self.publisher {
            publisher.tell(&Order::Publish { start })?;
            self.workers.pass(self.plan.duration, &mut self.watch)?;
            publisher.gather(&mut self.watch, take)?
        } else {
            self.workers.tell(&Order::Publish { start })?;
            self.workers.gather(&mut self.watch, take)?
        };
        let mut whole = Published::default();
        for part in parts {
            whole.merge(part);
        }
        Ok(whole)
    }

    fn drain(&mut self, published: &Published) -> Result<Vec<Outcome>> {
        self.watch.phase("drain");
        self.workers.tell(&Order::Drain { published: published.clone() })?;
        self.workers.gather(&mut self.watch, |note| match note {
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
