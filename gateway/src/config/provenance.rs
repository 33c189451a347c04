//! Where each value came from, so that every fault and every listing can say it.

use std::{collections::BTreeMap, fmt, path::PathBuf};

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody set it.
    Default,
    /// Nobody set it, and development mode chooses differently from the default.
    Development,
    /// The settings file.
    File {
        /// As given.
        path: PathBuf,
        /// Counted from 1; 0 where it concerns the file as a whole.
        line: usize,
    },
    /// An environment variable, by its name.
    Variable(String),
    /// A flag on the command line, by its name.
    Flag(String),
    /// A file that one of the sources above names.
    Content {
        /// What names it.
        by: Box<Source>,
        /// As given.
        path: PathBuf,
    },
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => formatter.write_str("default"),
            Self::Development => formatter.write_str("development mode"),
            Self::File { path, line: 0 } => write!(formatter, "{}", path.display()),
            Self::File { path, line } => write!(formatter, "{}:{line}", path.display()),
            Self::Variable(name) | Self::Flag(name) => formatter.write_str(name),
            Self::Content { by, path } => write!(formatter, "{by} ({})", path.display()),
        }
    }
}

/// Where the values that are not defaults came from, by the path of the setting.
#[derive(Clone, Debug, Default)]
pub struct Provenance(BTreeMap<String, Source>);

impl Provenance {
    /// Where the value of a setting came from.
    pub fn of(&self, path: &str) -> &Source {
        self.0.get(path).unwrap_or(&Source::Default)
    }

    /// Whether any setting whose path begins so was set by anybody.
    pub fn any_below(&self, prefix: &str) -> bool {
        self.0.keys().any(|path| path.starts_with(prefix))
    }

    pub(super) fn record(&mut self, path: &str, source: Source) {
        self.0.insert(path.to_owned(), source);
    }
}
