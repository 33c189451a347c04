//! Joins the settings with what makes and checks tokens; neither knows the other.

use crate::{
    auth::{KeyError, Keys, Signer, Verifier},
    config::{Auth, Pem, Secret, Settings},
};

/// What checks the tokens of clients under these settings.
///
/// # Errors
/// The public key cannot be used.
pub fn verifier(auth: &Auth) -> Result<Verifier, KeyError> {
    Verifier::new(&Keys {
        hmac_secret: auth.hmac_secret.as_ref().map(Secret::reveal),
        hmac_previous_secret: auth.hmac_previous_secret.as_ref().map(Secret::reveal),
        public_key: auth.public_key.as_ref().map(Pem::as_str),
        audience: auth.audience.as_deref(),
        issuer: auth.issuer.as_deref(),
    })
}

/// What signs tokens with the secret of these settings; `None` without a secret.
pub fn signer(auth: &Auth) -> Option<Result<Signer, KeyError>> {
    auth.hmac_secret.as_ref().map(|secret| Signer::from_secret(secret.reveal(), None))
}

/// Checks that the keys in the settings can be used.
pub(super) fn check(settings: &Settings) -> Vec<(&'static str, String)> {
    verifier(&settings.auth).err().map(|error| ("auth.public_key", error.to_string())).into_iter().collect()
}
