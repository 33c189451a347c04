//! Environment variables to assignments. Knows which names exist, not what their values mean.

use std::ffi::OsString;

use super::{
    FILE_VARIABLE, PREFIX,
    file::Tables,
    load::{Assignment, Fault, Known},
    provenance::Source,
    suggest::nearest,
    value::Raw,
};

/// The variable of a setting.
pub fn variable(path: &str) -> String {
    format!("{PREFIX}{}", path.to_uppercase().replace('.', "_"))
}

/// What the environment says.
#[derive(Default)]
pub(super) struct Contents {
    pub(super) assignments: Vec<Assignment>,
    pub(super) faults: Vec<Fault>,
    /// Variables that Kubernetes sets for a Service of this name, and that mean nothing here.
    pub(super) passed_over: Vec<String>,
}

/// Reads those variables whose names begin as ours do.
pub(super) fn read(variables: &[(OsString, OsString)], known: &Known) -> Contents {
    let mut contents = Contents::default();
    let mut ours: Vec<_> = variables.iter().filter(|(name, _)| starts_with_prefix(name)).collect();
    ours.sort();
    for (name, value) in ours {
        if let (Some(name), Some(value)) = (name.to_str(), value.to_str()) {
            contents.take(name, value, known);
        } else {
            let source = Source::Variable(name.to_string_lossy().into_owned());
            contents.faults.push(Fault::new(source, "is not valid UTF-8".to_owned()));
        }
    }
    contents
}

fn starts_with_prefix(name: &OsString) -> bool {
    name.as_encoded_bytes().starts_with(PREFIX.as_bytes())
}

impl Contents {
    fn take(&mut self, name: &str, value: &str, known: &Known) {
        if name == FILE_VARIABLE {
            if value.is_empty() {
                let message = "is empty: name a settings file, or unset the variable".to_owned();
                self.faults.push(Fault::new(Source::Variable(name.to_owned()), message));
            }
            return;
        }
        if let Some(path) = known.path_of_variable(name) {
            let source = Source::Variable(name.to_owned());
            self.assignments.push(Assignment { path, raw: Raw::Text(value.to_owned()), source });
        } else if is_service_link(name, value) {
            self.passed_over.push(name.to_owned());
        } else {
            self.faults.push(Fault::new(Source::Variable(name.to_owned()), unknown(name, known)));
        }
    }
}

fn unknown(name: &str, known: &Known) -> String {
    if let Some(path) = Tables::ALL.map(Tables::path).into_iter().find(|path| name.starts_with(&variable(path))) {
        return format!("{path} are declared in the settings file only: write [[{path}]] there");
    }
    let variables: Vec<_> = known.names().map(variable).collect();
    let names = variables.iter().map(String::as_str).chain([FILE_VARIABLE]);
    format!("unknown setting; {}", nearest(name, names, '_'))
}

/// Whether Kubernetes set it: for a Service `roomcast` or `roomcast-…`, every container of the namespace is given
/// `…_SERVICE_HOST`, `…_SERVICE_PORT[_NAME]`, `…_PORT=tcp://…` and `…_PORT_8000_TCP[_PROTO|_PORT|_ADDR]`.
fn is_service_link(name: &str, value: &str) -> bool {
    let url = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || (name.contains("_SERVICE_PORT_") && value.parse::<u16>().is_ok())
        || (name.ends_with("_PORT") && url)
        || is_port_link(name)
}

/// Whether a name ends in `_PORT_`, a number, a protocol, and perhaps what of it is meant.
fn is_port_link(name: &str) -> bool {
    let whole = ["_PROTO", "_PORT", "_ADDR"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
    let port = ["_TCP", "_UDP", "_SCTP"].iter().find_map(|end| whole.strip_suffix(end));
    let number = port.and_then(|name| name.rsplit_once("_PORT_")).map(|(_, number)| number);
    number.is_some_and(|number| number.parse::<u16>().is_ok())
}
