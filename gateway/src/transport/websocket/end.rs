//! How a connection ends: by whom, with what last words, and how that is told in metrics and log.

use roomcast_shared::protocol::code::Disconnect;

use crate::hub::{Opcode, put_frame_header};

/// How an open connection ends.
pub(super) enum End {
    /// This side closes.
    Close(Disconnect),
    /// The client closed, with this code if it gave one.
    ByClient(Option<u16>),
    /// The connection is gone.
    Gone,
}

impl From<Disconnect> for End {
    fn from(disconnect: Disconnect) -> Self {
        Self::Close(disconnect)
    }
}

impl End {
    /// Code and reason for metrics and log.
    pub(super) fn said(&self) -> (String, String) {
        match self {
            Self::Close(disconnect) => (disconnect.code.to_string(), disconnect.reason.to_string()),
            Self::ByClient(Some(code)) => ("client".to_owned(), format!("closed by the client with {code}")),
            Self::ByClient(None) => ("client".to_owned(), "closed by the client".to_owned()),
            Self::Gone => ("gone".to_owned(), "the connection broke".to_owned()),
        }
    }

    /// The close frame: a reason of our own, or the client's code given back. None where nobody would hear it.
    pub(super) fn frame(&self) -> Option<Vec<u8>> {
        match self {
            Self::Close(disconnect) => {
                let payload = [&disconnect.code.to_be_bytes(), disconnect.reason.as_bytes()].concat();
                Some(frame(Opcode::Close, &payload))
            }
            Self::ByClient(code) => {
                Some(frame(Opcode::Close, code.map(u16::to_be_bytes).as_ref().map_or(&[], |bytes| bytes)))
            }
            Self::Gone => None,
        }
    }
}

fn frame(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(payload.len() + 4);
    put_frame_header(opcode, payload.len(), &mut frame);
    frame.extend_from_slice(payload);
    frame
}
