//! `roomcast check-token`: whether this node would accept a token, and which claim fails if not.

use std::io::Read;

use super::{Outcome, keys};
use crate::{auth::TOKEN_LIMIT, config::Loaded};

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
    let verified = keys::verifier(&loaded.settings.auth).expect("the keys were checked when the settings were loaded");
    match verified.verify(token.trim()) {
        Ok(claims) => {
            let claims = serde_json::to_string_pretty(&claims).unwrap_or_else(|error| error.to_string());
            Outcome::success(format!("accepted\n{claims}\n"))
        }
        Err(error) => Outcome::failure(format!("refused: {error}\n")),
    }
}

fn read_input() -> std::io::Result<String> {
    let mut token = String::new();
    // One more than a token may have, and a line break: the verifier says that it is too long.
    std::io::stdin().take(TOKEN_LIMIT as u64 + 2).read_to_string(&mut token)?;
    Ok(token)
}
