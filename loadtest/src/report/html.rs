//! The report as one HTML page that needs nothing else: figures in a table, plots as SVG within it.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{
    Report,
    plot::{Axis, Curve, draw},
    table::{rows, show, show_ratio},
};
use crate::{
    figures::{Event, Figures, Sample},
    units::{show_bytes, show_count, show_nanos},
};

/// How the page looks.
const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}\
    h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}table{border-collapse:collapse}\
    td,th{padding:.2rem .8rem;border-bottom:1px solid #ddd;text-align:right}\
    td:first-child,th:first-child{text-align:left}svg{max-width:100%;height:auto}\
    .bad{background:#fdecea;border-left:4px solid #d62728;padding:.4rem .8rem;margin:.4rem 0}\
    .warn{background:#fff6e0;border-left:4px solid #e0a000;padding:.4rem .8rem;margin:.4rem 0}";

/// Writes it to a file.
///
/// # Errors
/// The file cannot be written, or a plot not drawn.
pub fn write(report: &Report, path: &Path) -> Result<()> {
    fs::write(path, render(report)?).with_context(|| format!("cannot write {}", path.display()))
}

/// The page.
///
/// # Errors
/// A plot cannot be drawn.
pub fn render(report: &Report) -> Result<String> {
    let title = format!("Load test: {}", report.scenario.as_deref().unwrap_or("flags of its own"));
    let plots = plots(report)?;
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { (title) }
                (load(report))
                @for failed in &report.failed { p.bad { "Failed: " (failed) } }
                @for warning in &report.warnings { p.warn { (warning) } }
                h2 { "Figures" }
                (table(report))
                @for (title, svg) in plots { h2 { (title) } (PreEscaped(svg)) }
                (events(&report.figures.events))
            }
        }
    };
    Ok(page.into_string())
}

fn load(report: &Report) -> Markup {
    let load = &report.load;
    html! {
        p {
            (show_count(load.clients.into())) " clients in " (show_count(load.rooms.into())) " rooms, "
            (load.size) " bytes, " (show_count(load.rate)) " messages/s asked for " (load.seconds) " s, "
            (load.publishers) " publishers, " (load.workers) " worker processes."
        }
        ul {
            li { b { (report.name) } " " (load.servers.join(" ")) }
            @for other in &report.against { li { b { (other.name) } " " (other.servers.join(" ")) } }
            @if report.floor.is_some() {
                li { b { "floor" } " a bare loop of one write per message and socket, under the same load" }
            }
        }
    }
}

fn table(report: &Report) -> Markup {
    let columns = report.columns();
    let servers = if report.floor.is_some() { &columns[..columns.len() - 1] } else { &[] };
    html! {
        table {
            tr {
                th { "figure" }
                @for (name, _) in &columns { th { (name) } }
                @for (name, _) in servers { th { (name) " × floor" } }
            }
            @for row in rows(report) {
                tr {
                    td { (row.name.name) }
                    @for value in &row.values { td { (show(row.name, *value)) } }
                    @for ratio in &row.ratios { td { (show_ratio(*ratio)) } }
                }
            }
        }
    }
}

fn events(events: &[Event]) -> Markup {
    html! {
        h2 { "What happened when" }
        table {
            @for event in events {
                tr { td { (event.at_ms / 1000) "." (event.at_ms % 1000 / 100) " s" } td { (event.what) } }
            }
        }
    }
}

/// Which value of a sample a curve follows, and the label behind the server's name.
type Follow = (&'static str, fn(&Sample) -> Option<f64>);

fn plots(report: &Report) -> Result<Vec<(&'static str, String)>> {
    let seconds = Axis { label: "seconds", show: &|x| format!("{x:.0}") };
    let count = Axis { label: "per second", show: &|y| show_count(y.round()) };
    let cores = Axis { label: "cores", show: &|y| format!("{y:.2}") };
    let latency = Axis { label: "intended send to arrival", show: &|y| show_nanos(10f64.powf(*y)) };
    let memory = Axis { label: "resident memory", show: &|y| show_bytes(*y) };
    let connections = Axis { label: "connections", show: &|y| show_count(y.round()) };
    let percentile = Axis { label: "percentile", show: &|x| show_percentile(*x) };
    let over_time: [(&str, &[Follow], &Axis<'_>, bool); 5] = [
        (
            "Delivery latency over time",
            &[("p50", |s| log(s.p50)), ("p99", |s| log(s.p99)), ("p99.9", |s| log(s.p999))],
            &latency,
            true,
        ),
        (
            "Throughput",
            &[("delivered", |s| Some(s.delivery_rate)), ("published", |s| Some(s.publish_rate))],
            &count,
            false,
        ),
        ("Processor", &[("server", |s| s.server_cores), ("load tool", |s| Some(s.generator_cores))], &cores, false),
        ("Memory", &[("server", |s| s.server_rss.map(float))], &memory, false),
        ("Connections", &[("joined", |s| Some(float(s.connected)))], &connections, false),
    ];
    let by_percentile = draw(&percentiles(report), &percentile, &latency, true)?;
    let mut plots = vec![("Delivery latency by percentile", by_percentile)];
    for (title, follows, up, from_least) in over_time {
        let curves = curves(report, follows);
        if !curves.is_empty() {
            plots.push((title, draw(&curves, &seconds, up, from_least)?));
        }
    }
    Ok(plots)
}

/// Curves over time of all servers; those without a point are left out.
fn curves(report: &Report, follows: &[Follow]) -> Vec<Curve> {
    let mut curves = Vec::new();
    for (nth, (name, figures)) in report.columns().into_iter().enumerate() {
        for (place, (label, value)) in follows.iter().enumerate() {
            let points = figures.series.iter().filter_map(|sample| Some((sample.at, value(sample)?)));
            let strength = 1.0 - 0.35 * float(place as u64);
            let curve = Curve {
                label: format!("{name} {label}"),
                color: color(report, nth),
                strength,
                points: points.collect(),
            };
            curves.extend(Some(curve).filter(|curve| !curve.points.is_empty()));
        }
    }
    curves
}

/// The distributions of all servers, from the intended and from the actual send.
fn percentiles(report: &Report) -> Vec<Curve> {
    let mut curves = Vec::new();
    for (nth, (name, figures)) in report.columns().into_iter().enumerate() {
        let Figures { delivery_curve, raw_curve, .. } = figures;
        for (label, curve, strength) in [("", delivery_curve, 1.0), (" from the actual send", raw_curve, 0.45)] {
            let points = curve.iter().map(|&(percentile, nanos)| (nines(percentile), float(nanos.max(1)).log10()));
            curves.push(Curve {
                label: format!("{name}{label}"),
                color: color(report, nth),
                strength,
                points: points.collect(),
            });
        }
    }
    curves
}

fn color(report: &Report, nth: usize) -> Option<usize> {
    (nth + 1 < report.columns().len() || report.floor.is_none()).then_some(nth)
}

/// Percentiles as they are told apart: each nine takes as much room as the one before. The last is put at six.
fn nines(percentile: f64) -> f64 {
    -(1.0 - percentile / 100.0).max(1e-6).log10()
}

fn show_percentile(nines: f64) -> String {
    let percentile = 100.0 * (1.0 - 10f64.powf(-nines));
    if nines >= 5.9 {
        "max".into()
    } else {
        format!("{percentile:.4}").trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

fn log(nanos: Option<u64>) -> Option<f64> {
    nanos.map(|nanos| float(nanos.max(1)).log10())
}

#[expect(clippy::cast_precision_loss, reason = "shown to people")]
fn float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_spelt_as_people_do() {
        let shown = [0.0, 50.0, 90.0, 99.9, 99.99, 100.0].map(|percentile| show_percentile(nines(percentile)));
        assert_eq!(shown, ["0", "50", "90", "99.9", "99.99", "max"]);
    }
}
