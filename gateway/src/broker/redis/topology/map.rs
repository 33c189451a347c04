//! Who owns which slots, as nodes of a cluster tell it (`CLUSTER SLOTS`), and what several of them together say. Knows no
//! connection.

use redis::Value;

use crate::broker::redis::slots::SLOTS;

/// Part of the slots and who owns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Range {
    first: u16,
    last: u16,
    /// `host:port`.
    owner: String,
}

/// Reads what the node on this host answers; none where it is not understood.
pub(super) fn read(answer: Value, host: &str) -> Option<Vec<Range>> {
    let Value::Array(ranges) = answer else { return None };
    ranges.into_iter().map(|value| range(value, host)).collect()
}

fn range(value: Value, own_host: &str) -> Option<Range> {
    let Value::Array(parts) = value else { return None };
    let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = &parts[..] else { return None };
    let (first, last) = (u16::try_from(*first).ok()?, u16::try_from(*last).ok().filter(|last| *last < SLOTS)?);
    let [host, Value::Int(port), ..] = &master[..] else { return None };
    let host = match host {
        Value::BulkString(host) if !host.is_empty() => std::str::from_utf8(host).ok()?,
        _ => own_host,
    };
    Some(Range { first, last, owner: format!("{host}:{port}") })
}

/// The owner of each slot on which most answers agree, the one told first where none outdoes the others. A node that the
/// others have lost tells what was.
pub(super) fn agree(answers: &[Vec<Range>]) -> Vec<Option<&str>> {
    let mut votes: Vec<Vec<(&str, usize)>> = vec![Vec::new(); usize::from(SLOTS)];
    for range in answers.iter().flatten() {
        for slot in range.first..=range.last {
            let votes = &mut votes[usize::from(slot)];
            match votes.iter_mut().find(|(owner, _)| *owner == range.owner) {
                Some((_, count)) => *count += 1,
                None => votes.push((&range.owner, 1)),
            }
        }
    }
    let winner = |votes: Vec<(_, _)>| votes.into_iter().rev().max_by_key(|(_, count)| *count).map(|(owner, _)| owner);
    votes.into_iter().map(winner).collect()
}

#[cfg(test)]
mod tests {
    use redis::Value;

    use super::{Range, agree, read};

    fn range(first: u16, last: u16, owner: &str) -> Range {
        Range { first, last, owner: owner.to_owned() }
    }

    fn node(host: Value, port: i64) -> Value {
        Value::Array(vec![host, Value::Int(port), Value::BulkString(b"id".to_vec()), Value::Array(Vec::new())])
    }

    #[test]
    fn what_a_node_answers_is_read() {
        let host = |host: &str| Value::BulkString(host.as_bytes().to_vec());
        let replica = node(host("b"), 3);
        let one = Value::Array(vec![Value::Int(0), Value::Int(5), node(host("a"), 1), replica]);
        let two = Value::Array(vec![Value::Int(6), Value::Int(16_383), node(Value::Nil, 2)]);
        let read_both = read(Value::Array(vec![one, two]), "c");
        assert_eq!(read_both, Some(vec![range(0, 5, "a:1"), range(6, 16_383, "c:2")]));
        assert_eq!(read(Value::Array(Vec::new()), "c"), Some(Vec::new()));
        let beyond = Value::Array(vec![Value::Int(0), Value::Int(16_384), node(host("a"), 1)]);
        for odd in [Value::Nil, Value::Array(vec![Value::Nil]), Value::Array(vec![beyond])] {
            assert_eq!(read(odd, "c"), None);
        }
    }

    #[test]
    fn most_answers_decide_and_the_first_where_they_are_at_odds() {
        let (old, new) = (vec![range(0, 1, "a:1")], vec![range(0, 0, "a:1"), range(1, 2, "b:1")]);
        let owners =
            |answers: &[Vec<Range>]| agree(answers)[..4].iter().map(|o| o.map(str::to_owned)).collect::<Vec<_>>();
        let some = |owner: &str| Some(owner.to_owned());
        assert_eq!(owners(&[old.clone(), new.clone(), new.clone()]), [some("a:1"), some("b:1"), some("b:1"), None]);
        assert_eq!(owners(&[old.clone(), new.clone()])[1], some("a:1"));
        assert_eq!(owners(&[new, old])[1], some("b:1"));
        assert_eq!(owners(&[])[0], None);
    }
}
