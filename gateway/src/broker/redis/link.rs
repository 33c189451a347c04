//! One publishing connection while it stands: a pipelined connection of redis-rs over our own stream, so that its end is
//! seen at once. Knows no queue and no rooms.

use std::{
    pin::{Pin, pin},
    time::Duration,
};

use futures_util::FutureExt;
use redis::{AsyncConnectionConfig, Pipeline, RedisError, Value, aio::MultiplexedConnection};
use tokio::time::timeout;

use super::dial::Target;

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
    /// No answer to the login.
    #[error("the server did not answer within {0:?}")]
    Silent(Duration),
}

/// A connection and the work that moves its bytes, polled by whoever waits for something on it.
pub(super) struct Link {
    connection: MultiplexedConnection,
    driver: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Whether the driver has ended, and with it the connection.
    ended: bool,
    /// How the server knows this connection, if it says so.
    pub(super) identity: Option<Identity>,
}

/// A connection as the server knows it.
#[derive(PartialEq)]
pub(super) struct Identity {
    /// The server's run: numbers of connections begin anew with the next.
    run: Vec<u8>,
    connection: i64,
}

impl Link {
    /// Connects, logs in, makes sure that the server answers as one that is ready, and ends the connection before.
    pub(super) async fn open(target: &Target, io_timeout: Duration, previous: Option<&Identity>) -> Result<Self, Lost> {
        let stream = target.dial().await?;
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(io_timeout));
        let made = MultiplexedConnection::new_with_config(target.login(), stream, config);
        let (connection, driver) = timeout(io_timeout, made).await.map_err(|_| Lost::Silent(io_timeout))??;
        let mut link = Self { connection, driver: Box::pin(driver), ended: false, identity: None };
        link.ping().await?;
        link.identify().await?;
        link.succeed(previous).await?;
        Ok(link)
    }

    /// Lets the connection work until it ends.
    pub(super) async fn ended(&mut self) -> Lost {
        if !self.ended {
            self.driver.as_mut().await;
            self.ended = true;
        }
        Lost::Closed
    }

    /// Writes a pipeline and gives the answer to each of its commands.
    pub(super) async fn exchange(&mut self, pipeline: &Pipeline) -> Result<Vec<Value>, Lost> {
        let mut connection = self.connection.clone();
        let mut answers = pin!(connection.send_packed_commands(pipeline, 0, pipeline.len()));
        tokio::select! {
            biased;
            answers = &mut answers => Ok(answers?),
            // What the server said before it closed the connection counts still.
            lost = self.ended() => answers.now_or_never().map_or(Err(lost), |answers| Ok(answers?)),
        }
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

    /// Learns how the server knows this connection; a user that may not ask goes without.
    async fn identify(&mut self) -> Result<(), Lost> {
        let mut pipeline = Pipeline::with_capacity(2);
        pipeline.cmd("CLIENT").arg("ID").cmd("INFO").arg("server");
        let answers = self.exchange(&pipeline).await?;
        if let [Value::Int(connection), Value::BulkString(info)] = answers.as_slice() {
            let run = info.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"run_id:"));
            self.identity = run.map(|run| Identity { run: run.to_vec(), connection: *connection });
        }
        Ok(())
    }

    /// Ends the connection before this one at the server. What was written to it and not yet read would otherwise come
    /// between, or after, what is written to this one: out of order, and long after it was answered with an error.
    async fn succeed(&mut self, previous: Option<&Identity>) -> Result<(), Lost> {
        let same_run = |previous: &&Identity| self.identity.as_ref().is_some_and(|now| now.run == previous.run);
        if let Some(Identity { connection, .. }) = previous.filter(same_run) {
            let mut pipeline = Pipeline::with_capacity(1);
            pipeline.cmd("CLIENT").arg("KILL").arg("ID").arg(*connection);
            self.exchange(&pipeline).await?;
        }
        Ok(())
    }
}
