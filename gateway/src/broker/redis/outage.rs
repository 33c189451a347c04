//! When to try a lost connection again, and what to say of it: one line for each change, none for each attempt. Knows
//! nothing of what the connection carries.

use std::{
    fmt::Display,
    time::{Duration, Instant},
};

use rand::Rng as _;
use tracing::{debug, info, warn};

/// The longest pause between two attempts.
const LONGEST: Duration = Duration::from_secs(2);
const SHORTEST: Duration = Duration::from_millis(50);
/// A connection that stood so long was sound: the next attempt is a first one again.
const STEADY: Duration = Duration::from_secs(5);

/// How one connection to Redis fares.
pub(super) struct Outage {
    connection: &'static str,
    address: String,
    /// What was last said to be wrong; none while the connection stands.
    reason: Option<String>,
    since: Instant,
    attempts: u32,
    ever: bool,
}

impl Outage {
    /// For the connection of this purpose (a word for the log) to this address.
    pub(super) fn new(connection: &'static str, address: String) -> Self {
        Self { connection, address, reason: None, since: Instant::now(), attempts: 0, ever: false }
    }

    /// The connection failed or could not be made; gives the pause before the next attempt.
    pub(super) fn failed(&mut self, reason: &impl Display) -> Duration {
        let reason = reason.to_string();
        if self.reason.is_none() {
            self.broke();
        }
        let Self { connection, address, .. } = &*self;
        if self.reason.as_ref() == Some(&reason) {
            debug!(connection, address, attempts = self.attempts, reason, "Redis is still not reached");
        } else {
            warn!(connection, address, reason, "Redis is not reached; trying again until it is");
            self.reason = Some(reason);
        }
        self.pause()
    }

    /// The connection stands; whether it is one that was lost before.
    pub(super) fn healed(&mut self) -> bool {
        let Self { connection, address, .. } = &*self;
        let seconds = self.since.elapsed().as_secs_f32();
        if self.reason.is_some() {
            info!(connection, address, seconds, "connected to Redis after an outage");
        } else {
            info!(connection, address, "connected to Redis");
        }
        self.reason = None;
        self.since = Instant::now();
        std::mem::replace(&mut self.ever, true)
    }

    fn broke(&mut self) {
        if self.since.elapsed() > STEADY {
            self.attempts = 0;
        }
        self.since = Instant::now();
    }

    /// Doubles with every attempt; the jitter keeps the nodes of a cluster from coming back in one instant.
    fn pause(&mut self) -> Duration {
        let longest = SHORTEST.saturating_mul(1 << self.attempts.min(6)).min(LONGEST);
        self.attempts = self.attempts.saturating_add(1);
        longest.mul_f32(rand::rng().random_range(0.5..1.0))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{LONGEST, Outage};

    #[test]
    fn pauses_grow_to_a_bound_and_vary() {
        let mut outage = Outage::new("test", "nowhere".into());
        let pauses: Vec<Duration> = (0..40).map(|_| outage.failed(&"refused")).collect();
        assert!(pauses[0] <= Duration::from_millis(50));
        assert!(pauses.iter().all(|pause| *pause <= LONGEST));
        assert!(pauses[20..].iter().all(|pause| *pause >= LONGEST / 2));
        assert!(pauses[20..].windows(2).any(|pair| pair[0] != pair[1]));
    }
}
