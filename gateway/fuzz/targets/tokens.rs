//! Tokens, of somebody who does not have the key and of somebody who has it.

use std::{
    sync::LazyLock,
    time::{Duration, UNIX_EPOCH},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey};
use roomcast::auth::{Keys, TOKEN_LIMIT, Verifier};
use roomcast_shared::claims::{ConnectClaims, SubscribeClaims};

use crate::{ITERATIONS, memory::taken};

const SECRET: &str = "a-secret-of-the-tests-that-is-long-enough";
/// The time of the tests, in seconds since 1970.
const NOW: u64 = 1_700_000_000;

static VERIFIER: LazyLock<Verifier> = LazyLock::new(|| {
    Verifier::new(&Keys { hmac_secret: Some(SECRET), ..Keys::default() }).expect("any secret is a key")
});

/// A text that nobody signed is refused, with a reason that is short and does not break a line of the log.
#[test]
fn unsigned() {
    bolero::check!().with_iterations(ITERATIONS).for_each(|input: &[u8]| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        let (refused, memory) = taken(|| VERIFIER.verify(text).expect_err("nobody knows the key").to_string());
        assert!(refused.len() < 1024 && !refused.contains(|letter: char| letter.is_control()), "{refused:?}");
        assert!(memory <= 64 * text.len().min(TOKEN_LIMIT) as u64 + 8192, "{memory} bytes for {}", text.len());
        assert!(VERIFIER.verify_subscription(text).is_err());
    });
}

/// What is accepted is what was signed: it has a header that names the algorithm of the signature, it holds at the time, and
/// its claims are those of the text, which mean the same when they are written again. With the least change to the signature
/// it is refused. The first byte chooses the algorithm; header and claims are parted by the first line break.
#[test]
fn signed() {
    bolero::check!().with_iterations(ITERATIONS).for_each(|input: &[u8]| {
        let Some((&choice, text)) = input.split_first() else { return };
        let end = text.iter().position(|byte| *byte == b'\n').unwrap_or(text.len());
        let (header, claims) = (&text[..end], &text[(end + 1).min(text.len())..]);
        let algorithm = [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512][usize::from(choice % 3)];
        let header =
            if header.is_empty() { format!(r#"{{"alg":"{algorithm:?}"}}"#).into_bytes() } else { header.to_vec() };
        let token = sign(algorithm, &header, claims);
        let at = UNIX_EPOCH + Duration::from_secs(NOW);

        let (connection, subscription) = (VERIFIER.verify_at(&token, at), VERIFIER.verify_subscription_at(&token, at));
        for refused in [connection.as_ref().err(), subscription.as_ref().err()].into_iter().flatten() {
            let refused = refused.to_string();
            assert!(refused.len() < 2048 && !refused.contains(|letter: char| letter.is_control()), "{refused:?}");
        }
        if connection.is_ok() || subscription.is_ok() {
            let header: serde_json::Value = serde_json::from_slice(&header).expect("it was understood");
            assert_eq!(header["alg"], format!("{algorithm:?}"));
            let other = changed(&token);
            assert!(VERIFIER.verify_at(&other, at).is_err() && VERIFIER.verify_subscription_at(&other, at).is_err());
        }
        if let Ok(claims_read) = connection {
            assert!(claims_read.registered.exp.is_none_or(|exp| exp > NOW));
            assert!(
                claims_read.channel.as_deref().is_none_or(str::is_empty),
                "a subscription token is none for connecting"
            );
            let written = serde_json::to_string(&claims_read).expect("claims are written");
            assert_eq!(serde_json::from_str::<ConnectClaims>(&written).ok(), Some(claims_read), "{written}");
        }
        if let Ok(claims_read) = subscription {
            assert!(claims_read.registered.exp.is_none_or(|exp| exp > NOW));
            let written = serde_json::to_string(&claims_read).expect("claims are written");
            assert_eq!(serde_json::from_str::<SubscribeClaims>(&written).ok(), Some(claims_read), "{written}");
        }
    });
}

fn sign(algorithm: Algorithm, header: &[u8], claims: &[u8]) -> String {
    let (header, claims) = (BASE64_URL_SAFE_NO_PAD.encode(header), BASE64_URL_SAFE_NO_PAD.encode(claims));
    let message = format!("{header}.{claims}");
    let signature =
        jsonwebtoken::crypto::sign(message.as_bytes(), &EncodingKey::from_secret(SECRET.as_bytes()), algorithm);
    format!("{message}.{}", signature.expect("a secret signs"))
}

/// The token with the first letter of its signature changed.
fn changed(token: &str) -> String {
    let (message, signature) = token.rsplit_once('.').expect("it has three parts");
    let first = if signature.starts_with('A') { 'B' } else { 'A' };
    format!("{message}.{first}{}", &signature[1..])
}
