//! Reads from a local directory tree, wherever the content goes.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::LocalEndpoint;
use super::attributes::Keep;
use super::root::{Follow, Root, stat_at};
use super::xattrs::Attributes;
use crate::error::{ErrorKind, Result, SyncError};
use crate::sync::Dir;
use crate::transport::{Kind, Op};

/// A FIFO or device that took a file's place is opened without waiting.
pub const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// The source of a run.
pub struct Reader<'r> {
    pub root: &'r Root,
    /// Access times can't be spared: not all is ours.
    leaves_traces: AtomicBool,
}

impl std::fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}

impl<'r> Reader<'r> {
    pub fn new(source: &'r LocalEndpoint) -> Self {
        Self { root: source.root(), leaves_traces: AtomicBool::new(false) }
    }

    pub fn dir(&self, dir: &Dir<'_>) -> Result<Arc<OwnedFd>> {
        dir.source.get_or_open(|| self.root.open_dir(&dir.key)).map_err(|errno| SyncError::os(errno, "read", self.root.path_of(&dir.key)))
    }

    pub fn path(&self, dir: &Dir<'_>, op: &Op) -> Vec<u8> {
        self.root.path_of(&dir.key_of(op.source_name()))
    }

    /// Opens the source's file. A FIFO or device that took its place is opened without waiting, and found out afterwards.
    pub fn open(&self, dir: &Dir<'_>, op: &Op) -> Result<OwnedFd> {
        let opened = match self.root.follow() {
            Follow::Never => {
                let source_dir = self.dir(dir)?;
                self.open_quietly(READ | OFlags::NOFOLLOW, |flags| rustix::fs::openat(&*source_dir, op.source_name(), flags, Mode::empty()))
            }
            _ => self.open_quietly(READ, |flags| self.root.open(&dir.key_of(op.source_name()), flags)),
        };
        opened.map_err(|errno| match errno {
            Errno::LOOP => changed(self.path(dir, op)),
            errno => SyncError::os(errno, "read", self.path(dir, op)),
        })
    }

    /// Opens without leaving a trace in the access time where that is allowed, which also spares writing the inode.
    pub fn open_quietly(&self, flags: OFlags, open: impl Fn(OFlags) -> Result<OwnedFd, Errno>) -> Result<OwnedFd, Errno> {
        if self.leaves_traces.load(Relaxed) {
            return open(flags);
        }
        match open(flags | OFlags::NOATIME) {
            // It is for the owner to ask for that.
            Err(Errno::PERM) => {
                self.leaves_traces.store(true, Relaxed);
                open(flags)
            }
            other => other,
        }
    }

    /// The attributes of an entry that `keep` has a use for; `None` if it has for none.
    pub fn attributes(&self, dir: &Dir<'_>, op: &Op, keep: Keep) -> Result<Option<Attributes>> {
        if !keep.reads_attributes(op.source.kind) {
            return Ok(None);
        }
        let nofollow = if self.root.follow() == Follow::Never { OFlags::NOFOLLOW } else { OFlags::empty() };
        self.root
            .open(&dir.key_of(op.source_name()), OFlags::PATH | nofollow | OFlags::CLOEXEC)
            .and_then(|entry| keep.attributes(entry.as_fd()))
            .map(Some)
            .map_err(|errno| SyncError::os(errno, "read the attributes of", self.path(dir, op)))
    }

    /// The same for an open file.
    pub fn attributes_of(&self, dir: &Dir<'_>, op: &Op, file: BorrowedFd<'_>, keep: Keep) -> Result<Option<Attributes>> {
        if !keep.reads_attributes(Kind::File) {
            return Ok(None);
        }
        keep.attributes(file).map(Some).map_err(|errno| SyncError::os(errno, "read the attributes of", self.path(dir, op)))
    }

    /// The attributes of a directory.
    pub fn dir_attributes(&self, dir: &Dir<'_>, keep: Keep) -> Result<Attributes> {
        let fail = |errno| SyncError::os(errno, "read the attributes of", self.root.path_of(&dir.key));
        keep.attributes(self.dir(dir)?.as_fd()).map_err(fail)
    }

    /// The state of the source now, for another try.
    pub fn refresh(&self, dir: &Dir<'_>, op: &mut Op) -> Result<()> {
        let handle = self.dir(dir)?;
        let (meta, target) = super::list::stat(self.root, &dir.key, handle.as_fd(), op.source_name())?;
        if meta.kind != op.source.kind {
            return Err(SyncError { retryable: false, ..changed(self.path(dir, op)) });
        }
        // What was listed at the destination stays what may be replaced.
        (op.source, op.target) = (meta, target);
        Ok(())
    }

    /// Removes the file if it is still what was copied.
    pub fn remove(&self, dir: &Dir<'_>, op: &Op) -> Result<()> {
        let source = self.dir(dir)?;
        let fail = |errno| SyncError::os(errno, "remove the source", self.path(dir, op));
        match stat_at(source.as_fd(), op.source_name()).map_err(fail)?.same_state(&op.source) {
            true => rustix::fs::unlinkat(&*source, op.source_name(), AtFlags::empty()).map_err(fail),
            false => Err(changed(self.path(dir, op))),
        }
    }
}

pub fn changed(path: Vec<u8>) -> SyncError {
    SyncError::new(ErrorKind::SourceChanged, "it changed while it was read").at("read", path).retryable()
}
