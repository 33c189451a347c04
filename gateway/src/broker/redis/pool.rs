//! A few connections for what may wait: health checks and the reads of the server API. Each checkout pays a `PING`, so
//! nothing that clients wait for goes this way.

use std::time::{Duration, Instant};

use deadpool_redis::{
    Manager, PoolConfig, PoolError, Runtime, Timeouts,
    redis::{AsyncConnectionConfig, Client, RedisError, TlsCertificates},
};
use parking_lot::Mutex;
use redis::ConnectionAddr;

use super::{BrokerError, ConfigError, RedisOptions, dial::Target, link::Lost, origin::Origin};

/// Connections at most.
const SIZE: usize = 4;

/// Connections to whomever the origin leads to, made when they are first asked for.
pub(super) struct Pool {
    options: RedisOptions,
    origin: Origin,
    /// The server of the moment.
    current: Mutex<Option<(String, deadpool_redis::Pool)>>,
}

impl Pool {
    pub(super) fn new(options: &RedisOptions, origin: Origin) -> Result<Self, ConfigError> {
        let made = origin.server().map(|target| Ok((target.to_string(), pool(options, target)?))).transpose()?;
        Ok(Self { options: options.clone(), origin, current: Mutex::new(made) })
    }

    /// The time of one round trip to Redis, its wait for a connection left aside.
    pub(super) async fn ping(&self, io_timeout: Duration) -> Result<Duration, BrokerError> {
        let target = self.origin.find().await.map_err(|lost| match lost {
            Lost::Silent(patience) => BrokerError::Timeout(patience),
            _ => BrokerError::Disconnected,
        })?;
        let pool = self.at(&target).map_err(|error| BrokerError::Refused(error.to_string()))?;
        let mut connection = pool.get().await.map_err(|error| explain(&error, io_timeout))?;
        let begin = Instant::now();
        let ponged = redis::cmd("PING").exec_async(&mut connection).await;
        ponged.map_err(|error| explain(&PoolError::Backend(error), io_timeout))?;
        Ok(begin.elapsed())
    }

    fn at(&self, target: &Target) -> Result<deadpool_redis::Pool, ConfigError> {
        let address = target.to_string();
        let mut current = self.current.lock();
        match &*current {
            Some((known, pool)) if *known == address => Ok(pool.clone()),
            _ => {
                let made = pool(&self.options, target)?;
                *current = Some((address, made.clone()));
                Ok(made)
            }
        }
    }

    pub(super) fn close(&self) {
        if let Some((_, pool)) = self.current.lock().take() {
            pool.close();
        }
    }
}

fn pool(options: &RedisOptions, target: &Target) -> Result<deadpool_redis::Pool, ConfigError> {
    let invalid = |error: RedisError| ConfigError::Url(format!("cannot be used: {error}"));
    let mut info = target.info().clone();
    if let (ConnectionAddr::TcpTls { .. }, Some(pem)) = (info.addr(), &options.authority_pem) {
        let trust = TlsCertificates { client_tls: None, root_cert: Some(pem.clone()) };
        info = Client::build_with_tls(info, trust).map_err(invalid)?.get_connection_info().clone();
    }
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(options.connect_timeout))
        .set_response_timeout(Some(options.io_timeout));
    let manager = Manager::new_with_config(info, config).map_err(invalid)?;
    let patience = Some(options.io_timeout);
    let timeouts = Timeouts { wait: patience, create: patience, recycle: patience };
    let config = PoolConfig { max_size: SIZE, timeouts, ..PoolConfig::default() };
    let built = deadpool_redis::Pool::builder(manager).config(config).runtime(Runtime::Tokio1).build();
    Ok(built.expect("timeouts are given together with a runtime"))
}

fn explain(error: &PoolError, io_timeout: Duration) -> BrokerError {
    match error {
        PoolError::Timeout(_) => BrokerError::Timeout(io_timeout),
        PoolError::Backend(error) if error.is_timeout() => BrokerError::Timeout(io_timeout),
        PoolError::Backend(error) if error.is_io_error() => BrokerError::Disconnected,
        PoolError::Closed => BrokerError::Cancelled,
        other => BrokerError::Refused(other.to_string()),
    }
}
