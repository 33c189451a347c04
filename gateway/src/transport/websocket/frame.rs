//! Reading of RFC 6455 frames: pure, from bytes to messages. Strict: whatever the protocol forbids ends with its close code.
//! A whole frame is read in place; only what is not whole yet is kept.

use roomcast_shared::protocol::code::Disconnect;

use crate::hub::Opcode;

const PROTOCOL_ERROR: u16 = 1002;
const INVALID_PAYLOAD: u16 = 1007;
const TOO_BIG: u16 = 1009;

/// Longest payload of a control frame (RFC 6455, section 5.5).
const LONGEST_CONTROL: u64 = 125;

/// Something a client said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event<'a> {
    /// A whole message, text checked to be UTF-8.
    Message(&'a [u8]),
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
    /// The fragments of a message so far.
    fragments: Option<Box<Fragments>>,
}

#[derive(Debug)]
struct Fragments {
    text: bool,
    data: Vec<u8>,
    /// So much of `data` is known to be UTF-8.
    valid: usize,
}

/// A frame's first bytes.
#[derive(Clone, Copy, Debug)]
struct Header {
    fin: bool,
    opcode: Opcode,
    mask: [u8; 4],
    /// Bytes of the header itself.
    size: usize,
    /// Bytes that follow it.
    length: usize,
}

impl Reader {
    /// A reader of messages of at most `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, fragments: None }
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
        let Some(header) = header(bytes, self.limit, begun)? else { return Ok(None) };
        let end = header.size + header.length;
        let Some(payload) = bytes.get_mut(header.size..end) else { return Ok(None) };
        unmask(payload, header.mask);
        let event = match header.opcode {
            Opcode::Ping => Some(Event::Ping(payload)),
            Opcode::Pong => Some(Event::Pong),
            Opcode::Close => Some(Event::Close(close_code(payload)?)),
            Opcode::Text | Opcode::Binary if header.fin => {
                if header.opcode == Opcode::Text && simdutf8::basic::from_utf8(payload).is_err() {
                    return Err(not_utf8());
                }
                // A message of one frame is not kept: what was kept of others belongs to them.
                Some(Event::Message(payload))
            }
            Opcode::Text | Opcode::Binary | Opcode::Continuation => {
                self.gather(header, payload)?;
                if !header.fin {
                    return Ok(Some((end, None)));
                }
                self.whole()
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
            Box::new(Fragments { text: header.opcode == Opcode::Text, data: Vec::new(), valid: 0 })
        });
        fragments.data.extend_from_slice(payload);
        fragments.check_utf8(header.fin)
    }

    fn whole(&mut self) -> Option<Event<'_>> {
        let fragments = self.fragments.as_mut()?;
        fragments.valid = usize::MAX;
        Some(Event::Message(&fragments.data))
    }
}

impl Fragments {
    /// Whether the message was told already.
    fn is_whole(&self) -> bool {
        self.valid == usize::MAX
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
fn header(bytes: &[u8], limit: usize, begun: Option<usize>) -> Result<Option<Header>, Disconnect> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    let (fin, opcode) = opening(*first, begun.is_some())?;
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
    Ok(Some(Header { fin, opcode, mask: *mask, size: bytes.len() - rest.len(), length }))
}

fn opening(first: u8, in_message: bool) -> Result<(bool, Opcode), Disconnect> {
    if first & 0x70 != 0 {
        return Err(violation("reserved bits are set, and no extension was agreed on"));
    }
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
