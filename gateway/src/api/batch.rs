//! `batch`: several calls in one request, answered in their order.

use roomcast_shared::protocol::code::ErrorCode;
use serde::{Deserialize, Serialize};

use super::{
    Answer, Api, ApiError, Outcome,
    info::InfoResult,
    publish::{BroadcastResult, PublishRequest, PublishResult, Publishing, broadcasted, published},
    read,
};

#[derive(Deserialize)]
struct BatchRequest<'a> {
    #[serde(borrow, default)]
    commands: Vec<Command<'a>>,
}

/// One call: its name, and its request.
#[derive(Deserialize)]
struct Command<'a> {
    #[serde(borrow)]
    publish: Option<PublishRequest<'a>>,
    #[serde(borrow)]
    broadcast: Option<PublishRequest<'a>>,
    info: Option<serde::de::IgnoredAny>,
}

/// A call that has begun.
enum Begun {
    Publish(Publishing),
    Broadcast(Outcome<Vec<Publishing>>),
    Info,
    Unknown,
}

/// Answer of `batch`.
#[derive(Serialize)]
pub(super) struct BatchResult {
    replies: Vec<Reply>,
}

/// What one call came to, under its name.
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Reply {
    Publish(PublishResult),
    Broadcast(BroadcastResult),
    Info(InfoResult),
    Error(ApiError),
}

impl Api {
    /// All calls begin in their order before the first is awaited, so that a batch costs the broker one round trip.
    pub(super) async fn batch(&self, body: &[u8]) -> Outcome<BatchResult> {
        let request: BatchRequest<'_> = read(body)?;
        let begun: Vec<_> = request.commands.iter().map(|command| self.begin_call(command)).collect();
        let mut replies = Vec::with_capacity(begun.len());
        for call in begun {
            replies.push(self.finish_call(call).await);
        }
        Ok(BatchResult { replies })
    }

    fn begin_call(&self, command: &Command<'_>) -> Begun {
        match command {
            Command { publish: Some(request), .. } => Begun::Publish(self.begin_publish(request)),
            Command { broadcast: Some(request), .. } => Begun::Broadcast(self.begin_broadcast(request)),
            Command { info: Some(_), .. } => Begun::Info,
            _ => Begun::Unknown,
        }
    }

    async fn finish_call(&self, call: Begun) -> Reply {
        let (method, reply) = match call {
            Begun::Publish(call) => ("publish", published(call).await.map(Reply::Publish)),
            Begun::Broadcast(Ok(call)) => ("broadcast", broadcasted(call).await.map(Reply::Broadcast)),
            Begun::Broadcast(Err(error)) => ("broadcast", Err(error)),
            Begun::Info => ("info", Ok(Reply::Info(self.info().await))),
            Begun::Unknown => ("unknown", Err(ErrorCode::METHOD_NOT_FOUND)),
        };
        let result = if reply.is_ok() { "ok" } else { "error" };
        self.context.metrics.api_requests.with_label_values(&[method, result]).inc();
        match Answer::from(reply) {
            Answer::Result(reply) => reply,
            Answer::Error(error) => Reply::Error(error),
        }
    }
}
