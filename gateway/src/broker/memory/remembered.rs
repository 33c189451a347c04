//! What one room remembers: its publications, its place, the last version, and the results of publications that have a key.
//! Knows no other room and no clock: the time is told with each call.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::Bytes;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use roomcast_shared::{
    event::Said,
    position::{Epoch, Position},
    publication::{ClientInfo, Publication},
};

use crate::broker::{Append, Appended, Keep, Page, Slice, history::VERSION_TTL};

/// What is reckoned for a room, beside its name, and for a publication or a result, beside its texts.
const OVERHEAD: usize = 256;

/// What one room remembers.
#[derive(Default)]
pub(super) struct Remembered {
    life: Option<Life>,
    results: Results,
}

/// One epoch.
struct Life {
    top: Position,
    /// When it ends, if nobody uses it.
    ends: Option<Instant>,
    /// The last version, 0 before the first, and what it is compared within.
    version: u64,
    version_epoch: String,
    /// The newest publications, and when they are forgotten.
    kept: VecDeque<Publication>,
    kept_until: Instant,
    /// What those take.
    bytes: usize,
}

/// What became of publications that have a key, each for a while.
#[derive(Default)]
struct Results {
    known: HashMap<String, (Instant, Option<Position>), RandomState>,
    /// The keys in the order in which they came.
    order: VecDeque<String>,
    bytes: usize,
}

impl Remembered {
    /// Forgets what has had its time.
    pub(super) fn expire(&mut self, now: Instant) {
        self.life.take_if(|life| life.ends.is_some_and(|ends| ends <= now));
        if let Some(life) = self.life.as_mut().filter(|life| life.kept_until <= now) {
            life.clear();
        }
        self.results.expire(now);
    }

    /// Whether there is nothing left that could be asked for.
    pub(super) fn is_empty(&self) -> bool {
        self.life.is_none() && self.results.known.is_empty()
    }

    /// About what it takes.
    pub(super) fn bytes(&self) -> usize {
        let life = self.life.as_ref().map_or(0, |life| life.bytes + life.version_epoch.len());
        OVERHEAD + life + self.results.bytes
    }

    /// Numbers and keeps a publication as asked. What is to be delivered comes back, and nothing where the publication is
    /// not to be made.
    pub(super) fn append(&mut self, mut said: Said, append: &Append, now: Instant) -> (Appended, Option<Said>) {
        let key = append.idempotency.as_ref();
        if let Some(position) = key.and_then(|(key, _)| self.results.get(key)) {
            return (Appended { position, fresh: false }, None);
        }
        if let Some(top) = self.life.as_ref().filter(|life| life.has_passed(append)).map(|life| life.top) {
            return (Appended { position: append.keep.map(|_| top), fresh: false }, None);
        }
        if append.version > 0 {
            self.life_at(now + VERSION_TTL).take_version(append);
        }
        let position = append.keep.map(|keep| self.keep(&mut said, keep, now));
        if let Some((key, ttl)) = key {
            self.results.insert(key, position, now + whole_seconds(*ttl));
        }
        (Appended { position, fresh: true }, Some(said))
    }

    /// Reads a part; what has no epoch gets one.
    pub(super) fn read(&mut self, page: &Page, now: Instant) -> Slice {
        let life = self.life_at(now);
        life.ends = ends(now, page.meta_ttl);
        let kept = life.kept.iter();
        let since = page.since.unwrap_or(if page.reverse { u64::MAX } else { 0 });
        let limit = page.limit as usize;
        let publications = if page.reverse {
            kept.rev().skip_while(|publication| publication.offset >= since).take(limit).cloned().collect()
        } else {
            // Offsets have no gaps, so that the first one tells how many come before.
            let before = life.kept.front().map_or(0, |first| since.saturating_add(1).saturating_sub(first.offset));
            kept.skip(usize::try_from(before).unwrap_or(usize::MAX)).take(limit).cloned().collect()
        };
        Slice { publications, top: life.top }
    }

    /// Forgets the publications.
    pub(super) fn forget(&mut self) {
        if let Some(life) = &mut self.life {
            life.clear();
        }
    }

    /// Forgets the oldest until it takes no more than so much, or nothing can be given up.
    pub(super) fn shrink(&mut self, limit: usize) {
        while self.bytes() > limit && self.life.as_mut().is_some_and(Life::drop_oldest) {}
        while self.bytes() > limit && self.results.drop_oldest() {}
    }

    fn keep(&mut self, said: &mut Said, keep: Keep, now: Instant) -> Position {
        let life = self.life_at(now);
        life.ends = ends(now, keep.meta_ttl);
        life.kept_until = now + keep.ttl;
        life.top.offset += 1;
        said.publication.offset = life.top.offset;
        said.epoch = Some(life.top.epoch);
        life.push(owned(&said.publication), keep.size as usize);
        life.top
    }

    fn life_at(&mut self, ends: Instant) -> &mut Life {
        self.life.get_or_insert_with(|| Life {
            top: Position::new(0, Epoch::from_random(rand::random())),
            ends: Some(ends),
            version: 0,
            version_epoch: String::new(),
            kept: VecDeque::new(),
            kept_until: ends,
            bytes: 0,
        })
    }
}

impl Life {
    fn has_passed(&self, append: &Append) -> bool {
        let compared = append.version_epoch.is_empty() || append.version_epoch == self.version_epoch;
        append.version > 0 && compared && append.version <= self.version
    }

    fn take_version(&mut self, append: &Append) {
        self.version = append.version;
        self.version_epoch.clone_from(&append.version_epoch);
    }

    fn push(&mut self, publication: Publication, size: usize) {
        self.bytes += weight(&publication);
        self.kept.push_back(publication);
        while self.kept.len() > size {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) -> bool {
        let oldest = self.kept.pop_front();
        self.bytes -= oldest.as_ref().map_or(0, weight);
        oldest.is_some()
    }

    fn clear(&mut self) {
        self.kept = VecDeque::new();
        self.bytes = 0;
    }
}

impl Results {
    #[expect(clippy::option_option, reason = "not remembered, and remembered without a position, are two answers")]
    fn get(&self, key: &str) -> Option<Option<Position>> {
        self.known.get(key).map(|(_, position)| *position)
    }

    fn insert(&mut self, key: &str, position: Option<Position>, until: Instant) {
        self.bytes += OVERHEAD + 2 * key.len();
        self.known.insert(key.to_owned(), (until, position));
        self.order.push_back(key.to_owned());
    }

    /// Forgets those whose time is over. Times differ where the setting was changed; then all of them are looked at.
    fn expire(&mut self, now: Instant) {
        let is_over = |key: &String| self.known.get(key).is_none_or(|(until, _)| *until <= now);
        if self.order.front().is_some_and(is_over) || self.order.back().is_some_and(is_over) {
            self.known.retain(|_, (until, _)| *until > now);
            self.order.retain(|key| self.known.contains_key(key));
            self.bytes = self.order.iter().map(|key| OVERHEAD + 2 * key.len()).sum();
        }
    }

    fn drop_oldest(&mut self) -> bool {
        let Some(key) = self.order.pop_front() else { return false };
        self.known.remove(&key);
        self.bytes -= OVERHEAD + 2 * key.len();
        true
    }
}

fn ends(now: Instant, meta_ttl: Duration) -> Option<Instant> {
    (!meta_ttl.is_zero()).then(|| now + meta_ttl)
}

/// A time as other stores have it: whole seconds, one at least.
fn whole_seconds(time: Duration) -> Duration {
    Duration::from_secs(time.as_secs().max(1))
}

/// A copy whose payload does not keep alive what it was read from.
fn owned(publication: &Publication) -> Publication {
    Publication { data: Bytes::copy_from_slice(&publication.data), ..publication.clone() }
}

/// About what a publication takes.
fn weight(publication: &Publication) -> usize {
    let info = |info: &ClientInfo| info.user.len() + info.client.len() + info.conn_info.len() + info.chan_info.len();
    let tags: usize = publication.tags.iter().map(|(key, value)| OVERHEAD / 2 + key.len() + value.len()).sum();
    OVERHEAD + publication.data.len() + publication.info.as_ref().map_or(0, info) + tags
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP: Keep = Keep { size: 3, ttl: Duration::from_mins(1), meta_ttl: Duration::from_mins(10) };

    fn said() -> Said {
        Publication { data: Bytes::from_static(b"payload"), ..Publication::default() }.into()
    }

    #[test]
    fn bytes_are_those_of_what_is_there() {
        let (mut remembered, now) = (Remembered::default(), Instant::now());
        let empty = remembered.bytes();
        for number in 0..10 {
            let idempotency = Some((number.to_string(), Duration::from_mins(5)));
            let append = Append { keep: Some(KEEP), idempotency, ..Append::default() };
            remembered.append(said(), &append, now);
        }
        let each = weight(&said().publication);
        assert_eq!(remembered.bytes(), empty + 3 * each + 10 * (OVERHEAD + 2));
        remembered.expire(now + KEEP.ttl);
        assert_eq!(remembered.bytes(), empty + 10 * (OVERHEAD + 2));
        remembered.expire(now + Duration::from_mins(5));
        assert_eq!(remembered.bytes(), empty);
        assert!(!remembered.is_empty());
        remembered.expire(now + KEEP.meta_ttl);
        assert!(remembered.is_empty());
    }

    #[test]
    fn a_limit_takes_the_oldest_first() {
        let (mut remembered, now) = (Remembered::default(), Instant::now());
        let append = Append { keep: Some(KEEP), ..Append::default() };
        for _ in 0..3 {
            remembered.append(said(), &append, now);
        }
        remembered.shrink(remembered.bytes() - 1);
        let page = Page { since: None, limit: 10, reverse: false, meta_ttl: KEEP.meta_ttl };
        let offsets =
            |slice: Slice| slice.publications.iter().map(|publication| publication.offset).collect::<Vec<_>>();
        assert_eq!(offsets(remembered.read(&page, now)), [2, 3]);
        remembered.shrink(0);
        assert_eq!(offsets(remembered.read(&page, now)), [0_u64; 0]);
    }

    #[test]
    fn the_payload_kept_is_a_copy() {
        let (mut remembered, now) = (Remembered::default(), Instant::now());
        let (_, delivered) = remembered.append(said(), &Append { keep: Some(KEEP), ..Append::default() }, now);
        let page = Page { since: None, limit: 1, reverse: true, meta_ttl: KEEP.meta_ttl };
        let kept = remembered.read(&page, now).publications;
        let delivered = delivered.expect("made now").publication;
        assert_eq!(kept, std::slice::from_ref(&delivered));
        assert_ne!(kept[0].data.as_ptr(), delivered.data.as_ptr());
    }
}
