//! The examples of docs/ROOMS.md, over memory and over Redis: one node has all the settings of the page, each conversation is
//! held as it stands there, and what is told is what the page says. Also that the page has every rule.

mod common;

use std::collections::{HashMap, VecDeque};

use common::{Client, Gateway, Value, json, redis::RedisServer, token};

const PAGE: &str = include_str!("../../docs/ROOMS.md");

/// Values that differ from time to time, by the names of their fields.
const OF_THE_MOMENT: [&str; 4] = ["client", "epoch", "version", "node"];

/// The blocks of the page that begin with this fence.
fn blocks(fence: &str) -> Vec<&'static str> {
    let blocks = PAGE.split("\n```").skip(1).step_by(2);
    blocks.filter_map(|block| block.split_once('\n')).filter(|(name, _)| *name == fence).map(|(_, text)| text).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_memory() {
    converse("").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_redis() {
    let redis = RedisServer::start();
    converse(&format!("redis.url = {:?}\n", redis.url())).await;
}

async fn converse(settings: &str) {
    let node = Gateway::start(&format!("{settings}{}", blocks("toml").join("\n")));
    node.ready().await;
    let conversations = blocks("");
    assert!(conversations.len() > 10, "{} conversations", conversations.len());
    for conversation in conversations {
        let mut talk = Talk { node: &node, clients: HashMap::new(), tokens: HashMap::new(), real: HashMap::new() };
        let mut answer = Value::Null;
        for line in conversation.lines() {
            talk.line(line, &mut answer).await;
        }
        talk.nothing_else_is_told(conversation).await;
    }
    node.stop().await;
}

/// Somebody who takes part, and what was told and not yet looked at.
struct Speaker {
    client: Client,
    told: VecDeque<Value>,
}

/// One conversation.
struct Talk<'a> {
    node: &'a Gateway,
    clients: HashMap<String, Speaker>,
    tokens: HashMap<String, String>,
    /// What stands for the values of the moment on the page, and what they are.
    real: HashMap<String, String>,
}

impl Talk<'_> {
    async fn line(&mut self, line: &str, answer: &mut Value) {
        let read = |text: &str| -> Value { serde_json::from_str(text).unwrap_or_else(|why| panic!("{line}: {why}")) };
        if let Some((name, claims)) = line.strip_prefix("token ").and_then(|rest| rest.split_once(": ")) {
            self.tokens.insert(name.to_owned(), token(&read(claims)));
        } else if let Some(call) = line.strip_prefix("api> ") {
            let (method, body) = call.split_once(' ').expect("a method and a body");
            *answer = self.node.api(method, &self.filled_in(read(body))).await.1;
        } else if let Some(wanted) = line.strip_prefix("api< ") {
            self.compare(&answer.take(), &read(wanted), line);
        } else if let Some(name) = line.strip_suffix(" goes away") {
            self.clients.remove(name).expect("it is there");
        } else if let Some((name, command)) = line.split_once("> ") {
            let command = self.filled_in(read(command));
            self.send(name, &command).await;
        } else {
            let (name, wanted) = line.split_once("< ").expect("a line of a conversation");
            let wanted = read(wanted);
            let came = self.clients.get_mut(name).expect("it has spoken").next_like(&wanted).await;
            self.compare(&came, &wanted, line);
        }
    }

    async fn send(&mut self, name: &str, command: &Value) {
        if !self.clients.contains_key(name) {
            let connects = command["connect"].is_object();
            let address = self.node.clients;
            let client = if connects { Client::open(address).await } else { Client::connected(address, name).await };
            self.clients.insert(name.to_owned(), Speaker { client, told: VecDeque::new() });
        }
        self.clients.get_mut(name).expect("it is there now").client.send(&command.to_string()).await;
    }

    /// What is sent, with tokens and values of the moment instead of what stands for them.
    fn filled_in(&self, mut said: Value) -> Value {
        each_text(&mut said, &mut |name, text| {
            let known = if name == "token" { self.tokens.get(text) } else { self.real.get(text) };
            if let Some(real) = known.filter(|_| name == "token" || OF_THE_MOMENT.contains(&name)) {
                real.clone_into(text);
            }
        });
        said
    }

    /// Compares what came, values of the moment being what the page calls them: the same name for the same value.
    fn compare(&mut self, came: &Value, wanted: &Value, line: &str) {
        let by_client = |all: &Value| {
            let mut all = all.clone();
            if let Some(present) = all.pointer_mut("/presence/presence") {
                *present = present.as_object().expect("by client").values().cloned().collect();
            }
            all
        };
        let (mut came, mut wanted) = (by_client(came), by_client(wanted));
        self.learn(&came, &wanted);
        let real = &self.real;
        each_text(&mut wanted, &mut |name, text| {
            if OF_THE_MOMENT.contains(&name) {
                real.get(text).unwrap_or(&String::new()).clone_into(text);
            }
        });
        if wanted["push"]["pub"]["data"] == "…" {
            assert!(came["push"]["pub"]["data"].as_str().is_some_and(|patch| patch.ends_with(';')), "{line}\n{came}");
            came["push"]["pub"]["data"] = "…".into();
        }
        assert_eq!(came, wanted, "{line}");
    }

    /// Takes down the values of the moment that the page names here for the first time.
    fn learn(&mut self, came: &Value, wanted: &Value) {
        match (came, wanted) {
            (Value::Object(came), Value::Object(wanted)) => {
                let both = wanted.iter().filter_map(|(name, wanted)| Some((name, came.get(name)?, wanted)));
                for (name, came, wanted) in both {
                    if let (Some(came), Some(wanted)) = (came.as_str(), wanted.as_str())
                        && OF_THE_MOMENT.contains(&name.as_str())
                    {
                        self.real.entry(wanted.to_owned()).or_insert_with(|| came.to_owned());
                    }
                    self.learn(came, wanted);
                }
            }
            (Value::Array(came), Value::Array(wanted)) => {
                came.iter().zip(wanted).for_each(|(came, wanted)| self.learn(came, wanted));
            }
            _ => {}
        }
    }

    async fn nothing_else_is_told(&mut self, conversation: &str) {
        for (name, speaker) in &mut self.clients {
            speaker.client.send(r#"{"id":999,"unsubscribe":{"channel":"nowhere"}}"#).await;
            let last = speaker.next_like(&json!({"id": 999})).await;
            assert_eq!(last["unsubscribe"], json!({}));
            assert!(speaker.told.is_empty(), "{name} is also told {:?}:\n{conversation}", speaker.told);
        }
    }
}

impl Speaker {
    /// The reply with the same id, or the next push; the two kinds may come in either order.
    async fn next_like(&mut self, wanted: &Value) -> Value {
        loop {
            if let Some(place) = self.told.iter().position(|told| told["id"] == wanted["id"]) {
                return self.told.remove(place).expect("it is there");
            }
            let message = self.client.next().await;
            if message != json!({}) {
                self.told.push_back(message);
            }
        }
    }
}

/// Calls `change` for every text, with the name of the field it stands in.
fn each_text(value: &mut Value, change: &mut impl FnMut(&str, &mut String)) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(text) => change(name, text),
                    value => each_text(value, change),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| each_text(value, change)),
        _ => {}
    }
}

#[test]
fn the_page_has_every_rule() {
    let rows = include_str!("../../README.md").lines().filter_map(|line| line.strip_prefix("| `rooms."));
    let rules: Vec<_> = rows.filter_map(|row| row.split('`').next()).collect();
    assert!(rules.len() > 30, "{rules:?}");
    let missing: Vec<_> = rules.iter().filter(|rule| !PAGE.contains(&format!("`{rule}`"))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
