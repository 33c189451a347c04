//! The part of RESP that a subscribed connection speaks: what Redis pushes, read as slices of the read buffer, and the
//! few commands sent to it. Knows no sockets, rooms or envelopes. (<https://redis.io/docs/latest/develop/reference/protocol-spec/>)
//!
//! Version 2 of the protocol is enough for a connection that only subscribes, and every server speaks it; arrays that a
//! server sends as pushes of version 3 are read alike.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

/// The longest string taken; a longer one is a broken stream, not a message.
pub(super) const MAX_BULK: usize = 64 << 20;
/// The longest status or error line taken.
const MAX_LINE: usize = 16 << 10;

/// One thing Redis said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// A message on a channel.
    Message(Message),
    /// A subscription is in force from here on in the stream.
    Subscribed(Bytes),
    /// A subscription is over from here on in the stream.
    Unsubscribed(Bytes),
    /// A command was done: `+OK`, `+PONG` or the `pong` of a subscribed connection.
    Done,
    /// A command was refused, with the reason.
    Error(String),
}

/// A message: the bytes of the frame, and where in them channel and payload lie.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message {
    frame: Bytes,
    channel: Range<usize>,
    payload: Range<usize>,
}

impl Message {
    /// Name of the channel.
    pub(super) fn channel(&self) -> &[u8] {
        &self.frame[self.channel.clone()]
    }

    /// What was published, a slice of the read buffer.
    pub(super) fn payload(&self) -> Bytes {
        self.frame.slice(self.payload.clone())
    }
}

/// The stream is not RESP, or not what a subscribed connection is sent; it cannot be read on.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("the server sent what a subscribed connection is not sent: {0}")]
pub(super) struct Malformed(&'static str);

/// What [`next`] found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A whole frame, taken from the buffer.
    Frame(Frame),
    /// The buffer ends inside a frame; at least so many more bytes belong to it.
    Missing(usize),
}

/// Takes the next frame from the front of the buffer, without copying it.
pub(super) fn next(buffer: &mut BytesMut) -> Result<Next, Malformed> {
    let mut cursor = Cursor { data: buffer, at: 0 };
    let shape = match cursor.frame() {
        Ok(shape) => shape,
        Err(Stop::Missing(bytes)) => return Ok(Next::Missing(bytes)),
        Err(Stop::Malformed(why)) => return Err(Malformed(why)),
    };
    let frame = buffer.split_to(cursor.at).freeze();
    Ok(Next::Frame(match shape {
        Shape::Message { channel, payload } => Frame::Message(Message { frame, channel, payload }),
        Shape::Subscribed(channel) => Frame::Subscribed(frame.slice(channel)),
        Shape::Unsubscribed(channel) => Frame::Unsubscribed(frame.slice(channel)),
        Shape::Done => Frame::Done,
        Shape::Error(line) => Frame::Error(String::from_utf8_lossy(&frame[line]).into_owned()),
    }))
}

/// Writes a command.
pub(super) fn write_command(out: &mut Vec<u8>, verb: &[u8], words: &[&[u8]]) {
    write_head(out, words.len() + 1);
    write_word(out, verb);
    for word in words {
        write_word(out, word);
    }
}

/// Writes the head of a command of so many words; the words follow by [`write_word`].
pub(super) fn write_head(out: &mut Vec<u8>, words: usize) {
    write_length(out, b'*', words);
}

/// Writes one word of a command.
pub(super) fn write_word(out: &mut Vec<u8>, word: &[u8]) {
    write_length(out, b'$', word.len());
    out.extend_from_slice(word);
    out.extend_from_slice(b"\r\n");
}

fn write_length(out: &mut Vec<u8>, sigil: u8, length: usize) {
    out.push(sigil);
    out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// A frame as places in the buffer.
enum Shape {
    Message { channel: Range<usize>, payload: Range<usize> },
    Subscribed(Range<usize>),
    Unsubscribed(Range<usize>),
    Done,
    Error(Range<usize>),
}

/// Why there is no frame.
enum Stop {
    Missing(usize),
    Malformed(&'static str),
}

struct Cursor<'a> {
    data: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn frame(&mut self) -> Result<Shape, Stop> {
        match self.byte()? {
            b'*' | b'>' => self.push(),
            b'+' => self.line().map(|_| Shape::Done),
            b'-' => self.line().map(Shape::Error),
            _ => Err(Stop::Malformed("neither a push, a status nor an error")),
        }
    }

    fn push(&mut self) -> Result<Shape, Stop> {
        let length = self.number()?;
        let kind = self.bulk()?;
        match (&self.data[kind], length) {
            (b"message" | b"smessage", 3) => Ok(Shape::Message { channel: self.bulk()?, payload: self.bulk()? }),
            (b"subscribe" | b"ssubscribe", 3) => self.confirmation().map(Shape::Subscribed),
            (b"unsubscribe" | b"sunsubscribe", 3) => self.confirmation().map(Shape::Unsubscribed),
            (b"pong", 2) => self.bulk().map(|_| Shape::Done),
            _ => Err(Stop::Malformed("a push of an unknown kind")),
        }
    }

    /// Channel and the count of subscriptions, which is of no use here.
    fn confirmation(&mut self) -> Result<Range<usize>, Stop> {
        let channel = self.bulk()?;
        match self.byte()? {
            b':' => self.number().map(|_| channel),
            _ => Err(Stop::Malformed("a confirmation without a count")),
        }
    }

    fn bulk(&mut self) -> Result<Range<usize>, Stop> {
        if self.byte()? != b'$' {
            return Err(Stop::Malformed("a push of something else than strings"));
        }
        let length = self.number()?;
        if length > MAX_BULK {
            return Err(Stop::Malformed("a string of more than 64 MB"));
        }
        let end = self.at + length;
        match self.data.get(end..end + 2) {
            None => Err(Stop::Missing(end + 2 - self.data.len())),
            Some(b"\r\n") => {
                let place = self.at..end;
                self.at = end + 2;
                Ok(place)
            }
            Some(_) => Err(Stop::Malformed("a string that does not end where it said")),
        }
    }

    fn number(&mut self) -> Result<usize, Stop> {
        let line = self.line()?;
        let digits = &self.data[line];
        if digits.is_empty() || digits.len() > 10 || !digits.iter().all(u8::is_ascii_digit) {
            return Err(Stop::Malformed("a length that is no number"));
        }
        Ok(digits.iter().fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0')))
    }

    fn line(&mut self) -> Result<Range<usize>, Stop> {
        let rest = &self.data[self.at..];
        let Some(length) = memchr::memchr(b'\r', &rest[..rest.len().min(MAX_LINE)]) else {
            return Err(if rest.len() < MAX_LINE { Stop::Missing(1) } else { Stop::Malformed("a line without end") });
        };
        let place = self.at..self.at + length;
        match rest.get(length + 1) {
            None => Err(Stop::Missing(1)),
            Some(b'\n') => {
                self.at = place.end + 2;
                Ok(place)
            }
            Some(_) => Err(Stop::Malformed("a line that does not end in CR LF")),
        }
    }

    fn byte(&mut self) -> Result<u8, Stop> {
        let byte = *self.data.get(self.at).ok_or(Stop::Missing(1))?;
        self.at += 1;
        Ok(byte)
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proptest::prelude::*;

    use super::{Frame, Next, next, write_head, write_word};

    /// A frame in a form that is easily compared.
    type Plain = (&'static str, Vec<u8>, Vec<u8>);

    fn plain(frame: Frame) -> Plain {
        match frame {
            Frame::Message(message) => ("message", message.channel().to_vec(), message.payload().to_vec()),
            Frame::Subscribed(channel) => ("subscribe", channel.to_vec(), Vec::new()),
            Frame::Unsubscribed(channel) => ("unsubscribe", channel.to_vec(), Vec::new()),
            Frame::Done => ("done", Vec::new(), Vec::new()),
            Frame::Error(reason) => ("error", reason.into_bytes(), Vec::new()),
        }
    }

    fn written(frame: &Plain) -> Vec<u8> {
        let mut out = Vec::new();
        match frame {
            ("message", channel, payload) => {
                write_head(&mut out, 3);
                for word in [b"message", channel.as_slice(), payload] {
                    write_word(&mut out, word);
                }
            }
            ("done", ..) => out.extend_from_slice(b"*2\r\n$4\r\npong\r\n$0\r\n\r\n"),
            ("error", reason, _) => out.extend([b"-".as_slice(), reason, b"\r\n"].concat()),
            (kind, channel, _) => {
                write_head(&mut out, 3);
                for word in [kind.as_bytes(), channel] {
                    write_word(&mut out, word);
                }
                out.extend_from_slice(b":12\r\n");
            }
        }
        out
    }

    /// Reads everything there is, given the stream in these pieces.
    fn read(pieces: &[&[u8]]) -> Vec<Plain> {
        let mut buffer = BytesMut::new();
        let mut frames = Vec::new();
        for piece in pieces {
            buffer.extend_from_slice(piece);
            while let Next::Frame(frame) = next(&mut buffer).expect("a sound stream") {
                frames.push(plain(frame));
            }
        }
        assert!(buffer.is_empty());
        frames
    }

    fn frame() -> impl Strategy<Value = Plain> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..20);
        prop_oneof![
            (bytes(), bytes()).prop_map(|(channel, payload)| ("message", channel, payload)),
            bytes().prop_map(|channel| ("subscribe", channel, Vec::new())),
            bytes().prop_map(|channel| ("unsubscribe", channel, Vec::new())),
            Just(("done", Vec::new(), Vec::new())),
            "[A-Z]{1,9} [a-z]{0,9}".prop_map(|reason| ("error", reason.into_bytes(), Vec::new())),
        ]
    }

    proptest! {
        #[test]
        fn frames_are_read_however_they_are_cut(frames in proptest::collection::vec(frame(), 1..6)) {
            let stream: Vec<u8> = frames.iter().flat_map(written).collect();
            for cut in 0..=stream.len() {
                prop_assert_eq!(&read(&[&stream[..cut], &stream[cut..]]), &frames);
            }
            let bytes: Vec<&[u8]> = stream.chunks(1).collect();
            prop_assert_eq!(&read(&bytes), &frames);
        }

        #[test]
        fn what_is_missing_is_never_more_than_what_comes(frames in proptest::collection::vec(frame(), 1..2)) {
            let stream = written(&frames[0]);
            for cut in 0..stream.len() {
                let Ok(Next::Missing(bytes)) = next(&mut BytesMut::from(&stream[..cut])) else {
                    panic!("a part of a frame is no frame");
                };
                prop_assert!(bytes >= 1 && cut + bytes <= stream.len());
            }
        }

        #[test]
        fn garbage_causes_no_panic(garbage: Vec<u8>) {
            for head in ["", "*3\r\n$7\r\nmessage\r\n", "*3\r\n$9\r\nsubscribe\r\n$"] {
                let mut buffer = BytesMut::from([head.as_bytes(), &garbage].concat().as_slice());
                while let Ok(Next::Frame(_)) = next(&mut buffer) {}
            }
        }
    }

    #[test]
    fn a_server_of_version_3_is_read_alike() {
        let frames = read(&[b">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nb\r\n"]);
        assert_eq!(frames, [("message", b"a".to_vec(), b"b".to_vec())]);
    }

    #[test]
    fn broken_streams_are_refused() {
        let endless = [b"-".as_slice(), &*vec![b'x'; 20_000]].concat();
        for broken in [
            b"HTTP/1.1 400 Bad Request\r\n".as_slice(),
            b"*3\r\n$7\r\nmessage\r\n$99999999\r\n",
            b"*3\r\n$7\r\nmessage\r\n$99999999999999999999\r\n",
            b"*3\r\n$-1\r\n",
            b"*3\r\n$7\r\nmessage\r\n$1\r\nabc",
            b"*4\r\n$8\r\npmessage\r\n$1\r\na\r\n$1\r\na\r\n$1\r\nb\r\n",
            b"*3\r\n:7\r\n",
            b"+OK\rx",
            &endless,
        ] {
            assert!(next(&mut BytesMut::from(broken)).is_err(), "{}", String::from_utf8_lossy(broken));
        }
    }

    #[test]
    fn the_payload_is_a_slice_of_the_read_buffer() {
        let mut buffer = BytesMut::from(b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nb\r\n".as_slice());
        let memory = buffer.as_ptr_range();
        let Ok(Next::Frame(Frame::Message(message))) = next(&mut buffer) else { panic!("a message") };
        assert!(memory.contains(&message.payload().as_ptr()));
    }
}
