//! Every order in which a room can be spoken in, heard through the broker, delivered, entered and compared with its history:
//! each order is played on the real room, step by step, and at the end everybody has been told everything once and in order,
//! or was told that something is missing.

#![cfg(test)]

use std::sync::Arc;

use self::world::{By, Comparison, Newcomer, Step, World};
use super::{GroupKey, Jobs, SlowPolicy};

mod world;

/// Which of the possible steps is taken at each place, and how many there were.
#[derive(Default)]
struct Order {
    choices: Vec<(usize, usize)>,
    at: usize,
}

impl Order {
    fn choose(&mut self, possible: usize) -> usize {
        if self.at == self.choices.len() {
            self.choices.push((0, possible));
        }
        let (choice, known) = self.choices[self.at];
        assert_eq!(known, possible, "the same steps lead to the same state");
        self.at += 1;
        choice
    }

    /// The next order; `false` after the last.
    fn next(&mut self) -> bool {
        self.at = 0;
        while let Some((choice, possible)) = self.choices.pop() {
            if choice + 1 < possible {
                self.choices.push((choice + 1, possible));
                return true;
            }
        }
        false
    }
}

/// Plays all orders of a world and says how many there are.
fn play_all(make: impl Fn() -> World) -> usize {
    let mut order = Order::default();
    let mut count = 0;
    loop {
        let mut world = make();
        let mut steps = Vec::new();
        loop {
            let possible = world.possible();
            if possible.is_empty() {
                break;
            }
            let step = possible[order.choose(possible.len())];
            steps.push(step);
            world.take(step);
        }
        world.assert_told(&steps);
        count += 1;
        if !order.next() {
            return count;
        }
    }
}

#[test]
fn whoever_enters_while_others_speak_hears_everything_once_and_in_order() {
    let jobs = Arc::new(Jobs::idle());
    for (before, to_say, by) in [(0, 2, By::Job), (1, 2, By::Job), (0, 2, By::Caller), (1, 2, By::Caller)] {
        let count = play_all(|| {
            let mut world = World::new(&jobs, before, to_say);
            world.by = by;
            world
        });
        println!("{before} before, {to_say} said, delivered by {by:?}: {count} orders");
        assert!(count > 1000, "{count} orders are too few");
    }
}

/// A world in which the newcomer leaves once, and comes back over the same outbox.
fn returning(jobs: &Arc<Jobs>, to_say: u64, waits: bool) -> World {
    let mut world = World::new(jobs, 1, to_say);
    while !matches!(world.newcomer, Newcomer::Inside(_)) {
        world.take(Step::Enter);
    }
    (world.returns, world.waits) = (1, waits);
    world
}

#[test]
fn whoever_leaves_and_comes_back_hears_everything_once_and_in_order() {
    let jobs = Arc::new(Jobs::idle());
    for to_say in [1, 2] {
        let count = play_all(|| {
            let mut world = returning(&jobs, to_say, true);
            world.coarse = to_say > 1;
            world
        });
        println!("{to_say} said: {count} orders");
        assert!(count > 100, "{count} orders are too few");
    }
}

/// The orders show it: what is under way when a seat is given up still comes, and comes twice where it is recovered before.
#[test]
#[should_panic(expected = "after 1: [")]
fn whoever_comes_back_without_waiting_may_hear_something_twice() {
    let jobs = Arc::new(Jobs::idle());
    play_all(|| returning(&jobs, 1, false));
}

#[test]
fn the_same_holds_for_one_that_takes_deltas() {
    let jobs = Arc::new(Jobs::idle());
    let count = play_all(|| {
        let mut world = World::new(&jobs, 1, 2);
        world.seat.group = world.room.group(GroupKey { filter: None, delta: true }).expect("there are few");
        world.seat.slow = SlowPolicy::Latest;
        world
    });
    assert!(count > 1000, "{count} orders are too few");
}

#[test]
fn a_comparison_at_any_time_takes_nobody_out_who_has_heard_everything() {
    let jobs = Arc::new(Jobs::idle());
    for newcomer in [false, true] {
        let count = play_all(|| {
            let mut world = World::new(&jobs, 1, if newcomer { 1 } else { 2 });
            world.comparison = Comparison::Waits;
            world.coarse = newcomer;
            if !newcomer {
                world.newcomer = Newcomer::Nobody;
            }
            world
        });
        println!("{count} orders");
        assert!(count > 1000, "{count} orders are too few");
    }
}

#[test]
fn whatever_is_lost_on_the_way_is_told_at_the_latest_by_the_comparison() {
    let jobs = Arc::new(Jobs::idle());
    for before in [0, 1] {
        let count = play_all(|| {
            let mut world = World::new(&jobs, before, 1);
            (world.loses, world.may_lose, world.coarse) = (true, 1, true);
            world.comparison = Comparison::Waits;
            world
        });
        println!("{before} before: {count} orders");
        assert!(count > 1000, "{count} orders are too few");
    }
}
