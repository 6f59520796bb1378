//! Local to local: the fast lane, without asynchronous I/O.
//!
//! Every entry goes the same way: temporary name in the destination directory → data → metadata → close → rename.

use std::os::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::aside::Aside;
use super::attributes::{Keep, Now, chmod_at, chown_at, has_default_acl, same_time, set_time_at};
use super::data::{Copier, Failure, first_difference};
use super::place::{exchange, is_still, place};
use super::root::{Follow, Root, stat_at, stat_fd};
use super::temp::{Ours, TempNames, ours, part_name};
use super::{LocalEndpoint, remove};
use crate::cli::Options;
use crate::error::{ErrorKind, Result, SyncError};
use crate::sync::{Control, Dir, Tally};
use crate::transport::{Applied, Doomed, Held, Kind, Lane, Meta, Op, Time, What};

/// From this size on a transfer that was cut off is kept and gone on with.
const RESUMABLE: u64 = 32 << 20;

/// A FIFO or device that took a file's place is opened without waiting.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

pub struct LocalLane<'r> {
    source: &'r Root,
    dest: &'r Root,
    keep: Keep,
    copier: Copier,
    temp_names: TempNames,
    aside: Option<Aside>,
    precision: u64,
    verify: bool,
    resume: bool,
    /// Bits that the kernel takes from the mode of new files; all of them where that is not known.
    umask: u32,
    dest_dev: u64,
    /// Access times can't be spared: not all is ours.
    leaves_traces: AtomicBool,
    pub bytes_read: AtomicU64,
    control: &'r Control,
    tally: &'r Tally,
}

impl std::fmt::Debug for LocalLane<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalLane").field("keep", &self.keep).finish_non_exhaustive()
    }
}

impl<'r> LocalLane<'r> {
    pub fn new(
        source: &'r LocalEndpoint,
        dest: &'r LocalEndpoint,
        options: &Options,
        precision: u64,
        control: &'r Control,
        tally: &'r Tally,
    ) -> Result<Self> {
        let (source, dest) = (source.root(), dest.root());
        let aside = match &options.backup_dir {
            // As in rsync, a relative backup folder stands below the destination.
            Some(dir) => Some(Aside::backup(std::path::Path::new(std::ffi::OsStr::from_bytes(dest.real())).join(dir))),
            None if options.trash && !options.dry_run => Some(Aside::trash(dest.fd(), dest.real())?),
            None => None,
        };
        Ok(Self {
            source,
            dest,
            keep: Keep::new(options),
            copier: Copier::new(options.bwlimit.map(|size| size.0), options.sparse),
            temp_names: TempNames::new(),
            aside,
            precision,
            verify: options.verify,
            resume: options.resume,
            umask: umask().unwrap_or(0o777),
            dest_dev: stat_fd(dest.fd()).map_or(0, |meta| meta.dev),
            leaves_traces: AtomicBool::new(false),
            bytes_read: AtomicU64::new(0),
            control,
            tally,
        })
    }

    fn source_dir(&self, dir: &Dir<'_>) -> Result<Arc<OwnedFd>> {
        dir.source
            .get_or_open(|| self.source.open_dir(&dir.key))
            .map_err(|errno| SyncError::os(errno, "read", self.source.path_of(&dir.key)))
    }

    fn dest_dir(&self, dir: &Dir<'_>) -> Result<Arc<OwnedFd>> {
        dir.dest.get_or_open(|| self.dest.open_dir(&dir.key)).map_err(|errno| SyncError::os(errno, "write", self.dest.path_of(&dir.key)))
    }

    fn source_path(&self, dir: &Dir<'_>, op: &Op) -> Vec<u8> {
        self.source.path_of(&dir.key_of(op.source_name()))
    }

    fn dest_path(&self, dir: &Dir<'_>, op: &Op) -> Vec<u8> {
        self.dest.path_of(&dir.key_of(&op.name))
    }

    /// Opens the source's file. A FIFO or device that took its place is opened without waiting, and found out afterwards.
    fn open_source(&self, dir: &Dir<'_>, op: &Op) -> Result<OwnedFd> {
        let opened = match self.source.follow() {
            Follow::Never => {
                let source_dir = self.source_dir(dir)?;
                self.open_quietly(READ | OFlags::NOFOLLOW, |flags| rustix::fs::openat(&*source_dir, op.source_name(), flags, Mode::empty()))
            }
            _ => self.open_quietly(READ, |flags| self.source.open(&dir.key_of(op.source_name()), flags)),
        };
        opened.map_err(|errno| match errno {
            Errno::LOOP => changed(self.source_path(dir, op)),
            errno => SyncError::os(errno, "read", self.source_path(dir, op)),
        })
    }

    fn copy_file(&self, dir: &Dir<'_>, op: &Op) -> Result<Applied> {
        let source = self.open_source(dir, op)?;
        let dest_dir = self.dest_dir(dir)?;
        let mut meta = op.source;
        if op.what == What::CopyIfDifferent && self.same_content(dir, op, source.as_fd(), dest_dir.as_fd())? && !self.shares_metadata(op) {
            return self.set_metadata(dir, op);
        }
        let mut again = true;
        loop {
            let temp = self.create(dir, op, &meta, dest_dir.as_fd())?;
            let done = self.fill(dir, op, &meta, source.as_fd(), &temp, dest_dir.as_fd());
            match done {
                Ok(None) => {
                    return self.put_in_place(dir, op, temp, dest_dir.as_fd());
                }
                // It was changed between scan and copy: what is open now is as good, if it holds still.
                Ok(Some(now)) if again && now.kind == Kind::File && now.ino == meta.ino => {
                    temp.discard(dest_dir.as_fd());
                    (meta, again) = (now, false);
                }
                Ok(Some(_)) => {
                    temp.discard(dest_dir.as_fd());
                    return Err(changed(self.source_path(dir, op)));
                }
                Err(error) => {
                    // A cut-off transfer is kept; what can't be right is not.
                    if !temp.part || error.kind == ErrorKind::Verification {
                        temp.discard(dest_dir.as_fd());
                    }
                    return Err(error);
                }
            }
        }
    }

    /// Does the destination's file have other names, and metadata that are not the source's? They can't be set for one
    /// name alone, so the file has to become one of its own.
    fn shares_metadata(&self, op: &Op) -> bool {
        op.dest.is_some_and(|old| op.source.nlink == 1 && old.nlink > 1 && self.keep.differs(&op.source, &old, self.precision))
    }

    /// Content, metadata, check. `Some(state)` when the source is not what `meta` says any more.
    fn fill(
        &self,
        dir: &Dir<'_>,
        op: &Op,
        meta: &Meta,
        source: BorrowedFd<'_>,
        temp: &Temp,
        dest_dir: BorrowedFd<'_>,
    ) -> Result<Option<Meta>> {
        let read_error = |errno| SyncError::os(errno, "read", self.source_path(dir, op));
        let write_error = |errno| SyncError::os(errno, "write", self.dest_path(dir, op));
        let dest = temp.fd.as_fd();
        let failure = |failure| match failure {
            Failure::Read(errno) => read_error(errno),
            Failure::Write(errno) => write_error(errno),
            Failure::Cancelled => SyncError::cancelled(),
        };
        let from = if temp.have > 0 { self.common_prefix(source, dest, temp.have.min(meta.size)).map_err(failure)? } else { 0 };
        if temp.have > from {
            rustix::fs::ftruncate(dest, from).map_err(write_error)?;
        }
        let end =
            if meta.size == 0 { 0 } else { self.copier.copy(source, meta, dest, self.dest_dev, from, self.control).map_err(failure)? };
        self.bytes_read.fetch_add(end - from, Relaxed);
        let now = stat_fd(source).map_err(read_error)?;
        if end != meta.size || !now.same_state(meta) {
            return Ok(Some(now));
        }
        self.keep.transfer(source, meta, dest, self.fresh(dir, temp, dest_dir)).map_err(write_error)?;
        if !self.keep.permissions {
            let mode = replaced_file(op).map_or(meta.mode & 0o777 & !self.umask, |old| old.mode);
            rustix::fs::fchmod(dest, Mode::from_raw_mode(mode)).map_err(write_error)?;
        }
        if self.verify {
            self.verify(source, dest, meta.size).map_err(failure)?.map_or(Ok(()), |at| {
                Err(SyncError::new(ErrorKind::Verification, format!("the copy differs from byte {at} on"))
                    .at("verify", self.dest_path(dir, op))
                    .retryable())
            })?;
            self.tally.files_verified.fetch_add(1, Relaxed);
        }
        Ok(None)
    }

    /// Reads the copy back from the disk, not from memory, where the system lets us.
    fn verify(&self, source: BorrowedFd<'_>, dest: BorrowedFd<'_>, size: u64) -> Result<Option<u64>, Failure> {
        rustix::fs::fdatasync(dest).map_err(Failure::Write)?;
        let _ = rustix::fs::fadvise(dest, 0, None, rustix::fs::Advice::DontNeed);
        let (difference, read) = first_difference(source, dest, size, self.control)?;
        self.bytes_read.fetch_add(2 * read, Relaxed);
        if difference.is_some() {
            self.tally.verification_failures.fetch_add(1, Relaxed);
        }
        Ok(difference)
    }

    /// How much of a kept part is right. It is read, not trusted: the machine may have gone down while it was written.
    fn common_prefix(&self, source: BorrowedFd<'_>, dest: BorrowedFd<'_>, have: u64) -> Result<u64, Failure> {
        let (difference, read) = first_difference(source, dest, have, self.control)?;
        self.bytes_read.fetch_add(2 * read, Relaxed);
        let good = difference.unwrap_or(have);
        self.control.bytes.fetch_add(good, Relaxed);
        Ok(good)
    }

    /// What mode and owner the temporary file has, as far as that is known without asking.
    fn fresh(&self, dir: &Dir<'_>, temp: &Temp, dest_dir: BorrowedFd<'_>) -> Now {
        let masked = temp.mode & self.umask != 0;
        let default_acl = || *dir.default_acl.get_or_init(|| has_default_acl(dest_dir));
        Now { mode: (!masked && !default_acl()).then_some(temp.mode), owner: None }
    }

    /// A new temporary file, never more open than the file will be.
    fn create(&self, dir: &Dir<'_>, op: &Op, meta: &Meta, dest_dir: BorrowedFd<'_>) -> Result<Temp> {
        let private = self.keep.owner || self.keep.reads_attributes(Kind::File);
        let like = if self.keep.permissions { meta.mode } else { replaced_file(op).map_or(meta.mode, |old| old.mode) };
        let mode = if private { 0o600 } else { like & 0o777 };
        let access = if self.verify || self.resume && meta.size >= RESUMABLE { OFlags::RDWR } else { OFlags::WRONLY };
        let flags = access | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fail = |errno| SyncError::os(errno, "write", self.dest_path(dir, op));
        if self.resume && meta.size >= RESUMABLE && meta.allocated >= meta.size {
            let name = part_name(&op.name, meta);
            // Kept to the owner until it is whole.
            let opened =
                self.writable(dir, dest_dir, || rustix::fs::openat(dest_dir, &*name, flags, Mode::from_raw_mode(mode & 0o700 | 0o600)));
            if let Ok(fd) = opened
                && rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive).is_ok()
                && let Ok(state) = stat_fd(fd.as_fd())
                && state.kind == Kind::File
                && state.nlink == 1
                && state.uid == rustix::process::geteuid().as_raw()
            {
                dir.touch();
                return Ok(Temp { fd, name, mode: state.mode, part: true, have: state.size });
            }
        }
        loop {
            let name = self.temp_names.next();
            match self.writable(dir, dest_dir, || rustix::fs::openat(dest_dir, &*name, flags | OFlags::EXCL, Mode::from_raw_mode(mode))) {
                Ok(fd) => {
                    dir.touch();
                    return Ok(Temp { fd, name, mode, part: false, have: 0 });
                }
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(fail(errno)),
            }
        }
    }

    /// Tries again with the directory made writable if it is ours and only its mode stands in the way.
    fn writable<T>(&self, dir: &Dir<'_>, dest_dir: BorrowedFd<'_>, call: impl Fn() -> Result<T, Errno>) -> Result<T, Errno> {
        match call() {
            Err(Errno::ACCESS) if self.keep.permissions => {
                let meta = stat_fd(dest_dir)?;
                if meta.mode & 0o300 == 0o300 || rustix::fs::fchmod(dest_dir, Mode::from_raw_mode(meta.mode | 0o300)).is_err() {
                    return Err(Errno::ACCESS);
                }
                let _ = dir.lifted.set(meta.mode);
                dir.touch();
                call()
            }
            other => other,
        }
    }

    fn put_in_place(&self, dir: &Dir<'_>, op: &Op, temp: Temp, dest_dir: BorrowedFd<'_>) -> Result<Applied> {
        let name = temp.name;
        let closed = close(temp.fd).map_err(|errno| SyncError::os(errno, "write", self.dest_path(dir, op)));
        let placed = closed.and_then(|()| self.place(dir, op, &name, dest_dir));
        if placed.is_err() {
            let _ = rustix::fs::unlinkat(dest_dir, &*name, AtFlags::empty());
        }
        placed
    }

    fn place(&self, dir: &Dir<'_>, op: &Op, temp: &[u8], dest_dir: BorrowedFd<'_>) -> Result<Applied> {
        if let (Some(aside), Some(old)) = (&self.aside, &op.dest)
            && old.kind != Kind::Dir
        {
            if !is_still(dest_dir, &op.name, old).unwrap_or(false) {
                return Err(super::place::Refusal::Changed.into_error(self.dest_path(dir, op)));
            }
            aside.keep(dest_dir, &dir.key_of(&op.name), &self.copier, self.control)?;
        }
        place(dest_dir, temp, &op.name, op.dest.as_ref()).map_err(|refusal| refusal.into_error(self.dest_path(dir, op)))?;
        Ok(if op.dest.is_some() { Applied::Updated } else { Applied::Created })
    }

    /// A link, FIFO, socket or device: made under a temporary name, then put in place.
    fn make_other(&self, dir: &Dir<'_>, op: &Op) -> Result<Applied> {
        let dest_dir = self.dest_dir(dir)?;
        let fail = |errno| SyncError::os(errno, "create", self.dest_path(dir, op));
        let temp = self.temp_names.next();
        self.writable(dir, dest_dir.as_fd(), || match (op.source.kind, &op.target) {
            (Kind::Symlink, Some(target)) => rustix::fs::symlinkat(&**target, &*dest_dir, &*temp),
            (kind, _) => rustix::fs::mknodat(
                &*dest_dir,
                &*temp,
                file_type(kind).ok_or(Errno::INVAL)?,
                Mode::from_raw_mode(op.source.mode & 0o777),
                op.source.rdev,
            ),
        })
        .map_err(fail)?;
        dir.touch();
        let done = (|| {
            if self.keep.owner {
                chown_at(dest_dir.as_fd(), &temp, &op.source)?;
            }
            if op.source.kind != Kind::Symlink && self.keep.permissions {
                chmod_at(dest_dir.as_fd(), &temp, op.source.mode)?;
            }
            if self.keep.reads_attributes(op.source.kind) {
                let source = self.source.open(&dir.key_of(op.source_name()), OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC)?;
                let made = rustix::fs::openat(&*dest_dir, &*temp, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
                self.keep.copy_attributes(source.as_fd(), made.as_fd())?;
            }
            if self.keep.times {
                set_time_at(dest_dir.as_fd(), &temp, op.source.mtime)?;
            }
            Ok(())
        })()
        .map_err(fail)
        .and_then(|()| self.place(dir, op, &temp, dest_dir.as_fd()));
        if done.is_err() {
            let _ = rustix::fs::unlinkat(&*dest_dir, &*temp, AtFlags::empty());
        }
        done
    }

    /// Opens without leaving a trace in the access time where that is allowed, which also spares writing the inode.
    fn open_quietly(&self, flags: OFlags, open: impl Fn(OFlags) -> Result<OwnedFd, Errno>) -> Result<OwnedFd, Errno> {
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

    fn open_dest(&self, dir: &Dir<'_>, op: &Op, dest_dir: BorrowedFd<'_>) -> Result<OwnedFd> {
        self.open_quietly(READ | OFlags::NOFOLLOW, |flags| rustix::fs::openat(dest_dir, &*op.name, flags, Mode::empty()))
            .map_err(|errno| SyncError::os(errno, "read", self.dest_path(dir, op)))
    }

    fn same_content(&self, dir: &Dir<'_>, op: &Op, source: BorrowedFd<'_>, dest_dir: BorrowedFd<'_>) -> Result<bool> {
        let dest = self.open_dest(dir, op, dest_dir)?;
        let (difference, read) = first_difference(source, dest.as_fd(), op.source.size, self.control).map_err(|failure| match failure {
            Failure::Read(errno) => SyncError::os(errno, "read", self.source_path(dir, op)),
            Failure::Write(errno) => SyncError::os(errno, "read", self.dest_path(dir, op)),
            Failure::Cancelled => SyncError::cancelled(),
        })?;
        self.bytes_read.fetch_add(2 * read, Relaxed);
        Ok(difference.is_none())
    }

    /// Sets what differs in metadata, and says whether anything did.
    fn set_metadata(&self, dir: &Dir<'_>, op: &Op) -> Result<Applied> {
        let Some(old) = &op.dest else { return Ok(Applied::Same) };
        let dest_dir = self.dest_dir(dir)?;
        let fail = |errno| SyncError::os(errno, "set the metadata of", self.dest_path(dir, op));
        let attributes = self.keep.reads_attributes(op.source.kind) && self.attributes_differ(dir, op)?;
        if !attributes && !self.keep.differs(&op.source, old, self.precision) {
            return Ok(Applied::Same);
        }
        if !is_still(dest_dir.as_fd(), &op.name, old).map_err(fail)? {
            return Err(super::place::Refusal::Changed.into_error(self.dest_path(dir, op)));
        }
        if attributes && op.source.kind != Kind::File {
            let (source, dest) = (self.open_path(self.source, dir, op.source_name())?, self.open_path(self.dest, dir, &op.name)?);
            self.keep.copy_attributes(source.as_fd(), dest.as_fd()).map_err(fail)?;
        } else if attributes || op.source.kind == Kind::File && self.keep.owner {
            let source = self.open_path(self.source, dir, op.source_name())?;
            let dest = self.open_dest(dir, op, dest_dir.as_fd())?;
            self.keep.transfer(source.as_fd(), &op.source, dest.as_fd(), Now::of(old)).map_err(fail)?;
            return Ok(Applied::Metadata);
        }
        if self.keep.owner && (op.source.uid, op.source.gid) != (old.uid, old.gid) {
            chown_at(dest_dir.as_fd(), &op.name, &op.source).map_err(fail)?;
        }
        if self.keep.permissions && op.source.kind != Kind::Symlink && op.source.mode != old.mode {
            chmod_at(dest_dir.as_fd(), &op.name, op.source.mode).map_err(fail)?;
        }
        if self.keep.times {
            set_time_at(dest_dir.as_fd(), &op.name, op.source.mtime).map_err(fail)?;
        }
        Ok(Applied::Metadata)
    }

    fn open_path(&self, root: &Root, dir: &Dir<'_>, name: &[u8]) -> Result<OwnedFd> {
        let key = dir.key_of(name);
        let nofollow = if root.follow() == Follow::Never { OFlags::NOFOLLOW } else { OFlags::empty() };
        root.open(&key, OFlags::PATH | nofollow | OFlags::CLOEXEC).map_err(|errno| SyncError::os(errno, "read", root.path_of(&key)))
    }

    fn attributes_differ(&self, dir: &Dir<'_>, op: &Op) -> Result<bool> {
        let (source, dest) = (self.open_path(self.source, dir, op.source_name())?, self.open_path(self.dest, dir, &op.name)?);
        self.keep
            .attributes_differ(source.as_fd(), dest.as_fd())
            .map_err(|errno| SyncError::os(errno, "read the attributes of", self.source_path(dir, op)))
    }
}

impl Lane for LocalLane<'_> {
    fn hold(&self, dir: &Dir<'_>) -> Held {
        (self.source_dir(dir).ok(), self.dest_dir(dir).ok())
    }

    fn apply(&self, dir: &Dir<'_>, op: &Op) -> Result<Applied> {
        match op.what {
            What::Copy | What::CopyIfDifferent if op.source.kind == Kind::File => self.copy_file(dir, op),
            What::Copy | What::CopyIfDifferent => self.make_other(dir, op),
            What::Metadata | What::Attributes => self.set_metadata(dir, op),
            What::Nothing => Ok(Applied::Same),
        }
    }

    fn examine(&self, dir: &Dir<'_>, op: &Op) -> Result<Applied> {
        let differs = || match &op.dest {
            Some(old) if self.keep.differs(&op.source, old, self.precision) => Ok(true),
            Some(_) if self.keep.reads_attributes(op.source.kind) => self.attributes_differ(dir, op),
            _ => Ok(false),
        };
        Ok(match op.what {
            What::CopyIfDifferent => {
                let source = self.open_source(dir, op)?;
                match self.same_content(dir, op, source.as_fd(), self.dest_dir(dir)?.as_fd())? {
                    false => Applied::Updated,
                    true if self.shares_metadata(op) => Applied::Updated,
                    true if differs()? => Applied::Metadata,
                    true => Applied::Same,
                }
            }
            What::Copy if op.dest.is_some() => Applied::Updated,
            What::Copy => Applied::Created,
            What::Metadata => Applied::Metadata,
            What::Attributes if differs()? => Applied::Metadata,
            What::Attributes | What::Nothing => Applied::Same,
        })
    }

    fn refresh(&self, dir: &Dir<'_>, op: &mut Op) -> Result<()> {
        let handle = self.source_dir(dir)?;
        let (meta, target) = super::list::stat(self.source, &dir.key, handle.as_fd(), op.source_name())?;
        if meta.kind != op.source.kind {
            return Err(SyncError { retryable: false, ..changed(self.source_path(dir, op)) });
        }
        // What was listed at the destination stays what may be replaced.
        (op.source, op.target) = (meta, target);
        Ok(())
    }

    fn make_dir(&self, parent: &Dir<'_>, name: &[u8], source: &Meta, replaced: Option<&Meta>) -> Result<()> {
        let dest_dir = self.dest_dir(parent)?;
        let path = || self.dest.path_of(&parent.key_of(name));
        let fail = |errno| SyncError::os(errno, "create", path());
        // Its owner must be able to work in it; nobody gets more than the source gives. The final mode comes last.
        let mode = Mode::from_raw_mode(if self.keep.owner { 0o700 } else { source.mode & 0o777 | 0o700 });
        let make = |name: &[u8]| self.writable(parent, dest_dir.as_fd(), || rustix::fs::mkdirat(&*dest_dir, name, mode));
        match replaced {
            None => make(name).map_err(|errno| match errno {
                Errno::EXIST => super::place::Refusal::Changed.into_error(path()),
                errno => fail(errno),
            })?,
            Some(old) => {
                if !is_still(dest_dir.as_fd(), name, old).map_err(fail)? {
                    return Err(super::place::Refusal::Changed.into_error(path()));
                }
                if let Some(aside) = &self.aside {
                    aside.keep(dest_dir.as_fd(), &parent.key_of(name), &self.copier, self.control)?;
                }
                let temp = self.temp_names.next();
                make(&temp).map_err(fail)?;
                if let Err(refusal) = exchange(dest_dir.as_fd(), &temp, name, AtFlags::empty()) {
                    let _ = rustix::fs::unlinkat(&*dest_dir, &*temp, AtFlags::REMOVEDIR);
                    return Err(refusal.into_error(path()));
                }
            }
        }
        parent.touch();
        Ok(())
    }

    fn finish_dir(&self, dir: &Dir<'_>) -> Result<bool> {
        if self.control.should_stop() {
            return Ok(false);
        }
        let Some(like) = &dir.like else {
            // A directory that is not to be made like another gets back the mode that stood in the way.
            if let Some(&mode) = dir.lifted.get() {
                let fail = |errno| SyncError::os(errno, "set the metadata of", self.dest.path_of(&dir.key));
                rustix::fs::fchmod(&*self.dest_dir(dir)?, Mode::from_raw_mode(mode)).map_err(fail)?;
            }
            return Ok(false);
        };
        let attributes = self.keep.reads_attributes(Kind::Dir);
        let same = dir.had.as_ref().is_some_and(|had| !self.keep.differs(like, had, self.precision));
        if same && !dir.is_touched() && !attributes {
            return Ok(false);
        }
        let fail = |errno| SyncError::os(errno, "set the metadata of", self.dest.path_of(&dir.key));
        let dest = self.dest_dir(dir)?;
        let now = if dir.is_touched() || dir.had.is_none() { Now::default() } else { dir.had.as_ref().map(Now::of).unwrap_or_default() };
        if attributes {
            let source = self.source_dir(dir)?;
            let differ = self.keep.attributes_differ(source.as_fd(), dest.as_fd()).map_err(fail)?;
            if same && !dir.is_touched() && !differ {
                return Ok(false);
            }
            self.keep.transfer(source.as_fd(), like, dest.as_fd(), now).map_err(fail)?;
            return Ok(!same || differ);
        } else {
            self.keep.transfer(dest.as_fd(), like, dest.as_fd(), now).map_err(fail)?;
        }
        Ok(!same)
    }

    fn examine_dir(&self, dir: &Dir<'_>) -> Result<bool> {
        if !self.keep.reads_attributes(Kind::Dir) || dir.like.is_none() {
            return Ok(false);
        }
        let (source, dest) = (self.source_dir(dir)?, self.dest_dir(dir)?);
        self.keep
            .attributes_differ(source.as_fd(), dest.as_fd())
            .map_err(|errno| SyncError::os(errno, "read the attributes of", self.source.path_of(&dir.key)))
    }

    fn is_linked(&self, op: &Op, leader: &[u8]) -> bool {
        let (dir, name) = crate::transport::split_key(leader);
        let found = self.dest.open_dir(dir).and_then(|dir| stat_at(dir.as_fd(), name));
        matches!((found, &op.dest), (Ok(leader), Some(own)) if leader.identity() == own.identity())
    }

    fn hard_link(&self, dir: &Dir<'_>, op: &Op, leader: &[u8]) -> Result<Option<Applied>> {
        let dest_dir = self.dest_dir(dir)?;
        let fail = |errno| SyncError::os(errno, "link", self.dest_path(dir, op));
        let (leader_dir, leader_name) = crate::transport::split_key(leader);
        let leader_dir = self.dest.open_dir(leader_dir).map_err(fail)?;
        let Ok(target) = stat_at(leader_dir.as_fd(), leader_name) else { return Ok(None) };
        // A leader that could not be brought over must not lend its old content to others.
        let stale = target.kind != op.source.kind
            || op.source.kind == Kind::File && target.size != op.source.size
            || self.keep.times && !same_time(&op.source, &target, self.precision);
        if stale {
            return Ok(None);
        }
        match stat_at(dest_dir.as_fd(), &op.name) {
            Ok(now) if (now.ino, now.dev) == (target.ino, target.dev) => return Ok(Some(Applied::Same)),
            _ => {}
        }
        let temp = self.temp_names.next();
        match self.writable(dir, dest_dir.as_fd(), || rustix::fs::linkat(&leader_dir, leader_name, &*dest_dir, &*temp, AtFlags::empty())) {
            Ok(()) => {}
            // The file system has no links, or no more for this file.
            Err(Errno::MLINK | Errno::OPNOTSUPP | Errno::PERM | Errno::XDEV) => return Ok(None),
            Err(errno) => return Err(fail(errno)),
        }
        dir.touch();
        let placed = self.place(dir, op, &temp, dest_dir.as_fd());
        if placed.is_err() {
            let _ = rustix::fs::unlinkat(&*dest_dir, &*temp, AtFlags::empty());
        }
        placed.map(Some)
    }

    fn remove_source(&self, dir: &Dir<'_>, op: &Op) -> Result<()> {
        let (source, dest) = (self.source_dir(dir)?, self.dest_dir(dir)?);
        let fail = |errno| SyncError::os(errno, "remove the source", self.source_path(dir, op));
        let copy = stat_at(dest.as_fd(), &op.name).map_err(fail)?;
        let same_dir = || Ok::<bool, Errno>(stat_fd(source.as_fd())?.identity() == stat_fd(dest.as_fd())?.identity());
        let itself = copy.identity() == op.source.identity() && (copy.nlink == 1 || same_dir().map_err(fail)?);
        if itself || copy.kind != op.source.kind || op.source.kind == Kind::File && copy.size != op.source.size {
            return Err(SyncError::new(ErrorKind::Conflict, "its copy is not in place").at("remove the source", self.source_path(dir, op)));
        }
        match stat_at(source.as_fd(), op.source_name()).map_err(fail)?.same_state(&op.source) {
            true => rustix::fs::unlinkat(&*source, op.source_name(), AtFlags::empty()).map_err(fail),
            false => Err(changed(self.source_path(dir, op))),
        }
    }

    fn remove(&self, dir_key: &[u8], doomed: &[Doomed], report: &mut dyn FnMut(&Doomed, Result<()>)) {
        remove::remove(self.dest, self.aside.as_ref(), &self.copier, self.control, dir_key, doomed, report);
    }

    fn touch_dir(&self, key: &[u8], mtime: Time) -> Result<()> {
        let fail = |errno| SyncError::os(errno, "set the time of", self.dest.path_of(key));
        let dir = self.dest.open_dir(key).map_err(fail)?;
        rustix::fs::futimens(&dir, &super::attributes::times(mtime)).map_err(fail)
    }

    fn clean_up(&self, dir: &Dir<'_>, leftovers: &[Box<[u8]>], wanted: &[Op]) {
        let Ok(dest_dir) = self.dest_dir(dir) else { return };
        let kept: Vec<Vec<u8>> = wanted.iter().filter(|_| self.resume).map(|op| part_name(&op.name, &op.source)).collect();
        for name in leftovers {
            let in_use = ours(name) == Some(Ours::Part) && (kept.iter().any(|part| **part == **name) || is_locked(dest_dir.as_fd(), name));
            if in_use {
                continue;
            }
            // A directory is left where a run was killed while it swapped one with a file.
            let removed = match rustix::fs::unlinkat(&*dest_dir, &**name, AtFlags::empty()) {
                Err(Errno::ISDIR | Errno::PERM) => rustix::fs::unlinkat(&*dest_dir, &**name, AtFlags::REMOVEDIR),
                other => other,
            };
            if removed.is_ok() {
                dir.touch();
            }
        }
    }

    fn sync_all(&self) -> Result<()> {
        rustix::fs::syncfs(self.dest.fd()).map_err(|errno| SyncError::os(errno, "write", self.dest.path_of(b"")))?;
        self.aside.as_ref().map_or(Ok(()), Aside::sync_all)
    }
}

/// A file that is being made, under its temporary name.
struct Temp {
    fd: OwnedFd,
    name: Vec<u8>,
    mode: u32,
    /// It is kept when the transfer is cut off.
    part: bool,
    /// Bytes that an earlier run left in it.
    have: u64,
}

impl Temp {
    fn discard(self, dir: BorrowedFd<'_>) {
        drop(self.fd);
        let _ = rustix::fs::unlinkat(dir, &*self.name, AtFlags::empty());
    }
}

fn is_locked(dir: BorrowedFd<'_>, name: &[u8]) -> bool {
    rustix::fs::openat(dir, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
        .is_ok_and(|fd| rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK))
}

fn replaced_file(op: &Op) -> Option<&Meta> {
    op.dest.as_ref().filter(|old| old.kind == Kind::File)
}

fn changed(path: Vec<u8>) -> SyncError {
    SyncError::new(ErrorKind::SourceChanged, "it changed while it was read").at("read", path).retryable()
}

/// What `mknod` makes of it; `None` for what has calls of its own.
pub(super) fn file_type(kind: Kind) -> Option<FileType> {
    match kind {
        Kind::Fifo => Some(FileType::Fifo),
        Kind::Socket => Some(FileType::Socket),
        Kind::CharDevice => Some(FileType::CharacterDevice),
        Kind::BlockDevice => Some(FileType::BlockDevice),
        Kind::File | Kind::Dir | Kind::Symlink => None,
    }
}

/// Closes and tells: some file systems report a failed write only now.
#[expect(unsafe_code, reason = "try_close takes a raw descriptor")]
fn close(fd: OwnedFd) -> Result<(), Errno> {
    let raw = fd.into_raw_fd();
    // SAFETY: `into_raw_fd` gave up ownership, so nobody else closes or uses the descriptor.
    match unsafe { rustix::io::try_close(raw) } {
        // Linux has closed it all the same; closing again could hit another file.
        Err(Errno::INTR) => Ok(()),
        other => other,
    }
}

/// The process's umask, without changing it for the other threads as `umask(2)` would.
fn umask() -> Option<u32> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"))?;
    u32::from_str_radix(line.trim(), 8).ok()
}
