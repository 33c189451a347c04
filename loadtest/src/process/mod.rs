//! What processes cost: processor time and resident memory, from `/proc` or from what they tell of themselves; and what
//! the machine has left. Knows no roles of processes.

mod accounts;
mod memory;
mod metrics;

use std::{
    fs,
    ops::{Add, Sub},
};

use anyhow::{Context, Result, anyhow};

pub use self::{
    accounts::{Accounts, Source},
    memory::Machine,
};
use crate::clock::SECOND;

/// Sums over some processes at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time used so far, user and system, nanoseconds. The kernel tells it in steps of 10 ms.
    pub cpu: u64,
    /// Resident memory, bytes.
    pub rss: u64,
}

impl Usage {
    /// Of all these processes together.
    ///
    /// # Errors
    /// One of them is gone or may not be looked at.
    pub fn of(pids: &[u32]) -> Result<Self> {
        let mut sum = Self::default();
        for &pid in pids {
            let one = Self::of_one(pid).with_context(|| format!("cannot account process {pid}; is it running?"))?;
            sum = sum + one;
        }
        Ok(sum)
    }

    /// Of one process, memory to the page of each thread: cheap enough to be asked for every second.
    fn roughly(pid: u32) -> Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let (cpu, pages) = cpu_ticks(&stat).zip(resident_pages(&stat)).context("its stat is malformed")?;
        let cpu = cpu * SECOND / rustix::param::clock_ticks_per_second();
        Ok(Self { cpu, rss: pages * rustix::param::page_size() as u64 })
    }

    fn of_one(pid: u32) -> Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let ticks = cpu_ticks(&stat).ok_or_else(|| anyhow!("/proc/{pid}/stat is malformed"))?;
        // The roll-up is exact; the status of a process lags behind by some pages per thread.
        let exact = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok();
        let exact = exact.and_then(|text| kilobytes(&text, "Rss:"));
        let rss = match exact {
            Some(rss) => Some(rss),
            None => kilobytes(&fs::read_to_string(format!("/proc/{pid}/status"))?, "VmRSS:"),
        };
        let rss = rss.ok_or_else(|| anyhow!("/proc/{pid}/status does not tell its memory"))?;
        Ok(Self { cpu: ticks * SECOND / rustix::param::clock_ticks_per_second(), rss })
    }
}

impl Add for Usage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { cpu: self.cpu + other.cpu, rss: self.rss + other.rss }
    }
}

impl Sub for Usage {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self { cpu: self.cpu.saturating_sub(before.cpu), rss: self.rss.saturating_sub(before.rss) }
    }
}

/// User and system time of a `stat` line. The name in parentheses may itself hold spaces and parentheses.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// Resident pages of a `stat` line: field 24, of which the third is the first behind the name.
fn resident_pages(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(21)?.parse().ok()
}

fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_behind_the_name() {
        let stat = "12 (a) b (c) S 1 12 12 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 1 0 5 10000 100";
        assert_eq!((cpu_ticks(stat), resident_pages(stat)), (Some(300), Some(100)));
        assert_eq!(cpu_ticks("12 (a) S 1"), None);
    }

    #[test]
    fn this_process_costs_something() {
        let before = Usage::of(&[std::process::id()]).expect("it runs");
        let memory = vec![1u8; 32 << 20];
        let after = Usage::of(&[std::process::id()]).expect("it runs");
        assert!((after - before).rss >= 30 << 20, "{before:?} {after:?} {}", memory.len());
    }

    #[test]
    fn a_process_that_is_gone_is_named() {
        let error = Usage::of(&[u32::MAX]).expect_err("no such process");
        assert!(format!("{error:#}").contains("process 4294967295; is it running?"), "{error:#}");
    }
}
