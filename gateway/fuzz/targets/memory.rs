//! How much memory something takes, counted by the allocator.

/// What comes of this work, and the most memory that it held at a time on the way, in bytes.
pub(crate) fn taken<T>(work: impl FnOnce() -> T) -> (T, u64) {
    let mut made = None;
    let counted = allocation_counter::measure(|| made = Some(work()));
    (made.expect("it was made"), counted.bytes_max)
}
