//! What the tests of the whole node share: a node, clients that know nothing of its code, and a Redis of their own.

#![allow(dead_code, unused_imports, unreachable_pub, reason = "each test file uses the part it needs")]

pub mod backend;
pub mod child;
pub mod client;
pub mod gateway;
pub mod http;
pub mod proxy;
pub mod redis;
pub mod stream;

pub use child::Process;
pub use client::{Client, Frame, PATIENCE, frame, from_protobuf, to_protobuf, token};
pub use gateway::{Gateway, SECRET};
pub use serde_json::{Value, json};
pub use stream::Stream;
