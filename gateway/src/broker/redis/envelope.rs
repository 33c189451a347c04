//! What a `PUBLISH` carries: a publication and the time it was published. Knows no connection and no channel.
//!
//! Layout: one byte kind (1 = publication), eight bytes time in microseconds since the Unix epoch (little endian), then
//! the `Publication` in Protobuf. A kind that is not known is malformed, so that later kinds can be told apart.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Buf, BufMut, Bytes};
use prost::Message;
use roomcast_shared::publication::Publication;

const PUBLICATION: u8 = 1;
const HEADER: usize = 9;

/// A publication as it arrived.
#[derive(Debug, PartialEq)]
pub(super) struct Envelope {
    /// When it was published, by the clock of the publishing node.
    pub(super) published: SystemTime,
    /// What was published; its payload is a slice of what was decoded.
    pub(super) publication: Publication,
}

/// Why bytes are no envelope.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum Malformed {
    /// Fewer bytes than the header has.
    #[error("{0} bytes are too few for an envelope")]
    Short(usize),
    /// A kind this version does not know.
    #[error("kind {0} is not known")]
    Kind(u8),
    /// The Protobuf part does not decode.
    #[error("the publication does not decode: {0}")]
    Publication(#[from] prost::DecodeError),
}

/// Length of what [`encode`] writes.
pub(super) fn encoded_len(publication: &Publication) -> usize {
    HEADER + publication.encoded_len()
}

/// Writes the envelope of a publication published at `now`.
pub(super) fn encode(publication: &Publication, now: SystemTime, mut out: impl BufMut) {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    out.put_u8(PUBLICATION);
    out.put_u64_le(u64::try_from(since.as_micros()).unwrap_or(u64::MAX));
    publication.encode_raw(&mut out);
}

/// Reads what [`encode`] wrote, without copying the payload.
pub(super) fn decode(mut bytes: Bytes) -> Result<Envelope, Malformed> {
    if bytes.len() < HEADER {
        return Err(Malformed::Short(bytes.len()));
    }
    let kind = bytes.get_u8();
    if kind != PUBLICATION {
        return Err(Malformed::Kind(kind));
    }
    let since = Duration::from_micros(bytes.get_u64_le());
    let published = UNIX_EPOCH.checked_add(since).unwrap_or(UNIX_EPOCH);
    Ok(Envelope { published, publication: Publication::decode(bytes)? })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use bytes::Bytes;
    use proptest::prelude::*;
    use roomcast_shared::publication::{ClientInfo, Publication};

    use super::{Envelope, Malformed, decode, encode, encoded_len};

    fn encoded(publication: &Publication) -> Bytes {
        let mut out = Vec::new();
        encode(publication, UNIX_EPOCH + Duration::from_micros(1_700_000_000_000_001), &mut out);
        assert_eq!(out.len(), encoded_len(publication));
        out.into()
    }

    #[test]
    fn what_is_encoded_decodes() {
        let info = ClientInfo { user: "ada".into(), client: "c1".into(), ..ClientInfo::default() };
        let publication = Publication { data: Bytes::from_static(b"\0\xff{}"), info: Some(info), ..Default::default() };
        let published = UNIX_EPOCH + Duration::from_micros(1_700_000_000_000_001);
        assert_eq!(decode(encoded(&publication)), Ok(Envelope { published, publication }));
    }

    #[test]
    fn the_payload_is_not_copied() {
        let whole = encoded(&Publication { data: Bytes::from_static(b"payload"), ..Default::default() });
        let data = decode(whole.clone()).expect("just encoded").publication.data;
        assert!(whole.as_ptr_range().contains(&data.as_ptr()));
    }

    #[test]
    fn odd_envelopes_are_named() {
        assert_eq!(decode(Bytes::from_static(b"\x01")), Err(Malformed::Short(1)));
        assert_eq!(decode(Bytes::from_static(b"\x07\0\0\0\0\0\0\0\0")), Err(Malformed::Kind(7)));
        let truncated = encoded(&Publication { data: Bytes::from_static(b"payload"), ..Default::default() });
        assert!(matches!(decode(truncated.slice(..truncated.len() - 1)), Err(Malformed::Publication(_))));
    }

    proptest! {
        #[test]
        fn no_bytes_cause_a_panic(bytes: Vec<u8>) {
            let _ = decode(bytes.clone().into());
            let _ = decode([&[1], bytes.as_slice()].concat().into());
        }
    }
}
