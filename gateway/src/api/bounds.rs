//! What the types of requests do not say of themselves, for the description of the API: how long texts may be, how large numbers
//! are, and which of several fields has to be there. Knows no calls.

use roomcast_shared::protocol::code::Disconnect;
use serde_json::{Map, Value, json};

/// Base64 as it is read: with padding.
const BASE64: &str = "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$";

/// Longest name of a room where the settings say nothing else.
const LONGEST_NAME: u32 = 255;

/// Adds it to the schemas.
pub(super) fn add(schemas: &mut Map<String, Value>) {
    for (name, schema) in schemas.iter_mut() {
        each_object(schema, &mut |object| bound_numbers(object));
        // Whose names are looked for, not named: any text will do.
        if name.ends_with("Request") && name != "ConnectionsRequest" {
            each_object(schema, &mut |object| bound_texts(object));
        }
    }
    let said = |fields: &[&str]| {
        let one = |field: &&str| json!({"required": [field], "properties": {*field: {"minLength": 1}}});
        fields.iter().map(one).collect::<Vec<_>>()
    };
    // The empty user is one as well: connections without a user.
    let user = json!({"required": ["user"], "properties": {"user": {"type": "string"}}});
    one_of_these(schemas, "Whom", [vec![user], said(&["client", "session"])].concat());
    one_of_these(schemas, "RevokeTokenRequest", said(&["jti", "uid", "user"]));
    for name in ["PublishRequest", "BroadcastRequest"] {
        one_of_these(schemas, name, [vec![json!({"required": ["data"]})], said(&["b64data"])].concat());
    }
    set(schemas, "/BroadcastRequest/properties/channels/minItems", json!(1));
    set(schemas, "/DisconnectCode/properties/code", codes());
    if let Some(invalidate) = schemas.get_mut("InvalidateUserTokensRequest") {
        each_object(invalidate, &mut |object| {
            if let Some(room) = object.get_mut("properties").and_then(|all| all.get_mut("channel")) {
                room["maxLength"] = json!(0);
            }
        });
    }
}

/// Calls `work` for a schema and those it is put together from.
fn each_object(schema: &mut Value, work: &mut impl FnMut(&mut Map<String, Value>)) {
    let Some(object) = schema.as_object_mut() else { return };
    work(object);
    for part in object.get_mut("allOf").and_then(Value::as_array_mut).into_iter().flatten() {
        each_object(part, work);
    }
}

fn bound_numbers(object: &mut Map<String, Value>) {
    for (_, field) in object.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten() {
        let whole = match &field["type"] {
            Value::Array(kinds) => kinds.contains(&json!("integer")),
            kind => kind == "integer",
        };
        if !whole {
            continue;
        }
        let unsigned = field["minimum"] == 0;
        let (format, least, most) = match (field["format"].as_str(), unsigned) {
            (Some("int32"), true) => ("uint32", json!(0), json!(u32::MAX)),
            (Some("int32"), false) => ("int32", json!(i32::MIN), json!(i32::MAX)),
            (_, true) => ("uint64", json!(0), json!(u64::MAX)),
            (_, false) => ("int64", json!(i64::MIN), json!(i64::MAX)),
        };
        field["format"] = json!(format);
        field["minimum"] = least;
        field["maximum"] = most;
    }
}

fn bound_texts(object: &mut Map<String, Value>) {
    let required = object.get("required").cloned().unwrap_or_default();
    let required = |name: &str| required.as_array().is_some_and(|all| all.iter().any(|one| one == name));
    for (name, field) in object.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten() {
        if field["type"] != "string" {
            continue;
        }
        if required(name) {
            field["minLength"] = json!(1);
        }
        if name == "channel" {
            field["maxLength"] = json!(LONGEST_NAME);
            field["pattern"] = json!("^[\\x00-\\x7F]*$");
        }
        if field["contentEncoding"] == "base64" {
            field["pattern"] = json!(BASE64);
        }
    }
}

fn one_of_these(schemas: &mut Map<String, Value>, name: &str, these: Vec<Value>) {
    if let Some(schema) = schemas.get_mut(name) {
        schema["anyOf"] = Value::Array(these);
    }
}

fn set(schemas: &mut Map<String, Value>, pointer: &str, value: Value) {
    let (name, rest) = pointer[1..].split_once('/').unwrap_or((&pointer[1..], ""));
    let (parent, last) = rest.rsplit_once('/').unwrap_or(("", rest));
    let parent = if parent.is_empty() { String::new() } else { format!("/{parent}") };
    if let Some(place) = schemas.get_mut(name).and_then(|schema| schema.pointer_mut(&parent)) {
        place[last] = value;
    }
}

/// The codes that a client may be closed with.
fn codes() -> Value {
    let known: Vec<_> = [0].into_iter().chain(Disconnect::ALL.iter().map(|known| known.code)).collect();
    json!({
        "type": "integer",
        "description": "One of the protocol, or one of your own from 4000 to 4499 (clients come back) or to 4999 (they stay \
            away); absent or 0 for 3503.",
        "anyOf": [{"enum": known}, {"minimum": 4000, "maximum": 4999}],
    })
}
