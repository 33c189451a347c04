//! A server and how to reach it: TCP, TLS or a unix socket. Knows no commands.

use std::{fmt, io, sync::Arc, time::Duration};

use redis::{ConnectionAddr, ConnectionInfo, RedisConnectionInfo};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{ConfigError, RedisOptions};

/// A byte stream to Redis.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Where a server is, and as whom to speak to it. Shows itself without the password.
#[derive(Clone)]
pub(super) struct Target {
    info: ConnectionInfo,
    tls: Option<Arc<ClientConfig>>,
    connect_timeout: Duration,
}

impl Target {
    /// A server, and the certificates to trust where TLS is spoken to it.
    pub(super) fn new(info: ConnectionInfo, options: &RedisOptions) -> Result<Self, ConfigError> {
        let tls = match info.addr() {
            ConnectionAddr::TcpTls { .. } => Some(Arc::new(client_config(options.authority_pem.as_deref())?)),
            _ => None,
        };
        Ok(Self { info, tls, connect_timeout: options.connect_timeout })
    }

    /// The same at another address: over TLS where this one is.
    pub(super) fn at(&self, host: &str, port: u16) -> Self {
        let mut addr = self.info.addr().clone();
        match &mut addr {
            ConnectionAddr::TcpTls { host: old_host, port: old_port, .. } => {
                host.clone_into(old_host);
                *old_port = port;
            }
            other => *other = ConnectionAddr::Tcp(host.to_owned(), port),
        }
        Self { info: self.info.clone().set_addr(addr), ..self.clone() }
    }

    /// The same at an address that this server gave, `host:port`, which leaves out the host where that is its own.
    pub(super) fn neighbour(&self, address: &str) -> Option<Self> {
        let (host, port) = address.rsplit_once(':')?;
        let host = if host.is_empty() || host == "?" { self.host()? } else { host };
        Some(self.at(host, port.parse().ok()?))
    }

    /// The name of the host, where there is one.
    pub(super) fn host(&self) -> Option<&str> {
        match self.info.addr() {
            ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => Some(host),
            _ => None,
        }
    }

    /// User, password and database.
    pub(super) fn login(&self) -> &RedisConnectionInfo {
        self.info.redis_settings()
    }

    /// All of it, as redis-rs wants it.
    pub(super) fn info(&self) -> &ConnectionInfo {
        &self.info
    }

    /// Opens a connection; nothing is said on it yet.
    pub(super) async fn dial(&self) -> io::Result<Box<dyn Io>> {
        let refused =
            |_| io::Error::new(io::ErrorKind::TimedOut, format!("no connection in {:?}", self.connect_timeout));
        timeout(self.connect_timeout, self.open()).await.map_err(refused)?
    }

    async fn open(&self) -> io::Result<Box<dyn Io>> {
        match self.info.addr() {
            ConnectionAddr::Tcp(host, port) => Ok(Box::new(tcp(host, *port).await?)),
            ConnectionAddr::TcpTls { host, port, .. } => self.tls(host, *port).await,
            ConnectionAddr::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
            _ => Err(io::Error::new(io::ErrorKind::Unsupported, "an address of an unknown kind")),
        }
    }

    async fn tls(&self, host: &str, port: u16) -> io::Result<Box<dyn Io>> {
        let config = self.tls.clone().expect("made together with the address");
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let stream = TlsConnector::from(config).connect(name, tcp(host, port).await?).await?;
        Ok(Box::new(stream))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.info.addr().fmt(f)
    }
}

async fn tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Trusts the given authorities, or the public ones.
fn client_config(authority_pem: Option<&[u8]>) -> Result<ClientConfig, ConfigError> {
    let mut roots = RootCertStore::empty();
    match authority_pem {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|error| ConfigError::Authority(error.to_string()))?;
                roots.add(certificate).map_err(|error| ConfigError::Authority(error.to_string()))?;
            }
        }
    }
    if roots.is_empty() {
        return Err(ConfigError::Authority("it holds no certificate".to_owned()));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| ConfigError::Authority(error.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
