//! `roomcast health`: asks a node whether it is ready, for images without a shell.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, client::conn::http1};
use hyper_util::rt::TokioIo;

use super::Outcome;
use crate::config::Settings;

/// How long a node may take to answer.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Longest reason that is read, in bytes.
const REASON_LIMIT: usize = 4096;

/// Asks `/readyz` at `internal_listen`: exit code 0 if the node is ready, 1 with the reason if not.
pub fn health(settings: &Settings) -> Outcome {
    let address = reachable(settings.internal_listen);
    if address.port() == 0 {
        return Outcome::failure("internal_listen has port 0, so the node's port is not known here\n".to_owned());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let answer = match runtime {
        Ok(runtime) => runtime.block_on(async { tokio::time::timeout(TIMEOUT, ask(address)).await }),
        Err(error) => return Outcome::failure(format!("roomcast: {error}\n")),
    };
    match answer {
        Ok(Ok((true, text))) => Outcome::success(format!("{}\n", text.trim())),
        Ok(Ok((false, text))) => Outcome::failure(format!("not ready: {}\n", text.trim())),
        Ok(Err(error)) => Outcome::failure(format!("no answer from http://{address}/readyz: {error:#}\n")),
        Err(_) => Outcome::failure(format!("no answer from http://{address}/readyz within {TIMEOUT:?}\n")),
    }
}

/// Where a listener can be reached from its own machine: one on every address, on the loopback address.
fn reachable(listener: SocketAddr) -> SocketAddr {
    let ip = match listener.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listener.port())
}

async fn ask(address: SocketAddr) -> anyhow::Result<(bool, String)> {
    let stream = tokio::net::TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request =
        Request::get("/readyz").header(http::header::HOST, address.to_string()).body(Empty::<bytes::Bytes>::new())?;
    // The sender goes with the exchange, so that the connection ends when the answer is there.
    let exchange = async move {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), REASON_LIMIT).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("cannot read the answer: {error}"))?.to_bytes();
        anyhow::Ok((status.is_success(), String::from_utf8_lossy(&body).into_owned()))
    };
    tokio::join!(exchange, connection).0
}
