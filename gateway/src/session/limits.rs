//! How much one address, one user and one client may ask for in a second. Counts; who is refused what is said where it is asked.
//! Holds of each who has asked of late a few bytes, and of nobody else anything.

use std::{
    hash::{BuildHasher, Hash},
    net::IpAddr,
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use foldhash::quality::RandomState;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use prometheus::IntCounter;
use roomcast_shared::protocol::command::Command;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Session, Stage};
use crate::{config, metrics::Metrics};

/// How often those are forgotten who have not asked for long.
const FORGET: Duration = Duration::from_secs(5);

/// The limits of a node.
pub struct Limits {
    addresses: Limit<IpAddr>,
    users: Limit<Who>,
    clients: Limit<Uuid>,
    /// By the hash of the session's name, which may be anything.
    requests: Limit<u64>,
    hasher: RandomState,
    publishes: Limit<Who>,
    subscribes: Limit<Who>,
    histories: Limit<Who>,
    presences: Limit<Who>,
    rpcs: Limit<Who>,
}

/// Who is counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Who {
    User(Arc<str>),
    /// An anonymous client, for it shares nothing with others.
    Client(Uuid),
}

/// One limit; none where nothing is set.
struct Limit<K: Hash + Eq + Clone>(Option<(DefaultKeyedRateLimiter<K>, IntCounter)>);

impl<K: Hash + Eq + Clone> Limit<K> {
    fn new(rate: u32, name: &str, metrics: &Metrics) -> Self {
        // The series is there from the start, also where there is no limit.
        let exceeded = metrics.rate_limited.with_label_values(&[name]);
        Self(NonZeroU32::new(rate).map(|rate| (RateLimiter::keyed(Quota::per_second(rate)), exceeded)))
    }

    /// Whether one more is within the limit.
    fn allows(&self, key: impl FnOnce() -> K) -> bool {
        let Some((limiter, exceeded)) = &self.0 else { return true };
        let allowed = limiter.check_key(&key()).is_ok();
        if !allowed {
            exceeded.inc();
        }
        allowed
    }

    fn forget(&self) {
        if let Some((limiter, _)) = &self.0 {
            limiter.retain_recent();
            limiter.shrink_to_fit();
        }
    }
}

impl Limits {
    /// The limits that are set.
    pub fn new(settings: &config::Limits, metrics: &Metrics) -> Self {
        // A request has one command at least, or it is a pong, which is none.
        let requests =
            if settings.commands_per_client > 0 { settings.commands_per_client.saturating_add(1) } else { 0 };
        Self {
            addresses: Limit::new(settings.connects_per_address, "connects_per_address", metrics),
            users: Limit::new(settings.connects_per_user, "connects_per_user", metrics),
            clients: Limit::new(settings.commands_per_client, "commands_per_client", metrics),
            requests: Limit::new(requests, "commands_per_client", metrics),
            hasher: RandomState::default(),
            publishes: Limit::new(settings.publishes_per_user, "publishes_per_user", metrics),
            subscribes: Limit::new(settings.subscribes_per_user, "subscribes_per_user", metrics),
            histories: Limit::new(settings.histories_per_user, "histories_per_user", metrics),
            presences: Limit::new(settings.presences_per_user, "presences_per_user", metrics),
            rpcs: Limit::new(settings.rpcs_per_user, "rpcs_per_user", metrics),
        }
    }

    /// Whether one more connection may come from this address.
    pub fn allow_address(&self, address: IpAddr) -> bool {
        self.addresses.allows(|| network_of(address))
    }

    /// Whether one more request may bring commands for the session of that secret name, whichever node has it.
    pub fn allow_request(&self, session: &str) -> bool {
        self.requests.allows(|| self.hasher.hash_one(session))
    }

    /// Whether a user may have one more connection. Anonymous ones are not counted.
    pub(super) fn allow_user(&self, user: &Arc<str>) -> bool {
        user.is_empty() || self.users.allows(|| Who::User(user.clone()))
    }

    /// Forgets, over and over, those who have not asked for long; until `stop`.
    pub async fn keep_small(&self, stop: &CancellationToken) {
        let mut ticks = interval(FORGET);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.addresses.forget();
            self.clients.forget();
            self.requests.forget();
            for limit in [&self.users, &self.publishes, &self.subscribes, &self.histories, &self.presences, &self.rpcs]
            {
                limit.forget();
            }
        }
    }

    /// The limit of a kind of command, and what such a command is called.
    fn of(&self, command: &Command) -> Option<(&Limit<Who>, &'static str)> {
        match command {
            Command { publish: Some(_), .. } => Some((&self.publishes, "publish")),
            Command { subscribe: Some(_), .. } => Some((&self.subscribes, "subscribe")),
            Command { history: Some(_), .. } => Some((&self.histories, "history")),
            Command { presence: Some(_), .. } => Some((&self.presences, "presence")),
            Command { presence_stats: Some(_), .. } => Some((&self.presences, "presence_stats")),
            Command { rpc: Some(_), .. } => Some((&self.rpcs, "rpc")),
            _ => None,
        }
    }
}

/// One customer of a provider has a /64 at least, so that its addresses are one.
fn network_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
        IpAddr::V4(_) => address,
    }
}

impl Session {
    /// What a command beyond a limit is called; nothing where it may begin.
    pub(super) fn limited(&self, command: &Command) -> Option<&'static str> {
        let limits = &self.context.limits;
        let of_kind = limits.of(command);
        let name = of_kind.as_ref().map_or("other", |(_, name)| *name);
        if !limits.clients.allows(|| self.client) {
            return Some(name);
        }
        let (limit, name) = of_kind?;
        (!limit.allows(|| self.who())).then_some(name)
    }

    fn who(&self) -> Who {
        match &self.stage {
            Stage::Connected(identity) if !identity.user.is_empty() => Who::User(identity.user.clone()),
            _ => Who::Client(self.client),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_not_asked_for_long_is_forgotten() {
        let metrics = Metrics::new();
        let limit = Limit::new(1000, "connects_per_address", &metrics);
        for number in 0..100_u32 {
            assert!(limit.allows(|| number));
        }
        let (limiter, _) = limit.0.as_ref().unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while !limiter.is_empty() {
            assert!(std::time::Instant::now() < deadline, "{} are left", limiter.len());
            limit.forget();
        }
    }

    #[test]
    fn addresses_of_one_network_are_one() {
        let [one, other, third] = ["2001:db8:1:2:3::4", "2001:db8:1:2::", "2001:db8:1:3::"]
            .map(|address| network_of(address.parse().unwrap()));
        assert_eq!(one, other);
        assert_ne!(one, third);
        assert_eq!(network_of([10, 0, 0, 1].into()), IpAddr::from([10, 0, 0, 1]));
    }
}
