//! Reading from and writing to the stream of the connection that hears. Knows no frames and no rooms.

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::dial::Io;

/// Size of a read buffer. A publication that somebody keeps also keeps the buffer it arrived in.
pub(super) const READ_BUFFER: usize = 64 << 10;

/// Writes all of it.
pub(super) async fn write(stream: &mut Box<dyn Io>, output: &[u8]) -> io::Result<()> {
    stream.write_all(output).await?;
    stream.flush().await
}

/// Reads what there is, with room for `missing` bytes at least, and says how much that was: nothing at the end of the
/// stream. A large message gets its own buffer, which is given up with it.
pub(super) async fn read(stream: &mut Box<dyn Io>, input: &mut BytesMut, missing: usize) -> io::Result<usize> {
    if input.capacity() - input.len() < missing.max(READ_BUFFER / 16) {
        let mut buffer = BytesMut::with_capacity((input.len() + missing).max(READ_BUFFER));
        buffer.extend_from_slice(input);
        *input = buffer;
    }
    stream.read_buf(input).await
}
