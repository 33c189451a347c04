//! What a process tells of itself in Prometheus' text format, for servers on other machines. Knows two names.

use std::time::Duration;

use anyhow::{Context, Result};

use super::Usage;

/// Processor time, seconds; the name every client library of Prometheus gives it.
const CPU: &str = "process_cpu_seconds_total";
/// Resident memory, bytes.
const RSS: &str = "process_resident_memory_bytes";
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Asks the process whose metrics are at `url`.
///
/// # Errors
/// It does not answer, or does not tell what it uses.
pub(super) fn usage(url: &str) -> Result<Usage> {
    let agent = ureq::Agent::new_with_config(ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).build());
    read(&agent.get(url).call()?.body_mut().read_to_string()?)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "neither is negative or near 2^64")]
fn read(text: &str) -> Result<Usage> {
    Ok(Usage { cpu: (value(text, CPU)? * 1e9) as u64, rss: value(text, RSS)? as u64 })
}

fn value(text: &str, name: &str) -> Result<f64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let line = lines.next().with_context(|| format!("it does not tell {name}"))?;
    line.split(' ').next().and_then(|number| number.parse().ok()).with_context(|| format!("{name} is no number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_read() {
        let text = "# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total 1.5\n\
                    process_resident_memory_bytes 1.2e+07 1700000000\n";
        assert_eq!(read(text).expect("both are there"), Usage { cpu: 1_500_000_000, rss: 12_000_000 });
        assert!(read("process_cpu_seconds_total 1").expect_err("no memory").to_string().contains(RSS));
    }
}
