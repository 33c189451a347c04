//! The lines of the log that wait to be written, and the thread that writes them.

use std::{
    collections::VecDeque,
    io::{self, Write},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

/// Takes lines without ever waiting for whoever reads them: who logs holds the lock to put a line down, and the thread that
/// writes holds it to pick one up.
pub(super) struct Lines {
    /// So many wait at the most.
    most: usize,
    /// So many bytes of them, save that there is always room for one.
    most_bytes: usize,
    state: Mutex<State>,
    accepted: Condvar,
    settled: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Vec<u8>>,
    /// Bytes of those.
    bytes: usize,
    /// Lines that there was room for.
    accepted: u64,
    /// Those of them that were written or could not be.
    settled: u64,
    /// Lines that there was no room for, and those that could not be written.
    lost: u64,
}

impl Lines {
    /// Writes lines to `output` by a thread of its own, for as long as the process lives; up to `most` wait, and up to
    /// `most_bytes` of them.
    ///
    /// # Errors
    /// There are no more threads.
    pub(super) fn to(output: impl Write + Send + 'static, most: usize, most_bytes: usize) -> io::Result<Arc<Self>> {
        let (state, accepted, settled) = <(Mutex<State>, Condvar, Condvar)>::default();
        let lines = Arc::new(Self { most, most_bytes, state, accepted, settled });
        let source = lines.clone();
        thread::Builder::new().name("log".to_owned()).spawn(move || source.write_to(Output { output, torn: false }))?;
        Ok(lines)
    }

    /// Lines that were lost since the start.
    pub(super) fn lost(&self) -> u64 {
        self.state.lock().lost
    }

    /// Waits until all that was accepted before is written, or could not be, for so long at most.
    pub(super) fn flush(&self, time: Duration) {
        let deadline = Instant::now() + time;
        let mut state = self.state.lock();
        let last = state.accepted;
        while state.settled < last && !self.settled.wait_until(&mut state, deadline).timed_out() {}
    }

    fn accept(&self, line: Vec<u8>) {
        let mut state = self.state.lock();
        let has_room = state.waiting.len() < self.most && state.bytes + line.len() <= self.most_bytes;
        if has_room || state.waiting.is_empty() {
            state.bytes += line.len();
            state.waiting.push_back(line);
            state.accepted += 1;
            self.accepted.notify_one();
        } else {
            state.lost += 1;
        }
    }

    fn write_to(&self, mut output: Output<impl Write>) {
        let mut state = self.state.lock();
        loop {
            let Some(line) = state.waiting.pop_front() else {
                self.accepted.wait(&mut state);
                continue;
            };
            state.bytes -= line.len();
            drop(state);
            let lost = output.write_line(line).is_err();
            state = self.state.lock();
            state.settled += 1;
            state.lost += u64::from(lost);
            self.settled.notify_all();
        }
    }
}

/// Each write is a line.
impl Write for &Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.accept(line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is written to.
struct Output<W> {
    output: W,
    /// The last line that anything was written of has no end.
    torn: bool,
}

impl<W: Write> Output<W> {
    /// A line that fails, because a disc is full or nobody reads any more, is only counted: to say so at the same place would
    /// fail as well. The next one does not go on where it broke off.
    fn write_line(&mut self, mut line: Vec<u8>) -> io::Result<()> {
        if self.torn {
            line.insert(0, b'\n');
        }
        let mut rest = &*line;
        while !rest.is_empty() {
            match self.output.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    rest = &rest[written..];
                    self.torn = !rest.is_empty();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, sync::mpsc};

    use super::*;

    /// Takes nothing until it may, and then everything, each line in its own time.
    struct Stuck {
        free: mpsc::Receiver<()>,
        time: Duration,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // The other end is dropped to set it free.
            let _ = self.free.recv();
            thread::sleep(self.time);
            self.written.lock().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Takes what the plan says, in turn, and then everything.
    struct Planned {
        plan: VecDeque<io::Result<usize>>,
        written: Vec<u8>,
    }

    impl Write for Planned {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = self.plan.pop_front().unwrap_or(Ok(bytes.len()))?;
            self.written.extend(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// More than all lines of a test have.
    const BYTES: usize = 1 << 20;

    /// Longer than a busy machine takes for anything here.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// Polls with a bound that a busy machine keeps.
    fn until(what: &str, mut holds: impl FnMut() -> bool) {
        let begin = Instant::now();
        while !holds() {
            assert!(begin.elapsed() < PATIENCE, "never: {what}");
            thread::yield_now();
        }
    }

    #[test]
    fn who_logs_never_waits_and_each_line_is_written_or_counted() {
        const LOGGED: usize = 100;
        let (busy, free) = mpsc::channel();
        let written = Arc::new(Mutex::new(Vec::new()));
        let lines = Lines::to(Stuck { free, time: Duration::ZERO, written: written.clone() }, 10, BYTES).unwrap();
        let source = lines.clone();
        let logs = thread::spawn(move || (0..LOGGED).for_each(|_| source.accept(b"\n".to_vec())));
        until("who logs goes on", || logs.is_finished());
        assert!(lines.lost() >= LOGGED as u64 - 11, "ten wait, and one is on its way");
        drop(busy);
        until("each is written or counted", || written.lock().len() as u64 + lines.lost() == LOGGED as u64);
    }

    #[test]
    fn long_lines_take_the_room_of_many() {
        let (_busy, free) = mpsc::channel();
        let lines = Lines::to(Stuck { free, time: Duration::ZERO, written: Arc::default() }, 100, 10).unwrap();
        lines.accept(b"on its way".to_vec());
        until("it is on its way", || lines.state.lock().waiting.is_empty());
        lines.accept(b"longer than all that may wait".to_vec());
        assert_eq!(lines.lost(), 0, "there is always room for one");
        lines.accept(b"\n".to_vec());
        assert_eq!(lines.lost(), 1);
    }

    /// The process ends when this returns, whoever else is ending it.
    #[test]
    fn a_flush_waits_for_what_is_not_written_yet_beside_another_one() {
        let (busy, free) = mpsc::channel();
        let written = Arc::new(Mutex::new(Vec::new()));
        let lines =
            Lines::to(Stuck { free, time: Duration::from_millis(50), written: written.clone() }, 10, BYTES).unwrap();
        lines.accept(b"last words".to_vec());
        let other = lines.clone();
        let other = thread::spawn(move || other.flush(PATIENCE));
        drop(busy);
        lines.flush(PATIENCE);
        assert_eq!(*written.lock(), b"last words");
        other.join().unwrap();
    }

    #[test]
    fn a_flush_waits_for_a_reader_that_is_slow_and_far_behind() {
        let (busy, free) = mpsc::channel();
        let written = Arc::new(Mutex::new(Vec::new()));
        let lines =
            Lines::to(Stuck { free, time: Duration::from_millis(300), written: written.clone() }, 3, BYTES).unwrap();
        until("it is full", || {
            lines.accept(b"\n".to_vec());
            lines.lost() > 0
        });
        let accepted = lines.state.lock().accepted;
        drop(busy);
        lines.flush(PATIENCE);
        assert_eq!(written.lock().len() as u64, accepted);
    }

    #[test]
    fn a_flush_gives_up_where_nobody_reads() {
        let (_busy, free) = mpsc::channel();
        let lines = Lines::to(Stuck { free, time: Duration::ZERO, written: Arc::default() }, 3, BYTES).unwrap();
        lines.accept(b"\n".to_vec());
        lines.flush(Duration::from_millis(10));
    }

    #[test]
    fn what_cannot_be_written_is_counted_and_waited_for_no_more() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let lines = Lines::to(full, 10, BYTES).unwrap();
        (0..3).for_each(|_| lines.accept(b"\n".to_vec()));
        lines.flush(PATIENCE);
        assert_eq!(lines.lost(), 3);
    }

    #[test]
    fn a_line_that_breaks_off_does_not_spoil_the_next_one() {
        let full = || Err(io::ErrorKind::StorageFull.into());
        let plan = [Ok(4), full(), full(), Err(io::ErrorKind::Interrupted.into()), Ok(3)];
        let mut output = Output { output: Planned { plan: plan.into(), written: Vec::new() }, torn: false };
        let mut write = |line: &str| output.write_line(line.as_bytes().to_vec()).is_ok();
        assert!(!write("{\"first\":1}\n"), "it breaks off");
        assert!(!write("{\"second\":2}\n"), "nothing of it is written");
        assert!(write("{\"third\":3}\n"), "in two parts");
        assert!(write("{\"fourth\":4}\n"));
        assert_eq!(String::from_utf8_lossy(&output.output.written), "{\"fi\n{\"third\":3}\n{\"fourth\":4}\n");
    }
}
