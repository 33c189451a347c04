//! The connection that hears: one task that keeps a subscribed connection to Redis, tells it which rooms are wanted, and
//! hands what arrives to the hub as slices of the read buffer. Knows no sessions, and publishes nothing.

use std::{
    collections::VecDeque,
    io,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::BytesMut;
use prometheus::local::{LocalHistogram, LocalIntCounter};
use tokio::{
    sync::oneshot,
    time::{sleep, sleep_until, timeout},
};
use tracing::{debug, warn};

use super::{
    Health,
    control::Listening,
    dial::{Io, Target},
    envelope,
    keys::Keys,
    outage::Outage,
    resp::{self, Frame, Message, Next},
    rooms::{self, Outcome, Rooms},
    stream::{self, READ_BUFFER},
};
use crate::{
    hub::{Deliver, Delivered},
    metrics::Metrics,
};

/// What the task works with, over all its connections.
pub(super) struct Subscriber {
    /// Where Redis is.
    pub(super) target: Target,
    /// Silence for so long is a dead connection; also the longest wait for one write.
    pub(super) io_timeout: Duration,
    /// Names of channels.
    pub(super) keys: Arc<Keys>,
    /// What is wanted and confirmed.
    pub(super) rooms: Arc<Rooms>,
    /// Who takes what nodes say to each other.
    pub(super) control: Arc<Listening>,
    /// Takes what arrives.
    pub(super) deliver: Arc<dyn Deliver>,
    /// Counts.
    pub(super) metrics: Arc<Metrics>,
}

/// Why a connection is over.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error(transparent)]
    Io(#[from] io::Error),
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
    /// Keeps a connection for ever; the caller ends it by dropping it.
    pub(super) async fn run(self) {
        let mut outage = Outage::new("subscribe", self.target.to_string());
        loop {
            let Err(lost) = self.connection(&mut outage).await;
            self.metrics.broker_connected.set(0);
            self.rooms.lost(Instant::now());
            sleep(outage.failed(&lost)).await;
        }
    }

    async fn connection(&self, outage: &mut Outage) -> Result<std::convert::Infallible, Lost> {
        let stream = self.target.dial().await?;
        let mut connection = Connection::new(self, stream);
        let refused = |_| Lost::Silent(self.io_timeout);
        timeout(self.io_timeout, connection.greet()).await.map_err(refused)??;
        if outage.healed() {
            self.metrics.broker_reconnects.inc();
        }
        self.rooms.connected();
        connection.serve().await
    }
}

/// What the server owes an answer to, in the order of commands.
enum Owed {
    /// And who waits for all that comes before it.
    Pong(Vec<oneshot::Sender<Outcome>>),
    Confirmations {
        rooms: VecDeque<Arc<str>>,
        heard: bool,
    },
    /// How many of this node's own channels are still to be confirmed.
    Own(usize),
}

/// One connection while it stands.
struct Connection<'a> {
    subscriber: &'a Subscriber,
    stream: Box<dyn Io>,
    input: BytesMut,
    output: Vec<u8>,
    owed: VecDeque<Owed>,
    /// Parts of refused commands, to be asked again on their own.
    retries: Vec<Vec<Arc<str>>>,
    last_heard: Instant,
    /// The node's own channels were asked for.
    listens: bool,
    received: LocalIntCounter,
    lag: LocalHistogram,
    hearing: bool,
}

impl<'a> Connection<'a> {
    fn new(subscriber: &'a Subscriber, stream: Box<dyn Io>) -> Self {
        let Metrics { broker_received, delivery_lag, .. } = &*subscriber.metrics;
        Self {
            subscriber,
            stream,
            input: BytesMut::with_capacity(READ_BUFFER),
            output: Vec::new(),
            owed: VecDeque::new(),
            retries: Vec::new(),
            last_heard: Instant::now(),
            listens: false,
            received: broker_received.local(),
            lag: delivery_lag.local(),
            hearing: false,
        }
    }

    /// Logs in, chooses the database, and makes sure that the server answers as one that is ready.
    async fn greet(&mut self) -> Result<(), Lost> {
        let login = self.subscriber.target.login();
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
        let mut missing = 1;
        loop {
            self.ask().await?;
            self.note_health();
            let deadline = self.deadline();
            tokio::select! {
                biased;
                read = stream::read(&mut self.stream, &mut self.input, missing) => {
                    heard(read)?;
                    self.last_heard = Instant::now();
                    missing = self.take_frames().await?;
                }
                () = self.subscriber.rooms.changed.notified() => {}
                () = sleep_until(deadline.into()) => self.watch()?,
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
                    self.lag.flush();
                    return Ok(bytes);
                }
            }
        }
    }

    async fn receive(&mut self, message: &Message) {
        if self.subscriber.control.hear(message) {
            return;
        }
        self.received.inc();
        let Some(Delivered::Full(space)) = self.hand_over(message) else { return };
        self.subscriber.metrics.inbox_full.inc();
        space.await;
        // What the server sent meanwhile lies in the kernel: the silence was ours.
        self.last_heard = Instant::now();
    }

    fn hand_over(&mut self, message: &Message) -> Option<Delivered> {
        let Some(room) = self.subscriber.keys.room(message.channel()) else {
            self.malformed(&"the channel is not a room's");
            return None;
        };
        match envelope::decode(message.payload()) {
            Ok(envelope) => {
                // Clocks of two nodes differ: what seems to come from the future took no time.
                let lag = SystemTime::now().duration_since(envelope.published).unwrap_or_default();
                self.lag.observe(lag.as_secs_f64());
                Some(self.subscriber.deliver.deliver(room, envelope.event))
            }
            Err(error) => {
                self.malformed(&error);
                None
            }
        }
    }

    fn malformed(&self, reason: &dyn std::fmt::Display) {
        let counter = &self.subscriber.metrics.broker_malformed;
        if counter.get() == 0 {
            warn!(%reason, "a message from Redis is not understood: does another system use this prefix? Later ones are told at debug");
        } else {
            debug!(%reason, "a message from Redis is not understood");
        }
        counter.inc();
    }

    /// The server has answered a command.
    fn answered(&mut self, frame: Frame) -> Result<(), Lost> {
        match (frame, self.owed.front_mut()) {
            (Frame::Subscribed(channel), Some(Owed::Confirmations { rooms, heard: true })) => {
                confirm(self.subscriber, &channel, rooms, true)?;
            }
            (Frame::Unsubscribed(channel), Some(Owed::Confirmations { rooms, heard: false })) => {
                confirm(self.subscriber, &channel, rooms, false)?;
            }
            (Frame::Error(reason), Some(Owed::Confirmations { rooms, heard: true })) => {
                let rooms = Vec::from(std::mem::take(rooms));
                self.refused(rooms, reason)?;
            }
            (Frame::Subscribed(_), Some(Owed::Own(left))) => {
                *left -= 1;
                if *left == 0 {
                    self.owed.pop_front();
                    self.subscriber.control.connected();
                }
            }
            (Frame::Error(reason), Some(Owed::Own(_))) => {
                self.subscriber.control.refused(&reason);
                self.owed.pop_front();
            }
            (Frame::Done | Frame::Error(_), Some(Owed::Pong(marks))) => {
                rooms::answer(std::mem::take(marks), &Ok(()));
                self.owed.pop_front();
            }
            (Frame::Error(reason), _) => return Err(Lost::Refused(reason)),
            _ => return Err(Lost::Unasked),
        }
        if matches!(self.owed.front(), Some(Owed::Confirmations { rooms, .. }) if rooms.is_empty()) {
            self.owed.pop_front();
        }
        Ok(())
    }

    /// Redis refuses a command as a whole, whichever room is the cause: halves of it are asked again until the cause
    /// stands alone.
    fn refused(&mut self, mut rooms: Vec<Arc<str>>, reason: String) -> Result<(), Lost> {
        if rooms.len() > 1 {
            let half = rooms.split_off(rooms.len() / 2);
            self.retries.extend([half, rooms]);
            return Ok(());
        }
        debug!(room = rooms.first().map(|room| &**room), reason, "Redis refused a subscription");
        match rooms.first() {
            Some(room) if self.subscriber.rooms.refused(room, &reason) => Err(Lost::RefusedRoom(reason)),
            _ => Ok(()),
        }
    }

    /// Sends what is to be sent. While answers to commands are outstanding nothing more is asked, so that what comes
    /// meanwhile goes together, and the server never has more than one batch of confirmations to send.
    async fn ask(&mut self) -> Result<(), Lost> {
        if self.owed.iter().all(|owed| matches!(owed, Owed::Pong(_))) {
            if let Some(rooms) = self.retries.pop() {
                self.ask_rooms(b"SUBSCRIBE", rooms, true);
            } else {
                let batch = self.subscriber.rooms.next();
                self.ask_rooms(b"UNSUBSCRIBE", batch.unsubscribe, false);
                self.ask_rooms(b"SUBSCRIBE", batch.subscribe, true);
            }
            self.ask_own();
        }
        if !self.owed.iter().any(|owed| matches!(owed, Owed::Pong(_))) {
            let marks = self.subscriber.rooms.take_marks();
            if !marks.is_empty() {
                self.ping(marks);
            }
        }
        self.write().await
    }

    /// Asks for the node's own channels, once on each connection. Where the node is not known yet, it will be.
    fn ask_own(&mut self) {
        if self.listens {
            return;
        }
        let Some(channels) = self.subscriber.control.channels() else { return };
        self.listens = true;
        self.command(b"SUBSCRIBE", &channels);
        self.owed.push_back(Owed::Own(channels.len()));
    }

    fn ping(&mut self, marks: Vec<oneshot::Sender<Outcome>>) {
        self.command(b"PING", &[]);
        self.owed.push_back(Owed::Pong(marks));
    }

    fn ask_rooms(&mut self, verb: &[u8], rooms: Vec<Arc<str>>, heard: bool) {
        if rooms.is_empty() {
            return;
        }
        let channels: Vec<String> = rooms.iter().map(|room| self.subscriber.keys.channel(room)).collect();
        let words: Vec<&[u8]> = channels.iter().map(String::as_bytes).collect();
        self.command(verb, &words);
        self.owed.push_back(Owed::Confirmations { rooms: rooms.into(), heard });
    }

    fn command(&mut self, verb: &[u8], words: &[&[u8]]) {
        resp::write_command(&mut self.output, verb, words);
    }

    async fn write(&mut self) -> Result<(), Lost> {
        if self.output.is_empty() {
            return Ok(());
        }
        let output = std::mem::take(&mut self.output);
        let stuck = |_| Lost::Silent(self.subscriber.io_timeout);
        let written = stream::write(&mut self.stream, &output);
        Ok(timeout(self.subscriber.io_timeout, written).await.map_err(stuck)??)
    }

    /// When silence becomes worth a question, or, once asked, is death.
    fn deadline(&self) -> Instant {
        let patience = self.subscriber.io_timeout;
        self.last_heard + if self.owed.is_empty() { patience / 2 } else { patience }
    }

    fn watch(&mut self) -> Result<(), Lost> {
        if !self.owed.is_empty() {
            return Err(Lost::Silent(self.subscriber.io_timeout));
        }
        self.ping(Vec::new());
        Ok(())
    }

    fn note_health(&mut self) {
        if !self.hearing && self.subscriber.rooms.health() == Health::Hearing {
            self.hearing = true;
            self.subscriber.metrics.broker_connected.set(1);
        }
    }
}

fn confirm(subscriber: &Subscriber, channel: &[u8], rooms: &mut VecDeque<Arc<str>>, heard: bool) -> Result<(), Lost> {
    let room = rooms.pop_front().ok_or(Lost::Unasked)?;
    if subscriber.keys.room(channel) != Some(&*room) {
        return Err(Lost::Unasked);
    }
    subscriber.rooms.confirmed(&room, heard);
    Ok(())
}

fn heard(read: io::Result<usize>) -> Result<(), Lost> {
    if read? == 0 { Err(Lost::Closed) } else { Ok(()) }
}
