//! What a client may do in a room, by its name and the rules set for it (docs/PROTOCOL.md, rooms).

use roomcast_shared::{
    protocol::code::ErrorCode,
    room::{RoomName, Separators},
};

use super::{Context, Session};
use crate::config::RoomRules;

impl Context {
    /// The rules of a room.
    ///
    /// # Errors
    /// 102 for a namespace that is not declared, 107 for a name that no room can have.
    pub fn rules_of<'a>(&'a self, room: &'a str) -> Result<(RoomName<'a>, &'a RoomRules), ErrorCode> {
        let name = RoomName::new(room, Separators::DEFAULT);
        name.check_length(self.settings.channel.max_length).map_err(|_| ErrorCode::BAD_REQUEST)?;
        let rules = self.settings.rules(name.namespace()).ok_or(ErrorCode::UNKNOWN_CHANNEL)?;
        name.check_ascii().map_err(|_| ErrorCode::BAD_REQUEST)?;
        Ok((name, rules))
    }
}

impl Session {
    /// Whether the client may enter the room by itself.
    pub(super) fn may_subscribe(&self, room: &str) -> Result<(), ErrorCode> {
        let (name, rules) = self.context.rules_of(room)?;
        let user = self.user();
        let allowed = if name.is_private() {
            false
        } else if rules.allow_user_limited_channels && name.users().is_some() {
            !user.is_empty() && name.allows_user(user)
        } else {
            rules.allow_subscribe_for_client && (!user.is_empty() || rules.allow_subscribe_for_anonymous)
        };
        self.decide(allowed)
    }

    /// Whether the client may publish in the room.
    pub(super) fn may_publish(&self, room: &str) -> Result<(), ErrorCode> {
        let (_, rules) = self.context.rules_of(room)?;
        let known = !self.user().is_empty() || rules.allow_publish_for_anonymous;
        let allowed =
            rules.allow_publish_for_client || (rules.allow_publish_for_subscriber && self.place_of(room).is_some());
        self.decide(known && allowed)
    }

    fn decide(&self, allowed: bool) -> Result<(), ErrorCode> {
        if allowed || self.context.settings.client.insecure { Ok(()) } else { Err(ErrorCode::PERMISSION_DENIED) }
    }

    fn user(&self) -> &str {
        self.identity().map_or("", |identity| &identity.user)
    }
}
