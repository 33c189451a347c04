//! Personal rooms: the one room of every user, in which each of its connections is from the start. Pure: knows how they are
//! named, and whose they are.

use crate::config::Client;

/// What stands for the user in the name.
const USER: &str = "{user}";

/// How personal rooms are named, where there are any.
pub(super) struct PersonalRooms<'a>(Option<(&'a str, &'a str)>);

impl<'a> PersonalRooms<'a> {
    /// There are none.
    #[cfg(test)]
    pub(super) const NONE: Self = Self(None);

    /// Those of these settings.
    pub(super) fn of(settings: &'a Client) -> Self {
        if settings.personal_rooms { Self::named(&settings.personal_room_name) } else { Self(None) }
    }

    /// Those of names of this form.
    pub(super) fn named(form: &'a str) -> Self {
        Self(form.split_once(USER))
    }

    /// The room of a user; anonymous ones have none.
    pub(super) fn room_of(&self, user: &str) -> Option<String> {
        let (before, behind) = self.0.filter(|_| !user.is_empty())?;
        Some([before, user, behind].concat())
    }

    /// Whose personal room that is, if it is one.
    pub(super) fn owner_of<'n>(&self, room: &'n str) -> Option<&'n str> {
        let (before, behind) = self.0?;
        room.strip_prefix(before)?.strip_suffix(behind).filter(|owner| !owner.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nobody_in_particular_has_no_room() {
        assert_eq!(PersonalRooms::named("#{user}").room_of(""), None);
        assert_eq!(PersonalRooms::NONE.room_of("ann"), None);
        assert_eq!(PersonalRooms::named("#{user}").room_of("ann").as_deref(), Some("#ann"));
        assert_eq!(PersonalRooms::named("#{user}").owner_of("lobby"), None);
        assert_eq!(PersonalRooms::named("p:{user}:x").owner_of("p::x"), None);
    }

    proptest! {
        #[test]
        fn the_room_of_a_user_is_that_users(before in "[a-z:#]{0,4}", behind in "[a-z:]{0,4}", user in "\\PC{1,10}") {
            let form = format!("{before}{{user}}{behind}");
            let rooms = PersonalRooms::named(&form);
            let room = rooms.room_of(&user).unwrap();
            prop_assert_eq!(rooms.owner_of(&room), Some(user.as_str()));
        }
    }
}
