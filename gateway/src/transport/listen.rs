//! Listeners: accepts connections, sets their sockets up, and serves HTTP on them until an upgrade takes them away. Knows
//! the router only as something that answers requests.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{Router, body::Body};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use ipnet::IpNet;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use super::{
    address::{Peer, is_trusted, proxied_peer},
    hangup::Hangup,
};
use crate::session::is_last_file;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// Most bytes of a request that are buffered before its head is whole.
const HEAD_BUFFER: usize = 16 * 1024;

/// How long accepting rests when the process has no file left.
const FILES_PAUSE: Duration = Duration::from_millis(100);

/// How often it is said that files run out, while it goes on.
const SAID_AGAIN: Duration = Duration::from_secs(10);

/// How long a silent connection may be before its peer is asked for a sign of life, how often it is asked again, and how
/// often it may leave that unanswered.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_mins(1), Duration::from_secs(10), 3);

/// How long what was sent may go unacknowledged, as long as a silent peer has to answer: without a bound of its own the kernel
/// sends again for a quarter of an hour, and no transport would see that a client which only listens is gone.
const UNACKNOWLEDGED: Duration = Duration::from_secs(90);

/// What a listener needs to know of its connections.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long the head of a request may take, and an idle connection wait for the next one.
    pub header_timeout: Duration,
    /// Kernel send buffer of each connection, in bytes.
    pub send_buffer: usize,
    /// Proxies whose PROXY header is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether its connections may take the last files of the process.
    pub takes_last_files: bool,
}

/// Opens a listening socket. An address in use a moment ago may be taken again at once. Accepted connections inherit the
/// options set here, which saves six system calls for each: small messages leave at once, dead peers are noticed, and the
/// kernel's share of a slow client is bounded by `send_buffer`, in bytes.
///
/// # Errors
/// The address is taken or not this machine's.
pub fn bind(address: SocketAddr, send_buffer: usize) -> io::Result<TcpListener> {
    bind_with(address, send_buffer, UNACKNOWLEDGED)
}

fn bind_with(address: SocketAddr, send_buffer: usize, unacknowledged: Duration) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    let (time, interval, retries) = KEEPALIVE;
    let keepalive = TcpKeepalive::new().with_time(time).with_interval(interval).with_retries(retries);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(unacknowledged))?;
    socket.set_send_buffer_size(send_buffer)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts until `stop`; afterwards requests under way are finished and idle connections end.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    options: Arc<Options>,
    stop: CancellationToken,
    tracker: TaskTracker,
) {
    let mut complaint = Complaint::default();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) if !options.takes_last_files && is_last_file(stream.as_raw_fd()) => {
                complaint.say(&"connections are closed at once, as nearly all files are open");
            }
            Ok((stream, peer)) => {
                let connection = connection(stream, peer.ip(), router.clone(), options.clone(), stop.clone());
                tracker.spawn(connection);
            }
            Err(error) => rest(&error, &mut complaint).await,
        }
    }
}

/// Errors of one connection that went away before it was accepted are passed over; where the process or the machine is out
/// of something, accepting rests, so that what ends meanwhile gives it back.
async fn rest(error: &io::Error, complaint: &mut Complaint) {
    if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
        return;
    }
    complaint.say(&format_args!("accepting rests: {error}"));
    tokio::time::sleep(FILES_PAUSE).await;
}

/// Says now and then what is wrong with a listener.
#[derive(Default)]
struct Complaint {
    said: Option<Instant>,
}

impl Complaint {
    fn say(&mut self, what: &dyn std::fmt::Display) {
        if self.said.is_none_or(|said| said.elapsed() > SAID_AGAIN) {
            self.said = Some(Instant::now());
            tracing::warn!("{what}; if files run out, raise the limit of open files (ulimit -n)");
        }
    }
}

async fn connection(
    mut stream: TcpStream,
    peer: IpAddr,
    router: Router,
    options: Arc<Options>,
    stop: CancellationToken,
) {
    let peer = if is_trusted(peer, &options.trusted_proxies) {
        match proxied_peer(&mut stream, peer, options.header_timeout).await {
            Ok(named) => named,
            Err(error) => return tracing::debug!(%peer, "connection refused: {error}"),
        }
    } else {
        peer
    };
    drop(serve_http(stream, peer.to_canonical(), router, options.header_timeout, stop).await);
}

async fn serve_http(
    stream: TcpStream,
    peer: IpAddr,
    router: Router,
    header_timeout: Duration,
    stop: CancellationToken,
) -> hyper::Result<()> {
    let hangup = Hangup::default();
    let of_requests = hangup.clone();
    let service = service_fn(move |request: http::Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Peer(peer));
        request.extensions_mut().insert(of_requests.clone());
        router.clone().oneshot(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_buf_size(HEAD_BUFFER)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let mut stopping = false;
    loop {
        tokio::select! {
            result = &mut connection => return result,
            () = stop.cancelled(), if !stopping => connection.as_mut().graceful_shutdown(),
            patience = hangup.asked() => return timeout(patience, connection).await.unwrap_or(Ok(())),
        }
        stopping = true;
    }
}

#[cfg(test)]
mod tests {
    use socket2::SockRef;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn anywhere() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    #[tokio::test]
    async fn a_peer_that_has_vanished_is_asked_for_and_given_up() {
        let listener = bind(anywhere(), 64 * 1024).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let socket = SockRef::from(&accepted);
        assert!(socket.keepalive().unwrap() && socket.tcp_nodelay().unwrap());
        let (time, interval, retries) = KEEPALIVE;
        assert_eq!(socket.tcp_keepalive_time().unwrap(), time);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), interval);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), retries);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(UNACKNOWLEDGED));
        // Else the one would end a silent connection before the other has asked as often as it is to.
        assert_eq!(time + interval * retries, UNACKNOWLEDGED);
    }

    /// A peer whose window stays closed is for the kernel as one that does not answer, and it needs no broken network.
    #[tokio::test]
    async fn the_kernel_ends_a_connection_on_which_nothing_gets_through() {
        let listener = bind_with(anywhere(), 16 * 1024, Duration::from_millis(500)).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        SockRef::from(&client).set_recv_buffer_size(4096).unwrap();
        let (mut accepted, _) = listener.accept().await.unwrap();
        let writing = async {
            loop {
                if let Err(error) = accepted.write_all(&[b'x'; 16 * 1024]).await {
                    return error;
                }
            }
        };
        let error = timeout(Duration::from_mins(1), writing).await.expect("it ends");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(accepted.read_u8().await.is_err());
        drop(client);
    }
}
