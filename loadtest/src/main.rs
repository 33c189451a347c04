//! The program `roomcast-loadtest`: reads flags, runs what they ask for, prints the report, sets the exit code. No logic.

use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use anyhow::Result;
use clap::{Parser, ValueEnum};
use roomcast_loadtest::{
    cli::{Cli, Command, CompareArgs, LoadArgs, RunArgs, Trial, expand},
    floor_server,
    report::{Report, compare::Comparison, html, json, text},
    scenario::{self, Course, Live, Pauses},
    worker,
};

/// The run could not be made.
const FAILED: u8 = 1;
/// The flags are wrong (`EX_USAGE` of sysexits).
const USAGE: u8 = 64;
/// A condition of `--fail-if` came true, or a figure got worse.
const THRESHOLD: u8 = 99;

fn main() -> ExitCode {
    let cli = match Cli::try_parse_from(expand(std::env::args_os().collect())) {
        Ok(cli) => cli,
        Err(error) => {
            // Neither stream being there leaves nobody to tell.
            let _ = error.print();
            return if error.use_stderr() { USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    let done = match cli.command {
        Some(Command::Worker) => worker::run().map(|()| ExitCode::SUCCESS),
        Some(Command::FloorServer) => floor_server::run().map(|()| ExitCode::SUCCESS),
        Some(Command::Floor(args)) => floor(&args),
        Some(Command::Compare(args)) => compare(&args),
        Some(Command::Run(args)) => {
            let name = args.scenario.to_possible_value().map(|value| value.get_name().to_owned());
            load(&RunArgs { floor: !args.no_floor, ..args.run }, name)
        }
        None => load(&cli.run, None),
    };
    done.unwrap_or_else(|error| {
        complain(&format!("{error:#}"));
        FAILED.into()
    })
}

fn load(args: &RunArgs, scenario: Option<String>) -> Result<ExitCode> {
    let trials = match args.trials() {
        Ok(trials) => trials,
        Err(faults) => return Ok(refuse(&faults)),
    };
    let live = args.load.prometheus.map(Live::serve).transpose()?;
    // Idle connections cost the floor nothing that would be compared.
    let unheld = Pauses { hold: Duration::ZERO, ..args.load.pauses() };
    let floor = args.floor.then(|| scenario::floor(&trials[0].plan, unheld, live.as_ref())).transpose()?;
    let mut measured = Vec::new();
    for trial in &trials {
        measured.push((trial, scenario::load(&trial.plan, &trial.course, live.as_ref())?));
    }
    finish(&Report::new(scenario, measured, floor, args.load.thresholds()), &args.load)
}

fn floor(args: &LoadArgs) -> Result<ExitCode> {
    let plan = match args.floor_plan() {
        Ok(plan) => plan,
        Err(faults) => return Ok(refuse(&faults)),
    };
    let live = args.prometheus.map(Live::serve).transpose()?;
    let figures = scenario::floor(&plan, args.pauses(), live.as_ref())?;
    let course = Course { name: "floor".into(), ..Course::default() };
    finish(&Report::new(None, vec![(&Trial { plan, course }, figures)], None, args.thresholds()), args)
}

fn compare(args: &CompareArgs) -> Result<ExitCode> {
    let comparison = Comparison::new(&json::read(&args.before)?, &json::read(&args.after)?, args.worse_than);
    io::stdout().write_all(comparison.render().as_bytes())?;
    Ok(if comparison.worse().is_empty() { ExitCode::SUCCESS } else { THRESHOLD.into() })
}

/// Prints the report: the table to standard output, or to standard error when JSON goes there.
fn finish(report: &Report, args: &LoadArgs) -> Result<ExitCode> {
    let table = text::render(report);
    match args.json.as_deref() {
        Some(path) if path == Path::new("-") => {
            io::stderr().write_all(table.as_bytes())?;
            io::stdout().write_all(json::render(report)?.as_bytes())?;
        }
        path => {
            io::stdout().write_all(table.as_bytes())?;
            path.map_or(Ok(()), |path| json::write(report, path))?;
        }
    }
    args.html.as_deref().map_or(Ok(()), |path| html::write(report, path))?;
    Ok(if report.failed.is_empty() { ExitCode::SUCCESS } else { THRESHOLD.into() })
}

fn refuse(faults: &[String]) -> ExitCode {
    for fault in faults {
        complain(fault);
    }
    USAGE.into()
}

fn complain(fault: &str) {
    // A closed standard error leaves nobody to tell.
    let _ = writeln!(io::stderr(), "roomcast-loadtest: {fault}");
}
