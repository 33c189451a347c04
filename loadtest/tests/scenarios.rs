//! Scenarios against real nodes: connections that come and go, break and come back, recover, ask, read slowly, publish
//! through the API; and that the oracle sees what is lost meanwhile.

mod common;

use std::{
    thread,
    time::{Duration, Instant},
};

use common::{
    node::{KEY, Node, SECRET},
    report, run, serve, taken,
};
use serde_json::Value;

/// What every scenario here is made smaller by.
const SMALL: [&str; 12] =
    ["--clients", "60", "--room-size", "6", "--rate", "100", "--duration", "2s", "--quiet", "2s", "--settle", "0s"];

/// Runs a scenario against `url` without the floor and gives its figures.
fn figures(scenario: &str, url: &str, more: &[&str]) -> Value {
    let base = ["run", scenario, "--no-floor", "--url", url, "--secret", SECRET, "--connect-rate", "0", "--json", "-"];
    let output = run(&[&base, &SMALL[..], more].concat());
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("the report is JSON");
    assert_eq!(report["scenario"], scenario);
    report["figures"].clone()
}

fn count(figures: &Value, path: &str) -> u64 {
    figures.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("{path} is no count in {figures}"))
}

fn nothing_is_wrong(figures: &Value) {
    for path in ["lost", "doubled", "out_of_order", "misrouted", "foreign"] {
        assert_eq!(count(figures, &format!("/deliveries/{path}")), 0, "{path}: {figures}");
    }
    assert_eq!(figures["disconnects"], serde_json::json!({}), "{figures}");
    assert_eq!(figures["returns"]["errors"], serde_json::json!({}), "{figures}");
}

#[test]
fn who_comes_and_goes_misses_only_what_was_said_meanwhile() {
    let node = Node::start("");
    let figures = figures("churn", &node.url(), &["--churn", "100"]);
    nothing_is_wrong(&figures);
    assert_eq!((count(&figures, "/connected"), count(&figures, "/returns/left")), (61, 200));
    assert_eq!((count(&figures, "/returns/returned"), count(&figures, "/reconnect/count")), (200, 200));
}

#[test]
fn all_come_back_after_a_storm() {
    let node = Node::start("");
    let figures = figures("reconnect-storm", &node.url(), &["--storm-over", "500ms"]);
    nothing_is_wrong(&figures);
    assert_eq!(count(&figures, "/returns/returned"), 60);
    assert!(count(&figures, "/deliveries/away") > 0, "somebody was away while something was said: {figures}");
    assert!(count(&figures, "/back_after") >= 400_000_000, "they came back over half a second: {figures}");
}

#[test]
fn recovered_clients_hear_everything() {
    let node = Node::start("history_size = 1000\nhistory_ttl = '60s'\nallow_recovery = true\nallow_positioning = true");
    for encoding in ["json", "protobuf"] {
        let figures = figures("recovery", &node.url(), &["--storm-over", "500ms", "--encoding", encoding]);
        nothing_is_wrong(&figures);
        assert_eq!((count(&figures, "/returns/recovered"), count(&figures, "/returns/unrecovered")), (60, 0));
        assert!(count(&figures, "/deliveries/recovered") > 0, "{figures}");
        assert_eq!(count(&figures, "/deliveries/away"), 0, "{encoding}: {figures}");
    }
}

#[test]
fn who_stays_away_recovers_what_was_said_meanwhile() {
    let node = Node::start("history_size = 1000\nhistory_ttl = '60s'\nallow_recovery = true\nallow_positioning = true");
    // All break at 2 s, a hundred messages are said in ten rooms from 2.9 s on, and all come back at 5.5 s.
    let said = ["--rate", "0", "--spike", "500", "--spike-for", "200ms", "--duration", "6s"];
    let figures = figures("recovery", &node.url(), &[&said[..], &["--storm-away", "3500ms"]].concat());
    nothing_is_wrong(&figures);
    assert_eq!((count(&figures, "/returns/recovered"), count(&figures, "/deliveries/recovered")), (60, 600));
    let after = count(&figures, "/back_after");
    assert!(after < 3_500_000_000, "the time of being away is not in it: {after}");
}

#[test]
fn what_cannot_be_recovered_is_told() {
    let node = Node::start("history_size = 1\nhistory_ttl = '60s'\nallow_recovery = true\nallow_positioning = true");
    let figures = figures("recovery", &node.url(), &["--storm-over", "1s", "--rate", "400"]);
    nothing_is_wrong(&figures);
    assert!(count(&figures, "/returns/unrecovered") > 0 && count(&figures, "/deliveries/away") > 0, "{figures}");
}

#[test]
fn loss_after_coming_back_is_seen() {
    // Each connection misses its 51st message; those that came back begin to count anew.
    let url = serve(|n, frame, _| if n == 50 { vec![] } else { vec![frame] }, taken);
    let load = ["--clients", "4", "--rate", "200", "--duration", "1s", "--storm", "100", "--reconnect"];
    let figures = report(&url, &load)["figures"].clone();
    assert_eq!(count(&figures, "/returns/returned"), 4);
    assert_eq!(count(&figures, "/deliveries/lost"), 8, "four before the storm and four after it: {figures}");
}

#[test]
fn publishing_through_the_api_is_answered_and_heard() {
    let node = Node::start("");
    let api = node.api();
    let heard = figures("publish-api", &node.url(), &["--api", &api, "--api-key", KEY]);
    nothing_is_wrong(&heard);
    assert_eq!((count(&heard, "/published"), count(&heard, "/publish/count")), (200, 200));
    assert_eq!(count(&heard, "/deliveries/delivered"), 1200);
    let refused = figures("publish-api", &node.url(), &["--api", &api, "--api-key", "wrong"]);
    nothing_is_wrong(&refused);
    assert_eq!(refused["publish_errors"], serde_json::json!({"HTTP status 401": 200}), "{refused}");
}

#[test]
fn questions_are_answered_and_memberships_told() {
    let node = Node::start("presence = true\njoin_leave = true");
    for question in ["presence", "presence-stats"] {
        let figures = figures("presence", &node.url(), &["--ask", "50", "--question", question]);
        nothing_is_wrong(&figures);
        assert_eq!(count(&figures, "/ask/count"), 100);
        assert_eq!(figures["ask_errors"], serde_json::json!({}));
        assert!(count(&figures, "/memberships") > 100, "{figures}");
    }
    let refusing = Node::start("");
    let refused = figures("presence", &refusing.url(), &["--ask", "50"]);
    assert!(refused["ask_errors"].to_string().contains("108"), "{refused}");
}

#[test]
fn a_client_that_waits_for_an_answer_is_passed_over_and_no_question_is_forgotten() {
    let url = serve(|_, frame, _| vec![frame], taken);
    let load = ["--rooms", "2", "--room-size", "2", "--rate", "10", "--ask", "50", "--duration", "1s"];
    let ask = |more: &[&str]| figures("presence", &url, &[&load[..], more].concat());
    // Two of four clients are never answered; the other two ask all the rest.
    let some = ask(&["--clients", "4", "--churn", "0", "--question", "presence"]);
    assert_eq!(count(&some, "/ask/count"), 48, "{some}");
    assert_eq!(some["ask_errors"], serde_json::json!({"not answered": 2}), "{some}");
    let none = ask(&["--clients", "2", "--rooms", "1", "--churn", "0", "--question", "presence"]);
    let wanted = serde_json::json!({"not answered": 2, "not asked: no client was free": 48});
    assert_eq!((count(&none, "/ask/count"), &none["ask_errors"]), (0, &wanted), "{none}");
}

#[test]
fn slow_clients_do_not_spoil_the_figures_of_the_others() {
    let node = Node::start("");
    let load = ["--clients", "16", "--rooms", "1", "--rate", "120", "--duration", "3s", "--size", "48KB"];
    let figures = figures("slow-consumers", &node.url(), &[&load[..], &["--slow", "25"]].concat());
    nothing_is_wrong(&figures);
    let (slow, ended) = (count(&figures, "/slow/clients"), figures["slow"]["ended"].clone());
    assert!((1..16).contains(&slow), "{figures}");
    assert!(ended.as_object().is_some_and(|ended| !ended.is_empty()), "the node gives up on them: {figures}");
    assert_eq!(count(&figures, "/deliveries/delivered"), 360 * (16 - slow));
}

#[test]
fn clients_of_a_node_that_stops_go_to_another() {
    let (stays, stops) = (Node::start(""), Node::start(""));
    let folder = tempfile::tempdir().expect("a folder");
    let sign = folder.path().join("publishing");
    let at = format!("300ms=touch {}", sign.display());
    let urls = [stays.url(), stops.url()];
    let stopping = thread::spawn(move || {
        let deadline = Instant::now() + Duration::from_mins(1);
        while !sign.exists() {
            assert!(Instant::now() < deadline, "the tool never ran its command");
            thread::sleep(Duration::from_millis(20));
        }
        stops.stop();
    });
    let more = ["--url", &urls[1], "--rate", "0", "--churn", "1", "--reconnect", "--duration", "3s", "--at", &at];
    let figures = figures("churn", &urls[0], &more);
    stopping.join().expect("the node stopped");
    assert_eq!(count(&figures, "/connected"), 60);
    let ended: u64 = figures["disconnects"].as_object().expect("reasons").values().filter_map(Value::as_u64).sum();
    assert!((30..=33).contains(&ended), "half of them were there: {figures}");
    assert_eq!(count(&figures, "/returns/returned"), ended + count(&figures, "/returns/left"), "{figures}");
    let events = figures["events"].to_string();
    assert!(events.contains("touch") && events.contains("publish"), "{events}");
}

#[test]
fn a_spike_is_published_on_top() {
    let node = Node::start("");
    let figures = figures("fan-out", &node.url(), &["--spike", "500", "--spike-for", "1s"]);
    nothing_is_wrong(&figures);
    assert_eq!(count(&figures, "/published"), 50 + 500 + 50);
}
