//! One worker process: thousands of sockets on one thread, one epoll and one read buffer, so that a delivery costs one
//! read and one search. It follows the orders on its standard input and knows nothing of other workers, of the server's
//! processes, or of what a report looks like.

mod books;
mod ledger;
mod link;
mod publisher;
mod returns;
mod session;
mod stage;
mod unrest;

use std::{num::NonZeroU64, time::Duration};

use rustix::{
    buffer::spare_capacity,
    event::{
        Timespec,
        epoll::{self, EventFlags},
    },
    fd::OwnedFd,
    io::Errno,
};

pub(crate) use self::link::Link;
use self::{
    books::{Books, Ended},
    publisher::Publisher,
    returns::Away,
    session::{Kind, Session},
    stage::Stage,
    unrest::Unrest,
};
use crate::{
    client::{
        Client, End, Manner, Reach,
        frame::{self, Opcode},
        handshake, protocol,
        token::Signer,
    },
    clock,
    control::{Note, Order},
    payload::Marker,
    plan::{Plan, Role},
};

/// Bytes of the read buffer all clients share; also the largest frame.
const BUFFER: usize = 256 * 1024;
/// Events taken at once.
const EVENTS: usize = 1024;
/// Events handled before the schedule is looked at again, so that deliveries do not delay what has to be sent.
const EVENTS_BETWEEN: usize = 32;
/// Time between two progress notes.
const PROGRESS: u64 = 200 * clock::MILLISECOND;
/// Progress notes from one that tells latencies to the next that does.
const NOTES_TO_LATENCY: u32 = 5;
/// Bytes the system keeps for a slow client: little, so that what it does not read stays with the server.
const SLOW_BUFFER: usize = 4096;
/// Mark of the orders among the events; connections are marked with their index.
const ORDERS: u64 = u64::MAX;

/// A socket and what it means.
struct Connection {
    /// `None` once it is over.
    client: Option<Client>,
    session: Session,
    /// Sent once the upgrade is granted.
    opening: Vec<u8>,
}

/// The worker.
struct Worker {
    plan: Plan,
    index: u32,
    link: Link,
    epoll: OwnedFd,
    buffer: Vec<u8>,
    signer: Signer,
    marker: Marker,
    connections: Vec<Connection>,
    books: Books,
    /// Connections whose sockets may hold more.
    unread: Vec<usize>,
    stage: Stage,
    away: Away,
    unrest: Unrest,
    next_progress: u64,
    notes: u32,
}

/// Runs a worker until its standard input ends.
///
/// # Errors
/// The coordinator cannot be understood or heard, or the system refuses what the loop needs.
pub fn run() -> anyhow::Result<()> {
    let mut link = Link::standard()?;
    let Some(Order::Prepare { plan, worker }) = link.wait()? else { return Ok(()) };
    let mut worker = Worker::new(*plan, worker, link)?;
    worker.serve().inspect_err(|error| {
        // Where this cannot be told either, the coordinator is gone and nobody is left to hear it.
        let _ = worker.link.tell(&Note::Failed { reason: format!("{error:#}") });
    })
}

impl Worker {
    fn new(plan: Plan, index: u32, link: Link) -> anyhow::Result<Self> {
        // Sleeps end when they are meant to, not up to 50 µs later; epoll keeps nanoseconds (rustix `linux_5_11`).
        rustix::thread::set_current_timer_slack(NonZeroU64::new(1))?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &link, epoll::EventData::new_u64(ORDERS), EventFlags::IN)?;
        Ok(Self {
            index,
            epoll,
            link,
            buffer: vec![0; BUFFER],
            signer: Signer::new(plan.secret.as_deref()),
            marker: Marker::new(plan.run),
            connections: Vec::new(),
            books: Books::new(&plan),
            unread: Vec::new(),
            stage: Stage::Waiting,
            away: Away::default(),
            unrest: Unrest::default(),
            next_progress: 0,
            notes: 0,
            plan,
        })
    }

    fn serve(&mut self) -> anyhow::Result<()> {
        self.link.tell(&Note::Ready { port: 0 })?;
        let mut events = Vec::with_capacity(EVENTS);
        loop {
            self.wait(&mut events)?;
            for index in std::mem::take(&mut self.unread) {
                self.read(index);
            }
            for (nth, event) in events.iter().enumerate() {
                if nth % EVENTS_BETWEEN == EVENTS_BETWEEN - 1 {
                    self.advance()?;
                }
                match event.data.u64() {
                    ORDERS if self.take_orders()? => {}
                    ORDERS => {
                        self.say_goodbye();
                        return Ok(());
                    }
                    index => self.ready(usize::try_from(index)?, event.flags),
                }
            }
            self.advance()?;
            let now = clock::now();
            if now >= self.next_progress {
                self.tell_progress(now)?;
            }
        }
    }

    /// Waits for sockets, orders, or the next moment that something is due.
    fn wait(&self, events: &mut Vec<epoll::Event>) -> anyhow::Result<()> {
        let until = if self.unread.is_empty() { self.next_moment() } else { 0 };
        let timeout = Duration::from_nanos(until.saturating_sub(clock::now()));
        let timeout = Timespec::try_from(timeout).expect("at most the time to the next progress note");
        events.clear();
        match epoll::wait(&self.epoll, spare_capacity(events), Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes what the coordinator says; `false` once it hangs up.
    fn take_orders(&mut self) -> anyhow::Result<bool> {
        let listening = self.link.read()?;
        while let Some(order) = self.link.next() {
            self.obey(order);
        }
        Ok(listening)
    }

    fn tell_progress(&mut self, now: u64) -> anyhow::Result<()> {
        self.next_progress = now + PROGRESS;
        self.notes += 1;
        self.books.progress.delivered = self.books.ledger.tally().delivered;
        let latency = self.notes.is_multiple_of(NOTES_TO_LATENCY).then(|| self.books.ledger.new_latency());
        self.link.tell(&Note::Progress { sums: self.books.progress, latency })
    }

    /// Opens this worker's next connection, which was to be opened at `intended`.
    fn open(&mut self, intended: u64) -> anyhow::Result<()> {
        let (plan, index) = (&self.plan, self.connections.len());
        let number = self.number(index);
        let heard = plan.heard_by(number);
        let replies = 1 + heard.count;
        let (publisher, is_client) = match plan.role_of(number) {
            Role::Publisher(publisher) => (Some(Box::new(Publisher::new(plan, publisher, replies + 1))), false),
            Role::Client(_) => (None, true),
        };
        let kind = Kind {
            api: plan.api.is_some() && !is_client,
            slow: is_client && plan.turmoil.is_slow(number),
            recovers: is_client && plan.wishes.recover,
        };
        let seat = self.books.ledger.seat(heard);
        let session = Session::new(kind, seat, intended, replies, publisher);
        self.connections.push(Connection { client: None, session, opening: Vec::new() });
        if kind.slow {
            self.books.slow.clients += 1;
            self.unrest.is_slow(index);
        }
        self.dial(index)
    }

    /// Connects the socket of a connection.
    fn dial(&mut self, index: usize) -> anyhow::Result<()> {
        let (plan, number) = (&self.plan, self.number(index));
        let session = &self.connections[index].session;
        let (kind, target) = (session.kind(), plan.target_of(number, session.detour));
        let heard = plan.heard_by(number);
        let names: Vec<String> = (0..heard.count).map(|nth| plan.room_name(heard.nth(nth.into()))).collect();
        let receive_buffer = kind.slow.then_some(SLOW_BUFFER);
        let manner = Manner { source: plan.source_of(number), api: kind.api, receive_buffer };
        let (mut request, mut opening) = (Vec::new(), Vec::new());
        if !kind.api {
            let token = self.signer.token(&format!("load-{number}"))?;
            request = handshake::request(target, plan.spelling);
            opening = protocol::opening(plan.spelling, token, &names, plan.wishes, session.positions());
        }
        match Client::connect(target.address, manner, request) {
            Ok(client) => {
                let interest = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
                epoll::add(&self.epoll, client.stream(), epoll::EventData::new_u64(index as u64), interest)?;
                self.connections[index].client = Some(client);
                self.connections[index].opening = opening;
            }
            Err(error) => self.end(index, error.into()),
        }
        Ok(())
    }

    /// The number of a connection of this worker among all.
    fn number(&self, index: usize) -> u32 {
        self.index + u32::try_from(index).expect("connections are counted in 32 bits") * self.plan.workers
    }

    /// A socket can be written or read, or is gone.
    fn ready(&mut self, index: usize, flags: EventFlags) {
        let gone = flags.intersects(EventFlags::HUP | EventFlags::RDHUP | EventFlags::ERR);
        if flags.contains(EventFlags::OUT) && !gone {
            self.writable(index);
        }
        let Connection { client, session, .. } = &mut self.connections[index];
        if let Some(client) = client.as_mut().filter(|_| gone) {
            client.hung_up();
        }
        let patient = session.kind().slow && session.is_joined() && self.unrest.holds_back();
        if gone || (flags.contains(EventFlags::IN) && !patient) {
            self.read(index);
        }
    }

    fn writable(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        // Who speaks to the API has nothing to wait for but the connection itself.
        if connection.session.kind().api && !connection.session.is_joined() {
            connection.session.join(clock::now(), &mut self.books);
        }
        self.flush(index);
    }

    fn flush(&mut self, index: usize) {
        let Some(client) = self.connections[index].client.as_mut() else { return };
        if client.backlog() == 0 {
            return;
        }
        if let Err(end) = client.flush() {
            self.end(index, end);
        }
    }

    fn read(&mut self, index: usize) {
        let Connection { client, session, opening } = &mut self.connections[index];
        let (Some(client), spelling, books) = (client, self.plan.spelling, &mut self.books) else { return };
        let api = session.kind().api;
        let read = client.read(
            &mut self.buffer,
            || std::mem::take(opening),
            |frame, now, out| {
                if api {
                    session.take_answer(frame, now, books);
                    return Ok(());
                }
                protocol::messages(spelling, frame, |message| session.take(spelling, message, now, out, books))
            },
        );
        match read {
            Ok(Reach::Drained) => self.flush(index),
            Ok(Reach::More) => self.unread.push(index),
            Err(end) => self.end(index, end),
        }
    }

    /// Lets go of a connection that the server or the network ended; dropping its socket takes it out of the epoll.
    fn end(&mut self, index: usize, end: End) {
        let Connection { client, session, .. } = &mut self.connections[index];
        *client = None;
        let ended = match (session.was_joined(), session.is_joined()) {
            (false, _) => Ended::Connecting,
            (true, false) => Ended::Returning,
            (true, true) if session.kind().slow => Ended::Slow,
            (true, true) => Ended::Joined,
        };
        self.books.ended(ended, end);
        session.give_up_asking(&mut self.books);
        let comes_back = ended == Ended::Returning || (self.plan.turmoil.reconnect && ended != Ended::Connecting);
        if comes_back && !session.kind().api {
            self.return_later(index);
        }
    }

    /// Closes what is still open, as a client that leaves does.
    fn say_goodbye(&mut self) {
        for client in self.connections.iter_mut().filter_map(|connection| connection.client.as_mut()) {
            frame::write(Opcode::Close, &1000u16.to_be_bytes(), client.out());
            // The process ends next: what the socket does not take now is not worth waiting for.
            let _ = client.flush();
        }
    }
}
