//! Capabilities: what a token lets its client do in which rooms, beside what the rules of those rooms allow. Knows names of
//! rooms as texts, no rule of any room, and no code to refuse a command with.

use std::{fmt, sync::Arc};

use regex::bytes::{RegexSet, RegexSetBuilder};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _, ser::SerializeSeq};
use thiserror::Error;

/// Entries of one token: each is looked at until one names the room.
const ENTRY_LIMIT: usize = 64;

/// Names and patterns of all entries together.
const NAME_LIMIT: usize = 256;

/// Patterns that are regular expressions. A connection keeps each of them ready, which takes some 6 KB at least.
const REGEX_LIMIT: usize = 16;

/// What the regular expressions of one entry may take when they are compiled, in bytes.
const REGEX_SIZE: usize = 32 * 1024;

/// How deep groups and repetitions of a regular expression may lie in each other.
const REGEX_DEPTH: u32 = 32;

/// What may be done in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Verb {
    /// `sub`: be in it.
    Subscribe = 1,
    /// `pub`: speak in it.
    Publish = 2,
    /// `prs`: ask who is in it, and be told who comes and goes.
    Presence = 4,
    /// `hst`: ask what was said, and recover it.
    History = 8,
}

/// The verbs with their spellings, in the order in which they are written.
const SPELLINGS: [(Verb, &str); 4] =
    [(Verb::Subscribe, "sub"), (Verb::Publish, "pub"), (Verb::Presence, "prs"), (Verb::History, "hst")];

/// A set of [`Verb`]s, spelt as a list: `["sub","pub"]`.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Verbs(u8);

impl Verbs {
    /// Whether the set holds this one.
    pub const fn contains(self, verb: Verb) -> bool {
        self.0 & verb as u8 != 0
    }

    fn spellings(self) -> impl Iterator<Item = &'static str> {
        SPELLINGS.into_iter().filter(move |(verb, _)| self.contains(*verb)).map(|(_, spelling)| spelling)
    }
}

impl FromIterator<Verb> for Verbs {
    fn from_iter<I: IntoIterator<Item = Verb>>(verbs: I) -> Self {
        Self(verbs.into_iter().fold(0, |set, verb| set | verb as u8))
    }
}

impl fmt::Debug for Verbs {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.spellings()).finish()
    }
}

impl Serialize for Verbs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.spellings())
    }
}

impl<'de> Deserialize<'de> for Verbs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spelt = Vec::<String>::deserialize(deserializer)?;
        let verb = |spelling: &String| {
            let known = SPELLINGS.iter().find(|(_, known)| known == spelling).map(|(verb, _)| *verb);
            known.ok_or_else(|| D::Error::custom(format_args!("{spelling:?} is none of sub, pub, prs and hst")))
        };
        spelt.iter().map(verb).collect()
    }
}

/// What a token lets its client do: a list of entries, the first of which that names a room decides for it alone. Cloning
/// shares it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Caps(Option<Arc<Vec<Entry>>>);

/// Why capabilities are not accepted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CapError {
    /// More entries than a node will look through.
    #[error("{0} entries; at most {ENTRY_LIMIT} are accepted")]
    Entries(usize),
    /// More names than a node will look through.
    #[error("{0} channels; at most {NAME_LIMIT} are accepted")]
    Names(usize),
    /// More regular expressions than a connection may keep.
    #[error("{0} regular expressions; at most {REGEX_LIMIT} are accepted")]
    Regexes(usize),
    /// A regular expression that is none, or takes more than one may.
    #[error("{pattern:?} is no regular expression that is accepted: {reason}")]
    Regex {
        /// As it was written.
        pattern: String,
        /// In a few words.
        reason: String,
    },
}

impl Caps {
    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Whether the client may do this in the room, whatever the room's rules say. If the first entry that names the room
    /// does not hold the verb, later ones are not asked.
    pub fn allows(&self, room: &str, verb: Verb) -> bool {
        self.of(room).contains(verb)
    }

    /// What the client may do in the room by the first entry that names it.
    pub fn of(&self, room: &str) -> Verbs {
        let entries = self.0.iter().flat_map(|entries| entries.iter());
        entries.into_iter().find(|entry| entry.names(room)).map_or_else(Verbs::default, |entry| entry.allow)
    }

    fn new(spelt: Vec<SpeltEntry>) -> Result<Self, CapError> {
        if spelt.len() > ENTRY_LIMIT {
            return Err(CapError::Entries(spelt.len()));
        }
        let count = |wanted: fn(Matching) -> bool| {
            spelt.iter().filter(|entry| wanted(entry.matching)).map(|entry| entry.channels.len()).sum::<usize>()
        };
        let (names, regexes) = (count(|_| true), count(|matching| matching == Matching::Regex));
        if names > NAME_LIMIT {
            return Err(CapError::Names(names));
        }
        if regexes > REGEX_LIMIT {
            return Err(CapError::Regexes(regexes));
        }
        let entries = spelt.into_iter().map(Entry::new).collect::<Result<Vec<_>, _>>()?;
        Ok(Self((!entries.is_empty()).then(|| Arc::new(entries))))
    }
}

impl Serialize for Caps {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let entries = self.0.as_deref().map(Vec::as_slice).unwrap_or_default();
        let mut list = serializer.serialize_seq(Some(entries.len()))?;
        entries.iter().try_for_each(|entry| list.serialize_element(entry))?;
        list.end()
    }
}

impl<'de> Deserialize<'de> for Caps {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(Vec::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// How the names of an entry are meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Matching {
    /// As they are.
    #[default]
    #[serde(rename = "")]
    Exact,
    /// `*` stands for any characters, none included.
    #[serde(rename = "wildcard")]
    Wildcard,
    /// Regular expressions that a name has to match as a whole.
    #[serde(rename = "regex")]
    Regex,
}

impl Matching {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference to the field")]
    fn is_exact(&self) -> bool {
        *self == Self::Exact
    }
}

/// An entry as a token spells it.
#[derive(Deserialize)]
struct SpeltEntry {
    channels: Vec<String>,
    #[serde(rename = "match", default)]
    matching: Matching,
    allow: Verbs,
}

/// An entry that is ready to be asked.
#[derive(Clone, Debug, Serialize)]
struct Entry {
    channels: Vec<String>,
    #[serde(rename = "match", skip_serializing_if = "Matching::is_exact")]
    matching: Matching,
    allow: Verbs,
    /// The expressions of a [`Matching::Regex`] entry, one that nothing matches for any other.
    #[serde(skip)]
    expressions: Option<RegexSet>,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (&self.channels, self.matching, self.allow) == (&other.channels, other.matching, other.allow)
    }
}

impl Entry {
    fn new(SpeltEntry { channels, matching, allow }: SpeltEntry) -> Result<Self, CapError> {
        let expressions = (matching == Matching::Regex).then(|| compile(&channels)).transpose()?;
        Ok(Self { channels, matching, allow, expressions })
    }

    fn names(&self, room: &str) -> bool {
        match self.matching {
            Matching::Exact => self.channels.iter().any(|name| name == room),
            Matching::Wildcard => self.channels.iter().any(|pattern| matches(pattern.as_bytes(), room.as_bytes())),
            Matching::Regex => self.expressions.as_ref().is_some_and(|set| set.is_match(room.as_bytes())),
        }
    }
}

/// Compiles the expressions of one entry. Classes such as `\d` are those of ASCII, as names of rooms are; Unicode's
/// take a hundred times the memory, which is more than one may have; letters by themselves have to be asked for: `(?u)[é]`.
fn compile(patterns: &[String]) -> Result<RegexSet, CapError> {
    for pattern in patterns {
        // By itself first: a stray parenthesis must not reach out of the one that holds the pattern together below.
        regex_syntax(std::slice::from_ref(pattern)).map_err(|error| refusal(pattern, &error))?;
    }
    let whole: Vec<_> = patterns.iter().map(|pattern| format!(r"\A(?:{pattern})\z")).collect();
    regex_syntax(&whole).map_err(|error| refusal(&patterns.join(" | "), &error))
}

fn regex_syntax(patterns: &[String]) -> Result<RegexSet, regex::Error> {
    // Without the lazy automaton, whose cache would be kept for every connection.
    RegexSetBuilder::new(patterns)
        .unicode(false)
        .size_limit(REGEX_SIZE)
        .dfa_size_limit(0)
        .nest_limit(REGEX_DEPTH)
        .build()
}

fn refusal(pattern: &str, error: &regex::Error) -> CapError {
    let reason = match error {
        regex::Error::CompiledTooBig(limit) => format!("compiled it is larger than {limit} bytes"),
        // The complaint quotes the pattern over several lines; the last one says what is wrong.
        error => error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned(),
    };
    CapError::Regex { pattern: pattern.to_owned(), reason }
}

/// Whether a name matches a pattern in which `*` stands for any characters. Takes time in proportion to the product of
/// both lengths at most, for only the last `*` is ever tried again.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut seen) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while seen < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, seen));
                at += 1;
            }
            Some(byte) if *byte == name[seen] => {
                at += 1;
                seen += 1;
            }
            _ => {
                let Some((star_at, taken)) = star else { return false };
                star = Some((star_at, taken + 1));
                (at, seen) = (star_at + 1, taken + 1);
            }
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Verb; 4] = [Verb::Subscribe, Verb::Publish, Verb::Presence, Verb::History];

    fn caps(text: &str) -> Caps {
        serde_json::from_str(text).unwrap()
    }

    fn refused(text: &str) -> String {
        serde_json::from_str::<Caps>(text).unwrap_err().to_string()
    }

    #[test]
    fn a_verb_is_allowed_in_the_rooms_an_entry_names_and_nowhere_else() {
        for (verb, spelling) in SPELLINGS {
            let caps = caps(&format!(r#"[{{"channels":["news","user_42"],"allow":["{spelling}"]}}]"#));
            for other in ALL {
                assert_eq!(caps.allows("news", other), other == verb, "{spelling} {other:?}");
                assert_eq!(caps.allows("user_42", other), other == verb);
                assert!(!caps.allows("new", other) && !caps.allows("news:1", other) && !caps.allows("", other));
            }
        }
        assert!(!Caps::default().allows("news", Verb::Subscribe));
    }

    #[test]
    fn the_first_entry_that_names_a_room_decides() {
        let caps = caps(
            r#"[{"channels":["news","user_42"],"allow":["sub"]},
                {"channels":["user_42"],"allow":["pub","hst"]},
                {"channels":["secret:*"],"match":"wildcard","allow":[]},
                {"channels":["*"],"match":"wildcard","allow":["prs"]}]"#,
        );
        assert!(caps.allows("user_42", Verb::Subscribe) && !caps.allows("user_42", Verb::Publish));
        assert!(!caps.allows("secret:1", Verb::Presence) && caps.allows("other", Verb::Presence));
        assert_eq!(caps.of("other"), Verbs::from_iter([Verb::Presence]));
    }

    #[test]
    fn wildcards_stand_for_any_characters() {
        for (pattern, matching, others) in [
            ("news:*", &["news:", "news:1", "news:a:b"][..], &["news", "xnews:1", "New:1"][..]),
            ("*", &["", "a", "news:1"], &[]),
            ("*:live", &["a:live", ":live", "a:live:live"], &["live", "a:live:", "a:liv"]),
            ("a*b*c", &["abc", "aXbYc", "abbcc", "abcabc"], &["ab", "acb", "abcd", "xabc"]),
            ("**", &["", "a"], &[]),
            ("a?c", &["a?c"], &["abc"]),
            ("a.c", &["a.c"], &["abc"]),
            ("", &[""], &["a"]),
        ] {
            let caps = caps(&format!(r#"[{{"channels":["{pattern}"],"match":"wildcard","allow":["sub"]}}]"#));
            for room in matching {
                assert!(caps.allows(room, Verb::Subscribe), "{pattern} should match {room:?}");
            }
            for room in others {
                assert!(!caps.allows(room, Verb::Subscribe), "{pattern} should not match {room:?}");
            }
        }
        let hostile = format!("{}b", "*a".repeat(100));
        assert!(!matches(hostile.as_bytes(), "a".repeat(5000).as_bytes()));
    }

    #[test]
    fn a_regular_expression_has_to_match_the_whole_name() {
        for (pattern, matching, others) in [
            (r"^posts_[\\d]+$", &["posts_1", "posts_042"][..], &["posts_", "posts_1x", "xposts_1", "posts_1\n"][..]),
            (r"posts_\\d+", &["posts_1"], &["my_posts_1", "posts_1_private"]),
            ("a|bc", &["a", "bc"], &["ac", "abc", "ab", "b"]),
            ("^a|b$", &["a", "b"], &["ax", "xb"]),
            ("(?i)news:.*", &["NEWS:1", "news:"], &["new:1"]),
            ("(?u)[éè]+", &["é", "éè"], &["e", ""]),
            (r"\\w+", &["abc_1"], &["é"]),
            ("é.", &["éa"], &["e", "éab"]),
            ("", &[""], &["a"]),
        ] {
            let caps = caps(&format!(r#"[{{"channels":["{pattern}"],"match":"regex","allow":["sub"]}}]"#));
            for room in matching {
                assert!(caps.allows(room, Verb::Subscribe), "{pattern} should match {room:?}");
            }
            for room in others {
                assert!(!caps.allows(room, Verb::Subscribe), "{pattern} should not match {room:?}");
            }
        }
        let several = caps(r#"[{"channels":["a+","b+"],"match":"regex","allow":["sub"]}]"#);
        assert!(several.allows("aa", Verb::Subscribe) && several.allows("b", Verb::Subscribe));
        assert!(!several.allows("ab", Verb::Subscribe));
    }

    #[test]
    fn expressions_that_cannot_be_had_are_named() {
        for (pattern, reason) in [
            ("a)|(b", "unopened group"),
            ("(a", "unclosed group"),
            ("a{1000}{1000}", "larger than 32768 bytes"),
            ("(?x)a # a comment", "unclosed group"),
            ("[é]", "Unicode not allowed here"),
            ("(?u)[^a]{90}", "larger than 32768 bytes"),
            ("*", "repetition operator missing expression"),
        ] {
            let error = refused(&format!(r#"[{{"channels":["ok","{pattern}"],"match":"regex","allow":["sub"]}}]"#));
            assert!(error.contains(pattern) && error.contains(reason), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
        let deep = format!("{}a{}", "(".repeat(40), ")".repeat(40));
        assert!(refused(&format!(r#"[{{"channels":["{deep}"],"match":"regex","allow":["sub"]}}]"#)).contains("nest"));
    }

    #[test]
    fn entries_that_are_not_understood_are_refused() {
        for (text, reason) in [
            (r#"{"channels":["a"],"allow":["sub"]}"#, "expected a sequence"),
            (r#"[{"allow":["sub"]}]"#, "missing field `channels`"),
            (r#"[{"channels":["a"]}]"#, "missing field `allow`"),
            (r#"[{"channels":"a","allow":["sub"]}]"#, "expected a sequence"),
            (r#"[{"channels":["a"],"allow":["subscribe"]}]"#, r#""subscribe" is none of sub, pub, prs and hst"#),
            (r#"[{"channels":["a"],"allow":["sub"],"match":"glob"}]"#, "unknown variant `glob`"),
        ] {
            let error = refused(text);
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn entries_names_and_expressions_are_bounded() {
        let list = |count: usize, item: &str| vec![item; count].join(",");
        let entry = |channels: &str, matching: &str| {
            format!(r#"{{"channels":[{channels}],"match":"{matching}","allow":["sub"]}}"#)
        };
        let entries = |count| format!("[{}]", list(count, &entry(r#""a""#, "")));
        let names = |count| format!("[{}]", entry(&list(count, r#""a""#), "wildcard"));
        let regexes = |count| format!("[{}]", list(count, &entry(r#""a""#, "regex")));
        for accepted in [entries(64), names(256), regexes(16)] {
            caps(&accepted);
        }
        assert!(refused(&entries(65)).starts_with("65 entries; at most 64 are accepted"));
        assert!(refused(&names(257)).starts_with("257 channels; at most 256 are accepted"));
        assert!(refused(&regexes(17)).starts_with("17 regular expressions; at most 16 are accepted"));
    }

    #[test]
    fn they_are_written_as_they_were_read() {
        let text = r#"[{"channels":["news"],"allow":["sub","pub","prs","hst"]},{"channels":["a.*"],"match":"regex","allow":[]},{"channels":["b*"],"match":"wildcard","allow":["hst"]}]"#;
        assert_eq!(serde_json::to_string(&caps(text)).unwrap(), text);
        assert_eq!(caps(text), caps(text).clone());
        assert_ne!(caps(text), caps("[]"));
        assert_eq!(caps("[]"), Caps::default());
        assert_eq!(format!("{:?}", caps(text).of("news")), r#"{"sub", "pub", "prs", "hst"}"#);
    }
}
