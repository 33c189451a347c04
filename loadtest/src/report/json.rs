//! The report for machines: one JSON object, times in nanoseconds, sizes in bytes, rates per second.

use std::{fs, path::Path};

use anyhow::{Context, Result};

use super::Report;

/// The text.
///
/// # Errors
/// A figure is no number that JSON knows.
pub fn render(report: &Report) -> Result<String> {
    Ok(serde_json::to_string_pretty(report)? + "\n")
}

/// Reads one.
///
/// # Errors
/// The file cannot be read, or holds no report.
pub fn read(path: &Path) -> Result<Report> {
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is no report of this tool", path.display()))
}

/// Writes it to a file.
///
/// # Errors
/// The file cannot be written.
pub fn write(report: &Report, path: &Path) -> Result<()> {
    fs::write(path, render(report)?).with_context(|| format!("cannot write {}", path.display()))
}
