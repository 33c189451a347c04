//! Polls a future again where it woke itself, instead of having its task scheduled once more: a task that is woken while it
//! runs is one that yields, for which the runtime wakes another thread to help, each time in vain. Knows nothing of Redis.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use futures_util::task::AtomicWaker;

/// Nobody has called since the last poll.
const SILENT: u8 = 0;
/// The future is being polled, and nobody has called since that began.
const POLLED: u8 = 1;
/// Somebody has called.
const RUNG: u8 = 2;

/// Polls in a row at most, so that what never stops calling leaves the thread to others.
const ROUNDS: usize = 8;

/// Takes the calls that wake a future, and passes on those that come while it is not polled.
#[derive(Default)]
pub(super) struct Bell {
    state: AtomicU8,
    task: AtomicWaker,
}

impl Bell {
    /// Waits for a future. One at a time: the bell knows the task of the last one only.
    pub(super) async fn attend<F: Future>(self: &Arc<Self>, future: F) -> F::Output {
        let mut future = pin!(future);
        let waker = Waker::from(self.clone());
        poll_fn(|task| self.poll(task, &waker, || future.as_mut().poll(&mut Context::from_waker(&waker)))).await
    }

    fn poll<T>(&self, task: &Context<'_>, waker: &Waker, mut poll: impl FnMut() -> Poll<T>) -> Poll<T> {
        self.task.register(task.waker());
        for _ in 0..ROUNDS {
            // Every change reads the state as well. A call that is only overwritten is not ordered before what follows, and
            // where memory is weakly ordered the next poll might not see what was done before the call.
            self.state.swap(POLLED, Ordering::SeqCst);
            if let Poll::Ready(output) = poll() {
                self.state.swap(SILENT, Ordering::SeqCst);
                return Poll::Ready(output);
            }
            let silent = self.state.compare_exchange(POLLED, SILENT, Ordering::SeqCst, Ordering::SeqCst);
            if silent.is_ok() {
                return Poll::Pending;
            }
        }
        self.state.swap(SILENT, Ordering::SeqCst);
        waker.wake_by_ref();
        Poll::Pending
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.swap(RUNG, Ordering::SeqCst) == SILENT {
            self.task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::atomic::AtomicUsize, thread, time::Duration};

    use tokio::time::sleep;

    use super::*;

    /// How long a call may be on its way on a machine that is busy.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// Counts how often a task would have been scheduled.
    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Is ready after so many polls, each of which calls for the next.
    async fn calling(polls: usize) -> usize {
        let mut polled = 0;
        poll_fn(|task| {
            polled += 1;
            if polled == polls {
                return Poll::Ready(polled);
            }
            task.waker().wake_by_ref();
            Poll::Pending
        })
        .await
    }

    #[test]
    fn what_calls_itself_is_polled_again_without_its_task() {
        let (task, bell) = (Arc::new(Task::default()), Arc::new(Bell::default()));
        let waker = Waker::from(task.clone());
        let polled = pin!(bell.attend(calling(3))).poll(&mut Context::from_waker(&waker));
        assert_eq!(polled, Poll::Ready(3));
        assert_eq!(task.0.load(Ordering::SeqCst), 0, "the task is not scheduled");
    }

    #[test]
    fn what_never_stops_calling_leaves_the_thread_to_others() {
        let (task, bell) = (Arc::new(Task::default()), Arc::new(Bell::default()));
        let waker = Waker::from(task.clone());
        let mut future = pin!(bell.attend(calling(ROUNDS + 1)));
        assert_eq!(future.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Pending);
        assert_eq!(task.0.load(Ordering::SeqCst), 1, "the task is scheduled to go on");
        assert_eq!(future.poll(&mut Context::from_waker(&waker)), Poll::Ready(ROUNDS + 1));
    }

    /// Each value is sent from another thread just as the one before is taken, so that calls fall into polls and between.
    #[tokio::test]
    async fn no_call_from_another_thread_is_lost() {
        let bell = Arc::new(Bell::default());
        for _ in 0..2000 {
            let (sender, receiver) = tokio::sync::oneshot::channel();
            let other = thread::spawn(move || sender.send(()));
            // The time is looked at first: whoever is woken when it is over would find what the lost call was about.
            tokio::select! {
                biased;
                () = sleep(PATIENCE) => panic!("a call was lost"),
                heard = bell.attend(receiver) => heard.expect("it is sent"),
            }
            other.join().expect("it ends").expect("it is taken");
        }
    }
}
