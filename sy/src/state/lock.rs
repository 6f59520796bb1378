//! One run at a time into a tree.
//!
//! A run holds its destination exclusively and all directories above it shared, as databases lock hierarchies: a second
//! run into the same tree, a part of it, or a tree that holds it, is refused. Directories are told by device and inode,
//! so a second path to the same tree is no way around. The kernel drops the locks of a process that dies.

use std::fs::File;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::error::{ErrorKind, Result, SyncError};

/// Held while a run writes.
#[derive(Debug)]
pub struct Lock {
    _held: Vec<File>,
}

/// Locks the tree at `real` (a path without links), or says who can't have it. `None` where no lock can be kept.
pub fn lock_tree(real: &Path) -> Result<Option<Lock>> {
    let Some(dir) = super::directory().map(|state| state.join("locks")) else { return Ok(None) };
    if std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).is_err() {
        return Ok(None);
    }
    let mut held = Vec::new();
    for (depth, path) in real.ancestors().enumerate() {
        let Ok(state) = rustix::fs::stat(path) else { continue };
        let Ok(file) = open(&dir.join(format!("{:x}-{:x}", state.st_dev, state.st_ino))) else { return Ok(None) };
        let operation = if depth == 0 { FlockOperation::NonBlockingLockExclusive } else { FlockOperation::NonBlockingLockShared };
        match rustix::fs::flock(&file, operation) {
            Ok(()) => held.push(file),
            Err(Errno::WOULDBLOCK) => {
                use std::os::unix::ffi::OsStrExt;
                return Err(SyncError::new(ErrorKind::Locked, "another run is writing to it, to a part of it or to what holds it")
                    .at("sync into", real.as_os_str().as_bytes())
                    .hint("wait for that run to end"));
            }
            Err(_) => return Ok(None),
        }
    }
    Ok(Some(Lock { _held: held }))
}

fn open(path: &PathBuf) -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_and_its_parts_are_locked_together() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (a, b, c) = (dir.path().join("a"), dir.path().join("a/b"), dir.path().join("c"));
        for path in [&a, &b, &c] {
            std::fs::create_dir(path).expect("new");
        }
        let Some(held) = lock_tree(&a).expect("free") else { return };
        assert_eq!(lock_tree(&a).expect_err("held").kind, ErrorKind::Locked);
        assert_eq!(lock_tree(&b).expect_err("part of it").kind, ErrorKind::Locked);
        assert_eq!(lock_tree(dir.path()).expect_err("holds it").kind, ErrorKind::Locked);
        assert!(lock_tree(&c).expect("beside it").is_some());
        drop(held);
        assert!(lock_tree(&b).expect("free again").is_some());
    }
}
