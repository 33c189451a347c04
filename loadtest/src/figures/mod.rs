//! The figures of a run, and the names by which thresholds, reports and comparisons speak of them. Knows numbers, not how
//! they were measured or how they are printed.

mod names;
mod series;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::{
    names::{Better, NAMES, Name, Need, TIMES_FLOOR, Unit, find},
    series::{Event, Sample},
};
use crate::{
    control::{Returns, Slow},
    histogram::{Curve, Summary},
    oracle::Tally,
};

/// Everything a run measured. Times are nanoseconds, sizes bytes, rates per second.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Figures {
    /// Connections that joined.
    pub connected: u64,
    /// Connections that did not, by reason.
    pub connect_errors: BTreeMap<String, u64>,
    /// Joined connections that ended before the run did, by reason.
    pub disconnects: BTreeMap<String, u64>,
    /// Connections joined per second of the ramp.
    pub connect_rate: f64,
    /// Intended start of a connection to its last opening reply.
    pub connect: Summary,
    /// Messages sent.
    pub published: u64,
    /// Messages sent per second of the time they were to be sent in.
    pub publish_rate: f64,
    /// Publishes answered with an error, by code and text.
    pub publish_errors: BTreeMap<String, u64>,
    /// Publishes never answered.
    pub unanswered: u64,
    /// Messages the schedule asked for that could not be sent in time.
    pub unsent: u64,
    /// Intended send to the reply of the publish.
    pub publish: Summary,
    /// What arrived, and what did not.
    pub deliveries: Tally,
    /// Deliveries per second, from the start to the last arrival.
    pub delivery_rate: f64,
    /// Intended send to arrival: what a client sees whose publisher had to wait is in it.
    pub delivery: Summary,
    /// The shape of that.
    pub delivery_curve: Curve,
    /// Actual send to arrival: what the server did with what reached it.
    pub raw: Summary,
    /// The shape of that.
    pub raw_curve: Curve,
    /// Connections that came back.
    pub returns: Returns,
    /// Due time of coming back to the last opening reply.
    pub reconnect: Summary,
    /// From the end of the storm until the last one was back, nanoseconds; `None` without a storm.
    pub back_after: Option<u64>,
    /// Intended asking to its reply.
    pub ask: Summary,
    /// Questions answered with an error, by code and text.
    pub ask_errors: BTreeMap<String, u64>,
    /// How often clients were told that somebody entered or left.
    pub memberships: u64,
    /// What slow clients went through; they are in no other figure.
    pub slow: Slow,
    /// What the connections cost the machine as a whole, both ends and this tool included.
    pub machine: Option<Memory>,
    /// What it cost the server's processes, when they were named.
    pub server: Option<Cost>,
    /// What it cost this tool.
    pub generator: Generator,
    /// Processes of the server that ended before the run did.
    pub gone: Vec<String>,
    /// How it went over time, about once a second.
    pub series: Vec<Sample>,
    /// What happened when.
    pub events: Vec<Event>,
}

/// Memory of the machine per joined connection, bytes over the state before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// Of everything: what programs cannot get any more.
    pub all_per_connection: f64,
    /// Of the kernel's own objects: both sockets of a connection, where this tool runs beside the server.
    pub kernel_per_connection: f64,
    /// Of the workers of this tool.
    pub generator_per_connection: f64,
}

/// Cost of the server's processes together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cost {
    /// Resident memory per joined connection, bytes over the state before.
    pub rss_per_connection: f64,
    /// Processor time of the ramp per joined connection, nanoseconds.
    pub cpu_per_connect: f64,
    /// Processor time per connection and second of holding them, nanoseconds; `None` without a hold.
    pub cpu_per_idle_second: Option<f64>,
    /// Processor time from the first publish to the last arrival, per delivery, nanoseconds; `None` without any.
    pub cpu_per_delivery: Option<f64>,
}

/// Cost and health of this tool while it published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Generator {
    /// Processor time per delivery of all workers, nanoseconds; `None` without any.
    pub cpu_per_delivery: Option<f64>,
    /// Share of one core that the busiest worker used; each has one thread.
    pub busiest: f64,
    /// Share of all cores of the machine that the workers used.
    pub machine: f64,
    /// Intended to actual send, where the server did not hold it back.
    pub lateness: Summary,
}
