//! Whatever can be said is read back as it was written, in both encodings, alone and among others in one frame.

mod common;

use bytes::Bytes;
use proptest::{collection, prelude::*};
use prost::Message;
use roomcast_shared::{
    protocol::{
        Commands, DecodeError, Encoding, Envelope, Form,
        code::Unsubscribe,
        command::Command,
        command::SubscribeRequest,
        reply::{
            CodedPush, ConnectResult, HistoryResult, MessagePush, PresenceResult, PresenceStatsResult, Push,
            RefreshPush, Reply, RoomResult, RpcResult, SubRefreshResult, SubscribeResult,
        },
    },
    publication::{ClientInfo, Publication},
};

const ENCODINGS: [Encoding; 2] = [Encoding::Json, Encoding::Protobuf];

/// Messages one after the other, as a frame has them.
fn frame<T>(encoding: Encoding, messages: &[T], encode: impl Fn(&T, &mut Vec<u8>)) -> Vec<u8> {
    let mut frame = Vec::new();
    for (place, message) in messages.iter().enumerate() {
        if place > 0 && encoding == Encoding::Json {
            frame.push(b'\n');
        }
        encode(message, &mut frame);
    }
    frame
}

fn push_of(room: &str, publication: &Publication) -> Reply {
    let push = Push { channel: room.to_owned(), publication: Some(Box::new(publication.clone())), ..Push::default() };
    Reply { push: Some(Box::new(push)), ..Reply::default() }
}

/// Puts line breaks and blanks where JSON allows them.
fn spread(payload: &Bytes) -> Bytes {
    match serde_json::from_slice::<serde_json::Value>(payload) {
        Ok(value) => format!(
            "\r\n {}\n",
            serde_json::to_string_pretty(&value).expect("a value can be written").replace('\n', "\r\n")
        )
        .into(),
        Err(_) => Bytes::new(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn commands_come_back_as_they_went(commands in collection::vec(common::command(), 1..4)) {
        for encoding in ENCODINGS {
            let bytes = frame(encoding, &commands, |command, out| encoding.encode_command(command, out).unwrap());
            let read: Vec<_> = encoding.commands(&bytes).collect::<Result<_, _>>().unwrap();
            prop_assert_eq!(&read, &commands);
        }
    }

    #[test]
    fn replies_come_back_as_they_went(replies in collection::vec(common::reply(), 1..4)) {
        for encoding in ENCODINGS {
            let bytes = frame(encoding, &replies, |reply, out| encoding.encode_reply(reply, out).unwrap());
            let read: Vec<_> = encoding.replies(&bytes).collect::<Result<_, _>>().unwrap();
            prop_assert_eq!(&read, &replies);
        }
    }

    #[test]
    fn the_push_of_a_publication_is_the_reply_that_it_stands_for(
        room in common::text(),
        mut publication in common::publication(),
        spread_out: bool,
    ) {
        if spread_out {
            publication.data = spread(&publication.data);
            if let Some(info) = &mut publication.info {
                info.conn_info = spread(&info.conn_info);
            }
        }
        for encoding in ENCODINGS {
            let (mut short, mut long) = (b"before".to_vec(), b"before".to_vec());
            encoding.encode_publication(&room, &publication, &mut short).unwrap();
            let reply = push_of(&room, &publication);
            encoding.encode_reply(&reply, &mut long).unwrap();
            prop_assert_eq!(&short, &long);
            let (mut bare, mut push) = (b"before".to_vec(), b"before".to_vec());
            let form = Form { envelope: Envelope::Bare, delta: None };
            encoding.encode_publication_as(form, &room, &publication, &mut bare).unwrap();
            encoding.encode_push(reply.push.as_ref().unwrap(), &mut push).unwrap();
            prop_assert_eq!(&bare, &push);
            if encoding == Encoding::Json {
                prop_assert!(!short.contains(&b'\n') && !short.contains(&b'\r'));
            }
        }
    }

    #[test]
    fn a_bare_push_is_the_push_of_its_reply(push in common::push()) {
        let reply = Reply { push: Some(Box::new(push.clone())), ..Reply::default() };
        let (mut bare, mut whole) = (Vec::new(), Vec::new());
        Encoding::Json.encode_push(&push, &mut bare).unwrap();
        Encoding::Json.encode_reply(&reply, &mut whole).unwrap();
        prop_assert_eq!([&br#"{"push":"#[..], &bare, b"}"].concat(), whole);

        bare.clear();
        Encoding::Protobuf.encode_push(&push, &mut bare).unwrap();
        prop_assert_eq!(Push::decode_length_delimited(&bare[..]), Ok(push));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in collection::vec(any::<u8>(), 0..64)) {
        for encoding in ENCODINGS {
            prop_assert!(encoding.commands(&bytes).count() > 0);
            prop_assert!(encoding.replies(&bytes).count() > 0);
        }
        let publication = Publication { data: bytes.into(), ..Publication::default() };
        prop_assert!(Encoding::Protobuf.encode_publication("a", &publication, &mut Vec::new()).is_ok());
        let mut out = b"before".to_vec();
        if Encoding::Json.encode_publication("a", &publication, &mut out).is_err() {
            prop_assert_eq!(&out[..], b"before");
        }
    }

    #[test]
    fn damaged_commands_never_panic(command in common::command(), at: prop::sample::Index, byte: u8) {
        for encoding in ENCODINGS {
            let mut bytes = Vec::new();
            encoding.encode_command(&command, &mut bytes).unwrap();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            prop_assert!(encoding.commands(&bytes).count() > 0);
        }
    }

    #[test]
    fn a_message_cut_short_is_an_error(command in common::command(), cut: prop::sample::Index) {
        for encoding in ENCODINGS {
            let mut bytes = Vec::new();
            encoding.encode_command(&command, &mut bytes).unwrap();
            let cut = cut.index(bytes.len());
            let read: Vec<_> = encoding.commands(&bytes[..cut]).collect();
            prop_assert_eq!(read.len(), 1);
            prop_assert!(read[0].is_err());
        }
    }
}

#[test]
fn a_protobuf_frame_cut_at_any_byte_says_so() {
    let command = Command { id: 300, publish: Some(Box::default()), ..Command::default() };
    let mut frame = Vec::new();
    Encoding::Protobuf.encode_command(&command, &mut frame).unwrap();
    let first = frame.len();
    Encoding::Protobuf.encode_command(&command, &mut frame).unwrap();
    for cut in 0..frame.len() {
        let expected = match cut {
            0 => vec![Err(DecodeError::Empty)],
            cut if cut < first => vec![Err(DecodeError::Truncated)],
            cut if cut == first => vec![Ok(command.clone())],
            _ => vec![Ok(command.clone()), Err(DecodeError::Truncated)],
        };
        assert_eq!(Encoding::Protobuf.commands(&frame[..cut]).collect::<Vec<_>>(), expected, "cut at {cut}");
    }
}

#[test]
fn what_is_not_read_yet_is_a_frame_of_its_own() {
    let commands: Vec<_> = (1..4).map(|id| Command { id, ..Command::default() }).collect();
    for encoding in ENCODINGS {
        let bytes = frame(encoding, &commands, |command, out| encoding.encode_command(command, out).unwrap());
        let mut first: Commands<'_> = encoding.commands(&bytes);
        assert_eq!(first.next(), Some(Ok(commands[0].clone())));
        let rest = first.rest().to_vec();
        let read: Vec<_> = encoding.commands(&rest).collect::<Result<_, _>>().unwrap();
        assert_eq!(read, commands[1..]);
        assert_eq!(first.by_ref().count(), 2);
        assert!(first.rest().is_empty());
    }
}

#[test]
fn pings_are_the_empty_message() {
    for encoding in ENCODINGS {
        let (mut reply, mut push) = (Vec::new(), Vec::new());
        encoding.encode_reply(&Reply::default(), &mut reply).unwrap();
        encoding.encode_push(&Push::default(), &mut push).unwrap();
        assert_eq!((&reply[..], &push[..]), (encoding.ping(), encoding.ping()));
        let pong = encoding.commands(encoding.ping()).next().unwrap().unwrap();
        assert_eq!(pong, Command::default());
        assert!(pong.is_pong());
    }
}

#[test]
fn protobuf_fields_have_the_numbers_of_the_protocol() {
    let subscribe = SubscribeRequest { channel: "a".to_owned(), offset: 9, ..SubscribeRequest::default() };
    let command = Command { id: 1, subscribe: Some(Box::new(subscribe)), ..Command::default() };
    let mut bytes = Vec::new();
    Encoding::Protobuf.encode_command(&command, &mut bytes).unwrap();
    assert_eq!(bytes, b"\x09\x08\x01\x2a\x05\x0a\x01a\x38\x09");

    let publication = Publication { data: "1".into(), offset: 9, ..Publication::default() };
    let unsubscribe = Push { unsubscribe: Some(Unsubscribe::INSUFFICIENT.into()), ..Push::default() };
    let disconnect = CodedPush { code: 3001, reason: "x".to_owned() };
    let disconnect = Push { disconnect: Some(disconnect), ..Push::default() };
    let push = |push| Reply { push: Some(Box::new(push)), ..Reply::default() };
    for (reply, expected) in [
        (push_of("a", &publication), &b"\x0c\x22\x0a\x12\x01a\x22\x05\x22\x011\x30\x09"[..]),
        (push(unsubscribe), b"\x1b\x22\x19\x3a\x17\x10\xc4\x13\x1a\x12insufficient state"),
        (push(disconnect), b"\x0a\x22\x08\x5a\x06\x08\xb9\x17\x12\x01x"),
    ] {
        let mut bytes = Vec::new();
        Encoding::Protobuf.encode_reply(&reply, &mut bytes).unwrap();
        assert_eq!(bytes, expected);
    }
}

#[test]
fn the_other_answers_have_the_numbers_of_the_protocol() {
    let reply = Reply::default;
    let info = ClientInfo { user: "u".to_owned(), ..ClientInfo::default() };
    let presence = PresenceResult { presence: [("c".to_owned(), info)].into() };
    let history = HistoryResult { publications: vec![Publication::default()], epoch: "e".to_owned(), offset: 9 };
    for (reply, expected) in [
        (Reply { presence: Some(presence), ..reply() }, &b"\x0c\x4a\x0a\x0a\x08\x0a\x01c\x12\x03\x0a\x01u"[..]),
        (
            Reply { presence_stats: Some(PresenceStatsResult { num_clients: 2, num_users: 1 }), ..reply() },
            b"\x06\x52\x04\x08\x02\x10\x01",
        ),
        (Reply { history: Some(Box::new(history)), ..reply() }, b"\x09\x5a\x07\x0a\x00\x12\x01e\x18\x09"),
        (Reply { rpc: Some(RpcResult { data: "1".into() }), ..reply() }, b"\x05\x6a\x03\x0a\x011"),
        (
            Reply { sub_refresh: Some(SubRefreshResult { expires: true, ttl: 9 }), ..reply() },
            b"\x06\x7a\x04\x08\x01\x10\x09",
        ),
    ] {
        let mut bytes = Vec::new();
        Encoding::Protobuf.encode_reply(&reply, &mut bytes).unwrap();
        assert_eq!(bytes, expected);
    }
}

#[test]
fn the_other_pushes_have_the_numbers_of_the_protocol() {
    let push = Push::default;
    let result = SubscribeResult {
        recoverable: true,
        epoch: "e".to_owned(),
        offset: 9,
        positioned: true,
        data: "1".into(),
        ..SubscribeResult::default()
    };
    let connect = ConnectResult {
        client: "c".to_owned(),
        version: "v".to_owned(),
        expires: true,
        ttl: 9,
        data: "1".into(),
        subs: vec![RoomResult { room: "r".to_owned(), result: SubscribeResult::default() }],
        ping: 25,
        pong: true,
        session: "s".to_owned(),
        node: "n".to_owned(),
        time: 1,
    };
    for (push, expected) in [
        (Push { message: Some(MessagePush { data: "1".into() }), ..push() }, &b"\x05\x42\x03\x0a\x011"[..]),
        (
            Push { subscribe: Some(Box::new(result.into())), ..push() },
            b"\x0e\x4a\x0c\x08\x01\x22\x01e\x28\x09\x30\x01\x3a\x011",
        ),
        (
            Push { connect: Some(Box::new(connect.into())), ..push() },
            b"\x22\x52\x20\x0a\x01c\x12\x01v\x1a\x011\x22\x05\x0a\x01r\x12\x00\x28\x01\x30\x09\x38\x19\x40\x01\x4a\x01s\
              \x52\x01n\x58\x01",
        ),
        (Push { refresh: Some(RefreshPush { expires: true, ttl: 9 }), ..push() }, b"\x06\x62\x04\x08\x01\x10\x09"),
    ] {
        let mut bytes = Vec::new();
        Encoding::Protobuf.encode_push(&push, &mut bytes).unwrap();
        assert_eq!(bytes, expected);
    }
}
