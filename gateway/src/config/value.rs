//! How each type of setting is written, read and shown. A message says what is wrong with the text and how to write it;
//! the caller adds which setting and where.

use std::{net::SocketAddr, time::Duration};

use ipnet::IpNet;

/// Longest duration that may be set: nothing here takes longer, and a point in time that far away can still be named.
const LONGEST: Duration = Duration::from_hours(365 * 24);

/// A value as its source spells it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Raw {
    /// Text: of a variable, a flag, a file named by either, or between quotes in TOML.
    Text(String),
    /// A number or a boolean in TOML.
    Bare(String),
    /// An array in TOML.
    List(Vec<Raw>),
}

/// A setting's value behind its type.
pub(super) trait Value {
    /// Takes what a source says, or says what is wrong with it and leaves the value as it was.
    fn assign(&mut self, raw: &Raw) -> Result<(), String>;
    /// The value as it would be written in a file, secrets masked; `None` if it is unset.
    fn show(&self) -> Option<String>;
    /// How values of this type are written, for the settings table.
    fn kind(&self) -> &'static str;
}

/// A type written as one text.
pub(super) trait Scalar: Sized {
    /// How it is written, for the settings table.
    const KIND: &'static str;
    /// Whether TOML has it between quotes.
    const QUOTED: bool = true;
    /// Reads it; the text is not empty.
    fn parse(text: &str) -> Result<Self, String>;
    /// Writes it, secrets masked.
    fn show(&self) -> String;
}

fn read<T: Scalar>(raw: &Raw) -> Result<T, String> {
    match raw {
        Raw::Text(text) if text.trim().is_empty() => {
            Err("is empty: give a value, or leave the setting out for its default".to_owned())
        }
        Raw::Text(text) => T::parse(text),
        Raw::Bare(text) => T::parse(text)
            .and_then(|value| if T::QUOTED { Err(format!("has to stand in quotes: \"{text}\"")) } else { Ok(value) }),
        Raw::List(_) => Err(format!("is a list where one value is expected ({})", T::KIND)),
    }
}

impl<T: Scalar> Value for T {
    fn assign(&mut self, raw: &Raw) -> Result<(), String> {
        *self = read(raw)?;
        Ok(())
    }

    fn show(&self) -> Option<String> {
        Some(Scalar::show(self)).filter(|text| !text.is_empty())
    }

    fn kind(&self) -> &'static str {
        T::KIND
    }
}

impl<T: Scalar> Value for Option<T> {
    fn assign(&mut self, raw: &Raw) -> Result<(), String> {
        *self = Some(read(raw)?);
        Ok(())
    }

    fn show(&self) -> Option<String> {
        self.as_ref().map(Scalar::show)
    }

    fn kind(&self) -> &'static str {
        T::KIND
    }
}

/// A list: an array in TOML, texts with commas between them elsewhere.
impl<T: Scalar> Value for Vec<T> {
    fn assign(&mut self, raw: &Raw) -> Result<(), String> {
        *self = match raw {
            Raw::List(items) => items.iter().map(read).collect::<Result<_, _>>()?,
            Raw::Text(text) => text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .map(T::parse)
                .collect::<Result<_, _>>()?,
            Raw::Bare(_) => return Err("is not a list: write [\"…\", \"…\"]".to_owned()),
        };
        Ok(())
    }

    fn show(&self) -> Option<String> {
        let items: Vec<_> = self.iter().map(Scalar::show).collect();
        Some(items.join(", ")).filter(|_| !items.is_empty())
    }

    fn kind(&self) -> &'static str {
        T::KIND
    }
}

/// The value of a default at its declaration.
///
/// # Panics
/// The declaration is wrong; the test that builds `Settings::default()` sees each of them.
pub(super) fn declared<T: Scalar>(text: &str) -> T {
    T::parse(text).expect("defaults are written as a file would have them")
}

impl Scalar for String {
    const KIND: &'static str = "text";

    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }

    fn show(&self) -> String {
        self.clone()
    }
}

impl Scalar for bool {
    const KIND: &'static str = "true or false";
    const QUOTED: bool = false;

    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("{text:?} is neither true nor false"))
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Scalar for u32 {
    const KIND: &'static str = "number";
    const QUOTED: bool = false;

    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("{text:?} is not a whole number from 0 to {}", Self::MAX))
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Scalar for SocketAddr {
    const KIND: &'static str = "address";

    fn parse(text: &str) -> Result<Self, String> {
        let spelt = match text.strip_prefix("localhost:") {
            Some(port) => format!("127.0.0.1:{port}"),
            None if text.starts_with(':') => format!("0.0.0.0{text}"),
            None => text.to_owned(),
        };
        spelt.parse().map_err(|_| {
            format!("{text:?} is not an IP address and port: write 127.0.0.1:8000, 0.0.0.0:8000 or [::]:8000")
        })
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Scalar for IpNet {
    const KIND: &'static str = "list of networks";

    fn parse(text: &str) -> Result<Self, String> {
        let address = text.parse::<std::net::IpAddr>().map(IpNet::from);
        text.parse()
            .or(address)
            .map_err(|_| format!("{text:?} is not a network: write 10.0.0.0/8, fd00::/8 or a single address"))
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// Number and unit of `12.5MB`: what comes before the first letter, and from there on.
fn split_unit(text: &str) -> (&str, &str) {
    text.split_at(text.find(|letter: char| letter.is_alphabetic()).unwrap_or(text.len()))
}

/// A size in bytes.
impl Scalar for usize {
    const KIND: &'static str = "size";
    const QUOTED: bool = false;

    fn parse(text: &str) -> Result<Self, String> {
        let (number, unit) = split_unit(text);
        let shift = match unit.to_ascii_uppercase().as_str() {
            "" | "B" => 0,
            "KB" | "KIB" | "K" => 10,
            "MB" | "MIB" | "M" => 20,
            "GB" | "GIB" | "G" => 30,
            _ => return Err(format!("{text:?} has no unit of size that is known: write 512, 64KB, 1MB or 1GB")),
        };
        let bytes = number.trim().parse::<Self>().ok().and_then(|count| count.checked_mul(1 << shift));
        bytes.ok_or_else(|| format!("{text:?} is not a size: write 512, 64KB, 1MB or 1GB"))
    }

    fn show(&self) -> String {
        let units = [(1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "KB")];
        match units.iter().find(|(size, _)| *self >= *size && self.is_multiple_of(*size)) {
            Some((size, unit)) => format!("{}{unit}", self / size),
            None => self.to_string(),
        }
    }
}

impl Scalar for Duration {
    const KIND: &'static str = "duration";

    fn parse(text: &str) -> Result<Self, String> {
        let mut total = Self::ZERO;
        let mut rest = text.trim();
        while !rest.is_empty() {
            let (number, tail) = split_unit(rest);
            let (unit, tail) = tail.split_at(tail.find(|letter: char| !letter.is_alphabetic()).unwrap_or(tail.len()));
            if unit.is_empty() {
                return Err(format!(
                    "{text:?} has no unit: write {}s for seconds, or 500us, 250ms, 5m, 1h",
                    number.trim()
                ));
            }
            let step = duration_step(number.trim(), unit).and_then(|step| total.checked_add(step));
            total =
                step.ok_or_else(|| format!("{text:?} is not a duration: write 500us, 250ms, 30s, 5m, 1h or 1h30m"))?;
            rest = tail;
        }
        if total > LONGEST {
            return Err(format!("{text:?} is longer than a year (365d)"));
        }
        Ok(total)
    }

    fn show(&self) -> String {
        let seconds = self.as_secs();
        let parts = [
            (seconds / 3600, "h"),
            (seconds / 60 % 60, "m"),
            (seconds % 60, "s"),
            (u64::from(self.subsec_millis()), "ms"),
            (u64::from(self.subsec_micros() % 1000), "us"),
        ];
        let given = parts.iter().filter(|(count, _)| *count > 0);
        let shown = given.map(|(count, unit)| format!("{count}{unit}")).collect::<Vec<_>>().concat();
        if shown.is_empty() { "0s".to_owned() } else { shown }
    }
}

fn duration_step(number: &str, unit: &str) -> Option<Duration> {
    let count: u64 = number.parse().ok()?;
    let seconds = |each: u64| count.checked_mul(each).map(Duration::from_secs);
    match unit {
        "us" | "µs" | "μs" => Some(Duration::from_micros(count)),
        "ms" => Some(Duration::from_millis(count)),
        "s" => seconds(1),
        "m" => seconds(60),
        "h" => seconds(3600),
        "d" => seconds(86400),
        _ => None,
    }
}

/// Declares a choice between words.
macro_rules! choice {
    ($(#[doc = $about:literal])+ $name:ident { $( $(#[doc = $doc:literal])+ $variant:ident = $word:literal, )+ }) => {
        $(#[doc = $about])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $( $(#[doc = $doc])+ $variant, )+ }

        impl $name {
            /// The word it is written as.
            pub fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $word, )+ }
            }
        }

        impl $crate::config::value::Scalar for $name {
            const KIND: &'static str = "word";

            fn parse(text: &str) -> Result<Self, String> {
                match text {
                    $( $word => Ok(Self::$variant), )+
                    _ => Err(format!("{text:?} is not one of {}", [$($word),+].join(", "))),
                }
            }

            fn show(&self) -> String {
                self.as_str().to_owned()
            }
        }
    };
}

pub(super) use choice;

choice! {
    /// What is logged: this level and those above it.
    LogLevel {
        /// Faults of the node.
        Error = "error",
        /// What an operator should look at.
        Warn = "warn",
        /// Start, end, and changes of state.
        Info = "info",
        /// The end of each connection, and faults of clients.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }
}

choice! {
    /// How log lines are written.
    LogFormat {
        /// Pretty on a terminal, JSON elsewhere.
        Auto = "auto",
        /// For people.
        Pretty = "pretty",
        /// One JSON object per line.
        Json = "json",
    }
}
