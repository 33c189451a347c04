//! What the publishing connection says: a `PUBLISH` for what is only published, and one call of a script for all that has to
//! be numbered, kept or guarded as well. Knows no queue and hears nothing.
//!
//! A batch is a row of plain commands and, from the first publication on that needs the script, one call for all the rest.
//! So either the whole rest takes effect, in its order, or, where Redis has forgotten the script, none of it, and it is
//! written again before anything later. It also costs a third of what a call for each would, and several publications of one
//! room are as one there. A script sees the keys of one slot alone, so that on a cluster each slot of a batch has a row and a
//! call of its own.

use std::time::Duration;

use bytes::BufMut;
use prometheus::{Histogram, IntCounter};
use rand::Rng as _;
use redis::{Cmd, RedisWrite, Value};
use roomcast_shared::position::Epoch;

use super::{
    BrokerError, envelope,
    link::{Link, Lost},
    pack::{Piece, Plan, Step},
    queue::{Call, Outcome},
    redirect::{self, Verdict},
    script::{self, Row},
    writer::Purpose,
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

    /// The rest of the envelope.
    fn rest(&self) -> &[u8] {
        script::words(&self.words).nth(self.keys + 1).unwrap_or_default()
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

    /// What decides on what it goes together with.
    fn piece(&self) -> Piece<'_> {
        let (words, channel) = match self {
            Self::Plain(plain) => (plain, 1),
            Self::Append(item) => (&item.words, item.keys),
        };
        let channel = script::words(words).nth(channel).unwrap_or_default();
        match self {
            Self::Append(item) if !item.guarded => {
                Piece { channel, keep: item.keep, bytes: envelope::packed_len(item.rest().len()) }
            }
            _ => Piece { channel, keep: None, bytes: 0 },
        }
    }
}

fn seconds(time: Duration) -> u64 {
    time.as_secs()
}

/// The call of the script that takes these steps, and publishes with that command.
fn script_call(batch: &[Call<Publish, Appended>], plan: &Plan, verb: &str) -> Cmd {
    let first = |step: &Step| &batch[step[0]].request;
    let items = || {
        plan.steps().iter().filter_map(|step| if let Publish::Append(item) = first(step) { Some(item) } else { None })
    };
    let mut command = script::APPEND.call_with(items().map(|item| item.keys).sum());
    for key in items().flat_map(Item::keys) {
        command.arg(key);
    }
    command.arg(Epoch::from_random(rand::rng().random()).as_str()).arg(seconds(VERSION_TTL)).arg(verb);
    let (mut rest, mut keep) = (plan.steps(), None);
    while let Some(step) = rest.first() {
        let (letter, wanted) = (first(step).letter(), first(step).keep());
        if let Some(wanted) = wanted.filter(|wanted| keep != Some(*wanted)) {
            keep = Some(wanted);
            command.arg("K").arg(wanted.size).arg(seconds(wanted.ttl)).arg(seconds(wanted.meta_ttl));
        }
        let alike = |step: &&Step| letter != "X" && first(step).letter() == letter && first(step).keep() == wanted;
        let (run, after) = rest.split_at(rest.iter().take_while(alike).count().max(1));
        command.arg(letter);
        match letter {
            "P" => drop(command.arg(run.len())),
            "H" => put_counts(&mut command, run),
            _ => {}
        }
        for step in run {
            put_arguments(&mut command, batch, step);
        }
        rest = after;
    }
    command
}

/// How many publications each step has, one byte for each.
fn put_counts(command: &mut Cmd, run: &[Step]) {
    let mut counts = command.bufmut_for_next_arg(run.len());
    for step in run {
        counts.put_u8(u8::try_from(step.len()).unwrap_or(u8::MAX));
    }
}

fn put_arguments(command: &mut Cmd, batch: &[Call<Publish, Appended>], step: &Step) {
    let (words, skipped) = match &batch[step[0]].request {
        Publish::Plain(plain) => (plain, 1),
        Publish::Append(item) => (&item.words, item.keys),
    };
    let several = step.len() > 1;
    for word in script::words(words).skip(skipped).take(if several { 1 } else { usize::MAX }) {
        command.arg(word);
    }
    if several {
        let pieces = || step.iter().map(|number| &batch[*number].request);
        let mut pack = command.bufmut_for_next_arg(pieces().map(|request| request.piece().bytes).sum());
        for request in pieces() {
            let Publish::Append(item) = request else { continue };
            envelope::pack(item.rest(), &mut pack);
        }
    }
}

/// What the script says of each publication of its steps.
fn verdicts(answer: Value, plan: &Plan) -> Vec<Verdict<Appended>> {
    match redirect::verdict(answer) {
        Verdict::Done(Ok(Value::Array(values))) if values.len() == plan.steps().len() => {
            let outcomes: Vec<_> = values.into_iter().map(outcome).collect();
            plan.seats().map(|(step, behind)| Verdict::Done(before(outcomes[step].clone(), behind))).collect()
        }
        Verdict::Done(Ok(_)) => vec![Verdict::Done(Err(odd())); plan.len()],
        all => vec![all.map(|_| Err(odd())); plan.len()],
    }
}

/// What became of a publication of a pack on which so many follow there, of which the last one became this.
fn before(last: Outcome<Appended>, behind: usize) -> Outcome<Appended> {
    let mut appended = last?;
    if let Some(position) = &mut appended.position {
        position.offset = position.offset.checked_sub(behind as u64).ok_or_else(odd)?;
    }
    Ok(appended)
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
    verb: &'static str,
    gathering_pause: Duration,
    /// Counts what was published at this link.
    here: IntCounter,
    publish: Histogram,
    append: Histogram,
    ok: IntCounter,
    error: IntCounter,
}

impl Publishing {
    /// With the command that publishes, which is the one of the channels that are heard.
    pub(super) fn new(metrics: &Metrics, verb: &'static str, gathering_pause: Duration, here: IntCounter) -> Self {
        Self {
            verb,
            gathering_pause,
            here,
            publish: metrics.broker_latency.with_label_values(&["publish"]),
            append: metrics.broker_latency.with_label_values(&["append"]),
            ok: metrics.broker_published.with_label_values(&["ok"]),
            error: metrics.broker_published.with_label_values(&["error"]),
        }
    }
}

/// What becomes of a batch of which each group had so many commands, and these publications in its call of the script.
fn judge(answers: Vec<Value>, shares: Vec<(usize, Plan)>) -> Vec<Verdict<Appended>> {
    let published = Appended { position: None, fresh: true };
    let mut answers = answers.into_iter();
    let mut all = Vec::new();
    for (plain, plan) in shares {
        all.extend(answers.by_ref().take(plain).map(|answer| redirect::verdict(answer).map(|_| Ok(published))));
        if plan.len() > 0 {
            all.extend(answers.next().map(|answer| verdicts(answer, &plan)).unwrap_or_default());
        }
    }
    all
}

/// Gives the commands back that have to be written again elsewhere; what goes into a call of the script was only copied.
fn restore(row: &Row, batch: &mut [Call<Publish, Appended>], verdicts: &[Verdict<Appended>]) {
    let mut number = 0;
    let mut calls = batch.iter_mut().zip(verdicts).peekable();
    while let Some((call, verdict)) = calls.next() {
        let Publish::Plain(command) = &mut call.request else {
            number += 1;
            let group = call.group;
            while calls.next_if(|(call, _)| call.group == group).is_some() {}
            continue;
        };
        if let (Verdict::Elsewhere(..), Some(written)) = (verdict, row.command(number)) {
            *command = written;
        }
        number += 1;
    }
}

impl Purpose for Publishing {
    type Request = Publish;
    type Reply = Appended;
    const WORD: &'static str = "publish";

    fn gathering_pause(&self) -> Duration {
        self.gathering_pause
    }

    async fn exchange(
        &self,
        link: &mut Link,
        batch: &mut [Call<Publish, Appended>],
    ) -> Result<Vec<Verdict<Appended>>, Lost> {
        let mut row = Row::with_capacity(batch.len());
        let mut shares = Vec::new();
        for group in batch.chunk_by_mut(|one, other| one.group == other.group) {
            let plain = group.iter().take_while(|call| matches!(call.request, Publish::Plain(_))).count();
            let (plain, scripted) = group.split_at_mut(plain);
            for call in &mut *plain {
                let Publish::Plain(command) = &mut call.request else { continue };
                row.add(command.take(), call.asking);
            }
            let steps = Plan::of(scripted.iter().map(|call| call.request.piece()));
            if let Some(first) = scripted.first() {
                row.add(script_call(scripted, &steps, self.verb), first.asking);
            }
            shares.push((plain.len(), steps));
        }
        let answers = script::exchange(link, &row).await?;
        let verdicts = judge(answers, shares);
        if verdicts.iter().any(|verdict| matches!(verdict, Verdict::Elsewhere(..))) {
            restore(&row, batch, &verdicts);
        }
        Ok(verdicts)
    }

    fn note(&self, request: &Publish, took: Duration, ok: bool) {
        let latency = if matches!(request, Publish::Plain(_)) { &self.publish } else { &self.append };
        latency.observe(took.as_secs_f64());
        if ok { &self.ok } else { &self.error }.inc();
        self.here.inc_by(ok.into());
    }
}
