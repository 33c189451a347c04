//! A room with somebody who sits in it, somebody who enters, and a comparison with the history: which steps are possible, what
//! each does, and what everybody must have been told at the end. Knows nothing of which order is played.

use std::{collections::VecDeque, sync::Arc};

use roomcast_shared::{
    event::{Event, Said},
    position::Position,
    protocol::reply::{Push, Reply},
};

use crate::hub::{
    Aside, Jobs, Mail, Outbox, Room, Seat, SeatId, Wire,
    fanout::{begin, hand_to_all},
    joined::Joined,
    outbox::tests::Script,
    position::{Run, Runs},
    room::Put,
    seats::Turn,
    testing::{Listener, at, kept, listener, seat},
};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Step {
    /// Somebody says something: it is in the history, and on its way.
    Publish,
    /// The broker hands over, or loses, what is longest on its way.
    Arrive,
    Lose,
    /// The holder of the turn does its next step.
    Turn,
    /// The newcomer does its next step.
    Enter,
    /// The comparison with the history does its next step.
    Check,
}

/// How far a delivery has come.
enum Delivery {
    Idle,
    Holds,
    /// A job was made for what found the room idle, and has not begun.
    Waits(Box<Run>),
    Runs(VecDeque<Run>),
    Begun(Box<(Joined, Turn)>, VecDeque<Run>),
}

/// Who delivers: who brought it, as in small rooms, or a job.
#[derive(Clone, Copy, Debug)]
pub(super) enum By {
    Caller,
    Job,
}

/// How far the newcomer has come.
pub(super) enum Newcomer {
    Nobody,
    Outside,
    Aside(Aside),
    Read(Aside, u64),
    Seated(Vec<Event>, SeatId),
    Inside(SeatId),
    /// It has given its seat up. What is being handed out may still come.
    Left,
}

/// How far a comparison has come.
pub(super) enum Comparison {
    Waits,
    Asked(Option<Position>),
    /// The history has answered; what was on its way then is waited for.
    Read(Option<Position>, u64),
    Over,
}

pub(super) struct World {
    pub(super) room: Arc<Room>,
    to_say: u64,
    said: u64,
    on_its_way: VecDeque<Event>,
    pub(super) loses: bool,
    pub(super) may_lose: usize,
    /// A run is begun and handed out in one step, where that makes too many orders otherwise.
    pub(super) coarse: bool,
    /// Who delivers what finds the room idle.
    pub(super) by: By,
    delivery: Delivery,
    pub(super) newcomer: Newcomer,
    /// How often the newcomer leaves and comes back over the same outbox, and whether it waits as sessions do for what is
    /// still on its way to it.
    pub(super) returns: usize,
    pub(super) waits: bool,
    /// The place from which on it has to hear everything, once it was in the room.
    since: Option<u64>,
    entering: Listener,
    pub(super) seat: Seat,
    pub(super) comparison: Comparison,
    /// How many arrivals the comparison still waits for.
    behind: usize,
    resident: Listener,
    plain: Listener,
}

fn said(offset: u64) -> Event {
    Said { delta: true, ..kept(at(offset)) }.into()
}

impl World {
    /// A room in which one seat with a position and one without sit from the beginning, `before` publications were heard, and
    /// `to_say` come.
    pub(super) fn new(jobs: &Arc<Jobs>, before: u64, to_say: u64) -> Self {
        let room = Arc::new(Room::new(Arc::from("room"), jobs.clone()));
        let (entering, resident, plain) = (listener(), listener(), listener());
        let positioned = Seat { positioned: true, ..seat(&resident) };
        assert!(room.aside(1 << 20).sit(positioned, Some(at(0))).is_ok());
        room.seats.lock().add(seat(&plain));
        let newcomer = Seat { positioned: true, ..seat(&entering) };
        let mut world = Self {
            room,
            to_say: 0,
            said: 0,
            on_its_way: VecDeque::new(),
            loses: false,
            may_lose: 0,
            coarse: false,
            by: By::Job,
            delivery: Delivery::Idle,
            newcomer: Newcomer::Outside,
            returns: 0,
            waits: true,
            since: None,
            entering,
            seat: newcomer,
            comparison: Comparison::Over,
            behind: 0,
            resident,
            plain,
        };
        for _ in 0..before {
            world.take(Step::Publish);
            world.take(Step::Arrive);
            while !matches!(world.delivery, Delivery::Idle) {
                world.take(Step::Turn);
            }
        }
        world.to_say = to_say;
        world
    }

    pub(super) fn possible(&self) -> Vec<Step> {
        let comparing = match self.comparison {
            // What is lost after the last comparison is told by the next one only.
            Comparison::Waits => !self.loses || (self.to_say == 0 && self.on_its_way.is_empty()),
            Comparison::Read(..) => self.behind == 0,
            Comparison::Asked(_) => true,
            Comparison::Over => false,
        };
        let entering = match self.newcomer {
            Newcomer::Nobody => false,
            Newcomer::Inside(_) => self.returns > 0,
            Newcomer::Left => !self.waits || self.room.settled().is_none(),
            _ => true,
        };
        let steps = [
            (Step::Publish, self.to_say > 0),
            (Step::Arrive, !self.on_its_way.is_empty()),
            (Step::Lose, !self.on_its_way.is_empty() && self.may_lose > 0),
            (Step::Turn, !matches!(self.delivery, Delivery::Idle)),
            (Step::Enter, entering),
            (Step::Check, comparing),
        ];
        steps.into_iter().filter(|(_, possible)| *possible).map(|(step, _)| step).collect()
    }

    pub(super) fn take(&mut self, step: Step) {
        match step {
            Step::Publish => {
                self.to_say = self.to_say.saturating_sub(1);
                self.said += 1;
                self.on_its_way.push_back(said(self.said));
            }
            Step::Arrive => {
                let event = self.on_its_way.pop_front().expect("it is possible");
                self.behind = self.behind.saturating_sub(1);
                let mut run = Run::from_buf([event]);
                if let Put::YourTurn = self.room.put(&mut run, usize::MAX) {
                    self.delivery = match self.by {
                        By::Caller => Delivery::Runs([run].into()),
                        By::Job => Delivery::Waits(Box::new(run)),
                    };
                }
            }
            Step::Lose => {
                self.on_its_way.pop_front();
                self.behind = self.behind.saturating_sub(1);
                self.may_lose -= 1;
            }
            Step::Turn => self.deliver(),
            Step::Enter => self.enter(),
            Step::Check => self.compare(),
        }
    }

    fn deliver(&mut self) {
        self.delivery = match std::mem::replace(&mut self.delivery, Delivery::Idle) {
            Delivery::Idle => Delivery::Idle,
            Delivery::Holds => match self.room.take_batch() {
                None => Delivery::Idle,
                Some(batch) => Delivery::Runs(Runs::new(batch).collect()),
            },
            Delivery::Waits(run) => {
                let mut batch = run.into_vec();
                self.room.gather(&mut batch);
                Delivery::Runs(Runs::new(batch).collect())
            }
            Delivery::Runs(mut runs) => {
                let run = runs.pop_front().expect("a run is left");
                let turn = begin(&run, &self.room);
                let joined = Joined::new(run, &turn, usize::MAX);
                Delivery::Begun(Box::new((joined, turn)), runs)
            }
            Delivery::Begun(begun, runs) => {
                let (joined, turn) = *begun;
                hand_to_all(&joined, &turn, &self.room);
                if runs.is_empty() { Delivery::Holds } else { Delivery::Runs(runs) }
            }
        };
        if self.coarse && matches!(self.delivery, Delivery::Begun(..)) {
            self.deliver();
        }
    }

    fn enter(&mut self) {
        self.newcomer = match std::mem::replace(&mut self.newcomer, Newcomer::Outside) {
            Newcomer::Outside => Newcomer::Aside(self.room.aside(1 << 20)),
            Newcomer::Aside(aside) => Newcomer::Read(aside, self.said),
            Newcomer::Read(aside, reached) => {
                self.entering.hold();
                if let Ok(seated) = aside.sit(self.seat.clone(), Some(at(reached))) {
                    let since = *self.since.get_or_insert(reached);
                    // Whoever comes back is told with the reply what it has not heard.
                    let heard = offsets(&self.entering).last().copied().unwrap_or(since);
                    let recovered = (heard + 1..=reached).map(said);
                    Newcomer::Seated(recovered.chain(seated.missed).collect(), seated.id)
                } else {
                    assert!(self.loses, "nothing was lost, and still there is a gap");
                    self.entering.release(b"");
                    Newcomer::Outside
                }
            }
            Newcomer::Seated(missed, id) => {
                self.entering.release(&told(&missed));
                Newcomer::Inside(id)
            }
            Newcomer::Inside(id) => {
                self.returns -= 1;
                let outbox: Arc<Outbox> = self.entering.clone();
                self.room.seats.lock().remove(id, &outbox);
                Newcomer::Left
            }
            Newcomer::Left => Newcomer::Outside,
            Newcomer::Nobody => Newcomer::Nobody,
        };
    }

    fn compare(&mut self) {
        self.comparison = match self.comparison {
            Comparison::Waits => Comparison::Asked(self.room.position()),
            Comparison::Asked(before) => {
                self.behind = self.on_its_way.len();
                Comparison::Read(before, self.said)
            }
            Comparison::Read(before, top) => {
                self.room.check(before, at(top));
                Comparison::Over
            }
            Comparison::Over => Comparison::Over,
        };
    }

    /// At the end everybody has been told what there is, or that something is missing.
    pub(super) fn assert_told(&self, steps: &[Step]) {
        let reached = match self.newcomer {
            Newcomer::Nobody => self.said,
            Newcomer::Inside(_) => self.since.expect("it took a seat"),
            _ => panic!("nobody entered: {steps:?}"),
        };
        let lost_any = steps.contains(&Step::Lose);
        for (outbox, after) in [(&self.entering, reached), (&self.resident, 0)] {
            let heard = offsets(outbox);
            let mail = outbox.take_mail();
            let is_lost = mail.iter().any(|mail| matches!(mail, Mail::Lost { .. }));
            assert!(!is_lost || (lost_any && mail.len() == 1), "told it is lost, and nothing was: {steps:?}");
            let all: Vec<_> = (after + 1..=self.said).collect();
            if is_lost {
                assert!(all.starts_with(&heard), "{heard:?} after {after}: {steps:?}");
            } else {
                assert_eq!(heard, all, "after {after}: {steps:?}");
            }
        }
        if !lost_any {
            assert_eq!(offsets(&self.plain), (1..=self.said).collect::<Vec<_>>(), "{steps:?}");
        }
    }
}

fn told(missed: &[Event]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for event in missed {
        let Event::Publication(said) = event else { continue };
        let push = Push { publication: Some(Box::new(said.publication.clone())), ..Push::default() };
        let reply = Reply { push: Some(Box::new(push)), ..Reply::default() };
        Wire::JsonWebSocket.put_reply(&reply, &mut bytes).expect("it is JSON");
    }
    bytes
}

/// The offsets of the publications it was told.
fn offsets(outbox: &Outbox<Script>) -> Vec<u64> {
    let said = String::from_utf8_lossy(&outbox.socket().said()).into_owned();
    let numbers = said.split(r#""offset":"#).skip(1);
    let number = |text: &str| text.split(|byte: char| !byte.is_ascii_digit()).next().and_then(|text| text.parse().ok());
    numbers.map(|text| number(text).expect("a number")).collect()
}
