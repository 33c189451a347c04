//! The events of one run, joined into one buffer for each kind of seat in the room, each made when the first seat of its kind
//! is told. Knows no outboxes.

use std::{
    borrow::Cow,
    cell::Cell,
    ops::Range,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use roomcast_shared::{
    delta,
    event::{Event, Said},
    protocol::{
        Delta,
        code::Disconnect,
        reply::{Membership, Push, Reply},
    },
    publication::{ClientInfo, Publication},
};

use super::{
    GroupId, Seat, Wire,
    group::Group,
    position::Run,
    seats::{Hearing, Turn},
};

/// What one kind of seat is told in one turn.
#[derive(Default)]
pub(super) struct Buffer {
    /// The frames, one after the other.
    pub(super) bytes: Bytes,
    /// Where in them the newest publication stands; empty where there is none.
    pub(super) newest: Range<usize>,
    /// The frames that are no publications.
    pub(super) moves: Bytes,
    /// How many publications there are in them.
    pub(super) publications: usize,
    /// Set where something cannot be told to this kind of client: it ends with this after `bytes`.
    pub(super) then_close: Option<Disconnect>,
}

/// A buffer for each kind of seat.
type Buffers = [OnceLock<Box<Buffer>>; 2 * Wire::COUNT];

fn no_buffers() -> Buffers {
    [const { OnceLock::new() }; 2 * Wire::COUNT]
}

/// A larger buffer is given away as it was written; a smaller one is copied, and where it was written is kept.
const LARGE: usize = 16 * 1024;

thread_local! {
    /// Where buffers are written: its memory is kept from turn to turn.
    static DESK: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The events of one run.
pub(super) struct Joined {
    events: Run,
    /// Somebody comes or goes in them.
    moves: bool,
    /// Publications of so many bytes and more are compressed where that was agreed on.
    compress_from: usize,
    /// The kind of the room's first seat, which in most rooms is that of all, and its buffer, which needs no memory of its
    /// own.
    usual: usize,
    first: OnceLock<Buffer>,
    others: OnceLock<Box<Buffers>>,
    groups: Vec<Option<Box<Grouped>>>,
}

/// What one group hears of them.
struct Grouped {
    /// In which form, for each publication.
    forms: Vec<Form>,
    buffers: Buffers,
}

/// How a publication is told.
#[derive(Clone)]
enum Form {
    /// Not at all.
    Left,
    /// As it is.
    Plain,
    /// As it is, to who takes deltas.
    Whole,
    /// As the difference to the one before.
    Patch(Bytes),
}

impl Joined {
    /// The events of a run as the seats of `turn` hear them; publications of `compress_from` bytes and more are compressed for
    /// those that take it.
    pub(super) fn new(events: Run, turn: &Turn, compress_from: usize) -> Self {
        let moves = events.iter().any(|event| !matches!(event, Event::Publication(_)));
        let group = |group: &Arc<Group>| Box::new(Grouped::new(group, &events, turn.first));
        let groups = turn.groups.iter().map(|slot| slot.as_ref().map(group)).collect();
        let first = turn.segments.first().and_then(|seats| seats.first());
        let usual = first.map_or(0, |seat| kind(seat, moves));
        Self { events, moves, compress_from, usual, first: OnceLock::new(), others: OnceLock::new(), groups }
    }

    /// What a seat of that room hears that hears all its group does.
    #[inline]
    pub(super) fn buffer(&self, seat: &Seat, room: &str) -> &Buffer {
        if self.is_usual(seat)
            && let Some(buffer) = self.first.get()
        {
            return buffer;
        }
        self.other_buffer(seat, room)
    }

    #[inline]
    fn is_usual(&self, seat: &Seat) -> bool {
        seat.group.is_plain() && kind(seat, self.moves) == self.usual
    }

    /// The same where it is another one than the first, or not made yet. Kept out of the loop over the seats.
    #[inline(never)]
    fn other_buffer(&self, seat: &Seat, room: &str) -> &Buffer {
        static NOTHING: Buffer =
            Buffer { bytes: Bytes::new(), newest: 0..0, moves: Bytes::new(), publications: 0, then_close: None };
        if self.is_usual(seat) {
            return self.first.get_or_init(|| self.encode(seat, room, |_, _| Form::Plain));
        }
        let kind = kind(seat, self.moves);
        if seat.group.is_plain() {
            let others = self.others.get_or_init(|| Box::new(no_buffers()));
            return others[kind].get_or_init(|| Box::new(self.encode(seat, room, |_, _| Form::Plain)));
        }
        let Some(group) = self.group(seat.group) else { return &NOTHING };
        group.buffers[kind].get_or_init(|| Box::new(self.encode(seat, room, |place, _| group.forms[place].clone())))
    }

    /// What a seat hears that hears a part only, or everything whole.
    pub(super) fn own_buffer(&self, hearing: &Hearing, room: &str) -> Buffer {
        let group = self.group(hearing.seat.group);
        self.encode(&hearing.seat, room, |place, said| match group.map(|group| &group.forms[place]) {
            _ if !hearing.hears(said) => Form::Left,
            None => Form::Plain,
            Some(Form::Patch(_)) => Form::Whole,
            Some(form) => form.clone(),
        })
    }

    fn group(&self, id: GroupId) -> Option<&Grouped> {
        if id.is_plain() { None } else { self.groups.get(id.place())?.as_deref() }
    }

    fn encode(&self, seat: &Seat, room: &str, form: impl Fn(usize, &Said) -> Form) -> Buffer {
        let size = self.events.iter().map(size_hint).sum();
        let mut writer = Writer::new(room, seat.wire, self.compress_from, size);
        let mut place = 0;
        for event in &self.events {
            let fits = match event {
                Event::Publication(said) => {
                    place += 1;
                    writer.publication(&said.publication, &form(place - 1, said))
                }
                Event::Join(info) if seat.join_leave => {
                    writer.push(Push { join: Some(Box::new(member(info))), ..Push::default() })
                }
                Event::Leave(info) if seat.join_leave => {
                    writer.push(Push { leave: Some(Box::new(member(info))), ..Push::default() })
                }
                Event::Join(_) | Event::Leave(_) => true,
            };
            if !fits {
                return writer.finish(Some(Disconnect::INAPPROPRIATE_PROTOCOL));
            }
        }
        writer.finish(None)
    }
}

/// Which of the buffers a seat hears: those that hear who comes and goes have others, where somebody does.
#[inline]
fn kind(seat: &Seat, moves: bool) -> usize {
    2 * seat.wire as usize + usize::from(seat.join_leave && moves)
}

impl Grouped {
    /// The group is told the publications of a run, the first of which has this number.
    fn new(group: &Group, events: &[Event], first: u64) -> Self {
        let publications = events.iter().filter_map(|event| match event {
            Event::Publication(said) => Some(said),
            Event::Join(_) | Event::Leave(_) => None,
        });
        let forms = publications.zip(first..).map(|(said, number)| Form::of(group, said, number)).collect();
        Self { forms, buffers: no_buffers() }
    }
}

impl Form {
    fn of(group: &Group, said: &Said, number: u64) -> Self {
        if !group.hears(&said.publication) {
            return Self::Left;
        }
        let data = &said.publication.data;
        let before = group.tell(number, data);
        if !group.key.delta {
            return Self::Plain;
        }
        let patch = before.filter(|_| said.delta).and_then(|before| delta::patch(&before, data));
        patch.map_or(Self::Whole, |patch| Self::Patch(patch.into()))
    }
}

/// Writes frames one after the other.
struct Writer<'a> {
    room: &'a str,
    wire: Wire,
    compress_from: usize,
    bytes: Vec<u8>,
    moves: Vec<u8>,
    newest: Range<usize>,
    publications: usize,
}

impl<'a> Writer<'a> {
    fn new(room: &'a str, wire: Wire, compress_from: usize, size: usize) -> Self {
        let mut bytes = DESK.take();
        bytes.reserve_exact(size);
        Self { room, wire, compress_from, bytes, moves: Vec::new(), newest: 0..0, publications: 0 }
    }

    /// Whether this kind of client can be told it.
    fn publication(&mut self, publication: &Publication, form: &Form) -> bool {
        let told = |delta| self.wire.encoding().told(delta, publication).map(Cow::Owned);
        let publication = match form {
            Form::Left => return true,
            Form::Plain => Ok(Cow::Borrowed(publication)),
            Form::Whole => told(Delta::Full),
            Form::Patch(patch) => told(Delta::Patch(patch)),
        };
        let Ok(publication) = publication else { return false };
        let begin = self.bytes.len();
        let fits = self.wire.put_publication(self.room, &publication, self.compress_from, &mut self.bytes);
        if fits {
            self.newest = begin..self.bytes.len();
            self.publications += 1;
        }
        fits
    }

    fn push(&mut self, push: Push) -> bool {
        let push = Push { channel: self.room.to_owned(), ..push };
        let reply = Reply { push: Some(Box::new(push)), ..Reply::default() };
        let begin = self.bytes.len();
        let fits = self.wire.put_reply(&reply, &mut self.bytes).is_ok();
        self.moves.extend_from_slice(&self.bytes[begin..]);
        fits
    }

    fn finish(mut self, then_close: Option<Disconnect>) -> Buffer {
        let bytes = if self.bytes.len() > LARGE {
            self.bytes.into()
        } else {
            let bytes = Bytes::copy_from_slice(&self.bytes);
            self.bytes.clear();
            self.bytes.shrink_to(2 * LARGE);
            DESK.set(self.bytes);
            bytes
        };
        Buffer { bytes, newest: self.newest, moves: self.moves.into(), publications: self.publications, then_close }
    }
}

fn member(info: &ClientInfo) -> Membership {
    Membership { info: Some(info.clone()) }
}

/// A little more than an event takes on the wire in most rooms, so that the buffer seldom grows.
fn size_hint(event: &Event) -> usize {
    match event {
        Event::Publication(said) => {
            let info = said.publication.info.as_ref();
            said.publication.data.len() + info.map_or(96, |info| 192 + info.conn_info.len())
        }
        Event::Join(info) | Event::Leave(info) => 192 + info.conn_info.len() + info.chan_info.len(),
    }
}
