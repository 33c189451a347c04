//! The way from an outbox into the body of a response: a small buffer in memory that stands for the socket, which only the
//! HTTP server may write. One side puts in from any thread, the other takes out when the server asks for more.

use std::{
    convert::Infallible,
    io::{self, ErrorKind, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll, Waker},
};

use bytes::Bytes;
use hyper::body::{Body, Frame};
use parking_lot::Mutex;

use super::super::carry::Socket;
use crate::hub::{Outbox, Sink};

/// What may lie in the pipe. What exceeds it waits in the outbox, whose limit is the slow-consumer decision.
const CAPACITY: usize = 16 * 1024;

/// One response's pipe. Its lock is taken while the outbox's is held, and none is taken under it.
#[derive(Default)]
pub(super) struct Pipe(Mutex<State>);

#[derive(Default)]
struct State {
    /// Memory only while something waits.
    buffer: Vec<u8>,
    /// Nothing more will come.
    ended: bool,
    /// The server takes no more: the client went away, or the response is through.
    left: bool,
    /// The server, where it waits for bytes.
    reader: Option<Waker>,
    /// The connection's task, where it waits for room.
    writer: Option<Waker>,
}

impl Pipe {
    /// Ends the response after what is in the pipe.
    pub(super) fn end(&self) {
        let mut state = self.0.lock();
        state.ended = true;
        let reader = state.reader.take();
        drop(state);
        wake(reader);
    }

    /// Whether the server takes no more.
    pub(super) fn is_left(&self) -> bool {
        self.0.lock().left
    }

    /// Ready when the server has taken everything, or takes no more.
    pub(super) fn poll_empty(&self, task: &mut TaskContext<'_>) -> Poll<()> {
        self.0.lock().poll_room(CAPACITY, task)
    }

    fn poll_take(&self, task: &mut TaskContext<'_>) -> Poll<Option<Bytes>> {
        let mut state = self.0.lock();
        if state.buffer.is_empty() {
            if state.ended {
                return Poll::Ready(None);
            }
            state.reader = Some(task.waker().clone());
            return Poll::Pending;
        }
        let bytes = std::mem::take(&mut state.buffer);
        let writer = state.writer.take();
        drop(state);
        wake(writer);
        Poll::Ready(Some(bytes.into()))
    }

    fn leave(&self) {
        let mut state = self.0.lock();
        state.left = true;
        state.buffer = Vec::new();
        let writer = state.writer.take();
        drop(state);
        wake(writer);
    }
}

impl State {
    /// Ready when there is room for so many bytes.
    fn poll_room(&mut self, room: usize, task: &mut TaskContext<'_>) -> Poll<()> {
        if self.left || CAPACITY - self.buffer.len() >= room {
            return Poll::Ready(());
        }
        self.writer = Some(task.waker().clone());
        Poll::Pending
    }
}

impl Sink for Pipe {
    fn try_write(&self, bytes: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut state = self.0.lock();
        if state.left {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let before = state.buffer.len();
        if before == CAPACITY {
            return Err(ErrorKind::WouldBlock.into());
        }
        for slice in bytes {
            let room = CAPACITY - state.buffer.len();
            state.buffer.extend_from_slice(&slice[..room.min(slice.len())]);
        }
        let taken = state.buffer.len() - before;
        let reader = state.reader.take();
        drop(state);
        wake(reader);
        Ok(taken)
    }
}

impl Socket for Pipe {
    fn poll_writable(&self, task: &mut TaskContext<'_>) -> Poll<()> {
        self.0.lock().poll_room(1, task)
    }
}

/// The body of a response: what comes out of the pipe. When the server drops it, the connection is over.
pub(super) struct Stream(Arc<Outbox<Pipe>>);

impl Stream {
    pub(super) fn new(outbox: Arc<Outbox<Pipe>>) -> Self {
        Self(outbox)
    }
}

impl Body for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.socket().poll_take(task).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.socket().leave();
        self.0.abort();
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}
