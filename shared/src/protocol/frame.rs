//! One frame as a sequence of messages, read one at a time. Knows where a message ends, not what follows from it.

use super::{DecodeError, Encoding, command::Command, json, protobuf, reply::Reply};

/// The commands of one frame, in order. After an error there are none left.
#[derive(Clone, Debug)]
pub struct Commands<'a>(Messages<'a>);

impl<'a> Commands<'a> {
    pub(super) fn new(encoding: Encoding, frame: &'a [u8]) -> Self {
        Self(Messages::new(encoding, frame))
    }

    /// The bytes not read yet: empty after the last command and after an error, else a frame of its own.
    pub fn rest(&self) -> &'a [u8] {
        self.0.rest
    }
}

impl Iterator for Commands<'_> {
    type Item = Result<Command, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next_with(json::decode_bounded, protobuf::decode)
    }
}

/// The replies and pushes of one frame, in order. After an error there are none left.
#[derive(Clone, Debug)]
pub struct Replies<'a>(Messages<'a>);

impl<'a> Replies<'a> {
    pub(super) fn new(encoding: Encoding, frame: &'a [u8]) -> Self {
        Self(Messages::new(encoding, frame))
    }
}

impl Iterator for Replies<'_> {
    type Item = Result<Reply, DecodeError>;

    // The depth is left to the server: no type of a reply nests, and payloads are passed over without recursion.
    fn next(&mut self) -> Option<Self::Item> {
        self.0.next_with(json::decode, protobuf::decode)
    }
}

#[derive(Clone, Debug)]
struct Messages<'a> {
    encoding: Encoding,
    rest: &'a [u8],
    /// Whether the frame still owes its first message, which even an empty one does.
    untouched: bool,
}

impl<'a> Messages<'a> {
    fn new(encoding: Encoding, frame: &'a [u8]) -> Self {
        Self { encoding, rest: frame, untouched: true }
    }

    fn next_with<T>(
        &mut self,
        read_json: impl FnOnce(&'a [u8]) -> Result<T, DecodeError>,
        read_protobuf: impl FnOnce(&'a [u8]) -> Result<T, DecodeError>,
    ) -> Option<Result<T, DecodeError>> {
        let first = std::mem::take(&mut self.untouched);
        if self.rest.is_empty() {
            return first.then_some(Err(DecodeError::Empty));
        }
        let message = match self.encoding {
            Encoding::Json => read_json(json::split(&mut self.rest)),
            Encoding::Protobuf => protobuf::split(&mut self.rest).and_then(read_protobuf),
        };
        if message.is_err() {
            self.rest = &[];
        }
        Some(message)
    }
}
