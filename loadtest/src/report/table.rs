//! Figures side by side, by name: one row for each that somebody has, with multiples of the last column where that is the
//! floor. Knows no form of print.

use super::Report;
use crate::figures::{Figures, NAMES, Name, Unit};

/// One row: the figure, its value in each column, and the multiples of the floor of all columns but that.
pub(super) struct Row {
    pub(super) name: Name,
    pub(super) values: Vec<Option<f64>>,
    pub(super) ratios: Vec<Option<f64>>,
}

/// Every row of a report.
pub(super) fn rows(report: &Report) -> Vec<Row> {
    let columns: Vec<&Figures> = report.columns().into_iter().map(|(_, figures)| figures).collect();
    let rows = NAMES.into_iter().map(|name| row(name, &columns, report.floor.is_some()));
    rows.filter(|row| row.values.iter().flatten().any(|value| *value > 0.0)).collect()
}

fn row(name: Name, columns: &[&Figures], with_floor: bool) -> Row {
    let values: Vec<Option<f64>> = columns.iter().map(|figures| name.of(figures)).collect();
    let floor = values.last().copied().flatten().filter(|floor| with_floor && *floor > 0.0 && name.unit != Unit::Count);
    let servers = if with_floor { &values[..values.len() - 1] } else { &[] };
    let ratios = servers.iter().map(|value| Some((*value)? / floor?)).collect();
    Row { name, values, ratios }
}

/// A value for people; a dash where there is none.
pub(super) fn show(name: Name, value: Option<f64>) -> String {
    value.map_or_else(|| "-".into(), |value| name.show(value))
}

/// A multiple for people.
pub(super) fn show_ratio(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "-".into(), |ratio| format!("{ratio:.2} x"))
}
