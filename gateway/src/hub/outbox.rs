//! A connection's way out. Bytes go to the socket there and then if nothing waits; what the socket does not take waits here,
//! bounded in bytes, for the connection's task. Too much waiting ends the connection: that is the slow-consumer decision.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind, IoSlice},
    sync::Arc,
    task::{Context, Waker},
};

use bytes::Bytes;
use parking_lot::Mutex;
use roomcast_shared::protocol::code::Disconnect;

/// How many buffers one write hands to the kernel at most.
const MOST_SLICES: usize = 64;

/// A socket that can be written from any thread.
pub trait Sink: Send + Sync {
    /// Writes what the socket takes at once, from the beginning of `bytes` on, and says how much that was.
    ///
    /// # Errors
    /// [`ErrorKind::WouldBlock`] where the socket takes nothing now; a sink that can only be written by its own task always
    /// answers so. Any other error: the socket is broken.
    fn try_write(&self, bytes: &[IoSlice<'_>]) -> io::Result<usize>;
}

/// The way out of one connection; its last field is the socket, so that an `Arc` of it serves both the connection, which
/// knows the socket's type, and the rooms, which do not.
pub struct Outbox<S: ?Sized = dyn Sink> {
    state: Mutex<State>,
    /// Bytes that may wait before the connection is ended as a slow consumer.
    limit: usize,
    socket: S,
}

#[derive(Default)]
struct State {
    /// What waits, oldest first. Where the socket took part of a buffer, only the rest of it stands here.
    queue: VecDeque<Bytes>,
    /// Bytes in `queue`.
    queued: usize,
    /// Whether the first buffer began on the socket already: it must be finished, or the framing breaks.
    begun: bool,
    /// While set, nothing is written: replies will be put in at this place of the queue.
    held: Option<usize>,
    /// Why the connection has to end.
    closing: Option<Box<Disconnect>>,
    phase: Phase,
    waker: Option<Waker>,
}

/// How far a way out has come. Only in the first phase it takes anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Open,
    /// Too much waited: what was pushed since is given up, and the connection is about to say why.
    Overflowed,
    /// The last words are said.
    Ended,
    /// The socket refused a write.
    Broken,
}

/// What the connection's task has to attend to.
#[derive(Debug, Default)]
pub struct Attention {
    /// The connection has to end with this.
    pub close: Option<Disconnect>,
    /// The socket refused a write: nothing more can be said.
    pub broken: bool,
    /// Bytes wait for the socket.
    pub waiting: bool,
}

impl<S> Outbox<S> {
    /// A way out over `socket` in which at most `limit` bytes wait.
    pub fn new(socket: S, limit: usize) -> Self {
        Self { state: Mutex::new(State::default()), limit, socket }
    }
}

impl<S: Sink + ?Sized> Outbox<S> {
    /// The socket.
    pub fn socket(&self) -> &S {
        &self.socket
    }

    /// Says these bytes after all that was said before. They must be whole frames.
    pub fn push(&self, bytes: &Bytes) {
        let mut state = self.state.lock();
        let taken = match state.take_at_once(&self.socket, bytes) {
            Some(taken) if taken == bytes.len() => return,
            Some(taken) => taken,
            None => 0,
        };
        state.append(bytes.slice(taken..), taken > 0, self.limit);
        let waker = state.waker_if_unheld();
        drop(state);
        wake(waker);
    }

    /// The same for bytes that the caller keeps: only what the socket does not take at once is copied.
    pub fn write(&self, bytes: &[u8]) {
        let mut state = self.state.lock();
        let waker = state.write(&self.socket, bytes, self.limit);
        drop(state);
        wake(waker);
    }

    /// From now on what is pushed waits, until [`Outbox::release`]. So a session can take seats in rooms and have its reply
    /// written before anything that is said in them.
    pub fn hold(&self) {
        let mut state = self.state.lock();
        state.held = Some(state.queue.len());
    }

    /// Says `replies` before everything that was pushed since [`Outbox::hold`].
    pub fn release(&self, replies: &[u8]) {
        let mut state = self.state.lock();
        let place = state.held.take().unwrap_or(state.queue.len());
        if state.queue.is_empty() {
            // Under the same lock: whoever pushes from here on comes after the replies.
            let waker = if replies.is_empty() { None } else { state.write(&self.socket, replies, self.limit) };
            drop(state);
            return wake(waker);
        }
        if !replies.is_empty() {
            state.insert(place, Bytes::copy_from_slice(replies), self.limit);
        }
        let stuck = state.flush(&self.socket).is_err() || !state.queue.is_empty();
        let waker = if stuck || state.closing.is_some() { state.waker.take() } else { None };
        drop(state);
        wake(waker);
    }

    /// Asks the connection to end with this, after what waits is written. The first reason stands.
    pub fn close(&self, disconnect: Disconnect) {
        let mut state = self.state.lock();
        state.closing.get_or_insert_with(|| Box::new(disconnect));
        let waker = state.waker.take();
        drop(state);
        wake(waker);
    }

    /// Ends the connection without a further word.
    pub fn abort(&self) {
        let mut state = self.state.lock();
        state.fail();
        let waker = state.waker.take();
        drop(state);
        wake(waker);
    }

    /// What there is to do for the connection's task; it is woken when that changes.
    pub fn attend(&self, context: &Context<'_>) -> Attention {
        let mut state = self.state.lock();
        if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            state.waker = Some(context.waker().clone());
        }
        Attention {
            close: if state.phase == Phase::Ended { None } else { state.closing.as_deref().cloned() },
            broken: state.phase == Phase::Broken,
            waiting: !state.queue.is_empty(),
        }
    }

    /// Writes what waits, as far as the socket takes it. `true` when nothing waits any more.
    ///
    /// # Errors
    /// The socket is broken.
    pub fn drain(&self) -> io::Result<bool> {
        let mut state = self.state.lock();
        state.flush(&self.socket)?;
        Ok(state.queue.is_empty())
    }

    /// Ends the way out: `last` is said after what waits, and nothing after it.
    pub fn finish(&self, last: Vec<u8>) {
        let mut state = self.state.lock();
        state.held = None;
        if matches!(state.phase, Phase::Open | Phase::Overflowed) {
            state.queued += last.len();
            state.queue.push_back(last.into());
            state.phase = Phase::Ended;
        }
    }

    /// Bytes that wait for the socket.
    pub fn queued(&self) -> usize {
        self.state.lock().queued
    }
}

impl State {
    /// Tries the socket where nothing waits; `None` where the bytes have to wait whole.
    fn take_at_once<S: Sink + ?Sized>(&mut self, socket: &S, bytes: &[u8]) -> Option<usize> {
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

    /// Says bytes after all that was said before; gives whom to tell where they have to wait.
    fn write<S: Sink + ?Sized>(&mut self, socket: &S, bytes: &[u8], limit: usize) -> Option<Waker> {
        let taken = match self.take_at_once(socket, bytes) {
            Some(taken) if taken == bytes.len() => return None,
            Some(taken) => taken,
            None => 0,
        };
        self.append(Bytes::copy_from_slice(&bytes[taken..]), taken > 0, limit);
        self.waker_if_unheld()
    }

    fn append(&mut self, bytes: Bytes, begun: bool, limit: usize) {
        self.begun |= begun;
        self.insert(self.queue.len(), bytes, limit);
    }

    fn insert(&mut self, place: usize, bytes: Bytes, limit: usize) {
        if self.phase != Phase::Open {
            return;
        }
        self.queued += bytes.len();
        self.queue.insert(place, bytes);
        if self.queued > limit {
            self.overflow();
        }
    }

    /// The slow-consumer decision: what waits is given up, save the frame that began, and the connection ends.
    fn overflow(&mut self) {
        self.queue.truncate(usize::from(self.begun));
        self.queued = self.queue.iter().map(Bytes::len).sum();
        self.held = None;
        self.phase = Phase::Overflowed;
        self.closing.get_or_insert_with(|| Box::new(Disconnect::SLOW));
    }

    fn fail(&mut self) {
        self.phase = Phase::Broken;
        self.queue = VecDeque::new();
        self.queued = 0;
    }

    fn flush<S: Sink + ?Sized>(&mut self, socket: &S) -> io::Result<()> {
        while !self.queue.is_empty() && self.held.is_none() {
            let mut slices = [IoSlice::new(&[]); MOST_SLICES];
            let count = self.queue.len().min(MOST_SLICES);
            for (slice, bytes) in slices.iter_mut().zip(&self.queue) {
                *slice = IoSlice::new(bytes);
            }
            match socket.try_write(&slices[..count]) {
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
            if taken < first.len() {
                self.begun |= taken > 0;
                let _ = first.split_to(taken);
                return;
            }
            taken -= first.len();
            self.begun = false;
            self.queue.pop_front();
        }
    }

    /// Whom to tell that something waits; while replies are awaited nobody, as [`Outbox::release`] writes by itself.
    fn waker_if_unheld(&mut self) -> Option<Waker> {
        if self.held.is_some() && self.closing.is_none() { None } else { self.waker.take() }
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// Whether both are the way out of the same connection.
pub(super) fn same(one: &Arc<Outbox>, other: &Arc<Outbox>) -> bool {
    std::ptr::addr_eq(Arc::as_ptr(one), Arc::as_ptr(other))
}
