//! Messages as the bytes of their frames, for each kind of client. Knows the framing of what the server sends, in frames of
//! RFC 6455 and in streams; masks, limits and reading are the transport's.

use std::borrow::Cow;

use roomcast_shared::{
    protocol::{
        Encoding, Envelope, Form,
        code::{Disconnect, ErrorCode},
        reply::{ConnectPush, ErrorReply, Push, Reply},
    },
    publication::Publication,
};

use super::deflate::deflate;

/// The bit of a frame's first byte that says its message is compressed (RFC 7692, section 6).
const COMPRESSED: u8 = 0x40;

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

/// Bytes of the header that messages of middle length have, for which place is kept while a message is made.
const USUAL_HEADER: usize = 4;

const BEFORE_EVENT: &[u8] = b"data: ";
const AFTER_EVENT: &[u8] = b"\n\n";

/// How the bytes towards a client are made: encoding, framing and envelope together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Wire {
    /// JSON in text frames.
    JsonWebSocket,
    /// Protobuf in binary frames.
    ProtobufWebSocket,
    /// As `JsonWebSocket`, publications compressed.
    JsonDeflated,
    /// As `ProtobufWebSocket`, publications compressed.
    ProtobufDeflated,
    /// JSON texts, a newline behind each.
    JsonStream,
    /// Protobuf messages, each behind its length.
    ProtobufStream,
    /// JSON as the data of server-sent events (HTML Living Standard, section 9.2).
    JsonEvents,
    /// As `JsonWebSocket`, for a client that only listens.
    UniJsonWebSocket,
    /// As `ProtobufWebSocket`, for a client that only listens.
    UniProtobufWebSocket,
    /// As `JsonDeflated`, for a client that only listens.
    UniJsonDeflated,
    /// As `ProtobufDeflated`, for a client that only listens.
    UniProtobufDeflated,
    /// As `JsonStream`, for a client that only listens.
    UniJsonStream,
    /// As `ProtobufStream`, for a client that only listens.
    UniProtobufStream,
    /// As `JsonEvents`, for a client that only listens.
    UniJsonEvents,
}

/// What is put around a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// A WebSocket frame with this operation code.
    WebSocket(Opcode),
    /// A newline behind it.
    Line,
    /// Nothing: the message bears its length.
    None,
    /// What makes it an event of an event stream.
    Event,
}

impl Wire {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 14] = [
        Self::JsonWebSocket,
        Self::ProtobufWebSocket,
        Self::JsonDeflated,
        Self::ProtobufDeflated,
        Self::JsonStream,
        Self::ProtobufStream,
        Self::JsonEvents,
        Self::UniJsonWebSocket,
        Self::UniProtobufWebSocket,
        Self::UniJsonDeflated,
        Self::UniProtobufDeflated,
        Self::UniJsonStream,
        Self::UniProtobufStream,
        Self::UniJsonEvents,
    ];

    pub(super) const COUNT: usize = Self::ALL.len();

    /// The encoding of the messages.
    pub fn encoding(self) -> Encoding {
        match self {
            Self::ProtobufWebSocket
            | Self::ProtobufDeflated
            | Self::ProtobufStream
            | Self::UniProtobufWebSocket
            | Self::UniProtobufDeflated
            | Self::UniProtobufStream => Encoding::Protobuf,
            _ => Encoding::Json,
        }
    }

    /// Whether the client only listens: it is told bare pushes, without a reply around them.
    pub fn is_unidirectional(self) -> bool {
        self as u8 >= Self::UniJsonWebSocket as u8
    }

    /// Whether the messages lie in WebSocket frames. Over the others a client cannot speak, and its end is a message.
    pub fn is_websocket(self) -> bool {
        matches!(self.framing(), Framing::WebSocket(_))
    }

    /// Name of the transport, as backends are told it.
    pub fn transport(self) -> &'static str {
        match self {
            Self::JsonWebSocket | Self::ProtobufWebSocket | Self::JsonDeflated | Self::ProtobufDeflated => "websocket",
            Self::JsonStream | Self::ProtobufStream => "http_stream",
            Self::JsonEvents => "sse",
            Self::UniJsonWebSocket | Self::UniProtobufWebSocket | Self::UniJsonDeflated | Self::UniProtobufDeflated => {
                "uni_websocket"
            }
            Self::UniJsonStream | Self::UniProtobufStream => "uni_http_stream",
            Self::UniJsonEvents => "uni_sse",
        }
    }

    /// The same for a client of this kind with which compression was agreed on.
    #[must_use]
    pub fn deflated(self) -> Self {
        match self {
            Self::JsonWebSocket => Self::JsonDeflated,
            Self::ProtobufWebSocket => Self::ProtobufDeflated,
            Self::UniJsonWebSocket => Self::UniJsonDeflated,
            Self::UniProtobufWebSocket => Self::UniProtobufDeflated,
            other => other,
        }
    }

    /// Whether compression was agreed on.
    pub fn is_deflated(self) -> bool {
        matches!(self, Self::JsonDeflated | Self::ProtobufDeflated | Self::UniJsonDeflated | Self::UniProtobufDeflated)
    }

    fn framing(self) -> Framing {
        match self {
            Self::JsonWebSocket | Self::JsonDeflated | Self::UniJsonWebSocket | Self::UniJsonDeflated => {
                Framing::WebSocket(Opcode::Text)
            }
            Self::ProtobufWebSocket
            | Self::ProtobufDeflated
            | Self::UniProtobufWebSocket
            | Self::UniProtobufDeflated => Framing::WebSocket(Opcode::Binary),
            Self::JsonStream | Self::UniJsonStream => Framing::Line,
            Self::ProtobufStream | Self::UniProtobufStream => Framing::None,
            Self::JsonEvents | Self::UniJsonEvents => Framing::Event,
        }
    }

    /// Appends one message in its frame.
    pub fn put_message(self, message: &[u8], out: &mut Vec<u8>) {
        match self.framing() {
            Framing::WebSocket(opcode) => put_frame_header(opcode, message.len(), out),
            Framing::Event => out.extend_from_slice(BEFORE_EVENT),
            Framing::Line | Framing::None => {}
        }
        out.extend_from_slice(message);
        match self.framing() {
            Framing::Event => out.extend_from_slice(AFTER_EVENT),
            Framing::Line => out.push(b'\n'),
            Framing::WebSocket(_) | Framing::None => {}
        }
    }

    /// Appends a message in its frame, compressed where that was agreed on, it has at least `least` bytes and it gets shorter.
    pub fn put_compressed(self, message: &[u8], least: usize, out: &mut Vec<u8>) {
        if self.is_deflated() && message.len() >= least {
            let payload = deflate(message);
            if payload.len() < message.len() {
                return self.put_payload(&payload, out);
            }
        }
        self.put_message(message, out);
    }

    /// The same whatever it has and becomes.
    pub fn put_deflated(self, message: &[u8], out: &mut Vec<u8>) {
        self.put_payload(&deflate(message), out);
    }

    fn put_payload(self, compressed: &[u8], out: &mut Vec<u8>) {
        let begin = out.len();
        self.put_message(compressed, out);
        out[begin] |= COMPRESSED;
    }

    /// Appends one reply in its frame. A client that only listens is told the push in it, and the answer to its connect as
    /// a push; other answers are not for it.
    ///
    /// # Errors
    /// 3506 where a payload in it is no JSON and the client speaks JSON; for an error towards a client that only listens,
    /// the disconnect that stands for it.
    pub fn put_reply(self, reply: &Reply, out: &mut Vec<u8>) -> Result<(), Disconnect> {
        if self.is_unidirectional() {
            let Some(push) = alone(reply)? else { return Ok(()) };
            self.put_made(out, |out| self.encoding().encode_push(&push, out))
        } else {
            self.put_made(out, |out| self.encoding().encode_reply(reply, out))
        }
        .map_err(|_| Disconnect::INAPPROPRIATE_PROTOCOL)
    }

    /// Appends one message that `make` appends, in its frame; nothing where that fails.
    fn put_made<E>(self, out: &mut Vec<u8>, make: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        let begin = out.len();
        match self.framing() {
            Framing::WebSocket(_) => out.extend_from_slice(&[0; USUAL_HEADER]),
            Framing::Event => out.extend_from_slice(BEFORE_EVENT),
            Framing::Line | Framing::None => {}
        }
        make(out).inspect_err(|_| out.truncate(begin))?;
        match self.framing() {
            Framing::WebSocket(opcode) => {
                let (header, length) = frame_header(opcode, out.len() - begin - USUAL_HEADER);
                if length == USUAL_HEADER {
                    out[begin..begin + USUAL_HEADER].copy_from_slice(&header[..USUAL_HEADER]);
                } else {
                    out.splice(begin..begin + USUAL_HEADER, header[..length].iter().copied());
                }
            }
            Framing::Event => out.extend_from_slice(AFTER_EVENT),
            Framing::Line => out.push(b'\n'),
            Framing::None => {}
        }
        Ok(())
    }

    /// A ping of the protocol in its frame.
    pub fn ping(self) -> &'static [u8] {
        match self {
            Self::JsonWebSocket | Self::JsonDeflated | Self::UniJsonWebSocket | Self::UniJsonDeflated => b"\x81\x02{}",
            Self::ProtobufWebSocket
            | Self::ProtobufDeflated
            | Self::UniProtobufWebSocket
            | Self::UniProtobufDeflated => b"\x82\x01\x00",
            Self::JsonStream | Self::UniJsonStream => b"{}\n",
            Self::ProtobufStream | Self::UniProtobufStream => b"\x00",
            Self::JsonEvents | Self::UniJsonEvents => b"data: {}\n\n",
        }
    }

    /// Appends the push of one publication in its frame, compressed from `compress_from` bytes on where that was agreed on;
    /// nothing where it is no JSON and the encoding is.
    pub(super) fn put_publication(
        self,
        room: &str,
        publication: &Publication,
        compress_from: usize,
        out: &mut Vec<u8>,
    ) -> bool {
        let form = Form { envelope: self.envelope(), ..Form::default() };
        let make = |out: &mut Vec<u8>| self.encoding().encode_publication_as(form, room, publication, out);
        if !self.is_deflated() {
            return self.put_made(out, make).is_ok();
        }
        let mut message = Vec::new();
        let fits = make(&mut message).is_ok();
        if fits {
            self.put_compressed(&message, compress_from, out);
        }
        fits
    }

    /// What is around a push.
    pub fn envelope(self) -> Envelope {
        if self.is_unidirectional() { Envelope::Bare } else { Envelope::Reply }
    }
}

/// The disconnect that a client which only listens gets instead of an error.
fn instead_of(error: &ErrorReply) -> Disconnect {
    let is = |code: &ErrorCode| error.code == code.code;
    if is(&ErrorCode::TOKEN_EXPIRED) || is(&ErrorCode::EXPIRED) {
        Disconnect::EXPIRED
    } else if is(&ErrorCode::TOO_MANY_REQUESTS) {
        Disconnect::TOO_MANY_REQUESTS
    } else if is(&ErrorCode::PERMISSION_DENIED) {
        Disconnect::PERMISSION_DENIED
    } else {
        Disconnect::SERVER_ERROR
    }
}

/// What of a reply is for a client that only listens.
fn alone(reply: &Reply) -> Result<Option<Cow<'_, Push>>, Disconnect> {
    if let Some(error) = &reply.error {
        return Err(instead_of(error));
    }
    if let Some(result) = &reply.connect {
        let connect = Some(Box::new(ConnectPush::from((**result).clone())));
        return Ok(Some(Cow::Owned(Push { connect, ..Push::default() })));
    }
    Ok(reply.push.as_deref().map(Cow::Borrowed))
}

/// Appends the header of an unfragmented, unmasked frame: 2, 4 or 10 bytes.
pub fn put_frame_header(opcode: Opcode, length: usize, out: &mut Vec<u8>) {
    let (header, of_it) = frame_header(opcode, length);
    out.extend_from_slice(&header[..of_it]);
}

/// The header of such a frame, and how many bytes of this it has.
fn frame_header(opcode: Opcode, length: usize) -> ([u8; 10], usize) {
    let mut header = [0; 10];
    header[0] = 0x80 | opcode as u8;
    if let Ok(short) = u8::try_from(length)
        && short < 126
    {
        header[1] = short;
        (header, 2)
    } else if let Ok(medium) = u16::try_from(length) {
        header[1] = 126;
        header[2..4].copy_from_slice(&medium.to_be_bytes());
        (header, 4)
    } else {
        header[1] = 127;
        header[2..].copy_from_slice(&(length as u64).to_be_bytes());
        (header, 10)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use roomcast_shared::protocol::reply::EmptyResult;

    use super::*;

    #[test]
    fn pings_are_what_the_frame_writer_makes() {
        for (number, wire) in Wire::ALL.into_iter().enumerate() {
            assert_eq!(wire as usize, number);
            let mut frame = Vec::new();
            wire.put_message(wire.encoding().ping(), &mut frame);
            assert_eq!(wire.ping(), frame, "{wire:?}");
        }
    }

    #[test]
    fn each_framing_is_put_around_each_envelope() {
        let reply = r#"{"push":{"channel":"a","pub":{"data":[1]}}}"#;
        let push = r#"{"channel":"a","pub":{"data":[1]}}"#;
        let framed =
            |opcode, message: &str| format!("{opcode}{}{message}", char::from(u8::try_from(message.len()).unwrap()));
        let protobuf = "\x0b\x12\x01a\"\x06\"\x04[\n1]";
        let cases = [
            (Wire::JsonWebSocket, framed('\u{81}', reply)),
            (Wire::JsonDeflated, framed('\u{81}', reply)),
            (Wire::JsonStream, format!("{reply}\n")),
            (Wire::JsonEvents, format!("data: {reply}\n\n")),
            (Wire::ProtobufWebSocket, framed('\u{82}', &format!("\x0d\"{protobuf}"))),
            (Wire::ProtobufStream, format!("\x0d\"{protobuf}")),
            (Wire::UniJsonWebSocket, framed('\u{81}', push)),
            (Wire::UniJsonStream, format!("{push}\n")),
            (Wire::UniJsonEvents, format!("data: {push}\n\n")),
            (Wire::UniProtobufWebSocket, framed('\u{82}', protobuf)),
            (Wire::UniProtobufStream, protobuf.to_owned()),
        ];
        let publication = Publication { data: Bytes::from_static(b"[\n1]"), ..Publication::default() };
        for (wire, expected) in cases {
            let mut out = Vec::new();
            assert!(wire.put_publication("a", &publication, usize::MAX, &mut out));
            let said: String = out.into_iter().map(char::from).collect();
            assert_eq!(said, expected, "{wire:?}");
        }
    }

    /// Messages of every length of header, made in their frames behind others, and what could not be made leaves no trace.
    #[test]
    fn a_message_is_the_same_made_in_its_frame_or_put_into_it() {
        for wire in Wire::ALL {
            for length in [0, 125, 126, 65_535, 65_536] {
                let message = vec![b'x'; length];
                let (mut made, mut put) = (b"before".to_vec(), b"before".to_vec());
                wire.put_message(&message, &mut put);
                let refused = wire.put_made(&mut made, |out| {
                    out.push(b'y');
                    Err(())
                });
                assert!(refused.is_err() && made == b"before");
                wire.put_made::<()>(&mut made, |out| {
                    out.extend_from_slice(&message);
                    Ok(())
                })
                .unwrap();
                assert!(made == put, "{wire:?}, {length} bytes");
            }
        }
    }

    #[test]
    fn what_is_worth_it_is_compressed_where_that_was_agreed_on() {
        let message = "to be or not to be ".repeat(10);
        for wire in Wire::ALL {
            let (mut plain, mut long, mut short) = (Vec::new(), Vec::new(), Vec::new());
            wire.put_message(message.as_bytes(), &mut plain);
            wire.put_compressed(message.as_bytes(), message.len(), &mut long);
            wire.put_compressed(message.as_bytes(), message.len() + 1, &mut short);
            assert_eq!(short, plain);
            assert_eq!(wire.deflated().is_deflated(), wire.is_websocket());
            if wire.is_deflated() {
                assert_eq!(long[0], plain[0] | COMPRESSED);
                assert_eq!((usize::from(long[1]), long.len() * 2 < plain.len()), (long.len() - 2, true));
            } else {
                assert_eq!(long, plain);
            }
        }
    }

    #[test]
    fn who_only_listens_is_told_pushes_and_ends_by_errors() {
        let mut out = Vec::new();
        let reply = Reply { id: 7, unsubscribe: Some(EmptyResult {}), ..Reply::default() };
        assert_eq!(Wire::UniJsonStream.put_reply(&reply, &mut out), Ok(()));
        assert!(out.is_empty(), "an answer is not for it");
        let codes = [
            (ErrorCode::TOKEN_EXPIRED, Disconnect::EXPIRED),
            (ErrorCode::PERMISSION_DENIED, Disconnect::PERMISSION_DENIED),
            (ErrorCode::INTERNAL, Disconnect::SERVER_ERROR),
        ];
        for (error, disconnect) in codes {
            let reply = Reply { id: 1, error: Some(error.into()), ..Reply::default() };
            assert_eq!(Wire::UniJsonStream.put_reply(&reply, &mut out), Err(disconnect));
            assert_eq!(Wire::JsonStream.put_reply(&reply, &mut out), Ok(()));
        }
        assert!(out.starts_with(br#"{"id":1,"error":{"code":109,"#) && out.ends_with(b"\n"));
    }
}
