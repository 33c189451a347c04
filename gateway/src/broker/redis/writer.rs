//! The task that speaks to one server: it takes calls from their queue and writes them in batches over one pipelined
//! connection, which it makes again when it breaks. What belongs elsewhere goes back into the queue before all that comes
//! after it. Knows no rooms, hears nothing, and leaves to a [`Purpose`] what is said.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::Notify,
    time::{sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    BrokerError,
    link::{Link, Lost},
    origin::Origin,
    outage::Outage,
    pace::Pace,
    queue::{Call, MAX_BATCH, Next, Outcome, Queue},
    redirect::{Redirect, Verdict},
    routes::{Group, LinkId},
    script,
};
use crate::moments;

/// How long the stop waits for what is queued to be answered.
const FLUSH: Duration = Duration::from_secs(1);

/// The least time between two looks for those who have waited too long.
const EXPIRY: Duration = Duration::from_millis(5);

/// What a writing connection is for.
pub(super) trait Purpose: Send + Sync + 'static {
    /// What is asked.
    type Request: Send + 'static;
    /// What is answered.
    type Reply: Send + 'static;
    /// A word for the log.
    const WORD: &'static str;

    /// How long after a batch the next one is written at the latest where calls come on and on; none by default.
    fn gathering_pause(&self) -> Duration {
        Duration::ZERO
    }

    /// Writes the calls of a batch, those of a group together, and gives what became of each, in their order. Whatever
    /// happens, none of what took effect is written again, and nothing is overtaken by what follows in its group.
    fn exchange(&self, link: &mut Link, batch: &mut [Call<Self::Request, Self::Reply>]) -> impl Replies<Self::Reply>;

    /// Counts a call that was answered after so long.
    fn note(&self, request: &Self::Request, took: Duration, ok: bool);
}

/// A call and what became of it.
type Judged<Q, A> = (Call<Q, A>, Verdict<A>);

/// What becomes of a batch.
pub(super) trait Replies<A>: Future<Output = Result<Vec<Verdict<A>>, Lost>> + Send {}
impl<A, F: Future<Output = Result<Vec<Verdict<A>>, Lost>> + Send> Replies<A> for F {}

/// Takes what the server of a link says of where things are.
pub(super) trait Guide: Send + Sync + 'static {
    /// Follows it: where what belongs to a group has to go. None where a server has no say in that.
    fn follow(&self, group: Group, redirect: &Redirect) -> Option<Next>;
}

/// The task that writes.
pub(super) struct Writer<P: Purpose> {
    /// What is to be written.
    pub(super) queue: Arc<Queue<P::Request, P::Reply>>,
    /// Which part of it.
    pub(super) link: LinkId,
    /// Where the server is.
    pub(super) origin: Origin,
    /// The longest wait for an answer, or for a connection.
    pub(super) io_timeout: Duration,
    /// What is said.
    pub(super) purpose: P,
    /// Who is told where things are.
    pub(super) guide: Arc<dyn Guide>,
}

impl<P: Purpose> Writer<P> {
    /// Writes until the stop; what is queued then has a moment left to be answered.
    pub(super) async fn run(self, shutdown: CancellationToken) {
        let stop = async {
            shutdown.cancelled().await;
            let _ = timeout(FLUSH, self.queue.finish(self.link)).await;
        };
        let filled = self.queue.open(self.link);
        tokio::select! {
            () = self.work(&filled) => {}
            () = stop => {}
        }
        let unwritten = self.queue.leave(self.link);
        self.fail(unwritten, &BrokerError::Cancelled);
    }

    async fn work(&self, filled: &Notify) {
        let mut outage = Outage::new(P::WORD, self.origin.to_string());
        let mut pause = Duration::ZERO;
        loop {
            let link = tokio::select! {
                link = self.connect(&mut outage, pause) => link,
                never = self.expire() => match never {},
            };
            let lost = self.serve(link, filled).await;
            self.queue.answered(self.link);
            pause = outage.failed(&lost);
        }
    }

    /// Answers those who have waited too long for a connection, for as long as there is none.
    async fn expire(&self) -> Infallible {
        loop {
            let now = Instant::now();
            let expired = self.queue.take_expired(self.link, now, self.io_timeout);
            self.fail(expired, &BrokerError::Timeout(self.io_timeout));
            let next = self.queue.oldest(self.link).unwrap_or(now) + self.io_timeout;
            sleep_until(next.max(now + EXPIRY).into()).await;
        }
    }

    async fn connect(&self, outage: &mut Outage, mut pause: Duration) -> Link {
        loop {
            sleep(pause).await;
            match self.open().await {
                Ok(link) => {
                    outage.healed();
                    return link;
                }
                Err(lost) => pause = outage.failed(&lost),
            }
        }
    }

    async fn open(&self) -> Result<Link, Lost> {
        let mut link = Link::open(&self.origin, self.io_timeout).await?;
        script::load(&mut link).await?;
        Ok(link)
    }

    async fn serve(&self, mut link: Link, filled: &Notify) -> Lost {
        let mut batch = Vec::with_capacity(MAX_BATCH);
        let mut pace = Pace::new(self.purpose.gathering_pause());
        loop {
            if let Err(lost) = self.gather(&mut link, &mut pace, filled).await {
                return lost;
            }
            self.queue.take(self.link, Instant::now(), &mut batch);
            let outcome = if batch.is_empty() {
                pace.give_up();
                self.idle(&mut link, filled).await
            } else {
                let now = Instant::now();
                pace.taken(now, batch.len(), batch.iter().map(|call| call.made).max().unwrap_or(now));
                self.write(&mut link, &mut batch).await
            };
            if let Err(lost) = outcome {
                return lost;
            }
        }
    }

    /// Lets calls gather, where some wait and more are likely to come. If the connection ends meanwhile they wait for the
    /// next one.
    async fn gather(&self, link: &mut Link, pace: &mut Pace, filled: &Notify) -> Result<(), Lost> {
        if !self.queue.gathers(self.link, pace.enough()) {
            return Ok(());
        }
        let Some(until) = pace.pause(Instant::now()) else { return Ok(()) };
        tokio::select! {
            biased;
            lost = link.ended() => Err(lost),
            () = self.gathered(filled) => Ok(()),
            () = sleep_until(until.into()) => Ok(()),
        }
    }

    /// Waits until enough has gathered.
    async fn gathered(&self, filled: &Notify) {
        loop {
            filled.notified().await;
            if !self.queue.is_gathering(self.link) {
                return;
            }
        }
    }

    /// Waits for something to write, and looks after the connection meanwhile.
    async fn idle(&self, link: &mut Link, filled: &Notify) -> Result<(), Lost> {
        let quiet = Instant::from(moments::within(Instant::now().into(), self.io_timeout / 2));
        let paused = self.queue.paused_until(self.link).filter(|until| *until < quiet);
        tokio::select! {
            biased;
            () = filled.notified() => Ok(()),
            lost = link.ended() => Err(lost),
            () = sleep_until(paused.unwrap_or(quiet).into()) => {
                if paused.is_some() { Ok(()) } else { link.ping().await }
            }
        }
    }

    /// Writes a batch and answers each call of it that belongs here.
    async fn write(&self, link: &mut Link, batch: &mut Vec<Call<P::Request, P::Reply>>) -> Result<(), Lost> {
        let exchanged = match self.purpose.exchange(link, batch).await {
            Ok(verdicts) if verdicts.len() != batch.len() => Err(Lost::Closed),
            exchanged => exchanged,
        };
        let (verdicts, outcome) = match exchanged {
            Ok(verdicts) => {
                let demoted = link.is_followed() && verdicts.iter().any(is_read_only);
                (verdicts, if demoted { Err(Lost::Demoted) } else { Ok(()) })
            }
            Err(lost) => {
                let error = self.explain(&lost);
                (batch.iter().map(|_| Verdict::Done(Err(error.clone()))).collect(), Err(lost))
            }
        };
        if verdicts.iter().all(|verdict| matches!(verdict, Verdict::Done(_))) {
            self.settle_done(batch.drain(..).zip(verdicts));
        } else {
            self.settle(batch.drain(..).zip(verdicts).collect());
        }
        self.queue.answered(self.link);
        outcome
    }

    /// Answers calls none of which belongs elsewhere, which is what nearly every batch comes to.
    fn settle_done(&self, batch: impl Iterator<Item = Judged<P::Request, P::Reply>>) {
        let now = Instant::now();
        let mut last = None;
        for (call, verdict) in batch {
            let group = Some(call.group);
            if let Some(settled) = last.filter(|_| last != group) {
                self.queue.settle(settled, Vec::new(), Next::Owner);
            }
            last = group;
            self.answer(call, now, verdict.outcome());
        }
        if let Some(settled) = last {
            self.queue.settle(settled, Vec::new(), Next::Owner);
        }
    }

    /// Answers calls, and puts those back that belong elsewhere, group by group.
    fn settle(&self, batch: Vec<Judged<P::Request, P::Reply>>) {
        let now = Instant::now();
        let mut batch = batch.into_iter().peekable();
        while let Some(first) = batch.next() {
            let group = first.0.group;
            let mut calls = vec![first];
            calls.extend(std::iter::from_fn(|| batch.next_if(|(call, _)| call.group == group)));
            self.settle_group(group, calls, now);
        }
    }

    /// What comes before a call that took effect must not come after it, so only the last calls of a group go elsewhere.
    fn settle_group(&self, group: Group, mut calls: Vec<Judged<P::Request, P::Reply>>, now: Instant) {
        let done =
            calls.iter().rposition(|(_, verdict)| matches!(verdict, Verdict::Done(_))).map_or(0, |last| last + 1);
        let mut elsewhere = calls.split_off(done);
        let redirect = elsewhere.first().and_then(|(_, verdict)| {
            if let Verdict::Elsewhere(redirect, _) = verdict { self.guide.follow(group, redirect) } else { None }
        });
        if redirect.is_none() {
            calls.append(&mut elsewhere);
        }
        let mut undone = Vec::with_capacity(elsewhere.len());
        for (call, verdict) in calls {
            self.answer(call, now, verdict.outcome());
        }
        for (call, _) in elsewhere {
            if call.made + 2 * self.io_timeout <= now {
                self.answer(call, now, Err(BrokerError::Timeout(self.io_timeout)));
            } else {
                undone.push(call);
            }
        }
        self.queue.settle(group, undone, redirect.unwrap_or(Next::Owner));
    }

    fn explain(&self, lost: &Lost) -> BrokerError {
        match lost {
            Lost::Redis(error) if error.is_timeout() => BrokerError::Timeout(self.io_timeout),
            Lost::Silent(patience) => BrokerError::Timeout(*patience),
            _ => BrokerError::Disconnected,
        }
    }

    fn answer(&self, call: Call<P::Request, P::Reply>, now: Instant, outcome: Outcome<P::Reply>) {
        self.purpose.note(&call.request, now - call.made, outcome.is_ok());
        // The caller may have gone; what it asked for stands all the same.
        let _ = call.answer.send(outcome);
    }

    fn fail(&self, calls: impl IntoIterator<Item = Call<P::Request, P::Reply>>, error: &BrokerError) {
        let now = Instant::now();
        for call in calls {
            self.answer(call, now, Err(error.clone()));
        }
    }
}

/// Whether a call was refused because the server is no master any more.
fn is_read_only<A>(verdict: &Verdict<A>) -> bool {
    matches!(verdict, Verdict::Done(Err(BrokerError::Refused(reason))) if reason.starts_with("READONLY"))
}
