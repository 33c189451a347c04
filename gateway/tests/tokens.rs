//! The claims of both kinds of tokens, one by one: what is accepted, what is refused, and whose keys a token is checked with.

#![expect(clippy::unwrap_used, reason = "a test whose setting up fails has failed")]

#[path = "common/keys.rs"]
mod keys;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use keys::pair;
use regex::Regex;
use roomcast::auth::{Keys, Signer, TokenError, Trust, Verifier, is_for_a_subscription};
use roomcast_shared::claims::{Switch, Verb};
use serde_json::{Value, json};

const SECRET: &str = "a-secret-of-more-than-thirty-two-bytes";
const OTHER: &str = "another-secret-of-more-than-32-bytes";

/// The moment at which these tokens are checked.
const NOW: u64 = 1_800_000_000;

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW)
}

fn signed_with(secret: &str, claims: &Value) -> String {
    Signer::from_secret(secret, None).unwrap().sign(claims).unwrap()
}

fn signed(claims: &Value) -> String {
    signed_with(SECRET, claims)
}

fn secret(secret: &str) -> Keys<'_> {
    Keys { hmac_secret: Some(secret), ..Keys::default() }
}

/// What a verifier answers: nothing if it accepts.
fn connect(verifier: &Verifier, token: &str) -> String {
    verifier.verify_at(token, now()).map_or_else(|error| error.to_string(), |_| String::new())
}

fn subscribe(verifier: &Verifier, token: &str) -> String {
    verifier.verify_subscription_at(token, now()).map_or_else(|error| error.to_string(), |_| String::new())
}

#[track_caller]
fn assert_answer(what: &str, answer: &str, expected: &str) {
    let right = if expected.is_empty() { answer.is_empty() } else { answer.contains(expected) };
    assert!(right, "{what}: {answer:?} instead of {expected:?}");
}

/// The claim with a value, and what is said of it in a connection token and in a subscription token; empty: accepted.
type Row = (&'static str, Value, &'static str, &'static str);

fn matrix() -> impl Iterator<Item = Row> {
    registered().into_iter().chain(of_what_is_known_of_a_client()).chain(of_rooms())
}

/// A payload that is nested nearly as deep as may be.
fn deep() -> Value {
    serde_json::from_str(&format!("{}1{}", "[".repeat(120), "]".repeat(120))).unwrap()
}

/// Whose token it is, for whom, and when.
fn registered() -> Vec<Row> {
    let text = "expected a string";
    vec![
        ("sub", json!("u1"), "", ""),
        ("sub", json!(""), "", ""),
        ("sub", json!(null), "", ""),
        ("sub", json!(42), "claim `sub`", "claim `sub`"),
        ("exp", json!(NOW + 1), "", ""),
        ("exp", json!(NOW), "expired", "expired"),
        ("exp", json!(NOW - 60), "expired 1m ago (claim exp)", "expired 1m ago (claim exp)"),
        ("exp", json!(0), "expired", "expired"),
        ("exp", json!(null), "", ""),
        ("exp", json!("1900000000"), "claim `exp`", "claim `exp`"),
        ("nbf", json!(NOW), "", ""),
        ("nbf", json!(NOW + 30), "not valid before 30s", "not valid before 30s"),
        ("nbf", json!("now"), "claim `nbf`", "claim `nbf`"),
        ("iat", json!(NOW + 900), "", ""),
        ("iat", json!([]), "claim `iat`", "claim `iat`"),
        ("expire_at", json!(0), "", ""),
        ("expire_at", json!(5), "", ""),
        ("expire_at", json!("5"), "claim `expire_at`", "claim `expire_at`"),
        ("jti", json!("t1"), "", ""),
        ("jti", json!(1), text, text),
        ("aud", json!("anybody"), "", ""),
        ("aud", json!(["a", "b"]), "", ""),
        ("aud", json!({}), "claim `aud`", "claim `aud`"),
        ("iss", json!("anybody"), "", ""),
        ("iss", json!(true), "claim `iss`", "claim `iss`"),
    ]
}

/// What is said of a client, and what is passed over.
fn of_what_is_known_of_a_client() -> Vec<Row> {
    vec![
        ("info", json!({"name": "Ann"}), "", ""),
        ("info", json!(null), "", ""),
        ("info", deep(), "", ""),
        ("b64info", json!("AP8="), "", ""),
        ("b64info", json!("?"), "claim `b64info`", "claim `b64info`"),
        ("meta", json!({"shard": 3}), "", ""),
        ("unheard-of", json!([{"x": null}]), "", ""),
    ]
}

/// Which rooms a token opens, and how.
fn of_rooms() -> Vec<Row> {
    vec![
        ("channel", json!("$board"), "claim `channel` is for subscription tokens", ""),
        ("channel", json!(""), "", "claim `channel` is missing"),
        ("channel", json!(null), "", "claim `channel` is missing"),
        ("channel", json!(["$board"]), "claim `channel`", "claim `channel`"),
        ("client", json!("c1"), "", ""),
        ("client", json!(1), "", "claim `client`"),
        ("data", json!({"seat": 1}), "", ""),
        ("data", deep(), "", ""),
        ("b64data", json!("Ag=="), "", ""),
        ("b64data", json!("%"), "", "claim `b64data`"),
        ("override", json!({"presence": {"value": true}}), "", ""),
        ("override", json!({"presence": true}), "", "invalid type"),
        ("allow", json!(["pub", "prs", "hst", "sub"]), "", ""),
        ("allow", json!(["publish"]), "", "claim `allow`: \"publish\" is none of"),
        ("allow", json!("pub"), "", "claim `allow`"),
        ("channels", json!(["a", "b"]), "", ""),
        ("channels", json!("a"), "claim `channels`", ""),
        ("subs", json!({"a": {"info": 1, "override": {"join_leave": {"value": false}}}}), "", ""),
        ("subs", json!(["a"]), "claim `subs`", ""),
        ("subs", json!({"a": {"b64data": 1}}), "claim `subs`", ""),
        ("caps", json!([{"channels": ["news"], "allow": ["sub"]}]), "", ""),
        (
            "caps",
            json!([{"channels": ["a(b"], "match": "regex", "allow": ["sub"]}]),
            "claim `caps`: \"a(b\" is no regular",
            "",
        ),
        ("caps", json!([{"channels": ["a"], "allow": ["all"]}]), "claim `caps`: \"all\" is none of", ""),
        ("caps", json!(vec![json!({"channels": ["a"], "allow": []}); 65]), "claim `caps`: 65 entries; at most 64", ""),
        ("caps", json!({}), "claim `caps`", ""),
    ]
}

#[test]
fn every_claim_is_accepted_or_refused_as_the_table_says() {
    let verifier = Verifier::new(&secret(SECRET)).unwrap();
    for (claim, value, in_connection, in_subscription) in matrix() {
        let token = |base: Value| {
            let mut claims = base.as_object().unwrap().clone();
            claims.insert(claim.to_owned(), value.clone());
            signed(&Value::Object(claims))
        };
        let what = format!("{claim} = {value}");
        assert_answer(&what, &connect(&verifier, &token(json!({"sub": "u1"}))), in_connection);
        assert_answer(&what, &subscribe(&verifier, &token(json!({"sub": "u1", "channel": "$r"}))), in_subscription);
    }
}

#[test]
fn the_claims_of_a_subscription_token_come_through() {
    let verifier = Verifier::new(&secret(SECRET)).unwrap();
    let token = signed(&json!({
        "sub": "42", "channel": "$chat:1", "client": "c1", "exp": NOW + 60, "expire_at": 0, "jti": "t", "iat": NOW,
        "info": {"a": 1}, "b64info": "AP8=", "data": {"seat": 4}, "allow": ["pub"],
        "override": {"force_recovery": {"value": true}},
    }));
    let claims = verifier.verify_subscription_at(&token, now()).unwrap();
    assert_eq!((claims.sub.as_str(), claims.channel.as_str(), claims.client.as_str()), ("42", "$chat:1", "c1"));
    assert_eq!((claims.exp, claims.expires_at(), claims.iat), (Some(NOW + 60), None, Some(NOW)));
    assert_eq!(claims.options.info_bytes(), &[0, 255][..]);
    assert_eq!(claims.options.data_bytes(), r#"{"seat":4}"#);
    assert_eq!(claims.options.overrides.unwrap().force_recovery, Some(Switch { value: true }));
    assert!(claims.allow.contains(Verb::Publish) && !claims.allow.contains(Verb::History));
    assert!(is_for_a_subscription(&token));
    assert!(!is_for_a_subscription(&signed(&json!({"sub": "42", "channel": ""}))));
    assert!(!is_for_a_subscription("a.b.c"));
}

#[test]
fn capabilities_come_through() {
    let verifier = Verifier::new(&secret(SECRET)).unwrap();
    let caps = json!([{"channels": ["news:*"], "match": "wildcard", "allow": ["sub", "hst"]}]);
    let claims = verifier.verify_at(&signed(&json!({"sub": "u1", "caps": caps})), now()).unwrap();
    assert!(claims.caps.allows("news:1", Verb::History) && !claims.caps.allows("news:1", Verb::Publish));
    assert!(!claims.caps.allows("other", Verb::Subscribe));
}

#[test]
fn the_claims_in_the_page_on_tokens_are_accepted() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/TOKENS.md")).unwrap();
    let (_, block) = page.split_once("```json\n").unwrap();
    let claims: Value = serde_json::from_str(block.split("```").next().unwrap()).unwrap();
    let caps = Verifier::new(&secret(SECRET)).unwrap().verify_at(&signed(&claims), now()).unwrap().caps.clone();
    for (room, verb, expected) in [
        ("user_42", Verb::Subscribe, true),
        ("user_42", Verb::Publish, false),
        ("team:7:a", Verb::History, true),
        ("team:8:a", Verb::History, false),
        ("posts_12", Verb::Subscribe, true),
        ("posts_x", Verb::Subscribe, false),
    ] {
        assert_eq!(caps.allows(room, verb), expected, "{room} {verb:?}");
    }
}

#[test]
fn without_keys_of_their_own_subscription_tokens_are_checked_with_those_of_connections() {
    let verifier = Verifier::new(&Keys { audience: Some("chat"), ..secret(SECRET) }).unwrap();
    let claims = |aud: &str| json!({"sub": "u1", "channel": "$r", "aud": aud});
    assert_eq!(subscribe(&verifier, &signed(&claims("chat"))), "");
    assert_answer("aud", &subscribe(&verifier, &signed(&claims("mail"))), "wrong audience");
    assert_answer("key", &subscribe(&verifier, &signed_with(OTHER, &claims("chat"))), "bad signature");
}

#[test]
fn with_keys_of_their_own_each_kind_is_checked_with_its_own_alone() {
    let (private, public) = pair("p256");
    let subscription = Keys { public_key: Some(&public), issuer: Some("rooms"), ..Keys::default() };
    let trust = Trust { connection: secret(SECRET), subscription: Some(subscription), issuers: Vec::new() };
    let verifier = Verifier::new(trust).unwrap();
    let signer = Signer::from_pem(&private, None).unwrap();
    let room = json!({"sub": "u1", "channel": "$r", "iss": "rooms"});
    assert_eq!(subscribe(&verifier, &signer.sign(&room).unwrap()), "");
    assert_answer("key", &subscribe(&verifier, &signed(&room)), "no key for HS256");
    assert_eq!(connect(&verifier, &signed(&json!({"sub": "u1"}))), "");
    assert_answer("key", &connect(&verifier, &signer.sign(&json!({"sub": "u1"})).unwrap()), "no key for ES256");
    let other = signer.sign(&json!({"sub": "u1", "channel": "$r", "iss": "else"})).unwrap();
    assert_answer("iss", &subscribe(&verifier, &other), "wrong issuer (claim iss): wanted \"rooms\", has \"else\"");
}

#[test]
fn the_keys_that_rotate_are_good_for_subscription_tokens_too() {
    let verifier = Verifier::new(&Keys { hmac_previous_secret: Some(OTHER), ..secret(SECRET) }).unwrap();
    for secret in [SECRET, OTHER] {
        assert_eq!(subscribe(&verifier, &signed_with(secret, &json!({"channel": "$r"}))), "");
    }
}

#[test]
fn audience_and_issuer_may_be_patterns() {
    let (audience, issuer) = (Regex::new(r"\A(?:chat-\d+)\z").unwrap(), Regex::new(r"\A(?:https://.*)\z").unwrap());
    let keys = Keys { audience_regex: Some(&audience), issuer_regex: Some(&issuer), ..secret(SECRET) };
    let verifier = Verifier::new(&keys).unwrap();
    for (aud, iss, expected) in [
        (json!("chat-1"), "https://a", ""),
        (json!(["mail", "chat-22"]), "https://a", ""),
        (json!("chat-"), "https://a", "wrong audience"),
        (json!("chat-1x"), "https://a", "wrong audience"),
        (json!([]), "https://a", "wrong audience (claim aud): wanted"),
        (json!(null), "https://a", "wrong audience"),
        (json!("chat-1"), "http://a", "wrong issuer"),
        (json!("chat-1"), "", "wrong issuer (claim iss): wanted"),
    ] {
        let answer = connect(&verifier, &signed(&json!({"aud": aud, "iss": iss})));
        assert_answer(&format!("{aud} {iss}"), &answer, expected);
    }
}

#[test]
fn another_claim_may_name_the_user() {
    let verifier = Verifier::new(&Keys { user_claim: Some("uid"), ..secret(SECRET) }).unwrap();
    for (uid, user) in [
        (json!("42"), "42"),
        (json!(42), "42"),
        (json!(-7), "-7"),
        (json!(""), ""),
        (json!(null), ""),
        (json!("é\n"), "é\n"),
    ] {
        let claims = json!({"sub": "somebody", "uid": uid, "channel": ""});
        assert_eq!(verifier.verify_at(&signed(&claims), now()).unwrap().sub, user, "{uid}");
        let claims = json!({"sub": "somebody", "uid": uid, "channel": "$r"});
        assert_eq!(verifier.verify_subscription_at(&signed(&claims), now()).unwrap().sub, user, "{uid}");
    }
    assert_eq!(verifier.verify_at(&signed(&json!({"sub": "somebody"})), now()).unwrap().sub, "");
    for uid in [json!(1.5), json!([1]), json!({}), json!(true)] {
        let answer = connect(&verifier, &signed(&json!({"uid": uid})));
        assert_eq!(answer, "bad claim: claim `uid`: a text or a whole number was expected", "{uid}");
    }
    let usual = Verifier::new(&Keys { user_claim: Some("sub"), ..secret(SECRET) }).unwrap();
    assert_eq!(usual.verify_at(&signed(&json!({"sub": "u1"})), now()).unwrap().sub, "u1");
}

/// Two issuers with keys of their own, and perhaps keys for everybody else.
fn issuers<'a>(public: &'a str, pattern: &'a Regex, connection: Keys<'a>) -> Verifier {
    let shop = Keys { issuer: Some("shop"), audience: Some("rooms"), public_key: Some(public), ..Keys::default() };
    let tenants = Keys { issuer_regex: Some(pattern), user_claim: Some("uid"), ..secret(OTHER) };
    Verifier::new(Trust { connection, subscription: None, issuers: vec![shop, tenants] }).unwrap()
}

#[test]
fn a_token_is_checked_with_the_keys_of_its_issuer_and_no_others() {
    let (private, public) = pair("ed25519");
    let pattern = Regex::new(r"\A(?:tenant-\d+)\z").unwrap();
    let shop = |claims: Value| Signer::from_pem(&private, None).unwrap().sign(&claims).unwrap();
    let own = issuers(&public, &pattern, secret(SECRET));
    let named_only = issuers(&public, &pattern, Keys::default());
    for (token, expected, expected_without_own) in [
        (shop(json!({"iss": "shop", "aud": "rooms", "sub": "u1"})), "", ""),
        (shop(json!({"iss": "shop", "aud": "else"})), "wrong audience", "wrong audience"),
        (shop(json!({"iss": "tenant-1"})), "no key for EdDSA", "no key for EdDSA"),
        (shop(json!({"sub": "u1"})), "no key for EdDSA", "wrong issuer"),
        (signed_with(OTHER, &json!({"iss": "tenant-1", "uid": 7})), "", ""),
        (signed_with(OTHER, &json!({"iss": "tenant-22"})), "", ""),
        (signed_with(OTHER, &json!({"iss": "shop", "aud": "rooms"})), "no key for HS256", "no key for HS256"),
        (signed_with(OTHER, &json!({"iss": "tenant-x"})), "bad signature", "wrong issuer"),
        (signed(&json!({"iss": "tenant-1"})), "bad signature", "bad signature"),
        (signed(&json!({"iss": "shop", "aud": "rooms"})), "no key for HS256", "no key for HS256"),
        (signed(&json!({"sub": "u1"})), "", "wrong issuer (claim iss): wanted"),
        (signed(&json!({"iss": "anybody"})), "", "has \"anybody\""),
        (signed(&json!({"iss": ["shop"]})), "claim `iss`", "wrong issuer"),
    ] {
        assert_answer("with keys for everybody", &connect(&own, &token), expected);
        assert_answer("without", &connect(&named_only, &token), expected_without_own);
    }
    let user = &own.verify_at(&signed_with(OTHER, &json!({"iss": "tenant-1", "uid": 7})), now()).unwrap().sub;
    assert_eq!(*user, "7");
    let room = shop(json!({"iss": "shop", "aud": "rooms", "channel": "$r"}));
    assert_eq!(subscribe(&named_only, &room), "");
    assert!(own.has_keys() && named_only.has_keys() && !Verifier::new(&Keys::default()).unwrap().has_keys());
}

#[test]
fn keys_are_replaced_under_every_handle() {
    let verifier = Verifier::new(&secret(SECRET)).unwrap();
    let handle = verifier.clone();
    let (old, new) = (signed(&json!({"sub": "u1"})), signed_with(OTHER, &json!({"sub": "u1"})));
    assert_eq!((connect(&handle, &old), handle.verify_at(&new, now())), (String::new(), Err(TokenError::BadSignature)));
    verifier.replace(&secret(OTHER)).unwrap();
    assert_eq!((connect(&handle, &new), handle.verify_at(&old, now())), (String::new(), Err(TokenError::BadSignature)));
    let faulty = Keys { public_key: Some("nonsense"), ..Keys::default() };
    assert!(verifier.replace(&faulty).is_err());
    assert_eq!(connect(&handle, &new), "");
}

#[test]
fn only_keys_that_are_missing_make_a_refusal_temporary() {
    for error in [TokenError::BadSignature, TokenError::UnknownKid { kid: "k".to_owned() }, TokenError::TooLong(1)] {
        assert!(!error.is_temporary() && !error.is_expired());
    }
    assert!(TokenError::KeysUnavailable.is_temporary() && !TokenError::KeysUnavailable.is_expired());
}
