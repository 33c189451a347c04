//! What has to be said to turn one payload into the next: patches in the delta format of Fossil, which clients of this
//! protocol apply. Knows bytes, and not whose they are.
//!
//! A patch is the length of the target and a newline, then copies from the base (`LENGTH@OFFSET,`) and literal bytes
//! (`LENGTH:BYTES`), then the checksum of the target (`CHECKSUM;`), all numbers in base 64
//! (<https://fossil-scm.org/home/doc/tip/www/delta_format.wiki>).

use thiserror::Error;

/// Bytes that have to agree before a copy is looked at.
const BLOCK: usize = 16;

/// How many places of the base are tried for one place of the target. It bounds the time a patch takes: with it, the time
/// grows with the sum of the lengths, whatever the payloads repeat.
const CANDIDATES: usize = 16;

/// The patch that makes `target` of `base`, or nothing where the target itself is no longer than it.
pub fn patch(base: &[u8], target: &[u8]) -> Option<Vec<u8>> {
    let patch = create(base, target);
    (patch.len() < target.len()).then_some(patch)
}

/// The patch that makes `target` of `base`, however long it is.
///
/// Where the target is UTF-8 the patch is so too, since no copy begins or ends within a character. JSON clients take a
/// patch as text, and it would be another one if half a character were replaced on the way.
pub fn create(base: &[u8], target: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new(target);
    // Most payloads change in one place: what is alike at both ends needs no search.
    let alike = base.iter().zip(target).take_while(|(old, new)| old == new).count();
    writer.copy(&Stretch { start: 0, from: 0, length: alike });
    let (old, new) = (base.iter().rev(), target[writer.done..].iter().rev());
    let alike = old.zip(new).take_while(|(old, new)| old == new).count();
    let end = target.len() - alike;
    copy_between(base, end, &mut writer);
    writer.copy(&Stretch { start: end, from: base.len() - alike, length: alike });
    writer.finish()
}

/// Searches the base for what the target has between what is written already and `end`.
fn copy_between(base: &[u8], end: usize, writer: &mut Writer<'_>) {
    let target = &writer.target[..end];
    if base.len() < BLOCK || end - writer.done < BLOCK {
        return;
    }
    let index = Index::new(base);
    let mut at = writer.done;
    let mut window = Window::new(&target[at..]);
    while at + BLOCK <= end {
        if let Some(copy) = index.longest(&window, target, at, writer.done)
            && writer.copy(&copy)
        {
            at = writer.done;
            if at + BLOCK <= end {
                window = Window::new(&target[at..]);
            }
            continue;
        }
        if let Some(next) = target.get(at + BLOCK) {
            window.roll(target[at], *next);
        }
        at += 1;
    }
}

/// Some bytes of the target that stand in the base too, and so may be copied.
struct Stretch {
    /// Where they begin in the target.
    start: usize,
    /// Where they begin in the base.
    from: usize,
    length: usize,
}

impl Stretch {
    /// The same without the parts of characters at its ends. In bytes that are no UTF-8 it loses no more than six of them.
    fn of_whole_characters(&self, target: &[u8]) -> Self {
        let is_within = |place: usize| target.get(place).is_some_and(|byte| byte & 0xc0 == 0x80);
        let (mut start, mut end) = (self.start, self.start + self.length);
        for _ in 0..3 {
            start += usize::from(start < end && is_within(start));
            end -= usize::from(start < end && is_within(end));
        }
        Self { start, from: self.from + (start - self.start), length: end - start }
    }

    /// Whether it is shorter to say than the bytes themselves, even if these would have joined literal bytes around them.
    fn is_worth_it(&self, done: usize) -> bool {
        let said = digits(self.length) + digits(self.from) + 2;
        let literal_before = if self.start > done { digits(self.start - done) + 1 } else { 0 };
        self.length > said + literal_before
    }
}

/// The blocks of the base by their hash.
struct Index<'a> {
    base: &'a [u8],
    /// The first block of each hash, or [`Self::NONE`].
    first: Vec<u32>,
    /// The next block of the same hash, or [`Self::NONE`].
    next: Vec<u32>,
}

impl<'a> Index<'a> {
    const NONE: u32 = u32::MAX;

    fn new(base: &'a [u8]) -> Self {
        let blocks = base.len() / BLOCK;
        let mut index =
            Self { base, first: vec![Self::NONE; blocks.next_power_of_two()], next: vec![Self::NONE; blocks] };
        // From the last to the first, so that those tried first stand first in the base: their offsets are short to say.
        for (number, block) in base.chunks_exact(BLOCK).enumerate().rev() {
            let Ok(number) = u32::try_from(number) else { continue };
            let first = Window::new(block).bucket(index.first.len());
            index.next[number as usize] = std::mem::replace(&mut index.first[first], number);
        }
        index
    }

    /// The longest copy around the block at `at`, which may reach back to what is `done`.
    fn longest(&self, window: &Window, target: &[u8], at: usize, done: usize) -> Option<Stretch> {
        let mut number = self.first[window.bucket(self.first.len())];
        let mut longest = None;
        for _ in 0..CANDIDATES {
            if number == Self::NONE {
                break;
            }
            let copy = self.around(number as usize * BLOCK, target, at, done);
            if copy.length > longest.as_ref().map_or(BLOCK - 1, |longest: &Stretch| longest.length) {
                longest = Some(copy);
            }
            number = self.next[number as usize];
        }
        longest
    }

    /// What is alike around `from` of the base and `at` of the target.
    fn around(&self, from: usize, target: &[u8], at: usize, done: usize) -> Stretch {
        let alike = |(old, new): &(&u8, &u8)| old == new;
        let after = self.base[from..].iter().zip(&target[at..]).take_while(alike).count();
        // Bytes that only hash alike are not worth a look back.
        if after < BLOCK {
            return Stretch { start: at, from, length: 0 };
        }
        let (old, new) = (self.base[..from].iter().rev(), target[done..at].iter().rev());
        let before = old.zip(new).take_while(alike).count();
        Stretch { start: at - before, from: from - before, length: before + after }
    }
}

/// The hash of a block's length of bytes, which moves on by one byte in no time.
struct Window(u32);

impl Window {
    const FACTOR: u32 = 0x0100_0193;
    /// What the oldest byte has been multiplied with.
    const OLDEST: u32 = {
        let (mut power, mut bytes) = (1_u32, 0);
        while bytes < BLOCK {
            power = power.wrapping_mul(Self::FACTOR);
            bytes += 1;
        }
        power
    };

    /// The hash of the first bytes.
    fn new(bytes: &[u8]) -> Self {
        Self(bytes[..BLOCK].iter().fold(0, |hash, &byte| Self::join(hash, byte)))
    }

    fn join(hash: u32, byte: u8) -> u32 {
        hash.wrapping_add(u32::from(byte) + 1).wrapping_mul(Self::FACTOR)
    }

    fn roll(&mut self, old: u8, new: u8) {
        let oldest = (u32::from(old) + 1).wrapping_mul(Self::OLDEST);
        self.0 = Self::join(self.0.wrapping_sub(oldest), new);
    }

    /// Its place among so many, a power of two.
    fn bucket(&self, buckets: usize) -> usize {
        let mixed = (self.0 ^ (self.0 >> 15)).wrapping_mul(0x2c1b_3c6d);
        (mixed ^ (mixed >> 13)) as usize & (buckets - 1)
    }
}

/// A patch in the making.
struct Writer<'a> {
    target: &'a [u8],
    /// How much of the target is written.
    done: usize,
    out: Vec<u8>,
}

impl<'a> Writer<'a> {
    fn new(target: &'a [u8]) -> Self {
        let mut writer = Self { target, done: 0, out: Vec::with_capacity(64) };
        writer.number(target.len(), b'\n');
        writer
    }

    /// Writes a copy and the literal bytes before it, if that is worth it.
    fn copy(&mut self, copy: &Stretch) -> bool {
        let copy = copy.of_whole_characters(self.target);
        let is_worth_it = copy.is_worth_it(self.done);
        if is_worth_it {
            self.literal(copy.start);
            self.number(copy.length, b'@');
            self.number(copy.from, b',');
            self.done = copy.start + copy.length;
        }
        is_worth_it
    }

    /// Writes the target as it is up to `end`.
    fn literal(&mut self, end: usize) {
        if end > self.done {
            self.number(end - self.done, b':');
            self.out.extend_from_slice(&self.target[self.done..end]);
            self.done = end;
        }
    }

    fn finish(mut self) -> Vec<u8> {
        self.literal(self.target.len());
        self.number(checksum(self.target) as usize, b';');
        self.out
    }

    fn number(&mut self, number: usize, end: u8) {
        for place in (0..digits(number)).rev() {
            self.out.push(DIGITS[(number >> (6 * place)) & 0x3f]);
        }
        self.out.push(end);
    }
}

const DIGITS: &[u8; 64] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~";

/// How many digits a number has.
fn digits(number: usize) -> usize {
    (usize::BITS - number.leading_zeros()).div_ceil(6).max(1) as usize
}

/// The sum of all words of four bytes, the last one filled up with zeros.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.chunks(4).fold(0, |sum, chunk| {
        let mut word = [0; 4];
        word[..chunk.len()].copy_from_slice(chunk);
        sum.wrapping_add(u32::from_be_bytes(word))
    })
}

/// Makes the target of the base: what a client does.
pub fn apply(base: &[u8], patch: &[u8]) -> Result<Vec<u8>, BadPatch> {
    let mut rest = patch;
    let (length, b'\n') = read_number(&mut rest)? else {
        return Err(BadPatch::Malformed);
    };
    let mut target = Vec::new();
    loop {
        let (number, kind) = read_number(&mut rest)?;
        let bytes = match kind {
            b'@' => {
                let (from, b',') = read_number(&mut rest)? else {
                    return Err(BadPatch::Malformed);
                };
                base.get(from..).and_then(|base| base.get(..number)).ok_or(BadPatch::OtherBase)?
            }
            b':' => rest.split_off(..number).ok_or(BadPatch::Malformed)?,
            b';' if target.len() == length && checksum(&target) as usize == number => return Ok(target),
            b';' => return Err(BadPatch::OtherBase),
            _ => return Err(BadPatch::Malformed),
        };
        if bytes.len() > length - target.len() {
            return Err(BadPatch::Malformed);
        }
        target.extend_from_slice(bytes);
    }
}

/// A patch that makes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadPatch {
    /// It does not follow the format.
    #[error("a patch is malformed")]
    Malformed,
    /// It was made for another base, or damaged.
    #[error("a patch does not fit its base")]
    OtherBase,
}

/// Takes a number off, and the byte that ends it.
fn read_number(rest: &mut &[u8]) -> Result<(usize, u8), BadPatch> {
    let mut number = 0_u32;
    while let Some(&byte) = rest.split_off_first() {
        let Some(digit) = DIGITS.iter().position(|digit| *digit == byte) else {
            return Ok((number as usize, byte));
        };
        let shifted = number.checked_mul(64).ok_or(BadPatch::Malformed)?;
        number = shifted | u32::try_from(digit).map_err(|_| BadPatch::Malformed)?;
    }
    Err(BadPatch::Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::{collection, prelude::*};

    use super::*;

    /// A payload such as rooms have them: many like parts, in any order.
    fn payload() -> impl Strategy<Value = Vec<u8>> {
        let part = prop_oneof![
            4 => "[a-c]{1,4}".prop_map(String::into_bytes),
            4 => proptest::sample::select(&[r#"{"player":{"name":"→ Zoë","score":"#, "0123456789abcdefghij", "😀😁😂🤣"][..])
                .prop_map(|text| text.as_bytes().to_vec()),
            1 => any::<String>().prop_map(String::into_bytes),
            1 => collection::vec(any::<u8>(), 0..40),
        ];
        collection::vec(part, 0..12).prop_map(|parts| parts.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_patch_makes_the_target_of_the_base(base in payload(), target in payload()) {
            let made = create(&base, &target);
            prop_assert_eq!(apply(&base, &made), Ok(target.clone()));
            prop_assert_eq!(patch(&base, &target).is_some(), made.len() < target.len());
            // A target quoted whole is the longest that a patch may be, bar a few numbers.
            prop_assert!(made.len() <= target.len() + 24, "{} for {}", made.len(), target.len());
        }

        #[test]
        fn a_patch_of_text_is_text(base in payload(), target in payload()) {
            let target = String::from_utf8_lossy(&target).into_owned();
            let made = create(&base, target.as_bytes());
            prop_assert!(std::str::from_utf8(&made).is_ok());
            prop_assert_eq!(apply(&base, &made), Ok(target.into_bytes()));
        }

        #[test]
        fn a_damaged_patch_never_panics(
            base in payload(),
            target in payload(),
            at: prop::sample::Index,
            byte: u8,
            noise in collection::vec(any::<u8>(), 0..40),
        ) {
            let mut made = create(&base, &target);
            let at = at.index(made.len());
            made[at] = byte;
            let _ = (apply(&base, &made), apply(&base, &made[..at]), apply(&base, &noise));
        }
    }

    #[test]
    fn copies_are_said_with_length_and_offset() {
        let base = b"abcdefghijklmnopqrstuvwxyz1234567890";
        for (target, said) in [(&base[..], &b"_\n_@0,1dSJ0h;"[..]), (b"", b"0\n0;"), (b"abcd", b"4\n4:abcd1XObD_;")] {
            let made = create(base, target);
            assert_eq!(apply(base, &made).as_deref(), Ok(target));
            assert_eq!(String::from_utf8_lossy(&made), String::from_utf8_lossy(said));
        }
    }

    #[test]
    fn a_small_change_of_a_large_payload_is_a_small_patch() {
        let rows = |changed: usize| {
            let row =
                |row| format!(r#"{{"id":{row},"name":"player {row}","score":{}}}"#, if row == changed { 7 } else { 0 });
            (0..1000).map(row).collect::<Vec<_>>().join(",").into_bytes()
        };
        let (base, target) = (rows(1), rows(900));
        let made = patch(&base, &target).expect("it is much shorter");
        assert_eq!(apply(&base, &made), Ok(target));
        assert!(made.len() < 60, "{} bytes", made.len());
    }

    #[test]
    fn parts_that_moved_are_found() {
        let part = |seed: u32| (0..600_u32).map(move |i| (i * i).wrapping_mul(seed).to_le_bytes()[1]);
        let base: Vec<u8> = part(77).chain(part(1234)).chain(part(99)).collect();
        let target: Vec<u8> = part(99).chain(part(55)).chain(part(77)).collect();
        let made = patch(&base, &target).expect("two parts of three are there");
        assert_eq!(apply(&base, &made), Ok(target));
        assert!(made.len() < 700, "{} bytes", made.len());
    }

    /// These take very long where every place of the target is compared with every place of the base.
    #[test]
    fn payloads_that_repeat_themselves_are_done_in_time() {
        let alike = vec![b'a'; 1 << 18];
        let mut broken = alike.clone();
        broken.iter_mut().skip(20).step_by(17).for_each(|byte| *byte = b'b');
        let nearly: Vec<u8> = b"aaaaaaaaaaaaaaab".iter().copied().cycle().take(1 << 18).collect();
        for base in [&alike, &broken, &nearly] {
            for target in [&alike, &broken, &nearly] {
                assert_eq!(apply(base, &create(base, target)).as_ref(), Ok(target));
            }
        }
    }

    #[test]
    fn patches_for_another_base_are_found_out() {
        let base = b"abcdefghijklmnopqrstuvwxyz1234567890";
        let made = create(base, b"abcdefghijklmnopqrstuvwxyz1234567890!");
        assert_eq!(apply(b"", &made), Err(BadPatch::OtherBase));
        assert_eq!(apply(b"ABCdefghijklmnopqrstuvwxyz1234567890", &made), Err(BadPatch::OtherBase));
        for patch in
            [&b""[..], b"4", b"4\n", b"4:abcd", b"4\n5:abcde", b"4\n4:abc", b"4\n4@0;", b"1\n!", b"~~~~~~~\n0;"]
        {
            assert_eq!(apply(base, patch), Err(BadPatch::Malformed), "{}", String::from_utf8_lossy(patch));
        }
    }
}
