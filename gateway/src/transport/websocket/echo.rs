//! A service that says back what it hears, over the same handshake, frames and compression as every connection's own,
//! for suites that test these from outside. Knows no sessions; no node serves it.

use std::io;

use axum::{
    Router,
    extract::{Request, State},
    response::Response,
    routing::any,
};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    frame::{Event, Reader},
    handshake::Opening,
    switching_protocols,
};
use crate::hub::{Opcode, Wire, put_frame_header};

/// What one read takes from a socket.
const READ: usize = 64 * 1024;

/// Routes that echo at any path. Messages may have `limit` bytes; with `compression` it is agreed on where it is offered, and
/// every message is compressed then.
pub fn routes(limit: usize, compression: bool) -> Router {
    Router::new().fallback(any(answer)).with_state((limit, compression))
}

async fn answer(State((limit, compression)): State<(usize, bool)>, mut request: Request) -> Response {
    let upgrade = request.extensions_mut().remove::<OnUpgrade>();
    let (head, _) = request.into_parts();
    let opening = match Opening::read(&head, false, compression) {
        Ok(opening) => opening,
        Err(denied) => return denied.into(),
    };
    let deflate = opening.wire.is_deflated();
    if let Some(upgrade) = upgrade {
        tokio::spawn(async move {
            let Ok(upgraded) = upgrade.await else { return };
            // The peer may go at any time; nobody is to be told.
            drop(converse(TokioIo::new(upgraded), Reader::new(limit, deflate), deflate).await);
        });
    }
    switching_protocols(opening)
}

async fn converse(mut stream: TokioIo<Upgraded>, mut reader: Reader, deflate: bool) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(READ);
    while stream.read_buf(&mut bytes).await? > 0 {
        let (mut taken, mut said) = (0, Vec::new());
        let close = loop {
            match reader.read(&mut bytes[taken..]) {
                Ok(Some((size, event))) => {
                    taken += size;
                    if let Some(Event::Close(code)) = event {
                        break Some(code);
                    }
                    say_back(event.as_ref(), deflate, &mut said);
                    reader.forget_message();
                }
                Ok(None) => break None,
                Err(disconnect) => break Some(Some(disconnect.code)),
            }
        };
        bytes.drain(..taken);
        if let Some(code) = close {
            let code = code.map(u16::to_be_bytes);
            put(Opcode::Close, code.as_ref().map_or(&[], |code| code), &mut said);
            stream.write_all(&said).await?;
            return stream.shutdown().await;
        }
        stream.write_all(&said).await?;
    }
    Ok(())
}

fn say_back(event: Option<&Event<'_>>, deflate: bool, out: &mut Vec<u8>) {
    match event {
        Some(Event::Message(opcode, message)) => {
            let wire = if *opcode == Opcode::Text { Wire::JsonWebSocket } else { Wire::ProtobufWebSocket };
            // The suites want all of it compressed.
            if deflate { wire.put_deflated(message, out) } else { wire.put_message(message, out) }
        }
        Some(Event::Ping(payload)) => put(Opcode::Pong, payload, out),
        Some(Event::Pong | Event::Close(_)) | None => {}
    }
}

fn put(opcode: Opcode, payload: &[u8], out: &mut Vec<u8>) {
    put_frame_header(opcode, payload.len(), out);
    out.extend_from_slice(payload);
}
