//! The task of one streamed response: carries a session towards a client that cannot speak over the same connection. A task of
//! its own, because the server asks a body for more only while the client reads: a client that does not has to be pinged and
//! ended all the same. Knows no commands.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll, ready},
};

use bytes::Bytes;
use tokio::time::{Duration, Instant, Sleep, sleep_until};

use super::{
    super::{carry, end::End, hangup::Hangup},
    pipe::{Pipe, Stream},
};
use crate::{
    hub::{Outbox, Wire},
    session::{Admission, Context, Place, Session},
};

/// How long the rest of an ended response may take to reach the client.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// One streamed response: the future that owns its session.
pub(super) struct Connection {
    outbox: Arc<Outbox<Pipe>>,
    wire: Wire,
    phase: Phase,
    timer: Pin<Box<Sleep>>,
    write_timeout: Duration,
    hangup: Hangup,
    _place: Place,
}

enum Phase {
    /// The client has been let in, and this is what it said with its request.
    Fresh(Box<Session>, Bytes),
    Open(Box<Session>),
    /// The last words are on their way, until the timer fires at the latest.
    Flushing,
}

impl Connection {
    /// A connection and the body of its response. `first` is what the client said with its request, `hangup` ends the HTTP
    /// connection.
    pub(super) fn new(
        context: &Arc<Context>,
        admission: Admission,
        first: Bytes,
        hangup: Hangup,
        place: Place,
    ) -> (Self, Stream) {
        let settings = &context.settings;
        let wire = admission.wire;
        let outbox = Arc::new(Outbox::new(Pipe::default(), settings.client.queue_max_size));
        let session = Session::new(context.clone(), outbox.clone(), admission);
        let body = Stream::new(outbox.clone());
        let connection = Self {
            timer: Box::pin(sleep_until(session.deadline())),
            outbox,
            wire,
            phase: Phase::Fresh(Box::new(session), first),
            write_timeout: settings.websocket.write_timeout,
            hangup,
            _place: place,
        };
        (connection, body)
    }

    /// Says something that is no message, before all messages.
    pub(super) fn preface(&self, bytes: &[u8]) {
        self.outbox.write(bytes);
    }

    fn poll_open(&mut self, task: &mut TaskContext<'_>) -> Poll<End> {
        self.begin().and_then(|()| self.go_on(task)).map_or_else(Poll::Ready, |()| Poll::Pending)
    }

    /// Has the session take what the client said first.
    fn begin(&mut self) -> Result<(), End> {
        match std::mem::replace(&mut self.phase, Phase::Flushing) {
            Phase::Fresh(mut session, first) => {
                let taken = session.receive(&first);
                self.phase = Phase::Open(session);
                taken.map_err(End::from)
            }
            phase => {
                self.phase = phase;
                Ok(())
            }
        }
    }

    /// Takes commands and goes on with those that were answered, writes, and does what is due.
    fn go_on(&mut self, task: &mut TaskContext<'_>) -> Result<(), End> {
        let Phase::Open(session) = &mut self.phase else { return Ok(()) };
        carry::attend(&self.outbox, session, task)?;
        if let Poll::Ready(disconnect) = session.poll_pending(task) {
            return Err(disconnect.into());
        }
        Ok(carry::keep_time(session, &mut self.timer, task)?)
    }

    /// Ends the session, and says the last words if there is somebody to hear them.
    fn finish(&mut self, end: End) {
        // A response that the server has let go of is how a client leaves here.
        let end = if self.outbox.socket().is_left() { End::ByClient(None) } else { end };
        // Said before the session leaves: whatever a room still has for it comes too late then.
        match end.last_words(self.wire) {
            Some(last) => self.outbox.finish(last),
            None => self.outbox.abort(),
        }
        if let Phase::Open(session) = std::mem::replace(&mut self.phase, Phase::Flushing) {
            end.close(*session);
        }
        self.timer.as_mut().reset(Instant::now() + self.write_timeout);
    }

    /// Waits until the server has taken everything, and sees to the end of the HTTP connection.
    fn poll_flush(&mut self, task: &mut TaskContext<'_>) -> Poll<()> {
        let flushed = ready!(carry::poll_flush(&self.outbox, &mut self.timer, task));
        if flushed && self.outbox.socket().poll_empty(task).is_pending() {
            ready!(self.timer.as_mut().poll(task));
        }
        let taken = self.outbox.socket().poll_empty(task).is_ready();
        self.outbox.socket().end();
        self.hangup.within(if taken { CLOSE_PATIENCE } else { Duration::ZERO });
        Poll::Ready(())
    }
}

impl Future for Connection {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<()> {
        let this = &mut *self;
        if !matches!(this.phase, Phase::Flushing) {
            let end = ready!(this.poll_open(task));
            this.finish(end);
        }
        this.poll_flush(task)
    }
}
