//! The server API as a publisher uses it: HTTP/1.1 on a connection that stays open, requests out and answers in. Knows
//! bytes only.

use serde::Deserialize;

use crate::plan::Api;

/// Largest head of an answer, in header fields.
const HEADERS: usize = 64;

/// Appends the request that publishes `payload`, which is JSON, in `room`.
pub fn publish(api: &Api, room: &str, payload: &[u8], out: &mut Vec<u8>) {
    let channel = serde_json::Value::from(room).to_string();
    let length = br#"{"channel":,"data":}"#.len() + channel.len() + payload.len();
    let (path, host, key) = (&api.target.path, &api.target.host, &api.key);
    let key = if key.is_empty() { String::new() } else { format!("X-API-Key: {key}\r\n") };
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\n{key}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n\
         {{\"channel\":{channel},\"data\":"
    );
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(payload);
    out.push(b'}');
}

/// An answer at the start of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// Its status.
    pub status: u16,
    /// Its body.
    pub body: &'a [u8],
    /// Bytes of the whole answer.
    pub length: usize,
}

/// Reads the answer at the start of `bytes`; `None` when it is not all there yet.
///
/// # Errors
/// It is no HTTP answer, or one whose length is not told.
pub fn read(bytes: &[u8]) -> Result<Option<Answer<'_>>, String> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let parsed = head.parse(bytes).map_err(|error| format!("the API's answer is no HTTP: {error}"))?;
    let httparse::Status::Complete(start) = parsed else { return Ok(None) };
    let mut lengths = head.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = lengths.next().and_then(|header| std::str::from_utf8(header.value).ok()?.trim().parse::<usize>().ok());
    let Some(length) = length else { return Err("the API's answer does not tell its length".into()) };
    let end = start.checked_add(length).ok_or("the API's answer is too long")?;
    let status = head.code.unwrap_or_default();
    Ok(bytes.get(start..end).map(|body| Answer { status, body, length: end }))
}

/// Why a publish was refused, if it was: the API's error, or the status.
pub fn refusal(status: u16, body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Body {
        error: Option<Refused>,
    }
    #[derive(Deserialize)]
    struct Refused {
        code: u32,
        message: String,
    }
    if let Some(error) = serde_json::from_slice::<Body>(body).ok().and_then(|body| body.error) {
        return Some(format!("{} {}", error.code, error.message));
    }
    (status != 200).then(|| format!("HTTP status {status}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Target;

    #[test]
    fn requests_are_whole() {
        let target = Target { address: ([127, 0, 0, 1], 1).into(), host: "h".into(), path: "/api/publish".into() };
        let mut out = Vec::new();
        publish(&Api { target, key: "k".into() }, "a\"b", b"\"x\"", &mut out);
        let text = String::from_utf8(out).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("POST /api/publish HTTP/1.1\r\nHost: h\r\nX-API-Key: k\r\n"), "{head}");
        assert!(head.ends_with(&format!("Content-Length: {}", body.len())), "{head} {body}");
        assert_eq!(body, r#"{"channel":"a\"b","data":"x"}"#);
    }

    #[test]
    fn answers_are_read_one_by_one() {
        let bytes = b"HTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\n{\"result\":{}}HTTP/1.1 401";
        let answer = read(bytes).expect("HTTP").expect("whole");
        assert_eq!((answer.status, answer.body), (200, &b"{\"result\":{}}"[..]));
        assert_eq!(read(&bytes[answer.length..]), Ok(None));
        assert_eq!(read(&bytes[..answer.length - 1]), Ok(None));
        assert!(read(b"HTTP/1.1 200 OK\r\n\r\n").is_err() && read(b"SSH-2.0\r\n\r\n").is_err());
    }

    #[test]
    fn refusals_are_named() {
        assert_eq!(refusal(200, b"{\"result\":{}}"), None);
        assert_eq!(refusal(200, br#"{"error":{"code":102,"message":"no"}}"#), Some("102 no".into()));
        assert_eq!(refusal(401, b""), Some("HTTP status 401".into()));
    }
}
