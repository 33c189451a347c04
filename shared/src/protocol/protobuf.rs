//! Messages as Protobuf: each behind its length. Knows how they are spelt, not what they ask for.

use prost::{
    Message,
    encoding::{self, WireType},
};

use super::{DecodeError, Envelope};
use crate::publication::Publication;

/// Field numbers of the envelope around a publication, as [`super::reply`] declares them.
mod field {
    pub(super) const REPLY_PUSH: u32 = 4;
    pub(super) const PUSH_CHANNEL: u32 = 2;
    pub(super) const PUSH_PUB: u32 = 4;
}

/// A length takes at most this many bytes.
const LONGEST_VARINT: usize = 10;

/// Takes the first message off the frame.
pub(super) fn split<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], DecodeError> {
    let mut after = *rest;
    let length = encoding::decode_varint(&mut after).map_err(|error| bad_length(rest, &error))?;
    let length = usize::try_from(length).map_err(|_| DecodeError::Truncated)?;
    let (message, after) = after.split_at_checked(length).ok_or(DecodeError::Truncated)?;
    *rest = after;
    Ok(message)
}

fn bad_length(frame: &[u8], error: &prost::DecodeError) -> DecodeError {
    if frame.len() < LONGEST_VARINT && frame.iter().all(|byte| byte & 0x80 != 0) {
        return DecodeError::Truncated;
    }
    DecodeError::Malformed { detail: error.to_string() }
}

/// Reads one message. Payloads are copied, so that they do not hold the frame.
pub(super) fn decode<T: Message + Default>(message: &[u8]) -> Result<T, DecodeError> {
    T::decode(message).map_err(|error| DecodeError::Malformed { detail: error.to_string() })
}

/// Appends a message behind its length.
pub(super) fn encode(message: &impl Message, out: &mut Vec<u8>) {
    message.encode_length_delimited(out).expect("a vector grows to any length");
}

/// Appends the push of a publication as the encoder of a whole reply or push would, without making one.
pub(super) fn encode_publication(envelope: Envelope, room: &str, publication: &Publication, out: &mut Vec<u8>) {
    let channel_length = if room.is_empty() { 0 } else { delimited_length(room.len()) };
    let push_length = channel_length + delimited_length(publication.encoded_len());
    if envelope == Envelope::Reply {
        encoding::encode_varint(delimited_length(push_length) as u64, out);
        encoding::encode_key(field::REPLY_PUSH, WireType::LengthDelimited, out);
    }
    encoding::encode_varint(push_length as u64, out);
    if !room.is_empty() {
        encoding::encode_key(field::PUSH_CHANNEL, WireType::LengthDelimited, out);
        encoding::encode_varint(room.len() as u64, out);
        out.extend_from_slice(room.as_bytes());
    }
    encoding::message::encode(field::PUSH_PUB, publication, out);
}

/// Bytes of a field of `length` bytes: key (one byte for field numbers below 16), length, and itself.
fn delimited_length(length: usize) -> usize {
    1 + encoding::encoded_len_varint(length as u64) + length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_off_one_by_one() {
        let mut rest = &[2, 7, 8, 0, 1, 9][..];
        assert_eq!(split(&mut rest), Ok(&[7, 8][..]));
        assert_eq!(split(&mut rest), Ok(&[][..]));
        assert_eq!(split(&mut rest), Ok(&[9][..]));
        assert!(rest.is_empty());
    }

    #[test]
    fn lengths_that_promise_more_than_there_is_are_truncated() {
        for mut frame in [&[1][..], &[0x80], &[0xff; 9], &[0xff, 0xff, 0xff, 0xff, 0x0f], &[5, 1, 2, 3, 4]] {
            assert_eq!(split(&mut frame), Err(DecodeError::Truncated));
        }
    }

    #[test]
    fn lengths_beyond_64_bits_are_malformed() {
        assert!(matches!(split(&mut &[0xff; 11][..]), Err(DecodeError::Malformed { .. })));
    }
}
