//! When what a client was given ends: its connection, or one of its subscriptions. Knows the clock, and nobody who asks.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// The longest time to live a client is told; what lives longer is refreshed once a year.
const LONGEST_TTL: u32 = 365 * 24 * 3600;

/// How long something goes on where the backend, asked whether it may, gives no answer.
pub(super) const WITHOUT_ANSWER: Duration = Duration::from_mins(1);

/// When something ends: never, or in so many seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Expiry(Option<u32>);

impl Expiry {
    /// The end at that moment, in seconds since 1970, or never; `None` where it has come already.
    pub(super) fn until(at: Option<i64>) -> Option<Self> {
        let Some(at) = at else { return Some(Self(None)) };
        let left = u64::try_from(at).ok()?.checked_sub(unix_now())?;
        let ttl = u32::try_from(left).unwrap_or(u32::MAX).min(LONGEST_TTL);
        (ttl > 0).then_some(Self(Some(ttl)))
    }

    /// The seconds that are left; `None` for ever.
    pub(super) fn ttl(self) -> Option<u32> {
        self.0
    }

    /// The moment, on the clock of the timers.
    pub(super) fn at(self) -> Option<Instant> {
        self.0.map(|ttl| Instant::now() + Duration::from_secs(u64::from(ttl)))
    }
}

/// Seconds since 1970.
pub(super) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs())
}

/// Until when a subscription is good, and what happens then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    /// When something has to be done; nothing while the backend is being asked.
    pub(super) due: Option<Instant>,
    /// The backend is asked then whether it goes on. Otherwise the client has had its time to say so, and is out.
    pub(super) asks: bool,
}

impl Lease {
    /// The lease of a subscription that ends so; nothing for one that does not end. A client that has to refresh by itself has
    /// `grace` for it.
    pub(super) fn new(expiry: Expiry, asks: bool, grace: Duration) -> Option<Self> {
        let at = expiry.at()?;
        Some(Self { due: Some(if asks { at } else { at + grace }), asks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_in_the_future_or_never() {
        let in_seconds = |seconds: i64| Some(i64::try_from(unix_now()).unwrap() + seconds);
        assert_eq!(Expiry::until(None), Some(Expiry(None)));
        assert_eq!(Expiry::until(in_seconds(-5)), None);
        assert_eq!(Expiry::until(in_seconds(0)), None);
        assert_eq!(Expiry::until(Some(-1)), None);
        assert_eq!(Expiry::until(Some(i64::MAX)), Some(Expiry(Some(LONGEST_TTL))));
        let ttl = Expiry::until(in_seconds(100)).and_then(Expiry::ttl);
        assert!(ttl.is_some_and(|ttl| (98..=100).contains(&ttl)), "{ttl:?}");
    }

    #[test]
    fn a_client_has_its_time_and_a_backend_is_asked_at_once() {
        let (expiry, grace) = (Expiry(Some(10)), Duration::from_secs(25));
        let due = |asks| Lease::new(expiry, asks, grace).and_then(|lease| lease.due).unwrap();
        assert!(due(false) - due(true) > Duration::from_secs(24));
        assert_eq!(Lease::new(Expiry(None), true, grace), None);
    }
}
