//! What stands in the tree of dependencies: sources, licences, banned crates, and those that are shipped in two versions. Read
//! from what cargo knows on this machine, without a network. `deny.toml` says what may be, to this test and to cargo-deny.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use spdx::{Expression, ParseMode};

/// Crates of which a node holds two versions, until their authors bring them together. One more costs size and time to build:
/// it is written down here when it is worth that.
const DOUBLED: [&str; 11] = [
    "base64",
    "cpufeatures",
    "getrandom",
    "hashbrown",
    "rand",
    "rand_core",
    "syn",
    "thiserror",
    "thiserror-impl",
    "tower-http",
    "untrusted",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is the folder above").to_owned()
}

/// The lists of `deny.toml`.
struct Rules {
    targets: Vec<String>,
    licences: BTreeSet<String>,
    banned: Vec<String>,
}

fn rules() -> Rules {
    let text = fs::read_to_string(root().join("deny.toml")).expect("deny.toml");
    let rules: toml::Table = toml::from_str(&text).expect("TOML");
    let list = |section: &str, name: &str| {
        let list = rules[section][name].as_array().expect("a list").clone();
        list.into_iter().map(|entry| {
            let entry = entry.get("name").cloned().unwrap_or(entry);
            entry.as_str().expect("a text, or a table with a name").to_owned()
        })
    };
    let (licences, banned) = (list("licenses", "allow").collect(), list("bans", "deny").collect());
    Rules { targets: list("graph", "targets").collect(), licences, banned }
}

/// A crate of the tree.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Package {
    name: String,
    version: String,
    licence: String,
}

/// The crates of which something is built for what the image is made for; of the whole workspace with its tests, or of a node.
fn tree(rules: &Rules, part: &[&str]) -> BTreeSet<Package> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(root()).args(["tree", "--offline", "--locked", "--prefix", "none", "--format", "{p}|{l}"]);
    cargo.args(part);
    for target in &rules.targets {
        cargo.args(["--target", target]);
    }
    let output = cargo.output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("cargo writes text");
    let packages: BTreeSet<_> = text.lines().filter(|line| !line.is_empty()).map(package).collect();
    assert!(packages.len() > 100, "{} crates", packages.len());
    packages
}

/// Reads `name v1.2.3|MIT`; a crate of the workspace has its folder behind the version, and one named before a mark at the end.
fn package(line: &str) -> Package {
    let (package, licence) = line.split_once('|').expect("a crate and its licence");
    let mut words = package.split(' ');
    let mut word = || words.next().expect("a name and a version").to_owned();
    Package { name: word(), version: word(), licence: licence.trim_end_matches(" (*)").to_owned() }
}

const EVERYTHING: [&str; 3] = ["--workspace", "--edges", "normal,build,dev"];
const NODE: [&str; 4] = ["--package", "roomcast", "--edges", "normal"];

/// Whether an expression such as `MIT OR Apache-2.0` is fulfilled by these licences; the ones it names are noted.
fn is_allowed(expression: &str, allowed: &BTreeSet<String>, named: &mut BTreeSet<String>) -> bool {
    // Older crates write `MIT/Apache-2.0`.
    let Ok(expression) = Expression::parse_mode(expression, ParseMode::LAX) else { return false };
    named.extend(expression.requirements().map(|part| part.req.to_string()));
    expression.evaluate(|licence| allowed.contains(&licence.to_string()))
}

#[test]
fn every_crate_has_a_licence_that_is_allowed_and_none_is_allowed_in_vain() {
    let rules = rules();
    let (mut faults, mut named) = (Vec::new(), BTreeSet::new());
    for Package { name, version, licence } in tree(&rules, &EVERYTHING) {
        if !is_allowed(&licence, &rules.licences, &mut named) {
            faults.push(format!("{name} {version}: {licence:?}"));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
    let vain: Vec<_> = rules.licences.difference(&named).collect();
    assert!(vain.is_empty(), "no crate has {vain:?}: take them out of deny.toml");
}

#[test]
fn licences_are_understood() {
    let allowed = ["MIT", "ISC"].map(str::to_owned).into();
    let is_allowed = |expression: &str| is_allowed(expression, &allowed, &mut BTreeSet::new());
    assert!(
        is_allowed("MIT")
            && is_allowed("GPL-3.0-only OR MIT")
            && is_allowed("MIT/Apache-2.0")
            && is_allowed("ISC AND MIT")
    );
    assert!(!is_allowed("") && !is_allowed("GPL-3.0-only") && !is_allowed("MIT AND GPL-3.0-only"));
    assert!(!is_allowed("MIT WITH Classpath-exception-2.0") && !is_allowed("no licence"));
}

#[test]
fn crates_come_from_one_registry() {
    let lock: toml::Table =
        toml::from_str(&fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock")).expect("TOML");
    let packages = lock["package"].as_array().expect("packages");
    let sources: BTreeSet<_> = packages.iter().filter_map(|package| package.get("source")?.as_str()).collect();
    assert_eq!(sources.len(), 1, "{sources:?}");
    assert!(sources.iter().all(|source| source.ends_with("/crates.io-index")), "{sources:?}");
    for package in packages.iter().filter(|package| package.get("source").is_none()) {
        assert!(
            package["name"].as_str().is_some_and(|name| name.starts_with("roomcast")),
            "{package} is no crate of ours"
        );
    }
    for package in packages.iter().filter(|package| package.get("source").is_some()) {
        assert!(package.get("checksum").is_some(), "{package} has no checksum");
    }
}

#[test]
fn no_banned_crate_is_there() {
    let rules = rules();
    assert!(rules.banned.len() > 2, "{:?}", rules.banned);
    let names: BTreeSet<_> = tree(&rules, &EVERYTHING).into_iter().map(|package| package.name).collect();
    let found: Vec<_> = rules.banned.iter().filter(|name| names.contains(*name)).collect();
    assert!(found.is_empty(), "{found:?}: `cargo tree --invert NAME` tells who brings them");
}

#[test]
fn what_is_shipped_in_two_versions_is_written_down() {
    let mut count = BTreeMap::<_, usize>::new();
    for package in tree(&rules(), &NODE) {
        *count.entry(package.name).or_default() += 1;
    }
    let doubled: Vec<_> = count.into_iter().filter(|(_, count)| *count > 1).map(|(name, _)| name).collect();
    assert_eq!(doubled, DOUBLED, "`cargo tree --duplicates --edges normal` tells who brings them");
}
