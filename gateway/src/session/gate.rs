//! How many clients a node lets in, and how fast. Counts; who is let in otherwise is not its matter.

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use prometheus::IntGauge;

use crate::memory;

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
}

impl Gate {
    /// A gate for `limit` connections and `rate` new ones in a second; 0 sets no limit. `gauge` shows how many there are.
    pub fn new(limit: u32, rate: u32, gauge: IntGauge) -> Arc<Self> {
        let rate = NonZeroU32::new(rate).map(|rate| RateLimiter::direct(Quota::per_second(rate)));
        Arc::new(Self { open: AtomicU32::new(0), limit, rate, gauge })
    }

    /// Whether no further connection is let in because there are enough.
    pub fn is_full(&self) -> bool {
        self.limit > 0 && self.open.load(Ordering::Relaxed) >= self.limit
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
        if self.limit > 0 && before >= self.limit { Err(GateClosed::Full) } else { Ok(place) }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
        self.0.gauge.dec();
    }
}
