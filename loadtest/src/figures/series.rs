//! A run over time: what was so about once a second, and what happened when. Knows numbers only.

use serde::{Deserialize, Serialize};

/// What was so at one moment, or since the one before. Times are nanoseconds, sizes bytes, rates per second.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sample {
    /// Seconds since the run began.
    pub at: f64,
    /// Phase of the run.
    pub phase: String,
    /// Connections joined.
    pub connected: u64,
    /// Messages sent per second.
    pub publish_rate: f64,
    /// Messages arrived per second.
    pub delivery_rate: f64,
    /// Cores that the server's processes used, when they are named.
    pub server_cores: Option<f64>,
    /// Resident memory of the server's processes, when they are named.
    pub server_rss: Option<u64>,
    /// Cores that this tool's workers used.
    pub generator_cores: f64,
    /// Median of intended send to arrival; `None` when nothing arrived.
    pub p50: Option<u64>,
    /// 99th percentile of it.
    pub p99: Option<u64>,
    /// 99.9th percentile of it.
    pub p999: Option<u64>,
}

/// Something that happened.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Serialize, Deserialize)]
#[serde(default)]
pub struct Event {
    /// Milliseconds since the run began.
    pub at_ms: u64,
    /// What.
    pub what: String,
}
