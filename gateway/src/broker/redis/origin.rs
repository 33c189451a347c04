//! Whom a link leads to: a server, or whoever is the master of a service at present, which sentinels know. Knows no
//! connection of its own and no commands.

use std::{fmt, sync::Arc, time::Duration};

use redis::{
    ConnectionAddr, ConnectionInfo, RedisConnectionInfo, RedisError, TlsCertificates, TlsMode,
    sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType},
};
use tokio::time::timeout;

use super::{ConfigError, RedisOptions, dial::Target, link::Lost};

/// Whom a link leads to.
#[derive(Clone)]
pub(super) enum Origin {
    /// Always the same server.
    Server(Box<Target>),
    /// The master of a service.
    Service(Arc<Service>),
}

/// A master and its replicas under a name, watched by sentinels.
pub(super) struct Service {
    name: String,
    sentinels: Vec<ConnectionInfo>,
    login: RedisConnectionInfo,
    authority_pem: Option<Vec<u8>>,
    /// What is alike of every server of the service.
    model: Target,
    patience: Duration,
}

impl Origin {
    /// The master of a service.
    pub(super) fn service(
        name: String,
        sentinels: Vec<ConnectionInfo>,
        login: RedisConnectionInfo,
        options: &RedisOptions,
    ) -> Result<Self, ConfigError> {
        let first = sentinels.first().ok_or_else(|| ConfigError::Url("names no sentinel".to_owned()))?;
        let model = Target::new(first.clone().set_redis_settings(login.clone()), options)?;
        let (authority_pem, patience) = (options.authority_pem.clone(), options.connect_timeout + options.io_timeout);
        let service = Service { name, sentinels, login, authority_pem, model, patience };
        service.client().map_err(|error| ConfigError::Url(format!("cannot be used: {error}")))?;
        Ok(Self::Service(Arc::new(service)))
    }

    /// The server to connect to now.
    pub(super) async fn find(&self) -> Result<Target, Lost> {
        match self {
            Self::Server(target) => Ok((**target).clone()),
            Self::Service(service) => service.master().await,
        }
    }

    /// The server, where it is always the same.
    pub(super) fn server(&self) -> Option<&Target> {
        if let Self::Server(target) = self { Some(target) } else { None }
    }

    /// Whether the server is one that others choose.
    pub(super) fn is_followed(&self) -> bool {
        matches!(self, Self::Service(_))
    }
}

impl Service {
    /// Asks one sentinel after the other; the server that is named has to say itself that it is the master.
    async fn master(&self) -> Result<Target, Lost> {
        let mut client = self.client()?;
        let found = timeout(self.patience, client.async_get_client()).await;
        let found = found.map_err(|_| Lost::Silent(self.patience))??;
        match found.get_connection_info().addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                Ok(self.model.at(host, *port))
            }
            _ => Err(Lost::Closed),
        }
    }

    fn client(&self) -> Result<SentinelClient, RedisError> {
        let addresses = self.sentinels.iter().map(|sentinel| sentinel.addr().clone());
        let mut builder = SentinelClientBuilder::new(addresses, &self.name, SentinelServerType::Master)?;
        builder = builder.set_client_to_redis_db(self.login.db());
        if let Some(user) = self.login.username() {
            builder = builder.set_client_to_redis_username(user);
        }
        if let Some(password) = self.login.password() {
            builder = builder.set_client_to_redis_password(password);
        }
        let login = self.sentinels[0].redis_settings();
        if let Some(user) = login.username() {
            builder = builder.set_client_to_sentinel_username(user);
        }
        if let Some(password) = login.password() {
            builder = builder.set_client_to_sentinel_password(password);
        }
        if let ConnectionAddr::TcpTls { .. } = self.sentinels[0].addr() {
            builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
            if let Some(pem) = &self.authority_pem {
                let trust = || TlsCertificates { client_tls: None, root_cert: Some(pem.clone()) };
                builder =
                    builder.set_client_to_redis_certificates(trust()).set_client_to_sentinel_certificates(trust());
            }
        }
        builder.build()
    }
}

/// Without passwords.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(target) => target.fmt(f),
            Self::Service(service) => {
                let sentinels: Vec<_> = service.sentinels.iter().map(|sentinel| sentinel.addr().to_string()).collect();
                write!(f, "{} at sentinels {}", service.name, sentinels.join(", "))
            }
        }
    }
}
