//! The machine's own price: a server that accepts, and then writes each message to each socket of its room with one
//! blocking `write`, and nothing else. What it costs is what no server of one write per message can go below. It lives in
//! a process of its own, takes orders as a worker does, and is measured by the same clients.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    num::NonZeroU64,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use bytes::Bytes;
use roomcast_shared::{
    protocol::reply::{ConnectResult, Reply, SubscribeResult},
    publication::Publication,
};

use crate::{
    client::{frame, handshake},
    clock,
    control::{Note, Order, Published},
    payload::{Marker, Stamp},
    plan::{Plan, Spelling},
    schedule::GRACE,
    worker::Link,
};

/// Sockets by room, as they are accepted.
type Rooms = Arc<Mutex<Vec<Vec<TcpStream>>>>;

/// Runs the floor's server until its standard input ends.
///
/// # Errors
/// The coordinator cannot be understood or heard, or no port is free.
pub fn run() -> Result<()> {
    let mut link = Link::standard()?;
    let Some(Order::Prepare { plan, .. }) = link.wait()? else { return Ok(()) };
    // Sleeps end when they are meant to, not up to 50 µs later.
    rustix::thread::set_current_timer_slack(NonZeroU64::new(1))?;
    let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen")?;
    let port = listener.local_addr()?.port();
    let rooms = Rooms::new(Mutex::new((0..plan.rooms).map(|_| Vec::new()).collect()));
    let (accepted, accepted_plan) = (Arc::clone(&rooms), plan.clone());
    // Not joined: it waits in `accept` until the process ends.
    thread::spawn(move || accept(&listener, &accepted_plan, &accepted));
    link.tell(&Note::Ready { port })?;
    while let Some(order) = link.wait()? {
        if let Order::Publish { start } = order {
            let published = publish(&plan, start, &mut rooms.lock().unwrap_or_else(PoisonError::into_inner));
            link.tell(&Note::Published(published))?;
        }
    }
    Ok(())
}

fn accept(listener: &TcpListener, plan: &Plan, rooms: &Rooms) {
    for stream in listener.incoming().flatten() {
        // A client that does not speak as this tool does is let go; the run then misses it.
        if let Ok((room, stream)) = greet(stream, plan) {
            let mut rooms = rooms.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(room) = rooms.get_mut(room) {
                room.push(stream);
            }
        }
    }
}

/// Upgrades, reads the opening commands, and answers both as granted; gives the room asked for.
fn greet(mut stream: TcpStream, plan: &Plan) -> Result<(usize, TcpStream)> {
    stream.set_nodelay(true)?;
    let mut bytes = Vec::new();
    let head = read_until(&mut stream, &mut bytes, handshake::head_length)?;
    bytes.drain(..head);
    stream.write_all(&handshake::response(plan.spelling))?;
    let opening = read_until(&mut stream, &mut bytes, frame::read_masked)?.0;
    let mut room = 0;
    for command in plan.spelling.encoding().commands(&opening) {
        if let Some(subscribe) = command?.subscribe {
            room = subscribe.channel.trim_start_matches(&plan.room_prefix).parse().context("an unknown room")?;
        }
    }
    stream.write_all(&granted(plan.spelling))?;
    Ok((room, stream))
}

/// Reads until `parse` finds what it looks for.
fn read_until<T>(stream: &mut TcpStream, bytes: &mut Vec<u8>, parse: impl Fn(&[u8]) -> Option<T>) -> Result<T> {
    loop {
        if let Some(found) = parse(bytes) {
            return Ok(found);
        }
        let mut chunk = [0; 4096];
        let count = stream.read(&mut chunk)?;
        anyhow::ensure!(count > 0, "the client left");
        bytes.extend_from_slice(&chunk[..count]);
    }
}

/// Replies to connect and subscribe, each in its frame.
fn granted(spelling: Spelling) -> Vec<u8> {
    let connect = ConnectResult { client: "floor".into(), ..ConnectResult::default() };
    let replies = [
        Reply { id: 1, connect: Some(Box::new(connect)), ..Reply::default() },
        Reply { id: 2, subscribe: Some(Box::new(SubscribeResult::default())), ..Reply::default() },
    ];
    let mut out = Vec::new();
    for reply in replies {
        let mut message = Vec::new();
        spelling.encoding().encode_reply(&reply, &mut message).expect("it carries no payload");
        frame::write_unmasked(spelling == Spelling::Protobuf, &message, &mut out);
    }
    out
}

/// Follows the schedule: one room after another, one frame per message, one `write` per socket.
fn publish(plan: &Plan, start: u64, rooms: &mut [Vec<TcpStream>]) -> Published {
    let schedule = plan.publishing(start);
    let end = start + clock::nanos(plan.duration) + GRACE;
    let marker = Marker::new(plan.run);
    let mut published = Published { sent: vec![0; rooms.len()], ..Published::default() };
    let mut sent = 0;
    while let Some(intended) = schedule.intended(sent).filter(|_| clock::now() < end) {
        thread::sleep(Duration::from_nanos(intended.saturating_sub(clock::now())));
        let room = u32::try_from(sent % u64::from(plan.rooms)).expect("a remainder of 32 bits");
        let place = room as usize;
        let late = clock::now().saturating_sub(intended);
        let frame = encode(plan, &marker, Stamp { room, sequence: published.sent[place], slot: 0, intended, late });
        // A client that is gone is the client's side to report.
        rooms[place].retain_mut(|stream| stream.write_all(&frame).is_ok());
        published.sent[place] += 1;
        published.last = clock::now();
        sent += 1;
    }
    published.unsent = schedule.len() - sent;
    published
}

/// The frame a server of this protocol would write.
fn encode(plan: &Plan, marker: &Marker, stamp: Stamp) -> Vec<u8> {
    let mut payload = Vec::with_capacity(plan.size);
    marker.write(stamp, plan.size, &mut payload);
    let publication = Publication { data: Bytes::from(payload), ..Publication::default() };
    let (mut message, mut out) = (Vec::new(), Vec::new());
    let encoded = plan.spelling.encoding().encode_publication(&plan.room_name(stamp.room), &publication, &mut message);
    encoded.expect("payloads of this tool are JSON");
    frame::write_unmasked(plan.spelling == Spelling::Protobuf, &message, &mut out);
    out
}
