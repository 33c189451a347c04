//! Joins the settings with what makes and checks tokens; neither knows the other.

use std::time::Duration;

use crate::{
    auth::{KeyError, KeySource, Keys, Signer, Trust, Verifier},
    config::{Auth, KeyUrl, Pattern, Pem, Secret, Settings, TokenKeys},
};

/// Shortest time between two fetches of keys, when tokens name keys that are not known yet.
const FETCH_PAUSE: Duration = Duration::from_secs(10);

/// What checks the tokens of clients under these settings.
///
/// # Errors
/// A public key cannot be used.
pub fn verifier(auth: &Auth) -> Result<Verifier, KeyError> {
    Verifier::new(trust(auth))
}

/// The keys of these settings, for a node that runs and takes other ones.
pub fn trust(auth: &Auth) -> Trust<'_> {
    let refresh = auth.jwks_refresh;
    Trust {
        connection: keys(&auth.keys.0, refresh),
        subscription: Some(&auth.subscription_token).filter(|own| own.any()).map(|own| keys(own, refresh)),
        issuers: auth.issuers.iter().map(|issuer| keys(&issuer.keys, refresh)).collect(),
    }
}

fn keys(keys: &TokenKeys, refresh: Duration) -> Keys<'_> {
    let source = |url| KeySource { url, refresh, pause: FETCH_PAUSE.min(refresh) };
    Keys {
        hmac_secret: keys.hmac_secret.as_ref().map(Secret::reveal),
        hmac_previous_secret: keys.hmac_previous_secret.as_ref().map(Secret::reveal),
        public_key: keys.public_key.as_ref().map(Pem::as_str),
        jwks: keys.jwks_url.as_ref().map(KeyUrl::reveal).map(source),
        audience: keys.audience.as_deref(),
        audience_regex: keys.audience_regex.as_ref().map(Pattern::regex),
        issuer: keys.issuer.as_deref(),
        issuer_regex: keys.issuer_regex.as_ref().map(Pattern::regex),
        user_claim: keys.user_id_claim.as_deref(),
    }
}

/// What signs tokens with the secret of these settings; `None` without a secret.
pub fn signer(auth: &Auth) -> Option<Result<Signer, KeyError>> {
    auth.hmac_secret.as_ref().map(|secret| Signer::from_secret(secret.reveal(), None))
}

/// Checks that the keys in the settings can be used.
pub(super) fn check(settings: &Settings) -> Vec<(String, String)> {
    let auth = &settings.auth;
    let fault = |(path, place): (String, &TokenKeys)| {
        let error = Verifier::new(&keys(place, auth.jwks_refresh)).err()?;
        Some((format!("{path}.public_key"), error.to_string()))
    };
    auth.places().filter_map(fault).collect()
}
