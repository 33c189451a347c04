//! Compression of publications for WebSocket clients that have agreed on it (RFC 7692). Each is compressed for itself, without
//! a window that goes on from the one before, so that all who take it share its bytes. Knows no frames.

use std::cell::RefCell;

use flate2::{Compress, Compression, FlushCompress};

/// What ends compressed data and is left away (RFC 7692, section 7.2.1).
const TAIL: [u8; 4] = [0x00, 0x00, 0xFF, 0xFF];

thread_local! {
    static DEFLATER: RefCell<Compress> = RefCell::new(Compress::new(Compression::fast(), false));
}

/// The payload that stands for a message.
pub(super) fn deflate(message: &[u8]) -> Vec<u8> {
    // What cannot be compressed grows a little; where this is too short, there is another round.
    let mut payload = Vec::with_capacity(message.len() + message.len() / 1024 + 64);
    DEFLATER.with_borrow_mut(|deflater| {
        deflater.reset();
        loop {
            let taken = usize::try_from(deflater.total_in()).unwrap_or(usize::MAX);
            let rest = message.get(taken..).unwrap_or_default();
            deflater.compress_vec(rest, &mut payload, FlushCompress::Sync).expect("nothing about a message is wrong");
            // Room that is left says that all of it is written.
            if payload.len() < payload.capacity() {
                break;
            }
            payload.reserve(64);
        }
    });
    payload.truncate(payload.len() - TAIL.len());
    payload
}

#[cfg(test)]
mod tests {
    use flate2::{Decompress, FlushDecompress};
    use proptest::prelude::*;

    use super::*;

    fn inflate(mut payload: Vec<u8>, length: usize) -> Vec<u8> {
        payload.extend(TAIL);
        let mut message = Vec::with_capacity(length + 1);
        Decompress::new(false).decompress_vec(&payload, &mut message, FlushDecompress::Sync).unwrap();
        message
    }

    proptest! {
        #[test]
        fn a_message_is_read_as_it_was(message in proptest::collection::vec(0..5_u8, 0..5_000)) {
            prop_assert_eq!(inflate(deflate(&message), message.len()), message);
        }

        #[test]
        fn noise_is_read_as_it_was(message in proptest::collection::vec(any::<u8>(), 0..70_000)) {
            prop_assert_eq!(inflate(deflate(&message), message.len()), message);
        }
    }

    #[test]
    fn text_gets_shorter_each_time_alike() {
        let message =
            r#"{"push":{"channel":"room","pub":{"data":{"text":"to be or not to be or not to be"}}}}"#.repeat(3);
        let first = deflate(message.as_bytes());
        assert!(first.len() * 2 < message.len());
        assert_eq!(deflate(message.as_bytes()), first, "nothing goes on from one to the next");
    }
}
