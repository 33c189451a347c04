//! What the publishing connection says: a `PUBLISH` for what is only published, and one call of a script for all that has to
//! be numbered, kept or guarded as well. Knows no queue and hears nothing.
//!
//! A batch is a row of plain commands and, from the first publication on that needs the script, one call for all the rest.
//! So either the whole rest takes effect, in its order, or, where Redis has forgotten the script, none of it, and it is
//! written again before anything later. It also costs a third of what a call for each would. On a cluster of Redis the rest
//! would have to be parted by slot.

use std::time::Duration;

use bytes::BufMut;
use prometheus::{Histogram, IntCounter};
use rand::Rng as _;
use redis::{Cmd, Pipeline, RedisWrite, Value};
use roomcast_shared::position::Epoch;

use super::{
    BrokerError, envelope,
    link::{Link, Lost},
    queue::{Call, Outcome},
    script,
    writer::{self, Purpose},
};
use crate::{
    broker::{Append, Appended, Keep, history::VERSION_TTL},
    metrics::Metrics,
};

/// A publication on its way.
pub(super) enum Publish {
    /// A `PUBLISH` as it stands.
    Plain(Cmd),
    /// Something for the script.
    Append(Item),
}

/// A publication for the script.
pub(super) struct Item {
    /// Keys and arguments, in this order, without a command.
    words: Cmd,
    /// How many of them are keys.
    keys: usize,
    keep: Option<Keep>,
    /// Whether it has a result or a version.
    guarded: bool,
}

/// The names in Redis that an [`Item`] is about.
pub(super) struct Names {
    /// What is known of the room's history: epoch, settings, version.
    pub(super) meta: String,
    /// The offset reached.
    pub(super) top: String,
    /// The publications.
    pub(super) stream: String,
    /// What became of the publication with this idempotency key, and how long that is remembered.
    pub(super) result: Option<(String, Duration)>,
    /// Where it is published.
    pub(super) channel: String,
}

impl Item {
    /// A publication whose envelope has this rest.
    pub(super) fn new(names: &Names, append: &Append, rest_len: usize, rest: impl FnOnce(&mut dyn BufMut)) -> Self {
        let Names { meta, top, stream, result, channel } = names;
        let mut words = Cmd::with_capacity(10, meta.len() * 4 + rest_len);
        words.arg(meta).arg(top).arg(stream);
        if let Some((result, _)) = result {
            words.arg(result);
        }
        words.arg(channel);
        rest(&mut words.bufmut_for_next_arg(rest_len));
        let guarded = result.is_some() || append.version > 0 || append.keep.is_none();
        if guarded {
            words.arg(u8::from(append.keep.is_some()));
            words.arg(result.as_ref().map(|(_, ttl)| seconds(*ttl).max(1).to_string()).unwrap_or_default());
            let version = if append.version > 0 { format!("{:020}", append.version) } else { String::new() };
            words.arg(version).arg(&append.version_epoch);
        }
        Self { words, keys: 3 + usize::from(result.is_some()), keep: append.keep, guarded }
    }

    fn keys(&self) -> impl Iterator<Item = &[u8]> {
        script::words(&self.words).take(self.keys)
    }
}

impl Publish {
    /// What the script calls it.
    fn letter(&self) -> &'static str {
        match self {
            Self::Plain(_) => "P",
            Self::Append(item) if item.guarded => "X",
            Self::Append(_) => "H",
        }
    }

    fn keep(&self) -> Option<Keep> {
        if let Self::Append(item) = self { item.keep } else { None }
    }
}

fn seconds(time: Duration) -> u64 {
    time.as_secs()
}

/// The call of the script that does all this in order.
fn script_call(batch: &[Call<Publish, Appended>]) -> Cmd {
    let items =
        || batch.iter().filter_map(|call| if let Publish::Append(item) = &call.request { Some(item) } else { None });
    let mut command = script::APPEND.call_with(items().map(|item| item.keys).sum());
    for key in items().flat_map(Item::keys) {
        command.arg(key);
    }
    command.arg(Epoch::from_random(rand::rng().random()).as_str()).arg(seconds(VERSION_TTL));
    let (mut rest, mut keep) = (batch, None);
    while let Some(first) = rest.first() {
        let (letter, wanted) = (first.request.letter(), first.request.keep());
        if let Some(wanted) = wanted.filter(|wanted| keep != Some(*wanted)) {
            keep = Some(wanted);
            command.arg("K").arg(wanted.size).arg(seconds(wanted.ttl)).arg(seconds(wanted.meta_ttl));
        }
        let alike = |call: &&Call<Publish, Appended>| {
            letter != "X" && call.request.letter() == letter && call.request.keep() == wanted
        };
        let count = rest.iter().take_while(alike).count().max(1);
        command.arg(letter);
        if letter != "X" {
            command.arg(count);
        }
        let (run, after) = rest.split_at(count);
        for call in run {
            put_arguments(&mut command, &call.request);
        }
        rest = after;
    }
    command
}

fn put_arguments(command: &mut Cmd, publish: &Publish) {
    let (words, skipped) = match publish {
        Publish::Plain(plain) => (plain, 1),
        Publish::Append(item) => (&item.words, item.keys),
    };
    for word in script::words(words).skip(skipped) {
        command.arg(word);
    }
}

/// What the script says of each of so many.
fn outcomes(answer: Value, count: usize) -> Vec<Outcome<Appended>> {
    let values = match writer::outcome(answer) {
        Ok(Value::Array(values)) if values.len() == count => values,
        Ok(_) => return vec![Err(odd()); count],
        Err(error) => return vec![Err(error); count],
    };
    values.into_iter().map(outcome).collect()
}

fn outcome(answer: Value) -> Outcome<Appended> {
    let Value::BulkString(answer) = answer else { return Err(odd()) };
    let (fresh, place) = match answer.split_first() {
        Some((b'F', place)) => (true, place),
        Some((b'O', place)) => (false, place),
        Some((b'E', reason)) => return Err(BrokerError::Refused(String::from_utf8_lossy(reason).into_owned())),
        _ => return Err(odd()),
    };
    let position = match place {
        [] => None,
        place => Some(envelope::decode_place(place).ok_or_else(odd)?),
    };
    Ok(Appended { position, fresh })
}

fn odd() -> BrokerError {
    BrokerError::Refused("the script answered what is not understood".to_owned())
}

/// What the connection that publishes is for.
pub(super) struct Publishing {
    publish: Histogram,
    append: Histogram,
    ok: IntCounter,
    error: IntCounter,
}

impl Publishing {
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self {
            publish: metrics.broker_latency.with_label_values(&["publish"]),
            append: metrics.broker_latency.with_label_values(&["append"]),
            ok: metrics.broker_published.with_label_values(&["ok"]),
            error: metrics.broker_published.with_label_values(&["error"]),
        }
    }
}

impl Purpose for Publishing {
    type Request = Publish;
    type Reply = Appended;
    const WORD: &'static str = "publish";

    async fn exchange(
        &self,
        link: &mut Link,
        batch: &mut [Call<Publish, Appended>],
    ) -> Result<Vec<Outcome<Appended>>, Lost> {
        let mut pipeline = Pipeline::with_capacity(batch.len());
        let mut plain = 0;
        for call in &mut *batch {
            let Publish::Plain(command) = &mut call.request else { break };
            pipeline.add_command(command.take());
            plain += 1;
        }
        let scripted = batch.len() - plain;
        if scripted > 0 {
            pipeline.add_command(script_call(&batch[plain..]));
        }
        let mut answers = script::exchange(link, &pipeline).await?;
        let rest = if scripted > 0 { answers.pop() } else { None };
        let published = Appended { position: None, fresh: true };
        let mut all: Vec<_> = answers.into_iter().map(|answer| writer::outcome(answer).map(|_| published)).collect();
        all.extend(rest.map(|answer| outcomes(answer, scripted)).unwrap_or_default());
        Ok(all)
    }

    fn note(&self, request: &Publish, took: Duration, ok: bool) {
        let latency = if matches!(request, Publish::Plain(_)) { &self.publish } else { &self.append };
        latency.observe(took.as_secs_f64());
        if ok { &self.ok } else { &self.error }.inc();
    }
}
