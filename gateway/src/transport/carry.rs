//! What every connection that carries a session does alike: write what waits, keep the time, and say the last words. Knows
//! sockets by what they can do.

use std::{
    future::Future,
    pin::Pin,
    task::{Context as TaskContext, Poll, ready},
};

use roomcast_shared::protocol::code::Disconnect;
use tokio::time::{Instant, Sleep};

use super::end::End;
use crate::{
    hub::{Outbox, Sink},
    session::Session,
};

/// A way to a client that tells its task when it takes bytes again.
pub(super) trait Socket: Sink {
    /// Ready when bytes may be taken again, or the way is broken, which the next write shows.
    fn poll_writable(&self, task: &mut TaskContext<'_>) -> Poll<()>;
}

/// Writes what waits, hands the session what it is told, and sees whether the connection was asked to end.
pub(super) fn attend<S: Socket>(
    outbox: &Outbox<S>,
    session: &mut Session,
    task: &mut TaskContext<'_>,
) -> Result<(), End> {
    loop {
        let attention = outbox.attend(task);
        if attention.broken {
            return Err(End::Gone);
        }
        if let Some(disconnect) = attention.close {
            return Err(End::Close(disconnect));
        }
        if attention.mail {
            session.take_mail(outbox.take_mail())?;
            continue;
        }
        if !attention.waiting {
            return Ok(());
        }
        match outbox.socket().poll_writable(task) {
            Poll::Pending => return Ok(()),
            Poll::Ready(()) => outbox.drain().map_err(|_| End::Gone)?,
        };
    }
}

/// Does what is due, and sets the timer to what is due next.
pub(super) fn keep_time(
    session: &mut Session,
    timer: &mut Pin<Box<Sleep>>,
    task: &mut TaskContext<'_>,
) -> Result<(), Disconnect> {
    loop {
        let deadline = session.deadline();
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        if timer.as_mut().poll(task).is_pending() {
            return Ok(());
        }
        session.tick(Instant::now())?;
    }
}

/// Writes what waits after the last words were said, until the timer fires. Ready with whether all of it went out.
pub(super) fn poll_flush<S: Socket>(
    outbox: &Outbox<S>,
    timer: &mut Pin<Box<Sleep>>,
    task: &mut TaskContext<'_>,
) -> Poll<bool> {
    loop {
        let attention = outbox.attend(task);
        if attention.broken {
            return Poll::Ready(false);
        }
        if !attention.waiting {
            return Poll::Ready(true);
        }
        if timer.as_mut().poll(task).is_ready() {
            return Poll::Ready(false);
        }
        ready!(outbox.socket().poll_writable(task));
        if outbox.drain().is_err() {
            return Poll::Ready(false);
        }
    }
}
