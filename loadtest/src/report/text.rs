//! The report for people: one table, the floor's column and the ratio to it where there is one.

use std::{collections::BTreeMap, fmt::Write};

use super::Report;
use crate::{
    figures::{Figures, find},
    histogram::Summary,
    units::{show_bytes, show_count, show_nanos},
};

/// Figures shown beside the floor's, by name.
const COMPARED: [&str; 6] = ["p50", "p90", "p99", "p999", "max", "cpu_per_delivery"];

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
    generator_rows(figures, &mut row);
    for warning in &report.warnings {
        row("warning", warning.clone());
    }
    for failed in &report.failed {
        row("FAILED", failed.clone());
    }
    out
}

type Row<'a> = dyn FnMut(&str, String) + 'a;

fn load_rows(report: &Report, row: &mut Row<'_>) {
    let load = &report.load;
    if !load.servers.is_empty() {
        row("servers", load.servers.join(" "));
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
    for name in COMPARED {
        let Some(name) = find(name) else { continue };
        let Some(value) = name.of(figures) else { continue };
        let floor = report.floor.as_ref().and_then(|floor| name.of(floor));
        let beside = floor.map(|floor| format!("   {:>6.2} x floor ({})", value / floor, name.show(floor)));
        let label = match name.name {
            "cpu_per_delivery" => "CPU per delivery".into(),
            percentile => format!("delivery {percentile}"),
        };
        row(&label, format!("{:>10}{}", name.show(value), beside.unwrap_or_default()));
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
