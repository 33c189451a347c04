//! Who is in which room, in Redis: four keys for each room, and one script for each verb, so that they never disagree. Knows
//! no sessions, and no clock but the server's.

use std::{sync::Arc, time::Duration};

use futures_util::future::try_join_all;
use prost::Message;
use redis::{Cmd, FromRedisValue, Value, from_redis_value};
use roomcast_shared::publication::ClientInfo;

use super::{
    BrokerError, RedisBroker,
    commands::{Commands, Operation},
    queue::answer,
    routes::Group,
    script::Script,
};
use crate::broker::{Answer, Count, Members, Presence};

macro_rules! script {
    ($file:literal) => {
        Script::new(concat!(include_str!("lua/presence.lua"), include_str!($file)))
    };
}

pub(super) static PUT: Script = script!("lua/presence_put.lua");
pub(super) static ENTER: Script = script!("lua/presence_enter.lua");
pub(super) static LEAVE: Script = script!("lua/presence_leave.lua");
pub(super) static COUNT: Script = script!("lua/presence_count.lua");
pub(super) static MEMBERS: Script = script!("lua/presence_members.lua");

/// Members in one call at most.
const CHUNK: usize = 500;

/// About how many bytes are known of a member.
const MEMBER: usize = 256;

impl RedisBroker {
    fn presence_call(&self, script: &Script, room: &str) -> Cmd {
        let keys = self.keys().presence(room);
        script.call(&keys.each_ref().map(String::as_str))
    }

    fn put<'a>(&self, room: &str, members: impl Iterator<Item = &'a ClientInfo>, ttl: Duration) -> Answer<()> {
        let mut call = self.presence_call(&PUT, room);
        call.arg(milliseconds(ttl));
        for member in members {
            call.arg(&member.client).arg(member.encode_to_vec());
        }
        answer(self.commands.push(self.parts.routes.group(room), Operation::Presence, call), |_| Ok(()))
    }
}

impl Presence for RedisBroker {
    fn enter(&self, room: &str, member: &ClientInfo, ttl: Duration) -> Answer<()> {
        self.put(room, std::iter::once(member), ttl)
    }

    fn enter_within(&self, room: &str, member: &ClientInfo, limit: u32, ttl: Duration) -> Answer<bool> {
        let mut call = self.presence_call(&ENTER, room);
        call.arg(milliseconds(ttl)).arg(limit).arg(&member.client).arg(member.encode_to_vec());
        answer(self.commands.push(self.parts.routes.group(room), Operation::Presence, call), read)
    }

    fn leave(&self, room: &str, client: &str) -> Answer<()> {
        let mut call = self.presence_call(&LEAVE, room);
        call.arg(client);
        answer(self.commands.push(self.parts.routes.group(room), Operation::Presence, call), |_| Ok(()))
    }

    fn renew(&self, mut members: Vec<(Arc<str>, Arc<ClientInfo>)>, ttl: Duration) -> Answer<()> {
        members.sort_by(|(one, _), (other, _)| one.cmp(other));
        let rooms = members.chunk_by(|(one, _), (other, _)| one == other);
        let chunks = rooms.flat_map(|room| room.chunks(CHUNK));
        let put =
            |chunk: &[(Arc<str>, Arc<ClientInfo>)]| self.put(&chunk[0].0, chunk.iter().map(|(_, one)| &**one), ttl);
        // Made here and now; only the answers are waited for later.
        let answers: Vec<_> = chunks.map(put).map(Answer::wait).collect();
        Answer::Later(Box::pin(async { try_join_all(answers).await.map(drop) }))
    }

    fn members(&self, room: &str, cursor: &str, limit: u32) -> Answer<Members> {
        let limit = limit.clamp(1, Members::MAX);
        let mut call = self.presence_call(&MEMBERS, room);
        call.arg(cursor).arg(limit);
        let made =
            self.commands.push_long(self.parts.routes.group(room), Operation::Presence, call, limit as usize * MEMBER);
        answer(made, |value| {
            let (cursor, infos): (String, Vec<Vec<u8>>) = read(value)?;
            let decode = |info: Vec<u8>| ClientInfo::decode(info.as_slice()).map_err(|error| misread(&error));
            Ok(Members { clients: infos.into_iter().map(decode).collect::<Result<_, _>>()?, cursor })
        })
    }

    fn count(&self, room: &str) -> Answer<Count> {
        let call = self.presence_call(&COUNT, room);
        let group = self.parts.routes.group(room);
        let first = ask_count(&self.commands, group, call.clone());
        let commands = self.commands.clone();
        Answer::Later(Box::pin(async move {
            let mut counted = first.wait().await?;
            // A call takes out a bounded number of those whose time is over: it is repeated until none is left.
            while let (_, _, true) = counted {
                counted = ask_count(&commands, group, call.clone()).wait().await?;
            }
            Ok(Count { clients: counted.0, users: counted.1 })
        }))
    }
}

fn ask_count(commands: &Commands, group: Group, call: Cmd) -> Answer<(u64, u64, bool)> {
    answer(commands.push(group, Operation::Presence, call), read)
}

/// What Redis takes for a time: whole milliseconds, one at least, and no more than a hundred years.
pub(super) fn milliseconds(time: Duration) -> u64 {
    const LONGEST: u64 = 100 * 365 * 24 * 3_600 * 1_000;
    u64::try_from(time.as_millis()).map_or(LONGEST, |time| time.clamp(1, LONGEST))
}

/// Reads an answer of a script.
pub(super) fn read<T: FromRedisValue>(value: Value) -> Result<T, BrokerError> {
    from_redis_value(value).map_err(|error| misread(&error))
}

fn misread(error: &dyn std::error::Error) -> BrokerError {
    BrokerError::Refused(format!("its answer is not understood: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_whole_milliseconds_within_what_redis_takes() {
        assert_eq!(milliseconds(Duration::ZERO), 1);
        assert_eq!(milliseconds(Duration::from_micros(2_900)), 2);
        assert!(milliseconds(Duration::MAX) < 1 << 42);
    }

    /// The script that counts users relies on it.
    #[test]
    fn the_user_comes_first_in_what_is_known_of_a_client() {
        let info = |user: &str| ClientInfo { user: user.to_owned(), client: "c".to_owned(), ..ClientInfo::default() };
        assert_eq!(info("ann").encode_to_vec(), b"\x0a\x03ann\x12\x01c");
        assert_eq!(info("").encode_to_vec(), b"\x12\x01c");
    }
}
