//! The oracle against a server that misbehaves on purpose: what is lost, doubled, overtaken, or sent to the wrong room is
//! seen and counted exactly, and an honest server is not accused.

mod common;

use common::{Mischief, report, serve, taken};
use serde_json::{Value, json};

/// Four clients in two rooms, 200 messages: each client has to hear 100.
const LOAD: [&str; 8] = ["--clients", "4", "--rooms", "2", "--rate", "400", "--duration", "500ms"];

fn checked(mischief: Mischief) -> Value {
    let report = report(&serve(mischief, taken), &LOAD);
    assert_eq!(report["figures"]["published"], 200);
    report["figures"]["deliveries"].clone()
}

fn deliveries(delivered: u64, lost: u64, doubled: u64, out_of_order: u64) -> Value {
    json!({
        "delivered": delivered, "lost": lost, "doubled": doubled, "out_of_order": out_of_order,
        "misrouted": 0, "foreign": 0, "away": 0, "recovered": 0,
    })
}

#[test]
fn an_honest_server_is_not_accused() {
    assert_eq!(checked(|_, frame, _| vec![frame]), deliveries(400, 0, 0, 0));
}

#[test]
fn every_tenth_lost_is_counted() {
    let seen = checked(|n, frame, _| if n % 10 == 3 { vec![] } else { vec![frame] });
    assert_eq!(seen, deliveries(360, 40, 0, 0));
}

#[test]
fn the_last_one_lost_is_counted() {
    let seen = checked(|n, frame, _| if n == 99 { vec![] } else { vec![frame] });
    assert_eq!(seen, deliveries(396, 4, 0, 0));
}

#[test]
fn every_tenth_doubled_is_counted() {
    let seen = checked(|n, frame, _| if n % 10 == 3 { vec![frame.clone(), frame] } else { vec![frame] });
    assert_eq!(seen, deliveries(440, 0, 40, 0));
}

#[test]
fn every_tenth_overtaken_is_counted() {
    let seen = checked(|n, frame, kept| match n % 10 {
        3 => {
            kept.push(frame);
            vec![]
        }
        4 => vec![frame, kept.remove(0)],
        _ => vec![frame],
    });
    assert_eq!(seen, deliveries(400, 0, 0, 40));
}

#[test]
fn what_belongs_to_another_room_is_seen() {
    // The stamp says room 0 or 1; every first message is turned into one of room 7, which nobody is in.
    let seen = checked(|n, mut frame, _| {
        if n == 0 {
            let place = frame.windows(4).position(|four| four == b"~rlt").expect("a stamp") + 12;
            frame[place + 7] = b'7';
        }
        vec![frame]
    });
    assert_eq!((&seen["misrouted"], &seen["lost"]), (&json!(4), &json!(4)));
}

#[test]
fn what_the_server_refuses_is_not_lost() {
    let busy = |n| if n % 4 == 0 { json!({"error": {"code": 111, "message": "too many requests"}}) } else { taken(n) };
    let report = report(&serve(|_, frame, _| vec![frame], busy), &LOAD);
    let figures = &report["figures"];
    assert_eq!(figures["publish_errors"], json!({"111 too many requests": 50}));
    assert_eq!(figures["deliveries"], deliveries(300, 0, 0, 0));
    assert_eq!(figures["publish"]["count"], 200);
}

#[test]
fn a_publisher_that_subscribes_hears_itself() {
    let more = [&LOAD[..], &["--publishers", "3", "--publisher-subscribes", "--workers", "2"]].concat();
    let report = report(&serve(|_, frame, _| vec![frame], taken), &more);
    // Three publishers in two rooms: two in the first, one in the second. Messages go round over the publishers.
    let figures = &report["figures"];
    assert_eq!((&figures["connected"], &figures["published"]), (&json!(7), &json!(200)));
    let (first, second) = (67 + 66, 67);
    let heard = first * (2 + 2) + second * (2 + 1);
    assert_eq!(figures["deliveries"]["delivered"].as_u64(), Some(heard));
    assert_eq!(figures["deliveries"]["lost"], 0);
}

#[test]
fn workers_are_merged_into_one_histogram() {
    let more = [&LOAD[..], &["--workers", "3"]].concat();
    let report = report(&serve(|_, frame, _| vec![frame], taken), &more);
    let figures = &report["figures"];
    assert_eq!(figures["deliveries"], deliveries(400, 0, 0, 0));
    assert_eq!((&figures["delivery"]["count"], &figures["connect"]["count"]), (&json!(400), &json!(5)));
    let point = |name: &str| figures["delivery"][name].as_u64().expect("a time");
    assert!(0 < point("p50") && point("p50") <= point("p99") && point("p99") <= point("max"));
}
