//! What disturbs a load while it goes on, and what clients ask beyond plain rooms, as checked values: connections that
//! come and go, a storm of them, readers that are too slow, questions, recovery. Knows no sockets and no time.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::schedule::Rate;

/// What clients ask of their rooms when they subscribe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wishes {
    /// That the server watches their position.
    pub positioned: bool,
    /// That what they missed is given to them when they come back.
    pub recover: bool,
    /// To be told who enters and leaves.
    pub join_leave: bool,
}

/// What goes on beside the publishing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turmoil {
    /// Connections closed and opened again per second.
    pub churn: Rate,
    /// Many connections break at once.
    pub storm: Option<Storm>,
    /// Some clients read slowly.
    pub slow: Option<Slow>,
    /// Clients ask who is in their room.
    pub asks: Option<Asks>,
    /// Whether clients whose connection the server ends come back, as those of SDKs do.
    pub reconnect: bool,
}

/// A moment at which connections break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Storm {
    /// How many of a hundred.
    pub percent: u32,
    /// When, after publishing began.
    pub from: Duration,
    /// How long the first of them stays away.
    pub away: Duration,
    /// Over which time they come back then.
    pub over: Duration,
}

/// Clients that do not keep up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slow {
    /// How many of a hundred.
    pub percent: u32,
    /// Bytes each reads per second.
    pub bytes: usize,
}

/// Questions of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asks {
    /// How many per second, all clients together.
    pub rate: Rate,
    /// Which.
    pub question: Question,
}

/// A question of a client about its room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Question {
    /// Who is in it.
    Presence,
    /// How many are in it.
    PresenceStats,
}

impl Turmoil {
    /// Whether anything is to be done while publishing, even if nothing is published.
    pub fn is_busy(&self) -> bool {
        self.churn.0 > 0 || self.storm.is_some() || self.asks.is_some()
    }

    /// Whether client `number` is one of the slow ones.
    pub fn is_slow(&self, number: u32) -> bool {
        self.slow.is_some_and(|slow| is_among(number, 1, slow.percent))
    }
}

impl Storm {
    /// When, after publishing began, the first of them may come back.
    pub fn end(&self) -> Duration {
        self.from + self.away
    }

    /// Whether client `number` is one of those that break.
    pub fn hits(&self, number: u32) -> bool {
        is_among(number, 2, self.percent)
    }
}

/// Whether `number` is one of `percent` in a hundred; independent of rooms and servers, which are given out in turn.
fn is_among(number: u32, salt: u64, percent: u32) -> bool {
    mixed(u64::from(number) << 8 | salt) % 100 < u64::from(percent)
}

/// A number without any pattern of the ones around it.
pub fn mixed(number: u64) -> u64 {
    let product = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (product ^ product >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93) >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_a_hundred_are_kept_in_every_room() {
        let turmoil = Turmoil { slow: Some(Slow { percent: 20, bytes: 1 }), ..Turmoil::default() };
        for rooms in [1, 10, 100] {
            let in_first = (0..100_000).filter(|number| number % rooms == 0);
            let (slow, all) = in_first.fold((0, 0), |(slow, all), n| (slow + u32::from(turmoil.is_slow(n)), all + 1));
            assert!((150..250).contains(&(1000 * slow / all)), "{slow} of {all}");
        }
        let whole = Storm { percent: 100, from: Duration::ZERO, away: Duration::ZERO, over: Duration::ZERO };
        assert!((0..1000).all(|n| whole.hits(n)));
    }
}
