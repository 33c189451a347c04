//! One client: a raw TCP socket, the upgrade, and frames in and out, made to cost next to nothing per message, since
//! server and generator share the machine. Knows what a frame is and not what a run measures: messages go to whoever
//! reads.

pub mod frame;
pub mod handshake;
pub mod protocol;
pub mod token;

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
};

use socket2::{Domain, Protocol, Socket, Type};

use self::frame::Opcode;
use crate::clock;

/// Reads in a row from one socket before the others get their turn.
const READS_IN_A_ROW: usize = 8;

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End(pub String);

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::ConnectionRefused => Self("connection refused".into()),
            ErrorKind::AddrNotAvailable => {
                Self("no local port left: give more source addresses with --source-ip (about 28,000 each)".into())
            }
            _ => Self(error.to_string()),
        }
    }
}

/// How far a socket was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Everything there was is read.
    Drained,
    /// There may be more: read again after the others.
    More,
}

/// A connection without meaning: bytes out, frames in.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    upgraded: bool,
    /// Bytes of a frame or head that is not all there yet; empty while idle.
    partial: Vec<u8>,
    /// Bytes the socket did not take yet.
    out: Vec<u8>,
}

impl Client {
    /// Starts to connect, without waiting. `opening` (the upgrade request) is sent as soon as that succeeds.
    ///
    /// # Errors
    /// The system has no socket or no port left, or refuses the source address.
    pub fn connect(address: SocketAddr, source: Option<IpAddr>, opening: Vec<u8>) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        socket.set_tcp_nodelay(true)?;
        if let Some(source) = source {
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        match socket.connect(&address.into()) {
            Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => Err(error)?,
            _ => Ok(Self { stream: socket.into(), upgraded: false, partial: Vec::new(), out: opening }),
        }
    }

    /// The socket, to be watched.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Bytes that wait for the socket.
    pub fn backlog(&self) -> usize {
        self.out.len()
    }

    /// Where frames to be sent are appended; [`flush`](Self::flush) sends them.
    pub fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Writes what the socket takes.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn flush(&mut self) -> Result<(), End> {
        let mut written = 0;
        while written < self.out.len() {
            match self.stream.write(&self.out[written..]) {
                Ok(count) => written += count,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.out.drain(..written);
        Ok(())
    }

    /// Reads what has come and hands every data frame, with the moment it was read, to `each`; pings are answered.
    /// `upgraded` gives the bytes to send once the upgrade is granted. `buffer` is shared by all clients.
    ///
    /// # Errors
    /// The connection is over, or `each` says that it has to be.
    #[inline]
    pub fn read(
        &mut self,
        buffer: &mut [u8],
        mut upgraded: impl FnMut() -> Vec<u8>,
        mut each: impl FnMut(&[u8], u64, &mut Vec<u8>) -> Result<(), End>,
    ) -> Result<Reach, End> {
        for _ in 0..READS_IN_A_ROW {
            let kept = self.partial.len();
            buffer[..kept].copy_from_slice(&self.partial);
            let count = match self.stream.read(&mut buffer[kept..]) {
                Ok(0) => return Err(End("the server closed the connection without a close frame".into())),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Reach::Drained),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            let bytes = &buffer[..kept + count];
            let used = self.digest(bytes, buffer.len(), &mut upgraded, &mut each)?;
            self.partial.clear();
            self.partial.extend_from_slice(&bytes[used..]);
            // Less than asked for: the socket is empty, and what comes next is announced anew.
            if kept + count < buffer.len() {
                return Ok(Reach::Drained);
            }
        }
        Ok(Reach::More)
    }

    /// Takes all that is whole from the start of `bytes`; gives its length.
    #[inline]
    fn digest(
        &mut self,
        bytes: &[u8],
        limit: usize,
        upgraded: &mut impl FnMut() -> Vec<u8>,
        each: &mut impl FnMut(&[u8], u64, &mut Vec<u8>) -> Result<(), End>,
    ) -> Result<usize, End> {
        let mut used = 0;
        if !self.upgraded {
            let Some(head) = handshake::read_response(bytes).map_err(End)? else { return Ok(0) };
            self.upgraded = true;
            self.out.extend(upgraded());
            used = head;
        }
        let now = clock::now();
        while let Some(frame) = frame::read(&bytes[used..], limit).map_err(|error| End(error.to_string()))? {
            used += frame.length;
            match frame.opcode {
                Opcode::Text | Opcode::Binary => each(frame.payload, now, &mut self.out)?,
                Opcode::Ping => frame::write(Opcode::Pong, frame.payload, &mut self.out),
                Opcode::Pong => {}
                Opcode::Close => return Err(self.closed(frame.payload)),
            }
        }
        Ok(used)
    }

    /// Answers a close frame with the same code, as RFC 6455 section 5.5.1 asks.
    fn closed(&mut self, payload: &[u8]) -> End {
        frame::write(Opcode::Close, payload.get(..2).unwrap_or_default(), &mut self.out);
        // The connection is over whether or not this last frame can be sent.
        let _ = self.flush();
        End(frame::close_reason(payload))
    }
}
