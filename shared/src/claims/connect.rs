//! What a connection token says: who the client is, which rooms it is put into, and what it may do. Knows how its claims
//! are spelt and what they mean together.

use std::{collections::BTreeMap, ops::Deref};

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use super::{Caps, ClaimsError, RegisteredClaims, SubscribeOptions, check_depth, expires_at, prefer, read, write};

/// Claims of a connection token (RFC 7519 and the extensions of this protocol). Claims not named here are passed over; one
/// that is `null` is absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, remote = "Self")]
pub struct ConnectClaims {
    /// What any token may say.
    #[serde(flatten, skip_deserializing)]
    pub registered: RegisteredClaims,
    /// When the connection ends, apart from the token; not above zero: never.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "read::expire_at")]
    pub expire_at: Option<i64>,
    /// What other clients are told of this one: JSON.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "read::payload",
        serialize_with = "write::json_text"
    )]
    pub info: Option<Bytes>,
    /// The same as any bytes, base64 in the token; goes before `info`.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "read::b64info",
        serialize_with = "write::base64_text"
    )]
    pub b64info: Option<Bytes>,
    /// Rooms the client is subscribed to by connecting.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "read::channels")]
    pub channels: Vec<String>,
    /// The same with options; where there are any, `channels` is passed over.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "read::subs")]
    pub subs: BTreeMap<String, SubscribeOptions>,
    /// What backends are told of the connection and no client: JSON.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "read::payload",
        serialize_with = "write::json_text"
    )]
    pub meta: Option<Bytes>,
    /// What the client may do in which rooms, beside what their rules allow.
    #[serde(skip_serializing_if = "Caps::is_empty", deserialize_with = "read::caps")]
    pub caps: Caps,
    /// The room of a subscription token, which must not pass for a connection token.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "read::channel")]
    pub channel: Option<String>,
}

impl ConnectClaims {
    /// What other clients are told of this one: `b64info` if it is there and not empty, else `info`, else nothing.
    pub fn info_bytes(&self) -> Bytes {
        prefer(self.b64info.as_ref(), self.info.as_ref())
    }

    /// When the connection ends, in seconds since 1970, or `None` for never. `expire_at` goes before `exp`.
    pub fn expires_at(&self) -> Option<i64> {
        expires_at(self.expire_at, self.registered.exp)
    }

    /// Checks what the types alone do not say.
    pub fn validate(&self) -> Result<(), ClaimsError> {
        if self.channel.as_deref().is_some_and(|room| !room.is_empty()) {
            return Err(ClaimsError::Channel);
        }
        check_depth("info", self.info.as_ref())?;
        check_depth("meta", self.meta.as_ref())?;
        self.subs.values().try_for_each(|options| options.check_depth("subs.info", "subs.data"))
    }
}

/// The registered claims are the token's own; most of what asks for claims asks for these.
impl Deref for ConnectClaims {
    type Target = RegisteredClaims;

    fn deref(&self) -> &RegisteredClaims {
        &self.registered
    }
}

impl<'de> Deserialize<'de> for ConnectClaims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = read::text(deserializer)?;
        let own = Self::deserialize(&mut serde_json::Deserializer::from_str(text)).map_err(D::Error::custom)?;
        Ok(Self { registered: read::part(text)?, ..own })
    }
}

impl Serialize for ConnectClaims {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Switch, Verb},
        *,
    };

    fn read(text: &str) -> Result<ConnectClaims, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_full_token_is_read_and_written_back() {
        let text = r#"{"sub":"u1","exp":1700000000,"nbf":1,"iat":2,"jti":"t","aud":["a","b"],"iss":"i","expire_at":3,"info":{"n": 1},"b64info":"AP8=","channels":["a"],"subs":{"r":{"info":[1],"b64info":"AQ==","data":"d","b64data":"Ag==","override":{"presence":{"value":true},"force_recovery":{"value":false}}}},"meta":{"k":null},"caps":[{"channels":["news"],"allow":["sub"]}],"channel":"c"}"#;
        let claims = read(text).unwrap();
        assert_eq!(claims.aud, ["a", "b"]);
        assert!(claims.caps.allows("news", Verb::Subscribe) && !claims.caps.allows("news", Verb::Publish));
        assert_eq!(claims.info.as_deref(), Some(&br#"{"n": 1}"#[..]));
        assert_eq!(claims.info_bytes(), &[0, 255][..]);
        let options = &claims.subs["r"];
        assert_eq!((options.info_bytes(), options.data_bytes()), (Bytes::from_static(&[1]), Bytes::from_static(&[2])));
        let overrides = options.overrides.unwrap();
        assert_eq!(overrides.presence, Some(Switch { value: true }));
        assert_eq!((overrides.force_recovery, overrides.join_leave), (Some(Switch { value: false }), None));
        assert_eq!(serde_json::to_string(&claims).unwrap(), text);
    }

    #[test]
    fn an_empty_token_and_one_of_nulls_say_nothing() {
        let nulls = r#"{"sub":null,"exp":null,"nbf":null,"iat":null,"expire_at":null,"jti":null,"aud":null,"iss":null,"info":null,"b64info":null,"channels":null,"subs":null,"meta":null,"caps":null,"channel":null,"unknown":[{}]}"#;
        assert_eq!(read("{}"), Ok(ConnectClaims::default()));
        assert_eq!(read(nulls), Ok(ConnectClaims::default()));
        assert_eq!(serde_json::to_string(&ConnectClaims::default()).unwrap(), "{}");
    }

    #[test]
    fn what_is_not_known_is_passed_over_however_deep() {
        let deep = format!(r#"{{"unknown":{}{},"sub":"u1"}}"#, "[".repeat(500), "]".repeat(500));
        assert_eq!(read(&deep).unwrap().sub, "u1");
        for bad in [r#"["u1"]"#, r#""u1""#, "7", "null", r#"{"sub":"u1","sub":"u2"}"#] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn one_audience_is_a_text() {
        let claims = read(r#"{"aud":"a"}"#).unwrap();
        assert_eq!(claims.aud, ["a"]);
        assert_eq!(serde_json::to_string(&claims).unwrap(), r#"{"aud":"a"}"#);
    }

    #[test]
    fn times_are_numbers_of_any_size() {
        for (spelling, seconds) in [
            ("1700000000", 1_700_000_000),
            ("1.7e9", 1_700_000_000),
            ("1700000000.9", 1_700_000_000),
            ("0", 0),
            ("-5", 0),
            ("-1e300", 0),
            ("18446744073709551615", u64::MAX),
            ("18446744073709551616", u64::MAX),
            ("1e300", u64::MAX),
        ] {
            for claim in ["exp", "nbf", "iat"] {
                let claims = read(&format!(r#"{{"{claim}":{spelling}}}"#)).unwrap();
                assert_eq!(claims.exp.or(claims.nbf).or(claims.iat), Some(seconds), "{claim} {spelling}");
            }
        }
        assert!(read(r#"{"exp":1e999}"#).is_err());
    }

    #[test]
    fn a_claim_of_the_wrong_type_is_named() {
        for (claim, value) in [
            ("sub", "42"),
            ("exp", r#""1700000000""#),
            ("nbf", r#""tomorrow""#),
            ("iat", "[]"),
            ("expire_at", r#""0""#),
            ("jti", "1"),
            ("aud", "{}"),
            ("iss", "true"),
            ("b64info", r#""?""#),
            ("channels", r#""a""#),
            ("subs", "[]"),
            ("caps", "{}"),
            ("channel", "1"),
        ] {
            let error = read(&format!(r#"{{"{claim}":{value}}}"#)).unwrap_err();
            assert!(error.starts_with(&format!("claim `{claim}`: ")), "{error}");
        }
        let error = read(r#"{"exp":"1700000000"}"#).unwrap_err();
        assert!(error.contains("a number of seconds since 1970, without quotes"), "{error}");
    }

    #[test]
    fn expire_at_goes_before_exp() {
        for (text, expires_at) in [
            ("{}", None),
            (r#"{"exp":5}"#, Some(5)),
            (r#"{"exp":5,"expire_at":9}"#, Some(9)),
            (r#"{"exp":5,"expire_at":0}"#, None),
            (r#"{"exp":5,"expire_at":-1}"#, None),
            (r#"{"exp":1e300}"#, Some(i64::MAX)),
            (r#"{"expire_at":1e300}"#, Some(i64::MAX)),
            (r#"{"expire_at":-1e300}"#, None),
        ] {
            assert_eq!(read(text).unwrap().expires_at(), expires_at, "{text}");
        }
    }

    #[test]
    fn info_is_json_or_base64() {
        assert_eq!(read("{}").unwrap().info_bytes(), Bytes::new());
        assert_eq!(read(r#"{"info":{"a":1}}"#).unwrap().info_bytes(), r#"{"a":1}"#);
        assert_eq!(read(r#"{"info":{"a":1},"b64info":""}"#).unwrap().info_bytes(), r#"{"a":1}"#);
        for b64info in ["eyJuYW1lIjoiQW5uIn0=", "eyJuYW1lIjoiQW5uIn0"] {
            let claims = read(&format!(r#"{{"info":1,"b64info":"{b64info}"}}"#)).unwrap();
            assert_eq!(claims.info_bytes(), r#"{"name":"Ann"}"#);
        }
    }

    #[test]
    fn subscription_tokens_and_deep_payloads_are_refused() {
        assert_eq!(read(r#"{"channel":""}"#).unwrap().validate(), Ok(()));
        assert_eq!(read(r#"{"channel":"a"}"#).unwrap().validate(), Err(ClaimsError::Channel));
        let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        for (prefix, suffix, claim) in
            [("\"info\":", "", "info"), ("\"meta\":", "", "meta"), ("\"subs\":{\"a\":{\"data\":", "}}", "subs.data")]
        {
            let validate = |depth| read(&format!("{{{prefix}{}{suffix}}}", nested(depth))).unwrap().validate();
            assert_eq!(validate(128), Ok(()));
            assert_eq!(validate(129), Err(ClaimsError::TooDeep { claim }));
            assert_eq!(validate(30_000), Err(ClaimsError::TooDeep { claim }));
        }
    }
}
