//! Joins the sources into one checked tree: the file, then the environment, then flags, later ones over earlier ones.
//! Every value that is given is read, also one that a later source replaces, so that all faults come at once.

use std::{ffi::OsString, fmt, path::Path, path::PathBuf};

use super::{
    FILE_VARIABLE, check, environment,
    file::{self, Declared, Tables},
    provenance::{Provenance, Source},
    rooms::{Namespace, RoomRules},
    section::join,
    settings::Settings,
    tokens::{NamedIssuer, TokenKeys},
    value::Raw,
};

/// Largest file that a `_file` setting may name; anything longer is no secret and no key.
const CONTENT_LIMIT: u64 = 64 * 1024;

/// Everything that may say something about the settings.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The settings file named on the command line.
    pub file: Option<PathBuf>,
    /// The environment; only variables that begin with `ROOMCAST_` are looked at.
    pub environment: Vec<(OsString, OsString)>,
    /// Flags that set something, in the order given.
    pub flags: Vec<Flag>,
}

/// A flag that sets something.
#[derive(Clone, Debug)]
pub struct Flag {
    /// As it was written: `--listen`, or `--set`.
    pub name: String,
    /// Path of the setting.
    pub path: String,
    /// What it is set to.
    pub value: String,
}

/// A further check of the finished tree, made by a module that `config` must not know: the path of a setting, and what
/// is wrong with its value.
pub type Check = fn(&Settings) -> Vec<(String, String)>;

/// Settings that were read and checked.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings, as development mode would have them where it is on.
    pub settings: Settings,
    /// Where each value came from.
    pub provenance: Provenance,
    /// What the operator should know and may want to change.
    pub warnings: Vec<String>,
    /// What was passed over, and what development mode means.
    pub notes: Vec<String>,
    /// Whether the node runs in development mode: no key is given, and `client.insecure` is not set. It then listens on
    /// loopback addresses only, has a random secret, and opens whatever was not set: rooms (where no rules are given, any
    /// namespace included), origins, the playground, and the server API without a key.
    pub development: bool,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub source: Source,
    /// What, and what to do.
    pub message: String,
}

impl Fault {
    pub(super) fn new(source: Source, message: String) -> Self {
        Self { source, message }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.source {
            Source::Default | Source::Development => formatter.write_str(&self.message),
            _ => write!(formatter, "{}: {}", self.source, self.message),
        }
    }
}

/// Everything that is wrong, one line each.
#[derive(Clone, Debug, thiserror::Error)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        write!(formatter, "{count} {} in the settings:", if count == 1 { "fault" } else { "faults" })?;
        self.0.iter().try_for_each(|fault| write!(formatter, "\n  {fault}"))
    }
}

/// One value for one setting.
pub(super) struct Assignment {
    pub(super) path: String,
    pub(super) raw: Raw,
    pub(super) source: Source,
}

/// The names of settings and sections.
pub(super) struct Known {
    settings: Vec<String>,
}

impl Known {
    pub(super) fn of(settings: &Settings) -> Self {
        let mut paths = Vec::new();
        settings.clone().visit_all(&mut |path, _, _| paths.push(path.to_owned()));
        Self { settings: paths }
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.settings.iter().map(String::as_str)
    }

    pub(super) fn sections(&self) -> impl Iterator<Item = &str> {
        let sections = self.names().filter_map(|path| path.rsplit_once('.')).map(|(section, _)| section);
        sections.chain(Tables::ALL.map(Tables::path))
    }

    pub(super) fn is_setting(&self, path: &str) -> bool {
        self.names().any(|name| name == path)
    }

    pub(super) fn is_section(&self, path: &str) -> bool {
        self.sections().any(|section| section == path)
    }

    /// The setting a variable sets; with `_file` behind it where the variable names a file.
    pub(super) fn path_of_variable(&self, variable: &str) -> Option<String> {
        let find = |wanted: &str| self.names().find(|path| environment::variable(path) == wanted);
        let content = || variable.strip_suffix("_FILE").and_then(find).map(|path| format!("{path}_file"));
        find(variable).map(str::to_owned).or_else(content)
    }
}

/// Reads and checks the settings.
///
/// # Errors
/// Everything that is wrong, each with its source.
pub fn load(sources: &Sources, checks: &[Check]) -> Result<Loaded, Faults> {
    let mut loader = Loader { settings: Settings::default(), provenance: Provenance::default(), faults: Vec::new() };
    if let Some(path) = sources.settings_file() {
        loader.take_file(&path);
    }
    let environment = environment::read(&sources.environment, &Known::of(&loader.settings));
    loader.faults.extend(environment.faults);
    loader.take_layer(environment.assignments);
    loader.take_layer(sources.flags.iter().map(assignment_of_flag).collect());
    check::finish(loader, checks).map(|loaded| with_note_of_links(loaded, &environment.passed_over))
}

impl Sources {
    /// The settings file: named on the command line, or by its variable.
    pub fn settings_file(&self) -> Option<PathBuf> {
        let variable = || self.environment.iter().find(|(name, path)| name == FILE_VARIABLE && !path.is_empty());
        self.file.clone().or_else(|| variable().map(|(_, path)| PathBuf::from(path)))
    }
}

fn assignment_of_flag(flag: &Flag) -> Assignment {
    Assignment { path: flag.path.clone(), raw: Raw::Text(flag.value.clone()), source: Source::Flag(flag.name.clone()) }
}

fn with_note_of_links(mut loaded: Loaded, passed_over: &[String]) -> Loaded {
    if let Some(first) = passed_over.first() {
        let others = match passed_over.len() - 1 {
            0 => String::new(),
            count => format!(" and {count} more"),
        };
        loaded.notes.push(format!(
            "{first}{others}: passed over, for Kubernetes sets such variables for a Service of that name \
             (`enableServiceLinks: false` in the pod turns them off)"
        ));
    }
    loaded
}

/// What has been read so far.
pub(super) struct Loader {
    pub(super) settings: Settings,
    pub(super) provenance: Provenance,
    pub(super) faults: Vec<Fault>,
}

impl Loader {
    fn take_file(&mut self, path: &Path) {
        let contents = file::read(path, &Known::of(&self.settings));
        for Declared { tables, name, source } in contents.declared {
            self.provenance.record(&join(tables.path(), &name), source);
            match tables {
                Tables::Namespaces => self.settings.namespaces.push(Namespace { name, rules: RoomRules::default() }),
                Tables::Issuers => self.settings.auth.issuers.push(NamedIssuer { name, keys: TokenKeys::default() }),
            }
        }
        self.take_layer(contents.assignments);
        self.faults.extend(contents.faults);
        self.faults.sort_by_key(|fault| match fault.source {
            Source::File { line, .. } => line,
            _ => 0,
        });
    }

    /// Takes all values of one source.
    fn take_layer(&mut self, assignments: Vec<Assignment>) {
        let known = Known::of(&self.settings);
        let plain: Vec<_> = assignments.iter().map(|assignment| assignment.path.clone()).collect();
        for assignment in assignments {
            if known.is_setting(&assignment.path) {
                self.assign(&assignment);
            } else if let Some(path) = assignment.path.strip_suffix("_file").filter(|path| known.is_setting(path)) {
                if plain.iter().any(|other| other == path) {
                    let message = format!("{path}: is given both as it is and as a file; take one of them out");
                    self.faults.push(Fault::new(assignment.source, message));
                } else {
                    self.assign_content(path, &assignment);
                }
            } else {
                let message = format!("{}: {}", assignment.path, file::unknown(&assignment.path, &known));
                self.faults.push(Fault::new(assignment.source, message));
            }
        }
    }

    fn assign(&mut self, assignment: &Assignment) {
        let mut outcome = Ok(());
        self.settings.visit_all(&mut |path, _, value| {
            if path == assignment.path {
                outcome = value.assign(&assignment.raw);
            }
        });
        // A value that cannot be read was set all the same: no later check may take it for a default.
        self.provenance.record(&assignment.path, assignment.source.clone());
        if let Err(message) = outcome {
            self.faults.push(Fault::new(assignment.source.clone(), format!("{}: {message}", assignment.path)));
        }
    }

    /// Takes a value from the file that an assignment names.
    fn assign_content(&mut self, path: &str, assignment: &Assignment) {
        let Raw::Text(name) = &assignment.raw else {
            let message = format!("{}: is no text in quotes that names a file", assignment.path);
            return self.faults.push(Fault::new(assignment.source.clone(), message));
        };
        let source = Source::Content { by: Box::new(assignment.source.clone()), path: PathBuf::from(name) };
        match read_content(Path::new(name)) {
            Ok(text) => self.assign(&Assignment { path: path.to_owned(), raw: Raw::Text(text), source }),
            Err(error) => {
                self.provenance.record(path, source.clone());
                self.faults.push(Fault::new(source, format!("{path}: cannot read that file: {error}")));
            }
        }
    }
}

/// The text of a file without the line break that editors and `echo` leave at its end.
fn read_content(path: &Path) -> std::io::Result<String> {
    use std::io::{Error, Read};
    let mut text = String::new();
    let read = std::fs::File::open(path)?.take(CONTENT_LIMIT + 1).read_to_string(&mut text)?;
    if read as u64 > CONTENT_LIMIT {
        return Err(Error::other(format!("it is longer than {CONTENT_LIMIT} bytes")));
    }
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}
