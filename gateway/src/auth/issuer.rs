//! One issuer of tokens: its keys, and what its tokens have to say of audience, issuer and user.

use std::collections::HashMap;

use regex::Regex;
use roomcast_shared::claims::RegisteredClaims;
use serde_json::value::RawValue;

use super::{
    Keys,
    keyset::KeySet,
    token::{TokenError, quote},
};

/// What a claim has to be.
enum Expected {
    Text(String),
    Pattern(Regex),
}

impl Expected {
    fn new(text: Option<&str>, pattern: Option<&Regex>) -> Option<Self> {
        text.map(|text| Self::Text(text.to_owned())).or_else(|| pattern.cloned().map(Self::Pattern))
    }

    fn accepts(&self, value: &str) -> bool {
        match self {
            Self::Text(text) => text == value,
            Self::Pattern(pattern) => pattern.is_match(value),
        }
    }

    fn as_str(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Pattern(pattern) => pattern.as_str(),
        }
    }
}

/// An issuer whose tokens are accepted.
pub(super) struct Issuer {
    pub(super) keys: KeySet,
    audience: Option<Expected>,
    iss: Option<Expected>,
    user_claim: Option<Box<str>>,
}

impl Issuer {
    pub(super) fn new(keys: &Keys<'_>, set: KeySet) -> Self {
        Self {
            keys: set,
            audience: Expected::new(keys.audience, keys.audience_regex),
            iss: Expected::new(keys.issuer, keys.issuer_regex),
            user_claim: keys.user_claim.filter(|claim| *claim != "sub").map(Box::from),
        }
    }

    /// Whether tokens with this `iss` are this issuer's. One that does not say which it wants has none by that name.
    pub(super) fn is_named(&self, iss: &str) -> bool {
        self.iss.as_ref().is_some_and(|issuer| issuer.accepts(iss))
    }

    /// What its tokens have to have as `iss`, for people.
    pub(super) fn wanted(&self) -> Option<&str> {
        self.iss.as_ref().map(Expected::as_str)
    }

    /// Checks whom a token is meant for, and who made it.
    pub(super) fn check(&self, claims: &RegisteredClaims) -> Result<(), TokenError> {
        let accepted = |wanted: &&Expected| !claims.aud.iter().any(|audience| wanted.accepts(audience));
        if let Some(wanted) = self.audience.as_ref().filter(accepted) {
            let has = claims.aud.iter().map(|audience| format!("{audience:?}")).collect::<Vec<_>>().join(", ");
            let has = if has.is_empty() { "none".to_owned() } else { quote(&has) };
            return Err(TokenError::WrongAudience { wanted: wanted.as_str().to_owned(), has });
        }
        if let Some(wanted) = self.iss.as_ref().filter(|wanted| !wanted.accepts(&claims.iss)) {
            return Err(TokenError::wrong_issuer(wanted.as_str(), &claims.iss));
        }
        Ok(())
    }

    /// The user a token names, where another claim than `sub` does. A whole number is taken as its digits.
    pub(super) fn user(&self, claims: &str) -> Result<Option<String>, TokenError> {
        let Some(name) = &self.user_claim else { return Ok(None) };
        let bad = || TokenError::BadClaim(format!("claim `{name}`: a text or a whole number was expected"));
        let all: HashMap<String, &RawValue> = serde_json::from_str(claims).map_err(|_| bad())?;
        let Some(value) = all.get(name.as_ref()).map(|value| value.get()).filter(|value| *value != "null") else {
            return Ok(Some(String::new()));
        };
        let whole = value.strip_prefix('-').unwrap_or(value).bytes().all(|byte| byte.is_ascii_digit());
        let user = if whole { Ok(value.to_owned()) } else { serde_json::from_str(value).map_err(|_| bad()) };
        user.map(Some)
    }
}
