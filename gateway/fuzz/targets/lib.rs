//! What comes to a node from outside: frames, commands, what Redis sends, tokens, settings. Each target says what holds of any
//! bytes, which is more than that they cause no panic. As tests they play what lies in `__fuzz__` beside them and some
//! thousand inputs at random; `make fuzz` searches.

#![cfg(test)]

mod memory;
mod protocol;
mod redis;
mod settings;
mod tokens;
mod websocket;

/// Inputs at random in a test, as far as they take no longer than a second.
const ITERATIONS: usize = 5_000;
