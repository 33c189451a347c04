//! RFC 6455 as a client needs it: masked frames out, whole unmasked frames in, read in place. Knows bytes only: no
//! sockets, no commands.

use thiserror::Error;

/// What a frame carries (RFC 6455, section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// UTF-8 text.
    Text,
    /// Bytes.
    Binary,
    /// The end, with a code.
    Close,
    /// Asks for a pong.
    Ping,
    /// Answers a ping.
    Pong,
}

/// A frame that a server must not send, or that this client does not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// Compression was not negotiated.
    #[error("the server set reserved bits")]
    Reserved,
    /// Section 5.1: a server must not mask.
    #[error("the server masked a frame")]
    Masked,
    /// Servers of this protocol send messages whole.
    #[error("the server fragmented a message")]
    Fragmented,
    /// No such opcode.
    #[error("the server sent an unknown opcode")]
    Opcode,
    /// More than the reader's buffer holds.
    #[error("the server sent a frame larger than the read buffer")]
    TooLarge,
}

/// One frame in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What it carries.
    pub opcode: Opcode,
    /// Its payload.
    pub payload: &'a [u8],
    /// Bytes of the whole frame.
    pub length: usize,
}

/// Reads the frame at the start of `bytes`; `None` when it is not all there yet. No frame may pass `limit` bytes.
///
/// # Errors
/// The frame breaks the rules; nothing after it can be read.
#[inline]
pub fn read(bytes: &[u8], limit: usize) -> Result<Option<Frame<'_>>, FrameError> {
    let [first, second, ..] = *bytes else { return Ok(None) };
    let opcode = check(first, second)?;
    let (header, length) = match second {
        126 => match bytes.get(2..4) {
            Some(&[a, b]) => (4, usize::from(u16::from_be_bytes([a, b]))),
            _ => return Ok(None),
        },
        127 => match bytes.get(2..10).and_then(|length| <[u8; 8]>::try_from(length).ok()) {
            Some(length) => (10, usize::try_from(u64::from_be_bytes(length)).map_err(|_| FrameError::TooLarge)?),
            None => return Ok(None),
        },
        short => (2, usize::from(short)),
    };
    if length > limit.saturating_sub(header) {
        return Err(FrameError::TooLarge);
    }
    let payload = bytes.get(header..header + length);
    Ok(payload.map(|payload| Frame { opcode, payload, length: header + length }))
}

#[inline]
fn check(first: u8, second: u8) -> Result<Opcode, FrameError> {
    if second & 0x80 != 0 {
        return Err(FrameError::Masked);
    }
    match first {
        0x81 => Ok(Opcode::Text),
        0x82 => Ok(Opcode::Binary),
        0x88 => Ok(Opcode::Close),
        0x89 => Ok(Opcode::Ping),
        0x8a => Ok(Opcode::Pong),
        _ if first & 0x70 != 0 => Err(FrameError::Reserved),
        0x00..=0x02 | 0x80 => Err(FrameError::Fragmented),
        _ => Err(FrameError::Opcode),
    }
}

/// Appends a masked frame. The key is fixed: it guards proxies against chosen bytes, and here nobody chooses them.
pub fn write(opcode: Opcode, payload: &[u8], out: &mut Vec<u8>) {
    const KEY: [u8; 4] = [0x5a, 0x31, 0xc7, 0x0e];
    let kind = match opcode {
        Opcode::Text => 0x81,
        Opcode::Binary => 0x82,
        Opcode::Close => 0x88,
        Opcode::Ping => 0x89,
        Opcode::Pong => 0x8a,
    };
    write_header(kind, 0x80, payload.len(), out);
    out.extend_from_slice(&KEY);
    out.extend(payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
}

/// Appends a frame as a server writes it, for the floor.
pub fn write_unmasked(binary: bool, payload: &[u8], out: &mut Vec<u8>) {
    write_header(0x81 + u8::from(binary), 0, payload.len(), out);
    out.extend_from_slice(payload);
}

fn write_header(kind: u8, mask: u8, length: usize, out: &mut Vec<u8>) {
    out.push(kind);
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ ..126), _) => out.push(mask + short),
        (_, Ok(medium)) => {
            out.push(mask + 126);
            out.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            out.push(mask + 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

/// Takes the mask off a frame of a client, for the floor: its payload and length, `None` when it is not all there yet.
pub fn read_masked(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let second = bytes.get(1)? & 0x7f;
    let (header, length) = match second {
        126 => (4, usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]))),
        127 => (10, usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?),
        short => (2, usize::from(short)),
    };
    let key = bytes.get(header..header + 4)?;
    let end = (header + 4).checked_add(length)?;
    let payload = bytes.get(header + 4..end)?;
    Some((payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect(), end))
}

/// Code and reason of a close frame: `3501 bad request`, or 1005 where none is given.
pub fn close_reason(payload: &[u8]) -> String {
    match payload.split_first_chunk::<2>() {
        Some((code, reason)) => format!("{} {}", u16::from_be_bytes(*code), String::from_utf8_lossy(reason)),
        None => "1005 no code".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_all_three_forms_come_back() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            let payload = vec![b'x'; length];
            let (mut plain, mut masked) = (Vec::new(), Vec::new());
            write_unmasked(false, &payload, &mut plain);
            write(Opcode::Text, &payload, &mut masked);
            let frame = read(&plain, 100_000).expect("valid").expect("whole");
            assert_eq!((frame.payload, frame.length), (&payload[..], plain.len()));
            assert_eq!(read_masked(&masked), Some((payload, masked.len())));
            assert_eq!(read(&plain[..plain.len() - 1], 100_000), Ok(None));
            assert_eq!(read_masked(&masked[..masked.len() - 1]), None);
        }
    }

    #[test]
    fn broken_frames_are_named() {
        for (bytes, error) in [
            (&[0xc1, 0][..], FrameError::Reserved),
            (&[0x81, 0x80], FrameError::Masked),
            (&[0x01, 0], FrameError::Fragmented),
            (&[0x83, 0], FrameError::Opcode),
            (&[0x81, 126, 0xff, 0xff], FrameError::TooLarge),
            (&[0x81, 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], FrameError::TooLarge),
        ] {
            assert_eq!(read(bytes, 1000), Err(error));
        }
    }
}
