//! Bytes in and out: listeners, and the ways a client may speak to a session. Knows nothing of rooms and of Redis.

pub mod address;
pub mod listen;
pub mod websocket;
