//! How many clients a node lets in, and how fast. Counts; who is let in otherwise is not its matter.
//!
//! Each connection is a file. Clients never get the last ones, let in or not: a node whose files are all taken could not reach
//! Redis again, and would not answer whoever asks whether it lives.

use std::{
    num::NonZeroU32,
    os::fd::RawFd,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use prometheus::IntGauge;
use rlimit::Resource;

use crate::memory;

/// Of the files that the process may open, one in so many is not for clients, within these bounds.
const PART_KEPT: u64 = 16;
const LEAST_KEPT: u64 = 64;
const MOST_KEPT: u64 = 512;

/// Of the files that are kept, one in so many is not for clients either that are told so.
const PART_UNTOUCHED: u64 = 4;

/// The limit of files is asked for again so often: after fewer connections than files are left untouched at the least, each of
/// which asks twice, so that a lower limit is seen before they are taken.
const ASKED_EVERY: u32 = 16;

/// Counts the connections of this node and says when there are enough.
pub struct Gate {
    open: AtomicU32,
    limit: u32,
    rate: Option<DefaultDirectRateLimiter>,
    gauge: IntGauge,
}

/// A connection's place among those the node may have, given back when dropped.
pub struct Place(Arc<Gate>);

/// Why a connection is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateClosed {
    /// There are as many as there may be.
    Full,
    /// Too many came within a second.
    Rate,
    /// The process takes nearly as much memory as it may.
    Memory,
    /// The process has nearly as many files open as it may.
    Files,
}

impl Gate {
    /// A gate for `limit` connections and `rate` new ones in a second; 0 sets no limit. `gauge` shows how many there are.
    pub fn new(limit: u32, rate: u32, gauge: IntGauge) -> Arc<Self> {
        let rate = NonZeroU32::new(rate).map(|rate| RateLimiter::direct(Quota::per_second(rate)));
        Arc::new(Self { open: AtomicU32::new(0), limit, rate, gauge })
    }

    /// Why no further connection is let in because there are enough; nothing where there are not.
    pub fn closed(&self) -> Option<GateClosed> {
        self.closed_at(self.open.load(Ordering::Relaxed))
    }

    /// The same where there are so many.
    fn closed_at(&self, open: u32) -> Option<GateClosed> {
        if self.limit > 0 && open >= self.limit {
            return Some(GateClosed::Full);
        }
        reaches(open.into(), for_clients).then_some(GateClosed::Files)
    }

    /// Takes a place.
    pub fn enter(self: &Arc<Self>) -> Result<Place, GateClosed> {
        if memory::level() > memory::Level::Calm {
            return Err(GateClosed::Memory);
        }
        if self.rate.as_ref().is_some_and(|rate| rate.check().is_err()) {
            return Err(GateClosed::Rate);
        }
        let before = self.open.fetch_add(1, Ordering::Relaxed);
        self.gauge.inc();
        let place = Place(self.clone());
        self.closed_at(before).map_or(Ok(place), Err)
    }
}

/// Whether a connection took one of the last files, so that there is none even for an answer. Of the numbers that are free, a
/// new file is given the lowest: its own says how many are taken.
pub fn is_last_file(number: RawFd) -> bool {
    u64::try_from(number).is_ok_and(|number| reaches(number, for_answers))
}

/// Whether so many are as many as there may be of this part of the files. Whoever started the node may change their limit: a
/// higher one holds at once.
fn reaches(taken: u64, part: fn(u64) -> u64) -> bool {
    taken >= part(files_known()) && taken >= part(files())
}

/// How many files the process may open, as it was a few connections ago: asking each time is more than one part of a hundred
/// of what a connection costs.
fn files_known() -> u64 {
    static ASKED: AtomicU32 = AtomicU32::new(0);
    static KNOWN: AtomicU64 = AtomicU64::new(0);
    let known = KNOWN.load(Ordering::Relaxed);
    if known > 0 && !ASKED.fetch_add(1, Ordering::Relaxed).is_multiple_of(ASKED_EVERY) {
        return known;
    }
    let files = files();
    KNOWN.store(files, Ordering::Relaxed);
    files
}

/// How many files the process may open.
fn files() -> u64 {
    Resource::NOFILE.get_soft().unwrap_or(u64::MAX)
}

/// How many of so many files clients may have.
fn for_clients(files: u64) -> u64 {
    files - kept(files)
}

/// How many of so many files may be taken for clients and for whoever is not let in yet.
fn for_answers(files: u64) -> u64 {
    files - kept(files) / PART_UNTOUCHED
}

fn kept(files: u64) -> u64 {
    (files / PART_KEPT).clamp(LEAST_KEPT, MOST_KEPT).min(files / 2)
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
        self.0.gauge.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::{for_answers, for_clients};

    #[test]
    fn clients_never_get_the_last_files() {
        let cases = [
            (64, 32, 56),
            (256, 192, 240),
            (1024, 960, 1008),
            (20_000, 19_488, 19_872),
            (1_048_576, 1_048_064, 1_048_448),
        ];
        for (files, clients, answers) in cases {
            assert_eq!((for_clients(files), for_answers(files)), (clients, answers), "{files}");
        }
        assert!(for_clients(u64::MAX) > u64::from(u32::MAX));
    }
}
