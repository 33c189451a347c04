//! Commands of one session that wait for the broker. Memory for them is held only while there are any.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use roomcast_shared::{
    position::Position,
    protocol::{code::Disconnect, command::StreamPosition},
};

use super::{Replies, Session, Step, entry::Entered};
use crate::broker::{BrokerError, Slice};

/// What a waiting command came to.
pub(super) enum Done {
    /// A room is ready for the client, or could not be made so.
    Subscribed { id: u32, entered: Result<Entered, BrokerError> },
    /// A publication was taken, or is not known to be.
    Published { id: u32, result: Result<Option<Position>, BrokerError> },
    /// A history was read, or could not be. The position is the one that the client asked to begin from.
    Read { id: u32, since: Option<StreamPosition>, result: Result<Slice, BrokerError> },
    /// What the client said in a room it leaves has come back, or never will.
    CaughtUp { id: u32, room: String },
    /// What was on its way to the client from a room it left has arrived.
    Left { id: u32 },
    /// Something that who began it knows how to go on with.
    Then(Rest),
}

/// What is left to do.
pub(super) type Rest = Box<dyn FnOnce(&mut Session, &mut Replies<'_>) -> Result<Step, Disconnect> + Send>;

impl Done {
    pub(super) fn then(
        rest: impl FnOnce(&mut Session, &mut Replies<'_>) -> Result<Step, Disconnect> + Send + 'static,
    ) -> Self {
        Self::Then(Box::new(rest))
    }
}

/// What a session is doing in a room just now.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Busy {
    Subscribing,
    Publishing,
    /// The backend is being asked.
    Asking,
    Leaving,
}

/// The commands that wait, in the order they began, and the rooms they concern.
///
/// All are asked each time. They are few (`client.pending_commands`), and what asks only those that called has its task
/// scheduled once more whenever it has asked them all, for which the runtime wakes another thread.
#[derive(Default)]
pub(super) struct Pending {
    waiting: Vec<Waiting>,
    /// Those before this one have been asked in this poll.
    asked: usize,
    rooms: Vec<(Box<str>, Busy)>,
}

/// Ends with the room it concerned, so that others may go on there.
type Waiting = Pin<Box<dyn Future<Output = (Option<(Box<str>, Busy)>, Done)> + Send>>;

impl Pending {
    pub(super) fn start(&mut self, room: &str, busy: Busy, work: impl Future<Output = Done> + Send + 'static) {
        self.rooms.push((room.into(), busy));
        let room: Box<str> = room.into();
        self.waiting.push(Box::pin(async move { (Some((room, busy)), work.await) }));
    }

    /// The same for work that is in no other command's way.
    pub(super) fn start_aside(&mut self, work: impl Future<Output = Done> + Send + 'static) {
        self.waiting.push(Box::pin(async move { (None, work.await) }));
    }

    pub(super) fn is_full(&self, limit: u32) -> bool {
        self.waiting.len() >= limit as usize
    }

    /// How many rooms are being entered.
    pub(super) fn subscribing(&self) -> usize {
        self.rooms.iter().filter(|(_, busy)| *busy == Busy::Subscribing).count()
    }

    /// What is being done in a room. What a client says there may be under way beside something else, and that stands before
    /// it.
    pub(super) fn busy(&self, room: &str) -> Option<Busy> {
        let mut here = self.rooms.iter().filter(|(name, _)| **name == *room).map(|(_, busy)| *busy);
        let first = here.next()?;
        Some(here.fold(first, |all, one| if all == Busy::Publishing { one } else { all }))
    }

    /// What is done, one after the other; `None` where nothing waits. It has to be called until it says `Pending` or `None`:
    /// until then the commands before the one that was done are not asked again, so that whoever stops earlier would not
    /// hear of them when the task is woken next.
    pub(super) fn poll_next(&mut self, task: &mut Context<'_>) -> Poll<Option<Done>> {
        if self.waiting.is_empty() {
            return Poll::Ready(None);
        }
        while let Some(waiting) = self.waiting.get_mut(self.asked) {
            if let Poll::Ready((room, done)) = waiting.as_mut().poll(task) {
                drop(self.waiting.remove(self.asked));
                self.leave(room);
                return Poll::Ready(Some(done));
            }
            self.asked += 1;
        }
        self.asked = 0;
        Poll::Pending
    }

    fn leave(&mut self, room: Option<(Box<str>, Busy)>) {
        if let Some(place) = room.and_then(|room| self.rooms.iter().position(|known| *known == room)) {
            self.rooms.swap_remove(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::{pending, ready},
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
        task::{Wake, Waker},
    };

    use bytes::Bytes;
    use tokio::runtime::Runtime;

    use super::{
        super::fixture::{self, Socket},
        *,
    };
    use crate::hub::Outbox;

    #[derive(Default)]
    struct Task(AtomicBool);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    fn left(done: &Poll<Option<Done>>) -> Option<u32> {
        if let Poll::Ready(Some(Done::Left { id })) = done { Some(*id) } else { None }
    }

    /// A task that wakes itself costs the runtime the waking of another thread.
    #[test]
    fn asking_wakes_nobody() {
        let (task, mut commands) = (Arc::new(Task::default()), Pending::default());
        let waker = Waker::from(task.clone());
        commands.start("a", Busy::Publishing, pending());
        commands.start_aside(pending());
        assert!(commands.poll_next(&mut Context::from_waker(&waker)).is_pending());
        assert!(!task.0.load(Ordering::SeqCst));
    }

    #[test]
    fn what_is_done_comes_in_the_order_it_began_and_frees_its_room() {
        let mut commands = Pending::default();
        let mut task = Context::from_waker(Waker::noop());
        commands.start("a", Busy::Leaving, ready(Done::Left { id: 1 }));
        commands.start("b", Busy::Leaving, pending());
        commands.start("c", Busy::Leaving, ready(Done::Left { id: 3 }));
        assert_eq!(left(&commands.poll_next(&mut task)), Some(1));
        assert_eq!(left(&commands.poll_next(&mut task)), Some(3));
        assert!(commands.busy("a").is_none() && commands.busy("c").is_none());
        assert!(commands.poll_next(&mut task).is_pending());
        // What began since the last poll is asked as well.
        commands.start("a", Busy::Leaving, ready(Done::Left { id: 4 }));
        assert_eq!(left(&commands.poll_next(&mut task)), Some(4));
        assert!(commands.poll_next(&mut task).is_pending());
        drop(std::mem::take(&mut commands.waiting));
        assert!(matches!(commands.poll_next(&mut task), Poll::Ready(None)));
    }

    /// Whoever sends one command after the other without waiting is answered at the price of one.
    #[test]
    fn what_the_broker_answers_together_is_said_in_one_write() {
        let runtime = Runtime::new().expect("a runtime");
        let _inside = runtime.enter();
        let outbox = Arc::new(Outbox::new(Socket::default(), usize::MAX));
        let mut session = fixture::session(&fixture::context(), &outbox);
        for id in 3..=5 {
            session.pending().start_aside(ready(Done::Left { id }));
        }
        let before = outbox.socket().writes.load(Ordering::SeqCst);
        assert!(session.poll_pending(&mut Context::from_waker(Waker::noop())).is_pending());
        assert_eq!(outbox.socket().writes.load(Ordering::SeqCst) - before, 1);
        outbox.socket().assert_said([r#""id":3"#, r#""id":4"#, r#""id":5"#]);
        assert!(!session.is_waiting());
    }

    /// Whoever leaves a room hears nothing of it after the answer to that.
    #[test]
    fn what_a_room_pushes_meanwhile_comes_before_the_next_answer() {
        let runtime = Runtime::new().expect("a runtime");
        let _inside = runtime.enter();
        let outbox = Arc::new(Outbox::new(Socket::default(), usize::MAX));
        let mut session = fixture::session(&fixture::context(), &outbox);
        session.pending().start_aside(ready(Done::Left { id: 3 }));
        let room = outbox.clone();
        session.pending().start_aside(async move {
            room.push(&Bytes::from_static(b"said in the room"));
            Done::Left { id: 4 }
        });
        assert!(session.poll_pending(&mut Context::from_waker(Waker::noop())).is_pending());
        outbox.socket().assert_said([r#""id":3"#, "said in the room", r#""id":4"#]);
    }

    /// What is done while another one is being answered calls the task, which then has to ask it.
    #[test]
    fn who_goes_on_until_nothing_is_done_misses_nobody() {
        let (task, mut commands) = (Arc::new(Task::default()), Pending::default());
        let waker = Waker::from(task.clone());
        let mut context = Context::from_waker(&waker);
        let (done, first) = tokio::sync::oneshot::channel();
        commands.start("a", Busy::Leaving, async move { Done::Left { id: first.await.unwrap_or(0) } });
        commands.start("b", Busy::Leaving, ready(Done::Left { id: 2 }));
        let (mut heard, mut done) = (Vec::new(), Some(done));
        let mut turn = |commands: &mut Pending| {
            while let Some(id) = left(&commands.poll_next(&mut context)) {
                heard.push(id);
                if let Some(done) = done.take() {
                    done.send(1).expect("it is waited for");
                }
            }
            assert_eq!(commands.asked, 0, "the next turn begins with the first");
        };
        turn(&mut commands);
        while task.0.swap(false, Ordering::SeqCst) {
            turn(&mut commands);
        }
        assert_eq!(heard, [2, 1]);
    }
}
