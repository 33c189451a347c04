//! Secret names of sessions: whoever knows one may speak for the session. A name is the session's id, which others may know,
//! and a code over it that only this node can make, so that nothing has to be kept for it.

use aws_lc_rs::{hmac, rand::SystemRandom};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use uuid::Uuid;

use super::Session;

/// Bytes of the code: as hard to guess as a key of 128 bits.
const CODE: usize = 16;

/// Makes and checks the secret names of one node's sessions.
pub struct SecretNames(hmac::Key);

impl Default for SecretNames {
    /// With a random key, which ends with the node as its sessions do.
    fn default() -> Self {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        Self(key.expect("the system has random numbers"))
    }
}

impl SecretNames {
    /// The name of a session.
    pub fn name(&self, client: Uuid) -> String {
        let code = hmac::sign(&self.0, client.as_bytes());
        BASE64.encode([client.as_bytes(), &code.as_ref()[..CODE]].concat())
    }

    /// The session of that name; nothing where this node did not make it.
    pub fn client(&self, name: &str) -> Option<Uuid> {
        let bytes = BASE64.decode(name).ok()?;
        let (id, code) = bytes.split_first_chunk::<CODE>()?;
        let made = hmac::sign(&self.0, id);
        aws_lc_rs::constant_time::verify_slices_are_equal(&made.as_ref()[..CODE], code).ok()?;
        Some(Uuid::from_bytes(*id))
    }
}

impl Session {
    /// The name told to a client over whose connection no commands come; empty for others, who need none.
    pub(super) fn secret_name(&self) -> String {
        let needs_one = self.wire.is_unidirectional() || !self.wire.is_websocket();
        if needs_one { self.context.names.name(self.client) } else { String::new() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_leads_to_its_session_on_its_node_alone() {
        let (names, others) = (SecretNames::default(), SecretNames::default());
        let client = Uuid::new_v4();
        let name = names.name(client);
        assert_eq!(names.client(&name), Some(client));
        assert_eq!(others.client(&name), None);
        assert_eq!(names.client(&client.to_string()), None);
        assert!(!name.contains(&client.to_string()) && name != names.name(Uuid::new_v4()));
    }

    proptest! {
        #[test]
        fn a_name_with_anything_changed_is_none(place in 0..43_usize, letter in "[A-Za-z0-9_-]") {
            let names = SecretNames::default();
            let name = names.name(Uuid::new_v4());
            let changed = [&name[..place], &letter, &name[place + 1..]].concat();
            prop_assert_eq!(names.client(&changed).is_some(), changed == name);
        }

        #[test]
        fn any_text_is_no_name(text in "\\PC{0,60}") {
            prop_assert_eq!(SecretNames::default().client(&text), None);
        }
    }
}
