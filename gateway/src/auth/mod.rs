//! stub
pub struct Verifier;
#[derive(Debug)] pub struct TokenError;
impl std::fmt::Display for TokenError { fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str("x") } }
impl TokenError { pub fn is_expired(&self) -> bool { false } }
impl Verifier { pub fn verify(&self, _t: &str) -> Result<roomcast_shared::claims::ConnectClaims, TokenError> { Err(TokenError) } }
