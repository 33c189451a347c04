//! Processes of this very program that work for the coordinator: started, told, heard, and ended with it. Knows orders and
//! notes, not what a run is made of.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::watch::Watch;
use crate::control::{Note, Order};

/// How long a process may take to end once its input is closed.
const PATIENCE: Duration = Duration::from_secs(5);

/// Some processes of one kind.
pub(super) struct Crew {
    members: Vec<Member>,
    notes: Receiver<(usize, Option<Note>)>,
}

struct Member {
    child: Child,
    /// `None` once it is told to end.
    orders: Option<ChildStdin>,
}

impl Crew {
    /// Starts `count` processes of this program with the hidden subcommand `kind`.
    ///
    /// # Errors
    /// The system does not start them.
    pub(super) fn start(kind: &str, count: u32) -> Result<Self> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let (sender, notes) = mpsc::channel();
        let mut members = Vec::new();
        for index in 0..count as usize {
            let mut command = Command::new(&program);
            let command = command.arg(kind).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = command.spawn().context("cannot start a worker process")?;
            let (orders, output) = (child.stdin.take(), child.stdout.take());
            members.push(Member { child, orders });
            let (output, sender) = (output.context("a worker without output")?, sender.clone());
            // Not joined: it ends with the process it listens to.
            thread::spawn(move || listen(index, output, &sender));
        }
        Ok(Self { members, notes })
    }

    /// Process ids.
    pub(super) fn pids(&self) -> Vec<u32> {
        self.members.iter().map(|member| member.child.id()).collect()
    }

    /// Tells everyone.
    ///
    /// # Errors
    /// One of them is gone.
    pub(super) fn tell(&mut self, order: &Order) -> Result<()> {
        (0..self.members.len()).try_for_each(|index| self.tell_one(index, order))
    }

    /// Tells one of them.
    ///
    /// # Errors
    /// It is gone.
    pub(super) fn tell_one(&mut self, index: usize, order: &Order) -> Result<()> {
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        let Some(orders) = &mut self.members[index].orders else { bail!("worker {index} was told to end") };
        orders.write_all(&line).with_context(|| format!("worker {index} ended early"))
    }

    /// Waits until each has told a note that `pick` takes.
    ///
    /// # Errors
    /// One of them gives up or is gone.
    pub(super) fn gather<T>(&mut self, watch: &mut Watch, mut pick: impl FnMut(Note) -> Option<T>) -> Result<Vec<T>> {
        let mut picked = Vec::new();
        while picked.len() < self.members.len() {
            if let Some(note) = self.hear(None, watch)? {
                picked.extend(pick(note));
            }
        }
        Ok(picked)
    }

    /// Lets time pass, keeping the onlooker going.
    ///
    /// # Errors
    /// As [`gather`](Self::gather).
    pub(super) fn pass(&mut self, time: Duration, watch: &mut Watch) -> Result<()> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.hear(Some(until), watch)?;
        }
        Ok(())
    }

    /// The next note that is not about progress; `None` at the deadline.
    fn hear(&mut self, until: Option<Instant>, watch: &mut Watch) -> Result<Option<Note>> {
        let left = until.map_or(Duration::MAX, |until| until.saturating_duration_since(Instant::now()));
        match self.notes.recv_timeout(left.min(Duration::from_hours(1))) {
            Ok((index, Some(Note::Progress { sums, latency }))) => {
                watch.take(index, sums, latency);
                Ok(None)
            }
            Ok((index, Some(Note::Failed { reason }))) => bail!("worker {index} gave up: {reason}"),
            Ok((_, Some(note))) => Ok(Some(note)),
            Ok((index, None)) => bail!("worker {index} ended early"),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => bail!("all workers ended early"),
        }
    }
}

impl Drop for Crew {
    /// Closes their inputs, which ends them, and waits; kills whoever does not end.
    fn drop(&mut self) {
        for member in &mut self.members {
            member.orders = None;
        }
        let until = Instant::now() + PATIENCE;
        for Member { child, .. } in &mut self.members {
            while matches!(child.try_wait(), Ok(None)) && Instant::now() < until {
                thread::sleep(Duration::from_millis(2));
            }
            // Both fail only for a process that has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn listen(index: usize, output: ChildStdout, notes: &Sender<(usize, Option<Note>)>) {
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        let note = serde_json::from_str(&line).unwrap_or_else(|error| Note::Failed { reason: error.to_string() });
        if notes.send((index, Some(note))).is_err() {
            return;
        }
    }
    // Whoever listened is gone too when this fails.
    let _ = notes.send((index, None));
}
