//! The node as a process: signals, exit codes, what it prints and logs, and what it never says.

mod common;

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener},
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::{Child, ChildStderr, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use common::{Client, PATIENCE, SECRET, Value, http, json, redis, stream, token};

const WITH_KEY: (&str, &str) = ("ROOMCAST_AUTH_HMAC_SECRET", SECRET);

/// A running binary and what it has written so far. It is killed with the value.
struct Process {
    child: Child,
    out: Arc<Mutex<String>>,
    err: Arc<Mutex<String>>,
}

impl Process {
    /// Starts the binary on ports of its own, with nothing else in its environment than this.
    fn start(environment: &[(&str, &str)]) -> Self {
        Self::spawn(Command::new(env!("CARGO_BIN_EXE_roomcast")), environment)
    }

    fn spawn(command: Command, environment: &[(&str, &str)]) -> Self {
        let mut child = launch(command, environment, Stdio::piped());
        let out = gather(child.stdout.take().expect("it is piped"));
        let err = gather(child.stderr.take().expect("it is piped"));
        Self { child, out, err }
    }

    /// Starts one whose log is read until it listens, and then no more.
    fn start_unread(environment: &[(&str, &str)]) -> (Self, BufReader<ChildStderr>) {
        let mut child = launch(Command::new(env!("CARGO_BIN_EXE_roomcast")), environment, Stdio::piped());
        let out = gather(child.stdout.take().expect("it is piped"));
        let mut err = BufReader::new(child.stderr.take().expect("it is piped"));
        let mut read = String::new();
        while !read.contains("\"listening\"") {
            assert!(err.read_line(&mut read).expect("a log of text") > 0, "it does not start: {read}");
        }
        (Self { child, out, err: Arc::new(Mutex::new(read)) }, err)
    }

    /// Starts one whose standard error has no room for a single byte, as long as the other end is kept and not read.
    fn start_full(environment: &[(&str, &str)]) -> (Self, UnixStream) {
        let (unread, mut err) = UnixStream::pair().expect("sockets");
        err.set_nonblocking(true).expect("a socket");
        while err.write(&[b'\n'; 4096]).is_ok() {}
        err.set_nonblocking(false).expect("a socket");
        let command = Command::new(env!("CARGO_BIN_EXE_roomcast"));
        let mut child = launch(command, environment, OwnedFd::from(err).into());
        let out = gather(child.stdout.take().expect("it is piped"));
        (Self { child, out, err: Arc::default() }, unread)
    }

    fn out(&self) -> String {
        self.out.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn err(&self) -> String {
        self.err.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn until<T>(&mut self, what: &str, find: impl Fn(&Self) -> Option<T>) -> T {
        let begin = Instant::now();
        loop {
            if let Some(found) = find(self) {
                return found;
            }
            assert!(begin.elapsed() < PATIENCE, "never came: {what}; {}{}", self.out(), self.err());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The first line of the log with this message, which is JSON here.
    async fn logged(&mut self, message: &str) -> Value {
        self.until(message, |process| process.log().into_iter().find(|line| line["message"] == message)).await
    }

    /// The whole lines of the log.
    fn log(&self) -> Vec<Value> {
        let text = self.err();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"))).collect()
    }

    /// Where clients connect, and where the internal pages are.
    async fn listens(&mut self) -> (SocketAddr, SocketAddr) {
        let line = self.logged("listening").await;
        let address = |name: &str| line[name].as_str().and_then(|text| text.parse().ok()).expect("an address");
        (address("clients"), address("internal"))
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args([&format!("-{signal}"), &pid]).status().expect("kill is installed");
        assert!(status.success());
    }

    /// Waits for the end: the exit code, once everything that was written is read.
    async fn ended(&mut self) -> i32 {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return status.code().expect("it exits by itself");
            }
            assert!(begin.elapsed() < PATIENCE, "it does not end: {}", self.err());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn launch(mut command: Command, environment: &[(&str, &str)], err: Stdio) -> Child {
    let quick = [
        ("ROOMCAST_LISTEN", "127.0.0.1:0"),
        ("ROOMCAST_INTERNAL_LISTEN", "127.0.0.1:0"),
        ("ROOMCAST_SHUTDOWN_DELAY", "100ms"),
        ("ROOMCAST_SHUTDOWN_DRAIN", "0s"),
    ];
    command.env_clear().envs(quick).envs(environment.iter().copied());
    command.stdout(Stdio::piped()).stderr(err).spawn().expect("the binary is built")
}

fn gather(from: impl Read + Send + 'static) -> Arc<Mutex<String>> {
    let text = Arc::new(Mutex::new(String::new()));
    let gathered = text.clone();
    thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = String::new();
        while from.read_line(&mut line).is_ok_and(|length| length > 0) {
            gathered.lock().unwrap_or_else(PoisonError::into_inner).push_str(&line);
            line.clear();
        }
    });
    text
}

/// Runs a command of the binary: exit code, standard output, standard error.
fn run(environment: &[(&str, &str)], arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_roomcast"));
    command.args(arguments).env_clear().envs(environment.iter().copied());
    let output = command.output().expect("the binary is built");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().expect("it exits"), text(&output.stdout), text(&output.stderr))
}

#[tokio::test]
async fn a_signal_stops_it_in_good_order() {
    for signal in ["TERM", "INT"] {
        let mut process = Process::start(&[WITH_KEY]);
        let (clients, _) = process.listens().await;
        let mut client = Client::connected(clients, "ann").await;
        process.signal(signal);
        assert_eq!(client.closed().await, Some((3001, "shutdown".to_owned())));
        drop(client);
        assert_eq!(process.ended().await, 0);
        process.logged("stopped").await;
        let log = process.log();
        let told: Vec<_> = log.iter().filter_map(|line| line["message"].as_str()).collect();
        let at = told.iter().position(|message| *message == "listening").expect("it listened");
        assert_eq!(
            told[at + 1..],
            ["stopping: not ready any more, still accepting", "draining", "stopped"],
            "{signal}"
        );
        assert_eq!(log[at + 2]["connections"], 1);
        assert!(log.iter().all(|line| line["level"] == "INFO"), "{log:?}");
    }
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let mut process =
        Process::start(&[WITH_KEY, ("ROOMCAST_SHUTDOWN_DELAY", "60s"), ("ROOMCAST_SHUTDOWN_TIMEOUT", "90s")]);
    process.listens().await;
    process.signal("TERM");
    process.logged("stopping: not ready any more, still accepting").await;
    process.signal("INT");
    assert_eq!(process.ended().await, 1);
    process.logged("a second signal: ending at once").await;
}

#[tokio::test]
async fn an_address_in_use_is_named_with_the_setting_that_chooses_another() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    for (variable, setting) in [("ROOMCAST_LISTEN", "listen"), ("ROOMCAST_INTERNAL_LISTEN", "internal_listen")] {
        let mut process = Process::start(&[WITH_KEY, (variable, &address)]);
        assert_eq!(process.ended().await, 1);
        let wanted = format!("roomcast: cannot listen on {address}; choose another address");
        process.until(&wanted, |process| process.err().contains(&wanted).then_some(())).await;
        let err = process.err().replace('-', "_");
        assert!(err.contains(setting) && (setting != "listen" || !err.contains("internal")), "{err}");
        assert!(process.err().contains("Address already in use"), "{}", process.err());
    }
}

#[tokio::test]
async fn development_mode_prints_what_is_needed_and_it_works() {
    let mut process = Process::start(&[]);
    let (clients, internal) = process.listens().await;
    let out =
        process.until("the whole banner", |process| Some(process.out()).filter(|out| out.contains("README"))).await;
    let after = |name: &str| {
        let line = out.lines().find_map(|line| line.trim().strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in {out}")).trim().to_owned()
    };
    assert_eq!(after("Page"), format!("http://{clients}/"));
    let token = after("Token");
    let (status, page) = http::request(clients, "GET", "/", &[], b"").await;
    assert_eq!(status, 200);
    let place = "<script type=\"application/json\" id=\"config\">";
    let (_, config) = page.split_once(place).expect("the page has its configuration");
    let config: Value = serde_json::from_str(config.split("</script>").next().unwrap_or("")).expect("JSON");
    // Each is made anew, and both are good.
    for token in [&token, config["token"].as_str().expect("a token")] {
        let mut client = Client::open(clients).await;
        let reply = client.ask(json!({"connect": {"token": token}})).await;
        assert!(reply["connect"]["client"].is_string(), "{reply}");
        client.subscribe("any-room:of-any-namespace").await;
    }
    let line = after("Console");
    assert!(line.starts_with(&format!("ws = new WebSocket(\"ws://{clients}/ws\");")), "{line}");
    let sent = line.split_once("ws.send('").and_then(|(_, rest)| rest.strip_suffix("')")).expect("it sends something");
    let mut pasted = Client::open_at(clients, "/ws", &[("origin", "http://elsewhere.example")]).await;
    pasted.send(&sent.replace("\\n", "\n")).await;
    let (mut connected, mut subscribed) = (false, false);
    while !(connected && subscribed) {
        for line in String::from_utf8(pasted.frame().await.expect("it goes on").payload).expect("text").lines() {
            let reply: Value = serde_json::from_str(line).expect("JSON");
            connected |= reply["id"] == 1 && reply["connect"]["client"].is_string();
            subscribed |= reply["id"] == 2 && reply["subscribe"] == json!({});
        }
    }
    let body = br#"{"channel":"lobby","data":"without a key"}"#;
    assert_eq!(http::request(internal, "POST", "/api/publish", &[], body).await.0, 200);
    assert_eq!(pasted.hear("lobby").await, json!("without a key"));
    assert!(clients.ip().is_loopback() && internal.ip().is_loopback());
}

#[tokio::test]
async fn health_answers_with_its_exit_code() {
    let mut process = Process::start(&[WITH_KEY]);
    let (_, internal) = process.listens().await;
    let where_it_is = internal.to_string();
    let ask = |address: &str| run(&[("ROOMCAST_INTERNAL_LISTEN", address)], &["health"]);
    assert_eq!(ask(&where_it_is), (0, "ready\n".to_owned(), String::new()));
    process.signal("TERM");
    process.ended().await;
    let (code, out, err) = ask(&where_it_is);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("no answer from"), "{err}");

    let silent = redis::Port::reserve();
    let nowhere = format!("redis://127.0.0.1:{}", silent.number());
    let mut process = Process::start(&[WITH_KEY, ("ROOMCAST_REDIS_URL", &nowhere)]);
    let (_, internal) = process.listens().await;
    let (code, out, err) = ask(&internal.to_string());
    assert_eq!((code, out.as_str()), (1, ""));
    assert_eq!(err, "not ready: starting: Redis has not been heard yet\n");
}

#[tokio::test]
async fn the_log_is_json_where_nobody_reads_it_and_pretty_where_asked_for() {
    for format in ["json", "auto"] {
        let mut process = Process::start(&[WITH_KEY, ("ROOMCAST_LOG_FORMAT", format)]);
        let line = process.logged("listening").await;
        assert_eq!((&line["level"], &line["broker"]), (&json!("INFO"), &json!("memory")));
        assert!(line["timestamp"].is_string() && line["node"].is_string(), "{line}");
    }
    let mut process = Process::start(&[WITH_KEY, ("ROOMCAST_LOG_FORMAT", "pretty")]);
    process.until("a line for people", |process| process.err().contains(" listening ").then_some(())).await;
    assert!(!process.err().contains('{') && !process.err().contains('\u{1b}'), "{:?}", process.err());
    let mut process = Process::start(&[WITH_KEY, ("ROOMCAST_LOG_LEVEL", "warn")]);
    process.signal("TERM");
    let _ = process.child.wait();
    assert_eq!(process.err(), "");
}

/// A line that is written while it is logged stops the thread that logs, and soon every thread of the node.
#[tokio::test]
async fn a_log_that_nobody_reads_holds_up_nobody() {
    let (mut process, mut log) = Process::start_unread(&[
        WITH_KEY,
        ("ROOMCAST_LOG_LEVEL", "debug"),
        ("ROOMCAST_ROOMS_ALLOW_SUBSCRIBE_FOR_CLIENT", "true"),
        ("ROOMCAST_ROOMS_ALLOW_PUBLISH_FOR_CLIENT", "true"),
    ]);
    let (clients, internal) = process.listens().await;
    let mut listener = Client::subscribed(clients, "ben", "room").await;
    // The end of each is a line with the user's name, and a pipe holds 64 KB.
    let user = "u".repeat(1000);
    for _ in 0..100 {
        drop(Client::connected(clients, &user).await);
    }
    let mut client = Client::connected(clients, "ann").await;
    client.publish("room", &json!("heard")).await;
    assert_eq!(listener.hear("room").await, json!("heard"));
    let begin = Instant::now();
    while !http::request(internal, "GET", "/metrics", &[], b"").await.1.contains("\nroomcast_connections 2\n") {
        assert!(begin.elapsed() < PATIENCE, "their ends are noticed");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(http::request(internal, "GET", "/readyz", &[], b"").await.0, 200);
    drop((client, listener));
    process.signal("TERM");
    assert_eq!(process.ended().await, 0);
    let mut unread = Vec::new();
    log.read_to_end(&mut unread).expect("it was written");
    // What a pipe holds depends on how its pages are filled.
    assert!((32 * 1024..100_000).contains(&unread.len()), "the pipe was full: {} bytes", unread.len());
}

/// Has the runtime panic while it is made, on the main thread.
const PANIC: (&str, &str) = ("TOKIO_WORKER_THREADS", "none");

#[tokio::test]
async fn a_panic_is_a_line_of_the_log() {
    for asked in ["0", "1"] {
        let mut process = Process::start(&[WITH_KEY, PANIC, ("RUST_BACKTRACE", asked)]);
        let last = "roomcast: ended by a panic, which is in the log\n";
        process.until(last, |process| process.err().ends_with(last).then_some(())).await;
        assert_eq!(process.ended().await, 1);
        let err = process.err();
        let line = err.strip_suffix(last).and_then(|log| log.lines().next_back()).expect("a line before it");
        let line: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"));
        assert_eq!(line["level"], "ERROR");
        let message = line["message"].as_str().expect("a text");
        assert!(message.starts_with("panicked: ") && message.contains(PANIC.0), "{line}");
        assert_eq!(line["thread"], "main");
        assert!(line["location"].as_str().is_some_and(|place| place.contains(".rs:")), "{line}");
        assert_eq!(line["backtrace"].is_string(), asked == "1", "{line}");
    }
}

/// Signals do not end it any more by then, so that one that waited for a reader would stay.
#[tokio::test]
async fn a_start_that_fails_ends_though_nobody_reads_why() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    for fault in [("ROOMCAST_LISTEN", &*address), PANIC] {
        let (mut process, _unread) = Process::start_full(&[WITH_KEY, fault]);
        assert_eq!(process.ended().await, 1, "{fault:?}");
    }
}

/// A pipe in place of the settings file stands for a name server that never answers: both hold a thread for blocking calls.
#[tokio::test]
async fn a_blocking_call_that_never_returns_does_not_keep_it() {
    let folder = tempfile::tempdir().expect("a directory for temporary files");
    let (file, pipe) = (folder.path().join("roomcast.toml"), folder.path().join("pipe"));
    fs::write(&file, "").expect("it can be written");
    let path = file.to_str().expect("a path in UTF-8");
    let mut process = Process::start(&[WITH_KEY, ("ROOMCAST_CONFIG", path), ("ROOMCAST_RELOAD", "true")]);
    process.listens().await;
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo is installed").success());
    fs::rename(&pipe, &file).expect("one file system");
    // Opens once the other end is, and has it wait for words that do not come.
    let (opened, opens) = tokio::sync::oneshot::channel();
    thread::spawn(move || opened.send(File::options().write(true).open(file)));
    let opens = tokio::time::timeout(PATIENCE, opens).await.expect("the settings are read again");
    let _silent = opens.expect("it opens").expect("a pipe");
    process.signal("TERM");
    assert_eq!(process.ended().await, 0);
    process.logged("stopped").await;
}

/// Sends things that carry this mark wherever a client or a backend may put it.
async fn say_everywhere(clients: SocketAddr, internal: SocketAddr, mark: &str, bad_tokens: &[String]) {
    let mut listener = Client::subscribed(clients, "ben", "room").await;
    let mut client = Client::connected(clients, "ann").await;
    client.publish("room", &json!({"text": mark, mark: 1})).await;
    assert_eq!(listener.hear("room").await["text"], mark);
    for odd in [
        json!({"publish": {"channel": "room", "data": mark, "extra": mark}}),
        json!({"refresh": {"token": ""}}),
        json!({"rpc": {"method": "m", "data": mark}}),
    ] {
        client.ask(odd).await;
    }
    let odd_frames = [
        json!({"id": mark, "publish": {"channel": "room", "data": 1}}).to_string(),
        json!({"id": 5, "publish": mark}).to_string(),
        json!({"id": 5, "publish": {"channel": 7, "data": mark}}).to_string(),
        json!({"id": 5, "subscribe": {"channel": "room", "recover": mark}}).to_string(),
        json!({"id": 5, "send": {"data": mark}}).to_string(),
        format!("{mark} {{"),
        format!("{{\"id\": 5, \"publish\": {{\"channel\": \"room\", \"data\": {mark}"),
    ];
    for odd in odd_frames {
        let mut client = Client::connected(clients, "ann").await;
        client.send(&odd).await;
        // Most of them close the connection; what is passed over is answered.
        client.frame().await;
    }
    for token in bad_tokens {
        let mut client = Client::open(clients).await;
        client.send(&json!({"id": 1, "connect": {"token": token, "data": mark}}).to_string()).await;
        // An expired one is answered; any other closes the connection.
        client.frame().await;
        let bearer = format!("Bearer {token}");
        http::request(
            clients,
            "GET",
            "/ws",
            &UPGRADE.map(|(n, v)| (n, if n == "authorization" { &bearer } else { v })),
            b"",
        )
        .await;
    }
    for (key, body) in [
        ("api-key-of-the-test", json!({"channel": "room", "data": mark})),
        ("api-key-of-the-test", json!({"channel": {"a": mark}, "data": mark})),
        ("api-key-of-the-test", json!({"channel": "room", "version": mark})),
        ("api-key-of-the-test", json!({"channel": "room", "b64data": format!("{mark}!")})),
        (mark, json!({"channel": "room", "data": mark})),
    ] {
        http::request(internal, "POST", "/api/publish", &[("x-api-key", key)], body.to_string().as_bytes()).await;
    }
}

const UPGRADE: [(&str, &str); 5] = [
    ("connection", "Upgrade, close"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("authorization", ""),
];

#[tokio::test]
async fn what_clients_say_and_what_they_prove_themselves_with_is_never_logged() {
    const MARK: &str = "mark-of-what-was-said";
    let server = redis::RedisServer::start_with(&["--requirepass", "password-of-redis"]);
    let url = format!("redis://:password-of-redis@127.0.0.1:{}", server.port().expect("over TCP"));
    let mut process = Process::start(&[
        WITH_KEY,
        ("ROOMCAST_REDIS_URL", &url),
        ("ROOMCAST_LOG_LEVEL", "debug"),
        ("ROOMCAST_API_KEY", "api-key-of-the-test"),
        ("ROOMCAST_ROOMS_ALLOW_SUBSCRIBE_FOR_CLIENT", "true"),
        ("ROOMCAST_ROOMS_ALLOW_PUBLISH_FOR_CLIENT", "true"),
    ]);
    let (clients, internal) = process.listens().await;
    process.until("Redis", |process| (process.err().matches("connected to Redis").count() == 3).then_some(())).await;
    let expired = token(&json!({"sub": "ann", "exp": 1_000, "info": {"x": MARK}}));
    let not_yet = token(&json!({"sub": "ann", "nbf": 9_000_000_000_u64}));
    // Of a token that is signed the log may quote the claim at fault, and nothing else.
    let odd = token(&json!({"sub": "ann", "channels": "at fault", "info": {"x": MARK}}));
    let good = token(&json!({"sub": "ann"}));
    let forged = format!("{}A", &good[..good.len() - 2]);
    let tokens = [expired, not_yet, odd, forged, format!("{MARK}.{MARK}.{MARK}"), MARK.to_owned()];
    say_everywhere(clients, internal, MARK, &tokens).await;
    process.signal("TERM");
    assert_eq!(process.ended().await, 0);
    process.logged("stopped").await;
    let said = process.err() + &process.out();
    assert!(said.contains("malformed command") && said.contains("token refused"), "the log is at debug: {said}");
    for secret in [MARK, SECRET, "password-of-redis", "api-key-of-the-test", "eyJ"] {
        let line = said.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret} is in the log");
    }
    for token in tokens {
        assert!(!said.contains(&token[token.len() / 2..]), "a part of a token is in the log");
    }
}

#[tokio::test]
async fn the_limit_of_open_files_is_raised_and_told() {
    let mut command = Command::new("bash");
    command.args(["-c", "ulimit -Sn 256; ulimit -Hn 4096; exec \"$0\"", env!("CARGO_BIN_EXE_roomcast")]);
    let mut process = Process::spawn(command, &[WITH_KEY]);
    assert_eq!(process.logged("open files").await["limit"], 4096);
    let limits = fs::read_to_string(format!("/proc/{}/limits", process.child.id())).expect("it runs");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("Linux has it");
    assert_eq!(line.split_whitespace().nth(3), Some("4096"), "{line}");
}

#[tokio::test]
async fn a_limit_of_open_files_that_is_changed_holds() {
    let mut process = Process::start(&[WITH_KEY]);
    let (clients, _) = process.listens().await;
    let (id, files) = (i32::try_from(process.child.id()).expect("a process id"), rlimit::Resource::NOFILE);
    let (_, hard) = rlimit::getrlimit(files).expect("there is a limit");
    let limit = |soft| rlimit::prlimit(id, files, Some((soft, hard)), None).expect("a limit may be changed");
    let mut open = vec![knock(clients).await.expect("there are enough files")];
    // Of so few files half are for clients.
    limit(128);
    while let Some(client) = knock(clients).await {
        open.push(client);
        assert!(open.len() < 64 + 16, "a lower limit holds before the files are taken");
    }
    assert!(open.len() >= 64, "{} clients were let in", open.len());
    limit(hard);
    assert!(knock(clients).await.is_some(), "a higher limit holds at once");
}

/// A WebSocket, if it is let in.
async fn knock(address: SocketAddr) -> Option<stream::Stream> {
    let upgrade = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let answer = stream::Stream::request(address, "GET", "/connection/websocket", &upgrade, b"").await;
    (answer.status() != 503).then_some(answer)
}

#[tokio::test]
async fn a_cluster_without_a_key_is_warned_of() {
    let silent = redis::Port::reserve();
    let nowhere = format!("redis://127.0.0.1:{}", silent.number());
    let mut process = Process::start(&[("ROOMCAST_REDIS_URL", &nowhere)]);
    process.listens().await;
    let log = process.log();
    let warning = log.iter().find(|line| line["level"] == "WARN").expect("a warning");
    let text = warning["message"].as_str().expect("a text");
    assert!(text.contains("redis.url is set, but no key") && text.contains("auth.hmac_secret"), "{text}");
}

#[tokio::test]
async fn the_playground_of_a_real_node_has_no_token() {
    let mut process = Process::start(&[WITH_KEY, ("ROOMCAST_PLAYGROUND", "true")]);
    let (clients, internal) = process.listens().await;
    let (status, page) = http::request(clients, "GET", "/", &[], b"").await;
    assert_eq!(status, 200);
    assert!(page.contains("\"token\":\"\"") && !page.contains("eyJ"), "the page has a token");
    assert_eq!(http::request(internal, "GET", "/", &[], b"").await.0, 404);
    assert_eq!(process.out(), "");
    // Nor is there a server API without a key.
    assert_eq!(http::request(internal, "POST", "/api/info", &[], b"{}").await.0, 404);
    let mut plain = Process::start(&[WITH_KEY]);
    let (clients, _) = plain.listens().await;
    assert_eq!(http::request(clients, "GET", "/", &[], b"").await.0, 404);
}
