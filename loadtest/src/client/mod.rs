//! One client: a raw TCP socket, the upgrade, and frames in and out, made to cost next to nothing per message, since
//! server and generator share the machine. Knows what a frame is and not what a run measures: messages go to whoever
//! reads.

pub mod api;
pub mod frame;
pub mod handshake;
pub mod protocol;
pub mod token;

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use self::frame::Opcode;
use crate::clock;

/// Reads in a row from one socket before the others get their turn.
const READS_IN_A_ROW: usize = 8;

/// Longest answer of the server API that is read.
const LONGEST_ANSWER: usize = 64 * 1024;

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

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    /// HTTP until the upgrade is granted.
    Upgrade,
    /// Frames of WebSocket.
    Frames,
    /// Answers of the server API.
    Api,
}

/// How a connection is made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    /// Own address; the system chooses when there is none.
    pub source: Option<IpAddr>,
    /// Speaks to the server API instead of upgrading.
    pub api: bool,
    /// Lets the system keep only this many bytes that are not read yet.
    pub receive_buffer: Option<usize>,
}

/// A connection without meaning: bytes out, frames in.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    dialect: Dialect,
    /// Bytes of a frame or head that is not all there yet; empty while idle.
    partial: Vec<u8>,
    /// Bytes the socket did not take yet.
    out: Vec<u8>,
    /// Whether the other side has said its last.
    hung_up: bool,
}

impl Client {
    /// Starts to connect, without waiting. `opening` (the upgrade request) is sent as soon as that succeeds.
    ///
    /// # Errors
    /// The system has no socket or no port left, or refuses the source address.
    pub fn connect(address: SocketAddr, manner: Manner, opening: Vec<u8>) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        socket.set_tcp_nodelay(true)?;
        if let Some(bytes) = manner.receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        if let Some(source) = manner.source {
            // A port is chosen when the other end is known as well. Else the system looks for one that is free whatever the
            // other end, among half of them, and the search takes longer than all the rest once these are taken.
            setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        match socket.connect(&address.into()) {
            Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => Err(error)?,
            _ => {
                let dialect = if manner.api { Dialect::Api } else { Dialect::Upgrade };
                Ok(Self { stream: socket.into(), dialect, partial: Vec::new(), out: opening, hung_up: false })
            }
        }
    }

    /// The socket, to be watched.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Lets the system keep up to this many bytes that are not read yet, as far as it takes the wish.
    pub fn keep(&self, bytes: usize) {
        // What it does not take makes the rest come slower, and is no fault.
        let _ = SockRef::from(&self.stream).set_recv_buffer_size(bytes);
    }

    /// The other side has said its last: what is there has to be read up to the end, which nothing announces any more.
    pub fn hung_up(&mut self) {
        self.hung_up = true;
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

    /// Reads what has come and hands every data frame, with the moment it was read, to `each`; pings are answered. Of the
    /// server API it hands over every answer, status first. `upgraded` gives the bytes to send once the upgrade is
    /// granted. `buffer` is shared by all clients.
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
        let whole = buffer.len();
        for _ in 0..READS_IN_A_ROW {
            if self.read_once(buffer, whole, &mut upgraded, &mut each)? == Reach::Drained {
                return Ok(Reach::Drained);
            }
        }
        Ok(Reach::More)
    }

    /// Reads as [`read`](Self::read) does, but only once and `most` bytes: what a slow client does.
    ///
    /// # Errors
    /// As there.
    pub fn sip(
        &mut self,
        buffer: &mut [u8],
        most: usize,
        mut each: impl FnMut(&[u8], u64, &mut Vec<u8>) -> Result<(), End>,
    ) -> Result<(), End> {
        self.read_once(buffer, most, &mut Vec::new, &mut each).map(drop)
    }

    #[inline]
    fn read_once(
        &mut self,
        buffer: &mut [u8],
        most: usize,
        upgraded: &mut impl FnMut() -> Vec<u8>,
        each: &mut impl FnMut(&[u8], u64, &mut Vec<u8>) -> Result<(), End>,
    ) -> Result<Reach, End> {
        let kept = self.partial.len();
        buffer[..kept].copy_from_slice(&self.partial);
        let end = kept.saturating_add(most).min(buffer.len());
        let count = match self.stream.read(&mut buffer[kept..end]) {
            Ok(0) => return Err(End("the server closed the connection without a close frame".into())),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Reach::Drained),
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(Reach::More),
            Err(error) => return Err(error.into()),
        };
        let bytes = &buffer[..kept + count];
        let used = self.digest(bytes, buffer.len(), upgraded, each)?;
        self.partial.clear();
        self.partial.extend_from_slice(&bytes[used..]);
        // Less than asked for: the socket is empty, and what comes next is announced anew.
        Ok(if kept + count < end && !self.hung_up { Reach::Drained } else { Reach::More })
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
        let now = clock::now();
        match self.dialect {
            Dialect::Frames => {}
            Dialect::Api => return self.answers(bytes, now, each),
            Dialect::Upgrade => {
                let Some(head) = handshake::read_response(bytes).map_err(End)? else { return Ok(0) };
                self.dialect = Dialect::Frames;
                self.out.extend(upgraded());
                used = head;
            }
        }
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

    /// Hands over the whole answers at the start of `bytes`, each with its status before it; gives their length.
    fn answers(
        &mut self,
        bytes: &[u8],
        now: u64,
        each: &mut impl FnMut(&[u8], u64, &mut Vec<u8>) -> Result<(), End>,
    ) -> Result<usize, End> {
        let mut used = 0;
        while let Some(answer) = api::read(&bytes[used..]).map_err(End)? {
            used += answer.length;
            each(&[&answer.status.to_be_bytes(), answer.body].concat(), now, &mut self.out)?;
        }
        if used == 0 && bytes.len() > LONGEST_ANSWER {
            return Err(End("the API's answer is too long".into()));
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

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use nix::sys::socket::{getsockopt, sockopt};
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    /// A port of a source address may be taken once for each other end, and is not looked for among all of them.
    #[test]
    fn the_port_of_a_source_is_chosen_when_the_other_end_is_known() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let source: IpAddr = "127.0.0.7".parse().expect("an address");
        let address = listener.local_addr().expect("it is bound");
        let manner = Manner { source: Some(source), ..Manner::default() };
        let client = Client::connect(address, manner, Vec::new()).expect("loopback");
        assert_eq!(client.stream().local_addr().expect("it has one").ip(), source);
        assert_eq!(getsockopt(client.stream(), sockopt::IpBindAddressNoPort), Ok(true));
    }

    #[test]
    fn an_end_that_comes_with_the_last_words_is_seen() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let manner = Manner { api: true, ..Manner::default() };
        let mut client = Client::connect(address, manner, Vec::new()).expect("loopback");
        let (mut server, _) = listener.accept().expect("it connects");
        server.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").expect("it listens");
        drop(server);
        let mut events = [PollFd::new(client.stream(), PollFlags::RDHUP)];
        let patience = Timespec { tv_sec: 20, tv_nsec: 0 };
        assert_eq!(poll(&mut events, Some(&patience)), Ok(1), "the end arrives");
        client.hung_up();
        let mut answers = 0;
        let read = client.read(&mut [0; 4096], Vec::new, |_, _, _| {
            answers += 1;
            Ok(())
        });
        assert!(read.is_err() && answers == 1, "{read:?} after {answers}");
    }
}
