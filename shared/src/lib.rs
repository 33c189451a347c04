//! Wire types, codecs, codes, room names and claims of Roomcast. No I/O, no runtime: whatever speaks the protocol, server
//! or load tool, stands on this crate.

pub mod claims;
pub mod delta;
pub mod event;
pub mod filter;
pub mod position;
pub mod protocol;
pub mod publication;
pub mod room;
