//! What is to befall nodes and store, and when: made from a seed alone, so that the same seed is the same plan; what
//! nodes and clients are doing at these times is not part of it. Knows nobody who carries it out.

use std::time::Duration;

use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A node ends as a crash would end it.
    KillNode(usize),
    /// A node is asked to stop.
    StopNode(usize),
    /// It is started again.
    StartNode(usize),
    /// The store ends as a crash would end it.
    KillStore,
    /// It is back, with all that it ever answered.
    StartStore,
    /// It is back, and has nothing.
    StartStoreEmpty,
    /// It stands still, and its connections stay open.
    PauseStore,
    ResumeStore,
    /// One connection of some node to the store is cut, while both go on: which of them this number chooses.
    CutLink(usize),
}

/// What happens at which time after the begin, in order.
pub(crate) fn plan(seed: u64, length: Duration, nodes: usize) -> Vec<(Duration, Fault)> {
    let mut rng = StdRng::seed_from_u64(seed);
    let length = length.as_secs_f64();
    // A short plan has everything too, and less time between.
    let pace = (length / 60.0).clamp(0.3, 1.0);
    let mut plan = Vec::new();
    for node in 0..nodes {
        let downs = [Fault::KillNode(node), Fault::KillNode(node), Fault::StopNode(node)];
        let pairs = downs.map(|down| (down, Fault::StartNode(node)));
        track(&mut plan, &mut rng, &pairs, length, (4.0 * pace, 14.0 * pace));
    }
    let pairs = [
        (Fault::KillStore, Fault::StartStore),
        (Fault::KillStore, Fault::StartStore),
        (Fault::KillStore, Fault::StartStoreEmpty),
        (Fault::PauseStore, Fault::ResumeStore),
        (Fault::KillStore, Fault::StartStore),
    ];
    track(&mut plan, &mut rng, &pairs, length, (2.0 * pace, 8.0 * pace));
    let mut at = rng.random_range(0.2..2.0 * pace);
    while at < length {
        plan.push((Duration::from_secs_f64(at), Fault::CutLink(rng.random_range(0..1_000))));
        at += rng.random_range(0.5 * pace..3.0 * pace);
    }
    plan.sort_by_key(|(at, _)| *at);
    plan
}

/// All the pairs of down and up, each round in another order, so that none is left out for long.
fn track(
    plan: &mut Vec<(Duration, Fault)>,
    rng: &mut StdRng,
    pairs: &[(Fault, Fault)],
    length: f64,
    between: (f64, f64),
) {
    let mut at = rng.random_range(0.5..between.1 / 2.0);
    let mut round = Vec::new();
    while at < length {
        if round.is_empty() {
            round = pairs.to_vec();
            round.shuffle(rng);
        }
        let (down, up) = round.pop().expect("it was filled");
        let back = at + rng.random_range(0.05..2.0);
        plan.extend([(Duration::from_secs_f64(at), down), (Duration::from_secs_f64(back), up)]);
        at = back + rng.random_range(between.0..between.1);
    }
}

#[test]
fn the_short_plan_leaves_nothing_out_and_is_always_the_same() {
    use std::collections::HashSet;
    let short = plan(crate::SHORT_SEED, crate::SHORT_LENGTH, 2);
    let kinds: HashSet<_> = short.iter().map(|(_, fault)| std::mem::discriminant(fault)).collect();
    assert_eq!(kinds.len(), 9, "{short:?}");
    assert_eq!(short, plan(crate::SHORT_SEED, crate::SHORT_LENGTH, 2));
}
