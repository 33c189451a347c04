//! The settings as listings: for `check-config`, for `--help` and for the README, all from the one declaration.

use std::fmt::Write;

use super::{
    environment::variable,
    load::Loaded,
    rooms::RoomRules,
    section::{About, Place},
    settings::Settings,
    tokens::TokenKeys,
    value::Value,
};

/// One setting as listings need it.
struct Entry {
    path: String,
    about: About,
    kind: &'static str,
    value: Option<String>,
}

fn entries(settings: &Settings) -> Vec<Entry> {
    let mut entries = Vec::new();
    settings.clone().visit_all(&mut |path: &str, about: &About, value: &mut dyn Value| {
        entries.push(Entry { path: path.to_owned(), about: *about, kind: value.kind(), value: value.show() });
    });
    entries
}

impl Loaded {
    /// Every setting with its value and where that came from, one line each, secrets masked.
    pub fn listing(&self) -> String {
        let entries = entries(&self.settings);
        let wide = |text: &dyn Fn(&Entry) -> usize, most: usize| entries.iter().map(text).max().unwrap_or(0).min(most);
        let shown = |entry: &Entry| entry.value.clone().unwrap_or_else(|| "(unset)".to_owned());
        let paths = wide(&|entry| entry.path.len(), 60);
        let values = wide(&|entry| shown(entry).len(), 40);
        entries.iter().fold(String::new(), |mut text, entry| {
            let source = self.provenance.of(&entry.path);
            writeln!(text, "{:paths$}  {:values$}  {source}", entry.path, shown(entry)).expect("a String takes all");
            text
        })
    }
}

/// The settings table of the README, in Markdown: name, variable, how it is written, default, meaning.
pub fn markdown_table() -> String {
    let mut text = "| Setting | Variable | Written as | Default | Meaning |\n|---|---|---|---|---|\n".to_owned();
    for Entry { path, about, kind, .. } in entries(&Settings::default()) {
        let default = about.default.map_or_else(String::new, |default| format!("`{default}`"));
        let doc = about.doc.replace('|', "\\|");
        writeln!(text, "| `{path}` | `{}` | {kind} | {default} | {doc} |", variable(&path))
            .expect("a String takes all");
    }
    for (path, options) in
        [("auth.issuers", options(&mut TokenKeys::default())), ("namespaces", options(&mut RoomRules::default()))]
    {
        writeln!(
            text,
            "| `[[{path}]]` | | list of tables | | Each with a `name` and the options {options}; in the settings file only. |"
        )
        .expect("a String takes all");
    }
    text
}

/// The names of a section's settings.
fn options(section: &mut dyn Place) -> String {
    let mut names = Vec::new();
    section.visit("", &About { doc: "", default: None }, &mut |path, _, _| names.push(format!("`{path}`")));
    names.join(", ")
}

/// The settings for `--help`: name, variable, default and meaning.
pub fn help() -> String {
    let mut text = String::new();
    for Entry { path, about, kind, .. } in entries(&Settings::default()) {
        let default = about.default.map_or_else(|| "unset".to_owned(), |default| format!("default {default}"));
        let name = format!("  {path}  {}  ({kind}; {default})\n", variable(&path));
        text.push_str(&name);
        for line in wrap(about.doc, 100) {
            writeln!(text, "      {line}").expect("a String takes all");
        }
    }
    text
}

/// A setting in a few words for a flag of its own: the first sentence of its meaning, variable and default. Empty for an unknown path.
pub fn describe(path: &str) -> String {
    let entry = entries(&Settings::default()).into_iter().find(|entry| entry.path == path);
    entry.map_or_else(String::new, |Entry { path, about, .. }| {
        let default = about.default.map_or_else(String::new, |default| format!(" [default: {default}]"));
        let meaning = about.doc.split(". ").next().unwrap_or_default().trim_end_matches('.');
        format!("{meaning} [env: {}]{default}", variable(&path))
    })
}

/// Breaks a text at blanks into lines of at most `width` letters, save for words that are longer.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
