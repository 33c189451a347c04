//! A private redis-server for tests: on a free port or a unix socket, in a directory of its own, ended with the value.
//! Knows nothing of the gateway.

#![allow(dead_code, reason = "each test file uses the part it needs")]

use std::{
    ffi::OsString,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    ops::Range,
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rand::Rng as _;

const READY: Duration = Duration::from_secs(20);
/// Those that are given out.
const PORTS: Range<u16> = 10_000..32_000;
/// The configuration of a sentinel, which it writes to itself.
const SENTINEL: &str = "sentinel.conf";

/// Where the server listens.
enum Place {
    Tcp(Port),
    Tls(Port),
    Unix,
}

/// A port of the loopback interface that nobody else takes while this is held: it is none of those that the kernel gives to
/// connections, and tests, of other processes as well, reserve it by the UDP port of the same number.
pub(crate) struct Port {
    number: u16,
    _reserved: UdpSocket,
}

impl Port {
    /// Looks for one that is free.
    pub(crate) fn reserve() -> Self {
        loop {
            if let Some(port) = Self::at(rand::rng().random_range(PORTS)) {
                return port;
            }
        }
    }

    fn at(number: u16) -> Option<Self> {
        let reserved = UdpSocket::bind(("127.0.0.1", number)).ok()?;
        TcpListener::bind(("127.0.0.1", number)).ok().map(|_| Self { number, _reserved: reserved })
    }

    pub(crate) fn number(&self) -> u16 {
        self.number
    }
}

/// A redis-server of the test's own.
pub(crate) struct RedisServer {
    child: Option<Child>,
    place: Place,
    dir: tempfile::TempDir,
    arguments: Vec<String>,
    /// Where it speaks with other nodes of a cluster.
    bus: Option<Port>,
}

impl RedisServer {
    /// Starts a server on a free port of the loopback interface and waits until it answers.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same, with further arguments, for instance `["--requirepass", "secret"]`.
    pub(crate) fn start_with(arguments: &[&str]) -> Self {
        Self::place(Place::Tcp(Port::reserve()), arguments)
    }

    /// Starts a node of a cluster. Its second port is ten thousand above, since servers before Redis 7 can be told no other.
    pub(crate) fn start_clustered() -> Self {
        loop {
            let port = Port::reserve();
            let bus = Some(port.number + 10_000).filter(|number| PORTS.contains(number)).and_then(Port::at);
            if bus.is_some() {
                let mut server = Self::place(Place::Tcp(port), &["--cluster-enabled", "yes"]);
                server.bus = bus;
                return server;
            }
        }
    }

    /// Starts a server that listens on a unix socket only.
    pub(crate) fn start_unix() -> Self {
        Self::place(Place::Unix, &[])
    }

    /// Starts a sentinel with these lines in its configuration.
    pub(crate) fn start_sentinel(lines: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(dir.path().join(SENTINEL), lines).expect("the directory is ours");
        let mut server =
            Self { child: None, place: Place::Tcp(Port::reserve()), dir, arguments: Vec::new(), bus: None };
        server.restart();
        server
    }

    /// Starts a server that speaks TLS only, as `localhost`, with a certificate of an authority of its own.
    pub(crate) fn start_tls() -> Self {
        Self::place(Place::Tls(Port::reserve()), &[])
    }

    fn place(place: Place, arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let arguments = arguments.iter().map(ToString::to_string).collect();
        let mut server = Self { child: None, place, dir, arguments, bus: None };
        if matches!(server.place, Place::Tls(_)) {
            server.certify();
        }
        server.restart();
        server
    }

    /// Starts the server again where it was, after [`RedisServer::kill`].
    pub(crate) fn restart(&mut self) {
        self.kill();
        let mut command = Command::new(program());
        if self.dir.path().join(SENTINEL).exists() {
            command.arg(self.dir.path().join(SENTINEL)).arg("--sentinel");
        }
        command.args(["--save", "", "--appendonly", "no", "--bind", "127.0.0.1", "--dir"]).arg(self.dir.path());
        match &self.place {
            Place::Tcp(port) => command.arg("--port").arg(port.number.to_string()),
            Place::Unix => command.args(["--port", "0", "--unixsocket"]).arg(self.socket()),
            Place::Tls(port) => command
                .args(["--port", "0", "--tls-auth-clients", "no", "--tls-port", &port.number.to_string()])
                .arg("--tls-cert-file")
                .arg(self.dir.path().join("cert.pem"))
                .arg("--tls-key-file")
                .arg(self.dir.path().join("key.pem")),
        };
        command.args(&self.arguments).stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(command.spawn().expect("redis-server is installed"));
        self.await_ready();
    }

    /// The same, and it takes so long to load each key of its snapshot, and says so meanwhile.
    pub(crate) fn restart_slowly(&mut self, each: Duration) {
        let usual = self.arguments.clone();
        let slowly =
            ["--key-load-delay", &each.as_micros().to_string(), "--loading-process-events-interval-bytes", "1024"];
        self.arguments.extend(slowly.map(str::to_owned));
        self.restart();
        self.arguments = usual;
    }

    /// The same, and it has nothing left of what it had on disc.
    pub(crate) fn restart_empty(&mut self) {
        self.kill();
        for entry in std::fs::read_dir(self.dir.path()).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                std::fs::remove_dir_all(path).expect("it is the server's");
            } else if path.extension().is_some_and(|kind| kind == "aof" || kind == "rdb") {
                std::fs::remove_file(path).expect("it is the server's");
            }
        }
        self.restart();
    }

    /// Makes it run: lets it go on, or starts it again.
    pub(crate) fn resume_or_restart(&mut self) {
        if self.child.is_some() { self.resume() } else { self.restart() }
    }

    /// Kills the server as a crash would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("the server is ours");
            child.wait().expect("the server is ours");
        }
    }

    /// Stops the server in its tracks: its connections stay open, and nothing is answered.
    pub(crate) fn pause(&self) {
        self.signal("STOP");
    }

    /// Lets a paused server go on.
    pub(crate) fn resume(&self) {
        self.signal("CONT");
    }

    /// URL for clients.
    pub(crate) fn url(&self) -> String {
        match &self.place {
            Place::Tcp(port) => format!("redis://127.0.0.1:{}", port.number),
            Place::Tls(port) => format!("rediss://localhost:{}", port.number),
            Place::Unix => format!("redis+unix://{}", self.socket().display()),
        }
    }

    /// The authority that signed the server's certificate, PEM; only with [`RedisServer::start_tls`].
    pub(crate) fn authority_pem(&self) -> Vec<u8> {
        std::fs::read(self.dir.path().join("cert.pem")).expect("written at the start")
    }

    /// The port, where there is one.
    pub(crate) fn port(&self) -> Option<u16> {
        match &self.place {
            Place::Tcp(port) | Place::Tls(port) => Some(port.number),
            Place::Unix => None,
        }
    }

    /// Runs one command and gives the answer as the words of it, on a connection made for it. Not over TLS.
    pub(crate) fn command(&self, words: &[&str]) -> Vec<String> {
        self.commands(&[words]).pop().expect("one answer for each command")
    }

    /// Runs one command at the server on this port, for whoever has only that.
    pub(crate) fn ask(port: u16, words: &[&str]) -> Vec<String> {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
        exchange(stream, &[words]).expect("it answers").pop().expect("one answer for each command")
    }

    /// Runs commands one after the other on one connection.
    pub(crate) fn commands(&self, commands: &[&[&str]]) -> Vec<Vec<String>> {
        self.try_commands(commands).expect("the server answers")
    }

    /// How often clients have run a script.
    pub(crate) fn scripts_run(&self) -> u32 {
        let stats = self.command(&["INFO", "commandstats"]).concat();
        let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
        line.and_then(|line| line.split(',').next()?.parse().ok()).unwrap_or(0)
    }

    /// The same where the server may be away, or may end the connection.
    pub(crate) fn try_commands(&self, commands: &[&[&str]]) -> std::io::Result<Vec<Vec<String>>> {
        match &self.place {
            Place::Tcp(port) => exchange(TcpStream::connect(("127.0.0.1", port.number))?, commands),
            Place::Unix => exchange(UnixStream::connect(self.socket())?, commands),
            Place::Tls(port) => TcpStream::connect(("127.0.0.1", port.number)).map(|_| Vec::new()),
        }
    }

    fn await_ready(&self) {
        let begin = Instant::now();
        while self.try_commands(&[&["PING"]]).is_err() {
            assert!(begin.elapsed() < READY, "redis-server does not start");
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("redis.sock")
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("running").id()
    }

    fn signal(&self, signal: &str) {
        let pid = self.pid().to_string();
        let status = Command::new("kill").args([&format!("-{signal}"), &pid]).status().expect("kill is installed");
        assert!(status.success());
    }

    fn certify(&self) {
        let status = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
            .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .arg("-keyout")
            .arg(self.dir.path().join("key.pem"))
            .arg("-out")
            .arg(self.dir.path().join("cert.pem"))
            .stderr(Stdio::null())
            .status();
        assert!(status.expect("openssl is installed").success());
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The server that is asked: `redis-server`, or the one that `ROOMCAST_TEST_REDIS_SERVER` names, so that the same tests hold of
/// other versions and relatives of it.
fn program() -> OsString {
    std::env::var_os("ROOMCAST_TEST_REDIS_SERVER").unwrap_or_else(|| "redis-server".into())
}

fn exchange<S: Read + Write>(mut stream: S, commands: &[&[&str]]) -> std::io::Result<Vec<Vec<String>>> {
    for words in commands {
        write!(stream, "*{}\r\n", words.len())?;
        for word in *words {
            write!(stream, "${}\r\n{word}\r\n", word.len())?;
        }
    }
    let mut reader = BufReader::new(stream);
    commands.iter().map(|_| answer(&mut reader)).collect()
}

/// The words of an answer, an error being one word that begins with `-`.
fn answer(reader: &mut impl BufRead) -> std::io::Result<Vec<String>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    let line = line.trim_end();
    match line.split_at(1) {
        ("*", count) => {
            let count = count.parse().unwrap_or(0);
            let words: std::io::Result<Vec<_>> = (0..count).map(|_| answer(reader)).collect();
            Ok(words?.concat())
        }
        ("$", "-1") => Ok(Vec::new()),
        ("$", length) => {
            let mut bytes = vec![0; length.parse::<usize>().expect("a length") + 2];
            reader.read_exact(&mut bytes)?;
            bytes.truncate(bytes.len() - 2);
            Ok(vec![String::from_utf8_lossy(&bytes).into_owned()])
        }
        ("-", _) => Ok(vec![line.to_owned()]),
        (_, rest) => Ok(vec![rest.to_owned()]),
    }
}
