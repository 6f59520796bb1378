//! From a host to local.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering::Relaxed;

use rustix::io::Errno;

use super::endpoint::SftpEndpoint;
use super::push::pace;
use super::reader::{Remote, SftpReader};
use super::stream::Allow;
use crate::cli::Options;
use crate::error::{ErrorKind, Result, SyncError};
use crate::sync::{Control, Dir, Tally};
use crate::transport::local::{Limiter, LocalEndpoint, Temp, Writer, changed, check_room, fits, stat_at};
use crate::transport::{Applied, Done, Doomed, Endpoint, Held, Kind, Lane, Meta, Op, Pace, Source, Time, What, not_in_place};

/// Before a file of this size is begun, the file system is asked whether it has room.
const LARGE: u64 = 64 << 20;
/// Zeros of this length, and in such places, become holes.
const BLOCK: usize = 4096;

pub struct PullLane<'r> {
    from: SftpReader<'r>,
    to: Writer<'r>,
    limiter: Option<Limiter>,
    sparse: bool,
    pace: Pace,
    tally: &'r Tally,
}

impl std::fmt::Debug for PullLane<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PullLane").finish_non_exhaustive()
    }
}

impl<'r> PullLane<'r> {
    pub fn new(
        source: &'r SftpEndpoint,
        dest: &'r LocalEndpoint,
        options: &Options,
        precision: u64,
        control: &'r Control,
        tally: &'r Tally,
    ) -> Result<Self> {
        Ok(Self {
            from: SftpReader { at: source, tally },
            to: Writer::new(dest, options, precision, control)?,
            limiter: options.bwlimit.map(|rate| Limiter::new(rate.0)),
            sparse: options.sparse,
            pace: pace(options),
            tally,
        })
    }

    fn copy(&self, dir: &Dir<'_>, op: &mut Op) -> Result<Applied> {
        fits(&op.name).map_err(|error| error.at("create", self.from.path(dir, op)))?;
        if op.source.kind != Kind::File {
            return self.to.make_other(dir, op, None);
        }
        let remote = self.from.open(dir, op)?;
        // What is open now is as good as what was listed.
        op.source = Meta { nlink: op.source.nlink, ..remote.meta };
        let dest_dir = self.to.dest_dir(dir)?;
        let temp = self.to.create(dir, op, &op.source, dest_dir.as_fd())?;
        if let Err(error) = self.fill(dir, op, &remote, &temp, dest_dir.as_fd()) {
            // A cut-off transfer is kept; what can't be right is not.
            if !temp.part || matches!(error.kind, ErrorKind::Verification | ErrorKind::SourceChanged) {
                temp.discard(dest_dir.as_fd());
            }
            return Err(error);
        }
        self.to.put_in_place(dir, op, temp, dest_dir.as_fd())
    }

    fn fill(&self, dir: &Dir<'_>, op: &Op, remote: &Remote<'_>, temp: &Temp, dest_dir: BorrowedFd<'_>) -> Result<()> {
        let (fd, size, path) = (temp.fd.as_fd(), remote.meta.size, self.to.dest_path(dir, op));
        let write_error = |errno| SyncError::os(errno, "write", &path);
        let mut hash = self.to.verify.then(blake3::Hasher::new);
        if size >= LARGE && temp.have == 0 {
            check_room(fd, size).map_err(write_error)?;
        }
        // What an earlier run left is compared as the content comes by; from where it differs on it is written.
        let have = temp.have.min(size);
        let (mut at, mut same) = (0, have > 0);
        let mut old = Vec::new();
        let allow = |want| self.allowance(want);
        let mut pieces = remote.pieces(0..size).limited(self.limiter.as_ref().map(|_| &allow as Allow<'_>));
        while at < size {
            if self.to.control.should_stop() {
                return Err(SyncError::cancelled());
            }
            let Some((_, data)) = pieces.next().map_err(|failure| remote.fail(failure))? else { break };
            let mut rest = &data[..];
            if same {
                let known = rest.len().min((have - at) as usize);
                old.resize(known, 0);
                read_at(fd, &mut old, at).map_err(write_error)?;
                if old[..] == rest[..known] {
                    rest = &rest[known..];
                    same = at + (known as u64) < have;
                } else {
                    same = false;
                    rustix::fs::ftruncate(fd, at).map_err(write_error)?;
                }
            }
            let start = at + (data.len() - rest.len()) as u64;
            self.write(fd, rest, start).map_err(write_error)?;
            if let Some(hash) = &mut hash {
                hash.update(&data);
            }
            at += data.len() as u64;
            self.to.control.bytes.fetch_add(data.len() as u64, Relaxed);
            self.tally.bytes_read.fetch_add(data.len() as u64, Relaxed);
        }
        drop(pieces);
        let state = remote.ask_state().map_err(|failure| remote.fail(failure))?;
        if at != size {
            return Err(changed(self.from.path(dir, op)));
        }
        remote.is_still(state)?;
        rustix::fs::ftruncate(fd, size).map_err(write_error)?;
        self.to.describe(dir, op, &op.source, None, temp, dest_dir)?;
        match hash {
            Some(hash) => self.verify(fd, size, &hash.finalize(), &path),
            None => Ok(()),
        }
    }

    /// Writes; zeros that make up whole blocks are left out.
    fn write(&self, fd: BorrowedFd<'_>, bytes: &[u8], at: u64) -> Result<(), Errno> {
        if !self.sparse {
            return write_at(fd, bytes, at);
        }
        let is_hole = |block: &[u8]| block.len() == BLOCK && block.iter().all(|&b| b == 0);
        let lead = ((BLOCK as u64 - at % BLOCK as u64) % BLOCK as u64).min(bytes.len() as u64) as usize;
        write_at(fd, &bytes[..lead], at)?;
        let (bytes, at) = (&bytes[lead..], at + lead as u64);
        let mut start = 0;
        while start < bytes.len() {
            let end = |n: usize| (n + BLOCK).min(bytes.len());
            let hole = is_hole(&bytes[start..end(start)]);
            let mut stop = end(start);
            while stop < bytes.len() && is_hole(&bytes[stop..end(stop)]) == hole {
                stop = end(stop);
            }
            if !hole {
                write_at(fd, &bytes[start..stop], at + start as u64)?;
            }
            start = stop;
        }
        Ok(())
    }

    /// `verify`: reads the file back from the disk.
    fn verify(&self, fd: BorrowedFd<'_>, size: u64, expected: &blake3::Hash, path: &[u8]) -> Result<()> {
        let read = (|| {
            rustix::fs::fdatasync(fd)?;
            let _ = rustix::fs::fadvise(fd, 0, None, rustix::fs::Advice::DontNeed);
            let mut hash = blake3::Hasher::new();
            let (mut at, mut piece) = (0, vec![0; 256 << 10]);
            while at < size {
                let want = (size - at).min(piece.len() as u64) as usize;
                read_at(fd, &mut piece[..want], at)?;
                hash.update(&piece[..want]);
                at += want as u64;
            }
            Ok(hash.finalize())
        })();
        self.tally.bytes_read.fetch_add(size, Relaxed);
        let same = read.map_err(|errno| SyncError::os(errno, "verify", path))? == *expected;
        let counter = if same { &self.tally.files_verified } else { &self.tally.verification_failures };
        counter.fetch_add(1, Relaxed);
        if same {
            return Ok(());
        }
        Err(SyncError::new(ErrorKind::Verification, "what is on disk is not what arrived").at("verify", path).retryable())
    }

    fn same_content(&self, dir: &Dir<'_>, op: &Op) -> Result<bool> {
        let Some(old) = op.dest.filter(|old| op.source.kind == Kind::File && old.kind == Kind::File) else { return Ok(false) };
        if old.size != op.source.size {
            return Ok(false);
        }
        let remote = self.from.open(dir, op)?;
        if !remote.meta.same_state(&op.source) {
            return Err(changed(self.from.path(dir, op)));
        }
        let fd = self.to.open_dest(dir, op)?;
        let fail = |errno| SyncError::os(errno, "read", self.to.dest_path(dir, op));
        let allow = |want| self.allowance(want);
        let mut pieces = remote.pieces(0..old.size).limited(self.limiter.as_ref().map(|_| &allow as Allow<'_>));
        let (mut piece, mut end) = (Vec::new(), 0);
        while let Some((at, data)) = pieces.next().map_err(|failure| remote.fail(failure))? {
            if self.to.control.should_stop() {
                return Err(SyncError::cancelled());
            }
            piece.resize(data.len(), 0);
            self.tally.bytes_read.fetch_add(2 * data.len() as u64, Relaxed);
            if read_at(fd.as_fd(), &mut piece, at).map_err(fail)? < data.len() || piece[..] != data[..] {
                return Ok(false);
            }
            end = at + data.len() as u64;
        }
        drop(pieces);
        remote.is_still(remote.ask_state().map_err(|failure| remote.fail(failure))?)?;
        Ok(end == old.size)
    }

    /// Waits until bytes may flow; returns how many.
    fn allowance(&self, want: u64) -> Result<u64> {
        match &self.limiter {
            Some(limiter) => limiter.take(want, self.to.control).map_err(|_| SyncError::cancelled()),
            None => Ok(want),
        }
    }

    fn differs(&self, op: &Op) -> bool {
        op.dest.is_some_and(|old| self.to.keep.differs(&op.source, &old, self.to.precision))
    }

    /// Does the destination's file have other names, and metadata that are not the source's?
    fn shares_metadata(&self, op: &Op) -> bool {
        op.dest.is_some_and(|old| op.source.nlink == 1 && old.nlink > 1) && self.differs(op)
    }

    fn set_metadata(&self, dir: &Dir<'_>, op: &Op) -> Result<Applied> {
        match &op.dest {
            Some(old) if self.differs(op) => {
                self.to.must_be_still(dir, op, old)?;
                self.to.set_listed(dir, op, old)?;
                Ok(Applied::Metadata)
            }
            _ => Ok(Applied::Same),
        }
    }
}

fn write_at(fd: BorrowedFd<'_>, mut bytes: &[u8], mut at: u64) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::retry_on_intr(|| rustix::io::pwrite(fd, bytes, at))? {
            0 => return Err(Errno::NOSPC),
            n => {
                bytes = &bytes[n..];
                at += n as u64;
            }
        }
    }
    Ok(())
}

/// Reads until the buffer is full or the file ends; what is missing counts as zeros.
fn read_at(fd: BorrowedFd<'_>, buffer: &mut [u8], at: u64) -> Result<usize, Errno> {
    let mut filled = 0;
    while filled < buffer.len() {
        match rustix::io::retry_on_intr(|| rustix::io::pread(fd, &mut buffer[filled..], at + filled as u64))? {
            0 => break,
            n => filled += n,
        }
    }
    buffer[filled..].fill(0);
    Ok(filled)
}

impl Lane for PullLane<'_> {
    fn pace(&self) -> Pace {
        self.pace
    }

    fn hold(&self, dir: &Dir<'_>) -> Held {
        (None, self.to.dest_dir(dir).ok())
    }

    fn apply(&self, dir: &Dir<'_>, op: &mut Op) -> Result<Done> {
        let applied = match op.what {
            What::CopyIfDifferent if self.same_content(dir, op)? && !self.shares_metadata(op) => self.set_metadata(dir, op),
            What::Copy | What::CopyIfDifferent => self.copy(dir, op),
            What::Metadata => self.set_metadata(dir, op),
            What::Attributes | What::Nothing | What::Ask => Ok(Applied::Same),
        };
        applied.map(Done::from)
    }

    fn examine(&self, dir: &Dir<'_>, op: &Op) -> Result<Applied> {
        Ok(match op.what {
            What::CopyIfDifferent if self.same_content(dir, op)? && !self.shares_metadata(op) => {
                if self.differs(op) {
                    Applied::Metadata
                } else {
                    Applied::Same
                }
            }
            What::Copy | What::CopyIfDifferent => {
                fits(&op.name).map_err(|error| error.at("create", self.from.path(dir, op)))?;
                if op.dest.is_some() { Applied::Updated } else { Applied::Created }
            }
            What::Metadata => Applied::Metadata,
            What::Attributes | What::Nothing | What::Ask => Applied::Same,
        })
    }

    fn refresh(&self, dir: &Dir<'_>, op: &mut Op) -> Result<()> {
        Source::refresh(&self.from, dir, op)
    }

    fn examine_make_dir(&self, parent: &Dir<'_>, name: &[u8]) -> Result<()> {
        fits(name).map_err(|error| error.at("create", self.from.at.path_of(&parent.key_of(name))))
    }

    fn make_dir(&self, parent: &Dir<'_>, name: &[u8], source: &Meta, replaced: Option<&Meta>) -> Result<()> {
        self.examine_make_dir(parent, name)?;
        self.to.make_dir(parent, name, source, replaced)
    }

    fn finish_dir(&self, dir: &Dir<'_>) -> Result<bool> {
        self.to.finish_dir(dir, &mut || Err(SyncError::unsupported("SFTP tells no attributes of directories")))
    }

    fn remove_source(&self, dir: &Dir<'_>, op: &Op) -> Result<()> {
        let copy = stat_at(self.to.dest_dir(dir)?.as_fd(), &op.name);
        if !copy.is_ok_and(|copy| copy.looks_like(&op.source)) {
            return Err(not_in_place(self.from.path(dir, op)));
        }
        self.from.remove(dir, op)
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
