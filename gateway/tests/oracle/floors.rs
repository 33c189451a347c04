//! How much a run has to have seen, so that finding nothing wrong means something. Knows what was counted, and nobody who
//! counted it.

use std::time::Duration;

use crate::{ledger::Ledger, plan::Fault};

/// For each ten seconds of the plan at least so many; about a fifth of what a loaded machine with two processors counts.
const EACH_TEN_SECONDS: [(&str, u64); 8] = [
    ("publications answered to publishers", 90),
    ("publications answered to clients", 30),
    ("publications heard", 1_500),
    ("publications made up for", 80),
    ("recoveries", 300),
    ("connections cut", 8),
    ("connections ended: 3001 shutdown", 4),
    ("links to the store cut", 1),
];

/// Plans of this length and more have to show what is seldom, too: so many for each minute.
const LONG: Duration = Duration::from_mins(1);
const EACH_MINUTE: [(&str, u64); 6] = [
    ("told that history is gone: too much was missed", 2),
    ("told that history is gone: another epoch", 200),
    ("unsubscribed: 2500 insufficient state", 100),
    ("connections ended: 3010 insufficient state", 10),
    ("links to the store cut: one that hears", 2),
    ("links to the store cut: one that asks", 2),
];

/// Whatever is long, these are there. They are counted at the end only.
const ALWAYS: [(&str, u64); 2] = [(LOOKED_FOR, 20), ("rooms that were seen whole", 40)];
const LOOKED_FOR: &str = "confirmed words of clients that were looked for";

/// What was counted too seldom in a run of a plan.
pub(crate) fn missing(ledger: &Ledger, length: Duration, plan: &[(Duration, Fault)]) -> Vec<String> {
    let counted = wanted(length, plan).into_iter().map(|(what, least)| (what, least, ledger.counted(what)));
    let short = counted.filter(|(_, least, counted)| counted < least);
    short.map(|(what, least, counted)| format!("{what}: {counted}, and at least {least} were expected")).collect()
}

/// Whether enough was counted before the end, where so many words of clients are to be looked for at least.
pub(crate) fn is_enough(ledger: &Ledger, words: u64, length: Duration, plan: &[(Duration, Fault)]) -> bool {
    let counted_at_the_end = |what| ALWAYS.iter().any(|(name, _)| *name == what);
    wanted(length, plan).into_iter().all(|(what, least)| match what {
        LOOKED_FOR => words >= least,
        what => counted_at_the_end(what) || ledger.counted(what) >= least,
    })
}

/// What has to be counted how often.
fn wanted(length: Duration, plan: &[(Duration, Fault)]) -> Vec<(&'static str, u64)> {
    let times = |unit: Duration, least: u64| least * length.as_secs() / unit.as_secs();
    let mut wanted = ALWAYS.to_vec();
    wanted.extend(EACH_TEN_SECONDS.map(|(what, least)| (what, times(Duration::from_secs(10), least))));
    if length >= LONG {
        wanted.extend(EACH_MINUTE.map(|(what, least)| (what, times(LONG, least))));
    } else if plan.iter().any(|(_, fault)| *fault == Fault::StartStoreEmpty) {
        wanted.push(("told that history is gone: another epoch", 20));
    }
    wanted
}
