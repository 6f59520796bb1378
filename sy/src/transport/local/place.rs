//! Puts a finished temporary entry in place, whole, and only over what was listed there.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, RenameFlags};
use rustix::io::Errno;

use super::root::stat_at;
use crate::error::{ErrorKind, SyncError};
use crate::transport::{Kind, Meta};

/// Why something could not be put in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The destination is not what it was when it was listed.
    Changed,
    Os(Errno),
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Self::Os(errno)
    }
}

impl Refusal {
    pub fn into_error(self, path: Vec<u8>) -> SyncError {
        match self {
            Self::Changed => {
                SyncError::new(ErrorKind::Conflict, "it changed, or another name that is the same here appeared, since it was listed")
                    .at("replace", path)
                    .hint("nothing was overwritten; the next run will look again")
            }
            Self::Os(errno) => SyncError::os(errno, "write", path),
        }
    }
}

/// Is what stands at `name` still what was listed? Link counts and change times may differ.
pub fn is_still(dir: BorrowedFd<'_>, name: &[u8], listed: &Meta) -> Result<bool, Errno> {
    match stat_at(dir, name) {
        Ok(now) => Ok((now.kind, now.ino, now.size, now.mtime) == (listed.kind, listed.ino, listed.size, listed.mtime)
            || now.kind == Kind::Dir && now.ino == listed.ino),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Renames `temp` to `name`, both in `dir`. `listed` is what may be replaced.
pub fn place(dir: impl AsFd, temp: &[u8], name: &[u8], listed: Option<&Meta>) -> Result<(), Refusal> {
    let dir = dir.as_fd();
    match listed {
        None => match rustix::fs::renameat_with(dir, temp, dir, name, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) => Err(Refusal::Changed),
            // Some network file systems know no flags: look, then rename.
            Err(Errno::INVAL | Errno::NOSYS) => match stat_at(dir, name) {
                Err(Errno::NOENT) => Ok(rustix::fs::renameat(dir, temp, dir, name)?),
                Ok(_) => Err(Refusal::Changed),
                Err(errno) => Err(errno.into()),
            },
            Err(errno) => Err(errno.into()),
        },
        Some(listed) if !is_still(dir, name, listed)? => Err(Refusal::Changed),
        Some(listed) if listed.kind == Kind::Dir => exchange(dir, temp, name, AtFlags::REMOVEDIR),
        // To swap the two and unlink the old file would be quicker, but ext4, unless told otherwise, sends a file's data to the
        // disk before it renames it over another, so that a power failure leaves the old content or the new. After a swap it
        // could leave an empty file. Where a file system does not do that, only what `durable` has flushed is safe.
        Some(_) => Ok(rustix::fs::renameat(dir, temp, dir, name)?),
    }
}

/// Swaps two names and removes the one that then is called `temp`: a file in place of an empty directory, or the reverse.
pub fn exchange(dir: BorrowedFd<'_>, temp: &[u8], name: &[u8], removal: AtFlags) -> Result<(), Refusal> {
    match rustix::fs::renameat_with(dir, temp, dir, name, RenameFlags::EXCHANGE) {
        Ok(()) => match rustix::fs::unlinkat(dir, temp, removal) {
            Ok(()) => Ok(()),
            Err(errno) => {
                // It was filled in the meantime: put it back.
                rustix::fs::renameat_with(dir, temp, dir, name, RenameFlags::EXCHANGE)?;
                Err(if errno == Errno::NOTEMPTY { Refusal::Changed } else { errno.into() })
            }
        },
        // No such call, or an overlay that can't swap what stands in a lower layer.
        Err(Errno::INVAL | Errno::NOSYS | Errno::XDEV) => {
            rustix::fs::unlinkat(dir, name, removal)?;
            Ok(rustix::fs::renameat(dir, temp, dir, name)?)
        }
        Err(errno) => Err(errno.into()),
    }
}
