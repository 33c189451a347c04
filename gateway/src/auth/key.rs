//! Keys in PEM: which algorithms each may be used with, and why one cannot be used. The algorithms come from the key
//! alone; a token has no say in them.

use base64::{Engine, prelude::BASE64_STANDARD};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use thiserror::Error;

/// RSA keys below this may be broken by those who can afford it (RFC 7518, section 3.3); above 8192 nobody verifies them.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// Algorithms of an RSA key.
pub(super) const RSA: &[Algorithm] =
    &[Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS384, Algorithm::PS512];

/// Object identifiers of the curves, as DER spells them: prime256v1 and secp384r1 (RFC 5480, section 2.1.1.1).
const CURVES: &[(&[u8], Algorithm)] = &[
    (b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07", Algorithm::ES256),
    (b"\x06\x05\x2b\x81\x04\x00\x22", Algorithm::ES384),
];

/// Why a key cannot be used. Never quotes the key.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum KeyError {
    /// Something else, or nothing, stands where the key should.
    #[error("is not a key in PEM: it begins with -----BEGIN {0}-----")]
    NotPem(&'static str),
    /// The PEM text holds several things.
    #[error("holds more than one PEM block; leave only the key")]
    Several,
    /// A certificate is not taken for the key in it.
    #[error("is a certificate; take its key out with `openssl x509 -pubkey -noout`")]
    Certificate,
    /// A private key that needs a pass phrase.
    #[error("is encrypted; write it without a pass phrase: `openssl pkcs8 -topk8 -nocrypt`")]
    Encrypted,
    /// An EC private key in its older form (RFC 5915).
    #[error("is an EC key in its older form; convert it with `openssl pkcs8 -topk8 -nocrypt`")]
    Sec1,
    /// PEM, but nothing in it that is understood.
    #[error("cannot be read as a key: RSA, EC (P-256 or P-384) and Ed25519 are known")]
    Unreadable,
    /// An EC key on another curve.
    #[error("is an EC key on another curve than P-256 and P-384, or its point is compressed")]
    Curve,
    /// An RSA key of a size that is not safe, or not usable.
    #[error("is an RSA key of {0} bits; {min} to {max} are accepted", min = RSA_BITS.start(), max = RSA_BITS.end())]
    RsaSize(usize),
    /// A shared secret where public keys are published.
    #[error("is a shared secret; whoever reads it could sign with it")]
    Shared,
    /// A key for something else.
    #[error("is not for checking signatures")]
    Purpose,
    /// The key cannot be used with that algorithm.
    #[error("cannot be used with {asked}; it is for {known}")]
    Algorithm {
        /// What was asked for.
        asked: String,
        /// What the key is for.
        known: String,
    },
    /// The key was read, and signing with it failed.
    #[error("cannot sign with this key")]
    Signing,
}

impl KeyError {
    pub(super) fn algorithm(asked: &str, known: &[Algorithm]) -> Self {
        let known = known.iter().map(|algorithm| format!("{algorithm:?}")).collect::<Vec<_>>().join(", ");
        Self::Algorithm { asked: asked.to_owned(), known }
    }
}

/// Reads a public key and says what it may verify.
pub(super) fn public(pem: &str) -> Result<(DecodingKey, &'static [Algorithm]), KeyError> {
    let kind = block(pem, "PUBLIC KEY")?;
    let text = pem.as_bytes();
    if let Ok(key) = DecodingKey::from_rsa_pem(text) {
        check_rsa_size(key.try_get_as_bytes().unwrap_or_default())?;
        return Ok((key, RSA));
    }
    if kind != "PUBLIC KEY" {
        return Err(KeyError::Unreadable);
    }
    if let Ok(key) = DecodingKey::from_ed_pem(text) {
        return Ok((key, &[Algorithm::EdDSA]));
    }
    let key = DecodingKey::from_ec_pem(text).map_err(|_| KeyError::Unreadable)?;
    let (algorithms, length) = match curve(pem)? {
        Algorithm::ES256 => (&[Algorithm::ES256], 65),
        _ => (&[Algorithm::ES384], 97),
    };
    match key.try_get_as_bytes() {
        // An uncompressed point: a byte that says so and two coordinates.
        Ok([4, coordinates @ ..]) if coordinates.len() + 1 == length => Ok((key, algorithms)),
        _ => Err(KeyError::Curve),
    }
}

/// Reads a private key and says what it may sign with, the usual algorithm first.
pub(super) fn private(pem: &str) -> Result<(EncodingKey, &'static [Algorithm]), KeyError> {
    let kind = block(pem, "PRIVATE KEY")?;
    if kind == "EC PRIVATE KEY" {
        return Err(KeyError::Sec1);
    }
    if kind == "ENCRYPTED PRIVATE KEY" || pem.contains("Proc-Type: 4,ENCRYPTED") {
        return Err(KeyError::Encrypted);
    }
    let text = pem.as_bytes();
    if let Ok(key) = EncodingKey::from_rsa_pem(text) {
        return Ok((key, RSA));
    }
    if let Ok(key) = EncodingKey::from_ed_pem(text) {
        return Ok((key, &[Algorithm::EdDSA]));
    }
    let key = EncodingKey::from_ec_pem(text).map_err(|_| KeyError::Unreadable)?;
    match curve(pem)? {
        Algorithm::ES256 => Ok((key, &[Algorithm::ES256])),
        _ => Ok((key, &[Algorithm::ES384])),
    }
}

/// What the one PEM block of a text says it is.
fn block<'a>(pem: &'a str, wanted: &'static str) -> Result<&'a str, KeyError> {
    let mut blocks = pem.split("-----BEGIN ").skip(1).map(|rest| rest.split("-----").next().unwrap_or_default());
    match (blocks.next(), blocks.next()) {
        (Some(kind), None) if kind.ends_with(wanted) => Ok(kind),
        (Some("CERTIFICATE"), None) => Err(KeyError::Certificate),
        (Some(_), Some(_)) => Err(KeyError::Several),
        _ => Err(KeyError::NotPem(wanted)),
    }
}

/// The curve a PEM text names, by the algorithm that goes with it.
fn curve(pem: &str) -> Result<Algorithm, KeyError> {
    let body: String = pem.lines().map(str::trim).filter(|line| !line.starts_with("-----")).collect();
    let der = BASE64_STANDARD.decode(body).map_err(|_| KeyError::Unreadable)?;
    let names = |oid: &[u8]| der.windows(oid.len()).any(|window| window == oid);
    CURVES.iter().find(|(oid, _)| names(oid)).map(|(_, algorithm)| *algorithm).ok_or(KeyError::Curve)
}

/// Checks the modulus of an RSA public key: the first number of a sequence (RFC 8017, appendix A.1.1).
fn check_rsa_size(der: &[u8]) -> Result<(), KeyError> {
    let modulus =
        der_content(0x30, der).and_then(|sequence| der_content(0x02, sequence)).ok_or(KeyError::Unreadable)?;
    check_modulus(modulus)
}

/// Checks the size of an RSA key by its modulus, leading zeros and all.
pub(super) fn check_modulus(modulus: &[u8]) -> Result<(), KeyError> {
    let first = modulus.iter().position(|byte| *byte != 0).unwrap_or(modulus.len());
    let bits = modulus[first..].len() * 8 - modulus.get(first).map_or(0, |byte| byte.leading_zeros() as usize);
    if RSA_BITS.contains(&bits) { Ok(()) } else { Err(KeyError::RsaSize(bits)) }
}

/// The content of the DER element (X.690) that `der` begins with, if it has that tag.
fn der_content(tag: u8, der: &[u8]) -> Option<&[u8]> {
    let (found, rest) = der.split_first()?;
    let (length, rest) = rest.split_first()?;
    let (length, rest) = match usize::from(*length) {
        short @ 0..=127 => (short, rest),
        long => {
            let (digits, rest) = rest.split_at_checked(long - 128).filter(|(digits, _)| digits.len() <= 4)?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
    };
    (*found == tag).then(|| rest.get(..length)).flatten()
}
