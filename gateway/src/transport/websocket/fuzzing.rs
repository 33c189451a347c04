//! The reader of frames, for the fuzzing targets: what a connection would be told, of bytes that come in pieces. Knows no
//! connection.

use roomcast_shared::protocol::code::Disconnect;

use super::frame::{Event, Reader};
use crate::hub::Opcode;

/// Something a client said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// A text.
    Text(Vec<u8>),
    /// A binary message.
    Binary(Vec<u8>),
    /// A ping.
    Ping(Vec<u8>),
    /// A pong.
    Pong,
    /// The end, with its code if it has one.
    Close(Option<u16>),
}

impl From<Event<'_>> for Said {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Message(Opcode::Text, message) => Self::Text(message.to_vec()),
            Event::Message(_, message) => Self::Binary(message.to_vec()),
            Event::Ping(payload) => Self::Ping(payload.to_vec()),
            Event::Pong => Self::Pong,
            Event::Close(code) => Self::Close(code),
        }
    }
}

/// Reads pieces of a stream as a connection does, which keeps what is not whole yet: what was said, and how it was ended.
pub fn read(limit: usize, inflates: bool, pieces: &[&[u8]]) -> (Vec<Said>, Option<Disconnect>) {
    let (mut reader, mut kept, mut said) = (Reader::new(limit, inflates), Vec::new(), Vec::new());
    for piece in pieces {
        kept.extend_from_slice(piece);
        let mut at = 0;
        loop {
            match reader.read(&mut kept[at..]) {
                Ok(Some((size, event))) => {
                    said.extend(event.map(Said::from));
                    reader.forget_message();
                    at += size;
                }
                Ok(None) => break,
                Err(close) => return (said, Some(close)),
            }
        }
        kept.drain(..at);
    }
    (said, None)
}
