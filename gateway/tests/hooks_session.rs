//! What comes of the backend's answers for clients: who they are, where they may enter and speak, and how long; and that nobody
//! else waits for a backend that is slow, wrong or down.

mod common;

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::response::IntoResponse;
use common::{
    Client, Gateway, Stream, Value,
    backend::Backend,
    json,
    stream::{JSON, escape},
    token,
};
use tokio::sync::Semaphore;

fn from_now(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    i64::try_from(now).expect("not so late") + seconds
}

/// Connects without a token and gives the reply.
async fn come(node: &Gateway, connect: Value) -> (Client, Value) {
    let mut client = Client::open(node.clients).await;
    let reply = client.ask(json!({"connect": connect})).await;
    (client, reply)
}

const HOOKED: &str = r#"
[[namespaces]]
name = "hooked"
subscribe_hook = true
publish_hook = true
sub_refresh_hook = true
presence = true
allow_presence_for_subscriber = true
history_size = 10
history_ttl = "60s"
allow_history_for_subscriber = true
"#;

#[tokio::test]
async fn the_backend_says_who_a_client_is_and_where_it_goes() {
    let backend = Backend::saying(|_, body| match body["data"]["as"].as_str() {
        Some("ann") => {
            json!({"result": {"user": "ann", "info": {"n": "Ann"}, "data": {"hello": 1}, "channels": ["news"],
            "subs": {"seat": {"data": {"at": 4}}}, "expire_at": from_now(300), "meta": {"tenant": 7},
            "caps": [{"channels": ["extra"], "allow": ["sub"]}]}})
        }
        Some("gone") => json!({"result": {"user": "ann", "expire_at": from_now(-300)}}),
        Some("refused") => json!({"error": {"code": 403, "message": "no seat"}}),
        Some("out") => json!({"disconnect": {"code": 4500, "reason": "out"}}),
        _ => json!({}),
    })
    .await;
    let settings = backend.settings(&["connect", "rpc"]) + "hooks.include_connection_meta = true\n";
    let node = Gateway::start(&settings);
    let (mut client, reply) = come(&node, json!({"data": {"as": "ann"}, "name": "js", "version": "1"})).await;
    let connect = &reply["connect"];
    assert_eq!((&connect["data"], &connect["expires"]), (&json!({"hello": 1}), &json!(true)));
    assert_eq!(connect["subs"], json!({"news": {}, "seat": {"data": {"at": 4}}}));
    assert_eq!(client.ask(json!({"subscribe": {"channel": "extra"}})).await["subscribe"], json!({}));
    assert_eq!(client.ask(json!({"subscribe": {"channel": "else"}})).await["error"]["code"], 103);
    client.ask(json!({"rpc": {"method": "m"}})).await;
    let asked = &backend.asked("connect")[0];
    assert_eq!(
        (&asked["name"], &asked["transport"], &asked["client"]),
        (&json!("js"), &json!("websocket"), &connect["client"])
    );
    let called = &backend.asked("rpc")[0];
    assert_eq!((&called["user"], &called["meta"]), (&json!("ann"), &json!({"tenant": 7})));

    assert_eq!(come(&node, json!({"data": {"as": "gone"}})).await.1["error"]["code"], 110);
    assert_eq!(
        come(&node, json!({"data": {"as": "refused"}})).await.1["error"],
        json!({"code": 403, "message": "no seat"})
    );
    for (data, close) in [(json!({"as": "out"}), (4500, "out")), (json!({}), (3501, "bad request"))] {
        let mut client = Client::open(node.clients).await;
        client.send(&json!({"id": 1, "connect": {"data": data}}).to_string()).await;
        assert_eq!(client.closed().await, Some((close.0, close.1.to_owned())));
    }
    let count = backend.asked("connect").len();
    Client::connected(node.clients, "bob").await;
    assert_eq!(backend.asked("connect").len(), count, "a token goes before the hook");
}

#[tokio::test]
async fn what_is_sent_with_connect_waits_for_the_backend() {
    let backend = Backend::saying(|_, _| json!({"result": {"user": "ann"}})).await;
    let node = Gateway::open(&backend.settings(&["connect"]));
    let mut client = Client::open(node.clients).await;
    let commands = [
        json!({"id": 1, "connect": {}}),
        json!({"id": 2, "subscribe": {"channel": "r"}}),
        json!({"id": 3, "publish": {"channel": "r", "data": 1}}),
    ];
    client.send(&commands.map(|command| command.to_string()).join("\n")).await;
    assert_eq!(client.hear("r").await, json!(1));
}

#[tokio::test]
async fn the_backend_says_who_may_enter_and_speak_and_what_is_said() {
    let backend = Backend::saying(|hook, body| match (hook, body["channel"].as_str(), body["data"].as_str()) {
        ("subscribe", Some("hooked:shut"), _) => json!({"error": {"code": 403, "message": "no seat"}}),
        ("subscribe", Some("hooked:late"), _) => json!({"result": {"expire_at": from_now(-5)}}),
        ("subscribe", ..) => json!({"result": {"info": {"seat": 4}, "data": {"topic": "x"}, "allow": ["hst"]}}),
        ("publish", _, Some("bad")) => json!({"error": {"code": 400, "message": "rude"}}),
        ("publish", _, Some("out")) => json!({"disconnect": {"code": 4501, "reason": "rude"}}),
        ("publish", _, Some("secret")) => {
            json!({"result": {"data": "s*****", "tags": {"checked": "1"}, "skip_history": true}})
        }
        _ => json!({"result": {}}),
    })
    .await;
    let node = Gateway::start(&(backend.settings(&["subscribe", "publish", "sub_refresh"]) + HOOKED));
    let mut client = Client::connected(node.clients, "ann").await;
    let reply = client.ask(json!({"subscribe": {"channel": "hooked:r", "data": {"a": 1}}})).await;
    assert_eq!(reply["subscribe"]["data"], json!({"topic": "x"}));
    assert_eq!(backend.asked("subscribe")[0]["data"], json!({"a": 1}));
    assert_eq!(client.ask(json!({"subscribe": {"channel": "hooked:shut"}})).await["error"]["code"], 403);
    assert_eq!(client.ask(json!({"subscribe": {"channel": "hooked:late"}})).await["error"]["code"], 110);
    let present = client.ask(json!({"presence": {"channel": "hooked:r"}})).await["presence"]["presence"].clone();
    let info = present.as_object().and_then(|all| all.values().next()).map(|one| one["chan_info"].clone());
    assert_eq!(info, Some(json!({"seat": 4})));

    client.publish("hooked:r", &json!("plain")).await;
    client.publish("hooked:r", &json!("secret")).await;
    assert_eq!(client.ask(json!({"publish": {"channel": "hooked:r", "data": "bad"}})).await["error"]["code"], 400);
    let kept =
        client.ask(json!({"history": {"channel": "hooked:r", "limit": 10}})).await["history"]["publications"].clone();
    assert_eq!(kept.as_array().map(Vec::len), Some(1), "the secret is not kept: {kept}");
    client.send(&json!({"id": 99, "publish": {"channel": "hooked:r", "data": "out"}}).to_string()).await;
    assert_eq!(client.closed().await, Some((4501, "rude".to_owned())));
}

#[tokio::test]
async fn publications_keep_their_order_while_the_backend_is_asked() {
    // The first answer takes longest.
    let backend = Backend::start(async |_, body: Value| {
        let number = body["data"].as_u64().unwrap_or(0);
        tokio::time::sleep(Duration::from_millis(20 / (number + 1))).await;
        json!({"result": {}}).to_string().into_response()
    })
    .await;
    let rules = "rooms.allow_subscribe_for_client = true\nrooms.publish_hook = true\n";
    let node = Gateway::start(&(backend.settings(&["publish"]) + rules));
    let mut client = Client::subscribed(node.clients, "ann", "r").await;
    let commands: Vec<_> =
        (0..10).map(|n| json!({"id": n + 10, "publish": {"channel": "r", "data": n}}).to_string()).collect();
    client.send(&commands.join("\n")).await;
    for number in 0..10 {
        assert_eq!(client.hear("r").await, json!(number));
    }
}

#[tokio::test]
async fn a_backend_that_hangs_holds_up_nobody_but_who_asks_it() {
    let gate = Arc::new(Semaphore::new(0));
    let open = Arc::clone(&gate);
    let backend = Backend::start(move |_, _| {
        let gate = Arc::clone(&gate);
        async move {
            gate.acquire().await.expect("it is not closed").forget();
            json!({"result": {"data": {"late": 1}}}).to_string().into_response()
        }
    })
    .await;
    let settings = "client.ping_interval = \"1s\"\nclient.pong_timeout = \"900ms\"\n";
    let node = Gateway::open(&(backend.settings(&["rpc"]) + settings));
    let mut asking = Client::subscribed(node.clients, "ann", "r").await;
    let mut other = Client::subscribed(node.clients, "bob", "r").await;
    asking.send(&json!({"id": 50, "rpc": {"method": "m"}}).to_string()).await;
    // It is pinged, and answered what it asks beside.
    while asking.next().await != json!({}) {}
    asking.send("{}").await;
    asking.publish("r", &json!(1)).await;
    assert_eq!(other.hear("r").await, json!(1));
    other.publish("r", &json!(2)).await;
    while asking.hear("r").await != json!(2) {}
    open.add_permits(1);
    loop {
        let message = asking.next().await;
        if message["id"] == 50 {
            assert_eq!(message["rpc"], json!({"data": {"late": 1}}));
            break;
        }
        if message == json!({}) {
            asking.send("{}").await;
        }
    }
}

#[tokio::test]
async fn a_backend_that_is_down_or_wrong_is_error_100() {
    let wrong = Backend::start(async |_, _| "not JSON".into_response()).await;
    let down = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.local_addr().expect("bound")
    };
    let hooks = [wrong.settings(&["rpc"]), format!("hooks.subscribe.url = \"http://{down}/\"\n")].concat();
    let node = Gateway::start(&(hooks + "[[namespaces]]\nname = \"hooked\"\nsubscribe_hook = true\n"));
    let mut client = Client::connected(node.clients, "ann").await;
    for command in [json!({"rpc": {"method": "m"}}), json!({"subscribe": {"channel": "hooked:r"}})] {
        let error = client.ask(command).await["error"].clone();
        assert_eq!((&error["code"], &error["temporary"]), (&json!(100), &json!(true)));
    }
    let claims = json!({"sub": "ann", "channel": "hooked:r"});
    let reply = client.ask(json!({"subscribe": {"channel": "hooked:r", "token": token(&claims)}})).await;
    assert_eq!(reply["subscribe"], json!({}), "a token needs no backend");
}

#[tokio::test]
async fn the_backend_prolongs_connections_and_subscriptions() {
    let backend = Backend::saying(|hook, body| match (hook, body["user"].as_str()) {
        ("subscribe", _) => json!({"result": {"expire_at": from_now(2)}}),
        ("refresh", Some("stays" | "alone")) | ("sub_refresh", Some("stays")) => {
            json!({"result": {"expire_at": from_now(300)}})
        }
        _ => json!({"result": {"expired": true}}),
    })
    .await;
    let node = Gateway::start(&(backend.settings(&["subscribe", "publish", "sub_refresh", "refresh"]) + HOOKED));
    let mut clients = Vec::new();
    for user in ["stays", "alone", "goes"] {
        let mut client = Client::open(node.clients).await;
        let claims = json!({"sub": user, "exp": from_now(2)});
        let reply = client.ask(json!({"connect": {"token": token(&claims)}})).await;
        assert_eq!(reply["connect"]["expires"], Value::Null, "it need not refresh by itself");
        let reply = client.ask(json!({"subscribe": {"channel": "hooked:r"}})).await;
        assert_eq!(reply["subscribe"]["expires"], Value::Null, "nor there: {reply}");
        clients.push(client);
    }
    let [mut stays, mut alone, mut goes] = clients.try_into().ok().expect("there are three");
    assert_eq!(goes.closed().await.map(|close| close.0), Some(3005));
    let unsubscribed = loop {
        let message = alone.next().await;
        if message["push"]["unsubscribe"].is_object() {
            break message["push"]["unsubscribe"]["code"].clone();
        }
    };
    assert_eq!(unsubscribed, 2501);
    let still = stays.ask(json!({"presence": {"channel": "hooked:r"}})).await;
    assert!(still["presence"].is_object(), "{still}");
    assert!(backend.asked("sub_refresh").len() >= 2);
}

#[tokio::test]
async fn every_transport_says_its_name_and_brings_the_headers_that_are_named() {
    let backend = Backend::saying(|_, _| json!({"result": {"user": "ann", "channels": ["news"]}})).await;
    let headers = "hooks.headers = [\"x-real\"]\nhooks.emulated_headers = [\"x-real\", \"x-given\"]\n";
    let node = Gateway::open(&(backend.settings(&["connect", "rpc"]) + headers));
    let connect = json!({"headers": {"X-Real": "forged", "X-Given": "given", "X-Other": "other"}});
    let (command, real) = (json!({"id": 1, "connect": connect}).to_string(), ("x-real", "real"));

    let mut client = Client::open_at(node.clients, "/connection/websocket", &[real]).await;
    client.ask(json!({"connect": connect})).await;
    client.ask(json!({"rpc": {"method": "m"}})).await;
    let mut uni = Client::open_at(node.clients, "/connection/uni_websocket", &[real]).await;
    uni.send(&connect.to_string()).await;
    assert_eq!(uni.next().await["connect"]["subs"], json!({"news": {}}));
    let said = |path: &str, what: &str| format!("{path}?cf_connect={}", escape(what));
    let requests = [
        ("GET", said("/connection/sse", &command), String::new()),
        ("POST", "/connection/http_stream".to_owned(), command.clone()),
        ("GET", said("/connection/uni_sse", &connect.to_string()), String::new()),
        ("POST", "/connection/uni_http_stream".to_owned(), connect.to_string()),
    ];
    for (method, path, body) in requests {
        let mut stream = Stream::request(node.clients, method, &path, &[real, JSON], body.as_bytes()).await;
        let reply = stream.next().await;
        assert_eq!(reply["connect"]["subs"], json!({"news": {}}), "{path}: {reply}");
    }
    let names = ["websocket", "uni_websocket", "sse", "http_stream", "uni_sse", "uni_http_stream"];
    let asked: Vec<_> = backend.asked("connect").iter().map(|body| body["transport"].clone()).collect();
    assert_eq!(asked, names);
    for hook in ["connect", "rpc"] {
        let all = |name| backend.headers(hook, name);
        assert!(all("x-real").iter().all(|value| value == "real"), "that of the request goes before: {hook}");
        assert!(all("x-given").iter().all(|value| value == "given"), "{hook}");
        assert!(all("x-other").iter().all(String::is_empty), "{hook}");
    }
    assert_eq!(backend.headers("rpc", "x-given").len(), 1);
    assert_eq!(node.count("roomcast_hook_requests_total{hook=\"connect\",result=\"ok\"}").await, 6);
}

/// Whoever has a token comes in as ever, and whoever has none is told to come again.
#[tokio::test]
async fn a_backend_that_is_down_keeps_out_those_alone_of_whom_it_was_to_say_who_they_are() {
    let down = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let hooks = ["connect", "publish", "refresh"].map(|hook| format!("hooks.{hook}.url = \"http://{down}/\"\n"));
    let rules = "hooks.breaker_failures = 2\nhooks.breaker_pause = \"1h\"\nrooms.publish_hook = true\n\
                 rooms.allow_subscribe_for_client = true\n";
    let node = Gateway::start(&(hooks.concat() + rules));
    let internal = json!({"code": 100, "message": "internal server error", "temporary": true});
    for _ in 0..4 {
        assert_eq!(come(&node, json!({})).await.1["error"], internal);
    }
    assert_eq!(node.count("roomcast_hook_breaker_open{hook=\"connect\"}").await, 1);
    let result = async |result: &str| {
        node.count(&format!("roomcast_hook_requests_total{{hook=\"connect\",result=\"{result}\"}}")).await
    };
    assert_eq!((result("unreachable").await, result("breaker_open").await), (2, 2));
    let mut stream = Stream::request(node.clients, "POST", "/connection/uni_http_stream", &[JSON], b"{}").await;
    assert_eq!(stream.closed().await.map(|close| close.0), Some(3004), "nobody reads an error there");

    let mut client = Client::open(node.clients).await;
    let claims = json!({"sub": "ann", "exp": from_now(1)});
    let reply = client.ask(json!({"connect": {"token": token(&claims)}})).await;
    assert!(reply["connect"]["client"].is_string(), "{reply}");
    client.subscribe("r").await;
    assert_eq!(client.ask(json!({"publish": {"channel": "r", "data": 1}})).await["error"], internal);
    // What it was to prolong goes on, and nothing was said.
    node.metric_until("roomcast_hook_duration_seconds_count{hook=\"refresh\"}", |count| count > 0.0).await;
    node.publish("r", &json!("by the server")).await;
    assert_eq!(client.hear("r").await, json!("by the server"));
}

#[tokio::test]
async fn payloads_go_as_base64_and_statuses_mean_what_the_settings_say() {
    let backend = Backend::start(async |hook, body: Value| {
        let status = |status: u16| (http::StatusCode::from_u16(status).expect("a status"), "").into_response();
        match (hook.as_str(), body["method"].as_str()) {
            ("rpc", Some("busy")) => status(503),
            ("rpc", Some("out")) => status(403),
            ("rpc", Some("other")) => status(500),
            ("rpc", _) => json!({"result": {"b64data": body["b64data"]}}).to_string().into_response(),
            ("publish", _) => json!({"result": {"b64data": "eyJuZXciOjF9"}}).to_string().into_response(),
            _ => json!({"result": {"user": "ann", "b64info": "eyJuIjoxfQ==", "b64data": "WzFd"}})
                .to_string()
                .into_response(),
        }
    })
    .await;
    let settings = "hooks.binary_encoding = true\nhooks.status_transforms = [\"503: temporary 1503 busy\", \
                    \"403: disconnect 4403 out\"]\nrooms.publish_hook = true\nrooms.allow_subscribe_for_client = true\n";
    let node = Gateway::start(&(backend.settings(&["connect", "publish", "rpc"]) + settings));
    let (mut client, reply) = come(&node, json!({"data": {"a": 1}})).await;
    assert_eq!(reply["connect"]["data"], json!([1]));
    let asked = &backend.asked("connect")[0];
    assert_eq!(
        (&asked["encoding"], &asked["b64data"], &asked["data"]),
        (&json!("binary"), &json!("eyJhIjoxfQ=="), &Value::Null)
    );
    assert_eq!(client.ask(json!({"rpc": {"method": "m", "data": {"q": 2}}})).await["rpc"], json!({"data": {"q": 2}}));
    client.subscribe("r").await;
    client.publish("r", &json!("old")).await;
    let heard = loop {
        let message = client.next().await;
        if message["push"]["pub"].is_object() {
            break message["push"]["pub"].clone();
        }
    };
    assert_eq!((&heard["data"], &heard["info"]["conn_info"]), (&json!({"new": 1}), &json!({"n": 1})));
    let error =
        async |client: &mut Client, method| client.ask(json!({"rpc": {"method": method}})).await["error"].clone();
    assert_eq!(error(&mut client, "busy").await, json!({"code": 1503, "message": "busy", "temporary": true}));
    assert_eq!(error(&mut client, "other").await["code"], 100);
    client.send(&json!({"id": 99, "rpc": {"method": "out"}}).to_string()).await;
    assert_eq!(client.closed().await, Some((4403, "out".to_owned())));
}
