//! Reading JSON as the clients of this protocol write it: `null` stands for an absent field, and a message is an object.
//! Knows serde, and no single command.

use std::collections::HashMap;

use serde::{Deserialize, Deserializer, de::Visitor, forward_to_deserialize_any};

/// A value that must be a JSON object: serde alone would also fill a struct from an array, by position.
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(OnlyMap(deserializer)).map(Object)
    }
}

/// Takes `null` for the default of a text, number, flag, list or map.
pub fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Takes `null` for an absent message.
pub fn object<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::<Object<T>>::deserialize(deserializer)?.map(|Object(message)| message))
}

/// A list of messages.
pub fn objects<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let messages = Option::<Vec<Object<T>>>::deserialize(deserializer)?.unwrap_or_default();
    Ok(messages.into_iter().map(|Object(message)| message).collect())
}

/// Messages by name.
pub fn objects_by_name<'de, D, T>(deserializer: D) -> Result<HashMap<String, T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let messages = Option::<HashMap<String, Object<T>>>::deserialize(deserializer)?.unwrap_or_default();
    Ok(messages.into_iter().map(|(name, Object(message))| (name, message)).collect())
}

/// A deserializer that gives out a map, whatever it is asked for.
struct OnlyMap<D>(D);

impl<'de, D: Deserializer<'de>> Deserializer<'de> for OnlyMap<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_map(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}
