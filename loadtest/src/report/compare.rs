//! Two reports side by side: what changed, by how much, and whether to the worse. Knows figures only.

use std::fmt::Write;

use super::{Report, table::show};
use crate::figures::{Better, NAMES, Name, TIMES_FLOOR};

/// Figures and their change.
pub struct Comparison {
    rows: Vec<Change>,
    worse_than: Option<f64>,
}

struct Change {
    name: Name,
    before: Option<f64>,
    after: Option<f64>,
}

impl Comparison {
    /// Of two reports. A figure that changed to the worse by more than the share `worse_than` counts as worse.
    pub fn new(before: &Report, after: &Report, worse_than: Option<f64>) -> Self {
        let value = |name: Name, report: &Report| match name.name {
            TIMES_FLOOR => report.times_floor,
            _ => name.of(&report.figures),
        };
        let change = |name| Change { name, before: value(name, before), after: value(name, after) };
        let told = |change: &Change| [change.before, change.after].iter().flatten().any(|value| *value > 0.0);
        Self { rows: NAMES.into_iter().map(change).filter(told).collect(), worse_than }
    }

    /// Names of the figures that got worse.
    pub fn worse(&self) -> Vec<&'static str> {
        let limit = self.worse_than.unwrap_or(f64::INFINITY);
        self.rows.iter().filter(|row| row.worsening() > limit).map(|row| row.name.name).collect()
    }

    /// The table.
    pub fn render(&self) -> String {
        let mut out = format!("{:<22} {:>16} {:>16} {:>10}\n", "figure", "before", "after", "change");
        for row in &self.rows {
            let change = row.change().map_or_else(|| "-".into(), |change| format!("{:+.1} %", 100.0 * change));
            let mark = if row.worsening() > self.worse_than.unwrap_or(f64::INFINITY) { "  WORSE" } else { "" };
            let (before, after) = (show(row.name, row.before), show(row.name, row.after));
            // Writing to a string does not fail.
            let _ = writeln!(out, "{:<22} {before:>16} {after:>16} {change:>10}{mark}", row.name.name);
        }
        out
    }
}

impl Change {
    /// The change as a share of what it was; `None` where one is missing.
    fn change(&self) -> Option<f64> {
        let (before, after) = (self.before?, self.after?);
        match before {
            0.0 if after > 0.0 => Some(f64::INFINITY),
            0.0 => Some(0.0),
            before => Some(after / before - 1.0),
        }
    }

    /// By which share it is worse; below 0 if it is better.
    fn worsening(&self) -> f64 {
        let change = self.change().unwrap_or(0.0);
        match self.name.better {
            Better::Less => change,
            Better::More => -change,
            Better::Neither => 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::find;

    fn worsening(name: &str, before: f64, after: f64) -> f64 {
        let name = find(name).expect("a figure");
        Change { name, before: Some(before), after: Some(after) }.worsening()
    }

    #[test]
    fn worse_is_told_from_better() {
        assert!(worsening("p99", 1.0, 1.2) > 0.19 && worsening("p99", 1.0, 0.8) < 0.0);
        assert!(worsening("delivery_rate", 1.0, 0.8) > 0.19 && worsening("delivery_rate", 1.0, 2.0) < 0.0);
        assert!(worsening("lost", 0.0, 1.0) > 1e9 && worsening("lost", 0.0, 0.0) < 1e-9);
        assert!(worsening("delivered", 5.0, 1.0).abs() < 1e-9);
    }
}
