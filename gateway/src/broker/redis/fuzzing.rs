//! The readers of what Redis sends, for the fuzzing targets: frames of a stream that comes in pieces, and envelopes. Knows
//! no connection.

use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use roomcast_shared::{event::Event, position::Epoch};

use super::{
    envelope,
    resp::{self, Frame, Next},
};

/// Something Redis said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// A message: its channel and its payload.
    Message(Bytes, Bytes),
    /// A subscription is in force.
    Subscribed(Bytes),
    /// A subscription is over.
    Unsubscribed(Bytes),
    /// A command was done.
    Done,
    /// A command was refused.
    Error(String),
}

/// What the stream ends with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// So many more bytes at least belong to a frame.
    Missing(usize),
    /// It cannot be read on, and why.
    Malformed(String),
}

impl From<Frame> for Said {
    fn from(frame: Frame) -> Self {
        match frame {
            Frame::Message(message) => Self::Message(Bytes::copy_from_slice(message.channel()), message.payload()),
            Frame::Subscribed(channel) => Self::Subscribed(channel),
            Frame::Unsubscribed(channel) => Self::Unsubscribed(channel),
            Frame::Done => Self::Done,
            Frame::Error(reason) => Self::Error(reason),
        }
    }
}

/// Reads pieces of a stream as a subscribed connection does.
pub fn read(pieces: &[&[u8]]) -> (Vec<Said>, End) {
    let (mut buffer, mut said, mut end) = (BytesMut::new(), Vec::new(), End::Missing(1));
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match resp::next(&mut buffer) {
                Ok(Next::Frame(frame)) => said.push(frame.into()),
                Ok(Next::Missing(bytes)) => {
                    end = End::Missing(bytes);
                    break;
                }
                Err(why) => return (said, End::Malformed(why.to_string())),
            }
        }
    }
    (said, end)
}

/// The words of a command or push, as they are written.
pub fn write(words: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    resp::write_head(&mut out, words.len());
    for word in words {
        resp::write_word(&mut out, word);
    }
    out
}

/// What an envelope holds, and when it happened.
///
/// # Errors
/// Why the bytes are no envelope.
pub fn open(bytes: Bytes) -> Result<(SystemTime, Event), String> {
    let opened = envelope::decode(bytes).map_err(|why| why.to_string())?;
    Ok((opened.published, opened.event))
}

/// The envelope of an event; with the place that Redis writes before it where the event has one.
pub fn seal(event: &Event, at: SystemTime) -> Vec<u8> {
    let mut out = Vec::new();
    match event {
        Event::Publication(said) if said.epoch.is_some() => {
            let epoch = said.epoch.as_ref().map(Epoch::as_str).unwrap_or_default();
            out.push(envelope::KEPT);
            out.extend(format!("{:020}{epoch}", said.publication.offset).bytes());
            envelope::encode_rest(said, at, &mut out);
        }
        event => {
            envelope::encode(event, at, &mut out);
            assert_eq!(out.len(), envelope::encoded_len(event));
        }
    }
    out
}
