//! What makes the figures of a run doubtful: a generator that was the bottleneck, connections that did not get through,
//! servers that were not there to the end.

use crate::{
    cli::Trial,
    clock::MILLISECOND,
    figures::{Figures, Generator},
    units,
};

/// Share of its core from which a worker counts as the bottleneck.
const BUSY_WORKER: f64 = 0.9;
/// Share of the machine from which the tool leaves the server too little.
const BUSY_MACHINE: f64 = 0.7;
/// Lateness of one publish in a hundred from which the schedule counts as not held.
const LATE: u64 = 2 * MILLISECOND;

/// All of one server, each with its name.
pub(super) fn warnings(trial: &Trial, figures: &Figures) -> Vec<String> {
    let mut warnings = of_generator(&figures.generator);
    let asked = u64::from(trial.plan.connections());
    if figures.connected < asked {
        let connected = figures.connected;
        warnings.push(format!("only {connected} of {asked} connections got through; the figures are theirs alone"));
    }
    if figures.unsent > 0 {
        warnings.push(format!(
            "{} messages could not be sent in time: the server held the publishers back, or there are too few of them",
            figures.unsent
        ));
    }
    warnings
        .extend(figures.gone.iter().map(|gone| format!("{gone} ended before the run did; its memory is not in it")));
    warnings.into_iter().map(|warning| format!("{}: {warning}", trial.course.name)).collect()
}

/// Of a floor that could not bear the load itself.
pub(super) fn floor_warning(floor: &Figures) -> Option<String> {
    let unsent = floor.unsent;
    (unsent > 0).then(|| {
        format!("floor: {unsent} messages could not be sent in time; multiples of its latencies and rates say nothing")
    })
}

fn of_generator(generator: &Generator) -> Vec<String> {
    let mut warnings = Vec::new();
    if generator.busiest > BUSY_WORKER {
        warnings.push(format!(
            "a worker used {:.0} % of its core: the generator is the bottleneck; give it more --workers or cores",
            100.0 * generator.busiest
        ));
    }
    if generator.machine > BUSY_MACHINE {
        warnings.push(format!(
            "the workers used {:.0} % of the machine: a server on it gets too little",
            100.0 * generator.machine
        ));
    }
    if generator.lateness.p99 > LATE {
        let late = units::show_nanos(f64::from(u32::try_from(generator.lateness.p99).unwrap_or(u32::MAX)));
        warnings.push(format!("one publish in a hundred was sent {late} or more after its time by the generator"));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_floor_that_was_too_slow_is_told() {
        assert_eq!(floor_warning(&Figures::default()), None);
        let slow = Figures { unsent: 3, ..Figures::default() };
        assert!(floor_warning(&slow).is_some_and(|told| told.starts_with("floor: 3 messages")));
    }
}
