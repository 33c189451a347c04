//! JSON as clients really spell it, and as those spell it who want to do harm.

use bytes::Bytes;
use roomcast_shared::{
    protocol::{
        DecodeError, Encoding,
        code::{Disconnect, ErrorCode, Unsubscribe},
        command::{ChannelRequest, Command, SubscribeRequest},
        reply::{
            ConnectResult, EmptyResult, MessagePush, PresenceResult, PresenceStatsResult, Push, RefreshPush, Reply,
            RpcResult, SubRefreshResult, SubscribeResult,
        },
    },
    publication::{ClientInfo, Publication},
};

fn read(frame: &[u8]) -> Result<Vec<Command>, DecodeError> {
    Encoding::Json.commands(frame).collect()
}

fn one(line: &str) -> Command {
    read(line.as_bytes()).expect(line).pop().expect("a frame gives at least one command")
}

fn written(reply: &Reply) -> String {
    let mut out = Vec::new();
    Encoding::Json.encode_reply(reply, &mut out).expect("payloads here are JSON");
    String::from_utf8(out).expect("JSON is UTF-8")
}

#[test]
fn the_first_frame_of_a_client_is_read() {
    let commands = read(
        br#"{"id":1,"connect":{"token":"eyJ","name":"js","headers":{"a":"b"},"subs":{"s":{"recover":true,"offset":7,"epoch":"e"}}}}
{"id":2,"subscribe":{"channel":"tags:t","tf":{"op":"and","nodes":[{"key":"team","cmp":"in","vals":["red"]},{"op":"not","nodes":[{"key":"min","cmp":"gt","val":"45"}]}]}}}
"#,
    )
    .unwrap();
    let connect = commands[0].connect.as_ref().unwrap();
    assert_eq!((commands[0].id, &*connect.token, &*connect.name, &*connect.headers["a"]), (1, "eyJ", "js", "b"));
    assert_eq!((connect.subs["s"].recover, connect.subs["s"].offset), (true, 7));
    let filter = commands[1].subscribe.as_ref().unwrap().tf.as_ref().unwrap();
    assert_eq!((filter.nodes[0].vals[0].as_str(), filter.nodes[1].nodes[0].val.as_str()), ("red", "45"));
}

#[test]
fn payloads_are_kept_as_they_are_spelt() {
    for data in
        [r#""text""#, "5", r#"[1,{"a":null}]"#, "true", "null", r#"{"ü":"→ \" \\ "}"#, "1.50e+3", r#""\ud83d""#, "{ }"]
    {
        let command = one(&format!(r#"{{"id":3,"publish":{{"channel":"a","data":{data}}}}}"#));
        assert_eq!(command.publish.unwrap().data, data.as_bytes());
    }
    assert_eq!(one(r#"{"id":3,"publish":{"channel":"a"}}"#).publish.unwrap().data, Bytes::new());
}

#[test]
fn escapes_in_strings_are_read() {
    let command = one(r#"{"i\u0064":3,"subscribe":{"ch\u0061nnel":"\u0041\u00fc\ud83d\ude00\n"}}"#);
    assert_eq!((command.id, &*command.subscribe.unwrap().channel), (3, "Aü😀\n"));
}

#[test]
fn null_is_an_absent_field() {
    assert!(one(r#"{"id":1,"connect":null,"send":null}"#) == Command { id: 1, ..Command::default() });
    let command = one(
        r#"{"id":null,"subscribe":{"channel":null,"tf":null,"offset":null,"recover":null},"connect":{"subs":null,"headers":null,"token":null}}"#,
    );
    assert_eq!(command.subscribe.as_deref(), Some(&SubscribeRequest::default()));
    let filter = one(r#"{"subscribe":{"tf":{"vals":null,"nodes":null}}}"#).subscribe.unwrap().tf;
    assert_eq!(filter, Some(Box::default()));
}

#[test]
fn unknown_keys_are_passed_over() {
    let command = one(r#"{"id":2,"later":{"a":[1]},"unsubscribe":{"channel":"a","also":"x"}}"#);
    assert_eq!(command.unsubscribe, Some(ChannelRequest { channel: "a".to_owned() }));
}

#[test]
fn only_a_command_without_id_and_send_is_a_pong() {
    for (line, pong) in
        [("{}", true), (" {} ", true), (r#"{"connect":{}}"#, true), (r#"{"id":1}"#, false), (r#"{"send":{}}"#, false)]
    {
        assert_eq!(one(line).is_pong(), pong, "{line}");
    }
}

#[test]
fn blank_frames_and_lines_are_empty() {
    for frame in ["", "\n", " ", "\r\n", "\n\n", "{}\n\n", "\n{}", "{}\n\n{}"] {
        assert_eq!(read(frame.as_bytes()), Err(DecodeError::Empty), "{frame:?}");
    }
    assert_eq!(read(b"{}\n{}\n").map(|commands| commands.len()), Ok(2));
    assert_eq!(read(b"{}\r\n{}\r\n").map(|commands| commands.len()), Ok(2));
}

#[test]
fn other_than_objects_is_malformed() {
    for line in [
        "hello",
        "[]",
        "[1]",
        "1",
        "null",
        "\"{}\"",
        "{",
        "{}}",
        "{}{}",
        "{} x",
        r#"{"id":-1}"#,
        r#"{"id":1.5}"#,
        r#"{"id":"1"}"#,
        r#"{"id":4294967296}"#,
        r#"{"id":1,"connect":[]}"#,
        r#"{"id":1,"connect":""}"#,
        r#"{"id":1,"subscribe":{"channel":5}}"#,
        r#"{"subscribe":{"tf":[]}}"#,
        r#"{"subscribe":{"tf":{"nodes":[[]]}}}"#,
        r#"{"connect":{"subs":{"a":[]}}}"#,
        r#"{"publish":{"data":}}"#,
        r#"{"publish":{"data":01}}"#,
        r#"{"id":1,"id":2}"#,
        "{\"a\":\"\u{1}\"}",
    ] {
        assert!(matches!(read(line.as_bytes()), Err(DecodeError::Malformed { .. })), "{line}");
    }
}

#[test]
fn bytes_that_are_no_text_are_refused() {
    for frame in [&b"\xff"[..], b"{\"a\":\"\xc3\"}", b"{\"publish\":{\"data\":\"\xed\xa0\x80\"}}"] {
        assert_eq!(read(frame), Err(DecodeError::NotUtf8));
    }
}

#[test]
fn nothing_is_read_behind_an_error() {
    let mut commands = Encoding::Json.commands(b"{\"id\":1}\nx\n{\"id\":2}");
    assert_eq!(commands.next().map(|command| command.map(|command| command.id)), Some(Ok(1)));
    assert!(matches!(commands.next(), Some(Err(DecodeError::Malformed { .. }))));
    assert!(commands.rest().is_empty() && commands.next().is_none());
}

#[test]
fn nesting_of_payloads_ends_at_128_wherever_it_is() {
    let nested = |open: &str, close: &str, levels: usize| format!("{}{}", open.repeat(levels), close.repeat(levels));
    for (before, after, outer) in
        [(r#"{"id":1,"publish":{"channel":"a","data":"#, "}}", 2), (r#"{"id":1,"unknown":"#, "}", 1)]
    {
        for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
            let innermost = if open == "[" { "" } else { "1" };
            let line = |levels| {
                let value = nested(open, "", levels) + innermost + &nested("", close, levels);
                format!("{before}{value}{after}")
            };
            assert!(read(line(130 - outer).as_bytes()).is_ok());
            assert_eq!(read(line(131 - outer).as_bytes()), Err(DecodeError::TooDeep));
            assert_eq!(read(line(30_000).as_bytes()), Err(DecodeError::TooDeep));
        }
    }
    let filters = |levels| format!(r#"{{"subscribe":{{"tf":{}}}}}"#, nested(r#"{"nodes":["#, "]}", levels));
    assert!(read(filters(62).as_bytes()).is_ok());
    assert_eq!(read(filters(70).as_bytes()), Err(DecodeError::TooDeep));
    assert_eq!(read("[".repeat(30_000).as_bytes()), Err(DecodeError::TooDeep));
    let brackets_in_text = format!(r#"{{"id":1,"publish":{{"channel":"a","data":"{}"}}}}"#, "[".repeat(1000));
    assert!(read(brackets_in_text.as_bytes()).is_ok());
}

#[test]
fn replies_leave_out_what_is_empty_save_what_clients_rely_on() {
    let info = ClientInfo { conn_info: "{}".into(), ..ClientInfo::default() };
    let publication = Publication { data: "{\"a\":\n2}".into(), info: Some(info), offset: 9, ..Publication::default() };
    let push = |push| Reply { push: Some(Box::new(push)), ..Reply::default() };
    for (reply, text) in [
        (Reply { id: 3, publish: Some(EmptyResult {}), ..Reply::default() }, r#"{"id":3,"publish":{}}"#),
        (Reply { id: 2, subscribe: Some(Box::default()), ..Reply::default() }, r#"{"id":2,"subscribe":{}}"#),
        (
            Reply { id: 8, error: Some(ErrorCode::NOT_AVAILABLE.into()), ..Reply::default() },
            r#"{"id":8,"error":{"code":108,"message":"not available"}}"#,
        ),
        (
            Reply { id: 9, error: Some(ErrorCode::INTERNAL.into()), ..Reply::default() },
            r#"{"id":9,"error":{"code":100,"message":"internal server error","temporary":true}}"#,
        ),
        (
            Reply {
                id: 1,
                connect: Some(Box::new(ConnectResult {
                    client: "c".to_owned(),
                    ping: 25,
                    pong: true,
                    ..ConnectResult::default()
                })),
                ..Reply::default()
            },
            r#"{"id":1,"connect":{"client":"c","ping":25,"pong":true}}"#,
        ),
        (
            push(Push { channel: "a".to_owned(), publication: Some(Box::new(publication)), ..Push::default() }),
            r#"{"push":{"channel":"a","pub":{"data":{"a":2},"info":{"user":"","client":"","conn_info":{}},"offset":9}}}"#,
        ),
        (
            push(Push {
                channel: "a".to_owned(),
                unsubscribe: Some(Unsubscribe::INSUFFICIENT.into()),
                ..Push::default()
            }),
            r#"{"push":{"channel":"a","unsubscribe":{"code":2500,"reason":"insufficient state"}}}"#,
        ),
    ] {
        assert_eq!(written(&reply), text);
    }
}

#[test]
fn answers_that_clients_read_without_asking_are_written_whole() {
    let reply = |id| Reply { id, ..Reply::default() };
    for (reply, text) in [
        (Reply { presence: Some(PresenceResult::default()), ..reply(1) }, r#"{"id":1,"presence":{"presence":{}}}"#),
        (
            Reply { presence_stats: Some(PresenceStatsResult::default()), ..reply(2) },
            r#"{"id":2,"presence_stats":{"num_clients":0,"num_users":0}}"#,
        ),
        (
            Reply { history: Some(Box::default()), ..reply(3) },
            r#"{"id":3,"history":{"publications":[],"epoch":"","offset":0}}"#,
        ),
        (
            Reply {
                presence: Some(PresenceResult { presence: [("c".into(), ClientInfo::default())].into() }),
                ..reply(4)
            },
            r#"{"id":4,"presence":{"presence":{"c":{"user":"","client":""}}}}"#,
        ),
        (Reply { rpc: Some(RpcResult { data: "[\n1]".into() }), ..reply(5) }, r#"{"id":5,"rpc":{"data":[1]}}"#),
        (Reply { rpc: Some(RpcResult::default()), ..reply(6) }, r#"{"id":6,"rpc":{}}"#),
        (Reply { sub_refresh: Some(SubRefreshResult::default()), ..reply(7) }, r#"{"id":7,"sub_refresh":{}}"#),
        (
            Reply { sub_refresh: Some(SubRefreshResult { expires: true, ttl: 9 }), ..reply(8) },
            r#"{"id":8,"sub_refresh":{"expires":true,"ttl":9}}"#,
        ),
    ] {
        assert_eq!(written(&reply), text);
    }
}

#[test]
fn clients_that_only_listen_get_pushes_without_a_reply() {
    let connect = ConnectResult { client: "c".into(), ping: 25, session: "s".into(), ..ConnectResult::default() };
    let subscribe = SubscribeResult { recoverable: true, epoch: "e".into(), ttl: 9, ..SubscribeResult::default() };
    let room = || Push { channel: "a".to_owned(), ..Push::default() };
    for (push, text) in [
        (
            Push { connect: Some(Box::new(connect.into())), ..Push::default() },
            r#"{"connect":{"client":"c","ping":25,"session":"s"}}"#,
        ),
        (
            Push { subscribe: Some(Box::new(subscribe.into())), ..room() },
            r#"{"channel":"a","subscribe":{"recoverable":true,"epoch":"e"}}"#,
        ),
        (
            Push { unsubscribe: Some(Unsubscribe::SERVER.into()), ..room() },
            r#"{"channel":"a","unsubscribe":{"code":2000,"reason":"server unsubscribe"}}"#,
        ),
        (
            Push { disconnect: Some((&Disconnect::SHUTDOWN).into()), ..Push::default() },
            r#"{"disconnect":{"code":3001,"reason":"shutdown"}}"#,
        ),
        (
            Push { refresh: Some(RefreshPush { expires: true, ttl: 9 }), ..Push::default() },
            r#"{"refresh":{"expires":true,"ttl":9}}"#,
        ),
        (Push { message: Some(MessagePush { data: "1".into() }), ..Push::default() }, r#"{"message":{"data":1}}"#),
    ] {
        let mut out = Vec::new();
        Encoding::Json.encode_push(&push, &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), text);
    }
}

#[test]
fn payloads_that_are_no_json_are_not_told_to_json_clients() {
    for data in ["", "x", "{", "1 2", "{}x", "\u{0}"] {
        let publication = Publication { data: data.into(), ..Publication::default() };
        let result = SubscribeResult { data: data.into(), ..SubscribeResult::default() };
        let reply = Reply { subscribe: Some(Box::new(result)), ..Reply::default() };
        let mut out = b"before".to_vec();
        if data.is_empty() {
            assert!(Encoding::Json.encode_publication("a", &publication, &mut out).is_ok());
            continue;
        }
        assert!(Encoding::Json.encode_publication("a", &publication, &mut out).is_err(), "{data}");
        assert!(Encoding::Json.encode_reply(&reply, &mut out).is_err(), "{data}");
        assert_eq!(out, b"before");
    }
    let binary = Publication { data: Bytes::from_static(b"\"\xff\""), ..Publication::default() };
    assert!(Encoding::Json.encode_publication("a", &binary, &mut Vec::new()).is_err());
}
