//! What a command comes to: two texts and an exit code.

use std::{
    io::{self, Write},
    process::ExitCode,
    sync::mpsc,
    thread,
    time::Duration,
};

/// Exit code for faults in settings and usage (`EX_USAGE` of sysexits.h).
const USAGE: u8 = 64;

/// What a command comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// For the standard output: what was asked for, and nothing else.
    pub stdout: String,
    /// For the standard error: what people should know.
    pub stderr: String,
    /// 0, 1 or 64.
    pub code: u8,
}

impl Outcome {
    /// Exit code 0.
    pub fn success(stdout: String) -> Self {
        Self { stdout, ..Self::default() }
    }

    /// Exit code 1.
    pub fn failure(stderr: String) -> Self {
        Self { stderr, code: 1, ..Self::default() }
    }

    /// Exit code 64.
    pub fn usage(stderr: String) -> Self {
        Self { stderr, code: USAGE, ..Self::default() }
    }

    /// Prints both texts. A reader that has gone away, such as `head`, is no fault.
    pub fn print(&self) -> ExitCode {
        let out = write(&self.stdout, io::stdout);
        let err = write(&self.stderr, io::stderr);
        match out.and(err) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
            _ => ExitCode::from(self.code),
        }
    }

    /// The same, but what nobody takes within this time is given up.
    pub fn print_within(&self, time: Duration) -> ExitCode {
        let (outcome, (printing, printed)) = (self.clone(), mpsc::channel());
        match thread::Builder::new().spawn(move || printing.send(outcome.print())) {
            Ok(_) => printed.recv_timeout(time).unwrap_or(ExitCode::from(self.code)),
            Err(_) => self.print(),
        }
    }
}

/// Writes a text if there is one: who has nothing to say does not wait for a pipe that nobody reads.
fn write<W: Write>(text: &str, to: impl FnOnce() -> W) -> io::Result<()> {
    if text.is_empty() { Ok(()) } else { to().write_all(text.as_bytes()) }
}
