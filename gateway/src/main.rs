//! The binary: what was asked for, done, and an exit code. 0 is success, 64 a fault in settings or usage, 1 anything else.

use std::{
    panic::{self, AssertUnwindSafe},
    process::ExitCode,
    time::Duration,
};

use roomcast::{
    app::{self, Log},
    cli::{self, Action, Outcome},
    config::{Loaded, Sources},
    moments,
};

/// Returns free pages quickly, and keeps few arenas, so that memory follows the number of connections.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// How long the end of a node waits for calls that may never return, such as one of the resolver, and for a reader of its last
/// words. Signals do not end the process any more by then.
const PATIENCE: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    match cli::run(std::env::args_os(), std::env::vars_os().collect()) {
        Action::Serve(loaded, sources) => serve(*loaded, sources).print_within(PATIENCE),
        Action::Done(outcome) => outcome.print(),
    }
}

fn serve(loaded: Loaded, sources: Sources) -> Outcome {
    // Before the runtime and until it has gone, so that whatever happens within is logged.
    let log = match Log::start(&loaded.settings.log) {
        Ok(log) => log,
        Err(error) => return Outcome::failure(format!("roomcast: cannot log to the standard error: {error}\n")),
    };
    moments::begin();
    let mut runtime = None;
    // A panic of this thread is in the log, which is written and ended as after any other fault.
    let served = panic::catch_unwind(AssertUnwindSafe(|| {
        let runtime = runtime.insert(tokio::runtime::Builder::new_multi_thread().enable_all().build()?);
        runtime.block_on(app::serve(loaded, sources, &log))
    }));
    if let Some(runtime) = runtime {
        runtime.shutdown_timeout(PATIENCE);
    }
    log.end();
    match served {
        Ok(Ok(())) => Outcome::success(String::new()),
        Ok(Err(error)) => Outcome::failure(format!("roomcast: {error:#}\n")),
        Err(_) => Outcome::failure("roomcast: ended by a panic, which is in the log\n".to_owned()),
    }
}
