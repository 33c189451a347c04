//! stub
use crate::broker::*;
use roomcast_shared::{event::Said, position::*, publication::*};
use std::sync::Arc;
#[derive(Default)]
struct Mem {
    rooms: parking_lot::Mutex<std::collections::HashMap<String, (Epoch, u64, std::collections::VecDeque<Publication>)>>,
    pubsub: Option<Arc<dyn PubSub>>,
}
impl History for Mem {
    fn append(&self, room: &str, mut said: Said, append: &Append) -> Answer<Appended> {
        let pubsub = self.pubsub.clone().unwrap();
        let mut rooms = self.rooms.lock();
        let mut position = None;
        if let Some(keep) = append.keep {
            let entry = rooms
                .entry(room.to_owned())
                .or_insert_with(|| (Epoch::from_random(rand::random()), 0, Default::default()));
            entry.1 += 1;
            said.publication.offset = entry.1;
            said.epoch = Some(entry.0);
            entry.2.push_back(said.publication.clone());
            while entry.2.len() > keep.size as usize {
                entry.2.pop_front();
            }
            position = Some(Position::new(entry.1, entry.0));
        }
        let answer = pubsub.publish(room, said.into());
        answer.map(move |()| Appended { position, fresh: true })
    }
    fn read(&self, room: &str, page: &Page) -> Answer<Slice> {
        let mut rooms = self.rooms.lock();
        let entry =
            rooms.entry(room.to_owned()).or_insert_with(|| (Epoch::from_random(rand::random()), 0, Default::default()));
        let top = Position::new(entry.1, entry.0);
        let publications = if page.reverse {
            entry
                .2
                .iter()
                .rev()
                .filter(|p| page.since.is_none_or(|s| p.offset < s))
                .take(page.limit as usize)
                .cloned()
                .collect()
        } else {
            entry
                .2
                .iter()
                .filter(|p| page.since.is_none_or(|s| p.offset > s))
                .take(page.limit as usize)
                .cloned()
                .collect()
        };
        Answer::Now(Ok(Slice { publications, top }))
    }
    fn forget(&self, room: &str) -> Answer<()> {
        if let Some(e) = self.rooms.lock().get_mut(room) {
            e.2.clear()
        }
        Answer::Now(Ok(()))
    }
}

pub(super) fn stub(pubsub: Arc<dyn PubSub>, presence: Arc<dyn Presence>, control: Arc<dyn Control>) -> Broker {
    Broker {
        pubsub: pubsub.clone(),
        history: Arc::new(Mem { pubsub: Some(pubsub), ..Mem::default() }),
        presence,
        control,
    }
}
