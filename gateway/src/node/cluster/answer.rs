//! What this node answers to the questions of others, and to its own: from its hub and from the sessions above. Knows no
//! broker and no other node.

use std::sync::Arc;

use globset::GlobBuilder;
use prost::Message;

use super::{
    local::Local,
    message::{ConnectionsPart, Part, Question, RoomCount, RoomsPart, UpstreamPart},
};
use crate::hub::Hub;

/// Bytes of one part of an answer, the last item left aside.
const PART: usize = 256 * 1024;

/// Whoever answers for this node.
#[derive(Clone)]
pub(super) struct Respondent {
    pub(super) hub: Arc<Hub>,
    pub(super) local: Arc<dyn Local>,
}

/// A pattern that is none.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the pattern is not understood: {0}")]
pub struct BadPattern(String);

impl Respondent {
    /// The answer, in one part at least. May look at every room and session.
    pub(super) fn answer(&self, question: &Question) -> Vec<Part> {
        match question {
            Question::Rooms(question) => {
                let rooms = self.rooms(&question.pattern).unwrap_or_default();
                split(rooms).map(|rooms| Part::Rooms(RoomsPart { rooms })).collect()
            }
            Question::Connections(question) => {
                let filter = question.filter.clone().unwrap_or_default();
                let limit = usize::try_from(question.limit).unwrap_or(usize::MAX);
                let connections = self.local.connections(&filter, &question.cursor, limit);
                split(connections).map(|connections| Part::Connections(ConnectionsPart { connections })).collect()
            }
            Question::Upstream(question) => {
                let outcome = self.local.upstream(&question.session, question.data.clone());
                vec![Part::Upstream(UpstreamPart { outcome: outcome.into() })]
            }
        }
    }

    fn rooms(&self, pattern: &str) -> Result<Vec<RoomCount>, BadPattern> {
        let matches = matcher(pattern)?;
        let rooms = self.hub.rooms().into_iter().filter(|room| matches(room.name()));
        let counts = rooms.map(|room| RoomCount { room: room.name().to_string(), clients: room.len() as u64 });
        Ok(counts.filter(|count| count.clients > 0).collect())
    }
}

/// What tells whether a room's name matches: `*` stands for any characters, `?` for one, `[…]` for one of several, `{a,b}` for
/// either. The empty pattern matches every name.
pub(super) fn matcher(pattern: &str) -> Result<impl Fn(&str) -> bool + use<>, BadPattern> {
    let pattern = if pattern.is_empty() { "*" } else { pattern };
    let glob = GlobBuilder::new(pattern).literal_separator(false).build();
    let glob = glob.map_err(|error| BadPattern(error.kind().to_string()))?.compile_matcher();
    Ok(move |name: &str| glob.is_match(name))
}

/// Cuts a list into parts that pass through the broker easily, one at least.
fn split<T: Message>(items: Vec<T>) -> impl Iterator<Item = Vec<T>> {
    let mut parts = vec![Vec::new()];
    let mut bytes = 0;
    for item in items {
        if bytes >= PART {
            parts.push(Vec::new());
            bytes = 0;
        }
        bytes += item.encoded_len();
        if let Some(part) = parts.last_mut() {
            part.push(item);
        }
    }
    parts.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_a_shell_but_across_every_separator() {
        let matching = |pattern: &str| {
            let matches = matcher(pattern).expect("a pattern");
            ["a", "news:a", "news:b/c", "news", "{x}"].into_iter().filter(move |name| matches(name)).collect::<Vec<_>>()
        };
        assert_eq!(matching("").len(), 5);
        assert_eq!(matching("*").len(), 5);
        assert_eq!(matching("news:*"), ["news:a", "news:b/c"]);
        assert_eq!(matching("?"), ["a"]);
        assert_eq!(matching("news:[!b]*"), ["news:a"]);
        assert_eq!(matching("{a,news}"), ["a", "news"]);
        assert_eq!(matching("\\{x\\}"), ["{x}"]);
        assert!(matcher("[a").is_err());
    }

    #[test]
    fn a_long_answer_is_cut_and_an_empty_one_is_a_part_too() {
        let room = |number| RoomCount { room: format!("{number:0>200}"), clients: 1 };
        let parts: Vec<_> = split((0..5_000).map(room).collect()).collect();
        assert!(parts.len() > 3, "{}", parts.len());
        assert!(parts.iter().all(|rooms| RoomsPart { rooms: rooms.clone() }.encoded_len() < PART * 11 / 10));
        assert_eq!(parts.concat(), (0..5_000).map(room).collect::<Vec<_>>());
        assert_eq!(split(Vec::<RoomCount>::new()).count(), 1);
    }
}
