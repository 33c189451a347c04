//! Commands of a client that come by another way than its connection, which only goes down. Knows the way by its secret name
//! alone.

use bytes::Bytes;
use roomcast_shared::protocol::{Encoding, code::Disconnect};

use super::{Context, Replies, Session};
use crate::{hub::Mail, node::cluster::Upstreamed};

/// Bytes of commands that may wait for one that is with the broker. Over a connection of its own a client would be kept from
/// sending more; here it can only be told to stop.
const MOST_WAITING: usize = 256 * 1024;

impl Context {
    /// Hands a frame of commands to the session of this node that goes by that secret name. Frames are taken in the order of
    /// calls.
    pub fn upstream(&self, session: &str, commands: Bytes) -> Upstreamed {
        let client = self.names.client(session);
        let connected = client.and_then(|client| self.node.hub().sessions.by_client(client));
        match connected {
            Some((identity, outbox)) if !identity.wire.is_unidirectional() => {
                if outbox.tell(Mail::Commands(commands)) {
                    Upstreamed::Taken
                } else {
                    Upstreamed::Busy
                }
            }
            _ => Upstreamed::Unknown,
        }
    }
}

impl Session {
    /// Takes one frame. What comes while a command waits is put behind what waits with it.
    pub(super) fn take_commands(&mut self, frame: &[u8], replies: &mut Replies<'_>) -> Result<(), Disconnect> {
        let Some(backlog) = self.backlog.take() else {
            if self.clock.is_pong(frame) {
                return self.clock.pong();
            }
            return self.run(frame, replies);
        };
        if backlog.len() + frame.len() > MOST_WAITING {
            return Err(Disconnect::TOO_MANY_REQUESTS);
        }
        let between: &[u8] = match self.wire.encoding() {
            Encoding::Json => b"\n",
            Encoding::Protobuf => b"",
        };
        self.backlog = Some([&backlog, between, frame].concat().into());
        Ok(())
    }
}
