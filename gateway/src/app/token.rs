//! The token that development mode hands out, so that nobody has to make one to begin.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use roomcast_shared::claims::{ConnectClaims, RegisteredClaims};

use crate::{cli, config::Settings};

/// Who it is for.
const USER: &str = "developer";

/// How long it is good; the secret it is signed with lives no longer than the node.
const TTL: Duration = Duration::from_hours(7 * 24);

/// A token signed with the secret of these settings; empty where there is none.
pub(super) fn development(settings: &Settings) -> String {
    let expires = SystemTime::now() + TTL;
    let exp = expires.duration_since(UNIX_EPOCH).map(|since| since.as_secs()).ok();
    let registered = RegisteredClaims { sub: USER.to_owned(), exp, ..RegisteredClaims::default() };
    let claims = ConnectClaims { registered, ..ConnectClaims::default() };
    let signed = cli::signer(&settings.auth).map(|signer| signer.and_then(|signer| signer.sign(&claims)));
    signed.and_then(Result::ok).unwrap_or_default()
}
