//! A connection's way out. Bytes go to the socket there and then if nothing waits; what the socket does not take waits here,
//! bounded in bytes, for the connection's task. Too much waiting ends the connection: that is the slow-consumer decision.

use std::{
    io::{self, IoSlice},
    sync::Arc,
    task::{Context, Waker},
};

use bytes::Bytes;
use parking_lot::Mutex;
use roomcast_shared::protocol::code::Disconnect;

use crate::memory;

mod mail;
mod state;

pub use mail::{Mail, Mailbox, Refresh, Since, Subscribe};
use state::{Phase, State};

/// A socket that can be written from any thread.
pub trait Sink: Send + Sync {
    /// Writes what the socket takes at once, from the beginning of `bytes` on, and says how much that was.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] where the socket takes nothing now; a sink that can only be written by its own task always
    /// answers so. Any other error: the socket is broken.
    fn try_write(&self, bytes: &[IoSlice<'_>]) -> io::Result<usize>;
}

/// The way out of one connection; its last field is the socket, so that an `Arc` of it serves both the connection, which
/// knows the socket's type, and the rooms, which do not.
pub struct Outbox<S: ?Sized = dyn Sink> {
    state: Mutex<State>,
    /// Bytes that may wait while there is enough memory, the places of the queue included, before the connection is ended as a slow consumer.
    limit: usize,
    socket: S,
}

/// What the connection's task has to attend to.
#[derive(Debug, Default)]
pub struct Attention {
    /// The connection has to end with this.
    pub close: Option<Disconnect>,
    /// The socket refused a write: nothing more can be said.
    pub broken: bool,
    /// Bytes wait for the socket.
    pub waiting: bool,
    /// The session is told something: [`Outbox::take_mail`].
    pub mail: bool,
}

impl<S> Outbox<S> {
    /// A way out over `socket` in which at most `limit` bytes wait.
    pub fn new(socket: S, limit: usize) -> Self {
        Self { state: Mutex::new(State::default()), limit, socket }
    }
}

impl<S: Sink + ?Sized> Outbox<S> {
    /// The socket.
    pub fn socket(&self) -> &S {
        &self.socket
    }

    /// Bytes that may wait now.
    fn limit(&self) -> usize {
        memory::queue_limit(self.limit)
    }

    /// Says these bytes after all that was said before. They must be whole frames.
    pub fn push(&self, bytes: &Bytes) {
        let mut state = self.state.lock();
        let taken = match state.take_at_once(&self.socket, bytes) {
            Some(taken) if taken == bytes.len() => return,
            Some(taken) => taken,
            None => 0,
        };
        state.append(bytes.slice(taken..), taken > 0, self.limit());
        let waker = state.waker_if_unheld();
        drop(state);
        wake(waker);
    }

    /// The same, but where too much would wait by it, nothing is said and the answer is `false`; what waits stays as it is.
    pub fn offer(&self, bytes: &Bytes) -> bool {
        let mut state = self.state.lock();
        let taken = match state.take_at_once(&self.socket, bytes) {
            Some(taken) if taken == bytes.len() => return true,
            Some(taken) => taken,
            None => 0,
        };
        let rest = bytes.slice(taken..);
        if taken > 0 {
            // What began has to be finished, whatever it takes; nothing else waits then.
            state.append(rest, true, usize::MAX);
        } else if state.would_overflow(rest.len(), self.limit()) {
            return false;
        } else {
            state.append(rest, false, self.limit());
        }
        let waker = state.waker_if_unheld();
        drop(state);
        wake(waker);
        true
    }

    /// Says what a room says where only its newest publication may wait: all of it where nothing waits, and else only the
    /// newest, in place of an older one of that room. `tag` names the room and is not 0. Whether something was left out.
    pub fn push_newest(&self, tag: u32, all: &Bytes, newest: &Bytes) -> bool {
        let mut state = self.state.lock();
        match state.take_at_once(&self.socket, all) {
            Some(taken) if taken == all.len() => return false,
            Some(taken) if taken > 0 => {
                state.append(all.slice(taken..), true, usize::MAX);
                let waker = state.waker_if_unheld();
                drop(state);
                wake(waker);
                return false;
            }
            _ => {}
        }
        let gave_way = state.append_newest(tag, newest.clone(), self.limit());
        let waker = state.waker_if_unheld();
        drop(state);
        wake(waker);
        gave_way || newest.len() < all.len()
    }

    /// The same for bytes that the caller keeps: only what the socket does not take at once is copied.
    pub fn write(&self, bytes: &[u8]) {
        let mut state = self.state.lock();
        let waker = state.write(&self.socket, bytes, self.limit());
        drop(state);
        wake(waker);
    }

    /// From now on what is pushed waits, until [`Outbox::release`]. So a session can take seats in rooms and have its reply
    /// written before anything that is said in them.
    pub fn hold(&self) {
        let mut state = self.state.lock();
        state.held = Some(state.queue.len());
    }

    /// Whether anything was pushed since [`Outbox::hold`], so that it comes after the replies.
    pub fn is_overtaken(&self) -> bool {
        let state = self.state.lock();
        state.held.is_some_and(|place| place < state.queue.len())
    }

    /// Says `replies` before everything that was pushed since [`Outbox::hold`].
    pub fn release(&self, replies: &[u8]) {
        let mut state = self.state.lock();
        let place = state.held.take().unwrap_or(state.queue.len());
        // All under one lock: whoever pushes next comes after the replies.
        let waker = if state.queue.is_empty() {
            state.write(&self.socket, replies, self.limit())
        } else {
            state.write_before(place, &self.socket, replies, self.limit())
        };
        drop(state);
        wake(waker);
    }

    /// Asks the connection to end with this, after what waits is written. The first reason stands.
    pub fn close(&self, disconnect: Disconnect) {
        let mut state = self.state.lock();
        state.closing.get_or_insert_with(|| Box::new(disconnect));
        let waker = state.waker.take();
        drop(state);
        wake(waker);
    }

    /// Ends the connection without a further word.
    pub fn abort(&self) {
        let mut state = self.state.lock();
        state.fail();
        let waker = state.waker.take();
        drop(state);
        wake(waker);
    }

    /// What there is to do for the connection's task; it is woken when that changes.
    pub fn attend(&self, context: &Context<'_>) -> Attention {
        let mut state = self.state.lock();
        if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            state.waker = Some(context.waker().clone());
        }
        Attention {
            close: if state.phase == Phase::Ended { None } else { state.closing.as_deref().cloned() },
            broken: state.phase == Phase::Broken,
            waiting: !state.queue.is_empty(),
            mail: state.mail.is_some(),
        }
    }

    /// Writes what waits, as far as the socket takes it. `true` when nothing waits any more.
    ///
    /// # Errors
    /// The socket is broken.
    pub fn drain(&self) -> io::Result<bool> {
        let mut state = self.state.lock();
        state.flush(&self.socket)?;
        Ok(state.queue.is_empty())
    }

    /// Ends the way out: `last` is said after what waits, and nothing after it.
    pub fn finish(&self, last: Vec<u8>) {
        self.state.lock().finish(last);
    }

    /// Tells the session something; its connection's task is woken. `false` where it is not told: too much waits for it, or
    /// it has ended. A session that cannot be told that it has lost a seat is closed instead: 3010 where its position is
    /// lost, 3008 where it was too slow.
    pub fn tell(&self, mail: Mail) -> bool {
        let mut state = self.state.lock();
        if state.phase != Phase::Open {
            return false;
        }
        let refused = state.mail.get_or_insert_default().put(mail).err();
        let told = refused.is_none();
        if let Some(disconnect) = refused.and_then(|mail| mail.instead()) {
            state.closing.get_or_insert_with(|| Box::new(disconnect));
        }
        let waker = state.waker.take();
        drop(state);
        wake(waker);
        told
    }

    /// What the session is told, oldest first.
    pub fn take_mail(&self) -> Vec<Mail> {
        let mail = self.state.lock().mail.take();
        mail.map_or_else(Vec::new, |mailbox| mailbox.into_mail())
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// Whether both are the way out of the same connection.
pub(super) fn same(one: &Arc<Outbox>, other: &Arc<Outbox>) -> bool {
    std::ptr::addr_eq(Arc::as_ptr(one), Arc::as_ptr(other))
}

#[cfg(test)]
pub(super) mod tests {
    //! What a way out says, checked against a sink that takes as much as it likes.

    use std::{
        collections::VecDeque,
        io::ErrorKind,
        sync::{
            Barrier,
            atomic::{AtomicUsize, Ordering},
        },
        task::Wake,
        thread,
    };

    use proptest::prelude::*;

    use super::{state::OVERHEAD, *};

    /// What a sink does with one write.
    #[derive(Clone, Copy, Debug)]
    pub(in crate::hub) enum Take {
        /// Takes at most so many bytes.
        Some(usize),
        Nothing,
        Interrupted,
        Breaks,
    }

    /// A sink that follows a script, and after its end takes everything.
    #[derive(Default)]
    pub(in crate::hub) struct Script {
        said: Mutex<Vec<u8>>,
        script: Mutex<VecDeque<Take>>,
    }

    impl Script {
        pub(in crate::hub) fn new(script: impl IntoIterator<Item = Take>) -> Self {
            Self { said: Mutex::default(), script: Mutex::new(script.into_iter().collect()) }
        }

        /// Everything it took.
        pub(in crate::hub) fn said(&self) -> Vec<u8> {
            self.said.lock().clone()
        }

        fn then(&self, script: impl IntoIterator<Item = Take>) {
            *self.script.lock() = script.into_iter().collect();
        }
    }

    impl Sink for Script {
        fn try_write(&self, bytes: &[IoSlice<'_>]) -> io::Result<usize> {
            let most = match self.script.lock().pop_front() {
                Some(Take::Some(most)) => most.max(1),
                Some(Take::Nothing) => return Err(ErrorKind::WouldBlock.into()),
                Some(Take::Interrupted) => return Err(ErrorKind::Interrupted.into()),
                Some(Take::Breaks) => return Err(ErrorKind::BrokenPipe.into()),
                None => usize::MAX,
            };
            let mut said = self.said.lock();
            let before = said.len();
            said.extend(bytes.iter().flat_map(|slice| slice.iter()).take(most));
            Ok(said.len() - before)
        }
    }

    #[derive(Default)]
    struct Bell(AtomicUsize);

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    impl<S: ?Sized> Outbox<S> {
        /// Bytes that wait for the socket.
        fn queued(&self) -> usize {
            self.state.lock().queued
        }
    }

    fn attend<S: Sink>(outbox: &Outbox<S>) -> Attention {
        outbox.attend(&Context::from_waker(Waker::noop()))
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push(usize),
        Write(usize),
        /// Bytes pushed meanwhile, and of the replies.
        Command(Vec<usize>, usize),
        Drain,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (1..40_usize).prop_map(Step::Push),
            1 => (1..40_usize).prop_map(Step::Write),
            2 => (proptest::collection::vec(1..40_usize, 0..4), 0..40_usize)
                .prop_map(|(pushed, replies)| Step::Command(pushed, replies)),
            2 => Just(Step::Drain),
        ]
    }

    fn take() -> impl Strategy<Value = Take> {
        prop_oneof![
            4 => (1..80_usize).prop_map(Take::Some),
            3 => Just(Take::Nothing),
            1 => Just(Take::Interrupted),
        ]
    }

    /// Frames as they should come out: each ends with an odd byte, so that a torn one is seen.
    #[derive(Default)]
    struct Speech {
        frames: Vec<Vec<u8>>,
        count: u8,
    }

    impl Speech {
        fn make(&mut self, length: usize) -> Bytes {
            self.count = self.count.wrapping_add(2);
            let mut frame = vec![self.count; length];
            frame[length - 1] |= 1;
            frame.into()
        }

        fn say(&mut self, frame: &Bytes) {
            self.frames.push(frame.to_vec());
        }

        fn length(&self) -> usize {
            self.frames.iter().map(Vec::len).sum()
        }
    }

    /// Plays a step and gives how many bytes waited at the most while it was played.
    fn play(outbox: &Outbox<Script>, speech: &mut Speech, step: &Step) -> usize {
        let said = outbox.socket().said().len();
        match step {
            Step::Push(length) => {
                let frame = speech.make(*length);
                outbox.push(&frame);
                speech.say(&frame);
            }
            Step::Write(length) => {
                let frame = speech.make(*length);
                outbox.write(&frame);
                speech.say(&frame);
            }
            Step::Command(pushed, replies) => {
                outbox.hold();
                let frames: Vec<_> = pushed.iter().map(|length| speech.make(*length)).collect();
                for frame in &frames {
                    outbox.push(frame);
                }
                let replies = if *replies > 0 { speech.make(*replies) } else { Bytes::new() };
                outbox.release(&replies);
                if !replies.is_empty() {
                    speech.say(&replies);
                }
                for frame in &frames {
                    speech.say(frame);
                }
            }
            Step::Drain => {
                // Where it is broken, `attend` says so.
                let _ = outbox.drain();
            }
        }
        speech.length() - said
    }

    proptest! {
        #[test]
        fn everything_is_said_once_and_in_order_replies_first(
            steps in proptest::collection::vec(step(), 1..60),
            script in proptest::collection::vec(take(), 0..120),
        ) {
            let outbox = Outbox::new(Script::new(script), usize::MAX);
            let mut speech = Speech::default();
            for step in &steps {
                play(&outbox, &mut speech, step);
                prop_assert_eq!(outbox.queued(), speech.length() - outbox.socket().said().len());
                prop_assert_eq!(attend(&outbox).waiting, outbox.queued() > 0);
            }
            outbox.socket().then([]);
            prop_assert!(outbox.drain().unwrap());
            prop_assert_eq!(outbox.socket().said(), speech.frames.concat());
            prop_assert!(attend(&outbox).close.is_none());
        }

        #[test]
        fn who_exceeds_the_limit_hears_whole_frames_and_then_the_last_word(
            steps in proptest::collection::vec(step(), 1..60),
            script in proptest::collection::vec(take(), 0..120),
            limit in 1..2000_usize,
        ) {
            let outbox = Outbox::new(Script::new(script), limit);
            let mut speech = Speech::default();
            let mut overflowed = false;
            for step in &steps {
                let most = play(&outbox, &mut speech, step);
                if attend(&outbox).close.is_some() {
                    let most = most + speech.frames.len() * OVERHEAD;
                    prop_assert!(most > limit, "closed with {} of {} waiting", most, limit);
                    overflowed = true;
                    break;
                }
                prop_assert!(outbox.queued() <= limit);
            }
            if overflowed {
                prop_assert_eq!(attend(&outbox).close, Some(Disconnect::SLOW));
                outbox.push(&Bytes::from_static(b"too late"));
                outbox.finish(b"bye".to_vec());
                outbox.push(&Bytes::from_static(b"too late"));
                outbox.socket().then([]);
                prop_assert!(outbox.drain().unwrap());
                let said = outbox.socket().said();
                let whole = said.strip_suffix(b"bye").unwrap();
                let mut frames = speech.frames.iter();
                let mut length = 0;
                while length < whole.len() {
                    length += frames.next().unwrap().len();
                }
                prop_assert_eq!(length, whole.len(), "a frame is torn");
                prop_assert_eq!(whole, &speech.frames.concat()[..length]);
            }
        }

        #[test]
        fn a_broken_socket_is_told_and_not_written_again(
            steps in proptest::collection::vec(step(), 1..30),
            script in proptest::collection::vec(take(), 0..20),
        ) {
            let outbox = Outbox::new(Script::new(script.into_iter().chain([Take::Breaks])), usize::MAX);
            let mut speech = Speech::default();
            for step in &steps {
                play(&outbox, &mut speech, step);
                if attend(&outbox).broken {
                    let said = outbox.socket().said();
                    outbox.push(&Bytes::from_static(b"x"));
                    outbox.finish(b"bye".to_vec());
                    let _ = outbox.drain();
                    prop_assert_eq!(outbox.queued(), 0);
                    prop_assert!(!attend(&outbox).waiting);
                    prop_assert_eq!(outbox.socket().said(), said);
                    break;
                }
            }
            let said = outbox.socket().said();
            prop_assert!(speech.frames.concat().starts_with(&said));
        }
    }

    /// Pongs of two bytes, for instance, cost many times that.
    #[test]
    fn many_small_frames_are_counted_for_what_they_cost() {
        const LIMIT: usize = 1 << 20;
        let outbox = Outbox::new(Script::new([Take::Nothing]), LIMIT);
        let mut count = 0;
        while attend(&outbox).close.is_none() {
            outbox.write(&[0x8A, 0]);
            count += 1;
        }
        assert!(count * size_of::<Bytes>() <= LIMIT, "{count} frames were kept");
    }

    #[test]
    fn what_is_refused_leaves_what_waits_as_it_is() {
        let outbox = Outbox::new(Script::new([Take::Some(3)]), 3 * OVERHEAD + 20);
        let frame = |letter: u8| Bytes::from(vec![letter; 10]);
        assert!(outbox.offer(&frame(b'a')), "it began, and is finished");
        assert!(outbox.offer(&frame(b'b')));
        assert!(!outbox.offer(&frame(b'c')) && !outbox.offer(&frame(b'd')));
        assert!(attend(&outbox).close.is_none());
        assert!(outbox.drain().unwrap());
        assert!(outbox.offer(&frame(b'e')));
        assert_eq!(outbox.socket().said(), b"aaaaaaaaaabbbbbbbbbbeeeeeeeeee");
    }

    #[test]
    fn the_newest_of_a_room_comes_where_it_was_said_and_after_what_began() {
        let outbox = Outbox::new(Script::new([Take::Some(2), Take::Nothing]), 1000);
        let say = |tag: u32, text: &'static str| {
            let bytes = Bytes::from_static(text.as_bytes());
            outbox.push_newest(tag, &bytes, &bytes)
        };
        assert!(!say(1, "one "), "it began");
        assert!(!say(1, "two ") && !say(2, "other "));
        outbox.write(b"reply ");
        assert!(say(1, "three "), "two gave way");
        outbox.hold();
        assert!(say(2, "another "), "from before the hold to after it");
        assert!(say(1, "four "));
        outbox.release(b"held ");
        let all = Bytes::from_static(b"older newest ");
        assert!(outbox.push_newest(3, &all, &all.slice(6..)), "the older one is left out");
        assert!(outbox.drain().unwrap());
        assert_eq!(outbox.socket().said(), b"one reply held another four newest ");
        assert!(!outbox.push_newest(3, &all, &all.slice(6..)));
        assert!(outbox.socket().said().ends_with(b"older newest "), "while nothing waits all of it is said");
        assert_eq!(outbox.queued(), 0);
    }

    #[test]
    fn closing_lets_what_waits_be_said_and_the_first_reason_stands() {
        let outbox = Outbox::new(Script::new([Take::Nothing]), 100);
        outbox.push(&Bytes::from_static(b"before "));
        outbox.close(Disconnect::SHUTDOWN);
        outbox.close(Disconnect::EXPIRED);
        assert_eq!(attend(&outbox).close, Some(Disconnect::SHUTDOWN));
        outbox.finish(b"bye".to_vec());
        outbox.finish(b"twice".to_vec());
        assert!(attend(&outbox).close.is_none(), "it is not asked to end twice");
        outbox.drain().unwrap();
        assert_eq!(outbox.socket().said(), b"before bye");
    }

    #[test]
    fn aborting_says_nothing_more() {
        let outbox = Outbox::new(Script::new([Take::Some(3), Take::Nothing]), 100);
        outbox.push(&Bytes::from_static(b"before"));
        outbox.abort();
        outbox.finish(b"bye".to_vec());
        assert!(outbox.drain().unwrap());
        assert_eq!(outbox.socket().said(), b"bef");
        assert!(attend(&outbox).broken);
    }

    #[test]
    fn the_task_is_woken_once_for_what_waits_and_not_for_what_is_written() {
        let bell = Arc::new(Bell::default());
        let waker = Waker::from(bell.clone());
        let rings = || bell.0.load(Ordering::SeqCst);
        let outbox = Outbox::new(Script::new([]), 1000);
        outbox.attend(&Context::from_waker(&waker));
        outbox.push(&Bytes::from_static(b"written"));
        assert_eq!(rings(), 0, "the socket took it");
        outbox.socket().then([Take::Nothing]);
        outbox.push(&Bytes::from_static(b"waits"));
        outbox.push(&Bytes::from_static(b"waits too"));
        assert_eq!(rings(), 1);
        outbox.attend(&Context::from_waker(&waker));
        outbox.drain().unwrap();
        outbox.hold();
        outbox.push(&Bytes::from_static(b"held"));
        assert_eq!(rings(), 1, "who holds writes by itself");
        outbox.socket().then([Take::Some(1), Take::Nothing]);
        outbox.release(b"reply");
        assert_eq!(rings(), 2, "the socket did not take all");
        outbox.attend(&Context::from_waker(&waker));
        outbox.close(Disconnect::SHUTDOWN);
        assert_eq!(rings(), 3);
    }

    /// A room that speaks the moment the seat is taken must not be heard before the reply that tells of the seat.
    #[test]
    fn nothing_comes_between_the_seat_and_its_reply() {
        const ROUNDS: usize = 20_000;
        let outbox = Outbox::new(Script::default(), usize::MAX);
        let (seated, spoken) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            scope.spawn(|| {
                for round in 1..=ROUNDS {
                    while seated.load(Ordering::Acquire) < round {
                        std::hint::spin_loop();
                    }
                    outbox.push(&Bytes::from_static(b"p"));
                    spoken.store(round, Ordering::Release);
                }
            });
            for round in 1..=ROUNDS {
                outbox.hold();
                seated.store(round, Ordering::Release);
                outbox.release(b"r");
                while spoken.load(Ordering::Acquire) < round {
                    thread::yield_now();
                }
            }
        });
        outbox.drain().unwrap();
        let said = outbox.socket().said();
        let early = said.chunks(2).position(|pair| pair != b"rp");
        assert_eq!((said.len(), early), (2 * ROUNDS, None), "a publication before the reply, in that round");
    }

    /// Several rooms push, the session answers commands and the task drains a socket that takes a little at a time.
    #[test]
    fn threads_that_push_keep_their_order_beside_replies_and_draining() {
        const PUSHERS: u8 = 3;
        const PUSHES: u32 = 4_000;
        let script = (0..200_000).map(|turn| if turn % 3 == 0 { Take::Nothing } else { Take::Some(turn % 11) });
        let outbox = Outbox::new(Script::new(script), usize::MAX);
        let start = Barrier::new(usize::from(PUSHERS) + 1);
        let frame = |from: u8, number: u32| [&[from][..], &number.to_be_bytes()].concat();
        thread::scope(|scope| {
            for from in 0..PUSHERS {
                let (outbox, start) = (&outbox, &start);
                scope.spawn(move || {
                    start.wait();
                    for number in 0..PUSHES {
                        outbox.push(&Bytes::from(frame(from, number)));
                    }
                });
            }
            start.wait();
            for number in 0..PUSHES {
                outbox.hold();
                outbox.release(&frame(PUSHERS, number));
                outbox.drain().unwrap();
            }
        });
        outbox.socket().then([]);
        assert!(outbox.drain().unwrap());
        let mut next = [0; PUSHERS as usize + 1];
        for said in outbox.socket().said().chunks(5) {
            let place = usize::from(said[0]);
            assert_eq!(said[1..], u32::to_be_bytes(next[place]), "of {place}");
            next[place] += 1;
        }
        assert_eq!(next, [PUSHES; PUSHERS as usize + 1]);
    }
}
