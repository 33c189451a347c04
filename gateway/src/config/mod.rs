//! What a node is told at its start: one typed tree of settings, read from a file, the environment and flags, checked as a
//! whole, with every fault found at once. Knows no rooms, no sockets and no tokens.
//!
//! The path to a field of [`Settings`] is the setting's name; upper-cased and joined by `_` behind `ROOMCAST_` it is its
//! variable; `_file` (`_FILE`) behind either names a file to read the value from. Flags go before variables, variables
//! before the file, the file before the default.

mod check;
mod environment;
mod file;
mod hooks;
mod load;
mod origin;
mod provenance;
mod redis_url;
mod report;
mod rooms;
mod secret;
mod section;
mod settings;
mod suggest;
mod tokens;
mod transports;
mod value;

pub use environment::variable;
pub use hooks::{Authorities, HeaderName, Hook, HookUrl, Hooks, StaticHeader, StatusAnswer, StatusTransform};
pub use load::{Check, Fault, Faults, Flag, Loaded, Sources, load};
pub use origin::OriginPattern;
pub use provenance::{Provenance, Source};
pub use redis_url::RedisPlace;
pub use report::{describe, help, markdown_table, wrap};
pub use rooms::{DataFormat, DeltaType, Namespace, RecoveryMode, RoomPattern, RoomRules, SlowConsumer};
pub use secret::{Pem, RedisUrl, RedisUrls, Secret};
pub use settings::{
    Api, Channel, Client, Concluded, Http, Hub, Limits, Log, Memory, Ready, Redis, Settings, Shutdown, WebSocket,
};
pub use tokens::{Auth, Flat, KeyUrl, NamedIssuer, Pattern, TokenKeys};
pub use transports::Transports;
pub use value::{LogFormat, LogLevel};

/// What the names of all variables begin with.
pub const PREFIX: &str = "ROOMCAST_";

/// The variable that names the settings file, as `--config` does.
pub const FILE_VARIABLE: &str = "ROOMCAST_CONFIG";

/// Reads a duration as the settings have it: `500us`, `250ms`, `30s`, `5m`, `1h`, `1h30m`. The error says how to write one.
pub fn parse_duration(text: &str) -> Result<std::time::Duration, String> {
    value::Scalar::parse(text)
}
