//! Clients that only listen: the one thing they say is a connect request by itself, without a command around it.

use roomcast_shared::protocol::code::Disconnect;

use super::{Replies, Session, Stage};

/// What stands for the id of the command that there is none of.
const ID: u32 = 1;

impl Session {
    /// Takes a message of a client that only listens. Whatever it says beyond its connect request is passed over.
    pub(super) fn listen(&mut self, message: &[u8], replies: &mut Replies<'_>) -> Result<(), Disconnect> {
        if !matches!(self.stage, Stage::Fresh) {
            return Ok(());
        }
        let request = self.wire.encoding().connect_request(message).map_err(|error| self.malformed(&error))?;
        self.connect(ID, &request, replies).map(|_| ())
    }
}
