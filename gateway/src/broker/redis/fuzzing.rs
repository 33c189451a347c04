//! The readers of what Redis sends, for the fuzzing targets: frames of a stream that comes in pieces, and envelopes. Knows
//! no connection.

use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use roomcast_shared::{
    event::{self, Event},
    position::Epoch,
};

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

/// What happened, and when.
pub type Happened = (SystemTime, Event);

/// What an envelope holds: one event, or those of a pack.
///
/// # Errors
/// Why the bytes are no envelope.
pub fn open(bytes: Bytes) -> Result<Vec<Happened>, String> {
    let opened = envelope::decode(bytes).map_err(|why| why.to_string())?;
    Ok(opened.into_iter().map(|one| (one.published, one.event)).collect())
}

/// The envelope of these; with the place that Redis writes before them where they have one. Of several, all have places.
pub fn seal(all: &[Happened]) -> Vec<u8> {
    let mut out = Vec::new();
    match all {
        [(at, Event::Publication(said))] if said.epoch.is_some() => {
            put_place(said, envelope::KEPT, &mut out);
            envelope::encode_rest(said, *at, &mut out);
        }
        [(at, event)] => {
            envelope::encode(event, *at, &mut out);
            assert_eq!(out.len(), envelope::encoded_len(event));
        }
        all => {
            let said: Vec<_> = all.iter().filter_map(publication).collect();
            if let Some((_, last)) = said.last() {
                put_place(last, envelope::PACK, &mut out);
            }
            for (at, said) in said {
                let mut rest = Vec::new();
                envelope::encode_rest(said, at, &mut rest);
                envelope::pack(&rest, &mut out);
            }
        }
    }
    out
}

fn publication((at, event): &Happened) -> Option<(SystemTime, &event::Said)> {
    if let Event::Publication(said) = event { Some((*at, said)) } else { None }
}

fn put_place(said: &event::Said, kind: u8, out: &mut Vec<u8>) {
    let epoch = said.epoch.as_ref().map(Epoch::as_str).unwrap_or_default();
    out.push(kind);
    out.extend(format!("{:020}{epoch}", said.publication.offset).bytes());
}
