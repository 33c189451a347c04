//! The examples of docs/LOADTEST.md: each command is run as it stands there, made smaller, against nodes with the settings
//! that stand there; and its tables name every scenario and every figure.

mod common;

use std::{collections::BTreeSet, path::Path, process::Command, thread};

use clap::ValueEnum;
use common::node::{KEY, Node, SECRET};
use roomcast_loadtest::{cli::Preset, figures::NAMES};

const PAGE: &str = include_str!("../../docs/LOADTEST.md");

/// What makes any of the commands small enough for a test.
const SMALL: &str = "--clients 24 --rate 40 --duration 2s --hold 100ms --settle 0s --quiet 1s --connect-rate 0";

/// The inside of every block of this kind.
fn blocks(kind: &'static str) -> impl Iterator<Item = &'static str> {
    let inside = PAGE.split("\n```").skip(1).step_by(2);
    inside.filter_map(move |block| block.strip_prefix(kind)?.strip_prefix('\n'))
}

/// Runs one command of the page as it stands there, made smaller, and against these nodes.
fn run(number: usize, line: &str, first: &Node, second: &Node, folder: &Path) {
    let authority = |node: &Node| node.url().split('/').nth(2).expect("an authority").to_owned();
    let mut line = line.replace("127.0.0.1:8000", &authority(first)).replace("127.0.0.1:8001", &authority(second));
    if line.starts_with("run") {
        let api = if line.contains("publish-api") { format!("--api {}", first.api()) } else { String::new() };
        let place = if line.contains("--url") { String::new() } else { format!("--url {}", first.url()) };
        // Commands run beside each other, and what one says is nothing to the others.
        let rooms = format!("--room-prefix rooms-{number}-");
        line = format!("{line} {SMALL} {place} {api} --secret {SECRET} {rooms}");
    } else if line.starts_with("floor") {
        line = format!("{line} {SMALL}");
    }
    let mut tool = Command::new("sh");
    tool.args(["-c", &format!("{} {line}", env!("CARGO_BIN_EXE_roomcast-loadtest"))]).current_dir(folder);
    let variables = [("PID", std::process::id().to_string()), ("KEY", KEY.into())];
    let output = tool.envs(variables).output().expect("the tool starts");
    let (table, faults) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let fails = ["connect error", "publish error", "return error"].iter().any(|row| table.contains(row));
    assert!(output.status.success() && !fails, "{line}\n{table}{faults}");
}

#[test]
fn every_example_runs() {
    let settings = blocks("toml").next().expect("settings of the rooms");
    let (first, second) = (Node::of(settings), Node::of(settings));
    let folder = tempfile::tempdir().expect("a folder");
    let lines = blocks("").flat_map(str::lines).filter_map(|line| line.strip_prefix("roomcast-loadtest "));
    // A comparison is of what others write.
    let (last, others): (Vec<&str>, Vec<&str>) = lines.partition(|line| line.starts_with("compare"));
    assert!(others.len() > 12 && last.len() == 1, "{others:?} {last:?}");
    let numbered: Vec<_> = others.into_iter().enumerate().collect();
    for some in numbered.chunks(5) {
        thread::scope(|scope| {
            for (number, line) in some {
                scope.spawn(|| run(*number, line, &first, &second, folder.path()));
            }
        });
    }
    for line in last {
        run(0, line, &first, &second, folder.path());
    }
    for file in ["report.html", "both.html", "before.json", "after.json"] {
        assert!(folder.path().join(file).exists(), "{file}");
    }
}

#[test]
fn every_scenario_stands_there_with_its_flags() {
    for preset in Preset::value_variants() {
        let name = preset.to_possible_value().expect("none is hidden");
        let start = format!("| `{}` |", name.get_name());
        let row = PAGE.lines().find(|line| line.starts_with(&start));
        let row = row.unwrap_or_else(|| panic!("{start} is missing"));
        assert!(row.ends_with(&format!("| `{}` |", preset.flags())), "{row}");
    }
}

#[test]
fn every_figure_stands_there() {
    let table = PAGE.split("## The figures by name").nth(1).expect("the section");
    let cells = table.lines().filter_map(|line| line.strip_prefix("| `")?.split('|').next());
    let told: BTreeSet<&str> = cells.flat_map(|cell| cell.split(['`', ' '])).filter(|name| !name.is_empty()).collect();
    let known: BTreeSet<&str> = NAMES.iter().map(|name| name.name).collect();
    assert_eq!(told, known);
}
