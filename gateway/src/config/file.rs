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

/// Lists of tables, each of which has a name by which its settings go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Tables {
    /// `[[namespaces]]`
    Namespaces,
    /// `[[auth.issuers]]`
    Issuers,
}

impl Tables {
    pub(super) const ALL: [Self; 2] = [Self::Namespaces, Self::Issuers];

    /// Where they stand.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::Issuers => "auth.issuers",
        }
    }

    /// What one of them is called.
    fn one(self) -> &'static str {
        match self {
            Self::Namespaces => "a namespace",
            Self::Issuers => "an issuer",
        }
    }
}

/// A table that has a name.
pub(super) struct Declared {
    pub(super) tables: Tables,
    pub(super) name: String,
    /// Where it has its name.
    pub(super) source: Source,
}

/// What a settings file says.
pub(super) struct Contents {
    /// Tables that have names, in their order.
    pub(super) declared: Vec<Declared>,
    /// Everything else.
    pub(super) assignments: Vec<Assignment>,
    /// What is wrong with it.
    pub(super) faults: Vec<Fault>,
}

/// Reads a settings file.
pub(super) fn read(path: &Path, known: &Known) -> Contents {
    let contents = Contents { declared: Vec::new(), assignments: Vec::new(), faults: Vec::new() };
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
        if let Some(tables) = Tables::ALL.into_iter().find(|tables| tables.path() == path) {
            return match value.get_ref() {
                DeValue::Array(items) => items.iter().for_each(|item| self.named(tables, item)),
                _ => self.fault(Some(at), format!("{path}: write [[{path}]], once for each of them")),
            };
        }
        match value.get_ref() {
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

    fn named(&mut self, tables: Tables, item: &Spanned<DeValue<'_>>) {
        let path = tables.path();
        let Some(table) = item.get_ref().as_table() else {
            return self.fault(Some(item.span()), format!("{path}: write [[{path}]], once for each of them"));
        };
        let Some((key, name)) = table.iter().find(|(key, _)| key.get_ref() == "name") else {
            let one = tables.one();
            return self.fault(Some(item.span()), format!("{path}: {one} has no name: add name = \"…\""));
        };
        match self.name(tables, name.get_ref()) {
            Ok(name) => {
                let source = self.source(Some(key.span()));
                self.contents.declared.push(Declared { tables, name: name.clone(), source });
                self.entries_of(&join(path, &name), table);
            }
            Err(message) => self.fault(Some(key.span()), format!("{path}: {message}")),
        }
    }

    /// Settings go by the name of their table, so that flags and listings can name them as well.
    fn entries_of(&mut self, path: &str, table: &DeTable<'_>) {
        let mut entries: Vec<_> = table.iter().filter(|(key, _)| key.get_ref() != "name").collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in entries {
            self.entry(&join(path, key.get_ref()), key.span(), value);
        }
    }

    fn name(&self, tables: Tables, name: &DeValue<'_>) -> Result<String, String> {
        let Some(name) = name.as_str() else {
            return Err(format!("the name of {} is a text in quotes", tables.one()));
        };
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.len() < 2 || !name.bytes().all(valid) {
            return Err(format!("{name:?} is no name: use two or more of letters, digits, -, _ and ."));
        }
        if self.contents.declared.iter().any(|known| known.tables == tables && known.name == name) {
            return Err(format!("{name} is declared twice; make one of the two"));
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
