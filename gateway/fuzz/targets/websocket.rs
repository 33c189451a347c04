//! Frames of clients.

use roomcast::transport::websocket::fuzzing::{Said, read};

use crate::{ITERATIONS, memory::taken};

/// Most bytes of a message here.
const LIMIT: usize = 1000;

/// However the bytes are cut, the same is said and it ends alike, with one of three codes; no message is longer than may be, a
/// text is UTF-8, the memory taken follows from what came and the limit, and what was said is said again when it is written
/// in whole frames. The first byte chooses the reader and the cut.
#[test]
fn frames() {
    bolero::check!().with_iterations(ITERATIONS).for_each(|input: &[u8]| {
        let Some((&choice, bytes)) = input.split_first() else { return };
        let inflates = choice & 1 == 1;
        let (whole, memory) = taken(|| read(LIMIT, inflates, &[bytes]));
        let (begin, end) = bytes.split_at(usize::from(choice >> 1).min(bytes.len()));
        assert_eq!(whole, read(LIMIT, inflates, &[begin, end]));
        let bytewise: Vec<_> = bytes.chunks(1).collect();
        assert_eq!(whole, read(LIMIT, inflates, &bytewise));

        let (said, end) = whole;
        for message in &said {
            match message {
                Said::Text(text) => assert!(text.len() <= LIMIT && std::str::from_utf8(text).is_ok()),
                Said::Binary(data) => assert!(data.len() <= LIMIT),
                Said::Ping(payload) => assert!(payload.len() <= 125),
                Said::Pong | Said::Close(_) => {}
            }
        }
        if let Some(close) = &end {
            assert!(matches!(close.code, 1002 | 1007 | 1009) && !close.reason.is_empty(), "{close:?}");
        }
        // A compressed frame has six bytes at least and becomes a message, for which zlib takes some 40 KB for a while.
        let frames = bytes.len() as u64 / 6 + 1;
        let each = if inflates { 64 * 1024 } else { 256 };
        assert!(memory <= 16 * bytes.len() as u64 + frames * each, "{memory} bytes for {}", bytes.len());

        let written: Vec<u8> = said.iter().flat_map(written).collect();
        assert_eq!(read(LIMIT, false, &[&written]), (said, None));
    });
}

/// The frame of a client that says this.
fn written(said: &Said) -> Vec<u8> {
    let close;
    let (first, payload): (u8, &[u8]) = match said {
        Said::Text(text) => (0x81, text),
        Said::Binary(data) => (0x82, data),
        Said::Close(code) => {
            close = code.map(u16::to_be_bytes);
            (0x88, close.as_ref().map_or(&[], |code| code))
        }
        Said::Ping(payload) => (0x89, payload),
        Said::Pong => (0x8A, &[]),
    };
    let mut out = vec![first];
    match u16::try_from(payload.len()).expect("no message is so long here") {
        short @ 0..126 => out.push(0x80 | short.to_be_bytes()[1]),
        length => {
            out.push(0xFE);
            out.extend(length.to_be_bytes());
        }
    }
    let mask = [7, 0, 200, 31];
    out.extend(mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out
}
