//! What a subscription is: by the rules of its room, by what the client asks for, and by what a token says instead. Pure:
//! knows no room and no broker.

use roomcast_shared::{
    claims::{Overrides, Switch},
    protocol::command::SubscribeRequest,
};

use crate::{
    config::{RecoveryMode, RoomRules, SlowConsumer},
    hub::SlowPolicy,
};

/// What one subscription is granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    /// What is kept of its place in the room's history.
    pub(super) memory: Memory,
    /// Whether the client is among those who are in the room.
    pub(super) presence: bool,
    /// Whether others are told when it comes and goes.
    pub(super) announced: bool,
    /// Whether it is told when others come and go.
    pub(super) told: bool,
    /// What happens when the client reads too slowly.
    pub(super) slow: SlowPolicy,
}

/// What is kept of a subscription's place in the room's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Memory {
    /// Nothing.
    None,
    /// The position: the client is told when it missed something.
    Position,
    /// The same, and the client is given what it missed when it comes back.
    Recovery,
    /// The same with the newest publication in the place of all that was missed. `always`: also to a client that comes for
    /// the first time.
    Cache {
        /// Whether nobody has to ask.
        always: bool,
    },
}

/// What a client asks for when it subscribes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wishes {
    pub(super) positioned: bool,
    pub(super) recoverable: bool,
    /// To be told when others come and go.
    pub(super) join_leave: bool,
}

/// What a client may ask about a room it is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Access {
    pub(super) history: bool,
    pub(super) presence: bool,
}

impl Terms {
    /// What the rules of a room grant to everybody, with the changes a token makes.
    pub(super) fn granted(rules: &RoomRules, overrides: Option<&Overrides>) -> Self {
        Self::asked(rules, overrides, Wishes::default(), Access::default())
    }

    /// The same, with what the client asks for as far as it may.
    pub(super) fn asked(rules: &RoomRules, overrides: Option<&Overrides>, wishes: Wishes, access: Access) -> Self {
        let none = Overrides::default();
        let said = overrides.unwrap_or(&none);
        let or = |switch: Option<Switch>, rule| switch.map_or(rule, |switch| switch.value);
        let recovery = or(said.force_recovery, rules.force_recovery)
            || (wishes.recoverable && (rules.allow_recovery || access.history));
        let position = or(said.force_positioning, rules.force_positioning)
            || (wishes.positioned && (rules.allow_positioning || access.history));
        Self {
            memory: Memory::new(rules, position, recovery),
            presence: or(said.presence, rules.presence),
            announced: or(said.join_leave, rules.join_leave),
            told: or(said.force_push_join_leave, rules.force_push_join_leave)
                || (wishes.join_leave && rules.join_leave && access.presence),
            slow: match rules.slow_consumer {
                SlowConsumer::Close => SlowPolicy::Close,
                SlowConsumer::Resync => SlowPolicy::Resync,
                SlowConsumer::Latest => SlowPolicy::Latest,
            },
        }
    }
}

impl Memory {
    /// A room without history has no positions, whoever asks for them.
    fn new(rules: &RoomRules, position: bool, recovery: bool) -> Self {
        match (rules.keeps_history(), recovery, position) {
            (false, ..) | (_, false, false) => Self::None,
            (_, true, _) if rules.force_recovery_mode == RecoveryMode::Cache => {
                Self::Cache { always: rules.auto_cache_recover }
            }
            (_, true, _) => Self::Recovery,
            (_, false, true) => Self::Position,
        }
    }

    /// Whether the client's position is watched.
    pub(super) fn is_positioned(self) -> bool {
        self != Self::None
    }

    /// Whether the client is given something of what it missed.
    pub(super) fn is_recoverable(self) -> bool {
        matches!(self, Self::Recovery | Self::Cache { .. })
    }
}

impl From<&SubscribeRequest> for Wishes {
    fn from(request: &SubscribeRequest) -> Self {
        Self { positioned: request.positioned, recoverable: request.recoverable, join_leave: request.join_leave }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const ALL: Wishes = Wishes { positioned: true, recoverable: true, join_leave: true };
    const ANY: Access = Access { history: true, presence: true };

    fn remembering() -> RoomRules {
        RoomRules { history_size: 10, history_ttl: Duration::from_mins(5), ..RoomRules::default() }
    }

    fn memory(rules: &RoomRules, wishes: Wishes, access: Access) -> Memory {
        Terms::asked(rules, None, wishes, access).memory
    }

    #[test]
    fn what_is_forced_is_granted_and_what_is_allowed_has_to_be_asked_for() {
        let forced = RoomRules { force_positioning: true, ..remembering() };
        assert_eq!(memory(&forced, Wishes::default(), Access::default()), Memory::Position);
        let allowed = RoomRules { allow_positioning: true, allow_recovery: true, ..remembering() };
        assert_eq!(memory(&allowed, Wishes::default(), Access::default()), Memory::None);
        assert_eq!(memory(&allowed, ALL, Access::default()), Memory::Recovery);
        let position = Wishes { positioned: true, ..Wishes::default() };
        assert_eq!(memory(&allowed, position, Access::default()), Memory::Position);
        assert_eq!(memory(&remembering(), ALL, Access::default()), Memory::None);
        assert_eq!(memory(&remembering(), ALL, ANY), Memory::Recovery, "who may read the history may ask");
    }

    #[test]
    fn a_room_without_history_has_no_positions() {
        let rules = RoomRules { force_recovery: true, history_size: 10, ..RoomRules::default() };
        assert_eq!(memory(&rules, ALL, ANY), Memory::None);
    }

    #[test]
    fn the_mode_says_what_is_given_back() {
        let cache = RoomRules { force_recovery: true, force_recovery_mode: RecoveryMode::Cache, ..remembering() };
        assert_eq!(memory(&cache, Wishes::default(), ANY), Memory::Cache { always: false });
        let always = RoomRules { auto_cache_recover: true, ..cache };
        assert_eq!(memory(&always, Wishes::default(), ANY), Memory::Cache { always: true });
        let position = RoomRules { force_recovery: false, force_positioning: true, ..always };
        assert_eq!(memory(&position, Wishes::default(), ANY), Memory::Position);
    }

    #[test]
    fn a_token_changes_what_the_rules_force() {
        let rules = RoomRules { presence: true, force_push_join_leave: true, force_recovery: true, ..remembering() };
        let (on, off) = (Some(Switch { value: true }), Some(Switch { value: false }));
        let said = Overrides {
            presence: off,
            join_leave: on,
            force_push_join_leave: off,
            force_recovery: off,
            force_positioning: on,
        };
        let wanted =
            Terms { memory: Memory::Position, presence: false, announced: true, told: false, slow: SlowPolicy::Close };
        assert_eq!(Terms::granted(&rules, Some(&said)), wanted);
        let as_ruled = Terms { memory: Memory::Recovery, presence: true, announced: false, told: true, ..wanted };
        assert_eq!(Terms::granted(&rules, None), as_ruled);
    }

    #[test]
    fn who_may_not_see_others_is_not_told_of_them() {
        let rules = RoomRules { join_leave: true, ..RoomRules::default() };
        assert!(Terms::asked(&rules, None, ALL, ANY).told);
        assert!(!Terms::asked(&rules, None, ALL, Access::default()).told);
        assert!(!Terms::asked(&RoomRules::default(), None, ALL, ANY).told, "nobody is announced there");
    }
}
