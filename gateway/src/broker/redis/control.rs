//! What nodes say to each other over Redis, on channels beside those of the rooms, and the facts they keep there. Knows no
//! commands: what is said is bytes here.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use redis::{Cmd, Value, cmd};
use tracing::{debug, warn};

use super::{
    BrokerError, RedisBroker,
    commands::{Commands, Operation},
    presence::{milliseconds, read},
    queue::{Answered, answer},
    resp::Message,
    routes::Group,
    script::Script,
};
use crate::broker::{Answer, Control, Ear};

macro_rules! script {
    ($file:literal) => {
        Script::new(concat!(include_str!("lua/facts.lua"), include_str!($file)))
    };
}

pub(super) static KEEP: Script = script!("lua/facts_keep.lua");
pub(super) static FORGET: Script = script!("lua/facts_forget.lua");
pub(super) static KEPT: Script = script!("lua/facts_kept.lua");

/// About how many bytes a part of the facts has.
const PART: usize = 128 << 10;

/// A fact: its name, what it says, and the time it has left.
type Fact = (String, Bytes, Duration);

/// Who takes what nodes say to each other, once it is known.
#[derive(Default)]
pub(super) struct Listening {
    listener: OnceLock<Listener>,
    /// That the server refuses the channels was said.
    refused: AtomicBool,
}

struct Listener {
    channels: [String; 2],
    ear: Arc<dyn Ear>,
}

impl Listening {
    /// The channels to hear, once somebody listens.
    pub(super) fn channels(&self) -> Option<[&[u8]; 2]> {
        self.listener.get().map(|listener| listener.channels.each_ref().map(String::as_bytes))
    }

    /// Hands on a message of one of these channels; whether it was one.
    pub(super) fn hear(&self, message: &Message) -> bool {
        let Some(listener) = self.listener.get() else { return false };
        let own = listener.channels.iter().any(|channel| channel.as_bytes() == message.channel());
        if own {
            listener.ear.hear(message.payload());
        }
        own
    }

    /// The channels are heard from here on.
    pub(super) fn connected(&self) {
        self.refused.store(false, Ordering::Relaxed);
        if let Some(listener) = self.listener.get() {
            listener.ear.connected();
        }
    }

    /// The server lets this node not hear the channels. Its rooms are heard all the same.
    pub(super) fn refused(&self, reason: &str) {
        if self.refused.swap(true, Ordering::Relaxed) {
            debug!(reason, "Redis refuses the channels of the nodes");
        } else {
            warn!(reason, "Redis refuses the channels of the nodes: this one hears no command of the others");
        }
    }
}

impl RedisBroker {
    /// Makes a command about what nodes have in common; all of these are done in order.
    fn push_control(&self, command: Cmd) -> Answered<Value> {
        self.commands.push(self.parts.routes.control(), Operation::Control, command)
    }

    fn say(&self, channel: String, message: &[u8]) -> Answered<Value> {
        let mut command = cmd(self.parts.publish_verb());
        command.arg(channel).arg(message);
        self.push_control(command)
    }

    fn facts_call(&self, script: &Script) -> Cmd {
        let keys = self.keys().facts();
        script.call(&keys.each_ref().map(String::as_str))
    }
}

impl Control for RedisBroker {
    fn listen(&self, node: &str, ear: Arc<dyn Ear>) {
        let channels = [self.keys().control(), self.keys().node(node)];
        if self.parts.control.listener.set(Listener { channels, ear }).is_err() {
            warn!("a second listener is not taken");
        }
        self.rooms().wake_all();
    }

    fn tell(&self, node: Option<&str>, message: Bytes) -> Answer<()> {
        let channel = node.map_or_else(|| self.keys().control(), |node| self.keys().node(node));
        answer(self.say(channel, &message), |_| Ok(()))
    }

    fn reach(&self, node: &str, message: Bytes) -> Answer<bool> {
        answer(self.say(self.keys().node(node), &message), |value| Ok(read::<u64>(value)? > 0))
    }

    fn keep(&self, name: &str, fact: Bytes, ttl: Duration) -> Answer<()> {
        let mut call = self.facts_call(&KEEP);
        call.arg(name).arg(&*fact).arg(milliseconds(ttl));
        answer(self.push_control(call), |_| Ok(()))
    }

    fn forget(&self, name: &str) -> Answer<()> {
        let mut call = self.facts_call(&FORGET);
        call.arg(name);
        answer(self.push_control(call), |_| Ok(()))
    }

    fn kept(&self) -> Answer<Vec<Fact>> {
        let (commands, call, group) = (self.commands.clone(), self.facts_call(&KEPT), self.parts.routes.control());
        Answer::Later(Box::pin(async move {
            let (mut cursor, mut all) = ("0".to_owned(), BTreeMap::new());
            loop {
                let (next, facts) = part(&commands, group, call.clone(), &cursor).wait().await?;
                all.extend(facts.into_iter().map(|(name, fact, left)| (name, (fact, left))));
                if next == "0" {
                    return Ok(all.into_iter().map(|(name, (fact, left))| (name, fact, left)).collect());
                }
                cursor = next;
            }
        }))
    }
}

/// A part of the facts, and where the next one begins.
fn part(commands: &Commands, group: Group, mut call: Cmd, cursor: &str) -> Answer<(String, Vec<Fact>)> {
    call.arg(cursor);
    let facts = |value| -> Result<_, BrokerError> {
        let (next, facts): (String, Vec<(String, Vec<u8>, u64)>) = read(value)?;
        let facts = facts.into_iter().map(|(name, fact, left)| (name, fact.into(), Duration::from_millis(left)));
        Ok((next, facts.collect()))
    };
    answer(commands.push_long(group, Operation::Control, call, PART), facts)
}
