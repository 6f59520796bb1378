//! Local to local: the fast lane. Reads the source, hands over to `Writer`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::Relaxed;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::LocalEndpoint;
use super::data::{Failure, Target, first_difference};
use super::pages::write_out;
use super::reader::{READ, Reader, changed};
use super::root::{stat_at, stat_fd};
use super::writer::{Temp, Writer, replaced_file};
use crate::cli::Options;
use crate::error::{ErrorKind, Result, SyncError};
use crate::sync::{Control, Dir, Tally};
use crate::transport::{Applied, Done, Doomed, Held, Kind, Lane, Meta, Op, Time, What, not_in_place};

pub struct LocalLane<'r> {
    from: Reader<'r>,
    to: Writer<'r>,
    tally: &'r Tally,
}

impl std::fmt::Debug for LocalLane<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalLane").field("keep", &self.to.keep).finish_non_exhaustive()
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
        Ok(Self { from: Reader::new(source), to: Writer::new(dest, options, precision, control)?, tally })
    }

    fn copy_file(&self, dir: &Dir<'_>, op: &Op) -> Result<Applied> {
        let source = self.from.open(dir, op)?;
        let dest_dir = self.to.dest_dir(dir)?;
        let mut meta = op.source;
        if op.what == What::CopyIfDifferent && self.same_content(dir, op, source.as_fd(), dest_dir.as_fd())? && !self.to.shares_metadata(op)
        {
            return self.set_metadata(dir, op);
        }
        let mut again = true;
        loop {
            let temp = self.to.create(dir, op, &meta, dest_dir.as_fd())?;
            let done = self.fill(dir, op, &meta, source.as_fd(), &temp, dest_dir.as_fd());
            match done {
                Ok(None) => {
                    return self.to.put_in_place(dir, op, temp, dest_dir.as_fd());
                }
                // It was changed between scan and copy: what is open now is as good, if it holds still.
                Ok(Some(now)) if again && now.kind == Kind::File && now.ino == meta.ino => {
                    temp.discard(dest_dir.as_fd());
                    (meta, again) = (now, false);
                }
                Ok(Some(_)) => {
                    temp.discard(dest_dir.as_fd());
                    return Err(changed(self.from.path(dir, op)));
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
        let read_error = |errno| SyncError::os(errno, "read", self.from.path(dir, op));
        let write_error = |errno| SyncError::os(errno, "write", self.to.dest_path(dir, op));
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
        let target = match replaced_file(op) {
            Some(old) if !self.to.keeps_replaced() => Target::in_place_of(dest, dest_dir, &op.name, old),
            _ => Target::new(dest),
        };
        let end = if meta.size == 0 {
            0
        } else {
            self.to.copier.copy(source, meta, &target, self.to.dev, from, self.to.control).map_err(failure)?
        };
        self.tally.bytes_read.fetch_add(end - from, Relaxed);
        let now = stat_fd(source).map_err(read_error)?;
        if end != meta.size || !now.same_state(meta) {
            return Ok(Some(now));
        }
        let wanted = self.from.attributes_of(dir, op, source, self.to.keep)?;
        self.to.keep.transfer(wanted.as_ref(), meta, dest, self.to.fresh(dir, temp, dest_dir)).map_err(write_error)?;
        if !self.to.keep.permissions {
            let mode = replaced_file(op).map_or(meta.mode & 0o777 & !self.to.umask, |old| old.mode);
            rustix::fs::fchmod(dest, Mode::from_raw_mode(mode)).map_err(write_error)?;
        }
        if self.to.verify {
            self.verify(source, dest, meta.size).map_err(failure)?.map_or(Ok(()), |at| {
                Err(SyncError::new(ErrorKind::Verification, format!("the copy differs from byte {at} on"))
                    .at("verify", self.to.dest_path(dir, op))
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
        let (difference, read) = first_difference(source, dest, size, self.to.control)?;
        self.tally.bytes_read.fetch_add(2 * read, Relaxed);
        if difference.is_some() {
            self.tally.verification_failures.fetch_add(1, Relaxed);
        }
        Ok(difference)
    }

    /// How much of a kept part is right. It is read, not trusted: the machine may have gone down while it was written.
    fn common_prefix(&self, source: BorrowedFd<'_>, dest: BorrowedFd<'_>, have: u64) -> Result<u64, Failure> {
        let (difference, read) = first_difference(source, dest, have, self.to.control)?;
        self.tally.bytes_read.fetch_add(2 * read, Relaxed);
        let good = difference.unwrap_or(have);
        self.to.control.bytes.fetch_add(good, Relaxed);
        Ok(good)
    }

    fn open_dest(&self, dir: &Dir<'_>, op: &Op, dest_dir: BorrowedFd<'_>) -> Result<OwnedFd> {
        self.from
            .open_quietly(READ | OFlags::NOFOLLOW, |flags| rustix::fs::openat(dest_dir, &*op.name, flags, Mode::empty()))
            .map_err(|errno| SyncError::os(errno, "read", self.to.dest_path(dir, op)))
    }

    fn same_content(&self, dir: &Dir<'_>, op: &Op, source: BorrowedFd<'_>, dest_dir: BorrowedFd<'_>) -> Result<bool> {
        let dest = self.open_dest(dir, op, dest_dir)?;
        if op.write_out {
            let _ = (write_out(source), write_out(dest.as_fd()));
        }
        let (difference, read) =
            first_difference(source, dest.as_fd(), op.source.size, self.to.control).map_err(|failure| match failure {
                Failure::Read(errno) => SyncError::os(errno, "read", self.from.path(dir, op)),
                Failure::Write(errno) => SyncError::os(errno, "read", self.to.dest_path(dir, op)),
                Failure::Cancelled => SyncError::cancelled(),
            })?;
        self.tally.bytes_read.fetch_add(2 * read, Relaxed);
        Ok(difference.is_none())
    }

    fn set_metadata(&self, dir: &Dir<'_>, op: &Op) -> Result<Applied> {
        let wanted = self.from.attributes(dir, op, self.to.keep)?;
        self.to.set_metadata(dir, op, wanted.as_ref())
    }
}

impl Lane for LocalLane<'_> {
    fn hold(&self, dir: &Dir<'_>) -> Held {
        (self.from.dir(dir).ok(), self.to.dest_dir(dir).ok())
    }

    fn apply(&self, dir: &Dir<'_>, op: &mut Op) -> Result<Done> {
        let op = &*op;
        let applied = match op.what {
            What::Copy | What::CopyIfDifferent if op.source.kind == Kind::File => self.copy_file(dir, op),
            What::Copy | What::CopyIfDifferent => {
                let wanted = self.from.attributes(dir, op, self.to.keep)?;
                self.to.make_other(dir, op, wanted.as_ref())
            }
            What::Metadata | What::Attributes => self.set_metadata(dir, op),
            What::Nothing | What::Ask => Ok(Applied::Same),
        };
        applied.map(Done::from)
    }

    fn examine(&self, dir: &Dir<'_>, op: &Op) -> Result<Applied> {
        let differs = || match &op.dest {
            Some(old) if self.to.keep.differs(&op.source, old, self.to.precision) => Ok(true),
            Some(_) => match self.from.attributes(dir, op, self.to.keep)? {
                Some(wanted) => self.to.attributes_differ(dir, op, &wanted),
                None => Ok(false),
            },
            None => Ok(false),
        };
        Ok(match op.what {
            What::CopyIfDifferent => {
                let source = self.from.open(dir, op)?;
                match self.same_content(dir, op, source.as_fd(), self.to.dest_dir(dir)?.as_fd())? {
                    false => Applied::Updated,
                    true if self.to.shares_metadata(op) => Applied::Updated,
                    true if differs()? => Applied::Metadata,
                    true => Applied::Same,
                }
            }
            What::Copy if op.dest.is_some() => Applied::Updated,
            What::Copy => Applied::Created,
            What::Metadata => Applied::Metadata,
            What::Attributes if differs()? => Applied::Metadata,
            What::Attributes | What::Nothing | What::Ask => Applied::Same,
        })
    }

    fn refresh(&self, dir: &Dir<'_>, op: &mut Op) -> Result<()> {
        self.from.refresh(dir, op)
    }

    fn examine_dir(&self, dir: &Dir<'_>) -> Result<bool> {
        if !self.to.keep.reads_attributes(Kind::Dir) || dir.like.is_none() {
            return Ok(false);
        }
        let has = self.to.keep.attributes(self.to.dest_dir(dir)?.as_fd());
        let has = has.map_err(|errno| SyncError::os(errno, "read the attributes of", self.to.root.path_of(&dir.key)))?;
        Ok(self.from.dir_attributes(dir, self.to.keep)? != has)
    }

    fn is_linked(&self, op: &Op, leader: &[u8]) -> bool {
        let (dir, name) = crate::transport::split_key(leader);
        let found = self.to.root.open_dir(dir).and_then(|dir| stat_at(dir.as_fd(), name));
        matches!((found, &op.dest), (Ok(leader), Some(own)) if leader.identity() == own.identity())
    }

    fn hard_link(&self, dir: &Dir<'_>, op: &Op, leader: &[u8]) -> Result<Option<Applied>> {
        self.to.hard_link(dir, op, leader)
    }

    fn remove_source(&self, dir: &Dir<'_>, op: &Op) -> Result<()> {
        let (source, dest) = (self.from.dir(dir)?, self.to.dest_dir(dir)?);
        let fail = |errno| SyncError::os(errno, "remove the source", self.from.path(dir, op));
        let copy = stat_at(dest.as_fd(), &op.name).map_err(fail)?;
        let same_dir = || Ok::<bool, Errno>(stat_fd(source.as_fd())?.identity() == stat_fd(dest.as_fd())?.identity());
        let itself = copy.identity() == op.source.identity() && (copy.nlink == 1 || same_dir().map_err(fail)?);
        if itself || !copy.looks_like(&op.source) {
            return Err(not_in_place(self.from.path(dir, op)));
        }
        self.from.remove(dir, op)
    }

    fn make_dir(&self, parent: &Dir<'_>, name: &[u8], source: &Meta, replaced: Option<&Meta>) -> Result<()> {
        self.to.make_dir(parent, name, source, replaced)
    }

    fn finish_dir(&self, dir: &Dir<'_>) -> Result<bool> {
        self.to.finish_dir(dir, &mut || self.from.dir_attributes(dir, self.to.keep))
    }

    fn remove(&self, dir_key: &[u8], doomed: &[Doomed], report: &mut dyn FnMut(&Doomed, Result<()>)) {
        self.to.remove(dir_key, doomed, report);
    }

    fn touch_dir(&self, key: &[u8], mtime: Time) -> Result<()> {
        self.to.touch_dir(key, mtime)
    }

    fn clean_up(&self, dir: &Dir<'_>, leftovers: &[Box<[u8]>], wanted: &[Op]) {
        self.to.clean_up(dir, leftovers, wanted);
    }

    fn sync_all(&self) -> Result<()> {
        self.to.sync_all()
    }
}
