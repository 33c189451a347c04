//! Who may connect: the keys that tokens are signed with, the issuers that have keys of their own, and what tokens have to
//! say. Knows how all that is written and what has to hold between it, no token.

use std::{
    ops::{Deref, DerefMut},
    time::Duration,
};

use regex::Regex;
use url::Url;

use super::{
    provenance::{Provenance, Source},
    secret::{Pem, Secret},
    section::{About, Place, Visitor, join, section},
    settings::Settings,
    value::Scalar,
};

/// HMAC-SHA-256 keys should be as long as its output (RFC 7518, section 3.2).
pub(super) const SECRET_LENGTH: usize = 32;

section! {
    /// Who may connect.
    Auth {
        /// What connection tokens are checked with.
        keys: Flat<TokenKeys>,
        /// What subscription tokens are checked with.
        subscription_token: TokenKeys,
        /// Issuers with keys of their own.
        issuers: Vec<NamedIssuer>,
        /// How often keys are fetched again from addresses such as `auth.jwks_url`. A key that is not among those fetched
        /// is looked for at once, every ten seconds at most.
        jwks_refresh: Duration = "10m",
        /// Whether a client may connect without any token, as nobody.
        allow_anonymous: bool = "false",
        /// Whether tokens with an empty `sub` are refused.
        disallow_anonymous_connection_tokens: bool = "false",
    }
}

section! {
    /// The keys of one issuer, and what its tokens have to say. A token is accepted if one of the keys has signed it.
    TokenKeys {
        /// Secret for tokens signed with HS256, HS384 or HS512; 32 bytes or more. Any key or secret under
        /// `auth.subscription_token` makes subscription tokens have keys of their own; without, those of `auth` serve both.
        hmac_secret: Option<Secret>,
        /// The secret before the present one, accepted while tokens signed with it are still about.
        hmac_previous_secret: Option<Secret>,
        /// Public key (PEM) for signed tokens: RSA of 2048 bits or more, EC (P-256, P-384) or Ed25519.
        public_key: Option<Pem>,
        /// Address (JWKS) of public keys for signed tokens, fetched at the start and from then on.
        jwks_url: Option<KeyUrl>,
        /// What the `aud` claim has to be, or to contain. Unset: not looked at.
        audience: Option<String>,
        /// What `aud`, or one text in it, has to match as a whole, instead of `audience`.
        audience_regex: Option<Pattern>,
        /// What the `iss` claim has to be. Unset: not looked at.
        issuer: Option<String>,
        /// What `iss` has to match as a whole, instead of `issuer`.
        issuer_regex: Option<Pattern>,
        /// The claim that names the user, a text or a whole number; unset: `sub`.
        user_id_claim: Option<String>,
    }
}

impl TokenKeys {
    /// Whether there is any key.
    pub fn any(&self) -> bool {
        let given = self.hmac_secret.is_some() || self.hmac_previous_secret.is_some() || self.public_key.is_some();
        given || self.jwks_url.is_some()
    }
}

impl Auth {
    /// Every place that has keys, with its path.
    pub fn places(&self) -> impl Iterator<Item = (String, &TokenKeys)> {
        let own = [("auth", &self.keys.0), ("auth.subscription_token", &self.subscription_token)];
        let issuers = self.issuers.iter().map(|issuer| (join("auth.issuers", &issuer.name), &issuer.keys));
        own.into_iter().map(|(path, keys)| (path.to_owned(), keys)).chain(issuers)
    }

    /// Whether there is any key, for whatever tokens.
    pub fn any_key(&self) -> bool {
        self.places().any(|(_, keys)| keys.any())
    }
}

/// Names of the settings that are keys, or say where keys are.
const KEYS: [&str; 4] = ["hmac_secret", "hmac_previous_secret", "public_key", "jwks_url"];

/// An issuer with keys of its own. Written as `[[auth.issuers]]` with `name` and the options of a key in one table. Tokens
/// whose `iss` is its `issuer` are checked with its keys and no others.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedIssuer {
    /// What the settings call it.
    pub name: String,
    /// Its keys, and what its tokens have to say.
    pub keys: TokenKeys,
}

impl Place for Vec<NamedIssuer> {
    fn visit(&mut self, path: &str, about: &About, visitor: Visitor<'_>) {
        for issuer in self {
            issuer.keys.visit(&join(path, &issuer.name), about, &mut *visitor);
        }
    }
}

/// A section whose settings are named as if they stood in the section around it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Flat<T>(pub T);

impl<T: Place> Place for Flat<T> {
    fn visit(&mut self, path: &str, about: &About, visitor: Visitor<'_>) {
        let around = path.rsplit_once('.').map_or("", |(around, _)| around);
        self.0.visit(around, about, visitor);
    }
}

/// The keys for connection tokens are those of the section itself.
impl Deref for Auth {
    type Target = TokenKeys;

    fn deref(&self) -> &TokenKeys {
        &self.keys.0
    }
}

impl DerefMut for Auth {
    fn deref_mut(&mut self) -> &mut TokenKeys {
        &mut self.keys.0
    }
}

/// A regular expression that a text has to match as a whole.
#[derive(Clone, Debug)]
pub struct Pattern {
    written: Box<str>,
    whole: Regex,
}

impl Pattern {
    /// The expression with both ends held.
    pub fn regex(&self) -> &Regex {
        &self.whole
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

impl Scalar for Pattern {
    const KIND: &'static str = "regular expression";

    fn parse(text: &str) -> Result<Self, String> {
        let fault = |error: regex::Error| {
            let reason = error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            format!("{text:?} is no regular expression: {reason}")
        };
        // By itself first: a stray parenthesis must not reach out of the one that holds it together.
        Regex::new(text).map_err(fault)?;
        Ok(Self { written: text.into(), whole: Regex::new(&format!(r"\A(?:{text})\z")).map_err(fault)? })
    }

    fn show(&self) -> String {
        self.written.to_string()
    }
}

/// An address that keys are fetched from. Printing it prints it without a password.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyUrl(Url);

impl KeyUrl {
    /// The whole address, for the one place that asks it.
    pub fn reveal(&self) -> &str {
        self.0.as_str()
    }

    /// Whether what is fetched could be changed on its way here.
    fn is_open(&self) -> bool {
        let host = self.0.host_str().unwrap_or_default();
        let near = host == "localhost"
            || host.trim_matches(['[', ']']).parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
        self.0.scheme() != "https" && !near
    }
}

impl std::fmt::Debug for KeyUrl {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.show())
    }
}

impl Scalar for KeyUrl {
    const KIND: &'static str = "URL";

    fn parse(text: &str) -> Result<Self, String> {
        // The text is not repeated: it may hold a password.
        let url = Url::parse(text.trim()).ok().filter(|url| matches!(url.scheme(), "https" | "http") && url.has_host());
        url.map(Self).ok_or_else(|| "is not the address of a web server: write https://host/path".to_owned())
    }

    fn show(&self) -> String {
        let mut url = self.0.clone();
        if url.password().is_some() {
            // Only addresses without a host have no place for a password.
            let _ = url.set_password(Some("***"));
        }
        url.to_string()
    }
}

/// Whether anything is set that tokens could be checked with, readable or not.
pub(super) fn keyed(settings: &Settings, provenance: &Provenance) -> bool {
    let set = |section: &str| KEYS.iter().any(|key| *provenance.of(&join(section, key)) != Source::Default);
    set("auth") || set("auth.subscription_token") || !settings.auth.issuers.is_empty()
}

/// What must hold between these settings: the path of a setting, and what is wrong with it.
pub(super) fn check(auth: &Auth) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (path, keys) in auth.places() {
        let mut fault = |setting: &str, message: &str| found.push((join(&path, setting), message.to_owned()));
        if keys.audience.is_some() && keys.audience_regex.is_some() {
            fault("audience_regex", "is set, and so is audience; take one of them out");
        }
        if keys.issuer.is_some() && keys.issuer_regex.is_some() {
            fault("issuer_regex", "is set, and so is issuer; take one of them out");
        }
    }
    for (place, NamedIssuer { name, keys }) in auth.issuers.iter().enumerate() {
        let same = auth.issuers[..place].iter().find(|other| keys.issuer.is_some() && other.keys.issuer == keys.issuer);
        let mut fault = |message: &str| found.push((join("auth.issuers", name), message.to_owned()));
        if keys.issuer.is_none() && keys.issuer_regex.is_none() {
            fault("has no issuer: say which iss its tokens have");
        }
        if let Some(same) = same {
            fault(&format!("has the same issuer as {}, whose keys alone would be looked at", same.name));
        }
        if !keys.any() {
            fault("has no key: give it hmac_secret, public_key or jwks_url");
        }
    }
    let own = &auth.subscription_token;
    if *own != TokenKeys::default() && !own.any() {
        let message = "has no key of its own, so that the rest of it would mean nothing: give it one, or take it out";
        found.push(("auth.subscription_token".to_owned(), message.to_owned()));
    }
    if auth.jwks_refresh < Duration::from_secs(1) {
        found.push(("auth.jwks_refresh".to_owned(), "must be at least 1s".to_owned()));
    }
    found
}

/// What may be a mistake.
pub(super) fn warnings(auth: &Auth) -> Vec<String> {
    let mut warnings = Vec::new();
    for (path, keys) in auth.places() {
        for (name, secret) in [("hmac_secret", &keys.hmac_secret), ("hmac_previous_secret", &keys.hmac_previous_secret)]
        {
            let length = secret.as_ref().map(|secret| secret.reveal().len());
            if let Some(length) = length.filter(|length| *length < SECRET_LENGTH) {
                warnings.push(format!(
                    "{path}.{name} has {length} bytes; with less than {SECRET_LENGTH} it may be guessed from a single \
                     token (`openssl rand -hex 32` makes a good one)"
                ));
            }
        }
        if keys.jwks_url.as_ref().is_some_and(KeyUrl::is_open) {
            warnings.push(format!(
                "{path}.jwks_url is not https: whoever is on the way to that address can let in whom they like"
            ));
        }
    }
    warnings
}
