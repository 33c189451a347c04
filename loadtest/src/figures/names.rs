//! Names of figures: the one place that knows how each is spelt, counted, and which way it should go.

use std::collections::BTreeMap;

use super::Figures;
use crate::{histogram::Summary, units};

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

/// Which way a figure should go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// The less the better.
    Less,
    /// The more the better.
    More,
    /// It says how much load there was, not how well it went.
    Neither,
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
    /// Which way it should go.
    pub better: Better,
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

const fn name(name: &'static str, unit: Unit, need: Need, better: Better, read: fn(&Figures) -> Option<f64>) -> Name {
    Name { name, unit, need, better, read }
}

/// A time that needs nothing and is better when it is shorter.
const fn duration(name: &'static str, read: fn(&Figures) -> Option<f64>) -> Name {
    self::name(name, Unit::Time, Need::None, Better::Less, read)
}

/// A count of what should not happen.
const fn faults(name: &'static str, read: fn(&Figures) -> Option<f64>) -> Name {
    self::name(name, Unit::Count, Need::None, Better::Less, read)
}

/// A number that says how much there was.
const fn amount(name: &'static str, unit: Unit, read: fn(&Figures) -> Option<f64>) -> Name {
    self::name(name, unit, Need::None, Better::Neither, read)
}

/// A price per something that needs the server's processes.
const fn price(name: &'static str, unit: Unit, need: Need, read: fn(&Figures) -> Option<f64>) -> Name {
    self::name(name, unit, need, Better::Less, read)
}

/// Ratio of the server's processor time per delivery to the floor's; its value is known to the report, which has both.
pub const TIMES_FLOOR: &str = "times_floor";

/// Every figure that a threshold may name.
pub const NAMES: [Name; 51] = [
    name("connected", Unit::Count, Need::None, Better::More, |f| Some(count(f.connected))),
    faults("connect_errors", |f| Some(sum(&f.connect_errors))),
    faults("disconnects", |f| Some(sum(&f.disconnects))),
    name("connect_rate", Unit::Rate, Need::None, Better::More, |f| Some(f.connect_rate)),
    duration("connect_p50", |f| time(&f.connect, f.connect.p50)),
    duration("connect_p99", |f| time(&f.connect, f.connect.p99)),
    amount("publish_rate", Unit::Rate, |f| Some(f.publish_rate)),
    faults("publish_errors", |f| Some(sum(&f.publish_errors))),
    faults("unanswered", |f| Some(count(f.unanswered))),
    faults("unsent", |f| Some(count(f.unsent))),
    duration("publish_p50", |f| time(&f.publish, f.publish.p50)),
    duration("publish_p99", |f| time(&f.publish, f.publish.p99)),
    faults("lost", |f| Some(count(f.deliveries.lost))),
    faults("doubled", |f| Some(count(f.deliveries.doubled))),
    faults("out_of_order", |f| Some(count(f.deliveries.out_of_order))),
    faults("misrouted", |f| Some(count(f.deliveries.misrouted))),
    amount("delivered", Unit::Count, |f| Some(count(f.deliveries.delivered))),
    amount("away", Unit::Count, |f| Some(count(f.deliveries.away))),
    name("delivery_rate", Unit::Rate, Need::None, Better::More, |f| Some(f.delivery_rate)),
    duration("p50", |f| time(&f.delivery, f.delivery.p50)),
    duration("p90", |f| time(&f.delivery, f.delivery.p90)),
    duration("p95", |f| time(&f.delivery, f.delivery.p95)),
    duration("p99", |f| time(&f.delivery, f.delivery.p99)),
    duration("p999", |f| time(&f.delivery, f.delivery.p999)),
    duration("p9999", |f| time(&f.delivery, f.delivery.p9999)),
    duration("max", |f| time(&f.delivery, f.delivery.max)),
    duration("raw_p50", |f| time(&f.raw, f.raw.p50)),
    duration("raw_p99", |f| time(&f.raw, f.raw.p99)),
    duration("raw_p999", |f| time(&f.raw, f.raw.p999)),
    duration("raw_max", |f| time(&f.raw, f.raw.max)),
    amount("returned", Unit::Count, |f| Some(count(f.returns.returned))),
    faults("return_errors", |f| Some(sum(&f.returns.errors))),
    duration("reconnect_p50", |f| time(&f.reconnect, f.reconnect.p50)),
    duration("reconnect_p99", |f| time(&f.reconnect, f.reconnect.p99)),
    duration("reconnect_max", |f| time(&f.reconnect, f.reconnect.max)),
    duration("back_after", |f| f.back_after.map(count)),
    amount("recovered", Unit::Count, |f| Some(count(f.returns.recovered))),
    faults("unrecovered", |f| Some(count(f.returns.unrecovered))),
    duration("ask_p50", |f| time(&f.ask, f.ask.p50)),
    duration("ask_p99", |f| time(&f.ask, f.ask.p99)),
    faults("ask_errors", |f| Some(sum(&f.ask_errors))),
    amount("memberships", Unit::Count, |f| Some(count(f.memberships))),
    amount("slow_ended", Unit::Count, |f| Some(sum(&f.slow.ended))),
    price("rss_per_connection", Unit::Size, Need::Pid, |f| f.server.map(|cost| cost.rss_per_connection)),
    price("kernel_per_connection", Unit::Size, Need::None, |f| f.machine.map(|memory| memory.kernel_per_connection)),
    price("all_per_connection", Unit::Size, Need::None, |f| f.machine.map(|memory| memory.all_per_connection)),
    price("cpu_per_connect", Unit::Time, Need::Pid, |f| f.server.map(|cost| cost.cpu_per_connect)),
    price("cpu_per_idle_second", Unit::Time, Need::Hold, |f| f.server?.cpu_per_idle_second),
    price("cpu_per_delivery", Unit::Time, Need::Pid, |f| f.server?.cpu_per_delivery),
    price("generator_per_delivery", Unit::Time, Need::None, |f| f.generator.cpu_per_delivery),
    price(TIMES_FLOOR, Unit::Count, Need::Floor, |_| None),
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
