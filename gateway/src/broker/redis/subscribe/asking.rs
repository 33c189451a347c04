//! What a subscribed connection asks of its server, and what the server answers: confirmations, refusals, and where a room
//! has gone. Reads and writes nothing itself.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::oneshot;
use tracing::debug;

use super::{Connection, Lost};
use crate::broker::redis::{
    redirect::Redirect,
    resp::Frame,
    rooms::{self, Batch, Outcome},
    routes::Group,
};

/// How long nothing more is asked after a room was sent elsewhere, so that servers which send it to each other are not
/// asked without end.
const AFTER_MOVE: Duration = Duration::from_millis(5);
/// The same where nobody owns a room just now.
const AFTER_NOBODY: Duration = Duration::from_millis(50);

/// What the server owes an answer to, in the order of commands.
pub(super) enum Owed {
    /// And who waits for all that comes before it.
    Pong(Vec<oneshot::Sender<Outcome>>),
    Confirmations {
        rooms: VecDeque<Arc<str>>,
        heard: bool,
        group: Group,
    },
    /// How many of this node's own channels are still to be confirmed.
    Own(usize),
}

impl Owed {
    /// What the command was about.
    fn group(&self, control: Group) -> Option<Group> {
        match self {
            Self::Pong(_) => None,
            Self::Confirmations { group, .. } => Some(*group),
            Self::Own(_) => Some(control),
        }
    }
}

/// The commands of a kind of server.
struct Verbs {
    subscribe: &'static [u8],
    unsubscribe: &'static [u8],
}

const PLAIN: Verbs = Verbs { subscribe: b"SUBSCRIBE", unsubscribe: b"UNSUBSCRIBE" };
const SHARDED: Verbs = Verbs { subscribe: b"SSUBSCRIBE", unsubscribe: b"SUNSUBSCRIBE" };

impl Connection<'_> {
    fn verbs(&self) -> &'static Verbs {
        if self.parts.routes.are_slots() { &SHARDED } else { &PLAIN }
    }

    /// Sends what is to be sent. While answers to commands are outstanding nothing more is asked, so that what comes
    /// meanwhile goes together, and the server never has more than one batch of confirmations to send.
    pub(super) async fn ask(&mut self) -> Result<(), Lost> {
        let paused = self.pause.is_some_and(|pause| Instant::now() < pause);
        if !paused && self.owed.iter().all(|owed| matches!(owed, Owed::Pong(_))) {
            self.pause = None;
            let verbs = self.verbs();
            if let Some(rooms) = self.retries.pop() {
                self.ask_rooms(verbs.subscribe, rooms, true);
            } else {
                let Batch { subscribe, unsubscribe } = self.parts.rooms.next(self.subscriber.link);
                self.ask_rooms(verbs.unsubscribe, unsubscribe, false);
                self.ask_rooms(verbs.subscribe, subscribe, true);
            }
            self.ask_own();
        }
        if !self.owed.iter().any(|owed| matches!(owed, Owed::Pong(_))) {
            let marks = self.parts.rooms.take_marks(self.subscriber.link);
            if !marks.is_empty() {
                self.ping(marks);
            }
        }
        self.write().await
    }

    /// Asks for the node's own channels, where the server has them. Where the node is not known yet, it will be.
    fn ask_own(&mut self) {
        let Some(channels) = self.parts.control.channels() else { return };
        if self.parts.rooms.take_own(self.subscriber.link) {
            let verb = self.verbs().subscribe;
            self.command(verb, &channels);
            self.owed.push_back(Owed::Own(channels.len()));
        }
    }

    pub(super) fn ping(&mut self, marks: Vec<oneshot::Sender<Outcome>>) {
        self.command(b"PING", &[]);
        self.owed.push_back(Owed::Pong(marks));
    }

    /// Asks for rooms: on a cluster those of each slot in a command of their own.
    fn ask_rooms(&mut self, verb: &[u8], mut rooms: Vec<Arc<str>>, heard: bool) {
        let routes = &self.parts.routes;
        if !routes.are_slots() {
            return self.ask_group(verb, rooms, heard, 0);
        }
        rooms.sort_by_cached_key(|room| routes.group(room));
        for rooms in rooms.chunk_by(|one, other| routes.group(one) == routes.group(other)) {
            self.ask_group(verb, rooms.to_vec(), heard, routes.group(&rooms[0]));
        }
    }

    fn ask_group(&mut self, verb: &[u8], rooms: Vec<Arc<str>>, heard: bool, group: Group) {
        if rooms.is_empty() {
            return;
        }
        let channels: Vec<String> = rooms.iter().map(|room| self.parts.keys.channel(room)).collect();
        let words: Vec<&[u8]> = channels.iter().map(String::as_bytes).collect();
        self.command(verb, &words);
        self.owed.push_back(Owed::Confirmations { rooms: rooms.into(), heard, group });
    }

    /// The server has answered a command, or says something by itself.
    pub(super) fn answered(&mut self, frame: Frame) -> Result<(), Lost> {
        if let Frame::Error(reason) = &frame
            && let Some(redirect) = self.redirect(reason)
        {
            self.redirected(&redirect);
            return Ok(());
        }
        match (frame, self.owed.front_mut()) {
            (Frame::Subscribed(channel), Some(Owed::Confirmations { rooms, heard: true, .. })) => {
                let room = rooms.pop_front();
                self.confirm(&channel, room, true)?;
            }
            (Frame::Subscribed(_), Some(Owed::Own(left))) => {
                *left -= 1;
                if *left == 0 {
                    self.owed.pop_front();
                    self.parts.control.connected();
                }
            }
            (Frame::Unsubscribed(channel), _) => self.unsubscribed(&channel)?,
            (Frame::Done | Frame::Error(_), Some(Owed::Pong(marks))) => {
                rooms::answer(std::mem::take(marks), &Ok(()));
                self.owed.pop_front();
            }
            (Frame::Error(reason), _) => self.failed(reason)?,
            _ => return Err(Lost::Unasked),
        }
        if matches!(self.owed.front(), Some(Owed::Confirmations { rooms, .. }) if rooms.is_empty()) {
            self.owed.pop_front();
        }
        Ok(())
    }

    fn confirm(&self, channel: &[u8], room: Option<Arc<str>>, heard: bool) -> Result<(), Lost> {
        let room = room.ok_or(Lost::Unasked)?;
        if self.parts.keys.room(channel) != Some(&*room) {
            return Err(Lost::Unasked);
        }
        if self.parts.rooms.confirmed(self.subscriber.link, &room, heard) {
            self.parts.deliver.interrupted();
        }
        Ok(())
    }

    /// A room is heard no more, because that was asked, or because the server does not own it any more.
    fn unsubscribed(&mut self, channel: &Bytes) -> Result<(), Lost> {
        let keys = &self.parts.keys;
        if let Some(Owed::Confirmations { rooms, heard: false, .. }) = self.owed.front_mut()
            && rooms.front().is_some_and(|room| keys.room(channel) == Some(room))
        {
            let room = rooms.pop_front();
            return self.confirm(channel, room, false);
        }
        if !self.parts.routes.are_slots() {
            return Err(Lost::Unasked);
        }
        match keys.room(channel) {
            Some(room) => self.parts.rooms.let_go(self.subscriber.link, room, Instant::now()),
            None => self.parts.rooms.lose_own(self.subscriber.link),
        }
        self.subscriber.topology.doubt();
        Ok(())
    }

    /// The server does not do what was asked.
    fn failed(&mut self, reason: String) -> Result<(), Lost> {
        match self.owed.front_mut() {
            Some(Owed::Confirmations { rooms, heard: true, .. }) => {
                let rooms = Vec::from(std::mem::take(rooms));
                self.refused(rooms, reason)
            }
            Some(Owed::Own(_)) => {
                self.parts.control.refused(&reason);
                self.owed.pop_front();
                Ok(())
            }
            _ => Err(Lost::Refused(reason)),
        }
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
            Some(room) if self.parts.rooms.refused(self.subscriber.link, room, &reason) => {
                Err(Lost::RefusedRoom(reason))
            }
            _ => Ok(()),
        }
    }

    /// Where a node of a cluster says that something is.
    fn redirect(&self, reason: &str) -> Option<Redirect> {
        self.parts.routes.are_slots().then(|| Redirect::of_line(reason)).flatten()
    }

    /// A node of a cluster does not own what it was asked for.
    fn redirected(&mut self, redirect: &Redirect) {
        let (link, topology) = (self.subscriber.link, &self.subscriber.topology);
        let pause = if let Redirect::Moved { slot, address } = redirect {
            topology.moved(link, *slot, address);
            let control = self.parts.routes.control();
            if self.owed.front().and_then(|owed| owed.group(control)) != Some(*slot) {
                // The answer to a command all of whose rooms the server has let go of by itself meanwhile.
                return;
            }
            AFTER_MOVE
        } else {
            topology.doubt();
            AFTER_NOBODY
        };
        self.pause = Some(Instant::now() + pause);
        match self.owed.pop_front() {
            Some(Owed::Confirmations { rooms, heard: true, .. }) => {
                self.parts.rooms.redirected(link, &Vec::from(rooms));
            }
            Some(Owed::Confirmations { rooms, heard: false, .. }) => {
                for room in &rooms {
                    self.parts.rooms.confirmed(link, room, false);
                }
            }
            Some(Owed::Own(_)) => self.parts.rooms.lose_own(link),
            Some(other) => self.owed.push_front(other),
            None => {}
        }
    }
}
