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

/// Every script there is, so that each connection can bring them all along.
static ALL: [&Script; 7] = [
    &presence::PUT,
    &presence::LEAVE,
    &presence::COUNT,
    &presence::MEMBERS,
    &control::KEEP,
    &control::FORGET,
    &control::KEPT,
];

impl Script {
    /// A script of that text; it has to be one of those that every connection brings along.
    pub(super) const fn new(text: &'static str) -> Self {
        Self { text, digest: OnceLock::new() }
    }

    /// Begins a call of the script with these keys; arguments may follow.
    pub(super) fn call(&self, keys: &[&str]) -> Cmd {
        let mut command = Cmd::new();
        command.arg("EVALSHA").arg(self.digest()).arg(keys.len());
        for key in keys {
            command.arg(key);
        }
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

/// Writes a pipeline and gives the answer to each of its commands. Calls of scripts that Redis does not know have not been
/// done; they are written again, in their order, with the text.
pub(super) async fn exchange(link: &mut Link, pipeline: &Pipeline) -> Result<Vec<Value>, Lost> {
    let mut answers = link.exchange(pipeline).await?;
    let (mut places, mut again) = (Vec::new(), Pipeline::new());
    for (place, (answer, call)) in answers.iter().zip(pipeline.cmd_iter()).enumerate() {
        if let Some(script) = is_unknown(answer).then(|| called(call)).flatten() {
            again.add_command(script.told_anew(call));
            places.push(place);
        }
    }
    if !places.is_empty() {
        for (place, answer) in places.into_iter().zip(link.exchange(&again).await?) {
            answers[place] = answer;
        }
    }
    Ok(answers)
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
