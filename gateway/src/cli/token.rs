//! `roomcast token`: makes a connection token that this node accepts.
#![expect(clippy::doc_markdown, reason = "clap prints these texts on a terminal, where backticks are noise")]

use std::{
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Map, Value};

use super::Outcome;
use crate::{
    auth::Signer,
    config::{self, Auth, Loaded, Secret},
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
    /// A room the client enters by connecting (claim channels); may be repeated
    #[arg(long = "room", short, value_name = "ROOM")]
    rooms: Vec<String>,
    /// What other clients are told of this one (claim info), in JSON
    #[arg(long, short, value_name = "JSON", value_parser = parse_json)]
    info: Option<Value>,
    /// Sign with the private key in this file (PEM: RSA, EC or Ed25519) instead of auth.hmac_secret
    #[arg(long, value_name = "FILE")]
    private_key: Option<PathBuf>,
    /// Sign with this algorithm [default: HS256, RS256, ES256, ES384 or EdDSA, as the key is]
    #[arg(long, value_name = "ALGORITHM")]
    alg: Option<String>,
}

fn parse_json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text)
        .map_err(|error| format!("is not JSON ({error}); write for instance '{{\"name\":\"Ann\"}}'"))
}

/// Makes the token. Audience and issuer are those of the settings, so that the node accepts it.
pub(super) fn token(request: &TokenRequest, loaded: &Loaded) -> Outcome {
    let claims = claims(request, &loaded.settings.auth);
    let token = signer(request, loaded).and_then(|signer| signer.sign(&claims).map_err(|error| error.to_string()));
    match token {
        Ok(token) => Outcome::success(format!("{token}\n")),
        Err(message) => Outcome::usage(format!("roomcast: {message}\n")),
    }
}

fn signer(request: &TokenRequest, loaded: &Loaded) -> Result<Signer, String> {
    let algorithm = request.alg.as_deref();
    if let Some(path) = &request.private_key {
        let pem = std::fs::read_to_string(path)
            .map_err(|error| format!("cannot read the private key {}: {error}", path.display()))?;
        return Signer::from_pem(&pem, algorithm).map_err(|error| format!("{}: {error}", path.display()));
    }
    let secret = loaded.settings.auth.hmac_secret.as_ref().filter(|_| !loaded.development).map(Secret::reveal);
    let secret = secret.ok_or(
        "there is no secret to sign with: set auth.hmac_secret (ROOMCAST_AUTH_HMAC_SECRET) as the node has it, or \
         pass --private-key FILE. A node in development mode has a random secret that nobody else knows; it prints a \
         ready token when it starts",
    )?;
    Signer::from_secret(secret, algorithm).map_err(|error| format!("auth.hmac_secret {error}"))
}

fn claims(request: &TokenRequest, auth: &Auth) -> Map<String, Value> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let exp = Some(request.ttl).filter(|ttl| !ttl.is_zero()).map(|ttl| Value::from(now.saturating_add(ttl.as_secs())));
    let rooms = Some(&request.rooms).filter(|rooms| !rooms.is_empty()).map(|rooms| Value::from(rooms.as_slice()));
    let optional = [
        ("exp", exp),
        ("aud", auth.audience.clone().map(Value::from)),
        ("iss", auth.issuer.clone().map(Value::from)),
        ("channels", rooms),
        ("info", request.info.clone()),
    ];
    let given = optional.into_iter().filter_map(|(name, value)| value.map(|value| (name, value)));
    let always = [("sub", Value::from(request.user.as_str())), ("iat", Value::from(now))];
    always.into_iter().chain(given).map(|(name, value)| (name.to_owned(), value)).collect()
}
