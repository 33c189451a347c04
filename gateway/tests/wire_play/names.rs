//! What differs from run to run, and what stands for it in a recording: ids of clients, epochs, rooms and tokens.

use std::{
    collections::HashMap,
    time::{SystemTime, UNIX_EPOCH},
};

use jsonwebtoken::{EncodingKey, Header};

use super::connection::Seen;
use crate::common::Value;

/// Secret of the server the conversations were recorded from.
const SECRET: &str = "a-secret-for-recorded-conversations-0123456789";

/// The names given in one conversation.
pub struct Names {
    /// What `{r}` stands for.
    suffix: String,
    clients: HashMap<String, String>,
    epochs: HashMap<String, String>,
}

impl Names {
    /// None yet, in the rooms of this suffix.
    pub fn new(suffix: String) -> Self {
        Self { suffix, clients: HashMap::new(), epochs: HashMap::new() }
    }

    /// Fills in what the recording leaves open.
    pub fn fill(&self, value: &Value) -> Value {
        match value {
            Value::Object(object) => match object.get("$token") {
                Some(claims) => Value::String(sign(self.fill(claims))),
                None => object.iter().map(|(key, value)| (self.fill_text(key), self.fill(value))).collect(),
            },
            Value::Array(values) => values.iter().map(|value| self.fill(value)).collect(),
            Value::String(text) => Value::String(self.fill_text(text)),
            other => other.clone(),
        }
    }

    fn fill_text(&self, text: &str) -> String {
        let ids = self.clients.iter().map(|(id, name)| (format!("{{client:{name}}}"), id));
        let epochs = self.epochs.iter().map(|(epoch, name)| (format!("{{epoch:{name}}}"), epoch));
        let text = text.replace("{r}", &self.suffix);
        ids.chain(epochs).fold(text, |text, (name, value)| text.replace(&name, value))
    }

    /// Learns which connection was given which id.
    pub fn learn(&mut self, connection: &str, seen: &Seen) {
        for reply in seen.replies.values().chain(&seen.pushes) {
            if let Some(id) = reply["connect"]["client"].as_str() {
                self.clients.insert(id.to_owned(), connection.to_owned());
            }
        }
    }

    /// Puts names in the place of what differs from run to run, and leaves out what no recording has.
    pub fn put_in(&mut self, value: &Value) -> Value {
        match value {
            Value::Object(object) => {
                let publication = object.contains_key("data") && object.contains_key("offset");
                let kept = object.iter().filter(|(key, _)| {
                    let passed_over = ["version", "node", "session", "time", "uptime"].contains(&key.as_str());
                    !passed_over && (!publication || *key != "epoch")
                });
                kept.map(|(key, value)| (self.name_of(key), self.field(key, value))).collect()
            }
            Value::Array(values) => values.iter().map(|value| self.put_in(value)).collect(),
            Value::String(text) => Value::String(self.name_of(text)),
            other => other.clone(),
        }
    }

    fn field(&mut self, key: &str, value: &Value) -> Value {
        match (key, value) {
            ("ttl", Value::Number(ttl)) => {
                let ttl = ttl.as_u64().expect("a time to live is whole");
                Value::String(format!("about {}", (ttl + 2) / 5 * 5))
            }
            ("epoch", Value::String(epoch)) if !epoch.is_empty() => {
                let next = (self.epochs.len() + 1).to_string();
                Value::String(format!("<epoch:{}>", self.epochs.entry(epoch.clone()).or_insert(next)))
            }
            _ => self.put_in(value),
        }
    }

    fn name_of(&self, text: &str) -> String {
        match self.clients.get(text) {
            Some(name) => format!("<client:{name}>"),
            None => text.replace(&self.suffix, "{r}"),
        }
    }
}

/// A token of these claims, `$key` being the secret it is signed with.
fn sign(mut claims: Value) -> String {
    let object = claims.as_object_mut().expect("claims are an object");
    let secret = object.remove("$key").unwrap_or(SECRET.into());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    for key in ["exp", "nbf", "iat", "expire_at"] {
        if let Some(Value::String(offset)) = object.get(key) {
            let offset: i64 = offset.parse().expect("seconds from now");
            let time = now.checked_add_signed(offset).expect("a time near now");
            object.insert(key.to_owned(), time.into());
        }
    }
    let key = EncodingKey::from_secret(secret.as_str().expect("a secret is text").as_bytes());
    jsonwebtoken::encode(&Header::default(), &claims, &key).expect("claims can be signed")
}
