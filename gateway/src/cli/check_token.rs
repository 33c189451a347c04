//! `roomcast check-token`: whether this node would accept a token, and which claim fails if not.

use std::io::Read;

use serde::Serialize;

use super::{Outcome, keys};
use crate::{
    auth::{TOKEN_LIMIT, TokenError, Verifier, is_for_a_subscription},
    config::Loaded,
};

/// Checks a token. What is accepted is printed with its claims, what is not with the reason.
pub(super) fn check_token(token: &str, loaded: &Loaded) -> Outcome {
    if loaded.development {
        return Outcome::usage(
            "roomcast: there is no key to check tokens with: set auth.hmac_secret (ROOMCAST_AUTH_HMAC_SECRET) or \
             auth.public_key as the node has it\n"
                .to_owned(),
        );
    }
    let token = match token {
        "-" => read_input(),
        token => Ok(token.to_owned()),
    };
    let token = match token {
        Ok(token) => token,
        Err(error) => return Outcome::failure(format!("roomcast: cannot read the token: {error}\n")),
    };
    let verifier = keys::verifier(&loaded.settings.auth).expect("the keys were checked when the settings were loaded");
    let faults = match fetch(&verifier) {
        Ok(faults) => faults,
        Err(error) => return Outcome::failure(format!("roomcast: {error}\n")),
    };
    let token = token.trim();
    let mut outcome = if is_for_a_subscription(token) {
        answer("accepted as a subscription token", verifier.verify_subscription(token))
    } else {
        answer("accepted", verifier.verify(token))
    };
    let faults: Vec<_> = faults.iter().map(|fault| format!("roomcast: keys cannot be fetched: {fault}\n")).collect();
    outcome.stderr = faults.concat() + &outcome.stderr;
    outcome
}

fn answer<C: Serialize>(accepted: &str, verified: Result<C, TokenError>) -> Outcome {
    match verified {
        Ok(claims) => {
            let claims = serde_json::to_string_pretty(&claims).unwrap_or_else(|error| error.to_string());
            Outcome::success(format!("{accepted}\n{claims}\n"))
        }
        Err(error) => Outcome::failure(format!("refused: {error}\n")),
    }
}

/// Fetches keys as a node would; gives what went wrong.
fn fetch(verifier: &Verifier) -> std::io::Result<Vec<String>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(verifier.fetch_keys()))
}

fn read_input() -> std::io::Result<String> {
    let mut token = String::new();
    // One more than a token may have, and a line break: the verifier says that it is too long.
    std::io::stdin().take(TOKEN_LIMIT as u64 + 2).read_to_string(&mut token)?;
    Ok(token)
}
