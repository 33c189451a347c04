//! The command line: faults are told at once with exit code 64, a run that cannot be made ends with 1, a broken threshold
//! with 99, and the floor gives sane figures.

mod common;

use std::process::Output;

use common::{run, serve, taken};
use serde_json::Value;

fn complaint(output: &Output, code: i32) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{text}");
    text
}

#[test]
fn all_faults_are_told_at_once() {
    let text = complaint(
        &run(&[
            "--url",
            "http://x",
            "--size",
            "3",
            "--clients",
            "2",
            "--rooms",
            "3",
            "--fail-if",
            "cpu_per_delivery>1us",
        ]),
        64,
    );
    for fault in ["--url http://x", "--size 3", "--rooms 3", "cannot be measured without --pid"] {
        assert!(text.contains(fault), "{fault} is missing in: {text}");
    }
}

#[test]
fn unknown_flags_and_conditions_are_refused() {
    assert!(complaint(&run(&["--clients", "many"]), 64).contains("--clients"));
    assert!(complaint(&run(&["--conections", "1"]), 64).contains("--conections"));
    assert!(complaint(&run(&["--fail-if", "p98>3ms"]), 64).contains("`p98` is no figure of a run"));
    assert!(complaint(&run(&["--duration", "10"]), 64).contains("needs a unit"));
    assert!(complaint(&run(&["floor", "--publishers", "1"]), 64).contains("--publishers"));
}

#[test]
fn help_names_every_exit_code_and_hides_the_workers() {
    let output = run(&["--help"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("64 wrong flags, 99"), "{text}");
    assert!(!text.contains("floor-server"), "{text}");
}

#[test]
fn nobody_there_is_a_failed_run() {
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a free port").port();
    let output = run(&["--url", &format!("ws://127.0.0.1:{port}/"), "--clients", "3", "--settle", "0s"]);
    assert!(complaint(&output, 1).contains("no connection got through: connection refused"));
}

#[test]
fn a_broken_threshold_ends_with_99_and_says_which() {
    let url = serve(|n, frame, _| if n == 0 { vec![] } else { vec![frame] }, taken);
    let load = ["--url", &url, "--clients", "2", "--duration", "100ms", "--settle", "0s", "--quiet", "200ms"];
    let broken = run(&[&load[..], &["--fail-if", "lost>1,doubled>0"]].concat());
    let table = String::from_utf8_lossy(&broken.stdout);
    assert_eq!(broken.status.code(), Some(99), "{table}");
    assert!(table.contains("FAILED                 lost>1 (it is 2)") && !table.contains("doubled>0"), "{table}");
    let kept = run(&[&load[..], &["--fail-if", "lost>2"]].concat());
    assert_eq!(kept.status.code(), Some(0));
}

#[test]
fn the_floor_gives_sane_figures_in_both_encodings() {
    let folder = tempfile::tempdir().expect("a folder");
    for encoding in ["json", "protobuf"] {
        let file = folder.path().join(encoding);
        let load =
            ["floor", "--clients", "50", "--rooms", "5", "--rate", "200", "--duration", "500ms", "--settle", "0s"];
        let conditions = "lost>0,doubled>0,out_of_order>0,misrouted>0,connected<50,max>10s";
        let file = file.to_str().expect("a path");
        let output = run(&[&load[..], &["--encoding", encoding, "--fail-if", conditions, "--json", file]].concat());
        let table = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && table.contains("CPU per delivery"), "{table}");
        let report: Value = serde_json::from_slice(&std::fs::read(file).expect("written")).expect("JSON");
        let figures = &report["figures"];
        assert_eq!(
            (figures["published"].as_u64(), figures["deliveries"]["delivered"].as_u64()),
            (Some(100), Some(1000))
        );
        assert!(figures["delivery"]["min"].as_u64().is_some_and(|nanos| nanos > 1000), "{figures}");
    }
}

#[test]
fn ratios_to_the_floor_are_printed_when_asked_for() {
    let url = serve(|_, frame, _| vec![frame], taken);
    let own = std::process::id().to_string();
    let load = ["--url", &url, "--clients", "10", "--rate", "500", "--duration", "500ms", "--settle", "0s"];
    let output = run(&[&load[..], &["--pid", &own, "--hold", "100ms", "--floor"]].concat());
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{table}");
    for row in ["RSS per connection", "CPU per connect", "CPU per idle second", "x floor", "generator"] {
        assert!(table.contains(row), "{row} is missing in: {table}");
    }
}
