//! The extension permessage-deflate (RFC 7692) as far as a connection has to do with it: what is agreed on in the handshake, and
//! reading what a client compressed. Each message is compressed for itself, in both directions, so that an idle connection
//! holds no window. Writing is the hub's, where all who take a message share its bytes.

use std::cell::RefCell;

use flate2::{Decompress, FlushDecompress, Status};
use http::{HeaderMap, header::SEC_WEBSOCKET_EXTENSIONS};

/// What the extension is called.
const NAME: &str = "permessage-deflate";

/// What an offer is answered that can be taken. A server may ask the client for this without it having been offered (section
/// 7.1.1.2).
pub(super) const AGREED: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

/// What the writer of a message leaves away from its end (section 7.2.1).
const TAIL: [u8; 4] = [0x00, 0x00, 0xFF, 0xFF];

/// How much room an inflated message is given at a time.
const STEP: usize = 4 * 1024;

thread_local! {
    static INFLATER: RefCell<Decompress> = RefCell::new(Decompress::new(false));
}

/// What became of a compressed message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Inflated {
    /// The message.
    Whole(Vec<u8>),
    /// It is longer than it may be.
    TooBig,
    /// It is no DEFLATE data.
    Broken,
}

/// Whether one of the offers of a request can be taken. A client that wants a smaller window of the server is not compressed
/// for: its messages could not be shared with the others.
pub(super) fn is_offered(headers: &HeaderMap) -> bool {
    let values = headers.get_all(SEC_WEBSOCKET_EXTENSIONS).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(can_be_taken)
}

fn can_be_taken(offer: &str) -> bool {
    let mut parts = offer.split(';').map(str::trim);
    if parts.next() != Some(NAME) {
        return false;
    }
    let mut seen = Vec::new();
    parts.all(|parameter| {
        let (name, value) = match parameter.split_once('=') {
            Some((name, value)) => (name.trim(), Some(value.trim().trim_matches('"'))),
            None => (parameter, None),
        };
        let once = !seen.contains(&name);
        seen.push(name);
        once && match (name, value) {
            ("server_no_context_takeover" | "client_no_context_takeover" | "client_max_window_bits", None)
            | ("server_max_window_bits", Some("15")) => true,
            // Whatever window a client takes, the largest one reads it.
            ("client_max_window_bits", Some(bits)) => is_window(bits),
            _ => false,
        }
    })
}

/// A window's size as it has to be spelt: 8 to 15, without leading zeros (section 7.1.2).
fn is_window(bits: &str) -> bool {
    matches!(bits, "8" | "9" | "10" | "11" | "12" | "13" | "14" | "15")
}

/// The message whose payload this is, where it has at most `limit` bytes. Room is taken as it is needed, so that a few bytes
/// that stand for very many cost what the limit allows at the most.
pub(super) fn inflate(mut payload: Vec<u8>, limit: usize) -> Inflated {
    payload.extend_from_slice(&TAIL);
    INFLATER.with_borrow_mut(|inflater| {
        inflater.reset(false);
        inflate_with(inflater, &payload, limit)
    })
}

fn inflate_with(inflater: &mut Decompress, payload: &[u8], limit: usize) -> Inflated {
    let mut message = Vec::new();
    loop {
        let taken = usize::try_from(inflater.total_in()).unwrap_or(usize::MAX);
        let rest = payload.get(taken..).unwrap_or_default();
        message.reserve(STEP.min(limit + 1 - message.len()));
        let before = message.len();
        let Ok(status) = inflater.decompress_vec(rest, &mut message, FlushDecompress::Sync) else {
            return Inflated::Broken;
        };
        if message.len() > limit {
            return Inflated::TooBig;
        }
        let all_taken = inflater.total_in() == payload.len() as u64;
        let full = message.len() == message.capacity();
        match status {
            Status::StreamEnd => return Inflated::Whole(message),
            _ if all_taken && !full => return Inflated::Whole(message),
            Status::BufError if message.len() == before && !full => return Inflated::Broken,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use flate2::{Compress, Compression, FlushCompress};
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn deflate(message: &[u8]) -> Vec<u8> {
        let mut payload = Vec::with_capacity(message.len() * 2 + 64);
        Compress::new(Compression::best(), false).compress_vec(message, &mut payload, FlushCompress::Sync).unwrap();
        assert!(payload.ends_with(&TAIL));
        payload.truncate(payload.len() - TAIL.len());
        payload
    }

    proptest! {
        #[test]
        fn what_was_deflated_is_inflated(message in proptest::collection::vec(0..4_u8, 0..20_000)) {
            let payload = deflate(&message);
            prop_assert_eq!(inflate(payload.clone(), message.len()), Inflated::Whole(message.clone()));
            if !message.is_empty() {
                prop_assert_eq!(inflate(payload, message.len() - 1), Inflated::TooBig);
            }
        }

        #[test]
        fn any_bytes_are_inflated_or_refused(payload in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Inflated::Whole(message) = inflate(payload, 1000) {
                prop_assert!(message.len() <= 1000);
            }
        }
    }

    #[test]
    fn a_bomb_takes_no_more_memory_than_a_message_may_have() {
        let payload = deflate(&vec![0; 50_000_000]);
        assert!(payload.len() < 60_000);
        assert_eq!(inflate(payload, 65_536), Inflated::TooBig);
    }

    #[test]
    fn a_block_that_says_it_is_the_last_ends_the_message() {
        let mut payload = Vec::with_capacity(100);
        Compress::new(Compression::fast(), false).compress_vec(b"Hello", &mut payload, FlushCompress::Finish).unwrap();
        payload.push(0);
        assert_eq!(inflate(payload, 100), Inflated::Whole(b"Hello".to_vec()));
    }

    #[test]
    fn the_samples_of_the_rfc_are_read() {
        let compressed = [0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00];
        assert_eq!(inflate(compressed.to_vec(), 5), Inflated::Whole(b"Hello".to_vec()));
        let stored = [0x00, 0x05, 0x00, 0xFA, 0xFF, 0x48, 0x65, 0x6C, 0x6C, 0x6F, 0x00];
        assert_eq!(inflate(stored.to_vec(), 5), Inflated::Whole(b"Hello".to_vec()));
        let two_blocks = [0xF2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xCA, 0xC9, 0xC9, 0x07, 0x00];
        assert_eq!(inflate(two_blocks.to_vec(), 5), Inflated::Whole(b"Hello".to_vec()));
    }

    #[test]
    fn offers_are_taken_or_left() {
        let cases = [
            ("permessage-deflate", true),
            ("permessage-deflate; client_max_window_bits", true),
            ("permessage-deflate; client_max_window_bits=10; server_no_context_takeover", true),
            ("permessage-deflate; server_max_window_bits=15", true),
            ("permessage-deflate; server_max_window_bits=10", false),
            ("permessage-deflate; server_max_window_bits=10, permessage-deflate", true),
            ("permessage-deflate; server_max_window_bits", false),
            ("permessage-deflate; client_max_window_bits=16", false),
            ("permessage-deflate; client_max_window_bits=08", false),
            ("permessage-deflate; server_no_context_takeover=1", false),
            ("permessage-deflate; server_no_context_takeover; server_no_context_takeover", false),
            ("permessage-deflate; unheard_of", false),
            ("x-webkit-deflate-frame", false),
            ("permessage-bzip2, permessage-deflate; client_max_window_bits=\"12\"", true),
        ];
        for (offer, taken) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(SEC_WEBSOCKET_EXTENSIONS, HeaderValue::from_static(offer));
            assert_eq!(is_offered(&headers), taken, "{offer}");
        }
        assert!(!is_offered(&HeaderMap::new()));
    }
}
