//! `publish`: the client says something in a room. Also what a room asks of whatever is said in it, by whomever.

use bytes::Bytes;
use roomcast_shared::{
    event::Said,
    position::Position,
    protocol::{
        code::{Disconnect, ErrorCode},
        command::PublishRequest,
        json::{MAX_DEPTH, is_deeper_than},
        reply::Reply,
    },
    publication::Publication,
};
use serde::de::IgnoredAny;

use super::{Busy, Context, Done, EMPTY, Replies, Session, Step, rules::Rules, subscribe::is_stream};
use crate::{
    broker::{Answer, Append, BrokerError},
    config::{DataFormat, RoomRules},
    hooks::PublishAnswer,
};

impl Session {
    pub(super) fn publish(
        &mut self,
        id: u32,
        request: PublishRequest,
        replies: &mut Replies<'_>,
    ) -> Result<Step, Disconnect> {
        if request.channel.is_empty() {
            return Err(self.refuse("publish with an empty channel"));
        }
        if self.must_wait(&request.channel, true) {
            return Ok(Step::Wait);
        }
        let rules = match self.may_say(&request) {
            Ok(rules) => rules,
            Err(code) => return self.refused(id, "publish", code, replies),
        };
        if rules.publish_hook {
            return Ok(self.ask_to_say(id, request, &rules));
        }
        self.begin_saying(id, &rules, &request, None, replies)
    }

    /// Says it; the backend's `answer` says how, where it was asked.
    pub(super) fn begin_saying(
        &mut self,
        id: u32,
        rules: &RoomRules,
        request: &PublishRequest,
        answer: Option<PublishAnswer>,
        replies: &mut Replies<'_>,
    ) -> Result<Step, Disconnect> {
        match self.say(rules, request, answer.unwrap_or_default()) {
            Answer::Now(result) => self.published(id, &result, replies),
            Answer::Later(publishing) => {
                let work = async move { Done::Published { id, result: publishing.await } };
                self.pending().start(&request.channel, Busy::Publishing, work);
                Ok(Step::Done)
            }
        }
    }

    fn may_say(&self, request: &PublishRequest) -> Result<Rules, ErrorCode> {
        is_stream(request.kind)?;
        let (_, rules) = self.context.rules_of(&request.channel)?;
        if !is_fit(rules.publication_data_format, &request.data) {
            return Err(ErrorCode::BAD_REQUEST);
        }
        if rules.publish_hook {
            return Ok(rules);
        }
        self.may_publish(&request.channel)
    }

    fn say(&mut self, rules: &RoomRules, request: &PublishRequest, answer: PublishAnswer) -> Answer<Option<Position>> {
        let mut chan_info = Bytes::new();
        if let Some(place) = self.place_of(&request.channel) {
            let subscription = &mut self.subscriptions[place];
            chan_info = subscription.info();
            // Where it does not hear itself, nothing of its own is on the way to it.
            subscription.spoke |= rules.echo;
        }
        let info = self.client_info(&chan_info);
        let said = Said {
            publication: Publication { data: request.data.clone(), info, tags: answer.tags, ..Publication::default() },
            delta: rules.delta_publish || answer.delta,
            exclude: (!rules.echo).then_some(self.client.as_u128()),
            epoch: None,
        };
        let mut append = self.context.append(rules);
        if answer.skip_history {
            append.keep = None;
        }
        let ttl = self.context.settings.channel.idempotency_ttl;
        append.idempotency = Some((answer.idempotency_key, ttl)).filter(|(key, _)| !key.is_empty());
        (append.version, append.version_epoch) = (answer.version, answer.version_epoch);
        self.context.say(&request.channel, said, &append)
    }

    pub(super) fn published(
        &mut self,
        id: u32,
        result: &Result<Option<Position>, BrokerError>,
        replies: &mut Replies<'_>,
    ) -> Result<Step, Disconnect> {
        match result {
            Ok(_) => self.succeeded("publish", &Reply { id, publish: EMPTY, ..Reply::default() }, replies),
            Err(error) => {
                tracing::debug!("publish failed: {error}");
                self.refused(id, "publish", ErrorCode::INTERNAL, replies)
            }
        }
    }
}

impl Context {
    /// Says something in a room, and has it kept there as `append` says. The answer is where it stands, if it is kept.
    pub fn say(&self, room: &str, said: Said, append: &Append) -> Answer<Option<Position>> {
        if *append == Append::default() {
            return self.node.publish(room, said.into()).map(|()| None);
        }
        self.node.append(room, said, append).map(|appended| appended.position)
    }
}

/// Whether a payload is what a room asks for. Without a format it is anything that says something.
pub fn is_fit(format: Option<DataFormat>, data: &[u8]) -> bool {
    let is_json = || !is_deeper_than(MAX_DEPTH, data) && serde_json::from_slice::<IgnoredAny>(data).is_ok();
    match format {
        None => !data.is_empty(),
        Some(DataFormat::Binary) => true,
        Some(DataFormat::Json) => is_json(),
        Some(DataFormat::JsonObject) => data.trim_ascii_start().first() == Some(&b'{') && is_json(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_what_the_room_asks_for() {
        let deep = "[".repeat(200) + &"]".repeat(200);
        // Payload, and whether it is fit for any room, one of JSON, one of JSON objects, one of bytes.
        let cases: [(&[u8], [bool; 4]); 7] = [
            (b"", [false, false, false, true]),
            (b"{\"a\":1}", [true, true, true, true]),
            (b" \n{} ", [true, true, true, true]),
            (b"[1]", [true, true, false, true]),
            (b"{", [true, false, false, true]),
            (b"\xFF", [true, false, false, true]),
            (deep.as_bytes(), [true, false, false, true]),
        ];
        for (data, fit) in cases {
            let formats = [None, Some(DataFormat::Json), Some(DataFormat::JsonObject), Some(DataFormat::Binary)];
            assert_eq!(formats.map(|format| is_fit(format, data)), fit, "{data:?}");
        }
    }
}
