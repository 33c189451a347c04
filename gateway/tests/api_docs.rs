//! The examples of docs/API.md: each request is sent as it stands there, and answered as it says there.

mod common;

use std::process::Command;

use common::{Gateway, Value};

const SETTINGS: &str = "[[namespaces]]\nname = \"here\"\npresence = true\n[[namespaces]]\nname = \"kept\"\n\
                        history_size = 10\nhistory_ttl = \"1m\"\n[[namespaces]]\nname = \"news\"\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documented_requests_are_answered_as_documented() {
    let node = Gateway::open(SETTINGS);
    let text = include_str!("../../docs/API.md");
    let blocks: Vec<&str> = text.split("```\n").skip(1).step_by(2).collect();
    let answers = text.split("```\n").skip(3).step_by(2);
    let mut methods = Vec::new();
    for (request, answer) in
        blocks.iter().zip(answers).filter(|(request, _)| request.starts_with("curl -H \"X-API-Key: $KEY\""))
    {
        let command = request.replace("127.0.0.1:9000", &node.internal.to_string());
        let line = format!("{} -s --max-time 10", command.trim());
        let mut output = Command::new("sh");
        output.args(["-c", &line]);
        let output = { output }.env("KEY", "test-api-key").output().expect("curl is installed");
        let said = String::from_utf8(output.stdout).expect("text");
        let came: Value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{request}: {said}"));
        let wanted: Value = serde_json::from_str(answer).unwrap_or_else(|error| panic!("{answer}: {error}"));
        assert_eq!(shape(&came, &wanted), wanted, "{request}");
        let path = command.trim().rsplit("/api/").next().expect("a path").to_owned();
        methods.push(path);
    }
    let (_, description) = node.get("/api/openapi.json").await;
    let description: Value = serde_json::from_str(&description).expect("JSON");
    let paths = description["paths"].as_object().expect("paths").keys();
    let mut described: Vec<_> = paths.map(|path| path.replace("/api/", "")).collect();
    methods.sort();
    described.sort();
    assert_eq!(methods, described, "each method has one example");
    node.stop().await;
}

/// What came, with the values that differ from time to time as they were documented.
fn shape(came: &Value, wanted: &Value) -> Value {
    match (came, wanted) {
        (Value::Object(came), Value::Object(wanted)) => came
            .iter()
            .map(|(name, value)| match wanted.get(name) {
                Some(wanted) if is_of_the_moment(name) => (name.clone(), wanted.clone()),
                Some(wanted) => (name.clone(), shape(value, wanted)),
                None => (name.clone(), value.clone()),
            })
            .collect(),
        (Value::Array(came), Value::Array(wanted)) if came.len() == wanted.len() => {
            came.iter().zip(wanted).map(|(came, wanted)| shape(came, wanted)).collect()
        }
        _ => came.clone(),
    }
}

fn is_of_the_moment(name: &str) -> bool {
    ["uid", "name", "epoch", "uptime", "broker_ms"].contains(&name) || name.starts_with("num_")
}
