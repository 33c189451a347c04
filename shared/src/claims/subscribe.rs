//! What a subscription token says: one room, opened for one user. Knows how its claims are spelt and what they mean
//! together, not which room was asked for.

use std::ops::Deref;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use super::{ClaimsError, RegisteredClaims, SubscribeOptions, Verbs, expires_at, read};
use crate::protocol::reply::is_default;

/// Claims of a subscription token. `sub` has to be the user of the connection; `channel` and `client` are to be compared
/// with what is asked for. Claims not named here are passed over; one that is `null` is absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, remote = "Self")]
pub struct SubscribeClaims {
    /// What any token may say.
    #[serde(flatten, skip_deserializing)]
    pub registered: RegisteredClaims,
    /// The room the token opens.
    #[serde(skip_serializing_if = "is_default", deserialize_with = "read::room")]
    pub channel: String,
    /// The only client it opens the room for; empty for any client of the user.
    #[serde(skip_serializing_if = "is_default", deserialize_with = "read::client")]
    pub client: String,
    /// When the subscription ends, apart from the token; not above zero: never.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "read::expire_at")]
    pub expire_at: Option<i64>,
    /// What the client may do in the room beside being in it.
    #[serde(skip_serializing_if = "is_default", deserialize_with = "read::allow")]
    pub allow: Verbs,
    /// How the client is subscribed.
    #[serde(flatten, skip_deserializing)]
    pub options: SubscribeOptions,
}

impl SubscribeClaims {
    /// When the subscription ends, in seconds since 1970, or `None` for never. `expire_at` goes before `exp`.
    pub fn expires_at(&self) -> Option<i64> {
        expires_at(self.expire_at, self.registered.exp)
    }

    /// Checks what the types alone do not say.
    pub fn validate(&self) -> Result<(), ClaimsError> {
        if self.channel.is_empty() {
            return Err(ClaimsError::NoChannel);
        }
        self.options.check_depth("info", "data")
    }
}

/// The registered claims are the token's own; most of what asks for claims asks for these.
impl Deref for SubscribeClaims {
    type Target = RegisteredClaims;

    fn deref(&self) -> &RegisteredClaims {
        &self.registered
    }
}

impl<'de> Deserialize<'de> for SubscribeClaims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = read::text(deserializer)?;
        let own = Self::deserialize(&mut serde_json::Deserializer::from_str(text)).map_err(D::Error::custom)?;
        let (registered, options) = (read::part(text)?, read::part(text)?);
        Ok(Self { registered, options, ..own })
    }
}

impl Serialize for SubscribeClaims {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{
        super::{Switch, Verb},
        *,
    };

    fn read(text: &str) -> Result<SubscribeClaims, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_full_token_is_read_and_written_back() {
        let text = r#"{"sub":"u1","exp":1700000000,"nbf":1,"iat":2,"jti":"t","aud":["a","b"],"iss":"i","channel":"$r","client":"c","expire_at":3,"allow":["pub","hst"],"info":{"n": 1},"b64info":"AP8=","data":[ 1],"b64data":"Ag==","override":{"presence":{"value":true},"force_recovery":{"value":false}}}"#;
        let claims = read(text).unwrap();
        assert_eq!((claims.sub.as_str(), claims.channel.as_str(), claims.client.as_str()), ("u1", "$r", "c"));
        assert_eq!(claims.options.info.as_deref(), Some(&br#"{"n": 1}"#[..]));
        assert_eq!(claims.options.info_bytes(), &[0, 255][..]);
        assert_eq!(claims.options.data_bytes(), &[2][..]);
        assert_eq!(claims.options.overrides.unwrap().force_recovery, Some(Switch { value: false }));
        assert!(claims.allow.contains(Verb::Publish) && !claims.allow.contains(Verb::Presence));
        assert_eq!(serde_json::to_string(&claims).unwrap(), text);
        assert_eq!(claims.validate(), Ok(()));
    }

    #[test]
    fn an_empty_token_and_one_of_nulls_open_no_room() {
        let nulls = r#"{"sub":null,"exp":null,"iat":null,"expire_at":null,"aud":null,"info":null,"b64info":null,"data":null,"b64data":null,"override":null,"channel":null,"client":null,"allow":null,"unknown":[{}]}"#;
        for text in ["{}", nulls, r#"{"channel":""}"#] {
            assert_eq!(read(text), Ok(SubscribeClaims::default()), "{text}");
            assert_eq!(read(text).unwrap().validate(), Err(ClaimsError::NoChannel), "{text}");
        }
        assert_eq!(serde_json::to_string(&SubscribeClaims::default()).unwrap(), "{}");
    }

    #[test]
    fn a_claim_of_the_wrong_type_is_named() {
        for (claim, value) in [
            ("sub", "42"),
            ("exp", r#""1700000000""#),
            ("expire_at", r#""0""#),
            ("channel", "7"),
            ("client", "[]"),
            ("allow", r#""pub""#),
            ("allow", r#"["publish"]"#),
            ("b64info", r#""?""#),
            ("b64data", "5"),
        ] {
            let error = read(&format!(r#"{{"{claim}":{value}}}"#)).unwrap_err();
            assert!(error.starts_with(&format!("claim `{claim}`: ")), "{error}");
        }
        for bad in [r#"{"override":{"presence":true}}"#, r#"["u1"]"#, "7", r#"{"channel":"a","channel":"b"}"#] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn expire_at_goes_before_exp() {
        for (text, expires_at) in [
            ("{}", None),
            (r#"{"exp":5}"#, Some(5)),
            (r#"{"exp":5,"expire_at":9}"#, Some(9)),
            (r#"{"exp":5,"expire_at":0}"#, None),
        ] {
            assert_eq!(read(text).unwrap().expires_at(), expires_at, "{text}");
        }
    }

    #[test]
    fn payloads_are_bounded_in_depth() {
        let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        for claim in ["info", "data"] {
            let validate =
                |depth| read(&format!(r#"{{"channel":"a","{claim}":{}}}"#, nested(depth))).unwrap().validate();
            assert_eq!(validate(128), Ok(()));
            assert_eq!(validate(129), Err(ClaimsError::TooDeep { claim }));
        }
        assert_eq!(SubscribeOptions::default().info_bytes(), Bytes::new());
    }
}
