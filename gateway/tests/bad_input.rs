//! What clients must not send, over raw sockets: each violation ends with its code, costs no memory and harms nobody else.

#![expect(clippy::unwrap_used, reason = "a test whose setting up fails has failed")]

mod common;

use std::time::Duration;

use common::{Client, Frame, Gateway, PATIENCE, Process, Value, frame, json, redis::RedisServer, token};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};

/// Most bytes of a message where a test has to reach it.
const LIMIT: usize = 1024;

/// What a new connection is closed with after these bytes.
async fn code_after(node: &Gateway, path: &str, bytes: &[u8]) -> Option<u16> {
    let mut client = Client::open_at(node.clients, path, &[]).await;
    client.send_bytes(bytes).await;
    client.closed().await.map(|(code, _)| code)
}

/// The same on one that is connected and in the room `room`.
async fn code_in_room(node: &Gateway, bytes: &[u8]) -> Option<u16> {
    let mut client = Client::subscribed(node.clients, "ann", "room").await;
    client.send_bytes(bytes).await;
    client.closed().await.map(|(code, _)| code)
}

const JSON: &str = "/connection/websocket";
const PROTOBUF: &str = "/connection/websocket?format=protobuf";

fn connect_command() -> String {
    json!({"id": 1, "connect": {"token": token(&json!({"sub": "ann"}))}}).to_string()
}

#[tokio::test]
async fn each_violation_of_the_framing_has_its_code() {
    let node = Gateway::open("");
    let text = |first: u8, payload: &[u8]| frame(first, payload);
    let both = |one: Vec<u8>, other: Vec<u8>| [one, other].concat();
    let masked = |length: &[u8], payload: usize| [&[0x81][..], length, &[0; 4], &vec![0; payload]].concat();
    let cases: Vec<(&str, Vec<u8>, u16)> = vec![
        ("no mask", b"\x81\x02{}".to_vec(), 1002),
        ("no mask on a ping", b"\x89\x00".to_vec(), 1002),
        ("RSV1", text(0xC1, b"{}"), 1002),
        ("RSV2", text(0xA1, b"{}"), 1002),
        ("RSV3", text(0x91, b"{}"), 1002),
        ("RSV1 on a ping", text(0xC9, b""), 1002),
        ("opcode 3", text(0x83, b"{}"), 1002),
        ("opcode 7", text(0x87, b"{}"), 1002),
        ("opcode 11", text(0x8B, b"{}"), 1002),
        ("opcode 15", text(0x8F, b"{}"), 1002),
        ("ping in fragments", text(0x09, b""), 1002),
        ("close in fragments", text(0x08, b""), 1002),
        ("ping of 126 bytes", text(0x89, &[0; 126]), 1002),
        ("close of 126 bytes", text(0x88, &[b'x'; 126]), 1002),
        ("pong that announces 64 bits", [&[0x8A, 0xFF][..], &70_000_u64.to_be_bytes()].concat(), 1002),
        ("continuation of nothing", text(0x80, b"{}"), 1002),
        ("middle of nothing", text(0x00, b"{}"), 1002),
        ("message in a message", both(text(0x01, b"{"), text(0x81, b"}")), 1002),
        ("other message in a message", both(text(0x01, b"{"), text(0x02, b"}")), 1002),
        (
            "continuation after the end",
            both(both(text(0x01, b"{"), text(0x00, b"")), both(vec![], text(0xC0, b"}"))),
            1002,
        ),
        ("16 bits for 125", masked(&[0xFE, 0, 125], 125), 1002),
        ("64 bits for 125", masked(&[0xFF, 0, 0, 0, 0, 0, 0, 0, 125], 125), 1002),
        ("64 bits for 65535", [&[0x81, 0xFF][..], &65_535_u64.to_be_bytes()].concat(), 1002),
        ("highest bit of 64", [&[0x81, 0xFF][..], &(1_u64 << 63).to_be_bytes()].concat(), 1002),
        ("close of one byte", text(0x88, &[3]), 1002),
        ("close reason not UTF-8", text(0x88, b"\x03\xE8\xFF"), 1007),
        ("text not UTF-8", text(0x81, b"{\"id\":\"\xFF\"}"), 1007),
        ("text cut in a character", text(0x81, b"\xE2\x82"), 1007),
        ("surrogate", text(0x81, b"\xED\xA0\x80"), 1007),
        ("overlong", text(0x81, b"\xC0\xAF"), 1007),
        ("first fragment not UTF-8", text(0x01, b"\xFFabc"), 1007),
        ("UTF-8 wrong over fragments", both(text(0x01, b"\xE2\x82"), text(0x00, b"x")), 1007),
        ("text in fragments cut in a character", both(text(0x01, b"\xE2"), text(0x80, b"\x82")), 1007),
    ];
    let close_codes = [0_u16, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535];
    let bad_codes = close_codes.map(|code| ("close code", frame(0x88, &code.to_be_bytes()), 1002));
    for (what, bytes, code) in cases.into_iter().chain(bad_codes) {
        assert_eq!(code_after(&node, JSON, &bytes).await, Some(code), "{what}: {bytes:02x?}");
    }
    node.stop().await;
}

#[tokio::test]
async fn a_close_frame_is_answered_with_its_code_and_the_end() {
    let node = Gateway::open("");
    let cases: [(&[u8], u16); 6] = [
        (b"", 1005),
        (b"\x03\xE8", 1000),
        (b"\x03\xE9bye", 1001),
        (b"\x03\xF3", 1011),
        (b"\x0B\xB8", 3000),
        (b"\x13\x87", 4999),
    ];
    for (payload, code) in cases {
        let mut client = Client::open(node.clients).await;
        client.send_bytes(&frame(0x88, payload)).await;
        assert_eq!(client.closed().await, Some((code, String::new())));
        assert_eq!(client.frame().await, None, "nothing after it");
    }
    node.stop().await;
}

#[tokio::test]
async fn pings_are_answered_with_their_payload_also_between_fragments() {
    let node = Gateway::open("");
    let mut client = Client::open(node.clients).await;
    let pong = |payload: &[u8]| Some(Frame { opcode: 0xA, payload: payload.to_vec() });
    for payload in [&b""[..], b"hello", &[0xFF; 125]] {
        client.send_bytes(&frame(0x89, payload)).await;
        assert_eq!(client.frame().await, pong(payload));
    }
    let command = connect_command();
    let (one, rest) = command.split_at(7);
    let (two, three) = rest.split_at(9);
    client.send_bytes(&frame(0x01, one.as_bytes())).await;
    client.send_bytes(&frame(0x89, b"between")).await;
    assert_eq!(client.frame().await, pong(b"between"));
    client.send_bytes(&frame(0x00, two.as_bytes())).await;
    client.send_bytes(&frame(0x00, b"")).await;
    client.send_bytes(&frame(0x8A, b"a pong nobody asked for")).await;
    client.send_bytes(&frame(0x80, three.as_bytes())).await;
    assert_eq!(client.next().await["id"], 1);
    drop(client);
    node.stop().await;
}

#[tokio::test]
async fn characters_may_be_cut_by_fragments() {
    let node = Gateway::open("");
    let mut client = Client::subscribed(node.clients, "ann", "room").await;
    let text = json!({"id": 9, "publish": {"channel": "room", "data": "aé€😀"}}).to_string();
    for cut in 1..text.len() {
        client.send_bytes(&frame(0x01, &text.as_bytes()[..cut])).await;
        client.send_bytes(&frame(0x80, &text.as_bytes()[cut..])).await;
        assert_eq!(client.hear("room").await, "aé€😀", "cut at {cut}");
    }
    drop(client);
    node.stop().await;
}

#[tokio::test]
async fn a_message_of_the_limit_is_taken_and_one_byte_more_is_not() {
    let node = Gateway::open(&format!("websocket.message_size_limit = {LIMIT}"));
    let mut command = connect_command();
    command += &" ".repeat(LIMIT - command.len());
    let mut client = Client::open(node.clients).await;
    client.send(&command).await;
    assert_eq!(client.next().await["id"], 1, "exactly the limit");
    client.send_bytes(&frame(0x01, &[b' '; LIMIT - 3])).await;
    client.send_bytes(&frame(0x80, b"{} ")).await;
    assert_eq!(client.closed().await.map(|(code, _)| code), Some(3501), "over fragments it is a message, if a bad one");

    let header = |first: u8, length: &[u8]| [&[first][..], length].concat();
    let cases = [
        ("whole", frame(0x81, format!("{command} ").as_bytes())),
        ("announced in 16 bits", header(0x81, &[0xFE, 0x04, 0x01])),
        ("announced in 64 bits", header(0x82, &[0xFF, 0, 0, 1, 0, 0, 0, 0, 0])),
        ("announced as the most", header(0x82, &[0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF])),
        ("first fragment", header(0x01, &[0xFE, 0x04, 0x01])),
        ("over fragments", [frame(0x01, &[b' '; LIMIT]), frame(0x80, b"x")].concat()),
        ("announced by a fragment", [frame(0x01, &[b' '; 1000]), header(0x00, &[0x99])].concat()),
    ];
    for (what, bytes) in cases {
        assert_eq!(code_after(&node, JSON, &bytes).await, Some(1009), "{what}");
    }
    drop(client);
    node.stop().await;
}

#[tokio::test]
async fn bytes_come_as_they_like() {
    let node = Gateway::open("");
    let mut client = Client::open(node.clients).await;
    for byte in frame(0x81, connect_command().as_bytes()) {
        client.send_bytes(&[byte]).await;
    }
    assert_eq!(client.next().await["id"], 1, "byte by byte");

    let subscribe = frame(0x81, br#"{"id":2,"subscribe":{"channel":"room"}}"#);
    let publish =
        |id: usize| frame(0x81, format!(r#"{{"id":{id},"publish":{{"channel":"room","data":{id}}}}}"#).as_bytes());
    let pipelined = [subscribe, (10..50).flat_map(publish).collect()].concat();
    client.send_bytes(&pipelined).await;
    for id in 10..50 {
        assert_eq!(client.hear("room").await, id, "all in one write");
    }
    let two = [publish(60), publish(61)].concat();
    for cut in 1..two.len() {
        client.send_bytes(&two[..cut]).await;
        tokio::task::yield_now().await;
        client.send_bytes(&two[cut..]).await;
        assert_eq!((client.hear("room").await, client.hear("room").await), (json!(60), json!(61)), "cut at {cut}");
    }
    drop(client);
    node.stop().await;
}

/// Commands that wait for the broker stop the reading; what lies behind them must go on by itself when they are answered.
#[tokio::test]
async fn frames_behind_commands_that_wait_are_taken_when_those_are_done() {
    let redis = RedisServer::start();
    let node = Gateway::open(&format!("redis.url = {:?}\nclient.ping_interval = \"0s\"\n", redis.url()));
    let mut client = Client::connected(node.clients, "ann").await;
    let commands = [
        json!({"id": 11, "subscribe": {"channel": "a"}}),
        json!({"id": 12, "unsubscribe": {"channel": "a"}}),
        json!({"id": 13, "subscribe": {"channel": "b"}}),
        json!({"id": 14, "unsubscribe": {"channel": "b"}}),
        json!({"id": 15, "subscribe": {"channel": "c"}}),
    ];
    let frames: Vec<u8> = commands.iter().flat_map(|command| frame(0x81, command.to_string().as_bytes())).collect();
    client.send_bytes(&frames).await;
    for id in 11..=15 {
        assert_eq!(client.next().await["id"], id);
    }
    drop(client);
    node.stop().await;
}

/// `connect` in Protobuf behind its length, by hand: Command.id = 1, Command.connect = 4, ConnectRequest.token = 1.
fn connect_in_protobuf() -> Vec<u8> {
    let token = token(&json!({"sub": "ann"}));
    let varint = |length: usize| vec![u8::try_from(length & 0x7F).unwrap() | 0x80, u8::try_from(length >> 7).unwrap()];
    let request = [&[0x0A][..], &varint(token.len()), token.as_bytes()].concat();
    let command = [&[0x08, 1, 0x22][..], &varint(request.len()), &request].concat();
    [&varint(command.len())[..], &command].concat()
}

#[tokio::test]
async fn protobuf_cut_at_any_byte_is_a_bad_request() {
    let node = Gateway::open("");
    let whole = connect_in_protobuf();
    let mut client = Client::open_at(node.clients, PROTOBUF, &[]).await;
    client.send_binary(&whole).await;
    assert_eq!(client.frame().await.map(|frame| frame.opcode), Some(2), "whole it is taken");
    for cut in 0..whole.len() {
        let code = code_after(&node, PROTOBUF, &frame(0x82, &whole[..cut])).await;
        assert_eq!(code, Some(3501), "cut at {cut}");
    }
    drop(client);
    node.stop().await;
}

#[tokio::test]
async fn the_kind_of_a_frame_does_not_say_how_it_is_read() {
    let node = Gateway::open("");
    let mut client = Client::open(node.clients).await;
    client.send_binary(connect_command().as_bytes()).await;
    assert_eq!(client.frame().await.map(|frame| frame.opcode), Some(1), "JSON in a binary frame is answered in text");
    assert_eq!(code_after(&node, JSON, &frame(0x82, b"\xFF\xFE")).await, Some(3501), "JSON has to be UTF-8");
    assert_eq!(code_after(&node, JSON, &frame(0x82, &connect_in_protobuf())).await, Some(3501));
    assert_eq!(code_after(&node, PROTOBUF, &frame(0x81, connect_command().as_bytes())).await, Some(3501));
    assert_eq!(code_after(&node, PROTOBUF, &frame(0x81, &connect_in_protobuf())).await, Some(1007), "text is UTF-8");
    drop(client);
    node.stop().await;
}

#[tokio::test]
async fn commands_that_are_none_are_bad_requests() {
    let node = Gateway::open("");
    let before_connect = ["", " ", "\n", "{", "nonsense", "null", "[]", "1", "{}", "{\"id\":1}", "\u{FEFF}{}", "\0"];
    for text in before_connect {
        assert_eq!(code_after(&node, JSON, &frame(0x81, text.as_bytes())).await, Some(3501), "{text:?}");
    }
    let first = [
        json!({"id": 1, "subscribe": {"channel": "room"}}),
        json!({"id": 0, "connect": {}}),
        json!({"id": -1, "connect": {}}),
        json!({"id": 1, "connect": []}),
        json!({"id": 1, "connect": {"token": 5}}),
        json!([{"id": 1, "connect": {}}]),
    ];
    for command in first {
        let code = code_after(&node, JSON, &frame(0x81, command.to_string().as_bytes())).await;
        assert_eq!(code, Some(3501), "{command}");
    }
    let in_room = [
        r#"{"id":7,"dance":{}}"#,
        r#"{"id":7}"#,
        "{}",
        r#"{"id":7,"publish":{"channel":"","data":1}}"#,
        r#"{"id":7,"publish":{"channel":"room","data":}}"#,
        r#"{"id":7,"connect":{}}"#,
        "{\"id\":7,\"presence\":{\"channel\":\"room\"}}\n\n{}",
    ];
    for text in in_room {
        assert_eq!(code_in_room(&node, &frame(0x81, text.as_bytes())).await, Some(3501), "{text}");
    }
    for empty in [0x81, 0x82] {
        assert_eq!(code_in_room(&node, &frame(empty, b"")).await, Some(3501), "an empty frame");
    }
    node.stop().await;
}

#[tokio::test]
async fn payloads_are_nested_128_deep_and_no_deeper() {
    let node = Gateway::open("");
    let publish = |depth: usize| {
        let data = "[".repeat(depth) + &"]".repeat(depth);
        (frame(0x81, format!(r#"{{"id":5,"publish":{{"channel":"room","data":{data}}}}}"#).as_bytes()), data)
    };
    let mut client = Client::subscribed(node.clients, "ann", "room").await;
    let (bytes, data) = publish(128);
    client.send_bytes(&bytes).await;
    let heard = [client.frame().await.unwrap().payload, client.frame().await.unwrap().payload].concat();
    let heard = String::from_utf8(heard).unwrap();
    assert!(heard.contains(&data) && heard.contains(r#"{"id":5,"publish":{}}"#), "{heard}");
    for depth in [129, 130, 131, 1000, 30_000] {
        assert_eq!(code_in_room(&node, &publish(depth).0).await, Some(3501), "{depth} deep");
    }
    drop(client);
    node.stop().await;
}

/// A socket that takes in little before it is read.
async fn narrow(node: &Gateway) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(node.clients).await.unwrap()
}

#[tokio::test]
async fn whoever_pings_and_never_reads_is_slow() {
    let settings =
        "client.queue_max_size = \"16KB\"\nclient.send_buffer = \"16KB\"\nwebsocket.write_timeout = \"20s\"\n";
    let node = Gateway::open(settings);
    let mut client = Client::open_on(narrow(&node).await, JSON, &[]).await;
    let (pings, mut sent) = (frame(0x89, &[b'p'; 125]).repeat(100), 0);
    let deadline = Instant::now() + PATIENCE;
    while node.count(r#"roomcast_closes_total{code="3008"}"#).await == 0 {
        assert!(Instant::now() < deadline, "it is never closed");
        client.flood(&pings, &mut sent, Duration::from_millis(20)).await;
    }
    let mut answered = 0;
    loop {
        let frame = client.frame().await.expect("a close frame");
        if frame.opcode == 8 {
            assert_eq!(frame.payload, b"\x0B\xC0slow");
            break;
        }
        assert_eq!((frame.opcode, frame.payload), (0xA, vec![b'p'; 125]), "after {answered}");
        answered += 1;
    }
    assert!(answered * 127 < 400_000, "{answered} pongs were kept for it");
    drop(client);
    node.stop().await;
}

/// What comes back until the node ends the connection.
async fn answer_to(node: &Gateway, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(node.clients).await.unwrap();
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the node ends it");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn what_is_no_http_is_turned_away() {
    let node = Gateway::open("http.header_timeout = \"300ms\"\n");
    let garbage: [&[u8]; 6] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xFC\x03\x03",
        b"GARBAGE\r\n\r\n",
        b"GET\r\n\r\n",
        &[0; 2000],
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /connection/websocket HTTP/1.1\r\nhost test\r\n\r\n",
    ];
    for bytes in garbage {
        let answer = answer_to(&node, bytes).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{bytes:?}: {answer}");
    }
    let long = format!("GET {JSON} HTTP/1.1\r\nhost: test\r\nx-long: {}\r\n\r\n", "x".repeat(100_000));
    let many = format!("GET {JSON} HTTP/1.1\r\nhost: test\r\n{}\r\n", "a: b\r\n".repeat(500));
    for bytes in [long, many] {
        let answer = answer_to(&node, bytes.as_bytes()).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
    // A head that stops half way, one that never begins, and one that comes in drops.
    for bytes in [&b"GET /connection/websocket HTTP/1.1\r\nhost: x\r\n"[..], b""] {
        let answer = answer_to(&node, bytes).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    }
    let stream = TcpStream::connect(node.clients).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let drops = tokio::spawn(async move {
        while write.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, read.read_to_end(&mut answer)).await.expect("time runs out for all of the head");
    timeout(PATIENCE, drops).await.expect("the socket is closed").unwrap();
    node.stop().await;
}

/// 10,000 clients that never finish their request, and one that goes on talking meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_open_handshakes_harm_nobody_and_give_their_memory_back() {
    const COUNT: usize = 10_000;
    // A thousand sockets and more: the usual soft limit is 1024.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let node = Process::start(&[("http.header_timeout", "5s")]);
    let mut client = Client::subscribed(node.clients, "ann", "room").await;
    assert_eq!(said_and_heard(&mut client, COUNT + 1).await, COUNT + 1);
    let before = node.resident();
    let mut half_open = Vec::with_capacity(COUNT);
    for number in 0..COUNT {
        let mut stream = TcpStream::connect(node.clients).await.unwrap();
        stream.write_all(b"GET /connection/websocket HTTP/1.1\r\nhost: test\r\nupgrade: web").await.unwrap();
        half_open.push(stream);
        if number % 1000 == 0 {
            assert_eq!(said_and_heard(&mut client, number).await, number, "meanwhile");
        }
    }
    let most = node.resident();
    for stream in &mut half_open {
        let mut rest = Vec::new();
        let _ = timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await.expect("the node gives up");
    }
    assert_eq!(said_and_heard(&mut client, COUNT).await, COUNT, "afterwards");
    drop(half_open);
    let mib = |bytes: usize| bytes / (1 << 20);
    let deadline = Instant::now() + Duration::from_secs(25);
    while node.resident() > before + (24 << 20) {
        assert!(Instant::now() < deadline, "{} MiB before, {} now", mib(before), mib(node.resident()));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("MiB resident: {} before, {} with {COUNT}, {} after", mib(before), mib(most), mib(node.resident()));
    assert!(!node.log().contains("panic"), "{}", node.log());
}

async fn said_and_heard(client: &mut Client, number: usize) -> Value {
    let command = json!({"id": 77, "publish": {"channel": "room", "data": number}});
    client.send(&command.to_string()).await;
    client.hear("room").await
}
