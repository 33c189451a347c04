//! What the backend is asked and what comes of its answers, against a real HTTP server: one that is right, slow, wrong, down,
//! and back again.

use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    future::{Future, pending},
    net::{Ipv4Addr, SocketAddr},
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::Request,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use roomcast::{
    config::{self, HookUrl, Sources},
    hooks::{
        Caller, ConnectAnswer, ConnectCall, Hooks, Kind, PublishAnswer, PublishCall, RefreshAnswer, Refusal,
        RoomOptions, RpcCall, SubRefreshAnswer, SubscribeAnswer, SubscribeCall,
    },
    metrics::Metrics,
};
use roomcast_shared::{
    claims::{Overrides, Switch, Verb, Verbs},
    protocol::{
        Encoding,
        code::{Disconnect, ErrorCode},
    },
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::Semaphore,
    time::timeout,
};
use uuid::Uuid;

/// How long anything that has to come may take.
const PATIENCE: Duration = Duration::from_secs(30);

const CLIENT: &str = "6f9619ff-8b86-4d11-b42d-00c04fc964ff";

/// A request as the backend saw it.
#[derive(Clone, Debug)]
struct Seen {
    path: String,
    headers: HeaderMap,
    body: Value,
}

impl Seen {
    fn header(&self, name: &str) -> Vec<&str> {
        self.headers.get_all(name).iter().map(|value| value.to_str().expect("a value of text")).collect()
    }
}

/// A backend, which ends with the test's runtime.
struct Backend {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Backend {
    /// A backend that answers so; the function is told which request it is, from 0.
    async fn start<A: Future<Output = Response> + Send + 'static>(
        answer: impl Fn(usize) -> A + Clone + Send + Sync + 'static,
    ) -> Self {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), answer).await
    }

    async fn start_at<A: Future<Output = Response> + Send + 'static>(
        address: SocketAddr,
        answer: impl Fn(usize) -> A + Clone + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).await.expect("the address is free");
        let (address, seen) = (listener.local_addr().expect("it listens"), Arc::default());
        let log: Arc<Mutex<Vec<Seen>>> = Arc::clone(&seen);
        let handle = async move |request: Request| {
            let (head, body) = request.into_parts();
            let body = to_bytes(body, usize::MAX).await.expect("a whole body");
            let body = serde_json::from_slice(&body).expect("a body of JSON");
            assert_eq!(head.method, "POST");
            let count = {
                let mut log = log.lock().expect("nobody panics with it");
                log.push(Seen { path: head.uri.path().to_owned(), headers: head.headers, body });
                log.len() - 1
            };
            answer(count).await
        };
        let router = Router::new().fallback(handle);
        tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        Self { address, seen }
    }

    /// A backend that answers every request with this text.
    async fn saying(answer: impl ToString) -> Self {
        let answer = answer.to_string();
        Self::start(move |_| std::future::ready(answer.clone().into_response())).await
    }

    /// A backend that answers every request with this status.
    async fn of_status(status: u16) -> Self {
        let status = StatusCode::from_u16(status).expect("a status");
        Self::start(move |_| std::future::ready((status, r#"{"result":{}}"#).into_response())).await
    }

    /// A backend that reads requests and never answers.
    async fn silent() -> Self {
        Self::start(|_| pending()).await
    }

    fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    fn count(&self) -> usize {
        self.seen.lock().expect("nobody panics with it").len()
    }

    fn last(&self) -> Seen {
        self.seen.lock().expect("nobody panics with it").last().expect("something was asked").clone()
    }
}

/// The hooks of one node, with every kind at one backend unless the settings say otherwise.
struct Asking {
    hooks: Arc<Hooks>,
    metrics: Metrics,
}

impl Asking {
    fn at(backend: &Backend, settings: &str) -> Self {
        Self::with(&format!("{}\n{settings}", urls(&backend.url())))
    }

    fn with(settings: &str) -> Self {
        let metrics = Metrics::new();
        let hooks = Hooks::new(&load(settings).expect("settings without a fault"), &metrics).expect("a client");
        Self { hooks, metrics }
    }

    async fn rpc(&self) -> Result<Bytes, Refusal> {
        let call = RpcCall { method: "add", data: b"[1,2]" };
        self.hooks.rpc(&caller(), &call).await.map(|answer| answer.data)
    }

    async fn connect(&self) -> Result<Option<ConnectAnswer>, Refusal> {
        self.hooks.connect(&caller(), &ConnectCall::default()).await
    }

    async fn subscribe(&self) -> Result<SubscribeAnswer, Refusal> {
        self.hooks.subscribe(&caller(), None, &SubscribeCall { room: "r", token: "", data: b"" }).await
    }

    async fn publish(&self) -> Result<PublishAnswer, Refusal> {
        self.hooks.publish(&caller(), None, &PublishCall { room: "r", data: b"{\"t\": 1}" }).await
    }

    fn counted(&self, kind: Kind, result: &str) -> u64 {
        self.metrics.hook_requests.with_label_values(&[kind.as_str(), result]).get()
    }

    fn open(&self, kind: Kind) -> i64 {
        self.metrics.hook_breaker_open.with_label_values(&[kind.as_str()]).get()
    }
}

fn urls(url: &str) -> String {
    Kind::ALL.map(|kind| format!("hooks.{}.url = \"{url}\"", kind.as_str())).join("\n")
}

fn load(settings: &str) -> Result<config::Settings, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("roomcast.toml");
    std::fs::write(&file, settings).expect("a file");
    let sources = Sources { file: Some(file), ..Sources::default() };
    config::load(&sources, &[]).map(|loaded| loaded.settings).map_err(|faults| faults.to_string())
}

fn caller() -> Caller {
    Caller {
        client: Uuid::parse_str(CLIENT).expect("a UUID"),
        user: "56".into(),
        transport: "websocket",
        protocol: Encoding::Json,
        headers: None,
        meta: Bytes::from_static(br#"{"tenant":7}"#),
    }
}

fn result(result: &Value) -> Value {
    json!({ "result": result })
}

/// Polls until something holds.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn without_an_address_nobody_is_asked_and_nothing_is_kept() {
    let Asking { hooks, .. } = Asking::with("hooks.headers = [\"cookie\"]\nhooks.emulated_headers = [\"cookie\"]");
    assert!(Kind::ALL.iter().all(|kind| !hooks.has(*kind)) && !hooks.asks_after_connect());
    let headers = HeaderMap::from_iter([(http::header::COOKIE, "a=1".parse().unwrap())]);
    assert!(hooks.capture(&headers).is_none());
    assert!(hooks.with_emulated(None, &HashMap::from([("cookie".to_owned(), "a=1".to_owned())])).is_none());
    assert_eq!(hooks.refresh(&caller()).await, Err(Refusal::Error(ErrorCode::NOT_AVAILABLE)));
    let only_connect = Asking::with("hooks.headers = [\"cookie\"]\nhooks.connect.url = \"http://backend/\"").hooks;
    assert!(only_connect.has(Kind::Connect) && !only_connect.asks_after_connect());
    assert!(only_connect.capture(&headers).is_some());
}

#[tokio::test]
async fn each_question_has_the_body_that_the_protocol_gives_it() {
    let backend = Backend::saying("{}").await;
    let Asking { hooks, .. } = Asking::at(&backend, "");
    let common = json!({"client": CLIENT, "transport": "websocket", "protocol": "json", "encoding": "json"});
    let with = |more: Value| {
        let mut body = common.clone();
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let (caller, rooms) = (caller(), ["srv".to_owned()]);

    let call = ConnectCall { data: br#"{"q":1}"#, name: "js", version: "1", rooms: &rooms };
    assert_eq!(hooks.connect(&caller, &call).await, Ok(None));
    assert_eq!(backend.last().body, with(json!({"data": {"q": 1}, "name": "js", "version": "1", "channels": ["srv"]})));
    assert_eq!(backend.last().path, "/hook");
    assert_eq!(backend.last().header("content-type"), ["application/json"]);
    hooks.connect(&caller, &ConnectCall::default()).await.unwrap();
    assert_eq!(backend.last().body, common);

    assert!(hooks.refresh(&caller).await.unwrap().expired);
    assert_eq!(backend.last().body, with(json!({"user": "56"})));

    let call = SubscribeCall { room: "r", token: "jwt", data: br#"{"a":1}"# };
    assert_eq!(hooks.subscribe(&caller, None, &call).await, Ok(SubscribeAnswer::default()));
    assert_eq!(backend.last().body, with(json!({"user": "56", "channel": "r", "token": "jwt", "data": {"a": 1}})));
    hooks.subscribe(&caller, None, &SubscribeCall { room: "r", ..SubscribeCall::default() }).await.unwrap();
    assert_eq!(backend.last().body, with(json!({"user": "56", "channel": "r"})));

    let call = PublishCall { room: "r", data: br#"{"t":1}"# };
    assert_eq!(hooks.publish(&caller, None, &call).await, Ok(PublishAnswer::default()));
    assert_eq!(backend.last().body, with(json!({"user": "56", "channel": "r", "data": {"t": 1}})));

    assert!(hooks.sub_refresh(&caller, None, "r").await.unwrap().expired);
    assert_eq!(backend.last().body, with(json!({"user": "56", "channel": "r"})));

    let call = RpcCall { method: "add", data: b"[1,2]" };
    assert_eq!(hooks.rpc(&caller, &call).await.unwrap().data, "");
    assert_eq!(backend.last().body, with(json!({"user": "56", "method": "add", "data": [1, 2]})));
}

#[tokio::test]
async fn the_connection_s_meta_and_base64_are_sent_where_settings_want_them() {
    let backend = Backend::saying("{}").await;
    let Asking { hooks, .. } =
        Asking::at(&backend, "hooks.include_connection_meta = true\nhooks.binary_encoding = true");
    let caller = Caller { protocol: Encoding::Protobuf, user: "".into(), ..caller() };
    hooks.publish(&caller, None, &PublishCall { room: "r", data: &[0, 255] }).await.unwrap();
    let body = json!({
        "client": CLIENT, "transport": "websocket", "protocol": "protobuf", "encoding": "binary",
        "user": "", "channel": "r", "b64data": "AP8=", "meta": {"tenant": 7},
    });
    assert_eq!(backend.last().body, body);
    hooks.connect(&caller, &ConnectCall { data: b"x", ..ConnectCall::default() }).await.unwrap();
    assert_eq!(backend.last().body["b64data"], "eA==");
    assert_eq!(backend.last().body.get("meta"), None);
    let without = Caller { meta: Bytes::new(), ..caller };
    hooks.refresh(&without).await.unwrap();
    assert_eq!(backend.last().body.get("meta"), None);
}

#[tokio::test]
async fn bytes_that_are_no_json_are_refused_before_anybody_is_asked() {
    let backend = Backend::saying("{}").await;
    let asking = Asking::at(&backend, "");
    for data in [&[0xFF, 0][..], b"{", b"1 2"] {
        let refused = asking.hooks.publish(&caller(), None, &PublishCall { room: "r", data }).await;
        assert_eq!(refused, Err(Refusal::Error(ErrorCode::BAD_REQUEST)));
    }
    assert_eq!(backend.count(), 0);
}

#[tokio::test]
async fn a_connection_is_let_in_with_all_that_the_backend_says_of_it() {
    let backend = Backend::saying(result(&json!({
        "user": "56", "expire_at": 1_900_000_000, "info": {"name": "Ann"}, "b64data": "eyJoaSI6MX0=",
        "channels": ["news"], "meta": {"tenant": 7}, "labels": {"unknown": "field"},
        "subs": {
            "r": {"info": [1], "b64data": "AP8", "expire_at": 5, "override": {"presence": {"value": true}}},
            "plain": null,
        },
        "caps": [{"channels": ["a*"], "allow": ["sub", "pub"], "match": "wildcard"}],
    })))
    .await;
    let answer = Asking::at(&backend, "").connect().await.unwrap().expect("a result");
    let room = RoomOptions {
        expires_at: Some(5),
        info: Bytes::from_static(b"[1]"),
        data: Bytes::from_static(&[0, 255]),
        overrides: Overrides { presence: Some(Switch { value: true }), ..Overrides::default() },
    };
    assert!(answer.caps.allows("abc", Verb::Publish) && !answer.caps.allows("abc", Verb::History));
    let expected = ConnectAnswer {
        user: "56".to_owned(),
        expires_at: Some(1_900_000_000),
        info: Bytes::from_static(br#"{"name":"Ann"}"#),
        data: Bytes::from_static(br#"{"hi":1}"#),
        rooms: vec!["news".to_owned()],
        subs: BTreeMap::from([("r".to_owned(), room), ("plain".to_owned(), RoomOptions::default())]),
        meta: Bytes::from_static(br#"{"tenant":7}"#),
        caps: answer.caps.clone(),
    };
    assert_eq!(answer, expected);
}

#[tokio::test]
async fn fields_that_are_null_are_absent() {
    let backend = Backend::saying(json!({
        "error": null, "disconnect": null,
        "result": {
            "user": null, "expire_at": null, "info": null, "b64info": null, "data": null, "b64data": null,
            "channels": null, "subs": null, "meta": null, "caps": null, "override": null, "allow": null,
            "expired": null, "skip_history": null, "tags": null, "idempotency_key": null, "delta": null,
            "version": null, "version_epoch": null,
        }
    }))
    .await;
    let asking = Asking::at(&backend, "");
    assert_eq!(asking.connect().await, Ok(Some(ConnectAnswer::default())));
    assert_eq!(asking.subscribe().await, Ok(SubscribeAnswer::default()));
    assert_eq!(asking.publish().await, Ok(PublishAnswer::default()));
    assert_eq!(asking.hooks.refresh(&caller()).await, Ok(RefreshAnswer::default()));
    assert_eq!(asking.hooks.sub_refresh(&caller(), None, "r").await, Ok(SubRefreshAnswer::default()));
    // What is called for may be nothing at all.
    assert_eq!(asking.rpc().await.unwrap(), "null");
}

#[tokio::test]
async fn what_expires_goes_on_as_the_backend_says() {
    let backend = Backend::saying(result(&json!({"expire_at": 9, "b64info": "MQ==", "meta": [], "caps": []}))).await;
    let asking = Asking::at(&backend, "");
    let expected = RefreshAnswer {
        expires_at: Some(9),
        info: Bytes::from_static(b"1"),
        meta: Bytes::from_static(b"[]"),
        ..RefreshAnswer::default()
    };
    assert_eq!(asking.hooks.refresh(&caller()).await, Ok(expected));
    let expected =
        SubRefreshAnswer { expires_at: Some(9), info: Bytes::from_static(b"1"), ..SubRefreshAnswer::default() };
    assert_eq!(asking.hooks.sub_refresh(&caller(), None, "r").await, Ok(expected));
    let expired = Asking::at(&Backend::saying(result(&json!({"expired": true}))).await, "");
    assert!(expired.hooks.refresh(&caller()).await.unwrap().expired);
    assert!(expired.hooks.sub_refresh(&caller(), None, "r").await.unwrap().expired);
}

#[tokio::test]
async fn a_room_is_entered_and_spoken_in_as_the_backend_says() {
    let backend = Backend::saying(result(&json!({
        "info": {"a": 1}, "data": {"t":  2}, "expire_at": 0, "allow": ["pub"],
        "override": {"join_leave": {"value": false}, "force_recovery": {"value": true}},
        "skip_history": true, "tags": {"a": "b"}, "idempotency_key": "k", "delta": true, "version": 3,
        "version_epoch": "e",
    })))
    .await;
    let asking = Asking::at(&backend, "");
    let SubscribeAnswer { options, allow } = asking.subscribe().await.unwrap();
    assert_eq!((options.info, options.data), (Bytes::from_static(b"{\"a\":1}"), Bytes::from_static(b"{\"t\":2}")));
    assert_eq!((options.expires_at, allow), (None, Verbs::from_iter([Verb::Publish])));
    assert_eq!(options.overrides.join_leave, Some(Switch { value: false }));
    assert_eq!(options.overrides.force_recovery, Some(Switch { value: true }));
    let expected = PublishAnswer {
        data: Some(Bytes::from_static(br#"{"t":2}"#)),
        skip_history: true,
        tags: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
        idempotency_key: "k".to_owned(),
        delta: true,
        version: 3,
        version_epoch: "e".to_owned(),
    };
    assert_eq!(asking.publish().await, Ok(expected));
}

#[tokio::test]
async fn payloads_keep_their_spelling() {
    let backend = Backend::saying("{\"result\": {\"data\": {\"sum\":\n 3.00}}}").await;
    assert_eq!(Asking::at(&backend, "").rpc().await.unwrap(), "{\"sum\":\n 3.00}");
}

#[tokio::test]
async fn the_backend_refuses_with_an_error_of_its_own() {
    let backend =
        Backend::saying(json!({"result": {}, "error": {"code": 403, "message": "no seat", "temporary": true}})).await;
    let asking = Asking::at(&backend, "");
    let refusal = Refusal::Error(ErrorCode::custom(403, "no seat".to_owned(), true).unwrap());
    assert_eq!(asking.connect().await, Err(refusal.clone()));
    assert_eq!(asking.subscribe().await.map(drop), Err(refusal.clone()));
    assert_eq!(asking.publish().await.map(drop), Err(refusal.clone()));
    assert_eq!(asking.rpc().await.map(drop), Err(refusal.clone()));
    assert_eq!(asking.hooks.refresh(&caller()).await.map(drop), Err(refusal.clone()));
    assert_eq!(asking.hooks.sub_refresh(&caller(), None, "r").await.map(drop), Err(refusal));
    assert!(Kind::ALL.iter().all(|kind| asking.counted(*kind, "error") == 1));
}

#[tokio::test]
async fn the_backend_closes_connections_with_a_code_of_its_own() {
    for (disconnect, expected) in [
        (json!({"code": 4500, "reason": "out"}), Disconnect::new(4500, "out")),
        (json!({"code": 4000, "reason": "later"}), Disconnect::new(4000, "later")),
        // Clients could not read these reasons, and would come back.
        (json!({"code": 4999}), Disconnect::new(4999, "disconnected by the backend")),
        (json!({"code": 4501, "reason": "{}"}), Disconnect::new(4501, "disconnected by the backend")),
        (json!({"code": 4502, "reason": "x".repeat(124)}), Disconnect::new(4502, "disconnected by the backend")),
    ] {
        let said = json!({"disconnect": disconnect, "error": {"code": 403}});
        let asking = Asking::at(&Backend::saying(said).await, "");
        assert_eq!(asking.connect().await, Err(Refusal::Disconnect(expected)));
        assert_eq!(asking.counted(Kind::Connect, "disconnect"), 1);
    }
}

#[tokio::test]
async fn answers_that_make_no_sense_are_none() {
    let deep = format!("{{\"result\":{{\"data\":{}{}}}}}", "[".repeat(200), "]".repeat(200));
    for answer in [
        "",
        "no",
        "[]",
        "{\"result\":{}",
        "{\"result\":[]}",
        "{\"result\":[\"56\"]}",
        "{\"result\":\"56\"}",
        "{\"result\":{\"subs\":{\"r\":[]}}}",
        "{\"result\":{\"user\":5}}",
        "{\"result\":{\"b64data\":\"?\"}}",
        "{\"result\":{\"info\":{}},\"result\":{}}",
        "{\"error\":{\"code\":103,\"message\":\"not a code of backends\"}}",
        "{\"error\":{\"code\":399}}",
        "{\"error\":{\"code\":2000}}",
        "{\"error\":{\"message\":\"without a code\"}}",
        "{\"error\":\"text\"}",
        "{\"disconnect\":{\"code\":3999,\"reason\":\"x\"}}",
        "{\"disconnect\":{\"code\":5000,\"reason\":\"x\"}}",
        "{\"disconnect\":{\"code\":100000,\"reason\":\"x\"}}",
        deep.as_str(),
    ] {
        let asking = Asking::at(&Backend::saying(answer).await, "");
        assert_eq!(asking.connect().await, Err(Refusal::Unavailable), "{answer}");
        assert_eq!(asking.counted(Kind::Connect, "malformed"), 1, "{answer}");
    }
}

#[tokio::test]
async fn another_status_than_200_is_no_answer() {
    for status in [201, 204, 302, 400, 403, 404, 429, 500, 503] {
        let asking = Asking::at(&Backend::of_status(status).await, "");
        assert_eq!(asking.rpc().await, Err(Refusal::Unavailable), "{status}");
        assert_eq!(asking.counted(Kind::Rpc, "status"), 1);
    }
}

#[tokio::test]
async fn a_status_may_stand_for_an_error_or_a_disconnect() {
    let settings = "hooks.status_transforms = [\"503: temporary 1503 try later\", \"404: error 404 no such thing\", \
                    \"401: disconnect 4501 sign in again\"]\nhooks.breaker_failures = 1";
    let error = |code, message: &str, temporary| ErrorCode::custom(code, message.to_owned(), temporary).unwrap();
    for (status, refusal) in [
        (503, Refusal::Error(error(1503, "try later", true))),
        (404, Refusal::Error(error(404, "no such thing", false))),
        (401, Refusal::Disconnect(Disconnect::new(4501, "sign in again"))),
        (500, Refusal::Unavailable),
    ] {
        let asking = Asking::at(&Backend::of_status(status).await, settings);
        assert_eq!(asking.rpc().await, Err(refusal), "{status}");
        // What is translated is an answer.
        assert_eq!(asking.open(Kind::Rpc), i64::from(status == 500));
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let target = Backend::saying("{}").await;
    let location = target.url();
    let backend = Backend::start(move |_| {
        std::future::ready((StatusCode::TEMPORARY_REDIRECT, [("location", location.clone())]).into_response())
    })
    .await;
    assert_eq!(Asking::at(&backend, "").rpc().await, Err(Refusal::Unavailable));
    assert_eq!(target.count(), 0);
}

#[tokio::test]
async fn an_answer_is_not_read_beyond_its_limit() {
    let settings = "hooks.max_answer_size = 1000";
    let of_length = |length: usize| format!("{{\"result\":{{\"data\":\"{}\"}}}}", "x".repeat(length - 22));
    let asking = Asking::at(&Backend::saying(of_length(1000)).await, settings);
    assert_eq!(asking.rpc().await.unwrap().len(), 1000 - 20);
    let asking = Asking::at(&Backend::saying(of_length(1001)).await, settings);
    assert_eq!(asking.rpc().await, Err(Refusal::Unavailable));
    assert_eq!(asking.counted(Kind::Rpc, "malformed"), 1);
    let endless = Backend::start(|_| {
        let blanks = futures_util::stream::repeat_with(|| Ok::<_, Infallible>(Bytes::from_static(&[b' '; 64])));
        std::future::ready(Body::from_stream(blanks).into_response())
    })
    .await;
    let asking = Asking::at(&endless, "hooks.max_answer_size = 1000\nhooks.rpc.timeout = \"60s\"");
    assert_eq!(timeout(PATIENCE, asking.rpc()).await.expect("it is given up early"), Err(Refusal::Unavailable));
    assert_eq!(asking.counted(Kind::Rpc, "malformed"), 1);
}

#[tokio::test]
async fn a_silent_backend_costs_its_timeout_and_nobody_else_anything() {
    let (silent, quick) = (Backend::silent().await, Backend::saying("{}").await);
    let settings = format!(
        "hooks.connect.url = \"{}\"\nhooks.connect.timeout = \"300ms\"\nhooks.rpc.url = \"{}\"",
        silent.url(),
        quick.url()
    );
    let asking = Asking::with(&settings);
    let begun = Instant::now();
    let others = async {
        until("the backend was asked", || silent.count() == 1).await;
        let mut answered = 0;
        while begun.elapsed() < Duration::from_millis(200) {
            asking.rpc().await.unwrap();
            answered += 1;
        }
        answered
    };
    let (slow, answered) = tokio::join!(asking.connect(), others);
    assert_eq!(slow, Err(Refusal::Unavailable));
    assert!(begun.elapsed() >= Duration::from_millis(300) && begun.elapsed() < PATIENCE);
    assert!(answered > 1, "{answered}");
    assert_eq!(asking.counted(Kind::Connect, "timeout"), 1);
    assert_eq!(asking.metrics.hook_duration.with_label_values(&["connect"]).get_sample_count(), 1);
}

#[tokio::test]
async fn an_answer_that_stops_halfway_is_none() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"result\":").await;
        }
    });
    let asking = Asking::with(&format!("hooks.rpc.url = \"{url}\""));
    assert_eq!(asking.rpc().await, Err(Refusal::Unavailable));
    assert_eq!(asking.counted(Kind::Rpc, "unreachable"), 1);
}

#[tokio::test]
async fn no_more_questions_than_allowed_are_with_the_backend_at_a_time() {
    let (answers, most) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let (gate, peak, inside) = (answers.clone(), most.clone(), Arc::new(AtomicUsize::new(0)));
    let backend = Backend::start(move |_| {
        let (gate, peak, inside) = (gate.clone(), peak.clone(), inside.clone());
        async move {
            peak.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            gate.acquire().await.unwrap().forget();
            inside.fetch_sub(1, Ordering::SeqCst);
            "{}".into_response()
        }
    })
    .await;
    let asking = Asking::at(&backend, "hooks.concurrency = 2\nhooks.rpc.timeout = \"9s\"");
    let calls = futures_util::future::join_all((0..6).map(|_| asking.rpc()));
    let answer = async {
        for asked in [2, 3, 4, 5, 6, 6] {
            until("the next question came", || backend.count() == asked).await;
            answers.add_permits(1);
        }
    };
    let (results, ()) = tokio::join!(calls, answer);
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert_eq!(most.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn who_waits_too_long_for_a_turn_gives_up_and_is_counted() {
    let backend = Backend::silent().await;
    let asking = Asking::at(&backend, "hooks.concurrency = 1\nhooks.rpc.timeout = \"200ms\"");
    let other = async {
        until("the turn is taken", || backend.count() == 1).await;
        asking.rpc().await
    };
    let (first, second) = tokio::join!(asking.rpc(), other);
    assert_eq!((first, second), (Err(Refusal::Unavailable), Err(Refusal::Unavailable)));
    // The second one got its turn as the first one gave up, or gave up just before; it may not have waited for more.
    assert_eq!(asking.counted(Kind::Rpc, "timeout") + asking.counted(Kind::Rpc, "busy"), 2);
    let three = futures_util::future::join_all((0..3).map(|_| asking.rpc())).await;
    assert!(three.iter().all(|result| *result == Err(Refusal::Unavailable)));
    assert!(asking.counted(Kind::Rpc, "busy") >= 1);
    // A turn that somebody else had to long for is no fault of the backend.
    assert_eq!(asking.open(Kind::Rpc), 0);
}

#[tokio::test]
async fn a_backend_that_is_down_is_left_alone_until_it_is_back() {
    // An address of its own, so that no other test takes the port meanwhile.
    let reserved = TcpListener::bind("127.9.8.7:0").await.unwrap();
    let address = reserved.local_addr().unwrap();
    drop(reserved);
    let settings = format!(
        "{}\nhooks.breaker_failures = 3\nhooks.breaker_pause = \"200ms\"",
        urls(&format!("http://{address}/hook"))
    );
    let asking = Asking::with(&settings);
    for _ in 0..3 {
        assert_eq!(asking.rpc().await, Err(Refusal::Unavailable));
    }
    assert_eq!((asking.counted(Kind::Rpc, "unreachable"), asking.open(Kind::Rpc)), (3, 1));
    assert_eq!(asking.rpc().await, Err(Refusal::Unavailable));
    assert_eq!((asking.counted(Kind::Rpc, "unreachable"), asking.counted(Kind::Rpc, "breaker_open")), (3, 1));
    // Each hook has a breaker of its own.
    assert_eq!(asking.open(Kind::Connect), 0);
    let backend = Backend::start_at(address, |_| std::future::ready("{}".into_response())).await;
    let begun = Instant::now();
    while asking.rpc().await.is_err() {
        assert!(begun.elapsed() < PATIENCE, "it is never asked again");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!((asking.open(Kind::Rpc), backend.count()), (0, 1));
    assert!(asking.rpc().await.is_ok());
}

#[tokio::test]
async fn after_the_pause_one_question_tries_it_and_the_others_are_refused_at_once() {
    let backend = Backend::start(|count| async move {
        if count > 0 {
            pending::<()>().await;
        }
        StatusCode::BAD_GATEWAY.into_response()
    })
    .await;
    let settings = "hooks.breaker_failures = 1\nhooks.breaker_pause = \"100ms\"\nhooks.rpc.timeout = \"60s\"";
    let asking = Arc::new(Asking::at(&backend, settings));
    assert_eq!(asking.rpc().await, Err(Refusal::Unavailable));
    // The one that tries it after the pause never ends: it is being answered, while all others are refused.
    let trying = async {
        loop {
            let _ = asking.rpc().await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let others = async {
        until("it is tried", || backend.count() == 2).await;
        for _ in 0..20 {
            let refused = timeout(PATIENCE, asking.rpc()).await.expect("it is refused at once");
            assert_eq!(refused, Err(Refusal::Unavailable));
        }
    };
    tokio::select! {
        () = trying => unreachable!(),
        () = others => {}
    }
    assert_eq!(backend.count(), 2);
    // Whoever tried it went away with that, so that the next one may.
    let next = async { asking.rpc().await };
    let asked = until("it is tried by the next one", || backend.count() == 3);
    tokio::select! {
        _ = next => unreachable!("the backend never answers"),
        () = asked => {}
    }
    assert_eq!(asking.open(Kind::Rpc), 1);
}

#[tokio::test]
async fn what_a_client_can_bring_about_does_not_open_the_breaker() {
    let settings = "hooks.breaker_failures = 1";
    for backend in [
        Backend::of_status(400).await,
        Backend::of_status(404).await,
        Backend::saying("no").await,
        Backend::saying(json!({"error": {"code": 500, "message": "no"}})).await,
    ] {
        let asking = Asking::at(&backend, settings);
        for _ in 0..3 {
            assert!(asking.rpc().await.is_err());
        }
        assert_eq!((backend.count(), asking.open(Kind::Rpc)), (3, 0));
    }
}

#[tokio::test]
async fn the_headers_that_are_named_are_passed_on_and_no_others() {
    let backend = Backend::saying("{}").await;
    let settings = r#"hooks.headers = ["Cookie", "authorization", "x-forwarded-for"]
hooks.emulated_headers = ["Authorization", "X-Emulated"]
hooks.static_headers = ["X-Api-Key: s3cret", "authorization: static", "x-emulated: static"]"#;
    let Asking { hooks, .. } = Asking::at(&backend, settings);
    let ask = async |headers| {
        hooks.refresh(&Caller { headers, ..caller() }).await.unwrap();
        backend.last()
    };
    let seen = ask(None).await;
    assert_eq!((seen.header("x-api-key"), seen.header("authorization")), (vec!["s3cret"], vec!["static"]));

    let mut request = HeaderMap::new();
    for (name, value) in [
        ("cookie", "a=1"),
        ("x-forwarded-for", "1.1.1.1"),
        ("x-forwarded-for", "2.2.2.2"),
        ("x-emulated", "real"),
        ("host", "outside"),
        ("accept", "x"),
    ] {
        request.append(name, value.parse().unwrap());
    }
    let captured = hooks.capture(&request);
    let seen = ask(captured.clone()).await;
    assert_eq!((seen.header("cookie"), seen.header("x-forwarded-for")), (vec!["a=1"], vec!["1.1.1.1", "2.2.2.2"]));
    assert_eq!((seen.header("x-emulated"), seen.header("authorization")), (vec!["static"], vec!["static"]));
    assert_eq!((seen.header("accept"), seen.header("host")), (vec!["*/*"], vec![&*backend.address.to_string()]));

    let given = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<HashMap<_, _>>()
    };
    let emulated = given(&[("AUTHORIZATION", "Bearer e"), ("cookie", "forged"), ("X-emulated", "e"), ("x-other", "e")]);
    let seen = ask(hooks.with_emulated(captured, &emulated)).await;
    assert_eq!((seen.header("authorization"), seen.header("cookie")), (vec!["Bearer e"], vec!["a=1"]));
    assert_eq!((seen.header("x-emulated"), seen.header("x-other")), (vec!["e"], vec![]));

    request.insert("authorization", "Bearer r".parse().unwrap());
    let seen = ask(hooks.with_emulated(hooks.capture(&request), &emulated)).await;
    assert_eq!(seen.header("authorization"), ["Bearer r"]);

    let broken = given(&[("x-emulated", "a\r\nx-injected: b")]);
    assert!(hooks.with_emulated(None, &broken).is_none());
    assert!(hooks.capture(&HeaderMap::new()).is_none());
}

#[tokio::test]
async fn user_and_password_of_the_address_are_sent_to_the_backend() {
    let backend = Backend::saying("{}").await;
    let asking = Asking::with(&format!("hooks.rpc.url = \"http://me:pass@{}/a?key=1\"", backend.address));
    asking.rpc().await.unwrap();
    assert_eq!(backend.last().header("authorization"), ["Basic bWU6cGFzcw=="]);
}

#[tokio::test]
async fn rooms_may_have_addresses_of_their_own() {
    let (common, own) = (Backend::saying("{}").await, Backend::saying("{}").await);
    let settings = load(&format!(
        "hooks.subscribe.url = \"{}\"\n[[namespaces]]\nname = \"chat\"\nsubscribe_hook = true\n\
         subscribe_hook_url = \"{}\"\npublish_hook = true\npublish_hook_url = \"{}\"",
        common.url(),
        own.url(),
        own.url()
    ))
    .unwrap();
    let rules = settings.rules(Some("chat")).unwrap();
    let hooks = Hooks::new(&settings, &Metrics::new()).unwrap();
    let call = SubscribeCall { room: "chat:1", ..SubscribeCall::default() };
    hooks.subscribe(&caller(), rules.subscribe_hook_url.as_ref(), &call).await.unwrap();
    assert_eq!((common.count(), own.count()), (0, 1));
    hooks.subscribe(&caller(), None, &call).await.unwrap();
    assert_eq!((common.count(), own.count()), (1, 1));
    let call = PublishCall { room: "chat:1", data: b"1" };
    hooks.publish(&caller(), rules.publish_hook_url.as_ref(), &call).await.unwrap();
    assert_eq!((common.count(), own.count()), (1, 2));
    assert!(hooks.has(Kind::Subscribe) && !hooks.has(Kind::Publish) && hooks.asks_after_connect());
    // Nobody to ask.
    let refused = hooks.publish(&caller(), None, &call).await;
    assert_eq!(refused, Err(Refusal::Error(ErrorCode::NOT_AVAILABLE)));
}

#[tokio::test]
async fn addresses_of_rooms_come_and_go_with_their_rules() {
    let (first, second) = (Backend::of_status(500).await, Backend::saying("{}").await);
    let rules = |backend: &Backend| {
        load(&format!(
            "hooks.breaker_failures = 1\nrooms.publish_hook = true\nrooms.publish_hook_url = \"{}\"",
            backend.url()
        ))
        .unwrap()
    };
    let (before, after) = (rules(&first), rules(&second));
    let own = |settings: &config::Settings| settings.rooms.publish_hook_url.clone();
    let metrics = Metrics::new();
    let hooks = Hooks::new(&before, &metrics).unwrap();
    let open = || metrics.hook_breaker_open.with_label_values(&["publish"]).get();
    let publish = async |url: Option<HookUrl>| {
        hooks.publish(&caller(), url.as_ref(), &PublishCall { room: "r", data: b"1" }).await.map(drop)
    };
    assert_eq!((publish(own(&before)).await, open()), (Err(Refusal::Unavailable), 1));
    // What is known of an address that stays is kept.
    hooks.reload(&before);
    assert_eq!((publish(own(&before)).await, open(), first.count()), (Err(Refusal::Unavailable), 1, 1));
    hooks.reload(&after);
    assert_eq!((publish(own(&after)).await, open(), second.count()), (Ok(()), 0, 1));
    // Somebody may still have the rules of before.
    assert_eq!((publish(own(&before)).await, first.count()), (Err(Refusal::Unavailable), 1));
}

#[tokio::test]
async fn a_backend_behind_tls_is_asked_if_an_authority_of_the_settings_signed_it() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .stderr(Stdio::null())
        .status();
    assert!(made.expect("openssl is installed").success());
    let port = serve_tls(&certificate, &key).await;
    let url = format!("hooks.rpc.url = \"https://localhost:{port}/\"\n");
    let stranger = Asking::with(&url);
    assert_eq!(stranger.rpc().await, Err(Refusal::Unavailable));
    assert_eq!(stranger.counted(Kind::Rpc, "unreachable"), 1);
    let known = Asking::with(&format!("{url}hooks.ca_file = \"{}\"", certificate.display()));
    assert_eq!(known.rpc().await.unwrap(), "3");
}

/// A server that answers anything with a sum, and its port.
async fn serve_tls(certificate: &std::path::Path, key: &std::path::Path) -> u16 {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions of the provider")
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_file(certificate).expect("a certificate")],
            PrivateKeyDer::from_pem_file(key).expect("a key"),
        )
        .expect("they belong together");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let port = listener.local_addr().expect("it listens").port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let _ = stream.read(&mut [0; 4096]).await;
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 21\r\nconnection: close\r\n\r\n{\"result\":{\"data\":3}}";
            let _ = stream.write_all(answer).await;
            let _ = stream.shutdown().await;
        }
    });
    port
}

#[test]
fn settings_that_cannot_be_meant_are_refused() {
    for (settings, fault) in [
        ("hooks.rpc.url = \"backend\"", "hooks.rpc.url: is not a URL"),
        ("hooks.rpc.url = \"redis://backend\"", "hooks.rpc.url: begins with redis://"),
        ("hooks.rpc.url = \"http://backend/#a\"", "hooks.rpc.url: has a part behind #"),
        ("hooks.connect.timeout = \"0s\"", "hooks.connect.timeout: must be more than 0"),
        ("hooks.concurrency = 0", "hooks.concurrency: must be more than 0"),
        ("hooks.headers = [\"Content-Length\"]", "cannot be passed on"),
        ("hooks.emulated_headers = [\"host\"]", "cannot be passed on"),
        ("hooks.headers = [\"a b\"]", "is no name of a header"),
        ("hooks.static_headers = [\"X-Key\"]", "a header without a colon"),
        ("hooks.status_transforms = [\"503\"]", "is none of"),
        ("hooks.status_transforms = [\"200: error 404 x\"]", "no HTTP status other than 200"),
        ("hooks.status_transforms = [\"503: error 99 x\"]", "error code 99 may not be chosen"),
        ("hooks.status_transforms = [\"503: disconnect 3000 x\"]", "disconnect code 3000 may not be chosen"),
        ("hooks.ca = \"ca.pem\"", "hooks.ca: holds no certificate"),
        ("rooms.subscribe_hook = true", "rooms.subscribe_hook: nobody is there to ask: set hooks.subscribe.url"),
        (
            "[[namespaces]]\nname = \"chat\"\npublish_hook = true",
            "namespaces.chat.publish_hook: nobody is there to ask: set hooks.publish.url",
        ),
    ] {
        let faults = load(settings).expect_err(settings);
        assert!(faults.contains(fault), "{faults}\nshould say {fault}");
    }
}

#[test]
fn secrets_of_the_settings_are_not_shown() {
    let settings = load(
        "[hooks]\nrpc.url = \"https://me:pass@backend/a?key=querykey\"\nstatic_headers = [\"X-Key: headerkey\"]\n",
    )
    .unwrap();
    let shown = format!("{:?}", settings.hooks);
    assert!(shown.contains("https://me:***@backend/a?***") && shown.contains("x-key: ***"), "{shown}");
    for secret in ["pass", "querykey", "headerkey"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    let url: &HookUrl = settings.hooks.rpc.url.as_ref().unwrap();
    assert_eq!(url.reveal().as_str(), "https://me:pass@backend/a?key=querykey");
}

#[test]
fn a_backend_that_lets_clients_in_stands_for_a_key() {
    let settings = load("listen = \"0.0.0.0:8000\"\nhooks.connect.url = \"http://backend/\"").unwrap();
    assert!(!settings.development.0);
}
