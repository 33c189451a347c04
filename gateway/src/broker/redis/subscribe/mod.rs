//! The connection of a link that hears: one task that keeps a subscribed connection to the server, tells it which rooms are
//! wanted, and hands what arrives to the hub as slices of the read buffer. Knows no sessions, and publishes nothing.

use std::{
    collections::VecDeque,
    io,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::BytesMut;
use prometheus::{
    IntCounter,
    local::{LocalHistogram, LocalIntCounter},
};
use tokio::{
    sync::Notify,
    time::{sleep, sleep_until, timeout},
};
use tracing::{debug, warn};

use self::asking::Owed;
use super::{
    dial::{Io, Target},
    envelope::{self, Envelope},
    link,
    origin::Origin,
    outage::Outage,
    parts::Parts,
    resp::{self, Frame, Message, Next},
    routes::LinkId,
    stream::{self, READ_BUFFER},
    topology::Topology,
};
use crate::{hub::Delivered, metrics::Metrics, moments};

mod asking;

/// What the task works with, over all its connections.
pub(super) struct Subscriber {
    link: LinkId,
    /// Where the server is.
    origin: Origin,
    parts: Arc<Parts>,
    /// Who is told where things are.
    topology: Arc<Topology>,
    /// Wakes the connection when there may be something to send.
    changed: Arc<Notify>,
    received: IntCounter,
}

/// Why a connection is over.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Origin(#[from] link::Lost),
    #[error("the server closed the connection")]
    Closed,
    #[error("the server was silent for {0:?}")]
    Silent(Duration),
    #[error(transparent)]
    Malformed(#[from] resp::Malformed),
    #[error("the server confirmed what was not asked")]
    Unasked,
    #[error("the server refused: {0}")]
    Refused(String),
    #[error("the server refuses a room that was heard before: {0}")]
    RefusedRoom(String),
}

impl Subscriber {
    /// The one of this link, which is counted under this label.
    pub(super) fn new(link: LinkId, shard: &str, origin: Origin, parts: Arc<Parts>, topology: Arc<Topology>) -> Self {
        let gauge = parts.metrics.shards.connected.with_label_values(&[shard]);
        let received = parts.metrics.shards.received.with_label_values(&[shard]);
        let changed = parts.rooms.open(link, gauge);
        Self { link, origin, parts, topology, changed, received }
    }

    /// Keeps a connection for ever; the caller ends it by dropping it.
    pub(super) async fn run(self) {
        let mut outage = Outage::new("subscribe", self.origin.to_string());
        loop {
            let Err(lost) = self.connection(&mut outage).await;
            self.parts.rooms.lost(self.link, Instant::now());
            self.topology.doubt();
            sleep(outage.failed(&lost)).await;
        }
    }

    async fn connection(&self, outage: &mut Outage) -> Result<std::convert::Infallible, Lost> {
        let target = self.origin.find().await?;
        let stream = target.dial().await?;
        let mut connection = Connection::new(self, stream);
        let patience = self.parts.io_timeout();
        timeout(patience, connection.greet(&target)).await.map_err(|_| Lost::Silent(patience))??;
        if outage.healed() {
            self.parts.metrics.broker_reconnects.inc();
            self.parts.deliver.interrupted();
        }
        self.parts.rooms.connected(self.link);
        connection.serve().await
    }
}

/// One connection while it stands.
struct Connection<'a> {
    subscriber: &'a Subscriber,
    parts: &'a Parts,
    stream: Box<dyn Io>,
    input: BytesMut,
    output: Vec<u8>,
    owed: VecDeque<Owed>,
    /// Parts of refused commands, to be asked again on their own.
    retries: Vec<Vec<Arc<str>>>,
    /// Nothing more is asked before.
    pause: Option<Instant>,
    last_heard: Instant,
    received: LocalIntCounter,
    received_here: LocalIntCounter,
    lag: LocalHistogram,
}

impl<'a> Connection<'a> {
    fn new(subscriber: &'a Subscriber, stream: Box<dyn Io>) -> Self {
        let Metrics { broker_received, delivery_lag, .. } = &*subscriber.parts.metrics;
        Self {
            subscriber,
            parts: &subscriber.parts,
            stream,
            input: BytesMut::with_capacity(READ_BUFFER),
            output: Vec::new(),
            owed: VecDeque::new(),
            retries: Vec::new(),
            pause: None,
            last_heard: Instant::now(),
            received: broker_received.local(),
            received_here: subscriber.received.local(),
            lag: delivery_lag.local(),
        }
    }

    /// Logs in, chooses the database, and makes sure that the server answers as one that is ready.
    async fn greet(&mut self, target: &Target) -> Result<(), Lost> {
        let login = target.login();
        let database = login.db().to_string();
        let words: Vec<&[u8]> = [login.username(), login.password()].iter().flatten().map(|s| s.as_bytes()).collect();
        if login.password().is_some() {
            self.command(b"AUTH", &words);
            self.expect_done().await?;
        }
        if login.db() != 0 {
            self.command(b"SELECT", &[database.as_bytes()]);
            self.expect_done().await?;
        }
        self.command(b"PING", &[]);
        match self.expect_done().await {
            // A user that may not ping is logged in all the same.
            Err(Lost::Refused(reason)) if reason.starts_with("NOPERM") => Ok(()),
            answered => answered,
        }
    }

    async fn expect_done(&mut self) -> Result<(), Lost> {
        self.write().await?;
        loop {
            match resp::next(&mut self.input)? {
                Next::Frame(Frame::Done) => return Ok(()),
                Next::Frame(Frame::Error(reason)) => return Err(Lost::Refused(reason)),
                Next::Frame(_) => return Err(Lost::Unasked),
                Next::Missing(bytes) => heard(stream::read(&mut self.stream, &mut self.input, bytes).await)?,
            }
        }
    }

    /// Reads and writes until the connection is lost.
    async fn serve(&mut self) -> Result<std::convert::Infallible, Lost> {
        // What came together with the answer to the greeting lies in the buffer already, and nothing more may come after it.
        let mut missing = self.take_frames().await?;
        loop {
            self.ask().await?;
            let deadline = self.deadline();
            let wake = self.pause.map_or(deadline, |pause| pause.min(deadline));
            tokio::select! {
                biased;
                read = stream::read(&mut self.stream, &mut self.input, missing) => {
                    heard(read)?;
                    self.last_heard = Instant::now();
                    missing = self.take_frames().await?;
                }
                () = self.subscriber.changed.notified() => {}
                () = sleep_until(wake.into()) => if wake == deadline { self.watch()? },
            }
        }
    }

    /// Takes every whole frame from the buffer; gives how many bytes the next one lacks at least.
    async fn take_frames(&mut self) -> Result<usize, Lost> {
        loop {
            match resp::next(&mut self.input)? {
                Next::Frame(Frame::Message(message)) => self.receive(&message).await,
                Next::Frame(frame) => self.answered(frame)?,
                Next::Missing(bytes) => {
                    self.received.flush();
                    self.received_here.flush();
                    self.lag.flush();
                    return Ok(bytes);
                }
            }
        }
    }

    async fn receive(&mut self, message: &Message) {
        if self.parts.control.hear(message) {
            return;
        }
        let parts = self.parts;
        let Some(room) = parts.keys.room(message.channel()) else {
            self.count(1);
            return self.malformed(&"the channel is not a room's");
        };
        match envelope::decode(message.payload()) {
            Ok(envelopes) => {
                self.count(envelopes.len());
                for envelope in envelopes {
                    self.hand_over(room, envelope).await;
                }
            }
            Err(error) => {
                self.count(1);
                self.malformed(&error);
            }
        }
    }

    fn count(&self, events: usize) {
        self.received.inc_by(events as u64);
        self.received_here.inc_by(events as u64);
    }

    async fn hand_over(&mut self, room: &str, envelope: Envelope) {
        // Clocks of two nodes differ: what seems to come from the future took no time.
        let lag = SystemTime::now().duration_since(envelope.published).unwrap_or_default();
        self.lag.observe(lag.as_secs_f64());
        let Delivered::Full(space) = self.parts.deliver.deliver(room, envelope.event) else { return };
        self.parts.metrics.inbox_full.inc();
        space.await;
        // What the server sent meanwhile lies in the kernel: the silence was ours.
        self.last_heard = Instant::now();
    }

    fn malformed(&self, reason: &dyn std::fmt::Display) {
        let counter = &self.parts.metrics.broker_malformed;
        if counter.get() == 0 {
            warn!(%reason, "a message from Redis is not understood: does another system use this prefix? Later ones are told at debug");
        } else {
            debug!(%reason, "a message from Redis is not understood");
        }
        counter.inc();
    }

    fn command(&mut self, verb: &[u8], words: &[&[u8]]) {
        resp::write_command(&mut self.output, verb, words);
    }

    async fn write(&mut self) -> Result<(), Lost> {
        if self.output.is_empty() {
            return Ok(());
        }
        let output = std::mem::take(&mut self.output);
        let patience = self.parts.io_timeout();
        let written = stream::write(&mut self.stream, &output);
        Ok(timeout(patience, written).await.map_err(|_| Lost::Silent(patience))??)
    }

    /// When silence becomes worth a question, or, once asked, is death.
    fn deadline(&self) -> Instant {
        let patience = self.parts.io_timeout();
        if self.owed.is_empty() {
            moments::within(self.last_heard.into(), patience / 2).into()
        } else {
            self.last_heard + patience
        }
    }

    fn watch(&mut self) -> Result<(), Lost> {
        if !self.owed.is_empty() {
            return Err(Lost::Silent(self.parts.io_timeout()));
        }
        self.ping(Vec::new());
        Ok(())
    }
}

fn heard(read: io::Result<usize>) -> Result<(), Lost> {
    if read? == 0 { Err(Lost::Closed) } else { Ok(()) }
}
