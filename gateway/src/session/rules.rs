//! What a client may do in a room, by its name, the rules set for it, and what its token allows (docs/PROTOCOL.md, rooms).

use std::{ops::Deref, sync::Arc};

use arc_swap::Guard;
use roomcast_shared::{
    claims::Verb,
    protocol::code::ErrorCode,
    room::{RoomName, Separators},
};

use super::{Context, Session};
use crate::config::{RoomRules, Settings};

/// The rules of a room as they are now; those of a later reload are not seen through it.
pub struct Rules {
    settings: Guard<Arc<Settings>>,
    namespace: Option<usize>,
}

impl Deref for Rules {
    type Target = RoomRules;

    fn deref(&self) -> &RoomRules {
        match self.namespace {
            Some(place) => &self.settings.namespaces[place].rules,
            None => &self.settings.rooms,
        }
    }
}

impl Context {
    /// The rules of a room.
    ///
    /// # Errors
    /// 102 for a namespace that is not declared, 107 for a name that no room can have.
    pub fn rules_of<'a>(&self, room: &'a str) -> Result<(RoomName<'a>, Rules), ErrorCode> {
        let name = RoomName::new(room, Separators::DEFAULT);
        name.check_length(self.settings.channel.max_length).map_err(|_| ErrorCode::BAD_REQUEST)?;
        let settings = self.current();
        let namespace = settings.namespace(name.namespace()).ok_or(ErrorCode::UNKNOWN_CHANNEL)?;
        let rules = Rules { settings, namespace };
        let named_well = match &rules.channel_regex {
            Some(pattern) => pattern.matches(name.rest()),
            None => name.check_ascii().is_ok(),
        };
        if named_well { Ok((name, rules)) } else { Err(ErrorCode::BAD_REQUEST) }
    }
}

impl Session {
    /// Whether the client may publish in the room.
    pub(super) fn may_publish(&self, room: &str) -> Result<Rules, ErrorCode> {
        let (_, rules) = self.context.rules_of(room)?;
        self.decide(self.may(room, &rules, Verb::Publish, self.place_of(room).is_some()))?;
        Ok(rules)
    }

    /// Whether the client may ask who is in the room.
    pub(super) fn may_read_presence(&self, room: &str) -> Result<(), ErrorCode> {
        let (_, rules) = self.context.rules_of(room)?;
        if !rules.presence {
            return Err(ErrorCode::NOT_AVAILABLE);
        }
        self.decide(self.may(room, &rules, Verb::Presence, self.place_of(room).is_some()))
    }

    /// Whether the client may ask what was said in the room.
    pub(super) fn may_read_history(&self, room: &str) -> Result<Rules, ErrorCode> {
        let (_, rules) = self.context.rules_of(room)?;
        if !rules.keeps_history() {
            return Err(ErrorCode::NOT_AVAILABLE);
        }
        self.decide(self.may(room, &rules, Verb::History, self.place_of(room).is_some()))?;
        Ok(rules)
    }

    /// Whether rules or token allow this in the room, to a client that is in it or is about to be, or to one that is not.
    pub(super) fn may(&self, room: &str, rules: &RoomRules, verb: Verb, as_subscriber: bool) -> bool {
        let (client, subscriber, anonymous) = match verb {
            Verb::Subscribe => (rules.allow_subscribe_for_client, false, rules.allow_subscribe_for_anonymous),
            Verb::Publish => {
                (rules.allow_publish_for_client, rules.allow_publish_for_subscriber, rules.allow_publish_for_anonymous)
            }
            Verb::Presence => (
                rules.allow_presence_for_client,
                rules.allow_presence_for_subscriber,
                rules.allow_presence_for_anonymous,
            ),
            Verb::History => {
                (rules.allow_history_for_client, rules.allow_history_for_subscriber, rules.allow_history_for_anonymous)
            }
        };
        let known = !self.user().is_empty() || anonymous;
        (known && (client || (subscriber && as_subscriber)))
            || self.caps.allows(room, verb)
            || self.place_of(room).is_some_and(|place| self.subscriptions[place].allows(verb))
            || self.context.settings.client.insecure
    }

    fn decide(&self, allowed: bool) -> Result<(), ErrorCode> {
        if allowed || self.context.settings.client.insecure { Ok(()) } else { Err(ErrorCode::PERMISSION_DENIED) }
    }

    pub(super) fn user(&self) -> &str {
        self.identity().map_or("", |identity| &identity.user)
    }
}
