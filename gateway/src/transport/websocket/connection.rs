//! The task of one WebSocket connection: moves bytes between the socket and the session, and sees to a proper end. While a
//! client is idle it holds no buffer. Knows no commands.

use std::{
    cell::RefCell,
    future::Future,
    io::{self, IoSlice, Read},
    net::Shutdown,
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll, ready},
};

use socket2::SockRef;
use tokio::{
    io::Interest,
    net::TcpStream,
    time::{Duration, Instant, Sleep, sleep_until},
};

use super::{
    super::{carry, end::End},
    frame::{Event, Reader},
};
use crate::{
    hub::{Opcode, Outbox, Sink, put_frame_header},
    session::{Admission, Context, Place, Session},
};

/// What one read takes from a socket at most; a buffer of this size is shared by all connections of a thread.
const READ: usize = 64 * 1024;

/// How long a client has to answer a close frame (RFC 6455, section 7.1.1).
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// Reads of one poll at most, so that a client that never stops leaves the thread to others.
const READS: usize = 4;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ].into());
}

/// The socket, as the outbox writes it.
struct Socket(TcpStream);

impl Sink for Socket {
    fn try_write(&self, bytes: &[IoSlice<'_>]) -> io::Result<usize> {
        match bytes {
            [bytes] => self.0.try_write(bytes),
            bytes => self.0.try_write_vectored(bytes),
        }
    }
}

impl carry::Socket for Socket {
    fn poll_writable(&self, task: &mut TaskContext<'_>) -> Poll<()> {
        self.0.poll_write_ready(task).map(|_| ())
    }
}

/// One connection: the future that owns its socket and its session.
pub(super) struct Connection {
    outbox: Arc<Outbox<Socket>>,
    phase: Phase,
    reader: Reader,
    /// What was read of a frame that is not whole yet, or cannot be taken yet.
    partial: Vec<u8>,
    timer: Pin<Box<Sleep>>,
    write_timeout: Duration,
    _place: Place,
}

enum Phase {
    Open(Box<Session>),
    /// The last words are being written, until the timer fires at the latest.
    Flushing {
        /// The client closed first, so that nothing more is to be read.
        client_closed: bool,
    },
    /// They are written, and the client's close frame or the end of its stream is awaited.
    Lingering,
}

impl Connection {
    /// A connection over a socket on which the handshake is done; `read` is what came after it already.
    pub(super) fn new(
        stream: TcpStream,
        read: &[u8],
        context: &Arc<Context>,
        admission: Admission,
        place: Place,
    ) -> Self {
        let settings = &context.settings;
        let outbox = Arc::new(Outbox::new(Socket(stream), settings.client.queue_max_size));
        let deflate = admission.wire.is_deflated();
        let session = Session::new(context.clone(), outbox.clone(), admission);
        Self {
            timer: Box::pin(sleep_until(session.deadline())),
            outbox,
            phase: Phase::Open(Box::new(session)),
            reader: Reader::new(settings.websocket.message_size_limit, deflate),
            partial: read.to_vec(),
            write_timeout: settings.websocket.write_timeout,
            _place: place,
        }
    }

    /// Has the session take what the client said by the handshake itself.
    pub(super) fn receive(&mut self, message: &[u8]) {
        if let Phase::Open(session) = &mut self.phase
            && let Err(disconnect) = session.receive(message)
        {
            self.outbox.close(disconnect);
        }
    }

    fn poll_open(&mut self, task: &mut TaskContext<'_>) -> Poll<End> {
        // What came with the handshake, or could not be taken before, comes first.
        if !self.partial.is_empty()
            && let Err(end) = self.take_partial()
        {
            return Poll::Ready(end);
        }
        for _ in 0..READS {
            let Phase::Open(session) = &mut self.phase else { return Poll::Pending };
            if let Err(end) = carry::attend(&self.outbox, session, task) {
                return Poll::Ready(end);
            }
            let was_blocked = session.is_blocked();
            if let Poll::Ready(disconnect) = session.poll_pending(task) {
                return Poll::Ready(disconnect.into());
            }
            if was_blocked && !session.is_blocked() {
                if let Err(end) = self.take_partial() {
                    return Poll::Ready(end);
                }
                // What began by this has to be polled, or nobody is told when it is done.
                continue;
            }
            if let Err(disconnect) = carry::keep_time(session, &mut self.timer, task) {
                return Poll::Ready(disconnect.into());
            }
            if self.is_blocked() {
                return Poll::Pending;
            }
            let readable = ready!(self.outbox.socket().0.poll_read_ready(task));
            if let Err(end) = readable.map_err(|_| End::Gone).and_then(|()| self.read()) {
                return Poll::Ready(end);
            }
        }
        task.waker().wake_by_ref();
        Poll::Pending
    }

    fn is_blocked(&self) -> bool {
        matches!(&self.phase, Phase::Open(session) if session.is_blocked())
    }

    /// Reads once and takes what came.
    fn read(&mut self) -> Result<(), End> {
        BUFFER.with_borrow_mut(|buffer| match self.outbox.socket().read(buffer) {
            Ok(0) => Err(End::Gone),
            Ok(length) if self.partial.is_empty() => self.take(&mut buffer[..length]),
            Ok(length) => {
                self.partial.extend_from_slice(&buffer[..length]);
                self.take_partial()
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(_) => Err(End::Gone),
        })
    }

    fn take_partial(&mut self) -> Result<(), End> {
        let mut bytes = std::mem::take(&mut self.partial);
        let taken = self.take_frames(&mut bytes)?;
        if taken < bytes.len() {
            bytes.drain(..taken);
            self.partial = bytes;
        }
        Ok(())
    }

    /// Takes frames from a buffer that others use as well: what is not whole is copied.
    fn take(&mut self, bytes: &mut [u8]) -> Result<(), End> {
        let taken = self.take_frames(bytes)?;
        self.partial.extend_from_slice(&bytes[taken..]);
        Ok(())
    }

    /// Takes as many whole frames as the session wants, and says how many bytes they had.
    fn take_frames(&mut self, bytes: &mut [u8]) -> Result<usize, End> {
        // Pongs to pings that came together leave in one write: a client that only pings must not cost a system call for each.
        let mut pongs = Vec::new();
        let taken = self.take_each(bytes, &mut pongs);
        if !pongs.is_empty() {
            self.outbox.write(&pongs);
        }
        taken
    }

    fn take_each(&mut self, bytes: &mut [u8], pongs: &mut Vec<u8>) -> Result<usize, End> {
        let mut taken = 0;
        let Phase::Open(session) = &mut self.phase else { return Ok(0) };
        while !session.is_blocked() {
            let Some((size, event)) = self.reader.read(&mut bytes[taken..])? else { break };
            taken += size;
            match event {
                None => {}
                Some(Event::Message(_, message)) => {
                    if !pongs.is_empty() {
                        self.outbox.write(pongs);
                        pongs.clear();
                    }
                    session.receive(message)?;
                    self.reader.forget_message();
                }
                Some(Event::Ping(payload)) => {
                    put_frame_header(Opcode::Pong, payload.len(), pongs);
                    pongs.extend_from_slice(payload);
                }
                Some(Event::Pong) => session.transport_pong(),
                Some(Event::Close(code)) => return Err(End::ByClient(code)),
            }
        }
        Ok(taken)
    }

    /// Ends the session, and says the last words if there is somebody to hear them.
    fn finish(&mut self, end: &End) {
        let client_closed = !matches!(end, End::Close(_));
        let Phase::Open(session) = std::mem::replace(&mut self.phase, Phase::Flushing { client_closed }) else {
            return;
        };
        // Said before the session leaves: whatever a room still has for it comes too late then.
        match end.last_words(session.wire()) {
            Some(last) => self.outbox.finish(last),
            None => self.outbox.abort(),
        }
        let until = Instant::now() + self.write_timeout;
        end.close(*session);
        self.partial = Vec::new();
        self.timer.as_mut().reset(until);
    }

    fn poll_flush(&mut self, client_closed: bool, task: &mut TaskContext<'_>) -> Poll<()> {
        if !ready!(carry::poll_flush(&self.outbox, &mut self.timer, task)) {
            return Poll::Ready(());
        }
        let ended = SockRef::from(&self.outbox.socket().0).shutdown(Shutdown::Write);
        if client_closed || ended.is_err() {
            return Poll::Ready(());
        }
        self.phase = Phase::Lingering;
        self.timer.as_mut().reset(Instant::now() + CLOSE_PATIENCE);
        self.poll_linger(task)
    }

    /// Reads on until the client has closed as well: closing with something unread would take the last words back.
    fn poll_linger(&mut self, task: &mut TaskContext<'_>) -> Poll<()> {
        loop {
            if self.timer.as_mut().poll(task).is_ready() {
                return Poll::Ready(());
            }
            if ready!(self.outbox.socket().0.poll_read_ready(task)).is_err() {
                return Poll::Ready(());
            }
            let read = BUFFER.with_borrow_mut(|buffer| self.outbox.socket().read(buffer));
            match read {
                Ok(0) => return Poll::Ready(()),
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Poll::Ready(()),
                _ => {}
            }
        }
    }
}

impl Future for Connection {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<()> {
        let this = &mut *self;
        if let Phase::Open(_) = this.phase {
            let end = ready!(this.poll_open(task));
            this.finish(&end);
        }
        match this.phase {
            Phase::Flushing { client_closed } => this.poll_flush(client_closed, task),
            Phase::Lingering => this.poll_linger(task),
            Phase::Open(_) => Poll::Pending,
        }
    }
}

impl Socket {
    /// Reads what is there. A read that does not fill the buffer leaves the socket empty, which saves asking it once more:
    /// what comes later is announced anew.
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut length = 0;
        let room = buffer.len();
        let result = self.0.try_io(Interest::READABLE, || {
            length = (&*SockRef::from(&self.0)).read(buffer)?;
            if length > 0 && length < room { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        match result {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && length > 0 => Ok(length),
            result => result.map(|()| length),
        }
    }
}
