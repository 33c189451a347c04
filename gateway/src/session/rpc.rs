//! `rpc`: what the client calls and the backend answers. Knows nothing of what it is about.

use roomcast_shared::protocol::{
    code::{Disconnect, ErrorCode},
    command::RpcRequest,
    reply::{Reply, RpcResult},
};

use super::{Done, Replies, Session, Step};
use crate::hooks::{Kind, Refusal, RpcAnswer, RpcCall};

impl Session {
    pub(super) fn rpc(&mut self, id: u32, request: RpcRequest, replies: &mut Replies<'_>) -> Result<Step, Disconnect> {
        let Some(hooks) = self.context.hooks.clone().filter(|hooks| hooks.has(Kind::Rpc)) else {
            return self.refused(id, "rpc", ErrorCode::NOT_AVAILABLE, replies);
        };
        if self.is_busy() {
            return Ok(Step::Wait);
        }
        let caller = self.caller();
        self.pending().start_aside(async move {
            let call = RpcCall { method: &request.method, data: &request.data };
            let answer = hooks.rpc(&caller, &call).await;
            Done::then(move |session, replies| session.called(id, answer, replies))
        });
        Ok(Step::Done)
    }

    fn called(
        &mut self,
        id: u32,
        answer: Result<RpcAnswer, Refusal>,
        replies: &mut Replies<'_>,
    ) -> Result<Step, Disconnect> {
        match answer {
            Ok(RpcAnswer { data }) => {
                self.succeeded("rpc", &Reply { id, rpc: Some(RpcResult { data }), ..Reply::default() }, replies)
            }
            Err(refusal) => self.turn_down(id, "rpc", refusal.into(), replies),
        }
    }
}
