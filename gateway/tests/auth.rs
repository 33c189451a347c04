//! Tokens: what is accepted under which key, and what is refused and why.

#![expect(clippy::unwrap_used, reason = "a test whose setting up fails has failed")]

#[path = "common/keys.rs"]
mod keys;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use keys::{pair, pem};
use proptest::prelude::*;
use roomcast::auth::{KeyError, Keys, Signer, TOKEN_LIMIT, TokenError, Verifier};
use serde_json::{Value, json};

const SECRET: &str = "a-secret-of-more-than-thirty-two-bytes";
const OTHER: &str = "another-secret-of-more-than-32-bytes";

/// The moment at which these tokens are checked.
const NOW: u64 = 1_800_000_000;

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW)
}

fn with_secret() -> Verifier {
    Verifier::new(&Keys { hmac_secret: Some(SECRET), ..Keys::default() }).unwrap()
}

fn with_public(public: &str) -> Verifier {
    Verifier::new(&Keys { public_key: Some(public), ..Keys::default() }).unwrap()
}

fn signed(claims: &Value) -> String {
    Signer::from_secret(SECRET, None).unwrap().sign(claims).unwrap()
}

/// A token of exactly these texts, signed with HMAC-SHA-256.
fn raw(header: &str, claims: &str, secret: &[u8]) -> String {
    let part = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
    let message = format!("{}.{}", part(header), part(claims));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
    format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(tag))
}

fn refusal(verifier: &Verifier, token: &str) -> TokenError {
    match verifier.verify_at(token, now()) {
        Ok(claims) => panic!("accepted: {claims:?}"),
        Err(error) => error,
    }
}

fn refused_claims(claims: &str) -> TokenError {
    refusal(&with_secret(), &raw(r#"{"alg":"HS256"}"#, claims, SECRET.as_bytes()))
}

#[test]
fn every_algorithm_of_every_key_is_accepted_and_only_with_that_key() {
    let all = [
        ("secret", vec!["HS256", "HS384", "HS512"]),
        ("rsa", vec!["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]),
        ("p256", vec!["ES256"]),
        ("p384", vec!["ES384"]),
        ("ed25519", vec!["EdDSA"]),
    ];
    let pairs: Vec<_> = all
        .iter()
        .map(|(kind, _)| if *kind == "secret" { (String::new(), String::new()) } else { pair(kind) })
        .collect();
    let verifiers: Vec<_> =
        pairs.iter().map(|(_, public)| if public.is_empty() { with_secret() } else { with_public(public) }).collect();
    for (place, (kind, algorithms)) in all.iter().enumerate() {
        for algorithm in algorithms {
            let signer = match *kind {
                "secret" => Signer::from_secret(SECRET, Some(algorithm)),
                _ => Signer::from_pem(&pairs[place].0, Some(algorithm)),
            };
            let token = signer.unwrap().sign(&json!({"sub": "u1"})).unwrap();
            for (other, verifier) in verifiers.iter().enumerate() {
                match verifier.verify_at(&token, now()) {
                    Ok(claims) => assert!(other == place && claims.sub == "u1", "{algorithm} with key {other}"),
                    Err(error) => {
                        assert_ne!(other, place, "{algorithm}: {error}");
                        assert_eq!(error, TokenError::UnknownKey { algorithm: (*algorithm).to_owned() });
                    }
                }
            }
        }
    }
}

#[test]
fn another_key_of_the_same_kind_is_a_bad_signature() {
    for kind in ["rsa", "p256", "p384", "ed25519"] {
        let token = Signer::from_pem(&pair(kind).0, None).unwrap().sign(&json!({"sub": "u1"})).unwrap();
        assert_eq!(refusal(&with_public(&pair(kind).1), &token), TokenError::BadSignature, "{kind}");
    }
    let token = Signer::from_secret(OTHER, None).unwrap().sign(&json!({"sub": "u1"})).unwrap();
    assert_eq!(refusal(&with_secret(), &token), TokenError::BadSignature);
}

#[test]
fn during_rotation_both_secrets_and_the_public_key_are_good() {
    let (private, public) = pair("p256");
    let keys = Keys {
        hmac_secret: Some(SECRET),
        hmac_previous_secret: Some(OTHER),
        public_key: Some(&public),
        ..Keys::default()
    };
    let verifier = Verifier::new(&keys).unwrap();
    let signers =
        [Signer::from_secret(SECRET, None), Signer::from_secret(OTHER, None), Signer::from_pem(&private, None)];
    for signer in signers {
        let token = signer.unwrap().sign(&json!({"sub": "u1"})).unwrap();
        assert_eq!(verifier.verify_at(&token, now()).unwrap().sub, "u1");
    }
    let third = Signer::from_secret("a-third-secret-that-nobody-here-knows", None).unwrap();
    assert_eq!(refusal(&verifier, &third.sign(&json!({"sub": "u1"})).unwrap()), TokenError::BadSignature);
}

#[test]
fn time_is_judged_to_the_second_and_without_grace() {
    let verifier = with_secret();
    let check = |claims: Value| verifier.verify_at(&signed(&claims), now());
    assert!(check(json!({"sub": "u1"})).is_ok());
    assert!(check(json!({"exp": NOW + 1, "nbf": NOW, "iat": NOW + 900})).is_ok());
    assert_eq!(check(json!({"exp": NOW})).unwrap_err(), TokenError::Expired { ago: Duration::ZERO });
    let expired = check(json!({"exp": NOW - 190})).unwrap_err();
    assert_eq!(expired, TokenError::Expired { ago: Duration::from_secs(190) });
    assert_eq!(expired.to_string(), "expired 3m 10s ago (claim exp)");
    let early = check(json!({"nbf": NOW + 600})).unwrap_err();
    assert_eq!(early.to_string(), "not valid before 10m from now (claim nbf)");
    assert!(expired.is_expired() && early.is_expired());
    assert!(!TokenError::BadSignature.is_expired());
}

#[test]
fn odd_times_are_read_or_refused_and_never_taken_for_no_time() {
    for expired in ["0", "-1", "1.5", "-1e300", "1799999999.9"] {
        let error = refused_claims(&format!(r#"{{"exp":{expired}}}"#));
        assert!(matches!(error, TokenError::Expired { .. }), "{expired}: {error}");
    }
    for early in ["18446744073709551615", "1e300", "1800000001"] {
        let error = refused_claims(&format!(r#"{{"nbf":{early}}}"#));
        assert!(matches!(error, TokenError::NotYetValid { .. }), "{early}: {error}");
    }
    for bad in [r#""1900000000""#, "true", "[1900000000]", "{}", r#""""#] {
        for claim in ["exp", "nbf"] {
            let error = refused_claims(&format!(r#"{{"{claim}":{bad}}}"#));
            assert!(matches!(&error, TokenError::BadClaim(what) if what.contains(claim)), "{claim} {bad}: {error}");
        }
    }
    let far = raw(r#"{"alg":"HS256"}"#, r#"{"exp":18446744073709551615,"nbf":0}"#, SECRET.as_bytes());
    assert!(with_secret().verify_at(&far, now()).is_ok());
    assert!(with_secret().verify_at(&far, UNIX_EPOCH - Duration::from_secs(9)).is_ok());
}

#[test]
fn audience_and_issuer_are_checked_only_where_configured() {
    let keys = Keys { hmac_secret: Some(SECRET), audience: Some("chat"), issuer: Some("shop"), ..Keys::default() };
    let strict = Verifier::new(&keys).unwrap();
    for (claims, expected) in [
        (json!({"aud": "chat", "iss": "shop"}), ""),
        (json!({"aud": ["mail", "chat"], "iss": "shop"}), ""),
        (json!({"iss": "shop"}), "wrong audience (claim aud): wanted \"chat\", has none"),
        (json!({"aud": null, "iss": "shop"}), "wrong audience (claim aud): wanted \"chat\", has none"),
        (json!({"aud": [], "iss": "shop"}), "wrong audience (claim aud): wanted \"chat\", has none"),
        (json!({"aud": ["a", "b"], "iss": "shop"}), "wrong audience (claim aud): wanted \"chat\", has \"a\", \"b\""),
        (json!({"aud": "chat2", "iss": "shop"}), "wrong audience (claim aud): wanted \"chat\", has \"chat2\""),
        (json!({"aud": "chat"}), "wrong issuer (claim iss): wanted \"shop\", has none"),
        (json!({"aud": "chat", "iss": "Shop"}), "wrong issuer (claim iss): wanted \"shop\", has \"Shop\""),
    ] {
        let answer =
            strict.verify_at(&signed(&claims), now()).map_or_else(|error| error.to_string(), |_| String::new());
        assert_eq!(answer, expected, "{claims}");
    }
    assert!(with_secret().verify_at(&signed(&json!({"aud": "anything", "iss": "anybody"})), now()).is_ok());
    let error = refusal(&strict, &signed(&json!({"aud": 5, "iss": "shop"})));
    assert!(matches!(error, TokenError::BadClaim(_)), "{error}");
}

#[test]
fn claims_come_through() {
    let claims = json!({
        "sub": "42", "exp": NOW + 60, "info": {"name": "Ann"}, "channels": ["news", "chat:1"],
        "subs": {"chat:2": {"info": {"seat": 4}}}, "meta": {"shard": 3}, "unheard-of": [1, {"x": null}],
    });
    let claims = with_secret().verify_at(&signed(&claims), now()).unwrap();
    assert_eq!((claims.sub.as_str(), claims.exp), ("42", Some(NOW + 60)));
    assert_eq!(claims.info_bytes(), r#"{"name":"Ann"}"#);
    assert_eq!(claims.channels, ["news", "chat:1"]);
    assert_eq!(claims.subs["chat:2"].info_bytes(), r#"{"seat":4}"#);
    assert_eq!(with_secret().verify_at(&signed(&json!({"sub": ""})), now()).unwrap().sub, "");
}

#[test]
fn claims_that_contradict_a_connection_token_are_refused() {
    for claims in [
        r#"{"sub":"u1","channel":"chat:1"}"#,
        r#"{"sub":5}"#,
        r#"{"sub":"u1","sub":"u2"}"#,
        r#"{"exp":1900000000,"exp":1900000001}"#,
        r#"{"sub":"u1","b64info":"%%%"}"#,
        r#"{"sub":"u1","channels":"chat"}"#,
        r#"{"sub":"u1","subs":["chat"]}"#,
        r#"["u1"]"#,
        r#""u1""#,
        "",
        "{",
        "null",
    ] {
        let error = refused_claims(claims);
        assert!(matches!(error, TokenError::BadClaim(_)), "{claims}: {error}");
    }
    let deep = format!(r#"{{"info":{}1{}}}"#, "[".repeat(200), "]".repeat(200));
    assert!(matches!(refused_claims(&deep), TokenError::BadClaim(_)));
}

#[test]
fn what_a_header_asks_for_is_not_done() {
    let claims = r#"{"sub":"admin"}"#;
    for header in [
        r#"{"alg":"none"}"#,
        r#"{"alg":"None"}"#,
        r#"{"alg":"NONE","typ":"JWT"}"#,
        r#"{"alg":""}"#,
        r#"{"alg":null}"#,
        r#"{"alg":["HS256"]}"#,
        r#"{"alg":"hs256"}"#,
        r#"{"alg":"ES512"}"#,
        r#"{"typ":"JWT"}"#,
        r#"{"alg":"HS256","alg":"none"}"#,
        r#"{"alg":"HS256","crit":["b64"],"b64":false}"#,
        r#"{"alg":"HS256","crit":[]}"#,
        "[]",
        "",
    ] {
        for key in [SECRET.as_bytes(), b""] {
            let error = refusal(&with_secret(), &raw(header, claims, key));
            assert!(matches!(error, TokenError::Malformed(_)), "{header}: {error}");
        }
    }
    // None of these names a key: the signature is checked with the one key there is.
    for header in [
        r#"{"alg":"HS256","kid":"../../../../dev/null"}"#,
        r#"{"alg":"HS256","kid":"' UNION SELECT 'x"}"#,
        r#"{"alg":"HS256","jku":"https://evil.example/keys","x5u":"https://evil.example/cert"}"#,
        r#"{"alg":"HS256","jwk":{"kty":"oct","k":""}}"#,
    ] {
        for key in [&b""[..], b"\0", b"x"] {
            assert_eq!(refusal(&with_secret(), &raw(header, claims, key)), TokenError::BadSignature, "{header}");
        }
        assert!(with_secret().verify_at(&raw(header, claims, SECRET.as_bytes()), now()).is_ok(), "{header}");
    }
}

#[test]
fn a_public_key_is_no_secret() {
    for kind in ["rsa", "p256", "ed25519"] {
        let (_, public) = pair(kind);
        for secret in [public.as_bytes(), public.trim().as_bytes()] {
            let token = raw(r#"{"alg":"HS256"}"#, r#"{"sub":"admin"}"#, secret);
            let expected = TokenError::UnknownKey { algorithm: "HS256".to_owned() };
            assert_eq!(refusal(&with_public(&public), &token), expected);
            let keys = Keys { hmac_secret: Some(SECRET), public_key: Some(&public), ..Keys::default() };
            assert_eq!(refusal(&Verifier::new(&keys).unwrap(), &token), TokenError::BadSignature);
        }
    }
}

#[test]
fn without_a_key_no_token_is_good() {
    let verifier = Verifier::new(&Keys::default()).unwrap();
    for secret in ["", SECRET] {
        let token = raw(r#"{"alg":"HS256"}"#, r#"{"sub":"u1"}"#, secret.as_bytes());
        assert_eq!(refusal(&verifier, &token), TokenError::UnknownKey { algorithm: "HS256".to_owned() });
    }
}

#[test]
fn what_is_no_token_is_refused() {
    let good = signed(&json!({"sub": "u1"}));
    let parts: Vec<_> = good.split('.').collect();
    let (header, claims, tag) = (parts[0], parts[1], parts[2]);
    for token in [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        "...".to_owned(),
        "a.b.c".to_owned(),
        format!("{header}.{claims}"),
        format!("{header}.{claims}."),
        format!("{header}..{tag}"),
        format!(".{claims}.{tag}"),
        format!("{good}."),
        format!("{good}.{tag}"),
        format!(" {good}"),
        format!("{good}\n"),
        format!("{good}="),
        format!("{header}=.{claims}.{tag}"),
        format!("{header}.{claims}.{}", "é".repeat(20)),
        good[..good.len() - 1].to_owned(),
        "\0".repeat(100),
        "ey".repeat(8000),
    ] {
        let error = refusal(&with_secret(), &token);
        assert!(matches!(error, TokenError::Malformed(_) | TokenError::BadSignature), "{token:?}: {error}");
    }
}

#[test]
fn tokens_have_a_longest_length() {
    let sized = |size: usize| signed(&json!({"sub": "u1", "meta": "x".repeat(size)}));
    let longest =
        (0..TOKEN_LIMIT).rev().map(|size| size * 3 / 4).find(|size| sized(*size).len() <= TOKEN_LIMIT).unwrap();
    assert!(with_secret().verify_at(&sized(longest), now()).is_ok());
    let long = sized(longest + 4);
    assert_eq!(refusal(&with_secret(), &long), TokenError::TooLong(long.len()));
    assert!(matches!(refusal(&with_secret(), &"a".repeat(50_000_000)), TokenError::TooLong(_)));
}

#[test]
fn refusals_quote_neither_token_nor_secret_nor_more_than_a_line() {
    let keys = Keys { hmac_secret: Some(SECRET), audience: Some("chat"), ..Keys::default() };
    let verifier = Verifier::new(&keys).unwrap();
    let tokens = [
        signed(&json!({"aud": "line\nbreak\u{1b}[31m".repeat(500)})),
        signed(&json!({"exp": "x".repeat(5000)})),
        signed(&json!({"exp": 5})),
        raw(r#"{"alg":"HS256"}"#, "{}", OTHER.as_bytes()),
        raw(r#"{"alg":"none"}"#, "{}", b""),
    ];
    for token in tokens {
        let error = refusal(&verifier, &token);
        let text = format!("{error} {error:?}");
        assert!(text.len() < 1000 && !text.contains(SECRET) && !text.contains(&token), "{text}");
        assert!(!error.to_string().contains(char::is_control), "{text}");
    }
}

#[test]
fn keys_that_cannot_be_used_say_why() {
    let reason = |text: &str| match Verifier::new(&Keys { public_key: Some(text), ..Keys::default() }) {
        Ok(_) => panic!("accepted: {text}"),
        Err(error) => error,
    };
    let (private, public) = pair("p256");
    assert_eq!(reason("secret"), KeyError::NotPem("PUBLIC KEY"));
    assert_eq!(reason(&private), KeyError::NotPem("PUBLIC KEY"));
    assert_eq!(reason(&format!("{public}{public}")), KeyError::Several);
    assert_eq!(reason(&pem("CERTIFICATE", b"x")), KeyError::Certificate);
    assert_eq!(reason(&pem("PUBLIC KEY", b"not der")), KeyError::Unreadable);
    assert_eq!(reason(&public.replace("PUBLIC", "RSA PUBLIC")), KeyError::Unreadable);
    assert_eq!(reason(&public[..100]), KeyError::Unreadable);
    for curve in ["p521", "secp256k1"] {
        assert_eq!(reason(&pair(curve).1), KeyError::Curve, "{curve}");
    }
    // A sequence of a modulus of 1024 bits and the exponent 65537.
    let small =
        [&[0x30, 0x81, 0x89, 0x02, 0x81, 0x81, 0x00][..], &[0xc5; 128], &[0x02, 0x03, 0x01, 0x00, 0x01]].concat();
    assert_eq!(reason(&pem("RSA PUBLIC KEY", &small)), KeyError::RsaSize(1024));
}

#[test]
fn private_keys_that_cannot_be_used_say_why() {
    let reason = |text: &str, algorithm| match Signer::from_pem(text, algorithm) {
        Ok(_) => panic!("accepted"),
        Err(error) => error,
    };
    let (private, public) = pair("p256");
    assert_eq!(reason(&public, None), KeyError::NotPem("PRIVATE KEY"));
    assert_eq!(reason(&private.replace("PRIVATE", "EC PRIVATE"), None), KeyError::Sec1);
    assert_eq!(reason(&private.replace("PRIVATE", "ENCRYPTED PRIVATE"), None), KeyError::Encrypted);
    assert_eq!(reason(&pair("p521").0, None), KeyError::Curve);
    let wrong = reason(&private, Some("RS256"));
    assert_eq!(wrong.to_string(), "cannot be used with RS256; it is for ES256");
}

#[test]
fn the_library_cannot_be_made_to_sign_with_one_kind_and_check_with_another() {
    let (private, public) = pair("rsa");
    let key = EncodingKey::from_rsa_pem(private.as_bytes()).unwrap();
    let token = jsonwebtoken::encode(&Header::new(Algorithm::PS256), &json!({"sub": "u1"}), &key).unwrap();
    // The same signature under another header of the same family.
    let (_, rest) = token.split_once('.').unwrap();
    let forged = format!("{}.{rest}", BASE64_URL_SAFE_NO_PAD.encode(r#"{"typ":"JWT","alg":"RS256"}"#));
    assert!(with_public(&public).verify_at(&token, now()).is_ok());
    assert_eq!(refusal(&with_public(&public), &forged), TokenError::BadSignature);
}

proptest! {
    #[test]
    fn any_text_is_refused_without_a_panic(text in ".{0,300}") {
        prop_assert!(with_secret().verify(&text).is_err());
    }

    #[test]
    fn any_signed_claims_are_answered_without_a_panic(claims in ".{0,200}") {
        let _ = with_secret().verify(&raw(r#"{"alg":"HS256"}"#, &claims, SECRET.as_bytes()));
    }

    #[test]
    fn a_changed_byte_is_noticed(place in 0_usize..120, byte in proptest::sample::select(b"ABCxyz019-_.".to_vec())) {
        let good = signed(&json!({"sub": "u1", "exp": 4_000_000_000_u64, "info": {"name": "Ann"}}));
        let mut changed = good.clone().into_bytes();
        // The last letter carries bits that no byte uses; the library refuses them as well.
        let place = place % changed.len();
        prop_assume!(changed[place] != byte);
        changed[place] = byte;
        prop_assert!(with_secret().verify(&String::from_utf8(changed).unwrap()).is_err());
    }
}
