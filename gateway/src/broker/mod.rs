//! What ties nodes together: the contracts a broker keeps, and the values they speak in. A broker hands what arrives to
//! the hub, tells it when something may be missing, and knows no sessions and no sockets.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use roomcast_shared::event::Event;

pub mod control;
pub mod history;
pub mod memory;
pub mod presence;
pub mod redis;

pub use control::{Control, Ear};
pub use history::{Append, Appended, History, Keep, Page, Slice};
pub use presence::{Count, Members, Presence};

/// Publish and subscribe across nodes.
///
/// Order: what one caller publishes to one room is heard by every subscribed node in that order, the publisher's own node
/// included, exactly once while the broker is heard. Without history a room is at most once across a lost connection.
pub trait PubSub: Send + Sync + 'static {
    /// Publishes to everybody in the room on every node. Calls for a room take effect in the order they are made; the answer comes
    /// when the broker has taken the event. [`BrokerError`] means: not known to be published.
    fn publish(&self, room: &str, event: Event) -> Answer<()>;

    /// Asks that publications of the room be delivered to this node. Takes effect in the order of calls (also against
    /// [`PubSub::unsubscribe`]). The answer comes when the broker has confirmed it on the present connection: at once where
    /// the room is confirmed already, after a reconnect where the connection is lost.
    fn subscribe(&self, room: &Arc<str>) -> Answer<()>;

    /// Ends what [`PubSub::subscribe`] began; those who still wait for it are answered with [`BrokerError::Cancelled`].
    fn unsubscribe(&self, room: &str);

    /// Waits until publications that were answered before this call, and are heard here, have been handed to the hub of this
    /// node. Known at once where that is so in any case; a connection that is lost meanwhile ends the wait.
    fn caught_up(&self) -> Answer<()>;

    /// How long the broker takes to answer at present; asked on a connection of its own, so that nothing waits behind it.
    fn round_trip(&self) -> Answer<Duration>;

    /// Whether every subscribed room is heard at present.
    fn health(&self) -> Health;
}

/// Everything that ties nodes together, each part behind its contract.
#[derive(Clone)]
pub struct Broker {
    /// Publish and subscribe.
    pub pubsub: Arc<dyn PubSub>,
    /// What rooms remember.
    pub history: Arc<dyn History>,
    /// Who is where.
    pub presence: Arc<dyn Presence>,
    /// What nodes say to each other.
    pub control: Arc<dyn Control>,
}

impl Broker {
    /// One that keeps every contract itself.
    pub fn of<B: PubSub + History + Presence + Control>(broker: Arc<B>) -> Self {
        Self { pubsub: broker.clone(), history: broker.clone(), presence: broker.clone(), control: broker }
    }
}

/// What a call comes to: known at once, or later.
pub enum Answer<T> {
    /// Known without waiting.
    Now(Result<T, BrokerError>),
    /// Known when the broker has answered; at the latest after the broker's timeout, and for a publish that first waits to
    /// be written at the latest after twice that.
    Later(Pin<Box<dyn Future<Output = Result<T, BrokerError>> + Send>>),
}

impl<T: 'static> Answer<T> {
    /// What `change` makes of the answer, when it is there.
    pub fn map<U>(self, change: impl FnOnce(T) -> U + Send + 'static) -> Answer<U> {
        match self {
            Self::Now(result) => Answer::Now(result.map(change)),
            Self::Later(future) => Answer::Later(Box::pin(async move { future.await.map(change) })),
        }
    }
    /// Waits for what the call comes to.
    pub async fn wait(self) -> Result<T, BrokerError> {
        match self {
            Self::Now(result) => result,
            Self::Later(future) => future.await,
        }
    }
}

/// Why a broker call failed. To a client each of them is error 100, which it may try again.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum BrokerError {
    /// The call was not written to the broker: too many calls, or bytes, wait to be written already.
    #[error("{0} calls wait to be written to the broker already, as many as may")]
    Overloaded(usize),
    /// No answer came in time.
    #[error("the broker did not answer within {0:?}")]
    Timeout(Duration),
    /// The connection broke after the call was written: whether it took effect is not known.
    #[error("the connection to the broker broke before it answered")]
    Disconnected,
    /// The broker refused the call.
    #[error("the broker refused: {0}")]
    Refused(String),
    /// The caller's own node withdrew the call.
    #[error("withdrawn")]
    Cancelled,
}

/// Whether the broker is heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Never connected since the start.
    Starting,
    /// Connected, and every room is subscribed on this connection.
    Hearing,
    /// Not connected, or rooms are still being subscribed again.
    Lost {
        /// When the connection was lost.
        since: Instant,
    },
}
