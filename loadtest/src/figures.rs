//! The figures of a run, and the names by which thresholds and reports speak of them. Knows numbers, not how they were
//! measured or how they are printed.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{histogram::Summary, oracle::Tally, units};

/// Everything a run measured. Times are nanoseconds, sizes bytes, rates per second.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
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
    /// Intended send to arrival.
    pub delivery: Summary,
    /// What it cost the server's processes, when they were named.
    pub server: Option<Cost>,
    /// What it cost this tool.
    pub generator: Generator,
}

/// Cost of the server's processes together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
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

/// What a figure is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Nanoseconds.
    Time,
    /// Bytes.
    Size,
    /// A plain number.
    Count,
    /// Per second.
    Rate,
}

/// What a figure cannot be measured without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing.
    None,
    /// The server's process ids.
    Pid,
    /// The server's process ids and a hold.
    Hold,
    /// The server's process ids and a floor in the same run.
    Floor,
}

/// A figure by name.
#[derive(Clone, Copy, Debug)]
pub struct Name {
    /// As thresholds spell it.
    pub name: &'static str,
    /// What it is counted in.
    pub unit: Unit,
    /// What it needs.
    pub need: Need,
    read: fn(&Figures) -> Option<f64>,
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Name {
    /// Its value in these figures; `None` if it was not measured.
    pub fn of(&self, figures: &Figures) -> Option<f64> {
        (self.read)(figures)
    }

    /// A value of it, for people.
    pub fn show(&self, value: f64) -> String {
        match self.unit {
            Unit::Time => units::show_nanos(value),
            Unit::Size => units::show_bytes(value),
            Unit::Count => units::show_count(value),
            Unit::Rate => format!("{}/s", units::show_count(value)),
        }
    }
}

const fn name(name: &'static str, unit: Unit, need: Need, read: fn(&Figures) -> Option<f64>) -> Name {
    Name { name, unit, need, read }
}

/// Ratio of the server's processor time per delivery to the floor's; its value is known to the report, which has both.
pub const TIMES_FLOOR: &str = "times_floor";

/// Every figure that a threshold may name.
pub const NAMES: [Name; 27] = [
    name("connected", Unit::Count, Need::None, |f| Some(count(f.connected))),
    name("connect_errors", Unit::Count, Need::None, |f| Some(sum(&f.connect_errors))),
    name("disconnects", Unit::Count, Need::None, |f| Some(sum(&f.disconnects))),
    name("connect_rate", Unit::Rate, Need::None, |f| Some(f.connect_rate)),
    name("connect_p50", Unit::Time, Need::None, |f| time(&f.connect, f.connect.p50)),
    name("connect_p99", Unit::Time, Need::None, |f| time(&f.connect, f.connect.p99)),
    name("publish_rate", Unit::Rate, Need::None, |f| Some(f.publish_rate)),
    name("publish_errors", Unit::Count, Need::None, |f| Some(sum(&f.publish_errors))),
    name("unanswered", Unit::Count, Need::None, |f| Some(count(f.unanswered))),
    name("unsent", Unit::Count, Need::None, |f| Some(count(f.unsent))),
    name("publish_p50", Unit::Time, Need::None, |f| time(&f.publish, f.publish.p50)),
    name("publish_p99", Unit::Time, Need::None, |f| time(&f.publish, f.publish.p99)),
    name("lost", Unit::Count, Need::None, |f| Some(count(f.deliveries.lost))),
    name("doubled", Unit::Count, Need::None, |f| Some(count(f.deliveries.doubled))),
    name("out_of_order", Unit::Count, Need::None, |f| Some(count(f.deliveries.out_of_order))),
    name("misrouted", Unit::Count, Need::None, |f| Some(count(f.deliveries.misrouted))),
    name("delivery_rate", Unit::Rate, Need::None, |f| Some(f.delivery_rate)),
    name("p50", Unit::Time, Need::None, |f| time(&f.delivery, f.delivery.p50)),
    name("p90", Unit::Time, Need::None, |f| time(&f.delivery, f.delivery.p90)),
    name("p99", Unit::Time, Need::None, |f| time(&f.delivery, f.delivery.p99)),
    name("p999", Unit::Time, Need::None, |f| time(&f.delivery, f.delivery.p999)),
    name("max", Unit::Time, Need::None, |f| time(&f.delivery, f.delivery.max)),
    name("rss_per_connection", Unit::Size, Need::Pid, |f| f.server.map(|cost| cost.rss_per_connection)),
    name("cpu_per_connect", Unit::Time, Need::Pid, |f| f.server.map(|cost| cost.cpu_per_connect)),
    name("cpu_per_idle_second", Unit::Time, Need::Hold, |f| f.server?.cpu_per_idle_second),
    name("cpu_per_delivery", Unit::Time, Need::Pid, |f| f.server?.cpu_per_delivery),
    name(TIMES_FLOOR, Unit::Count, Need::Floor, |_| None),
];

/// The figure of that name.
pub fn find(name: &str) -> Option<Name> {
    NAMES.into_iter().find(|known| known.name == name)
}

#[expect(clippy::cast_precision_loss, reason = "counts of a run stay far below 2^53")]
fn count(number: u64) -> f64 {
    number as f64
}

fn sum(counts: &BTreeMap<String, u64>) -> f64 {
    count(counts.values().sum())
}

/// A point of a histogram that holds something.
fn time(summary: &Summary, nanos: u64) -> Option<f64> {
    (summary.count > 0).then(|| count(nanos))
}
