//! Places in a room's history: a number, and the name of the history it counts in. Knows no store and no clock.

use std::fmt;

/// Name of one life of a room's history: eight letters. A history that was lost comes back under another name, so that an
/// offset of the old one is never taken for one of the new.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch([u8; Self::LENGTH]);

/// A place in a room's history. Offset 0 is before the first publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// How many publications the history has had up to here; they are numbered from 1.
    pub offset: u64,
    /// The history.
    pub epoch: Epoch,
}

impl Epoch {
    /// Letters in a name.
    pub const LENGTH: usize = 8;

    /// The epoch of that name; `None` where it is not eight ASCII letters.
    pub fn parse(name: &[u8]) -> Option<Self> {
        let letters: [u8; Self::LENGTH] = name.try_into().ok()?;
        letters.iter().all(u8::is_ascii_alphabetic).then_some(Self(letters))
    }

    /// The epoch named by a random number.
    pub fn from_random(number: u64) -> Self {
        Self(number.to_le_bytes().map(|byte| if byte < 128 { b'a' } else { b'A' } + byte % 26))
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("letters are ASCII")
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl Position {
    /// The place after so many publications of that history.
    pub fn new(offset: u64, epoch: Epoch) -> Self {
        Self { offset, epoch }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_eight_letters() {
        assert_eq!(Epoch::parse(b"xcfGabcd").map(|epoch| epoch.to_string()).as_deref(), Some("xcfGabcd"));
        for name in ["", "_", "abcdefg", "abcdefghi", "abcdefg1", "abcdefg\u{e4}"] {
            assert_eq!(Epoch::parse(name.as_bytes()), None, "{name}");
        }
        for number in [0, 1, u64::MAX, 0x0123_4567_89ab_cdef] {
            let epoch = Epoch::from_random(number);
            assert_eq!(Epoch::parse(epoch.as_str().as_bytes()), Some(epoch));
        }
    }
}
