//! `batch`: several calls in one request, answered in their order.

use std::{collections::BTreeMap, future::Future, pin::Pin};

use futures_util::{StreamExt, stream};
use roomcast_shared::protocol::code::ErrorCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    Api, ApiError, Outcome,
    method::{Calling, Method},
    request::read,
};

/// Calls of one parallel batch that are awaited together.
const TOGETHER: usize = 32;

#[derive(Deserialize)]
struct BatchRequest<'a> {
    /// Each an object with one entry: the name of the call, and its request.
    #[serde(borrow, default)]
    commands: Vec<BTreeMap<String, &'a RawValue>>,
    /// The calls need not wait for each other.
    #[serde(default)]
    parallel: bool,
}

/// Answer of `batch`.
#[derive(Serialize)]
pub(super) struct BatchResult {
    /// Each an object with one entry: what the call came to under its name, or `error`.
    replies: Vec<Finished>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Reply {
    Result(Box<RawValue>),
    Error(ApiError),
}

/// A call and its name; without one where it is not known.
type Begun<'a> = (Option<Method>, Calling<'a>);

/// What a call came to, under its name.
type Finished = BTreeMap<&'static str, Reply>;

type Finishing<'a> = Pin<Box<dyn Future<Output = Finished> + Send + 'a>>;

impl Api {
    /// Publications that follow each other begin together, so that they cost the broker one round trip. Any other call waits
    /// for those before it, unless the request lets them all go at once.
    pub(super) async fn batch(&self, body: &[u8]) -> Outcome<BatchResult> {
        let BatchRequest { commands, parallel } = read(body)?;
        let mut replies: Vec<Finished> = Vec::with_capacity(commands.len());
        if parallel {
            let begun: Vec<Finishing<'_>> = commands
                .iter()
                .map(|command| -> Finishing<'_> { Box::pin(self.finish(self.begin_command(command))) })
                .collect();
            replies = stream::iter(begun).buffered(TOGETHER).collect().await;
            return Ok(BatchResult { replies });
        }
        let mut begun: Vec<Begun<'_>> = Vec::new();
        for command in &commands {
            let call = self.begin_command(command);
            if !call.0.is_some_and(Method::publishes) {
                self.finish_all(&mut begun, &mut replies).await;
            }
            begun.push(call);
        }
        self.finish_all(&mut begun, &mut replies).await;
        Ok(BatchResult { replies })
    }

    fn begin_command<'a>(&'a self, command: &BTreeMap<String, &'a RawValue>) -> Begun<'a> {
        let known = command.iter().find_map(|(name, request)| Some((Method::named(name)?, request.get().as_bytes())));
        match known {
            Some((method, request)) => (Some(method), self.begin_call(method, request)),
            None => (None, Box::pin(async { Err(ErrorCode::METHOD_NOT_FOUND) })),
        }
    }

    async fn finish_all(&self, begun: &mut Vec<Begun<'_>>, replies: &mut Vec<Finished>) {
        for call in begun.drain(..) {
            replies.push(self.finish(call).await);
        }
    }

    async fn finish(&self, (method, call): Begun<'_>) -> Finished {
        let name = method.map_or("unknown", Method::name);
        let outcome = call.await;
        self.count(name, outcome.is_ok());
        let reply = match outcome {
            Ok(result) => (name, Reply::Result(result)),
            Err(error) => ("error", Reply::Error(error.into())),
        };
        BTreeMap::from([reply])
    }
}
