//! Who may enter a room by itself, and as what: by a token for the room, by the capabilities of the connection, by the rules
//! of the room, or by the word of the backend (docs/PROTOCOL.md, subscribing).

use bytes::Bytes;
use roomcast_shared::{
    claims::{Overrides, SubscribeClaims, Verb, Verbs},
    protocol::{
        code::{Disconnect, ErrorCode},
        command::SubscribeRequest,
    },
    room::RoomName,
};

use super::{Busy, Done, Replies, Session, Step, expiry::Expiry, personal::PersonalRooms, revoked::Mark};
use crate::{
    config::{HookUrl, RoomRules},
    hooks::{self, SubscribeAnswer, SubscribeCall},
};

/// As what a client enters a room.
#[derive(Default)]
pub(super) struct Grant {
    /// What others in the room are told of it; empty for nothing.
    pub(super) info: Bytes,
    /// What it is told with the subscription; empty for nothing.
    pub(super) data: Bytes,
    /// Rules of the room that are other ones for it.
    pub(super) overrides: Option<Overrides>,
    /// When it is out again.
    pub(super) expiry: Expiry,
    /// What it may do in the room beside what the rules say.
    pub(super) allow: Verbs,
    /// The token that says so, where one does.
    pub(super) mark: Option<Mark>,
}

/// What is known of a client that wants to enter.
pub(super) enum Admittance {
    /// It may.
    Granted(Grant),
    /// The backend has to be asked, at an address of the room's own if it has one.
    Ask(Option<HookUrl>),
}

/// Why a client does not get what it asks for.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It is answered so.
    Error(ErrorCode),
    /// Its connection is closed.
    Close(Disconnect),
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Self {
        Self::Error(code)
    }
}

impl From<hooks::Refusal> for Refusal {
    fn from(refusal: hooks::Refusal) -> Self {
        match refusal {
            hooks::Refusal::Error(code) => Self::Error(code),
            hooks::Refusal::Disconnect(disconnect) => Self::Close(disconnect),
            hooks::Refusal::Unavailable => Self::Error(ErrorCode::INTERNAL),
        }
    }
}

/// What the rules say to a client that brings no token for the room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Open,
    Ask,
    Closed,
}

/// Decides by the rules. The order matters: a list of users in the name stands before the backend, and both before what is
/// allowed to everybody.
fn decide(name: RoomName<'_>, rules: &RoomRules, user: &str, personal: &PersonalRooms<'_>) -> Verdict {
    let by = |allowed| if allowed { Verdict::Open } else { Verdict::Closed };
    if name.is_private() {
        return Verdict::Closed;
    }
    if rules.allow_user_limited_channels && name.users().is_some() {
        return by(!user.is_empty() && name.allows_user(user));
    }
    if rules.subscribe_hook {
        return Verdict::Ask;
    }
    if let Some(owner) = personal.owner_of(name.as_str()) {
        return by(!user.is_empty() && owner == user);
    }
    by(rules.allow_subscribe_for_client && (!user.is_empty() || rules.allow_subscribe_for_anonymous))
}

impl Session {
    /// Whether the client may enter the room, and as what.
    pub(super) fn admittance(&self, request: &SubscribeRequest) -> Result<Admittance, Refusal> {
        let (name, rules) = self.context.rules_of(&request.channel)?;
        let settings = &self.context.settings.client;
        let without_keys = settings.insecure && self.context.verifier.is_none();
        if !request.token.is_empty() && !without_keys {
            return self.by_token(request).map(Admittance::Granted);
        }
        if self.caps.allows(&request.channel, Verb::Subscribe) {
            return Ok(Admittance::Granted(Grant::default()));
        }
        match decide(name, &rules, self.user(), &PersonalRooms::of(settings)) {
            Verdict::Open => Ok(Admittance::Granted(Grant::default())),
            Verdict::Ask => Ok(Admittance::Ask(rules.subscribe_hook_url.clone())),
            Verdict::Closed if settings.insecure => Ok(Admittance::Granted(Grant::default())),
            Verdict::Closed => Err(ErrorCode::PERMISSION_DENIED.into()),
        }
    }

    fn by_token(&self, request: &SubscribeRequest) -> Result<Grant, Refusal> {
        let claims = self.subscription_claims(&request.channel, &request.token, ErrorCode::TOKEN_EXPIRED)?;
        let claims = claims.ok_or(ErrorCode::PERMISSION_DENIED)?;
        Ok(Grant {
            info: claims.options.info_bytes(),
            data: claims.options.data_bytes(),
            overrides: claims.options.overrides,
            expiry: Expiry::until(claims.expires_at()).ok_or(ErrorCode::EXPIRED)?,
            allow: claims.allow,
            mark: Some(Mark::of(&claims.registered)),
        })
    }

    /// What a token for this room says to this client; `None` where it is no good, and `expired` where it was.
    pub(super) fn subscription_claims(
        &self,
        room: &str,
        token: &str,
        expired: ErrorCode,
    ) -> Result<Option<SubscribeClaims>, Refusal> {
        let Some(verifier) = &self.context.verifier else { return Ok(None) };
        let claims = match verifier.verify_subscription(token) {
            Ok(claims) => claims,
            Err(error) => {
                tracing::debug!(client = %self.client, room, "subscription token refused: {error}");
                return match () {
                    () if error.is_expired() => Err(expired.into()),
                    () if error.is_temporary() => Err(ErrorCode::INTERNAL.into()),
                    () => Ok(None),
                };
            }
        };
        let own = claims.client.is_empty() || claims.client == self.client.to_string();
        if claims.channel != room || claims.sub != self.user() || !own {
            tracing::debug!(client = %self.client, room, "subscription token refused: it is for another room or client");
            return Err(Refusal::Close(Disconnect::INVALID_TOKEN));
        }
        match self.context.revoked.refusal_of(&claims.registered) {
            Some(disconnect) => Err(Refusal::Close(disconnect)),
            None => Ok(Some(claims)),
        }
    }

    /// Asks the backend whether the client may enter. Its other commands for the room wait.
    pub(super) fn ask_to_enter(&mut self, id: u32, request: SubscribeRequest, own: Option<HookUrl>) -> Step {
        let (context, caller) = (self.context.clone(), self.caller());
        let room = request.channel.clone();
        self.pending().start(&room, Busy::Subscribing, async move {
            let call = SubscribeCall { room: &request.channel, token: "", data: &request.data };
            let answer = match &context.hooks {
                Some(hooks) => hooks.subscribe(&caller, own.as_ref(), &call).await,
                None => Err(hooks::Refusal::Error(ErrorCode::NOT_AVAILABLE)),
            };
            Done::then(move |session, replies| session.let_in(id, request, answer, replies))
        });
        Step::Done
    }

    fn let_in(
        &mut self,
        id: u32,
        request: SubscribeRequest,
        answer: Result<SubscribeAnswer, hooks::Refusal>,
        replies: &mut Replies<'_>,
    ) -> Result<Step, Disconnect> {
        let grant = answer.map_err(Refusal::from).and_then(|SubscribeAnswer { options, allow }| {
            let expiry = Expiry::until(options.expires_at).ok_or(ErrorCode::EXPIRED)?;
            let overrides = Some(options.overrides);
            Ok(Grant { info: options.info, data: options.data, overrides, expiry, allow, mark: None })
        });
        match grant {
            Ok(grant) => self.granted(id, request, grant, replies),
            Err(refusal) => self.turn_down(id, "subscribe", refusal, replies),
        }
    }

    /// Answers a command with an error, or closes the connection because of it.
    pub(super) fn turn_down(
        &self,
        id: u32,
        method: &'static str,
        refusal: Refusal,
        replies: &mut Replies<'_>,
    ) -> Result<Step, Disconnect> {
        match refusal {
            Refusal::Error(code) => self.refused(id, method, code, replies),
            Refusal::Close(disconnect) => {
                self.context.commands.count(method, "disconnect");
                Err(disconnect)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use roomcast_shared::room::Separators;

    use super::*;

    const NOBODYS: PersonalRooms<'static> = PersonalRooms::NONE;

    fn verdict(name: &str, rules: &RoomRules, user: &str) -> Verdict {
        decide(RoomName::new(name, Separators::DEFAULT), rules, user, &NOBODYS)
    }

    fn rules() -> impl Strategy<Value = RoomRules> {
        (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(client, anonymous, limited, hook)| {
            RoomRules {
                allow_subscribe_for_client: client,
                allow_subscribe_for_anonymous: anonymous,
                allow_user_limited_channels: limited,
                subscribe_hook: hook,
                ..RoomRules::default()
            }
        })
    }

    fn user() -> impl Strategy<Value = String> {
        prop_oneof![Just(String::new()), "[a-c]{1,2}"]
    }

    proptest! {
        #[test]
        fn no_rule_opens_a_private_room(rest in "[a-c:#,]{0,8}", rules in rules(), user in user()) {
            prop_assert_eq!(verdict(&format!("${rest}"), &rules, &user), Verdict::Closed);
        }

        #[test]
        fn without_rules_nothing_is_open(name in "[a-c:#,]{1,8}", user in user()) {
            prop_assert_eq!(verdict(&name, &RoomRules::default(), &user), Verdict::Closed);
        }

        #[test]
        fn a_list_of_users_is_the_last_word(
            users in proptest::collection::vec("[a-c]{0,2}", 1..4),
            rules in rules(),
            user in user(),
        ) {
            let rules = RoomRules { allow_user_limited_channels: true, ..rules };
            let listed = !user.is_empty() && users.contains(&user);
            let wanted = if listed { Verdict::Open } else { Verdict::Closed };
            prop_assert_eq!(verdict(&format!("r#{}", users.join(",")), &rules, &user), wanted);
        }

        /// Where names are of no account, the rules alone decide, and in this order.
        #[test]
        fn plain_rooms_follow_hook_client_and_anonymous(name in "[a-c]{1,8}", rules in rules(), user in user()) {
            let wanted = match (&rules, user.is_empty()) {
                (RoomRules { subscribe_hook: true, .. }, _) => Verdict::Ask,
                (RoomRules { allow_subscribe_for_client: false, .. }, _) => Verdict::Closed,
                (RoomRules { allow_subscribe_for_anonymous: anonymous, .. }, true) if !anonymous => Verdict::Closed,
                _ => Verdict::Open,
            };
            prop_assert_eq!(verdict(&name, &rules, &user), wanted);
        }

        /// Whatever is allowed beside, what was open stays open.
        #[test]
        fn a_further_permission_closes_nothing(name in "[a-c]{1,4}", rules in rules(), user in user()) {
            let more = RoomRules {
                allow_subscribe_for_client: true,
                allow_subscribe_for_anonymous: true,
                ..rules.clone()
            };
            if verdict(&name, &rules, &user) == Verdict::Open {
                prop_assert_eq!(verdict(&name, &more, &user), Verdict::Open);
            }
        }

        #[test]
        fn the_room_of_one_user_is_not_open_to_others(owner in "[a-c]{1,3}", user in user(), rules in rules()) {
            let rules = RoomRules { subscribe_hook: false, allow_user_limited_channels: false, ..rules };
            let name = format!("mine:{owner}");
            let name = RoomName::new(&name, Separators::DEFAULT);
            let wanted = if owner == user { Verdict::Open } else { Verdict::Closed };
            prop_assert_eq!(decide(name, &rules, &user, &PersonalRooms::named("mine:{user}")), wanted);
        }
    }
}
