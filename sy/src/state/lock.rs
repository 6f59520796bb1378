//! One run at a time into a tree.
//!
//! A run holds its destination exclusively and all directories above it shared, as databases lock hierarchies: a second
//! run into the same tree, a part of it, or a tree that holds it, is refused. Directories are told by device and inode,
//! so a second path to the same tree is no way around. The kernel drops the locks of a process that dies.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{ErrorKind, Result, SyncError};

/// Held while a run writes.
#[derive(Debug)]
pub struct Lock(Vec<OwnedFd>);

impl Drop for Lock {
    fn drop(&mut self) {
        for held in &self.0 {
            // Closing would not do: a process forked meanwhile has the descriptor too.
            let _ = rustix::fs::flock(held, FlockOperation::Unlock);
        }
    }
}

fn locked(real: &Path) -> SyncError {
    SyncError::new(ErrorKind::Locked, "another run is writing to it, to a part of it or to what holds it")
        .at("sync into", real.as_os_str().as_bytes())
        .hint("wait for that run to end")
}

/// Locks the tree at `real` (a path without links), or only `name` in it, or says who can't have it.
/// `None` where no lock can be kept.
pub fn lock_tree(real: &Path, name: Option<&[u8]>) -> Result<Option<Lock>> {
    let Some(dir) = super::directory().map(|state| state.join("locks")) else { return Ok(None) };
    if std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).is_err() {
        return Ok(None);
    }
    let target = name.map_or_else(|| real.to_path_buf(), |name| real.join(OsStr::from_bytes(name)));
    let mut held = Lock(Vec::new());
    for path in target.ancestors() {
        let Ok(state) = rustix::fs::lstat(path) else { continue };
        let whole = path == target;
        if whole && !rustix::fs::FileType::from_raw_mode(state.st_mode).is_dir() {
            continue;
        }
        let how = if whole { FlockOperation::NonBlockingLockExclusive } else { FlockOperation::NonBlockingLockShared };
        let mut files = vec![(dir.join(format!("{:x}-{:x}", state.st_dev, state.st_ino)), how)];
        if let (true, Some(name)) = (path == real, name) {
            // What is not there yet can be told by its name only.
            let hash = &blake3::hash(name).to_hex()[..16];
            files.push((dir.join(format!("{:x}-{:x}-{hash}", state.st_dev, state.st_ino)), FlockOperation::NonBlockingLockExclusive));
        }
        for (file, how) in files {
            let Ok(file) = open(&file) else { return Ok(None) };
            if !held.take(file.into(), how, &target)? {
                return Ok(None);
            }
        }
        // The directory itself is locked too, which holds also against runs of other users, and other mounts of it.
        if whole || path == real {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            if let Ok(own) = rustix::fs::open(path, flags, Mode::empty()) {
                held.take(own, how, &target)?;
            }
        }
    }
    Ok(Some(held))
}

/// The same for a location that is no local path: other runs on this machine can't have it, nor parts of it, nor what
/// holds it. `identity` is told apart by slashes; `shown` is what a message calls it.
pub fn lock_name(identity: &[u8], name: Option<&[u8]>, shown: &[u8]) -> Result<Option<Lock>> {
    let Some(dir) = super::directory().map(|state| state.join("locks")) else { return Ok(None) };
    if std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).is_err() {
        return Ok(None);
    }
    let identity = identity.strip_suffix(b"/").unwrap_or(identity);
    let whole = name.map_or_else(|| identity.to_vec(), |name| [identity, b"/", name].concat());
    let ends = whole.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at).chain([whole.len()]);
    let mut held = Lock(Vec::new());
    for end in ends {
        let own = end == whole.len();
        let how = if own { FlockOperation::NonBlockingLockExclusive } else { FlockOperation::NonBlockingLockShared };
        let path = dir.join(format!("name-{}", &blake3::hash(&whole[..end]).to_hex()[..32]));
        let Ok(file) = open(&path) else { return Ok(None) };
        if !held.take(file.into(), how, Path::new(OsStr::from_bytes(shown)))? {
            return Ok(None);
        }
    }
    Ok(Some(held))
}

impl Lock {
    /// Adds a lock; `false` if the file system keeps none.
    fn take(&mut self, file: OwnedFd, how: FlockOperation, target: &Path) -> Result<bool> {
        match rustix::fs::flock(&file, how) {
            Ok(()) => {
                self.0.push(file);
                Ok(true)
            }
            Err(Errno::WOULDBLOCK) => Err(locked(target)),
            Err(_) => Ok(false),
        }
    }
}

fn open(path: &PathBuf) -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_and_its_parts_are_locked_together() {
        let lock = |text: &str| lock_name(format!("test {} s3://b/{text}", std::process::id()).as_bytes(), None, b"s3://b");
        let Some(held) = lock("a/b/").expect("free") else { return };
        for taken in ["a/b/", "a/b/c/", "a/", ""] {
            assert_eq!(lock(taken).expect_err(taken).kind, ErrorKind::Locked);
        }
        assert!(lock("a/bc/").expect("beside it").is_some());
        drop(held);
        assert!(lock("a/").expect("free again").is_some());
    }

    #[test]
    fn a_tree_and_its_parts_are_locked_together() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (a, b, c) = (dir.path().join("a"), dir.path().join("a/b"), dir.path().join("c"));
        for path in [&a, &b, &c] {
            std::fs::create_dir(path).expect("new");
        }
        let Some(held) = lock_tree(&a, None).expect("free") else { return };
        assert_eq!(lock_tree(&a, None).expect_err("held").kind, ErrorKind::Locked);
        assert_eq!(lock_tree(&b, None).expect_err("part of it").kind, ErrorKind::Locked);
        assert_eq!(lock_tree(dir.path(), None).expect_err("holds it").kind, ErrorKind::Locked);
        assert!(lock_tree(&c, None).expect("beside it").is_some());
        drop(held);
        let one = lock_tree(&a, Some(b"b")).expect("a part");
        assert!(lock_tree(&a, Some(b"x")).expect("another part").is_some());
        assert_eq!(lock_tree(&b, None).expect_err("the same part").kind, ErrorKind::Locked);
        assert_eq!(lock_tree(&a, None).expect_err("the whole").kind, ErrorKind::Locked);
        drop(one);
        assert!(lock_tree(&b, None).expect("free again").is_some());
    }
}
