//! The forms of a report: JSON as its schema says, one HTML page, two servers and the floor side by side, a comparison,
//! and the figures of the moment.

mod common;

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use common::{
    node::{Node, SECRET},
    run,
};
use serde_json::{Value, json};

const LOAD: [&str; 14] = [
    "--clients",
    "20",
    "--room-size",
    "5",
    "--rate",
    "100",
    "--duration",
    "2s",
    "--quiet",
    "1s",
    "--settle",
    "0s",
    "--secret",
    SECRET,
];

/// Holds a report against the schema of reports.
fn check(report: &Value) {
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("report.schema.json");
    let mut schemas = boon::Schemas::new();
    let index = boon::Compiler::new().compile(&schema.to_string_lossy(), &mut schemas).expect("a schema");
    schemas.validate(report, index).unwrap_or_else(|fault| panic!("{fault:#}"));
}

#[test]
fn two_servers_and_the_floor_stand_side_by_side() {
    let (first, second) = (Node::start(""), Node::start(""));
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name).to_str().expect("a path").to_owned();
    let (url, against) = (first.url(), format!("name=second,url={},metrics={}", second.url(), second.metrics()));
    let (json, html, metrics) = (file("report.json"), file("report.html"), first.metrics());
    let more = ["--name", "first", "--url", &url, "--metrics", &metrics, "--against", &against];
    let output = run(&[&["run", "chat"], &more[..], &["--json", &json, "--html", &html], &LOAD].concat());
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{table}{}", String::from_utf8_lossy(&output.stderr));
    for word in ["first x floor", "second x floor", "cpu_per_delivery", "rss_per_connection"] {
        assert!(table.contains(word), "{word} is missing in: {table}");
    }
    let report: Value = serde_json::from_slice(&fs::read(&json).expect("written")).expect("JSON");
    check(&report);
    let other = &report["against"][0];
    assert_eq!((&report["name"], &other["name"]), (&json!("first"), &json!("second")));
    for figures in [&report["figures"], &other["figures"], &report["floor"]] {
        assert_eq!(figures["deliveries"]["delivered"], 1000, "{figures}");
        assert!(figures["series"].as_array().is_some_and(|series| !series.is_empty()));
    }
    assert!(report["ratios"]["p99"].as_f64().is_some_and(|ratio| ratio > 0.0), "{}", report["ratios"]);
    check_page(&fs::read_to_string(html).expect("written"));
}

/// The page needs nothing but itself and shows every plot.
fn check_page(page: &str) {
    for foreign in ["<script", "src=", "href=", "@import"] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    for title in
        ["Delivery latency by percentile", "Delivery latency over time", "Throughput", "Processor", "Connections"]
    {
        assert!(page.contains(title), "{title} is missing");
    }
    assert!(page.matches("<svg").count() >= 5 && page.matches("<svg").count() == page.matches("</svg>").count());
    assert!(page.contains("first p99") && page.contains("second p99") && page.contains("floor p99"));
}

#[test]
fn a_comparison_names_what_got_worse() {
    let node = Node::start("");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("before.json").to_str().expect("a path").to_owned();
    let output = run(&[&["--url", &node.url(), "--json", &file], &LOAD[..]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let same = run(&["compare", &file, &file, "--worse-than", "1%"]);
    assert!(same.status.success(), "{}", String::from_utf8_lossy(&same.stdout));

    let mut report: Value = serde_json::from_slice(&fs::read(&file).expect("written")).expect("JSON");
    check(&report);
    report["figures"]["deliveries"]["lost"] = json!(3);
    let worse = folder.path().join("after.json").to_str().expect("a path").to_owned();
    fs::write(&worse, report.to_string()).expect("written");
    let output = run(&["compare", &file, &worse, "--worse-than", "10%"]);
    let table = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(99), "{table}");
    let marked: Vec<_> = table.lines().filter(|line| line.ends_with("WORSE")).collect();
    assert!(marked.len() == 1 && marked[0].starts_with("lost"), "{table}");
    let missing = run(&["compare", &file, "nothing.json"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("cannot read nothing.json"));
}

#[test]
fn prometheus_sees_the_run() {
    let node = Node::start("");
    let (url, more) = (node.url(), ["--prometheus", "127.0.0.1:0", "--duration", "4s"]);
    let mut tool = Command::new(env!("CARGO_BIN_EXE_roomcast-loadtest"))
        .args([&["--url", &url], &LOAD[..6], &LOAD[8..], &more[..]].concat())
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    let mut lines = BufReader::new(tool.stderr.take().expect("it is piped")).lines().map_while(Result::ok);
    let told = lines.find_map(|line| Some(line.split_once("http://")?.1.to_owned())).expect("it says where");
    let address = told.trim_end_matches("/metrics").to_owned();
    let deadline = Instant::now() + Duration::from_secs(30);
    let seen = loop {
        let mut stream = TcpStream::connect(&address).expect("it listens while the run goes on");
        stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").expect("it hears");
        let mut page = String::new();
        stream.read_to_string(&mut page).expect("it answers");
        if page.contains("loadtest_value{what=\"connections\"} 21") && page.contains("quantile=\"0.99\"") {
            break page;
        }
        assert!(Instant::now() < deadline, "{page}");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(seen.contains("Content-Length: "), "{seen}");
    assert!(tool.wait().expect("it ends").success());
}
