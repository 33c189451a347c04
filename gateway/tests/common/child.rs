//! A node of the tests in a process of its own, so that its memory and its log are its alone. Ends with the value.

use std::{
    io::{BufRead, BufReader, Read},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{gateway::SECRET, redis::Port};

/// The node's program.
pub const BINARY: &str = env!("CARGO_BIN_EXE_roomcast");

/// How long a node may take to start.
const READY: Duration = Duration::from_secs(20);

/// A running process.
pub struct Process {
    /// Where clients connect.
    pub clients: SocketAddr,
    /// Where metrics and health are.
    pub internal: SocketAddr,
    child: Child,
    log: Arc<Mutex<String>>,
    /// Those it was told to listen on.
    _ports: Vec<Port>,
}

impl Process {
    /// Starts the binary on ports of its own with open rooms, [`SECRET`] as its key, and these settings by their names.
    pub fn start(settings: &[(&str, &str)]) -> Self {
        let mut command = Command::new(BINARY);
        command.env_clear();
        Self::start_by(command, settings)
    }

    /// The same by a command that becomes the binary in the end, in an environment of its own.
    pub fn start_by(mut command: Command, settings: &[(&str, &str)]) -> Self {
        let mut child = command
            .envs(environment(settings))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut lines = BufReader::new(child.stderr.take().expect("it is piped"));
        let mut log = String::new();
        let said = loop {
            let begin = log.len();
            assert!(lines.read_line(&mut log).expect("a log of text") > 0, "the node does not start: {log}");
            let line: Value = serde_json::from_str(&log[begin..]).unwrap_or_default();
            if line["message"] == "listening" {
                break line;
            }
        };
        let address = |name: &str| said[name].as_str().and_then(|text| text.parse().ok()).expect("an address");
        let log = Arc::new(Mutex::new(log));
        let sink = log.clone();
        thread::spawn(move || {
            let mut line = String::new();
            while lines.by_ref().read_line(&mut line).is_ok_and(|length| length > 0) {
                sink.lock().expect("nobody panics with it").push_str(&line);
                line.clear();
            }
        });
        Self { clients: address("clients"), internal: address("internal"), child, log, _ports: Vec::new() }
    }

    /// Starts one that logs everything to where nothing can be written. It cannot say where it listens, and is told.
    pub fn start_with_full_log(settings: &[(&str, &str)]) -> Self {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
        let ports = [(); 2].map(|()| Port::reserve());
        let [clients, internal] = ports.each_ref().map(|port| SocketAddr::from(([127, 0, 0, 1], port.number())));
        let addresses = [clients, internal].map(|address| address.to_string());
        let places = [("listen", &*addresses[0]), ("internal_listen", &*addresses[1]), ("log.level", "trace")];
        let child = Command::new(BINARY)
            .env_clear()
            .envs(environment(&[settings, &places[..]].concat()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(full)
            .spawn()
            .expect("the binary starts");
        let process = Self { clients, internal, child, log: Arc::default(), _ports: ports.into() };
        let begin = Instant::now();
        while [clients, internal].into_iter().any(|address| TcpStream::connect(address).is_err()) {
            assert!(begin.elapsed() < READY, "the node does not start");
            thread::sleep(Duration::from_millis(5));
        }
        process
    }

    /// Everything it has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("nobody panics with it").clone()
    }

    /// Sends it a signal by its name, as `HUP`.
    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args([&format!("-{signal}"), &pid]).status().expect("kill is installed");
        assert!(status.success());
    }

    /// Waits until it has ended.
    pub fn ended(&mut self) {
        self.child.wait().expect("it is ours");
    }

    /// Bytes of memory it holds at present.
    pub fn resident(&self) -> usize {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).expect("the process runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line of proc(5)");
        line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The variables for these settings, behind what every node of the tests has.
fn environment<'a>(settings: &'a [(&'a str, &'a str)]) -> impl Iterator<Item = (String, &'a str)> {
    let usual = [
        ("listen", "127.0.0.1:0"),
        ("internal_listen", "127.0.0.1:0"),
        ("auth.hmac_secret", SECRET),
        ("rooms.allow_subscribe_for_client", "true"),
        ("rooms.allow_publish_for_subscriber", "true"),
    ];
    let all = usual.into_iter().chain(settings.iter().copied());
    all.map(|(name, value)| (format!("ROOMCAST_{}", name.replace('.', "_")).to_uppercase(), value))
}
