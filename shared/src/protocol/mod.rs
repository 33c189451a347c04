//! The Centrifuge client protocol v2: types, codes, and the two encodings. Knows bytes, not sockets, sessions or rules.

pub mod code;
pub mod command;
pub mod emulation;
mod error;
mod frame;
pub mod json;
pub mod lenient;
mod protobuf;
pub(crate) mod raw;
pub mod reply;

use serde::Serialize;

use self::{command::Command, reply::Reply};
pub use self::{
    error::{DecodeError, EncodeError, NotJson},
    frame::{Commands, Replies},
};
use crate::publication::Publication;

/// How a client's messages are spelt on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// One JSON text per line.
    Json,
    /// Length-prefixed Protobuf.
    Protobuf,
}

impl Encoding {
    /// Splits one frame into commands and reads each when it is asked for, so that a caller may stop and keep the rest.
    pub fn commands(self, frame: &[u8]) -> Commands<'_> {
        Commands::new(self, frame)
    }

    /// Splits one frame into replies and reads each when it is asked for: what a client does.
    pub fn replies(self, frame: &[u8]) -> Replies<'_> {
        Replies::new(self, frame)
    }

    /// Appends one reply: a JSON text without a newline at its end, or a Protobuf message behind its length.
    ///
    /// # Errors
    /// A payload is no JSON and the encoding is: nothing is appended then.
    pub fn encode_reply(self, reply: &Reply, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.encode(reply, out)
    }

    /// Appends one command, as [`encode_reply`](Self::encode_reply) does a reply: what a client does.
    ///
    /// # Errors
    /// As there.
    pub fn encode_command(self, command: &Command, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.encode(command, out)
    }

    /// Appends the push of one publication: the very bytes of [`encode_reply`](Self::encode_reply), without a [`Reply`]
    /// to be made and its parts to be copied.
    ///
    /// # Errors
    /// A payload is no JSON and the encoding is: nothing is appended then. A JSON client of the room has to be closed as
    /// of an inappropriate protocol.
    pub fn encode_publication(self, room: &str, publication: &Publication, out: &mut Vec<u8>) -> Result<(), NotJson> {
        match self {
            Self::Json => whole(out, |out| json::encode_publication(room, publication, out)),
            Self::Protobuf => {
                protobuf::encode_publication(room, publication, out);
                Ok(())
            }
        }
    }

    /// A ping of the server, and the pong of a client: the empty message.
    pub const fn ping(self) -> &'static [u8] {
        match self {
            Self::Json => b"{}",
            Self::Protobuf => &[0],
        }
    }

    fn encode(self, message: &(impl prost::Message + Serialize), out: &mut Vec<u8>) -> Result<(), EncodeError> {
        match self {
            Self::Json => whole(out, |out| Ok(serde_json::to_writer(out, message)?))?,
            Self::Protobuf => protobuf::encode(message, out),
        }
        Ok(())
    }
}

/// Takes back what was appended before an error, so that no half of a message ever goes out.
fn whole(out: &mut Vec<u8>, append: impl FnOnce(&mut Vec<u8>) -> Result<(), NotJson>) -> Result<(), NotJson> {
    let start = out.len();
    let appended = append(out);
    if appended.is_err() {
        out.truncate(start);
    }
    appended
}
