//! Key pairs for tests, fresh each time, in PEM as people have them.

#![expect(clippy::unwrap_used, reason = "a test whose setting up fails has failed")]

use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    rsa,
    signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
};
use base64::{Engine, prelude::BASE64_STANDARD};

/// PEM text of that kind.
pub(crate) fn pem(kind: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n", lines.join("\n"))
}

/// A new pair, private key first: `rsa`, `p256`, `p384`, `p521`, `secp256k1` or `ed25519`.
pub(crate) fn pair(kind: &str) -> (String, String) {
    let (private, public) = match kind {
        "rsa" => {
            let pair = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
            let private: aws_lc_rs::encoding::Pkcs8V1Der<'_> = pair.as_der().unwrap();
            let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
            (private.as_ref().to_vec(), public.as_ref().to_vec())
        }
        "ed25519" => {
            let pair = Ed25519KeyPair::generate().unwrap();
            let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
            (pair.to_pkcs8v1().unwrap().as_ref().to_vec(), public.as_ref().to_vec())
        }
        curve => {
            let algorithm = match curve {
                "p256" => &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
                "p384" => &signature::ECDSA_P384_SHA384_FIXED_SIGNING,
                "p521" => &signature::ECDSA_P521_SHA512_FIXED_SIGNING,
                _ => &signature::ECDSA_P256K1_SHA256_FIXED_SIGNING,
            };
            let pair = EcdsaKeyPair::generate(algorithm).unwrap();
            let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
            (pair.to_pkcs8v1().unwrap().as_ref().to_vec(), public.as_ref().to_vec())
        }
    };
    (pem("PRIVATE KEY", &private), pem("PUBLIC KEY", &public))
}
