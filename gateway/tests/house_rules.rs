//! The rules of the house, read from the source: who may know whom, how every file opens, how long files and functions are,
//! and where each spelling has its home.

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

/// A module imports only from floors below its own.
const FLOORS: [(&str, u8); 17] = [
    ("config", 1),
    ("memory", 1),
    ("metrics", 1),
    ("moments", 1),
    ("auth", 1),
    ("hub", 2),
    ("hooks", 2),
    ("broker", 3),
    ("node", 4),
    ("session", 5),
    ("transport", 6),
    ("api", 6),
    ("ops", 6),
    ("app", 7),
    ("shutdown", 7),
    ("cli", 7),
    ("main", 7),
];

/// The top floor builds everything, so that what stands there may know its neighbours.
const TOP: u8 = 7;

/// What must not be spoken of in a module, beside the floors above it.
const UNKNOWN_TO: [(&str, &[&str]); 6] = [
    ("shared", &["tokio", "axum", "hyper", "redis::", "std::net", "std::fs", "std::env", "async fn", ".await"]),
    ("hub", &["redis", "axum", "hyper", "http::", "jsonwebtoken", "serde_json"]),
    ("hooks", &["redis", "axum", "hyper", "jsonwebtoken", "tokio::net"]),
    ("broker", &["axum", "hyper", "jsonwebtoken"]),
    ("session", &["axum", "hyper", "tokio::net", "redis::", "tokio::io"]),
    ("transport", &["redis::", "jsonwebtoken"]),
];

const LONGEST_FILE: usize = 400;
const LONGEST_FUNCTION: usize = 60;
const MEDIAN_FUNCTION: usize = 10;

/// One source file of the workspace.
struct Source {
    /// Relative to the workspace.
    path: String,
    text: String,
}

impl Source {
    /// The text up to the tests in it.
    fn code(&self) -> &str {
        self.text.split("#[cfg(test)]").next().unwrap_or_default()
    }

    /// The same without comments.
    fn statements(&self) -> String {
        self.code().lines().filter(|line| !line.trim_start().starts_with("//")).fold(String::new(), |mut text, line| {
            let _ = writeln!(text, "{line}");
            text
        })
    }

    /// Its place in the gateway, from the root of the crate on: `["broker", "redis", "keys"]`.
    fn module(&self) -> Option<Vec<&str>> {
        let path = self.path.strip_prefix("gateway/src/")?.strip_suffix(".rs")?;
        Some(path.strip_suffix("/mod").unwrap_or(path).split('/').collect())
    }

    fn is_in(&self, module: &str) -> bool {
        match self.module() {
            Some(path) => path[0] == module,
            None => self.path.starts_with(&format!("{module}/src/")),
        }
    }
}

#[test]
fn modules_know_only_the_floors_below_them() {
    let mut faults = String::new();
    let sources = sources();
    for source in &sources {
        let Some(module) = source.module().filter(|module| module[0] != "lib") else { continue };
        let own = floor(module[0]).unwrap_or_else(|| panic!("{} stands on no floor: add it to the table", module[0]));
        for other in modules_named(&source.statements(), module.len()) {
            let Some(below) = floor(&other) else {
                let _ = writeln!(faults, "{}: {other:?} stands on no floor", source.path);
                continue;
            };
            if other != module[0] && below >= own && own < TOP {
                let _ = writeln!(faults, "{} (floor {own}) knows {other} (floor {below})", source.path);
            }
        }
    }
    assert!(faults.is_empty(), "{faults}");
}

#[test]
fn every_path_into_the_crate_is_seen() {
    let text = "use crate::{hub::{self, Room}, node::Hold,\n config::{Client, Limits}};\nlet a = crate::metrics::x();\n\
                use super::super::broker::Answer; use super::Session; roomcast::app::start();";
    assert_eq!(modules_named(text, 2), ["hub", "node", "config", "metrics", "app", "broker"]);
    assert_eq!(modules_named("use super::{auth::Key, ops};", 1), ["auth", "ops"]);
}

#[test]
fn modules_do_not_speak_of_what_they_must_not_know() {
    let mut faults = String::new();
    for source in &sources() {
        for (module, words) in UNKNOWN_TO {
            let statements = if source.is_in(module) { source.statements() } else { String::new() };
            for word in words.iter().filter(|word| statements.contains(**word)) {
                let _ = writeln!(faults, "{} speaks of {word}", source.path);
            }
        }
    }
    assert!(faults.is_empty(), "{faults}");
}

#[test]
fn nothing_in_the_hub_waits_save_a_delivery_job() {
    for source in sources().iter().filter(|source| source.is_in("hub")) {
        let may = ["gateway/src/hub/fanout.rs", "gateway/src/hub/room.rs"].contains(&source.path.as_str());
        assert!(may || !source.statements().contains(".await"), "{} awaits", source.path);
    }
}

#[test]
fn every_file_says_what_it_is_for() {
    for source in every_rust_file() {
        assert!(source.text.starts_with("//! "), "{} has to open with `//!`: what it is for", source.path);
    }
}

#[test]
fn no_file_is_too_long() {
    for source in sources() {
        let lines = source.code().lines().count();
        assert!(lines <= LONGEST_FILE, "{} has {lines} lines", source.path);
    }
}

#[test]
fn functions_are_short() {
    let mut lengths = Vec::new();
    for source in sources() {
        for (name, lines) in functions(source.code()) {
            assert!(lines <= LONGEST_FUNCTION, "{}: {name} has {lines} lines", source.path);
            lengths.push(lines);
        }
    }
    lengths.sort_unstable();
    assert!(lengths.len() > 300, "{} functions were found", lengths.len());
    let median = lengths[lengths.len() / 2];
    assert!(median <= MEDIAN_FUNCTION, "half of the functions have more than {median} lines");
}

#[test]
fn functions_are_measured_whole() {
    let text = "impl A {\n    pub(super) async fn a() {\n        if b {\n        }\n    }\n\n    fn c(\n        d: E,\n    ) \
                {\n    }\n}\nfn f() {}\ntrait G {\n    fn h(&self);\n    fn i(\n        &self,\n    );\n}\n";
    let found: Vec<_> = functions(text);
    assert_eq!(found, [("a", 4), ("c", 4), ("f", 1)]);
}

#[test]
fn every_spelling_has_one_home() {
    let homes: [(&str, &[&str], &str); 4] = [
        ("var_os(", &["gateway/src/main.rs"], "the environment is read in main, and understood in config"),
        ("env::var(", &["gateway/src/config/check.rs"], "the environment is read in main, and understood in config"),
        ("\"roomcast_", &["gateway/src/metrics.rs"], "metric names are spelt in metrics"),
        (".room.\"", &["gateway/src/broker/redis/keys.rs"], "names in Redis are spelt in keys"),
    ];
    for source in sources().iter().filter(|source| source.path.starts_with("gateway/")) {
        for (spelling, files, rule) in homes {
            let at_home = files.contains(&source.path.as_str());
            assert!(at_home || !source.statements().contains(spelling), "{}: {rule}", source.path);
        }
        // The close codes of RFC 6455 are the framing's own.
        if source.path == "gateway/src/transport/websocket/frame.rs" {
            continue;
        }
        let codes = ["Disconnect::new(", "Disconnect { code", "ErrorCode { code"];
        let spelt = codes.iter().find(|spelling| source.statements().contains(**spelling));
        assert_eq!(spelt, None, "{}: codes are spelt in shared's protocol/code", source.path);
    }
}

/// Names of variables are made of the paths of settings. Elsewhere they are only named in texts for people.
#[test]
fn variables_are_named_in_config_alone() {
    for source in sources().iter().filter(|source| source.path.starts_with("gateway/") && !source.is_in("config")) {
        let statements = source.statements();
        for literal in ["\"ROOMCAST_", "env = "] {
            assert!(!statements.contains(literal), "{}: variables are spelt in config", source.path);
        }
    }
}

/// Readers are opened to the fuzzing targets in files of that name, and nothing else differs in what is shipped.
#[test]
fn what_is_there_for_fuzzing_stands_apart() {
    let sources = sources();
    let mut opened = 0;
    for source in sources.iter().filter(|source| source.path.starts_with("gateway/src/")) {
        let lines: Vec<_> = source.text.lines().map(str::trim).collect();
        for (place, line) in lines.iter().enumerate() {
            let at = format!("{}:{}", source.path, place + 1);
            let asks = line.contains("\"fuzzing\"");
            assert!(!asks || *line == "#[cfg(feature = \"fuzzing\")]", "{at}: the feature is asked for in another way");
            let opens = lines.get(place + 1).is_some_and(|next| *next == "pub mod fuzzing;");
            assert_eq!(asks, opens, "{at}: a module `fuzzing`, and nothing else, stands behind the feature");
            opened += usize::from(opens);
        }
    }
    let files = sources.iter().filter(|source| source.path.ends_with("/fuzzing.rs")).count();
    assert!(files > 0 && opened == files, "{opened} modules in {files} files");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = fs::read_to_string(root.join("Cargo.toml")).expect("the manifest");
    assert!(!manifest.contains("\ndefault = "), "no feature is on where none is asked for");
    let targets = fs::read_to_string(root.join("fuzz/Cargo.toml")).expect("the manifest of the targets");
    let shipped = targets.split("[dev-dependencies]").next().unwrap_or_default();
    assert!(!shipped.contains("roomcast = {"), "only tests ask for the feature: programs are built beside them");
}

#[test]
fn nothing_is_left_for_later() {
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("#[ig", "nore"), concat!("dbg", "!(")];
    for source in every_rust_file() {
        let mark = marks.iter().find(|mark| source.text.contains(**mark));
        assert_eq!(mark, None, "{}", source.path);
    }
}

fn floor(module: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == module).map(|(_, floor)| *floor)
}

/// The modules at the root of the gateway that a text names, as seen from a module so deep in the tree.
fn modules_named(text: &str, depth: usize) -> Vec<String> {
    let from_here = "super::".repeat(depth);
    let mut found = Vec::new();
    for root in ["crate::", "roomcast::", &from_here] {
        for (place, _) in text.match_indices(root) {
            let before = text[..place].chars().next_back();
            let part_of_a_longer_path = before.is_some_and(|before| before.is_alphanumeric() || "_:".contains(before));
            let rest = &text[place + root.len()..];
            if !part_of_a_longer_path && !rest.starts_with("super::") {
                found.extend(heads(rest));
            }
        }
    }
    found.retain(|name| name.starts_with(|first: char| first.is_lowercase()) && name != "self");
    found
}

/// The first names of a path, or of each path within braces.
fn heads(path: &str) -> Vec<String> {
    let Some(inner) = path.strip_prefix('{') else {
        return vec![name(path)];
    };
    let (mut depth, mut heads, mut begins) = (0_usize, Vec::new(), 0);
    for (place, character) in inner.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                heads.push(name(inner[begins..place].trim_start()));
                begins = place + 1;
                if character == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    heads
}

fn name(text: &str) -> String {
    text.chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect()
}

/// Name and lines of each function that has a body, as rustfmt lays them out: it ends where its indentation comes back.
fn functions(code: &str) -> Vec<(&str, usize)> {
    let lines: Vec<_> = code.lines().collect();
    let mut found = Vec::new();
    for (begin, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let indent = &line[..line.len() - line.trim_start().len()];
        let ends = |line: &&str| {
            let back = line.strip_prefix(indent).is_some_and(|rest| rest.starts_with(['}', ')']));
            back && !line.ends_with('{')
        };
        let one_line = line.ends_with(';') || (line.ends_with('}') && line.contains('{'));
        let more = if one_line { Some(0) } else { lines[begin + 1..].iter().position(ends).map(|more| more + 1) };
        let more = more.expect("a function ends");
        if !lines[begin + more].ends_with(';') {
            found.push((name, more + 1));
        }
    }
    found
}

fn function_name(line: &str) -> Option<&str> {
    let (before, after) = line.trim_start().split_once("fn ")?;
    let words = before
        .split(' ')
        .all(|word| ["", "pub", "const", "async"].contains(&word) || (word.starts_with("pub(") && word.ends_with(')')));
    words.then(|| after.split(['(', '<']).next().unwrap_or_default())
}

/// The sources of the three crates.
fn sources() -> Vec<Source> {
    let mut found = every_rust_file();
    found.retain(|source| source.path.contains("/src/"));
    found
}

fn every_rust_file() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is the folder above");
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = ["gateway", "shared", "loadtest"].iter().map(|name| root.join(name)).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the workspace") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                let skipped = ["target", "node_modules"].iter().any(|name| path.ends_with(name));
                folders.extend((!skipped).then_some(path));
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a source file");
                let path = path.strip_prefix(root).expect("it is below the root").to_string_lossy().into_owned();
                found.push(Source { path, text });
            }
        }
    }
    assert!(found.len() > 80, "the sources are found");
    found
}
