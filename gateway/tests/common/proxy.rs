//! A TCP proxy of the tests that does to what passes through it what networks do: nothing, or hold it up, cut it, let it
//! trickle, or spoil it. Knows nothing of what is said.

use std::{io, net::SocketAddr, time::Duration};

use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::sleep,
};

/// What is read at a time.
const CHUNK: usize = 16 * 1024;
/// Between two drops of a trickle.
const DROP: Duration = Duration::from_millis(50);

/// What becomes of what passes, in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It passes.
    Pass,
    /// It comes so much later.
    Delay(Duration),
    /// Nothing passes and nobody is told, as where a cable was pulled; what waited passes when this is over.
    Hole,
    /// Connections are reset, and new ones too.
    Cut,
    /// So many bytes pass at a time, twenty times a second.
    Trickle(usize),
    /// Every byte comes as another one.
    Corrupt,
}

/// A proxy in front of one address, which ends with the test's runtime.
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    mode: watch::Sender<Mode>,
}

impl Proxy {
    /// Starts one on a free port of the loopback interface.
    pub async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it listens");
        let (mode, seen) = watch::channel(Mode::Pass);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, target, seen.clone()));
            }
        });
        Self { address, mode }
    }

    /// What becomes of everything from now on.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

async fn carry(mut client: TcpStream, target: SocketAddr, mut mode: watch::Receiver<Mode>) {
    // Whoever is let in during a hole hears nothing either.
    let opening = async { mode.wait_for(|mode| *mode != Mode::Hole).await.is_ok_and(|mode| *mode != Mode::Cut) };
    if !opening.await {
        return reset(&client);
    }
    let Ok(mut server) = TcpStream::connect(target).await else { return reset(&client) };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (up, down) = (mode.clone(), mode.clone());
    let ((mut client_says, mut client_hears), (mut server_says, mut server_hears)) = (client.split(), server.split());
    let upward = pump(&mut client_says, &mut server_hears, up);
    let downward = pump(&mut server_says, &mut client_hears, down);
    let both = async { tokio::join!(upward, downward) };
    let cut = async { mode.wait_for(|mode| *mode == Mode::Cut).await.is_ok() };
    tokio::select! {
        _ = both => {}
        true = cut => {
            reset(&client);
            reset(&server);
        }
        else => {}
    }
}

/// Has the connection end with a reset when it is dropped.
fn reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Passes on what one side says, until it has nothing more to say.
async fn pump(
    from: &mut (impl AsyncReadExt + Unpin),
    to: &mut (impl AsyncWriteExt + Unpin),
    mut mode: watch::Receiver<Mode>,
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let at_once = match *mode.borrow_and_update() {
            Mode::Hole => 0,
            Mode::Trickle(bytes) => bytes,
            _ => CHUNK,
        };
        let read = tokio::select! {
            biased;
            changed = mode.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return Ok(()),
            },
            read = from.read(&mut buffer[..at_once]), if at_once > 0 => read,
        };
        let said = match read {
            Ok(length @ 1..) => &mut buffer[..length],
            _ => return to.shutdown().await,
        };
        let now = *mode.borrow();
        match now {
            Mode::Delay(time) => sleep(time).await,
            Mode::Trickle(_) => sleep(DROP).await,
            Mode::Corrupt => said.iter_mut().for_each(|byte| *byte ^= 0x80),
            // It was read before the hole opened, and falls into it.
            Mode::Hole => drop(mode.wait_for(|mode| *mode != Mode::Hole).await),
            Mode::Pass | Mode::Cut => {}
        }
        to.write_all(said).await?;
    }
}
