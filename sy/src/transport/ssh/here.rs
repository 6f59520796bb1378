//! Is a directory on a host one of this machine? Then it may be, or lie within, the other side of a run.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::transport::Meta;

/// Told apart from all other machines, and from this one before it was started anew. Empty if nobody knows.
pub fn boot() -> Vec<u8> {
    std::fs::read("/proc/sys/kernel/random/boot_id").map(|id| id.trim_ascii_end().to_vec()).unwrap_or_default()
}

/// Is what another process found at `real` what is there for this one? Containers on one machine see other trees.
pub fn is_here(their_boot: &[u8], real: &[u8], their: &Meta) -> bool {
    let own = boot();
    let same = |state: rustix::fs::Stat| (state.st_dev, state.st_ino) == their.identity();
    !own.is_empty() && own == their_boot && rustix::fs::stat(Path::new(OsStr::from_bytes(real))).is_ok_and(same)
}
