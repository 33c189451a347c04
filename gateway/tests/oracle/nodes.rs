//! Where the nodes are at present, and their server API as a careful backend asks it: no failure is taken for an answer.
//! Knows no rooms.

use std::{io, net::SocketAddr, sync::Mutex, time::Duration};

use rand::{Rng, rngs::StdRng};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::ledger::Era;

/// Longer than any node takes to answer, so that no attempt is under way when the next one begins.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where one node is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Address {
    pub(crate) clients: SocketAddr,
    pub(crate) internal: SocketAddr,
}

/// The nodes that run, and what befell the store.
#[derive(Default)]
pub(crate) struct Nodes {
    addresses: Mutex<Vec<Option<Address>>>,
    /// How often the store began to lose its data, and how often it was back without it.
    losses: Mutex<(usize, usize)>,
}

#[allow(dead_code, reason = "each test uses the part it needs")]
impl Nodes {
    pub(crate) fn set(&self, node: usize, address: Option<Address>) {
        let mut addresses = self.addresses.lock().expect("nobody panics with it");
        if addresses.len() <= node {
            addresses.resize(node + 1, None);
        }
        addresses[node] = address;
    }

    /// One of those that run.
    pub(crate) fn any(&self, rng: &mut StdRng) -> Option<Address> {
        let addresses = self.addresses.lock().expect("nobody panics with it");
        let running: Vec<_> = addresses.iter().flatten().collect();
        (!running.is_empty()).then(|| *running[rng.random_range(0..running.len())])
    }

    /// That node, if it runs.
    pub(crate) fn at(&self, node: usize) -> Option<Address> {
        self.addresses.lock().expect("nobody panics with it").get(node).copied().flatten()
    }

    /// How many nodes there are, whether they run or not.
    pub(crate) fn count(&self) -> usize {
        self.addresses.lock().expect("nobody panics with it").len()
    }

    pub(crate) fn begin_loss(&self) {
        self.losses.lock().expect("nobody panics with it").0 += 1;
    }

    pub(crate) fn end_loss(&self) {
        self.losses.lock().expect("nobody panics with it").1 += 1;
    }

    /// How often data was lost.
    pub(crate) fn losses(&self) -> usize {
        self.losses.lock().expect("nobody panics with it").0
    }

    pub(crate) fn era(&self) -> Era {
        let (begun, ended) = *self.losses.lock().expect("nobody panics with it");
        (begun == ended).then_some(ended)
    }
}

/// Asks a node's server API; only a result is one.
pub(crate) async fn api(node: Address, method: &str, body: &Value) -> io::Result<Value> {
    let asking = ask(node.internal, method, body.to_string());
    timeout(PATIENCE, asking).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn ask(address: SocketAddr, method: &str, body: String) -> io::Result<Value> {
    let mut stream = TcpStream::connect(address).await?;
    let head = format!(
        "POST /api/{method} HTTP/1.1\r\nhost: test\r\nx-api-key: {KEY}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let mut answer: Value = serde_json::from_str(body)?;
    match answer["result"].take() {
        Value::Null => Err(io::Error::other(answer.to_string())),
        result => Ok(result),
    }
}

/// The key that the nodes of these tests take.
pub(crate) const KEY: &str = "test-api-key";
