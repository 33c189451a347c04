//! The report for people: what one server did in words, and then all figures side by side with those of other servers and
//! of the floor, where there are some.

use std::{collections::BTreeMap, fmt::Write};

use super::{
    Report,
    table::{rows, show, show_ratio},
};
use crate::{
    figures::{Figures, find},
    histogram::Summary,
    units::{show_bytes, show_count, show_nanos},
};

/// Figures of deliveries with a row of their own, by name.
const DELIVERY: [&str; 6] = ["p50", "p90", "p99", "p999", "max", "cpu_per_delivery"];

/// The whole table.
pub fn render(report: &Report) -> String {
    let mut out = String::new();
    let mut row = |name: &str, value: String| {
        // Writing to a string does not fail.
        let _ = writeln!(out, "{name:<22} {value}");
    };
    let figures = &report.figures;
    load_rows(report, &mut row);
    connect_rows(figures, &mut row);
    if figures.published > 0 {
        publish_rows(figures, &mut row);
        delivery_rows(report, &mut row);
    }
    return_rows(figures, &mut row);
    side_rows(figures, &mut row);
    generator_rows(figures, &mut row);
    for warning in &report.warnings {
        row("warning", warning.clone());
    }
    for failed in &report.failed {
        row("FAILED", failed.clone());
    }
    if report.columns().len() > 1 {
        out.push_str(&side_by_side(report));
    }
    out
}

/// All figures in columns, with their multiples of the floor.
fn side_by_side(report: &Report) -> String {
    let columns = report.columns();
    let mut out = format!("\n{:<22}", "figure");
    let servers = if report.floor.is_some() { &columns[..columns.len() - 1] } else { &[] };
    let heads = columns.iter().map(|(name, _)| (*name).to_owned());
    for head in heads.chain(servers.iter().map(|(name, _)| format!("{name} x floor"))) {
        let _ = write!(out, " {head:>18}");
    }
    for row in rows(report) {
        let _ = write!(out, "\n{:<22}", row.name.name);
        let values = row.values.iter().map(|value| show(row.name, *value));
        for cell in values.chain(row.ratios.iter().map(|ratio| show_ratio(*ratio))) {
            let _ = write!(out, " {cell:>18}");
        }
    }
    out + "\n"
}

type Row<'a> = dyn FnMut(&str, String) + 'a;

fn load_rows(report: &Report, row: &mut Row<'_>) {
    let load = &report.load;
    if let Some(scenario) = &report.scenario {
        row("scenario", scenario.clone());
    }
    if !load.servers.is_empty() {
        row(&report.name, load.servers.join(" "));
    }
    for other in &report.against {
        row(&other.name, other.servers.join(" "));
    }
    let (clients, rooms) = (load.clients, load.rooms);
    row("load", format!("{clients} clients in {rooms} rooms, {} bytes, {}/s asked", load.size, show_count(load.rate)));
}

fn connect_rows(figures: &Figures, row: &mut Row<'_>) {
    let rate = show_count(figures.connect_rate.round());
    row("connected", format!("{} at {rate}/s", show_count_of(figures.connected)));
    row("connect time", times(&figures.connect));
    reasons("connect error", &figures.connect_errors, row);
    reasons("disconnect", &figures.disconnects, row);
    if let Some(cost) = figures.server {
        row("RSS per connection", show_bytes(cost.rss_per_connection));
        row("CPU per connect", show_nanos(cost.cpu_per_connect));
        if let Some(idle) = cost.cpu_per_idle_second {
            row("CPU per idle second", format!("{} per connection", show_nanos(idle)));
        }
    }
    if let Some(memory) = figures.machine {
        let (all, kernel) = (show_bytes(memory.all_per_connection), show_bytes(memory.kernel_per_connection));
        let own = show_bytes(memory.generator_per_connection);
        row("machine per connection", format!("{all}; of it kernel {kernel}, this tool {own}"));
    }
}

fn publish_rows(figures: &Figures, row: &mut Row<'_>) {
    let unsent = match figures.unsent {
        0 => String::new(),
        unsent => format!(", {} could not be sent in time", show_count_of(unsent)),
    };
    row("published", format!("{} at {}/s{unsent}", show_count_of(figures.published), show_count(figures.publish_rate)));
    if figures.publish.count > 0 {
        row("publish reply", times(&figures.publish));
    }
    reasons("publish error", &figures.publish_errors, row);
    if figures.unanswered > 0 {
        row("publish unanswered", show_count_of(figures.unanswered));
    }
}

fn delivery_rows(report: &Report, row: &mut Row<'_>) {
    let (figures, tally) = (&report.figures, &report.figures.deliveries);
    let rate = show_count(figures.delivery_rate.round());
    row("delivered", format!("{} at {rate}/s", show_count_of(tally.delivered)));
    let check = [
        ("lost", tally.lost),
        ("doubled", tally.doubled),
        ("out of order", tally.out_of_order),
        ("misrouted", tally.misrouted),
        ("foreign", tally.foreign),
    ];
    row("checked", check.map(|(name, count)| format!("{} {name}", show_count_of(count))).join(", "));
    if tally.away > 0 {
        row("not heard while away", show_count_of(tally.away));
    }
    for name in DELIVERY.iter().filter_map(|name| find(name)) {
        let Some(value) = name.of(figures) else { continue };
        let label = match name.name {
            "cpu_per_delivery" => "CPU per delivery".into(),
            percentile => format!("delivery {percentile}"),
        };
        row(&label, format!("{:>10}", name.show(value)));
    }
    if figures.raw.count > 0 {
        row("from the actual send", times(&figures.raw));
    }
}

fn return_rows(figures: &Figures, row: &mut Row<'_>) {
    let returns = &figures.returns;
    if returns.returned > 0 {
        row("came back", format!("{}, {}", show_count_of(returns.returned), times(&figures.reconnect)));
    }
    if let Some(after) = figures.back_after.filter(|_| returns.returned > 0) {
        row("all back after", show_nanos(float(after)));
    }
    if returns.recovered + returns.unrecovered > 0 {
        let (recovered, unrecovered) = (show_count_of(returns.recovered), show_count_of(returns.unrecovered));
        let messages = show_count_of(figures.deliveries.recovered);
        row("recovered", format!("{recovered} subscriptions with {messages} messages, {unrecovered} in vain"));
    }
    reasons("return error", &returns.errors, row);
}

/// Questions, memberships and slow clients.
fn side_rows(figures: &Figures, row: &mut Row<'_>) {
    if figures.ask.count > 0 {
        row("questions", format!("{}, {}", show_count_of(figures.ask.count), times(&figures.ask)));
    }
    reasons("question error", &figures.ask_errors, row);
    if figures.memberships > 0 {
        row("joins and leaves", format!("{} told", show_count_of(figures.memberships)));
    }
    let slow = &figures.slow;
    if slow.clients > 0 {
        let (clients, delivered) = (show_count_of(slow.clients), show_count_of(slow.delivered));
        row("slow clients", format!("{clients} read {delivered}; they are in no other figure"));
        reasons("slow client ended", &slow.ended, row);
    }
}

fn generator_rows(figures: &Figures, row: &mut Row<'_>) {
    let generator = &figures.generator;
    let Some(cpu) = generator.cpu_per_delivery else { return };
    let share = 100.0 * generator.busiest;
    row("generator", format!("{} CPU per delivery, busiest worker {share:.0} % of a core", show_nanos(cpu)));
    if generator.lateness.count > 0 {
        row("sent late by", times(&generator.lateness));
    }
}

fn times(summary: &Summary) -> String {
    let points = [("p50", summary.p50), ("p99", summary.p99), ("max", summary.max)];
    points.map(|(name, nanos)| format!("{name} {}", show_nanos(float(nanos)))).join(", ")
}

fn reasons(label: &str, counts: &BTreeMap<String, u64>, row: &mut Row<'_>) {
    for (reason, count) in counts {
        row(label, format!("{} x {reason}", show_count_of(*count)));
    }
}

fn show_count_of(count: u64) -> String {
    show_count(float(count))
}

#[expect(clippy::cast_precision_loss, reason = "shown to people")]
fn float(number: u64) -> f64 {
    number as f64
}
