//! What was said in every room and where it stands, as publishers were answered, clients heard and histories say; and what
//! has to be true of it. Knows no nodes and no sockets.
//!
//! A place in a room is an epoch and an offset. Whoever speaks of a place has to name the same publication there; within an
//! epoch nothing stands twice, and what one publisher was told to be published stands in the order in which it said it.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::Mutex,
};

/// What one publisher says: its name and a number that grows with everything it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Said {
    pub(crate) publisher: u32,
    pub(crate) number: u64,
}

/// Where a room stands, or how far somebody has heard it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) epoch: String,
    pub(crate) offset: u64,
}

/// How often the store has lost its data so far; nothing while it is losing it.
pub(crate) type Era = Option<usize>;

/// One room.
#[derive(Default)]
struct Room {
    epochs: BTreeMap<String, Epoch>,
    /// Epochs that belong to an era for certain.
    eras: BTreeMap<usize, String>,
    /// What was answered to be published without being told where, and the era it was in for certain.
    confirmed: Vec<(Said, usize)>,
}

#[derive(Default)]
struct Epoch {
    said: BTreeMap<u64, Said>,
    places: HashMap<Said, u64>,
    /// The furthest place that a publisher was told.
    furthest: u64,
}

/// The rooms, and what was found to be wrong.
pub(crate) struct Ledger {
    rooms: Vec<Mutex<Room>>,
    /// How many missed publications each room makes up for.
    reach: Vec<u64>,
    faults: Mutex<Vec<String>>,
    tally: Mutex<BTreeMap<String, u64>>,
}

impl fmt::Display for Said {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}", self.publisher, self.number)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.epoch, self.offset)
    }
}

impl Said {
    /// Reads it out of a payload.
    pub(crate) fn read(data: &[u8]) -> Option<Self> {
        let data: serde_json::Value = serde_json::from_slice(data).ok()?;
        Some(Self { publisher: u32::try_from(data["p"].as_u64()?).ok()?, number: data["n"].as_u64()? })
    }

    /// The payload that says it.
    pub(crate) fn payload(self) -> serde_json::Value {
        serde_json::json!({"p": self.publisher, "n": self.number})
    }
}

impl Ledger {
    /// For rooms that make up for so many missed publications each.
    pub(crate) fn new(reach: Vec<u64>) -> Self {
        let rooms = reach.iter().map(|_| Mutex::default()).collect();
        Self { rooms, reach, faults: Mutex::default(), tally: Mutex::default() }
    }

    /// How many missed publications a room makes up for.
    pub(crate) fn reach(&self, room: usize) -> u64 {
        self.reach[room]
    }

    /// Something is not as it has to be.
    pub(crate) fn fault(&self, what: String) {
        self.faults.lock().expect("nobody panics with it").push(what);
    }

    pub(crate) fn faults(&self) -> Vec<String> {
        self.faults.lock().expect("nobody panics with it").clone()
    }

    pub(crate) fn count(&self, what: &str, times: u64) {
        let mut tally = self.tally.lock().expect("nobody panics with it");
        if let Some(count) = tally.get_mut(what) {
            *count += times;
        } else {
            tally.insert(what.to_owned(), times);
        }
    }

    pub(crate) fn counted(&self, what: &str) -> u64 {
        self.tally.lock().expect("nobody panics with it").get(what).copied().unwrap_or(0)
    }

    /// All that was counted under names which begin so.
    #[allow(dead_code, reason = "each test uses the part it needs")]
    pub(crate) fn counted_all(&self, what: &str) -> u64 {
        let tally = self.tally.lock().expect("nobody panics with it");
        tally.iter().filter(|(name, _)| name.starts_with(what)).map(|(_, count)| count).sum()
    }

    pub(crate) fn tally(&self) -> String {
        let tally = self.tally.lock().expect("nobody panics with it");
        tally.iter().map(|(what, count)| format!("  {what}: {count}")).collect::<Vec<_>>().join("\n")
    }

    /// This publication stands there; who says so is told what is wrong with that.
    pub(crate) fn stands(&self, room: usize, at: &Place, said: Said) -> Result<(), String> {
        let mut room = self.room(room);
        let epoch = room.epochs.entry(at.epoch.clone()).or_default();
        let there = *epoch.said.entry(at.offset).or_insert(said);
        if there != said {
            return Err(format!("at {at} stands {said}, and to others {there}"));
        }
        let place = *epoch.places.entry(said).or_insert(at.offset);
        if place != at.offset {
            return Err(format!("{said} stands at {at}, and at {place} as well"));
        }
        Ok(())
    }

    /// A publisher was answered that its words stand there. `era` is the one in which it asked and was answered, where that
    /// is certain.
    pub(crate) fn answered(&self, room: usize, at: &Place, said: Said, era: Era) {
        if let Err(fault) = self.stands(room, at, said) {
            self.fault(format!("room {room}, as its publisher was told: {fault}"));
        }
        let mut locked = self.room(room);
        let epoch = locked.epochs.entry(at.epoch.clone()).or_default();
        epoch.furthest = epoch.furthest.max(at.offset);
        let Some(era) = era else { return };
        let of_era = locked.eras.entry(era).or_insert_with(|| at.epoch.clone());
        if *of_era != at.epoch {
            let fault = format!("room {room}: its epoch changed from {of_era} to {at}, and nothing was lost meanwhile");
            drop(locked);
            self.fault(fault);
        }
    }

    /// A client was answered that its words are published, and not where.
    pub(crate) fn confirmed(&self, room: usize, said: Said, era: Era) {
        if let Some(era) = era {
            self.room(room).confirmed.push((said, era));
        }
    }

    /// How many words of clients were confirmed in an era, in these rooms.
    #[allow(dead_code, reason = "each test uses the part it needs")]
    pub(crate) fn confirmed_in(&self, era: usize, is_asked: impl Fn(usize) -> bool) -> u64 {
        let rooms = (0..self.rooms.len()).filter(|room| is_asked(*room));
        rooms.map(|room| self.room(room).confirmed.iter().filter(|(_, of)| *of == era).count() as u64).sum()
    }

    /// What has to be true of a room at the end, where it stands at `top`, and the store has lost its data so often.
    pub(crate) fn judge(&self, room: usize, top: &Place, losses: usize) {
        let locked = self.room(room);
        let mut faults = Vec::new();
        if locked.epochs.len() > losses + 1 {
            faults.push(format!("{} epochs, and its data was lost {losses} times", locked.epochs.len()));
        }
        for (name, epoch) in &locked.epochs {
            faults.extend(epoch.disorder(&locked.confirmed).map(|fault| format!("epoch {name}: {fault}")));
        }
        if let Some(now) = locked.epochs.get(&top.epoch) {
            if now.furthest > top.offset {
                faults.push(format!("{} was answered, and the room stands at {top}", now.furthest));
            }
            // Where somebody has seen all of it, whatever was confirmed has to be there. How often that is so is counted.
            if now.said.len() as u64 == top.offset {
                let of_now: Vec<_> = locked.confirmed.iter().filter(|(_, era)| *era == losses).collect();
                self.count("rooms that were seen whole", 1);
                self.count("confirmed words of clients that were looked for", of_now.len() as u64);
                let missing = of_now.into_iter().filter(|(said, _)| !now.places.contains_key(said));
                faults.extend(missing.map(|(said, _)| format!("{said} was confirmed, and is nowhere")));
            } else {
                self.count("rooms of which nobody saw everything", 1);
            }
        }
        drop(locked);
        for fault in faults {
            self.fault(format!("room {room}: {fault}"));
        }
    }

    /// What is said at most once whatever happens, because it was never tried again.
    pub(crate) fn judge_untried(&self, is_untried: impl Fn(Said) -> bool) {
        for (number, room) in self.rooms.iter().enumerate() {
            let mut seen: HashMap<Said, String> = HashMap::new();
            let mut faults = Vec::new();
            for (name, epoch) in &room.lock().expect("nobody panics with it").epochs {
                for (said, offset) in epoch.places.iter().filter(|(said, _)| is_untried(**said)) {
                    let at = format!("{name}:{offset}");
                    if let Some(other) = seen.insert(*said, at.clone()) {
                        faults.push(format!("room {number}: {said} was said once, and stands at {other} and {at}"));
                    }
                }
            }
            for fault in faults {
                self.fault(fault);
            }
        }
    }

    fn room(&self, room: usize) -> std::sync::MutexGuard<'_, Room> {
        self.rooms[room].lock().expect("nobody panics with it")
    }
}

impl Epoch {
    /// The first two words of one publisher that stand the other way round. Of what a client said, only that has an order
    /// which it was told to be published before it said the next.
    fn disorder(&self, confirmed: &[(Said, usize)]) -> Option<String> {
        let mut last: HashMap<u32, u64> = HashMap::new();
        for (offset, said) in &self.said {
            let is_ordered = !is_client(said.publisher) || confirmed.iter().any(|(one, _)| one == said);
            if !is_ordered {
                continue;
            }
            if let Some(before) = last.insert(said.publisher, said.number)
                && before > said.number
            {
                return Some(format!("{said} stands at {offset}, after {before} of the same publisher"));
            }
        }
        None
    }
}

/// Names of clients that publish begin here; below are publishers that try again until they are answered.
pub(crate) const CLIENTS: u32 = 1000;

pub(crate) fn is_client(publisher: u32) -> bool {
    publisher >= CLIENTS
}
