//! `rpc`: methods that a server may be extended with. There are none here, and callers are told so.

use roomcast_shared::protocol::code::ErrorCode;
use serde::Deserialize;
use utoipa::ToSchema;

use super::{Done, Outcome, request::bad};

/// Calls a method that the server was extended with.
#[derive(Deserialize, ToSchema)]
pub(super) struct RpcRequest {
    /// Its name.
    #[serde(default)]
    #[schema(required = true)]
    method: String,
    /// Its parameters, any JSON.
    #[serde(default, rename = "params")]
    #[schema(value_type = serde_json::Value)]
    _params: serde::de::IgnoredAny,
}

/// Error 104, as no method is known.
pub(super) fn rpc(request: &RpcRequest) -> Outcome<Done> {
    if request.method.is_empty() {
        return Err(bad("method is missing"));
    }
    Err(ErrorCode::METHOD_NOT_FOUND)
}
