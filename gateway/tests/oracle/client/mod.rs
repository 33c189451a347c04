//! A client as an SDK is one: it enters its rooms, remembers how far it has heard each, comes back after every loss with
//! that place, and takes every word of the server at its promise. What breaks a promise is a fault. Knows no store.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use roomcast_shared::protocol::{
    Encoding,
    command::{ChannelRequest, Command, ConnectRequest, PublishRequest, SubscribeRequest},
};
use serde_json::{Value, json};
use tokio::time::Instant;

mod answers;
mod connection;

use crate::{
    common::token,
    crowd::Phase,
    ledger::{CLIENTS, Era, Ledger, Place, Said},
    nodes::Nodes,
};

/// An answer that takes longer is given up, with the connection.
const PATIENCE: Duration = Duration::from_secs(15);
/// How much longer than the time between two pings a connection may be silent until it is given up.
const SILENCE: Duration = Duration::from_secs(3);
/// Lines of what happened to it that a client tells with a fault.
const MEMORY: usize = 60;

/// What a client is like.
#[derive(Clone, Debug)]
pub(crate) struct Habits {
    pub(crate) encoding: Encoding,
    /// Its token puts it into its rooms.
    pub(crate) server_side: bool,
    /// It wants rather no subscription than one that cannot be recovered.
    pub(crate) refuses: bool,
    /// It publishes so often, in seconds.
    pub(crate) publishes: Option<(f64, f64)>,
    /// It cuts its connection after so long.
    pub(crate) stays: (f64, f64),
    /// It is away for so long then.
    pub(crate) away: (f64, f64),
    /// It leaves one of its rooms so often.
    pub(crate) leaves: Option<(f64, f64)>,
}

/// How far a client has heard those of its rooms that it is in.
pub(crate) type Heard = Arc<Mutex<HashMap<usize, Place>>>;

enum Standing {
    /// It subscribes from then on.
    Out(Instant),
    Asked {
        id: u32,
        since: Instant,
    },
    In,
    Leaving {
        id: u32,
        since: Instant,
    },
}

struct Membership {
    room: usize,
    name: String,
    standing: Standing,
    /// How far it has heard the room, once it was in it.
    place: Option<Place>,
    /// Where it stood when it was told that what it missed is gone, and that it has no subscription.
    refused: Option<Place>,
}

/// A connection is over, and why.
struct Over(String);

pub(crate) struct Client {
    name: u32,
    habits: Habits,
    nodes: Arc<Nodes>,
    ledger: Arc<Ledger>,
    memberships: Vec<Membership>,
    heard: Heard,
    rng: StdRng,
    out: Vec<Command>,
    pongs: usize,
    next_id: u32,
    connected: bool,
    said: u64,
    /// What it says and is not answered yet.
    saying: Option<(u32, usize, Said, Era)>,
    publish_at: Instant,
    leave_at: Instant,
    cut_at: Instant,
    opened_at: Instant,
    /// Something was last heard then, and has to be heard so soon again.
    heard_at: Instant,
    silence: Option<Duration>,
    trace: VecDeque<String>,
}

impl Client {
    pub(crate) fn new(
        number: u32,
        seed: u64,
        habits: Habits,
        rooms: &[(usize, String)],
        nodes: &Arc<Nodes>,
        ledger: &Arc<Ledger>,
    ) -> Self {
        let now = Instant::now();
        let memberships = rooms.iter().map(|(room, name)| Membership {
            room: *room,
            name: name.clone(),
            standing: Standing::Out(now),
            place: None,
            refused: None,
        });
        let rng = StdRng::seed_from_u64(seed ^ (u64::from(number + CLIENTS) << 32));
        let mut client = Self {
            name: number + CLIENTS,
            habits,
            nodes: nodes.clone(),
            ledger: ledger.clone(),
            memberships: memberships.collect(),
            heard: Heard::default(),
            rng,
            out: Vec::new(),
            pongs: 0,
            next_id: 1,
            connected: false,
            said: 0,
            saying: None,
            publish_at: now,
            leave_at: now,
            cut_at: now,
            opened_at: now,
            heard_at: now,
            silence: None,
            trace: VecDeque::new(),
        };
        client.publish_at = client.after(client.habits.publishes.unwrap_or_default());
        client.leave_at = client.after(client.habits.leaves.unwrap_or_default());
        client
    }

    /// Where others see how far it has come.
    pub(crate) fn heard(&self) -> Heard {
        self.heard.clone()
    }

    /// The rooms it wants to be in.
    pub(crate) fn rooms(&self) -> Vec<usize> {
        self.memberships.iter().map(|membership| membership.room).collect()
    }

    /// Says who it is and where it wants to be, all in one frame.
    fn connect(&mut self) {
        self.opened_at = Instant::now();
        self.silence = None;
        self.cut_at = self.after(self.habits.stays);
        let mut claims = json!({"sub": format!("user{}", self.name)});
        let mut request = ConnectRequest::default();
        if self.habits.server_side {
            claims["subs"] = self.memberships.iter().map(|one| (one.name.clone(), json!({}))).collect::<Value>();
            let known = self.memberships.iter().filter(|one| one.place.is_some());
            request.subs = known.map(|one| (one.name.clone(), one.wish(false))).collect();
        }
        request.token = token(&claims);
        let id = self.id();
        self.out.push(Command { id, connect: Some(Box::new(request)), ..Command::default() });
        if !self.habits.server_side {
            for place in 0..self.memberships.len() {
                self.subscribe(place);
            }
        }
    }

    fn subscribe(&mut self, place: usize) {
        let id = self.id();
        let membership = &mut self.memberships[place];
        membership.standing = Standing::Asked { id, since: Instant::now() };
        let request = membership.wish(self.habits.refuses);
        let asked = format!("asks for room {} from {:?}", membership.room, membership.place);
        self.out.push(Command { id, subscribe: Some(Box::new(request)), ..Command::default() });
        self.note(|| asked);
    }

    fn tick(&mut self, phase: Phase) -> Result<(), Over> {
        let now = Instant::now();
        match phase {
            Phase::Over => return Err(Over("everything is over".to_owned())),
            Phase::Running if now >= self.cut_at => return Err(Over("cut".to_owned())),
            Phase::Running | Phase::Settling => {}
        }
        if self.silence.is_some_and(|silence| now > self.heard_at + silence) {
            return Err(Over("silent".to_owned()));
        }
        if !self.connected {
            let in_time = now < self.opened_at + PATIENCE;
            return if in_time { Ok(()) } else { Err(Over("connect is not answered in time".to_owned())) };
        }
        for place in 0..self.memberships.len() {
            match self.memberships[place].standing {
                Standing::Out(at) if now >= at && !self.habits.server_side => self.subscribe(place),
                Standing::Asked { since, .. } | Standing::Leaving { since, .. } if now > since + PATIENCE => {
                    return Err(Over("a command is not answered in time".to_owned()));
                }
                _ => {}
            }
        }
        if phase == Phase::Running {
            self.maybe_leave(now);
            self.maybe_publish(now);
        }
        Ok(())
    }

    fn maybe_leave(&mut self, now: Instant) {
        let Some(habit) = self.habits.leaves.filter(|_| now >= self.leave_at) else { return };
        self.leave_at = self.after(habit);
        let place = self.rng.random_range(0..self.memberships.len());
        if !matches!(self.memberships[place].standing, Standing::In) {
            return;
        }
        let id = self.id();
        let membership = &mut self.memberships[place];
        membership.standing = Standing::Leaving { id, since: now };
        let channel = membership.name.clone();
        self.out.push(Command { id, unsubscribe: Some(ChannelRequest { channel }), ..Command::default() });
    }

    fn maybe_publish(&mut self, now: Instant) {
        let Some(habit) = self.habits.publishes.filter(|_| now >= self.publish_at && self.saying.is_none()) else {
            return;
        };
        self.publish_at = self.after(habit);
        let place = self.rng.random_range(0..self.memberships.len());
        if !matches!(self.memberships[place].standing, Standing::In) {
            return;
        }
        self.said += 1;
        let (id, membership) = (self.id(), &self.memberships[place]);
        let said = Said { publisher: self.name, number: self.said };
        let data = said.payload().to_string().into();
        let request = PublishRequest { channel: membership.name.clone(), data, ..PublishRequest::default() };
        self.saying = Some((id, membership.room, said, self.nodes.era()));
        self.out.push(Command { id, publish: Some(Box::new(request)), ..Command::default() });
    }

    fn stand(&mut self, place: usize, at: Place) {
        let membership = &mut self.memberships[place];
        membership.place = Some(at.clone());
        self.heard.lock().expect("nobody panics with it").insert(membership.room, at);
    }

    fn leave(&mut self, place: usize, away: (f64, f64)) {
        let at = self.after(away);
        let membership = &mut self.memberships[place];
        membership.standing = Standing::Out(at);
        self.heard.lock().expect("nobody panics with it").remove(&membership.room);
    }

    fn connection_ended(&mut self) {
        self.connected = false;
        // Whether it was published will never be known.
        if self.saying.take().is_some() {
            self.ledger.count("publications of clients without an answer", 1);
        }
        self.out.clear();
        self.pongs = 0;
        for membership in &mut self.memberships {
            membership.standing = Standing::Out(Instant::now());
        }
        self.heard.lock().expect("nobody panics with it").clear();
    }

    fn id(&mut self) -> u32 {
        self.next_id += 1;
        self.next_id
    }

    fn after(&mut self, seconds: (f64, f64)) -> Instant {
        Instant::now() + self.seconds(seconds)
    }

    fn seconds(&mut self, (least, most): (f64, f64)) -> Duration {
        Duration::from_secs_f64(if most > least { self.rng.random_range(least..most) } else { least })
    }

    fn note(&mut self, what: impl FnOnce() -> String) {
        if self.trace.len() >= MEMORY {
            self.trace.pop_front();
        }
        self.trace.push_back(what());
    }

    fn fault(&self, what: &str) {
        let trace: Vec<_> = self.trace.iter().map(String::as_str).collect();
        let trace = trace.join("\n    ");
        self.ledger.fault(format!("client {} ({:?}): {what}; before that:\n    {trace}", self.name, self.habits));
    }
}

impl Membership {
    /// What it asks the server for.
    fn wish(&self, refuses: bool) -> SubscribeRequest {
        let mut request = SubscribeRequest { channel: self.name.clone(), ..SubscribeRequest::default() };
        if let Some(place) = &self.place {
            (request.recover, request.offset, request.epoch) = (true, place.offset, place.epoch.clone());
        }
        if refuses {
            request.flag = 2;
        }
        request
    }
}

impl Standing {
    fn waits_for(&self, reply: u32) -> bool {
        matches!(self, Self::Asked { id, .. } | Self::Leaving { id, .. } if *id == reply)
    }
}
