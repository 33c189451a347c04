//! What a person sees while a run goes on: one line that changes on a terminal, a plain line now and then elsewhere.
//! Written to standard error, so that standard output is the report's alone.

use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

use indicatif::ProgressBar;

use crate::{control::Progress, units::show_count};

/// Time between two plain lines.
const PLAIN: Duration = Duration::from_secs(5);

/// The line.
pub(super) struct Line {
    bar: Option<ProgressBar>,
    name: String,
    phase: String,
    shown: Instant,
    before: (Instant, u64),
}

impl Line {
    /// Of a run that is called `name`.
    pub(super) fn new(name: &str) -> Self {
        let bar = io::stderr().is_terminal().then(ProgressBar::new_spinner);
        let now = Instant::now();
        Self { bar, name: name.to_owned(), phase: String::new(), shown: now, before: (now, 0) }
    }

    /// A new phase begins.
    pub(super) fn phase(&mut self, phase: &str) {
        phase.clone_into(&mut self.phase);
        self.write("");
    }

    /// Takes the sums of all workers.
    pub(super) fn show(&mut self, sums: Progress) {
        let pause = if self.bar.is_some() { Duration::from_millis(200) } else { PLAIN };
        if self.shown.elapsed() < pause {
            return;
        }
        let Progress { connected, failed, published, delivered } = sums;
        let (now, (then, before)) = (Instant::now(), self.before);
        let seconds = now.duration_since(then).as_secs_f64().max(0.001);
        #[expect(clippy::cast_precision_loss, reason = "shown to people")]
        let rate = delivered.saturating_sub(before) as f64 / seconds;
        self.before = (now, delivered);
        let failed = if failed == 0 { String::new() } else { format!(", {failed} failed") };
        let rate = show_count(rate.round());
        self.write(&format!(" {connected} connected{failed}, {published} published, {delivered} delivered ({rate}/s)"));
    }

    fn write(&mut self, sums: &str) {
        self.shown = Instant::now();
        let text = format!("{} {}:{sums}", self.name, self.phase);
        match &self.bar {
            Some(bar) => {
                bar.set_message(text);
                bar.tick();
            }
            // Nobody reads a closed standard error.
            None if !sums.is_empty() => drop(writeln!(io::stderr(), "{text}")),
            None => {}
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
