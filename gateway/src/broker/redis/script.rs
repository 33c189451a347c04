//! What Redis runs in one step: scripts in Lua, called by their digest, and brought along again where Redis has forgotten
//! them. Knows the texts, and not what they are for.

use std::{fmt::Write, sync::OnceLock};

use redis::{Arg, Cmd, Pipeline, Value};
use sha1::{Digest, Sha1};

use super::{
    control,
    link::{Link, Lost},
    presence,
};

/// A script and the name Redis knows it by.
pub(super) struct Script {
    text: &'static str,
    digest: OnceLock<String>,
}

/// Publishes, and numbers, keeps and guards what is published.
pub(super) static APPEND: Script = Script::new(include_str!("lua/append.lua"));
/// Reads a part of a history.
pub(super) static READ: Script = Script::new(include_str!("lua/read.lua"));

/// Every script there is, so that each connection can bring them all along.
static ALL: [&Script; 10] = [
    &APPEND,
    &READ,
    &presence::PUT,
    &presence::ENTER,
    &presence::LEAVE,
    &presence::COUNT,
    &presence::MEMBERS,
    &control::KEEP,
    &control::FORGET,
    &control::KEPT,
];

impl Script {
    pub(super) const fn new(text: &'static str) -> Self {
        Self { text, digest: OnceLock::new() }
    }

    /// Begins a call of the script with these keys; arguments may follow.
    pub(super) fn call(&self, keys: &[&str]) -> Cmd {
        let mut command = self.call_with(keys.len());
        for key in keys {
            command.arg(key);
        }
        command
    }

    /// Begins a call of the script with so many keys, which have to follow.
    pub(super) fn call_with(&self, keys: usize) -> Cmd {
        let mut command = Cmd::new();
        command.arg("EVALSHA").arg(self.digest()).arg(keys);
        command
    }

    fn digest(&self) -> &str {
        self.digest.get_or_init(|| {
            Sha1::digest(self.text.as_bytes()).iter().fold(String::new(), |mut digest, byte| {
                let _ = write!(digest, "{byte:02x}");
                digest
            })
        })
    }

    /// Whether calls that are done once more, in their order, come to the same. What is published would be published twice.
    fn is_repeatable(&self) -> bool {
        !std::ptr::eq(self, &raw const APPEND)
    }

    /// The same call with the whole text, by which Redis knows the script again.
    fn told_anew(&self, call: &Cmd) -> Cmd {
        let mut command = Cmd::new();
        command.arg("EVAL").arg(self.text);
        for word in words(call).skip(2) {
            command.arg(word);
        }
        command
    }
}

/// Tells Redis every script. Where that is not allowed to this user, the first call of each brings it along.
pub(super) async fn load(link: &mut Link) -> Result<(), Lost> {
    let mut pipeline = Pipeline::with_capacity(ALL.len());
    for script in ALL {
        pipeline.cmd("SCRIPT").arg("LOAD").arg(script.text);
    }
    if !pipeline.is_empty() {
        link.exchange(&pipeline).await?;
    }
    Ok(())
}

/// Commands to be written together.
pub(super) struct Row {
    pipeline: Pipeline,
    /// Places of the words that go before a command to a server that is not its owner yet.
    asking: Vec<usize>,
}

impl Row {
    pub(super) fn with_capacity(commands: usize) -> Self {
        Self { pipeline: Pipeline::with_capacity(commands), asking: Vec::new() }
    }

    /// Appends a command; `asking` where the server is not the owner of its keys yet, and has to be told that this is known.
    pub(super) fn add(&mut self, command: Cmd, asking: bool) {
        if asking {
            self.asking.push(self.pipeline.len());
            self.pipeline.cmd("ASKING");
        }
        self.pipeline.add_command(command);
    }

    /// A command that was added, by its number.
    pub(super) fn command(&self, number: usize) -> Option<Cmd> {
        let asking = |place: &usize| self.asking.binary_search(place).is_err();
        let mut commands = self.pipeline.cmd_iter().enumerate().filter(|(place, _)| asking(place));
        commands.nth(number).map(|(_, command)| command.clone())
    }

    /// Leaves out what belongs to no command of its own.
    fn own(&self, answers: Vec<Value>) -> Vec<Value> {
        if self.asking.is_empty() {
            return answers;
        }
        let places = answers.into_iter().enumerate();
        places.filter(|(place, _)| self.asking.binary_search(place).is_err()).map(|(_, answer)| answer).collect()
    }
}

/// Writes commands and gives the answer to each. Calls of scripts that Redis does not know have not been done; they are
/// written again, in their order, with the text. Redis may know the scripts of calls that come after them, and has done those
/// too early, so that they are repeated as well.
pub(super) async fn exchange(link: &mut Link, row: &Row) -> Result<Vec<Value>, Lost> {
    let mut answers = link.exchange(&row.pipeline).await?;
    let (mut places, mut again) = (Vec::new(), Row::with_capacity(0));
    let first = answers.iter().position(is_unknown).unwrap_or(answers.len());
    for (place, (answer, call)) in answers.iter().zip(row.pipeline.cmd_iter()).enumerate().skip(first) {
        if let Some(script) = called(call).filter(|script| is_unknown(answer) || script.is_repeatable()) {
            let asking = place.checked_sub(1).is_some_and(|before| row.asking.binary_search(&before).is_ok());
            again.add(script.told_anew(call), asking);
            places.push(place);
        }
    }
    if !places.is_empty() {
        let anew = again.own(link.exchange(&again.pipeline).await?);
        for (place, answer) in places.into_iter().zip(anew) {
            answers[place] = answer;
        }
    }
    Ok(row.own(answers))
}

fn is_unknown(answer: &Value) -> bool {
    matches!(answer, Value::ServerError(error) if error.code() == "NOSCRIPT")
}

/// The script that a command calls by its digest.
fn called(call: &Cmd) -> Option<&'static Script> {
    let digest = words(call).nth(1)?;
    ALL.into_iter().find(|script| script.digest().as_bytes() == digest)
}

/// The words of a command.
pub(super) fn words(command: &Cmd) -> impl Iterator<Item = &[u8]> {
    command.args_iter().map(|word| if let Arg::Simple(word) = word { word } else { b"" })
}
