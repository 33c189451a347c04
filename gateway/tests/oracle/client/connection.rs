//! The connections of a client: opened to any node that runs, until they are cut or end, over and over.

use std::{convert::Infallible, io, time::Duration};

use futures_util::{SinkExt, StreamExt};
use roomcast_shared::protocol::{Encoding, command::Command};
use tokio::{
    net::TcpStream,
    sync::watch,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

use super::{Client, Over, PATIENCE};
use crate::crowd::Phase;

/// How often a client looks what it is time for.
const TICK: Duration = Duration::from_millis(50);

impl Client {
    /// Connects and comes back until everything is over.
    pub(crate) async fn live(mut self, mut phase: watch::Receiver<Phase>) {
        while *phase.borrow() != Phase::Over {
            let Err(Over(why)) = self.connection(&mut phase).await;
            self.note(|| format!("over: {why}"));
            self.connection_ended();
            let mut pause = self.seconds((0.05, 0.3));
            if why == "cut" {
                self.ledger.count("connections cut", 1);
                pause = self.seconds(self.habits.away);
            } else if why != "everything is over" {
                self.ledger.count(&format!("connections ended: {why}"), 1);
            }
            // Once others wait for it, nobody stays away for long.
            let settling = async { drop(phase.wait_for(|phase| *phase != Phase::Running).await) };
            if timeout(pause, settling).await.is_ok() {
                sleep(pause.min(Duration::from_millis(300))).await;
            }
        }
    }

    async fn connection(&mut self, phase: &mut watch::Receiver<Phase>) -> Result<Infallible, Over> {
        let mut socket = self.open().await?;
        self.connect();
        self.flush(&mut socket).await?;
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = socket.next() => match message {
                    Some(Ok(message)) => self.take(message)?,
                    Some(Err(error)) => return Err(Over(format!("without a word ({})", short(&error.to_string())))),
                    None => return Err(Over("without a word".to_owned())),
                },
                _ = tick.tick() => {
                    let now = *phase.borrow();
                    self.tick(now)?;
                }
            }
            self.flush(&mut socket).await?;
        }
    }

    async fn open(&mut self) -> Result<WebSocketStream<TcpStream>, Over> {
        let Some(node) = self.nodes.any(&mut self.rng) else { return Err(Over("no node runs".to_owned())) };
        let opening = async {
            let stream = TcpStream::connect(node.clients).await?;
            stream.set_nodelay(true)?;
            let format = if self.habits.encoding == Encoding::Protobuf { "?format=protobuf" } else { "" };
            let url = format!("ws://{}/connection/websocket{format}", node.clients);
            client_async(url, stream).await.map_err(|error| io::Error::other(error.to_string()))
        };
        match timeout(PATIENCE, opening).await {
            Ok(Ok((socket, _))) => {
                self.note(|| format!("connected to {}", node.clients));
                Ok(socket)
            }
            Ok(Err(error)) => Err(Over(format!("not opened ({})", short(&error.to_string())))),
            Err(_) => Err(Over("not opened in time".to_owned())),
        }
    }

    async fn flush(&mut self, socket: &mut WebSocketStream<TcpStream>) -> Result<(), Over> {
        let mut bytes = Vec::new();
        let pongs = std::mem::take(&mut self.pongs);
        let encoding = self.habits.encoding;
        for command in self.out.drain(..).chain((0..pongs).map(|_| Command::default())) {
            if encoding == Encoding::Json && !bytes.is_empty() {
                bytes.push(b'\n');
            }
            encoding.encode_command(&command, &mut bytes).expect("its payloads are JSON");
        }
        if bytes.is_empty() {
            return Ok(());
        }
        let message = match encoding {
            Encoding::Json => Message::text(String::from_utf8(bytes).expect("JSON is UTF-8")),
            Encoding::Protobuf => Message::binary(bytes),
        };
        socket.send(message).await.map_err(|_| Over("without a word, while it spoke".to_owned()))
    }
}

/// The beginning of a text, so that equal ends are counted together.
fn short(text: &str) -> &str {
    text.split([':', '(']).next().unwrap_or(text).trim()
}
