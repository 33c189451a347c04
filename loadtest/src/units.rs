//! Quantities as people write them, on the command line and in tables: `30s`, `3ms`, `64KB`, `1.5`. Knows no names of
//! settings or figures.

use std::time::Duration;

use crate::schedule::Rate;

/// Names of times, with their nanoseconds, longest last.
const TIMES: [(&str, f64); 7] =
    [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3600e9)];
/// Names of sizes, with their bytes, longest last.
const SIZES: [(&str, f64); 4] = [("B", 1.0), ("KB", 1024.0), ("MB", 1_048_576.0), ("GB", 1_073_741_824.0)];

/// Splits `3.5ms` into number and unit.
///
/// # Errors
/// There is no number at the start, or it is negative.
pub fn split(text: &str) -> Result<(f64, &str), String> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number = text[..end].parse::<f64>().map_err(|_| format!("`{text}` does not start with a number"))?;
    Ok((number, text[end..].trim()))
}

/// Nanoseconds of a time such as `3ms`.
///
/// # Errors
/// The unit is missing or unknown.
pub fn nanos(text: &str) -> Result<f64, String> {
    in_units(text, &TIMES)
}

/// Bytes of a size such as `64KB` or `128`.
///
/// # Errors
/// The unit is unknown.
pub fn bytes(text: &str) -> Result<f64, String> {
    let (number, unit) = split(text)?;
    if unit.is_empty() { Ok(number) } else { in_units(text, &SIZES) }
}

fn in_units(text: &str, units: &[(&str, f64)]) -> Result<f64, String> {
    let (number, unit) = split(text)?;
    let factor = units.iter().find(|(name, _)| *name == unit).map(|(_, factor)| factor);
    let known = || units.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    factor.map(|factor| number * factor).ok_or_else(|| format!("`{text}` needs a unit: one of {}", known()))
}

/// A time such as `30s`, for the command line.
///
/// # Errors
/// See [`nanos`].
pub fn duration(text: &str) -> Result<Duration, String> {
    let seconds = nanos(text)? / 1e9;
    Duration::try_from_secs_f64(seconds).map_err(|_| format!("`{text}` is too long a time"))
}

/// A size such as `128` or `4KB`, for the command line.
///
/// # Errors
/// See [`bytes()`]; or it is over 1 GB.
pub fn size(text: &str) -> Result<usize, String> {
    let bytes = bytes(text)?;
    if bytes > SIZES[3].1 {
        return Err(format!("`{text}` is over 1GB"));
    }
    usize::try_from(whole(bytes)).map_err(|_| format!("`{text}` is too much"))
}

/// A rate per second such as `50` or `0.5`, for the command line.
///
/// # Errors
/// It is no number, or over a million.
pub fn rate(text: &str) -> Result<Rate, String> {
    match split(text)? {
        (number, "" | "/s") if number <= 1e6 => Ok(Rate(u64::from(whole(number * 1000.0)))),
        (_, "" | "/s") => Err(format!("`{text}` is over a million a second")),
        _ => Err(format!("`{text}` is no rate; write a number per second, such as 50")),
    }
}

/// A share such as `10%`, for the command line; 0.1 of it.
///
/// # Errors
/// It is no number of percent.
pub fn percent(text: &str) -> Result<f64, String> {
    match split(text)? {
        (number, "%" | "") => Ok(number / 100.0),
        (_, unit) => Err(format!("`{text}` is to be in percent, not in `{unit}`")),
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "callers bound it; `split` takes no sign")]
fn whole(number: f64) -> u32 {
    number.round() as u32
}

/// Nanoseconds for people: `2.31 ms`.
pub fn show_nanos(nanos: f64) -> String {
    match nanos {
        n if n < 1e6 => format!("{:.2} µs", n / 1e3),
        n if n < 1e9 => format!("{:.2} ms", n / 1e6),
        n => format!("{:.2} s", n / 1e9),
    }
}

/// Bytes for people: `2.9 KB`.
pub fn show_bytes(bytes: f64) -> String {
    match bytes {
        b if b.abs() < 1024.0 => format!("{b:.0} B"),
        b if b.abs() < 1_048_576.0 => format!("{:.2} KB", b / 1024.0),
        b => format!("{:.1} MB", b / 1_048_576.0),
    }
}

/// A count or rate for people: `4,400,123`, with one decimal below 100.
pub fn show_count(number: f64) -> String {
    if number < 100.0 && number.fract() != 0.0 {
        return format!("{number:.1}");
    }
    let digits = format!("{number:.0}");
    let groups = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy);
    groups.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read() {
        assert_eq!(nanos("3ms"), Ok(3e6));
        assert_eq!(nanos("84 µs"), Ok(84e3));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(size("4KB"), Ok(4096));
        assert_eq!(size("128"), Ok(128));
        assert_eq!(rate("0.5"), Ok(Rate(500)));
        assert_eq!(rate("1000000"), Ok(Rate(1_000_000_000)));
    }

    #[test]
    fn faults_say_what_to_write() {
        assert!(nanos("3").expect_err("no unit").contains("needs a unit: one of ns"));
        assert!(duration("s").expect_err("no number").contains("does not start with a number"));
        assert!(duration("-3s").is_err());
        assert!(rate("50ms").expect_err("a time").contains("no rate"));
    }

    #[test]
    fn quantities_are_shown() {
        assert_eq!(show_nanos(2_310_000.0), "2.31 ms");
        assert_eq!(show_bytes(2970.0), "2.90 KB");
        assert_eq!(show_count(4_400_123.0), "4,400,123");
        assert_eq!(show_count(49.96), "50.0");
    }
}
