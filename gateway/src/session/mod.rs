//! One client: what it is, what it may do, and what it is answered. Commands come in as the bytes of a frame; replies go out
//! through the client's outbox. Knows no sockets, no HTTP and no Redis.
//!
//! Commands start in the order they came. One that has to wait for the broker is awaited beside the others, and a command
//! that depends on one still waiting stops the reading until that is answered; pings and deliveries go on meanwhile.

use std::{
    cell::RefCell,
    net::IpAddr,
    sync::Arc,
    task::{Context as TaskContext, Poll},
};

use roomcast_shared::{
    claims::{Caps, ConnectClaims},
    event::Event,
    protocol::{
        Delta, Form,
        code::Disconnect,
        reply::{EmptyResult, Membership, Push, Reply},
    },
};
use tokio::time::Instant;
use uuid::Uuid;

use crate::{
    hooks::PassedHeaders,
    hub::{Identity, Outbox, SeatId, Wire},
    node::Hold,
};

mod arrival;
mod connect;
mod context;
mod dispatch;
mod entry;
mod expiry;
#[cfg(test)]
mod fixture;
mod gate;
mod grant;
mod history;
mod keepalive;
mod limits;
mod local;
mod mail;
mod orders;
mod pending;
mod personal;
mod presence;
mod publish;
mod publish_hook;
mod rare;
mod recover;
mod refresh;
mod revoked;
mod rpc;
mod rules;
mod secret;
mod sub_refresh;
mod subscribe;
mod terms;
mod uni;
mod unsubscribe;
mod upstream;

pub use context::Context;
pub use gate::{Gate, GateClosed, Place, is_last_file};
pub use keepalive::Heartbeat;
pub use limits::Limits;
pub use publish::is_fit;
pub use revoked::Revoked;
pub use rules::Rules;

use entry::Origin;
use keepalive::Clock;
use pending::{Busy, Done, Pending};
use rare::{Extra, Rare};
use terms::Terms;

thread_local! {
    /// Replies gather here while commands run, so that a connection holds no buffer of its own.
    static REPLIES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Replies up to this size keep their buffer for the next command of the thread.
const REPLIES_KEPT: usize = 64 * 1024;

/// What the transport knows of a client when it is let in.
pub struct Admission {
    /// How the client is spoken to.
    pub wire: Wire,
    /// Who looks after the liveness of the connection.
    pub heartbeat: Heartbeat,
    /// What the token on the upgrade request says, verified there; it stands in for the token of `connect`.
    pub bearer: Option<Box<ConnectClaims>>,
    /// Address of the client, behind trusted proxies.
    pub address: IpAddr,
    /// What the backend is told of the headers of its request.
    pub headers: Option<Arc<PassedHeaders>>,
}

/// One client's protocol state.
pub struct Session {
    context: Arc<Context>,
    outbox: Arc<Outbox>,
    client: Uuid,
    wire: Wire,
    address: IpAddr,
    stage: Stage,
    bearer: Option<Box<ConnectClaims>>,
    /// What the connection token allows beside the rules of rooms.
    caps: Caps,
    subscriptions: Vec<Subscription>,
    clock: Clock,
    pending: Option<Box<Pending>>,
    /// What is left of a frame whose next command has to wait.
    backlog: Option<Box<[u8]>>,
    /// That command was within the limits when it first wanted to begin.
    counted: bool,
    /// It came without a token, so that none of it can be revoked.
    tokenless: bool,
    rare: Option<Box<Rare>>,
}

enum Stage {
    /// Nothing came yet.
    Fresh,
    /// The backend is being asked who it is.
    Asking,
    /// `connect` was accepted; its server-side rooms are being entered.
    Connecting(Arc<Identity>),
    /// Open to every command.
    Connected(Arc<Identity>),
    /// `connect` was refused: nothing more is taken, and the stale timer ends it.
    Refused,
}

/// A room the client is in.
struct Subscription {
    hold: Hold,
    seat: SeatId,
    terms: Terms,
    origin: Origin,
    /// The client said something here, and may be on its way out before it has heard it.
    spoke: bool,
    extra: Option<Box<Extra>>,
}

/// What became of a command.
enum Step {
    /// It was answered, or waits for the broker without being in anybody's way.
    Done,
    /// It cannot begin yet.
    Wait,
    /// It was refused so that the rest of the frame is void.
    Drop,
}

/// Where a command's answers go.
struct Replies<'a> {
    wire: Wire,
    out: &'a mut Vec<u8>,
}

impl Session {
    /// A client that was let in and has said nothing yet.
    pub fn new(context: Arc<Context>, outbox: Arc<Outbox>, admission: Admission) -> Self {
        let clock = Clock::new(&context.settings.client, admission.heartbeat, admission.wire);
        let client = Uuid::new_v4();
        context.node.hub().sessions.open(client, outbox.clone());
        // Asked after it is entered: either the drain finds it there, or it finds the drain begun.
        if context.is_draining() {
            outbox.close(Disconnect::SHUTDOWN);
        }
        Self {
            context,
            outbox,
            client,
            wire: admission.wire,
            address: admission.address,
            stage: Stage::Fresh,
            bearer: admission.bearer,
            caps: Caps::default(),
            subscriptions: Vec::new(),
            clock,
            pending: None,
            backlog: None,
            counted: false,
            tokenless: true,
            rare: Rare::with_headers(admission.headers),
        }
    }

    /// How the client is spoken to.
    pub fn wire(&self) -> Wire {
        self.wire
    }

    /// Takes one message of the client: the commands in it begin, and what is known at once is answered.
    ///
    /// # Errors
    /// The code with which the connection has to be closed.
    pub fn receive(&mut self, frame: &[u8]) -> Result<(), Disconnect> {
        if self.clock.is_pong(frame) {
            return self.clock.pong();
        }
        if self.wire.is_unidirectional() {
            return self.answer(|session, replies| session.listen(frame, replies));
        }
        self.answer(|session, replies| session.run(frame, replies))
    }

    /// A pong of the transport itself, where that looks after liveness.
    pub fn transport_pong(&mut self) {
        self.clock.transport_pong();
    }

    /// Whether a command waits for the answer of another one: what else the client sent must not be read yet.
    pub fn is_blocked(&self) -> bool {
        self.backlog.is_some()
    }

    /// Whether anything has begun that goes on by [`Session::poll_pending`].
    pub fn is_waiting(&self) -> bool {
        self.pending.is_some()
    }

    /// Goes on with commands that the broker has answered. Ready only where the connection has to be closed.
    pub fn poll_pending(&mut self, task: &mut TaskContext<'_>) -> Poll<Disconnect> {
        let mut next = self.next_done(task);
        while let Some(done) = next {
            next = match self.answer(|session, replies| session.finish_all(done, task, replies)) {
                Ok(next) => next,
                Err(disconnect) => return Poll::Ready(disconnect),
            };
        }
        Poll::Pending
    }

    /// Finishes what is done, so that all of it is answered in one write. Gives what is done as well but has to be answered by
    /// another one: where enough is said, and where rooms pushed something meanwhile, which comes after these answers and
    /// before what follows. That has to be looked at when it is known that something is done, since it may be that what was
    /// pushed has arrived.
    fn finish_all(
        &mut self,
        first: Done,
        task: &mut TaskContext<'_>,
        replies: &mut Replies<'_>,
    ) -> Result<Option<Done>, Disconnect> {
        let mut done = first;
        loop {
            self.finish(done, replies)?;
            self.take_deferred(replies)?;
            self.run_backlog(replies)?;
            match self.next_done(task) {
                Some(next) if replies.out.len() < REPLIES_KEPT && !self.outbox.is_overtaken() => done = next,
                other => return Ok(other),
            }
        }
    }

    /// What the broker has answered; none where nothing is answered, or nothing waits.
    fn next_done(&mut self, task: &mut TaskContext<'_>) -> Option<Done> {
        match self.pending.as_mut()?.poll_next(task) {
            Poll::Pending => None,
            Poll::Ready(None) => {
                self.pending = None;
                None
            }
            Poll::Ready(done) => done,
        }
    }

    /// When [`Session::tick`] has something to do next.
    pub fn deadline(&self) -> Instant {
        let connected = matches!(self.stage, Stage::Connected(_));
        let deadline = self.clock.deadline(connected);
        self.next_lease().filter(|_| connected).map_or(deadline, |due| due.min(deadline))
    }

    /// Does what is due: pings, and ends what took too long.
    ///
    /// # Errors
    /// The code with which the connection has to be closed.
    pub fn tick(&mut self, now: Instant) -> Result<(), Disconnect> {
        let connected = matches!(self.stage, Stage::Connected(_));
        if connected && self.next_lease().is_some_and(|due| due <= now) {
            self.answer(|session, replies| session.end_leases(now, replies))?;
        }
        if connected && self.clock.is_expired(now) && self.refreshes_by_hook() {
            self.ask_whether_to_go_on();
        }
        let ping = self.clock.tick(now, connected, self.backlog.is_some())?;
        if let Some(ping) = ping {
            self.outbox.write(ping);
        }
        Ok(())
    }

    /// Counts that the client is closed because too much waited for it.
    pub fn count_overflow(&self) {
        self.context.metrics.queue_overflows.inc();
        self.context.metrics.slow_closed.inc();
    }

    /// Ends the session, which leaves every room and the node. `code` and `reason` say why in the metrics and the log.
    pub fn close(self, code: &str, reason: &str) {
        self.context.metrics.closes.with_label_values(&[code]).inc();
        let user = self.identity().map(|identity| tracing::field::debug(identity.user.clone()));
        tracing::debug!(code, reason, client = %self.client, user, address = %self.address, "connection ended");
    }

    /// Runs `work` so that all its replies go out in one write, before whatever is said in the rooms it entered.
    fn answer<T>(
        &mut self,
        work: impl FnOnce(&mut Self, &mut Replies<'_>) -> Result<T, Disconnect>,
    ) -> Result<T, Disconnect> {
        let mut out = REPLIES.take();
        out.clear();
        self.outbox.hold();
        let result = work(self, &mut Replies { wire: self.wire, out: &mut out });
        self.outbox.release(&out);
        if out.capacity() <= REPLIES_KEPT {
            REPLIES.set(out);
        }
        result
    }

    fn identity(&self) -> Option<&Arc<Identity>> {
        match &self.stage {
            Stage::Connected(identity) | Stage::Connecting(identity) => Some(identity),
            Stage::Fresh | Stage::Asking | Stage::Refused => None,
        }
    }

    fn place_of(&self, room: &str) -> Option<usize> {
        self.subscriptions.iter().position(|subscription| **subscription.hold.room().name() == *room)
    }

    /// Whether a command for this room has to wait for one that is with the broker already.
    fn must_wait(&self, room: &str, publishes: bool) -> bool {
        let Some(pending) = &self.pending else { return false };
        pending.is_full(self.context.settings.client.pending_commands)
            || match pending.busy(room) {
                None => false,
                // Publications keep their order on their own; nothing else may overtake.
                Some(Busy::Publishing) => !publishes,
                Some(Busy::Subscribing | Busy::Asking | Busy::Leaving) => true,
            }
    }

    /// Whether as many commands wait as may.
    fn is_busy(&self) -> bool {
        let limit = self.context.settings.client.pending_commands;
        self.pending.as_ref().is_some_and(|pending| pending.is_full(limit))
    }

    fn pending(&mut self) -> &mut Pending {
        self.pending.get_or_insert_default()
    }
}

/// Whatever ends the task of a connection, its seats are given up.
impl Drop for Session {
    fn drop(&mut self) {
        self.pending = None;
        for mut subscription in std::mem::take(&mut self.subscriptions) {
            self.give_up(&mut subscription);
        }
        self.lay_down();
        self.context.node.hub().sessions.close(self.client);
    }
}

impl Replies<'_> {
    fn put(&mut self, reply: &Reply) -> Result<(), Disconnect> {
        self.wire.put_reply(reply, self.out)
    }

    fn put_push(&mut self, push: Push) -> Result<(), Disconnect> {
        self.put(&Reply { push: Some(Box::new(push)), ..Reply::default() })
    }

    /// What happened in a room; publications whole, to a client that takes deltas or not.
    fn put_event(&mut self, room: &str, event: &Event, delta: bool) -> Result<(), Disconnect> {
        let channel = room.to_owned();
        match event {
            Event::Publication(said) => {
                let form = Form { envelope: self.wire.envelope(), delta: delta.then_some(Delta::Full) };
                let mut message = Vec::with_capacity(256);
                let spelt = self.wire.encoding().encode_publication_as(form, room, &said.publication, &mut message);
                spelt.map_err(|_| Disconnect::INAPPROPRIATE_PROTOCOL)?;
                self.wire.put_message(&message, self.out);
                Ok(())
            }
            Event::Join(info) => {
                let join = Some(Box::new(Membership { info: Some(info.clone()) }));
                self.put_push(Push { channel, join, ..Push::default() })
            }
            Event::Leave(info) => {
                let leave = Some(Box::new(Membership { info: Some(info.clone()) }));
                self.put_push(Push { channel, leave, ..Push::default() })
            }
        }
    }
}

const EMPTY: Option<EmptyResult> = Some(EmptyResult {});
