//! Server-side subscriptions by room: a map in JSON and in Protobuf alike. Knows nothing of what stands in them.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serializer};

use super::SubscribeResult;

/// An entry of the map. In Protobuf it has its value also where that is empty, as an encoder of maps would not write it:
/// the official SDK for JavaScript fails on an entry without one.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RoomResult {
    /// The room.
    #[prost(string, tag = "1")]
    pub room: String,
    /// What subscribing to it came to.
    #[prost(message, required, tag = "2")]
    pub result: SubscribeResult,
}

pub(super) fn serialize<S: Serializer>(rooms: &[RoomResult], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(rooms.iter().map(|RoomResult { room, result }| (room, result)))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<RoomResult>, D::Error> {
    let rooms = BTreeMap::deserialize(deserializer)?;
    Ok(rooms.into_iter().map(|(room, result)| RoomResult { room, result }).collect())
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::super::{ConnectPush, ConnectResult};
    use super::*;

    #[test]
    fn a_room_without_anything_to_say_has_its_value_in_protobuf() {
        let subs = vec![RoomResult { room: "a".to_owned(), result: SubscribeResult::default() }];
        let entry = [5, 0x0a, 1, b'a', 0x12, 0];
        let result = ConnectResult { subs: subs.clone(), ..ConnectResult::default() };
        assert_eq!(result.encode_to_vec(), [&[0x32][..], &entry].concat());
        let push = ConnectPush { subs, ..ConnectPush::default() };
        assert_eq!(push.encode_to_vec(), [&[0x22][..], &entry].concat());
    }

    #[test]
    fn rooms_are_a_map_in_both_encodings() {
        let room = |name: &str, offset| RoomResult {
            room: name.to_owned(),
            result: SubscribeResult { offset, ..SubscribeResult::default() },
        };
        let result = ConnectResult { subs: vec![room("a", 0), room("b", 7)], ..ConnectResult::default() };
        let text = serde_json::to_string(&result).unwrap();
        assert_eq!(text, r#"{"client":"","subs":{"a":{},"b":{"offset":7}}}"#);
        assert_eq!(serde_json::from_str::<ConnectResult>(&text).unwrap(), result);
        assert_eq!(ConnectResult::decode(&*result.encode_to_vec()).unwrap(), result);
    }
}
