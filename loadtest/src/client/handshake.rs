//! The upgrade from HTTP to WebSocket, both sides of it: the client's request and the check of the answer, and the
//! answer the floor gives. Knows bytes only.

use crate::plan::{Spelling, Target};

/// The key every client sends. It proves that the server speaks WebSocket, which one key does as well as many.
const KEY: &str = "cm9vbWNhc3QtbG9hZHRzdA==";
/// What a server makes of [`KEY`] (RFC 6455, section 4.2.2).
const ACCEPT: &str = "QXAFc44A0x8ls65NERUE4n2aFUg=";
/// Longest head of an answer that is read.
const HEAD_LIMIT: usize = 16 * 1024;

/// The upgrade request.
pub fn request(target: &Target, spelling: Spelling) -> Vec<u8> {
    format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Protocol: {}\r\n\r\n",
        target.path,
        target.host,
        subprotocol(spelling)
    )
    .into_bytes()
}

/// Length of the answer's head, once it is all there and grants the upgrade.
///
/// # Errors
/// The server refuses or does not speak WebSocket, with its status line.
pub fn read_response(bytes: &[u8]) -> Result<Option<usize>, String> {
    let Some(length) = head_length(bytes) else {
        return if bytes.len() > HEAD_LIMIT { Err("the head of the answer is too long".into()) } else { Ok(None) };
    };
    let head = String::from_utf8_lossy(&bytes[..length]);
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("101") {
        return Err(format!("upgrade refused: {status}"));
    }
    let headers = head.lines().filter_map(|line| line.split_once(':'));
    let mut accept =
        headers.filter(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-accept")).map(|(_, key)| key.trim());
    match accept.next_back() {
        Some(ACCEPT) => Ok(Some(length)),
        _ => Err("upgrade refused: wrong Sec-WebSocket-Accept".into()),
    }
}

/// The floor's answer to [`request`].
pub fn response(spelling: Spelling) -> Vec<u8> {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {ACCEPT}\r\nSec-WebSocket-Protocol: {}\r\n\r\n",
        subprotocol(spelling)
    )
    .into_bytes()
}

/// Length of a request's or answer's head with its empty line, once it is all there.
pub fn head_length(bytes: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, b"\r\n\r\n").map(|end| end + 4)
}

fn subprotocol(spelling: Spelling) -> &'static str {
    match spelling {
        Spelling::Json => "centrifuge-json",
        Spelling::Protobuf => "centrifuge-protobuf",
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::STANDARD};
    use sha1::{Digest, Sha1};

    use super::*;

    #[test]
    fn the_answer_to_the_key_is_right() {
        let hash = Sha1::digest(format!("{KEY}258EAFA5-E914-47DA-95CA-C5AB0DC85B11"));
        assert_eq!(STANDARD.encode(hash), ACCEPT);
        assert_eq!(STANDARD.decode(KEY).map(|key| key.len()), Ok(16));
    }

    #[test]
    fn answers_are_read() {
        let mut answer = response(Spelling::Json);
        let head = answer.len();
        answer.extend_from_slice(b"\x81\x02{}");
        assert_eq!(read_response(&answer), Ok(Some(head)));
        assert_eq!(read_response(&answer[..head - 1]), Ok(None));
        let refused = read_response(b"HTTP/1.1 503 Service Unavailable\r\n\r\n").expect_err("no upgrade");
        assert_eq!(refused, "upgrade refused: HTTP/1.1 503 Service Unavailable");
        assert!(read_response(b"HTTP/1.1 101 x\r\nSec-WebSocket-Accept: no\r\n\r\n").is_err());
        assert!(read_response(&b"x".repeat(HEAD_LIMIT + 1)).is_err());
    }
}
