//! The hot path: what waits in a room's inbox, joined, to every outbox. Whoever finds the room idle takes its turn, and only
//! the holder of the turn delivers, so that order stands and batches grow by themselves under load.

use std::{sync::Arc, time::Duration};

use roomcast_shared::publication::Publication;

use super::{
    Delivered, Jobs,
    frame::Joined,
    room::{Put, Room, Seat},
};

/// Up to this many seats the caller delivers itself: that costs less than handing the work to a task.
const SEATS_SERVED_BY_CALLER: usize = 4;

/// How long a job waits after a turn that carried several publications, so that the next one gathers more: it saves writes
/// where there are many, and a quiet room never waits.
const GATHERING_PAUSE: Duration = Duration::from_millis(1);

/// Puts a publication into the room's inbox and sees to it that somebody delivers it.
pub(super) fn deliver(room: &Arc<Room>, publication: Publication, jobs: &Arc<Jobs>) -> Delivered {
    let (put, full) = room.put(publication, jobs.inbox_limit);
    if let Put::YourTurn = put {
        take_turn(room, jobs);
    }
    if !full {
        return Delivered::Taken;
    }
    Delivered::Full(room.space(jobs.inbox_limit))
}

fn take_turn(room: &Arc<Room>, jobs: &Arc<Jobs>) {
    if room.len() > SEATS_SERVED_BY_CALLER {
        jobs.tracker.spawn(job(room.clone(), jobs.clone()));
        return;
    }
    // One turn is the caller's; if others add to it meanwhile, a job goes on, so that no caller is kept for long.
    if let Some(batch) = room.take_batch(jobs.inbox_limit) {
        let joined = Joined::new(room.name().clone(), batch);
        // Looked at after the batch was taken: whoever sat down before one of its publications was made has to hear it.
        room.snapshot().iter().for_each(|seats| hand_out(&joined, seats, jobs));
    }
    if let Some(batch) = room.take_batch(jobs.inbox_limit) {
        jobs.tracker.spawn(job_from(batch, room.clone(), jobs.clone()));
    }
}

async fn job(room: Arc<Room>, jobs: Arc<Jobs>) {
    if let Some(batch) = room.take_batch(jobs.inbox_limit) {
        job_from(batch, room, jobs).await;
    }
}

async fn job_from(mut batch: Vec<Publication>, room: Arc<Room>, jobs: Arc<Jobs>) {
    loop {
        let several = batch.len() > 1;
        turn(batch, &room, &jobs).await;
        if several {
            tokio::time::sleep(GATHERING_PAUSE).await;
        } else {
            tokio::task::yield_now().await;
        }
        match room.take_batch(jobs.inbox_limit) {
            Some(next) => batch = next,
            None => return,
        }
    }
}

/// Delivers one batch. Further segments of a large room are walked through by tasks of their own, and the turn ends with the
/// last of them.
async fn turn(batch: Vec<Publication>, room: &Arc<Room>, jobs: &Arc<Jobs>) {
    let joined = Arc::new(Joined::new(room.name().clone(), batch));
    let segments = room.snapshot();
    if let [seats] = &segments[..] {
        return hand_out(&joined, seats, jobs);
    }
    let others: Vec<_> = segments
        .into_iter()
        .map(|seats| {
            let (joined, jobs) = (joined.clone(), jobs.clone());
            jobs.clone().tracker.spawn(async move { hand_out(&joined, &seats, &jobs) })
        })
        .collect();
    for other in others {
        let _ = other.await;
    }
}

/// The loop: a reference to the joined bytes into each outbox, and nothing else.
fn hand_out(joined: &Joined, seats: &[Seat], jobs: &Jobs) {
    let mut bytes = 0;
    for seat in seats {
        let buffer = joined.buffer(seat.wire);
        seat.outbox.push(&buffer.bytes);
        if let Some(disconnect) = &buffer.then_close {
            seat.outbox.close(disconnect.clone());
        }
        bytes += buffer.bytes.len();
    }
    jobs.metrics.deliveries.inc_by((seats.len() * joined.len()) as u64);
    jobs.metrics.delivered_bytes.inc_by(bytes as u64);
}
