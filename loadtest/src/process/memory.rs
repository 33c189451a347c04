//! What the machine's memory is used for, from `/proc/meminfo`. Knows no processes.

use std::fs;

use anyhow::{Context, Result};

use super::kilobytes;

/// Memory of the machine at one moment, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// What programs may still get.
    pub available: u64,
    /// What the kernel's own objects take: sockets, files and the like.
    pub slab: u64,
}

impl Machine {
    /// As it is now.
    ///
    /// # Errors
    /// The kernel does not tell it.
    pub fn now() -> Result<Self> {
        Self::read(&fs::read_to_string("/proc/meminfo")?).context("/proc/meminfo is malformed")
    }

    fn read(text: &str) -> Option<Self> {
        Some(Self { available: kilobytes(text, "MemAvailable:")?, slab: kilobytes(text, "Slab:")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_it() {
        let now = Machine::now().expect("on Linux");
        assert!(now.available > now.slab / 100 && now.slab > 0, "{now:?}");
        let text = "MemTotal: 9 kB\nMemAvailable:   3 kB\nSlab:  1 kB\nSReclaimable: 7 kB\n";
        assert_eq!(Machine::read(text), Some(Machine { available: 3072, slab: 1024 }));
    }
}
