//! One room: its seats, and the inbox in which publications gather while others are being delivered. Knows no clients and
//! no broker.

use std::{future::Future, pin::Pin, sync::Arc};

use parking_lot::Mutex;
use roomcast_shared::publication::Publication;
use tokio::sync::Notify;

use super::{Outbox, Wire, outbox};

/// Seats of one segment: what one delivery job walks through, and what a join may have to copy while it does.
const SEGMENT: usize = 2048;

/// Bytes of publications that one turn takes from the inbox.
const TURN: usize = 64 * 1024;

/// What a publication costs in an inbox beside its payload.
const OVERHEAD: usize = 256;

/// A room of this node.
pub struct Room {
    name: Arc<str>,
    inbox: Mutex<Inbox>,
    seats: Mutex<Segments>,
    /// Told when the inbox has space again.
    space: Notify,
}

/// A subscriber's place: where its publications go, and in which form.
#[derive(Clone)]
pub struct Seat {
    /// The way out of its connection.
    pub outbox: Arc<Outbox>,
    /// How its client is spoken to.
    pub wire: Wire,
}

/// Names a seat to the room it is in, together with its outbox.
#[derive(Clone, Copy, Debug)]
pub struct SeatId {
    segment: u32,
}

/// Seats are kept in segments, each behind a counted reference: a delivery walks through what it found, and a join that
/// comes meanwhile copies one segment at the most.
type Segments = Vec<Arc<Vec<Seat>>>;

#[derive(Default)]
struct Inbox {
    waiting: Vec<Publication>,
    bytes: usize,
    /// Somebody delivers for this room just now, and only that one does.
    turn: bool,
}

/// What became of a publication put into an inbox.
pub(super) enum Put {
    /// Somebody else delivers it.
    Waits,
    /// The caller has the turn now and must deliver until [`Room::take_batch`] gives nothing.
    YourTurn,
}

impl Room {
    pub(super) fn new(name: Arc<str>) -> Self {
        Self { name, inbox: Mutex::default(), seats: Mutex::default(), space: Notify::new() }
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// How many seats it has.
    pub fn len(&self) -> usize {
        self.seats.lock().iter().map(|segment| segment.len()).sum()
    }

    /// Whether nobody sits in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn add(&self, seat: Seat) -> SeatId {
        let mut segments = self.seats.lock();
        let place = segments.iter().position(|segment| segment.len() < SEGMENT).unwrap_or(segments.len());
        if place == segments.len() {
            segments.push(Arc::new(Vec::with_capacity(1)));
        }
        Arc::make_mut(&mut segments[place]).push(seat);
        SeatId { segment: u32::try_from(place).expect("segments are far fewer than 2^32") }
    }

    pub(super) fn remove(&self, id: SeatId, out: &Arc<Outbox>) -> bool {
        let mut segments = self.seats.lock();
        let Some(segment) = segments.get_mut(id.segment as usize) else {
            return false;
        };
        let Some(place) = segment.iter().position(|seat| outbox::same(&seat.outbox, out)) else {
            return false;
        };
        let seats = Arc::make_mut(segment);
        seats.swap_remove(place);
        if seats.len() * 4 < seats.capacity() {
            seats.shrink_to(seats.len() * 2);
        }
        true
    }

    /// The seats as they are now.
    pub(super) fn snapshot(&self) -> Segments {
        self.seats.lock().clone()
    }

    /// Puts a publication last. Also says whether the inbox is full by it.
    pub(super) fn put(&self, publication: Publication, limit: usize) -> (Put, bool) {
        let mut inbox = self.inbox.lock();
        inbox.bytes += cost(&publication);
        inbox.waiting.push(publication);
        let full = inbox.bytes > limit;
        if std::mem::replace(&mut inbox.turn, true) { (Put::Waits, full) } else { (Put::YourTurn, full) }
    }

    /// What the holder of the turn delivers next; nothing, and the turn ends, when the inbox is empty.
    pub(super) fn take_batch(&self, limit: usize) -> Option<Vec<Publication>> {
        let mut inbox = self.inbox.lock();
        if inbox.waiting.is_empty() {
            inbox.turn = false;
            return None;
        }
        let was_full = inbox.bytes > limit;
        let batch = inbox.take(TURN);
        let has_space = was_full && inbox.bytes <= limit;
        drop(inbox);
        if has_space {
            self.space.notify_waiters();
        }
        Some(batch)
    }

    /// Waits until the inbox has space.
    pub(super) fn space(self: &Arc<Self>, limit: usize) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let room = self.clone();
        Box::pin(async move {
            loop {
                // Made before the look at the inbox, it is told of a change that comes between the two.
                let changed = room.space.notified();
                if room.inbox.lock().bytes <= limit {
                    return;
                }
                changed.await;
            }
        })
    }
}

impl Inbox {
    /// Takes from the front publications of `bytes` together, at least one.
    fn take(&mut self, bytes: usize) -> Vec<Publication> {
        if self.bytes <= bytes {
            self.bytes = 0;
            return std::mem::take(&mut self.waiting);
        }
        let mut taken = 0;
        let fits = self.waiting.iter().take_while(|publication| {
            let first = taken == 0;
            taken += cost(publication);
            first || taken <= bytes
        });
        let count = fits.count();
        let batch: Vec<_> = self.waiting.drain(..count).collect();
        self.bytes -= batch.iter().map(cost).sum::<usize>();
        batch
    }
}

fn cost(publication: &Publication) -> usize {
    let info = publication.info.as_ref().map_or(0, |info| info.conn_info.len() + info.chan_info.len());
    publication.data.len() + info + OVERHEAD
}
