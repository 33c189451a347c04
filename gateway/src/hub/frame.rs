//! Messages as the bytes of their WebSocket frames, for each kind of client. Knows RFC 6455 framing of what the server sends;
//! masks, limits and reading are the transport's.

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
    pub(super) const COUNT: usize = 2;

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

    /// Appends the push of one publication, without a frame; nothing where it is no JSON and the encoding is.
    pub(super) fn encode_publication(self, room: &str, publication: &Publication, message: &mut Vec<u8>) -> bool {
        self.encoding().encode_publication(room, publication, message).is_ok()
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
