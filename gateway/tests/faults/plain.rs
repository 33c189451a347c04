//! Clients of rooms without a history, and what they are told. Promised of what they hear is that no word comes twice, and that
//! what a publisher was answered for comes before what it says then. Knows no nodes but their addresses.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{net::TcpStream, sync::watch, task::JoinSet, time::timeout};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

use crate::{
    common::token,
    crowd::SETTLES,
    ledger::Ledger,
    nodes::{Address, Nodes, api},
};

/// The room they are in.
pub(crate) const ROOM: &str = "plain:0";
/// How long a client waits for anything before it gives its connection up; there is a ping every second.
const SILENCE: Duration = Duration::from_secs(4);
/// Between two words of the publisher.
const PAUSE: Duration = Duration::from_millis(20);

/// Clients that listen on each node, and a publisher that says numbers over all of them, each once.
pub(crate) struct Plain {
    nodes: Arc<Nodes>,
    listeners: Vec<Arc<AtomicU64>>,
    tasks: JoinSet<()>,
    ledger: Arc<Ledger>,
    said: Arc<Words>,
    over: watch::Sender<bool>,
}

/// What the publisher said.
#[derive(Default)]
struct Words {
    /// The last number.
    last: AtomicU64,
    /// Those it was answered for.
    confirmed: Mutex<HashSet<u64>>,
    /// Those that were heard after a later one, with that.
    late: Mutex<Vec<(u64, u64)>>,
}

struct Listener {
    /// The place of the node it listens to, in the list of nodes.
    node: usize,
    nodes: Arc<Nodes>,
    ledger: Arc<Ledger>,
    said: Arc<Words>,
    /// The last number that it heard.
    last: Arc<AtomicU64>,
    heard: HashSet<u64>,
}

impl Plain {
    pub(crate) fn start(nodes: &Arc<Nodes>, ledger: &Arc<Ledger>, count: usize) -> Self {
        let (mut tasks, over, said) = (JoinSet::new(), watch::Sender::new(false), Arc::<Words>::default());
        let listeners: Vec<_> = (0..count).map(|_| Arc::default()).collect();
        for (node, last) in listeners.iter().enumerate() {
            let (nodes, ledger, said, last) = (nodes.clone(), ledger.clone(), said.clone(), Arc::clone(last));
            let listener = Listener { node, nodes, ledger, said, last, heard: HashSet::new() };
            let mut over = over.subscribe();
            tasks.spawn(async move {
                tokio::select! {
                    () = listener.live() => {}
                    _ = over.wait_for(|over| *over) => {}
                }
            });
        }
        tasks.spawn(publish(nodes.clone(), ledger.clone(), said.clone(), over.subscribe()));
        Self { nodes: nodes.clone(), ledger: ledger.clone(), listeners, tasks, said, over }
    }

    /// Waits until every listener whose node runs has heard what was said after this call.
    pub(crate) async fn until_heard(&self) {
        let now = self.said.last.load(Ordering::Relaxed);
        let hearing = async {
            for (node, heard) in self.listeners.iter().enumerate() {
                while self.nodes.at(node).is_some() && heard.load(Ordering::Relaxed) <= now {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        };
        assert!(timeout(SETTLES, hearing).await.is_ok(), "a client of a plain room hears nothing any more");
    }

    pub(crate) async fn stop(mut self) {
        self.over.send_replace(true);
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("they do not panic");
        }
        let confirmed = self.said.confirmed.lock().expect("nobody panics with it");
        // What nobody was answered for may take effect late, and then comes late.
        let late = self.said.late.lock().expect("nobody panics with it");
        for (number, before) in late.iter().filter(|(number, _)| confirmed.contains(number)) {
            self.ledger.fault(format!("plain rooms: {number} is heard after {before}"));
        }
    }
}

impl Listener {
    async fn live(mut self) {
        loop {
            let Some(node) = self.nodes.at(self.node) else {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            let why = match self.listen(node).await {
                Err(why) => why,
                Ok(never) => match never {},
            };
            self.ledger.count(&format!("plain rooms, connections ended: {why}"), 1);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn listen(&mut self, node: Address) -> Result<std::convert::Infallible, String> {
        let mut socket = timeout(SILENCE, open(node)).await.map_err(|_| "not opened in time")??;
        let connect = json!({"id": 1, "connect": {"token": token(&json!({"sub": "plain"}))}});
        let subscribe = json!({"id": 2, "subscribe": {"channel": ROOM}});
        say(&mut socket, format!("{connect}\n{subscribe}")).await?;
        loop {
            let message = timeout(SILENCE, socket.next()).await.map_err(|_| "silent")?;
            let text = match message {
                Some(Ok(Message::Text(text))) => text,
                Some(Ok(Message::Close(Some(frame)))) => return Err(format!("{} {}", frame.code, frame.reason)),
                Some(Ok(_)) => continue,
                Some(Err(_)) | None => return Err("without a word".to_owned()),
            };
            for line in text.lines() {
                let reply: Value = serde_json::from_str(line).map_err(|_| "what is no JSON")?;
                self.take(&reply, &mut socket).await?;
            }
        }
    }

    async fn take(&mut self, reply: &Value, socket: &mut WebSocketStream<TcpStream>) -> Result<(), String> {
        if reply.as_object().is_some_and(serde_json::Map::is_empty) {
            return say(socket, "{}".to_owned()).await;
        }
        if reply["error"].is_object() {
            self.ledger.count(&format!("plain rooms, subscribe refused: {}", reply["error"]), 1);
            // It asks again, over the same connection.
            tokio::time::sleep(Duration::from_millis(100)).await;
            return say(socket, json!({"id": 2, "subscribe": {"channel": ROOM}}).to_string()).await;
        }
        if reply["push"]["unsubscribe"].is_object() {
            return Err(format!("unsubscribed: {}", reply["push"]["unsubscribe"]));
        }
        if let Some(number) = reply["push"]["pub"]["data"].as_u64() {
            self.hears(number);
        }
        Ok(())
    }

    fn hears(&mut self, number: u64) {
        let before = self.last.fetch_max(number, Ordering::Relaxed);
        if !self.heard.insert(number) {
            self.ledger.fault(format!("plain rooms: {number} is heard twice"));
        } else if number < before {
            self.said.late.lock().expect("nobody panics with it").push((number, before));
        } else if before > 0 {
            self.ledger.count("plain rooms, not heard", number - before - 1);
        }
        self.ledger.count("plain rooms, heard", 1);
    }
}

async fn open(node: Address) -> Result<WebSocketStream<TcpStream>, String> {
    let opening = async {
        let stream = TcpStream::connect(node.clients).await.ok()?;
        client_async(format!("ws://{}/connection/websocket", node.clients), stream).await.ok()
    };
    opening.await.map(|(socket, _)| socket).ok_or_else(|| "not opened".to_owned())
}

async fn say(socket: &mut WebSocketStream<TcpStream>, text: String) -> Result<(), String> {
    socket.send(Message::text(text)).await.map_err(|_| "without a word, while it spoke".to_owned())
}

/// Says one number after the other, whatever becomes of each.
async fn publish(nodes: Arc<Nodes>, ledger: Arc<Ledger>, said: Arc<Words>, over: watch::Receiver<bool>) {
    let mut turn = 0;
    while !*over.borrow() {
        tokio::time::sleep(PAUSE).await;
        turn += 1;
        let Some(node) = nodes.at(turn % nodes.count().max(1)) else { continue };
        let number = said.last.fetch_add(1, Ordering::Relaxed) + 1;
        let outcome = match api(node, "publish", &json!({"channel": ROOM, "data": number})).await {
            Ok(_) => {
                said.confirmed.lock().expect("nobody panics with it").insert(number);
                "answered".to_owned()
            }
            Err(error) => format!("not answered as done: {error}"),
        };
        ledger.count(&format!("plain rooms, words {outcome}"), 1);
    }
}
