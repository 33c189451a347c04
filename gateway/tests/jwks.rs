//! Keys that are fetched from an address: which of them are taken, how new ones are found, and what holds while the address
//! does not answer.

#![expect(clippy::unwrap_used, reason = "a test whose setting up fails has failed")]

mod common;
#[path = "common/keys.rs"]
mod keys;

use std::{
    net::SocketAddr,
    slice,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{Router, http::StatusCode, response::Response};
use common::{Client, Gateway, PATIENCE, Value, json};
use jsonwebtoken::{Algorithm, EncodingKey, jwk::Jwk};
use keys::pair;
use roomcast::auth::{KeySource, Keys, Signer, TokenError, Trust, Verifier};
use tokio::{net::TcpListener, task::JoinHandle};

/// Shortest time between two fetches in these tests.
const PAUSE: Duration = Duration::from_millis(50);

/// Longer than any of these tests takes.
const NEVER: Duration = Duration::from_hours(1);

/// A web server that publishes keys.
struct Publisher {
    address: SocketAddr,
    answer: Arc<Mutex<(u16, String)>>,
    asked: Arc<AtomicUsize>,
    serving: JoinHandle<()>,
}

impl Publisher {
    async fn start(keys: &[Value]) -> Self {
        Self::start_on(TcpListener::bind("127.0.0.1:0").await.unwrap(), keys)
    }

    fn start_on(listener: TcpListener, keys: &[Value]) -> Self {
        let (answer, asked) = (Arc::new(Mutex::new((200, set(keys)))), Arc::new(AtomicUsize::new(0)));
        let address = listener.local_addr().unwrap();
        let (told, count) = (answer.clone(), asked.clone());
        let handler = async move || {
            count.fetch_add(1, Ordering::SeqCst);
            let (status, body) = told.lock().unwrap().clone();
            let status = StatusCode::from_u16(status).unwrap();
            Response::builder().status(status).header("location", "/elsewhere?key=hidden").body(body).unwrap()
        };
        let router = Router::new().fallback(handler);
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, answer, asked, serving }
    }

    fn publish(&self, keys: &[Value]) {
        self.answer_with(200, &set(keys));
    }

    fn answer_with(&self, status: u16, body: &str) {
        *self.answer.lock().unwrap() = (status, body.to_owned());
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn url(&self) -> String {
        format!("http://user:hidden@{}/keys?secret=hidden", self.address)
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn set(keys: &[Value]) -> String {
    json!({"keys": keys}).to_string()
}

/// A key pair: what signs, and what is published of it.
struct Pair {
    private: String,
    kid: &'static str,
    published: Value,
}

impl Pair {
    fn new(kind: &str, named: &'static str) -> Self {
        let (private, _) = pair(kind);
        let pem = private.as_bytes();
        let (key, algorithm) = match kind {
            "rsa" => (EncodingKey::from_rsa_pem(pem), Algorithm::RS256),
            "p256" => (EncodingKey::from_ec_pem(pem), Algorithm::ES256),
            "p384" => (EncodingKey::from_ec_pem(pem), Algorithm::ES384),
            _ => (EncodingKey::from_ed_pem(pem), Algorithm::EdDSA),
        };
        let jwk = Jwk::from_encoding_key(&key.unwrap(), algorithm).unwrap();
        let mut published = serde_json::to_value(jwk).unwrap();
        published["kid"] = named.into();
        Self { private, kid: named, published }
    }

    fn with(&self, name: &str, value: Value) -> Value {
        let mut published = self.published.clone();
        published[name] = value;
        published
    }

    fn without(&self, name: &str) -> Value {
        let mut published = self.published.clone();
        published.as_object_mut().unwrap().remove(name);
        published
    }

    fn signer(&self, algorithm: Option<&str>) -> Signer {
        Signer::from_pem(&self.private, algorithm).unwrap()
    }

    fn token(&self) -> String {
        self.signer(None).named(self.kid).sign(&json!({"sub": "u1"})).unwrap()
    }

    fn unnamed_token(&self) -> String {
        self.signer(None).sign(&json!({"sub": "u1"})).unwrap()
    }
}

fn source(url: &str, refresh: Duration) -> Keys<'_> {
    Keys { jwks: Some(KeySource { url, refresh, pause: PAUSE }), ..Keys::default() }
}

fn verifier(url: &str, refresh: Duration) -> Verifier {
    Verifier::new(&source(url, refresh)).unwrap()
}

/// A verifier that has fetched once.
async fn fetched(publisher: &Publisher) -> Verifier {
    let verifier = verifier(&publisher.url(), NEVER);
    assert_eq!(verifier.fetch_keys().await, Vec::<String>::new());
    verifier
}

/// A verifier that fetches in the background until the test ends.
fn kept_fresh(verifier: &Verifier) -> JoinHandle<()> {
    let verifier = verifier.clone();
    tokio::spawn(async move { verifier.keep_keys_fresh().await })
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what} does not come");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn refusal(verifier: &Verifier, token: &str) -> TokenError {
    verifier.verify(token).map(|claims| claims.sub.clone()).unwrap_err()
}

#[tokio::test]
async fn keys_of_every_kind_check_their_tokens() {
    let pairs = [Pair::new("rsa", "r"), Pair::new("p256", "e2"), Pair::new("p384", "e3"), Pair::new("ed25519", "d")];
    let publisher = Publisher::start(&pairs.iter().map(|pair| pair.published.clone()).collect::<Vec<_>>()).await;
    let verifier = fetched(&publisher).await;
    for pair in &pairs {
        assert_eq!(verifier.verify(&pair.token()).unwrap().sub, "u1", "{}", pair.kid);
        assert_eq!(verifier.verify(&pair.unnamed_token()).unwrap().sub, "u1", "{}", pair.kid);
        let forged = Pair::new(if pair.kid == "r" { "rsa" } else { "p256" }, pair.kid).token();
        let expected = match pair.kid {
            "r" | "e2" => TokenError::BadSignature,
            _ => TokenError::UnknownKey { algorithm: "ES256".to_owned() },
        };
        assert_eq!(refusal(&verifier, &forged), expected, "{}", pair.kid);
    }
    let other_algorithm = pairs[0].signer(Some("RS512")).named("r").sign(&json!({"sub": "u1"})).unwrap();
    let expected = TokenError::UnknownKey { algorithm: "RS512".to_owned() };
    assert_eq!(refusal(&verifier, &other_algorithm), expected, "the key is published for RS256");
}

#[tokio::test]
async fn a_key_without_an_algorithm_is_for_all_of_its_kind() {
    let pair = Pair::new("rsa", "r");
    let publisher = Publisher::start(&[pair.without("alg")]).await;
    let verifier = fetched(&publisher).await;
    for algorithm in ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"] {
        let token = pair.signer(Some(algorithm)).named("r").sign(&json!({"sub": "u1"})).unwrap();
        assert_eq!(verifier.verify(&token).unwrap().sub, "u1", "{algorithm}");
    }
}

#[tokio::test]
async fn keys_that_cannot_be_used_are_left_out() {
    let good = Pair::new("ed25519", "good");
    let (rsa, ec) = (Pair::new("rsa", "r"), Pair::new("p256", "e"));
    let secret = "c2VjcmV0LW9mLXRoaXJ0eS10d28tYnl0ZXMtb3ItbW9yZQ";
    let small = "x".repeat(168);
    let bad = [
        (json!({"kty": "oct", "kid": "bad", "k": secret}), "is a shared secret"),
        (json!({"kty": "oct", "kid": "bad", "k": secret, "alg": "HS256"}), "is a shared secret"),
        (json!({"kty": "RSA", "kid": "bad", "n": small, "e": "AQAB"}), "is an RSA key of 1008 bits"),
        (rsa.with("use", json!("enc")), "is not for checking signatures"),
        (rsa.with("key_ops", json!(["encrypt"])), "is not for checking signatures"),
        (rsa.with("alg", json!("ES256")), "cannot be used with ES256"),
        (rsa.with("alg", json!("RSA-OAEP")), "cannot be used with"),
        (rsa.with("alg", json!("HS256")), "cannot be used with HS256"),
        (rsa.with("n", json!("%%%")), "cannot be read"),
        (ec.with("crv", json!("P-521")), "on another curve"),
        (ec.with("crv", json!("P-384")), "on another curve"),
        (ec.with("x", json!("AAAA")), "on another curve"),
        (json!({"kty": "MAC", "kid": "bad"}), "cannot be read"),
        (json!(7), "cannot be read"),
    ];
    for (bad, reason) in bad {
        let publisher = Publisher::start(slice::from_ref(&bad)).await;
        let alone = verifier(&publisher.url(), NEVER);
        let faults = alone.fetch_keys().await;
        assert!(faults[0].contains(reason), "{bad}: {faults:?}");
        assert_eq!(refusal(&alone, &good.token()), TokenError::KeysUnavailable);
        publisher.publish(&[bad.clone(), good.published.clone()]);
        assert_eq!(alone.fetch_keys().await, Vec::<String>::new(), "{bad}");
        assert_eq!(alone.verify(&good.token()).unwrap().sub, "u1", "{bad}");
    }
    // A secret that is published would let anybody sign.
    let publisher = Publisher::start(&[json!({"kty": "oct", "k": secret}), good.published.clone()]).await;
    let verifier = fetched(&publisher).await;
    let forged = Signer::from_secret("secret-of-thirty-two-bytes-or-more", None).unwrap();
    let forged = forged.sign(&json!({"sub": "admin"})).unwrap();
    assert_eq!(refusal(&verifier, &forged), TokenError::UnknownKey { algorithm: "HS256".to_owned() });
}

#[tokio::test]
async fn a_key_that_is_rotated_is_found_without_a_restart() {
    let (old, new) = (Pair::new("p256", "2025"), Pair::new("p256", "2026"));
    let publisher = Publisher::start(slice::from_ref(&old.published)).await;
    let verifier = verifier(&publisher.url(), NEVER);
    let keeping = kept_fresh(&verifier);
    until("the first set", || verifier.verify(&old.token()).is_ok()).await;
    publisher.publish(&[old.published.clone(), new.published.clone()]);
    // The first token with the new key is what makes the set be fetched again.
    assert_eq!(refusal(&verifier, &new.token()), TokenError::KeysUnavailable);
    until("the new key", || verifier.verify(&new.token()).is_ok()).await;
    assert!(verifier.verify(&old.token()).is_ok());
    assert!(publisher.asked() >= 2);
    publisher.publish(slice::from_ref(&new.published));
    let unknown = Pair::new("p256", "1999").token();
    assert!(refusal(&verifier, &unknown).is_temporary());
    until("the set without the old key", || verifier.verify(&old.token()).is_err()).await;
    // Asked once more a moment later, the set may be too old to tell.
    let unknown = TokenError::UnknownKid { kid: "2025".to_owned() };
    until("the end of patience", || refusal(&verifier, &old.token()) == unknown).await;
    assert!(verifier.verify(&new.token()).is_ok());
    keeping.abort();
}

/// Whoever guesses what the next key will be called can ask for it until it is unknown. Its first tokens are not refused for that.
#[tokio::test]
async fn a_key_that_was_asked_for_in_advance_is_looked_for_when_it_is_there() {
    let (old, new) = (Pair::new("p256", "2025"), Pair::new("p256", "2026"));
    let publisher = Publisher::start(slice::from_ref(&old.published)).await;
    let verifier = verifier(&publisher.url(), NEVER);
    let keeping = kept_fresh(&verifier);
    until("the first set", || verifier.verify(&old.token()).is_ok()).await;
    until("the end of patience", || !refusal(&verifier, &new.token()).is_temporary()).await;
    // The set that it is not in grows old, and is no reason to refuse any more.
    let deadline = Instant::now() + PATIENCE;
    loop {
        tokio::time::sleep(PAUSE * 4).await;
        if refusal(&verifier, &new.token()).is_temporary() {
            break;
        }
        assert!(Instant::now() < deadline, "an old set is a reason to refuse");
    }
    publisher.publish(&[old.published.clone(), new.published.clone()]);
    until("the new key", || verifier.verify(&new.token()).is_ok()).await;
    keeping.abort();
}

#[tokio::test]
async fn the_set_is_fetched_again_from_time_to_time() {
    let (old, new) = (Pair::new("ed25519", "a"), Pair::new("ed25519", "a"));
    let publisher = Publisher::start(slice::from_ref(&old.published)).await;
    let verifier = verifier(&publisher.url(), Duration::from_millis(60));
    let keeping = kept_fresh(&verifier);
    until("the first set", || verifier.verify(&old.token()).is_ok()).await;
    // Under the same name nothing shows that the key is another.
    publisher.publish(slice::from_ref(&new.published));
    until("the second set", || verifier.verify(&new.token()).is_ok()).await;
    assert_eq!(refusal(&verifier, &old.token()), TokenError::BadSignature);
    keeping.abort();
}

#[tokio::test]
async fn forged_names_of_keys_make_few_requests() {
    let good = Pair::new("ed25519", "good");
    let publisher = Publisher::start(slice::from_ref(&good.published)).await;
    let verifier = verifier(&publisher.url(), NEVER);
    let keeping = kept_fresh(&verifier);
    until("the first set", || verifier.verify(&good.token()).is_ok()).await;
    let begin = Instant::now();
    for count in 0..2000 {
        let forged = good.signer(None).named(&format!("forged-{count}")).sign(&json!({"sub": "u1"})).unwrap();
        assert!(matches!(refusal(&verifier, &forged), TokenError::KeysUnavailable | TokenError::UnknownKid { .. }));
        if count % 50 == 0 {
            tokio::task::yield_now().await;
        }
    }
    assert!(verifier.verify(&good.token()).is_ok());
    let long = good.signer(None).named(&"x".repeat(5000)).sign(&json!({"sub": "u1"})).unwrap();
    assert!(matches!(refusal(&verifier, &long), TokenError::UnknownKid { kid } if kid.len() < 200));
    let most = 2 + usize::try_from(begin.elapsed().as_millis() / PAUSE.as_millis()).unwrap();
    assert!(publisher.asked() <= most, "{} requests, {most} at most", publisher.asked());
    keeping.abort();
}

#[tokio::test]
async fn keys_stay_good_while_the_address_does_not_answer() {
    let (good, new) = (Pair::new("p256", "good"), Pair::new("p256", "new"));
    let publisher = Publisher::start(slice::from_ref(&good.published)).await;
    let verifier = fetched(&publisher).await;
    let many = vec![new.published.clone(); 65];
    for (status, body, reason) in [
        (500, String::new(), "it answers 500"),
        (404, set(slice::from_ref(&new.published)), "it answers 404"),
        (302, String::new(), "it answers 302 Found and names /elsewhere"),
        (200, "<html>".to_owned(), "it is no set of keys"),
        (200, "[]".to_owned(), "it is no set of keys"),
        (200, set(&[]), "none of its 0 keys can be used (it is empty)"),
        (200, set(&many), "it has 65 keys; at most 64 are taken"),
        (200, " ".repeat(300 * 1024) + &set(slice::from_ref(&new.published)), "longer than 262144 bytes"),
    ] {
        publisher.answer_with(status, &body);
        let faults = verifier.fetch_keys().await;
        assert!(faults.len() == 1 && faults[0].contains(reason), "{faults:?} should say {reason}");
        assert!(!faults[0].contains("hidden"), "{faults:?}");
        assert_eq!(verifier.verify(&good.token()).unwrap().sub, "u1", "{reason}");
        assert!(refusal(&verifier, &new.token()).is_temporary(), "{reason}");
    }
    let address = publisher.address;
    drop(publisher);
    until("the end of the server", || std::net::TcpListener::bind(address).is_ok()).await;
    assert!(verifier.fetch_keys().await[0].contains("Connection refused"));
    assert!(verifier.verify(&good.token()).is_ok());
}

#[tokio::test]
async fn an_address_that_is_down_at_the_start_is_tried_until_it_answers() {
    let pair = Pair::new("ed25519", "k");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let verifier = verifier(&format!("http://{address}/"), NEVER);
    let keeping = kept_fresh(&verifier);
    assert_eq!(refusal(&verifier, &pair.token()), TokenError::KeysUnavailable);
    assert_eq!(refusal(&verifier, &pair.unnamed_token()), TokenError::KeysUnavailable);
    let publisher = Publisher::start_on(TcpListener::bind(address).await.unwrap(), slice::from_ref(&pair.published));
    until("the keys", || verifier.verify(&pair.token()).is_ok()).await;
    assert_eq!(publisher.asked(), 1);
    keeping.abort();
}

#[tokio::test]
async fn a_secret_beside_an_address_is_good_at_once() {
    let secret = "a-secret-of-more-than-thirty-two-bytes";
    let keys = Keys { hmac_secret: Some(secret), ..source("http://127.0.0.1:1/", NEVER) };
    let verifier = Verifier::new(&keys).unwrap();
    let sign = |secret| Signer::from_secret(secret, None).unwrap().sign(&json!({"sub": "u1"})).unwrap();
    assert_eq!(verifier.verify(&sign(secret)).unwrap().sub, "u1");
    assert_eq!(refusal(&verifier, &sign("another-secret-of-more-than-32-bytes")), TokenError::BadSignature);
}

#[tokio::test]
async fn a_token_that_names_no_key_is_tried_with_few() {
    let pairs: Vec<_> = (0..5).map(|_| Pair::new("p256", "k")).collect();
    let publish = |count: usize| pairs[..count].iter().map(|pair| pair.without("kid")).collect::<Vec<_>>();
    let publisher = Publisher::start(&publish(4)).await;
    let verifier = fetched(&publisher).await;
    for pair in &pairs[..4] {
        assert!(verifier.verify(&pair.unnamed_token()).is_ok() && verifier.verify(&pair.token()).is_ok());
    }
    assert_eq!(refusal(&verifier, &pairs[4].unnamed_token()), TokenError::BadSignature);
    publisher.publish(&publish(5));
    assert_eq!(verifier.fetch_keys().await, Vec::<String>::new());
    assert!(matches!(refusal(&verifier, &pairs[0].unnamed_token()), TokenError::Malformed(_)));
}

#[tokio::test]
async fn keys_that_are_replaced_keep_what_was_fetched_from_the_same_address() {
    let (one, other) = (Pair::new("ed25519", "one"), Pair::new("ed25519", "other"));
    let (first, second) = (
        Publisher::start(slice::from_ref(&one.published)).await,
        Publisher::start(slice::from_ref(&other.published)).await,
    );
    let (first_url, second_url) = (first.url(), second.url());
    let verifier = fetched(&first).await;
    let keeping = kept_fresh(&verifier);
    let named = Keys { issuer: Some("second"), ..source(&second_url, NEVER) };
    let trust = Trust { connection: source(&first_url, NEVER), subscription: None, issuers: vec![named] };
    verifier.replace(trust).unwrap();
    assert!(verifier.verify(&one.token()).is_ok(), "there is no moment without the keys");
    let token = other.signer(None).named("other").sign(&json!({"sub": "u2", "iss": "second"})).unwrap();
    until("the keys of the second address", || verifier.verify(&token).is_ok()).await;
    assert_eq!((first.asked(), second.asked()), (1, 1));
    keeping.abort();
}

#[tokio::test]
async fn two_issuers_with_one_address_share_what_is_fetched() {
    let pair = Pair::new("ed25519", "k");
    let publisher = Publisher::start(slice::from_ref(&pair.published)).await;
    let url = publisher.url();
    let issuer = |name| Keys { issuer: Some(name), ..source(&url, NEVER) };
    let trust = Trust { connection: Keys::default(), subscription: None, issuers: vec![issuer("a"), issuer("b")] };
    let verifier = Verifier::new(trust).unwrap();
    assert_eq!(verifier.fetch_keys().await, Vec::<String>::new());
    for iss in ["a", "b"] {
        let token = pair.signer(None).named("k").sign(&json!({"sub": "u1", "iss": iss})).unwrap();
        assert!(verifier.verify(&token).is_ok());
    }
    assert_eq!(publisher.asked(), 1);
}

#[tokio::test]
async fn a_node_lets_clients_in_with_keys_it_has_fetched_and_ends_in_good_order() {
    let pair = Pair::new("rsa", "k1");
    let publisher = Publisher::start(slice::from_ref(&pair.published)).await;
    let url = format!("http://{}/keys", publisher.address);
    let gateway =
        Gateway::open(&format!("auth.issuers = [{{name = \"idp\", issuer = \"idp\", jwks_url = {url:?}}}]\n"));
    let token = pair.signer(None).named("k1").sign(&json!({"sub": "u1", "iss": "idp"})).unwrap();
    until("the keys", || publisher.asked() > 0).await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut client = Client::open(gateway.clients).await;
        client.send(&json!({"id": 1, "connect": {"token": token}}).to_string()).await;
        let answer = client.frame().await.filter(|frame| frame.opcode == 1);
        if answer.is_some_and(|frame| String::from_utf8_lossy(&frame.payload).contains("\"client\"")) {
            break;
        }
        assert!(Instant::now() < deadline, "the node takes no key");
    }
    gateway.stop().await;
    assert_eq!(publisher.asked(), 1);
}

/// The token may be good: the client is to come back with it, and nothing is to be said that keeps it away.
#[tokio::test]
async fn a_token_that_cannot_be_checked_for_the_moment_is_not_refused_for_good() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let pair = Pair::new("ed25519", "k1");
    let token = pair.token();
    let gateway = Gateway::open(&format!("auth.jwks_url = \"http://{nobody}/keys\"\n"));
    let bearer = format!("Bearer {token}");
    let upgrade = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("authorization", bearer.as_str()),
    ];
    let stream = [("authorization", bearer.as_str())];
    let requests = [
        ("GET", "/connection/websocket", &upgrade[..]),
        ("POST", "/connection/http_stream", &stream[..]),
        ("GET", "/connection/uni_sse", &stream[..]),
    ];
    for (method, path, headers) in requests {
        let (status, head, body) = common::http::exchange(gateway.clients, method, path, headers, b"").await;
        assert_eq!(status, 503, "{path}: {body}");
        assert!(head.contains("retry-after: 1"), "{head}");
        assert!(body.contains("the issuer's keys are being fetched"), "{body}");
    }
    assert_eq!(gateway.count("roomcast_upgrades_refused_total{reason=\"keys\"}").await, 3);
    let mut client = Client::open(gateway.clients).await;
    let reply = client.ask(json!({"connect": {"token": token}})).await;
    assert_eq!(reply["error"], json!({"code": 100, "message": "internal server error", "temporary": true}));
    gateway.stop().await;
}
