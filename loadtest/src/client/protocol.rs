//! The few words of the Centrifuge protocol that a load needs: opening commands, publish, pong, and a way through the
//! server's messages that decodes replies and passes over publications. Knows bytes only.

use bytes::Bytes;
use memchr::memchr;
use roomcast_shared::protocol::{
    Encoding,
    command::{Command, ConnectRequest, PublishRequest, SubscribeRequest},
    reply::Reply,
};

use super::{
    End,
    frame::{self, Opcode},
};
use crate::plan::Spelling;

/// Subscribe commands that go into one frame, well below any server's message limit.
const SUBSCRIBES_PER_FRAME: usize = 64;
/// Id of the connect command; subscribes follow it.
pub const CONNECT_ID: u32 = 1;

/// One message of the server.
#[derive(Debug, PartialEq)]
pub enum Message<'a> {
    /// Something published, join, leave or the like: its bytes, not decoded.
    Push(&'a [u8]),
    /// Wants a pong.
    Ping,
    /// The answer to a command.
    Reply(Box<Reply>),
    /// Bytes that are no message of this protocol.
    Broken(String),
}

/// Calls `each` with every message of a data frame, until it says that the connection has to end.
///
/// # Errors
/// What `each` says.
#[inline]
pub fn messages(
    spelling: Spelling,
    mut frame: &[u8],
    mut each: impl FnMut(Message<'_>) -> Result<(), End>,
) -> Result<(), End> {
    while !frame.is_empty() {
        let (message, rest) = match spelling {
            Spelling::Json => split_line(frame),
            Spelling::Protobuf => split_delimited(frame),
        };
        each(message)?;
        frame = rest;
    }
    Ok(())
}

fn split_line(frame: &[u8]) -> (Message<'_>, &[u8]) {
    let end = memchr(b'\n', frame).unwrap_or(frame.len());
    let (line, rest) = frame.split_at(end);
    let is_push = line.starts_with(b"{\"push\":");
    let message = if is_push { Message::Push(line) } else { decode(Spelling::Json, line) };
    (message, rest.get(1..).unwrap_or_default())
}

fn split_delimited(frame: &[u8]) -> (Message<'_>, &[u8]) {
    let Some((header, length)) = prefix(frame).filter(|(header, length)| header + length <= frame.len()) else {
        return (Message::Broken("a Protobuf message is cut short".into()), &[]);
    };
    let (whole, rest) = frame.split_at(header + length);
    // Tag 4, length-delimited: a reply that is a push carries nothing before it.
    let is_push = whole.get(header) == Some(&0x22);
    (if is_push { Message::Push(whole) } else { decode(Spelling::Protobuf, whole) }, rest)
}

/// Length of the uvarint at the start, and its value.
fn prefix(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0usize;
    for (place, &byte) in bytes.iter().take(5).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * place);
        if byte < 0x80 {
            return Some((place + 1, value));
        }
    }
    None
}

fn decode(spelling: Spelling, message: &[u8]) -> Message<'static> {
    let encoding = spelling.encoding();
    if message == encoding.ping() {
        return Message::Ping;
    }
    match encoding.replies(message).next() {
        Some(Ok(reply)) => Message::Reply(Box::new(reply)),
        Some(Err(error)) => Message::Broken(error.to_string()),
        None => Message::Broken("an empty message".into()),
    }
}

/// Why a push ends a subscription or the connection, if it does.
pub fn ending(spelling: Spelling, push: &[u8]) -> Option<String> {
    let push = spelling.encoding().replies(push).next()?.ok()?.push?;
    match (push.unsubscribe, push.disconnect) {
        (Some(push), _) => Some(format!("unsubscribed: {} {}", push.code, push.reason)),
        (_, push) => push.map(|push| format!("{} {}", push.code, push.reason)),
    }
}

/// The frames that open a session: connect and the subscribes to `rooms`, as SDKs send them, not waiting for replies.
pub fn opening(spelling: Spelling, token: String, rooms: &[String]) -> Vec<u8> {
    let connect = ConnectRequest { token, name: "loadtest".into(), ..ConnectRequest::default() };
    let mut commands = vec![Command { id: CONNECT_ID, connect: Some(Box::new(connect)), ..Command::default() }];
    commands.extend((CONNECT_ID + 1..).zip(rooms).map(|(id, room)| {
        let subscribe = SubscribeRequest { channel: room.clone(), ..SubscribeRequest::default() };
        Command { id, subscribe: Some(Box::new(subscribe)), ..Command::default() }
    }));
    let mut out = Vec::new();
    for commands in commands.chunks(SUBSCRIBES_PER_FRAME) {
        let mut message = Vec::new();
        for command in commands {
            if !message.is_empty() && spelling == Spelling::Json {
                message.push(b'\n');
            }
            encode(spelling.encoding(), command, &mut message);
        }
        frame::write(data(spelling), &message, &mut out);
    }
    out
}

/// Appends the frame of one publish command.
pub fn publish(spelling: Spelling, id: u32, room: &str, payload: Vec<u8>, out: &mut Vec<u8>) {
    let publish = PublishRequest { channel: room.to_owned(), data: Bytes::from(payload) };
    let command = Command { id, publish: Some(Box::new(publish)), ..Command::default() };
    let mut message = Vec::with_capacity(256);
    encode(spelling.encoding(), &command, &mut message);
    frame::write(data(spelling), &message, out);
}

/// Appends the frame of a pong.
pub fn pong(spelling: Spelling, out: &mut Vec<u8>) {
    frame::write(data(spelling), spelling.encoding().ping(), out);
}

fn encode(encoding: Encoding, command: &Command, out: &mut Vec<u8>) {
    encoding.encode_command(command, out).expect("payloads of this tool are JSON");
}

fn data(spelling: Spelling) -> Opcode {
    match spelling {
        Spelling::Json => Opcode::Text,
        Spelling::Protobuf => Opcode::Binary,
    }
}

#[cfg(test)]
mod tests {
    use roomcast_shared::{protocol::reply::EmptyResult, publication::Publication};

    use super::*;

    fn walk(spelling: Spelling, frame: &[u8]) -> Vec<String> {
        let mut seen = Vec::new();
        messages(spelling, frame, |message| {
            seen.push(match message {
                Message::Push(bytes) => format!("push {}", memchr::memmem::find(bytes, b"payload").is_some()),
                Message::Reply(reply) => format!("reply {}", reply.id),
                Message::Ping => "ping".into(),
                Message::Broken(_) => "broken".into(),
            });
            Ok(())
        })
        .expect("never told to end");
        seen
    }

    #[test]
    fn mixed_frames_are_walked_in_both_spellings() {
        let publication = Publication { data: Bytes::from_static(b"\"payload\""), ..Publication::default() };
        let reply = Reply { id: 7, publish: Some(EmptyResult {}), ..Reply::default() };
        for spelling in [Spelling::Json, Spelling::Protobuf] {
            let encoding = spelling.encoding();
            let newline: &[u8] = if spelling == Spelling::Json { b"\n" } else { b"" };
            let mut frame = Vec::new();
            encoding.encode_publication("room", &publication, &mut frame).expect("it is JSON");
            frame.extend_from_slice(newline);
            encoding.encode_reply(&reply, &mut frame).expect("it is JSON");
            frame.extend_from_slice(newline);
            frame.extend_from_slice(encoding.ping());
            assert_eq!(walk(spelling, &frame), ["push true", "reply 7", "ping"], "{spelling:?}");
        }
    }

    #[test]
    fn broken_messages_are_seen() {
        assert_eq!(walk(Spelling::Json, b"nonsense"), ["broken"]);
        assert_eq!(walk(Spelling::Protobuf, &[5, 0x22]), ["broken"]);
        assert_eq!(walk(Spelling::Protobuf, &[0xff; 20]), ["broken"]);
    }

    #[test]
    fn opening_commands_are_split_over_frames() {
        let rooms: Vec<String> = (0..100).map(|n| format!("r{n}")).collect();
        let bytes = opening(Spelling::Json, "t".into(), &rooms);
        let (first, length) = frame::read_masked(&bytes).expect("whole");
        let (second, rest) = frame::read_masked(&bytes[length..]).expect("whole");
        assert_eq!(length + rest, bytes.len());
        let ids = |frame: &[u8]| Encoding::Json.commands(frame).map(|c| c.expect("valid").id).collect::<Vec<_>>();
        assert_eq!([ids(&first), ids(&second)].concat(), (1..=101).collect::<Vec<_>>());
    }
}
