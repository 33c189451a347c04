//! A WebSocket server that says back what it hears, on the gateway's own handshake, frames and compression; conformance suites
//! are pointed at it. `cargo run --example ws_echo -- 127.0.0.1:9001 [--deflate]` says where it listens and runs until it is
//! stopped.

use std::{env, io, io::Write, net::SocketAddr, sync::Arc, time::Duration};

use roomcast::transport::{listen, websocket::echo};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The longest message of the suites has 16 MB.
const LONGEST: usize = 32 << 20;

#[tokio::main]
async fn main() -> io::Result<()> {
    let mut address = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut deflate = false;
    for argument in env::args().skip(1) {
        match argument.as_str() {
            "--deflate" => deflate = true,
            other => address = other.parse().map_err(|error| io::Error::other(format!("{other}: {error}")))?,
        }
    }
    let listener = listen::bind(address, 64 * 1024)?;
    writeln!(io::stdout(), "{}", listener.local_addr()?)?;
    let options = listen::Options {
        header_timeout: Duration::from_secs(5),
        send_buffer: 64 * 1024,
        trusted_proxies: Vec::new(),
        takes_last_files: true,
    };
    let routes = echo::routes(LONGEST, deflate);
    listen::serve(listener, routes, Arc::new(options), CancellationToken::new(), TaskTracker::new()).await;
    Ok(())
}
