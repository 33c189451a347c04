//! Bytes in and out: listeners, and the ways a client may speak to a session. Knows nothing of rooms and of Redis.

use axum::Router;

pub mod address;
mod admit;
mod carry;
mod cors;
pub mod emulation;
mod end;
mod entrance;
pub mod hangup;
pub mod listen;
pub mod stream;
pub mod websocket;

pub use entrance::Entrance;

/// The routes of all transports that are turned on.
pub fn routes(entrance: &std::sync::Arc<Entrance>) -> Router {
    websocket::routes(entrance).merge(stream::routes(entrance)).merge(emulation::routes(entrance))
}
