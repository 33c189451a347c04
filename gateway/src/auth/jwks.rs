//! Keys that are fetched from an address: a set that is kept, looked at again from time to time, and sooner when a token
//! names a key that is not in it. What was fetched last stays good while the address does not answer.

use std::{
    collections::HashMap,
    error::Error,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use jsonwebtoken::Algorithm;
use parking_lot::Mutex;
use reqwest::{Client, StatusCode, header, redirect::Policy};
use tokio::{sync::Notify, time::sleep_until};

use super::{
    KeySource,
    jwk::{self, Named},
    keyset::Accepted,
    token::{TokenError, quote},
};

/// Longest answer that is read, in bytes.
const BODY_LIMIT: usize = 256 * 1024;

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long an answer may take, connecting included.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Longest time between two attempts while the address does not answer.
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);

/// Names of unknown keys that are remembered; whoever forges tokens can invent any number.
const ASKED_LIMIT: usize = 256;

/// Longest name of a key that is looked for, in bytes.
const KID_LIMIT: usize = 256;

/// Keys that are tried for a token that names none.
const UNNAMED_LIMIT: usize = 4;

/// Pauses between two fetches after which a key that was not among the fetched ones is taken for a forgery. Caches between
/// the issuer and a node may be that old.
const PATIENCE: u32 = 6;

/// How many times longer than that it is remembered that a key is not there.
const MEMORY: u32 = 10;

/// An address with a set of keys.
pub(super) struct Jwks {
    url: String,
    refresh: Duration,
    pause: Duration,
    keys: ArcSwapOption<Vec<Named>>,
    state: Mutex<State>,
    early: Notify,
}

#[derive(Default)]
struct State {
    /// When the last attempt ended.
    attempted: Option<Instant>,
    /// When the last attempt that succeeded ended.
    fetched: Option<Instant>,
    /// Attempts that failed since.
    failures: u32,
    /// Keys that tokens named and that were not there, and since when they are asked for.
    asked: HashMap<Box<str>, Instant>,
}

impl Jwks {
    pub(super) fn new(source: &KeySource<'_>) -> Self {
        Self {
            url: source.url.to_owned(),
            refresh: source.refresh,
            pause: source.pause,
            keys: ArcSwapOption::empty(),
            state: Mutex::default(),
            early: Notify::new(),
        }
    }

    pub(super) fn is_at(&self, source: &KeySource<'_>) -> bool {
        (self.url.as_str(), self.refresh, self.pause) == (source.url, source.refresh, source.pause)
    }

    /// The keys for an algorithm by the name a token gives them, one at least.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn find(&self, algorithm: Algorithm, kid: Option<&str>) -> Result<Vec<Arc<Accepted>>, TokenError> {
        let keys = self.keys.load_full().ok_or(TokenError::KeysUnavailable)?;
        let fitting = |wanted: &dyn Fn(&Named) -> bool| {
            let fitting = keys.iter().filter(|named| named.key.is_for(algorithm) && wanted(named));
            fitting.map(|named| named.key.clone()).collect::<Vec<_>>()
        };
        let unknown = || TokenError::UnknownKey { algorithm: format!("{algorithm:?}") };
        let Some(kid) = kid else {
            let any = fitting(&|_| true);
            return match any.len() {
                0 => Err(unknown()),
                1..=UNNAMED_LIMIT => Ok(any),
                _ => Err(TokenError::Malformed("the header names no key (kid), and the issuer has many")),
            };
        };
        let has_name = |named: &Named| named.kid.as_deref() == Some(kid);
        let found = fitting(&has_name);
        if !found.is_empty() {
            return Ok(found);
        }
        if keys.iter().any(has_name) {
            return Err(unknown());
        }
        let mut nameless = fitting(&|named| named.kid.is_none());
        nameless.truncate(UNNAMED_LIMIT);
        if nameless.is_empty() { Err(self.missing(kid)) } else { Ok(nameless) }
    }

    /// A key is not there: it may be new, so that the set is looked at again and clients are told to come back. If it is
    /// still not there after a while, it is unknown; but only a set that was fetched a moment ago tells, since somebody may have
    /// asked for the key before it was published.
    fn missing(&self, kid: &str) -> TokenError {
        if kid.len() > KID_LIMIT {
            return TokenError::UnknownKid { kid: quote(kid) };
        }
        self.look_again();
        let mut state = self.state.lock();
        let since = state.asked.get(kid).copied().unwrap_or_else(Instant::now);
        let is_recent = state.fetched.is_some_and(|fetched| fetched.elapsed() <= self.pause);
        if is_recent && since.elapsed() >= self.pause * PATIENCE {
            return TokenError::UnknownKid { kid: quote(kid) };
        }
        if state.asked.len() < ASKED_LIMIT {
            state.asked.insert(kid.into(), since);
        }
        TokenError::KeysUnavailable
    }

    /// Has the set fetched soon, if it was not fetched a moment ago.
    pub(super) fn look_again(&self) {
        self.early.notify_one();
    }

    /// Fetches the set whenever it is time, for ever.
    pub(super) async fn keep_fresh(&self, http: &Client) {
        loop {
            self.turn().await;
            // What happened is in the log and in the state.
            let _ = self.fetch(http).await;
        }
    }

    /// Waits until the set is to be fetched.
    async fn turn(&self) {
        let (due, earliest) = self.due();
        loop {
            tokio::select! {
                () = sleep_until(due.into()) => return,
                () = self.early.notified() => {}
            }
            if let Some(earliest) = earliest {
                return sleep_until(earliest.min(due).into()).await;
            }
        }
    }

    /// When the set is to be fetched, and from when on it may be fetched if somebody asks for it.
    fn due(&self) -> (Instant, Option<Instant>) {
        let state = self.state.lock();
        let Some(attempted) = state.attempted else { return (Instant::now(), None) };
        if state.failures > 0 {
            let backoff = Duration::from_secs(1 << state.failures.saturating_sub(1).min(5)).min(LONGEST_BACKOFF);
            return (attempted + backoff.min(self.refresh).mul_f64(rand::random_range(0.75..1.0)), None);
        }
        // Nodes that started together need not ask together.
        (attempted + self.refresh.mul_f64(rand::random_range(0.9..1.0)), Some(attempted + self.pause))
    }

    /// Fetches the set now.
    ///
    /// # Errors
    /// Why there is no new set; the one before stays.
    pub(super) async fn fetch(&self, http: &Client) -> Result<(), String> {
        let outcome = match self.download(http).await {
            Ok(body) => jwk::read(&body).map_err(|error| error.to_string()),
            Err(error) => Err(error),
        };
        let outcome = outcome.map(|keys| {
            let count = keys.len();
            self.keys.store(Some(Arc::new(keys)));
            count
        });
        self.take_note(outcome)
    }

    /// Notes how an attempt ended, and says so when that changed.
    fn take_note(&self, outcome: Result<usize, String>) -> Result<(), String> {
        let mut state = self.state.lock();
        let now = Instant::now();
        let (first, failed_before) = (state.fetched.is_none(), state.failures > 0);
        state.attempted = Some(now);
        let forgotten = self.pause * PATIENCE * MEMORY;
        state.asked.retain(|_, since| since.elapsed() < forgotten);
        match &outcome {
            Ok(_) => (state.fetched, state.failures) = (Some(now), 0),
            Err(_) => state.failures = state.failures.saturating_add(1),
        }
        drop(state);
        let url = self.shown();
        match outcome {
            Ok(keys) if first || failed_before => tracing::info!(url, keys, "token keys fetched"),
            Ok(keys) => tracing::debug!(url, keys, "token keys fetched"),
            Err(error) if failed_before => {
                tracing::debug!(url, "token keys cannot be fetched: {error}");
                return Err(error);
            }
            Err(error) => {
                let kept = if first { "there are none yet" } else { "those fetched before stay good" };
                tracing::warn!(url, "token keys cannot be fetched: {error}; {kept}, and it is tried again");
                return Err(error);
            }
        }
        Ok(())
    }

    async fn download(&self, http: &Client) -> Result<Vec<u8>, String> {
        let request = http.get(&self.url).header(header::ACCEPT, "application/jwk-set+json, application/json");
        let mut response = request.send().await.map_err(reason)?;
        if response.status() != StatusCode::OK {
            let location = response.headers().get(header::LOCATION).and_then(|place| place.to_str().ok());
            let hint =
                location.map(|place| format!(" and names {}", quote(&without_secrets(place)))).unwrap_or_default();
            return Err(format!("it answers {}{hint}", response.status()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(reason)? {
            if body.len() + chunk.len() > BODY_LIMIT {
                return Err(format!("the answer is longer than {BODY_LIMIT} bytes"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// The address as a log may have it: without user, password and query.
    pub(super) fn shown(&self) -> String {
        without_secrets(&self.url)
    }
}

fn without_secrets(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    match url.split_once("://").and_then(|(scheme, rest)| rest.rsplit_once('@').map(|(_, rest)| (scheme, rest))) {
        Some((scheme, rest)) => format!("{scheme}://{rest}"),
        None => url.to_owned(),
    }
}

/// What asks for keys. The answer of another address than the one that was set is not believed, so that no redirection is
/// followed.
pub(super) fn client() -> Result<Client, String> {
    let client = Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(TIMEOUT)
        .redirect(Policy::none())
        .user_agent(concat!("roomcast/", env!("CARGO_PKG_VERSION")));
    client.build().map_err(reason)
}

/// An error with what caused it, without the address, which may hold a password.
fn reason(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    quote(&text)
}
