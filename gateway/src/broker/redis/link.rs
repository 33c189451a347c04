//! One writing connection while it stands: a pipelined connection of redis-rs over our own stream, so that its end is
//! seen at once. Knows no queue and no rooms.

use std::{
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use futures_util::FutureExt;
use redis::{AsyncConnectionConfig, Pipeline, RedisError, Value, aio::MultiplexedConnection};
use tokio::time::timeout;

use super::{bell::Bell, origin::Origin};

/// Why a connection is over.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    /// The stream broke.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The server refused the login, broke the protocol, or did not answer in time.
    #[error(transparent)]
    Redis(#[from] RedisError),
    /// The stream has ended.
    #[error("the server closed the connection")]
    Closed,
    /// The server is no master, or not any more.
    #[error("the server is a replica: its master is looked for")]
    Demoted,
    /// No answer to the login.
    #[error("the server did not answer within {0:?}")]
    Silent(Duration),
}

/// A connection and the work that moves its bytes, polled by whoever waits for something on it.
pub(super) struct Link {
    connection: MultiplexedConnection,
    driver: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Caller and driver wake each other, and both are polled by the same task.
    bell: Arc<Bell>,
    /// Whether the driver has ended, and with it the connection.
    ended: bool,
    /// Whether the server is one that others have chosen to be the master.
    followed: bool,
}

impl Link {
    /// Connects, logs in, and makes sure that the server answers as one that is ready, and is the master where one of
    /// several is.
    pub(super) async fn open(origin: &Origin, io_timeout: Duration) -> Result<Self, Lost> {
        let target = origin.find().await?;
        let stream = target.dial().await?;
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(io_timeout));
        let made = MultiplexedConnection::new_with_config(target.login(), stream, config);
        let (connection, driver) = timeout(io_timeout, made).await.map_err(|_| Lost::Silent(io_timeout))??;
        let driver: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(driver);
        let followed = origin.is_followed();
        let mut link = Self { connection, driver, bell: Arc::default(), ended: false, followed };
        link.ping().await?;
        if link.followed {
            link.expect_master().await?;
        }
        Ok(link)
    }

    /// Whether this connection is to whoever is the master.
    pub(super) fn is_followed(&self) -> bool {
        self.followed
    }

    /// A server may have ceased to be the master since somebody said that it is.
    async fn expect_master(&mut self) -> Result<(), Lost> {
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline.cmd("ROLE");
        match self.exchange(&pipeline).await?.pop() {
            Some(Value::Array(role)) if !role.first().is_some_and(is_master) => Err(Lost::Demoted),
            // Who may not ask has the word of the sentinels.
            _ => Ok(()),
        }
    }

    /// Lets the connection work until it ends.
    pub(super) async fn ended(&mut self) -> Lost {
        // Whoever polls the driver leaves a waker with it, which the next exchange calls: that has to be the bell's.
        let bell = self.bell.clone();
        bell.attend(self.driven()).await
    }

    /// The same for what the bell attends to already, which knows one task at a time.
    async fn driven(&mut self) -> Lost {
        if !self.ended {
            self.driver.as_mut().await;
            self.ended = true;
        }
        Lost::Closed
    }

    /// Writes a pipeline and gives the answer to each of its commands.
    pub(super) async fn exchange(&mut self, pipeline: &Pipeline) -> Result<Vec<Value>, Lost> {
        let mut connection = self.connection.clone();
        let bell = self.bell.clone();
        let exchanged = async {
            let mut answers = pin!(connection.send_packed_commands(pipeline, 0, pipeline.len()));
            tokio::select! {
                biased;
                answers = &mut answers => Ok(answers?),
                // What the server said before it closed the connection counts still.
                lost = self.driven() => answers.now_or_never().map_or(Err(lost), |answers| Ok(answers?)),
            }
        };
        bell.attend(exchanged).await
    }

    /// Any answer but one about the login or the start of the server is a sign of life.
    pub(super) async fn ping(&mut self) -> Result<(), Lost> {
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline.cmd("PING");
        match self.exchange(&pipeline).await?.pop() {
            Some(Value::ServerError(error)) if matches!(error.code(), "NOAUTH" | "LOADING") => {
                Err(Lost::Redis(error.into()))
            }
            _ => Ok(()),
        }
    }
}

fn is_master(role: &Value) -> bool {
    matches!(role, Value::BulkString(role) if role == b"master")
}

#[cfg(test)]
#[path = "../../../tests/common/redis.rs"]
mod server;

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        task::{Context, Wake, Waker},
    };

    use super::{
        super::{RedisOptions, dial::Target},
        server::RedisServer,
        *,
    };

    const PATIENCE: Duration = Duration::from_secs(20);

    /// Counts how often a task would have been scheduled.
    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// On one thread nothing arrives between two polls, so that whatever calls the task is the task itself.
    #[tokio::test]
    async fn an_exchange_after_an_idle_time_does_not_schedule_its_own_task() {
        let server = RedisServer::start();
        let url = server.url();
        let info = redis::IntoConnectionInfo::into_connection_info(url.as_str()).unwrap();
        let target = Target::new(info, &RedisOptions::new(url)).unwrap();
        let mut link = Link::open(&Origin::Server(Box::new(target)), PATIENCE).await.unwrap();
        let task = Arc::new(Task::default());
        let waker = Waker::from(task.clone());
        let mut context = Context::from_waker(&waker);
        assert!(pin!(link.ended()).poll(&mut context).is_pending(), "the connection is idle");

        let mut pipeline = Pipeline::with_capacity(1);
        pipeline.cmd("PING");
        let mut exchange = pin!(link.exchange(&pipeline));
        assert!(exchange.as_mut().poll(&mut context).is_pending(), "the answer is on its way");
        assert_eq!(task.0.load(Ordering::SeqCst), 0, "the task is not scheduled");
        let answered = timeout(PATIENCE, exchange).await.expect("it is answered").unwrap();
        assert_eq!(answered, [Value::SimpleString("PONG".to_owned())]);
    }
}
