//! What a client is told, taken at its word: what breaks a promise is a fault.

use std::time::Duration;

use roomcast_shared::{
    protocol::reply::{ErrorReply, Push, Reply, RoomResult, SubscribeResult},
    publication::Publication,
};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

use super::{Client, Over, SILENCE, Standing};
use crate::ledger::{Place, Said};

impl Client {
    pub(super) fn take(&mut self, message: Message) -> Result<(), Over> {
        self.heard_at = Instant::now();
        let bytes = match message {
            Message::Text(text) => text.as_bytes().to_vec(),
            Message::Binary(bytes) => bytes.to_vec(),
            Message::Close(frame) => {
                let why = frame.map_or("without a code".to_owned(), |frame| format!("{} {}", frame.code, frame.reason));
                return Err(Over(why));
            }
            _ => return Ok(()),
        };
        let replies: Vec<_> = self.habits.encoding.replies(&bytes).collect();
        for reply in replies {
            match reply {
                Ok(reply) => self.reply(reply)?,
                Err(error) => self.fault(&format!("cannot be read: {error}")),
            }
        }
        Ok(())
    }

    fn reply(&mut self, reply: Reply) -> Result<(), Over> {
        if let Some(push) = reply.push {
            return self.push(&push);
        }
        if reply.id == 0 {
            self.pongs += 1;
            return Ok(());
        }
        if let Some((_, room, said, era)) = self.saying.take_if(|(id, ..)| *id == reply.id) {
            let counted = if reply.error.is_some() {
                "publications refused to clients"
            } else {
                "publications answered to clients"
            };
            self.ledger.count(counted, 1);
            if reply.error.is_none() {
                self.ledger.confirmed(room, said, era.filter(|_| era == self.nodes.era()));
            }
            return Ok(());
        }
        let place = self.memberships.iter().position(|one| one.standing.waits_for(reply.id));
        match (place, reply) {
            (_, Reply { connect: Some(result), .. }) => {
                self.connected = true;
                let ping = Duration::from_secs(result.ping.into());
                self.silence = (!ping.is_zero()).then_some(ping + SILENCE);
                if self.habits.server_side {
                    self.put_in(&result.subs);
                }
            }
            (Some(place), Reply { subscribe: Some(result), .. }) => self.entered(place, &result),
            (Some(place), Reply { error: Some(error), .. }) => self.refused(place, &error),
            (Some(place), Reply { unsubscribe: Some(_), .. }) => self.leave(place, (0.0, 0.6)),
            (None, Reply { error: Some(error), .. }) if !self.connected => {
                return Err(Over(format!("connect is refused: {} {}", error.code, error.message)));
            }
            (_, other) => self.fault(&format!("an answer to nothing: {other:?}")),
        }
        Ok(())
    }

    fn put_in(&mut self, subs: &[RoomResult]) {
        for place in 0..self.memberships.len() {
            match subs.iter().find(|sub| sub.room == self.memberships[place].name) {
                Some(sub) => self.entered(place, &sub.result),
                None => self.fault(&format!("its token puts it into {}, and it is not", self.memberships[place].name)),
            }
        }
    }

    fn push(&mut self, push: &Push) -> Result<(), Over> {
        let Some(place) = self.memberships.iter().position(|one| one.name == push.channel) else {
            return Err(Over(format!("a push of no room: {push:?}")));
        };
        if let Some(publication) = &push.publication {
            if matches!(self.memberships[place].standing, Standing::In | Standing::Leaving { .. }) {
                self.hears(place, publication);
            } else {
                self.fault(&format!("hears {} and is not in it: {publication:?}", push.channel));
            }
        } else if let Some(unsubscribe) = &push.unsubscribe {
            self.ledger.count(&format!("unsubscribed: {} {}", unsubscribe.code, unsubscribe.reason), 1);
            if unsubscribe.code != 2500 || self.habits.server_side {
                self.fault(&format!("unsubscribed of {}: {unsubscribe:?}", push.channel));
            }
            // An answer to leaving that is under way comes all the same.
            if matches!(self.memberships[place].standing, Standing::In) {
                self.leave(place, (0.0, 0.3));
            }
        }
        Ok(())
    }

    fn entered(&mut self, place: usize, result: &SubscribeResult) {
        let (room, before) = (self.memberships[place].room, self.memberships[place].place.take());
        self.note(|| {
            let (recovered, count) = (result.recovered, result.publications.len());
            format!("is in room {room} at {}:{}, recovered: {recovered}, {count}", result.epoch, result.offset)
        });
        if !result.positioned || !result.recoverable || result.was_recovering != before.is_some() {
            self.fault(&format!("came to room {room} from {before:?} and is told {result:?}"));
        }
        self.memberships[place].standing = Standing::In;
        let at = Place { epoch: result.epoch.clone(), offset: result.offset };
        match before {
            Some(before) if result.recovered => {
                self.ledger.count("recoveries", 1);
                self.ledger.count("publications made up for", result.publications.len() as u64);
                if before != at {
                    self.fault(&format!("room {room} is recovered from {at}, and it stood at {before}"));
                }
                self.memberships[place].place = Some(before);
                for publication in &result.publications {
                    self.hears(place, publication);
                }
            }
            before => {
                let refused = self.memberships[place].refused.take();
                self.is_gone(room, before.or(refused), &at);
                if !result.publications.is_empty() {
                    self.fault(&format!("room {room} is not recovered, and still there is {:?}", result.publications));
                }
                self.stand(place, at);
            }
        }
        // It may have recovered nothing, and is in the room all the same.
        if let Some(at) = self.memberships[place].place.clone() {
            self.stand(place, at);
        }
    }

    /// It is told that what it missed is gone, which has to be so.
    fn is_gone(&self, room: usize, before: Option<Place>, at: &Place) {
        let Some(before) = before else { return };
        if before.epoch != at.epoch {
            self.ledger.count("told that history is gone: another epoch", 1);
        } else if at.offset.saturating_sub(before.offset) > self.ledger.reach(room) {
            self.ledger.count("told that history is gone: too much was missed", 1);
        } else {
            self.fault(&format!("room {room}: told that what came after {before} is gone, at {at}"));
        }
    }

    fn refused(&mut self, place: usize, error: &ErrorReply) {
        self.ledger.count(&format!("subscribe refused: {} {}", error.code, error.message), 1);
        let room = self.memberships[place].room;
        match error.code {
            112 if self.habits.refuses && self.memberships[place].place.is_some() => {
                // What comes next is a subscription without a past.
                self.memberships[place].refused = self.memberships[place].place.take();
                self.leave(place, (0.0, 0.3));
            }
            _ if error.temporary => self.leave(place, (0.1, 0.4)),
            _ => self.fault(&format!("room {room}: refused with {error:?}")),
        }
    }

    fn hears(&mut self, place: usize, publication: &Publication) {
        let membership = &self.memberships[place];
        let Some(before) = membership.place.clone() else { return };
        let room = membership.room;
        let at = Place { offset: publication.offset, epoch: before.epoch.clone() };
        if at.offset != before.offset + 1 {
            self.fault(&format!("room {room}: stands at {before} and hears {at}: {publication:?}"));
        }
        match Said::read(&publication.data) {
            Some(said) => {
                if let Err(fault) = self.ledger.stands(room, &at, said) {
                    self.fault(&format!("room {room}: {fault}"));
                }
            }
            None => self.fault(&format!("room {room}: hears what nobody said: {publication:?}")),
        }
        self.ledger.count("publications heard", 1);
        self.note(|| format!("hears room {room} at {at}"));
        self.stand(place, at);
    }
}
