//! Clients that only stay: they answer pings, and come back where they are sent away, as the SDKs do. Knows one address.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use rand::Rng;
use serde_json::json;
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_tungstenite::{client_async, tungstenite::Message};

use crate::{common::token, crowd::SETTLES};

/// So many of them, which end with the value.
pub(crate) struct Stayers {
    log: Arc<Mutex<Log>>,
    tasks: JoinSet<()>,
    count: usize,
}

/// What became of them.
#[derive(Default)]
struct Log {
    connected: Vec<Instant>,
    ends: Vec<String>,
    pings: usize,
}

impl Stayers {
    /// Each of them answers a ping after this pause.
    pub(crate) fn start(address: SocketAddr, count: usize, pause: Duration) -> Self {
        let (log, mut tasks) = (Arc::new(Mutex::new(Log::default())), JoinSet::new());
        for _ in 0..count {
            tasks.spawn(stay(address, pause, log.clone()));
        }
        Self { log, tasks, count }
    }

    /// Waits until they have connected so many times.
    pub(crate) async fn until_connected(&self, times: usize) {
        self.until("all connect", |log| log.connected.len() >= times).await;
    }

    /// Waits until each is connected again that was sent away.
    pub(crate) async fn until_all_are_back(&self) {
        let count = self.count;
        self.until("all come back", |log| log.connected.len() >= count + log.ends.len()).await;
    }

    /// Waits until so many further pings have come.
    pub(crate) async fn until_pinged(&self, times: usize) {
        let before = self.log().pings;
        self.until("all are pinged", |log| log.pings >= before + times).await;
    }

    /// When they connected, and how connections ended.
    pub(crate) async fn stop(mut self) -> (Vec<Instant>, Vec<String>) {
        self.tasks.shutdown().await;
        let log = std::mem::take(&mut *self.log());
        (log.connected, log.ends)
    }

    async fn until(&self, what: &str, holds: impl Fn(&Log) -> bool) {
        let holding = async {
            while !holds(&self.log()) {
                sleep(Duration::from_millis(20)).await;
            }
        };
        assert!(timeout(SETTLES, holding).await.is_ok(), "never came: {what}; ends: {:?}", self.log().ends);
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().expect("nobody panics with it")
    }
}

async fn stay(address: SocketAddr, pause: Duration, log: Arc<Mutex<Log>>) {
    loop {
        let end = connection(address, pause, &log).await;
        log.lock().expect("nobody panics with it").ends.push(end);
        let pause = rand::rng().random_range(0..200);
        sleep(Duration::from_millis(pause)).await;
    }
}

/// One connection until it ends; says how.
async fn connection(address: SocketAddr, pause: Duration, log: &Mutex<Log>) -> String {
    let Ok(stream) = TcpStream::connect(address).await else { return "not opened".to_owned() };
    let url = format!("ws://{address}/connection/websocket");
    let Ok((mut socket, _)) = client_async(url, stream).await else { return "not upgraded".to_owned() };
    let connect = json!({"id": 1, "connect": {"token": token(&json!({"sub": "idle"}))}});
    if socket.send(Message::text(connect.to_string())).await.is_err() {
        return "gone".to_owned();
    }
    while let Some(Ok(message)) = socket.next().await {
        match message {
            Message::Text(text) if text == "{}" => {
                log.lock().expect("nobody panics with it").pings += 1;
                sleep(pause).await;
                drop(socket.send(Message::text("{}")).await);
            }
            Message::Text(text) if text.contains("\"connect\"") => {
                log.lock().expect("nobody panics with it").connected.push(Instant::now());
            }
            Message::Close(Some(frame)) => return format!("{} {}", frame.code, frame.reason),
            _ => {}
        }
    }
    "without a word".to_owned()
}
