//! Keeps whoever goes by the common facts up to date: what is told is passed on, and what is read as a whole is passed on
//! without undoing what was told while it was being read. Knows no broker.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;

use super::local::Facts;

/// A fact as it is told.
#[derive(Clone)]
pub(super) enum Change {
    /// It holds, for so long.
    Kept(String, Bytes, Duration),
    /// It holds no longer.
    Forgotten(String),
}

/// What stands between the cluster and those who go by the facts.
pub(super) struct Ledger {
    facts: Arc<dyn Facts>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// All facts are being read; what is told meanwhile may or may not be among them.
    reading: bool,
    meanwhile: Vec<Change>,
    /// They were read once.
    known: bool,
}

impl Ledger {
    pub(super) fn new(facts: Arc<dyn Facts>) -> Self {
        Self { facts, state: Mutex::default() }
    }

    /// A fact was told.
    pub(super) fn told(&self, change: Change) {
        // The facts are passed on under the lock, so that they come in the order in which they were told.
        let mut state = self.state.lock();
        self.pass(&change);
        if state.reading {
            state.meanwhile.push(change);
        }
    }

    /// All facts are about to be read.
    pub(super) fn begin(&self) {
        let mut state = self.state.lock();
        state.reading = true;
        state.meanwhile.clear();
    }

    /// All facts were read.
    pub(super) fn read(&self, all: Vec<(String, Bytes, Duration)>) {
        let mut state = self.state.lock();
        self.facts.learn_all(all);
        for change in std::mem::take(&mut state.meanwhile) {
            self.pass(&change);
        }
        state.reading = false;
        state.known = true;
    }

    /// They could not be read.
    pub(super) fn failed(&self) {
        let mut state = self.state.lock();
        state.reading = false;
        state.meanwhile.clear();
    }

    /// Whether all facts were read once.
    pub(super) fn known(&self) -> bool {
        self.state.lock().known
    }

    fn pass(&self, change: &Change) {
        match change {
            Change::Kept(name, fact, ttl) => self.facts.learn(name, fact, *ttl),
            Change::Forgotten(name) => self.facts.unlearn(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Default)]
    struct Learned(Mutex<BTreeMap<String, Vec<u8>>>);

    impl Facts for Learned {
        fn learn(&self, name: &str, fact: &[u8], _: Duration) {
            self.0.lock().insert(name.to_owned(), fact.to_vec());
        }

        fn unlearn(&self, name: &str) {
            self.0.lock().remove(name);
        }

        fn learn_all(&self, facts: Vec<(String, Bytes, Duration)>) {
            *self.0.lock() = facts.into_iter().map(|(name, fact, _)| (name, fact.to_vec())).collect();
        }
    }

    fn kept(name: &str, fact: &'static str) -> Change {
        Change::Kept(name.to_owned(), fact.into(), Duration::from_secs(9))
    }

    #[test]
    fn what_is_told_while_all_is_read_is_not_undone() {
        let learned = Arc::new(Learned::default());
        let ledger = Ledger::new(learned.clone());
        let holds = || learned.0.lock().iter().map(|(name, fact)| (name.clone(), fact.clone())).collect::<Vec<_>>();
        ledger.told(kept("gone", "1"));
        ledger.begin();
        ledger.told(kept("new", "2"));
        ledger.told(Change::Forgotten("old".to_owned()));
        assert!(!ledger.known());
        ledger.read(vec![("old".to_owned(), "3".into(), Duration::from_secs(9))]);
        assert_eq!(holds(), [("new".to_owned(), b"2".to_vec())], "and what is nowhere any more is gone");
        ledger.begin();
        ledger.failed();
        ledger.told(kept("later", "4"));
        assert_eq!(holds().len(), 2, "a failure changes nothing");
        assert!(ledger.known());
    }
}
