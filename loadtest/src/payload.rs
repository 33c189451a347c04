//! What is published: a JSON string of an exact size that opens with a marker and five numbers of fixed width, so that a
//! receiver finds and reads them in a few nanoseconds without parsing JSON. Knows no sockets.
//!
//! ```text
//! "~rlt<run 8><room 8><sequence 8><slot 8><intended time 16><late 8>···"      all numbers in lower-case hexadecimal
//! ```

use memchr::memmem::Finder;

/// Bytes of the smallest payload: two quotation marks, the marker and the numbers.
pub const MIN_SIZE: usize = 2 + MARKER + NUMBERS;

const MARKER: usize = 12;
const NUMBERS: usize = 48;
/// What is sent late is told in steps of 256 ns, so that eight digits reach up to 18 minutes.
const LATE_STEP: u32 = 8;

/// The numbers a published message carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Index of the room it was published in.
    pub room: u32,
    /// Number of the message among those of this publisher in this room, from 0.
    pub sequence: u32,
    /// Place of the publisher among those of this room.
    pub slot: u32,
    /// When it was meant to be sent, nanoseconds of [`crate::clock`].
    pub intended: u64,
    /// How long after that it was sent, nanoseconds, rounded down to a step of 256.
    pub late: u64,
}

/// Writes and finds the payloads of one run; those of other runs are not found.
#[derive(Debug)]
pub struct Marker {
    finder: Finder<'static>,
}

impl Marker {
    /// The marker of the run numbered `run`.
    pub fn new(run: u32) -> Self {
        Self { finder: Finder::new(&format!("~rlt{run:08x}")).into_owned() }
    }

    /// Appends a payload of exactly `size` bytes (at least [`MIN_SIZE`]).
    pub fn write(&self, stamp: Stamp, size: usize, out: &mut Vec<u8>) {
        let end = out.len() + size.max(MIN_SIZE);
        out.push(b'"');
        out.extend_from_slice(self.finder.needle());
        let late = u32::try_from(stamp.late >> LATE_STEP).unwrap_or(u32::MAX);
        for number in [stamp.room, stamp.sequence, stamp.slot, high(stamp.intended), low(stamp.intended), late] {
            out.extend_from_slice(&to_hex(number));
        }
        out.resize(end - 1, b'.');
        out.push(b'"');
    }

    /// Reads the stamp out of a message, wherever in it the payload lies.
    #[inline]
    pub fn find(&self, message: &[u8]) -> Option<Stamp> {
        let start = self.finder.find(message)? + MARKER;
        let numbers: &[u8; NUMBERS] = message.get(start..start + NUMBERS)?.try_into().ok()?;
        let (groups, _) = numbers.as_chunks::<8>();
        Some(Stamp {
            room: from_hex(groups[0]),
            sequence: from_hex(groups[1]),
            slot: from_hex(groups[2]),
            intended: u64::from(from_hex(groups[3])) << 32 | u64::from(from_hex(groups[4])),
            late: u64::from(from_hex(groups[5])) << LATE_STEP,
        })
    }
}

fn high(number: u64) -> u32 {
    (number >> 32) as u32
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half is meant")]
fn low(number: u64) -> u32 {
    number as u32
}

fn to_hex(number: u32) -> [u8; 8] {
    std::array::from_fn(|digit| b"0123456789abcdef"[(number >> (28 - 4 * digit) & 15) as usize])
}

/// Eight hexadecimal digits at once: letters differ from digits by bit 6 and count from 9, then neighbouring nibbles
/// are folded together. Other bytes give a wrong number, which the oracle then sees as a wrong room or sequence.
#[expect(clippy::cast_possible_truncation, reason = "eight folded nibbles are 32 bits")]
fn from_hex(digits: [u8; 8]) -> u32 {
    let text = u64::from_be_bytes(digits);
    let nibbles = (text & 0x0f0f_0f0f_0f0f_0f0f) + 9 * (text >> 6 & 0x0101_0101_0101_0101);
    let bytes = (nibbles | nibbles >> 4) & 0x00ff_00ff_00ff_00ff;
    let halves = (bytes | bytes >> 8) & 0x0000_ffff_0000_ffff;
    (halves | halves >> 16) as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_found(run: u32, room: u32, sequence: u32, slot: u32, intended: u64, late: u32, size in MIN_SIZE..300) {
            let stamp = Stamp { room, sequence, slot, intended, late: u64::from(late) << LATE_STEP };
            let marker = Marker::new(run);
            let mut message = br#"{"push":{"channel":"room:1","pub":{"data":"#.to_vec();
            let before = message.len();
            marker.write(stamp, size, &mut message);
            prop_assert_eq!(message.len() - before, size);
            prop_assert!(serde_json::from_slice::<String>(&message[before..]).is_ok());
            message.extend_from_slice(b"}}}");
            prop_assert_eq!(marker.find(&message), Some(stamp));
            prop_assert_eq!(Marker::new(run.wrapping_add(1)).find(&message), None);
        }
    }

    #[test]
    fn a_cut_payload_is_not_found() {
        let marker = Marker::new(1);
        let mut message = Vec::new();
        marker.write(Stamp { room: 1, sequence: 2, slot: 3, intended: 4, late: 0 }, 100, &mut message);
        assert_eq!(marker.find(&message[..MARKER + NUMBERS]), None);
    }
}
