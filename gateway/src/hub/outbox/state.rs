//! What waits in a way out, and the decisions about it: what goes to the socket at once, what waits, what gives way and when
//! it is too much. Everything here happens under the lock of one outbox. Knows no rooms and no commands.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind, IoSlice},
    task::Waker,
};

use bytes::Bytes;
use roomcast_shared::protocol::code::Disconnect;

use super::{Sink, mail::Mailbox};

/// How many buffers one write hands to the kernel at most.
const MOST_SLICES: usize = 64;

/// What each buffer that waits costs beside its bytes: its place in a queue that grows by doubling.
pub(super) const OVERHEAD: usize = 2 * size_of::<Entry>();

/// One buffer that waits.
pub(super) struct Entry {
    bytes: Bytes,
    /// The room whose newest publication this is, where only the newest one waits; 0 for everything else.
    tag: u32,
}

#[derive(Default)]
pub(super) struct State {
    /// What waits, oldest first. Where the socket took part of a buffer, only the rest of it stands here.
    pub(super) queue: VecDeque<Entry>,
    /// Bytes in `queue`.
    pub(super) queued: usize,
    /// Whether the first buffer began on the socket already: it must be finished, or the framing breaks.
    begun: bool,
    pub(super) phase: Phase,
    /// While set, nothing is written: replies will be put in at this place of the queue.
    pub(super) held: Option<usize>,
    /// Why the connection has to end.
    pub(super) closing: Option<Box<Disconnect>>,
    /// What the session is told; nothing is held while that is nothing.
    pub(super) mail: Option<Box<Mailbox>>,
    pub(super) waker: Option<Waker>,
}

/// How far a way out has come. Only in the first phase it takes anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    #[default]
    Open,
    /// Too much waited: what was pushed since is given up, and the connection is about to say why.
    Overflowed,
    /// The last words are said.
    Ended,
    /// The socket refused a write.
    Broken,
}

impl State {
    /// Tries the socket where nothing waits; `None` where the bytes have to wait whole.
    pub(super) fn take_at_once<S: Sink + ?Sized>(&mut self, socket: &S, bytes: &[u8]) -> Option<usize> {
        if self.phase != Phase::Open {
            return Some(bytes.len());
        }
        if !self.queue.is_empty() || self.held.is_some() {
            return None;
        }
        match socket.try_write(&[IoSlice::new(bytes)]) {
            Ok(taken) => Some(taken),
            Err(error) if is_passing(&error) => None,
            Err(_) => {
                self.fail();
                Some(0)
            }
        }
    }

    /// Says bytes that have to be copied to wait; gives whom to wake for what the socket did not take.
    pub(super) fn write<S: Sink + ?Sized>(&mut self, socket: &S, bytes: &[u8], limit: usize) -> Option<Waker> {
        if bytes.is_empty() {
            return None;
        }
        let taken = match self.take_at_once(socket, bytes) {
            Some(taken) if taken == bytes.len() => return None,
            Some(taken) => taken,
            None => 0,
        };
        self.append(Bytes::copy_from_slice(&bytes[taken..]), taken > 0, limit);
        self.waker_if_unheld()
    }

    /// Puts bytes in at that place of what waits, and writes as much of all that as the socket takes.
    pub(super) fn write_before<S: Sink + ?Sized>(
        &mut self,
        place: usize,
        socket: &S,
        bytes: &[u8],
        limit: usize,
    ) -> Option<Waker> {
        if !bytes.is_empty() {
            self.insert(place, Entry { bytes: Bytes::copy_from_slice(bytes), tag: 0 }, limit);
        }
        let stuck = self.flush(socket).is_err() || !self.queue.is_empty();
        if stuck || self.closing.is_some() { self.waker.take() } else { None }
    }

    /// Puts bytes last, the first part of which the socket may have taken.
    pub(super) fn append(&mut self, bytes: Bytes, begun: bool, limit: usize) {
        self.begun |= begun;
        self.insert(self.queue.len(), Entry { bytes, tag: 0 }, limit);
    }

    /// Puts the newest publication of a room last, instead of the one of that room which waits; whether there was one.
    pub(super) fn append_newest(&mut self, tag: u32, bytes: Bytes, limit: usize) -> bool {
        let gave_way = self.take_out(tag);
        self.insert(self.queue.len(), Entry { bytes, tag }, limit);
        gave_way
    }

    fn take_out(&mut self, tag: u32) -> bool {
        let unbegun = usize::from(self.begun);
        let Some(place) = self.queue.iter().skip(unbegun).position(|entry| entry.tag == tag) else { return false };
        let place = place + unbegun;
        let Some(entry) = self.queue.remove(place) else { return false };
        self.queued -= entry.bytes.len();
        // The replies that are awaited keep their place between what was said before them and after.
        if let Some(held) = self.held.as_mut().filter(|held| place < **held) {
            *held -= 1;
        }
        true
    }

    /// Whether so many bytes more would be too much.
    pub(super) fn would_overflow(&self, bytes: usize, limit: usize) -> bool {
        self.queued + bytes + (self.queue.len() + 1) * OVERHEAD > limit
    }

    fn insert(&mut self, place: usize, entry: Entry, limit: usize) {
        if self.phase != Phase::Open {
            return;
        }
        self.queued += entry.bytes.len();
        self.queue.insert(place, entry);
        if self.queued + self.queue.len() * OVERHEAD > limit {
            self.overflow();
        }
    }

    /// The slow-consumer decision: what waits is given up, save the frame that began, and the connection ends.
    fn overflow(&mut self) {
        self.queue.truncate(usize::from(self.begun));
        self.queued = self.queue.iter().map(|entry| entry.bytes.len()).sum();
        self.held = None;
        self.phase = Phase::Overflowed;
        self.closing.get_or_insert_with(|| Box::new(Disconnect::SLOW));
    }

    /// Ends the way out: `last` is said after what waits, and nothing after it.
    pub(super) fn finish(&mut self, last: Vec<u8>) {
        self.held = None;
        self.mail = None;
        if matches!(self.phase, Phase::Open | Phase::Overflowed) {
            self.queued += last.len();
            self.queue.push_back(Entry { bytes: last.into(), tag: 0 });
            self.phase = Phase::Ended;
        }
    }

    pub(super) fn fail(&mut self) {
        self.phase = Phase::Broken;
        self.queue = VecDeque::new();
        self.queued = 0;
        self.mail = None;
    }

    pub(super) fn flush<S: Sink + ?Sized>(&mut self, socket: &S) -> io::Result<()> {
        while !self.queue.is_empty() && self.held.is_none() {
            let mut slices = [IoSlice::new(&[]); MOST_SLICES];
            let count = self.queue.len().min(MOST_SLICES);
            for (slice, entry) in slices.iter_mut().zip(&self.queue) {
                *slice = IoSlice::new(&entry.bytes);
            }
            match socket.try_write(&slices[..count]) {
                // A sink that takes nothing without saying so is asked again when it is ready, not in a circle.
                Ok(0) => return Ok(()),
                Ok(taken) => self.advance(taken),
                Err(error) if is_passing(&error) => return Ok(()),
                Err(error) => {
                    self.fail();
                    return Err(error);
                }
            }
        }
        if self.queue.is_empty() && self.queue.capacity() > 0 {
            self.queue = VecDeque::new();
        }
        Ok(())
    }

    /// Takes off what the socket took.
    fn advance(&mut self, mut taken: usize) {
        self.queued -= taken;
        while let Some(first) = self.queue.front_mut() {
            if taken < first.bytes.len() {
                self.begun |= taken > 0;
                let _ = first.bytes.split_to(taken);
                return;
            }
            taken -= first.bytes.len();
            self.begun = false;
            self.queue.pop_front();
        }
    }

    /// Whom to tell that something waits; while replies are awaited nobody, as the end of the hold writes by itself.
    pub(super) fn waker_if_unheld(&mut self) -> Option<Waker> {
        if self.held.is_some() && self.closing.is_none() { None } else { self.waker.take() }
    }
}

pub(super) fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
