//! The rules of rooms, each declared once, and the namespaces that have rules of their own.

use std::time::Duration;

use regex::Regex;

use super::{
    hooks::HookUrl,
    section::{About, Place, Visitor, join, section},
    value::{Scalar, choice},
};

section! {
    /// What rooms remember and what clients may do there. A client is somebody with a token; a subscriber is a client that
    /// is in the room.
    RoomRules {
        /// Whether any client may subscribe.
        allow_subscribe_for_client: bool = "false",
        /// Whether `allow_subscribe_for_client` holds for clients without a user as well.
        allow_subscribe_for_anonymous: bool = "false",
        /// Whether any client may publish.
        allow_publish_for_client: bool = "false",
        /// Whether subscribers may publish.
        allow_publish_for_subscriber: bool = "false",
        /// Whether the two rules above hold for clients without a user as well.
        allow_publish_for_anonymous: bool = "false",
        /// Whether any client may ask who is in the room.
        allow_presence_for_client: bool = "false",
        /// Whether subscribers may ask who is in the room.
        allow_presence_for_subscriber: bool = "false",
        /// Whether the two rules above hold for clients without a user as well.
        allow_presence_for_anonymous: bool = "false",
        /// Whether any client may ask what was published.
        allow_history_for_client: bool = "false",
        /// Whether subscribers may ask what was published.
        allow_history_for_subscriber: bool = "false",
        /// Whether the two rules above hold for clients without a user as well.
        allow_history_for_anonymous: bool = "false",
        /// Whether `room#1,2` is open to the users 1 and 2, and to nobody else.
        allow_user_limited_channels: bool = "false",
        /// What the name of a room, without its namespace, has to match; unset: any name of ASCII characters.
        channel_regex: Option<RoomPattern>,
        /// What publications have to be: `json`, `json_object`, `binary`, or unset for anything.
        publication_data_format: Option<DataFormat>,
        /// Whether the node keeps who is in the room.
        presence: bool = "false",
        /// Whether subscribers may ask to be told who enters and leaves.
        join_leave: bool = "false",
        /// Whether every subscriber is told who enters and leaves, without asking.
        force_push_join_leave: bool = "false",
        /// How many publications the room remembers; 0 with `history_ttl` 0s: none.
        history_size: u32 = "0",
        /// How long after the last publication they are remembered.
        history_ttl: Duration = "0s",
        /// How long offset and epoch are remembered after their last use; unset: `channel.history_meta_ttl`.
        history_meta_ttl: Option<Duration>,
        /// Whether every subscriber's position is watched, so that it is told when it missed something.
        force_positioning: bool = "false",
        /// Whether subscribers may ask for that.
        allow_positioning: bool = "false",
        /// Whether every subscriber that comes back is given what it missed.
        force_recovery: bool = "false",
        /// Whether subscribers may ask for that.
        allow_recovery: bool = "false",
        /// What a subscriber that comes back is given: everything it missed (`stream`), or the newest publication only
        /// (`cache`).
        force_recovery_mode: RecoveryMode = "stream",
        /// Whether every subscriber of a room with recovery mode `cache` is given the newest publication, also when it
        /// comes for the first time.
        auto_cache_recover: bool = "false",
        /// Whether publications are sent as deltas, where the publisher does not ask for it, to subscribers that take them.
        delta_publish: bool = "false",
        /// Kinds of deltas that subscribers may ask for: `fossil`.
        allowed_delta_types: Vec<DeltaType>,
        /// Whether subscribers may ask for publications with certain tags only.
        allow_tags_filter: bool = "false",
        /// Whether the backend decides who may subscribe, with `hooks.subscribe`.
        subscribe_hook: bool = "false",
        /// Another address for that than `hooks.subscribe.url`.
        subscribe_hook_url: Option<HookUrl>,
        /// Whether the backend decides who may publish, and what, with `hooks.publish`.
        publish_hook: bool = "false",
        /// Another address for that than `hooks.publish.url`.
        publish_hook_url: Option<HookUrl>,
        /// Whether the backend prolongs subscriptions that expire, with `hooks.sub_refresh`.
        sub_refresh_hook: bool = "false",
        /// Another address for that than `hooks.sub_refresh.url`.
        sub_refresh_hook_url: Option<HookUrl>,
        /// Whether a client hears what it publishes itself.
        echo: bool = "true",
        /// What happens to a subscriber that reads too slowly: its connection is closed (`close`), it leaves the room with a
        /// code upon which it comes back and recovers (`resync`, for rooms with recovery), or only the newest publication
        /// waits for it (`latest`, for rooms whose publications each say everything).
        slow_consumer: SlowConsumer = "close",
    }
}

choice! {
    /// What a subscriber that comes back is given.
    RecoveryMode {
        /// Everything it missed.
        Stream = "stream",
        /// The newest publication.
        Cache = "cache",
    }
}

choice! {
    /// What publications of a room have to be.
    DataFormat {
        /// Any JSON.
        Json = "json",
        /// A JSON object.
        JsonObject = "json_object",
        /// Any bytes.
        Binary = "binary",
    }
}

choice! {
    /// Kinds of deltas.
    DeltaType {
        /// Of the Fossil version control system.
        Fossil = "fossil",
    }
}

choice! {
    /// What happens to a subscriber that reads too slowly.
    SlowConsumer {
        /// Its connection is closed.
        Close = "close",
        /// It leaves the room, and is told to come back and recover.
        Resync = "resync",
        /// Only the newest publication waits for it.
        Latest = "latest",
    }
}

/// What names of rooms have to match.
#[derive(Clone, Debug)]
pub struct RoomPattern(Regex);

impl RoomPattern {
    /// Whether a name matches somewhere; a pattern that means the whole name begins with `^` and ends with `$`.
    pub fn matches(&self, name: &str) -> bool {
        self.0.is_match(name)
    }
}

impl PartialEq for RoomPattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Scalar for RoomPattern {
    const KIND: &'static str = "regular expression";

    fn parse(text: &str) -> Result<Self, String> {
        Regex::new(text).map(Self).map_err(|error| format!("{text:?} is no regular expression: {error}"))
    }

    fn show(&self) -> String {
        self.0.as_str().to_owned()
    }
}

impl RoomRules {
    /// Whether the room remembers publications.
    pub fn keeps_history(&self) -> bool {
        self.history_size > 0 && !self.history_ttl.is_zero()
    }
}

/// Rules of the rooms `name:…`. Written as `[[namespaces]]` with `name` and the options of `[rooms]` in one table.
#[derive(Clone, Debug, PartialEq)]
pub struct Namespace {
    /// What comes before the colon: two or more of letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// The rules; whatever is not said has the default, not what `[rooms]` says.
    pub rules: RoomRules,
}

impl Place for Vec<Namespace> {
    fn visit(&mut self, path: &str, about: &About, visitor: Visitor<'_>) {
        for namespace in self {
            namespace.rules.visit(&join(path, &namespace.name), about, &mut *visitor);
        }
    }
}
