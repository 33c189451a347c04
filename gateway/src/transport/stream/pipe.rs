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

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        task::Wake,
    };

    use proptest::prelude::*;

    use super::*;

    #[derive(Default)]
    struct Bell(AtomicUsize);

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn write(pipe: &Pipe, bytes: &[u8]) -> io::Result<usize> {
        pipe.try_write(&[IoSlice::new(bytes)])
    }

    #[test]
    fn each_side_is_woken_when_the_other_has_done_something_for_it() {
        let (pipe, bell) = (Pipe::default(), Arc::new(Bell::default()));
        let waker = Waker::from(bell.clone());
        let mut task = TaskContext::from_waker(&waker);
        assert!(pipe.poll_take(&mut task).is_pending());
        assert_eq!(write(&pipe, &[1; CAPACITY + 5]).ok(), Some(CAPACITY));
        assert_eq!(bell.0.load(Ordering::SeqCst), 1, "the reader");
        assert_eq!(write(&pipe, b"more").unwrap_err().kind(), ErrorKind::WouldBlock);
        assert!(pipe.poll_writable(&mut task).is_pending());
        assert!(matches!(pipe.poll_take(&mut task), Poll::Ready(Some(bytes)) if bytes.len() == CAPACITY));
        assert_eq!(bell.0.load(Ordering::SeqCst), 2, "the writer");
        assert!(pipe.poll_writable(&mut task).is_ready() && pipe.poll_empty(&mut task).is_ready());
        assert!(pipe.poll_take(&mut task).is_pending());
        pipe.end();
        assert_eq!(bell.0.load(Ordering::SeqCst), 3, "the reader, of the end");
        assert_eq!(pipe.poll_take(&mut task), Poll::Ready(None));
    }

    #[test]
    fn nothing_is_taken_once_the_server_has_let_go() {
        let (pipe, bell) = (Pipe::default(), Arc::new(Bell::default()));
        let waker = Waker::from(bell.clone());
        let mut task = TaskContext::from_waker(&waker);
        assert_eq!(write(&pipe, b"one").ok(), Some(3));
        assert!(pipe.poll_empty(&mut task).is_pending());
        pipe.leave();
        assert_eq!(bell.0.load(Ordering::SeqCst), 1);
        assert!(pipe.is_left() && pipe.poll_empty(&mut task).is_ready());
        assert_eq!(write(&pipe, b"two").unwrap_err().kind(), ErrorKind::BrokenPipe);
    }

    proptest! {
        /// Whatever is written in whatever pieces and taken whenever, the same bytes come out, and never more wait than may.
        #[test]
        fn what_goes_in_comes_out(
            pieces in proptest::collection::vec((proptest::collection::vec(0..9_000_usize, 1..4), any::<bool>()), 0..30),
        ) {
            let (pipe, mut task) = (Pipe::default(), TaskContext::from_waker(Waker::noop()));
            let (mut written, mut taken) = (Vec::new(), Vec::new());
            let mut next = 0_u8;
            let mut take = |taken: &mut Vec<u8>| {
                if let Poll::Ready(Some(bytes)) = pipe.poll_take(&mut task) {
                    assert!(bytes.len() <= CAPACITY);
                    taken.extend_from_slice(&bytes);
                }
            };
            for (lengths, takes) in pieces {
                let slices: Vec<Vec<u8>> = lengths.into_iter().map(|length| {
                    next = next.wrapping_add(1);
                    vec![next; length]
                }).collect();
                let joined = slices.concat();
                let slices: Vec<_> = slices.iter().map(|slice| IoSlice::new(slice)).collect();
                match pipe.try_write(&slices) {
                    Ok(length) => written.extend_from_slice(&joined[..length]),
                    Err(error) => prop_assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
                if takes {
                    take(&mut taken);
                }
            }
            take(&mut taken);
            prop_assert_eq!(written, taken);
        }
    }
}
