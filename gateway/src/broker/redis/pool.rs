//! A few connections for what may wait: health checks and the reads of the server API. Each checkout pays a `PING`, so
//! nothing that clients wait for goes this way.

use std::time::{Duration, Instant};

use deadpool_redis::{
    Manager, Pool, PoolConfig, PoolError, Runtime, Timeouts,
    redis::{AsyncConnectionConfig, Client, RedisError, TlsCertificates},
};
use redis::ConnectionAddr;

use super::{BrokerError, ConfigError, RedisOptions, dial::Target};

/// Connections at most.
const SIZE: usize = 4;

/// A pool that connects when it is first asked.
pub(super) fn pool(options: &RedisOptions, target: &Target) -> Result<Pool, ConfigError> {
    let invalid = |error: RedisError| ConfigError::Url(error.to_string());
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
    let built = Pool::builder(manager).config(config).runtime(Runtime::Tokio1).build();
    Ok(built.expect("timeouts are given together with a runtime"))
}

/// The time of one round trip to Redis, its wait for a connection left aside.
pub(super) async fn ping(pool: &Pool, io_timeout: Duration) -> Result<Duration, BrokerError> {
    let mut connection = pool.get().await.map_err(|error| explain(&error, io_timeout))?;
    let begin = Instant::now();
    let ponged = redis::cmd("PING").exec_async(&mut connection).await;
    ponged.map_err(|error| explain(&PoolError::Backend(error), io_timeout))?;
    Ok(begin.elapsed())
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
