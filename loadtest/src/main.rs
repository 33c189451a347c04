//! The program `roomcast-loadtest`: reads flags, runs what they ask for, prints the report, sets the exit code. No logic.

use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use anyhow::Result;
use clap::Parser;
use roomcast_loadtest::{
    cli::{Cli, Command, LoadArgs, RunArgs},
    floor_server,
    report::{Report, json, text},
    scenario::{self, Pauses},
    worker,
};

/// The run could not be made.
const FAILED: u8 = 1;
/// The flags are wrong (`EX_USAGE` of sysexits).
const USAGE: u8 = 64;
/// A condition of `--fail-if` came true.
const THRESHOLD: u8 = 99;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
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
        None => load(&cli.run),
    };
    done.unwrap_or_else(|error| {
        complain(&format!("{error:#}"));
        FAILED.into()
    })
}

fn load(args: &RunArgs) -> Result<ExitCode> {
    let plan = match args.plan() {
        Ok(plan) => plan,
        Err(faults) => return Ok(refuse(&faults)),
    };
    // Idle connections cost the floor nothing that would be compared.
    let unheld = Pauses { hold: Duration::ZERO, ..args.load.pauses() };
    let floor = args.floor.then(|| scenario::floor(&plan, unheld)).transpose()?;
    let figures = scenario::load(&plan, args.load.pauses(), &args.pids)?;
    finish(&Report::new(&plan, figures, floor, args.load.thresholds()), &args.load)
}

fn floor(args: &LoadArgs) -> Result<ExitCode> {
    let plan = match args.plan() {
        Ok(plan) => plan,
        Err(faults) => return Ok(refuse(&faults)),
    };
    let figures = scenario::floor(&plan, args.pauses())?;
    finish(&Report::new(&plan, figures, None, args.thresholds()), args)
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
