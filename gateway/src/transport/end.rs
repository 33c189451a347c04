//! How a connection ends: by whom, with what last words, and how that is told in metrics and log.

use roomcast_shared::protocol::{
    code::Disconnect,
    reply::{CodedPush, Push, Reply},
};

use crate::{
    hub::{Opcode, Wire, put_frame_header},
    session::Session,
};

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
    fn said(&self) -> (String, String) {
        match self {
            Self::Close(disconnect) => (disconnect.code.to_string(), disconnect.reason.to_string()),
            Self::ByClient(Some(code)) => ("client".to_owned(), format!("closed by the client with {code}")),
            Self::ByClient(None) => ("client".to_owned(), "closed by the client".to_owned()),
            Self::Gone => ("gone".to_owned(), "the connection broke".to_owned()),
        }
    }

    /// The last words: our reason, or the client's code given back. A WebSocket has a close frame for it, the others a push;
    /// whoever only listens on a WebSocket gets both. None where nobody would hear it.
    pub(super) fn last_words(&self, wire: Wire) -> Option<Vec<u8>> {
        match self {
            Self::Close(disconnect) => {
                let mut words = Vec::new();
                if wire.is_unidirectional() || !wire.is_websocket() {
                    let push = Push { disconnect: Some(CodedPush::from(disconnect)), ..Push::default() };
                    let reply = Reply { push: Some(Box::new(push)), ..Reply::default() };
                    wire.put_reply(&reply, &mut words).expect("a push without a payload can be spelt");
                }
                if wire.is_websocket() {
                    let payload = [&disconnect.code.to_be_bytes(), disconnect.reason.as_bytes()].concat();
                    words.extend(frame(Opcode::Close, &payload));
                }
                Some(words)
            }
            Self::ByClient(code) if wire.is_websocket() => {
                Some(frame(Opcode::Close, code.map(u16::to_be_bytes).as_ref().map_or(&[], |bytes| bytes)))
            }
            Self::ByClient(_) | Self::Gone => None,
        }
    }

    /// Takes the session out of the node, and tells metrics and log why.
    pub(super) fn close(&self, session: Session) {
        if matches!(self, Self::Close(disconnect) if *disconnect == Disconnect::SLOW) {
            session.count_overflow();
        }
        let (code, reason) = self.said();
        session.close(&code, &reason);
    }
}

fn frame(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(payload.len() + 4);
    put_frame_header(opcode, payload.len(), &mut frame);
    frame.extend_from_slice(payload);
    frame
}
