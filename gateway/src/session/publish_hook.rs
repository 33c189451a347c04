//! The backend's word on what a client would say in a room: whether, and what instead.

use roomcast_shared::protocol::{
    code::{Disconnect, ErrorCode},
    command::PublishRequest,
};

use super::{Busy, Done, Replies, Session, Step, grant::Refusal, publish::is_fit, rules::Rules};
use crate::hooks::{self, PublishAnswer, PublishCall};

impl Session {
    /// Asks the backend. The client's other commands for the room wait, so that what it says keeps its order.
    pub(super) fn ask_to_say(&mut self, id: u32, request: PublishRequest, rules: &Rules) -> Step {
        let (context, caller, own) = (self.context.clone(), self.caller(), rules.publish_hook_url.clone());
        self.pending().start(&request.channel.clone(), Busy::Asking, async move {
            let call = PublishCall { room: &request.channel, data: &request.data };
            let answer = match &context.hooks {
                Some(hooks) => hooks.publish(&caller, own.as_ref(), &call).await,
                None => Err(hooks::Refusal::Error(ErrorCode::NOT_AVAILABLE)),
            };
            Done::then(move |session, replies| session.told_to_say(id, request, answer, replies))
        });
        Step::Done
    }

    fn told_to_say(
        &mut self,
        id: u32,
        mut request: PublishRequest,
        answer: Result<PublishAnswer, hooks::Refusal>,
        replies: &mut Replies<'_>,
    ) -> Result<Step, Disconnect> {
        let answer = answer.map_err(Refusal::from).and_then(|mut answer| {
            // Read anew: they may have been reloaded meanwhile.
            let (_, rules) = self.context.rules_of(&request.channel)?;
            if let Some(data) = answer.data.take() {
                if !is_fit(rules.publication_data_format, &data) {
                    tracing::warn!(room = request.channel, "what the backend would publish is not what the room takes");
                    return Err(ErrorCode::INTERNAL.into());
                }
                request.data = data;
            }
            Ok((answer, rules))
        });
        match answer {
            Ok((answer, rules)) => self.begin_saying(id, &rules, &request, Some(answer), replies),
            Err(refusal) => self.turn_down(id, "publish", refusal, replies),
        }
    }
}
