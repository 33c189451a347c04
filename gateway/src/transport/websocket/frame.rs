//! Reading of RFC 6455 frames: pure, from bytes to messages. Strict: whatever the protocol forbids ends with its close code.
//! A whole frame is read in place; only what is not whole yet, or was compressed, is kept.

use roomcast_shared::protocol::code::Disconnect;

use super::deflate::{Inflated, inflate};
use crate::hub::Opcode;

const PROTOCOL_ERROR: u16 = 1002;
const INVALID_PAYLOAD: u16 = 1007;
const TOO_BIG: u16 = 1009;

/// Longest payload of a control frame (RFC 6455, section 5.5).
const LONGEST_CONTROL: u64 = 125;

/// Something a client said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event<'a> {
    /// A whole message, text or binary; text is checked to be UTF-8.
    Message(Opcode, &'a [u8]),
    /// A ping, to be answered with the same payload.
    Ping(&'a [u8]),
    /// A pong.
    Pong,
    /// The client closes; with this code, if it gave one.
    Close(Option<u16>),
}

/// What a client has begun to say.
#[derive(Debug)]
pub(super) struct Reader {
    /// Most bytes of a message.
    limit: usize,
    /// Messages may be compressed: the handshake has agreed on it.
    inflates: bool,
    /// The fragments of a message so far.
    fragments: Option<Box<Fragments>>,
}

#[derive(Debug)]
struct Fragments {
    text: bool,
    compressed: bool,
    data: Vec<u8>,
    /// So much of `data` is known to be UTF-8.
    valid: usize,
}

/// A frame's first bytes.
#[derive(Clone, Copy, Debug)]
struct Header {
    fin: bool,
    /// The message that begins with this frame is compressed (RFC 7692, section 6).
    compressed: bool,
    opcode: Opcode,
    mask: [u8; 4],
    /// Bytes of the header itself.
    size: usize,
    /// Bytes that follow it.
    length: usize,
}

impl Reader {
    /// A reader of messages of at most `limit` bytes, before and after they are inflated; `inflates` where the handshake has
    /// agreed that they may be compressed.
    pub(super) fn new(limit: usize, inflates: bool) -> Self {
        Self { limit, inflates, fragments: None }
    }

    /// Reads one frame from the beginning of `bytes` and gives how many bytes it took and what was said by it, if it was the
    /// last of its message. `None` where the frame is not whole yet.
    ///
    /// # Errors
    /// The close code that the violation calls for (RFC 6455, section 7.4.1).
    pub(super) fn read<'a>(
        &'a mut self,
        bytes: &'a mut [u8],
    ) -> Result<Option<(usize, Option<Event<'a>>)>, Disconnect> {
        let begun = self.fragments.as_ref().map(|fragments| fragments.data.len());
        let Some(header) = header(bytes, self, begun)? else { return Ok(None) };
        let end = header.size + header.length;
        let Some(payload) = bytes.get_mut(header.size..end) else { return Ok(None) };
        unmask(payload, header.mask);
        let event = match header.opcode {
            Opcode::Ping => Some(Event::Ping(payload)),
            Opcode::Pong => Some(Event::Pong),
            Opcode::Close => Some(Event::Close(close_code(payload)?)),
            Opcode::Text | Opcode::Binary if header.fin && !header.compressed => {
                if header.opcode == Opcode::Text && simdutf8::basic::from_utf8(payload).is_err() {
                    return Err(not_utf8());
                }
                // A message of one frame is not kept: what was kept of others belongs to them.
                Some(Event::Message(header.opcode, payload))
            }
            Opcode::Text | Opcode::Binary | Opcode::Continuation => {
                self.gather(header, payload)?;
                if !header.fin {
                    return Ok(Some((end, None)));
                }
                self.whole()?
            }
        };
        Ok(Some((end, event)))
    }

    /// Gives back the memory of a message that was told.
    pub(super) fn forget_message(&mut self) {
        if self.fragments.as_ref().is_some_and(|fragments| fragments.is_whole()) {
            self.fragments = None;
        }
    }

    fn gather(&mut self, header: Header, payload: &[u8]) -> Result<(), Disconnect> {
        let fragments = self.fragments.get_or_insert_with(|| {
            let (text, compressed) = (header.opcode == Opcode::Text, header.compressed);
            Box::new(Fragments { text, compressed, data: Vec::new(), valid: 0 })
        });
        fragments.data.extend_from_slice(payload);
        if fragments.compressed { Ok(()) } else { fragments.check_utf8(header.fin) }
    }

    fn whole(&mut self) -> Result<Option<Event<'_>>, Disconnect> {
        let Some(fragments) = self.fragments.as_mut() else { return Ok(None) };
        if fragments.compressed {
            fragments.inflate(self.limit)?;
        }
        fragments.valid = usize::MAX;
        let opcode = if fragments.text { Opcode::Text } else { Opcode::Binary };
        Ok(Some(Event::Message(opcode, &fragments.data)))
    }
}

impl Fragments {
    /// Whether the message was told already.
    fn is_whole(&self) -> bool {
        self.valid == usize::MAX
    }

    /// Puts the message in the place of its compressed bytes.
    fn inflate(&mut self, limit: usize) -> Result<(), Disconnect> {
        self.data = match inflate(std::mem::take(&mut self.data), limit) {
            Inflated::Whole(data) => data,
            Inflated::TooBig => return Err(too_big(limit)),
            Inflated::Broken => return Err(Disconnect::new(INVALID_PAYLOAD, "compressed data that cannot be read")),
        };
        self.check_utf8(true)
    }

    /// Checks what came new; the last character may go on in the next fragment.
    fn check_utf8(&mut self, last: bool) -> Result<(), Disconnect> {
        if !self.text {
            return Ok(());
        }
        match simdutf8::compat::from_utf8(&self.data[self.valid..]) {
            Ok(text) => self.valid += text.len(),
            Err(error) if error.error_len().is_none() && !last => self.valid += error.valid_up_to(),
            Err(_) => return Err(not_utf8()),
        }
        Ok(())
    }
}

/// Reads a header. `begun` is how much there is of a fragmented message already.
fn header(bytes: &[u8], reader: &Reader, begun: Option<usize>) -> Result<Option<Header>, Disconnect> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    let limit = reader.limit;
    let (fin, opcode) = opening(*first, begun.is_some())?;
    let compressed = compressed(*first, opcode, reader.inflates)?;
    if second & 0x80 == 0 {
        return Err(violation("frames of a client have to be masked"));
    }
    let Some((length, rest)) = length(second & 0x7F, rest)? else { return Ok(None) };
    if opcode as u8 >= 0x8 && (!fin || length > LONGEST_CONTROL) {
        return Err(violation("control frames are not fragmented and carry 125 bytes at most"));
    }
    // Judged by what the header announces, before memory is taken for it.
    let total = length.saturating_add(begun.unwrap_or(0) as u64);
    if (opcode as u8) < 0x8 && total > limit as u64 {
        return Err(too_big(limit));
    }
    let Some((mask, rest)) = rest.split_first_chunk() else { return Ok(None) };
    let length = usize::try_from(length).map_err(|_| too_big(limit))?;
    Ok(Some(Header { fin, compressed, opcode, mask: *mask, size: bytes.len() - rest.len(), length }))
}

fn opening(first: u8, in_message: bool) -> Result<(bool, Opcode), Disconnect> {
    let opcode = match first & 0x0F {
        0x0 if !in_message => return Err(violation("a continuation without a message")),
        0x1 | 0x2 if in_message => return Err(violation("a new message before the last one ended")),
        0x0 => Opcode::Continuation,
        0x1 => Opcode::Text,
        0x2 => Opcode::Binary,
        0x8 => Opcode::Close,
        0x9 => Opcode::Ping,
        0xA => Opcode::Pong,
        _ => return Err(violation("a reserved opcode")),
    };
    Ok((first & 0x80 != 0, opcode))
}

/// Whether a frame begins a compressed message. Of the reserved bits only the first has a meaning, only where compression was
/// agreed on, and only in the first frame of a message (RFC 7692, section 6.1).
fn compressed(first: u8, opcode: Opcode, inflates: bool) -> Result<bool, Disconnect> {
    let begins = matches!(opcode, Opcode::Text | Opcode::Binary);
    match first & 0x70 {
        0 => Ok(false),
        0x40 if inflates && begins => Ok(true),
        0x40 if inflates => Err(violation("only the first frame of a message says that it is compressed")),
        _ => Err(violation("reserved bits are set, and no extension was agreed on")),
    }
}

/// The payload's length, which has to be spelt in the fewest bytes (RFC 6455, section 5.2).
fn length(short: u8, rest: &[u8]) -> Result<Option<(u64, &[u8])>, Disconnect> {
    let (length, rest, least) = match short {
        126 => match rest.split_first_chunk() {
            Some((bytes, rest)) => (u64::from(u16::from_be_bytes(*bytes)), rest, 126),
            None => return Ok(None),
        },
        127 => match rest.split_first_chunk() {
            Some((bytes, rest)) => (u64::from_be_bytes(*bytes), rest, 1 << 16),
            None => return Ok(None),
        },
        short => (u64::from(short), rest, 0),
    };
    if length < least || length >> 63 != 0 {
        return Err(violation("a length that is not spelt in the fewest bytes"));
    }
    Ok(Some((length, rest)))
}

fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut chunks = payload.chunks_exact_mut(8);
    for chunk in &mut chunks {
        let mut word = [0; 8];
        word.copy_from_slice(chunk);
        chunk.copy_from_slice(&(u64::from_ne_bytes(word) ^ wide).to_ne_bytes());
    }
    for (byte, mask) in chunks.into_remainder().iter_mut().zip(mask.into_iter().cycle()) {
        *byte ^= mask;
    }
}

/// The code of a close frame's payload (RFC 6455, sections 5.5.1 and 7.4).
fn close_code(payload: &[u8]) -> Result<Option<u16>, Disconnect> {
    match payload {
        [] => Ok(None),
        [_] => Err(violation("a close frame of one byte")),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
                return Err(violation("a close code that must not be sent"));
            }
            simdutf8::basic::from_utf8(reason).map_err(|_| not_utf8())?;
            Ok(Some(code))
        }
    }
}

fn violation(what: &'static str) -> Disconnect {
    Disconnect::new(PROTOCOL_ERROR, what)
}

fn not_utf8() -> Disconnect {
    Disconnect::new(INVALID_PAYLOAD, "text that is not UTF-8")
}

fn too_big(limit: usize) -> Disconnect {
    Disconnect { code: TOO_BIG, reason: format!("messages may have {limit} bytes").into() }
}

#[cfg(test)]
mod tests {
    //! The reader against a writer of its own, at any split of the bytes and over bytes that are anything.

    use proptest::prelude::*;

    use super::*;

    /// What was said, without the bytes it lay in.
    #[derive(Clone, Debug, PartialEq, Eq)]
    enum Said {
        Message(Vec<u8>),
        Ping(Vec<u8>),
        Pong,
        Close(Option<u16>),
    }

    impl From<Event<'_>> for Said {
        fn from(event: Event<'_>) -> Self {
            match event {
                Event::Message(_, message) => Self::Message(message.to_vec()),
                Event::Ping(payload) => Self::Ping(payload.to_vec()),
                Event::Pong => Self::Pong,
                Event::Close(code) => Self::Close(code),
            }
        }
    }

    /// What a client says: a message in one or several frames, or something between.
    #[derive(Clone, Debug)]
    enum Speech {
        Text(String, Vec<usize>),
        Binary(Vec<u8>, Vec<usize>),
        Ping(Vec<u8>),
        Pong(Vec<u8>),
    }

    fn speech() -> impl Strategy<Value = Speech> {
        let cuts = || proptest::collection::vec(0..400_usize, 0..4);
        let bytes = |most: usize| proptest::collection::vec(any::<u8>(), 0..most);
        prop_oneof![
            ("\\PC{0,100}", cuts()).prop_map(|(text, cuts)| Speech::Text(text, cuts)),
            (bytes(400), cuts()).prop_map(|(bytes, cuts)| Speech::Binary(bytes, cuts)),
            (proptest::collection::vec(any::<u8>(), 65_530..65_540), cuts())
                .prop_map(|(bytes, cuts)| Speech::Binary(bytes, cuts)),
            bytes(126).prop_map(Speech::Ping),
            bytes(126).prop_map(Speech::Pong),
        ]
    }

    fn put(first: u8, payload: &[u8], mask: [u8; 4], out: &mut Vec<u8>) {
        let begin = out.len();
        out.push(first);
        match payload.len() {
            short @ 0..126 => out.push(0x80 | u8::try_from(short).unwrap()),
            medium @ 126..0x1_0000 => {
                out.push(0xFE);
                out.extend(u16::try_from(medium).unwrap().to_be_bytes());
            }
            long => {
                out.push(0xFF);
                out.extend((long as u64).to_be_bytes());
            }
        }
        out.extend(mask);
        out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        assert!(out.len() >= begin + 6);
    }

    /// Writes it, with a ping between its frames, and says what has to come out.
    fn write(speech: &Speech, mask: [u8; 4], out: &mut Vec<u8>) -> Vec<Said> {
        let (opcode, payload, cuts) = match speech {
            Speech::Ping(payload) => {
                put(0x89, payload, mask, out);
                return vec![Said::Ping(payload.clone())];
            }
            Speech::Pong(payload) => {
                put(0x8A, payload, mask, out);
                return vec![Said::Pong];
            }
            Speech::Text(text, cuts) => (1, text.as_bytes(), cuts),
            Speech::Binary(bytes, cuts) => (2, &bytes[..], cuts),
        };
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (payload.len() + 1)).collect();
        cuts.sort_unstable();
        let (mut begin, mut first) = (0, opcode);
        let mut said = Vec::new();
        for cut in cuts {
            put(first, &payload[begin..cut], mask, out);
            put(0x89, b"between", mask, out);
            said.push(Said::Ping(b"between".to_vec()));
            (begin, first) = (cut, 0);
        }
        put(0x80 | first, &payload[begin..], mask, out);
        said.push(Said::Message(payload.to_vec()));
        said
    }

    /// Reads as a connection does: pieces come one after the other, and what is not whole is kept.
    fn read(limit: usize, bytes: &[u8], splits: &[usize]) -> Result<Vec<Said>, Disconnect> {
        let mut splits: Vec<_> = splits.iter().map(|split| split % (bytes.len() + 1)).chain([bytes.len()]).collect();
        splits.sort_unstable();
        let mut reader = Reader::new(limit, false);
        let (mut kept, mut begin, mut said) = (Vec::new(), 0, Vec::new());
        for split in splits {
            kept.extend_from_slice(&bytes[begin..split]);
            begin = split;
            while let Some((size, event)) = reader.read(&mut kept)? {
                said.extend(event.map(Said::from));
                reader.forget_message();
                kept.drain(..size);
            }
        }
        Ok(said)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_at_any_split(
            speeches in proptest::collection::vec(speech(), 0..6),
            splits in proptest::collection::vec(any::<usize>(), 0..8),
            mask in any::<[u8; 4]>(),
        ) {
            let mut bytes = Vec::new();
            let expected: Vec<_> = speeches.iter().flat_map(|speech| write(speech, mask, &mut bytes)).collect();
            prop_assert_eq!(read(70_000, &bytes, &splits), Ok(expected));
        }

        #[test]
        fn any_bytes_are_read_or_refused(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            splits in proptest::collection::vec(any::<usize>(), 0..8),
        ) {
            if let Err(close) = read(200, &bytes, &splits) {
                prop_assert!(matches!(close.code, 1002 | 1007 | 1009));
            }
        }

        /// Frames that are nearly right go further into the reader than noise does.
        #[test]
        fn frames_with_one_byte_changed_are_read_or_refused(
            speeches in proptest::collection::vec(speech(), 1..4),
            place in any::<usize>(),
            byte in any::<u8>(),
        ) {
            let mut bytes = Vec::new();
            for speech in &speeches {
                write(speech, [1, 2, 3, 4], &mut bytes);
            }
            let place = place % bytes.len();
            bytes[place] = byte;
            if let Err(close) = read(70_000, &bytes, &[]) {
                prop_assert!(matches!(close.code, 1002 | 1007 | 1009));
            }
        }

        /// However a text is cut, it is refused exactly if it is not UTF-8.
        #[test]
        fn text_is_utf8_however_it_is_cut(
            text in prop_oneof![
                "\\PC{0,20}".prop_map(String::into_bytes),
                proptest::collection::vec(prop_oneof![0x20..0x7F_u8, 0x80..=0xFF_u8], 0..12),
            ],
            cuts in proptest::collection::vec(0..100_usize, 0..5),
        ) {
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (text.len() + 1)).collect();
            cuts.sort_unstable();
            let (mut bytes, mut begin, mut first) = (Vec::new(), 0, 1);
            for cut in cuts {
                put(first, &text[begin..cut], [9, 8, 7, 6], &mut bytes);
                (begin, first) = (cut, 0);
            }
            put(0x80 | first, &text[begin..], [9, 8, 7, 6], &mut bytes);
            let expected = match std::str::from_utf8(&text) {
                Ok(_) => Ok(vec![Said::Message(text)]),
                Err(_) => Err(1007),
            };
            prop_assert_eq!(read(1000, &bytes, &[]).map_err(|close| close.code), expected);
        }

        /// A message is refused by the header that takes it past the limit, before any of its payload is there.
        #[test]
        fn the_limit_is_judged_by_headers(before in 0..200_usize, length in 0..400_usize) {
            let mut bytes = Vec::new();
            put(0x02, &vec![0; before], [0; 4], &mut bytes);
            let begin = bytes.len();
            put(0x80, &vec![0; length], [0; 4], &mut bytes);
            let header = begin + if length < 126 { 2 } else { 4 };
            let code = read(300, &bytes[..header], &[]).map_err(|close| close.code);
            prop_assert_eq!(code, if before + length > 300 { Err(1009) } else { Ok(vec![]) });
        }
    }

    #[test]
    fn memory_of_fragments_is_given_back_with_the_message() {
        let mut reader = Reader::new(100, false);
        let mut bytes = Vec::new();
        put(0x01, b"one ", [5; 4], &mut bytes);
        put(0x80, b"two", [6; 4], &mut bytes);
        let first = reader.read(&mut bytes).unwrap().unwrap().0;
        assert!(reader.fragments.is_some());
        let (_, event) = reader.read(&mut bytes[first..]).unwrap().unwrap();
        assert_eq!(event, Some(Event::Message(Opcode::Text, b"one two")));
        reader.forget_message();
        assert!(reader.fragments.is_none());
    }
}
