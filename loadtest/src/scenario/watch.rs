//! Who looks on while a run goes on: keeps the line for people going, takes a sample every second, hands it to whoever
//! asks over HTTP, and runs the commands of `--at`. Knows notes of workers and accounts of processes, no orders.

use std::{
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::{live::Live, progress::Line};
use crate::{
    control::Progress,
    figures::{Event, Sample},
    histogram::{Histogram, Sparse},
    process::{Accounts, Source, Usage},
};

/// Time between two samples.
const SAMPLE: Duration = Duration::from_secs(1);

/// A command to be run in the midst of publishing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At {
    /// When, after publishing began.
    pub after: Duration,
    /// What the shell is given.
    pub command: String,
}

/// The onlooker.
pub(super) struct Watch {
    line: Line,
    began: Instant,
    phase: String,
    /// Processes of the server.
    pub(super) accounts: Accounts,
    workers: Accounts,
    progress: Vec<Progress>,
    latency: Histogram,
    before: Before,
    series: Vec<Sample>,
    events: Vec<Event>,
    publishing: Option<Instant>,
    at: Vec<At>,
    live: Option<Arc<Live>>,
}

/// What the next sample is compared with.
struct Before {
    moment: Instant,
    sums: Progress,
    server: u64,
    workers: u64,
}

impl Watch {
    /// Of a run that is called `name`, with the commands to run meanwhile.
    pub(super) fn new(name: &str, accounts: Accounts, mut at: Vec<At>, live: Option<Arc<Live>>) -> Self {
        let now = Instant::now();
        at.sort_by_key(|one| std::cmp::Reverse(one.after));
        Self {
            line: Line::new(name),
            began: now,
            phase: String::new(),
            accounts,
            workers: Accounts::default(),
            progress: Vec::new(),
            latency: Histogram::default(),
            before: Before { moment: now, sums: Progress::default(), server: 0, workers: 0 },
            series: Vec::new(),
            events: Vec::new(),
            publishing: None,
            at,
            live,
        }
    }

    /// These are the workers.
    ///
    /// # Errors
    /// One is gone.
    pub(super) fn workers(&mut self, pids: &[u32]) -> anyhow::Result<()> {
        self.workers = Accounts::open(&pids.iter().map(|&pid| Source::Pid(pid)).collect::<Vec<_>>())?;
        self.progress = vec![Progress::default(); pids.len()];
        (self.before.server, self.before.workers) = (self.accounts.glance().cpu, self.workers.glance().cpu);
        Ok(())
    }

    /// A new phase begins.
    pub(super) fn phase(&mut self, phase: &str) {
        phase.clone_into(&mut self.phase);
        self.event(phase.to_owned());
        self.line.phase(phase);
        if phase == super::phases::PUBLISH {
            self.publishing = Some(Instant::now());
        }
    }

    /// Takes what one worker tells.
    pub(super) fn take(&mut self, worker: usize, sums: Progress, latency: Option<Sparse>) {
        if let Some(progress) = self.progress.get_mut(worker) {
            *progress = sums;
        }
        if let Some(latency) = latency {
            self.latency.merge(&latency);
        }
        self.line.show(self.sums());
        self.run_commands();
        if self.before.moment.elapsed() >= SAMPLE {
            self.sample();
        }
    }

    /// What was seen.
    pub(super) fn seen(self) -> (Vec<Sample>, Vec<Event>) {
        (self.series, self.events)
    }

    /// Memory of the workers, bytes.
    pub(super) fn workers_rss(&mut self) -> u64 {
        self.workers.usage().rss
    }

    fn sums(&self) -> Progress {
        self.progress.iter().fold(Progress::default(), |sum, one| Progress {
            connected: sum.connected + one.connected,
            failed: sum.failed + one.failed,
            published: sum.published + one.published,
            delivered: sum.delivered + one.delivered,
        })
    }

    fn sample(&mut self) {
        let (now, sums) = (Instant::now(), self.sums());
        let (server, workers) = (self.accounts.glance(), self.workers.glance());
        let seconds = now.duration_since(self.before.moment).as_secs_f64();
        let rate = |now: u64, then: u64| float(now.saturating_sub(then)) / seconds;
        let known = |usage: Usage| (!self.accounts.is_empty()).then_some(usage);
        let times = Some(std::mem::take(&mut self.latency).summary()).filter(|times| times.count > 0);
        let sample = Sample {
            at: now.duration_since(self.began).as_secs_f64(),
            phase: self.phase.clone(),
            connected: sums.connected,
            publish_rate: rate(sums.published, self.before.sums.published),
            delivery_rate: rate(sums.delivered, self.before.sums.delivered),
            server_cores: known(server).map(|usage| rate(usage.cpu, self.before.server) / 1e9),
            server_rss: known(server).map(|usage| usage.rss),
            generator_cores: rate(workers.cpu, self.before.workers) / 1e9,
            p50: times.map(|times| times.p50),
            p99: times.map(|times| times.p99),
            p999: times.map(|times| times.p999),
        };
        self.before = Before { moment: now, sums, server: server.cpu, workers: workers.cpu };
        if let Some(live) = &self.live {
            live.show(&sample, &sums);
        }
        self.series.push(sample);
    }

    fn event(&mut self, what: String) {
        let at_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.events.push(Event { at_ms, what });
    }

    fn run_commands(&mut self) {
        let Some(since) = self.publishing.map(|began| began.elapsed()) else { return };
        while let Some(at) = self.at.pop_if(|at| at.after <= since) {
            // What it prints must not get among the report, which has standard output for itself.
            let started = Command::new("sh").args(["-c", &at.command]).stdout(Stdio::null()).spawn();
            self.event(match &started {
                Ok(_) => at.command,
                Err(error) => format!("cannot run {}: {error}", at.command),
            });
            // Waited for beside the run, so that it does not stay as a zombie.
            drop(started.map(|mut child| thread::spawn(move || child.wait())));
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of a second stay far below 2^53")]
fn float(number: u64) -> f64 {
    number as f64
}
