//! The few words of the Centrifuge protocol that a load needs: opening commands, publish, pong, and a way through the
//! server's messages that decodes replies and passes over publications. Knows bytes only.

use bytes::Bytes;
use memchr::memchr;
use roomcast_shared::protocol::{
    Encoding,
    command::{ChannelRequest, Command, ConnectRequest, PublishRequest, SubscribeRequest},
    reply::Reply,
};

use super::{
    End,
    frame::{self, Opcode},
};
use crate::{
    plan::Spelling,
    turmoil::{Question, Wishes},
};

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

/// What a push says that carries nothing published by this run.
#[derive(Debug, PartialEq, Eq)]
pub enum News {
    /// Somebody entered or left.
    Membership,
    /// A subscription or the connection ends, and why.
    Ending(String),
    /// Anything else.
    Foreign,
}

/// Understands a push that carries nothing published by this run.
pub fn news(spelling: Spelling, push: &[u8]) -> News {
    let Some(Ok(Reply { push: Some(push), .. })) = spelling.encoding().replies(push).next() else {
        return News::Foreign;
    };
    match (push.unsubscribe, push.disconnect, push.join.or(push.leave)) {
        (Some(push), ..) => News::Ending(format!("unsubscribed: {} {}", push.code, push.reason)),
        (_, Some(push), _) => News::Ending(format!("{} {}", push.code, push.reason)),
        (.., Some(_)) => News::Membership,
        _ => News::Foreign,
    }
}

/// The offset of a publication; 0 where it has none.
pub fn offset(spelling: Spelling, push: &[u8]) -> u64 {
    if spelling == Spelling::Json {
        // The last one, because a payload may hold the word too, and comes before it.
        let number = memchr::memmem::rfind(push, b"\"offset\":").map(|at| &push[at + 9..]).unwrap_or_default();
        return number
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .fold(0, |sum, byte| sum * 10 + u64::from(byte - b'0'));
    }
    let reply = spelling.encoding().replies(push).next().and_then(Result::ok);
    reply.and_then(|reply| reply.push?.publication).map_or(0, |publication| publication.offset)
}

/// What a client remembers of a room that recovers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Epoch of the room.
    pub epoch: String,
    /// Offset of the last publication heard.
    pub offset: u64,
}

/// The subscribe of a client that wishes so, and remembers `position`, if any.
fn subscribe(room: &str, wishes: Wishes, position: Option<&Position>) -> SubscribeRequest {
    let Position { epoch, offset } = position.cloned().unwrap_or_default();
    SubscribeRequest {
        channel: room.to_owned(),
        positioned: wishes.positioned,
        recoverable: wishes.recover,
        recover: position.is_some(),
        join_leave: wishes.join_leave,
        epoch,
        offset,
        ..SubscribeRequest::default()
    }
}

/// The frames that open a session: connect and the subscribes to `rooms`, as SDKs send them, not waiting for replies.
/// `positions` are those of the rooms, in their order, or none.
pub fn opening(spelling: Spelling, token: String, rooms: &[String], wishes: Wishes, positions: &[Position]) -> Vec<u8> {
    let connect = ConnectRequest { token, name: "loadtest".into(), ..ConnectRequest::default() };
    let mut commands = vec![Command { id: CONNECT_ID, connect: Some(Box::new(connect)), ..Command::default() }];
    commands.extend((CONNECT_ID + 1..).zip(rooms.iter().enumerate()).map(|(id, (place, room))| {
        let subscribe = subscribe(room, wishes, positions.get(place));
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
    let publish = PublishRequest { channel: room.to_owned(), data: Bytes::from(payload), ..PublishRequest::default() };
    let command = Command { id, publish: Some(Box::new(publish)), ..Command::default() };
    let mut message = Vec::with_capacity(256);
    encode(spelling.encoding(), &command, &mut message);
    frame::write(data(spelling), &message, out);
}

/// Appends the frame of a question about a room.
pub fn ask(spelling: Spelling, id: u32, question: Question, room: &str, out: &mut Vec<u8>) {
    let room = Some(ChannelRequest { channel: room.to_owned() });
    let command = match question {
        Question::Presence => Command { id, presence: room, ..Command::default() },
        Question::PresenceStats => Command { id, presence_stats: room, ..Command::default() },
    };
    let mut message = Vec::new();
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
    fn offsets_are_found_behind_the_payload() {
        let data = Bytes::from_static(br#"{"offset":7}"#);
        let publication = Publication { data, offset: 4_294_967_296, ..Publication::default() };
        for spelling in [Spelling::Json, Spelling::Protobuf] {
            let mut push = Vec::new();
            spelling.encoding().encode_publication("room", &publication, &mut push).expect("it is JSON");
            assert_eq!(offset(spelling, &push), 4_294_967_296, "{spelling:?}");
        }
    }

    #[test]
    fn who_comes_back_names_its_position() {
        let (rooms, position) = (["r".to_owned()], Position { epoch: "e".into(), offset: 9 });
        let wishes = Wishes { recover: true, ..Wishes::default() };
        let bytes = opening(Spelling::Json, String::new(), &rooms, wishes, &[position]);
        let (frame, _) = frame::read_masked(&bytes).expect("whole");
        let subscribe = Encoding::Json.commands(&frame).nth(1).expect("two").expect("valid").subscribe.expect("it is");
        assert_eq!(
            (subscribe.recover, subscribe.recoverable, &*subscribe.epoch, subscribe.offset),
            (true, true, "e", 9)
        );
    }

    #[test]
    fn opening_commands_are_split_over_frames() {
        let rooms: Vec<String> = (0..100).map(|n| format!("r{n}")).collect();
        let bytes = opening(Spelling::Json, "t".into(), &rooms, Wishes::default(), &[]);
        let (first, length) = frame::read_masked(&bytes).expect("whole");
        let (second, rest) = frame::read_masked(&bytes[length..]).expect("whole");
        assert_eq!(length + rest, bytes.len());
        let ids = |frame: &[u8]| Encoding::Json.commands(frame).map(|c| c.expect("valid").id).collect::<Vec<_>>();
        assert_eq!([ids(&first), ids(&second)].concat(), (1..=101).collect::<Vec<_>>());
    }
}
