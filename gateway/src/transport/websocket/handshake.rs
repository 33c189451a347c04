//! The opening handshake (RFC 6455, section 4.2): what a request has to say, and what it is answered.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use http::{
    HeaderMap, HeaderValue, Method, StatusCode, Version,
    header::{CONNECTION, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE},
    request::Parts,
};
use sha1::{Digest, Sha1};

use super::{super::admit::Denied, deflate};
use crate::hub::Wire;

/// What the key is joined with before it is hashed (RFC 6455, section 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

const JSON: &str = "centrifuge-json";
const PROTOBUF: &str = "centrifuge-protobuf";

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Opening {
    /// Value of `Sec-WebSocket-Accept`.
    pub(super) accept: HeaderValue,
    /// The subprotocol that was chosen among those offered.
    pub(super) subprotocol: Option<&'static str>,
    /// How the client wants to be spoken to.
    pub(super) wire: Wire,
    /// Compression was agreed on.
    pub(super) deflate: bool,
    /// The client's own WebSocket answers pings, so that the protocol's are not needed.
    pub(super) transport_pings: bool,
}

impl Opening {
    /// Reads the request of a client, which only listens or not. `compresses` where compression is agreed on if it is offered.
    pub(super) fn read(request: &Parts, listens: bool, compresses: bool) -> Result<Self, Denied> {
        let headers = &request.headers;
        if request.method != Method::GET {
            return Err(Denied::method("GET", "a WebSocket is opened with GET"));
        }
        if request.version < Version::HTTP_11 {
            return Err(refused(StatusCode::BAD_REQUEST, "a WebSocket needs HTTP/1.1"));
        }
        if !has_token(headers, CONNECTION, "upgrade") || !has_token(headers, UPGRADE, "websocket") {
            let why = "this is a WebSocket endpoint: send Connection: Upgrade and Upgrade: websocket \
                       (a proxy in between has to pass both on)";
            return Err(refused(StatusCode::UPGRADE_REQUIRED, why));
        }
        if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
            return Err(refused(StatusCode::UPGRADE_REQUIRED, "Sec-WebSocket-Version has to be 13"));
        }
        let accept = accept(headers)?;
        let query = request.uri.query().unwrap_or("");
        let subprotocol = subprotocol(headers);
        let protobuf = match subprotocol {
            Some(chosen) => chosen == PROTOBUF,
            None => has_pair(query, "format", "protobuf") || has_pair(query, "cf_protocol", "protobuf"),
        };
        let deflate = compresses && deflate::is_offered(headers);
        let plain = match (protobuf, listens) {
            (false, false) => Wire::JsonWebSocket,
            (true, false) => Wire::ProtobufWebSocket,
            (false, true) => Wire::UniJsonWebSocket,
            (true, true) => Wire::UniProtobufWebSocket,
        };
        Ok(Self {
            accept,
            subprotocol,
            wire: if deflate { plain.deflated() } else { plain },
            deflate,
            transport_pings: has_pair(query, "cf_ws_frame_ping_pong", "true"),
        })
    }
}

/// The refusal of a request that is no opening handshake.
fn refused(status: StatusCode, why: &'static str) -> Denied {
    Denied::new(status, "handshake", why)
}

/// The accept value for the request's key, which has to be 16 bytes in base64.
fn accept(headers: &HeaderMap) -> Result<HeaderValue, Denied> {
    let refused = || refused(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key has to be 16 bytes in base64");
    let key = headers.get(SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes);
    let Some(key) = key.filter(|key| BASE64.decode(key).is_ok_and(|nonce| nonce.len() == 16)) else {
        return Err(refused());
    };
    let digest = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    HeaderValue::from_str(&BASE64.encode(digest)).map_err(|_| refused())
}

/// The first subprotocol offered that is known here.
fn subprotocol(headers: &HeaderMap) -> Option<&'static str> {
    let offered = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    offered.flat_map(|value| value.split(',')).find_map(|offer| match offer.trim() {
        JSON => Some(JSON),
        PROTOBUF => Some(PROTOBUF),
        _ => None,
    })
}

/// Whether a header that is a list of tokens has this one, in any case of letters.
fn has_token(headers: &HeaderMap, name: http::HeaderName, token: &str) -> bool {
    let values = headers.get_all(name);
    let mut values = values.iter().filter_map(|value| value.to_str().ok());
    values.any(|value| value.split(',').any(|item| item.trim().eq_ignore_ascii_case(token)))
}

fn has_pair(query: &str, name: &str, value: &str) -> bool {
    query.split('&').any(|pair| pair.split_once('=') == Some((name, value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(pairs: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::get("/connection/websocket?format=protobuf").body(()).unwrap();
        for (name, value) in pairs {
            request.headers_mut().append(http::HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        request.into_parts().0
    }

    const GOOD: [(&str, &str); 4] = [
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    #[test]
    fn accepts_the_sample_of_the_rfc() {
        let opening = Opening::read(&request(&GOOD), false, false).unwrap();
        assert_eq!(opening.accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(opening.wire, Wire::ProtobufWebSocket);
        assert_eq!(Opening::read(&request(&GOOD), true, false).unwrap().wire, Wire::UniProtobufWebSocket);
    }

    #[test]
    fn a_subprotocol_stands_before_the_query() {
        let mut pairs = GOOD.to_vec();
        pairs.push(("sec-websocket-protocol", "mqtt, centrifuge-json"));
        let opening = Opening::read(&request(&pairs), false, false).unwrap();
        assert_eq!((opening.subprotocol, opening.wire), (Some(JSON), Wire::JsonWebSocket));
    }

    #[test]
    fn compression_is_agreed_on_where_it_is_offered_and_turned_on() {
        let mut pairs = GOOD.to_vec();
        pairs.push(("sec-websocket-extensions", "permessage-deflate; client_max_window_bits"));
        let read = |listens, compresses| Opening::read(&request(&pairs), listens, compresses).unwrap().wire;
        assert_eq!(read(false, true), Wire::ProtobufDeflated);
        assert_eq!(read(true, true), Wire::UniProtobufDeflated);
        assert_eq!(read(false, false), Wire::ProtobufWebSocket);
    }

    #[test]
    fn each_missing_or_wrong_header_has_its_status() {
        let statuses = [StatusCode::UPGRADE_REQUIRED, StatusCode::UPGRADE_REQUIRED, StatusCode::UPGRADE_REQUIRED];
        for (place, status) in statuses.into_iter().chain([StatusCode::BAD_REQUEST]).enumerate() {
            let mut pairs = GOOD.to_vec();
            pairs.remove(place);
            assert_eq!(
                Opening::read(&request(&pairs), false, true).unwrap_err().status,
                status,
                "without {}",
                GOOD[place].0
            );
        }
        let short = [GOOD[0], GOOD[1], GOOD[2], ("sec-websocket-key", "c2hvcnQ=")];
        assert_eq!(Opening::read(&request(&short), false, true).unwrap_err().status, StatusCode::BAD_REQUEST);
    }
}
