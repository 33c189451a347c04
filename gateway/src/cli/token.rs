//! `roomcast token`: makes a token that this node accepts, for a connection or for one room.
#![expect(
    clippy::doc_markdown,
    clippy::doc_link_with_quotes,
    reason = "clap prints these texts on a terminal, where backticks are noise"
)]

use std::{
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use roomcast_shared::claims::{Caps, Overrides, Verbs};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::Outcome;
use crate::{
    auth::Signer,
    config::{self, Loaded, Secret, TokenKeys},
};

/// Which token to make.
#[derive(clap::Args)]
pub(super) struct TokenRequest {
    /// The user the token is for (claim sub); "" for nobody
    #[arg(long, short, value_name = "USER")]
    user: String,
    /// How long it is valid, such as 30s, 1h or 30d (claim exp); 0s for ever
    #[arg(long, short, value_name = "DURATION", default_value = "1h", value_parser = config::parse_duration)]
    ttl: Duration,
    /// What other clients are told of this one (claim info), in JSON
    #[arg(long, short, value_name = "JSON", value_parser = parse_json)]
    info: Option<Value>,
    /// A name for the token itself (claim jti), by which it can be revoked
    #[arg(long, value_name = "NAME")]
    jti: Option<String>,
    /// Whom the token is meant for (claim aud) [default: what the settings want]
    #[arg(long, value_name = "TEXT")]
    audience: Option<String>,
    /// Who made the token (claim iss) [default: what the settings want]
    #[arg(long, value_name = "TEXT")]
    issuer: Option<String>,
    /// A room the client enters by connecting (claim channels); may be repeated
    #[arg(long = "room", short, value_name = "ROOM", conflicts_with = "subscription")]
    rooms: Vec<String>,
    /// What the client may do beside what rules of rooms allow (claim caps), for instance
    /// '[{"channels":["news:*"],"match":"wildcard","allow":["sub"]}]'
    #[arg(long, value_name = "JSON", value_parser = parse_claim::<Caps>, conflicts_with = "subscription")]
    caps: Option<Value>,
    /// Make a subscription token instead: it opens this room, such as $board, for the user (claim channel)
    #[arg(long, value_name = "ROOM")]
    subscription: Option<String>,
    /// The only client the room is opened for (claim client)
    #[arg(long, value_name = "ID", requires = "subscription")]
    client: Option<String>,
    /// What the client may do in the room beside being in it (claim allow): pub, prs and hst, with commas
    #[arg(long, value_name = "VERBS", value_parser = parse_verbs, requires = "subscription")]
    allow: Option<Value>,
    /// What the client is told with its subscription (claim data), in JSON
    #[arg(long, value_name = "JSON", value_parser = parse_json, requires = "subscription")]
    data: Option<Value>,
    /// Rules of the room that are other for this client (claim override), for instance '{"presence":{"value":true}}'
    #[arg(long = "override", value_name = "JSON", value_parser = parse_claim::<Overrides>, requires = "subscription")]
    overrides: Option<Value>,
    /// Sign with the private key in this file (PEM: RSA, EC or Ed25519) instead of auth.hmac_secret
    #[arg(long, value_name = "FILE")]
    private_key: Option<PathBuf>,
    /// The name of that key (header kid), by which it is found among keys that are fetched
    #[arg(long, value_name = "NAME", requires = "private_key")]
    kid: Option<String>,
    /// Sign with this algorithm [default: HS256, RS256, ES256, ES384 or EdDSA, as the key is]
    #[arg(long, value_name = "ALGORITHM")]
    alg: Option<String>,
}

fn parse_json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text)
        .map_err(|error| format!("is not JSON ({error}); write for instance '{{\"name\":\"Ann\"}}'"))
}

/// JSON that a node would read as this.
fn parse_claim<T: DeserializeOwned>(text: &str) -> Result<Value, String> {
    let value = parse_json(text)?;
    serde_json::from_str::<T>(text).map_err(|error| error.to_string())?;
    Ok(value)
}

fn parse_verbs(text: &str) -> Result<Value, String> {
    let verbs: Vec<_> = text.split(',').map(str::trim).collect();
    let value = Value::from(verbs);
    serde_json::from_value::<Verbs>(value.clone()).map_err(|error| error.to_string())?;
    Ok(value)
}

/// Makes the token. Audience and issuer are those of the settings, so that the node accepts it.
pub(super) fn token(request: &TokenRequest, loaded: &Loaded) -> Outcome {
    let (path, keys) = keys(request, loaded);
    let claims = claims(request, keys);
    let signed = signer(request, loaded, path, keys).and_then(|signer| {
        let signer = match &request.kid {
            Some(kid) => signer.named(kid),
            None => signer,
        };
        signer.sign(&claims).map_err(|error| error.to_string())
    });
    match signed {
        Ok(token) => Outcome::success(format!("{token}\n")),
        Err(message) => Outcome::usage(format!("roomcast: {message}\n")),
    }
}

/// The settings that a token of this kind is checked with, and where they stand.
fn keys<'a>(request: &TokenRequest, loaded: &'a Loaded) -> (&'static str, &'a TokenKeys) {
    let auth = &loaded.settings.auth;
    let own = Some(&auth.subscription_token).filter(|own| request.subscription.is_some() && own.any());
    own.map_or(("auth", &auth.keys.0), |own| ("auth.subscription_token", own))
}

fn signer(request: &TokenRequest, loaded: &Loaded, path: &str, keys: &TokenKeys) -> Result<Signer, String> {
    let algorithm = request.alg.as_deref();
    if let Some(file) = &request.private_key {
        let pem = std::fs::read_to_string(file)
            .map_err(|error| format!("cannot read the private key {}: {error}", file.display()))?;
        return Signer::from_pem(&pem, algorithm).map_err(|error| format!("{}: {error}", file.display()));
    }
    let secret = keys.hmac_secret.as_ref().filter(|_| !loaded.development).map(Secret::reveal);
    let secret = secret.ok_or_else(|| {
        format!(
            "there is no secret to sign with: set {path}.hmac_secret ({}) as the node has it, or pass --private-key \
             FILE. A node in development mode has a random secret that nobody else knows; it prints a ready token when \
             it starts",
            config::variable(&format!("{path}.hmac_secret"))
        )
    })?;
    Signer::from_secret(secret, algorithm).map_err(|error| format!("{path}.hmac_secret {error}"))
}

fn claims(request: &TokenRequest, keys: &TokenKeys) -> Map<String, Value> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let exp = Some(request.ttl).filter(|ttl| !ttl.is_zero()).map(|ttl| Value::from(now.saturating_add(ttl.as_secs())));
    let rooms = Some(&request.rooms).filter(|rooms| !rooms.is_empty()).map(|rooms| Value::from(rooms.as_slice()));
    let text = |text: Option<&String>| text.map(|text| Value::from(text.as_str()));
    let optional = [
        ("exp", exp),
        ("jti", text(request.jti.as_ref())),
        ("aud", text(request.audience.as_ref().or(keys.audience.as_ref()))),
        ("iss", text(request.issuer.as_ref().or(keys.issuer.as_ref()))),
        ("channels", rooms),
        ("caps", request.caps.clone()),
        ("channel", text(request.subscription.as_ref())),
        ("client", text(request.client.as_ref())),
        ("allow", request.allow.clone()),
        ("info", request.info.clone()),
        ("data", request.data.clone()),
        ("override", request.overrides.clone()),
    ];
    let given = optional.into_iter().filter_map(|(name, value)| value.map(|value| (name, value)));
    let user = keys.user_id_claim.as_deref().unwrap_or("sub");
    let always = [(user, Value::from(request.user.as_str())), ("iat", Value::from(now))];
    always.into_iter().chain(given).map(|(name, value)| (name.to_owned(), value)).collect()
}
