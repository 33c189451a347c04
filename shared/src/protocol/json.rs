//! Messages as JSON: one per line, bounded in depth. Knows how they are spelt, not what they ask for.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{DecodeError, Envelope, NotJson, lenient::Object, raw, reply::is_default};
use crate::publication::Publication;

/// How deep arrays and objects of a payload may lie in each other.
pub const MAX_DEPTH: usize = 128;

/// How deep a payload lies in its message: in the request, and that in the command.
const ENVELOPE: usize = 2;

/// Whether arrays and objects lie in each other deeper than `limit`.
///
/// Takes linear time and no stack, and may be asked of text that is not valid JSON: what a strict reader takes in before
/// its first complaint is then counted rightly.
pub fn is_deeper_than(limit: usize, text: &[u8]) -> bool {
    if text.len() <= limit {
        return false;
    }
    let (mut depth, mut at) = (0, 0);
    while let Some(byte) = text.get(at) {
        at += 1;
        match byte {
            b'"' => at += string_length(&text[at..]),
            b'[' | b'{' if depth == limit => return true,
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// Bytes from behind the opening quote to behind the closing one, or to the end.
fn string_length(text: &[u8]) -> usize {
    let mut at = 0;
    while let Some(found) = text.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
        at += found + 1;
        if text[at - 1] == b'"' {
            return at;
        }
        at += 1;
    }
    text.len()
}

/// Takes the first line off the frame.
pub(super) fn split<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let (line, after) = match memchr::memchr(b'\n', rest) {
        Some(end) => (&rest[..end], &rest[end + 1..]),
        None => (*rest, &rest[rest.len()..]),
    };
    *rest = after;
    line
}

/// Reads a command, the depth of which somebody else chose.
pub(super) fn decode_bounded<'a, T: Deserialize<'a>>(line: &'a [u8]) -> Result<T, DecodeError> {
    if is_deeper_than(MAX_DEPTH + ENVELOPE, line) {
        return Err(DecodeError::TooDeep);
    }
    decode(line)
}

/// Reads one message.
pub(super) fn decode<'a, T: Deserialize<'a>>(line: &'a [u8]) -> Result<T, DecodeError> {
    let text = std::str::from_utf8(line).map_err(|_| DecodeError::NotUtf8)?;
    if text.trim_ascii().is_empty() {
        return Err(DecodeError::Empty);
    }
    match serde_json::from_str::<Object<T>>(text) {
        Ok(Object(message)) => Ok(message),
        Err(error) => Err(DecodeError::Malformed { detail: without_values(&error) }),
    }
}

/// What a reader of JSON complains of, without the text it complains of: that may be what somebody said, or a secret.
pub fn without_values(error: &serde_json::Error) -> String {
    let text = error.to_string();
    if !error.is_data() || text.starts_with("missing field") {
        return text;
    }
    // Whatever was found stands before what was expected instead of it.
    match text.rsplit_once(", expected ") {
        Some((_, expected)) => format!("a value is not what it should be: expected {expected}"),
        None => format!("a value is not what it should be at line {} column {}", error.line(), error.column()),
    }
}

/// Appends `{"push":{"channel":room,"pub":publication}}`, or what is within it, spelt as the serializer of a whole reply or
/// push would, without making one.
pub(super) fn encode_publication(
    envelope: Envelope,
    room: &str,
    publication: &Publication,
    out: &mut Vec<u8>,
) -> Result<(), NotJson> {
    let (open, close): (&[u8], &[u8]) = match envelope {
        Envelope::Reply => (br#"{"push":{"#, b"}}}"),
        Envelope::Bare => (b"{", b"}}"),
    };
    out.extend_from_slice(open);
    if !room.is_empty() {
        out.extend_from_slice(br#""channel":"#);
        serde_json::to_writer(&mut *out, room)?;
        out.push(b',');
    }
    out.extend_from_slice(br#""pub":{"#);
    let fields = out.len();
    if !publication.data.is_empty() {
        out.extend_from_slice(br#""data":"#);
        raw::append(&publication.data, out)?;
    }
    if let Some(info) = &publication.info {
        key(br#""info":"#, fields, out);
        serde_json::to_writer(&mut *out, info)?;
    }
    if publication.offset != 0 {
        key(br#""offset":"#, fields, out);
        out.extend_from_slice(itoa::Buffer::new().format(publication.offset).as_bytes());
    }
    if !is_default(&publication.tags) {
        key(br#""tags":"#, fields, out);
        serde_json::to_writer(&mut *out, &publication.tags)?;
    }
    if publication.delta {
        key(br#""delta":"#, fields, out);
        out.extend_from_slice(b"true");
    }
    out.extend_from_slice(close);
    Ok(())
}

/// A payload as text, if it is one JSON value.
pub(super) fn checked(payload: &[u8]) -> Result<&str, NotJson> {
    serde_json::from_slice::<&RawValue>(payload)?;
    Ok(str::from_utf8(payload).expect("JSON is UTF-8"))
}

/// A text as a JSON string.
pub(super) fn string(text: &str) -> Bytes {
    serde_json::to_vec(text).expect("any text can be a string").into()
}

/// Appends a key, behind a comma unless it opens the object that starts at `fields`.
fn key(name: &[u8], fields: usize, out: &mut Vec<u8>) {
    if out.len() > fields {
        out.push(b',');
    }
    out.extend_from_slice(name);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_counts_brackets_outside_of_strings() {
        for (text, depth) in [
            (&br"1"[..], 0),
            (br#"{"a":[[]]}"#, 3),
            (br#"{"[[[[":"]]{{\"[[\\"}"#, 1),
            (br"[[],[],[{}]]", 3),
            (br#"["\\",["\"]"]]"#, 2),
            (br"]]][[", 2),
            (br#"["unterminated [[["#, 1),
            (br#"["\"#, 1),
        ] {
            let deeper = |limit| {
                let mut padded = text.to_vec();
                padded.resize(text.len() + 16, b' ');
                is_deeper_than(limit, &padded)
            };
            assert!(!deeper(depth), "{}", String::from_utf8_lossy(text));
            assert!(depth == 0 || deeper(depth - 1), "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn short_text_needs_no_count_and_long_text_stops_at_the_limit() {
        assert!(!is_deeper_than(128, &[b'['; 128]));
        assert!(is_deeper_than(128, &[b'['; 129]));
        assert!(is_deeper_than(128, &vec![b'{'; 30_000]));
    }

    #[test]
    fn complaints_say_what_was_expected_and_not_what_was_found() {
        #[derive(Debug, Deserialize)]
        #[expect(dead_code, reason = "it is only read")]
        struct Strict {
            number: u32,
            kind: Kind,
        }
        #[derive(Debug, Deserialize)]
        enum Kind {}
        for (text, wanted) in [
            (r#"{"number":"secret"}"#, "expected u32 at line 1 column 18"),
            (r#"{"number":"a, expected secret"}"#, "expected u32 at line 1 column 30"),
            (r#"{"number":-987654}"#, "expected u32"),
            (r#"{"number":1,"kind":"secret"}"#, "a value is not what it should be"),
            (r#"{"number":1}"#, "missing field `kind` at line 1 column 12"),
            (r#"{"number":secret"#, "expected value at line 1 column 11"),
        ] {
            let said = without_values(&serde_json::from_str::<Strict>(text).expect_err("it is not right"));
            assert!(said.contains(wanted), "{said}");
            assert!(!said.contains("secret") && !said.contains("987654"), "{said}");
        }
    }

    #[test]
    fn lines_come_off_one_by_one() {
        let mut rest = &b"a\nb\n\nc\n"[..];
        let mut lines = Vec::new();
        while !rest.is_empty() {
            lines.push(split(&mut rest));
        }
        assert_eq!(lines, [&b"a"[..], b"b", b"", b"c"]);
    }
}
