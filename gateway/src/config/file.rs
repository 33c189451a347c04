//! The settings file: TOML to assignments, each with its line. Knows which names exist, not what their values mean.

use std::{ops::Range, path::Path};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    load::{Assignment, Fault, Known},
    provenance::Source,
    section::join,
    suggest::nearest,
    value::Raw,
};

/// Why a name is unknown and what to write instead.
pub(super) fn unknown(path: &str, known: &Known) -> String {
    format!("unknown setting; {}", nearest(path, known.names(), '.'))
}

/// What a settings file says.
pub(super) struct Contents {
    /// Names of namespaces in their order, each with the place of its declaration.
    pub(super) namespaces: Vec<(String, Source)>,
    /// Everything else.
    pub(super) assignments: Vec<Assignment>,
    /// What is wrong with it.
    pub(super) faults: Vec<Fault>,
}

/// Reads a settings file.
pub(super) fn read(path: &Path, known: &Known) -> Contents {
    let contents = Contents { namespaces: Vec::new(), assignments: Vec::new(), faults: Vec::new() };
    let mut reader = Reader { path, text: String::new(), known, contents };
    match std::fs::read_to_string(path) {
        Ok(text) => reader.text = text,
        Err(error) => reader.fault(None, format!("cannot read the settings file: {error}")),
    }
    let text = reader.text.clone();
    let (table, errors) = DeTable::parse_recoverable(&text);
    for error in errors {
        reader.fault(error.span(), error.message().replace('\n', ", "));
    }
    reader.table("", table.get_ref());
    reader.contents
}

struct Reader<'a> {
    path: &'a Path,
    text: String,
    known: &'a Known,
    contents: Contents,
}

impl Reader<'_> {
    fn source(&self, span: Option<Range<usize>>) -> Source {
        let before = span.map(|span| &self.text.as_bytes()[..span.start.min(self.text.len())]);
        let line = before.map_or(0, |before| 1 + memchr::memchr_iter(b'\n', before).count());
        Source::File { path: self.path.to_owned(), line }
    }

    fn fault(&mut self, span: Option<Range<usize>>, message: String) {
        let source = self.source(span);
        self.contents.faults.push(Fault::new(source, message));
    }

    fn table(&mut self, section: &str, table: &DeTable<'_>) {
        // A table is kept sorted by name; people read, and mend, from top to bottom.
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in entries {
            self.entry(&join(section, key.get_ref()), key.span(), value);
        }
    }

    fn entry(&mut self, path: &str, at: Range<usize>, value: &Spanned<DeValue<'_>>) {
        match value.get_ref() {
            DeValue::Array(items) if path == "namespaces" => items.iter().for_each(|item| self.namespace(item)),
            _ if path == "namespaces" => {
                self.fault(Some(at), "namespaces: write [[namespaces]], once for each of them".to_owned());
            }
            DeValue::Table(table) if self.known.is_section(path) => self.table(path, table),
            DeValue::Table(_) if self.known.is_setting(path) => {
                self.fault(Some(at), format!("{path}: is a table where one value is expected"));
            }
            DeValue::Table(_) => {
                let help = nearest(path, self.known.sections(), '.');
                self.fault(Some(at), format!("{path}: unknown section; {help}"));
            }
            _ if self.known.is_section(path) => {
                self.fault(Some(at), format!("{path}: is a section: write [{path}] on a line of its own"));
            }
            value => match raw(value) {
                Ok(raw) => {
                    let source = self.source(Some(at));
                    self.contents.assignments.push(Assignment { path: path.to_owned(), raw, source });
                }
                Err(message) => self.fault(Some(at), format!("{path}: {message}")),
            },
        }
    }

    fn namespace(&mut self, item: &Spanned<DeValue<'_>>) {
        let Some(table) = item.get_ref().as_table() else {
            return self.fault(Some(item.span()), "namespaces: write [[namespaces]], once for each of them".to_owned());
        };
        let Some((key, name)) = table.iter().find(|(key, _)| key.get_ref() == "name") else {
            return self.fault(Some(item.span()), "namespaces: a namespace has no name: add name = \"…\"".to_owned());
        };
        match self.namespace_name(name.get_ref()) {
            Ok(name) => {
                let declared = (name.clone(), self.source(Some(key.span())));
                self.contents.namespaces.push(declared);
                self.namespace_rules(&name, table);
            }
            Err(message) => self.fault(Some(key.span()), message),
        }
    }

    fn namespace_rules(&mut self, name: &str, table: &DeTable<'_>) {
        let mut entries: Vec<_> = table.iter().filter(|(key, _)| key.get_ref() != "name").collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in entries {
            // Rules go by the name of their namespace, so that flags and listings can name them as well.
            self.entry(&join(&join("namespaces", name), key.get_ref()), key.span(), value);
        }
    }

    fn namespace_name(&self, name: &DeValue<'_>) -> Result<String, String> {
        let Some(name) = name.as_str() else {
            return Err("namespaces: the name of a namespace is a text in quotes".to_owned());
        };
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.len() < 2 || !name.bytes().all(valid) {
            return Err(format!("namespaces: {name:?} is no name: use two or more of letters, digits, -, _ and ."));
        }
        if self.contents.namespaces.iter().any(|(known, _)| known == name) {
            return Err(format!("namespaces: {name} is declared twice; make one of the two"));
        }
        Ok(name.to_owned())
    }
}

fn raw(value: &DeValue<'_>) -> Result<Raw, String> {
    match value {
        DeValue::String(text) => Ok(Raw::Text(text.clone().into_owned())),
        DeValue::Integer(number) if number.radix() == 10 => Ok(Raw::Bare(number.as_str().replace('_', ""))),
        DeValue::Integer(_) => Err("write the number in decimal digits".to_owned()),
        DeValue::Float(number) => Ok(Raw::Bare(number.as_str().to_owned())),
        DeValue::Boolean(truth) => Ok(Raw::Bare(truth.to_string())),
        DeValue::Array(items) => items.iter().map(|item| raw(item.get_ref())).collect::<Result<_, _>>().map(Raw::List),
        DeValue::Datetime(_) => Err("is a date where no setting is one; put it in quotes".to_owned()),
        DeValue::Table(_) => Err("is a table where a value is expected".to_owned()),
    }
}
