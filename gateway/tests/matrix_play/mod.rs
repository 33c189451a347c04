//! Plays one row of the table against a node, and gives what came of the last thing its client did.

#![allow(unreachable_pub, reason = "a test is a crate of its own")]

use std::{
    fmt::Write,
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::Map;

use crate::common::{Client, Gateway, Value, client, json, token};

/// One value of one rule or claim.
pub struct Row {
    /// The rule or the claim.
    pub name: String,
    /// The value it has; null for none.
    pub value: Value,
    /// What is done, one after the other.
    pub does: Value,
    /// What has to come of the last.
    pub wanted: Value,
    /// Rules of the row's room.
    rules: Map<String, Value>,
}

impl Row {
    /// The rows of an entry of the table: one for each of its values.
    pub fn all(kind: &str, entry: &Value) -> Vec<Self> {
        let name = entry[kind].as_str().unwrap_or_else(|| panic!("no {kind} in {entry}"));
        let values = entry["values"].as_array().unwrap_or_else(|| panic!("no values in {entry}"));
        let rows = values.iter().map(|pair| {
            let (value, wanted) = (pair[0].clone(), pair[1].clone());
            let mut rules = entry["rules"].as_object().cloned().unwrap_or_default();
            let mut does = entry["does"].clone();
            match kind {
                "rule" if !value.is_null() => drop(rules.insert(name.to_owned(), value.clone())),
                "rule" => {}
                _ => put_claim(&mut does, name, &value),
            }
            Self { name: name.to_owned(), value, does, wanted, rules }
        });
        rows.collect()
    }

    /// The rules as a settings file has them.
    pub fn settings(&self) -> String {
        self.rules.iter().fold(String::new(), |mut text, (rule, value)| {
            let _ = writeln!(text, "{rule} = {value}");
            text
        })
    }

    /// Does what it says in rooms and as a user of its own.
    pub async fn play(&self, node: &Gateway, number: usize) -> Value {
        let mut play = Play {
            node,
            room: format!("row{number}:r"),
            user: format!("ann{number}"),
            ids: Vec::new(),
            told: Vec::new(),
            ann: Client::open(node.clients).await,
            bob: None,
            connected: false,
        };
        let mut came = Value::Null;
        for act in self.does.as_array().expect("a row does something") {
            came = play.act(act).await;
        }
        if self.wanted["told"].is_array() {
            came = json!({"told": play.told_until_now().await});
        }
        play.normal(&came)
    }
}

/// Puts a claim where the claims of the row's token stand: in that of `subscribe`, or in `connect`.
fn put_claim(does: &mut Value, name: &str, value: &Value) {
    let acts = does.as_array_mut().expect("a row does something");
    let place = ["/subscribe/token", "/connect"].into_iter().find_map(|place| {
        let act = acts.iter().position(|act| act.pointer(place).is_some())?;
        Some((act, place))
    });
    let (act, place) = place.unwrap_or_else(|| panic!("no token for {name}"));
    acts[act].pointer_mut(place).expect("it is there")[name] = value.clone();
}

/// Seconds since 1970, that many from now.
pub fn from_now(seconds: i64) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    now.checked_add_signed(seconds).expect("a time near now")
}

struct Play<'a> {
    node: &'a Gateway,
    room: String,
    user: String,
    /// Ids of clients, and the names they have in the table.
    ids: Vec<(String, &'static str)>,
    /// What the client was told unasked.
    told: Vec<Value>,
    ann: Client,
    bob: Option<Client>,
    connected: bool,
}

impl Play<'_> {
    async fn act(&mut self, act: &Value) -> Value {
        let (name, body) = act.as_object().and_then(|act| act.iter().next()).expect("one thing at a time");
        match name.as_str() {
            "api" => self.api(body).await,
            "bob" => self.bob(body).await,
            "connect" => {
                self.connected = true;
                let claims = self.claims(&self.user, body);
                self.ask(json!({"connect": {"token": token(&claims)}})).await
            }
            _ => {
                if !self.connected {
                    self.connected = true;
                    let claims = self.claims(&self.user, &json!({}));
                    self.ask(json!({"connect": {"token": token(&claims)}})).await;
                }
                let command = self.command(act, &self.user);
                self.ask(command).await
            }
        }
    }

    async fn api(&self, call: &Value) -> Value {
        let (method, body) = call.as_object().and_then(|call| call.iter().next()).expect("one call at a time");
        let mut body = self.fill(body);
        if ["publish", "history", "presence"].contains(&method.as_str()) && body["channel"].is_null() {
            body["channel"] = self.room.as_str().into();
        }
        let (status, answer) = self.node.api(method, &body).await;
        assert_eq!(status, 200, "{method}: {answer}");
        match answer["error"]["code"].as_u64() {
            Some(code) => json!({"error": code}),
            None => answer["result"].clone(),
        }
    }

    async fn bob(&mut self, command: &Value) -> Value {
        let mut bob = if let Some(bob) = self.bob.take() {
            bob
        } else {
            let mut bob = Client::open(self.node.clients).await;
            let reply = bob.ask(json!({"connect": {"token": token(&self.claims("bob", &json!({})))}})).await;
            self.ids.push((id_of(&reply), "BOB"));
            bob
        };
        let reply = bob.ask(self.command(command, "bob")).await;
        self.bob = Some(bob);
        reply
    }

    /// A command of the table as it goes out.
    fn command(&self, act: &Value, user: &str) -> Value {
        let mut command = self.fill(act);
        let (name, request) = command.as_object_mut().and_then(|one| one.iter_mut().next()).expect("a command");
        if name != "rpc" && request["channel"].is_null() {
            request["channel"] = self.room.as_str().into();
        }
        if request["token"].is_object() {
            let mut claims = self.claims(user, &request["token"]);
            if claims.get("channel").is_none() {
                claims["channel"] = request["channel"].clone();
            }
            request["token"] = token(&claims).into();
        }
        command
    }

    /// The claims of a token, which are those of every token of the table where nothing else is said.
    fn claims(&self, user: &str, own: &Value) -> Value {
        let mut claims = json!({"sub": user, "aud": "rooms", "iss": "shop"});
        for (claim, value) in self.fill(own).as_object().expect("claims") {
            claims[claim] = match value.as_str() {
                Some(text) if text.starts_with(['+', '-']) => from_now(text.parse().expect("seconds")).into(),
                Some("DEEP") => (0..200).fold(json!(1), |inner, _| json!([inner])),
                Some("129 ROOMS") => (0..129).map(|number| format!("room{number}")).collect(),
                _ => value.clone(),
            };
        }
        claims
    }

    /// Asks, and takes down what is told beside the answer.
    async fn ask(&mut self, mut command: Value) -> Value {
        command["id"] = 1.into();
        self.ann.send(&command.to_string()).await;
        loop {
            let frame = self.ann.frame().await.expect("an answer or a close");
            if frame.opcode == 8 {
                return json!({"close": client::close(&frame).0});
            }
            let mut message: Value = serde_json::from_slice(&frame.payload).expect("JSON");
            if message["id"] != 1 {
                self.told.push(message);
                continue;
            }
            if let Some(code) = message["error"]["code"].as_u64() {
                return json!({"error": code});
            }
            message.as_object_mut().expect("a reply").remove("id");
            if let Some(connect) = message.get_mut("connect").and_then(Value::as_object_mut) {
                for fixed in ["version", "ping", "pong", "node"] {
                    connect.remove(fixed);
                }
                let id = connect.remove("client").expect("an id");
                self.ids.push((id.as_str().expect("text").to_owned(), "ANN"));
            }
            return message;
        }
    }

    /// The pushes of the room up to a publication that is made now; they are in order.
    async fn told_until_now(&mut self) -> Vec<Value> {
        self.api(&json!({"publish": {"data": "mark", "tags": {"mark": "now"}}})).await;
        while self.told.last().is_none_or(|last| last["push"]["pub"]["tags"]["mark"] != "now") {
            let message = self.ann.next().await;
            self.told.push(message);
        }
        self.told.pop();
        let pushes = std::mem::take(&mut self.told).into_iter();
        let pushes = pushes.filter_map(|mut message| message.get_mut("push").map(std::mem::take));
        let own = pushes.filter(|push| push["channel"] == self.room.as_str());
        own.map(|mut push| {
            push.as_object_mut().expect("a push").remove("channel");
            push
        })
        .collect()
    }

    /// Fills in what is the row's own.
    fn fill(&self, value: &Value) -> Value {
        let text = value.to_string().replace("{room}", &self.room).replace("{user}", &self.user);
        let own = self.ids.iter().find(|(_, name)| *name == "ANN").map_or("", |(id, _)| id);
        serde_json::from_str(&text.replace("{client}", own)).expect("names need no escapes")
    }

    /// What came, with names for what differs from run to run.
    fn normal(&self, came: &Value) -> Value {
        match came {
            Value::Object(object) => {
                object.iter().map(|(key, value)| (self.name(key), self.field(key, value))).collect()
            }
            Value::Array(values) => values.iter().map(|value| self.normal(value)).collect(),
            Value::String(text) => Value::String(self.name(text)),
            other => other.clone(),
        }
    }

    fn field(&self, key: &str, value: &Value) -> Value {
        match (key, value.as_u64()) {
            ("epoch", _) => json!("E"),
            ("ttl", Some(ttl)) => json!(ttl.next_multiple_of(10)),
            _ => self.normal(value),
        }
    }

    fn name(&self, text: &str) -> String {
        let ids = self.ids.iter().fold(text.to_owned(), |text, (id, name)| text.replace(id, name));
        ids.replace(&self.room, "{room}").replace(&self.user, "{user}")
    }
}

fn id_of(reply: &Value) -> String {
    reply["connect"]["client"].as_str().unwrap_or_else(|| panic!("not connected: {reply}")).to_owned()
}
