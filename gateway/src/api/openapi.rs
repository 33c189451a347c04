//! The description of the server API in `OpenAPI` 3.1: made from the types of requests and results, so that it says what they
//! say. Knows no calls.

use serde_json::{Value, json};
use utoipa::{
    ToSchema,
    openapi::{RefOr, Schema},
};

use super::{
    ApiError, Done, access, bounds, channels, commands, connections, history, info, method::Method, presence, publish,
    request, rpc,
};

/// Schemas by name.
type Schemas = Vec<(String, RefOr<Schema>)>;

/// What the description says of a method beside its types.
struct About {
    summary: &'static str,
    request: Value,
    result: Value,
    example: Value,
}

/// A call as it stands in the description.
struct Call {
    name: &'static str,
    summary: &'static str,
    /// What it does, in more words.
    says: &'static str,
    /// Whether a request has to have a body.
    asks: bool,
}

const ABOUT: &str = "For backends: publish in rooms, command connections, and ask what the nodes hold. Any node will do: what \
    is published or commanded at one takes effect at all that share its Redis. Fields that are not described are passed over.";

const BATCH: &str = "Carried out in their order and answered in their order; one that fails does not hold up the others, and \
    the status is 200. Publications that follow each other cost about one round trip to Redis.";

/// The whole description.
pub(super) fn document() -> Value {
    let mut schemas = Schemas::new();
    let error = reference::<ApiError>(&mut schemas);
    let mut paths = serde_json::Map::new();
    let mut commands = serde_json::Map::new();
    let mut replies = serde_json::Map::new();
    for method in Method::ALL {
        let about = about(method, &mut schemas);
        commands.insert(method.name().to_owned(), about.request.clone());
        replies.insert(method.name().to_owned(), about.result.clone());
        let result = json!({"type": "object", "required": ["result"], "properties": {"result": about.result}});
        let answer = json!({"oneOf": [result, {"$ref": "#/components/schemas/ErrorAnswer"}]});
        let body = json!({"schema": about.request, "example": about.example});
        let call = Call { name: method.name(), summary: about.summary, says: says(method), asks: asks(method) };
        paths.insert(format!("/api/{}", method.name()), path(&call, &body, &answer));
    }
    replies.insert("error".to_owned(), error.clone());
    let (request, answer) = batch(&commands, &replies);
    let example = json!({"commands": [{"publish": {"channel": "lobby", "data": 1}}, {"info": {}}]});
    let body = json!({"schema": request, "example": example});
    let call = Call { name: "batch", summary: "Makes several calls in one request", says: BATCH, asks: false };
    paths.insert("/api/batch".to_owned(), path(&call, &body, &answer));
    let mut components: serde_json::Map<String, Value> =
        schemas.into_iter().map(|(name, schema)| (name, serde_json::to_value(schema).unwrap_or_default())).collect();
    let answer = json!({
        "type": "object", "description": "What a call came to that failed.",
        "required": ["error"], "properties": {"error": error},
    });
    components.insert("ErrorAnswer".to_owned(), answer);
    split_publish(&mut components);
    bounds::add(&mut components);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Roomcast server API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "`api.key` of the node."},
                "authorization": {
                    "type": "apiKey", "in": "header", "name": "Authorization",
                    "description": "`apikey KEY`, or `Bearer KEY`.",
                },
                "query": {
                    "type": "apiKey", "in": "query", "name": "api_key",
                    "description": "For callers that cannot set a header: the key gets into the logs of what stands between.",
                },
            },
        },
        "security": [{"key": []}, {"authorization": []}, {"query": []}],
    })
}

fn about(method: Method, all: &mut Schemas) -> About {
    match method {
        Method::Publish => About {
            request: json!({"$ref": "#/components/schemas/PublishRequest"}),
            ..say::<publish::PublishRequest<'_>, publish::PublishResult>(
                all,
                "Says something in a room",
                json!({"channel": "lobby", "data": {"text": "hello"}}),
            )
        },
        Method::Broadcast => About {
            request: json!({"$ref": "#/components/schemas/BroadcastRequest"}),
            ..say::<publish::PublishRequest<'_>, publish::BroadcastResult>(
                all,
                "Says something in several rooms",
                json!({"channels": ["lobby", "sport"], "data": {"text": "hello"}}),
            )
        },
        Method::Subscribe => say::<commands::SubscribeRequest, Done>(
            all,
            "Puts connections into a room",
            json!({"user": "ann", "channel": "lobby"}),
        ),
        Method::Unsubscribe => say::<commands::UnsubscribeRequest, Done>(
            all,
            "Takes connections out of a room",
            json!({"user": "ann", "channel": "lobby"}),
        ),
        Method::Disconnect => {
            say::<commands::DisconnectRequest, Done>(all, "Closes connections", json!({"user": "ann"}))
        }
        Method::Refresh => say::<commands::RefreshRequest, Done>(
            all,
            "Changes how long connections are good for",
            json!({"user": "ann", "expire_at": 0}),
        ),
        Method::RevokeToken => {
            say::<access::RevokeTokenRequest, Done>(all, "Makes tokens void", json!({"jti": "6f1c", "ttl": 3600}))
        }
        Method::InvalidateUserTokens => say::<access::InvalidateUserTokensRequest, Done>(
            all,
            "Makes the tokens of a user void",
            json!({"user": "ben", "ttl": 3600}),
        ),
        Method::BlockUser => {
            say::<access::BlockUserRequest, Done>(all, "Lets a user in no longer", json!({"user": "ben", "ttl": 3600}))
        }
        Method::UnblockUser => {
            say::<access::UnblockUserRequest, Done>(all, "Lets a user in again", json!({"user": "ben"}))
        }
        _ => asked(method, all),
    }
}

/// What a method does, in more words than its summary.
fn says(method: Method) -> &'static str {
    match method {
        Method::Publish => {
            "Answered when the broker has taken it; where the room has a history, with its place there. Nobody in the room is \
             no error. With error 100 it is not known whether it was published."
        }
        Method::Broadcast => {
            "Each room has its own answer, in the order of the request; one may fail while the others do not."
        }
        Method::Subscribe => {
            "Whether or not the room's rules let them in by themselves. Those that are in it stay as they are. A connection is \
             meant if it is everything that is named of `user`, `client` and `session`; that nobody is meant is no error."
        }
        Method::Unsubscribe => "The clients are told code 2000 and do not come back.",
        Method::Disconnect => "The clients are told 3503, or what `disconnect` says.",
        Method::Refresh => "The clients are told the new end, or are closed with 3005.",
        Method::Presence => "Of all nodes. The rules of the room must have `presence`, else error 108.",
        Method::PresenceStats => {
            "Of all nodes, without reading who they are. The rules of the room must have `presence`."
        }
        Method::History => {
            "The rules of the room must have `history_size` and `history_ttl`, else error 108. A `since` of another epoch than \
             the present one is error 112."
        }
        Method::HistoryRemove => "Its publications are gone; positions stay comparable.",
        Method::Channels => "Of all nodes. Every node looks at all its rooms: not for every second.",
        Method::Connections => "Of all nodes, those that are everything named, a page at a time.",
        Method::Info => "The one that was asked first, the others as of their last beat, at most a few seconds ago.",
        Method::Rpc => "There are no extensions: every method is error 104.",
        Method::RevokeToken => {
            "By its `jti`, or all of a user's that were made before a time. On every node, also those that start later: who \
             comes with such a token is refused, connections that came with it are closed with 3500, and rooms entered with it \
             are left with 2502."
        }
        Method::InvalidateUserTokens => "As `revoke_token` with a user.",
        Method::BlockUser => "On every node; the connections there are are closed with 3503.",
        Method::UnblockUser => "Takes `block_user` back, on every node.",
    }
}

/// Whether a request of the method has to say anything.
fn asks(method: Method) -> bool {
    !matches!(method, Method::Channels | Method::Connections | Method::Info)
}

/// Methods that ask.
fn asked(method: Method, all: &mut Schemas) -> About {
    let room = json!({"channel": "lobby"});
    match method {
        Method::Presence => say::<presence::PresenceRequest, presence::PresenceResult>(all, "Who is in a room", room),
        Method::PresenceStats => {
            say::<request::RoomRequest, presence::PresenceStatsResult>(all, "How many are in a room", room)
        }
        Method::History => say::<history::HistoryRequest, history::HistoryResult>(
            all,
            "What was said in a room",
            json!({"channel": "lobby", "limit": 10}),
        ),
        Method::HistoryRemove => say::<request::RoomRequest, Done>(all, "Forgets what was said in a room", room),
        Method::Channels => say::<channels::ChannelsRequest, channels::ChannelsResult>(
            all,
            "Rooms somebody is in",
            json!({"pattern": "*"}),
        ),
        Method::Connections => say::<connections::ConnectionsRequest, connections::ConnectionsResult>(
            all,
            "Who is connected",
            json!({"user": "ann"}),
        ),
        Method::Rpc => say::<rpc::RpcRequest, Done>(all, "Calls a method of an extension", json!({"method": "m"})),
        _ => say::<info::InfoRequest, info::InfoResult>(all, "The nodes there are", json!({})),
    }
}

fn say<T: ToSchema, U: ToSchema>(all: &mut Schemas, summary: &'static str, example: Value) -> About {
    About { summary, request: reference::<T>(all), result: reference::<U>(all), example }
}

/// Puts a type among the schemas, and refers to it.
fn reference<T: ToSchema>(all: &mut Schemas) -> Value {
    all.push((T::name().into_owned(), T::schema()));
    T::schemas(all);
    json!({"$ref": format!("#/components/schemas/{}", T::name())})
}

fn path(call: &Call, body: &Value, answer: &Value) -> Value {
    let answered = |description: &str, schema: &Value| json!({"description": description, "content": {"application/json": {"schema": schema}}});
    let refused = |description: &str| answered(description, &json!({"$ref": "#/components/schemas/ErrorAnswer"}));
    let said = |description: &str| json!({"description": description, "content": {"text/plain": {}}});
    let mode = json!({
        "name": "X-Centrifugo-Error-Mode", "in": "header", "required": false,
        "schema": {"type": "string"}, "example": "transport",
        "description": "`transport`: errors have a status of their own, beside their code. Anything else is passed over.",
    });
    json!({"post": {
        "operationId": call.name,
        "summary": call.summary,
        "description": call.says,
        "parameters": [mode],
        "requestBody": {"required": call.asks, "content": {"application/json": body}},
        "responses": {
            "200": answered("What the call came to", answer),
            "400": refused("Errors 107 and 108, where statuses are asked for"),
            "401": said("The key is missing or wrong"),
            "404": refused("Errors 102 and 104, where statuses are asked for"),
            "405": said("Not a `POST`"),
            "413": said("The body is above 4 MB"),
            "416": refused("Error 112, where statuses are asked for"),
            "500": refused("Error 100, where statuses are asked for"),
        },
    }})
}

/// Request and answer of `batch`.
fn batch(commands: &serde_json::Map<String, Value>, replies: &serde_json::Map<String, Value>) -> (Value, Value) {
    let one_of = |properties: &serde_json::Map<String, Value>| json!({"type": "object", "properties": properties, "maxProperties": 1});
    let parallel = json!({"type": "boolean", "description": "The calls need not wait for each other."});
    let commands = json!({
        "type": "array", "items": one_of(commands),
        "description": "Each an object with one entry: the name of a call, and its request.",
    });
    let request = json!({"type": "object", "properties": {"commands": commands, "parallel": parallel}});
    let replies = json!({
        "type": "array", "items": one_of(replies),
        "description": "In the order of the calls, each an object with one entry: the result under the name of its call, or `error`.",
    });
    let answer = json!({"type": "object", "required": ["replies"], "properties": {"replies": replies}});
    (request, json!({"oneOf": [answer, {"$ref": "#/components/schemas/ErrorAnswer"}]}))
}

/// One type reads both requests; each has its own of the two fields.
fn split_publish(schemas: &mut serde_json::Map<String, Value>) {
    let Some(both) = schemas.get("PublishRequest").cloned() else { return };
    for (name, own, other) in [("PublishRequest", "channel", "channels"), ("BroadcastRequest", "channels", "channel")] {
        let mut one = both.clone();
        if let Some(properties) = one["properties"].as_object_mut() {
            properties.remove(other);
        }
        one["required"] = json!([own]);
        schemas.insert(name.to_owned(), one);
    }
}
