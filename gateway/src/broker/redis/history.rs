//! What rooms remember, in Redis: of each a stream of publications, the offset reached, and a short text with the rest that
//! is known of it. Knows no connection; what is written goes through the queue of publishes, so that it keeps its order
//! among them, and what is read through that of commands.

use std::time::SystemTime;

use bytes::Bytes;
use prometheus::IntCounter;
use rand::Rng as _;
use redis::Value;
use roomcast_shared::{
    event::{Event, Said},
    position::{Epoch, Position},
    publication::Publication,
};
use smallvec::smallvec;
use tracing::{debug, warn};

use super::{
    Answer, BrokerError, RedisBroker,
    commands::Operation,
    envelope::{self, Envelopes},
    pack,
    publish::{Item, Names, Publish},
    queue::{self, Size},
    script,
};
use crate::broker::{Append, Appended, History, Page, Slice};

/// What is reckoned for a publication in an answer, so that one pipeline does not ask for more than can be held. The first
/// and the last one may bring whole packs.
const ENTRY: usize = 512;

impl RedisBroker {
    fn names(&self, room: &str, append: &Append) -> Names {
        Names {
            meta: self.keys().meta(room),
            top: self.keys().top(room),
            stream: self.keys().stream(room),
            result: append.idempotency.as_ref().map(|(key, ttl)| (self.keys().result(room, key), *ttl)),
            channel: self.keys().channel(room),
        }
    }
}

impl History for RedisBroker {
    fn append(&self, room: &str, mut said: Said, append: &Append) -> Answer<Appended> {
        if append.keep.is_none() && append.idempotency.is_none() && append.version == 0 {
            return queue::answer(self.plain(room, &said.into()), Ok);
        }
        said.publication.offset = 0;
        let length = envelope::rest_len(&said);
        let names = self.names(room, append);
        let bytes = length + names.meta.len() * 4;
        let item = Item::new(&names, append, length, |out| envelope::encode_rest(&said, SystemTime::now(), out));
        queue::answer(self.push(room, Publish::Append(item), Size { bytes, answer: 0 }), Ok)
    }

    fn read(&self, room: &str, page: &Page) -> Answer<Slice> {
        let keys = [self.keys().meta(room), self.keys().top(room), self.keys().stream(room)];
        let mut command = script::READ.call(&keys.each_ref().map(String::as_str));
        command.arg(Epoch::from_random(rand::rng().random()).as_str()).arg(page.meta_ttl.as_secs()).arg(page.limit);
        command.arg(page.since.map(|since| since.to_string()).unwrap_or_default()).arg(u8::from(page.reverse));
        let packs = pack::MAX_BYTES * page.limit.min(2) as usize;
        let answer = ENTRY.saturating_mul(page.limit as usize).saturating_add(packs);
        let malformed = self.malformed.clone();
        let made = self.commands.push_long(self.parts.routes.group(room), Operation::History, command, answer);
        let (limit, reverse) = (page.limit as usize, page.reverse);
        queue::answer(made, move |value| slice(value, limit, reverse).ok_or_else(|| corrupt(&malformed)))
    }

    fn forget(&self, room: &str) -> Answer<()> {
        let mut command = redis::cmd("UNLINK");
        command.arg(self.keys().stream(room));
        queue::answer(self.commands.push(self.parts.routes.group(room), Operation::History, command), |_| Ok(()))
    }
}

fn corrupt(malformed: &IntCounter) -> BrokerError {
    if malformed.get() == 0 {
        warn!(
            "a history in Redis is not understood: does another system use this prefix? Later ones are told at debug"
        );
    } else {
        debug!("a history in Redis is not understood");
    }
    malformed.inc();
    BrokerError::Refused("the history is not understood".to_owned())
}

/// What the script answers: the place reached, entries, and the first and the last offset of what was asked for, to which the
/// first and the last entry may have neighbours.
fn slice(value: Value, limit: usize, reverse: bool) -> Option<Slice> {
    let Value::Array(parts) = value else { return None };
    let [Value::BulkString(place), Value::Array(entries), Value::Int(first), Value::Int(last)] =
        <[Value; 4]>::try_from(parts).ok()?
    else {
        return None;
    };
    let (top, wanted) = (envelope::decode_place(&place)?, u64::try_from(first).ok()?..=u64::try_from(last).ok()?);
    let mut publications = Vec::with_capacity(entries.len());
    for entry in entries {
        let mut envelopes = envelopes(entry, top.epoch)?;
        if reverse {
            envelopes.reverse();
        }
        let said = envelopes.into_iter().map(|envelope| publication(envelope.event)).collect::<Option<Vec<_>>>()?;
        publications.extend(said.into_iter().filter(|publication| wanted.contains(&publication.offset)));
    }
    publications.truncate(limit);
    Some(Slice { publications, top })
}

/// One entry of a stream: its id, which is the offset of its last publication and a zero, and one field, which is either `d`
/// with the rest of an envelope, or the number of publications with a pack of them.
fn envelopes(entry: Value, epoch: Epoch) -> Option<Envelopes> {
    let Value::Array(parts) = entry else { return None };
    let [Value::BulkString(id), Value::Array(fields)] = <[Value; 2]>::try_from(parts).ok()? else { return None };
    let [Value::BulkString(name), Value::BulkString(value)] = <[Value; 2]>::try_from(fields).ok()? else { return None };
    let offset = std::str::from_utf8(id.strip_suffix(b"-0")?).ok()?.parse().ok()?;
    let (last, value) = (Position::new(offset, epoch), Bytes::from(value));
    if name == b"d" {
        return envelope::decode_rest(value, Some(last)).ok().map(|envelope| smallvec![envelope]);
    }
    let count: usize = std::str::from_utf8(&name).ok()?.parse().ok()?;
    envelope::unpack(value, last).ok().filter(|envelopes| envelopes.len() == count)
}

fn publication(event: Event) -> Option<Publication> {
    if let Event::Publication(said) = event { Some(said.publication) } else { None }
}
