//! The worker's line to its coordinator: orders in over standard input, notes out over standard output. Knows lines, not
//! what they order.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Read, Stdout, Write},
    os::fd::{AsFd, BorrowedFd},
};

use anyhow::Context;

use crate::control::{Note, Order};

/// Both ends.
#[derive(Debug)]
pub(crate) struct Link {
    input: File,
    output: Stdout,
    bytes: Vec<u8>,
    orders: VecDeque<Order>,
}

impl Link {
    /// Over standard input and output.
    ///
    /// # Errors
    /// Standard input is closed.
    pub(crate) fn standard() -> io::Result<Self> {
        // A duplicate of the descriptor, because the handle of the library reads ahead into a buffer that no poll sees.
        let input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        Ok(Self { input, output: io::stdout(), bytes: Vec::new(), orders: VecDeque::new() })
    }

    /// Reads once what has come; `false` at the end of the input. Blocks if nothing has come.
    ///
    /// # Errors
    /// The coordinator says what is no order.
    pub(crate) fn read(&mut self) -> anyhow::Result<bool> {
        let mut chunk = [0; 16 * 1024];
        let count = self.input.read(&mut chunk).context("cannot read orders")?;
        self.bytes.extend_from_slice(&chunk[..count]);
        while let Some(end) = memchr::memchr(b'\n', &self.bytes) {
            let line: Vec<u8> = self.bytes.drain(..=end).collect();
            self.orders.push_back(serde_json::from_slice(&line).context("the coordinator sent no order")?);
        }
        Ok(count > 0)
    }

    /// The next order read.
    pub(crate) fn next(&mut self) -> Option<Order> {
        self.orders.pop_front()
    }

    /// Waits for the next order; `None` at the end of the input.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub(crate) fn wait(&mut self) -> anyhow::Result<Option<Order>> {
        while self.orders.is_empty() && self.read()? {}
        Ok(self.next())
    }

    /// Tells the coordinator.
    ///
    /// # Errors
    /// It is gone.
    pub(crate) fn tell(&self, note: &Note) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(note)?;
        line.push(b'\n');
        let mut output = self.output.lock();
        output.write_all(&line).and_then(|()| output.flush()).context("the coordinator is gone")
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.input.as_fd()
    }
}
