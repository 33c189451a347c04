//! What a `PUBLISH` carries: an event of a room and the time it happened. Knows no connection and no channel.
//!
//! Layout: one byte kind, then for a publication in the room's history its place (20 digits, the offset, and the eight
//! letters of the epoch), then the rest: eight bytes time in microseconds since the Unix epoch (little endian), one byte
//! flags (1 = delta, 2 = exclude), with exclude the 16 bytes of the session's UUID, and the `Publication` or `ClientInfo` in
//! Protobuf. Redis itself numbers a publication and so writes kind and place; the rest is the node's, and is what the
//! history keeps. Several publications of one room are a *pack*: the kind, the place of the last of them, and then of each in
//! order the length of its rest (four bytes, little endian) and the rest; their places follow one on another. Whatever is not
//! known here is malformed, so that later layouts can be told apart.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Buf, BufMut, Bytes};
use prost::Message;
use roomcast_shared::{
    event::{Event, Said},
    position::{Epoch, Position},
    publication::{ClientInfo, Publication},
};
use smallvec::{SmallVec, smallvec};

const PUBLICATION: u8 = 1;
/// The kind of a publication that Redis has numbered.
pub(super) const KEPT: u8 = 2;
const JOIN: u8 = 3;
const LEAVE: u8 = 4;
/// The kind of several of them.
pub(super) const PACK: u8 = 5;

const DELTA: u8 = 1;
const EXCLUDE: u8 = 2;

/// Digits of an offset.
const DIGITS: usize = 20;
/// Length of a place.
pub(super) const PLACE: usize = DIGITS + Epoch::LENGTH;
/// Time and flags.
const FIXED: usize = 9;
/// What a pack has before each rest: how long it is.
const LENGTH: usize = 4;

/// An event as it arrived.
#[derive(Debug, PartialEq)]
pub(super) struct Envelope {
    /// When it happened, by the clock of its node.
    pub(super) published: SystemTime,
    /// What happened; a payload is a slice of what was decoded.
    pub(super) event: Event,
}

/// What a message brings: one event, or those of a pack in their order.
pub(super) type Envelopes = SmallVec<[Envelope; 1]>;

/// Why bytes are no envelope.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum Malformed {
    /// Fewer bytes than there have to be.
    #[error("{0} bytes are too few for an envelope")]
    Short(usize),
    /// A kind this version does not know.
    #[error("kind {0} is not known")]
    Kind(u8),
    /// Flags this version does not know.
    #[error("flags {0} are not known")]
    Flags(u8),
    /// The place is not digits and letters.
    #[error("the place in the history is not understood")]
    Place,
    /// Lengths in a pack do not come to what there is of it, or there are more publications than places.
    #[error("the pack is not understood")]
    Pack,
    /// The Protobuf part does not decode.
    #[error("the event does not decode: {0}")]
    Event(#[from] prost::DecodeError),
}

/// Length of what [`encode`] writes.
pub(super) fn encoded_len(event: &Event) -> usize {
    1 + match event {
        Event::Publication(said) => rest_len(said),
        Event::Join(info) | Event::Leave(info) => FIXED + info.encoded_len(),
    }
}

/// Writes the envelope of an event that happens at `now` and is not in the room's history.
pub(super) fn encode(event: &Event, now: SystemTime, mut out: impl BufMut) {
    match event {
        Event::Publication(said) => {
            out.put_u8(PUBLICATION);
            encode_rest(said, now, out);
        }
        Event::Join(info) => encode_presence(JOIN, info, now, out),
        Event::Leave(info) => encode_presence(LEAVE, info, now, out),
    }
}

fn encode_presence(kind: u8, info: &ClientInfo, now: SystemTime, mut out: impl BufMut) {
    out.put_u8(kind);
    put_time(now, &mut out);
    out.put_u8(0);
    info.encode_raw(&mut out);
}

/// Length of what [`encode_rest`] writes.
pub(super) fn rest_len(said: &Said) -> usize {
    let exclude = if said.exclude.is_some() { 16 } else { 0 };
    FIXED + exclude + said.publication.encoded_len()
}

/// Writes the rest of a publication's envelope, to which Redis adds what comes before it.
pub(super) fn encode_rest(said: &Said, now: SystemTime, mut out: impl BufMut) {
    put_time(now, &mut out);
    let delta = if said.delta { DELTA } else { 0 };
    match said.exclude {
        Some(session) => {
            out.put_u8(delta | EXCLUDE);
            out.put_u128(session);
        }
        None => out.put_u8(delta),
    }
    said.publication.encode_raw(&mut out);
}

/// What a pack takes for a rest of so many bytes.
pub(super) const fn packed_len(rest: usize) -> usize {
    LENGTH + rest
}

/// Adds the rest of a publication's envelope to a pack.
pub(super) fn pack(rest: &[u8], out: &mut impl BufMut) {
    out.put_u32_le(u32::try_from(rest.len()).unwrap_or(u32::MAX));
    out.put_slice(rest);
}

fn put_time(now: SystemTime, out: &mut impl BufMut) {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    out.put_u64_le(u64::try_from(since.as_micros()).unwrap_or(u64::MAX));
}

/// Reads an envelope, without copying payloads. Of a pack that is not understood throughout nothing is given.
pub(super) fn decode(mut bytes: Bytes) -> Result<Envelopes, Malformed> {
    let kind = bytes.try_get_u8().map_err(|_| Malformed::Short(0))?;
    let one = match kind {
        PUBLICATION => decode_rest(bytes, None),
        KEPT => take_place(&mut bytes).and_then(|place| decode_rest(bytes, Some(place))),
        PACK => return take_place(&mut bytes).and_then(|last| unpack(bytes, last)),
        JOIN => decode_presence(bytes, Event::Join),
        LEAVE => decode_presence(bytes, Event::Leave),
        kind => Err(Malformed::Kind(kind)),
    };
    one.map(|envelope| smallvec![envelope])
}

fn take_place(bytes: &mut Bytes) -> Result<Position, Malformed> {
    if bytes.len() < PLACE {
        return Err(Malformed::Short(bytes.len()));
    }
    decode_place(&bytes.split_to(PLACE)).ok_or(Malformed::Place)
}

/// Reads a pack whose last publication has this place.
pub(super) fn unpack(mut pack: Bytes, last: Position) -> Result<Envelopes, Malformed> {
    let count = count(&pack).ok_or(Malformed::Pack)?;
    let before = last.offset.checked_sub(count as u64).filter(|_| count > 0).ok_or(Malformed::Pack)?;
    let mut envelopes = Envelopes::with_capacity(count);
    for offset in before + 1..=last.offset {
        let length = pack.get_u32_le() as usize;
        envelopes.push(decode_rest(pack.split_to(length), Some(Position::new(offset, last.epoch)))?);
    }
    Ok(envelopes)
}

/// How many are in a pack, if each is there as its length says.
fn count(mut pack: &[u8]) -> Option<usize> {
    let mut count = 0;
    while !pack.is_empty() {
        let length = pack.try_get_u32_le().ok()? as usize;
        pack = pack.get(length..).filter(|_| length >= FIXED)?;
        count += 1;
    }
    Some(count)
}

/// Reads the rest of a publication's envelope; its place is known, where it has one.
pub(super) fn decode_rest(mut bytes: Bytes, place: Option<Position>) -> Result<Envelope, Malformed> {
    let (published, flags) = take_fixed(&mut bytes)?;
    let exclude = match flags & EXCLUDE {
        0 => None,
        _ => Some(bytes.try_get_u128().map_err(|_| Malformed::Short(bytes.len()))?),
    };
    let mut publication = Publication::decode(bytes)?;
    if let Some(place) = place {
        publication.offset = place.offset;
    }
    let said = Said { publication, epoch: place.map(|place| place.epoch), delta: flags & DELTA != 0, exclude };
    Ok(Envelope { published, event: said.into() })
}

fn decode_presence(mut bytes: Bytes, event: fn(ClientInfo) -> Event) -> Result<Envelope, Malformed> {
    match take_fixed(&mut bytes)? {
        (published, 0) => Ok(Envelope { published, event: event(ClientInfo::decode(bytes)?) }),
        (_, flags) => Err(Malformed::Flags(flags)),
    }
}

fn take_fixed(bytes: &mut Bytes) -> Result<(SystemTime, u8), Malformed> {
    if bytes.len() < FIXED {
        return Err(Malformed::Short(bytes.len()));
    }
    let since = Duration::from_micros(bytes.get_u64_le());
    let flags = bytes.get_u8();
    if flags & !(DELTA | EXCLUDE) != 0 {
        return Err(Malformed::Flags(flags));
    }
    Ok((UNIX_EPOCH.checked_add(since).unwrap_or(UNIX_EPOCH), flags))
}

/// Reads a place; none where it is not 20 digits and eight letters.
pub(super) fn decode_place(bytes: &[u8]) -> Option<Position> {
    let (digits, letters) = bytes.split_at_checked(DIGITS)?;
    let digits = digits.iter().all(u8::is_ascii_digit).then(|| std::str::from_utf8(digits).ok())??;
    Some(Position::new(digits.parse().ok()?, Epoch::parse(letters)?))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use bytes::Bytes;
    use proptest::prelude::*;
    use roomcast_shared::{
        event::{Event, Said},
        position::{Epoch, Position},
        publication::{ClientInfo, Publication},
    };
    use smallvec::smallvec;

    use super::{
        Envelope, Envelopes, FIXED, Malformed, PLACE, decode, decode_place, encode, encode_rest, encoded_len, pack,
        packed_len, rest_len,
    };

    fn moment() -> SystemTime {
        UNIX_EPOCH + Duration::from_micros(1_700_000_000_000_001)
    }

    fn encoded(event: &Event) -> Bytes {
        let mut out = Vec::new();
        encode(event, moment(), &mut out);
        assert_eq!(out.len(), encoded_len(event));
        out.into()
    }

    /// What Redis publishes of a publication that it has numbered.
    fn numbered(place: &str, said: &Said) -> Bytes {
        let mut out = [b"\x02", place.as_bytes()].concat();
        encode_rest(said, moment(), &mut out);
        assert_eq!(out.len(), 1 + place.len() + rest_len(said));
        out.into()
    }

    /// The same of several.
    fn packed(last: &str, all: &[Said]) -> Bytes {
        let mut out = [b"\x05", last.as_bytes()].concat();
        for said in all {
            let (mut rest, begin) = (Vec::new(), out.len());
            encode_rest(said, moment(), &mut rest);
            pack(&rest, &mut out);
            assert_eq!(out.len() - begin, packed_len(rest_len(said)));
        }
        out.into()
    }

    fn events(decoded: Result<Envelopes, Malformed>) -> Result<Vec<Event>, Malformed> {
        decoded.map(|envelopes| envelopes.into_iter().map(|envelope| envelope.event).collect())
    }

    fn publication() -> Publication {
        let info = ClientInfo { user: "ada".into(), client: "c1".into(), ..ClientInfo::default() };
        Publication { data: Bytes::from_static(b"\0\xff{}"), info: Some(info), ..Default::default() }
    }

    #[test]
    fn what_is_encoded_decodes() {
        let info = ClientInfo { user: "ada".into(), chan_info: Bytes::from_static(b"{}"), ..ClientInfo::default() };
        let said = Said { publication: publication(), epoch: None, delta: true, exclude: Some(u128::MAX - 7) };
        for event in [publication().into(), said.into(), Event::Join(info.clone()), Event::Leave(info)] {
            assert_eq!(decode(encoded(&event)), Ok(smallvec![Envelope { published: moment(), event }]));
        }
    }

    #[test]
    fn a_publication_that_redis_numbered_has_its_place() {
        let mut said = Said { delta: true, exclude: Some(5), ..publication().into() };
        let decoded = decode(numbered("18446744073709551615abcdEFGH", &said));
        said.publication.offset = u64::MAX;
        said.epoch = Epoch::parse(b"abcdEFGH");
        assert_eq!(events(decoded), Ok(vec![said.into()]));
    }

    #[test]
    fn the_payload_is_not_copied() {
        let said = Said::from(Publication { data: Bytes::from_static(b"payload"), ..Default::default() });
        let place = "00000000000000000007abcdefgh";
        let pack = packed(place, &[said.clone(), said.clone(), said.clone()]);
        for whole in [encoded(&said.clone().into()), numbered(place, &said), pack] {
            for envelope in decode(whole.clone()).expect("just encoded") {
                let Event::Publication(said) = envelope.event else { panic!() };
                assert!(whole.as_ptr_range().contains(&said.publication.data.as_ptr()));
            }
        }
    }

    /// What can be in a pack: all that distinguishes one publication from another, in a few bytes.
    fn any_said() -> impl Strategy<Value = Said> {
        (prop::collection::vec(any::<u8>(), 0..20), any::<bool>(), any::<Option<u128>>()).prop_map(
            |(data, delta, exclude)| {
                let publication = Publication { data: data.into(), ..Publication::default() };
                Said { publication, epoch: None, delta, exclude }
            },
        )
    }

    #[test]
    fn odd_envelopes_are_named() {
        assert_eq!(decode(Bytes::new()), Err(Malformed::Short(0)));
        assert_eq!(decode(Bytes::from_static(b"\x01")), Err(Malformed::Short(0)));
        assert_eq!(decode(Bytes::from_static(b"\x02000")), Err(Malformed::Short(3)));
        assert_eq!(decode(Bytes::from_static(b"\x07\0\0\0\0\0\0\0\0")), Err(Malformed::Kind(7)));
        assert_eq!(decode(Bytes::from_static(b"\x01\0\0\0\0\0\0\0\0\x04")), Err(Malformed::Flags(4)));
        assert_eq!(decode(Bytes::from_static(b"\x03\0\0\0\0\0\0\0\0\x01")), Err(Malformed::Flags(1)));
        assert_eq!(decode(Bytes::from_static(b"\x01\0\0\0\0\0\0\0\0\x02short")), Err(Malformed::Short(5)));
        let said = Said::from(publication());
        for odd in ["0000000000000000000xabcdefgh", "00000000000000000001abcdefg1", "99999999999999999999abcdefgh"] {
            assert_eq!(decode(numbered(odd, &said)), Err(Malformed::Place));
        }
        let whole = encoded(&publication().into());
        assert!(matches!(decode(whole.slice(..whole.len() - 1)), Err(Malformed::Event(_))));
    }

    #[test]
    fn odd_packs_are_named() {
        let said = Said::from(publication());
        let of_two = packed("00000000000000000002abcdefgh", &[said.clone(), said.clone()]);
        assert_eq!(decode(of_two.clone()).map(|pack| pack.len()), Ok(2));
        assert_eq!(decode(of_two.slice(..20)), Err(Malformed::Short(19)));
        let head = 1 + PLACE;
        let cut = (head + 1..of_two.len()).filter(|end| *end != head + packed_len(rest_len(&said)));
        for end in cut {
            assert_eq!(decode(of_two.slice(..end)), Err(Malformed::Pack), "{end}");
        }
        assert_eq!(decode(of_two.slice(..head)), Err(Malformed::Pack), "nothing is no pack");
        assert_eq!(decode([&of_two[..], b"\0\0\0\0"].concat().into()), Err(Malformed::Pack));
        assert_eq!(decode([&of_two[..], b"\xff\xff\xff\xffrest"].concat().into()), Err(Malformed::Pack));
        assert_eq!(decode(packed("00000000000000000001abcdefgh", &[said.clone(), said.clone()])), Err(Malformed::Pack));
        assert_eq!(decode(packed("0000000000000000000xabcdefgh", &[said])), Err(Malformed::Place));
        let mut flagged = of_two.to_vec();
        *flagged.iter_mut().rev().nth(rest_len(&publication().into()) - FIXED).expect("the flags") = 4;
        assert_eq!(decode(flagged.into()), Err(Malformed::Flags(4)), "the first alone is given to nobody");
    }

    #[test]
    fn places_are_digits_and_letters() {
        let epoch = Epoch::parse(b"abcdefgh").expect("eight letters");
        assert_eq!(decode_place(b"00000000000000000042abcdefgh"), Some(Position::new(42, epoch)));
        for odd in [&b""[..], b"42abcdefgh", b"+0000000000000000042abcdefgh", b"00000000000000000042abcdefgh "] {
            assert_eq!(decode_place(odd), None);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_cause_a_panic(bytes: Vec<u8>) {
            let _ = decode(bytes.clone().into());
            for kind in 1..=5 {
                let _ = decode([&[kind], bytes.as_slice()].concat().into());
                let _ = decode([&[kind], b"00000000000000000042abcdefgh".as_slice(), &bytes].concat().into());
            }
        }

        #[test]
        fn what_was_packed_is_given_in_its_order(all in prop::collection::vec(any_said(), 1..40), before: u32) {
            let last = u64::from(before) + all.len() as u64;
            let expected = all.iter().zip(u64::from(before) + 1..).map(|(said, offset)| {
                let publication = Publication { offset, ..said.publication.clone() };
                Said { publication, epoch: Epoch::parse(b"abcdefgh"), ..said.clone() }.into()
            });
            let expected: Vec<Event> = expected.collect();
            prop_assert_eq!(events(decode(packed(&format!("{last:020}abcdefgh"), &all))), Ok(expected));
        }

        #[test]
        fn a_pack_that_was_changed_causes_no_panic(
            all in prop::collection::vec(any_said(), 1..5),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
            cut: prop::sample::Index,
        ) {
            let mut bytes = packed("00000000000000000009abcdefgh", &all).to_vec();
            for (place, byte) in changes {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
            let _ = decode(bytes.clone().into());
            bytes.truncate(cut.index(bytes.len()));
            let _ = decode(bytes.into());
        }
    }
}
