//! What the tests of the tool share: running it, and a server of a few lines that speaks just enough of the protocol to
//! misbehave on purpose. Not a second implementation: it knows nothing of rules, users or errors.

#![allow(dead_code, reason = "each test file uses its part")]

pub(crate) mod node;

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::{Command, Output},
    sync::{Arc, Mutex},
    thread,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use sha1::{Digest, Sha1};

/// Runs the tool with these arguments and waits for it.
pub(crate) fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_roomcast-loadtest"))
        .args(arguments)
        .env_remove("ROOMCAST_AUTH_HMAC_SECRET")
        .env_remove("ROOMCAST_AUTH_HMAC_SECRET_FILE")
        .output()
        .expect("the tool starts")
}

/// Runs the tool against `url` for a moment and gives its JSON report.
pub(crate) fn report(url: &str, more: &[&str]) -> Value {
    let base = ["--url", url, "--settle", "0s", "--quiet", "300ms", "--connect-rate", "0", "--json", "-"];
    let output = run(&[&base, more].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("the report is JSON")
}

/// What is done with the `n`th publication for one subscriber, counted from 0: how often each of the frames is written,
/// in which order. Given the frames kept back so far.
pub(crate) type Mischief = fn(n: u64, frame: Vec<u8>, kept: &mut Vec<Vec<u8>>) -> Vec<Vec<u8>>;

/// A subscriber: its socket, the publications so far, and the frames kept back.
struct Seat {
    stream: TcpStream,
    count: u64,
    kept: Vec<Vec<u8>>,
}

type Rooms = Arc<Mutex<HashMap<String, Vec<Seat>>>>;

/// Starts a server on a free port that treats deliveries as `mischief` says and answers publishes as `answer` does. Who is
/// in a room whose name ends with 0 is never answered. It lives as long as the test.
pub(crate) fn serve(mischief: Mischief, answer: fn(n: u64) -> Value) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("ws://{}/connection/websocket", listener.local_addr().expect("it is bound"));
    let rooms = Rooms::default();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let rooms = Arc::clone(&rooms);
            thread::spawn(move || serve_one(stream, &rooms, mischief, answer));
        }
    });
    url
}

/// The answer of a server that takes every publish.
pub(crate) fn taken(_: u64) -> Value {
    json!({"publish": {}})
}

fn serve_one(mut stream: TcpStream, rooms: &Rooms, mischief: Mischief, answer: fn(u64) -> Value) -> Option<()> {
    upgrade(&mut stream)?;
    let mut published = 0;
    loop {
        let text = read_frame(&mut stream)?;
        for line in text.lines() {
            let command: Value = serde_json::from_str(line).expect("commands are JSON");
            let id = &command["id"];
            let mut reply = json!({});
            if command["connect"].is_object() {
                reply = json!({"connect": {"client": "c", "version": "test"}});
            } else if let Some(room) = command["subscribe"]["channel"].as_str() {
                let seat = Seat { stream: stream.try_clone().expect("a duplicate"), count: 0, kept: Vec::new() };
                // Another thread may deliver to it from then on, and the reply has to come before all that.
                let mut rooms = rooms.lock().expect("no panic");
                let reply = json!({"id": id, "subscribe": {}});
                stream.write_all(&text_frame(&reply.to_string())).ok()?;
                rooms.entry(room.to_owned()).or_default().push(seat);
                continue;
            } else if command["presence"]["channel"].as_str().is_some_and(|room| room.ends_with('0')) {
                continue;
            } else if command["publish"].is_object() {
                reply = answer(published);
                published += 1;
                if reply["error"].is_null() {
                    deliver(rooms, &command["publish"], mischief);
                }
            }
            reply["id"] = id.clone();
            stream.write_all(&text_frame(&reply.to_string())).ok()?;
        }
    }
}

fn deliver(rooms: &Rooms, publish: &Value, mischief: Mischief) {
    let room = publish["channel"].as_str().expect("a room");
    let push = json!({"channel": room, "pub": {"data": publish["data"]}});
    // Spelt by hand, because clients of this protocol may rely on the key coming first.
    let frame = text_frame(&format!("{{\"push\":{push}}}"));
    for seat in rooms.lock().expect("no panic").get_mut(room).into_iter().flatten() {
        let frames = mischief(seat.count, frame.clone(), &mut seat.kept);
        seat.count += 1;
        for frame in frames {
            // A client that left hears nothing.
            let _ = seat.stream.write_all(&frame);
        }
    }
}

fn upgrade(stream: &mut TcpStream) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?;
    let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "))?;
    let accept = STANDARD.encode(Sha1::digest(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11")));
    let answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade";
    stream.write_all(format!("{answer}\r\nSec-WebSocket-Accept: {accept}\r\n\r\n").as_bytes()).ok()
}

/// The text of the next frame; `None` at the end of the connection.
fn read_frame(stream: &mut TcpStream) -> Option<String> {
    let mut head = [0; 2];
    stream.read_exact(&mut head).ok()?;
    assert!(head[1] & 0x80 != 0, "clients mask their frames");
    let mut length = usize::from(head[1] & 0x7f);
    if length == 126 {
        let mut long = [0; 2];
        stream.read_exact(&mut long).ok()?;
        length = usize::from(u16::from_be_bytes(long));
    }
    let (mut key, mut payload) = ([0; 4], vec![0; length]);
    stream.read_exact(&mut key).ok()?;
    stream.read_exact(&mut payload).ok()?;
    for (byte, key) in payload.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
    (head[0] == 0x81).then(|| String::from_utf8(payload).expect("text is UTF-8"))
}

fn text_frame(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81];
    if let Ok(length @ ..126) = u8::try_from(text.len()) {
        frame.push(length);
    } else {
        frame.push(126);
        frame.extend_from_slice(&u16::try_from(text.len()).expect("small").to_be_bytes());
    }
    frame.extend_from_slice(text.as_bytes());
    frame
}
