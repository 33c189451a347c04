//! How near the process is to the memory it may take, and what that means: first nobody new is let in, then what may wait for
//! slow clients shrinks. One for the whole process, as its memory is. Knows neither clients nor queues.

use std::{
    sync::atomic::{AtomicU8, Ordering},
    time::Duration,
};

use memory_stats::memory_stats;
use prometheus::IntGauge;
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// How often it is looked at where half of the limit is taken. What can be allocated meanwhile has to fit above the last mark.
const LOOK: Duration = Duration::from_millis(100);

/// The longest time between two looks: nothing else wakes an idle node as often.
const FAR: Duration = Duration::from_secs(5);

/// The least time while less than a quarter of the limit is taken, so that an idle node sleeps under a small limit as well.
const IDLE: Duration = Duration::from_secs(1);

/// Bytes that may be taken in a second at the most, by far: so long it takes until half of the limit is. From less than a
/// quarter a small node may come further within [`IDLE`], which is what its sleep costs.
const FASTEST: u64 = 1 << 30;

/// The part of a queue's bound that is left where memory is short.
const LEFT: usize = 8;

static LEVEL: AtomicU8 = AtomicU8::new(Level::Calm as u8);

/// How near the process is to its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// There is enough.
    Calm,
    /// Nobody new is let in.
    Full,
    /// Besides, less may wait for those who read slowly.
    Short,
}

/// How near it is now.
pub fn level() -> Level {
    match LEVEL.load(Ordering::Relaxed) {
        0 => Level::Calm,
        1 => Level::Full,
        _ => Level::Short,
    }
}

/// What may wait for a client that is allowed `limit` bytes as long as there is enough.
pub fn queue_limit(limit: usize) -> usize {
    if level() == Level::Short { limit / LEFT } else { limit }
}

/// What is shown of it.
pub struct Gauges {
    /// Bytes the process may take.
    pub limit: IntGauge,
    /// 1 while nobody new is let in.
    pub shedding: IntGauge,
}

/// Looks again and again how much the process takes, until `stop`. `limit` in bytes; 0 for that of its control group, or of the
/// machine.
pub async fn watch(limit: usize, gauges: Gauges, stop: CancellationToken) {
    let Some(limit) = bound(limit) else {
        tracing::warn!("how much memory there is cannot be found out here: new clients are let in whatever is left");
        return;
    };
    gauges.limit.set(i64::try_from(limit).unwrap_or(i64::MAX));
    let mut pause = Duration::ZERO;
    while stop.run_until_cancelled(sleep(pause)).await.is_some() {
        pause = LOOK;
        let Some(used) = resident() else { continue };
        pause = pause_at(used, limit);
        let (before, now) = (level(), next(level(), used, limit));
        LEVEL.store(now as u8, Ordering::Relaxed);
        gauges.shedding.set(i64::from(now > Level::Calm));
        say(before, now, used, limit);
    }
}

/// What the process may take, if that and what it takes are found.
fn bound(limit: usize) -> Option<u64> {
    resident()?;
    if limit > 0 {
        return Some(limit as u64);
    }
    let mut system = System::new().ok()?;
    system.refresh_memory();
    let (pid, kind) = (Pid::from_u32(std::process::id()), ProcessRefreshKind::nothing().without_tasks());
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), false, kind);
    let group = system.process(pid).and_then(sysinfo::Process::cgroup_limits);
    let all = group.map_or(system.total_memory(), |group| group.total_memory.min(system.total_memory()));
    (all > 0).then_some(all)
}

/// Bytes the process takes. The system is asked for this alone: to find whatever else is known of a process costs several
/// times as much.
fn resident() -> Option<u64> {
    memory_stats().map(|found| found.physical_mem as u64)
}

/// How long until the next look.
fn pause_at(used: u64, limit: u64) -> Duration {
    let least = if used < limit / 4 { IDLE } else { LOOK };
    let spare = (limit / 2).saturating_sub(used);
    #[expect(clippy::cast_precision_loss)]
    let seconds = spare as f64 / FASTEST as f64;
    // Bounded before it is a duration, so that no limit is too large for one.
    Duration::from_secs_f64(seconds.min(FAR.as_secs_f64())).max(least)
}

/// Each level begins at a mark and ends five parts in a hundred below it, so that it does not come and go.
fn next(level: Level, used: u64, limit: u64) -> Level {
    match used.saturating_mul(100) / limit {
        95.. => Level::Short,
        90..95 => level.max(Level::Full),
        85..90 => level.min(Level::Full),
        _ => Level::Calm,
    }
}

fn say(before: Level, now: Level, used: u64, limit: u64) {
    let (used, limit) = (used >> 20, limit >> 20);
    match (before, now) {
        (Level::Calm, Level::Full | Level::Short) => {
            tracing::warn!("{used} of {limit} MB of memory are taken (memory.limit): no new client is let in");
        }
        (Level::Full, Level::Short) => {
            tracing::warn!("{used} of {limit} MB of memory are taken: less may wait for clients that read slowly");
        }
        (Level::Full | Level::Short, Level::Calm) => {
            tracing::info!("{used} of {limit} MB of memory are taken: new clients are let in again");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_begin_at_their_marks_and_end_below_them() {
        let steps = [
            (0, Level::Calm),
            (89, Level::Calm),
            (90, Level::Full),
            (86, Level::Full),
            (94, Level::Full),
            (95, Level::Short),
            (91, Level::Short),
            (89, Level::Full),
            (91, Level::Full),
            (84, Level::Calm),
            (200, Level::Short),
            (10, Level::Calm),
        ];
        let mut level = Level::Calm;
        for (used, expected) in steps {
            level = next(level, used, 100);
            assert_eq!(level, expected, "at {used}");
        }
    }

    #[test]
    fn looks_are_rare_where_much_is_left() {
        const MB: u64 = 1 << 20;
        let cases = [
            // An idle node under a small limit sleeps.
            (10 * MB, 64 * MB, 1000),
            (255 * MB, 1024 * MB, 1000),
            // From a quarter on half of the limit may be near, and is not reached before the next look.
            (16 * MB, 64 * MB, 100),
            (256 * MB, 1024 * MB, 250),
            (384 * MB, 1024 * MB, 125),
            (448 * MB, 1024 * MB, 100),
            (1024 * MB, 3 * 1024 * MB, 500),
            // Much is left.
            (1024 * MB, 8 * 1024 * MB, 3000),
            (3 * 1024 * MB, 8 * 1024 * MB, 1000),
            (1024 * MB, 64 * 1024 * MB, 5000),
            (0, u64::MAX, 5000),
            // Half of it is taken, or all.
            (32, 64, 100),
            (64, 64, 100),
        ];
        for (used, limit, millis) in cases {
            assert_eq!(pause_at(used, limit), Duration::from_millis(millis), "{used} of {limit}");
        }
    }

    #[test]
    fn what_the_process_takes_is_found() {
        let (used, limit) = (resident().unwrap(), bound(0).unwrap());
        assert!(used > 1 << 20 && used < limit, "{used} of {limit}");
        assert_eq!(bound(5 << 20), Some(5 << 20));
    }
}
