//! What rooms remember, as this node asks for it: the broker's verbs, and shared reads for clients that come back together.
//! Knows no rules and no commands.

use std::{sync::Arc, time::Duration};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use parking_lot::Mutex;
use roomcast_shared::event::Said;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until},
};
use tokio_util::task::TaskTracker;

use super::Node;
use crate::broker::{Answer, Append, Appended, BrokerError, History, Page, Slice};

/// Reads of one room that are shared begin at least this far apart: who comes meanwhile waits for the next one, and a room
/// that nobody has read for so long is read at once.
const GATHERING: Duration = Duration::from_millis(50);

/// What a client that enters a room has to know of its history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// What is wanted beside the position reached.
    pub part: Part,
    /// Publications given at most.
    pub limit: u32,
    /// How long the counter of the room is remembered after this.
    pub meta_ttl: Duration,
}

/// A part of a history, seen from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// No publication.
    Position,
    /// Those after this offset. What is given may begin earlier, and is complete up to the position unless there are more
    /// than the limit after this offset.
    Since(u64),
    /// The newest one.
    Newest,
}

type Outcome = Result<Arc<Slice>, BrokerError>;

impl Node {
    /// Says something in a room and, where `append` asks for it, puts it into the room's history, in one step.
    pub fn append(&self, room: &str, said: Said, append: &Append) -> Answer<Appended> {
        self.broker.history.append(room, said, append)
    }

    /// Reads a part of a room's history.
    pub fn history(&self, room: &str, page: &Page) -> Answer<Slice> {
        self.broker.history.read(room, page)
    }

    /// Forgets the publications a room remembers; positions stay comparable.
    pub fn forget(&self, room: &str) -> Answer<()> {
        self.broker.history.forget(room)
    }

    /// Reads what a client that enters a room has to know of it. The read begins after this call, and callers that come
    /// together share one.
    pub fn catch_up(&self, room: &Arc<str>, ask: Ask) -> Answer<Arc<Slice>> {
        self.reads.ask(room, ask)
    }
}

/// The shared reads of a node.
pub(super) struct Reads {
    history: Arc<dyn History>,
    tracker: TaskTracker,
    lines: Arc<Mutex<Lines>>,
}

/// Where callers wait for the next read of a room. There is a line from the moment a room is read until nobody has come for
/// [`GATHERING`], and a task that serves it.
type Lines = HashMap<Key, Vec<Caller>, RandomState>;

/// The newest publication is another read than what came since an offset.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    room: Arc<str>,
    newest: bool,
}

struct Caller {
    ask: Ask,
    answer: oneshot::Sender<Outcome>,
}

impl Reads {
    pub(super) fn new(history: Arc<dyn History>, tracker: TaskTracker) -> Self {
        Self { history, tracker, lines: Arc::default() }
    }

    fn ask(&self, room: &Arc<str>, ask: Ask) -> Answer<Arc<Slice>> {
        let key = Key { room: room.clone(), newest: ask.part == Part::Newest };
        if let Some(line) = self.lines.lock().get_mut(&key) {
            let (answer, answered) = oneshot::channel();
            line.push(Caller { ask, answer });
            return Answer::Later(Box::pin(async { answered.await.unwrap_or(Err(BrokerError::Cancelled)) }));
        }
        match self.history.read(room, &ask.page()) {
            // Nothing is gained by sharing what is known at once.
            Answer::Now(slice) => Answer::Now(slice.map(Arc::new)),
            Answer::Later(reading) => {
                self.open(key);
                Answer::Later(Box::pin(async { reading.await.map(Arc::new) }))
            }
        }
    }

    fn open(&self, key: Key) {
        if self.lines.lock().try_insert(key.clone(), Vec::new()).is_ok() {
            let line = Line { key, history: self.history.clone(), lines: self.lines.clone() };
            self.tracker.spawn(line.serve());
        }
    }
}

/// The task that serves one line.
struct Line {
    key: Key,
    history: Arc<dyn History>,
    lines: Arc<Mutex<Lines>>,
}

impl Line {
    async fn serve(self) {
        let mut began = Instant::now();
        loop {
            sleep_until(began + GATHERING).await;
            let Some(callers) = self.next() else { return };
            began = Instant::now();
            self.read_for(callers).await;
        }
    }

    /// Those who came since the last read began; without any the line ends.
    fn next(&self) -> Option<Vec<Caller>> {
        let mut lines = self.lines.lock();
        let callers = std::mem::take(lines.get_mut(&self.key)?);
        if callers.is_empty() {
            lines.remove(&self.key);
            return None;
        }
        Some(callers)
    }

    async fn read_for(&self, mut callers: Vec<Caller>) {
        // Who has gone is not read for.
        callers.retain(|caller| !caller.answer.is_closed());
        while let Some(ask) = together(&callers) {
            let outcome = self.read(&ask).await;
            let Ok(slice) = &outcome else { return answer(callers, &outcome) };
            // Somebody missed more than anybody is given, so that the read ended too early for those who missed less. It was
            // read for whoever missed most, so that each time there are fewer left.
            let (answered, others): (Vec<_>, Vec<_>) = callers
                .into_iter()
                .partition(|caller| caller.ask.part == ask.part || is_answered(&caller.ask, slice, ask.limit));
            answer(answered, &outcome);
            callers = others;
        }
    }

    async fn read(&self, ask: &Ask) -> Outcome {
        self.history.read(&self.key.room, &ask.page()).wait().await.map(Arc::new)
    }
}

impl Ask {
    fn page(&self) -> Page {
        let (since, limit, reverse) = match self.part {
            Part::Position => (None, 0, false),
            Part::Since(offset) => (Some(offset), self.limit, false),
            Part::Newest => (None, 1, true),
        };
        Page { since, limit, reverse, meta_ttl: self.meta_ttl }
    }
}

/// The one read that serves all of them: from the smallest offset anybody has.
fn together(callers: &[Caller]) -> Option<Ask> {
    let mut asks = callers.iter().map(|caller| caller.ask);
    let first = asks.next()?;
    Some(asks.fold(first, |all, one| Ask {
        part: match (all.part, one.part) {
            (Part::Since(one), Part::Since(other)) => Part::Since(one.min(other)),
            (Part::Position, part) | (part, _) => part,
        },
        limit: all.limit.max(one.limit),
        meta_ttl: if one.meta_ttl.is_zero() { one.meta_ttl } else { all.meta_ttl.max(one.meta_ttl) },
    }))
}

/// Whether a read of at most `limit` publications says all there is to say to somebody: it came to the position, or more
/// is missing there than anybody is given.
fn is_answered(ask: &Ask, slice: &Slice, limit: u32) -> bool {
    let Part::Since(offset) = ask.part else { return true };
    let last = slice.publications.last().map_or(slice.top.offset, |last| last.offset);
    last == slice.top.offset || slice.top.offset.saturating_sub(offset) > u64::from(limit)
}

fn answer(callers: Vec<Caller>, outcome: &Outcome) {
    for caller in callers {
        // Whoever asked may have gone.
        let _ = caller.answer.send(outcome.clone());
    }
}

#[cfg(test)]
mod tests {
    //! Callers that come together, against a history that answers when the test says so.

    use std::collections::VecDeque;

    use proptest::prelude::*;
    use roomcast_shared::{
        position::{Epoch, Position},
        publication::Publication,
    };

    use super::*;

    /// A read that nobody has answered yet.
    type Read = (oneshot::Sender<Result<Slice, BrokerError>>, Page);

    /// A room with so many publications whose reads wait for the test.
    #[derive(Default)]
    struct Slow {
        top: Mutex<u64>,
        asked: Mutex<Vec<Page>>,
        waiting: Mutex<VecDeque<Read>>,
        prompt: bool,
    }

    impl Slow {
        fn slice(&self, page: &Page) -> Slice {
            let top = *self.top.lock();
            let all = page.since.unwrap_or(0) + 1..=top;
            let publication = |offset| Publication { offset, ..Publication::default() };
            let publications: Vec<_> = if page.reverse {
                all.rev().take(page.limit as usize).map(publication).collect()
            } else {
                all.take(page.limit as usize).map(publication).collect()
            };
            Slice { publications, top: Position::new(top, Epoch::from_random(1)) }
        }

        /// Answers the oldest read as the room is now.
        fn answer(&self) {
            let (answer, page) = self.waiting.lock().pop_front().expect("somebody reads");
            let _ = answer.send(Ok(self.slice(&page)));
        }

        async fn until_waiting(&self, reads: usize) {
            while self.waiting.lock().len() < reads {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }

    impl History for Slow {
        fn append(&self, _: &str, _: Said, _: &Append) -> Answer<Appended> {
            Answer::Now(Err(BrokerError::Cancelled))
        }

        fn read(&self, _: &str, page: &Page) -> Answer<Slice> {
            self.asked.lock().push(*page);
            if self.prompt {
                return Answer::Now(Ok(self.slice(page)));
            }
            let (answer, answered) = oneshot::channel();
            self.waiting.lock().push_back((answer, *page));
            Answer::Later(Box::pin(async { answered.await.unwrap_or(Err(BrokerError::Disconnected)) }))
        }

        fn forget(&self, _: &str) -> Answer<()> {
            Answer::Now(Ok(()))
        }
    }

    fn reads(top: u64, prompt: bool) -> (Arc<Slow>, Reads) {
        let history = Arc::new(Slow { top: Mutex::new(top), prompt, ..Slow::default() });
        (history.clone(), Reads::new(history, TaskTracker::new()))
    }

    fn since(offset: u64) -> Ask {
        Ask { part: Part::Since(offset), limit: 3, meta_ttl: Duration::from_mins(1) }
    }

    fn room() -> Arc<str> {
        Arc::from("room")
    }

    async fn offsets(answer: Answer<Arc<Slice>>) -> Vec<u64> {
        let slice = answer.wait().await.expect("it is read");
        slice.publications.iter().map(|publication| publication.offset).collect()
    }

    #[tokio::test]
    async fn whoever_comes_while_a_read_is_under_way_shares_the_next_one() {
        let (history, reads) = reads(5, false);
        let first = reads.ask(&room(), since(4));
        let (second, third) = (reads.ask(&room(), since(4)), reads.ask(&room(), since(3)));
        // Said after they came: the read that was under way then is not theirs.
        history.answer();
        *history.top.lock() = 6;
        assert_eq!(offsets(first).await, [5]);
        history.until_waiting(1).await;
        history.answer();
        assert_eq!(offsets(second).await, [4, 5, 6]);
        assert_eq!(offsets(third).await, [4, 5, 6]);
        let pages: Vec<_> = history.asked.lock().iter().map(|page| page.since).collect();
        assert_eq!(pages, [Some(4), Some(3)]);
    }

    #[tokio::test]
    async fn a_thousand_who_come_together_cost_two_reads_and_leave_nothing() {
        let (history, reads) = reads(5, false);
        let asked: Vec<_> = (0..1_000).map(|_| reads.ask(&room(), since(5))).collect();
        history.until_waiting(1).await;
        history.answer();
        history.until_waiting(1).await;
        history.answer();
        for one in asked {
            assert!(offsets(one).await.is_empty());
        }
        assert_eq!(history.asked.lock().len(), 2);
        reads.tracker.close();
        reads.tracker.wait().await;
        assert!(reads.lines.lock().is_empty());
    }

    #[tokio::test]
    async fn one_who_missed_too_much_does_not_spoil_it_for_others() {
        let (history, reads) = reads(100, false);
        let first = reads.ask(&room(), since(100));
        let (ancient, recent) = (reads.ask(&room(), since(1)), reads.ask(&room(), since(98)));
        for _ in 0..3 {
            history.until_waiting(1).await;
            history.answer();
        }
        assert!(offsets(first).await.is_empty());
        assert_eq!(offsets(ancient).await, [2, 3, 4], "it sees that there is more");
        assert_eq!(offsets(recent).await, [99, 100]);
    }

    /// Each read but the last ends too early for those who missed less than the first of them.
    #[tokio::test]
    async fn whoever_missed_little_recovers_whatever_is_said_between_the_reads() {
        let (history, reads) = reads(100, false);
        let first = reads.ask(&room(), since(100));
        let (ancient, full, recent) =
            (reads.ask(&room(), since(1)), reads.ask(&room(), since(97)), reads.ask(&room(), since(99)));
        for top in [100, 100, 101] {
            history.until_waiting(1).await;
            *history.top.lock() = top;
            history.answer();
        }
        assert!(offsets(first).await.is_empty());
        assert_eq!(offsets(ancient).await, [2, 3, 4]);
        assert_eq!(offsets(full).await, [98, 99, 100], "it sees that there is more than it may be given");
        let last = async {
            history.until_waiting(1).await;
            history.answer();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            recent = offsets(recent) => assert_eq!(recent, [100, 101]),
            () = last => {}
        }
    }

    #[tokio::test]
    async fn nobody_is_read_for_once_gone_and_a_failure_is_everybodys() {
        let (history, reads) = reads(5, false);
        drop(reads.ask(&room(), since(1)));
        drop(reads.ask(&room(), since(0)));
        let (one, two) = (reads.ask(&room(), since(4)), reads.ask(&room(), since(4)));
        history.until_waiting(2).await;
        assert_eq!(history.asked.lock().last().map(|page| page.since), Some(Some(4)));
        history.waiting.lock().clear();
        assert_eq!(one.wait().await, Err(BrokerError::Disconnected));
        assert_eq!(two.wait().await, Err(BrokerError::Disconnected));
    }

    #[tokio::test]
    async fn what_is_known_at_once_is_not_waited_for() {
        let (history, reads) = reads(5, true);
        for _ in 0..3 {
            let ask = Ask { part: Part::Newest, ..since(0) };
            let Answer::Now(Ok(slice)) = reads.ask(&room(), ask) else { panic!("it is known") };
            assert_eq!(slice.publications[0].offset, 5);
        }
        assert_eq!(history.asked.lock().len(), 3);
        assert!(reads.lines.lock().is_empty());
    }

    proptest! {
        /// Whoever shares a read is told what a read of its own would have told it.
        #[test]
        fn a_shared_read_tells_everybody_what_its_own_would(
            top in 0..30_u64,
            asks in proptest::collection::vec(proptest::option::of(0..32_u64), 1..12),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            runtime.block_on(async {
                let (history, reads) = reads(top, true);
                let (callers, answers): (Vec<_>, Vec<_>) = asks.iter().map(|offset| {
                    let (answer, answered) = oneshot::channel();
                    let part = offset.map_or(Part::Position, Part::Since);
                    (Caller { ask: Ask { part, ..since(0) }, answer }, answered)
                }).unzip();
                let key = Key { room: room(), newest: false };
                Line { key, history: history.clone(), lines: reads.lines.clone() }.read_for(callers).await;
                for (offset, answered) in asks.iter().zip(answers) {
                    let slice = answered.await.unwrap().unwrap();
                    let part = offset.map_or(Part::Position, Part::Since);
                    let own = history.slice(&Ask { part, ..since(0) }.page());
                    let Some(offset) = *offset else { continue };
                    let after = slice.publications.iter().map(|publication| publication.offset).filter(|one| *one > offset);
                    let after: Vec<_> = after.collect();
                    let complete = own.publications.last().is_none_or(|last| last.offset == top);
                    if complete {
                        let own: Vec<_> = own.publications.iter().map(|publication| publication.offset).collect();
                        assert_eq!(after, own);
                    } else {
                        assert_ne!(after.last(), Some(&top), "it must not look complete");
                    }
                }
                assert!(history.asked.lock().len() <= 2);
            });
        }
    }
}
