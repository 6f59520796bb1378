//! Writes into a local directory tree, wherever the content comes from.
//!
//! Every entry goes the same way: temporary name in the destination directory → data → metadata → close → rename.

use std::os::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::aside::Aside;
use super::attributes::{Keep, Now, chmod_at, chown_at, owned_alike, same_time, set_time_at};
use super::data::Copier;
use super::place::{Refusal, exchange, is_still, place};
use super::root::{Root, stat_at, stat_fd};
use super::temp::{Ours, TempNames, ours, part_name};
use super::xattrs::{Attributes, has_default_acl};
use super::{LocalEndpoint, remove};
use crate::cli::Options;
use crate::error::{Result, SyncError};
use crate::sync::{Control, Dir};
use crate::transport::{Applied, Doomed, Kind, Meta, Op, Time};

/// From this size on a transfer that was cut off is kept and gone on with.
pub const RESUMABLE: u64 = 32 << 20;

/// Opens any entry, also a link, for its attributes only.
const PATH: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The destination of a run.
pub struct Writer<'r> {
    pub root: &'r Root,
    pub keep: Keep,
    pub copier: Copier,
    pub temp_names: TempNames,
    aside: Option<Aside>,
    pub precision: u64,
    pub verify: bool,
    resume: bool,
    /// Bits that the kernel takes from the mode of new files; all of them where that is not known.
    pub umask: u32,
    pub dev: u64,
    pub control: &'r Control,
}

impl std::fmt::Debug for Writer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

impl<'r> Writer<'r> {
    pub fn new(dest: &'r LocalEndpoint, options: &Options, precision: u64, control: &'r Control) -> Result<Self> {
        let root = dest.root();
        let aside = match &options.backup_dir {
            // As in rsync, a relative backup folder stands below the destination.
            Some(dir) => Some(Aside::backup(std::path::Path::new(std::ffi::OsStr::from_bytes(root.real())).join(dir))),
            None if options.trash && !options.dry_run => Some(Aside::trash(root.fd(), root.real())?),
            None => None,
        };
        Ok(Self {
            root,
            keep: Keep::new(options),
            copier: Copier::new(options.bwlimit.map(|size| size.0), options.sparse),
            temp_names: TempNames::new(),
            aside,
            precision,
            verify: options.verify,
            resume: options.resume,
            umask: umask().unwrap_or(0o777),
            dev: stat_fd(root.fd()).map_or(0, |meta| meta.dev),
            control,
        })
    }

    /// Does what is replaced go to the backups or the trash?
    pub fn keeps_replaced(&self) -> bool {
        self.aside.is_some()
    }

    pub fn dest_dir(&self, dir: &Dir<'_>) -> Result<Arc<OwnedFd>> {
        dir.dest.get_or_open(|| self.root.open_dir(&dir.key)).map_err(|errno| SyncError::os(errno, "write", self.root.path_of(&dir.key)))
    }

    pub fn dest_path(&self, dir: &Dir<'_>, op: &Op) -> Vec<u8> {
        self.root.path_of(&dir.key_of(&op.name))
    }

    /// What mode and owner the temporary file has, as far as that is known without asking.
    pub fn fresh(&self, dir: &Dir<'_>, temp: &Temp, dest_dir: BorrowedFd<'_>) -> Now {
        let masked = temp.mode & self.umask != 0;
        let default_acl = || *dir.default_acl.get_or_init(|| has_default_acl(dest_dir));
        Now { mode: (!masked && !default_acl()).then_some(temp.mode), owner: None }
    }

    /// A new temporary file, never more open than the file will be.
    pub fn create(&self, dir: &Dir<'_>, op: &Op, meta: &Meta, dest_dir: BorrowedFd<'_>) -> Result<Temp> {
        let private = self.keep.owner || self.keep.reads_attributes(Kind::File);
        let like = if self.keep.permissions { meta.mode } else { replaced_file(op).map_or(meta.mode, |old| old.mode) };
        let mode = if private { 0o600 } else { like & 0o777 };
        // What comes from a store in ranges is read back where its check sum can't be put together from theirs.
        let access = if self.verify || meta.tagged || self.resume && meta.size >= RESUMABLE { OFlags::RDWR } else { OFlags::WRONLY };
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
    pub fn writable<T>(&self, dir: &Dir<'_>, dest_dir: BorrowedFd<'_>, call: impl Fn() -> Result<T, Errno>) -> Result<T, Errno> {
        match call() {
            Err(Errno::ACCESS) if self.keep.permissions => {
                let mode = remove::lift(dest_dir).ok_or(Errno::ACCESS)?;
                let _ = dir.lifted.set(mode);
                dir.touch();
                call()
            }
            other => other,
        }
    }

    /// Opens the file that is to be replaced, for reading.
    pub fn open_dest(&self, dir: &Dir<'_>, op: &Op) -> Result<OwnedFd> {
        let dest_dir = self.dest_dir(dir)?;
        rustix::fs::openat(&*dest_dir, &*op.name, super::reader::READ | OFlags::NOFOLLOW, Mode::empty())
            .map_err(|errno| SyncError::os(errno, "read", self.dest_path(dir, op)))
    }

    /// Gives a finished temporary file its metadata.
    pub fn describe(
        &self,
        dir: &Dir<'_>,
        op: &Op,
        meta: &Meta,
        wanted: Option<&Attributes>,
        temp: &Temp,
        dest_dir: BorrowedFd<'_>,
    ) -> Result<()> {
        let fail = |errno| SyncError::os(errno, "write", self.dest_path(dir, op));
        let dest = temp.fd.as_fd();
        self.keep.transfer(wanted, meta, dest, self.fresh(dir, temp, dest_dir)).map_err(fail)?;
        if !self.keep.permissions || !meta.known.mode {
            let mode = replaced_file(op).map_or(if meta.known.mode { meta.mode & 0o777 } else { 0o666 } & !self.umask, |old| old.mode);
            rustix::fs::fchmod(dest, Mode::from_raw_mode(mode)).map_err(fail)?;
        }
        Ok(())
    }

    pub fn put_in_place(&self, dir: &Dir<'_>, op: &Op, temp: Temp, dest_dir: BorrowedFd<'_>) -> Result<Applied> {
        let name = temp.name;
        let closed = close(temp.fd).map_err(|errno| SyncError::os(errno, "write", self.dest_path(dir, op)));
        let placed = closed.and_then(|()| self.place(dir, op, &name, dest_dir));
        if placed.is_err() {
            let _ = rustix::fs::unlinkat(dest_dir, &*name, AtFlags::empty());
        }
        placed
    }

    pub fn place(&self, dir: &Dir<'_>, op: &Op, temp: &[u8], dest_dir: BorrowedFd<'_>) -> Result<Applied> {
        if let (Some(aside), Some(old)) = (&self.aside, &op.dest)
            && old.kind != Kind::Dir
        {
            if !is_still(dest_dir, &op.name, old).unwrap_or(false) {
                return Err(Refusal::Changed.into_error(self.dest_path(dir, op)));
            }
            aside.keep(dest_dir, &dir.key_of(&op.name), &self.copier, self.control)?;
        }
        place(dest_dir, temp, &op.name, op.dest.as_ref()).map_err(|refusal| refusal.into_error(self.dest_path(dir, op)))?;
        Ok(if op.dest.is_some() { Applied::Updated } else { Applied::Created })
    }

    /// A link, FIFO, socket or device: made under a temporary name, then put in place.
    pub fn make_other(&self, dir: &Dir<'_>, op: &Op, wanted: Option<&Attributes>) -> Result<Applied> {
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
            if let Some(wanted) = wanted {
                let made = rustix::fs::openat(&*dest_dir, &*temp, PATH, Mode::empty())?;
                self.keep.give(wanted, made.as_fd())?;
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

    /// Makes `op` another name of the file at `leader`. `None`: that can't be, so the file has to be copied.
    pub fn hard_link(&self, dir: &Dir<'_>, op: &Op, leader: &[u8]) -> Result<Option<Applied>> {
        let dest_dir = self.dest_dir(dir)?;
        let fail = |errno| SyncError::os(errno, "link", self.dest_path(dir, op));
        let (leader_dir, leader_name) = crate::transport::split_key(leader);
        let leader_dir = self.root.open_dir(leader_dir).map_err(fail)?;
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

    /// Refuses what is not any more what was listed: it is somebody's change, which must not look like the source's file.
    pub fn must_be_still(&self, dir: &Dir<'_>, op: &Op, old: &Meta) -> Result<()> {
        let dest_dir = self.dest_dir(dir)?;
        let path = || self.dest_path(dir, op);
        match is_still(dest_dir.as_fd(), &op.name, old).map_err(|errno| SyncError::os(errno, "set the metadata of", path()))? {
            true => Ok(()),
            false => Err(Refusal::Changed.into_error(path())),
        }
    }

    /// Are the metadata, to be changed, those of other names too?
    pub fn shares_metadata(&self, op: &Op) -> bool {
        op.dest.is_some_and(|old| self.keep.shares_metadata(&op.source, &old, self.precision))
    }

    /// Are the attributes of what stands there others than these?
    pub fn attributes_differ(&self, dir: &Dir<'_>, op: &Op, wanted: &Attributes) -> Result<bool> {
        let dest_dir = self.dest_dir(dir)?;
        rustix::fs::openat(&*dest_dir, &*op.name, PATH, Mode::empty())
            .and_then(|dest| Ok(self.keep.attributes(dest.as_fd())? != *wanted))
            .map_err(|errno| SyncError::os(errno, "read the attributes of", self.dest_path(dir, op)))
    }

    /// Sets what differs in metadata, and says whether anything did.
    pub fn set_metadata(&self, dir: &Dir<'_>, op: &Op, wanted: Option<&Attributes>) -> Result<Applied> {
        let Some(old) = &op.dest else { return Ok(Applied::Same) };
        let dest_dir = self.dest_dir(dir)?;
        let fail = |errno| SyncError::os(errno, "set the metadata of", self.dest_path(dir, op));
        let wanted = match wanted {
            Some(wanted) if self.attributes_differ(dir, op, wanted)? => Some(wanted),
            _ => None,
        };
        if wanted.is_none() && !self.keep.differs(&op.source, old, self.precision) {
            return Ok(Applied::Same);
        }
        self.must_be_still(dir, op, old)?;
        if op.source.kind == Kind::File && (wanted.is_some() || self.keep.owner) {
            let dest = self.open_dest(dir, op)?;
            self.keep.transfer(wanted, &op.source, dest.as_fd(), Now::of(old)).map_err(fail)?;
            return Ok(Applied::Metadata);
        }
        if let Some(wanted) = wanted {
            let dest = rustix::fs::openat(&*dest_dir, &*op.name, PATH, Mode::empty()).map_err(fail)?;
            self.keep.give(wanted, dest.as_fd()).map_err(fail)?;
        }
        self.set_listed(dir, op, old)?;
        Ok(Applied::Metadata)
    }

    /// Sets what a listing shows of an entry's metadata.
    pub fn set_listed(&self, dir: &Dir<'_>, op: &Op, old: &Meta) -> Result<()> {
        let dest_dir = self.dest_dir(dir)?;
        let fail = |errno| SyncError::os(errno, "set the metadata of", self.dest_path(dir, op));
        let chowned = self.keep.owner && !owned_alike(&op.source, (old.uid, old.gid));
        if chowned {
            chown_at(dest_dir.as_fd(), &op.name, &op.source).map_err(fail)?;
        }
        // A new owner takes set-id bits away.
        if self.keep.permissions && op.source.kind != Kind::Symlink && (chowned || op.source.mode != old.mode) {
            chmod_at(dest_dir.as_fd(), &op.name, op.source.mode).map_err(fail)?;
        }
        if self.keep.times {
            set_time_at(dest_dir.as_fd(), &op.name, op.source.mtime).map_err(fail)?;
        }
        Ok(())
    }

    /// Makes the directory, atomically in place of what `replaced` describes.
    pub fn make_dir(&self, parent: &Dir<'_>, name: &[u8], source: &Meta, replaced: Option<&Meta>) -> Result<()> {
        let dest_dir = self.dest_dir(parent)?;
        let path = || self.root.path_of(&parent.key_of(name));
        let fail = |errno| SyncError::os(errno, "create", path());
        // Its owner must be able to work in it; nobody gets more than the source gives. The final mode comes last.
        let mode = Mode::from_raw_mode(if self.keep.owner { 0o700 } else { source.mode & 0o777 | 0o700 });
        let make = |name: &[u8]| self.writable(parent, dest_dir.as_fd(), || rustix::fs::mkdirat(&*dest_dir, name, mode));
        match replaced {
            None => make(name).map_err(|errno| match errno {
                Errno::EXIST => Refusal::Changed.into_error(path()),
                errno => fail(errno),
            })?,
            Some(old) => {
                if !is_still(dest_dir.as_fd(), name, old).map_err(fail)? {
                    return Err(Refusal::Changed.into_error(path()));
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

    /// Everything in the directory is done: sets its own metadata. `wanted` is asked for the attributes it is to have, where such
    /// are kept.
    pub fn finish_dir(&self, dir: &Dir<'_>, wanted: &mut dyn FnMut() -> Result<Attributes>) -> Result<bool> {
        if self.control.should_stop() {
            return Ok(false);
        }
        let Some(like) = &dir.like else {
            // A directory that is not to be made like another gets back the mode that stood in the way.
            if let Some(&mode) = dir.lifted.get() {
                let fail = |errno| SyncError::os(errno, "set the metadata of", self.root.path_of(&dir.key));
                rustix::fs::fchmod(&*self.dest_dir(dir)?, Mode::from_raw_mode(mode)).map_err(fail)?;
            }
            return Ok(false);
        };
        if let (false, Some(&mode)) = (like.known.mode, dir.lifted.get()) {
            let fail = |errno| SyncError::os(errno, "set the metadata of", self.root.path_of(&dir.key));
            rustix::fs::fchmod(&*self.dest_dir(dir)?, Mode::from_raw_mode(mode)).map_err(fail)?;
        }
        let attributes = self.keep.reads_attributes(Kind::Dir);
        let same = dir.had.as_ref().is_some_and(|had| !self.keep.differs(like, had, self.precision));
        if same && !dir.is_touched() && !attributes {
            return Ok(false);
        }
        let fail = |errno| SyncError::os(errno, "set the metadata of", self.root.path_of(&dir.key));
        let dest = self.dest_dir(dir)?;
        let now = if dir.is_touched() || dir.had.is_none() { Now::default() } else { dir.had.as_ref().map(Now::of).unwrap_or_default() };
        let wanted = if attributes { Some(wanted()?) } else { None };
        let differ = match &wanted {
            Some(wanted) => self.keep.attributes(dest.as_fd()).map_err(fail)? != *wanted,
            None => false,
        };
        if same && !dir.is_touched() && !differ {
            return Ok(false);
        }
        self.keep.transfer(wanted.as_ref(), like, dest.as_fd(), now).map_err(fail)?;
        Ok(!same || differ)
    }

    pub fn remove(&self, dir_key: &[u8], doomed: &[Doomed], report: &mut dyn FnMut(&Doomed, Result<()>)) {
        remove::remove(self.root, self.aside.as_ref(), &self.copier, self.control, dir_key, doomed, report);
    }

    pub fn touch_dir(&self, key: &[u8], mtime: Time) -> Result<()> {
        let fail = |errno| SyncError::os(errno, "set the time of", self.root.path_of(key));
        let dir = self.root.open_dir(key).map_err(fail)?;
        rustix::fs::futimens(&dir, &super::attributes::times(mtime)).map_err(fail)
    }

    pub fn clean_up(&self, dir: &Dir<'_>, leftovers: &[Box<[u8]>], wanted: &[Op]) {
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

    pub fn sync_all(&self) -> Result<()> {
        rustix::fs::syncfs(self.root.fd()).map_err(|errno| SyncError::os(errno, "write", self.root.path_of(b"")))?;
        self.aside.as_ref().map_or(Ok(()), Aside::sync_all)
    }
}

/// A file that is being made, under its temporary name.
pub struct Temp {
    pub fd: OwnedFd,
    name: Vec<u8>,
    mode: u32,
    /// It is kept when the transfer is cut off.
    pub part: bool,
    /// Bytes that an earlier run left in it.
    pub have: u64,
}

impl std::fmt::Debug for Temp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Temp").finish_non_exhaustive()
    }
}

impl Temp {
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    pub fn discard(self, dir: BorrowedFd<'_>) {
        drop(self.fd);
        let _ = rustix::fs::unlinkat(dir, &*self.name, AtFlags::empty());
    }
}

fn is_locked(dir: BorrowedFd<'_>, name: &[u8]) -> bool {
    rustix::fs::openat(dir, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
        .is_ok_and(|fd| rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK))
}

/// What stands there, if it is a file.
pub fn replaced_file(op: &Op) -> Option<&Meta> {
    op.dest.as_ref().filter(|old| old.kind == Kind::File)
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
