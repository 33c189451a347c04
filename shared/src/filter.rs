//! Which publications of a room a subscriber wants, by their tags. Knows tags and the tree that clients describe a filter
//! with; no room, no subscriber, and no code to refuse a filter with.

use std::{cmp::Ordering, collections::BTreeMap};

use thiserror::Error;

use crate::protocol::command::FilterNode;

/// Nodes that a filter may have in all: it is asked anew for every publication of the room.
pub const MAX_NODES: usize = 64;

/// How deep nodes may lie in each other; a comparison alone has depth 1.
pub const MAX_DEPTH: usize = 16;

/// Bytes of keys and values that a filter may have in all: it is kept as long as the subscription.
pub const MAX_TEXT: usize = 16 * 1024;

/// A filter that passed every check. Filters that differ in nothing but the order or repetition of their parts are equal,
/// so that subscribers who want the same can be asked about together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Filter(Rule);

impl Filter {
    /// Checks a filter as a client describes it. Fields that a node has no use for are passed over where the protocol
    /// passes over them, and refused where it refuses them.
    pub fn new(node: &FilterNode) -> Result<Self, FilterError> {
        Budget { nodes: MAX_NODES, text: MAX_TEXT }.rule(node, MAX_DEPTH).map(Self)
    }

    /// Whether a publication with these tags is wanted.
    pub fn matches(&self, tags: &BTreeMap<String, String>) -> bool {
        self.0.matches(tags)
    }
}

/// A filter that makes no sense, or is too large to be asked for every publication.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FilterError {
    /// The node is neither a comparison nor combines others in a known way.
    #[error("a filter node has an unknown op; take and, or, not, or leave it out for a comparison")]
    UnknownOp,
    /// The node compares in no known way.
    #[error("a filter comparison has an unknown cmp; take eq, neq, in, nin, ex, nex, sw, ew, ct, lt, lte, gt or gte")]
    UnknownComparison,
    /// The comparison names no tag.
    #[error("a filter comparison ({cmp}) has no key; name the tag to compare")]
    NoKey {
        /// The comparison.
        cmp: &'static str,
    },
    /// The comparison has nothing to compare with.
    #[error(
        "a filter comparison ({cmp}) has nothing to compare with; in and nin take vals, all others but ex and nex val"
    )]
    NoValue {
        /// The comparison.
        cmp: &'static str,
    },
    /// The comparison has a value or values that it does not take.
    #[error(
        "a filter comparison ({cmp}) has more to compare with than it takes; in and nin take vals alone, ex and nex \
             nothing, all others val alone"
    )]
    NeedlessValue {
        /// The comparison.
        cmp: &'static str,
    },
    /// The node combines no others.
    #[error("a filter node (and, or) has no nodes; give at least one")]
    NoNodes,
    /// The negation is of none or of many.
    #[error("a filter node (not) has {nodes} nodes; give exactly one")]
    NotOne {
        /// How many there are.
        nodes: usize,
    },
    /// There are more nodes than [`MAX_NODES`].
    #[error("a filter has more than {MAX_NODES} nodes")]
    TooManyNodes,
    /// Nodes lie in each other deeper than [`MAX_DEPTH`].
    #[error("a filter is nested deeper than {MAX_DEPTH} nodes")]
    TooDeep,
    /// Keys and values have more bytes than [`MAX_TEXT`].
    #[error("the keys and values of a filter have more than {MAX_TEXT} bytes")]
    TooMuchText,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Rule {
    /// Every one of these; sorted, at least one.
    All(Vec<Rule>),
    /// At least one of these; sorted, at least one.
    Any(Vec<Rule>),
    /// Not this.
    Not(Box<Rule>),
    /// What one tag has to be.
    Tag(Box<str>, Test),
}

/// What a tag has to be. One that a publication does not have fails every test but those that say otherwise.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Test {
    Exists,
    /// An absent tag is what this asks for.
    Absent,
    Equals(Box<str>),
    /// An absent tag differs from every value.
    Differs(Box<str>),
    /// One of these, sorted; an absent tag counts as the empty text.
    In(Vec<Box<str>>),
    /// None of these, sorted; an absent tag counts as the empty text.
    NotIn(Vec<Box<str>>),
    StartsWith(Box<str>),
    EndsWith(Box<str>),
    Contains(Box<str>),
    /// The tag as a number lies on this side of the value as one. What is no number lies nowhere.
    Lies(Side, Box<str>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Side {
    Below,
    BelowOrAt,
    Above,
    AboveOrAt,
}

impl Rule {
    fn matches(&self, tags: &BTreeMap<String, String>) -> bool {
        match self {
            Self::All(rules) => rules.iter().all(|rule| rule.matches(tags)),
            Self::Any(rules) => rules.iter().any(|rule| rule.matches(tags)),
            Self::Not(rule) => !rule.matches(tags),
            Self::Tag(key, test) => test.passes(tags.get(&**key).map(String::as_str)),
        }
    }
}

impl Test {
    fn passes(&self, tag: Option<&str>) -> bool {
        match self {
            Self::Exists => tag.is_some(),
            Self::Absent => tag.is_none(),
            Self::Equals(value) => tag == Some(value),
            Self::Differs(value) => tag != Some(value),
            Self::In(values) => is_among(tag, values),
            Self::NotIn(values) => !is_among(tag, values),
            Self::StartsWith(value) => tag.is_some_and(|tag| tag.starts_with(&**value)),
            Self::EndsWith(value) => tag.is_some_and(|tag| tag.ends_with(&**value)),
            Self::Contains(value) => tag.is_some_and(|tag| tag.contains(&**value)),
            Self::Lies(side, value) => tag.is_some_and(|tag| side.is_of(tag, value)),
        }
    }
}

fn is_among(tag: Option<&str>, values: &[Box<str>]) -> bool {
    let tag = tag.unwrap_or_default();
    values.binary_search_by(|value| (**value).cmp(tag)).is_ok()
}

impl Side {
    fn is_of(self, tag: &str, value: &str) -> bool {
        let (Some(tag), Some(value)) = (Decimal::parse(tag), Decimal::parse(value)) else {
            return false;
        };
        let place = tag.cmp(&value);
        match self {
            Self::Below => place.is_lt(),
            Self::BelowOrAt => place.is_le(),
            Self::Above => place.is_gt(),
            Self::AboveOrAt => place.is_ge(),
        }
    }
}

/// What is left of the limits while a filter is read.
struct Budget {
    nodes: usize,
    text: usize,
}

impl Budget {
    fn rule(&mut self, node: &FilterNode, depth: usize) -> Result<Rule, FilterError> {
        self.nodes = self.nodes.checked_sub(1).ok_or(FilterError::TooManyNodes)?;
        let deeper = depth.checked_sub(1).ok_or(FilterError::TooDeep)?;
        match node.op.as_str() {
            "" => self.comparison(node),
            "and" => Ok(combined(self.children(node, deeper)?, Rule::All)),
            "or" => Ok(combined(self.children(node, deeper)?, Rule::Any)),
            "not" => match node.nodes.as_slice() {
                [child] => Ok(Rule::Not(Box::new(self.rule(child, deeper)?))),
                nodes => Err(FilterError::NotOne { nodes: nodes.len() }),
            },
            _ => Err(FilterError::UnknownOp),
        }
    }

    fn children(&mut self, node: &FilterNode, depth: usize) -> Result<Vec<Rule>, FilterError> {
        if node.nodes.is_empty() {
            return Err(FilterError::NoNodes);
        }
        node.nodes.iter().map(|child| self.rule(child, depth)).collect()
    }

    fn comparison(&mut self, node: &FilterNode) -> Result<Rule, FilterError> {
        let test = self.test(node)?;
        // Whether there is a tag may be asked of the one without a name too.
        if node.key.is_empty() && !matches!(test, Test::Exists | Test::Absent) {
            return Err(FilterError::NoKey { cmp: name(node)? });
        }
        Ok(Rule::Tag(self.text(&node.key)?, test))
    }

    fn test(&mut self, node: &FilterNode) -> Result<Test, FilterError> {
        Ok(match name(node)? {
            "ex" => nothing(node, Test::Exists)?,
            "nex" => nothing(node, Test::Absent)?,
            "in" => Test::In(self.many(node)?),
            "nin" => Test::NotIn(self.many(node)?),
            "eq" => Test::Equals(self.one(node)?),
            "neq" => Test::Differs(self.one(node)?),
            "sw" => Test::StartsWith(self.one(node)?),
            "ew" => Test::EndsWith(self.one(node)?),
            "ct" => Test::Contains(self.one(node)?),
            "lt" => Test::Lies(Side::Below, self.one(node)?),
            "lte" => Test::Lies(Side::BelowOrAt, self.one(node)?),
            "gt" => Test::Lies(Side::Above, self.one(node)?),
            _ => Test::Lies(Side::AboveOrAt, self.one(node)?),
        })
    }

    fn one(&mut self, node: &FilterNode) -> Result<Box<str>, FilterError> {
        if node.val.is_empty() {
            return Err(FilterError::NoValue { cmp: name(node)? });
        }
        if !node.vals.is_empty() {
            return Err(FilterError::NeedlessValue { cmp: name(node)? });
        }
        self.text(&node.val)
    }

    fn many(&mut self, node: &FilterNode) -> Result<Vec<Box<str>>, FilterError> {
        if node.vals.is_empty() {
            return Err(FilterError::NoValue { cmp: name(node)? });
        }
        if !node.val.is_empty() {
            return Err(FilterError::NeedlessValue { cmp: name(node)? });
        }
        let mut values = node.vals.iter().map(|value| self.text(value)).collect::<Result<Vec<_>, _>>()?;
        values.sort_unstable();
        values.dedup();
        Ok(values)
    }

    fn text(&mut self, text: &str) -> Result<Box<str>, FilterError> {
        self.text = self.text.checked_sub(text.len()).ok_or(FilterError::TooMuchText)?;
        Ok(text.into())
    }
}

/// How the comparisons are spelt.
const COMPARISONS: [&str; 13] = ["eq", "neq", "in", "nin", "ex", "nex", "sw", "ew", "ct", "lt", "lte", "gt", "gte"];

fn name(node: &FilterNode) -> Result<&'static str, FilterError> {
    COMPARISONS.into_iter().find(|name| *name == node.cmp).ok_or(FilterError::UnknownComparison)
}

fn nothing(node: &FilterNode, test: Test) -> Result<Test, FilterError> {
    if node.val.is_empty() && node.vals.is_empty() {
        return Ok(test);
    }
    Err(FilterError::NeedlessValue { cmp: name(node)? })
}

/// Rules in an order of their own, each once, and a lone one by itself.
fn combined(mut rules: Vec<Rule>, combine: impl FnOnce(Vec<Rule>) -> Rule) -> Rule {
    rules.sort_unstable();
    rules.dedup();
    match rules.len() {
        1 => rules.remove(0),
        _ => combine(rules),
    }
}

/// A decimal number of any size, compared exactly, as its digits stand in a text.
#[derive(PartialEq, Eq)]
struct Decimal<'a> {
    negative: bool,
    /// Without zeros at its start.
    whole: &'a str,
    /// Without zeros at its end.
    fraction: &'a str,
}

impl<'a> Decimal<'a> {
    /// Longest text that is a number, in bytes.
    const LONGEST: usize = 200;
    /// Most digits behind the point.
    const FINEST: usize = 19;

    /// Reads a sign or none, at least one digit, and perhaps a point with 1 to 19 digits behind it: no blanks, no
    /// exponent, no separators.
    fn parse(text: &'a str) -> Option<Self> {
        if text.len() > Self::LONGEST {
            return None;
        }
        let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
        let (whole, fraction) = match unsigned.split_once('.') {
            Some((_, "")) => return None,
            Some(parts) => parts,
            None => (unsigned, ""),
        };
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > Self::FINEST {
            return None;
        }
        let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
        let is_zero = whole.is_empty() && fraction.is_empty();
        Some(Self { negative: text.starts_with('-') && !is_zero, whole, fraction })
    }

    fn magnitude(&self) -> (usize, &str, &str) {
        (self.whole.len(), self.whole, self.fraction)
    }

    fn cmp(&self, other: &Self) -> Ordering {
        match (self.negative, other.negative) {
            (false, false) => self.magnitude().cmp(&other.magnitude()),
            (true, true) => other.magnitude().cmp(&self.magnitude()),
            (false, true) => Ordering::Greater,
            (true, false) => Ordering::Less,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection, prelude::*};

    use super::*;

    fn leaf(key: &str, cmp: &str, val: &str, vals: &[&str]) -> FilterNode {
        let vals = vals.iter().map(|&value| value.to_owned()).collect();
        FilterNode { key: key.into(), cmp: cmp.into(), val: val.into(), vals, ..FilterNode::default() }
    }

    fn node(op: &str, nodes: Vec<FilterNode>) -> FilterNode {
        FilterNode { op: op.into(), nodes, ..FilterNode::default() }
    }

    fn tags(tags: &[(&str, &str)]) -> BTreeMap<String, String> {
        tags.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    fn matches(node: &FilterNode, with: &[(&str, &str)]) -> bool {
        Filter::new(node).expect("the filter makes sense").matches(&tags(with))
    }

    #[test]
    fn comparisons_know_absent_tags_from_other_ones() {
        for (cmp, val, same, other, absent) in [
            ("eq", "abc", true, false, false),
            ("neq", "abc", false, true, true),
            ("sw", "ab", true, false, false),
            ("ew", "bc", true, false, false),
            ("ct", "b", true, false, false),
            ("ex", "", true, true, false),
            ("nex", "", false, false, true),
        ] {
            let filter = leaf("k", cmp, val, &[]);
            assert_eq!(matches(&filter, &[("k", "abc")]), same, "{cmp}");
            assert_eq!(matches(&filter, &[("k", "xyz"), ("l", "abc")]), other, "{cmp}");
            assert_eq!(matches(&filter, &[]), absent, "{cmp}");
        }
    }

    #[test]
    fn an_absent_tag_is_the_empty_text_among_values() {
        for (vals, absent) in [(&["a", "b"][..], false), (&["b", "", "a"], true)] {
            assert_eq!(matches(&leaf("k", "in", "", vals), &[]), absent);
            assert_eq!(matches(&leaf("k", "nin", "", vals), &[]), !absent);
            assert!(matches(&leaf("k", "in", "", vals), &[("k", "a")]));
            assert!(matches(&leaf("k", "nin", "", vals), &[("k", "c")]));
        }
    }

    #[test]
    fn numbers_are_compared_as_decimals_of_any_size() {
        let cases = [
            ("5", "10", Ordering::Less),
            ("5.0", "+5", Ordering::Equal),
            ("-0", "0.000", Ordering::Equal),
            ("-7", "-6.5", Ordering::Less),
            ("-1", "1", Ordering::Less),
            ("1.09", "1.1", Ordering::Less),
            ("0010", "9", Ordering::Greater),
            ("0.1234567890123456789", "0.1234567890123456788", Ordering::Greater),
            (
                "100000000000000000000000000000000000000000000",
                "99999999999999999999999999999999999999999999.9",
                Ordering::Greater,
            ),
        ];
        for (tag, val, place) in cases {
            for (cmp, expected) in
                [("lt", place.is_lt()), ("lte", place.is_le()), ("gt", place.is_gt()), ("gte", place.is_ge())]
            {
                assert_eq!(matches(&leaf("k", cmp, val, &[]), &[("k", tag)]), expected, "{tag} {cmp} {val}");
            }
        }
    }

    #[test]
    fn what_is_no_number_lies_nowhere() {
        let long = "1".repeat(201);
        for text in [
            "",
            "-",
            ".5",
            "5.",
            "-.5",
            "1.2.3",
            "1e3",
            "0x1",
            " 1",
            "1_0",
            "+-1",
            "NaN",
            "1.12345678901234567890",
            &long,
        ] {
            for cmp in ["lt", "lte", "gt", "gte"] {
                assert!(!matches(&leaf("k", cmp, "0", &[]), &[("k", text)]), "{text} {cmp}");
                let filter = leaf("k", cmp, if text.is_empty() { "x" } else { text }, &[]);
                assert!(!matches(&filter, &[("k", "0")]), "0 {cmp} {text}");
            }
        }
        assert!(matches(&leaf("k", "gt", "0", &[]), &[("k", &long[1..])]));
    }

    #[test]
    fn nodes_combine_others() {
        let red_or_blue = leaf("team", "in", "", &["red", "blue"]);
        let late = leaf("min", "gt", "45", &[]);
        let filter = node("and", vec![red_or_blue.clone(), node("not", vec![late.clone()])]);
        assert!(matches(&filter, &[("team", "red"), ("min", "10")]));
        assert!(!matches(&filter, &[("team", "red"), ("min", "60")]));
        assert!(!matches(&filter, &[("team", "green"), ("min", "10")]));
        assert!(matches(&filter, &[("team", "blue")]));
        let filter = node("or", vec![red_or_blue, late]);
        assert!(matches(&filter, &[("team", "green"), ("min", "60")]));
        assert!(!matches(&filter, &[]));
    }

    #[test]
    fn filters_that_make_no_sense_are_refused() {
        let fine = || leaf("k", "eq", "v", &[]);
        for (filter, error) in [
            (FilterNode::default(), FilterError::UnknownComparison),
            (leaf("k", "EQ", "v", &[]), FilterError::UnknownComparison),
            (leaf("", "eq", "v", &[]), FilterError::NoKey { cmp: "eq" }),
            (leaf("", "in", "", &["v"]), FilterError::NoKey { cmp: "in" }),
            (leaf("k", "gte", "", &[]), FilterError::NoValue { cmp: "gte" }),
            (leaf("k", "sw", "v", &["v"]), FilterError::NeedlessValue { cmp: "sw" }),
            (leaf("k", "in", "", &[]), FilterError::NoValue { cmp: "in" }),
            (leaf("k", "nin", "v", &["v"]), FilterError::NeedlessValue { cmp: "nin" }),
            (leaf("k", "ex", "v", &[]), FilterError::NeedlessValue { cmp: "ex" }),
            (leaf("k", "nex", "", &["v"]), FilterError::NeedlessValue { cmp: "nex" }),
            (node("xor", vec![fine()]), FilterError::UnknownOp),
            (node("and", vec![]), FilterError::NoNodes),
            (node("or", vec![]), FilterError::NoNodes),
            (node("not", vec![]), FilterError::NotOne { nodes: 0 }),
            (node("not", vec![fine(), fine()]), FilterError::NotOne { nodes: 2 }),
            (node("or", vec![fine(), node("and", vec![])]), FilterError::NoNodes),
        ] {
            assert_eq!(Filter::new(&filter), Err(error), "{filter:?}");
        }
    }

    #[test]
    fn fields_without_a_use_are_passed_over() {
        assert!(matches(&leaf("", "nex", "", &[]), &[]));
        assert!(!matches(&leaf("", "nex", "", &[]), &[("", "")]));
        let mut comparison = leaf("k", "eq", "v", &[]);
        comparison.nodes = vec![FilterNode::default()];
        assert!(matches(&comparison, &[("k", "v")]));
        let negation = FilterNode { key: "k".into(), cmp: "no".into(), ..node("not", vec![comparison]) };
        assert!(matches(&negation, &[]));
    }

    #[test]
    fn filters_too_large_to_be_asked_often_are_refused() {
        let wide = |nodes| node("or", vec![leaf("k", "ex", "", &[]); nodes - 1]);
        assert!(Filter::new(&wide(MAX_NODES)).is_ok());
        assert_eq!(Filter::new(&wide(MAX_NODES + 1)), Err(FilterError::TooManyNodes));
        let deep = |depth| (1..depth).fold(leaf("k", "ex", "", &[]), |inner, _| node("not", vec![inner]));
        assert!(Filter::new(&deep(MAX_DEPTH)).is_ok());
        assert_eq!(Filter::new(&deep(MAX_DEPTH + 1)), Err(FilterError::TooDeep));
        let long = |length: usize| leaf("k", "eq", &"v".repeat(length - 1), &[]);
        assert!(Filter::new(&long(MAX_TEXT)).is_ok());
        assert_eq!(Filter::new(&long(MAX_TEXT + 1)), Err(FilterError::TooMuchText));
    }

    #[test]
    fn filters_that_want_the_same_are_equal() {
        let a = || leaf("a", "in", "", &["1", "2"]);
        let b = || leaf("b", "eq", "1", &[]);
        let filter = |node| Filter::new(&node).expect("the filter makes sense");
        let both = filter(node("and", vec![a(), b()]));
        let turned = leaf("a", "in", "", &["2", "1", "2"]);
        assert_eq!(both, filter(node("and", vec![b(), turned, b()])));
        assert_eq!(filter(a()), filter(node("or", vec![node("and", vec![a()])])));
        for other in [node("or", vec![a(), b()]), a(), node("and", vec![a(), leaf("b", "neq", "1", &[])])] {
            assert_ne!(both, filter(other));
        }
    }

    fn any_filter() -> impl Strategy<Value = FilterNode> {
        let text = prop_oneof!["[ab]?", "[+-]?[0-9]{0,3}(\\.[0-9]{0,2})?"];
        let leaf =
            (text.clone(), proptest::sample::select(&COMPARISONS[..]), text.clone(), collection::vec(text, 0..3))
                .prop_map(|(key, cmp, val, vals)| FilterNode {
                    key,
                    cmp: cmp.into(),
                    val,
                    vals,
                    ..FilterNode::default()
                });
        leaf.prop_recursive(4, 16, 3, |inner| {
            let op = proptest::sample::select(&["and", "or", "not", ""][..]);
            (op, collection::vec(inner, 0..3)).prop_map(|(op, nodes)| node(op, nodes))
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn order_and_repetition_change_nothing(
            nodes in collection::vec(any_filter().prop_filter("valid", |node| Filter::new(node).is_ok()), 1..4),
            tags in collection::btree_map("[ab]?", "[ab]?|-?[0-9]{0,3}", 0..3),
        ) {
            for op in ["and", "or"] {
                let there = Filter::new(&node(op, nodes.clone())).unwrap();
                let back = Filter::new(&node(op, nodes.iter().rev().chain(&nodes).cloned().collect())).unwrap();
                prop_assert_eq!(&there, &back);
                let one_by_one: Vec<_> = nodes.iter().map(|node| Filter::new(node).unwrap().matches(&tags)).collect();
                let expected = if op == "and" { !one_by_one.contains(&false) } else { one_by_one.contains(&true) };
                prop_assert_eq!(there.matches(&tags), expected);
            }
        }
    }
}
