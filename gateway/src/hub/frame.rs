//! One or several publications as the bytes of their WebSocket frames, made at most once per kind of client. Knows RFC 6455
//! framing of what the server sends; masks, limits and reading are the transport's.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use roomcast_shared::{
    protocol::{Encoding, code::Disconnect, reply::Reply},
    publication::Publication,
};

/// Operation code of a WebSocket frame (RFC 6455, section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// A further fragment of a message.
    Continuation = 0x0,
    /// A message of UTF-8 text.
    Text = 0x1,
    /// A message of bytes.
    Binary = 0x2,
    /// The end of the conversation.
    Close = 0x8,
    /// Asks for a pong with the same payload.
    Ping = 0x9,
    /// Answers a ping.
    Pong = 0xA,
}

/// How the bytes towards a client are made: encoding and framing together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Wire {
    /// JSON in text frames.
    JsonWebSocket,
    /// Protobuf in binary frames.
    ProtobufWebSocket,
}

impl Wire {
    const COUNT: usize = 2;

    /// The encoding of the messages.
    pub fn encoding(self) -> Encoding {
        match self {
            Self::JsonWebSocket => Encoding::Json,
            Self::ProtobufWebSocket => Encoding::Protobuf,
        }
    }

    fn opcode(self) -> Opcode {
        match self {
            Self::JsonWebSocket => Opcode::Text,
            Self::ProtobufWebSocket => Opcode::Binary,
        }
    }

    /// Appends one message in its frame.
    pub fn put_message(self, message: &[u8], out: &mut Vec<u8>) {
        put_frame_header(self.opcode(), message.len(), out);
        out.extend_from_slice(message);
    }

    /// Appends one reply in its frame.
    ///
    /// # Errors
    /// 3506 where a payload in it is no JSON and the client speaks JSON.
    pub fn put_reply(self, reply: &Reply, out: &mut Vec<u8>) -> Result<(), Disconnect> {
        let mut message = Vec::with_capacity(256);
        self.encoding().encode_reply(reply, &mut message).map_err(|_| Disconnect::INAPPROPRIATE_PROTOCOL)?;
        self.put_message(&message, out);
        Ok(())
    }
}

/// Appends the header of an unfragmented, unmasked frame: 2, 4 or 10 bytes.
pub fn put_frame_header(opcode: Opcode, length: usize, out: &mut Vec<u8>) {
    out.push(0x80 | opcode as u8);
    if let Ok(short) = u8::try_from(length)
        && short < 126
    {
        out.push(short);
    } else if let Ok(medium) = u16::try_from(length) {
        out.push(126);
        out.extend_from_slice(&medium.to_be_bytes());
    } else {
        out.push(127);
        out.extend_from_slice(&(length as u64).to_be_bytes());
    }
}

/// The publications of one turn, joined into one buffer for each kind of client that sits in the room.
pub(super) struct Joined {
    room: Arc<str>,
    publications: Vec<Publication>,
    buffers: [OnceLock<Buffer>; Wire::COUNT],
}

/// What a kind of client is told in one turn.
pub(super) struct Buffer {
    /// The frames, one after the other.
    pub(super) bytes: Bytes,
    /// Set where a publication cannot be told to this kind of client: it ends with this after `bytes`.
    pub(super) then_close: Option<Disconnect>,
}

impl Joined {
    pub(super) fn new(room: Arc<str>, publications: Vec<Publication>) -> Self {
        Self { room, publications, buffers: [const { OnceLock::new() }; Wire::COUNT] }
    }

    pub(super) fn len(&self) -> usize {
        self.publications.len()
    }

    pub(super) fn buffer(&self, wire: Wire) -> &Buffer {
        self.buffers[wire as usize].get_or_init(|| self.encode(wire))
    }

    fn encode(&self, wire: Wire) -> Buffer {
        let mut bytes = Vec::with_capacity(self.publications.iter().map(size_hint).sum());
        let mut message = Vec::with_capacity(512);
        for publication in &self.publications {
            message.clear();
            if wire.encoding().encode_publication(&self.room, publication, &mut message).is_err() {
                return Buffer { bytes: bytes.into(), then_close: Some(Disconnect::INAPPROPRIATE_PROTOCOL) };
            }
            wire.put_message(&message, &mut bytes);
        }
        Buffer { bytes: bytes.into(), then_close: None }
    }
}

/// A little more than a publication takes on the wire in most rooms, so that the buffer seldom grows.
fn size_hint(publication: &Publication) -> usize {
    publication.data.len() + publication.info.as_ref().map_or(96, |info| 192 + info.conn_info.len())
}
