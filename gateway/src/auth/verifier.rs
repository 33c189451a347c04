//! Verifies tokens. The signature is checked first; of a token that nobody signed nothing is believed. Then time, audience,
//! issuer, and what the claims are.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use roomcast_shared::claims::{ClaimsError, ConnectClaims, RegisteredClaims, SubscribeClaims};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;

use super::{
    Keys, Trust,
    issuer::Issuer,
    jwks::{self, Jwks},
    key::KeyError,
    keyset::KeySet,
    token::{self, Signed, TokenError, quote},
};

/// Checks tokens against the keys a node trusts. A handle: clones check with the same keys, and see them replaced.
#[derive(Clone)]
pub struct Verifier {
    shared: Arc<Shared>,
}

struct Shared {
    trusted: ArcSwap<Trusted>,
    /// Told when there may be other addresses to fetch keys from.
    replaced: Notify,
}

/// Who is trusted, for what.
struct Trusted {
    connection: Issuers,
    subscription: Option<Issuers>,
}

/// The issuers of one kind of token.
struct Issuers {
    /// For tokens of anybody that is not named.
    any: Issuer,
    named: Vec<Issuer>,
}

impl Verifier {
    /// Reads the keys.
    ///
    /// # Errors
    /// A public key cannot be used; a secret always can.
    pub fn new<'a>(trust: impl Into<Trust<'a>>) -> Result<Self, KeyError> {
        let trusted = ArcSwap::from_pointee(Trusted::new(&trust.into(), &[])?);
        Ok(Self { shared: Arc::new(Shared { trusted, replaced: Notify::new() }) })
    }

    /// Takes other keys from now on. Keys that were fetched stay where their address does.
    ///
    /// # Errors
    /// A public key cannot be used; then nothing changes.
    pub fn replace<'a>(&self, trust: impl Into<Trust<'a>>) -> Result<(), KeyError> {
        let known = self.sources();
        self.shared.trusted.store(Arc::new(Trusted::new(&trust.into(), &known)?));
        self.shared.replaced.notify_one();
        Ok(())
    }

    /// Whether there is any key that connection tokens could be checked with.
    pub fn has_keys(&self) -> bool {
        let trusted = self.shared.trusted.load();
        !trusted.connection.any.keys.is_empty() || !trusted.connection.named.is_empty()
    }

    /// Checks a connection token and gives its claims.
    ///
    /// # Errors
    /// Why it is refused, for the log and for whoever made the token.
    pub fn verify(&self, token: &str) -> Result<ConnectClaims, TokenError> {
        self.verify_at(token, SystemTime::now())
    }

    /// The same at another time than now.
    pub fn verify_at(&self, token: &str, now: SystemTime) -> Result<ConnectClaims, TokenError> {
        self.shared.trusted.load().connection.verify(token, now)
    }

    /// Checks a subscription token and gives its claims. User, client and room are for the caller to compare.
    ///
    /// # Errors
    /// Why it is refused, for the log and for whoever made the token.
    pub fn verify_subscription(&self, token: &str) -> Result<SubscribeClaims, TokenError> {
        self.verify_subscription_at(token, SystemTime::now())
    }

    /// The same at another time than now.
    pub fn verify_subscription_at(&self, token: &str, now: SystemTime) -> Result<SubscribeClaims, TokenError> {
        let trusted = self.shared.trusted.load();
        trusted.subscription.as_ref().unwrap_or(&trusted.connection).verify(token, now)
    }

    /// Fetches every set of keys that has an address, once. Gives what went wrong, one line for each address.
    pub async fn fetch_keys(&self) -> Vec<String> {
        let sources = self.sources();
        if sources.is_empty() {
            return Vec::new();
        }
        let http = match jwks::client() {
            Ok(http) => http,
            Err(error) => return vec![format!("cannot make requests: {error}")],
        };
        let fetched = join_all(sources.iter().map(|source| source.fetch(&http))).await;
        let failed = |(source, outcome): (&Arc<Jwks>, Result<(), String>)| {
            outcome.err().map(|error| format!("{}: {error}", source.shown()))
        };
        sources.iter().zip(fetched).filter_map(failed).collect()
    }

    /// Fetches the sets of keys that have an address, at once and then from time to time, and those that replace them. Runs
    /// until it is dropped.
    pub async fn keep_keys_fresh(&self) {
        loop {
            let sources = self.sources();
            let fetching = async {
                if !sources.is_empty() {
                    match jwks::client() {
                        Ok(http) => {
                            join_all(sources.iter().map(|source| source.keep_fresh(&http))).await;
                        }
                        Err(error) => tracing::error!("token keys cannot be fetched: {error}"),
                    }
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = fetching => {}
                () = self.shared.replaced.notified() => {}
            }
        }
    }

    fn sources(&self) -> Vec<Arc<Jwks>> {
        let trusted = self.shared.trusted.load();
        let groups = [Some(&trusted.connection), trusted.subscription.as_ref()];
        let mut found: Vec<Arc<Jwks>> = Vec::new();
        for source in groups.into_iter().flatten().flat_map(Issuers::sources) {
            if !found.iter().any(|known| Arc::ptr_eq(known, source)) {
                found.push(source.clone());
            }
        }
        found
    }
}

impl Trusted {
    fn new(trust: &Trust<'_>, known: &[Arc<Jwks>]) -> Result<Self, KeyError> {
        let mut known = known.to_vec();
        // Two issuers with one address share what is fetched from it.
        let mut issuer = |keys: &Keys<'_>| {
            let set = KeySet::new(keys, &known)?;
            known.extend(set.source().cloned());
            Ok(Issuer::new(keys, set))
        };
        let any = issuer(&trust.connection)?;
        let named = trust.issuers.iter().map(&mut issuer).collect::<Result<_, _>>()?;
        let own = trust.subscription.as_ref().map(issuer).transpose()?;
        Ok(Self { connection: Issuers { any, named }, subscription: own.map(|any| Issuers { any, named: Vec::new() }) })
    }
}

impl Issuers {
    fn sources(&self) -> impl Iterator<Item = &Arc<Jwks>> {
        self.named.iter().chain([&self.any]).filter_map(|issuer| issuer.keys.source())
    }

    /// Whose keys a token is checked with, by what it says of itself.
    fn of(&self, token: &Signed<'_>) -> Result<&Issuer, TokenError> {
        if self.named.is_empty() {
            return Ok(&self.any);
        }
        let iss = token.alleged_issuer();
        if let Some(issuer) = self.named.iter().find(|issuer| issuer.is_named(&iss)) {
            return Ok(issuer);
        }
        if self.any.keys.is_empty() {
            let wanted: Vec<_> = self.named.iter().filter_map(Issuer::wanted).collect();
            return Err(TokenError::wrong_issuer(&wanted.join(" or "), &iss));
        }
        Ok(&self.any)
    }

    fn verify<C: Claims>(&self, token: &str, now: SystemTime) -> Result<C, TokenError> {
        let signed = Signed::parse(token)?;
        let issuer = self.of(&signed)?;
        issuer.keys.check(&signed)?;
        let bad = |error: &dyn std::fmt::Display| TokenError::BadClaim(quote(&error.to_string()));
        let mut claims: C = serde_json::from_str(&signed.claims).map_err(|error| bad(&error))?;
        token::check_time(claims.registered(), now.duration_since(UNIX_EPOCH).unwrap_or_default())?;
        issuer.check(claims.registered())?;
        claims.validate().map_err(|error| bad(&error))?;
        if let Some(user) = issuer.user(&signed.claims)? {
            claims.registered().sub = user;
        }
        Ok(claims)
    }
}

/// What both kinds of tokens have.
trait Claims: DeserializeOwned {
    fn registered(&mut self) -> &mut RegisteredClaims;
    fn validate(&self) -> Result<(), ClaimsError>;
}

impl Claims for ConnectClaims {
    fn registered(&mut self) -> &mut RegisteredClaims {
        &mut self.registered
    }

    fn validate(&self) -> Result<(), ClaimsError> {
        self.validate()
    }
}

impl Claims for SubscribeClaims {
    fn registered(&mut self) -> &mut RegisteredClaims {
        &mut self.registered
    }

    fn validate(&self) -> Result<(), ClaimsError> {
        self.validate()
    }
}
